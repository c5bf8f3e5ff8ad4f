/* Normalizations. Each subtracts a mean and divides by the root of a variance; they differ in the
 * dims over which these are taken. Variances are means of squared differences (two passes), in the
 * compute type. Also Dropout. */
#include <string.h>
#include "ir/op/kit.h"
#include "ir/ops/nn/contraction.h"

/* ---- moments ---- */
/* The dims of input 0 that moments run over, and the index of the others. A group splits dim 1. */
typedef struct Span {
  const Expr *at[MAX_RANK]; /* fixed index; NULL: runs over the whole dim */
  const Expr
      *group_size; /* dim 1 runs over a group of this size around the index; NULL: no groups */
  const Expr *group_start;
} Span;

/* Index with fresh variables; count of elements. */
static int span_vars(ElemCtx *c, const Value *x, const Span *s, const Expr **vars, const Expr **at,
                     const Expr **count) {
  ExprPool *p = c->pool;
  int n_vars = 0;
  *count = ex_i64(p, 1);
  for (int d = 0; d < x->rank; d++) {
    const bool grouped = d == 1 && s->group_size;
    at[d] = s->at[d];
    if (at[d] && !grouped) continue;
    const Expr *extent = grouped ? s->group_size : x->dims[d];
    const Expr *k = vars[n_vars++] = kit_var(c, "k", extent);
    at[d] = grouped ? ex_add(p, s->group_start, k) : k;
    *count = ex_mul(p, *count, extent);
  }
  return n_vars;
}

static const Expr *span_mean(ElemCtx *c, const Node *n, const Span *s, DType t) {
  const Expr *vars[MAX_RANK], *at[MAX_RANK], *count;
  const int k = span_vars(c, n->in[0], s, vars, at, &count);
  return kit_mean(c, k, vars, kit_in(c, n, 0, at, t), count);
}

/* Mean of (x - mean)^2; mean NULL: of x^2. */
static const Expr *span_var(ElemCtx *c, const Node *n, const Span *s, const Expr *mean, DType t) {
  const Expr *vars[MAX_RANK], *at[MAX_RANK], *count;
  const int k = span_vars(c, n->in[0], s, vars, at, &count);
  const Expr *x = kit_in(c, n, 0, at, t);
  if (mean) x = ex_sub(c->pool, x, mean);
  return kit_mean(c, k, vars, ex_mul(c->pool, x, x), count);
}

/* sqrt(var + epsilon) */
static const Expr *deviation(ElemCtx *c, const Node *n, const Expr *var, double eps) {
  eps = node_float(n, "epsilon", eps);
  return kit_op1(c, EX_sqrt, ex_add(c->pool, var, kit_like(c, var, eps)));
}

/* x * scale + bias, where present. */
static const Expr *affine(ElemCtx *c, const Expr *x, const Expr *scale, const Expr *bias) {
  if (scale) x = ex_mul(c->pool, x, scale);
  return bias ? ex_add(c->pool, x, bias) : x;
}

static bool need_epsilon(Model *m, const Node *n) {
  double eps;
  return op_need_class(m, n, 0, CL_FLOAT) && op_float(m, n, "epsilon", 1e-5, &eps);
}

/* Inputs first … last are vectors over the channels (dim 1; the only element count of rank-1
 * inputs). */
static bool need_channels(Model *m, const Node *n, int first, int last) {
  const Value *x = n->in[0];
  for (int k = first; k <= last; k++)
    if (!op_need_class(m, n, k, CL_FLOAT) ||
        !kit_need_vector(m, n, k, x->rank > 1 ? x->dims[1] : ex_i64(m->pool, 1),
                         "parameter of the channels"))
      return false;
  return true;
}

/* ---- BatchNormalization: x, scale, bias, mean, var ---- */
bool infer_batch_norm(Model *m, Node *n) {
  int64_t training;
  double momentum;
  const Value *x = n->in[0];
  if (!need_epsilon(m, n) || !op_need_rank(m, n, 0, 1, MAX_RANK) || !need_channels(m, n, 1, 4) ||
      !op_float(m, n, "momentum", 0.9, &momentum) ||
      !op_int_in(m, n, "training_mode", 0, 0, 1, &training))
    return false;
  if (!training && (node_out(n, 1) || node_out(n, 2)))
    return op_error(m, n, ERR_ARITY, "only output 0 exists unless training_mode is 1");
  if (!op_same_dtype(m, n, 2, 1) || !op_same_dtype(m, n, 4, 3)) return false;
  return op_out_like(m, n, 0, x->dtype, x) && op_out_like(m, n, 1, n->in[3]->dtype, n->in[3]) &&
         op_out_like(m, n, 2, n->in[4]->dtype, n->in[4]);
}

const Expr *elem_batch_norm(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const Value *x = n->in[0];
  const Expr *channel = out ? idx[0] : x->rank > 1 ? idx[1] : ex_i64(p, 0);
  const Expr *mean = kit_in1(c, n, 3, channel, t), *var = kit_in1(c, n, 4, channel, t);
  if (node_int(n, "training_mode", 0)) {
    Span s = {0};
    s.at[x->rank > 1 ? 1 : 0] = channel;
    const Expr *old[] = {mean, var};
    mean = span_mean(c, n, &s, t);
    var = span_var(c, n, &s, mean, t);
    if (out) {
      const double keep = node_float(n, "momentum", 0.9);
      const Expr *now = out == 1 ? mean : var;
      return kit_ret(c, n, out,
                     ex_add(p, ex_mul(p, old[out - 1], kit_like(c, now, keep)),
                            ex_mul(p, now, kit_like(c, now, 1 - keep))));
    }
  }
  const Expr *norm =
      ex_div(p, ex_sub(p, kit_in(c, n, 0, idx, t), mean), deviation(c, n, var, 1e-5));
  return kit_ret(c, n, out,
                 affine(c, norm, kit_in1(c, n, 1, channel, t), kit_in1(c, n, 2, channel, t)));
}

/* Type of the moments: stash_type, which the compute type may widen. */
static bool stash_type(Model *m, const Node *n, DType *t) {
  return op_dtype(m, n, "stash_type", DT_F32, t) &&
         (dtype_is_float(*t) ||
          op_error(m, n, ERR_ATTR_VALUE, "stash_type %s is not a float type", dtype_text(*t)));
}

/* ---- InstanceNormalization, GroupNormalization: x, scale, bias ---- */
bool infer_instance_norm(Model *m, Node *n) {
  return need_epsilon(m, n) && op_need_rank(m, n, 0, 3, MAX_RANK) && need_channels(m, n, 1, 2) &&
         op_same_dtype(m, n, 1, 0) && op_same_dtype(m, n, 2, 0) &&
         op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]);
}

static const Expr *norm_over(ElemCtx *c, const Node *n, const Span *s, const Expr *const *idx,
                             DType t) {
  const Expr *mean = span_mean(c, n, s, t), *var = span_var(c, n, s, mean, t);
  return ex_div(c->pool, ex_sub(c->pool, kit_in(c, n, 0, idx, t), mean),
                deviation(c, n, var, 1e-5));
}

const Expr *elem_instance_norm(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = kit_compute(n);
  const Span s = {.at = {idx[0], idx[1]}};
  const Expr *norm = norm_over(c, n, &s, idx, t);
  return kit_ret(c, n, out,
                 affine(c, norm, kit_in1(c, n, 1, idx[1], t), kit_in1(c, n, 2, idx[1], t)));
}

bool infer_group_norm(Model *m, Node *n) {
  const Attr *a;
  int64_t groups;
  DType stash;
  const Value *x = n->in[0];
  if (!need_epsilon(m, n) || !op_need_rank(m, n, 0, 2, MAX_RANK) || !need_channels(m, n, 1, 2) ||
      !op_need_attr(m, n, "num_groups", AT_INT, &a) ||
      !op_int_in(m, n, "num_groups", 1, 1, INT32_MAX, &groups) || !stash_type(m, n, &stash) ||
      !op_same_dtype(m, n, 2, 1))
    return false;
  return require_multiple(m, n, x->dims[1], ex_i64(m->pool, groups), "channels and groups") &&
         op_out_like(m, n, 0, x->dtype, x);
}

const Expr *elem_group_norm(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const Expr *size = ex_floordiv(p, n->in[0]->dims[1], ex_i64(p, node_int(n, "num_groups", 1)));
  Span s = {.at = {idx[0]}, .group_size = size};
  s.group_start = ex_mul(p, ex_floordiv(p, idx[1], ex_max(p, size, ex_i64(p, 1))), size);
  const Expr *norm = norm_over(c, n, &s, idx, t);
  return kit_ret(c, n, out,
                 affine(c, norm, kit_in1(c, n, 1, idx[1], t), kit_in1(c, n, 2, idx[1], t)));
}

/* Mean of v [n, c, 1 …] over the groups of channels, for each channel again. */
static Value *group_mean(Build *b, Value *v, int rank, int64_t channels, int64_t groups) {
  const int64_t split[] = {0, groups, channels / groups}, wide[] = {1, 1, channels / groups};
  int64_t back[MAX_RANK];
  const int64_t last = 2;
  for (int d = 0; d < rank; d++) back[d] = d > 1;
  back[1] = channels;
  Value *g = build2(b, "Reshape", v, build_i64s(b, 3, split));
  g = b->ok ? build2(b, "ReduceMean", g, build_i64s(b, 1, &last)) : NULL;
  g = b->ok ? build2(b, "Expand", g, build_i64s(b, 3, wide)) : NULL;
  return b->ok ? build2(b, "Reshape", g, build_i64s(b, rank, back)) : NULL;
}

/* Mean over the pixels of each channel, then over the channels of each group. */
static Value *moment(Build *b, Value *v, int64_t channels, int64_t groups) {
  int64_t axes[MAX_RANK];
  const int rank = v->rank;
  for (int d = 2; d < rank; d++) axes[d - 2] = d;
  if (rank > 2) v = build2(b, "ReduceMean", v, build_i64s(b, rank - 2, axes));
  return b->ok ? group_mean(b, v, rank, channels, groups) : NULL;
}

/* The moments of the channels are values of their own: in whatever order x lies, they are sums
 * along it, and no group has to be found in it. */
bool expand_group_norm(Build *b, Node *n, Value **out) {
  Value *x = n->in[0];
  const int64_t groups = node_int(n, "num_groups", 1);
  const DType t = kit_compute(n);
  int64_t channels;
  if (!value_from_conv(x) || !expr_is_const(x->dims[1], &channels) || channels == 0 ||
      channels % groups || expr_is_i64(x->dims[0], 0)) {
    Node *whole = build_node(b, "GroupNormalization", "burin", 3, n->in, 1, n->n_attrs, n->attrs);
    out[0] = b->ok ? whole->out[0] : NULL;
    return b->ok;
  }
  x = build_cast(b, x, t);
  Value *mean = b->ok ? moment(b, x, channels, groups) : NULL;
  Value *d = b->ok ? build2(b, "Sub", x, mean) : NULL;
  Value *var = b->ok ? moment(b, build2(b, "Mul", d, d), channels, groups) : NULL;
  Value *eps = build_scalar(b, t, node_float(n, "epsilon", 1e-5));
  Value *dev = b->ok ? build1(b, "Sqrt", build2(b, "Add", var, eps)) : NULL;
  Value *y = b->ok ? build2(b, "Div", d, dev) : NULL;
  Value *scale = b->ok ? build_channels(b, n->in[1], t, x->rank) : NULL;
  Value *bias = b->ok ? build_channels(b, n->in[2], t, x->rank) : NULL;
  if (b->ok) y = build2(b, "Add", build2(b, "Mul", y, scale), bias);
  out[0] = build_cast(b, y, n->in[0]->dtype);
  return b->ok;
}

/* ---- LayerNormalization, RMSNormalization: over all dims from an axis on ---- */
static int norm_axis(const Node *n) {
  const int64_t axis = node_int(n, "axis", -1);
  return (int)(axis < 0 ? axis + n->in[0]->rank : axis);
}

static bool layer_out(Model *m, Node *n) {
  const Value *x = n->in[0];
  DType stash;
  int axis;
  const Expr *dims[MAX_RANK];
  if (!need_epsilon(m, n) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_axis(m, n, "axis", -1, x->rank, &axis) || !stash_type(m, n, &stash))
    return false;
  for (int k = 1; k < n->n_in; k++)
    if (!op_need_class(m, n, k, CL_FLOAT) || !op_broadcasts_to(m, n, k, x->rank, x->dims))
      return false;
  for (int d = 0; d < x->rank; d++) dims[d] = d < axis ? x->dims[d] : ex_i64(m->pool, 1);
  for (int k = 1; k < n->n_out; k++)
    if (!op_out(m, n, k, stash, x->rank, dims)) return false;
  return op_out_like(m, n, 0, n->in[1]->dtype, x);
}

bool infer_layer_norm(Model *m, Node *n) { return layer_out(m, n); }
bool infer_rms_norm(Model *m, Node *n) { return layer_out(m, n); }

static DType layer_type(const Node *n) {
  const DType x = kit_compute(n);
  const DType stash = dtype_compute(dtype_from_onnx(node_int(n, "stash_type", 1)));
  return x == DT_F64 || stash == DT_F64 ? DT_F64 : DT_F32;
}

static Span layer_span(const Node *n, const Expr *const *idx) {
  Span s = {0};
  for (int d = 0; d < norm_axis(n); d++) s.at[d] = idx[d];
  return s;
}

const Expr *elem_layer_norm(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = layer_type(n);
  const Span s = layer_span(n, idx);
  const Expr *mean = span_mean(c, n, &s, t);
  if (out == 1) return kit_ret(c, n, out, mean);
  const Expr *dev = deviation(c, n, span_var(c, n, &s, mean, t), 1e-5);
  if (out == 2) return kit_ret(c, n, out, ex_div(p, kit_like(c, dev, 1), dev));
  const Expr *norm = ex_div(p, ex_sub(p, kit_in(c, n, 0, idx, t), mean), dev);
  return kit_ret(c, n, out,
                 affine(c, norm, kit_bcast(c, n, 1, idx, t),
                        node_in(n, 2) ? kit_bcast(c, n, 2, idx, t) : NULL));
}

/* Output 1 of SimplifiedLayerNormalization: 1 / root of the mean square. */
const Expr *elem_rms_norm(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = layer_type(n);
  const Span s = layer_span(n, idx);
  const Expr *dev = deviation(c, n, span_var(c, n, &s, NULL, t), 1e-5);
  if (out == 1) return kit_ret(c, n, out, ex_div(p, kit_like(c, dev, 1), dev));
  return kit_ret(
      c, n, out,
      affine(c, ex_div(p, kit_in(c, n, 0, idx, t), dev), kit_bcast(c, n, 1, idx, t), NULL));
}

/* ---- LpNormalization, MeanVarianceNormalization, LRN ---- */
bool infer_lp_norm(Model *m, Node *n) {
  int axis;
  int64_t p;
  return op_need_rank(m, n, 0, 1, MAX_RANK) && op_axis(m, n, "axis", -1, n->in[0]->rank, &axis) &&
         op_int_in(m, n, "p", 2, 1, 2, &p) && infer_same_float(m, n);
}

const Expr *elem_lp_norm(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const int axis = norm_axis(n);
  const Expr *at[MAX_RANK], *x = kit_in(c, n, 0, idx, t), *zero = kit_like(c, x, 0);
  for (int d = 0; d < n->in[0]->rank; d++) at[d] = idx[d];
  const Expr *k = at[axis] = kit_var(c, "k", n->in[0]->dims[axis]);
  const Expr *v = kit_in(c, n, 0, at, t);
  const bool square = node_int(n, "p", 2) == 2;
  const Expr *norm = kit_reduce(c, RED_SUM, k, square ? ex_mul(p, v, v) : kit_op1(c, EX_abs, v));
  if (square) norm = kit_op1(c, EX_sqrt, norm);
  return kit_ret(c, n, out, ex_select(p, ex_eq(p, norm, zero), zero, ex_div(p, x, norm)));
}

static const int64_t mvn_default[] = {0, 2, 3};

static int mvn_axes(const Node *n, const int64_t **axes) {
  const int count = node_ints(n, "axes", axes);
  if (count) return count;
  *axes = mvn_default;
  return 3;
}

bool infer_mvn(Model *m, Node *n) {
  const int64_t *axes;
  int given;
  bool set[MAX_RANK];
  if (!op_ints(m, n, "axes", &axes, &given)) return false;
  const int count = mvn_axes(n, &axes);
  return op_axis_set(m, n, "axis", count, axes, n->in[0]->rank, set) && infer_same_float(m, n);
}

const Expr *elem_mvn(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const int64_t *axes;
  const int count = mvn_axes(n, &axes), rank = n->in[0]->rank;
  Span s = {0};
  for (int d = 0; d < rank; d++) s.at[d] = idx[d];
  for (int i = 0; i < count; i++) s.at[axes[i] < 0 ? axes[i] + rank : axes[i]] = NULL;
  const Expr *mean = span_mean(c, n, &s, t),
             *dev = kit_op1(c, EX_sqrt, span_var(c, n, &s, mean, t));
  const Expr *den = ex_add(p, dev, kit_like(c, dev, 1e-9));
  return kit_ret(c, n, out, ex_div(p, ex_sub(p, kit_in(c, n, 0, idx, t), mean), den));
}

bool infer_lrn(Model *m, Node *n) {
  double v;
  int64_t size;
  const Attr *a;
  return op_need_rank(m, n, 0, 2, MAX_RANK) && op_need_attr(m, n, "size", AT_INT, &a) &&
         op_int_in(m, n, "size", 1, 1, INT32_MAX, &size) && op_float(m, n, "alpha", 1e-4, &v) &&
         op_float(m, n, "beta", 0.75, &v) && op_float(m, n, "bias", 1, &v) &&
         infer_same_float(m, n);
}

/* b^e by roots where e is a multiple of 1/4, which LRN's usual 0.75 is. */
static const Expr *power(ElemCtx *c, const Expr *b, double e) {
  const Expr *root = kit_op1(c, EX_sqrt, b);
  if (e == 0.5) return root;
  if (e == 0.75) return ex_mul(c->pool, root, kit_op1(c, EX_sqrt, root));
  if (e == 1) return b;
  return ex_op(c->pool, EX_pow, b, kit_like(c, b, e), NULL);
}

const Expr *elem_lrn(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const Value *x = n->in[0];
  const int64_t size = node_int(n, "size", 1);
  const Expr *at[MAX_RANK], *k = kit_var(c, "k", ex_i64(p, size));
  for (int d = 0; d < x->rank; d++) at[d] = idx[d];
  at[1] = ex_sub(p, ex_add(p, idx[1], k), ex_i64(p, (size - 1) / 2));
  const Expr *v = ex_cast(p, t, elem_in_guarded(c, n, 0, at, kit_inside(p, at[1], x->dims[1])));
  const Expr *sum = kit_reduce(c, RED_SUM, k, ex_mul(p, v, v));
  const Expr *factor = kit_like(c, v, node_float(n, "alpha", 1e-4) / (double)size);
  const Expr *base = ex_add(p, kit_like(c, v, node_float(n, "bias", 1)), ex_mul(p, factor, sum));
  return kit_ret(c, n, out,
                 ex_div(p, kit_in(c, n, 0, idx, t), power(c, base, node_float(n, "beta", 0.75))));
}

/* ---- Dropout that does not train: x; the identity, with a mask of ones ---- */
bool infer_dropout(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_FLOAT) && kit_need_scalar(m, n, 1, "ratio") &&
         kit_need_scalar(m, n, 2, "training_mode") &&
         op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]) && op_out_like(m, n, 1, DT_BOOL, n->in[0]);
}

const Expr *elem_dropout(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return out ? ex_bool(c->pool, true) : elem_in(c, n, 0, idx);
}

/* ---- com.microsoft SkipLayerNormalization: x, skip, gamma, (beta), (bias) ---- */
static bool simplified(const Node *n) {
  return strcmp(n->op->name, "SkipSimplifiedLayerNormalization") == 0;
}

bool infer_skip_norm(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  if (!need_epsilon(m, n) || !op_need_rank(m, n, 0, 2, 3)) return false;
  for (int k = 1; k < n->n_in; k++)
    if (!op_same_dtype(m, n, k, 0) || !op_broadcasts_to(m, n, k, x->rank, x->dims)) return false;
  for (int d = 0; d < x->rank; d++) dims[d] = d + 1 < x->rank ? x->dims[d] : ex_i64(m->pool, 1);
  for (int k = 1; k < 3; k++)
    if (!op_out(m, n, k, DT_F32, x->rank, dims)) return false;
  return op_out_like(m, n, 0, x->dtype, x) && op_out_like(m, n, 3, x->dtype, x);
}

bool expand_skip_norm(Build *b, Node *n, Value **out) {
  const bool rms = simplified(n);
  Value *beta = rms ? NULL : node_in(n, 3), *bias = node_in(n, rms ? 3 : 4);
  Value *sum = build2(b, "Add", n->in[0], n->in[1]);
  if (b->ok && bias) sum = build2(b, "Add", sum, bias);
  if (!b->ok) return false;
  Value *in[] = {sum, n->in[2], beta};
  const Attr eps = attr_float(b->m->arena, "epsilon", node_float(n, "epsilon", rms ? 1e-6 : 1e-12));
  const bool moments = node_out(n, 1) || node_out(n, 2);
  Node *norm = build_node(b, rms ? "SimplifiedLayerNormalization" : "LayerNormalization", "",
                          beta ? 3 : 2, in,
                          !moments ? 1
                          : rms    ? 2
                                   : 3,
                          1, &eps);
  if (!b->ok || !norm) return false;
  out[0] = norm->out[0];
  if (node_out(n, 1)) out[1] = rms ? NULL : norm->out[1];
  if (node_out(n, 2)) out[2] = rms ? norm->out[1] : norm->out[2];
  if (node_out(n, 3)) out[3] = sum;
  return b->ok;
}
