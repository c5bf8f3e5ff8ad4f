/* Slice, Pad, CenterCropPad: windows of a tensor, with bounds that may be constants, symbolic or
 * data. */
#include <string.h>
#include "ir/op/tensor_util.h"

/* ---- Slice ---- */
/* One axis: element i of the output is element start + i*step of the input. */
typedef struct Window {
  const Expr *start, *step, *count;
} Window;

/* hi wins over lo: where an axis is empty, its last element lies before its first. */
static const Expr *bound_of(ExprPool *p, const Expr *e, const Expr *dim, const Expr *lo,
                            const Expr *hi) {
  int64_t k;
  if (expr_is_const(e, &k) && k >= INT32_MAX) return hi; /* behind all elements */
  if (expr_is_const(e, &k) && k <= -INT32_MAX) return ex_min(p, lo, hi);
  return ex_min(p, ex_max(p, tu_wrap(p, e, dim), lo), hi);
}

/* Elements of `span` positions, every step-th of which is taken. */
static const Expr *taken(ExprPool *p, const Expr *span, const Expr *step) {
  const Expr *one = ex_i64(p, 1), *last = ex_floordiv(p, ex_sub(p, span, one), step);
  return ex_max(p, ex_add(p, last, one), ex_i64(p, 0));
}

/* to - from, written so that s : s + n with an s that is data has the range [0, n]. */
static const Expr *span_up(ExprPool *p, const Expr *s, const Expr *e, const Expr *from,
                           const Expr *to, const Expr *dim) {
  const Expr *span = ex_sub(p, to, from);
  int64_t n, lo, hi, k;
  if (expr_is_const(s, &k) || expr_is_const(span, &k)) return span;
  if (!expr_is_const(ex_sub(p, e, s), &n) || n < 0) return span;
  const bool in_front = expr_range(p, s, &lo, &hi) && lo >= 0;
  return in_front ? ex_min(p, ex_i64(p, n), ex_sub(p, dim, from)) : span;
}

static Window window_up(ExprPool *p, const Expr *s, const Expr *e, const Expr *step,
                        const Expr *dim) {
  const Expr *zero = ex_i64(p, 0);
  const Expr *from = bound_of(p, s, dim, zero, dim), *to = bound_of(p, e, dim, zero, dim);
  return (Window){from, step, taken(p, span_up(p, s, e, from, to, dim), step)};
}

static Window window_down(ExprPool *p, const Expr *s, const Expr *e, const Expr *step,
                          const Expr *dim) {
  const Expr *zero = ex_i64(p, 0), *last = ex_sub(p, dim, ex_i64(p, 1));
  const Expr *from = bound_of(p, s, dim, zero, last),
             *to = bound_of(p, e, dim, ex_i64(p, -1), last);
  return (Window){from, step, taken(p, ex_sub(p, from, to), ex_sub(p, zero, step))};
}

static Window window_make(ExprPool *p, const Expr *s, const Expr *e, const Expr *step,
                          const Expr *dim) {
  const int64_t far = INT64_C(1) << 46; /* longer than any axis, and far from overflow */
  int64_t k;
  step = tu_clamp(p, step, ex_i64(p, -far), ex_i64(p, far));
  if (expr_is_const(step, &k))
    return k > 0 ? window_up(p, s, e, step, dim) : window_down(p, s, e, step, dim);
  const Window up = window_up(p, s, e, step, dim), down = window_down(p, s, e, step, dim);
  const Expr *pos = ex_lt(p, ex_i64(p, 0), step);
  return (Window){ex_select(p, pos, up.start, down.start), step,
                  ex_select(p, pos, up.count, down.count)};
}

/* The axes that are sliced, in the order of starts. */
static bool slice_axes(Model *m, Node *n, int count, int *axes) {
  const int rank = n->in[0]->rank;
  int given = count;
  if (count > rank) return op_error(m, n, ERR_SHAPE, "%d starts for rank %d", count, rank);
  const Value *a = node_in(n, 3);
  if (a && !value_known(a) &&
      count == rank) { /* axes that are data: as in order, checked by no one but declared shapes */
    return op_error(m, n, ERR_DYNAMIC, "axes are not known at compile time");
  }
  if (a && !tu_axes(m, n, 3, rank, axes, &given)) return false;
  if (given != count) return op_error(m, n, ERR_SHAPE, "%d axes for %d starts", given, count);
  for (int i = 0; !a && i < count; i++) axes[i] = i;
  return true;
}

/* Slicing of axis by entry k of starts, ends, steps. Elements exist: made by inference. */
static Window slice_window(ExprPool *p, const Node *n, int k, int axis) {
  const Expr *step = node_in(n, 4) ? tu_known(p, n, 4, k) : ex_i64(p, 1);
  return window_make(p, tu_known(p, n, 1, k), tu_known(p, n, 2, k), step, n->in[0]->dims[axis]);
}

/* Starts of unknown number are as many as the other lists have, or one, as exporters write an offset
 * at a data-dependent place; else the run fails. */
static bool same_counts(Model *m, Node *n, int *count) {
  static const char *const names[] = {"", "starts", "ends", "axes", "steps"};
  int64_t known, likely = 1;
  for (int k = 4; k >= 1; k--)
    if (node_in(n, k) && n->in[k]->rank == 1 && expr_is_const(n->in[k]->dims[0], &known))
      likely = known;
  for (int k = 1; k <= 4; k++) {
    int c;
    if (k > 1 && !node_in(n, k)) continue;
    if (!op_need_class(m, n, k, CL_INT) ||
        !tu_count(m, n, k, names[k], k > 1 ? *count : (int)likely, &c))
      return false;
    if (k > 1 && c != *count)
      return op_error(m, n, ERR_SHAPE, "%d %s for %d starts", c, names[k], *count);
    *count = c;
  }
  return true;
}

static bool declared_slice(Model *m, Node *n);

bool infer_slice(Model *m, Node *n) {
  const Value *in = n->in[0];
  int count = 0, axes[MAX_RANK];
  const Expr *dims[MAX_RANK];
  for (int k = 1; k < n->n_in; k++)
    if (!op_need_class(m, n, k, CL_INT) || !op_same_dtype(m, n, k, 1)) return false;
  if (!same_counts(m, n, &count)) return false;
  if (node_in(n, 3) && !value_known(n->in[3])) return declared_slice(m, n);
  if (!slice_axes(m, n, count, axes)) return false;
  memcpy(dims, in->dims, sizeof *dims * (size_t)in->rank);
  for (int k = 0; k < count; k++) {
    tu_elem(m, n, 1, k);
    tu_elem(m, n, 2, k);
    if (node_in(n, 4) && !require_nonzero(m, n, tu_elem(m, n, 4, k), "step that is not 0"))
      return false;
    const int axis = axes[k];
    dims[axis] = tu_dim(m, n, 0, axis, slice_window(m->pool, n, k, axis).count, in->dims[axis]);
  }
  return op_out(m, n, 0, in->dtype, in->rank, dims);
}

/* Axes that are data: each axis looks for its entry. */
static Window window_by_data(ExprPool *p, const Node *n, int count, int axis) {
  const Expr *dim = n->in[0]->dims[axis], *one = ex_i64(p, 1), *rank = ex_i64(p, n->in[0]->rank);
  const Expr *s = ex_i64(p, 0), *e = dim, *step = one;
  for (int k = 0; k < count; k++) {
    const Expr *hit = ex_eq(p, tu_wrap(p, tu_known(p, n, 3, k), rank), ex_i64(p, axis));
    s = ex_select(p, hit, tu_known(p, n, 1, k), s);
    e = ex_select(p, hit, tu_known(p, n, 2, k), e);
    if (node_in(n, 4)) step = ex_select(p, hit, tu_known(p, n, 4, k), step);
  }
  return window_make(p, s, e, step, dim);
}

static bool declared_slice(Model *m, Node *n) {
  const Value *in = n->in[0];
  int64_t count = 1;
  const Expr *dims[MAX_RANK];
  if (n->in[1]->rank == 1) expr_is_const(n->in[1]->dims[0], &count);
  for (int k = 1; k <= 4; k++)
    for (int i = 0; node_in(n, k) && i < count; i++) tu_elem(m, n, k, i);
  for (int i = 0; node_in(n, 4) && i < count; i++)
    if (!require_nonzero(m, n, tu_elem(m, n, 4, i), "step that is not 0")) return false;
  if (!tu_data_axes(m, n, 3, (int)count, in->rank)) return false;
  for (int i = 0; i < in->rank; i++)
    dims[i] = tu_dim(m, n, 0, i, window_by_data(m->pool, n, (int)count, i).count, in->dims[i]);
  return op_out(m, n, 0, in->dtype, in->rank, dims);
}

const Expr *elem_slice(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *in = n->in[0], *axes = node_in(n, 3);
  const Expr *src[MAX_RANK];
  int64_t count = 1;
  const Expr *guard = NULL;
  memcpy(src, idx, sizeof *src * (size_t)in->rank);
  if (n->in[1]->rank == 1) expr_is_const(n->in[1]->dims[0], &count);
  const bool by_data = axes && !value_known(axes);
  for (int k = 0; k < (by_data ? in->rank : count); k++) {
    int64_t axis = k;
    if (axes && !by_data) expr_is_const(tu_known(p, n, 3, k), &axis);
    if (axis < 0) axis += in->rank;
    const Window w =
        by_data ? window_by_data(p, n, (int)count, k) : slice_window(p, n, k, (int)axis);
    src[axis] = ex_add(p, w.start, ex_mul(p, idx[axis], w.step));
    if (n->n_syms == 0) continue;
    const Expr *dim = in->dims[axis]; /* declared sizes may lie: never read outside */
    src[axis] = tu_clamp(p, src[axis], ex_i64(p, 0), ex_sub(p, dim, ex_i64(p, 1)));
    if (tu_may_be_empty(p, dim)) guard = ex_lt(p, ex_i64(p, 0), dim);
  }
  return guard ? elem_in_guarded(c, n, 0, src, guard) : elem_in(c, n, 0, src);
}

/* ---- Pad ---- */
enum { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP };
static const char *const pad_modes[] = {"constant", "reflect", "edge", "wrap", NULL};

static int pad_mode(const Node *n) {
  const char *s = node_string(n, "mode", "constant");
  int k = 0;
  while (pad_modes[k] && strcmp(s, pad_modes[k]) != 0) k++;
  return k;
}

/* Elements that are added before (at = 0) or after (at = 1) an axis; data axes are looked up. After
 * inference. */
static const Expr *pad_amount(ExprPool *p, const Node *n, int axis, int at) {
  const Value *axes = node_in(n, 3);
  const Expr *rank = ex_i64(p, n->in[0]->rank), *sum = ex_i64(p, 0);
  int64_t count = 1;
  if (!axes) return tu_known(p, n, 1, at * n->in[0]->rank + axis);
  if (axes->rank == 1) expr_is_const(axes->dims[0], &count);
  for (int64_t k = 0; k < count; k++) {
    const Expr *hit = ex_eq(p, tu_wrap(p, tu_known(p, n, 3, k), rank), ex_i64(p, axis));
    sum = ex_add(p, sum, ex_select(p, hit, tu_known(p, n, 1, at * count + k), ex_i64(p, 0)));
  }
  return sum;
}

static bool check_pad(Model *m, Node *n, int *mode) {
  int count = n->in[0]->rank, given;
  const Expr *far = ex_i64(m->pool, INT64_C(1) << 40);
  const int64_t *v;
  bool set[MAX_RANK] = {0};
  if (!op_choice(m, n, "mode", "constant", pad_modes, mode) || !op_need_class(m, n, 1, CL_INT) ||
      !op_same_dtype(m, n, 2, 0) || !op_need_rank(m, n, 2, 0, 1) || !op_need_class(m, n, 3, CL_INT))
    return false;
  if (node_in(n, 3) && !tu_count(m, n, 3, "axes", -1, &count)) return false;
  if (node_in(n, 3) && op_known_ints(m, n, 3, &v, &count) &&
      !op_axis_set(m, n, "axis", count, v, n->in[0]->rank, set))
    return false;
  if (!tu_count(m, n, 1, "pads", 2 * count, &given)) return false;
  if (given != 2 * count) return op_error(m, n, ERR_SHAPE, "%d pads for %d axes", given, count);
  for (int k = 0; k < given; k++) {
    const Expr *e = tu_elem(m, n, 1, k);
    if (!require_at_most(m, n, e, far, "pads") ||
        !require_at_least(m, n, e, ex_sub(m->pool, ex_i64(m->pool, 0), far), "pads"))
      return false;
  }
  return !node_in(n, 3) || value_known(n->in[3]) || tu_data_axes(m, n, 3, count, n->in[0]->rank);
}

/* What is padded with elements of the axis must find them there, in what negative pads leave. */
static bool pads_from(Model *m, Node *n, int mode, const Expr *dim, const Expr *lo,
                      const Expr *hi) {
  ExprPool *p = m->pool;
  const Expr *one = ex_i64(p, 1), *zero = ex_i64(p, 0), *most = ex_max(p, ex_max(p, lo, hi), zero);
  dim = ex_add(p, dim, ex_add(p, ex_min(p, lo, zero), ex_min(p, hi, zero)));
  const Expr *need = mode == PAD_REFLECT ? ex_add(p, most, one) : ex_min(p, most, one);
  return expr_is_i64(most, 0) || require_at_least(m, n, dim, need, "axis that pads are taken from");
}

bool infer_pad(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *in = n->in[0];
  int mode;
  const Expr *dims[MAX_RANK], *zero = ex_i64(p, 0);
  if (!check_pad(m, n, &mode)) return false;
  for (int i = 0; i < in->rank; i++) {
    const Expr *lo = pad_amount(p, n, i, 0), *hi = pad_amount(p, n, i, 1),
               *sum = ex_add(p, ex_add(p, in->dims[i], lo), hi);
    if (!require_at_least(m, n, sum, zero, "size after padding")) return false;
    if (mode != PAD_CONSTANT && !pads_from(m, n, mode, in->dims[i], lo, hi)) return false;
    dims[i] = tu_dim(m, n, 0, i, sum, NULL);
  }
  return op_out(m, n, 0, in->dtype, in->rank, dims);
}

/* Where a position j outside [0, d) reads. */
static const Expr *pad_source(ExprPool *p, int mode, const Expr *j, const Expr *d) {
  const Expr *zero = ex_i64(p, 0), *last = ex_sub(p, d, ex_i64(p, 1));
  int64_t lo, hi, k;
  if (mode == PAD_EDGE) return tu_clamp(p, j, zero, last);
  if (mode == PAD_WRAP) return ex_floormod(p, j, d);
  const Expr *twice = ex_mul(p, last, ex_i64(p, 2));
  const bool once =
      expr_range(p, j, &lo, &hi) && expr_is_const(last, &k) && lo >= -k && hi <= 2 * k;
  const Expr *r = once ? ex_op(p, EX_abs, j, NULL, NULL) : ex_floormod(p, j, twice);
  return tu_clamp(p, ex_min(p, r, ex_sub(p, twice, r)), zero, last);
}

const Expr *elem_pad(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *in = n->in[0];
  const int mode = pad_mode(n);
  const Expr *src[MAX_RANK], *inside = ex_bool(p, true), *zero = ex_i64(p, 0);
  for (int i = 0; i < in->rank; i++) {
    const Expr *before = pad_amount(p, n, i, 0);
    src[i] = idx[i];
    if (in->dims[i] == n->out[0]->dims[i] && expr_is_i64(before, 0)) continue;
    const Expr *j = ex_sub(p, idx[i], before);
    src[i] = mode == PAD_CONSTANT ? j : pad_source(p, mode, j, in->dims[i]);
    if (mode == PAD_CONSTANT)
      inside = ex_and(p, inside, ex_and(p, ex_le(p, zero, j), ex_lt(p, j, in->dims[i])));
    else if (tu_may_be_empty(p, in->dims[i]))
      inside = ex_and(p, inside, ex_lt(p, zero, in->dims[i]));
  }
  int64_t always;
  if (expr_is_const(inside, &always) && always) return elem_in(c, n, 0, src);
  const Expr *fill = ex_const(p, in->dtype, 0), *at[1] = {zero};
  if (node_in(n, 2)) fill = elem_in(c, n, 2, at);
  const Expr *e = elem_in_guarded(c, n, 0, src, inside);
  return mode == PAD_CONSTANT ? ex_select(p, inside, e, fill) : e;
}

/* ---- CenterCropPad ---- */
static void crop_axes(const Node *n, int64_t *axes, int *count) {
  const int64_t *v;
  const int rank = n->in[0]->rank, given = node_ints(n, "axes", &v);
  *count = node_attr(n, "axes") ? given : rank;
  for (int i = 0; i < *count; i++) {
    axes[i] = node_attr(n, "axes") ? v[i] : i;
    if (axes[i] < 0) axes[i] += rank;
  }
}

bool infer_center_crop_pad(Model *m, Node *n) {
  const Value *in = n->in[0];
  int64_t axes[MAX_RANK];
  int count, given;
  const Expr *dims[MAX_RANK];
  bool set[MAX_RANK] = {0};
  const int64_t *v;
  if (!op_axis_set(m, n, "axis", node_ints(n, "axes", &v), v, in->rank, set)) return false;
  crop_axes(n, axes, &count);
  if (!op_need_class(m, n, 1, CL_INT) || !tu_count(m, n, 1, "shape", count, &given)) return false;
  if (given != count) return op_error(m, n, ERR_SHAPE, "%d sizes for %d axes", given, count);
  memcpy(dims, in->dims, sizeof *dims * (size_t)in->rank);
  for (int i = 0; i < count; i++) {
    const Expr *e = tu_elem(m, n, 1, i);
    if (!require_at_least(m, n, e, ex_i64(m->pool, 0), "size")) return false;
    dims[axes[i]] = tu_dim(m, n, 0, (int)axes[i], e, NULL);
  }
  return op_out(m, n, 0, in->dtype, in->rank, dims);
}

/* Cropping starts at (in - out)/2, padding puts (out - in)/2 zeros before. */
const Expr *elem_center_crop_pad(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *in = n->in[0];
  const Expr *src[MAX_RANK], *inside = ex_bool(p, true), *zero = ex_i64(p, 0), *two = ex_i64(p, 2);
  for (int i = 0; i < in->rank; i++) {
    const Expr *a = in->dims[i], *b = n->out[0]->dims[i];
    src[i] = idx[i];
    if (a == b) continue;
    const Expr *crop = ex_floordiv(p, ex_sub(p, a, b), two),
               *pad = ex_floordiv(p, ex_sub(p, b, a), two);
    src[i] = ex_select(p, ex_lt(p, b, a), ex_add(p, idx[i], crop), ex_sub(p, idx[i], pad));
    inside = ex_and(p, inside, ex_and(p, ex_le(p, zero, src[i]), ex_lt(p, src[i], a)));
  }
  int64_t always;
  if (expr_is_const(inside, &always) && always) return elem_in(c, n, 0, src);
  return elem_in_guarded(c, n, 0, src, inside);
}
