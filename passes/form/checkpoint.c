/* Less memory for more work (--max-arena, --recompute): values that are read again late are computed
 * again there instead of being kept. What a kernel computes, takes and stores is asked of a trial: the
 * passes from fuse on run on the graph, and what they decided is forgotten. Right before fuse, behind all
 * passes that would merge equal nodes again; the results are the same to the bit, since the nodes are. */
#include "passes/form/recompute.h"

#define TRIAL \
  "fuse,early_updates,choose,layout,choose_tiles,lower,in_place,rotate_states,plan_memory"

typedef struct Kept { /* what the passes of a trial change */
  Vec(Value *) values;
  Vec(Value) was;
  Vec(Node *) nodes;
  Vec(const Plan *) plans;
  bool fused, laid_out;
  int n_consts, n_assumes;
} Kept;

/* ---- trials ---- */
static void keep_value(Arena *a, Kept *k, Value *v) {
  if (!v) return;
  vec_push(a, &k->values, v);
  vec_push(a, &k->was, *v);
}

static void keep_graph(Arena *a, Kept *k, const Graph *g) {
  for (int i = 0; i < g->inputs.n; i++) keep_value(a, k, g->inputs.data[i]);
  for (int i = 0; i < g->nodes.n; i++) {
    Node *const n = g->nodes.data[i];
    vec_push(a, &k->nodes, n);
    vec_push(a, &k->plans, n->plan);
    for (int j = 0; j < n->n_in; j++)
      if (n->in[j] && n->in[j]->cdata) keep_value(a, k, n->in[j]);
    for (int j = 0; j < n->n_out; j++) keep_value(a, k, n->out[j]);
    for (int j = 0; j < n->n_attrs; j++)
      if (n->attrs[j].kind == AT_GRAPH) keep_graph(a, k, n->attrs[j].graph);
  }
}

static Kept keep(Arena *a, const Model *m) {
  Kept k = {.fused = m->fused, .laid_out = m->laid_out};
  k.n_consts = m->consts.n;
  k.n_assumes = m->assumes.n;
  keep_graph(a, &k, m->main);
  return k;
}

static void restore(Model *m, const Kept *k) {
  for (int i = k->values.n - 1; i >= 0; i--) {
    k->values.data[i]->layout = k->was.data[i].layout;
    k->values.data[i]->inlined = k->was.data[i].inlined;
  }
  for (int i = 0; i < k->nodes.n; i++) k->nodes.data[i]->plan = k->plans.data[i];
  m->fused = k->fused;
  m->laid_out = k->laid_out;
  m->consts.n = k->n_consts;
  m->assumes.n = k->n_assumes;
}

/* The program of the graph as it is; NULL: there is none, which the pipeline will say. `ask` is called
 * before what was decided is forgotten. */
static const Module *trial(PassCtx *c, Units **units) {
  Model *const m = c->model;
  Diag *const diag = m->diag;
  const Kept k = keep(c->scratch, m);
  PassCtx t = *c;
  t.module = NULL;
  t.decisions = NULL;
  m->diag = diag_new(c->scratch); /* its warnings come again */
  const bool ok = c->run_passes(&t, TRIAL);
  m->diag = diag;
  if (ok && units) *units = units_new(c, t.module);
  restore(m, &k);
  return ok ? t.module : NULL;
}

/* Arena and scratch for one thread, sizes of symbols guessed. */
static double module_bytes(const Module *m) {
  const Expr *const parts[] = {m->arena_bytes, m->scratch_bytes};
  double sum = 0;
  for (int k = 0; k < 2; k++) {
    int64_t bytes;
    sum += expr_is_const(parts[k], &bytes) ? (double)bytes
                                           : expr_extent_guess(m->model->pool, parts[k]);
  }
  return sum;
}

/* -1: there is no program. */
static double try_schedule(Units *u, const Schedule *s) {
  const Undo *const undo = schedule_apply(u, s);
  const Module *const m = trial(u->c, NULL);
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

static bool has_symbols(PassCtx *c, const Module *m) {
  int64_t bytes;
  return !expr_is_const(m->arena_bytes, &bytes) || !expr_is_const(m->scratch_bytes, &bytes);
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
  Units *u;
  Schedule s = {0};
  if (!c->max_arena && (!c->model->differentiated || c->checkpoint == CHECKPOINT_OFF)) return true;
  const Module *const m = trial(c, &u);
  if (!m) return true;
  if (c->max_arena && has_symbols(c, m)) {
    const Loc loc = {.file = c->model->file, .node = -1};
    return diag_error(c->model->diag, &loc, ERR_DYNAMIC,
                      "--max-arena needs fixed sizes: --dim gives them");
  }
  const double bytes = module_bytes(m);
  if (!schedule_make(u, 1e300, false, &s)) return true;
  return c->max_arena ? meet_limit(c, u, s.peak, bytes) : take_choice(c, u, s.peak, bytes);
}
