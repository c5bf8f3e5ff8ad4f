/* Inverse of square matrices: Gauss and Jordan's elimination with partial pivoting (Golub and Van
 * Loan, "Matrix Computations", 3.4), in double precision. */
#include "runtime/ops/ops.h"

typedef struct Inversion {
  int64_t n;
  double *a, *y; /* n × n: what becomes the identity, and what becomes the inverse */
} Inversion;

static double inverse_abs(double v) { return v < 0 ? -v : v; }

static void inverse_swap(double *row, double *other, int64_t n) {
  for (int64_t j = 0; j < n; j++) {
    const double v = row[j];
    row[j] = other[j];
    other[j] = v;
  }
}

/* The row from `k` on with the greatest element in column k. */
static int64_t inverse_pivot(const Inversion *m, int64_t k) {
  int64_t best = k;
  for (int64_t i = k + 1; i < m->n; i++)
    if (inverse_abs(m->a[i * m->n + k]) > inverse_abs(m->a[best * m->n + k])) best = i;
  return best;
}

/* Column k becomes that of the identity. A pivot of 0 gives infinities and NaN. */
static void inverse_step(const Inversion *m, int64_t k) {
  const int64_t n = m->n, best = inverse_pivot(m, k);
  double *a = m->a + k * n, *y = m->y + k * n;
  if (best != k) {
    inverse_swap(a, m->a + best * n, n);
    inverse_swap(y, m->y + best * n, n);
  }
  const double pivot = a[k];
  for (int64_t j = 0; j < n; j++) {
    a[j] /= pivot;
    y[j] /= pivot;
  }
  for (int64_t i = 0; i < n; i++) {
    const double f = m->a[i * n + k];
    if (i == k) continue;
    for (int64_t j = 0; j < n; j++) {
      m->a[i * n + j] -= f * a[j];
      m->y[i * n + j] -= f * y[j];
    }
  }
}

/* in, out: floats [batch …, n, n]. words: none. scratch: 2 × n × n doubles. */
int32_t rt_inverse(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                   void *scratch) {
  const int64_t n = in->dims[in->rank - 1], batch = rt_product(in->dims, 0, in->rank - 2);
  const Inversion m = {.n = n, .a = (double *)scratch, .y = (double *)scratch + n * n};
  for (int64_t b = 0; b < batch; b++) {
    for (int64_t i = 0; i < n * n; i++) {
      m.a[i] = rt_load_f(in, b * n * n + i);
      m.y[i] = i / n == i % n;
    }
    for (int64_t k = 0; k < n; k++) inverse_step(&m, k);
    for (int64_t i = 0; i < n * n; i++) rt_store_f(out, b * n * n + i, m.y[i]);
  }
  return BURIN_OK;
}
