/* Reductions of one kind inside each other; see row_chain.h. */
#include "passes/build/row_chain.h"

#include "ir/expr/expr_query.h"

RowChain row_chain_of(ExprPool *p, const Expr *r) {
  RowChain c = {.n = 0};
  for (const Expr *e = r;; e = e->a[0]) {
    c.var[c.n++] = ex_var_of(p, e->id);
    c.body = e->a[0];
    const Expr *const next = c.body;
    if (c.n == ROW_MAX_CHAIN || next->op != EX_REDUCE || next->k.i != r->k.i ||
        next->dtype != r->dtype)
      return c;
    const Expr *const lo = expr_var_lo(p, next->id);
    if (expr_var_extent(p, next->id)->flags & EXF_VAR || (lo && lo->flags & EXF_VAR)) return c;
  }
}

double row_chain_terms(ExprPool *p, const Expr *r) {
  const RowChain c = row_chain_of(p, r);
  double n = 1;
  for (int i = 0; i < c.n; i++) n *= expr_extent_guess(p, expr_var_extent(p, c.var[i]->id));
  return n;
}
