/* Where buffers without a bound get their memory: a step STEP_ROOM before the first one that touches
 * them. Where the lowering put some (results of conditions and loops, which grow), none are added.
 * What a function finds counts at its bound; a function that has none and uses the heap makes the
 * memory itself (extern_makes). */
#include "passes/memory/plan.h"

typedef struct Rooms {
  Module *m;
  ExprPool *p;
  bool *known; /* by symbol: assigned in a step before, as they stand */
  bool *done;  /* by buffer */
  const Step *step;
  Step *made; /* those that belong before `step` */
  int depth;  /* of bounds of bounds, which may name each other */
  bool ok;
} Rooms;

static bool note_rooms(void *user, Step *s) {
  if (s->kind == STEP_ROOM) ((Rooms *)user)->done[s->room.buffer] = true;
  return true;
}

/* ---- symbols ---- */
static void know(Rooms *r, int id) {
  if (id >= 0) r->known[id] = true;
}

static void know_results(Rooms *r, const Step *s) {
  for (int i = 0; i < s->ext.n_outs; i++)
    for (int d = 0; d < s->ext.outs[i].rank; d++)
      if (s->ext.outs[i].dims[d]->op == EX_SYM) know(r, s->ext.outs[i].dims[d]->id);
}

static const Expr *at_bound(void *user, const Expr *e) {
  enum { DEEP = 64 };
  Rooms *const r = user;
  const Expr *const bound =
      e->op != EX_SYM || r->known[e->id] ? NULL : expr_symbol(r->p, e->id)->bound;
  if (!bound || r->depth == DEEP) return NULL;
  r->depth++;
  const Expr *const by = expr_rewrite(r->p, bound, at_bound, r);
  r->depth--;
  return by;
}

static bool unknown(void *user, const Expr *e) {
  return e->op == EX_SYM && !((const Rooms *)user)->known[e->id];
}

/* Elements that buffer b needs at this step: its size, or what that is taken to equal (a Reshape whose
 * sizes are found later), or its bound. */
static const Expr *room_of(Rooms *r, const Expr *count) {
  const Model *const m = r->m->model;
  for (int i = 0; i < m->assumes.n && expr_any(count, EXF_SYM, unknown, r); i++) {
    const DimAssume *const a = &m->assumes.data[i];
    if (a->kind != ASSUME_EQUAL || (a->a != count && a->b != count)) continue;
    const Expr *const other = a->a == count ? a->b : a->a;
    if (!expr_any(other, EXF_SYM, unknown, r)) return other;
  }
  return expr_rewrite(r->p, count, at_bound, r);
}

/* ---- buffers ---- */
/* The function itself says where the result lies. */
static bool made_by_step(const Rooms *r, int buffer) {
  const Step *const s = r->step;
  for (int i = 0; s->kind == STEP_EXTERN && i < s->ext.n_outs; i++)
    if (s->ext.outs[i].buf.buffer == buffer && extern_makes(r->m, s, i)) return true;
  return false;
}

static void visit(void *user, const BufRef *ref, int access) {
  Rooms *const r = user;
  const int id = buffer_root(r->m, ref->buffer);
  (void)access;
  if (id < 0 || r->done[id] || r->m->buffers.data[id].kind != BUF_HEAP) return;
  r->done[id] = true;
  if (made_by_step(r, id)) return;
  const Buffer *const b = &r->m->buffers.data[id];
  const Expr *const count = room_of(r, b->count);
  if (expr_any(count, EXF_SYM, unknown, r)) {
    int missing = -1;
    expr_upper(r->p, b->count, &missing);
    r->ok = diag_error(r->m->model->diag, r->step->loc, ERR_DYNAMIC,
                       "a size cannot be bounded (--bound NAME=N gives a bound): no bound for %s",
                       expr_symbol(r->p, missing)->name);
    return;
  }
  Step *const s = step_new(r->m, STEP_ROOM, r->step->loc);
  s->room.buffer = id;
  s->room.count = count;
  s->next = r->made;
  r->made = s;
}

static void walk(Rooms *r, Step **at) {
  for (; *at && r->ok; at = &(*at)->next) {
    Step *const s = *at;
    r->step = s;
    r->made = NULL;
    if (s->kind == STEP_IF) visit(r, &s->branch.cond, PA_READ);
    if (s->kind != STEP_IF && s->kind != STEP_LOOP) step_each_ref(s, visit, r);
    if (s->kind == STEP_EXTERN) know_results(r, s);
    if (s->kind == STEP_SYM) know(r, s->sym.id);
    if (s->kind == STEP_LOOP) know(r, s->loop.iter);
    Step *const made = r->made;
    if (s->kind == STEP_LOOP) walk(r, &s->loop.body);
    if (s->kind == STEP_IF) walk(r, &s->branch.then);
    if (s->kind == STEP_IF) walk(r, &s->branch.otherwise);
    if (s->kind == STEP_LOOP) know(r, s->loop.trips);
    if (!made) continue;
    Step *last = made;
    while (last->next) last = last->next;
    *at = made;
    last->next = s;
    at = &last->next;
  }
}

bool plan_rooms(Module *m, Arena *a) {
  Rooms r = {.m = m, .p = m->model->pool, .ok = true};
  const int n = expr_symbol_count(r.p);
  r.known = ARENA_ARRAY(a, bool, n + 1);
  r.done = ARENA_ARRAY(a, bool, m->buffers.n + 1);
  for (int i = 0; i < n; i++) r.known[i] = !expr_symbol(r.p, i)->runtime;
  step_each(m->steps, note_rooms, &r);
  walk(&r, &m->steps);
  return r.ok;
}
