/* Chooses the loops of tiled contractions (contract_loops.h): the tile, which rows, steps of k and panels
 * go together, so that what is used again is still in the cache, and how threads divide them. */
#include "passes/tiles/contract_loops.h"

#include <math.h>

#include "ir/expr/expr_query.h"
#include "passes/choose/choice.h"
#include "passes/cost/machine_model.h"
#include "passes/tiles/matrix.h"

/* A shape with its machine, and numbers of it. */
typedef struct Space {
  const PassCtx *c;
  const ContractShape *s;
  ExprPool *p;
  const PlanLoops *l;
  int high, wide; /* of a tile: lines, rows of each */
} Space;

static double guess(const Space *x, const Expr *e) { return expr_extent_guess(x->p, e); }

int contract_lanes(const PassCtx *c) { return target_lanes(c->target, 32); }

static const Expr *k_total(const Space *x) {
  const Expr *t = ex_i64(x->p, 1);
  for (int i = 0; i < x->s->n_k; i++) t = ex_mul(x->p, t, x->s->k[i]);
  return t;
}

static double outer_count(const Space *x) {
  double n = 1;
  for (int i = 0; i < x->s->n_outer; i++) n *= guess(x, x->s->outer[i]);
  return n;
}

/* ---- the tile ---- */

static int tiles_of(const Space *x, TileCost *tiles) {
  double k = 1;
  for (int i = 0; i < x->s->n_k; i++) k *= guess(x, x->s->k[i]);
  return contract_tiles(x->c->target, x->s->types, guess(x, x->s->rows_h), guess(x, x->s->rows_w),
                        x->s->flat, guess(x, x->s->n), k, tiles);
}

/* Outer size, rows, columns, contracted dimensions. */
static const char *tile_key(const Space *x) {
  const ContractShape *s = x->s;
  StrBuf b = {.arena = x->c->scratch};
  const double outer = outer_count(x);
  sb_printf(&b, "tile ");
  const ContractTypes *const t = s->types;
  if (t->acc != DT_F32 || t->k_step > 1 || t->a != t->b) sb_printf(&b, "%s ", t->name);
  if (outer != 1) sb_printf(&b, "outer=%.0f ", outer);
  sb_printf(&b, "rows=");
  if (!s->flat) sb_printf(&b, "%.0fx", guess(x, s->rows_h));
  sb_printf(&b, "%.0f cols=%.0f k=", guess(x, s->rows_w), guess(x, s->n));
  for (int i = 0; i < s->n_k; i++) sb_printf(&b, "%s%.0f", i ? "x" : "", guess(x, s->k[i]));
  return choice_key(x->c, "%s", sb_str(&b));
}

/* The tile that tuning wants, or the model's. */
static int take_tile(const Space *x, const TileCost *tiles, int n, int model, PlanLoops *l) {
  Candidate candidates[MAX_TILES];
  for (int i = 0; i < n; i++)
    candidates[i] =
        (Candidate){arena_printf(x->c->scratch, "%dx%d", tiles[i].tile.rows, tiles[i].tile.vectors),
                    tiles[i].cycles, tiles[i].tile.vectors, 1};
  l->key = tile_key(x);
  return choice_take(x->c, CHOICE_TILE, l->key, candidates, n, model);
}

static void choose_tile(const Space *x, PlanLoops *l, bool blocks) {
  TileCost tiles[MAX_TILES];
  const int n = tiles_of(x, tiles);
  int best = contract_cheapest(tiles, n);
  if (contract_choose_matrix(x->c, x->s, tiles[best].cycles, blocks, l)) return;
  if (choice_matters(x->c)) best = take_tile(x, tiles, n, best, l);
  l->rows = tiles[best].tile.rows;
  l->vectors = tiles[best].tile.vectors;
}

/* ---- rows of a block ---- */

/* Lines of a tile, when a line is shorter than a tile may be. */
static void choose_lines(Space *x) {
  int64_t h, w;
  x->high = 1;
  x->wide = x->l->rows;
  const bool squares = contract_is_squares(x->c, x->s, x->l);
  if (x->l->matrix && !squares) {
    x->high = x->l->high > 1 ? x->l->high : 1;
    x->wide /= x->high;
    return;
  }
  if (x->s->flat || !expr_is_const(x->s->rows_w, &w) || w >= x->wide) return;
  x->wide = (int)w;
  if (x->s->skips || !w || !expr_is_const(x->s->rows_h, &h)) return;
  for (int high = x->l->rows / (x->wide + (squares && x->wide % 2)); high > 1; high--)
    if (h % high == 0) {
      x->high = high;
      return;
    }
}

enum {
  MOST_THREADS = 8,
  MOST_ROW_BLOCKS = 4
}; /* that loops are cut for; more share these pieces */

static int threads_of(const Space *x) {
  const int n = x->c->max_threads > 0 ? x->c->max_threads : 1;
  return n < MOST_THREADS ? n : MOST_THREADS;
}

/* Into how many blocks the rows should be cut for the threads, which take contiguous parts of
 * (outer, block, panel). Where the values outweigh the weights each thread gets rows of its own: it
 * finds in its cache what it wrote as the producer, and the weights are read by all. Else panels
 * are divided, and rows only to make up for too few of them. */
static double blocks_for_threads(const Space *x, double rows, double panels) {
  const ContractShape *s = x->s;
  const int threads = threads_of(x);
  if (threads <= 1) return 1;
  const double k = guess(x, k_total(x)), n = guess(x, s->n);
  const double lines = s->flat ? rows : rows * guess(x, s->rows_w);
  const double depth = s->flat ? k : guess(x, s->k[s->n_k - 1]);
  const double outer = outer_count(x), values = lines * (depth + n), weights = k * n;
  if (values >= weights) {
    const double pieces = (threads < MOST_ROW_BLOCKS ? threads : MOST_ROW_BLOCKS) / outer;
    const double most = lines / (2.0 * x->l->rows); /* tiles enough in each */
    return pieces < most ? pieces : most > 1 ? most : 1;
  }
  double blocks = 1;
  while (outer * panels * blocks < 4) blocks++;
  return blocks;
}

/* Of a step of k of A in the cache: a 16-bit float counts as what it is computed in. */
static int a_bytes(const ContractShape *s) {
  const int step = s->types->k_step;
  return step > 1 ? step * dtype_bytes(s->types->a) : dtype_bytes(dtype_compute(s->types->a));
}

/* Of a panel that many rows use: a small float was converted for them. */
static int panel_bytes(const ContractTypes *types) {
  return dtype_bytes(contract_computed_panel(types)) * contract_panel_step(types);
}

static const Expr *rows_of(const Space *x) { return x->s->flat ? x->s->rows_w : x->s->rows_h; }

/* The rows of A, k steps long, that stay in the second-level cache: half of it, or more where
 * that is enough for all of them and a panel beside; a quarter beside the sums of many panels. */
static double rows_in_cache(const Space *x, double k, double rows) {
  const ContractShape *s = x->s;
  const int bytes = a_bytes(s);
  const double l2 = (double)x->c->target->l2_bytes, width = x->l->vectors * contract_lanes(x->c);
  double unit = bytes * k; /* of A per row */
  if (!s->flat) unit = bytes * guess(x, s->k[s->n_k - 1]) * guess(x, s->rows_w);
  if (x->l->gathered) return l2 / 4 / unit;
  const double half = l2 / 2 / unit, beside = width * k * panel_bytes(s->types);
  return half < rows && rows * unit + beside <= l2 * 7 / 8 ? rows : half;
}

/* Rows per block: what keeps A of a block, k steps long, in the second-level cache, and enough
 * blocks for the threads. Blocks are of about the same size: each reads all panels, and a small one
 * computes little with them. *cut: A of all rows does not fit there. */
static int64_t choose_part(const Space *x, double panels, double k, bool *cut) {
  int64_t all;
  const int step = x->s->flat ? x->wide : x->high;
  const double rows = guess(x, rows_of(x));
  double size = rows_in_cache(x, k, rows);
  *cut = size < rows;
  if (*cut) size = rows / ceil(rows / size);
  const double blocks = blocks_for_threads(x, rows, panels);
  const bool for_threads = blocks > 1 && rows / blocks < size;
  if (for_threads) size = rows / blocks;
  /* a block more of whole tiles rather than a small last one */
  const double tiles = for_threads ? size / step + 0.5 : ceil(size / step);
  int64_t n = (int64_t)tiles * step;
  if (n < step) n = step;
  if (n > rows && expr_is_const(rows_of(x), &all)) n = all;
  return n > 0 ? n : 1;
}

/* ---- steps of k ---- */

/* Largest divisor of n that is at most `most`. */
static int64_t divisor(int64_t n, int64_t most) {
  for (int64_t d = most < n ? most : n; d > 1; d--)
    if (n % d == 0) return d;
  return 1;
}

/* Whether loops over k can stand outside the tiles at all: sizes are known. */
static bool can_block_k(const Space *x) {
  int64_t extent, rows;
  for (int i = 0; i < x->s->n_k; i++)
    if (!expr_is_const(x->s->k[i], &extent)) return false;
  return x->s->flat || expr_is_const(ex_mul(x->p, x->s->rows_h, x->s->rows_w), &rows);
}

/* Is a panel, or A of all rows, too large to stay in the second-level cache while several tiles
 * use it? `part`: rows of a block. */
static bool worth_blocking(const Space *x, int64_t part, bool cut) {
  const ContractShape *s = x->s;
  int64_t extent, total = 1, rows;
  for (int i = 0; i < s->n_k; i++) {
    if (!expr_is_const(s->k[i], &extent)) return false;
    total *= extent;
  }
  const Expr *all = s->flat ? s->rows_w : ex_mul(x->p, ex_i64(x->p, part), s->rows_w);
  if (expr_is_const(all, &rows) ? rows <= x->high * x->wide : !s->flat) return false;
  const int64_t panel = total * x->l->vectors * contract_lanes(x->c) * panel_bytes(s->types);
  return panel * 6 > x->c->target->l2_bytes || (s->flat && cut);
}

enum { BLOCK_K = 512 };

/* The innermost loop of k is split where it alone is too long for a block; the outer ones go
 * outside the tiles. Returns the steps that are left inside; 0: nothing is changed. */
static int64_t choose_steps(const Space *x, PlanLoops *l) {
  const ContractShape *s = x->s;
  int64_t extent[MAX_K + 1], inside = 1;
  int n = s->n_k;
  for (int i = 0; i < n; i++) {
    extent[i] = 1;
    expr_is_const(s->k[i], &extent[i]);
  }
  const int64_t whole = extent[n - 1];
  if (whole > BLOCK_K + BLOCK_K / 2) {
    const int64_t d = divisor(whole, BLOCK_K);
    if (d < BLOCK_K / 4) return 0;
    l->steps = d;
    extent[n - 1] = whole / d;
    extent[n++] = d;
  }
  l->outside = n;
  while (l->outside > 0) {
    const int64_t k = extent[l->outside - 1];
    if (l->outside < n && inside * k > BLOCK_K) break;
    inside *= k;
    l->outside--;
  }
  return inside;
}

static bool can_gather(const Space *x, const PlanLoops *l) {
  int64_t k, n;
  return x->s->flat && x->s->n_k == 1 && x->s->types->k_step == 1 && !l->matrix &&
         expr_is_const(x->s->k[0], &k) && expr_is_const(x->s->n, &n);
}

/* Lines of A lie so far apart that a tile finds few elements in each, and few sets of the first-level
 * cache hold them: where enough panels read them, they are copied. */
static bool choose_gathered(const Space *x, PlanLoops *l) {
  enum { FEW_PANELS = 3, LEAST_STEPS = 64, FAR = 256 /* bytes */ };
  const double panels = guess(x, x->s->n) / (l->vectors * contract_lanes(x->c));
  int64_t k = 0;
  if (!x->s->apart || !can_gather(x, l) || panels < FEW_PANELS) return false;
  if (x->s->apart * dtype_bytes(x->s->types->a) < FAR) return false;
  expr_is_const(x->s->k[0], &k);
  const int64_t steps = divisor(k, k > BLOCK_K / 2 ? BLOCK_K / 2 : k / 2);
  if (steps < LEAST_STEPS) return false;
  l->steps = steps;
  l->outside = 1;
  return l->gathered = true;
}

/* Panels that share a block of A: as many as leave their partial sums in an eighth (a third where A is copied) of the
 * second-level cache, and pieces for the threads. */
static int64_t choose_panels(const Space *x, const PlanLoops *l) {
  const ContractShape *s = x->s;
  int64_t cols, n = 1;
  const int width = l->vectors * contract_lanes(x->c);
  if (!l->outside || !s->flat || !expr_is_const(s->n, &cols)) return 1;
  const int64_t panels = cols / width, bytes = l->part * width * dtype_bytes(s->types->acc);
  const double count = guess(x, ex_ceildiv(x->p, rows_of(x), l->part));
  const double blocks = outer_count(x) * count;
  const int64_t room = x->c->target->l2_bytes / (l->gathered ? 3 : 8);
  while (n < panels && (n + 1) * bytes <= room) n++;
  const int threads = threads_of(x) < 2 ? 1 : 2;
  while (n > 1 && blocks * (double)((panels + n - 1) / n) < 2 * threads) n--;
  const int64_t groups = n > 0 ? (panels + n - 1) / n : 1;
  if (groups > 1) n = (panels + groups - 1) / groups; /* of the same size */
  return n > 0 ? n : 1;
}

/* ---- all of it ---- */

double contract_macs(const PassCtx *c, const ContractShape *s) {
  const Space x = {.c = c, .s = s, .p = c->model->pool};
  const double work =
      guess(&x, s->n) * guess(&x, s->rows_h) * guess(&x, s->rows_w) * guess(&x, k_total(&x));
  const MachineModel m = machine_model(c->target, s->types->acc, threads_of(&x));
  return model_macs(&m, work * outer_count(&x));
}

/* Of its tiles, for one outer index. */
static double tiles_cycles(const Space *x, double n, double k, double live) {
  const ContractShape *s = x->s;
  if (x->l->matrix) return contract_matrix_cycles(x->c, s, x->l, live);
  return live * contract_tile_cycles(x->c->target, s->types, (Tile){x->l->rows, x->l->vectors},
                                     guess(x, s->rows_h), guess(x, s->rows_w), s->flat, n, k);
}

double contract_estimate(const PassCtx *c, const ContractShape *s, const PlanLoops *l,
                         double live) {
  const Space x = {.c = c, .s = s, .p = c->model->pool, .l = l};
  const MachineModel m = machine_model(c->target, s->types->acc, threads_of(&x));
  const double n = guess(&x, s->n), k = guess(&x, k_total(&x));
  const double tiles = tiles_cycles(&x, n, k, live);
  const bool stored = s->types->a == DT_F32 && s->types->b != DT_F32; /* in a few bits */
  const double bytes = s->types->scaled ? dtype_rows[s->types->b].bits * s->types->k_step / 8.0
                       : stored         ? dtype_rows[s->types->b].bits / 8.0
                                        : dtype_bytes(contract_panel_type(s->types, c->target)) *
                                      contract_panel_step(s->types);
  const double weights = model_read_weights(&m, bytes * n * k);
  return outer_count(&x) * (tiles > weights ? tiles : weights);
}

static void choose_blocks(Space *x, PlanLoops *l) {
  const double panels =
      guess(x, ex_ceildiv(x->p, x->s->n, (int64_t)l->vectors * contract_lanes(x->c)));
  bool cut;
  choose_lines(x);
  l->lines = !x->s->flat;
  l->high = x->high;
  l->part = choose_part(x, panels, guess(x, k_total(x)), &cut);
  if (choose_gathered(x, l)) {
    l->part = choose_part(x, panels, (double)l->steps, &cut);
  } else if (!l->matrix && !x->s->types->scaled && worth_blocking(x, l->part, cut)) {
    const int64_t inside = choose_steps(x, l);
    if (l->outside && x->s->flat) l->part = choose_part(x, panels, (double)inside, &cut);
  }
  l->panels = choose_panels(x, l);
  l->serial = !model_parallel(contract_macs(x->c, x->s));
}

PlanLoops contract_choose_loops(const PassCtx *c, const ContractShape *s, PlanLoops given,
                                bool blocks) {
  PlanLoops l = given;
  Space x = {.c = c, .s = s, .p = c->model->pool, .l = &l};
  if (!l.rows) choose_tile(&x, &l, blocks);
  if (!l.part && blocks) choose_blocks(&x, &l);
  return l;
}

/* ---- loops of texts ---- */

static const char *steps_problem(const Space *x, const PlanLoops *l) {
  int64_t last = 0, cols = 0;
  const int n = x->s->n_k + (l->steps > 0), width = l->vectors * contract_lanes(x->c);
  if (l->outside && x->s->types->scaled) return "sums are scaled by blocks of their own";
  if (l->gathered && !can_gather(x, l))
    return "rows that are gathered follow each other, with one k";
  if (!l->outside) return l->steps || l->panels > 1 ? "steps and panels need loops outside" : NULL;
  if (!can_block_k(x) || l->outside >= n) return "these loops cannot stand outside the tiles";
  expr_is_const(x->s->k[x->s->n_k - 1], &last);
  if (l->steps && (l->steps >= last || last % l->steps)) return "the steps must divide the sum";
  if (l->panels > 1 && (!x->s->flat || !expr_is_const(x->s->n, &cols) || l->panels > cols / width))
    return "there are not as many panels to do together";
  return NULL;
}

const char *contract_loops_problem(const PassCtx *c, const ContractShape *s, const PlanLoops *l) {
  Space x = {.c = c, .s = s, .p = c->model->pool, .l = l};
  TileCost tiles[MAX_TILES];
  int n = tiles_of(&x, tiles);
  int64_t rows;
  while (n > 0 && (tiles[n - 1].tile.rows != l->rows || tiles[n - 1].tile.vectors != l->vectors))
    n--;
  if (l->matrix) {
    const char *const wrong = contract_matrix_problem(c, s, l);
    if (wrong) return wrong;
  } else if (!n) {
    return "the tile is not possible here";
  }
  if (!l->part) return NULL;
  if (l->lines == s->flat)
    return s->flat ? "rows follow each other here" : "rows do not follow each other here";
  choose_lines(&x);
  const bool large = l->matrix && !contract_is_squares(c, s, l);
  if (!large && l->high != 1 &&
      (l->high > x.high || !expr_is_const(s->rows_h, &rows) || rows % l->high))
    return "a tile cannot have as many lines here";
  if ((!large && l->part % l->high) || l->part > INT32_MAX) return "blocks must be of whole tiles";
  return steps_problem(&x, l);
}
