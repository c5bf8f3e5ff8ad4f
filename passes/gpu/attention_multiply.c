/* The two products of attention. A warp has whole rows: of tensor cores a lane has what mma.sync
 * gives it (ir/loop/mma.h); without, eight lanes share a row, and four elements of k are read
 * together. */
#include "ir/loop/mma.h"
#include "passes/gpu/attention.h"

enum { FOUR = 4 };

int attention_width(const GpuAttn *g, bool result) {
  return g->kind != TILE_F32 ? 2 : result ? FOUR : 1;
}

static int rows_apart(const GpuAttn *g) { return ATTENTION_LANES / g->across; }

int attention_own_rows(const GpuAttn *g) {
  return g->tile.fragments * ATTENTION_ROWS_OWN / rows_apart(g);
}

int64_t attention_own(const GpuAttn *g, int64_t columns) {
  return g->tile.fragments * ATTENTION_ROWS_OWN * columns / ATTENTION_LANES;
}

AttentionCell attention_cell(const GpuAttn *g, const AttentionThreads *t, int64_t columns,
                             bool result) {
  const Attn *const c = &g->c;
  const int width = attention_width(g, result), apart = rows_apart(g),
            of_fragment = ATTENTION_ROWS_OWN / apart;
  const int64_t groups = columns / (g->across * width);
  AttentionCell x = {.m = var(c, "m", num(c, g->tile.fragments)),
                     .n = var(c, "n", num(c, groups)),
                     .i = var(c, "i", num(c, of_fragment)),
                     .v = var(c, "v", num(c, width))};
  const Expr *const across = num(c, g->across);
  x.own = plus(c, times(c, x.m, of_fragment), x.i);
  x.row = plus(c, times(c, t->warp, (int64_t)g->tile.fragments * ATTENTION_ROWS_OWN),
               times(c, x.m, ATTENTION_ROWS_OWN));
  x.row = plus(c, x.row, plus(c, times(c, x.i, apart), ex_floordiv(c->p, t->lane, across)));
  x.start = plus(c, times(c, x.n, (int64_t)g->across * width),
                 times(c, ex_floormod(c->p, t->lane, across), width));
  x.at = plus(c, times(c, x.m, groups), x.n);
  x.at = plus(c, times(c, x.at, of_fragment), x.i);
  x.at = plus(c, times(c, x.at, width), x.v);
  return x;
}

/* ---- fragments ---- */

static const Expr *wide(const GpuAttn *g, int local, const Expr *at) {
  return ex_cast(g->c.p, DT_F32, ex_local(g->c.p, g->type, local, at));
}

static Stmt *fragments(GpuAttn *g, const AttentionCell *x, int sums, const Expr *k, const Expr *a,
                       const Expr *b) {
  Stmt *s = stmt_acc(arena(&g->c), sums, x->at, RED_SUM, ex_mul(g->c.p, a, b));
  const Expr *const nest[] = {k, x->v, x->i, x->n, x->m};
  for (size_t i = 0; i < sizeof nest / sizeof *nest; i++) s = loop(&g->c, FOR_MATRIX, nest[i], s);
  return s;
}

/* ---- plain threads ---- */

/* Four elements of a line that follow each other, into a local. */
static Stmt *read_four(GpuAttn *g, int local, const Expr *to, const Expr *v, int from,
                       const Expr *at) {
  Stmt *const set =
      stmt_set(arena(&g->c), local, plus(&g->c, to, v), ex_local(g->c.p, DT_F32, from, at));
  return loop(&g->c, FOR_VECTOR, v, set);
}

static int registers(GpuAttn *g, const char *name, int64_t count) {
  return kernel_add_local(g->c.l->mod, g->c.b.k,
                          (Local){.name = name, .dtype = DT_F32, .count = count});
}

static const Expr *weight_at(const GpuAttn *g, const Expr *row, const Expr *key) {
  return plus(&g->c, times(&g->c, row, gpu_attention_pitch(g->kind, g->tile.keys, false)), key);
}

/* The thread's rows of four elements of k, of queries or of weights. */
static Stmt *read_rows(GpuAttn *g, const AttentionThreads *t, int local, bool result,
                       const Expr *k) {
  const Attn *const c = &g->c;
  const AttentionCell x = attention_cell(g, t, g->across * attention_width(g, result), result);
  const Expr *const v = var(c, "v", num(c, FOUR)), *const e = plus(c, times(c, k, FOUR), v);
  const Expr *const at =
      result ? weight_at(g, x.row, e) : attention_element(g, &g->q, num(c, 0), x.row, e);
  Stmt *const s =
      read_four(g, local, times(c, x.own, FOUR), v, result ? g->weights : g->q.shared, at);
  return loop(c, FOR_UNROLL, x.m, loop(c, FOR_UNROLL, x.i, s));
}

/* sums += rows · columns */
static Stmt *add_products(GpuAttn *g, const AttentionCell *x, int sums, const Expr *row,
                          const Expr *column) {
  const Attn *const c = &g->c;
  Stmt *s = stmt_acc(arena(c), sums, x->at, RED_SUM, ex_mul(c->p, row, column));
  const Expr *const nest[] = {x->v, x->n, x->i, x->m};
  for (size_t i = 0; i < sizeof nest / sizeof *nest; i++) s = loop(c, FOR_UNROLL, nest[i], s);
  return s;
}

static Stmt *plain_scores(GpuAttn *g, const AttentionThreads *t, const Expr *stage) {
  const Attn *const c = &g->c;
  const Expr *const k = var(c, "k", num(c, g->k.padded / FOUR));
  const Expr *const v = var(c, "v", num(c, FOUR)), *const e = var(c, "e", num(c, FOUR));
  const AttentionCell x = attention_cell(g, t, g->tile.keys, false),
                      y = attention_cell(g, t, g->tile.keys, false);
  const int row = registers(g, "row", (int64_t)attention_own_rows(g) * FOUR);
  const int column = registers(g, "column", (int64_t)g->tile.keys / g->across * FOUR);
  StmtList l = {0};
  stmt_add(&l, stmt_local(arena(c), row));
  stmt_add(&l, stmt_local(arena(c), column));
  stmt_add(&l, read_rows(g, t, row, false, k));
  const Expr *const at = attention_element(g, &g->k, stage, x.start, plus(c, times(c, k, FOUR), v));
  stmt_add(&l,
           loop(c, FOR_UNROLL, x.n, read_four(g, column, times(c, x.n, FOUR), v, g->k.shared, at)));
  Stmt *const products =
      add_products(g, &y, g->scores, ex_local(c->p, DT_F32, row, plus(c, times(c, y.own, FOUR), e)),
                   ex_local(c->p, DT_F32, column, plus(c, times(c, y.n, FOUR), e)));
  stmt_add(&l, loop(c, FOR_UNROLL, e, products));
  return loop(c, FOR_SERIAL, k, l.first);
}

/* A key at a time, of four whose weights were read. */
static Stmt *plain_values(GpuAttn *g, const AttentionThreads *t, const Expr *stage) {
  const Attn *const c = &g->c;
  const Expr *const k = var(c, "k", num(c, g->tile.keys / FOUR)), *const e =
                                                                      var(c, "e", num(c, FOUR));
  const AttentionCell x = attention_cell(g, t, g->v.padded, true),
                      y = attention_cell(g, t, g->v.padded, true);
  const int row = registers(g, "row", (int64_t)attention_own_rows(g) * FOUR);
  const int column = registers(g, "column", g->v.padded / g->across);
  StmtList l = {0}, key = {0};
  stmt_add(&l, stmt_local(arena(c), row));
  stmt_add(&l, stmt_local(arena(c), column));
  stmt_add(&l, read_rows(g, t, row, true, k));
  const Expr *const at =
      attention_element(g, &g->v, stage, plus(c, times(c, k, FOUR), e), plus(c, x.start, x.v));
  stmt_add(&key, loop(c, FOR_UNROLL, x.n,
                      read_four(g, column, times(c, x.n, FOUR), x.v, g->v.shared, at)));
  stmt_add(&key, add_products(g, &y, g->out,
                              ex_local(c->p, DT_F32, row, plus(c, times(c, y.own, FOUR), e)),
                              ex_local(c->p, DT_F32, column, plus(c, times(c, y.n, FOUR), y.v))));
  stmt_add(&l, loop(c, FOR_UNROLL, e, key.first));
  return loop(c, FOR_SERIAL, k, l.first);
}

/* ---- both ---- */

Stmt *attention_scores(GpuAttn *g, const AttentionThreads *t, const Expr *stage) {
  const Attn *const c = &g->c;
  if (g->kind == TILE_F32) return plain_scores(g, t, stage);
  const AttentionCell x = attention_cell(g, t, g->tile.keys, false);
  const Expr *const k = var(c, "k", num(c, g->k.padded));
  const Expr *const a = attention_element(g, &g->q, num(c, 0), x.row, k);
  const Expr *const b = attention_element(g, &g->k, stage, plus(c, x.start, x.v), k);
  return fragments(g, &x, g->scores, k, wide(g, g->q.shared, a), wide(g, g->k.shared, b));
}

Stmt *attention_values(GpuAttn *g, const AttentionThreads *t, const Expr *stage) {
  const Attn *const c = &g->c;
  if (g->kind == TILE_F32) return plain_values(g, t, stage);
  const AttentionCell x = attention_cell(g, t, g->v.padded, true);
  const Expr *const k = var(c, "k", num(c, g->tile.keys));
  const Expr *const b = attention_element(g, &g->v, stage, k, plus(c, x.start, x.v));
  return fragments(g, &x, g->out, k, wide(g, g->weights, weight_at(g, x.row, k)),
                   wide(g, g->v.shared, b));
}
