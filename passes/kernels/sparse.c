/* Products with constant weights of which many are zero, which are left out. Lanes run over rows:
 *
 *   parallel p over (outer, block of rows)
 *     for blocks of k
 *       rows = A turned: [k][row]; spoilt = the sum of 0 · rows: NaN where one is NaN or infinite
 *       for groups of columns
 *         sums = spoilt, and what scratch has; for entries of the group in the block:
 *           sums[column] += rows[entry's k] · entry's weight of the column
 *         the sums go into scratch, or with epilogue into the result
 *     for panels of columns: the results, with epilogue, from scratch
 *
 * An entry is a step of k in which a column of the group has a weight that is not zero; a group's entries
 * are a line of a matrix in compressed rows (Elsen et al., Fast Sparse ConvNets, 2020: lines of pixels by
 * single channels). What a group of several columns reads of A it uses for each of them: of weights whose
 * zeros lie in blocks. A convolution reads its border by conditions, while A is turned. Since a weight that
 * is left out may have met what is not finite, all results of such a row are NaN. */
#include <string.h>

#include "passes/build/nest.h"
#include "passes/choose/choice.h"
#include "passes/kernels/contract_parts.h"

typedef struct Sparse {
  Contract *c;
  const SparseWeights *s;
  PlanLoops loops;
  int64_t entries, longest; /* in all; of a group in a block of k */
  int64_t pitch;            /* rows of a block */
  int64_t steps, blocks;    /* of k in a block, and how many blocks there are */
  int begin, place, weight; /* module buffers: first entry of each block's groups; by entry */
  int rows, sums; /* scratch parameters; sums -1: they go from registers into the result */
  int64_t panel;  /* columns whose results are stored together */
  bool adjoin;    /* rows of the result follow each other in memory */
} Sparse;

/* ---- entries ---- */

static int add_data(Sparse *d, DType t, int64_t count, const void *data) {
  return contract_weights(d->c->l, const_new(d->c->l->m, NULL, t, 1, &count, data));
}

/* Where A lies in scratch and the weights, entry by entry, and where groups begin. */
static void pack_entries(Sparse *d) {
  const SparseWeights *s = d->s;
  Arena *a = arena(d->c);
  const int columns = d->loops.width;
  const int64_t groups = s->n / columns, lists = groups * d->blocks;
  d->entries = sparse_entries(s, columns);
  int32_t *begin = ARENA_ARRAY(a, int32_t, lists + 1),
          *place = ARENA_ARRAY(a, int32_t, d->entries + 1);
  float *weight = ARENA_ARRAY(a, float, (d->entries + 1) * columns);
  int32_t n = 0;
  for (int64_t l = 0; l < lists; l++) {
    const int64_t first = l / groups * d->steps, col = l % groups * columns;
    begin[l] = n;
    for (int64_t k = first; k < first + d->steps && k < s->k; k++) {
      if (!sparse_is_entry(s, k, col, columns)) continue;
      for (int i = 0; i < columns; i++)
        weight[(int64_t)n * columns + i] = sparse_weight(s, k, col + i);
      place[n++] = (int32_t)((k - first) * d->pitch);
    }
    if (n - begin[l] > d->longest) d->longest = n - begin[l];
  }
  begin[lists] = n;
  d->begin = add_data(d, DT_I32, lists + 1, begin);
  d->place = add_data(d, DT_I32, d->entries + (n == 0), place);
  d->weight = add_data(d, DT_F32, (d->entries + (n == 0)) * columns, weight);
}

static const Expr *load(Sparse *d, int buffer, const Expr *at) {
  Contract *c = d->c;
  const int id = kb_param(&c->b, buffer, NULL, PA_READ);
  return ex_load(c->p, kb_dtype(&c->b, id), id, at, NULL);
}

static const Expr *load_index(Sparse *d, int buffer, const Expr *at) {
  return ex_cast(d->c->p, DT_I64, load(d, buffer, at));
}

/* ---- a block of rows ---- */

typedef struct Block {
  const Expr *first; /* row */
  int vectors;
  const Expr *count; /* rows of it that there are */
  bool whole;        /* as many as the vectors hold */
} Block;

static const Expr *row_of(const Contract *c, const Block *b, const Expr *r) {
  const Expr *at = ex_add(c->p, b->first, r);
  return b->whole ? at : ex_min(c->p, at, ex_sub(c->p, c->rows_w, num(c, 1)));
}

/* Sets c->k to step k. */
static void set_step(Contract *c, const Expr *k) {
  nest_indices(c->p, k, c->n_k, c->k_extent, c->k);
}

/* rows[k][r] = A[first + r, block*steps + k]; lanes without a row have the last one's. */
static Stmt *turn_rows(Sparse *d, const Block *b, const Expr *block) {
  Contract *c = d->c;
  const Expr *first = ex_mul(c->p, block, num(c, d->steps));
  const Expr *left = ex_min(c->p, num(c, d->steps), ex_sub(c->p, num(c, d->s->k), first));
  const Expr *v = var(c, "v", b->vectors), *j = var(c, "j", c->lanes), *k = ex_var(c->p, "k", left);
  const Expr *r = ex_add(c->p, ex_mul(c->p, v, num(c, c->lanes)), j);
  set_step(c, ex_add(c->p, first, k));
  const Expr *at = ex_add(c->p, ex_mul(c->p, k, num(c, d->pitch)), r);
  Stmt *s = stmt_store(arena(c), d->rows, at, c->a(c, num(c, 0), row_of(c, b, r)));
  s = stmt_for(arena(c), FOR_SERIAL, k, stmt_for(arena(c), FOR_VECTOR, j, s));
  return stmt_for(arena(c), FOR_SERIAL, v, s);
}

/* Row r of what stands behind the steps of k in scratch. */
static const Expr *spoilt_at(const Sparse *d, const Expr *r) {
  return ex_add(d->c->p, num(d->c, d->steps * d->pitch), r);
}

static const Expr *spoilt(const Sparse *d, const Expr *r) {
  return ex_load(d->c->p, DT_F32, d->rows, spoilt_at(d, r), NULL);
}

static Stmt *find_spoilt(const Sparse *d, const Block *b, const Expr *block) {
  Contract *c = d->c;
  Arena *a = arena(c);
  StmtList out = {0};
  const Expr *left = ex_sub(c->p, num(c, d->s->k), ex_mul(c->p, block, num(c, d->steps)));
  const Expr *k = ex_var(c->p, "k", ex_min(c->p, num(c, d->steps), left)),
             *v = var(c, "v", b->vectors);
  const Expr *j[] = {var(c, "j", c->lanes), var(c, "j", c->lanes), var(c, "j", c->lanes)};
  const Expr *first = ex_mul(c->p, v, num(c, c->lanes));
  const int local = contract_sums_local(c, "z", c->lanes, false);
  const Expr *at = ex_add(c->p, ex_mul(c->p, k, num(c, d->pitch)), ex_add(c->p, first, j[1]));
  const Expr *sum = ex_op(c->p, EX_fma, ex_load(c->p, DT_F32, d->rows, at, NULL), zero(c),
                          local_of(c, local, j[1]));
  stmt_add(&out, stmt_local(a, local));
  stmt_add(&out, stmt_for(a, FOR_VECTOR, j[0], stmt_set(a, local, j[0], zero(c))));
  Stmt *s = stmt_for(a, FOR_VECTOR, j[1], stmt_set(a, local, j[1], sum));
  stmt_add(&out, stmt_for(a, FOR_SERIAL, k, s));
  s = stmt_store(a, d->rows, spoilt_at(d, ex_add(c->p, first, j[2])), local_of(c, local, j[2]));
  stmt_add(&out, stmt_for(a, FOR_VECTOR, j[2], s));
  return stmt_for(a, FOR_SERIAL, v, out.first);
}

/* ---- sums of a group of columns ---- */

/* One of them: in registers, and in scratch, where columns are `pitch` apart. */
typedef struct Sum {
  const Expr *column, *row, *local, *scratch;
} Sum;

/* slot: the group's first column in scratch. */
static Sum sum_of(const Sparse *d, const Block *b, const Expr *slot) {
  Contract *c = d->c;
  const int64_t width = (int64_t)b->vectors * c->lanes;
  Sum m = {.column = var(c, "u", d->loops.width), .row = var(c, "j", width)};
  m.local = ex_add(c->p, ex_mul(c->p, m.column, num(c, width)), m.row);
  m.scratch = ex_add(c->p, ex_mul(c->p, ex_add(c->p, slot, m.column), num(c, d->pitch)), m.row);
  return m;
}

static Stmt *for_sums(const Sparse *d, const Sum *m, Stmt *s) {
  s = stmt_for(arena(d->c), FOR_VECTOR, m->row, s);
  return stmt_for(arena(d->c), FOR_UNROLL, m->column, s);
}

static Stmt *begin_sums(const Sparse *d, const Block *b, int local) {
  const Sum m = sum_of(d, b, num(d->c, 0));
  return for_sums(d, &m, stmt_set(arena(d->c), local, m.local, spoilt(d, m.row)));
}

static Stmt *load_sums(const Sparse *d, const Block *b, int local, const Expr *slot) {
  const Sum m = sum_of(d, b, slot);
  const Expr *v = ex_load(d->c->p, DT_F32, d->sums, m.scratch, NULL);
  v = ex_add(d->c->p, v, spoilt(d, m.row));
  return for_sums(d, &m, stmt_set(arena(d->c), local, m.local, v));
}

static Stmt *keep_sums(const Sparse *d, const Block *b, int local, const Expr *slot) {
  const Sum m = sum_of(d, b, slot);
  const Expr *v = local_of(d->c, local, m.local);
  return for_sums(d, &m, stmt_store(arena(d->c), d->sums, m.scratch, v));
}

/* All groups go through as many steps as the longest has entries: bounds of loops are no data. */
static Stmt *add_entries(Sparse *d, const Block *b, const Expr *list, int local) {
  Contract *c = d->c;
  const Expr *t = var(c, "e", d->longest), *e = ex_add(c->p, load_index(d, d->begin, list), t);
  const Expr *end = load_index(d, d->begin, ex_add(c->p, list, num(c, 1)));
  const Sum m = sum_of(d, b, num(c, 0));
  const Expr *at = ex_add(c->p, load_index(d, d->place, e), m.row);
  const Expr *a = ex_load(c->p, DT_F32, d->rows, at, NULL);
  at = ex_add(c->p, ex_mul(c->p, e, num(c, d->loops.width)), m.column);
  const Expr *v = ex_op(c->p, EX_fma, a, load(d, d->weight, at), local_of(c, local, m.local));
  Stmt *s = for_sums(d, &m, stmt_set(arena(c), local, m.local, v));
  return stmt_for(arena(c), FOR_SERIAL, t, stmt_if(arena(c), ex_lt(c->p, e, end), s, NULL));
}

/* ---- results ---- */

static Stmt *store_result(Sparse *d, const Block *b, const Expr *r, const Expr *column,
                          const Expr *sum) {
  Contract *c = d->c;
  const Expr *idx[MAX_RANK];
  c->out_index(c, num(c, 0), ex_add(c->p, b->first, r), column, idx);
  const int out = kb_param(&c->b, c->to->buffer, c->to->offset, PA_WRITE);
  const Expr *v = ex_cast(c->p, kb_dtype(&c->b, out), contract_finish(c, sum, idx));
  return stmt_store(arena(c), out, place_index(c->p, c->to, c->root->rank, idx), v);
}

/* From registers, by rows; so many of them as are known. */
static Stmt *store_registers(Sparse *d, const Block *b, const Expr *first, int local) {
  Contract *c = d->c;
  Sum m = sum_of(d, b, num(c, 0));
  m.row = ex_var(c->p, "j", b->count);
  m.local = ex_add(c->p, ex_mul(c->p, m.column, num(c, (int64_t)b->vectors * c->lanes)), m.row);
  const Expr *v = local_of(c, local, m.local);
  return for_sums(d, &m, store_result(d, b, m.row, ex_add(c->p, first, m.column), v));
}

/* From scratch, columns [first, first + count), which stand there from `slot` on: the lanes run over what
 * lies next to each other. */
static Stmt *store_scratch(Sparse *d, const Block *b, const Expr *first, const Expr *slot,
                           int64_t count) {
  Contract *c = d->c;
  const Expr *j = var(c, "n", count), *r = ex_var(c->p, "r", b->count);
  const Expr *at = ex_add(c->p, ex_mul(c->p, ex_add(c->p, slot, j), num(c, d->pitch)), r);
  const Expr *v = ex_load(c->p, DT_F32, d->sums, at, NULL);
  Stmt *s = store_result(d, b, r, ex_add(c->p, first, j), v);
  s = stmt_for(arena(c), FOR_VECTOR, d->adjoin ? r : j, s);
  return stmt_for(arena(c), FOR_SERIAL, d->adjoin ? j : r, s);
}

/* ---- a block of rows ---- */

/* The group at column `first`, whose entries are `list`; slot: its place in scratch. */
static Stmt *add_group(Sparse *d, const Block *b, const Expr *first, const Expr *list,
                       const Expr *slot, const Expr *block) {
  Contract *c = d->c;
  Arena *a = arena(c);
  StmtList out = {0};
  const int local =
      contract_sums_local(c, "t", (int64_t)b->vectors * c->lanes * d->loops.width, false);
  stmt_add(&out, stmt_local(a, local));
  Stmt *begin = begin_sums(d, b, local);
  if (d->blocks > 1)
    begin = stmt_if(a, ex_eq(c->p, block, num(c, 0)), begin, load_sums(d, b, local, slot));
  stmt_add(&out, begin);
  if (d->longest) stmt_add(&out, add_entries(d, b, list, local));
  stmt_add(&out, d->sums < 0 ? store_registers(d, b, first, local) : keep_sums(d, b, local, slot));
  return out.first;
}

/* Columns [first, first + count), with all of k in one block. */
static Stmt *whole_columns(Sparse *d, const Block *b, const Expr *first, int64_t count) {
  Contract *c = d->c;
  StmtList out = {0};
  const int width = d->loops.width;
  const Expr *g = var(c, "g", count / width), *slot = ex_mul(c->p, g, num(c, width));
  const Expr *column = ex_add(c->p, first, slot);
  const Expr *list = ex_add(c->p, ex_floordiv(c->p, first, num(c, width)), g);
  Stmt *s = add_group(d, b, column, list, slot, NULL);
  stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, g, s));
  if (d->sums >= 0) stmt_add(&out, store_scratch(d, b, first, num(c, 0), count));
  return out.first;
}

/* f for all panels of columns, and for what is left. */
static Stmt *for_panels(Sparse *d, const Block *b,
                        Stmt *(*f)(Sparse *, const Block *, const Expr *, int64_t)) {
  Contract *c = d->c;
  StmtList out = {0};
  const int64_t full = d->s->n / d->panel, rest = d->s->n % d->panel;
  const Expr *n = var(c, "n", full);
  if (full) {
    Stmt *s = f(d, b, ex_mul(c->p, n, num(c, d->panel)), d->panel);
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, n, s));
  }
  if (rest) stmt_add(&out, f(d, b, num(c, full * d->panel), rest));
  return out.first;
}

static Stmt *store_panel(Sparse *d, const Block *b, const Expr *first, int64_t count) {
  return store_scratch(d, b, first, first, count);
}

/* k block by block, with the sums of all columns in scratch. */
static Stmt *blocks_of_steps(Sparse *d, const Block *b) {
  Contract *c = d->c;
  StmtList out = {0}, steps = {0};
  const int64_t groups = d->s->n / d->loops.width;
  const Expr *block = var(c, "b", d->blocks), *g = var(c, "g", groups);
  const Expr *first = ex_mul(c->p, g, num(c, d->loops.width));
  const Expr *list = ex_add(c->p, ex_mul(c->p, block, num(c, groups)), g);
  stmt_add(&steps, turn_rows(d, b, block));
  stmt_add(&steps, find_spoilt(d, b, block));
  Stmt *s = add_group(d, b, first, list, first, block);
  stmt_add(&steps, stmt_for(arena(c), FOR_SERIAL, g, s));
  stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, block, steps.first));
  stmt_add(&out, for_panels(d, b, store_panel));
  return out.first;
}

static Stmt *block_rows(Sparse *d, const Block *b) {
  StmtList out = {0};
  if (d->blocks > 1) return blocks_of_steps(d, b);
  stmt_add(&out, turn_rows(d, b, num(d->c, 0)));
  stmt_add(&out, find_spoilt(d, b, num(d->c, 0)));
  stmt_add(&out, for_panels(d, b, whole_columns));
  return out.first;
}

/* Block number `at`: a whole one, or what is left of the rows. */
static Stmt *rows_from(Sparse *d, const Expr *at) {
  Contract *c = d->c;
  const Expr *first = ex_mul(c->p, at, num(c, d->pitch));
  const Block whole = {first, d->loops.vectors, num(c, d->pitch), true};
  int64_t rows;
  if (expr_is_const(c->rows_w, &rows)) {
    const int64_t full = rows / d->pitch, rest = rows % d->pitch;
    const Block last = {num(c, full * d->pitch), (int)((rest + c->lanes - 1) / c->lanes),
                        num(c, rest), rest % c->lanes == 0};
    if (!rest) return block_rows(d, &whole);
    if (!full) return block_rows(d, &last);
    Stmt *s = block_rows(d, &whole);
    return stmt_if(arena(c), ex_lt(c->p, at, num(c, full)), s, block_rows(d, &last));
  }
  const Expr *left = ex_sub(c->p, c->rows_w, first);
  const Block last = {first, d->loops.vectors, left, false};
  Stmt *s = block_rows(d, &whole);
  return stmt_if(arena(c), ex_le(c->p, num(c, d->pitch), left), s, block_rows(d, &last));
}

/* ---- the kernel ---- */

/* Whether rows of the result follow each other in memory. */
static bool rows_adjoin(Contract *c) {
  const Expr *idx[MAX_RANK], *r = ex_var(c->p, "r", c->rows_w), *coeff, *rest;
  c->out_index(c, num(c, 0), r, num(c, 0), idx);
  return expr_affine(c->p, place_index(c->p, c->to, c->root->rank, idx), r, &coeff, &rest) &&
         expr_is_i64(coeff, 1);
}

static void set_blocks(Sparse *d) {
  enum {
    PANEL = 16
  }; /* columns whose sums go together from scratch into the result: a cache line */
  Contract *c = d->c;
  int64_t rows;
  d->pitch = (int64_t)d->loops.vectors * c->lanes;
  d->steps = d->loops.steps && d->loops.steps < d->s->k ? d->loops.steps : d->s->k;
  d->blocks = (d->s->k + d->steps - 1) / d->steps;
  d->adjoin = rows_adjoin(c);
  const bool direct =
      d->adjoin && d->blocks == 1 && expr_is_const(c->rows_w, &rows) && !contract_is_heavy(c);
  d->panel = direct || d->s->n < PANEL ? d->s->n : PANEL;
  const int64_t kept = d->blocks > 1 ? d->s->n : d->panel;
  d->sums = direct ? -1 : kb_scratch(&c->b, DT_F32, num(c, kept * d->pitch), "sums");
  d->rows = kb_scratch(&c->b, DT_F32, num(c, (d->steps + 1) * d->pitch), "rows");
}

static Step *emit(Contract *c, const SparseWeights *s) {
  Sparse d = {.c = c, .s = s, .loops = plan_loops(c->anchor->def->plan, 0)};
  if (!d.loops.vectors) d.loops = sparse_choose_loops(c->l->c, c->anchor->def);
  const Expr *block_count = ex_ceildiv(c->p, c->rows_w, (int64_t)d.loops.vectors * c->lanes);
  const Expr *total = block_count;
  for (int i = 0; i < c->n_outer; i++) total = ex_mul(c->p, total, c->outer_extent[i]);
  const Expr *par = ex_var(c->p, "p", total);
  nest_indices(c->p, ex_floordiv(c->p, par, block_count), c->n_outer, c->outer_extent, c->outer);
  set_blocks(&d);
  pack_entries(&d);
  Stmt *body = rows_from(&d, ex_floormod(c->p, par, block_count));
  const double cycles = sparse_cycles(c->l->c, c->anchor->def, &d.loops);
  const Expr *flops = ex_mul(c->p, c->rows_w, num(c, 2 * d.entries * d.loops.width));
  for (int i = 0; i < c->n_outer; i++) flops = ex_mul(c->p, flops, c->outer_extent[i]);
  c->b.k->flops = flops;
  kb_estimate(&c->b, "sparse", cycles);
  if (c->b.x.bad) {
    diag_internal(c->l->m->diag, c->b.loc, "lower: the epilogue of a contraction cannot be read");
    return NULL;
  }
  return kb_finish(&c->b, nest_parallel(&c->b, par, body, cycles));
}

Step *lower_sparse(Lower *l, const Value *root, const Value *anchor, const Place *to) {
  Contract c;
  SparseWeights weights;
  ConvInfo conv;
  MatMulInfo product;
  if (!sparse_weights(anchor->def, &weights)) {
    diag_internal(l->m->diag, anchor->def->loc, "lower: no sparse kernel for this contraction");
    return NULL;
  }
  if (conv_info(anchor->def, &conv)) {
    if (!conv_describe_rows(&c, l, root, anchor, to, &conv, 0)) return &l->nothing;
  } else if (matmul_info(anchor->def, &product)) {
    matmul_describe(&c, l, root, anchor, to, &product);
  }
  c.b.k->name = arena_printf(arena(&c), "%s_sparse", c.b.k->name);
  Step *const s = emit(&c, &weights);
  choice_mark(l->m->arena, s, anchor->def->plan->sparse_key);
  return s;
}
