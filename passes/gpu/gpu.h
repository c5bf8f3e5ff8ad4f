/* Templates that write grids of blocks themselves. What they do not take goes
 * through element expressions and the pass make_grids. */
#pragma once
#include "passes/build/kernel.h"

/* Conv, ConvTranspose, MatMul, Gemm as block tiles in shared memory; NULL
 * without an error where it is not worth one. */
Step *lower_gpu_contraction(Lower *l, const Value *root, const Value *anchor, const Place *to);
/* Attention as one kernel, for a node that gpu_takes_attention took (or that stands in a text). NULL
 * without an error where there is no template for its types or sizes. */
Step *lower_gpu_attention(Lower *l, const Value *root, const Value *anchor, const Place *to,
                          const Attention *a);
/* Whether that pays, by the model or a tuning file. */
bool gpu_takes_attention(const PassCtx *c, const Attention *a);
