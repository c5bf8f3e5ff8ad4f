/* Kernels for GPUs that read along another dimension than they write (transpose.c). */
#pragma once
#include "passes/build/rows.h"

/* The elements of s by blocks of threads that read lines into shared memory and write columns of
 * it, as a grid; NULL: no load is worth it. */
Stmt *transpose_body(KernelBuild *b, const RowNest *s);
