/* MatMul and Gemm described as tiled contractions (contract.h): constant right-hand sides are
 * packed at compile time, others are read in place where whole vectors allow it, or packed by a
 * kernel. */
#include "passes/build/nest.h"
#include "passes/kernels/contract.h"

#include <string.h>

#include "passes/kernels/stored_weights.h"

static const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }
typedef struct MatCtx {
  MatMulInfo product;
  const Value *a, *b;
  int rank;                   /* of the output */
  bool merged;                /* batch dimensions are part of the rows: B has none */
  int batch_of[MAX_RANK];     /* position in outer of each batch dimension, -1: size 1 */
  const Expr *dims[MAX_RANK]; /* batch dims of the output */
  bool packed;                /* computed B as panels */
  const Place *a_copy;        /* A, copied row-major because it cannot be addressed in place */
  int64_t panel_batch;
} MatCtx;

static void mat_batch(const Contract *c, const Expr *w, const Expr **batch, const Expr **m) {
  const MatCtx *v = c->info;
  if (!v->merged) {
    for (int d = 0; d < v->product.batch_rank; d++)
      batch[d] = v->batch_of[d] < 0 ? num(c, 0) : c->outer[v->batch_of[d]];
    *m = w;
    return;
  }
  const Expr *extent[MAX_RANK], *index[MAX_RANK];
  const int n = v->product.batch_rank;
  for (int d = 0; d < n; d++) extent[d] = v->dims[d];
  extent[n] = v->product.m;
  nest_indices(c->p, w, n + 1, extent, index);
  for (int d = 0; d < n; d++) batch[d] = index[d];
  *m = index[n];
}

static void mat_out_index(const Contract *c, const Expr *h, const Expr *w, const Expr *col,
                          const Expr **idx) {
  const MatCtx *v = c->info;
  const Expr *m;
  mat_batch(c, w, idx, &m);
  int at = v->product.batch_rank;
  if (!v->product.a_vec) idx[at++] = m;
  if (!v->product.b_vec) idx[at++] = col;
}

/* An operand's element: its batch dimensions by broadcasting, then its two (or one) own. `copy`:
 * where it is read instead, or NULL. */
static const Expr *mat_operand(Contract *c, const Value *x, const Place *copy,
                               const Expr *const *batch, bool vec, bool trans, const Expr *row,
                               const Expr *col) {
  const MatCtx *v = c->info;
  const Expr *idx[MAX_RANK];
  const int own = vec ? 1 : 2, nb = x->rank - own;
  for (int d = 0; d < nb; d++) {
    const int from = v->product.batch_rank - nb + d;
    idx[d] = expr_is_i64(x->dims[d], 1) ? num(c, 0) : batch[from];
  }
  if (vec) {
    idx[nb] = x == v->a ? col : row;
  } else {
    idx[nb] = trans ? col : row;
    idx[nb + 1] = trans ? row : col;
  }
  if (!copy) return kernel_expr_read(&c->b.x, x, idx);
  const int id = kb_param(&c->b, copy->buffer, copy->offset, PA_READ);
  const Expr *at = place_index(c->p, copy, x->rank, idx);
  return ex_load(c->p, kb_dtype(&c->b, id), id, at, NULL);
}

static const Expr *mat_a(Contract *c, const Expr *h, const Expr *w) {
  const MatCtx *v = c->info;
  const Expr *batch[MAX_RANK], *m;
  mat_batch(c, w, batch, &m);
  const Expr *e =
      mat_operand(c, v->a, v->a_copy, batch, v->product.a_vec, v->product.trans_a, m, c->k[0]);
  return contract_operand_a(c, e);
}

static const Expr *mat_a_block(Contract *c, const Value *x, const Expr *w, const Expr *block) {
  const bool vec = ((const MatCtx *)c->info)->product.a_vec;
  const Expr *batch[MAX_RANK], *m;
  mat_batch(c, w, batch, &m);
  return mat_operand(c, x, NULL, batch, vec, false, vec ? block : m, block);
}

static const Expr *mat_b(Contract *c, const Expr *k, const Expr *col) {
  const MatCtx *v = c->info;
  const Expr *batch[MAX_RANK], *m;
  mat_batch(c, num(c, 0), batch, &m);
  const Expr *e = mat_operand(c, v->b, NULL, batch, v->product.b_vec, v->product.trans_b, k, col);
  return contract_operand_b(c, e);
}

static const Expr *mat_b_direct(Contract *c, const Expr *col) { return mat_b(c, c->k[0], col); }

static const Expr *mat_add(Contract *c, const Expr *const *idx) {
  const MatCtx *v = c->info;
  const Value *x = node_in(c->anchor->def, 2);
  if (!x || v->product.beta == 0) return NULL;
  const Expr *at[2];
  for (int d = 0; d < x->rank; d++) {
    const int from = 2 - x->rank + d;
    at[d] = bcast_index(c->p, x->dims[d], c->anchor->dims[from], idx[from]);
  }
  const Expr *e = contract_cast(c, kernel_expr_read(&c->b.x, x, at));
  return v->product.beta == 1.0 ? e
                                : ex_mul(c->p, e, ex_const(c->p, c->types->acc, v->product.beta));
}

static const Expr *mat_b_offset(const Contract *c) {
  const MatCtx *v = c->info;
  if (!v->packed) return num(c, 0);
  const Expr *at = num(c, 0);
  for (int d = 0; d < v->product.batch_rank; d++)
    if (v->batch_of[d] >= 0)
      at = ex_add(c->p, ex_mul(c->p, at, v->dims[d]), c->outer[v->batch_of[d]]);
  const Expr *panels = ex_ceildiv(c->p, c->n, (int64_t)c->tile.vectors * c->lanes);
  const Expr *size = ex_mul(c->p, ex_mul(c->p, panels, c->k_extent[0]),
                            num(c, (int64_t)c->tile.vectors * c->lanes));
  return ex_mul(c->p, at, size);
}

static bool b_has_batch(const MatCtx *v) {
  for (int d = 0; d < v->b->rank - 2; d++)
    if (!expr_is_i64(v->b->dims[d], 1)) return true;
  return false;
}

static void mat_space(Contract *c, MatCtx *v) {
  v->rank = c->anchor->rank;
  v->merged = matmul_merges_batch(c->anchor->def, &v->product);
  c->flat = true;
  c->rows_h = num(c, 1);
  c->rows_w = v->product.m;
  for (int d = 0; d < v->product.batch_rank; d++) {
    v->dims[d] = c->anchor->dims[d];
    v->batch_of[d] = -1;
    if (v->merged)
      c->rows_w = ex_mul(c->p, c->rows_w, v->dims[d]);
    else if (!expr_is_i64(v->dims[d], 1)) {
      v->batch_of[d] = c->n_outer;
      contract_outer(c, v->dims[d]);
    }
  }
  c->n = v->product.n;
  contract_last_k(c, "k", v->product.k);
}

static bool mat_pack_const(Contract *c, MatCtx *v) {
  const ConstData *w = v->b->cdata;
  const int64_t rows = w->rank > 1 ? w->dims[w->rank - 2] : w->dims[0],
                cols = w->rank > 1 ? w->dims[w->rank - 1] : 1;
  PackShape ps = {.type = contract_packed_type(c),
                  .k_step = c->types->k_step,
                  .groups = 1,
                  .width = (int64_t)c->tile.vectors * c->lanes,
                  .lanes = c->lanes,
                  .n_k = 1};
  ps.cols = v->product.trans_b ? rows : cols;
  ps.k[0] = v->product.trans_b ? cols : rows;
  ps.col_stride = v->product.trans_b ? cols : 1;
  ps.k_stride[0] = v->product.trans_b ? 1 : cols;
  const DType type = c->types->k_step > 1 ? c->types->b : c->types->panel; /* on all targets */
  const bool rounds = dtype_is_float(type) && type != c->types->acc;
  ps.scale = rounds ? 1.0 : c->scale;
  if (!rounds) c->scale = 1.0;
  return contract_pack_const(c, w, &ps);
}

/* Many rows of tiles read the same columns, whose lines lie so far apart that prefetchers miss them
 * and, at powers of two, few cache sets hold them: one copy costs less. */
static bool mat_far_rows(Contract *c, const Expr *index) {
  enum { FAR = 1024, MANY = 256 }; /* bytes; rows */
  const Expr *coeff, *rest;
  int64_t rows, step;
  return expr_is_const(c->rows_w, &rows) && rows >= MANY &&
         expr_affine(c->p, index, c->k[0], &coeff, &rest) && expr_is_const(coeff, &step) &&
         step * dtype_bytes(c->types->b) >= FAR;
}

/* Whole vectors of contiguous columns can be read in place; small floats, of which each tile
 * converts what it reads, for a few rows. */
static bool mat_direct(Contract *c) {
  int64_t n, rows;
  const bool few = expr_is_const(c->rows_w, &rows) && rows <= CONVERT_TILES * c->tile.rows;
  if (c->types->b != c->types->acc && !few) return false;
  const Expr *j = ex_var(c->p, "j", c->n), *coeff, *rest;
  if (c->types->k_step > 1 || !expr_is_const(c->n, &n) || n % c->lanes) return false;
  const Expr *e = mat_b(c, c->k[0], j);
  return e->op == EX_LOAD && !e->a[1] && expr_affine(c->p, e->a[0], j, &coeff, &rest) &&
         expr_is_i64(coeff, 1) && !mat_far_rows(c, e->a[0]);
}

static Step *mat_pack_computed(Contract *c, MatCtx *v) {
  bool outer_of_b[MAX_RANK];
  for (int i = 0; i < c->n_outer; i++) outer_of_b[i] = true;
  v->packed = true;
  return contract_pack_computed(c, outer_of_b, mat_b_direct);
}

/* Groups of A: elements that follow each other, in whole groups. */
static bool reads_groups(Contract *c, const MatCtx *v) {
  const Expr *e = mat_a(c, num(c, 0), ex_var(c->p, "m", c->rows_w)), *coeff, *rest;
  while (e->op == EX_cast || e->op == EX_bits) e = e->a[0];
  return !contract_group_rest(c->types, v->product.k) && e->op == EX_LOAD && !e->a[1] &&
         e->dtype == contract_a_type(c->types) &&
         expr_affine(c->p, e->a[0], c->k[0], &coeff, &rest) && expr_is_i64(coeff, 1);
}

static Step *mat_copy_groups(Contract *c, MatCtx *v) {
  Step *steps = NULL;
  if (reads_groups(c, v)) return NULL;
  int16_t *hi = ARENA_ARRAY(c->l->m->arena, int16_t, MAX_RANK),
          *lo = ARENA_ARRAY(c->l->m->arena, int16_t, MAX_RANK);
  const int k = v->a->rank - 1 - v->product.trans_a;
  int8_t *perm = arena_alloc(c->l->m->arena, MAX_RANK); /* k innermost */
  for (int d = 0; d < v->a->rank; d++) perm[d] = (int8_t)(d < k ? d : d + 1);
  perm[v->a->rank - 1] = (int8_t)k;
  hi[k] = (int16_t)contract_group_rest(c->types, v->product.k);
  const Layout layout = {.perm = perm, .halo_lo = lo, .halo_hi = hi};
  v->a_copy = contract_copy(c->l, v->a, contract_a_type(c->types), &layout, &steps);
  return steps;
}

/* A whose address is not a simple function of k (a view of another layout) is copied first. */
static Step *mat_copy_a(Contract *c, MatCtx *v) {
  if (c->types->k_step > 1) return mat_copy_groups(c, v);
  const Expr *w = ex_var(c->p, "m", c->rows_w), *coeff, *rest;
  if (v->product.trans_a || v->product.a_vec || v->a->rank != v->product.batch_rank + 2)
    return NULL;
  for (int d = 0; d < v->product.batch_rank; d++)
    if (v->a->dims[d] != v->dims[d]) return NULL;
  const Expr *e = mat_a(c, num(c, 0), w);
  if (v->a->dtype == c->types->acc && e->op == EX_LOAD && !e->a[1] &&
      expr_affine(c->p, e->a[0], c->k[0], &coeff, &rest))
    return NULL;
  if (e->op == EX_CONST) return NULL;
  Place *pl = lower_temp(c->l, c->types->acc, v->a->rank, v->a->dims, "rows");
  v->a_copy = pl;
  return lower_read(c->l, v->a, pl);
}

/* What a product is, without tile and B. */
static void mat_describe(Contract *c, MatCtx *v) {
  c->info = v;
  c->out_index = mat_out_index;
  c->a = mat_a;
  c->a_block = mat_a_block;
  c->add = mat_add;
  c->scale = v->product.alpha;
  mat_space(c, v);
  for (int i = 0; i < c->n_outer; i++)
    c->outer[i] = ex_var(c->p, "o", c->outer_extent[i]); /* for mat_direct */
}

static MatCtx mat_context(const Value *anchor, const MatMulInfo *product) {
  return (MatCtx){.product = *product, .a = anchor->def->in[0], .b = anchor->def->in[1]};
}

void matmul_describe(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to,
                     const MatMulInfo *product) {
  const MatCtx v = mat_context(anchor, product);
  const ContractTypes *const types = contract_by_element(l, node_contract_types(anchor->def));
  contract_begin(c, l, root, anchor, to, types, NULL);
  mat_describe(c, arena_dup(l->m->arena, &v, sizeof v));
  c->b_direct = mat_b_direct;
}

Step *lower_matmul(Lower *l, const Value *root, const Value *anchor, const Place *to,
                   const MatMulInfo *product) {
  Contract c;
  MatCtx v = mat_context(anchor, product);
  const bool stored = strcmp(anchor->def->op->name, "DequantizeMatMul") == 0;
  contract_begin(&c, l, root, anchor, to, node_contract_types(anchor->def), NULL);
  mat_describe(&c, &v);
  if (stored) c.add = NULL;
  c.b_offset = mat_b_offset;
  contract_tile(&c);
  Step *steps = mat_copy_a(&c, &v);
  if (stored) {
    if (!contract_pack_stored(&c)) return NULL;
  } else if (v.b->cdata && !b_has_batch(&v)) {
    if (!mat_pack_const(&c, &v)) return NULL;
  } else if (mat_direct(&c)) {
    c.b_direct = mat_b_direct;
  } else {
    step_append(&steps, mat_pack_computed(&c, &v));
  }
  Step *s = contract_emit(&c);
  if (!s) return NULL;
  step_append(&steps, s);
  return steps;
}
