/* Open addressing over XXH3, seeded with a number that differs from run to run: nobody can make
 * names that collide. The order of entries is never looked at, so results do not depend on
 * hashes. */
#define XXH_INLINE_ALL
#include "frontend/proto/strmap.h"
#include <string.h>
#include <sys/auxv.h>
#include <xxhash.h>

static uint64_t seed(void) {
  const void *const random = (const void *)getauxval(AT_RANDOM); /* 16 bytes */
  uint64_t v = 0;
  if (random) memcpy(&v, random, sizeof v);
  return v;
}

static uint32_t slot_of(const StrMap *m, const char *key) {
  uint32_t k = (uint32_t)XXH3_64bits_withSeed(key, strlen(key), m->seed) & (m->cap - 1);
  while (m->keys[k] && strcmp(m->keys[k], key) != 0) k = (k + 1) & (m->cap - 1);
  return k;
}

void *strmap_get(const StrMap *m, const char *key) {
  return m->cap ? m->values[slot_of(m, key)] : NULL;
}

static void grow(Arena *a, StrMap *m) {
  const StrMap old = *m;
  if (!m->cap) m->seed = seed();
  m->cap = old.cap ? 2 * old.cap : 16;
  m->keys = ARENA_ARRAY(a, const char *, m->cap);
  m->values = ARENA_ARRAY(a, void *, m->cap);
  for (uint32_t k = 0; k < old.cap; k++) {
    if (!old.keys[k]) continue;
    const uint32_t to = slot_of(m, old.keys[k]);
    m->keys[to] = old.keys[k];
    m->values[to] = old.values[k];
  }
}

void strmap_put(Arena *a, StrMap *m, const char *key, void *value) {
  if (4 * (m->n + 1) > 3 * m->cap) grow(a, m);
  const uint32_t k = slot_of(m, key);
  if (!m->keys[k]) {
    m->keys[k] = key;
    m->n++;
  }
  m->values[k] = value;
}
