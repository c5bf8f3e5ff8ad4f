/* Less memory for more work (--max-arena, --recompute): values that are read again late are computed
 * again there instead of being kept. What a kernel computes, takes and stores is asked of a trial (trial.h). Right before fuse, behind all
 * passes that would merge equal nodes again; the results are the same to the bit, since the nodes are. */
#include "passes/form/recompute.h"
#include "passes/form/trial.h"

typedef struct Found {
  PassCtx *c;
  Units *u;
} Found;

static void find_units(void *user, const Module *m) {
  Found *const f = user;
  f->u = units_new(f->c, m);
}

/* -1: there is no program. */
static double try_schedule(Units *u, const Schedule *s) {
  const Undo *const undo = schedule_apply(u, s);
  const Module *const m = trial_run(u->c, NULL, NULL);
  schedule_undo(u, undo);
  return m ? module_bytes(m) : -1;
}

/* ---- how much ---- */
/* The smallest memory that is reached for at most so many cycles; false: none. */
static bool least_memory(Units *u, double most, double cycles, Schedule *best) {
  enum { STEPS = 12 };
  double lo = 0, hi = most;
  bool any = false;
  for (int i = 0; i < STEPS && hi - lo > most / 1024; i++) {
    Schedule s = {0};
    const double mid = (lo + hi) / 2;
    if (schedule_make(u, mid, false, &s) && s.again <= cycles) {
      *best = s;
      hi = mid;
      any = true;
    } else {
      lo = mid;
    }
  }
  return any;
}

/* Of the schedules that a trial showed to need `limit` bytes at most, one that computes little again, or
 * the one that needs least; *of_best: what it needs, negative: nobody knows. */
static bool meet(Units *u, double most, double bytes, double limit, Schedule *best,
                 double *of_best) {
  enum { STEPS = 6 };
  Schedule least = {0};
  if (!least_memory(u, most, 1e300, &least)) return false;
  double lo = least.peak, hi = most, at = most - (bytes - limit);
  bool any = false;
  for (int i = 0; i < STEPS && hi - lo > most / 256; i++) {
    Schedule s = {0};
    if (at <= lo || at >= hi) at = (lo + hi) / 2;
    const double got = schedule_make(u, at, false, &s) ? try_schedule(u, &s) : -1;
    if (got >= 0 && got <= limit) {
      *best = s;
      *of_best = got;
      any = true;
      lo = at;
      if (got > 0.95 * limit) break;
    } else {
      hi = at;
    }
    at = got < 0 ? (lo + hi) / 2 : at - (got - limit);
  }
  if (any) return true;
  *best = least;
  *of_best = try_schedule(u, best);
  return true;
}

static bool too_small(PassCtx *c, double least) {
  const Loc loc = {.file = c->model->file, .node = -1};
  return diag_error(c->model->diag, &loc, ERR_LIMIT,
                    "--max-arena=%lld: the least that computing again reaches is %.0f bytes",
                    (long long)c->max_arena, least);
}

static bool meet_limit(PassCtx *c, Units *u, double most, double bytes) {
  const double limit = (double)c->max_arena;
  Schedule s = {0};
  if (bytes <= limit) return true;
  double got;
  if (!meet(u, most, bytes, limit, &s, &got)) return too_small(c, bytes);
  if (got < 0 || got > limit) return too_small(c, got < 0 || got > bytes ? bytes : got);
  schedule_apply(u, &s);
  return c->changed = true;
}

/* Takes the schedule where a trial shows that it needs less. */
static bool take_if_less(PassCtx *c, Units *u, const Schedule *s, double *bytes) {
  const double got = s->order.n > u->n ? try_schedule(u, s) : -1;
  if (got < 0 || got >= *bytes) return false;
  *bytes = got;
  return true;
}

/* sqrt: one more forward part, which is about a third of a training step. */
static bool take_choice(PassCtx *c, Units *u, double most, double bytes) {
  Schedule cheap = {0}, least = {0}, *taken = NULL;
  if (schedule_make(u, 1e300, true, &cheap) && take_if_less(c, u, &cheap, &bytes)) taken = &cheap;
  if (c->checkpoint == CHECKPOINT_SQRT && least_memory(u, most, u->cycles / 3, &least) &&
      take_if_less(c, u, &least, &bytes))
    taken = &least;
  if (taken) schedule_apply(u, taken);
  c->changed = taken != NULL;
  return true;
}

bool pass_checkpoint(PassCtx *c) {
  Found f = {.c = c};
  Schedule s = {0};
  if (!c->max_arena && (!c->model->differentiated || c->checkpoint == CHECKPOINT_OFF)) return true;
  const Module *const m = trial_run(c, find_units, &f);
  if (!m) return true;
  if (c->max_arena && module_has_symbols(m)) {
    const Loc loc = {.file = c->model->file, .node = -1};
    return diag_error(c->model->diag, &loc, ERR_DYNAMIC,
                      "--max-arena needs fixed sizes: --dim gives them");
  }
  const double bytes = module_bytes(m);
  Units *const u = f.u;
  if (!schedule_make(u, 1e300, false, &s)) return true;
  return c->max_arena ? meet_limit(c, u, s.peak, bytes) : take_choice(c, u, s.peak, bytes);
}
