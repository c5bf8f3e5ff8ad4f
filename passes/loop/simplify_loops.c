/* Tidies kernels after lowering: expressions are rebuilt with what is known of ranges, loops that
 * run once become their body, loops and conditions that do nothing go. Loops of grids stay: what a
 * kernel is hangs on them. Needs nothing; breaks nothing; hoists nothing. */
#include "passes/pass.h"

typedef struct Tidy {
  ExprPool *p;
  Arena *a;
  bool changed;
} Tidy;

static Stmt *tidy_block(Tidy *t, Stmt *s);

static const Expr *tidy_expr(Tidy *t, const Expr *e) {
  if (!e) return NULL;
  const Expr *by = expr_simplify(t->p, e);
  t->changed |= by != e;
  return by;
}

typedef struct Subst {
  const Expr *var, *by;
} Subst;

static const Expr *subst_var(void *user, const Expr *leaf) {
  const Subst *s = user;
  return leaf == s->var ? s->by : NULL;
}

static Stmt *tidy_for(Tidy *t, Stmt *s) {
  int64_t extent = 0;
  const Expr *e = expr_simplify(t->p, expr_var_extent(t->p, s->loop.var->id));
  /* as many as an operation has, or a nest of a grid */
  const bool grid = s->loop.kind == FOR_BLOCK || s->loop.kind == FOR_THREAD;
  const bool whole = grid || s->loop.kind == FOR_MATRIX;
  if (!whole && expr_is_const(e, &extent) && extent <= 1) {
    t->changed = true;
    if (extent < 1) return NULL;
    const Expr *lo = expr_var_lo(t->p, s->loop.var->id);
    Subst by = {s->loop.var, lo ? lo : ex_i64(t->p, 0)};
    return tidy_block(t, stmt_rewrite(t->a, t->p, s->loop.body, subst_var, &by));
  }
  s->loop.body = tidy_block(t, s->loop.body);
  t->changed |= !s->loop.body;
  return s->loop.body || grid ? s : NULL;
}

static Stmt *tidy_if(Tidy *t, Stmt *s) {
  int64_t cond = 0;
  s->branch.cond = tidy_expr(t, s->branch.cond);
  if (expr_is_const(s->branch.cond, &cond)) {
    t->changed = true;
    return tidy_block(t, cond ? s->branch.then : s->branch.otherwise);
  }
  s->branch.then = tidy_block(t, s->branch.then);
  s->branch.otherwise = tidy_block(t, s->branch.otherwise);
  return s->branch.then || s->branch.otherwise ? s : NULL;
}

static Stmt *tidy_stmt(void *user, Stmt *s) {
  Tidy *const t = user;
  if (s->kind == ST_FOR) return tidy_for(t, s);
  if (s->kind == ST_IF) return tidy_if(t, s);
  s->access.index = tidy_expr(t, s->access.index);
  s->access.value = tidy_expr(t, s->access.value);
  return s;
}

static Stmt *tidy_block(Tidy *t, Stmt *s) { return stmt_map_list(s, tidy_stmt, t); }

bool pass_simplify_loops(PassCtx *c) {
  Module *m = c->module;
  Tidy t = {.p = m->model->pool, .a = m->model->arena};
  for (int i = 0; i < m->kernels.n; i++)
    m->kernels.data[i]->body = tidy_block(&t, m->kernels.data[i]->body);
  c->changed |= t.changed;
  return true;
}
