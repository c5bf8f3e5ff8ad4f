/* SwiGLU, BitCast, MaxUnpool, CausalConvWithState. */
#include <string.h>
#include "ir/op/tensor_util.h"
#include "ir/ops/nn/nn_window.h"

/* ---- SwiGLU: swish(a) * b ---- */
bool infer_swiglu(Model *m, Node *n) {
  double alpha;
  const Value *a = n->in[0], *b = n->in[1];
  const Expr *same;
  if (!op_float(m, n, "alpha", 1, &alpha) || !op_same_dtype(m, n, 1, 0) ||
      !op_need_rank(m, n, 1, a->rank, a->rank))
    return false;
  for (int d = 0; d < a->rank; d++)
    if (!op_same_dim(m, n, a->dims[d], b->dims[d], "dims of gate and value", &same)) return false;
  return infer_same_float(m, n);
}

const Expr *elem_swiglu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const Expr *a = kit_in(c, n, 0, idx, t), *b = kit_in(c, n, 1, idx, t);
  const double alpha = node_float(n, "alpha", 1);
  const Expr *gate = kit_op1(c, EX_sigmoid, alpha == 1 ? a : ex_mul(p, a, kit_like(c, a, alpha)));
  return kit_ret(c, n, out, ex_mul(p, ex_mul(p, a, gate), b));
}

/* ---- BitCast ---- */
bool infer_bitcast(Model *m, Node *n) {
  const Attr *a;
  const DType from = n->in[0]->dtype;
  DType to;
  if (!op_need_attr(m, n, "to", AT_INT, &a) || !op_dtype(m, n, "to", DT_NONE, &to)) return false;
  if (dtype_rows[from].bits != dtype_rows[to].bits || from == DT_STR || to == DT_STR)
    return op_error(m, n, ERR_TYPE, "%s and %s differ in size", dtype_text(from), dtype_text(to));
  return op_out_like(m, n, 0, to, n->in[0]);
}

const Expr *elem_bitcast(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType from = n->in[0]->dtype, to = n->out[out]->dtype;
  const Expr *x = elem_in(c, n, 0, idx);
  if (from == DT_BOOL)
    return ex_bits(c->pool, to, ex_cast(c->pool, DT_U8, x)); /* a byte of 0 or 1 */
  if (to == DT_BOOL)
    return ex_op(c->pool, EX_ne, ex_bits(c->pool, DT_U8, x), ex_int(c->pool, DT_U8, 0), NULL);
  return from == to ? x : ex_bits(c->pool, to, x);
}

/* ---- MaxUnpool: values scattered to their places in a tensor of zeros ---- */
/* Sizes of the result, from the window or as output_shape gives them, which may be data. */
static bool unpool_dims(Model *m, Node *n, const Expr **dims) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0];
  const Expr *zero = ex_i64(p, 0);
  const Window w = window_get(p, n, x, NULL);
  int count = 0;
  if (node_in(n, 2) && !tu_count(m, n, 2, "output_shape", x->rank, &count)) return false;
  if (node_in(n, 2) && count != x->rank)
    return op_error(m, n, ERR_SHAPE, "output_shape has %d elements", count);
  for (int d = 0; d < 2; d++) dims[d] = x->dims[d];
  for (int d = 0; d < w.spatial && !count; d++) {
    const Expr *span = op_times(m, ex_sub(p, x->dims[2 + d], ex_i64(p, 1)), ex_i64(p, w.stride[d]));
    if (expr_is_i64(span, INT64_MAX))
      return op_error(m, n, ERR_OVERFLOW, "spatial dim %d becomes too large", d);
    dims[2 + d] = ex_sub(p, ex_sub(p, ex_add(p, span, ex_i64(p, w.kernel[d])), w.lo[d]), w.hi[d]);
  }
  for (int d = 0; d < x->rank; d++) {
    const Expr *size = count ? tu_elem(m, n, 2, d) : dims[d];
    if (!require_at_least(m, n, size, zero, "size of the output")) return false;
    dims[d] = count ? tu_dim(m, n, 0, d, size, NULL) : size;
  }
  return true;
}

bool infer_max_unpool(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 3, 2 + MAX_SPATIAL) ||
      !op_need_dtype(m, n, 1, DT_I64) || !op_need_class(m, n, 2, CL_INT) ||
      !op_need_rank(m, n, 1, x->rank, x->rank) || !window_check(m, n, x, NULL) ||
      !require_shape(m, n, 1, 0, x->rank, (const Expr *const *)x->dims, "dimension of indices"))
    return false;
  return unpool_dims(m, n, dims) && op_out(m, n, 0, x->dtype, x->rank, dims);
}

/* The sizes of the result as a list: constants, output_shape, or made of x's, of which all but the
 * spatial ones stay. */
static Value *unpool_shape(Build *b, const Node *n, int64_t *all) {
  const int rank = n->out[0]->rank;
  int64_t dims[MAX_RANK];
  *all = 1;
  if (value_is_static(n->out[0], dims)) {
    for (int d = 0; d < rank; d++)
      if (!kit_mul(b->m, n, *all, dims[d], all)) return NULL;
    return build_i64s(b, rank, dims);
  }
  *all = -1;
  const int64_t count = rank;
  if (node_in(n, 2)) return build_reshape(b, build_cast(b, n->in[2], DT_I64), 1, &count);
  const Window w = window_get(b->m->pool, n, n->in[0], NULL);
  int64_t times[MAX_RANK] = {1, 1}, more[MAX_RANK] = {0};
  for (int d = 0; d < w.spatial; d++) {
    int64_t lo, hi;
    if (!expr_is_const(w.lo[d], &lo) || !expr_is_const(w.hi[d], &hi))
      return op_error(b->m, n, ERR_DYNAMIC, "pads are not known"), NULL;
    times[2 + d] = w.stride[d];
    more[2 + d] = w.kernel[d] - w.stride[d] - lo - hi;
  }
  Value *shape = build2(b, "Mul", build_shape(b, n->in[0], 0, rank), build_i64s(b, rank, times));
  return b->ok ? build2(b, "Add", shape, build_i64s(b, rank, more)) : NULL;
}

bool expand_max_unpool(Build *b, Node *n, Value **out) {
  const int64_t flat = -1;
  int64_t all;
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  Value *shape = unpool_shape(b, n, &all);
  if (!shape || !b->ok) return false;
  Value *total = all < 0 ? build_op(b, "ReduceProd", 1, &shape, 0, NULL) : build_i64s(b, 1, &all);
  Value *zeros = build2(b, "Expand", build_scalar(b, n->out[0]->dtype, 0), total);
  Value *x = b->ok ? build_reshape(b, n->in[0], 1, &flat) : NULL;
  Value *at = b->ok ? build_reshape(b, n->in[1], 1, &flat) : NULL;
  if (b->ok) { /* an index below 0 is outside here, too */
    Value *below = build2(b, "Less", at, build_scalar(b, at->dtype, 0));
    at = build_op(b, "Where", 3, (Value *[]){below, total, at}, 0, NULL);
  }
  Value *put =
      b->ok ? build_op(b, "ScatterElements", 3, (Value *[]){zeros, at, x}, 1, &axis) : NULL;
  if (b->ok) out[0] = build2(b, "Reshape", put, shape);
  return b->ok;
}

/* ---- CausalConvWithState: x, weight, bias, past state → y, present state ---- */
static const char *const activations[] = {"none", "silu", "swish", NULL};

bool infer_causal_conv(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *same;
  int act;
  int64_t k;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 3, 3) ||
      !op_need_rank(m, n, 1, 3, 3) || !op_same_dtype(m, n, 1, 0) || !op_same_dtype(m, n, 2, 0) ||
      !op_same_dtype(m, n, 3, 0) || !op_need_rank(m, n, 3, 3, 3) ||
      !kit_need_vector(m, n, 2, x->dims[1], "bias") ||
      !op_choice(m, n, "activation", "none", activations, &act) ||
      !op_same_dim(m, n, n->in[1]->dims[0], x->dims[1], "channels", &same) ||
      !require_size(m, n, n->in[1]->dims[1], 1, "inputs of a channel"))
    return false;
  if (!expr_is_const(n->in[1]->dims[2], &k) || k < 1)
    return op_error(m, n, ERR_UNSUPPORTED, "kernel size must be a constant of at least 1");
  const Expr *state[] = {x->dims[0], x->dims[1], ex_i64(m->pool, k - 1)};
  for (int d = 0; node_in(n, 3) && d < 3; d++)
    if (!op_same_dim(m, n, n->in[3]->dims[d], state[d], "dims of the past state", &same))
      return false;
  return op_out_like(m, n, 0, x->dtype, x) && op_out(m, n, 1, x->dtype, 3, state);
}

/* Position `at` of the past state (k - 1 long) followed by the input. */
static const Expr *state_then_input(ElemCtx *c, const Node *n, const Expr *b, const Expr *ch,
                                    const Expr *at) {
  ExprPool *p = c->pool;
  const Expr *past = ex_sub(p, n->in[1]->dims[2], ex_i64(p, 1)), *zero = ex_i64(p, 0);
  const Expr *now[] = {b, ch, ex_sub(p, at, past)}, *before[] = {b, ch, at};
  const Expr *in_state = ex_lt(p, at, past), *in_input = ex_le(p, zero, now[2]);
  const Expr *x = elem_in_guarded(c, n, 0, now, in_input);
  const Expr *s = node_in(n, 3) ? elem_in_guarded(c, n, 3, before, in_state) : kit_like(c, x, 0);
  return ex_cast(p, kit_compute(n), ex_select(p, in_state, s, x));
}

const Expr *elem_causal_conv(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  if (out == 1)
    return kit_ret(c, n, out,
                   state_then_input(c, n, idx[0], idx[1], ex_add(p, idx[2], n->in[0]->dims[2])));
  const Expr *k = kit_var(c, "k", n->in[1]->dims[2]), *at_w[] = {idx[1], ex_i64(p, 0), k};
  const Expr *x = state_then_input(c, n, idx[0], idx[1], ex_add(p, idx[2], k));
  const Expr *e = kit_reduce(c, RED_SUM, k, ex_mul(p, x, kit_in(c, n, 1, at_w, t)));
  if (node_in(n, 2)) e = ex_add(p, e, kit_in1(c, n, 2, idx[1], t));
  if (strcmp(node_string(n, "activation", "none"), "none") != 0)
    e = ex_mul(p, e, kit_op1(c, EX_sigmoid, e));
  return kit_ret(c, n, out, e);
}
