/* The transforms of a Winograd form F(m×m, 3×3) as expressions, and its weights: of floats, and of
 * 8-bit integers, whose results are exact (choose/winograd_exact.c has the bounds). */
#pragma once
#include "ir/expr/expr.h"
#include "ir/graph/graph.h"

enum { WINOGRAD_IN = 8, WINOGRAD_POINTS = WINOGRAD_IN * WINOGRAD_IN };

typedef struct WinogradForm {
  ExprPool *p;
  int out;       /* m: 2, 4 or 6; of integers 2 or 4 */
  bool integers; /* in 16 bits, their products in 32 */
} WinogradForm;

/* Of transformed inputs and weights; of their products. */
DType winograd_element(const WinogradForm *f);
DType winograd_product(const WinogradForm *f);
/* m + 2 values of a row or column of the input through Bᵀ; of products through Aᵀ, to m. */
void winograd_input_line(const WinogradForm *f, const Expr *const *x, const Expr **y);
void winograd_output_line(const WinogradForm *f, const Expr *const *m, const Expr **y);
/* The sum that an element transformed in both directions stands for. */
const Expr *winograd_sum(const WinogradForm *f, const Expr *e);
/* Weights [c_out][c_in][taps][3][3] through G as [points][taps][c_in][c_out], in `a`. */
ConstData *winograd_weights(const WinogradForm *f, const ConstData *w, int64_t c_out, int64_t c_in,
                            int64_t taps, Arena *a);
