/* Part of the pass make_grids: kernels that gather long sums. */
#pragma once
#include "ir/loop/loop.h"
#include "targets/target.h"

/* Makes a grid of k in which lanes share the terms of each sum; false: it is no such kernel, or its
 * sums are better taken a thread each. */
bool reduce_grid(Module *m, Kernel *k, const Target *target);
