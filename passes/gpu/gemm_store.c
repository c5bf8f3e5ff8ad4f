/* The end of a block: its sums become elements of the result. With mma.sync a lane has two columns of
 * a row, which alone would make accesses of four bytes; so the fragments of one line (16 rows of each
 * warp) are put into shared memory and read in the order of the result: there each thread has as many
 * columns as 16 bytes hold, for what it stores and what its epilogue reads beside the sum. */
#include "ir/loop/mma.h"
#include "passes/gpu/gemm.h"

enum {
  PAD = 8
}; /* words behind a row: lanes of four rows that follow each other meet in no bank */

typedef struct Staged {
  Gemm *g;
  GemmStore store;
  int width; /* columns that a thread stores together */
  int lines; /* rows in shared memory */
  int reads; /* so many times does each thread store */
  int pitch;
  int local;
} Staged;

/* Bytes of an element of the result, if columns follow each other in it; else 0. */
static int result_bytes(Gemm *g, GemmStore store) {
  const Expr *const row = ex_var(g->p, "m", g->c->rows_w), *const column =
                                                               ex_var(g->p, "n", g->c->n);
  const Stmt *const s = store(g, row, column, ex_const(g->p, g->c->types->acc, 0));
  const Expr *coeff, *rest;
  if (s->kind != ST_STORE || !expr_affine(g->p, s->access.index, column, &coeff, &rest) ||
      !expr_is_i64(coeff, 1))
    return 0;
  return dtype_bytes(g->c->b.k->params.data[s->access.id].dtype);
}

/* False: the sums are stored as they lie. */
static bool is_staged(Staged *s) {
  enum { BYTES = 16, LEAST = 4 };
  const Gemm *const g = s->g;
  const int bytes = g->kind == TILE_F32 ? 0 : result_bytes(s->g, s->store);
  int64_t n;
  if (!bytes || !expr_is_const(g->c->n, &n)) return false;
  const int threads = g->warps * WARP_LANES;
  s->lines = g->tile.rows / g->tile.rows_own * MMA_ROWS;
  s->width = BYTES / bytes;
  while (n % s->width || s->lines * g->tile.columns % (threads * s->width)) s->width /= 2;
  s->reads = s->lines * g->tile.columns / (threads * s->width);
  s->pitch = g->tile.columns + PAD;
  return s->width >= LEAST;
}

/* Fragments of line f->m of all warps, into shared memory. */
static Stmt *put_line(const Staged *s, const Threads *t, const Fragments *f) {
  Gemm *const g = s->g;
  ExprPool *const p = g->p;
  const DType type = g->c->types->acc;
  const Expr *const across = gemm_num(g, g->tile.columns / g->tile.columns_own);
  const Expr *row = gemm_scaled(g, ex_floordiv(p, t->warp, across), MMA_ROWS);
  row = ex_add(p, row, gemm_scaled(g, f->i, MMA_ROWS / 2));
  row = ex_add(p, row, ex_floordiv(p, t->lane, gemm_num(g, 4)));
  const Expr *const column = ex_add(p, f->first, f->j);
  Stmt *st = stmt_set(g->a, s->local, ex_add(p, gemm_scaled(g, row, s->pitch), column),
                      ex_local(p, type, g->sums, f->sum));
  st = stmt_for(g->a, FOR_UNROLL, f->n, stmt_for(g->a, FOR_VECTOR, f->j, st));
  return gemm_nest(g, t, stmt_for(g->a, FOR_UNROLL, f->i, st));
}

static Stmt *store_line(const Staged *s, const Expr *m) {
  Gemm *const g = s->g;
  ExprPool *const p = g->p;
  const Threads t = gemm_threads(g);
  const Expr *const i = ex_var(p, "i", gemm_num(g, s->reads));
  const Expr *const v = ex_var(p, "v", gemm_num(g, s->width));
  const Expr *const thread = ex_add(p, gemm_scaled(g, t.warp, WARP_LANES), t.lane);
  const Expr *const at = ex_add(p, gemm_scaled(g, i, (int64_t)g->warps * WARP_LANES), thread);
  const Expr *const across = gemm_num(g, g->tile.columns / s->width);
  const Expr *const line = ex_floordiv(p, at, across);
  const Expr *const first = gemm_scaled(g, ex_floormod(p, at, across), s->width);
  const Expr *const rows = gemm_num(g, MMA_ROWS);
  const Expr *row = gemm_scaled(g, ex_floordiv(p, line, rows), g->tile.rows_own);
  row = ex_add(p, row, ex_add(p, gemm_scaled(g, m, MMA_ROWS), ex_floormod(p, line, rows)));
  row = ex_add(p, g->row, row);
  const Expr *const place = ex_add(p, ex_add(p, gemm_scaled(g, line, s->pitch), first), v);
  Stmt *const st = gemm_store_columns(g, row, ex_add(p, g->column, first), v, s->width,
                                      ex_local(p, g->c->types->acc, s->local, place), s->store);
  return gemm_nest(g, &t, stmt_for(g->a, FOR_UNROLL, i, gemm_where_row(g, row, st)));
}

Stmt *gemm_store_sums(Gemm *g, GemmStore store) {
  const Threads t = gemm_threads(g);
  Staged s = {.g = g, .store = store};
  if (!is_staged(&s)) return gemm_nest(g, &t, gemm_each_sum(g, &t, store));
  s.local = kernel_add_local(g->c->l->mod, g->c->b.k,
                             (Local){.name = "line",
                                     .dtype = g->c->types->acc,
                                     .count = (int64_t)s.lines * s.pitch,
                                     .memory = MEM_SHARED});
  const Fragments f = gemm_fragments(g, &t);
  StmtList line = {0}, all = {0};
  stmt_add(&line, put_line(&s, &t, &f));
  stmt_add(&line, store_line(&s, f.m));
  stmt_add(&all, stmt_local(g->a, s.local));
  stmt_add(&all, stmt_for(g->a, FOR_UNROLL, f.m, line.first));
  return all.first;
}
