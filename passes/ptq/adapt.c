/* Weights rounded so that errors cancel. A layer's sums change by (W - Q) x; over the samples that has the
 * power tr((W - Q)' H (W - Q)), H = sum of x x'. With H = L'L, L lower, row k of L (W - Q) holds
 * rows 0 to k of the errors, so that row k is rounded last of these, to what cancels best
 * (GPTQ, Frantar et al. 2022, in the form of Babai's nearest plane). */
#include <math.h>
#include <string.h>
#include "passes/ptq/ptq.h"

typedef struct Solve {
  int64_t k, n;    /* contracted elements, output channels */
  bool turned;     /* weights are [n][k] */
  double *weights; /* [k][n] */
  double *l;       /* [k][k] */
  double *errors;  /* [k][n]: weights less rounded ones */
  QuantWeights *q;
} Solve;

static int64_t position(const Solve *s, int64_t k, int64_t n) {
  return s->turned ? n * s->k + k : k * s->n + n;
}

/* ---- H = L'L ---- */
/* Column by column from the last one; `h` becomes L in its lower half. */
static void factorize(double *h, int64_t n) {
  for (int64_t k = n - 1; k >= 0; k--) {
    double *row = h + k * n;
    const double d = sqrt(row[k]);
    for (int64_t j = 0; j < k; j++) row[j] /= d;
    row[k] = d;
    for (int64_t i = 0; i < k; i++) {
      double *to = h + i * n;
      const double f = row[i];
      for (int64_t j = 0; j <= i; j++) to[j] -= f * row[j];
    }
  }
}

/* A hundredth of the mean power on the diagonal: few samples leave H without full rank. */
static void add_diagonal(double *h, int64_t n) {
  double mean = 0;
  for (int64_t k = 0; k < n; k++) mean += h[k * n + k] / (double)n;
  for (int64_t k = 0; k < n; k++) h[k * n + k] += mean > 0 ? 0.01 * mean : 1;
}

/* ---- rounding ---- */
/* What rows before `end` ask of row k: to[n] = sum over j in [from, end) of l[k][j] errors[j][n]. */
static void gather(const Solve *s, int64_t k, int64_t from, int64_t end, double *to) {
  const double *l = s->l + k * s->k;
  for (int64_t j = from; j < end; j++) {
    const double *e = s->errors + j * s->n;
    for (int64_t n = 0; n < s->n; n++) to[n] += l[j] * e[n];
  }
}

static void round_row(Solve *s, int64_t k, const double *wanted) {
  for (int64_t n = 0; n < s->n; n++) {
    const int64_t at = position(s, k, n);
    s->errors[k * s->n + n] =
        s->weights[k * s->n + n] - quant_round_one(s->q, s->turned, s->k, s->n, at, wanted[n]);
  }
}

/* A block of rows: what is known of its errors goes into the scales, where each block has its own. */
static void round_block(Solve *s, int64_t from, int64_t end, double *wanted) {
  for (int64_t k = from; k < end; k++) {
    double *row = wanted + (k - from) * s->n;
    memset(row, 0, sizeof *row * (size_t)s->n);
    gather(s, k, 0, from, row);
    for (int64_t n = 0; n < s->n; n++)
      row[n] = row[n] / s->l[k * s->k + k] + s->weights[k * s->n + n];
  }
  if (s->q->block) quant_fit_block(s->q, s->turned, s->k, s->n, from, end, wanted);
  for (int64_t k = from; k < end; k++) {
    double *row = wanted + (k - from) * s->n;
    const double d = s->l[k * s->k + k];
    for (int64_t j = from; j < k; j++) {
      const double f = s->l[k * s->k + j] / d, *e = s->errors + j * s->n;
      for (int64_t n = 0; n < s->n; n++) row[n] += f * e[n];
    }
    round_row(s, k, row);
  }
}

/* ---- does it pay ---- */
/* tr(E' H E) over some columns of the errors, spread evenly; row: room for them. */
static double power(const Solve *s, const double *h, double *row) {
  enum { COLUMNS = 64 };
  const int64_t step = (s->n + COLUMNS - 1) / COLUMNS, columns = (s->n + step - 1) / step;
  double sum = 0;
  for (int64_t c = 0; c < columns; c++)
    for (int64_t k = 0; k < s->k; k++) row[k * columns + c] = s->errors[k * s->n + c * step];
  for (int64_t i = 0; i < s->k; i++)
    for (int64_t j = 0; j <= i; j++) {
      const double f = h[i * s->k + j] * (i == j ? 1 : 2), *a = row + i * columns,
                   *b = row + j * columns;
      double dot = 0;
      for (int64_t c = 0; c < columns; c++) dot += a[c] * b[c];
      sum += f * dot;
    }
  return sum;
}

static void take_errors(Solve *s, const float *real) {
  for (int64_t k = 0; k < s->k; k++)
    for (int64_t n = 0; n < s->n; n++)
      s->errors[k * s->n + n] = s->weights[k * s->n + n] - (double)real[position(s, k, n)];
}

/* H of the point as it is stretched. */
static double *gram(const QuantPoint *p, const double *from, int64_t n, Arena *a) {
  double *h = ARENA_ARRAY(a, double, n *n);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      h[i * n + j] = p->stretch ? from[i * n + j] / ((double)p->stretch[i] * (double)p->stretch[j])
                                : from[i * n + j];
  return h;
}

/* Nearest weights to begin with, and their errors. */
static Solve start(QuantPlan *q, const QuantLayer *l, const ConstData *w, Arena *a) {
  Solve s = {.k = l->contracted, .n = l->channels, .turned = l->weight_axis == 0};
  s.q = ARENA_NEW(q->arena, QuantWeights);
  *s.q = quant_weights(q, l, w, q->arena);
  s.weights = ARENA_ARRAY(a, double, w->count);
  s.errors = ARENA_ARRAY(a, double, w->count);
  for (int64_t k = 0; k < s.k; k++)
    for (int64_t n = 0; n < s.n; n++) s.weights[k * s.n + n] = const_float(w, position(&s, k, n));
  take_errors(&s, quant_weights_real(s.q, w, a));
  return s;
}

static void solve(Solve *s, Arena *a) {
  enum { ROWS = 32 }; /* what shares scales in 4 bits, too */
  double *wanted = ARENA_ARRAY(a, double, ROWS * s->n);
  add_diagonal(s->l, s->k);
  factorize(s->l, s->k);
  for (int64_t k = 0; k < s->k; k += ROWS)
    round_block(s, k, k + ROWS < s->k ? k + ROWS : s->k, wanted);
}

bool quant_adapt(Model *m, QuantPlan *q, QuantLayer *l) {
  const QuantPoint *p = &q->points.data[l->point];
  if (!l->contracted || !p->gram || l->axis != p->axis || l->contracted != p->channels)
    return false;
  Arena *a = arena_child(q->arena);
  const ConstData *w = quant_layer_weights(m, q, quant_layer_node(m, l), l);
  Solve s = start(q, l, w, a);
  double *some = ARENA_ARRAY(a, double, w->count), *test = gram(p, p->held_out, s.k, a);
  const double nearest = power(&s, test, some);
  s.l = gram(p, p->gram, s.k, a);
  solve(&s, a);
  if (power(&s, test, some) < nearest) l->adapted = s.q;
  arena_free(a);
  return l->adapted != NULL;
}
