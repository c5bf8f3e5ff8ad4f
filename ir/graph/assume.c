/* What inference takes for granted about sizes (DimAssume): its meaning, and the list of a model.
 * Who writes it: the helpers require_… of ir/ops. Who checks it: the entry of the compiled model,
 * check steps (lower/checks.c), the interpreter. */
#include "ir/graph/graph.h"

static const struct {
  const char *name, *verb;
} kinds[] = {
    [ASSUME_EQUAL] = {"equal", "must be equal to"},
    [ASSUME_AT_MOST] = {"at_most", "must be at most"},
    [ASSUME_AT_LEAST] = {"at_least", "must be at least"},
    [ASSUME_BROADCAST] = {"broadcast", "must be 1 or"},
    [ASSUME_MULTIPLE] = {"multiple", "must be a multiple of"},
};

const char *assume_name(AssumeKind kind) { return kinds[kind].name; }
const char *assume_verb(AssumeKind kind) { return kinds[kind].verb; }

const Expr *assume_condition(ExprPool *p, const DimAssume *a) {
  const Expr *zero = ex_i64(p, 0);
  switch (a->kind) {
    case ASSUME_AT_MOST: return ex_le(p, a->a, a->b);
    case ASSUME_AT_LEAST: return ex_le(p, a->b, a->a);
    case ASSUME_BROADCAST:
      return ex_op(p, EX_or, ex_eq(p, a->a, ex_i64(p, 1)), ex_eq(p, a->a, a->b), NULL);
    case ASSUME_MULTIPLE:
      return ex_select(p, ex_eq(p, a->b, zero), ex_eq(p, a->a, zero),
                       ex_eq(p, ex_floormod(p, a->a, a->b), zero));
    default: return ex_eq(p, a->a, a->b);
  }
}

static bool implies(const DimAssume *x, const DimAssume *y) {
  int64_t k, l;
  if (x->kind != y->kind) return false;
  if (x->kind == ASSUME_AT_LEAST && x->a == y->a && expr_is_const(x->b, &k) &&
      expr_is_const(y->b, &l))
    return k >= l;
  return (x->a == y->a && x->b == y->b) ||
         (x->kind == ASSUME_EQUAL && x->a == y->b && x->b == y->a);
}

/* A text says that a region assumes it; inference, which region. */
static bool placed(Model *m, const DimAssume *a) {
  for (int i = 0; i < m->assumes.n; i++) {
    DimAssume *const x = &m->assumes.data[i];
    if (!x->graph || x->graph != m->read_region || x->kind != a->kind || x->a != a->a ||
        x->b != a->b)
      continue;
    x->graph = a->graph;
    return true;
  }
  return false;
}

void model_assume(Model *m, DimAssume a) {
  if (a.graph && !a.graph->parent) a.graph = NULL;
  if (expr_is_i64(assume_condition(m->pool, &a), 1) || (a.graph && placed(m, &a))) return;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *x = &m->assumes.data[i];
    if (x->graph && x->graph != a.graph) continue; /* what holds in main holds in regions too */
    if (implies(x, &a)) return;
  }
  vec_push(m->arena, &m->assumes, a);
}
