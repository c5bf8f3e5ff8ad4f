/* What tests of code generation share: a model in a temporary folder, kernels written as loop IR,
 * compiled, loaded and run, and their results compared with the interpreter's. */
#pragma once
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

static inline int setup(void **state) {
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

static inline int teardown(void **state) {
  Fix *f = *state;
  rmdir(f->dir);
  arena_free(f->a);
  test_free(f);
  return 0;
}

static inline void must(const Fix *f, bool ok, const char *text) {
  if (ok) return;
  diag_print(f->d, stderr);
  fprintf(stderr, "%s\n", text);
  fail();
}

static inline uint64_t next_random(uint64_t *s) {
  *s = *s * 6364136223846793005u + 1442695040888963407u;
  return *s >> 33;
}

/* Values in and around the range of the type; now and then a special one. */
static inline void fill(uint64_t *seed, DType t, void *p, int64_t n) {
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

static inline bool close_enough(DType t, const void *a, const void *b, double tolerance) {
  if (!dtype_is_float(t)) return dtype_load_i(t, a) == dtype_load_i(t, b);
  const double x = dtype_load_f(t, a), y = dtype_load_f(t, b);
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y);
  return x == y || fabs(x - y) <= tolerance * (1 + fabs(x));
}

/* As the driver does before code generation. NULL: this machine. */
static inline void follow(Fix *f, const char *target) {
  Target native;
  const Target *t = target ? target_find(target) : &native;
  if (!target) assert_true(target_native(&native));
  *expr_pool_rules(f->m->pool) = target_float_rules(t);
}
static inline void expand(Fix *f, Module *m) {
  PassCtx c = {.model = f->m, .module = m, .scratch = f->a};
  assert_true(pass_expand_math(&c));
}

static inline bool has_grid(const Module *m) {
  for (int i = 0; i < m->kernels.n; i++)
    if (kernel_is_grid(m->kernels.data[i])) return true;
  return false;
}

/* Grids of blocks become loops, which have scratch. */
static inline void serialize(Fix *f, Module *m, const char *text) {
  PassCtx c = {.model = f->m, .module = m, .scratch = f->a};
  if (!has_grid(m)) return;
  must(f, pass_serialize_threads(&c) && module_verify(m, "serialize") && pass_plan_memory(&c),
       text);
  assert_false(has_grid(m));
}

/* ---- barriers ---- */
typedef struct Vars { /* of two nests, with `n` of each */
  const Stmt *from[MAX_NEST], *to[MAX_NEST];
  int n;
} Vars;

static inline const Expr *var_of_first(void *user, const Expr *leaf) {
  const Vars *const v = user;
  for (int i = 0; i < v->n; i++)
    if (leaf == v->from[i]->loop.var) return v->to[i]->loop.var;
  return NULL;
}

/* Two nests of thread loops that follow each other become one. */
static inline void join_nests(Fix *f, Stmt *s) {
  Vars v = {.n = stmt_nest(s, v.to)};
  stmt_nest(s->next, v.from);
  StmtList body = {0};
  Stmt *const inner = (Stmt *)v.to[v.n - 1];
  stmt_add(&body, inner->loop.body);
  stmt_add(&body, stmt_rewrite(f->a, f->m->pool, v.from[v.n - 1]->loop.body, var_of_first, &v));
  inner->loop.body = body.first;
  s->next = s->next->next;
}

typedef struct Drop {
  Fix *f;
  int which;
} Drop;

static inline bool is_thread_loop(const Stmt *s) {
  return s && s->kind == ST_FOR && s->loop.kind == FOR_THREAD;
}

static inline bool keep_barrier(void *user, Stmt *s) {
  Drop *const d = user;
  if (!is_thread_loop(s) || !is_thread_loop(s->next) || d->which-- > 0) return true;
  join_nests(d->f, s);
  return false;
}

/* The module without one of the barriers that stand between two nests; false: it has fewer. */
static inline bool drop_barrier(Fix *f, Module *m, int which) {
  return !stmt_each(m->kernels.data[0]->body, keep_barrier, &(Drop){f, which});
}

/* The shared library of a C text, by the compiler of this machine. */
static inline void build_c(const char *source, const char *library) {
  char command[256];
  snprintf(command, sizeof command, "gcc -std=c99 -Wall -Werror -O1 -shared -fPIC -o %s %s",
           library, source);
  assert_int_equal(system(command), 0);
  unlink(source);
}

/* The model in a library, whose file is removed. */
static inline BurinModel *load(const char *library) {
  void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!lib) fprintf(stderr, "%s\n", dlerror());
  assert_non_null(lib);
  unlink(library);
  BurinModel *(*info)(void) = (BurinModel * (*)(void)) dlsym(lib, "m_info");
  assert_non_null(info);
  return info();
}

static inline void write_code(Fix *f, Module *m, const Target *t, EmitKind kind, const char *path,
                              const char *text) {
  const CodegenOptions o = {.emit = kind, .output = path, .name = "m", .opt_level = 3, .jobs = 1};
  must(f, codegen_write(m, t, &o, NULL), text);
}

/* A library of the target; of target "c" what the compiler of this machine makes of the source. */
static inline BurinModel *compile_for(Fix *f, Module *m, const Target *t, const char *text) {
  const char *const library = arena_printf(f->a, "%s/m%d.so", f->dir, f->n++);
  if (t->backend != BACKEND_C) {
    write_code(f, m, t, EMIT_SHARED, library, text);
    return load(library);
  }
  const char *const source = arena_printf(f->a, "%s/m.c", f->dir);
  write_code(f, m, t, EMIT_C, source, text);
  build_c(source, library);
  return load(library);
}

static inline BurinModel *compile(Fix *f, Module *m, const char *target, const char *text) {
  Target native;
  if (!target) assert_true(target_native(&native));
  return compile_for(f, m, target ? target_find(target) : &native, text);
}

/* One run on memory full of ones. */
static inline int32_t invoke(const BurinModel *model, const void *const *in, void *const *out,
                             int64_t *dims) {
  const uint64_t bytes = (model->arena_size(dims, 1) + 127) / 64 * 64;
  void *arena = aligned_alloc(64, bytes);
  memset(arena, 0xFF, bytes);
  const int32_t status = model->invoke(in, out, dims, arena, NULL);
  free(arena);
  return status;
}

typedef struct Io {
  void *data[MAX_IO];
} Io;

static inline int64_t size_of(Fix *f, const Expr *e, const int64_t *syms) {
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
static inline void *guarded(Fix *f, int64_t bytes) {
  char *p = arena_alloc(f->a, (size_t)bytes + 2 * GUARD);
  memset(p, 0x5a, (size_t)bytes + 2 * GUARD);
  return p + GUARD;
}
static inline bool guards_ok(const void *data, int64_t bytes) {
  const char *p = (const char *)data - GUARD;
  for (int i = 0; i < GUARD; i++)
    if (p[i] != 0x5a || p[GUARD + bytes + i] != 0x5a) return false;
  return true;
}

static inline void compare(Fix *f, const Module *m, const Io *want, const Io *got,
                           const int64_t *syms, double tolerance, const char *text) {
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

/* ---- other architectures: a program under the emulator, tensors as raw files ---- */
static inline void name_tensors(Fix *f, const Module *m) {
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

static inline void write_raw(const char *path, const void *data, int64_t n) {
  FILE *out = fopen(path, "wb");
  assert_true(out && fwrite(data, 1, (size_t)n, out) == (size_t)n && fclose(out) == 0);
}

static inline void read_raw(const char *path, void *data, int64_t n, const char *text) {
  FILE *in = fopen(path, "rb");
  if (!in || fread(data, 1, (size_t)n, in) != (size_t)n) fail_msg("no output\n%s", text);
  fclose(in);
}

static inline int64_t bytes_of(Fix *f, const Module *m, int buffer, const int64_t *syms) {
  const Buffer *b = &m->buffers.data[buffer];
  return size_of(f, b->count, syms) * dtype_bytes(b->dtype);
}

/* The tensors of `m` have names (name_tensors); `args`: more arguments of the program. */
static inline void run_emulated(Fix *f, Module *m, const Target *t, const void *const *in,
                                void *const *out, const int64_t *syms, const char *args,
                                const char *text) {
  const char *const exe = arena_printf(f->a, "%s/program", f->dir);
  StrBuf command = {.arena = f->a};
  sb_printf(&command, "%s %s --quiet%s", t->qemu, exe, args);
  for (int i = 0; i < m->inputs.n; i++) {
    const char *const path = arena_printf(f->a, "%s/x%d.raw", f->dir, i);
    write_raw(path, in[i], bytes_of(f, m, m->inputs.data[i], syms));
    sb_printf(&command, " --input x%d=@%s", i, path);
  }
  for (int i = 0; i < m->outputs.n; i++)
    sb_printf(&command, " --output y%d=@%s/y%d.raw", i, f->dir, i);
  write_code(f, m, t, EMIT_EXE, exe, text);
  const int status = system(sb_str(&command));
  if (status != 0) fail_msg("status %d of %s\n%s", status, sb_str(&command), text);
  for (int i = 0; i < m->outputs.n; i++)
    read_raw(arena_printf(f->a, "%s/y%d.raw", f->dir, i), out[i],
             bytes_of(f, m, m->outputs.data[i], syms), text);
  assert_int_equal(system(arena_printf(f->a, "rm -f %s/*.raw %s", f->dir, exe)), 0);
}

/* Runs text on `target` (NULL: this machine) with the given symbol values, by symbol name order in
 * the text. */
static inline void check_on(Fix *f, const char *target, const char *text, int n_syms,
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
    /* Not aligned */
    in.data[i] = (char *)arena_alloc(f->a, (size_t)(n * dtype_bytes(b->dtype)) + 256) +
                 dtype_bytes(b->dtype);
    fill(&seed, b->dtype, in.data[i], n);
  }
  for (int i = 0; i < m->outputs.n; i++) {
    const Buffer *b = &m->buffers.data[m->outputs.data[i]];
    const int64_t bytes = size_of(f, b->count, syms) * dtype_bytes(b->dtype);
    want.data[i] = guarded(f, bytes);
    got.data[i] = guarded(f, bytes);
  }
  int64_t dims[64];
  memcpy(dims, syms, sizeof dims);
  must(f, module_interpret(m, (const void *const *)in.data, want.data, syms), text);
  for (int order = ORDER_BACKWARD; has_grid(m) && order <= ORDER_SHUFFLED; order++) {
    must(f,
         module_interpret_in(m, (ThreadOrder)order, (const void *const *)in.data, got.data, syms),
         text);
    compare(f, m, &want, &got, syms, 0, text);
  }
  serialize(f, m, text);
  BurinModel *model = compile(f, m, target, text);
  const int32_t status = invoke(model, (const void *const *)in.data, got.data, dims);
  assert_int_equal(status, BURIN_OK);
  compare(f, m, &want, &got, syms, tolerance,
          arena_printf(f->a, "target %s\n%s", target ? target : "native", text));
}

static inline void check(Fix *f, const char *text) {
  check_on(f, NULL, text, 0, NULL, 1e-5);
  check_on(f, "x86-64-v3", text, 0, NULL, 1e-5);
  check_on(f, "x86-64-v2", text, 0, NULL, 1e-5);
}

/* out[i] = expr over a, b (same type) and maybe a cast. */
static inline const char *elementwise(Fix *f, DType in, DType out, const char *loop, int n,
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

/* A kernel over b0, b1 (inputs of na, nb elements) and b2 (output of nc), with its body and
 * locals. */
static inline const char *nest(Fix *f, const char *type, const char *na, const char *nb,
                               const char *nc, const char *locals, const char *body) {
  return arena_printf(
      f->a,
      "module {\n  symbol $n 0\n  b0 : %s[%s] = input 0\n  b1 : %s[%s] = input 1\n  b2 : %s[%s] = "
      "output 0\n"
      "  inputs b0, b1\n  outputs b2\n  kernel k {\n    param b0 : %s[%s] read align 1\n"
      "    param b1 : %s[%s] read align 1\n    param b2 : %s[%s] write align 1\n%s%s  }\n"
      "  steps {\n    call k(b0, b1, b2)\n  }\n}\n",
      type, na, type, nb, type, nc, type, na, type, nb, type, nc, locals, body);
}

static inline void check_all(Fix *f, const char *text, int64_t n) {
  static const char *const targets[] = {NULL, "x86-64-v2", "x86-64-v3"};
  for (int t = 0; t < 3; t++) check_on(f, targets[t], text, 1, &n, 1e-4);
}
