/* Small ai.onnx.ml operators, each rewritten into ordinary ops on constants: Scaler, Normalizer,
 * Binarizer, Imputer, linear models, LabelEncoder (numbers), ArrayFeatureExtractor,
 * FeatureVectorizer, OneHotEncoder. */
#include "ir/ops/ml/ml.h"
#include <math.h>
#include <string.h>

static const char *const posts[] = {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT", NULL};

bool ml_post_transform(Model *m, Node *n, int *post) {
  return op_choice(m, n, "post_transform", "NONE", posts, post);
}

Value *ml_rows(Build *b, Value *x) {
  const int64_t zero = 0;
  return x->rank == 2 ? x : build2(b, "Unsqueeze", x, build_i64s(b, 1, &zero));
}

static Value *reduce_last(Build *b, const char *op, Value *v) {
  const int64_t last = -1;
  return build2(b, op, v, build_i64s(b, 1, &last));
}

/* Softmax over the scores that are not 0. */
static Value *softmax_zero(Build *b, Value *v) {
  Value *top = reduce_last(b, "ReduceMax", v);
  Value *e = build1(b, "Exp", build2(b, "Sub", v, top));
  Value *rest = build2(b, "Mul", v, build1(b, "Exp", build1(b, "Neg", top)));
  Value *some = build2(b, "Greater", build1(b, "Abs", v), build_scalar(b, v->dtype, 1e-7));
  Value *sum = reduce_last(
      b, "ReduceSum",
      build_op(b, "Where", 3, (Value *[]){some, e, build_scalar(b, v->dtype, 0)}, 0, NULL));
  return build2(b, "Div", build_op(b, "Where", 3, (Value *[]){some, e, rest}, 0, NULL), sum);
}

static Value *affine(Build *b, Value *v, double scale, double add) {
  return build2(b, "Add", build2(b, "Mul", v, build_scalar(b, v->dtype, scale)),
                build_scalar(b, v->dtype, add));
}

/* sqrt(2) erfinv(2v - 1), by the approximation that ONNX Runtime uses (Winitzki). */
static Value *probit(Build *b, Value *v) {
  const double a = 0.147;
  Value *x = affine(b, v, 2, -1),
        *log = build1(b, "Log", build2(b, "Mul", affine(b, x, -1, 1), affine(b, x, 1, 1)));
  Value *h = affine(b, log, 0.5, 2 / (3.14159 * a));
  Value *root =
      build1(b, "Sqrt", build2(b, "Sub", build2(b, "Mul", h, h), affine(b, log, 1 / a, 0)));
  Value *size = build1(b, "Sqrt", build2(b, "Sub", root, h));
  return affine(b, build2(b, "Mul", build1(b, "Sign", x), size), 1.41421356, 0);
}

Value *ml_transform(Build *b, Value *v, int post) {
  const Attr axis = attr_int(b->m->arena, "axis", -1);
  if (!b->ok) return v;
  if (post == ML_SOFTMAX) return build_op(b, "Softmax", 1, &v, 1, &axis);
  if (post == ML_SOFTMAX_ZERO) return softmax_zero(b, v);
  if (post == ML_PROBIT) return probit(b, v);
  return post == ML_LOGISTIC ? build1(b, "Sigmoid", v) : v;
}

Value *ml_argmax(Build *b, Value *scores) {
  const Attr a[2] = {attr_int(b->m->arena, "axis", 1), attr_int(b->m->arena, "keepdims", 0)};
  return build_op(b, "ArgMax", 1, &scores, 2, a);
}

bool ml_class_count(Model *m, Node *n, const char *ints, const char *strings, int64_t *count) {
  const int64_t *v;
  const Attr *s = node_attr(n, strings);
  *count = node_ints(n, ints, &v);
  if (*count > 0) return true;
  if (!s || s->n == 0) return op_error(m, n, ERR_ATTR_MISSING, "%s is missing", ints);
  *count = s->n;
  return s->kind == AT_STRINGS ||
         op_error(m, n, ERR_ATTR_TYPE, "%s is no list of strings", strings);
}

static Value *const_of(Build *b, const char *name, DType t, int64_t rows, int64_t cols,
                       const void *data) {
  const int64_t dims[2] = {rows < 0 ? cols : rows, cols};
  return value_const(b->m, const_new(b->m, name, t, rows < 0 ? 1 : 2, dims, data));
}

/* A float list attribute as f32[n], or [rows, n / rows]; NULL when absent. */
static Value *floats(Build *b, const Node *n, const char *name, int64_t rows) {
  const Attr *a = node_attr(n, name);
  if (!a || a->kind != AT_FLOATS || a->n == 0) return NULL;
  float *v = ARENA_ARRAY(b->m->arena, float, a->n);
  for (int i = 0; i < a->n; i++) v[i] = (float)a->floats[i];
  return const_of(b, NULL, DT_F32, rows, rows < 0 ? a->n : a->n / rows, v);
}

DType ml_label_type(const Node *n, const char *ints) {
  const int64_t *v;
  return node_ints(n, ints, &v) > 0 ? DT_I64 : DT_STR;
}

Value *ml_labels(Build *b, Node *n, const char *ints, Value *index) {
  const int64_t *v;
  const int count = node_ints(n, ints, &v);
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  const Attr *const s = node_attr(n, "classlabels_strings");
  bool plain = true;
  if (!count && s && b->ok) {
    Value *const names = const_of(b, NULL, DT_STR, -1, s->n, s->strs);
    return build_op(b, "Gather", 2, (Value *[]){names, index}, 1, &axis);
  }
  for (int i = 0; i < count; i++) plain &= v[i] == i;
  if (plain || !b->ok) return index;
  return build_op(b, "Gather", 2, (Value *[]){build_i64s(b, count, v), index}, 1, &axis);
}

static bool float_list(Model *m, Node *n, const char *name, int *count) {
  const Attr *a = node_attr(n, name);
  *count = a ? a->n : 0;
  return !a || a->kind == AT_FLOATS ||
         op_error(m, n, ERR_ATTR_TYPE, "%s is not a list of floats", name);
}

/* A list of one number, or one for each feature. */
static bool fits_features(Model *m, Node *n, const char *name, int count) {
  const Value *x = n->in[0];
  return count <= 1 || x->rank == 0 ||
         require_size(m, n, x->dims[x->rank - 1], count,
                      arena_printf(m->arena, "features and entries of %s", name));
}

/* ---- Scaler, Normalizer, Binarizer, Imputer ---- */
bool infer_scaler(Model *m, Node *n) {
  int a, c;
  if (!op_need_class(m, n, 0, CL_NUMBER) || !float_list(m, n, "offset", &a) ||
      !float_list(m, n, "scale", &c) || !fits_features(m, n, "offset", a) ||
      !fits_features(m, n, "scale", c))
    return false;
  return op_out_like(m, n, 0, DT_F32, n->in[0]);
}

bool expand_scaler(Build *b, Node *n, Value **out) {
  Value *x = build_cast(b, n->in[0], DT_F32), *off = floats(b, n, "offset", -1),
        *scale = floats(b, n, "scale", -1);
  if (off) x = build2(b, "Sub", x, off);
  if (scale) x = build2(b, "Mul", x, scale);
  out[0] = off || scale || x != n->in[0] ? x : build1(b, "Identity", x);
  return b->ok;
}

static const char *const norms[] = {"MAX", "L1", "L2", NULL};

bool infer_normalizer(Model *m, Node *n) {
  int k;
  return op_need_class(m, n, 0, CL_NUMBER) && op_need_rank(m, n, 0, 1, 2) &&
         op_choice(m, n, "norm", "MAX", norms, &k) && op_out_like(m, n, 0, DT_F32, n->in[0]);
}

bool expand_normalizer(Build *b, Node *n, Value **out) {
  static const char *const reduce[] = {"ReduceMax", "ReduceL1", "ReduceL2"};
  int k;
  if (!op_choice(b->m, n, "norm", "MAX", norms, &k)) return false;
  Value *x = build_cast(b, n->in[0], DT_F32), *size = reduce_last(b, reduce[k], x);
  Value *none = build2(b, "Equal", size, build_scalar(b, DT_F32, 0));
  out[0] =
      build2(b, "Div", x,
             build_op(b, "Where", 3, (Value *[]){none, build_scalar(b, DT_F32, 1), size}, 0, NULL));
  return b->ok;
}

const Expr *elem_binarizer(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = n->in[0]->dtype;
  const Expr *x = elem_in(c, n, 0, idx),
             *limit = ex_float(c->pool, DT_F64, node_float(n, "threshold", 0));
  return ex_select(c->pool, ex_lt(c->pool, limit, ex_cast(c->pool, DT_F64, x)),
                   ex_const(c->pool, t, 1), ex_const(c->pool, t, 0));
}

bool infer_imputer(Model *m, Node *n) {
  const bool f = dtype_is_float(n->in[0]->dtype);
  const char *name = f ? "imputed_value_floats" : "imputed_value_int64s";
  const Attr *a = node_attr(n, name);
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_need_rank(m, n, 0, 1, MAX_RANK)) return false;
  if (!a || a->n == 0 || a->kind != (f ? AT_FLOATS : AT_INTS))
    return op_error(m, n, ERR_ATTR_MISSING, "%s is missing", name);
  return fits_features(m, n, name, a->n) && op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]);
}

bool expand_imputer(Build *b, Node *n, Value **out) {
  Value *x = n->in[0], *by, *hole;
  if (dtype_is_float(x->dtype)) {
    const double what = node_float(n, "replaced_value_float", 0);
    by = build_cast(b, floats(b, n, "imputed_value_floats", -1), x->dtype);
    hole = isnan(what) ? build1(b, "IsNaN", x)
                       : build2(b, "Equal", x, build_scalar(b, x->dtype, what));
  } else {
    const int64_t *v, count = node_ints(n, "imputed_value_int64s", &v);
    by = build_cast(b, build_i64s(b, (int)count, v), x->dtype);
    hole = build2(b, "Equal", x,
                  build_scalar(b, x->dtype, (double)node_int(n, "replaced_value_int64", 0)));
  }
  out[0] = build_op(b, "Where", 3, (Value *[]){hole, by, x}, 0, NULL);
  return b->ok;
}

/* ---- linear models ---- */
static bool linear_shape(Model *m, Node *n, int64_t rows) {
  int count, bias;
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_need_rank(m, n, 0, 1, 2) ||
      !float_list(m, n, "coefficients", &count) || !float_list(m, n, "intercepts", &bias))
    return false;
  const Value *x = n->in[0];
  if (count == 0 || count % rows)
    return op_error(m, n, ERR_ATTR_VALUE, "%d coefficients for %lld rows", count, (long long)rows);
  if (!require_size(m, n, x->dims[x->rank - 1], count / rows, "features and coefficients of a row"))
    return false;
  return bias == 0 || bias == rows ||
         op_error(m, n, ERR_ATTR_VALUE, "%d intercepts for %lld rows", bias, (long long)rows);
}

static Value *linear(Build *b, Node *n, int64_t rows) {
  Value *x = ml_rows(b, build_cast(b, n->in[0], DT_F32)), *bias = floats(b, n, "intercepts", -1);
  const Attr t = attr_int(b->m->arena, "transB", 1);
  return build_op(b, "Gemm", bias ? 3 : 2, (Value *[]){x, floats(b, n, "coefficients", rows), bias},
                  1, &t);
}

static bool rows_out(Model *m, Node *n, int k, DType t, int rank, int64_t width) {
  const Value *x = n->in[0];
  const Expr *dims[2] = {x->rank == 2 ? x->dims[0] : ex_i64(m->pool, 1), ex_i64(m->pool, width)};
  return op_out(m, n, k, t, rank, dims);
}

bool infer_linear_regressor(Model *m, Node *n) {
  int64_t targets;
  int post;
  return op_int_in(m, n, "targets", 1, 1, 1 << 24, &targets) && ml_post_transform(m, n, &post) &&
         linear_shape(m, n, targets) && rows_out(m, n, 0, DT_F32, 2, targets);
}

bool expand_linear_regressor(Build *b, Node *n, Value **out) {
  int post;
  if (!ml_post_transform(b->m, n, &post)) return false;
  out[0] = ml_transform(b, linear(b, n, node_int(n, "targets", 1)), post);
  return b->ok;
}

/* Rows of coefficients: one for each class, or a single one for two classes. */
static int64_t score_rows(const Node *n, int64_t classes) {
  const Attr *a = node_attr(n, "intercepts"), *c = node_attr(n, "coefficients");
  int64_t f;
  const Value *x = n->in[0];
  if (a && a->n > 0) return a->n;
  return c && x->rank > 0 && expr_is_const(x->dims[x->rank - 1], &f) && f > 0 ? c->n / f : classes;
}

bool infer_linear_classifier(Model *m, Node *n) {
  int64_t classes;
  int post;
  if (!ml_post_transform(m, n, &post) ||
      !ml_class_count(m, n, "classlabels_ints", "classlabels_strings", &classes))
    return false;
  const int64_t rows = score_rows(n, classes);
  if (rows < 1 || (rows != classes && !(rows == 1 && classes == 2)))
    return op_error(m, n, ERR_ATTR_VALUE, "%lld rows of coefficients for %lld classes",
                    (long long)rows, (long long)classes);
  return linear_shape(m, n, rows) &&
         rows_out(m, n, 0, ml_label_type(n, "classlabels_ints"), 1, 0) &&
         rows_out(m, n, 1, DT_F32, 2, classes);
}

bool expand_linear_classifier(Build *b, Node *n, Value **out) {
  int64_t classes;
  int post;
  if (!ml_post_transform(b->m, n, &post) ||
      !ml_class_count(b->m, n, "classlabels_ints", "classlabels_strings", &classes))
    return false;
  const int64_t rows = score_rows(n, classes);
  Value *s = linear(b, n, rows);
  if (rows == classes) {
    out[0] = ml_labels(b, n, "classlabels_ints", ml_argmax(b, s));
    if (n->n_out > 1) out[1] = ml_transform(b, s, post);
    return b->ok;
  }
  const int64_t minus = -1;
  const Attr axis = attr_int(b->m->arena, "axis", 1);
  Value *yes = build2(b, "Greater", s, build_scalar(b, DT_F32, 0)), *pair[2] = {NULL, s};
  out[0] = ml_labels(b, n, "classlabels_ints",
                     build2(b, "Reshape", build_cast(b, yes, DT_I64), build_i64s(b, 1, &minus)));
  if (post == ML_LOGISTIC || post == ML_NONE) {
    if (post == ML_LOGISTIC) pair[1] = build1(b, "Sigmoid", s);
    pair[0] = build2(b, "Sub", build_scalar(b, DT_F32, post == ML_LOGISTIC ? 1 : 0), pair[1]);
    if (n->n_out > 1) out[1] = build_op(b, "Concat", 2, pair, 1, &axis);
    return b->ok;
  }
  pair[0] = build1(b, "Neg", s);
  if (n->n_out > 1) out[1] = ml_transform(b, build_op(b, "Concat", 2, pair, 1, &axis), post);
  return b->ok;
}

/* ---- LabelEncoder ---- */
typedef struct LabelList {
  DType t;
  int64_t n;
  const void *data;
} LabelList;

/* prefix_int64s, prefix_floats, prefix_strings or prefix_tensor. */
static LabelList label_list(Model *m, const Node *n, const char *prefix) {
  const Attr *i = node_attr(n, arena_printf(m->arena, "%s_int64s", prefix)),
             *f = node_attr(n, arena_printf(m->arena, "%s_floats", prefix)),
             *s = node_attr(n, arena_printf(m->arena, "%s_strings", prefix));
  const Attr *t = node_attr(n, arena_printf(m->arena, "%s_tensor", prefix));
  if (i && i->kind == AT_INTS) return (LabelList){DT_I64, i->n, i->ints};
  if (s && s->kind == AT_STRINGS) return (LabelList){DT_STR, s->n, s->strs};
  if (t && t->kind == AT_TENSOR)
    return (LabelList){t->tensor->dtype, t->tensor->count, t->tensor->data};
  if (!f || f->kind != AT_FLOATS) return (LabelList){0};
  float *v = ARENA_ARRAY(m->arena, float, f->n);
  for (int k = 0; k < f->n; k++) v[k] = (float)f->floats[k];
  return (LabelList){DT_F32, f->n, v};
}

bool infer_label_encoder(Model *m, Node *n) {
  const LabelList k = label_list(m, n, "keys"), v = label_list(m, n, "values");
  if (!k.t || !v.t) return op_error(m, n, ERR_ATTR_MISSING, "no keys, or no values");
  if (k.n != v.n)
    return op_error(m, n, ERR_ATTR_VALUE, "%lld keys for %lld values", (long long)k.n,
                    (long long)v.n);
  return op_need_dtype(m, n, 0, k.t) && op_out_like(m, n, 0, v.t, n->in[0]);
}

static Value *label_default(Build *b, const Node *n, DType t) {
  const Attr *a = node_attr(n, "default_tensor");
  if (a && a->kind == AT_TENSOR && a->tensor->count == 1)
    return value_const(b->m, (ConstData *)a->tensor);
  if (t == DT_STR) {
    const char **const text = ARENA_ARRAY(b->m->arena, const char *, 1);
    text[0] = node_string(n, "default_string", "_Unused");
    return value_const(b->m, const_new(b->m, NULL, DT_STR, 0, NULL, text));
  }
  if (dtype_is_float(t)) return build_scalar(b, t, node_float(n, "default_float", 0));
  return build_scalar(b, t, (double)node_int(n, "default_int64", -1));
}

bool expand_label_encoder(Build *b, Node *n, Value **out) {
  const LabelList k = label_list(b->m, n, "keys"), v = label_list(b->m, n, "values");
  Value *ins[4] = {n->in[0], const_of(b, NULL, k.t, -1, k.n, k.data),
                   const_of(b, NULL, v.t, -1, v.n, v.data), label_default(b, n, v.t)};
  out[0] = build_node(b, "LookUp", "burin", 4, ins, 1, 0, NULL)->out[0];
  return b->ok;
}

/* burin.LookUp: x, keys, values, default. */
bool infer_look_up(Model *m, Node *n) {
  return op_same_dtype(m, n, 1, 0) && op_same_dtype(m, n, 3, 2) && op_need_rank(m, n, 1, 1, 1) &&
         op_need_rank(m, n, 2, 1, 1) && op_out_like(m, n, 0, n->in[2]->dtype, n->in[0]);
}

const Expr *elem_look_up(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *count = n->in[1]->dims[0], *x = elem_in(c, n, 0, idx), *zero[1] = {ex_i64(p, 0)},
             *minus = ex_i64(p, -1);
  const Expr *otherwise = elem_in(c, n, 3, n->in[3]->rank ? zero : NULL);
  if (expr_is_i64(count, 0)) return otherwise;
  const Expr *k = ex_var(p, "k", count), *key = elem_in(c, n, 1, &k);
  const Expr *same = ex_eq(p, key, x);
  if (dtype_is_float(n->in[0]->dtype)) /* NaN is a key like any other */
    same = ex_op(p, EX_or, same,
                 ex_and(p, ex_op(p, EX_isnan, key, NULL, NULL), ex_op(p, EX_isnan, x, NULL, NULL)),
                 NULL);
  const Expr *at = ex_reduce(p, RED_MAX, k, ex_select(p, same, k, minus));
  const Expr *safe = tu_clamp(p, at, zero[0], ex_sub(p, count, ex_i64(p, 1)));
  return ex_select(p, ex_lt(p, at, zero[0]), otherwise, elem_in(c, n, 2, &safe));
}

/* ---- features ---- */
bool infer_array_feature_extractor(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  if (!op_need_rank(m, n, 0, 1, MAX_RANK) || !op_need_class(m, n, 1, CL_INT)) return false;
  const Expr *k = value_count(m->pool, n->in[1]);
  if (x->rank == 1) {
    dims[0] = ex_i64(m->pool, 1);
    dims[1] = k;
    return op_out(m, n, 0, x->dtype, 2, dims);
  }
  memcpy(dims, x->dims, sizeof *dims * (size_t)x->rank);
  dims[x->rank - 1] = k;
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

bool expand_array_feature_extractor(Build *b, Node *n, Value **out) {
  const int64_t minus = -1, zero = 0;
  const Attr axis = attr_int(b->m->arena, "axis", n->in[0]->rank - 1);
  Value *at = build2(b, "Reshape", n->in[1], build_i64s(b, 1, &minus));
  out[0] = build_op(b, "Gather", 2, (Value *[]){n->in[0], at}, 1, &axis);
  if (n->in[0]->rank == 1) out[0] = build2(b, "Unsqueeze", out[0], build_i64s(b, 1, &zero));
  return b->ok;
}

bool infer_feature_vectorizer(Model *m, Node *n) {
  const int64_t *sizes;
  int count;
  const Expr *width = ex_i64(m->pool, 0), *rows = NULL;
  if (!op_ints(m, n, "inputdimensions", &sizes, &count)) return false;
  if (count != n->n_in)
    return op_error(m, n, ERR_ATTR_VALUE, "inputdimensions has %d entries for %d inputs", count,
                    n->n_in);
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (!op_need_class(m, n, k, CL_NUMBER) || !op_need_rank(m, n, k, 1, 2)) return false;
    const Expr *r = v->rank == 2 ? v->dims[0] : ex_i64(m->pool, 1);
    if (rows && !op_same_dim(m, n, rows, r, "rows", &rows)) return false;
    rows = rows ? rows : r;
    if (sizes[k] < 0)
      return op_error(m, n, ERR_ATTR_VALUE, "inputdimensions[%d] is %lld", k, (long long)sizes[k]);
    if (!require_at_least(m, n, v->dims[v->rank - 1], ex_i64(m->pool, sizes[k]),
                          "features and inputdimensions"))
      return false;
    width = ex_add(m->pool, width, ex_i64(m->pool, sizes[k]));
  }
  return op_out(m, n, 0, DT_F32, 2, (const Expr *[]){rows, width});
}

bool expand_feature_vectorizer(Build *b, Node *n, Value **out) {
  const int64_t *sizes;
  Value **parts = ARENA_ARRAY(b->m->arena, Value *, n->n_in);
  const Attr axis = attr_int(b->m->arena, "axis", 1);
  node_ints(n, "inputdimensions", &sizes);
  for (int k = 0; k < n->n_in; k++) {
    Value *x = build_cast(b, ml_rows(b, n->in[k]), DT_F32);
    parts[k] = expr_is_i64(x->dims[1], sizes[k]) ? x : build_slice(b, x, 1, 0, sizes[k]);
  }
  out[0] = build_op(b, "Concat", n->n_in, parts, 1, &axis);
  return b->ok;
}

bool infer_one_hot_encoder(Model *m, Node *n) {
  const int64_t *cats;
  int count, n_texts = 0;
  const Value *x = n->in[0];
  const bool texts = x->dtype == DT_STR;
  const Expr *dims[MAX_RANK];
  const Attr *const s = node_attr(n, "cats_strings");
  if (!op_need_class(m, n, 0, CL_NUMBER | CL_STRING) || !op_need_rank(m, n, 0, 0, MAX_RANK - 1) ||
      !op_ints(m, n, "cats_int64s", &cats, &count))
    return false;
  if (s && s->kind == AT_STRINGS) n_texts = s->n;
  if (texts) count = n_texts;
  if (count < 1)
    return op_error(m, n, ERR_ATTR_MISSING, "no categories of type %s", dtype_text(x->dtype));
  memcpy(dims, x->dims, sizeof *dims * (size_t)x->rank);
  dims[x->rank] = ex_i64(m->pool, count);
  return op_out(m, n, 0, DT_F32, x->rank + 1, dims);
}

bool expand_one_hot_encoder(Build *b, Node *n, Value **out) {
  const int64_t *cats, minus = -1;
  const int count = node_ints(n, "cats_int64s", &cats);
  const bool texts = n->in[0]->dtype == DT_STR;
  const Attr *const s = node_attr(n, "cats_strings");
  Value *const list =
      texts ? const_of(b, NULL, DT_STR, -1, s->n, s->strs) : build_i64s(b, count, cats);
  Value *x = texts ? n->in[0] : build_cast(b, n->in[0], DT_I64);
  x = build2(b, "Unsqueeze", x, build_i64s(b, 1, &minus));
  out[0] = build_cast(b, build2(b, "Equal", x, list), DT_F32);
  return b->ok;
}
