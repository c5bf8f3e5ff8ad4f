/* Memory planning: what its files share. Internal to passes/. */
#pragma once
#include "passes/pass.h"

/* A block of memory that must keep its bytes during the steps [start, end] (both included). */
typedef struct PackItem {
  int64_t size; /* bytes or units; 0: takes no place */
  int start, end;
  int64_t offset; /* result */
} PackItem;

/* Sets the offsets so that blocks alive at the same time do not overlap; returns the total size.
 * Several greedy orders, then a bounded local search while the lower bound is not reached.
 * Deterministic. */
int64_t pack_items(Arena *scratch, PackItem *items, int n);
/* Largest sum of live sizes; -1: overflow */
int64_t pack_lower_bound(Arena *scratch, const PackItem *items, int n);

/* Blocks with sizes that are formulas of the symbols (plan_symbolic.c). */
typedef struct SymBlock {
  const Expr *bytes; /* multiple of 64, not negative */
  int start, end;
  const Expr *offset; /* result */
} SymBlock;
/* Sets the offsets, right for all values of the symbols; returns the total size. */
const Expr *pack_symbolic(ExprPool *p, Arena *scratch, SymBlock *blocks, int n);
/* A total size relative to the lower bound, averaged over typical values of the symbols. */
double plan_score(ExprPool *p, Arena *a, const Expr *bytes, const SymBlock *blocks, int n);

/* When each buffer is used (plan_live.c). Step numbers are the order in which steps stand in the
 * module; a loop has one number before and one behind its body. */
typedef struct Live {
  bool used;
  /* With loops taken into account: a buffer carried around a loop lives through all of it */
  int start, end;
  int first, last;                   /* as the steps stand */
  bool first_is_write, last_is_read; /* the first step only writes it; the last only reads it */
} Live;
typedef struct LiveTable {
  Live *of; /* by buffer id; views are counted for what they lie in */
  int n_times;
} LiveTable;
LiveTable plan_live(Arena *scratch, const Module *m);

/* Memory for buffers of the heap (plan_rooms.c). False: reported. */
bool plan_rooms(Module *m, Arena *a);

/* Checks a finished plan by another way than the planner made it: follows the run, bytes by
 * bytes. */
bool plan_check(const Module *m);
/* plan_in_place.c: no input is read behind a write over it. */
bool plan_in_place(const Module *m);
