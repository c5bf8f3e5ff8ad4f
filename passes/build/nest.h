/* Loop nests of kernels: what their templates have in common. */
#pragma once
#include "passes/build/kernel.h"

/* The indices that the number `flat` stands for in n nested loops of these extents, the last one
 * fastest. The outermost one that counts needs no modulus: flat ends with it. */
void nest_indices(ExprPool *p, const Expr *flat, int n, const Expr *const *extent,
                  const Expr **index);

/* Code for `width` elements from `first` on. */
typedef Stmt *(*NestStrip)(void *user, const Expr *first, int width);
/* All of `count` elements: a loop over whole strips, then what is left as one narrower strip or,
 * where `count` is not known, one by one. */
Stmt *nest_strips(KernelBuild *b, const Expr *count, int width, NestStrip strip, void *user);

/* body in a loop over all of `var`, the outermost of a kernel, that takes `cycles` together: parallel,
 * with the grain by which threads share it, where that is worth a thread. */
Stmt *nest_parallel(KernelBuild *b, const Expr *var, Stmt *body, double cycles);
/* The same, where a plan says whether it is worth it. */
Stmt *nest_outer(KernelBuild *b, const Expr *var, Stmt *body, double cycles, bool parallel);
