/* Element types: one row each, and single elements as double. Integers beyond 2^53 are only shown
 * and read from text, never computed. */
#include "program.h"

static const NumberType number_rows[] = {
    [1] = {"f32", "<f4", NK_IEEE, 32, 0, 0, 0},
    [2] = {"u8", "|u1", NK_UINT, 8, 0, 0, 0},
    [3] = {"i8", "|i1", NK_SINT, 8, 0, 0, 0},
    [4] = {"u16", "<u2", NK_UINT, 16, 0, 0, 0},
    [5] = {"i16", "<i2", NK_SINT, 16, 0, 0, 0},
    [6] = {"i32", "<i4", NK_SINT, 32, 0, 0, 0},
    [7] = {"i64", "<i8", NK_SINT, 64, 0, 0, 0},
    [8] = {"str", "", NK_TEXT, 8 * sizeof(char *), 0, 0, 0},
    [9] = {"bool", "|b1", NK_BOOL, 8, 0, 0, 0},
    [10] = {"f16", "<f2", NK_FLOAT, 16, 5, 10, 15},
    [11] = {"f64", "<f8", NK_IEEE, 64, 0, 0, 0},
    [12] = {"u32", "<u4", NK_UINT, 32, 0, 0, 0},
    [13] = {"u64", "<u8", NK_UINT, 64, 0, 0, 0},
    [16] = {"bf16", "<V2", NK_FLOAT, 16, 8, 7, 127},
    [17] = {"f8e4m3fn", "|V1", NK_FLOAT, 8, 4, 3, 7},
    [18] = {"f8e4m3fnuz", "|V1", NK_FLOAT, 8, 4, 3, 8},
    [19] = {"f8e5m2", "|V1", NK_FLOAT, 8, 5, 2, 15},
    [20] = {"f8e5m2fnuz", "|V1", NK_FLOAT, 8, 5, 2, 16},
    [21] = {"u4", "|u1", NK_UINT, 4, 0, 0, 0},
    [22] = {"i4", "|i1", NK_SINT, 4, 0, 0, 0},
    [23] = {"f4e2m1", "|V1", NK_FLOAT, 4, 2, 1, 1},
    [24] = {"f8e8m0", "|V1", NK_FLOAT, 8, 8, 0, 127},
    [25] = {"u2", "|u1", NK_UINT, 2, 0, 0, 0},
    [26] = {"i2", "|i1", NK_SINT, 2, 0, 0, 0},
};

const NumberType *number_type(int32_t dtype) {
  if (dtype < 0 || (size_t)dtype >= sizeof number_rows / sizeof *number_rows) return NULL;
  return number_rows[dtype].kind == NK_NONE ? NULL : &number_rows[dtype];
}

size_t number_bytes(const NumberType *t) { return t->bits < 8 ? 1 : t->bits / 8u; }

static double power_of_two(int e) {
  const union {
    uint64_t u;
    double d;
  } bits = {(uint64_t)(e + 1023) << 52};
  return bits.d;
}

static double small_float(const NumberType *t, uint32_t bits) {
  const uint32_t mantissa = bits & ((1u << t->mantissa) - 1);
  const uint32_t exponent = bits >> t->mantissa & ((1u << t->exponent) - 1);
  const bool minus = t->exponent + t->mantissa < t->bits && bits >> (t->bits - 1) & 1;
  const bool ieee = t->bits == 16 || (t->exponent == 5 && t->bias == 15);
  double v;
  if (ieee && exponent == (1u << t->exponent) - 1) {
    v = mantissa ? __builtin_nan("") : __builtin_inf();
  } else if (t->mantissa == 0) {
    v = exponent == 255 ? __builtin_nan("") : power_of_two((int)exponent - t->bias);
  } else if (t->bits == 8 && !ieee && t->bias > 7 && bits == 0x80) {
    v = __builtin_nan(""); /* the fnuz types */
  } else if (t->bias == 7 && (bits & 0x7f) == 0x7f) {
    v = __builtin_nan(""); /* f8e4m3fn */
  } else {
    const double m = mantissa / power_of_two(t->mantissa);
    v = exponent ? (1 + m) * power_of_two((int)exponent - t->bias) : m * power_of_two(1 - t->bias);
  }
  return minus ? -v : v;
}

/* Nearest, ties to even, saturating to infinity; for f16 and bf16, which images and random inputs
 * are stored as. */
static uint32_t to_small_float(const NumberType *t, double v) {
  const uint32_t sign = (v < 0) ? 1u << (t->bits - 1) : 0;
  const uint32_t infinity = ((1u << t->exponent) - 1) << t->mantissa;
  if (v != v) return infinity | 1;
  if (v < 0) v = -v;
  int e = 1 - t->bias;
  for (; e < t->bias && v >= power_of_two(e + 1);) e++;
  const double scaled = v * power_of_two(t->mantissa) / power_of_two(e);
  if (scaled >= power_of_two(t->mantissa + 1)) return sign | infinity;
  uint32_t m = (uint32_t)scaled;
  const double rest = scaled - m;
  m += rest > 0.5 || (rest == 0.5 && (m & 1));
  if (m >> t->mantissa == 0) return sign | m;
  return sign | (((uint32_t)(e + t->bias - 1) << t->mantissa) + m);
}

double number_load(const NumberType *t, const void *data, uint64_t i) {
  const char *p = (const char *)data + i * number_bytes(t);
  if (t->kind == NK_IEEE) return t->bits == 32 ? *(const float *)p : *(const double *)p;
  uint64_t u = 0;
  __builtin_memcpy(&u, p, number_bytes(t));
  if (t->kind == NK_FLOAT) return small_float(t, (uint32_t)u & (uint32_t)((1ull << t->bits) - 1));
  if (t->kind == NK_BOOL) return u != 0;
  if (t->kind == NK_UINT) return (double)u;
  const int shift = 64 - (t->bits < 8 ? 8 : t->bits);
  return (double)((int64_t)(u << shift) >> shift);
}

void number_store(const NumberType *t, void *data, uint64_t i, double v) {
  char *p = (char *)data + i * number_bytes(t);
  if (t->kind == NK_IEEE) {
    if (t->bits == 32)
      *(float *)p = (float)v;
    else
      *(double *)p = v;
    return;
  }
  uint64_t u;
  if (t->kind == NK_FLOAT)
    u = to_small_float(t, v);
  else if (t->kind == NK_BOOL)
    u = v != 0;
  else
    u = v < 0 ? (uint64_t)(int64_t)v : (uint64_t)v;
  __builtin_memcpy(p, &u, number_bytes(t));
}

/* Digits with or without a sign, and nothing else of a number behind them. */
static bool integer_text(const char **s, bool *minus, uint64_t *u) {
  const char *p = *s;
  *minus = *p == '-';
  p += *p == '-' || *p == '+';
  if (*p < '0' || *p > '9') return false;
  for (*u = 0; *p >= '0' && *p <= '9'; p++)
    if (__builtin_mul_overflow(*u, 10u, u) || __builtin_add_overflow(*u, (unsigned)(*p - '0'), u))
      return false;
  if (*p && *p != ',') return false;
  *s = p;
  return true;
}

bool number_parse(const NumberType *t, void *data, uint64_t i, const char **s) {
  const bool is_signed = t->kind == NK_SINT, integer = is_signed || t->kind == NK_UINT;
  bool minus;
  uint64_t u;
  double v;
  const char *p = *s;
  if (!integer || !integer_text(&p, &minus, &u)) {
    const double end = power_of_two(t->bits - is_signed), first = is_signed ? -end : 0;
    if (!text_double(s, &v) || (integer && !(v >= first && v < end))) return false;
    number_store(t, data, i, v);
    return true;
  }
  const uint64_t most = UINT64_MAX >> (64 - t->bits + is_signed);
  if (u > (!minus ? most : is_signed ? most + 1 : 0)) return false;
  if (minus) u = 0 - u;
  __builtin_memcpy((char *)data + i * number_bytes(t), &u, number_bytes(t));
  *s = p;
  return true;
}
