/* Kernels for GPUs in which each thread computes several elements: a patch (patch.c). */
#pragma once
#include "passes/build/kernel.h"
#include "passes/build/row_chain.h"
#include "passes/build/rows.h"

/* The elements of s by threads that compute some neighbours each, as a parallel loop over threads;
 * NULL: a thread for each element is as good. */
Stmt *patch_body(KernelBuild *b, const RowNest *s);

/* ---- patch_weights.c ---- */
/* value with constants that do not follow each other along the variable `along` read from copies in
 * which they do. */
const Expr *patch_weights(KernelBuild *b, const Expr *value, const Expr *along);

/* ---- what the files of patches share ---- */
enum { PATCH_TOPS = 8 };

/* A patch is `width` elements that follow each other in memory, at each of `high` indices of another
 * loop. */
typedef struct Patch {
  KernelBuild *b;
  ExprPool *p;
  Arena *a;
  const RowNest *s;
  const Expr *value, *store;
  const Expr *top[PATCH_TOPS]; /* reductions; none stands in another one */
  int n_tops;
  const Expr *loop[MAX_RANK + 2]; /* of patches, the innermost last */
  int64_t width, high;
  const Expr *v, *q;           /* number of an element in its patch; of one there is: 0 */
  const Expr *inside_v, *left; /* the last patch of a line: width exist; values of q there are.
                                  NULL: all */
} Patch;

/* Elements of t->v in one access of a load; 1: they are loaded one by one. */
int64_t patch_access(const Patch *t, const Expr *load);
/* What there is of t->top, in t->value; false: too much, or not for patches. */
bool patch_tops(Patch *t);

/* ---- patch_window.c ---- */
/* A load that goes over `span` places while q and the last variable of a reduction go through their
 * values: place q*step + var*reach. */
typedef struct PatchWindow {
  const Expr *place;         /* counts them */
  const Expr *at;            /* the load at a place */
  int64_t step, reach, taps; /* values of the variable */
  int64_t span;
} PatchWindow;
bool patch_window(const Patch *t, const Expr *load, const Expr *var, PatchWindow *out);
/* Chooses t->high: indices of which loop of t->s, whose number is returned; -1: one index. */
int patch_choose_high(Patch *t, double elements);
