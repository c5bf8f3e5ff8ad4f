/* Samples that are two: a weighted mean of both (mixup: Zhang et al., 2018), or a rectangle of one in the
 * other (CutMix: Yun et al., 2019). The share is Beta(alpha, alpha), one for a batch. */
#include <math.h>
#include <string.h>
#include "driver/train/data.h"
#include "driver/train/random.h"

bool data_is_image(const TrainArray *a) {
  return a->rank == 4 && a->batch_axis == 0 && dtype_is_float(a->dtype);
}

bool mix_fits(Session *s, const Augment *g, const TrainData *d) {
  const TrainArray *labels = &d->arrays[d->n_inputs];
  if (!augment_mixes(g)) return true;
  for (int k = 0; k < d->n_inputs; k++) {
    const TrainArray *a = &d->arrays[k];
    if (a->batch_axis < 0) continue;
    if (!dtype_is_float(a->dtype))
      return dataset_error(s, d->path, a->name, "--augment: only inputs of floats can be mixed");
    if (g->cutmix > 0 && !data_is_image(a))
      return dataset_error(s, d->path, a->name,
                           "--augment=cutmix: the input is no image [N,C,H,W]");
  }
  return !(g->cutmix > 0) || labels->outer * labels->inner == 1 ||
         dataset_error(s, d->path, labels->name,
                       "--augment=cutmix: labels that belong to places would have to be cut, too");
}

/* ---- random numbers ---- */
typedef struct Draws {
  uint64_t seed, stream, k;
} Draws;

/* In (0, 1). */
static double uniform(Draws *d) {
  return ((double)(random_at(d->seed, d->stream, d->k++) >> 12) + 0.5) * 0x1p-52;
}

static double normal(Draws *d) { /* Box and Muller */
  static const double turn = 6.283185307179586;
  const double r = sqrt(-2 * log(uniform(d)));
  return r * cos(turn * uniform(d));
}

/* Gamma(a, 1); Marsaglia and Tsang, 2000. */
static double gamma_draw(Draws *d, double a) {
  if (a < 1) return gamma_draw(d, a + 1) * pow(uniform(d), 1 / a);
  const double e = a - 1.0 / 3, c = 1 / sqrt(9 * e);
  for (;;) {
    const double x = normal(d), t = 1 + c * x, v = t * t * t;
    if (v > 0 && log(uniform(d)) < x * x / 2 + e - e * v + e * log(v)) return e * v;
  }
}

/* Without the last bits of log and pow, in which machines differ. */
static double beta_draw(Draws *d, double alpha) {
  static const double steps = 1 << 20;
  if (alpha == 1) return uniform(d);
  const double x = gamma_draw(d, alpha), y = gamma_draw(d, alpha);
  return x + y > 0 ? round(x / (x + y) * steps) / steps : 0.5;
}

/* ---- batches ---- */
static void blend(Tensor *t, const Tensor *other, double own) {
  const int bytes = dtype_bytes(t->dtype);
  if (t->dtype == DT_F32) {
    float *x = t->data;
    const float *y = other->data, a = (float)own, b = (float)(1 - own);
    for (int64_t k = 0; k < t->count; k++) x[k] = a * x[k] + b * y[k];
    return;
  }
  for (int64_t k = 0; k < t->count; k++)
    dtype_store_f(t->dtype, (char *)t->data + k * bytes,
                  own * tensor_element(t, k) + (1 - own) * tensor_element(other, k));
}

typedef struct Box { /* parts of height and width */
  double top, bottom, left, right;
} Box;

static int64_t pixel(double part, int64_t n) { return (int64_t)floor(part * (double)n); }

static double area(const Box *b, int64_t h, int64_t w) {
  return (double)((pixel(b->bottom, h) - pixel(b->top, h)) *
                  (pixel(b->right, w) - pixel(b->left, w))) /
         (double)(h * w);
}

/* Around a center anywhere: what lies outside is not in it. */
static Box draw_box(Draws *d, double part) {
  const double side = sqrt(part) / 2, y = uniform(d), x = uniform(d);
  return (Box){fmax(y - side, 0), fmin(y + side, 1), fmax(x - side, 0), fmin(x + side, 1)};
}

static void paste(Tensor *t, const Tensor *other, const Box *b) {
  const int64_t h = t->dims[2], w = t->dims[3], bytes = dtype_bytes(t->dtype);
  const int64_t left = pixel(b->left, w), n = pixel(b->right, w) - left;
  for (int64_t p = 0; p < t->dims[0] * t->dims[1]; p++)
    for (int64_t y = pixel(b->top, h); y < pixel(b->bottom, h); y++) {
      const int64_t at = ((p * h + y) * w + left) * bytes;
      memcpy((char *)t->data + at, (const char *)other->data + at, (size_t)(n * bytes));
    }
}

double mix_batch(const Augment *g, const TrainData *d, Tensor *batch, const Tensor *other,
                 uint64_t seed, uint64_t epoch, uint64_t call) {
  enum { EACH = 32 }; /* a stream for each call of an epoch */
  Draws draws = {.seed = seed, .stream = (epoch << EACH | call) ^ UINT64_C(1) << 63};
  const bool cut = g->cutmix > 0 && (g->mixup <= 0 || uniform(&draws) < 0.5);
  double own = beta_draw(&draws, cut ? g->cutmix : g->mixup), least = 1;
  const Box box = draw_box(&draws, 1 - own);
  for (int k = 0; k < d->n_inputs; k++) {
    if (d->arrays[k].batch_axis < 0) continue;
    if (cut)
      paste(&batch[k], &other[k], &box);
    else
      blend(&batch[k], &other[k], own);
    if (cut) least = fmin(least, 1 - area(&box, batch[k].dims[2], batch[k].dims[3]));
  }
  return cut ? least : own;
}
