/* Cast between strings and numbers. */
#include "runtime/ops/ops.h"
#include "runtime/text/text.h"

/* Only digits behind an optional sign, within 64 bits. */
static bool read_integer(TextView t, bool is_unsigned, int64_t *value) {
  uint64_t v = 0, i = t.length && (t.bytes[0] == '-' || t.bytes[0] == '+');
  const bool minus = i && t.bytes[0] == '-';
  const uint64_t most = minus ? 1ull << 63 : is_unsigned ? UINT64_MAX : INT64_MAX;
  if (i == t.length) return false;
  for (; i < t.length; i++) {
    if (t.bytes[i] < '0' || t.bytes[i] > '9') return false;
    if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
        __builtin_add_overflow(v, (uint64_t)(t.bytes[i] - '0'), &v) || v > most)
      return false;
  }
  *value = (int64_t)(minus ? 0 - v : v);
  return true;
}

/* A float below 2^63 in size, toward zero. */
static bool read_truncated(TextView t, int64_t *value) {
  double v;
  if (!decimal_read(t, RT_F64, &v) || !(v > -9.3e18 && v < 9.3e18)) return false;
  if (v >= 9223372036854775808.0 || v < -9223372036854775808.0) return false;
  *value = (int64_t)v;
  return true;
}

int32_t rt_string_to_number(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                            const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  for (int64_t i = 0; i < rt_count(in); i++) {
    const TextView t = strings_get(&s, ((const int64_t *)in->data)[i]);
    double v;
    int64_t k;
    if (rt_is_float(out->dtype)) {
      if (!decimal_read(t, out->dtype, &v)) return BURIN_E_DATA;
      rt_store_f(out, i, v);
    } else {
      if (!read_integer(t, out->dtype == RT_U64, &k) && !read_truncated(t, &k)) return BURIN_E_DATA;
      rt_store_i(out, i, out->dtype == RT_BOOL ? k != 0 : k);
    }
  }
  return BURIN_OK;
}

static int write_integer(int64_t v, bool minus, char *out) {
  char digits[24];
  int n = 0, at = 0;
  uint64_t u = minus ? 0 - (uint64_t)v : (uint64_t)v;
  do digits[n++] = (char)('0' + u % 10);
  while (u /= 10);
  if (minus) out[at++] = '-';
  while (n) out[at++] = digits[--n];
  return at;
}

int32_t rt_number_to_string(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                            const int64_t *w, void *scratch) {
  const Strings s = strings_of(&in[n_in - 1], scratch);
  char text[DECIMAL_MAX];
  for (int64_t i = 0; i < rt_count(in); i++) {
    TextView t = {text, 0};
    if (in->dtype == RT_BOOL) {
      t = rt_load_i(in, i) ? (TextView){"True", 4} : (TextView){"False", 5};
    } else if (rt_is_float(in->dtype)) {
      t.length = (uint64_t)decimal_write(rt_load_f(in, i), in->dtype, text);
    } else {
      const int64_t v = rt_load_i(in, i);
      t.length = (uint64_t)write_integer(v, v < 0 && in->dtype != RT_U64, text);
    }
    if ((((int64_t *)out->data)[i] = strings_put(&s, t)) < 0) return BURIN_E_MEMORY;
  }
  return BURIN_OK;
}
