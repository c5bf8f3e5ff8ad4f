/* Element types: lookup, and conversion of single elements between storage and double / int64. All
 * small floats go through one pair of functions driven by their format row. */
#include "ir/base/dtype.h"
#include <math.h>
#include <string.h>

const DTypeRow dtype_rows[DT_COUNT] = {
    [DT_NONE] = {"none", 0, 0, DC_NONE, DT_NONE},
#define T(id, text, onnx, bits, class, compute) \
  [DT_##id] = {text, onnx, bits, DC_##class, DT_##compute},
#include "ir/base/dtypes.def"
#undef T
};

DType dtype_from_onnx(int64_t onnx) {
  for (int t = 1; t < DT_COUNT; t++)
    if (dtype_rows[t].onnx == onnx) return (DType)t;
  return DT_NONE;
}

DType dtype_from_text(const char *s) {
  for (int t = 1; t < DT_COUNT; t++)
    if (!strcmp(dtype_rows[t].text, s)) return (DType)t;
  return DT_NONE;
}

/* A float format below 32 bits. Codes are without the sign bit; `inf` 0: none (overflow gives
 * `nan`, or `max` where there is no NaN either). `unsigned_zero`: the code of -0 means NaN. */
typedef struct FloatFormat {
  int mant, bias;
  uint16_t max, inf, nan;
  bool unsigned_zero, saturates;
} FloatFormat;

static const FloatFormat formats[DT_COUNT] = {
    [DT_F16] = {10, 15, 0x7bff, 0x7c00, 0x7e00, false, false},
    [DT_BF16] = {7, 127, 0x7f7f, 0x7f80, 0x7fc0, false, false},
    [DT_F8E4M3FN] = {3, 7, 0x7e, 0, 0x7f, false, true},
    [DT_F8E4M3FNUZ] = {3, 8, 0x7f, 0, 0x80, true, true},
    [DT_F8E5M2] = {2, 15, 0x7b, 0x7c, 0x7e, false, true},
    [DT_F8E5M2FNUZ] = {2, 16, 0x7f, 0, 0x80, true, true},
    [DT_F4E2M1] = {1, 1, 0x7, 0, 0, false, true},
};

static uint64_t double_bits(double v) {
  uint64_t u;
  memcpy(&u, &v, 8);
  return u;
}

static double bits_double(uint64_t u) {
  double v;
  memcpy(&v, &u, 8);
  return v;
}

/* Code (no sign) of |v| rounded to nearest even; may exceed f->max. v is finite. */
static uint64_t round_code(const FloatFormat *f, uint64_t magnitude) {
  const int e = (int)(magnitude >> 52) - 1023, lowest = 1 - f->bias;
  if (e == -1023) return 0; /* zero, or a double subnormal */
  const uint64_t m = (magnitude & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
  const int shift = 52 - f->mant + (e < lowest ? lowest - e : 0);
  if (shift > 53) return 0;
  const uint64_t rem = m & ((UINT64_C(1) << shift) - 1), half = UINT64_C(1) << (shift - 1);
  uint64_t q = m >> shift;
  q += rem > half || (rem == half && (q & 1));
  return e < lowest ? q : ((uint64_t)(e - lowest) << f->mant) + q;
}

/* Scale-only format: exponent, no zero; the sign is ignored; 0xff is NaN, and infinity becomes
 * it. */
static uint16_t encode_e8m0(double v, bool saturate) {
  if (isnan(v) || isinf(v)) return 0xff;
  if (v == 0) return 0;
  int e;
  const double m = frexp(fabs(v), &e); /* |v| = m * 2^e, m in [0.5, 1); a tie at 0.75 rounds up */
  e += 126 + (m >= 0.75);
  return e < 0 ? 0 : e <= 254 ? (uint16_t)e : saturate ? 254 : 255;
}

uint16_t dtype_encode(DType t, double v, bool saturate) {
  if (t == DT_F8E8M0) return encode_e8m0(v, saturate);
  const FloatFormat *const f = &formats[t];
  const uint64_t bits = double_bits(v), magnitude = bits & ~(UINT64_C(1) << 63);
  const uint16_t sign = (uint16_t)(bits >> 63 << (dtype_rows[t].bits - 1));
  if (isnan(v)) return f->nan ? (f->unsigned_zero ? f->nan : f->nan | sign) : 8; /* no NaN: -0 */
  const uint64_t code = isinf(v) ? UINT64_MAX : round_code(f, magnitude);
  if (code == 0) return f->unsigned_zero ? 0 : sign;
  if (code <= f->max) return (uint16_t)(code | sign);
  if ((saturate && f->saturates) || !f->nan) return f->max | sign;
  if (f->inf) return f->inf | sign;
  return f->unsigned_zero ? f->nan : f->nan | sign;
}

double dtype_decode(DType t, uint16_t code) {
  if (t == DT_F8E8M0) return code == 0xff ? NAN : ldexp(1, (int)code - 127);
  const FloatFormat *const f = &formats[t];
  const uint16_t sign_bit = (uint16_t)(1u << (dtype_rows[t].bits - 1));
  const uint16_t magnitude = code & (uint16_t)(sign_bit - 1);
  const uint64_t sign = (uint64_t)((code & sign_bit) != 0) << 63;
  if (f->unsigned_zero && code == f->nan) return NAN;
  if (magnitude > f->max)
    return magnitude == f->inf ? bits_double(sign | UINT64_C(0x7ff) << 52) : NAN;
  const int e = magnitude >> f->mant, m = magnitude & ((1 << f->mant) - 1);
  if (e == 0) return (sign ? -1.0 : 1.0) * ldexp(m, 1 - f->bias - f->mant);
  return bits_double(sign | (uint64_t)(e - f->bias + 1023) << 52 | (uint64_t)m << (52 - f->mant));
}

double dtype_round(DType t, double v, bool saturate) {
  if (t == DT_F64) return v;
  if (t == DT_F32) return (float)v;
  return dtype_decode(t, dtype_encode(t, v, saturate));
}

/* Wraps to the width of t and extends again by its sign. */
int64_t dtype_wrap(DType t, int64_t v) {
  const int bits = dtype_rows[t].bits;
  if (t == DT_BOOL) return v != 0;
  if (bits >= 64) return v;
  const uint64_t low = (uint64_t)v & ((UINT64_C(1) << bits) - 1);
  if (dtype_rows[t].cls == DC_UINT) return (int64_t)low;
  return (int64_t)(low << (64 - bits)) >> (64 - bits);
}

int64_t double_to_i64(double v) {
  if (v != v) return 0;
  if (v >= 0x1p63) return INT64_MAX;
  return v < -0x1p63 ? INT64_MIN : (int64_t)v;
}

int64_t dtype_load_i(DType t, const void *p) {
  if (dtype_is_float(t)) return double_to_i64(dtype_load_f(t, p));
  uint64_t u = 0;
  memcpy(&u, p,
         (size_t)dtype_bytes(t) > 8 ? 8 : (size_t)dtype_bytes(t)); /* little endian hosts only */
  return dtype_wrap(t, (int64_t)u);
}

void dtype_store_i(DType t, void *p, int64_t v) {
  if (dtype_is_float(t)) {
    dtype_store_f(t, p, (double)v);
    return;
  }
  const int64_t w = dtype_wrap(t, v);
  memcpy(p, &w, (size_t)dtype_bytes(t) > 8 ? 8 : (size_t)dtype_bytes(t));
}

double dtype_load_f(DType t, const void *p) {
  float f;
  double d;
  uint16_t code = 0;
  if (t == DT_F32) return memcpy(&f, p, 4), f;
  if (t == DT_F64) return memcpy(&d, p, 8), d;
  if (t == DT_U64) return (double)(uint64_t)dtype_load_i(t, p);
  if (!dtype_is_float(t)) return (double)dtype_load_i(t, p);
  memcpy(&code, p, (size_t)dtype_bytes(t));
  return dtype_decode(t, code);
}

static int64_t double_to_int(DType t, double v) {
  if (t == DT_U64 && v >= 0x1p63) return v < 0x1p64 ? (int64_t)(uint64_t)v : -1;
  return double_to_i64(v);
}

void dtype_store_f(DType t, void *p, double v) {
  if (t == DT_F32) {
    const float f = (float)v;
    memcpy(p, &f, 4);
  } else if (t == DT_F64) {
    memcpy(p, &v, 8);
  } else if (t == DT_BOOL) {
    dtype_store_i(t, p, v != 0);
  } else if (!dtype_is_float(t)) {
    dtype_store_i(t, p, double_to_int(t, v));
  } else {
    const bool keep =
        formats[t].inf && isinf(v); /* an infinity of the type is a value like others */
    const uint16_t code = dtype_encode(t, v, !keep);
    memcpy(p, &code, (size_t)dtype_bytes(t));
  }
}
