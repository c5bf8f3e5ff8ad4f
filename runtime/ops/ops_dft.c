/* DFT of any length: Stockham's form of the fast transform for lengths made of factors up to 13,
 * Bluestein's for others (a convolution of a power of two). Computed in double precision with
 * twiddles that are right to the last bit or two. */
#include "runtime/ops/ops.h"

enum { MAX_FACTOR = 13, MAX_STAGES = 64 };

typedef struct Complex {
  double re, im;
} Complex;

static Complex c_mul(Complex a, Complex b) {
  return (Complex){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
static Complex c_add(Complex a, Complex b) { return (Complex){a.re + b.re, a.im + b.im}; }
static Complex c_sub(Complex a, Complex b) { return (Complex){a.re - b.re, a.im - b.im}; }

/* ---- roots of one ---- */

/* sin and cos of x in [0, pi/4]: Taylor's series to where its rest is below half a unit. */
static void sin_cos(double x, double *s, double *c) {
  const double z = x * x;
  double a = -1.0 / 1307674368000.0, b = 1.0 / 20922789888000.0;
  a = a * z + 1.0 / 6227020800.0;
  a = a * z - 1.0 / 39916800.0;
  a = a * z + 1.0 / 362880.0;
  a = a * z - 1.0 / 5040.0;
  a = a * z + 1.0 / 120.0;
  a = a * z - 1.0 / 6.0;
  b = b * z - 1.0 / 87178291200.0;
  b = b * z + 1.0 / 479001600.0;
  b = b * z - 1.0 / 3628800.0;
  b = b * z + 1.0 / 40320.0;
  b = b * z - 1.0 / 720.0;
  b = b * z + 1.0 / 24.0;
  *s = x + x * z * a;
  *c = 1 - z / 2 + z * z * b;
}

/* e^(-2 pi i j / n), 0 <= j < n: the octant by integers. */
static Complex root(int64_t j, int64_t n) {
  const int64_t octant = j / n * 8 + (j % n * 8) / n, rest = j * 8 - octant * n;
  const double quarter = 0.78539816339744830962;
  double s, c;
  sin_cos(quarter * (double)(octant & 1 ? n - rest : rest) / (double)n, &s, &c);
  if (((octant + 1) & 2) != 0) {
    const double t = s;
    s = c;
    c = t;
  }
  return (Complex){octant >= 2 && octant < 6 ? -c : c, octant < 4 ? -s : s};
}

/* All n of them, as products of two exact ones. */
static void roots(Complex *w, int64_t n) {
  int64_t fine = 1;
  while (fine * fine < n) fine *= 2;
  for (int64_t j = 0; j < n && j < fine; j++) w[j] = root(j, n);
  for (int64_t at = fine; at < n; at += fine) {
    const Complex coarse = root(at, n);
    for (int64_t j = 0; j < fine && at + j < n; j++) w[at + j] = c_mul(coarse, w[j]);
  }
}

/* ---- one transform ---- */

typedef struct Plan {
  int64_t n;
  int32_t stages, factor[MAX_STAGES];
  Complex *w, *work; /* n roots; n of scratch */
} Plan;

/* Factors of n, fours first; false: one is too large. */
static bool plan_factors(Plan *p, int64_t n) {
  static const int8_t factors[] = {4, 2, 3, 5, 7, 11, 13};
  p->n = n;
  p->stages = 0;
  for (uint32_t k = 0; k < sizeof factors; k++)
    for (; n % factors[k] == 0; n /= factors[k]) p->factor[p->stages++] = factors[k];
  return n == 1;
}

static void butterfly2(Complex *v) {
  const Complex a = v[0], b = v[1];
  v[0] = c_add(a, b);
  v[1] = c_sub(a, b);
}

static void butterfly4(Complex *v) {
  const Complex a = c_add(v[0], v[2]), b = c_sub(v[0], v[2]), c = c_add(v[1], v[3]),
                d = c_sub(v[1], v[3]);
  v[0] = c_add(a, c);
  v[1] = (Complex){b.re + d.im, b.im - d.re};
  v[2] = c_sub(a, c);
  v[3] = (Complex){b.re - d.im, b.im + d.re};
}

/* r points by the sum itself; `step` roots of the whole are one of r. */
static void butterfly(const Plan *p, Complex *v, int32_t r, int64_t step) {
  Complex y[MAX_FACTOR];
  for (int32_t k = 0; k < r; k++) {
    y[k] = v[0];
    for (int32_t j = 1; j < r; j++) y[k] = c_add(y[k], c_mul(v[j], p->w[j * k % r * step]));
  }
  for (int32_t k = 0; k < r; k++) v[k] = y[k];
}

/* One stage: m groups of r points, s transforms side by side. */
static void stage(const Plan *p, const Complex *x, Complex *y, int32_t r, int64_t m, int64_t s) {
  Complex v[MAX_FACTOR];
  for (int64_t g = 0; g < m; g++)
    for (int64_t q = 0; q < s; q++) {
      for (int32_t k = 0; k < r; k++) v[k] = x[q + s * (g + m * k)];
      if (r == 2)
        butterfly2(v);
      else if (r == 4)
        butterfly4(v);
      else
        butterfly(p, v, r, p->n / r);
      y[q + s * r * g] = v[0];
      for (int32_t k = 1; k < r; k++)
        y[q + s * (r * g + k)] = g ? c_mul(v[k], p->w[g * k * s]) : v[k];
    }
}

/* x in place, forward. */
static void transform(const Plan *p, Complex *x) {
  Complex *from = x, *to = p->work;
  int64_t m = p->n, s = 1;
  for (int32_t i = 0; i < p->stages; i++) {
    const int32_t r = p->factor[i];
    m /= r;
    stage(p, from, to, r, m, s);
    Complex *t = from;
    from = to;
    to = t;
    s *= r;
  }
  for (int64_t i = 0; from != x && i < p->n; i++) x[i] = from[i];
}

/* ---- any length ---- */

typedef struct Dft {
  int64_t n;
  bool direct; /* n has small factors only */
  Plan plan;   /* of n, or of a power of two from 2n-1 on */
  Complex *x, *chirp, *kernel;
} Dft;

static Complex conjugate(Complex a) { return (Complex){a.re, -a.im}; }

static void dft_begin(Dft *d, int64_t n, void *scratch) {
  Complex *mem = (Complex *)scratch;
  int64_t size = n;
  d->n = n;
  d->direct = plan_factors(&d->plan, n);
  if (!d->direct) {
    for (size = 1; size < 2 * n - 1;) size *= 2;
    plan_factors(&d->plan, size);
  }
  d->x = mem;
  d->plan.work = mem + size;
  d->plan.w = mem + 2 * size;
  roots(d->plan.w, size);
  if (d->direct) return;
  d->kernel = mem + 3 * size;
  d->chirp = mem + 4 * size;
  for (int64_t i = 0; i < size; i++) d->kernel[i] = (Complex){0, 0};
  for (int64_t k = 0; k < n; k++) {
    d->chirp[k] = root(k * k % (2 * n), 2 * n);
    d->kernel[k] = d->kernel[k ? size - k : 0] = conjugate(d->chirp[k]);
  }
  transform(&d->plan, d->kernel);
}

/* x[0, n) in place, forward. */
static void dft_run(const Dft *d) {
  if (d->direct) {
    transform(&d->plan, d->x);
    return;
  }
  const int64_t size = d->plan.n;
  for (int64_t k = 0; k < d->n; k++) d->x[k] = c_mul(d->x[k], d->chirp[k]);
  for (int64_t k = d->n; k < size; k++) d->x[k] = (Complex){0, 0};
  transform(&d->plan, d->x);
  for (int64_t k = 0; k < size; k++) d->x[k] = conjugate(c_mul(d->x[k], d->kernel[k]));
  transform(&d->plan, d->x);
  const double scale = 1.0 / (double)size;
  for (int64_t k = 0; k < d->n; k++) {
    const Complex v = {d->x[k].re * scale, -d->x[k].im * scale};
    d->x[k] = c_mul(v, d->chirp[k]);
  }
}

/* ---- the operator ---- */

static double load(const RtTensor *t, int64_t i) {
  return t->dtype == RT_F32 ? (double)((const float *)t->data)[i] : rt_load_f(t, i);
}
static void store(RtTensor *t, int64_t i, double v) {
  if (t->dtype == RT_F32)
    ((float *)t->data)[i] = (float)v;
  else
    rt_store_f(t, i, v);
}

typedef struct Line { /* elements base + i * stride, `parts` numbers each */
  int64_t base, stride, parts, count;
} Line;

/* Missing samples are zeros; half: the other half is the mirrored conjugate. */
static void read_line(const Dft *d, const RtTensor *x, const Line *l, bool inverse, bool half) {
  const int64_t points = half ? d->n / 2 + 1 : d->n, given = l->count < points ? l->count : points;
  for (int64_t i = 0; i < d->n; i++) d->x[i] = (Complex){0, 0};
  for (int64_t i = 0; i < given; i++) {
    const int64_t at = l->base + i * l->stride;
    const Complex v = {load(x, at), l->parts == 2 ? load(x, at + 1) : 0};
    d->x[i] = inverse ? conjugate(v) : v;
    if (half && i && 2 * i != d->n) d->x[d->n - i] = conjugate(d->x[i]);
  }
  /* what makes the result complex is not asked for */
  if (half) d->x[0].im = 0;
  if (half && d->n % 2 == 0) d->x[d->n / 2].im = 0;
}

static void write_line(const Dft *d, RtTensor *y, const Line *l, bool inverse) {
  const double scale = inverse ? 1.0 / (double)d->n : 1, turn = inverse ? -scale : scale;
  for (int64_t i = 0; i < l->count; i++) {
    const int64_t at = l->base + i * l->stride;
    store(y, at, d->x[i].re * scale);
    if (l->parts == 2) store(y, at + 1, d->x[i].im * turn);
  }
}

/* The axis that is data, counted from 0; -1: there is no such. */
static int32_t axis_of(const RtTensor *at, int32_t rank) {
  const int64_t axis = rt_load_i(at, 0);
  return (int32_t)(axis < 0 && axis >= -rank ? axis + rank : axis < rank ? axis : -1);
}

/* in: X [.., axis, .., parts], dft_length (may be absent), axis. words: axis (-1: as in[2] says),
 * inverse, onesided. scratch: 3 n complex doubles where n has no factor above 13, else 17 n + 8. */
int32_t rt_dft(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
               void *scratch) {
  const RtTensor *x = &in[0];
  RtTensor *y = &out[0];
  const int32_t last = x->rank - 1, axis = w[0] < 0 ? axis_of(&in[2], x->rank) : (int32_t)w[0];
  const bool inverse = w[1] != 0, half = inverse && w[2];
  if (axis < 0 || axis >= last) return BURIN_E_DATA;
  const int64_t given = x->dims[axis], made = y->dims[axis];
  const int64_t n = n_in > 1 && in[1].data ? rt_load_i(&in[1], 0) : half ? 2 * (given - 1) : given;
  if (!rt_count(y)) return BURIN_OK;
  if (n < 1 || made != (w[2] && !inverse ? n / 2 + 1 : n)) return BURIN_E_DATA;
  const int64_t outer = rt_product(x->dims, 0, axis), inner = rt_product(x->dims, axis + 1, last);
  const int64_t in_parts = x->dims[last], out_parts = y->dims[last];
  Dft d;
  dft_begin(&d, n, scratch);
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++) {
      const Line from = {(o * given * inner + i) * in_parts, inner * in_parts, in_parts, given};
      const Line to = {(o * made * inner + i) * out_parts, inner * out_parts, out_parts, made};
      read_line(&d, x, &from, inverse, half);
      dft_run(&d);
      write_line(&d, y, &to, inverse);
    }
  return BURIN_OK;
}
