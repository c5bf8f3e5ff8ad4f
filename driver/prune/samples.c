/* Samples of pruning, one a call: those of --data, of which a part is kept to measure, or random ones. */
#include <stdlib.h>
#include <string.h>
#include "driver/prune/pruner.h"

/* ---- random ones ---- */
static uint64_t next_random(uint64_t *state) { /* xorshift64* (Vigna, 2016) */
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1d;
}

static double random_real(uint64_t *state) { /* in [-1, 1) */
  return (double)(int64_t)(next_random(state) >> 11) * 0x1p-52 - 1;
}

/* Floats in [-1, 1). Of integers the first sample has ones, as a mask lets all through, the others ones and
 * zeros; or all have zeros. */
static void make_sample(Pruner *z, bool zeros) {
  uint64_t state = 1 + 0x9e3779b97f4a7c15u * (uint64_t)(z->test.n + 1);
  Tensor *t = ARENA_ARRAY(z->s->arena, Tensor, z->n_inputs + 1);
  for (int i = 0; i < z->n_inputs; i++) {
    const DType type = z->inputs[i].dtype;
    const int size = dtype_bytes(type);
    t[i] = (Tensor){.dtype = type, .rank = z->inputs[i].rank, .count = 1};
    for (int d = 0; d < t[i].rank; d++) t[i].count *= t[i].dims[d] = z->inputs[i].dims[d];
    char *data = t[i].data = arena_alloc(z->s->arena, (size_t)(t[i].count * size) + 64);
    for (int64_t k = 0; k < t[i].count; k++) {
      const double v = random_real(&state);
      if (dtype_is_float(type))
        dtype_store_f(type, data + k * size, v);
      else if (!zeros)
        dtype_store_i(type, data + k * size, z->test.n == 0 || v > 0);
    }
  }
  z->test.in[z->test.n++] = t;
}

/* Each choice of sizes with both kinds of integers. */
static bool make_samples(Pruner *z, Model *m, int attempt) {
  enum { COUNT = 3 };
  if (!pruner_try_sizes(z, m, attempt / 2)) return false;
  z->test = (Samples){.in = ARENA_ARRAY(z->s->arena, Tensor *, COUNT)};
  for (int k = 0; k < COUNT; k++) make_sample(z, attempt % 2);
  return z->made_up = true;
}

/* Nothing is said where it does not. */
static bool runs(Pruner *z, Runner *r) {
  Session quiet = *z->s;
  bool ok = true;
  quiet.diag = diag_new(z->s->arena);
  r->s = &quiet;
  for (int k = 0; k < z->test.n && ok; k++) ok = runner_run(r, z->test.in[k], z->n_inputs, NULL, 0);
  r->s = z->s;
  return ok;
}

bool pruner_fit_random(Pruner *z, Model *m, Runner *r) {
  int attempt = 0;
  while (!runs(z, r))
    if (!make_samples(z, m, ++attempt)) return make_samples(z, m, 0);
  return true;
}

/* ---- without labels ---- */
static bool plain_samples(Pruner *z) {
  enum { MOST_SAMPLES = 10000 };
  Dataset d;
  const char *path = z->s->o->data;
  if (strchr(path, ','))
    return usage_error("--data: options such as scale=X are of samples with --labels=NAME"), false;
  if (!dataset_read(z->s, path, NULL, MOST_SAMPLES, z->n_inputs, z->inputs, NULL, &d)) return false;
  z->test = (Samples){.n = d.samples.n, .in = d.samples.data};
  return true;
}

/* ---- with labels ---- */
static bool add_loss(Session *s, void *user) { return pruner_add_loss(user, s) != NULL; }

static void take_rows(Pruner *z, const TrainData *d, const int64_t *rows, int64_t n, Samples *out) {
  out->in = ARENA_ARRAY(z->s->arena, Tensor *, n + 1);
  out->labels = z->by_loss ? NULL : ARENA_ARRAY(z->s->arena, int64_t, n + 1);
  out->n = (int)n;
  for (int64_t k = 0; k < n; k++) {
    Tensor *t = out->in[k] = data_batch_new(z->s->arena, d, NULL, 1);
    data_batch(d, &rows[k], 1, t);
    if (out->labels) out->labels[k] = (int64_t)tensor_element(&t[z->n_inputs], 0);
  }
}

static bool fit(Pruner *z, const BurinModel *m, int64_t classes, TrainData *d) {
  const char *labels = z->s->o->labels;
  if (!data_fit(z->s, labels, m, z->n_inputs, d) ||
      !data_check_classes(z->s, d, classes, loss_ignored(z->loss)))
    return false;
  const TrainArray *y = &d->arrays[z->n_inputs];
  z->by_loss = !z->classes || y->outer * y->inner != 1;
  return d->fixed_batch <= 1 ||
         dataset_error(z->s, d->path, labels,
                       "the model takes several samples at a time: give its input another size "
                       "with --shape");
}

/* As `burin train` would split them, so that what is measured is not trained with. others: of their own
 * file, or NULL. */
static bool split_samples(Pruner *z, Runner *original, int64_t classes, double part, TrainData *d,
                          TrainData *others) {
  const BurinModel *m = original->lib.model;
  int64_t seed = 0;
  const char *text = z->s->o->seed;
  if ((text && !args_number("--seed", text, 0, INT32_MAX, &seed)) || !fit(z, m, classes, d))
    return false;
  int64_t *rows = ARENA_ARRAY(z->s->arena, int64_t, d->samples + 1);
  const int64_t kept = data_split(seed, part, d->samples, rows);
  z->held = part;
  take_rows(z, d, rows + kept, d->samples - kept, &z->tune);
  z->labelled = !z->by_loss;
  if (!pruner_choose_augment(z, original, d, rows + kept, d->samples - kept)) return false;
  if (kept) take_rows(z, d, rows, kept, &z->test);
  if (!kept && !others) z->test = z->tune;
  if (!others) return true;
  if (!fit(z, m, classes, others)) return false;
  rows = ARENA_ARRAY(z->s->arena, int64_t, others->samples + 1);
  for (int64_t k = 0; k < others->samples; k++) rows[k] = k;
  return take_rows(z, others, rows, others->samples, &z->test), true;
}

/* Classes that the output tells apart; INT64_MAX: not known, or labels are none. */
static int64_t class_count(const Pruner *z, const Model *m) {
  const Value *v = m->main->outputs.data[z->loss_output];
  int64_t n;
  int axis = v->rank > 1 ? loss_class_axis(z->loss) : 0;
  if (axis < 0) axis += v->rank;
  return z->classes && axis < v->rank && expr_is_const(v->dims[axis], &n) ? n : INT64_MAX;
}

static bool labelled_samples(Pruner *z, const Model *m) {
  const Options *o = z->s->o;
  TrainData d, others;
  Runner r;
  double part;
  const char *file;
  if (!data_validation(o->validation, z->epochs > 0 ? 0.1 : 0, &part, &file) ||
      !data_open(z->s, o->data, o->labels, &d) ||
      (file && !data_open(z->s, data_like(z->s->arena, file, o->data), o->labels, &others)))
    return false;
  pruner_choose_loss(z, d.labels->dtype);
  if (!pruner_open(z, z->original, "compiling the loss", add_loss, z, &r)) return false;
  const bool ok = split_samples(z, &r, class_count(z, m), part, &d, file ? &others : NULL);
  runner_close(&r);
  return ok;
}

bool pruner_read_samples(Pruner *z, Model *m) {
  const Graph *g = m->main;
  z->n_inputs = g->inputs.n;
  z->n_outputs = g->outputs.n;
  z->inputs = dataset_inputs(z->s, g, "prune");
  if (!z->inputs) return false;
  if (z->s->o->labels) return labelled_samples(z, m);
  return z->s->o->data ? plain_samples(z) : make_samples(z, m, 0);
}
