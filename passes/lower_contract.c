/* Conv, ConvTranspose, MatMul and Gemm described as tiled contractions (contract.h), with their operands made
 * ready: weights packed at compile time, other right-hand sides packed by a kernel, inputs given their halo. */
#include "passes/contract.h"

#include <string.h>

static const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }
static const Expr *f32(const Contract *c, const Expr *e) { return ex_cast(c->p, DT_F32, e); }

void contract_begin(Contract *c, Lower *l, const Value *root, const Value *anchor, const Place *to, const char *suffix) {
  memset(c, 0, sizeof *c);
  c->l = l;
  c->p = l->p;
  c->root = root;
  c->anchor = anchor;
  c->to = to;
  c->lanes = target_lanes(l->c->target, 32);
  c->scale = 1.0;
  c->b_buffer = -1;
  kb_begin(&c->b, l, root, suffix);
}

void contract_tile(Contract *c) {
  double k = 1;
  for (int i = 0; i < c->n_k; i++) k *= expr_extent_guess(c->p, c->k_extent[i]);
  c->tile = contract_choose_tile(c->l->c->target, expr_extent_guess(c->p, c->rows_h),
                                 expr_extent_guess(c->p, c->rows_w), c->flat, expr_extent_guess(c->p, c->n), k);
}

int contract_weights(Lower *l, const ConstData *d) {
  Buffer *b = module_add_buffer(l->mod, BUF_WEIGHT, DT_F32, ex_i64(l->p, d->count), NULL);
  b->data = d;
  return b->id;
}

/* ---- convolution -------------------------------------------------------------------------------------------- */

typedef struct ConvCtx {
  ConvInfo ci;
  Axis axis[MAX_SPATIAL];
  const Value *x;
  const Place *xp;      /* x with its halo: its own place or a copy */
  int depth_outer;      /* position of the depth dimension in outer, or -1 */
  int k_of[MAX_SPATIAL + 1]; /* position of each spatial tap and, last, of the channel among the k loops; -1: none */
  int64_t panel_group;  /* packed elements per group */
} ConvCtx;

/* Row (outer, h, w) → row number along each spatial dimension. */
static void conv_rows(const Contract *c, const Expr *h, const Expr *w, const Expr **q) {
  const ConvCtx *v = c->info;
  const int n = v->ci.spatial;
  if (c->flat) {
    for (int s = n - 1; s >= 0; s--) {
      q[s] = s ? ex_floormod(c->p, w, v->axis[s].rows) : w;
      w = s ? ex_floordiv(c->p, w, v->axis[s].rows) : w;
    }
    return;
  }
  q[n - 1] = w;
  if (n > 1) q[n - 2] = h;
  if (n > 2) q[0] = c->outer[v->depth_outer];
}

static void conv_out_index(const Contract *c, const Expr *h, const Expr *w, const Expr *col, const Expr **idx) {
  const ConvCtx *v = c->info;
  const Expr *q[MAX_SPATIAL];
  conv_rows(c, h, w, q);
  idx[0] = c->outer[0];
  idx[1] = v->ci.group > 1 ? ex_add(c->p, ex_mul(c->p, c->outer[1], c->n), col) : col;
  for (int s = 0; s < v->ci.spatial; s++)
    idx[2 + s] = ex_add(c->p, ex_mul(c->p, q[s], num(c, v->axis[s].os)), num(c, v->axis[s].ob));
}

static const Expr *conv_a(Contract *c, const Expr *h, const Expr *w) {
  const ConvCtx *v = c->info;
  const Expr *q[MAX_SPATIAL], *idx[MAX_RANK];
  conv_rows(c, h, w, q);
  const int64_t cig = v->ci.c_in / v->ci.group;
  const int ck = v->k_of[v->ci.spatial];
  const Expr *ch = ck >= 0 ? c->k[ck] : num(c, 0);
  idx[0] = c->outer[0];
  idx[1] = v->ci.group > 1 ? ex_add(c->p, ex_mul(c->p, c->outer[1], num(c, cig)), ch) : ch;
  for (int s = 0; s < v->ci.spatial; s++) {
    const Axis *a = &v->axis[s];
    const Expr *at = ex_add(c->p, ex_mul(c->p, q[s], num(c, a->is)), num(c, a->ib));
    if (v->k_of[s] >= 0) at = ex_add(c->p, at, ex_mul(c->p, c->k[v->k_of[s]], num(c, a->dk)));
    idx[2 + s] = at;
  }
  if (!v->xp) return f32(c, kernel_expr_read(&c->b.x, v->x, idx));
  const int id = kb_param(&c->b, v->xp->buffer, v->xp->offset, PA_READ);
  const DType t = c->l->mod->buffers.data[v->xp->buffer].dtype;
  return f32(c, ex_load(c->p, t, id, place_index(c->p, v->xp, v->x->rank, idx), NULL));
}

static const Expr *conv_add(Contract *c, const Expr *const *idx) {
  const Value *bias = node_in(c->anchor->def, 2);
  return bias ? f32(c, kernel_expr_read(&c->b.x, bias, &idx[1])) : NULL;
}

static const Expr *conv_b_offset(const Contract *c) {
  const ConvCtx *v = c->info;
  return v->ci.group > 1 ? ex_mul(c->p, c->outer[1], num(c, v->panel_group)) : num(c, 0);
}

static bool has_halo(const Place *pl, const int64_t *lo, const int64_t *hi, int spatial) {
  for (int s = 0; s < spatial; s++)
    if (pl->halo_lo[2 + s] < lo[s] || pl->halo_hi[2 + s] < hi[s]) return false;
  return true;
}

void conv_halo(const PassCtx *c, const Node *n, const ConvInfo *ci, int s, int64_t *lo, int64_t *hi) {
  if (conv_is_winograd(c, n, ci))
    winograd_reach(c, n, ci, s, lo, hi);
  else
    conv_reach(c->model, n, ci, s, lo, hi);
}

/* A place from which all taps can be read: the value's own, or a channels-last copy with a halo. */
const Place *conv_input(Lower *l, const Node *n, const ConvInfo *ci, Step **steps) {
  const Value *x = n->in[0];
  int64_t lo[MAX_SPATIAL], hi[MAX_SPATIAL];
  bool reach = false;
  for (int s = 0; s < ci->spatial; s++) {
    conv_halo(l->c, n, ci, s, &lo[s], &hi[s]);
    reach = reach || lo[s] > 0 || hi[s] > 0;
  }
  const Place *own = x->inlined ? NULL : lower_place(l, x);
  /* Taps of other types are converted once, and channels far apart brought together once. */
  const bool f32 = x->dtype == DT_F32;
  const bool spread = own && !expr_is_i64(own->stride[1], 1) && ci->c_in / ci->group >= 16 && ci->c_out / ci->group >= 16;
  if (f32 && !spread && (!reach || (own && has_halo(own, lo, hi, ci->spatial)))) return own;
  Value *copy = ARENA_NEW(l->m->arena, Value);
  *copy = *x;
  int16_t *hl = ARENA_ARRAY(l->m->arena, int16_t, MAX_RANK), *hh = ARENA_ARRAY(l->m->arena, int16_t, MAX_RANK);
  int8_t *perm = arena_alloc(l->m->arena, MAX_RANK);
  for (int d = 0; d < x->rank; d++) perm[d] = (int8_t)(d == 0 ? 0 : d == x->rank - 1 ? 1 : d + 1);
  for (int s = 0; s < ci->spatial; s++) {
    hl[2 + s] = (int16_t)lo[s];
    hh[2 + s] = (int16_t)hi[s];
  }
  /* few channels: keep the order of memory, rows stay contiguous for the copy and for taps */
  int64_t channels;
  const bool thin = expr_is_const(x->dims[1], &channels) && channels <= 4 && own && own->dense;
  copy->dtype = DT_F32;
  copy->layout = (Layout){.perm = thin ? NULL : perm, .halo_lo = hl, .halo_hi = hh};
  Place *pl = ARENA_NEW(l->m->arena, Place);
  pl->stride = ARENA_ARRAY(l->m->arena, const Expr *, x->rank + 1);
  const Expr *count;
  strides_of(l->m, copy, pl->stride, &pl->base, &count);
  pl->offset = ex_i64(l->p, 0);
  pl->buffer = module_add_buffer(l->mod, BUF_ARENA, DT_F32, count, "padded")->id;
  memcpy(pl->halo_lo, hl, sizeof pl->halo_lo);
  memcpy(pl->halo_hi, hh, sizeof pl->halo_hi);
  if (reach) step_append(steps, lower_halo(l, copy, pl));
  step_append(steps, lower_read(l, x, pl));
  return pl;
}

/* One tap everywhere, no stride: rows follow each other in memory. */
static bool conv_is_flat(const Contract *c, const ConvCtx *v) {
  for (int s = 0; s < v->ci.spatial; s++) {
    const Axis *a = &v->axis[s];
    if (a->taps != 1 || a->is != 1 || a->os != 1 || a->ib != 0) return false;
  }
  const Place *places[2] = {v->xp, c->to};
  for (int i = 0; i < 2; i++) {
    if (!places[i]) return false;
    for (int s = 1; s < v->ci.spatial; s++)
      if (places[i]->stride[1 + s] != ex_mul(c->p, places[i]->stride[2 + s], v->axis[s].rows)) return false;
  }
  return true;
}

static void add_outer(Contract *c, const Expr *extent) { c->outer_extent[c->n_outer++] = extent; }

static int add_k(Contract *c, const char *stem, const Expr *extent) {
  if (expr_is_i64(extent, 1)) return -1;
  c->k_extent[c->n_k] = extent;
  c->k[c->n_k] = ex_var(c->p, stem, extent);
  return c->n_k++;
}

static void conv_space(Contract *c, ConvCtx *v) {
  const int n = v->ci.spatial;
  add_outer(c, v->x->dims[0]);
  if (v->ci.group > 1) add_outer(c, num(c, v->ci.group));
  v->depth_outer = -1;
  c->flat = conv_is_flat(c, v);
  c->rows_h = num(c, 1);
  c->rows_w = v->axis[n - 1].rows;
  if (c->flat) {
    for (int s = 0; s + 1 < n; s++) c->rows_w = ex_mul(c->p, c->rows_w, v->axis[s].rows);
  } else {
    if (n > 1) c->rows_h = v->axis[n - 2].rows;
    if (n > 2) {
      v->depth_outer = c->n_outer;
      add_outer(c, v->axis[0].rows);
    }
  }
  c->n = num(c, v->ci.c_out / v->ci.group);
}

/* Contracted loops with the smallest stride innermost: channels for channels-last inputs, else the last taps. */
static void conv_contracted(Contract *c, ConvCtx *v) {
  const int n = v->ci.spatial;
  const Expr *channels = num(c, v->ci.c_in / v->ci.group);
  const bool last = v->xp && expr_is_i64(v->xp->stride[1], 1);
  v->k_of[n] = last ? -1 : add_k(c, "c", channels);
  for (int s = 0; s < n; s++) v->k_of[s] = add_k(c, "k", num(c, v->axis[s].taps));
  if (last) v->k_of[n] = add_k(c, "c", channels);
  if (!c->n_k) {
    c->k_extent[0] = num(c, 1);
    c->k[0] = ex_var(c->p, "k", num(c, 1));
    c->n_k = 1;
  }
}

static bool conv_pack(Contract *c, ConvCtx *v) {
  const Value *w = c->anchor->def->in[1];
  const int n = v->ci.spatial;
  const int64_t cig = v->ci.c_in / v->ci.group, cog = v->ci.c_out / v->ci.group;
  int64_t taps = 1, stride[MAX_SPATIAL];
  for (int s = n - 1; s >= 0; s--) {
    stride[s] = taps;
    taps *= v->ci.kernel[s];
  }
  PackShape ps = {.groups = v->ci.group, .cols = cog, .width = (int64_t)c->tile.vectors * c->lanes,
                  .lanes = c->lanes, .n_k = c->n_k, .scale = 1.0};
  /* Conv: [c_out, c_in/group, taps]; ConvTranspose: [c_in, c_out/group, taps] */
  const int64_t in_stride = v->ci.transposed ? cog * taps : taps;
  ps.col_stride = v->ci.transposed ? taps : cig * taps;
  ps.group_stride = v->ci.transposed ? cig * cog * taps : cog * cig * taps;
  for (int i = 0; i < c->n_k; i++) ps.k[i] = 1;
  for (int s = 0; s < n; s++) {
    ps.base += v->axis[s].k0 * stride[s];
    if (v->k_of[s] < 0) continue;
    ps.k[v->k_of[s]] = v->axis[s].taps;
    ps.k_stride[v->k_of[s]] = v->axis[s].kstep * stride[s];
  }
  if (v->k_of[n] >= 0) {
    ps.k[v->k_of[n]] = cig;
    ps.k_stride[v->k_of[n]] = in_stride;
  }
  const ConstData *d = pack_panels(c->l->m, w->cdata, &ps);
  if (!d) return diag_error(c->l->m->diag, c->anchor->def->loc, ERR_OVERFLOW, "weights are too large");
  v->panel_group = d->count / v->ci.group;
  c->b_buffer = contract_weights(c->l, d);
  return true;
}

/* A stride longer than the output leaves some of its phases without rows. */
static bool phase_is_empty(Lower *l, const Node *n, const ConvInfo *ci, int64_t phase) {
  Axis axis[MAX_SPATIAL];
  conv_axes(l->m, n, ci, phase, axis);
  for (int s = 0; s < ci->spatial; s++)
    if (expr_is_i64(axis[s].rows, 0)) return true;
  return false;
}

static Step *lower_conv_phase(Lower *l, const Value *root, const Value *anchor, const Place *to, const ConvInfo *ci,
                              const Place *xp, int64_t phase) {
  Contract c;
  ConvCtx v = {.ci = *ci, .x = anchor->def->in[0], .xp = xp};
  contract_begin(&c, l, root, anchor, to, NULL);
  conv_axes(l->m, anchor->def, ci, phase, v.axis);
  c.info = &v;
  c.out_index = conv_out_index;
  c.a = conv_a;
  c.add = conv_add;
  c.b_offset = conv_b_offset;
  conv_space(&c, &v);
  conv_contracted(&c, &v);
  contract_tile(&c);
  return conv_pack(&c, &v) ? contract_emit(&c) : NULL;
}

static Step *lower_conv(Lower *l, const Value *root, const Value *anchor, const Place *to, const ConvInfo *ci) {
  if (conv_is_winograd(l->c, anchor->def, ci)) return lower_winograd(l, root, anchor, to, ci);
  Step *steps = NULL;
  const Place *xp = conv_input(l, anchor->def, ci, &steps);
  const int64_t phases = conv_phases(ci);
  for (int64_t ph = 0; ph < phases; ph++) {
    if (phase_is_empty(l, anchor->def, ci, ph)) continue;
    Step *s = lower_conv_phase(l, root, anchor, to, ci, xp, ph);
    if (!s) return NULL;
    step_append(&steps, s);
  }
  return steps ? steps : &l->nothing;
}

/* ---- matrix products ----------------------------------------------------------------------------------------- */

typedef struct MatCtx {
  MatMulInfo mi;
  const Value *a, *b;
  int rank;              /* of the output */
  bool merged;           /* batch dimensions are part of the rows: B has none */
  int batch_of[MAX_RANK];/* position in outer of each batch dimension, -1: size 1 */
  const Expr *dims[MAX_RANK]; /* batch dims of the output */
  const Place *packed;   /* dynamic B as panels */
  const Place *a_copy;   /* A, copied row-major because it cannot be addressed in place */
  int64_t panel_batch;
} MatCtx;

static void mat_batch(const Contract *c, const Expr *w, const Expr **batch, const Expr **m) {
  const MatCtx *v = c->info;
  if (!v->merged) {
    for (int d = 0; d < v->mi.batch_rank; d++) batch[d] = v->batch_of[d] < 0 ? num(c, 0) : c->outer[v->batch_of[d]];
    *m = w;
    return;
  }
  *m = v->mi.batch_rank ? ex_floormod(c->p, w, v->mi.m) : w;
  w = v->mi.batch_rank ? ex_floordiv(c->p, w, v->mi.m) : w;
  for (int d = v->mi.batch_rank - 1; d >= 0; d--) {
    batch[d] = d ? ex_floormod(c->p, w, v->dims[d]) : w;
    w = d ? ex_floordiv(c->p, w, v->dims[d]) : w;
  }
}

static void mat_out_index(const Contract *c, const Expr *h, const Expr *w, const Expr *col, const Expr **idx) {
  const MatCtx *v = c->info;
  const Expr *m;
  mat_batch(c, w, idx, &m);
  int at = v->mi.batch_rank;
  if (!v->mi.a_vec) idx[at++] = m;
  if (!v->mi.b_vec) idx[at++] = col;
}

/* Index of an operand: its batch dimensions by broadcasting, then its two (or one) own. */
static const Expr *mat_operand(Contract *c, const Value *x, const Expr *const *batch, bool vec, bool trans,
                               const Expr *row, const Expr *col) {
  const MatCtx *v = c->info;
  const Expr *idx[MAX_RANK];
  const int own = vec ? 1 : 2, nb = x->rank - own;
  for (int d = 0; d < nb; d++) {
    const int from = v->mi.batch_rank - nb + d;
    idx[d] = expr_is_i64(x->dims[d], 1) ? num(c, 0) : batch[from];
  }
  if (vec) {
    idx[nb] = x == v->a ? col : row;
  } else {
    idx[nb] = trans ? col : row;
    idx[nb + 1] = trans ? row : col;
  }
  return f32(c, kernel_expr_read(&c->b.x, x, idx));
}

static const Expr *mat_a(Contract *c, const Expr *h, const Expr *w) {
  const MatCtx *v = c->info;
  const Expr *batch[MAX_RANK], *m;
  mat_batch(c, w, batch, &m);
  if (v->a_copy) {
    const Expr *at = num(c, 0);
    for (int d = 0; d < v->mi.batch_rank; d++) at = ex_add(c->p, ex_mul(c->p, at, v->dims[d]), batch[d]);
    at = ex_add(c->p, ex_mul(c->p, ex_add(c->p, ex_mul(c->p, at, v->mi.m), m), v->mi.k), c->k[0]);
    const int id = kb_param(&c->b, v->a_copy->buffer, v->a_copy->offset, PA_READ);
    return ex_load(c->p, DT_F32, id, at, NULL);
  }
  return mat_operand(c, v->a, batch, v->mi.a_vec, v->mi.trans_a, m, c->k[0]);
}

static const Expr *mat_b(Contract *c, const Expr *k, const Expr *col) {
  const MatCtx *v = c->info;
  const Expr *batch[MAX_RANK], *m;
  mat_batch(c, num(c, 0), batch, &m);
  return mat_operand(c, v->b, batch, v->mi.b_vec, v->mi.trans_b, k, col);
}

static const Expr *mat_b_direct(Contract *c, const Expr *col) { return mat_b(c, c->k[0], col); }

static const Expr *mat_add(Contract *c, const Expr *const *idx) {
  const MatCtx *v = c->info;
  const Value *x = node_in(c->anchor->def, 2);
  if (!x || v->mi.beta == 0) return NULL;
  const Expr *at[2];
  for (int d = 0; d < x->rank; d++) {
    const int from = 2 - x->rank + d;
    at[d] = expr_is_i64(x->dims[d], 1) ? num(c, 0) : idx[from];
  }
  const Expr *e = f32(c, kernel_expr_read(&c->b.x, x, at));
  return v->mi.beta == 1.0 ? e : ex_mul(c->p, e, ex_float(c->p, DT_F32, v->mi.beta));
}

static const Expr *mat_b_offset(const Contract *c) {
  const MatCtx *v = c->info;
  if (!v->packed) return num(c, 0);
  const Expr *at = num(c, 0);
  for (int d = 0; d < v->mi.batch_rank; d++)
    if (v->batch_of[d] >= 0) at = ex_add(c->p, ex_mul(c->p, at, v->dims[d]), c->outer[v->batch_of[d]]);
  const Expr *panels = ex_ceildiv(c->p, c->n, (int64_t)c->tile.vectors * c->lanes);
  const Expr *size = ex_mul(c->p, ex_mul(c->p, panels, c->k_extent[0]), num(c, (int64_t)c->tile.vectors * c->lanes));
  return ex_mul(c->p, at, size);
}

static bool b_has_batch(const MatCtx *v) {
  for (int d = 0; d < v->b->rank - 2; d++)
    if (!expr_is_i64(v->b->dims[d], 1)) return true;
  return false;
}

static void mat_space(Contract *c, MatCtx *v) {
  v->rank = c->anchor->rank;
  v->merged = !v->mi.b_vec && !b_has_batch(v) && !v->mi.a_vec;
  c->flat = true;
  c->rows_h = num(c, 1);
  c->rows_w = v->mi.m;
  for (int d = 0; d < v->mi.batch_rank; d++) {
    v->dims[d] = c->anchor->dims[d];
    v->batch_of[d] = -1;
    if (v->merged)
      c->rows_w = ex_mul(c->p, c->rows_w, v->dims[d]);
    else if (!expr_is_i64(v->dims[d], 1)) {
      v->batch_of[d] = c->n_outer;
      add_outer(c, v->dims[d]);
    }
  }
  c->n = v->mi.n;
  c->n_k = 1;
  c->k_extent[0] = v->mi.k;
  c->k[0] = ex_var(c->p, "k", v->mi.k);
}

static bool mat_pack_const(Contract *c, MatCtx *v) {
  const ConstData *w = v->b->cdata;
  const int64_t rows = w->rank > 1 ? w->dims[w->rank - 2] : w->dims[0], cols = w->rank > 1 ? w->dims[w->rank - 1] : 1;
  PackShape ps = {.groups = 1, .width = (int64_t)c->tile.vectors * c->lanes, .lanes = c->lanes, .n_k = 1};
  ps.scale = c->scale;
  ps.cols = v->mi.trans_b ? rows : cols;
  ps.k[0] = v->mi.trans_b ? cols : rows;
  ps.col_stride = v->mi.trans_b ? cols : 1;
  ps.k_stride[0] = v->mi.trans_b ? 1 : cols;
  const ConstData *d = pack_panels(c->l->m, w, &ps);
  if (!d) return diag_error(c->l->m->diag, c->anchor->def->loc, ERR_OVERFLOW, "weights are too large");
  c->scale = 1.0;
  c->b_buffer = contract_weights(c->l, d);
  return true;
}

/* Whole vectors of contiguous columns can be read in place. */
static bool mat_direct(Contract *c) {
  int64_t n;
  const Expr *j = ex_var(c->p, "j", c->n), *coeff, *rest;
  if (!expr_is_const(c->n, &n) || n % c->lanes) return false;
  const Expr *e = mat_b(c, c->k[0], j);
  return e->op == EX_LOAD && !e->a[1] && expr_affine(c->p, e->a[0], j, &coeff, &rest) && expr_is_i64(coeff, 1);
}

/* Packs a right-hand side that is computed: [batch][panel][k][lane], zeros behind the last column. */
static Step *mat_pack_dynamic(Contract *c, MatCtx *v) {
  const int64_t width = (int64_t)c->tile.vectors * c->lanes;
  const Expr *panels = ex_ceildiv(c->p, c->n, width), *dims[MAX_RANK], *total = panels;
  int n = 0;
  for (int i = 0; i < c->n_outer; i++) {
    dims[n++] = c->outer_extent[i];
    total = ex_mul(c->p, total, c->outer_extent[i]);
  }
  dims[n++] = panels;
  dims[n++] = c->k_extent[0];
  dims[n++] = num(c, width);
  v->packed = lower_temp(c->l, DT_F32, n, dims, "panels");
  Contract k = *c; /* the kernel that packs has its own parameters */
  kb_begin(&k.b, c->l, c->root, "pack");
  const Expr *par = ex_var(c->p, "p", total), *rest = par;
  const Expr *panel = ex_floormod(c->p, rest, panels);
  rest = ex_floordiv(c->p, rest, panels);
  for (int i = c->n_outer - 1; i >= 0; i--) {
    k.outer[i] = i ? ex_floormod(c->p, rest, c->outer_extent[i]) : rest;
    rest = i ? ex_floordiv(c->p, rest, c->outer_extent[i]) : rest;
  }
  const Expr *kk = ex_var(c->p, "k", c->k_extent[0]), *j = ex_var(c->p, "j", num(c, width));
  const Expr *col = ex_add(c->p, ex_mul(c->p, panel, num(c, width)), j);
  const Expr *inside = ex_lt(c->p, col, c->n);
  k.b.x.guard = inside->op == EX_CONST ? NULL : inside;
  const Expr *e = mat_b(&k, kk, col);
  k.b.x.guard = NULL;
  if (e->op != EX_LOAD && inside->op != EX_CONST) e = ex_select(c->p, inside, e, ex_float(c->p, DT_F32, 0));
  const Expr *at = ex_add(c->p, ex_mul(c->p, ex_add(c->p, ex_mul(c->p, par, c->k_extent[0]), kk), num(c, width)), j);
  const int out = kb_param(&k.b, v->packed->buffer, v->packed->offset, PA_WRITE);
  Arena *a = c->l->m->arena;
  Stmt *s = stmt_for(a, FOR_VECTOR, j, stmt_store(a, out, at, e));
  s = stmt_for(a, FOR_SERIAL, kk, s);
  const double work = expr_extent_guess(c->p, total) * expr_extent_guess(c->p, c->k_extent[0]) * c->tile.vectors * 4;
  c->b_buffer = v->packed->buffer;
  c->b_whole_panels = true;
  return kb_finish(&k.b, stmt_for(a, work > 20000 ? FOR_PARALLEL : FOR_SERIAL, par, s));
}

/* A whose address is not a simple function of k (a view of another layout) is copied first. */
static Step *mat_copy_a(Contract *c, MatCtx *v) {
  const Expr *w = ex_var(c->p, "m", c->rows_w), *coeff, *rest;
  if (v->mi.trans_a || v->mi.a_vec || v->a->rank != v->mi.batch_rank + 2) return NULL;
  for (int d = 0; d < v->mi.batch_rank; d++)
    if (v->a->dims[d] != v->dims[d]) return NULL;
  const Expr *e = mat_a(c, num(c, 0), w);
  if (v->a->dtype == DT_F32 && e->op == EX_LOAD && !e->a[1] && expr_affine(c->p, e->a[0], c->k[0], &coeff, &rest)) return NULL;
  if (e->op == EX_CONST) return NULL;
  Place *pl = lower_temp(c->l, DT_F32, v->a->rank, v->a->dims, "rows");
  v->a_copy = pl;
  return lower_read(c->l, v->a, pl);
}

static Step *lower_matmul(Lower *l, const Value *root, const Value *anchor, const Place *to, const MatMulInfo *mi) {
  Contract c;
  MatCtx v = {.mi = *mi, .a = anchor->def->in[0], .b = anchor->def->in[1]};
  contract_begin(&c, l, root, anchor, to, NULL);
  c.info = &v;
  c.out_index = mat_out_index;
  c.a = mat_a;
  c.add = mat_add;
  c.b_offset = mat_b_offset;
  c.scale = mi->alpha;
  mat_space(&c, &v);
  for (int i = 0; i < c.n_outer; i++) c.outer[i] = ex_var(c.p, "o", c.outer_extent[i]); /* for mat_direct */
  contract_tile(&c);
  Step *steps = mat_copy_a(&c, &v);
  if (v.b->cdata && !b_has_batch(&v)) {
    if (!mat_pack_const(&c, &v)) return NULL;
  } else if (mat_direct(&c)) {
    c.b_direct = mat_b_direct;
  } else {
    step_append(&steps, mat_pack_dynamic(&c, &v));
  }
  Step *s = contract_emit(&c);
  if (!s) return NULL;
  step_append(&steps, s);
  return steps;
}

Step *lower_contraction(Lower *l, const Value *root, const Value *anchor, const Place *to) {
  ConvInfo ci;
  MatMulInfo mi;
  if (conv_info(anchor->def, &ci)) return lower_conv(l, root, anchor, to, &ci);
  if (matmul_info(anchor->def, &mi)) return lower_matmul(l, root, anchor, to, &mi);
  diag_internal(l->m->diag, anchor->def->loc, "lower: no template for this contraction");
  return NULL;
}

/* ---- which nodes ------------------------------------------------------------------------------------------------ */

static bool float_operands(const Node *n) {
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (v && v->dtype != DT_F32 && v->dtype != DT_F16 && v->dtype != DT_BF16) return false;
  }
  return true;
}

bool node_is_contraction(const Node *n) {
  ConvInfo ci;
  MatMulInfo mi;
  int64_t k;
  if (!(n->op->flags & OF_CONTRACTION) || !float_operands(n)) return false;
  if (conv_info(n, &ci))
    return n->in[1]->cdata && ci.spatial <= 3 && conv_phases(&ci) > 0 &&
           (ci.group == 1 || ci.c_out / ci.group >= 4 || conv_is_depthwise(&ci));
  if (!matmul_info(n, &mi)) return false;
  return !mi.b_vec && !(expr_is_const(mi.n, &k) && k < 2);
}
