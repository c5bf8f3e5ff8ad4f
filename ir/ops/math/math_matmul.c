/* MatMul, Gemm, MatMulInteger, QLinearMatMul, FusedMatMul, FusedGemm, Det, Inverse, CDist. */
#include "ir/ops/math/math_matmul.h"

#include <string.h>

#include "ir/op/kit.h"
#include "ir/ops/nn/nn_quant.h"
#include "runtime/ops/ops.h"

/* ---- shapes ---- */
/* Output dims of a product of inputs a and b, as numpy.matmul has it. */
static bool matmul_dims(Model *m, const Node *n, int a, int b, int *rank, const Expr **dims) {
  const Value *x = n->in[a], *y = n->in[b];
  const Expr *same;
  if (!op_need_rank(m, n, a, 1, MAX_RANK) || !op_need_rank(m, n, b, 1, MAX_RANK)) return false;
  const Expr *kx = x->dims[x->rank - 1], *ky = y->dims[y->rank == 1 ? 0 : y->rank - 2];
  if (!op_same_dim(m, n, kx, ky, "the inner dims of the product", &same)) return false;
  const int bx = x->rank > 2 ? x->rank - 2 : 0, by = y->rank > 2 ? y->rank - 2 : 0;
  if (!op_broadcast(m, n, bx, x->dims, by, y->dims, rank, dims)) return false;
  if (x->rank > 1) dims[(*rank)++] = x->dims[x->rank - 2];
  if (y->rank > 1) dims[(*rank)++] = y->dims[y->rank - 1];
  return true;
}

bool matmul_out(Model *m, Node *n, int a, int b, DType t) {
  const Expr *dims[MAX_RANK + 2];
  int rank;
  return matmul_dims(m, n, a, b, &rank, dims) && op_out(m, n, 0, t, rank, dims);
}

bool infer_matmul(Model *m, Node *n) {
  DType t;
  return op_need_class(m, n, 0, CL_NUMBER) && op_product_types(m, n, &t) &&
         matmul_out(m, n, 0, 1, t);
}

/* Index of operand v (a: rows; else columns) at the output's idx and inner index k. */
static void operand_index(ElemCtx *c, const Node *n, const Value *v, bool is_a, bool other_vec,
                          const Expr *const *idx, const Expr *k, const Expr **at) {
  const int out_rank = n->out[0]->rank;
  if (v->rank == 1) {
    at[0] = k;
    return;
  }
  const int tail = other_vec ? 1 : 2; /* matrix dims of the output */
  const int batch = out_rank - tail, own = v->rank - 2;
  for (int d = 0; d < own; d++)
    at[d] = expr_is_i64(v->dims[d], 1) ? ex_i64(c->pool, 0) : idx[d + batch - own];
  at[own] = is_a ? idx[batch] : k;
  at[own + 1] = is_a ? k : idx[out_rank - 1];
}

/* The variable of the contraction, and the indices of both operands. */
static const Expr *matmul_walk(ElemCtx *c, const Node *n, int a, int b, const Expr *const *idx,
                               const Expr **at_a, const Expr **at_b) {
  const Value *x = n->in[a], *y = n->in[b];
  const Expr *k = kit_var(c, "k", x->dims[x->rank - 1]);
  operand_index(c, n, x, true, y->rank == 1, idx, k, at_a);
  operand_index(c, n, y, false, x->rank == 1, idx, k, at_b);
  return k;
}

const Expr *elem_matmul(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Expr *at_a[MAX_RANK], *at_b[MAX_RANK];
  const DType t = kit_compute(n);
  const Expr *k = matmul_walk(c, n, 0, 1, idx, at_a, at_b);
  const Expr *body = ex_mul(c->pool, kit_in(c, n, 0, at_a, t), kit_in(c, n, 1, at_b, t));
  return kit_ret(c, n, out, kit_reduce(c, RED_SUM, k, body));
}

/* ---- Gemm ---- */
bool infer_gemm(Model *m, Node *n) {
  int64_t ta, tb;
  double alpha, beta;
  const Expr *same;
  DType t;
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_product_types(m, n, &t) ||
      !op_need_rank(m, n, 0, 2, 2) || !op_need_rank(m, n, 1, 2, 2) ||
      !op_int(m, n, "transA", 0, &ta) || !op_int(m, n, "transB", 0, &tb) ||
      !op_float(m, n, "alpha", 1, &alpha) || !op_float(m, n, "beta", 1, &beta))
    return false;
  const Value *a = n->in[0], *b = n->in[1];
  const Expr *dims[2] = {a->dims[ta ? 1 : 0], b->dims[tb ? 0 : 1]};
  return op_same_dim(m, n, a->dims[ta ? 0 : 1], b->dims[tb ? 1 : 0],
                     "the inner dims of the product", &same) &&
         op_yields_to(m, n, 2, 2, dims) && op_out(m, n, 0, t, 2, dims);
}

const Expr *elem_gemm(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const bool ta = node_int(n, "transA", 0) != 0, tb = node_int(n, "transB", 0) != 0;
  const double alpha = node_float(n, "alpha", 1), beta = node_float(n, "beta", 1);
  const DType t = kit_compute(n);
  const Expr *k = kit_var(c, "k", n->in[0]->dims[ta ? 0 : 1]);
  const Expr *at_a[2] = {ta ? k : idx[0], ta ? idx[0] : k},
             *at_b[2] = {tb ? idx[1] : k, tb ? k : idx[1]};
  const Expr *e = ex_mul(p, kit_in(c, n, 0, at_a, t), kit_in(c, n, 1, at_b, t));
  e = kit_reduce(c, RED_SUM, k, e);
  if (alpha != 1) e = ex_mul(p, e, kit_like(c, e, alpha));
  if (node_in(n, 2) && beta != 0) {
    const Expr *bias = kit_bcast(c, n, 2, idx, t);
    e = ex_add(p, e, beta == 1 ? bias : ex_mul(p, bias, kit_like(c, bias, beta)));
  }
  return kit_ret(c, n, out, e);
}

/* ---- integers ---- */
/* A zero point or scale of a matrix operand: one element, one per row (a) or column (b), or shaped
 * like the operand with its inner dim 1. */
static bool need_matrix_param(Model *m, const Node *n, int k, int operand, bool is_a,
                              const char *what) {
  const Value *v = node_in(n, k), *x = n->in[operand];
  const Expr *same;
  if (!v || v->rank == 0 || (v->rank == 1 && expr_is_i64(v->dims[0], 1))) return true;
  const int lane = x->rank < 2 ? -1 : is_a ? x->rank - 2 : x->rank - 1;
  if (lane < 0) return op_error(m, n, ERR_SHAPE, "%s must have one element", what);
  if (v->rank == 1) return op_same_dim(m, n, v->dims[0], x->dims[lane], what, &same);
  if (v->rank != x->rank) return op_error(m, n, ERR_RANK, "%s has rank %d", what, v->rank);
  return op_broadcasts_to(m, n, k, x->rank, x->dims);
}

/* Such a parameter where the operand is read at at[]. */
static const Expr *matrix_param(ElemCtx *c, const Node *n, int k, int operand, bool is_a,
                                const Expr *const *at, DType t) {
  const Value *v = n->in[k], *x = n->in[operand];
  const Expr *own[MAX_RANK];
  if (v->rank == 0 || (v->rank == 1 && expr_is_i64(v->dims[0], 1))) return kit_scalar(c, n, k, t);
  if (v->rank == 1) return kit_in(c, n, k, &at[is_a ? x->rank - 2 : x->rank - 1], t);
  for (int d = 0; d < v->rank; d++)
    own[d] = expr_is_i64(v->dims[d], 1) ? ex_i64(c->pool, 0) : at[d];
  return kit_in(c, n, k, own, t);
}

static bool need_8bit(Model *m, const Node *n, int k) {
  const DType t = n->in[k]->dtype;
  return t == DT_U8 || t == DT_I8 ||
         op_error(m, n, ERR_TYPE, "input %d is %s, must be u8 or i8", k, dtype_text(t));
}

bool infer_matmul_integer(Model *m, Node *n) {
  return need_8bit(m, n, 0) && need_8bit(m, n, 1) && op_same_dtype(m, n, 2, 0) &&
         op_same_dtype(m, n, 3, 1) && need_matrix_param(m, n, 2, 0, true, "zero point of A") &&
         need_matrix_param(m, n, 3, 1, false, "zero point of B") && matmul_out(m, n, 0, 1, DT_I32);
}

/* Operand minus zero point in i32. */
static const Expr *int_operand(ElemCtx *c, const Node *n, int k, int zp, bool is_a,
                               const Expr *const *at) {
  const Expr *x = kit_in(c, n, k, at, DT_I32);
  return node_in(n, zp) ? ex_sub(c->pool, x, matrix_param(c, n, zp, k, is_a, at, DT_I32)) : x;
}

/* Exact i32 product of inputs a and b with zero points za and zb. */
static const Expr *int_product(ElemCtx *c, const Node *n, int a, int za, int b, int zb,
                               const Expr *const *idx, const Expr **at_a, const Expr **at_b) {
  const Expr *k = matmul_walk(c, n, a, b, idx, at_a, at_b);
  const Expr *body =
      ex_mul(c->pool, int_operand(c, n, a, za, true, at_a), int_operand(c, n, b, zb, false, at_b));
  return kit_reduce(c, RED_SUM, k, body);
}

const Expr *elem_matmul_integer(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Expr *at_a[MAX_RANK], *at_b[MAX_RANK];
  return int_product(c, n, 0, 2, 1, 3, idx, at_a, at_b);
}

/* Inputs: a, a_scale, a_zp, b, b_scale, b_zp, y_scale, y_zp. */
bool infer_qlinear_matmul(Model *m, Node *n) {
  return quant_need_8bit(m, n, 0) && quant_need_8bit(m, n, 3) && quant_need_8bit(m, n, 7) &&
         op_same_dtype(m, n, 2, 0) && op_same_dtype(m, n, 5, 3) &&
         op_need_class(m, n, 1, CL_FLOAT) && op_same_dtype(m, n, 4, 1) &&
         op_same_dtype(m, n, 6, 1) && need_matrix_param(m, n, 1, 0, true, "scale of A") &&
         need_matrix_param(m, n, 2, 0, true, "zero point of A") &&
         need_matrix_param(m, n, 4, 3, false, "scale of B") &&
         need_matrix_param(m, n, 5, 3, false, "zero point of B") &&
         kit_need_scalar(m, n, 6, "y_scale") && kit_need_scalar(m, n, 7, "y_zero_point") &&
         matmul_out(m, n, 0, 3, n->in[7]->dtype);
}

const Expr *elem_qlinear_matmul(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *at_a[MAX_RANK], *at_b[MAX_RANK];
  const Expr *acc = int_product(c, n, 0, 2, 3, 5, idx, at_a, at_b);
  const Expr *sa = matrix_param(c, n, 1, 0, true, at_a, DT_F32),
             *sb = matrix_param(c, n, 4, 3, false, at_b, DT_F32);
  const Expr *scale = ex_div(p, ex_mul(p, sa, sb), kit_scalar(c, n, 6, DT_F32));
  const QuantTo to = {.t = n->out[out]->dtype, .zero = quant_zero(c, n, 7)};
  return quant_requantize(c, acc, scale, &to);
}

/* ---- com.microsoft FusedMatMul: alpha * op(A) op(B) ---- */
bool infer_fused_matmul(Model *m, Node *n) {
  static const char *const refused[] = {"transBatchA", "transBatchB"};
  int64_t t[2], v;
  double alpha;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_same_dtype(m, n, 1, 0) ||
      !op_int(m, n, "transA", 0, &t[0]) || !op_int(m, n, "transB", 0, &t[1]) ||
      !op_float(m, n, "alpha", 1, &alpha))
    return false;
  for (int k = 0; k < 2; k++) {
    if (!op_int(m, n, refused[k], 0, &v)) return false;
    if (v) return op_error(m, n, ERR_UNSUPPORTED, "attribute %s is not supported", refused[k]);
    if (t[k] && !op_need_rank(m, n, k, 2, MAX_RANK)) return false;
  }
  if (!t[0] && !t[1]) return matmul_out(m, n, 0, 1, n->in[0]->dtype);
  Value view[2]; /* the operands with their last dims exchanged, for the shape rule only */
  const Expr *swapped[2][MAX_RANK];
  Value *const in[2] = {n->in[0], n->in[1]};
  for (int k = 0; k < 2; k++) {
    view[k] = *in[k];
    if (!t[k]) continue;
    const int r = view[k].rank;
    for (int d = 0; d < r; d++) swapped[k][d] = in[k]->dims[d < r - 2 ? d : 2 * r - 3 - d];
    view[k].dims = swapped[k];
  }
  Value *own[2] = {&view[0], &view[1]}, **const saved = n->in;
  n->in = own;
  const bool ok = matmul_out(m, n, 0, 1, in[0]->dtype);
  n->in = saved;
  return ok;
}

bool expand_fused_matmul(Build *b, Node *n, Value **out) {
  static const char *const names[] = {"transA", "transB"};
  Value *in[2];
  for (int k = 0; k < 2; k++) {
    in[k] = n->in[k];
    if (!node_int(n, names[k], 0)) continue;
    in[k] = build_swap_last(b, in[k]);
    if (!b->ok) return false;
  }
  out[0] = build2(b, "MatMul", in[0], in[1]);
  const double alpha = node_float(n, "alpha", 1);
  if (b->ok && alpha != 1)
    out[0] = build2(b, "Mul", out[0], build_scalar(b, n->in[0]->dtype, alpha));
  return b->ok;
}

/* ---- FusedGemm: a Gemm with an activation behind it ---- */
static const char *const gemm_activations[] = {"Relu",     "LeakyRelu",       "Tanh", "Sigmoid",
                                               "Elu",      "HardSigmoid",     "Selu", "Softplus",
                                               "Softsign", "ThresholdedRelu", "Celu", NULL};
static const char *const gemm_params[] = {"alpha", "beta", "gamma"};

bool infer_fused_gemm(Model *m, Node *n) {
  const Attr *a;
  int act;
  double v;
  for (int k = 0; k < 3; k++)
    if (!op_float(m, n, arena_printf(m->arena, "activation_%s", gemm_params[k]), 0, &v))
      return false;
  return op_need_attr(m, n, "activation", AT_STRING, &a) &&
         op_choice(m, n, "activation", "Relu", gemm_activations, &act) && infer_gemm(m, n);
}

bool expand_fused_gemm(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  Attr *attrs = ARENA_ARRAY(a, Attr, n->n_attrs + 1), params[3];
  int count = 0, own = 0;
  for (int k = 0; k < n->n_attrs; k++)
    if (strncmp(n->attrs[k].name, "activation", 10) != 0) attrs[count++] = n->attrs[k];
  for (int k = 0; k < 3; k++) {
    const char *name = arena_printf(a, "activation_%s", gemm_params[k]);
    if (node_attr(n, name)) params[own++] = attr_float(a, gemm_params[k], node_float(n, name, 0));
  }
  Value *y = build_op(b, "Gemm", n->n_in, n->in, count, attrs);
  if (b->ok) out[0] = build_op(b, node_string(n, "activation", ""), 1, &y, own, params);
  return b->ok;
}

/* ---- Det: by minors, for small constant sizes ---- */
enum { DET_MAX = 8 };

bool infer_det(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *same;
  int64_t size;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 2, MAX_RANK) ||
      !op_same_dim(m, n, x->dims[x->rank - 2], x->dims[x->rank - 1], "the sides of the matrix",
                   &same))
    return false;
  if (!expr_is_const(same, &size) || size > DET_MAX)
    return op_error(m, n, ERR_UNSUPPORTED, "determinants are supported up to a constant size of %d",
                    DET_MAX);
  return op_out(m, n, 0, x->dtype, x->rank - 2, x->dims);
}

/* Determinant of rows [row, size) in the columns of the set `cols`; memo by column set. */
static const Expr *minor(ElemCtx *c, const Expr *const (*cell)[DET_MAX], int size, int row,
                         unsigned cols, const Expr **memo) {
  if (row == size) return NULL; /* 1 */
  if (memo[cols]) return memo[cols];
  const Expr *sum = NULL;
  bool negative = false;
  for (int k = 0; k < size; k++) {
    if (!(cols >> k & 1)) continue;
    const Expr *rest = minor(c, cell, size, row + 1, cols & ~(1u << k), memo);
    const Expr *term = rest ? ex_mul(c->pool, cell[row][k], rest) : cell[row][k];
    sum = !sum ? term : ex_op(c->pool, negative ? EX_sub : EX_add, sum, term, NULL);
    negative = !negative;
  }
  return memo[cols] = sum;
}

const Expr *elem_det(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Value *x = n->in[0];
  const Expr *cell[DET_MAX][DET_MAX], *at[MAX_RANK], *memo[1 << DET_MAX] = {0};
  int64_t size = 0;
  /* of equal sides one may be a size that only a run knows */
  if (!expr_is_const(x->dims[x->rank - 1], &size)) expr_is_const(x->dims[x->rank - 2], &size);
  for (int d = 0; d < x->rank - 2; d++) at[d] = idx[d];
  for (int i = 0; i < size * size; i++) {
    at[x->rank - 2] = ex_i64(c->pool, i / size);
    at[x->rank - 1] = ex_i64(c->pool, i % size);
    cell[i / size][i % size] = kit_in(c, n, 0, at, kit_compute(n));
  }
  const Expr *det =
      minor(c, (const Expr *const(*)[DET_MAX])cell, (int)size, 0, (1u << size) - 1, memo);
  return kit_ret(c, n, out, det ? det : ex_const(c->pool, kit_compute(n), 1));
}

/* ---- Inverse ---- */
bool infer_inverse(Model *m, Node *n) {
  const Value *x = n->in[0];
  return op_need_class(m, n, 0, CL_FLOAT) && op_need_rank(m, n, 0, 2, MAX_RANK) &&
         require_equal(m, n, x->dims[x->rank - 2], x->dims[x->rank - 1],
                       "the sides of the matrix") &&
         op_out_like(m, n, 0, x->dtype, x);
}

static int pack_inverse(const Node *n, int64_t *w, int max) { return 0; }

static const Expr *scratch_inverse(Model *m, const Node *n) {
  const Expr *side = n->in[0]->dims[n->in[0]->rank - 1];
  return op_times(m, op_times(m, side, side), ex_i64(m->pool, 2 * sizeof(double)));
}
const ExternRow ext_inverse = {.symbol = "rt_inverse",
                               .fn = (void *)rt_inverse,
                               .pack = pack_inverse,
                               .scratch = scratch_inverse};

/* ---- CDist: distances of the rows of a and b ---- */
static const char *const metrics[] = {"euclidean", "sqeuclidean", NULL};

bool infer_cdist(Model *m, Node *n) {
  const Expr *same;
  int metric;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_same_dtype(m, n, 1, 0) ||
      !op_need_rank(m, n, 0, 2, 2) || !op_need_rank(m, n, 1, 2, 2) ||
      !op_choice(m, n, "metric", "sqeuclidean", metrics, &metric) ||
      !op_same_dim(m, n, n->in[0]->dims[1], n->in[1]->dims[1], "the lengths of the rows", &same))
    return false;
  const Expr *dims[] = {n->in[0]->dims[0], n->in[1]->dims[0]};
  return op_out(m, n, 0, n->in[0]->dtype, 2, dims);
}

const Expr *elem_cdist(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = kit_compute(n);
  const Expr *k = kit_var(c, "k", n->in[0]->dims[1]), *a[] = {idx[0], k}, *b[] = {idx[1], k};
  const Expr *gap = ex_sub(c->pool, kit_in(c, n, 0, a, t), kit_in(c, n, 1, b, t));
  const Expr *sum = kit_reduce(c, RED_SUM, k, ex_mul(c->pool, gap, gap));
  const bool root = strcmp(node_string(n, "metric", "sqeuclidean"), "euclidean") == 0;
  return kit_ret(c, n, out, root ? kit_op1(c, EX_sqrt, sum) : sum);
}
