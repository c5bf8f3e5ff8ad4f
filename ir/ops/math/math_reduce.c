/* Reduce*, ArgMax, ArgMin, CumSum, CumProd. The axes are an input: where they are data, each
 * becomes a runtime symbol and every dim is "reduced or not" by an expression over these symbols,
 * so one set of rules serves both. */
#include <math.h>
#include <string.h>
#include "ir/op/kit.h"
#include "ir/op/tensor_util.h"

/* ---- which dims are reduced ---- */
typedef struct Axes {
  int rank;
  const Expr *red[MAX_RANK]; /* bool expression per dim */
  bool identity;             /* no axes, and that means none */
} Axes;

/* Bool: one of the count axes names dim d. */
static const Expr *axis_hits(ExprPool *p, int rank, int d, int count, const Expr *const *axes) {
  const Expr *hit = ex_bool(p, false);
  for (int i = 0; i < count; i++) {
    hit = ex_op(p, EX_or, hit, ex_eq(p, axes[i], ex_i64(p, d)), NULL);
    hit = ex_op(p, EX_or, hit, ex_eq(p, axes[i], ex_i64(p, d - rank)), NULL);
  }
  return hit;
}

static void axes_fill(ExprPool *p, const Node *n, Axes *a, int count, const Expr *const *list) {
  a->rank = n->in[0]->rank;
  a->identity = count == 0 && node_int(n, "noop_with_empty_axes", 0);
  for (int d = 0; d < a->rank; d++)
    a->red[d] = count ? axis_hits(p, a->rank, d, count, list) : ex_bool(p, !a->identity);
}

/* Reads and checks the axes during inference. */
static bool axes_infer(Model *m, Node *n, Axes *a) {
  const Expr *list[MAX_RANK];
  int count = 0;
  int64_t known[MAX_RANK];
  bool set[MAX_RANK], constant = true;
  const int rank = n->in[0]->rank;
  if (node_in(n, 1) && !tu_count(m, n, 1, "axes", -1, &count)) return false;
  if (count > rank)
    return op_error(m, n, ERR_VALUE, "%d axes for a tensor of rank %d", count, rank);
  for (int i = 0; i < count; i++) {
    list[i] = tu_elem(m, n, 1, i);
    if (!list[i]) return op_error(m, n, ERR_TYPE, "axes must be integers");
    constant = constant && expr_is_const(list[i], &known[i]);
  }
  if (constant ? !op_axis_set(m, n, "axis", count, known, rank, set)
               : !tu_data_axes(m, n, 1, count, rank))
    return false;
  axes_fill(m->pool, n, a, count, list);
  return true;
}

/* The same for elem, after inference. */
static Axes axes_get(ExprPool *p, const Node *n) {
  Axes a;
  const Expr *list[MAX_RANK];
  const Value *v = node_in(n, 1);
  int64_t count = 0;
  if (v && v->rank == 0) count = 1;
  if (v && v->rank == 1) expr_is_const(v->dims[0], &count);
  for (int i = 0; i < count; i++) list[i] = tu_known(p, n, 1, i);
  axes_fill(p, n, &a, (int)count, list);
  return a;
}

/* Number of kept dims before d, as an expression. */
static const Expr *kept_before(ExprPool *p, const Axes *a, int d) {
  const Expr *pos = ex_i64(p, 0);
  for (int e = 0; e < d; e++)
    pos = ex_add(p, pos, ex_select(p, a->red[e], ex_i64(p, 0), ex_i64(p, 1)));
  return pos;
}

static bool out_kept(Model *m, Node *n, const Axes *a, DType t) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK], *one = ex_i64(p, 1);
  for (int d = 0; d < x->rank; d++)
    dims[d] =
        tu_dim(m, n, 0, d, ex_select(p, a->red[d], one, x->dims[d]), ex_max(p, x->dims[d], one));
  return op_out(m, n, 0, t, x->rank, dims);
}

static bool out_dropped(Model *m, Node *n, const Axes *a, DType t, int n_axes) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  const int rank = x->rank - n_axes;
  for (int j = 0; j < rank; j++) {
    const Expr *size = ex_i64(p, 0), *bound = ex_i64(p, 1);
    for (int d = x->rank - 1; d >= 0; d--) {
      const Expr *not_here = ex_op(p, EX_ne, kept_before(p, a, d), ex_i64(p, j), NULL);
      size = ex_select(p, ex_op(p, EX_or, a->red[d], not_here, NULL), size, x->dims[d]);
      bound = ex_max(p, bound, x->dims[d]);
    }
    dims[j] = tu_dim(m, n, 0, j, size, bound);
  }
  return op_out(m, n, 0, t, rank, dims);
}

static bool infer_reduce_to(Model *m, Node *n, DType t) {
  Axes a;
  int64_t keep, noop;
  int n_axes = 0;
  if (!op_need_dtype(m, n, 1, DT_I64) || !op_int_in(m, n, "keepdims", 1, 0, 1, &keep) ||
      !op_int_in(m, n, "noop_with_empty_axes", 0, 0, 1, &noop) || !axes_infer(m, n, &a))
    return false;
  if (a.identity) return op_out_like(m, n, 0, t, n->in[0]);
  if (keep) return out_kept(m, n, &a, t);
  if (node_in(n, 1) && !tu_count(m, n, 1, "axes", -1, &n_axes)) return false;
  return out_dropped(m, n, &a, t, n_axes ? n_axes : a.rank);
}

bool infer_reduce(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_NUMBER) && infer_reduce_to(m, n, n->in[0]->dtype);
}

bool infer_reduce_minmax(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_NUMBER | CL_BOOL) && infer_reduce_to(m, n, n->in[0]->dtype);
}

/* ---- values ---- */
/* Index of the input: reduced dims at fresh variables vars[], the others at the output's idx. */
typedef struct Walk {
  const Expr *vars[MAX_RANK], *at[MAX_RANK], *count;
  int n;
} Walk;

static const Expr *kept_index(ExprPool *p, const Axes *a, int d, int out_rank,
                              const Expr *const *idx) {
  const Expr *pos = kept_before(p, a, d), *e = ex_i64(p, 0);
  int64_t at;
  if (expr_is_const(pos, &at)) return at < out_rank ? idx[at] : e;
  for (int j = 0; j < out_rank; j++) e = ex_select(p, ex_eq(p, pos, ex_i64(p, j)), idx[j], e);
  return e;
}

static Walk walk_begin(ElemCtx *c, const Node *n, const Axes *a, const Expr *const *idx) {
  static const char *const stems[] = {"k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7"};
  ExprPool *p = c->pool;
  const Value *x = n->in[0], *y = n->out[0];
  Walk w = {.count = ex_i64(p, 1)};
  for (int d = 0; d < x->rank; d++) {
    const Expr *extent = ex_select(p, a->red[d], x->dims[d], ex_i64(p, 1));
    const Expr *kept = y->rank == x->rank ? idx[d] : kept_index(p, a, d, y->rank, idx);
    const Expr *var = kit_is_true(a->red[d]) || a->red[d]->op != EX_CONST
                          ? kit_var(c, stems[d & 7], extent)
                          : NULL;
    if (var && var->op == EX_VAR) w.vars[w.n++] = var;
    w.at[d] = ex_select(p, a->red[d], var ? var : ex_i64(p, 0), kept);
    w.count = ex_mul(p, w.count, extent);
  }
  return w;
}

/* x read through w, the same values as xj read through wj: the maximum stands inside the body of
 * the sum. */
static const Expr *log_sum_exp(ElemCtx *c, const Walk *wj, const Expr *xj, const Walk *w,
                               const Expr *x) {
  ExprPool *p = c->pool;
  const Expr *top = kit_reduce_all(c, RED_MAX, wj->n, wj->vars, xj);
  const Expr *finite = ex_lt(p, kit_op1(c, EX_abs, top), kit_like(c, top, INFINITY));
  const Expr *shift = ex_select(p, finite, top, kit_like(c, top, 0));
  const Expr *sum =
      kit_reduce_all(c, RED_SUM, w->n, w->vars, kit_op1(c, EX_exp, ex_sub(p, x, shift)));
  return ex_add(p, kit_op1(c, EX_log, sum), shift);
}

typedef enum Form {
  F_SUM,
  F_MEAN,
  F_MAX,
  F_MIN,
  F_PROD,
  F_L1,
  F_L2,
  F_SQUARE,
  F_LOG,
  F_LOGEXP,
  F_COUNT
} Form;

static Form form_of(const Node *n) {
  static const char *const names[F_COUNT] = {
      "ReduceSum", "ReduceMean", "ReduceMax",       "ReduceMin",    "ReduceProd",
      "ReduceL1",  "ReduceL2",   "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"};
  for (int f = 0; f < F_COUNT; f++)
    if (kit_is(n, names[f])) return (Form)f;
  return F_SUM;
}

static const Expr *reduce_form(ElemCtx *c, Form f, const Walk *w, const Expr *x) {
  ExprPool *p = c->pool;
  if (f == F_L1) x = dtype_rows[x->dtype].cls == DC_UINT ? x : kit_op1(c, EX_abs, x);
  if (f == F_L2 || f == F_SQUARE) x = ex_mul(p, x, x);
  const bool logic = x->dtype == DT_BOOL;
  const ReduceKind kind = f == F_MAX    ? logic ? RED_OR : RED_MAX
                          : f == F_MIN  ? logic ? RED_AND : RED_MIN
                          : f == F_PROD ? RED_PROD
                                        : RED_SUM;
  const Expr *r = kit_reduce_all(c, kind, w->n, w->vars, x);
  if (f == F_MEAN) return ex_div(p, r, kit_size(c, (DType)r->dtype, w->count));
  if (f == F_L2) return kit_op1(c, EX_sqrt, r);
  return f == F_LOG ? kit_op1(c, EX_log, r) : r;
}

const Expr *elem_reduce(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Axes a = axes_get(c->pool, n);
  const Form f = form_of(n);
  const Walk w = walk_begin(c, n, &a, idx);
  DType t = kit_compute(n);
  if (!dtype_is_float(t) && (f == F_L2 || f == F_LOG || f == F_LOGEXP)) t = DT_F64;
  const Expr *x = kit_in(c, n, 0, w.at, t);
  if (f != F_LOGEXP) return kit_ret(c, n, out, reduce_form(c, f, &w, x));
  const Walk wj = walk_begin(c, n, &a, idx);
  return kit_ret(c, n, out, log_sum_exp(c, &wj, kit_in(c, n, 0, wj.at, t), &w, x));
}

/* ---- ArgMax, ArgMin ---- */
bool infer_arg(Model *m, Node *n) {
  int64_t keep, last;
  int axis;
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  int rank = 0;
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_int_in(m, n, "keepdims", 1, 0, 1, &keep) ||
      !op_int_in(m, n, "select_last_index", 0, 0, 1, &last))
    return false;
  if (x->rank == 0) return op_out(m, n, 0, DT_I64, 0, dims);
  if (!op_axis(m, n, "axis", 0, x->rank, &axis)) return false;
  if (!require_at_least(m, n, x->dims[axis], ex_i64(m->pool, 1), "axis to search")) return false;
  for (int d = 0; d < x->rank; d++) {
    if (d != axis)
      dims[rank++] = x->dims[d];
    else if (keep)
      dims[rank++] = ex_i64(m->pool, 1);
  }
  return op_out(m, n, 0, DT_I64, rank, dims);
}

/* The place of the extreme value (or of a NaN, which wins): first by a min over places, last by a
 * max. */
const Expr *elem_arg(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  if (x->rank == 0) return ex_i64(p, 0);
  int64_t axis = node_int(n, "axis", 0);
  if (axis < 0) axis += x->rank;
  const bool keep = node_int(n, "keepdims", 1), last = node_int(n, "select_last_index", 0);
  const Expr *at[MAX_RANK], *size = x->dims[axis];
  const Expr *j = kit_var(c, "j", size), *k = kit_var(c, "k", size);
  for (int d = 0, o = 0; d < x->rank; d++) {
    at[d] = d == axis ? j : idx[o];
    if (d != axis || keep) o++;
  }
  const Expr *vj = kit_in(c, n, 0, at, kit_compute(n));
  const Expr *best = kit_reduce(c, kit_is(n, "ArgMax") ? RED_MAX : RED_MIN, j, vj);
  at[axis] = k;
  const Expr *v = kit_in(c, n, 0, at, kit_compute(n));
  const Expr *hit = ex_eq(p, v, best);
  if (dtype_is_float((DType)v->dtype)) hit = ex_op(p, EX_or, hit, kit_op1(c, EX_isnan, v), NULL);
  const Expr *miss = last ? ex_i64(p, 0) : ex_sub(p, size, ex_i64(p, 1));
  return kit_reduce(c, last ? RED_MAX : RED_MIN, k, ex_select(p, hit, k, miss));
}

/* ---- CumSum, CumProd ---- */
bool infer_cumulate(Model *m, Node *n) {
  int64_t v, axis;
  int count, a;
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_int_in(m, n, "exclusive", 0, 0, 1, &v) || !op_int_in(m, n, "reverse", 0, 0, 1, &v) ||
      !op_need_class(m, n, 1, CL_INT) || !kit_need_scalar(m, n, 1, "axis") ||
      !tu_count(m, n, 1, "axis", 1, &count))
    return false;
  const Expr *e = tu_elem(m, n, 1, 0);
  if (!e) return op_error(m, n, ERR_TYPE, "axis must be an integer");
  if (expr_is_const(e, &axis) ? !op_norm_axis(m, n, "axis", axis, n->in[0]->rank, &a)
                              : !tu_data_axes(m, n, 1, 1, n->in[0]->rank))
    return false;
  return op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]);
}

/* Type of the running result: long sums of floats keep more digits than the output shows. */
static DType cumulate_type(const Node *n, bool prod) {
  const DType t = kit_compute(n);
  return t == DT_F32 && !prod ? DT_F64 : t;
}

/* Over what lies on the right side of the index: a prefix, counted from the other end when
 * reversed. Lowering runs it along with the index (passes/elem/scan.c). */
static const Expr *cumulate_along(ElemCtx *c, const Node *n, int axis, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const bool prod = kit_is(n, "CumProd"), reverse = node_int(n, "reverse", 0);
  const Expr *one = ex_i64(p, 1), *last = ex_sub(p, x->dims[axis], one), *at[MAX_RANK];
  const Expr *before = reverse ? ex_sub(p, last, idx[axis]) : idx[axis];
  const Expr *k = ex_var(p, "k", node_int(n, "exclusive", 0) ? before : ex_add(p, before, one));
  memcpy(at, idx, sizeof *at * (size_t)x->rank);
  at[axis] = reverse ? ex_sub(p, last, k) : k;
  return ex_reduce(p, prod ? RED_PROD : RED_SUM, k, kit_in(c, n, 0, at, cumulate_type(n, prod)));
}

/* The same along an axis that is data: over the whole axis, with zeros on the wrong side. */
static const Expr *cumulate_guarded(ElemCtx *c, const Node *n, const Expr *axis,
                                    const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const bool exclusive = node_int(n, "exclusive", 0), reverse = node_int(n, "reverse", 0);
  const bool prod = kit_is(n, "CumProd");
  const Expr *at[MAX_RANK], *on[MAX_RANK], *size = ex_i64(p, 1), *here = ex_i64(p, 0);
  for (int d = 0; d < x->rank; d++) {
    on[d] = axis_hits(p, x->rank, d, 1, &axis);
    size = ex_select(p, on[d], x->dims[d], size);
    here = ex_select(p, on[d], idx[d], here);
  }
  const Expr *k = kit_var(c, "k", size);
  for (int d = 0; d < x->rank; d++) at[d] = ex_select(p, on[d], k, idx[d]);
  const Expr *a = reverse ? here : k, *b = reverse ? k : here;
  const Expr *guard = exclusive ? ex_lt(p, a, b) : ex_le(p, a, b);
  const Expr *v = ex_cast(p, cumulate_type(n, prod), elem_in_guarded(c, n, 0, at, guard));
  if (prod) v = ex_select(p, guard, v, kit_like(c, v, 1));
  return kit_reduce(c, prod ? RED_PROD : RED_SUM, k, v);
}

const Expr *elem_cumulate(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Expr *axis = tu_known(c->pool, n, 1, 0);
  int64_t a;
  if (!expr_is_const(axis, &a)) return kit_ret(c, n, out, cumulate_guarded(c, n, axis, idx));
  if (a < 0) a += n->in[0]->rank;
  return kit_ret(c, n, out, cumulate_along(c, n, (int)a, idx));
}

/* ---- SumTo (internal): x, whose dims a tensor of the shape of b was broadcast to ---- */
bool infer_sum_to(Model *m, Node *n) {
  const Value *x = n->in[0], *to = n->in[1];
  return op_need_class(m, n, 0, CL_FLOAT) && op_same_dtype(m, n, 1, 0) &&
         op_need_rank(m, n, 0, to->rank, MAX_RANK) && op_yields_to(m, n, 1, x->rank, x->dims) &&
         op_out_like(m, n, 0, x->dtype, to);
}

/* A sum over the dims that are broadcast: of a size that may turn out to be 1 over all there are
 * then, else over one. */
const Expr *elem_sum_to(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0], *to = n->in[1];
  const int more = x->rank - to->rank;
  const Expr *at[MAX_RANK], *vars[MAX_RANK], *one = ex_i64(p, 1);
  int count = 0;
  for (int d = 0; d < x->rank; d++) {
    const Expr *own = d < more ? one : to->dims[d - more], *is_one = ex_eq(p, own, one);
    if (own == x->dims[d] || !(expr_is_i64(own, 1) || dims_broadcast(p, own, x->dims[d]))) {
      at[d] = idx[d - more];
      continue;
    }
    const Expr *k = kit_var(c, "k", ex_select(p, is_one, x->dims[d], one));
    at[d] = d < more ? k : ex_select(p, is_one, k, idx[d - more]);
    vars[count++] = k;
  }
  const Expr *sum = kit_reduce_all(c, RED_SUM, count, vars, kit_in(c, n, 0, at, kit_compute(n)));
  return kit_ret(c, n, out, sum);
}
