/* Transforms of Winograd forms (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
 * 2015): rows and columns of a tile through Bᵀ and Aᵀ, weights through G.
 *
 * Of integers G is multiplied by the least number that makes it whole: 2 for F(2, 3), 24 for F(4, 3),
 * where the row of the point ∞ is multiplied by 6 only and its product by 4 behind. So the sum comes
 * out times 4 or 576 = 2^6 * 9, modulo 2^32: 9 is a unit there, whose inverse is 954437177, and what
 * is left to divide by is a power of two, a shift, exact since the sum is small enough. */
#include "passes/build/winograd.h"

DType winograd_element(const WinogradForm *f) { return f->integers ? DT_I16 : DT_F32; }
DType winograd_product(const WinogradForm *f) { return f->integers ? DT_I32 : DT_F32; }

/* ---- transforms as expressions ---- */

static const Expr *add(const WinogradForm *f, const Expr *a, const Expr *b) {
  return ex_add(f->p, a, b);
}
static const Expr *sub(const WinogradForm *f, const Expr *a, const Expr *b) {
  return ex_sub(f->p, a, b);
}
static const Expr *mad(const WinogradForm *f, double k, const Expr *a, const Expr *b) {
  return ex_op(f->p, EX_fma, a, ex_const(f->p, (DType)a->dtype, k), b); /* k*a + b */
}

/* F(6, 3): the points 0, ±1, ±2, ±1/2, ∞. */
static void input_line_six(const WinogradForm *f, const Expr *const *x, const Expr **y) {
  const Expr *a = mad(f, -4.25, x[4], add(f, x[2], x[6])),
             *b = mad(f, -4.25, x[3], add(f, x[1], x[5]));
  const Expr *c = mad(f, 0.25, x[2], mad(f, -1.25, x[4], x[6])),
             *d = mad(f, 0.25, x[1], mad(f, -1.25, x[3], x[5]));
  const Expr *e = mad(f, 4, x[2], mad(f, -5, x[4], x[6])),
             *g = mad(f, 4, x[1], mad(f, -5, x[3], x[5]));
  y[0] = mad(f, 5.25, sub(f, x[4], x[2]), sub(f, x[0], x[6]));
  y[1] = add(f, a, b);
  y[2] = sub(f, a, b);
  y[3] = mad(f, 2, d, c);
  y[4] = mad(f, -2, d, c);
  y[5] = mad(f, 0.5, g, e);
  y[6] = mad(f, -0.5, g, e);
  y[7] = mad(f, 5.25, sub(f, x[3], x[5]), sub(f, x[7], x[1]));
}

void winograd_input_line(const WinogradForm *f, const Expr *const *x, const Expr **y) {
  if (f->out == 2) {
    y[0] = sub(f, x[0], x[2]);
    y[1] = add(f, x[1], x[2]);
    y[2] = sub(f, x[2], x[1]);
    y[3] = sub(f, x[1], x[3]);
    return;
  }
  if (f->out == 6) {
    input_line_six(f, x, y);
    return;
  }
  const Expr *a = mad(f, -4, x[2], x[4]), *b = mad(f, -4, x[1], x[3]);
  const Expr *c = sub(f, x[4], x[2]), *d = sub(f, x[3], x[1]);
  y[0] = mad(f, 4, x[0], mad(f, -5, x[2], x[4]));
  y[1] = add(f, a, b);
  y[2] = sub(f, a, b);
  y[3] = mad(f, 2, d, c);
  y[4] = mad(f, -2, d, c);
  y[5] = mad(f, 4, x[1], mad(f, -5, x[3], x[5]));
}

static void output_line_six(const WinogradForm *f, const Expr *const *m, const Expr **y) {
  const Expr *s = add(f, m[1], m[2]), *d = sub(f, m[1], m[2]), *p = add(f, m[3], m[4]),
             *q = sub(f, m[3], m[4]), *u = add(f, m[5], m[6]), *v = sub(f, m[5], m[6]);
  y[0] = add(f, add(f, m[0], s), add(f, p, u));
  y[1] = mad(f, 2, q, mad(f, 0.5, v, d));
  y[2] = mad(f, 4, p, mad(f, 0.25, u, s));
  y[3] = mad(f, 8, q, mad(f, 0.125, v, d));
  y[4] = mad(f, 16, p, mad(f, 0.0625, u, s));
  y[5] = mad(f, 32, q, mad(f, 0.03125, v, add(f, d, m[7])));
}

void winograd_output_line(const WinogradForm *f, const Expr *const *m, const Expr **y) {
  if (f->out == 2) {
    y[0] = add(f, m[0], add(f, m[1], m[2]));
    y[1] = sub(f, sub(f, m[1], m[2]), m[3]);
    return;
  }
  if (f->out == 6) {
    output_line_six(f, m, y);
    return;
  }
  const Expr *s = add(f, m[1], m[2]), *d = sub(f, m[1], m[2]), *p = add(f, m[3], m[4]),
             *q = sub(f, m[3], m[4]);
  y[0] = add(f, add(f, m[0], s), p);
  y[1] = mad(f, 2, q, d);
  y[2] = mad(f, 4, p, s);
  y[3] = f->integers ? mad(f, 4, m[5], mad(f, 8, q, d)) : add(f, mad(f, 8, q, d), m[5]);
}

const Expr *winograd_sum(const WinogradForm *f, const Expr *e) {
  enum { INVERSE_OF_9 = 954437177 };
  if (!f->integers) return e;
  if (f->out == 4) e = ex_mul(f->p, e, ex_int(f->p, DT_I32, INVERSE_OF_9));
  return ex_op(f->p, EX_shr, e, ex_int(f->p, DT_I32, f->out == 4 ? 6 : 2), NULL);
}

/* ---- weights ---- */

/* G of F(2, 3), F(4, 3) and F(6, 3), and those of integers. */
static const double g_two[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double g_four[6][3] = {{0.25, 0, 0},
                                    {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                                    {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                                    {1.0 / 24, 1.0 / 12, 1.0 / 6},
                                    {1.0 / 24, -1.0 / 12, 1.0 / 6},
                                    {0, 0, 1}};
static const double g_six[8][3] = {{1, 0, 0},
                                   {-2.0 / 9, -2.0 / 9, -2.0 / 9},
                                   {-2.0 / 9, 2.0 / 9, -2.0 / 9},
                                   {1.0 / 90, 1.0 / 45, 2.0 / 45},
                                   {1.0 / 90, -1.0 / 45, 2.0 / 45},
                                   {32.0 / 45, 16.0 / 45, 8.0 / 45},
                                   {32.0 / 45, -16.0 / 45, 8.0 / 45},
                                   {0, 0, 1}};
static const double whole_two[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 2}};
static const double whole_four[6][3] = {{6, 0, 0}, {-4, -4, -4}, {-4, 4, -4},
                                        {1, 2, 4}, {1, -2, 4},   {0, 0, 6}};

static const double (*matrix_g(const WinogradForm *f))[3] {
  if (f->integers) return f->out == 2 ? whole_two : whole_four;
  return f->out == 2 ? g_two : f->out == 4 ? g_four : g_six;
}

/* G g Gᵀ in double precision, whose points go to every `step`th element. */
static void transform_weight(const WinogradForm *f, const double *g, DType type, char *to,
                             int64_t step) {
  const int in = f->out + 2;
  const double(*gm)[3] = matrix_g(f);
  double half[WINOGRAD_IN][3];
  for (int i = 0; i < in; i++)
    for (int k = 0; k < 3; k++)
      half[i][k] = gm[i][0] * g[k] + gm[i][1] * g[3 + k] + gm[i][2] * g[6 + k];
  for (int i = 0; i < in; i++)
    for (int j = 0; j < in; j++) {
      const double v = gm[j][0] * half[i][0] + gm[j][1] * half[i][1] + gm[j][2] * half[i][2];
      char *at = to + (i * in + j) * step;
      if (f->integers)
        dtype_store_i(type, at, (int64_t)v);
      else
        dtype_store_f(type, at, (float)v);
    }
}

ConstData *winograd_weights(const WinogradForm *f, const ConstData *w, int64_t c_out, int64_t c_in,
                            int64_t taps, Arena *a) {
  const DType type = winograd_element(f);
  const int64_t bytes = dtype_bytes(type), points = (int64_t)(f->out + 2) * (f->out + 2);
  const int64_t step = taps * c_in * c_out, count = points * step;
  char *u = arena_alloc_array(a, (size_t)count, (size_t)bytes);
  for (int64_t o = 0; o < c_out; o++)
    for (int64_t i = 0; i < c_in * taps; i++) {
      double g[9];
      for (int k = 0; k < 9; k++) {
        const int64_t at = (o * c_in * taps + i) * 9 + k;
        g[k] = f->integers ? (double)const_int(w, at) : (double)(float)const_float(w, at);
      }
      const int64_t to = (i % taps * c_in + i / taps) * c_out + o;
      transform_weight(f, g, type, u + to * bytes, step * bytes);
    }
  ConstData *d = ARENA_NEW(a, ConstData);
  *d = (ConstData){.dtype = type, .count = count, .data = u};
  return d;
}
