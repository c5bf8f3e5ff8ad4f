/* Probabilities of classes from those of pairs: Wu, Lin and Weng, "Probability Estimates for
 * Multi-class Classification by Pairwise Coupling" (2004), algorithm 2, as libsvm and ONNX Runtime
 * iterate it. */
#include "runtime/ops/ops.h"

enum { MOST_ROUNDS = 100 };

typedef struct Coupling {
  int64_t k;
  const float *pairs; /* of i < j, in order: that it is i */
  float *q, *qp, *p;
} Coupling;

/* Probability of i against j. */
static float pair_of(const Coupling *c, int64_t i, int64_t j) {
  const int64_t a = i < j ? i : j, b = i < j ? j : i;
  const float r = c->pairs[a * c->k - a * (a + 1) / 2 + b - a - 1];
  return i < j ? r : 1 - r;
}

static void couple_begin(const Coupling *c) {
  for (int64_t i = 0; i < c->k; i++) {
    float sum = 0;
    c->p[i] = 1.0f / (float)c->k;
    for (int64_t j = 0; j < c->k; j++) {
      if (j == i) continue;
      const float r = pair_of(c, j, i);
      sum += r * r;
      c->q[i * c->k + j] = -r * pair_of(c, i, j);
    }
    c->q[i * c->k + i] = sum;
  }
}

/* p moves along each axis in turn; false: it hardly moves any more. */
static bool couple_round(const Coupling *c) {
  float total = 0, worst = 0;
  for (int64_t i = 0; i < c->k; i++) {
    c->qp[i] = 0;
    for (int64_t j = 0; j < c->k; j++) c->qp[i] += c->q[i * c->k + j] * c->p[j];
    total += c->p[i] * c->qp[i];
  }
  for (int64_t i = 0; i < c->k; i++) {
    const float gap = c->qp[i] < total ? total - c->qp[i] : c->qp[i] - total;
    worst = gap > worst ? gap : worst;
  }
  if (worst < 0.005f / (float)c->k) return false;
  for (int64_t i = 0; i < c->k; i++) {
    const float own = c->q[i * c->k + i];
    const float step = (-c->qp[i] + total) / own;
    c->p[i] += step;
    total = (total + step * (step * own + 2 * c->qp[i])) / (1 + step) / (1 + step);
    for (int64_t j = 0; j < c->k; j++) {
      c->qp[j] = (c->qp[j] + step * c->q[i * c->k + j]) / (1 + step);
      c->p[j] /= 1 + step;
    }
  }
  return true;
}

/* in: f32[rows, k(k-1)/2] inside (0, 1). out: f32[rows, k]. words: k. scratch: k × (k + 1)
 * floats. */
int32_t rt_coupling(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                    const int64_t *w, void *scratch) {
  Coupling c = {.k = w[0], .q = (float *)scratch};
  c.qp = c.q + c.k * c.k;
  for (int64_t row = 0; row < out->dims[0]; row++) {
    c.pairs = (const float *)in->data + row * (c.k * (c.k - 1) / 2);
    c.p = (float *)out->data + row * c.k;
    couple_begin(&c);
    for (int round = 0; round < MOST_ROUNDS && couple_round(&c); round++) {
    }
  }
  return BURIN_OK;
}
