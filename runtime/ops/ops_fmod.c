/* fmod for generated code: exact, by subtracting shifted divisors, as IEEE demands; sign of the
 * dividend. */
#include <stdint.h>

#include "runtime/core/rt.h"

typedef union Bits {
  double f;
  uint64_t u;
} Bits;

static int exponent_of(uint64_t *m) { /* normalises a magnitude with a hidden bit at 52 */
  int e = (int)(*m >> 52);
  *m &= ((uint64_t)1 << 52) - 1;
  if (e) {
    *m |= (uint64_t)1 << 52;
    return e;
  }
  for (e = 1; !(*m >> 52); e--) *m <<= 1;
  return e;
}

double burin_rt_fmod(double a, double b) {
  Bits x = {a}, y = {b};
  const uint64_t sign = x.u & ((uint64_t)1 << 63), inf = (uint64_t)0x7ff << 52;
  x.u &= ~((uint64_t)1 << 63);
  y.u &= ~((uint64_t)1 << 63);
  if (x.u >= inf || y.u > inf || y.u == 0) return (Bits){.u = inf | (uint64_t)1 << 51}.f;
  if (x.u < y.u) return a;
  const int ey = exponent_of(&y.u);
  for (int e = exponent_of(&x.u); e > ey; e--) {
    if (x.u >= y.u) x.u -= y.u;
    x.u <<= 1;
  }
  if (x.u >= y.u) x.u -= y.u;
  if (x.u == 0) return (Bits){.u = sign}.f;
  int e = ey;
  for (; !(x.u >> 52); e--) x.u <<= 1;
  if (e > 0)
    x.u = (x.u & (((uint64_t)1 << 52) - 1)) | (uint64_t)e << 52;
  else
    x.u >>= 1 - e;
  return (Bits){.u = x.u | sign}.f;
}

float burin_rt_fmodf(float a, float b) { return (float)burin_rt_fmod(a, b); }
