/* Poolings: windows (MaxPool with indices, AveragePool, LpPool) and global ones, MaxUnpool, and
 * pool_info. */
#include <math.h>
#include "ir/ops/nn/nn_quant.h"
#include "ir/ops/nn/nn_window.h"

/* ---- shapes ---- */
static bool pool_out(Model *m, Node *n) {
  const Value *x = n->in[0];
  int64_t v;
  const Expr *dims[MAX_RANK];
  if (!op_need_rank(m, n, 0, 3, 2 + MAX_SPATIAL) || !op_int_in(m, n, "ceil_mode", 0, 0, 1, &v) ||
      !window_check(m, n, x, NULL))
    return false;
  const Window w = window_get(m->pool, n, x, NULL);
  for (int d = 0; d < w.spatial; d++)
    if (w.pad_lo[d] >= window_extent(&w, d) || w.pad_hi[d] >= window_extent(&w, d))
      return op_error(m, n, ERR_ATTR_VALUE,
                      "pads along spatial dim %d are not smaller than the kernel", d);
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  if (!window_out_dims(m, n, &w, x, dims)) return false;
  return op_out(m, n, 0, x->dtype, x->rank, dims) && op_out(m, n, 1, DT_I64, x->rank, dims);
}

bool infer_max_pool(Model *m, Node *n) {
  int64_t v;
  return op_need_class(m, n, 0, CL_NUMBER) && op_int_in(m, n, "storage_order", 0, 0, 1, &v) &&
         pool_out(m, n);
}

bool infer_average_pool(Model *m, Node *n) {
  int64_t v;
  return op_need_class(m, n, 0, CL_FLOAT) && op_int_in(m, n, "count_include_pad", 0, 0, 1, &v) &&
         pool_out(m, n);
}

bool infer_lp_pool(Model *m, Node *n) {
  int64_t p;
  return op_need_class(m, n, 0, CL_FLOAT) && op_int_in(m, n, "p", 2, 1, 1 << 20, &p) &&
         pool_out(m, n);
}

/* ---- windows ---- */
typedef struct Pool {
  Window w;
  Taps taps;
  const Expr *value, *guard; /* input at the taps, 0 outside; NULL guard: always inside */
} Pool;

static Pool pool_begin(ElemCtx *c, const Node *n, const Expr *const *idx) {
  const Value *x = n->in[0];
  Pool q = {.w = window_get(c->pool, n, x, NULL)};
  q.taps = window_taps(c, &q.w, x, idx + 2);
  const Expr *at[MAX_RANK] = {idx[0], idx[1]};
  for (int d = 0; d < q.w.spatial; d++) at[2 + d] = q.taps.at[d];
  q.guard = kit_is_true(q.taps.inside) ? NULL : q.taps.inside;
  q.value = ex_cast(c->pool, kit_compute(n), elem_in_guarded(c, n, 0, at, q.guard));
  return q;
}

/* The values with the lowest of their type outside. */
static const Expr *max_value(ElemCtx *c, const Pool *q) {
  const DType t = (DType)q->value->dtype;
  return q->guard ? ex_select(c->pool, q->guard, q->value, reduce_identity(c->pool, RED_MAX, t))
                  : q->value;
}

/* Flat place of the first maximum: its row-major place in the whole input, spatial dims in
 * column-major order where storage_order says so. */
static const Expr *max_place(ElemCtx *c, const Node *n, const Expr *const *idx, const Expr *best) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const Pool q = pool_begin(c, n, idx);
  const int s = q.w.spatial;
  const Expr *place = index_flatten(p, s, x->dims + 2, q.taps.at),
             *size = op_product(c->model, x->dims, 2, x->rank);
  const Expr *hit = ex_eq(p, q.value, best);
  if (q.guard) hit = ex_and(p, q.guard, hit);
  const Expr *first = ex_select(p, hit, place, ex_sub(p, size, ex_i64(p, 1)));
  first = kit_reduce_all(c, RED_MIN, s, q.taps.vars, first);
  if (node_int(n, "storage_order", 0)) {
    const Expr *at[MAX_SPATIAL], *rest = ex_i64(p, 0);
    index_unflatten(p, s, x->dims + 2, first, at);
    for (int d = s - 1; d >= 0; d--) rest = ex_add(p, ex_mul(p, rest, x->dims[2 + d]), at[d]);
    first = rest;
  }
  return ex_add(p, ex_mul(p, index_flatten(p, 2, x->dims, idx), size), first);
}

const Expr *elem_max_pool(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Pool q = pool_begin(c, n, idx);
  const Expr *best = kit_reduce_all(c, RED_MAX, q.w.spatial, q.taps.vars, max_value(c, &q));
  return out == 1 ? max_place(c, n, idx, best) : kit_ret(c, n, out, best);
}

/* Number of taps along d that count: inside the input, or also in its padding. */
static const Expr *tap_count(ElemCtx *c, const Pool *q, const Value *x, int d, const Expr *o,
                             bool pads) {
  ExprPool *p = c->pool;
  if (q->w.no_outside[d]) return ex_i64(p, q->w.kernel[d]);
  const Expr *start = ex_sub(p, ex_mul(p, o, ex_i64(p, q->w.stride[d])), q->w.lo[d]);
  const Expr *end = pads ? ex_add(p, x->dims[2 + d], q->w.hi[d]) : x->dims[2 + d];
  const Expr *k = ex_i64(p, q->w.kernel[d]), *zero = ex_i64(p, 0);
  const Expr *to = ex_min(p, ex_ceildiv(p, ex_sub(p, end, start), q->w.dilation[d]), k);
  if (pads) return to; /* no tap lies before the padding */
  const Expr *from = ex_max(p, ex_ceildiv(p, ex_sub(p, zero, start), q->w.dilation[d]), zero);
  return ex_sub(p, to, from);
}

/* whole_kernel is ours (nn_qlinear.c): with count_include_pad also the taps beyond the padding
 * count, which only ceil_mode has. */
static const Expr *average_count(ElemCtx *c, const Node *n, const Pool *q, const Expr *const *o) {
  ExprPool *p = c->pool;
  const bool pads = node_int(n, "count_include_pad", 0),
             whole = pads && node_int(n, "whole_kernel", 0);
  const Expr *count = ex_i64(p, 1);
  for (int d = 0; d < q->w.spatial; d++)
    count = ex_mul(p, count,
                   whole ? ex_i64(p, q->w.kernel[d]) : tap_count(c, q, n->in[0], d, o[d], pads));
  return count;
}

const Expr *elem_average_pool(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Pool q = pool_begin(c, n, idx);
  const Expr *sum = kit_reduce_all(c, RED_SUM, q.w.spatial, q.taps.vars, q.value);
  const Expr *count = kit_size(c, (DType)sum->dtype, average_count(c, n, &q, idx + 2));
  return kit_ret(c, n, out, ex_div(c->pool, sum, count));
}

/* ---- SumPool (internal): Σ (x - zero point) over the part of a window inside x, as i32 ---- */
bool infer_sum_pool(Model *m, Node *n) {
  return quant_need_8bit(m, n, 0) && op_same_dtype(m, n, 1, 0) &&
         kit_need_scalar(m, n, 1, "zero point") && pool_out(m, n) &&
         op_out_like(m, n, 0, DT_I32, n->out[0]);
}

const Expr *elem_sum_pool(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Pool q = pool_begin(c, n, idx);
  const Expr *v = ex_cast(p, DT_I32, q.value), *zero = quant_zero(c, n, 1);
  if (zero) v = ex_sub(p, v, q.guard ? ex_select(p, q.guard, zero, kit_like(c, v, 0)) : zero);
  return kit_reduce_all(c, RED_SUM, q.w.spatial, q.taps.vars, v);
}

/* ---- gradients ---- */
/* x and the maxima of its windows: the number of the first tap that has the maximum. */
bool infer_max_pool_tap(Model *m, Node *n) {
  return infer_max_pool(m, n) && op_out_like(m, n, 0, DT_I32, n->in[1]);
}

/* Row-major number of the taps. */
static const Expr *tap_number(ExprPool *p, const Window *w, const Expr *const *taps) {
  const Expr *sizes[MAX_SPATIAL];
  for (int d = 0; d < w->spatial; d++) sizes[d] = ex_i64(p, w->kernel[d]);
  return ex_cast(p, DT_I32, index_flatten(p, w->spatial, sizes, taps));
}

const Expr *elem_max_pool_tap(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Pool q = pool_begin(c, n, idx);
  const Expr *best = kit_in(c, n, 1, idx, (DType)q.value->dtype), *hit = ex_eq(p, q.value, best);
  if (q.guard) hit = ex_and(p, q.guard, hit);
  const Expr *tap =
      ex_select(p, hit, tap_number(p, &q.w, q.taps.vars), ex_int(p, DT_I32, INT32_MAX));
  return kit_reduce_all(c, RED_MIN, q.w.spatial, q.taps.vars, tap);
}

/* x (its shape), what each window gives away, and the tap that gets it; without taps all that
 * AveragePool counts share it. */
bool infer_pool_gradient(Model *m, Node *n) {
  return op_need_class(m, n, 1, CL_FLOAT) && pool_out(m, n) &&
         op_out_like(m, n, 0, n->in[1]->dtype, n->in[0]);
}

const Expr *elem_pool_gradient(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  static const char *const stems[MAX_SPATIAL] = {"kh", "kw", "kd", "k3", "k4", "k5"};
  ExprPool *p = c->pool;
  const Value *x = n->in[0], *given = n->in[1];
  const Pool q = {.w = window_get(p, n, x, NULL)};
  const Expr *at[MAX_RANK] = {idx[0], idx[1]}, *taps[MAX_SPATIAL], *meets = ex_bool(p, true);
  for (int d = 0; d < q.w.spatial; d++) {
    const Expr *stride = ex_i64(p, q.w.stride[d]);
    taps[d] = kit_var(c, stems[d], ex_i64(p, q.w.kernel[d]));
    const Expr *from =
        ex_sub(p, ex_add(p, idx[2 + d], q.w.lo[d]), ex_mul(p, taps[d], ex_i64(p, q.w.dilation[d])));
    at[2 + d] = ex_floordiv(p, from, stride);
    meets = ex_and(p, meets, ex_eq(p, ex_floormod(p, from, stride), ex_i64(p, 0)));
    meets = ex_and(p, meets, kit_inside(p, at[2 + d], given->dims[2 + d]));
  }
  const Expr *guard = kit_is_true(meets) ? NULL : meets;
  const Expr *v = ex_cast(p, kit_compute(n), elem_in_guarded(c, n, 1, at, guard));
  if (node_in(n, 2)) {
    const Expr *mine = ex_eq(p, elem_in_guarded(c, n, 2, at, guard), tap_number(p, &q.w, taps));
    v = ex_select(p, mine, v, kit_like(c, v, 0));
  } else {
    const Expr *count = ex_max(p, average_count(c, n, &q, at + 2), ex_i64(p, 1));
    v = ex_div(p, v, kit_size(c, (DType)v->dtype, count));
  }
  return kit_ret(c, n, out, kit_reduce_all(c, RED_SUM, q.w.spatial, taps, v));
}

/* x and taps: the element of each window that its tap names. */
bool infer_pool_pick(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_FLOAT) && op_need_dtype(m, n, 1, DT_I32) && pool_out(m, n);
}

const Expr *elem_pool_pick(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Pool q = pool_begin(c, n, idx);
  const Expr *mine = ex_eq(p, elem_in(c, n, 1, idx), tap_number(p, &q.w, q.taps.vars));
  const Expr *v = ex_select(p, mine, q.value, kit_like(c, q.value, 0));
  return kit_ret(c, n, out, kit_reduce_all(c, RED_SUM, q.w.spatial, q.taps.vars, v));
}

/* ---- norms ---- */

/* |v|^p and the p-th root of a sum of them. */
static const Expr *lp_term(ElemCtx *c, const Expr *v, int64_t p) {
  if (p == 1) return kit_op1(c, EX_abs, v);
  if (p == 2) return ex_mul(c->pool, v, v);
  return ex_op(c->pool, EX_pow, kit_op1(c, EX_abs, v), kit_like(c, v, (double)p), NULL);
}

static const Expr *lp_root(ElemCtx *c, const Expr *sum, int64_t p) {
  if (p == 1) return sum;
  if (p == 2) return kit_op1(c, EX_sqrt, sum);
  return ex_op(c->pool, EX_pow, sum, kit_like(c, sum, 1.0 / (double)p), NULL);
}

const Expr *elem_lp_pool(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Pool q = pool_begin(c, n, idx);
  const int64_t p = node_int(n, "p", 2);
  const Expr *sum = kit_reduce_all(c, RED_SUM, q.w.spatial, q.taps.vars, lp_term(c, q.value, p));
  return kit_ret(c, n, out, lp_root(c, sum, p));
}

/* ---- global ---- */
bool infer_global_pool(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  int64_t p;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 2, MAX_RANK) ||
      !op_int_in(m, n, "p", 2, 1, 1 << 20, &p))
    return false;
  for (int d = 0; d < x->rank; d++) dims[d] = d < 2 ? x->dims[d] : ex_i64(m->pool, 1);
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

const Expr *elem_global_pool(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Value *x = n->in[0];
  const Expr *at[MAX_RANK] = {idx[0], idx[1]};
  const int s = x->rank - 2;
  const bool max = kit_is(n, "GlobalMaxPool");
  for (int d = 2; d < x->rank; d++) at[d] = kit_var(c, "k", x->dims[d]);
  const Expr *v = kit_in(c, n, 0, at, kit_compute(n));
  if (kit_is(n, "GlobalLpPool")) {
    const int64_t p = node_int(n, "p", 2);
    return kit_ret(c, n, out,
                   lp_root(c, kit_reduce_all(c, RED_SUM, s, at + 2, lp_term(c, v, p)), p));
  }
  if (max) return kit_ret(c, n, out, kit_reduce_all(c, RED_MAX, s, at + 2, v));
  return kit_ret(c, n, out, kit_mean(c, s, at + 2, v, op_product(c->model, x->dims, 2, x->rank)));
}

/* ---- pool_info ---- */
bool pool_info(const Node *n, PoolInfo *info) {
  PoolKind kind = POOL_MAX;
  if (kit_is(n, "AveragePool"))
    kind = POOL_AVERAGE;
  else if (kit_is(n, "LpPool"))
    kind = POOL_LP;
  else if (!kit_is(n, "MaxPool"))
    return false;
  const Window w = window_get(n->graph->model->pool, n, n->in[0], NULL);
  *info = (PoolInfo){.spatial = w.spatial, .kind = kind, .p = node_int(n, "p", 2)};
  info->ceil_mode = node_int(n, "ceil_mode", 0);
  info->count_include_pad = node_int(n, "count_include_pad", 0);
  for (int d = 0; d < w.spatial; d++) {
    info->kernel[d] = w.kernel[d];
    info->stride[d] = w.stride[d];
    info->dilation[d] = w.dilation[d];
    info->pad_lo[d] = w.pad_lo[d];
    info->pad_hi[d] = w.pad_hi[d];
  }
  return w.pad_const;
}
