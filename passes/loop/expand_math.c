/* Puts polynomials where kernels and steps have math rows (exp … pow): one meaning for interpreter,
 * vector body and scalar tail, on every target. Needs nothing; code generation and the interpreter
 * need it. The rows themselves: ir/expr/math.c. */
#include "passes/pass.h"

static const Expr *expanded(PassCtx *c, const Expr *e) {
  if (!e || !(e->flags & EXF_MATH)) return e;
  c->changed = true;
  return expr_lower_math(c->model->pool, e);
}

static void expand_block(PassCtx *c, Stmt *s) {
  for (; s; s = s->next) {
    s->cond = expanded(c, s->cond);
    s->index = expanded(c, s->index);
    s->value = expanded(c, s->value);
    expand_block(c, s->body);
    expand_block(c, s->otherwise);
  }
}

static void expand_steps(PassCtx *c, Step *s) {
  for (; s; s = s->next) {
    s->value = expanded(c, s->value);
    s->lo = expanded(c, s->lo);
    s->hi = expanded(c, s->hi);
    s->trip = expanded(c, s->trip);
    s->count = expanded(c, s->count);
    expand_steps(c, s->body);
    expand_steps(c, s->otherwise);
  }
}

bool pass_expand_math(PassCtx *c) {
  Module *m = c->module;
  for (int i = 0; i < m->kernels.n; i++) expand_block(c, m->kernels.data[i]->body);
  expand_steps(c, m->steps);
  return true;
}
