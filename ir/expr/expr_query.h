/* Questions about whole expressions, for passes. */
#pragma once
#include "ir/expr/expr.h"

/* Estimated cycles of evaluating e: each distinct node runs once per combination of the variables
 * it depends on. */
double expr_total_cost(ExprPool *p, int n, const Expr *const *es);
/* The same, and how much code they are: the weights of their distinct nodes. */
double expr_cost_and_size(ExprPool *p, int n, const Expr *const *es, double *size);
double expr_extent_guess(ExprPool *p, const Expr *e); /* constant, or 64 per symbol */
/* Calls f for every distinct load in e, in creation order of first visit. */
void expr_each_load(ExprPool *p, const Expr *e, void (*f)(void *user, const Expr *load),
                    void *user);
/* e with whole subexpressions from[i] replaced by to[i]. */
const Expr *expr_replace(ExprPool *p, const Expr *e, int n, const Expr *const *from,
                         const Expr *const *to);
bool expr_contains(ExprPool *p, const Expr *e, const Expr *part);
bool expr_is_multiple(ExprPool *p, const Expr *e, int64_t of); /* term by term */
/* Distinct reductions of e, inner before outer. */
typedef Vec(const Expr *) ExprList;
void expr_reductions(ExprPool *p, const Expr *e, ExprList *out);
/* r is a reduction over all that comes before one of the variables its extent uses (a running sum):
 * extent = ±that + rest. NULL: it is not. */
const Expr *expr_scan_var(ExprPool *p, const Expr *r, int *sign, const Expr **rest);
bool expr_has_scan(ExprPool *p, const Expr *e);
bool expr_sums_sums(ExprPool *p, const Expr *e); /* a reduction goes over results of a long one */
bool expr_scan_reduces(ExprPool *p, const Expr *e); /* what a scan in e adds up holds a reduction */
