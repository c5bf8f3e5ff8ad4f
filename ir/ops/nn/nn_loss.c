/* NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. */
#include <string.h>
#include "ir/op/kit.h"

static const char *const reductions[] = {"none", "sum", "mean", NULL};

static bool loss_dims(Model *m, Node *n, const Value **x) {
  int64_t v;
  int mode;
  const Expr *same;
  *x = n->in[0];
  const Value *target = n->in[1];
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 2, MAX_RANK) ||
      !op_need_class(m, n, 1, CL_INT) || !op_need_rank(m, n, 1, (*x)->rank - 1, (*x)->rank - 1) ||
      !op_same_dtype(m, n, 2, 0) || !kit_need_vector(m, n, 2, (*x)->dims[1], "weight") ||
      !op_int(m, n, "ignore_index", -1, &v) ||
      !op_choice(m, n, "reduction", "mean", reductions, &mode))
    return false;
  for (int d = 0; d < target->rank; d++)
    if (!op_same_dim(m, n, target->dims[d], (*x)->dims[d ? d + 1 : 0], "dims of input and target",
                     &same))
      return false;
  return op_out(m, n, 0, (*x)->dtype, mode ? 0 : target->rank, target->dims);
}

bool infer_nll_loss(Model *m, Node *n) {
  const Value *x;
  return loss_dims(m, n, &x);
}

bool infer_sce_loss(Model *m, Node *n) {
  const Value *x;
  return loss_dims(m, n, &x) && op_out_like(m, n, 1, x->dtype, x);
}

/* Loss and weight of the target at at[]; both 0 for an ignored or impossible class. */
static const Expr *loss_at(ElemCtx *c, const Node *n, const Expr *const *at, const Expr **weight) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const DType t = kit_compute(n);
  const Expr *own[MAX_RANK], *target = kit_in(c, n, 1, at, DT_I64),
                             *guard = kit_inside(p, target, x->dims[1]);
  if (node_attr(n, "ignore_index"))
    guard =
        ex_and(p, guard, ex_op(p, EX_ne, target, ex_i64(p, node_int(n, "ignore_index", -1)), NULL));
  own[0] = at[0];
  own[1] = target;
  for (int d = 2; d < x->rank; d++) own[d] = at[d - 1];
  const Expr *v = ex_cast(p, t, elem_in_guarded(c, n, 0, own, guard));
  *weight = ex_select(p, guard, kit_like(c, v, 1), kit_like(c, v, 0));
  if (node_in(n, 2)) *weight = ex_cast(p, t, elem_in_guarded(c, n, 2, &target, guard));
  return kit_op1(c, EX_neg, node_in(n, 2) ? ex_mul(p, v, *weight) : v);
}

const Expr *elem_nll_loss(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const char *mode = node_string(n, "reduction", "mean");
  const Value *target = n->in[1];
  const Expr *vars[MAX_RANK], *weight;
  if (strcmp(mode, "none") == 0) return kit_ret(c, n, out, loss_at(c, n, idx, &weight));
  for (int d = 0; d < target->rank; d++) vars[d] = kit_var(c, "k", target->dims[d]);
  const Expr *loss = kit_reduce_all(c, RED_SUM, target->rank, vars, loss_at(c, n, vars, &weight));
  if (strcmp(mode, "mean") == 0)
    loss = ex_div(c->pool, loss, kit_reduce_all(c, RED_SUM, target->rank, vars, weight));
  return kit_ret(c, n, out, loss);
}

bool expand_sce_loss(Build *b, Node *n, Value **out) {
  const Attr axis = attr_int(b->m->arena, "axis", 1);
  Value *log_prob = build_op(b, "LogSoftmax", 1, n->in, 1, &axis);
  if (!b->ok) return false;
  Value *in[] = {log_prob, n->in[1], node_in(n, 2)};
  out[0] = build_op(b, "NegativeLogLikelihoodLoss", in[2] ? 3 : 2, in, n->n_attrs, n->attrs);
  if (node_out(n, 1)) out[1] = log_prob;
  return b->ok;
}
