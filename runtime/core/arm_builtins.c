/* Functions of the ARM EABI that clang calls for 64-bit arithmetic and division on 32-bit ARM,
 * with the meaning the EABI gives them. In an object or archive they are local
 * (codegen/link/localise.c), so that a host keeps its own. */
#include <stddef.h>
#include <stdint.h>

#define ABI __attribute__((weak, visibility("hidden"), pcs("aapcs")))

typedef union Wide { /* little endian */
  uint64_t all;
  int64_t sall;
  struct {
    uint32_t lo, hi;
  };
} Wide;
typedef union Bits64 {
  double f;
  uint64_t u;
} Bits64;
typedef union Bits32 {
  float f;
  uint32_t u;
} Bits32;

typedef struct Quot32 {
  uint32_t quot, rem;
} Quot32;
typedef struct Quot64 {
  uint64_t quot, rem;
} Quot64;

static inline uint64_t shift_left(uint64_t v, int n) {
  Wide w = {v};
  if (n >= 32) return (Wide){.lo = 0, .hi = n > 63 ? 0 : w.lo << (n - 32)}.all;
  return n == 0 ? v : (Wide){.lo = w.lo << n, .hi = w.hi << n | w.lo >> (32 - n)}.all;
}
static inline uint64_t shift_right(uint64_t v, int n) {
  Wide w = {v};
  if (n >= 32) return (Wide){.lo = n > 63 ? 0 : w.hi >> (n - 32), .hi = 0}.all;
  return n == 0 ? v : (Wide){.lo = w.lo >> n | w.hi << (32 - n), .hi = w.hi >> n}.all;
}
ABI uint64_t __aeabi_llsl(uint64_t v, int n) { return shift_left(v, n); }
ABI uint64_t __aeabi_llsr(uint64_t v, int n) { return shift_right(v, n); }
ABI int64_t __aeabi_lasr(int64_t v, int n) {
  Wide w = {.sall = v};
  const int32_t hi = (int32_t)w.hi;
  if (n >= 32)
    return (Wide){.lo = (uint32_t)(hi >> (n > 63 ? 31 : n - 32)), .hi = (uint32_t)(hi >> 31)}.sall;
  return n == 0 ? v : (Wide){.lo = w.lo >> n | w.hi << (32 - n), .hi = (uint32_t)(hi >> n)}.sall;
}

/* Shift-and-subtract from the first bit that matters. Division by zero gives 0, as Linux's handlers
 * do not. */
static inline Quot32 divide32(uint32_t a, uint32_t b) {
  Quot32 r = {0, a};
  if (b == 0 || a < b) return r;
  int shift = __builtin_clz(b) - __builtin_clz(a);
  b <<= shift;
  for (; shift >= 0; shift--, b >>= 1) {
    r.quot <<= 1;
    if (r.rem >= b) r.rem -= b, r.quot |= 1;
  }
  return r;
}
static inline int lead64(uint64_t v) {
  const Wide w = {v};
  return w.hi ? __builtin_clz(w.hi) : 32 + __builtin_clz(w.lo);
}
static inline Quot64 divide64(uint64_t a, uint64_t b) {
  Quot64 r = {0, a};
  if (b == 0 || a < b) return r;
  if (a >> 32 == 0) {
    const Quot32 q = divide32((uint32_t)a, (uint32_t)b);
    return (Quot64){q.quot, q.rem};
  }
  int shift = lead64(b) - lead64(a);
  b = shift_left(b, shift);
  for (; shift >= 0; shift--, b = shift_right(b, 1)) {
    r.quot = r.quot + r.quot;
    if (r.rem >= b) r.rem -= b, r.quot |= 1;
  }
  return r;
}
static inline uint32_t magnitude32(int32_t v) { return v < 0 ? 0u - (uint32_t)v : (uint32_t)v; }
static inline uint64_t magnitude64(int64_t v) { return v < 0 ? 0u - (uint64_t)v : (uint64_t)v; }

/* The pairs are returned in r0-r1 and r0-r3, which no C type says: {quotient, remainder} as one
 * wide integer for 32 bits, an assembly veneer for 64 bits. */
static inline uint64_t pair32(uint32_t quot, uint32_t rem) {
  return (Wide){.lo = quot, .hi = rem}.all;
}

ABI uint32_t __aeabi_uidiv(uint32_t a, uint32_t b) { return divide32(a, b).quot; }
ABI uint64_t __aeabi_uidivmod(uint32_t a, uint32_t b) {
  const Quot32 q = divide32(a, b);
  return pair32(q.quot, q.rem);
}
static inline Quot32 divide32s(int32_t a, int32_t b) {
  Quot32 q = divide32(magnitude32(a), magnitude32(b));
  if ((a ^ b) < 0) q.quot = 0u - q.quot;
  if (a < 0) q.rem = 0u - q.rem;
  return q;
}
ABI int32_t __aeabi_idiv(int32_t a, int32_t b) { return (int32_t)divide32s(a, b).quot; }
ABI uint64_t __aeabi_idivmod(int32_t a, int32_t b) {
  const Quot32 q = divide32s(a, b);
  return pair32(q.quot, q.rem);
}

__attribute__((used, visibility("hidden"), weak)) void burin_rt_udivmod64(uint64_t a, uint64_t b,
                                                                          Quot64 *out) {
  *out = divide64(a, b);
}
__attribute__((used, visibility("hidden"), weak)) void burin_rt_sdivmod64(int64_t a, int64_t b,
                                                                          Quot64 *out) {
  Quot64 q = divide64(magnitude64(a), magnitude64(b));
  if ((a ^ b) < 0) q.quot = 0u - q.quot;
  if (a < 0) q.rem = 0u - q.rem;
  *out = q;
}
#define VENEER64(name, fn)                                                     \
  __attribute__((naked, weak, visibility("hidden"))) void name(void) {         \
    __asm__(                                                                   \
        "push {r11, lr}\n sub sp, sp, #24\n add r12, sp, #8\n str r12, [sp]\n" \
        "bl " #fn                                                              \
        "\n add r12, sp, #8\n ldm r12, {r0, r1, r2, r3}\n"                     \
        "add sp, sp, #24\n pop {r11, pc}\n");                                  \
  }
VENEER64(__aeabi_uldivmod, burin_rt_udivmod64)
VENEER64(__aeabi_ldivmod, burin_rt_sdivmod64)

/* Conversions. Integers become two exact doubles whose sum rounds once; float goes through
 * round-to-odd. */
ABI double __aeabi_ul2d(uint64_t v) {
  const Wide w = {v};
  return (double)w.hi * 4294967296.0 + (double)w.lo;
}
ABI double __aeabi_l2d(int64_t v) {
  const Wide w = {.sall = v};
  return (double)(int32_t)w.hi * 4294967296.0 + (double)w.lo;
}
/* To float: keep 32 bits with a sticky lowest one (a float needs 24 and a rounding bit), then
 * scale. */
static inline float wide_to_float(uint64_t v) {
  const Wide w = {v};
  if (w.hi == 0) return (float)w.lo;
  const int drop = 32 - __builtin_clz(w.hi);
  const uint32_t kept = (uint32_t)shift_right(v, drop);
  const uint32_t lost = shift_left(v, 64 - drop) != 0;
  const Bits32 scale = {.u = (uint32_t)(127 + drop) << 23};
  return (float)(kept | lost) * scale.f;
}
ABI float __aeabi_ul2f(uint64_t v) { return wide_to_float(v); }
ABI float __aeabi_l2f(int64_t v) {
  return v < 0 ? -wide_to_float(magnitude64(v)) : wide_to_float((uint64_t)v);
}

static inline uint64_t magnitude_of_double(double v) { /* truncated; ≥ 2^64 saturates; v ≥ 0 */
  const uint64_t u = (Bits64){v}.u;
  const int exponent = (int)((uint32_t)(u >> 32) >> 20 & 0x7ff) - 1023;
  const uint64_t mantissa = (u & 0xfffffffffffffull) | 0x10000000000000ull;
  if (exponent < 0) return 0;
  if (exponent > 63) return ~(uint64_t)0;
  return exponent > 52 ? shift_left(mantissa, exponent - 52) : shift_right(mantissa, 52 - exponent);
}
ABI uint64_t __aeabi_d2ulz(double v) { return v > 0 ? magnitude_of_double(v) : 0; }
ABI int64_t __aeabi_d2lz(double v) {
  if (v != v) return 0;
  if (v >= 9223372036854775808.0) return INT64_MAX;
  if (v < -9223372036854775808.0) return INT64_MIN;
  return v < 0 ? (int64_t)(0u - magnitude_of_double(-v)) : (int64_t)magnitude_of_double(v);
}
ABI uint64_t __aeabi_f2ulz(float v) { return __aeabi_d2ulz((double)v); }
ABI int64_t __aeabi_f2lz(float v) { return __aeabi_d2lz((double)v); }

/* Names of the C99 generation that LLVM uses when the EABI ones are not chosen. */
ABI uint64_t __fixunsdfdi(double v) { return __aeabi_d2ulz(v); }
ABI int64_t __fixdfdi(double v) { return __aeabi_d2lz(v); }
ABI uint64_t __fixunssfdi(float v) { return __aeabi_f2ulz(v); }
ABI int64_t __fixsfdi(float v) { return __aeabi_f2lz(v); }
ABI double __floatdidf(int64_t v) { return __aeabi_l2d(v); }
ABI double __floatundidf(uint64_t v) { return __aeabi_ul2d(v); }
ABI float __floatdisf(int64_t v) { return __aeabi_l2f(v); }
ABI float __floatundisf(uint64_t v) { return __aeabi_ul2f(v); }

/* Memory: note the argument order of memset. */
void *burin_rt_memcpy(void *dst, const void *src, size_t n);
void *burin_rt_memmove(void *dst, const void *src, size_t n);
void *burin_rt_memset(void *dst, int c, size_t n);
#define MEMORY(suffix)                                                                            \
  ABI void __aeabi_memcpy##suffix(void *d, const void *s, size_t n) { burin_rt_memcpy(d, s, n); } \
  ABI void __aeabi_memmove##suffix(void *d, const void *s, size_t n) {                            \
    burin_rt_memmove(d, s, n);                                                                    \
  }                                                                                               \
  ABI void __aeabi_memset##suffix(void *d, size_t n, int c) { burin_rt_memset(d, c, n); }         \
  ABI void __aeabi_memclr##suffix(void *d, size_t n) { burin_rt_memset(d, 0, n); }
MEMORY()
MEMORY(4)
MEMORY(8)
