/* The inverse cosine transform of 8 x 8 in integers, by the factors of Loeffler, Ligtenberg and
 * Moschytz (1989), with 13 bits behind the point and two kept between the passes: roundings are
 * those of libjpeg's "islow". */
#include "runtime/image/jpeg.h"

enum { POINT = 13, KEPT = 2 };

typedef struct Line {
  int64_t v[8];
} Line;

static Line line_inverse(const Line *in) {
  const int64_t *x = in->v;
  /* even: rotations by pi/8 and sums */
  const int64_t turned = (x[2] + x[6]) * 4433;
  const int64_t low = turned - x[6] * 15137, high = turned + x[2] * 6270;
  const int64_t sum = (x[0] + x[4]) * (1 << POINT), diff = (x[0] - x[4]) * (1 << POINT);
  const int64_t even[4] = {sum + high, diff + low, diff - low, sum - high};
  /* odd */
  const int64_t a = x[7] + x[1], b = x[5] + x[3], c = x[7] + x[3], d = x[5] + x[1];
  const int64_t all = (c + d) * 9633, e = all - c * 16069, g = all - d * 3196;
  const int64_t odd[4] = {x[1] * 12299 - a * 7373 + g, x[3] * 25172 - b * 20995 + e,
                          x[5] * 16819 - b * 20995 + g, x[7] * 2446 - a * 7373 + e};
  Line out;
  for (int k = 0; k < 4; k++) {
    out.v[k] = even[k] + odd[k];
    out.v[7 - k] = even[k] - odd[k];
  }
  return out;
}

static int64_t round_off(int64_t v, int bits) { return (v + ((int64_t)1 << (bits - 1))) >> bits; }

void jpeg_inverse(const int16_t *coef, const uint16_t *quant, uint8_t *out, size_t stride) {
  int64_t block[64] = {0};
  for (int k = 0; k < 64; k++) block[jpeg_zigzag[k]] = (int64_t)coef[k] * quant[k];
  for (int x = 0; x < 8; x++) {
    Line line;
    for (int y = 0; y < 8; y++) line.v[y] = block[8 * y + x];
    line = line_inverse(&line);
    for (int y = 0; y < 8; y++) block[8 * y + x] = round_off(line.v[y], POINT - KEPT);
  }
  for (int y = 0; y < 8; y++) {
    Line line;
    for (int x = 0; x < 8; x++) line.v[x] = block[8 * y + x];
    line = line_inverse(&line);
    for (int x = 0; x < 8; x++) {
      const int64_t v = round_off(line.v[x], POINT + KEPT + 3) + 128;
      out[(size_t)y * stride + (size_t)x] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
  }
}
