/* SVMClassifier and SVMRegressor: kernels against the support vectors, as ordinary operators. A
 * classifier of libsvm has a score for each pair of classes; the class with most of the pairs wins,
 * and probabilities come from coupling those of pairs (runtime/ops/ops_coupling.c). */
#include <string.h>

#include "ir/ops/ml/ml.h"
#include "runtime/ops/ops.h"

static const char *const kernels[] = {"LINEAR", "POLY", "RBF", "SIGMOID", NULL};
enum { K_LINEAR, K_POLY, K_RBF, K_SIGMOID };

typedef struct Svm {
  int kernel, post;
  double gamma, coef0;
  int64_t degree;
  const Attr *coefficients, *rho, *vectors; /* floats */
  int64_t supports;                         /* 0: linear */
  int64_t features;
} Svm;

/* ---- attributes ---- */
static bool need_floats(Model *m, const Node *n, const char *name, bool needed, const Attr **a) {
  *a = node_attr(n, name);
  if (!*a && needed) return op_error(m, n, ERR_ATTR_MISSING, "%s is missing", name);
  return !*a || (*a)->kind == AT_FLOATS ||
         op_error(m, n, ERR_ATTR_TYPE, "%s is not a list of floats", name);
}

/* Rows of as many features as the input has. */
static bool need_rows(Model *m, Node *n, const char *name, int64_t count, int64_t rows,
                      int64_t *features) {
  const Value *x = n->in[0];
  if (rows < 1 || count < 1 || count % rows)
    return op_error(m, n, ERR_ATTR_VALUE, "%s has %lld entries for %lld rows", name,
                    (long long)count, (long long)rows);
  *features = count / rows;
  return require_size(m, n, x->dims[x->rank - 1], *features,
                      arena_printf(m->arena, "features and entries of %s", name));
}

static bool read_svm(Model *m, Node *n, int64_t supports, Svm *s) {
  const Attr *params;
  memset(s, 0, sizeof *s);
  s->supports = supports;
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_need_rank(m, n, 0, 1, 2) ||
      !ml_post_transform(m, n, &s->post) ||
      !op_choice(m, n, "kernel_type", "LINEAR", kernels, &s->kernel) ||
      !need_floats(m, n, "kernel_params", false, &params) ||
      !need_floats(m, n, "coefficients", true, &s->coefficients) ||
      !need_floats(m, n, "rho", true, &s->rho) ||
      !need_floats(m, n, "support_vectors", supports > 0, &s->vectors))
    return false;
  if (s->rho->n < 1 || s->coefficients->n < 1)
    return op_error(m, n, ERR_ATTR_VALUE, "rho and coefficients need entries");
  if (!supports) s->kernel = K_LINEAR;
  if (params && params->n != 0 && params->n != 3)
    return op_error(m, n, ERR_ATTR_VALUE, "kernel_params has %d entries, not 3", params->n);
  if (!params || !params->n) return true;
  s->gamma = params->floats[0];
  s->coef0 = params->floats[1];
  s->degree = double_to_i64(params->floats[2]);
  return true;
}

/* ---- kernels ---- */
static Value *matrix(Build *b, int64_t rows, int64_t columns, const float *v) {
  const int64_t dims[2] = {rows, columns};
  return value_const(b->m, const_new(b->m, NULL, DT_F32, 2, dims, v));
}

/* v[rows][columns] the other way round. */
static Value *transposed(Build *b, const double *v, int64_t rows, int64_t columns) {
  float *const t = ARENA_ARRAY(b->m->arena, float, rows *columns + 1);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) t[j * rows + i] = (float)v[i * columns + j];
  return matrix(b, columns, rows, t);
}

static Value *scaled(Build *b, Value *v, double scale, double add) {
  return build2(b, "Add", build2(b, "Mul", v, build_scalar(b, DT_F32, scale)),
                build_scalar(b, DT_F32, add));
}

/* |x - v|² of each pair of rows, as the sum of squares: what is near is told apart. */
static Value *distances(Build *b, Value *x, const Svm *s) {
  const int64_t one = 1, last = -1;
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  float *const v = ARENA_ARRAY(b->m->arena, float, s->vectors->n + 1);
  for (int i = 0; i < s->vectors->n; i++) v[i] = (float)s->vectors->floats[i];
  Value *const rows = build2(b, "Unsqueeze", x, build_i64s(b, 1, &one));
  Value *const gap = build2(b, "Sub", rows, matrix(b, s->supports, s->features, v));
  Value *const ins[2] = {gap, build_i64s(b, 1, &last)};
  return build_op(b, "ReduceSumSquare", 2, ins, 1, &keep);
}

/* K(x, v): f32[rows, supports] */
static Value *kernel_values(Build *b, Value *x, const Svm *s) {
  if (s->kernel == K_RBF) return build1(b, "Exp", scaled(b, distances(b, x, s), -s->gamma, 0));
  Value *dot = build2(b, "MatMul", x, transposed(b, s->vectors->floats, s->supports, s->features));
  if (s->kernel == K_LINEAR) return dot;
  dot = scaled(b, dot, s->gamma, s->coef0);
  if (s->kernel == K_SIGMOID) return build1(b, "Tanh", dot);
  return build2(b, "Pow", dot, build_scalar(b, DT_F32, (double)s->degree));
}

static Value *input_rows(Build *b, const Node *n) {
  return build_cast(b, ml_rows(b, n->in[0]), DT_F32);
}

static bool out_rows(Model *m, Node *n, int k, DType t, int64_t columns) {
  const Value *x = n->in[0];
  const Expr *dims[2] = {x->rank == 2 ? x->dims[0] : ex_i64(m->pool, 1), ex_i64(m->pool, columns)};
  return op_out(m, n, k, t, columns < 0 ? 1 : 2, dims);
}

/* ---- SVMRegressor ---- */
static bool read_regressor(Model *m, Node *n, Svm *s) {
  int64_t supports, one_class;
  if (!op_int_in(m, n, "n_supports", 0, 0, INT32_MAX, &supports) ||
      !op_int_in(m, n, "one_class", 0, 0, 1, &one_class) || !read_svm(m, n, supports, s))
    return false;
  if (s->post != ML_NONE)
    return op_error(m, n, ERR_UNSUPPORTED, "a post_transform of SVMRegressor");
  if (!supports) return need_rows(m, n, "coefficients", s->coefficients->n, 1, &s->features);
  if (s->coefficients->n != supports)
    return op_error(m, n, ERR_ATTR_VALUE, "%d coefficients for %lld support vectors",
                    s->coefficients->n, (long long)supports);
  return need_rows(m, n, "support_vectors", s->vectors->n, supports, &s->features);
}

bool infer_svm_regressor(Model *m, Node *n) {
  Svm s;
  return read_regressor(m, n, &s) && out_rows(m, n, 0, DT_F32, 1);
}

bool expand_svm_regressor(Build *b, Node *n, Value **out) {
  Svm s;
  if (!read_regressor(b->m, n, &s)) return false;
  Value *x = input_rows(b, n);
  if (s.supports) x = kernel_values(b, x, &s);
  Value *sum = build2(b, "MatMul", x, transposed(b, s.coefficients->floats, 1, s.coefficients->n));
  sum = build2(b, "Add", sum, build_scalar(b, DT_F32, s.rho->floats[0]));
  if (node_int(n, "one_class", 0)) {
    Value *const yes = build2(b, "Greater", sum, build_scalar(b, DT_F32, 0));
    sum = build_op(b, "Where", 3,
                   (Value *[]){yes, build_scalar(b, DT_F32, 1), build_scalar(b, DT_F32, -1)}, 0,
                   NULL);
  }
  out[0] = sum;
  return b->ok;
}

/* ---- SVMClassifier ---- */
typedef struct Classifier {
  Svm svm;
  int64_t classes, pairs;
  const int64_t *per_class;
  const Attr *prob_a, *prob_b; /* NULL: no probabilities */
  bool positive;               /* no coefficient is negative */
} Classifier;

static bool read_probabilities(Model *m, Node *n, Classifier *c) {
  if (!need_floats(m, n, "prob_a", false, &c->prob_a) ||
      !need_floats(m, n, "prob_b", false, &c->prob_b))
    return false;
  if (!c->svm.supports || !c->prob_a || !c->prob_a->n) return c->prob_a = c->prob_b = NULL, true;
  if (!c->prob_b || c->prob_a->n != c->pairs || c->prob_b->n != c->pairs)
    return op_error(m, n, ERR_ATTR_VALUE, "prob_a and prob_b need %lld entries",
                    (long long)c->pairs);
  return true;
}

static bool read_classifier(Model *m, Node *n, Classifier *c) {
  int count;
  int64_t supports = 0;
  memset(c, 0, sizeof *c);
  if (!ml_class_count(m, n, "classlabels_ints", "classlabels_strings", &c->classes) ||
      !op_ints(m, n, "vectors_per_class", &c->per_class, &count))
    return false;
  for (int k = 0; k < count; k++) {
    if (c->per_class[k] < 0 || c->per_class[k] > INT32_MAX)
      return op_error(m, n, ERR_ATTR_VALUE, "vectors_per_class holds %lld",
                      (long long)c->per_class[k]);
    supports += c->per_class[k];
  }
  if (supports && (count != c->classes || count < 2))
    return op_error(m, n, ERR_ATTR_VALUE, "%d vectors_per_class for %lld classes", count,
                    (long long)c->classes);
  if (!read_svm(m, n, supports, &c->svm)) return false;
  Svm *const s = &c->svm;
  c->pairs = supports ? c->classes * (c->classes - 1) / 2 : 0;
  c->positive = true;
  for (int i = 0; i < s->coefficients->n; i++) c->positive &= s->coefficients->floats[i] >= 0;
  if (!supports)
    return need_rows(m, n, "coefficients", s->coefficients->n, c->classes, &s->features);
  if (s->rho->n != c->pairs || s->coefficients->n != (c->classes - 1) * supports)
    return op_error(m, n, ERR_ATTR_VALUE, "rho and coefficients need %lld and %lld entries",
                    (long long)c->pairs, (long long)((c->classes - 1) * supports));
  return need_rows(m, n, "support_vectors", s->vectors->n, supports, &s->features) &&
         read_probabilities(m, n, c);
}

/* Columns of the scores before and behind the post transform. */
static int64_t score_columns(const Classifier *c) {
  return !c->svm.supports || c->prob_a ? c->classes : c->pairs;
}

bool infer_svm_classifier(Model *m, Node *n) {
  Classifier c;
  if (!read_classifier(m, n, &c)) return false;
  const int64_t columns = score_columns(&c);
  if (columns == 1 && c.svm.post == ML_PROBIT)
    return op_error(m, n, ERR_ATTR_VALUE, "PROBIT of one score");
  return out_rows(m, n, 0, ml_label_type(n, "classlabels_ints"), -1) &&
         out_rows(m, n, 1, DT_F32, columns == 1 ? 2 : columns);
}

/* Weights of the support vectors in the score of each pair: [supports, pairs]. */
static Value *pair_weights(Build *b, const Classifier *c) {
  const int64_t supports = c->svm.supports, k = c->classes;
  float *const w = ARENA_ARRAY(b->m->arena, float, supports * c->pairs + 1);
  int64_t pair = 0, at_i = 0;
  for (int64_t i = 0; i < k; at_i += c->per_class[i], i++) {
    int64_t at_j = at_i + c->per_class[i];
    for (int64_t j = i + 1; j < k; at_j += c->per_class[j], j++, pair++) {
      for (int64_t v = at_i; v < at_i + c->per_class[i]; v++)
        w[v * c->pairs + pair] = (float)c->svm.coefficients->floats[(j - 1) * supports + v];
      for (int64_t v = at_j; v < at_j + c->per_class[j]; v++)
        w[v * c->pairs + pair] = (float)c->svm.coefficients->floats[i * supports + v];
    }
  }
  return matrix(b, supports, c->pairs, w);
}

static Value *float_row(Build *b, const Attr *a) { return transposed(b, a->floats, a->n, 1); }

/* The class with most pairs won, the first of equal ones. */
static Value *most_votes(Build *b, const Classifier *c, Value *scores) {
  float *const gain = ARENA_ARRAY(b->m->arena, float, c->pairs * c->classes + 1),
               *const base = ARENA_ARRAY(b->m->arena, float, c->classes + 1);
  int64_t pair = 0;
  for (int64_t i = 0; i < c->classes; i++)
    for (int64_t j = i + 1; j < c->classes; j++, pair++) {
      gain[pair * c->classes + i] = 1;
      gain[pair * c->classes + j] = -1;
      base[j] += 1;
    }
  Value *const won =
      build_cast(b, build2(b, "Greater", scores, build_scalar(b, DT_F32, 0)), DT_F32);
  Value *const votes = build2(b, "MatMul", won, matrix(b, c->pairs, c->classes, gain));
  return ml_argmax(b, build2(b, "Add", votes, matrix(b, 1, c->classes, base)));
}

/* 1 / (1 + exp(a s + b)) of pairs, then of classes. */
static Value *probabilities(Build *b, const Classifier *c, Value *scores) {
  const Attr k = attr_int(b->m->arena, "classes", c->classes);
  Value *v = build2(b, "Mul", scores, float_row(b, c->prob_a));
  v = build1(b, "Sigmoid", build1(b, "Neg", build2(b, "Add", v, float_row(b, c->prob_b))));
  Value *const ins[3] = {v, build_scalar(b, DT_F32, 1e-7), build_scalar(b, DT_F32, 1 - 1e-7)};
  v = build_op(b, "Clip", 3, ins, 0, NULL);
  return build_node(b, "Coupling", "burin", 1, &v, 1, 1, &k)->out[0];
}

static Value *class_scores(Build *b, Node *n, const Classifier *c, Value **index) {
  const Svm *const s = &c->svm;
  Value *x = input_rows(b, n);
  if (!s->supports) {
    x = build2(b, "MatMul", x, transposed(b, s->coefficients->floats, c->classes, s->features));
    x = build2(b, "Add", x, build_scalar(b, DT_F32, s->rho->floats[0]));
    *index = ml_argmax(b, x);
    return x;
  }
  x = build2(b, "MatMul", kernel_values(b, x, s), pair_weights(b, c));
  x = build2(b, "Add", x, float_row(b, s->rho));
  *index = most_votes(b, c, x);
  return c->prob_a ? probabilities(b, c, x) : x;
}

/* ONNX Runtime's rule for two classes whose coefficients are all positive: the second one, where
 * the best score is at least 0.5. */
static Value *positive_rule(Build *b, Value *scores, Value *index) {
  const int64_t last = -1;
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  Value *const ins[2] = {scores, build_i64s(b, 1, &last)};
  Value *const top = build_op(b, "ReduceMax", 2, ins, 1, &keep);
  Value *const less = build2(b, "Less", top, build_scalar(b, DT_F32, 0.5));
  return build_op(b, "Where", 3, (Value *[]){less, index, build_scalar(b, DT_I64, 1)}, 0, NULL);
}

bool expand_svm_classifier(Build *b, Node *n, Value **out) {
  Classifier c;
  Value *index;
  if (!read_classifier(b->m, n, &c)) return false;
  Value *scores = class_scores(b, n, &c, &index);
  if (c.classes == 2 && c.svm.rho->n == 1 && c.positive && !c.prob_a && !c.svm.supports)
    index = positive_rule(b, scores, index);
  out[0] = ml_labels(b, n, "classlabels_ints", index);
  if (n->n_out < 2) return b->ok;
  if (score_columns(&c) == 1) {
    const Attr axis = attr_int(b->m->arena, "axis", 1);
    Value *const both[2] = {build1(b, "Neg", scores), scores};
    scores = build_op(b, "Concat", 2, both, 1, &axis);
  }
  out[1] = ml_transform(b, scores, c.svm.post);
  return b->ok;
}

/* ---- burin.Coupling ---- */
bool infer_coupling(Model *m, Node *n) {
  int64_t k;
  if (!op_int_in(m, n, "classes", 2, 2, INT32_MAX, &k) || !op_need_dtype(m, n, 0, DT_F32) ||
      !op_need_rank(m, n, 0, 2, 2) ||
      !require_size(m, n, n->in[0]->dims[1], k * (k - 1) / 2, "pairs of classes"))
    return false;
  const Expr *dims[2] = {n->in[0]->dims[0], ex_i64(m->pool, k)};
  return op_out(m, n, 0, DT_F32, 2, dims);
}

static int pack_coupling(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "classes", 2);
  return 1;
}

static const Expr *scratch_coupling(Model *m, const Node *n) {
  const int64_t k = node_int(n, "classes", 2);
  return ex_i64(m->pool, k * (k + 1) * 4);
}
const ExternRow ext_coupling = {"rt_coupling", (void *)rt_coupling, pack_coupling,
                                .scratch = scratch_coupling};
