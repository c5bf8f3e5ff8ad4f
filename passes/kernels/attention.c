/* Attention without a matrix of scores (FlashAttention, Dao et al. 2022): a block of queries passes
 * over blocks of keys; the row's maximum, its sum of exponentials and its output are kept up to
 * date with each block (online softmax, Milakov and Gimelshein 2018).
 *
 *   parallel p over (batch, block of queries)
 *     copy the queries
 *     for blocks of keys
 *       scores = tiles of q · kᵀ                 keys packed once per head into panels
 *       for rows: scores = mask(scores); m' = max(m, scores); c = exp(m - m')
 *                 scores = exp(scores - m'); l = l*c + sum(scores)
 *       out = out*c + tiles of scores · v
 *     for rows: store epilogue(out / l)
 *
 * While a row has only seen scores of -inf, the maximum that is subtracted is 0, so that its
 * exponentials are 0 and not NaN; at the end 0/0 gives what the softmax of such a row is. NaN and
 * +inf make the row's sum NaN. Tiles run over whole blocks of scratch memory, rows and keys behind
 * the last included; they are not stored. */
#include <math.h>
#include <string.h>

#include "passes/build/nest.h"
#include "passes/cost/machine_model.h"
#include "passes/kernels/attention_kernel.h"
#include "passes/tiles/own_loops.h"

/* ---- tiles ---- */

/* body(tile) for tiles of `rows` rows over the block: exact where its size is known, else whole
 * tiles. */
typedef Stmt *(*TileFn)(Attn *c, const void *user, const Expr *row, int rows);
static Stmt *row_tiles(Attn *c, const Expr *count, int rows, TileFn body, const void *user) {
  int64_t n;
  StmtList out = {0};
  if (!expr_is_const(count, &n)) {
    const Expr *w = var(c, "w", ex_ceildiv(c->p, count, rows));
    return loop(c, FOR_SERIAL, w, body(c, user, times(c, w, rows), rows));
  }
  const Expr *w = var(c, "w", num(c, n / rows));
  if (n / rows) stmt_add(&out, loop(c, FOR_SERIAL, w, body(c, user, times(c, w, rows), rows)));
  if (n % rows) stmt_add(&out, body(c, user, num(c, n / rows * rows), (int)(n % rows)));
  return out.first;
}

static int tile_local(Attn *c, const char *name, int64_t count) {
  return kernel_add_local(c->l->mod, c->b.k,
                          (Local){.name = name, .dtype = DT_F32, .count = count});
}

/* local[i*width + j] = value, for all of it */
typedef struct Cell {
  const Expr *i, *j, *at;
} Cell;
static Cell new_cell(Attn *c, int rows, int width) {
  const Expr *i = var(c, "r", num(c, rows)), *j = var(c, "j", num(c, width));
  return (Cell){i, j, plus(c, times(c, i, width), j)};
}
static Stmt *over_cell(Attn *c, const Cell *x, Stmt *s) {
  return loop(c, FOR_UNROLL, x->i, loop(c, FOR_VECTOR, x->j, s));
}
static const Expr *in_block(const Attn *c, const Expr *row, int64_t width, const Expr *col) {
  (void)c;
  return plus(c, times(c, row, width), col);
}

/* Scores of one panel: its number among those of the head, its first column in the block. */
typedef struct Panel {
  const Span *rows;
  const Expr *number, *col;
  int vectors;
} Panel;

static Stmt *score_tile(Attn *c, const void *user, const Expr *row, int rows) {
  const Panel *pn = user;
  const int width = pn->vectors * c->lanes, t = tile_local(c, "t", (int64_t)rows * width);
  const Expr *d = var(c, "k", num(c, c->at->dk));
  StmtList out = {0};
  stmt_add(&out, stmt_local(arena(c), t));
  Cell x = new_cell(c, rows, width);
  stmt_add(&out, over_cell(c, &x, stmt_set(arena(c), t, x.at, f32(c, 0))));
  x = new_cell(c, rows, width);
  const Expr *fma = ex_op(c->p, EX_fma, attn_query(c, pn->rows->first, plus(c, row, x.i), d),
                          attn_key(c, pn->number, d, x.j), ex_local(c->p, DT_F32, t, x.at));
  stmt_add(&out, loop(c, FOR_SERIAL, d, over_cell(c, &x, stmt_set(arena(c), t, x.at, fma))));
  x = new_cell(c, rows, width);
  const Expr *at = in_block(c, plus(c, row, x.i), c->width, plus(c, pn->col, x.j));
  stmt_add(&out, over_cell(c, &x, stmt_store(arena(c), c->s, at, ex_local(c->p, DT_F32, t, x.at))));
  return out.first;
}

/* Raw scores of the block's rows for the keys. */
static Stmt *scores(Attn *c, const Span *rows, const Span *keys) {
  const int width = panel_width(c);
  const Expr *base = ex_floordiv(c->p, keys->first, num(c, width));
  int64_t n;
  StmtList out = {0};
  const bool fixed = expr_is_const(keys->count, &n);
  const Expr *full = fixed ? num(c, n / width) : ex_ceildiv(c->p, keys->count, width);
  const Expr *w = var(c, "w", full);
  Panel pn = {rows, plus(c, base, w), times(c, w, width), c->scores_tile.vectors};
  if (!fixed || n / width)
    stmt_add(&out, loop(c, FOR_SERIAL, w,
                        row_tiles(c, rows->count, c->scores_tile.rows, score_tile, &pn)));
  if (!fixed || n % width == 0) return out.first;
  pn = (Panel){rows, plus(c, base, full), num(c, n / width * width),
               (int)((n % width + c->lanes - 1) / c->lanes)};
  stmt_add(&out, row_tiles(c, rows->count, c->scores_tile.rows, score_tile, &pn));
  return out.first;
}

/* Stores column `col` of a row of the block; the row's factor stands in `sum`. */
static Stmt *store(Attn *c, const Expr *first, const Expr *r, const Expr *col, const Expr *y) {
  return attn_store(c, plus(c, first, r), col, y, load(c, c->sum, r));
}

typedef struct Values {
  const Span *rows, *keys;
  const Expr *col;
  int vectors;
} Values;

static Stmt *value_tile(Attn *c, const void *user, const Expr *row, int rows) {
  const Values *v = user;
  const int width = v->vectors * c->lanes, t = tile_local(c, "t", (int64_t)rows * width);
  const Expr *k = var(c, "k", v->keys->count);
  StmtList out = {0};
  stmt_add(&out, stmt_local(arena(c), t));
  Cell x = new_cell(c, rows, width);
  const Expr *at = in_block(c, plus(c, row, x.i), c->dv, plus(c, v->col, x.j)), *old = f32(c, 0);
  if (c->online) old = ex_mul(c->p, load(c, c->acc, at), load(c, c->c, plus(c, row, x.i)));
  stmt_add(&out, over_cell(c, &x, stmt_set(arena(c), t, x.at, old)));
  x = new_cell(c, rows, width);
  const Expr *fma = ex_op(c->p, EX_fma, load(c, c->s, in_block(c, plus(c, row, x.i), c->width, k)),
                          attn_value(c, plus(c, v->keys->first, k), plus(c, v->col, x.j)),
                          ex_local(c->p, DT_F32, t, x.at));
  stmt_add(&out, loop(c, FOR_SERIAL, k, over_cell(c, &x, stmt_set(arena(c), t, x.at, fma))));
  x = new_cell(c, rows, width);
  const Expr *r = plus(c, row, x.i), *col = plus(c, v->col, x.j);
  const Expr *sum = ex_local(c->p, DT_F32, t, x.at);
  stmt_add(&out,
           over_cell(c, &x,
                     c->stored ? store(c, v->rows->first, r, col, sum)
                               : stmt_store(arena(c), c->acc, in_block(c, r, c->dv, col), sum)));
  return out.first;
}

static Stmt *weighted_values(Attn *c, const Span *rows, const Span *keys) {
  const int width = c->values_tile.vectors * c->lanes;
  const int64_t full = c->dv / width, rest = c->dv % width;
  const Expr *w = var(c, "w", num(c, full));
  StmtList out = {0};
  Values v = {rows, keys, times(c, w, width), c->values_tile.vectors};
  if (full)
    stmt_add(&out, loop(c, FOR_SERIAL, w,
                        row_tiles(c, rows->count, c->values_tile.rows, value_tile, &v)));
  v = (Values){rows, keys, num(c, full * width), (int)(rest / c->lanes)};
  if (rest) stmt_add(&out, row_tiles(c, rows->count, c->values_tile.rows, value_tile, &v));
  return out.first;
}

/* ---- softmax ---- */

/* One row of the block: masked in place; its maximum so far, and the factor of what came before. */
static Stmt *max_row(Attn *c, const Expr *first, const Expr *r, const Span *keys) {
  Arena *a = arena(c);
  const int max = tile_local(c, "m", 1), x = tile_local(c, "x", 1);
  const Expr *zero = num(c, 0), *j = var(c, "j", keys->count), *at = in_block(c, r, c->width, j);
  const Expr *e = attn_masked(c, plus(c, first, r), plus(c, keys->first, j), load(c, c->s, at));
  const Expr *own = ex_local(c->p, DT_F32, x, zero), *m = ex_local(c->p, DT_F32, max, zero);
  StmtList out = {0}, body = {0};
  stmt_add(&out, stmt_local(a, max));
  stmt_add(&out, stmt_set(a, max, zero, c->online ? load(c, c->m, r) : f32(c, -INFINITY)));
  stmt_add(&body, stmt_local(a, x));
  stmt_add(&body, stmt_set(a, x, zero, e));
  stmt_add(&body, stmt_store(a, c->s, at, own));
  stmt_add(&body, stmt_acc(a, max, zero, RED_MAX, own));
  stmt_add(&out, loop(c, FOR_VECTOR, j, body.first));
  if (c->online) {
    const Expr *change = ex_sub(c->p, load(c, c->m, r), attn_base(c, m));
    stmt_add(&out, stmt_store(a, c->c, r, ex_op(c->p, EX_exp, change, NULL, NULL)));
  }
  stmt_add(&out, stmt_store(a, c->m, r, m));
  return out.first;
}

/* Exponentials in place of its scores, and their sum. */
static Stmt *exp_row(Attn *c, const Expr *r, const Span *keys) {
  Arena *a = arena(c);
  const int base = tile_local(c, "b", 1), sum = tile_local(c, "l", 1), x = tile_local(c, "x", 1);
  const Expr *zero = num(c, 0), *j = var(c, "j", keys->count), *at = in_block(c, r, c->width, j);
  const Expr *own = ex_local(c->p, DT_F32, x, zero), *l = ex_local(c->p, DT_F32, sum, zero);
  const Expr *e = ex_sub(c->p, load(c, c->s, at), ex_local(c->p, DT_F32, base, zero));
  StmtList out = {0}, body = {0};
  stmt_add(&out, stmt_local(a, base));
  stmt_add(&out, stmt_set(a, base, zero, attn_base(c, load(c, c->m, r))));
  stmt_add(&out, stmt_local(a, sum));
  stmt_add(&out, stmt_set(a, sum, zero, f32(c, 0)));
  stmt_add(&body, stmt_local(a, x));
  stmt_add(&body, stmt_set(a, x, zero, ex_op(c->p, EX_exp, e, NULL, NULL)));
  stmt_add(&body, stmt_store(a, c->s, at, own));
  stmt_add(&body, stmt_acc(a, sum, zero, RED_SUM, own));
  stmt_add(&out, loop(c, FOR_VECTOR, j, body.first));
  if (c->online) l = ex_op(c->p, EX_fma, load(c, c->sum, r), load(c, c->c, r), l);
  stmt_add(&out, stmt_store(a, c->sum, r, c->online ? l : attn_inverse(c, l)));
  return out.first;
}

/* A few rows at a time, which stay in the first level: no row waits for its own maximum. */
static Stmt *softmax_rows(Attn *c, const Span *rows, const Span *keys) {
  enum { GROUP = 8 };
  const Expr *g = var(c, "g", ex_ceildiv(c->p, rows->count, GROUP)), *from = times(c, g, GROUP);
  const Expr *n = ex_min(c->p, num(c, GROUP), ex_sub(c->p, rows->count, from));
  const Expr *r0 = var(c, "r", n), *r1 = var(c, "r", n);
  Stmt *max = max_row(c, rows->first, plus(c, from, r0), keys);
  Stmt *exps = exp_row(c, plus(c, from, r1), keys);
  StmtList out = {0};
  stmt_add(&out, loop(c, FOR_SERIAL, r0, max));
  stmt_add(&out, loop(c, FOR_SERIAL, r1, exps));
  return loop(c, FOR_SERIAL, g, out.first);
}

/* ---- a block of queries ---- */

static Stmt *key_block(Attn *c, const Span *rows, const Span *keys) {
  const Expr *skip =
      c->skips && c->online ? attention_hidden(&c->b.x, c->at, c->batch, rows, keys) : NULL;
  StmtList out = {0};
  stmt_add(&out, scores(c, rows, keys));
  stmt_add(&out, softmax_rows(c, rows, keys));
  stmt_add(&out, weighted_values(c, rows, keys));
  if (!skip) return out.first;
  return stmt_if(arena(c), ex_op(c->p, EX_not, skip, NULL, NULL), out.first, NULL);
}

static Stmt *key_blocks(Attn *c, const Span *rows) {
  int64_t n;
  const Expr *all = c->at->keys;
  const Span only = {num(c, 0), all};
  if (!c->online) return key_block(c, rows, &only);
  if (!expr_is_const(all, &n)) {
    const Expr *kb = var(c, "b", ex_ceildiv(c->p, all, c->keys)), *first = times(c, kb, c->keys);
    const Span s = {first, ex_min(c->p, num(c, c->keys), ex_sub(c->p, all, first))};
    return loop(c, FOR_SERIAL, kb, key_block(c, rows, &s));
  }
  StmtList out = {0};
  const Expr *kb = var(c, "b", num(c, n / c->keys));
  const Span full = {times(c, kb, c->keys), num(c, c->keys)};
  const Span rest = {num(c, n / c->keys * c->keys), num(c, n % c->keys)};
  stmt_add(&out, loop(c, FOR_SERIAL, kb, key_block(c, rows, &full)));
  if (n % c->keys) stmt_add(&out, key_block(c, rows, &rest));
  return out.first;
}

/* Queries of the block as [row][dk]; behind the last one of the head, that again. */
static Stmt *copy_queries(Attn *c, const Span *rows) {
  const Attention *a = c->at;
  int64_t n;
  const bool fixed = expr_is_const(rows->count, &n);
  const Expr *count =
      fixed ? rows->count
            : times(c, ex_ceildiv(c->p, rows->count, c->scores_tile.rows), c->scores_tile.rows);
  const Expr *r = var(c, "r", count), *d = var(c, "k", num(c, a->dk)),
             *row = plus(c, rows->first, r);
  if (!fixed) row = ex_min(c->p, row, ex_sub(c->p, a->rows, num(c, 1)));
  const Expr *e = attn_query_at(c, row, d);
  Stmt *s = stmt_store(arena(c), c->q, in_block(c, r, a->dk, d), e);
  return loop(c, FOR_SERIAL, r, loop(c, FOR_VECTOR, d, s));
}

static Stmt *fill(Attn *c, int scratch, int64_t count, double v) {
  const Expr *z = var(c, "z", num(c, count));
  return loop(c, FOR_VECTOR, z, stmt_store(arena(c), scratch, z, f32(c, v)));
}

static Stmt *store_rows(Attn *c, const Span *rows) {
  const Expr *r = var(c, "r", rows->count), *d = var(c, "j", num(c, c->at->dv));
  Stmt *s = store(c, rows->first, r, d, load(c, c->acc, in_block(c, r, c->dv, d)));
  StmtList out = {0};
  if (c->online)
    stmt_add(&out, stmt_store(arena(c), c->sum, r, attn_inverse(c, load(c, c->sum, r))));
  stmt_add(&out, loop(c, FOR_VECTOR, d, s));
  return loop(c, FOR_SERIAL, r, out.first);
}

static Stmt *query_block(Attn *c, const Expr *first, const Expr *count) {
  const Span rows = {first, count};
  StmtList out = {0};
  if (!c->q_direct) stmt_add(&out, copy_queries(c, &rows));
  if (c->online) {
    stmt_add(&out, fill(c, c->m, c->room, -INFINITY));
    stmt_add(&out, fill(c, c->sum, c->room, 0));
    stmt_add(&out, fill(c, c->c, c->room, 0));
    stmt_add(&out, fill(c, c->acc, c->room * c->dv, 0));
  }
  stmt_add(&out, key_blocks(c, &rows));
  if (!c->stored) stmt_add(&out, store_rows(c, &rows));
  return out.first;
}

static Stmt *query_blocks(Attn *c, const Expr *block) {
  int64_t n;
  const Expr *first = times(c, block, c->rows);
  if (!expr_is_const(c->at->rows, &n))
    return query_block(c, first, ex_min(c->p, num(c, c->rows), ex_sub(c->p, c->at->rows, first)));
  const int64_t full = n / c->rows, rest = n % c->rows;
  Stmt *all = full ? query_block(c, first, num(c, c->rows)) : NULL;
  if (!rest) return all;
  Stmt *part = query_block(c, num(c, full * c->rows), num(c, rest));
  return full ? stmt_if(arena(c), ex_lt(c->p, block, num(c, full)), all, part) : part;
}

/* ---- sizes ---- */

/* Rows and keys of a block and the tiles of both products, by the plan; what follows from them. */
static void take_sizes(Attn *c) {
  enum { LINE = 16 };
  const Attention *a = c->at;
  c->skips = attention_hides(&c->b.x, a);
  PlanLoops l = plan_loops(c->anchor->def->plan, 0);
  if (!l.queries) l = attention_choose_loops(c->l->c, a, c->skips);
  c->rows = l.queries;
  c->keys = l.keys;
  c->scores_tile = (Tile){l.rows, l.vectors};
  c->values_tile = (Tile){l.values_rows, l.values_vectors};
  c->online = attention_is_online(a, &l);
  c->width = whole(c->keys, panel_width(c));
  if (c->width * 4 % 1024 == 0) c->width += LINE; /* rows in different sets of the first level */
  c->dv = whole(a->dv, c->lanes);
  c->room = whole(c->rows, c->lanes);
}

static void scratch_params(Attn *c) {
  const struct {
    int *id;
    int64_t count;
    const char *name;
  } all[] = {{&c->q, c->room * c->at->dk, "q"},
             {&c->s, c->room * c->width, "s"},
             {&c->acc, c->room * c->dv, "o"},
             {&c->sum, c->room, "l"},
             {&c->m, c->room, "m"},
             {&c->c, c->room, "c"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    *all[i].id = kb_scratch(&c->b, DT_F32, num(c, all[i].count), all[i].name);
}

/* Whole tiles of known rows with a short epilogue. */
static bool stores_at_once(Attn *c) {
  enum { HEAVY = 14 };
  const Attention *a = c->at;
  if (c->online || a->rows->op != EX_CONST || a->dv != c->dv) return false;
  const Expr *r = var(c, "r", a->rows), *d = var(c, "j", num(c, a->dv));
  const Stmt *s = store(c, num(c, 0), r, d, ex_hole(c->p, DT_F32, 1));
  return expr_cost(s->access.value) <= HEAVY;
}

Step *lower_attention(Lower *l, const Value *root, const Value *anchor, const Place *to,
                      const Attention *a) {
  Attn c;
  memset(&c, 0, sizeof c);
  c.l = l;
  c.p = l->p;
  c.at = a;
  c.root = root;
  c.anchor = anchor;
  c.to = to;
  c.lanes = target_lanes(l->c->target, 32);
  kb_begin(&c.b, l, root, "attention");
  take_sizes(&c);
  Step *steps = NULL;
  attn_operands(&c, &steps);
  scratch_params(&c);
  const Expr *blocks = ex_ceildiv(c.p, a->rows, c.rows), *heads = attention_heads(c.p, a);
  const Expr *total = ex_mul(c.p, heads, blocks);
  const Expr *par = var(&c, "p", total);
  attn_bind_batch(&c, ex_floordiv(c.p, par, blocks));
  c.stored = stores_at_once(&c);
  Stmt *body = query_blocks(&c, ex_floormod(c.p, par, blocks));
  const MachineModel m = machine_model(l->c->target, DT_F32, l->mod->max_threads);
  const double cycles = model_macs(&m, attention_work(c.p, a));
  kb_estimate(
      &c.b, "attention",
      attention_cycles(l->c->target, expr_extent_guess(c.p, heads), expr_extent_guess(c.p, a->rows),
                       expr_extent_guess(c.p, a->keys), (double)a->dk, (double)a->dv));
  c.b.k->flops = ex_mul(c.p, ex_mul(c.p, heads, ex_mul(c.p, a->rows, a->keys)),
                        num(&c, 2 * (int64_t)(a->dk + a->dv)));
  if (c.b.x.bad) {
    diag_internal(l->m->diag, c.b.loc, "lower: the scores of attention cannot be read");
    return NULL;
  }
  Step *s = kb_finish(&c.b, nest_parallel(&c.b, par, body, cycles));
  step_append(&steps, s);
  return steps;
}
