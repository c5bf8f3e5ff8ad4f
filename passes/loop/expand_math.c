/* Puts polynomials where kernels and steps have math rows (exp … pow): one meaning for interpreter,
 * vector body and scalar tail, on every target. Needs nothing; code generation and the interpreter
 * need it. The rows themselves: ir/expr/math.c. */
#include "passes/pass.h"

static const Expr *expanded(void *user, const Expr *e) {
  PassCtx *const c = user;
  if (!(e->flags & EXF_MATH)) return e;
  c->changed = true;
  return expr_lower_math(c->model->pool, e);
}

static bool expand_stmt(void *user, Stmt *s) {
  stmt_map_exprs(s, expanded, user);
  return true;
}

static bool expand_step(void *user, Step *s) {
  step_map_exprs(((PassCtx *)user)->model->arena, s, expanded, user);
  return true;
}

bool pass_expand_math(PassCtx *c) {
  Module *m = c->module;
  for (int i = 0; i < m->kernels.n; i++) stmt_each(m->kernels.data[i]->body, expand_stmt, c);
  step_each(m->steps, expand_step, c);
  return true;
}
