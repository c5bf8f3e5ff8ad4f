/* Softmax, LogSoftmax, Hardmax along one axis. The maximum and the sum are reductions that do not
 * use the index along the axis, so a lowering computes each once per row. */
#include "ir/op/kit.h"

bool infer_softmax(Model *m, Node *n) {
  int axis;
  return op_need_rank(m, n, 0, 1, MAX_RANK) && op_axis(m, n, "axis", -1, n->in[0]->rank, &axis) &&
         infer_same_float(m, n);
}

typedef struct Row {
  int axis;
  const Expr *x, *max, *k,
      *xk; /* the element, the row's maximum, a variable along the row, x at it */
} Row;

/* Each reduction has a variable of its own: the maximum stands inside the body of the sum. */
static Row row_begin(ElemCtx *c, const Node *n, const Expr *const *idx) {
  const Value *v = n->in[0];
  const int64_t axis = node_int(n, "axis", -1);
  Row r = {.axis = (int)(axis < 0 ? axis + v->rank : axis)};
  const Expr *at[MAX_RANK];
  for (int d = 0; d < v->rank; d++) at[d] = idx[d];
  const DType t = kit_compute(n);
  r.x = kit_in(c, n, 0, at, t);
  const Expr *j = at[r.axis] = kit_var(c, "j", v->dims[r.axis]);
  r.max = kit_reduce(c, RED_MAX, j, kit_in(c, n, 0, at, t));
  at[r.axis] = r.k = kit_var(c, "k", v->dims[r.axis]);
  r.xk = kit_in(c, n, 0, at, t);
  return r;
}

static const Expr *row_sum(ElemCtx *c, const Row *r) {
  return kit_reduce(c, RED_SUM, r->k, kit_op1(c, EX_exp, ex_sub(c->pool, r->xk, r->max)));
}

const Expr *elem_softmax(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Row r = row_begin(c, n, idx);
  const Expr *e = kit_op1(c, EX_exp, ex_sub(c->pool, r.x, r.max));
  return kit_ret(c, n, out, ex_div(c->pool, e, row_sum(c, &r)));
}

const Expr *elem_log_softmax(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Row r = row_begin(c, n, idx);
  return kit_ret(c, n, out,
                 ex_sub(c->pool, ex_sub(c->pool, r.x, r.max), kit_op1(c, EX_log, row_sum(c, &r))));
}

/* 1 at the first maximum. */
const Expr *elem_hardmax(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Row r = row_begin(c, n, idx);
  const Expr *size = n->in[0]->dims[r.axis];
  const Expr *first = kit_reduce(c, RED_MIN, r.k, ex_select(p, ex_eq(p, r.xk, r.max), r.k, size));
  const Expr *hit = ex_eq(p, first, idx[r.axis]);
  return kit_ret(c, n, out, ex_select(p, hit, kit_like(c, r.x, 1), kit_like(c, r.x, 0)));
}
