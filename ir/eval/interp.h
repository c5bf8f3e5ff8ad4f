/* Internal to the interpreter: a kernel compiled to register code, and running it. Every distinct
 * expression gets a register; what does not depend on a loop's variable is computed before the
 * loop. */
#pragma once
#include "ir/loop/loop.h"

typedef enum InsOp {
  IN_END,
  IN_OP,      /* d = sop(a, b, c), type dt: through scalar_op */
  IN_ORDERED, /* d = min or max (sop) of floats a, b with ordered zeros */
  IN_CAST,    /* d = cast<dt>(a of type dt2) */
  IN_SAT,
  IN_BITS,
  IN_LOAD,        /* d = buffer b [a]; guard c (register or -1) */
  IN_LOAD_F32,    /* the same without a guard, f32 */
  IN_LOCAL,       /* d = local b [a] */
  IN_STORE,       /* buffer d [a] = b */
  IN_SET,         /* local d [a] = b */
  IN_DECL,        /* local d becomes undefined: poison in register a */
  IN_MOVE,        /* d = a */
  IN_FOR,         /* d = a; end in register c = a + b; jumps to `to` when nothing is to be done */
  IN_NEXT,        /* d++; jumps to `to` while d < c */
  IN_FRESH,       /* a parallel iteration begins: nothing is known of scratch */
  IN_GRID,        /* a nest of block or thread loops begins: nests[a]; to `to` when it is empty */
  IN_GRID_NEXT,   /* its next iteration begins at `to` */
  IN_JUMP,        /* to `to` */
  IN_JUMP_IF_NOT, /* a */
  IN_ADD_I64,
  IN_MUL_I64,
  IN_LT_I64,
  IN_LE_I64,
  IN_ADD_F32,
  IN_SUB_F32,
  IN_MUL_F32,
  IN_FMA_F32, /* hot ones */
} InsOp;

typedef struct Ins {
  uint8_t op, dt, dt2, sop;
  int32_t d, a, b, c;
  int32_t to;
} Ins;

typedef struct RegInit {
  int reg;
  int sym; /* symbol id, or -1: value */
  Scalar value;
} RegInit;

typedef struct LocalSlot {
  int64_t base;
  int64_t count;  /* elements that can be addressed */
  int64_t stride; /* from one thread's to the next one's; 0: all threads have it in common */
  int64_t total;  /* elements of all threads */
  bool shared;
} LocalSlot;

/* Block or thread loops that are nested without anything between them: one loop, in any order. */
typedef struct NestLoop {
  const Expr *var[MAX_NEST];
  int reg[MAX_NEST];    /* of the variables, outermost first */
  int extent[MAX_NEST]; /* registers */
  int n;
  bool threads; /* else blocks */
  int64_t size; /* iterations of the current run, and how many of them have begun */
  int64_t begun;
  uint32_t seed; /* of their order */
} NestLoop;

typedef struct GridState GridState; /* interp_grid.c */

/* Who wrote each byte of a piece of memory: the buffer whose kernel, function or copy did it last.
 * What a buffer reads must have been written as that buffer. */
typedef struct Written {
  uint16_t *tags; /* one per byte; 0: nobody. NULL: not followed (inputs, weights) */
  uint16_t own;   /* of the buffer */
} Written;
bool written_all(const Written *w, int64_t at, int64_t bytes);
void written_set(const Written *w, int64_t at, int64_t bytes);

typedef struct KernelProgram {
  const Module *m;
  const Kernel *k;
  Vec(Ins) code;
  Vec(RegInit) inits;
  LocalSlot *locals;
  int64_t local_total;
  Scalar *local_data;
  Vec(NestLoop) nests; /* of a grid: its blocks, then nests of threads */
  int64_t threads;     /* of a block */
  GridState *grid;     /* while a grid runs; NULL: other kernels */
  Scalar *regs;
  int64_t *counts;        /* elements of each parameter in the current run */
  const Written *written; /* likewise, or NULL */
  int nregs;
} KernelProgram;

/* NULL: reported (an expression that cannot be evaluated). */
KernelProgram *interp_compile(const Module *m, const Kernel *k, Arena *a);
/* `bytes[i]`: what parameter i really has, for the check of its declared count; NULL: not known.
 * `written`: by parameter; NULL: not followed. */
bool interp_run(KernelProgram *p, const InterpEnv *env, const int64_t *bytes,
                const Written *written);
/* Internal to a run. Reports; false. */
bool interp_access_error(const KernelProgram *p, const char *what, const char *name, int id,
                         int64_t i, int64_t n);

/* ---- grids of blocks (interp_grid.c) ---- */
/* Nothing is known of what blocks and threads have touched. */
GridState *grid_begin(const KernelProgram *p, const InterpEnv *env);
void grid_end(GridState *g);
/* The next iteration of a nest, with its variables set; false: there is none. grid_first: also
 * counts the iterations; an error is left in `ok`. */
bool grid_first(const KernelProgram *p, NestLoop *nest, bool *ok);
bool grid_next(const KernelProgram *p, NestLoop *nest);
/* Notes an access to the element `at`, which exists. False: reported, a race or a read of what was
 * not set. */
bool grid_touch_param(const KernelProgram *p, int param, int64_t at, bool write);
bool grid_touch_local(const KernelProgram *p, int local, int64_t at, bool write);
void grid_declare(const KernelProgram *p, int local, Scalar poison);
/* Where the running thread has that element in p->local_data. */
int64_t grid_place(const KernelProgram *p, int local, int64_t at);

/* Value of an expression over symbols. */
int64_t interp_sym_expr(const ExprPool *p, const Expr *e, const int64_t *syms);
