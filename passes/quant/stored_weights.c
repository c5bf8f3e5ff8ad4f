/* Products of floats whose constant right-hand side is stored in 2, 4 or 8 bits keep it so: MatMul
 * and Gemm of DequantizeLinear (or Cast, of 8-bit floats) become DequantizeMatMul, before constants
 * are folded. Scales may be one, one per column, or one per block along the contracted axis. */
#include "ir/ops/math/math_weights.h"
#include "passes/choose/contract_types.h"
#include "passes/graph/rewrite.h"

#include <string.h>

enum { LEAST = 1024, LEAST_BLOCK = 8 }; /* weights worth it; rows that share a scale */

typedef struct Source {
  const Node *n;      /* DequantizeLinear or Cast */
  const ConstData *q; /* [K, N], or [N, K]: */
  bool columns_first;
  int64_t rows, columns, block;
  int axis; /* of scales in q: -1: one for all */
  bool blocked;
} Source;

/* ---- which ---- */

static bool is_constant(const Node *n, int k) { return !node_in(n, k) || n->in[k]->cdata; }

/* v through a Transpose that exchanges both dimensions. */
static const Value *through_transpose(const Value *v, bool *exchanged) {
  const Node *t = def_is(v, "Transpose");
  const int64_t *perm;
  *exchanged = t != NULL;
  if (!t) return v;
  const int n = node_ints(t, "perm", &perm);
  return t->in[0]->rank == 2 && (n == 0 || (n == 2 && perm[0] == 1)) ? t->in[0] : NULL;
}

static bool grain_fits(Source *s) {
  const Node *n = s->n;
  const int k_axis = s->columns_first ? 1 : 0;
  const ConstData *scale = n->in[1]->cdata;
  const int64_t block = node_int(n, "block_size", 0);
  s->axis = -1;
  s->block = s->rows;
  if (!block && scale->count == 1 && scale->rank <= 1) return true;
  s->axis = (int)node_int(n, "axis", 1);
  if (s->axis < 0) s->axis += 2;
  s->blocked = block > 0;
  if (!block) return s->axis != k_axis;
  if (block < s->block) s->block = block;
  return s->axis == k_axis && block >= LEAST_BLOCK;
}

static bool source_of(const Value *b, bool trans, Source *s) {
  bool exchanged;
  *s = (Source){0};
  const Value *v = through_transpose(b, &exchanged);
  const Node *n = v ? v->def : NULL;
  if (!n || v->dtype != DT_F32 || v->rank != 2) return false;
  const bool cast = node_is(n, "Cast");
  if (!cast && !node_is(n, "DequantizeLinear")) return false;
  s->n = n;
  s->q = n->in[0]->cdata;
  if (!s->q || !s->q->data || !is_constant(n, 1) || !is_constant(n, 2)) return false;
  if (cast && !(dtype_is_float(s->q->dtype) && dtype_rows[s->q->dtype].bits == 8)) return false;
  s->columns_first = trans != exchanged;
  s->rows = s->q->dims[s->columns_first ? 1 : 0];
  s->columns = s->q->dims[s->columns_first ? 0 : 1];
  s->axis = -1;
  s->block = s->rows;
  return s->rows > 0 && s->columns > 1 && s->q->count >= LEAST && (cast || grain_fits(s));
}

/* What an integer product computes: 8 bits on both sides. */
static bool is_quantized(const Value *x) {
  const Node *n = def_is(x, "DequantizeLinear");
  return n && dtype_rows[n->in[0]->dtype].bits == 8 && dtype_is_int(n->in[0]->dtype);
}

static bool product_fits(const Node *n, Source *s) {
  const bool gemm = node_is(n, "Gemm");
  if (!gemm && !node_is(n, "MatMul")) return false;
  const Value *x = n->in[0];
  if (x->dtype != DT_F32 || x->cdata || x->rank < 2) return false;
  if (!source_of(n->in[1], gemm && node_int(n, "transB", 0), s)) return false;
  const DType t = s->q->dtype;
  if (!contract_types(DT_F32, t)) return false;
  return !(is_quantized(x) && dtype_is_int(t) && dtype_rows[t].bits == 8);
}

/* ---- constants, by row ---- */

static const void *exchanged(Arena *a, const void *data, int64_t rows, int64_t columns, int size) {
  char *out = arena_alloc(a, (size_t)(rows * columns * size) + 1);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++)
      memcpy(out + (r * columns + c) * size, (const char *)data + (c * rows + r) * size,
             (size_t)size);
  return out;
}

/* Input k, which has the form of the scales, as [blocks, columns]. */
static int64_t grain_place(const Source *s, int64_t block, int64_t column) {
  const int64_t blocks = (s->rows + s->block - 1) / s->block;
  if (s->axis < 0) return 0;
  if (!s->blocked) return column;
  return s->columns_first ? column * blocks + block : block * s->columns + column;
}

static void *by_block(Arena *a, const Source *s, const ConstData *d, DType t) {
  const int64_t blocks = (s->rows + s->block - 1) / s->block;
  const int size = dtype_bytes(t);
  char *out = arena_alloc(a, (size_t)(blocks * s->columns * size) + 1);
  for (int64_t b = 0; b < blocks; b++)
    for (int64_t c = 0; c < s->columns; c++) {
      char *to = out + (b * s->columns + c) * size;
      if (t == DT_F32)
        dtype_store_f(t, to, d ? const_float(d, grain_place(s, b, c)) : 1.0);
      else
        memcpy(to, (const char *)d->data + grain_place(s, b, c) * size, (size_t)size);
    }
  return out;
}

static StoredWeights weights_of(Arena *a, const Source *s) {
  const bool cast = node_is(s->n, "Cast");
  const ConstData *zero = cast ? NULL : const_input(s->n, 2);
  StoredWeights w = {.name = s->q->name,
                     .type = s->q->dtype,
                     .zero_type = s->q->dtype,
                     .rows = s->rows,
                     .columns = s->columns,
                     .block = s->block,
                     .q = s->q->data};
  if (s->columns_first)
    w.q = exchanged(a, s->q->data, s->rows, s->columns, dtype_bytes(s->q->dtype));
  w.scale = by_block(a, s, cast ? NULL : s->n->in[1]->cdata, DT_F32);
  if (zero && !const_all(zero, 0)) w.zero = by_block(a, s, zero, w.type);
  return w;
}

/* ---- the product ---- */

static Value *times(Build *b, Value *v, double factor) {
  if (!b->ok || factor == 1) return v;
  return build2(b, "Mul", v, build_scalar(b, DT_F32, factor));
}

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  Source s;
  if (!product_fits(n, &s)) return true;
  Build b = {.m = f->c->model, .g = n->graph, .loc = n->loc, .ok = true};
  const StoredWeights w = weights_of(b.m->arena, &s);
  Value *x = n->in[0];
  if (node_is(n, "Gemm") && node_int(n, "transA", 0)) x = build1(&b, "Transpose", x);
  Value *y = b.ok ? build_dequantize_matmul(&b, x, &w) : x;
  if (node_is(n, "Gemm")) {
    y = times(&b, y, node_float(n, "alpha", 1));
    const double beta = node_float(n, "beta", 1);
    if (node_in(n, 2) && beta != 0 && b.ok) y = build2(&b, "Add", y, times(&b, n->in[2], beta));
  }
  if (!b.ok) return false;
  *keep = false;
  return forward_set(f, n, n->out[0], y);
}

bool pass_stored_weights(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, rewrite_one);
}
