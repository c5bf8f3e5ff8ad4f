/* Conditions on sizes. They are decided at once where the sizes are known, refused at once where
 * they can never hold, and otherwise recorded for the compiled model to check. Rules of ops write
 * no condition in another way (tests/includes/check_conditions.sh). */
#include "ir/op/ops.h"

static bool refuse(Model *m, const Node *n, const DimAssume *a) {
  return op_error(m, n, ERR_SHAPE, "%s: %s %s %s", a->what, expr_text(m->pool, a->a),
                  assume_verb(a->kind), expr_text(m->pool, a->b));
}

/* A region may never run, so only sizes that are known refuse the model there. */
static bool never_holds(Model *m, const DimAssume *a) {
  int64_t k;
  if (!expr_is_const(assume_condition(m->pool, a), &k) || k) return false;
  return !a->graph || !a->graph->parent || (expr_is_const(a->a, &k) && expr_is_const(a->b, &k));
}

static bool require(Model *m, const Node *n, AssumeKind kind, const Expr *a, const Expr *b,
                    const char *what) {
  const DimAssume x = {
      .kind = kind, .a = a, .b = b, .what = what, .graph = n->graph, .loc = n->loc};
  if (a == b) return true;
  if (never_holds(m, &x)) return refuse(m, n, &x);
  model_assume(m, x);
  return true;
}

bool require_equal(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what) {
  return require(m, n, ASSUME_EQUAL, a, b, what);
}

bool require_at_most(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what) {
  return require(m, n, ASSUME_AT_MOST, a, b, what);
}

bool require_at_least(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what) {
  return require(m, n, ASSUME_AT_LEAST, a, b, what);
}

bool require_multiple(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what) {
  return require(m, n, ASSUME_MULTIPLE, a, b, what);
}

bool require_broadcast(Model *m, const Node *n, const Expr *a, const Expr *b, const char *what) {
  return require(m, n, ASSUME_BROADCAST, a, b, what);
}

bool require_size(Model *m, const Node *n, const Expr *a, int64_t k, const char *what) {
  return require(m, n, ASSUME_EQUAL, a, ex_i64(m->pool, k), what);
}

/* As a question whose answer is 1. */
bool require_nonzero(Model *m, const Node *n, const Expr *a, const char *what) {
  const Expr *zero = ex_i64(m->pool, 0), *one = ex_i64(m->pool, 1);
  const Expr *is = ex_select(m->pool, ex_eq(m->pool, a, zero), zero, one);
  return require(m, n, ASSUME_EQUAL, is, one, what);
}

void require_never(Model *m, const Node *n, const char *what) {
  model_assume(m, (DimAssume){.kind = ASSUME_EQUAL,
                              .a = ex_i64(m->pool, 0),
                              .b = ex_i64(m->pool, 1),
                              .what = what,
                              .graph = n->graph,
                              .loc = n->loc});
}

bool require_shape(Model *m, const Node *n, int k, int from, int rank, const Expr *const *dims,
                   const char *what) {
  const Value *v = node_in(n, k);
  for (int d = from; v && d < rank; d++)
    if (!require_equal(m, n, v->dims[d], dims[d], what)) return false;
  return true;
}
