/* Expressions: canonical forms, index rules, text, and random trees against a direct evaluation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "ir/expr/expr.h"
#include "ir/sizes/sizes.h"

typedef struct Fixture {
  Arena *arena;
  ExprPool *p;
  const Expr *n, *m;             /* symbols, at least 1 */
  const Expr *i, *j, *k, *r, *q; /* i < n, j < 4, k < m, -3 <= r < 5, q < 1 */
  const Expr *leaf[7];
} Fixture;

static int setup(void **state) {
  Arena *const a = arena_new(0, NULL, NULL);
  Fixture *const f = ARENA_NEW(a, Fixture);
  ExprPool *const p = expr_pool_new(a);
  f->arena = a;
  f->p = p;
  f->n = ex_sym(p, "N");
  f->m = ex_sym(p, "odd name");
  expr_symbol(p, f->n->id)->lo = expr_symbol(p, f->m->id)->lo = 1;
  f->i = ex_var(p, "i", f->n);
  f->j = ex_var(p, "j", ex_i64(p, 4));
  f->k = ex_var(p, "k", f->m);
  f->r = ex_var_range(p, "r", ex_i64(p, -3), ex_i64(p, 8));
  f->q = ex_var(p, "q", ex_i64(p, 1));
  const Expr *const leaf[7] = {f->n, f->m, f->i, f->j, f->k, f->r, f->q};
  memcpy(f->leaf, leaf, sizeof leaf);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  arena_free(((Fixture *)*state)->arena);
  return 0;
}

/* ---- text ---- */
static const Expr *scope_name(void *user, const char *ident) {
  const Fixture *const f = user;
  for (int v = 2; v < 7; v++)
    if (!strcmp(expr_var_name(f->p, f->leaf[v]->id), ident)) return f->leaf[v];
  return NULL;
}

static const Expr *scope_access(void *user, const char *ident, const Expr *index,
                                const Expr *guard) {
  const Fixture *const f = user;
  if (ident[0] == 't') return ex_local(f->p, DT_F32, ident[1] - '0', index);
  return ident[0] == 'b' ? ex_load(f->p, DT_F32, ident[1] - '0', index, guard) : NULL;
}

static const Expr *parse(Fixture *f, const char *text) {
  const ExprScope s = {f, scope_name, scope_access, DT_I64};
  const char *error = NULL;
  const Expr *const e = expr_parse(f->p, &text, &s, &error);
  return e && !*text ? e : NULL;
}

static void assert_becomes(Fixture *f, const char *text, const char *expected) {
  const Expr *const a = parse(f, text), *const b = parse(f, expected);
  if (!a || !b) fail_msg("does not parse: %s", a ? expected : text);
  if (a != b) fail_msg("%s: is %s, expected %s", text, expr_text(f->p, a), expr_text(f->p, b));
}

static void test_rules(void **state) {
  static const char *const rows[][2] = {
      {"i0 - i0", "0"},
      {"(i0 + 1)*(i0 - 1)", "i0*i0 - 1"},
      {"$N*i0*2 + i0*$N", "3*i0*$N"},
      {"floordiv(i0*4 + j1, 4)", "i0"},
      {"floormod(i0*4 + j1, 4)", "j1"},
      {"floordiv(k2 + i0*$\"odd name\", $\"odd name\")", "i0"},
      {"floormod(k2 + i0*$\"odd name\", $\"odd name\")", "k2"},
      {"floordiv(floordiv(i0, 3), 5)", "floordiv(i0, 15)"},
      {"floordiv(floordiv(i0, $N), 5)", "0"},
      {"floordiv(i0, $\"odd name\")*$\"odd name\" + floormod(i0, $\"odd name\")", "i0"},
      {"floordiv(i0, 15)*5 + floormod(floordiv(i0, 3), 5)", "floordiv(i0, 3)"},
      {"floordiv(i0*4 + j1, 8)", "floordiv(i0, 2)"},
      {"floormod(i0*4 + j1, 8)", "floormod(i0, 2)*4 + j1"},
      {"floordiv($N*12, $N*4)", "3"},
      {"floordiv(r3, 8)", "floordiv(r3, 8)"},
      {"floormod(floormod(i0, 12), 4)", "floormod(i0, 4)"},
      {"i0 < $N", "true"},
      {"0 <= i0", "true"},
      {"i0*4 + j1 < $N*4", "true"},
      {"k2 + i0*$\"odd name\" < $N*$\"odd name\"", "true"},
      {"$N <= i0", "false"},
      {"i0 == $N", "false"},
      {"i0 + 3 < 7", "i0 < 4"},
      {"r3 < 5 & -3 <= r3", "true"},
      {"min(i0 + 1, $N)", "i0 + 1"},
      {"max(r3, -3)", "r3"},
      {"min(min(i0, 9), 4)", "min(i0, 4)"},
      {"i0 + q4", "i0"},
      {"select(i0 < $N, j1, k2)", "j1"},
      {"not(i0 < 3)", "3 <= i0"},
      {"b0[1]*1 + -0.0", "b0[1]"},
      {"b0[1]/1 - 0", "b0[1]"},
      {"b0[1]/4", "b0[1]*0.25"},
      {"cast<f16>(cast<f32>(cast<f16>(b0[0])))", "cast<f16>(b0[0])"},
      {"b0[i0 if i0 < $N]", "b0[i0]"},
      {"b0[i0 if i0 < 0]", "0f32"},
      {"sum(s < 1: b0[s + 2])", "b0[2]"},
      {"2*3 + 4", "10"},
  };
  for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
    assert_becomes(*state, rows[n][0], rows[n][1]);
}

/* Flattened multi-dimensional indices over symbolic sizes come apart again. */
static void test_unflatten(void **state) {
  Fixture *const f = *state;
  ExprPool *const p = f->p;
  const Expr *const w = parse(f, "floordiv($N - 1, 2) + 1"),
                    *const h = parse(f, "floordiv($\"odd name\" + 3, 2) + 1");
  const Expr *const x = ex_var(p, "x", w), *const y = ex_var(p, "y", h),
                    *const c = ex_var(p, "c", ex_i64(p, 64));
  const Expr *const plane = ex_mul(p, w, h);
  const Expr *const flat = ex_add(p, ex_mul(p, c, plane), ex_add(p, ex_mul(p, y, w), x));
  assert_ptr_equal(ex_floordiv(p, flat, plane), c);
  assert_ptr_equal(ex_floormod(p, ex_floordiv(p, flat, w), h), y);
  assert_ptr_equal(ex_floormod(p, flat, w), x);
  assert_true(expr_is_i64(ex_lt(p, flat, ex_mul(p, plane, ex_i64(p, 64))), 1));
  const Expr *const all = ex_var(p, "all", ex_mul(p, plane, ex_i64(p, 64)));
  assert_true(expr_is_i64(ex_lt(p, ex_floordiv(p, all, plane), ex_i64(p, 64)), 1));
  const Expr *const back = ex_add(
      p, ex_mul(p, ex_floordiv(p, all, plane), plane),
      ex_add(p, ex_mul(p, ex_floormod(p, ex_floordiv(p, all, w), h), w), ex_floormod(p, all, w)));
  assert_ptr_equal(back, all);
}

static void test_questions(void **state) {
  Fixture *const f = *state;
  const Expr *coeff, *rest;
  int64_t lo, hi;
  assert_true(expr_affine(f->p, parse(f, "i0*$N + i0*2 + j1 - 5"), f->i, &coeff, &rest));
  assert_ptr_equal(coeff, parse(f, "$N + 2"));
  assert_ptr_equal(rest, parse(f, "j1 - 5"));
  assert_false(expr_affine(f->p, parse(f, "i0*i0"), f->i, &coeff, &rest));
  assert_false(expr_affine(f->p, parse(f, "floordiv(i0, 3)"), f->i, &coeff, &rest));
  assert_true(expr_range(f->p, parse(f, "r3*-2 + j1"), &lo, &hi));
  assert_int_equal(lo, -8);
  assert_int_equal(hi, 9);
  const Expr *const e = parse(f, "sum(z < 3: b0[z + i0])");
  assert_true(expr_uses_buffer(e, 0) && !expr_uses_buffer(e, 1));
  assert_true(expr_uses_var(e, f->i->id) && !expr_uses_var(e, f->j->id));
  assert_ptr_equal(expr_subst(f->p, e, f->i, f->j), parse(f, "sum(z < 3: b0[z + j1])"));
}

static void test_text(void **state) {
  static const char *const good[] = {"b1[i0*4 + j1 if r3 < 3 & 0 <= r3]*2.5f32 + 1",
                                     "-$N*2",
                                     "?1f16*-0",
                                     "cast<i64>(max(b0[0], -inf))",
                                     "most(t < 8: t1[t])",
                                     "sum(t from 2 < $N: sat<u8>(b0[t]) + 3)",
                                     "select(isnan(b0[0]), nan, pow(b0[0], 2))",
                                     "bits<i32>(b0[0]) & 0x7fffffff",
                                     "{%0 = exp(b0[1]); %0*%0 + %0}",
                                     "-9223372036854775808"};
  static const char *const bad[] = {"",
                                    "(",
                                    "((((((",
                                    "1 +",
                                    "sum(k <",
                                    "sum(3 < 4: 1)",
                                    "$",
                                    "$\"x",
                                    "?",
                                    "?9",
                                    "b0[",
                                    "b0[1",
                                    "cast<zzz>(1)",
                                    "foo(1)",
                                    "max(1)",
                                    "max(1, 2",
                                    "%0",
                                    "{%0 = 1",
                                    "i0 + b0[0]",
                                    "b0[b0[0]]",
                                    "1q",
                                    "not(1.5)",
                                    "exp(i0)",
                                    "bits<i64>(b0[0])",
                                    "i0 = 1",
                                    "b0[0] & b0[1]",
                                    "1 2",
                                    "$N[",
                                    "1.5i64",
                                    "99999999999999999999999",
                                    "select(1, 2)",
                                    "{%999999999 = 1; 2}"};
  Fixture *const f = *state;
  for (size_t n = 0; n < sizeof good / sizeof *good; n++) {
    const Expr *const e = parse(f, good[n]);
    if (!e) fail_msg("does not parse: %s", good[n]);
    assert_ptr_equal(parse(f, expr_text(f->p, e)), e);
  }
  for (size_t n = 0; n < sizeof bad / sizeof *bad; n++)
    if (parse(f, bad[n])) fail_msg("parses: %s", bad[n]);
  char deep[5000];
  memset(deep, '(', sizeof deep - 1);
  deep[sizeof deep - 1] = 0;
  assert_null(parse(f, deep));
  memset(deep, '-', sizeof deep - 1);
  assert_null(parse(f, deep));
}

/* A DAG of 2^200 tree nodes, and a chain of depth 3000. */
static void test_sharing(void **state) {
  Fixture *const f = *state;
  const Expr *e = parse(f, "b0[i0]"), *chain = e;
  for (int n = 0; n < 200; n++) e = ex_mul(f->p, ex_op(f->p, EX_exp, e, NULL, NULL), e);
  for (int n = 0; n < 3000; n++)
    chain = ex_op(f->p, EX_abs, ex_op(f->p, EX_exp, chain, NULL, NULL), NULL, NULL);
  assert_ptr_equal(parse(f, expr_text(f->p, e)), e);
  assert_ptr_equal(parse(f, expr_text(f->p, chain)), chain);
  assert_true(expr_cost(e) < 10000);
  assert_ptr_equal(expr_subst(f->p, expr_subst(f->p, e, f->i, f->j), f->j, f->i), e);
}

/* ---- random trees ---- */
typedef struct Random {
  uint64_t s;
} Random;

static uint32_t rnd(Random *r, uint32_t n) {
  r->s = r->s * UINT64_C(6364136223846793005) + 1442695040888963407;
  return (uint32_t)(r->s >> 33) % n;
}

enum { SAMPLES = 12 };
typedef struct Tree { /* an expression, and its values at all samples computed directly */
  const Expr *e;
  int64_t v[SAMPLES];
  bool ok; /* no value left the range where products are exact */
} Tree;

static int64_t fdiv(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static int64_t direct(ExprOp op, int64_t a, int64_t b, int64_t c) {
  switch (op) {
    case EX_add: return a + b;
    case EX_sub: return a - b;
    case EX_mul: return a * b;
    case EX_floordiv: return fdiv(a, b);
    case EX_floormod: return a - fdiv(a, b) * b;
    case EX_min: return a < b ? a : b;
    case EX_max: return a > b ? a : b;
    case EX_lt: return a < b;
    case EX_le: return a <= b;
    case EX_eq: return a == b;
    case EX_ne: return a != b;
    case EX_and: return a && b;
    case EX_or: return a || b;
    case EX_not: return !a;
    case EX_neg: return -a;
    case EX_select: return a ? b : c;
    default: return 0;
  }
}

static Tree combine(ExprPool *p, ExprOp op, const Tree *a, const Tree *b, const Tree *c) {
  Tree t = {.ok = a->ok && (!b || b->ok) && (!c || c->ok)};
  t.e = ex_op(p, op, a->e, b ? b->e : NULL, c ? c->e : NULL);
  for (int s = 0; s < SAMPLES; s++) {
    if (t.ok) t.v[s] = direct(op, a->v[s], b ? b->v[s] : 0, c ? c->v[s] : 0);
    if (t.v[s] > 1000000000 || t.v[s] < -1000000000) t.ok = false;
  }
  return t;
}

static Tree constant(ExprPool *p, int64_t v) {
  Tree t = {ex_i64(p, v), {0}, true};
  for (int s = 0; s < SAMPLES; s++) t.v[s] = v;
  return t;
}

typedef struct Gen {
  Fixture *f;
  Random r;
  Tree leaf[7];
} Gen;

static Tree gen_bool(Gen *g, int depth);

static Tree gen_int(Gen *g, int depth) {
  static const ExprOp ops[] = {EX_add, EX_sub, EX_mul, EX_min, EX_max, EX_add, EX_sub};
  static const int64_t divisors[] = {1, 2, 3, 4, 8, 12};
  ExprPool *const p = g->f->p;
  const uint32_t pick = rnd(&g->r, 12);
  if (depth == 0 || pick == 0)
    return rnd(&g->r, 3) ? g->leaf[rnd(&g->r, 7)] : constant(p, (int64_t)rnd(&g->r, 17) - 8);
  const Tree a = gen_int(g, depth - 1);
  if (pick <= 4) {
    const Tree b = rnd(&g->r, 3) ? constant(p, divisors[rnd(&g->r, 6)]) : g->leaf[rnd(&g->r, 2)];
    const Tree c = rnd(&g->r, 3) ? constant(p, 1) : constant(p, 4);
    const Tree d = combine(p, EX_mul, &b, &c, NULL);
    return combine(p, rnd(&g->r, 2) ? EX_floordiv : EX_floormod, &a, &d, NULL);
  }
  if (pick == 5) return combine(p, EX_neg, &a, NULL, NULL);
  const Tree b = gen_int(g, depth - 1);
  if (pick == 6) {
    const Tree c = gen_bool(g, depth - 1);
    return combine(p, EX_select, &c, &a, &b);
  }
  return combine(p, ops[rnd(&g->r, 7)], &a, &b, NULL);
}

static Tree gen_bool(Gen *g, int depth) {
  static const ExprOp compares[] = {EX_lt, EX_le, EX_eq, EX_ne, EX_lt, EX_le};
  ExprPool *const p = g->f->p;
  const uint32_t pick = rnd(&g->r, 8);
  if (depth > 0 && pick < 3) {
    const Tree a = gen_bool(g, depth - 1), b = gen_bool(g, depth - 1);
    return pick == 2 ? combine(p, EX_not, &a, NULL, NULL)
                     : combine(p, pick ? EX_and : EX_or, &a, &b, NULL);
  }
  const int d = depth > 0 ? depth - 1 : 0;
  const Tree a = gen_int(g, d), b = gen_int(g, d);
  return combine(p, compares[rnd(&g->r, 6)], &a, &b, NULL);
}

static int sample;
static const Gen *sampled;
static Scalar sample_sym(void *user, int id) {
  (void)user;
  return (Scalar){.i = sampled->leaf[id].v[sample]};
}

static void check_tree(Gen *g, const Tree *t) {
  int64_t vars[8] = {0}, lo, hi;
  EvalEnv env = {.sym = sample_sym, .vars = vars};
  const Expr *const again = expr_simplify(g->f->p, t->e);
  const char *const text = expr_text(g->f->p, t->e);
  if (parse(g->f, text) != t->e) fail_msg("does not parse back: %s", text);
  expr_range(g->f->p, t->e, &lo, &hi);
  sampled = g;
  for (sample = 0; sample < SAMPLES; sample++) {
    for (int v = 2; v < 7; v++) vars[g->f->leaf[v]->id] = g->leaf[v].v[sample];
    const int64_t got = expr_eval(g->f->p, t->e, &env).i, got2 = expr_eval(g->f->p, again, &env).i;
    if (got != t->v[sample] || got2 != got)
      fail_msg("%s: %lld, %lld; expected %lld", text, (long long)got, (long long)got2,
               (long long)t->v[sample]);
    if (got < lo || got > hi) fail_msg("%s: %lld is outside its range", text, (long long)got);
  }
}

static void test_random(void **state) {
  Gen g = {*state, {1}, {{0}}};
  for (int round = 0; round < 200; round++) {
    for (int s = 0; s < SAMPLES; s++) {
      const int64_t n = 1 + rnd(&g.r, round % 2 ? 30 : 4), m = 1 + rnd(&g.r, 9);
      const int64_t v[7] = {n,
                            m,
                            rnd(&g.r, (uint32_t)n),
                            rnd(&g.r, 4),
                            rnd(&g.r, (uint32_t)m),
                            (int64_t)rnd(&g.r, 8) - 3,
                            0};
      for (int l = 0; l < 7; l++) g.leaf[l].v[s] = v[l];
    }
    for (int l = 0; l < 7; l++) g.leaf[l].e = g.f->leaf[l], g.leaf[l].ok = true;
    for (int k = 0; k < 100; k++) {
      const Tree t = k % 2 ? gen_int(&g, 1 + k % 5) : gen_bool(&g, 1 + k % 5);
      if (t.ok) check_tree(&g, &t);
    }
  }
}

/* ---- evaluation ---- */
static Scalar load_index(void *user, DType t, int buffer, int64_t index) {
  (void)user, (void)t;
  return (Scalar){.f = (double)(index * (buffer + 1))};
}

static double eval_f(Fixture *f, const char *text) {
  int64_t vars[64] = {2, 1};
  EvalEnv env = {.load = load_index, .vars = vars};
  const Expr *const e = parse(f, text);
  if (!e) fail_msg("does not parse: %s", text);
  return expr_eval(f->p, e, &env).f;
}

static void test_eval(void **state) {
  assert_true(eval_f(*state, "sum(z < 5: b0[z]*b1[z])") == 60);
  assert_true(eval_f(*state, "most(z from 3 < 5: b0[z])") == 7);
  assert_true(eval_f(*state, "b0[i0 if i0 < 2] + b0[j1]") == 1);
  assert_true(isnan(eval_f(*state, "min(b0[0]/b0[0], 1)")) &&
              isnan(eval_f(*state, "max(1, b0[0]/b0[0])")));
  assert_true(eval_f(*state, "cast<f32>(sat<u8>(b0[0] + 300))") == 255);
  assert_true(eval_f(*state, "cast<f32>(cast<u8>(cast<i32>(b0[0] + 300)))") == 44);
  assert_true(eval_f(*state, "cast<f32>(cast<f16>(b0[0] + 2049))") == 2048);
  assert_true(eval_f(*state, "bits<f32>(bits<i32>(b0[3]) | shl(1i32, 31))") == -3);
}

/* Of sizes with runtime symbols: one without a bound, and one of at most n. */
static void test_upper(void **state) {
  Fixture *f = *state;
  ExprPool *const p = f->p;
  const Expr *const free = ex_sym_fresh(p, "free"), *const held = ex_sym_fresh(p, "held");
  const Expr *const four = ex_i64(p, 4), *const end = ex_i64(p, INT64_MAX);
  expr_symbol(p, free->id)->runtime = expr_symbol(p, held->id)->runtime = true;
  expr_symbol(p, held->id)->bound = f->n;
  int missing;
  assert_ptr_equal(expr_upper(p, ex_add(p, held, four), &missing), ex_add(p, f->n, four));
  assert_null(expr_upper(p, ex_add(p, held, free), &missing));
  assert_int_equal(missing, free->id);
  assert_ptr_equal(expr_upper(p, ex_min(p, free, four), &missing), four);
  assert_ptr_equal(expr_upper(p, ex_min(p, four, free), &missing), four);
  assert_ptr_equal(expr_upper(p, ex_min(p, free, held), &missing), f->n);
  assert_null(expr_upper(p, ex_max(p, free, four), &missing));
  assert_ptr_equal(expr_upper(p, ex_sub(p, f->n, ex_max(p, free, four)), &missing),
                   ex_sub(p, f->n, four));
  /* no tensor has so many elements */
  assert_null(expr_upper(p, ex_min(p, free, end), &missing));
  expr_symbol(p, held->id)->bound = end;
  assert_null(expr_upper(p, held, &missing));
  assert_int_equal(missing, held->id);
}

static void test_scalar(void **state) {
  (void)state;
  const Scalar z = {0}, m7 = {.i = -7}, p2 = {.i = 2}, lowest = {.i = INT64_MIN}, m1 = {.i = -1};
  assert_int_equal(scalar_op(EX_div, DT_I64, m7, p2, z).i, -3);
  assert_int_equal(scalar_op(EX_floordiv, DT_I64, m7, p2, z).i, -4);
  assert_int_equal(scalar_op(EX_floormod, DT_I64, m7, p2, z).i, 1);
  assert_int_equal(scalar_op(EX_rem, DT_I64, m7, p2, z).i, -1);
  assert_int_equal(scalar_op(EX_div, DT_I64, m7, z, z).i, 0);
  assert_true(scalar_op(EX_div, DT_I64, lowest, m1, z).i == INT64_MIN);
  assert_int_equal(scalar_op(EX_rem, DT_I64, lowest, m1, z).i, 0);
  assert_int_equal(scalar_op(EX_add, DT_I8, (Scalar){.i = 127}, p2, z).i, -127);
  assert_int_equal(scalar_op(EX_shr, DT_I32, m7, p2, z).i, -2);
  assert_int_equal(scalar_op(EX_lt, DT_U64, p2, m1, z).i, 1);
  assert_int_equal(scalar_cast(DT_I8, DT_F32, (Scalar){.f = 1e9}, false).i, 127);
  assert_int_equal(scalar_cast(DT_I32, DT_F32, (Scalar){.f = NAN}, false).i, 0);
  assert_int_equal(scalar_cast(DT_U8, DT_I32, m1, true).i, 0);
  assert_int_equal(scalar_cast(DT_U8, DT_I32, m1, false).i, 255);
}

/* Every code of every small float format decodes and encodes to itself. */
static void test_dtypes(void **state) {
  (void)state;
  for (int t = 1; t < DT_COUNT; t++) {
    const int bits = dtype_rows[t].bits;
    if (!dtype_is_float((DType)t) || bits > 16) continue;
    for (int code = 0; code < 1 << bits; code++) {
      const double v = dtype_decode((DType)t, (uint16_t)code);
      const int back = dtype_encode((DType)t, v, false);
      if (!isnan(v) && back != code)
        fail_msg("%s: code %d becomes %d", dtype_rows[t].text, code, back);
      if (isnan(v)) assert_true(isnan(dtype_decode((DType)t, (uint16_t)back)));
    }
  }
  assert_int_equal(dtype_encode(DT_F16, 65519.99, false), 0x7bff);
  assert_int_equal(dtype_encode(DT_F16, 65520, false), 0x7c00);
  assert_int_equal(dtype_encode(DT_F8E4M3FN, 1000, true), 0x7e);
  assert_int_equal(dtype_encode(DT_F8E4M3FN, 1000, false), 0x7f);
  assert_int_equal(dtype_encode(DT_F8E5M2, 1e9, false), 0x7c);
  assert_int_equal(dtype_encode(DT_F4E2M1, -100, true), 0xf);
  assert_int_equal(dtype_encode(DT_BF16, 1.00390625, false), 0x3f80); /* tie to even */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
      cmocka_unit_test_setup_teardown(test_unflatten, setup, teardown),
      cmocka_unit_test_setup_teardown(test_questions, setup, teardown),
      cmocka_unit_test_setup_teardown(test_text, setup, teardown),
      cmocka_unit_test_setup_teardown(test_sharing, setup, teardown),
      cmocka_unit_test_setup_teardown(test_random, setup, teardown),
      cmocka_unit_test_setup_teardown(test_eval, setup, teardown),
      cmocka_unit_test_setup_teardown(test_upper, setup, teardown),
      cmocka_unit_test(test_scalar),
      cmocka_unit_test(test_dtypes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
