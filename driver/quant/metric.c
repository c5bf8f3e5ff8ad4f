/* Metrics. */
#include "driver/quant/metric.h"
#include <math.h>
#include <string.h>

static const char *const names[] = {[METRIC_TOP1] = "top1",
                                    [METRIC_TOP5] = "top5",
                                    [METRIC_MSE] = "mse",
                                    [METRIC_COSINE] = "cosine",
                                    [METRIC_SQNR] = "sqnr"};
enum { N_METRICS = sizeof names / sizeof *names };

const char *metric_name(MetricKind k) { return names[k]; }

bool metric_find(const char *name, bool labels, MetricKind *out) {
  *out = labels ? METRIC_TOP1 : METRIC_SQNR;
  for (int k = 0; name && k < N_METRICS; k++)
    if (strcmp(names[k], name) == 0) {
      *out = (MetricKind)k;
      return true;
    }
  return !name ||
         (usage_error("--metric: '%s' is none of top1, top5, mse, cosine, sqnr", name), false);
}

/* Position of element k among all, the largest being 0. */
static int64_t place_of(const Tensor *t, int64_t k) {
  const double v = tensor_element(t, k);
  int64_t place = 0;
  for (int64_t i = 0; i < t->count; i++) {
    const double w = tensor_element(t, i);
    place += w > v || (w == v && i < k);
  }
  return place;
}

int64_t metric_largest(const Tensor *t) {
  int64_t best = 0;
  for (int64_t i = 1; i < t->count; i++)
    if (tensor_element(t, i) > tensor_element(t, best)) best = i;
  return best;
}

static void add_top(Score *s, const Tensor *out, const Tensor *reference, int64_t label) {
  if (!dtype_is_float(out->dtype) || out->count == 0) return;
  const int64_t want = label >= 0 ? label : metric_largest(reference);
  if (want >= out->count) return;
  const int64_t place = place_of(out, want);
  s->right += place == 0;
  s->right5 += place < 5;
}

void score_add(Score *s, const Tensor *out, const Tensor *reference, int n, int64_t label) {
  bool broken = false;
  s->samples++;
  if (n > 0) add_top(s, &out[0], &reference[0], label);
  for (int k = 0; k < n; k++) {
    if (out[k].count != reference[k].count || out[k].dtype == DT_STR) continue;
    for (int64_t i = 0; i < out[k].count; i++) {
      const double x = tensor_element(&reference[k], i), y = tensor_element(&out[k], i);
      if (!isfinite(x)) continue;
      if (!isfinite(y)) {
        broken = true;
        continue;
      }
      s->signal += x * x;
      s->square += y * y;
      s->noise += (x - y) * (x - y);
      s->dot += x * y;
      s->elements++;
    }
  }
  s->broken += broken;
}

double score_sqnr(const Score *s) {
  const double most = 140;
  if (s->noise <= 0 || s->signal <= 0) return s->noise <= 0 ? most : -most;
  return fmin(10 * log10(s->signal / s->noise), most);
}

double score_drop(const Score *s, const Score *base, MetricKind k) {
  const double n = s->samples ? (double)s->samples : 1;
  if (s->broken) return INFINITY;
  switch (k) {
    case METRIC_TOP1: return 100 * (double)(base->right - s->right) / n;
    case METRIC_TOP5: return 100 * (double)(base->right5 - s->right5) / n;
    case METRIC_MSE: return s->elements ? s->noise / (double)s->elements : 0;
    case METRIC_COSINE:
      return s->signal > 0 && s->square > 0 ? 100 * (1 - s->dot / sqrt(s->signal * s->square)) : 0;
    default: return s->signal > 0 ? 100 * s->noise / s->signal : 0;
  }
}
