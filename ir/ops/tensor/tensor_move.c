/* Ops that move whole elements by index arithmetic: Transpose, Concat, Split, DepthToSpace,
 * SpaceToDepth, ReverseSequence, Trilu, OneHot. Every index is in range by construction. */
#include <string.h>
#include "ir/op/tensor_util.h"

/* ---- Transpose ---- */
static int transpose_perm(const Node *n, int axis) {
  const int64_t *perm;
  return node_ints(n, "perm", &perm) > 0 ? (int)perm[axis] : n->in[0]->rank - 1 - axis;
}

bool infer_transpose(Model *m, Node *n) {
  const Value *in = n->in[0];
  const int64_t *perm;
  int count;
  bool seen[MAX_RANK] = {0};
  const Expr *dims[MAX_RANK];
  if (!op_ints(m, n, "perm", &perm, &count)) return false;
  if (count > 0 || (count == 0 && in->rank > 0)) {
    if (count != in->rank)
      return op_error(m, n, ERR_ATTR_VALUE, "perm has %d entries for rank %d", count, in->rank);
    for (int i = 0; i < count; i++) {
      if (perm[i] < 0 || perm[i] >= count || seen[perm[i]])
        return op_error(m, n, ERR_ATTR_VALUE, "perm is not a permutation (entry %d is %lld)", i,
                        (long long)perm[i]);
      seen[perm[i]] = true;
    }
  }
  for (int i = 0; i < in->rank; i++) dims[i] = in->dims[transpose_perm(n, i)];
  return op_out(m, n, 0, in->dtype, in->rank, dims);
}

const Expr *elem_transpose(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Expr *src[MAX_RANK];
  for (int i = 0; i < n->in[0]->rank; i++) src[transpose_perm(n, i)] = idx[i];
  return elem_in(c, n, 0, src);
}

/* ---- Concat ---- */
bool infer_concat(Model *m, Node *n) {
  const Value *first = n->in[0];
  int axis;
  const Expr *dims[MAX_RANK];
  if (!node_attr(n, "axis")) return op_error(m, n, ERR_ATTR_MISSING, "axis is missing");
  if (!op_axis(m, n, "axis", 0, first->rank, &axis)) return false;
  memcpy(dims, first->dims, sizeof *dims * (size_t)first->rank);
  for (int k = 1; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (!op_same_dtype(m, n, k, 0) || !op_need_rank(m, n, k, first->rank, first->rank))
      return false;
    for (int i = 0; i < first->rank; i++) {
      if (i == axis)
        dims[i] = ex_add(m->pool, dims[i], v->dims[i]);
      else if (!op_same_dim(m, n, dims[i], v->dims[i], "dimension", &dims[i]))
        return false;
    }
  }
  return op_out(m, n, 0, first->dtype, first->rank, dims);
}

typedef struct ConcatRead {
  ElemCtx *c;
  const Node *n;
  int axis;
  const Expr **idx, **start; /* start[k]: where input k begins; n_in + 1 entries */
} ConcatRead;

static const Expr *concat_part(const ConcatRead *r, int from, int to) {
  ExprPool *p = r->c->pool;
  const Expr *at = r->idx[r->axis];
  if (to - from == 1) {
    const Expr *guard = ex_bool(p, true), *src[MAX_RANK];
    if (from > 0) guard = ex_and(p, guard, ex_le(p, r->start[from], at));
    if (to < r->n->n_in) guard = ex_and(p, guard, ex_lt(p, at, r->start[to]));
    memcpy(src, r->idx, sizeof *src * (size_t)r->n->in[from]->rank);
    src[r->axis] = ex_sub(p, at, r->start[from]);
    int64_t on;
    if (expr_is_const(guard, &on)) return on ? elem_in(r->c, r->n, from, src) : NULL;
    return elem_in_guarded(r->c, r->n, from, src, guard);
  }
  const int mid = (from + to) / 2;
  const Expr *first = ex_lt(p, at, r->start[mid]);
  int64_t on;
  if (expr_is_const(first, &on)) return on ? concat_part(r, from, mid) : concat_part(r, mid, to);
  const Expr *a = concat_part(r, from, mid), *b = concat_part(r, mid, to);
  return !a ? b : !b ? a : ex_select(p, first, a, b);
}

/* A balanced tree of selects over the inputs; each is read only inside its own range. */
const Expr *elem_concat(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const int rank = n->in[0]->rank;
  int64_t axis = node_int(n, "axis", 0);
  const Expr *own[MAX_RANK];
  const Expr **start = ARENA_ARRAY(c->model->arena, const Expr *, n->n_in + 1);
  if (axis < 0) axis += rank;
  memcpy(own, idx, sizeof *own * (size_t)rank);
  start[0] = ex_i64(p, 0);
  for (int k = 0; k < n->n_in; k++) start[k + 1] = ex_add(p, start[k], n->in[k]->dims[axis]);
  const ConcatRead r = {c, n, (int)axis, own, start};
  const Expr *e = concat_part(&r, 0, n->n_in);
  return e ? e : ex_const(p, n->out[0]->dtype, 0);
}

/* ---- Split ---- */
/* Without sizes and num_outputs, as before opset 18, all pieces are equal. */
static bool splits_evenly(const Node *n) { return !node_in(n, 1) && !node_attr(n, "num_outputs"); }

/* Where output k begins and how long it is. */
static void split_range(ExprPool *p, const Node *n, int axis, int k, const Expr **start,
                        const Expr **len) {
  const Expr *dim = n->in[0]->dims[axis], *zero = ex_i64(p, 0);
  *start = zero;
  if (node_in(n, 1)) {
    for (int i = 0; i < k; i++) *start = ex_add(p, *start, tu_known(p, n, 1, i));
    *len = tu_known(p, n, 1, k);
    return;
  }
  const bool even = splits_evenly(n);
  const Expr *each = even ? ex_floordiv(p, dim, ex_i64(p, n->n_out)) : ex_ceildiv(p, dim, n->n_out);
  *start = ex_mul(p, each, ex_i64(p, k));
  *len = even || k < n->n_out - 1 ? each : ex_sub(p, dim, *start);
}

static bool split_sizes(Model *m, Node *n, int axis) {
  int count;
  const Expr *sum = ex_i64(m->pool, 0), *zero = sum;
  if (!op_need_class(m, n, 1, CL_INT) || !tu_count(m, n, 1, "split", n->n_out, &count))
    return false;
  if (count != n->n_out)
    return op_error(m, n, ERR_ARITY, "%d sizes for %d outputs", count, n->n_out);
  for (int i = 0; i < count; i++) {
    const Expr *e = tu_elem(m, n, 1, i);
    if (!require_at_least(m, n, e, zero, "size of a piece") ||
        !require_at_most(m, n, e, n->in[0]->dims[axis], "size of a piece and of the axis"))
      return false;
    sum = ex_add(m->pool, sum, e);
  }
  return require_equal(m, n, sum, n->in[0]->dims[axis], "sum of the pieces and size of the axis");
}

bool infer_split(Model *m, Node *n) {
  const Value *in = n->in[0];
  int axis;
  int64_t parts;
  const Expr *dims[MAX_RANK], *start, *zero = ex_i64(m->pool, 0);
  if (!op_axis(m, n, "axis", 0, in->rank, &axis) || !op_int(m, n, "num_outputs", n->n_out, &parts))
    return false;
  if (node_in(n, 1) && !split_sizes(m, n, axis)) return false;
  if (!node_in(n, 1) && parts != n->n_out)
    return op_error(m, n, ERR_ATTR_VALUE, "num_outputs is %lld, the node has %d", (long long)parts,
                    n->n_out);
  if (splits_evenly(n) && !require_multiple(m, n, in->dims[axis], ex_i64(m->pool, n->n_out),
                                            "axis and number of equal pieces"))
    return false;
  for (int k = 0; k < n->n_out; k++) {
    memcpy(dims, in->dims, sizeof *dims * (size_t)in->rank);
    split_range(m->pool, n, axis, k, &start, &dims[axis]);
    if (!require_at_least(m, n, dims[axis], zero, "last of the equal pieces")) return false;
    dims[axis] = tu_dim(m, n, k, axis, dims[axis], in->dims[axis]);
    if (!op_out(m, n, k, in->dtype, in->rank, dims)) return false;
  }
  return true;
}

const Expr *elem_split(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *in = n->in[0];
  int64_t axis = node_int(n, "axis", 0);
  const Expr *src[MAX_RANK], *start, *len;
  if (axis < 0) axis += in->rank;
  memcpy(src, idx, sizeof *src * (size_t)in->rank);
  split_range(p, n, (int)axis, out, &start, &len);
  src[axis] = ex_add(p, idx[axis], start);
  if (n->n_syms > 0) { /* sizes are data */
    src[axis] = tu_clamp(p, src[axis], ex_i64(p, 0), ex_sub(p, in->dims[axis], ex_i64(p, 1)));
    return elem_in_guarded(c, n, 0, src, ex_lt(p, ex_i64(p, 0), in->dims[axis]));
  }
  return elem_in(c, n, 0, src);
}

/* ---- DepthToSpace, SpaceToDepth ---- */
static bool block_size(Model *m, Node *n, int64_t *b) {
  if (!op_need_rank(m, n, 0, 4, 4)) return false;
  if (!node_attr(n, "blocksize")) return op_error(m, n, ERR_ATTR_MISSING, "blocksize is missing");
  return op_int_in(m, n, "blocksize", 0, 1, 1 << 20, b);
}

static bool divides(Model *m, Node *n, int axis, int64_t by) {
  return require_multiple(m, n, n->in[0]->dims[axis], ex_i64(m->pool, by), "axis cut into blocks");
}

bool infer_depth_to_space(Model *m, Node *n) {
  static const char *const modes[] = {"DCR", "CRD", NULL};
  const Value *in = n->in[0];
  int64_t b;
  int mode;
  if (!block_size(m, n, &b) || !op_choice(m, n, "mode", "DCR", modes, &mode) ||
      !divides(m, n, 1, b * b))
    return false;
  const Expr *e = ex_i64(m->pool, b);
  const Expr *dims[4] = {in->dims[0], ex_floordiv(m->pool, in->dims[1], ex_i64(m->pool, b * b)),
                         op_times(m, in->dims[2], e), op_times(m, in->dims[3], e)};
  return op_out(m, n, 0, in->dtype, 4, dims);
}

const Expr *elem_depth_to_space(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *b = ex_i64(p, node_int(n, "blocksize", 1)), *depth = n->out[0]->dims[1];
  const Expr *by = ex_floormod(p, idx[2], b), *bx = ex_floormod(p, idx[3], b), *ch;
  const Expr *cell = ex_add(p, ex_mul(p, by, b), bx);
  if (strcmp(node_string(n, "mode", "DCR"), "CRD") == 0)
    ch = ex_add(p, ex_mul(p, idx[1], ex_mul(p, b, b)), cell);
  else
    ch = ex_add(p, ex_mul(p, cell, depth), idx[1]);
  const Expr *src[4] = {idx[0], ch, ex_floordiv(p, idx[2], b), ex_floordiv(p, idx[3], b)};
  return elem_in(c, n, 0, src);
}

bool infer_space_to_depth(Model *m, Node *n) {
  static const char *const modes[] = {"DCR", "CRD", NULL};
  const Value *in = n->in[0];
  int64_t b;
  int mode;
  if (!block_size(m, n, &b) || !op_choice(m, n, "mode", "DCR", modes, &mode) ||
      !divides(m, n, 2, b) || !divides(m, n, 3, b))
    return false;
  const Expr *e = ex_i64(m->pool, b);
  const Expr *dims[4] = {in->dims[0], op_times(m, in->dims[1], ex_i64(m->pool, b * b)),
                         ex_floordiv(m->pool, in->dims[2], e),
                         ex_floordiv(m->pool, in->dims[3], e)};
  return op_out(m, n, 0, in->dtype, 4, dims);
}

const Expr *elem_space_to_depth(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *b = ex_i64(p, node_int(n, "blocksize", 1)), *depth = n->in[0]->dims[1],
             *cells = ex_mul(p, b, b);
  const bool crd = strcmp(node_string(n, "mode", "DCR"), "CRD") == 0;
  const Expr *cell = crd ? ex_floormod(p, idx[1], cells) : ex_floordiv(p, idx[1], depth);
  const Expr *ch = crd ? ex_floordiv(p, idx[1], cells) : ex_floormod(p, idx[1], depth);
  const Expr *src[4] = {idx[0], ch, ex_add(p, ex_mul(p, idx[2], b), ex_floordiv(p, cell, b)),
                        ex_add(p, ex_mul(p, idx[3], b), ex_floormod(p, cell, b))};
  return elem_in(c, n, 0, src);
}

/* ---- ReverseSequence ---- */
bool infer_reverse_sequence(Model *m, Node *n) {
  const Value *in = n->in[0];
  int64_t batch, time;
  const Expr *same;
  if (!op_need_rank(m, n, 0, 2, MAX_RANK) || !op_need_rank(m, n, 1, 1, 1) ||
      !op_need_class(m, n, 1, CL_INT))
    return false;
  if (!op_int_in(m, n, "batch_axis", 1, 0, 1, &batch) ||
      !op_int_in(m, n, "time_axis", 0, 0, 1, &time))
    return false;
  if (batch == time)
    return op_error(m, n, ERR_ATTR_VALUE, "batch_axis and time_axis are both %lld",
                    (long long)time);
  return op_same_dim(m, n, in->dims[batch], n->in[1]->dims[0], "batch", &same) &&
         tu_lengths_inside(m, n, 1, in->dims[time]) && op_out_like(m, n, 0, in->dtype, in);
}

const Expr *elem_reverse_sequence(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const int64_t batch = node_int(n, "batch_axis", 1), time = node_int(n, "time_axis", 0);
  const Expr *src[MAX_RANK], *t = idx[time], *at[1] = {idx[batch]};
  const Expr *len =
      tu_clamp(p, tu_i64(p, elem_in(c, n, 1, at)), ex_i64(p, 0), n->in[0]->dims[time]);
  memcpy(src, idx, sizeof *src * (size_t)n->in[0]->rank);
  src[time] = ex_select(p, ex_lt(p, t, len), ex_sub(p, ex_sub(p, len, ex_i64(p, 1)), t), t);
  return elem_in(c, n, 0, src);
}

/* Input 1 as it is, held against dimension 0 of input 0 (passes/graph/check_indices.c). */
bool infer_lengths(Model *m, Node *n) {
  return tu_lengths_inside(m, n, 1, n->in[0]->dims[0]) &&
         op_out_like(m, n, 0, n->in[1]->dtype, n->in[1]);
}

const Expr *elem_lengths(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return elem_in(c, n, 1, idx);
}

/* ---- Rows ---- */
/* Rows of x from number `first` on, `count` of them; beyond an end the last one again. */
bool infer_rows(Model *m, Node *n) {
  if (!op_need_rank(m, n, 0, 1, MAX_RANK) || !op_need_class(m, n, 1, CL_INT) ||
      !op_need_class(m, n, 2, CL_INT))
    return false;
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK], *count = tu_elem(m, n, 2, 0);
  tu_elem(m, n, 1, 0);
  for (int d = 0; d < x->rank; d++) dims[d] = x->dims[d];
  dims[0] = tu_dim(m, n, 0, 0, count, x->dims[0]);
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

const Expr *elem_rows(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const Expr *at[MAX_RANK], *zero = ex_i64(p, 0), *last = ex_sub(p, x->dims[0], ex_i64(p, 1));
  for (int d = 0; d < x->rank; d++) at[d] = idx[d];
  at[0] = tu_clamp(p, ex_add(p, tu_known(p, n, 1, 0), idx[0]), zero, last);
  if (!tu_may_be_empty(p, x->dims[0])) return elem_in(c, n, 0, at);
  return elem_in_guarded(c, n, 0, at, ex_lt(p, zero, x->dims[0]));
}

/* ---- Trilu, OneHot ---- */
bool infer_trilu(Model *m, Node *n) {
  int64_t upper;
  if (!op_need_rank(m, n, 0, 2, MAX_RANK) || !op_need_rank(m, n, 1, 0, 1) ||
      !op_need_class(m, n, 1, CL_INT))
    return false;
  return op_int_in(m, n, "upper", 1, 0, 1, &upper) &&
         op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]);
}

const Expr *elem_trilu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const int r = n->in[0]->rank;
  const Expr *zero[1] = {ex_i64(p, 0)};
  const Expr *k = node_in(n, 1) ? tu_i64(p, elem_in(c, n, 1, zero)) : zero[0];
  /* column - row, which cannot overflow as row + k can */
  const Expr *diag = ex_sub(p, idx[r - 1], idx[r - 2]);
  const Expr *keep = node_int(n, "upper", 1) ? ex_le(p, k, diag) : ex_le(p, diag, k);
  return ex_select(p, keep, elem_in(c, n, 0, idx), ex_const(p, n->out[0]->dtype, 0));
}

static const Expr *one_hot_depth(Model *m, Node *n) {
  const ConstData *c = n->in[1]->cdata;
  if (c && dtype_is_float(c->dtype)) { /* out of range: the error below */
    const double d = c->count > 0 ? const_float(c, 0) : -1;
    return ex_i64(m->pool, d >= 0 && d < 1e9 ? (int64_t)d : -1);
  }
  return tu_elem(m, n, 1, 0); /* NULL: floats that are data, which up_one_hot casts */
}

bool infer_one_hot(Model *m, Node *n) {
  const Value *in = n->in[0];
  int axis;
  const Expr *dims[MAX_RANK];
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_need_class(m, n, 1, CL_NUMBER) ||
      !op_need_rank(m, n, 1, 0, 1) || !op_need_rank(m, n, 2, 1, 1) ||
      !op_need_rank(m, n, 0, 0, MAX_RANK - 1))
    return false;
  if (!op_axis(m, n, "axis", -1, in->rank + 1, &axis)) return false;
  if (!require_size(m, n, n->in[2]->dims[0], 2, "number of values")) return false;
  const Expr *depth = one_hot_depth(m, n);
  if (!depth) return op_error(m, n, ERR_DYNAMIC, "depth is not known");
  if (!require_at_least(m, n, depth, ex_i64(m->pool, 1), "depth")) return false;
  for (int i = 0, k = 0; i <= in->rank; i++)
    dims[i] = i == axis ? tu_dim(m, n, 0, i, depth, NULL) : in->dims[k++];
  return op_out(m, n, 0, n->in[2]->dtype, in->rank + 1, dims);
}

const Expr *elem_one_hot(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const int rank = n->in[0]->rank;
  int64_t axis = node_int(n, "axis", -1);
  const Expr *src[MAX_RANK], *off[1] = {ex_i64(p, 0)}, *on[1] = {ex_i64(p, 1)};
  if (axis < 0) axis += rank + 1;
  for (int i = 0, k = 0; i <= rank; i++)
    if (i != axis) src[k++] = idx[i];
  const Expr *hot = tu_wrap(p, tu_i64(p, elem_in(c, n, 0, src)), n->out[0]->dims[axis]);
  return ex_select(p, ex_eq(p, hot, idx[axis]), elem_in(c, n, 2, on), elem_in(c, n, 2, off));
}
