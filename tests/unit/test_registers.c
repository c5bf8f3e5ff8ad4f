/* What backends are told of a kernel: which locals can be registers, which elements of a tile are
 * read, what is the same in all lanes. */
#include "codegen/analysis/kernel.h"
#include "tests/unit/codegen_fixture.h"

static Kernel *parse(Fix *f, const char *locals, const char *body) {
  Module *const m = module_parse(f->m, nest(f, "f32", "64", "64", "64", locals, body), "test");
  must(f, m && module_verify(m, "test"), body);
  return m->kernels.data[0];
}

static const LocalUse *use_of(Fix *f, bool copied, const char *locals, const char *body) {
  return kernel_locals(f->m->pool, parse(f, locals, body), copied, f->a);
}

static void test_homes(void **state) {
  Fix *f = *state;
  const char *const tile = "local t0 : f32[32] regs\n";
  const char *const rows =
      "local t0\n for m in 0..2 unroll { for j in 0..16 vector { t0[m*16 + j] = b0[j] } }\n"
      "for m in 0..2 unroll { for j in 0..16 vector { b2[m*16 + j] = t0[m*16 + j] } }\n";
  const LocalUse *u = use_of(f, true, tile, rows);
  assert_true(u->sliced && !u->memory && !u->lanes);
  assert_true(use_of(f, false, tile, rows)->memory); /* loops stay: m*16 + j is an address */
  u = use_of(f, true, "local t0 : f32[2] regs\n",
             "for j in 0..16 vector {\n local t0\n t0[0] = b0[j]\n t0[1] = 2\n"
             " b2[j] = t0[0]*t0[1] }\n");
  assert_true(u->lanes && !u->sliced && !u->memory);
  const char *const sum =
      "local t0\n t0[0] = 0\n for j in 0..$n vector { t0[0] sum= b0[j] }\n b2[0] = t0[0]\n";
  u = use_of(f, false, "local t0 : f32[1] regs\n", sum);
  assert_true(!u->memory && !u->sliced && !u->read);
  u = use_of(f, true, "local t0 : f32[32] stack\n",
             "local t0\n for k in 0..32 { t0[k] = b0[k] }\n b2[0] = t0[3]\n");
  assert_true(u->memory);
  u = use_of(f, true, "local t0 : f32[5000] regs\n",
             "local t0\n t0[4999] = 1\n b2[0] = t0[4999]\n");
  assert_true(u->memory);
}

/* The elements that are read, as x and dots. */
static void expect_read(Fix *f, int count, const char *read, const char *want) {
  const char *const body =
      arena_printf(f->a, "local t0\n for j in 0..%d vector { t0[j] = 1 }\n %s\n", count, read);
  const char *const local = arena_printf(f->a, "local t0 : f32[%d] regs\n", count);
  const LocalUse *const u = use_of(f, true, local, body);
  assert_true(u->sliced && !u->memory);
  char got[64] = "";
  for (int i = 0; i < count; i++) got[i] = u->read[i] ? 'x' : '.';
  assert_string_equal(got, want);
}

static void test_reads(void **state) {
  Fix *f = *state;
  expect_read(f, 8, "", "........");
  expect_read(f, 8, "b2[0] = t0[3] + t0[7]", "...x...x");
  expect_read(f, 8, "for j in 2..+3 vector { b2[j] = t0[j + 1] }", "...xxx..");
  expect_read(f, 12, "for m in 0..3 unroll { for j in 0..2 vector { b2[j] = t0[m*4 + j] } }",
              "xx..xx..xx..");
  expect_read(f, 12, "for m in 0..3 unroll { b2[m] = t0[11 - m*5] }", ".x....x....x");
  expect_read(f, 9, "for m in 0..9 unroll { b2[m] = t0[floordiv(m, 3)*3] }", "xxxxxxxxx");
  expect_read(f, 4, "for j in 0..4 vector { t0[j] sum= b0[j] }", "....");
}

static void test_lanes(void **state) {
  Fix *f = *state;
  const Kernel *const k =
      parse(f, "local t0 : f32[1] regs\n local t1 : f32[1] regs\n",
            "local t0\n t0[0] = b1[0]\n for j in 0..16 vector {\n local t1\n t1[0] = b0[3]\n"
            " b2[j] = b0[j]\n b2[j] = t1[0]\n b2[j] = t0[0] + b0[5] }\n");
  const LocalUse *const u = kernel_locals(f->m->pool, k, true, f->a);
  const Stmt *const loop = k->body->next->next;
  const Stmt *s = loop->loop.body->next->next; /* behind the local and its value */
  const bool equal[] = {false, false, true};
  for (int i = 0; i < 3; i++, s = s->next)
    assert_int_equal(lanes_equal(s->access.value, loop->loop.var, u), equal[i]);
}

static void test_symbols(void **state) {
  Fix *f = *state;
  const Kernel *const with = parse(f, "", "for i in 0..$n { b2[0] = b0[0] }\n");
  assert_true(kernel_symbols(f->m->pool, with, f->a)[0]);
  const Kernel *const without = parse(f, "", "for i in 0..4 { b2[i] = b0[i] }\n");
  assert_false(kernel_symbols(f->m->pool, without, f->a)[0]);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_homes, setup, teardown),
      cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
      cmocka_unit_test_setup_teardown(test_lanes, setup, teardown),
      cmocka_unit_test_setup_teardown(test_symbols, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
