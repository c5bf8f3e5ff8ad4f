/* Chooses tiles of matrix registers (matrix.h) by what they cost. */
#include "passes/tiles/matrix.h"

#include "ir/expr/expr_query.h"
#include "passes/cost/machine_model.h"

enum { MOST_STEPS = 16, MOST_ROWS = 16, FEW_STEPS = 4, MOST_ACROSS = 2, LINE = 64 };

typedef struct Sizes { /* of a contraction; all constant */
  int64_t lines;
  int64_t rows; /* of a line */
  int64_t cols;
  int64_t k; /* steps */
} Sizes;

static bool has_squares(const PassCtx *c, const ContractShape *s) {
  return contract_has_squares(s->types, c->target);
}

bool contract_is_squares(const PassCtx *c, const ContractShape *s, const PlanLoops *l) {
  return l->matrix && has_squares(c, s);
}

int contract_matrix_steps(const ContractShape *s) {
  int64_t n;
  if (!s->n_k || !expr_is_const(s->k[s->n_k - 1], &n)) return 0;
  for (int d = MOST_STEPS; d > 1; d--)
    if (n % d == 0) return d;
  return 1;
}

static bool sizes_of(const ContractShape *s, Sizes *z) {
  *z = (Sizes){.k = 1};
  for (int i = 0; i < s->n_k; i++) {
    int64_t n;
    if (!expr_is_const(s->k[i], &n)) return false;
    z->k *= n;
  }
  return expr_is_const(s->rows_h, &z->lines) && expr_is_const(s->rows_w, &z->rows) &&
         expr_is_const(s->n, &z->cols) && z->lines > 0 && z->rows > 0 && z->cols > 0 && z->k > 0;
}

static bool has_registers(const PassCtx *c, const ContractShape *s) {
  return !s->skips && contract_has_matrix(s->types, c->target);
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* A step of k for `high` × `wide` registers. Sums take a cycle a row, loads half of one; groups of
 * columns come from the second-level cache. */
static double step_cycles(const PlanLoops *l, int wide, int steps) {
  const int high = l->rows / l->matrix;
  const double sums = high * wide * (l->matrix < 8 ? 8.0 : l->matrix);
  const double loads = (high * l->matrix + wide * steps) / 2.0;
  const double stream = model_read_panel((double)wide * steps * LINE);
  double c = sums > loads ? sums : loads;
  if (stream > c) c = stream;
  return c + 0.1 * (loads + stream);
}

/* Sums pass through memory on their way to the epilogue. */
static double tile_cycles(const MachineModel *m, const PlanLoops *l, int wide, double k, int steps,
                          bool pieces) {
  return k / steps * step_cycles(l, wide, steps) + 2 * MODEL_TILE + 3.0 * l->rows * wide +
         model_store_tile(m, l->rows, wide, pieces);
}

double contract_matrix_cycles(const PassCtx *c, const ContractShape *s, const PlanLoops *l,
                              double live) {
  const MachineModel m = machine_model(c->target, DT_I32, 1);
  Sizes z;
  if (has_squares(c, s)) return contract_squares_cycles(c, s, l, live);
  if (!sizes_of(s, &z)) return 0;
  const int high = l->high > 1 ? l->high : 1, steps = contract_matrix_steps(s);
  const int64_t width = l->vectors * (int64_t)m.lanes, panels = z.cols / width;
  const int rest = (int)ceil_div(z.cols % width, (int64_t)m.lanes);
  const bool pieces = panels + (rest > 0) > 1;
  const double tiles = (double)ceil_div(z.lines, high) * (double)ceil_div(z.rows, l->rows / high);
  const double k = live * (double)z.k;
  double time = (double)panels * tiles * tile_cycles(&m, l, l->vectors, k, steps, pieces);
  if (rest) time += tiles * tile_cycles(&m, l, rest, k, steps, pieces);
  return time;
}

static const char *tile_problem(const Sizes *z, const PlanLoops *l) {
  const int high = l->high > 1 ? l->high : 1, across = l->rows / l->matrix;
  if (l->matrix > MOST_ROWS || across < 1 || across > MOST_ACROSS || l->vectors > MOST_ACROSS ||
      (high > 1 && high != across))
    return "the tile is not possible here";
  return l->rows / high > z->rows || high > z->lines ? "a tile is larger than the product" : NULL;
}

const char *contract_matrix_problem(const PassCtx *c, const ContractShape *s, const PlanLoops *l) {
  Sizes z;
  if (has_squares(c, s)) return contract_squares_problem(c, s, l);
  if (!has_registers(c, s)) return "there are no matrix registers for this product";
  if (!sizes_of(s, &z)) return "matrix registers need known sizes";
  return l->part ? tile_problem(&z, l) : "a plan of matrix registers names the rows of a block";
}

bool contract_choose_matrix(const PassCtx *c, const ContractShape *s, double cycles, bool blocks,
                            PlanLoops *l) {
  Sizes z;
  bool found = false;
  const int lanes = target_lanes(c->target, 32);
  if (has_squares(c, s)) return contract_choose_squares(c, s, cycles, l);
  if (!blocks || !has_registers(c, s) || !sizes_of(s, &z) || contract_matrix_steps(s) < FEW_STEPS)
    return false;
  for (int rows = 1; rows <= MOST_ROWS; rows++)
    for (int across = 1; across <= MOST_ACROSS; across++)
      for (int high = 1; high <= across; high++) {
        PlanLoops one = *l;
        one.rows = rows * across;
        one.matrix = rows;
        one.vectors = z.cols > lanes ? 2 : 1;
        one.high = high;
        if ((s->flat && high > 1) || tile_problem(&z, &one)) continue;
        const double cost = contract_matrix_cycles(c, s, &one, 1);
        if (cost >= cycles) continue;
        cycles = cost;
        *l = one;
        found = true;
      }
  return found;
}
