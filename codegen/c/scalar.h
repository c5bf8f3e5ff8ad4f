/* What scalar rows mean (ir/expr/scalar.def), in plain C99: the head of every file of --emit=c.
 * Define BURIN_FLUSH as 0 where the FPU flushes subnormal numbers itself, or where numbers below
 * 1.2e-38 do not matter: then arithmetic is a third of the work, and no other result changes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifndef BURIN_FLUSH
#define BURIN_FLUSH 1
#endif
#if defined(__BYTE_ORDER__) && defined(__ORDER_BIG_ENDIAN__)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "this code is for little endian machines"
#endif
#endif
#ifdef __FAST_MATH__
#error "results need IEEE arithmetic: compile without -ffast-math"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__) && !defined(__TINYC__) && !defined(__STRICT_ANSI__)
#pragma GCC optimize("fp-contract=off")
#endif

/* ---- bits ---- */
static inline uint32_t burin_c_bits32(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}
static inline uint64_t burin_c_bits64(double f) {
  uint64_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}
static inline float burin_c_float(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
static inline double burin_c_double(uint64_t u) {
  double f;
  memcpy(&f, &u, sizeof f);
  return f;
}

/* ---- integers: values in 64 bits, wrapped to their type by the caller ---- */
static inline int64_t burin_c_div(int64_t a, int64_t b) {
  if (b == 0) return 0;
  return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}
static inline uint64_t burin_c_udiv(uint64_t a, uint64_t b) { return b == 0 ? 0 : a / b; }
static inline int64_t burin_c_rem(int64_t a, int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
static inline uint64_t burin_c_urem(uint64_t a, uint64_t b) { return b == 0 ? 0 : a % b; }
static inline int64_t burin_c_floordiv(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return burin_c_div(a, b);
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}
static inline int64_t burin_c_floormod(int64_t a, int64_t b) {
  return b == 0 ? 0 : (int64_t)((uint64_t)a - (uint64_t)burin_c_floordiv(a, b) * (uint64_t)b);
}
static inline int64_t burin_c_min(int64_t a, int64_t b) { return b < a ? b : a; }
static inline int64_t burin_c_max(int64_t a, int64_t b) { return a < b ? b : a; }
static inline uint64_t burin_c_umin(uint64_t a, uint64_t b) { return b < a ? b : a; }
static inline uint64_t burin_c_umax(uint64_t a, uint64_t b) { return a < b ? b : a; }
static inline int64_t burin_c_abs(int64_t a) { return a < 0 ? (int64_t)(0 - (uint64_t)a) : a; }
/* A count of the width or more shifts everything out. */
static inline int64_t burin_c_shl(int64_t a, int64_t n, int bits) {
  return n < 0 || n >= bits ? 0 : (int64_t)((uint64_t)a << n);
}
static inline uint64_t burin_c_ushr(uint64_t a, int64_t n, int bits) {
  return n < 0 || n >= bits ? 0 : a >> n;
}
static inline int64_t burin_c_shr(int64_t a, int64_t n, int bits) {
  const int by = n < 0 || n >= bits ? 63 : (int)n;
  return a < 0 ? (int64_t)~(~(uint64_t)a >> by) : a >> by;
}
/* Sums of products of groups: u8 or i8 by four, i16 by two. */
static inline int32_t burin_c_dot4_u8i8(int32_t a, int32_t b, int32_t c) {
  const uint32_t u = (uint32_t)a, v = (uint32_t)b;
  const int32_t s =
      (int32_t)(u & 255) * (int8_t)(v & 255) + (int32_t)(u >> 8 & 255) * (int8_t)(v >> 8 & 255) +
      (int32_t)(u >> 16 & 255) * (int8_t)(v >> 16 & 255) + (int32_t)(u >> 24) * (int8_t)(v >> 24);
  return (int32_t)((uint32_t)c + (uint32_t)s);
}
static inline int32_t burin_c_dot4_i8i8(int32_t a, int32_t b, int32_t c) {
  const uint32_t u = (uint32_t)a, v = (uint32_t)b;
  const int32_t s =
      (int8_t)(u & 255) * (int8_t)(v & 255) + (int8_t)(u >> 8 & 255) * (int8_t)(v >> 8 & 255) +
      (int8_t)(u >> 16 & 255) * (int8_t)(v >> 16 & 255) + (int8_t)(u >> 24) * (int8_t)(v >> 24);
  return (int32_t)((uint32_t)c + (uint32_t)s);
}
static inline int32_t burin_c_dot4_u8u8(int32_t a, int32_t b, int32_t c) {
  const uint32_t u = (uint32_t)a, v = (uint32_t)b;
  const uint32_t s = (u & 255) * (v & 255) + (u >> 8 & 255) * (v >> 8 & 255) +
                     (u >> 16 & 255) * (v >> 16 & 255) + (u >> 24) * (v >> 24);
  return (int32_t)((uint32_t)c + s);
}
static inline int32_t burin_c_dot2_i16(int32_t a, int32_t b, int32_t c) {
  const uint32_t u = (uint32_t)a, v = (uint32_t)b;
  const uint32_t low = (uint32_t)((int16_t)(u & 65535) * (int16_t)(v & 65535));
  const uint32_t high = (uint32_t)((int16_t)(u >> 16) * (int16_t)(v >> 16));
  return (int32_t)((uint32_t)c + low + high);
}
/* Two sums of two products, which saturate, each added to one of two i16. */
static inline uint32_t burin_c_pair_u8i8(uint32_t u, uint32_t v, uint32_t c) {
  int32_t s =
      (int32_t)(u & 255) * (int8_t)(v & 255) + (int32_t)(u >> 8 & 255) * (int8_t)(v >> 8 & 255);
  s = s < -32768 ? -32768 : s > 32767 ? 32767 : s;
  return (c + (uint32_t)s) & 65535;
}
static inline int32_t burin_c_dot2x2_u8i8(int32_t a, int32_t b, int32_t c) {
  const uint32_t u = (uint32_t)a, v = (uint32_t)b, sum = (uint32_t)c;
  return (int32_t)(burin_c_pair_u8i8(u, v, sum) | burin_c_pair_u8i8(u >> 16, v >> 16, sum >> 16)
                                                      << 16);
}
/* Of a type with fewer than 8 bits. */
static inline int64_t burin_c_wrap(int64_t a, int bits, int is_signed) {
  const int64_t low = a & (((int64_t)1 << bits) - 1), half = (int64_t)1 << (bits - 1);
  return is_signed ? (low ^ half) - half : low;
}
/* Saturating conversions; NaN becomes 0. */
static inline int64_t burin_c_clamp(int64_t a, int64_t lo, int64_t hi) {
  return a < lo ? lo : a > hi ? hi : a;
}
static inline int64_t burin_c_to_int(double v, int64_t lo, int64_t hi) {
  if (v != v) return 0;
  if (v >= (double)hi) return hi;
  return v <= (double)lo ? lo : (int64_t)v;
}
static inline uint64_t burin_c_to_u64(double v) {
  if (v != v || v <= 0) return 0;
  return v >= 18446744073709551616.0 ? UINT64_MAX : (uint64_t)v;
}

/* ---- floats: subnormal operands and results of arithmetic count as zero of their sign ---- */
static inline float burin_c_flushf(float v) {
#if BURIN_FLUSH
  const uint32_t u = burin_c_bits32(v);
  return (u & 0x7f800000u) == 0 ? burin_c_float(u & 0x80000000u) : v;
#else
  return v;
#endif
}
static inline double burin_c_flush(double v) {
#if BURIN_FLUSH
  const uint64_t u = burin_c_bits64(v), sign = (uint64_t)1 << 63;
  return (u & (uint64_t)0x7ff << 52) == 0 ? burin_c_double(u & sign) : v;
#else
  return v;
#endif
}
/* f64 to f32 and smaller: below the least normal f32 it is zero. */
static inline double burin_c_narrow(double v) {
#if BURIN_FLUSH
  const uint64_t u = burin_c_bits64(v), sign = (uint64_t)1 << 63;
  return (u & ~sign) < (uint64_t)(1023 - 126) << 52 ? burin_c_double(u & sign) : v;
#else
  return v;
#endif
}
/* Products and quotients that round up to the least normal number are tiny, too: tiny is what lies
 * below it when exponents have no end. */
static inline float burin_c_mulf(float a, float b) {
  const float r = a * b;
#if BURIN_FLUSH
  const uint32_t u = burin_c_bits32(r), m = u & 0x7fffffffu;
  const float k = 18446744073709551616.0f; /* 2^64 */
  if (m > 0x00800000u) return r;
  if (m < 0x00800000u) return burin_c_float(u & 0x80000000u);
  if ((burin_c_bits32(a * k * b) & 0x7fffffffu) < 0x20800000u)
    return burin_c_float(u & 0x80000000u);
#endif
  return r;
}
static inline float burin_c_divf(float a, float b) {
  const float r = a / b;
#if BURIN_FLUSH
  const uint32_t u = burin_c_bits32(r), m = u & 0x7fffffffu;
  const float k = 18446744073709551616.0f;
  if (m > 0x00800000u) return r;
  if (m < 0x00800000u) return burin_c_float(u & 0x80000000u);
  if ((burin_c_bits32(a * k / b) & 0x7fffffffu) < 0x20800000u)
    return burin_c_float(u & 0x80000000u);
#endif
  return r;
}
static inline double burin_c_mul(double a, double b) {
  const double r = a * b;
#if BURIN_FLUSH
  const uint64_t sign = (uint64_t)1 << 63, u = burin_c_bits64(r), m = u & ~sign;
  const double k = 18446744073709551616.0;
  if (m > (uint64_t)1 << 52) return r;
  if (m < (uint64_t)1 << 52) return burin_c_double(u & sign);
  if ((burin_c_bits64(a * k * b) & ~sign) < (uint64_t)65 << 52) return burin_c_double(u & sign);
#endif
  return r;
}
static inline double burin_c_fdiv(double a, double b) {
  const double r = a / b;
#if BURIN_FLUSH
  const uint64_t sign = (uint64_t)1 << 63, u = burin_c_bits64(r), m = u & ~sign;
  const double k = 18446744073709551616.0;
  if (m > (uint64_t)1 << 52) return r;
  if (m < (uint64_t)1 << 52) return burin_c_double(u & sign);
  if ((burin_c_bits64(a * k / b) & ~sign) < (uint64_t)65 << 52) return burin_c_double(u & sign);
#endif
  return r;
}
static inline int burin_c_isnanf(float a) { return a != a; }
static inline int burin_c_isnan(double a) { return a != a; }
static inline float burin_c_minf(float a, float b) {
  return burin_c_flushf(b) < burin_c_flushf(a) || b != b ? b : a;
}
static inline float burin_c_maxf(float a, float b) {
  return burin_c_flushf(b) > burin_c_flushf(a) || b != b ? b : a;
}
static inline double burin_c_fmin(double a, double b) {
  return burin_c_flush(b) < burin_c_flush(a) || b != b ? b : a;
}
static inline double burin_c_fmax(double a, double b) {
  return burin_c_flush(b) > burin_c_flush(a) || b != b ? b : a;
}
static inline float burin_c_negf(float a) { return burin_c_float(burin_c_bits32(a) ^ 0x80000000u); }
static inline float burin_c_absf(float a) { return burin_c_float(burin_c_bits32(a) & 0x7fffffffu); }
static inline double burin_c_neg(double a) {
  return burin_c_double(burin_c_bits64(a) ^ (uint64_t)1 << 63);
}
static inline double burin_c_fabs(double a) {
  return burin_c_double(burin_c_bits64(a) & ~((uint64_t)1 << 63));
}
static inline double burin_c_trunc(double a) {
  const uint64_t u = burin_c_bits64(a), sign = u & (uint64_t)1 << 63;
  if (!(burin_c_fabs(a) < 4503599627370496.0)) return a; /* 2^52: whole, or NaN */
  return burin_c_double(burin_c_bits64((double)(int64_t)a) | sign);
}
static inline double burin_c_signed(double a, double of) { /* zero keeps the sign it came from */
  return burin_c_double(burin_c_bits64(a) | (burin_c_bits64(of) & (uint64_t)1 << 63));
}
static inline double burin_c_floor(double a) {
  const double t = burin_c_trunc(a);
  return t > a ? t - 1 : t;
}
static inline double burin_c_ceil(double a) {
  const double t = burin_c_trunc(a);
  return t < a ? burin_c_signed(t + 1, a < 0 ? a : t + 1) : t;
}
static inline double burin_c_rint(double a) { /* ties to even */
  const double t = burin_c_trunc(a), rest = burin_c_fabs(a - t);
  if (!(rest >= 0.5)) return t;
  if (rest == 0.5 && (int64_t)t % 2 == 0) return t;
  return a < 0 ? t - 1 : t + 1;
}
/* Square root, correctly rounded: digit by digit, one bit more than the format has. */
static inline double burin_c_sqrt(double a) {
  const uint64_t u = burin_c_bits64(a), inf = (uint64_t)0x7ff << 52, hidden = (uint64_t)1 << 52;
  uint64_t q = 0, rest = 0, m = u & (hidden - 1);
  int e = (int)(u >> 52) - 1023, k;
  if (u << 1 == 0 || (u & ~((uint64_t)1 << 63)) > inf || u == inf) return a;
  if (u >> 63) return burin_c_double(inf | hidden >> 1);
  if (u >> 52)
    m |= hidden;
  else
    for (e = -1022; !(m & hidden); e--) m <<= 1;
  if (e & 1) m <<= 1, e--;         /* m in [1, 4) with 52 bits behind the point */
  for (k = 52; k >= -54; k -= 2) { /* two bits of m for one of q */
    rest = rest << 2 | (k >= 0 ? m >> k & 3 : 0);
    q <<= 1;
    if (rest > q << 1) rest -= (q << 1) | 1, q |= 1;
  }
  q = (q >> 1) + ((q & 1) && (rest || (q & 2)));
  return (double)(int64_t)q * burin_c_double((uint64_t)(e / 2 - 52 + 1023) << 52);
}
static inline float burin_c_sqrtf(float a) { return (float)burin_c_sqrt(a); }
static inline float burin_c_floorf(float a) { return (float)burin_c_floor(a); }
static inline float burin_c_ceilf(float a) { return (float)burin_c_ceil(a); }
static inline float burin_c_truncf(float a) { return (float)burin_c_trunc(a); }
static inline float burin_c_rintf(float a) { return (float)burin_c_rint(a); }

/* ---- floats below 32 bits: codes are without the sign bit ---- */
typedef struct BurinFormat {
  int bits, mant, bias;
  uint32_t max, inf, nan;       /* inf 0: none (overflow gives nan, or max where there is none) */
  int unsigned_zero, saturates; /* the code of -0 means NaN */
} BurinFormat;
static inline const BurinFormat *burin_c_format(int dtype) { /* by TensorProto.DataType */
  static const BurinFormat f16 = {16, 10, 15, 0x7bff, 0x7c00, 0x7e00, 0, 0},
                           bf16 = {16, 7, 127, 0x7f7f, 0x7f80, 0x7fc0, 0, 0},
                           e4m3fn = {8, 3, 7, 0x7e, 0, 0x7f, 0, 1},
                           e4m3fnuz = {8, 3, 8, 0x7f, 0, 0x80, 1, 1},
                           e5m2 = {8, 2, 15, 0x7b, 0x7c, 0x7e, 0, 1},
                           e5m2fnuz = {8, 2, 16, 0x7f, 0, 0x80, 1, 1},
                           e2m1 = {4, 1, 1, 7, 0, 0, 0, 1};
  switch (dtype) {
    case 10: return &f16;
    case 16: return &bf16;
    case 17: return &e4m3fn;
    case 18: return &e4m3fnuz;
    case 19: return &e5m2;
    case 20: return &e5m2fnuz;
    default: return &e2m1;
  }
}
static inline double burin_c_power(int e) { return burin_c_double((uint64_t)(e + 1023) << 52); }
/* Scale-only format: exponent, no zero, no sign. */
static inline uint32_t burin_c_encode_scale(double v, int saturate) {
  const uint64_t m = burin_c_bits64(v) & ~((uint64_t)1 << 63);
  int e;
  if (m >= (uint64_t)0x7ff << 52) return 0xff;
  e = (int)(m >> 52) - 1023 + 127;
  if (m >> 52 == 0) return 0;
  e += (m & (uint64_t)1 << 51) != 0; /* a tie rounds up */
  return e < 0 ? 0 : e <= 254 ? (uint32_t)e : saturate ? 254 : 255;
}
/* Code of |v| rounded to nearest even, which may exceed f->max; v is finite. */
static inline uint64_t burin_c_round_code(const BurinFormat *f, uint64_t magnitude) {
  const int e = (int)(magnitude >> 52) - 1023, lowest = 1 - f->bias;
  const uint64_t m = (magnitude & (((uint64_t)1 << 52) - 1)) | (uint64_t)1 << 52;
  const int shift = 52 - f->mant + (e < lowest ? lowest - e : 0);
  uint64_t rest, half, q;
  if (e == -1023 || shift > 53) return 0;
  rest = m & (((uint64_t)1 << shift) - 1);
  half = (uint64_t)1 << (shift - 1);
  q = m >> shift;
  q += rest > half || (rest == half && (q & 1));
  return e < lowest ? q : ((uint64_t)(e - lowest) << f->mant) + q;
}
static inline uint32_t burin_c_encode(int dtype, double v, int saturate) {
  const BurinFormat *const f = burin_c_format(dtype);
  const uint64_t u = burin_c_bits64(v), m = u & ~((uint64_t)1 << 63), inf = (uint64_t)0x7ff << 52;
  const uint32_t sign = (uint32_t)(u >> 63) << (f->bits - 1);
  uint64_t code;
  if (dtype == 24) return burin_c_encode_scale(v, saturate);
  if (m > inf) return f->nan ? (f->unsigned_zero ? f->nan : f->nan | sign) : 8; /* no NaN: -0 */
  code = m == inf ? UINT64_MAX : burin_c_round_code(f, m);
  if (code == 0) return f->unsigned_zero ? 0 : sign;
  if (code <= f->max) return (uint32_t)code | sign;
  if ((saturate && f->saturates) || !f->nan) return f->max | sign;
  if (f->inf) return f->inf | sign;
  return f->unsigned_zero ? f->nan : f->nan | sign;
}
static inline float burin_c_decode(int dtype, uint32_t code) {
  const BurinFormat *const f = burin_c_format(dtype);
  const uint32_t sign_bit = (uint32_t)1 << (f->bits - 1), m = code & (sign_bit - 1);
  const float nan = burin_c_float(0x7fc00000u);
  double r;
  if (dtype == 24) return code == 0xff ? nan : (float)burin_c_power((int)code - 127);
  if (f->unsigned_zero && code == f->nan) return nan;
  if (m > f->max && m != f->inf) return nan;
  if (m > f->max)
    r = burin_c_double((uint64_t)0x7ff << 52);
  else if (m >> f->mant == 0)
    r = (double)m * burin_c_power(1 - f->bias - f->mant);
  else
    r = (double)((m & (((uint32_t)1 << f->mant) - 1)) | (uint32_t)1 << f->mant) *
        burin_c_power((int)(m >> f->mant) - f->bias - f->mant);
  return (float)(code & sign_bit ? burin_c_neg(r) : r);
}
/* A result of arithmetic, or a number, as a value of the type. */
static inline float burin_c_round(int dtype, double v, int saturate) {
  return burin_c_decode(dtype, burin_c_encode(dtype, v, saturate));
}
/* Integers round once on their way to small formats: what does not fit a double goes into one
 * bit. */
static inline double burin_c_from_i64(int64_t v) {
  const int64_t wide = (int64_t)1 << 52, low = 0xffff;
  if (v >= wide || v <= -wide) v = (v & ~low) | (v & low ? 0x8000 : 0);
  return (double)v;
}
static inline double burin_c_from_u64(uint64_t v) {
  const uint64_t low = 0xffff;
  if (v >> 52) v = (v & ~low) | (v & low ? 0x8000 : 0);
  return (double)v;
}
