/* Tiles of registers of two rows and two columns (matrix.h): what their products, loads and remainders cost.
 * XNNPACK's and MLAS's kernels for the instruction have such tiles of 4 × 16 and 8 × 8. */
#include "ir/expr/expr_query.h"
#include "passes/cost/machine_model.h"
#include "passes/tiles/matrix.h"

enum { SQUARE = 2, MOST_STEPS = 4 };

typedef struct Shape { /* of a contraction for one outer index */
  double lines, rows, cols;
  double k; /* steps */
  int steps;
} Shape;

int contract_square_steps(const ContractShape *s) {
  int64_t n;
  if (!s->n_k || !expr_is_const(s->k[s->n_k - 1], &n) || n % 2) return 0;
  return n % MOST_STEPS ? 2 : MOST_STEPS;
}

static Shape shape_of(const PassCtx *c, const ContractShape *s, double live) {
  ExprPool *const p = c->model->pool;
  Shape z = {expr_extent_guess(p, s->rows_h), expr_extent_guess(p, s->rows_w),
             expr_extent_guess(p, s->n), live, contract_square_steps(s)};
  for (int i = 0; i < s->n_k; i++) z.k *= expr_extent_guess(p, s->k[i]);
  return z;
}

static int pairs(int rows) { return (rows + 1) / SQUARE; }

/* The rows of A are put together, two by two, from loads of each. */
static double step_cycles(const MachineModel *m, int rows, int vectors, int steps) {
  const double products = pairs(rows) * steps * vectors, joins = pairs(rows) * steps / 2.0;
  const double sums = model_fmas(m, products + joins);
  const double loads = model_loads(m, rows + vectors * steps);
  const double stream = model_read_panel(vectors * m->lanes * 4 * steps);
  const double latency = m->latency * steps / 2;
  double c = sums > loads ? sums : loads;
  if (stream > c) c = stream;
  c += 0.1 * (loads + stream); /* what does not overlap */
  return c < latency ? latency : c;
}

/* Sums of squares are brought into rows. */
static double one_tile(const MachineModel *m, const Shape *z, int rows, int vectors, bool pieces) {
  return z->k / z->steps * step_cycles(m, rows, vectors, z->steps) + MODEL_TILE +
         model_fmas(m, rows * vectors) + model_store_tile(m, rows, vectors, pieces);
}

static double cover(const MachineModel *m, const Shape *z, int rows, int vectors, bool pieces) {
  const double full = (double)(int64_t)(z->rows / rows), rest = z->rows - full * rows;
  const double t = full * one_tile(m, z, rows, vectors, pieces);
  return rest > 0 ? t + one_tile(m, z, (int)rest, vectors, pieces) : t;
}

static double tile_cycles(const MachineModel *m, const Shape *z, int rows, int vectors) {
  const double width = vectors * m->lanes, panels = (double)(int64_t)(z->cols / width);
  const double rest = z->cols - panels * width;
  const int last = (int)((rest + m->lanes - 1) / m->lanes);
  const bool pieces = panels + (last > 0) > 1;
  double time = panels * cover(m, z, rows, vectors, pieces);
  if (last) time += cover(m, z, rows, last, pieces);
  return time * z->lines;
}

/* A register for each sum, for the eights of A, which stay, and for those of two columns. */
static bool fits_registers(const MachineModel *m, int rows, int vectors, int steps) {
  return rows * vectors + pairs(rows) * steps / 2 + steps / 2 <= m->registers;
}

double contract_squares_cycles(const PassCtx *c, const ContractShape *s, const PlanLoops *l,
                               double live) {
  const MachineModel m = contract_machine(c->target, s->types);
  const Shape z = shape_of(c, s, live);
  return z.steps ? tile_cycles(&m, &z, l->rows, l->vectors) : 0;
}

const char *contract_squares_problem(const PassCtx *c, const ContractShape *s, const PlanLoops *l) {
  const MachineModel m = contract_machine(c->target, s->types);
  const int steps = contract_square_steps(s);
  if (!steps) return "squares need whole eights of the last k";
  return l->matrix != SQUARE || l->rows % SQUARE || l->rows > MAX_TILE_ROWS ||
                 l->vectors > MAX_TILE_VECTORS || !fits_registers(&m, l->rows, l->vectors, steps)
             ? "the tile is not possible here"
             : NULL;
}

bool contract_choose_squares(const PassCtx *c, const ContractShape *s, double cycles,
                             PlanLoops *l) {
  const MachineModel m = contract_machine(c->target, s->types);
  const Shape z = shape_of(c, s, 1);
  bool found = false;
  if (z.rows < SQUARE) return false; /* half of each register would be idle */
  for (int v = 1; v <= MAX_TILE_VECTORS && (v == 1 || (v - 1) * m.lanes < z.cols); v++)
    for (int rows = SQUARE; rows <= MAX_TILE_ROWS; rows += SQUARE) {
      const PlanLoops one = {.rows = rows, .vectors = v, .matrix = SQUARE};
      if (contract_squares_problem(c, s, &one)) continue;
      const double cost = tile_cycles(&m, &z, rows, v);
      if (cost >= cycles) continue;
      cycles = cost;
      l->rows = rows;
      l->vectors = v;
      l->matrix = SQUARE;
      found = true;
    }
  return found;
}
