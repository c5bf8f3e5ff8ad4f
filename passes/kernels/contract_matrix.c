/* Tiles of matrix registers (ir/loop/matrix.h): one or two high, one or two wide. The last tile of a line,
 * and the last lines, are computed by a whole tile that begins earlier and stores the rest alone. And
 * products by registers of two rows and two columns, in tiles of vectors. */
#include "ir/loop/matrix.h"

#include "passes/kernels/contract_parts.h"
#include "passes/tiles/matrix.h"

enum { ACROSS = 2 };

typedef struct MatrixTile {
  const Panel *pn;
  Spot s;
  int skip_h, skip_w; /* lines, rows of each, that are stored already */
  int high, wide;     /* in registers */
  int sum[ACROSS][ACROSS];
  const Expr *leads; /* whether it is the first tile of a block that reads the panel; NULL: no */
} MatrixTile;

static Stmt *matrix_loop(Contract *c, const Expr *var, Stmt *body) {
  return stmt_for(arena(c), FOR_MATRIX, var, body);
}

static const Expr *row_var(Contract *c) { return var(c, "r", c->plan.matrix); }

/* Element (row, j) of a register. */
static const Expr *element(Contract *c, const Expr *row, const Expr *j) {
  return ex_add(c->p, ex_mul(c->p, row, num(c, c->lanes)), j);
}

/* Where register number i of a tile has its first row. */
static void register_spot(Contract *c, const MatrixTile *t, int i, const Expr **h, const Expr **w) {
  const bool lines = t->s.th > 1;
  *h = lines ? ex_add(c->p, t->s.h, num(c, i)) : t->s.h;
  *w = lines ? t->s.w : ex_add(c->p, t->s.w, num(c, (int64_t)i * c->plan.matrix));
}

static bool is_floats(const Contract *c) { return c->types->mac == EX_dot2_bf16; }

/* Element i of a pair of A in f32; its bits are what a multiply-add takes. */
static const Expr *half_of_a(Contract *c, const Expr *h, const Expr *w, int i) {
  const Expr *e = contract_a_element(c, h, w, i);
  while (e->op == EX_cast || e->op == EX_bits) e = e->a[0];
  return contract_cast(c, e);
}

/* Adds up the even and the odd elements of a step, and both to the register's element. */
static Stmt *multiply_pairs(Contract *c, int to, const Expr *at, const Expr *const a[2],
                            const Expr *b, const Expr *step) {
  const Expr *const first = num(c, 0), *half[2];
  StmtList out = {0}, inner = {0};
  for (int i = 0; i < 2; i++) {
    if (!c->matrix_pair[i]) c->matrix_pair[i] = 1 + contract_sums_local(c, "p", 1, false);
    half[i] = local_of(c, c->matrix_pair[i] - 1, first);
    stmt_add(&out, stmt_local(arena(c), half[i]->id));
  }
  for (int i = 0; i < 2; i++) {
    stmt_add(&out, stmt_set(arena(c), half[i]->id, first, zero(c)));
    const Expr *product = ex_op(c->p, EX_fma, a[i], ex_bf16_element(c->p, b, i), half[i]);
    stmt_add(&inner, stmt_set(arena(c), half[i]->id, first, product));
  }
  stmt_add(&out, matrix_loop(c, step, inner.first));
  const Expr *sum = ex_add(c->p, local_of(c, to, at), ex_add(c->p, half[0], half[1]));
  stmt_add(&out, stmt_set(arena(c), to, at, sum));
  return out.first;
}

static Stmt *multiply_group(Contract *c, int to, const Expr *at, const Expr *a, const Expr *b,
                            const Expr *step) {
  const Expr *sum = local_of(c, to, at);
  const Expr *value = c->types->mac_ba ? ex_op(c->p, c->types->mac, b, a, sum)
                                       : ex_op(c->p, c->types->mac, a, b, sum);
  return matrix_loop(c, step, stmt_set(arena(c), to, at, value));
}

static Stmt *multiply(Contract *c, const MatrixTile *t, int y, int x, const Expr *step) {
  const Expr *r = row_var(c), *j = var(c, "j", c->lanes), *h, *w, *half[2];
  register_spot(c, t, y, &h, &w);
  w = ex_add(c->p, w, r);
  const Expr *b = contract_b_value(c, t->pn, ex_add(c->p, j, num(c, (int64_t)x * c->lanes)));
  const Expr *at = element(c, r, j);
  const int to = t->sum[y][x];
  for (int i = 0; is_floats(c) && i < 2; i++) half[i] = half_of_a(c, h, w, i);
  Stmt *body = is_floats(c) ? multiply_pairs(c, to, at, half, b, step)
                            : multiply_group(c, to, at, contract_a_value(c, h, w), b, step);
  return matrix_loop(c, r, matrix_loop(c, j, body));
}

/* What the first tile reads comes from beyond the second-level cache: it asks for the panel AHEAD steps
 * before; behind its end the next one lies. */
static Stmt *prefetch_ahead(Contract *c, const MatrixTile *t, int steps) {
  enum { AHEAD = 8 };
  if (!c->prefetch || !t->leads) return NULL;
  const int64_t in_line = CACHE_LINE / dtype_bytes(c->panel);
  const Expr *i = var(c, "i", (int64_t)steps * t->pn->b_width / in_line);
  const Expr *at =
      ex_add(c->p, contract_b_row(c, t->pn), num(c, (int64_t)AHEAD * steps * t->pn->b_width));
  at = ex_add(c->p, at, ex_mul(c->p, i, num(c, in_line)));
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  Stmt *all = stmt_for(arena(c), FOR_UNROLL, i, stmt_prefetch(arena(c), id, at));
  return expr_is_i64(t->leads, 1) ? all : stmt_if(arena(c), t->leads, all, NULL);
}

/* The loops of k, the innermost one in steps of a register. */
static Stmt *multiply_all(Contract *c, const MatrixTile *t) {
  const ContractShape shape = contract_shape(c);
  const int last = c->n_loops - 1, steps = contract_matrix_steps(&shape);
  const Expr *loop = c->loop[last], **k = &c->k[c->n_k - 1], *was = *k;
  const Expr *o = ex_var(c->p, "k", ex_floordiv(c->p, c->loop_extent[last], num(c, steps)));
  const Expr *q = var(c, "q", steps), *at = ex_mul(c->p, o, num(c, steps));
  const Expr *other = ex_sub(c->p, was, loop);
  StmtList out = {0};
  *k = ex_add(c->p, other, at);
  stmt_add(&out, prefetch_ahead(c, t, steps));
  *k = ex_add(c->p, other, ex_add(c->p, at, q));
  for (int y = 0; y < t->high; y++)
    for (int x = 0; x < t->wide; x++) stmt_add(&out, multiply(c, t, y, x, q));
  *k = was;
  return contract_k_loops(c, stmt_for(arena(c), FOR_SERIAL, o, out.first), 0, last, &t->s);
}

static Stmt *fill(Contract *c, int sum) {
  const Expr *r = row_var(c), *j = var(c, "j", c->lanes);
  Stmt *set = stmt_set(arena(c), sum, element(c, r, j), zero(c));
  return matrix_loop(c, r, matrix_loop(c, j, set));
}

static Stmt *copy(Contract *c, const MatrixTile *t, int y, int x, int to) {
  const Expr *r = row_var(c), *j = var(c, "j", c->lanes);
  const Expr *row = ex_add(c->p, r, num(c, (int64_t)y * c->plan.matrix));
  const Expr *at = ex_add(c->p, ex_mul(c->p, row, num(c, width_of(c, t->pn))),
                          ex_add(c->p, j, num(c, (int64_t)x * c->lanes)));
  Stmt *set = stmt_set(arena(c), to, at, local_of(c, t->sum[y][x], element(c, r, j)));
  return matrix_loop(c, r, matrix_loop(c, j, set));
}

static Stmt *store(Contract *c, const MatrixTile *t, int sums) {
  const Spot *s = &t->s;
  const Expr *y = var(c, "h", s->th - t->skip_h), *x = var(c, "w", s->tw - t->skip_w);
  const Expr *j = ex_var(c->p, "j", t->pn->cols);
  const Expr *line = ex_add(c->p, y, num(c, t->skip_h)), *row = ex_add(c->p, x, num(c, t->skip_w));
  const Expr *i = ex_add(c->p, ex_mul(c->p, line, num(c, s->tw)), row);
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width_of(c, t->pn))), j);
  Stmt *st = contract_store_lanes(c, t->pn, ex_add(c->p, s->h, line), ex_add(c->p, s->w, row), j,
                                  local_of(c, sums, at));
  return stmt_for(arena(c), FOR_SERIAL, y, stmt_for(arena(c), FOR_SERIAL, x, st));
}

static int sum_register(Contract *c, int i) {
  const Local l = {.name = "m",
                   .dtype = c->types->acc,
                   .count = (int64_t)c->plan.matrix * c->lanes,
                   .memory = MEM_MATRIX};
  if (!c->matrix_sum[i]) c->matrix_sum[i] = 1 + kernel_add_local(c->l->mod, c->b.k, l);
  return c->matrix_sum[i] - 1;
}

static Stmt *tile_body(Contract *c, MatrixTile *t) {
  const int rows = t->s.th * t->s.tw;
  StmtList out = {0};
  t->high = rows / c->plan.matrix;
  t->wide = t->pn->vectors;
  for (int y = 0; y < t->high; y++)
    for (int x = 0; x < t->wide; x++) {
      t->sum[y][x] = sum_register(c, y * ACROSS + x);
      stmt_add(&out, stmt_local(arena(c), t->sum[y][x]));
      stmt_add(&out, fill(c, t->sum[y][x]));
    }
  stmt_add(&out, multiply_all(c, t));
  const int sums = contract_sums_local(c, "s", (int64_t)rows * width_of(c, t->pn), true);
  stmt_add(&out, stmt_local(arena(c), sums));
  for (int y = 0; y < t->high; y++)
    for (int x = 0; x < t->wide; x++) stmt_add(&out, copy(c, t, y, x, sums));
  stmt_add(&out, store(c, t, sums));
  return out.first;
}

/* `count` rows from `first`, of the lines that t says. */
static Stmt *line_of_tiles(Contract *c, MatrixTile t, const Expr *first, int64_t count) {
  const int64_t full = count / t.s.tw, rest = count % t.s.tw;
  StmtList out = {0};
  if (full) {
    const Expr *i = var(c, "w", full);
    MatrixTile one = t;
    one.s.w = ex_add(c->p, first, ex_mul(c->p, i, num(c, t.s.tw)));
    if (t.leads) one.leads = ex_and(c->p, t.leads, ex_lt(c->p, i, num(c, 1)));
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, i, tile_body(c, &one)));
  }
  if (rest) {
    t.s.w = ex_add(c->p, first, num(c, count - t.s.tw));
    t.skip_w = t.s.tw - (int)rest;
    if (full) t.leads = NULL;
    stmt_add(&out, tile_body(c, &t));
  }
  return out.first;
}

Stmt *contract_matrix_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                            const Expr *count) {
  MatrixTile t = {
      .pn = pn, .s = {.h = num(c, 0), .th = 1, .tw = bl->tw}, .leads = ex_bool(c->p, true)};
  int64_t n = 0, w = 0;
  expr_is_const(count, &n);
  if (c->flat) return line_of_tiles(c, t, first, n);
  expr_is_const(c->rows_w, &w);
  StmtList out = {0};
  const int64_t full = n / bl->th, rest = n % bl->th;
  t.s.th = bl->th;
  if (full) {
    const Expr *y = var(c, "h", full);
    t.s.h = ex_add(c->p, first, ex_mul(c->p, y, num(c, bl->th)));
    t.leads = ex_lt(c->p, y, num(c, 1));
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, y, line_of_tiles(c, t, num(c, 0), w)));
  }
  if (rest) {
    t.s.h = ex_add(c->p, first, num(c, n - bl->th));
    t.skip_h = bl->th - (int)rest;
    t.leads = full ? NULL : ex_bool(c->p, true);
    stmt_add(&out, line_of_tiles(c, t, num(c, 0), w));
  }
  return out.first;
}

/* Whether `rows` of A follow each other so. */
static bool rows_fit(Contract *c, int rows) {
  const Expr *h = ex_var(c->p, "h", c->rows_h), *w = ex_var(c->p, "w", c->rows_w);
  const Expr *r = var(c, "r", rows), **k = &c->k[c->n_k - 1], *was = *k, *q = var(c, "q", ACROSS);
  if (c->b_buffer < 0 || c->stored) return false;
  for (int i = 0; i < c->n_outer; i++)
    if (!c->outer[i]) c->outer[i] = ex_var(c->p, "o", c->outer_extent[i]);
  *k = ex_add(c->p, was, q);
  w = ex_add(c->p, w, r);
  const Expr *a = is_floats(c) ? half_of_a(c, h, w, 0) : contract_a_value(c, h, w);
  *k = was;
  return matrix_reads(c->p, a, r, q);
}

bool contract_matrix_fits(Contract *c) { return rows_fit(c, c->plan.matrix); }

/* ---- two rows and two columns ---- */
enum { SQUARE = 2 };

/* Registers of a tile: in each line its rows two by two, of each the columns two by two. */
typedef struct Squares {
  const Panel *pn;
  const Spot *s;
  int sums;  /* local */
  int local; /* the tile */
} Squares;

/* One of them. */
typedef struct Square {
  const Expr *line, *row, *col; /* the first one, in the tile */
  const Expr *at;               /* its first element */
  const Expr *r, *j;
  int rows;
} Square;

static const Expr *square_sum(const Contract *c, const Squares *q, const Square *x,
                              const Expr **at) {
  *at = ex_add(c->p, x->at, ex_add(c->p, ex_mul(c->p, x->r, num(c, SQUARE)), x->j));
  return local_of(c, q->sums, *at);
}

static Stmt *square_loops(Contract *c, const Square *x, Stmt *body) {
  return matrix_loop(c, x->r, matrix_loop(c, x->j, body));
}

static Stmt *fill_square(Contract *c, const Squares *q, const Square *x, const Expr *step) {
  const Expr *at;
  (void)step;
  square_sum(c, q, x, &at);
  return square_loops(c, x, stmt_set(arena(c), q->sums, at, zero(c)));
}

static Stmt *copy_square(Contract *c, const Squares *q, const Square *x, const Expr *step) {
  const Expr *at, *sum = square_sum(c, q, x, &at);
  const Expr *row = ex_add(c->p, ex_mul(c->p, x->line, num(c, q->s->tw)), x->row);
  const Expr *to = ex_mul(c->p, ex_add(c->p, row, x->r), num(c, width_of(c, q->pn)));
  (void)step;
  to = ex_add(c->p, to, ex_add(c->p, x->col, x->j));
  return square_loops(c, x, stmt_set(arena(c), q->local, to, sum));
}

static Stmt *multiply_square(Contract *c, const Squares *q, const Square *x, const Expr *step) {
  const Expr *at, *w = ex_add(c->p, q->s->w, ex_add(c->p, x->row, x->r));
  square_sum(c, q, x, &at);
  const Expr *a = contract_a_value(c, ex_add(c->p, q->s->h, x->line), w);
  const Expr *b = contract_b_value(c, q->pn, ex_add(c->p, x->col, x->j));
  return square_loops(c, x, multiply_group(c, q->sums, at, a, b, step));
}

typedef Stmt *SquareBody(Contract *c, const Squares *q, const Square *x, const Expr *step);

/* body for all of them, which are copied out: a column's for all rows. An odd row is a square of its own. */
static void each_square(Contract *c, const Squares *q, SquareBody *body, const Expr *step,
                        StmtList *out) {
  const int tw = q->s->tw, across = (tw + 1) / SQUARE, wide = width_of(c, q->pn) / SQUARE;
  const Expr *col = var(c, "n", wide);
  StmtList all = {0};
  for (int rows = SQUARE; rows >= 1; rows--) {
    const int count = rows == SQUARE ? tw / SQUARE : tw % SQUARE;
    if (!count) continue;
    const Expr *line = var(c, "h", q->s->th), *pair = var(c, "w", count);
    Square x = {.line = line, .rows = rows, .r = var(c, "r", rows), .j = var(c, "j", SQUARE)};
    const Expr *number = rows == SQUARE ? pair : num(c, tw / SQUARE);
    x.row = ex_mul(c->p, number, num(c, SQUARE));
    x.col = ex_mul(c->p, col, num(c, SQUARE));
    x.at = ex_add(c->p, ex_mul(c->p, line, num(c, across)), number);
    x.at = ex_add(c->p, ex_mul(c->p, x.at, num(c, wide)), col);
    x.at = ex_mul(c->p, x.at, num(c, SQUARE * SQUARE));
    Stmt *one = stmt_for(arena(c), FOR_UNROLL, pair, body(c, q, &x, step));
    stmt_add(&all, stmt_for(arena(c), FOR_UNROLL, line, one));
  }
  stmt_add(out, stmt_for(arena(c), FOR_UNROLL, col, all.first));
}

/* The innermost loop of k, in the steps of squares. */
static Stmt *square_steps(Contract *c, const Squares *q) {
  const ContractShape shape = contract_shape(c);
  const int last = c->n_loops - 1, steps = contract_square_steps(&shape);
  const Expr *loop = c->loop[last], **k = &c->k[c->n_k - 1], *was = *k;
  const Expr *o = ex_var(c->p, "k", ex_floordiv(c->p, c->loop_extent[last], num(c, steps)));
  const Expr *step = var(c, "q", steps), *at = ex_mul(c->p, o, num(c, steps));
  const int64_t share = contract_prefetch_share(c, q->pn, q->s);
  StmtList out = {0};
  for (int64_t i = 0; i < steps; i += share < steps ? share : steps)
    stmt_add(&out, contract_prefetch_at(c, q->pn, q->s, ex_add(c->p, at, num(c, i))));
  *k = ex_add(c->p, ex_sub(c->p, was, loop), ex_add(c->p, at, step));
  each_square(c, q, multiply_square, step, &out);
  *k = was;
  return contract_k_loops(c, stmt_for(arena(c), FOR_SERIAL, o, out.first), 0, last, q->s);
}

Stmt *contract_multiply_squares(Contract *c, const Panel *pn, int local, const Spot *s) {
  const int registers = s->th * ((s->tw + 1) / SQUARE) * width_of(c, pn) / SQUARE;
  const Local sums = {.name = "m",
                      .dtype = c->types->acc,
                      .count = (int64_t)SQUARE * SQUARE * registers,
                      .memory = MEM_MATRIX};
  const Squares q = {
      .pn = pn, .s = s, .local = local, .sums = kernel_add_local(c->l->mod, c->b.k, sums)};
  StmtList out = {0};
  stmt_add(&out, stmt_local(arena(c), q.sums));
  each_square(c, &q, fill_square, NULL, &out);
  stmt_add(&out, square_steps(c, &q));
  each_square(c, &q, copy_square, NULL, &out);
  return out.first;
}

bool contract_squares_fit(Contract *c) {
  return c->squares && !c->hoisted && c->n_loops == c->n_k && rows_fit(c, SQUARE);
}
