/* Reductions by threads together: of a kernel whose elements are each one sum (or product, least,
 * most) of many terms that follow each other in memory, the terms are shared out to the lanes of a
 * line of threads. So lanes beside each other read elements beside each other, and few long sums keep a
 * GPU busy. Each lane gathers its own, and pairs are combined in shared memory, halving their number
 * (in fixed order: results repeat). */
#include "passes/loop/reduce_grid.h"

#include "ir/expr/expr_query.h"

/* What an iteration of the kernel's loop does: before, a nest of loops that gathers into one local, and
 * what is done with it. */
typedef struct Gather {
  Module *m;
  Kernel *k;
  const Target *target;
  Arena *a;
  ExprPool *p;
  const Expr *row;   /* the kernel's loop; NULL: there is none */
  const Expr *rows;  /* its extent */
  const Stmt *first; /* the iteration */
  const Stmt *loop;  /* the nest */
  const Stmt *inner; /* its innermost loop */
  int sum;           /* the local */
  ReduceKind kind;
  int64_t lanes;
} Gather;

/* ---- recognising ---- */

static bool is_one(const Gather *g, int local) {
  const Local *const l = &g->k->locals.data[local];
  return l->memory == MEM_REGS && l->count == 1;
}

static const Stmt *next_loop(const Stmt *s) {
  while (s && s->kind != ST_FOR) s = s->next;
  return s;
}

/* local = its identity, before `end`. */
static bool begins(const Gather *g, const Stmt *s, const Stmt *end, int local, ReduceKind kind) {
  const Expr *const identity = reduce_identity(g->p, kind, g->k->locals.data[local].dtype);
  bool set = false;
  for (; s && s != end; s = s->next)
    if (s->kind == ST_SET && s->access.id == local) set = s->access.value == identity;
  return set;
}

/* The last statement of a loop gathers; of an outer one what the loop before it gathered, from its
 * identity on, or all is in the inner one. */
static bool read_nest(Gather *g, const Stmt *loop, int *local, ReduceKind *kind) {
  const Stmt *last = loop->loop.body, *const deeper = next_loop(last);
  if (loop->loop.kind != FOR_SERIAL && loop->loop.kind != FOR_UNROLL) return false;
  if (deeper && deeper == last && !deeper->next) return read_nest(g, deeper, local, kind);
  while (last && last->next) last = last->next;
  if (!last || last->kind != ST_ACC || !is_one(g, last->access.id)) return false;
  *local = last->access.id;
  *kind = last->access.reduce;
  if (!deeper) {
    g->inner = loop;
    return last == loop->loop.body;
  }
  int part;
  ReduceKind part_kind;
  const Expr *value = last->access.value;
  if (deeper->next != last || !read_nest(g, deeper, &part, &part_kind)) return false;
  while (value->op == EX_cast) value = value->a[0];
  return value->op == EX_LOCAL && value->id == part && part_kind == *kind &&
         begins(g, loop->loop.body, deeper, part, *kind);
}

/* Around the nest only locals of one element are set, and stores stand behind it. */
static bool read_rest(const Gather *g) {
  bool behind = false;
  for (const Stmt *s = g->first; s; s = s->next) {
    behind |= s == g->loop;
    if (s == g->loop || s->kind == ST_LOCAL) continue;
    if (s->kind == ST_STORE ? !behind : s->kind != ST_SET || !is_one(g, s->access.id)) return false;
  }
  return begins(g, g->first, g->loop, g->sum, g->kind);
}

typedef struct Strides {
  const Gather *g;
  bool along; /* some load goes along the sum */
} Strides;

static bool follows(const Gather *g, const Expr *index, const Expr *var) {
  const Expr *coeff, *rest;
  return var && expr_affine(g->p, index, var, &coeff, &rest) && expr_is_i64(coeff, 1);
}

static void note_load(void *user, const Expr *load) {
  Strides *const s = user;
  if (follows(s->g, load->a[0], s->g->inner->loop.var)) s->along = true;
}

static bool reads_along(const Gather *g) {
  Strides s = {g, false};
  expr_each_load(g->p, g->inner->loop.body->access.value, note_load, &s);
  return s.along;
}

/* A line of lanes for each row: where lanes read neighbours, or rows are too few to keep all busy. */
static bool choose_lanes(Gather *g) {
  enum { WARP = 32, MOST = 256, FEW = 64, LONG = 256 };
  const Expr *const n = expr_var_extent(g->p, g->inner->loop.var->id);
  int64_t lo, most;
  const bool bounded = expr_range(g->p, n, &lo, &most) && most < INT32_MAX;
  const double terms = bounded ? (double)most : expr_extent_guess(g->p, n),
               rows = expr_extent_guess(g->p, g->rows);
  const bool few = rows < (double)FEW * g->target->gpu->sms && terms >= LONG;
  const bool own = (n->flags & ~(EXF_SYM | EXF_VAR)) || (g->row && expr_uses_var(n, g->row->id));
  if (terms < WARP || own || (!few && !reads_along(g))) return false;
  g->lanes = WARP;
  while (g->lanes < MOST && terms >= (double)g->lanes * 16) g->lanes *= 2;
  return true;
}

static bool read_kernel(Gather *g) {
  const Stmt *const s = g->k->body;
  const bool parallel = s && s->kind == ST_FOR && s->loop.kind == FOR_PARALLEL;
  g->row = parallel ? s->loop.var : NULL;
  g->rows = parallel ? expr_var_extent(g->p, s->loop.var->id) : ex_i64(g->p, 1);
  g->first = parallel ? s->loop.body : s;
  g->loop = next_loop(g->first);
  const Expr *const lo = parallel ? expr_var_lo(g->p, g->row->id) : NULL;
  if (g->rows->flags & ~EXF_SYM || (lo && !expr_is_i64(lo, 0))) return false;
  return g->loop && !next_loop(g->loop->next) && read_nest(g, g->loop, &g->sum, &g->kind) &&
         read_rest(g) && choose_lanes(g);
}

/* ---- writing ---- */

/* A nest of threads: which row of the block, which lane. */
typedef struct Threads {
  const Gather *g;
  const Expr *line, *lane;
  const Expr *row;  /* of all */
  const Expr *term; /* of the innermost loop, for the lane */
  const Expr *step; /* its new variable */
} Threads;

static const Expr *num(const Gather *g, int64_t n) { return ex_i64(g->p, n); }

static Threads threads_of(const Gather *g, const Expr *block, int64_t lines) {
  Threads t = {.g = g,
               .line = ex_var(g->p, "r", num(g, lines)),
               .lane = ex_var(g->p, "lane", num(g, g->lanes))};
  t.row = ex_add(g->p, ex_mul(g->p, block, num(g, lines)), t.line);
  return t;
}

static const Expr *renamed(void *user, const Expr *leaf) {
  const Threads *const t = user;
  if (leaf == t->g->row) return t->row;
  return t->term && leaf == t->g->inner->loop.var ? t->term : NULL;
}

static Stmt *nest(const Threads *t, Stmt *body) {
  return stmt_for(t->g->a, FOR_THREAD, t->line, stmt_for(t->g->a, FOR_THREAD, t->lane, body));
}

/* The statements from s to end, as the thread does them; the sum is declared elsewhere. */
static Stmt *copied(Threads *t, const Stmt *s, const Stmt *end) {
  const Gather *const g = t->g;
  StmtList l = {0};
  for (; s != end; s = s->next) {
    if (s->kind == ST_LOCAL && s->access.id == g->sum) continue;
    Stmt one = *s;
    one.next = NULL;
    stmt_add(&l, stmt_rewrite(g->a, g->p, &one, renamed, t));
  }
  return l.first;
}

/* The nest, of whose innermost loop the lane takes each lanes-th term. */
static Stmt *own_terms(Threads *t, const Stmt *loop) {
  const Gather *const g = t->g;
  StmtList body = {0};
  if (loop != g->inner) {
    const Stmt *const deeper = next_loop(loop->loop.body);
    stmt_add(&body, copied(t, loop->loop.body, deeper));
    stmt_add(&body, own_terms(t, deeper));
    stmt_add(&body, copied(t, deeper->next, NULL));
    return stmt_for(g->a, FOR_SERIAL, loop->loop.var, body.first);
  }
  const Expr *const n = expr_var_extent(g->p, loop->loop.var->id);
  const Expr *const lo = expr_var_lo(g->p, loop->loop.var->id);
  const Expr *const step = ex_var(g->p, "k", ex_ceildiv(g->p, n, g->lanes));
  const Expr *const at = ex_add(g->p, ex_mul(g->p, step, num(g, g->lanes)), t->lane);
  t->term = lo ? ex_add(g->p, lo, at) : at;
  Stmt *const one = copied(t, loop->loop.body, NULL);
  t->term = NULL;
  return stmt_for(g->a, FOR_SERIAL, step, stmt_if(g->a, ex_lt(g->p, at, n), one, NULL));
}

static const Expr *shared_at(const Threads *t, int shared, const Expr *lane) {
  const Gather *const g = t->g;
  const Expr *const at = ex_add(g->p, ex_mul(g->p, t->line, num(g, g->lanes)), lane);
  return ex_local(g->p, g->k->locals.data[g->sum].dtype, shared, at);
}

static Stmt *set_shared(const Threads *t, int shared, const Expr *value) {
  return stmt_set(t->g->a, shared, shared_at(t, shared, t->lane)->a[0], value);
}

/* Lanes below `half` take the sums of those behind them. */
static Stmt *combine(const Threads *t, int shared, int64_t half) {
  const Gather *const g = t->g;
  const Expr *const other = shared_at(t, shared, ex_add(g->p, t->lane, num(g, half)));
  const Expr *const both = reduce_combine(g->p, g->kind, shared_at(t, shared, t->lane), other);
  return stmt_if(g->a, ex_lt(g->p, t->lane, num(g, half)), set_shared(t, shared, both), NULL);
}

bool reduce_grid(Module *m, Kernel *k, const Target *target) {
  enum { THREADS = 256 };
  Gather gather = {.m = m, .k = k, .target = target, .a = m->model->arena, .p = m->model->pool};
  const Gather *const g = &gather;
  if (!read_kernel(&gather)) return false;
  const DType type = k->locals.data[g->sum].dtype;
  const int64_t lines = g->row ? THREADS / g->lanes : 1;
  const int shared = kernel_add_local(
      m, k,
      (Local){.name = "sums", .dtype = type, .count = lines * g->lanes, .memory = MEM_SHARED});
  const Expr *const block = ex_var(g->p, "b", ex_ceildiv(g->p, g->rows, lines));
  const Expr *const zero = num(g, 0);
  StmtList l = {0}, own = {0}, rest = {0};
  stmt_add(&l, stmt_local(g->a, shared));
  stmt_add(&l, stmt_local(g->a, g->sum));
  Threads t = threads_of(g, block, lines);
  StmtList terms = {0};
  stmt_add(&terms, copied(&t, g->first, g->loop));
  stmt_add(&terms, own_terms(&t, g->loop));
  stmt_add(&own, stmt_set(g->a, g->sum, zero, reduce_identity(g->p, g->kind, type)));
  stmt_add(&own, stmt_if(g->a, ex_lt(g->p, t.row, g->rows), terms.first, NULL));
  stmt_add(&own, set_shared(&t, shared, ex_local(g->p, type, g->sum, zero)));
  stmt_add(&l, nest(&t, own.first));
  for (int64_t half = g->lanes / 2; half; half /= 2) {
    t = threads_of(g, block, lines);
    stmt_add(&l, nest(&t, combine(&t, shared, half)));
  }
  t = threads_of(g, block, lines);
  stmt_add(&rest, copied(&t, g->first, g->loop));
  stmt_add(&rest, stmt_set(g->a, g->sum, zero, shared_at(&t, shared, zero)));
  stmt_add(&rest, copied(&t, g->loop->next, NULL));
  const Expr *const first = ex_and(g->p, ex_eq(g->p, t.lane, zero), ex_lt(g->p, t.row, g->rows));
  stmt_add(&l, nest(&t, stmt_if(g->a, first, rest.first, NULL)));
  k->body = stmt_for(g->a, FOR_BLOCK, block, l.first);
  return true;
}
