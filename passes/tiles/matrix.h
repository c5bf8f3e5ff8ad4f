/* Register tiles made of matrix registers (ir/loop/matrix.h). Large ones: one or two of them high, one or two
 * wide; the last tile of a line, or of lines, is a whole one that overlaps the one before. Those of two rows
 * and two columns ("squares"): as many as there are vectors, in tiles like those of vectors. */
#pragma once
#include "passes/tiles/contract_loops.h"

/* Steps of the innermost loop of k that a register takes: the most of them that divide it. */
int contract_matrix_steps(const ContractShape *s);
/* Such a tile where it costs less than `cycles`; sets rows, vectors, matrix and, of large ones, high. These
 * need blocks. */
bool contract_choose_matrix(const PassCtx *c, const ContractShape *s, double cycles, bool blocks,
                            PlanLoops *l);
/* Whether a tile of l is of squares. */
bool contract_is_squares(const PassCtx *c, const ContractShape *s, const PlanLoops *l);
/* Why there is no such tile; NULL: there is. */
const char *contract_matrix_problem(const PassCtx *c, const ContractShape *s, const PlanLoops *l);
/* Cycles of the whole contraction (of one outer index), `live` of whose steps are not left out. */
double contract_matrix_cycles(const PassCtx *c, const ContractShape *s, const PlanLoops *l,
                              double live);

/* ---- squares (squares.c), of which sizes need not be known ---- */
/* Steps of the innermost loop of k that are loaded at once; 0: that has no whole eights. */
int contract_square_steps(const ContractShape *s);
bool contract_choose_squares(const PassCtx *c, const ContractShape *s, double cycles, PlanLoops *l);
const char *contract_squares_problem(const PassCtx *c, const ContractShape *s, const PlanLoops *l);
double contract_squares_cycles(const PassCtx *c, const ContractShape *s, const PlanLoops *l,
                               double live);
