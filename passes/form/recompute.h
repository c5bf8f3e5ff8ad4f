/* Values that are computed again where they are read late, instead of being kept from the first use to
 * the last (Griewank and Walther, Evaluating Derivatives, chapter 12; Chen et al., Training Deep Nets
 * with Sublinear Memory Cost, 2016). What checkpoint.c decides with. Internal to passes/form. */
#pragma once
#include "passes/build/kernel.h"

typedef Vec(int) Ints;

/* A value that lies in memory. */
typedef struct Stored {
  Value *v;
  int unit;     /* that computes it; -1: an input whose memory an output takes */
  double bytes; /* in the arena; 0: elsewhere, or in another one's */
  bool pinned;  /* regions and symbols read this very value */
  Ints uses;    /* units that read it, in order */
} Stored;

/* A node of the main graph whose results are stored, with what is computed inside of it. */
typedef struct Unit {
  Node *n;
  double cycles;
  Ints reads, outs; /* stored values */
  int kills;        /* the stored value over which it writes its result, or -1 */
  bool copies;      /* it can be computed again: a pure function with one stored result */
  bool product;     /* a contraction */
} Unit;

typedef struct Units {
  PassCtx *c;
  Arena *a;
  Graph *g;
  Unit *unit;
  Stored *stored;
  int n, n_stored;
  int *of;       /* by value id: its place in stored[] + 1, or 0 */
  int *unit_of;  /* by position of a node in the graph: unit + 1, or 0: its results are inlined */
  double cycles; /* of all */
} Units;

/* Of a graph that has gone through fuse, and of the program that was made of it. */
Units *units_new(PassCtx *c, const Module *m);

/* ---- what is computed when (recompute_plan.c) ---- */
typedef struct Execution {
  int unit;
  bool again;
} Execution;

typedef struct Schedule {
  Vec(Execution) order;
  double peak;  /* bytes */
  double again; /* cycles of what is computed again */
} Schedule;

/* Keeps what lives at one time within `bytes` where that can be: what has to give way is what costs
 * little for its size and the time until it is read. eager: what costs next to nothing gives way in any
 * case. False: it is not reached, or by no reasonable amount of work. */
bool schedule_make(Units *u, double bytes, bool eager, Schedule *s);

/* ---- the graph of a schedule (recompute_apply.c) ---- */
typedef struct Undo Undo;
Undo *schedule_apply(Units *u, const Schedule *s);
void schedule_undo(Units *u, const Undo *undo);
