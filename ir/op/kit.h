/* Small helpers of the math and nn families: reads in the compute type, reductions over variables
 * that may be of extent 1, and sizes. Checks and inference helpers are in ir/op/ops.h. */
#pragma once
#include "ir/op/ops.h"

/* Input k at idx, converted to t. */
static inline const Expr *kit_in(ElemCtx *c, const Node *n, int k, const Expr *const *idx,
                                 DType t) {
  return ex_cast(c->pool, t, elem_in(c, n, k, idx));
}
/* Input k broadcast to the output's idx, converted to t. */
static inline const Expr *kit_bcast(ElemCtx *c, const Node *n, int k, const Expr *const *idx,
                                    DType t) {
  return ex_cast(c->pool, t, elem_in_bcast(c, n, k, n->out[0]->rank, idx));
}
/* Element i of the rank-1 (or rank-0) input k. */
static inline const Expr *kit_in1(ElemCtx *c, const Node *n, int k, const Expr *i, DType t) {
  return kit_in(c, n, k, &i, t);
}
/* A variable over [0, extent), or the constant 0 where the extent is 1. */
static inline const Expr *kit_var(ElemCtx *c, const char *stem, const Expr *extent) {
  return expr_is_i64(extent, 1) ? ex_i64(c->pool, 0) : ex_var(c->pool, stem, extent);
}
/* The reduction over what kit_var gave. */
static inline const Expr *kit_reduce(ElemCtx *c, ReduceKind kind, const Expr *var,
                                     const Expr *body) {
  return var->op == EX_VAR ? ex_reduce(c->pool, kind, var, body) : body;
}
/* The reduction over several variables, vars[0] outermost. */
static inline const Expr *kit_reduce_all(ElemCtx *c, ReduceKind kind, int n,
                                         const Expr *const *vars, const Expr *body) {
  while (n-- > 0) body = kit_reduce(c, kind, vars[n], body);
  return body;
}
static inline const Expr *kit_op1(ElemCtx *c, ExprOp op, const Expr *a) {
  return ex_op(c->pool, op, a, NULL, NULL);
}
/* Constant of e's type. */
static inline const Expr *kit_like(ElemCtx *c, const Expr *e, double v) {
  return ex_const(c->pool, (DType)e->dtype, v);
}
/* i64 size as a value of type t (count of a mean). */
static inline const Expr *kit_size(ElemCtx *c, DType t, const Expr *size) {
  return ex_cast(c->pool, t, size);
}
/* Type in which output k of n is computed. */
static inline DType kit_compute(const Node *n) { return dtype_compute(n->in[0]->dtype); }
/* The result in the output's type. */
static inline const Expr *kit_ret(ElemCtx *c, const Node *n, int out, const Expr *e) {
  return ex_cast(c->pool, n->out[out]->dtype, e);
}
/* 0 <= i and i < size, without the parts that the range of i makes certain. */
const Expr *kit_inside(ExprPool *p, const Expr *i, const Expr *size);
static inline bool kit_is_true(const Expr *e) { return expr_is_i64(e, 1); }
/* base + d with an overflow check: reports OVERFLOW. */
bool kit_add(Model *m, const Node *n, int64_t a, int64_t b, int64_t *out);
bool kit_mul(Model *m, const Node *n, int64_t a, int64_t b, int64_t *out);
/* Input k must have one element per entry of a dim: rank 1 and that size. Absent inputs pass. */
bool kit_need_vector(Model *m, const Node *n, int k, const Expr *size, const char *what);
/* Input k must hold one element (rank 0, or all dims 1). Absent inputs pass. */
bool kit_need_scalar(Model *m, const Node *n, int k, const char *what);
/* Element 0 of an input that kit_need_scalar accepted. */
const Expr *kit_scalar(ElemCtx *c, const Node *n, int k, DType t);
/* Mean of body over vars. */
const Expr *kit_mean(ElemCtx *c, int n, const Expr *const *vars, const Expr *body,
                     const Expr *count);
/* The node's type without domain, for dispatch inside a family: "ReduceSum". */
static inline bool kit_is(const Node *n, const char *name) {
  const char *a = n->op->name;
  while (*a && *a == *name) a++, name++;
  return *a == *name;
}
