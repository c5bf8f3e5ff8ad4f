/* Loop nests: tiles, symbolic extents, guards, strides, locals and conditions. */
#include "tests/unit/codegen_fixture.h"

static void test_matmul_tile(void **state) {
  Fix *f = *state;
  static const int columns[] = {16, 40, 48, 5, 64};
  for (int c = 0; c < 5; c++) {
    const int n = columns[c], wide = (n + 15) / 16 * 16;
    const char *body =
        arena_printf(f->a,
                     "for i in 0..2 parallel {\n local t0\n for m in 0..3 unroll { for j in 0..%d "
                     "vector { t0[m*%d + j] = 0 } }\n"
                     "for k in 0..9 { for m in 0..3 unroll { for j in 0..%d vector {\n"
                     "  t0[m*%d + j] sum= b0[(i*3 + m)*9 + k] * b1[k*%d + j] } } }\n"
                     "for m in 0..3 unroll { for j in 0..%d vector { b2[(i*3 + m)*%d + j] = "
                     "max(t0[m*%d + j], 0) } } }\n",
                     n, wide, n, wide, n, n, n, wide);
    const char *const nb = arena_printf(f->a, "%d", 9 * n), *const nc =
                                                                arena_printf(f->a, "%d", 6 * n);
    check_all(f,
              nest(f, "f32", "54", nb, nc,
                   arena_printf(f->a, "local t0 : f32[%d] regs\n", 3 * wide), body),
              0);
  }
}

/* Rows that are no whole number of vectors: row 0 is infinite, the others must not be. The elements
 * between `columns` and `stride` keep what they were set to, and `read` of a row are stored. */
static void test_narrow_rows(void **state) {
  Fix *f = *state;
  static const struct {
    int columns;
    int stride;
    int read;
  } rows[] = {{5, 5, 5},  {8, 8, 8},    {20, 20, 20}, {24, 24, 24}, {13, 16, 13}, {13, 16, 16},
              {5, 16, 9}, {28, 32, 28}, {28, 32, 31}, {3, 16, 3},   {17, 21, 18}, {20, 32, 24}};
  for (size_t c = 0; c < sizeof rows / sizeof *rows; c++) {
    const int n = rows[c].columns, w = rows[c].stride, r = rows[c].read;
    const char *body =
        arena_printf(f->a,
                     "for i in 0..2 {\n local t0\n for m in 0..3 unroll { for j in 0..%d vector { "
                     "t0[m*%d + j] = cast<f32>(j) } }\n"
                     "for k in 0..9 { for m in 0..3 unroll { for j in 0..%d vector {\n"
                     "  t0[m*%d + j] sum= b0[(i*3 + m)*9 + k] / cast<f32>(m) * b1[k*%d + j] } } }\n"
                     "for m in 0..3 unroll { for j in 0..%d vector { b2[(i*3 + m)*%d + j] = "
                     "t0[m*%d + j] } } }\n",
                     w, w, n, w, n, r, r, w);
    const char *const nb = arena_printf(f->a, "%d", 9 * n);
    const char *const nc = arena_printf(f->a, "%d", 6 * r);
    const char *const local = arena_printf(f->a, "local t0 : f32[%d] regs\n", 3 * w);
    check_all(f, nest(f, "f32", "54", nb, nc, local, body), 0);
  }
}

static void test_symbolic_extent(void **state) {
  Fix *f = *state;
  static const int64_t sizes[] = {0, 1, 3, 5, 16, 17, 31, 33, 64, 65, 100, 131, 200};
  const char *const sum = nest(f, "f32", "$n*3", "3", "3", "local t0 : f32[1] regs\n",
                               "for i in 0..3 {\n local t0\n t0[0] = b1[i]\n for j in 0..$n vector "
                               "{ t0[0] sum= b0[i*$n + j] }\n"
                               "b2[i] = t0[0] }\n");
  const char *const softmax = nest(
      f, "f32", "$n*3", "3", "$n*3", "local t0 : f32[1] regs\n local t1 : f32[1] regs\n",
      "for i in 0..3 {\n local t0\n t0[0] = -1e30\n for j in 0..$n vector { t0[0] max= min(b0[i*$n "
      "+ j], 50) }\n"
      "local t1\n t1[0] = 0\n for k in 0..$n vector { t1[0] sum= exp(min(b0[i*$n + k], 50) - "
      "t0[0]) }\n"
      "for l in 0..$n vector { b2[i*$n + l] = exp(min(b0[i*$n + l], 50) - t0[0]) / t1[0] } }\n");
  const char *const bytes =
      nest(f, "u8", "$n*3", "3", "$n*3", "",
           "for i in 0..3 { for j in 0..$n vector { b2[i*$n + j] = max(b0[i*$n + j], b1[i]) } }\n");
  const char *const ints =
      nest(f, "i64", "$n", "1", "1", "local t0 : i64[1] regs\n",
           "local t0\n t0[0] = 1\n for j in 0..$n vector { t0[0] sum= b0[j]*j }\n b2[0] = t0[0]\n");
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    check_all(f, sum, sizes[i]);
    check_all(f, softmax, sizes[i]);
    check_on(f, NULL, bytes, 1, &sizes[i], 0);
    check_on(f, NULL, ints, 1, &sizes[i], 0);
  }
}

static void test_guards(void **state) {
  Fix *f = *state;
  /* 3x3 depthwise, NHWC, padding 1: guards are the same for all lanes */
  check_all(
      f,
      nest(f, "f32", "6*5*21", "9*21", "6*5*21", "local t0 : f32[32] regs\n",
           "for y in 0..6 { for x in 0..5 {\n local t0\n for c in 0..21 vector { t0[c] = 0 }\n"
           "for u in 0..3 unroll { for v in 0..3 unroll { for c in 0..21 vector {\n"
           "  t0[c] sum= b0[((y + u - 1)*5 + x + v - 1)*21 + c if (0 <= y + u - 1) & (y + u - 1 < "
           "6) & (0 <= x + v - 1) & (x + v - 1 < 5)] * b1[(u*3 + v)*21 + c]\n"
           "} } }\n for c in 0..21 vector { b2[(y*5 + x)*21 + c] = t0[c] } } }\n"),
      0);
  /* input channels innermost: the zero block is walked */
  check_all(f,
            nest(f, "f32", "6*5*21", "9*21*8", "6*5*8", "local t0 : f32[16] regs\n",
                 "for y in 0..6 { for x in 0..5 {\n local t0\n for o in 0..8 vector { t0[o] = 0 }\n"
                 "for u in 0..3 { for v in 0..3 { for c in 0..21 { for o in 0..8 vector {\n"
                 "  t0[o] sum= b0[((y + u - 1)*5 + x + v - 1)*21 + c if (0 <= y + u - 1) & (y + u "
                 "- 1 < 6) & (0 <= x + v - 1) & (x + v - 1 < 5)] * b1[((u*3 + v)*21 + c)*8 + o]\n"
                 "} } } }\n for o in 0..8 vector { b2[(y*5 + x)*8 + o] = t0[o] } } }\n"),
            0);
  /* guards that differ between lanes, and data-dependent ones */
  check_all(f,
            nest(f, "f32", "40", "40", "46", "",
                 "for j in 0..46 vector { b2[j] = b0[j - 3 if (3 <= j) & (j < 43)] }\n"),
            0);
  check_all(f,
            nest(f, "u8", "40", "40", "46", "",
                 "for j in 0..46 vector { b2[j] = b0[j - 3 if (3 <= j) & (j < 43)] }\n"),
            0);
  check_all(f,
            nest(f, "f32", "40", "40", "40", "",
                 "for j in 0..40 vector { b2[j] = b0[39 - j if b1[j] < 1] }\n"),
            0);
}

/* Guards of a part that is the same for all lanes and one that turns off lanes known before, of
 * vectors of one register and of several: bytes beside 64 bits. */
static void test_partial_guards(void **state) {
  Fix *f = *state;
  static const char *const types[] = {"f64", "i64", "f32", "i32", "u8", "f16"};
  static const int widths[] = {3, 5, 6, 9, 12, 18, 33};
  for (int t = 0; t < 6; t++)
    for (int w = 0; w < 7; w++)
      for (int k = 1; k <= widths[w]; k += 1 + widths[w] / 4) {
        const int n = widths[w], all = 4 * n;
        const char *const size = arena_printf(f->a, "%d", all);
        check_all(f,
                  nest(f, types[t], size, size, size, "",
                       arena_printf(f->a,
                                    "for i in 0..4 { for j in 0..%d vector { b2[i*%d + j] = "
                                    "b0[i*%d + j - %d if (1 <= i) & (j < %d)] } }\n",
                                    n, n, n, n, k)),
                  0);
        check_all(
            f,
            nest(f, types[t], size, size, size, "",
                 arena_printf(f->a,
                              "for i in 0..4 { for j in 0..%d vector { if (1 <= i) & (j < %d) "
                              "{ b2[i*%d + j] = b0[i*%d + j - %d] } else { b2[i*%d + j] = 1 "
                              "} } }\n",
                              n, k, n, n, n, n)),
            0);
      }
}

static void test_strides(void **state) {
  Fix *f = *state;
  static const char *const types[] = {"f32", "u8", "i64", "f16"};
  for (int t = 0; t < 4; t++) {
    check_all(f,
              nest(f, types[t], "100", "100", "50", "",
                   "for j in 0..50 vector { b2[j] = b0[2*j] + b1[2*j + 1] }\n"),
              0);
    check_all(f,
              nest(f, types[t], "50", "50", "50", "",
                   "for j in 0..50 vector { b2[j] = b0[49 - j] + b1[j] }\n"),
              0);
    check_all(f,
              nest(f, types[t], "150", "50", "50", "",
                   "for j in 0..50 vector { b2[j] = b0[3*j + 2] + b1[7] }\n"),
              0);
    check_all(f,
              nest(f, types[t], "50", "50", "150", "",
                   "for i in 0..3 unroll { for j in 0..50 vector { b2[3*j + i] = b0[j] + "
                   "b1[floordiv(j, 3)] } }\n"),
              0);
    check_all(f,
              nest(f, types[t], "50", "50", "50", "",
                   "for j in 0..50 vector { b2[floormod(j*7, 50)] = b0[j] }\n"),
              0);
    check_all(f,
              nest(f, types[t], "50", "50", "50", "",
                   "for j in 0..50 vector { b2[j] = b0[min(max(cast<i64>(b1[j]), 0), 49)] }\n"),
              0);
  }
}

static void test_locals(void **state) {
  Fix *f = *state;
  /* declared in the vector loop: one per lane; a serial loop inside */
  check_all(
      f,
      nest(f, "f32", "7*37", "7", "37", "local t0 : f32[2] regs\n",
           "for j in 0..37 vector {\n local t0\n t0[0] = 0\n t0[1] = -1e9\n for k in 0..7 {\n"
           "t0[0] sum= b0[k*37 + j]*b1[k]\n t0[1] max= b0[k*37 + j] }\n b2[j] = t0[0] + t0[1] }\n"),
      0);
  /* an array per lane in memory, and indexed by data */
  check_all(f,
            nest(f, "i32", "8*37", "37", "37", "local t0 : i32[8] stack\n",
                 "for j in 0..37 vector {\n local t0\n for k in 0..8 { t0[k] = b0[k*37 + j] }\n"
                 "b2[j] = t0[floormod(cast<i64>(b1[j]), 8)] }\n"),
            0);
  /* an array on the stack, vectors and scalars */
  check_all(f,
            nest(f, "f32", "50", "50", "50", "local t0 : f32[50] stack\n local t1 : f32[1] stack\n",
                 "local t0\n local t1\n for j in 0..50 vector { t0[j] = b0[j]*2 }\n t1[0] = 0\n"
                 "for k in 0..50 vector { t1[0] sum= t0[k] }\n for l in 0..50 { b2[l] = t0[49 - l] "
                 "+ t1[0] }\n"),
            0);
  /* lanes that meet */
  check_all(f,
            nest(f, "i32", "50", "50", "8", "local t0 : i32[8] stack\n",
                 "local t0\n for i in 0..8 { t0[i] = 0 }\n for j in 0..50 vector { "
                 "t0[floormod(cast<i64>(b0[j]), 8)] sum= b1[j] }\n"
                 "for i in 0..8 vector { b2[i] = t0[i] }\n"),
            0);
  /* several reductions at once, over unrolled elements */
  check_all(f,
            nest(f, "f32", "4*75", "75", "4", "local t0 : f32[4] regs\n",
                 "local t0\n for i in 0..4 unroll { t0[i] = cast<f32>(i) }\n for j in 0..75 vector "
                 "{ for i in 0..4 unroll { t0[i] sum= b0[i*75 + j]*b1[j] } }\n"
                 "for i in 0..4 unroll { b2[i] = t0[i] }\n"),
            0);
  check_all(f,
            nest(f, "i32", "75", "75", "3", "local t0 : i32[3] regs\n",
                 "local t0\n t0[0] = 1\n t0[1] = 7\n t0[2] = -1\n for j in 0..75 vector { t0[0] "
                 "min= b0[j]\n t0[1] or= b1[j]\n t0[2] and= b1[j] }\n"
                 "for i in 0..3 unroll { b2[i] = t0[i] }\n"),
            0);
}

/* Sums and maxima down columns, of which several vectors go down together, with what is left beside them. */
static void test_columns(void **state) {
  Fix *f = *state;
  static const char *const types[] = {"f32", "f64", "i32", "i64", "f16"};
  static const int columns[] = {16, 33, 64, 75, 131};
  for (int t = 0; t < 5; t++)
    for (int c = 0; c < 5; c++) {
      const int n = columns[c], w = n + 5;
      const char *const rows = arena_printf(f->a, "%d", 96 * w);
      const char *const each = arena_printf(f->a, "%d", n);
      const char *const locals =
          arena_printf(f->a, "local t0 : %s[1] regs\n local t1 : %s[1] regs\n", types[t], types[t]);
      check_all(f,
                nest(f, types[t], rows, each, each, locals,
                     arena_printf(f->a,
                                  "for j in 0..%d vector {\n local t0\n t0[0] = 0\n"
                                  "for k in 0..2 {\n local t1\n t1[0] = 0\n"
                                  "for l in 0..48 { t1[0] sum= b0[k*%d + l*%d + j + 3] }\n"
                                  "t0[0] max= t1[0] }\n b2[j] = b1[j] + t0[0] }\n",
                                  n, 48 * w, w)),
                0);
    }
}

static void test_conditions(void **state) {
  Fix *f = *state;
  check_all(f,
            nest(f, "f32", "50", "50", "50", "",
                 "for j in 0..50 vector { if b0[j] < b1[j] { b2[j] = b0[j] } else { b2[j] = b1[0] "
                 "+ 1 } }\n"),
            0);
  check_all(
      f,
      nest(f, "u8", "50", "50", "50", "",
           "for j in 0..50 vector { if b0[j] < b1[j] { b2[j] = b0[j] } else { b2[j] = b1[0] } }\n"),
      0);
  check_all(f,
            nest(f, "f32", "50", "50", "50", "local t0 : f32[1] regs\n",
                 "for j in 0..50 vector {\n local t0\n t0[0] = 5\n if b0[j] < b1[j] { t0[0] = 1\n "
                 "t0[0] sum= b0[j] }\n b2[j] = t0[0] }\n"),
            0);
  check_all(f,
            nest(f, "i32", "50", "50", "1", "local t0 : i32[1] regs\n",
                 "local t0\n t0[0] = 0\n for j in 0..50 vector { if b0[j] < b1[j] { t0[0] sum= "
                 "b0[j] } }\n b2[0] = t0[0]\n"),
            0);
  check_all(f,
            nest(f, "i32", "50", "50", "50", "",
                 "for i in 0..5 { if i < 2 { for j in 0..10 vector { b2[i*10 + j] = b0[i*10 + j] } "
                 "} else { for j in 0..10 { b2[i*10 + j] = b1[0] } } }\n"),
            0);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_matmul_tile, setup, teardown),
      cmocka_unit_test_setup_teardown(test_narrow_rows, setup, teardown),
      cmocka_unit_test_setup_teardown(test_symbolic_extent, setup, teardown),
      cmocka_unit_test_setup_teardown(test_guards, setup, teardown),
      cmocka_unit_test_setup_teardown(test_partial_guards, setup, teardown),
      cmocka_unit_test_setup_teardown(test_strides, setup, teardown),
      cmocka_unit_test_setup_teardown(test_locals, setup, teardown),
      cmocka_unit_test_setup_teardown(test_columns, setup, teardown),
      cmocka_unit_test_setup_teardown(test_conditions, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
