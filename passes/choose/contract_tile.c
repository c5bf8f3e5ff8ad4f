/* Register tiles of contractions: what their multiply-adds, loads and remainders cost. */
#include "passes/choose/contract_tile.h"

#include "passes/cost/machine_model.h"

MachineModel contract_machine(const Target *t, const ContractTypes *types) {
  MachineModel m = machine_model(t, types->acc, 1);
  const bool groups = types->acc == DT_I32 && types->k_step == 4 && target_has(t, FEATURE_DOTPROD);
  if (types->k_step > 1) m.a_steps = t->lane_operand && groups ? target_lanes(t, 32) : 1;
  if (t->lane_operand && types->panel == DT_I16) m.a_steps = target_lanes(t, 16);
  return m;
}

/* Cycles of one step of k for a tile. Where sums gather over rows of bytes, two long multiply-adds and
 * an addition of pairs, for which another unit is free, are a step of one of them. */
static double step_cycles(const MachineModel *m, const ContractTypes *types, int rows,
                          int vectors) {
  const double columns = types->across ? vectors * m->lanes : vectors;
  const double fmas = model_fmas(m, rows * columns * (types->across || types->split_a ? 2 : 1));
  const double loads = model_loads(m, (double)rows / m->a_steps + columns);
  const double wide = types->panel == DT_I16 ? 2 : 4; /* bytes of a column */
  const double stream =
      model_read_panel(columns * (types->across ? types->k_step : m->lanes * wide));
  const bool waits = m->in_order && types->k_step == 1; /* for B, loaded right before it is used */
  double c = waits ? fmas + loads : fmas > loads ? fmas : loads;
  if (stream > c) c = stream;
  c += 0.1 * stream; /* what does not overlap */
  return c < m->latency ? m->latency : c;
}

static double one_tile(const MachineModel *m, const ContractTypes *types, int rows, int vectors,
                       double k, bool pieces) {
  return k * step_cycles(m, types, rows, vectors) + MODEL_TILE +
         model_store_tile(m, rows, vectors, pieces);
}

/* Tiles of `rows` cover n rows: full ones and one remainder. */
static double cover(const MachineModel *m, const ContractTypes *types, double n, int rows,
                    int vectors, double k, bool pieces) {
  const double full = (double)(int64_t)(n / rows), rem = n - full * rows;
  const double t = full * one_tile(m, types, rows, vectors, k, pieces);
  return rem > 0 ? t + one_tile(m, types, (int)rem, vectors, k, pieces) : t;
}

/* Cycles of the whole contraction (of one outer index) with a tile. */
static double tile_cycles(const MachineModel *m, const ContractTypes *types, Tile tile,
                          double rows_h, double rows_w, bool flat, double n, double k) {
  const double width = (double)tile.vectors * m->lanes, panels = (double)(int64_t)(n / width);
  const double rest = n - panels * width;
  const int rest_v = (int)((rest + m->lanes - 1) / m->lanes);
  const double lines = flat ? 1 : rows_h;
  const bool pieces = panels + (rest_v > 0) > 1;
  double time = panels * cover(m, types, rows_w, tile.rows, tile.vectors, k, pieces) * lines;
  if (rest_v) time += cover(m, types, rows_w, tile.rows, rest_v, k, pieces) * lines;
  return time;
}

/* A register for each sum, for those of A or of B that stay, and some for products on their way. */
static int most_rows_across(const MachineModel *m, int columns) {
  const int free = m->registers * 3 / 4, rows = (free - columns) / columns;
  return rows < columns ? free / (columns + 1) : rows;
}

/* The most rows that leave registers for a step: the vectors of B and one broadcast; or the vectors of
 * A, which stay for some steps. Of both also those of the next steps, where these must be loaded ahead. */
static int most_rows(const MachineModel *m, const ContractTypes *types, int vectors) {
  enum { FOUR = 4, BESIDE = 8 }; /* weights, bytes of a row, masks */
  const int b = types->split_a ? types->k_step * vectors : vectors;
  if (types->scaled)
    return m->registers >= FOUR * vectors + BESIDE ? FOUR : (m->registers - BESIDE) / vectors;
  if (types->across) return most_rows_across(m, vectors * (int)m->lanes);
  if (m->a_steps == 1) return (m->registers - b - 1) / vectors;
  if (!m->in_order) return (m->registers - vectors - 1) / (vectors + 1);
  const int rows = (m->registers - 2 * vectors - 1) / (vectors + 1);
  const int ahead = (m->registers - vectors - 1) / (vectors + 2);
  return rows < ahead ? rows : ahead;
}

/* One row, as decoders have it, waits for weights from memory, which come faster in long lines. */
static int widest_scaled(const MachineModel *m, double n) {
  enum { WIDE = 4 };
  const int most = (int)((n + m->lanes - 1) / m->lanes);
  return most < 1 ? 1 : most < WIDE ? most : WIDE;
}

int contract_tiles(const Target *t, const ContractTypes *types, double rows_h, double rows_w,
                   bool flat, double n, double k, TileCost *out) {
  const MachineModel m = contract_machine(t, types);
  int count = 0;
  for (int v = 1; v <= 8 && (v == 1 || (v - 1) * m.lanes < n); v++) { /* no wider than n */
    if (types->scaled && v != widest_scaled(&m, n)) continue;
    int max_rows = most_rows(&m, types, v);
    if (max_rows > MAX_TILE_ROWS) max_rows = MAX_TILE_ROWS;
    for (int r = 1; r <= max_rows; r++) {
      const Tile tile = {r, v};
      out[count++] = (TileCost){tile, tile_cycles(&m, types, tile, rows_h, rows_w, flat, n, k)};
    }
  }
  return count;
}

double contract_tile_cycles(const Target *t, const ContractTypes *types, Tile tile, double rows_h,
                            double rows_w, bool flat, double n, double k) {
  const MachineModel m = contract_machine(t, types);
  return tile_cycles(&m, types, tile, rows_h, rows_w, flat, n, k);
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
