/* Ops that look at or change shapes and leave the elements in place: Identity, Shape, Size,
 * Reshape, Flatten, Squeeze, Unsqueeze, Expand, Tile, and the generators ConstantOfShape, Range,
 * EyeLike. */
#include <string.h>
#include "ir/op/tensor_util.h"

bool infer_identity(Model *m, Node *n) {
  const Value *a = n->in[0];
  Value *o = node_out(n, 0);
  if (a->kind == TY_TENSOR) return op_out_like(m, n, 0, a->dtype, a);
  if (!o) return true;
  o->kind = a->kind;
  o->dtype = a->dtype;
  o->rank = a->rank;
  o->dims = a->dims;
  return true;
}

const Expr *elem_identity(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return elem_in(c, n, 0, idx);
}

/* ---- Shape, Size ---- */
static int clamp_pos(int64_t v, int rank) {
  if (v < 0) v += rank;
  return v < 0 ? 0 : v > rank ? rank : (int)v;
}

static void shape_range(const Node *n, int *from, int *to) {
  const int rank = n->in[0]->rank;
  *from = clamp_pos(node_int(n, "start", 0), rank);
  *to = clamp_pos(node_int(n, "end", rank), rank);
  if (*to < *from) *to = *from;
}

bool infer_shape(Model *m, Node *n) {
  int from, to;
  shape_range(n, &from, &to);
  const Expr *d = ex_i64(m->pool, to - from);
  if (!op_out(m, n, 0, DT_I64, 1, &d)) return false;
  Value *o = node_out(n, 0);
  if (!o) return true;
  const Expr **e = ARENA_ARRAY(m->arena, const Expr *, to - from + 1);
  for (int i = from; i < to; i++) e[i - from] = n->in[0]->dims[i];
  o->contents = e;
  return true;
}

const Expr *elem_shape(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  int from, to;
  shape_range(n, &from, &to);
  const Expr *e = ex_i64(c->pool, 0);
  for (int i = to - 1; i >= from; i--)
    e = i == to - 1 ? n->in[0]->dims[i]
                    : ex_select(c->pool, ex_eq(c->pool, idx[0], ex_i64(c->pool, i - from)),
                                n->in[0]->dims[i], e);
  return e;
}

bool infer_size(Model *m, Node *n) {
  if (!op_out(m, n, 0, DT_I64, 0, NULL)) return false;
  Value *o = node_out(n, 0);
  if (!o) return true;
  const Expr **e = ARENA_ARRAY(m->arena, const Expr *, 1);
  e[0] = value_count(m->pool, n->in[0]);
  o->contents = e;
  return true;
}

const Expr *elem_size(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return value_count(c->pool, n->in[0]);
}

/* ---- Reshape and its relatives: same elements in row-major order ---- */
typedef struct Dims {
  int n;
  const Expr *d[MAX_RANK];
  int at[MAX_RANK]; /* position in the value */
} Dims;

static Dims dims_but_ones(const Value *v) {
  Dims r = {0};
  for (int i = 0; i < v->rank; i++) {
    if (expr_is_i64(v->dims[i], 1)) continue;
    r.at[r.n] = i;
    r.d[r.n++] = v->dims[i];
  }
  return r;
}

/* The next pair (i, j) after (i0, j0) with equal products of a[i0..i) and b[j0..j). */
static void next_group(ExprPool *p, const Dims *a, const Dims *b, int i0, int j0, int *i1,
                       int *j1) {
  const Expr *pa = ex_i64(p, 1);
  for (int i = i0; i < a->n; i++) {
    pa = ex_mul(p, pa, a->d[i]);
    const Expr *pb = ex_i64(p, 1);
    for (int j = j0; j < b->n; j++) {
      pb = ex_mul(p, pb, b->d[j]);
      if (pa != pb) continue;
      *i1 = i + 1;
      *j1 = j + 1;
      return;
    }
  }
  *i1 = a->n;
  *j1 = b->n;
}

/* How many trailing dims after (i0, j0) agree one to one. */
static int common_tail(const Dims *a, const Dims *b, int i0, int j0) {
  int k = 0;
  while (a->n - k > i0 && b->n - k > j0 && a->d[a->n - k - 1] == b->d[b->n - k - 1]) k++;
  return k;
}

/* Equal runs of dims map one to one; div and mod stay within the groups whose dims really change.
 */
const Expr *elem_reshape(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *vi = n->in[0];
  Dims a = dims_but_ones(vi), b = dims_but_ones(n->out[0]);
  const Expr *src[MAX_RANK];
  for (int i = 0; i < vi->rank; i++) src[i] = ex_i64(p, 0);
  int tail = common_tail(&a, &b, 0, 0);
  for (int k = 1; k <= tail; k++) src[a.at[a.n - k]] = idx[b.at[b.n - k]];
  a.n -= tail;
  b.n -= tail;
  for (int i = 0, j = 0; i < a.n || j < b.n;) {
    int i1, j1;
    next_group(p, &a, &b, i, j, &i1, &j1);
    const Expr *to[MAX_RANK], *flat_idx[MAX_RANK];
    for (int k = j; k < j1; k++) flat_idx[k - j] = idx[b.at[k]];
    const Expr *flat = j1 > j ? index_flatten(p, j1 - j, b.d + j, flat_idx) : ex_i64(p, 0);
    if (i1 > i) index_unflatten(p, i1 - i, a.d + i, flat, to);
    for (int k = i; k < i1; k++) src[a.at[k]] = to[k - i];
    i = i1;
    j = j1;
  }
  return elem_in(c, n, 0, src);
}

/* total / known, after taking away dims that both sides share. */
static const Expr *missing_dim(Model *m, const Value *in, int rank, const Expr *const *dims,
                               int hole) {
  ExprPool *p = m->pool;
  bool used[MAX_RANK] = {0};
  const Expr *rest = ex_i64(p, 1), *total = ex_i64(p, 1);
  for (int i = 0; i < rank; i++) {
    if (i == hole) continue;
    int k = 0;
    while (k < in->rank && (used[k] || in->dims[k] != dims[i])) k++;
    if (k < in->rank)
      used[k] = true;
    else
      rest = ex_mul(p, rest, dims[i]);
  }
  for (int k = 0; k < in->rank; k++)
    if (!used[k]) total = ex_mul(p, total, in->dims[k]);
  return expr_is_i64(rest, 0) ? ex_i64(p, 0) : ex_floordiv(p, total, rest);
}

/* Both element counts, when constant, agree. */
static bool same_count(Model *m, Node *n, int rank, const Expr *const *dims) {
  return require_equal(m, n, value_count(m->pool, n->in[0]), op_product(m, dims, 0, rank),
                       "elements before and after");
}

/* A size from data: 0 copies, -1 is the rest. */
static const Expr *data_dim(Model *m, const Value *in, int rank, const Expr *const *raw, int i) {
  ExprPool *p = m->pool;
  const Expr *rest = ex_i64(p, 1), *zero = ex_i64(p, 0), *minus = ex_i64(p, -1);
  const Expr *fixed[MAX_RANK];
  for (int k = 0; k < rank; k++) {
    fixed[k] = k < in->rank ? ex_select(p, ex_eq(p, raw[k], zero), in->dims[k], raw[k]) : raw[k];
    if (k != i) rest = ex_mul(p, rest, fixed[k]);
  }
  return ex_select(p, ex_eq(p, raw[i], minus), ex_floordiv(p, value_count(p, in), rest), fixed[i]);
}

bool infer_reshape(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *in = n->in[0];
  int rank, hole = -1;
  int64_t allowzero, k;
  if (!op_need_class(m, n, 1, CL_INT) || !op_need_rank(m, n, 1, 1, 1)) return false;
  if (!op_int_in(m, n, "allowzero", 0, 0, 1, &allowzero) ||
      !tu_count(m, n, 1, "shape", tu_declared_rank(n), &rank))
    return false;
  if (rank > MAX_RANK) return op_error(m, n, ERR_RANK, "rank %d is above %d", rank, MAX_RANK);
  const Expr *raw[MAX_RANK], *dims[MAX_RANK];
  bool data = false;
  for (int i = 0; i < rank; i++) data |= value_element(p, n->in[1], i) == NULL;
  for (int i = 0; i < rank; i++) raw[i] = tu_elem(m, n, 1, i);
  for (int i = 0; i < rank; i++) {
    dims[i] = raw[i];
    if (data) {
      dims[i] = tu_dim(m, n, 0, i, allowzero ? raw[i] : data_dim(m, in, rank, raw, i),
                       value_count(m->pool, in));
      continue;
    }
    if (!expr_is_const(raw[i], &k)) continue;
    if (k == -1 && hole >= 0) return op_error(m, n, ERR_VALUE, "shape has more than one -1");
    if (k == -1) hole = i;
    if (k < -1) return op_error(m, n, ERR_VALUE, "shape[%d] is %lld", i, (long long)k);
    if (k == 0 && !allowzero && i >= in->rank)
      return op_error(m, n, ERR_SHAPE, "shape[%d] is 0, but the input has rank %d", i, in->rank);
    if (k == 0 && !allowzero) dims[i] = in->dims[i];
  }
  if (hole >= 0) dims[hole] = missing_dim(m, in, rank, dims, hole);
  return op_out(m, n, 0, in->dtype, rank, dims) && same_count(m, n, rank, dims);
}

bool infer_flatten(Model *m, Node *n) {
  const Value *in = n->in[0];
  int64_t axis;
  if (!op_int_in(m, n, "axis", 1, -in->rank, in->rank, &axis)) return false;
  if (axis < 0) axis += in->rank;
  const Expr *dims[2] = {op_product(m, in->dims, 0, (int)axis),
                         op_product(m, in->dims, (int)axis, in->rank)};
  return op_out(m, n, 0, in->dtype, 2, dims);
}

/* ---- Squeeze, Unsqueeze ---- */
/* Axes that are data, of `rank` dimensions, each named once: *hit[d]: d is among them. */
static bool data_axes(Model *m, Node *n, int count, int rank, const Expr **hit) {
  ExprPool *p = m->pool;
  if (rank < 0 || rank > MAX_RANK)
    return op_error(m, n, ERR_RANK, "%d axes for a tensor of rank %d", count, n->in[0]->rank);
  for (int d = 0; d < rank; d++) hit[d] = ex_bool(p, false);
  if (!tu_data_axes(m, n, 1, count, rank)) return false;
  for (int i = 0; i < count; i++) {
    const Expr *axis = tu_wrap(p, tu_elem(m, n, 1, i), ex_i64(p, rank));
    for (int d = 0; d < rank; d++)
      hit[d] = ex_op(p, EX_or, hit[d], ex_eq(p, axis, ex_i64(p, d)), NULL);
  }
  return true;
}

/* The size of that dim of in which has `place` others that stay in front of it. */
static const Expr *placed_dim(ExprPool *p, const Value *in, const Expr *const *gone,
                              const Expr *place) {
  const Expr *size = ex_i64(p, 1), *before = ex_i64(p, 0);
  for (int d = 0; d < in->rank; d++) {
    const Expr *stays = gone ? tu_not(p, gone[d]) : ex_bool(p, true);
    const Expr *here = ex_op(p, EX_and, stays, ex_eq(p, before, place), NULL);
    size = ex_select(p, here, in->dims[d], size);
    before = ex_add(p, before, ex_cast(p, DT_I64, stays));
  }
  return size;
}

static const Expr *largest_dim(ExprPool *p, const Value *in) {
  const Expr *most = ex_i64(p, 1);
  for (int d = 0; d < in->rank; d++) most = ex_max(p, most, in->dims[d]);
  return most;
}

static bool squeeze_data(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *in = n->in[0];
  const Expr *dims[MAX_RANK], *gone[MAX_RANK], *one = ex_i64(p, 1);
  int count;
  if (!tu_count(m, n, 1, "axes", -1, &count)) return false;
  const int rank = in->rank - count;
  if (rank < 0) return op_error(m, n, ERR_RANK, "%d axes of %d are squeezed", count, in->rank);
  if (!data_axes(m, n, count, in->rank, gone)) return false;
  for (int d = 0; d < in->rank; d++)
    if (!require_size(m, n, ex_select(p, gone[d], in->dims[d], one), 1, "axis to squeeze"))
      return false;
  for (int d = 0; d < rank; d++)
    dims[d] = tu_dim(m, n, 0, d, placed_dim(p, in, gone, ex_i64(p, d)), largest_dim(p, in));
  return op_out(m, n, 0, in->dtype, rank, dims);
}

static bool unsqueeze_data(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *in = n->in[0];
  const Expr *dims[MAX_RANK], *one[MAX_RANK], *place = ex_i64(p, 0);
  int count;
  if (!tu_count(m, n, 1, "axes", -1, &count)) return false;
  const int rank = in->rank + count;
  if (!data_axes(m, n, count, rank, one)) return false;
  for (int d = 0; d < rank; d++) {
    const Expr *size = ex_select(p, one[d], ex_i64(p, 1), placed_dim(p, in, NULL, place));
    dims[d] = tu_dim(m, n, 0, d, size, largest_dim(p, in));
    place = ex_add(p, place, ex_cast(p, DT_I64, tu_not(p, one[d])));
  }
  return op_out(m, n, 0, in->dtype, rank, dims);
}

/* Without axes every size of 1 goes. The rank is fixed here, so a size that is not known stays, and
 * a run where it is 1 is refused. */
static bool drop_ones(Model *m, const Node *n, bool *drop) {
  const Value *in = n->in[0];
  const Expr *one = ex_i64(m->pool, 1);
  for (int i = 0; i < in->rank; i++) {
    drop[i] = in->dims[i] == one;
    if (!drop[i] && !require_nonzero(m, n, ex_sub(m->pool, in->dims[i], one),
                                     "size that is not 1, of an axis that stays"))
      return false;
  }
  return true;
}

bool infer_squeeze(Model *m, Node *n) {
  const Value *in = n->in[0];
  const Value *axes_in = node_in(n, 1);
  const Expr *dims[MAX_RANK];
  int axes[MAX_RANK], count = 0, rank = 0;
  bool drop[MAX_RANK] = {0};
  if (!op_need_dtype(m, n, 1, DT_I64)) return false;
  if (axes_in && !value_known(axes_in)) return squeeze_data(m, n);
  if (axes_in && !tu_axes(m, n, 1, in->rank, axes, &count)) return false;
  for (int i = 0; i < count; i++) {
    drop[axes[i]] = true;
    if (!require_size(m, n, in->dims[axes[i]], 1, "axis to squeeze")) return false;
  }
  if (!axes_in && !drop_ones(m, n, drop)) return false;
  for (int i = 0; i < in->rank; i++) {
    if (!drop[i]) dims[rank++] = in->dims[i];
  }
  return op_out(m, n, 0, in->dtype, rank, dims);
}

bool infer_unsqueeze(Model *m, Node *n) {
  const Value *in = n->in[0];
  const int64_t *v;
  int count;
  bool one[MAX_RANK] = {0};
  const Expr *dims[MAX_RANK];
  if (!op_need_dtype(m, n, 1, DT_I64)) return false;
  if (!value_known(n->in[1])) return unsqueeze_data(m, n);
  if (!op_need_ints(m, n, 1, "axes", &v, &count)) return false;
  const int rank = in->rank + count;
  if (rank > MAX_RANK) return op_error(m, n, ERR_RANK, "rank %d is above %d", rank, MAX_RANK);
  if (!op_axis_set(m, n, "axis", count, v, rank, one)) return false;
  for (int i = 0, k = 0; i < rank; i++) dims[i] = one[i] ? ex_i64(m->pool, 1) : in->dims[k++];
  return op_out(m, n, 0, in->dtype, rank, dims);
}

/* ---- Expand, Tile ---- */
/* A size of 1, on either side, takes the other's. */
static bool expand_dim(Model *m, Node *n, const Expr *in, const Expr *want, const Expr **out) {
  ExprPool *p = m->pool;
  const Expr *one = ex_i64(p, 1), *zero = ex_i64(p, 0);
  int64_t k;
  if (!require_at_least(m, n, want, zero, "size to expand to")) return false;
  if (in == want || in == one || want == one) return *out = in == one ? want : in, true;
  const bool fixed = expr_is_const(want, &k);
  *out = fixed || expr_is_const(in, &k) ? (fixed ? want : in)
                                        : ex_select(p, ex_eq(p, want, one), in, want);
  const Expr *from = ex_select(p, ex_eq(p, in, one), *out, in),
             *to = fixed ? want : ex_select(p, ex_eq(p, want, one), *out, want);
  return require_equal(m, n, from, to, "size and size to expand to");
}

bool infer_expand(Model *m, Node *n) {
  const Value *in = n->in[0];
  int count;
  if (!op_need_class(m, n, 1, CL_INT) || !op_need_rank(m, n, 1, 1, 1) ||
      !tu_count(m, n, 1, "shape", tu_declared_rank(n), &count))
    return false;
  const int rank = count > in->rank ? count : in->rank;
  const Expr *dims[MAX_RANK], *one = ex_i64(m->pool, 1);
  if (rank > MAX_RANK) return op_error(m, n, ERR_RANK, "rank %d is above %d", rank, MAX_RANK);
  for (int i = 0; i < rank; i++) {
    const int a = i - (rank - in->rank), s = i - (rank - count);
    const Expr *d = a >= 0 ? in->dims[a] : one, *e = s >= 0 ? tu_elem(m, n, 1, s) : one, *r;
    if (!expand_dim(m, n, d, e, &r)) return false;
    dims[i] = tu_dim(m, n, 0, i, r, NULL);
  }
  return op_out(m, n, 0, in->dtype, rank, dims);
}

/* An input size is 1 or that of the output, so the smaller of the two indices is right for both. */
const Expr *elem_expand(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *in = n->in[0], *o = n->out[0];
  const Expr *src[MAX_RANK], *one = ex_i64(p, 1);
  const int pad = o->rank - in->rank;
  for (int i = 0; i < in->rank; i++) {
    const Expr *d = in->dims[i];
    src[i] = d == o->dims[i + pad]
                 ? idx[i + pad]
                 : ex_max(p, ex_min(p, idx[i + pad], ex_sub(p, d, one)), ex_i64(p, 0));
  }
  return elem_in(c, n, 0, src);
}

bool infer_tile(Model *m, Node *n) {
  const Value *in = n->in[0];
  int count;
  if (!op_need_class(m, n, 1, CL_INT) || !op_need_rank(m, n, 1, 1, 1) ||
      !tu_count(m, n, 1, "repeats", in->rank, &count))
    return false;
  if (count != in->rank)
    return op_error(m, n, ERR_SHAPE, "%d repeats for rank %d", count, in->rank);
  const Expr *dims[MAX_RANK];
  for (int i = 0; i < count; i++) {
    const Expr *e = tu_elem(m, n, 1, i);
    if (!require_at_least(m, n, e, ex_i64(m->pool, 0), "repeats")) return false;
    dims[i] = tu_dim(m, n, 0, i, op_times(m, in->dims[i], e), NULL);
  }
  return op_out(m, n, 0, in->dtype, in->rank, dims);
}

const Expr *elem_tile(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Value *in = n->in[0], *o = n->out[0];
  const Expr *src[MAX_RANK];
  for (int i = 0; i < in->rank; i++)
    src[i] = in->dims[i] == o->dims[i] ? idx[i] : ex_floormod(c->pool, idx[i], in->dims[i]);
  return elem_in(c, n, 0, src);
}

/* ---- generators ---- */
bool infer_constant_of_shape(Model *m, Node *n) {
  const Attr *a = node_attr(n, "value");
  int rank;
  if (!op_need_class(m, n, 0, CL_INT) || !op_need_rank(m, n, 0, 1, 1) ||
      !tu_count(m, n, 0, "shape", tu_declared_rank(n), &rank))
    return false;
  if (a && (a->kind != AT_TENSOR || !a->tensor || a->tensor->count != 1))
    return op_error(m, n, ERR_ATTR_VALUE, "value must be a tensor of one element");
  if (rank > MAX_RANK) return op_error(m, n, ERR_RANK, "rank %d is above %d", rank, MAX_RANK);
  const Expr *dims[MAX_RANK];
  for (int i = 0; i < rank; i++) {
    const Expr *e = tu_elem(m, n, 0, i);
    if (!require_at_least(m, n, e, ex_i64(m->pool, 0), "size")) return false;
    dims[i] = tu_dim(m, n, 0, i, e, NULL);
  }
  return op_out(m, n, 0, a ? a->tensor->dtype : DT_F32, rank, dims);
}

const Expr *elem_constant_of_shape(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Attr *a = node_attr(n, "value");
  return a ? tu_const_element(c->pool, a->tensor, 0) : tu_f32(c->pool, 0);
}

static bool scalar_like(const Value *v) {
  return v->rank == 0 || (v->rank == 1 && expr_is_i64(v->dims[0], 1));
}

/* Number of elements of an integer range. */
static const Expr *range_count(ExprPool *p, const Expr *start, const Expr *limit,
                               const Expr *delta) {
  const Expr *zero = ex_i64(p, 0), *one = ex_i64(p, 1), *span = ex_sub(p, limit, start);
  int64_t d;
  if (expr_is_const(delta, &d) && d != 0) {
    if (d < 0) span = ex_sub(p, start, limit);
    return ex_max(p, ex_ceildiv(p, span, d < 0 ? -d : d), zero);
  }
  const Expr *up = ex_floordiv(p, ex_sub(p, ex_add(p, span, delta), one), delta);
  const Expr *mag = ex_sub(p, zero, delta);
  const Expr *down = ex_floordiv(p, ex_sub(p, ex_sub(p, mag, span), one), mag);
  return ex_max(p, ex_select(p, ex_lt(p, zero, delta), up, down), zero);
}

/* A scalar float that is a whole number, as an expression: a constant, or a known integer behind a
 * Cast. NULL: it is none. */
static const Expr *whole_scalar(Model *m, const Value *v) {
  const Node *const def = v->def;
  if (v->cdata) {
    const double x = const_float(v->cdata, 0);
    return x == __builtin_floor(x) && x > -1e15 && x < 1e15 ? ex_i64(m->pool, (int64_t)x) : NULL;
  }
  if (!def || strcmp(def->op->name, "Cast") != 0 || !value_known(def->in[0])) return NULL;
  const Expr *const e = value_element(m->pool, def->in[0], 0);
  return e && dtype_is_int((DType)e->dtype) ? ex_cast(m->pool, DT_I64, e) : NULL;
}

/* Up to here every whole number is one of the type. */
static int64_t whole_limit(DType t) {
  return t == DT_F64 ? INT64_C(1) << 53 : t == DT_F16 ? 1 << 11 : t == DT_BF16 ? 1 << 8 : 1 << 24;
}

/* *dim NULL: start, limit or delta is no whole number that is known. */
static bool whole_range(Model *m, Node *n, const Expr **dim) {
  const Expr *e[3];
  const Expr *const most = ex_i64(m->pool, whole_limit(n->in[0]->dtype));
  *dim = NULL;
  for (int k = 0; k < 3; k++)
    if (!(e[k] = whole_scalar(m, n->in[k]))) return true;
  if (!require_nonzero(m, n, e[2], "delta that is not 0")) return false;
  for (int k = 0; k < 2; k++)
    if (!require_at_most(m, n, e[k], most, "limit that is exact in floating point")) return false;
  *dim = tu_dim(m, n, 0, 0, range_count(m->pool, e[0], e[1], e[2]), NULL);
  return true;
}

/* Elements of a range of constants; the difference rounds as the type does. */
static bool constant_range(Model *m, Node *n, const Expr **dim) {
  double v[3];
  for (int k = 0; k < 3; k++) v[k] = const_float(n->in[k]->cdata, 0);
  if (v[2] == 0) return op_error(m, n, ERR_VALUE, "delta is 0");
  const double span = v[1] - v[0];
  double count = __builtin_ceil((n->in[0]->dtype == DT_F64 ? span : (double)(float)span) / v[2]);
  if (!(count > 0)) count = 0;
  if (!(count < 1e15)) return op_error(m, n, ERR_OVERFLOW, "range has %g elements", count);
  *dim = ex_i64(m->pool, (int64_t)count);
  return true;
}

/* Input 3, the number of elements (up_range), is only there, and only read, where it is data. */
static bool float_range(Model *m, Node *n) {
  const Expr *dim;
  if (!whole_range(m, n, &dim)) return false;
  const bool constant = n->in[0]->cdata && n->in[1]->cdata && n->in[2]->cdata;
  if (!dim && constant && !constant_range(m, n, &dim)) return false;
  if (!dim && !node_in(n, 3))
    return op_error(m, n, ERR_DYNAMIC,
                    "the number of elements of a floating-point range is not known");
  if (!dim)
    dim = tu_dim(m, n, 0, 0, ex_max(m->pool, tu_elem(m, n, 3, 0), ex_i64(m->pool, 0)), NULL);
  else
    n->n_in = 3;
  return op_out(m, n, 0, n->in[0]->dtype, 1, &dim);
}

bool infer_range(Model *m, Node *n) {
  for (int k = 0; k < 3; k++) {
    if (!op_need_class(m, n, k, CL_NUMBER) || !op_same_dtype(m, n, k, 0)) return false;
    if (!scalar_like(n->in[k])) return op_error(m, n, ERR_RANK, "input %d must be a scalar", k);
  }
  if (dtype_is_float(n->in[0]->dtype)) return float_range(m, n);
  n->n_in = 3;
  const Expr *s = tu_elem(m, n, 0, 0), *l = tu_elem(m, n, 1, 0), *d = tu_elem(m, n, 2, 0);
  int64_t a, b;
  if (!require_nonzero(m, n, d, "delta that is not 0")) return false;
  if (expr_is_const(s, &a) && expr_is_const(l, &b) &&
      (!ck_sub(b, a, &a) || !ck_add(a, INT32_MAX, &b) || !ck_sub(a, INT32_MAX, &b)))
    return op_error(m, n, ERR_OVERFLOW, "the range is too long");
  const Expr *dim = tu_dim(m, n, 0, 0, range_count(m->pool, s, l, d), NULL);
  return op_out(m, n, 0, n->in[0]->dtype, 1, &dim);
}

static const Expr *read_scalar(ElemCtx *c, const Node *n, int k) {
  const Expr *zero[1] = {ex_i64(c->pool, 0)};
  return elem_in(c, n, k, zero);
}

const Expr *elem_range(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = n->in[0]->dtype, ct = dtype_compute(t);
  const Expr *start = ex_cast(p, ct, read_scalar(c, n, 0)),
             *delta = ex_cast(p, ct, read_scalar(c, n, 2));
  return ex_cast(p, t, ex_add(p, start, ex_mul(p, ex_cast(p, ct, idx[0]), delta)));
}

bool infer_eye_like(Model *m, Node *n) {
  DType t;
  if (!op_need_class(m, n, 0, CL_NUMBER | CL_BOOL)) return false;
  if (!op_dtype(m, n, "dtype", n->in[0]->dtype, &t)) return false;
  if (t == DT_STR)
    return op_error(m, n, ERR_ATTR_VALUE, "a matrix of strings has no diagonal of 1");
  return op_need_rank(m, n, 0, 2, 2) && op_out_like(m, n, 0, t, n->in[0]);
}

const Expr *elem_eye_like(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *on = ex_eq(p, ex_add(p, idx[0], ex_i64(p, node_int(n, "k", 0))), idx[1]);
  const DType t = n->out[0]->dtype;
  return ex_select(p, on, ex_const(p, t, 1), ex_const(p, t, 0));
}
