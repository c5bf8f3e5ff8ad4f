/* Quantized products of com.microsoft, which ONNX Runtime's tools write: MatMulIntegerToFloat,
 * DynamicQuantizeMatMul and QGemm are MatMulInteger and what makes numbers, or bytes, of its sums.
 * They are expanded before passes look for integer products. */
#include "ir/op/kit.h"
#include "ir/ops/math/math_matmul.h"
#include "ir/ops/nn/nn_quant.h"

/* ---- shared ---- */

/* Scale k (f32) and zero point `zero` of the right operand `w`: one, or one per column. */
static bool need_columns(Model *m, const Node *n, int w, int k, int zero) {
  const Value *v = n->in[w];
  if (!op_need_rank(m, n, w, 2, MAX_RANK)) return false;
  const Expr *columns = v->dims[v->rank - 1];
  return op_need_dtype(m, n, k, DT_F32) && op_same_dtype(m, n, zero, w) &&
         quant_need_lane(m, n, k, columns, "scale of B") &&
         quant_need_lane(m, n, zero, columns, "zero point of B");
}

/* Scale k and zero point `zero` of the left operand x: one. */
static bool need_one(Model *m, const Node *n, int x, int k, int zero) {
  return op_need_dtype(m, n, k, DT_F32) && op_same_dtype(m, n, zero, x) &&
         kit_need_scalar(m, n, k, "scale of A") && kit_need_scalar(m, n, zero, "zero point of A");
}

static Value *binary(Build *b, const char *op, Value *x, Value *y) {
  return b->ok ? build2(b, op, x, y) : x;
}

static Value *integer_sum(Build *b, Value *x, Value *w, Value *xz, Value *wz) {
  Value *in[] = {x, w, quant_plain(b, xz), quant_plain(b, wz)};
  return b->ok ? build_op(b, "MatMulInteger", 4, in, 0, NULL) : x;
}

static Value *real_of(Build *b, Value *sum, Value *scale) {
  return b->ok ? binary(b, "Mul", build_cast(b, sum, DT_F32), scale) : sum;
}

static Value *with_bias(Build *b, Value *y, Value *bias) {
  return bias ? binary(b, "Add", y, bias) : y;
}

/* ---- MatMulIntegerToFloat: a, b, a_scale, b_scale, a_zp, b_zp, bias ---- */
bool infer_matmul_integer_to_float(Model *m, Node *n) {
  const Value *w = n->in[1];
  return quant_need_8bit(m, n, 0) && quant_need_8bit(m, n, 1) && need_one(m, n, 0, 2, 4) &&
         need_columns(m, n, 1, 3, 5) && op_need_dtype(m, n, 6, DT_F32) &&
         kit_need_vector(m, n, 6, w->dims[w->rank - 1], "bias") && matmul_out(m, n, 0, 1, DT_F32);
}

bool expand_matmul_integer_to_float(Build *b, Node *n, Value **out) {
  Value *sum = integer_sum(b, n->in[0], n->in[1], node_in(n, 4), node_in(n, 5));
  Value *scale = binary(b, "Mul", quant_plain(b, n->in[2]), quant_plain(b, n->in[3]));
  out[0] = with_bias(b, real_of(b, sum, scale), node_in(n, 6));
  return b->ok;
}

/* ---- DynamicQuantizeMatMul: a (f32), b, b_scale, b_zp, bias ---- */
bool infer_dynamic_quantize_matmul(Model *m, Node *n) {
  const Value *w = n->in[1];
  return op_need_dtype(m, n, 0, DT_F32) && quant_need_8bit(m, n, 1) &&
         need_columns(m, n, 1, 2, 3) && op_need_dtype(m, n, 4, DT_F32) &&
         kit_need_vector(m, n, 4, w->dims[w->rank - 1], "bias") && matmul_out(m, n, 0, 1, DT_F32);
}

bool expand_dynamic_quantize_matmul(Build *b, Node *n, Value **out) {
  const Node *q = build_node(b, "DynamicQuantizeLinear", "", 1, n->in, 3, 0, NULL);
  Value *sum = integer_sum(b, q->out[0], n->in[1], q->out[2], node_in(n, 3));
  Value *scale = binary(b, "Mul", q->out[1], quant_plain(b, n->in[2]));
  out[0] = with_bias(b, real_of(b, sum, scale), node_in(n, 4));
  return b->ok;
}

/* ---- QGemm: a, a_scale, a_zp, b, b_scale, b_zp, c (i32), y_scale, y_zp ---- */
static bool need_result(Model *m, const Node *n) {
  if (!node_in(n, 7) != !node_in(n, 8))
    return op_error(m, n, ERR_ARITY, "scale and zero point of Y must come together");
  return op_need_dtype(m, n, 7, DT_F32) && quant_need_8bit(m, n, 8) &&
         kit_need_scalar(m, n, 7, "scale of Y") && kit_need_scalar(m, n, 8, "zero point of Y");
}

/* A column of the product is a row of B where it comes transposed. */
static bool need_gemm_columns(Model *m, const Node *n, const Expr *columns) {
  return op_need_dtype(m, n, 4, DT_F32) && op_same_dtype(m, n, 5, 3) &&
         quant_need_lane(m, n, 4, columns, "scale of B") &&
         quant_need_lane(m, n, 5, columns, "zero point of B");
}

bool infer_qgemm(Model *m, Node *n) {
  int64_t ta, tb;
  double alpha;
  const Expr *same;
  if (!quant_need_8bit(m, n, 0) || !quant_need_8bit(m, n, 3) || !op_need_rank(m, n, 0, 2, 2) ||
      !op_need_rank(m, n, 3, 2, 2) || !op_int(m, n, "transA", 0, &ta) ||
      !op_int(m, n, "transB", 0, &tb) || !op_float(m, n, "alpha", 1, &alpha))
    return false;
  const Value *a = n->in[0], *w = n->in[3];
  const Expr *dims[2] = {a->dims[ta ? 1 : 0], w->dims[tb ? 0 : 1]};
  return op_same_dim(m, n, a->dims[ta ? 0 : 1], w->dims[tb ? 1 : 0],
                     "the inner dims of the product", &same) &&
         need_one(m, n, 0, 1, 2) && need_gemm_columns(m, n, dims[1]) &&
         op_need_dtype(m, n, 6, DT_I32) && op_yields_to(m, n, 6, 2, dims) && need_result(m, n) &&
         op_out(m, n, 0, node_in(n, 8) ? n->in[8]->dtype : DT_F32, 2, dims);
}

static Value *turned(Build *b, Node *n, int k, const char *attr) {
  return node_int(n, attr, 0) ? build1(b, "Transpose", n->in[k]) : n->in[k];
}

bool expand_qgemm(Build *b, Node *n, Value **out) {
  Value *x = turned(b, n, 0, "transA"), *w = turned(b, n, 3, "transB");
  Value *sum = integer_sum(b, x, w, n->in[2], n->in[5]);
  if (node_in(n, 6)) sum = binary(b, "Add", sum, n->in[6]);
  Value *scale = quant_plain(b, n->in[1]);
  const double alpha = node_float(n, "alpha", 1);
  if (alpha != 1 && b->ok) scale = build2(b, "Mul", build_scalar(b, DT_F32, alpha), scale);
  scale = binary(b, "Mul", scale, quant_plain(b, n->in[4]));
  if (!node_in(n, 7)) {
    out[0] = real_of(b, sum, scale);
    return b->ok;
  }
  Value *in[] = {sum, binary(b, "Div", scale, quant_plain(b, n->in[7])), quant_plain(b, n->in[8])};
  if (b->ok) out[0] = build_node(b, "Requantize", "burin", 3, in, 1, 0, NULL)->out[0];
  return b->ok;
}
