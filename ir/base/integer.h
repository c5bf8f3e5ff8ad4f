/* Arithmetic of integers that the language lacks. */
#pragma once
#include <stdint.h>

/* Greatest common divisor, of 0 and a: |a|. Where that is no int64_t (2^63), 1. */
static inline int64_t int_gcd(int64_t a, int64_t b) {
  uint64_t x = a < 0 ? -(uint64_t)a : (uint64_t)a;
  uint64_t y = b < 0 ? -(uint64_t)b : (uint64_t)b;
  while (y) {
    const uint64_t rest = x % y;
    x = y;
    y = rest;
  }
  return x > INT64_MAX ? 1 : (int64_t)x;
}
