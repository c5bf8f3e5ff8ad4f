/* Decisions by measurement: the simulation is run with candidates. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "driver/quant/quantizer.h"

typedef struct Inputs { /* of the simulation, behind those of the model */
  bool *layers, *groups;
  float *scales, *zeros, *shifts;
} Inputs;

static Inputs make_inputs(const Quantizer *z, Arena *a) {
  const QuantPlan *q = z->plan;
  Inputs in = {ARENA_ARRAY(a, bool, q->layers.n + 1), ARENA_ARRAY(a, bool, q->groups.n + 1),
               ARENA_ARRAY(a, float, q->groups.n + 1), ARENA_ARRAY(a, float, q->groups.n + 1),
               ARENA_ARRAY(a, float, quant_shift_count(q) + 1)};
  for (int k = 0; k < q->layers.n; k++) in.layers[k] = q->layers.data[k].on;
  for (int k = 0; k < q->groups.n; k++) {
    in.groups[k] = q->groups.data[k].on;
    in.scales[k] = q->groups.data[k].scale;
    in.zeros[k] = (float)q->groups.data[k].zero;
  }
  int64_t at = 0;
  for (int k = 0; k < q->layers.n; k++) {
    const QuantLayer *l = &q->layers.data[k];
    if (l->bias_shift) memcpy(in.shifts + at, l->bias_shift, sizeof(float) * (size_t)l->channels);
    at += l->channels;
  }
  return in;
}

/* The plan as it stands, on `most` samples spread evenly (0: all). */
static bool simulate(Quantizer *z, int most, Score *out) {
  Arena *a = arena_child(z->s->arena);
  const Inputs in = make_inputs(z, a);
  const void *extra[] = {in.layers, in.groups, in.scales, in.zeros, in.shifts};
  const int n = z->data.samples.n, step = most > 0 && n > most ? n / most : 1;
  bool ok = true;
  *out = (Score){0};
  for (int k = 0; k < n && ok; k += step) {
    ok = runner_run(&z->simulation, z->data.samples.data[k], z->data.n_inputs, extra, 5);
    if (ok)
      score_add(out, z->simulation.outputs, z->reference[k], z->n_outputs,
                z->data.labels ? z->data.labels[k] : -1);
  }
  arena_free(a);
  return ok;
}

/* ---- ranges ---- */
enum { METHOD_SAMPLES = 32 };

static bool choose_method(Quantizer *z) {
  int best = QUANT_MINMAX;
  for (int k = 0; k < QUANT_METHODS; k++) {
    Score s;
    z->method_sqnr[k] = NAN;
    if (z->method >= 0 && z->method != k) continue;
    progress_show(z->s, arena_printf(z->s->arena, "calibration: %s", quant_method_names[k]), 0, 0);
    quant_set_ranges(z->plan, (QuantMethod)k);
    if (!simulate(z, METHOD_SAMPLES, &s)) return false;
    z->method_sqnr[k] = s.broken ? -INFINITY : score_sqnr(&s);
    if (z->method >= 0 || !(z->method_sqnr[best] >= z->method_sqnr[k])) best = k;
  }
  z->method = best;
  quant_set_ranges(z->plan, (QuantMethod)best);
  return true;
}

/* ---- biases ---- */
/* What rounding the weights adds to the mean of every output channel is taken out of the bias:
 * E[W8 x - W x] = (W8 - W) E[x] (Nagel et al., Data-Free Quantization, 2019; here E[x] is observed). */
static float *bias_shift(Quantizer *z, const QuantLayer *l) {
  if (l->other >= 0) return NULL;
  Model *m = z->s->model;
  const Node *n = quant_layer_node(m, l);
  const QuantPoint *p = &z->plan->points.data[l->point];
  const ConstData *w = quant_layer_weights(m, z->plan, n, l);
  if (l->weight_axis < 0 || !(l->conv || l->matrix) || p->axis != l->axis ||
      p->channels != quant_input_channels(n, l, w))
    return NULL;
  int64_t inner = 1;
  for (int d = l->weight_axis + 1; d < w->rank; d++) inner *= w->dims[d];
  float *shift = ARENA_ARRAY(z->s->arena, float, l->channels);
  Arena *scratch = arena_child(z->s->arena);
  double *sum = ARENA_ARRAY(scratch, double, l->channels);
  const QuantWeights q = quant_weights(z->plan, l, w, scratch);
  const float *real = quant_weights_real(&q, w, scratch);
  for (int64_t k = 0; k < w->count; k++) {
    const int64_t c = quant_input_channel(n, l, w, k);
    const double mean = p->mean[c] / (p->stretch ? (double)p->stretch[c] : 1);
    sum[k / inner % l->channels] += ((double)real[k] - const_float(w, k)) * mean;
  }
  for (int64_t c = 0; c < l->channels; c++) shift[c] = (float)-sum[c];
  arena_free(scratch);
  return shift;
}

/* Kept where it brings the outputs nearer to the float model's. */
static bool correct_biases(Quantizer *z) {
  Score before, after;
  progress_show(z->s, "correcting biases", 0, 0);
  if (!simulate(z, METHOD_SAMPLES, &before)) return false;
  for (int k = 0; k < z->plan->layers.n; k++)
    z->plan->layers.data[k].bias_shift = bias_shift(z, &z->plan->layers.data[k]);
  if (!simulate(z, METHOD_SAMPLES, &after)) return false;
  z->uncorrected_sqnr = score_sqnr(&before);
  z->corrected_sqnr = score_sqnr(&after);
  z->corrected = z->corrected_sqnr > z->uncorrected_sqnr;
  for (int k = 0; k < z->plan->layers.n && !z->corrected; k++)
    z->plan->layers.data[k].bias_shift = NULL;
  return true;
}

/* ---- layers ---- */
/* But for those that are kept. */
static void switch_all(Quantizer *z, bool on) {
  for (int k = 0; k < z->plan->layers.n; k++) z->plan->layers.data[k].on = on && !z->layers[k].kept;
}

/* Samples for each layer's own damage: as many as half a minute or so allows, counted in
 * multiply-adds, so that the machine's load decides nothing; and no more than it takes for outputs
 * of so many elements, over which the error is a mean. */
static int alone_samples(const Quantizer *z) {
  enum { FEWEST = 2, MOST = 16 };
  static const double most_macs = 1.5e12, most_elements = 1 << 17;
  double macs = 1, elements = 1;
  for (int k = 0; k < z->plan->layers.n; k++) macs += z->plan->layers.data[k].macs;
  for (int k = 0; k < z->n_outputs; k++) elements += (double)z->reference[0][k].count;
  const double n = fmin(most_macs / (macs * (z->plan->layers.n + 1)), most_elements / elements);
  return n < FEWEST ? FEWEST : n > MOST ? MOST : (int)n;
}

static bool measure_alone(Quantizer *z) {
  Score s;
  const int samples = alone_samples(z);
  switch_all(z, false);
  quant_plan_update(z->plan);
  for (int k = 0; k < z->plan->layers.n; k++) {
    QuantLayer *l = &z->plan->layers.data[k];
    if (z->layers[k].kept) continue;
    progress_show(z->s, "layers alone", k + 1, z->plan->layers.n);
    l->on = true;
    quant_plan_update(z->plan);
    if (!simulate(z, samples, &s)) return false;
    l->on = false;
    z->layers[k].alone = s.broken ? -INFINITY : score_sqnr(&s);
  }
  switch_all(z, true);
  quant_plan_update(z->plan);
  return true;
}

typedef struct Rank {
  double alone, macs;
  int layer;
} Rank;

static int worst_first(const void *a, const void *b) {
  const Rank *x = a, *y = b;
  return x->alone < y->alone ? -1 : x->alone > y->alone ? 1 : x->layer - y->layer;
}

/* ---- time ---- */
/* Products of two activations hold no weights: 8 bits are for speed alone, which must be seen. Those of an
 * attention are one kernel in floats, so they are judged together, with what stands between them. */
static const char *against_product(const Quantizer *z, int layer) {
  static const double faster = 0.9, shortest = 20; /* us */
  double real = 0, eight = 0;
  if (!z->real.layers || !z->eight.layers) return "its time in few bits is not known here";
  const QuantLayer *layers = z->plan->layers.data;
  const int first = layers[layer].scores >= 0 ? layers[layer].scores : layer;
  for (int k = 0; k < z->plan->layers.n; k++)
    if (k == first || layers[k].scores == first)
      real += z->real.layers[k], eight += z->eight.layers[k];
  if (real < shortest) return "too short for its time to tell";
  return eight > faster * real ? "no faster than in float" : NULL;
}

static void keep_products(Quantizer *z) {
  for (int k = 0; k < z->plan->layers.n; k++) {
    const char *reason = z->plan->layers.data[k].other >= 0 ? against_product(z, k) : NULL;
    if (!reason) continue;
    z->layers[k].kept = true;
    z->layers[k].reason = reason;
  }
}

/* A layer that is clearly slower in few bits, and long enough to tell. Not where weights are made small
 * for memory's sake. */
static bool slower(const Quantizer *z, int layer) {
  static const double clear = 1.2, shortest = 20; /* us */
  if (!z->real.layers || !z->eight.layers) return false;
  const bool for_speed = z->plan->form == QUANT_INT8 || z->plan->form == QUANT_DYNAMIC ||
                         (z->mixed && !z->plan->weights_only);
  const double real = z->real.layers[layer], eight = z->eight.layers[layer];
  return for_speed && z->plan->layers.data[layer].other < 0 && !z->layers[layer].kept &&
         real >= shortest && eight >= clear * real;
}

bool quantizer_any_slower(const Quantizer *z) {
  for (int k = 0; k < z->plan->layers.n; k++)
    if (slower(z, k)) return true;
  return false;
}

static void keep_slower(Quantizer *z) {
  for (int k = 0; k < z->plan->layers.n; k++) {
    if (!slower(z, k)) continue;
    z->layers[k].kept = true;
    z->layers[k].reason = z->mixed ? "it is slower in 16 bits" : "it is slower in 8 bits";
  }
}

/* Layers that are kept, and the `n` worst of the others, in float: what is lost. */
static bool drop_without(Quantizer *z, const Rank *ranks, int n, double *drop) {
  Score s;
  switch_all(z, true);
  for (int k = 0; k < n; k++) z->plan->layers.data[ranks[k].layer].on = false;
  quant_plan_update(z->plan);
  if (!simulate(z, 0, &s)) return false;
  *drop = score_drop(&s, &z->base, z->metric);
  return true;
}

static int largest_first(const void *a, const void *b) {
  const Rank *x = a, *y = b;
  return x->macs > y->macs ? -1 : x->macs < y->macs ? 1 : x->layer - y->layer;
}

/* Of the `n` layers in float, the largest come back one by one, where the budget still holds. */
static bool bring_back(Quantizer *z, Rank *ranks, int n, double most) {
  enum { TRIES = 8 };
  qsort(ranks, (size_t)n, sizeof *ranks, largest_first);
  for (int k = 0; k < n && k < TRIES; k++) {
    QuantLayer *l = &z->plan->layers.data[ranks[k].layer];
    Score s;
    progress_show(z->s, "layers in float again", k + 1, n < TRIES ? n : TRIES);
    l->on = true;
    quant_plan_update(z->plan);
    if (!simulate(z, 0, &s)) return false;
    l->on = score_drop(&s, &z->base, z->metric) <= most;
  }
  quant_plan_update(z->plan);
  return true;
}

/* The fewest of the worst that must stay in float, by halving: what is lost falls with them, or
 * nearly so. */
static bool hold_budget(Quantizer *z) {
  int n = 0;
  /* the simulation's sums are floats: what is computed in the end may lose a little more */
  const double margin = z->metric == METRIC_TOP1 || z->metric == METRIC_TOP5 ? 1 : 0.95,
               most = z->max_drop * margin;
  Rank *ranks = ARENA_ARRAY(z->s->arena, Rank, z->plan->layers.n + 1);
  for (int k = 0; k < z->plan->layers.n; k++)
    if (!z->layers[k].kept)
      ranks[n++] = (Rank){z->layers[k].alone, z->plan->layers.data[k].macs, k};
  qsort(ranks, (size_t)n, sizeof *ranks, worst_first);
  int lo = 0, hi = n;
  double drop;
  progress_show(z->s, "budget", 0, 0);
  if (!drop_without(z, ranks, 0, &drop)) return false;
  if (drop <= most) hi = 0;
  while (lo < hi) {
    const int middle = (lo + hi) / 2;
    progress_show(z->s, "budget", middle, n);
    if (!drop_without(z, ranks, middle, &drop)) return false;
    if (drop <= most)
      hi = middle;
    else
      lo = middle + 1;
  }
  if (!drop_without(z, ranks, hi, &drop) || !bring_back(z, ranks, hi, most)) return false;
  for (int k = 0; k < hi; k++)
    if (!z->plan->layers.data[ranks[k].layer].on)
      z->layers[ranks[k].layer].reason = "its error would break the budget";
  return true;
}

/* By layers with weights: products of activations may stay floats for their time. */
static bool choose_ranges(Quantizer *z) {
  for (int k = 0; k < z->plan->layers.n; k++)
    z->plan->layers.data[k].on = z->plan->layers.data[k].other < 0;
  quant_plan_update(z->plan);
  return choose_method(z) && correct_biases(z);
}

bool quantizer_choose(Quantizer *z) {
  for (int k = 0; k < z->plan->layers.n; k++)
    if (!z->layers[k].kept) z->layers[k].reason = "within the budget";
  return (z->plan->form != QUANT_INT8 || choose_ranges(z)) && measure_alone(z);
}

bool quantizer_decide(Quantizer *z) {
  keep_slower(z);
  if (!z->plain) keep_products(z);
  return hold_budget(z);
}
