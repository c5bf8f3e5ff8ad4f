/* Matrix loops (ir/loop/matrix.h): with the registers and without them. */
#include "tests/unit/codegen_fixture.h"

typedef struct Shape {
  int rows;
  int k;     /* groups of four */
  int pitch; /* bytes from row to row of A */
} Shape;

typedef struct Form {
  const char *a, *b; /* types of bytes */
  const char *dot;
  bool exchanged;     /* B is the first operand */
  const char *masked; /* of the lower bytes of A */
} Form;

static const Form forms[] = {{"u8", "u8", "dot4_u8u8", false, ""},
                             {"u8", "i8", "dot4_u8i8", false, ""},
                             {"i8", "u8", "dot4_u8i8", true, " & 255i32"},
                             {"i8", "i8", "dot4_i8i8", false, " & 255i32"}};

/* A group of four bytes of row r, step q. */
static const char *group(Fix *f, const Shape *s, const Form *m, const char *k, const char *row) {
  StrBuf b = {.arena = f->a};
  for (int i = 0; i < 4; i++) {
    const char *const masked = i < 3 ? m->masked : "";
    sb_printf(&b, i ? " | shl((" : "((");
    sb_printf(&b, "cast<i32>(b0[%s + r*%d + %s + q*4 + %d])%s)", row, s->pitch, k, i, masked);
    sb_printf(&b, i ? ", %di32)" : ")", 8 * i);
  }
  return sb_str(&b);
}

static const char *product(Fix *f, const Shape *s, const Form *m, int sum, const char *row,
                           const char *column) {
  const char *const a = group(f, s, m, arena_printf(f->a, "k*%d", 4 * s->k), row);
  const char *const b = arena_printf(f->a, "b1[(k*%d + q)*32 + %s + j]", s->k, column);
  const char *const value = arena_printf(f->a, m->exchanged ? "%2$s, %1$s" : "%1$s, %2$s", a, b);
  return arena_printf(f->a,
                      "for r in 0..%d matrix { for j in 0..16 matrix { for q in 0..%d matrix {\n"
                      "t%d[r*16 + j] = %s(%s, t%d[r*16 + j]) } } }\n",
                      s->rows, s->k, sum, m->dot, value, sum);
}

/* 2 × 2 registers of sums: declared as `type`; set to zero; copied to the stack, which is stored. */
static void declare_sums(StrBuf *t, const Shape *s, const char *type) {
  for (int i = 0; i < 4; i++) sb_printf(t, "local t%d : %s[%d] matrix\n", i, type, s->rows * 16);
  sb_printf(t, "local t4 : %s[%d] stack\n", type, 2 * s->rows * 32);
}

static void clear_sums(StrBuf *t, const Shape *s, const char *zero) {
  for (int i = 0; i < 4; i++)
    sb_printf(
        t, "local t%d\n for r in 0..%d matrix { for j in 0..16 matrix { t%d[r*16 + j] = %s } }\n",
        i, s->rows, i, zero);
}

static void store_sums(StrBuf *t, const Shape *s) {
  sb_printf(t, " local t4\n");
  for (int i = 0; i < 4; i++)
    sb_printf(
        t,
        "for r in 0..%d matrix { for j in 0..16 matrix {\n t4[%d + r*32 + j] = t%d[r*16 + j] } }\n",
        s->rows, i / 2 * s->rows * 32 + i % 2 * 16, i);
  sb_printf(t, "for i in 0..%d { for j in 0..32 vector { b2[i*32 + j] = t4[i*32 + j] } }\n",
            2 * s->rows);
}

/* The first row of A and the first column of B that sum i multiplies. */
static const char *row_of_sum(Fix *f, const Shape *s, int i) {
  return i < 2 ? "0" : arena_printf(f->a, "%d", s->rows * s->pitch);
}
static const char *column_of_sum(int i) { return i % 2 ? "16" : "0"; }

/* Three steps of k. */
static const char *matrix_kernel(Fix *f, const Shape *s, const Form *m) {
  const int in = 2 * s->rows * s->pitch + 12 * s->k, out = 2 * s->rows * 32, b = 3 * s->k * 32;
  StrBuf t = {.arena = f->a};
  sb_printf(
      &t,
      "module {\n  b0 : %s[%d] = input 0\n  b1 : i32[%d] = input 1\n  b2 : i32[%d] = output 0\n"
      "  inputs b0, b1\n  outputs b2\n  kernel k {\n    param b0 : %s[%d] read align 1\n"
      "    param b1 : i32[%d] read align 4\n    param b2 : i32[%d] write align 4\n",
      m->a, in, b, out, m->a, in, b, out);
  declare_sums(&t, s, "i32");
  clear_sums(&t, s, "0i32");
  sb_printf(&t, "for k in 0..3 {\n");
  for (int i = 0; i < 4; i++)
    sb_printf(&t, "%s", product(f, s, m, i, row_of_sum(f, s, i), column_of_sum(i)));
  sb_printf(&t, "}\n");
  store_sums(&t, s);
  sb_printf(&t, "  }\n  steps {\n    call k(b0, b1, b2)\n  }\n}\n");
  return sb_str(&t);
}

static const Shape shapes[] = {{16, 16, 64}, {14, 16, 192}, {1, 1, 13}, {7, 5, 20}, {16, 9, 100}};

/* Compiled for machines without the registers, which loop, and for those that have them. */
static void test_matrix_sums(void **state) {
  Fix *f = *state;
  static const char *const targets[] = {"x86-64-v2", "x86-64-v3", NULL, "c", "sapphirerapids"};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (size_t m = 0; m < sizeof forms / sizeof *forms; m++)
      for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
        if (targets[t] && !target_runs_here(target_find(targets[t]))) continue;
        if (t < 2 && (s + m) % 4) continue;
        check_on(f, targets[t], matrix_kernel(f, &shapes[s], &forms[m]), 0, NULL, 0);
      }
}

/* ---- the same of bf16 ---- */

/* Numbers of 16 bits times `scale` become bf16; those of B lie in pairs of a step of k. */
static const char *float_inputs(Fix *f, int a, int b, const char *scale) {
  return arena_printf(
      f->a,
      "  kernel a {\n    param b0 : i16[%d] read align 1\n    param b1 : bf16[%d] write align 2\n"
      "    for i in 0..%d vector { b1[i] = cast<bf16>(cast<f32>(b0[i]) * %s) }\n  }\n"
      "  kernel b {\n    param b0 : i16[%d] read align 1\n    param b1 : i32[%d] write align 4\n"
      "    for i in 0..%d { b1[i] = cast<i32>(bits<u16>(cast<bf16>(cast<f32>(b0[2*i]) * %s)))"
      " | shl(cast<i32>(bits<u16>(cast<bf16>(cast<f32>(b0[2*i + 1]) * %s))), 16i32) }\n  }\n",
      a, a, a, scale, 2 * b, b, b, scale, scale);
}

/* Elements whose numbers end in 0 and 1 of a pair, as operands in either order. */
static const char *float_halves(Fix *f, const Shape *s, int sum, const char *row,
                                const char *column) {
  static const char *const order[] = {"fma(%s, %s, t%d[0])", "fma(%2$s, %1$s, t%3$d[0])"};
  StrBuf t = {.arena = f->a};
  for (int i = 0; i < 2; i++) {
    const char *const a = arena_printf(f->a, "cast<f32>(b0[%s + r*%d + k*%d + q*2 + %d])", row,
                                       s->pitch, 2 * s->k, i);
    const char *const pair = arena_printf(f->a, "b1[(k*%d + q)*32 + %s + j]", s->k, column);
    const char *const b =
        arena_printf(f->a, i ? "bits<f32>(%s & -65536i32)" : "bits<f32>(shl(%s, 16i32))", pair);
    sb_printf(&t, "t%d[0] = ", 5 + i);
    sb_printf(&t, order[(sum + i) % 2], a, b, 5 + i);
    sb_printf(&t, "\n");
  }
  return sb_str(&t);
}

static const char *float_product(Fix *f, const Shape *s, int sum, const char *row,
                                 const char *column) {
  return arena_printf(f->a,
                      "for r in 0..%d matrix { for j in 0..16 matrix {\n local t5\n local t6\n"
                      "t5[0] = 0f32\n t6[0] = 0f32\n for q in 0..%d matrix {\n%s}\n"
                      "t%d[r*16 + j] = t%d[r*16 + j] + (t5[0] + t6[0]) } }\n",
                      s->rows, s->k, float_halves(f, s, sum, row, column), sum, sum);
}

static const char *float_kernel(Fix *f, const Shape *s, const char *scale) {
  const int a = 2 * s->rows * s->pitch + 6 * s->k, out = 2 * s->rows * 32, b = 3 * s->k * 32;
  StrBuf t = {.arena = f->a};
  sb_printf(&t,
            "module {\n  b0 : i16[%d] = input 0\n  b1 : i16[%d] = input 1\n"
            "  b2 : f32[%d] = output 0\n  b3 : bf16[%d] = output 1\n  b4 : i32[%d] = output 2\n"
            "  inputs b0, b1\n  outputs b2, b3, b4\n%s"
            "  kernel k {\n    param b0 : bf16[%d] read align 2\n"
            "    param b1 : i32[%d] read align 4\n    param b2 : f32[%d] write align 4\n",
            a, 2 * b, out, a, b, float_inputs(f, a, b, scale), a, b, out);
  declare_sums(&t, s, "f32");
  sb_printf(&t, "local t5 : f32[1] regs\nlocal t6 : f32[1] regs\n");
  clear_sums(&t, s, "0f32");
  sb_printf(&t, "for k in 0..3 {\n");
  for (int i = 0; i < 4; i++)
    sb_printf(&t, "%s", float_product(f, s, i, row_of_sum(f, s, i), column_of_sum(i)));
  sb_printf(&t, "}\n");
  store_sums(&t, s);
  sb_printf(
      &t,
      "  }\n  steps {\n    call a(b0, b3)\n    call b(b1, b4)\n    call k(b3, b4, b2)\n  }\n}\n");
  return sb_str(&t);
}

/* To the bit: products that are normal numbers, subnormal ones, infinite ones. */
static void test_matrix_floats(void **state) {
  Fix *f = *state;
  static const char *const targets[] = {"x86-64-v2", "x86-64-v3", NULL, "c", "sapphirerapids"};
  static const char *const scales[] = {"0.001", "2e-22", "1e16"};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (size_t m = 0; m < sizeof scales / sizeof *scales; m++)
      for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
        if (targets[t] && !target_runs_here(target_find(targets[t]))) continue;
        if (t != 2 && t != 4 && (s + m) % 4) continue;
        check_on(f, targets[t], float_kernel(f, &shapes[s], scales[m]), 0, NULL, 0);
      }
}

static Module *parse(Fix *f, const char *text) {
  f->m = model_new(f->a, f->d);
  Module *m = module_parse(f->m, text, "test");
  must(f, m != NULL, text);
  return m;
}

static void test_matrix_text(void **state) {
  Fix *f = *state;
  for (size_t m = 0; m < sizeof forms / sizeof *forms; m++) {
    Module *one = parse(f, matrix_kernel(f, &shapes[1], &forms[m]));
    must(f, module_verify(one, "test"), "verify");
    StrBuf a = {.arena = f->a}, b = {.arena = f->a};
    module_print(one, &a);
    module_print(parse(f, sb_str(&a)), &b);
    assert_string_equal(sb_str(&a), sb_str(&b));
    assert_non_null(strstr(sb_str(&a), "] matrix"));
  }
}

/* The text with `from` replaced once. */
static const char *changed(Fix *f, const char *text, const char *from, const char *to) {
  const char *const at = strstr(text, from);
  assert_non_null(at);
  return arena_printf(f->a, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

typedef const char *Change[2]; /* a part of a text, and what stands there instead */

/* The text is taken, and with any of n changes refused: by the parser or the verifier. */
static void check_refused(Fix *f, const char *good, const Change *wrong, size_t n) {
  must(f, module_verify(parse(f, good), "test"), good);
  for (size_t i = 0; i < n; i++) {
    const char *const text = changed(f, good, wrong[i][0], wrong[i][1]);
    f->m = model_new(f->a, f->d);
    Module *m = module_parse(f->m, text, "test");
    if (m && module_verify(m, "test")) fail_msg("taken: %s\n%s", wrong[i][1], text);
    f->d = diag_new(f->a);
  }
}

static void test_matrix_refused(void **state) {
  Fix *f = *state;
  static const Change wrong[] = {
      {"t0[r*16 + j] = 0i32", "t0[r*16 + j] = 1i32"},
      {"t0[r*16 + j] = 0i32", "t0[r*16 + j + 1] = 0i32"},
      {"t0[r*16 + j] = 0i32", "t4[r*16 + j] = 0i32"},
      {"for j in 0..16 matrix { t0", "for j in 0..15 matrix { t0"},
      {"for j in 0..16 matrix { t0", "for j in 0..16 { t0"},
      {"q*4 + 1]", "q*4 + 2]"}, /* bytes that do not follow each other */
      {"q*4 + 0]", "q*8 + 0]"},
      {", 8i32)", ", 9i32)"},
      {"*32 + 0 + j]", "*32 + 0 + 2*j]"},
      {" t4[0 + r*32 + j] = t0[r*16 + j]", " t4[0 + r*32 + j] = t0[r*16 + j] + 1i32"},
      {"b2[i*32 + j] = t4[i*32 + j]",
       "b2[i*32 + j] = t0[0]"}, /* a register outside of such loops */
      {"local t4 : i32[896] stack", "local t4 : i32[896] regs"},
      {"t0[r*16 + j]) } } }", "t1[r*16 + j]) } } }"},
  };
  check_refused(f, matrix_kernel(f, &shapes[1], &forms[1]), wrong, sizeof wrong / sizeof *wrong);
}

static void test_matrix_floats_refused(void **state) {
  Fix *f = *state;
  static const Change wrong[] = {
      {"t0[r*16 + j] = 0f32", "t0[r*16 + j] = -0f32"},
      {"t5[0] = 0f32", "t5[0] = 1f32"},
      {"t5[0] = 0f32", "t6[0] = 0f32"},
      {"+ q*2 + 1])", "+ q*2 + 2])"},
      {"+ q*2 + 0])", "+ q*4 + 0])"},
      {", 16i32)), t5", ", 8i32)), t5"},
      {"& -65536i32)", "& -1i32)"},
      {"*32 + 0 + j], 16", "*32 + 1 + j], 16"}, /* not the pair of the other half */
      {"(t5[0] + t6[0])", "(t5[0] + t5[0])"},
      {"t0[r*16 + j] + (t5[0] + t6[0])", "(t0[r*16 + j] + t5[0]) + t6[0]"},
      {"t0[r*16 + j] + (t5", "t1[r*16 + j] + (t5"},
      {"local t5 : f32[1] regs", "local t5 : f64[1] regs"},
  };
  check_refused(f, float_kernel(f, &shapes[1], "0.001"), wrong, sizeof wrong / sizeof *wrong);
}

/* What the backend would do with masks left out: bytes of i8 that reach into their neighbours. */
static void test_matrix_signs(void **state) {
  Fix *f = *state;
  const char *const text = changed(f, matrix_kernel(f, &shapes[0], &forms[3]), " & 255i32", "");
  assert_false(module_verify(parse(f, text), "test"));
  f->d = diag_new(f->a);
}

/* ---- two rows and two columns: three rows of A, the last one alone, and four columns ---- */

static const char *each_square(Fix *f, const char *body) {
  StrBuf t = {.arena = f->a};
  for (int rows = 2; rows >= 1; rows--) {
    sb_printf(&t, "for x in 0..2 unroll { for r in 0..%d matrix { for j in 0..2 matrix {\n", rows);
    sb_printf(&t, body, rows == 2 ? 0 : 2);
    sb_printf(&t, "} } }\n");
  }
  return sb_str(&t);
}

static const char *square_kernel(Fix *f, const Shape *s, const Form *m) {
  const int in = 3 * s->pitch + 12 * s->k, b = 3 * s->k * 4;
  const char *const sum = "t0[(x + %1$d)*4 + r*2 + j]";
  const char *const a = group(f, s, m, arena_printf(f->a, "k*%d", 4 * s->k),
                              arena_printf(f->a, "%%1$d*%d", s->pitch));
  const char *const panel =
      arena_printf(f->a, "b1[k*%d + floordiv(q, 2)*8 + (x*2 + j)*2 + floormod(q, 2)]", 4 * s->k);
  const char *const operands =
      arena_printf(f->a, m->exchanged ? "%2$s, %1$s" : "%1$s, %2$s", a, panel);
  StrBuf t = {.arena = f->a};
  sb_printf(
      &t,
      "module {\n  b0 : %s[%d] = input 0\n  b1 : i32[%d] = input 1\n  b2 : i32[12] = output 0\n"
      "  inputs b0, b1\n  outputs b2\n  kernel k {\n    param b0 : %s[%d] read align 1\n"
      "    param b1 : i32[%d] read align 4\n    param b2 : i32[12] write align 4\n"
      "local t0 : i32[16] matrix\nlocal t1 : i32[12] regs\nlocal t0\nlocal t1\n",
      m->a, in, b, m->a, in, b);
  sb_printf(&t, "%s", each_square(f, arena_printf(f->a, "%s = 0i32 ", sum)));
  const char *const product = arena_printf(f->a, "for q in 0..%d matrix { %s = %s(%s, %s) } ", s->k,
                                           sum, m->dot, operands, sum);
  sb_printf(&t, "for k in 0..3 { %s }\n", each_square(f, product));
  sb_printf(&t, "%s", each_square(f, arena_printf(f->a, "t1[(%%1$d + r)*4 + x*2 + j] = %s ", sum)));
  sb_printf(&t, "for i in 0..3 unroll { for j in 0..4 vector { b2[i*4 + j] = t1[i*4 + j] } }\n");
  sb_printf(&t, "  }\n  steps {\n    call k(b0, b1, b2)\n  }\n}\n");
  return sb_str(&t);
}

static const Shape squares[] = {{0, 2, 24}, {0, 4, 48}, {0, 4, 61}, {0, 6, 100}};

static void test_matrix_squares(void **state) {
  Fix *f = *state;
  static const char *const targets[] = {"x86-64-v2", NULL, "c"};
  for (size_t s = 0; s < sizeof squares / sizeof *squares; s++)
    for (size_t m = 0; m < sizeof forms / sizeof *forms; m++)
      for (size_t t = 0; t < sizeof targets / sizeof *targets; t++)
        if ((s + m + t) % 2 == 0)
          check_on(f, targets[t], square_kernel(f, &squares[s], &forms[m]), 0, NULL, 0);
}

static void test_matrix_squares_refused(void **state) {
  Fix *f = *state;
  static const Change wrong[] = {
      {"t0[(x + 0)*4 + r*2 + j] = 0i32", "t0[(x + 0)*2 + r*2 + j] = 0i32"},
      {"t0[(x + 0)*4 + r*2 + j] = 0i32", "t0[(x + 0)*4 + j*2 + r] = 0i32"},
      {"for x in 0..2 unroll { for r in 0..2 matrix",
       "for x in 0..2 unroll { for r in 0..3 matrix"},
      {"(x*2 + j)*2 + floormod", "(x*2 + j)*3 + floormod"},
      {"floormod(q, 2)]", "floormod(q, 3)]"},
      {"floordiv(q, 2)*8", "floordiv(q, 3)*8"},
      {"local t0 : i32[16] matrix", "local t0 : i32[18] matrix"},
      {"for q in 0..4", "for q in 0..3"},
  };
  check_refused(f, square_kernel(f, &squares[1], &forms[3]), wrong, sizeof wrong / sizeof *wrong);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_matrix_text, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matrix_refused, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matrix_signs, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matrix_sums, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matrix_floats, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matrix_floats_refused, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matrix_squares, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matrix_squares_refused, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
