/* Programs: steps, planned memory, options of a run, and arguments that are refused. */
#include "tests/support/control_program.h"
#include "tests/unit/codegen_fixture.h"

/* ---- programs ---- */

static const char control[] = "module threads 4 {\n" CONTROL_BUFFERS
                              "  b6 : f32[$n*7] = input 1\n"
                              "  b7 : f32[$n*7] = arena\n"
                              "  b8 : f32[$n*7] = output 1\n"
                              "  b9 : f32[7] = weight {1, 2, 3, 4, 5, 6, 7}\n"
                              "  inputs b0, b6\n"
                              "  outputs b3, b8\n" CONTROL_KERNELS
                              "  kernel k3_scale {\n"
                              "    param b0 : f32[$n*7] read align 4\n"
                              "    param b1 : f32[7] read const align 4\n"
                              "    param b2 : f32[$n*7] write align 4\n"
                              "    param b3 : f32[7] readwrite scratch align 64\n"
                              "    param b4 : f32[$n] readwrite scratch align 64\n"
                              "    for r in 0..$n parallel {\n"
                              "      for c in 0..7 vector {\n"
                              "        b3[c] = b0[r*7 + c]*b1[c]\n"
                              "      }\n"
                              "      b4[r] = b3[0]\n"
                              "      for d in 0..7 vector {\n"
                              "        b2[r*7 + d] = b3[6 - d] + b4[r]\n"
                              "      }\n"
                              "    }\n"
                              "  }\n" CONTROL_STEPS
                              "    call k3_scale(b6, b9, b7)\n"
                              "    call k3_scale(b7, b9, b8)\n" CONTROL_END;

static void serial_tasks(void *user, int32_t n, BurinTask task, void *arg) {
  *(int *)user += n;
  for (int32_t i = n - 1; i >= 0; i--) task(arg, i);
}
static uint64_t fake_clock(void) {
  static uint64_t t;
  return t += 10;
}

static Module *planned(Fix *f, const char *text) {
  follow(f, NULL);
  Module *m = module_parse(f->m, text, "test");
  must(f, m != NULL, text);
  Target t;
  assert_true(target_native(&t));
  PassCtx c = {.model = f->m,
               .module = m,
               .target = &t,
               .opt_level = 3,
               .scratch = arena_child(f->a),
               .max_threads = 4};
  must(f, pass_plan_memory(&c), text);
  return m;
}

static void test_program(void **state) {
  Fix *f = *state;
  Module *m = planned(f, control);
  BurinModel *model = compile(f, m, NULL, control);
  assert_int_equal(model->n_caller_symbols, 1);
  assert_int_equal(model->n_kernels, 5);
  assert_int_equal(model->size, sizeof(BurinModel));
  for (int64_t n = 0; n < 40; n += 13) {
    for (int64_t limit = 0; limit <= 10; limit += 5) {
      float x[40 * 7], y[2][40 * 7];
      int64_t out[2][10], syms[16] = {n}, dims[8] = {n};
      for (int i = 0; i < 40 * 7; i++) x[i] = (float)(i % 23) - 11;
      const void *in[] = {&limit, x};
      void *want[] = {out[0], y[0]}, *got[] = {out[1], y[1]};
      must(f, module_interpret(m, in, want, syms), control);
      const uint64_t bytes = model->arena_size(dims, 4);
      char *arena = aligned_alloc(64, (bytes + 127) / 64 * 64);
      memset(arena, 0xff, bytes);
      int tasks = 0;
      uint64_t ns[5] = {0}, flops[5] = {0};
      BurinOptions o = {.size = sizeof o,
                        .threads = (int)(limit % 4 + 1),
                        .parallel_for = serial_tasks,
                        .user = &tasks,
                        .kernel_ns = ns,
                        .clock_ns = fake_clock,
                        .kernel_flops = flops,
                        .arena_bytes = bytes};
      if (limit == 5) o.size = offsetof(BurinOptions, kernel_flops); /* of an older host */
      assert_int_equal(model->invoke(in, got, dims, arena, n ? &o : NULL), BURIN_OK);
      assert_memory_equal(out[0], out[1], sizeof out[0]);
      assert_memory_equal(y[0], y[1], (size_t)n * 7 * sizeof(float));
      if (n) assert_true(ns[0] == 10);
      const int64_t runs = n && limit != 5 ? out[1][9] : 0;
      assert_true(flops[0] == 0 && flops[1] == (uint64_t)(3 * n * runs));
      free(arena);
    }
  }
}

/* The caller's options may end early, and the arena's size is held against what the threads need.
 */
static void test_options(void **state) {
  Fix *f = *state;
  Module *m = planned(f, control);
  BurinModel *model = compile(f, m, NULL, control);
  float x[28] = {0}, y[28];
  int64_t limit = 5, out[10], dims[8] = {4};
  const void *in[] = {&limit, x};
  void *outs[] = {out, y};
  const uint64_t one = model->arena_size(dims, 1), four = model->arena_size(dims, 4);
  char *arena = aligned_alloc(64, (four + 127) / 64 * 64);
  int tasks = 0;
  BurinFailure why = {9, 9, {9, 9, 9}};
  BurinOptions o = {.size = sizeof o,
                    .threads = 4,
                    .parallel_for = serial_tasks,
                    .user = &tasks,
                    .arena_bytes = four,
                    .failure = &why};
  assert_true(four > one); /* the threads of this model need room */
  assert_int_equal(model->invoke(in, outs, dims, arena, &o), BURIN_OK);
  assert_true(tasks > 1 && why.status == BURIN_OK && why.check == -1);
  o.arena_bytes = four - 1;
  assert_int_equal(model->invoke(in, outs, dims, arena, &o), BURIN_E_ARENA);
  assert_true(why.status == BURIN_E_ARENA && (uint64_t)why.values[0] == four - 1 &&
              (uint64_t)why.values[1] == four && why.values[2] == 4);
  char text[200], few[8];
  const int32_t length = model->failure_text(&why, text, sizeof text);
  assert_true(length > 20 && (size_t)length == strlen(text) && strstr(text, "for threads: 4"));
  assert_int_equal(model->failure_text(&why, few, sizeof few), length);
  assert_memory_equal(few, text, sizeof few - 1);
  assert_int_equal(model->failure_text(&why, NULL, 0), length);
  o.arena_bytes = 0; /* not told: as many threads as one thread's arena holds */
  tasks = 0;
  memset(arena + one, 0x5a, four - one);
  assert_int_equal(model->invoke(in, outs, dims, arena, &o), BURIN_OK);
  assert_int_equal(tasks, 0);
  for (uint64_t i = one; i < four; i++) assert_int_equal(arena[i], 0x5a);
  o.arena_bytes = 64; /* not read where size does not cover it */
  o.failure = (BurinFailure *)1;
  for (uint32_t size = 4; size <= offsetof(BurinOptions, arena_bytes); size += 4) {
    o.size = size;
    assert_int_equal(model->invoke(in, outs, dims, arena, &o), BURIN_OK);
  }
  o.size = 0;
  assert_int_equal(model->invoke(in, outs, dims, arena, &o), BURIN_E_ARGUMENT);
  assert_true(model->failure_text(&(BurinFailure){.status = 77, .check = -1}, text, 200) > 0);
  assert_string_equal(text, "unknown status 77");
  free(arena);
}

static void test_arguments(void **state) {
  Fix *f = *state;
  Module *m = planned(f, control);
  BurinModel *model = compile(f, m, NULL, control);
  float x[7] = {0}, y[7];
  int64_t limit = 5, out[10], dims[8] = {1};
  const void *in[] = {&limit, x};
  void *outs[] = {out, y};
  char *arena = aligned_alloc(64, 1 << 16);
  BurinOptions o = {.size = sizeof o, .threads = 5};
  assert_int_equal(model->invoke(NULL, outs, dims, arena, NULL), BURIN_E_ARGUMENT);
  assert_int_equal(model->invoke(in, NULL, dims, arena, NULL), BURIN_E_ARGUMENT);
  assert_int_equal(model->invoke(in, outs, NULL, arena, NULL), BURIN_E_ARGUMENT);
  assert_int_equal(model->invoke((const void *[]){NULL, x}, outs, dims, arena, NULL),
                   BURIN_E_ARGUMENT);
  assert_int_equal(model->invoke(in, (void *[]){out, NULL}, dims, arena, NULL), BURIN_E_ARGUMENT);
  assert_int_equal(model->invoke(in, outs, dims, arena, &o), BURIN_E_ARGUMENT);
  assert_int_equal(model->invoke(in, outs, dims, NULL, NULL), BURIN_E_ARENA);
  assert_int_equal(model->invoke(in, outs, dims, arena + 32, NULL), BURIN_E_ARENA);
  static const int64_t bad[] = {
      -1, INT64_MIN, INT64_MAX, INT64_MAX / 28, INT64_C(1) << 60, (INT64_C(1) << 62) / 7 + 1};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    dims[0] = bad[i];
    assert_int_equal(model->invoke(in, outs, dims, arena, NULL), BURIN_E_DIMS);
  }
  dims[0] = INT64_C(1) << 45;
  assert_true(model->arena_size(dims, 1) == UINT64_MAX);
  dims[0] = 1;
  limit = 11; /* outside of the bounds of $k */
  assert_int_equal(model->invoke(in, outs, dims, arena, NULL), BURIN_E_DATA);
  dims[0] = 0; /* nothing in them: may be NULL */
  limit = 5;
  assert_int_equal(
      model->invoke((const void *[]){&limit, NULL}, (void *[]){out, NULL}, dims, arena, NULL),
      BURIN_OK);
  free(arena);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_program, setup, teardown),
      cmocka_unit_test_setup_teardown(test_options, setup, teardown),
      cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
