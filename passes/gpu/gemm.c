/* Matrix products as grids of blocks (gemm.h):
 *
 *   block (outer) (rows) (columns)
 *     all threads: sums = 0; bring step 0 of both operands, put it into half 0
 *     for each step of k
 *       all threads: bring the next step; multiply this one's half; put the next one into the other
 *     all threads: store the epilogue of their sums
 *
 * What is brought waits in registers while the products before it are made (Volkov and Demmel,
 * Benchmarking GPUs to tune dense linear algebra, 2008). */
#include "passes/gpu/gemm.h"

#include <string.h>

#include "passes/build/nest.h"

Threads gemm_threads(const Gemm *g) {
  return (Threads){ex_var(g->p, "warp", gemm_num(g, g->warps)),
                   ex_var(g->p, "lane", gemm_num(g, WARP_LANES))};
}

Stmt *gemm_nest(const Gemm *g, const Threads *t, Stmt *body) {
  return stmt_for(g->a, FOR_THREAD, t->warp, stmt_for(g->a, FOR_THREAD, t->lane, body));
}

/* ---- what is multiplied ---- */

/* Operands as shared memory holds them; false: there is no template for such. */
static bool choose_kind(Gemm *g) {
  const ContractTypes *const t = g->c->types;
  const bool a_byte = t->a == DT_I8 || t->a == DT_U8, b_byte = t->b == DT_I8 || t->b == DT_U8;
  const bool half = t->a == t->b && (t->a == DT_F16 || t->a == DT_BF16);
  g->op[0].type = half || t->acc == DT_I32 ? t->a : DT_F32;
  g->op[1].type = half || t->acc == DT_I32 ? t->b : DT_F32;
  g->kind = half ? TILE_HALF : t->acc == DT_I32 ? TILE_BYTES : TILE_F32;
  return t->acc == DT_F32 || (t->acc == DT_I32 && a_byte && b_byte);
}

static void choose_tile(Gemm *g) {
  Contract *const c = g->c;
  double outer = 1;
  for (int i = 0; i < c->n_outer; i++) outer *= expr_extent_guess(g->p, c->outer_extent[i]);
  const GpuProduct product = {.kind = g->kind,
                              .outer = outer,
                              .rows = expr_extent_guess(g->p, c->rows_w),
                              .columns = expr_extent_guess(g->p, c->n),
                              .k = expr_extent_guess(g->p, g->total)};
  g->tile = gpu_tile(c->l->c->target->gpu, &product);
  g->warps = gpu_tile_warps(g->kind, &g->tile);
}

/* Too few rows or columns for a tile: element by element it is about as fast. */
static bool is_small(const Gemm *g) {
  enum { LINES = 8, K = 8 };
  const Contract *const c = g->c;
  return expr_extent_guess(g->p, c->rows_w) < LINES || expr_extent_guess(g->p, c->n) < LINES ||
         expr_extent_guess(g->p, g->total) < K;
}

static void set_steps(Gemm *g) {
  Contract *const c = g->c;
  const int last = c->n_k - 1;
  int64_t n;
  g->nested = expr_is_const(g->extent[last], &n) && n % g->tile.k == 0;
  g->steps = ex_ceildiv(g->p, g->total, g->tile.k);
}

static void set_extents(Gemm *g) {
  g->total = gemm_num(g, 1);
  for (int i = 0; i < g->c->n_k; i++) {
    g->extent[i] = g->c->k_extent[i];
    g->total = ex_mul(g->p, g->total, g->extent[i]);
  }
}

/* ---- the kernel ---- */

typedef struct Grid {
  const Expr *outer, *rows, *columns; /* loops */
  const Expr *n_outer;
} Grid;

static Grid open_grid(Gemm *g) {
  Contract *const c = g->c;
  Grid b = {.n_outer = gemm_num(g, 1)};
  for (int i = 0; i < c->n_outer; i++) b.n_outer = ex_mul(g->p, b.n_outer, c->outer_extent[i]);
  b.outer = ex_var(g->p, "z", b.n_outer);
  b.rows = ex_var(g->p, "y", ex_ceildiv(g->p, c->rows_w, g->tile.rows));
  b.columns = ex_var(g->p, "x", ex_ceildiv(g->p, c->n, g->tile.columns));
  nest_indices(g->p, b.outer, c->n_outer, c->outer_extent, c->outer);
  g->row = gemm_scaled(g, b.rows, g->tile.rows);
  g->column = gemm_scaled(g, b.columns, g->tile.columns);
  return b;
}

/* Only the innermost loop may have more than 65535 blocks: rows stand there unless they are known to be
 * fewer. Else columns do, whose blocks share the rows that they read. */
static Stmt *close_grid(const Gemm *g, const Grid *b, Stmt *body) {
  enum { MOST = 65535 };
  int64_t n;
  const bool few = expr_is_const(expr_var_extent(g->p, b->rows->id), &n) && n <= MOST;
  body = stmt_for(g->a, FOR_BLOCK, few ? b->columns : b->rows, body);
  body = stmt_for(g->a, FOR_BLOCK, few ? b->rows : b->columns, body);
  return expr_is_i64(b->n_outer, 1) ? body : stmt_for(g->a, FOR_BLOCK, b->outer, body);
}

static Stmt *bring(Gemm *g, const Threads *t, const Expr *step) {
  StmtList l = {0};
  for (int i = 0; i < 2; i++) stmt_add(&l, gemm_bring(g, &g->op[i], t, step));
  return l.first;
}

static Stmt *put(Gemm *g, const Threads *t, const Expr *half) {
  StmtList l = {0};
  for (int i = 0; i < 2; i++) stmt_add(&l, gemm_put(g, &g->op[i], t, half));
  return l.first;
}

static Stmt *begin(Gemm *g) {
  const Threads t = gemm_threads(g);
  const Local *const sums = &g->c->b.k->locals.data[g->sums];
  const Expr *const i = ex_var(g->p, "i", gemm_num(g, sums->count));
  StmtList l = {0};
  Stmt *const zero = stmt_set(g->a, g->sums, i, ex_const(g->p, sums->dtype, 0));
  stmt_add(&l, stmt_for(g->a, FOR_UNROLL, i, zero));
  stmt_add(&l, bring(g, &t, gemm_num(g, 0)));
  stmt_add(&l, put(g, &t, gemm_num(g, 0)));
  return gemm_nest(g, &t, l.first);
}

static Stmt *go_on(Gemm *g) {
  const Threads t = gemm_threads(g);
  const Expr *const step = ex_var(g->p, "step", g->steps), *const two = gemm_num(g, 2);
  const Expr *const next = ex_add(g->p, step, gemm_num(g, 1));
  const Expr *const more = ex_lt(g->p, next, g->steps);
  StmtList l = {0};
  if (!expr_is_i64(g->steps, 1)) stmt_add(&l, stmt_if(g->a, more, bring(g, &t, next), NULL));
  stmt_add(&l, gemm_multiply(g, &t, ex_floormod(g->p, step, two)));
  if (!expr_is_i64(g->steps, 1))
    stmt_add(&l, stmt_if(g->a, more, put(g, &t, ex_floormod(g->p, next, two)), NULL));
  return stmt_for(g->a, FOR_SERIAL, step, gemm_nest(g, &t, l.first));
}

static Stmt *store(Gemm *g, const Expr *row, const Expr *column, const Expr *sum) {
  Contract *const c = g->c;
  const Expr *idx[MAX_RANK];
  c->out_index(c, gemm_num(g, 0), row, column, idx);
  const int out = kb_param(&c->b, c->to->buffer, c->to->offset, PA_WRITE);
  const Expr *const value = ex_cast(g->p, kb_dtype(&c->b, out), contract_finish(c, sum, idx));
  return stmt_store(g->a, out, place_index(g->p, c->to, c->root->rank, idx), value);
}

static Stmt *end(Gemm *g) {
  const Threads t = gemm_threads(g);
  return gemm_nest(g, &t, gemm_each_sum(g, &t, store));
}

static Stmt *block(Gemm *g) {
  StmtList l = {0};
  const int local[] = {g->op[0].shared, g->op[1].shared, g->op[0].held, g->op[1].held, g->sums};
  for (size_t i = 0; i < sizeof local / sizeof *local; i++)
    stmt_add(&l, stmt_local(g->a, local[i]));
  stmt_add(&l, begin(g));
  stmt_add(&l, go_on(g));
  stmt_add(&l, end(g));
  return l.first;
}

static Step *emit(Gemm *g) {
  Contract *const c = g->c;
  const Grid grid = open_grid(g);
  g->op[1].is_b = true;
  g->op[0].extent = g->tile.rows;
  g->op[1].extent = g->tile.columns;
  for (int i = 0; i < 2; i++)
    if (!gemm_operand(g, &g->op[i])) return NULL;
  const int64_t sums = (int64_t)g->tile.rows * g->tile.columns / (g->warps * WARP_LANES);
  g->sums = kernel_add_local(
      c->l->mod, c->b.k,
      (Local){.name = "sum", .dtype = c->types->acc, .count = sums, .memory = MEM_REGS});
  Stmt *const body = close_grid(g, &grid, block(g));
  for (int i = 0; i < c->n_k; i++) c->k_extent[i] = g->extent[i];
  c->b.k->flops = contract_flops(c);
  if (!c->b.x.bad) return kb_finish(&c->b, body);
  diag_internal(c->l->m->diag, c->b.loc, "lower: the epilogue of a contraction cannot be read");
  return NULL;
}

/* NULL without an error: no template, or not worth one. */
static Step *lower_product(Contract *c, bool any_size) {
  Gemm g = {.c = c, .p = c->p, .a = c->l->m->arena};
  set_extents(&g);
  if (!choose_kind(&g) || (!any_size && is_small(&g))) {
    kb_drop(&c->b);
    return NULL;
  }
  choose_tile(&g);
  set_steps(&g);
  return emit(&g);
}

/* Phases of a transposed convolution write different elements: all are made so, or none. */
static Step *lower_conv_rows(Lower *l, const Value *root, const Value *anchor, const Place *to,
                             const ConvInfo *conv) {
  Step *steps = NULL;
  for (int64_t i = 0; i < conv_phases(conv); i++) {
    Contract c;
    if (!conv_describe_rows(&c, l, root, anchor, to, conv, i)) continue;
    Step *const s = lower_product(&c, steps != NULL);
    if (!s) return NULL;
    step_append(&steps, s);
  }
  return steps;
}

Step *lower_gpu_contraction(Lower *l, const Value *root, const Value *anchor, const Place *to) {
  const Node *const n = anchor->def;
  ConvInfo conv;
  MatMulInfo product;
  if (!node_contract_types(n) || strcmp(n->op->name, "DequantizeMatMul") == 0) return NULL;
  if (conv_info(n, &conv)) {
    return conv_phases(&conv) > 0 ? lower_conv_rows(l, root, anchor, to, &conv) : NULL;
  }
  if (!matmul_info(n, &product) || product.a_vec || product.b_vec) return NULL;
  Contract c;
  matmul_describe(&c, l, root, anchor, to, &product);
  return lower_product(&c, false);
}
