/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and what all quantized operators share.
 * docs/quantization.md is the specification. */
#include "ir/ops/nn/nn_quant.h"

#include <math.h>

/* ---- shared ---- */
bool quant_need_8bit(Model *m, const Node *n, int k) {
  const Value *v = node_in(n, k);
  if (!v || value_is_byte(v)) return true;
  return op_error(m, n, ERR_TYPE, "input %d is %s, must be u8 or i8", k, dtype_text(v->dtype));
}

bool quant_need_lane(Model *m, const Node *n, int k, const Expr *size, const char *what) {
  const Value *v = node_in(n, k);
  return !v || value_one_element(v) || kit_need_vector(m, n, k, size, what);
}

const Expr *quant_lane(ElemCtx *c, const Node *n, int k, const Expr *channel, DType t) {
  return value_one_element(n->in[k]) ? kit_scalar(c, n, k, t) : kit_in1(c, n, k, channel, t);
}

const Expr *quant_zero(ElemCtx *c, const Node *n, int k) {
  return node_in(n, k) ? kit_scalar(c, n, k, DT_I32) : NULL;
}

Value *quant_plain(Build *b, Value *v) {
  if (!v || !b->ok || !v->rank || !value_one_element(v)) return v;
  return build_op(b, "Reshape", 2, (Value *[]){v, build_i64s(b, 0, NULL)}, 0, NULL);
}

/* x between bounds; NaN becomes the lower one. */
static const Expr *between(ElemCtx *c, const Expr *x, const Expr *lo, const Expr *hi) {
  ExprPool *p = c->pool;
  x = ex_select(p, ex_lt(p, lo, x), x, lo);
  return ex_select(p, ex_lt(p, x, hi), x, hi);
}

/* rint(x) + zero for |x| < 2^22: in 1.5 * 2^23 + x, ulps are ones, and the low bits count them. */
static const Expr *round_shift(ElemCtx *c, const Expr *x, const QuantTo *to) {
  static const double magic = 12582912;
  enum { MAGIC_BITS = 0x4B400000 };
  ExprPool *p = c->pool;
  const Expr *n = ex_bits(p, DT_I32, ex_add(p, x, ex_const(p, DT_F32, magic)));
  const Expr *shift = ex_int(p, DT_I32, -MAGIC_BITS);
  return ex_cast(p, to->t, ex_add(p, n, to->zero ? ex_add(p, to->zero, shift) : shift));
}

static int64_t int_end(DType t, bool top) {
  const bool is_signed = dtype_rows[t].cls == DC_SINT;
  const int bits = dtype_rows[t].bits - is_signed;
  return top ? (INT64_C(1) << bits) - 1 : is_signed ? -(INT64_C(1) << bits) : 0;
}

/* The least or greatest real number, in units of the scale, that is a result. */
static const Expr *end_of(ElemCtx *c, const QuantTo *to, bool top) {
  ExprPool *p = c->pool;
  const Expr *end = top ? to->hi : to->lo;
  if (!end) end = ex_int(p, DT_I32, int_end(to->t, top));
  return ex_cast(p, DT_F32, to->zero ? ex_sub(p, end, to->zero) : end);
}

const Expr *quant_requantize(ElemCtx *c, const Expr *acc, const Expr *scale, const QuantTo *to) {
  const Expr *x = ex_mul(c->pool, ex_cast(c->pool, DT_F32, acc), scale);
  return round_shift(c, between(c, x, end_of(c, to, false), end_of(c, to, true)), to);
}

/* x / s without a division, for x whose quotient is rounded to an integer of 22 bits. r is 1/s
 * rounded; one Newton step with the remainder, which fma gives exactly, rounds x*r as a division
 * would (P. Markstein, Computation of elementary functions on the IBM RISC System/6000 processor,
 * 1990, theorem 7.1), unless it is tiny, and rounds to 0 in any case. */
static const Expr *quotient(ElemCtx *c, const Expr *x, double s) {
  ExprPool *p = c->pool;
  const double r = (float)(1 / s);
  int exponent;
  const Expr *q = ex_mul(p, x, ex_const(p, DT_F32, r));
  if (frexp(s, &exponent) == 0.5) return q;
  const Expr *rest = ex_op(p, EX_fma, kit_op1(c, EX_neg, q), ex_const(p, DT_F32, s), x);
  return ex_op(p, EX_fma, rest, ex_const(p, DT_F32, r), q);
}

/* Scales for which nothing overflows, and for which remainders below the normal numbers belong to
 * quotients that round to 0. */
static bool is_moderate(double s) { return s >= 0x1p-60 && s <= 0x1p60; }

/* Limits are taken of the dividend, so that quotients are small: limit * s / s rounds to it. */
const Expr *quant_from_real(ElemCtx *c, const Expr *real, const Expr *scale, const QuantTo *to) {
  ExprPool *p = c->pool;
  const Expr *lo = end_of(c, to, false), *hi = end_of(c, to, true);
  const bool known = scale->op == EX_CONST && lo->op == EX_CONST && hi->op == EX_CONST;
  if (!known || !is_moderate(scale->k.f))
    return round_shift(c, between(c, ex_div(p, real, scale), lo, hi), to);
  const Expr *x = between(c, real, ex_mul(p, lo, scale), ex_mul(p, hi, scale));
  int exponent;
  const bool exact = !expr_pool_rules(p)->split_fma || frexp(scale->k.f, &exponent) == 0.5;
  return round_shift(c, exact ? quotient(c, x, scale->k.f) : ex_div(p, x, scale), to);
}

const Expr *quant_to_real(ElemCtx *c, const Node *n, int k, int scale, int zp,
                          const Expr *const *idx) {
  const Expr *x = kit_in(c, n, k, idx, DT_I32), *z = quant_zero(c, n, zp);
  if (z) x = ex_sub(c->pool, x, z);
  return ex_mul(c->pool, ex_cast(c->pool, DT_F32, x), kit_scalar(c, n, scale, DT_F32));
}

/* ---- granularity of scale and zero point: per tensor, per axis, per block ---- */
typedef struct Grain {
  int axis;      /* -1: per tensor */
  int64_t block; /* 0: not blocked */
} Grain;

static Grain grain_of(const Node *n) {
  const Value *x = n->in[0], *s = n->in[1];
  Grain g = {.axis = -1, .block = node_int(n, "block_size", 0)};
  if (!g.block && value_one_element(s) && s->rank <= 1) return g;
  const int64_t axis = node_int(n, "axis", 1);
  g.axis = (int)(axis < 0 ? axis + x->rank : axis);
  return g;
}

static bool check_blocked(Model *m, const Node *n, int axis, int64_t block) {
  const Value *x = n->in[0], *s = n->in[1];
  const Expr *same;
  if (s->rank != x->rank)
    return op_error(m, n, ERR_RANK, "blocked scale has rank %d, input has %d", s->rank, x->rank);
  for (int d = 0; d < x->rank; d++) {
    const Expr *want = d == axis ? ex_ceildiv(m->pool, x->dims[d], block) : x->dims[d];
    if (!op_same_dim(m, n, s->dims[d], want, "dims of the blocked scale", &same)) return false;
  }
  return true;
}

static bool same_shape(Model *m, const Node *n, int a, int b) {
  const Value *x = n->in[a], *y = node_in(n, b);
  const Expr *same;
  if (!y) return true;
  if (value_one_element(x) && value_one_element(y)) return true;
  if (x->rank != y->rank)
    return op_error(m, n, ERR_RANK, "scale and zero point have different ranks");
  for (int d = 0; d < x->rank; d++)
    if (!op_same_dim(m, n, x->dims[d], y->dims[d], "dims of scale and zero point", &same))
      return false;
  return true;
}

static bool check_grain(Model *m, const Node *n) {
  const Value *x = n->in[0], *s = n->in[1];
  int64_t block;
  int axis;
  if (!op_int_in(m, n, "block_size", 0, 0, INT32_MAX, &block) || !same_shape(m, n, 1, 2))
    return false;
  if (!block && value_one_element(s) && s->rank <= 1) return true;
  if (!op_axis(m, n, "axis", 1, x->rank, &axis)) return false;
  return block ? check_blocked(m, n, axis, block)
               : kit_need_vector(m, n, 1, x->dims[axis], "scale");
}

static const Expr *grain_read(ElemCtx *c, const Node *n, int k, const Expr *const *idx, DType t) {
  const Value *x = n->in[0];
  const Grain g = grain_of(n);
  const Expr *at[MAX_RANK];
  if (g.axis < 0) return kit_scalar(c, n, k, t);
  if (!g.block) return kit_in1(c, n, k, idx[g.axis], t);
  for (int d = 0; d < x->rank; d++) at[d] = idx[d];
  at[g.axis] = ex_floordiv(c->pool, at[g.axis], ex_i64(c->pool, g.block));
  return kit_in(c, n, k, at, t);
}

/* Attribute output_dtype; absent or 0: def. */
static bool output_dtype(Model *m, const Node *n, DType def, DType *t) {
  int64_t code;
  *t = def;
  return op_int(m, n, "output_dtype", 0, &code) &&
         (code == 0 || op_dtype(m, n, "output_dtype", def, t));
}

/* ---- QuantizeLinear ---- */
static bool quantized_type(DType t) {
  return dtype_rows[t].bits <= 16 && t != DT_BOOL && t != DT_F16 && t != DT_BF16;
}

bool infer_quantize(Model *m, Node *n) {
  const Value *zp = node_in(n, 2);
  int64_t v;
  DType t;
  if (!op_need_class(m, n, 0, CL_FLOAT | CL_INT) || !op_need_class(m, n, 1, CL_FLOAT) ||
      !check_grain(m, n) || !op_int_in(m, n, "saturate", 1, 0, 1, &v) ||
      !output_dtype(m, n, zp ? zp->dtype : DT_U8, &t))
    return false;
  if (!dtype_is_float(n->in[0]->dtype) && !op_need_dtype(m, n, 0, DT_I32)) return false;
  if (zp && zp->dtype != t)
    return op_error(m, n, ERR_TYPE, "output_dtype is %s, zero point is %s", dtype_text(t),
                    dtype_text(zp->dtype));
  if (!quantized_type(t)) return op_error(m, n, ERR_TYPE, "cannot quantize to %s", dtype_text(t));
  return op_out_like(m, n, 0, t, n->in[0]);
}

const Expr *elem_quantize(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = n->out[out]->dtype;
  const Expr *x = kit_in(c, n, 0, idx, DT_F32), *scale = grain_read(c, n, 1, idx, DT_F32);
  if (!dtype_is_float(t)) {
    const Expr *zero = node_in(n, 2) ? grain_read(c, n, 2, idx, DT_I32) : NULL;
    return quant_from_real(c, x, scale, &(QuantTo){.t = t, .zero = zero});
  }
  const Expr *q = ex_div(p, x, scale);
  if (node_in(n, 2)) q = ex_add(p, q, grain_read(c, n, 2, idx, DT_F32));
  return node_int(n, "saturate", 1) ? ex_sat(p, t, q) : ex_cast(p, t, q);
}

/* ---- DequantizeLinear ---- */
bool infer_dequantize(Model *m, Node *n) {
  const DType x = n->in[0]->dtype;
  DType t;
  if (!quantized_type(x) && x != DT_I32)
    return op_error(m, n, ERR_TYPE, "cannot dequantize %s", dtype_text(x));
  if (!op_need_class(m, n, 1, CL_FLOAT) || !op_same_dtype(m, n, 2, 0) || !check_grain(m, n) ||
      !output_dtype(m, n, n->in[1]->dtype, &t))
    return false;
  if (!dtype_is_float(t)) return op_error(m, n, ERR_TYPE, "cannot dequantize to %s", dtype_text(t));
  return op_out_like(m, n, 0, t, n->in[0]);
}

const Expr *elem_dequantize(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = dtype_is_float(n->in[0]->dtype) ? DT_F32 : DT_I32;
  const Expr *x = kit_in(c, n, 0, idx, t);
  if (node_in(n, 2)) x = ex_sub(p, x, grain_read(c, n, 2, idx, t));
  return kit_ret(c, n, out, ex_mul(p, ex_cast(p, DT_F32, x), grain_read(c, n, 1, idx, DT_F32)));
}

/* The scale or zero point k as broadcasts to the input. */
static Value *grain_build(Build *b, const Node *n, Value *v) {
  const Value *x = n->in[0];
  const Grain g = grain_of(n);
  int64_t shape[MAX_RANK];
  if (g.axis < 0) return build_reshape(b, v, 0, NULL);
  if (!g.block) {
    for (int d = 0; d < x->rank; d++) shape[d] = d == g.axis ? -1 : 1;
    return build_reshape(b, v, x->rank, shape);
  }
  const Attr axis = attr_int(b->m->arena, "axis", g.axis);
  int64_t ones[MAX_RANK + 1];
  for (int d = 0; d <= x->rank; d++) ones[d] = d == g.axis + 1 ? g.block : 1;
  v = build_unsqueeze(b, v, g.axis + 1);
  v = b->ok ? build2(b, "Expand", v, build_i64s(b, x->rank + 1, ones)) : v;
  Value *parts[3] = {g.axis ? build_shape(b, v, 0, g.axis) : NULL,
                     build_i64s(b, 1, (const int64_t[]){-1}),
                     g.axis + 2 < v->rank ? build_shape(b, v, g.axis + 2, v->rank) : NULL};
  Value *list[3];
  int count = 0;
  for (int k = 0; k < 3; k++)
    if (parts[k]) list[count++] = parts[k];
  const Attr along = attr_int(b->m->arena, "axis", 0);
  v = b->ok ? build2(b, "Reshape", v, build_op(b, "Concat", count, list, 1, &along)) : v;
  Value *cut[] = {v, build_i64s(b, 1, (const int64_t[]){0}),
                  build_shape(b, n->in[0], g.axis, g.axis + 1), build_i64s(b, 1, axis.ints)};
  return b->ok ? build_op(b, "Slice", 4, cut, 0, NULL) : v; /* the last block may be short */
}

/* The scale times what the input is beyond its zero point; none passes to the integers. */
bool parts_dequantize(Build *b, Node *n, Value **out) {
  const DType t = n->out[0]->dtype, whole = dtype_is_float(n->in[0]->dtype) ? DT_F32 : DT_I32;
  Value *x = build_cast(b, n->in[0], whole);
  if (node_in(n, 2)) {
    Value *zero = grain_build(b, n, n->in[2]);
    x = b->ok ? build2(b, "Sub", x, build_cast(b, zero, whole)) : x;
  }
  Value *scale = b->ok ? grain_build(b, n, n->in[1]) : x;
  if (!b->ok) return false;
  Value *y = build2(b, "Mul", build_cast(b, x, DT_F32), build_cast(b, scale, DT_F32));
  out[0] = build_cast(b, y, t);
  return b->ok;
}

/* ---- Requantize (internal): the sum of a quantized product, its scale, the zero point; the least
 * and the greatest result ---- */
bool infer_requantize(Model *m, Node *n) {
  const Value *x = n->in[0];
  for (int k = 2; k < n->n_in; k++)
    if (!quant_need_8bit(m, n, k) || !kit_need_scalar(m, n, k, "zero point or limit") ||
        !op_same_dtype(m, n, k, 2))
      return false;
  return op_need_class(m, n, 0, CL_FLOAT | CL_INT) && op_need_dtype(m, n, 1, DT_F32) &&
         op_broadcasts_to(m, n, 1, x->rank, x->dims) && op_out_like(m, n, 0, n->in[2]->dtype, x);
}

const Expr *elem_requantize(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const QuantTo to = {.t = n->out[out]->dtype,
                      .zero = quant_zero(c, n, 2),
                      .lo = quant_zero(c, n, 3),
                      .hi = quant_zero(c, n, 4)};
  return quant_requantize(c, elem_in(c, n, 0, idx), kit_bcast(c, n, 1, idx, DT_F32), &to);
}

/* ---- ByteTable (internal): x of 8 bits, the 256 results by its bits as an unsigned number ---- */
bool infer_byte_table(Model *m, Node *n) {
  return quant_need_8bit(m, n, 0) && quant_need_8bit(m, n, 1) &&
         kit_need_vector(m, n, 1, ex_i64(m->pool, 256), "table") &&
         op_out_like(m, n, 0, n->in[1]->dtype, n->in[0]);
}

const Expr *elem_byte_table(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Expr *bits = ex_bits(c->pool, DT_U8, elem_in(c, n, 0, idx));
  const Expr *at = ex_cast(c->pool, DT_I64, bits);
  return elem_in(c, n, 1, &at);
}

/* ---- DynamicQuantizeLinear: y, scale, zero point from the range of x, which includes 0 ---- */
bool infer_dynamic_quantize(Model *m, Node *n) {
  return op_need_dtype(m, n, 0, DT_F32) && op_out_like(m, n, 0, DT_U8, n->in[0]) &&
         op_out(m, n, 1, DT_F32, 0, NULL) && op_out(m, n, 2, DT_U8, 0, NULL);
}

/* The end of the range on one side: of all elements, and 0. */
static Value *range_end(Build *b, Value *x, const char *reduce, const char *with_zero) {
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  Value *in[2] = {x->rank ? build_op(b, reduce, 1, &x, 1, &keep) : x, build_scalar(b, DT_F32, 0)};
  return b->ok ? build_op(b, with_zero, 2, in, 0, NULL) : x;
}

/* Both ends are found once, and scale and zero point computed once of them. */
bool expand_dynamic_quantize(Build *b, Node *n, Value **out) {
  Value *x = n->in[0], *lo = range_end(b, x, "ReduceMin", "Min");
  Value *hi = b->ok ? range_end(b, x, "ReduceMax", "Max") : x;
  if (!b->ok) return false;
  Value *zero = build_scalar(b, DT_F32, 0), *span = build2(b, "Sub", hi, lo);
  if (!b->ok) return false;
  Value *where[3] = {build2(b, "Equal", span, zero), build_scalar(b, DT_F32, 1), NULL};
  if (b->ok) where[2] = build2(b, "Div", span, build_scalar(b, DT_F32, 255));
  if (b->ok) out[1] = build_op(b, "Where", 3, where, 0, NULL);
  Value *below = b->ok ? build2(b, "Sub", zero, lo) : NULL;
  if (b->ok) out[2] = build2(b, "QuantizeLinear", below, out[1]);
  if (b->ok) out[0] = build_op(b, "QuantizeLinear", 3, (Value *[]){x, out[1], out[2]}, 0, NULL);
  return b->ok;
}
