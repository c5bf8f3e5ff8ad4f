/* Code generation: programs written as loop IR are compiled to a shared object, loaded, run, and
 * compared with the interpreter, over element types, extents with and without tails, locals, guards
 * and reductions. */
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "codegen/codegen.h"
#include "passes/pass.h"
#include "runtime/abi.h"

enum { MAX_IO = 32 };

typedef struct Fix {
  Arena *a;
  Diag *d;
  Model *m;
  char dir[64];
  int n;
} Fix;

static int setup(void **state) {
  Fix *f = test_malloc(sizeof *f);
  f->n = 0;
  snprintf(f->dir, sizeof f->dir, "/tmp/burin_codegen_XXXXXX");
  assert_non_null(mkdtemp(f->dir));
  f->a = arena_new(0, NULL, NULL);
  f->d = diag_new(f->a);
  f->m = model_new(f->a, f->d);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  Fix *f = *state;
  rmdir(f->dir);
  arena_free(f->a);
  test_free(f);
  return 0;
}

static void must(const Fix *f, bool ok, const char *text) {
  if (ok) return;
  diag_print(f->d, stderr);
  fprintf(stderr, "%s\n", text);
  fail();
}

static uint64_t next_random(uint64_t *s) {
  *s = *s * 6364136223846793005u + 1442695040888963407u;
  return *s >> 33;
}

/* Values in and around the range of the type; now and then a special one. */
static void fill(uint64_t *seed, DType t, void *p, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    char *at = (char *)p + i * dtype_bytes(t);
    const uint64_t r = next_random(seed);
    if (dtype_is_float(t)) {
      double v = ((double)(r % 20001) - 10000) / (r & 1 ? 1000 : 16);
      if (r % 97 == 0) v = NAN;
      if (r % 89 == 0) v = r & 2 ? INFINITY : -INFINITY;
      if (r % 61 == 0) v *= 1e-6;
      if (r % 67 == 0) v *= 1e9;
      dtype_store_f(t, at, v);
    } else {
      dtype_store_i(t, at, t == DT_BOOL ? (int64_t)(r & 1) : (int64_t)r - (1 << 30));
      if (r % 13 == 0) dtype_store_i(t, at, 0);
      if (r % 31 == 0) dtype_store_i(t, at, -1);
      if (r % 43 == 0)
        dtype_store_i(
            t, at,
            dtype_rows[t].cls == DC_SINT ? (int64_t)(UINT64_MAX << (dtype_rows[t].bits - 1)) : 1);
    }
  }
}

static bool close_enough(DType t, const void *a, const void *b, double tolerance) {
  if (!dtype_is_float(t)) return dtype_load_i(t, a) == dtype_load_i(t, b);
  const double x = dtype_load_f(t, a), y = dtype_load_f(t, b);
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y);
  return x == y || fabs(x - y) <= tolerance * (1 + fabs(x));
}

bool pass_expand_math(PassCtx *c);

/* As the driver does before code generation. NULL: this machine. */
static void follow(Fix *f, const char *target) {
  Target native;
  const Target *t = target ? target_find(target) : &native;
  if (!target) assert_true(target_native(&native));
  *expr_pool_rules(f->m->pool) = target_float_rules(t);
}
static void expand(Fix *f, Module *m) {
  PassCtx c = {.model = f->m, .module = m, .scratch = f->a};
  assert_true(pass_expand_math(&c));
}

static BurinModel *compile(Fix *f, Module *m, const char *target, const char *text) {
  Target native;
  const Target *t = target ? target_find(target) : &native;
  if (!target) assert_true(target_native(&native));
  const CodegenOptions o = {.emit = EMIT_SHARED,
                            .output = arena_printf(f->a, "%s/m%d.so", f->dir, f->n),
                            .name = "m",
                            .opt_level = 3,
                            .jobs = 1};
  CodegenStats stats;
  must(f, codegen_write(m, t, &o, &stats), text);
  f->n++;
  void *lib = dlopen(o.output, RTLD_NOW | RTLD_LOCAL);
  if (!lib) fprintf(stderr, "%s\n", dlerror());
  assert_non_null(lib);
  unlink(o.output);
  BurinModel *(*info)(void) = (BurinModel * (*)(void)) dlsym(lib, "m_info");
  assert_non_null(info);
  return info();
}

typedef struct Io {
  void *data[MAX_IO];
} Io;

static int64_t size_of(Fix *f, const Expr *e, const int64_t *syms) {
  for (int i = 0; i < expr_symbol_count(f->m->pool); i++) {
    Symbol *s = expr_symbol(f->m->pool, i);
    if (!s->runtime)
      e = expr_subst(f->m->pool, e, ex_sym(f->m->pool, s->name), ex_i64(f->m->pool, syms[i]));
  }
  e = expr_upper(f->m->pool, e, NULL);
  int64_t n = -1;
  assert_true(e && expr_is_const(e, &n));
  return n;
}

/* Guard bytes around outputs must stay as they were. */
enum { GUARD = 64 };
static void *guarded(Fix *f, int64_t bytes) {
  char *p = arena_alloc(f->a, (size_t)bytes + 2 * GUARD);
  memset(p, 0x5a, (size_t)bytes + 2 * GUARD);
  return p + GUARD;
}
static bool guards_ok(const void *data, int64_t bytes) {
  const char *p = (const char *)data - GUARD;
  for (int i = 0; i < GUARD; i++)
    if (p[i] != 0x5a || p[GUARD + bytes + i] != 0x5a) return false;
  return true;
}

static void compare(Fix *f, const Module *m, const Io *want, const Io *got, const int64_t *syms,
                    double tolerance, const char *text) {
  for (int i = 0; i < m->outputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->outputs.data[i]];
    const int64_t n = size_of(f, b->count, syms);
    const int bytes = dtype_bytes(b->dtype);
    if (!guards_ok(got->data[i], n * bytes)) {
      fprintf(stderr, "output %d: written outside\n%s\n", i, text);
      fail();
    }
    for (int64_t k = 0; k < n; k++) {
      const char *x = (char *)want->data[i] + k * bytes, *y = (char *)got->data[i] + k * bytes;
      if (close_enough(b->dtype, x, y, tolerance)) continue;
      fprintf(stderr, "output %d[%d]: interpreter %.9g, code %.9g\n%s\n", i, (int)k,
              dtype_load_f(b->dtype, x), dtype_load_f(b->dtype, y), text);
      fail();
    }
  }
}

/* Runs text on `target` (NULL: this machine) with the given symbol values, by symbol name order in
 * the text. */
static void check_on(Fix *f, const char *target, const char *text, int n_syms,
                     const int64_t *values, double tolerance) {
  f->m = model_new(f->a, f->d);
  follow(f, target);
  Module *m = module_parse(f->m, text, "test");
  must(f, m != NULL, text);
  expand(f, m);
  must(f, module_verify(m, "test"), text);
  int64_t syms[64] = {0};
  for (int i = 0; i < n_syms; i++) syms[i] = values[i];
  uint64_t seed = 7;
  Io in, want, got;
  for (int i = 0; i < m->inputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->inputs.data[i]];
    const int64_t n = size_of(f, b->count, syms);
    in.data[i] = (char *)arena_alloc(f->a, (size_t)(n * dtype_bytes(b->dtype)) + 256) +
                 dtype_bytes(b->dtype); /* not aligned */
    fill(&seed, b->dtype, in.data[i], n);
  }
  for (int i = 0; i < m->outputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->outputs.data[i]];
    const int64_t bytes = size_of(f, b->count, syms) * dtype_bytes(b->dtype);
    want.data[i] = guarded(f, bytes);
    got.data[i] = guarded(f, bytes);
  }
  BurinModel *model = compile(f, m, target, text);
  int64_t dims[64];
  memcpy(dims, syms, sizeof dims);
  must(f, module_interpret(m, (const void *const *)in.data, want.data, syms), text);
  const uint64_t bytes = model->arena_size(dims, 1);
  void *arena = aligned_alloc(64, bytes + 64);
  memset(arena, 0xFF, bytes + 64);
  const int32_t status = model->invoke((const void *const *)in.data, got.data, dims, arena, NULL);
  free(arena);
  assert_int_equal(status, BURIN_OK);
  compare(f, m, &want, &got, syms, tolerance,
          arena_printf(f->a, "target %s\n%s", target ? target : "native", text));
}

static void check(Fix *f, const char *text) {
  check_on(f, NULL, text, 0, NULL, 1e-5);
  check_on(f, "x86-64-v3", text, 0, NULL, 1e-5);
  check_on(f, "x86-64-v2", text, 0, NULL, 1e-5);
}

/* ---- elementwise ---- */
/* out[i] = expr over a, b (same type) and maybe a cast. */
static const char *elementwise(Fix *f, DType in, DType out, const char *loop, int n,
                               const char *expr) {
  return arena_printf(f->a,
                      "module {\n"
                      "  b0 : %s[%d] = input 0\n  b1 : %s[%d] = input 1\n  b2 : %s[%d] = output 0\n"
                      "  inputs b0, b1\n  outputs b2\n"
                      "  kernel k {\n"
                      "    param b0 : %s[%d] read align 1\n    param b1 : %s[%d] read align 1\n"
                      "    param b2 : %s[%d] write align 1\n"
                      "    for i in 0..%d%s {\n      b2[i] = %s\n    }\n  }\n"
                      "  steps {\n    call k(b0, b1, b2)\n  }\n}\n",
                      dtype_text(in), n, dtype_text(in), n, dtype_text(out), n, dtype_text(in), n,
                      dtype_text(in), n, dtype_text(out), n, n, loop, expr);
}

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

/* ---- loop nests ---- */
/* A kernel over b0, b1 (inputs of na, nb elements) and b2 (output of nc), with its body and locals. */
static const char *nest(Fix *f, const char *type, const char *na, const char *nb, const char *nc,
                        const char *locals, const char *body) {
  return arena_printf(
      f->a,
      "module {\n  symbol $n 0\n  b0 : %s[%s] = input 0\n  b1 : %s[%s] = input 1\n  b2 : %s[%s] = "
      "output 0\n"
      "  inputs b0, b1\n  outputs b2\n  kernel k {\n    param b0 : %s[%s] read align 1\n"
      "    param b1 : %s[%s] read align 1\n    param b2 : %s[%s] write align 1\n%s%s  }\n"
      "  steps {\n    call k(b0, b1, b2)\n  }\n}\n",
      type, na, type, nb, type, nc, type, na, type, nb, type, nc, locals, body);
}

static void check_all(Fix *f, const char *text, int64_t n) {
  static const char *const targets[] = {NULL, "x86-64-v2", "x86-64-v3"};
  for (int t = 0; t < 3; t++) check_on(f, targets[t], text, 1, &n, 1e-4);
}

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

/* ---- other architectures: a program under the emulator, tensors as raw files ---- */
static void name_tensors(Fix *f, Module *m) {
  Graph *g = graph_new(f->m, NULL, "main");
  f->m->main = g;
  for (int i = 0; i < m->inputs.n + m->outputs.n; i++) {
    const bool in = i < m->inputs.n;
    const Buffer *b = &m->buffers.data[in ? m->inputs.data[i] : m->outputs.data[i - m->inputs.n]];
    Value *v =
        value_new(f->m, arena_printf(f->a, "%c%d", in ? 'x' : 'y', in ? i : i - m->inputs.n));
    value_set_tensor(f->m, v, b->dtype, 1, (const Expr *const[]){b->count});
    if (in)
      vec_push(f->a, &g->inputs, v);
    else
      vec_push(f->a, &g->outputs, v);
  }
}

static void write_file(const char *path, const void *data, size_t n) {
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_true(n == 0 || fwrite(data, n, 1, out) == 1);
  fclose(out);
}
static void read_file(const char *path, void *data, size_t n, const char *text) {
  FILE *in = fopen(path, "rb");
  if (!in || (n && fread(data, n, 1, in) != 1)) fail_msg("no output\n%s", text);
  fclose(in);
}

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
  const char *const exe = arena_printf(f->a, "%s/program", f->dir);
  StrBuf command = {.arena = f->a};
  sb_printf(&command, "%s %s --quiet --dim n=%d", target_find(target)->qemu, exe, (int)n);
  for (int i = 0; i < m->inputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->inputs.data[i]];
    const int64_t count = size_of(f, b->count, syms);
    in.data[i] = arena_alloc(f->a, (size_t)(count * dtype_bytes(b->dtype)) + 16);
    fill(&seed, b->dtype, in.data[i], count);
    const char *const path = arena_printf(f->a, "%s/x%d.raw", f->dir, i);
    write_file(path, in.data[i], (size_t)(count * dtype_bytes(b->dtype)));
    sb_printf(&command, " --input x%d=@%s", i, path);
  }
  for (int i = 0; i < m->outputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->outputs.data[i]];
    const int64_t bytes = size_of(f, b->count, syms) * dtype_bytes(b->dtype);
    want.data[i] = guarded(f, bytes);
    got.data[i] = guarded(f, bytes);
    sb_printf(&command, " --output y%d=@%s/y%d.raw", i, f->dir, i);
  }
  must(f, module_interpret(m, (const void *const *)in.data, want.data, syms), text);
  const CodegenOptions o = {
      .emit = EMIT_EXE, .output = exe, .name = "m", .opt_level = 3, .jobs = 1};
  must(f, codegen_write(m, target_find(target), &o, NULL), text);
  const int status = system(sb_str(&command));
  if (status != 0) fail_msg("status %d of %s\n%s", status, sb_str(&command), text);
  for (int i = 0; i < m->outputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->outputs.data[i]];
    read_file(arena_printf(f->a, "%s/y%d.raw", f->dir, i), got.data[i],
              (size_t)(size_of(f, b->count, syms) * dtype_bytes(b->dtype)), text);
  }
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
    const char *const text = fuzz_kernel(&z);
    check_emulated(f, targets[i % 3], text, z.extent);
    arena_free(f->a);
    f->a = outer;
  }
  assert_int_equal(system(arena_printf(f->a, "rm -f %s/*.raw %s/program", f->dir, f->dir)), 0);
}

/* BURIN_FUZZ_KERNELS: how many, and BURIN_FUZZ_SEED: from where. */
static void test_random_kernels(void **state) {
  static const char *const targets[] = {NULL, "x86-64-v3", "x86-64-v2"};
  Fix *f = *state;
  const char *const count = getenv("BURIN_FUZZ_KERNELS"), *const seed = getenv("BURIN_FUZZ_SEED");
  const int n = count ? atoi(count) : 60;
  Arena *const outer = f->a;
  for (int i = 0; i < n; i++) {
    f->a = arena_new(0, NULL, NULL);
    Fuzz z = {f->a, (uint64_t)(seed ? atoi(seed) : 1) * 1000003u + (uint64_t)i, 0};
    for (int k = 0; k < 3; k++) next_random(&z.seed);
    const char *const text = fuzz_kernel(&z);
    const int64_t extent = z.extent;
    check_on(f, targets[i % 3], text, 1, &extent, 1e-3);
    arena_free(f->a);
    f->a = outer;
  }
}

/* ---- programs ---- */
bool pass_plan_memory(PassCtx *c);

static const char control[] =
    "module threads 4 {\n"
    "  symbol $n 0\n"
    "  symbol $i 0 runtime bound 10\n"
    "  symbol $t 0 runtime bound 77\n"
    "  symbol $k 0 runtime bound 10\n"
    "  b0 : i64[1] = input 0\n"
    "  b1 : i64[1] = arena\n"
    "  b2 : bool[1] = arena\n"
    "  b3 : i64[10] = output 0\n"
    "  b4 : i64[10] = arena\n"
    "  b5 : i64[1] = view b4 at (3)\n"
    "  b6 : f32[$n*7] = input 1\n"
    "  b7 : f32[$n*7] = arena\n"
    "  b8 : f32[$n*7] = output 1\n"
    "  b9 : f32[7] = weight {1, 2, 3, 4, 5, 6, 7}\n"
    "  inputs b0, b6\n"
    "  outputs b3, b8\n"
    "  kernel k0_set {\n"
    "    param b0 : i64[1] write align 8\n"
    "    param b1 : bool[1] write align 1\n"
    "    param b2 : i64[10] write align 8\n"
    "    param b3 : i64[10] write align 8\n"
    "    b0[0] = 0\n"
    "    b1[0] = true\n"
    "    for z in 0..10 vector {\n"
    "      b2[z] = 0\n"
    "      b3[z] = 0\n"
    "    }\n"
    "  }\n"
    "  kernel k1_body flops $n*3 {\n"
    "    param b0 : i64[1] readwrite align 8\n"
    "    param b1 : bool[1] write align 1\n"
    "    param b2 : i64[10] readwrite align 8\n"
    "    param b3 : i64[1] read align 8\n"
    "    param b4 : i64[4] readwrite scratch align 64\n"
    "    for s in 0..4 {\n"
    "      b4[s] = $i\n"
    "    }\n"
    "    b2[$i] = b0[0]\n"
    "    b0[0] = b0[0] + b4[3]\n"
    "    b1[0] = b0[0] < b3[0]\n"
    "  }\n"
    "  kernel k2_last {\n"
    "    param b0 : i64[10] write align 8\n"
    "    b0[9] = $t\n"
    "    b0[8] = $k\n"
    "  }\n"
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
    "  }\n"
    "  steps {\n"
    "    call k0_set(b1, b2, b4, b3)\n"
    "    loop cond b2 iter $i trips $t limit 9 {\n"
    "      call k1_body(b1, b2, b4, b0)\n"
    "    }\n"
    "    copy b4 -> b3 count 4\n"
    "    copy b5 -> b3 at (4) count 1\n"
    "    sym $k from b0 min 0 max 10\n"
    "    call k3_scale(b6, b9, b7)\n"
    "    call k3_scale(b7, b9, b8)\n"
    "    if b2 {\n"
    "      sym $t = 77\n"
    "    } else {\n"
    "      call k2_last(b3)\n"
    "    }\n"
    "  }\n"
    "}\n";

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

/* The caller's options may end early, and the arena's size is held against what the threads need. */
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
      cmocka_unit_test_setup_teardown(test_extents, setup, teardown),
      cmocka_unit_test_setup_teardown(test_matmul_tile, setup, teardown),
      cmocka_unit_test_setup_teardown(test_symbolic_extent, setup, teardown),
      cmocka_unit_test_setup_teardown(test_guards, setup, teardown),
      cmocka_unit_test_setup_teardown(test_strides, setup, teardown),
      cmocka_unit_test_setup_teardown(test_locals, setup, teardown),
      cmocka_unit_test_setup_teardown(test_conditions, setup, teardown),
      cmocka_unit_test_setup_teardown(test_arithmetic, setup, teardown),
      cmocka_unit_test_setup_teardown(test_integer_division, setup, teardown),
      cmocka_unit_test_setup_teardown(test_float_operations, setup, teardown),
      cmocka_unit_test_setup_teardown(test_casts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random_kernels, setup, teardown),
      cmocka_unit_test_setup_teardown(test_emulated, setup, teardown),
      cmocka_unit_test_setup_teardown(test_program, setup, teardown),
      cmocka_unit_test_setup_teardown(test_options, setup, teardown),
      cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
