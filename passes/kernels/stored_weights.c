/* Constant right-hand sides that stay in 2, 4 or 8 bits (DequantizeMatMul): packed into panels as
 * bytes, or as words of a column's next elements of k, with scales and zero points per block of k
 * beside them. Rows of bytes multiply them as integers (stored_bytes.c). A few rows of floats unpack them in registers, where they are used; more rows share a block of
 * a panel that was unpacked into scratch. So do many rows a block of 16-bit floats, whose panels are
 * as any other (contract_pack_const). */
#include "passes/kernels/stored_weights.h"

#include <string.h>

/* 2^23 as bits: or-ed with a small integer, a float that is larger by just that. */
static const int64_t magic_bits = 0x4B000000;
static const double magic = 8388608;

static const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }
static Arena *arena(const Contract *c) { return c->l->m->arena; }
static bool in_words(const Contract *c, const Stored *s) { return s->bits < 8 || c->types->scaled; }

/* ---- packing ---- */

typedef struct PanelWalk {
  int64_t columns, width, lanes;
} PanelWalk;

/* Lanes of the panel from column `first` on. */
static int64_t panel_lanes(const PanelWalk *w, int64_t first) {
  const int64_t left = w->columns - first;
  return left >= w->width ? w->width : (left + w->lanes - 1) / w->lanes * w->lanes;
}

static int64_t all_lanes(const PanelWalk *w) {
  int64_t n = 0;
  for (int64_t c = 0; c < w->columns; c += w->width) n += panel_lanes(w, c);
  return n;
}

static PanelWalk walk_of(const Contract *c, const ConstData *d) {
  return (PanelWalk){d->dims[1], (int64_t)c->tile.vectors * c->lanes, c->lanes};
}

/* Rows of d, panel by panel, in its own type; zeros behind the last column. */
static int pack_rows(Contract *c, const ConstData *d) {
  const PanelWalk w = walk_of(c, d);
  const size_t size = (size_t)dtype_bytes(d->dtype);
  const int64_t count = all_lanes(&w) * d->dims[0];
  char *data = arena_alloc(arena(c), (size_t)count * size + 1), *out = data;
  for (int64_t first = 0; first < w.columns; first += w.width)
    for (int64_t r = 0; r < d->dims[0]; r++)
      for (int64_t j = first, end = first + panel_lanes(&w, first); j < end; j++, out += size) {
        if (j < w.columns)
          memcpy(out, (const char *)d->data + (size_t)(r * w.columns + j) * size, size);
        else
          memset(out, 0, size);
      }
  return contract_weights(c->l, const_new(c->l->m, d->name, d->dtype, 1, &count, data));
}

/* Where element i of a word begins: one after the other; of scaled types in groups of four bytes, the
 * first group in the lowest bits of these. */
static int64_t bit_of(const Contract *c, const Stored *s, int64_t i) {
  return c->types->scaled ? i % 4 * 8 + i / 4 * s->bits : i * s->bits;
}

/* The elements of column j in word `word` of block `b`. */
static uint32_t word_of(const Contract *c, const Stored *s, const ConstData *d, int64_t b,
                        int64_t word, int64_t j) {
  const int64_t mask = (1 << s->bits) - 1, bias = dtype_rows[s->type].cls == DC_SINT ? 1 : 0;
  uint32_t out = 0;
  for (int64_t i = 0; i < s->per; i++) {
    const int64_t in_block = word * s->per + i, k = b * s->block + in_block;
    if (in_block >= s->block || k >= d->dims[0]) break;
    const int64_t q = const_int(d, k * d->dims[1] + j) + bias * (1 << (s->bits - 1));
    out |= (uint32_t)(q & mask) << bit_of(c, s, i);
  }
  return out;
}

static int pack_words(Contract *c, const Stored *s, const ConstData *d) {
  const PanelWalk w = walk_of(c, d);
  const int64_t count = all_lanes(&w) * s->rows;
  uint32_t *data = ARENA_ARRAY(arena(c), uint32_t, count + 1), *out = data;
  for (int64_t first = 0; first < w.columns; first += w.width)
    for (int64_t r = 0; r < s->rows; r++)
      for (int64_t j = first, end = first + panel_lanes(&w, first); j < end; j++)
        *out++ = j < w.columns ? word_of(c, s, d, r / s->words, r % s->words, j) : 0;
  return contract_weights(c->l, const_new(c->l->m, d->name, DT_U32, 1, &count, data));
}

static double element_of(const ConstData *d, int64_t i) {
  return dtype_is_float(d->dtype) ? const_float(d, i) : (double)const_int(d, i);
}

static void pack_zeros(Contract *c, Stored *s, const ConstData *z) {
  s->zeros = -1;
  s->whole_zeros = !z || !dtype_is_float(z->dtype);
  s->zero = z ? element_of(z, 0) : 0;
  for (int64_t i = 1; z && i < z->count; i++)
    if (element_of(z, i) != s->zero) {
      s->zeros = pack_rows(c, z);
      return;
    }
}

bool contract_pack_stored(Contract *c) {
  const Node *n = c->anchor->def;
  const ConstData *d = n->in[1]->cdata;
  Stored *s = ARENA_NEW(arena(c), Stored);
  s->type = d->dtype;
  s->bits = dtype_rows[d->dtype].bits;
  s->per = 32 / s->bits;
  s->block = node_int(n, "block", 1);
  s->blocks = (d->dims[0] + s->block - 1) / s->block;
  s->words = ((s->block < d->dims[0] ? s->block : d->dims[0]) + s->per - 1) / s->per;
  s->rows = in_words(c, s) ? s->blocks * s->words : d->dims[0];
  s->data = in_words(c, s) ? pack_words(c, s, d) : pack_rows(c, d);
  s->scales = pack_rows(c, n->in[2]->cdata);
  pack_zeros(c, s, node_in(n, 3) ? n->in[3]->cdata : NULL);
  c->stored = s;
  return true;
}

/* ---- one element ---- */

const Expr *stored_row(Contract *c, int buffer, int64_t rows, const StoredPanel *pn,
                       const Expr *row, const Expr *lane) {
  const int id = kb_param(&c->b, buffer, NULL, PA_READ);
  const Expr *at = ex_mul(c->p, pn->col, num(c, rows));
  at = ex_add(c->p, ex_add(c->p, at, ex_mul(c->p, row, num(c, pn->width))), lane);
  return ex_load(c->p, kb_dtype(&c->b, id), id, at, NULL);
}

static const Expr *block_of(const Contract *c, const Expr *k) {
  return ex_floordiv(c->p, k, num(c, c->stored->block));
}

static const Expr *scale_at(Contract *c, const StoredPanel *pn, const Expr *block,
                            const Expr *lane) {
  return stored_row(c, c->stored->scales, c->stored->blocks, pn, block, lane);
}

/* The element's bits in the word that has them, as 2^23 and as much. */
static const Expr *word_element(Contract *c, const StoredPanel *pn, const Expr *k,
                                const Expr *lane) {
  const Stored *s = c->stored;
  ExprPool *p = c->p;
  const Expr *inside = ex_floormod(p, k, num(c, s->block)), *per = num(c, s->per);
  const Expr *row =
      ex_add(p, ex_mul(p, block_of(c, k), num(c, s->words)), ex_floordiv(p, inside, per));
  const Expr *shift = ex_mul(p, ex_floormod(p, inside, per), num(c, s->bits));
  const Expr *v = stored_row(c, s->data, s->rows, pn, row, lane);
  v = ex_op(p, EX_shr, v, ex_cast(p, DT_U32, shift), NULL);
  v = ex_op(p, EX_and, v, ex_int(p, DT_U32, (1 << s->bits) - 1), NULL);
  v = ex_op(p, EX_or, v, ex_int(p, DT_U32, magic_bits), NULL);
  return ex_bits(p, DT_F32, v);
}

/* v - zero, where zero is a constant; v where that is nothing. */
static const Expr *less(const Contract *c, const Expr *v, double zero) {
  return zero == 0 ? v : ex_op(c->p, EX_sub, v, ex_const(c->p, DT_F32, zero), NULL);
}

/* Element k less its zero point, not scaled. Exact where that is an integer: it joins the 2^23. */
static const Expr *centered(Contract *c, const StoredPanel *pn, const Expr *k, const Expr *lane) {
  const Stored *s = c->stored;
  ExprPool *p = c->p;
  const bool biased = dtype_rows[s->type].cls == DC_SINT;
  const double offset = in_words(c, s) ? magic + (biased ? 1 << (s->bits - 1) : 0) : 0;
  const Expr *v = in_words(c, s) ? word_element(c, pn, k, lane)
                                 : ex_cast(p, DT_F32, stored_row(c, s->data, s->rows, pn, k, lane));
  if (s->zeros < 0)
    return s->whole_zeros ? less(c, v, offset + s->zero) : less(c, less(c, v, offset), s->zero);
  const Expr *z = stored_row(c, s->zeros, s->blocks, pn, block_of(c, k), lane);
  z = ex_cast(p, DT_F32, z);
  if (!s->whole_zeros) return ex_op(p, EX_sub, less(c, v, offset), z, NULL);
  return ex_op(p, EX_sub, v, ex_add(p, z, ex_const(p, DT_F32, offset)), NULL);
}

static const Expr *scaled(Contract *c, const StoredPanel *pn, const Expr *k, const Expr *lane) {
  return ex_mul(c->p, centered(c, pn, k, lane), scale_at(c, pn, block_of(c, k), lane));
}

/* ---- a few rows: unpacked in registers ---- */

typedef struct FewRows {
  const StoredPanel *pn;
  const Expr *h, *w; /* the first row */
  int rows;
  int sums;   /* the local that they are added to */
  bool plain; /* weights without their scale */
} FewRows;

/* Adds the products of step k. */
static Stmt *add_products(Contract *c, const FewRows *f, const Expr *k) {
  const int width = f->pn->width;
  const Expr *r = ex_var(c->p, "r", num(c, f->rows)), *j = ex_var(c->p, "j", num(c, width));
  const Expr *saved = c->k[0], *at = ex_add(c->p, ex_mul(c->p, r, num(c, width)), j);
  c->k[0] = k;
  const Expr *a = c->a(c, f->h, ex_add(c->p, f->w, r));
  c->k[0] = saved;
  const Expr *b = f->plain ? centered(c, f->pn, k, j) : scaled(c, f->pn, k, j);
  const Expr *sum = ex_op(c->p, EX_fma, a, b, ex_local(c->p, DT_F32, f->sums, at));
  Stmt *set = stmt_set(arena(c), f->sums, at, sum);
  return stmt_for(arena(c), FOR_UNROLL, r, stmt_for(arena(c), FOR_VECTOR, j, set));
}

/* Steps [first, first + count), first at the beginning of a word. */
static Stmt *add_steps(Contract *c, const FewRows *f, const Expr *first, int64_t count) {
  StmtList out = {0};
  const int64_t per = c->stored->per, whole = count / per, rest = count % per;
  const Expr *o = ex_var(c->p, "k", num(c, whole)), *u = ex_var(c->p, "u", num(c, per));
  if (whole) {
    const Expr *k = ex_add(c->p, first, ex_add(c->p, ex_mul(c->p, o, num(c, per)), u));
    Stmt *word = stmt_for(arena(c), FOR_UNROLL, u, add_products(c, f, k));
    stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, o, word));
  }
  if (rest) {
    const Expr *v = ex_var(c->p, "u", num(c, rest));
    const Expr *k = ex_add(c->p, first, ex_add(c->p, num(c, whole * per), v));
    stmt_add(&out, stmt_for(arena(c), FOR_UNROLL, v, add_products(c, f, k)));
  }
  return out.first;
}

/* One block: of a single row, products without the scale are added up and scaled together. */
static Stmt *add_block(Contract *c, FewRows f, const Expr *block, int64_t count) {
  Arena *a = arena(c);
  const int width = f.pn->width, sums = f.sums;
  const Expr *first = ex_mul(c->p, block, num(c, c->stored->block));
  if (f.rows > 1) return add_steps(c, &f, first, count);
  StmtList out = {0};
  const Expr *i = ex_var(c->p, "j", num(c, width)), *j = ex_var(c->p, "j", num(c, width));
  f.plain = true;
  f.sums = kernel_add_local(
      c->l->mod, c->b.k, (Local){.name = "u", .dtype = DT_F32, .count = width, .memory = MEM_REGS});
  stmt_add(&out, stmt_local(a, f.sums));
  stmt_add(&out, stmt_for(a, FOR_VECTOR, i, stmt_set(a, f.sums, i, ex_const(c->p, DT_F32, 0))));
  stmt_add(&out, add_steps(c, &f, first, count));
  const Expr *sum = ex_op(c->p, EX_fma, ex_local(c->p, DT_F32, f.sums, j),
                          scale_at(c, f.pn, block, j), ex_local(c->p, DT_F32, sums, j));
  stmt_add(&out, stmt_for(a, FOR_VECTOR, j, stmt_set(a, sums, j, sum)));
  return out.first;
}

Stmt *stored_multiply(Contract *c, const StoredPanel *pn, int local, const Expr *h, const Expr *w,
                      int rows) {
  StmtList out = {0};
  if (c->types->scaled) return stored_multiply_bytes(c, pn, local, h, w, rows);
  const FewRows f = {.pn = pn, .h = h, .w = w, .rows = rows, .sums = local};
  const int64_t block = c->stored->block;
  int64_t k = 0;
  expr_is_const(c->k_elements, &k);
  const Expr *b = ex_var(c->p, "b", num(c, k / block));
  if (k / block) stmt_add(&out, stmt_for(arena(c), FOR_SERIAL, b, add_block(c, f, b, block)));
  if (k % block) stmt_add(&out, add_block(c, f, num(c, k / block), k % block));
  return out.first;
}

/* ---- more rows: a block of the panel in scratch ---- */

static int64_t steps_inside(const Contract *c, const Expr **first) {
  int64_t n = 1, extent = 1;
  const Expr *outer = num(c, 0);
  for (int i = 0; i < c->n_loops; i++) {
    expr_is_const(c->loop_extent[i], &extent);
    if (i >= c->hoisted)
      n *= extent;
    else
      outer = ex_add(c->p, ex_mul(c->p, outer, c->loop_extent[i]), c->loop[i]);
  }
  *first = ex_mul(c->p, outer, num(c, n));
  return n;
}

/* A small float of a packed panel. */
static const Expr *converted(Contract *c, const StoredPanel *pn, const Expr *k, const Expr *lane) {
  const int id = kb_param(&c->b, c->b_buffer, NULL, PA_READ);
  const Expr *at = ex_add(c->p, pn->base, ex_mul(c->p, k, num(c, pn->width)));
  return contract_cast(c, ex_load(c->p, c->panel, id, ex_add(c->p, at, lane), NULL));
}

bool contract_converts(const Contract *c) {
  return c->types->k_step == 1 && c->b_buffer >= 0 && c->panel != c->types->acc &&
         dtype_is_float(c->panel);
}

bool contract_reads_unpacked(const Contract *c) {
  return !c->direct && (c->stored || contract_converts(c));
}

Stmt *stored_unpack(Contract *c, const StoredPanel *pn) {
  const Expr *first, *j = ex_var(c->p, "j", num(c, pn->width));
  const int64_t count = steps_inside(c, &first), width = (int64_t)c->tile.vectors * c->lanes;
  const int64_t word = c->stored ? c->stored->per : 1, per = count % word == 0 ? word : 1;
  if (c->unpacked < 0)
    c->unpacked = kb_scratch(&c->b, c->types->acc, num(c, count * width), "unpacked");
  const Expr *o = ex_var(c->p, "k", num(c, count / per)), *u = ex_var(c->p, "u", num(c, per));
  const Expr *k = ex_add(c->p, ex_mul(c->p, o, num(c, per)), per > 1 ? u : num(c, 0));
  const Expr *at = ex_add(c->p, ex_mul(c->p, k, num(c, pn->width)), j);
  const Expr *step = ex_add(c->p, first, k);
  const Expr *v = c->stored ? scaled(c, pn, step, j) : converted(c, pn, step, j);
  Stmt *s = stmt_store(arena(c), c->unpacked, at, v);
  s = stmt_for(arena(c), FOR_VECTOR, j, s);
  if (per > 1) s = stmt_for(arena(c), FOR_UNROLL, u, s);
  return stmt_for(arena(c), FOR_SERIAL, o, s);
}
