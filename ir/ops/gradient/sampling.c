/* Gradients of what reads at computed positions (Jaderberg et al., Spatial Transformer Networks,
 * 2015): GridSample, DeformConv and RoiAlign are written as gathers of the elements around each
 * position, times weights that depend on it; AffineGrid is a product with the grid of no change. */
#include <string.h>
#include "ir/op/gradient.h"
#include "ir/op/kit.h"

typedef enum Taps { TAPS_NEAREST = 1, TAPS_LINEAR = 2, TAPS_CUBIC = 4 } Taps;
typedef enum Border { BORDER_ZEROS, BORDER_CLAMP, BORDER_REFLECT } Border;
/* at[k]: positions along axis k, [B, P…] of one type; size[k]: how long it is, of that type. */
typedef struct Sampling {
  Build *b;
  int axes;
  Taps taps;
  Border border;
  bool corners; /* reflected at the middle of the first and last element, not at their ends */
  Value *at[MAX_RANK], *size[MAX_RANK];
} Sampling;

/* ---- one axis ---- */
static Value *reflected(const Sampling *s, Value *at, Value *size) {
  Build *b = s->b;
  const char *lo = s->corners ? "0" : "(0 - 0.5)", *hi = s->corners ? "(b - 1)" : "(b - 0.5)",
             *range = s->corners ? "(b - 1)" : "b";
  Arena *a = b->m->arena;
  /* how far outside, in how many turns, and what is left of the last */
  const char *text =
      arena_printf(a, "select(a < %s, %s - a, select(%s < a, a - %s, 0))", lo, lo, hi, hi);
  Value *past = build_map(b, at->dtype, text, 2, (Value *[]){at, size});
  Value *turns =
      build_map(b, at->dtype, arena_printf(a, "trunc(a / %s)", range), 2, (Value *[]){past, size});
  text =
      arena_printf(a,
                   "select((a < %s) | (%s < a), select((floor(d * 0.5) * 2 == d) == (a < %s), %s "
                   "+ (c - d * %s), %s - (c - d * %s)), a)",
                   lo, hi, lo, lo, range, hi, range);
  return build_map(b, at->dtype, text, 4, (Value *[]){at, size, past, turns});
}

/* Weight of a tap by how far the position lies behind the element in front of it. */
static const char *weight_text(Taps taps, int tap) {
  static const char *const linear[] = {"(1 - a)", "a"};
  static const char *const cubic[] = {
      "(((3.75 - 0.75 * (a + 1)) * (a + 1) - 6) * (a + 1) + 3)",
      "((1.25 * a - 2.25) * a * a + 1)",
      "((1.25 * (1 - a) - 2.25) * (1 - a) * (1 - a) + 1)",
      "(((3.75 - 0.75 * (2 - a)) * (2 - a) - 6) * (2 - a) + 3)",
  };
  return taps == TAPS_NEAREST ? "select(a == a, 1, 1)"
                              : (taps == TAPS_LINEAR ? linear : cubic)[tap];
}

typedef struct Tap {
  Value *weight, *index; /* [B, P…]; the index [B, P…, 1] */
} Tap;

static Tap tap_of(const Sampling *s, int k, int tap) {
  Build *b = s->b;
  Value *at = s->at[k], *size = s->size[k];
  const DType t = at->dtype;
  const int first = s->taps == TAPS_CUBIC ? 1 : 0;
  Value *frac = build_map(b, t, "a - floor(a)", 1, &at), *pos = at;
  if (s->taps != TAPS_NEAREST)
    pos = build_map(b, t, arena_printf(b->m->arena, "floor(a) + %d - %d", tap, first), 1, &at);
  if (s->border == BORDER_REFLECT) pos = reflected(s, pos, size);
  Tap r = {.index = build_map(b, DT_I64, "max(min(a, b - 1), 0)", 2, (Value *[]){pos, size})};
  const char *w = weight_text(s->taps, tap);
  r.weight =
      s->border == BORDER_ZEROS
          ? build_map(b, t, arena_printf(b->m->arena, "select((b < 0) | (c - 1 < b), 0, %s)", w), 3,
                      (Value *[]){frac, pos, size})
          : build_map(b, t, w, 1, &frac);
  r.index = b->ok ? build_unsqueeze(b, r.index, r.index->rank) : r.index;
  return r;
}

/* x [B, S…, C] → [B, P…, C] */
static Value *sampled(const Sampling *s, Value *x) {
  Build *b = s->b;
  Tap taps[MAX_RANK][TAPS_CUBIC];
  int count = 1;
  Value *sum = NULL;
  for (int k = 0; k < s->axes; k++) {
    for (int i = 0; i < (int)s->taps; i++) taps[k][i] = tap_of(s, k, i);
    count *= (int)s->taps;
  }
  for (int c = 0; c < count && b->ok; c++) {
    Value *index[MAX_RANK], *weight = NULL;
    for (int k = 0, rest = c; k < s->axes; k++, rest /= (int)s->taps) {
      const Tap *tap = &taps[k][rest % (int)s->taps];
      index[k] = tap->index;
      weight = weight ? build2(b, "Mul", weight, tap->weight) : tap->weight;
    }
    const Attr last = attr_int(b->m->arena, "axis", -1),
               batch = attr_int(b->m->arena, "batch_dims", 1);
    Value *at = b->ok ? build_op(b, "Concat", s->axes, index, 1, &last) : x;
    Value *v = b->ok ? build_op(b, "GatherND", 2, (Value *[]){x, at}, 1, &batch) : x;
    weight = b->ok ? build_unsqueeze(b, build_cast(b, weight, x->dtype), weight->rank) : x;
    v = b->ok ? build2(b, "Mul", v, weight) : v;
    sum = sum && b->ok ? build2(b, "Add", sum, v) : v;
  }
  return sum;
}

/* Channels to the end, and back. */
static Value *channels_last(Build *b, Value *v, bool back) {
  int64_t perm[MAX_RANK] = {0};
  for (int d = 1; d < v->rank; d++)
    perm[d] = back ? (d == 1 ? v->rank - 1 : d - 1) : (d == v->rank - 1 ? 1 : d + 1);
  return b->ok ? build_transpose(b, v, v->rank, perm) : v;
}

static Value *axis_size(Build *b, Value *v, int axis, DType t) {
  Value *size = build_shape(b, v, axis, axis + 1);
  return b->ok ? build_cast(b, build_reshape(b, size, 0, NULL), t) : v;
}

/* 0 1 2 … as long as that axis */
static Value *counted(Build *b, Value *v, int axis, DType t) {
  Value *range = build_range(b, axis_size(b, v, axis, DT_I64));
  return b->ok ? build_cast(b, range, t) : v;
}

static Value *part(Build *b, Value *v, int axis, int64_t k) {
  v = build_slice(b, v, axis, k, k + 1);
  return b->ok ? build2(b, "Squeeze", v, build_i64s(b, 1, (const int64_t[]){axis})) : v;
}

/* ---- GridSample ---- */
bool parts_grid_sample(Build *b, Node *n, Value **out) {
  Value *x = n->in[0], *grid = n->in[1];
  const char *mode = node_string(n, "mode", "linear"),
             *pad = node_string(n, "padding_mode", "zeros");
  Sampling s = {.b = b, .axes = x->rank - 2, .corners = node_int(n, "align_corners", 0) != 0};
  s.taps = strcmp(mode, "nearest") == 0 ? TAPS_NEAREST
           : strstr(mode, "cubic")      ? TAPS_CUBIC
                                        : TAPS_LINEAR;
  s.border = strcmp(pad, "zeros") == 0    ? BORDER_ZEROS
             : strcmp(pad, "border") == 0 ? BORDER_CLAMP
                                          : BORDER_REFLECT;
  for (int k = 0; k < s.axes && b->ok; k++) {
    Value *v = part(b, grid, grid->rank - 1, s.axes - 1 - k);
    Value *size = s.size[k] = axis_size(b, x, k + 2, grid->dtype);
    Value *at =
        build_map(b, grid->dtype, s.corners ? "(a + 1) * 0.5 * (b - 1)" : "((a + 1) * b - 1) * 0.5",
                  2, (Value *[]){v, size});
    if (s.taps == TAPS_NEAREST) at = build_map(b, grid->dtype, "rint(a)", 1, &at);
    if (s.taps != TAPS_CUBIC && s.border == BORDER_CLAMP)
      at = build_map(b, grid->dtype, "max(min(a, b - 1), 0)", 2, (Value *[]){at, size});
    if (s.taps != TAPS_CUBIC && s.border == BORDER_REFLECT) at = reflected(&s, at, size);
    s.at[k] = at;
  }
  out[0] = channels_last(b, sampled(&s, channels_last(b, x, false)), true);
  return b->ok;
}

/* ---- DeformSample: X, offsets, mask ---- */
/* v as [-1, head…, dims from `from` on] */
static Value *regrouped(Build *b, Value *v, int count, const int64_t *head, int from) {
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  Value *shape[] = {build_i64s(b, count, head), build_shape(b, v, from, v->rank)};
  return b->ok ? build2(b, "Reshape", v, build_op(b, "Concat", 2, shape, 1, &axis)) : v;
}

/* Where each tap of the kernel would read without an offset: [taps, 1, 1]. */
static Value *tap_starts(Build *b, const Node *n, int axis, DType t) {
  const int64_t high = node_ints_at(n, "kernel_shape", 0, 1),
                wide = node_ints_at(n, "kernel_shape", 1, 1);
  int64_t *at = ARENA_ARRAY(b->m->arena, int64_t, high *wide);
  for (int64_t k = 0; k < high * wide; k++)
    at[k] = (axis ? k % wide : k / wide) * node_ints_at(n, "dilations", axis, 1) -
            node_ints_at(n, "pads", axis, 0);
  const int64_t shape[] = {-1, 1, 1};
  return build_reshape(b, build_cast(b, build_i64s(b, (int)(high * wide), at), t), 3, shape);
}

bool parts_deform_sample(Build *b, Node *n, Value **out) {
  Value *x = n->in[0], *mask = node_in(n, 2);
  const DType t = n->in[1]->dtype;
  const int64_t groups = node_int(n, "offset_group", 1),
                taps =
                    node_ints_at(n, "kernel_shape", 0, 1) * node_ints_at(n, "kernel_shape", 1, 1);
  int64_t channels = 1;
  expr_is_const(x->dims[1], &channels);
  const int64_t in_shape[] = {-1, channels / groups}, off_shape[] = {-1, taps, 2},
                mask_shape[] = {-1, 1, taps};
  Value *y = regrouped(b, x, 2, in_shape, 2), *off = regrouped(b, n->in[1], 3, off_shape, 2);
  Sampling s = {.b = b, .axes = 2, .taps = TAPS_LINEAR};
  for (int k = 0; k < 2 && b->ok; k++) {
    Value *along = counted(b, n->in[1], 2 + k, t);
    if (k == 0) along = b->ok ? build_unsqueeze(b, along, 1) : along;
    Value *in[] = {part(b, off, 2, k), along, tap_starts(b, n, k, t)};
    s.size[k] = axis_size(b, x, 2 + k, t);
    s.at[k] = build_map(
        b, t,
        arena_printf(b->m->arena, "a + b * %lld + c", (long long)node_ints_at(n, "strides", k, 1)),
        3, in);
  }
  y = channels_last(b, sampled(&s, channels_last(b, y, false)), true);
  if (mask && b->ok) y = build2(b, "Mul", y, regrouped(b, mask, 3, mask_shape, 2));
  const int64_t out_shape[] = {-1, channels, taps};
  if (b->ok) out[0] = regrouped(b, y, 3, out_shape, 3);
  return b->ok;
}

/* ---- RoiAlign: X, regions [R, 4], batch indices ---- */
/* Positions along one axis: [R, outputs * samples]; the region from `first` to `last`. */
static Value *region_positions(Build *b, const Node *n, Value *first, Value *last, int64_t count) {
  const DType t = first->dtype;
  const bool half =
      strcmp(node_string(n, "coordinate_transformation_mode", "half_pixel"), "half_pixel") == 0;
  const double scale = node_float(n, "spatial_scale", 1);
  const char *width = half ? "(b - a) * d" : "max((b - a) * d, 1)";
  Value *range = build_range(b, build_scalar(b, DT_I64, (double)count));
  Value *numbers = b->ok ? build_cast(b, range, t) : first;
  numbers = build_map(b, t, "a + 0.5", 1, &numbers);
  const char *text = arena_printf(b->m->arena, "a * d - %s + c * (%s) / %lld", half ? "0.5" : "0",
                                  width, (long long)count);
  Value *in[] = {first, last, numbers, build_scalar(b, t, scale)};
  return build_map(b, t, text, 4, in);
}

/* Beyond one element outside there is nothing; up to there the nearest element counts. */
static Value *clamped(Build *b, Value *at, Value *size, Value **inside) {
  *inside =
      build_map(b, at->dtype, "select((a < 0 - 1) | (b < a), 0, 1)", 2, (Value *[]){at, size});
  return build_map(b, at->dtype, "max(min(a, b - 1), 0)", 2, (Value *[]){at, size});
}

bool parts_roi_align(Build *b, Node *n, Value **out) {
  Value *x = n->in[0], *rois = build_cast(b, n->in[1], x->dtype);
  const int64_t samples = node_int(n, "sampling_ratio", 0),
                sizes[] = {node_int(n, "output_height", 1), node_int(n, "output_width", 1)};
  if (samples < 1)
    return op_error(b->m, n, ERR_UNSUPPORTED,
                    "RoiAlign with as many samples as a region is large has no gradient yet; give "
                    "sampling_ratio");
  if (strcmp(node_string(n, "mode", "avg"), "avg") != 0)
    return op_error(b->m, n, ERR_UNSUPPORTED, "RoiAlign of maxima has no gradient yet");
  Sampling s = {.b = b, .axes = 2, .taps = TAPS_LINEAR, .border = BORDER_CLAMP};
  Value *inside[2], *at[2];
  for (int k = 0; k < 2 && b->ok; k++) {
    Value *first = build_slice(b, rois, 1, 1 - k, 2 - k),
          *last = build_slice(b, rois, 1, 3 - k, 4 - k);
    at[k] = region_positions(b, n, first, last, sizes[k] * samples);
    at[k] = b->ok ? build_unsqueeze(b, at[k], 2 - k) : first;
    s.size[k] = axis_size(b, x, 2 + k, x->dtype);
    at[k] = clamped(b, at[k], s.size[k], &inside[k]);
  }
  if (!b->ok) return false;
  Value *all = build2(b, "Mul", inside[0], inside[1]);
  for (int k = 0; k < 2 && b->ok; k++) s.at[k] = build2(b, "Expand", at[k], build_shape_of(b, all));
  Value *own = b->ok ? build2(b, "Gather", x, n->in[2]) : x; /* the picture of each region */
  Value *y = sampled(&s, channels_last(b, own, false));
  y = b->ok ? channels_last(b, build2(b, "Mul", y, build_unsqueeze(b, all, 3)), true) : y;
  const int64_t split[] = {0, 0, sizes[0], samples, sizes[1], samples}, means[] = {3, 5};
  out[0] = b->ok ? build_mean(b, build_reshape(b, y, 6, split), 2, means, false) : y;
  return b->ok;
}

/* ---- AffineGrid: theta [N, A, A + 1] → [N, P…, A], a product with the grid [P…, A + 1] ---- */
bool grad_affine_grid(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *theta = n->in[0], *g = s->g[0];
  const int64_t axes = g->rank - 2, flat[] = {0, -1, axes}, one = 1, wide[] = {axes, axes + 1};
  Value *same = build2(b, "Expand", build_scalar(b, theta->dtype, 0), build_i64s(b, 2, wide));
  same = b->ok ? build2(b, "Expand", build1(b, "EyeLike", same), build_shape_of(b, theta)) : g;
  Value *in[] = {same, n->in[1]};
  Value *grid = b->ok ? build_op(b, "AffineGrid", 2, in, n->n_attrs, n->attrs) : g;
  if (!b->ok) return false;
  grid = build_reshape(b, grid, 3, flat);
  g = build_reshape(b, g, 3, flat);
  const Attr last = attr_int(b->m->arena, "axis", -1);
  Value *ones = b->ok ? build_full_like(b, build_slice(b, grid, 2, 0, one), 1) : g;
  grid = b->ok ? build_op(b, "Concat", 2, (Value *[]){grid, ones}, 1, &last) : g;
  return b->ok && gradient_give(s, theta, build2(b, "MatMul", build_swap_last(b, g), grid));
}
