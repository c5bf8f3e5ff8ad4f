/* Matrix products as grids: block tiles of both operands go through shared
 * memory, in stages of which one is read while others are filled.
 * Internal to passes/gpu. */
#pragma once
#include "passes/gpu/gpu.h"
#include "passes/gpu/tiles.h"
#include "passes/kernels/contract.h"

enum { WARP_LANES = 32 };

/* One of the two operands: how its tile is read from memory and lies in shared
 * memory. */
typedef struct Operand {
  bool is_b;
  DType type;           /* in shared memory */
  int extent;           /* rows of A, columns of B */
  int pitch;            /* elements from line to line in shared memory */
  bool lines_of_k;      /* a line holds one k: else one row, or column */
  bool along_k;         /* neighbours in memory are neighbours in k */
  int width;            /* of them, which a thread reads together */
  bool spread;          /* nothing follows in memory: threads side by side read lines side by side,
                           each one in every so many */
  int reads;            /* so many times */
  int shared;           /* locals */
  bool direct;          /* 16 bytes go from memory to shared memory as they are, late */
  int held;             /* else what a thread brought and has not yet stored */
  int packed;           /* buffer of constants in the order of tiles; -1: read where they
                 lie */
  const Expr *packed_k; /* extents of these, whole tiles */
  const Expr *packed_n;
  int64_t packed_outer; /* elements from one outer index to the next; 0: there
                           is one for all */
} Operand;

typedef struct Gemm {
  Contract *c;
  ExprPool *p;
  Arena *a;
  TileKind kind;
  GpuTile tile;
  int warps;
  int stages;         /* of both tiles in shared memory */
  const Expr *total;  /* elements of all k; of the packed operand in whole steps */
  int parts;          /* of k, each in blocks of its own */
  int part_sums;      /* buffer of their sums, or -1 */
  const Expr *sum_at; /* where the block's sums begin in it */
  const Expr *first;  /* step of the block, and how many it has */
  const Expr *own_steps;
  const Expr *steps; /* of k */
  bool nested;       /* steps end with each of the outer k: no step has parts of two */
  const Expr *row;   /* first row and column of the block */
  const Expr *column;
  const Expr *extent[MAX_K]; /* of k */
  int sums;                  /* local */
  Operand op[2];             /* A, B */
} Gemm;

/* A nest of thread loops: warps, and the lanes of each. */
typedef struct Threads {
  const Expr *warp;
  const Expr *lane;
} Threads;
Threads gemm_threads(const Gemm *g);
Stmt *gemm_nest(const Gemm *g, const Threads *t, Stmt *body);

static inline const Expr *gemm_num(const Gemm *g, int64_t n) { return ex_i64(g->p, n); }
static inline const Expr *gemm_scaled(const Gemm *g, const Expr *e, int64_t n) {
  return ex_mul(g->p, e, gemm_num(g, n));
}

/* ---- gemm_operand.c ---- */
/* How the operand is read; constants are packed. */
void gemm_operand(Gemm *g, Operand *o);
/* Its locals, when the number of stages is known. */
void gemm_operand_locals(Gemm *g, Operand *o);
/* Brings the part of step `step` that the thread reads, and puts it into a stage: what is direct
 * at once, other operands when it has been held. */
Stmt *gemm_bring(Gemm *g, const Operand *o, const Threads *t, const Expr *step, const Expr *stage);
Stmt *gemm_put(Gemm *g, const Operand *o, const Threads *t, const Expr *stage);
/* Element (line, k) of a tile in shared memory. */
const Expr *gemm_shared_index(const Gemm *g, const Operand *o, const Expr *stage, const Expr *line,
                              const Expr *k);

/* ---- gemm_multiply.c ---- */
/* Adds the products of a stage to the thread's sums. */
Stmt *gemm_multiply(Gemm *g, const Threads *t, const Expr *stage);
/* What is to be done with a sum, as one store. */
typedef Stmt *(*GemmStore)(Gemm *g, const Expr *row, const Expr *column, const Expr *sum);
/* store for all sums of a thread, as they lie: loops over them around what it makes of row, column
 * and the sum. */
Stmt *gemm_each_sum(Gemm *g, const Threads *t, GemmStore store);
/* A store of `width` columns from `first` on, which j counts: one vector loop where they lie in the
 * product all or not at all, since their number is a multiple of that. */
Stmt *gemm_store_columns(Gemm *g, const Expr *row, const Expr *first, const Expr *j, int width,
                         const Expr *sum, GemmStore store);
Stmt *gemm_where_row(Gemm *g, const Expr *row, Stmt *body);

/* The loops over a warp's fragments, and what they say of a sum: m and n count fragments, i halves of
 * eight rows, j the two columns that a lane has. */
typedef struct Fragments {
  const Expr *m, *n, *i, *j; /* loops */
  const Expr *row;           /* of the tile, for m and i */
  const Expr *first;         /* of the columns for n, j = 0 */
  const Expr *sum;           /* which of the lane's */
} Fragments;
Fragments gemm_fragments(const Gemm *g, const Threads *t);

/* ---- gemm_store.c ---- */
/* What a block does with its sums at the end, thread loops and all: fragments go through shared
 * memory, a line of them of each warp at a time, so that a thread stores up to 16 bytes of a row. */
Stmt *gemm_store_sums(Gemm *g, GemmStore store);
