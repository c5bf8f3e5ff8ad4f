/* Resize: nearest, linear and cubic interpolation over any axes, all coordinate modes,
 * antialiasing. Each axis is a list of taps (position, weight); the value is the sum over the
 * product of taps. */
#include <math.h>
#include <string.h>
#include "ir/op/tensor_util.h"

enum { MODE_NEAREST, MODE_LINEAR, MODE_CUBIC };
enum { CO_HALF_PIXEL, CO_SYMMETRIC, CO_PYTORCH, CO_ALIGN, CO_ASYMMETRIC, CO_CROP };
enum { NEAR_PREFER_FLOOR, NEAR_PREFER_CEIL, NEAR_FLOOR, NEAR_CEIL };
enum { KEEP_STRETCH, KEEP_NOT_LARGER, KEEP_NOT_SMALLER };
static const char *const modes[] = {"nearest", "linear", "cubic", NULL};
static const char *const coords[] = {"half_pixel",
                                     "half_pixel_symmetric",
                                     "pytorch_half_pixel",
                                     "align_corners",
                                     "asymmetric",
                                     "tf_crop_and_resize",
                                     NULL};
static const char *const nears[] = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil",
                                    NULL};
static const char *const keeps[] = {"stretch", "not_larger", "not_smaller", NULL};

typedef struct ResizeSpec {
  int mode, coord, near, keep;
  bool antialias, exclude;
  double cubic, extrapolation;
  int entry[MAX_RANK]; /* position of an axis in scales, sizes and roi; -1: not resized */
  int count;
  int by; /* 2: scales, 3: sizes */
} ResizeSpec;

static int choice(const Node *n, const char *name, const char *const *list) {
  const char *s = node_string(n, name, list[0]);
  for (int k = 0; list[k]; k++)
    if (strcmp(s, list[k]) == 0) return k;
  return 0;
}

static bool present(const Node *n, int k) {
  const Value *v = node_in(n, k);
  return v && !(v->rank == 1 && expr_is_i64(v->dims[0], 0));
}

static ResizeSpec spec_of(const Node *n) {
  ResizeSpec s = {.mode = choice(n, "mode", modes),
                  .coord = choice(n, "coordinate_transformation_mode", coords)};
  const int64_t *axes;
  const int rank = n->in[0]->rank;
  s.near = choice(n, "nearest_mode", nears);
  s.keep = choice(n, "keep_aspect_ratio_policy", keeps);
  s.antialias = node_int(n, "antialias", 0) != 0 && s.mode != MODE_NEAREST;
  s.exclude = node_int(n, "exclude_outside", 0) != 0;
  s.cubic = node_float(n, "cubic_coeff_a", -0.75);
  s.extrapolation = node_float(n, "extrapolation_value", 0);
  s.by = present(n, 3) ? 3 : 2;
  const bool given = node_attr(n, "axes") != NULL;
  s.count = given ? node_ints(n, "axes", &axes) : rank;
  for (int i = 0; i < rank; i++) s.entry[i] = given ? -1 : i;
  for (int k = 0; given && k < s.count; k++) {
    const int64_t a = axes[k] < 0 ? axes[k] + rank : axes[k];
    if (a >= 0 && a < rank) s.entry[a] = k;
  }
  return s;
}

/* ---- inference ---- */
static bool const_scale(ExprPool *p, const Node *n, int k, double *v) {
  const Expr *e = value_element(p, n->in[2], k);
  if (!e || e->op != EX_CONST) return false;
  *v = dtype_is_float((DType)e->dtype) ? e->k.f : (double)e->k.i;
  return true;
}

/* floor(dim * scale), with a product in f32, the type of the scale: 9 * 17/9 is 17 there, as who computed the scale means it,
 * and below 17 in f64. */
static bool scaled_dim(Model *m, Node *n, int axis, int k, const Expr **out) {
  ExprPool *p = m->pool;
  double scale;
  int64_t d;
  const Expr *in = n->in[0]->dims[axis];
  if (!const_scale(p, n, k, &scale)) {
    const Expr *e = n->in[2]->contents ? value_element(p, n->in[2], k) : NULL;
    if (e)
      *out = ex_cast(p, DT_I64,
                     ex_op(p, EX_floor, ex_mul(p, ex_cast(p, e->dtype, in), e), NULL, NULL));
    else if (present(n, 4)) /* ours: sizes that follow from scales that are data (up_resize_data) */
      *out = tu_dim(m, n, 0, axis, ex_max(p, tu_elem(m, n, 4, k), ex_i64(p, 0)), NULL);
    else
      return op_error(m, n, ERR_DYNAMIC, "scales are not known at compile time");
    return true;
  }
  if (!(scale > 0) || scale > 1e9)
    return op_error(m, n, ERR_VALUE, "scale %g of axis %d", scale, axis);
  if (scale == 1) return *out = in, true;
  if (expr_is_const(in, &d) && (double)d * scale > 1e14)
    return op_error(m, n, ERR_OVERFLOW, "axis %d becomes too large", axis);
  if (scale == floor(scale)) return *out = op_times(m, in, ex_i64(p, (int64_t)scale)), true;
  const double inv = 1 / scale;
  if (expr_is_const(in, &d))
    return *out = ex_i64(p, (int64_t)floorf((float)d * (float)scale)), true;
  if (inv < 1e15 && inv == floor(inv))
    return *out = ex_floordiv(p, in, ex_i64(p, (int64_t)inv)), true;
  const Expr *f = ex_mul(p, ex_cast(p, DT_F32, in), tu_f32(p, scale));
  *out = ex_cast(p, DT_I64, ex_op(p, EX_floor, f, NULL, NULL));
  return true;
}

/* The same of sizes that the run knows. */
static void kept_data(Model *m, Node *n, const ResizeSpec *s, const Expr **dims) {
  ExprPool *p = m->pool;
  const Expr *best = NULL;
  for (int i = 0; i < n->in[0]->rank; i++) {
    if (s->entry[i] < 0) continue;
    const Expr *r = ex_div(p, ex_cast(p, DT_F64, tu_elem(m, n, 3, s->entry[i])),
                           ex_cast(p, DT_F64, n->in[0]->dims[i]));
    best = !best ? r : s->keep == KEEP_NOT_LARGER ? ex_min(p, best, r) : ex_max(p, best, r);
  }
  for (int i = 0; i < n->in[0]->rank; i++) {
    if (s->entry[i] < 0) continue;
    const Expr *size = ex_mul(p, best, ex_cast(p, DT_F64, n->in[0]->dims[i]));
    size = ex_op(p, EX_floor, ex_add(p, size, ex_float(p, DT_F64, 0.5)), NULL, NULL);
    dims[i] = tu_dim(m, n, 0, i, ex_cast(p, DT_I64, size), NULL);
  }
}

/* keep_aspect_ratio_policy: one scale, the least or greatest of sizes[k] / dim. */
static bool kept_dims(Model *m, Node *n, const ResizeSpec *s, const Expr **dims) {
  double best = 0;
  int64_t d, w;
  bool first = true;
  for (int i = 0; i < n->in[0]->rank; i++) {
    if (s->entry[i] < 0) continue;
    if (!expr_is_const(n->in[0]->dims[i], &d) ||
        !expr_is_const(tu_elem(m, n, 3, s->entry[i]), &w) || d == 0)
      return kept_data(m, n, s, dims), true;
    const double r = (double)w / (double)d;
    if (r > 1e9) return op_error(m, n, ERR_OVERFLOW, "axis %d becomes too large", i);
    if (first || (s->keep == KEEP_NOT_LARGER ? r < best : r > best)) best = r;
    first = false;
  }
  for (int i = 0; i < n->in[0]->rank; i++)
    if (s->entry[i] >= 0 && expr_is_const(n->in[0]->dims[i], &d) && (double)d * best < 1e14)
      dims[i] = ex_i64(m->pool, (int64_t)floor(best * (double)d + 0.5));
  return true;
}

static bool check_resize(Model *m, Node *n) {
  int k;
  const int rank = n->in[0]->rank;
  const int64_t *axes;
  bool set[MAX_RANK] = {0};
  if (!op_choice(m, n, "mode", modes[0], modes, &k) ||
      !op_choice(m, n, "coordinate_transformation_mode", coords[0], coords, &k) ||
      !op_choice(m, n, "nearest_mode", nears[0], nears, &k) ||
      !op_choice(m, n, "keep_aspect_ratio_policy", keeps[0], keeps, &k) ||
      !op_ints(m, n, "axes", &axes, &k))
    return false;
  if (k >= 0 && !op_axis_set(m, n, "axis", k, axes, rank, set)) return false;
  if (!op_need_class(m, n, 0, CL_NUMBER | CL_BOOL) || !op_need_class(m, n, 1, CL_FLOAT) ||
      !op_need_class(m, n, 2, CL_FLOAT) || !op_need_class(m, n, 3, CL_INT))
    return false;
  if (present(n, 2) == present(n, 3))
    return op_error(m, n, ERR_ARITY, "needs exactly one of scales and sizes");
  return true;
}

bool infer_resize(Model *m, Node *n) {
  const Value *in = n->in[0];
  const Expr *dims[MAX_RANK];
  int count;
  if (!check_resize(m, n)) return false;
  const ResizeSpec s = spec_of(n);
  if (!tu_count(m, n, s.by, s.by == 2 ? "scales" : "sizes", s.count, &count)) return false;
  if (count != s.count)
    return op_error(m, n, ERR_SHAPE, "%d %s for %d axes", count, s.by == 2 ? "scales" : "sizes",
                    s.count);
  if (s.coord == CO_CROP) {
    if (!present(n, 1)) return op_error(m, n, ERR_ARITY, "tf_crop_and_resize needs roi");
    if (!tu_count(m, n, 1, "roi", 2 * s.count, &count)) return false;
    if (count != 2 * s.count)
      return op_error(m, n, ERR_SHAPE, "roi has %d elements for %d axes", count, s.count);
  }
  for (int i = 0; i < in->rank; i++) {
    dims[i] = in->dims[i];
    if (s.entry[i] < 0) continue;
    if (s.by == 2) {
      if (!scaled_dim(m, n, i, s.entry[i], &dims[i])) return false;
      continue;
    }
    const Expr *e = tu_elem(m, n, 3, s.entry[i]), *zero = ex_i64(m->pool, 0);
    if (!require_at_least(m, n, e, zero, "size") ||
        !require_at_least(m, n, in->dims[i], ex_min(m->pool, e, ex_i64(m->pool, 1)),
                          "axis that is resized"))
      return false;
    if (s.keep == KEEP_STRETCH) dims[i] = tu_dim(m, n, 0, i, e, NULL);
  }
  if (present(n, 4) && n->n_syms == 0) n->n_in = 4;
  if (s.by == 3 && s.keep != KEEP_STRETCH && !kept_dims(m, n, &s, dims)) return false;
  return op_out(m, n, 0, in->dtype, in->rank, dims);
}

/* ---- coordinates ---- */
typedef struct Axis {
  const Expr *in, *out;   /* sizes, i64 */
  const Expr *inf, *outf; /* sizes, f32; outf may have a fraction */
  const Expr *scale;      /* f32 */
  double known_scale;     /* 0: not known */
  int64_t k;              /* entry of scales */
} Axis;

static const Expr *f_add(ExprPool *p, const Expr *a, double b) {
  return ex_add(p, a, tu_f32(p, b));
}
static const Expr *f_mul(ExprPool *p, const Expr *a, double b) {
  return ex_mul(p, a, tu_f32(p, b));
}
static const Expr *f_floor(ExprPool *p, const Expr *a) { return ex_op(p, EX_floor, a, NULL, NULL); }
static const Expr *f_int(ExprPool *p, const Expr *a) { return ex_cast(p, DT_I64, a); }

static const Expr *read_at(ElemCtx *c, const Node *n, int k, int64_t i) {
  const Expr *at[1] = {ex_i64(c->pool, i)};
  return ex_cast(c->pool, DT_F32, elem_in(c, n, k, at));
}

static Axis axis_of(ElemCtx *c, const Node *n, const ResizeSpec *s, int i) {
  ExprPool *p = c->pool;
  Axis a = {.in = n->in[0]->dims[i], .out = n->out[0]->dims[i], .k = s->entry[i]};
  int64_t x, y;
  const bool fixed = expr_is_const(a.in, &x) && expr_is_const(a.out, &y);
  a.inf = ex_cast(p, DT_F32, a.in);
  a.outf = ex_cast(p, DT_F32, a.out);
  if (s->by == 2) {
    a.scale = read_at(c, n, 2, a.k);
    a.outf = ex_mul(p, a.scale, a.inf); /* ONNX: the size before it is rounded down */
    const_scale(p, n, (int)a.k, &a.known_scale);
  } else if (s->keep != KEEP_STRETCH) { /* the one scale of all axes */
    a.scale = NULL;
    for (int j = 0; j < n->in[0]->rank; j++) {
      if (s->entry[j] < 0) continue;
      const Expr *r = ex_div(p, ex_cast(p, DT_F32, tu_known(p, n, 3, s->entry[j])),
                             ex_cast(p, DT_F32, n->in[0]->dims[j]));
      a.scale = !a.scale                     ? r
                : s->keep == KEEP_NOT_LARGER ? ex_min(p, a.scale, r)
                                             : ex_max(p, a.scale, r);
    }
  } else {
    a.scale = ex_div(p, a.outf, a.inf);
    if (fixed && x > 0) a.known_scale = (double)y / (double)x;
  }
  return a;
}

/* Position in the input of output position i, as f32. */
static const Expr *source_position(ElemCtx *c, const Node *n, const ResizeSpec *s, const Axis *a,
                                   const Expr *i) {
  ExprPool *p = c->pool;
  const Expr *x = ex_cast(p, DT_F32, i), *zero = tu_f32(p, 0);
  const Expr *half = f_add(p, ex_div(p, f_add(p, x, 0.5), a->scale), -0.5);
  const Expr *single = ex_le(p, a->out, ex_i64(p, 1));
  switch (s->coord) {
    case CO_HALF_PIXEL: return half;
    case CO_SYMMETRIC: {
      const Expr *adjust = ex_div(p, ex_cast(p, DT_F32, a->out), ex_mul(p, a->scale, a->inf));
      const Expr *offset = ex_mul(p, f_mul(p, a->inf, 0.5), ex_sub(p, tu_f32(p, 1), adjust));
      return ex_add(p, offset, half);
    }
    case CO_PYTORCH: return ex_select(p, single, zero, half);
    case CO_ALIGN:
      return ex_select(p, single, zero,
                       ex_div(p, ex_mul(p, x, f_add(p, a->inf, -1)), f_add(p, a->outf, -1)));
    case CO_ASYMMETRIC: return ex_div(p, x, a->scale);
    default: break;
  }
  const Expr *from = read_at(c, n, 1, a->k), *to = read_at(c, n, 1, a->k + s->count),
             *last = f_add(p, a->inf, -1);
  const Expr *span = ex_mul(p, ex_sub(p, to, from), last);
  const Expr *step = ex_div(p, ex_mul(p, x, span), f_add(p, a->outf, -1));
  const Expr *middle = f_mul(p, ex_mul(p, ex_add(p, from, to), last), 0.5);
  return ex_select(p, single, middle, ex_add(p, ex_mul(p, from, last), step));
}

static const Expr *clamp_in(ExprPool *p, const Expr *i, const Expr *dim) {
  return tu_clamp(p, i, ex_i64(p, 0), ex_sub(p, dim, ex_i64(p, 1)));
}

/* Integer factors need no floating point. NULL: the general way. */
static const Expr *nearest_integer(ExprPool *p, const ResizeSpec *s, const Axis *a, const Expr *i) {
  int64_t x, y;
  if (!expr_is_const(a->in, &x) || !expr_is_const(a->out, &y) || x < 1 || a->known_scale == 0)
    return NULL;
  const double f = a->known_scale;
  const int64_t up = double_to_i64(f);
  const bool centred =
      s->coord == CO_HALF_PIXEL && (s->near == NEAR_PREFER_FLOOR || s->near == NEAR_PREFER_CEIL);
  const bool corner = s->coord == CO_ASYMMETRIC && s->near == NEAR_FLOOR;
  if ((double)up == f && up > 0 && y % up == 0 && y / up == x && (centred || corner))
    return ex_floordiv(p, i, ex_i64(p, up));
  const int64_t down = f > 0 ? double_to_i64(1 / f) : 0;
  if (down > 1 && 1 / (double)down == f && s->coord == CO_ASYMMETRIC && x / down >= y)
    return ex_mul(p, i, ex_i64(p, down));
  return NULL;
}

/* floor(a / b), exact for |a| below 2^52; unless b is known by a division of f64, which is faster
 * in lanes. */
static const Expr *floor_ratio(ExprPool *p, const Expr *a, const Expr *b) {
  if (expr_is_const(b, NULL)) return ex_floordiv(p, a, b);
  const Expr *q = ex_div(p, ex_cast(p, DT_F64, a), ex_cast(p, DT_F64, b));
  return f_int(p, f_floor(p, q));
}

/* The scale as a ratio of sizes: that of this axis, or of the one that keep_aspect_ratio_policy
 * chooses. */
static bool scale_ratio(ElemCtx *c, const Node *n, const ResizeSpec *s, const Axis *a,
                        const Expr **over, const Expr **under) {
  int64_t w, d, best_w = 0, best_d = 1;
  *over = a->out;
  *under = a->in;
  if (s->by != 3) return false;
  if (s->keep == KEEP_STRETCH) return true;
  for (int j = 0; j < n->in[0]->rank; j++) {
    if (s->entry[j] < 0) continue;
    if (!expr_is_const(n->in[0]->dims[j], &d) || d < 1 || d > INT32_MAX ||
        !expr_is_const(tu_known(c->pool, n, 3, s->entry[j]), &w) || w < 1 || w > INT32_MAX)
      return false;
    const bool less = w * best_d < best_w * d;
    if (best_w == 0 || less == (s->keep == KEEP_NOT_LARGER)) best_w = w, best_d = d;
  }
  *over = ex_i64(c->pool, best_w);
  *under = ex_i64(c->pool, best_d);
  return s->coord != CO_SYMMETRIC;
}

/* With sizes the position is a ratio of integers, and so is its rounding. NULL: given by scales. */
static const Expr *nearest_ratio(ElemCtx *c, const Node *n, const ResizeSpec *s, const Axis *a,
                                 const Expr *i) {
  ExprPool *p = c->pool;
  const Expr *over, *under, *one = ex_i64(p, 1), *two = ex_i64(p, 2), *num, *den;
  if (s->coord == CO_CROP || !scale_ratio(c, n, s, a, &over, &under)) return NULL;
  if (s->coord == CO_ASYMMETRIC) {
    num = ex_mul(p, ex_mul(p, i, under), two);
    den = ex_mul(p, over, two);
  } else if (s->coord == CO_ALIGN) {
    if (s->keep != KEEP_STRETCH) return NULL;
    num = ex_mul(p, ex_mul(p, i, ex_sub(p, a->in, one)), two);
    den = ex_mul(p, ex_max(p, ex_sub(p, a->out, one), one), two);
  } else {
    num = ex_sub(p, ex_mul(p, ex_add(p, ex_mul(p, i, two), one), under), over);
    den = ex_mul(p, over, two);
  }
  const Expr *half = ex_floordiv(p, den, two); /* den is even */
  if (s->near == NEAR_PREFER_CEIL) num = ex_add(p, num, half);
  if (s->near == NEAR_PREFER_FLOOR) num = ex_sub(p, num, half);
  const bool up = s->near == NEAR_CEIL || s->near == NEAR_PREFER_FLOOR;
  if (up) num = ex_add(p, num, ex_sub(p, den, one));
  const Expr *e = clamp_in(p, floor_ratio(p, num, den), a->in), *zero = ex_i64(p, 0);
  const bool zero_if_single = s->coord == CO_PYTORCH || s->coord == CO_ALIGN;
  return zero_if_single ? ex_select(p, ex_le(p, a->out, one), zero, e) : e;
}

static const Expr *nearest_index(ElemCtx *c, const Node *n, const ResizeSpec *s, const Axis *a,
                                 const Expr *i, const Expr **x) {
  ExprPool *p = c->pool;
  const Expr *e = nearest_integer(p, s, a, i);
  if (!e) e = nearest_ratio(c, n, s, a, i);
  if (e) return e;
  *x = source_position(c, n, s, a, i);
  switch (s->near) {
    case NEAR_FLOOR: e = f_floor(p, *x); break;
    case NEAR_CEIL: e = ex_op(p, EX_ceil, *x, NULL, NULL); break;
    case NEAR_PREFER_CEIL: e = f_floor(p, f_add(p, *x, 0.5)); break;
    default: e = ex_op(p, EX_ceil, f_add(p, *x, -0.5), NULL, NULL); break;
  }
  return clamp_in(p, f_int(p, e), a->in);
}

/* ---- taps ---- */
static const Expr *f_abs(ExprPool *p, const Expr *a) { return ex_op(p, EX_abs, a, NULL, NULL); }

/* Weight of a tap at distance t (in filter units). */
static const Expr *kernel_weight(ExprPool *p, const ResizeSpec *s, const Expr *t) {
  const Expr *d = f_abs(p, t), *one = tu_f32(p, 1);
  if (s->mode == MODE_LINEAR) return ex_max(p, ex_sub(p, one, d), tu_f32(p, 0));
  const double a = s->cubic;
  const Expr *near =
      ex_add(p, ex_mul(p, ex_mul(p, f_add(p, f_mul(p, d, a + 2), -(a + 3)), d), d), one);
  const Expr *far = f_add(
      p, ex_mul(p, f_add(p, ex_mul(p, f_add(p, f_mul(p, d, a), -5 * a), d), 8 * a), d), -4 * a);
  return ex_select(p, ex_le(p, d, one), near,
                   ex_select(p, ex_lt(p, d, tu_f32(p, 2)), far, tu_f32(p, 0)));
}

enum { MAX_TAPS = 4 };
typedef struct Taps {
  int n; /* 0: a reduction over var */
  const Expr *at[MAX_TAPS], *w[MAX_TAPS];
  const Expr *var, *vat, *vw; /* antialias: position and weight at reduction variable var */
} Taps;

static const Expr *inside_weight(ExprPool *p, const ResizeSpec *s, const Expr *pos, const Expr *dim,
                                 const Expr *w) {
  if (!s->exclude) return w;
  const Expr *in = ex_and(p, ex_le(p, ex_i64(p, 0), pos), ex_lt(p, pos, dim));
  return ex_select(p, in, w, tu_f32(p, 0));
}

static Taps plain_taps(ExprPool *p, const ResizeSpec *s, const Axis *a, const Expr *x) {
  const Expr *base = f_floor(p, x), *frac = ex_sub(p, x, base), *b = f_int(p, base);
  Taps t = {.n = s->mode == MODE_LINEAR ? 2 : 4};
  const int first = s->mode == MODE_LINEAR ? 0 : -1;
  const Expr *sum = tu_f32(p, 0);
  for (int k = 0; k < t.n; k++) {
    const Expr *pos = ex_add(p, b, ex_i64(p, first + k));
    const Expr *w = s->mode == MODE_LINEAR ? (k ? frac : ex_sub(p, tu_f32(p, 1), frac))
                                           : kernel_weight(p, s, f_add(p, frac, -(first + k)));
    t.w[k] = inside_weight(p, s, pos, a->in, w);
    sum = ex_add(p, sum, t.w[k]);
    t.at[k] = clamp_in(p, pos, a->in);
  }
  for (int k = 0; s->exclude && k < t.n; k++) t.w[k] = ex_div(p, t.w[k], sum);
  return t;
}

/* Downscaling with antialias: the filter is widened by 1/scale, weights are normalised. */
static Taps wide_taps(ExprPool *p, const ResizeSpec *s, const Axis *a, const Expr *x) {
  const int64_t radius = s->mode == MODE_LINEAR ? 1 : 2;
  const Expr *out = ex_max(p, a->out, ex_i64(p, 1)), *two = ex_i64(p, 2), *one = ex_i64(p, 1);
  const Expr *wide =
      ex_sub(p, ex_add(p, ex_mul(p, ex_max(p, a->in, out), ex_i64(p, 2 * radius)), out), one);
  const Expr *span = ex_add(p, ex_floordiv(p, wide, out), two); /* in/out is at least 1/scale */
  const Expr *sc = ex_min(p, a->scale, tu_f32(p, 1));
  const Expr *support = ex_div(p, tu_f32(p, (double)radius), sc);
  const Expr *first = f_int(p, f_floor(p, ex_sub(p, x, support)));
  Taps t = {0};
  t.var = ex_var(p, "t", span);
  const Expr *pos = ex_add(p, first, t.var);
  const Expr *dist = ex_mul(p, ex_sub(p, ex_cast(p, DT_F32, pos), x), sc);
  const Expr *w = inside_weight(p, s, pos, a->in, kernel_weight(p, s, dist));
  const Expr *var2 = ex_var(p, "t", span);
  const Expr *sum = ex_reduce(p, RED_SUM, var2, expr_subst(p, w, t.var, var2));
  t.vat = clamp_in(p, pos, a->in);
  t.vw = ex_div(p, w, sum);
  return t;
}

typedef struct Interp {
  ElemCtx *c;
  const Node *n;
  const Expr *src[MAX_RANK];
  int axes[MAX_RANK], count;
  Taps taps[MAX_RANK];
  const Expr *guard;
} Interp;

static const Expr *interpolate(Interp *r, int k) {
  ExprPool *p = r->c->pool;
  if (k == r->count) {
    const Expr *e = r->guard ? elem_in_guarded(r->c, r->n, 0, r->src, r->guard)
                             : elem_in(r->c, r->n, 0, r->src);
    return ex_cast(p, DT_F32, e);
  }
  const Taps *t = &r->taps[k];
  const int axis = r->axes[k];
  if (t->n == 0) {
    r->src[axis] = t->vat;
    return ex_reduce(p, RED_SUM, t->var, ex_mul(p, t->vw, interpolate(r, k + 1)));
  }
  const Expr *sum = NULL;
  for (int i = 0; i < t->n; i++) {
    r->src[axis] = t->at[i];
    const Expr *e = ex_mul(p, t->w[i], interpolate(r, k + 1));
    sum = sum ? ex_add(p, sum, e) : e;
  }
  return sum;
}

static const Expr *outside_of(ExprPool *p, const Expr *x, const Axis *a) {
  const Expr *low = ex_lt(p, x, tu_f32(p, 0)), *high = ex_lt(p, f_add(p, a->inf, -1), x);
  return ex_op(p, EX_or, low, high, NULL);
}

const Expr *elem_resize(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const ResizeSpec s = spec_of(n);
  const DType t = n->in[0]->dtype;
  Interp r = {.c = c, .n = n};
  const Expr *outside = ex_bool(p, false), *guard = ex_bool(p, true);
  for (int i = 0; i < n->in[0]->rank; i++) {
    r.src[i] = idx[i];
    if (s.entry[i] < 0) continue;
    const Axis a = axis_of(c, n, &s, i);
    if (a.in == a.out && s.coord != CO_CROP && (s.by == 3 || a.known_scale == 1)) continue;
    if (tu_may_be_empty(p, a.in)) guard = ex_and(p, guard, ex_lt(p, ex_i64(p, 0), a.in));
    const Expr *x = NULL;
    if (s.mode == MODE_NEAREST) {
      r.src[i] = nearest_index(c, n, &s, &a, idx[i], &x);
    } else {
      x = source_position(c, n, &s, &a, idx[i]);
      const bool wide = s.antialias && !(a.known_scale >= 1);
      r.axes[r.count] = i;
      r.taps[r.count++] = wide ? wide_taps(p, &s, &a, x) : plain_taps(p, &s, &a, x);
    }
    if (s.coord == CO_CROP && x) outside = ex_op(p, EX_or, outside, outside_of(p, x, &a), NULL);
  }
  int64_t always;
  r.guard = expr_is_const(guard, &always) && always ? NULL : guard;
  const Expr *e;
  if (r.count == 0)
    e = r.guard ? elem_in_guarded(c, n, 0, r.src, r.guard) : elem_in(c, n, 0, r.src);
  else if (dtype_is_float(t))
    e = ex_cast(p, t, interpolate(&r, 0));
  else
    e = ex_sat(p, t, ex_op(p, EX_rint, interpolate(&r, 0), NULL, NULL));
  return ex_select(p, outside, ex_const(p, t, s.extrapolation), e);
}
