/* Blocks of tiled contractions: which rows, steps of k and panels go together, so that what is used
 * again is still in the cache, and how threads divide them. contract_emit.c makes the loops. */
#include "passes/kernels/contract_block.h"

static const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }
static const Expr *var(const Contract *c, const char *stem, int64_t n) {
  return ex_var(c->p, stem, num(c, n));
}

const Expr *contract_k_total(const Contract *c) {
  const Expr *t = num(c, 1);
  for (int i = 0; i < c->n_k; i++) t = ex_mul(c->p, t, c->k_extent[i]);
  return t;
}

const Expr *contract_sum_rows(const Contract *c, const Blocks *bl) {
  return c->flat ? bl->size : ex_mul(c->p, bl->size, c->rows_w);
}

/* Lines of a tile, when a line is shorter than a tile may be. */
static void choose_lines(const Contract *c, Blocks *b) {
  int64_t h, w;
  if (!expr_is_const(c->rows_w, &w) || w >= b->tw) return;
  b->tw = (int)w;
  if (c->skips || !expr_is_const(c->rows_h, &h)) return;
  for (int th = c->tile.rows / b->tw; th > 1; th--)
    if (h % th == 0) {
      b->th = th;
      return;
    }
}

enum {
  MOST_THREADS = 8,
  MOST_ROW_BLOCKS = 4
}; /* that loops are cut for; more share these pieces */

static int threads_of(const Contract *c) {
  const int n = c->l->mod->max_threads;
  return n < MOST_THREADS ? n : MOST_THREADS;
}

double contract_outer_count(const Contract *c) {
  double n = 1;
  for (int i = 0; i < c->n_outer; i++) n *= expr_extent_guess(c->p, c->outer_extent[i]);
  return n;
}

/* Into how many blocks the rows should be cut for the threads, which take contiguous parts of
 * (outer, block, panel). Where the values outweigh the weights each thread gets rows of its own: it
 * finds in its cache what it wrote as the producer, and the weights are read by all. Else panels
 * are divided, and rows only to make up for too few of them. */
static double blocks_for_threads(const Contract *c, double rows, double panels) {
  const int threads = threads_of(c);
  if (threads <= 1) return 1;
  const double k = expr_extent_guess(c->p, contract_k_total(c)), n = expr_extent_guess(c->p, c->n);
  const double lines = c->flat ? rows : rows * expr_extent_guess(c->p, c->rows_w);
  const double depth = c->flat ? k : expr_extent_guess(c->p, c->k_extent[c->n_k - 1]);
  const double outer = contract_outer_count(c), values = lines * (depth + n), weights = k * n;
  if (values >= weights) {
    const double pieces = (threads < MOST_ROW_BLOCKS ? threads : MOST_ROW_BLOCKS) / outer;
    const double most = lines / (2.0 * c->tile.rows); /* tiles enough in each */
    return pieces < most ? pieces : most > 1 ? most : 1;
  }
  double blocks = 1;
  while (outer * panels * blocks < 4) blocks++;
  return blocks;
}

/* Of a step of k of A in the cache: a 16-bit float counts as what it is computed in. */
static int a_bytes(const Contract *c) {
  const int step = c->types->k_step;
  return step > 1 ? step * dtype_bytes(c->types->a) : dtype_bytes(dtype_compute(c->types->a));
}

/* Rows per block: what keeps A of a block, k steps long, in half the second-level cache, and enough
 * blocks for the threads. */
static Blocks choose_blocks(const Contract *c, double panels, double k) {
  Blocks b = {.th = 1, .tw = c->tile.rows};
  const int bytes = a_bytes(c);
  double unit = bytes * k; /* of A per row */
  int64_t h;
  b.rows = c->flat ? c->rows_w : c->rows_h;
  if (!c->flat) {
    choose_lines(c, &b);
    unit = bytes * expr_extent_guess(c->p, c->k_extent[c->n_k - 1]) *
           expr_extent_guess(c->p, c->rows_w);
  }
  const int step = c->flat ? b.tw : b.th;
  const double rows = expr_extent_guess(c->p, b.rows);
  double size = (double)c->l->c->target->l2_bytes / 2 / unit;
  b.cut = size < rows;
  const double blocks = blocks_for_threads(c, rows, panels);
  if (blocks > 1 && rows / blocks < size) size = rows / blocks;
  /* a block more of whole tiles rather than a small last one */
  int64_t n = (int64_t)(size / step + (blocks > 1 ? 0.5 : 0)) * step;
  if (n < step) n = step;
  if (n > rows && expr_is_const(b.rows, &h)) n = h;
  b.size = num(c, n);
  b.count = ex_ceildiv(c->p, b.rows, n);
  return b;
}

/* Largest divisor of n that is at most `most`. */
static int64_t divisor(int64_t n, int64_t most) {
  for (int64_t d = most < n ? most : n; d > 1; d--)
    if (n % d == 0) return d;
  return 1;
}

/* Is a panel, or A of all rows, too large to stay in the second-level cache while several tiles
 * use it? */
static bool worth_blocking(const Contract *c, const Blocks *bl) {
  int64_t extent, total = 1, rows;
  for (int i = 0; i < c->n_k; i++) {
    if (!expr_is_const(c->k_extent[i], &extent)) return false;
    total *= extent;
  }
  const Expr *all = c->flat ? bl->rows : contract_sum_rows(c, bl);
  if (expr_is_const(all, &rows) ? rows <= bl->th * bl->tw : !c->flat) return false;
  const int64_t panel = total * c->tile.vectors * c->lanes * dtype_bytes(c->types->panel);
  return panel * 6 > c->l->c->target->l2_bytes || (c->flat && bl->cut);
}

/* The innermost loop of k is split where it alone is too long for a block; the outer ones go
 * outside the tiles. Returns the steps that are left inside. */
static int64_t block_k(Contract *c) {
  enum { BLOCK_K = 512 };
  const int last = c->n_k - 1;
  int64_t extent = 1, inside = 1;
  expr_is_const(c->k_extent[last], &extent);
  if (extent > BLOCK_K + BLOCK_K / 2) {
    const int64_t d = divisor(extent, BLOCK_K);
    if (d < BLOCK_K / 4) return 0;
    const Expr *o = var(c, "k", extent / d), *i = var(c, "k", d);
    c->k[last] = ex_add(c->p, ex_mul(c->p, o, num(c, d)), i);
    c->loop[last] = o;
    c->loop_extent[last] = num(c, extent / d);
    c->loop[last + 1] = i;
    c->loop_extent[last + 1] = num(c, d);
    c->n_loops++;
  }
  c->hoisted = c->n_loops;
  while (c->hoisted > 0) {
    int64_t n = 1;
    expr_is_const(c->loop_extent[c->hoisted - 1], &n);
    if (c->hoisted < c->n_loops && inside * n > BLOCK_K) break;
    inside *= n;
    c->hoisted--;
  }
  return inside;
}

/* Panels that share a block of A: as many as leave their partial sums in an eighth of the
 * second-level cache, and pieces for the threads. */
static int64_t group_panels(const Contract *c, const Blocks *bl, int64_t panels) {
  int64_t rows, n = 1;
  if (!c->hoisted || !c->flat || !expr_is_const(contract_sum_rows(c, bl), &rows)) return 1;
  const int64_t bytes = rows * c->tile.vectors * c->lanes * dtype_bytes(c->types->acc);
  const double blocks = contract_outer_count(c) * expr_extent_guess(c->p, bl->count);
  while (n < panels && (n + 1) * bytes <= c->l->c->target->l2_bytes / 8) n++;
  const int threads = threads_of(c) < 2 ? 1 : 2;
  while (n > 1 && blocks * (double)((panels + n - 1) / n) < 2 * threads) n--;
  const int64_t groups = n > 0 ? (panels + n - 1) / n : 1;
  if (groups > 1) n = (panels + groups - 1) / groups; /* of the same size */
  return n;
}

void contract_plain_loops(Contract *c) {
  for (int i = 0; i < c->n_k; i++) {
    c->loop[i] = c->k[i];
    c->loop_extent[i] = c->k_extent[i];
  }
  c->n_loops = c->n_k;
  c->hoisted = 0;
  c->group = 1;
}

/* By the time a layer runs again, the others have pushed its weights out of the second-level
 * cache. */
void contract_choose_prefetch(Contract *c) {
  const double bytes = dtype_bytes(c->types->panel) * expr_extent_guess(c->p, c->n) *
                       expr_extent_guess(c->p, contract_k_total(c));
  c->prefetch = bytes > (double)c->l->c->target->l2_bytes / 16;
}

Blocks contract_choose_blocks(Contract *c, double panels) {
  contract_plain_loops(c);
  Blocks bl = choose_blocks(c, panels, expr_extent_guess(c->p, contract_k_total(c)));
  if (!worth_blocking(c, &bl)) return bl;
  const int64_t inside = block_k(c);
  if (c->hoisted && c->flat) bl = choose_blocks(c, panels, (double)inside);
  return bl;
}

/* Groups of panels, the narrower last panel being one of its own. */
const Expr *contract_count_groups(Contract *c, const Blocks *bl) {
  const int width = c->tile.vectors * c->lanes;
  int64_t n = 0;
  const bool fixed = expr_is_const(c->n, &n);
  if (fixed) c->group = group_panels(c, bl, n / width);
  if (c->hoisted)
    c->sums = kb_scratch(&c->b, c->types->acc,
                         ex_mul(c->p, contract_sum_rows(c, bl), num(c, c->group * width)), "sums");
  if (!fixed) return ex_ceildiv(c->p, c->n, width);
  return num(c, (n / width + c->group - 1) / c->group + (n % width != 0));
}
