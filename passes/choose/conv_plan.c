/* Which algorithms can compute a convolution and pay, and its border; see conv_plan.h. */
#include "passes/choose/conv_plan.h"

#include "passes/choose/contract_tile.h"
#include "passes/choose/contraction.h"
#include "passes/choose/machine_model.h"

/* ---- few output channels ---- */

int thin_budget(const Target *t) { return t->vector_regs * 3 / 4; }

bool thin_fits(const PassCtx *c, const Node *n, const ConvInfo *ci, int lanes) {
  const int64_t width_of_lanes = target_lanes(c->target, 32);
  int64_t width;
  if (!conv_beyond_tiles(n) || ci->transposed || ci->group != 1 || ci->spatial > 3 ||
      ci->c_out > thin_budget(c->target))
    return false;
  if ((lanes & LANES_CHANNELS) && ci->c_in < width_of_lanes) return false;
  if (!(lanes & LANES_PIXELS)) return true;
  return ci->stride[ci->spatial - 1] == 1 &&
         (!expr_is_const(n->out[0]->dims[1 + ci->spatial], &width) || width >= width_of_lanes);
}

static int64_t taps_of(const ConvInfo *ci) {
  int64_t taps = 1;
  for (int s = 0; s < ci->spatial; s++) taps *= ci->kernel[s];
  return taps;
}

/* Lanes over pixels, of accumulators as many as there is room for. Most loads of pixels cross a
 * cache line. */
static double pixels_step(const Target *t, const ConvInfo *ci) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const int64_t lanes = target_lanes(t, 32), budget = thin_budget(t);
  const int64_t vectors = budget / ci->c_out < 4 ? budget / ci->c_out : 4;
  const double sums = model_fmas(&m, (double)(ci->c_out * vectors)),
               loads = model_loads(&m, 1.5 * (double)vectors + (double)ci->c_out);
  return (sums > loads ? sums : loads) / (double)(vectors * lanes);
}

/* Lanes over channels, whose sums are then added up across lanes. */
static double channels_pixel(const Target *t, const ConvInfo *ci) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const int64_t lanes = target_lanes(t, 32), rows = thin_budget(t) / ci->c_out;
  const double out = (double)ci->c_out;
  const double steps = (double)(taps_of(ci) * ((ci->c_in + lanes - 1) / lanes));
  const double across = 4 * out;
  const double sums = model_fmas(&m, out),
               loads = model_loads(&m, 1 + out / (double)(rows < 8 ? rows : 8));
  return steps * (sums > loads ? sums : loads) + across;
}

double thin_cycles(const Target *t, const ConvInfo *ci, int lanes) {
  return lanes & LANES_CHANNELS ? channels_pixel(t, ci)
                                : (double)(taps_of(ci) * ci->c_in) * pixels_step(t, ci);
}

/* Cycles of a pixel and a tap in a row of a register tile. */
static double tiled_step(const Target *t, const ConvInfo *ci) {
  const MachineModel m = machine_model(t, DT_F32, 1);
  const int64_t lanes = target_lanes(t, 32);
  return model_fmas(&m, (double)((ci->c_out + lanes - 1) / lanes));
}

static bool pixels_pay(const Target *t, const ConvInfo *ci) {
  return 1.5 * pixels_step(t, ci) <= tiled_step(t, ci);
}

static bool channels_pay(const Target *t, const ConvInfo *ci) {
  return 1.2 * channels_pixel(t, ci) <= (double)(taps_of(ci) * ci->c_in) * tiled_step(t, ci);
}

int thin_lanes(const PassCtx *c, const Node *n, const ConvInfo *ci) {
  int lanes = 0;
  if (thin_fits(c, n, ci, LANES_PIXELS) && pixels_pay(c->target, ci)) lanes |= LANES_PIXELS;
  if (thin_fits(c, n, ci, LANES_CHANNELS) && channels_pay(c->target, ci)) lanes |= LANES_CHANNELS;
  return lanes;
}

/* ---- borders ---- */

/* Wide borders (dilations) are not stored: lines of taps that see nothing else are left out, tile
 * by tile, so that only as much is read of them as a tile is long. Taps stand outside the loop over
 * channels, which lie together and are worth the question. */
static bool axis_is_wide(const ConvInfo *ci, int s) {
  enum { WIDE = 6 };
  return ci->kernel[s] > 1 && (ci->pad_lo[s] >= WIDE || ci->pad_hi[s] >= WIDE);
}

bool conv_skips_taps(const ConvInfo *ci) {
  bool wide = false;
  for (int s = 0; s < ci->spatial; s++) wide = wide || axis_is_wide(ci, s);
  return wide && ci->spatial > 1 && !ci->transposed && ci->c_in / ci->group >= 16 &&
         ci->c_out / ci->group >= 16;
}

/* Of it, a tile that sees the input sees no more cells than the tile is long. */
void conv_seen_border(const ConvInfo *ci, int s, int64_t *lo, int64_t *hi) {
  const int64_t most = s == ci->spatial - 1 ? (MAX_TILE_ROWS - 1) * ci->stride[s] : 0;
  if (!axis_is_wide(ci, s)) return;
  if (*lo > most) *lo = most;
  if (*hi > most) *hi = most;
}
