/* What a run refuses before it computes: items of the list that all entries walk. */
#include <inttypes.h>

#include "codegen/c/c.h"
#include "codegen/host/entry.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

/* ---- one check ---- */
void c_require(CEntry *e, const char *ok, int check, const char *a, const char *b, const char *d) {
  c_line(e->c, "if (!(%s)) return burin_rt_fail(&own, %d, %d, %s, %s, %s);", ok,
         e->p->checks->data[check].status, check, a ? a : "0", b ? b : "0", d ? d : "0");
}

/* ---- sizes ---- */
typedef struct Approximate { /* what has a name, by expression */
  CText *c;
  bool named; /* long formulas share their parts */
  Vec(const Expr *) of;
  Vec(const char *) names;
} Approximate;

static const char *approximate_new(Approximate *a, const Expr *e);

static const char *approximate_part(Approximate *a, const Expr *e) {
  CText *const c = a->c;
  int64_t k;
  for (int i = 0; i < a->of.n; i++)
    if (a->of.data[i] == e) return a->names.data[i];
  const char *const text = approximate_new(a, e);
  if (!a->named || expr_is_const(e, &k)) return text;
  const char *const name = TEXT("v%d", c->temps++);
  c_line(c, "const double %s = %s;", name, text);
  vec_push(c->arena, &a->of, e);
  vec_push(c->arena, &a->names, name);
  return name;
}

/* The value of a size in floating point: cannot overflow, and is exact enough to refuse what
 * would. */
static const char *approximate(CText *c, const Expr *e) {
  enum { LONG = 200 }; /* parts */
  Approximate a = {.c = c, .named = expr_tree_size(e) > LONG};
  return approximate_part(&a, e);
}

static const char *approximate_new(Approximate *m, const Expr *e) {
  CText *const c = m->c;
  int64_t k;
  if (expr_is_const(e, &k)) return TEXT("%.17e", (double)k);
  const bool two =
      e->op == EX_add || e->op == EX_sub || e->op == EX_mul || e->op == EX_min || e->op == EX_max;
  if (!two && e->op != EX_floordiv && e->op != EX_select) return TEXT("(double)%s", c_wide(c, e));
  if (e->op == EX_select) {
    const char *const cond = c_wide(c, e->a[0]), *const yes = approximate_part(m, e->a[1]);
    return TEXT("(%s ? %s : %s)", cond, yes, approximate_part(m, e->a[2]));
  }
  const char *const a = approximate_part(m, e->a[0]), *const b = approximate_part(m, e->a[1]);
  if (e->op == EX_min || e->op == EX_max)
    return TEXT("burin_c_%s(%s, %s)", e->op == EX_min ? "fmin" : "fmax", a, b);
  if (e->op == EX_floordiv) return TEXT("(%s / burin_c_fmax(%s, 1.0))", a, b); /* by less: by one */
  return TEXT("(%s %c %s)", a, e->op == EX_add ? '+' : e->op == EX_sub ? '-' : '*', b);
}

const char *c_fits(CText *c, const Expr *bytes) {
  return TEXT("%s <= (sizeof(void *) == 4 ? 2147483648.0 : 70368744177664.0)",
              approximate(c, bytes));
}

/* A size that 64 bits hold; NULL: it always is one. */
static const char *fits_arithmetic(CText *c, const Expr *e) {
  if (expr_magnitude(e, INT32_MAX) < 4e18) return NULL;
  const char *const v = approximate(c, e);
  return TEXT("%s <= 4e18 && %s >= -4e18", v, v);
}

static void require_assume(CEntry *e, const DimAssume *a, int check, const Expr *const *numbers) {
  CText *const c = e->c;
  const char *ok = c_wide(c, assume_condition(c->pool, a)), *values[3];
  const char *const sides[2] = {fits_arithmetic(c, a->a), fits_arithmetic(c, a->b)};
  for (int i = 0; i < 2; i++)
    if (sides[i]) ok = TEXT("%s && %s", ok, sides[i]);
  for (int i = 0; i < 3; i++) values[i] = numbers[i] ? c_wide(c, numbers[i]) : NULL;
  c_require(e, ok, check, values[0], values[1], values[2]);
}

void c_require_assume(CEntry *e, const DimAssume *a) {
  const Expr *numbers[3] = {NULL};
  require_assume(e, a, check_assume(e->p, a, numbers), numbers);
}

static void check_symbol(CEntry *e, const EntryItem *item) {
  CText *const c = e->c;
  const char *const v = TEXT("sym[%d]", item->k), *const least = c_i64(c, item->n);
  const char *const most = item->e ? c_wide(c, item->e) : "INT32_MAX";
  c_require(e, TEXT("%s >= %s", v, least), item->check, v, least, NULL);
  c_require(e, TEXT("%s <= %s", v, most), item->check + 1, v, most, NULL);
}

/* ---- options and arguments ---- */
static void check_options(CEntry *e, const EntryItem *item) {
  c_require(e, "burin_rt_options(given, &own) == BURIN_OK", item->check, NULL, NULL, NULL);
  c_require(e, arena_printf(e->p->arena, "own.threads <= %d", (int)item->n), item->check + 1,
            "own.threads", NULL, NULL);
}

static void check_argument(CEntry *e, const EntryItem *item) {
  static const char *const arrays[] = {"in", "out", "dims"};
  c_require(e, arrays[item->k], item->check, NULL, NULL, NULL);
}

/* ---- defaults ---- */
static void check_default_size(CEntry *e, const EntryItem *item) {
  CText *const c = e->c;
  const char *const size = c_wide(c, item->e), *const own = c_i64(c, item->n);
  c_require(e, TEXT("given_in[%d] || wrong == -1 || %s == %s", item->k, size, own), item->check,
            size, own, NULL);
}

/* From here on `in` is a copy in which a NULL for an input with a default is the default's address,
 * and behind which stands the address of a bool: no such input is given. */
static void take_defaults(CEntry *e) {
  CText *const c = e->c;
  const int n = e->p->m->inputs.n;
  c_line(c, "const void *const *const given_in = in;");
  c_line(c, "const void *own_in[%d];", n + 1);
  c_line(c, "const int64_t wrong = burin_rt_inputs(in, %s_defaults, %d, own_in);", e->p->name, n);
  c_line(c, "const uint8_t unset = wrong == -1;");
  c_line(c, "own_in[%d] = &unset;", n);
  c_line(c, "(void)given_in;");
}

static void check_pinned(CEntry *e, const EntryItem *item) {
  CText *const c = e->c;
  if (item->check >= 0)
    c_require(e, TEXT("wrong != %d", item->k + 1), item->check, NULL, NULL, NULL);
}

/* ---- pointers ---- */
/* A tensor without elements may be NULL. */
static void check_pointer(CEntry *e, const EntryItem *item) {
  CText *const c = e->c;
  const int n_in = e->p->m->inputs.n, k = item->k;
  const char *ok = k < n_in ? TEXT("in[%d]", k) : TEXT("out[%d]", k - n_in);
  if (!item->some) ok = TEXT("%s || %s <= 0", ok, c_wide(c, item->e));
  c_require(e, ok, item->check, NULL, NULL, NULL);
}

/* ---- the arena ---- */
/* Behind it, own.threads is what the arena has room for: those asked for, one where nobody lends
 * any or where the arena's size is not told and each needs room in it. */
static void check_arena(CEntry *e, const EntryItem *item) {
  CText *const c = e->c;
  const char *const bytes = c_wide(c, program_arena_bytes(e->p));
  c_line(c, "const uint64_t arena_bytes = (uint64_t)%s;", bytes);
  c_line(c, "const uint64_t stride = (uint64_t)%s;", c_wide(c, program_thread_bytes(e->p)));
  c_line(c,
         "if (own.threads < 1 || !(own.parallel_for || own.parallel_ranges) || (own.arena_bytes == "
         "0 && stride != 0))");
  c_line(c, "  own.threads = 1;");
  c_line(c, "const uint64_t needed = arena_bytes + stride * (uint64_t)own.threads;");
  c_require(e, "needed == 0 || arena", item->check, "(int64_t)needed", NULL, NULL);
  c_require(e, "needed == 0 || (uintptr_t)arena % 64 == 0", item->check + 1, NULL, NULL, NULL);
  c_require(e, "own.arena_bytes == 0 || own.arena_bytes >= needed", item->check + 2,
            "(int64_t)own.arena_bytes", "(int64_t)needed", "own.threads");
}

void c_check(CEntry *e, const EntryItem *item) {
  switch (item->kind) {
    case EN_OPTIONS: check_options(e, item); break;
    case EN_ARGUMENT: check_argument(e, item); break;
    case EN_SYMBOLS: c_line(e->c, "%s_symbols(sym, dims);", e->p->name); break;
    case EN_SYMBOL: check_symbol(e, item); break;
    case EN_FITS: c_require(e, c_fits(e->c, item->e), item->check, NULL, NULL, NULL); break;
    case EN_ASSUME: require_assume(e, item->assume, item->check, item->values); break;
    case EN_DEFAULTS: take_defaults(e); break;
    case EN_DEFAULT: check_pinned(e, item); break;
    case EN_DEFAULT_SIZE: check_default_size(e, item); break;
    case EN_DEFAULTS_DONE: c_line(e->c, "in = own_in;"); break;
    case EN_POINTER: check_pointer(e, item); break;
    case EN_SAME:
      c_require(
          e,
          arena_printf(e->c->arena, "!in[%d] || in[%d] == out[%d]", item->k, item->k, (int)item->n),
          item->check, NULL, NULL, NULL);
      break;
    case EN_ARENA: check_arena(e, item); break;
    case EN_HEAP:
      c_require(e, "own.heap", item->check, NULL, NULL, NULL);
      c_line(e->c, "burin_rt_heap_begin(own.heap);");
      break;
    case EN_WEIGHTS: /* files of C hold their weights */
    case EN_STEPS:
    case EN_RESULTS: break;
  }
}
