/* Quantized matrices whose elements may lie column by column (com.microsoft): QuantizeWithOrder,
 * DequantizeWithOrder, QOrderedMatMul, QOrderedGelu, QOrderedLayerNormalization, QOrderedAttention,
 * QOrderedLongformerAttention.
 * A tensor keeps its shape in either order, only its elements, in the last two dims, change their
 * places. Bytes have no zero point. */
#include <math.h>
#include "ir/ops/math/math_matmul.h"
#include "ir/ops/nn/nn_heads.h"
#include "ir/ops/nn/nn_quant.h"

/* ---- orders ---- */
enum { ORDER_COL, ORDER_ROW };

static bool order_of(Model *m, const Node *n, const char *name, bool required, int64_t *order) {
  static const char *const tiled[] = {"COL32", "COL4_4R2_8C", "COL32_2R_4R4"};
  const Attr *a;
  if ((required && !op_need_attr(m, n, name, AT_INT, &a)) ||
      !op_int_in(m, n, name, ORDER_ROW, ORDER_COL, 4, order))
    return false;
  return *order <= ORDER_ROW ||
         op_error(m, n, ERR_UNSUPPORTED,
                  "order %s of %s, the tiles of one kind of GPU, is not supported; ROW and COL are",
                  tiled[*order - 2], name);
}

static bool same_orders(Model *m, const Node *n) {
  int64_t x, y;
  if (!order_of(m, n, "order_X", false, &x) || !order_of(m, n, "order_Y", false, &y)) return false;
  return x == y || op_error(m, n, ERR_ATTR_VALUE, "order_X and order_Y must be the same");
}

/* The last two dims exchanged: the shape where `whole`, else its elements. */
static Value *exchanged(Build *b, Value *v, bool whole) {
  const int r = v->rank;
  if (whole) return build_swap_last(b, v);
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  Value *dims[] = {build_shape(b, v, 0, r - 2), build_shape(b, v, r - 1, r),
                   build_shape(b, v, r - 2, r - 1)};
  Value *shape = b->ok ? build_op(b, "Concat", 3, dims, 1, &axis) : v;
  return b->ok ? build2(b, "Reshape", v, shape) : v;
}

/* v with its elements in another order. */
static Value *reordered(Build *b, Value *v, int64_t from, int64_t to) {
  if (from == to || !b->ok || v->rank < 2) return v;
  v = exchanged(b, v, to == ORDER_COL);
  return b->ok ? exchanged(b, v, to != ORDER_COL) : v;
}

/* ---- bytes and numbers ---- */
static bool need_scale(Model *m, const Node *n, int k) {
  return op_need_dtype(m, n, k, DT_F32) && kit_need_scalar(m, n, k, "scale");
}

static Value *numbers(Build *b, Value *v, Value *scale) {
  scale = quant_plain(b, scale);
  return b->ok ? build2(b, "DequantizeLinear", v, scale) : v;
}

static Value *bytes(Build *b, Value *v, Value *scale) {
  Value *in[] = {v, quant_plain(b, scale), build_scalar(b, DT_I8, 0)};
  return b->ok ? build_op(b, "QuantizeLinear", 3, in, 0, NULL) : v;
}

/* ---- QuantizeWithOrder, DequantizeWithOrder: x, scale ---- */
bool infer_quantize_order(Model *m, Node *n) {
  int64_t from, to;
  return op_need_class(m, n, 0, CL_FLOAT) && need_scale(m, n, 1) &&
         order_of(m, n, "order_input", true, &from) && order_of(m, n, "order_output", true, &to) &&
         op_out_like(m, n, 0, DT_I8, n->in[0]);
}

bool expand_quantize_order(Build *b, Node *n, Value **out) {
  Value *y = bytes(b, n->in[0], n->in[1]);
  out[0] = reordered(b, y, node_int(n, "order_input", ORDER_ROW),
                     node_int(n, "order_output", ORDER_ROW));
  return b->ok;
}

bool infer_dequantize_order(Model *m, Node *n) {
  int64_t from, to;
  DType t;
  const Attr *a;
  if (!op_need_dtype(m, n, 0, DT_I8) || !need_scale(m, n, 1) ||
      !order_of(m, n, "order_input", true, &from) || !order_of(m, n, "order_output", true, &to) ||
      !op_need_attr(m, n, "to", AT_INT, &a) || !op_dtype(m, n, "to", DT_F32, &t))
    return false;
  if (t != DT_F32 && t != DT_F16)
    return op_error(m, n, ERR_TYPE, "cannot dequantize to %s", dtype_text(t));
  return op_out_like(m, n, 0, t, n->in[0]);
}

bool expand_dequantize_order(Build *b, Node *n, Value **out) {
  Value *x = reordered(b, n->in[0], node_int(n, "order_input", ORDER_ROW),
                       node_int(n, "order_output", ORDER_ROW));
  x = numbers(b, x, n->in[1]);
  out[0] = build_cast(b, x, n->out[0]->dtype);
  return b->ok;
}

/* ---- QOrderedGelu: x, its scale, that of the result ---- */
bool infer_ordered_gelu(Model *m, Node *n) {
  return op_need_dtype(m, n, 0, DT_I8) && need_scale(m, n, 1) && need_scale(m, n, 2) &&
         same_orders(m, n) && op_out_like(m, n, 0, DT_I8, n->in[0]);
}

bool expand_ordered_gelu(Build *b, Node *n, Value **out) {
  Value *x = numbers(b, n->in[0], n->in[1]);
  if (b->ok) x = build1(b, "Gelu", x);
  out[0] = bytes(b, x, n->in[2]);
  return b->ok;
}

/* ---- QOrderedLayerNormalization: x, its scale, gamma, beta, the scale of the result ---- */
bool infer_ordered_norm(Model *m, Node *n) {
  const Value *x = n->in[0];
  double epsilon;
  int axis;
  if (!node_in(n, 4)) return op_error(m, n, ERR_ARITY, "the scale of the result is missing");
  if (!op_need_dtype(m, n, 0, DT_I8) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !need_scale(m, n, 1) || !need_scale(m, n, 4) || !op_need_class(m, n, 2, CL_FLOAT) ||
      !op_same_dtype(m, n, 3, 2) || !op_axis(m, n, "axis", -1, x->rank, &axis) ||
      !op_float(m, n, "epsilon", 1e-5, &epsilon) || !same_orders(m, n))
    return false;
  if (axis != x->rank - 1)
    return op_error(m, n, ERR_UNSUPPORTED, "a normalization of more than the last axis");
  return kit_need_vector(m, n, 2, x->dims[axis], "gamma") &&
         kit_need_vector(m, n, 3, x->dims[axis], "beta") && op_out_like(m, n, 0, DT_I8, x);
}

bool expand_ordered_norm(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  const int64_t order = node_int(n, "order_X", ORDER_ROW);
  Value *x = numbers(b, reordered(b, n->in[0], order, ORDER_ROW), n->in[1]);
  Value *in[] = {x, build_cast(b, n->in[2], DT_F32), node_in(n, 3)};
  if (in[2]) in[2] = build_cast(b, in[2], DT_F32);
  const Attr attrs[] = {attr_int(a, "axis", -1),
                        attr_float(a, "epsilon", node_float(n, "epsilon", 1e-5))};
  if (!b->ok) return false;
  Value *y = build_op(b, "LayerNormalization", in[2] ? 3 : 2, in, 2, attrs);
  if (b->ok) y = bytes(b, y, n->in[4]);
  out[0] = reordered(b, y, ORDER_ROW, order);
  return b->ok;
}

/* ---- QOrderedMatMul ---- */
enum { O_A, O_A_SCALE, O_B, O_B_SCALE, O_Y_SCALE, O_BIAS, O_C, O_C_SCALE };

static bool matmul_orders(Model *m, const Node *n) {
  int64_t a, b, y;
  if (!order_of(m, n, "order_A", true, &a) || !order_of(m, n, "order_B", true, &b) ||
      !order_of(m, n, "order_Y", true, &y))
    return false;
  return (a == ORDER_ROW && b == ORDER_COL && y == ORDER_ROW) ||
         op_error(m, n, ERR_UNSUPPORTED, "A and Y must be in order ROW, and B in order COL");
}

/* C is added to the product, one for all of a batch or one for each. */
static bool need_c(Model *m, const Node *n) {
  const Value *c = node_in(n, O_C), *y = n->out[0];
  if (!c) return true;
  if (!node_in(n, O_C_SCALE)) return op_error(m, n, ERR_ARITY, "the scale of C is missing");
  if (!op_need_dtype(m, n, O_C, DT_I8) || !op_need_rank(m, n, O_C, 2, y->rank) ||
      !need_scale(m, n, O_C_SCALE))
    return false;
  for (int d = 1; d <= 2; d++)
    if (!require_equal(m, n, c->dims[c->rank - d], y->dims[y->rank - d], "dims of C and Y"))
      return false;
  return op_broadcasts_to(m, n, O_C, y->rank, (const Expr *const *)y->dims);
}

bool infer_ordered_matmul(Model *m, Node *n) {
  const Value *x = n->in[O_A], *w = n->in[O_B];
  if (!matmul_orders(m, n) || !op_need_dtype(m, n, O_A, DT_I8) ||
      !op_need_dtype(m, n, O_B, DT_I8) || !op_need_rank(m, n, O_A, 2, 3) ||
      !op_need_rank(m, n, O_B, 2, x->rank) || !need_scale(m, n, O_A_SCALE) ||
      !need_scale(m, n, O_Y_SCALE) || !op_need_dtype(m, n, O_B_SCALE, DT_F32) ||
      !op_need_dtype(m, n, O_BIAS, DT_F32))
    return false;
  const Expr *columns = w->dims[w->rank - 1];
  return (w->rank < 3 || require_broadcast(m, n, w->dims[0], x->dims[0], "batches of A and B")) &&
         quant_need_lane(m, n, O_B_SCALE, columns, "scale of B") &&
         kit_need_vector(m, n, O_BIAS, columns, "bias") && matmul_out(m, n, O_A, O_B, DT_I8) &&
         need_c(m, n);
}

bool expand_ordered_matmul(Build *b, Node *n, Value **out) {
  Value *of_y = quant_plain(b, n->in[O_Y_SCALE]), *bias = node_in(n, O_BIAS);
  Value *in[] = {n->in[O_A], reordered(b, n->in[O_B], ORDER_COL, ORDER_ROW)};
  if (!b->ok) return false;
  Value *sum = build_op(b, "MatMulInteger", 2, in, 0, NULL);
  Value *scale =
      heads_binary(b, "Mul", quant_plain(b, n->in[O_A_SCALE]), quant_plain(b, n->in[O_B_SCALE]));
  scale = heads_binary(b, "Div", scale, of_y);
  if (bias || node_in(n, O_C)) {
    sum = heads_binary(b, "Mul", build_cast(b, sum, DT_F32), scale);
    scale = build_scalar(b, DT_F32, 1);
  }
  if (bias) sum = heads_binary(b, "Add", sum, heads_binary(b, "Div", bias, of_y));
  if (node_in(n, O_C)) {
    Value *of_c = heads_binary(b, "Div", quant_plain(b, n->in[O_C_SCALE]), of_y);
    sum = heads_binary(b, "Add", sum,
                       heads_binary(b, "Mul", build_cast(b, n->in[O_C], DT_F32), of_c));
  }
  Value *parts[] = {sum, scale, build_scalar(b, DT_I8, 0)};
  if (b->ok) out[0] = build_node(b, "Requantize", "burin", 3, parts, 1, 0, NULL)->out[0];
  return b->ok;
}

/* ---- QOrderedAttention ---- */
enum { A_X, A_X_SCALE, A_Q_SCALE, A_W = 5, A_W_SCALE = 8, A_BIAS = 11, A_SCORES_SCALE = 14 };
enum { A_SOFTMAX_SCALE = 15, A_Y_SCALE, A_MASK, A_PAST, A_ADDED };

static bool attention_orders(Model *m, const Node *n) {
  int64_t x, w, y;
  if (!order_of(m, n, "order_input", true, &x) || !order_of(m, n, "order_weight", true, &w) ||
      !order_of(m, n, "order_output", true, &y))
    return false;
  return (x == ORDER_ROW && w == ORDER_COL && y == ORDER_ROW) ||
         op_error(m, n, ERR_UNSUPPORTED,
                  "input and output must be in order ROW, and weights in order COL");
}

/* What ONNX Runtime's kernel takes no notice of. */
static bool attention_has_no_more(Model *m, const Node *n) {
  int64_t causal;
  if (!op_int_in(m, n, "unidirectional", 0, 0, 1, &causal)) return false;
  if (causal) return op_error(m, n, ERR_UNSUPPORTED, "unidirectional attention");
  if (node_in(n, A_PAST)) return op_error(m, n, ERR_UNSUPPORTED, "a past");
  return !node_in(n, A_ADDED) || op_error(m, n, ERR_UNSUPPORTED, "a relative position bias");
}

static bool attention_sizes(Model *m, const Node *n) {
  int64_t heads, hidden;
  const int64_t *sizes = NULL;
  int count;
  if (!op_int_in(m, n, "num_heads", 0, 1, INT32_MAX, &heads) ||
      !op_ints(m, n, "qkv_hidden_sizes", &sizes, &count))
    return false;
  if (!expr_is_const(n->in[A_W]->dims[1], &hidden))
    return op_error(m, n, ERR_DYNAMIC, "the hidden size is not known");
  bool same = count == 0 || count == 3;
  for (int k = 0; k < count; k++) same &= sizes[k] == hidden;
  if (!same) return op_error(m, n, ERR_ATTR_VALUE, "qkv_hidden_sizes are not those of the weights");
  return (hidden > 0 && hidden % heads == 0) ||
         op_error(m, n, ERR_SHAPE, "%lld elements do not divide over %lld heads", (long long)hidden,
                  (long long)heads);
}

static bool attention_projection(Model *m, const Node *n, int k) {
  const Value *const first = n->in[A_W];
  if (!need_scale(m, n, A_Q_SCALE + k) || !op_need_dtype(m, n, A_W + k, DT_I8) ||
      !op_need_rank(m, n, A_W + k, 2, 2) || !op_need_dtype(m, n, A_W_SCALE + k, DT_F32) ||
      !op_need_dtype(m, n, A_BIAS + k, DT_F32))
    return false;
  const Value *const w = n->in[A_W + k];
  return require_equal(m, n, w->dims[0], n->in[A_X]->dims[2], "inner dims of the product") &&
         require_equal(m, n, w->dims[1], first->dims[1], "columns of the weights") &&
         quant_need_lane(m, n, A_W_SCALE + k, first->dims[1], "scale of a weight") &&
         kit_need_vector(m, n, A_BIAS + k, first->dims[1], "bias");
}

bool infer_ordered_attention(Model *m, Node *n) {
  const Value *const x = n->in[A_X], *const mask = node_in(n, A_MASK);
  if (!attention_orders(m, n) || !attention_has_no_more(m, n) || !op_need_dtype(m, n, A_X, DT_I8) ||
      !op_need_rank(m, n, A_X, 3, 3) || !need_scale(m, n, A_X_SCALE) ||
      !need_scale(m, n, A_SCORES_SCALE) || !need_scale(m, n, A_SOFTMAX_SCALE) ||
      !need_scale(m, n, A_Y_SCALE) || !op_need_dtype(m, n, A_MASK, DT_I32) ||
      !op_need_rank(m, n, A_MASK, 2, 2))
    return false;
  for (int k = 0; k < 3; k++)
    if (!attention_projection(m, n, k)) return false;
  if (mask && (!require_equal(m, n, mask->dims[0], x->dims[0], "batch of the mask") ||
               !require_equal(m, n, mask->dims[1], x->dims[1], "keys of the mask")))
    return false;
  const Expr *dims[] = {x->dims[0], x->dims[1], n->in[A_W]->dims[1]};
  return attention_sizes(m, n) && op_out(m, n, 0, DT_I8, 3, dims);
}

/* Product of x and a weight with a scale and a bias of its own, in heads. */
static Value *ordered_projection(Build *b, const Node *n, int k, int64_t heads, const Expr *head) {
  Arena *const a = b->m->arena;
  const Attr orders[] = {attr_int(a, "order_A", ORDER_ROW), attr_int(a, "order_B", ORDER_COL),
                         attr_int(a, "order_Y", ORDER_ROW)};
  Value *in[] = {n->in[A_X],           n->in[A_X_SCALE],     n->in[A_W + k],
                 n->in[A_W_SCALE + k], n->in[A_Q_SCALE + k], n->in[A_BIAS + k]};
  if (!b->ok) return in[0];
  Value *const y = build_node(b, "QOrderedMatMul", "com.microsoft", 6, in, 1, 3, orders)->out[0];
  return b->ok ? heads_split(b, y, heads, head) : in[0];
}

/* Bytes of x @ y, whose scales have the product `scales`, with scale n->in[to]. */
static Value *byte_product(Build *b, Value *x, Value *y, Value *scales, Value *to) {
  Value *const sum = b->ok ? build_op(b, "MatMulInteger", 2, (Value *[]){x, y}, 0, NULL) : x;
  Value *parts[] = {sum, heads_binary(b, "Div", scales, quant_plain(b, to)),
                    build_scalar(b, DT_I8, 0)};
  return b->ok ? build_node(b, "Requantize", "burin", 3, parts, 1, 0, NULL)->out[0] : x;
}

/* Bytes of softmax(scores * factor), where keys that the mask hides get 0. The greatest score is
 * that of all keys. */
static Value *byte_softmax(Build *b, const Node *n, Value *scores, double root) {
  static const int64_t last = -1, axes[] = {1, 2};
  const Attr keep = attr_int(b->m->arena, "keepdims", 1);
  Value *const axis = build_i64s(b, 1, &last), *mask = node_in(n, A_MASK);
  Value *x = build_cast(b, scores, DT_F32);
  Value *most = b->ok ? build_op(b, "ReduceMax", 2, (Value *[]){x, axis}, 1, &keep) : x;
  Value *factor = heads_binary(b, "Mul", quant_plain(b, n->in[A_SCORES_SCALE]),
                               build_scalar(b, DT_F32, 1 / root));
  x = heads_binary(b, "Mul", heads_binary(b, "Sub", x, most), factor);
  if (b->ok) x = build1(b, "Exp", x);
  if (mask && b->ok) {
    Value *const seen = heads_unsqueezed(b, build_cast(b, mask, DT_BOOL), 2, axes);
    Value *in[] = {seen, x, build_scalar(b, DT_F32, 0)};
    if (b->ok) x = build_op(b, "Where", 3, in, 0, NULL);
  }
  Value *sum = b->ok ? build_op(b, "ReduceSum", 2, (Value *[]){x, axis}, 1, &keep) : x;
  return bytes(b, heads_binary(b, "Div", x, sum), n->in[A_SOFTMAX_SCALE]);
}

bool expand_ordered_attention(Build *b, Node *n, Value **out) {
  const int64_t heads = node_int(n, "num_heads", 1);
  const Expr *const hidden = n->in[A_W]->dims[1];
  int64_t columns = 0;
  expr_is_const(hidden, &columns);
  const Expr *const head = ex_i64(b->m->pool, columns / heads);
  Value *part[3], *scale[3];
  for (int k = 0; k < 3; k++) {
    part[k] = ordered_projection(b, n, k, heads, head);
    scale[k] = quant_plain(b, n->in[A_Q_SCALE + k]);
  }
  if (!b->ok) return false;
  Value *y = byte_product(b, part[0], build_swap_last(b, part[1]),
                          heads_binary(b, "Mul", scale[0], scale[1]), n->in[A_SCORES_SCALE]);
  y = byte_softmax(b, n, y, sqrt((double)(columns / heads)));
  Value *const softmax = quant_plain(b, n->in[A_SOFTMAX_SCALE]);
  y = byte_product(b, y, part[2], heads_binary(b, "Mul", softmax, scale[2]), n->in[A_Y_SCALE]);
  out[0] = b->ok ? heads_joined(b, y, hidden) : y;
  return b->ok;
}

/* ---- QOrderedLongformerAttention ---- */
enum { F_X, F_X_SCALE, F_W, F_QKV_SCALE = 6, F_MASK };
enum { F_GLOBAL = 8, F_GLOBAL_SCALE = 11, F_FLAGS, F_Y_SCALE };

static bool longformer_orders(Model *m, const Node *n) {
  int64_t global;
  if (!attention_orders(m, n) || !order_of(m, n, "order_global_weight", true, &global))
    return false;
  return global == ORDER_COL ||
         op_error(m, n, ERR_UNSUPPORTED, "global weights must be in order COL");
}

/* Weights from input k on: themselves, their scale and bias. */
static bool longformer_weights(Model *m, const Node *n, int k) {
  const Expr *const hidden = n->in[F_X]->dims[2];
  const Expr *dims[] = {hidden, ex_mul(m->pool, ex_i64(m->pool, 3), hidden)};
  return op_need_dtype(m, n, k, DT_I8) && op_need_rank(m, n, k, 2, 2) &&
         require_shape(m, n, k, 0, 2, dims, "dimension of the weights") &&
         need_scale(m, n, k + 1) && op_need_dtype(m, n, k + 2, DT_F32) &&
         kit_need_vector(m, n, k + 2, dims[1], "bias");
}

bool infer_ordered_longformer(Model *m, Node *n) {
  const Value *const x = n->in[F_X];
  return longformer_orders(m, n) && op_need_dtype(m, n, F_X, DT_I8) &&
         op_need_rank(m, n, F_X, 3, 3) && need_scale(m, n, F_X_SCALE) &&
         longformer_weights(m, n, F_W) && longformer_weights(m, n, F_GLOBAL) &&
         need_scale(m, n, F_QKV_SCALE) && need_scale(m, n, F_GLOBAL_SCALE) &&
         need_scale(m, n, F_Y_SCALE) && heads_need_window(m, n, x->dims[2], F_MASK, F_FLAGS) &&
         op_out_like(m, n, 0, DT_I8, x);
}

/* Bytes of the product with the weights in input k, as numbers. The bias counts in steps of the
 * result, whose scale is input `to`. */
static Value *longformer_projection(Build *b, const Node *n, int k, int to) {
  Value *in[] = {n->in[F_X], reordered(b, n->in[k], ORDER_COL, ORDER_ROW)};
  Value *const sum = b->ok ? build_op(b, "MatMulInteger", 2, in, 0, NULL) : in[0];
  Value *const scales =
      heads_binary(b, "Mul", quant_plain(b, n->in[F_X_SCALE]), quant_plain(b, n->in[k + 1]));
  Value *y = heads_binary(b, "Mul", b->ok ? build_cast(b, sum, DT_F32) : sum,
                          heads_binary(b, "Div", scales, quant_plain(b, n->in[to])));
  Value *parts[] = {heads_binary(b, "Add", y, n->in[k + 2]), build_scalar(b, DT_F32, 1),
                    build_scalar(b, DT_I8, 0)};
  y = b->ok ? build_node(b, "Requantize", "burin", 3, parts, 1, 0, NULL)->out[0] : y;
  return numbers(b, y, n->in[to]);
}

/* What ONNX Runtime computes in f16 between the bytes is f32 here; the scale of the bias is not
 * read. */
bool expand_ordered_longformer(Build *b, Node *n, Value **out) {
  Value *in[] = {longformer_projection(b, n, F_W, F_QKV_SCALE),
                 longformer_projection(b, n, F_GLOBAL, F_GLOBAL_SCALE), n->in[F_MASK],
                 n->in[F_FLAGS]};
  const Attr attrs[] = {attr_int(b->m->arena, "num_heads", node_int(n, "num_heads", 1)),
                        attr_int(b->m->arena, "window", node_int(n, "window", 1))};
  if (!b->ok) return false;
  Value *const y = build_node(b, "LongformerAttention", "burin", 4, in, 1, 2, attrs)->out[0];
  out[0] = b->ok ? bytes(b, y, n->in[F_Y_SCALE]) : y;
  return b->ok;
}
