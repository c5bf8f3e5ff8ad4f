/* Products with weights that stay as small as they were stored: DequantizeMatMul (internal), whose
 * right-hand side is (q - zero) * scale with a scale per column and block of rows, and
 * com.microsoft's MatMulNBits, which becomes one. */
#include "ir/ops/math/math_weights.h"
#include "ir/op/kit.h"

#include <string.h>

/* ---- DequantizeMatMul: x, q [K, N], scale [blocks, N], zero (of q's type or f32); where x is bytes (i8), its
 * own scale and sums, by block of k ---- */
static bool stored_type(DType t) {
  return dtype_rows[t].bits <= 8 && t != DT_BOOL && (dtype_is_float(t) || dtype_is_int(t));
}

/* Input k: of x's form, but with blocks. */
static bool infer_byte_blocks(Model *m, Node *n, int k, DType type, const Expr *blocks) {
  const Value *x = n->in[0], *v = n->in[k];
  const Expr *same;
  if (!op_need_dtype(m, n, k, type) || !op_need_rank(m, n, k, x->rank, x->rank) ||
      !op_same_dim(m, n, v->dims[x->rank - 1], blocks, "blocks", &same))
    return false;
  for (int d = 0; d < x->rank - 1; d++)
    if (!op_same_dim(m, n, v->dims[d], x->dims[d], "rows", &same)) return false;
  return true;
}

static bool infer_byte_rows(Model *m, Node *n, int64_t block) {
  const Value *q = n->in[1];
  int64_t rows;
  if (!node_in(n, 4) || !node_in(n, 5))
    return op_error(m, n, ERR_SHAPE, "bytes without their scale");
  if (!dtype_is_int(q->dtype) || dtype_rows[q->dtype].cls != DC_UINT ||
      (node_in(n, 3) && n->in[3]->dtype != q->dtype))
    return op_error(m, n, ERR_TYPE, "bytes times weights of type %s", dtype_text(q->dtype));
  if (!expr_is_const(q->dims[0], &rows) || rows % block)
    return op_error(m, n, ERR_SHAPE, "blocks that are not whole");
  const Expr *blocks = ex_i64(m->pool, rows / block);
  return infer_byte_blocks(m, n, 4, DT_F32, blocks) && infer_byte_blocks(m, n, 5, DT_I32, blocks);
}

bool infer_dequantize_matmul(Model *m, Node *n) {
  const Value *x = n->in[0], *q = n->in[1];
  const Expr *dims[MAX_RANK], *same;
  const bool bytes = x->dtype == DT_I8;
  int64_t block;
  if (!op_need_dtype(m, n, 0, bytes ? DT_I8 : DT_F32) || !op_need_rank(m, n, 0, 1, MAX_RANK) ||
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
  if (bytes && !infer_byte_rows(m, n, block)) return false;
  for (int d = 0; d < x->rank - 1; d++) dims[d] = x->dims[d];
  dims[x->rank - 1] = q->dims[1];
  return op_out(m, n, 0, DT_F32, x->rank, dims);
}

/* The sum over blocks of exact sums of integers, scaled: at: x's index, whose last place is set here. */
static const Expr *elem_byte_matmul(ElemCtx *c, const Node *n, const Expr **at, const Expr *col) {
  ExprPool *p = c->pool;
  const int last = n->in[0]->rank - 1;
  const Expr *block = ex_i64(p, node_int(n, "block", 1));
  const Expr *b = kit_var(c, "b", n->in[2]->dims[0]), *i = kit_var(c, "k", block);
  const Expr *k = ex_add(p, ex_mul(p, b, block), i), *of_weights[] = {b, col};
  at[last] = k;
  const Expr *product =
      ex_mul(p, kit_in(c, n, 0, at, DT_I32), kit_in(c, n, 1, (const Expr *[]){k, col}, DT_I32));
  const Expr *sum = kit_reduce(c, RED_SUM, i, product);
  at[last] = b;
  if (node_in(n, 3))
    sum =
        ex_sub(p, sum, ex_mul(p, kit_in(c, n, 3, of_weights, DT_I32), kit_in(c, n, 5, at, DT_I32)));
  const Expr *scale = ex_mul(p, kit_in(c, n, 2, of_weights, DT_F32), kit_in(c, n, 4, at, DT_F32));
  return kit_reduce(c, RED_SUM, b, ex_mul(p, ex_cast(p, DT_F32, sum), scale));
}

const Expr *elem_dequantize_matmul(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const int last = n->in[0]->rank - 1;
  const Expr *k = kit_var(c, "k", n->in[1]->dims[0]), *at_x[MAX_RANK], *col = idx[last];
  for (int d = 0; d < last; d++) at_x[d] = idx[d];
  if (node_in(n, 4)) return elem_byte_matmul(c, n, at_x, col);
  at_x[last] = k;
  const Expr *row = ex_floordiv(p, k, ex_i64(p, node_int(n, "block", 1)));
  const Expr *w = kit_in(c, n, 1, (const Expr *[]){k, col}, DT_F32), *at[] = {row, col};
  if (node_in(n, 3)) w = ex_sub(p, w, kit_in(c, n, 3, at, DT_F32));
  w = ex_mul(p, w, kit_in(c, n, 2, at, DT_F32));
  return kit_reduce(c, RED_SUM, k, ex_mul(p, kit_in(c, n, 0, at_x, DT_F32), w));
}

static Value *build_product(Build *b, Value *const *x, int n_in, const StoredWeights *w) {
  Model *m = b->m;
  const int64_t q_dims[] = {w->rows, w->columns},
                s_dims[] = {(w->rows + w->block - 1) / w->block, w->columns};
  Value *in[6] = {x[0],
                  value_const(m, const_new(m, w->name, w->type, 2, q_dims, w->q)),
                  value_const(m, const_new(m, NULL, DT_F32, 2, s_dims, w->scale)),
                  NULL,
                  x[1],
                  x[2]};
  if (w->zero) in[3] = value_const(m, const_new(m, NULL, w->zero_type, 2, s_dims, w->zero));
  const Attr block = attr_int(m->arena, "block", w->block);
  if (!b->ok) return x[0];
  return build_node(b, "DequantizeMatMul", "burin", n_in, in, 1, 1, &block)->out[0];
}

Value *build_dequantize_matmul(Build *b, Value *x, const StoredWeights *w) {
  return build_product(b, (Value *[]){x, NULL, NULL}, w->zero ? 4 : 3, w);
}

Value *build_byte_matmul(Build *b, const ByteRows *x, const StoredWeights *w) {
  return build_product(b, (Value *[]){x->q, x->scale, x->sum}, 6, w);
}

/* ---- MatMulNBits: B u8 [N, blocks, block_size * bits / 8], scales and zero points by column ---- */
typedef struct NBits {
  int64_t rows, columns, bits, block, blocks;
  const int64_t *order; /* of rows, block by block; NULL: as they are */
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

/* Input g_idx, the block of each row (and of what fills up the last one). */
static bool need_groups(Model *m, const Node *n, const NBits *w) {
  const Value *g = node_in(n, 4);
  if (!g) return true;
  const bool filled = g->cdata && g->cdata->count == w->blocks * w->block;
  if (!op_need_dtype(m, n, 4, DT_I32) ||
      !need_data(m, n, 4, filled ? w->blocks * w->block : w->rows, "g_idx"))
    return false;
  for (int64_t k = 0; k < w->rows; k++) {
    const int64_t block = const_int(g->cdata, k);
    if (block < 0 || block >= w->blocks)
      return op_error(m, n, ERR_VALUE, "g_idx[%lld] is %lld, there are %lld blocks", (long long)k,
                      (long long)block, (long long)w->blocks);
  }
  return true;
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
  if (!need_data(m, n, 1, w.columns * w.blocks * (w.block * w.bits / 8), "B") ||
      !need_data(m, n, 2, w.columns * w.blocks, "scales") || !need_zeros(m, n, &w) ||
      !need_groups(m, n, &w) || !kit_need_vector(m, n, 5, ex_i64(m->pool, w.columns), "bias") ||
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

/* Rows and columns exchanged: [N, K] becomes [K, N], of `rows` rows. */
static const uint8_t *weights_by_row(Model *m, const Node *n, const NBits *w, int64_t rows) {
  const int64_t bytes = w->blocks * (w->block * w->bits / 8);
  uint8_t *out = arena_alloc(m->arena, (size_t)(rows * w->columns) + 1);
  for (int64_t c = 0; c < w->columns; c++) {
    const uint8_t *row = (const uint8_t *)n->in[1]->cdata->data + c * bytes;
    for (int64_t k = 0; k < rows; k++)
      out[k * w->columns + c] = packed(row, w->order && k < w->rows ? w->order[k] : k, w->bits);
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

/* Weights of the node; those that fill up the last block are there where `whole`. */
static StoredWeights nbits_weights(Model *m, const Node *n, const NBits *w, bool whole) {
  const bool float_zeros = node_in(n, 3) && n->in[3]->dtype != DT_U8;
  const DType type = w->bits == 2 ? DT_U2 : w->bits == 4 ? DT_U4 : DT_U8;
  const int64_t rows = whole ? w->blocks * w->block : w->rows;
  return (StoredWeights){.name = n->in[1]->cdata->name,
                         .type = type,
                         .zero_type = float_zeros ? DT_F32 : type,
                         .rows = rows,
                         .columns = w->columns,
                         .block = w->block,
                         .q = weights_by_row(m, n, w, rows),
                         .scale = floats_by_block(m, n, 2, w),
                         .zero = float_zeros ? (const void *)floats_by_block(m, n, 3, w)
                                             : (const void *)zeros_by_block(m, n, w)};
}

/* ---- accuracy_level 4: rows as bytes, each block with a factor of its own ---- */

/* Exact sums of a block fit into 32 bits, and weights are integers. */
static bool takes_bytes(const Node *n, const NBits *w) {
  const int64_t most = INT64_C(1) << 31 >> (7 + w->bits + 1);
  const bool whole_zeros = !node_in(n, 3) || n->in[3]->dtype == DT_U8;
  return node_int(n, "accuracy_level", 0) == 4 && whole_zeros && w->block <= most &&
         n->in[0]->rank < MAX_RANK;
}

static Value *reduce_blocks(Build *b, const char *op, Value *v) {
  const int64_t last = -1;
  return build2(b, op, v, build_i64s(b, 1, &last));
}

/* The last dimension becomes `outer` (where there is one more) and `last`. */
static Value *fold_last(Build *b, Value *v, int rank, int64_t outer, int64_t last) {
  int64_t dims[MAX_RANK] = {0}; /* as they are */
  if (!b->ok) return v;
  if (rank > v->rank) dims[rank - 2] = outer;
  dims[rank - 1] = last;
  return build_reshape(b, v, rank, dims);
}

/* Zeros behind the last element, up to whole blocks. */
static Value *fill_block(Build *b, Value *x, const NBits *w) {
  int64_t pads[2 * MAX_RANK] = {0};
  if (!b->ok || w->blocks * w->block == w->rows) return x;
  pads[2 * x->rank - 1] = w->blocks * w->block - w->rows;
  return build2(b, "Pad", x, build_i64s(b, 2 * x->rank, pads));
}

/* 127 / largest; 0 where that is too large for a float, or no number. */
static Value *build_steps(Build *b, Value *largest) {
  static const double least = 0x1p-119;
  Value *large = build2(b, "Greater", largest, build_scalar(b, DT_F32, least));
  Value *steps = build2(b, "Div", build_scalar(b, DT_F32, 127), largest);
  return build_op(b, "Where", 3, (Value *[]){large, steps, build_scalar(b, DT_F32, 0)}, 0, NULL);
}

/* Each block rounded to 127 steps on either side of 0, up to its largest element. */
static ByteRows bytes_of_rows(Build *b, Value *x, const NBits *w) {
  const int rank = x->rank;
  x = fold_last(b, fill_block(b, x, w), rank + 1, w->blocks, w->block);
  Value *largest = reduce_blocks(b, "ReduceMax", build1(b, "Abs", x));
  Value *scale = build2(b, "Div", largest, build_scalar(b, DT_F32, 127));
  Value *q = build1(b, "Round", build2(b, "Mul", x, build_steps(b, largest)));
  q = build_cast(b, q, DT_I8);
  Value *sum = reduce_blocks(b, "ReduceSum", build_cast(b, q, DT_I32));
  return (ByteRows){.q = fold_last(b, q, rank, 0, w->blocks * w->block),
                    .scale = fold_last(b, scale, rank, 0, w->blocks),
                    .sum = fold_last(b, sum, rank, 0, w->blocks)};
}

/* ---- g_idx ---- */

/* The rows of each block together, in their order. */
static const int64_t *rows_by_block(Model *m, const ConstData *g, const NBits *w) {
  int64_t *order = ARENA_ARRAY(m->arena, int64_t, w->rows + 1),
          *next = ARENA_ARRAY(m->arena, int64_t, w->blocks + 1);
  memset(next, 0, sizeof *next * (size_t)(w->blocks + 1));
  for (int64_t k = 0; k < w->rows; k++) next[const_int(g, k) + 1]++;
  for (int64_t i = 0; i < w->blocks; i++) next[i + 1] += next[i];
  for (int64_t k = 0; k < w->rows; k++) order[next[const_int(g, k)]++] = k;
  return order;
}

/* Whether blocks of `rows` in this order have the sizes that they have without g_idx. */
static bool blocks_fit(const ConstData *g, const NBits *w, const int64_t *order) {
  for (int64_t k = 0; k < w->rows; k++)
    if (const_int(g, order[k]) != k / w->block) return false;
  return true;
}

/* As floats, each row with the scale of its block. */
static Value *float_weights(Model *m, const ConstData *g, const StoredWeights *s) {
  const int64_t dims[] = {s->rows, s->columns};
  float *out = ARENA_ARRAY(m->arena, float, s->rows * s->columns + 1);
  for (int64_t k = 0; k < s->rows; k++)
    for (int64_t c = 0; c < s->columns; c++) {
      const int64_t at = const_int(g, k) * s->columns + c, to = k * s->columns + c;
      const float zero = s->zero_type == DT_F32 ? ((const float *)s->zero)[at]
                                                : (float)((const uint8_t *)s->zero)[at];
      out[to] = ((float)((const uint8_t *)s->q)[to] - zero) * s->scale[at];
    }
  return value_const(m, const_new(m, s->name, DT_F32, 2, dims, out));
}

static Value *in_order(Build *b, Value *x, const NBits *w) {
  bool moved = false;
  for (int64_t k = 0; k < w->rows && w->order; k++) moved = moved || w->order[k] != k;
  if (!moved || !b->ok) return x;
  const Attr axis = attr_int(b->m->arena, "axis", -1);
  Value *at = value_const(b->m, const_new(b->m, NULL, DT_I64, 1, &w->rows, w->order));
  return build_op(b, "Gather", 2, (Value *[]){x, at}, 1, &axis);
}

/* The product of x in f32. Blocks of other sizes than block_size are not kept in few bits. */
static Value *nbits_product(Build *b, const Node *n, NBits *w, Value *x) {
  const ConstData *g = node_in(n, 4) ? n->in[4]->cdata : NULL;
  if (g) w->order = rows_by_block(b->m, g, w);
  if (g && !blocks_fit(g, w, w->order)) {
    w->order = NULL;
    const StoredWeights s = nbits_weights(b->m, n, w, false);
    return build2(b, "MatMul", x, float_weights(b->m, g, &s));
  }
  const bool bytes = takes_bytes(n, w);
  const StoredWeights s = nbits_weights(b->m, n, w, bytes);
  x = in_order(b, x, w);
  if (!bytes || !b->ok) return build_dequantize_matmul(b, x, &s);
  const ByteRows rows = bytes_of_rows(b, x, w);
  return build_byte_matmul(b, &rows, &s);
}

bool expand_matmul_nbits(Build *b, Node *n, Value **out) {
  NBits w;
  if (!nbits_of(b->m, n, &w)) return false;
  w.order = NULL;
  Value *y = nbits_product(b, n, &w, build_cast(b, n->in[0], DT_F32));
  if (node_in(n, 5) && b->ok) y = build2(b, "Add", y, build_cast(b, n->in[5], DT_F32));
  out[0] = build_cast(b, y, n->in[0]->dtype);
  return b->ok;
}
