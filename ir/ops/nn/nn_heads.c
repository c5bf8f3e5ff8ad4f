/* MultiHeadAttention and RotaryEmbedding of com.microsoft: they become Attention and
 * RotaryEmbedding of the default domain, with heads in dim 1. */
#include "ir/ops/nn/nn_heads.h"

#include <math.h>

/* ---- MultiHeadAttention ---- */
enum { M_Q, M_K, M_V, M_BIAS, M_MASK, M_ADDED, M_PAST_K, M_PAST_V, M_PAST_LENGTH, M_INDIRECTION };

typedef struct Multi { /* sizes of a MultiHeadAttention */
  int64_t heads;
  const Expr *batch, *len, *keys; /* keys: without those of the past */
  const Expr *hidden, *v_hidden;  /* of all heads */
  const Expr *head, *v_head;
} Multi;

/* Input k: [batch, len, heads, parts, head], or of rank 3. */
static bool need_packed(Model *m, const Node *n, int k, int64_t heads, int64_t parts) {
  const Value *v = n->in[k];
  return op_need_rank(m, n, k, 5, 5) && require_size(m, n, v->dims[2], heads, "number of heads") &&
         require_size(m, n, v->dims[3], parts, "packed projections");
}

static bool multi_query(Model *m, const Node *n, Multi *h) {
  const Value *q = n->in[M_Q];
  ExprPool *p = m->pool;
  const Expr *heads = ex_i64(p, h->heads);
  h->batch = q->dims[0];
  h->len = h->keys = q->dims[1];
  if (q->rank == 5) {
    if (node_in(n, M_K) || node_in(n, M_V))
      return op_error(m, n, ERR_ARITY, "a packed query has the key and the value in it");
    h->head = h->v_head = q->dims[4];
    h->hidden = h->v_hidden = op_times(m, heads, h->head);
    return need_packed(m, n, M_Q, h->heads, 3);
  }
  h->hidden = h->v_hidden = q->dims[2];
  h->head = h->v_head = ex_floordiv(p, h->hidden, heads);
  return op_need_rank(m, n, M_Q, 3, 3) &&
         require_multiple(m, n, h->hidden, heads, "hidden size and heads") &&
         (node_in(n, M_K) || op_error(m, n, ERR_ARITY, "the key is missing"));
}

/* Keys and values of their own: packed, with the heads in dim 1, or of rank 3. */
static bool multi_keys(Model *m, const Node *n, Multi *h) {
  const Value *k = node_in(n, M_K), *v = node_in(n, M_V);
  ExprPool *p = m->pool;
  const Expr *heads = ex_i64(p, h->heads);
  if (!k) return true;
  if (!require_equal(m, n, k->dims[0], h->batch, "batch of the key")) return false;
  h->keys = k->dims[k->rank == 4 ? 2 : 1];
  if (k->rank == 5)
    return need_packed(m, n, M_K, h->heads, 2) &&
           require_equal(m, n, k->dims[4], h->head, "head sizes of query and key") &&
           (!v || op_error(m, n, ERR_ARITY, "a packed key has the value in it"));
  if (!v) return op_error(m, n, ERR_ARITY, "the value is missing");
  if (!op_need_rank(m, n, M_K, 3, 4) || !op_need_rank(m, n, M_V, k->rank, k->rank)) return false;
  const Expr *deep[] = {h->batch, heads, h->keys, h->head}, *flat[] = {h->batch, h->keys};
  if (k->rank == 4) {
    h->v_head = v->dims[3];
    h->v_hidden = op_times(m, heads, h->v_head);
    return require_shape(m, n, M_K, 0, 4, deep, "dim of the key") &&
           require_shape(m, n, M_V, 0, 3, deep, "dim of the value") &&
           (!node_in(n, M_PAST_K) ||
            op_error(m, n, ERR_UNSUPPORTED, "a past before a key of rank 4"));
  }
  h->v_hidden = v->dims[2];
  h->v_head = ex_floordiv(p, h->v_hidden, heads);
  return require_equal(m, n, k->dims[2], h->hidden, "hidden sizes of query and key") &&
         require_multiple(m, n, h->v_hidden, heads, "hidden size and heads") &&
         require_shape(m, n, M_V, 0, 2, flat, "dim of the value");
}

static bool multi_of(Model *m, const Node *n, Multi *h) {
  const Attr *a;
  return op_need_attr(m, n, "num_heads", AT_INT, &a) &&
         op_int_in(m, n, "num_heads", 1, 1, INT32_MAX, &h->heads) &&
         op_need_rank(m, n, M_Q, 3, 5) && op_need_rank(m, n, M_K, 3, 5) && multi_query(m, n, h) &&
         multi_keys(m, n, h);
}

static bool multi_types(Model *m, const Node *n) {
  int64_t v;
  double f;
  if (!op_need_class(m, n, M_Q, CL_FLOAT)) return false;
  for (int k = M_K; k <= M_PAST_V; k++)
    if (k != M_MASK && !op_same_dtype(m, n, k, M_Q)) return false;
  if (node_in(n, M_PAST_LENGTH) || node_in(n, M_INDIRECTION))
    return op_error(m, n, ERR_UNSUPPORTED, "input %s is not supported",
                    node_in(n, M_PAST_LENGTH) ? "past_sequence_length" : "cache_indirection");
  if (!node_in(n, M_PAST_K) != !node_in(n, M_PAST_V))
    return op_error(m, n, ERR_ARITY, "past key and past value must come together");
  return op_int_in(m, n, "unidirectional", 0, 0, 1, &v) && op_float(m, n, "scale", 0, &f) &&
         op_float(m, n, "mask_filter_value", -10000, &f) && op_need_rank(m, n, M_ADDED, 4, 4) &&
         op_need_rank(m, n, M_PAST_K, 4, 4) && op_need_rank(m, n, M_PAST_V, 4, 4);
}

/* The bias is cut at the hidden sizes, which must be known for that. */
static bool need_bias(Model *m, const Node *n, const Multi *h) {
  int64_t q, v;
  if (!node_in(n, M_BIAS)) return true;
  if (!expr_is_const(h->hidden, &q) || !expr_is_const(h->v_hidden, &v))
    return op_error(m, n, ERR_DYNAMIC, "the hidden size of what gets a bias is not known");
  const Expr *all = ex_i64(m->pool, q + q + v);
  return kit_need_vector(m, n, M_BIAS, all, "bias");
}

bool infer_multi_head_attention(Model *m, Node *n) {
  Multi h;
  ExprPool *p = m->pool;
  if (!multi_types(m, n) || !multi_of(m, n, &h) || !need_bias(m, n, &h)) return false;
  const Value *old = node_in(n, M_PAST_K);
  const Expr *heads = ex_i64(p, h.heads), *before = old ? old->dims[2] : ex_i64(p, 0),
             *total = ex_add(p, before, h.keys);
  const Expr *past_k[] = {h.batch, heads, before, h.head},
             *past_v[] = {h.batch, heads, before, h.v_head}, *seen[] = {h.batch, h.len, total},
             *scores[] = {h.batch, heads, h.len, total}, *key[] = {h.batch, heads, total, h.head},
             *value[] = {h.batch, heads, total, h.v_head}, *y[] = {h.batch, h.len, h.v_hidden};
  return require_shape(m, n, M_PAST_K, 0, 4, past_k, "dim of the past key") &&
         require_shape(m, n, M_PAST_V, 0, 4, past_v, "dim of the past value") &&
         heads_need_mask(m, n, M_MASK, seen) &&
         (!node_in(n, M_ADDED) || op_broadcasts_to(m, n, M_ADDED, 4, scores)) &&
         op_out(m, n, 0, n->in[M_Q]->dtype, 3, y) && op_out(m, n, 1, n->in[M_Q]->dtype, 4, key) &&
         op_out(m, n, 2, n->in[M_Q]->dtype, 4, value);
}

static int64_t size_or(const Expr *e, int64_t def) {
  int64_t v;
  return expr_is_const(e, &v) ? v : def;
}

Value *heads_transposed(Build *b, Value *v) {
  const Attr perm = attr_ints(b->m->arena, "perm", 4, (int64_t[]){0, 2, 1, 3});
  return b->ok ? build_op(b, "Transpose", 1, &v, 1, &perm) : v;
}

bool heads_need_window(Model *m, const Node *n, const Expr *hidden, int mask, int flags) {
  const Expr *const *const dims = (const Expr *const *)n->in[0]->dims;
  const Attr *a;
  int64_t heads, window;
  return op_need_attr(m, n, "num_heads", AT_INT, &a) && op_need_attr(m, n, "window", AT_INT, &a) &&
         op_int_in(m, n, "num_heads", 1, 1, INT32_MAX, &heads) &&
         op_int_in(m, n, "window", 1, 1, INT32_MAX, &window) &&
         require_multiple(m, n, hidden, ex_i64(m->pool, heads), "hidden size and heads") &&
         op_need_class(m, n, mask, CL_FLOAT) && op_need_dtype(m, n, flags, DT_I32) &&
         op_need_rank(m, n, mask, 2, 2) && op_need_rank(m, n, flags, 2, 2) &&
         require_shape(m, n, mask, 0, 2, dims, "dimension of the mask") &&
         require_shape(m, n, flags, 0, 2, dims, "dimension of the flags");
}

Value *heads_split(Build *b, Value *v, int64_t heads, const Expr *head) {
  const int64_t dims[] = {0, 0, heads, size_or(head, -1)};
  v = heads_binary(b, "Reshape", v, build_i64s(b, 4, dims));
  return heads_transposed(b, v);
}

Value *heads_joined(Build *b, Value *v, const Expr *hidden) {
  const int64_t dims[] = {0, 0, size_or(hidden, -1)};
  v = heads_transposed(b, v);
  return heads_binary(b, "Reshape", v, build_i64s(b, 3, dims));
}

/* Query, key or value (`what`), [batch, heads, length, size], from input k. */
static Value *projected(Build *b, const Node *n, const Multi *h, int what, Value *bias) {
  const int k = n->in[M_Q]->rank == 5 ? M_Q : what == M_V && !node_in(n, M_V) ? M_K : what;
  const Expr *size = what == M_V ? h->v_hidden : h->hidden;
  Value *v = n->in[k];
  if (!b->ok || v->rank == 4) return v;
  if (v->rank == 5) {
    const Attr axis = attr_int(b->m->arena, "axis", 3);
    Value *in[] = {v, build_scalar(b, DT_I64, k == M_Q ? what : what - M_K)};
    v = build_op(b, "Gather", 2, in, 1, &axis);
    const int64_t flat[] = {0, 0, size_or(size, -1)};
    v = heads_binary(b, "Reshape", v, build_i64s(b, 3, flat));
  }
  if (bias) v = heads_binary(b, "Add", v, bias);
  return heads_split(b, v, h->heads, what == M_V ? h->v_head : h->head);
}

static bool projections(Build *b, const Node *n, const Multi *h, Value **qkv) {
  Value *bias[3] = {0};
  if (node_in(n, M_BIAS)) {
    const int64_t size = size_or(h->hidden, 0), sizes[] = {size, size, size_or(h->v_hidden, 0)};
    Value *in[] = {n->in[M_BIAS], build_i64s(b, 3, sizes)};
    const Node *parts = build_node(b, "Split", "", 2, in, 3, 0, NULL);
    for (int k = 0; k < 3 && b->ok; k++) bias[k] = parts->out[k];
  }
  for (int k = 0; k < 3; k++) qkv[k] = projected(b, n, h, k, bias[k]);
  return b->ok;
}

bool expand_multi_head_attention(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  Multi h;
  Value *qkv[3], *past = node_in(n, M_PAST_K);
  int64_t head;
  double scale = node_float(n, "scale", 0);
  if (!multi_of(b->m, n, &h) || !projections(b, n, &h, qkv)) return false;
  if (scale == 0 && (!expr_is_const(h.head, &head) || head < 1))
    return op_error(b->m, n, ERR_UNSUPPORTED, "head size must be a constant");
  if (scale == 0) scale = 1 / sqrt((double)head);
  const KeyMask mask = {node_in(n, M_MASK),
                        node_in(n, M_ADDED),
                        n->in[M_Q],
                        qkv[M_K],
                        past,
                        2,
                        2,
                        node_float(n, "mask_filter_value", -10000)};
  Value *in[] = {qkv[M_Q], qkv[M_K],
                 qkv[M_V], heads_mask(b, &mask, n->in[M_Q]->dtype),
                 past,     node_in(n, M_PAST_V)};
  if (!b->ok) return false;
  const Attr attrs[] = {attr_int(a, "is_causal", node_int(n, "unidirectional", 0)),
                        attr_float(a, "scale", scale)};
  const Node *y = build_node(b, "Attention", "", past ? 6 : in[3] ? 4 : 3, in, 3, 2, attrs);
  if (!b->ok) return false;
  out[0] = heads_joined(b, y->out[0], h.v_hidden);
  for (int k = 1; k < 3; k++)
    if (node_out(n, k)) out[k] = y->out[k];
  return b->ok;
}

/* ---- RotaryEmbedding: x, position_ids, cos, sin ---- */
bool infer_ms_rotary(Model *m, Node *n) {
  const Value *x = n->in[0], *at = n->in[1];
  int64_t heads, size, dim, v;
  double f;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 3, 4) ||
      !op_same_dtype(m, n, 2, 0) || !op_same_dtype(m, n, 3, 0) || !op_need_class(m, n, 1, CL_INT) ||
      !op_need_rank(m, n, 1, 1, 2) || !op_need_rank(m, n, 2, 2, 2) ||
      !op_need_rank(m, n, 3, 2, 2) || !op_int_in(m, n, "interleaved", 0, 0, 1, &v) ||
      !op_int_in(m, n, "num_heads", 0, 0, INT32_MAX, &heads) ||
      !op_int_in(m, n, "rotary_embedding_dim", 0, 0, INT32_MAX, &dim) ||
      !op_int_in(m, n, "is_packed_batching", 0, 0, 0, &v) || !op_float(m, n, "scale", 1, &f))
    return false;
  if (f != 1) return op_error(m, n, ERR_UNSUPPORTED, "attribute scale other than 1");
  if (!expr_is_const(x->dims[x->rank - 1], &size) || !expr_is_const(n->in[2]->dims[1], &v))
    return op_error(m, n, ERR_UNSUPPORTED, "head size must be a constant");
  if (dim && !heads && x->rank == 3)
    return op_error(m, n, ERR_ATTR_MISSING, "rotary_embedding_dim needs num_heads");
  if (x->rank == 3 && !heads && (v < 1 || size % (2 * v)))
    return op_error(m, n, ERR_SHAPE, "%lld elements are no heads of %lld", (long long)size,
                    (long long)(2 * v));
  const Expr *where[] = {x->dims[0], x->dims[x->rank - 2]};
  return (at->rank == 1 ? require_size(m, n, at->dims[0], 1, "position_ids of rank 1")
                        : require_shape(m, n, 1, 0, 2, where, "dim of position_ids")) &&
         op_out_like(m, n, 0, x->dtype, x);
}

Value *heads_positions(Build *b, Value *first, Value *batch, Value *x, int len) {
  static const int64_t one = 1;
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  if (!b->ok) return first;
  Value *count = heads_count(b, heads_size(b, x, len), NULL);
  Value *at =
      heads_binary(b, "Add", heads_unsqueezed(b, build_cast(b, first, DT_I64), 1, &one), count);
  if (!batch || !b->ok) return at;
  Value *sizes[] = {heads_size(b, batch, 0), heads_size(b, x, len)};
  return b->ok ? heads_binary(b, "Expand", at, build_op(b, "Concat", 2, sizes, 1, &axis)) : at;
}

bool expand_ms_rotary(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  Value *x = n->in[0], *at = n->in[1];
  int64_t heads = node_int(n, "num_heads", 0);
  if (x->rank == 3 && !heads) heads = size_or(x->dims[2], 0) / (2 * size_or(n->in[2]->dims[1], 1));
  if (at->rank == 1) at = heads_positions(b, at, x, x, x->rank - 2);
  if (!b->ok) return false;
  Value *in[] = {x, n->in[2], n->in[3], at};
  const Attr attrs[] = {
      attr_int(a, "interleaved", node_int(n, "interleaved", 0)), attr_int(a, "num_heads", heads),
      attr_int(a, "rotary_embedding_dim", node_int(n, "rotary_embedding_dim", 0))};
  out[0] = build_op(b, "RotaryEmbedding", 4, in, 3, attrs);
  return b->ok;
}
