/* Loop nests of kernels: what their templates have in common. */
#pragma once
#include "passes/build/kernel.h"

/* body in a loop over all of `var`, the outermost of a kernel, that takes `cycles` together: parallel,
 * with the grain by which threads share it, where that is worth a thread. */
Stmt *nest_parallel(KernelBuild *b, const Expr *var, Stmt *body, double cycles);
/* The same, where a plan says whether it is worth it. */
Stmt *nest_outer(KernelBuild *b, const Expr *var, Stmt *body, double cycles, bool parallel);
