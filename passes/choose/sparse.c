/* When weights with zeros are worth a kernel that leaves them out; see conv_plan.h. */
#include "passes/choose/conv_plan.h"

#include <math.h>
#include <string.h>

#include "ir/expr/expr_query.h"
#include "passes/choose/choice.h"
#include "passes/cost/machine_model.h"

enum { MOST_VECTORS = 8, MOST_COLUMNS = 4, FEW_COLUMNS = 4 };

/* Cycles of bringing an element of A to where the lanes of its rows lie together, and of storing one
 * where they do not. */
static const double turn_cycles = 1.5;
/* A far entry's rows are no stream: more than what reading them takes. */
static const double far_entry = 1.2;
/* The part of the weights that must be zero for anything to be asked. */
static const double least_zeros = 0.3;
/* The part of the first-level cache that a block of rows may take. */
static const double near_part = 0.75;
/* What the estimate must gain. */
static const double margin = 0.9;

/* ---- weights ---- */

static bool conv_weights(const Node *n, const ConvInfo *conv, SparseWeights *out) {
  int64_t taps = 1;
  if (conv->transposed || conv->group != 1 || conv->pad_value || conv->spatial > 3) return false;
  for (int s = 0; s < conv->spatial; s++) taps *= conv->kernel[s];
  *out = (SparseWeights){.w = n->in[1]->cdata,
                         .k = taps * conv->c_in,
                         .n = conv->c_out,
                         .inner = conv->c_in,
                         .inner_stride = taps,
                         .outer_stride = 1,
                         .col_stride = conv->c_in * taps};
  return true;
}

static bool matrix_weights(const Node *n, const MatMulInfo *product, SparseWeights *out) {
  const ConstData *w = n->in[1]->cdata;
  int64_t k, columns;
  if (product->a_vec || product->b_vec || !expr_is_const(product->k, &k) ||
      !expr_is_const(product->n, &columns) || w->count != k * columns)
    return false;
  *out = (SparseWeights){.w = w,
                         .k = k,
                         .n = columns,
                         .inner = k,
                         .inner_stride = product->trans_b ? 1 : columns,
                         .col_stride = product->trans_b ? k : 1};
  return true;
}

bool sparse_weights(const Node *n, SparseWeights *out) {
  ConvInfo conv;
  MatMulInfo product;
  const Value *w = node_in(n, 1);
  if (!w || !w->cdata || w->dtype != DT_F32 || n->in[0]->dtype != DT_F32) return false;
  const bool ok = conv_info(n, &conv)        ? conv_weights(n, &conv, out)
                  : matmul_info(n, &product) ? matrix_weights(n, &product, out)
                                             : false;
  return ok && out->k > 0 && out->n > 0 && out->w->count < INT32_MAX / (4 * MOST_VECTORS * 16);
}

/* It may be a slice of a file. */
static float element(const ConstData *w, int64_t i) {
  float v;
  memcpy(&v, (const char *)w->data + (size_t)i * sizeof v, sizeof v);
  return v;
}

float sparse_weight(const SparseWeights *s, int64_t k, int64_t column) {
  const int64_t at =
      column * s->col_stride + k / s->inner * s->outer_stride + k % s->inner * s->inner_stride;
  return element(s->w, at);
}

bool sparse_is_entry(const SparseWeights *s, int64_t k, int64_t first, int columns) {
  for (int i = 0; i < columns; i++)
    if (sparse_weight(s, k, first + i) != 0) return true;
  return false;
}

int64_t sparse_entries(const SparseWeights *s, int columns) {
  int64_t n = 0;
  for (int64_t c = 0; c < s->n; c += columns)
    for (int64_t k = 0; k < s->k; k++) n += sparse_is_entry(s, k, c, columns);
  return n;
}

static double zeros_of(const SparseWeights *s) {
  int64_t zeros = 0;
  for (int64_t i = 0; i < s->w->count; i++) zeros += element(s->w, i) == 0;
  return (double)zeros / (double)s->w->count;
}

/* ---- cycles ---- */

static double rows_of(const PassCtx *c, const Node *n) {
  ConvInfo conv;
  const Value *out = n->out[0];
  double rows = 1;
  const bool image = conv_info(n, &conv);
  for (int d = 0; d < out->rank; d++)
    if (d != (image ? 1 : out->rank - 1)) rows *= expr_extent_guess(c->model->pool, out->dims[d]);
  return rows;
}

static int64_t steps_of(const SparseWeights *s, const PlanLoops *l) {
  return l->steps && l->steps < s->k ? l->steps : s->k;
}

/* One entry: a vector of A for each vector of rows, a number for each column. */
static double entry_cycles(const MachineModel *m, const SparseWeights *s, const PlanLoops *l,
                           int vectors) {
  const double fmas = model_fmas(m, (double)vectors * l->width);
  const double loads = model_loads(m, vectors + l->width + 1);
  const double vector = m->lanes * 4, rows = (double)steps_of(s, l) * l->vectors * vector;
  double c = fmas > loads ? fmas : loads;
  if (rows > near_part * m->l1) c = fmax(c, far_entry * model_read_near(vectors * vector));
  return fmax(c, m->latency);
}

/* A block of vectors of rows: its entries, sums that go through scratch between blocks of k, A and the
 * result turned. */
static double block_cycles(const MachineModel *m, const SparseWeights *s, int64_t entries,
                           const PlanLoops *l, int vectors) {
  const double rows = vectors * m->lanes, groups = (double)s->n / l->width;
  const double blocks = (double)((s->k + steps_of(s, l) - 1) / steps_of(s, l));
  const double sums = (2 * blocks - 1) * model_read_near(4 * rows * (double)s->n);
  return (double)entries * entry_cycles(m, s, l, vectors) + blocks * groups * MODEL_TILE +
         (blocks > 1 ? sums : 0) + turn_cycles * rows * (double)(s->k + s->n);
}

static double all_cycles(const MachineModel *m, const SparseWeights *s, int64_t entries,
                         const PlanLoops *l, double rows) {
  const double block = l->vectors * m->lanes, full = (double)(int64_t)(rows / block);
  const double rest = rows - full * block;
  const double c = full * block_cycles(m, s, entries, l, l->vectors);
  const int vectors = (int)((rest + m->lanes - 1) / m->lanes);
  return rest > 0 ? c + block_cycles(m, s, entries, l, vectors) : c;
}

static bool loops_fit(const MachineModel *m, const SparseWeights *s, const PlanLoops *l) {
  const int sums = l->vectors * l->width, beside = l->width > 1 ? l->vectors + 1 : 2;
  return l->vectors >= 1 && l->vectors <= MOST_VECTORS && l->width >= 1 &&
         l->width <= MOST_COLUMNS && s->n % l->width == 0 && sums + beside <= m->registers;
}

/* So many steps of k that their rows stay in the first-level cache; 0: all of them, or sums would need
 * too much room. */
static int64_t near_steps(const MachineModel *m, const SparseWeights *s, int vectors) {
  const double row = vectors * m->lanes * 4;
  const int64_t steps = (int64_t)(near_part * m->l1 / row);
  return steps >= s->k || steps < 1 || (double)s->n * row > m->l2 / 2 ? 0 : steps;
}

/* The cheapest loops with these columns, which leave so many entries. */
static void best_with(const MachineModel *m, const SparseWeights *s, int columns, double rows,
                      PlanLoops *best, double *cycles) {
  const int64_t entries = sparse_entries(s, columns);
  for (int i = 0; i < 2 * MOST_VECTORS; i++) {
    const int vectors = 1 + i / 2;
    PlanLoops l = {.vectors = vectors, .width = columns, .high = 1, .panels = 1};
    if (i % 2 && !(l.steps = near_steps(m, s, vectors))) continue;
    if (!loops_fit(m, s, &l)) continue;
    const double c = all_cycles(m, s, entries, &l, rows);
    if (best->width && c >= *cycles) continue;
    *best = l;
    *cycles = c;
  }
}

static PlanLoops best_loops(const MachineModel *m, const SparseWeights *s, double rows,
                            double *cycles) {
  PlanLoops best = {0};
  for (int columns = 1; columns <= MOST_COLUMNS; columns *= 2)
    if (s->n % columns == 0) best_with(m, s, columns, rows, &best, cycles);
  return best;
}

PlanLoops sparse_choose_loops(const PassCtx *c, const Node *n) {
  const MachineModel m = machine_model(c->target, DT_F32, 1);
  SparseWeights s;
  double cycles;
  if (!sparse_weights(n, &s)) return (PlanLoops){.vectors = 1, .width = 1, .high = 1, .panels = 1};
  return best_loops(&m, &s, rows_of(c, n), &cycles);
}

const char *sparse_loops_problem(const PassCtx *c, const Node *n, const PlanLoops *l) {
  const MachineModel m = machine_model(c->target, DT_F32, 1);
  SparseWeights s;
  if (!sparse_weights(n, &s)) return "its weights are none that a sparse kernel takes";
  return loops_fit(&m, &s, l) ? NULL : "no such loops of a sparse kernel fit";
}

double sparse_cycles(const PassCtx *c, const Node *n, const PlanLoops *l) {
  const MachineModel m = machine_model(c->target, DT_F32, 1);
  SparseWeights s;
  if (!sparse_weights(n, &s)) return 0;
  return all_cycles(&m, &s, sparse_entries(&s, l->width), l, rows_of(c, n));
}

/* ---- the choice ---- */

bool sparse_asks(const PassCtx *c, const Node *n) {
  SparseWeights s;
  return c->sparse && !c->model->zeros && sparse_weights(n, &s) && s.n >= FEW_COLUMNS &&
         zeros_of(&s) >= least_zeros;
}

/* Threads share blocks of rows: as much slower as it is with some threads because there are too few. */
static double idle_threads(const PassCtx *c, const MachineModel *m, const PlanLoops *l,
                           double rows) {
  enum { SOME = 4 };
  const double threads = fmin(SOME, c->max_threads), blocks = ceil(rows / (l->vectors * m->lanes));
  return threads / fmax(1, fmin(threads, blocks));
}

bool sparse_pays(const PassCtx *c, const Node *n, double dense, Plan *p) {
  const MachineModel m = machine_model(c->target, DT_F32, 1);
  const double rows = rows_of(c, n);
  SparseWeights s;
  double cycles;
  if (!sparse_weights(n, &s)) return false;
  const PlanLoops l = best_loops(&m, &s, rows, &cycles);
  const Candidate of[] = {
      {.name = plan_name(p), .cost = dense},
      {.name = "sparse", .cost = cycles, .weight = idle_threads(c, &m, &l, rows)}};
  const bool pays = choice_weighted(&of[1], cycles) < margin * dense;
  if (!choice_matters(c)) return pays;
  p->sparse_key = choice_key(c, "zeros %s rows=%.0f cols=%lld k=%lld share=%.0f%%", n->op->name,
                             rows, (long long)s.n, (long long)s.k, 100 * zeros_of(&s));
  return choice_take(c, CHOICE_ALGORITHM, p->sparse_key, of, 2, pays) == 1;
}
