/* The quantized graph: QuantizeLinear and DequantizeLinear around what is stored in 8 bits, weights
 * and biases as integers behind DequantizeLinear. */
#include <math.h>
#include "passes/ptq/rewriter.h"

typedef struct Stored { /* weights that are integers already */
  const ConstData *from;
  int axis;
  QuantWeights q;
  Value *data, *scale, *zero;
} Stored;

typedef struct Inserter {
  Vec(Stored) stored;
  Vec(Value *) numbers; /* scales and zero points of tensors */
} Inserter;

/* One constant for all that are equal; without a name, so that small models' files stay small. */
static Value *number(Rewriter *r, DType t, double v) {
  Inserter *s = r->user;
  for (int k = 0; k < s->numbers.n; k++) {
    Value *old = s->numbers.data[k];
    if (old->dtype == t && const_float(old->cdata, 0) == v) return old;
  }
  Value *c = value_const_scalar(r->m, t, v);
  vec_push(r->m->arena, &s->numbers, c);
  return c;
}

static Value *quantize(Rewriter *r, Value *v, int group) {
  const QuantGroup *g = &r->q->groups.data[group];
  Value *in[] = {v, number(r, DT_F32, (double)g->scale), number(r, DT_U8, g->zero)};
  in[0] = build_op(&r->b, "QuantizeLinear", 3, in, 0, NULL);
  return r->b.ok ? build_op(&r->b, "DequantizeLinear", 3, in, 0, NULL) : v;
}

/* Of weights that are stored already: a constant may have several readers. */
static const Stored *find_stored(const Inserter *s, const ConstData *w, int axis) {
  for (int k = 0; k < s->stored.n; k++)
    if (s->stored.data[k].from == w && s->stored.data[k].axis == axis) return &s->stored.data[k];
  return NULL;
}

static const Stored *store_weights(Rewriter *r, const QuantLayer *l, const ConstData *w) {
  Inserter *s = r->user;
  Model *m = r->m;
  const Stored *old = find_stored(s, w, l->weight_axis);
  if (old) return old;
  Stored t = {.from = w, .axis = l->weight_axis, .q = quant_weights(r->q, l, w, m->arena)};
  const QuantWeights *q = &t.q;
  t.data = value_const(m, const_new(m, w->name, q->dtype, w->rank, w->dims, q->data));
  t.scale = value_const(m, const_new(m, NULL, DT_F32, q->scale_rank, q->scale_dims, q->scales));
  if (q->zeros)
    t.zero = value_const(m, const_new(m, NULL, q->dtype, q->scale_rank, q->scale_dims, q->zeros));
  vec_push(m->arena, &s->stored, t);
  return &s->stored.data[s->stored.n - 1];
}

static Value *real_weights(Rewriter *r, const Stored *s) {
  Value *in[] = {s->data, s->scale, s->zero};
  const Attr attrs[] = {attr_int(r->m->arena, "axis", s->q.axis < 0 ? 0 : s->q.axis),
                        attr_int(r->m->arena, "block_size", s->q.block)};
  return build_op(&r->b, "DequantizeLinear", s->zero ? 3 : 2, in,
                  s->q.axis < 0 ? 0
                  : s->q.block  ? 2
                                : 1,
                  attrs);
}

/* In units of the sum, where that can hold it; else as it is. */
static Value *store_bias(Rewriter *r, const Node *n, const QuantLayer *l, const float *scales) {
  static const double most = 1 << 30;
  Model *m = r->m;
  const float x_scale = r->q->groups.data[r->q->points.data[l->point].group].scale;
  float *real = layer_bias(m, n, l);
  if (!real) return node_in(n, 2);
  int32_t *q = ARENA_ARRAY(m->arena, int32_t, l->channels + 1);
  float *products = ARENA_ARRAY(m->arena, float, l->channels + 1);
  bool fits = l->weight_axis >= 0;
  for (int64_t c = 0; c < l->channels && fits; c++) {
    products[c] = x_scale * scales[c];
    const double v = rint((double)real[c] / (double)products[c]);
    fits = fabs(v) < most;
    q[c] = fits ? (int32_t)v : 0;
  }
  const char *name = node_in(n, 2) ? n->in[2]->name : NULL;
  if (fits) {
    Value *in[] = {value_const(m, const_new(m, name, DT_I32, 1, &l->channels, q)),
                   value_const(m, const_new(m, NULL, DT_F32, 1, &l->channels, products))};
    const Attr axis = attr_int(m->arena, "axis", 0);
    return build_op(&r->b, "DequantizeLinear", 2, in, 1, &axis);
  }
  return value_const(m, const_new(m, name, DT_F32, 1, &l->channels, real));
}

/* made computes what old did, for everyone who reads it. */
static bool take_over(Rewriter *r, Node *made, Value *old) {
  node_add_output(made, NULL);
  if (!r->b.ok || !op_infer(r->m, made)) return false;
  made->out[0] = old;
  old->def = made;
  return true;
}

/* terms[0] + a constant, in place of n. */
static bool add_behind(Rewriter *r, const Node *n, Value *sum, Value *bias) {
  Value *terms[] = {sum, bias};
  if (!r->b.ok) return false;
  return take_over(r, graph_add_node(r->m->main, NULL, op_find("", "Add"), 2, terms, n->loc),
                   n->out[0]);
}

static Value *float_vector(Model *m, int64_t n, const float *data) {
  return value_const(m, const_new(m, NULL, DT_F32, 1, &n, data));
}

/* The node itself with other operands. */
static bool replace_operands(Rewriter *r, const Node *n, Value *x, Value *w, Value *bias) {
  Value *in[] = {x, w, bias};
  if (!r->b.ok) return false;
  Node *made = graph_add_node(r->m->main, NULL, n->op, bias ? 3 : 2, in, n->loc);
  for (int k = 0; k < n->n_attrs; k++) node_set_attr(made, n->attrs[k]);
  return take_over(r, made, n->out[0]);
}

static bool insert_int8(Rewriter *r, Node *n, const QuantLayer *l, Value *x8) {
  Model *m = r->m;
  const bool matmul = n->op->max_in == 2;
  const Stored *s = store_weights(r, l, quant_layer_weights(r->m, r->q, n, l));
  r->b.loc = inserted_loc(m->arena, n->loc);
  Value *w = real_weights(r, s);
  const bool biased = !matmul && (node_in(n, 2) || l->bias_shift);
  Value *bias = r->b.ok && biased ? store_bias(r, n, l, s->q.scales) : NULL;
  r->b.loc = n->loc;
  if (!r->b.ok) return false;
  if (matmul && l->bias_shift) { /* a product of matrices has no input for a bias */
    Value *in[] = {x8, w};
    return add_behind(r, n, build_op(&r->b, n->op->name, 2, in, n->n_attrs, n->attrs),
                      float_vector(m, l->channels, layer_bias(m, n, l)));
  }
  return replace_operands(r, n, x8, w, bias);
}

/* The integers of a matrix [n, k] as [k, n]. */
static Value *turned(Model *m, const ConstData *c) {
  const int64_t dims[] = {c->dims[1], c->dims[0]};
  const int8_t *from = c->data;
  int8_t *to = arena_alloc(m->arena, (size_t)c->count + 1);
  for (int64_t i = 0; i < dims[0]; i++)
    for (int64_t k = 0; k < dims[1]; k++) to[i * dims[1] + k] = from[k * dims[0] + i];
  return value_const(m, const_new(m, c->name, c->dtype, 2, dims, to));
}

/* DynamicQuantizeLinear, MatMulInteger, and the scales of both behind it. */
static bool insert_dynamic(Rewriter *r, Node *n, const QuantLayer *l) {
  Model *m = r->m;
  Build *b = &r->b;
  const Stored *s = store_weights(r, l, quant_layer_weights(r->m, r->q, n, l));
  Value *w = l->weight_axis == 0 ? turned(m, s->data->cdata) : s->data, *bias = node_in(n, 2);
  Node *x = build_node(b, "DynamicQuantizeLinear", "", 1, &n->in[0], 3, 0, NULL);
  if (!b->ok) return false;
  Value *in[] = {x->out[0], w, x->out[2]};
  Value *sum = build_op(b, "MatMulInteger", 3, in, 0, NULL);
  sum = build_cast(b, sum, DT_F32);
  Value *scale = b->ok ? build2(b, "Mul", x->out[1], s->scale) : NULL;
  if (!b->ok) return false;
  Value *factors[] = {sum, scale};
  if (bias) return add_behind(r, n, build_op(b, "Mul", 2, factors, 0, NULL), bias);
  return take_over(r, graph_add_node(m->main, NULL, op_find("", "Mul"), 2, factors, n->loc),
                   n->out[0]);
}

/* Both operands as floats of 16 bits, behind Casts. */
static bool insert_sixteen(Rewriter *r, Node *n) {
  r->b.loc = inserted_loc(r->m->arena, n->loc);
  n->in[0] = build_rounded(&r->b, n->in[0], r->q->half);
  const bool ok = r->b.ok && quant_halve_weights(&r->b, n, r->q->half);
  r->b.loc = n->loc;
  return ok;
}

static bool insert_layer(Rewriter *r, Node *n, const QuantLayer *l, Value *const *in8, bool *keep) {
  if (l->half) return insert_sixteen(r, n);
  if (!l->on) return true;
  *keep = false;
  if (l->other >= 0) return replace_operands(r, n, in8[0], in8[1], NULL);
  if (r->q->form == QUANT_INT8) return insert_int8(r, n, l, in8[0]);
  if (r->q->form == QUANT_DYNAMIC) return insert_dynamic(r, n, l);
  return replace_operands(
      r, n, n->in[0], real_weights(r, store_weights(r, l, quant_layer_weights(r->m, r->q, n, l))),
      node_in(n, 2));
}

bool quant_insert(Model *m, const QuantPlan *q) {
  if (q->form == QUANT_HALF) return quant_insert_half(m, q);
  Inserter s = {0};
  Rewriter r = {.m = m, .q = q, .user = &s, .round = quantize, .layer = insert_layer};
  return rewriter_run(&r);
}
