/* Loops of a tiled contraction:
 *
 *   parallel p over (outer, block of rows, panel of columns)
 *     for tiles of rows in the block
 *       tile = 0;  for k…: unroll rows: tile[row] += A[row, k] · B[panel, k, lanes]
 *       unroll rows: store epilogue(tile[row])
 *
 * Long sums are blocked: the outer loops of k stand outside the tiles, which pass through a scratch
 * buffer, so that a block of the panel is used by all tiles while it is in the cache. Remainders in
 * rows and columns are tiles of their own; symbolic remainders go row by row and through a stack
 * copy whose lanes are cut at the end. */
#include "passes/build/nest.h"
#include "passes/cost/machine_model.h"
#include "passes/kernels/contract_block.h"
#include "passes/kernels/stored_weights.h"

typedef struct Panel {
  const Expr *col;  /* first column */
  const Expr *cols; /* valid columns, constant or symbolic */
  int vectors;
  const Expr *b_base; /* offset of the packed panel */
  int b_width;        /* lanes from one row of the packed panel to the next */
  int sums;           /* scratch parameter of partial sums, or -1 */
  const Expr *group;  /* how many panels, from this one on, are done together; NULL: one */
  const Expr *member; /* which of them this is */
} Panel;

/* Where a tile stands: its first row, its number among the tiles of the block (for prefetching, or
 * NULL), and the first row's place among the partial sums. */
typedef struct Spot {
  const Expr *h, *w, *tile, *sum;
  int64_t tiles; /* how many values `tile` has; 0: not known */
  int th, tw;
} Spot;

static Arena *arena(const Contract *c) { return c->l->m->arena; }
static const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }
static const Expr *var(const Contract *c, const char *stem, int64_t n) {
  return ex_var(c->p, stem, num(c, n));
}
static int width_of(const Contract *c, const Panel *pn) { return pn->vectors * c->lanes; }
static const Expr *zero(const Contract *c) { return ex_const(c->p, c->types->acc, 0); }
static const Expr *local_of(const Contract *c, int local, const Expr *at) {
  return ex_local(c->p, c->types->acc, local, at);
}
/* A register tile or a stack copy of `count` sums. */
static int sums_local(Contract *c, const char *name, int64_t count, bool stack) {
  return kernel_add_local(c->l->mod, c->b.k,
                          (Local){.name = name,
                                  .dtype = c->types->acc,
                                  .count = count,
                                  .memory = stack ? MEM_STACK : MEM_REGS});
}

static const Expr *k_linear(const Contract *c) {
  const Expr *t = num(c, 0);
  for (int i = 0; i < c->n_k; i++) t = ex_add(c->p, ex_mul(c->p, t, c->k_extent[i]), c->k[i]);
  return t;
}

/* Number and count of steps of k of loops [from, to). */
static const Expr *loops_linear(const Contract *c, int from, int to, const Expr **count) {
  const Expr *t = num(c, 0), *n = num(c, 1);
  for (int i = from; i < to; i++) {
    t = ex_add(c->p, ex_mul(c->p, t, c->loop_extent[i]), c->loop[i]);
    n = ex_mul(c->p, n, c->loop_extent[i]);
  }
  *count = n;
  return t;
}

/* ---- one step of k ---- */

static StoredPanel stored_panel(const Panel *pn) {
  return (StoredPanel){.col = pn->col, .width = pn->b_width};
}

/* From the block of B that was unpacked into scratch. */
static const Expr *unpacked_value(Contract *c, const Panel *pn, const Expr *lane) {
  const Expr *n, *step = c->hoisted ? loops_linear(c, c->hoisted, c->n_loops, &n) : k_linear(c);
  const Expr *at = ex_add(c->p, ex_mul(c->p, step, num(c, pn->b_width)), lane);
  return ex_load(c->p, DT_F32, c->unpacked, at, NULL);
}

static const Expr *b_value(Contract *c, const Panel *pn, const Expr *lane) {
  if (c->stored) return unpacked_value(c, pn, lane);
  if (c->b_buffer < 0) return c->b_direct(c, ex_add(c->p, pn->col, lane));
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *row = ex_mul(c->p, k_linear(c), num(c, pn->b_width));
  const Expr *at = ex_add(c->p, ex_add(c->p, pn->b_base, row), lane);
  return contract_operand_b(c, ex_load(c->p, c->types->panel, id, at, NULL));
}

/* Element i of the current step of k. */
static const Expr *a_element(Contract *c, const Expr *h, const Expr *w, int i) {
  const Expr **k = &c->k[c->n_k - 1], *step = *k;
  *k = contract_element(c, i);
  const Expr *element = c->a(c, h, w);
  *k = step;
  return element;
}

static const Expr *a_value(Contract *c, const Expr *h, const Expr *w) {
  const Expr *element[MAX_K_STEP];
  for (int i = 0; i < c->types->k_step; i++) element[i] = a_element(c, h, w, i);
  return contract_group(c, c->types->a, element);
}

/* The same bits as dot2_bf16, of elements of A that were converted once, and ones of B that are here. */
static const Expr *multiply_add_split(Contract *c, const Panel *pn, const Expr *h, const Expr *w,
                                      const Expr *lane, const Expr *sum) {
  const Expr *b = b_value(c, pn, lane);
  for (int i = c->types->k_step - 1; i >= 0; i--)
    sum = ex_op(c->p, c->types->mac, a_element(c, h, w, i), ex_bf16_element(c->p, b, i), sum);
  return sum;
}

/* sum plus the product of row (h, w) of A and column `lane` of the panel, at the current k. */
static const Expr *multiply_add(Contract *c, const Panel *pn, const Expr *h, const Expr *w,
                                const Expr *lane, const Expr *sum) {
  if (c->types->split_a) return multiply_add_split(c, pn, h, w, lane, sum);
  const Expr *a = a_value(c, h, w), *b = b_value(c, pn, lane);
  return c->types->mac_ba ? ex_op(c->p, c->types->mac, b, a, sum)
                          : ex_op(c->p, c->types->mac, a, b, sum);
}

/* Row number i of a tile. */
static void tile_row(const Contract *c, const Spot *s, const Expr *i, const Expr **rh,
                     const Expr **rw) {
  *rh = s->th > 1 ? ex_add(c->p, s->h, ex_floordiv(c->p, i, num(c, s->tw))) : s->h;
  *rw = ex_add(c->p, s->w, s->th > 1 ? ex_floormod(c->p, i, num(c, s->tw)) : i);
}

/* Where the block of B lies that comes after block `outer` of the panel: the same block of the next
 * member of a group, then the next block of its first member. */
static const Expr *next_block(const Contract *c, const Panel *pn, const Expr *outer,
                              const Expr *blocks, const Expr *steps) {
  const Expr *size = ex_mul(c->p, steps, num(c, pn->b_width));
  const Expr *further = ex_mul(c->p, ex_add(c->p, outer, num(c, 1)), size);
  if (!pn->member) return ex_add(c->p, pn->b_base, further);
  const Expr *panel = ex_mul(c->p, contract_k_total(c), num(c, pn->b_width));
  const Expr *back = ex_mul(c->p, pn->member, panel);
  const Expr *next = ex_select(c->p, ex_lt(c->p, ex_add(c->p, pn->member, num(c, 1)), pn->group),
                               ex_add(c->p, panel, ex_mul(c->p, outer, size)),
                               ex_select(c->p, ex_lt(c->p, ex_add(c->p, outer, num(c, 1)), blocks),
                                         ex_sub(c->p, further, back), panel));
  return ex_add(c->p, pn->b_base, next);
}

/* While a block of the panel is used its successor comes to the second-level cache. The lines are
 * spread evenly over the tiles of the block: asked for all at once they would wait in the buffers
 * that the loads of A and B need. So each tile takes 2^-shift of a line per step of k (the same
 * line again costs nothing), beginning where the last one ended. */
static Stmt *prefetch_next(Contract *c, const Panel *pn, const Spot *s) {
  const int64_t in_line = CACHE_LINE / dtype_bytes(c->types->panel);
  const int64_t lines = (int64_t)width_of(c, pn) / in_line;
  if (!c->prefetch || !s->tile || c->b_buffer < 0 || lines < 1) return NULL;
  int64_t share = 1;
  while (share * 2 * lines <= s->tiles) share *= 2;
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *n, *outer, *inside = loops_linear(c, c->hoisted, c->n_loops, &n), *blocks;
  outer = loops_linear(c, 0, c->hoisted, &blocks);
  const Expr *next = next_block(c, pn, outer, blocks, n);
  const Expr *part =
      ex_mul(c->p, ex_min(c->p, s->tile, num(c, lines * share - 1)), ex_ceildiv(c->p, n, share));
  const Expr *line = ex_add(c->p, part, ex_floordiv(c->p, inside, num(c, share)));
  const Expr *at = ex_add(c->p, next, ex_mul(c->p, line, num(c, in_line)));
  return stmt_prefetch(arena(c), id, at);
}

/* With few rows what counts is reading the weights, and every tile asks for its share of them. */
static bool asks_live(const Contract *c) {
  const double rows = expr_extent_guess(c->p, c->rows_h) * expr_extent_guess(c->p, c->rows_w);
  return c->live && (c->skips || !c->prefetch || rows >= 64);
}

/* body, where step i of the contraction counts for the tile. */
static Stmt *if_live(Contract *c, int i, const Spot *s, Stmt *body) {
  if (!s || i >= c->n_k || c->loop[i] != c->k[i] || !asks_live(c)) return body;
  const Expr *live = c->live(c, i, s->th == 1 ? s->h : NULL, s->w, s->tw);
  return live ? stmt_if(arena(c), live, body, NULL) : body;
}

/* Loops of k in [from, to) around body, which is for the tile at s (NULL: for several). */
static Stmt *k_loops(Contract *c, Stmt *body, int from, int to, const Spot *s) {
  for (int i = to - 1; i >= from; i--) {
    int64_t n;
    const bool last = i == c->n_loops - 1 && c->n_loops > 1;
    const bool unroll = last && expr_is_const(c->loop_extent[i], &n) && n <= 4;
    body = if_live(c, i, s, body);
    body = stmt_for(arena(c), unroll ? FOR_UNROLL : FOR_SERIAL, c->loop[i], body);
  }
  return body;
}

/* All rows and vectors of a tile at the current k. */
static Stmt *multiply_step(Contract *c, const Panel *pn, int local, const Spot *s) {
  const Expr *i = var(c, "r", s->th * s->tw), *j = var(c, "j", width_of(c, pn)), *rh, *rw;
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width_of(c, pn))), j);
  tile_row(c, s, i, &rh, &rw);
  const Expr *fma = multiply_add(c, pn, rh, rw, j, local_of(c, local, at));
  /* row by row: the broadcast of A dies at once, the vectors of B stay */
  return stmt_for(arena(c), FOR_UNROLL, i,
                  stmt_for(arena(c), FOR_VECTOR, j, stmt_set(arena(c), local, at, fma)));
}

/* Steps `at` of the innermost loop of k for each value of `var`. */
static Stmt *multiply_at(Contract *c, const Panel *pn, int local, const Spot *s, const Expr *at,
                         const Expr *var, ForKind kind) {
  const int last = c->n_loops - 1;
  const Expr *loop = c->loop[last], **k = &c->k[c->n_k - 1], *was = *k;
  *k = ex_add(c->p, ex_sub(c->p, was, loop), at);
  c->loop[last] = at;
  StmtList step = {0};
  Stmt *inner = multiply_step(c, pn, local, s);
  stmt_add(&step, prefetch_next(c, pn, s)); /* of a line for each step, too */
  stmt_add(&step, inner);
  c->loop[last] = loop;
  *k = was;
  return stmt_for(arena(c), kind, var, step.first);
}

/* Neighbouring steps of k are copied out where a multiply-add takes a lane of a vector of A. NULL:
 * not here. */
static Stmt *multiply_by_lanes(Contract *c, const Panel *pn, int local, const Spot *s) {
  const int last = c->n_loops - 1;
  const Expr *extent = c->loop_extent[last];
  const MachineModel m = machine_model(c->l->c->target, c->types->acc, 1);
  int64_t n;
  const bool fixed = expr_is_const(extent, &n);
  if (m.a_steps == 1 || c->types->k_step > 1 || (fixed && n <= m.a_steps) ||
      if_live(c, last, s, NULL))
    return NULL;
  const Expr *steps = num(c, m.a_steps), *whole = ex_floordiv(c->p, extent, steps);
  const Expr *o = ex_var(c->p, "k", whole), *u = var(c, "u", m.a_steps);
  const Expr *r = ex_var(c->p, "k", ex_floormod(c->p, extent, steps));
  const Expr *first = ex_mul(c->p, o, steps);
  StmtList out = {0};
  Stmt *part = multiply_at(c, pn, local, s, ex_add(c->p, first, u), u, FOR_UNROLL);
  stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, o, part));
  if (fixed && n % m.a_steps == 0) return out.first;
  const Expr *at = ex_add(c->p, ex_mul(c->p, whole, steps), r);
  stmt_add(&out, multiply_at(c, pn, local, s, at, r, FOR_SERIAL));
  return out.first;
}

static Stmt *multiply(Contract *c, const Panel *pn, int local, const Spot *s) {
  Stmt *lanes = multiply_by_lanes(c, pn, local, s);
  if (lanes) return k_loops(c, lanes, c->hoisted, c->n_loops - 1, s);
  StmtList step = {0};
  Stmt *inner = multiply_step(c, pn, local, s);
  stmt_add(&step, prefetch_next(c, pn, s));
  stmt_add(&step, inner);
  return k_loops(c, step.first, c->hoisted, c->n_loops, s);
}

enum { CHAIN = 64 }; /* products added up before they join the sum, where registers allow it */

static bool can_chain(const Contract *c, int rows) {
  int64_t k;
  return rows == 1 && c->n_k == 1 && c->n_loops == 1 && expr_is_const(c->k_extent[0], &k) &&
         k % CHAIN == 0 && k >= 4 * CHAIN;
}

/* One row leaves registers for two levels of sums: shorter chains of additions, smaller rounding
 * errors. */
static Stmt *multiply_chained(Contract *c, const Panel *pn, int local, const Spot *s) {
  Arena *a = arena(c);
  const int width = width_of(c, pn);
  const Expr *k = c->k[0], *inner = var(c, "k", CHAIN);
  const Expr *outer = ex_var(c->p, "k", ex_floordiv(c->p, c->k_extent[0], num(c, CHAIN)));
  const int part = sums_local(c, "u", width, false);
  const Expr *j0 = var(c, "j", width), *j1 = var(c, "j", width), *j2 = var(c, "j", width);
  c->k[0] = ex_add(c->p, ex_mul(c->p, outer, num(c, CHAIN)), inner);
  const Expr *fma = multiply_add(c, pn, s->h, s->w, j1, local_of(c, part, j1));
  c->k[0] = k;
  StmtList body = {0};
  stmt_add(&body, stmt_local(a, part));
  stmt_add(&body, stmt_for(a, FOR_VECTOR, j0, stmt_set(a, part, j0, zero(c))));
  stmt_add(&body,
           stmt_for(a, FOR_SERIAL, inner, stmt_for(a, FOR_VECTOR, j1, stmt_set(a, part, j1, fma))));
  const Expr *sum = ex_add(c->p, local_of(c, local, j2), local_of(c, part, j2));
  stmt_add(&body, stmt_for(a, FOR_VECTOR, j2, stmt_set(a, local, j2, sum)));
  return stmt_for(a, FOR_SERIAL, outer, body.first);
}

/* A single row of few vectors waits for its own additions: neighbouring steps of k add to sums of
 * their own. */
static int ways_of(const Contract *c, const Panel *pn, int rows) {
  int64_t k;
  if (rows != 1 || c->n_k != 1 || c->n_loops != 1 || !expr_is_const(c->k_extent[0], &k)) return 1;
  const int ways = pn->vectors == 1 ? 8 : pn->vectors == 2 ? 4 : pn->vectors <= 4 ? 2 : 1;
  return c->l->c->target->vector_regs >= 32 || ways <= 4
             ? (k % ways == 0 && k >= 4 * ways ? ways : 1)
             : 1;
}

static Stmt *multiply_ways(Contract *c, const Panel *pn, int local, const Spot *s, int ways) {
  Arena *a = arena(c);
  const int width = width_of(c, pn);
  const int part = sums_local(c, "u", (int64_t)ways * width, false);
  const Expr *k = c->k[0], *u0 = var(c, "u", ways), *u = var(c, "u", ways);
  const Expr *outer = ex_var(c->p, "k", ex_floordiv(c->p, c->k_extent[0], num(c, ways)));
  const Expr *j0 = var(c, "j", width), *j = var(c, "j", width), *j2 = var(c, "j", width);
  const Expr *at0 = ex_add(c->p, ex_mul(c->p, u0, num(c, width)), j0),
             *at = ex_add(c->p, ex_mul(c->p, u, num(c, width)), j);
  c->k[0] = ex_add(c->p, ex_mul(c->p, outer, num(c, ways)), u);
  const Expr *fma = multiply_add(c, pn, s->h, s->w, j, local_of(c, part, at));
  c->k[0] = k;
  StmtList out = {0};
  stmt_add(&out, stmt_local(a, part));
  stmt_add(&out, stmt_for(a, FOR_UNROLL, u0,
                          stmt_for(a, FOR_VECTOR, j0, stmt_set(a, part, at0, zero(c)))));
  Stmt *step = stmt_for(a, FOR_UNROLL, u, stmt_for(a, FOR_VECTOR, j, stmt_set(a, part, at, fma)));
  stmt_add(&out, stmt_for(a, FOR_SERIAL, outer, step));
  const Expr *sum = local_of(c, local, j2);
  for (int i = 0; i < ways; i++)
    sum = ex_add(c->p, sum, local_of(c, part, ex_add(c->p, num(c, (int64_t)i * width), j2)));
  stmt_add(&out, stmt_for(a, FOR_VECTOR, j2, stmt_set(a, local, j2, sum)));
  return out.first;
}

/* ---- the end of a sum ---- */

static const Expr *finish_value(Contract *c, const Expr *sum, const Expr *const *idx) {
  if (c->scale != 1.0) sum = ex_mul(c->p, sum, ex_const(c->p, c->types->acc, c->scale));
  const Expr *extra = c->add ? c->add(c, idx) : NULL;
  if (extra) sum = ex_add(c->p, sum, extra);
  return kb_epilogue(&c->b, c->root, c->anchor, idx, sum);
}

/* Stores lane j of the row (h, w). */
static Stmt *store_lanes(Contract *c, const Panel *pn, const Expr *h, const Expr *w, const Expr *j,
                         const Expr *sum) {
  const Expr *idx[MAX_RANK];
  c->out_index(c, h, w, ex_add(c->p, pn->col, j), idx);
  const Expr *value = c->plain_rank ? sum : finish_value(c, sum, idx);
  const int out = kb_param(&c->b, c->to->buffer, c->to->offset, PA_WRITE);
  const int rank = c->plain_rank ? c->plain_rank : c->root->rank;
  Stmt *st = stmt_store(arena(c), out, place_index(c->p, c->to, rank, idx), value);
  return stmt_for(arena(c), FOR_VECTOR, j, st);
}

static Stmt *store_tile(Contract *c, const Panel *pn, int local, const Spot *s) {
  const Expr *i = var(c, "r", s->th * s->tw), *j = ex_var(c->p, "j", pn->cols), *rh, *rw;
  tile_row(c, s, i, &rh, &rw);
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width_of(c, pn))), j);
  const bool regs = c->b.k->locals.data[local].memory == MEM_REGS;
  Stmt *row = store_lanes(c, pn, rh, rw, j, local_of(c, local, at));
  return stmt_for(arena(c), regs ? FOR_UNROLL : FOR_SERIAL, i, row);
}

/* Would the epilogue, unrolled over a tile, be long code for nothing? Sigmoid, erf and the like. */
static bool heavy_epilogue(Contract *c) {
  enum { HEAVY = 14 };
  if (c->plain_rank) return false;
  const Expr *idx[MAX_RANK];
  c->out_index(c, ex_var(c->p, "h", c->rows_h), ex_var(c->p, "w", c->rows_w),
               ex_var(c->p, "j", c->n), idx);
  return expr_cost(finish_value(c, ex_hole(c->p, c->types->acc, 1), idx)) > HEAVY;
}

/* Symbolic column counts and heavy epilogues: the tile is copied to the stack, where lanes may be
 * cut at run time and rows done one by one. */
static int to_stack(Contract *c, StmtList *out, int local, int rows, int width) {
  const int copy = sums_local(c, "s", (int64_t)rows * width, true);
  const Expr *i = var(c, "r", rows), *j = var(c, "j", width);
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width)), j);
  stmt_add(out, stmt_local(arena(c), copy));
  Stmt *set = stmt_set(arena(c), copy, at, local_of(c, local, at));
  stmt_add(out, stmt_for(arena(c), FOR_UNROLL, i, stmt_for(arena(c), FOR_VECTOR, j, set)));
  return copy;
}

/* ---- tiles ---- */

/* Element j of row i of the tile among the partial sums. */
static const Expr *sum_index(const Contract *c, const Panel *pn, const Spot *s, const Expr *i,
                             const Expr *j) {
  const Expr *row = s->sum;
  if (s->th > 1) {
    row = ex_add(c->p, row, ex_mul(c->p, ex_floordiv(c->p, i, num(c, s->tw)), c->rows_w));
    row = ex_add(c->p, row, ex_floormod(c->p, i, num(c, s->tw)));
  } else {
    row = ex_add(c->p, row, i);
  }
  return ex_add(c->p, ex_mul(c->p, row, num(c, width_of(c, pn))), j);
}

/* tile[i][j] = value(i, j) for all of it; value NULL: the partial sums. */
static Stmt *fill_tile(Contract *c, const Panel *pn, int local, const Spot *s, const Expr *value) {
  const Expr *i = var(c, "r", s->th * s->tw), *j = var(c, "j", width_of(c, pn));
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width_of(c, pn))), j);
  if (!value) value = ex_load(c->p, c->types->acc, pn->sums, sum_index(c, pn, s, i, j), NULL);
  return stmt_for(arena(c), FOR_UNROLL, i,
                  stmt_for(arena(c), FOR_VECTOR, j, stmt_set(arena(c), local, at, value)));
}

static Stmt *save_tile(Contract *c, const Panel *pn, int local, const Spot *s) {
  const Expr *i = var(c, "r", s->th * s->tw), *j = var(c, "j", width_of(c, pn));
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width_of(c, pn))), j);
  Stmt *st = stmt_store(arena(c), pn->sums, sum_index(c, pn, s, i, j), local_of(c, local, at));
  return stmt_for(arena(c), FOR_UNROLL, i, stmt_for(arena(c), FOR_VECTOR, j, st));
}

static Stmt *tile_body(Contract *c, const Panel *pn, const Spot *s) {
  const int rows = s->th * s->tw, width = width_of(c, pn);
  StmtList out = {0};
  int local = sums_local(c, "t", (int64_t)rows * width, false);
  stmt_add(&out, stmt_local(arena(c), local));
  stmt_add(&out, fill_tile(c, pn, local, s, pn->sums < 0 ? zero(c) : NULL));
  const int ways = ways_of(c, pn, rows);
  const StoredPanel stored = stored_panel(pn);
  if (c->direct)
    stmt_add(&out, stored_multiply(c, &stored, local, s->h, s->w, rows));
  else if (ways > 1)
    stmt_add(&out, multiply_ways(c, pn, local, s, ways));
  else
    stmt_add(&out,
             can_chain(c, rows) ? multiply_chained(c, pn, local, s) : multiply(c, pn, local, s));
  if (pn->sums >= 0) {
    stmt_add(&out, save_tile(c, pn, local, s));
    Stmt *part = out.first;
    for (int i = 0; i < c->hoisted; i++) part = if_live(c, i, s, part);
    return part;
  }
  int64_t cols;
  if (!expr_is_const(pn->cols, &cols) || c->heavy) local = to_stack(c, &out, local, rows, width);
  stmt_add(&out, store_tile(c, pn, local, s));
  return out.first;
}

/* Tiles of tw rows along w from `first`, then the rest. `line`: number of this line of tiles, NULL
 * when flat. */
static Stmt *line_of_tiles(Contract *c, const Panel *pn, Spot s, const Expr *first,
                           const Expr *count, const Expr *line) {
  StmtList out = {0};
  const Expr *full = ex_floordiv(c->p, count, num(c, s.tw)), *t = ex_var(c->p, "w", full),
             *sum = s.sum;
  int64_t n, whole;
  const int tw = s.tw;
  const bool fixed = expr_is_const(count, &n);
  if (!expr_is_const(full, &whole) || whole > 0) {
    const Expr *at = ex_mul(c->p, t, num(c, tw));
    s.w = ex_add(c->p, first, at);
    s.sum = ex_add(c->p, sum, at);
    s.tile = line ? line : t;
    if (!line && !expr_is_const(full, &s.tiles)) s.tiles = 0;
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, t, tile_body(c, pn, &s)));
  }
  if (tw == 1 || (fixed && n % tw == 0)) return out.first;
  const Expr *done = ex_mul(c->p, full, num(c, tw));
  s.tile = NULL;
  s.w = ex_add(c->p, first, done);
  s.sum = ex_add(c->p, sum, done);
  if (fixed) {
    s.tw = (int)(n % tw);
    stmt_add(&out, tile_body(c, pn, &s));
    return out.first;
  }
  /* how many are left is known at run time: tiles of half, a quarter, … of the rows */
  const Expr *left = ex_floormod(c->p, count, num(c, tw));
  for (s.th = 1, s.tw = (tw + 1) / 2;; s.tw = (s.tw + 1) / 2) {
    const Expr *r = ex_var(c->p, "w", ex_floordiv(c->p, left, num(c, s.tw)));
    const Expr *at = ex_mul(c->p, r, num(c, s.tw));
    Spot part = s;
    part.w = ex_add(c->p, s.w, at);
    part.sum = ex_add(c->p, s.sum, at);
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, r, tile_body(c, pn, &part)));
    if (s.tw == 1) return out.first;
    const Expr *here = ex_mul(c->p, ex_floordiv(c->p, left, num(c, s.tw)), num(c, s.tw));
    s.w = ex_add(c->p, s.w, here);
    s.sum = ex_add(c->p, s.sum, here);
    left = ex_floormod(c->p, left, num(c, s.tw));
  }
}

static const Expr *first_sum(const Contract *c, const Panel *pn, const Blocks *bl) {
  return pn->member ? ex_mul(c->p, pn->member, contract_sum_rows(c, bl)) : num(c, 0);
}

/* Member of a group; its number becomes a variable to loop over. */
static Panel group_member(const Contract *c, const Panel *pn) {
  Panel m = *pn;
  if (!pn->group) return m;
  m.member = ex_var(c->p, "g", pn->group);
  m.col = ex_add(c->p, pn->col, ex_mul(c->p, m.member, num(c, width_of(c, pn))));
  const Expr *size = ex_mul(c->p, contract_k_total(c), num(c, pn->b_width));
  m.b_base = ex_add(c->p, pn->b_base, ex_mul(c->p, m.member, size));
  return m;
}

static Stmt *for_members(const Contract *c, const Panel *m, Stmt *body) {
  return m->member ? stmt_for(arena(c), FOR_SERIAL, m->member, body) : body;
}

/* All tiles of a block of `count` rows (flat) or lines from `first`. */
static Stmt *block_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                         const Expr *count) {
  Spot s = {.h = num(c, 0), .sum = first_sum(c, pn, bl), .th = 1, .tw = bl->tw};
  if (c->stored && !c->direct) {
    const StoredPanel stored = stored_panel(pn);
    StmtList out = {0};
    stmt_add(&out, stored_unpack(c, &stored));
    stmt_add(&out, line_of_tiles(c, pn, s, first, count, NULL));
    return out.first;
  }
  if (c->flat) return line_of_tiles(c, pn, s, first, count, NULL);
  const Expr *y = ex_var(c->p, "h", ex_floordiv(c->p, count, num(c, bl->th)));
  const Expr *line = ex_mul(c->p, y, num(c, bl->th));
  if (!expr_is_const(ex_floordiv(c->p, count, num(c, bl->th)), &s.tiles)) s.tiles = 0;
  s.th = bl->th;
  s.h = ex_add(c->p, first, line);
  s.sum = ex_add(c->p, s.sum, ex_mul(c->p, line, c->rows_w));
  return stmt_for(arena(c), FOR_SERIAL, y, line_of_tiles(c, pn, s, num(c, 0), c->rows_w, y));
}

/* The same with the outer loops of k around the tiles, of all panels of a group, and partial sums
 * in between: a block of A is used by the whole group while it is in the cache (Goto and van de
 * Geijn, Anatomy of High-Performance Matrix Multiplication, 2008). */
static Stmt *blocked_tiles(Contract *c, Panel pn, const Blocks *bl, const Expr *first,
                           const Expr *count) {
  if (!c->hoisted) return block_tiles(c, &pn, bl, first, count);
  Arena *a = arena(c);
  const int width = width_of(c, &pn);
  const Expr *rows = c->flat ? count : ex_mul(c->p, count, c->rows_w);
  pn.sums = c->sums;
  StmtList out = {0};
  Panel m = group_member(c, &pn);
  const Expr *z = ex_var(c->p, "z", ex_mul(c->p, rows, num(c, width)));
  const Expr *at = ex_add(c->p, ex_mul(c->p, first_sum(c, &m, bl), num(c, width)), z);
  Stmt *clear = stmt_store(a, pn.sums, at, zero(c));
  stmt_add(&out, for_members(c, &m, stmt_for(a, FOR_VECTOR, z, clear)));
  m = group_member(c, &pn);
  Stmt *tiles = for_members(c, &m, block_tiles(c, &m, bl, first, count));
  stmt_add(&out, k_loops(c, tiles, 0, c->hoisted, NULL));
  m = group_member(c, &pn);
  const Expr *j = ex_var(c->p, "j", pn.cols), *h = ex_var(c->p, "h", c->flat ? num(c, 1) : count);
  const Expr *w = ex_var(c->p, "w", c->flat ? count : c->rows_w);
  const Expr *row = c->flat ? w : ex_add(c->p, ex_mul(c->p, h, c->rows_w), w);
  row = ex_add(c->p, row, first_sum(c, &m, bl));
  const Expr *sum = ex_load(c->p, c->types->acc, pn.sums,
                            ex_add(c->p, ex_mul(c->p, row, num(c, width)), j), NULL);
  Stmt *st = c->flat ? store_lanes(c, &m, num(c, 0), ex_add(c->p, first, w), j, sum)
                     : store_lanes(c, &m, ex_add(c->p, first, h), w, j, sum);
  st = stmt_for(a, FOR_SERIAL, w, st);
  stmt_add(&out, for_members(c, &m, c->flat ? st : stmt_for(a, FOR_SERIAL, h, st)));
  return out.first;
}

/* Weights in a few bits: whether there are so few rows that each tile unpacks them may only be
 * known at run time. */
static Stmt *stored_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                          const Expr *count) {
  Stmt *few = NULL;
  int64_t n;
  const bool fixed = expr_is_const(count, &n);
  if (!fixed || n <= STORED_FEW) {
    Blocks small = *bl;
    if (small.tw > STORED_FEW) small.tw = STORED_FEW;
    const Panel m = group_member(c, pn);
    c->direct = true;
    few = for_members(c, &m, block_tiles(c, &m, &small, first, count));
    c->direct = false;
    if (fixed) return few;
  }
  Stmt *many = blocked_tiles(c, *pn, bl, first, count);
  return few ? stmt_if(arena(c), ex_le(c->p, count, num(c, STORED_FEW)), few, many) : many;
}

static Stmt *rows_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                        const Expr *count) {
  return c->stored ? stored_tiles(c, pn, bl, first, count)
                   : blocked_tiles(c, *pn, bl, first, count);
}

static Stmt *block_rows(Contract *c, const Panel *pn, const Blocks *bl, const Expr *block) {
  if (bl->lines) return block_tiles(c, pn, bl, bl->lines->first, bl->lines->count);
  const Expr *first = ex_mul(c->p, block, bl->size);
  int64_t rows, size;
  if (!expr_is_const(bl->rows, &rows) || !expr_is_const(bl->size, &size))
    return rows_tiles(c, pn, bl, first, ex_min(c->p, bl->size, ex_sub(c->p, bl->rows, first)));
  const int64_t full = rows / size, rest = rows % size;
  Stmt *whole = full ? rows_tiles(c, pn, bl, first, bl->size) : NULL;
  if (!rest) return whole;
  Stmt *part = rows_tiles(c, pn, bl, num(c, full * size), num(c, rest));
  return full ? stmt_if(arena(c), ex_lt(c->p, block, num(c, full)), whole, part) : part;
}

static void bind_outer(Contract *c, const Expr *flat) {
  nest_indices(c->p, flat, c->n_outer, c->outer_extent, c->outer);
}

/* ---- the kernel ---- */

/* Both kinds of panels: groups of whole ones, and the narrower last one, number `last` of the
 * groups. */
static Stmt *panels_body(Contract *c, const Blocks *bl, const Expr *group, const Expr *block) {
  const int width = c->tile.vectors * c->lanes;
  const Expr *panel = ex_mul(c->p, group, num(c, c->group)), *kt = contract_k_total(c);
  const Expr *col = ex_mul(c->p, panel, num(c, width));
  const Expr *base = ex_add(c->p, c->b_outer, ex_mul(c->p, ex_mul(c->p, panel, kt), num(c, width)));
  Panel pn = {col, num(c, width), c->tile.vectors, base, width, -1, NULL, NULL};
  int64_t n;
  if (!expr_is_const(c->n, &n)) {
    pn.cols = ex_min(c->p, num(c, width), ex_sub(c->p, c->n, col));
    return block_rows(c, &pn, bl, block);
  }
  const int64_t full = n / width, rest = n % width;
  if (c->group > 1)
    pn.group = full % c->group ? ex_min(c->p, num(c, c->group), ex_sub(c->p, num(c, full), panel))
                               : num(c, c->group);
  Stmt *whole = full ? block_rows(c, &pn, bl, block) : NULL;
  if (!rest) return whole;
  const Expr *last = num(c, full);
  Panel tail = {num(c, full * width),
                num(c, rest),
                (int)((rest + c->lanes - 1) / c->lanes),
                ex_add(c->p, c->b_outer, ex_mul(c->p, ex_mul(c->p, last, kt), num(c, width))),
                width,
                -1,
                NULL,
                NULL};
  if (!c->b_whole_panels) tail.b_width = tail.vectors * c->lanes;
  Stmt *part = block_rows(c, &tail, bl, block);
  const Expr *groups = num(c, (full + c->group - 1) / c->group);
  return full ? stmt_if(arena(c), ex_lt(c->p, group, groups), whole, part) : part;
}

static const Expr *flops_of(const Contract *c) {
  const Expr *e =
      ex_mul(c->p, ex_mul(c->p, num(c, 2 * c->types->k_step), c->n), contract_k_total(c));
  e = ex_mul(c->p, e, ex_mul(c->p, c->rows_h, c->rows_w));
  for (int i = 0; i < c->n_outer; i++) e = ex_mul(c->p, e, c->outer_extent[i]);
  return e;
}

Step *contract_emit(Contract *c) {
  contract_choose_prefetch(c);
  const Blocks bl = contract_blocks(c);
  const Expr *panels = contract_count_groups(c, &bl);
  const Expr *total = ex_mul(c->p, bl.count, panels);
  for (int i = 0; i < c->n_outer; i++) total = ex_mul(c->p, total, c->outer_extent[i]);
  const Expr *par = ex_var(c->p, "p", total);
  const Expr *panel = ex_floormod(c->p, par, panels), *rest = ex_floordiv(c->p, par, panels);
  const Expr *block = ex_floormod(c->p, rest, bl.count);
  bind_outer(c, ex_floordiv(c->p, rest, bl.count));
  c->b_outer = c->b_offset ? c->b_offset(c) : num(c, 0);
  c->heavy = heavy_epilogue(c);
  Stmt *body = panels_body(c, &bl, panel, block);
  const ContractShape shape = contract_shape(c);
  kb_estimate(&c->b, c->plain_rank ? "winograd" : "tiled",
              contract_estimate(c->l->c, &shape, c->tile, asks_live(c) ? c->live_share : 1));
  c->b.k->flops = flops_of(c);
  if (c->b.x.bad) {
    diag_internal(c->l->m->diag, c->b.loc, "lower: the epilogue of a contraction cannot be read");
    return NULL;
  }
  return kb_finish(&c->b,
                   nest_outer(&c->b, par, body, contract_macs(c->l->c, &shape), !c->plan.serial));
}

/* All panels one after the other; the loops and outer indices are set. */
static Stmt *serial_panels(Contract *c, const Blocks *bl) {
  c->b_outer = c->b_offset ? c->b_offset(c) : num(c, 0);
  c->heavy = heavy_epilogue(c);
  const Expr *panel =
      ex_var(c->p, "n", ex_ceildiv(c->p, c->n, (int64_t)c->tile.vectors * c->lanes));
  return stmt_for(arena(c), FOR_SERIAL, panel, panels_body(c, bl, panel, num(c, 0)));
}

Stmt *contract_lines(Contract *c, const Expr *first, const Expr *count) {
  const Lines lines = {.first = first, .count = count};
  Blocks bl = {.th = 1, .tw = c->tile.rows, .lines = &lines};
  int64_t w;
  if (expr_is_const(c->rows_w, &w) && w < bl.tw) bl.tw = (int)w;
  contract_plain_loops(c);
  return serial_panels(c, &bl);
}

Stmt *contract_inner(Contract *c) {
  const Blocks bl = {
      .th = 1, .tw = c->tile.rows, .rows = c->rows_w, .size = c->rows_w, .count = num(c, 1)};
  contract_choose_prefetch(c);
  contract_plain_loops(c);
  for (int i = 0; i < c->n_outer; i++) c->outer[i] = ex_var(c->p, "o", c->outer_extent[i]);
  Stmt *body = serial_panels(c, &bl);
  for (int i = c->n_outer - 1; i >= 0; i--)
    body = stmt_for(arena(c), FOR_SERIAL, c->outer[i], body);
  return body;
}
