/* Matrix products as grids of blocks (gemm.h):
 *
 *   block (outer) (rows) (columns)
 *     for the first steps of k, one less than there are stages
 *       all threads: sums = 0; bring both operands into the step's stage
 *     for each step of k
 *       all threads: bring a later step into the stage that was read last;
 *                    multiply what is in this step's stage
 *     all threads: store the epilogue of their sums
 *
 * What is brought waits in registers while products are made (Volkov and Demmel,
 * Benchmarking GPUs to tune dense linear algebra, 2008), of which there are two
 * stages; or it is copied by itself (cp.async) into one of up to four, as CUTLASS
 * does on Ampere. */
#include "passes/gpu/gemm.h"

#include <string.h>

#include "passes/build/nest.h"
#include "passes/choose/choice.h"

Threads gemm_threads(const Gemm *g) {
  return (Threads){ex_var(g->p, "warp", gemm_num(g, g->warps)),
                   ex_var(g->p, "lane", gemm_num(g, WARP_LANES))};
}

Stmt *gemm_nest(const Gemm *g, const Threads *t, Stmt *body) {
  return stmt_for(g->a, FOR_THREAD, t->warp, stmt_for(g->a, FOR_THREAD, t->lane, body));
}

/* ---- what is multiplied ---- */

/* Operands as shared memory holds them; false: there is no template for such.
 */
static bool choose_kind(Gemm *g) {
  const ContractTypes *const t = g->c->types;
  const bool a_byte = t->a == DT_I8 || t->a == DT_U8, b_byte = t->b == DT_I8 || t->b == DT_U8;
  const bool half = t->a == t->b && (t->a == DT_F16 || t->a == DT_BF16);
  const bool single = t->a == DT_F32 && t->b == DT_F32 && g->c->l->c->tf32;
  g->op[0].type = half || t->acc == DT_I32 ? t->a : DT_F32;
  g->op[1].type = half || t->acc == DT_I32 ? t->b : DT_F32;
  g->kind = half ? TILE_HALF : t->acc == DT_I32 ? TILE_BYTES : single ? TILE_TF32 : TILE_F32;
  return t->acc == DT_F32 || (t->acc == DT_I32 && a_byte && b_byte);
}

static GpuProduct product_of(const Gemm *g) {
  const Contract *const c = g->c;
  int64_t k;
  GpuProduct p = {.kind = g->kind,
                  .outer = 1,
                  .rows = expr_extent_guess(g->p, c->rows_w),
                  .columns = expr_extent_guess(g->p, c->n),
                  .k = expr_extent_guess(g->p, g->total),
                  .splits = expr_is_const(g->total, &k),
                  .late = g->kind != TILE_F32};
  for (int i = 0; i < c->n_outer; i++) p.outer *= expr_extent_guess(g->p, c->outer_extent[i]);
  return p;
}

/* What a tuning file has measured, else what takes the fewest cycles by the model. */
static void choose_tile(Gemm *g) {
  static const char *const kinds[TILE_KINDS] = {"f32", "tf32", "half", "bytes"};
  const PassCtx *const pass = g->c->l->c;
  const GpuProduct p = product_of(g);
  GpuTile tile[MOST_CHOICES];
  Candidate candidate[MOST_CHOICES];
  const int n = gpu_tiles(pass->target->gpu, &p, tile);
  int best = 0;
  for (int i = 0; i < n; i++) {
    const double cycles = gpu_tile_all_cycles(pass->target->gpu, &p, &tile[i]);
    candidate[i] = (Candidate){.name = arena_printf(g->a, "%dx%dx%d/%d", tile[i].rows,
                                                    tile[i].columns, tile[i].k, tile[i].splits),
                               .cost = cycles,
                               .family = tile[i].rows};
    if (cycles < candidate[best].cost) best = i;
  }
  const char *const key = choice_matters(pass)
                              ? choice_key(pass, "gpu_gemm %s %g*%gx%g k%g", kinds[p.kind], p.outer,
                                           p.rows, p.columns, p.k)
                              : NULL;
  g->tile = tile[key ? choice_take(pass, CHOICE_TILE, key, candidate, n, best) : best];
  if (key) choice_note(g->a, &g->c->b.keys, key);
  kb_estimate(&g->c->b, "gpu_gemm", gpu_tile_cycles(pass->target->gpu, &p, &g->tile));
  g->warps = gpu_tile_warps(g->kind, &g->tile);
}

/* Too few columns for a tile, or rows for what is brought to be used again:
 * element by element it is about as fast. */
static bool is_small(const Gemm *g) {
  enum { FEW = 8, MANY_COLUMNS = 32, LONG = 64 };
  const Contract *const c = g->c;
  const double k = expr_extent_guess(g->p, g->total), columns = expr_extent_guess(g->p, c->n);
  if (columns < FEW || k < FEW) return true;
  return expr_extent_guess(g->p, c->rows_w) < FEW && (columns < MANY_COLUMNS || k < LONG);
}

static void set_steps(Gemm *g) {
  Contract *const c = g->c;
  const int last = c->n_k - 1;
  int64_t n;
  g->nested = expr_is_const(g->extent[last], &n) && n % g->tile.k == 0;
  g->steps = ex_ceildiv(g->p, g->total, g->tile.k);
  g->parts = 1;
  g->part_sums = -1;
  if (g->tile.splits < 2 || !expr_is_const(g->steps, &n)) return;
  const int64_t own = (n + g->tile.splits - 1) / g->tile.splits; /* no part is empty */
  g->parts = (int)((n + own - 1) / own);
}

/* Steps of part number `part`. */
static void set_part(Gemm *g, const Expr *part) {
  const Expr *const own = g->parts > 1 ? ex_ceildiv(g->p, g->steps, g->parts) : g->steps;
  g->first = ex_mul(g->p, part, own);
  g->own_steps = ex_min(g->p, own, ex_sub(g->p, g->steps, g->first));
}

static void set_extents(Gemm *g) {
  g->total = gemm_num(g, 1);
  for (int i = 0; i < g->c->n_k; i++) {
    g->extent[i] = g->c->k_extent[i];
    g->total = ex_mul(g->p, g->total, g->extent[i]);
  }
}

/* ---- the kernel ---- */

/* Loops of the grid, the innermost first, and the block's place in each dimension. Only the
 * innermost loop may have more than 65535 blocks: rows stand there unless they are known to be
 * fewer, else columns do, whose blocks share the rows that they read. What is not known to be few
 * beside them is counted by that loop, too. */
typedef struct Grid {
  const Expr *loop[3];
  int n;
  const Expr *outer;
  const Expr *rows;
  const Expr *columns;
} Grid;

static const Expr *count_outer(const Gemm *g) {
  const Expr *n = gemm_num(g, 1);
  for (int i = 0; i < g->c->n_outer; i++) n = ex_mul(g->p, n, g->c->outer_extent[i]);
  return n;
}

static bool is_few(const Expr *blocks) {
  enum { MOST = 65535 };
  int64_t n;
  return expr_is_const(blocks, &n) && n <= MOST;
}

/* Blocks of all dimensions, the innermost first. */
static void divide_grid(const Gemm *g, Grid *b, const Expr *const blocks[3], const Expr *at[3]) {
  static const char *const names[] = {"x", "y", "z"};
  const Expr *first = blocks[0];
  for (int i = 1; i < 3; i++)
    if (!is_few(blocks[i])) first = ex_mul(g->p, first, blocks[i]);
  const Expr *rest = b->loop[b->n++] = ex_var(g->p, names[0], first);
  bool folded = false;
  for (int i = 1; i < 3; i++) folded |= !is_few(blocks[i]);
  for (int i = 0; i < 3; i++) {
    if (i > 0 && is_few(blocks[i])) {
      const bool one = expr_is_i64(blocks[i], 1);
      at[i] = one ? gemm_num(g, 0) : ex_var(g->p, names[b->n], blocks[i]);
      if (!one) b->loop[b->n++] = at[i];
    } else {
      at[i] = folded ? ex_floormod(g->p, rest, blocks[i]) : rest;
      rest = ex_floordiv(g->p, rest, blocks[i]);
    }
  }
}

static Grid open_grid(Gemm *g) {
  Contract *const c = g->c;
  Grid b = {.n = 0};
  const Expr *const parts = gemm_num(g, g->parts);
  const Expr *const rows = ex_ceildiv(g->p, c->rows_w, g->tile.rows),
                    *const columns = ex_ceildiv(g->p, c->n, g->tile.columns), *at[3];
  const bool few = is_few(rows);
  const Expr *const blocks[] = {few ? columns : rows, few ? rows : columns,
                                ex_mul(g->p, count_outer(g), parts)};
  divide_grid(g, &b, blocks, at);
  b.rows = at[few ? 1 : 0];
  b.columns = at[few ? 0 : 1];
  b.outer = at[2];
  nest_indices(g->p, ex_floordiv(g->p, b.outer, parts), c->n_outer, c->outer_extent, c->outer);
  set_part(g, ex_floormod(g->p, b.outer, parts));
  g->sum_at = ex_mul(g->p, b.outer, ex_mul(g->p, c->rows_w, c->n));
  g->row = gemm_scaled(g, b.rows, g->tile.rows);
  g->column = gemm_scaled(g, b.columns, g->tile.columns);
  return b;
}

static Stmt *close_grid(const Gemm *g, const Grid *b, Stmt *body) {
  for (int i = 0; i < b->n; i++) body = stmt_for(g->a, FOR_BLOCK, b->loop[i], body);
  return body;
}

static Stmt *bring(Gemm *g, const Threads *t, const Expr *step, const Expr *stage) {
  StmtList l = {0};
  for (int i = 0; i < 2; i++) stmt_add(&l, gemm_bring(g, &g->op[i], t, step, stage));
  return l.first;
}

static Stmt *put(Gemm *g, const Threads *t, const Expr *stage) {
  StmtList l = {0};
  for (int i = 0; i < 2; i++) stmt_add(&l, gemm_put(g, &g->op[i], t, stage));
  return l.first;
}

static Stmt *zero_sums(Gemm *g) {
  const Threads t = gemm_threads(g);
  const Local *const sums = &g->c->b.k->locals.data[g->sums];
  const Expr *const i = ex_var(g->p, "i", gemm_num(g, sums->count));
  Stmt *const zero = stmt_set(g->a, g->sums, i, ex_const(g->p, sums->dtype, 0));
  return gemm_nest(g, &t, stmt_for(g->a, FOR_UNROLL, i, zero));
}

static Stmt *begin(Gemm *g) {
  const Threads t = gemm_threads(g);
  const Expr *const step = ex_var(g->p, "step", gemm_num(g, g->stages - 1));
  StmtList l = {0};
  stmt_add(&l, bring(g, &t, ex_add(g->p, g->first, step), step));
  stmt_add(&l, put(g, &t, step));
  Stmt *const fill = stmt_if(g->a, ex_lt(g->p, step, g->own_steps), l.first, NULL);
  StmtList all = {0};
  stmt_add(&all, zero_sums(g));
  stmt_add(&all, stmt_for(g->a, FOR_UNROLL, step, gemm_nest(g, &t, fill)));
  return all.first;
}

static Stmt *go_on(Gemm *g) {
  const Threads t = gemm_threads(g);
  const Expr *const step = ex_var(g->p, "step", g->own_steps), *const n = gemm_num(g, g->stages);
  const Expr *const later = ex_add(g->p, step, gemm_num(g, g->stages - 1));
  const Expr *const more = ex_lt(g->p, later, g->own_steps), *const to =
                                                                 ex_floormod(g->p, later, n);
  StmtList l = {0};
  int64_t steps;
  const bool all = expr_is_const(g->own_steps, &steps) && steps < g->stages;
  Stmt *const brought = all ? NULL : bring(g, &t, ex_add(g->p, g->first, later), to);
  if (brought) stmt_add(&l, stmt_if(g->a, more, brought, NULL));
  stmt_add(&l, gemm_multiply(g, &t, ex_floormod(g->p, step, n)));
  Stmt *const held = all ? NULL : put(g, &t, to);
  if (held) stmt_add(&l, stmt_if(g->a, more, held, NULL));
  return stmt_for(g->a, FOR_SERIAL, step, gemm_nest(g, &t, l.first));
}

static Stmt *store_result(Gemm *g, const Expr *row, const Expr *column, const Expr *sum) {
  Contract *const c = g->c;
  const Expr *idx[MAX_RANK];
  c->out_index(c, gemm_num(g, 0), row, column, idx);
  const int out = kb_param(&c->b, c->to->buffer, c->to->offset, PA_WRITE);
  const Expr *const value = ex_cast(g->p, kb_dtype(&c->b, out), contract_finish(c, sum, idx));
  return stmt_store(g->a, out, place_index(g->p, c->to, c->root->rank, idx), value);
}

static const Expr *element_of(const Gemm *g, const Expr *row, const Expr *column) {
  return ex_add(g->p, ex_mul(g->p, row, g->c->n), column);
}

static Stmt *store(Gemm *g, const Expr *row, const Expr *column, const Expr *sum) {
  if (g->part_sums < 0) return store_result(g, row, column, sum);
  const int out = kb_param(&g->c->b, g->part_sums, NULL, PA_WRITE);
  return stmt_store(g->a, out, ex_add(g->p, g->sum_at, element_of(g, row, column)), sum);
}

static Stmt *block(Gemm *g) {
  StmtList l = {0};
  const int local[] = {g->op[0].shared, g->op[1].shared, g->op[0].held, g->op[1].held, g->sums};
  for (size_t i = 0; i < sizeof local / sizeof *local; i++)
    if (local[i] >= 0) stmt_add(&l, stmt_local(g->a, local[i]));
  stmt_add(&l, begin(g));
  stmt_add(&l, go_on(g));
  stmt_add(&l, gemm_store_sums(g, store));
  return l.first;
}

static int add_sums(Gemm *g, int64_t count) {
  return kernel_add_local(
      g->c->l->mod, g->c->b.k,
      (Local){.name = "sum", .dtype = g->c->types->acc, .count = count, .memory = MEM_REGS});
}

static Step *finish(Gemm *g, Stmt *body) {
  Contract *const c = g->c;
  if (!c->b.x.bad) return kb_finish(&c->b, body);
  diag_internal(c->l->m->diag, c->b.loc, "lower: the epilogue of a contraction cannot be read");
  return NULL;
}

/* The kernel that adds up what parts of k gave: an element a thread. */
static Step *join_parts(Gemm *g) {
  enum { THREADS = 256 };
  Contract *const c = g->c;
  const Expr *const size = ex_mul(g->p, c->rows_w, c->n), *const zero = gemm_num(g, 0);
  const Expr *const all = ex_mul(g->p, count_outer(g), size), *const parts = gemm_num(g, g->parts);
  const StepKey *const keys = c->b.keys; /* its time is part of the product's */
  kb_begin(&c->b, c->l, c->root, "sum");
  c->b.keys = keys;
  const Expr *const x = ex_var(g->p, "x", ex_ceildiv(g->p, all, THREADS));
  const Expr *const t = ex_var(g->p, "t", gemm_num(g, THREADS)), *const part =
                                                                     ex_var(g->p, "part", parts);
  const Expr *const element = ex_add(g->p, gemm_scaled(g, x, THREADS), t);
  const Expr *const extent[] = {count_outer(g), size}, *at[2], *index[2];
  nest_indices(g->p, element, 2, extent, at);
  nest_indices(g->p, at[0], c->n_outer, c->outer_extent, c->outer);
  nest_indices(g->p, at[1], 2, (const Expr *const[]){c->rows_w, c->n}, index);
  const int sum = add_sums(g, 1), from = kb_param(&c->b, g->part_sums, NULL, PA_READ);
  const Expr *const first = ex_add(g->p, ex_mul(g->p, at[0], parts), part);
  const Expr *const read = ex_add(g->p, ex_mul(g->p, first, size), at[1]);
  StmtList l = {0};
  stmt_add(&l, stmt_local(g->a, sum));
  stmt_add(&l, stmt_set(g->a, sum, zero, ex_const(g->p, c->types->acc, 0)));
  Stmt *const acc =
      stmt_acc(g->a, sum, zero, RED_SUM, ex_load(g->p, c->types->acc, from, read, NULL));
  stmt_add(&l, stmt_for(g->a, FOR_UNROLL, part, acc));
  stmt_add(&l, store_result(g, index[0], index[1], ex_local(g->p, c->types->acc, sum, zero)));
  Stmt *const body = stmt_if(g->a, ex_lt(g->p, element, all), l.first, NULL);
  return finish(g, stmt_for(g->a, FOR_BLOCK, x, stmt_for(g->a, FOR_THREAD, t, body)));
}

/* No more than steps fill, and one that is free. */
static void set_stages(Gemm *g) {
  int64_t steps;
  g->stages = 2;
  if (!g->op[0].direct && !g->op[1].direct) return;
  const GpuProduct p = product_of(g);
  const int most = gpu_tile_stages(g->c->l->c->target->gpu, &p, &g->tile);
  const bool few = expr_is_const(g->own_steps, &steps) && steps < most;
  g->stages = !few ? most : steps < 2 ? 2 : (int)steps + 1;
}

static Step *multiply(Gemm *g) {
  Contract *const c = g->c;
  const Grid grid = open_grid(g);
  g->op[1].is_b = true;
  g->op[0].extent = g->tile.rows;
  g->op[1].extent = g->tile.columns;
  for (int i = 0; i < 2; i++) gemm_operand(g, &g->op[i]);
  set_stages(g);
  for (int i = 0; i < 2; i++) gemm_operand_locals(g, &g->op[i]);
  g->sums = add_sums(g, (int64_t)g->tile.rows * g->tile.columns / (g->warps * WARP_LANES));
  Stmt *const body = close_grid(g, &grid, block(g));
  c->b.k->flops = contract_flops(c);
  return finish(g, body);
}

static Step *emit(Gemm *g) {
  Contract *const c = g->c;
  if (g->parts == 1) return multiply(g);
  const Expr *const count = ex_mul(g->p, ex_mul(g->p, count_outer(g), gemm_num(g, g->parts)),
                                   ex_mul(g->p, c->rows_w, c->n));
  g->part_sums = module_add_memory(c->l->mod, c->types->acc, count, "parts")->id;
  Step *steps = multiply(g);
  Step *const join = steps ? join_parts(g) : NULL;
  if (!join) return NULL;
  step_append(&steps, join);
  return steps;
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

/* Phases of a transposed convolution write different elements: all are made so,
 * or none. */
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
  Attention attention;
  if (attention_of(n, &attention)) return lower_gpu_attention(l, root, anchor, to, &attention);
  if (!node_contract_types(n) || strcmp(n->op->name, "DequantizeMatMul") == 0) return NULL;
  if (conv_info(n, &conv)) {
    return conv_phases(&conv) > 0 ? lower_conv_rows(l, root, anchor, to, &conv) : NULL;
  }
  if (!matmul_info(n, &product) || product.a_vec || product.b_vec) return NULL;
  Contract c;
  matmul_describe(&c, l, root, anchor, to, &product);
  return lower_product(&c, false);
}
