/* What products read of the samples, for weights that make up for what is cut (passes/prune/rebuild.c). */
#include "driver/prune/pruner.h"
#include "driver/session/work.h"

typedef struct Reading {
  const PruneFits *fits;
  int *output; /* by fit, behind the model's own: what it reads */
  int n;
} Reading;

static bool show(Session *s, void *user) {
  Reading *p = user;
  Model *m = s->model;
  const PruneRelation *r = pruner_relate(s);
  if (!r) return false;
  for (int k = 0; k < p->fits->n; k++) {
    const int slot = p->fits->data[k].slot;
    int same = 0;
    while (p->fits->data[same].slot != slot) same++;
    p->output[k] = same < k ? p->output[same] : p->n++;
    if (same < k) continue;
    vec_push(m->arena, &m->main->outputs, r->slots.data[slot].value);
    vec_push(m->arena, &m->main->output_names,
             arena_printf(m->arena, "burin.read.%d", p->output[k]));
  }
  return true;
}

/* Enough places for the factors of each, of all samples together. */
static int64_t places_of(const PruneFit *f, int64_t samples) {
  enum { FEWEST = 8192, EACH = 16 };
  const int64_t all = EACH * (int64_t)(f->n_stay + f->n_gone);
  return (all < FEWEST ? FEWEST : all) / samples + 1;
}

static bool read_samples(Pruner *z, const Samples *from, const Reading *p, PruneFits *fits,
                         Runner *run) {
  enum { MOST = 256 };
  const int step = from->n > MOST ? from->n / MOST : 1, used = (from->n + step - 1) / step;
  for (int k = 0; k < from->n; k += step) {
    progress_show(z->s, "rebuilding", k + 1, from->n);
    if (!runner_run(run, from->in[k], z->n_inputs, NULL, 0)) return false;
    for (int q = 0; q < fits->n; q++) {
      const Tensor *t = &run->outputs[z->n_outputs + p->output[q]];
      const ConstData read = {
          .dtype = t->dtype, .rank = t->rank, .dims = t->dims, .count = t->count, .data = t->data};
      prune_fit_add(&fits->data[q], &read, places_of(&fits->data[q], used));
    }
  }
  return true;
}

bool pruner_rebuild(Pruner *z, PruneRelation *r, PruneFits *fits) {
  const Samples *from = z->tune.n ? &z->tune : &z->test;
  Runner run;
  PruneFits found = {0};
  if (z->made_up || from->n == 0) return true;
  prune_find_fits(r, &found);
  if (found.n == 0) return true;
  Reading p = {.fits = &found, .output = ARENA_ARRAY(r->a, int, found.n)};
  if (!pruner_open(z, z->file, "compiling for what products read", show, &p, &run)) return false;
  const bool ok = read_samples(z, from, &p, &found, &run);
  runner_close(&run);
  for (int k = 0; k < found.n && ok; k++)
    if (prune_fit_solve(&found.data[k])) vec_push(r->a, fits, found.data[k]);
  prune_rebuild(r, fits);
  return ok;
}
