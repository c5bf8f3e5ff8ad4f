/* Folds what scales and shifts whole channels into the operator before it: BatchNormalization, Mul,
 * Div, Add and Sub by per-channel constants after Conv, ConvTranspose and Gemm (and
 * BatchNormalization after a rank-2 MatMul) change weights and bias, computed in double precision.
 * A BatchNormalization that stands alone becomes Mul and Add. Only where nobody else reads the
 * operator's result, and all constants are known. */
#include <math.h>
#include <string.h>
#include "passes/graph/rewrite.h"

typedef struct Channels { /* y = x * scale[c] + shift[c]; channels along dimension 1 */
  int64_t n;
  double *scale, *shift;
  bool scales, shifts; /* not all 1, not all 0 */
} Channels;

typedef struct Fold {
  Forward f;
  Uses *uses;
} Fold;

static bool is_float_const(const ConstData *c, int64_t count) {
  return c && dtype_is_float(c->dtype) && c->count == count;
}

/* Channel count of v (dimension 1), 0 when it is not a constant. */
static int64_t channels(const Value *v) {
  int64_t n = 0;
  return v->rank >= 2 && expr_is_const(v->dims[1], &n) && n > 0 ? n : 0;
}

static Channels channels_new(PassCtx *c, int64_t n) {
  Channels ch = {.n = n,
                 .scale = ARENA_ARRAY(c->scratch, double, n),
                 .shift = ARENA_ARRAY(c->scratch, double, n)};
  for (int64_t i = 0; i < n; i++) ch.scale[i] = 1;
  return ch;
}

/* ---- what a node does to channels ---- */

static bool batch_norm_channels(PassCtx *c, const Node *n, Channels *ch) {
  const int64_t count = channels(n->in[0]);
  if (!count || node_int(n, "training_mode", 0) || n->n_out != 1) return false;
  for (int k = 1; k < 5; k++)
    if (!is_float_const(const_input(n, k), count)) return false;
  *ch = channels_new(c, count);
  const double eps = node_float(n, "epsilon", 1e-5);
  for (int64_t i = 0; i < count; i++) {
    ch->scale[i] = const_float(n->in[1]->cdata, i) / sqrt(const_float(n->in[4]->cdata, i) + eps);
    ch->shift[i] = const_float(n->in[2]->cdata, i) - const_float(n->in[3]->cdata, i) * ch->scale[i];
    if (!isfinite(ch->scale[i]) || !isfinite(ch->shift[i])) return false;
  }
  ch->scales = ch->shifts = true;
  return true;
}

/* Elements of the constant w by channel of v: w broadcasts over all dimensions but 1. */
static bool per_channel(const Value *v, const Value *w, int64_t count) {
  if (!w->cdata || !dtype_is_float(w->dtype) || w->rank > v->rank) return false;
  for (int d = 0; d < w->rank; d++) {
    const int at = d + v->rank - w->rank;
    if (w->cdata->dims[d] != 1 && !(at == 1 && w->cdata->dims[d] == count)) return false;
  }
  return true;
}

/* x op w, with x = input `k` and w the other one. */
static bool binary_channels(PassCtx *c, const Node *n, int k, Channels *ch) {
  const Value *x = n->in[k], *w = n->in[1 - k];
  const int64_t count = channels(x);
  if (!count || !value_same_type(x, n->out[0]) || !per_channel(x, w, count)) return false;
  *ch = channels_new(c, count);
  const bool add = node_is(n, "Add"), sub = node_is(n, "Sub"), div = node_is(n, "Div");
  if ((sub || div) && k != 0) return false;
  for (int64_t i = 0; i < count; i++) {
    const double v = const_float(w->cdata, w->cdata->count == 1 ? 0 : i);
    if (add || sub)
      ch->shift[i] = add ? v : -v;
    else
      ch->scale[i] = div ? 1 / v : v;
    if (!isfinite(ch->scale[i])) return false;
  }
  ch->scales = !add && !sub;
  ch->shifts = !ch->scales;
  return true;
}

/* ---- changing the producer ---- */

typedef struct Layer { /* Conv, ConvTranspose, Gemm, MatMul with constant weights */
  Node *n;
  const ConstData *w;
  int64_t outer, axis,
      inner;     /* weights as [outer][axis][inner]; axis index plus group gives the channel */
  int64_t group; /* ConvTranspose: outer is split into groups, each with `axis` channels */
  double alpha, beta;
} Layer;

static bool layer_bias_ok(const Layer *l, int64_t count) {
  const Value *b = node_in(l->n, 2);
  if (!b) return true;
  if (!b->cdata || !dtype_is_float(b->dtype) || (b->cdata->count != 1 && b->cdata->count != count))
    return false;
  return b->rank == 0 || b->cdata->count == 1 || b->cdata->dims[b->rank - 1] == count;
}

static bool layer_of(Node *n, int64_t count, Layer *l) {
  const bool conv = node_is(n, "Conv"), convt = node_is(n, "ConvTranspose"),
             gemm = node_is(n, "Gemm"), mm = node_is(n, "MatMul");
  *l = (Layer){
      .n = n, .w = const_input(n, 1), .outer = 1, .inner = 1, .group = 1, .alpha = 1, .beta = 1};
  if (!(conv || convt || gemm || mm) || !l->w || !dtype_is_float(l->w->dtype) || l->w->rank < 2)
    return false;
  /* of integers, and their sums shall stay such; of small floats, which are rounded once */
  if (node_int(n, "exact", 0) || node_int(n, "wide", 0)) return false;
  if ((gemm || mm) && (l->w->rank != 2 || n->in[0]->rank != 2)) return false;
  int axis = conv ? 0 : 1;
  if (gemm) {
    axis = node_int(n, "transB", 0) ? 0 : 1;
    l->alpha = node_float(n, "alpha", 1);
    l->beta = node_float(n, "beta", 1);
  }
  if (convt) l->group = node_int(n, "group", 1);
  for (int d = 0; d < l->w->rank; d++)
    *(d < axis ? &l->outer : d > axis ? &l->inner : &l->axis) *= d == axis ? 1 : l->w->dims[d];
  l->axis = l->w->dims[axis];
  return l->group > 0 && l->outer % l->group == 0 && l->axis * l->group == count &&
         layer_bias_ok(l, count);
}

static Value *scaled_weights(Model *m, const Layer *l, const Channels *ch) {
  const ConstData *w = l->w;
  const int size = dtype_bytes(w->dtype);
  char *data = arena_alloc(m->arena, (size_t)(w->count * size) + 1);
  const int64_t per_group = l->outer / l->group;
  int64_t at = 0;
  for (int64_t o = 0; o < l->outer; o++)
    for (int64_t a = 0; a < l->axis; a++) {
      const double s = ch->scale[(l->group > 1 ? o / per_group * l->axis : 0) + a] * l->alpha;
      for (int64_t i = 0; i < l->inner; i++, at++)
        dtype_store_f(w->dtype, data + at * size, const_float(w, at) * s);
    }
  return value_const(m, const_new(m, w->name, w->dtype, w->rank, w->dims, data));
}

static Value *scaled_bias(Model *m, const Layer *l, const Channels *ch) {
  const ConstData *b = const_input(l->n, 2);
  const DType t = l->w->dtype;
  const int size = dtype_bytes(t);
  char *data = arena_alloc(m->arena, (size_t)(ch->n * size) + 1);
  for (int64_t i = 0; i < ch->n; i++) {
    const double old = b ? l->beta * const_float(b, b->count == 1 ? 0 : i) : 0;
    dtype_store_f(t, data + i * size, old * ch->scale[i] + ch->shift[i]);
  }
  return value_const(m, const_new(m, b ? b->name : NULL, t, 1, &ch->n, data));
}

/* A new node in place of the old one, with the locations of both. */
static Value *rebuild(PassCtx *c, const Layer *l, const Channels *ch, const Node *n) {
  Model *m = c->model;
  const bool mm = node_is(l->n, "MatMul");
  Value *in[3] = {l->n->in[0], l->n->in[1], scaled_bias(m, l, ch)};
  if (ch->scales || l->alpha != 1) in[1] = scaled_weights(m, l, ch);
  const Loc *loc = loc_joined(m->arena, l->n->loc, n->loc);
  Build b = {.m = m, .g = n->graph, .loc = loc, .ok = true};
  Vec(Attr) attrs = {0};
  for (int i = 0; i < l->n->n_attrs; i++) {
    const char *name = l->n->attrs[i].name;
    if (strcmp(name, "alpha") != 0 && strcmp(name, "beta") != 0)
      vec_push(m->arena, &attrs, l->n->attrs[i]);
  }
  Value *v = build_op(&b, mm ? "Gemm" : l->n->op->name, 3, in, attrs.n, attrs.data);
  return b.ok ? v : NULL;
}

/* The node that computes x, when n alone uses it. `x` is what n read before replacements. */
static Node *sole_producer(const Fold *s, const Value *x, const Node *n) {
  return x->def && x->id < s->uses->n && s->uses->of[x->id].n == 1 &&
                 s->uses->outputs[x->id] == 0 && x->def->graph == n->graph
             ? x->def
             : NULL;
}

static bool supported(const Node *layer, const Channels *ch, const Node *n) {
  /* MatMul gets no bias for an Add alone: its epilogue does that for nothing. */
  if (node_is(layer, "MatMul")) return node_is(n, "BatchNormalization");
  return ch->scales || ch->shifts;
}

static bool fold_into(Fold *s, Node *n, int k, const Channels *ch, bool *keep) {
  Layer l;
  Node *p = sole_producer(s, n->in[k], n);
  if (!p || p->n_syms || !supported(p, ch, n) || !layer_of(p, ch->n, &l)) return true;
  Value *v = rebuild(s->f.c, &l, ch, n);
  if (!v) return false;
  *keep = false;
  /* The new value has exactly the users of the old one. */
  if (!forward_set(&s->f, n, n->out[0], v)) return false;
  return true;
}

/* ---- standing alone ---- */

static Value *channel_const(Model *m, const Value *x, const double *v, int64_t count) {
  int64_t dims[MAX_RANK];
  const int rank = x->rank - 1;
  const int size = dtype_bytes(x->dtype);
  char *data = arena_alloc(m->arena, (size_t)(count * size) + 1);
  for (int d = 0; d < rank; d++) dims[d] = d == 0 ? count : 1;
  for (int64_t i = 0; i < count; i++) dtype_store_f(x->dtype, data + i * size, v[i]);
  return value_const(m, const_new(m, NULL, x->dtype, rank, dims, data));
}

/* Narrow types would be rounded between the two operators. */
static bool split_batch_norm(Fold *s, Node *n, const Channels *ch, bool *keep) {
  Model *m = s->f.c->model;
  if (dtype_compute(n->in[0]->dtype) != n->in[0]->dtype) return true;
  Build b = {.m = m, .g = n->graph, .loc = n->loc, .ok = true};
  Value *mul = build2(&b, "Mul", n->in[0], channel_const(m, n->in[0], ch->scale, ch->n));
  Value *add = b.ok ? build2(&b, "Add", mul, channel_const(m, n->in[0], ch->shift, ch->n)) : NULL;
  if (!b.ok) return false;
  *keep = false;
  return forward_set(&s->f, n, n->out[0], add);
}

/* ---- the pass ---- */

static bool fold_one(Fold *s, Node *n, bool *keep) {
  Channels ch;
  if (node_is(n, "BatchNormalization")) {
    if (!batch_norm_channels(s->f.c, n, &ch)) return true;
    if (!fold_into(s, n, 0, &ch, keep)) return false;
    return !*keep || split_batch_norm(s, n, &ch, keep);
  }
  const bool add_mul = node_is(n, "Add") || node_is(n, "Mul");
  if (!add_mul && !node_is(n, "Sub") && !node_is(n, "Div")) return true;
  for (int k = 0; k < 2 && *keep; k++)
    if (binary_channels(s->f.c, n, k, &ch) && !fold_into(s, n, k, &ch, keep)) return false;
  return true;
}

/* Users were counted before; values made here take over the count of what they replace. */
static void take_uses(Fold *s, const Value *old, const Value *by) {
  Uses *u = s->uses;
  if (by->id >= u->n) {
    const int n = 2 * by->id + 1;
    Arena *a = s->f.c->scratch;
    NodeVec *of = arena_alloc_array(a, (size_t)n, sizeof *of);
    int *outputs = ARENA_ARRAY(a, int, n);
    memcpy(of, u->of, sizeof *of * (size_t)u->n);
    memcpy(outputs, u->outputs, sizeof *outputs * (size_t)u->n);
    *u = (Uses){.of = of, .outputs = outputs, .n = n};
  }
  u->of[by->id] = u->of[old->id];
  u->outputs[by->id] = u->outputs[old->id];
}

static bool walk_one(Forward *f, Node *n, bool *keep) {
  Fold *s = (Fold *)f; /* f is its first member */
  Value *old = n->n_out == 1 ? n->out[0] : NULL;
  if (!fold_one(s, n, keep)) return false;
  if (!*keep && old) take_uses(s, old, forward_get(f, old));
  return true;
}

bool pass_fold_batch_norm(PassCtx *c) {
  Fold s = {.f = forward_new(c), .uses = graph_uses(c->model->main, c->scratch)};
  return forward_walk(&s.f, c->model->main, walk_one);
}
