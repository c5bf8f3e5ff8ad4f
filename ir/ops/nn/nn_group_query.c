/* GroupQueryAttention of com.microsoft: attention of heads that share keys, with caches of keys and
 * values that have room for more than they hold. It becomes RotaryEmbedding, burin.AppendCache and
 * Attention of the default domain. */
#include <math.h>
#include <string.h>

#include "ir/ops/nn/nn_heads.h"

enum {
  G_Q,
  G_K,
  G_V,
  G_PAST_K,
  G_PAST_V,
  G_LENS,  /* keys in all, less one, of each batch */
  G_TOTAL, /* the most of them, plus one */
  G_COS,
  G_SIN,
  G_POSITIONS,
  G_ADDED,
  G_REST
};

typedef struct Groups { /* sizes of a GroupQueryAttention */
  int64_t heads, kv_heads, head;
  const Expr *batch, *len, *total;
} Groups;

static bool need_plain(Model *m, const Node *n) {
  static const char *const inputs[] = {"head_sink",     "k_scale",       "v_scale",
                                       "q_norm_weight", "k_norm_weight", NULL};
  static const char *const zeros[] = {"smooth_softmax", "qk_output", "sliding_window_cache", NULL};
  static const char *const quantized[] = {"k_quant_type", "v_quant_type", NULL};
  const char *text;
  int64_t v;
  for (int k = G_LENS; k <= G_TOTAL; k++)
    if (!node_in(n, k)) return op_error(m, n, ERR_ARITY, "input %d is required", k);
  for (int k = 0; inputs[k]; k++)
    if (node_in(n, G_REST + k))
      return op_error(m, n, ERR_UNSUPPORTED, "input %s is not supported", inputs[k]);
  for (int k = 0; zeros[k]; k++) {
    if (!op_int(m, n, zeros[k], 0, &v)) return false;
    if (v > 0) return op_error(m, n, ERR_UNSUPPORTED, "attribute %s is not supported", zeros[k]);
  }
  for (int k = 0; quantized[k]; k++) {
    if (!op_string(m, n, quantized[k], "NONE", &text)) return false;
    if (strcmp(text, "NONE") != 0)
      return op_error(m, n, ERR_UNSUPPORTED, "quantized caches (%s) are not supported",
                      quantized[k]);
  }
  if (!op_int(m, n, "causal", 1, &v)) return false;
  return v || op_error(m, n, ERR_UNSUPPORTED, "attribute causal of 0 is not supported");
}

/* What total_sequence_length holds, as a size. */
static bool total_of(Model *m, const Node *n, int k, const Expr **total) {
  const Expr *const *v;
  int count;
  if (!op_need_class(m, n, k, CL_INT) || !kit_need_scalar(m, n, k, "total_sequence_length"))
    return false;
  if (!op_known_exprs(m, n, k, &v, &count) || count != 1)
    return op_error(m, n, ERR_DYNAMIC,
                    "total_sequence_length is known from data only; it must be a constant, or come "
                    "from sizes (Shape of the attention mask)");
  *total = v[0];
  return true;
}

static bool groups_of(Model *m, const Node *n, Groups *g) {
  const Attr *a;
  const Value *q = n->in[G_Q];
  int64_t hidden;
  if (!op_need_attr(m, n, "num_heads", AT_INT, &a) ||
      !op_need_attr(m, n, "kv_num_heads", AT_INT, &a) ||
      !op_int_in(m, n, "num_heads", 1, 1, INT32_MAX, &g->heads) ||
      !op_int_in(m, n, "kv_num_heads", 1, 1, INT32_MAX, &g->kv_heads) ||
      !op_need_rank(m, n, G_Q, 3, 3) || !total_of(m, n, G_TOTAL, &g->total))
    return false;
  if (g->heads % g->kv_heads)
    return op_error(m, n, ERR_SHAPE, "%lld query heads do not divide over %lld key heads",
                    (long long)g->heads, (long long)g->kv_heads);
  if (!node_in(n, G_K) != !node_in(n, G_V))
    return op_error(m, n, ERR_ARITY, "key and value must come together");
  if (!expr_is_const(q->dims[2], &hidden))
    return op_error(m, n, ERR_DYNAMIC, "the hidden size is not known");
  const int64_t all = node_in(n, G_K) ? g->heads : g->heads + 2 * g->kv_heads;
  if (hidden < all || hidden % all)
    return op_error(m, n, ERR_SHAPE, "%lld elements do not divide over %lld heads",
                    (long long)hidden, (long long)all);
  g->head = hidden / all;
  g->batch = q->dims[0];
  g->len = q->dims[1];
  return true;
}

static bool need_rotary(Model *m, const Node *n, const Groups *g) {
  int64_t on, v, half;
  if (!op_int_in(m, n, "do_rotary", 0, 0, 1, &on) ||
      !op_int_in(m, n, "rotary_interleaved", 0, 0, 1, &v))
    return false;
  if (!on) return true;
  if (!node_in(n, G_COS) || !node_in(n, G_SIN))
    return op_error(m, n, ERR_ARITY, "do_rotary needs cos_cache and sin_cache");
  const Expr *where[] = {g->batch, g->len};
  if (!op_same_dtype(m, n, G_COS, G_Q) || !op_same_dtype(m, n, G_SIN, G_Q) ||
      !op_need_rank(m, n, G_COS, 2, 2) || !op_need_rank(m, n, G_SIN, 2, 2) ||
      !op_need_class(m, n, G_POSITIONS, CL_INT) || !op_need_rank(m, n, G_POSITIONS, 2, 2) ||
      !require_shape(m, n, G_POSITIONS, 0, 2, where, "dim of position_ids"))
    return false;
  if (!expr_is_const(n->in[G_COS]->dims[1], &half) || half < 1 || 2 * half > g->head)
    return op_error(m, n, ERR_SHAPE, "cos_cache does not fit a head of %lld", (long long)g->head);
  return true;
}

static bool need_caches(Model *m, const Node *n, const Groups *g) {
  const Value *lens = n->in[G_LENS];
  const Expr *heads = ex_i64(m->pool, g->kv_heads), *head = ex_i64(m->pool, g->head),
             *hidden = op_times(m, heads, head), *new[] = {g->batch, g->len, hidden};
  const Value *old = node_in(n, G_PAST_K);
  if (!old != !node_in(n, G_PAST_V))
    return op_error(m, n, ERR_ARITY, "past key and past value must come together");
  for (int k = G_K; k <= G_PAST_V; k++) {
    const int rank = k < G_PAST_K ? 3 : 4;
    if (!op_same_dtype(m, n, k, G_Q) || !op_need_rank(m, n, k, rank, rank)) return false;
  }
  const Expr *room = old ? old->dims[2] : NULL, *past[] = {g->batch, heads, room, head};
  return require_shape(m, n, G_K, 0, 3, new, "dim of the key") &&
         require_shape(m, n, G_V, 0, 3, new, "dim of the value") &&
         (!old || (require_shape(m, n, G_PAST_K, 0, 4, past, "dim of the past key") &&
                   require_shape(m, n, G_PAST_V, 0, 4, past, "dim of the past value"))) &&
         op_need_class(m, n, G_LENS, CL_INT) && op_need_rank(m, n, G_LENS, 1, 2) &&
         require_equal(m, n, lens->dims[0], g->batch, "batch of seqlens_k") &&
         (lens->rank == 1 || require_size(m, n, lens->dims[1], 1, "columns of seqlens_k")) &&
         require_at_least(m, n, g->total, g->len, "total_sequence_length and the length");
}

/* Keys that a cache has room for behind the step. */
static const Expr *room_of(Model *m, const Value *past, const Expr *total) {
  return past ? ex_max(m->pool, past->dims[2], total) : total;
}

bool infer_group_query_attention(Model *m, Node *n) {
  Groups g;
  double f;
  int64_t v;
  if (!op_need_class(m, n, G_Q, CL_FLOAT) || !need_plain(m, n) || !groups_of(m, n, &g) ||
      !need_rotary(m, n, &g) || !need_caches(m, n, &g) || !op_float(m, n, "scale", 0, &f) ||
      !op_float(m, n, "softcap", 0, &f) ||
      !op_int_in(m, n, "local_window_size", -1, -1, INT32_MAX, &v) ||
      !op_same_dtype(m, n, G_ADDED, G_Q) || !op_need_rank(m, n, G_ADDED, 4, 4))
    return false;
  ExprPool *p = m->pool;
  const DType t = n->in[G_Q]->dtype;
  const Expr *cache[] = {g.batch, ex_i64(p, g.kv_heads), room_of(m, node_in(n, G_PAST_K), g.total),
                         ex_i64(p, g.head)},
             *y[] = {g.batch, g.len, ex_i64(p, g.heads * g.head)};
  return op_out(m, n, 0, t, 3, y) && op_out(m, n, 1, t, 4, cache) && op_out(m, n, 2, t, 4, cache);
}

/* ---- burin.AppendCache: new [batch, heads, len, size], lengths [batch], total, past (or none):
 * the first lengths[b] keys of the past, then the new ones, then zeros ---- */
bool infer_append_cache(Model *m, Node *n) {
  const Value *new = n->in[0], *past = node_in(n, 3);
  const Expr *total;
  if (!op_need_rank(m, n, 0, 4, 4) || !op_need_class(m, n, 1, CL_INT) ||
      !op_need_rank(m, n, 1, 1, 1) || !op_same_dtype(m, n, 3, 0) || !op_need_rank(m, n, 3, 4, 4) ||
      !total_of(m, n, 2, &total))
    return false;
  const Expr *dims[] = {new->dims[0], new->dims[1], room_of(m, past, total), new->dims[3]},
             *old[] = {new->dims[0], new->dims[1], past ? past->dims[2] : NULL, new->dims[3]};
  return require_equal(m, n, n->in[1]->dims[0], new->dims[0], "batch of the lengths") &&
         (!past || require_shape(m, n, 3, 0, 4, old, "dim of the past")) &&
         op_out(m, n, 0, new->dtype, 4, dims);
}

const Expr *elem_append_cache(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  (void)out;
  ExprPool *p = c->pool;
  const Expr *zero = ex_i64(p, 0), *len = kit_in1(c, n, 1, idx[0], DT_I64),
             *at = ex_sub(p, idx[2], len);
  const Expr *place[] = {idx[0], idx[1], at, idx[3]};
  const Expr *is_new = ex_and(p, ex_le(p, zero, at), ex_lt(p, at, n->in[0]->dims[2]));
  const Expr *new = elem_in_guarded(c, n, 0, place, is_new);
  if (!node_in(n, 3)) return new;
  const Expr *is_old = ex_and(p, ex_lt(p, idx[2], len), ex_lt(p, idx[2], n->in[3]->dims[2]));
  return ex_select(p, is_old, elem_in_guarded(c, n, 3, idx, is_old), new);
}

/* ---- rewriting ---- */
typedef struct Step { /* values of a step */
  Value *q, *k, *v;   /* [batch, len, heads*size] */
  Value *before;      /* [batch]: keys in front of the new ones */
  Value *seen;        /* [batch]: with the new ones */
} Step;

/* A step whose length is the total one is the first: what the caches hold does not count. */
static void lengths(Build *b, const Node *n, Step *s) {
  const int64_t flat = -1;
  Value *lens = build_cast(b, n->in[G_LENS], DT_I64),
        *total = build_cast(b, n->in[G_TOTAL], DT_I64);
  lens = heads_binary(b, "Reshape", lens, build_i64s(b, 1, &flat));
  total = heads_binary(b, "Reshape", total, build_i64s(b, 1, &flat));
  if (!b->ok) return;
  Value *len = heads_size(b, n->in[G_Q], 1), *zero = build_scalar(b, DT_I64, 0);
  Value *old = heads_binary(b, "Add", lens, build_scalar(b, DT_I64, 1));
  old = heads_binary(b, "Sub", old, len);
  Value *in[] = {heads_binary(b, "Equal", total, len), zero, old};
  s->before = b->ok ? build_op(b, "Where", 3, in, 0, NULL) : old;
  s->seen = heads_binary(b, "Add", s->before, len);
}

static void operands(Build *b, const Node *n, const Groups *g, Step *s) {
  if (node_in(n, G_K)) {
    s->q = n->in[G_Q];
    s->k = n->in[G_K];
    s->v = n->in[G_V];
    return;
  }
  const int64_t kv = g->kv_heads * g->head, sizes[] = {g->heads * g->head, kv, kv};
  const Attr axis = attr_int(b->m->arena, "axis", 2);
  Value *in[] = {n->in[G_Q], build_i64s(b, 3, sizes)};
  const Node *parts = build_node(b, "Split", "", 2, in, 3, 1, &axis);
  if (!b->ok) return;
  s->q = parts->out[0];
  s->k = parts->out[1];
  s->v = parts->out[2];
}

static Value *rotated(Build *b, const Node *n, Value *x, int64_t heads, int64_t head, Value *at) {
  int64_t half = 0;
  expr_is_const(n->in[G_COS]->dims[1], &half);
  Arena *a = b->m->arena;
  const Attr attrs[] = {attr_int(a, "interleaved", node_int(n, "rotary_interleaved", 0)),
                        attr_int(a, "num_heads", heads),
                        attr_int(a, "rotary_embedding_dim", 2 * half == head ? 0 : 2 * half)};
  Value *in[] = {x, n->in[G_COS], n->in[G_SIN], at};
  return b->ok ? build_op(b, "RotaryEmbedding", 4, in, 3, attrs) : x;
}

static Value *appended(Build *b, const Node *n, const Step *s, Value *new, int past) {
  Value *in[] = {new, s->before, n->in[G_TOTAL], node_in(n, past)};
  if (!b->ok) return new;
  return build_node(b, "AppendCache", "burin", in[3] ? 4 : 3, in, 1, 0, NULL)->out[0];
}

bool expand_group_query_attention(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  Groups g;
  Step s = {0};
  if (!groups_of(b->m, n, &g)) return false;
  const Expr *head = ex_i64(b->m->pool, g.head);
  lengths(b, n, &s);
  if (b->ok) operands(b, n, &g, &s);
  if (!b->ok) return false;
  if (node_int(n, "do_rotary", 0)) {
    Value *at = node_in(n, G_POSITIONS);
    if (!at) at = heads_positions(b, s.before, NULL, n->in[G_Q], 1);
    s.q = rotated(b, n, s.q, g.heads, g.head, at);
    s.k = rotated(b, n, s.k, g.kv_heads, g.head, at);
  }
  Value *q = heads_split(b, s.q, g.heads, head);
  Value *k = appended(b, n, &s, heads_split(b, s.k, g.kv_heads, head), G_PAST_K);
  Value *v = appended(b, n, &s, heads_split(b, s.v, g.kv_heads, head), G_PAST_V);
  if (!b->ok) return false;
  const double scale = node_float(n, "scale", 0);
  const int64_t window = node_int(n, "local_window_size", -1);
  Value *in[] = {q, k, v, node_in(n, G_ADDED), NULL, NULL, s.seen};
  const Attr attrs[] = {attr_int(a, "is_causal", 1),
                        attr_float(a, "scale", scale != 0 ? scale : 1 / sqrt((double)g.head)),
                        attr_float(a, "softcap", node_float(n, "softcap", 0)),
                        attr_int(a, "left_window_size", window > 0 ? window - 1 : -1)};
  const Node *y = build_node(b, "Attention", "", 7, in, 1, 4, attrs);
  if (!b->ok) return false;
  out[0] = heads_joined(b, y->out[0], ex_i64(b->m->pool, g.heads * g.head));
  if (node_out(n, 1)) out[1] = k;
  if (node_out(n, 2)) out[2] = v;
  return b->ok;
}
