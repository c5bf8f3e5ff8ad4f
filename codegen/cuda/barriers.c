/* Barriers between phases. One phase must wait for another where one of them reads or writes what
 * another thread may have written or read in the other: shared memory, or a buffer that the kernel
 * writes. Of shared memory in which each warp has a part of its own, the lanes of a warp wait for
 * each other. What was written into a late local is waited for where it is touched for the first
 * time behind the phases that it may be late by. */
#include "codegen/cuda/barriers.h"

#include <string.h>

enum { LANES = 32 };

/* ---- shared memory of warps ---- */

typedef struct Parts {
  Barriers *b;
  const Expr *warp; /* of the current nest; NULL: its threads are no warps of a row */
  int64_t *size;    /* by local: elements of a warp's part, 0: not seen yet */
} Parts;

static void note_index(Parts *x, int local, const Expr *index) {
  const Barriers *const b = x->b;
  const Expr *coeff, *rest;
  int64_t size, lo, hi;
  const bool known = x->warp && expr_affine(b->p, index, x->warp, &coeff, &rest) &&
                     expr_is_const(coeff, &size) && expr_range(b->p, rest, &lo, &hi) && lo >= 0 &&
                     hi < size && (!x->size[local] || x->size[local] == size);
  if (known)
    x->size[local] = size;
  else
    b->of_warp[b->k->params.n + local] = false;
}

static bool note_load(void *user, const Expr *e) {
  Parts *const x = user;
  if (e->op == EX_LOCAL) note_index(x, e->id, e->a[0]);
  return false;
}

static void note_loads(void *user, const Expr *e) {
  if (e) expr_any(e, EXF_LOCAL, note_load, user);
}

static bool is_thread_loop(const Stmt *s) {
  return s && s->kind == ST_FOR && s->loop.kind == FOR_THREAD;
}

static bool find_parts(void *user, Stmt *s) {
  Parts *const x = user;
  const ExprPool *const p = x->b->p;
  stmt_each_expr(s, note_loads, user);
  if (s->kind == ST_FOR) {
    note_loads(user, expr_var_lo(p, s->loop.var->id));
    note_loads(user, expr_var_extent(p, s->loop.var->id));
  }
  if (s->kind == ST_SET || s->kind == ST_ACC) note_index(x, s->access.id, s->access.index);
  if (!is_thread_loop(s) || !is_thread_loop(s->loop.body)) return true;
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(s, nest);
  const bool lanes = n == 2 && expr_is_i64(expr_var_extent(p, nest[1]->loop.var->id), LANES);
  x->warp = lanes ? s->loop.var : NULL;
  return true;
}

static void find_warps(Barriers *b) {
  Parts x = {.b = b, .size = ARENA_ARRAY(b->a, int64_t, b->k->locals.n + 1)};
  for (int i = 0; i < b->k->locals.n; i++)
    b->of_warp[b->k->params.n + i] = b->k->locals.data[i].memory == MEM_SHARED;
  stmt_each(b->k->body, find_parts, &x);
}

/* ---- what a phase touches ---- */

static int late_of(const Barriers *b, int i) {
  return i < b->k->params.n ? 0 : b->k->locals.data[i - b->k->params.n].late;
}

static Touched touched_new(const Barriers *b) {
  return (Touched){ARENA_ARRAY(b->a, bool, b->n + 1), ARENA_ARRAY(b->a, bool, b->n + 1),
                   ARENA_ARRAY(b->a, uint32_t, b->n + 1)};
}

typedef struct Looking {
  const Barriers *b;
  Touched *t;
} Looking;

static bool is_shared(const Barriers *b, int local) {
  return b->k->locals.data[local].memory == MEM_SHARED;
}

static bool note_read(void *user, const Expr *e) {
  const Looking *const l = user;
  const Barriers *const b = l->b;
  if (e->op == EX_LOAD && b->k->params.data[e->id].access & PA_WRITE) l->t->read[e->id] = true;
  if (e->op == EX_LOCAL && is_shared(b, e->id)) l->t->read[b->k->params.n + e->id] = true;
  return false;
}

static void note_reads(void *user, const Expr *e) {
  if (e) expr_any(e, EXF_LOAD | EXF_LOCAL, note_read, user);
}

static bool note_statement(void *user, Stmt *s) {
  const Looking *const l = user;
  const Barriers *const b = l->b;
  stmt_each_expr(s, note_reads, user);
  if (s->kind == ST_FOR) {
    note_reads(user, expr_var_lo(b->p, s->loop.var->id));
    note_reads(user, expr_var_extent(b->p, s->loop.var->id));
  }
  if (s->kind == ST_STORE) l->t->written[s->access.id] = true;
  const bool local = s->kind == ST_SET || s->kind == ST_ACC;
  if (local && is_shared(b, s->access.id)) {
    l->t->written[b->k->params.n + s->access.id] = true;
    if (s->kind == ST_ACC) l->t->read[b->k->params.n + s->access.id] = true;
  }
  return true;
}

/* ---- phases ---- */

/* A phase more has gone by; those that have waited for long enough are one. */
static void grow_older(Barriers *b) {
  for (int i = 0; i < b->n; i++) {
    const int late = late_of(b, i);
    if (!late) continue;
    const uint32_t ripe = b->pending.late[i] >> late & 1;
    b->pending.late[i] = ((b->pending.late[i] << 1) & ((2u << late) - 1)) | ripe << late;
  }
}

static Barrier needed(const Barriers *b, const Touched *own) {
  const Touched *const t = &b->pending;
  Barrier most = BARRIER_NONE;
  for (int i = 0; i < b->n; i++) {
    const bool touches = own->read[i] || own->written[i], ripe = t->late[i] >> late_of(b, i) & 1;
    const bool meets = (t->written[i] && touches) || (t->read[i] && own->written[i]) ||
                       (late_of(b, i) && ripe && touches);
    const Barrier one = !meets ? BARRIER_NONE : b->of_warp[i] ? BARRIER_WARP : BARRIER_BLOCK;
    if (one > most) most = one;
  }
  return most;
}

/* All phases but the last ones, by which the least late local is late, have arrived. */
static void settle(Barriers *b, Barrier barrier) {
  for (int i = 0; i < b->n; i++) {
    if (barrier < (b->of_warp[i] ? BARRIER_WARP : BARRIER_BLOCK)) continue;
    b->pending.read[i] = b->pending.written[i] = false;
    if (b->late) b->pending.late[i] &= (1u << b->late) - 1;
  }
}

Barrier barriers_phase(Barriers *b, const Stmt *nest) {
  Touched own = touched_new(b);
  Looking l = {b, &own};
  stmt_each(stmt_body(nest), note_statement, &l);
  grow_older(b);
  const Barrier barrier = needed(b, &own);
  settle(b, barrier);
  for (int i = 0; i < b->n; i++) {
    b->pending.read[i] |= own.read[i];
    if (!own.written[i]) continue;
    if (late_of(b, i))
      b->pending.late[i] |= 1;
    else
      b->pending.written[i] = true;
  }
  return barrier;
}

void barriers_clear(Barriers *b) { b->pending = touched_new(b); }

Touched barriers_pending(const Barriers *b) {
  Touched t = touched_new(b);
  memcpy(t.read, b->pending.read, (size_t)b->n * sizeof *t.read);
  memcpy(t.written, b->pending.written, (size_t)b->n * sizeof *t.written);
  memcpy(t.late, b->pending.late, (size_t)b->n * sizeof *t.late);
  return t;
}

bool barriers_is(const Barriers *b, const Touched *t) {
  return memcmp(t->read, b->pending.read, (size_t)b->n * sizeof *t->read) == 0 &&
         memcmp(t->written, b->pending.written, (size_t)b->n * sizeof *t->written) == 0 &&
         memcmp(t->late, b->pending.late, (size_t)b->n * sizeof *t->late) == 0;
}

void barriers_add(Barriers *b, const Touched *t) {
  for (int i = 0; i < b->n; i++) {
    b->pending.read[i] |= t->read[i];
    b->pending.written[i] |= t->written[i];
    b->pending.late[i] |= t->late[i];
  }
}

void barriers_set(Barriers *b, const Touched *t) {
  Touched none = touched_new(b);
  b->pending = none;
  barriers_add(b, t);
}

Barriers barriers_new(Arena *a, ExprPool *p, const Kernel *k) {
  Barriers b = {.a = a, .p = p, .k = k, .n = k->params.n + k->locals.n};
  for (int i = 0; i < k->locals.n; i++) {
    const int late = k->locals.data[i].late;
    if (late && (!b.late || late < b.late)) b.late = late;
  }
  b.of_warp = ARENA_ARRAY(a, bool, b.n + 1);
  b.pending = touched_new(&b);
  find_warps(&b);
  return b;
}
