/* How convolutions and products can be computed, and what that costs: Winograd, few output channels,
 * without weights that are zero. What
 * choose.c asks; and, for --print-plan, what every algorithm would take for a contraction, not only
 * what was compared when its plan was made. */
#pragma once
#include "passes/choose/conv_axes.h"
#include "passes/pass.h"

/* Whether a Winograd form can compute it, as far as its shape and types go; in form m. */
bool winograd_fits(const Node *n, const ConvInfo *conv);
bool winograd_computes(const Node *n, const ConvInfo *conv, int m);
/* Whether form m, 2 or 4, of 8-bit operands gives the same sums as the direct one (winograd_exact.c). */
bool winograd_exact(const Node *n, const ConvInfo *conv, int m);
/* m of the cheapest Winograd form, or 0 where the direct convolution is about as fast. */
int winograd_size(const PassCtx *c, const Node *n, const ConvInfo *conv);
/* Cycles of all images in form m. Of one transform of `tiles` tiles of all channels, where it is a
 * kernel of its own. */
double winograd_cycles(const PassCtx *c, const Node *n, const ConvInfo *conv, int m);
double winograd_input_cycles(const PassCtx *c, const ConvInfo *conv, int m, double tiles);
double winograd_output_cycles(const PassCtx *c, const ConvInfo *conv, int m, double tiles);
/* Whether blocks are so many tiles, not rows of them: only a run knows the size of the image. */
bool winograd_counts_tiles(const Node *n, const ConvInfo *conv);
/* A block: rows of tiles, or tiles (of two dimensions; 0: all are one), in how many planes (of three). */
typedef struct WinogradBlock {
  int64_t lines;
  int64_t planes;
} WinogradBlock;
WinogradBlock winograd_block(const PassCtx *c, const Node *n, const ConvInfo *conv, int m);
/* Cells that whole tiles read around the input. */
void winograd_reach(const Node *n, const ConvInfo *conv, int m, int s, int64_t *lo, int64_t *hi);
/* The choice between algorithms for this convolution (choice.h); NULL: there is none. */
const char *winograd_key(const PassCtx *c, const Node *n, const ConvInfo *conv);

/* Few output channels: vectors of accumulators; whether lanes LANES_* can compute it, and whether
 * they pay, by shapes alone. Where lanes run over pixels, those of input and output should lie
 * next to each other. */
int thin_budget(const Target *t);
bool thin_fits(const PassCtx *c, const Node *n, const ConvInfo *conv, int lanes);
int thin_lanes(const PassCtx *c, const Node *n, const ConvInfo *conv);
/* Cycles of one pixel, by LANES_PIXELS or LANES_CHANNELS. */
double thin_cycles(const Target *t, const ConvInfo *conv, int lanes);

/* ---- all algorithms side by side (algorithms.c) ---- */
/* Puts the candidates for a convolution, or for attention, into the log of decisions. */
void tell_conv(const PassCtx *c, const Node *n, const ConvInfo *conv, const Plan *p);
/* Cycles of a product by its plan, which has no loops yet. */
double plan_cycles(const PassCtx *c, const Node *n, const Plan *p);
void tell_attention(const PassCtx *c, const Node *n);
/* Cycles of a depthwise convolution in strips of `width` pixels, of one line and vector of channels. */
double depthwise_cycles(const Target *t, const ConvInfo *conv, double pixels, int width);
/* Cycles of attention as one kernel. */
double attention_cycles(const Target *t, double heads, double rows, double keys, double dk,
                        double dv);

/* Its border is so wide that tiles had better skip the taps that see nothing else; the part of it
 * that is in memory then. */
bool conv_skips_taps(const ConvInfo *conv);
void conv_seen_border(const ConvInfo *conv, int s, int64_t *lo, int64_t *hi);

/* ---- constant weights of which many are zero (sparse.c): a kernel that leaves these out ---- */
/* Weights of f32 as a matrix: element (k, column) is
 * data[column*col_stride + k/inner*outer_stride + k%inner*inner_stride]. Steps of k are in the order of
 * the kernel's loops: taps, then channels. */
typedef struct SparseWeights {
  const ConstData *w;
  int64_t k, n;
  int64_t inner, inner_stride, outer_stride, col_stride;
} SparseWeights;

/* Of a Conv without groups, a MatMul or a Gemm. False: there is no such kernel. */
bool sparse_weights(const Node *n, SparseWeights *out);
float sparse_weight(const SparseWeights *s, int64_t k, int64_t column);
/* Whether one of the `columns` weights of step k from column `first` on is not zero. */
bool sparse_is_entry(const SparseWeights *s, int64_t k, int64_t first, int columns);
/* How many entries there are. */
int64_t sparse_entries(const SparseWeights *s, int columns);
/* Vectors of rows, and columns that share entries: `vectors` and `width` of a plan. */
PlanLoops sparse_choose_loops(const PassCtx *c, const Node *n);
/* NULL: a kernel can have these loops. */
const char *sparse_loops_problem(const PassCtx *c, const Node *n, const PlanLoops *l);
/* Cycles of all of it with these loops. */
double sparse_cycles(const PassCtx *c, const Node *n, const PlanLoops *l);
/* Whether there are enough zeros to ask; the choice (choice.h) between the plan's algorithm, which takes
 * `dense` cycles, and this one: true where this one is taken. Sets p->sparse_key. */
bool sparse_asks(const PassCtx *c, const Node *n);
bool sparse_pays(const PassCtx *c, const Node *n, double dense, Plan *p);
