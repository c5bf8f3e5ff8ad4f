/* Images that are cut out and coloured: [C, H, W] of floats. All that is random is a function of one number. */
#include <math.h>
#include "driver/train/data.h"
#include "driver/train/random.h"

/* In [0, 1). */
static double uniform(uint64_t draw, uint64_t k) {
  return (double)(random_at(draw, 0, k) >> 11) * 0x1p-53;
}

typedef struct Taps { /* of a place between two lines: their numbers, and the share of the second */
  int64_t a, b;
  float part;
} Taps;

/* Of the line k of those that `size` lines from `first` on become, of n. */
static Taps taps_at(double first, double size, int64_t k, int64_t n) {
  const double at = first + ((double)k + 0.5) * size / (double)n - 0.5, low = floor(at);
  const int64_t a = (int64_t)low;
  return (Taps){a < 0 ? 0 : a, a + 1 < n ? a + 1 : n - 1, (float)(at - low)};
}

void warp_crop(const int64_t *chw, double least, const float *from, float *to, uint64_t draw) {
  static const double narrow = 3.0 / 4, wide = 4.0 / 3; /* height to width, of the image's own */
  const int64_t h = chw[1], w = chw[2];
  const double area = least + (1 - least) * uniform(draw, 0),
               ratio = narrow + (wide - narrow) * uniform(draw, 1),
               high = fmin(sqrt(area * ratio), 1) * (double)h,
               broad = fmin(sqrt(area / ratio), 1) * (double)w,
               top = uniform(draw, 2) * ((double)h - high),
               left = uniform(draw, 3) * ((double)w - broad);
  for (int64_t c = 0; c < chw[0]; c++, from += h * w)
    for (int64_t y = 0; y < h; y++) {
      const Taps v = taps_at(top, high, y, h);
      const float *one = from + v.a * w, *two = from + v.b * w;
      for (int64_t x = 0; x < w; x++) {
        const Taps u = taps_at(left, broad, x, w);
        const float above = one[u.a] + u.part * (one[u.b] - one[u.a]),
                    below = two[u.a] + u.part * (two[u.b] - two[u.a]);
        *to++ = above + v.part * (below - above);
      }
    }
}

static double mean_of(const float *v, int64_t n) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += v[k];
  return sum / (double)n;
}

void warp_color(const int64_t *chw, double most, float *image, uint64_t draw) {
  const int64_t plane = chw[1] * chw[2], n = chw[0] * plane;
  const double mean = mean_of(image, n);
  double squares = 0;
  for (int64_t k = 0; k < n; k++) squares += (image[k] - mean) * (image[k] - mean);
  const double spread = sqrt(squares / (double)n);
  const float contrast = (float)(1 + most * (2 * uniform(draw, 4) - 1)),
              saturation = (float)(1 + most * (2 * uniform(draw, 5) - 1)),
              shift = (float)(mean + most * spread * (2 * uniform(draw, 6) - 1)), old = (float)mean;
  for (int64_t k = 0; k < plane; k++) {
    float grey = 0;
    for (int64_t c = 0; c < chw[0]; c++) grey += image[c * plane + k];
    grey /= (float)chw[0];
    for (int64_t c = 0; c < chw[0]; c++) {
      float *const v = &image[c * plane + k];
      *v = shift + contrast * (grey + saturation * (*v - grey) - old);
    }
  }
}
