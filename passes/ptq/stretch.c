/* Channels of very different ranges share the scale of their tensor: those of small range lose most of
 * their bits, of depthwise convolutions above all. Where only layers read a tensor, each channel c is
 * divided by a factor t_c before it is rounded, and the weights that read it are multiplied by it
 * (SmoothQuant, Xiao et al. 2022; cross-layer equalization, Nagel et al. 2019). The factors are those
 * that leave the least noise by the usual model of rounding (steps of width d add d^2/12). */
#include <math.h>
#include "ir/op/op.h"
#include "passes/ptq/ptq.h"

int64_t quant_input_channel(const Node *n, const QuantLayer *l, const ConstData *w, int64_t k) {
  int64_t inner = 1;
  for (int d = 2; d < w->rank; d++) inner *= w->dims[d];
  const int64_t second = w->dims[1], row = k / (inner * second), column = k / inner % second;
  if (l->conv) return row / (w->dims[0] / node_int(n, "group", 1)) * second + column;
  return l->weight_axis == 0 ? column : row;
}

/* Contracted channels: what quant_input_channel counts. */
int64_t quant_input_channels(const Node *n, const QuantLayer *l, const ConstData *w) {
  if (l->conv) return w->dims[1] * node_int(n, "group", 1);
  return w->dims[l->weight_axis == 0 ? 1 : 0];
}

const ConstData *quant_layer_weights(Model *m, const QuantPlan *q, const Node *n,
                                     const QuantLayer *l) {
  const ConstData *w = n->in[1]->cdata;
  const float *t = q->points.data[l->point].stretch;
  if (!t) return w;
  float *out = ARENA_ARRAY(m->arena, float, w->count + 1);
  for (int64_t k = 0; k < w->count; k++)
    out[k] = (float)const_float(w, k) * t[quant_input_channel(n, l, w, k)];
  return const_new(m, w->name, DT_F32, w->rank, w->dims, out);
}

/* ---- which points ---- */
static bool is_layer(const QuantPlan *q, int node, const Value *v, const Node *n) {
  for (int k = 0; k < q->layers.n; k++)
    if (q->layers.data[k].node == node)
      return q->layers.data[k].weight_axis >= 0 && n->in[0] == v &&
             q->layers.data[k].axis == q->points.data[q->layers.data[k].point].axis &&
             (q->layers.data[k].conv || q->layers.data[k].matrix);
  return false;
}

/* Nobody but layers reads the point, and it shares its scale with no other. */
static bool only_layers(const Model *m, const QuantPlan *q, const QuantPoint *p) {
  if (p->between || !p->channels || q->groups.data[p->group].n_points != 1) return false;
  for (int i = 0; i < m->main->nodes.n; i++) {
    const Node *n = m->main->nodes.data[i];
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] && n->in[k]->id == p->value && (k > 0 || !is_layer(q, i, n->in[k], n)))
        return false;
  }
  return true;
}

/* ---- factors ---- */
typedef struct Candidate {
  double of_values, of_weights; /* t = values^a / weights^b */
} Candidate;

typedef struct Stretch {
  Model *m;
  const QuantPlan *q;
  const QuantPoint *p;
  double *values, *weights; /* by channel: largest magnitudes */
  Arena *scratch;
} Stretch;

static void largest(Stretch *s) {
  const QuantPoint *p = s->p;
  double all = 0;
  for (int64_t c = 0; c < p->channels; c++) {
    s->values[c] = fmax(fabs(p->lo[c]), fabs(p->hi[c]));
    all = fmax(all, s->values[c]);
  }
  for (int64_t c = 0; c < p->channels; c++) s->values[c] = fmax(s->values[c], all * 1e-3 + 1e-30);
  for (int i = 0; i < s->q->layers.n; i++) {
    const QuantLayer *l = &s->q->layers.data[i];
    if (&s->q->points.data[l->point] != p) continue;
    const Node *n = quant_layer_node(s->m, l);
    const ConstData *w = n->in[1]->cdata;
    for (int64_t k = 0; k < w->count; k++) {
      double *most = &s->weights[quant_input_channel(n, l, w, k)];
      *most = fmax(*most, fabs(const_float(w, k)));
    }
  }
}

/* With geometric mean 1. */
static void factors(const Stretch *s, Candidate c, double *t) {
  double sum = 0;
  for (int64_t k = 0; k < s->p->channels; k++) {
    t[k] = c.of_values * log(s->values[k]) - c.of_weights * log(fmax(s->weights[k], 1e-30));
    sum += t[k];
  }
  for (int64_t k = 0; k < s->p->channels; k++) t[k] = exp(t[k] - sum / (double)s->p->channels);
}

/* Width of a step of the activation. */
static double step_of(const QuantPoint *p, const double *t) {
  double lo = 0, hi = 0;
  for (int64_t c = 0; c < p->channels; c++) {
    lo = fmin(lo, p->lo[c] / t[c]);
    hi = fmax(hi, p->hi[c] / t[c]);
  }
  return (hi - lo) / 255;
}

/* What rounding adds to the outputs of one layer: of its activation, and of its weights. */
static double layer_noise(const Stretch *s, const QuantLayer *l, const double *t, double step) {
  const Node *n = quant_layer_node(s->m, l);
  const ConstData *w = n->in[1]->cdata;
  double *steps = ARENA_ARRAY(s->scratch, double, l->channels), sum = 0;
  int64_t inner = 1;
  for (int d = l->weight_axis + 1; d < w->rank; d++) inner *= w->dims[d];
  for (int64_t k = 0; k < w->count; k++) {
    const double v = fabs(const_float(w, k)) * t[quant_input_channel(n, l, w, k)] / 127;
    double *most = &steps[k / inner % l->channels];
    *most = fmax(*most, v);
  }
  for (int64_t k = 0; k < w->count; k++) {
    const int64_t c = quant_input_channel(n, l, w, k);
    const double v = const_float(w, k) * step * t[c], d = steps[k / inner % l->channels] / t[c],
                 spread = (s->p->hi[c] - s->p->lo[c]) / 6,
                 power = s->p->mean[c] * s->p->mean[c] + spread * spread;
    sum += v * v + d * d * power;
  }
  return sum / 12;
}

static double noise(const Stretch *s, const double *t) {
  const double step = step_of(s->p, t);
  double sum = 0;
  for (int i = 0; i < s->q->layers.n; i++)
    if (&s->q->points.data[s->q->layers.data[i].point] == s->p)
      sum += layer_noise(s, &s->q->layers.data[i], t, step);
  return sum;
}

/* Extremes of what is rounded now. */
static void apply(QuantPlan *q, QuantPoint *p, const double *t) {
  QuantGroup *g = &q->groups.data[p->group];
  const double before = p->seen_hi - p->seen_lo;
  double lo = INFINITY, hi = -INFINITY;
  p->stretch = ARENA_ARRAY(q->arena, float, p->channels);
  for (int64_t c = 0; c < p->channels; c++) {
    p->stretch[c] = (float)t[c];
    lo = fmin(lo, p->lo[c] / t[c]);
    hi = fmax(hi, p->hi[c] / t[c]);
  }
  const double part = before > 0 ? (hi - lo) / before : 1;
  p->average_lo *= part; /* of the whole: an estimate */
  p->average_hi *= part;
  g->seen_lo = p->seen_lo = lo;
  g->seen_hi = p->seen_hi = hi;
}

static void stretch_point(Model *m, QuantPlan *q, QuantPoint *p) {
  static const Candidate candidates[] = {{0.5, 0}, {1, 0}, {0.25, 0.25}, {0.5, 0.5}, {0.75, 0.25}};
  static const double worth = 3; /* a product per element, for so much less noise */
  Arena *scratch = arena_child(q->arena);
  Stretch s = {m,
               q,
               p,
               ARENA_ARRAY(scratch, double, p->channels),
               ARENA_ARRAY(scratch, double, p->channels),
               scratch};
  double *t = ARENA_ARRAY(scratch, double, p->channels),
         *best = ARENA_ARRAY(scratch, double, p->channels);
  for (int64_t c = 0; c < p->channels; c++) t[c] = 1;
  largest(&s);
  double least = noise(&s, t) / worth;
  bool found = false;
  for (size_t k = 0; k < sizeof candidates / sizeof *candidates; k++) {
    factors(&s, candidates[k], t);
    const double e = noise(&s, t);
    if (!(e < least)) continue;
    least = e;
    found = true;
    for (int64_t c = 0; c < p->channels; c++) best[c] = t[c];
  }
  if (found) apply(q, p, best);
  arena_free(scratch);
}

int quant_stretch(Model *m, QuantPlan *q) {
  int n = 0;
  for (int k = 0; k < q->points.n; k++) {
    QuantPoint *p = &q->points.data[k];
    bool fits = only_layers(m, q, p);
    for (int i = 0; i < q->layers.n && fits; i++) {
      const QuantLayer *l = &q->layers.data[i];
      const Node *node = quant_layer_node(m, l);
      if (l->point == k) fits = quant_input_channels(node, l, node->in[1]->cdata) == p->channels;
    }
    if (fits) stretch_point(m, q, p);
    n += p->stretch != NULL;
  }
  return n;
}

Value *quant_divide_channels(Build *b, const QuantPoint *p, Value *v) {
  if (!p->stretch || !b->ok) return v;
  int64_t dims[MAX_RANK];
  float *by = ARENA_ARRAY(b->m->arena, float, p->channels);
  for (int d = 0; d < v->rank; d++) dims[d] = d == p->axis ? p->channels : 1;
  for (int64_t c = 0; c < p->channels; c++) by[c] = 1 / p->stretch[c];
  Value *factor = value_const(b->m, const_new(b->m, NULL, DT_F32, v->rank, dims, by));
  return build2(b, "Mul", v, factor);
}
