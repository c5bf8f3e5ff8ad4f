/* The algorithm of a convolution, and the cells that it reads around its input. */
#include "passes/choose/conv_plan.h"

#include "passes/choose/contract_tile.h"
#include "passes/choose/contraction.h"

bool conv_is_winograd(const PassCtx *c, const Node *n, const ConvInfo *ci) {
  return winograd_size(c, n, ci) > 0;
}

/* ---- few output channels ---- */

int thin_budget(const Target *t) { return t->vector_regs * 3 / 4; }

/* Cycles for a pixel and a tap: with lanes over pixels, of accumulators as many as there is room
 * for, against a row of a tile. Most loads of pixels cross a cache line. */
bool conv_thin_by_pixel(const PassCtx *c, const Node *n, const ConvInfo *ci) {
  const int64_t lanes = target_lanes(c->target, 32), budget = thin_budget(c->target);
  int64_t width;
  if (!n->in[1]->cdata || ci->transposed || ci->group != 1 || ci->spatial > 3 ||
      ci->stride[ci->spatial - 1] != 1 || ci->c_out > budget || conv_is_winograd(c, n, ci))
    return false;
  if (expr_is_const(n->out[0]->dims[1 + ci->spatial], &width) && width < lanes) return false;
  const int64_t vectors = budget / ci->c_out < 4 ? budget / ci->c_out : 4;
  const double rate = c->target->fma_per_cycle > 0 ? c->target->fma_per_cycle : 1;
  const double sums = (double)(ci->c_out * vectors) / rate,
               loads = (1.5 * (double)vectors + (double)ci->c_out) / 2;
  const double thin = (sums > loads ? sums : loads) / (double)(vectors * lanes),
               tiled = (double)((ci->c_out + lanes - 1) / lanes) / rate;
  return 1.5 * thin <= tiled;
}

/* Cycles for a pixel with lanes over channels, whose sums are then added up across lanes, against a
 * row of a tile. */
bool conv_thin_by_channel(const Target *t, const ConvInfo *ci) {
  const int64_t lanes = target_lanes(t, 32), rows = thin_budget(t) / ci->c_out;
  if (ci->c_in < lanes || rows < 1) return false;
  int64_t taps = 1;
  for (int s = 0; s < ci->spatial; s++) taps *= ci->kernel[s];
  const double rate = t->fma_per_cycle > 0 ? t->fma_per_cycle : 1, out = (double)ci->c_out;
  const double steps = (double)(taps * ((ci->c_in + lanes - 1) / lanes)), across = 4 * out;
  const double sums = out / rate, loads = (1 + out / (double)(rows < 8 ? rows : 8)) / 2;
  const double thin = steps * (sums > loads ? sums : loads) + across;
  const double tiled = (double)(taps * ci->c_in * ((ci->c_out + lanes - 1) / lanes)) / rate;
  return 1.2 * thin <= tiled;
}

/* ---- borders ---- */

/* Wide borders (dilations) are not stored: lines of taps that see nothing else are left out, tile
 * by tile, so that only as much is read of them as a tile is long. Taps stand outside the loop over
 * channels, which lie together and are worth the question. */
static bool axis_is_wide(const ConvInfo *ci, int s) {
  enum { WIDE = 6 };
  return ci->kernel[s] > 1 && (ci->pad_lo[s] >= WIDE || ci->pad_hi[s] >= WIDE);
}

bool conv_skips_taps(const PassCtx *c, const Node *n, const ConvInfo *ci) {
  bool wide = false;
  for (int s = 0; s < ci->spatial; s++) wide = wide || axis_is_wide(ci, s);
  return wide && ci->spatial > 1 && !ci->transposed && ci->c_in / ci->group >= 16 &&
         ci->c_out / ci->group >= 16 && !conv_is_winograd(c, n, ci) &&
         !conv_thin_by_pixel(c, n, ci);
}

/* Cells of the border that a tile sees which sees the input, too. */
static int64_t seen_border(const ConvInfo *ci, int s) {
  return s == ci->spatial - 1 ? (MAX_TILE_ROWS - 1) * ci->stride[s] : 0;
}

void conv_halo(const PassCtx *c, const Node *n, const ConvInfo *ci, int s, int64_t *lo,
               int64_t *hi) {
  if (conv_is_winograd(c, n, ci))
    winograd_reach(c, n, ci, s, lo, hi);
  else
    conv_reach(c->model, n, ci, s, lo, hi);
  if (!axis_is_wide(ci, s) || !conv_skips_taps(c, n, ci)) return;
  const int64_t most = seen_border(ci, s);
  if (*lo > most) *lo = most;
  if (*hi > most) *hi = most;
}
