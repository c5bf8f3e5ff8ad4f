/* Loop nests of kernels; see nest.h. */
#include "passes/build/nest.h"

#include "passes/cost/machine_model.h"

Stmt *nest_parallel(KernelBuild *b, const Expr *var, Stmt *body, double cycles) {
  return nest_outer(b, var, body, cycles, model_parallel(cycles));
}

Stmt *nest_outer(KernelBuild *b, const Expr *var, Stmt *body, double cycles, bool parallel) {
  const double count = expr_extent_guess(b->l->p, expr_var_extent(b->l->p, var->id));
  if (parallel) b->k->grain = cycles / count;
  return stmt_for(b->l->m->arena, parallel ? FOR_PARALLEL : FOR_SERIAL, var, body);
}
