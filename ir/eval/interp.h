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
  int64_t base, count;
} LocalSlot;

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
/* Value of an expression over symbols. */
int64_t interp_sym_expr(const ExprPool *p, const Expr *e, const int64_t *syms);
