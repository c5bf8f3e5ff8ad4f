/* Random numbers that are the same on every machine: each is a function of a seed, a stream and its
 * place, so that nothing need be remembered between them. */
#pragma once
#include <stdint.h>

/* The finalizer of SplitMix64 (Steele, Lea, Flood, 2014). */
static inline uint64_t random_mix(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

static inline uint64_t random_at(uint64_t seed, uint64_t stream, uint64_t k) {
  static const uint64_t golden = 0x9e3779b97f4a7c15u;
  const uint64_t s = random_mix(random_mix(seed + golden) ^ (stream + 1) * golden);
  return random_mix(s + (k + 1) * golden);
}

/* In [0, n). */
static inline uint64_t random_below(uint64_t r, uint64_t n) {
  return (uint64_t)((unsigned __int128)r * n >> 64);
}

/* In [-1, 1). */
static inline double random_signed(uint64_t r) { return (double)(int64_t)r * 0x1p-63; }

/* Exchanges the n numbers in an order of the stream (Fisher and Yates). */
static inline void random_shuffle(uint64_t seed, uint64_t stream, int64_t *v, int64_t n) {
  for (int64_t k = n - 1; k > 0; k--) {
    const int64_t i = (int64_t)random_below(random_at(seed, stream, (uint64_t)k), (uint64_t)k + 1),
                  t = v[k];
    v[k] = v[i];
    v[i] = t;
  }
}
