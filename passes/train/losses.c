/* Losses, as nodes behind the model's output: formulas and their sources are in docs/training.md. */
#include <math.h>
#include <string.h>
#include "passes/train/step.h"

typedef struct Loss {
  Train *x;
  Build *b;
  const Spec *s;
  DType t;       /* in which it is computed */
  Value *v;      /* the model's output, or what its last operator reads; of type t */
  bool stripped; /* the latter */
  bool logs;     /* v are logarithms of probabilities */
  int axis;      /* of classes */
  bool sums;     /* reduction=sum */
  double temperature;
} Loss;
typedef Value *(*LossFn)(Loss *l, Value *labels);

static Value *map(Loss *l, const char *text, int n, Value *const *in) {
  return l->b->ok ? build_map(l->b, l->t, text, n, in) : in[0];
}

static const char *num(const Loss *l, double v) { return build_number(l->b, l->t, v); }

/* Sum or mean of all elements. */
static Value *reduce(Loss *l, Value *v) {
  int64_t axes[MAX_RANK];
  if (!l->b->ok || l->sums) return build_sum_all(l->b, v);
  for (int d = 0; d < v->rank; d++) axes[d] = d;
  return build_mean(l->b, v, v->rank, axes, false);
}

/* ---- classes ---- */
/* The axis of classes becomes the second one; where it is the last one, for nothing. */
static Value *classes_second(Loss *l, Value *v) {
  int64_t perm[MAX_RANK], n = 0, classes;
  if (!l->b->ok || l->axis == 1) return v;
  if (l->axis == 0) return build_unsqueeze(l->b, v, 0); /* rank 1: no batch */
  if (l->axis == v->rank - 1 && expr_is_const(v->dims[l->axis], &classes))
    return build_reshape(l->b, v, 2, (int64_t[]){-1, classes});
  perm[n++] = 0;
  perm[n++] = l->axis;
  for (int d = 1; d < v->rank; d++)
    if (d != l->axis) perm[n++] = d;
  return build_transpose(l->b, v, v->rank, perm);
}

static Value *labels_of(Loss *l, Value *labels, const Value *classes) {
  if (!l->b->ok) return labels;
  if (l->axis == 0) return build_unsqueeze(l->b, labels, 0);
  return labels->rank == classes->rank - 1 ? labels
                                           : build_reshape(l->b, labels, 1, (int64_t[]){-1});
}

static Value *log_softmax(Loss *l, Value *v, int64_t axis) {
  const Attr a = attr_int(l->x->m->arena, "axis", axis);
  return l->b->ok ? build_op(l->b, "LogSoftmax", 1, &v, 1, &a) : v;
}

static Value *class_weights(Loss *l, const Value *classes, bool *ok) {
  int n;
  double *w;
  int64_t count;
  *ok = spec_numbers(l->s, "weights", &n, &w);
  if (!*ok || !n) return NULL;
  if (expr_is_const(classes->dims[1], &count) && count != n)
    *ok = spec_error(l->s, "%d weights for %lld classes", n, (long long)count);
  for (int i = 0; *ok && i < n; i++)
    if (w[i] < 0) *ok = spec_error(l->s, "a weight is negative");
  void *data = arena_alloc(l->x->m->arena, (size_t)n * 8);
  for (int i = 0; i < n; i++) dtype_store_f(l->t, (char *)data + i * dtype_bytes(l->t), w[i]);
  return value_const(l->x->m, const_new(l->x->m, NULL, l->t, 1, (int64_t[]){n}, data));
}

static Value *nll(Loss *l, Value *log_p, Value *labels, Value *weights, const char *reduction,
                  const int64_t *ignored) {
  Arena *a = l->x->m->arena;
  Attr attrs[2] = {attr_string(a, "reduction", reduction)};
  if (ignored) attrs[1] = attr_int(a, "ignore_index", *ignored);
  return build_op(l->b, "NegativeLogLikelihoodLoss", weights ? 3 : 2,
                  (Value *[]){log_p, labels, weights}, 1 + (ignored != NULL), attrs);
}

/* The weight of each label: 0 where it is ignored. */
static Value *label_weights(Loss *l, Value *labels, Value *weights, const int64_t *ignored) {
  Build *b = l->b;
  const char *text = arena_printf(l->x->m->arena, ignored ? "a != %lld" : "a == a",
                                  ignored ? (long long)*ignored : 0);
  Value *counts = build_map(b, DT_BOOL, text, 1, &labels);
  if (!weights || !b->ok) return build_cast(b, counts, l->t);
  Value *safe = build_map(b, DT_I64, "select(b, a, 0)", 2, (Value *[]){labels, counts});
  Value *w = b->ok ? build2(b, "Gather", weights, safe) : safe;
  return map(l, "select(a, b, 0)", 2, (Value *[]){counts, w});
}

/* (1 - e) nll + e / C Σ_c -w_c log p_c, over the weights of the labels (as PyTorch's). */
static Value *smoothed(Loss *l, Value *log_p, Value *labels, Value *weights, const int64_t *ignored,
                       double e) {
  Build *b = l->b;
  const int64_t one = 1;
  Value *hit = nll(l, log_p, labels, weights, "sum", ignored);
  Value *each = label_weights(l, labels, NULL, ignored), *w = log_p;
  if (weights && b->ok) w = build2(b, "Mul", log_p, build_channels(b, weights, l->t, log_p->rank));
  Value *all = b->ok ? build_sum(b, w, 1, &one, false) : w;
  all = build_sum_all(l->b, map(l, "neg(a * b)", 2, (Value *[]){all, each}));
  Value *classes = b->ok ? build_cast(b, build_shape(b, log_p, 1, 2), l->t) : all;
  classes = b->ok ? build_reshape(b, classes, 0, NULL) : all;
  const char *text = arena_printf(l->x->m->arena, "%s * a + %s * b / c", num(l, 1 - e), num(l, e));
  Value *both = map(l, text, 3, (Value *[]){hit, all, classes});
  if (l->sums || !b->ok) return both;
  return build2(b, "Div", both, build_sum_all(l->b, label_weights(l, labels, weights, ignored)));
}

static Value *softmax_cross_entropy(Loss *l, Value *labels) {
  double e;
  int64_t ignored;
  bool ok;
  if (!spec_number(l->s, "label_smoothing", 0, 0, 1, &e) ||
      !spec_int(l->s, "ignore_index", -100, INT32_MIN, INT32_MAX, &ignored))
    return NULL;
  const int64_t *skip = spec_text(l->s, "ignore_index") ? &ignored : NULL;
  Value *x = classes_second(l, l->v);
  labels = labels_of(l, labels, x);
  Value *log_p = l->logs ? x : log_softmax(l, x, 1);
  if (!l->b->ok) return x;
  Value *weights = class_weights(l, log_p, &ok);
  if (!ok) return NULL;
  if (e > 0) return smoothed(l, log_p, labels, weights, skip, e);
  return nll(l, log_p, labels, weights, l->sums ? "sum" : "mean", skip);
}

/* Σ t (log t - log p), over the number of rows (PyTorch's batchmean). */
static Value *divergence(Loss *l, Value *t, Value *log_t, Value *log_p) {
  const char *text = log_t ? "b * (a - c)" : "select(0 < b, b * (log(max(b, 1e-37)) - c), 0)";
  Value *each = map(l, text, 3, (Value *[]){log_t ? log_t : t, t, log_p});
  Value *sum = build_sum_all(l->b, each);
  if (l->sums || !l->b->ok) return sum;
  const int64_t axis = l->axis;
  Value *rows = build_cast(l->b, build1(l->b, "Size", log_p), l->t);
  Value *classes = build_cast(l->b, build_shape(l->b, log_p, axis, axis + 1), l->t);
  classes = l->b->ok ? build_reshape(l->b, classes, 0, NULL) : rows;
  return map(l, "a * c / b", 3, (Value *[]){sum, rows, classes});
}

static Value *kl(Loss *l, Value *labels) {
  return divergence(l, labels, NULL, l->logs ? l->v : log_softmax(l, l->v, l->axis));
}

/* What the output is made of, behind operators that change nothing, or the shape alone. */
static Node *last_node(Value *v) {
  static const char nothing[] = "Identity Reshape Flatten Squeeze Unsqueeze";
  while (v->def && (spec_has_word(nothing, v->def->op->name) ||
                    (strcmp(v->def->op->name, "Dropout") == 0 && v == v->def->out[0])))
    v = v->def->in[0];
  return v->def;
}

/* ---- values ---- */
/* Softplus has the right gradient at 0, which max and abs have not. */
static Value *sigmoid_cross_entropy(Loss *l, Value *labels) {
  int n;
  double *w;
  if (!spec_numbers(l->s, "pos_weight", &n, &w)) return NULL;
  if (n > 1) return spec_error(l->s, "pos_weight is one number"), NULL;
  Value *neg = build1(l->b, "Neg", l->v);
  Value *soft = l->b->ok ? build1(l->b, "Softplus", neg) : neg;
  const char *text =
      n ? arena_printf(l->x->m->arena, "(1 - b) * a + (1 + b * %s) * c", num(l, w[0] - 1))
        : "(1 - b) * a + c";
  return reduce(l, map(l, text, 3, (Value *[]){l->v, labels, soft}));
}

static Value *mse(Loss *l, Value *labels) {
  return reduce(l, map(l, "(a - b) * (a - b)", 2, (Value *[]){l->v, labels}));
}

static Value *l1(Loss *l, Value *labels) {
  return reduce(l, map(l, "abs(a - b)", 2, (Value *[]){l->v, labels}));
}

static Value *huber(Loss *l, Value *labels) {
  double d;
  if (!spec_number(l->s, "delta", 1, 1e-30, 1e30, &d)) return NULL;
  const char *text = arena_printf(
      l->x->m->arena, "select(abs(a - b) <= %s, 0.5 * (a - b) * (a - b), %s * (abs(a - b) - %s))",
      num(l, d), num(l, d), num(l, d / 2));
  return reduce(l, map(l, text, 2, (Value *[]){l->v, labels}));
}

/* 1 - (2 Σ p t + s) / (Σ p + Σ t + s) of each sample and channel, over what lies behind. */
static Value *dice(Loss *l, Value *labels) {
  double s;
  int64_t axes[MAX_RANK];
  int n = 0;
  if (!spec_number(l->s, "smooth", 1e-5, 0, 1e6, &s)) return NULL;
  const Node *last = last_node(l->v);
  const bool probabilities =
      last && (strcmp(last->op->name, "Sigmoid") == 0 || strcmp(last->op->name, "Softmax") == 0);
  Value *p = probabilities ? l->v : build1(l->b, "Sigmoid", l->v);
  if (!l->b->ok) return p;
  for (int d = p->rank > 2 ? 2 : p->rank - 1; d < p->rank; d++) axes[n++] = d;
  Value *both = build2(l->b, "Mul", p, labels);
  if (!l->b->ok) return p;
  Value *in[] = {build_sum(l->b, both, n, axes, false), build_sum(l->b, p, n, axes, false),
                 build_sum(l->b, labels, n, axes, false)};
  const char *text =
      arena_printf(l->x->m->arena, "1 - (2 * a + %s) / (b + c + %s)", num(l, s), num(l, s));
  return reduce(l, map(l, text, 3, in));
}

/* ---- the table ---- */
typedef struct Row {
  const char *name, *last;
  bool classes;
  LossFn fn;
  const char *keys;
} Row;
static const Row rows[] = {
#define LOSS(name, last, classes, fn, keys) {#name, last, classes, fn, keys},
#include "passes/train/losses.def"
#undef LOSS
};
static const Row *find_row(const Spec *s) {
  return spec_row(s, "loss", rows, sizeof rows / sizeof *rows, sizeof *rows);
}

/* ---- the model's output ---- */
static bool find_output(Train *x) {
  const Graph *g = x->g;
  StrBuf b = {.arena = x->m->arena};
  int found = x->loss.output || g->outputs.n != 1 ? -1 : 0;
  for (int k = 0; k < g->outputs.n; k++) {
    sb_printf(&b, "%s%s", k ? ", " : "", g->output_names.data[k]);
    if (x->loss.output && strcmp(x->loss.output, g->output_names.data[k]) == 0) found = k;
  }
  if (found < 0 && x->loss.output)
    return spec_error(&x->loss, "the model has no output '%s'; it has: %s", x->loss.output,
                      sb_str(&b));
  if (found < 0)
    return spec_error(&x->loss, "the model has %d outputs: say %s:OUTPUT with one of %s",
                      g->outputs.n, x->loss.name, sb_str(&b));
  x->output = g->outputs.data[found];
  x->output_index = found;
  if (x->output->kind == TY_TENSOR && dtype_is_float(x->output->dtype) && x->output->rank >= 0 &&
      !graph_list(g, found, true))
    return true;
  return spec_error(&x->loss, "output %s is no tensor of floats%s", g->output_names.data[found],
                    g->outputs.n > 1 ? ": say another behind the loss's name" : "");
}

/* What lies behind a dimension; -1: not known. */
static int64_t inner_size(const Value *v, int axis) {
  int64_t all = 1, n;
  for (int d = axis + 1; d < v->rank && all >= 0; d++)
    all = expr_is_const(v->dims[d], &n) ? all * n : -1;
  return all;
}

/* The dimension of the output that has the classes of v's `axis`, in the same order; -1: none. */
static int same_axis(const Value *out, const Value *v, int axis) {
  const int64_t inner = inner_size(v, axis);
  if (value_same_shape(out, v)) return axis;
  for (int d = 0; d < out->rank && inner >= 0; d++)
    if (out->dims[d] == v->dims[axis] && inner_size(out, d) == inner) return d;
  return -1;
}

/* Where the output of a softmax, or its logarithm, n has its classes; -1: nowhere, or n is none. */
static int softmax_axis(const Value *out, const Node *n) {
  if (!spec_has_word("Softmax LogSoftmax", n->op->name) || n->in[0]->rank < 0 || out->rank < 0)
    return -1;
  const int64_t axis = node_int(n, "axis", -1);
  return same_axis(out, n->in[0], (int)(axis < 0 ? axis + n->in[0]->rank : axis));
}

TrainEnd train_end(Value *output) {
  const Node *n = last_node(output);
  return (TrainEnd){.sigmoid = n && strcmp(n->op->name, "Sigmoid") == 0,
                    .class_axis = n ? softmax_axis(output, n) : -1};
}

static bool find_operand(Loss *l, const Row *row) {
  Train *x = l->x;
  const Node *n = last_node(x->output);
  l->v = x->output;
  if (!n || !*row->last) return true;
  const bool softmax = strcmp(row->last, "Softmax") == 0;
  const bool logs = softmax && strcmp(n->op->name, "LogSoftmax") == 0;
  if ((!logs && strcmp(n->op->name, row->last) != 0) || n->in[0]->rank < 0) return true;
  const int axis = softmax_axis(x->output, n);
  if (softmax && axis < 0) return true;
  l->logs = logs;
  l->stripped = true;
  if (!l->logs) l->v = build_reshape_like(l->b, n->in[0], x->output);
  if (!softmax) return true;
  if (spec_text(l->s, "axis") && axis != l->axis)
    return spec_error(l->s, "%s at the end of the model is along axis %d", n->op->name, axis);
  l->axis = axis;
  return true;
}

static bool find_axis(Loss *l) {
  const int rank = l->x->output->rank;
  int64_t axis;
  if (!spec_int(l->s, "axis", rank > 1 ? 1 : 0, -rank, rank - 1, &axis)) return false;
  l->axis = (int)(axis < 0 ? axis + rank : axis);
  return true;
}

/* ---- labels and a teacher ---- */
static Value *label_input(Loss *l, const char *name, bool classes) {
  const Value *v = l->x->output;
  const Expr *dims[MAX_RANK];
  int n = 0;
  for (int d = 0; d < v->rank; d++)
    if (!classes || d != l->axis) dims[n++] = v->dims[d];
  return train_input(l->x, name, classes ? DT_I64 : l->t, n, dims);
}

static void add_labels(Loss *l, bool classes) {
  Train *x = l->x;
  const Value *v = x->output;
  x->labels = label_input(l, "labels", classes);
  if (spec_text(l->s, "distill"))
    x->teacher = train_input(x, "teacher", l->t, v->rank, (const Expr *const *)v->dims);
  if (!x->t->mixed || x->eval) return;
  x->other_labels = label_input(l, "other_labels", classes);
  x->share = train_input(x, "share", l->t, 0, NULL);
  x->other_share = train_input(x, "other_share", l->t, 0, NULL);
}

/* Against both labels of a mixed sample, each by its share. */
static Value *labelled(Loss *l, const Row *row) {
  Train *x = l->x;
  Value *loss = row->fn(l, x->labels);
  if (!x->share || !loss || !l->b->ok) return loss;
  Value *other = row->fn(l, x->other_labels);
  return other ? map(l, "a * c + b * d", 4, (Value *[]){loss, other, x->share, x->other_share})
               : NULL;
}

/* What a teacher says, in the output's form, as labels of this loss: softer by the temperature. */
static Value *taught(Loss *l, const Row *row) {
  Train *x = l->x;
  Value *t = x->teacher;
  const char *by = num(l, 1 / l->temperature);
  const bool softmax = strcmp(row->last, "Softmax") == 0,
             sigmoid = strcmp(row->last, "Sigmoid") == 0;
  if (softmax) {
    const bool logits = !l->stripped || l->logs;
    Value *z =
        map(l, arena_printf(x->m->arena, logits ? "a * %s" : "log(max(a, 1e-37)) * %s", by), 1, &t);
    return log_softmax(l, z, l->axis);
  }
  if (!sigmoid) return t;
  const char *text = l->stripped ? "sigmoid((log(max(a, 1e-37)) - log(max(1 - a, 1e-37))) * %s)"
                                 : "sigmoid(a * %s)";
  return map(l, arena_printf(x->m->arena, text, by), 1, &t);
}

/* (1 - A) loss + A T^2 (what is between the model and its teacher, both softened); Hinton et al. What
 * the shares of labels leave of 1 is the teacher's, too. */
static Value *distilled(Loss *l, const Row *row, Value *loss) {
  double alpha;
  if (!spec_number(l->s, "distill", 0, 0, 1, &alpha) ||
      !spec_number(l->s, "temperature", 1, 1e-3, 1e6, &l->temperature))
    return NULL;
  if (!spec_text(l->s, "distill"))
    return spec_text(l->s, "temperature") ? (spec_error(l->s, "temperature is of distill"), NULL)
                                          : loss;
  Train *x = l->x;
  Value *labels = taught(l, row), *soft;
  const bool softened = *row->last;
  if (softened)
    l->v = map(l, arena_printf(x->m->arena, "a * %s", num(l, 1 / l->temperature)), 1, &l->v);
  if (strcmp(row->last, "Softmax") == 0) {
    Value *p = l->b->ok ? build1(l->b, "Exp", labels) : labels;
    soft = divergence(l, p, labels, log_softmax(l, l->v, l->axis));
  } else {
    soft = row->fn(l, labels);
  }
  const double t2 = softened ? l->temperature * l->temperature : 1;
  const char *hard = num(l, 1 - alpha),
             *text = x->share
                         ? arena_printf(x->m->arena, "%s * a + %s * (1 - %s * (c + d)) * b", hard,
                                        num(l, t2), hard)
                         : arena_printf(x->m->arena, "%s * a + %s * b", hard, num(l, alpha * t2));
  Value *in[] = {loss, soft, x->share, x->other_share};
  return soft ? map(l, text, x->share ? 4 : 2, in) : NULL;
}

bool train_add_loss(Train *x) {
  static const char *const reductions[] = {"mean", "sum", NULL};
  int reduction;
  const Row *row = find_row(&x->loss);
  if (!row || !find_output(x) ||
      !spec_allows(&x->loss, row->keys, "reduction distill temperature") ||
      !spec_choice(&x->loss, "reduction", reductions, &reduction))
    return false;
  Loss l = {.x = x, .b = &x->b, .s = &x->loss, .sums = reduction == 1};
  l.t = x->output->dtype == DT_F64 ? DT_F64 : DT_F32;
  if (x->output->rank < 1 && *row->last && strcmp(row->last, "Softmax") == 0)
    return spec_error(&x->loss, "the output is a scalar: it has no classes");
  if (strcmp(row->last, "Softmax") == 0 && !find_axis(&l)) return false;
  if (!find_operand(&l, row)) return false;
  add_labels(&l, row->classes);
  l.v = build_cast(&x->b, l.v, l.t);
  Value *loss = labelled(&l, row);
  x->value = loss && x->b.ok ? distilled(&l, row, loss) : NULL;
  return x->value && x->b.ok;
}
