/* Sizes that are only known when the model runs: bounds, broadcasting. */
#pragma once
#include "ir/expr/expr.h"

/* ---- bound.c ---- */
bool expr_uses_runtime(ExprPool *p, const Expr *e); /* holds a runtime symbol */
/* A size with runtime symbols replaced by their bounds (bound.c). NULL when one has no bound:
 * *missing is its id. */
const Expr *expr_upper(ExprPool *p, const Expr *e, int *missing);

/* ---- broadcasting over symbolic sizes (broadcast.c) ---- */
/* The common size of two different dims of which at least one is a size of the caller that may turn
 * out to be 1; NULL: they can only be equal. */
const Expr *dim_join(ExprPool *p, const Expr *a, const Expr *b);
/* May `dim` be 1 where `out`, the result's, is something else? */
bool dims_broadcast(ExprPool *p, const Expr *dim, const Expr *out);
/* Index into an operand's dim for the result's index: 0 where the dim is 1. out may be NULL. */
const Expr *bcast_index(ExprPool *p, const Expr *dim, const Expr *out, const Expr *index);
