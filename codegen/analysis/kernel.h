/* What holds of one kernel, on the loop IR alone: which locals can be registers, which symbols it
 * reads, what is the same in all lanes of a vector loop. For every backend. */
#pragma once
#include "ir/loop/loop.h"

/* ---- registers.c ---- */
typedef struct LocalUse {
  bool memory; /* some index is known only when the kernel runs, or it is long */
  bool sliced; /* in registers: a vector loop around no declaration of it takes slices */
  bool lanes;  /* it is declared in a vector loop: one per lane */
  bool across; /* in registers: only adds up products of bytes over the lanes of vector loops */
  bool *read;  /* sliced: [count] elements that some part of the kernel may read; else NULL */
} LocalUse;

/* By local. `copied`: code is made with unrolled loops and vector loops of constant extent copied
 * out, so that an index over their variables is known. */
LocalUse *kernel_locals(ExprPool *pool, const Kernel *k, bool copied, Arena *a);
/* By id of the symbol: does the kernel, or the size of its scratch, need it? */
bool *kernel_symbols(ExprPool *pool, const Kernel *k, Arena *a);

/* ---- uniform.c ---- */
/* The same in all lanes of the loop over `vector`. */
bool lanes_equal(const Expr *e, const Expr *vector, const LocalUse *locals);
/* Reads a local of which each lane has its own. */
bool reads_lane_local(const Expr *e, const LocalUse *locals);
