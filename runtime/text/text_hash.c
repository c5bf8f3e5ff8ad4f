/* MurmurHash3 of com.microsoft: MurmurHash3_x86_32 (Appleby, public domain, 2011) of strings. */
#include "runtime/ops/ops.h"
#include "runtime/text/text.h"

static uint32_t rotated(uint32_t x, int n) { return x << n | x >> (32 - n); }

static uint32_t scrambled(uint32_t k) { return rotated(k * 0xcc9e2d51u, 15) * 0x1b873593u; }

/* Up to four bytes, the first one lowest. */
static uint32_t little_endian(const char *s, uint64_t n) {
  uint32_t k = 0;
  for (uint64_t i = 0; i < n; i++) k |= (uint32_t)(uint8_t)s[i] << 8 * i;
  return k;
}

static uint32_t murmur3(TextView t, uint32_t seed) {
  const uint64_t blocks = t.length / 4;
  uint32_t h = seed;
  for (uint64_t i = 0; i < blocks; i++)
    h = rotated(h ^ scrambled(little_endian(t.bytes + 4 * i, 4)), 13) * 5 + 0xe6546b64u;
  h ^= scrambled(little_endian(t.bytes + 4 * blocks, t.length % 4)) ^ (uint32_t)t.length;
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

int32_t rt_text_hash(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                     const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  for (int64_t i = 0; i < rt_count(in); i++)
    ((uint32_t *)out->data)[i] =
        murmur3(strings_get(&s, ((const int64_t *)in->data)[i]), (uint32_t)w[0]);
  return BURIN_OK;
}
