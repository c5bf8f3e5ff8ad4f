/* Bounds of the lowered math rows: a sweep over all floats against the double functions of libm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ir/expr/expr.h"

typedef struct Fixture {
  Arena *arena;
  ExprPool *p;
  double in[2]; /* what loads of buffers 0 and 1 give */
} Fixture;

static int setup(void **state) {
  Arena *const a = arena_new(0, NULL, NULL);
  Fixture *const f = ARENA_NEW(a, Fixture);
  f->arena = a;
  f->p = expr_pool_new(a);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  arena_free(((Fixture *)*state)->arena);
  return 0;
}

static Scalar load(void *user, DType t, int buffer, int64_t index) {
  (void)t, (void)index;
  return (Scalar){.f = ((Fixture *)user)->in[buffer]};
}

static const Expr *lowered(Fixture *f, ExprOp op, DType t) {
  const Expr *const x = ex_load(f->p, t, 0, ex_i64(f->p, 0), NULL), *const y = ex_load(
                                                                        f->p, t, 1, ex_i64(f->p, 0),
                                                                        NULL);
  return expr_lower_math(f->p, ex_op(f->p, op, x, op == EX_pow ? y : NULL, NULL));
}

/* What arithmetic makes of an operand: subnormals count as zero of their sign. */
static double operand(double x, bool f64) {
  return fabs(x) < (f64 ? 0x1p-1022 : 0x1p-126) ? copysign(0, x) : x;
}

static double run(Fixture *f, const Expr *e, double x, double y) {
  EvalEnv env = {.user = f, .load = load};
  f->in[0] = x;
  f->in[1] = y;
  return expr_eval(f->p, e, &env).f;
}

/* Distance of got from want in units of the last place of a float of `mant` bits. */
static double ulps(double got, double want, int mant, int emin) {
  if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : INFINITY;
  if (got == want) return signbit(got) == signbit(want) || want != 0 ? 0 : INFINITY;
  const double huge = mant == 24 ? 0x1p128 : INFINITY;
  if (isinf(got)) got = copysign(huge, got);
  if (isinf(want) || fabs(want) > huge) want = copysign(huge, want);
  if (isinf(got) || isinf(want)) return INFINITY;
  if (got == 0 && fabs(want) < ldexp(1, emin - 1)) return 0; /* subnormal results may be zero */
  int e;
  frexp(want, &e);
  if (fabs(want) >= huge) e--;
  if (want == 0 || e < emin) e = emin;
  return fabs(got - want) / ldexp(1, e - mant);
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

typedef struct Row {
  ExprOp op;
  double (*ref)(double);
  double bound, bound64; /* in ulps */
} Row;

static const Row rows[] = {
    {EX_exp, exp, 1, 2},           {EX_log, log, 1, 2},       {EX_sin, sin, 1.5, 2},
    {EX_cos, cos, 1.5, 2},         {EX_tan, tan, 0.6, 3},     {EX_asin, asin, 0.6, 4},
    {EX_acos, acos, 0.6, 4},       {EX_atan, atan, 0.6, 3},   {EX_sinh, sinh, 0.6, 5},
    {EX_cosh, cosh, 0.6, 4},       {EX_tanh, tanh, 2, 5},     {EX_asinh, asinh, 0.6, 5},
    {EX_acosh, acosh, 0.6, 5},     {EX_atanh, atanh, 0.6, 5}, {EX_erf, erf, 1.5, 4},
    {EX_sigmoid, sigmoid, 2.5, 4},
};

static float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

static void test_f32(void **state) {
  Fixture *const f = *state;
  const char *const dense = getenv("MATH_STRIDE"); /* a small one for a long, complete check */
  const uint64_t stride = dense ? strtoull(dense, NULL, 0) : 90001;
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    const Row *const r = &rows[k];
    const Expr *const e = lowered(f, r->op, DT_F32);
    double worst = 0, at = 0;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += stride) {
      const double x = float_of((uint32_t)bits);
      const double want = r->ref(operand(x, false)), got = run(f, e, x, 0);
      double u = ulps(got, want, 24, -125);
      if (r->op == EX_sigmoid && fabs(got - want) <= 0x1p-126) u = 0;
      if (u > worst) worst = u, at = x;
    }
    if (dense) print_message("%d: %.3f ulp at %.9g\n", (int)r->op, worst, at);
    if (worst > r->bound)
      fail_msg("row %d: %g ulp at %.9g: %.9g", (int)r->op, worst, at, run(f, e, at, 0));
  }
}

static void test_edges(void **state) {
  static const double xs[] = {
      0.0,      -0.0,      INFINITY,   -INFINITY, NAN,      1,      -1,     0x1p-149, -0x1p-149,
      0x1p-127, 3e38,      -3e38,      88.72283,  88.72284, -87.4,  -103.9, -104.1,   0.5,
      -0.5,     1.0000001, 0.99999994, 710,       -745.2,   1e-300, 709.8};
  Fixture *const f = *state;
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    const Row *const r = &rows[k];
    const Expr *const e = lowered(f, r->op, DT_F32), *const d = lowered(f, r->op, DT_F64);
    for (size_t i = 0; i < sizeof xs / sizeof *xs; i++) {
      const double x = operand((float)xs[i], false), got = run(f, e, x, 0),
                   got64 = run(f, d, xs[i], 0);
      const bool small = r->op == EX_sigmoid && fabs(got - r->ref(x)) <= 0x1p-126;
      if (!small && ulps(got, r->ref(x), 24, -125) > r->bound)
        fail_msg("row %d of %g: %.9g", (int)r->op, x, got);
      if (ulps(got64, r->ref(xs[i]), 53, -1021) > r->bound64)
        fail_msg("f64 row %d of %.17g: %.17g", (int)r->op, xs[i], got64);
    }
  }
}

static void test_f64(void **state) {
  Fixture *const f = *state;
  const char *const dense = getenv("MATH_STRIDE");
  uint64_t s = 1;
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
    const Row *const r = &rows[k];
    const Expr *const e = lowered(f, r->op, DT_F64);
    double worst = 0, at = 0;
    for (int n = 0; n < 20000; n++) {
      s = s * UINT64_C(6364136223846793005) + 1442695040888963407;
      const double u = (double)(s >> 11) * 0x1p-53, m = n % 4 == 0   ? 1
                                                        : n % 4 == 1 ? 10
                                                        : n % 4 == 2 ? 700
                                                                     : 1e-3;
      const double x = (n % 8 < 4 ? u : -u) * m, want = r->ref(x),
                   err = ulps(run(f, e, x, 0), want, 53, -1021);
      if (err > worst) worst = err, at = x;
    }
    if (dense) print_message("f64 %d: %.3f ulp at %.17g\n", (int)r->op, worst, at);
    if (worst > r->bound64)
      fail_msg("f64 row %d: %g ulp at %.17g: %.17g", (int)r->op, worst, at, run(f, e, at, 0));
  }
}

static void test_pow(void **state) {
  static const double v[] = {0.0,      -0.0,      1,   -1,         2,        -2,    3,     -3,
                             0.5,      -0.5,      1.5, 0.99999994, 1e30,     -1e30, 1e-30, 1e-40,
                             INFINITY, -INFINITY, NAN, 16777216,   16777217, -7,    4,     1.0 / 3};
  Fixture *const f = *state;
  const Expr *const e = lowered(f, EX_pow, DT_F32), *const d = lowered(f, EX_pow, DT_F64);
  enum { N = sizeof v / sizeof *v };
  for (int i = 0; i < N * N; i++) {
    const double x = operand((float)v[i / N], false), y = operand((float)v[i % N], false),
                 got = run(f, e, x, y);
    const bool easy = fabs(y) == 0.5 || (fabs(y) <= 4 && y == rint(y)); /* products and roots */
    if (ulps(got, pow(x, y), 24, -125) > (easy ? 2 : 0.6))
      fail_msg("pow(%g, %g) is %.9g", x, y, got);
    const double got64 = run(f, d, v[i / N], v[i % N]);
    if (ulps(got64, pow(v[i / N], v[i % N]), 53, -1021) > (easy ? 3 : 2))
      fail_msg("f64 pow(%g, %g) is %.17g", v[i / N], v[i % N], got64);
    /* constant exponents take other ways */
    const Expr *const x0 = ex_load(f->p, DT_F32, 0, ex_i64(f->p, 0), NULL);
    const Expr *const c =
        expr_lower_math(f->p, ex_op(f->p, EX_pow, x0, ex_float(f->p, DT_F32, y), NULL));
    const double gotc = run(f, c, x, 0);
    if (ulps(gotc, pow(x, y), 24, -125) > 2) fail_msg("pow(%g, constant %g) is %.9g", x, y, gotc);
  }
  uint64_t s = 3;
  double worst = 0, worst64 = 0;
  for (int n = 0; n < 40000; n++) {
    s = s * UINT64_C(6364136223846793005) + 1442695040888963407;
    const double x = float_of((uint32_t)(s >> 33)),
                 y = (float)(((double)(s >> 20 & 0xffff) / 32768 - 1) * (n % 2 ? 20 : 1.2));
    const double u = ulps(run(f, e, x, y), pow(operand(x, false), y), 24, -125),
                 u64 = ulps(run(f, d, x, y), pow(x, y), 53, -1021);
    worst = u > worst ? u : worst;
    worst64 = u64 > worst64 ? u64 : worst64;
  }
  if (getenv("MATH_STRIDE")) print_message("pow: %.3f, f64 %.3f\n", worst, worst64);
  assert_true(worst < 0.6 && worst64 < 2);
}

/* Of huge arguments nothing but the remainder of many turns counts. Of all f64
 * 6381956970095103 * 2^797 is the nearest to a multiple of pi/2: 4.6871659242546276e-19 off. */
static void test_huge(void **state) {
  Fixture *const f = *state;
  static const ExprOp ops[] = {EX_sin, EX_cos, EX_tan};
  static double (*const refs[])(double) = {sin, cos, tan};
  for (int k = 0; k < 3; k++) {
    const Expr *const d = lowered(f, ops[k], DT_F64), *const e = lowered(f, ops[k], DT_F32);
    const double bound = k == 2 ? 3 : 1.5;
    uint64_t s = 11;
    double worst = 0, worst32 = 0;
    for (int n = 0; n < 20000; n++) {
      s = s * UINT64_C(6364136223846793005) + 1442695040888963407;
      const double m = (double)(int64_t)(s >> 10 | 1) * (s & 512 ? 1 : -1);
      const double x = ldexp(m, (int)(s >> 20 & 1023) - 53 + 30 - 60),
                   x32 = (float)(fabs(x) < 1e38 ? x : m);
      if (isinf(x)) continue;
      worst = fmax(worst, ulps(run(f, d, x, 0), refs[k](x), 53, -1021));
      worst32 = fmax(worst32, ulps(run(f, e, x32, 0), refs[k](x32), 24, -125));
    }
    if (getenv("MATH_STRIDE")) print_message("huge %d: %.3f, f32 %.3f\n", k, worst, worst32);
    if (worst > bound || worst32 > 1.5) fail_msg("row %d: %g ulp, f32 %g", k, worst, worst32);
  }
  const Expr *const c = lowered(f, EX_cos, DT_F64);
  const double got = run(f, c, ldexp(6381956970095103, 797), 0);
  if (ulps(got, -4.6871659242546276e-19, 53, -1021) > 1) fail_msg("the nearest: %.17g", got);
}

/* Small types go through f32; integer powers are exact. */
static void test_other_types(void **state) {
  Fixture *const f = *state;
  const Expr *const h = lowered(f, EX_exp, DT_F16);
  assert_int_equal(h->dtype, DT_F16);
  assert_true(run(f, h, 1, 0) == dtype_round(DT_F16, exp(1), false));
  assert_true(isinf(run(f, h, 12, 0)));
  const Expr *const i = ex_cast(f->p, DT_I32, ex_load(f->p, DT_F32, 0, ex_i64(f->p, 0), NULL));
  const Expr *const cube =
      expr_lower_math(f->p, ex_op(f->p, EX_pow, i, ex_int(f->p, DT_I32, 3), NULL));
  EvalEnv env = {.user = f, .load = load};
  f->in[0] = -7;
  assert_int_equal(expr_eval(f->p, cube, &env).i, -343);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_edges, setup, teardown),
      cmocka_unit_test_setup_teardown(test_f32, setup, teardown),
      cmocka_unit_test_setup_teardown(test_f64, setup, teardown),
      cmocka_unit_test_setup_teardown(test_huge, setup, teardown),
      cmocka_unit_test_setup_teardown(test_pow, setup, teardown),
      cmocka_unit_test_setup_teardown(test_other_types, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
