/* Sequences without their padding (com.microsoft): RemovePadding and RestorePadding, and the
 * attentions of what is left, PackedAttention and PackedMultiHeadAttention, which become
 * MultiHeadAttention of padded sequences with a mask of their lengths. Everywhere tokens are
 * [tokens, hidden], and token_offset [batch, length] has the places of the tokens among padded
 * ones, and then those of the padding. */
#include "ir/ops/nn/nn_heads.h"

/* ---- sizes as values ---- */
static Value *joined(Build *b, Value *x, Value *y) {
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  return b->ok ? build_op(b, "Concat", 2, (Value *[]){x, y}, 1, &axis) : x;
}

/* The first two dims of v together, as one number in a vector. */
static Value *places(Build *b, Value *v) {
  return heads_binary(b, "Mul", heads_size(b, v, 0), heads_size(b, v, 1));
}

/* [batch, length, hidden] to [batch * length, hidden]. */
static Value *flat_rows(Build *b, Value *v) {
  return b->ok ? heads_binary(b, "Reshape", v, joined(b, places(b, v), heads_size(b, v, 2))) : v;
}

/* The places of x's tokens. */
static Value *token_places(Build *b, Value *x, Value *offset) {
  static const int64_t all = -1, zero = 0;
  Value *flat = heads_binary(b, "Reshape", offset, build_i64s(b, 1, &all));
  Value *in[] = {flat, build_i64s(b, 1, &zero), heads_size(b, x, 0), build_i64s(b, 1, &zero)};
  return b->ok ? build_op(b, "Slice", 4, in, 0, NULL) : flat;
}

/* Input k is token_offset of the tokens in input 0. */
static bool need_offset(Model *m, const Node *n, int k) {
  if (!node_in(n, k)) return op_error(m, n, ERR_ARITY, "token_offset is missing");
  const Value *v = n->in[k];
  return op_need_dtype(m, n, k, DT_I32) && op_need_rank(m, n, k, 2, 2) &&
         require_at_most(m, n, n->in[0]->dims[0], op_times(m, v->dims[0], v->dims[1]),
                         "tokens and places");
}

/* ---- RestorePadding: tokens, token_offset ---- */
bool infer_restore_padding(Model *m, Node *n) {
  const Value *x = n->in[0], *at = n->in[1];
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 2, 2) || !need_offset(m, n, 1))
    return false;
  const Expr *dims[] = {at->dims[0], at->dims[1], x->dims[1]};
  return op_out(m, n, 0, x->dtype, 3, dims);
}

bool expand_restore_padding(Build *b, Node *n, Value **out) {
  static const int64_t one = 1;
  Value *x = n->in[0], *offset = n->in[1], *hidden = heads_size(b, x, 1);
  Value *none = build_scalar(b, x->dtype, 0), *rows = joined(b, places(b, offset), hidden);
  Value *in[] = {heads_binary(b, "Expand", none, rows),
                 heads_unsqueezed(b, build_cast(b, token_places(b, x, offset), DT_I64), 1, &one),
                 x};
  if (!b->ok) return false;
  Value *y = build_op(b, "ScatterND", 3, in, 0, NULL);
  out[0] = heads_binary(b, "Reshape", y, joined(b, build_shape(b, offset, 0, 2), hidden));
  return b->ok;
}

/* ---- RemovePadding: x [batch, length, hidden], tokens of each sequence ---- */
enum { R_TOKENS, R_OFFSET, R_CUMULATED, R_LONGEST };

bool infer_remove_padding(Model *m, Node *n) {
  const Value *x = n->in[0];
  ExprPool *p = m->pool;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 3, 3) ||
      !op_need_dtype(m, n, 1, DT_I32) || !kit_need_vector(m, n, 1, x->dims[0], "token counts"))
    return false;
  const Expr *one = ex_i64(p, 1), *sequences = ex_add(p, x->dims[0], one);
  const Expr *most = op_times(m, x->dims[0], x->dims[1]);
  const Expr *dims[] = {op_runtime_dim(m, n, 0, 0, "tokens", most), x->dims[2]};
  return op_out(m, n, R_TOKENS, x->dtype, 2, dims) && op_out(m, n, R_OFFSET, DT_I32, 2, x->dims) &&
         op_out(m, n, R_CUMULATED, DT_I32, 1, &sequences) &&
         op_out(m, n, R_LONGEST, DT_I32, 1, &one);
}

typedef struct Padded {     /* what is known of padded sequences, i64 */
  Value *counts, *ends;     /* [batch, 1]: tokens of each sequence; those up to its end */
  Value *at, *row, *all;    /* [length], [batch, 1], [batch * length]: 0, 1, 2 … */
  Value *length, *is_token; /* [1]; [batch, length] */
} Padded;

static Padded padded_of(Build *b, Value *x, Value *counts) {
  static const int64_t one = 1, zero = 0;
  Padded v = {.length = heads_size(b, x, 1)};
  Value *in[] = {build_cast(b, counts, DT_I64), build_scalar(b, DT_I64, 0), v.length};
  if (!b->ok) return v;
  counts = build2(b, "Max", in[0], in[1]);
  counts = heads_binary(b, "Min", counts, v.length);
  v.ends = heads_binary(b, "CumSum", counts, build_i64s(b, 1, &zero));
  v.counts = heads_unsqueezed(b, counts, 1, &one);
  v.ends = heads_unsqueezed(b, v.ends, 1, &one);
  v.at = heads_count(b, v.length, NULL);
  v.row = heads_unsqueezed(b, heads_count(b, heads_size(b, x, 0), NULL), 1, &one);
  v.all = heads_count(b, places(b, x), NULL);
  v.is_token = heads_binary(b, "Less", v.at, v.counts);
  return v;
}

/* Each place has a number: tokens first, and then the padding; the places by that number. */
static Value *places_in_order(Build *b, Value *x, const Padded *v) {
  static const int64_t all = -1;
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  if (!b->ok) return x;
  Value *total = build_op(b, "ReduceMax", 1, &v->ends, 0, NULL);
  Value *token = heads_binary(b, "Add", heads_binary(b, "Sub", v->ends, v->counts), v->at);
  Value *before = heads_binary(b, "Sub", heads_binary(b, "Mul", v->row, v->length), v->ends);
  Value *padding = heads_binary(b, "Add", heads_binary(b, "Add", before, v->at), total);
  if (!b->ok) return x;
  Value *number = build_op(b, "Where", 3, (Value *[]){v->is_token, token, padding}, 0, NULL);
  number = heads_binary(b, "Reshape", number, build_i64s(b, 1, &all));
  Value *in[] = {v->all, number, v->all};
  Value *order = b->ok ? build_op(b, "ScatterElements", 3, in, 1, &axis) : number;
  return heads_binary(b, "Reshape", build_cast(b, order, DT_I32), build_shape(b, x, 0, 2));
}

bool expand_remove_padding(Build *b, Node *n, Value **out) {
  static const int64_t all = -1, zero = 0;
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  Value *x = n->in[0];
  const Padded v = padded_of(b, x, n->in[1]);
  if (!b->ok) return false;
  Value *is_token = build2(b, "Reshape", v.is_token, build_i64s(b, 1, &all));
  Value *in[] = {flat_rows(b, x), is_token};
  if (b->ok) out[R_TOKENS] = build_op(b, "Compress", 2, in, 1, &axis);
  if (node_out(n, R_OFFSET)) out[R_OFFSET] = places_in_order(b, x, &v);
  Value *ends = heads_binary(b, "Reshape", v.ends, build_i64s(b, 1, &all));
  if (node_out(n, R_CUMULATED))
    out[R_CUMULATED] = build_cast(b, joined(b, build_i64s(b, 1, &zero), ends), DT_I32);
  if (!node_out(n, R_LONGEST) || !b->ok) return b->ok;
  Value *most = build_op(b, "ReduceMax", 1, &v.counts, 0, NULL);
  out[R_LONGEST] = build_cast(b, heads_binary(b, "Reshape", most, build_i64s(b, 1, &all)), DT_I32);
  return b->ok;
}

/* ---- PackedMultiHeadAttention ---- */
enum { T_Q, T_K, T_V, T_BIAS, T_OFFSET, T_CUMULATED, T_ADDED };

/* What both attentions ask of the places and of what is added to the scores, from input k on. */
static bool need_places(Model *m, const Node *n, int k, int64_t heads) {
  if (!need_offset(m, n, k)) return false;
  if (!node_in(n, k + 1)) return op_error(m, n, ERR_ARITY, "cumulative_sequence_length is missing");
  const Value *at = n->in[k];
  const Expr *scores[] = {at->dims[0], ex_i64(m->pool, heads), at->dims[1], at->dims[1]};
  const Expr *ends = ex_add(m->pool, at->dims[0], ex_i64(m->pool, 1));
  return op_need_dtype(m, n, k + 1, DT_I32) && kit_need_vector(m, n, k + 1, ends, "sequences") &&
         op_same_dtype(m, n, k + 2, 0) && op_need_rank(m, n, k + 2, 4, 4) &&
         (!node_in(n, k + 2) || op_broadcasts_to(m, n, k + 2, 4, scores));
}

/* The hidden sizes of queries and values. */
static bool token_sizes(Model *m, const Node *n, int64_t heads, const Expr **hidden,
                        const Expr **v_hidden) {
  const Value *q = n->in[T_Q], *k = node_in(n, T_K), *v = node_in(n, T_V);
  const Expr *count = ex_i64(m->pool, heads);
  if (q->rank == 4) {
    *hidden = *v_hidden = op_times(m, count, q->dims[3]);
    if (k || v) return op_error(m, n, ERR_ARITY, "a packed query has the key and the value in it");
    return require_equal(m, n, q->dims[1], count, "number of heads") &&
           require_size(m, n, q->dims[2], 3, "packed projections");
  }
  if (!op_need_rank(m, n, T_Q, 2, 2) || !op_need_rank(m, n, T_K, 2, 2) ||
      !op_need_rank(m, n, T_V, 2, 2))
    return false;
  if (!k || !v) return op_error(m, n, ERR_ARITY, "the key or the value is missing");
  *hidden = q->dims[1];
  *v_hidden = v->dims[1];
  return require_shape(m, n, T_K, 0, 2, (const Expr *const *)q->dims, "dim of the key") &&
         require_equal(m, n, v->dims[0], q->dims[0], "tokens of the value") &&
         require_multiple(m, n, *hidden, count, "hidden size and heads") &&
         require_multiple(m, n, *v_hidden, count, "hidden size and heads");
}

bool infer_tokens_multi_head(Model *m, Node *n) {
  const Attr *a;
  const Expr *hidden, *v_hidden;
  int64_t heads;
  double f;
  if (!op_need_attr(m, n, "num_heads", AT_INT, &a) ||
      !op_int_in(m, n, "num_heads", 1, 1, INT32_MAX, &heads) || !op_float(m, n, "scale", 0, &f) ||
      !op_float(m, n, "mask_filter_value", -10000, &f) || !op_need_class(m, n, T_Q, CL_FLOAT))
    return false;
  for (int k = T_K; k <= T_BIAS; k++)
    if (!op_same_dtype(m, n, k, T_Q)) return false;
  if (!token_sizes(m, n, heads, &hidden, &v_hidden) || !need_places(m, n, T_OFFSET, heads))
    return false;
  const Expr *all = ex_add(m->pool, op_times(m, ex_i64(m->pool, 2), hidden), v_hidden);
  const Expr *dims[] = {n->in[T_Q]->dims[0], v_hidden};
  return kit_need_vector(m, n, T_BIAS, all, "bias") && op_out(m, n, 0, n->in[T_Q]->dtype, 2, dims);
}

/* Tokens of any rank between their padding. */
static Value *restored(Build *b, Value *x, Value *offset) {
  static const int64_t flat[] = {0, -1};
  if (!x || !b->ok) return x;
  Value *in[] = {x->rank == 2 ? x : build_reshape(b, x, 2, flat), offset};
  Value *shape = joined(b, build_shape(b, offset, 0, 2), build_shape(b, x, 1, x->rank));
  if (!b->ok) return x;
  Value *y = build_node(b, "RestorePadding", "com.microsoft", 2, in, 1, 0, NULL)->out[0];
  return x->rank == 2 ? y : heads_binary(b, "Reshape", y, shape);
}

/* Ends of sequences as their lengths. */
static Value *lengths(Build *b, Value *ends, Value *offset) {
  static const int64_t one = 1;
  Value *sequence = heads_count(b, heads_size(b, offset, 0), NULL);
  Value *next = heads_binary(b, "Add", sequence, build_i64s(b, 1, &one));
  Value *first = heads_binary(b, "Gather", ends, sequence);
  return heads_binary(b, "Sub", heads_binary(b, "Gather", ends, next), first);
}

bool expand_tokens_multi_head(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  const Attr axis = attr_int(a, "axis", 0);
  Value *offset = n->in[T_OFFSET];
  Value *in[] = {restored(b, n->in[T_Q], offset),        restored(b, node_in(n, T_K), offset),
                 restored(b, node_in(n, T_V), offset),   node_in(n, T_BIAS),
                 lengths(b, n->in[T_CUMULATED], offset), node_in(n, T_ADDED)};
  const Attr attrs[] = {
      attr_int(a, "num_heads", node_int(n, "num_heads", 1)),
      attr_float(a, "mask_filter_value", node_float(n, "mask_filter_value", -10000)),
      attr_float(a, "scale", node_float(n, "scale", 0))};
  if (!b->ok) return false;
  Value *y = build_node(b, "MultiHeadAttention", "com.microsoft", 6, in, 1, 3, attrs)->out[0];
  Value *rows[] = {flat_rows(b, y), token_places(b, n->in[T_Q], offset)};
  if (b->ok) out[0] = build_op(b, "Gather", 2, rows, 1, &axis);
  return b->ok;
}

/* ---- PackedAttention: tokens, weights, bias, token_offset, ends of the sequences, what is added ---- */
bool infer_tokens_attention(Model *m, Node *n) {
  int64_t heads, sizes[3];
  double f;
  const Expr *same;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_same_dtype(m, n, 1, 0) ||
      !op_same_dtype(m, n, 2, 0) || !op_need_rank(m, n, 0, 2, 2) || !op_need_rank(m, n, 1, 2, 2) ||
      !op_float(m, n, "scale", 0, &f) || !heads_projected_sizes(m, n, n->in[1], &heads, sizes))
    return false;
  const Expr *dims[] = {n->in[0]->dims[0], ex_i64(m->pool, sizes[2])};
  return op_same_dim(m, n, n->in[0]->dims[1], n->in[1]->dims[0], "the inner dims of the product",
                     &same) &&
         kit_need_vector(m, n, 2, n->in[1]->dims[1], "bias") && need_places(m, n, 3, heads) &&
         op_out(m, n, 0, n->in[0]->dtype, 2, dims);
}

bool expand_tokens_attention(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  const Attr last = attr_int(a, "axis", 1);
  int64_t heads, sizes[3];
  if (!heads_projected_sizes(b->m, n, n->in[1], &heads, sizes)) return false;
  Value *y = heads_binary(b, "Add", build2(b, "MatMul", n->in[0], n->in[1]), n->in[2]);
  Value *all[] = {y, build_i64s(b, 3, sizes)};
  if (!b->ok) return false;
  Node *parts = build_node(b, "Split", "", 2, all, 3, 1, &last);
  Value *in[] = {parts->out[0], parts->out[1], parts->out[2], NULL,
                 n->in[3],      n->in[4],      node_in(n, 5)};
  const Attr attrs[] = {attr_int(a, "num_heads", heads),
                        attr_float(a, "scale", node_float(n, "scale", 0))};
  if (!b->ok) return false;
  out[0] = build_node(b, "PackedMultiHeadAttention", "com.microsoft", 7, in, 1, 2, attrs)->out[0];
  return b->ok;
}
