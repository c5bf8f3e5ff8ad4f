/* A kernel of elements under construction: what the files of this room share. Internal to
 * passes/elem. */
#pragma once
#include "passes/build/kernel.h"
#include "passes/build/rows.h"

enum { MAX_LOOPS = MAX_RANK + 2, MAX_REDS = 64 };

typedef struct ElemNest {
  KernelBuild b;
  Lower *l;
  ExprPool *p;
  int n; /* loops, outermost first */
  const Expr *var[MAX_LOOPS];
  const Place *to;
  const Expr *store; /* index in the target */
  const Expr *value;
  ExprList reds; /* not nested in the value of another loop level: inner before outer */
  int n_done;    /* reductions with a local */
  const Expr *red_from[MAX_REDS], *red_to[MAX_REDS];
  bool vector_root; /* the innermost loop runs in vectors */
  bool tiled; /* the two innermost loops go through tiles: inside[d] = at[d] + number in the tile */
  const Expr *tile_inside[2], *tile_at[2], *tile_extent[2];
  bool failed;
} ElemNest;

static inline const Expr *elem_extent(ElemNest *t, int k) {
  return expr_var_extent(t->p, t->var[k]->id);
}
static inline bool elem_on_gpu(const ElemNest *t) { return target_has_grids(t->l->c->target); }
static inline double elem_guess(ElemNest *t, const Expr *var) {
  return expr_extent_guess(t->p, expr_var_extent(t->p, var->id));
}

/* ---- elem.c ---- */
/* The reductions of t->value, anew. */
void elem_refresh(ElemNest *t);
/* How many of the loops, from the outermost on, there are around what e depends on. */
int elem_level_of(ElemNest *t, const Expr *e);
/* r stands inside the body of `around` and depends on its variable; or so of any of t->reds. */
bool elem_depends_on(ElemNest *t, const Expr *r, const Expr *around);
bool elem_is_nested(ElemNest *t, const Expr *r);
/* Of an evaluation of all elements that costs so much: arithmetic, or traffic. */
double elem_cycles(ElemNest *t, double cost);

/* ---- elem_emit.c ---- */
/* Loads that follow each other along a variable, and others that use it. */
typedef struct ElemStrides {
  ElemNest *t;
  const Expr *var;
  int good, bad;
} ElemStrides;

ElemStrides elem_strides(ElemNest *t, const Expr *e, const Expr *var);
/* Appends what stands inside of k loops, and those in it; first_loop: what depends on no loop around
 * stands there; -1: nowhere. */
void elem_emit(ElemNest *t, StmtList *out, int k, int first_loop);

/* ---- elem_loops.c: the order of loops; for CPUs vectors, threads and tiles ---- */
/* Replaces a loop's variable by an expression everywhere. */
void elem_rebind(ElemNest *t, const Expr *from, const Expr *to);
/* Makes one of the q outermost loops. */
void elem_flatten(ElemNest *t, int q);
/* Whether the innermost loop is to run in vectors. */
bool elem_vector_root(ElemNest *t);
/* Makes the outer loops parallel; whether there is a parallel loop. */
bool elem_parallelise(ElemNest *t);
/* Goes through tiles where the innermost loop jumps from line to line; the loops inside them come when
 * those around are final. */
void elem_tile_transposed(ElemNest *t);
void elem_finish_tiles(ElemNest *t);

/* ---- elem_grid.c: for GPUs ---- */
/* Whether r is to be a kernel of its own. */
bool elem_splits_on_gpu(ElemNest *t, const Expr *r);
/* The kernel's step; NULL: failed. */
Step *elem_finish_grid(ElemNest *t);
