/* Elementwise functions of one 8-bit value, whatever lies between its DequantizeLinear and the next
 * QuantizeLinear, as a table of their 256 results. Internal to passes/quant. */
#pragma once
#include "passes/graph/rewrite.h"

/* The one 8-bit value that v is an elementwise function of; v itself where it has 8 bits and none
 * is known; NULL: it is none. */
typedef struct ByteRoots {
  Value **of; /* by value id */
  int n;
} ByteRoots;
Value *byte_root(const ByteRoots *r, Value *v);
void byte_root_set(ByteRoots *r, Arena *scratch, const Value *v, Value *root);
/* The root that all inputs of n, an elementwise node of one output, have in common, or NULL. */
Value *byte_root_of_node(const ByteRoots *r, const Node *n);

/* v, of 8 bits, from its root: the root itself, a clamp of it, or a table (burin.ByteTable), where
 * that is faster than computing v; NULL where it is not. Exact: the 256 results are computed with
 * the expressions that the nodes stand for. */
Value *byte_from_root(Build *b, PassCtx *c, Value *root, Value *v);
/* The results for all bytes, by their unsigned value, as bytes of v. False: v is no function of
 * root alone. */
bool byte_results(PassCtx *c, Value *root, Value *v, uint8_t *results, double *cost);
