/* Does a kernel store each element of a buffer at most once? Its loops are run, without what they
 * compute: tiles of rows and columns, whose sizes and places hang on those around them. */
#include <string.h>
#include "ir/expr/expr_query.h"
#include "ir/loop/in_place.h"

enum { MOST_EVALUATIONS = 2 << 20, MOST_TAIL = 8 };

typedef struct Once {
  ExprPool *p;
  int param;
  int64_t count; /* of the buffer's elements */
  uint8_t *bits;
  EvalEnv env;
  int64_t budget;
} Once;

static bool holds_store(const Once *o, const Stmt *s);

/* It stores into the buffer, or something inside it does. */
static bool stores(const Once *o, const Stmt *s) {
  return (s->kind == ST_STORE && s->access.id == o->param) || holds_store(o, stmt_body(s)) ||
         holds_store(o, stmt_otherwise(s));
}

static bool holds_store(const Once *o, const Stmt *s) {
  while (s && !stores(o, s)) s = s->next;
  return s != NULL;
}

/* Sizes of the caller and data are not known here. */
static bool eval(Once *o, const Expr *e, int64_t *out) {
  if (o->budget-- <= 0 || (e->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE | EXF_HOLE | EXF_SYM)))
    return false;
  *out = expr_eval(o->p, e, &o->env).i;
  return true;
}

static bool mark(Once *o, int64_t k) {
  if (k < 0 || k >= o->count || (o->bits[k / 8] >> k % 8 & 1)) return false;
  o->bits[k / 8] |= (uint8_t)(1 << k % 8);
  return true;
}

/* ---- loops whose iterations are evenly spaced ---- */
typedef struct Tail {
  int n;
  int64_t extent[MOST_TAIL], stride[MOST_TAIL];
  const Expr *index; /* of the store inside */
} Tail;

static bool mark_tail(Once *o, const Tail *t, int level, int64_t at) {
  if (level == t->n) return mark(o, at);
  for (int64_t k = 0; k < t->extent[level]; k++)
    if (!mark_tail(o, t, level + 1, at + k * t->stride[level])) return false;
  return true;
}

/* The extent of a loop below `n` others, which those outside of them may decide. */
static bool tail_extent(Once *o, const Expr *extent, int n, const Expr *const *vars, int64_t *out) {
  for (int i = 0; i < n; i++)
    if (expr_uses_var(extent, vars[i]->id)) return false;
  return expr_is_const(extent, out) || eval(o, extent, out);
}

/* The one store below loop s, and the loops on the way, none of which decides how often another runs. */
static bool find_tail(Once *o, const Stmt *s, Tail *t) {
  const Expr *vars[MOST_TAIL];
  while (s->kind == ST_FOR) {
    const Stmt *inner = NULL;
    const Expr *var = s->loop.var;
    if (t->n == MOST_TAIL || !expr_is_i64(expr_var_lo(o->p, var->id), 0) ||
        !tail_extent(o, expr_var_extent(o->p, var->id), t->n, vars, &t->extent[t->n]))
      return false;
    vars[t->n++] = var;
    for (const Stmt *x = stmt_body(s); x; x = x->next) {
      if (!stores(o, x)) continue;
      if (inner) return false;
      inner = x;
    }
    s = inner;
  }
  if (s->kind != ST_STORE) return false;
  t->index = s->access.index;
  for (int i = 0; i < t->n; i++) {
    const Expr *coeff, *rest;
    if (!expr_uses_var(t->index, vars[i]->id))
      t->stride[i] = 0;
    else if (!expr_affine(o->p, t->index, vars[i], &coeff, &rest) ||
             !expr_is_const(coeff, &t->stride[i]))
      return false;
    o->env.vars[vars[i]->id] = 0;
  }
  return true;
}

/* ---- all others, one by one ---- */
static bool run_list(Once *o, const Stmt *s);

static bool run_loop(Once *o, const Stmt *s) {
  Tail t = {0};
  int64_t lo, extent, at;
  if (find_tail(o, s, &t)) return eval(o, t.index, &at) && mark_tail(o, &t, 0, at);
  const int var = s->loop.var->id;
  if (!eval(o, expr_var_lo(o->p, var), &lo) || !eval(o, expr_var_extent(o->p, var), &extent))
    return false;
  for (int64_t k = lo; k < lo + extent; k++) {
    o->env.vars[var] = k;
    if (!run_list(o, stmt_body(s))) return false;
  }
  return true;
}

static bool run_stmt(Once *o, const Stmt *s) {
  int64_t v;
  switch (s->kind) {
    case ST_FOR: return run_loop(o, s);
    case ST_IF:
      return eval(o, s->branch.cond, &v) && run_list(o, v ? s->branch.then : s->branch.otherwise);
    case ST_STORE: return eval(o, s->access.index, &v) && mark(o, v);
    default: return true;
  }
}

static bool run_list(Once *o, const Stmt *s) {
  for (; s; s = s->next)
    if (stores(o, s) && !run_stmt(o, s)) return false;
  return true;
}

bool in_place_stores_once(const Module *m, const Kernel *k, int param, const Expr *count) {
  Once o = {.p = m->model->pool, .param = param, .budget = MOST_EVALUATIONS};
  if (!expr_is_const(count, &o.count) || o.count > INT32_MAX) return false;
  Arena *const scratch = arena_child(m->model->arena);
  o.bits = ARENA_ARRAY(scratch, uint8_t, o.count / 8 + 1);
  o.env.vars = ARENA_ARRAY(scratch, int64_t, expr_var_count(o.p) + 1);
  const bool once = run_list(&o, k->body);
  arena_free(scratch);
  return once;
}
