/* Attention and RotaryEmbedding. Attention is rewritten into two products around a masked softmax;
 * query heads that share a key head become further rows of one matrix, so that keys and values are
 * neither copied nor read twice. The rewriting uses two operators of our own: burin.MaskScores and
 * burin.SafeSoftmax. */
#include <math.h>
#include "ir/op/kit.h"

/* ---- shapes ---- */
enum { A_Q, A_K, A_V, A_MASK, A_PAST_K, A_PAST_V, A_NONPAD };

typedef struct Heads { /* sizes of one attention */
  bool flat;           /* rank-3 inputs */
  int64_t q_heads, kv_heads;
  const Expr *batch, *q_len, *kv_len, *past, *total, *head, *v_head;
} Heads;

/* Size per head of a rank-3 input's last dim. */
static bool split_heads(Model *m, const Node *n, int k, int64_t heads, const Expr **size) {
  const Expr *hidden = n->in[k]->dims[2];
  if (!require_multiple(m, n, hidden, ex_i64(m->pool, heads), "hidden size and heads"))
    return false;
  *size = ex_floordiv(m->pool, hidden, ex_i64(m->pool, heads));
  return true;
}

static bool head_count(Model *m, const Node *n, int k, const char *attr, bool flat,
                       int64_t *heads) {
  if (flat) {
    const Attr *a;
    return op_need_attr(m, n, attr, AT_INT, &a) && op_int_in(m, n, attr, 1, 1, INT32_MAX, heads);
  }
  if (!op_int_in(m, n, attr, 0, 0, INT32_MAX, heads)) return false;
  if (!expr_is_const(n->in[k]->dims[1], heads))
    return op_error(m, n, ERR_UNSUPPORTED,
                    "the number of heads (dim 1 of input %d) must be a constant", k);
  return *heads > 0 || op_error(m, n, ERR_SHAPE, "input %d has no heads", k);
}

static bool heads_of(Model *m, const Node *n, Heads *h) {
  const Value *q = n->in[A_Q], *k = n->in[A_K], *v = n->in[A_V], *past = node_in(n, A_PAST_K);
  ExprPool *p = m->pool;
  const Expr *same;
  if (!op_need_rank(m, n, A_Q, 3, 4) || !op_need_rank(m, n, A_K, q->rank, q->rank) ||
      !op_need_rank(m, n, A_V, q->rank, q->rank))
    return false;
  h->flat = q->rank == 3;
  const int seq = h->flat ? 1 : 2;
  if (!head_count(m, n, A_Q, "q_num_heads", h->flat, &h->q_heads) ||
      !head_count(m, n, A_K, "kv_num_heads", h->flat, &h->kv_heads))
    return false;
  if (h->q_heads % h->kv_heads)
    return op_error(m, n, ERR_SHAPE, "%lld query heads do not divide over %lld key heads",
                    (long long)h->q_heads, (long long)h->kv_heads);
  h->head = q->dims[q->rank - 1];
  h->v_head = v->dims[v->rank - 1];
  const Expr *k_head = k->dims[k->rank - 1];
  if (h->flat && (!split_heads(m, n, A_Q, h->q_heads, &h->head) ||
                  !split_heads(m, n, A_K, h->kv_heads, &k_head) ||
                  !split_heads(m, n, A_V, h->kv_heads, &h->v_head)))
    return false;
  h->batch = q->dims[0];
  h->q_len = q->dims[seq];
  h->past = past ? past->dims[2] : ex_i64(m->pool, 0);
  if (!op_same_dim(m, n, h->head, k_head, "head sizes of query and key", &same) ||
      !op_same_dim(m, n, k->dims[seq], v->dims[seq], "lengths of key and value", &h->kv_len) ||
      !op_same_dim(m, n, h->batch, k->dims[0], "batch of query and key", &same) ||
      !op_same_dim(m, n, h->batch, v->dims[0], "batch of query and value", &same))
    return false;
  h->total = ex_add(p, h->past, h->kv_len);
  const Expr *heads = ex_i64(p, h->kv_heads), *past_k[] = {h->batch, heads, h->past, h->head},
             *past_v[] = {h->batch, heads, h->past, h->v_head};
  return (h->flat || require_equal(m, n, v->dims[1], heads, "heads of value and key")) &&
         require_shape(m, n, A_PAST_K, 0, 4, past_k, "dimension of the past key") &&
         require_shape(m, n, A_PAST_V, 0, 4, past_v, "dimension of the past value") &&
         require_shape(m, n, A_NONPAD, 0, 1, &h->batch, "batch of the padded lengths");
}

static bool check_attention(Model *m, Node *n) {
  int64_t v;
  DType softmax;
  double f;
  const Value *mask = node_in(n, A_MASK), *past = node_in(n, A_PAST_K);
  if (!op_need_class(m, n, A_Q, CL_FLOAT) || !op_same_dtype(m, n, A_K, A_Q) ||
      !op_need_class(m, n, A_V, CL_FLOAT) || !op_need_rank(m, n, A_MASK, 1, 4) ||
      !op_need_rank(m, n, A_PAST_K, 4, 4) || !op_need_rank(m, n, A_PAST_V, 4, 4) ||
      !op_need_class(m, n, A_NONPAD, CL_INT) || !op_need_rank(m, n, A_NONPAD, 1, 1) ||
      !op_int_in(m, n, "is_causal", 0, 0, 1, &v) ||
      !op_int_in(m, n, "qk_matmul_output_mode", 0, 0, 3, &v) ||
      !op_int_in(m, n, "left_window_size", -1, -1, INT32_MAX, &v) ||
      !op_int_in(m, n, "right_window_size", -1, -1, INT32_MAX, &v) ||
      !op_float(m, n, "scale", 0, &f) || !op_float(m, n, "softcap", 0, &f) ||
      !op_dtype(m, n, "softmax_precision", DT_F32, &softmax))
    return false;
  if (mask && mask->dtype != DT_BOOL && mask->dtype != n->in[A_Q]->dtype)
    return op_error(m, n, ERR_TYPE, "mask is %s, must be bool or like the query",
                    dtype_text(mask->dtype));
  if (!past != !node_in(n, A_PAST_V))
    return op_error(m, n, ERR_ARITY, "past key and past value must come together");
  return true;
}

/* A mask broadcasts to the scores; one that is shorter ends the keys. A mask of one key is for all
 * of them. */
static bool mask_fits(Model *m, Node *n, const Expr *const *scores) {
  const Value *mask = node_in(n, A_MASK);
  ExprPool *p = m->pool;
  const Expr *one = ex_i64(p, 1);
  for (int d = 0; mask && d < mask->rank; d++) {
    const Expr *have = mask->dims[d], *want = scores[4 - mask->rank + d];
    const Expr *size = ex_select(p, ex_eq(p, have, one), want, have);
    if (d + 1 < mask->rank
            ? !require_equal(m, n, size, want, "dimension of the mask and the scores")
            : !require_at_most(m, n, size, want, "length of the mask and keys"))
      return false;
  }
  return true;
}

bool infer_attention(Model *m, Node *n) {
  Heads h;
  if (!check_attention(m, n) || !heads_of(m, n, &h)) return false;
  ExprPool *p = m->pool;
  const DType t = n->in[A_Q]->dtype, tv = n->in[A_V]->dtype;
  const Expr *q_heads = ex_i64(p, h.q_heads), *kv_heads = ex_i64(p, h.kv_heads);
  const Expr *flat[] = {h.batch, h.q_len, op_times(m, h.v_head, q_heads)},
             *deep[] = {h.batch, q_heads, h.q_len, h.v_head};
  const Expr *key[] = {h.batch, kv_heads, h.total, h.head},
             *value[] = {h.batch, kv_heads, h.total, h.v_head};
  const Expr *scores[] = {h.batch, q_heads, h.q_len, h.total};
  return mask_fits(m, n, scores) && op_out(m, n, 0, t, h.flat ? 3 : 4, h.flat ? flat : deep) &&
         op_out(m, n, 1, t, 4, key) && op_out(m, n, 2, tv, 4, value) &&
         op_out(m, n, 3, t, 4, scores);
}

/* ---- rewriting ---- */
static int64_t size_or(const Expr *e, int64_t def) {
  int64_t v;
  return expr_is_const(e, &v) ? v : def;
}

/* [batch, len, heads*size] → [batch, heads, len, size]; rank-4 values stay. */
static Value *to_heads(Build *b, const Heads *h, Value *v, int64_t heads, const Expr *size) {
  if (!h->flat) return v;
  v = build_reshape(b, v, 4, (int64_t[]){0, 0, heads, size_or(size, -1)});
  return b->ok ? build_transpose(b, v, 4, (int64_t[]){0, 2, 1, 3}) : v;
}

static Value *with_past(Build *b, Value *past, Value *now) {
  if (!past || !b->ok) return now;
  const Attr axis = attr_int(b->m->arena, "axis", 2);
  return build_op(b, "Concat", 2, (Value *[]){past, now}, 1, &axis);
}

/* Scores with mask, causal frontier, window and padding applied; the same value where there is
 * none. */
static Value *masked(Build *b, Node *n, const Heads *h, Value *scores, bool *safe) {
  Arena *a = b->m->arena;
  const int64_t causal = node_int(n, "is_causal", 0), left = node_int(n, "left_window_size", -1);
  const int64_t right = node_int(n, "right_window_size", -1);
  Value *mask = node_in(n, A_MASK), *nonpad = node_in(n, A_NONPAD), *past = node_in(n, A_PAST_K);
  *safe = mask || nonpad || left >= 0 || right >= 0;
  if (!*safe && !causal) return scores;
  const Attr attrs[] = {attr_int(a, "causal", causal), attr_int(a, "left", left),
                        attr_int(a, "right", right),
                        attr_int(a, "heads_per_row", h->q_heads / h->kv_heads)};
  Value *in[] = {scores, mask, nonpad, past};
  return build_node(b, "MaskScores", "burin", 4, in, 1, 4, attrs)->out[0];
}

static Value *softcapped(Build *b, Node *n, Value *scores) {
  const double cap = node_float(n, "softcap", 0);
  if (!(cap > 0)) return scores;
  Value *c = build_scalar(b, scores->dtype, cap);
  Value *v = build2(b, "Div", scores, c);
  if (b->ok) v = build1(b, "Tanh", v);
  return b->ok ? build2(b, "Mul", v, c) : v;
}

/* Rows of grouped heads back into heads: [batch, kv_heads, reps*len, last] → [batch, q_heads, len,
 * last]. */
static Value *ungroup(Build *b, const Heads *h, Value *v, const Expr *last) {
  if (h->q_heads == h->kv_heads || !b->ok) return v;
  const int64_t size = size_or(last, -1);
  const int64_t dims[] = {0, h->q_heads, size < 0 ? size_or(h->q_len, 0) : -1, size};
  if (dims[2] == 0) {
    b->ok = diag_error(b->m->diag, b->loc, ERR_DYNAMIC,
                       "scores of grouped heads need one constant length");
    return v;
  }
  return build_reshape(b, v, 4, dims);
}

bool expand_attention(Build *b, Node *n, Value **out) {
  Heads h;
  bool safe;
  if (!heads_of(b->m, n, &h)) return false;
  Value *key = NULL, *value = NULL;
  Value *q = to_heads(b, &h, n->in[A_Q], h.q_heads, h.head);
  if (b->ok)
    key = with_past(b, node_in(n, A_PAST_K), to_heads(b, &h, n->in[A_K], h.kv_heads, h.head));
  if (b->ok)
    value = with_past(b, node_in(n, A_PAST_V), to_heads(b, &h, n->in[A_V], h.kv_heads, h.v_head));
  if (!b->ok) return false;
  if (h.q_heads != h.kv_heads)
    q = build_reshape(b, q, 4, (int64_t[]){0, h.kv_heads, -1, size_or(h.head, 0)});
  double scale = node_float(n, "scale", 0);
  if (!node_attr(n, "scale")) {
    const int64_t head = size_or(h.head, 0);
    if (head < 1) return op_error(b->m, n, ERR_UNSUPPORTED, "head size must be a constant");
    scale = 1 / sqrt((double)head);
  }
  if (b->ok) q = build2(b, "Mul", q, build_scalar(b, q->dtype, scale));
  Value *kt = b->ok ? build_transpose(b, key, 4, (int64_t[]){0, 1, 3, 2}) : NULL;
  if (!b->ok) return false;
  Value *stage[4];
  stage[0] = build2(b, "MatMul", q, kt);
  if (b->ok) stage[1] = softcapped(b, n, stage[0]);
  if (b->ok) stage[2] = masked(b, n, &h, stage[1], &safe);
  if (!b->ok) return false;
  const Attr axis = attr_int(b->m->arena, "axis", -1);
  stage[3] = safe ? build_node(b, "SafeSoftmax", "burin", 1, &stage[2], 1, 0, NULL)->out[0]
                  : build_op(b, "Softmax", 1, &stage[2], 1, &axis);
  Value *y = b->ok ? build2(b, "MatMul", stage[3], value) : NULL;
  if (!b->ok) return false;
  y = ungroup(b, &h, y, h.v_head);
  if (node_out(n, 1)) out[1] = key;
  if (node_out(n, 2)) out[2] = value;
  if (node_out(n, 3))
    out[3] = ungroup(b, &h, stage[node_int(n, "qk_matmul_output_mode", 0)], h.total);
  if (h.flat && b->ok) y = build_transpose(b, y, 4, (int64_t[]){0, 2, 1, 3});
  if (h.flat && b->ok)
    y = build_reshape(
        b, y, 3,
        (int64_t[]){0, 0,
                    size_or(ex_mul(b->m->pool, h.v_head, ex_i64(b->m->pool, h.q_heads)), -1)});
  out[0] = y;
  return b->ok;
}

/* ---- burin.MaskScores: scores, mask, nonpad lengths, past keys (only their length) ---- */
bool infer_mask_scores(Model *m, Node *n) {
  int64_t v;
  return op_need_class(m, n, 0, CL_FLOAT) && op_need_rank(m, n, 0, 4, 4) &&
         op_need_rank(m, n, 1, 1, 4) && op_need_rank(m, n, 2, 1, 1) &&
         op_need_rank(m, n, 3, 4, 4) && op_int_in(m, n, "heads_per_row", 1, 1, INT32_MAX, &v) &&
         op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]);
}

/* Score plus mask at (batch, head, i, j). A mask shorter than the scores ends the keys. */
static const Expr *add_mask(ElemCtx *c, const Node *n, const Expr *s, const Expr *const *at) {
  ExprPool *p = c->pool;
  const Value *mask = n->in[1];
  const Expr *own[4], *low = kit_like(c, s, -INFINITY), *last = mask->dims[mask->rank - 1];
  const Expr *one = ex_i64(p, 1), *zero = ex_i64(p, 0);
  for (int d = 0; d < mask->rank; d++)
    own[d] = ex_select(p, ex_eq(p, mask->dims[d], one), zero, at[4 - mask->rank + d]);
  const bool whole = last == n->in[0]->dims[3] || last == one;
  const Expr *guard = whole ? NULL : ex_lt(p, own[mask->rank - 1], last);
  const Expr *v = elem_in_guarded(c, n, 1, own, guard);
  if (mask->dtype == DT_BOOL) return ex_select(p, v, s, low); /* false outside */
  const Expr *sum = ex_add(p, s, ex_cast(p, (DType)s->dtype, v));
  return guard ? ex_select(p, guard, sum, low) : sum;
}

const Expr *elem_mask_scores(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const int64_t reps = node_int(n, "heads_per_row", 1), left = node_int(n, "left", -1),
                right = node_int(n, "right", -1);
  const Expr *rows = n->in[0]->dims[2], *len = ex_floordiv(p, rows, ex_i64(p, reps)),
             *safe = ex_max(p, len, ex_i64(p, 1));
  const Expr *i = reps == 1 ? idx[2] : ex_floormod(p, idx[2], safe);
  const Expr *head =
      reps == 1 ? idx[1]
                : ex_add(p, ex_mul(p, idx[1], ex_i64(p, reps)), ex_floordiv(p, idx[2], safe));
  const Expr *at[] = {idx[0], head, i, idx[3]}, *j = idx[3], *allowed = ex_bool(p, true);
  const Expr *s = kit_in(c, n, 0, idx, kit_compute(n));
  if (node_in(n, 1)) s = add_mask(c, n, s, at);
  const Expr *valid = node_in(n, 2) ? kit_in1(c, n, 2, idx[0], DT_I64) : NULL;
  const Expr *offset = node_in(n, 3) ? n->in[3]->dims[2]
                       : valid       ? ex_sub(p, valid, len)
                                     : ex_i64(p, 0);
  const Expr *pos = ex_add(p, i, offset);
  if (node_int(n, "causal", 0)) allowed = ex_and(p, allowed, ex_le(p, j, pos));
  if (left >= 0) allowed = ex_and(p, allowed, ex_le(p, ex_sub(p, pos, ex_i64(p, left)), j));
  if (right >= 0) allowed = ex_and(p, allowed, ex_le(p, j, ex_add(p, pos, ex_i64(p, right))));
  if (valid) allowed = ex_and(p, allowed, ex_lt(p, j, valid));
  return kit_ret(c, n, out, ex_select(p, allowed, s, kit_like(c, s, -INFINITY)));
}

/* ---- burin.SafeSoftmax: over the last dim; a row of -inf gives zeros ---- */
bool infer_safe_softmax(Model *m, Node *n) {
  return op_need_rank(m, n, 0, 1, MAX_RANK) && infer_same_float(m, n);
}

const Expr *elem_safe_softmax(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *v = n->in[0];
  const int axis = v->rank - 1;
  const DType t = kit_compute(n);
  const Expr *at[MAX_RANK], *j = kit_var(c, "j", v->dims[axis]),
                            *k = kit_var(c, "k", v->dims[axis]);
  for (int d = 0; d < v->rank; d++) at[d] = idx[d];
  at[axis] = j;
  const Expr *max = kit_reduce(c, RED_MAX, j, kit_in(c, n, 0, at, t)), *zero = kit_like(c, max, 0);
  max = ex_select(p, ex_eq(p, max, kit_like(c, max, -INFINITY)), zero, max);
  at[axis] = k;
  const Expr *sum =
      kit_reduce(c, RED_SUM, k, kit_op1(c, EX_exp, ex_sub(p, kit_in(c, n, 0, at, t), max)));
  const Expr *e = kit_op1(c, EX_exp, ex_sub(p, kit_in(c, n, 0, idx, t), max));
  return kit_ret(c, n, out, ex_select(p, ex_eq(p, sum, zero), zero, ex_div(p, e, sum)));
}

/* ---- burin.SoftmaxMatMul: softmax of scores over their last dim, times values
 * -------------------- Made by the pass `attention`. `mode`: 0, a row without finite maximum is
 * NaN as in Softmax; 1, a row of -inf gives zeros as in SafeSoftmax; 2, NaN of the softmax count
 * as zeros. The output's dimensions stand in the order `perm`; its type is that of the values,
 * `wide`: f32. */
enum { SM_PLAIN, SM_SAFE, SM_NO_NAN };

bool infer_softmax_matmul(Model *m, Node *n) {
  const Value *x = n->in[0], *v = n->in[1];
  const Expr *same, *dims[MAX_RANK], *out[MAX_RANK];
  const int64_t *perm;
  int64_t mode, wide, seen = 0;
  int count;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_class(m, n, 1, CL_FLOAT) ||
      !op_need_rank(m, n, 0, 2, MAX_RANK) || !op_need_rank(m, n, 1, 2, x->rank) ||
      !op_int_in(m, n, "mode", SM_PLAIN, SM_PLAIN, SM_NO_NAN, &mode) ||
      !op_int_in(m, n, "wide", 0, 0, 1, &wide) || !op_ints(m, n, "perm", &perm, &count) ||
      !op_same_dim(m, n, x->dims[x->rank - 1], v->dims[v->rank - 2], "keys and values", &same))
    return false;
  for (int d = 0; d < x->rank; d++) dims[d] = x->dims[d];
  for (int d = 0; d < v->rank - 2; d++)
    if (!expr_is_i64(v->dims[d], 1) &&
        !op_same_dim(m, n, x->dims[x->rank - v->rank + d], v->dims[d], "batch", &same))
      return false;
  dims[x->rank - 1] = v->dims[v->rank - 1];
  for (int d = 0; d < x->rank; d++) {
    const int64_t from = count > 0 && d < count ? perm[d] : d;
    if (from < 0 || from >= x->rank || seen >> from & 1 || (count > 0 && count != x->rank))
      return op_error(m, n, ERR_ATTR_VALUE, "perm is no permutation");
    seen |= (int64_t)1 << from;
    out[d] = dims[from];
  }
  return op_out(m, n, 0, node_int(n, "wide", 0) ? DT_F32 : v->dtype, x->rank, out);
}

const Expr *elem_softmax_matmul(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0], *v = n->in[1];
  const int rank = x->rank;
  const int64_t *perm, mode = node_int(n, "mode", SM_PLAIN);
  const bool turned = node_ints(n, "perm", &perm) > 0;
  const DType t = kit_compute(n);
  const Expr *at[MAX_RANK], *vat[MAX_RANK], *key[3], *e[3];
  for (int d = 0; d < rank; d++) at[turned ? perm[d] : d] = idx[d];
  for (int d = 0; d < v->rank; d++)
    vat[d] = expr_is_i64(v->dims[d], 1) ? ex_i64(p, 0) : at[rank - v->rank + d];
  for (int i = 0; i < 3; i++) {
    at[rank - 1] = key[i] = kit_var(c, "j", x->dims[rank - 1]);
    e[i] = kit_in(c, n, 0, at, t);
  }
  vat[v->rank - 2] = key[2];
  const Expr *max = kit_reduce(c, RED_MAX, key[0], e[0]), *zero = kit_like(c, max, 0);
  if (mode == SM_SAFE) max = ex_select(p, ex_eq(p, max, kit_like(c, max, -INFINITY)), zero, max);
  const Expr *sum = kit_reduce(c, RED_SUM, key[1], kit_op1(c, EX_exp, ex_sub(p, e[1], max)));
  const Expr *part = ex_div(p, kit_op1(c, EX_exp, ex_sub(p, e[2], max)), sum);
  if (mode == SM_SAFE) part = ex_select(p, ex_eq(p, sum, zero), zero, part);
  if (mode == SM_NO_NAN) part = ex_select(p, kit_op1(c, EX_isnan, part), zero, part);
  const Expr *y = kit_reduce(c, RED_SUM, key[2], ex_mul(p, part, kit_in(c, n, 1, vat, t)));
  return kit_ret(c, n, out, y);
}

/* ---- RotaryEmbedding: x, cos, sin, position ids ---- */
static int64_t rotary_size(const Node *n, const Value *x) {
  int64_t last = 0;
  expr_is_const(x->dims[x->rank - 1], &last);
  return x->rank == 3 ? last / node_int(n, "num_heads", 1) : last;
}

bool infer_rotary(Model *m, Node *n) {
  const Value *x = n->in[0];
  int64_t v, heads, size, dim;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 3, 4) ||
      !op_same_dtype(m, n, 1, 0) || !op_same_dtype(m, n, 2, 0) || !op_need_class(m, n, 3, CL_INT) ||
      !op_need_rank(m, n, 3, 2, 2) || !op_int_in(m, n, "interleaved", 0, 0, 1, &v) ||
      !op_int_in(m, n, "num_heads", 0, 0, INT32_MAX, &heads) ||
      !op_int_in(m, n, "rotary_embedding_dim", 0, 0, INT32_MAX, &dim))
    return false;
  if (x->rank == 3 && heads < 1)
    return op_error(m, n, ERR_ATTR_MISSING, "attribute num_heads is needed for rank 3");
  if (!expr_is_const(x->dims[x->rank - 1], &size))
    return op_error(m, n, ERR_UNSUPPORTED, "head size must be a constant");
  if (x->rank == 3 &&
      !require_multiple(m, n, x->dims[2], ex_i64(m->pool, heads), "hidden size and heads"))
    return false;
  size = rotary_size(n, x);
  if (!dim) dim = size;
  if (dim > size || dim % 2)
    return op_error(m, n, ERR_ATTR_VALUE, "rotary size %lld of a head of %lld", (long long)dim,
                    (long long)size);
  const int rank = node_in(n, 3) ? 2 : 3;
  const Expr *half = ex_i64(m->pool, dim / 2), *where[] = {x->dims[0], x->dims[x->rank - 2]};
  for (int k = 1; k < 3; k++)
    if (!op_need_rank(m, n, k, rank, rank) ||
        !require_equal(m, n, n->in[k]->dims[rank - 1], half, "cache and half the rotary size") ||
        (rank == 3 && !require_shape(m, n, k, 0, 2, where, "batch and length of a cache")))
      return false;
  if (!require_equal(m, n, n->in[2]->dims[0], n->in[1]->dims[0], "rows of the two caches") ||
      !require_shape(m, n, 3, 0, 2, where, "batch and length of position_ids"))
    return false;
  return op_out_like(m, n, 0, x->dtype, x);
}

const Expr *elem_rotary(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const DType t = kit_compute(n);
  const bool flat = x->rank == 3, interleaved = node_int(n, "interleaved", 0);
  const int64_t size = rotary_size(n, x);
  int64_t dim = node_int(n, "rotary_embedding_dim", 0);
  if (!dim) dim = size;
  const Expr *last = idx[x->rank - 1], *seq = idx[flat ? 1 : 2], *half = ex_i64(p, dim / 2),
             *one = ex_i64(p, 1);
  const Expr *d = flat ? ex_floormod(p, last, ex_i64(p, size)) : last;
  const Expr *first =
      interleaved ? ex_eq(p, ex_floormod(p, d, ex_i64(p, 2)), ex_i64(p, 0)) : ex_lt(p, d, half);
  const Expr *step = interleaved ? one : half;
  const Expr *pair =
      interleaved ? ex_floordiv(p, d, ex_i64(p, 2)) : ex_select(p, first, d, ex_sub(p, d, half));
  const Expr *turns =
      dim < size ? ex_lt(p, d, ex_i64(p, dim)) : NULL; /* the rest of the head stays */
  const Expr *at[3] = {idx[0], seq, pair}, *other[4];
  if (node_in(n, 3)) {
    const Expr *where[] = {idx[0], seq};
    at[0] = kit_in(c, n, 3, where, DT_I64);
    at[1] = pair;
    const Expr *fits = kit_inside(p, at[0], n->in[1]->dims[0]);
    turns = turns ? ex_and(p, turns, fits) : fits;
  }
  for (int k = 0; k < x->rank; k++) other[k] = idx[k];
  other[x->rank - 1] = ex_add(p, last, ex_select(p, first, step, ex_sub(p, ex_i64(p, 0), step)));
  const Expr *v = kit_in(c, n, 0, idx, t),
             *w = ex_cast(p, t, elem_in_guarded(c, n, 0, other, turns));
  const Expr *cs = ex_cast(p, t, elem_in_guarded(c, n, 1, at, turns)),
             *sn = ex_cast(p, t, elem_in_guarded(c, n, 2, at, turns));
  const Expr *turned =
      ex_add(p, ex_mul(p, v, cs), ex_mul(p, ex_select(p, first, kit_op1(c, EX_neg, w), w), sn));
  return kit_ret(c, n, out, turns ? ex_select(p, turns, turned, v) : turned);
}
