/* The quantized graph: QuantizeLinear and DequantizeLinear around what is stored in 8 bits, weights
 * and biases as integers behind DequantizeLinear. */
#include <math.h>
#include "passes/ptq/rewriter.h"

typedef struct
    Stored { /* weights that are quantized already: a constant may have several readers */
  const ConstData *from;
  int axis;
  Value *real;
} Stored;

typedef struct Inserter {
  Value **scales, **zeros; /* by group; NULL: not made yet */
  Vec(Stored) stored;
} Inserter;

static Value *scalar_const(Model *m, const char *name, DType t, double v) {
  Value *c = value_const_scalar(m, t, v);
  c->name = name;
  return c;
}

static Value *quantize(Rewriter *r, Value *v, int group) {
  Inserter *s = r->user;
  Model *m = r->m;
  const QuantGroup *g = &r->q->groups.data[group];
  if (!s->scales[group]) {
    const char *stem = v->name ? v->name : arena_printf(m->arena, "v%d", v->id);
    s->scales[group] =
        scalar_const(m, arena_printf(m->arena, "%s_scale", stem), DT_F32, (double)g->scale);
    s->zeros[group] =
        scalar_const(m, arena_printf(m->arena, "%s_zero_point", stem), DT_U8, g->zero);
  }
  Value *in[] = {v, s->scales[group], s->zeros[group]};
  in[0] = build_op(&r->b, "QuantizeLinear", 3, in, 0, NULL);
  return r->b.ok ? build_op(&r->b, "DequantizeLinear", 3, in, 0, NULL) : v;
}

/* data * scales along axis (-1: one scale), as a value */
static Value *dequantize(Rewriter *r, const char *name, DType t, int rank, const int64_t *dims,
                         const void *data, int axis, const float *scales) {
  Model *m = r->m;
  const int64_t n = axis < 0 ? 1 : dims[axis];
  const char *stem = name ? name : "weights";
  Value *in[] = {value_const(m, const_new(m, arena_printf(m->arena, "%s_quantized", stem), t, rank,
                                          dims, data)),
                 value_const(m, const_new(m, arena_printf(m->arena, "%s_scale", stem), DT_F32,
                                          axis >= 0, &n, scales))};
  const Attr attr = attr_int(m->arena, "axis", axis < 0 ? 0 : axis);
  return build_op(&r->b, "DequantizeLinear", 2, in, axis >= 0, &attr);
}

static Value *store_weights(Rewriter *r, const QuantLayer *l, const ConstData *w, float *scales) {
  Inserter *s = r->user;
  int8_t *q = arena_alloc(r->m->arena, (size_t)w->count + 1);
  quant_weights(w, l->weight_axis, scales, q);
  for (int k = 0; k < s->stored.n; k++)
    if (s->stored.data[k].from == w && s->stored.data[k].axis == l->weight_axis)
      return s->stored.data[k].real;
  Value *real = dequantize(r, w->name, DT_I8, w->rank, w->dims, q, l->weight_axis, scales);
  vec_push(r->m->arena, &s->stored, ((Stored){w, l->weight_axis, real}));
  return real;
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
  if (!name) name = arena_printf(m->arena, "%s_bias", n->in[1]->name ? n->in[1]->name : "weights");
  if (fits) return dequantize(r, name, DT_I32, 1, &l->channels, q, 0, products);
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

/* A product of matrices has no input for a bias: it is added behind. */
static bool insert_shifted(Rewriter *r, const Node *n, const QuantLayer *l, Value *x8, Value *w) {
  Model *m = r->m;
  Value *in[] = {x8, w};
  Value *sum = build_op(&r->b, n->op->name, 2, in, n->n_attrs, n->attrs);
  if (!r->b.ok) return false;
  const float *shift = layer_bias(m, n, l);
  Value *terms[] = {sum, value_const(m, const_new(m, NULL, DT_F32, 1, &l->channels, shift))};
  return take_over(r, graph_add_node(m->main, NULL, op_find("", "Add"), 2, terms, n->loc),
                   n->out[0]);
}

static bool insert_layer(Rewriter *r, Node *n, const QuantLayer *l, Value *x8, bool *keep) {
  if (!l->on) return true;
  float *scales = ARENA_ARRAY(r->m->arena, float, l->channels);
  const bool matmul = n->op->max_in == 2;
  Value *w = store_weights(r, l, n->in[1]->cdata, scales);
  if (!r->b.ok) return false;
  *keep = false;
  if (matmul && l->bias_shift) return insert_shifted(r, n, l, x8, w);
  const bool biased = !matmul && (node_in(n, 2) || l->bias_shift);
  Value *in[] = {x8, w, biased ? store_bias(r, n, l, scales) : NULL};
  if (!r->b.ok) return false;
  Node *made = graph_add_node(r->m->main, NULL, n->op, biased ? 3 : 2, in, n->loc);
  for (int k = 0; k < n->n_attrs; k++) node_set_attr(made, n->attrs[k]);
  return take_over(r, made, n->out[0]);
}

bool quant_insert(Model *m, const QuantPlan *q) {
  Inserter s = {.scales = ARENA_ARRAY(m->arena, Value *, q->groups.n + 1),
                .zeros = ARENA_ARRAY(m->arena, Value *, q->groups.n + 1)};
  Rewriter r = {.m = m, .q = q, .user = &s, .round = quantize, .layer = insert_layer};
  return rewriter_run(&r);
}
