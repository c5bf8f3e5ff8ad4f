/* Scans of a JPEG file: Huffman codes to coefficients, sequential (one scan has whole blocks) and
 * progressive (ranges of them, most significant bits first). */
#include "runtime/image/jpeg.h"

const uint8_t jpeg_zigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

typedef struct Scan {
  Jpeg *j;
  JpegComponent *c[3];
  uint32_t n, first, last, high, low; /* coefficients; bits that are there already, that remain */
  uint32_t hold, count, run;          /* run: blocks without more coefficients */
  bool bad, end;                      /* end: a marker was met; zeros follow */
} Scan;

/* ---- bits ---- */
static uint32_t next_byte(Scan *s) {
  const ImageFile f = s->j->f;
  if (s->end || s->j->at >= f.size) return s->end = true, 0;
  const uint8_t v = f.data[s->j->at];
  if (v == 0xff && (s->j->at + 1 >= f.size || f.data[s->j->at + 1] != 0)) return s->end = true, 0;
  s->j->at += v == 0xff ? 2 : 1;
  return v;
}

static uint32_t bits(Scan *s, uint32_t n) {
  uint32_t v = 0;
  for (; n > 0; n--) {
    if (!s->count) {
      s->hold = next_byte(s);
      s->count = 8;
    }
    v = v << 1 | (s->hold >> --s->count & 1);
  }
  return v;
}

static uint32_t symbol(Scan *s, const JpegCode *code) {
  uint32_t value = 0, first = 0, index = 0;
  for (int k = 1; k <= 16 && code->set; k++) {
    value = value << 1 | bits(s, 1);
    if (value - first < code->count[k]) return code->symbol[index + value - first];
    index += code->count[k];
    first = (first + code->count[k]) << 1;
  }
  s->bad = true;
  return 0;
}

/* A number of n bits; those that begin with 0 are below 0. */
static int32_t signed_bits(Scan *s, uint32_t n) {
  const int32_t v = (int32_t)bits(s, n);
  return n && v < 1 << (n - 1) ? v - (1 << n) + 1 : v;
}

/* ---- blocks ---- */
static void put(Scan *s, int16_t *at, int32_t v) {
  s->bad |= v < INT16_MIN || v > INT16_MAX;
  *at = (int16_t)v;
}

static void first_dc(Scan *s, JpegComponent *c, int16_t *b) {
  const uint32_t n = symbol(s, &s->j->dc[c->dc]);
  if (n > 15) {
    s->bad = true;
    return;
  }
  c->before += signed_bits(s, n);
  if (c->before < -(1 << 20) || c->before > 1 << 20)
    s->bad = true;
  else
    put(s, b, c->before * (1 << s->low));
}

static void first_ac(Scan *s, const JpegComponent *c, int16_t *b) {
  if (s->run) {
    s->run--;
    return;
  }
  for (uint32_t k = s->first ? s->first : 1; k <= s->last && !s->bad; k++) {
    const uint32_t v = symbol(s, &s->j->ac[c->ac]), zeros = v >> 4, n = v & 15;
    if (!n && zeros < 15) {
      s->run = s->j->progressive ? (1u << zeros) + bits(s, zeros) - 1 : 0;
      return;
    }
    k += zeros;
    if (k > s->last)
      s->bad = n != 0 || s->bad;
    else if (n)
      put(s, b + k, signed_bits(s, n) * (1 << s->low));
  }
}

/* One more bit of a coefficient that is not 0. */
static void refine(Scan *s, int16_t *at) {
  const int32_t bit = 1 << s->low;
  if (bits(s, 1) && (*at & bit) == 0) put(s, at, *at + (*at < 0 ? -bit : bit));
}

/* Skips `zeros` coefficients that are 0, refines the others on the way; the place behind them. */
static uint32_t refine_past(Scan *s, int16_t *b, uint32_t k, uint32_t zeros) {
  for (; k <= s->last; k++) {
    if (b[k])
      refine(s, b + k);
    else if (!zeros--)
      break;
  }
  return k;
}

static void more_ac(Scan *s, const JpegComponent *c, int16_t *b) {
  uint32_t k = s->first;
  while (!s->run && k <= s->last && !s->bad) {
    const uint32_t v = symbol(s, &s->j->ac[c->ac]), zeros = v >> 4, n = v & 15;
    if (n > 1) s->bad = true;
    if (!n && zeros < 15) {
      s->run = (1u << zeros) + bits(s, zeros);
      break;
    }
    const int32_t value = n ? (bits(s, 1) ? 1 : -1) * (1 << s->low) : 0;
    k = refine_past(s, b, k, zeros);
    if (k <= s->last && n) put(s, b + k, value);
    k++;
  }
  if (!s->run) return;
  for (; k <= s->last; k++)
    if (b[k]) refine(s, b + k);
  s->run--;
}

static void block(Scan *s, JpegComponent *c, uint32_t x, uint32_t y) {
  if (x >= c->blocks_x || y >= c->blocks_y) {
    s->bad = true;
    return;
  }
  int16_t *b = c->coef + ((size_t)y * c->blocks_x + x) * 64;
  if (s->first == 0 && !s->high) first_dc(s, c, b);
  if (s->first == 0 && s->high && bits(s, 1)) *b = (int16_t)(*b | 1 << s->low);
  if (s->last == 0) return;
  if (s->high)
    more_ac(s, c, b);
  else
    first_ac(s, c, b);
}

/* ---- units ---- */
static void restart(Scan *s) {
  const ImageFile f = s->j->f;
  s->hold = s->count = s->run = 0;
  s->end = false;
  for (uint32_t k = 0; k < s->n; k++) s->c[k]->before = 0;
  if (s->j->at + 1 < f.size && f.data[s->j->at] == 0xff && (f.data[s->j->at + 1] & 0xf8) == 0xd0)
    s->j->at += 2;
}

/* Unit i of a scan: blocks of each component, or one block of a component alone. */
static void unit(Scan *s, uint32_t i) {
  if (s->n == 1) {
    const uint32_t across = (s->c[0]->width + 7) / 8;
    block(s, s->c[0], i % across, i / across);
    return;
  }
  for (uint32_t k = 0; k < s->n; k++) {
    JpegComponent *c = s->c[k];
    const uint32_t across = c->blocks_x / c->h;
    for (uint32_t v = 0; v < c->v; v++)
      for (uint32_t h = 0; h < c->h; h++) block(s, c, i % across * c->h + h, i / across * c->v + v);
  }
}

static uint32_t units(const Scan *s) {
  const JpegComponent *c = s->c[0];
  return s->n == 1 ? ((c->width + 7) / 8) * ((c->height + 7) / 8)
                   : c->blocks_x / c->h * (c->blocks_y / c->v);
}

static bool scan_header(Scan *s) {
  Jpeg *j = s->j;
  const uint8_t *p = j->f.data + j->at; /* the segment is in the file: next_scan */
  const size_t room = j->f.size - j->at;
  if (room < 1 || p[0] < 1 || p[0] > j->n || room < 4 + 2 * (size_t)p[0]) return false;
  s->n = p[0];
  for (uint32_t k = 0; k < s->n; k++) {
    s->c[k] = NULL;
    for (uint32_t i = 0; i < j->n; i++)
      if (j->c[i].id == p[1 + 2 * k]) s->c[k] = &j->c[i];
    if (!s->c[k] || (p[2 + 2 * k] >> 4) > 3 || (p[2 + 2 * k] & 15) > 3) return false;
    s->c[k]->dc = p[2 + 2 * k] >> 4;
    s->c[k]->ac = p[2 + 2 * k] & 15;
    s->c[k]->before = 0;
  }
  p += 1 + 2 * s->n;
  s->first = j->progressive ? p[0] : 0;
  s->last = j->progressive ? p[1] : 63;
  s->high = j->progressive ? p[2] >> 4 : 0;
  s->low = j->progressive ? p[2] & 15 : 0;
  j->at += 4 + 2 * (size_t)s->n;
  return s->last <= 63 && s->first <= s->last && s->low <= 13 &&
         (!j->progressive || (s->first == 0) == (s->last == 0)) && (s->first == 0 || s->n == 1);
}

bool jpeg_scan(Jpeg *j) {
  Scan s = {.j = j};
  if (!scan_header(&s)) return false;
  const uint32_t n = units(&s);
  for (uint32_t i = 0; i < n && !s.bad; i++) {
    if (i && j->restart && i % j->restart == 0) restart(&s);
    unit(&s, i);
  }
  return !s.bad;
}
