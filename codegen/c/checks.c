/* What a run refuses before it computes: the same checks, in the same order, as compiled objects
 * have (codegen/llvm/entry_checks.c). */
#include <inttypes.h>

#include "codegen/c/c.h"
#include "codegen/host/checks.h"

#define TEXT(...) arena_printf(c->arena, __VA_ARGS__)

/* ---- one check ---- */
void c_require(CEntry *e, const char *ok, int check, const char *a, const char *b, const char *d) {
  c_line(e->c, "if (!(%s)) return burin_rt_fail(&own, %d, %d, %s, %s, %s);", ok,
         e->p->checks->data[check].status, check, a ? a : "0", b ? b : "0", d ? d : "0");
}

/* ---- sizes ---- */
/* The value of a size in floating point: cannot overflow, and is exact enough to refuse what
 * would. */
static const char *approximate(CText *c, const Expr *e) {
  int64_t k;
  if (expr_is_const(e, &k)) return TEXT("%.17e", (double)k);
  const bool two =
      e->op == EX_add || e->op == EX_sub || e->op == EX_mul || e->op == EX_min || e->op == EX_max;
  if (two) {
    const char *const a = approximate(c, e->a[0]), *const b = approximate(c, e->a[1]);
    if (e->op == EX_min || e->op == EX_max)
      return TEXT("burin_c_%s(%s, %s)", e->op == EX_min ? "fmin" : "fmax", a, b);
    return TEXT("(%s %c %s)", a, e->op == EX_add ? '+' : e->op == EX_sub ? '-' : '*', b);
  }
  if (e->op == EX_floordiv) /* by less than one: by one */
    return TEXT("(%s / burin_c_fmax(%s, 1.0))", approximate(c, e->a[0]), approximate(c, e->a[1]));
  if (e->op == EX_select)
    return TEXT("(%s ? %s : %s)", c_wide(c, e->a[0]), approximate(c, e->a[1]),
                approximate(c, e->a[2]));
  return TEXT("(double)%s", c_wide(c, e));
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

void c_require_assume(CEntry *e, const DimAssume *a) {
  CText *const c = e->c;
  const Expr *numbers[3] = {NULL};
  const int check = check_assume(e->p, a, numbers);
  const char *ok = c_wide(c, assume_condition(c->pool, a)), *values[3];
  const char *const sides[2] = {fits_arithmetic(c, a->a), fits_arithmetic(c, a->b)};
  for (int i = 0; i < 2; i++)
    if (sides[i]) ok = TEXT("%s && %s", ok, sides[i]);
  for (int i = 0; i < 3; i++) values[i] = numbers[i] ? c_wide(c, numbers[i]) : NULL;
  c_require(e, ok, check, values[0], values[1], values[2]);
}

static void check_symbol(CEntry *e, int id) {
  CText *const c = e->c;
  const Symbol *const s = expr_symbol(c->pool, id);
  const char *const name = check_symbol_text(e->p, id), *const v = TEXT("sym[%d]", id);
  const char *const least = c_i64(c, s->lo > 0 ? s->lo : 0);
  const char *const most =
      s->bound && !expr_uses_runtime(c->pool, s->bound) ? c_wide(c, s->bound) : "INT32_MAX";
  const int low = check_add(e->p, BURIN_E_DIMS, NULL, "%s is {0}, the model needs at least {1}",
                            name),
            high =
                check_add(e->p, BURIN_E_DIMS, NULL, "%s is {0}, the model takes at most {1}", name);
  c_require(e, TEXT("%s >= %s", v, least), low, v, least, NULL);
  c_require(e, TEXT("%s <= %s", v, most), high, v, most, NULL);
}

static void require_fits(CEntry *e, const Expr *bytes, const char *what) {
  int64_t k;
  if (expr_is_const(bytes, &k)) return;
  const int check =
      check_add(e->p, BURIN_E_DIMS, NULL, "%s is larger than this target can address", what);
  c_require(e, c_fits(e->c, bytes), check, NULL, NULL, NULL);
}

static void check_dims(CEntry *e) {
  const Program *const p = e->p;
  const Model *const m = p->m->model;
  for (int i = 0; i < p->n_caller; i++) check_symbol(e, p->symbols[i]);
  for (int i = 0; i < p->m->inputs.n + p->m->outputs.n; i++)
    require_fits(e, program_io_bytes(p, i), program_io_name(p, i));
  require_fits(e, program_arena_bytes(p), "the arena");
  require_fits(e, program_thread_bytes(p), "the arena of a thread");
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *const d = &m->assumes.data[i];
    if (!program_checked_at_entry(p, d)) continue;
    c_require_assume(e, d);
  }
}

/* ---- options and arguments ---- */
static void check_options(CEntry *e) {
  const Program *const p = e->p;
  const int most = p->m->max_threads > 1 ? p->m->max_threads : 1;
  const int bad = check_add(p, BURIN_E_ARGUMENT, NULL, "options: their size is not set");
  c_require(e, "burin_rt_options(given, &own) == BURIN_OK", bad, NULL, NULL, NULL);
  const int many = check_add(p, BURIN_E_ARGUMENT, NULL,
                             "{0} threads: the model was compiled for at most %d", most);
  c_require(e, arena_printf(p->arena, "own.threads <= %d", most), many, "own.threads", NULL, NULL);
}

static void check_arguments(CEntry *e) {
  const Program *const p = e->p;
  const int in = check_add(p, BURIN_E_ARGUMENT, NULL, "the array of inputs is NULL"),
            out = check_add(p, BURIN_E_ARGUMENT, NULL, "the array of outputs is NULL"),
            sizes = check_add(p, BURIN_E_ARGUMENT, NULL, "the array of sizes is NULL");
  if (p->m->inputs.n) c_require(e, "in", in, NULL, NULL, NULL);
  if (p->m->outputs.n) c_require(e, "out", out, NULL, NULL, NULL);
  if (p->n_symbols) c_require(e, "dims", sizes, NULL, NULL, NULL);
}

/* ---- defaults ---- */
/* Where another input is given, a default must have the sizes of this run. */
static void check_default_sizes(CEntry *e, int k) {
  CText *const c = e->c;
  const Graph *const g = e->p->m->model->main;
  const ConstData *const d = e->p->m->buffers.data[e->p->m->inputs.data[k]].data;
  for (int i = 0; g && i < d->rank; i++) {
    const Expr *const dim = g->inputs.data[k]->dims[i];
    if (expr_is_i64(dim, d->dims[i])) continue;
    const char *const size = c_wide(c, dim), *const own = c_i64(c, d->dims[i]);
    const int check = check_add(e->p, BURIN_E_DIMS, NULL,
                                "input %s is not given, and its default has size {1} where {0} is "
                                "needed",
                                program_input_name(e->p, k));
    c_require(e, TEXT("given_in[%d] || wrong == -1 || %s == %s", k, size, own), check, size, own,
              NULL);
  }
}

/* From here on `in` is a copy in which a NULL for an input with a default is the default's address,
 * and behind which stands the address of a bool: no such input is given. */
static void take_defaults(CEntry *e) {
  CText *const c = e->c;
  const Module *const m = e->p->m;
  if (!e->p->defaults) return;
  c_line(c, "const void *const *const given_in = in;");
  c_line(c, "const void *own_in[%d];", m->inputs.n + 1);
  c_line(c, "const int64_t wrong = burin_rt_inputs(in, %s_defaults, %d, own_in);", e->p->name,
         m->inputs.n);
  c_line(c, "const uint8_t unset = wrong == -1;");
  c_line(c, "own_in[%d] = &unset;", m->inputs.n);
  c_line(c, "(void)given_in;");
  for (int k = 0; k < m->inputs.n; k++) {
    const Buffer *const b = &m->buffers.data[m->inputs.data[k]];
    if (!b->data) continue;
    if (b->pinned)
      c_require(e, TEXT("wrong != %d", k + 1),
                check_add(e->p, BURIN_E_UNSUPPORTED, NULL,
                          "input %s: sizes were computed from its default when the model was "
                          "compiled, so that no other value can be given",
                          program_input_name(e->p, k)),
                NULL, NULL, NULL);
    check_default_sizes(e, k);
  }
  c_line(c, "in = own_in;");
}

/* ---- pointers ---- */
/* A tensor without elements may be NULL. */
static void check_pointers(CEntry *e) {
  CText *const c = e->c;
  const int n_in = e->p->m->inputs.n, n = n_in + e->p->m->outputs.n;
  for (int k = 0; k < n; k++) {
    const Expr *const bytes = program_io_bytes(e->p, k);
    int64_t lo, hi;
    const bool some = expr_range(c->pool, bytes, &lo, &hi) && lo > 0;
    const char *ok = k < n_in ? TEXT("in[%d]", k) : TEXT("out[%d]", k - n_in);
    if (!some) ok = TEXT("%s || %s <= 0", ok, c_wide(c, bytes));
    c_require(e, ok,
              check_add(e->p, BURIN_E_ARGUMENT, NULL, "%s is NULL", program_io_name(e->p, k)), NULL,
              NULL, NULL);
  }
}

/* ---- the arena ---- */
/* Behind it, own.threads is what the arena has room for: those asked for, one where nobody lends
 * any or where the arena's size is not told and each needs room in it. */
static void check_arena(CEntry *e) {
  CText *const c = e->c;
  const char *const bytes = c_wide(c, program_arena_bytes(e->p));
  c_line(c, "const uint64_t arena_bytes = (uint64_t)%s;", bytes);
  c_line(c, "const uint64_t stride = (uint64_t)%s;", c_wide(c, program_thread_bytes(e->p)));
  c_line(c,
         "if (own.threads < 1 || !(own.parallel_for || own.parallel_ranges) || (own.arena_bytes == "
         "0 && stride != 0))");
  c_line(c, "  own.threads = 1;");
  c_line(c, "const uint64_t needed = arena_bytes + stride * (uint64_t)own.threads;");
  const int null = check_add(e->p, BURIN_E_ARENA, NULL, "the arena is NULL, {0} bytes are needed"),
            odd = check_add(e->p, BURIN_E_ARENA, NULL, "the arena is not aligned to 64 bytes"),
            small = check_add(e->p, BURIN_E_ARENA, NULL,
                              "the arena has {0} bytes, {1} are needed for threads: {2}");
  c_require(e, "needed == 0 || arena", null, "(int64_t)needed", NULL, NULL);
  c_require(e, "needed == 0 || (uintptr_t)arena % 64 == 0", odd, NULL, NULL, NULL);
  c_require(e, "own.arena_bytes == 0 || own.arena_bytes >= needed", small,
            "(int64_t)own.arena_bytes", "(int64_t)needed", "own.threads");
}

void c_check_all(CEntry *e) {
  CText *const c = e->c;
  check_options(e);
  check_arguments(e);
  c_line(c, "%s_symbols(sym, dims);", e->p->name);
  check_dims(e);
  take_defaults(e);
  check_pointers(e);
  check_arena(e);
}
