/* From observed elements to scale and zero point of a group. All methods start from a histogram of
 * QUANT_BINS between the extremes, and give an interval that holds 0. */
#include <math.h>
#include <string.h>
#include "passes/ptq/ptq.h"

const char *const quant_method_names[QUANT_METHODS] = {
    [QUANT_MINMAX] = "minmax",   [QUANT_AVERAGE] = "average", [QUANT_PERCENTILE] = "percentile",
    [QUANT_ENTROPY] = "entropy", [QUANT_MSE] = "mse",
};

typedef struct Histogram {
  double counts[QUANT_BINS];
  double total;
  double lo, width; /* of the first bin; of one */
} Histogram;

typedef struct Range {
  double lo, hi;
} Range;

/* Points of a group count alike, however many elements they have. */
static void group_histogram(const QuantPlan *q, int group, Histogram *h) {
  const QuantGroup *g = &q->groups.data[group];
  *h = (Histogram){.lo = g->seen_lo, .width = (g->seen_hi - g->seen_lo) / QUANT_BINS};
  for (int k = 0; k < q->points.n; k++) {
    const QuantPoint *p = &q->points.data[k];
    double sum = 0;
    if (p->group != group || !p->histogram) continue;
    for (int i = 0; i < QUANT_BINS; i++) sum += p->histogram[i];
    for (int i = 0; i < QUANT_BINS && sum > 0; i++) h->counts[i] += p->histogram[i] / sum;
    h->total += sum > 0;
  }
}

static double middle(const Histogram *h, int i) { return h->lo + (i + 0.5) * h->width; }

static double steps(Range r) { return (fmax(r.hi, 0) - fmin(r.lo, 0)) / 255; }

/* ---- mean squared error ---- */
/* Rounding inside of the interval (uniform: s^2 / 12, but 0 is exact), distance outside of it. */
static double squared_error(const Histogram *h, Range r) {
  const double s = steps(r);
  double sum = 0;
  for (int i = 0; i < QUANT_BINS; i++) {
    const double x = middle(h, i), over = fmax(x - r.hi, r.lo - x);
    const bool zero = fabs(x) < h->width;
    if (h->counts[i] > 0) sum += h->counts[i] * (over > 0 ? over * over : zero ? 0 : s * s / 12);
  }
  return sum;
}

static Range shrink(Range r, double lo, double hi) { return (Range){r.lo * lo, r.hi * hi}; }

/* Both ends are moved in together, then each alone. */
static Range least_error(const Histogram *h, Range all) {
  enum { TRIES = 80 };
  Range best = all;
  double least = squared_error(h, all);
  for (int side = 0; side < 3; side++) {
    const Range from = best;
    for (int k = 1; k < TRIES; k++) {
      const double f = 1 - (double)k / TRIES;
      const Range r = shrink(from, side == 2 ? 1 : f, side == 1 ? 1 : f);
      const double e = squared_error(h, r);
      if (e < least) least = e, best = r;
    }
  }
  return best;
}

/* ---- percentile ---- */
static Range percentile(const Histogram *h, Range all) {
  const double cut = (1 - 0.9999) * h->total;
  const bool one_sided = all.lo >= 0 || all.hi <= 0;
  const double each = one_sided ? cut : cut / 2;
  Range r = all;
  double sum = 0;
  for (int i = 0; i < QUANT_BINS && all.lo < 0; i++) {
    sum += h->counts[i];
    if (sum > each) {
      r.lo = fmin(h->lo + i * h->width, 0);
      break;
    }
  }
  sum = 0;
  for (int i = QUANT_BINS - 1; i >= 0 && all.hi > 0; i--) {
    sum += h->counts[i];
    if (sum > each) {
      r.hi = fmax(h->lo + (i + 1) * h->width, 0);
      break;
    }
  }
  return r;
}

/* ---- entropy ---- */
/* Divergence of bins [from, to) at 256 levels from the same bins with what lies outside of them
 * added to the outermost. */
static double divergence(const Histogram *h, int from, int to) {
  enum { LEVELS = 256 };
  double left = 0, right = 0, q_sum = 0;
  static const double tiny = 1e-12;
  double p[QUANT_BINS], q[QUANT_BINS] = {0};
  for (int i = 0; i < from; i++) left += h->counts[i];
  for (int i = to; i < QUANT_BINS; i++) right += h->counts[i];
  for (int i = from; i < to; i++) p[i] = h->counts[i];
  for (int level = 0; level < LEVELS; level++) {
    const int a = from + (int)((int64_t)(to - from) * level / LEVELS),
              b = from + (int)((int64_t)(to - from) * (level + 1) / LEVELS);
    double in = 0;
    int used = 0;
    for (int i = a; i < b; i++) in += p[i], used += p[i] > 0;
    for (int i = a; i < b; i++)
      if (p[i] > 0) q[i] = in / used;
  }
  for (int i = from; i < to; i++) q_sum += q[i];
  p[from] += left;
  p[to - 1] += right;
  double result = 0;
  for (int i = from; i < to && q_sum > 0; i++)
    if (p[i] > 0) result += p[i] / h->total * log((p[i] / h->total) / fmax(q[i] / q_sum, tiny));
  return result;
}

/* Zero is exact with any scale, so elements that are zero (behind a Relu often most of them) tell
 * nothing about it: their bin gets the mean of its neighbours. */
static void drop_zero(Histogram *h) {
  const int at = (int)fmin(fmax(floor(-h->lo / h->width), 0), QUANT_BINS - 1);
  const int a = at > 0 ? at - 1 : at + 1, b = at + 1 < QUANT_BINS ? at + 1 : at - 1;
  const double mean = (h->counts[a] + h->counts[b]) / 2;
  h->total += mean - h->counts[at];
  h->counts[at] = mean;
}

static Range least_divergence(const Histogram *h, Range all) {
  enum { FEWEST = 256, STEP = 16 };
  Range best = all;
  double least = divergence(h, 0, QUANT_BINS);
  for (int n = FEWEST; n < QUANT_BINS; n += STEP) {
    /* as much of each side as it has of the whole */
    const double f = (double)n / QUANT_BINS, zero = fmax(fmin(-h->lo / h->width, QUANT_BINS), 0);
    const int from = (int)floor(zero * (1 - f)), to = (int)ceil(zero + (QUANT_BINS - zero) * f);
    if (from >= to) continue;
    const double d = divergence(h, from, to);
    if (d < least)
      least = d, best = (Range){fmin(h->lo + from * h->width, 0), fmax(h->lo + to * h->width, 0)};
  }
  return best;
}

/* ---- scale and zero point ---- */
static Range average(const QuantPlan *q, int group) {
  Range r = {0, 0};
  for (int k = 0; k < q->points.n; k++) {
    const QuantPoint *p = &q->points.data[k];
    if (p->group != group) continue;
    r.lo = fmin(r.lo, p->average_lo);
    r.hi = fmax(r.hi, p->average_hi);
  }
  return r;
}

static void set_scale(QuantGroup *g, Range r) {
  r.lo = fmin(r.lo, 0);
  r.hi = fmax(r.hi, 0);
  g->scale = (float)((r.hi - r.lo) / 255);
  if (!(g->scale > 1e-30f)) g->scale = 1;
  g->zero = (int)fmin(fmax(rint(-r.lo / (double)g->scale), 0), 255);
}

static Range group_range(const QuantPlan *q, int group, QuantMethod method, Histogram *h) {
  const QuantGroup *g = &q->groups.data[group];
  const Range all = {fmin(g->seen_lo, 0), fmax(g->seen_hi, 0)};
  if (method == QUANT_MINMAX) return all;
  if (method == QUANT_AVERAGE) return average(q, group);
  group_histogram(q, group, h);
  if (h->total == 0 || !(h->width > 0)) return all;
  if (method == QUANT_ENTROPY) drop_zero(h);
  return method == QUANT_PERCENTILE ? percentile(h, all)
         : method == QUANT_MSE      ? least_error(h, all)
                                    : least_divergence(h, all);
}

void quant_set_ranges(QuantPlan *q, QuantMethod method) {
  Arena *scratch = arena_child(q->arena);
  Histogram *h = ARENA_NEW(scratch, Histogram);
  for (int k = 0; k < q->groups.n; k++) set_scale(&q->groups.data[k], group_range(q, k, method, h));
  arena_free(scratch);
}
