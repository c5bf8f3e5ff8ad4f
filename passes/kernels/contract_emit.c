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
#include "passes/kernels/contract_parts.h"
#include "passes/kernels/stored_weights.h"

static StoredPanel stored_panel(const Panel *pn) {
  return (StoredPanel){.col = pn->col, .width = pn->b_width, .base = pn->b_base};
}

/* ---- the end of a sum ---- */

const Expr *contract_finish(Contract *c, const Expr *sum, const Expr *const *idx) {
  if (c->scale != 1.0) sum = ex_mul(c->p, sum, ex_const(c->p, c->types->acc, c->scale));
  const Expr *extra = c->add ? c->add(c, idx) : NULL;
  if (extra) sum = ex_add(c->p, sum, extra);
  return kb_epilogue(&c->b, c->root, c->anchor, idx, sum);
}

/* Stores lane j of the row (h, w). */
Stmt *contract_store_lanes(Contract *c, const Panel *pn, const Expr *h, const Expr *w,
                           const Expr *j, const Expr *sum) {
  const Expr *idx[MAX_RANK];
  c->out_index(c, h, w, ex_add(c->p, pn->col, j), idx);
  const Expr *value = c->plain_rank ? sum : contract_finish(c, sum, idx);
  const int out = kb_param(&c->b, c->to->buffer, c->to->offset, PA_WRITE);
  const int rank = c->plain_rank ? c->plain_rank : c->root->rank;
  value = ex_cast(c->p, kb_dtype(&c->b, out), value); /* a ring keeps small floats as f32 */
  Stmt *st = stmt_store(arena(c), out, place_index(c->p, c->to, rank, idx), value);
  return stmt_for(arena(c), FOR_VECTOR, j, st);
}

static Stmt *store_tile(Contract *c, const Panel *pn, int local, const Spot *s) {
  const Expr *i = var(c, "r", s->th * s->tw), *j = ex_var(c->p, "j", pn->cols), *rh, *rw;
  contract_tile_row(c, s, i, &rh, &rw);
  const Expr *at = ex_add(c->p, ex_mul(c->p, i, num(c, width_of(c, pn))), j);
  const bool regs = c->b.k->locals.data[local].memory == MEM_REGS;
  Stmt *row = contract_store_lanes(c, pn, rh, rw, j, local_of(c, local, at));
  return stmt_for(arena(c), regs ? FOR_UNROLL : FOR_SERIAL, i, row);
}

bool contract_is_heavy(Contract *c) {
  enum { HEAVY = 14 };
  if (c->plain_rank) return false;
  const Expr *idx[MAX_RANK];
  c->out_index(c, ex_var(c->p, "h", c->rows_h), ex_var(c->p, "w", c->rows_w),
               ex_var(c->p, "j", c->n), idx);
  return expr_cost(contract_finish(c, ex_hole(c->p, c->types->acc, 1), idx)) > HEAVY;
}

/* Symbolic column counts and heavy epilogues: the tile is copied to the stack, where lanes may be
 * cut at run time and rows done one by one. */
static int to_stack(Contract *c, StmtList *out, int local, int rows, int width) {
  const int copy = contract_sums_local(c, "s", (int64_t)rows * width, true);
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

enum { MOST_ENDS = 8 };

typedef struct Ends {
  const Expr *load[MOST_ENDS];
  int n;
} Ends;

static bool collect_load(void *user, const Expr *e) {
  Ends *const ends = user;
  if (e->op == EX_LOAD && !e->a[1] && ends->n < MOST_ENDS) ends->load[ends->n++] = e;
  return false;
}

/* What is as large as the result has left the second-level cache before its tile comes. */
static bool ends_are_far(const Contract *c) {
  const double rows = expr_extent_guess(c->p, c->rows_w), n = expr_extent_guess(c->p, c->n);
  return rows * n * dtype_bytes(c->types->acc) > (double)c->l->c->target->l2_bytes;
}

/* What a long epilogue, or one of large operands, reads beside the sums, of each row of the tile elsewhere, comes while
 * these are made: there is no time for waiting behind them. NULL: nothing. */
static Stmt *prefetch_ends(Contract *c, const Panel *pn, const Spot *s) {
  if (!c->flat || !(c->heavy || ends_are_far(c))) return NULL;
  const Expr *idx[MAX_RANK], *i = var(c, "r", s->th * s->tw), *rh, *rw;
  const int line = CACHE_LINE / dtype_bytes(c->types->acc);
  StmtList out = {0};
  Ends ends = {0};
  contract_tile_row(c, s, i, &rh, &rw);
  const Expr *j = var(c, "j", (width_of(c, pn) + line - 1) / line);
  c->out_index(c, rh, rw, ex_add(c->p, pn->col, ex_mul(c->p, j, num(c, line))), idx);
  expr_any(contract_finish(c, ex_hole(c->p, c->types->acc, 1), idx), EXF_LOAD, collect_load, &ends);
  for (int n = 0; n < ends.n; n++)
    if (expr_uses_var(ends.load[n]->a[0], i->id))
      stmt_add(&out, stmt_prefetch(arena(c), ends.load[n]->id, ends.load[n]->a[0]));
  if (!out.first) return NULL;
  return stmt_for(arena(c), FOR_UNROLL, i, stmt_for(arena(c), FOR_UNROLL, j, out.first));
}

static Stmt *tile_body(Contract *c, const Panel *pn, const Spot *s) {
  const int rows = s->th * s->tw, width = width_of(c, pn);
  StmtList out = {0};
  int local = contract_sums_local(c, "t", (int64_t)rows * width, false);
  stmt_add(&out, stmt_local(arena(c), local));
  stmt_add(&out, fill_tile(c, pn, local, s, pn->sums < 0 ? zero(c) : NULL));
  const StoredPanel stored = stored_panel(pn);
  if (pn->sums < 0) stmt_add(&out, prefetch_ends(c, pn, s));
  if (c->direct && c->stored)
    stmt_add(&out, stored_multiply(c, &stored, local, s->h, s->w, rows));
  else
    stmt_add(&out, contract_multiply(c, pn, local, s));
  if (pn->sums >= 0) {
    stmt_add(&out, save_tile(c, pn, local, s));
    Stmt *part = out.first;
    for (int i = 0; i < c->hoisted; i++) part = contract_if_live(c, i, s, part);
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
static Stmt *plain_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                         const Expr *count) {
  Spot s = {.h = num(c, 0), .sum = first_sum(c, pn, bl), .th = 1, .tw = bl->tw};
  if (c->flat) return line_of_tiles(c, pn, s, first, count, NULL);
  const Expr *y = ex_var(c->p, "h", ex_floordiv(c->p, count, num(c, bl->th)));
  const Expr *line = ex_mul(c->p, y, num(c, bl->th));
  if (!expr_is_const(ex_floordiv(c->p, count, num(c, bl->th)), &s.tiles)) s.tiles = 0;
  s.th = bl->th;
  s.h = ex_add(c->p, first, line);
  s.sum = ex_add(c->p, s.sum, ex_mul(c->p, line, c->rows_w));
  return stmt_for(arena(c), FOR_SERIAL, y, line_of_tiles(c, pn, s, num(c, 0), c->rows_w, y));
}

/* The same behind what they need of the panel unpacked. */
static Stmt *block_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                         const Expr *count) {
  StmtList out = {0};
  const StoredPanel stored = stored_panel(pn);
  if (contract_reads_unpacked(c)) stmt_add(&out, stored_unpack(c, &stored));
  stmt_add(&out, plain_tiles(c, pn, bl, first, count));
  return out.first;
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
  StmtList block = {0};
  if (c->plan.gathered) stmt_add(&block, contract_gather(c, first, count, bl));
  stmt_add(&block, for_members(c, &m, block_tiles(c, &m, bl, first, count)));
  c->gathered = -1;
  stmt_add(&out, contract_k_loops(c, block.first, 0, c->hoisted, NULL));
  m = group_member(c, &pn);
  const Expr *j = ex_var(c->p, "j", pn.cols), *h = ex_var(c->p, "h", c->flat ? num(c, 1) : count);
  const Expr *w = ex_var(c->p, "w", c->flat ? count : c->rows_w);
  const Expr *row = c->flat ? w : ex_add(c->p, ex_mul(c->p, h, c->rows_w), w);
  row = ex_add(c->p, row, first_sum(c, &m, bl));
  const Expr *sum = ex_load(c->p, c->types->acc, pn.sums,
                            ex_add(c->p, ex_mul(c->p, row, num(c, width)), j), NULL);
  Stmt *st = c->flat ? contract_store_lanes(c, &m, num(c, 0), ex_add(c->p, first, w), j, sum)
                     : contract_store_lanes(c, &m, ex_add(c->p, first, h), w, j, sum);
  st = stmt_for(a, FOR_SERIAL, w, st);
  stmt_add(&out, for_members(c, &m, c->flat ? st : stmt_for(a, FOR_SERIAL, h, st)));
  return out.first;
}

/* So few rows (flat) or lines that each tile unpacks weights for itself. */
static int64_t few_rows(const Contract *c, const Blocks *bl) {
  if (c->stored) return STORED_FEW;
  if (c->flat) return CONVERT_TILES * bl->tw;
  const double tiles = expr_extent_guess(c->p, c->rows_w) / bl->tw; /* of a line */
  return (int64_t)(CONVERT_TILES * bl->th / (tiles > 1 ? tiles : 1));
}

static Stmt *direct_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                          const Expr *count) {
  Blocks small = *bl;
  if (c->stored && !c->types->scaled && small.tw > STORED_FEW) small.tw = STORED_FEW;
  const Panel m = group_member(c, pn);
  c->direct = true;
  Stmt *few = c->stored ? for_members(c, &m, block_tiles(c, &m, &small, first, count))
                        : blocked_tiles(c, *pn, &small, first, count);
  c->direct = false;
  return few;
}

/* Weights in fewer bits than are multiplied: whether there are so few rows that each tile unpacks
 * them may only be known at run time. */
static Stmt *narrow_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                          const Expr *count) {
  int64_t n;
  const int64_t most = few_rows(c, bl);
  const bool fixed = expr_is_const(count, &n);
  if (c->types->scaled) return direct_tiles(c, pn, bl, first, count);
  Stmt *few = !fixed || n <= most ? direct_tiles(c, pn, bl, first, count) : NULL;
  if (few && fixed) return few;
  Stmt *many = blocked_tiles(c, *pn, bl, first, count);
  return few ? stmt_if(arena(c), ex_le(c->p, count, num(c, most)), few, many) : many;
}

static Stmt *rows_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                        const Expr *count) {
  if (c->plan.matrix && !c->squares) return contract_matrix_tiles(c, pn, bl, first, count);
  return c->stored || contract_converts(c) ? narrow_tiles(c, pn, bl, first, count)
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

const Expr *contract_flops(const Contract *c) {
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
  c->heavy = contract_is_heavy(c);
  Stmt *body = panels_body(c, &bl, panel, block);
  const ContractShape shape = contract_shape(c);
  kb_estimate(
      &c->b, c->plain_rank ? "winograd" : "tiled",
      contract_estimate(c->l->c, &shape, &c->plan, contract_asks_live(c) ? c->live_share : 1));
  c->b.k->flops = contract_flops(c);
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
  c->heavy = contract_is_heavy(c);
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
  c->direct = !c->stored && contract_converts(c);
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
