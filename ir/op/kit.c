/* Helpers shared by the math and nn families (kit.h). */
#include "ir/op/kit.h"

const Expr *kit_inside(ExprPool *p, const Expr *i, const Expr *size) {
  int64_t lo, hi, n;
  const bool known = expr_range(p, i, &lo, &hi);
  const Expr *below =
      known && expr_is_const(size, &n) && hi < n ? ex_bool(p, true) : ex_lt(p, i, size);
  if (known && lo >= 0) return below;
  return ex_and(p, ex_le(p, ex_i64(p, 0), i), below);
}

bool kit_add(Model *m, const Node *n, int64_t a, int64_t b, int64_t *out) {
  return ck_add(a, b, out) ||
         op_error(m, n, ERR_OVERFLOW, "size overflows: %lld + %lld", (long long)a, (long long)b);
}

bool kit_mul(Model *m, const Node *n, int64_t a, int64_t b, int64_t *out) {
  return ck_mul(a, b, out) ||
         op_error(m, n, ERR_OVERFLOW, "size overflows: %lld * %lld", (long long)a, (long long)b);
}

bool kit_need_vector(Model *m, const Node *n, int k, const Expr *size, const char *what) {
  const Value *v = node_in(n, k);
  const Expr *same;
  if (!v) return true;
  if (v->rank != 1)
    return op_error(m, n, ERR_RANK, "%s has rank %d, must have rank 1", what, v->rank);
  return op_same_dim(m, n, v->dims[0], size, what, &same);
}

bool kit_need_scalar(Model *m, const Node *n, int k, const char *what) {
  const Value *v = node_in(n, k);
  if (!v) return true;
  for (int d = 0; d < v->rank; d++) {
    int64_t size;
    if (!expr_is_const(v->dims[d], &size) || size != 1)
      return op_error(m, n, ERR_SHAPE, "%s must have one element", what);
  }
  return true;
}

const Expr *kit_scalar(ElemCtx *c, const Node *n, int k, DType t) {
  const Expr *zeros[MAX_RANK];
  for (int d = 0; d < MAX_RANK; d++) zeros[d] = ex_i64(c->pool, 0);
  return kit_in(c, n, k, zeros, t);
}

const Expr *kit_mean(ElemCtx *c, int n, const Expr *const *vars, const Expr *body,
                     const Expr *count) {
  const Expr *sum = kit_reduce_all(c, RED_SUM, n, vars, body);
  return ex_div(c->pool, sum, kit_size(c, (DType)body->dtype, count));
}
