/* matmul_info: products of matrices described for templates. conv_info and pool_info stand beside
 * their ops. */
#include "ir/ops/nn/contraction.h"
#include <string.h>

bool matmul_info(const Node *n, MatMulInfo *info) {
  ExprPool *p = n->graph->model->pool;
  const Expr *one = ex_i64(p, 1);
  const bool gemm = strcmp(n->op->name, "Gemm") == 0,
             qlinear = strcmp(n->op->name, "QLinearMatMul") == 0;
  if (!gemm && !qlinear && strcmp(n->op->name, "MatMul") != 0 &&
      strcmp(n->op->name, "MatMulInteger") != 0 && strcmp(n->op->name, "DequantizeMatMul") != 0)
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

static bool from_conv(const Value *v, int depth) {
  static const char *const kept[] = {"Concat", "Resize", "Identity", "Dropout", NULL};
  const Node *n = v->def;
  if (!n || v->cdata || depth == 8) return false;
  if (strcmp(n->op->name, "Conv") == 0 || strcmp(n->op->name, "ConvTranspose") == 0) return true;
  bool passes = n->op->body == OB_EW;
  for (int k = 0; kept[k]; k++) passes = passes || strcmp(n->op->name, kept[k]) == 0;
  for (int k = 0; passes && k < n->n_in; k++)
    if (n->in[k] && n->in[k]->rank == v->rank && from_conv(n->in[k], depth + 1)) return true;
  return false;
}

bool value_from_conv(const Value *v) { return from_conv(v, 0); }
