/* Questions about control flow that passes ask. */
#pragma once
#include "ir/op.h"

/* The condition of a Loop cannot end it before its trip count (a size known at compile time). */
bool loop_runs_out(Model *m, const Node *n);
