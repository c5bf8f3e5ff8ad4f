/* Which algorithms can compute a convolution and pay, and its border; see conv_plan.h. */
#include "passes/choose/conv_plan.h"

#include "passes/choose/contract_tile.h"
#include "passes/choose/contraction.h"
#include "passes/cost/machine_model.h"

/* ---- few output channels ---- */

int thin_budget(const Target *t) { return t->vector_regs * 3 / 4; }

bool thin_fits(const PassCtx *c, const Node *n, const ConvInfo *conv, int lanes) {
  const int64_t width_of_lanes = target_lanes(c->target, 32);
  int64_t width;
  if (!conv_beyond_tiles(n) || conv->transposed || conv->group != 1 || conv->spatial > 3 ||
      conv->c_out > thin_budget(c->target))
    return false;
  if ((lanes & LANES_CHANNELS) && conv->c_in < width_of_lanes) return false;
  if (!(lanes & LANES_PIXELS)) return true;
  return conv->stride[conv->spatial - 1] == 1 &&
         (!expr_is_const(n->out[0]->dims[1 + conv->spatial], &width) || width >= width_of_lanes);
}

static int64_t taps_of(const ConvInfo *conv) {
  int64_t taps = 1;
  for (int s = 0; s < conv->spatial; s++) taps *= conv->kernel[s];
  return taps;
}

/* Lanes over pixels, of accumulators as many as there is room for. Most loads of pixels cross a
 * cache line. */
static double pixels_step(const Target *t, const ConvInfo *conv) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const int64_t lanes = target_lanes(t, 32), budget = thin_budget(t);
  const int64_t vectors = budget / conv->c_out < 4 ? budget / conv->c_out : 4;
  const double sums = model_fmas(&m, (double)(conv->c_out * vectors)),
               loads = model_loads(&m, 1.5 * (double)vectors + (double)conv->c_out);
  return (sums > loads ? sums : loads) / (double)(vectors * lanes);
}

/* Lanes over channels, whose sums are then added up across lanes. */
static double channels_pixel(const Target *t, const ConvInfo *conv) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const int64_t lanes = target_lanes(t, 32), rows = thin_budget(t) / conv->c_out;
  const double out = (double)conv->c_out;
  const double steps = (double)(taps_of(conv) * ((conv->c_in + lanes - 1) / lanes));
  const double across = 4 * out;
  const double sums = model_fmas(&m, out),
               loads = model_loads(&m, 1 + out / (double)(rows < 8 ? rows : 8));
  return steps * (sums > loads ? sums : loads) + across;
}

double thin_cycles(const Target *t, const ConvInfo *conv, int lanes) {
  return lanes & LANES_CHANNELS ? channels_pixel(t, conv)
                                : (double)(taps_of(conv) * conv->c_in) * pixels_step(t, conv);
}

/* Cycles of a pixel and a tap in a row of a register tile. */
static double tiled_step(const Target *t, const ConvInfo *conv) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const int64_t lanes = target_lanes(t, 32);
  return model_fmas(&m, (double)((conv->c_out + lanes - 1) / lanes));
}

static bool pixels_pay(const Target *t, const ConvInfo *conv) {
  return 1.5 * pixels_step(t, conv) <= tiled_step(t, conv);
}

static bool channels_pay(const Target *t, const ConvInfo *conv) {
  return 1.2 * channels_pixel(t, conv) <=
         (double)(taps_of(conv) * conv->c_in) * tiled_step(t, conv);
}

int thin_lanes(const PassCtx *c, const Node *n, const ConvInfo *conv) {
  int lanes = 0;
  if (thin_fits(c, n, conv, LANES_PIXELS) && pixels_pay(c->target, conv)) lanes |= LANES_PIXELS;
  if (thin_fits(c, n, conv, LANES_CHANNELS) && channels_pay(c->target, conv))
    lanes |= LANES_CHANNELS;
  return lanes;
}

/* ---- borders ---- */

/* Wide borders (dilations) are not stored: lines of taps that see nothing else are left out, tile
 * by tile, so that only as much is read of them as a tile is long. Taps stand outside the loop over
 * channels, which lie together and are worth the question. */
static bool axis_is_wide(const ConvInfo *conv, int s) {
  enum { WIDE = 6 };
  return conv->kernel[s] > 1 && (conv->pad_lo[s] >= WIDE || conv->pad_hi[s] >= WIDE);
}

bool conv_skips_taps(const ConvInfo *conv) {
  bool wide = false;
  for (int s = 0; s < conv->spatial; s++) wide = wide || axis_is_wide(conv, s);
  return wide && !conv->pad_value && conv->spatial > 1 && !conv->transposed &&
         conv->c_in / conv->group >= 16 && conv->c_out / conv->group >= 16;
}

/* Of it, a tile that sees the input sees no more cells than the tile is long. */
void conv_seen_border(const ConvInfo *conv, int s, int64_t *lo, int64_t *hi) {
  const int64_t most = s == conv->spatial - 1 ? (MAX_TILE_ROWS - 1) * conv->stride[s] : 0;
  if (!axis_is_wide(conv, s)) return;
  if (*lo > most) *lo = most;
  if (*hi > most) *hi = most;
}
