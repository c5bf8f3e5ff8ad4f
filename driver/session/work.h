/* What a node has to do (work.c). */
#pragma once
#include "ir/op/op.h"

/* Multiply-adds of n: the steps of its sums, over symbols. NULL: they depend on data. */
const Expr *node_work(Model *m, const Node *n);
/* For sizes of a run; 0 where they depend on data. */
double node_work_at(Model *m, const Node *n, EvalEnv *sizes);
