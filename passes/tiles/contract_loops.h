/* The loops of a tiled contraction as its plan has them: register tile, blocks, whether threads share
 * them. Chosen for a description without places; kernels/contract_block.c makes loops of the answer. */
#pragma once
#include "passes/choose/contract_tile.h"
#include "passes/choose/conv_axes.h"
#include "passes/pass.h"

enum { MAX_K = 4 };

/* C[outer, row, n] = Σ_k A[outer, row, k] · B[k, n] */
typedef struct ContractShape {
  const ContractTypes *types;
  int n_outer; /* batch, group, depth: one tile never spans two of them */
  const Expr *outer[MAX_RANK];
  bool flat;                   /* rows are one dimension, in order of memory */
  const Expr *rows_h, *rows_w; /* flat: rows_h is 1 */
  const Expr *n;               /* columns */
  int n_k;                     /* contracted dimensions in steps, outermost first */
  const Expr *k[MAX_K];
  int64_t apart; /* elements of A from one step of k to the next, where rows adjoin; 0: otherwise */
  bool skips;    /* a tile is in one line of the output: taps are left out by line */
} ContractShape;

/* Fills in what `given` leaves open; `blocks`: that are needed. */
PlanLoops contract_choose_loops(const PassCtx *c, const ContractShape *s, PlanLoops given,
                                bool blocks);
/* Why such a contraction cannot have these loops; NULL: it can. */
const char *contract_loops_problem(const PassCtx *c, const ContractShape *s, const PlanLoops *l);
/* Cycles of its multiply-adds in full lanes: what threads can share. */
double contract_macs(const PassCtx *c, const ContractShape *s);
/* Cycles of all of it with l's tile, `live` of whose steps of k are not left out: the tiles, or reading
 * the weights; by the time a layer runs again, others have pushed them out. */
double contract_estimate(const PassCtx *c, const ContractShape *s, const PlanLoops *l, double live);
/* Lanes of a vector of sums, as code is generated: f64 in pairs of registers. */
int contract_lanes(const PassCtx *c);

/* ---- descriptions (contract_shape.c) ---- */
/* Groups of fewer channels than a vector has lanes: how many neighbours are computed as one group. */
int64_t conv_merged_groups(const Target *t, const ConvInfo *conv, const ConstData *weights);
/* Whether rows follow each other in memory: one spatial dimension, or one tap everywhere and no
 * stride, with strides `in` and `out` (NULL: it is read otherwise) that are those of one dimension. */
bool conv_is_flat(ExprPool *p, const ConvInfo *conv, const Axis *axes, const Expr *const *in,
                  const Expr *const *out);
/* One phase, by its axes; channels_last: those of the input lie together. conv with merged groups. */
void conv_shape(ExprPool *p, const Node *n, const ConvInfo *conv, const Axis *axes, bool flat,
                bool channels_last, ContractShape *s);
/* Batch dimensions are rows where all of them read the same B. */
bool matmul_merges_batch(const Node *n, const MatMulInfo *product);
void matmul_shape(ExprPool *p, const Node *n, const MatMulInfo *product, ContractShape *s);
/* The products of a Winograd form, by its plan. */
void winograd_shape(ExprPool *p, const Target *t, const Node *n, const ConvInfo *conv,
                    ContractShape *s);
