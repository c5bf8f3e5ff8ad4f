/* Signal processing: windows, mel filters, DFT and STFT. A short DFT of constant length is one
 * MatMul with a matrix of cosines and sines; others are fast transforms at run time. */
#include <math.h>
#include <string.h>
#include "ir/op/tensor_util.h"
#include "runtime/ops/ops.h"

static const double PI = 3.14159265358979323846;
static const Expr *d64(ExprPool *p, double v) { return ex_float(p, DT_F64, v); }
static const Expr *fn(ExprPool *p, ExprOp op, const Expr *a) { return ex_op(p, op, a, NULL, NULL); }
static const Expr *to64(ExprPool *p, const Expr *e) { return ex_cast(p, DT_F64, e); }

/* ---- windows ---- */
static bool output_type(Model *m, Node *n, DType *t) {
  return op_dtype(m, n, "output_datatype", DT_F32, t) &&
         (dtype_is_float(*t) || dtype_is_int(*t) ||
          op_error(m, n, ERR_ATTR_VALUE, "a window of %s", dtype_text(*t)));
}

bool infer_window(Model *m, Node *n) {
  int count;
  DType t;
  if (!op_need_class(m, n, 0, CL_INT) || !tu_count(m, n, 0, "size", 1, &count) ||
      !output_type(m, n, &t))
    return false;
  if (count != 1) return op_error(m, n, ERR_SHAPE, "size has %d elements", count);
  const Expr *size = tu_elem(m, n, 0, 0);
  if (!require_at_least(m, n, size, ex_i64(m->pool, 0), "size")) return false;
  const Expr *d = tu_dim(m, n, 0, 0, size, NULL);
  return op_out(m, n, 0, t, 1, &d);
}

/* a0 - a1 cos(x) + a2 cos(2x), x = 2 pi i / period. */
static const Expr *cosine_window(ElemCtx *c, const Node *n, const Expr *i, double a0, double a1,
                                 double a2) {
  ExprPool *p = c->pool;
  const Expr *size = n->out[0]->dims[0], *one = ex_i64(p, 1);
  const Expr *period = node_int(n, "periodic", 1) ? size : ex_max(p, ex_sub(p, size, one), one);
  const Expr *x = ex_div(p, ex_mul(p, to64(p, i), d64(p, 2 * PI)), to64(p, period));
  const Expr *e = ex_sub(p, d64(p, a0), ex_mul(p, d64(p, a1), fn(p, EX_cos, x)));
  if (a2 != 0) e = ex_add(p, e, ex_mul(p, d64(p, a2), fn(p, EX_cos, ex_mul(p, x, d64(p, 2)))));
  return ex_cast(p, n->out[0]->dtype, e);
}

const Expr *elem_hann_window(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return cosine_window(c, n, idx[0], 0.5, 0.5, 0);
}
const Expr *elem_hamming_window(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return cosine_window(c, n, idx[0], 25.0 / 46, 1 - 25.0 / 46, 0);
}
const Expr *elem_blackman_window(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return cosine_window(c, n, idx[0], 0.42, 0.5, 0.08);
}

/* ---- MelWeightMatrix ---- */
bool infer_mel(Model *m, Node *n) {
  ExprPool *p = m->pool;
  DType t;
  for (int k = 0; k < 5; k++)
    if (!op_need_class(m, n, k, k < 3 ? CL_INT : CL_FLOAT) || !op_need_rank(m, n, k, 0, 0))
      return false;
  if (!output_type(m, n, &t)) return false;
  const Expr *bins = ex_add(p, ex_floordiv(p, tu_elem(m, n, 1, 0), ex_i64(p, 2)), ex_i64(p, 1));
  const Expr *dims[2] = {tu_dim(m, n, 0, 0, bins, NULL),
                         tu_dim(m, n, 0, 1, tu_elem(m, n, 0, 0), NULL)};
  return op_out(m, n, 0, t, 2, dims);
}

static const Expr *to_mel(ExprPool *p, const Expr *hz) {
  return ex_mul(p, fn(p, EX_log, ex_add(p, ex_div(p, hz, d64(p, 700)), d64(p, 1))),
                d64(p, 2595 / 2.302585092994046));
}

/* Spectrogram bin of the k-th of num_mel_bins + 2 points. */
static const Expr *mel_bin(ElemCtx *c, const Node *n, const Expr *k) {
  ExprPool *p = c->pool;
  const Expr *low = to_mel(p, to64(p, elem_in(c, n, 3, NULL))),
             *high = to_mel(p, to64(p, elem_in(c, n, 4, NULL)));
  const Expr *points = ex_add(p, to64(p, elem_in(c, n, 0, NULL)), d64(p, 2));
  const Expr *mel = ex_add(p, low, ex_mul(p, to64(p, k), ex_div(p, ex_sub(p, high, low), points)));
  const Expr *hz =
      ex_mul(p, d64(p, 700),
             ex_sub(p, fn(p, EX_exp, ex_mul(p, mel, d64(p, 2.302585092994046 / 2595))), d64(p, 1)));
  const Expr *scaled = ex_mul(p, ex_add(p, to64(p, elem_in(c, n, 1, NULL)), d64(p, 1)), hz);
  return ex_cast(p, DT_I64, fn(p, EX_floor, ex_div(p, scaled, to64(p, elem_in(c, n, 2, NULL)))));
}

const Expr *elem_mel(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *one = ex_i64(p, 1), *j = idx[0];
  const Expr *a = mel_bin(c, n, idx[1]), *b = mel_bin(c, n, ex_add(p, idx[1], one)),
             *d = mel_bin(c, n, ex_add(p, idx[1], ex_i64(p, 2)));
  const Expr *rise = ex_div(p, to64(p, ex_sub(p, j, a)), to64(p, ex_max(p, ex_sub(p, b, a), one)));
  const Expr *fall = ex_div(p, to64(p, ex_sub(p, d, j)), to64(p, ex_max(p, ex_sub(p, d, b), one)));
  const Expr *up = ex_select(p, ex_eq(p, a, b), d64(p, 1), rise);
  const Expr *in_up = ex_and(p, ex_le(p, a, j), ex_le(p, j, b)),
             *in_down = ex_and(p, ex_le(p, b, j), ex_lt(p, j, d));
  return ex_cast(p, n->out[0]->dtype,
                 ex_select(p, in_down, fall, ex_select(p, in_up, up, d64(p, 0))));
}

/* ---- DFT ---- */
typedef struct Dft {
  int axis;                   /* -1: at says it */
  const Expr *at;             /* the axis as data */
  const Expr *given, *length; /* dft_length or NULL; points of the transform, at most */
  bool inverse, onesided;
} Dft;

/* Points of a transform along a dimension of `in` elements, and what it makes of them. */
static const Expr *dft_points(ExprPool *p, const Dft *d, const Expr *in) {
  const Expr *one = ex_i64(p, 1);
  if (d->given) return d->given;
  return d->inverse && d->onesided ? ex_mul(p, ex_sub(p, in, one), ex_i64(p, 2)) : in;
}
static const Expr *dft_made(ExprPool *p, const Dft *d, const Expr *in) {
  const Expr *points = dft_points(p, d, in);
  if (!d->onesided || d->inverse) return points;
  return ex_add(p, ex_floordiv(p, points, ex_i64(p, 2)), ex_i64(p, 1));
}

static const Expr *is_axis(ExprPool *p, const Dft *d, int axis, int rank) {
  const Expr *from_end = ex_eq(p, d->at, ex_i64(p, axis - rank));
  return ex_op(p, EX_or, ex_eq(p, d->at, ex_i64(p, axis)), from_end, NULL);
}

static bool dft_axis(Model *m, Node *n, Dft *d) {
  const int rank = n->in[0]->rank;
  const int64_t *v, axis = node_in(n, 2) ? -1 : node_int(n, "axis", -2);
  int count = 1;
  if (node_in(n, 2) && !tu_count(m, n, 2, "axis", 1, &count)) return false;
  if (count != 1) return op_error(m, n, ERR_SHAPE, "axis has %d elements", count);
  d->axis = -1;
  if (node_in(n, 2) && !op_known_ints(m, n, 2, &v, &count)) {
    d->at = tu_elem(m, n, 2, 0);
    return require_at_least(m, n, d->at, ex_i64(m->pool, -rank), "axis") &&
           require_at_most(m, n, d->at, ex_i64(m->pool, rank - 2), "axis") &&
           require_nonzero(m, n, ex_add(m->pool, d->at, ex_i64(m->pool, 1)),
                           "axis that is not that of the complex parts");
  }
  if (!op_norm_axis(m, n, "axis", node_in(n, 2) ? v[0] : axis, rank, &d->axis)) return false;
  return d->axis < rank - 1 || op_error(m, n, ERR_VALUE, "axis is that of the complex parts");
}

/* Reads what inference has checked. */
static bool dft_of(Model *m, Node *n, Dft *d) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0];
  int count;
  *d =
      (Dft){.inverse = node_int(n, "inverse", 0) != 0, .onesided = node_int(n, "onesided", 0) != 0};
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 2, MAX_RANK) ||
      !op_need_class(m, n, 1, CL_INT) || !op_need_class(m, n, 2, CL_INT))
    return false;
  if (node_in(n, 1) && !tu_count(m, n, 1, "dft_length", 1, &count)) return false;
  if (!dft_axis(m, n, d)) return false;
  d->given = node_in(n, 1) ? tu_elem(m, n, 1, 0) : NULL;
  d->length = dft_points(p, d, x->dims[d->axis < 0 ? 0 : d->axis]);
  for (int k = 1; d->axis < 0 && k < x->rank - 1; k++)
    d->length = ex_max(p, d->length, dft_points(p, d, x->dims[k]));
  return true;
}

/* Of each possible axis: at least one point, and the sizes of the result. */
static bool dft_dims(Model *m, Node *n, const Dft *d, const Expr **dims) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0];
  const Expr *one = ex_i64(p, 1);
  for (int k = 0; k < x->rank - 1; k++) {
    const Expr *here = d->axis < 0 ? is_axis(p, d, k, x->rank) : ex_bool(p, d->axis == k);
    const Expr *points = dft_points(p, d, x->dims[k]), *made = dft_made(p, d, x->dims[k]);
    if (!require_at_least(m, n, ex_select(p, here, points, one), one, "dft_length")) return false;
    const Expr *most = d->axis < 0 && !d->given ? ex_max(p, made, x->dims[k]) : NULL;
    dims[k] = tu_dim(m, n, 0, k, ex_select(p, here, made, x->dims[k]), most);
  }
  return true;
}

bool infer_dft(Model *m, Node *n) {
  Dft d;
  int64_t parts;
  const Expr *dims[MAX_RANK];
  if (!dft_of(m, n, &d)) return false;
  const Value *x = n->in[0];
  if (!expr_is_const(x->dims[x->rank - 1], &parts))
    return op_error(m, n, ERR_DYNAMIC, "whether the last axis has 1 or 2 elements is not known");
  if (parts != 1 && parts != 2)
    return op_error(m, n, ERR_SHAPE, "the last axis must have 1 or 2 elements (real, imaginary)");
  if (d.onesided && !d.inverse && parts != 1)
    return op_error(m, n, ERR_VALUE, "a one-sided transform of complex input");
  if (!dft_dims(m, n, &d, dims)) return false;
  dims[x->rank - 1] = ex_i64(m->pool, d.onesided && d.inverse ? 1 : 2);
  return op_out(m, n, 0, x->dtype, x->rank, dims);
}

/* burin.DFT: a fast transform of any length (runtime/ops/ops_dft.c). */
static int pack_dft(const Node *n, int64_t *w, int max) {
  Dft d;
  if (!dft_of(n->graph->model, (Node *)(uintptr_t)n, &d)) return -1;
  w[0] = d.axis;
  w[1] = d.inverse;
  w[2] = d.onesided;
  return 3;
}

static bool small_factors(int64_t n) {
  for (int64_t f = 2; f <= 13; f++)
    while (n % f == 0) n /= f;
  return n == 1;
}

/* The most points that a transform with this result can have: the size itself may be data. */
static const Expr *most_points(ExprPool *p, const Node *n, const Dft *d) {
  const Value *y = n->out[0];
  const bool half = d->onesided && !d->inverse;
  const Expr *most = ex_i64(p, 1), *one = ex_i64(p, 1);
  if (!d->given) return d->length;
  for (int k = 0; k < y->rank - 1; k++) {
    if (d->axis >= 0 && d->axis != k) continue;
    const Expr *made = y->dims[k];
    most = ex_max(p, most, half ? ex_sub(p, ex_mul(p, made, ex_i64(p, 2)), one) : made);
  }
  return most;
}

static const Expr *scratch_dft(Model *m, const Node *n) {
  Dft d;
  int64_t points;
  if (!dft_of(m, (Node *)(uintptr_t)n, &d)) return NULL;
  const bool small = expr_is_const(d.length, &points) && points > 0 && small_factors(points);
  const Expr *most = small ? d.length : most_points(m->pool, n, &d);
  const Expr *count = ex_mul(m->pool, most, ex_i64(m->pool, small ? 3 : 17));
  return ex_mul(m->pool, ex_add(m->pool, count, ex_i64(m->pool, 8)), ex_i64(m->pool, 16));
}
const ExternRow ext_dft = {"rt_dft", (void *)rt_dft, pack_dft, .scratch = scratch_dft};

typedef struct DftSizes {
  int64_t in, parts, points, out, out_parts; /* points: of the transform */
} DftSizes;

/* Weight of input element (k, part a) in output element (j, part b). */
static double dft_weight(const Dft *d, const DftSizes *s, int64_t k, int64_t a, int64_t j,
                         int64_t b) {
  const bool half = d->inverse && d->onesided;
  if (k >= (half ? s->points / 2 + 1 : s->points)) return 0;
  const double angle =
      2 * PI * (double)((k * j) % s->points) / (double)s->points * (d->inverse ? 1 : -1);
  double v = a == b ? cos(angle) : a < b ? sin(angle) : -sin(angle);
  if (half && k != 0 && 2 * k != s->points) v *= 2;
  return d->inverse ? v / (double)s->points : v;
}

static Value *dft_matrix(Build *b, const Dft *d, const DftSizes *s, DType t) {
  const int64_t dims[2] = {s->in * s->parts, s->out * s->out_parts};
  char *data = arena_alloc_array(b->m->arena, (size_t)(dims[0] * dims[1]), (size_t)dtype_bytes(t));
  for (int64_t r = 0; r < dims[0]; r++)
    for (int64_t c = 0; c < dims[1]; c++)
      dtype_store_f(
          t, data + (r * dims[1] + c) * dtype_bytes(t),
          dft_weight(d, s, r / s->parts, r % s->parts, c / s->out_parts, c % s->out_parts));
  return value_const(b->m, const_new(b->m, NULL, t, 2, dims, data));
}

/* [.., axis, .., parts] → [.., .., axis * parts] or back, as a permutation that moves axis next to
 * the last. */
static Value *move_axis(Build *b, Value *v, int from, int to) {
  int64_t perm[MAX_RANK];
  int k = 0;
  if (from == to) return v;
  for (int i = 0; i < v->rank; i++)
    if (i != from) perm[k++] = i;
  for (int i = v->rank - 1; i > to; i--) perm[i] = perm[i - 1];
  perm[to] = from;
  const Attr a = attr_ints(b->m->arena, "perm", v->rank, perm);
  return build_op(b, "Transpose", 1, &v, 1, &a);
}

static Value *split_last(Build *b, Value *v, int rank, int64_t out, int64_t parts) {
  int64_t shape[MAX_RANK];
  for (int i = 0; i < rank - 2; i++) shape[i] = 0; /* as in the input */
  shape[rank - 2] = out;
  shape[rank - 1] = parts;
  return build2(b, "Reshape", v, build_i64s(b, rank, shape));
}

/* Elements up to which a matrix is faster: one that many signals share stays in the cache. */
static int64_t most_elements(const Value *x, int axis) {
  int64_t signals = 1, dims[MAX_RANK];
  if (!value_is_static(x, dims)) return 1 << 19;
  for (int d = 0; d < x->rank - 1 && signals < 8; d++) signals *= d == axis ? 1 : dims[d];
  return signals < 8 ? 1 << 13 : 1 << 19;
}

bool expand_dft(Build *b, Node *n, Value **out) {
  Dft d;
  DftSizes s;
  if (!dft_of(b->m, n, &d)) return false;
  Value *x = n->in[0];
  const Value *o = n->out[0];
  const int rank = x->rank;
  int64_t rows, cols;
  const bool fixed = d.axis >= 0 && expr_is_const(x->dims[d.axis], &s.in) &&
                     expr_is_const(x->dims[rank - 1], &s.parts) &&
                     expr_is_const(d.length, &s.points) && expr_is_const(o->dims[d.axis], &s.out) &&
                     expr_is_const(o->dims[rank - 1], &s.out_parts);
  if (!fixed || !ck_mul(s.in, s.parts, &rows) || !ck_mul(s.out, s.out_parts, &cols) ||
      !ck_mul(rows, cols, &rows) || rows > most_elements(x, d.axis) || rows == 0) {
    Node *sum = build_node(b, "DFT", "burin", n->n_in, n->in, 1, n->n_attrs, n->attrs);
    out[0] = sum->out[0];
    return b->ok;
  }
  Value *v = move_axis(b, x, d.axis, rank - 2);
  if (!b->ok) return false;
  int64_t shape[MAX_RANK];
  for (int i = 0; i < rank - 2; i++) shape[i] = 0;
  shape[rank - 2] = s.in * s.parts;
  v = build2(b, "Reshape", v, build_i64s(b, rank - 1, shape));
  v = build2(b, "MatMul", v, dft_matrix(b, &d, &s, x->dtype));
  v = split_last(b, v, rank, s.out, s.out_parts);
  if (!b->ok) return false;
  out[0] = move_axis(b, v, rank - 2, d.axis);
  return b->ok;
}

/* ---- STFT ---- */
/* Samples in a frame: from frame_length, the window, or the whole signal. */
static const Expr *frame_length(Model *m, Node *n) {
  if (node_in(n, 3)) return tu_elem(m, n, 3, 0);
  return node_in(n, 2) ? n->in[2]->dims[0] : n->in[0]->dims[1];
}

static const Expr *frame_count(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Expr *step = tu_elem(m, n, 1, 0), *room = ex_sub(p, n->in[0]->dims[1], frame_length(m, n));
  return ex_max(p, ex_add(p, ex_floordiv(p, room, step), ex_i64(p, 1)), ex_i64(p, 0));
}

bool infer_stft(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0];
  int64_t onesided;
  int count;
  const Expr *one = ex_i64(p, 1);
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 2, 3) ||
      !op_need_class(m, n, 1, CL_INT) || !tu_count(m, n, 1, "frame_step", 1, &count) ||
      !op_same_dtype(m, n, 2, 0) || !op_need_rank(m, n, 2, 1, 1) ||
      !op_need_class(m, n, 3, CL_INT) || !op_int_in(m, n, "onesided", 1, 0, 1, &onesided))
    return false;
  if (node_in(n, 3) && !tu_count(m, n, 3, "frame_length", 1, &count)) return false;
  if (!require_at_least(m, n, tu_elem(m, n, 1, 0), one, "frame_step")) return false;
  const Expr *length = frame_length(m, n), *frames = frame_count(m, n);
  if (!require_at_least(m, n, length, one, "frame_length") ||
      (node_in(n, 2) && node_in(n, 3) &&
       !require_equal(m, n, n->in[2]->dims[0], length, "window and frame_length")))
    return false;
  const Expr *bins =
      onesided ? ex_add(p, ex_floordiv(p, length, ex_i64(p, 2)), ex_i64(p, 1)) : length;
  const Expr *dims[4] = {x->dims[0], tu_dim(m, n, 0, 1, frames, x->dims[1]),
                         tu_dim(m, n, 0, 2, bins, x->dims[1]), ex_i64(p, 2)};
  return op_out(m, n, 0, x->dtype, 4, dims);
}

/* burin.Frames: signal [b, length, parts], frame_step, frame length → [b, frames, frame length,
 * parts]. */
bool infer_frames(Model *m, Node *n) {
  const Value *x = n->in[0];
  ExprPool *p = m->pool;
  if (!op_need_rank(m, n, 0, 3, 3) || !op_need_class(m, n, 1, CL_INT) ||
      !op_need_class(m, n, 2, CL_INT))
    return false;
  const Expr *length = tu_elem(m, n, 2, 0), *step = tu_elem(m, n, 1, 0);
  const Expr *frames =
      ex_max(p, ex_add(p, ex_floordiv(p, ex_sub(p, x->dims[1], length), step), ex_i64(p, 1)),
             ex_i64(p, 0));
  const Expr *dims[4] = {x->dims[0], tu_dim(m, n, 0, 1, frames, x->dims[1]),
                         tu_dim(m, n, 0, 2, length, x->dims[1]), x->dims[2]};
  return op_out(m, n, 0, x->dtype, 4, dims);
}

const Expr *elem_frames(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *at = ex_add(p, ex_mul(p, idx[1], tu_known(p, n, 1, 0)), idx[2]);
  if (n->n_syms > 0) at = tu_clamp(p, at, ex_i64(p, 0), ex_sub(p, n->in[0]->dims[1], ex_i64(p, 1)));
  return elem_in(c, n, 0, (const Expr *[]){idx[0], at, idx[3]});
}

static Value *dim_as_scalar(Build *b, Value *v, int axis) {
  const Attr range[2] = {attr_int(b->m->arena, "start", axis),
                         attr_int(b->m->arena, "end", axis + 1)};
  const int64_t zero = 0;
  return build2(b, "Squeeze", build_op(b, "Shape", 1, &v, 2, range), build_i64s(b, 1, &zero));
}

bool expand_stft(Build *b, Node *n, Value **out) {
  const int64_t minus = -1;
  Value *x = n->in[0], *window = node_in(n, 2);
  if (x->rank == 2) x = build2(b, "Unsqueeze", x, build_i64s(b, 1, &minus));
  Value *length = node_in(n, 3) ? n->in[3]
                  : window      ? dim_as_scalar(b, window, 0)
                                : dim_as_scalar(b, x, 1);
  Value *frames =
      build_node(b, "Frames", "burin", 3, (Value *[]){x, n->in[1], length}, 1, 0, NULL)->out[0];
  if (!b->ok) return false;
  if (window)
    frames = build2(b, "Mul", frames, build2(b, "Unsqueeze", window, build_i64s(b, 1, &minus)));
  const Attr sided = attr_int(b->m->arena, "onesided", node_int(n, "onesided", 1));
  out[0] = build_op(b, "DFT", 3, (Value *[]){frames, NULL, build_scalar(b, DT_I64, 2)}, 1, &sided);
  return b->ok;
}
