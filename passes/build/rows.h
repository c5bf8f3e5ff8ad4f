/* Kernels for GPUs in which the threads of a block reduce together (rows.c). */
#pragma once
#include "passes/build/kernel.h"

/* target[store] = value for all values of the loops' variables, which are in memory order of the
 * target. */
typedef struct RowNest {
  int n;
  const Expr *const *var;
  const Expr *store, *value;
  int target; /* parameter */
} RowNest;

/* Whether this is faster than a thread for each element. */
bool rows_pay(const Target *t, ExprPool *p, const RowNest *s);
/* Many rows have the reduction r in common: it should be a kernel of its own. */
bool rows_repeat(ExprPool *p, const RowNest *s, const Expr *r);
Stmt *rows_body(KernelBuild *b, const RowNest *s);
