/* Quantized arithmetic shared by convolutions, products and poolings. */
#pragma once
#include "ir/op/kit.h"

bool quant_need_8bit(Model *m, const Node *n, int k); /* u8 or i8; absent inputs pass */
/* Input k has one element, or one per `size` along a channel. Absent inputs pass. */
bool quant_need_lane(Model *m, const Node *n, int k, const Expr *size, const char *what);
/* Element of such an input for a channel. */
const Expr *quant_lane(ElemCtx *c, const Node *n, int k, const Expr *channel, DType t);
/* rint(acc * scale) + zero_point, saturated to t. acc: i32; scale: f32; zero_point: i32 (NULL:
 * 0). */
const Expr *quant_requantize(ElemCtx *c, const Expr *acc, const Expr *scale, const Expr *zero_point,
                             DType t);
/* The same for a real value: rint(real / scale) + zero_point. */
const Expr *quant_from_real(ElemCtx *c, const Expr *real, const Expr *scale, const Expr *zero_point,
                            DType t);
/* (input k - zero point) * scale in f32; zp and scale are inputs of one element; zp may be
 * absent. */
const Expr *quant_to_real(ElemCtx *c, const Node *n, int k, int scale, int zp,
                          const Expr *const *idx);
/* The one element of input k as i32, or NULL where absent. */
const Expr *quant_zero(ElemCtx *c, const Node *n, int k);
