/* Quantized arithmetic shared by convolutions, products and poolings. */
#pragma once
#include "ir/op/kit.h"

bool quant_need_8bit(Model *m, const Node *n, int k); /* u8 or i8; absent inputs pass */
/* Input k has one element, or one per `size` along a channel. Absent inputs pass. */
bool quant_need_lane(Model *m, const Node *n, int k, const Expr *size, const char *what);
/* Element of such an input for a channel. */
const Expr *quant_lane(ElemCtx *c, const Node *n, int k, const Expr *channel, DType t);
/* A quantized type with what its values mean. */
typedef struct QuantTo {
  DType t;             /* an integer of at most 16 bits */
  const Expr *zero;    /* the zero point as i32; NULL: 0 */
  const Expr *lo, *hi; /* the least and greatest result as i32; NULL: of the type */
} QuantTo;
/* rint(acc * scale) + zero, saturated (docs/quantization.md). acc: i32 or f32; scale: f32. */
const Expr *quant_requantize(ElemCtx *c, const Expr *acc, const Expr *scale, const QuantTo *to);
/* The same for a real value: rint(real / scale) + zero. */
const Expr *quant_from_real(ElemCtx *c, const Expr *real, const Expr *scale, const QuantTo *to);
/* (input k - zero point) * scale in f32; zp and scale are inputs of one element; zp may be
 * absent. */
const Expr *quant_to_real(ElemCtx *c, const Node *n, int k, int scale, int zp,
                          const Expr *const *idx);
/* The one element of input k as i32, or NULL where absent. */
const Expr *quant_zero(ElemCtx *c, const Node *n, int k);
/* One element of whatever rank as a scalar; others as they are. */
Value *quant_plain(Build *b, Value *v);
