/* The proof that steps read only what was written before: what its files share. Internal to
 * passes/. */
#pragma once
#include "passes/memory/plan.h"

enum { MAX_BOX = 12 };
/* The elements base + Σ i*stride, i < extent: strides grow, extents are above 1. */
typedef struct Box {
  int64_t base;
  int n;
  int64_t stride[MAX_BOX], extent[MAX_BOX];
} Box;

/* One load or store of a kernel, with what stands around it. */
typedef struct Site {
  int param;
  bool store;
  bool on_data;  /* where or whether it happens hangs on data */
  bool in_place; /* a load of the element that its own statement stores */
  const Expr *index, *guard;
  const Expr **vars; /* those that are run through first, outermost first; then the dimensions */
  int n_vars, n_hard;
  const Expr **conds; /* must have the values wanted[] */
  bool *wanted;
  int n_conds;
} Site;
typedef Vec(Site) Sites;
void kernel_sites(Arena *a, ExprPool *p, const Kernel *k, Sites *out);

/* Calls f with the boxes of a site, for the symbols of env (env->vars has room for all variables);
 * false: f said so, or `budget`, of evaluations, is spent (then it is negative). */
typedef bool (*BoxFn)(void *user, const Box *b);
bool site_boxes(ExprPool *p, const Site *s, EvalEnv *env, int64_t *budget, BoxFn f, void *user);

/* Which elements of a buffer were written. */
typedef struct Cover {
  int64_t count, have;
  uint64_t *bits; /* NULL: all or nothing */
  bool shared;    /* bits belong to an older state, too */
} Cover;
static inline bool cover_full(const Cover *c) { return c->have >= c->count; }
/* Boxes lie inside of the buffer. `budget` counts runs. */
void cover_add(Arena *a, Cover *c, const Box *b, int64_t *budget);
int64_t cover_missing(const Cover *c, const Box *b, int64_t *budget); /* an element; -1: none */
Cover cover_both(Arena *a, const Cover *x, const Cover *y);           /* what both have */

/* Follows the program once for these values of the symbols, in one of two ways where loops may not
 * run and branches find sizes. false: reported. */
typedef struct WrittenProof {
  bool sure; /* sizes that are found at run time can be as given: a fault is an error, no warning */
  int64_t budget;    /* of work; what remains */
  int64_t reads;     /* accesses that were looked at … */
  int64_t undecided; /* … and not proved: data decides, or the budget was spent */
} WrittenProof;
bool plan_written(const Module *m, const int64_t *syms, bool first_way, WrittenProof *proof);
/* plan_check (plan.h), which also tells how much was proved. */
bool plan_prove(const Module *m, WrittenProof *proof);
