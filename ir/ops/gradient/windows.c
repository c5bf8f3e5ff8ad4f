/* Gradients of convolutions and poolings. A convolution's input gets the transposed convolution of g,
 * its weights the convolution of input and g whose channels are the batch (Dumoulin and Visin, A
 * guide to convolution arithmetic, 2016). */
#include <string.h>
#include "ir/op/gradient.h"
#include "ir/ops/nn/nn_window.h"

static bool info_of(Gradient *s, ConvInfo *info) {
  return conv_info(s->n, info) ||
         op_error(s->b->m, s->n, ERR_DYNAMIC,
                  "a gradient needs constant channels and pads; fix sizes with --dim or --shape");
}

/* strides, dilations, pads, group; attrs has room for four. */
static void conv_attrs(Arena *a, const ConvInfo *i, Attr *attrs) {
  int64_t pads[2 * MAX_SPATIAL];
  for (int d = 0; d < i->spatial; d++) {
    pads[d] = i->pad_lo[d];
    pads[i->spatial + d] = i->pad_hi[d];
  }
  attrs[0] = attr_ints(a, "strides", i->spatial, i->stride);
  attrs[1] = attr_ints(a, "dilations", i->spatial, i->dilation);
  attrs[2] = attr_ints(a, "pads", 2 * i->spatial, pads);
  attrs[3] = attr_int(a, "group", i->group);
}

static int64_t extent(const ConvInfo *i, int d) { return (i->kernel[d] - 1) * i->dilation[d] + 1; }

/* What stride leaves unused at the end of x, which its gradient has as zeros; where only a run knows it,
 * the most that it can be. False: then. */
static bool unused_rows(const ConvInfo *i, const Value *x, int64_t *rows) {
  bool known = true;
  for (int d = 0; d < i->spatial; d++) {
    int64_t size;
    rows[d] = i->stride[d] - 1;
    if (expr_is_const(x->dims[2 + d], &size))
      rows[d] = (size + i->pad_lo[d] + i->pad_hi[d] - extent(i, d)) % i->stride[d];
    else if (i->stride[d] > 1)
      known = false;
  }
  return known;
}

/* The first elements of each spatial dim of v, as many as x has. */
static Value *cut_to(Build *b, Value *v, Value *x) {
  int64_t from[MAX_SPATIAL] = {0}, axes[MAX_SPATIAL];
  const int spatial = x->rank - 2;
  for (int d = 0; d < spatial; d++) axes[d] = 2 + d;
  Value *in[] = {v, build_i64s(b, spatial, from), build_shape(b, x, 2, x->rank),
                 build_i64s(b, spatial, axes)};
  v = b->ok ? build_op(b, "Slice", 4, in, 0, NULL) : v;
  return build_reshape_like(b, v, x);
}

static Value *data_gradient(Gradient *s, const ConvInfo *i, Value *g) {
  Build *b = s->b;
  Value *x = s->n->in[0];
  int64_t rows[MAX_SPATIAL];
  Attr attrs[5];
  const bool known = unused_rows(i, x, rows);
  conv_attrs(b->m->arena, i, attrs);
  attrs[4] = attr_ints(b->m->arena, "output_padding", i->spatial, rows);
  Value *d = build_op(b, "ConvTranspose", 2, (Value *[]){g, s->n->in[1]}, 5, attrs);
  return known || !b->ok ? d : cut_to(b, d, x);
}

/* Channels of each group become the batch: [N, G, C/G, …] as [C/G, G·N, …]. */
static Value *channels_first(Build *b, Value *v, int64_t group, int64_t channels) {
  const int rank = v->rank;
  int64_t perm[MAX_RANK], dims[MAX_RANK];
  for (int d = 0; d < rank + 1; d++) perm[d] = d;
  if (group == 1) {
    perm[0] = 1, perm[1] = 0;
    return build_transpose(b, v, rank, perm);
  }
  int64_t fixed[MAX_RANK];
  for (int d = 0; d < rank; d++)
    if (!expr_is_const(v->dims[d], &fixed[d])) fixed[d] = -1;
  dims[0] = fixed[0], dims[1] = group, dims[2] = channels / group;
  for (int d = 2; d < rank; d++) dims[d + 1] = fixed[d];
  v = build_reshape(b, v, rank + 1, dims);
  perm[0] = 2, perm[1] = 1, perm[2] = 0;
  v = b->ok ? build_transpose(b, v, rank + 1, perm) : v;
  dims[0] = channels / group, dims[1] = fixed[0] < 0 ? -1 : group * fixed[0];
  for (int d = 2; d < rank; d++) dims[d] = fixed[d];
  return b->ok ? build_reshape(b, v, rank, dims) : v;
}

/* [O, N, …] of every group below each other: [N, O, …] with channels as they are. */
static Value *as_kernels(Build *b, Value *v) {
  int64_t perm[MAX_RANK];
  for (int d = 0; d < v->rank; d++) perm[d] = d;
  perm[0] = 1, perm[1] = 0;
  return build_transpose(b, v, v->rank, perm);
}

/* Are all spatial sizes known? */
static bool places_known(const ConvInfo *i, const Value *x, const Value *g) {
  int64_t size;
  for (int d = 0; d < i->spatial; d++)
    if (!expr_is_const(x->dims[2 + d], &size) || !expr_is_const(g->dims[2 + d], &size))
      return false;
  return true;
}

/* Makes x as long as the last window of g ends: cut, or padded by pads[]. */
static Value *fit(Gradient *s, const ConvInfo *i, Value *x, const Value *g, int64_t *pads) {
  for (int d = 0; d < i->spatial; d++) {
    int64_t in = 0, out = 0;
    expr_is_const(x->dims[2 + d], &in);
    expr_is_const(g->dims[2 + d], &out);
    const int64_t used = (out - 1) * i->stride[d] + extent(i, d) - i->pad_lo[d];
    pads[d] = i->pad_lo[d];
    pads[i->spatial + d] = used > in ? used - in : 0;
    if (used < in && s->b->ok) x = build_slice(s->b, x, 2 + d, 0, used);
  }
  return x;
}

/* [N, C, …] as [places, C], places being those of all pictures; of groups [G, places, C/G]. */
static Value *places_first(Build *b, Value *v, int64_t group, int64_t channels) {
  int64_t perm[MAX_RANK];
  const int rank = v->rank;
  const int64_t rows[] = {-1, channels}, groups[] = {-1, group, channels / group};
  perm[0] = 0, perm[rank - 1] = 1;
  for (int d = 2; d < rank; d++) perm[d - 1] = d;
  v = build_transpose(b, v, rank, perm);
  if (group == 1 || !b->ok) return b->ok ? build_reshape(b, v, 2, rows) : v;
  v = build_reshape(b, v, 3, groups);
  return b->ok ? build_transpose(b, v, 3, (int64_t[]){1, 0, 2}) : v;
}

/* Where windows that begin at `from` end in padded x, at the last place of g. */
static Value *tap_ends(Build *b, const ConvInfo *i, Value *g, const int64_t *from) {
  int64_t behind[MAX_SPATIAL];
  for (int d = 0; d < i->spatial; d++) behind[d] = from[d] + 1 - i->stride[d];
  Value *places = build_shape(b, g, 2, g->rank);
  Value *steps = b->ok ? build2(b, "Mul", places, build_i64s(b, i->spatial, i->stride)) : places;
  return b->ok ? build2(b, "Add", steps, build_i64s(b, i->spatial, behind)) : steps;
}

/* What tap k of a window sees of padded x, at each place of g. */
static Value *seen_by_tap(Build *b, const ConvInfo *i, Value *x, Value *g, int64_t k) {
  int64_t from[MAX_SPATIAL], axes[MAX_SPATIAL];
  for (int d = i->spatial - 1; d >= 0; d--, k /= i->kernel[d + 1]) {
    from[d] = k % i->kernel[d] * i->dilation[d];
    axes[d] = 2 + d;
  }
  Value *in[] = {x, build_i64s(b, i->spatial, from), tap_ends(b, i, g, from),
                 build_i64s(b, i->spatial, axes), build_i64s(b, i->spatial, i->stride)};
  return b->ok ? build_op(b, "Slice", 5, in, 0, NULL) : x;
}

/* For pictures of a number or size that only a run knows: a product over all places for each tap. */
static Value *gradient_by_taps(Gradient *s, const ConvInfo *i, Value *x, Value *g,
                               const int64_t *pads, int64_t c, int64_t o) {
  Build *b = s->b;
  const Attr turned = attr_int(b->m->arena, "transA", 1), last = attr_int(b->m->arena, "axis", 2);
  int64_t taps = 1, around[2 * MAX_RANK] = {0}, dims[MAX_RANK] = {o, c / i->group};
  for (int d = 0; d < i->spatial; d++) {
    taps *= dims[2 + d] = i->kernel[d];
    around[2 + d] = pads[d];
    around[x->rank + 2 + d] = pads[i->spatial + d];
  }
  x = build2(b, "Pad", x, build_i64s(b, 2 * x->rank, around));
  Value *rows = b->ok ? places_first(b, g, i->group, o) : g;
  Value **each = ARENA_ARRAY(b->m->arena, Value *, taps);
  if (b->ok && i->group > 1) rows = build_swap_last(b, rows);
  for (int64_t k = 0; k < taps && b->ok; k++) {
    Value *seen = seen_by_tap(b, i, x, g, k);
    seen = b->ok ? places_first(b, seen, i->group, c) : seen;
    if (!b->ok) break;
    Value *in[] = {rows, seen};
    Value *d = i->group > 1 ? build_op(b, "MatMul", 2, in, 0, NULL)
                            : build_op(b, "Gemm", 2, in, 1, &turned);
    each[k] = b->ok ? build_reshape(b, d, 3, (int64_t[]){o, c / i->group, 1}) : d;
  }
  Value *all = b->ok ? build_op(b, "Concat", (int)taps, each, 1, &last) : x;
  return b->ok ? build_reshape(b, all, 2 + i->spatial, dims) : NULL;
}

/* Of weights [o, c/group, k…]: Σ over pictures and places of g[o] x[c]. */
static Value *weight_gradient(Gradient *s, const ConvInfo *i, Value *x, Value *g, int64_t c,
                              int64_t o) {
  Build *b = s->b;
  Arena *a = b->m->arena;
  int64_t pads[2 * MAX_SPATIAL], pictures;
  const bool known = places_known(i, x, g);
  for (int d = 0; d < i->spatial; d++) {
    pads[d] = i->pad_lo[d];
    pads[i->spatial + d] = i->pad_hi[d];
  }
  if (known) x = fit(s, i, x, g, pads);
  if (!b->ok) return NULL;
  if (!known || !expr_is_const(x->dims[0], &pictures))
    return gradient_by_taps(s, i, x, g, pads, c, o);
  Value *in[] = {channels_first(b, x, i->group, c), as_kernels(b, g)};
  const Attr attrs[] = {attr_ints(a, "strides", i->spatial, i->dilation),
                        attr_ints(a, "dilations", i->spatial, i->stride),
                        attr_ints(a, "pads", 2 * i->spatial, pads), attr_int(a, "group", i->group)};
  Value *d = b->ok ? build_op(b, "Conv", 2, in, 4, attrs) : NULL;
  return b->ok ? as_kernels(b, d) : NULL;
}

/* Σ over everything but the channels. */
static Value *channel_sum(Build *b, Value *g) {
  int64_t axes[MAX_RANK];
  int n = 0;
  for (int d = 0; d < g->rank; d++)
    if (d != 1) axes[n++] = d;
  return build_sum(b, g, n, axes, false);
}

/* Weights first: their gradient is the last reader of the data, in whose memory the data's gradient can
 * lie. */
bool grad_conv(Gradient *s) {
  ConvInfo i;
  const Node *n = s->n;
  Value *g = s->g[0], *d;
  if (!info_of(s, &i)) return false;
  if (gradient_wants_in(s, 1)) {
    d = weight_gradient(s, &i, n->in[0], g, i.c_in, i.c_out);
    if (!d || !gradient_give(s, n->in[1], d)) return false;
  }
  if (gradient_wants_in(s, 2) && !gradient_give(s, n->in[2], channel_sum(s->b, g))) return false;
  if (!gradient_wants_in(s, 0)) return true;
  d = data_gradient(s, &i, g);
  return d && gradient_give(s, n->in[0], d);
}

/* The places that strides and output_padding left without a window are cut off g. */
bool grad_conv_transpose(Gradient *s) {
  ConvInfo i;
  const Node *n = s->n;
  Build *b = s->b;
  Value *g = s->g[0];
  if (!info_of(s, &i)) return false;
  if (gradient_wants_in(s, 1)) {
    Value *d = weight_gradient(s, &i, g, n->in[0], i.c_out, i.c_in);
    if (!d || !gradient_give(s, n->in[1], d)) return false;
  }
  if (gradient_wants_in(s, 2) && !gradient_give(s, n->in[2], channel_sum(b, g))) return false;
  if (!gradient_wants_in(s, 0)) return true;
  Attr attrs[4];
  conv_attrs(b->m->arena, &i, attrs);
  Value *d = build_op(b, "Conv", 2, (Value *[]){g, n->in[1]}, 4, attrs);
  for (int k = 2; b->ok && k < d->rank; k++) {
    int64_t have, want;
    if (expr_is_const(d->dims[k], &have) && expr_is_const(n->in[0]->dims[k], &want) && have > want)
      d = build_slice(b, d, k, 0, want);
  }
  return b->ok && gradient_give(s, n->in[0], d);
}

/* ---- poolings ---- */
static Value *pool_node(Gradient *s, const char *op, int n_in, Value *const *in) {
  return build_node(s->b, op, "burin", n_in, in, 1, s->n->n_attrs, s->n->attrs)->out[0];
}

/* To the first of equal values, as PyTorch has it. */
bool grad_max_pool(Gradient *s) {
  Value *x = s->n->in[0];
  Value *tap = pool_node(s, "MaxPoolTap", 2, (Value *[]){x, s->n->out[0]});
  if (!s->b->ok) return false;
  return gradient_give(s, x, pool_node(s, "PoolGradient", 3, (Value *[]){x, s->g[0], tap}));
}

bool grad_average_pool(Gradient *s) {
  Value *x = s->n->in[0];
  return gradient_give(s, x, pool_node(s, "PoolGradient", 2, (Value *[]){x, s->g[0]}));
}

/* Turned around again: an average, or the tap that was taken. x only gives the shape. */
bool grad_pool_gradient(Gradient *s) {
  const Node *n = s->n;
  gradient_none(s, n->in[0]);
  if (!node_in(n, 2))
    return gradient_give(s, n->in[1],
                         build_op(s->b, "AveragePool", 1, &s->g[0], n->n_attrs, n->attrs));
  return gradient_give(s, n->in[1], pool_node(s, "PoolPick", 2, (Value *[]){s->g[0], n->in[2]}));
}

bool grad_pool_pick(Gradient *s) {
  const Node *n = s->n;
  Value *in[] = {n->in[0], s->g[0], n->in[1]};
  return gradient_give(s, n->in[0], pool_node(s, "PoolGradient", 3, in));
}

static Value *power(Build *b, Value *v, double e) {
  return build2(b, "Pow", v, build_scalar(b, v->dtype, e));
}

/* Roots of sums of powers, the sums by way of averages over whole windows. */
bool parts_lp_pool(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  const int64_t p = node_int(n, "p", 2);
  const Window w = window_get(b->m->pool, n, n->in[0], NULL);
  Attr *attrs = ARENA_ARRAY(a, Attr, n->n_attrs + 2);
  int count = 0;
  double taps = 1;
  for (int d = 0; d < w.spatial; d++) taps *= (double)w.kernel[d];
  for (int k = 0; k < n->n_attrs; k++)
    if (strcmp(n->attrs[k].name, "p") != 0) attrs[count++] = n->attrs[k];
  attrs[count++] = attr_int(a, "count_include_pad", 1);
  attrs[count++] = attr_int(a, "whole_kernel", 1);
  Value *v = power(b, build1(b, "Abs", n->in[0]), (double)p);
  v = b->ok ? build_op(b, "AveragePool", 1, &v, count, attrs) : v;
  if (b->ok) v = build2(b, "Mul", v, build_scalar(b, v->dtype, taps));
  if (b->ok) out[0] = power(b, v, 1.0 / (double)p);
  return b->ok;
}

bool parts_global_pool(Build *b, Node *n, Value **out) {
  Value *v = n->in[0];
  int64_t axes[MAX_RANK];
  for (int d = 2; d < v->rank; d++) axes[d - 2] = d;
  Value *list = build_i64s(b, v->rank - 2, axes);
  const int64_t p = node_int(n, "p", 2);
  if (v->rank == 2) {
    out[0] = kit_is(n, "GlobalLpPool") ? build1(b, "Abs", v) : build1(b, "Identity", v);
    return b->ok;
  }
  if (!kit_is(n, "GlobalLpPool")) {
    out[0] = build2(b, kit_is(n, "GlobalMaxPool") ? "ReduceMax" : "ReduceMean", v, list);
  } else if (p <= 2) {
    out[0] = build2(b, p == 1 ? "ReduceL1" : "ReduceL2", v, list);
  } else {
    v = power(b, build1(b, "Abs", v), (double)p);
    v = b->ok ? build2(b, "ReduceSum", v, list) : v;
    if (b->ok) out[0] = power(b, v, 1.0 / (double)p);
  }
  return b->ok;
}

/* ---- Col2Im: the columns of g, taken by a convolution whose kernels hold a single 1 ---- */
bool grad_col2im(Gradient *s) {
  Build *b = s->b;
  Arena *a = b->m->arena;
  const Node *n = s->n;
  const int64_t *block;
  int spatial;
  int64_t channels, taps = 1, shape[MAX_RANK];
  if (!op_need_ints(b->m, n, 2, "block_shape", &block, &spatial)) return false;
  if (!expr_is_const(n->out[0]->dims[1], &channels))
    return op_error(b->m, n, ERR_DYNAMIC, "a gradient of Col2Im needs constant channels");
  for (int d = 0; d < spatial; d++) taps *= shape[2 + d] = block[d];
  const int64_t square[] = {taps, taps}, times[] = {channels, 1}, to[] = {0, 0, -1};
  Value *zeros = build2(b, "Expand", build_scalar(b, s->g[0]->dtype, 0), build_i64s(b, 2, square));
  Value *ones = b->ok ? build1(b, "EyeLike", zeros) : zeros;
  Value *w = b->ok ? build2(b, "Tile", ones, build_i64s(b, 2, times)) : ones;
  shape[0] = channels * taps, shape[1] = 1;
  w = b->ok ? build_reshape(b, w, 2 + spatial, shape) : w;
  Attr attrs[4];
  int count = 0;
  for (int k = 0; k < n->n_attrs && count < 3; k++) attrs[count++] = n->attrs[k];
  attrs[count++] = attr_int(a, "group", channels);
  Value *d = b->ok ? build_op(b, "Conv", 2, (Value *[]){s->g[0], w}, count, attrs) : w;
  return b->ok && gradient_give(s, n->in[0], build_reshape(b, d, 3, to));
}

/* ---- CausalConvWithState: a grouped Conv over the past and the input ---- */
bool parts_causal_conv(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  Value *x = n->in[0], *w = n->in[1], *past = node_in(n, 3);
  int64_t channels, k;
  const int64_t length = 2, most = INT64_MAX;
  if (!expr_is_const(x->dims[1], &channels) || !expr_is_const(w->dims[2], &k))
    return op_error(b->m, n, ERR_DYNAMIC, "a gradient needs constant channels");
  const int64_t pads[] = {k - 1, 0}, from = -(k - 1);
  const Attr axis = attr_int(a, "axis", length),
             attrs[] = {attr_int(a, "group", channels), attr_ints(a, "pads", 2, pads)};
  if (past) x = build_op(b, "Concat", 2, (Value *[]){past, x}, 1, &axis);
  Value *in[] = {x, w, node_in(n, 2)};
  Value *y = b->ok ? build_op(b, "Conv", in[2] ? 3 : 2, in, past ? 1 : 2, attrs) : x;
  if (b->ok && strcmp(node_string(n, "activation", "none"), "none") != 0)
    y = build2(b, "Mul", y, build1(b, "Sigmoid", y));
  out[0] = y;
  if (!node_out(n, 1)) return b->ok;
  const int64_t front[] = {0, 0, k - 1, 0, 0, 0};
  if (!past) x = b->ok ? build2(b, "Pad", x, build_i64s(b, 6, front)) : x;
  Value *cut[] = {x, build_i64s(b, 1, k == 1 ? &most : &from), build_i64s(b, 1, &most),
                  build_i64s(b, 1, &length)};
  out[1] = b->ok ? build_op(b, "Slice", 4, cut, 0, NULL) : x;
  return b->ok;
}
