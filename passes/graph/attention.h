/* Attention: softmax of scores, which a matrix product makes, times values. What the pass, fusion
 * and the template share. Internal to passes/. */
#pragma once
#include "passes/kernels/contract.h"

typedef enum SoftmaxMode { SM_PLAIN, SM_SAFE, SM_NO_NAN } SoftmaxMode; /* burin.SoftmaxMatMul */

typedef struct Attention {
  const Value *x, *v;      /* what the softmax reads (masked scores) and the values */
  const Value *scores;     /* q · k, inlined into x */
  const Value *q, *k;
  MatMulInfo qk;
  SoftmaxMode mode;
  const int64_t *perm;     /* order of the output's dimensions, NULL: as in x */
  const Expr *rows, *keys; /* queries and keys of one head */
  int64_t dk, dv;          /* size of a query and of a value */
} Attention;

/* A SoftmaxMatMul that the template computes: its x is inlined and ends in a matrix product. */
bool attention_of(const Node *n, Attention *a);
/* Marks what is computed on the way from the scores to v as inlined. */
bool attention_mark(Value *v, const Value *scores);
/* The same for a node yet to be made of x and v; x need not be inlined. */
bool attention_make(const Value *x, const Value *v, const Value *scores, Attention *a);
/* Element idx[] of x with EX_HOLE 0 for the score; at[]: the index of that among all scores. x->bad
 * is set when scores are read at several places, or elsewhere than in their own row and column. */
const Expr *attention_score(KernelExpr *x, const Attention *a, const Expr *const *idx,
                            const Expr **at);
Step *lower_attention(Lower *l, const Value *root, const Value *anchor, const Place *to,
                      const Attention *a);
