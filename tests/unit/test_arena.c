/* Arenas, growable arrays, text buffers, diagnostics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "ir/base/diag.h"

static void test_alloc(void **state) {
  (void)state;
  Arena *const a = arena_new(0, NULL, NULL);
  for (size_t n = 0; n < 3000; n = n * 3 / 2 + 1) {
    char *const p = arena_alloc(a, n);
    assert_int_equal((uintptr_t)p % 16, 0);
    for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
    memset(p, 0xff, n);
  }
  char *const big = arena_alloc(a, 5 << 20);
  big[(5 << 20) - 1] = 1;
  assert_string_equal(arena_printf(a, "%d-%s", 3, "x"), "3-x");
  assert_string_equal(arena_strndup(a, "hello", 2), "he");
  assert_true(arena_used(a) > 5 << 20);
  arena_free(a);
}

static void test_children(void **state) {
  (void)state;
  Arena *const a = arena_new(0, NULL, NULL);
  const size_t before = arena_used(a);
  Arena *const c = arena_child(a), *const d = arena_child(a), *const e = arena_child(d);
  arena_alloc(c, 1 << 16);
  arena_alloc(d, 1 << 17);
  arena_alloc(e, 1 << 18);
  assert_true(arena_used(a) >= (1 << 16) + (1 << 17) + (1 << 18));
  arena_free(d); /* and e */
  assert_true(arena_used(a) < 1 << 17);
  arena_free(c);
  assert_int_equal(arena_used(a), before);
  arena_alloc(arena_child(a), 100); /* freed with its parent */
  arena_free(a);
}

static void jump(void *user, size_t wanted) {
  (void)wanted;
  longjmp(*(jmp_buf *)user, 1);
}

static void test_limit(void **state) {
  (void)state;
  jmp_buf env;
  Arena *volatile a = arena_new(1 << 20, jump, &env);
  volatile int got = 0;
  if (!setjmp(env)) {
    Arena *const c = arena_child(a);
    for (;; got++) arena_alloc(c, 1 << 14);
  }
  assert_true(got > 40 && got < 64);
  arena_free(a);
  a = arena_new(0, jump, &env);
  if (!setjmp(env)) {
    arena_alloc_array(a, SIZE_MAX / 4, 8);
    fail_msg("no overflow");
  }
  if (!setjmp(env)) {
    arena_alloc(a, SIZE_MAX - 3);
    fail_msg("no overflow");
  }
  arena_free(a);
}

static void test_vec(void **state) {
  (void)state;
  Arena *const a = arena_new(0, NULL, NULL);
  Vec(int) v = {0};
  for (int i = 0; i < 1000; i++) vec_push(a, &v, i * 3);
  assert_int_equal(v.n, 1000);
  for (int i = 0; i < 1000; i++) assert_int_equal(v.data[i], i * 3);
  int64_t r = 7;
  assert_false(ck_add(INT64_MAX, 1, &r) || ck_mul(INT64_MAX, 2, &r) || ck_sub(INT64_MIN, 1, &r));
  assert_true(ck_mul(3, 4, &r) && r == 12);
  arena_free(a);
}

static void test_text(void **state) {
  (void)state;
  Arena *const a = arena_new(0, NULL, NULL);
  StrBuf b = {.arena = a};
  assert_string_equal(sb_str(&b), "");
  for (int i = 0; i < 500; i++) sb_printf(&b, "%d,", i);
  assert_int_equal(strlen(sb_str(&b)), (size_t)b.n);
  assert_true(strstr(sb_str(&b), ",499,") != NULL);
  StrBuf q = {.arena = a};
  sb_quoted(&q, "a\"b\\c\n\x01");
  assert_string_equal(sb_str(&q), "\"a\\\"b\\\\c\\n\\x01\"");
  arena_free(a);
}

static const char *printed(Arena *a, const Diag *d) {
  char *text = NULL;
  size_t n = 0;
  FILE *const f = open_memstream(&text, &n);
  diag_print(d, f);
  fclose(f);
  char *const copy = arena_strdup(a, text);
  free(text);
  return copy;
}

static void test_diag(void **state) {
  (void)state;
  Arena *const a = arena_new(0, NULL, NULL);
  Diag *const d = diag_new(a);
  const Loc conv = {
      .file = "m.onnx", .node = 17, .node_name = "conv1/bias", .op = "Conv", .opset = 11};
  const Loc file = {.file = "m.onnx", .node = -1};
  assert_int_equal(diag_exit_status(d), 0);
  assert_false(
      diag_error(d, &conv, ERR_SHAPE, "bias has %d elements, output has %d channels", 63, 64));
  diag_hint(d, "look at '%s'", "a\x1b[31m");
  diag_warning(d, &file, "odd");
  assert_false(diag_error(d, NULL, ERR_UNSUPPORTED_OP, "later"));
  assert_int_equal(diag_errors(d), 2);
  assert_int_equal(diag_exit_status(d), 1);
  assert_string_equal(printed(a, d),
                      "m.onnx: node 17 \"conv1/bias\" ai.onnx.Conv-11: error[E0132]: bias has 63 "
                      "elements, output has 64 channels\n"
                      "  hint: look at 'a\\x1b[31m'\n"
                      "m.onnx: warning: odd\n"
                      "error[E0200]: later\n");
  for (int i = 0; i < 100; i++) diag_error(d, NULL, ERR_TYPE, "again");
  assert_non_null(strstr(printed(a, d), "82 more errors not shown\n"));
  Diag *const other = diag_new(a);
  diag_internal(other, NULL, "oops");
  assert_int_equal(diag_exit_status(other), 70);
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_alloc), cmocka_unit_test(test_children), cmocka_unit_test(test_limit),
      cmocka_unit_test(test_vec),   cmocka_unit_test(test_text),     cmocka_unit_test(test_diag),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
