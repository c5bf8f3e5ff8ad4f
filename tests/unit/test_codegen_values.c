/* Elementwise kernels over element types, operations, casts, and extents with and without tails. */
#include "tests/unit/codegen_fixture.h"

static bool is_number(DType t) {
  return t != DT_NONE && t != DT_STR && dtype_rows[t].cls != DC_COMPLEX;
}

static void test_arithmetic(void **state) {
  static const char *const exprs[] = {"b0[i] + b1[i]",
                                      "b0[i] - b1[i]*b0[i]",
                                      "max(b0[i], b1[i])",
                                      "min(b0[i], b1[i])",
                                      "select(b0[i] < b1[i], b1[i], b0[i])",
                                      "abs(b0[i])"};
  Fix *f = *state;
  for (int t = 1; t < DT_COUNT; t++) {
    if (!is_number((DType)t) || t == DT_BOOL) continue;
    for (int e = 0; e < 6; e++)
      check_on(f, NULL, elementwise(f, t, t, " vector", 37, exprs[e]), 0, NULL, 1e-6);
    check_on(f, "x86-64-v2", elementwise(f, t, t, " vector", 37, "b0[i]*b1[i] + b0[i]"), 0, NULL,
             1e-6);
    check_on(f, "x86-64-v3", elementwise(f, t, t, " vector", 37, "b0[i]*b1[i] + b0[i]"), 0, NULL,
             1e-6);
  }
}

static void test_integer_division(void **state) {
  static const char *const exprs[] = {"b0[i] / b1[i]", "rem(b0[i], b1[i])", "shl(b0[i], b1[i])",
                                      "shr(b0[i], b1[i])", "(b0[i] & b1[i]) | not(b0[i])"};
  static const DType types[] = {DT_I8, DT_U8, DT_I32, DT_U32, DT_I64, DT_U64, DT_I16};
  Fix *f = *state;
  for (int t = 0; t < 7; t++)
    for (int e = 0; e < 5; e++)
      check_on(f, NULL, elementwise(f, types[t], types[t], " vector", 35, exprs[e]), 0, NULL, 0);
}

static void test_float_operations(void **state) {
  static const char *const exprs[] = {"b0[i] / b1[i]",
                                      "rem(b0[i], b1[i])",
                                      "sqrt(b0[i])",
                                      "floor(b0[i])",
                                      "ceil(b0[i])",
                                      "trunc(b0[i])",
                                      "rint(b0[i])",
                                      "exp(b0[i])",
                                      "tanh(b0[i])*b1[i]",
                                      "fma(b0[i], b1[i], b0[i])",
                                      "select(isnan(b0[i]), b1[i], -b0[i])",
                                      "max(b0[i], 0)",
                                      "min(max(b0[i], 0), 6)",
                                      "erf(b0[i])",
                                      "sigmoid(b0[i])",
                                      "pow(abs(b0[i]), b1[i])",
                                      "sin(b0[i])",
                                      "log(b0[i])"};
  Fix *f = *state;
  for (size_t e = 0; e < sizeof exprs / sizeof *exprs; e++) {
    check(f, elementwise(f, DT_F32, DT_F32, " vector", 53, exprs[e]));
    check_on(f, NULL, elementwise(f, DT_F64, DT_F64, " vector", 21, exprs[e]), 0, NULL, 1e-9);
    check_on(f, NULL, elementwise(f, DT_F16, DT_F16, " vector", 21, exprs[e]), 0, NULL, 1e-2);
  }
}

/* From one type to all others: one output each. */
static const char *casts_from(Fix *f, DType from, const char *op) {
  StrBuf b = {.arena = f->a};
  StrBuf body = {.arena = f->a}, params = {.arena = f->a}, call = {.arena = f->a},
         outputs = {.arena = f->a};
  sb_printf(&b, "module {\n  b0 : %s[41] = input 0\n", dtype_text(from));
  sb_printf(&params, "  kernel k {\n    param b0 : %s[41] read align 1\n", dtype_text(from));
  sb_printf(&call, "  steps {\n    call k(b0");
  int n = 1;
  for (int to = 1; to < DT_COUNT; to++) {
    if (!is_number((DType)to)) continue;
    sb_printf(&b, "  b%d : %s[41] = output %d\n", n, dtype_text((DType)to), n - 1);
    sb_printf(&outputs, "%s b%d", n > 1 ? "," : "  outputs", n);
    sb_printf(&params, "    param b%d : %s[41] write align 1\n", n, dtype_text((DType)to));
    sb_printf(&body, "      b%d[i] = %s<%s>(b0[i])\n", n, op, dtype_text((DType)to));
    sb_printf(&call, ", b%d", n++);
  }
  sb_printf(&b, "  inputs b0\n%s\n%s    for i in 0..41 vector {\n%s    }\n  }\n%s)\n  }\n}\n",
            sb_str(&outputs), sb_str(&params), sb_str(&body), sb_str(&call));
  return sb_str(&b);
}

static void test_casts(void **state) {
  Fix *f = *state;
  for (int from = 1; from < DT_COUNT; from++) {
    if (!is_number((DType)from)) continue;
    check_on(f, NULL, casts_from(f, (DType)from, "cast"), 0, NULL, 1e-6);
    check_on(f, NULL, casts_from(f, (DType)from, "sat"), 0, NULL, 1e-6);
    check_on(f, "x86-64-v2", casts_from(f, (DType)from, "cast"), 0, NULL, 1e-6);
  }
}

static void test_extents(void **state) {
  static const int sizes[] = {1,  2,  3,  4,  7,   8,   15,  16,  17,  31,  32,  33,
                              48, 63, 64, 65, 100, 127, 128, 129, 256, 300, 1000};
  Fix *f = *state;
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    check(f, elementwise(f, DT_F32, DT_F32, " vector", sizes[i], "b0[i] + b1[i]"));
    check(f, elementwise(f, DT_U8, DT_U8, " vector", sizes[i], "max(b0[i], b1[i])"));
    check_on(f, NULL, elementwise(f, DT_F32, DT_F32, "", sizes[i], "b0[i] * b1[i]"), 0, NULL, 0);
    check_on(f, NULL, elementwise(f, DT_F32, DT_F32, " parallel", sizes[i], "b0[i] * b1[i]"), 0,
             NULL, 0);
  }
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_arithmetic, setup, teardown),
      cmocka_unit_test_setup_teardown(test_integer_division, setup, teardown),
      cmocka_unit_test_setup_teardown(test_float_operations, setup, teardown),
      cmocka_unit_test_setup_teardown(test_casts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_extents, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
