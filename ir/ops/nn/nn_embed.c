/* What ONNX Runtime's tools make of transformers (com.microsoft): EmbedLayerNormalization,
 * Attention with one matrix for queries, keys and values, and their quantized forms. They become
 * Gather, LayerNormalization, products and the Attention of the default domain. */
#include <math.h>
#include <string.h>

#include "ir/ops/nn/nn_heads.h"
#include "ir/ops/nn/nn_quant.h"

/* ---- embeddings ---- */
enum {
  E_IDS,
  E_SEGMENT_IDS,
  E_WORD,
  E_POSITION,
  E_SEGMENT,
  E_GAMMA,
  E_BETA,
  E_MASK,
  E_POSITION_IDS
};
enum { E_SCALES = 8, E_ZEROS = 13, E_TABLES = 5 }; /* quantized: of E_WORD … E_BETA */

static bool is_quantized(const Node *n) { return n->op->name[0] == 'Q'; }

/* Inputs with optional ones in front, which the table of operators cannot ask for. */
static bool need_inputs(Model *m, const Node *n) {
  for (int k = E_WORD; k < (is_quantized(n) ? E_ZEROS + E_TABLES : E_MASK); k++) {
    const bool segment = k == E_SEGMENT || k == E_SCALES + 2 || k == E_ZEROS + 2;
    if (k != E_MASK && !node_in(n, k) && !(segment && !node_in(n, E_SEGMENT)))
      return op_error(m, n, ERR_ARITY, "input %d is required", k);
  }
  return true;
}

static bool need_tables(Model *m, const Node *n, const Expr *hidden) {
  for (int k = E_WORD; k <= E_BETA; k++) {
    if (k < E_GAMMA ? !op_need_rank(m, n, k, 2, 2) : !op_need_rank(m, n, k, 1, 1)) return false;
    const Value *v = node_in(n, k);
    if (v && !require_equal(m, n, v->dims[v->rank - 1], hidden, "hidden sizes")) return false;
    const int scale = E_SCALES + k - E_WORD, zero = E_ZEROS + k - E_WORD;
    if (is_quantized(n)
            ? !quant_need_8bit(m, n, k) || !op_need_dtype(m, n, scale, DT_F32) ||
                  !kit_need_scalar(m, n, scale, "scale") || !op_same_dtype(m, n, zero, k) ||
                  !kit_need_scalar(m, n, zero, "zero point")
            : !op_need_class(m, n, k, CL_FLOAT) || !op_same_dtype(m, n, k, E_WORD))
      return false;
  }
  return true;
}

bool infer_embed_norm(Model *m, Node *n) {
  const Value *ids = n->in[E_IDS];
  double epsilon;
  if (!need_inputs(m, n) || !op_need_class(m, n, E_IDS, CL_INT) ||
      !op_need_rank(m, n, E_IDS, 2, 2) || !op_need_rank(m, n, E_WORD, 2, 2) ||
      !op_need_rank(m, n, E_POSITION, 2, 2) || !op_float(m, n, "epsilon", 1e-12, &epsilon) ||
      !op_need_class(m, n, E_MASK, CL_INT))
    return false;
  if (!node_in(n, E_SEGMENT_IDS) != !node_in(n, E_SEGMENT))
    return op_error(m, n, ERR_ARITY, "segments and their embedding must come together");
  const Expr *dims[] = {ids->dims[0], ids->dims[1], n->in[E_WORD]->dims[1]};
  const bool own_positions = !is_quantized(n) && node_in(n, E_POSITION_IDS);
  if (!need_tables(m, n, dims[2]) || !op_need_rank(m, n, E_SEGMENT_IDS, 2, 2) ||
      !require_shape(m, n, E_SEGMENT_IDS, 0, 2, dims, "dim of the segments") ||
      !op_need_rank(m, n, E_MASK, 2, 2) ||
      !require_shape(m, n, E_MASK, 0, 2, dims, "dim of the mask"))
    return false;
  if (own_positions ? !op_need_rank(m, n, E_POSITION_IDS, 2, 2) ||
                          !op_broadcasts_to(m, n, E_POSITION_IDS, 2, dims)
                    : !require_at_most(m, n, dims[1], n->in[E_POSITION]->dims[0], "positions"))
    return false;
  const DType t = is_quantized(n) ? DT_F32 : n->in[E_WORD]->dtype;
  return op_out(m, n, 0, t, 3, dims) && op_out(m, n, 1, DT_I32, 1, dims) &&
         (n->n_out < 3 || op_out(m, n, 2, t, 3, dims));
}

/* Table k as floats. */
static Value *table(Build *b, Node *n, int k) {
  if (!is_quantized(n) || !b->ok) return n->in[k];
  const int at = k - E_WORD;
  Value *in[] = {n->in[k], n->in[E_SCALES + at], node_in(n, E_ZEROS + at)};
  return build_op(b, "DequantizeLinear", in[2] ? 3 : 2, in, 0, NULL);
}

static Value *rows(Build *b, Node *n, int k, Value *ids) {
  Value *in[] = {table(b, n, k), ids};
  return b->ok ? build_op(b, "Gather", 2, in, 0, NULL) : ids;
}

Value *heads_size(Build *b, Value *v, int d) {
  int64_t size;
  if (expr_is_const(v->dims[d], &size)) return build_i64s(b, 1, &size);
  const Attr range[] = {attr_int(b->m->arena, "start", d), attr_int(b->m->arena, "end", d + 1)};
  return build_op(b, "Shape", 1, &v, 2, range);
}

static Value *positions(Build *b, Node *n) {
  const int64_t zero = 0;
  if (!is_quantized(n) && node_in(n, E_POSITION_IDS))
    return rows(b, n, E_POSITION, n->in[E_POSITION_IDS]);
  Value *in[] = {table(b, n, E_POSITION), build_i64s(b, 1, &zero), heads_size(b, n->in[E_IDS], 1),
                 build_i64s(b, 1, &zero)};
  return b->ok ? build_op(b, "Slice", 4, in, 0, NULL) : in[0];
}

/* How many of the mask are 1, in each row; 0 without a mask. */
static Value *mask_index(Build *b, Node *n) {
  Arena *a = b->m->arena;
  Value *mask = node_in(n, E_MASK);
  const int64_t one = 1;
  if (!b->ok) return NULL;
  if (!mask) return build2(b, "Expand", build_scalar(b, DT_I32, 0), heads_size(b, n->in[E_IDS], 0));
  Value *is_one = build2(b, "Equal", mask, build_scalar(b, mask->dtype, 1));
  const Attr keep = attr_int(a, "keepdims", 0);
  Value *in[] = {build_cast(b, is_one, DT_I32), build_i64s(b, 1, &one)};
  return b->ok ? build_op(b, "ReduceSum", 2, in, 1, &keep) : NULL;
}

bool expand_embed_norm(Build *b, Node *n, Value **out) {
  Value *sum = rows(b, n, E_WORD, n->in[E_IDS]), *place = positions(b, n);
  if (b->ok) sum = build2(b, "Add", sum, place);
  if (b->ok && node_in(n, E_SEGMENT)) {
    Value *segment = rows(b, n, E_SEGMENT, n->in[E_SEGMENT_IDS]);
    if (b->ok) sum = build2(b, "Add", sum, segment);
  }
  Value *in[] = {sum, table(b, n, E_GAMMA), table(b, n, E_BETA)};
  const Attr epsilon = attr_float(b->m->arena, "epsilon", node_float(n, "epsilon", 1e-12));
  if (b->ok) out[0] = build_op(b, "LayerNormalization", 3, in, 1, &epsilon);
  if (node_out(n, 1)) out[1] = mask_index(b, n);
  if (node_out(n, 2)) out[2] = sum;
  return b->ok;
}

/* ---- Attention, QAttention ---- */
typedef struct Packed { /* an attention whose projections are one matrix */
  Value *x, *w, *bias, *mask, *past, *added;
  Value *x_scale, *w_scale, *x_zero, *w_zero; /* x_scale NULL: not quantized */
  int64_t heads, sizes[3];                    /* of queries, keys, values */
} Packed;

bool heads_projected_sizes(Model *m, const Node *n, const Value *w, int64_t *heads,
                           int64_t *sizes) {
  const int64_t *v = NULL;
  int count;
  int64_t all;
  if (!op_int_in(m, n, "num_heads", 0, 1, INT32_MAX, heads) ||
      !op_ints(m, n, "qkv_hidden_sizes", &v, &count))
    return false;
  if (!expr_is_const(w->dims[1], &all))
    return op_error(m, n, ERR_DYNAMIC, "the hidden size is not known");
  if (count > 0 && (count != 3 || v[0] != v[1]))
    return op_error(m, n, ERR_ATTR_VALUE, "qkv_hidden_sizes must be three, the first two equal");
  for (int k = 0; k < 3; k++) {
    sizes[k] = count > 0 ? v[k] : all / 3;
    if (sizes[k] < 1 || sizes[k] % *heads)
      return op_error(m, n, ERR_SHAPE, "%lld elements do not divide over %lld heads",
                      (long long)sizes[k], (long long)*heads);
  }
  return sizes[0] + sizes[1] + sizes[2] == all ||
         op_error(m, n, ERR_SHAPE, "queries, keys and values have not %lld columns in all",
                  (long long)all);
}

static bool packed_of(Model *m, const Node *n, Packed *p) {
  *p = (Packed){.x = n->in[0], .w = n->in[1], .bias = node_in(n, 2)};
  if (is_quantized(n)) {
    p->x_scale = n->in[3];
    p->w_scale = n->in[4];
    p->mask = node_in(n, 5);
    p->x_zero = node_in(n, 6);
    p->w_zero = node_in(n, 7);
    p->past = node_in(n, 8);
  } else {
    p->mask = node_in(n, 3);
    p->past = node_in(n, 4);
    p->added = node_in(n, 5);
  }
  return heads_projected_sizes(m, n, p->w, &p->heads, p->sizes);
}

bool heads_need_mask(Model *m, const Node *n, int k, const Expr *const *seen) {
  const Value *mask = node_in(n, k);
  if (!mask) return true;
  if (!op_need_class(m, n, k, CL_INT) || !op_need_rank(m, n, k, 1, 3)) return false;
  if (mask->rank > 1)
    return require_equal(m, n, mask->dims[0], seen[0], "batch of the mask") &&
           require_equal(m, n, mask->dims[mask->rank - 1], seen[2], "keys of the mask") &&
           (mask->rank == 2 || require_equal(m, n, mask->dims[1], seen[1], "rows of the mask"));
  return mask->dims[0] == ex_mul(m->pool, seen[0], ex_i64(m->pool, 2)) ||
         require_equal(m, n, mask->dims[0], seen[0], "lengths of the mask");
}

static bool need_projection(Model *m, const Node *n, const Packed *p) {
  const Expr *columns = p->w->dims[1], *same;
  if (!op_same_dim(m, n, p->x->dims[2], p->w->dims[0], "the inner dims of the product", &same))
    return false;
  if (!p->x_scale)
    return op_need_class(m, n, 0, CL_FLOAT) && op_same_dtype(m, n, 1, 0) &&
           op_same_dtype(m, n, 2, 0) && op_same_dtype(m, n, 4, 0) && op_same_dtype(m, n, 5, 0) &&
           op_need_rank(m, n, 5, 4, 4) && kit_need_vector(m, n, 2, columns, "bias");
  return quant_need_8bit(m, n, 0) && quant_need_8bit(m, n, 1) && op_need_dtype(m, n, 2, DT_F32) &&
         op_need_dtype(m, n, 3, DT_F32) && op_need_dtype(m, n, 4, DT_F32) &&
         kit_need_scalar(m, n, 3, "input_scale") && op_same_dtype(m, n, 6, 0) &&
         kit_need_scalar(m, n, 6, "input_zero_point") && op_same_dtype(m, n, 7, 1) &&
         quant_need_lane(m, n, 4, columns, "weight_scale") &&
         quant_need_lane(m, n, 7, columns, "weight_zero_point") && op_need_dtype(m, n, 8, DT_F32) &&
         kit_need_vector(m, n, 2, columns, "bias");
}

bool infer_packed_attention(Model *m, Node *n) {
  static const char *const refused[] = {"do_rotary", "past_present_share_buffer"};
  const bool quantized = is_quantized(n);
  Packed p;
  int64_t v;
  double f;
  if (!op_need_rank(m, n, 0, 3, 3) || !op_need_rank(m, n, 1, 2, 2) || !packed_of(m, n, &p) ||
      !op_int_in(m, n, "unidirectional", 0, 0, 1, &v) || !op_float(m, n, "scale", 0, &f) ||
      !op_float(m, n, "mask_filter_value", -10000, &f) || !need_projection(m, n, &p))
    return false;
  for (int k = 0; k < 2; k++) {
    if (!op_int(m, n, refused[k], 0, &v)) return false;
    if (v) return op_error(m, n, ERR_UNSUPPORTED, "attribute %s is not supported", refused[k]);
  }
  if (!quantized && node_in(n, 6))
    return op_error(m, n, ERR_UNSUPPORTED, "input past_sequence_length is not supported");
  if (p.past && p.sizes[0] != p.sizes[2])
    return op_error(m, n, ERR_UNSUPPORTED, "a past of values of another size");
  ExprPool *e = m->pool;
  const Expr *batch = p.x->dims[0], *len = p.x->dims[1], *heads = ex_i64(e, p.heads),
             *head = ex_i64(e, p.sizes[0] / p.heads);
  if (!op_need_rank(m, n, quantized ? 8 : 4, 5, 5)) return false;
  const Expr *before = p.past ? p.past->dims[3] : ex_i64(e, 0), *total = ex_add(e, before, len);
  const Expr *past[] = {ex_i64(e, 2), batch, heads, before, head},
             *present[] = {past[0], batch, heads, total, head}, *seen[] = {batch, len, total},
             *dims[] = {batch, len, ex_i64(e, p.sizes[2])};
  const DType t = quantized ? DT_F32 : p.x->dtype;
  return require_shape(m, n, quantized ? 8 : 4, 0, 5, past, "dim of the past") &&
         heads_need_mask(m, n, quantized ? 5 : 3, seen) && op_out(m, n, 0, t, 3, dims) &&
         (n->n_out < 2 || op_out(m, n, 1, t, 5, present));
}

Value *heads_binary(Build *b, const char *op, Value *x, Value *y) {
  return b->ok ? build2(b, op, x, y) : x;
}

Value *heads_unsqueezed(Build *b, Value *v, int n, const int64_t *axes) {
  return heads_binary(b, "Unsqueeze", v, build_i64s(b, n, axes));
}

static Value *projected(Build *b, const Packed *p) {
  if (!p->x_scale) {
    Value *y = build2(b, "MatMul", p->x, p->w);
    return p->bias ? heads_binary(b, "Add", y, p->bias) : y;
  }
  Value *in[] = {p->x, p->w, p->x_scale, p->w_scale, p->x_zero, p->w_zero, p->bias};
  return build_node(b, "MatMulIntegerToFloat", "com.microsoft", 7, in, 1, 0, NULL)->out[0];
}

Value *heads_count(Build *b, Value *a, Value *c) {
  if (c) a = heads_binary(b, "Add", a, c);
  Value *end =
      b->ok ? build_op(b, "Reshape", 2, (Value *[]){a, build_i64s(b, 0, NULL)}, 0, NULL) : NULL;
  return b->ok ? build_range(b, end) : a;
}

/* Lengths, or lengths and then starts: [batch, keys] of what is seen. */
static Value *seen_keys(Build *b, const KeyMask *k) {
  static const int64_t one = 1, zero = 0, least = INT64_MAX;
  Value *mask = build_cast(b, k->mask, DT_I64), *old = NULL;
  if (k->past && b->ok) old = heads_size(b, k->past, k->past_dim);
  Value *keys = b->ok ? heads_count(b, heads_size(b, k->keys, k->key_dim), old) : mask;
  if (!b->ok || k->mask->dims[0] == k->batch->dims[0])
    return heads_binary(b, "Less", keys, heads_unsqueezed(b, mask, 1, &one));
  Value *batch = heads_size(b, k->batch, 0), *axis = build_i64s(b, 1, &zero);
  Value *ends[] = {mask, axis, batch, axis},
        *starts[] = {mask, batch, build_i64s(b, 1, &least), axis};
  if (!b->ok) return mask;
  Value *end = build_op(b, "Slice", 4, ends, 0, NULL);
  Value *start = b->ok ? build_op(b, "Slice", 4, starts, 0, NULL) : end;
  end = heads_binary(b, "Less", keys, heads_unsqueezed(b, end, 1, &one));
  start = heads_binary(b, "GreaterOrEqual", keys, heads_unsqueezed(b, start, 1, &one));
  return heads_binary(b, "And", end, start);
}

Value *heads_mask(Build *b, const KeyMask *k, DType t) {
  static const int64_t axes[] = {1, 2};
  if (!k->mask || !b->ok) return k->added;
  Value *seen = k->mask->rank == 1
                    ? seen_keys(b, k)
                    : build2(b, "Greater", k->mask, build_scalar(b, k->mask->dtype, 0));
  seen = heads_unsqueezed(b, seen, k->mask->rank == 3 ? 1 : 2, axes);
  Value *in[] = {seen, build_scalar(b, t, 0), build_scalar(b, t, k->low)};
  Value *mask = b->ok ? build_op(b, "Where", 3, in, 0, NULL) : seen;
  return k->added ? heads_binary(b, "Add", mask, k->added) : mask;
}

static Value *half(Build *b, Value *past, int k) {
  return past && b->ok ? build2(b, "Gather", past, build_scalar(b, DT_I64, k)) : NULL;
}

bool expand_packed_attention(Build *b, Node *n, Value **out) {
  static const int64_t zero = 0;
  Arena *a = b->m->arena;
  Packed p;
  if (!packed_of(b->m, n, &p)) return false;
  const Attr last = attr_int(a, "axis", 2), first = attr_int(a, "axis", 0);
  const KeyMask mask = {p.mask, p.added, p.x, p.x,
                        p.past, 1,       3,   node_float(n, "mask_filter_value", -10000)};
  Value *all[] = {projected(b, &p), build_i64s(b, 3, p.sizes)};
  if (!b->ok) return false;
  Node *parts = build_node(b, "Split", "", 2, all, 3, 1, &last);
  Value *in[] = {parts->out[0],      parts->out[1],
                 parts->out[2],      heads_mask(b, &mask, all[0]->dtype),
                 half(b, p.past, 0), half(b, p.past, 1)};
  if (!b->ok) return false;
  const double head = (double)(p.sizes[0] / p.heads), scale = node_float(n, "scale", 0);
  const Attr attrs[] = {attr_int(a, "q_num_heads", p.heads), attr_int(a, "kv_num_heads", p.heads),
                        attr_int(a, "is_causal", node_int(n, "unidirectional", 0)),
                        attr_float(a, "scale", scale != 0 ? scale : 1 / sqrt(head))};
  const Node *y = build_node(b, "Attention", "", p.past ? 6 : in[3] ? 4 : 3, in, 3, 4, attrs);
  out[0] = y->out[0];
  if (!node_out(n, 1) || !b->ok) return b->ok;
  Value *both[] = {heads_unsqueezed(b, y->out[1], 1, &zero),
                   heads_unsqueezed(b, y->out[2], 1, &zero)};
  if (b->ok) out[1] = build_op(b, "Concat", 2, both, 1, &first);
  return b->ok;
}
