/* Elements of a row that threads keep from one reduction to the next (rows.c). */
#pragma once
#include "passes/build/kernel.h"

enum { ROW_PHASES = 17 };

/* What a thread computes of element number i of those that it takes, one phase after the other: a
 * term of each reduction, then the value. NULL: the reduction goes over something else. */
typedef struct RowKeep {
  ExprPool *p;
  /* a loop of a constant extent, which is copied out */
  const Expr *i;
  int64_t count;
  const Expr *expr[ROW_PHASES];
  int n;
  int64_t bytes; /* that a thread may still keep */
} RowKeep;

/* Some phase computes what a later one needs again. */
bool row_keep_worth(const RowKeep *k);
/* Computes the element's parts that later phases need, as far as there are registers, which these
 * read from now on, as does this phase. */
void row_keep_phase(RowKeep *k, KernelBuild *b, int phase, StmtList *block, StmtList *body);
