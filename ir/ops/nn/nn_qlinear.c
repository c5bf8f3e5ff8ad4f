/* Quantized operators of the com.microsoft domain: dequantize, compute in f32, quantize again. */
#include "ir/ops/nn/nn_fused.h"
#include "ir/ops/nn/nn_quant.h"
#include "ir/ops/nn/nn_window.h"

/* Scale k (f32, one element) and zero point k + 1 (type t of the data, one element, may be
 * absent). */
static bool need_params(Model *m, const Node *n, int k, DType t) {
  const Value *zp = node_in(n, k + 1);
  if (!op_need_dtype(m, n, k, DT_F32) || !kit_need_scalar(m, n, k, "scale") ||
      !kit_need_scalar(m, n, k + 1, "zero point"))
    return false;
  return !zp || zp->dtype == t ||
         op_error(m, n, ERR_TYPE, "zero point is %s, data is %s", dtype_text(zp->dtype),
                  dtype_text(t));
}

static const Expr *quantize_out(ElemCtx *c, const Node *n, const Expr *real, int scale) {
  const QuantTo to = {.t = n->out[0]->dtype, .zero = quant_zero(c, n, scale + 1)};
  return quant_from_real(c, real, kit_scalar(c, n, scale, DT_F32), &to);
}

/* ---- QLinearAdd, QLinearMul: a, a_scale, a_zp, b, b_scale, b_zp, c_scale, c_zp ---- */
bool infer_qlinear_binary(Model *m, Node *n) {
  const DType t = n->in[0]->dtype;
  const Expr *dims[MAX_RANK];
  int rank;
  const Value *a = n->in[0], *b = n->in[3];
  return quant_need_8bit(m, n, 0) && op_same_dtype(m, n, 3, 0) && need_params(m, n, 1, t) &&
         need_params(m, n, 4, t) && need_params(m, n, 6, t) &&
         op_broadcast(m, n, a->rank, a->dims, b->rank, b->dims, &rank, dims) &&
         op_out(m, n, 0, t, rank, dims);
}

/* Operand k minus its zero point, as f32. */
static const Expr *centered(ElemCtx *c, const Node *n, int k, const Expr *const *idx) {
  const Expr *x = kit_bcast(c, n, k, idx, DT_I32), *z = quant_zero(c, n, k + 2);
  return ex_cast(c->pool, DT_F32, z ? ex_sub(c->pool, x, z) : x);
}

const Expr *elem_qlinear_binary(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *a = centered(c, n, 0, idx), *b = centered(c, n, 3, idx);
  const Expr *sa = kit_scalar(c, n, 1, DT_F32), *sb = kit_scalar(c, n, 4, DT_F32),
             *sc = kit_scalar(c, n, 6, DT_F32);
  const Expr *r = kit_is(n, "QLinearMul")
                      ? ex_mul(p, ex_mul(p, a, b), ex_div(p, ex_mul(p, sa, sb), sc))
                      : ex_add(p, ex_mul(p, a, ex_div(p, sa, sc)), ex_mul(p, b, ex_div(p, sb, sc)));
  const QuantTo to = {.t = n->out[out]->dtype, .zero = quant_zero(c, n, 7)};
  return quant_from_real(c, r, kit_like(c, r, 1), &to);
}

/* ---- unary: x, x_scale, x_zp, y_scale, y_zp ---- */
static bool need_unary(Model *m, const Node *n) {
  const DType t = n->in[0]->dtype;
  return quant_need_8bit(m, n, 0) && need_params(m, n, 1, t) && need_params(m, n, 3, t);
}

bool infer_qlinear_unary(Model *m, Node *n) {
  double alpha;
  return op_float(m, n, "alpha", 0.01, &alpha) && need_unary(m, n) &&
         op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]);
}

const Expr *elem_qlinear_sigmoid(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return quantize_out(c, n, kit_op1(c, EX_sigmoid, quant_to_real(c, n, 0, 1, 2, idx)), 3);
}

const Expr *elem_qlinear_leaky_relu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *x = quant_to_real(c, n, 0, 1, 2, idx);
  const Expr *neg = ex_mul(p, x, kit_like(c, x, node_float(n, "alpha", 0.01)));
  return quantize_out(c, n, ex_select(p, ex_lt(p, x, kit_like(c, x, 0)), neg, x), 3);
}

bool infer_qlinear_softmax(Model *m, Node *n) {
  int axis;
  int64_t opset;
  return op_int(m, n, "opset", 13, &opset) && op_need_rank(m, n, 0, 1, MAX_RANK) &&
         op_axis(m, n, "axis", -1, n->in[0]->rank, &axis) && need_unary(m, n) &&
         op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]);
}

/* Before opset 13 the softmax runs over all dims from the axis on. */
const Expr *elem_qlinear_softmax(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  int64_t axis = node_int(n, "axis", -1);
  if (axis < 0) axis += x->rank;
  const int end = node_int(n, "opset", 13) < 13 ? x->rank : (int)axis + 1;
  const Expr *vars[2][MAX_RANK], *at[MAX_RANK], *part[2];
  int n_vars = 0;
  for (int pass = 0; pass < 2; pass++) {
    n_vars = 0;
    for (int d = 0; d < x->rank; d++)
      at[d] = d >= axis && d < end ? vars[pass][n_vars++] = kit_var(c, "k", x->dims[d]) : idx[d];
    part[pass] = quant_to_real(c, n, 0, 1, 2, at);
  }
  const Expr *max = kit_reduce_all(c, RED_MAX, n_vars, vars[0], part[0]);
  const Expr *sum =
      kit_reduce_all(c, RED_SUM, n_vars, vars[1], kit_op1(c, EX_exp, ex_sub(p, part[1], max)));
  const Expr *e = kit_op1(c, EX_exp, ex_sub(p, quant_to_real(c, n, 0, 1, 2, idx), max));
  return quantize_out(c, n, ex_div(p, e, sum), 3);
}

/* ---- poolings ---- */
bool infer_qlinear_global_average(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  int64_t last;
  if (!op_int_in(m, n, "channels_last", 0, 0, 1, &last) || !op_need_rank(m, n, 0, 3, MAX_RANK) ||
      !need_unary(m, n))
    return false;
  for (int d = 0; d < x->rank; d++) {
    const bool keep = d == 0 || d == (last ? x->rank - 1 : 1);
    dims[d] = keep ? x->dims[d] : ex_i64(m->pool, 1);
  }
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

/* Exact integer sum, one rounding. */
const Expr *elem_qlinear_global_average(ElemCtx *c, const Node *n, int out,
                                        const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const int channel = node_int(n, "channels_last", 0) ? x->rank - 1 : 1;
  const Expr *vars[MAX_RANK], *at[MAX_RANK], *count = ex_i64(p, 1);
  int n_vars = 0;
  for (int d = 0; d < x->rank; d++) {
    at[d] = idx[d];
    if (d == 0 || d == channel) continue;
    at[d] = vars[n_vars++] = kit_var(c, "k", x->dims[d]);
    count = ex_mul(p, count, x->dims[d]);
  }
  const Expr *v = kit_in(c, n, 0, at, DT_I32), *z = quant_zero(c, n, 2);
  if (z) v = ex_sub(p, v, z);
  const Expr *acc = kit_reduce_all(c, RED_SUM, n_vars, vars, v);
  const Expr *den = ex_mul(p, kit_scalar(c, n, 3, DT_F32), kit_size(c, DT_F32, count));
  const Expr *scale = ex_div(p, kit_scalar(c, n, 1, DT_F32), den);
  const QuantTo to = {.t = n->out[out]->dtype, .zero = quant_zero(c, n, 4)};
  return quant_requantize(c, acc, scale, &to);
}

/* ---- QLinearWhere: condition, x, x_scale, x_zp, y, y_scale, y_zp, z_scale, z_zp ---- */
bool infer_qlinear_where(Model *m, Node *n) {
  const DType t = n->in[1]->dtype;
  const Value *c = n->in[0], *x = n->in[1], *y = n->in[4];
  const Expr *both[MAX_RANK], *dims[MAX_RANK];
  int rank;
  return op_need_dtype(m, n, 0, DT_BOOL) && quant_need_8bit(m, n, 1) && op_same_dtype(m, n, 4, 1) &&
         need_params(m, n, 2, t) && need_params(m, n, 5, t) && need_params(m, n, 7, t) &&
         op_broadcast(m, n, x->rank, x->dims, y->rank, y->dims, &rank, both) &&
         op_broadcast(m, n, c->rank, c->dims, rank, both, &rank, dims) &&
         op_out(m, n, 0, t, rank, dims);
}

/* The bytes x with scale and zero point behind it, for another scale and zero point. */
static Value *requantized(Build *b, Value *const *x, Value *const *to) {
  if (x[1] == to[0] && x[2] == to[1]) return x[0];
  Value *real = build_op(b, "DequantizeLinear", 3, x, 0, NULL);
  return b->ok ? build_op(b, "QuantizeLinear", 3, (Value *[]){real, to[0], to[1]}, 0, NULL) : real;
}

bool expand_qlinear_where(Build *b, Node *n, Value **out) {
  Value *in[] = {n->in[0], requantized(b, n->in + 1, n->in + 7), NULL};
  if (b->ok) in[2] = requantized(b, n->in + 4, n->in + 7);
  if (b->ok) out[0] = build_op(b, "Where", 3, in, 0, NULL);
  return b->ok;
}

/* QLinearAveragePool: DequantizeLinear, AveragePool, QuantizeLinear. With count_include_pad it
 * divides by the whole kernel. */
bool infer_qlinear_average(Model *m, Node *n) {
  int64_t v, last;
  return op_need_rank(m, n, 0, 3, 2 + MAX_SPATIAL) && need_unary(m, n) &&
         op_int_in(m, n, "count_include_pad", 0, 0, 1, &v) &&
         op_int_in(m, n, "channels_last", 0, 0, 1, &last) && channels_window_out(m, n, last != 0);
}

bool expand_qlinear_average(Build *b, Node *n, Value **out) {
  const bool last = node_int(n, "channels_last", 0) != 0;
  Value *const real_in[] = {last ? channels_moved(b, n->in[0], false) : n->in[0], n->in[1],
                            node_in(n, 2)};
  if (!b->ok) return false;
  Value *real = build_op(b, "DequantizeLinear", real_in[2] ? 3 : 2, real_in, 0, NULL);
  Attr attrs[16];
  int count = 0;
  attrs[count++] = attr_int(b->m->arena, "whole_kernel", 1);
  for (int k = 0; k < n->n_attrs && count < 16; k++)
    if (!(n->attrs[k].name[0] == 'c' && n->attrs[k].name[1] == 'h')) attrs[count++] = n->attrs[k];
  if (b->ok) real = build_op(b, "AveragePool", 1, &real, count, attrs);
  Value *const back[] = {real, n->in[3], node_in(n, 4)};
  if (b->ok) out[0] = build_op(b, "QuantizeLinear", back[2] ? 3 : 2, back, 0, NULL);
  if (b->ok && last) out[0] = channels_moved(b, out[0], true);
  return b->ok;
}

/* ---- QLinearConcat: y_scale, y_zp, then (x, x_scale, x_zp) for each part ---- */
bool infer_qlinear_concat(Model *m, Node *n) {
  const int parts = (n->n_in - 2) / 3;
  int axis;
  const Expr *dims[MAX_RANK];
  if (n->n_in < 5 || (n->n_in - 2) % 3)
    return op_error(m, n, ERR_ARITY, "inputs must be 2 + 3 per part");
  const Value *first = n->in[2];
  const Attr *a;
  if (!quant_need_8bit(m, n, 2) || !need_params(m, n, 0, first->dtype) ||
      !op_need_attr(m, n, "axis", AT_INT, &a) || !op_axis(m, n, "axis", 1, first->rank, &axis))
    return false;
  for (int d = 0; d < first->rank; d++) dims[d] = first->dims[d];
  for (int k = 0; k < parts; k++) {
    const Value *x = n->in[2 + 3 * k];
    if (!op_same_dtype(m, n, 2 + 3 * k, 2) ||
        !op_need_rank(m, n, 2 + 3 * k, first->rank, first->rank) ||
        !need_params(m, n, 3 + 3 * k, first->dtype))
      return false;
    for (int d = 0; k > 0 && d < x->rank; d++) {
      if (d == axis)
        dims[d] = ex_add(m->pool, dims[d], x->dims[d]);
      else if (!op_same_dim(m, n, dims[d], x->dims[d], "dims of the parts", &dims[d]))
        return false;
    }
  }
  return op_out(m, n, 0, first->dtype, first->rank, dims);
}

bool expand_qlinear_concat(Build *b, Node *n, Value **out) {
  const int parts = (n->n_in - 2) / 3;
  Value **list = ARENA_ARRAY(b->m->arena, Value *, parts);
  for (int k = 0; k < parts && b->ok; k++) list[k] = requantized(b, n->in + 2 + 3 * k, n->in);
  const Attr axis = attr_int(b->m->arena, "axis", node_int(n, "axis", 1));
  if (b->ok) out[0] = build_op(b, "Concat", parts, list, 1, &axis);
  return b->ok;
}

/* ---- QLinearReduceMean: x, x_scale, x_zp, y_scale, y_zp ---- */
bool infer_qlinear_mean(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Attr *a;
  const int64_t *axes;
  const Expr *dims[MAX_RANK];
  bool set[MAX_RANK];
  int64_t keep;
  int count, rank = 0;
  if (!quant_need_8bit(m, n, 0) || !need_params(m, n, 1, x->dtype) ||
      !need_params(m, n, 3, x->dtype) || !op_need_attr(m, n, "axes", AT_INTS, &a) ||
      !op_ints(m, n, "axes", &axes, &count) || !op_int_in(m, n, "keepdims", 1, 0, 1, &keep) ||
      !op_axis_set(m, n, "axes", count, axes, x->rank, set))
    return false;
  for (int d = 0; d < x->rank; d++)
    if (!set[d] && count)
      dims[rank++] = x->dims[d];
    else if (keep)
      dims[rank++] = ex_i64(m->pool, 1);
  return op_out(m, n, 0, x->dtype, rank, dims);
}

bool expand_qlinear_mean(Build *b, Node *n, Value **out) {
  const int64_t *axes;
  const int count = node_ints(n, "axes", &axes);
  const Attr keep = attr_int(b->m->arena, "keepdims", node_int(n, "keepdims", 1));
  Value *real = build_op(b, "DequantizeLinear", node_in(n, 2) ? 3 : 2, n->in, 0, NULL);
  Value *in[] = {real, build_i64s(b, count, axes)};
  if (!b->ok) return false;
  Value *to[] = {build_op(b, "ReduceMean", 2, in, 1, &keep), n->in[3], node_in(n, 4)};
  if (b->ok && !to[2]) to[2] = build_scalar(b, n->in[0]->dtype, 0);
  if (b->ok) out[0] = build_op(b, "QuantizeLinear", 3, to, 0, NULL);
  return b->ok;
}
