/* The sums of a register tile: the loops of k that stand inside it, and what is multiplied there.
 *
 *   chained   one row: short sums that join the sum
 *   in ways   one row of few vectors: neighbouring steps of k add to sums of their own
 *   squares   two rows and two columns at once (contract_matrix.c)
 *   across    rows of bytes of A and of columns of B, whose products one sum gathers
 *   by lanes  neighbouring steps are copied out, where a product takes a lane of a vector of A
 *   else      step by step, the next block of B being prefetched */
#include "passes/cost/machine_model.h"
#include "passes/kernels/contract_parts.h"
#include "passes/kernels/stored_weights.h"

/* A register tile or a stack copy of `count` sums. */
int contract_sums_local(Contract *c, const char *name, int64_t count, bool stack) {
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

/* From the block of B that was unpacked into scratch. */
static const Expr *unpacked_value(Contract *c, const Panel *pn, const Expr *lane) {
  const Expr *n, *step = c->hoisted ? loops_linear(c, c->hoisted, c->n_loops, &n) : k_linear(c);
  const Expr *at = ex_add(c->p, ex_mul(c->p, step, num(c, pn->b_width)), lane);
  return ex_load(c->p, c->types->acc, c->unpacked, at, NULL);
}

const Expr *contract_b_row(const Contract *c, const Panel *pn) {
  return ex_add(c->p, pn->b_base, ex_mul(c->p, k_linear(c), num(c, pn->b_width)));
}

/* Steps of k two by two, which lie together for each lane. */
static const Expr *place_in_eights(const Contract *c, const Panel *pn, const Expr *lane) {
  const Expr *step = k_linear(c), *two = num(c, 2);
  const Expr *at = ex_mul(c->p, ex_floordiv(c->p, step, two), num(c, 2 * (int64_t)pn->b_width));
  at = ex_add(c->p, pn->b_base, ex_add(c->p, at, ex_mul(c->p, lane, two)));
  return ex_add(c->p, at, ex_floormod(c->p, step, two));
}

const Expr *contract_b_value(Contract *c, const Panel *pn, const Expr *lane) {
  if (contract_reads_unpacked(c)) return unpacked_value(c, pn, lane);
  if (c->b_buffer < 0) return c->b_direct(c, ex_add(c->p, pn->col, lane));
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *at =
      c->squares ? place_in_eights(c, pn, lane) : ex_add(c->p, contract_b_row(c, pn), lane);
  return contract_operand_b(c, ex_load(c->p, c->panel, id, at, NULL));
}

/* Element i of the current step of k. */
const Expr *contract_a_element(Contract *c, const Expr *h, const Expr *w, int i) {
  const Expr **k = &c->k[c->n_k - 1], *step = *k;
  *k = contract_element(c, num(c, i));
  const Expr *element = c->gathered < 0 ? c->a(c, h, w) : contract_gathered(c, w);
  *k = step;
  return element;
}

const Expr *contract_a_value(Contract *c, const Expr *h, const Expr *w) {
  const Expr *element[MAX_K_STEP];
  for (int i = 0; i < c->types->k_step; i++) element[i] = contract_a_element(c, h, w, i);
  return contract_group(c, c->types->a, element);
}

/* The same bits as dot2_bf16, of elements of A that were converted once, and ones of B that are here. */
static const Expr *multiply_add_split(Contract *c, const Panel *pn, const Expr *h, const Expr *w,
                                      const Expr *lane, const Expr *sum) {
  const Expr *b = contract_b_value(c, pn, lane);
  for (int i = c->types->k_step - 1; i >= 0; i--)
    sum = ex_op(c->p, c->types->mac, contract_a_element(c, h, w, i), ex_bf16_element(c->p, b, i),
                sum);
  return sum;
}

/* sum plus the product of row (h, w) of A and column `lane` of the panel, at the current k. */
static const Expr *multiply_add(Contract *c, const Panel *pn, const Expr *h, const Expr *w,
                                const Expr *lane, const Expr *sum) {
  if (c->types->split_a) return multiply_add_split(c, pn, h, w, lane, sum);
  const Expr *a = contract_a_value(c, h, w), *b = contract_b_value(c, pn, lane);
  return c->types->mac_ba ? ex_op(c->p, c->types->mac, b, a, sum)
                          : ex_op(c->p, c->types->mac, a, b, sum);
}

/* Row number i of a tile. */
void contract_tile_row(const Contract *c, const Spot *s, const Expr *i, const Expr **rh,
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

/* Steps of k in which a tile asks for one line. */
int64_t contract_prefetch_share(const Contract *c, const Panel *pn, const Spot *s) {
  const int64_t lines = (int64_t)width_of(c, pn) * dtype_bytes(c->panel) / CACHE_LINE;
  int64_t share = 1;
  while (lines > 0 && share * 2 * lines <= s->tiles) share *= 2;
  return share;
}

/* While a block of the panel is used its successor comes to the second-level cache. The lines are
 * spread evenly over the tiles of the block: asked for all at once they would wait in the buffers
 * that the loads of A and B need. So each tile takes 2^-shift of a line per step of k (the same
 * line again costs nothing), beginning where the last one ended. */
static Stmt *prefetch_next(Contract *c, const Panel *pn, const Spot *s) {
  const int64_t in_line = CACHE_LINE / dtype_bytes(c->panel) / contract_panel_step(c->types);
  const int64_t lines = (int64_t)width_of(c, pn) / in_line;
  if (!c->prefetch || !s->tile || c->b_buffer < 0 || lines < 1) return NULL;
  const int64_t share = contract_prefetch_share(c, pn, s);
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *n, *outer, *inside = loops_linear(c, c->hoisted, c->n_loops, &n), *blocks;
  outer = loops_linear(c, 0, c->hoisted, &blocks);
  const Expr *next = next_block(c, pn, outer, blocks, n);
  const Expr *part =
      ex_mul(c->p, ex_min(c->p, s->tile, num(c, lines * share - 1)), ex_ceildiv(c->p, n, share));
  const Expr *line = ex_add(c->p, part, ex_floordiv(c->p, inside, num(c, share)));
  const Expr *at = ex_add(c->p, next, ex_mul(c->p, line, num(c, in_line)));
  return stmt_prefetch(arena(c), id, ex_mul(c->p, at, num(c, contract_panel_step(c->types))));
}

/* With few rows what counts is reading the weights, and every tile asks for its share of them. */
bool contract_asks_live(const Contract *c) {
  const double rows = expr_extent_guess(c->p, c->rows_h) * expr_extent_guess(c->p, c->rows_w);
  return c->live && (c->skips || !c->prefetch || rows >= 64);
}

/* body, where step i of the contraction counts for the tile. */
Stmt *contract_if_live(Contract *c, int i, const Spot *s, Stmt *body) {
  if (!s || i >= c->n_k || c->loop[i] != c->k[i] || !contract_asks_live(c)) return body;
  const Expr *live = c->live(c, i, s->th == 1 ? s->h : NULL, s->w, s->tw);
  return live ? stmt_if(arena(c), live, body, NULL) : body;
}

/* Loops of k in [from, to) around body, which is for the tile at s (NULL: for several). */
Stmt *contract_k_loops(Contract *c, Stmt *body, int from, int to, const Spot *s) {
  for (int i = to - 1; i >= from; i--) {
    int64_t n;
    const bool last = i == c->n_loops - 1 && c->n_loops > 1;
    const bool unroll = last && expr_is_const(c->loop_extent[i], &n) && n <= 4;
    body = contract_if_live(c, i, s, body);
    body = stmt_for(arena(c), unroll ? FOR_UNROLL : FOR_SERIAL, c->loop[i], body);
  }
  return body;
}

/* All rows and vectors of a tile at the current k. */
static Stmt *multiply_step(Contract *c, const Panel *pn, int local, const Spot *s) {
  const Expr *i = var(c, "r", s->th * s->tw), *j = var(c, "j", width_of(c, pn)), *rh, *rw;
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width_of(c, pn))), j);
  contract_tile_row(c, s, i, &rh, &rw);
  const Expr *fma = multiply_add(c, pn, rh, rw, j, local_of(c, local, at));
  /* row by row: the broadcast of A dies at once, the vectors of B stay */
  return stmt_for(arena(c), FOR_UNROLL, i,
                  stmt_for(arena(c), FOR_VECTOR, j, stmt_set(arena(c), local, at, fma)));
}

/* Steps `at` of the innermost loop of k for each value of `var`; `ask`: with what prefetches. */
static Stmt *multiply_at(Contract *c, const Panel *pn, int local, const Spot *s, const Expr *at,
                         const Expr *var, bool ask) {
  const int last = c->n_loops - 1;
  const Expr *loop = c->loop[last], **k = &c->k[c->n_k - 1], *was = *k;
  *k = ex_add(c->p, ex_sub(c->p, was, loop), at);
  c->loop[last] = at;
  Stmt *step = ask ? prefetch_next(c, pn, s) : multiply_step(c, pn, local, s);
  c->loop[last] = loop;
  *k = was;
  return step && var ? stmt_for(arena(c), FOR_UNROLL, var, step) : step;
}

Stmt *contract_prefetch_at(Contract *c, const Panel *pn, const Spot *s, const Expr *at) {
  return multiply_at(c, pn, -1, s, at, NULL, true);
}

/* How many of n steps are copied out: all of a few, else what divides them; groups of a_steps. */
static int64_t copied_steps(const MachineModel *m, bool fixed, int64_t n) {
  enum { MOST_COPIED = 8, MOST_HALVES = 24 };
  int64_t best = m->a_steps;
  if (best == MOST_COPIED && fixed && n <= MOST_HALVES && n % best) return n;
  for (int64_t i = best; fixed && i <= MOST_COPIED && i <= n; i += m->a_steps)
    if (n % i < m->a_steps) best = i;
  return best;
}

/* Neighbouring steps of k are copied out where a multiply-add takes a lane of a vector of A. NULL:
 * not here. */
static Stmt *multiply_by_lanes(Contract *c, const Panel *pn, int local, const Spot *s) {
  const int last = c->n_loops - 1;
  const Expr *extent = c->loop_extent[last];
  const MachineModel m = contract_machine(c->l->c->target, c->types);
  int64_t n = 0;
  const bool fixed = expr_is_const(extent, &n);
  if (m.a_steps == 1 || (fixed && n < m.a_steps) || contract_if_live(c, last, s, NULL)) return NULL;
  const int64_t copied = copied_steps(&m, fixed, n);
  const int64_t share = contract_prefetch_share(c, pn, s);
  const int64_t asks = share < copied ? share : copied;
  const Expr *steps = num(c, copied), *whole = ex_floordiv(c->p, extent, steps);
  const Expr *o = ex_var(c->p, "k", whole), *u = var(c, "u", copied);
  const Expr *r = ex_var(c->p, "k", ex_floormod(c->p, extent, steps));
  const Expr *first = ex_mul(c->p, o, steps);
  StmtList part = {0}, out = {0};
  for (int64_t i = 0; i < copied; i += asks)
    stmt_add(&part, multiply_at(c, pn, local, s, ex_add(c->p, first, num(c, i)), NULL, true));
  stmt_add(&part, multiply_at(c, pn, local, s, ex_add(c->p, first, u), u, false));
  stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, o, part.first));
  if (fixed && n % copied == 0) return out.first;
  const Expr *at = ex_add(c->p, ex_mul(c->p, whole, steps), r);
  Stmt *rest = multiply_at(c, pn, local, s, at, fixed ? r : NULL, false);
  stmt_add(&out, fixed ? rest : stmt_for(arena(c), FOR_SERIAL, r, rest));
  return out.first;
}

static Stmt *multiply(Contract *c, const Panel *pn, int local, const Spot *s) {
  Stmt *lanes = multiply_by_lanes(c, pn, local, s);
  if (lanes) return contract_k_loops(c, lanes, c->hoisted, c->n_loops - 1, s);
  StmtList step = {0};
  Stmt *inner = multiply_step(c, pn, local, s);
  stmt_add(&step, prefetch_next(c, pn, s));
  stmt_add(&step, inner);
  return contract_k_loops(c, step.first, c->hoisted, c->n_loops, s);
}

enum {
  CHAIN = 64,    /* products added up before they join the sum, where registers allow it */
  FEW_PANELS = 8 /* so many that it matters how long the last one takes */
};

/* Of one row: its sums may have another order than those of more. */
static bool is_row_alone(const Contract *c, int rows) {
  return rows == 1 && !c->anchor->def->plan->steady;
}

static bool can_chain(const Contract *c, int rows) {
  int64_t k;
  return is_row_alone(c, rows) && c->n_k == 1 && c->n_loops == 1 &&
         expr_is_const(c->k_extent[0], &k) && k % CHAIN == 0 && k >= 4 * CHAIN;
}

/* One row leaves registers for two levels of sums: shorter chains of additions, smaller rounding
 * errors. */
static Stmt *multiply_chained(Contract *c, const Panel *pn, int local, const Spot *s) {
  Arena *a = arena(c);
  const int width = width_of(c, pn);
  const Expr *k = c->k[0], *inner = var(c, "k", CHAIN);
  const Expr *outer = ex_var(c->p, "k", ex_floordiv(c->p, c->k_extent[0], num(c, CHAIN)));
  const int part = contract_sums_local(c, "u", width, false);
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

/* Vectors that decide how sums of floats are added up: in tiles of one row those of whole panels
 * for the last one, too, where that costs little. So equal columns have equal sums; where these are
 * far from 0, a softmax tells. */
static int deciding_vectors(const Contract *c, const Panel *pn) {
  const int64_t width = (int64_t)c->tile.vectors * c->lanes;
  int64_t n;
  const bool few = expr_is_const(c->n, &n) && n < FEW_PANELS * width;
  return few || c->tile.rows > 1 || !dtype_is_float(c->types->acc) ? pn->vectors : c->tile.vectors;
}

/* A single row of few vectors waits for its own additions: neighbouring steps of k add to sums of
 * their own. */
static int ways_of(const Contract *c, const Panel *pn, int rows) {
  int64_t k;
  if (!is_row_alone(c, rows) || c->n_k != 1 || c->n_loops != 1 ||
      !expr_is_const(c->k_extent[0], &k))
    return 1;
  const int vectors = deciding_vectors(c, pn);
  const int ways = vectors == 1 ? 8 : vectors == 2 ? 4 : vectors <= 4 ? 2 : 1;
  return c->l->c->target->vector_regs >= 32 || ways <= 4
             ? (k % ways == 0 && k >= 4 * ways ? ways : 1)
             : 1;
}

static Stmt *multiply_ways(Contract *c, const Panel *pn, int local, const Spot *s, int ways) {
  Arena *a = arena(c);
  const int width = width_of(c, pn);
  const int part = contract_sums_local(c, "u", (int64_t)ways * width, false);
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

/* ---- rows of bytes ---- */

/* Element `at` of the sums plus the products of a step of k of row (h, w) and a column of the panel. */
static Stmt *multiply_row(Contract *c, const Panel *pn, const Expr *h, const Expr *w,
                          const Expr *lane, int sums, const Expr *at) {
  const int step = c->types->k_step;
  const Expr *i = var(c, "i", step), **k = &c->k[c->n_k - 1], *was = *k;
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *column = ex_add(c->p, ex_mul(c->p, k_linear(c), num(c, pn->b_width)), lane);
  const Expr *from = ex_mul(c->p, ex_add(c->p, pn->b_base, column), num(c, step));
  const Expr *b = ex_load(c->p, c->panel, id, ex_add(c->p, from, i), NULL);
  *k = contract_element(c, i);
  const Expr *a = c->a(c, h, w);
  *k = was;
  const Expr *product = ex_op(c->p, c->types->mac, a, ex_cast(c->p, DT_I32, b), NULL);
  return stmt_for(arena(c), FOR_VECTOR, i, stmt_acc(arena(c), sums, at, RED_SUM, product));
}

/* A column of B for all rows of A, which stay in registers, or the other way round. */
static Stmt *multiply_across(Contract *c, const Panel *pn, int local, const Spot *s) {
  Arena *a = arena(c);
  const int rows = s->th * s->tw, width = width_of(c, pn);
  const int sums = contract_sums_local(c, "u", (int64_t)rows * width, false);
  const Expr *z = var(c, "z", (int64_t)rows * width), *rh, *rw;
  const Expr *i = var(c, "r", rows), *n = var(c, "n", width);
  StmtList out = {0}, step = {0};
  stmt_add(&out, stmt_local(a, sums));
  stmt_add(&out, stmt_for(a, FOR_UNROLL, z, stmt_set(a, sums, z, zero(c))));
  contract_tile_row(c, s, i, &rh, &rw);
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width)), n);
  Stmt *inner = multiply_row(c, pn, rh, rw, n, sums, at);
  const bool by_column = rows <= width;
  inner = stmt_for(a, FOR_UNROLL, by_column ? i : n, inner);
  stmt_add(&step, prefetch_next(c, pn, s));
  stmt_add(&step, stmt_for(a, FOR_UNROLL, by_column ? n : i, inner));
  stmt_add(&out, contract_k_loops(c, step.first, c->hoisted, c->n_loops, s));
  const Expr *i2 = var(c, "r", rows), *j = var(c, "j", width);
  const Expr *to = ex_add(c->p, ex_mul(c->p, i2, num(c, width)), j);
  Stmt *sum = stmt_set(a, local, to, ex_add(c->p, local_of(c, local, to), local_of(c, sums, to)));
  stmt_add(&out, stmt_for(a, FOR_UNROLL, i2, stmt_for(a, FOR_VECTOR, j, sum)));
  return out.first;
}

/* ---- which of them ---- */

Stmt *contract_multiply(Contract *c, const Panel *pn, int local, const Spot *s) {
  if (c->types->across) return multiply_across(c, pn, local, s);
  if (contract_squares_fit(c)) return contract_multiply_squares(c, pn, local, s);
  const int rows = s->th * s->tw, ways = ways_of(c, pn, rows);
  if (ways > 1) return multiply_ways(c, pn, local, s, ways);
  return can_chain(c, rows) ? multiply_chained(c, pn, local, s) : multiply(c, pn, local, s);
}
