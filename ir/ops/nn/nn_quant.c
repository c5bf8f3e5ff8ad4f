/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and what all quantized operators share.
 * Values are divided and rounded (half to even) in f32; a real is moved by the zero point before it
 * saturates. */
#include "ir/ops/nn/nn_quant.h"

/* ---- shared ---- */
bool quant_need_8bit(Model *m, const Node *n, int k) {
  const Value *v = node_in(n, k);
  if (!v || v->dtype == DT_U8 || v->dtype == DT_I8) return true;
  return op_error(m, n, ERR_TYPE, "input %d is %s, must be u8 or i8", k, dtype_text(v->dtype));
}

static bool one_element(const Value *v) {
  for (int d = 0; d < v->rank; d++)
    if (!expr_is_i64(v->dims[d], 1)) return false;
  return true;
}

bool quant_need_lane(Model *m, const Node *n, int k, const Expr *size, const char *what) {
  const Value *v = node_in(n, k);
  return !v || one_element(v) || kit_need_vector(m, n, k, size, what);
}

const Expr *quant_lane(ElemCtx *c, const Node *n, int k, const Expr *channel, DType t) {
  return one_element(n->in[k]) ? kit_scalar(c, n, k, t) : kit_in1(c, n, k, channel, t);
}

const Expr *quant_zero(ElemCtx *c, const Node *n, int k) {
  return node_in(n, k) ? kit_scalar(c, n, k, DT_I32) : NULL;
}

static const Expr *round_shift(ElemCtx *c, const Expr *v, const Expr *zero_point, DType t) {
  const Expr *r = kit_op1(c, EX_rint, v);
  if (zero_point) r = ex_add(c->pool, r, ex_cast(c->pool, (DType)r->dtype, zero_point));
  return ex_sat(c->pool, t, r);
}

const Expr *quant_requantize(ElemCtx *c, const Expr *acc, const Expr *scale, const Expr *zero_point,
                             DType t) {
  return round_shift(c, ex_mul(c->pool, ex_cast(c->pool, DT_F32, acc), scale), zero_point, t);
}

const Expr *quant_from_real(ElemCtx *c, const Expr *real, const Expr *scale, const Expr *zero_point,
                            DType t) {
  return round_shift(c, ex_div(c->pool, real, scale), zero_point, t);
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
  if (!g.block && one_element(s) && s->rank <= 1) return g;
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
  if (one_element(x) && one_element(y)) return true;
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
  if (!block && one_element(s) && s->rank <= 1) return true;
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
    return quant_from_real(c, x, scale, zero, t);
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

/* ---- Requantize (internal): the sum of a quantized product, its scale, the zero point ---- */
bool infer_requantize(Model *m, Node *n) {
  const Value *x = n->in[0];
  return op_need_class(m, n, 0, CL_FLOAT | CL_INT) && op_need_dtype(m, n, 1, DT_F32) &&
         op_broadcasts_to(m, n, 1, x->rank, x->dims) && quant_need_8bit(m, n, 2) &&
         kit_need_scalar(m, n, 2, "zero point") && op_out_like(m, n, 0, n->in[2]->dtype, x);
}

const Expr *elem_requantize(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return quant_requantize(c, elem_in(c, n, 0, idx), kit_bcast(c, n, 1, idx, DT_F32),
                          quant_zero(c, n, 2), n->out[out]->dtype);
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

static const Expr *range_end(ElemCtx *c, const Node *n, ReduceKind kind) {
  const Value *x = n->in[0];
  const Expr *vars[MAX_RANK];
  for (int d = 0; d < x->rank; d++) vars[d] = kit_var(c, "k", x->dims[d]);
  const Expr *e = kit_reduce_all(c, kind, x->rank, vars, kit_in(c, n, 0, vars, DT_F32));
  return ex_op(c->pool, kind == RED_MIN ? EX_min : EX_max, e, kit_like(c, e, 0), NULL);
}

const Expr *elem_dynamic_quantize(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *lo = range_end(c, n, RED_MIN), *hi = range_end(c, n, RED_MAX),
             *zero = kit_like(c, lo, 0);
  const Expr *span = ex_sub(p, hi, lo);
  const Expr *scale = ex_div(p, span, kit_like(c, lo, 255));
  scale = ex_select(p, ex_eq(p, span, zero), kit_like(c, lo, 1), scale);
  if (out == 1) return scale;
  const Expr *zp = ex_sat(p, DT_U8, kit_op1(c, EX_rint, ex_div(p, ex_sub(p, zero, lo), scale)));
  if (out == 2) return zp;
  return quant_from_real(c, kit_in(c, n, 0, idx, DT_F32), scale, zp, DT_U8);
}
