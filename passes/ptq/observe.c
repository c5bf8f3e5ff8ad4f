/* Outputs that tell what the tensors of a model look like while it runs: compiled with it. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "ir/op/op.h"
#include "passes/ptq/ptq.h"

static const Loc here = {.node = -1, .node_name = "observer"};

static Value *value_of(const Model *m, const QuantPoint *p) {
  const Graph *g = m->main;
  for (int k = 0; k < g->inputs.n; k++)
    if (g->inputs.data[k]->id == p->value) return g->inputs.data[k];
  for (int i = 0; i < g->nodes.n; i++)
    for (int k = 0; k < g->nodes.data[i]->n_out; k++)
      if (g->nodes.data[i]->out[k] && g->nodes.data[i]->out[k]->id == p->value)
        return g->nodes.data[i]->out[k];
  return NULL;
}

static void add_output(Model *m, Value *v, const char *what, int k) {
  vec_push(m->arena, &m->main->outputs, v);
  vec_push(m->arena, &m->main->output_names, arena_printf(m->arena, "burin.%s.%d", what, k));
}

static Value *reduce(Build *b, const char *op, Value *x, int axis) {
  int64_t axes[MAX_RANK];
  int n = 0;
  for (int d = 0; d < x->rank; d++)
    if (d != axis) axes[n++] = d;
  if (n == 0) return x;
  Value *in[] = {x, build_i64s(b, n, axes)};
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  return build_op(b, op, 2, in, 1, &keep);
}

bool quant_observe_ranges(Model *m, const QuantPlan *q) {
  static const char *const ops[] = {"ReduceMin", "ReduceMax", "ReduceMean"};
  Build b = {.m = m, .g = m->main, .loc = &here, .ok = true};
  for (int k = 0; k < q->points.n; k++) {
    const QuantPoint *p = &q->points.data[k];
    Value *v = value_of(m, p);
    for (int i = 0; i < 3 && b.ok; i++) {
      Value *r = reduce(&b, ops[i], v, p->channels ? p->axis : -1);
      if (b.ok) add_output(m, r, ops[i], k);
    }
  }
  return b.ok;
}

/* counts[clamp(floor((x - lo) * bins / (hi - lo)))] += 1 */
static Value *histogram(Build *b, Value *x, double lo, double hi) {
  static float zeros[QUANT_BINS];
  const int64_t bins[] = {QUANT_BINS}, all[] = {-1};
  const double width = hi > lo ? hi - lo : 1;
  Value *at = build2(b, "Sub", x, build_scalar(b, DT_F32, lo));
  at = b->ok ? build2(b, "Mul", at, build_scalar(b, DT_F32, QUANT_BINS / width)) : NULL;
  Value *clip[] = {at, build_scalar(b, DT_F32, 0), build_scalar(b, DT_F32, QUANT_BINS - 1)};
  at = b->ok ? build_op(b, "Clip", 3, clip, 0, NULL) : NULL;
  at = build_cast(b, at, DT_I64);
  at = b->ok ? build2(b, "Reshape", at, build_i64s(b, 1, all)) : NULL;
  Value *ones = b->ok ? build1(b, "Shape", at) : NULL;
  ones = b->ok ? build2(b, "Expand", build_scalar(b, DT_F32, 1), ones) : NULL;
  Value *data = value_const(b->m, const_new(b->m, NULL, DT_F32, 1, bins, zeros));
  Value *in[] = {data, at, ones};
  const Attr add = attr_string(b->m->arena, "reduction", "add");
  return b->ok ? build_op(b, "ScatterElements", 3, in, 1, &add) : NULL;
}

bool quant_observe_histograms(Model *m, const QuantPlan *q) {
  Build b = {.m = m, .g = m->main, .loc = &here, .ok = true};
  for (int k = 0; k < q->points.n && b.ok; k++) {
    const QuantGroup *g = &q->groups.data[q->points.data[k].group];
    const QuantPoint *p = &q->points.data[k];
    Value *v = quant_divide_channels(&b, p, value_of(m, p));
    Value *h = b.ok ? histogram(&b, v, g->seen_lo, g->seen_hi) : NULL;
    if (b.ok) add_output(m, h, "histogram", k);
  }
  return b.ok;
}

/* ---- products with itself ---- */
/* Whether the products of point k are observed: of vectors of so many elements at most, with so much
 * room left for all of them. */
static bool wants_gram(const QuantPlan *q, int k, int64_t most, int64_t room) {
  const int64_t n = q->points.data[k].channels;
  for (int i = 0; i < q->layers.n; i++) {
    const QuantLayer *l = &q->layers.data[i];
    if (l->point == k && n > 0 && l->contracted == n && l->axis == q->points.data[k].axis)
      return n <= most && n * n <= room;
  }
  return false;
}

int quant_choose_grams(QuantPlan *q) {
  /* with activations in 8 bits, too, weights are the smaller part of the error */
  const int64_t most = q->form == QUANT_INT8 ? 512 : 2048;
  int64_t room = (int64_t)24 << 20; /* elements of all of them */
  int count = 0;
  for (int k = 0; k < q->points.n; k++) {
    QuantPoint *p = &q->points.data[k];
    if (!wants_gram(q, k, most, room)) continue;
    const int64_t n = p->channels;
    p->gram = ARENA_ARRAY(q->arena, double, n *n);
    p->held_out = ARENA_ARRAY(q->arena, double, n *n);
    room -= n * n;
    count++;
  }
  return count;
}

/* As [channels][vectors] */
static Value *by_channel(Build *b, Value *x, int axis, int64_t n) {
  int64_t order[MAX_RANK];
  const int64_t dims[] = {n, -1};
  int at = 0;
  order[at++] = axis;
  for (int d = 0; d < x->rank; d++)
    if (d != axis) order[at++] = d;
  const Attr perm = attr_ints(b->m->arena, "perm", x->rank, order);
  Value *t = build_op(b, "Transpose", 1, &x, 1, &perm);
  return b->ok ? build2(b, "Reshape", t, build_i64s(b, 2, dims)) : NULL;
}

bool quant_observe_grams(Model *m, const QuantPlan *q) {
  Build b = {.m = m, .g = m->main, .loc = &here, .ok = true};
  for (int k = 0; k < q->points.n && b.ok; k++) {
    const QuantPoint *p = &q->points.data[k];
    if (!p->gram) continue;
    Value *x = by_channel(&b, value_of(m, p), p->axis, p->channels);
    Value *t = b.ok ? build1(&b, "Transpose", x) : NULL;
    Value *h = b.ok ? build2(&b, "MatMul", x, t) : NULL;
    if (b.ok) add_output(m, h, "gram", k);
  }
  return b.ok;
}

/* ---- taking in ---- */
static void start_point(QuantPlan *q, QuantPoint *p, int64_t n) {
  p->lo = ARENA_ARRAY(q->arena, double, n);
  p->hi = ARENA_ARRAY(q->arena, double, n);
  p->mean = ARENA_ARRAY(q->arena, double, n);
  for (int64_t c = 0; c < n; c++) p->lo[c] = DBL_MAX, p->hi[c] = -DBL_MAX;
  p->seen_lo = DBL_MAX;
  p->seen_hi = -DBL_MAX;
}

void quant_take_ranges(QuantPlan *q, const float *const *out) {
  for (int k = 0; k < q->points.n; k++) {
    QuantPoint *p = &q->points.data[k];
    const float *lo = out[3 * k], *hi = out[3 * k + 1], *mean = out[3 * k + 2];
    const int64_t n = p->channels ? p->channels : 1;
    double least = DBL_MAX, most = -DBL_MAX;
    if (!p->lo) start_point(q, p, n);
    for (int64_t c = 0; c < n; c++) {
      p->lo[c] = fmin(p->lo[c], lo[c]);
      p->hi[c] = fmax(p->hi[c], hi[c]);
      p->mean[c] += mean[c];
      least = fmin(least, lo[c]);
      most = fmax(most, hi[c]);
    }
    p->seen_lo = fmin(p->seen_lo, least);
    p->seen_hi = fmax(p->seen_hi, most);
    p->average_lo += least;
    p->average_hi += most;
  }
}

void quant_close_ranges(QuantPlan *q, int samples) {
  for (int k = 0; k < q->groups.n; k++) {
    q->groups.data[k].seen_lo = DBL_MAX;
    q->groups.data[k].seen_hi = -DBL_MAX;
  }
  for (int k = 0; k < q->points.n; k++) {
    QuantPoint *p = &q->points.data[k];
    QuantGroup *g = &q->groups.data[p->group];
    for (int64_t c = 0; c < (p->channels ? p->channels : 1); c++) p->mean[c] /= samples;
    p->average_lo /= samples;
    p->average_hi /= samples;
    g->seen_lo = fmin(g->seen_lo, p->seen_lo);
    g->seen_hi = fmax(g->seen_hi, p->seen_hi);
  }
}

void quant_take_histograms(QuantPlan *q, const float *const *out) {
  for (int k = 0; k < q->points.n; k++) {
    QuantPoint *p = &q->points.data[k];
    if (!p->histogram) p->histogram = ARENA_ARRAY(q->arena, double, QUANT_BINS);
    for (int i = 0; i < QUANT_BINS; i++) p->histogram[i] += out[k][i];
  }
}

void quant_take_grams(QuantPlan *q, const float *const *out, bool held_out) {
  int at = 0;
  for (int k = 0; k < q->points.n; k++) {
    QuantPoint *p = &q->points.data[k];
    if (!p->gram) continue;
    double *to = held_out ? p->held_out : p->gram;
    for (int64_t i = 0; i < p->channels * p->channels; i++) to[i] += (double)out[at][i];
    at++;
  }
}
