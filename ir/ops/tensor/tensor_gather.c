/* Gather, GatherElements, GatherND. Indices are data: negative ones count from the end, and every
 * index is clamped into its dim, so that no code generated from here can read outside of a tensor.
 * Constant indices are checked here. */
#include <string.h>
#include "ir/op/tensor_util.h"

bool tu_indices_inside(Model *m, const Node *n, int k, const Expr *dim, int64_t first,
                       int64_t step) {
  const ConstData *c = n->in[k]->cdata;
  int64_t d;
  if (!c || !expr_is_const(dim, &d)) return true;
  for (int64_t i = first; i < c->count; i += step) {
    const int64_t v = const_int(c, i);
    if (v < -d || v >= d)
      return op_error(m, n, ERR_VALUE, "index %lld is outside of an axis of size %lld",
                      (long long)v, (long long)d);
  }
  return true;
}

/* Reads input 0 at src where the indexed dims cannot be empty, or under a guard. */
static const Expr *read_safe(ElemCtx *c, const Node *n, const Expr *const *src, const Expr *guard) {
  return guard ? elem_in_guarded(c, n, 0, src, guard) : elem_in(c, n, 0, src);
}

static const Expr *index_into(ExprPool *p, const Expr *data, const Expr *dim, const Expr **guard) {
  if (tu_may_be_empty(p, dim)) {
    const Expr *some = ex_lt(p, ex_i64(p, 0), dim);
    int64_t on;
    if (!(expr_is_const(some, &on) && on)) *guard = *guard ? ex_and(p, *guard, some) : some;
  }
  return tu_wrap_clamp(p, tu_i64(p, data), dim);
}

/* ---- Gather ---- */
bool infer_gather(Model *m, Node *n) {
  const Value *a = n->in[0], *b = n->in[1];
  int axis, rank = 0;
  const Expr *dims[2 * MAX_RANK];
  if (!op_need_class(m, n, 1, CL_INT) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_axis(m, n, "axis", 0, a->rank, &axis) || !tu_indices_inside(m, n, 1, a->dims[axis], 0, 1))
    return false;
  for (int i = 0; i < axis; i++) dims[rank++] = a->dims[i];
  for (int i = 0; i < b->rank; i++) dims[rank++] = b->dims[i];
  for (int i = axis + 1; i < a->rank; i++) dims[rank++] = a->dims[i];
  return op_out(m, n, 0, a->dtype, rank, dims);
}

const Expr *elem_gather(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Value *a = n->in[0], *b = n->in[1];
  int64_t axis = node_int(n, "axis", 0);
  const Expr *src[MAX_RANK], *guard = NULL;
  if (axis < 0) axis += a->rank;
  for (int i = 0; i < axis; i++) src[i] = idx[i];
  src[axis] = index_into(c->pool, elem_in(c, n, 1, idx + axis), a->dims[axis], &guard);
  for (int i = (int)axis + 1; i < a->rank; i++) src[i] = idx[i + b->rank - 1];
  return read_safe(c, n, src, guard);
}

/* ---- GatherElements ---- */
bool infer_gather_elements(Model *m, Node *n) {
  const Value *a = n->in[0], *b = n->in[1];
  int axis;
  if (!op_need_class(m, n, 1, CL_INT) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_need_rank(m, n, 1, a->rank, a->rank) || !op_axis(m, n, "axis", 0, a->rank, &axis) ||
      !tu_indices_inside(m, n, 1, a->dims[axis], 0, 1))
    return false;
  for (int i = 0; i < a->rank; i++)
    if (i != axis &&
        !require_at_most(m, n, b->dims[i], a->dims[i], "dimension of indices and data"))
      return false;
  return op_out_like(m, n, 0, a->dtype, b);
}

const Expr *elem_gather_elements(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *a = n->in[0];
  int64_t axis = node_int(n, "axis", 0);
  const Expr *src[MAX_RANK], *guard = NULL;
  if (axis < 0) axis += a->rank;
  for (int i = 0; i < a->rank; i++)
    src[i] = i == axis ? index_into(p, elem_in(c, n, 1, idx), a->dims[i], &guard) : idx[i];
  return read_safe(c, n, src, guard);
}

/* ---- GatherND ---- */
bool infer_gather_nd(Model *m, Node *n) {
  const Value *a = n->in[0], *b = n->in[1];
  int64_t batch, k;
  const Expr *dims[2 * MAX_RANK];
  int rank = 0;
  if (!op_need_class(m, n, 1, CL_INT) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_need_rank(m, n, 1, 1, MAX_RANK))
    return false;
  const int least = a->rank < b->rank ? a->rank : b->rank;
  if (!op_int_in(m, n, "batch_dims", 0, 0, least - 1, &batch)) return false;
  if (!expr_is_const(b->dims[b->rank - 1], &k))
    return op_error(m, n, ERR_DYNAMIC, "the last dim of indices is not known");
  if (k < 1 || k > a->rank - batch)
    return op_error(m, n, ERR_SHAPE, "index tuples of %lld for rank %d with %lld batch dims",
                    (long long)k, a->rank, (long long)batch);
  for (int i = 0; i < batch; i++)
    if (!op_same_dim(m, n, a->dims[i], b->dims[i], "batch dimension", &dims[i])) return false;
  for (; rank < b->rank - 1; rank++) dims[rank] = rank < batch ? dims[rank] : b->dims[rank];
  for (int64_t j = 0; j < k; j++)
    if (!tu_indices_inside(m, n, 1, a->dims[batch + j], j, k)) return false;
  for (int i = (int)(batch + k); i < a->rank; i++) dims[rank++] = a->dims[i];
  return op_out(m, n, 0, a->dtype, rank, dims);
}

const Expr *elem_gather_nd(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Value *a = n->in[0], *b = n->in[1];
  const int64_t batch = node_int(n, "batch_dims", 0);
  const Expr *src[MAX_RANK], *at[MAX_RANK], *guard = NULL;
  int64_t k = 1;
  expr_is_const(b->dims[b->rank - 1], &k);
  memcpy(at, idx, sizeof *at * (size_t)(b->rank - 1));
  for (int i = 0; i < batch; i++) src[i] = idx[i];
  for (int j = 0; j < k; j++) {
    at[b->rank - 1] = ex_i64(c->pool, j);
    src[batch + j] = index_into(c->pool, elem_in(c, n, 1, at), a->dims[batch + j], &guard);
  }
  for (int i = (int)(batch + k), o = b->rank - 1; i < a->rank; i++, o++) src[i] = idx[o];
  return read_safe(c, n, src, guard);
}
