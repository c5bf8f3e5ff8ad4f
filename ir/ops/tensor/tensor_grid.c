/* Sampling at computed positions: GridSample, AffineGrid (elements), RoiAlign (runtime function);
 * TensorScatter. */
#include <string.h>
#include "ir/op/tensor_util.h"
#include "runtime/ops/ops.h"

/* ---- GridSample ---- */
enum { GS_LINEAR, GS_NEAREST, GS_CUBIC };
enum { GP_ZEROS, GP_BORDER, GP_REFLECTION };
static const char *const gs_modes[] = {"linear", "nearest", "cubic", "bilinear", "bicubic", NULL};
static const char *const gs_pads[] = {"zeros", "border", "reflection", NULL};

bool infer_grid_sample(Model *m, Node *n) {
  const Value *x = n->in[0], *g = n->in[1];
  int k;
  const Expr *dims[MAX_RANK], *same;
  if (!op_choice(m, n, "mode", "linear", gs_modes, &k) ||
      !op_choice(m, n, "padding_mode", "zeros", gs_pads, &k) ||
      !op_need_class(m, n, 0, CL_NUMBER) || !op_need_class(m, n, 1, CL_FLOAT) ||
      !op_need_rank(m, n, 0, 3, MAX_RANK) || !op_need_rank(m, n, 1, x->rank, x->rank) ||
      !op_same_dim(m, n, x->dims[0], g->dims[0], "batch", &same))
    return false;
  if (!require_size(m, n, g->dims[x->rank - 1], x->rank - 2, "coordinates of a grid position"))
    return false;
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  for (int i = 2; i < x->rank; i++) dims[i] = g->dims[i - 1];
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

typedef struct Grid {
  ElemCtx *c;
  const Node *n;
  DType t; /* of all that is computed */
  int mode, pad, axes;
  const Expr *at[MAX_RANK];                /* position along each spatial axis */
  const Expr *src[MAX_RANK];               /* index into X */
  const Expr *lo[MAX_RANK], *hi[MAX_RANK]; /* borders */
} Grid;

static const Expr *f_op(ExprPool *p, ExprOp op, const Expr *a) {
  return ex_op(p, op, a, NULL, NULL);
}
static const Expr *f_k(ExprPool *p, const Expr *a, double add) {
  return ex_add(p, a, ex_float(p, (DType)a->dtype, add));
}
static const Expr *f_x(ExprPool *p, const Expr *a, double by) {
  return ex_mul(p, a, ex_float(p, (DType)a->dtype, by));
}

/* Mirrors x at lo and hi until it is inside. */
static const Expr *reflect(ExprPool *p, const Expr *x, const Expr *lo, const Expr *hi) {
  const Expr *range = ex_sub(p, hi, lo), *low = ex_lt(p, x, lo);
  const Expr *past = ex_select(p, low, ex_sub(p, lo, x), ex_sub(p, x, hi));
  const Expr *n = f_op(p, EX_trunc, ex_div(p, past, range)),
             *r = ex_sub(p, past, ex_mul(p, n, range));
  const Expr *even = ex_eq(p, f_x(p, f_op(p, EX_floor, f_x(p, n, 0.5)), 2), n);
  const Expr *from_lo = ex_add(p, lo, r), *from_hi = ex_sub(p, hi, r);
  const Expr *in = ex_select(p, ex_eq(p, low, even), from_lo, from_hi);
  const Expr *outside = ex_op(p, EX_or, low, ex_lt(p, hi, x), NULL);
  return ex_select(p, outside, in, x);
}

/* Reads X at integer positions (given as floats), padded. */
static const Expr *grid_read(Grid *g, const Expr *const *pos) {
  ExprPool *p = g->c->pool;
  const Value *x = g->n->in[0];
  const Expr *inside = ex_bool(p, true), *zero = ex_i64(p, 0);
  for (int k = 0; k < g->axes; k++) {
    const Expr *d = x->dims[k + 2],
               *v = g->pad == GP_REFLECTION ? reflect(p, pos[k], g->lo[k], g->hi[k]) : pos[k];
    const Expr *i = ex_cast(p, DT_I64, v);
    if (g->pad == GP_ZEROS)
      inside = ex_and(p, inside, ex_and(p, ex_le(p, zero, i), ex_lt(p, i, d)));
    else if (tu_may_be_empty(p, d))
      inside = ex_and(p, inside, ex_lt(p, zero, d));
    g->src[k + 2] = g->pad == GP_ZEROS ? i : tu_clamp(p, i, zero, ex_sub(p, d, ex_i64(p, 1)));
  }
  int64_t always;
  const bool plain = expr_is_const(inside, &always) && always;
  const Expr *e =
      plain ? elem_in(g->c, g->n, 0, g->src) : elem_in_guarded(g->c, g->n, 0, g->src, inside);
  return ex_cast(p, g->t, e);
}

static const Expr *cubic_weight(ExprPool *p, const Expr *d, bool far) {
  const double a = -0.75;
  if (far)
    return f_k(p, ex_mul(p, f_k(p, ex_mul(p, f_k(p, f_x(p, d, a), -5 * a), d), 8 * a), d), -4 * a);
  return f_k(p, ex_mul(p, ex_mul(p, f_k(p, f_x(p, d, a + 2), -(a + 3)), d), d), 1);
}

static const Expr *tap_weight(ExprPool *p, int mode, const Expr *frac, int tap) {
  const Expr *rest = ex_sub(p, ex_float(p, (DType)frac->dtype, 1), frac);
  if (mode == GS_LINEAR) return tap ? frac : rest;
  switch (tap) {
    case 0: return cubic_weight(p, f_k(p, frac, 1), true);
    case 1: return cubic_weight(p, frac, false);
    case 2: return cubic_weight(p, rest, false);
    default: return cubic_weight(p, f_k(p, rest, 1), true);
  }
}

static const Expr *grid_interpolate(Grid *g, int k, const Expr **pos) {
  ExprPool *p = g->c->pool;
  if (k == g->axes) return grid_read(g, pos);
  const Expr *base = f_op(p, EX_floor, g->at[k]), *frac = ex_sub(p, g->at[k], base), *sum = NULL;
  const int taps = g->mode == GS_LINEAR ? 2 : 4;
  for (int t = 0; t < taps; t++) {
    pos[k] = f_k(p, base, g->mode == GS_LINEAR ? t : t - 1);
    const Expr *e = ex_mul(p, tap_weight(p, g->mode, frac, t), grid_interpolate(g, k + 1, pos));
    sum = sum ? ex_add(p, sum, e) : e;
  }
  return sum;
}

static int choice(const Node *n, const char *name, const char *const *list) {
  const char *s = node_string(n, name, list[0]);
  for (int k = 0; list[k]; k++)
    if (strcmp(s, list[k]) == 0) return k;
  return 0;
}

static DType position_type(DType positions, DType values) {
  return positions == DT_F64 || values == DT_F64 ? DT_F64 : DT_F32;
}

const Expr *elem_grid_sample(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  static const int mode_of[] = {GS_LINEAR, GS_NEAREST, GS_CUBIC, GS_LINEAR, GS_CUBIC};
  ExprPool *p = c->pool;
  const Value *x = n->in[0];
  const bool align = node_int(n, "align_corners", 0) != 0;
  Grid g = {.c = c,
            .n = n,
            .t = position_type(n->in[1]->dtype, x->dtype),
            .mode = mode_of[choice(n, "mode", gs_modes)],
            .pad = choice(n, "padding_mode", gs_pads),
            .axes = x->rank - 2};
  const Expr *gi[MAX_RANK], *pos[MAX_RANK];
  g.src[0] = idx[0];
  g.src[1] = idx[1];
  gi[0] = idx[0];
  for (int i = 2; i < x->rank; i++) gi[i - 1] = idx[i];
  for (int k = 0; k < g.axes; k++) {
    gi[x->rank - 1] = ex_i64(p, g.axes - 1 - k); /* coordinates stand in reverse order */
    const Expr *v = f_k(p, ex_cast(p, g.t, elem_in(c, n, 1, gi)), 1),
               *d = ex_cast(p, g.t, x->dims[k + 2]);
    const Expr *last = f_k(p, d, -1);
    g.lo[k] = ex_float(p, g.t, align ? 0 : -0.5);
    g.hi[k] = align ? last : f_k(p, d, -0.5);
    const Expr *at =
        align ? ex_mul(p, f_x(p, v, 0.5), last) : f_x(p, f_k(p, ex_mul(p, v, d), -1), 0.5);
    if (g.mode == GS_NEAREST) at = f_op(p, EX_rint, at);
    if (g.pad == GP_BORDER && g.mode != GS_CUBIC)
      at = ex_max(p, ex_min(p, at, last), ex_float(p, g.t, 0));
    if (g.pad == GP_REFLECTION && g.mode != GS_CUBIC) at = reflect(p, at, g.lo[k], g.hi[k]);
    g.at[k] = at;
  }
  return ex_cast(p, x->dtype,
                 g.mode == GS_NEAREST ? grid_read(&g, g.at) : grid_interpolate(&g, 0, pos));
}

/* ---- AffineGrid ---- */
bool infer_affine_grid(Model *m, Node *n) {
  const Value *theta = n->in[0];
  int count;
  const Expr *dims[MAX_RANK], *same;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 3, 3) ||
      !op_need_class(m, n, 1, CL_INT) || !tu_count(m, n, 1, "size", tu_declared_rank(n), &count))
    return false;
  if (count != 4 && count != 5)
    return op_error(m, n, ERR_SHAPE, "size has %d elements, not 4 or 5", count);
  const int axes = count - 2;
  if (!op_same_dim(m, n, theta->dims[1], ex_i64(m->pool, axes), "theta", &same) ||
      !op_same_dim(m, n, theta->dims[2], ex_i64(m->pool, axes + 1), "theta", &same))
    return false;
  dims[0] = theta->dims[0];
  if (!require_equal(m, n, dims[0], tu_elem(m, n, 1, 0), "batch of theta and of the size"))
    return false;
  for (int k = 0; k < axes; k++)
    dims[k + 1] = tu_dim(m, n, 0, k + 1, tu_elem(m, n, 1, k + 2), NULL);
  dims[axes + 1] = ex_i64(m->pool, axes);
  return op_out(m, n, 0, theta->dtype, axes + 2, dims);
}

const Expr *elem_affine_grid(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *o = n->out[0];
  const int axes = o->rank - 2;
  const DType t = dtype_compute(o->dtype);
  const bool align = node_int(n, "align_corners", 0) != 0;
  const Expr *at[3] = {idx[0], idx[o->rank - 1], ex_i64(p, axes)};
  const Expr *sum = ex_cast(p, t, elem_in(c, n, 0, at));
  for (int k = 0; k < axes; k++) { /* coordinates: last axis first */
    const Expr *d = ex_cast(p, t, o->dims[axes - k]), *i = ex_cast(p, t, idx[axes - k]);
    const Expr *pos = align ? ex_div(p, f_x(p, i, 2), ex_max(p, f_k(p, d, -1), ex_float(p, t, 1)))
                            : ex_div(p, f_k(p, f_x(p, i, 2), 1), d);
    at[2] = ex_i64(p, k);
    sum = ex_add(p, sum, ex_mul(p, ex_cast(p, t, elem_in(c, n, 0, at)), f_k(p, pos, -1)));
  }
  return ex_cast(p, o->dtype, sum);
}

/* ---- RoiAlign ---- */
static const char *const roi_coords[] = {"half_pixel", "output_half_pixel", NULL},
                         *const roi_modes[] = {"avg", "max", NULL};

bool infer_roi_align(Model *m, Node *n) {
  int k;
  int64_t h, w, ratio;
  double scale;
  const Expr *rows, *same;
  if (!op_same_dtype(m, n, 1, 0) ||
      !op_choice(m, n, "coordinate_transformation_mode", "half_pixel", roi_coords, &k) ||
      !op_choice(m, n, "mode", "avg", roi_modes, &k) ||
      !op_int_in(m, n, "output_height", 1, 1, 1 << 20, &h) ||
      !op_int_in(m, n, "output_width", 1, 1, 1 << 20, &w) ||
      !op_int_in(m, n, "sampling_ratio", 0, 0, 1 << 20, &ratio) ||
      !op_float(m, n, "spatial_scale", 1, &scale) || !op_need_class(m, n, 0, CL_FLOAT) ||
      !op_need_rank(m, n, 0, 4, 4) || !op_need_class(m, n, 1, CL_FLOAT) ||
      !op_need_rank(m, n, 1, 2, 2) || !op_need_class(m, n, 2, CL_INT) ||
      !op_need_rank(m, n, 2, 1, 1) ||
      !op_same_dim(m, n, n->in[1]->dims[0], n->in[2]->dims[0], "number of regions", &rows) ||
      !op_same_dim(m, n, n->in[1]->dims[1], ex_i64(m->pool, 4), "coordinates of a region", &same))
    return false;
  const DType t = n->in[0]->dtype;
  if (t != DT_F32 && t != DT_F64 && t != DT_F16 && t != DT_BF16)
    return op_error(m, n, ERR_UNSUPPORTED, "RoiAlign of %s", dtype_text(t));
  const Expr *dims[4] = {rows, n->in[0]->dims[1], ex_i64(m->pool, h), ex_i64(m->pool, w)};
  return op_out(m, n, 0, t, 4, dims);
}

static int pack_roi_align(const Node *n, int64_t *w, int max) {
  const double scale = node_float(n, "spatial_scale", 1);
  w[0] = choice(n, "coordinate_transformation_mode", roi_coords) == 0;
  w[1] = choice(n, "mode", roi_modes);
  w[2] = node_int(n, "sampling_ratio", 0);
  memcpy(&w[3], &scale, sizeof scale);
  return 4;
}

static const Expr *scratch_roi_align(Model *m, const Node *n) {
  const Expr *row = ex_mul(m->pool, n->in[0]->dims[3], ex_i64(m->pool, 4));
  return ex_add(m->pool, row, ex_i64(m->pool, 48 << 10));
}
const ExternRow ext_roi_align = {"rt_roi_align",    (void *)rt_roi_align, pack_roi_align,
                                 scratch_roi_align, .phases = 2,          .members = 1 << 15};

/* ---- TensorScatter ---- */
static const char *const scatter_modes[] = {"linear", "circular", NULL};

bool infer_tensor_scatter(Model *m, Node *n) {
  const Value *a = n->in[0], *u = n->in[1];
  int axis, k;
  const Expr *same;
  if (!op_choice(m, n, "mode", "linear", scatter_modes, &k) || !op_same_dtype(m, n, 1, 0) ||
      !op_need_rank(m, n, 0, 2, MAX_RANK) || !op_need_rank(m, n, 1, a->rank, a->rank) ||
      !op_need_class(m, n, 2, CL_INT) || !op_need_rank(m, n, 2, 1, 1) ||
      !op_axis(m, n, "axis", -2, a->rank, &axis))
    return false;
  if (axis == 0) return op_error(m, n, ERR_ATTR_VALUE, "axis is the batch axis");
  for (int i = 0; i < a->rank; i++)
    if (i != axis && !op_same_dim(m, n, a->dims[i], u->dims[i], "dimension", &same)) return false;
  if (!require_at_most(m, n, u->dims[axis], a->dims[axis], "positions of the update and the cache"))
    return false;
  if (node_in(n, 2) && !op_same_dim(m, n, a->dims[0], n->in[2]->dims[0], "batch", &same))
    return false;
  return op_out_like(m, n, 0, a->dtype, a);
}

const Expr *elem_tensor_scatter(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *a = n->in[0], *u = n->in[1];
  int64_t axis = node_int(n, "axis", -2);
  const Expr *src[MAX_RANK], *zero = ex_i64(p, 0);
  if (axis < 0) axis += a->rank;
  const Expr *start = node_in(n, 2) ? tu_i64(p, elem_in(c, n, 2, idx)) : zero,
             *at = ex_sub(p, idx[axis], start);
  if (choice(n, "mode", scatter_modes) == 1) at = ex_floormod(p, at, a->dims[axis]);
  const Expr *inside = ex_and(p, ex_le(p, zero, at), ex_lt(p, at, u->dims[axis]));
  memcpy(src, idx, sizeof *src * (size_t)a->rank);
  src[axis] = at;
  return ex_select(p, inside, elem_in_guarded(c, n, 1, src, inside), elem_in(c, n, 0, idx));
}
