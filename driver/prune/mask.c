/* --sparsity, --nm: single weights become 0, and are held there while the rest recovers. What a model has
 * of zeros is read from its file, so that nothing is reported which is not in it. */
#include <stdlib.h>
#include <string.h>
#include "driver/prune/pruner.h"
#include "driver/session/work.h"

bool pruner_masks(const Pruner *z) { return z->sparsity > 0 || z->of > 0; }

bool pruner_read_masks(Pruner *z) {
  const Options *o = z->s->o;
  char *end = NULL;
  if (!o->sparsity && !o->nm) return true;
  if (o->channels || (o->sparsity && o->nm))
    return usage_error("--channels, --sparsity and --nm are kinds of pruning: give one of them"),
           false;
  if (o->objective && strcmp(o->objective, "latency") == 0)
    return usage_error("--objective=latency: zeros save no time, kernels multiply them, too"),
           false;
  if (o->sparsity) {
    z->sparsity = strtod(o->sparsity, &end);
    return (end != o->sparsity && !*end && z->sparsity > 0 && z->sparsity <= 0.99) ||
           (usage_error("--sparsity: '%s' is no number above 0, to 0.99", o->sparsity), false);
  }
  enum { MOST = 64 };
  z->keep = strtol(o->nm, &end, 10);
  z->of = *end == ':' ? strtol(end + 1, &end, 10) : 0;
  if (*end || z->keep < 1 || z->of <= z->keep || z->of > MOST)
    return usage_error("--nm: '%s' is no N:M with 1 <= N < M <= %d, such as 2:4", o->nm, MOST),
           false;
  if (o->rounds) return usage_error("--rounds: --nm is done in one"), false;
  z->rounds = 1;
  return true;
}

static bool find_weights(const Pruner *z, Session *s, const char *file, PruneRelation **r,
                         PruneWeights *out) {
  if (!session_target(s) || !session_load(s, file) || !(*r = pruner_relate(s))) return false;
  prune_find_weights(*r, pruner_macs(z, *r), out);
  return true;
}

/* ---- what a file has ---- */
typedef struct Reading {
  Pruner *z;
  const char *file;
  WeightZeros *out;
} Reading;

static WeightZero zeros_of(const Pruner *z, const PruneRelation *r, const PruneWeight *p) {
  Arena *a = z->s->arena;
  WeightZero out = {.name = p->w->name ? arena_strdup(a, p->w->name) : "",
                    .node = node_title(a, r->nodes[p->node]),
                    .count = p->w->count,
                    .zero = ARENA_ARRAY(a, bool, p->w->count + 1)};
  if (z->of && p->dim < 0)
    out.whole = "the dimension that it adds up along is not known";
  else if (z->of && !prune_takes_pattern(p, z->of))
    out.whole = arena_printf(a, "%lld input channels are no multiple of %lld",
                             (long long)p->w->dims[p->dim], (long long)z->of);
  for (int64_t i = 0; i < p->w->count; i++) out.zeros += out.zero[i] = const_float(p->w, i) == 0;
  return out;
}

static int read_body(Session *s, void *user) {
  const Reading *p = user;
  PruneRelation *r;
  PruneWeights l = {0};
  if (!find_weights(p->z, s, p->file, &r, &l)) return session_status(s, p->z->status);
  for (int k = 0; k < l.n; k++) vec_push(p->z->s->arena, p->out, zeros_of(p->z, r, &l.data[k]));
  return EXIT_OK;
}

bool pruner_zeros(Pruner *z, const char *file, WeightZeros *out) {
  Options quiet = z->options;
  Reading p = {z, file, out};
  *out = (WeightZeros){0};
  z->status = session_run(&quiet, read_body, &p);
  return z->status == EXIT_OK;
}

bool pruner_warn_of_masks(Pruner *z) {
  const Loc loc = {.file = z->original, .node = -1};
  int n = 0;
  for (int k = 0; k < z->weights.n; k++) n += !z->weights.data[k].whole;
  if (n == 0)
    diag_warning(z->s->diag, &loc,
                 z->weights.n ? "no weights have a multiple of %lld input channels: all stay"
                              : "no product has constant weights of floats: all stay",
                 (long long)z->of);
  return n > 0;
}

/* ---- a round ---- */
typedef struct Masking {
  Pruner *z;
  double share;
  const char *out;
} Masking;

static int mask_body(Session *s, void *user) {
  const Masking *p = user;
  Pruner *z = p->z;
  PruneRelation *r;
  PruneWeights l = {0};
  if (!find_weights(z, s, z->file, &r, &l) || !pruner_score_weights(z, r, &l))
    return session_status(s, z->status);
  if (z->of)
    prune_mark_pattern(&l, z->keep, z->of);
  else
    prune_mark_lowest(s->arena, &l, p->share, z->objective == OBJECTIVE_MACS);
  return prune_mask(r, &l) && session_write_onnx(s, p->out) && session_commit(s)
             ? EXIT_OK
             : session_status(s, z->status);
}

bool pruner_mask(Pruner *z, double share, const char *out, Round *round) {
  Options quiet = z->options;
  Masking p = {z, share, out};
  z->status = session_run(&quiet, mask_body, &p);
  return z->status == EXIT_OK && pruner_zeros(z, out, &round->weights);
}

/* ---- recovery ---- */
static const WeightZero *weight_named(const WeightZeros *l, const char *name) {
  for (int k = 0; k < l->n; k++)
    if (*l->data[k].name && strcmp(l->data[k].name, name) == 0) return &l->data[k];
  return NULL;
}

void pruner_hold_zeros(void *user, const BurinModel *step, void *state) {
  const Round *round = user;
  for (int k = 0; k < step->n_state; k++) {
    const BurinStateInfo *at = &step->state[k];
    const WeightZero *w =
        at->kind == BURIN_STATE_PARAMETER ? weight_named(&round->weights, at->name) : NULL;
    if (!w || at->bytes % (uint64_t)w->count) continue;
    const size_t size = (size_t)(at->bytes / (uint64_t)w->count);
    for (int64_t i = 0; i < w->count; i++)
      if (w->zero[i]) memset((char *)state + at->offset + (size_t)i * size, 0, size);
  }
}

bool pruner_check_zeros(Pruner *z, const char *file, Round *round) {
  const Loc loc = {.file = z->original, .node = -1};
  WeightZeros now;
  if (!pruner_zeros(z, file, &now)) return false;
  bool ok = now.n == round->weights.n;
  for (int k = 0; k < now.n && ok; k++) {
    const WeightZero *old = &round->weights.data[k];
    ok = now.data[k].count == old->count;
    for (int64_t i = 0; i < old->count && ok; i++) ok = now.data[k].zero[i] || !old->zero[i];
  }
  round->weights = now;
  return ok || diag_internal(z->s->diag, &loc, "training gave back what pruning had set to 0");
}
