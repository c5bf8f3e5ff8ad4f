/* What is measured of models while they are pruned: how right and how fast they are, which weights
 * matter, and whether a cut did what it should. */
#include <math.h>
#include <string.h>
#include "driver/prune/pruner.h"
#include "driver/session/work.h"

/* ---- samples ---- */
static uint64_t next_random(uint64_t *state) { /* xorshift64* (Vigna, 2016) */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1d;
}

/* Without data: floats in [-1, 1), zeros in integers; two samples where their number is open, and a size
 * that windows, and most that must divide it, fit into where others are. */
static void make_sample(Pruner *z) {
  enum { BATCH = 2, OTHER = 224 };
  uint64_t state = 1 + 0x9e3779b97f4a7c15u * (uint64_t)(z->data.samples.n + 1);
  Tensor *t = ARENA_ARRAY(z->s->arena, Tensor, z->n_inputs + 1);
  for (int i = 0; i < z->n_inputs; i++) {
    t[i] = (Tensor){.dtype = z->inputs[i].dtype, .rank = z->inputs[i].rank, .count = 1};
    for (int d = 0; d < t[i].rank; d++)
      t[i].count *= t[i].dims[d] = z->inputs[i].dims[d] >= 0 ? z->inputs[i].dims[d]
                                   : d == 0 && t[i].rank > 1 ? BATCH
                                                             : OTHER;
    const int size = dtype_bytes(t[i].dtype);
    char *data = arena_alloc(z->s->arena, (size_t)(t[i].count * size) + 64);
    for (int64_t k = 0; k < t[i].count && dtype_is_float(t[i].dtype); k++)
      dtype_store_f(t[i].dtype, data + k * size,
                    (double)(int64_t)(next_random(&state) >> 11) * 0x1p-52 - 1);
    t[i].data = data;
  }
  vec_push(z->s->arena, &z->data.samples, t);
}

bool pruner_read_samples(Pruner *z, const Model *m) {
  enum { MOST_SAMPLES = 10000, MADE_UP = 3 };
  const Graph *g = m->main;
  z->n_inputs = g->inputs.n;
  z->n_outputs = g->outputs.n;
  z->inputs = ARENA_ARRAY(z->s->arena, DataInput, g->inputs.n + 1);
  for (int k = 0; k < g->inputs.n; k++) {
    const Value *v = g->inputs.data[k];
    int64_t *dims = ARENA_ARRAY(z->s->arena, int64_t, v->rank > 0 ? v->rank : 1);
    if (graph_list(g, k, false) || v->dtype == DT_STR)
      return usage_error("input %s is no tensor of numbers: such models are not pruned", v->name),
             false;
    for (int d = 0; d < v->rank; d++)
      if (!expr_is_const(v->dims[d], &dims[d])) dims[d] = -1;
    z->inputs[k] = (DataInput){v->name, v->dtype, v->rank, dims};
  }
  if (z->s->o->data)
    return dataset_read(z->s, z->s->o->data, z->s->o->labels, MOST_SAMPLES, z->n_inputs, z->inputs,
                        NULL, &z->data);
  z->made_up = true;
  for (int k = 0; k < MADE_UP; k++) make_sample(z);
  return true;
}

/* ---- programs ---- */
typedef bool (*ModelEdit)(Session *s, void *user);
typedef struct Program {
  ModelEdit edit;
  void *user;
} Program;

static bool edit_read(Session *s, void *user) {
  const Program *p = user;
  return p->edit(s, p->user);
}

static bool open_program(Pruner *z, const char *file, const char *what, ModelEdit edit, void *user,
                         Runner *out) {
  Library lib;
  Program p = {edit, user};
  progress_show(z->s, what, 0, 0);
  z->status = edit ? library_compile_read(&z->options, file, edit_read, &p, &lib)
                   : library_compile(&z->options, file, NULL, NULL, &lib);
  return z->status == EXIT_OK && runner_open(z->s, &lib, 1, out);
}

static int64_t label_of(const Pruner *z, int k) { return z->data.labels ? z->data.labels[k] : -1; }

static bool take_outputs(Pruner *z, const Runner *r, Tensor **out) {
  *out = ARENA_ARRAY(z->s->arena, Tensor, z->n_outputs + 1);
  for (int k = 0; k < z->n_outputs; k++) {
    (*out)[k] = r->outputs[k];
    (*out)[k].data =
        arena_dup(z->s->arena, r->outputs[k].data,
                  (size_t)r->outputs[k].count * (size_t)dtype_bytes(r->outputs[k].dtype));
  }
  return true;
}

bool pruner_take_reference(Pruner *z) {
  Runner r;
  bool ok = true;
  if (!open_program(z, z->original, "compiling the original", NULL, NULL, &r)) return false;
  z->reference = ARENA_ARRAY(z->s->arena, Tensor *, z->data.samples.n + 1);
  for (int k = 0; k < z->data.samples.n && ok; k++)
    ok = runner_run(&r, z->data.samples.data[k], z->n_inputs, NULL, 0) &&
         take_outputs(z, &r, &z->reference[k]);
  runner_close(&r);
  return ok;
}

static bool measure_time(Pruner *z, Runner *r, double *us) {
  double *kernels = ARENA_ARRAY(z->s->arena, double, r->lib.model->n_kernels + 1);
  *us = 0;
  if (!runner_profile(r, z->data.samples.data[0], z->n_inputs, kernels)) return false;
  for (int k = 0; k < r->lib.model->n_kernels; k++) *us += kernels[k];
  return true;
}

bool pruner_measure(Pruner *z, const char *file, Figures *out) {
  Runner r;
  bool ok = true;
  out->score = (Score){0};
  if (!open_program(z, file, "compiling", NULL, NULL, &r)) return false;
  for (int k = 0; k < z->data.samples.n && ok; k++) {
    progress_show(z->s, "measuring", k + 1, z->data.samples.n);
    ok = runner_run(&r, z->data.samples.data[k], z->n_inputs, NULL, 0);
    if (ok) score_add(&out->score, r.outputs, z->reference[k], z->n_outputs, label_of(z, k));
  }
  ok = ok && measure_time(z, &r, &out->us);
  runner_close(&r);
  return ok;
}

/* ---- work ---- */
static Scalar one(void *user, int id) {
  (void)user;
  (void)id;
  return (Scalar){.i = 1};
}

/* Multiply-adds of each node, with unknown sizes as 1. */
double *pruner_work(const PruneRelation *r, const Pruner *z) {
  const Graph *g = r->m->main;
  double *work = ARENA_ARRAY(r->a, double, g->nodes.n + 1);
  EvalEnv env = {.sym = one};
  (void)z;
  for (int i = 0; i < g->nodes.n; i++) {
    const Expr *e = node_work(r->m, g->nodes.data[i]);
    work[i] = e && !(e->flags & ~EXF_SYM) ? (double)expr_eval(r->m->pool, e, &env).i : 0;
  }
  return work;
}

/* ---- importance ---- */
static const Loc here = {.node = -1, .node_name = "loss"};

static Value *before_softmax(Value *v) {
  const Node *n = v->def;
  return n && (strcmp(n->op->name, "Softmax") == 0 || strcmp(n->op->name, "LogSoftmax") == 0)
             ? n->in[0]
             : v;
}

/* Cross-entropy of the first output and labels, which become an input. */
static Value *add_loss(Model *m) {
  Build b = {.m = m, .g = m->main, .loc = &here, .ok = true};
  Value *scores = before_softmax(m->main->outputs.data[0]), *labels = value_new(m, "burin.labels");
  const Expr *dims[MAX_RANK];
  if (scores->rank < 2 || !dtype_is_float(scores->dtype)) return NULL;
  for (int d = 1; d < scores->rank; d++) dims[d - 1] = scores->dims[d == 1 ? 0 : d];
  value_set_tensor(m, labels, DT_I64, scores->rank - 1, dims);
  vec_push(m->arena, &m->main->inputs, labels);
  Value *in[] = {scores, labels};
  const Attr sum = attr_string(m->arena, "reduction", "sum");
  Value *loss = build_op(&b, "SoftmaxCrossEntropyLoss", 2, in, 1, &sum);
  return b.ok ? loss : NULL;
}

typedef struct Observe {
  bool each;
  int n_products;
} Observe;

static bool observe(Session *s, void *user) {
  Observe *p = user;
  PruneRelation *r = pruner_relate(s);
  if (!r) return false;
  Value *loss = add_loss(s->model);
  const Loc loc = {.file = s->file, .node = -1};
  if (!loss)
    return diag_error(s->diag, &loc, ERR_UNSUPPORTED,
                      "the first output is no table of a score per class: --importance=magnitude "
                      "needs no loss");
  p->n_products = r->products.n;
  return prune_observe(r, loss, p->each);
}

/* Adds one sample: magnitudes, or squares. */
static void add_sample(const Pruner *z, const PruneRelation *r, const Runner *run, double **sums) {
  for (int k = 0; k < r->products.n; k++) {
    const float *v = run->outputs[z->n_outputs + k].data;
    const int64_t n = prune_size(r, r->products.data[k].slot, r->products.data[k].dim);
    for (int64_t i = 0; i < n; i++)
      sums[k][i] += z->importance == IMPORTANCE_FISHER ? (double)v[i] * v[i] : (double)v[i];
  }
}

static bool labels_fit(const Pruner *z) {
  const Loc loc = {.file = z->data.path, .node = -1, .node_name = z->s->o->labels};
  const Tensor *scores = &z->reference[0][0];
  const int64_t classes = scores->rank > 1 ? scores->dims[1] : 0;
  for (int k = 0; k < z->data.samples.n; k++)
    if (z->data.labels[k] < 0 || z->data.labels[k] >= classes)
      return diag_error(z->s->diag, &loc, ERR_DATA,
                        "label %lld of sample %d is no class: the model tells %lld apart",
                        (long long)z->data.labels[k], k, (long long)classes);
  return true;
}

bool pruner_score(Pruner *z, PruneRelation *r) {
  enum { MOST = 512 };
  Runner run;
  Observe p = {.each = z->importance == IMPORTANCE_GRADIENT};
  if (z->importance == IMPORTANCE_MAGNITUDE) return prune_score_magnitude(r, PRUNE_L2), true;
  if (!labels_fit(z) || !open_program(z, z->file, "compiling gradients", observe, &p, &run))
    return false;
  double **sums = ARENA_ARRAY(r->a, double *, r->products.n + 1);
  bool ok = p.n_products == r->products.n;
  for (int k = 0; k < r->products.n; k++)
    sums[k] = ARENA_ARRAY(r->a, double,
                          prune_size(r, r->products.data[k].slot, r->products.data[k].dim) + 1);
  const int n = z->data.samples.n, step = n > MOST ? n / MOST : 1;
  for (int k = 0; k < n && ok; k += step) {
    const void *label = &z->data.labels[k];
    progress_show(z->s, "gradients", k + 1, n);
    ok = runner_run(&run, z->data.samples.data[k], z->n_inputs, &label, 1);
    if (ok) add_sample(z, r, &run, sums);
  }
  runner_close(&run);
  if (ok) prune_score_observed(r, (const double *const *)sums);
  return ok;
}

/* ---- checking a cut ---- */
static bool silence(Session *s, void *user) {
  const PruneRelation *done = user;
  PruneRelation *r = pruner_relate(s);
  const Loc loc = {.file = s->file, .node = -1};
  if (!r) return false;
  if (r->units.n != done->units.n || r->n_atoms != done->n_atoms)
    return diag_internal(s->diag, &loc, "the model was read differently the second time");
  for (int k = 0; k < r->units.n; k++) r->units.data[k].gone = done->units.data[k].gone;
  prune_silence(r);
  return true;
}

static void compare(const Tensor *got, const Tensor *want, double *worst) {
  double largest = 1e-6, error = 0;
  if (!dtype_is_float(want->dtype)) return;
  for (int64_t i = 0; i < want->count; i++) {
    const double w = tensor_element(want, i), g = tensor_element(got, i);
    if (isfinite(w)) largest = fmax(largest, fabs(w));
    if (!(isnan(w) && isnan(g)) && w != g)
      error = fmax(error, isfinite(g - w) ? fabs(g - w) : INFINITY);
  }
  *worst = fmax(*worst, error / largest);
}

bool pruner_check(Pruner *z, const PruneRelation *r, const char *file, double *difference) {
  enum { MOST = 3 };
  static const double near = 1e-3;
  Runner cut, silent;
  const Loc loc = {.file = z->original, .node = -1};
  const int n = z->data.samples.n < MOST ? z->data.samples.n : MOST;
  double worst = 0;
  if (!open_program(z, file, "checking", NULL, NULL, &cut)) return false;
  if (!open_program(z, z->file, "checking", silence, (void *)(uintptr_t)r, &silent))
    return runner_close(&cut), false;
  bool ok = true;
  for (int k = 0; k < n && ok; k++) {
    ok = runner_run(&cut, z->data.samples.data[k], z->n_inputs, NULL, 0) &&
         runner_run(&silent, z->data.samples.data[k], z->n_inputs, NULL, 0);
    for (int i = 0; i < z->n_outputs && ok; i++)
      compare(&cut.outputs[i], &silent.outputs[i], &worst);
  }
  runner_close(&cut);
  runner_close(&silent);
  *difference = worst;
  return ok && (worst <= near ||
                diag_internal(z->s->diag, &loc,
                              "the model without the channels computes something else than with "
                              "them silenced: relative difference %.3g",
                              worst));
}
