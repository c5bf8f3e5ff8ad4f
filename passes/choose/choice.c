/* Takes choices: the model's, or what a tuning file says; logs them; picks candidates to measure.
 */
#include "passes/choose/choice.h"

#include <string.h>

const char *choice_key(const PassCtx *c, const char *fmt, ...) {
  const Target *t = c->target;
  va_list ap;
  va_start(ap, fmt);
  const char *text = arena_vprintf(c->model->arena, fmt, ap);
  va_end(ap);
  if (t->gpu)
    return arena_printf(c->model->arena, "%s sm=%d sms=%d", text, t->gpu->sm, t->gpu->sms);
  return arena_printf(c->model->arena, "%s lanes=%d regs=%d fma=%d l2=%lldK", text,
                      target_lanes(t, 32), t->vector_regs, t->fma_per_cycle,
                      (long long)(t->l2_bytes >> 10));
}

static int position_of(const Candidate *candidates, int n, const char *name) {
  for (int i = 0; name && i < n; i++)
    if (strcmp(candidates[i].name, name) == 0) return i;
  return -1;
}

static void log_decision(DecisionLog *log, const Decision *d) {
  for (int i = 0; i < log->list.n; i++)
    if (strcmp(log->list.data[i].key, d->key) == 0) return;
  Decision copy = *d;
  Candidate *candidates = ARENA_ARRAY(log->arena, Candidate, d->n);
  for (int i = 0; i < d->n; i++) {
    candidates[i] = d->candidates[i];
    candidates[i].name = arena_strdup(log->arena, d->candidates[i].name);
  }
  copy.key = arena_strdup(log->arena, d->key);
  copy.candidates = candidates;
  vec_push(log->arena, &log->list, copy);
}

int choice_take(const PassCtx *c, ChoiceStage stage, const char *key, const Candidate *candidates,
                int n, int model) {
  Decision d = {key, stage, candidates, n, model, model, .told = false};
  const int stored = c->tuning ? position_of(candidates, n, tuning_find(c->tuning, key)) : -1;
  if (stored >= 0) d.taken = stored;
  if (c->decisions) log_decision(c->decisions, &d);
  return d.taken;
}

void choice_tell(const PassCtx *c, const char *key, const Candidate *candidates, int n, int taken) {
  const Decision d = {key, CHOICE_ALGORITHM, candidates, n, taken, taken, .told = true};
  if (c->decisions) log_decision(c->decisions, &d);
}

void choice_note(Arena *a, const StepKey **keys, const char *key) {
  for (const StepKey *k = *keys; k; k = k->next)
    if (strcmp(k->key, key) == 0) return;
  StepKey *added = ARENA_NEW(a, StepKey);
  *added = (StepKey){key, *keys};
  *keys = added;
}

void choice_mark(Arena *a, Step *steps, const char *key) {
  for (Step *s = key ? steps : NULL; s; s = s->next) choice_note(a, &s->keys, key);
}

static double cost(const Decision *d, int i) {
  return choice_weighted(&d->candidates[i], d->candidates[i].cost);
}

/* Cheapest candidate that is not taken yet and, unless `any`, of a family without one. */
static int cheapest(const Decision *d, const bool *taken, double limit, bool any) {
  int best = -1;
  for (int i = 0; i < d->n; i++) {
    bool fits = !taken[i] && cost(d, i) <= limit;
    for (int j = 0; j < d->n && fits && !any; j++)
      fits = !taken[j] || d->candidates[j].family != d->candidates[i].family;
    if (fits && (best < 0 || cost(d, i) < cost(d, best))) best = i;
  }
  return best;
}

int choice_promising(const Decision *d, double slack, int most, int *out) {
  enum { MAX_CANDIDATES = 256 };
  bool taken[MAX_CANDIDATES] = {false};
  if (d->n > MAX_CANDIDATES || most < 1) return 0;
  const double limit = cost(d, d->model) * slack;
  int n = 0;
  for (int at = d->model; at >= 0 && n < most;) {
    taken[at] = true;
    out[n++] = at;
    at = cheapest(d, taken, limit, false);
    if (at < 0) at = cheapest(d, taken, limit, true);
  }
  return n;
}
