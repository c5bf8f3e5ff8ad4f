/* The sliding window of convolutions and poolings: attributes read, checked and turned into
 * expressions. */
#pragma once
#include "ir/op/kit.h"
#include "ir/ops/nn/contraction.h"

enum {
  /* Of a kernel size, stride, dilation or pad: products stay in 64 bits */
  WINDOW_MAX_VALUE = 0x3fffffff
};

/* Spatial input value x has rank 2 + spatial. `kernel`: sizes from the weights, or NULL (attribute
 * kernel_shape is required). Checks every attribute. ConvTranspose has rules of its own on top
 * (conv_transpose_window). */
bool window_check(Model *m, const Node *n, const Value *x, const int64_t *kernel);
/* Reads what window_check accepted. */
Window window_get(ExprPool *p, const Node *n, const Value *x, const int64_t *kernel);
/* Output size along spatial dim d. */
const Expr *window_out(ExprPool *p, const Node *n, const Window *w, int d, const Expr *in);
/* The same for all spatial dims into dims[2…]; a constant size below 1 is an error. */
bool window_out_dims(Model *m, const Node *n, const Window *w, const Value *x, const Expr **dims);
static inline int64_t window_extent(const Window *w, int d) {
  return (w->kernel[d] - 1) * w->dilation[d] + 1;
}

/* The taps of one output: variables over the kernel, input positions, and where these are inside
 * the input. */
typedef struct Taps {
  const Expr *vars[MAX_SPATIAL], *at[MAX_SPATIAL];
  const Expr *inside; /* true constant when no tap can fall outside */
} Taps;
Taps window_taps(ElemCtx *c, const Window *w, const Value *x,
                 const Expr *const *out_idx /* of the spatial dims */);
/* Kernel sizes of weights [a, b, k…]; false (reported) unless constant and at least 1. */
bool window_weights(Model *m, const Node *n, int k, int64_t *kernel);
void window_weights_get(const Value *w, int64_t *kernel);
