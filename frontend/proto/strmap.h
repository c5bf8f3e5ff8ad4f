/* A map from strings to pointers; internal to frontend/. Keys are not copied and must outlive the
 * map. */
#pragma once
#include "ir/base/arena.h"

typedef struct StrMap {
  const char **keys;
  void **values;
  uint32_t n, cap; /* cap: power of two or 0 */
  uint64_t seed;   /* of the hash */
} StrMap;
void *strmap_get(const StrMap *m, const char *key); /* NULL when absent */
/* Value is not NULL; replaces */
void strmap_put(Arena *a, StrMap *m, const char *key, void *value);
