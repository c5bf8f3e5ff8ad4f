/* What ONNX Runtime's tools make of diffusion models (com.microsoft): BiasAdd, BiasSplitGelu,
 * GroupNorm and SkipGroupNorm with channels last. They become the operators that they were. */
#include <string.h>

#include "ir/ops/nn/nn_fused.h"
#include "ir/ops/nn/nn_heads.h"

/* ---- BiasAdd: x + bias + skip ---- */
bool infer_bias_add(Model *m, Node *n) {
  const Value *x = n->in[0];
  return op_need_rank(m, n, 0, 1, MAX_RANK) && op_same_dtype(m, n, 1, 0) &&
         op_same_dtype(m, n, 2, 0) && op_need_rank(m, n, 2, x->rank, x->rank) &&
         kit_need_vector(m, n, 1, x->dims[x->rank - 1], "bias") &&
         require_shape(m, n, 2, 0, x->rank, (const Expr *const *)x->dims, "dim of the skip") &&
         infer_same_float(m, n);
}

bool expand_bias_add(Build *b, Node *n, Value **out) {
  out[0] = heads_binary(b, "Add", heads_binary(b, "Add", n->in[0], n->in[1]), n->in[2]);
  return b->ok;
}

/* ---- BiasSplitGelu: the first half of x + bias times the gelu of the second ---- */
bool infer_bias_split_gelu(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK];
  int64_t size;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_same_dtype(m, n, 1, 0) || !kit_need_vector(m, n, 1, x->dims[x->rank - 1], "bias"))
    return false;
  if (!expr_is_const(x->dims[x->rank - 1], &size))
    return op_error(m, n, ERR_DYNAMIC, "the hidden size is not known");
  if (size % 2) return op_error(m, n, ERR_SHAPE, "%lld elements have no halves", (long long)size);
  for (int d = 0; d < x->rank; d++) dims[d] = x->dims[d];
  dims[x->rank - 1] = ex_i64(m->pool, size / 2);
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

bool expand_bias_split_gelu(Build *b, Node *n, Value **out) {
  int64_t size = 0;
  expr_is_const(n->in[0]->dims[n->in[0]->rank - 1], &size);
  const int64_t sizes[] = {size / 2, size / 2};
  const Attr axis = attr_int(b->m->arena, "axis", -1);
  Value *in[] = {heads_binary(b, "Add", n->in[0], n->in[1]), build_i64s(b, 2, sizes)};
  if (!b->ok) return false;
  const Node *halves = build_node(b, "Split", "", 2, in, 2, 1, &axis);
  if (!b->ok) return false;
  Value *gate = build1(b, "Gelu", halves->out[1]);
  out[0] = heads_binary(b, "Mul", halves->out[0], gate);
  return b->ok;
}

/* ---- GroupNorm: x, gamma, beta; SkipGroupNorm: x, gamma, beta, skip, bias ---- */
static bool need_group_norm(Model *m, const Node *n, int channels_dim) {
  const Attr *a;
  const Value *x = n->in[0];
  int64_t groups, act;
  double epsilon;
  if (!op_need_attr(m, n, "groups", AT_INT, &a) || !op_need_attr(m, n, "activation", AT_INT, &a) ||
      !op_int_in(m, n, "groups", 1, 1, INT32_MAX, &groups) ||
      !op_int_in(m, n, "activation", 0, 0, 1, &act) || !op_float(m, n, "epsilon", 1e-5, &epsilon) ||
      !op_need_class(m, n, 0, CL_FLOAT) || !op_need_class(m, n, 1, CL_FLOAT) ||
      !op_same_dtype(m, n, 2, 1))
    return false;
  const Expr *channels = x->dims[channels_dim];
  return kit_need_vector(m, n, 1, channels, "gamma") &&
         kit_need_vector(m, n, 2, channels, "beta") &&
         require_multiple(m, n, channels, ex_i64(m->pool, groups), "channels and groups");
}

bool infer_ms_group_norm(Model *m, Node *n) {
  int64_t last;
  if (!op_need_rank(m, n, 0, 3, MAX_RANK) || !op_int_in(m, n, "channels_last", 1, 0, 1, &last))
    return false;
  return need_group_norm(m, n, last ? n->in[0]->rank - 1 : 1) && infer_same_float(m, n);
}

bool infer_skip_group_norm(Model *m, Node *n) {
  const Value *x = n->in[0], *skip = n->in[3];
  int64_t last;
  if (!op_need_rank(m, n, 0, 4, 4) || !op_int_in(m, n, "channels_last", 1, 0, 1, &last))
    return false;
  if (!last)
    return op_error(m, n, ERR_UNSUPPORTED, "a skip with channels first (channels_last of 0)");
  const Expr *flat[] = {x->dims[0], x->dims[3]};
  if (!need_group_norm(m, n, 3) || !op_same_dtype(m, n, 3, 0) || !op_same_dtype(m, n, 4, 0) ||
      !kit_need_vector(m, n, 4, x->dims[3], "bias"))
    return false;
  if (skip->rank != 2 && skip->rank != 4)
    return op_error(m, n, ERR_RANK, "a skip of rank %d, must be 2 or 4", skip->rank);
  return (skip->rank == 2 ? require_shape(m, n, 3, 0, 2, flat, "dim of the skip")
                          : op_broadcasts_to(m, n, 3, 4, (const Expr *const *)x->dims)) &&
         op_out_like(m, n, 0, x->dtype, x) && op_out_like(m, n, 1, x->dtype, x);
}

/* The norm and its activation, in f32 where x is smaller. */
static Value *group_normed(Build *b, const Node *n, Value *x) {
  const bool last = node_int(n, "channels_last", 1) != 0;
  const DType t = x->dtype, wide = dtype_compute(t);
  Value *in[] = {build_cast(b, x, wide), build_cast(b, n->in[1], wide),
                 build_cast(b, n->in[2], wide)};
  if (b->ok && last) in[0] = channels_moved(b, in[0], false);
  if (!b->ok) return x;
  const Attr attrs[] = {attr_int(b->m->arena, "num_groups", node_int(n, "groups", 1)),
                        attr_float(b->m->arena, "epsilon", node_float(n, "epsilon", 1e-5))};
  Value *y = build_op(b, "GroupNormalization", 3, in, 2, attrs);
  if (b->ok && node_int(n, "activation", 0)) y = heads_binary(b, "Mul", y, build1(b, "Sigmoid", y));
  if (b->ok && last) y = channels_moved(b, y, true);
  return build_cast(b, y, t);
}

bool expand_ms_group_norm(Build *b, Node *n, Value **out) {
  out[0] = group_normed(b, n, n->in[0]);
  return b->ok;
}

bool expand_skip_group_norm(Build *b, Node *n, Value **out) {
  static const int64_t axes[] = {1, 2};
  Value *skip = n->in[3];
  if (skip->rank == 2) skip = heads_unsqueezed(b, skip, 2, axes);
  Value *sum = heads_binary(b, "Add", n->in[0], skip);
  if (node_in(n, 4)) sum = heads_binary(b, "Add", sum, n->in[4]);
  if (!b->ok) return false;
  out[0] = group_normed(b, n, sum);
  if (node_out(n, 1)) out[1] = sum;
  return b->ok;
}
