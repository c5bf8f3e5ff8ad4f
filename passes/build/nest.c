/* Loop nests of kernels; see nest.h. */
#include "passes/build/nest.h"

#include "passes/cost/machine_model.h"

void nest_indices(ExprPool *p, const Expr *flat, int n, const Expr *const *extent,
                  const Expr **index) {
  int first = 0;
  while (first < n && expr_is_i64(extent[first], 1)) first++;
  for (int d = n - 1; d >= 0; d--) {
    index[d] = d > first ? ex_floormod(p, flat, extent[d]) : d == first ? flat : ex_i64(p, 0);
    if (d > first) flat = ex_floordiv(p, flat, extent[d]);
  }
}

Stmt *nest_strips(KernelBuild *b, const Expr *count, int width, NestStrip strip, void *user) {
  Arena *a = b->l->m->arena;
  ExprPool *p = b->l->p;
  int64_t n;
  const bool fixed = expr_is_const(count, &n);
  const Expr *w = ex_i64(p, width), *full = ex_floordiv(p, count, w), *t = ex_var(p, "w", full);
  StmtList list = {0};
  stmt_add(&list, stmt_for(a, FOR_SERIAL, t, strip(user, ex_mul(p, t, w), width)));
  const Expr *done = ex_mul(p, full, w), *left = ex_floormod(p, count, w);
  if (fixed && n % width) stmt_add(&list, strip(user, done, (int)(n % width)));
  if (!fixed && !expr_is_i64(left, 0)) {
    const Expr *r = ex_var(p, "w", left);
    stmt_add(&list, stmt_for(a, FOR_SERIAL, r, strip(user, ex_add(p, done, r), 1)));
  }
  return list.first;
}

Stmt *nest_parallel(KernelBuild *b, const Expr *var, Stmt *body, double cycles) {
  const bool parallel = target_has_grids(b->l->c->target) || model_parallel(cycles);
  return nest_outer(b, var, body, cycles, parallel);
}

Stmt *nest_outer(KernelBuild *b, const Expr *var, Stmt *body, double cycles, bool parallel) {
  const double count = expr_extent_guess(b->l->p, expr_var_extent(b->l->p, var->id));
  if (parallel) b->k->grain = cycles / count;
  return stmt_for(b->l->m->arena, parallel ? FOR_PARALLEL : FOR_SERIAL, var, body);
}
