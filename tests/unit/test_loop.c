/* Loop IR: text round trips, the verifier, the interpreter, loop passes. Kernels are written as
 * text. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include "ir/loop/loop.h"
#include "passes/pass.h"
#include "tests/support/control_program.h"

#include <cmocka.h>

bool pass_merge_kernels(PassCtx *c);
bool pass_simplify_loops(PassCtx *c);

typedef struct Fix {
  Arena *a;
  Diag *d;
  Model *m;
} Fix;

static int setup(void **state) {
  Fix *f = test_malloc(sizeof *f);
  f->a = arena_new(0, NULL, NULL);
  f->d = diag_new(f->a);
  f->m = model_new(f->a, f->d);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  Fix *f = *state;
  arena_free(f->a);
  test_free(f);
  return 0;
}

static const char *text_of(const Fix *f, const Module *m) {
  StrBuf b = {.arena = f->a};
  module_print(m, &b);
  return sb_str(&b);
}

/* Parses, verifies, and checks that the text comes back, from this pool and from a new one. */
static Module *load(Fix *f, const char *text) {
  Module *m = module_parse(f->m, text, "test");
  if (!m) diag_print(f->d, stderr);
  assert_non_null(m);
  if (!module_verify(m, "test")) diag_print(f->d, stderr);
  assert_int_equal(diag_errors(f->d), 0);
  const char *once = text_of(f, m);
  Module *again = module_parse(f->m, once, "again");
  if (!again) diag_print(f->d, stderr);
  assert_non_null(again);
  assert_string_equal(text_of(f, again), once);
  Fix g = {f->a, f->d, model_new(f->a, f->d)};
  g.m->consts.data = f->m->consts.data;
  g.m->consts.n = f->m->consts.n;
  Module *other = module_parse(g.m, once, "other");
  assert_non_null(other);
  assert_string_equal(text_of(&g, other), once);
  return m;
}

static const char matmul[] =
    "module threads 1 {\n"
    "  symbol $n 1\n"
    "  b0 : f32[$n*3] = input 0 \"a \\\"x\\\"\"\n"
    "  b1 : f32[6] = weight {1, 2, 3, 4, 5, 6}\n"
    "  b2 : f32[$n*2] = arena\n"
    "  b3 : f32[$n*2] = output 0\n"
    "  inputs b0\n"
    "  outputs b3\n"
    "  kernel k0_matmul flops $n*12 grain 2.5 {\n"
    "    param b0 : f32[$n*3] read align 64\n"
    "    param b1 : f32[6] read const align 64\n"
    "    param b2 : f32[$n*2] write align 64\n"
    "    local t0 : f32[2] regs \"acc\"\n"
    "    for i0 in 0..$n parallel {\n"
    "      local t0\n"
    "      for j1 in 0..2 unroll {\n"
    "        t0[j1] = 0\n"
    "      }\n"
    "      for k2 in 0..3 {\n"
    "        for j3 in 0..2 vector {\n"
    "          t0[j3] sum= b0[i0*3 + k2] * b1[k2*2 + j3]\n"
    "        }\n"
    "      }\n"
    "      for j4 in 0..2 vector {\n"
    "        prefetch b0[i0*3]\n"
    "        b2[i0*2 + j4] = t0[j4]\n"
    "      }\n"
    "    }\n"
    "  }\n"
    "  kernel k1_oracle {\n"
    "    param b0 : f32[$n*2] read align 4\n"
    "    param b1 : f32[$n*2] write align 4\n"
    "    for i0 in 0..$n {\n"
    "      for j1 in 1..+1 {\n"
    "        b1[i0*2] = sum(r < 2: b0[i0*2 + r])\n"
    "        if i0 < 1 {\n"
    "          b1[i0*2 + j1] = max(b0[i0*2], 100)\n"
    "        } else {\n"
    "          b1[i0*2 + j1] = b0[i0*2 + 7 if i0 < 0]\n"
    "        }\n"
    "      }\n"
    "    }\n"
    "  }\n"
    "  steps {\n"
    "    call k0_matmul(b0, b1, b2)\n"
    "    call k1_oracle(b2, b3)\n"
    "  }\n"
    "}\n";

static void test_matmul(void **state) {
  Fix *f = *state;
  Module *m = load(f, matmul);
  const float a[] = {1, 2, 3, 4, 5, 6};
  float out[4] = {0};
  int64_t syms[8] = {2};
  const void *ins[] = {a};
  void *outs[] = {out};
  const bool ok = module_interpret(m, ins, outs, syms);
  if (!ok) diag_print(f->d, stderr);
  assert_true(ok);
  assert_true(out[0] == 22 + 28 && out[1] == 100 && out[2] == 49 + 64 && out[3] == 0);
  assert_false(kernel_has_reduce(m->kernels.data[0]));
  assert_true(kernel_has_reduce(m->kernels.data[1]));
}

static const char simple[] =
    "module {\n"
    "  b0 : %s[%d] = input 0\n"
    "  b1 : %s[%d] = output 0\n"
    "  kernel k {\n"
    "    param b0 : %s[%d] read align 1\n"
    "    param b1 : %s[%d] write align 1\n"
    "    for i in 0..%d {\n"
    "      b1[i] = %s\n"
    "    }\n"
    "  }\n"
    "  steps {\n"
    "    call k(b0, b1)\n"
    "  }\n"
    "}\n";

static bool run_simple(Fix *f, const char *t, int n, int extent, const char *e, const void *in,
                       void *out) {
  char *text = arena_printf(f->a, simple, t, n, t, n, t, n, t, n, extent, e);
  Module *m = load(f, text);
  const void *ins[] = {in};
  void *outs[] = {out};
  return module_interpret(m, ins, outs, NULL);
}

static void test_types(void **state) {
  Fix *f = *state;
  const uint8_t u[4] = {250, 1, 128, 7};
  uint8_t v[4];
  assert_true(run_simple(f, "u8", 4, 4, "b0[i] + b0[3 - i]", u, v));
  assert_true(v[0] == 1 && v[1] == 129 && v[2] == 129 && v[3] == 1);
  const int64_t x[2] = {-7, INT64_MIN};
  int64_t y[2];
  assert_true(run_simple(f, "i64", 2, 2, "floordiv(b0[i], 2) + floormod(b0[i], 4)", x, y));
  assert_true(y[0] == -4 + 1 && y[1] == INT64_MIN / 2);
  const uint16_t h[2] = {0x3C00, 0x7BFF}; /* 1, 65504 */
  uint16_t g[2];
  assert_true(run_simple(f, "f16", 2, 2, "b0[i] + b0[i]", h, g));
  assert_true(g[0] == 0x4000 && g[1] == 0x7C00);
  const double d[2] = {0.1, NAN};
  double r[2];
  assert_true(
      run_simple(f, "f64", 2, 2, "select(isnan(b0[i]), fma(b0[0], b0[0], b0[0]), b0[i])", d, r));
  assert_true(r[0] == 0.1 && fabs(r[1] - 0.11) < 1e-15);
}

static void test_bounds(void **state) {
  Fix *f = *state;
  const float a[4] = {0};
  float b[4];
  assert_false(run_simple(f, "f32", 4, 5, "b0[0]", a, b));
  assert_int_equal(diag_errors(f->d), 1);
}

static void test_bounds_of_argument(void **state) {
  Fix *f = *state;
  Module *m =
      module_parse(f->m,
                   "module { b0 : f32[4] = input 0\n b1 : f32[3] = output 0\n"
                   "kernel k { param b0 : f32[4] read\n param b1 : f32[4] write\n b1[0] = b0[0] }\n"
                   "steps { call k(b0, b1) } }",
                   "test");
  assert_non_null(m);
  float a[4] = {0}, b[4];
  const void *ins[] = {a};
  void *outs[] = {b};
  assert_false(module_interpret(m, ins, outs, NULL));
}

static const char control[] = "module {\n" CONTROL_BUFFERS CONTROL_KERNELS CONTROL_STEPS
                              "    check at_least $t, $k\n" CONTROL_END;

static void test_control(void **state) {
  Fix *f = *state;
  Module *m = load(f, control);
  int64_t limit = 4, out[10] = {0}, syms[8] = {0};
  const void *ins[] = {&limit};
  void *outs[] = {out};
  const bool ok = module_interpret(m, ins, outs, syms);
  if (!ok) diag_print(f->d, stderr);
  assert_true(ok);
  const int64_t want[10] = {0, 0, 1, 3, 3, 0, 0, 0, 4, 4};
  assert_memory_equal(out, want, sizeof want);
  limit = 11; /* outside of what the symbol may be */
  assert_false(module_interpret(m, ins, outs, syms));
  limit = 5; /* four iterations: less than the check asks for */
  assert_false(module_interpret(m, ins, outs, syms));
}

static bool parses(const char *text) {
  Arena *a = arena_new(0, NULL, NULL);
  Model *m = model_new(a, diag_new(a));
  Module *mod = module_parse(m, text, "x");
  if (mod) module_verify(mod, "test");
  if (!mod) assert_true(diag_errors(m->diag) > 0);
  arena_free(a);
  return mod != NULL;
}

/* Cut, doubled and damaged texts must not crash. */
static void test_damage(void **state) {
  const char *const texts[] = {matmul, control};
  for (int t = 0; t < 2; t++) {
    const size_t n = strlen(texts[t]);
    char *s = test_malloc(n + 1);
    for (size_t i = 0; i < n; i += 7) {
      memcpy(s, texts[t], n + 1);
      s[i] = 0;
      parses(s);
      memcpy(s, texts[t], n + 1);
      s[i] = "0b[({-9\"$"[i % 9];
      parses(s);
      memmove(s + i, texts[t] + i + 3, n - i >= 3 ? n - i - 2 : 1);
      parses(s);
    }
    test_free(s);
  }
  char deep[4096] = "module { kernel k { ";
  for (int i = 0; i < 300; i++) strcat(deep, "if true { ");
  assert_false(parses(deep));
  assert_false(parses(""));
  assert_false(parses("module { steps { } } x"));
}

/* Each line is a kernel body that the verifier must refuse. */
static void test_verify(void **state) {
  Fix *f = *state;
  const char *const bodies[] = {
      "b1[0] = b0[0]",
      "b0[0] = 1",
      "t0[0] = 1.0",
      "local t0 t0[$n] = 1.0",
      "local t0 t0[2] = 1.0",
      "for i in 0..$n unroll { b1[i] = 1.0 }",
      "for i in 0..4 { for j in 0..4 parallel { b1[i] = 1.0 } }",
      "for i in 0..4 parallel { b1[i] = 1.0 } for j in 0..4 parallel { b1[j] = 1.0 }",
      "for i in 0..4 vector { for j in 0..4 vector { b1[i] = 1.0 } }",
      "for i in 0..4 { for i in 0..4 { b1[i] = 1.0 } }",
      "for i in 0..4 { local t0 t0[0] = 1.0 } b1[0] = t0[0]",
      "for i in 0..4 { local t0 t0[i] = 1.0 }",
  };
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
    const char *text = arena_printf(
        f->a,
        "module { symbol $n 1 kernel k { param b0 : u8[4] read param b1 : f32[4] write "
        "local t0 : f32[2] regs %s } steps { } }",
        bodies[i]);
    Arena *a = arena_new(0, NULL, NULL);
    Model *model = model_new(a, diag_new(a));
    Module *m = module_parse(model, text, "x");
    if (!m) diag_print(model->diag, stderr);
    assert_non_null(m);
    if (module_verify(m, "test")) fail_msg("accepted: %s", bodies[i]);
    assert_int_equal(diag_exit_status(model->diag), 70);
    arena_free(a);
  }
}

/* The interpreter refuses to read what nobody wrote, or what another buffer wrote since. */
static void test_unwritten(void **state) {
  Fix *f = *state;
  const struct {
    bool ok;
    const char *steps;
  } programs[] = {
      {true, "call set(b2) call add(b2, b1)"},
      {false, "call add(b2, b1)"},
      {false, "call part(b2) call add(b2, b1)"},
      {true, "call part(b2) copy b0 -> b2 at (3) count 1 call add(b2, b1)"},
      {false, "call part(b1)"},
      {false, "call set(b2) call set(b3) call add(b2, b1)"},
      {true, "call set(b2) call add(b2, b3) call add(b3, b1)"},
      {false, "call part(b2) copy b2 -> b1 count 4"},
      {false, "call set(b4) copy b0 -> b1 count 4"},
  };
  for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
    Arena *a = arena_new(0, NULL, NULL);
    Model *model = model_new(a, diag_new(a));
    const char *text = arena_printf(
        f->a,
        "module { b0 : i64[4] = input 0 b1 : i64[4] = output 0 b2 : i64[4] = arena at (0) "
        "b3 : i64[4] = arena at (0) b4 : i64[4] = arena at (64) inputs b0 outputs b1 arena 64 "
        "scratch 0 "
        "lower -1 "
        "kernel set { param b0 : i64[4] write align 8 for i in 0..4 { b0[i] = i } } "
        "kernel part { param b0 : i64[4] write align 8 for i in 0..3 { b0[i] = i } } "
        "kernel add { param b0 : i64[4] read align 8 param b1 : i64[4] write align 8 "
        "for i in 0..4 { b1[i] = b0[i] + 1 } } steps { %s } }",
        programs[i].steps);
    Module *m = module_parse(model, text, "x");
    if (!m) diag_print(model->diag, stderr);
    assert_non_null(m);
    int64_t in[4] = {0}, out[4];
    const void *ins[] = {in};
    void *outs[] = {out};
    if (module_interpret(m, ins, outs, NULL) != programs[i].ok)
      fail_msg("%s: %s", programs[i].ok ? "refused" : "accepted", programs[i].steps);
    arena_free(a);
  }
}

/* A runtime symbol is assigned before it is read, on every path. */
static void test_symbols(void **state) {
  Fix *f = *state;
  const struct {
    bool ok;
    const char *out, *steps;
  } programs[] = {
      {true, "4", "sym $k from b0 min 0 max 4 call use(b1)"},
      {false, "4", "call use(b1) sym $k from b0 min 0 max 4"},
      {true, "4", "if b2 { sym $k = 1 } else { sym $k = 2 } call use(b1)"},
      {false, "4", "if b2 { sym $k = 1 } else { } call use(b1)"},
      {false, "4", "loop cond - iter $i trips $t limit 3 { sym $k = $i } call use(b1)"},
      {true, "4", "loop cond - iter $i trips $t limit 3 { sym $k = $i call use(b1) }"},
      {false, "4", "loop cond - iter $i trips $t limit 3 { call use(b1) sym $k = $i }"},
      {false, "4", "loop cond - iter $i trips $t limit $k { }"},
      {false, "4", "loop cond - iter $i trips $t limit 3 { check at_most $t, 3 }"},
      {true, "4", "loop cond - iter $i trips $t limit 3 { } check at_most $t, 3"},
      {false, "4", "loop cond - iter $i trips $t limit 3 { } check at_most $i, 3"},
      {false, "4", "copy b0 -> b3 at ($k) count 1"},
      {false, "4", "copy b0 -> b3 count $k"},
      {false, "4", "sym $t = $k"},
      {false, "4", "sym $t from b0 min 0 max $k"},
      {false, "4", "check at_most 1, $k"},
      {false, "$k", "copy b0 -> b1 count 1"},
      {true, "$k", "sym $k from b0 min 0 max 4 copy b0 -> b1 count 1"},
      {true, "4", "extern rt_nonzero(i64[4] b0) -> (i64[1,$k] b3) words {} call use(b1)"},
      {false, "4", "extern rt_nonzero(i64[$k] b0) -> (i64[1,$k] b3) words {}"},
  };
  for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
    Arena *a = arena_new(0, NULL, NULL);
    Model *model = model_new(a, diag_new(a));
    const char *text = arena_printf(
        f->a,
        "module { symbol $i 0 runtime bound 4 symbol $t 0 runtime bound 4 symbol $k 0 runtime "
        "bound 4 "
        "b0 : i64[4] = input 0 b1 : i64[%s] = output 0 b2 : bool[1] = input 1 b3 : i64[8] = arena "
        "inputs b0, b2 outputs b1 kernel use { param b0 : i64[4] write for j in 0..$k { b0[j] = j "
        "} "
        "} steps { %s } }",
        programs[i].out, programs[i].steps);
    Module *m = module_parse(model, text, "x");
    if (!m) diag_print(model->diag, stderr);
    assert_non_null(m);
    if (module_verify(m, "test") != programs[i].ok)
      fail_msg("%s: %s", programs[i].ok ? "refused" : "accepted", programs[i].steps);
    arena_free(a);
  }
}

static const Expr *swap_vars(void *user, const Expr *leaf) {
  const Expr *const *v = user;
  return leaf == v[0] ? v[1] : NULL;
}

static void test_rewrite(void **state) {
  Fix *f = *state;
  Module *m = load(f, matmul);
  Kernel *k = m->kernels.data[0];
  const Expr *v[2] = {k->body->loop.var,
                      ex_var_named(f->m->pool, "zz", ex_i64(f->m->pool, 0),
                                   expr_var_extent(f->m->pool, k->body->loop.var->id))};
  Stmt *s = stmt_rewrite(f->a, f->m->pool, k->body, swap_vars, v);
  assert_ptr_equal(s->loop.var, v[1]);
  k->body = s;
  StrBuf b = {.arena = f->a};
  kernel_print(m, k, &b);
  assert_non_null(strstr(sb_str(&b), "for zz in 0..$n parallel"));
  assert_null(strstr(sb_str(&b), "i0"));
  assert_true(module_verify(m, "rewrite"));
}

static void test_merge(void **state) {
  Fix *f = *state;
  Module *m =
      load(f,
           "module {\n b0 : f32[8] = input 0\n b1 : f32[8] = arena\n b2 : f32[8] = output 0\n"
           "kernel k0 { param b0 : f32[8] read align 4 \"x\" param b1 : f32[8] write align 4\n"
           "for i in 0..8 { b1[i] = sum(r < 3: b0[i] + 1.0) } }\n"
           "kernel k1 { param b0 : f32[8] read align 4 param b1 : f32[8] write align 4\n"
           "for j in 0..8 { b1[j] = sum(s < 4: b0[j] + 1.0) } }\n"
           "kernel k2 { param b0 : f32[8] read align 4 \"y\" param b1 : f32[8] write align 4\n"
           "for z in 0..8 { b1[z] = sum(q < 3: b0[z] + 1.0) } }\n"
           "steps { call k0(b0, b1) call k1(b1, b2) if b0 { call k2(b1, b2) } } }\n");
  PassCtx c = {.model = f->m, .module = m, .scratch = f->a};
  assert_true(pass_merge_kernels(&c));
  assert_int_equal(m->kernels.n, 2);
  assert_string_equal(m->kernels.data[1]->name, "k1");
  assert_ptr_equal(m->steps->next->next->branch.then->call.kernel, m->kernels.data[0]);
  assert_true(c.changed);
}

static void test_simplify(void **state) {
  Fix *f = *state;
  Module *m =
      load(f,
           "module {\n kernel k { param b0 : f32[8] write align 4\n"
           "for i in 3..+1 { for j in 0..8 { b0[j + i - 3] = cast<f32>(i) } for u in 0..8 { } }\n"
           "if true { b0[0] = 1.0 } }\n"
           "steps { } }\n");
  PassCtx c = {.model = f->m, .module = m, .scratch = f->a};
  assert_true(pass_simplify_loops(&c));
  assert_true(c.changed && module_verify(m, "simplify"));
  const Stmt *s = m->kernels.data[0]->body;
  assert_true(s->kind == ST_FOR && s->next->kind == ST_STORE && !s->next->next);
  assert_string_equal(expr_text(f->m->pool, s->loop.body->access.index),
                      expr_text(f->m->pool, s->loop.var));
  assert_string_equal(expr_text(f->m->pool, s->loop.body->access.value), "3f32");
  c.changed = false;
  assert_true(pass_simplify_loops(&c) && !c.changed);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_matmul),    T(test_types),   T(test_bounds), T(test_bounds_of_argument),
      T(test_control),   T(test_damage),  T(test_verify), T(test_symbols),
      T(test_unwritten), T(test_rewrite), T(test_merge),  T(test_simplify)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
