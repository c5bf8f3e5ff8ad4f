/* Every row of scalar.def and every cast, over all element types and all pairs of special values:
 * interpreter, vector code, scalar code, C source and folded constants give the same bits. NaNs are equal; a
 * subnormal counts as the zero of its sign. */
#include "tests/unit/codegen_fixture.h"

#include "runtime/core/cpu.h"

enum { MAX_ROWS = 160, N_TAIL = 3 };

/* ---- values ---- */
static const double float_specials[] = {
    0.0,       -0.0,      1,     -1,    0.5,     -0.5,     1.5,        -1.5,      2.5,
    -2.5,      3,         -7,    2,     1.0 / 3, -0.75,    0.99999994, 1e-3,      -1e-5,
    100.25,    -3000.5,   65504, 65520, -65536,  448,      464,        57344,     16777217,
    -16777219, 1e9,       -1e9,  2.2e9, -2.2e9,  4.3e9,    9.3e18,     -9.3e18,   1.9e19,
    1e20,      -1e22,     3e38,  -3e38, 1e30,    0x1p-126, -0x1p-126,  1e-40,     -1e-44,
    0x1p-24,   0x1.8p-25, 88.7,  -87.4, -104,    710,      INFINITY,   -INFINITY, NAN};
enum { N_FLOATS = sizeof float_specials / sizeof *float_specials };
static const double wide_specials[] = {
    1e300,  -1e300,         1e-310,        0x1p-1022,
    -1e308, 0x1.fffffffp-2, 0x1.0000001p0, 6381956970095103.0 * 0x1p797};
enum { N_WIDE = sizeof wide_specials / sizeof *wide_specials };
static const int64_t int_specials[] = {0,
                                       1,
                                       -1,
                                       2,
                                       3,
                                       -7,
                                       5,
                                       7,
                                       8,
                                       15,
                                       16,
                                       31,
                                       32,
                                       33,
                                       63,
                                       64,
                                       65,
                                       100,
                                       127,
                                       128,
                                       -128,
                                       -129,
                                       255,
                                       256,
                                       1000,
                                       32767,
                                       32768,
                                       65535,
                                       65536,
                                       INT32_MAX,
                                       INT32_MIN,
                                       UINT32_MAX,
                                       INT64_MAX,
                                       INT64_MIN,
                                       16842753,
                                       0x1000001,
                                       (INT64_C(1) << 62) + (INT64_C(1) << 54) + 1};
enum { N_INTS = sizeof int_specials / sizeof *int_specials };

static bool is_number(DType t) {
  return t != DT_NONE && t != DT_STR && dtype_rows[t].cls != DC_COMPLEX;
}

static int special_count(DType t) {
  return !dtype_is_float(t) ? N_INTS : t == DT_F64 ? N_FLOATS + N_WIDE : N_FLOATS;
}

static void special_store(DType t, void *at, int i) {
  if (!dtype_is_float(t))
    dtype_store_i(t, at, int_specials[i]);
  else
    dtype_store_f(t, at, i < N_FLOATS ? float_specials[i] : wide_specials[i - N_FLOATS]);
}

/* Pairs of all specials, and a third operand that goes through them in another order. */
static int64_t fill_pairs(DType t, int operand, char *p) {
  const int k = special_count(t), bytes = dtype_bytes(t);
  const int64_t n = (int64_t)k * k + N_TAIL;
  for (int64_t i = 0; p && i < n; i++) {
    const int64_t at = operand == 0 ? i / k : operand == 1 ? i : i * 7 + 3;
    special_store(t, p + i * bytes, (int)(at % k));
  }
  return n;
}

/* For casts: specials, every code of the small floats as a value, the points half way between two
 * neighbours, and what lies next to those. */
static int64_t fill_casts(DType t, char *p) {
  const int bytes = dtype_bytes(t);
  int64_t n = 0;
  for (int i = 0; i < special_count(t); i++, n++)
    if (p) special_store(t, p + n * bytes, i);
  for (int s = 1; s < DT_COUNT; s++) {
    if (!dtype_is_float((DType)s) || dtype_rows[s].bits > 16) continue;
    const int step = dtype_rows[s].bits == 16 ? 1021 : 3;
    for (int code = 0; code + 1 < 1 << dtype_rows[s].bits; code += step) {
      const double x = dtype_decode((DType)s, (uint16_t)code),
                   y = dtype_decode((DType)s, (uint16_t)(code + 1)), mid = (x + y) / 2;
      const double v[] = {x, mid, mid * (1 + 0x1p-40), mid * (1 - 0x1p-40), mid * (1 + 0x1p-22)};
      for (int k = 0; k < 5; k++, n++)
        if (p) dtype_store_f(t, p + n * bytes, v[k]);
    }
  }
  return n;
}

/* Equal, as this test understands it. */
static bool same(DType t, const void *a, const void *b) {
  if (!dtype_is_float(t)) return dtype_load_i(t, a) == dtype_load_i(t, b);
  const double x = dtype_load_f(t, a), y = dtype_load_f(t, b);
  if (isnan(x) || isnan(y)) return isnan(x) && isnan(y);
  const double least = t == DT_F64 ? 0x1p-1022 : t == DT_F16 ? 0 : 0x1p-126;
  if (fabs(x) < least && fabs(y) < least) return signbit(x) == signbit(y);
  return x == y && signbit(x) == signbit(y);
}

/* ---- programs ---- */
typedef struct Text { /* a kernel with a vector and a serial loop per statement */
  Arena *a;
  DType in;
  int n_in, n_out;
  int forms; /* 2: each statement in a vector and in a scalar loop; 1: by turns */
  int64_t n;
  DType type[MAX_ROWS];
  const char *expr[MAX_ROWS];
} Text;

static void add(Text *t, DType out, const char *expr) {
  assert_true(t->n_out + 2 < MAX_ROWS - 3);
  t->type[t->n_out] = out;
  t->expr[t->n_out++] = expr;
}

static bool is_scalar(const Text *t, int k) { return (t->forms == 2 ? k : k + (int)t->in) % 2; }

static const char *text_of(const Text *t) {
  StrBuf b = {.arena = t->a}, outs = {.arena = t->a}, params = {.arena = t->a},
         body = {.arena = t->a}, call = {.arena = t->a}, ins = {.arena = t->a};
  sb_printf(&b, "module {\n");
  for (int k = 0; k < t->n_in; k++) {
    sb_printf(&b, "  b%d : %s[%d] = input %d\n", k, dtype_text(t->in), (int)t->n, k);
    sb_printf(&ins, "%sb%d", k ? ", " : "", k);
    sb_printf(&params, "    param b%d : %s[%d] read align 1\n", k, dtype_text(t->in), (int)t->n);
    sb_printf(&call, "%sb%d", k ? ", " : "", k);
  }
  for (int k = 0; k < t->forms * t->n_out; k++) {
    const int id = t->n_in + k;
    const char *type = dtype_text(t->type[k / t->forms]);
    sb_printf(&b, "  b%d : %s[%d] = output %d\n", id, type, (int)t->n, k);
    sb_printf(&outs, "%sb%d", k ? ", " : "", id);
    sb_printf(&params, "    param b%d : %s[%d] write align 1\n", id, type, (int)t->n);
    sb_printf(&call, ", b%d", id);
    sb_printf(&body, "    for i%d in 0..%d%s {\n      b%d[i%d] = ", k, (int)t->n,
              is_scalar(t, k) ? "" : " vector", id, k);
    for (const char *s = t->expr[k / t->forms]; *s; s++)
      if (*s == '#')
        sb_printf(&body, "[i%d]", k);
      else
        sb_printf(&body, "%c", *s);
    sb_printf(&body, "\n    }\n");
  }
  sb_printf(&b,
            "  inputs %s\n  outputs %s\n  kernel k {\n%s%s  }\n  steps {\n    call k(%s)\n  }\n}\n",
            sb_str(&ins), sb_str(&outs), sb_str(&params), sb_str(&body), sb_str(&call));
  return sb_str(&b);
}

static void run(Fix *f, Module *m, const Target *t, const void *const *in, void *const *out) {
  int64_t dims[8] = {0};
  if (t->arch == ARCH_X86_64)
    assert_int_equal(invoke(compile_for(f, m, t, "same bits"), in, out, dims), BURIN_OK);
  else
    run_emulated(f, m, t, in, out, dims, "", "same bits");
}

static const Expr *constant(ExprPool *p, DType t, const char *at) {
  return dtype_is_float(t) ? ex_float(p, t, dtype_load_f(t, at))
                           : ex_int(p, t, dtype_load_i(t, at));
}

typedef struct Fold {
  const Text *t;
  ExprPool *p;
  void *const *in;
  int64_t i;
} Fold;

static const Expr *folded_load(void *user, const Expr *e) {
  const Fold *f = user;
  if (e->op != EX_LOAD) return NULL;
  return constant(f->p, f->t->in, (const char *)f->in[e->id] + f->i * dtype_bytes(f->t->in));
}

/* What the constructors make of statement k's value when its loads are constants. */
static void check_folded(Fix *f, const Text *t, const Module *m, void *const *in,
                         void *const *want) {
  const Stmt *s = m->kernels.data[0]->body;
  for (int k = 0; k < t->n_out; k++, s = t->forms == 2 ? s->next->next : s->next) {
    const DType type = t->type[k];
    for (int64_t i = k; i < t->n; i += 11) {
      Fold fold = {t, f->m->pool, in, i};
      const Expr *e = expr_rewrite(f->m->pool, s->loop.body->access.value, folded_load, &fold);
      char got[8] = {0};
      if (e->op != EX_CONST) fail_msg("%s is not folded", t->expr[k]);
      if (dtype_is_float(type))
        dtype_store_f(type, got, e->k.f);
      else
        dtype_store_i(type, got, e->k.i);
      if (!same(type, got, (char *)want[t->forms * k] + i * dtype_bytes(type)))
        fail_msg("%s of %s at %d: folded %.17g, interpreted %.17g", t->expr[k], dtype_text(t->in),
                 (int)i, dtype_load_f(type, got),
                 dtype_load_f(type, (char *)want[t->forms * k] + i * dtype_bytes(type)));
    }
  }
}

static void compare_bits(const Text *t, const char *target, void *const *in, void *const *want,
                         void *const *got) {
  const int bytes = dtype_bytes(t->in);
  int wrong = 0;
  for (int k = 0; k < t->forms * t->n_out && wrong < 20; k++) {
    const DType type = t->type[k / t->forms];
    for (int64_t i = 0; i < t->n; i++) {
      const char *x = (char *)want[k] + i * dtype_bytes(type),
                 *y = (char *)got[k] + i * dtype_bytes(type);
      if (same(type, x, y)) continue;
      fprintf(stderr, "%s, %s, %s of %s (", target, is_scalar(t, k) ? "scalar" : "vector",
              t->expr[k / t->forms], dtype_text(t->in));
      for (int o = 0; o < t->n_in; o++)
        fprintf(stderr, "%s%.9g", o ? ", " : "", dtype_load_f(t->in, (char *)in[o] + i * bytes));
      fprintf(stderr, ") [%d]: interpreted %.17g (%a), code %.17g (%a)\n", (int)i,
              dtype_load_f(type, x), dtype_load_f(type, x), dtype_load_f(type, y),
              dtype_load_f(type, y));
      wrong++;
      break;
    }
  }
  if (wrong) fail();
}

static bool has_gcc(void) { return system("gcc --version >/dev/null 2>&1") == 0; }

/* Interpreter against code on a target; beside x86-64-v2, whose rules for floats are those of C,
 * against C source. */
static void check_bits_on(Fix *f, const Target *row, const Text *t, void *const *in) {
  f->m = model_new(f->a, f->d);
  *expr_pool_rules(f->m->pool) = target_float_rules(row);
  const char *const text = text_of(t);
  Module *m = module_parse(f->m, text, "test");
  must(f, m != NULL, text);
  name_tensors(f, m);
  void *want[MAX_ROWS], *got[MAX_ROWS];
  for (int k = 0; k < t->forms * t->n_out; k++) {
    want[k] = arena_alloc(f->a, (size_t)(t->n * dtype_bytes(t->type[k / t->forms])));
    got[k] = arena_alloc(f->a, (size_t)(t->n * dtype_bytes(t->type[k / t->forms])));
  }
  PassCtx c = {.model = f->m, .module = m, .scratch = f->a};
  Module *const plain = module_parse(f->m, text, "test");
  assert_true(pass_expand_math(&c));
  must(f, module_interpret(m, (const void *const *)in, want, (int64_t[8]){0}), text);
  check_folded(f, t, plain, in, want);
  run(f, m, row, (const void *const *)in, got);
  compare_bits(t, row->name, in, want, got);
  if (row == target_find("x86-64-v2") && has_gcc()) {
    run(f, m, target_find("c"), (const void *const *)in, got);
    compare_bits(t, "c", in, want, got);
  }
}

/* NULL: this machine. */
static void check_bits(Fix *f, const char *target, const Text *t, void *const *in) {
  Target native;
  if (!target) assert_true(target_native(&native));
  check_bits_on(f, target ? target_find(target) : &native, t, in);
}

/* ---- rows ---- */
typedef struct Row {
  const char *text;
  int arity;
  ExprOp op;
} Row;
static const Row rows[] = {
#define S(id, text, arity, result, cost, adjoint) {text, arity, EX_##id},
#include "ir/expr/scalar.def"
#undef S
};

/* Does the row mean something on t? */
static bool applies(ExprOp op, DType t) {
  const bool bitwise = op >= EX_and && op <= EX_shr, math = op >= EX_exp && op < EX_pow;
  if (op == EX_cast || op == EX_sat || op == EX_bits || op == EX_select || op == EX_rarely)
    return false;
  if (op >= EX_dot4_u8i8 && op <= EX_dot2_i16) return t == DT_I32;
  if (op == EX_dot2_bf16) return false;
  if (t == DT_BOOL)
    return op == EX_and || op == EX_or || op == EX_xor || op == EX_not || op == EX_eq ||
           op == EX_ne || op == EX_min || op == EX_max;
  if (dtype_is_float(t)) return !bitwise && op != EX_floordiv && op != EX_floormod;
  return !math && op != EX_sqrt;
}

static const char *call_of(Arena *a, const Row *r) {
  static const char *const arg[] = {"b0#", "b1#", "b2#"};
  const bool infix = r->arity == 2 && !((r->text[0] >= 'a' && r->text[0] <= 'z'));
  if (infix) return arena_printf(a, "%s %s %s", arg[0], r->text, arg[1]);
  StrBuf b = {.arena = a};
  for (int i = 0; i < r->arity; i++) sb_printf(&b, "%s%s", i ? ", " : "", arg[i]);
  return arena_printf(a, "%s(%s)", r->text, sb_str(&b));
}

/* Rows from..to of type t, and compositions that code generation treats in its own way. */
static void check_rows(Fix *f, const char *target, DType t, ExprOp from, ExprOp to) {
  Arena *const outer = f->a;
  f->a = arena_new(0, NULL, NULL);
  Text text = {.a = f->a, .in = t, .n_in = 3, .forms = 2, .n = fill_pairs(t, 0, NULL)};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    const ExprOp op = rows[i].op;
    if (op < from || op > to || !applies(op, t)) continue;
    const bool truth = op == EX_lt || op == EX_le || op == EX_eq || op == EX_ne || op == EX_isnan;
    add(&text, truth ? DT_BOOL : t, call_of(f->a, &rows[i]));
  }
  if (from == EX_add) {
    static const char *const more[] = {"select(b0# == b1#, b1#, b2#)",
                                       "rarely(b0# != b1#, b2#, b1#)", "min(b0#, b1#)"};
    static const char *const numbers[] = {"max(b0#, 0)",      "min(b0#, 0)",
                                          "b0#*b1# + b2#",    "min(max(b0#, 0), 6)",
                                          "fma(b0#, 3, b2#)", "max(0, min(b1#, 1))"};
    for (int k = 0; k < 3; k++) add(&text, t, more[k]);
    for (int k = 0; k < 6 && t != DT_BOOL; k++) add(&text, t, numbers[k]);
  } else if (dtype_is_float(t)) {
    static const char *const powers[] = {"pow(b0#, 2)", "pow(b0#, -1)", "pow(b0#, 0.5)",
                                         "exp(b0# - b1#)*sigmoid(b2#)"};
    for (int k = 0; k < 4; k++) add(&text, t, powers[k]);
  } else {
    add(&text, t, "pow(b0#, 3)");
  }
  void *in[3];
  for (int k = 0; k < 3; k++) {
    in[k] = arena_alloc(f->a, (size_t)(text.n * dtype_bytes(t)));
    fill_pairs(t, k, in[k]);
  }
  if (text.n_out) check_bits(f, target, &text, in);
  arena_free(f->a);
  f->a = outer;
}

static void check_casts(Fix *f, const char *target, DType from) {
  Arena *const outer = f->a;
  f->a = arena_new(0, NULL, NULL);
  Text text = {.a = f->a, .in = from, .n_in = 1, .forms = 1, .n = fill_casts(from, NULL)};
  for (int to = 1; to < DT_COUNT; to++) {
    if (!is_number((DType)to)) continue;
    add(&text, (DType)to, arena_printf(f->a, "cast<%s>(b0#)", dtype_text((DType)to)));
    if (to != DT_BOOL && dtype_rows[to].bits < 64 && to != DT_F32) /* else it is the same */
      add(&text, (DType)to, arena_printf(f->a, "sat<%s>(b0#)", dtype_text((DType)to)));
  }
  void *in[1] = {arena_alloc(f->a, (size_t)(text.n * dtype_bytes(from)))};
  fill_casts(from, in[0]);
  check_bits(f, target, &text, in);
  arena_free(f->a);
  f->a = outer;
}

/* ---- tests ---- */
static const char *const here[] = {NULL, "x86-64-v3", "x86-64-v2"};
static const char *const emulated[] = {"aarch64", "armv7"};

static void test_basic(void **state) {
  Fix *f = *state;
  for (int t = 1; t < DT_COUNT; t++)
    for (int k = 0; k < 3; k++) {
      if (is_number((DType)t) && (t == DT_F32 || k == t % 3))
        check_rows(f, here[k], (DType)t, EX_add, EX_isnan);
    }
}

/* Groups whose elements are all values, on every kind of instruction for them. */
static void check_groups(Fix *f, const Target *target) {
  static const char *const dots[] = {"dot4_u8i8(b0#, b1#, b2#)",
                                     "dot4_i8i8(b0#, b1#, b2#)",
                                     "dot4_u8u8(b0#, b1#, b2#)",
                                     "dot4_u8i8(b0#, 16843009, b2#)",
                                     "dot2_i16(b0#, b1#, b2#)",
                                     "dot2x2_u8i8(b0#, b1#, b2#)",
                                     "dot2x2_u8i8(b0# & 252645135, b1#, b2#)"};
  Arena *const outer = f->a;
  f->a = arena_new(0, NULL, NULL);
  Text text = {.a = f->a, .in = DT_I32, .n_in = 3, .forms = 2, .n = 256 * 8 + N_TAIL};
  for (size_t k = 0; k < sizeof dots / sizeof *dots; k++) add(&text, DT_I32, dots[k]);
  void *in[3];
  uint32_t seed = 1;
  for (int k = 0; k < 3; k++) {
    unsigned char *const p = in[k] = arena_alloc(f->a, (size_t)text.n * 4);
    for (int64_t i = 0; i < text.n * 4; i++) {
      seed = seed * 1664525 + 1013904223;
      p[i] = i % 3 ? (unsigned char)(seed >> 24) : seed & 1 << 20 ? 0x80 : 0xff;
    }
  }
  check_bits_on(f, target, &text, in);
  arena_free(f->a);
  f->a = outer;
}

/* Pairs of bf16: zeros, subnormals, what is next to the least and to the greatest number when multiplied,
 * infinities, NaN, and any; each with sums of its size. */
static const uint16_t pair_specials[] = {0,      0x8000, 0x3f80, 0xbf80, 0x7f80, 0xff80, 0x7fc0,
                                         0x0001, 0x807f, 0x7f7f, 0xff7f, 0x1f80, 0x2001, 0xa040,
                                         0x5f80, 0xdf7f, 0x6000, 0x3f81, 0x0080, 0x8081};
enum { N_PAIRS = sizeof pair_specials / sizeof *pair_specials };
enum {
  TINY = 2
}; /* the last ones, whose products ARM may add to what it flushes before rounding */
static const float sum_specials[] = {0,          -0.0f,     1,         -1e-3f,    0x1p-126f,
                                     -0x1p-126f, 0x1p-125f, 0x3p-127f, -0x1p127f, 3.4e38f,
                                     INFINITY,   NAN,       1e-40f};
enum { N_SUMS = sizeof sum_specials / sizeof *sum_specials };

static void check_bf16(Fix *f, const Target *target) {
  Arena *const outer = f->a;
  f->a = arena_new(0, NULL, NULL);
  Text text = {.a = f->a, .in = DT_I32, .n_in = 3, .forms = 2, .n = 40000 + N_TAIL};
  add(&text, DT_F32, "dot2_bf16(b0#, b1#, bits<f32>(b2#))");
  add(&text, DT_F32, "dot2_bf16(b0#, 1065369472, bits<f32>(b2#))");
  void *in[3];
  uint32_t seed = 1;
  const uint32_t pairs = N_PAIRS - (target->arch == ARCH_X86_64 ? 0 : TINY);
  for (int k = 0; k < 3; k++) {
    uint32_t *const p = in[k] = arena_alloc(f->a, (size_t)text.n * 4);
    for (int64_t i = 0; i < text.n; i++) {
      seed = seed * 1664525 + 1013904223;
      p[i] = seed >> 8 ^ seed << 13;
      if (i % 4 == 3) continue;
      if (k == 2)
        memcpy(&p[i], &sum_specials[(seed >> 16) % N_SUMS], 4);
      else
        p[i] = (uint32_t)pair_specials[(seed >> 8) % pairs] << 16 |
               pair_specials[(seed >> 20) % pairs];
    }
  }
  check_bits_on(f, target, &text, in);
  arena_free(f->a);
  f->a = outer;
}

/* A row with a feature that it does not have. */
static Target with_feature(const char *row, Feature feature, const char *llvm) {
  Target t = *target_find(row);
  t.cpu_features |= feature_rows[feature].on[t.arch].bit;
  snprintf(t.features_text, sizeof t.features_text, "%s%s%s", t.llvm_features,
           *t.llvm_features ? "," : "", llvm);
  return t;
}

static void test_groups(void **state) {
  static const struct {
    const char *row;
    Feature feature;
    const char *llvm;
  } more[] = {{"x86-64-v3", FEATURE_AVXVNNI, "+avxvnni"},
              {"x86-64-v4", FEATURE_VNNI, "+avx512vnni"}};
  Target native;
  assert_true(target_native(&native));
  check_groups(*state, &native);
  for (int k = 1; k < 3; k++) check_groups(*state, target_find(here[k]));
  for (int k = 0; k < 2; k++) {
    Target t = with_feature(more[k].row, more[k].feature, more[k].llvm);
    t.llvm_features = t.features_text;
    if (target_runs_here(&t)) check_groups(*state, &t);
  }
}

static void test_bf16(void **state) {
  Target native, t = with_feature("x86-64-v4", FEATURE_BF16, "+avx512bf16");
  assert_true(target_native(&native));
  check_bf16(*state, &native);
  for (int k = 1; k < 3; k++) check_bf16(*state, target_find(here[k]));
  t.llvm_features = t.features_text;
  if (!burin_rt_cpu_missing(t.cpu_features)) check_bf16(*state, &t); /* `native` may leave it out */
}

/* Arithmetic in f16, where f32 is what others compute in: with subnormal numbers. */
static void check_halves(Fix *f, const char *target) {
  check_rows(f, target, DT_F16, EX_add, EX_isnan);
  check_rows(f, target, DT_F16, EX_exp, EX_pow);
  check_casts(f, target, DT_F16);
}

static void test_f16(void **state) {
  Fix *f = *state;
  check_halves(f, NULL);
  if (target_runs_here(target_find("sapphirerapids"))) check_halves(f, "sapphirerapids");
}

static const DType math_types[] = {DT_F32, DT_F64, DT_F16, DT_BF16, DT_I32, DT_I64, DT_U64, DT_U8};
enum { N_MATH = sizeof math_types / sizeof *math_types };

static void test_math(void **state) {
  Fix *f = *state;
  for (int t = 0; t < N_MATH; t++)
    for (int k = 0; k < 3; k++)
      if (t == 0 || k == t % 3) check_rows(f, here[k], math_types[t], EX_exp, EX_pow);
}

static void test_casts(void **state) {
  Fix *f = *state;
  for (int t = 1; t < DT_COUNT; t++)
    for (int k = 0; k < 3; k++)
      if (is_number((DType)t) && k == t % 3) check_casts(f, here[k], (DType)t);
}

/* C source of types that have no turn with x86-64-v2. */
static void test_source(void **state) {
  Fix *f = *state;
  if (!has_gcc()) skip();
  for (int t = 1; t < DT_COUNT; t++)
    if (is_number((DType)t) && t % 3 != 2 && t != DT_F32)
      check_rows(f, "c", (DType)t, EX_add, EX_isnan);
}

static bool has_emulators(void) {
  return system("qemu-arm --version >/dev/null 2>&1") == 0 &&
         system("qemu-aarch64 --version >/dev/null 2>&1") == 0;
}

static void test_emulated(void **state) {
  static const DType types[] = {DT_F32, DT_F64, DT_I64};
  Fix *f = *state;
  if (!has_emulators()) skip();
  for (int k = 0; k < 2; k++) {
    for (int t = 0; t < 3; t++) check_rows(f, emulated[k], types[t], EX_add, EX_isnan);
    for (int t = 0; t < 3; t++) check_rows(f, emulated[k], types[t], EX_exp, EX_pow);
    check_casts(f, emulated[k], types[k]);
    check_groups(f, target_find(emulated[k]));
  }
  for (int k = 0; k < 2; k++) {
    Target t = with_feature("aarch64", k ? FEATURE_I8MM : FEATURE_DOTPROD, "+dotprod");
    if (k) t.cpu_features |= feature_rows[FEATURE_DOTPROD].on[ARCH_AARCH64].bit;
    t.llvm_features = k ? "+neon,+dotprod,+i8mm" : t.features_text;
    check_groups(f, &t);
  }
}

static void test_bf16_emulated(void **state) {
  if (!has_emulators()) skip();
  Target t = with_feature("aarch64", FEATURE_BF16, "+bf16");
  t.llvm_features = t.features_text;
  check_bf16(*state, &t);
  for (int k = 0; k < 2; k++) check_bf16(*state, target_find(emulated[k]));
}

static void test_f16_emulated(void **state) {
  if (!has_emulators()) skip();
  check_rows(*state, "cortex-a76", DT_F16, EX_add, EX_isnan);
  check_casts(*state, "cortex-a76", DT_F16);
}

int main(int argc, char **argv) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_basic, setup, teardown),
      cmocka_unit_test_setup_teardown(test_groups, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bf16, setup, teardown),
      cmocka_unit_test_setup_teardown(test_f16, setup, teardown),
      cmocka_unit_test_setup_teardown(test_casts, setup, teardown),
      cmocka_unit_test_setup_teardown(test_math, setup, teardown),
      cmocka_unit_test_setup_teardown(test_source, setup, teardown),
      cmocka_unit_test_setup_teardown(test_emulated, setup, teardown),
      cmocka_unit_test_setup_teardown(test_bf16_emulated, setup, teardown),
      cmocka_unit_test_setup_teardown(test_f16_emulated, setup, teardown),
  };
  cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
