/* Which locals can be registers: indexes must be constants once unrolled loops and constant vector
 * loops are copied out. And which elements of a register tile anybody reads: what a partly filled
 * vector leaves in the others does not matter. */
#include <string.h>

#include "codegen/analysis/kernel.h"
#include "ir/loop/matrix.h"

enum { MAX_REGISTER_LOCAL = 4096, SPREAD = 4 }; /* elements; times these, for sums of terms */

/* ---- loops around the cursor ---- */
typedef struct Loop {
  const Expr *var;
  bool copied; /* its variable is a constant wherever code is made */
  const struct Loop *outer;
} Loop;

typedef struct Scan {
  ExprPool *pool;
  const Kernel *k;
  Arena *arena;
  bool copied;        /* unrolled and vector loops are */
  const Loop *loops;  /* innermost first */
  const Expr *vector; /* variable of the vector loop among them */
  LocalUse *use;
  const Expr **declared_in; /* by local: the vector variable around its declaration, or NULL */
  Vec(const Expr *) reads;  /* EX_LOCAL nodes, each once a statement */
  bool *room;               /* for mark_read: zeros */
  bool *otherwise;          /* by local: set, or added to, in other ways than LocalUse.across */
} Scan;

static bool is_running(void *user, const Expr *e) {
  if (e->op != EX_VAR) return false;
  const Loop *l = ((const Scan *)user)->loops;
  while (l && l->var != e) l = l->outer;
  return !l || !l->copied;
}

static bool is_known(const Scan *s, const Expr *e) {
  return !(e->flags & (EXF_LOAD | EXF_REDUCE | EXF_LOCAL | EXF_SYM | EXF_HOLE)) &&
         !expr_any(e, EXF_VAR, is_running, (void *)s);
}

static bool is_copied(const Scan *s, const Stmt *f) {
  const Expr *const n = expr_var_extent(s->pool, f->loop.var->id);
  int64_t count;
  const bool few = expr_is_const(n, &count) && count <= MATRIX_PAIR;
  const bool wanted = f->loop.kind == FOR_UNROLL || expr_is_i64(n, 1) ||
                      (f->loop.kind == FOR_MATRIX && few) ||
                      (f->loop.kind == FOR_VECTOR && !s->vector);
  return s->copied && wanted && is_known(s, expr_var_lo(s->pool, f->loop.var->id)) &&
         is_known(s, n);
}

/* ---- accesses ---- */
static void see_access(Scan *s, int local, const Expr *index) {
  LocalUse *const u = &s->use[local];
  if (!is_known(s, index)) {
    u->memory = true;
    return;
  }
  if (!s->vector || !expr_uses_var(index, s->vector->id)) return;
  const Expr *coeff, *rest;
  const bool own = s->declared_in[local] == s->vector;
  if (own || !expr_affine(s->pool, index, s->vector, &coeff, &rest) || !expr_is_i64(coeff, 1))
    u->memory = true;
  else
    u->sliced = true;
}

static bool is_byte(const Expr *e) {
  return e->op == EX_cast && e->dtype == DT_I32 && e->a[0]->op == EX_LOAD &&
         dtype_bytes(e->a[0]->dtype) == 1;
}

/* Whether it is set outside of vector loops, and else adds up products of bytes over their lanes. */
static void see_sum(Scan *s, const Stmt *st) {
  const int id = st->access.id;
  const Expr *const v = st->access.value;
  const bool vector = s->vector && s->declared_in[id] != s->vector;
  const bool sums = st->kind == ST_ACC && st->access.reduce == RED_SUM && vector &&
                    !expr_uses_var(st->access.index, s->vector->id) && v->op == EX_mul &&
                    v->dtype == DT_I32 && is_byte(v->a[0]) && is_byte(v->a[1]);
  if (sums)
    s->use[id].across = true;
  else if (st->kind == ST_ACC || s->vector)
    s->otherwise[id] = true;
}

static bool keep_read(void *user, const Expr *e) {
  Scan *const s = user;
  if (e->op == EX_LOCAL) vec_push(s->arena, &s->reads, e);
  return false;
}

static void see_expr(void *user, const Expr *e) {
  Scan *const s = user;
  const int first = s->reads.n;
  expr_any(e, EXF_LOCAL, keep_read, s);
  for (int i = first; i < s->reads.n; i++)
    see_access(s, s->reads.data[i]->id, s->reads.data[i]->a[0]);
}

static void see_list(Scan *s, const Stmt *st);

static void see_loop(Scan *s, const Stmt *st) {
  const Expr *const outer = s->vector;
  see_expr(s, expr_var_lo(s->pool, st->loop.var->id));
  see_expr(s, expr_var_extent(s->pool, st->loop.var->id));
  const Loop l = {st->loop.var, is_copied(s, st), s->loops};
  if (st->loop.kind == FOR_VECTOR && !outer) s->vector = st->loop.var;
  s->loops = &l;
  see_list(s, st->loop.body);
  s->loops = l.outer;
  s->vector = outer;
}

static void see_local(Scan *s, int id) {
  s->declared_in[id] = s->vector;
  s->use[id].lanes |= s->vector != NULL;
  const Local *const l = &s->k->locals.data[id];
  s->use[id].memory |=
      (l->memory != MEM_REGS && l->memory != MEM_MATRIX) || l->count > MAX_REGISTER_LOCAL;
}

static void see_list(Scan *s, const Stmt *st) {
  for (; st; st = st->next) {
    if (st->kind == ST_LOCAL) see_local(s, st->access.id);
    if (st->kind == ST_SET || st->kind == ST_ACC) {
      see_access(s, st->access.id, st->access.index);
      see_sum(s, st);
    }
    stmt_each_expr(st, see_expr, s);
    if (st->kind == ST_FOR) {
      see_loop(s, st);
      continue;
    }
    see_list(s, stmt_body(st));
    see_list(s, stmt_otherwise(st));
  }
}

/* ---- elements that are read ---- */
typedef struct Elements {
  bool *set; /* of those from `first` on */
  int64_t first;
  int64_t n;
} Elements;

/* x + step*t for each x of the set and t in 0..=most; room for all that come. */
static void spread(Elements *e, int64_t step, int64_t most) {
  for (int64_t x = e->n - 1; x >= 0; x--)
    for (int64_t t = 1; e->set[x] && t <= most; t++) e->set[x + step * t] = true;
  e->n += step * most;
}

static bool first_var(void *user, const Expr *e) {
  if (e->op == EX_VAR) *(const Expr **)user = e;
  return e->op == EX_VAR;
}

/* Takes one variable after the other out of a sum; false: it is none of constant multiples with
 * known ranges. */
static bool spread_sum(ExprPool *pool, const Expr *index, Elements *e, int64_t room) {
  const Expr *var, *coeff, *rest;
  for (; expr_any(index, EXF_VAR, first_var, &var); index = rest) {
    int64_t c, lo, hi;
    if (!expr_affine(pool, index, var, &coeff, &rest) || !expr_is_const(coeff, &c) ||
        !expr_range(pool, var, &lo, &hi) || lo == INT64_MIN || hi == INT64_MAX || hi < lo)
      return false;
    const int64_t step = c < 0 ? -c : c;
    if (step > room || hi - lo > room || e->n + step * (hi - lo) > room) return false;
    e->first += c < 0 ? c * hi : c * lo;
    spread(e, step, hi - lo);
  }
  int64_t k;
  if (!expr_is_const(index, &k)) return false;
  e->first += k;
  return true;
}

/* Every element that a read can name; all, where that is not known. */
static void mark_read(Scan *s, const Expr *read) {
  const int64_t count = s->k->locals.data[read->id].count;
  bool *const all = s->use[read->id].read;
  Elements e = {s->room, 0, 1};
  e.set[0] = true;
  const bool known = spread_sum(s->pool, read->a[0], &e, SPREAD * MAX_REGISTER_LOCAL);
  if (!known) memset(all, true, (size_t)count);
  for (int64_t x = 0; x < e.n; x++) {
    if (e.set[x] && e.first + x >= 0 && e.first + x < count) all[e.first + x] = true;
    e.set[x] = false;
  }
}

static void mark_reads(Scan *s) {
  for (int i = 0; i < s->k->locals.n; i++)
    if (s->use[i].sliced && !s->use[i].memory)
      s->use[i].read = ARENA_ARRAY(s->arena, bool, s->k->locals.data[i].count);
  s->room = s->reads.n ? ARENA_ARRAY(s->arena, bool, SPREAD *MAX_REGISTER_LOCAL + 1) : NULL;
  for (int i = 0; i < s->reads.n; i++)
    if (s->use[s->reads.data[i]->id].read) mark_read(s, s->reads.data[i]);
}

LocalUse *kernel_locals(ExprPool *pool, const Kernel *k, bool copied, Arena *a) {
  Scan s = {.pool = pool,
            .k = k,
            .arena = a,
            .copied = copied,
            .use = ARENA_ARRAY(a, LocalUse, k->locals.n + 1),
            .declared_in = ARENA_ARRAY(a, const Expr *, k->locals.n + 1),
            .otherwise = ARENA_ARRAY(a, bool, k->locals.n + 1)};
  see_list(&s, k->body);
  for (int i = 0; i < k->locals.n; i++)
    if (s.otherwise[i] || s.use[i].memory || s.use[i].lanes) s.use[i].across = false;
  mark_reads(&s);
  return s.use;
}

/* ---- symbols ---- */
typedef struct Symbols {
  ExprPool *pool;
  bool *used;
} Symbols;

static bool note_symbol(void *user, const Expr *e) {
  if (e->op == EX_SYM) ((bool *)user)[e->id] = true;
  return false;
}

static void symbols_of(void *user, const Expr *e) {
  expr_any(e, EXF_SYM, note_symbol, ((const Symbols *)user)->used);
}

static bool symbols_of_stmt(void *user, Stmt *st) {
  const Symbols *const s = user;
  stmt_each_expr(st, symbols_of, user);
  if (st->kind == ST_FOR) {
    symbols_of(user, expr_var_lo(s->pool, st->loop.var->id));
    symbols_of(user, expr_var_extent(s->pool, st->loop.var->id));
  }
  return true;
}

bool *kernel_symbols(ExprPool *pool, const Kernel *k, Arena *a) {
  Symbols s = {pool, ARENA_ARRAY(a, bool, expr_symbol_count(pool) + 1)};
  stmt_each(k->body, symbols_of_stmt, &s);
  for (int i = 0; i < k->params.n; i++)
    if (k->params.data[i].scratch) symbols_of(&s, k->params.data[i].count);
  return s.used;
}
