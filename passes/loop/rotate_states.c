/* Saves the copies at the end of a loop's body that make its results the state of the next
 * iteration.
 *
 * A result in a buffer of its own shares a buffer of two halves with the state: iteration i reads
 * half i % 2 and writes the other. A result that is a row of a stacked output is read there by the
 * next iteration; the initial state lies in front of the first row. The state itself is then only
 * written once, behind the loop.
 *
 * Relies on each iteration writing all of a buffer that is only used in the body. */
#include <string.h>

#include "ir/expr/expr_query.h"
#include "ir/loop/loop.h"
#include "passes/pass.h"

typedef struct Count {
  int reads, writes; /* references in the whole program */
  bool viewed;       /* other buffers are views of it */
  bool lost;         /* no buffer may take its place any more */
  Step *copy;        /* the first step that copies something to its start */
  const Expr *shift; /* elements by which references will move when all is done, or NULL */
} Count;

typedef struct Rotate {
  PassCtx *c;
  Module *m;
  ExprPool *p;
  Vec(Count) * counts; /* by buffer */
} Rotate;

/* ---- visiting references ---- */
/* Called with every reference of a step; true: it changed. */
typedef bool (*RefFn)(void *user, BufRef *r, Param *param, int access);

static void visit_kernel(Arena *a, Step *s, RefFn f, void *user) {
  BufRef *args = NULL;
  for (int i = 0, arg = 0; i < s->call.kernel->params.n && arg < s->call.n_args; i++) {
    Param *q = &s->call.kernel->params.data[i];
    if (q->scratch) continue;
    BufRef r = s->call.args[arg++];
    if (!f(user, &r, q, q->access)) continue;
    if (!args)
      s->call.args = args = arena_dup(a, s->call.args, sizeof *args * (size_t)s->call.n_args);
    args[arg - 1] = r;
  }
}

static const TensorRef *visit_tensors(Arena *a, const TensorRef *t, int n, int access, RefFn f,
                                      void *user) {
  TensorRef *changed = NULL;
  for (int i = 0; i < n; i++) {
    BufRef r = t[i].buf;
    if (r.buffer < 0 || !f(user, &r, NULL, access)) continue;
    if (!changed) t = changed = arena_dup(a, t, sizeof *t * (size_t)n);
    changed[i].buf = r;
  }
  return t;
}

static void visit(Arena *a, Step *s, RefFn f, void *user) {
  for (; s; s = s->next) {
    switch (s->kind) {
      case STEP_KERNEL: visit_kernel(a, s, f, user); break;
      case STEP_EXTERN:
        s->ext.ins = visit_tensors(a, s->ext.ins, s->ext.n_ins, PA_READ, f, user);
        s->ext.outs = visit_tensors(a, s->ext.outs, s->ext.n_outs, PA_WRITE, f, user);
        break;
      case STEP_COPY:
        f(user, &s->copy.src, NULL, PA_READ);
        f(user, &s->copy.dst, NULL, PA_WRITE);
        break;
      case STEP_IF: f(user, &s->branch.cond, NULL, PA_READ); break;
      case STEP_LOOP:
        if (s->loop.cond.buffer >= 0) f(user, &s->loop.cond, NULL, PA_READ);
        break;
      case STEP_SYM:
        if (s->sym.src.buffer >= 0) f(user, &s->sym.src, NULL, PA_READ);
        break;
      case STEP_CHECK:
      case STEP_ROOM: break;
    }
    visit(a, step_body(s), f, user);
    visit(a, step_otherwise(s), f, user);
  }
}

typedef struct Tally {
  int buffer, reads, writes;
} Tally;

static void tally_ref(void *user, const BufRef *r, int access) {
  Tally *t = user;
  if (r->buffer != t->buffer) return;
  t->reads += (access & PA_READ) != 0;
  t->writes += (access & PA_WRITE) != 0;
}

/* Adds the references of a list of steps, or takes them away. */
typedef struct Recount {
  const Rotate *r;
  int by;
} Recount;

static void recount_ref(void *user, const BufRef *r, int access) {
  const Recount *q = user;
  Count *const k = &q->r->counts->data[r->buffer];
  k->reads += access & PA_READ ? q->by : 0;
  k->writes += access & PA_WRITE ? q->by : 0;
}

static void recount(const Rotate *r, const Step *from, const Step *end, int by) {
  Recount q = {r, by};
  for (; from && from != end; from = from->next) step_each_ref(from, recount_ref, &q);
}

static bool whole(const BufRef *r) { return !r->offset || expr_is_i64(r->offset, 0); }

static void note_copies(const Rotate *r, Step *from, const Step *end) {
  for (; from && from != end; from = from->next) {
    Count *const k = from->kind == STEP_COPY ? &r->counts->data[from->copy.dst.buffer] : NULL;
    if (k && !k->copy && whole(&from->copy.dst)) k->copy = from;
    note_copies(r, step_body(from), NULL);
    note_copies(r, step_otherwise(from), NULL);
  }
}

static Tally tally(const Step *from, const Step *end, int buffer) {
  Tally t = {.buffer = buffer};
  for (; from && from != end; from = from->next) step_each_ref(from, tally_ref, &t);
  return t;
}

typedef struct Redirect {
  ExprPool *p;
  int from, to;
  const Expr *by; /* elements */
  bool unaligned;
} Redirect;

static bool redirect_ref(void *user, BufRef *r, Param *param, int access) {
  const Redirect *d = user;
  (void)access;
  if (r->buffer != d->from) return false;
  *r = (BufRef){d->to, r->offset ? ex_add(d->p, r->offset, d->by) : d->by};
  if (d->unaligned && param && param->align > dtype_bytes(param->dtype))
    param->align = dtype_bytes(param->dtype);
  return true;
}

static void redirect(const Rotate *r, Step *steps, int from, int to, const Expr *by,
                     bool unaligned) {
  Redirect d = {r->p, from, to, by, unaligned};
  visit(r->m->model->arena, steps, redirect_ref, &d);
}

/* ---- one state ---- */
typedef struct State {
  Step *loop, *copy;
  Step **at;               /* what points to the loop */
  int state, next;         /* buffers; next: where the result is */
  const Expr *count, *pad; /* elements, and rounded up so that what lies behind is aligned */
  const Expr *iter;
  Step *init; /* copy that makes the initial state, when nobody else sees that */
  bool seen;  /* the state is used outside of the loop */
} State;

static bool has_views(const Rotate *r, int id) {
  return r->counts->data[id].viewed || r->m->buffers.data[id].kind == BUF_VIEW;
}

/* The body's copy is the only write of the state, and nobody reads it afterwards. */
static bool is_state(const Rotate *r, State *s) {
  const Step *c = s->copy;
  const Buffer *x = &r->m->buffers.data[c->copy.dst.buffer];
  s->state = c->copy.dst.buffer;
  s->next = c->copy.src.buffer;
  s->count = c->copy.count;
  if (!whole(&c->copy.dst) || x->count != c->copy.count || s->state == s->next ||
      s->state == s->loop->loop.cond.buffer)
    return false;
  if (x->kind != BUF_ARENA && x->kind != BUF_OUTPUT) return false;
  if (r->m->buffers.data[s->next].kind != BUF_ARENA || has_views(r, s->state) ||
      has_views(r, s->next))
    return false;
  if (tally(s->loop->loop.body, NULL, s->state).writes != 1 ||
      tally(c->next, NULL, s->state).reads > 0)
    return false;
  s->pad = ex_mul(r->p, ex_ceildiv(r->p, s->count, 64), ex_i64(r->p, 64));
  return true;
}

/* Does `loop` follow x in the same list? */
static bool leads_to(const Step *x, const Step *loop) {
  while (x && x != loop) x = x->next;
  return x != NULL;
}

/* Finds the copy that makes the initial state, and who else uses the state. */
static void look_outside(const Rotate *r, State *s) {
  const Count all = r->counts->data[s->state];
  const Tally in = tally(s->loop->loop.body, NULL, s->state);
  s->seen = all.reads > in.reads || r->m->buffers.data[s->state].kind == BUF_OUTPUT;
  s->init = NULL;
  Step *const x = all.copy;
  if (x && x->copy.dst.buffer == s->state && all.writes == in.writes + 1 &&
      x->copy.count == s->count && leads_to(x, s->loop) && tally(x, s->loop, s->state).reads == 0)
    s->init = x;
}

static Step *new_copy(const Rotate *r, const State *s, BufRef src, BufRef dst) {
  Step *c = step_new(r->m, STEP_COPY, s->loop->loc);
  c->copy.src = src;
  c->copy.dst = dst;
  c->copy.count = s->count;
  return c;
}

/* Number of iterations, once the loop has ended. */
static const Expr *iterations(const Rotate *r, const State *s) {
  Step *l = s->loop;
  if (l->loop.trips < 0 && l->loop.cond.buffer < 0)
    return ex_max(r->p, l->loop.trip, ex_i64(r->p, 0));
  if (l->loop.trips < 0) {
    l->loop.trips = ex_sym_fresh(r->p, "rounds")->id;
    expr_symbol(r->p, l->loop.trips)->runtime = true;
    expr_symbol(r->p, l->loop.trips)->bound = l->loop.trip;
  }
  return ex_sym(r->p, expr_symbol(r->p, l->loop.trips)->name);
}

static void remove_step(Step **list, const Step *s) {
  while (*list != s) list = &(*list)->next;
  *list = s->next;
}

/* The steps that connect() changes and the body, in which references change then. */
static void recount_state(const Rotate *r, const State *s, int by) {
  recount(r, s->loop->loop.body, NULL, by);
  if (s->init) recount(r, s->init, s->init->next, by);
}

/* The initial state goes to `first`; the final one comes from `last`. */
static void connect(const Rotate *r, State *s, BufRef first, BufRef last) {
  recount_state(r, s, -1);
  remove_step(&s->loop->loop.body, s->copy);
  r->counts->data[s->state].copy = NULL;
  if (s->init) {
    s->init->copy.dst = first;
    note_copies(r, s->init, s->init->next);
  } else {
    Step *c = new_copy(r, s, (BufRef){s->state, NULL}, first);
    c->next = s->loop;
    *s->at = c;
    s->at = &c->next;
    recount(r, c, s->loop, 1);
    note_copies(r, c, s->loop);
  }
  if (s->seen) {
    Step *c = new_copy(r, s, last, (BufRef){s->state, NULL});
    c->next = s->loop->next;
    s->loop->next = c;
    recount(r, c, c->next, 1);
    note_copies(r, c, c->next);
  }
  r->m->buffers.data[s->next].inplace_of = -1;
  r->counts->data[s->state].lost = r->counts->data[s->next].lost = true;
  r->c->changed = true;
}

static bool two_halves(const Rotate *r, State *s) {
  const Buffer *y = &r->m->buffers.data[s->next];
  const Count all = r->counts->data[s->next];
  const Tally in = tally(s->loop->loop.body, NULL, s->next);
  if (!whole(&s->copy->copy.src) || y->count != s->count || all.reads != in.reads ||
      all.writes != in.writes)
    return false;
  ExprPool *p = r->p;
  const Expr *two = ex_i64(p, 2), *i1 = ex_add(p, s->iter, ex_i64(p, 1));
  const Expr *now = ex_mul(p, ex_floormod(p, s->iter, two), s->pad),
             *then = ex_mul(p, ex_floormod(p, i1, two), s->pad);
  const int both =
      module_add_buffer(r->m, BUF_ARENA, y->dtype, ex_mul(p, two, s->pad), "states")->id;
  vec_push(r->c->scratch, r->counts, (Count){0});
  look_outside(r, s);
  const Expr *end = ex_mul(p, ex_floormod(p, iterations(r, s), two), s->pad);
  connect(r, s, (BufRef){both, NULL}, (BufRef){both, end});
  redirect(r, s->loop->loop.body, s->state, both, now, false);
  redirect(r, s->loop->loop.body, s->next, both, then, false);
  recount_state(r, s, 1);
  return true;
}

/* Everything in the output moves by `pad`; that is done for all outputs at once (shift_all). */
static bool rows(const Rotate *r, State *s) {
  ExprPool *p = r->p;
  Buffer *y = &r->m->buffers.data[s->next];
  const Expr *row = ex_mul(p, s->iter, s->count), *before = ex_sub(p, ex_i64(p, 0), s->count);
  if (s->copy->copy.src.offset != row || r->counts->data[s->next].shift) return false;
  y->count = ex_add(p, y->count, s->pad);
  r->counts->data[s->next].shift = s->pad;
  look_outside(r, s);
  const Expr *end = ex_add(p, before, ex_mul(p, iterations(r, s), s->count));
  connect(r, s, (BufRef){s->next, before}, (BufRef){s->next, end});
  redirect(r, s->loop->loop.body, s->state, s->next, ex_add(p, before, row), true);
  recount_state(r, s, 1);
  return true;
}

static bool shift_ref(void *user, BufRef *r, Param *param, int access) {
  const Rotate *q = user;
  const Expr *by = q->counts->data[r->buffer].shift;
  (void)param;
  (void)access;
  if (by) r->offset = r->offset ? ex_add(q->p, r->offset, by) : by;
  return by != NULL;
}

static void shift_all(Rotate *r) { visit(r->m->model->arena, r->m->steps, shift_ref, r); }

/* ---- loops ---- */
static void rotate_loop(const Rotate *r, Step **at) {
  Step *const loop = *at;
  int64_t k;
  if (loop->loop.iter < 0 || (loop->loop.trip && expr_is_const(loop->loop.trip, &k) && k <= 1))
    return;
  if (loop->loop.cond.buffer < 0 && !loop->loop.trip) return;
  for (Step *c = loop->loop.body, *next; c; c = next) {
    next = c->next;
    if (c->kind != STEP_COPY) continue;
    State s = {.loop = loop,
               .copy = c,
               .at = at,
               .iter = ex_sym(r->p, expr_symbol(r->p, loop->loop.iter)->name)};
    if (is_state(r, &s) && !rows(r, &s)) two_halves(r, &s);
    at = s.at;
  }
}

static void rotate_list(const Rotate *r, Step **at) {
  for (Step *s; (s = *at); at = &s->next) {
    if (s->kind != STEP_IF && s->kind != STEP_LOOP) continue;
    rotate_list(r, s->kind == STEP_LOOP ? &s->loop.body : &s->branch.then);
    if (s->kind == STEP_IF) rotate_list(r, &s->branch.otherwise);
    if (s->kind == STEP_LOOP) rotate_loop(r, at);
  }
}

static void count_all(const Rotate *r) {
  const Module *const m = r->m;
  for (int i = 0; i < m->buffers.n; i++) vec_push(r->c->scratch, r->counts, (Count){0});
  for (int i = 0; i < m->buffers.n; i++)
    if (m->buffers.data[i].kind == BUF_VIEW) r->counts->data[m->buffers.data[i].base].viewed = true;
  recount(r, m->steps, NULL, 1);
  note_copies(r, m->steps, NULL);
}

bool pass_rotate_states(PassCtx *c) {
  Module *const m = c->module;
  Rotate r = {c, m, m->model->pool, arena_alloc(c->scratch, sizeof *r.counts)};
  count_all(&r);
  rotate_list(&r, &m->steps);
  if (c->changed) shift_all(&r);
  for (int i = 0; i < m->buffers.n; i++) {
    Buffer *const b = &m->buffers.data[i];
    if (b->inplace_of >= 0 && r.counts->data[b->inplace_of].lost) b->inplace_of = -1;
  }
  return true;
}
