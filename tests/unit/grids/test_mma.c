/* Products of fragments (ir/loop/mma.h): what the reader makes of them, what it refuses, and what
 * they mean: all lanes of a grid of warps together compute the product of two matrices. */
#include "ir/loop/mma.h"
#include "tests/unit/codegen_fixture.h"

typedef struct Form {
  const char *operand; /* type in shared memory, and of the buffers */
  const char *sum;
  int k;     /* of one block of shared memory */
  int pitch; /* of its rows */
  bool cast;
} Form;
static const Form forms[] = {{"f16", "f32", 32, 40, true},
                             {"bf16", "f32", 16, 24, true},
                             {"f32", "f32", 16, 20, false},
                             {"i8", "i32", 64, 80, true},
                             {"u8", "i32", 32, 48, true}};
enum { FORMS = sizeof forms / sizeof *forms, FLOATS = 3, M = 64, N = 48, BLOCKS_OF_K = 3 };

/* 64x48 of two warps, 32x48 each, in three steps of k; B is stored by columns. */
static const char *kernel(Fix *f, const Form *o) {
  const int k = BLOCKS_OF_K * o->k;
  const char *const cast = o->cast ? arena_printf(f->a, "cast<%s>", o->sum) : "";
  return arena_printf(
      f->a,
      "module { b0 : %s[%d] = input 0 b1 : %s[%d] = input 1 b2 : %s[%d] = output 0\n"
      "inputs b0, b1 outputs b2\n"
      "kernel k { param b0 : %s[%d] read param b1 : %s[%d] read param b2 : %s[%d] write\n"
      "local t0 : %s[%d] shared local t1 : %s[%d] shared local t2 : %s[48] regs\n"
      "for x in 0..1 block { local t0\n local t1\n local t2\n"
      "for w in 0..2 thread { for lane in 0..32 thread { for c in 0..48 unroll { t2[c] = 0 } } }\n"
      "for step in 0..3 {\n"
      "for w in 0..2 thread { for lane in 0..32 thread { for e in 0..%d {\n"
      "t0[(32*w + lane)*%d + e] = b0[(32*w + lane)*%d + step*%d + e]\n"
      "if 32*w + lane < 48 { t1[(32*w + lane)*%d + e] = b1[(32*w + lane)*%d + step*%d + e] }\n"
      "} } }\n"
      "for w in 0..2 thread { for lane in 0..32 thread {\n"
      "for m in 0..2 matrix { for n in 0..6 matrix { for i in 0..2 matrix { for j in 0..2 matrix "
      "{\n"
      "for k in 0..%d matrix { t2[m*24 + n*4 + i*2 + j] sum=\n"
      "%s(t0[(32*w + 16*m + 8*i + floordiv(lane, 4))*%d + k]) *\n"
      "%s(t1[(8*n + 2*floormod(lane, 4) + j)*%d + k]) } } } } }\n"
      "} } }\n"
      "for w in 0..2 thread { for lane in 0..32 thread {\n"
      "for m in 0..2 unroll { for n in 0..6 unroll { for i in 0..2 unroll { for j in 0..2 unroll "
      "{\n"
      "b2[(32*w + 16*m + 8*i + floordiv(lane, 4))*48 + 8*n + 2*floormod(lane, 4) + j] =\n"
      "t2[m*24 + n*4 + i*2 + j] } } } } } } } }\n"
      "steps { call k(b0, b1, b2) } }",
      o->operand, M * k, o->operand, N * k, o->sum, M * N, o->operand, M * k, o->operand, N * k,
      o->sum, M * N, o->operand, M * o->pitch, o->operand, N * o->pitch, o->sum, o->k, o->pitch, k,
      o->k, o->pitch, k, o->k, o->k, cast, o->pitch, cast, o->pitch);
}

typedef struct Wrong {
  const char *from, *to;
} Wrong;

static const char *replaced(Fix *f, const char *text, const Wrong *w) {
  const char *const at = strstr(text, w->from);
  if (!at) fail_msg("%s is not there", w->from);
  return arena_printf(f->a, "%.*s%s%s", (int)(at - text), text, w->to, at + strlen(w->from));
}

enum { LINE = 56 };

/* The same with a line of B in shared memory for each k. */
static const char *kernel_by_k(Fix *f, const Form *o) {
  const Wrong write = {arena_printf(f->a, "t1[(32*w + lane)*%d + e]", o->pitch),
                       arena_printf(f->a, "t1[e*%d + 32*w + lane]", LINE)},
              read = {arena_printf(f->a, "(8*n + 2*floormod(lane, 4) + j)*%d + k", o->pitch),
                      arena_printf(f->a, "k*%d + 8*n + 2*floormod(lane, 4) + j", LINE)};
  return replaced(f, replaced(f, kernel(f, o), &write), &read);
}

static Module *parse(Fix *f, const char *text) {
  Module *const m = module_parse(f->m, text, "test");
  must(f, m != NULL, text);
  return m;
}

typedef struct Find {
  const Expr *lane;
  const Stmt *found;
} Find;

static bool find_product(void *user, Stmt *s) {
  Find *const x = user;
  if (s->kind != ST_FOR) return true;
  if (s->loop.kind == FOR_MATRIX) x->found = s;
  if (s->loop.kind == FOR_THREAD) x->lane = s->loop.var;
  return !x->found;
}

static void test_read(void **state) {
  Fix *f = *state;
  for (int i = 0; i < FORMS + FLOATS; i++) {
    const Form *const o = &forms[i % FORMS];
    const bool by_k = i >= FORMS;
    const char *const text = by_k ? kernel_by_k(f, o) : kernel(f, o);
    Module *const m = parse(f, text);
    must(f, module_verify(m, "test"), text);
    Find x = {0};
    stmt_each(m->kernels.data[0]->body, find_product, &x);
    MatrixMma mma;
    const char *const wrong = matrix_mma(f->m->pool, m->kernels.data[0], x.found, x.lane, &mma);
    if (wrong) fail_msg("%s", wrong);
    assert_int_equal(mma.sum, 2);
    assert_int_equal(mma.a.local, 0);
    assert_int_equal(mma.b.local, 1);
    assert_int_equal(mma.mi, 2);
    assert_int_equal(mma.nj, 6);
    assert_int_equal(mma.k, o->k);
    assert_int_equal(mma.a.pitch, o->pitch);
    assert_int_equal(mma.b.pitch, by_k ? LINE : o->pitch);
    assert_int_equal(mma.b.by_k, by_k);
    assert_string_equal(dtype_text(mma.a.type), o->operand);
    assert_string_equal(dtype_text(mma.type), o->sum);
    assert_true(expr_is_i64(mma.b.base, 0));
    assert_string_equal(expr_text(f->m->pool, mma.a.base),
                        arena_printf(f->a, "w*%d", 32 * o->pitch));
  }
}

/* Small whole numbers: every order gives the same sums. */
static void fill_small(uint64_t *seed, DType t, void *p, int n) {
  for (int i = 0; i < n; i++) {
    const int64_t v = (int64_t)(next_random(seed) % 15) - (t == DT_U8 ? 0 : 7);
    void *const at = (char *)p + (size_t)i * dtype_bytes(t);
    if (dtype_is_float(t))
      dtype_store_f(t, at, (double)v);
    else
      dtype_store_i(t, at, v);
  }
}

static double element(DType t, const void *p, int i) {
  const void *const at = (const char *)p + (size_t)i * dtype_bytes(t);
  return dtype_is_float(t) ? dtype_load_f(t, at) : (double)dtype_load_i(t, at);
}

static void test_values(void **state) {
  Fix *f = *state;
  uint64_t seed = 5;
  for (int i = 0; i < FORMS + FLOATS; i++) {
    const Form *const o = &forms[i % FORMS];
    Module *const m = parse(f, i < FORMS ? kernel(f, o) : kernel_by_k(f, o));
    const int k = BLOCKS_OF_K * o->k;
    const DType t = m->buffers.data[0].dtype, sum = m->buffers.data[2].dtype;
    void *const a = arena_alloc(f->a, (size_t)(M * k) * dtype_bytes(t));
    void *const b = arena_alloc(f->a, (size_t)(N * k) * dtype_bytes(t));
    void *const c = arena_alloc(f->a, (size_t)(M * N) * dtype_bytes(sum));
    fill_small(&seed, t, a, M * k);
    fill_small(&seed, t, b, N * k);
    for (int order = ORDER_FORWARD; order <= ORDER_SHUFFLED; order++) {
      must(f,
           module_interpret_in(m, (ThreadOrder)order, (const void *const[]){a, b},
                               (void *const[]){c}, NULL),
           o->operand);
      for (int r = 0; r < M; r++)
        for (int col = 0; col < N; col++) {
          double want = 0;
          for (int e = 0; e < k; e++) want += element(t, a, r * k + e) * element(t, b, col * k + e);
          assert_true(element(sum, c, r * N + col) == want);
        }
    }
  }
}

/* CPUs run the loops. */
static void test_code(void **state) {
  Fix *f = *state;
  check_on(f, NULL, kernel(f, &forms[2]), 0, NULL, 1e-4);
  check_on(f, "c", kernel(f, &forms[3]), 0, NULL, 0);
}

static void test_refused(void **state) {
  static const Wrong wrong[] = {
      {"for k in 0..32 matrix", "for k in 0..24 matrix"},
      {"for k in 0..32 matrix", "for k in 0..32"},
      {"for i in 0..2 matrix", "for i in 0..4 matrix"},
      {"for j in 0..2 matrix {\nfor k", "for j in 0..2 {\nfor k"},
      {"16*m + 8*i + floordiv(lane, 4))*40", "16*m + 8*i + floordiv(lane, 4))*36"},
      {"16*m + 8*i + floordiv(lane, 4))*40", "16*m + 8*i + floormod(lane, 8))*40"},
      {"16*m + 8*i + floordiv(lane, 4))*40", "8*m + 16*i + floordiv(lane, 4))*40"},
      {"floordiv(lane, 4))*40 + k", "floordiv(lane, 4))*40 + 31 - k"},
      {"floordiv(lane, 4))*40 + k", "floordiv(lane, 4))*40 + k + 4"},
      {"8*n + 2*floormod(lane, 4) + j)*40", "8*n + floormod(lane, 4) + 4*j)*40"},
      {"t2[m*24 + n*4 + i*2 + j] sum=", "t2[m*24 + n*4 + j*2 + i] sum="},
      {"t2[m*24 + n*4 + i*2 + j] sum=", "t2[m*24 + n*4 + i*2 + j] prod="},
      {"local t0 : f16[2560] shared", "local t0 : f16[2560] stack"},
      {"local t0 : f16[2560] shared", "local t0 : bf16[2560] shared"},
      {"local t2 : f32[48] regs", "local t2 : f32[64] regs"},
  };
  Fix *f = *state;
  const char *const text = kernel(f, &forms[0]);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    Module *const m = parse(f, replaced(f, text, &wrong[i]));
    if (module_verify(m, "test")) fail_msg("accepted: %s", wrong[i].to);
  }
  const char *const bytes = kernel_by_k(f, &forms[FLOATS]);
  if (module_verify(parse(f, bytes), "test")) fail_msg("accepted: bytes by lines of k");
  static const Wrong lines[] = {{"k*56 + 8*n", "k*52 + 8*n"}, {"k*56 + 8*n", "k*56 + 16*n"}};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    Module *const m = parse(f, replaced(f, kernel_by_k(f, &forms[0]), &lines[i]));
    if (module_verify(m, "test")) fail_msg("accepted: %s", lines[i].to);
  }
}

int main(int argc, char **argv) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_read), T(test_values), T(test_code), T(test_refused)};
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
