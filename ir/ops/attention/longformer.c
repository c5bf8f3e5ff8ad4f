/* LongformerAttention (com.microsoft): tokens see W tokens on either side and all global ones;
 * global tokens see all, by projections of their own. Keys get what the mask says added to their
 * scores; the result of a token whose mask is below 0 is 0, as in ONNX Runtime. Projections are
 * [batch, length, 3 * hidden]: queries, keys, values. */
#include <math.h>
#include "ir/ops/nn/nn_heads.h"

enum { L_X, L_WEIGHT, L_BIAS, L_MASK, L_GLOBAL_WEIGHT, L_GLOBAL_BIAS, L_FLAGS };
enum { P_LOCAL, P_GLOBAL, P_MASK, P_FLAGS }; /* of burin.LongformerAttention */

/* ---- types and shapes ---- */
/* Weights are [hidden, 3 * hidden], with a bias each; or [3, hidden, hidden], where the bias of
 * global keys and values stands behind the other one. */
static bool longformer_weights(Model *m, const Node *n) {
  ExprPool *const p = m->pool;
  const Expr *const h = n->in[L_X]->dims[2];
  const Expr *const three = ex_i64(p, 3), *const all = ex_mul(p, three, h);
  const Expr *together[] = {h, all}, *apart[] = {three, h, h};
  const int rank = n->in[L_WEIGHT]->rank == 3 ? 3 : 2;
  const Expr *const *const dims = rank == 3 ? apart : together;
  for (int k = L_WEIGHT; k <= L_GLOBAL_BIAS; k++)
    if (k != L_MASK && !op_same_dtype(m, n, k, L_X)) return false;
  for (int k = L_WEIGHT; k <= L_GLOBAL_WEIGHT; k += L_GLOBAL_WEIGHT - L_WEIGHT)
    if (!op_need_rank(m, n, k, rank, rank) ||
        !require_shape(m, n, k, 0, rank, dims, "dimension of the weights"))
      return false;
  return kit_need_vector(m, n, L_BIAS, rank == 3 ? ex_mul(p, ex_i64(p, 5), h) : all, "bias") &&
         kit_need_vector(m, n, L_GLOBAL_BIAS, rank == 3 ? h : all, "global bias");
}

bool infer_longformer(Model *m, Node *n) {
  const Value *const x = n->in[L_X];
  return op_need_class(m, n, L_X, CL_FLOAT) && op_need_rank(m, n, L_X, 3, 3) &&
         longformer_weights(m, n) && op_same_dtype(m, n, L_MASK, L_X) &&
         heads_need_window(m, n, x->dims[2], L_MASK, L_FLAGS) && op_out_like(m, n, 0, x->dtype, x);
}

bool infer_longformer_heads(Model *m, Node *n) {
  const Value *const x = n->in[P_LOCAL];
  if (!op_need_class(m, n, P_LOCAL, CL_FLOAT) || !op_need_rank(m, n, P_LOCAL, 3, 3) ||
      !op_same_dtype(m, n, P_GLOBAL, P_LOCAL) ||
      !require_shape(m, n, P_GLOBAL, 0, 3, (const Expr *const *)x->dims, "dimension") ||
      !require_multiple(m, n, x->dims[2], ex_i64(m->pool, 3), "packed projections"))
    return false;
  const Expr *const hidden = ex_floordiv(m->pool, x->dims[2], ex_i64(m->pool, 3));
  const Expr *dims[] = {x->dims[0], x->dims[1], hidden};
  return heads_need_window(m, n, hidden, P_MASK, P_FLAGS) && op_out(m, n, 0, x->dtype, 3, dims);
}

/* ---- projections ---- */
static Value *joined(Build *b, Value *x, Value *y) {
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  return b->ok ? build_op(b, "Concat", 2, (Value *[]){x, y}, 1, &axis) : x;
}

static Value *projection(Build *b, Value *x, Value *weight, Value *bias) {
  static const int64_t order[] = {1, 0, 2}, rows[] = {0, -1};
  if (weight->rank == 3 && b->ok) {
    const Attr perm = attr_ints(b->m->arena, "perm", 3, order);
    weight = build_op(b, "Transpose", 1, &weight, 1, &perm);
    weight = build_reshape(b, weight, 2, rows);
  }
  return heads_binary(b, "Add", heads_binary(b, "MatMul", x, weight), bias);
}

bool expand_longformer(Build *b, Node *n, Value **out) {
  Value *bias = n->in[L_BIAS], *global_bias = n->in[L_GLOBAL_BIAS];
  int64_t hidden;
  if (n->in[L_WEIGHT]->rank == 3) {
    if (!expr_is_const(n->in[L_X]->dims[2], &hidden))
      return op_error(b->m, n, ERR_DYNAMIC, "the hidden size is not known");
    global_bias = joined(b, global_bias, build_slice(b, bias, 0, 3 * hidden, 5 * hidden));
    bias = build_slice(b, bias, 0, 0, 3 * hidden);
  }
  Value *in[] = {projection(b, n->in[L_X], n->in[L_WEIGHT], bias),
                 projection(b, n->in[L_X], n->in[L_GLOBAL_WEIGHT], global_bias), n->in[L_MASK],
                 n->in[L_FLAGS]};
  const Attr attrs[] = {attr_int(b->m->arena, "num_heads", node_int(n, "num_heads", 1)),
                        attr_int(b->m->arena, "window", node_int(n, "window", 1))};
  if (b->ok) out[0] = build_node(b, "LongformerAttention", "burin", 4, in, 1, 2, attrs)->out[0];
  return b->ok;
}

/* ---- attention ---- */
/* [batch, heads, length, size] of projections, with `mask` added to the scores. */
static Value *attended(Build *b, Value *x, int64_t heads, Value *mask) {
  static const int64_t apart[] = {0, 0, 3, -1};
  const Attr axis = attr_int(b->m->arena, "axis", 2);
  const Expr *const head = ex_floordiv(b->m->pool, x->dims[2], ex_i64(b->m->pool, 3 * heads));
  Value *in[4] = {NULL, NULL, NULL, mask};
  x = b->ok ? build_reshape(b, x, 4, apart) : x;
  for (int k = 0; k < 3 && b->ok; k++) {
    Value *part[] = {x, build_scalar(b, DT_I64, k)};
    part[0] = build_op(b, "Gather", 2, part, 1, &axis);
    in[k] = b->ok ? heads_split(b, part[0], heads, head) : x;
  }
  return b->ok ? build_op(b, "Attention", 4, in, 0, NULL) : x;
}

/* bool [length, length]: keys at most `window` places away. */
static Value *near_keys(Build *b, Value *x, int64_t window) {
  static const int64_t one = 1;
  Value *const at = heads_count(b, heads_size(b, x, 1), NULL);
  Value *apart = heads_binary(b, "Sub", heads_unsqueezed(b, at, 1, &one), at);
  if (b->ok) apart = build1(b, "Abs", apart);
  return heads_binary(b, "LessOrEqual", apart, build_scalar(b, DT_I64, (double)window));
}

static Value *where(Build *b, Value *c, Value *x, Value *y) {
  return b->ok ? build_op(b, "Where", 3, (Value *[]){c, x, y}, 0, NULL) : x;
}

bool expand_longformer_heads(Build *b, Node *n, Value **out) {
  static const int64_t keys[] = {1, 2}, rows[] = {1, 3};
  const int64_t heads = node_int(n, "num_heads", 1);
  Value *const x = n->in[P_LOCAL], *const mask = build_cast(b, n->in[P_MASK], x->dtype);
  Value *const global = build_cast(b, n->in[P_FLAGS], DT_BOOL);
  Value *const added = heads_unsqueezed(b, mask, 2, keys);
  Value *const seen = heads_binary(b, "Or", near_keys(b, x, node_int(n, "window", 1)),
                                   heads_unsqueezed(b, global, 2, keys));
  Value *const hidden = where(b, seen, added, build_scalar(b, x->dtype, -INFINITY));
  Value *const local = attended(b, x, heads, hidden);
  Value *y = attended(b, n->in[P_GLOBAL], heads, added);
  y = where(b, heads_unsqueezed(b, global, 2, rows), y, local);
  Value *const out_of_sight =
      heads_binary(b, "Less", heads_unsqueezed(b, mask, 2, rows), build_scalar(b, x->dtype, 0));
  y = where(b, out_of_sight, build_scalar(b, x->dtype, 0), y);
  out[0] = b->ok ? heads_joined(b, y, n->out[0]->dims[2]) : y;
  return b->ok;
}
