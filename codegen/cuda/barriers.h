/* What must stand between two phases of a grid, that is nests of thread loops: nothing, a barrier of
 * each warp, or one of the block (barriers.c). Internal to the CUDA backend. */
#pragma once
#include "ir/loop/loop.h"

/* In this order: the later ones do what the others do, too. */
typedef enum Barrier { BARRIER_NONE, BARRIER_WARP, BARRIER_BLOCK } Barrier;

/* What was touched since the last barrier: parameters, then locals. */
typedef struct Touched {
  bool *read;
  bool *written; /* of late locals `late` says it */
  uint32_t
      *late; /* bit n: was written n phases ago, and nobody has waited since it may be touched */
} Touched;

typedef struct Barriers {
  Arena *a;
  ExprPool *p;
  const Kernel *k;
  int n;    /* of what may be touched */
  int late; /* the least of late locals; 0: there is none */
  bool
      *of_warp; /* by what may be touched: a shared local of which each warp touches a part alone */
  Touched pending;
} Barriers;

Barriers barriers_new(Arena *a, ExprPool *p, const Kernel *k);
/* The nest comes next: what must stand in front of it. */
Barrier barriers_phase(Barriers *b, const Stmt *nest);
/* A barrier of the block behind all copies: nothing is pending. */
void barriers_clear(Barriers *b);
/* Where ways through the kernel meet: a copy of what is pending, whether it is so still, and adding
 * what was pending elsewhere. */
Touched barriers_pending(const Barriers *b);
bool barriers_is(const Barriers *b, const Touched *t);
void barriers_add(Barriers *b, const Touched *t);
void barriers_set(Barriers *b, const Touched *t);
