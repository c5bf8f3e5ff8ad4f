/* Attention without a matrix of scores, as one grid (FlashAttention, Dao et al. 2022; FlashAttention-2,
 * Dao 2023; online softmax, Milakov and Gimelshein 2018):
 *
 *   block (head, block of queries)
 *     all threads: bring the queries and the first keys and values
 *     for each step of keys
 *       all threads: bring the next keys and values; scores = mask(queries · keysᵀ);
 *                    put down the largest one that the thread has of each row
 *       all threads: m' = max(m, those of the row); c = exp(m - m'); p = exp(scores - m');
 *                    l = l*c + sum(p); out = out*c; put down p
 *       all threads: out += p · values
 *     all threads: put down l
 *     all threads: store the epilogue of out / sum of the row's l
 *
 * A warp has whole rows of queries, so that what it puts down only it reads: its lanes wait for each
 * other there, not the block (codegen/cuda/kernel.c). Keys behind the last one count as -inf. */
#include <math.h>
#include <string.h>

#include "ir/loop/mma.h"
#include "passes/gpu/attention.h"
#include "passes/gpu/tile_load.h"

enum { STAGES = 2, NESTS = 3 }; /* nests of a step */

static AttentionThreads threads(const GpuAttn *g) {
  return (AttentionThreads){var(&g->c, "warp", num(&g->c, g->tile.warps)),
                            var(&g->c, "lane", num(&g->c, ATTENTION_LANES))};
}

static Stmt *nest(const GpuAttn *g, const AttentionThreads *t, Stmt *body) {
  return loop(&g->c, FOR_THREAD, t->warp, loop(&g->c, FOR_THREAD, t->lane, body));
}

static Stmt *over(const GpuAttn *g, const AttentionCell *x, Stmt *one) {
  return loop(&g->c, FOR_UNROLL, x->n, loop(&g->c, FOR_UNROLL, x->v, one));
}

static const Expr *local(const GpuAttn *g, int id, const Expr *at) {
  return ex_local(g->c.p, DT_F32, id, at);
}

/* What lanes know of a row. */
static const Expr *part_at(const GpuAttn *g, const Expr *row, const Expr *lane) {
  return plus(&g->c, times(&g->c, row, g->across), lane);
}

static const Expr *own_part(const GpuAttn *g, const AttentionThreads *t, const Expr *row) {
  return part_at(g, row, ex_floormod(g->c.p, t->lane, num(&g->c, g->across)));
}

/* id[row] = what all lanes of the row put down, taken together. */
static Stmt *join_parts(GpuAttn *g, const AttentionCell *x, int id, const Expr *at,
                        ReduceKind how) {
  const Expr *const u = var(&g->c, "u", num(&g->c, g->across));
  return loop(&g->c, FOR_UNROLL, u,
              stmt_acc(arena(&g->c), id, at, how, local(g, g->parts, part_at(g, x->row, u))));
}

/* ---- a step ---- */

/* scores[] as the softmax sees them, and the largest of each row. */
static Stmt *mask_scores(GpuAttn *g, const AttentionThreads *t, const Expr *first_key) {
  Attn *const c = &g->c;
  const AttentionCell x = attention_cell(g, t, g->tile.keys, false);
  const Expr *const row = plus(c, g->first, x.row), *const rows = c->at->rows;
  const Expr *const key = plus(c, first_key, plus(c, x.start, x.v)), *const keys = c->at->keys;
  const Expr *const has_row = ex_lt(c->p, row, rows), *const has_key = ex_lt(c->p, key, keys);
  const Expr *const inside = ex_and(c->p, has_row, has_key);
  c->b.x.guard = inside->op == EX_CONST ? NULL : inside;
  const Expr *const e = attn_masked(c, row, key, local(g, g->scores, x.at));
  c->b.x.guard = NULL;
  const Expr *const at = own_part(g, t, x.row), *const none = f32(c, -INFINITY);
  const int most =
      kernel_add_local(c->l->mod, c->b.k, (Local){.name = "most", .dtype = DT_F32, .count = 1});
  StmtList l = {0}, one = {0};
  stmt_add(&one, stmt_set(arena(c), g->scores, x.at, ex_select(c->p, has_key, e, none)));
  stmt_add(&one, stmt_acc(arena(c), most, num(c, 0), RED_MAX, local(g, g->scores, x.at)));
  stmt_add(&l, stmt_local(arena(c), most));
  stmt_add(&l, stmt_set(arena(c), most, num(c, 0), none));
  stmt_add(&l, over(g, &x, one.first));
  stmt_add(&l, stmt_set(arena(c), g->parts, at, local(g, most, num(c, 0))));
  return loop(c, FOR_UNROLL, x.m, loop(c, FOR_UNROLL, x.i, l.first));
}

static Stmt *multiply_keys(GpuAttn *g, const Expr *step, const Expr *steps) {
  Attn *const c = &g->c;
  const AttentionThreads t = threads(g);
  const AttentionCell x = attention_cell(g, &t, g->tile.keys, false);
  const Expr *const next = plus(c, step, num(c, 1)), *const more = ex_lt(c->p, next, steps);
  const Expr *const to = ex_floormod(c->p, next, num(c, STAGES)), *const tile =
                                                                      times(c, next, g->tile.keys);
  StmtList l = {0}, bring = {0};
  stmt_add(&bring, attention_bring(g, &g->k, &t, tile, to));
  if (g->v.direct) stmt_add(&bring, attention_bring(g, &g->v, &t, tile, to));
  stmt_add(&l, stmt_if(arena(c), more, bring.first, NULL));
  Stmt *zero = stmt_set(arena(c), g->scores, x.at, f32(c, 0));
  stmt_add(&l, loop(c, FOR_UNROLL, x.m, loop(c, FOR_UNROLL, x.i, over(g, &x, zero))));
  stmt_add(&l, attention_scores(g, &t, ex_floormod(c->p, step, num(c, STAGES))));
  stmt_add(&l, mask_scores(g, &t, times(c, step, g->tile.keys)));
  Stmt *const put = attention_put(g, &g->k, &t, to);
  if (put) stmt_add(&l, stmt_if(arena(c), more, put, NULL));
  return nest(g, &t, l.first);
}

/* out and the sum of a row, for a new maximum. */
static Stmt *rescale(GpuAttn *g, const AttentionThreads *t, const AttentionCell *x, int factor) {
  Attn *const c = &g->c;
  const AttentionCell y = attention_cell(g, t, g->v.padded, true);
  const Expr *const from[] = {y.m, y.i}, *const to[] = {x->m, x->i};
  const Expr *const at = expr_replace(c->p, y.at, 2, from, to);
  const Expr *const by = local(g, factor, num(c, 0));
  StmtList l = {0};
  stmt_add(&l, stmt_set(arena(c), g->sum, x->own, ex_mul(c->p, local(g, g->sum, x->own), by)));
  stmt_add(&l, over(g, &y, stmt_set(arena(c), g->out, at, ex_mul(c->p, local(g, g->out, at), by))));
  return l.first;
}

/* Exponentials of a row, where the second product reads them; the thread's part of their sum. */
static Stmt *exponentials(GpuAttn *g, const AttentionThreads *t, const AttentionCell *x, int base) {
  Attn *const c = &g->c;
  const AttentionCell y = attention_cell(g, t, g->tile.keys, false);
  const Expr *const from[] = {y.m, y.i}, *const to[] = {x->m, x->i};
  const Expr *const at = expr_replace(c->p, y.at, 2, from, to);
  const Expr *const p = local(g, g->scores, at);
  const Expr *const change = ex_sub(c->p, p, local(g, base, num(c, 0)));
  const Expr *const row = times(c, x->row, gpu_attention_pitch(g->kind, g->tile.keys, false));
  StmtList each = {0}, l = {0};
  stmt_add(&each, stmt_set(arena(c), g->scores, at, ex_op(c->p, EX_exp, change, NULL, NULL)));
  stmt_add(&each, stmt_acc(arena(c), g->sum, x->own, RED_SUM, p));
  stmt_add(&l, loop(c, FOR_UNROLL, y.v, each.first));
  const Expr *const v = var(c, "v", num(c, attention_width(g, false)));
  const Expr *const stored = expr_subst(c->p, p, y.v, v);
  const Expr *const weight =
      g->kind == TILE_TF32 ? mma_tf32(c->p, stored) : ex_cast(c->p, g->type, stored);
  stmt_add(&l, loop(c, FOR_VECTOR, v,
                    stmt_set(arena(c), g->weights, plus(c, row, plus(c, y.start, v)), weight)));
  return loop(c, FOR_UNROLL, y.n, l.first);
}

static Stmt *update_rows(GpuAttn *g) {
  Attn *const c = &g->c;
  const AttentionThreads t = threads(g);
  const AttentionCell x = attention_cell(g, &t, g->tile.keys, false);
  const Local one = {.name = "c", .dtype = DT_F32, .count = 1};
  const int factor = kernel_add_local(c->l->mod, c->b.k, one),
            base = kernel_add_local(c->l->mod, c->b.k, one);
  const Expr *const zero = num(c, 0), *const max = local(g, g->max, x.own);
  const Expr *const change = ex_sub(c->p, local(g, factor, zero), local(g, base, zero));
  StmtList l = {0};
  stmt_add(&l, stmt_local(arena(c), factor));
  stmt_add(&l, stmt_local(arena(c), base));
  stmt_add(&l, stmt_set(arena(c), factor, zero, max));
  stmt_add(&l, join_parts(g, &x, g->max, x.own, RED_MAX));
  stmt_add(&l, stmt_set(arena(c), base, zero, attn_base(c, max)));
  stmt_add(&l, stmt_set(arena(c), factor, zero, ex_op(c->p, EX_exp, change, NULL, NULL)));
  stmt_add(&l, rescale(g, &t, &x, factor));
  stmt_add(&l, exponentials(g, &t, &x, base));
  return nest(g, &t, loop(c, FOR_UNROLL, x.m, loop(c, FOR_UNROLL, x.i, l.first)));
}

static Stmt *multiply_values(GpuAttn *g, const Expr *step, const Expr *steps) {
  Attn *const c = &g->c;
  const AttentionThreads t = threads(g);
  const Expr *const next = plus(c, step, num(c, 1)), *const more = ex_lt(c->p, next, steps);
  const Expr *const to = ex_floormod(c->p, next, num(c, STAGES));
  StmtList l = {0};
  if (!g->v.direct)
    stmt_add(&l, stmt_if(arena(c), more,
                         attention_bring(g, &g->v, &t, times(c, next, g->tile.keys), to), NULL));
  stmt_add(&l, attention_values(g, &t, ex_floormod(c->p, step, num(c, STAGES))));
  Stmt *const put = attention_put(g, &g->v, &t, to);
  if (put) stmt_add(&l, stmt_if(arena(c), more, put, NULL));
  return nest(g, &t, l.first);
}

/* ---- before and behind ---- */

/* In nests of their own, as many as a step has: what was brought in the first one is there behind
 * them. */
static Stmt *begin(GpuAttn *g) {
  Attn *const c = &g->c;
  const Expr *const zero = num(c, 0);
  const AttentionOperand *const all[] = {&g->q, &g->k, &g->v};
  StmtList l = {0}, nests = {0};
  AttentionThreads t = threads(g);
  for (int i = 0; i < 3; i++) {
    stmt_add(&l, attention_bring(g, all[i], &t, i ? zero : g->first, zero));
    stmt_add(&l, attention_put(g, all[i], &t, zero));
  }
  stmt_add(&nests, nest(g, &t, l.first));
  t = threads(g);
  const Expr *const e = var(c, "i", num(c, attention_own(g, g->v.padded)));
  Stmt *const clear = stmt_set(arena(c), g->out, e, f32(c, 0));
  stmt_add(&nests, nest(g, &t, loop(c, FOR_UNROLL, e, clear)));
  t = threads(g);
  const Expr *const r = var(c, "i", num(c, attention_own_rows(g)));
  StmtList rows = {0};
  stmt_add(&rows, stmt_set(arena(c), g->max, r, f32(c, -INFINITY)));
  stmt_add(&rows, stmt_set(arena(c), g->sum, r, f32(c, 0)));
  stmt_add(&nests, nest(g, &t, loop(c, FOR_UNROLL, r, rows.first)));
  return nests.first;
}

static Stmt *put_sums(GpuAttn *g) {
  const AttentionThreads t = threads(g);
  const AttentionCell x = attention_cell(g, &t, g->tile.keys, false);
  Stmt *const set =
      stmt_set(arena(&g->c), g->parts, own_part(g, &t, x.row), local(g, g->sum, x.own));
  return nest(g, &t, loop(&g->c, FOR_UNROLL, x.m, loop(&g->c, FOR_UNROLL, x.i, set)));
}

/* Columns of a row that follow each other, which are there all or not at all where their number is a
 * multiple of that. */
static Stmt *store_columns(GpuAttn *g, const AttentionCell *x, const Expr *factor) {
  Attn *const c = &g->c;
  const int width = attention_width(g, true);
  const Expr *const column = plus(c, x->start, x->v), *const size = num(c, c->at->dv);
  const bool whole = c->at->dv % width == 0;
  const Expr *const inside = ex_lt(c->p, whole ? x->start : column, size);
  Stmt *const s = attn_store(c, plus(c, g->first, x->row), column, local(g, g->out, x->at), factor);
  int64_t always = 0;
  if (expr_is_const(inside, &always) && always) return loop(c, FOR_VECTOR, x->v, s);
  if (whole) return stmt_if(arena(c), inside, loop(c, FOR_VECTOR, x->v, s), NULL);
  return loop(c, FOR_UNROLL, x->v, stmt_if(arena(c), inside, s, NULL));
}

static Stmt *end(GpuAttn *g) {
  Attn *const c = &g->c;
  const AttentionThreads t = threads(g);
  const AttentionCell x = attention_cell(g, &t, g->v.padded, true);
  const int sum =
      kernel_add_local(c->l->mod, c->b.k, (Local){.name = "l", .dtype = DT_F32, .count = 1});
  const Expr *const zero = num(c, 0), *const all = local(g, sum, zero);
  StmtList l = {0};
  stmt_add(&l, stmt_local(arena(c), sum));
  stmt_add(&l, stmt_set(arena(c), sum, zero, f32(c, 0)));
  stmt_add(&l, join_parts(g, &x, sum, zero, RED_SUM));
  stmt_add(&l, stmt_set(arena(c), sum, zero, attn_inverse(c, all)));
  stmt_add(&l, loop(c, FOR_UNROLL, x.n, store_columns(g, &x, all)));
  const Expr *const has_row = ex_lt(c->p, plus(c, g->first, x.row), c->at->rows);
  Stmt *const row = stmt_if(arena(c), has_row, l.first, NULL);
  return nest(g, &t, loop(c, FOR_UNROLL, x.m, loop(c, FOR_UNROLL, x.i, row)));
}

static Stmt *block(GpuAttn *g) {
  Attn *const c = &g->c;
  const Expr *const steps = ex_ceildiv(c->p, c->at->keys, g->tile.keys);
  const Expr *const step = var(c, "step", steps);
  const int locals[] = {g->q.shared, g->k.shared, g->v.shared, g->weights, g->parts, g->q.held,
                        g->k.held,   g->v.held,   g->scores,   g->out,     g->max,   g->sum};
  StmtList l = {0}, one = {0};
  for (size_t i = 0; i < sizeof locals / sizeof *locals; i++)
    if (locals[i] >= 0) stmt_add(&l, stmt_local(arena(c), locals[i]));
  stmt_add(&l, begin(g));
  stmt_add(&one, multiply_keys(g, step, steps));
  stmt_add(&one, update_rows(g));
  stmt_add(&one, multiply_values(g, step, steps));
  stmt_add(&l, loop(c, FOR_SERIAL, step, one.first));
  stmt_add(&l, put_sums(g));
  stmt_add(&l, end(g));
  return l.first;
}

/* ---- the kernel ---- */

static int add_local(GpuAttn *g, const char *name, DType type, int64_t count, LocalMemory memory) {
  return kernel_add_local(g->c.l->mod, g->c.b.k,
                          (Local){.name = name, .dtype = type, .count = count, .memory = memory});
}

static void describe(GpuAttn *g) {
  const Attention *const a = g->c.at;
  const int rank = a->scores->rank;
  g->q = (AttentionOperand){.v = a->q,
                            .trans = a->qk.trans_a,
                            .from = g->c.score_at,
                            .rank = rank,
                            .lines = a->rows,
                            .extent = g->rows,
                            .size = a->dk,
                            .stages = 1};
  g->k = (AttentionOperand){.v = a->k,
                            .trans = !a->qk.trans_b,
                            .from = g->c.score_at,
                            .rank = rank,
                            .lines = a->keys,
                            .extent = g->tile.keys,
                            .size = a->dk,
                            .stages = STAGES};
  g->v = (AttentionOperand){.v = a->v,
                            .from = g->c.batch,
                            .rank = a->x->rank,
                            .lines = a->keys,
                            .extent = g->tile.keys,
                            .size = a->dv,
                            .stages = STAGES};
  static const char *const names[] = {"q", "k", "v"};
  AttentionOperand *const all[] = {&g->q, &g->k, &g->v};
  for (int i = 0; i < 3; i++) {
    all[i]->padded = gpu_attention_padded(g->kind, all[i]->size, i == 2);
    all[i]->pitch = gpu_attention_pitch(g->kind, all[i]->size, i == 2);
    attention_operand(g, all[i], names[i], NESTS);
  }
}

static void add_locals(GpuAttn *g) {
  const int64_t pitch = gpu_attention_pitch(g->kind, g->tile.keys, false);
  g->weights = add_local(g, "p", g->type, g->rows * pitch, MEM_SHARED);
  g->parts = add_local(g, "part", DT_F32, (int64_t)g->rows * g->across, MEM_SHARED);
  g->scores = add_local(g, "s", DT_F32, attention_own(g, g->tile.keys), MEM_REGS);
  g->out = add_local(g, "o", DT_F32, attention_own(g, g->v.padded), MEM_REGS);
  g->max = add_local(g, "m", DT_F32, attention_own_rows(g), MEM_REGS);
  g->sum = add_local(g, "l", DT_F32, attention_own_rows(g), MEM_REGS);
}

static Step *emit(GpuAttn *g) {
  Attn *const c = &g->c;
  const Attention *const a = c->at;
  const Expr *const blocks = ex_ceildiv(c->p, a->rows, g->rows), *heads = num(c, 1);
  for (int d = 0; d < a->x->rank - 2; d++) heads = ex_mul(c->p, heads, a->x->dims[d]);
  const Expr *const x = var(c, "x", ex_mul(c->p, heads, blocks));
  attn_bind_batch(c, ex_floordiv(c->p, x, blocks));
  g->first = times(c, ex_floormod(c->p, x, blocks), g->rows);
  describe(g);
  add_locals(g);
  Stmt *const body = loop(c, FOR_BLOCK, x, block(g));
  c->b.k->flops = ex_mul(c->p, ex_mul(c->p, heads, ex_mul(c->p, a->rows, a->keys)),
                         num(c, 2 * (a->dk + a->dv)));
  if (!c->b.x.bad) return kb_finish(&c->b, body);
  diag_internal(c->l->m->diag, c->b.loc, "lower: the scores of attention cannot be read");
  return NULL;
}

Step *lower_gpu_attention(Lower *l, const Value *root, const Value *anchor, const Place *to,
                          const Attention *a) {
  GpuAttn g;
  memset(&g, 0, sizeof g);
  g.c = (Attn){.l = l, .p = l->p, .at = a, .root = root, .anchor = anchor, .to = to};
  kb_begin(&g.c.b, l, root, "attention");
  if (!gpu_attention_choose(&g)) {
    kb_drop(&g.c.b);
    return NULL;
  }
  g.rows = g.tile.warps * g.tile.fragments * ATTENTION_ROWS_OWN;
  g.across = gpu_attention_across(g.kind);
  return emit(&g);
}
