/* Weights in 8 and 4 bits. */
#include <math.h>
#include <string.h>
#include "passes/ptq/ptq.h"

enum { BLOCK = 32 }; /* elements of k that share a scale, in 4 bits */

/* Positions in a constant [outer][n][inner], n along an axis; axis -1: all of it is one index. */
typedef struct Split {
  int64_t outer, n, inner;
} Split;

static Split split_at(const ConstData *w, int axis) {
  Split s = {1, axis < 0 ? 1 : w->dims[axis], 1};
  for (int d = 0; d < axis; d++) s.outer *= w->dims[d];
  for (int d = axis < 0 ? 0 : axis + 1; d < w->rank; d++) s.inner *= w->dims[d];
  return s;
}

/* ---- 8 bits: symmetric to ±127, one scale for each index of the axis ---- */
static void store_eight(const ConstData *w, int axis, QuantWeights *q) {
  const Split s = split_at(w, axis);
  int8_t *out = q->data;
  for (int64_t k = 0; k < w->count; k++) {
    const float v = (float)fabs(const_float(w, k));
    float *most = &q->scales[k / s.inner % s.n];
    if (v > *most) *most = v;
  }
  for (int64_t c = 0; c < s.n; c++) {
    const double scale = (double)q->scales[c] / 127;
    /* a channel of zeros, or so small that products with its scale would vanish */
    q->scales[c] = scale > 1e-30 ? (float)scale : 1;
  }
  for (int64_t k = 0; k < w->count; k++) {
    const double v = rint(const_float(w, k) / (double)q->scales[k / s.inner % s.n]);
    out[k] = (int8_t)fmin(fmax(v, -127), 127);
  }
}

/* ---- 4 bits: u4 with a zero point, a scale for each block of the axis ---- */
typedef struct Four {
  float scale;
  int zero;
} Four;

static Four four_of(double lo, double hi) {
  Four f = {(float)((hi - lo) / 15), 0};
  if (!(f.scale > 1e-30f)) f.scale = 1;
  f.zero = (int)fmin(fmax(rint(-lo / (double)f.scale), 0), 15);
  return f;
}

static int in_four(Four f, double v) {
  return (int)fmin(fmax(rint(v / (double)f.scale) + f.zero, 0), 15);
}

static double error_of(Four f, const double *v, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) {
    const double e = (in_four(f, v[i]) - f.zero) * (double)f.scale - v[i];
    sum += e * e;
  }
  return sum;
}

/* The interval that rounds v with the least squared error; it holds 0. */
static Four best_four(const double *v, int n) {
  enum { TRIES = 12 };
  double lo = 0, hi = 0;
  for (int i = 0; i < n; i++) lo = fmin(lo, v[i]), hi = fmax(hi, v[i]);
  Four best = four_of(lo, hi);
  double least = error_of(best, v, n);
  for (int k = 1; k < TRIES; k++) {
    const double part = 1 - 0.03 * k;
    const Four f = four_of(lo * part, hi * part);
    const double e = error_of(f, v, n);
    if (e < least) least = e, best = f;
  }
  return best;
}

static void store_four(const ConstData *w, int axis, QuantWeights *q) {
  const Split s = split_at(w, axis);
  uint8_t *out = q->data, *zeros = q->zeros;
  const int64_t blocks = (s.n + BLOCK - 1) / BLOCK;
  for (int64_t o = 0; o < s.outer; o++)
    for (int64_t b = 0; b < blocks; b++)
      for (int64_t i = 0; i < s.inner; i++) {
        double v[BLOCK];
        const int n = (int)(s.n - b * BLOCK < BLOCK ? s.n - b * BLOCK : BLOCK);
        const int64_t at = (o * s.n + b * BLOCK) * s.inner + i, to = (o * blocks + b) * s.inner + i;
        for (int k = 0; k < n; k++) v[k] = const_float(w, at + k * s.inner);
        const Four f = best_four(v, n);
        q->scales[to] = f.scale;
        zeros[to] = (uint8_t)f.zero;
        for (int k = 0; k < n; k++) out[at + k * s.inner] = (uint8_t)in_four(f, v[k]);
      }
}

/* ---- both ---- */
static void scale_shape(const ConstData *w, QuantWeights *q) {
  q->scale_rank = q->axis < 0 ? 0 : q->block ? w->rank : 1;
  q->n_scales = 1;
  for (int d = 0; d < q->scale_rank; d++) {
    const int64_t size = q->block ? w->dims[d] : w->dims[q->axis];
    q->scale_dims[d] = q->block && d == q->axis ? (size + q->block - 1) / q->block : size;
    q->n_scales *= q->scale_dims[d];
  }
}

QuantWeights quant_weights(const QuantPlan *p, const QuantLayer *l, const ConstData *w, Arena *a) {
  if (l->adapted) return *l->adapted;
  const bool four = p->form == QUANT_INT4;
  QuantWeights q = {.dtype = four ? DT_U4 : DT_I8,
                    .axis = four ? 1 - l->weight_axis : l->weight_axis,
                    .block = four ? BLOCK : 0};
  scale_shape(w, &q);
  q.scales = ARENA_ARRAY(a, float, q.n_scales + 1);
  q.zeros = four ? arena_alloc(a, (size_t)q.n_scales + 1) : NULL;
  q.data = arena_alloc(a, (size_t)w->count + 1);
  if (four)
    store_four(w, q.axis, &q);
  else
    store_eight(w, q.axis, &q);
  return q;
}

float *quant_weights_real(const QuantWeights *q, const ConstData *w, Arena *a) {
  const Split s = split_at(w, q->axis);
  const int64_t block = q->block ? q->block : 1, blocks = (s.n + block - 1) / block;
  float *out = ARENA_ARRAY(a, float, w->count + 1);
  for (int64_t k = 0; k < w->count; k++) {
    const int64_t o = k / (s.inner * s.n), c = k / s.inner % s.n, i = k % s.inner;
    const int64_t at = q->block ? (o * blocks + c / block) * s.inner + i : c;
    out[k] = q->zeros ? (float)(((const uint8_t *)q->data)[k] - q->zeros[at]) * q->scales[at]
                      : (float)((const int8_t *)q->data)[k] * q->scales[at];
  }
  return out;
}

/* ---- one by one ---- */
/* The scale of column n, row k of [k][n]. */
static int64_t scale_at(const QuantWeights *q, bool turned, int64_t rows, int64_t columns,
                        int64_t k, int64_t n) {
  if (!q->block) return n;
  return turned ? n * ((rows + q->block - 1) / q->block) + k / q->block
                : k / q->block * columns + n;
}

double quant_round_one(QuantWeights *q, bool turned, int64_t k, int64_t n, int64_t at,
                       double wanted) {
  const int64_t row = turned ? at % k : at / n, column = turned ? at / k : at % n;
  const int64_t to = scale_at(q, turned, k, n, row, column);
  const double scale = (double)q->scales[to];
  if (q->zeros) {
    const Four f = {q->scales[to], q->zeros[to]};
    const int v = in_four(f, wanted);
    ((uint8_t *)q->data)[at] = (uint8_t)v;
    return (v - f.zero) * scale;
  }
  const double v = fmin(fmax(rint(wanted / scale), -127), 127);
  ((int8_t *)q->data)[at] = (int8_t)v;
  return v * scale;
}

void quant_fit_block(QuantWeights *q, bool turned, int64_t k, int64_t n, int64_t from, int64_t end,
                     const double *wanted) {
  for (int64_t c = 0; c < n; c++) {
    double v[BLOCK];
    for (int64_t i = from; i < end; i++) v[i - from] = wanted[(i - from) * n + c];
    const Four f = best_four(v, (int)(end - from));
    const int64_t to = scale_at(q, turned, k, n, from, c);
    q->scales[to] = f.scale;
    q->zeros[to] = (uint8_t)f.zero;
  }
}
