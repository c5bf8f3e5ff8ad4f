/* JPEG of 8 bits, sequential and progressive, Huffman codes, one or three components. The pixels are
 * those of libjpeg-turbo with its exact transform and smooth upsampling, which the ONNX reference
 * uses. All coefficients are gathered first, whatever the order of scans. */
#include "runtime/image/jpeg.h"

static uint32_t be16(const Jpeg *j, size_t at) {
  return at + 2 <= j->f.size ? (uint32_t)j->f.data[at] << 8 | j->f.data[at + 1] : 0;
}
static uint32_t byte_at(const Jpeg *j, size_t at) { return at < j->f.size ? j->f.data[at] : 0; }
static uint32_t divide_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

/* ---- segments: [at, end) ---- */
static bool read_quant(Jpeg *j, size_t at, size_t end) {
  while (at < end) {
    const uint32_t head = byte_at(j, at++), wide = head >> 4;
    if (wide > 1 || (head & 15) > 3 || end - at < 64u << wide) return false;
    for (int k = 0; k < 64; k++, at += 1 + wide)
      j->quant[head & 15][k] = (uint16_t)(wide ? be16(j, at) : byte_at(j, at));
  }
  return true;
}

static bool read_codes(Jpeg *j, size_t at, size_t end) {
  while (at < end) {
    const uint32_t head = byte_at(j, at++);
    if ((head >> 4) > 1 || (head & 15) > 3 || end - at < 16) return false;
    JpegCode *code = head >> 4 ? &j->ac[head & 15] : &j->dc[head & 15];
    uint32_t n = 0, room = 1;
    for (int k = 1; k <= 16; k++) {
      code->count[k] = (uint8_t)byte_at(j, at++);
      n += code->count[k];
      room *= 2; /* codes of this length that are free */
      if (code->count[k] > room) return false;
      room -= code->count[k];
    }
    if (n > 256 || end - at < n) return false;
    for (uint32_t k = 0; k < n; k++) code->symbol[k] = (uint8_t)byte_at(j, at++);
    code->set = true;
  }
  return true;
}

static bool read_frame(Jpeg *j, size_t at, size_t end) {
  if (j->frame || end - at < 6 || byte_at(j, at) != 8) return false;
  j->height = be16(j, at + 1);
  j->width = be16(j, at + 3);
  j->n = byte_at(j, at + 5);
  if ((j->n != 1 && j->n != 3) || end - at < 6 + 3 * (size_t)j->n || !j->width || !j->height)
    return false;
  for (uint32_t k = 0; k < j->n; k++) {
    JpegComponent *c = &j->c[k];
    const size_t from = at + 6 + 3 * (size_t)k;
    const uint32_t factors = byte_at(j, from + 1);
    *c = (JpegComponent){.id = byte_at(j, from), .quant = byte_at(j, from + 2)};
    c->h = j->n == 1 ? 1 : factors >> 4; /* of one component factors mean nothing */
    c->v = j->n == 1 ? 1 : factors & 15;
    if (c->h - 1 > 3 || c->v - 1 > 3 || c->quant > 3) return false;
    j->h_most = c->h > j->h_most ? c->h : j->h_most;
    j->v_most = c->v > j->v_most ? c->v : j->v_most;
  }
  for (uint32_t k = 0; k < j->n; k++) {
    JpegComponent *c = &j->c[k];
    if (j->h_most % c->h || j->v_most % c->v) return false;
    c->width = divide_up(j->width * c->h, j->h_most);
    c->height = divide_up(j->height * c->v, j->v_most);
    c->blocks_x = divide_up(j->width, 8 * j->h_most) * c->h;
    c->blocks_y = divide_up(j->height, 8 * j->v_most) * c->v;
  }
  j->rgb |= j->n == 3 && j->c[0].id == 'R' && j->c[1].id == 'G' && j->c[2].id == 'B';
  return j->frame = true;
}

/* Adobe's: whether three components are YCbCr. */
static void read_adobe(Jpeg *j, size_t at, size_t end) {
  static const uint8_t name[] = {'A', 'd', 'o', 'b', 'e'};
  for (size_t k = 0; k < sizeof name; k++)
    if (byte_at(j, at + k) != name[k]) return;
  if (end - at >= 12 && byte_at(j, at + 11) == 0) j->rgb = true;
}

enum {
  SOF0 = 0xc0,
  SOF1,
  SOF2,
  DHT = 0xc4,
  RST0 = 0xd0,
  SOI = 0xd8,
  EOI,
  SOS,
  DQT,
  DRI = 0xdd,
  APP14 = 0xee
};

static bool read_segment(Jpeg *j, uint32_t marker, size_t at, size_t end) {
  if (marker == DQT) return read_quant(j, at, end);
  if (marker == DHT) return read_codes(j, at, end);
  if (marker == DRI) j->restart = be16(j, at);
  if (marker == APP14) read_adobe(j, at, end);
  if (marker == SOF0 || marker == SOF1 || marker == SOF2) {
    j->progressive = marker == SOF2;
    return read_frame(j, at, end);
  }
  return marker == DRI || marker < SOF0 || marker > 0xcf; /* other frames: not these codes */
}

/* Up to the next scan (true, at its header) or the end. */
static bool next_scan(Jpeg *j, bool *bad) {
  *bad = false;
  while (j->at + 4 <= j->f.size) {
    if (j->f.data[j->at] != 0xff) {
      j->at++;
      continue;
    }
    const uint32_t marker = j->f.data[j->at + 1];
    if (marker == 0xff || marker == 0 || (marker >= RST0 && marker <= SOI)) {
      j->at += marker == 0xff ? 1 : 2;
      continue;
    }
    if (marker == EOI) return false;
    const size_t from = j->at + 4, length = be16(j, j->at + 2);
    if (length < 2 || length - 2 > j->f.size - from) break;
    j->at = from + length - 2;
    if (marker == SOS) return j->at = from, true;
    if (!read_segment(j, marker, from, j->at)) return *bad = true, false;
  }
  return false;
}

bool jpeg_info(ImageFile f, ImageInfo *info) {
  Jpeg j = {.f = f, .at = 2};
  bool bad;
  while (!j.frame && next_scan(&j, &bad)) j.at += 1;
  if (!j.frame) return false;
  info->width = j.width;
  info->height = j.height;
  info->channels = j.n;
  return true;
}

/* ---- samples to pixels ---- */
static const uint8_t *row_of(const JpegComponent *c, uint32_t y) {
  return c->samples + (size_t)(y < c->height ? y : c->height - 1) * c->blocks_x * 8;
}

/* Three quarters of the nearer sample, one of the farther. */
static uint32_t between(uint32_t near, uint32_t far) { return 3 * near + far; }

/* The component at pixel x, y of a plane with half the columns, half the rows, or both. */
static uint32_t smooth(const JpegComponent *c, uint32_t x, uint32_t y, bool rows) {
  const uint32_t r = rows ? y / 2 : y, i = x / 2;
  const uint8_t *near = row_of(c, r), *far = row_of(c, rows && y % 2 == 0 && r ? r - 1 : r);
  if (rows && y % 2) far = row_of(c, r + 1);
  const uint32_t odd = x % 2, one = odd ? 2 : 1, shift = rows ? 4 : 2;
  const uint32_t here = rows ? between(near[i], far[i]) : near[i];
  if (odd ? i + 1 == c->width : i == 0) return rows ? (here * 4 + (odd ? 7 : 8)) >> 4 : here;
  const uint32_t k = odd ? i + 1 : i - 1;
  const uint32_t next = rows ? between(near[k], far[k]) : near[k];
  return (between(here, next) + (rows ? (odd ? 7 : 8) : one)) >> shift;
}

static uint32_t sample_at(const Jpeg *j, const JpegComponent *c, uint32_t x, uint32_t y) {
  const uint32_t h = j->h_most / c->h, v = j->v_most / c->v;
  if (h == 2 && v <= 2 && c->width > 2) return smooth(c, x, y, v == 2);
  if (h == 1 && v == 2) {
    const uint32_t r = y / 2, other = y % 2 ? r + 1 : r ? r - 1 : 0;
    return (between(row_of(c, r)[x], row_of(c, other)[x]) + (y % 2 ? 2 : 1)) >> 2;
  }
  return row_of(c, y / v)[x / h];
}

static uint8_t clamp(int32_t v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* Factors in 16 bits behind the point; green's two are added before they are rounded. */
static void to_rgb(const uint32_t *s, uint8_t *out) {
  const int32_t y = (int32_t)s[0], cb = (int32_t)s[1] - 128, cr = (int32_t)s[2] - 128;
  out[0] = clamp(y + ((91881 * cr + 32768) >> 16));
  out[1] = clamp(y + ((-22554 * cb - 46802 * cr + 32768) >> 16));
  out[2] = clamp(y + ((116130 * cb + 32768) >> 16));
}

static void write_pixels(const Jpeg *j, uint8_t *pixels) {
  for (uint32_t y = 0; y < j->height; y++)
    for (uint32_t x = 0; x < j->width; x++, pixels += j->n) {
      uint32_t s[3];
      for (uint32_t k = 0; k < j->n; k++) s[k] = sample_at(j, &j->c[k], x, y);
      if (j->n == 3 && !j->rgb)
        to_rgb(s, pixels);
      else
        for (uint32_t k = 0; k < j->n; k++) pixels[k] = (uint8_t)s[k];
    }
}

static void transform(const Jpeg *j) {
  for (uint32_t k = 0; k < j->n; k++) {
    const JpegComponent *c = &j->c[k];
    const size_t stride = (size_t)c->blocks_x * 8;
    for (uint32_t y = 0; y < c->blocks_y; y++)
      for (uint32_t x = 0; x < c->blocks_x; x++)
        jpeg_inverse(c->coef + ((size_t)y * c->blocks_x + x) * 64, j->quant[c->quant],
                     c->samples + y * 8 * stride + (size_t)x * 8, stride);
  }
}

/* scratch: coefficients of all components, then samples. */
static void lay_out(Jpeg *j, uint8_t *scratch) {
  uint8_t *at = scratch + ((uintptr_t)scratch & 1);
  for (uint32_t k = 0; k < j->n; k++) {
    JpegComponent *c = &j->c[k];
    const size_t n = (size_t)c->blocks_x * c->blocks_y * 64;
    c->coef = (int16_t *)(void *)at;
    c->samples = at + 2 * n;
    at += 3 * n;
    at += (uintptr_t)at & 1;
    for (size_t i = 0; i < n; i++) c->coef[i] = 0;
  }
}

enum { MAX_SCANS = 500 }; /* far more than any picture has: time stays bounded */
bool jpeg_decode(ImageFile f, const ImageInfo *info, uint8_t *scratch, uint8_t *pixels) {
  Jpeg j = {.f = f, .at = 2};
  bool bad = false;
  int scans = 0;
  while (next_scan(&j, &bad)) {
    if (!j.frame || j.width != info->width || j.height != info->height || j.n != info->channels)
      return false;
    if (!scans) lay_out(&j, scratch);
    if (++scans > MAX_SCANS || !jpeg_scan(&j)) return false;
  }
  if (bad || !scans) return false;
  transform(&j);
  write_pixels(&j, pixels);
  return true;
}
