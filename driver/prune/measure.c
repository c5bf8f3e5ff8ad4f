/* What is measured of models while they are pruned: how right and how fast they are, which weights
 * matter, and whether a cut did what it should. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "driver/prune/pruner.h"
#include "driver/session/work.h"
#include "passes/ptq/ptq.h"

/* ---- programs ---- */
bool pruner_open(Pruner *z, const char *file, const char *what, GraphEdit edit, void *user,
                 Runner *out) {
  Library lib;
  progress_show(z->s, what, 0, 0);
  z->status = edit ? library_compile_read(&z->options, file, edit, user, &lib)
                   : library_compile(&z->options, file, NULL, NULL, &lib);
  return z->status == EXIT_OK && runner_open(z->s, &lib, 1, out);
}

static int64_t label_of(const Samples *s, int k) { return s->labels ? s->labels[k] : -1; }

bool pruner_take_reference(Pruner *z) {
  Runner r;
  bool ok = true;
  if (!pruner_open(z, z->original, "compiling the original", NULL, NULL, &r)) return false;
  if (z->made_up) ok = pruner_fit_random(z, z->s->model, &r);
  z->reference = ARENA_ARRAY(z->s->arena, Tensor *, z->test.n + 1);
  for (int k = 0; k < z->test.n && ok; k++) {
    ok = runner_run(&r, z->test.in[k], z->n_inputs, NULL, 0);
    if (ok) z->reference[k] = runner_copy_outputs(&r, z->n_outputs);
  }
  ok = ok && pruner_find_temperature(z, &r);
  runner_close(&r);
  return ok;
}

static void note_kernel(Pruner *z, const BurinKernelInfo *info, double us, Figures *out) {
  Arena *a = z->s->arena;
  out->us += us;
  if (ends_with(info->name, "_sparse"))
    vec_push(a, &out->sparse,
             (SparseKernel){arena_strdup(a, info->name), arena_strdup(a, info->nodes), us});
}

static bool measure_time(Pruner *z, Runner *r, Figures *out) {
  const BurinModel *m = r->lib.model;
  double *kernels = ARENA_ARRAY(z->s->arena, double, m->n_kernels + 1);
  out->us = out->sparse.n = 0;
  if (!runner_profile(r, z->test.in[0], z->n_inputs, kernels)) return false;
  for (int k = 0; k < m->n_kernels; k++) note_kernel(z, &m->kernels[k], kernels[k], out);
  return true;
}

/* The output that labels are of comes first. */
static const Tensor *scored_first(const Pruner *z, const Tensor *outputs) {
  Tensor *own = arena_dup(z->s->arena, outputs, sizeof *own * (size_t)(z->n_outputs + 1));
  own[0] = outputs[z->loss_output];
  own[z->loss_output] = outputs[0];
  return own;
}

bool pruner_measure(Pruner *z, const char *file, Figures *out) {
  Runner r;
  bool ok = true;
  out->score = (Score){0};
  if (!pruner_open(z, file, "compiling", NULL, NULL, &r)) return false;
  for (int k = 0; k < z->test.n && ok; k++) {
    progress_show(z->s, "measuring", k + 1, z->test.n);
    ok = runner_run(&r, z->test.in[k], z->n_inputs, NULL, 0);
    if (ok)
      score_add(&out->score, scored_first(z, r.outputs), scored_first(z, z->reference[k]),
                z->n_outputs, label_of(&z->test, k));
  }
  ok = ok && measure_time(z, &r, out);
  runner_close(&r);
  return ok && pruner_measure_loss(z, file, &out->loss);
}

/* ---- work ---- */
static Scalar known_size(void *user, int id) { return (Scalar){.i = ((const int64_t *)user)[id]}; }

/* By symbol: as in the first sample, but 1 of what comes first, as a rule samples, and what is not known. */
static int64_t *sample_sizes(const Pruner *z, const Model *m) {
  const int n = expr_symbol_count(m->pool);
  int64_t *sizes = ARENA_ARRAY(m->arena, int64_t, n + 1);
  for (int k = 0; k < n; k++) sizes[k] = 1;
  for (int i = 0; z->test.n && i < z->n_inputs; i++)
    for (int d = 1; d < z->test.in[0][i].rank; d++) {
      const Expr *e = m->main->inputs.data[i]->dims[d];
      if (e->op == EX_SYM) sizes[e->id] = z->test.in[0][i].dims[d];
    }
  return sizes;
}

double *pruner_macs(const Pruner *z, const PruneRelation *r) {
  const Graph *g = r->m->main;
  double *work = ARENA_ARRAY(r->a, double, g->nodes.n + 1);
  EvalEnv env = {.sym = known_size, .user = sample_sizes(z, r->m)};
  for (int i = 0; i < g->nodes.n; i++) work[i] = node_work_at(r->m, g->nodes.data[i], &env);
  return work;
}

/* Nodes are numbered in their names, which kernels hand on. */
static bool number_nodes(Session *s, void *user) {
  const PruneRelation *r = pruner_relate(s);
  (void)user;
  for (int i = 0; r && i < s->model->main->nodes.n; i++) {
    Node *n = s->model->main->nodes.data[i];
    Loc *loc = arena_dup(s->arena, n->loc ? n->loc : &(Loc){.node = -1}, sizeof *loc);
    loc->node_name = arena_printf(s->arena, "%s" QUANT_LAYER_MARK "%d]",
                                  loc->node_name ? loc->node_name : "", i);
    loc->also = NULL;
    if (n->op->flags & OF_CONTRACTION) n->loc = loc;
  }
  return r != NULL;
}

/* Nodes of one kernel share its time as they do its multiply-adds; one without any goes to all. */
static void share_time(const char *names, double us, const double *macs, int n_nodes, double *out) {
  double sum = 0;
  for (int pass = 0; pass < 2; pass++)
    for (const char *at = names; at && (at = strstr(at, QUANT_LAYER_MARK)) != NULL;) {
      at += strlen(QUANT_LAYER_MARK);
      const long k = strtol(at, NULL, 10);
      if (k < 0 || k >= n_nodes) continue;
      if (pass == 0)
        sum += macs[k];
      else if (sum > 0)
        out[k] += us * macs[k] / sum;
    }
}

double *pruner_times(Pruner *z, const PruneRelation *r) {
  const int n = r->m->main->nodes.n;
  const double *macs = pruner_macs(z, r);
  double *us = ARENA_ARRAY(r->a, double, n + 1);
  Runner run;
  if (!pruner_open(z, z->file, "compiling for times", number_nodes, NULL, &run)) return NULL;
  const BurinModel *m = run.lib.model;
  double *kernels = ARENA_ARRAY(r->a, double, m->n_kernels + 1);
  const bool ok = runner_profile(&run, z->test.in[0], z->n_inputs, kernels);
  for (int k = 0; k < m->n_kernels && ok; k++)
    share_time(m->kernels[k].nodes, kernels[k], macs, n, us);
  runner_close(&run);
  return ok ? us : NULL;
}

/* ---- importance ---- */
typedef struct Observe {
  Pruner *z;
  bool each, elements;
  int n_products;
} Observe;

static bool observe(Session *s, void *user) {
  Observe *p = user;
  PruneRelation *r = pruner_relate(s);
  PruneWeights weights = {0};
  if (!r) return false;
  if (p->elements) {
    prune_find_weights(r, pruner_macs(p->z, r), &weights);
    prune_observe_elements(r, &weights);
  }
  Value *loss = pruner_add_loss(p->z, s);
  if (!loss) return false;
  p->n_products = r->products.n;
  return prune_observe(r, loss, p->each);
}

static int64_t observed_count(const PruneRelation *r, int product) {
  const PruneProduct *p = &r->products.data[product];
  return p->dim < 0 ? r->slots.data[p->slot].value->cdata->count : prune_size(r, p->slot, p->dim);
}

/* Adds one sample: magnitudes, or squares. */
static void add_sample(const Pruner *z, const PruneRelation *r, const Runner *run, double **sums) {
  for (int k = 0; k < r->products.n; k++) {
    const float *v = run->outputs[z->n_outputs + k].data;
    const int64_t n = observed_count(r, k);
    for (int64_t i = 0; i < n; i++)
      sums[k][i] += z->importance == IMPORTANCE_FISHER ? (double)v[i] * v[i] : (double)v[i];
  }
}

/* Gradients want to know all sizes: those of the first sample. */
static void fix_shapes(Pruner *z) {
  Options *o = &z->options;
  const int given = z->s->o->shapes.n;
  const char **list = ARENA_ARRAY(z->s->arena, const char *, given + z->n_inputs + 1);
  for (int k = 0; k < given; k++) list[k] = z->s->o->shapes.v[k];
  o->shapes = (List){list, given};
  for (int i = 0; i < z->n_inputs; i++) {
    const Tensor *t = &z->tune.in[0][i];
    StrBuf b = {.arena = z->s->arena};
    sb_printf(&b, "%s=", z->inputs[i].name);
    for (int d = 0; d < t->rank; d++) sb_printf(&b, "%s%lld", d ? "x" : "", (long long)t->dims[d]);
    if (t->rank) list[o->shapes.n++] = sb_str(&b);
  }
}

static bool same_shapes(const Pruner *z, const Tensor *a, const Tensor *b) {
  for (int i = 0; i < z->n_inputs; i++)
    if (memcmp(a[i].dims, b[i].dims, sizeof *a->dims * (size_t)a[i].rank) != 0) return false;
  return true;
}

static bool open_gradients(Pruner *z, Observe *p, Runner *out) {
  const List shapes = z->options.shapes;
  fix_shapes(z);
  const bool ok = pruner_open(z, z->file, "compiling gradients", observe, p, out);
  z->options.shapes = shapes;
  return ok;
}

/* By product, sums over samples. NULL: reported. */
static double **observed(Pruner *z, const PruneRelation *r, bool elements) {
  enum { MOST = 512 };
  Runner run;
  Observe p = {.z = z, .each = z->importance == IMPORTANCE_GRADIENT, .elements = elements};
  if (!open_gradients(z, &p, &run)) return NULL;
  double **sums = ARENA_ARRAY(r->a, double *, r->products.n + 1);
  bool ok = p.n_products == r->products.n;
  for (int k = 0; k < r->products.n; k++)
    sums[k] = ARENA_ARRAY(r->a, double, observed_count(r, k) + 1);
  const int n = z->tune.n, step = n > MOST ? n / MOST : 1;
  for (int k = 0; k < n && ok; k += step) {
    progress_show(z->s, "gradients", k + 1, n);
    if (!same_shapes(z, z->tune.in[k], z->tune.in[0])) continue;
    ok = runner_run(&run, z->tune.in[k], z->n_inputs + 1, NULL, 0);
    if (ok) add_sample(z, r, &run, sums);
  }
  runner_close(&run);
  return ok ? sums : NULL;
}

bool pruner_score(Pruner *z, PruneRelation *r) {
  if (z->importance == IMPORTANCE_MAGNITUDE) return prune_score_magnitude(r, PRUNE_L2), true;
  if (z->importance == IMPORTANCE_RECONSTRUCTION) return pruner_score_reconstruction(z, r);
  double **sums = observed(z, r, false);
  if (sums) prune_score_observed(r, (const double *const *)sums);
  return sums != NULL;
}

bool pruner_score_weights(Pruner *z, PruneRelation *r, PruneWeights *l) {
  if (z->importance == IMPORTANCE_MAGNITUDE) return true;
  prune_observe_elements(r, l);
  double **sums = observed(z, r, true);
  for (int k = 0; k < l->n && sums; k++) l->data[k].observed = sums[k];
  return sums != NULL;
}

/* ---- checking a cut ---- */
PruneRelation *pruner_silenced(Session *s, const PruneRelation *done, const PruneFits *fits) {
  PruneRelation *r = pruner_relate(s);
  const Loc loc = {.file = s->file, .node = -1};
  if (!r) return NULL;
  if (r->units.n != done->units.n || r->n_atoms != done->n_atoms) {
    diag_internal(s->diag, &loc, "the model was read differently the second time");
    return NULL;
  }
  for (int k = 0; k < r->units.n; k++) r->units.data[k].gone = done->units.data[k].gone;
  prune_rebuild(r, fits);
  prune_silence(r);
  return r;
}

typedef struct Silence {
  const PruneRelation *done;
  const PruneFits *fits;
} Silence;

static bool silence(Session *s, void *user) {
  const Silence *p = user;
  return pruner_silenced(s, p->done, p->fits) != NULL;
}

static void compare(const Tensor *got, const Tensor *want, double *worst) {
  double largest = 1e-6, error = 0;
  if (!dtype_is_float(want->dtype)) return;
  if (got->count != want->count) error = INFINITY; /* sizes that data give */
  for (int64_t i = 0; i < want->count && error < INFINITY; i++) {
    const double w = tensor_element(want, i), g = tensor_element(got, i);
    if (isfinite(w)) largest = fmax(largest, fabs(w));
    if (!(isnan(w) && isnan(g)) && w != g)
      error = fmax(error, isfinite(g - w) ? fabs(g - w) : INFINITY);
  }
  *worst = fmax(*worst, error / largest);
}

/* Floats of a sample, each a little more or less. */
static Tensor *moved(const Pruner *z, const Tensor *sample) {
  static const double little = 1e-5;
  Tensor *t = arena_dup(z->s->arena, sample, sizeof *t * (size_t)(z->n_inputs + 1));
  for (int i = 0; i < z->n_inputs; i++) {
    const int bytes = dtype_bytes(t[i].dtype);
    if (!dtype_is_float(t[i].dtype)) continue;
    char *data = t[i].data = arena_dup(z->s->arena, t[i].data, (size_t)(t[i].count * bytes) + 1);
    for (int64_t k = 0; k < t[i].count; k++) {
      const double v = dtype_load_f(t[i].dtype, data + k * bytes);
      dtype_store_f(t[i].dtype, data + k * bytes, v * (1 + little * (double)(k % 3 - 1)));
    }
  }
  return t;
}

/* How far results move with the sample: of a model that rounds or chooses inside far. */
static bool find_own_moves(Pruner *z, Runner *r, const Tensor *sample, double *worst) {
  if (!runner_run(r, sample, z->n_inputs, NULL, 0)) return false;
  const Tensor *before = runner_copy_outputs(r, z->n_outputs);
  if (!runner_run(r, moved(z, sample), z->n_inputs, NULL, 0)) return false;
  for (int i = 0; i < z->n_outputs; i++) compare(&r->outputs[i], &before[i], worst);
  return true;
}

bool pruner_check(Pruner *z, const PruneRelation *r, const PruneFits *fits, const char *file,
                  double *difference) {
  enum { MOST = 3 };
  static const double near = 1e-3;
  Runner cut, silent;
  Silence how = {r, fits};
  const Loc loc = {.file = z->original, .node = -1};
  const int n = z->test.n < MOST ? z->test.n : MOST;
  double worst = 0, own = 0;
  if (!pruner_open(z, file, "checking", NULL, NULL, &cut)) return false;
  if (!pruner_open(z, z->file, "checking", silence, &how, &silent))
    return runner_close(&cut), false;
  bool ok = true;
  for (int k = 0; k < n && ok; k++) {
    ok = runner_run(&cut, z->test.in[k], z->n_inputs, NULL, 0) &&
         runner_run(&silent, z->test.in[k], z->n_inputs, NULL, 0);
    for (int i = 0; i < z->n_outputs && ok; i++)
      compare(&cut.outputs[i], &silent.outputs[i], &worst);
  }
  for (int k = 0; k < n && ok && worst > near; k++)
    ok = find_own_moves(z, &silent, z->test.in[k], &own);
  runner_close(&cut);
  runner_close(&silent);
  *difference = worst;
  return ok && (worst <= fmax(near, own) ||
                diag_internal(z->s->diag, &loc,
                              "the model without the channels computes something else than with "
                              "them silenced: relative difference %.3g",
                              worst));
}
