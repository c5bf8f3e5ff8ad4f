/* Blocks of queries and keys of an attention, and the register tiles of both products
 * (own_loops.h): scores of a block stay in the second-level cache. */
#include "ir/expr/expr_query.h"
#include "passes/choose/contract_tile.h"
#include "passes/cost/machine_model.h"
#include "passes/tiles/own_loops.h"

const Expr *attention_heads(ExprPool *p, const Attention *a) {
  const Expr *n = ex_i64(p, 1);
  for (int d = 0; d < a->x->rank - 2; d++) n = ex_mul(p, n, a->x->dims[d]);
  return n;
}

double attention_work(ExprPool *p, const Attention *a) {
  return expr_extent_guess(p, attention_heads(p, a)) * expr_extent_guess(p, a->rows) *
         expr_extent_guess(p, a->keys) * (double)(a->dk + a->dv);
}

bool attention_is_online(const Attention *a, const PlanLoops *l) {
  int64_t keys;
  return !expr_is_const(a->keys, &keys) || l->keys < keys;
}

static int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Keys of a block whose scores take an eighth of the cache; fewer where masks hide whole blocks. */
static int64_t most_keys(const Target *t, bool hides) {
  enum { KEYS = 256, MOST = 512 };
  const int64_t most = t->l2_bytes / 8 / 4 / ATTENTION_ROWS;
  if (hides) return ATTENTION_SKIP;
  return most < KEYS ? KEYS : most > MOST ? MOST : most;
}

/* Blocks of queries of a head: more of them where heads are too few for the threads. */
static double query_blocks(const PassCtx *c, const Attention *a, double rows) {
  enum { THREADS = 8 };
  ExprPool *p = c->model->pool;
  const double heads = expr_extent_guess(p, attention_heads(p, a));
  const int all = c->max_threads > 0 ? c->max_threads : 1, threads = all < THREADS ? all : THREADS;
  const MachineModel m = machine_model(c->target, DT_F32, all);
  const double pieces = model_macs(&m, attention_work(p, a)) / (4.0 * THREAD_CYCLES);
  const double want = (2 * threads < pieces ? 2 * threads : pieces) / heads;
  double count = (double)(int64_t)(rows / ATTENTION_ROWS + 0.5);
  if (threads > 1 && count < want) count = want;
  if (count < 1) count = 1;
  return count > rows ? rows : count;
}

PlanLoops attention_choose_loops(const PassCtx *c, const Attention *a, bool hides) {
  const Target *t = c->target;
  ExprPool *p = c->model->pool;
  const int lanes = target_lanes(t, 32);
  const bool fixed_rows = a->rows->op == EX_CONST, fixed_keys = a->keys->op == EX_CONST;
  const double rows = expr_extent_guess(p, a->rows), keys = expr_extent_guess(p, a->keys);
  const int64_t most = most_keys(t, hides), dv = whole(a->dv, lanes);
  const bool online = !fixed_keys || keys > (double)most;
  const double blocks =
      fixed_keys ? (double)(int64_t)((keys + (double)most - 1) / (double)most) : 1;
  PlanLoops l = {.keys = online && !fixed_keys ? most : (int64_t)(keys / blocks + 0.999)};
  l.queries = fixed_rows ? (int64_t)(rows / query_blocks(c, a, rows) + 0.999) : ATTENTION_ROWS;
  const Tile scores =
      contract_choose_tile(t, 1, (double)l.queries, true, (double)l.keys, (double)a->dk);
  if (online) l.keys = whole(l.keys, (int64_t)scores.vectors * lanes);
  Tile values = contract_choose_tile(t, 1, (double)l.queries, true, (double)dv, (double)l.keys);
  if (!fixed_rows) { /* tiles of both products end at the same row */
    const int v = (int)(dv / lanes);
    values = (Tile){scores.rows, v < scores.vectors ? v : scores.vectors};
    l.queries = whole(l.queries, scores.rows);
  }
  l.rows = scores.rows;
  l.vectors = scores.vectors;
  l.values_rows = values.rows;
  l.values_vectors = values.vectors;
  return l;
}

static bool tile_fits(const MachineModel *m, int rows, int vectors) {
  return rows <= MAX_TILE_ROWS && vectors <= MAX_TILE_VECTORS &&
         (rows + 1) * vectors + 1 <= m->registers;
}

const char *attention_loops_problem(const PassCtx *c, const Attention *a, const PlanLoops *l) {
  enum { MOST = 4096 };
  const MachineModel m = machine_model(c->target, DT_F32, 1);
  int64_t rows, keys;
  if (!tile_fits(&m, l->rows, l->vectors) || !tile_fits(&m, l->values_rows, l->values_vectors))
    return "the tile is not possible here";
  const bool fixed = expr_is_const(a->rows, &rows);
  if (l->queries > MOST || (fixed && l->queries > rows)) return "there are not as many queries";
  if (!fixed && (l->queries % l->rows || l->rows != l->values_rows))
    return "blocks must be of whole tiles of both products";
  if (l->keys > MOST && attention_is_online(a, l)) return "there are not as many keys";
  if (expr_is_const(a->keys, &keys) && l->keys > keys) return "there are not as many keys";
  if (attention_is_online(a, l) && l->keys % (l->vectors * target_lanes(c->target, 32)))
    return "blocks must be of whole panels of keys";
  return NULL;
}
