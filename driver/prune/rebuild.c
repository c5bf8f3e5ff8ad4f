/* Samples for weights that make up for what is cut (passes/prune/rebuild.c): the model as it is runs once
 * on them, then in waves what of the cut one lies in front of products whose weights are fitted next. */
#include "driver/prune/pruner.h"

typedef struct Rebuild {
  Pruner *z;
  PruneRelation *r;
  Arena *a;
  PruneFits found, *solved;
  const Samples *from;
  int step, used;         /* of the samples each `step`th, so many */
  PruneSampled **sampled; /* by fit, by sample */
  int first, end;         /* fits of the wave */
} Rebuild;

/* ---- programs ---- */
static void add_output(Model *m, Value *v) {
  vec_push(m->arena, &m->main->outputs, v);
  vec_push(m->arena, &m->main->output_names,
           arena_printf(m->arena, "burin.fit.%d", m->main->outputs.n));
}

static void clear_outputs(Graph *g) { g->outputs.n = g->output_names.n = 0; }

/* What each product reads, and its results, one behind the other. */
static bool show_uncut(Session *s, void *user) {
  const Rebuild *b = user;
  const PruneRelation *r = pruner_relate(s);
  if (!r) return false;
  clear_outputs(s->model->main);
  for (int k = 0; k < b->found.n; k++) {
    const PruneFit *f = &b->found.data[k];
    add_output(s->model, r->slots.data[f->slot].value);
    add_output(s->model, r->slots.data[f->can_be_whole ? f->result : f->slot].value);
  }
  return true;
}

/* What products of the wave read behind all that was fitted before. */
static bool show_wave(Session *s, void *user) {
  const Rebuild *b = user;
  PruneRelation *r = pruner_silenced(s, b->r, b->solved);
  if (!r) return false;
  clear_outputs(s->model->main);
  for (int k = b->first; k < b->end; k++)
    add_output(s->model, r->slots.data[b->found.data[k].slot].value);
  return true;
}

static ConstData tensor(const Tensor *t) {
  return (ConstData){
      .dtype = t->dtype, .rank = t->rank, .dims = t->dims, .count = t->count, .data = t->data};
}

/* ---- the model as it is ---- */
static bool take_targets(Rebuild *b, Runner *run) {
  for (int i = 0; i < b->used; i++) {
    progress_show(b->z->s, "what weights are fitted to", i + 1, b->used);
    if (!runner_run(run, b->from->in[i * b->step], b->z->n_inputs, NULL, 0)) return false;
    for (int k = 0; k < b->found.n; k++) {
      PruneFit *f = &b->found.data[k];
      const ConstData read = tensor(&run->outputs[2 * k]),
                      results = tensor(&run->outputs[2 * k + 1]);
      if (i == 0) prune_fit_begin(f, &read, f->can_be_whole ? &results : NULL, b->used);
      prune_fit_sample(f, b->a, &read, &results, &b->sampled[k][i]);
    }
  }
  return true;
}

static bool run_uncut(Rebuild *b, bool (*take)(Rebuild *b, Runner *run)) {
  Runner run;
  if (!pruner_open(b->z, b->z->file, "compiling what weights are fitted to", show_uncut, b, &run))
    return false;
  const bool ok = take(b, &run);
  runner_close(&run);
  return ok;
}

/* ---- waves ---- */
static void take_sample(Rebuild *b, const Runner *run, int i) {
  Arena *scratch = arena_child(b->a);
  for (int k = b->first; k < b->end; k++) {
    const ConstData read = tensor(&run->outputs[k - b->first]);
    prune_fit_add(&b->found.data[k], scratch, &read, &b->sampled[k][i]);
  }
  arena_free(scratch);
}

static bool take_features(Rebuild *b, Runner *run) {
  for (int i = 0; i < b->used; i++) {
    if (!runner_run(run, b->from->in[i * b->step], b->z->n_inputs, NULL, 0)) return false;
    take_sample(b, run, i);
  }
  return true;
}

static bool run_wave(Rebuild *b) {
  Runner run;
  Arena *scratch = arena_child(b->a);
  progress_show(b->z->s, "rebuilding", b->end, b->found.n);
  bool ok = pruner_open(b->z, b->z->file, "rebuilding", show_wave, b, &run);
  if (ok) {
    for (int k = b->first; k < b->end; k++) prune_fit_open(&b->found.data[k], scratch);
    ok = take_features(b, &run);
    runner_close(&run);
  }
  for (int k = b->first; k < b->end && ok; k++)
    if (prune_fit_solve(b->r, &b->found.data[k])) vec_push(b->r->a, b->solved, b->found.data[k]);
  arena_free(scratch);
  return ok;
}

/* Fits from b->first on that read nothing of each other, or `fewest`. */
static int wave_end(const Rebuild *b, int fewest) {
  bool *reads = ARENA_ARRAY(b->a, bool, b->found.n + 1);
  int end = b->first + 1;
  prune_fit_reaches(b->r, &b->found, b->first, reads);
  while (end < b->found.n && (!reads[end] || end - b->first < fewest)) end++;
  return end;
}

/* Samples for about a minute at most, counted in multiply-adds: those of all that lies in front of each fit,
 * where it takes a program of its own. */
static void choose_samples(Rebuild *b, bool waves) {
  enum { FEWEST = 16, MOST = 256 };
  static const double most_macs = 1.5e12;
  const double *work = pruner_macs(b->z, b->r);
  double before = 0, all = 1;
  for (int i = 0, k = 0; i < b->r->n_nodes; i++) {
    for (; waves && k < b->found.n && b->r->products.data[b->found.data[k].product].node == i; k++)
      all += before;
    before += work[i];
  }
  const double n = most_macs / (all + before);
  const int most = n < FEWEST ? FEWEST : n > MOST ? MOST : (int)n;
  b->step = b->from->n > most ? b->from->n / most : 1;
  b->used = (b->from->n + b->step - 1) / b->step;
}

static bool has_samples(Rebuild *b) {
  b->from = b->z->tune.n ? &b->z->tune : &b->z->test;
  return !b->z->made_up && b->from->n > 0;
}

bool pruner_rebuild(Pruner *z, PruneRelation *r, PruneFits *fits) {
  enum { MOST_WAVES = 32 };
  Rebuild b = {.z = z, .r = r, .solved = fits, .a = arena_child(r->a)};
  if (!has_samples(&b)) return true;
  prune_find_fits(r, &b.found);
  if (b.found.n == 0) return true;
  choose_samples(&b, true);
  b.sampled = ARENA_ARRAY(b.a, PruneSampled *, b.found.n);
  for (int k = 0; k < b.found.n; k++) b.sampled[k] = ARENA_ARRAY(b.a, PruneSampled, b.used);
  bool ok = run_uncut(&b, take_targets);
  for (; b.first < b.found.n && ok; b.first = b.end) {
    b.end = wave_end(&b, (b.found.n + MOST_WAVES - 1) / MOST_WAVES);
    ok = run_wave(&b);
  }
  prune_rebuild(r, fits);
  arena_free(b.a);
  return ok;
}

/* ---- importance ---- */
static bool take_readings(Rebuild *b, Runner *run) {
  for (int i = 0; i < b->used; i++) {
    Arena *scratch = arena_child(b->a);
    progress_show(b->z->s, "what products read", i + 1, b->used);
    if (!runner_run(run, b->from->in[i * b->step], b->z->n_inputs, NULL, 0)) return false;
    for (int k = 0; k < b->found.n; k++) {
      PruneFit *f = &b->found.data[k];
      PruneSampled here;
      const ConstData read = tensor(&run->outputs[2 * k]),
                      results = tensor(&run->outputs[2 * k + 1]);
      if (i == 0) {
        prune_fit_begin(f, &read, f->can_be_whole ? &results : NULL, b->used);
        prune_fit_open(f, b->a);
      }
      prune_fit_sample(f, scratch, &read, &results, &here);
      prune_fit_add(f, scratch, &read, &here);
    }
    arena_free(scratch);
  }
  return true;
}

bool pruner_score_reconstruction(Pruner *z, PruneRelation *r) {
  Rebuild b = {.z = z, .r = r, .a = arena_child(r->a)};
  prune_score_magnitude(r, PRUNE_L2); /* of what no product of these reads */
  if (!has_samples(&b)) return true;
  prune_find_readings(r, &b.found);
  choose_samples(&b, false);
  if (b.found.n > 0 && !run_uncut(&b, take_readings)) return false;
  for (int k = 0; k < r->groups.n; k++) {
    progress_show(z->s, "what others can stand for", k + 1, r->groups.n);
    prune_score_reconstruction(r, &b.found, k);
  }
  arena_free(b.a);
  return true;
}
