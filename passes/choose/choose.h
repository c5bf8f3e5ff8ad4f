/* The plan of each contraction (ir/graph/plan.h). */
#pragma once
#include "passes/pass.h"

/* Every contraction of the model has a plan afterwards: those without one are given the cheapest;
 * one that was read from a text is kept, and must be possible. false: it is not, reported. */
bool choose_plans(PassCtx *c);
/* Whether every contraction has a plan that it can be computed by. */
bool plans_fit(const PassCtx *c);
