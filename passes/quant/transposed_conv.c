/* ConvTranspose of dequantized 8-bit values as Conv and DepthToSpace: where the stride is s, an
 * output pixel of each of its s * s phases is a window of the same input pixels, so that phases are
 * channels (W. Shi et al., Real-time single image and video super-resolution using an efficient
 * sub-pixel convolutional neural network, 2016). So the pass dequantized_products finds a
 * convolution, and what shuffles pixels moves bytes. */
#include <string.h>

#include "ir/ops/nn/contraction.h"
#include "passes/graph/rewrite.h"

enum { SPATIAL = 2 };

typedef struct Subpixel {
  const Node *n, *x, *w; /* the last two: DequantizeLinear */
  int64_t stride, c_in, c_out;
  int64_t kernel[SPATIAL], taps[SPATIAL]; /* taps of each phase */
  int64_t pads[2 * SPATIAL];              /* of the convolution */
  int64_t crop[2 * SPATIAL]; /* pixels cut off behind the shuffle: low ends, high ends */
} Subpixel;

/* ---- which ---- */

static const Node *dequantized(const Value *v) {
  const Node *n = v ? v->def : NULL;
  const bool is = n && strcmp(n->op->name, "DequantizeLinear") == 0 && v->dtype == DT_F32 &&
                  n->in[1]->dtype == DT_F32 && !node_int(n, "block_size", 0);
  return is ? n : NULL;
}

static bool one_or_channels(const Node *n, int axis) {
  const Value *scale = n->in[1], *zero = node_in(n, 2);
  if (!scale->cdata || (zero && !zero->cdata)) return false;
  if (scale->cdata->count == 1) return scale->rank <= 1;
  const int64_t at = node_int(n, "axis", 1);
  return (at < 0 ? at + n->in[0]->rank : at) == axis;
}

/* A bias is constant floats, or integers with one scale or one per channel. */
static bool bias_fits(const Value *bias) {
  const Node *n = bias ? dequantized(bias) : NULL;
  if (!bias || bias->cdata) return true;
  return n && n->in[0]->cdata && n->in[0]->dtype == DT_I32 && one_or_channels(n, 0) &&
         (!node_in(n, 2) || const_all(n->in[2]->cdata, 0));
}

/* Along one dimension: the taps of a phase, and what is cut off of stride * (size + taps - 1)
 * pixels, whole input pixels by the convolution. */
static bool axis_fits(Subpixel *s, const ConvInfo *conv, int d) {
  const int64_t k = conv->kernel[d], stride = s->stride;
  const int64_t reach = conv->out_pad[d] - conv->pad_hi[d], longest = reach > 0 ? k + reach : k;
  s->kernel[d] = k;
  s->taps[d] = (longest + stride - 1) / stride;
  const int64_t lo = conv->pad_lo[d], hi = stride * s->taps[d] - k - reach;
  if (lo < 0 || hi < 0) return false;
  s->pads[d] = s->taps[d] - 1 - lo / stride;
  s->pads[SPATIAL + d] = s->taps[d] - 1 - hi / stride;
  s->crop[d] = lo % stride;
  s->crop[SPATIAL + d] = hi % stride;
  return s->pads[d] >= 0 && s->pads[SPATIAL + d] >= 0 && conv->dilation[d] == 1;
}

static bool subpixel_of(const Node *n, Subpixel *s) {
  ConvInfo conv;
  if (!node_is(n, "ConvTranspose") || !conv_info(n, &conv) || conv.spatial != SPATIAL ||
      conv.group != 1 || conv.stride[0] != conv.stride[1])
    return false;
  *s = (Subpixel){.n = n,
                  .x = dequantized(n->in[0]),
                  .w = dequantized(n->in[1]),
                  .stride = conv.stride[0],
                  .c_in = conv.c_in,
                  .c_out = conv.c_out};
  return s->x && s->w && value_is_byte(s->x->in[0]) && value_is_byte(s->w->in[0]) &&
         s->w->in[0]->cdata && one_or_channels(s->w, 1) && bias_fits(node_in(n, 2)) &&
         axis_fits(s, &conv, 0) && axis_fits(s, &conv, 1);
}

/* ---- constants ---- */

/* A constant of each output channel, for all phases. */
static Value *repeated(Model *m, const Subpixel *s, Value *v) {
  const ConstData *c = v->cdata;
  const int64_t phases = s->stride * s->stride;
  const size_t bytes = (size_t)(c->count * dtype_bytes(c->dtype));
  char *data = arena_alloc(m->arena, bytes * (size_t)phases + 1);
  for (int64_t p = 0; p < phases; p++) memcpy(data + (size_t)p * bytes, c->data, bytes);
  const int64_t count = phases * c->count;
  return value_const(m, const_new(m, c->name, c->dtype, 1, &count, data));
}

/* The same of a scale or zero point, which may be one for all, or absent. */
static Value *repeated_lanes(Model *m, const Subpixel *s, Value *v) {
  return !v || v->cdata->count == 1 ? v : repeated(m, s, v);
}

static uint8_t zero_byte(const Subpixel *s, int64_t channel) {
  const Value *zero = node_in(s->w, 2);
  return zero ? (uint8_t)const_int(zero->cdata, zero->cdata->count == 1 ? 0 : channel) : 0;
}

/* [c_in, c_out, k, k] as [phases * c_out, c_in, taps, taps], the taps turned round. */
static Value *weights(Model *m, const Subpixel *s) {
  const ConstData *w = s->w->in[0]->cdata;
  const int64_t st = s->stride, th = s->taps[0], tw = s->taps[1], kh = s->kernel[0],
                kw = s->kernel[1];
  const int64_t dims[] = {st * st * s->c_out, s->c_in, th, tw};
  const uint8_t *from = w->data;
  uint8_t *to = arena_alloc(m->arena, (size_t)(dims[0] * dims[1] * th * tw) + 1);
  for (int64_t i = 0; i < dims[0] * dims[1] * th * tw; i++) {
    const int64_t x = i % tw, y = i / tw % th, in = i / (tw * th) % s->c_in,
                  row = i / (tw * th * s->c_in), out = row % s->c_out, phase = row / s->c_out;
    const int64_t ky = phase / st + st * (th - 1 - y), kx = phase % st + st * (tw - 1 - x);
    to[i] =
        ky < kh && kx < kw ? from[((in * s->c_out + out) * kh + ky) * kw + kx] : zero_byte(s, out);
  }
  return value_const(m, const_new(m, w->name, w->dtype, 4, dims, to));
}

/* ---- building ---- */

/* The DequantizeLinear n of v, a constant per output channel and phase. */
static Value *dequantize(Build *b, const Subpixel *s, const Node *n, Value *v) {
  Value *in[] = {v, repeated_lanes(b->m, s, n->in[1]), repeated_lanes(b->m, s, node_in(n, 2))};
  const Attr axis = attr_int(b->m->arena, "axis", 0);
  return b->ok ? build_op(b, "DequantizeLinear", in[2] ? 3 : 2, in, 1, &axis) : v;
}

static Value *convolution(Build *b, const Subpixel *s) {
  Arena *a = b->m->arena;
  Value *bias = node_in(s->n, 2),
        *in[] = {s->n->in[0], dequantize(b, s, s->w, weights(b->m, s)), bias};
  if (bias && bias->cdata) in[2] = repeated(b->m, s, bias);
  if (bias && !bias->cdata)
    in[2] = dequantize(b, s, bias->def, repeated(b->m, s, bias->def->in[0]));
  const Attr attrs[] = {attr_ints(a, "pads", 2 * SPATIAL, s->pads),
                        attr_ints(a, "kernel_shape", SPATIAL, s->taps)};
  return b->ok ? build_op(b, "Conv", bias ? 3 : 2, in, 2, attrs) : in[0];
}

static Value *shuffled(Build *b, const Subpixel *s, Value *v) {
  static const int64_t axes[] = {2, 3};
  Arena *a = b->m->arena;
  const Attr attrs[] = {attr_int(a, "blocksize", s->stride), attr_string(a, "mode", "DCR")};
  int64_t ends[SPATIAL];
  bool cut = false;
  if (s->stride > 1 && b->ok) v = build_op(b, "DepthToSpace", 1, &v, 2, attrs);
  for (int d = 0; d < SPATIAL; d++) {
    ends[d] = s->crop[SPATIAL + d] ? -s->crop[SPATIAL + d] : INT64_MAX;
    cut = cut || s->crop[d] || s->crop[SPATIAL + d];
  }
  if (!cut || !b->ok) return v;
  Value *in[] = {v, build_i64s(b, SPATIAL, s->crop), build_i64s(b, SPATIAL, ends),
                 build_i64s(b, SPATIAL, axes)};
  return build_op(b, "Slice", 4, in, 0, NULL);
}

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  Subpixel s;
  if (!subpixel_of(n, &s)) return true;
  Build b = {.m = f->c->model, .g = n->graph, .loc = n->loc, .ok = true};
  Value *y = shuffled(&b, &s, convolution(&b, &s));
  if (!b.ok) return false;
  if (!value_same_type(y, n->out[0])) return true;
  *keep = false;
  return forward_set(f, n, n->out[0], y);
}

bool pass_transposed_conv(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, rewrite_one);
}
