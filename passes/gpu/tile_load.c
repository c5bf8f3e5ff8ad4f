/* Elements on their way into a tile in shared memory (tile_load.h). */
#include "passes/gpu/tile_load.h"

#include "ir/expr/expr_query.h"

bool tile_keeps_zero(const Expr *e) {
  while (e->op == EX_cast || e->op == EX_bits) e = e->a[0];
  return e->op == EX_LOAD;
}

const Expr *tile_stored(ExprPool *p, DType type, const Expr *e) {
  while (e->op == EX_cast && e->a[0]->dtype == type) return e->a[0];
  return ex_cast(p, type, e);
}

const Expr *tile_below(ExprPool *p, const Expr *first, const Expr *i, int width,
                       const Expr *extent) {
  int64_t n;
  const bool whole = expr_is_const(extent, &n) && n % width == 0;
  return ex_lt(p, whole ? first : ex_add(p, first, i), extent);
}

bool tile_copies(const Kernel *k, ExprPool *p, const Expr *e, const Expr *v, DType type) {
  enum { MOST = 32, BYTES = 16 };
  const Expr *coeff, *first;
  if (e->op != EX_LOAD || (DType)e->dtype != type || (e->a[1] && expr_uses_var(e->a[1], v->id)) ||
      !expr_affine(p, e->a[0], v, &coeff, &first) || !expr_is_i64(coeff, 1))
    return false;
  ExprTerm term[MOST];
  const int n = expr_terms(p, first, term, MOST);
  for (int i = 0; i < n; i++)
    if (term[i].coeff % (BYTES / dtype_bytes(type))) return false;
  const Param *const from = &k->params.data[e->id];
  return n >= 0 && from->align >= BYTES && !(from->access & PA_WRITE);
}
