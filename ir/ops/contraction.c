/* matmul_info: products of matrices described for templates. conv_info and pool_info stand beside
 * their ops. */
#include "ir/ops/contraction.h"
#include <string.h>

bool matmul_info(const Node *n, MatMulInfo *info) {
  ExprPool *p = n->graph->model->pool;
  const Expr *one = ex_i64(p, 1);
  const bool gemm = strcmp(n->op->name, "Gemm") == 0,
             qlinear = strcmp(n->op->name, "QLinearMatMul") == 0;
  if (!gemm && !qlinear && strcmp(n->op->name, "MatMul") != 0 &&
      strcmp(n->op->name, "MatMulInteger") != 0)
    return false;
  const Value *a = n->in[0], *b = n->in[qlinear ? 3 : 1];
  *info = (MatMulInfo){.alpha = 1, .beta = 1, .m = one, .n = one};
  if (gemm) {
    info->trans_a = node_int(n, "transA", 0) != 0;
    info->trans_b = node_int(n, "transB", 0) != 0;
    info->alpha = node_float(n, "alpha", 1);
    info->beta = node_float(n, "beta", 1);
  }
  info->a_vec = a->rank == 1;
  info->b_vec = b->rank == 1;
  info->k = info->a_vec ? a->dims[0] : a->dims[a->rank - (info->trans_a ? 2 : 1)];
  if (!info->a_vec) info->m = a->dims[a->rank - (info->trans_a ? 1 : 2)];
  if (!info->b_vec) info->n = b->dims[b->rank - (info->trans_b ? 2 : 1)];
  info->batch_rank = n->out[0]->rank - !info->a_vec - !info->b_vec;
  return true;
}
