/* Register tiles of contractions: a small model of FMA throughput, loads, latency and remainders.
 */
#include "passes/contract.h"

typedef struct Machine {
  double fma, load, latency; /* per cycle, per cycle, cycles */
  int regs;
  int lanes;
  bool broadcast_operand;
} Machine;

/* Cycles of one step of k for a tile. */
static double step_cycles(const Machine *m, int rows, int vectors) {
  const double fmas = rows * vectors / m->fma;
  const double loads = (rows + vectors) / m->load;
  const double stream =
      vectors * m->lanes * 4.0 / 40.0; /* panels come from the second-level cache */
  double c = fmas > loads ? fmas : loads;
  if (stream > c) c = stream;
  return c > m->latency / 1.0 && rows * vectors > 1 ? c : (c < m->latency ? m->latency : c);
}

/* Tiles of `rows` cover n rows: full ones and one remainder. */
static double cover(const Machine *m, double n, int rows, int vectors, double k) {
  const double full = (double)(int64_t)(n / rows), rem = n - full * rows;
  double t = full * (k * step_cycles(m, rows, vectors) + 12 + 1.5 * rows * vectors);
  if (rem > 0) t += k * step_cycles(m, (int)rem, vectors) + 12 + 1.5 * rem * vectors;
  return t;
}

/* Cycles of the whole contraction (of one outer index) with a tile. */
static double tile_cycles(const Machine *m, Tile tile, double rows_h, double rows_w, bool flat,
                          double n, double k) {
  const double width = (double)tile.vectors * m->lanes, panels = (double)(int64_t)(n / width);
  const double rest = n - panels * width;
  const int rest_v = (int)((rest + m->lanes - 1) / m->lanes);
  const double lines = flat ? 1 : rows_h;
  double time = panels * cover(m, rows_w, tile.rows, tile.vectors, k) * lines;
  if (rest_v) time += cover(m, rows_w, tile.rows, rest_v, k) * lines;
  return time;
}

int contract_tiles(const Target *t, double rows_h, double rows_w, bool flat, double n, double k,
                   TileCost *out) {
  const Machine m = {.fma = t->fma_per_cycle > 0 ? t->fma_per_cycle : 1,
                     .load = 2,
                     .latency = 4,
                     .regs = t->vector_regs,
                     .lanes = target_lanes(t, 32),
                     .broadcast_operand = t->broadcast_operand};
  int count = 0;
  for (int v = 1; v <= 8 && (v == 1 || (v - 1) * m.lanes < n); v++) { /* no wider than n */
    int max_rows = (m.regs - v - 1) / v;
    if (max_rows > 14) max_rows = 14;
    for (int r = 1; r <= max_rows; r++) {
      const Tile tile = {r, v};
      out[count++] = (TileCost){tile, tile_cycles(&m, tile, rows_h, rows_w, flat, n, k)};
    }
  }
  return count;
}

Tile contract_choose_tile(const Target *t, double rows_h, double rows_w, bool flat, double n,
                          double k) {
  TileCost tiles[MAX_TILES];
  const int count = contract_tiles(t, rows_h, rows_w, flat, n, k, tiles);
  int best = 0;
  for (int i = 1; i < count; i++)
    if (tiles[i].cycles < tiles[best].cycles) best = i;
  return tiles[best].tile;
}
