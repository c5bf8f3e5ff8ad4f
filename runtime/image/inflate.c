/* Deflate (RFC 1951) into a buffer of known size. Canonical Huffman codes by counting; every read
 * and write is bounded, so damaged input ends in false. */
#include "runtime/image/image.h"

typedef struct Bits {
  const uint8_t *in, *end;
  uint8_t *out, *out_begin, *out_end;
  uint64_t hold;
  int count;
  bool bad;
} Bits;

enum { MAX_BITS = 15, MAX_SYMBOLS = 288 };
typedef struct Code {
  uint16_t count[MAX_BITS + 1]; /* codes of each length */
  uint16_t symbol[MAX_SYMBOLS]; /* in the order of their codes */
} Code;

static uint32_t take(Bits *b, int n) {
  while (b->count < n) {
    if (b->in == b->end) return b->bad = true, 0;
    b->hold |= (uint64_t)*b->in++ << b->count;
    b->count += 8;
  }
  const uint32_t v = (uint32_t)(b->hold & ((1u << n) - 1));
  b->hold >>= n;
  b->count -= n;
  return v;
}

static void code_build(Code *c, const uint8_t *lengths, int n) {
  uint16_t offset[MAX_BITS + 2] = {0};
  for (int i = 0; i <= MAX_BITS; i++) c->count[i] = 0;
  for (int i = 0; i < n; i++) c->count[lengths[i]]++;
  c->count[0] = 0;
  for (int i = 1; i <= MAX_BITS; i++) offset[i + 1] = (uint16_t)(offset[i] + c->count[i]);
  for (int i = 0; i < n; i++)
    if (lengths[i]) c->symbol[offset[lengths[i]]++] = (uint16_t)i;
}

static int decode(Bits *b, const Code *c) {
  int32_t code = 0, first = 0, index = 0;
  for (int length = 1; length <= MAX_BITS && !b->bad; length++) {
    code |= (int32_t)take(b, 1);
    const int32_t count = c->count[length];
    if (code - count < first)
      return code < first ? (b->bad = true, 0) : c->symbol[index + code - first];
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  b->bad = true;
  return 0;
}

static void stored_block(Bits *b) {
  b->hold >>= b->count & 7;
  b->count -= b->count & 7;
  const uint32_t n = take(b, 16), inverse = take(b, 16);
  if (b->bad || (n ^ inverse) != 0xffff || n > (size_t)(b->out_end - b->out)) {
    b->bad = true;
    return;
  }
  for (uint32_t i = 0; i < n && !b->bad; i++) *b->out++ = (uint8_t)take(b, 8);
}

static const uint16_t length_base[] = {3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                       15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                       67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                       2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t distance_base[] = {
    1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
    193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

static void copy_match(Bits *b, const Code *distances, int symbol) {
  if (symbol > 285) {
    b->bad = true;
    return;
  }
  const uint32_t length = length_base[symbol - 257] + take(b, length_extra[symbol - 257]);
  const int d = decode(b, distances);
  if (d > 29) b->bad = true;
  if (b->bad) return;
  const size_t distance = distance_base[d] + take(b, d < 2 ? 0 : d / 2 - 1);
  b->bad |= distance > (size_t)(b->out - b->out_begin) || length > (size_t)(b->out_end - b->out);
  for (uint32_t i = 0; i < length && !b->bad; i++, b->out++) *b->out = *(b->out - distance);
}

static void coded_block(Bits *b, const Code *literals, const Code *distances) {
  while (!b->bad) {
    const int symbol = decode(b, literals);
    if (b->bad || symbol == 256) return;
    if (symbol > 256)
      copy_match(b, distances, symbol);
    else if (b->out == b->out_end)
      b->bad = true;
    else
      *b->out++ = (uint8_t)symbol;
  }
}

static void fixed_codes(Code *literals, Code *distances) {
  uint8_t lengths[MAX_SYMBOLS];
  for (int i = 0; i < MAX_SYMBOLS; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  code_build(literals, lengths, MAX_SYMBOLS);
  for (int i = 0; i < 30; i++) lengths[i] = 5;
  code_build(distances, lengths, 30);
}

static void dynamic_codes(Bits *b, Code *literals, Code *distances) {
  static const uint8_t order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                    11, 4,  12, 3, 13, 2, 14, 1, 15};
  const int n_literals = 257 + (int)take(b, 5), n_distances = 1 + (int)take(b, 5);
  const int n_lengths = 4 + (int)take(b, 4), total = n_literals + n_distances;
  uint8_t lengths[320] = {0};
  for (int i = 0; i < n_lengths; i++) lengths[order[i]] = (uint8_t)take(b, 3);
  code_build(literals, lengths, 19);
  for (int i = 0; i < 19; i++) lengths[i] = 0;
  for (int i = 0; i < total && !b->bad;) {
    const int symbol = decode(b, literals);
    if (symbol < 16) {
      lengths[i++] = (uint8_t)symbol;
      continue;
    }
    const uint8_t value = symbol == 16 && i > 0 ? lengths[i - 1] : 0;
    int repeat = symbol == 16   ? 3 + (int)take(b, 2)
                 : symbol == 17 ? 3 + (int)take(b, 3)
                                : 11 + (int)take(b, 7);
    if ((symbol == 16 && i == 0) || i + repeat > total) b->bad = true;
    for (; repeat > 0 && !b->bad; repeat--) lengths[i++] = value;
  }
  if (b->bad || n_literals > 286) {
    b->bad = true;
    return;
  }
  code_build(literals, lengths, n_literals);
  code_build(distances, lengths + n_literals, n_distances);
}

bool inflate_bytes(const uint8_t *in, size_t in_size, uint8_t *out, size_t size) {
  Bits b = {in, in + in_size, out, out, out + size, 0, 0, false};
  Code literals = {0}, distances = {0};
  for (bool last = false; !last && !b.bad;) {
    last = take(&b, 1);
    const uint32_t kind = take(&b, 2);
    if (kind == 3) b.bad = true;
    if (b.bad) break;
    if (kind == 0) {
      stored_block(&b);
      continue;
    }
    if (kind == 1)
      fixed_codes(&literals, &distances);
    else
      dynamic_codes(&b, &literals, &distances);
    coded_block(&b, &literals, &distances);
  }
  return !b.bad && b.out == b.out_end;
}
