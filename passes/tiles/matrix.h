/* Register tiles made of matrix registers (ir/loop/matrix.h): one or two of them high, one or two wide.
 * The last tile of a line, or of lines, is a whole one that overlaps the one before. */
#pragma once
#include "passes/tiles/contract_loops.h"

/* Steps of the innermost loop of k that a register takes: the most of them that divide it. */
int contract_matrix_steps(const ContractShape *s);
/* Such a tile where it costs less than `cycles`; sets rows, vectors, matrix and high. */
bool contract_choose_matrix(const PassCtx *c, const ContractShape *s, double cycles, PlanLoops *l);
/* Why there is no such tile; NULL: there is. */
const char *contract_matrix_problem(const PassCtx *c, const ContractShape *s, const PlanLoops *l);
/* Cycles of the whole contraction (of one outer index), `live` of whose steps are not left out. */
double contract_matrix_cycles(const PassCtx *c, const ContractShape *s, const PlanLoops *l,
                              double live);
