/* LSTM, GRU and RNN. The input projection of all time steps is one MatMul outside of the loop; the
 * loop's body holds the recurrent MatMul and the gates. Both directions are two loops; one time
 * step needs none. Weights are reordered by ops on constants, which the fold pass computes. */
#include <string.h>
#include <strings.h>
#include "ir/op/tensor_util.h"

typedef enum Cell { CELL_RNN, CELL_GRU, CELL_LSTM } Cell;
static const int cell_gates[] = {1, 3, 4}, cell_funcs[] = {1, 2, 3};

/* ---- inference ---- */
static int direction_count(const Node *n) {
  return strcasecmp(node_string(n, "direction", "forward"), "bidirectional") == 0 ? 2 : 1;
}

static bool need_dims(Model *m, Node *n, int k, int rank, const Expr *const *dims,
                      const char *what) {
  const Expr *same;
  if (!node_in(n, k)) return true;
  if (!op_need_rank(m, n, k, rank, rank)) return false;
  for (int i = 0; i < rank; i++)
    if (dims[i] && !op_same_dim(m, n, dims[i], n->in[k]->dims[i], what, &same)) return false;
  return true;
}

typedef struct Act {
  const char *name, *op; /* op NULL: built by hand */
  bool alpha, beta;
  double def_alpha, def_beta;
} Act;
static const Act acts[] = {
    {"Relu", "Relu", false, false, 0, 0},
    {"Tanh", "Tanh", false, false, 0, 0},
    {"Sigmoid", "Sigmoid", false, false, 0, 0},
    {"Softsign", "Softsign", false, false, 0, 0},
    {"Softplus", "Softplus", false, false, 0, 0},
    {"LeakyRelu", "LeakyRelu", true, false, 0.01, 0},
    {"Elu", "Elu", true, false, 1, 0},
    {"ThresholdedRelu", "ThresholdedRelu", true, false, 1, 0},
    {"HardSigmoid", "HardSigmoid", true, true, 0.2, 0.5},
    {"Affine", NULL, true, true, 1, 0},
    {"ScaledTanh", NULL, true, true, 1, 1},
};
enum { N_ACTS = (int)(sizeof acts / sizeof *acts) };

static const Act *act_find(const char *name) {
  for (int i = 0; i < N_ACTS; i++)
    if (strcasecmp(acts[i].name, name) == 0) return &acts[i];
  return NULL;
}

static bool check_attrs(Model *m, Node *n, Cell cell) {
  static const char *const dirs[] = {"forward", "reverse", "bidirectional", NULL};
  int k;
  int64_t layout;
  const Attr *a = node_attr(n, "activations");
  if (!op_choice(m, n, "direction", "forward", dirs, &k) ||
      !op_int_in(m, n, "layout", 0, 0, 1, &layout))
    return false;
  if (!a) return true;
  if (a->kind != AT_STRINGS || a->n != cell_funcs[cell] * direction_count(n))
    return op_error(m, n, ERR_ATTR_VALUE, "activations has %d entries, needs %d", a->n,
                    cell_funcs[cell] * direction_count(n));
  for (int i = 0; i < a->n; i++)
    if (!act_find(a->strs[i]))
      return op_error(m, n, ERR_ATTR_VALUE, "unknown activation \"%s\"", a->strs[i]);
  return true;
}

/* DynamicQuantizeLSTM: W [dirs, I, 4H] and R [dirs, H, 4H] in 8 bits; inputs 8 to 11 are scale and
 * zero point of each, by direction, or by direction and column. */
static bool is_dynamic(const Node *n) { return strcmp(n->op->name, "DynamicQuantizeLSTM") == 0; }
enum { W_SCALE = 8, R_SCALE = 10 };

static bool need_bytes(Model *m, Node *n, const Expr *dirs, const Expr *rows) {
  const Expr *const lanes[2] = {dirs, rows};
  for (int k = 1; k <= 2; k++) {
    const int scale = k == 1 ? W_SCALE : R_SCALE;
    const DType t = n->in[k]->dtype;
    for (int i = scale; i < scale + 2; i++)
      if (!node_in(n, i)) return op_error(m, n, ERR_ARITY, "input %d is required", i);
    if (t != DT_U8 && t != DT_I8) return op_error(m, n, ERR_TYPE, "weights are %s", dtype_text(t));
    if (!op_need_dtype(m, n, scale, DT_F32) || !op_same_dtype(m, n, scale + 1, k)) return false;
    for (int i = scale; i < scale + 2; i++)
      if (!op_need_rank(m, n, i, 1, 2) ||
          !need_dims(m, n, i, n->in[i]->rank, lanes, "a scale or zero point"))
        return false;
  }
  return true;
}

static bool infer_cell(Model *m, Node *n, Cell cell) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0], *r = n->in[2];
  const bool bytes = is_dynamic(n);
  if (!check_attrs(m, n, cell) || !op_need_class(m, n, 0, CL_FLOAT) ||
      !op_need_rank(m, n, 0, 3, 3) || !op_need_rank(m, n, 1, 3, 3) ||
      !op_need_rank(m, n, 2, 3, 3) || !op_need_dtype(m, n, 4, DT_I32))
    return false;
  for (int k = bytes ? 3 : 1; k < n->n_in && k < 8; k++)
    if (k != 4 && !op_same_dtype(m, n, k, 0)) return false;
  const bool batch_first = node_int(n, "layout", 0) != 0;
  const Expr *seq = x->dims[batch_first], *batch = x->dims[!batch_first],
             *hidden = r->dims[bytes ? 1 : 2];
  const Expr *dirs = ex_i64(p, direction_count(n)),
             *rows = ex_mul(p, hidden, ex_i64(p, cell_gates[cell]));
  int64_t h, declared;
  if (!expr_is_const(hidden, &h))
    return op_error(m, n, ERR_DYNAMIC, "the hidden size is not known");
  if (!op_int(m, n, "hidden_size", h, &declared)) return false;
  if (h != declared)
    return op_error(m, n, ERR_SHAPE, "hidden_size is %lld, R has %lld", (long long)declared,
                    (long long)h);
  const Expr *w_dims[3] = {dirs, bytes ? x->dims[2] : rows, bytes ? rows : x->dims[2]},
             *r_dims[3] = {dirs, bytes ? hidden : rows, bytes ? rows : hidden};
  const Expr *b_dims[2] = {dirs, ex_mul(p, rows, ex_i64(p, 2))},
             *p_dims[2] = {dirs, ex_i64(p, 3 * h)};
  const Expr *s_dims[3] = {batch_first ? batch : dirs, batch_first ? dirs : batch, hidden};
  if (!need_dims(m, n, 1, 3, w_dims, "W") || !need_dims(m, n, 2, 3, r_dims, "R") ||
      !need_dims(m, n, 3, 2, b_dims, "B") || !need_dims(m, n, 4, 1, &batch, "sequence_lens") ||
      !need_dims(m, n, 5, 3, s_dims, "initial_h") || !need_dims(m, n, 6, 3, s_dims, "initial_c") ||
      !need_dims(m, n, 7, 2, p_dims, "P") || (bytes && !need_bytes(m, n, dirs, rows)))
    return false;
  if (node_in(n, 4) && !tu_lengths_inside(m, n, 4, seq)) return false;
  const Expr *y0[4] = {seq, dirs, batch, hidden}, *y1[4] = {batch, seq, dirs, hidden};
  return op_out(m, n, 0, x->dtype, 4, batch_first ? y1 : y0) &&
         op_out(m, n, 1, x->dtype, 3, s_dims) && op_out(m, n, 2, x->dtype, 3, s_dims);
}

bool infer_lstm(Model *m, Node *n) { return infer_cell(m, n, CELL_LSTM); }
bool infer_gru(Model *m, Node *n) { return infer_cell(m, n, CELL_GRU); }
bool infer_rnn(Model *m, Node *n) { return infer_cell(m, n, CELL_RNN); }

/* ---- building blocks ---- */
static Value *concat(Build *b, int n, Value *const *v, int64_t axis) {
  const Attr a = attr_int(b->m->arena, "axis", axis);
  return n == 1 ? v[0] : build_op(b, "Concat", n, v, 1, &a);
}

static Value *gather(Build *b, Value *v, Value *at) {
  const Attr a = attr_int(b->m->arena, "axis", 0);
  return build_op(b, "Gather", 2, (Value *[]){v, at}, 1, &a);
}

/* v[d] of a tensor [dirs, …]. */
static Value *of_direction(Build *b, Value *v, int dirs, int d) {
  const int64_t zero = 0;
  return dirs == 1 ? build2(b, "Squeeze", v, build_i64s(b, 1, &zero))
                   : gather(b, v, build_scalar(b, DT_I64, d));
}

/* [rows, k] split into equal parts of width h along axis 1. */
static void split_gates(Build *b, Value *v, int parts, Value **out) {
  const Attr a[2] = {attr_int(b->m->arena, "axis", 1), attr_int(b->m->arena, "num_outputs", parts)};
  Node *n = build_node(b, "Split", "", 1, &v, parts, 2, a);
  memcpy(out, n->out, sizeof *out * (size_t)parts);
}

static Value *scaled(Build *b, Value *v, double k) {
  return k == 1 ? v : build2(b, "Mul", v, build_scalar(b, v->dtype, k));
}

typedef struct ActUse {
  const Act *act;
  double alpha, beta;
} ActUse;

static Value *activate(Build *b, const ActUse *u, double clip, Value *v) {
  Arena *a = b->m->arena;
  if (clip > 0)
    v = build_op(b, "Clip", 3,
                 (Value *[]){v, build_scalar(b, v->dtype, -clip), build_scalar(b, v->dtype, clip)},
                 0, NULL);
  if (u->act->op) {
    const Attr attrs[2] = {attr_float(a, "alpha", u->alpha), attr_float(a, "beta", u->beta)};
    return build_op(b, u->act->op, 1, &v, u->act->beta ? 2 : u->act->alpha ? 1 : 0, attrs);
  }
  if (strcmp(u->act->name, "Affine") == 0)
    return build2(b, "Add", scaled(b, v, u->alpha), build_scalar(b, v->dtype, u->beta));
  return scaled(b, build1(b, "Tanh", scaled(b, v, u->beta)), u->alpha);
}

/* ---- one direction ---- */
typedef struct Rnn {
  Node *n;
  Cell cell;
  int dirs;
  int64_t hidden;
  double clip;
  bool coupled, late_reset;        /* input_forget; linear_before_reset */
  Value *x, *lens, *h0, *c0, *seq; /* time first; h0, c0: [dirs, batch, H] or NULL; seq: scalar */
  const Expr *steps;
  bool want_y;
} Rnn;

typedef struct Direction {
  bool reverse;
  ActUse act[3];
  Value *xw;      /* [seq, batch, gates*H]: input projection and biases */
  Value *rt, *rh; /* recurrent weights [H, …]; GRU without late reset: rh is the last gate apart */
  Value *scale, *zero; /* of rt in 8 bits, or NULL */
  Value *late_bias;    /* GRU with late reset: recurrent bias of the last gate */
  Value *peep[3];      /* LSTM peepholes i o f, or NULL */
} Direction;

typedef struct State {
  Value *h, *c;
} State;

/* x·w, where x is quantized by its own range. */
static Value *dynamic_product(Build *b, Value *x, Value *w, Value *scale, Value *zero) {
  if (!b->ok) return x;
  Value *in[] = {x, w, scale, zero};
  return build_node(b, "DynamicQuantizeMatMul", "com.microsoft", 4, in, 1, 0, NULL)->out[0];
}

static Value *recurrent(Build *b, const Direction *d, Value *h) {
  return d->scale ? dynamic_product(b, h, d->rt, d->scale, d->zero) : build2(b, "MatMul", h, d->rt);
}

static State lstm_step(Build *b, const Rnn *r, const Direction *d, Value *xt, State s) {
  Value *g[4];
  split_gates(b, build2(b, "Add", xt, recurrent(b, d, s.h)), 4, g); /* i o f c */
  Value *in = g[0], *forget = g[2], *o = g[1];
  if (d->peep[0]) {
    in = build2(b, "Add", in, build2(b, "Mul", d->peep[0], s.c));
    forget = build2(b, "Add", forget, build2(b, "Mul", d->peep[2], s.c));
  }
  in = activate(b, &d->act[0], r->clip, in);
  forget = r->coupled ? build2(b, "Sub", build_scalar(b, xt->dtype, 1), in)
                      : activate(b, &d->act[0], r->clip, forget);
  Value *cand = activate(b, &d->act[1], r->clip, g[3]);
  State t;
  t.c = build2(b, "Add", build2(b, "Mul", forget, s.c), build2(b, "Mul", in, cand));
  if (d->peep[0]) o = build2(b, "Add", o, build2(b, "Mul", d->peep[1], t.c));
  t.h = build2(b, "Mul", activate(b, &d->act[0], r->clip, o), activate(b, &d->act[2], 0, t.c));
  return t;
}

static State gru_step(Build *b, const Rnn *r, const Direction *d, Value *xt, State s) {
  Value *x[3], *g[3], *hidden;
  split_gates(b, xt, 3, x); /* z r h */
  split_gates(b, build2(b, "MatMul", s.h, d->rt), r->late_reset ? 3 : 2, g);
  Value *z = activate(b, &d->act[0], r->clip, build2(b, "Add", x[0], g[0]));
  Value *reset = activate(b, &d->act[0], r->clip, build2(b, "Add", x[1], g[1]));
  if (r->late_reset)
    hidden = build2(b, "Mul", reset, d->late_bias ? build2(b, "Add", g[2], d->late_bias) : g[2]);
  else
    hidden = build2(b, "MatMul", build2(b, "Mul", reset, s.h), d->rh);
  hidden = activate(b, &d->act[1], r->clip, build2(b, "Add", x[2], hidden));
  Value *rest = build2(b, "Sub", build_scalar(b, xt->dtype, 1), z);
  return (State){build2(b, "Add", build2(b, "Mul", rest, hidden), build2(b, "Mul", z, s.h)), NULL};
}

/* One time step at iteration `iter`; *y is what Y gets. */
static State step(Build *b, const Rnn *r, const Direction *d, Value *iter, Value *last, State s,
                  Value **y) {
  const bool backwards =
      d->reverse && !r->lens; /* with lengths the input was reversed per sequence */
  Value *xt = gather(b, d->xw, backwards ? build2(b, "Sub", last, iter) : iter);
  State t = {0};
  if (r->cell == CELL_LSTM) t = lstm_step(b, r, d, xt, s);
  if (r->cell == CELL_GRU) t = gru_step(b, r, d, xt, s);
  if (r->cell == CELL_RNN)
    t.h = activate(b, &d->act[0], r->clip, build2(b, "Add", xt, build2(b, "MatMul", s.h, d->rt)));
  *y = t.h;
  if (!r->lens || !b->ok) return t;
  Value *valid = build2(b, "Less", iter, build_unsqueeze(b, r->lens, 1));
  *y = build_op(b, "Where", 3, (Value *[]){valid, t.h, build_scalar(b, t.h->dtype, 0)}, 0, NULL);
  t.h = build_op(b, "Where", 3, (Value *[]){valid, t.h, s.h}, 0, NULL);
  if (t.c) t.c = build_op(b, "Where", 3, (Value *[]){valid, t.c, s.c}, 0, NULL);
  return t;
}

/* All time steps. Returns the last state; *y: [seq, batch, H] in order of iterations. */
static State run_loop(Build *b, const Rnn *r, const Direction *d, State s, Value **y) {
  Model *m = b->m;
  Value *last = build2(b, "Sub", r->seq, build_scalar(b, DT_I64, 1));
  if (expr_is_i64(r->steps, 1)) {
    s = step(b, r, d, build_scalar(b, DT_I64, 0), last, s, y);
    if (b->ok) *y = build_unsqueeze(b, *y, 0);
    return s;
  }
  const int states = s.c ? 2 : 1;
  Value *init[2] = {s.h, s.c}, *in[4], *args[4] = {r->seq, NULL, s.h, s.c};
  Graph *g = graph_new(m, b->g, "steps");
  for (int k = 0; k < states + 2; k++) {
    in[k] = value_new(m, NULL);
    vec_push(m->arena, &g->inputs, in[k]);
  }
  value_set_tensor(m, in[0], DT_I64, 0, NULL);
  value_set_tensor(m, in[1], DT_BOOL, 0, NULL);
  for (int k = 0; k < states; k++)
    value_set_tensor(m, in[k + 2], init[k]->dtype, init[k]->rank,
                     (const Expr *const *)init[k]->dims);
  Build body = {.m = m, .g = g, .loc = b->loc, .ok = b->ok};
  const State t = step(&body, r, d, in[0], last, (State){in[2], s.c ? in[3] : NULL}, y);
  vec_push(m->arena, &g->outputs, value_const_scalar(m, DT_BOOL, 1));
  vec_push(m->arena, &g->outputs, t.h);
  if (s.c) vec_push(m->arena, &g->outputs, t.c);
  if (r->want_y) vec_push(m->arena, &g->outputs, *y);
  if (!(b->ok = b->ok && body.ok)) return s;
  const Attr a = {.name = "body", .kind = AT_GRAPH, .n = 1, .graph = g};
  Node *loop = build_node(b, "Loop", "", states + 2, args, states + r->want_y, 1, &a);
  g->owner = loop;
  *y = r->want_y ? loop->out[states] : NULL;
  return (State){loop->out[0], s.c ? loop->out[1] : NULL};
}

/* ---- setting up ---- */
static void pick_activations(const Rnn *r, int d, ActUse *use) {
  static const char *const defaults[3][3] = {
      {"Tanh"}, {"Sigmoid", "Tanh"}, {"Sigmoid", "Tanh", "Tanh"}};
  const Attr *names = node_attr(r->n, "activations"), *alpha = node_attr(r->n, "activation_alpha"),
             *beta = node_attr(r->n, "activation_beta");
  const int per = cell_funcs[r->cell];
  int a = 0, b = 0; /* lists hold entries only for the functions that take them */
  for (int i = 0; i < per * r->dirs; i++) {
    const Act *act = act_find(names ? names->strs[i] : defaults[r->cell][i % per]);
    ActUse u = {act, act->def_alpha, act->def_beta};
    if (act->alpha && alpha && alpha->kind == AT_FLOATS && a < alpha->n)
      u.alpha = alpha->floats[a++];
    if (act->beta && beta && beta->kind == AT_FLOATS && b < beta->n) u.beta = beta->floats[b++];
    if (i / per == d) use[i % per] = u;
  }
}

/* Sum of both biases; for a late reset the recurrent bias of the last gate stays apart. */
static Value *biases(Build *b, const Rnn *r, Direction *d, Value *bias) {
  const int64_t h = r->hidden, rows = h * cell_gates[r->cell];
  Value *wb = build_slice(b, bias, 0, 0, rows), *rb = build_slice(b, bias, 0, rows, 2 * rows);
  if (!r->late_reset) return build2(b, "Add", wb, rb);
  d->late_bias = build_slice(b, rb, 0, 2 * h, 3 * h);
  Value *parts[2] = {
      build2(b, "Add", build_slice(b, wb, 0, 0, 2 * h), build_slice(b, rb, 0, 0, 2 * h)),
      build_slice(b, wb, 0, 2 * h, 3 * h)};
  return concat(b, 2, parts, 0);
}

static Value *reverse_sequences(Build *b, const Rnn *r, Value *v) {
  const Attr a[2] = {attr_int(b->m->arena, "batch_axis", 1), attr_int(b->m->arena, "time_axis", 0)};
  return build_op(b, "ReverseSequence", 2, (Value *[]){v, r->lens}, 2, a);
}

static Direction set_up(Build *b, const Rnn *r, int k) {
  Direction d = {.reverse = k == 1 ||
                            strcasecmp(node_string(r->n, "direction", "forward"), "reverse") == 0};
  const int64_t h = r->hidden;
  pick_activations(r, k, d.act);
  Value *x = d.reverse && r->lens ? reverse_sequences(b, r, r->x) : r->x;
  Value *w = of_direction(b, r->n->in[1], r->dirs, k),
        *rec = of_direction(b, r->n->in[2], r->dirs, k);
  const bool bytes = is_dynamic(r->n);
  if (bytes)
    d.xw = dynamic_product(b, x, w, of_direction(b, r->n->in[W_SCALE], r->dirs, k),
                           of_direction(b, r->n->in[W_SCALE + 1], r->dirs, k));
  else
    d.xw = build2(b, "MatMul", x, build_swap_last(b, w));
  if (node_in(r->n, 3))
    d.xw = build2(b, "Add", d.xw, biases(b, r, &d, of_direction(b, r->n->in[3], r->dirs, k)));
  if (bytes) {
    d.rt = rec;
    d.scale = of_direction(b, r->n->in[R_SCALE], r->dirs, k);
    d.zero = of_direction(b, r->n->in[R_SCALE + 1], r->dirs, k);
  } else if (r->cell == CELL_GRU && !r->late_reset) {
    d.rt = build_swap_last(b, build_slice(b, rec, 0, 0, 2 * h));
    d.rh = build_swap_last(b, build_slice(b, rec, 0, 2 * h, 3 * h));
  } else {
    d.rt = build_swap_last(b, rec);
  }
  if (r->cell == CELL_LSTM && node_in(r->n, 7)) {
    Value *peep = of_direction(b, r->n->in[7], r->dirs, k);
    for (int i = 0; i < 3; i++) d.peep[i] = build_slice(b, peep, 0, i * h, (i + 1) * h);
  }
  return d;
}

static Value *zero_state(Build *b, const Rnn *r) {
  const Expr *batch = r->x->dims[1];
  int64_t k, dims[2];
  if (expr_is_const(batch, &k)) {
    dims[0] = k;
    dims[1] = r->hidden;
    return build2(b, "Expand", build_scalar(b, r->x->dtype, 0), build_i64s(b, 2, dims));
  }
  Value *x = r->x;
  const Attr range[2] = {attr_int(b->m->arena, "start", 1), attr_int(b->m->arena, "end", 2)};
  Value *shape[2] = {build_op(b, "Shape", 1, &x, 2, range), build_i64s(b, 1, &r->hidden)};
  return build2(b, "Expand", build_scalar(b, r->x->dtype, 0), concat(b, 2, shape, 0));
}

static Value *reverse_time(Build *b, const Rnn *r, Value *y) {
  const int64_t zero = 0, minus = -1, least = INT64_MIN;
  if (r->lens) return reverse_sequences(b, r, y);
  if (expr_is_i64(r->steps, 1)) return y;
  Value *ins[5] = {y, build_i64s(b, 1, &minus), build_i64s(b, 1, &least), build_i64s(b, 1, &zero),
                   build_i64s(b, 1, &minus)};
  return build_op(b, "Slice", 5, ins, 0, NULL);
}

static Value *sequence_length(Build *b, Value *x) {
  int64_t k;
  if (expr_is_const(x->dims[0], &k)) return value_const_i64s(b->m, 0, 1, &k);
  const Attr range[2] = {attr_int(b->m->arena, "start", 0), attr_int(b->m->arena, "end", 1)};
  const int64_t zero = 0;
  return build2(b, "Squeeze", build_op(b, "Shape", 1, &x, 2, range), build_i64s(b, 1, &zero));
}

/* As i64. Of constants the inference has said what there is. */
static Value *checked_lengths(Build *b, Value *x, Value *lens) {
  if (!lens) return NULL;
  const bool known = lens->cdata != NULL;
  lens = build_cast(b, lens, DT_I64);
  if (known || !b->ok) return lens;
  return build_node(b, "Lengths", "burin", 2, (Value *[]){x, lens}, 1, 0, NULL)->out[0];
}

static bool expand_cell(Build *b, Node *n, Value **out, Cell cell) {
  static const int64_t swap[3] = {1, 0, 2}, y_perm[4] = {2, 0, 1, 3};
  const bool batch_first = node_int(n, "layout", 0) != 0;
  Rnn r = {.n = n, .cell = cell, .dirs = direction_count(n), .clip = node_float(n, "clip", 0)};
  expr_is_const(n->in[2]->dims[is_dynamic(n) ? 1 : 2], &r.hidden);
  r.coupled = node_int(n, "input_forget", 0) != 0;
  r.late_reset = cell == CELL_GRU && node_int(n, "linear_before_reset", 0) != 0;
  r.x = batch_first ? build_transpose(b, n->in[0], 3, swap) : n->in[0];
  if (!b->ok) return false;
  r.lens = checked_lengths(b, r.x, node_in(n, 4));
  r.h0 = node_in(n, 5);
  r.c0 = cell == CELL_LSTM ? node_in(n, 6) : NULL;
  if (batch_first && r.h0) r.h0 = build_transpose(b, r.h0, 3, swap);
  if (batch_first && r.c0) r.c0 = build_transpose(b, r.c0, 3, swap);
  r.steps = r.x->dims[0];
  r.seq = sequence_length(b, r.x);
  r.want_y = node_out(n, 0) != NULL;
  Value *ys[2] = {0}, *hs[2] = {0}, *cs[2] = {0};
  for (int k = 0; k < r.dirs && b->ok; k++) {
    Value *y = NULL;
    const Direction d = set_up(b, &r, k);
    State s = {r.h0 ? of_direction(b, r.h0, r.dirs, k) : zero_state(b, &r), NULL};
    if (cell == CELL_LSTM) s.c = r.c0 ? of_direction(b, r.c0, r.dirs, k) : zero_state(b, &r);
    if (!b->ok) return false;
    s = run_loop(b, &r, &d, s, &y);
    if (!b->ok) return false;
    if (r.want_y) ys[k] = build_unsqueeze(b, d.reverse ? reverse_time(b, &r, y) : y, 1);
    hs[k] = build_unsqueeze(b, s.h, 0);
    if (s.c) cs[k] = build_unsqueeze(b, s.c, 0);
  }
  if (!b->ok) return false;
  Value *res[3] = {r.want_y ? concat(b, r.dirs, ys, 1) : NULL,
                   node_out(n, 1) ? concat(b, r.dirs, hs, 0) : NULL,
                   node_out(n, 2) ? concat(b, r.dirs, cs, 0) : NULL};
  for (int k = 0; k < n->n_out && b->ok; k++) {
    if (res[k] && batch_first) res[k] = build_transpose(b, res[k], k ? 3 : 4, k ? swap : y_perm);
    out[k] = res[k];
  }
  return b->ok;
}

bool expand_lstm(Build *b, Node *n, Value **out) { return expand_cell(b, n, out, CELL_LSTM); }
bool expand_gru(Build *b, Node *n, Value **out) { return expand_cell(b, n, out, CELL_GRU); }
bool expand_rnn(Build *b, Node *n, Value **out) { return expand_cell(b, n, out, CELL_RNN); }
