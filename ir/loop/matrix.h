/* Matrix loops: operations of matrix registers (AMX tiles), written as the loops that they stand for.
 *
 *   for r in 0..R matrix { for j in 0..C matrix { t0[r*C + j] = 0 } }                     fill
 *   for r in 0..R matrix { for j in 0..C matrix { for q in 0..K matrix {                  multiply
 *     t0[r*C + j] = dot4_u8i8(A, B, t0[r*C + j]) } } }
 *   for r in 0..R matrix { for j in 0..C matrix { t1[i + r*p + j] = t0[r*C + j] } }       copy
 *   for r in 0..R matrix { for j in 0..C matrix {                                         multiply bf16
 *     local t2; local t3; t2[0] = 0; t3[0] = 0
 *     for q in 0..K matrix { t2[0] = fma(A0, B0, t2[0]); t3[0] = fma(A1, B1, t3[0]) }
 *     t0[r*C + j] = t0[r*C + j] + (t2[0] + t3[0]) } }
 *
 * t0 is a local in a matrix register (MEM_MATRIX) of R*C elements, t1 one on the stack. In a product
 * A is four bytes of a buffer that follow each other, put together as an i32, byte number i + r*p +
 * 4*q being the first one; B is an i32 of a buffer, number i + q*p + j; operands may be exchanged.
 * i and p are any expressions without the loops' variables. Sums of integers: order does not matter.
 * Floats are added up as tdpbf16ps does: A0 and A1 are bf16 of a buffer in f32, numbers i + r*p + 2*q
 * and one more; B0 and B1 the lower and the upper bf16 of an i32, number i + q*p + j.
 * Registers of two rows and two columns (C = 2, R at most 2) are parts of one local, of four elements
 * each: t0[i + r*2 + j], i a multiple of four that is known when loops are unrolled, where one row fills
 * the first half; t1 may be one of registers. B lies in eights there: number i + floordiv(q, 2)*p + j*2 +
 * floormod(q, 2), K even (smmla).
 * Nothing else uses a matrix register. The interpreter, and targets without such registers, take the
 * loops as they stand. */
#pragma once
#include "ir/loop/loop.h"

typedef enum MatrixKind { MATRIX_FILL, MATRIX_MULTIPLY, MATRIX_COPY } MatrixKind;

/* Row x begins at element base + x*pitch. */
typedef struct MatrixPlace {
  int id; /* of a parameter; of a local for MATRIX_COPY */
  const Expr *base;
  const Expr *pitch;
} MatrixPlace;

/* Loops of so few iterations may count elements of registers: whoever makes code copies them out. */
enum { MATRIX_PAIR = 2 };

typedef struct MatrixOp {
  MatrixKind kind;
  int sum;          /* the matrix register */
  const Expr *part; /* its first element in the local; NULL: all of it */
  int rows;
  int cols;
  bool floats;   /* of a product: bf16 */
  bool eights;   /* of a product: B lies in eights */
  int k;         /* groups of four bytes, pairs of bf16 */
  MatrixPlace a; /* in elements; of a copy: where to */
  MatrixPlace b; /* in groups */
  bool a_signed;
  bool b_signed;
} MatrixOp;

/* Whether `value` is a group of bytes of A, or A0, for row `row` and step `step` of such loops. */
bool matrix_reads(ExprPool *p, const Expr *value, const Expr *row, const Expr *step);
/* Reads the outermost loop s of a nest. NULL, or why it is none. */
const char *matrix_op(ExprPool *p, const Kernel *k, const Stmt *s, MatrixOp *out);
