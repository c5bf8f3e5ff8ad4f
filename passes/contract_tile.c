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

Tile contract_choose_tile(const Target *t, double rows_h, double rows_w, bool flat, double n,
                          double k) {
  const Machine m = {.fma = t->fma_per_cycle > 0 ? t->fma_per_cycle : 1,
                     .load = 2,
                     .latency = 4,
                     .regs = t->vector_regs,
                     .lanes = target_lanes(t, 32),
                     .broadcast_operand = t->broadcast_operand};
  Tile best = {1, 1};
  double best_time = 0;
  for (int v = 1; v <= 8; v++) {
    int max_rows = (m.regs - v - 1) / v;
    if (max_rows > 14) max_rows = 14;
    for (int r = 1; r <= max_rows; r++) {
      const double panels = (double)(int64_t)(n / (v * m.lanes));
      const double rest = n - panels * v * m.lanes;
      const int rest_v = (int)((rest + m.lanes - 1) / m.lanes);
      const double lines = flat ? 1 : rows_h;
      double time = panels * cover(&m, rows_w, r, v, k) * lines;
      if (rest_v) time += cover(&m, rows_w, r, rest_v, k) * lines;
      if (!best_time || time < best_time) {
        best_time = time;
        best = (Tile){r, v};
      }
    }
  }
  return best;
}
