/* What the manager asks of the passes that decide form and place. */
#pragma once
#include "passes/pass.h"

/* Whether every contraction that a kernel computes has the tiles and blocks that its plan needs. */
bool tiles_are_chosen(const Model *m);
