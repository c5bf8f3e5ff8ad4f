/* What a run checks, in words: the table BurinModel.checks. A condition on one size of the caller
 * is recognised by what it lets through ("a multiple of 32"), so that the message does not depend
 * on which of several nodes refuses first. */
#include "codegen/host/checks.h"

#include <stdarg.h>
#include <string.h>

enum { TRIED = 512, MAX_TEXT = 80 };

/* ---- the table ---- */
static const char *node_name(const Loc *loc) {
  return loc && loc->op && loc->node_name && *loc->node_name ? loc->node_name : NULL;
}

/* "node /conv (Conv)", "a node Conv": begins a message. */
const char *check_node_text(const Program *p, const Loc *loc) {
  const char *const name = node_name(loc);
  if (!loc || !loc->op) return "the model";
  return name ? arena_printf(p->arena, "node %s (%s)", name, loc->op)
              : arena_printf(p->arena, "node %d (%s)", loc->node, loc->op);
}

int check_add(const Program *p, int status, const Loc *loc, const char *format, ...) {
  va_list args;
  va_start(args, format);
  const char *const text = arena_vprintf(p->arena, format, args);
  va_end(args);
  vec_push(p->arena, p->checks, (Check){.text = text, .node = node_name(loc), .status = status});
  return p->checks->n - 1;
}

int check_call(const Program *p, const Step *s) {
  const char *const why = s->kind == STEP_EXTERN ? s->ext.row->fails : NULL;
  return check_add(p, BURIN_E_DATA, s->loc, "%s: %s", check_node_text(p, s->loc),
                   why ? why : "its inputs have an impossible index, size or value");
}

/* ---- symbols ---- */
/* "input x: height", or the symbol's name alone when no input has that size. */
const char *check_symbol_text(const Program *p, int id) {
  const Graph *const g = p->m->model->main;
  const char *const name = expr_symbol(p->m->model->pool, id)->name;
  for (int i = 0; g && i < g->inputs.n; i++)
    for (int d = 0; d < g->inputs.data[i]->rank; d++) {
      const Expr *const e = g->inputs.data[i]->dims[d];
      if (e->op == EX_SYM && e->id == id)
        return arena_printf(p->arena, "input %s: %s", program_input_name(p, i), name);
    }
  return name;
}

/* The one symbol of e; -1: none, -2: several. */
static int only_symbol(const Expr *e, int found) {
  if (!(e->flags & EXF_SYM) || found == -2) return found;
  if (e->op == EX_SYM) return found == -1 || found == e->id ? e->id : -2;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) found = only_symbol(e->a[i], found);
  return found;
}

/* ---- conditions on one size ---- */
/* Which sizes from 1 on it lets through: those of the form k*step, or a range. */
typedef struct Pattern {
  int64_t step;   /* > 1: multiples of it */
  int64_t lo, hi; /* else: from lo to hi; hi TRIED: no limit seen */
  bool known;
} Pattern;

static Scalar one_value(void *user, int id) {
  (void)id;
  return (Scalar){.i = *(const int64_t *)user};
}

static Pattern pattern_of(const Program *p, const DimAssume *a) {
  ExprPool *const pool = p->m->model->pool;
  int64_t n, good = 0, first = 0, last = 0;
  EvalEnv env = {.user = &n, .sym = one_value};
  const Expr *const holds = assume_condition(pool, a);
  bool even = true; /* evenly spaced multiples of the first */
  for (n = 1; n <= TRIED; n++) {
    if (!expr_eval(pool, holds, &env).i) continue;
    if (!first) first = n;
    even = even && n == first * (good + 1);
    last = n;
    good++;
  }
  if (good > 2 && first > 1 && even && TRIED - last < first) return (Pattern){first, 0, 0, true};
  if (good > 0 && last - first + 1 == good) return (Pattern){1, first, last, true};
  return (Pattern){0};
}

/* The step that all conditions on this size together ask for. */
static int64_t common_step(const Program *p, int sym) {
  const Model *const m = p->m->model;
  int64_t all = 1;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *const a = &m->assumes.data[i];
    if (!assume_at_entry(m, a) || only_symbol(a->b, only_symbol(a->a, -1)) != sym) continue;
    const Pattern t = pattern_of(p, a);
    int64_t x = all, y = t.step;
    if (!t.known || y <= 1) continue;
    while (y) {
      const int64_t r = x % y;
      x = y;
      y = r;
    }
    all = all / x * t.step < INT32_MAX ? all / x * t.step : all;
  }
  return all;
}

/* Row of a condition on one size of the caller, and the number it is held against; -1: it has no
 * simple form. */
static int simple_check(const Program *p, const DimAssume *a, int sym, int64_t *limit) {
  const Pattern t = pattern_of(p, a);
  const char *const size = check_symbol_text(p, sym);
  const char *form = NULL;
  if (!t.known) return -1;
  *limit = t.step > 1 ? common_step(p, sym) : t.hi < TRIED ? t.hi : t.lo;
  if (t.step > 1)
    form = "the model needs a multiple of";
  else if (t.lo == t.hi)
    form = "the model needs";
  else if (t.hi == TRIED && t.lo > 1)
    form = "the model needs at least";
  else if (t.lo == 1 && t.hi < TRIED)
    form = "the model takes at most";
  return form ? check_add(p, BURIN_E_DIMS, a->loc, "%s is {0}, %s {1}", size, form) : -1;
}

/* ---- other conditions ---- */
/* "4", "n of input x = {0}", "2*n + 1 = {0}", or only the value. */
static const char *side_text(const Program *p, const Expr *e, int k) {
  int64_t n;
  if (expr_is_const(e, &n)) return arena_printf(p->arena, "%lld", (long long)n);
  if (e->op == EX_SYM) return arena_printf(p->arena, "%s = {%d}", check_symbol_text(p, e->id), k);
  StrBuf b = {.arena = p->arena};
  expr_print(p->m->model->pool, e, &b);
  const char *const text = sb_str(&b);
  return e->op != EX_select && strlen(text) < MAX_TEXT
             ? arena_printf(p->arena, "%s = {%d}", text, k)
             : arena_printf(p->arena, "{%d}", k);
}

int check_assume(const Program *p, const DimAssume *a, const Expr *values[3]) {
  const int sym = only_symbol(a->b, only_symbol(a->a, -1));
  values[0] = a->a;
  values[1] = a->b;
  if (sym >= 0 && !expr_symbol(p->m->model->pool, sym)->runtime) {
    int64_t limit;
    const int k = simple_check(p, a, sym, &limit);
    if (k >= 0) {
      values[1] = ex_i64(p->m->model->pool, limit);
      values[0] = ex_sym(p->m->model->pool, expr_symbol(p->m->model->pool, sym)->name);
      return k;
    }
  }
  int64_t one, other;
  if (expr_is_const(a->a, &one) && expr_is_const(a->b, &other)) /* a branch that cannot run */
    return check_add(p, BURIN_E_DIMS, a->loc, "%s: %s", check_node_text(p, a->loc), a->what);
  return check_add(p, BURIN_E_DIMS, a->loc, "%s: %s%s%s %s %s", check_node_text(p, a->loc),
                   a->what ? a->what : "", a->what ? ": " : "", side_text(p, a->a, 0),
                   assume_verb(a->kind), side_text(p, a->b, 1));
}
