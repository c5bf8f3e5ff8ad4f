/* Blocks of A whose lines lie far apart, as columns of a matrix do: copied for the panels that read them, in
 * the order in which tiles do, step by step the rows of a tile (packing in Goto and van de Geijn, Anatomy of
 * High-Performance Matrix Multiplication, 2008). */
#include "passes/kernels/contract_parts.h"

/* Rows of a tile are copied in whole vectors: what one step has too much, the next one writes over. */
static int whole_lanes(const Contract *c) {
  return (c->tile.rows + c->lanes - 1) / c->lanes * c->lanes;
}

/* Elements of a tile: with room for whole vectors, and an odd number of lines, so that tiles begin in
 * different cache sets. */
static int64_t tile_size(const Contract *c) {
  const int line = CACHE_LINE / dtype_bytes(c->types->acc), more = whole_lanes(c) - c->tile.rows;
  const int64_t lines = (c->plan.steps * c->tile.rows + more + line - 1) / line;
  return (lines | 1) * line;
}

/* Row `row` of a tile, at the current step of k. */
static const Expr *gathered_at(const Contract *c, const Expr *tile, const Expr *row) {
  const Expr *at = ex_mul(c->p, tile, num(c, tile_size(c))), *step = c->loop[c->n_loops - 1];
  at = ex_add(c->p, at, ex_mul(c->p, step, num(c, c->tile.rows)));
  return ex_add(c->p, at, row);
}

const Expr *contract_gathered(const Contract *c, const Expr *w) {
  const Expr *row = ex_sub(c->p, w, c->gathered_from), *high = num(c, c->tile.rows);
  const Expr *at = gathered_at(c, ex_floordiv(c->p, row, high), ex_floormod(c->p, row, high));
  return ex_load(c->p, c->types->acc, c->gathered, at, NULL);
}

/* Rows [from, from + wide) of the block become rows of `tile`. */
static Stmt *copy_rows(Contract *c, const Expr *tile, const Expr *from, const Expr *wide) {
  const Expr *i = ex_var(c->p, "r", wide);
  const Expr *w = ex_add(c->p, c->gathered_from, ex_add(c->p, from, i));
  const Expr *value = c->a(c, num(c, 0), w);
  Stmt *st = stmt_store(arena(c), c->gathered, gathered_at(c, tile, i), value);
  return stmt_for(arena(c), FOR_VECTOR, i, st);
}

Stmt *contract_gather(Contract *c, const Expr *first, const Expr *count, const Blocks *bl) {
  Arena *a = arena(c);
  const Expr *high = num(c, c->tile.rows), *wide = num(c, whole_lanes(c));
  const Expr *tiles = ex_ceildiv(c->p, bl->size, c->tile.rows);
  if (c->gather_to < 0)
    c->gather_to =
        kb_scratch(&c->b, c->types->acc, ex_mul(c->p, tiles, num(c, tile_size(c))), "rows");
  c->gathered = c->gather_to;
  c->gathered_from = first;
  /* tiles behind which the block has rows for a whole vector */
  const Expr *reach = ex_sub(c->p, count, ex_sub(c->p, wide, high));
  const Expr *full = ex_max(c->p, ex_floordiv(c->p, reach, high), num(c, 0));
  const Expr *t = ex_var(c->p, "w", full),
             *r = ex_var(c->p, "w", ex_sub(c->p, ex_ceildiv(c->p, count, c->tile.rows), full));
  StmtList step = {0};
  stmt_add(&step, stmt_for(a, FOR_SERIAL, t, copy_rows(c, t, ex_mul(c->p, t, high), wide)));
  const Expr *last = ex_add(c->p, full, r), *from = ex_mul(c->p, last, high);
  const Expr *left = ex_min(c->p, high, ex_sub(c->p, count, from));
  stmt_add(&step, stmt_for(a, FOR_SERIAL, r, copy_rows(c, last, from, left)));
  return stmt_for(a, FOR_SERIAL, c->loop[c->n_loops - 1], step.first);
}
