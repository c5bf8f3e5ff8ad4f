/* Loops of a tiled contraction:
 *
 *   parallel p over (outer, block of rows, panel of columns)
 *     for tiles of rows in the block
 *       tile = 0;  for k…: unroll rows: tile[row] += A[row, k] · B[panel, k, lanes]
 *       unroll rows: store epilogue(tile[row])
 *
 * Remainders in rows and columns are tiles of their own; symbolic remainders go row by row and through a stack
 * copy whose lanes are cut at the end. */
#include "passes/contract.h"

typedef struct Panel {
  const Expr *col;     /* first column */
  const Expr *cols;    /* valid columns, constant or symbolic */
  int vectors;
  const Expr *b_base;  /* offset of the packed panel */
  int b_width;         /* lanes from one row of the packed panel to the next */
} Panel;

static Arena *arena(const Contract *c) { return c->l->m->arena; }
static const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }

static const Expr *k_total(const Contract *c) {
  const Expr *t = num(c, 1);
  for (int i = 0; i < c->n_k; i++) t = ex_mul(c->p, t, c->k_extent[i]);
  return t;
}

static const Expr *k_linear(const Contract *c) {
  const Expr *t = num(c, 0);
  for (int i = 0; i < c->n_k; i++) t = ex_add(c->p, ex_mul(c->p, t, c->k_extent[i]), c->k[i]);
  return t;
}

static const Expr *b_value(Contract *c, const Panel *pn, const Expr *lane) {
  if (c->b_buffer < 0) return c->b_direct(c, ex_add(c->p, pn->col, lane));
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *row = ex_mul(c->p, k_linear(c), num(c, pn->b_width));
  return ex_load(c->p, DT_F32, id, ex_add(c->p, ex_add(c->p, pn->b_base, row), lane), NULL);
}

/* Row number i of a tile whose first row is (h, w). */
static void tile_row(const Contract *c, const Expr *h, const Expr *w, const Expr *i, int th, int tw, const Expr **rh,
                     const Expr **rw) {
  *rh = th > 1 ? ex_add(c->p, h, ex_floordiv(c->p, i, num(c, tw))) : h;
  *rw = ex_add(c->p, w, th > 1 ? ex_floormod(c->p, i, num(c, tw)) : i);
}

/* While a panel is used its successor comes to the second-level cache, a line per step of k. Only the first tiles of
 * a line do it: as many as a row of the panel has lines. */
static Stmt *prefetch_next(Contract *c, const Panel *pn, const Expr *tile) {
  const int64_t lines = (int64_t)pn->vectors * c->lanes / 16;
  if (!c->prefetch || !tile || c->b_buffer < 0 || lines < 1) return NULL;
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *kt = k_total(c), *next = ex_add(c->p, pn->b_base, ex_mul(c->p, kt, num(c, pn->b_width)));
  const Expr *part = ex_mul(c->p, ex_min(c->p, tile, num(c, lines - 1)), ex_mul(c->p, kt, num(c, 16)));
  const Expr *at = ex_add(c->p, ex_add(c->p, next, part), ex_mul(c->p, k_linear(c), num(c, 16)));
  return stmt_prefetch(arena(c), id, at);
}

static Stmt *k_loops(Contract *c, Stmt *body) {
  for (int i = c->n_k - 1; i >= 0; i--) {
    int64_t n;
    const bool unroll = i == c->n_k - 1 && c->n_k > 1 && expr_is_const(c->k_extent[i], &n) && n <= 4;
    body = stmt_for(arena(c), unroll ? FOR_UNROLL : FOR_SERIAL, c->k[i], body);
  }
  return body;
}

static const Expr *finish_value(Contract *c, const Expr *sum, const Expr *const *idx) {
  if (c->scale != 1.0) sum = ex_mul(c->p, sum, ex_float(c->p, DT_F32, c->scale));
  const Expr *extra = c->add ? c->add(c, idx) : NULL;
  if (extra) sum = ex_add(c->p, sum, extra);
  c->b.x.anchor = c->anchor;
  c->b.x.anchor_idx = idx;
  const Expr *e = kernel_expr_of(&c->b.x, c->root, idx);
  c->b.x.anchor = NULL;
  const Expr *hole = ex_hole(c->p, c->anchor->dtype, 0);
  return expr_replace(c->p, e, 1, &hole, (const Expr *[]){ex_cast(c->p, c->anchor->dtype, sum)});
}

static Stmt *store_rows(Contract *c, const Panel *pn, int local, const Expr *h, const Expr *w, int th, int tw) {
  const int width = pn->vectors * c->lanes;
  const Expr *i = ex_var(c->p, "r", num(c, th * tw)), *j = ex_var(c->p, "j", pn->cols), *rh, *rw;
  const Expr *idx[MAX_RANK];
  tile_row(c, h, w, i, th, tw, &rh, &rw);
  c->out_index(c, rh, rw, ex_add(c->p, pn->col, j), idx);
  const Expr *sum = ex_local(c->p, DT_F32, local, ex_add(c->p, ex_mul(c->p, i, num(c, width)), j));
  const Expr *value = c->plain_rank ? sum : finish_value(c, sum, idx);
  const int out = kb_param(&c->b, c->to->buffer, c->to->offset, PA_WRITE);
  Stmt *st = stmt_store(arena(c), out, place_index(c->p, c->to, c->plain_rank ? c->plain_rank : c->root->rank, idx), value);
  const bool regs = !c->b.k->locals.data[local].stack;
  return stmt_for(arena(c), regs ? FOR_UNROLL : FOR_SERIAL, i, stmt_for(arena(c), FOR_VECTOR, j, st));
}

/* Symbolic column counts: the tile is copied to the stack, where lanes may be cut at run time. */
static int to_stack(Contract *c, StmtList *out, int local, int rows, int width) {
  const int copy = kernel_add_local(c->l->mod, c->b.k,
                                    (Local){.name = "s", .dtype = DT_F32, .count = (int64_t)rows * width, .stack = true});
  const Expr *i = ex_var(c->p, "r", num(c, rows)), *j = ex_var(c->p, "j", num(c, width));
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width)), j);
  stmt_add(out, stmt_local(arena(c), copy));
  Stmt *set = stmt_set(arena(c), copy, at, ex_local(c->p, DT_F32, local, at));
  stmt_add(out, stmt_for(arena(c), FOR_UNROLL, i, stmt_for(arena(c), FOR_VECTOR, j, set)));
  return copy;
}

static Stmt *close_tile(Contract *c, const Panel *pn, int local, const Expr *h, const Expr *w, int th, int tw) {
  StmtList out = {0};
  int64_t cols;
  if (!expr_is_const(pn->cols, &cols)) local = to_stack(c, &out, local, th * tw, pn->vectors * c->lanes);
  stmt_add(&out, store_rows(c, pn, local, h, w, th, tw));
  return out.first;
}

enum { CHAIN = 64 }; /* products added up before they join the sum, where registers allow it */

/* One row leaves registers for two levels of sums: shorter chains of additions, smaller rounding errors. */
static Stmt *chained_k(Contract *c, const Panel *pn, int local, int width, const Expr *h, const Expr *w) {
  Arena *a = arena(c);
  const Expr *k = c->k[0], *inner = ex_var(c->p, "k", num(c, CHAIN));
  const Expr *outer = ex_var(c->p, "k", ex_floordiv(c->p, c->k_extent[0], num(c, CHAIN)));
  const int part = kernel_add_local(c->l->mod, c->b.k, (Local){.name = "u", .dtype = DT_F32, .count = width});
  const Expr *j0 = ex_var(c->p, "j", num(c, width)), *j1 = ex_var(c->p, "j", num(c, width)),
             *j2 = ex_var(c->p, "j", num(c, width));
  c->k[0] = ex_add(c->p, ex_mul(c->p, outer, num(c, CHAIN)), inner);
  const Expr *fma = ex_op(c->p, EX_fma, c->a(c, h, w), b_value(c, pn, j1), ex_local(c->p, DT_F32, part, j1));
  c->k[0] = k;
  StmtList body = {0};
  stmt_add(&body, stmt_local(a, part));
  stmt_add(&body, stmt_for(a, FOR_VECTOR, j0, stmt_set(a, part, j0, ex_float(c->p, DT_F32, 0))));
  stmt_add(&body, stmt_for(a, FOR_SERIAL, inner, stmt_for(a, FOR_VECTOR, j1, stmt_set(a, part, j1, fma))));
  const Expr *sum = ex_add(c->p, ex_local(c->p, DT_F32, local, j2), ex_local(c->p, DT_F32, part, j2));
  stmt_add(&body, stmt_for(a, FOR_VECTOR, j2, stmt_set(a, local, j2, sum)));
  return stmt_for(a, FOR_SERIAL, outer, body.first);
}

static bool can_chain(const Contract *c, int rows) {
  int64_t k;
  return rows == 1 && c->n_k == 1 && expr_is_const(c->k_extent[0], &k) && k % CHAIN == 0 && k >= 4 * CHAIN;
}

static Stmt *tile_body(Contract *c, const Panel *pn, const Expr *h, const Expr *w, int th, int tw, const Expr *tile) {
  const int rows = th * tw, width = pn->vectors * c->lanes;
  StmtList out = {0};
  int local = kernel_add_local(c->l->mod, c->b.k,
                               (Local){.name = "t", .dtype = DT_F32, .count = (int64_t)rows * width});
  const Expr *i0 = ex_var(c->p, "r", num(c, rows)), *j0 = ex_var(c->p, "j", num(c, width));
  const Expr *at0 = ex_add(c->p, ex_mul(c->p, i0, num(c, width)), j0);
  stmt_add(&out, stmt_local(arena(c), local));
  stmt_add(&out, stmt_for(arena(c), FOR_VECTOR, j0,
                          stmt_for(arena(c), FOR_UNROLL, i0,
                                   stmt_set(arena(c), local, at0, ex_float(c->p, DT_F32, 0)))));
  const Expr *i = ex_var(c->p, "r", num(c, rows)), *j = ex_var(c->p, "j", num(c, width)), *rh, *rw;
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width)), j);
  tile_row(c, h, w, i, th, tw, &rh, &rw);
  if (can_chain(c, rows)) {
    stmt_add(&out, chained_k(c, pn, local, width, h, w));
    stmt_add(&out, close_tile(c, pn, local, h, w, th, tw));
    return out.first;
  }
  const Expr *fma = ex_op(c->p, EX_fma, c->a(c, rh, rw), b_value(c, pn, j), ex_local(c->p, DT_F32, local, at));
  /* row by row: the broadcast of A dies at once, the vectors of B stay */
  Stmt *inner = stmt_for(arena(c), FOR_UNROLL, i,
                         stmt_for(arena(c), FOR_VECTOR, j, stmt_set(arena(c), local, at, fma)));
  StmtList step = {0};
  stmt_add(&step, prefetch_next(c, pn, tile));
  stmt_add(&step, inner);
  stmt_add(&out, k_loops(c, step.first));
  stmt_add(&out, close_tile(c, pn, local, h, w, th, tw));
  return out.first;
}

/* Tiles of tw rows along w from 0, then the rest. */
static Stmt *line_of_tiles(Contract *c, const Panel *pn, const Expr *h, const Expr *first, const Expr *count, int th,
                           int tw, const Expr *line) {
  StmtList out = {0};
  const Expr *full = ex_floordiv(c->p, count, num(c, tw));
  const Expr *t = ex_var(c->p, "w", full);
  int64_t n, whole;
  const bool fixed = expr_is_const(count, &n);
  if (!expr_is_const(full, &whole) || whole > 0) {
    const Expr *w = ex_add(c->p, first, ex_mul(c->p, t, num(c, tw)));
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, t, tile_body(c, pn, h, w, th, tw, line ? line : t)));
  }
  if (fixed && n % tw == 0) return out.first;
  const Expr *done = ex_add(c->p, first, ex_mul(c->p, full, num(c, tw)));
  if (fixed) {
    stmt_add(&out, tile_body(c, pn, h, done, th, (int)(n % tw), NULL));
  } else {
    const Expr *r = ex_var(c->p, "w", ex_floormod(c->p, count, num(c, tw)));
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, r, tile_body(c, pn, h, ex_add(c->p, done, r), 1, 1, NULL)));
  }
  return out.first;
}

typedef struct Blocks {
  int th, tw;
  const Expr *rows, *size, *count; /* lines (or, flat, rows), per block, blocks */
} Blocks;

/* All tiles of a block of `count` rows (flat) or lines from `first`. */
static Stmt *block_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first, const Expr *count) {
  if (c->flat) return line_of_tiles(c, pn, num(c, 0), first, count, 1, bl->tw, NULL);
  const Expr *y = ex_var(c->p, "h", ex_floordiv(c->p, count, num(c, bl->th)));
  const Expr *h = ex_add(c->p, first, ex_mul(c->p, y, num(c, bl->th)));
  return stmt_for(arena(c), FOR_SERIAL, y, line_of_tiles(c, pn, h, num(c, 0), c->rows_w, bl->th, bl->tw, y));
}

static Stmt *block_rows(Contract *c, const Panel *pn, const Blocks *bl, const Expr *block) {
  const Expr *first = ex_mul(c->p, block, bl->size);
  int64_t rows, size;
  if (!expr_is_const(bl->rows, &rows) || !expr_is_const(bl->size, &size))
    return block_tiles(c, pn, bl, first, ex_min(c->p, bl->size, ex_sub(c->p, bl->rows, first)));
  const int64_t full = rows / size, rest = rows % size;
  Stmt *whole = full ? block_tiles(c, pn, bl, first, bl->size) : NULL;
  if (!rest) return whole;
  Stmt *part = block_tiles(c, pn, bl, num(c, full * size), num(c, rest));
  return full ? stmt_if(arena(c), ex_lt(c->p, block, num(c, full)), whole, part) : part;
}

/* Rows per block: what keeps A of a block in half the second-level cache, and enough blocks for the threads. */
static Blocks choose_blocks(const Contract *c, double panels) {
  Blocks b = {.th = 1, .tw = c->tile.rows};
  const Target *t = c->l->c->target;
  const double k = expr_extent_guess(c->p, k_total(c));
  double unit = 4 * k; /* bytes of A per row */
  int64_t h, w;
  b.rows = c->flat ? c->rows_w : c->rows_h;
  if (!c->flat) {
    if (expr_is_const(c->rows_w, &w) && w < b.tw) {
      b.tw = (int)w;
      if (expr_is_const(c->rows_h, &h))
        for (int th = c->tile.rows / b.tw; th > 1; th--)
          if (h % th == 0) {
            b.th = th;
            break;
          }
    }
    unit = 4 * expr_extent_guess(c->p, c->k_extent[c->n_k - 1]) * expr_extent_guess(c->p, c->rows_w);
  }
  const int step = c->flat ? b.tw : b.th;
  const double rows = expr_extent_guess(c->p, b.rows);
  double size = (double)t->l2_bytes / 2 / unit;
  double outer = panels;
  for (int i = 0; i < c->n_outer; i++) outer *= expr_extent_guess(c->p, c->outer_extent[i]);
  const int threads = c->l->mod->max_threads;
  const double weights = 4 * k * expr_extent_guess(c->p, c->n);
  const bool few = outer < 2 * threads || (outer < 4 * threads && weights < (double)t->l2_bytes / 2);
  if (threads > 1 && few) {
    const double want = rows / (int64_t)(4 * threads / outer + 0.5);
    if (want < size) size = want;
  }
  int64_t n = (int64_t)(size / step) * step;
  if (n < step) n = step;
  if (n > rows && expr_is_const(b.rows, &h)) n = h;
  b.size = num(c, n);
  b.count = ex_ceildiv(c->p, b.rows, n);
  return b;
}

static void bind_outer(Contract *c, const Expr *flat) {
  for (int i = c->n_outer - 1; i >= 0; i--) {
    c->outer[i] = i ? ex_floormod(c->p, flat, c->outer_extent[i]) : flat;
    flat = i ? ex_floordiv(c->p, flat, c->outer_extent[i]) : flat;
  }
}

/* Both kinds of panels: whole ones, and the narrower last one. */
static Stmt *panels_body(Contract *c, const Blocks *bl, const Expr *panel, const Expr *block) {
  const int width = c->tile.vectors * c->lanes;
  const Expr *col = ex_mul(c->p, panel, num(c, width)), *kt = k_total(c);
  const Expr *base = ex_add(c->p, c->b_outer, ex_mul(c->p, ex_mul(c->p, panel, kt), num(c, width)));
  Panel pn = {col, num(c, width), c->tile.vectors, base, width};
  int64_t n;
  if (!expr_is_const(c->n, &n)) {
    pn.cols = ex_min(c->p, num(c, width), ex_sub(c->p, c->n, col));
    return block_rows(c, &pn, bl, block);
  }
  const int64_t full = n / width, rest = n % width;
  Stmt *whole = full ? block_rows(c, &pn, bl, block) : NULL;
  if (!rest) return whole;
  const Expr *last = num(c, full);
  Panel tail = {num(c, full * width), num(c, rest), (int)((rest + c->lanes - 1) / c->lanes),
                ex_add(c->p, c->b_outer, ex_mul(c->p, ex_mul(c->p, last, kt), num(c, width))), width};
  if (!c->b_whole_panels) tail.b_width = tail.vectors * c->lanes;
  Stmt *part = block_rows(c, &tail, bl, block);
  return full ? stmt_if(arena(c), ex_lt(c->p, panel, last), whole, part) : part;
}

Step *contract_emit(Contract *c) {
  const int width = c->tile.vectors * c->lanes;
  const Expr *panels = ex_ceildiv(c->p, c->n, width);
  const double b_bytes = 4 * expr_extent_guess(c->p, c->n) * expr_extent_guess(c->p, k_total(c));
  c->prefetch = b_bytes > (double)c->l->c->target->l2_bytes / 2;
  const Blocks bl = choose_blocks(c, expr_extent_guess(c->p, panels));
  const Expr *total = ex_mul(c->p, bl.count, panels);
  for (int i = 0; i < c->n_outer; i++) total = ex_mul(c->p, total, c->outer_extent[i]);
  const Expr *par = ex_var(c->p, "p", total);
  const Expr *panel = ex_floormod(c->p, par, panels), *rest = ex_floordiv(c->p, par, panels);
  const Expr *block = ex_floormod(c->p, rest, bl.count);
  bind_outer(c, ex_floordiv(c->p, rest, bl.count));
  c->b_outer = c->b_offset ? c->b_offset(c) : num(c, 0);
  Stmt *body = panels_body(c, &bl, panel, block);
  const double work = expr_extent_guess(c->p, c->n) * expr_extent_guess(c->p, c->rows_h) *
                      expr_extent_guess(c->p, c->rows_w) * expr_extent_guess(c->p, k_total(c));
  const Target *t = c->l->c->target;
  double outer = 1;
  for (int i = 0; i < c->n_outer; i++) outer *= expr_extent_guess(c->p, c->outer_extent[i]);
  const double cycles = work * outer / (c->lanes * t->fma_per_cycle);
  c->b.k->grain = cycles / expr_extent_guess(c->p, total);
  c->b.k->flops = (int64_t)(2 * work * outer);
  const bool parallel = cycles > 8000;
  if (c->b.x.bad) {
    diag_internal(c->l->m->diag, c->b.loc, "lower: the epilogue of a contraction cannot be read");
    return NULL;
  }
  return kb_finish(&c->b, stmt_for(arena(c), parallel ? FOR_PARALLEL : FOR_SERIAL, par, body));
}
