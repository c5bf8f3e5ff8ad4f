/* Decimal text of floats, exactly: numbers are integers of many words, times powers of 2 and 10, so
 * that reading rounds once, to nearest even, and writing finds the fewest digits that read back as
 * the same number. Simple rather than fast (Clinger, "How to Read Floating Point Numbers
 * Accurately", 1990; Steele and White, "How to Print Floating-Point Numbers Accurately", 1990). */
#include "runtime/ops/ops.h"
#include "runtime/text/text.h"

enum {
  WORDS = 160,  /* 5120 bits: 10^(DIGITS + MOST_POWER) × 2^1100 */
  DIGITS = 800, /* that can matter for a double; a rest that is not 0 counts as one more */
  MOST_POWER = 400
};

typedef struct Big { /* low word first */
  uint32_t w[WORDS];
  int n;
} Big;

static void big_multiply_add(Big *a, uint32_t factor, uint32_t add) {
  uint64_t carry = add;
  for (int i = 0; i < a->n; i++) {
    carry += (uint64_t)a->w[i] * factor;
    a->w[i] = (uint32_t)carry;
    carry >>= 32;
  }
  if (carry && a->n < WORDS) a->w[a->n++] = (uint32_t)carry;
}

static void big_power_of_ten(Big *a, int e) {
  for (; e >= 9; e -= 9) big_multiply_add(a, 1000000000u, 0);
  for (; e > 0; e--) big_multiply_add(a, 10, 0);
}

static void big_shift(Big *a, int bits) {
  for (; bits >= 31; bits -= 31) big_multiply_add(a, 1u << 31, 0);
  if (bits > 0) big_multiply_add(a, 1u << bits, 0);
}

static void big_set(Big *a, uint64_t v) {
  a->n = 0;
  for (; v; v >>= 32) a->w[a->n++] = (uint32_t)v;
}

static int big_compare(const Big *a, const Big *b) {
  if (a->n != b->n) return a->n < b->n ? -1 : 1;
  for (int i = a->n - 1; i >= 0; i--)
    if (a->w[i] != b->w[i]) return a->w[i] < b->w[i] ? -1 : 1;
  return 0;
}

/* ---- doubles and floats as integers ---- */
typedef struct Format {
  int mantissa; /* bits, the hidden one included */
  int least;    /* exponent of the last bit of a subnormal */
  int most;     /* exponent of the last bit of the largest */
} Format;

static const Format *format_of(int32_t type) {
  static const Format f64 = {53, -1074, 971}, f32 = {24, -149, 104}, f16 = {11, -24, 5},
                      bf16 = {8, -133, 120};
  return type == RT_F64 ? &f64 : type == RT_F16 ? &f16 : type == RT_BF16 ? &bf16 : &f32;
}

static double scaled(uint64_t m, int e) { /* m × 2^e, exact */
  double v = (double)m;
  for (; e > 0; e--) v *= 2;
  for (; e < 0; e++) v *= 0.5;
  return v;
}

/* v = *m × 2^*e with as many bits as the format has. */
static void split_number(double v, const Format *f, uint64_t *m, int *e) {
  const union {
    double d;
    uint64_t u;
  } bits = {v};
  const int exponent = (int)(bits.u >> 52 & 0x7ff);
  *m = bits.u & ((1ull << 52) - 1);
  *e = exponent ? exponent - 1075 : -1074;
  if (exponent) *m |= 1ull << 52;
  while (*e < f->least || *m >> f->mantissa) *m >>= 1, ++*e; /* exact: v is of the format */
  while (!(*m >> (f->mantissa - 1)) && *e > f->least && *m) *m <<= 1, --*e;
}

/* ---- reading ---- */
/* Compares digits × 10^power with m2 × 2^e, m2 up to 2^55. */
static int compare_decimal(const Big *digits, int power, uint64_t m2, int e) {
  Big a = *digits, b;
  big_set(&b, m2);
  if (power > 0) big_power_of_ten(&a, power);
  if (power < 0) big_power_of_ten(&b, -power);
  if (e > 0) big_shift(&b, e);
  if (e < 0) big_shift(&a, -e);
  return big_compare(&a, &b);
}

/* The least mantissa at exponent e whose value, or whose middle to the next, is not below. */
static double nearest(const Big *digits, int power, const Format *f) {
  int low = f->least, high = f->most + 1;
  while (low < high) { /* the first exponent at which the number fits the mantissa */
    const int mid = low + (high - low) / 2;
    if (compare_decimal(digits, power, (2ull << f->mantissa) - 1, mid - 1) >= 0)
      low = mid + 1; /* at least half a unit more than the largest mantissa */
    else
      high = mid;
  }
  if (low > f->most) return __builtin_inf();
  uint64_t a = 0, b = (1ull << f->mantissa) - 1;
  while (a < b) { /* the least m with number <= (m + 1/2) × 2^low */
    const uint64_t mid = a + (b - a) / 2;
    if (compare_decimal(digits, power, 2 * mid + 1, low - 1) <= 0)
      b = mid;
    else
      a = mid + 1;
  }
  if (a & 1 && compare_decimal(digits, power, 2 * a + 1, low - 1) == 0) a++;
  return scaled(a, low);
}

static char lower_ascii(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static bool is_spelled(TextView t, const char *word) {
  uint64_t i = 0;
  for (; word[i]; i++)
    if (i == t.length || lower_ascii(t.bytes[i]) != word[i]) return false;
  return i == t.length;
}

static bool is_blank(char c) { return c == ' ' || (c >= 9 && c <= 13); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Digits with a point and an exponent as digits × 10^power. */
static bool take_digits(TextView t, Big *digits, int64_t *power) {
  uint64_t i = 0;
  int taken = 0, n = 0;
  bool point = false, rest = false;
  *power = 0;
  big_set(digits, 0);
  for (; i < t.length && (is_digit(t.bytes[i]) || (t.bytes[i] == '.' && !point)); i++) {
    if (t.bytes[i] == '.') {
      point = true;
      continue;
    }
    n++;
    if (taken < DIGITS) {
      big_multiply_add(digits, 10, (uint32_t)(t.bytes[i] - '0'));
      taken += digits->n > 0;
      *power -= point;
    } else {
      rest |= t.bytes[i] != '0';
      *power += !point;
    }
  }
  if (rest) {
    big_multiply_add(digits, 10, 1);
    --*power;
  }
  if (!n) return false;
  if (i == t.length) return true;
  if (lower_ascii(t.bytes[i++]) != 'e') return false;
  const bool minus = i < t.length && t.bytes[i] == '-';
  if (i < t.length && (minus || t.bytes[i] == '+')) i++;
  int64_t e = 0;
  if (i == t.length) return false;
  for (; i < t.length; i++) {
    if (!is_digit(t.bytes[i])) return false;
    if (e < 100000000) e = 10 * e + t.bytes[i] - '0';
  }
  *power += minus ? -e : e;
  return true;
}

/* Where mantissa and power of ten are exact doubles, their product or quotient is rounded once
 * (Clinger). */
static bool is_exact(const Big *digits, int64_t power, int32_t type) {
  return type == RT_F64 && power >= -22 && power <= 22 && digits->n <= 2 &&
         (digits->n < 2 || digits->w[1] < 1u << 21);
}

static double exact_value(const Big *digits, int64_t power) {
  double ten = 1, v = (double)((digits->n > 1 ? (uint64_t)digits->w[1] << 32 : 0) | digits->w[0]);
  for (int64_t i = power < 0 ? -power : power; i > 0; i--) ten *= 10;
  return power < 0 ? v / ten : v * ten;
}

bool decimal_read(TextView t, int32_t type, double *value) {
  while (t.length && is_blank(t.bytes[0])) t.bytes++, t.length--;
  while (t.length && is_blank(t.bytes[t.length - 1])) t.length--;
  const bool minus = t.length && t.bytes[0] == '-';
  if (t.length && (minus || t.bytes[0] == '+')) t.bytes++, t.length--;
  Big digits;
  int64_t power;
  if (is_spelled(t, "inf") || is_spelled(t, "infinity"))
    *value = __builtin_inf();
  else if (is_spelled(t, "nan"))
    *value = __builtin_nan("");
  else if (!take_digits(t, &digits, &power))
    return false;
  else if (!digits.n || power < -MOST_POWER - DIGITS)
    *value = 0;
  else if (power > MOST_POWER)
    *value = __builtin_inf();
  else if (is_exact(&digits, power, type))
    *value = exact_value(&digits, power);
  else
    *value = nearest(&digits, (int)power, format_of(type));
  if (minus) *value = -*value;
  return true;
}

/* ---- writing ---- */
/* v > 0 rounded to n digits, d[0] not '0': its value is d × 10^(*power). */
static void round_digits(double v, const Format *f, int n, char *d, int *power) {
  Big digits;
  uint64_t m;
  int e, ten = 0;
  split_number(v, f, &m, &e);
  /* ten: the largest with 10^ten <= v; the estimate is at most one too small */
  for (double x = v; x >= 10; x /= 10) ten++;
  for (double x = v; x < 1; x *= 10) ten--;
  for (int round = -1; round <= 1; round++) {
    big_set(&digits, 1);
    if (compare_decimal(&digits, ten + 1, m, e) <= 0)
      ten++;
    else if (compare_decimal(&digits, ten, m, e) > 0)
      ten--;
  }
  *power = ten - n + 1;
  uint64_t low = 0, high = 1;
  for (int i = 0; i < n; i++) high *= 10;
  while (low < high) { /* the least integer k with v <= (k + 1/2) × 10^power */
    const uint64_t mid = low + (high - low) / 2;
    big_set(&digits, 2 * mid + 1);
    if (compare_decimal(&digits, *power, m, e + 1) >= 0)
      high = mid;
    else
      low = mid + 1;
  }
  big_set(&digits, 2 * low + 1);
  if (low & 1 && compare_decimal(&digits, *power, m, e + 1) == 0) low++;
  for (int i = n - 1; i >= 0; i--, low /= 10) d[i] = (char)('0' + low % 10);
  if (low) { /* 9.99 became 10.0 */
    for (int i = n - 1; i > 0; i--) d[i] = d[i - 1];
    d[0] = '1';
    ++*power;
  }
}

static double digits_value(const char *d, int n, int power, const Format *f) {
  Big digits;
  big_set(&digits, 0);
  for (int i = 0; i < n; i++) big_multiply_add(&digits, 10, (uint32_t)(d[i] - '0'));
  return nearest(&digits, power, f);
}

static int put_text(char *out, const char *s) {
  int n = 0;
  for (; s[n]; n++) out[n] = s[n];
  return n;
}

/* d[0] . d[1] … × 10^e */
static int put_scientific(char *out, const char *d, int n, int e) {
  int at = 0;
  out[at++] = d[0];
  if (n > 1) out[at++] = '.';
  for (int i = 1; i < n; i++) out[at++] = d[i];
  out[at++] = 'e';
  out[at++] = e < 0 ? '-' : '+';
  if (e < 0) e = -e;
  if (e >= 100) out[at++] = (char)('0' + e / 100);
  out[at++] = (char)('0' + e / 10 % 10);
  out[at++] = (char)('0' + e % 10);
  return at;
}

int decimal_write(double v, int32_t type, char out[DECIMAL_MAX]) {
  const Format *const f = format_of(type);
  char d[20];
  int n = 1, power = 0, at = 0;
  if (v != v) return put_text(out, "NaN");
  const bool minus = v < 0 || (v == 0 && 1 / v < 0);
  if (minus) out[at++] = '-', v = -v;
  if (v > 1.7976931348623157e308) return at + put_text(out + at, "INF");
  if (v == 0) return at + put_text(out + at, "0.0");
  for (;; n++) {
    round_digits(v, f, n, d, &power);
    if (n == 17 || digits_value(d, n, power, f) == v) break;
  }
  const int e = power + n - 1; /* of the first digit */
  if (e < -4 || e >= 16) return at + put_scientific(out + at, d, n, e);
  if (e < 0) {
    at += put_text(out + at, "0.");
    for (int i = -1; i > e; i--) out[at++] = '0';
  }
  for (int i = 0; i < n || i <= e; i++) {
    if (i && i == e + 1 && e >= 0) out[at++] = '.';
    out[at++] = i < n ? d[i] : '0';
  }
  if (n <= e + 1) at += put_text(out + at, ".0");
  return at;
}
