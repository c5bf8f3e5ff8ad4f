/* Which nodes are contractions: Conv, ConvTranspose, MatMul, Gemm and attention where templates
 * lower them; all others are element expressions. Internal to passes/. */
#pragma once
#include "ir/op/op.h"
#include "ir/ops/nn/contraction.h"
#include "passes/choose/contract_types.h"

/* One input channel per group, as many outputs. */
bool conv_is_depthwise(const ConvInfo *conv);
/* Algorithms besides tiles (thin, Winograd, strips) take constant weights and f32 sums only. */
bool conv_beyond_tiles(const Node *n);
/* Whether the channels of a group are whole groups for a multiply-add. */
bool conv_reads_groups(const ConvInfo *conv, const ContractTypes *t);
/* As far as its form goes. */
bool conv_has_template(const ConvInfo *conv);
/* Will be lowered by a template, not by its element expression. */
bool node_is_contraction(const Node *n);

/* Values met on a walk: adds v, false when it was there. */
typedef struct ValueSet {
  Arena *a;
  const Value **slot;
  int n, cap;
} ValueSet;
bool value_set_add(ValueSet *s, const Value *v);
/* Finds the contraction that root's elem reaches without a load, or NULL. */
const Value *kernel_anchor(const Value *root);

/* ---- attention: softmax of scores, which a matrix product makes, times values ---- */
typedef enum SoftmaxMode { SM_PLAIN, SM_SAFE, SM_NO_NAN } SoftmaxMode; /* burin.SoftmaxMatMul */

typedef struct Attention {
  const Value *x, *v;  /* what the softmax reads (masked scores) and the values */
  const Value *scores; /* q · k, inlined into x */
  const Value *q, *k;
  MatMulInfo qk;
  SoftmaxMode mode;
  const int64_t *perm;     /* order of the output's dimensions, NULL: as in x */
  const Expr *rows, *keys; /* queries and keys of one head */
  int64_t dk, dv;          /* size of a query and of a value */
} Attention;

/* A SoftmaxMatMul that the template computes: its x is inlined and ends in a matrix product. */
bool attention_of(const Node *n, Attention *a);
/* The same for a node yet to be made of x and v; x need not be inlined. */
bool attention_make(const Value *x, const Value *v, const Value *scores, Attention *a);
