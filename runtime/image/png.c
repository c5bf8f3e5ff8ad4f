/* PNG files: all colour types and depths, not interlaced. Checksums are not verified (a damaged
 * stream is found by inflate or shows). Depth 16 keeps the high byte; transparency is dropped. */
#include "runtime/image/image.h"

typedef struct Png {
  uint32_t width, height, depth, color;
  const uint8_t *palette;
  uint32_t n_palette;
  uint8_t *packed; /* IDAT chunks joined */
  size_t n_packed;
} Png;

static uint32_t big_endian(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool read_header(Png *png, const uint8_t *d, uint32_t n) {
  if (n != 13) return false;
  png->width = big_endian(d);
  png->height = big_endian(d + 4);
  png->depth = d[8];
  png->color = d[9];
  const bool small = png->width - 1 < 1 << 15 && png->height - 1 < 1 << 15;
  const bool depth8 = png->depth == 8 || (png->depth == 16 && png->color != 3);
  const bool depth1 = (png->depth == 1 || png->depth == 2 || png->depth == 4) &&
                      (png->color == 0 || png->color == 3);
  return small && (depth8 || depth1) && d[10] == 0 && d[11] == 0 && d[12] == 0 &&
         (png->color == 0 || png->color == 2 || png->color == 3 || png->color == 4 ||
          png->color == 6);
}

static bool read_chunks(Png *png, ImageFile f) {
  for (size_t at = 8; at + 12 <= f.size;) {
    const uint32_t n = big_endian(f.data + at), type = big_endian(f.data + at + 4);
    const uint8_t *d = f.data + at + 8;
    if (n > f.size - at - 12) return false;
    at += (size_t)n + 12;
    if (type == 0x49484452) { /* IHDR */
      if (!read_header(png, d, n)) return false;
    } else if (type == 0x504c5445) { /* PLTE */
      png->palette = d;
      png->n_palette = n / 3;
    } else if (type == 0x49444154) { /* IDAT */
      __builtin_memcpy(png->packed + png->n_packed, d, n);
      png->n_packed += n;
    } else if (type == 0x49454e44) { /* IEND */
      break;
    }
  }
  return png->width && png->n_packed > 6 && (png->color != 3 || png->palette);
}

static int paeth(int a, int b, int c) {
  const int p = a + b - c, pa = p > a ? p - a : a - p, pb = p > b ? p - b : b - p,
            pc = p > c ? p - c : c - p;
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

/* Undoes the filters in place; each row is behind its filter byte. */
static bool unfilter(uint8_t *rows, uint32_t height, size_t row, size_t step) {
  for (uint32_t y = 0; y < height; y++) {
    uint8_t *cur = rows + y * (row + 1) + 1;
    const uint8_t filter = cur[-1], *up = y ? cur - row - 1 : NULL;
    if (filter > 4) return false;
    for (size_t x = 0; x < row; x++) {
      const int a = x >= step ? cur[x - step] : 0, b = up ? up[x] : 0,
                c = up && x >= step ? up[x - step] : 0;
      const int add = filter == 1   ? a
                      : filter == 2 ? b
                      : filter == 3 ? (a + b) / 2
                      : filter == 4 ? paeth(a, b, c)
                                    : 0;
      cur[x] = (uint8_t)(cur[x] + add);
    }
  }
  return true;
}

static uint8_t sample(const uint8_t *row, size_t i, uint32_t depth) {
  if (depth >= 8) return row[i * (depth / 8)];
  const size_t bit = i * depth;
  return (uint8_t)(row[bit / 8] >> (8 - depth - bit % 8) & ((1u << depth) - 1));
}

static void expand(const Png *png, const uint8_t *rows, size_t row, uint32_t samples,
                   uint8_t *out) {
  const uint32_t scale = png->color == 3 || png->depth >= 8 ? 1 : 255u / ((1u << png->depth) - 1);
  for (uint32_t y = 0; y < png->height; y++) {
    const uint8_t *r = rows + y * (row + 1) + 1;
    for (size_t x = 0; x < (size_t)png->width * samples; x++) {
      const uint8_t v = (uint8_t)(sample(r, x, png->depth) * scale);
      if (png->color != 3) {
        *out++ = v;
        continue;
      }
      for (int c = 0; c < 3; c++) *out++ = v < png->n_palette ? png->palette[v * 3 + c] : 0;
    }
  }
}

static uint32_t channels_of(uint32_t color) {
  static const uint8_t channels[7] = {1, 0, 3, 3, 2, 0, 4};
  return channels[color];
}

bool png_info(ImageFile f, ImageInfo *info) {
  Png png = {0};
  if (f.size < 33 || big_endian(f.data + 12) != 0x49484452 ||
      !read_header(&png, f.data + 16, big_endian(f.data + 8)))
    return false;
  info->width = png.width;
  info->height = png.height;
  info->channels = channels_of(png.color);
  return true;
}

/* scratch: the stream, then the rows. */
bool png_decode(ImageFile f, const ImageInfo *info, uint8_t *scratch, uint8_t *pixels) {
  Png png = {.packed = scratch};
  if (!read_chunks(&png, f) || png.width != info->width || png.height != info->height ||
      channels_of(png.color) != info->channels)
    return false;
  const uint32_t samples = png.color == 3 ? 1 : info->channels;
  const size_t row = ((size_t)png.width * samples * png.depth + 7) / 8;
  const size_t step = samples * png.depth / 8 ? samples * png.depth / 8 : 1;
  uint8_t *rows = scratch + f.size;
  if (!inflate_bytes(png.packed + 2, png.n_packed - 2, rows, (row + 1) * png.height) ||
      !unfilter(rows, png.height, row, step))
    return false;
  expand(&png, rows, row, samples, pixels);
  return true;
}
