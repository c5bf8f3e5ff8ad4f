/* Text in and out without libc: a small formatter over a buffer, and numbers read from arguments.
 */
#include "program.h"

void out_flush(Out *o) {
  for (uint32_t done = 0; done < o->used;) {
    const long n = sys_write(o->fd, o->buffer + done, o->used - done);
    if (n <= 0 && n != -SYS_EINTR) {
      if (!o->error) o->error = n < 0 ? n : -SYS_EIO;
      break;
    }
    if (n > 0) done += (uint32_t)n;
  }
  o->used = 0;
}

static void put(Out *o, char c) {
  if (o->used == sizeof o->buffer) out_flush(o);
  o->buffer[o->used++] = c;
}

/* Control characters of names from files must not reach a terminal. */
static void put_padded(Out *o, const char *s, size_t n, int width, bool left) {
  for (size_t i = n; !left && i < (size_t)width; i++) put(o, ' ');
  for (size_t i = 0; i < n; i++) put(o, (unsigned char)s[i] < ' ' || s[i] == 127 ? '?' : s[i]);
  for (size_t i = n; left && i < (size_t)width; i++) put(o, ' ');
}

static char *digits(char *end, uint64_t v) { /* written backwards from end */
  do *--end = (char)('0' + v % 10);
  while (v /= 10);
  return end;
}

/* Six significant digits like %g; trailing zeros are dropped. Returns the length. */
static size_t format_double(char *out, double v) {
  char *s = out;
  if (v != v) return out[0] = 'n', out[1] = 'a', out[2] = 'n', 3;
  if (v < 0 || (v == 0 && 1 / v < 0)) *s++ = '-', v = -v;
  if (v > 1.7976931348623157e308) return s[0] = 'i', s[1] = 'n', s[2] = 'f', (size_t)(s + 3 - out);
  int e = 0;
  if (v > 0) {
    for (; v >= 1e10; e += 10) v *= 1e-10;
    for (; v >= 10; e++) v *= 0.1;
    for (; v < 1e-9; e -= 10) v *= 1e10;
    for (; v < 1; e--) v *= 10;
  }
  uint64_t m = (uint64_t)(v * 1e5 + 0.5);
  if (m >= 1000000) m /= 10, e++;
  char d[24];
  char *const end = d + sizeof d, *first = digits(end, m);
  for (; first > end - 6;) *--first = '0';
  int n = 6;
  while (n > 1 && first[n - 1] == '0') n--;
  const bool scientific = e < -5 || e > 5;
  const int point = scientific ? 1 : e + 1; /* digits before the point */
  for (int i = point; i <= 0; i++) {
    *s++ = '0';
    if (i == point) *s++ = '.';
  }
  for (int i = 0; i < n || i < point; i++) {
    if (i == point && i > 0) *s++ = '.';
    *s++ = i < 6 ? first[i] : '0';
  }
  if (!scientific) return (size_t)(s - out);
  *s++ = 'e';
  *s++ = e < 0 ? '-' : '+';
  char *x = digits(end, (uint64_t)(e < 0 ? -e : e));
  if (end - x < 2) *s++ = '0';
  while (x < end) *s++ = *x++;
  return (size_t)(s - out);
}

void out_format_list(Out *o, const char *f, va_list args) {
  for (; *f; f++) {
    if (*f != '%' || *++f == '%') {
      put(o, *f);
      continue;
    }
    const bool left = *f == '-';
    int width = 0;
    for (f += left; *f >= '0' && *f <= '9'; f++) width = width * 10 + *f - '0';
    char text[48], *s = text;
    size_t n = 0;
    switch (*f) {
      case 's':
        s = va_arg(args, char *);
        n = text_length(s);
        break;
      case 'g': n = format_double(text, va_arg(args, double)); break;
      default: {
        const uint64_t v = va_arg(args, uint64_t);
        const bool minus = *f == 'd' && (int64_t)v < 0;
        s = digits(text + sizeof text, minus ? 0 - v : v);
        if (minus) *--s = '-';
        n = (size_t)(text + sizeof text - s);
      }
    }
    put_padded(o, s, n, width, left);
  }
}

void out_text(Out *o, const char *s, size_t n) { put_padded(o, s, n, 0, true); }

void out_format(Out *o, const char *format, ...) {
  va_list args;
  va_start(args, format);
  out_format_list(o, format, args);
  va_end(args);
}

void program_report(Program *p, const char *format, ...) {
  va_list args;
  va_start(args, format);
  out_format(&p->err, "%s: error: ", p->self);
  out_format_list(&p->err, format, args);
  out_format(&p->err, "\n");
  va_end(args);
}

size_t text_length(const char *s) {
  size_t n = 0;
  while (s[n]) n++;
  return n;
}

bool text_equal(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

bool text_starts(const char *s, const char *prefix, const char **rest) {
  for (; *prefix; s++, prefix++)
    if (*s != *prefix) return false;
  *rest = s;
  return true;
}

bool text_ends(const char *s, const char *suffix) {
  const size_t n = text_length(s), m = text_length(suffix);
  return n >= m && text_equal(s + n - m, suffix);
}

bool text_int(const char **s, int64_t *value) {
  const char *c = *s;
  const bool minus = *c == '-';
  c += minus;
  int64_t v = 0;
  if (*c < '0' || *c > '9') return false;
  for (; *c >= '0' && *c <= '9'; c++)
    if (__builtin_mul_overflow(v, (int64_t)10, &v) ||
        __builtin_add_overflow(v, (int64_t)(*c - '0'), &v))
      return false;
  *value = minus ? -v : v;
  *s = c;
  return true;
}

static bool decimal(const char **s, double *value) {
  const char *c = *s;
  const bool minus = *c == '-';
  c += minus;
  double v = 0;
  int64_t shift = 0, e = 0;
  bool any = false;
  for (; *c >= '0' && *c <= '9'; c++, any = true) v = v * 10 + (*c - '0');
  if (*c == '.')
    for (c++; *c >= '0' && *c <= '9'; c++, any = true, shift--) v = v * 10 + (*c - '0');
  if (!any) return false;
  if (*c == 'e' || *c == 'E') {
    c++;
    c += *c == '+';
    if (!text_int(&c, &e)) return false;
  }
  shift += e > 400 ? 400 : e < -400 ? -400 : e;
  double power = 1;
  for (int64_t i = shift < 0 ? -shift : shift; i > 0; i--) power *= 10;
  *value = (minus ? -1 : 1) * (shift < 0 ? v / power : v * power);
  *s = c;
  return true;
}

bool text_double(const char **s, double *value) {
  double divisor = 1;
  if (!decimal(s, value)) return false;
  if (**s != '/') return true;
  ++*s;
  if (!decimal(s, &divisor) || divisor == 0) return false;
  *value /= divisor;
  return true;
}
