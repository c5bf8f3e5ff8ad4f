/* Leaves out the taps of a convolution that see nothing but the zeros around its input, wherever
 * the window stands: a 3×3 kernel of dilation 36 on a 4×4 map is a 1×1 kernel without pads. What
 * remains reads no further than the input is long, and so do the zeros stored around it.
 *
 * needs inferred shapes; sizes that are not constant stay as they are. */
#include <math.h>
#include <string.h>

#include "ir/ops/nn/contraction.h"
#include "passes/graph/rewrite.h"

typedef struct Crop {
  int64_t first[MAX_SPATIAL], count[MAX_SPATIAL]; /* taps that are kept */
  bool any;
} Crop;

/* Some window of `rows` has tap t inside of the input. */
static bool sees_data(const ConvInfo *conv, int s, int64_t t, int64_t rows, int64_t size) {
  const int64_t at = t * conv->dilation[s] - conv->pad_lo[s], step = conv->stride[s];
  const int64_t q = at < 0 ? (-at + step - 1) / step : 0;
  return q < rows && q * step + at < size;
}

/* Taps are left out at both ends, as far as the pads shrink with them. */
static void crop_axis(const Node *n, const ConvInfo *conv, int s, Crop *c) {
  int64_t size, rows, lo = 0, hi = conv->kernel[s];
  c->first[s] = 0;
  c->count[s] = hi;
  if (!expr_is_const(n->in[0]->dims[2 + s], &size) ||
      !expr_is_const(n->out[0]->dims[2 + s], &rows) || size < 1 || rows < 1)
    return;
  while (lo < hi - 1 && (lo + 1) * conv->dilation[s] <= conv->pad_lo[s] &&
         !sees_data(conv, s, lo, rows, size))
    lo++;
  const int64_t kernel = conv->kernel[s];
  while (hi - 1 > lo && (kernel - hi + 1) * conv->dilation[s] <= conv->pad_hi[s] &&
         !sees_data(conv, s, hi - 1, rows, size))
    hi--;
  c->first[s] = lo;
  c->count[s] = hi - lo;
  c->any = c->any || c->count[s] != kernel;
}

/* The tap that is number i among those kept, as its number in the whole kernel; -1: there are no
 * more. */
static int64_t kept_tap(const ConvInfo *conv, const Crop *c, int64_t i) {
  int64_t tap = 0, scale = 1;
  for (int s = conv->spatial - 1; s >= 0; s--) {
    tap += (c->first[s] + i % c->count[s]) * scale;
    i /= c->count[s];
    scale *= conv->kernel[s];
  }
  return i ? -1 : tap;
}

static int64_t product(const int64_t *v, int n) {
  int64_t p = 1;
  for (int i = 0; i < n; i++) p *= v[i];
  return p;
}

/* Infinite weights make NaN of zeros: such a kernel is left alone. */
static bool all_finite(const ConstData *w) {
  for (int64_t i = 0; i < w->count; i++)
    if (!isfinite(const_float(w, i))) return false;
  return true;
}

static Value *cropped_weights(Model *m, const ConvInfo *conv, const Crop *c, const ConstData *w) {
  const int64_t taps = product(conv->kernel, conv->spatial),
                kept = product(c->count, conv->spatial);
  const int64_t rows = w->count / taps;
  const size_t size = (size_t)dtype_bytes(w->dtype);
  int64_t dims[MAX_RANK] = {conv->c_out, conv->c_in / conv->group};
  for (int s = 0; s < conv->spatial; s++) dims[2 + s] = c->count[s];
  char *data = arena_alloc(m->arena, (size_t)(rows * kept) * size + 1);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < kept; i++)
      memcpy(data + (size_t)(r * kept + i) * size,
             (const char *)w->data + (size_t)(r * taps + kept_tap(conv, c, i)) * size, size);
  return value_const(m, const_new(m, w->name, w->dtype, 2 + conv->spatial, dims, data));
}

static void set_window(Model *m, Node *n, const ConvInfo *conv, const Crop *c) {
  int64_t pads[2 * MAX_SPATIAL];
  for (int s = 0; s < conv->spatial; s++) {
    pads[s] = conv->pad_lo[s] - c->first[s] * conv->dilation[s];
    pads[conv->spatial + s] =
        conv->pad_hi[s] - (conv->kernel[s] - c->first[s] - c->count[s]) * conv->dilation[s];
  }
  node_set_attr(n, attr_string(m->arena, "auto_pad", "NOTSET"));
  node_set_attr(n, attr_ints(m->arena, "pads", 2 * conv->spatial, pads));
  node_set_attr(n, attr_ints(m->arena, "kernel_shape", conv->spatial, c->count));
}

static bool crop(Forward *f, Node *n, bool *keep) {
  (void)keep;
  ConvInfo conv;
  Crop c = {.any = false};
  const ConstData *w = node_is(n, "Conv") ? const_input(n, 1) : NULL;
  if (!w || !w->data || !conv_info(n, &conv) || w->count == 0) return true;
  for (int s = 0; s < conv.spatial; s++) crop_axis(n, &conv, s, &c);
  if (!c.any || !all_finite(w)) return true;
  n->in[1] = cropped_weights(f->c->model, &conv, &c, w);
  set_window(f->c->model, n, &conv, &c);
  f->c->changed = true;
  return true;
}

bool pass_crop_taps(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, crop);
}
