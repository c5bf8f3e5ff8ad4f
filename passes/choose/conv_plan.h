/* How a convolution is computed: Winograd, thin, tiled; the border that it reads. Internal to
 * passes/. */
#pragma once
#include "passes/choose/conv_axes.h"
#include "passes/pass.h"

/* Winograd (kernels/winograd.c): m of the cheapest form, or 0 where the direct convolution is about as
 * fast. */
int winograd_size(const PassCtx *c, const Node *n, const ConvInfo *ci);
bool conv_is_winograd(const PassCtx *c, const Node *n, const ConvInfo *ci);
/* Rows of tiles of a block, of an image of h × w; all of them: there is one block. */
int64_t winograd_lines(const PassCtx *c, const ConvInfo *ci, int64_t h, int64_t w, int out);
void winograd_reach(const PassCtx *c, const Node *n, const ConvInfo *ci, int s, int64_t *lo,
                    int64_t *hi);
/* The choice between algorithms for this convolution (choice.h); NULL: there is none. */
const char *winograd_key(const PassCtx *c, const Node *n, const ConvInfo *ci);

/* Few output channels (kernels/thin.c): vectors of accumulators; whether lanes over channels pay;
 * whether lanes over pixels do, by shapes alone: the pixels of input and output should then lie next
 * to each other. */
int thin_budget(const Target *t);
bool conv_thin_by_channel(const Target *t, const ConvInfo *ci);
bool conv_thin_by_pixel(const PassCtx *c, const Node *n, const ConvInfo *ci);

/* Its wide border is not in memory: tiles skip the taps that see nothing else. */
bool conv_skips_taps(const PassCtx *c, const Node *n, const ConvInfo *ci);
/* Cells around the input that its kernels will read. */
void conv_halo(const PassCtx *c, const Node *n, const ConvInfo *ci, int s, int64_t *lo,
               int64_t *hi);
