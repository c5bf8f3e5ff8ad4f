/* Lowering of whole graphs: what lower.c and lower/region.c share. Internal to passes/. */
#pragma once
#include "passes/build/kernel.h"

/* Steps that compute what is placed in g, in order (NULL: none). false: error reported. */
bool lower_graph(Lower *l, const Graph *g, Step **out);
Step *lower_region(Lower *l, const Node *n); /* If, Loop; NULL: error reported */
const Place *lower_dense(Lower *l, const Value *v, Step **extra);
Step *lower_copy(Lower *l, const Value *v, BufRef dst, const Loc *loc); /* v, dense, to dst */
/* Adds check steps to the whole program (lower/checks.c) */
void lower_checks(Lower *l, Step **steps);
Step *lower_sym(Lower *l, const Expr *sym, const Expr *value, const Loc *loc);
