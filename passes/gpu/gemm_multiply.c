/* The sums of a block's threads, and what they read of shared memory for them, and where each of them
 * goes.
 *
 * Without tensor cores a warp is 4 by 8 threads, each with groups of four rows
 * and four columns, as far apart as all threads of a line take: so lanes read
 * neighbours, 16 bytes each. With them a warp has fragments side by side, and
 * lanes the elements that mma.sync gives them (ir/loop/mma.h). */
#include "ir/loop/mma.h"
#include "passes/gpu/gemm.h"

enum { FOUR = 4, WARP_ROWS = 4, WARP_COLUMNS = 8 };

/* ---- four rows and four columns ---- */

typedef struct Across { /* threads side by side, and which one this is */
  int threads;
  const Expr *thread;
} Across;

static Across lines_of(const Gemm *g, const Threads *t, bool columns) {
  ExprPool *const p = g->p;
  const int own = columns ? g->tile.columns_own : g->tile.rows_own;
  const int extent = columns ? g->tile.columns : g->tile.rows;
  const Expr *const across = gemm_num(g, g->tile.columns / g->tile.columns_own / WARP_COLUMNS);
  const Expr *const eight = gemm_num(g, WARP_COLUMNS);
  const Expr *const of_warp =
      columns ? ex_floormod(p, t->warp, across) : ex_floordiv(p, t->warp, across);
  const Expr *const of_lane =
      columns ? ex_floormod(p, t->lane, eight) : ex_floordiv(p, t->lane, eight);
  const int side = columns ? WARP_COLUMNS : WARP_ROWS;
  return (Across){extent / own, ex_add(p, gemm_scaled(g, of_warp, side), of_lane)};
}

/* Line number 4*group + v of the thread. */
static const Expr *line_at(const Gemm *g, const Across *l, const Expr *group, const Expr *v) {
  const Expr *const at = ex_add(g->p, gemm_scaled(g, group, (int64_t)l->threads * FOUR),
                                gemm_scaled(g, l->thread, FOUR));
  return ex_add(g->p, at, v);
}

static int local_of(Gemm *g, const char *name, DType type, int64_t count) {
  return kernel_add_local(g->c->l->mod, g->c->b.k,
                          (Local){.name = name, .dtype = type, .count = count, .memory = MEM_REGS});
}

/* The thread's lines of one k, into registers. */
static Stmt *read_lines(Gemm *g, const Operand *o, const Threads *t, const Expr *stage,
                        const Expr *k, int local) {
  const Across l = lines_of(g, t, o->is_b);
  const int own = o->is_b ? g->tile.columns_own : g->tile.rows_own;
  const Expr *const i = ex_var(g->p, "i", gemm_num(g, own / FOUR));
  const Expr *const v = ex_var(g->p, "v", gemm_num(g, FOUR));
  const Expr *const at = gemm_shared_index(g, o, stage, line_at(g, &l, i, v), k);
  Stmt *const set = stmt_set(g->a, local, ex_add(g->p, gemm_scaled(g, i, FOUR), v),
                             ex_local(g->p, o->type, o->shared, at));
  return stmt_for(g->a, FOR_UNROLL, i, stmt_for(g->a, FOR_VECTOR, v, set));
}

static Stmt *multiply_plain(Gemm *g, const Threads *t, const Expr *stage) {
  const int rows = g->tile.rows_own, columns = g->tile.columns_own;
  const int a = local_of(g, "row", DT_F32, rows), b = local_of(g, "column", DT_F32, columns);
  const Expr *const k = ex_var(g->p, "k", gemm_num(g, g->tile.k));
  const Expr *const i = ex_var(g->p, "i", gemm_num(g, rows));
  const Expr *const j = ex_var(g->p, "j", gemm_num(g, columns));
  StmtList l = {0};
  stmt_add(&l, stmt_local(g->a, a));
  stmt_add(&l, stmt_local(g->a, b));
  stmt_add(&l, read_lines(g, &g->op[0], t, stage, k, a));
  stmt_add(&l, read_lines(g, &g->op[1], t, stage, k, b));
  const Expr *const product =
      ex_mul(g->p, ex_local(g->p, DT_F32, a, i), ex_local(g->p, DT_F32, b, j));
  Stmt *const acc =
      stmt_acc(g->a, g->sums, ex_add(g->p, gemm_scaled(g, i, columns), j), RED_SUM, product);
  stmt_add(&l, stmt_for(g->a, FOR_UNROLL, i, stmt_for(g->a, FOR_UNROLL, j, acc)));
  return stmt_for(g->a, FOR_UNROLL, k, l.first);
}

Stmt *gemm_store_columns(Gemm *g, const Expr *row, const Expr *first, const Expr *j, int width,
                         const Expr *sum, GemmStore store) {
  Contract *const c = g->c;
  const Expr *const column = ex_add(g->p, first, j);
  int64_t n;
  const bool whole = expr_is_const(c->n, &n) && n % width == 0;
  const Expr *const inside = ex_lt(g->p, whole ? first : column, c->n);
  Stmt *const st = store(g, row, column, sum);
  int64_t always = 0;
  if (expr_is_const(inside, &always) && always) return stmt_for(g->a, FOR_VECTOR, j, st);
  if (whole) return stmt_if(g->a, inside, stmt_for(g->a, FOR_VECTOR, j, st), NULL);
  return stmt_for(g->a, FOR_UNROLL, j, stmt_if(g->a, inside, st, NULL));
}

Stmt *gemm_where_row(Gemm *g, const Expr *row, Stmt *body) {
  return stmt_if(g->a, ex_lt(g->p, row, g->c->rows_w), body, NULL);
}

static Stmt *each_plain(Gemm *g, const Threads *t, GemmStore store) {
  const Across rows = lines_of(g, t, false), columns = lines_of(g, t, true);
  const Expr *const i = ex_var(g->p, "i", gemm_num(g, g->tile.rows_own / FOUR));
  const Expr *const u = ex_var(g->p, "u", gemm_num(g, FOUR));
  const Expr *const j = ex_var(g->p, "j", gemm_num(g, g->tile.columns_own / FOUR));
  const Expr *const v = ex_var(g->p, "v", gemm_num(g, FOUR));
  const Expr *const row = ex_add(g->p, g->row, line_at(g, &rows, i, u));
  const Expr *const first = ex_add(g->p, g->column, line_at(g, &columns, j, gemm_num(g, 0)));
  const Expr *at = gemm_scaled(g, ex_add(g->p, gemm_scaled(g, i, FOUR), u), g->tile.columns_own);
  at = ex_add(g->p, at, ex_add(g->p, gemm_scaled(g, j, FOUR), v));
  Stmt *s = gemm_store_columns(g, row, first, v, FOUR, ex_local(g->p, DT_F32, g->sums, at), store);
  s = gemm_where_row(g, row, stmt_for(g->a, FOR_UNROLL, j, s));
  return stmt_for(g->a, FOR_UNROLL, i, stmt_for(g->a, FOR_UNROLL, u, s));
}

/* ---- fragments ---- */

Fragments gemm_fragments(const Gemm *g, const Threads *t) {
  ExprPool *const p = g->p;
  const int mi = g->tile.rows_own / MMA_ROWS, nj = g->tile.columns_own / MMA_COLS;
  const Expr *const across = gemm_num(g, g->tile.columns / g->tile.columns_own);
  Fragments f = {.m = ex_var(p, "m", gemm_num(g, mi)),
                 .n = ex_var(p, "n", gemm_num(g, nj)),
                 .i = ex_var(p, "i", gemm_num(g, 2)),
                 .j = ex_var(p, "j", gemm_num(g, 2))};
  f.row = gemm_scaled(g, ex_floordiv(p, t->warp, across), g->tile.rows_own);
  f.row = ex_add(p, f.row, gemm_scaled(g, f.m, MMA_ROWS));
  f.row = ex_add(p, f.row, gemm_scaled(g, f.i, MMA_ROWS / 2));
  f.row = ex_add(p, f.row, ex_floordiv(p, t->lane, gemm_num(g, FOUR)));
  f.first = gemm_scaled(g, ex_floormod(p, t->warp, across), g->tile.columns_own);
  f.first = ex_add(p, f.first, gemm_scaled(g, f.n, MMA_COLS));
  f.first = ex_add(p, f.first, gemm_scaled(g, ex_floormod(p, t->lane, gemm_num(g, FOUR)), 2));
  f.sum = ex_add(p, gemm_scaled(g, f.m, nj), f.n);
  f.sum = ex_add(p, gemm_scaled(g, f.sum, 2), f.i);
  f.sum = ex_add(p, gemm_scaled(g, f.sum, 2), f.j);
  return f;
}

static const Expr *fragment_value(Gemm *g, const Operand *o, const Expr *stage, const Expr *line,
                                  const Expr *k) {
  const Expr *e = ex_local(g->p, o->type, o->shared, gemm_shared_index(g, o, stage, line, k));
  if (g->kind == TILE_TF32 && o->direct && o->packed < 0) e = mma_tf32(g->p, e);
  return ex_cast(g->p, g->c->types->acc, e);
}

static Stmt *multiply_fragments(Gemm *g, const Threads *t, const Expr *stage) {
  const Fragments f = gemm_fragments(g, t);
  const Expr *const k = ex_var(g->p, "k", gemm_num(g, g->tile.k));
  const Expr *const product =
      ex_mul(g->p, fragment_value(g, &g->op[0], stage, f.row, k),
             fragment_value(g, &g->op[1], stage, ex_add(g->p, f.first, f.j), k));
  Stmt *s = stmt_acc(g->a, g->sums, f.sum, RED_SUM, product);
  const Expr *const loop[] = {k, f.j, f.i, f.n, f.m};
  for (size_t i = 0; i < sizeof loop / sizeof *loop; i++)
    s = stmt_for(g->a, FOR_MATRIX, loop[i], s);
  return s;
}

static Stmt *each_fragment(Gemm *g, const Threads *t, GemmStore store) {
  const Fragments f = gemm_fragments(g, t);
  const Expr *const row = ex_add(g->p, g->row, f.row);
  Stmt *s = gemm_store_columns(g, row, ex_add(g->p, g->column, f.first), f.j, 2,
                               ex_local(g->p, g->c->types->acc, g->sums, f.sum), store);
  s = gemm_where_row(g, row, stmt_for(g->a, FOR_UNROLL, f.n, s));
  return stmt_for(g->a, FOR_UNROLL, f.m, stmt_for(g->a, FOR_UNROLL, f.i, s));
}

Stmt *gemm_multiply(Gemm *g, const Threads *t, const Expr *stage) {
  return g->kind == TILE_F32 ? multiply_plain(g, t, stage) : multiply_fragments(g, t, stage);
}

Stmt *gemm_each_sum(Gemm *g, const Threads *t, GemmStore store) {
  return g->kind == TILE_F32 ? each_plain(g, t, store) : each_fragment(g, t, store);
}
