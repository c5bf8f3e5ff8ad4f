/* LinearAttention: a matrix for each head remembers what keys stood with what values, is read by
 * queries and, by the update rule, fades (decay) and corrects itself (delta). Rewritten into a Loop
 * over the tokens, with states in f32; one token needs no loop. */
#include <math.h>
#include <string.h>
#include "ir/op/ops.h"

enum { L_Q, L_K, L_V, L_STATE, L_DECAY, L_BETA };
static const char *const rules[] = {"linear", "gated", "delta", "gated_delta", NULL};

typedef struct Linear {
  bool gated, delta;
  int64_t q_heads, kv_heads;
  const Expr *batch, *tokens;
  int64_t d_k, d_v;
  int64_t decays; /* of a head: d_k, or 1 */
  int64_t betas;  /* of a token: kv_heads, or 1 */
} Linear;

/* ---- inference ---- */
/* Elements of a head, of a packed input [batch, tokens, heads × size]. */
static bool head_size(Model *m, const Node *n, int k, int64_t heads, int64_t *size) {
  int64_t all;
  if (!expr_is_const(n->in[k]->dims[2], &all))
    return op_error(m, n, ERR_DYNAMIC, "the last dim of input %d is not known", k);
  *size = all / heads;
  return all % heads == 0 || op_error(m, n, ERR_SHAPE, "input %d has %lld columns for %lld heads",
                                      k, (long long)all, (long long)heads);
}

static bool need_tokens(Model *m, const Node *n, const Linear *l, int k) {
  const Expr *same;
  return !node_in(n, k) || (op_need_rank(m, n, k, 3, 3) && op_need_class(m, n, k, CL_FLOAT) &&
                            op_same_dim(m, n, l->batch, n->in[k]->dims[0], "batch sizes", &same) &&
                            op_same_dim(m, n, l->tokens, n->in[k]->dims[1], "tokens", &same));
}

/* Columns of decay or beta: `few` or `many`. */
static bool need_columns(Model *m, const Node *n, int k, bool wanted, int64_t few, int64_t many,
                         int64_t *columns) {
  if (!wanted != !node_in(n, k))
    return op_error(m, n, ERR_ARITY, "this update rule %s input %d", wanted ? "needs" : "forbids",
                    k);
  if (!wanted) return true;
  if (!expr_is_const(n->in[k]->dims[2], columns))
    return op_error(m, n, ERR_DYNAMIC, "the last dim of input %d is not known", k);
  return *columns == few || *columns == many ||
         op_error(m, n, ERR_SHAPE, "input %d has %lld columns, not %lld or %lld", k,
                  (long long)*columns, (long long)few, (long long)many);
}

static bool read_linear(Model *m, Node *n, Linear *l) {
  const Attr *a;
  int rule;
  double scale;
  int64_t k_size, chunk, columns = 0;
  if (!op_need_attr(m, n, "q_num_heads", AT_INT, &a) ||
      !op_need_attr(m, n, "kv_num_heads", AT_INT, &a) ||
      !op_int_in(m, n, "q_num_heads", 1, 1, INT32_MAX, &l->q_heads) ||
      !op_int_in(m, n, "kv_num_heads", 1, 1, INT32_MAX, &l->kv_heads) ||
      !op_int_in(m, n, "chunk_size", 64, 1, INT32_MAX, &chunk) ||
      !op_float(m, n, "scale", 0, &scale) ||
      !op_choice(m, n, "update_rule", "gated_delta", rules, &rule) ||
      !op_need_rank(m, n, L_Q, 3, 3))
    return false;
  if (l->q_heads % l->kv_heads)
    return op_error(m, n, ERR_ATTR_VALUE, "%lld query heads do not divide over %lld key heads",
                    (long long)l->q_heads, (long long)l->kv_heads);
  l->gated = rule & 1;
  l->delta = rule & 2;
  l->batch = n->in[L_Q]->dims[0];
  l->tokens = n->in[L_Q]->dims[1];
  for (int k = 0; k <= L_BETA; k++)
    if (k != L_STATE && !need_tokens(m, n, l, k)) return false;
  if (!head_size(m, n, L_Q, l->q_heads, &l->d_k) || !head_size(m, n, L_K, l->kv_heads, &k_size) ||
      !head_size(m, n, L_V, l->kv_heads, &l->d_v) ||
      !need_columns(m, n, L_DECAY, l->gated, l->kv_heads, l->kv_heads * l->d_k, &columns) ||
      !need_columns(m, n, L_BETA, l->delta, 1, l->kv_heads, &l->betas))
    return false;
  l->decays = columns / l->kv_heads;
  return k_size == l->d_k || op_error(m, n, ERR_SHAPE, "heads of query and key have %lld and %lld",
                                      (long long)l->d_k, (long long)k_size);
}

bool infer_linear_attention(Model *m, Node *n) {
  Linear l = {0};
  if (!read_linear(m, n, &l)) return false;
  ExprPool *const p = m->pool;
  const Expr *state[] = {l.batch, ex_i64(p, l.kv_heads), ex_i64(p, l.d_k), ex_i64(p, l.d_v)};
  const Expr *out[] = {l.batch, l.tokens, ex_i64(p, l.q_heads * l.d_v)};
  const Value *const past = node_in(n, L_STATE);
  return op_need_rank(m, n, L_STATE, 4, 4) && op_need_class(m, n, L_STATE, CL_FLOAT) &&
         require_shape(m, n, L_STATE, 0, 4, state, "dimension of the past state") &&
         op_out(m, n, 0, n->in[L_Q]->dtype, 3, out) &&
         op_out(m, n, 1, past ? past->dtype : n->in[L_Q]->dtype, 4, state);
}

/* ---- rewriting ---- */
/* [batch, tokens, heads, size] in f32; NULL: absent */
static Value *heads_apart(Build *b, Value *v, int64_t heads, int64_t size) {
  if (!v) return NULL;
  return build_reshape(b, build_cast(b, v, DT_F32), 4, (int64_t[]){0, 0, heads, size});
}

/* One token of it: [batch, heads, size] */
static Value *token_of(Build *b, Value *v, Value *t) {
  const Attr axis = attr_int(b->m->arena, "axis", 1);
  return build_op(b, "Gather", 2, (Value *[]){v, t}, 1, &axis);
}

typedef struct Tokens { /* all of them, heads apart */
  Value *q, *k, *v, *decay, *beta;
  double scale;
} Tokens;

/* Token t: the next state, and what queries read of it ([batch, kv_heads, group, d_v]). */
static Value *token_step(Build *b, const Linear *l, const Tokens *x, Value *t, Value *state,
                         Value **read) {
  Value *const k = token_of(b, x->k, t);
  Value *v = build_unsqueeze(b, token_of(b, x->v, t), 2);
  if (l->gated)
    state =
        build2(b, "Mul", state, build_unsqueeze(b, build1(b, "Exp", token_of(b, x->decay, t)), 3));
  if (l->delta) {
    Value *const known = build2(b, "MatMul", build_unsqueeze(b, k, 2), state);
    v = build2(b, "Mul", build_unsqueeze(b, token_of(b, x->beta, t), 3),
               build2(b, "Sub", v, known));
  }
  state = build2(b, "Add", state, build2(b, "Mul", build_unsqueeze(b, k, 3), v));
  Value *const q =
      build_reshape(b, token_of(b, x->q, t), 4, (int64_t[]){0, l->kv_heads, -1, l->d_k});
  *read = build2(b, "Mul", build2(b, "MatMul", q, state), build_scalar(b, DT_F32, x->scale));
  return state;
}

static Value *zero_state(Build *b, const Linear *l, Value *q) {
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  Value *const parts[2] = {build_shape(b, q, 0, 1),
                           build_i64s(b, 3, (int64_t[]){l->kv_heads, l->d_k, l->d_v})};
  Value *const shape = build_op(b, "Concat", 2, parts, 1, &axis);
  return build2(b, "Expand", build_scalar(b, DT_F32, 0), shape);
}

static Value *new_input(Build *b, Graph *g, DType t, int rank, const Expr *const *dims) {
  Value *const v = value_new(b->m, NULL);
  value_set_tensor(b->m, v, t, rank, dims);
  vec_push(b->m->arena, &g->inputs, v);
  return v;
}

/* Returns the last state; *read: [tokens, batch, kv_heads, group, d_v] */
static Value *token_loop(Build *b, const Linear *l, const Tokens *x, Value *state, Value **read) {
  Arena *const a = b->m->arena;
  const int64_t zero = 0;
  Graph *const g = graph_new(b->m, b->g, "tokens");
  Value *const t = new_input(b, g, DT_I64, 0, NULL);
  new_input(b, g, DT_BOOL, 0, NULL);
  Value *const before = new_input(b, g, DT_F32, 4, (const Expr *const *)state->dims);
  Build body = {.m = b->m, .g = g, .loc = b->loc, .ok = b->ok};
  Value *const after = token_step(&body, l, x, t, before, read);
  vec_push(a, &g->outputs, value_const_scalar(b->m, DT_BOOL, 1));
  vec_push(a, &g->outputs, after);
  vec_push(a, &g->outputs, *read);
  if (!(b->ok = b->ok && body.ok)) return state;
  Value *const trip = build2(b, "Squeeze", build_shape(b, x->q, 1, 2), build_i64s(b, 1, &zero));
  const Attr attr = {.name = "body", .kind = AT_GRAPH, .n = 1, .graph = g};
  Value *const ins[3] = {trip, NULL, state};
  Node *const loop = build_node(b, "Loop", "", 3, ins, 2, 1, &attr);
  g->owner = loop;
  *read = loop->out[1];
  return loop->out[0];
}

bool expand_linear_attention(Build *b, Node *n, Value **out) {
  Linear l = {0};
  if (!read_linear(b->m, n, &l)) return false;
  const double scale = node_float(n, "scale", 0);
  const Tokens x = {.q = heads_apart(b, n->in[L_Q], l.q_heads, l.d_k),
                    .k = heads_apart(b, n->in[L_K], l.kv_heads, l.d_k),
                    .v = heads_apart(b, n->in[L_V], l.kv_heads, l.d_v),
                    .decay = heads_apart(b, node_in(n, L_DECAY), l.kv_heads, l.decays),
                    .beta = heads_apart(b, node_in(n, L_BETA), l.betas, 1),
                    .scale = scale != 0 ? scale : 1 / sqrt((double)l.d_k)};
  Value *state =
      node_in(n, L_STATE) ? build_cast(b, n->in[L_STATE], DT_F32) : zero_state(b, &l, n->in[L_Q]);
  Value *read;
  if (!b->ok) return false;
  if (expr_is_i64(l.tokens, 1)) {
    state = token_step(b, &l, &x, build_scalar(b, DT_I64, 0), state, &read);
    read = build_unsqueeze(b, read, 1);
  } else {
    state = token_loop(b, &l, &x, state, &read);
    if (!b->ok) return false;
    read = build_transpose(b, read, 5, (int64_t[]){1, 0, 2, 3, 4});
  }
  read = build_reshape(b, read, 3, (int64_t[]){0, 0, l.q_heads * l.d_v});
  out[0] = build_cast(b, read, n->in[L_Q]->dtype);
  if (n->n_out > 1)
    out[1] = build_cast(b, state, node_in(n, L_STATE) ? n->in[L_STATE]->dtype : n->in[L_Q]->dtype);
  return b->ok;
}
