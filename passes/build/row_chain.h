/* What a reduction of a row goes over (rows.c). */
#pragma once
#include "ir/expr/expr.h"

enum { ROW_MAX_CHAIN = 8 };

/* Reductions of one kind inside each other, with nothing between: one over all their variables. */
typedef struct RowChain {
  const Expr *var[ROW_MAX_CHAIN];
  int n;
  const Expr *body;
} RowChain;

RowChain row_chain_of(ExprPool *p, const Expr *r);
double row_chain_terms(ExprPool *p, const Expr *r);
