/* Verifier of grids of blocks: which loops and statements may stand where, how large a block is,
 * and races that are certain. What is looked at are pairs of accesses that happen on no condition,
 * with indices that are sums of constant multiples of the threads' variables and of something that
 * all threads have in common: there the threads that meet can be named. The rest is the
 * interpreter's. */
#include <inttypes.h>
#include <stdlib.h>
#include "ir/loop/loop.h"

/* Loops of one kind around the cursor, outermost first. */
typedef struct Nest {
  const Expr *var[MAX_NEST];
  int64_t extent[MAX_NEST]; /* of blocks: 2 stands for more, and for unknown ones */
  int n;
} Nest;

/* Whether an access happens, seen from the threads of a nest, or from all blocks. */
typedef enum Happens { FOR_CERTAIN, FOR_ALL_ALIKE, DIFFERS } Happens;
enum { THREADS, BLOCKS, LEVELS };

typedef struct Access {
  int id;
  bool shared; /* a local, else a parameter */
  bool write;
  const Expr *index;
  Happens happens[LEVELS];
} Access;

typedef struct Grid {
  const Module *m;
  const Kernel *k;
  const char *pass;
  Arena *a;
  ExprPool *p;
  Nest nest[LEVELS];
  int64_t threads[MAX_NEST]; /* extents of the kernel's first nest of thread loops */
  int n_threads;             /* 0: no nest was met */
  Happens happens[LEVELS];   /* at the cursor */
  bool *written;             /* by parameter: the kernel stores to it */
  Vec(Access) accesses;
} Grid;

static bool fail(const Grid *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(const Grid *g, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *const text = arena_vprintf(g->a, fmt, ap);
  va_end(ap);
  return diag_internal(g->m->model->diag, g->k->loc, "after %s: %s: %s", g->pass ? g->pass : "?",
                       g->k->name, text);
}

static const char *name_of(const Grid *g, const Expr *var) { return expr_var_name(g->p, var->id); }

static bool in_thread(const Grid *g) { return g->nest[THREADS].n > 0; }

/* ---- what happens on which condition ---- */
/* Threads, or blocks, may see different values in it, whatever its variables. */
static bool is_own(void *user, const Expr *e) {
  const Grid *const g = user;
  return e->op == EX_LOCAL || (e->op == EX_LOAD && g->k->params.data[e->id].access != PA_READ);
}

static bool has_own(const Grid *g, const Expr *e) {
  return expr_any(e, EXF_LOAD | EXF_LOCAL, is_own, (void *)g);
}

static bool differs(const Grid *g, int level, const Expr *e) {
  const Nest *const nest = &g->nest[level];
  bool yes = (e->flags & EXF_REDUCE) || has_own(g, e);
  for (int i = 0; i < nest->n; i++) yes |= expr_uses_var(e, nest->var[i]->id);
  return yes;
}

static void raise(Grid *g, int level, Happens h) {
  if (g->happens[level] < h) g->happens[level] = h;
}

static void happens_if(Grid *g, const Expr *cond) {
  for (int k = 0; k < LEVELS; k++) raise(g, k, differs(g, k, cond) ? DIFFERS : FOR_ALL_ALIKE);
}

/* A loop of constant extent runs for certain; the values that it counts may still differ. */
static void happens_in_loop(Grid *g, const Expr *var) {
  int64_t n = 0;
  const Expr *const lo = expr_var_lo(g->p, var->id), *extent = expr_var_extent(g->p, var->id);
  const bool runs = expr_is_const(extent, &n) && n > 0;
  for (int k = 0; k < LEVELS; k++) {
    if (!runs) raise(g, k, FOR_ALL_ALIKE);
    if (differs(g, k, extent) || (lo && differs(g, k, lo))) raise(g, k, DIFFERS);
  }
}

/* ---- accesses ---- */
static void note(Grid *g, int id, bool shared, bool write, const Expr *index) {
  Access x = {.id = id, .shared = shared, .write = write, .index = index};
  for (int k = 0; k < LEVELS; k++)
    x.happens[k] = index->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE) ? DIFFERS : g->happens[k];
  vec_push(g->a, &g->accesses, x);
}

static bool note_read(void *user, const Expr *e) {
  Grid *const g = user;
  const bool guarded = e->op == EX_LOAD && e->nargs > 1 && e->a[1];
  if (e->op == EX_LOAD && g->written[e->id] && !guarded) note(g, e->id, false, false, e->a[0]);
  if (e->op == EX_LOCAL && g->k->locals.data[e->id].memory == MEM_SHARED)
    note(g, e->id, true, false, e->a[0]);
  return false;
}

static void note_reads(void *user, const Expr *e) {
  expr_any(e, EXF_LOAD | EXF_LOCAL, note_read, user);
}

/* ---- races ---- */
typedef struct Affine { /* the sum of coeff[i] * variable i, and rest */
  int64_t coeff[MAX_NEST];
  const Expr *rest;
} Affine;

typedef struct Meeting { /* the element that a thread accesses */
  int64_t at;
  int64_t thread;
} Meeting;

static bool affine_in(const Grid *g, const Nest *nest, const Expr *e, Affine *out) {
  out->rest = e;
  for (int i = 0; i < nest->n; i++) {
    const Expr *coeff = NULL, *rest = NULL;
    if (!expr_affine(g->p, out->rest, nest->var[i], &coeff, &rest) ||
        !expr_is_const(coeff, &out->coeff[i]))
      return false;
    out->rest = rest;
  }
  return true;
}

static int64_t size_of(const Nest *nest) {
  int64_t n = 1;
  for (int i = 0; i < nest->n; i++) n *= nest->extent[i];
  return n;
}

/* Of variable i, the innermost one running fastest. */
static int64_t coordinate(const Nest *nest, int64_t thread, int i) {
  for (int k = nest->n - 1; k > i; k--) thread /= nest->extent[k];
  return thread % nest->extent[i];
}

static const char *thread_text(const Grid *g, const Nest *nest, int64_t thread) {
  StrBuf b = {.arena = g->a};
  for (int i = 0; i < nest->n; i++)
    sb_printf(&b, "%s%s=%" PRId64, i ? " " : "", name_of(g, nest->var[i]),
              coordinate(nest, thread, i));
  return sb_str(&b);
}

static int by_place(const void *a, const void *b) {
  const Meeting *const x = a, *const y = b;
  if (x->at != y->at) return x->at < y->at ? -1 : 1;
  return x->thread < y->thread ? -1 : x->thread > y->thread;
}

static Meeting *all_places(const Grid *g, const Nest *nest, const Affine *f, int64_t from) {
  const int64_t n = size_of(nest);
  Meeting *const all = ARENA_ARRAY(g->a, Meeting, n);
  for (int64_t t = 0; t < n; t++) {
    all[t] = (Meeting){from, t};
    for (int i = 0; i < nest->n; i++) all[t].at += f->coeff[i] * coordinate(nest, t, i);
  }
  return all;
}

/* Two threads that meet, one through x and another through y; false: not known. */
static bool meet(const Grid *g, const Nest *nest, const Access *x, const Access *y,
                 int64_t who[2]) {
  Affine f = {0}, h = {0};
  int64_t apart = 0;
  if (!affine_in(g, nest, x->index, &f) || !affine_in(g, nest, y->index, &h) ||
      !expr_is_const(ex_sub(g->p, h.rest, f.rest), &apart))
    return false;
  const int64_t n = size_of(nest);
  Meeting *const a = all_places(g, nest, &f, 0), *const b = all_places(g, nest, &h, apart);
  qsort(a, (size_t)n, sizeof *a, by_place);
  qsort(b, (size_t)n, sizeof *b, by_place);
  for (int64_t i = 0, k = 0; i < n; i++) {
    while (k < n && b[k].at < a[i].at) k++;
    for (int64_t j = k; j < n && b[j].at == a[i].at; j++) {
      if (b[j].thread == a[i].thread) continue;
      who[0] = a[i].thread;
      who[1] = b[j].thread;
      return true;
    }
  }
  return false;
}

static bool report(const Grid *g, int level, const Access *x, const Access *y,
                   const int64_t who[2]) {
  static const char *const what[] = {"thread", "block"};
  const Nest *const nest = &g->nest[level];
  return fail(g, "race: %c%d[%s] of %s %s is the element that %s %s %s%s", x->shared ? 't' : 'b',
              x->id, expr_text(g->p, x->index), what[level], thread_text(g, nest, who[0]),
              what[level], thread_text(g, nest, who[1]), y->write ? "writes" : "reads",
              level == THREADS ? " before the next barrier" : "");
}

static bool check_pair(const Grid *g, int level, const Access *x, const Access *y) {
  const Happens most = x == y ? FOR_ALL_ALIKE : FOR_CERTAIN;
  int64_t who[2];
  if (x->id != y->id || x->shared != y->shared || (level == BLOCKS && x->shared)) return true;
  if (x->happens[level] > most || y->happens[level] > most) return true;
  return !meet(g, &g->nest[level], x, y, who) || report(g, level, x, y, who);
}

/* Of the accesses from `first` on. */
static bool check_races(const Grid *g, int level, int first) {
  for (int i = first; i < g->accesses.n; i++) {
    const Access *const x = &g->accesses.data[i];
    for (int k = first; x->write && k < g->accesses.n; k++)
      if (!check_pair(g, level, x, &g->accesses.data[k])) return false;
  }
  return true;
}

/* ---- nests ---- */
static bool check_list(Grid *g, const Stmt *s);

/* Or never. Indices may have been simplified by it. */
static bool runs_once(const Grid *g, const Expr *extent) {
  int64_t lo, hi;
  return expr_range(g->p, extent, &lo, &hi) && hi <= 1;
}

static bool enter(Grid *g, int level, const Stmt *s) {
  Nest *const nest = &g->nest[level];
  const Expr *const lo = expr_var_lo(g->p, s->loop.var->id);
  if (lo && !expr_is_i64(lo, 0))
    return fail(g, "%s loop %s does not begin at 0", level == BLOCKS ? "block" : "thread",
                name_of(g, s->loop.var));
  const Expr *const e = expr_var_extent(g->p, s->loop.var->id);
  int64_t n = 2;
  const bool constant = expr_is_const(e, &n);
  if (level == THREADS && (!constant || n < 1))
    return fail(g, "thread loop %s has the extent %s", name_of(g, s->loop.var), expr_text(g->p, e));
  if (level == BLOCKS && e->flags & ~EXF_SYM)
    return fail(g, "the extent of block loop %s uses more than symbols", name_of(g, s->loop.var));
  if (level == BLOCKS) n = runs_once(g, e) ? 1 : 2;
  nest->var[nest->n] = s->loop.var;
  nest->extent[nest->n++] = n;
  return true;
}

static bool same_threads(Grid *g) {
  const Nest *const nest = &g->nest[THREADS];
  int64_t all = 1;
  if (!g->n_threads) {
    g->n_threads = nest->n;
    for (int i = 0; i < nest->n; i++) g->threads[i] = nest->extent[i];
  }
  bool same = nest->n == g->n_threads;
  for (int i = 0; i < nest->n; i++) {
    same = same && nest->extent[i] == g->threads[i];
    all = all > MAX_THREADS || nest->extent[i] > MAX_THREADS ? MAX_THREADS + 1
                                                             : all * nest->extent[i];
  }
  if (!same)
    return fail(g, "the thread loop %s has other extents than the first one",
                name_of(g, nest->var[0]));
  return all <= MAX_THREADS || fail(g, "more than %d threads in a block", MAX_THREADS);
}

static bool check_threads(Grid *g, const Stmt *s) {
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(s, nest), first = g->accesses.n;
  if (in_thread(g))
    return fail(g, "thread loop %s is not alone in the one around it, or a fourth",
                name_of(g, s->loop.var));
  for (int i = 0; i < n; i++)
    if (!enter(g, THREADS, nest[i])) return false;
  const Happens outside = g->happens[BLOCKS];
  g->happens[THREADS] = FOR_CERTAIN;
  const bool ok =
      same_threads(g) && check_list(g, nest[n - 1]->loop.body) && check_races(g, THREADS, first);
  g->happens[BLOCKS] = outside;
  g->nest[THREADS].n = 0;
  return ok;
}

/* ---- statements ---- */
/* Outside of thread loops all threads must see the same. */
static bool check_uniform(Grid *g, const Expr *e, const char *what) {
  if (in_thread(g) || !e || !has_own(g, e)) return true;
  return fail(g, "%s %s outside of thread loops reads a local, or a buffer that is not read-only",
              what, expr_text(g->p, e));
}

static bool check_for(Grid *g, const Stmt *s) {
  const int var = s->loop.var->id;
  switch (s->loop.kind) {
    case FOR_BLOCK:
      return fail(g, "block loop %s is not alone in the one around it, or a fourth",
                  name_of(g, s->loop.var));
    case FOR_THREAD: return check_threads(g, s);
    case FOR_PARALLEL: return fail(g, "a parallel loop in a block loop");
    case FOR_MATRIX:
      if (!in_thread(g))
        return fail(g, "matrix loop %s is in no thread loop", name_of(g, s->loop.var));
      break;
    case FOR_VECTOR:
      if (!in_thread(g))
        return fail(g, "vector loop %s is in no thread loop", name_of(g, s->loop.var));
      break;
    case FOR_SERIAL:
    case FOR_UNROLL: break;
  }
  if (!check_uniform(g, expr_var_lo(g->p, var), "bound") ||
      !check_uniform(g, expr_var_extent(g->p, var), "bound"))
    return false;
  happens_in_loop(g, s->loop.var);
  if (in_thread(g) && expr_var_lo(g->p, var)) note_reads(g, expr_var_lo(g->p, var));
  if (in_thread(g)) note_reads(g, expr_var_extent(g->p, var));
  return check_list(g, s->loop.body);
}

static bool check_if(Grid *g, const Stmt *s) {
  if (!check_uniform(g, s->branch.cond, "condition")) return false;
  if (in_thread(g)) note_reads(g, s->branch.cond);
  happens_if(g, s->branch.cond);
  return check_list(g, s->branch.then) && check_list(g, s->branch.otherwise);
}

static bool check_local(Grid *g, const Stmt *s) {
  const Local *const l = &g->k->locals.data[s->access.id];
  if (l->late && (l->memory != MEM_SHARED || l->late < 0 || l->late > MAX_LATE))
    return fail(g, "local t%d cannot be late by %d", s->access.id, l->late);
  if (l->memory == MEM_SHARED && in_thread(g))
    return fail(g, "shared local t%d is declared in a thread loop", s->access.id);
  return true;
}

static bool check_write(Grid *g, const Stmt *s) {
  if (!in_thread(g))
    return fail(g, "%c%d is accessed outside of thread loops",
                s->kind == ST_SET || s->kind == ST_ACC ? 't' : 'b', s->access.id);
  stmt_each_expr(s, note_reads, g);
  const bool shared = (s->kind == ST_SET || s->kind == ST_ACC) &&
                      g->k->locals.data[s->access.id].memory == MEM_SHARED;
  if (shared || s->kind == ST_STORE) note(g, s->access.id, shared, true, s->access.index);
  return true;
}

static bool check_stmt(Grid *g, const Stmt *s) {
  switch (s->kind) {
    case ST_FOR: return check_for(g, s);
    case ST_IF: return check_if(g, s);
    case ST_LOCAL: return check_local(g, s);
    case ST_STORE:
    case ST_SET:
    case ST_ACC:
    case ST_PREFETCH: return check_write(g, s);
  }
  return false;
}

static bool check_list(Grid *g, const Stmt *s) {
  bool ok = true;
  for (; s && ok; s = s->next) {
    const Happens at[LEVELS] = {g->happens[THREADS], g->happens[BLOCKS]};
    ok = check_stmt(g, s);
    for (int k = 0; k < LEVELS; k++) g->happens[k] = at[k];
  }
  return ok;
}

/* ---- kernels ---- */
/* Of y and z a GPU takes no more (CUDA C++ Programming Guide, compute capabilities). */
static bool has_many_blocks(const Grid *g, const Stmt *loop) {
  enum { MOST = 65535 };
  int64_t n;
  return expr_is_const(expr_var_extent(g->p, loop->loop.var->id), &n) && n > MOST;
}

static bool check_shared(const Grid *g) {
  SharedPlace *places;
  const int64_t bytes = kernel_shared_places(g->a, g->k, &places);
  return bytes <= MAX_SHARED ||
         fail(g, "%" PRId64 " bytes of shared memory, at most %d are there", bytes, MAX_SHARED);
}

static bool check_grid(Grid *g) {
  const Stmt *nest[MAX_NEST];
  const int n = stmt_nest(g->k->body, nest);
  for (int i = 0; i < g->k->params.n; i++)
    if (g->k->params.data[i].scratch)
      return fail(g, "parameter b%d of a grid of blocks is scratch", i);
  for (int i = 0; i < n; i++) {
    if (!enter(g, BLOCKS, nest[i])) return false;
    if (i < n - 1 && has_many_blocks(g, nest[i]))
      return fail(g, "block loop %s is not the innermost, and has more than 65535 blocks",
                  name_of(g, nest[i]->loop.var));
  }
  return check_list(g, nest[n - 1]->loop.body) && check_races(g, BLOCKS, 0) && check_shared(g);
}

static bool mark_written(void *user, Stmt *s) {
  const Grid *const g = user;
  if (s->kind == ST_STORE) g->written[s->access.id] = true;
  return true;
}

/* In other kernels: what only a grid may have. */
static bool is_plain(void *user, Stmt *s) {
  const Grid *const g = user;
  if (s->kind == ST_LOCAL && g->k->locals.data[s->access.id].memory == MEM_SHARED)
    return fail(g, "shared local t%d is declared outside of block loops", s->access.id);
  if (s->kind != ST_FOR || s->loop.kind < FOR_BLOCK) return true;
  return s->loop.kind == FOR_BLOCK
             ? fail(g, "block loop %s is not the only top statement", name_of(g, s->loop.var))
             : fail(g, "thread loop %s is in no block loop", name_of(g, s->loop.var));
}

bool kernel_verify_grid(const Module *m, const Kernel *k, const char *after_pass) {
  Grid g = {
      .m = m, .k = k, .pass = after_pass, .a = arena_child(m->model->arena), .p = m->model->pool};
  g.written = ARENA_ARRAY(g.a, bool, k->params.n + 1);
  stmt_each(k->body, mark_written, &g);
  const bool ok = kernel_is_grid(k) ? check_grid(&g) : stmt_each(k->body, is_plain, &g);
  arena_free(g.a);
  return ok;
}
