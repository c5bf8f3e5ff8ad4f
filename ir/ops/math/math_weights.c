/* Products with weights that stay as small as they were stored: DequantizeMatMul (internal), whose
 * right-hand side is (q - zero) * scale with a scale per column and block of rows, and
 * com.microsoft's MatMulNBits, which becomes one. */
#include "ir/ops/math/math_weights.h"
#include "ir/op/kit.h"

/* ---- DequantizeMatMul: x, q [K, N], scale [blocks, N], zero (of q's type or f32) ---- */
static bool stored_type(DType t) {
  return dtype_rows[t].bits <= 8 && t != DT_BOOL && (dtype_is_float(t) || dtype_is_int(t));
}

bool infer_dequantize_matmul(Model *m, Node *n) {
  const Value *x = n->in[0], *q = n->in[1];
  const Expr *dims[MAX_RANK], *same;
  int64_t block;
  if (!op_need_dtype(m, n, 0, DT_F32) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_need_rank(m, n, 1, 2, 2) || !op_need_rank(m, n, 2, 2, 2) ||
      !op_need_rank(m, n, 3, 2, 2) || !op_need_dtype(m, n, 2, DT_F32) ||
      !op_int_in(m, n, "block", 0, 1, INT32_MAX, &block))
    return false;
  if (!stored_type(q->dtype))
    return op_error(m, n, ERR_TYPE, "weights of type %s", dtype_text(q->dtype));
  if (node_in(n, 3) && n->in[3]->dtype != DT_F32 && !op_same_dtype(m, n, 3, 1)) return false;
  for (int k = 2; k < 4; k++) {
    const Value *v = node_in(n, k);
    if (v &&
        (!op_same_dim(m, n, v->dims[0], ex_ceildiv(m->pool, q->dims[0], block), "blocks", &same) ||
         !op_same_dim(m, n, v->dims[1], q->dims[1], "columns", &same)))
      return false;
  }
  if (!op_same_dim(m, n, x->dims[x->rank - 1], q->dims[0], "the inner dims of the product", &same))
    return false;
  for (int d = 0; d < x->rank - 1; d++) dims[d] = x->dims[d];
  dims[x->rank - 1] = q->dims[1];
  return op_out(m, n, 0, DT_F32, x->rank, dims);
}

const Expr *elem_dequantize_matmul(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const int last = n->in[0]->rank - 1;
  const Expr *k = kit_var(c, "k", n->in[1]->dims[0]), *at_x[MAX_RANK], *col = idx[last];
  for (int d = 0; d < last; d++) at_x[d] = idx[d];
  at_x[last] = k;
  const Expr *row = ex_floordiv(p, k, ex_i64(p, node_int(n, "block", 1)));
  const Expr *w = kit_in(c, n, 1, (const Expr *[]){k, col}, DT_F32), *at[] = {row, col};
  if (node_in(n, 3)) w = ex_sub(p, w, kit_in(c, n, 3, at, DT_F32));
  w = ex_mul(p, w, kit_in(c, n, 2, at, DT_F32));
  return kit_reduce(c, RED_SUM, k, ex_mul(p, kit_in(c, n, 0, at_x, DT_F32), w));
}

Value *build_dequantize_matmul(Build *b, Value *x, const StoredWeights *w) {
  Model *m = b->m;
  const int64_t q_dims[] = {w->rows, w->columns},
                s_dims[] = {(w->rows + w->block - 1) / w->block, w->columns};
  Value *in[4] = {x, value_const(m, const_new(m, w->name, w->type, 2, q_dims, w->q)),
                  value_const(m, const_new(m, NULL, DT_F32, 2, s_dims, w->scale)), NULL};
  if (w->zero) in[3] = value_const(m, const_new(m, NULL, w->zero_type, 2, s_dims, w->zero));
  const Attr block = attr_int(m->arena, "block", w->block);
  if (!b->ok) return x;
  return build_node(b, "DequantizeMatMul", "burin", w->zero ? 4 : 3, in, 1, 1, &block)->out[0];
}

/* ---- MatMulNBits: B u8 [N, blocks, block_size * bits / 8], scales and zero points by column ---- */
typedef struct NBits {
  int64_t rows, columns, bits, block, blocks;
} NBits;

static bool nbits_of(Model *m, const Node *n, NBits *w) {
  if (!op_int_in(m, n, "K", 0, 1, INT32_MAX, &w->rows) ||
      !op_int_in(m, n, "N", 0, 1, INT32_MAX, &w->columns) ||
      !op_int_in(m, n, "bits", 4, 2, 8, &w->bits) ||
      !op_int_in(m, n, "block_size", 0, 16, 1 << 20, &w->block))
    return false;
  if (w->bits != 2 && w->bits != 4 && w->bits != 8)
    return op_error(m, n, ERR_UNSUPPORTED, "weights of %lld bits", (long long)w->bits);
  if (w->block & (w->block - 1)) return op_error(m, n, ERR_VALUE, "block_size is no power of two");
  w->blocks = (w->rows + w->block - 1) / w->block;
  return true;
}

/* Input k: a constant of `count` elements. */
static bool need_data(Model *m, const Node *n, int k, int64_t count, const char *what) {
  const Value *v = node_in(n, k);
  if (!v) return true;
  if (!v->cdata) return op_error(m, n, ERR_UNSUPPORTED, "%s must be a constant", what);
  return v->cdata->count == count ||
         op_error(m, n, ERR_SHAPE, "%s has %lld elements, must have %lld", what,
                  (long long)v->cdata->count, (long long)count);
}

static bool need_zeros(Model *m, const Node *n, const NBits *w) {
  const Value *z = node_in(n, 3);
  if (!z) return true;
  if (z->dtype == DT_U8) {
    const int64_t bytes = (w->blocks * w->bits + 7) / 8;
    return need_data(m, n, 3, w->columns * bytes, "zero_points");
  }
  return op_same_dtype(m, n, 3, 0) && need_data(m, n, 3, w->columns * w->blocks, "zero_points");
}

bool infer_matmul_nbits(Model *m, Node *n) {
  const Value *x = n->in[0];
  const Expr *dims[MAX_RANK], *same;
  NBits w;
  int64_t level;
  if (!nbits_of(m, n, &w) || !op_int_in(m, n, "accuracy_level", 0, 0, 4, &level) ||
      !op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
      !op_need_dtype(m, n, 1, DT_U8) || !op_need_class(m, n, 2, CL_FLOAT) ||
      !op_same_dtype(m, n, 5, 0))
    return false;
  if (node_in(n, 4)) return op_error(m, n, ERR_UNSUPPORTED, "input g_idx is not supported");
  if (!need_data(m, n, 1, w.columns * w.blocks * (w.block * w.bits / 8), "B") ||
      !need_data(m, n, 2, w.columns * w.blocks, "scales") || !need_zeros(m, n, &w) ||
      !kit_need_vector(m, n, 5, ex_i64(m->pool, w.columns), "bias") ||
      !op_same_dim(m, n, x->dims[x->rank - 1], ex_i64(m->pool, w.rows), "K", &same))
    return false;
  for (int d = 0; d < x->rank - 1; d++) dims[d] = x->dims[d];
  dims[x->rank - 1] = ex_i64(m->pool, w.columns);
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

/* Element i of a row of bytes, the first one in the lowest bits. */
static uint8_t packed(const uint8_t *row, int64_t i, int64_t bits) {
  const int64_t at = i * bits;
  return (uint8_t)(row[at / 8] >> at % 8 & ((1 << bits) - 1));
}

/* Rows and columns exchanged: [N, K] becomes [K, N]. */
static const uint8_t *weights_by_row(Model *m, const Node *n, const NBits *w) {
  const int64_t bytes = w->blocks * (w->block * w->bits / 8);
  uint8_t *out = arena_alloc(m->arena, (size_t)(w->rows * w->columns) + 1);
  for (int64_t c = 0; c < w->columns; c++) {
    const uint8_t *row = (const uint8_t *)n->in[1]->cdata->data + c * bytes;
    for (int64_t k = 0; k < w->rows; k++) out[k * w->columns + c] = packed(row, k, w->bits);
  }
  return out;
}

/* Floats of input k, [N, blocks], as [blocks, N]. */
static const float *floats_by_block(Model *m, const Node *n, int k, const NBits *w) {
  float *out = ARENA_ARRAY(m->arena, float, w->columns * w->blocks + 1);
  for (int64_t c = 0; c < w->columns; c++)
    for (int64_t i = 0; i < w->blocks; i++)
      out[i * w->columns + c] = (float)const_float(n->in[k]->cdata, c * w->blocks + i);
  return out;
}

/* Without zero points it is the middle of the range. */
static const uint8_t *zeros_by_block(Model *m, const Node *n, const NBits *w) {
  const int64_t bytes = (w->blocks * w->bits + 7) / 8;
  uint8_t *out = arena_alloc(m->arena, (size_t)(w->columns * w->blocks) + 1);
  for (int64_t c = 0; c < w->columns; c++)
    for (int64_t i = 0; i < w->blocks; i++)
      out[i * w->columns + c] =
          node_in(n, 3) ? packed((const uint8_t *)n->in[3]->cdata->data + c * bytes, i, w->bits)
                        : (uint8_t)(1 << (w->bits - 1));
  return out;
}

bool expand_matmul_nbits(Build *b, Node *n, Value **out) {
  NBits w;
  if (!nbits_of(b->m, n, &w)) return false;
  const bool float_zeros = node_in(n, 3) && n->in[3]->dtype != DT_U8;
  StoredWeights s = {.name = n->in[1]->cdata->name,
                     .type = w.bits == 2   ? DT_U2
                             : w.bits == 4 ? DT_U4
                                           : DT_U8,
                     .rows = w.rows,
                     .columns = w.columns,
                     .block = w.block,
                     .q = weights_by_row(b->m, n, &w),
                     .scale = floats_by_block(b->m, n, 2, &w)};
  s.zero_type = float_zeros ? DT_F32 : s.type;
  s.zero = float_zeros ? (const void *)floats_by_block(b->m, n, 3, &w)
                       : (const void *)zeros_by_block(b->m, n, &w);
  Value *y = build_dequantize_matmul(b, build_cast(b, n->in[0], DT_F32), &s);
  if (node_in(n, 5) && b->ok) y = build2(b, "Add", y, build_cast(b, n->in[5], DT_F32));
  out[0] = build_cast(b, y, n->in[0]->dtype);
  return b->ok;
}
