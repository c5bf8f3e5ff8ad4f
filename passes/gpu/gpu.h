/* Templates that write grids of blocks themselves. What they do not take goes
 * through element expressions and the pass make_grids. */
#pragma once
#include "passes/build/kernel.h"

/* Conv, ConvTranspose, MatMul, Gemm as block tiles in shared memory; NULL
 * without an error where it is not worth one. */
Step *lower_gpu_contraction(Lower *l, const Value *root, const Value *anchor, const Place *to);
