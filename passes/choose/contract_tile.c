/* Register tiles of contractions: a small model of FMA throughput, loads, latency and remainders.
 */
#include "passes/choose/contract_tile.h"

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
  c += 0.1 * stream; /* what does not overlap */
  return c > m->latency / 1.0 && rows * vectors > 1 ? c : (c < m->latency ? m->latency : c);
}

/* Cycles of a tile. Rows stored in one piece follow each other in memory, and the processor fetches
 * ahead of them; for the lines of pieces it waits. */
static double one_tile(const Machine *m, int rows, int vectors, double k, bool pieces) {
  enum { LINE = 64 };
  const int lines = (vectors * m->lanes * 4 + LINE - 1) / LINE;
  const double store = pieces ? 6.0 * rows * lines : 1.5 * rows * vectors;
  return k * step_cycles(m, rows, vectors) + 12 + store;
}

/* Tiles of `rows` cover n rows: full ones and one remainder. */
static double cover(const Machine *m, double n, int rows, int vectors, double k, bool pieces) {
  const double full = (double)(int64_t)(n / rows), rem = n - full * rows;
  const double t = full * one_tile(m, rows, vectors, k, pieces);
  return rem > 0 ? t + one_tile(m, (int)rem, vectors, k, pieces) : t;
}

/* Cycles of the whole contraction (of one outer index) with a tile. */
static double tile_cycles(const Machine *m, Tile tile, double rows_h, double rows_w, bool flat,
                          double n, double k) {
  const double width = (double)tile.vectors * m->lanes, panels = (double)(int64_t)(n / width);
  const double rest = n - panels * width;
  const int rest_v = (int)((rest + m->lanes - 1) / m->lanes);
  const double lines = flat ? 1 : rows_h;
  const bool pieces = panels + (rest_v > 0) > 1;
  double time = panels * cover(m, rows_w, tile.rows, tile.vectors, k, pieces) * lines;
  if (rest_v) time += cover(m, rows_w, tile.rows, rest_v, k, pieces) * lines;
  return time;
}

int contract_tiles(const Target *t, const ContractTypes *types, double rows_h, double rows_w,
                   bool flat, double n, double k, TileCost *out) {
  const int per_lane = dtype_rows[types->acc].bits / 32; /* registers of a vector of sums */
  const Machine m = {.fma = (t->fma_per_cycle > 0 ? t->fma_per_cycle : 1) / per_lane,
                     .load = 2.0 / per_lane,
                     .latency = 5.5, /* of four cycles, and loads that come late */
                     .regs = t->vector_regs / per_lane,
                     .lanes = target_lanes(t, 32),
                     .broadcast_operand = t->broadcast_operand};
  int count = 0;
  for (int v = 1; v <= 8 && (v == 1 || (v - 1) * m.lanes < n); v++) { /* no wider than n */
    int max_rows = (m.regs - v - 1) / v;
    if (max_rows > MAX_TILE_ROWS) max_rows = MAX_TILE_ROWS;
    for (int r = 1; r <= max_rows; r++) {
      const Tile tile = {r, v};
      out[count++] = (TileCost){tile, tile_cycles(&m, tile, rows_h, rows_w, flat, n, k)};
    }
  }
  return count;
}

int contract_cheapest(const TileCost *tiles, int n) {
  int best = 0;
  for (int i = 1; i < n; i++)
    if (tiles[i].cycles < tiles[best].cycles) best = i;
  return best;
}

Tile contract_choose_tile(const Target *t, double rows_h, double rows_w, bool flat, double n,
                          double k) {
  TileCost tiles[MAX_TILES];
  const int count =
      contract_tiles(t, contract_types(DT_F32, DT_F32), rows_h, rows_w, flat, n, k, tiles);
  return tiles[contract_cheapest(tiles, count)].tile;
}
