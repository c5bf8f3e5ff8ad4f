/* Matrix loops of a grid: what one lane of a warp does in products of fragments, as mma.sync of a
 * GPU does them. In a nest of thread loops whose innermost one has 32 iterations, the lanes:
 *
 *   for m in 0..MI matrix { for n in 0..NJ matrix {
 *     for i in 0..2 matrix { for j in 0..2 matrix {
 *       for k in 0..K matrix {
 *         t2[((m*NJ + n)*2 + i)*2 + j] sum= A(16*m + 8*i + lane/4, k) * B(8*n + 2*(lane%4) + j, k)
 *   } } } } }
 *
 * t2 holds the lane's sums, f32 or i32, in registers that are kept over barriers. A(row, k) is
 * element base + row*pitch + k of a shared local, converted to the type of the sums; B(column, k)
 * likewise, so that k follows each other in both; or, of f16, bf16 and f32, element base + k*pitch +
 * column. base is the same for all lanes, begins at 16 bytes, as every row does; K elements are a
 * multiple of MMA_BYTES: m16n8k16 with f16 and bf16, m16n8k32 with bytes, m16n8k8 with f32 (tf32:
 * they are rounded when they are written into shared memory, or here: mma_tf32).
 *
 * Each lane adds up what it has, so that the interpreter, and CPUs, take the loops as they stand.
 * A GPU adds in another order: floats differ in rounding, integers do not. */
#pragma once
#include "ir/loop/loop.h"

enum { MMA_LANES = 32, MMA_ROWS = 16, MMA_COLS = 8, MMA_BYTES = 32 };

typedef struct MmaOperand {
  int local; /* shared */
  DType type;
  const Expr *base; /* element (0, 0) */
  int64_t pitch;    /* elements from row to row; of B from column to column */
  bool by_k;        /* of B: from k to k, and columns follow each other */
  bool rounds;      /* each element by mma_tf32 */
} MmaOperand;

typedef struct MatrixMma {
  int sum;    /* registers */
  DType type; /* of the sums */
  int mi;     /* fragments of MMA_ROWS rows */
  int nj;     /* of MMA_COLS columns */
  int k;      /* elements */
  MmaOperand a;
  MmaOperand b;
} MatrixMma;

/* x, an f32, as tensor cores take it: to 10 bits behind the point, halves away from zero
 * (cvt.rna.tf32). */
const Expr *mma_tf32(ExprPool *p, const Expr *x);
/* Reads the outermost loop s of such a nest; lane: the variable of the innermost thread loop. NULL, or
 * why it is none. */
const char *matrix_mma(ExprPool *p, const Kernel *k, const Stmt *s, const Expr *lane,
                       MatrixMma *out);
