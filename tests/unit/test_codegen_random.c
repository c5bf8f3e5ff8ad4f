/* Random kernels, on this machine and on other architectures under the emulator. */
#include "tests/unit/codegen_fixture.h"

/* ---- random kernels ---- */
static const DType fuzz_types[] = {DT_F32, DT_I32, DT_U8, DT_I64, DT_F16, DT_F64, DT_I8};
enum { FUZZ_TYPES = 7, FUZZ_N = 4096 };

typedef struct Fuzz {
  Arena *a;
  uint64_t seed;
  int extent; /* of j */
} Fuzz;

static int pick(Fuzz *z, int n) { return (int)(next_random(&z->seed) % (uint64_t)n); }

/* An index below FUZZ_N. */
static const char *fuzz_index(Fuzz *z) {
  switch (pick(z, 9)) {
    case 0: return "j";
    case 1: return "i*137 + j";
    case 2: return "j*2 + i";
    case 3: return "i";
    case 4: return "j*3 + 1";
    case 5: return arena_printf(z->a, "%d - j + i*7", z->extent);
    case 6: return "floordiv(j, 3) + i*16";
    case 7: return "floormod(j*5 + i, 11)";
    default: return arena_printf(z->a, "min(max(cast<i64>(b1[j + i]), 0), %d)", FUZZ_N - 1);
  }
}

static const char *fuzz_guard(Fuzz *z) {
  switch (pick(z, 8)) {
    case 0: return " if i < 2";
    case 1: return " if j < 19";
    case 2: return " if (2 <= j) & (i < 3)";
    default: return "";
  }
}

static const char *fuzz_expr(Fuzz *z, int t, int depth);

static const char *fuzz_bool(Fuzz *z, int depth) {
  static const char *const ops[] = {"<", "<=", "==", "!="};
  const int t = pick(z, FUZZ_TYPES);
  if (pick(z, 4) == 0) return arena_printf(z->a, "(j < %d)", pick(z, 60));
  return arena_printf(z->a, "(%s %s %s)", fuzz_expr(z, t, depth - 1), ops[pick(z, 4)],
                      fuzz_expr(z, t, depth - 1));
}

static const char *fuzz_expr(Fuzz *z, int t, int depth) {
  const char *const name = dtype_text(fuzz_types[t]);
  const bool is_float = dtype_is_float(fuzz_types[t]);
  const int choice = depth <= 0 ? pick(z, 2) : pick(z, 12);
  switch (choice) {
    case 0: return arena_printf(z->a, "b%d[%s%s]", t, fuzz_index(z), fuzz_guard(z));
    case 1: return arena_printf(z->a, "%d%s", pick(z, 100), name);
    case 2:
      return arena_printf(z->a, "(%s + %s)", fuzz_expr(z, t, depth - 1),
                          fuzz_expr(z, t, depth - 1));
    case 3:
      return arena_printf(z->a, "(%s - %s)", fuzz_expr(z, t, depth - 1),
                          fuzz_expr(z, t, depth - 1));
    case 4:
      return arena_printf(z->a, "(%s * %s)", fuzz_expr(z, t, depth - 1),
                          fuzz_expr(z, t, depth - 1));
    case 5:
      return arena_printf(z->a, "max(%s, %s)", fuzz_expr(z, t, depth - 1),
                          fuzz_expr(z, t, depth - 1));
    case 6:
      return arena_printf(z->a, "min(%s, %s)", fuzz_expr(z, t, depth - 1),
                          fuzz_expr(z, t, depth - 1));
    case 7:
      return arena_printf(z->a, "select(%s, %s, %s)", fuzz_bool(z, depth - 1),
                          fuzz_expr(z, t, depth - 1), fuzz_expr(z, t, depth - 1));
    case 8:
    case 9:
      return arena_printf(z->a, "%s<%s>(%s)", choice == 8 ? "cast" : "sat", name,
                          fuzz_expr(z, pick(z, FUZZ_TYPES), depth - 1));
    case 10:
      return is_float ? arena_printf(z->a, "floor(%s)", fuzz_expr(z, t, depth - 1))
                      : arena_printf(z->a, "(%s / %s)", fuzz_expr(z, t, depth - 1),
                                     fuzz_expr(z, t, depth - 1));
    default: return arena_printf(z->a, "abs(%s)", fuzz_expr(z, t, depth - 1));
  }
}

static const char *fuzz_kernel(Fuzz *z) {
  StrBuf b = {.arena = z->a};
  const int out = pick(z, FUZZ_TYPES), acc = pick(z, FUZZ_TYPES);
  static const char *const loops[] = {" vector", " vector", " vector", "", " unroll"};
  static const char *const sums[] = {"sum", "max", "min"};
  z->extent = 1 + pick(z, 70);
  const bool symbolic = pick(z, 3) == 0, acc_float = dtype_is_float(fuzz_types[acc]);
  const char *const kind = symbolic ? " vector" : loops[pick(z, 5)];
  const char *const n = symbolic ? "$n" : arena_printf(z->a, "%d", z->extent);
  const char *const out_name = dtype_text(fuzz_types[out]), *const acc_name =
                                                                dtype_text(fuzz_types[acc]);
  sb_printf(&b, "module {\n  symbol $n 0 bound 70\n");
  for (int t = 0; t < FUZZ_TYPES; t++)
    sb_printf(&b, "  b%d : %s[%d] = input %d\n", t, dtype_text(fuzz_types[t]), FUZZ_N, t);
  sb_printf(&b,
            "  b7 : %s[4*71] = output 0\n  b8 : %s[4] = output 1\n  b9 : i64[$n] = input 7\n  "
            "inputs b0, b1, b2, b3, b4, b5, b6, b9\n  outputs b7, b8\n  kernel k {\n",
            out_name, acc_name);
  for (int t = 0; t < FUZZ_TYPES; t++)
    sb_printf(&b, "    param b%d : %s[%d] read align 1\n", t, dtype_text(fuzz_types[t]), FUZZ_N);
  sb_printf(&b, "    param b7 : %s[4*71] write align 1\n    param b8 : %s[4] write align 1\n",
            out_name, acc_name);
  sb_printf(
      &b,
      "    local t0 : %s[1] regs\n    for z in 0..4 { for y in 0..71 { b7[z*71 + y] = %d%s } }\n",
      acc_name, pick(z, 9), out_name);
  sb_printf(&b,
            "    for i in 0..4%s {\n      local t0\n      t0[0] = 1%s\n      for j in 0..%s%s {\n",
            pick(z, 2) ? " unroll" : "", acc_name, n, kind);
  if (pick(z, 3) == 0)
    sb_printf(&b, "        if %s {\n", fuzz_bool(z, 1)),
        sb_printf(&b, "          b7[i*71 + j] = %s\n        }\n", fuzz_expr(z, out, 2));
  else
    sb_printf(&b, "        b7[i*71 + j] = %s\n", fuzz_expr(z, out, 3));
  /* sums of floats depend on their order */
  sb_printf(&b, "        t0[0] %s= %s\n      }\n      b8[i] = t0[0]\n    }\n  }\n",
            sums[acc_float ? 1 + pick(z, 2) : pick(z, 3)], fuzz_expr(z, acc, 2));
  sb_printf(&b, "  steps {\n    call k(b0, b1, b2, b3, b4, b5, b6, b7, b8)\n  }\n}\n");
  return sb_str(&b);
}

/* ---- random grids of blocks ---- */
/* Another thread than j, for each a different one. */
static const char *fuzz_other(Fuzz *z) {
  switch (pick(z, 3)) {
    case 0: return "j";
    case 1: return arena_printf(z->a, "%d - j", z->extent - 1);
    default: return arena_printf(z->a, "floormod(j + %d, %d)", pick(z, 70), z->extent);
  }
}

/* Threads hand values to each other through t0, in rounds, and keep what they have in t1 and t2. */
static void fuzz_block(Fuzz *z, StrBuf *b, int out, int shared, int own) {
  const char *const threads = arena_printf(z->a, "for j in 0..%d thread {", z->extent);
  const char *const own_name = dtype_text(fuzz_types[own]);
  sb_printf(b, "local t0\n local t1\n local t2\n %s\n t1[0] = 1%s\n t1[1] = %s\n", threads,
            own_name, fuzz_expr(z, own, 2));
  sb_printf(b, "for q in 0..3 { t2[q] = cast<i64>(b0[q + j + i]) }\n t0[j] = %s }\n",
            fuzz_expr(z, shared, 2));
  sb_printf(b, "for k in 0..%d {\n %s\n t1[k + 0*j] max= cast<%s>(t0[%s])\n", 1 + pick(z, 2),
            threads, own_name, fuzz_other(z));
  sb_printf(b, "for q in 0..3 vector { t2[q] sum= cast<i64>(t0[%s]) * t2[0] } }\n", fuzz_other(z));
  sb_printf(b, "%s if j < %d { t0[%s] = %s } } }\n", threads, 1 + pick(z, 70), fuzz_other(z),
            fuzz_expr(z, shared, 2));
  sb_printf(b, "%s b7[i*71 + j] = cast<%s>(t1[1]) + %s + cast<%s>(t2[j*0 + 1])\n", threads,
            dtype_text(fuzz_types[out]), fuzz_expr(z, out, 1), dtype_text(fuzz_types[out]));
  sb_printf(b, "if j == 0 { b8[i] = t1[0]\n for y in %d..+%d { b7[i*71 + y] = 3 } } }\n", z->extent,
            71 - z->extent);
}

static const char *fuzz_grid(Fuzz *z) {
  StrBuf b = {.arena = z->a};
  const int out = pick(z, FUZZ_TYPES), own = pick(z, FUZZ_TYPES), shared = pick(z, FUZZ_TYPES);
  z->extent = 1 + pick(z, 70);
  sb_printf(&b, "module {\n  symbol $n 0\n");
  for (int t = 0; t < FUZZ_TYPES; t++)
    sb_printf(&b, "  b%d : %s[%d] = input %d\n", t, dtype_text(fuzz_types[t]), FUZZ_N, t);
  sb_printf(&b, "  b7 : %s[4*71] = output 0\n  b8 : %s[4] = output 1\n",
            dtype_text(fuzz_types[out]), dtype_text(fuzz_types[own]));
  sb_printf(&b, "  b9 : i64[$n] = input 7\n  inputs b0, b1, b2, b3, b4, b5, b6, b9\n");
  sb_printf(&b, "  outputs b7, b8\n  kernel k {\n");
  for (int t = 0; t < FUZZ_TYPES; t++)
    sb_printf(&b, "    param b%d : %s[%d] read align 1\n", t, dtype_text(fuzz_types[t]), FUZZ_N);
  sb_printf(&b, "    param b7 : %s[4*71] write align 1\n    param b8 : %s[4] write align 1\n",
            dtype_text(fuzz_types[out]), dtype_text(fuzz_types[own]));
  sb_printf(&b, "    local t0 : %s[%d] shared\n    local t1 : %s[2] stack\n",
            dtype_text(fuzz_types[shared]), z->extent, dtype_text(fuzz_types[own]));
  sb_printf(&b, "    local t2 : i64[3] stack\n    for i in 0..4 block {\n");
  fuzz_block(z, &b, out, shared, own);
  sb_printf(&b, "    }\n  }\n  steps {\n    call k(b0, b1, b2, b3, b4, b5, b6, b7, b8)\n  }\n}\n");
  return sb_str(&b);
}

/* A register tile whose rows are set, changed and read in ranges of their own: what a partly filled
 * vector leaves behind its row must not be seen. */
static const char *fuzz_tile(Fuzz *z) {
  const int rows = 1 + pick(z, 3), wide = 2 + pick(z, 34), first = pick(z, 3) ? 0 : pick(z, wide);
  const int columns = 1 + pick(z, wide - first), read = pick(z, 4) ? 1 + pick(z, wide) : 0;
  const char *const row = pick(z, 4) ? arena_printf(z->a, "m*%d", wide)
                                     : arena_printf(z->a, "%d - m*%d", (rows - 1) * wide, wide);
  z->extent = 0;
  const bool some = pick(z, 4) == 0;
  StrBuf b = {.arena = z->a};
  sb_printf(&b, "for i in 0..2 {\n local t0\n for j in 0..%d vector { t0[j] = cast<f32>(j) }\n",
            rows * wide);
  sb_printf(&b, "for k in 0..3 { for m in 0..%d unroll { for j in %d..+%d vector {\n %s", rows,
            first, columns, some ? "if b1[j] < 1 { " : "");
  sb_printf(&b, "t0[%s + j] %s b0[(i*%d + m)*3 + k]*b1[k*40 + j]%s } } }\n", row,
            pick(z, 3) ? "sum=" : "=", rows, some ? " }" : "");
  if (pick(z, 2)) sb_printf(&b, "t0[%d] sum= 1\n", pick(z, rows * wide));
  if (read)
    sb_printf(&b, "for m in 0..%d unroll { for j in 0..%d vector { b2[(i*%d + m)*%d + j] = ", rows,
              read, rows, read),
        sb_printf(&b, "t0[%s + j] } }\n", row);
  sb_printf(&b, "b2[%d + i] = t0[%d] }\n", 2 * rows * read, pick(z, rows * wide));
  return nest(&(Fix){.a = z->a}, "f32", "40", "160", arena_printf(z->a, "%d", 2 * rows * read + 2),
              arena_printf(z->a, "local t0 : f32[%d] regs\n", rows * wide), sb_str(&b));
}

/* ---- other architectures ---- */
static void check_emulated(Fix *f, const char *target, const char *text, int64_t n) {
  f->m = model_new(f->a, f->d);
  follow(f, target);
  Module *m = module_parse(f->m, text, "test");
  must(f, m != NULL, text);
  expand(f, m);
  name_tensors(f, m);
  int64_t syms[64] = {n};
  uint64_t seed = 7;
  Io in, want, got;
  for (int i = 0; i < m->inputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->inputs.data[i]];
    const int64_t count = size_of(f, b->count, syms);
    in.data[i] = arena_alloc(f->a, (size_t)(count * dtype_bytes(b->dtype)) + 16);
    fill(&seed, b->dtype, in.data[i], count);
  }
  for (int i = 0; i < m->outputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->outputs.data[i]];
    const int64_t bytes = size_of(f, b->count, syms) * dtype_bytes(b->dtype);
    want.data[i] = guarded(f, bytes);
    got.data[i] = guarded(f, bytes);
  }
  must(f, module_interpret(m, (const void *const *)in.data, want.data, syms), text);
  serialize(f, m, text);
  run_emulated(f, m, target_find(target), (const void *const *)in.data, got.data, syms,
               arena_printf(f->a, " --dim n=%d", (int)n), text);
  syms[0] = n;
  compare(f, m, &want, &got, syms, 1e-3, arena_printf(f->a, "target %s\n%s", target, text));
}

static void test_emulated(void **state) {
  static const char *const targets[] = {"aarch64", "armv7", "cortex-a72"};
  Fix *f = *state;
  if (system("qemu-arm --version >/dev/null 2>&1") != 0 ||
      system("qemu-aarch64 --version >/dev/null 2>&1") != 0)
    skip();
  const char *const count = getenv("BURIN_FUZZ_KERNELS"), *const seed = getenv("BURIN_FUZZ_SEED");
  const int n = count ? atoi(count) : 24;
  Arena *const outer = f->a;
  for (int i = 0; i < n; i++) {
    f->a = arena_new(0, NULL, NULL);
    Fuzz z = {f->a, (uint64_t)(seed ? atoi(seed) : 1) * 1000003u + (uint64_t)i, 0};
    for (int k = 0; k < 3; k++) next_random(&z.seed);
    const char *const text = i % 8 == 7 ? fuzz_grid(&z) : fuzz_kernel(&z);
    check_emulated(f, targets[i % 3], text, z.extent);
    arena_free(f->a);
    f->a = outer;
  }
  assert_int_equal(system(arena_printf(f->a, "rm -f %s/*.raw %s/program", f->dir, f->dir)), 0);
}

typedef const char *(*FuzzText)(Fuzz *z);

/* BURIN_FUZZ_KERNELS: how many, and BURIN_FUZZ_SEED: from where. */
static void check_random(Fix *f, FuzzText text_of, const char *const *targets, int n_targets,
                         int usual) {
  const char *const count = getenv("BURIN_FUZZ_KERNELS"), *const seed = getenv("BURIN_FUZZ_SEED");
  const int n = count ? atoi(count) : usual;
  Arena *const outer = f->a;
  for (int i = 0; i < n; i++) {
    f->a = arena_new(0, NULL, NULL);
    Fuzz z = {f->a, (uint64_t)(seed ? atoi(seed) : 1) * 1000003u + (uint64_t)i, 0};
    for (int k = 0; k < 3; k++) next_random(&z.seed);
    const char *const text = text_of(&z);
    const int64_t extent = z.extent;
    check_on(f, targets[i % n_targets], text, 1, &extent, 1e-3);
    arena_free(f->a);
    f->a = outer;
  }
}

static void test_random_kernels(void **state) {
  check_random(*state, fuzz_kernel, (const char *const[]){NULL, "x86-64-v3", "x86-64-v2"}, 3, 60);
}

static void test_random_grids(void **state) {
  check_random(*state, fuzz_grid, (const char *const[]){NULL, "x86-64-v2", "c", "x86-64-v3"}, 4,
               32);
}

static void test_random_tiles(void **state) {
  check_random(*state, fuzz_tile, (const char *const[]){NULL, "x86-64-v3", "x86-64-v2"}, 3, 60);
}

/* Without a barrier a grid is refused, or it is caught in every order, or nothing depends on it. */
static bool is_caught(Fix *f, const char *text, int barrier) {
  static char in[8][FUZZ_N * 8], out[ORDER_SHUFFLED + 1][2][4 * 71 * 8];
  const void *ins[8];
  uint64_t seed = 7;
  bool ok[ORDER_SHUFFLED + 1];
  for (int order = ORDER_FORWARD; order <= ORDER_SHUFFLED; order++) {
    f->d = diag_new(f->a);
    f->m = model_new(f->a, f->d);
    Module *const m = module_parse(f->m, text, "test");
    must(f, m != NULL && drop_barrier(f, m, barrier), text);
    for (int i = 0; i < m->inputs.n; i++) {
      if (order == ORDER_FORWARD && i < FUZZ_TYPES)
        fill(&seed, m->buffers.data[m->inputs.data[i]].dtype, in[i], FUZZ_N);
      ins[i] = in[i];
    }
    memset(out[order], 0, sizeof out[order]);
    int64_t syms[4] = {1};
    ok[order] = module_verify(m, "test") &&
                module_interpret_in(m, (ThreadOrder)order, ins,
                                    (void *const[]){out[order][0], out[order][1]}, syms);
    if (!ok[order] && diag_errors(f->d) != 1) fail_msg("no error, or several\n%s", text);
    if (ok[order] != ok[0]) fail_msg("order %d: %d, not %d\n%s", order, ok[order], ok[0], text);
    if (ok[order] && memcmp(out[order], out[0], sizeof out[0]) != 0)
      fail_msg("order %d: other results\n%s", order, text);
  }
  return !ok[0];
}

static void test_missing_barriers(void **state) {
  Fix *f = *state;
  int caught = 0, harmless = 0;
  Arena *const outer = f->a;
  for (int i = 0; i < 40; i++) {
    f->a = arena_new(0, NULL, NULL);
    Fuzz z = {f->a, 77u * 1000003u + (uint64_t)i, 0};
    const char *const text = fuzz_grid(&z);
    *(is_caught(f, text, 0) ? &caught : &harmless) += 1;
    arena_free(f->a);
    f->a = outer;
  }
  assert_true(caught >= 10 && harmless >= 2);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_emulated, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random_kernels, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random_grids, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random_tiles, setup, teardown),
      cmocka_unit_test_setup_teardown(test_missing_barriers, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
