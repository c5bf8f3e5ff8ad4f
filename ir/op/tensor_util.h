/* Shape-like inputs whose elements may be constants, symbolic, or run-time data: all three become
 * expressions here, so that shape rules are written once. Run-time data becomes symbols with a
 * SymDef on the node; sizes computed from such symbols become one further symbol with a bound
 * (tu_dim). */
#pragma once
#include "ir/op/ops.h"

/* Number of elements of input k (rank 0 or 1): a constant, or what it must be, `expected` (-1: that
 * is not known), which is then required of it. */
bool tu_count(Model *m, Node *n, int k, const char *what, int expected, int *count);
/* The rank that the model declares for output 0; -1: none. */
int tu_declared_rank(const Node *n);
/* Element i of integer input k as an i64 expression; makes a runtime symbol when it is data. NULL
 * only when the input is neither an integer tensor nor known (float data): no error reported. */
const Expr *tu_elem(Model *m, Node *n, int k, int64_t i);
/* The same for elem functions, after inference: makes nothing. */
const Expr *tu_known(ExprPool *p, const Node *n, int k, int64_t i);
/* Dim d of output `out`: `value` itself, or a runtime symbol in [0, bound] when value depends on
 * data that is read for this node. A constant size that the model declares for the output is taken
 * and checked at run time. */
const Expr *tu_dim(Model *m, Node *n, int out, int d, const Expr *value, const Expr *bound);
/* A formula that has become too long is computed once, in front of the node: a runtime symbol, which
 * is at most `bound`, or what the formula is (NULL). */
const Expr *tu_short(Model *m, Node *n, int out, int d, const Expr *size, const Expr *bound);
/* The size that the model declares for dim d of an output, when constant; else NULL. */
const Expr *tu_declared(const Node *n, int out, int d);
/* Axes from input k (known) or else all axes [0, rank): marks and list. DYNAMIC when they are
 * data. */
bool tu_axes(Model *m, Node *n, int k, int rank, int *axes, int *count);

/* Axes from input k that are data: each lies in [-rank, rank), and no two are one. Makes its
 * symbols. */
bool tu_data_axes(Model *m, Node *n, int k, int count, int rank);

/* i64 helpers of index arithmetic. */
const Expr *tu_clamp(ExprPool *p, const Expr *e, const Expr *lo, const Expr *hi);
/* A data index into a dim: negative counts from the end, result is in [0, dim) for every value (dim
 * > 0). */
const Expr *tu_wrap_clamp(ExprPool *p, const Expr *e, const Expr *dim);
/* e + dim where e is negative, by what is known of e's sign. */
const Expr *tu_wrap(ExprPool *p, const Expr *e, const Expr *dim);
/* true when dim may be 0: reads at clamped indices then need the guard 0 < dim. */
bool tu_may_be_empty(ExprPool *p, const Expr *dim);

/* Of input k, if it is constant: elements first, first + step … lie in [-dim, dim). */
bool tu_indices_inside(Model *m, const Node *n, int k, const Expr *dim, int64_t first,
                       int64_t step);
/* Of input k, if it is constant: each element is a length of at most `most`. */
bool tu_lengths_inside(Model *m, const Node *n, int k, const Expr *most);
const Expr *tu_const_element(ExprPool *p, const ConstData *c, int64_t i);
const Expr *tu_i64(ExprPool *p, const Expr *e); /* cast unless it is i64 */
const Expr *tu_not(ExprPool *p, const Expr *e);
const Expr *tu_f32(ExprPool *p, double v);
