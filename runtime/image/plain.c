/* Formats that hold their pixels as they are: BMP (8 bits with a palette, 24 and 32 bits), PNM (P5
 * and P6 of bytes), TIFF (bytes in strips, one sample behind the other, not compressed). */
#include "runtime/image/image.h"

/* Bytes [at, at + n) are in the file. */
static bool has(ImageFile f, uint64_t at, uint64_t n) { return at <= f.size && n <= f.size - at; }

/* n bytes at `at`, 0 behind the end. */
static uint32_t number(ImageFile f, uint64_t at, uint32_t n, bool big) {
  uint32_t v = 0;
  for (uint32_t k = 0; k < n && has(f, at, n); k++)
    v |= (uint32_t)f.data[at + k] << 8 * (big ? n - 1 - k : k);
  return v;
}

/* ---- BMP ---- */
typedef struct Bmp {
  uint32_t pixels, bits, palette, colors;
  bool down; /* the first row is the top one */
} Bmp;

static bool bmp_header(ImageFile f, ImageInfo *info, Bmp *b) {
  const uint32_t head = number(f, 14, 4, false), height = number(f, 22, 4, false);
  if (!has(f, 0, 54) || head < 40 || head > 256 || number(f, 26, 2, false) != 1) return false;
  *b = (Bmp){.pixels = number(f, 10, 4, false),
             .bits = number(f, 28, 2, false),
             .palette = 14 + head,
             .colors = number(f, 46, 4, false),
             .down = height >> 31};
  info->width = number(f, 18, 4, false);
  info->height = b->down ? 0 - height : height;
  info->channels = 3;
  if (!b->colors && b->bits == 8) b->colors = 256;
  return number(f, 30, 4, false) == 0 && (b->bits == 8 || b->bits == 24 || b->bits == 32) &&
         b->colors <= 256 && has(f, b->palette, 4 * (uint64_t)b->colors);
}

bool bmp_info(ImageFile f, ImageInfo *info) {
  Bmp b;
  return bmp_header(f, info, &b);
}

bool bmp_decode(ImageFile f, const ImageInfo *info, uint8_t *pixels) {
  ImageInfo again;
  Bmp b;
  if (!bmp_header(f, &again, &b)) return false;
  const uint64_t row = ((uint64_t)info->width * b.bits + 31) / 32 * 4;
  if (!has(f, b.pixels, row * info->height)) return false;
  for (uint32_t y = 0; y < info->height; y++) {
    const uint8_t *line = f.data + b.pixels + row * (b.down ? y : info->height - 1 - y);
    for (uint32_t x = 0; x < info->width; x++) {
      const uint8_t *from = line + (uint64_t)x * (b.bits / 8);
      if (b.bits == 8 && *from >= b.colors) return false;
      if (b.bits == 8) from = f.data + b.palette + 4 * *from;
      for (int c = 0; c < 3; c++) *pixels++ = from[2 - c];
    }
  }
  return true;
}

/* ---- PNM ---- */
static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next number of the header; comments go to the end of the line. 0: none. */
static uint32_t pnm_number(ImageFile f, size_t *at) {
  uint32_t v = 0;
  while (*at < f.size && (is_space(f.data[*at]) || f.data[*at] == '#')) {
    const bool comment = f.data[(*at)++] == '#';
    while (comment && *at < f.size && f.data[*at] != '\n') (*at)++;
  }
  for (; *at < f.size && f.data[*at] >= '0' && f.data[*at] <= '9' && v < 1 << 20; (*at)++)
    v = v * 10 + (f.data[*at] - '0');
  return v;
}

static bool pnm_header(ImageFile f, ImageInfo *info, size_t *at) {
  *at = 2;
  info->channels = f.data[1] == '6' ? 3 : 1;
  info->width = pnm_number(f, at);
  info->height = pnm_number(f, at);
  return pnm_number(f, at) == 255 && *at < f.size && is_space(f.data[(*at)++]);
}

bool pnm_info(ImageFile f, ImageInfo *info) {
  size_t at;
  return pnm_header(f, info, &at);
}

bool pnm_decode(ImageFile f, const ImageInfo *info, uint8_t *pixels) {
  ImageInfo again;
  size_t at;
  const uint64_t bytes = (uint64_t)info->width * info->height * info->channels;
  if (!pnm_header(f, &again, &at) || !has(f, at, bytes)) return false;
  for (uint64_t k = 0; k < bytes; k++) pixels[k] = f.data[at + k];
  return true;
}

/* ---- TIFF ---- */
enum {
  T_WIDTH = 256,
  T_HEIGHT,
  T_BITS,
  T_COMPRESSION,
  T_PHOTOMETRIC = 262,
  T_OFFSETS = 273,
  T_SAMPLES = 277,
  T_ROWS,
  T_PLANAR = 284
};

typedef struct Tiff {
  ImageFile f;
  bool big;
  uint64_t directory;
  uint32_t entries;
} Tiff;

/* Value k of a tag of 16- or 32-bit numbers; `absent` where the file has none. */
static uint32_t tiff_value(const Tiff *t, uint32_t tag, uint32_t k, uint32_t absent) {
  for (uint32_t i = 0; i < t->entries; i++) {
    const uint64_t at = t->directory + 12 * (uint64_t)i;
    if (number(t->f, at, 2, t->big) != tag) continue;
    const uint32_t size = number(t->f, at + 2, 2, t->big) == 3 ? 2 : 4;
    const uint32_t count = number(t->f, at + 4, 4, t->big);
    if (k >= count) return absent;
    const uint64_t list = (uint64_t)count * size <= 4 ? at + 8 : number(t->f, at + 8, 4, t->big);
    return number(t->f, list + (uint64_t)k * size, size, t->big);
  }
  return absent;
}

static bool tiff_header(ImageFile f, ImageInfo *info, Tiff *t) {
  *t = (Tiff){.f = f, .big = f.data[0] == 'M'};
  const uint32_t at = number(f, 4, 4, t->big);
  t->entries = number(f, at, 2, t->big);
  t->directory = (uint64_t)at + 2;
  if (!has(f, t->directory, 12 * (uint64_t)t->entries)) return false;
  info->width = tiff_value(t, T_WIDTH, 0, 0);
  info->height = tiff_value(t, T_HEIGHT, 0, 0);
  info->channels = tiff_value(t, T_SAMPLES, 0, 1);
  const uint32_t meaning = tiff_value(t, T_PHOTOMETRIC, 0, 0);
  for (uint32_t c = 0; c < 4 && c < info->channels; c++)
    if (tiff_value(t, T_BITS, c, 1) != 8) return false;
  return tiff_value(t, T_COMPRESSION, 0, 1) == 1 && tiff_value(t, T_PLANAR, 0, 1) == 1 &&
         ((info->channels == 1 && meaning == 1) || (info->channels == 3 && meaning == 2));
}

bool tiff_info(ImageFile f, ImageInfo *info) {
  Tiff t;
  return tiff_header(f, info, &t);
}

bool tiff_decode(ImageFile f, const ImageInfo *info, uint8_t *pixels) {
  ImageInfo again;
  Tiff t;
  if (!tiff_header(f, &again, &t)) return false;
  const uint32_t rows = tiff_value(&t, T_ROWS, 0, info->height);
  const uint64_t row = (uint64_t)info->width * info->channels;
  if (!rows) return false;
  for (uint32_t y = 0; y < info->height; y++) {
    const uint64_t from = tiff_value(&t, T_OFFSETS, y / rows, 0) + (y % rows) * row;
    if (!from || !has(f, from, row)) return false;
    for (uint64_t k = 0; k < row; k++) *pixels++ = f.data[from + k];
  }
  return true;
}
