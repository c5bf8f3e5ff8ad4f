/* UTF-8 and the case of letters. Code points with a mapping stand in runs of one difference
 * (letter_runs.h), searched by halves. */
#include "runtime/text/letter_runs.h"
#include "runtime/text/text.h"

static uint32_t change_case(const CaseRun *runs, size_t n, uint32_t c) {
  size_t low = 0, high = n;
  while (low < high) { /* the first run that ends at c or behind it */
    const size_t mid = (low + high) / 2;
    if (runs[mid].last < c)
      low = mid + 1;
    else
      high = mid;
  }
  if (low == n || c < runs[low].first || (c - runs[low].first) % (uint32_t)runs[low].step) return c;
  return (uint32_t)((int32_t)c + runs[low].difference);
}

uint32_t code_point_lower(uint32_t c) {
  return change_case(lower_runs, sizeof lower_runs / sizeof *lower_runs, c);
}

uint32_t code_point_upper(uint32_t c) {
  return change_case(upper_runs, sizeof upper_runs / sizeof *upper_runs, c);
}

#define NOT_UTF8 0x80000000u

uint32_t utf8_read(const char *s, uint64_t n, int *bytes) {
  const uint8_t *const u = (const uint8_t *)s;
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  const int length = u[0] < 0x80       ? 1
                     : u[0] >> 5 == 6  ? 2
                     : u[0] >> 4 == 14 ? 3
                     : u[0] >> 3 == 30 ? 4
                                       : 0;
  *bytes = 1;
  if (length == 1) return u[0];
  if (!length || (uint64_t)length > n) return NOT_UTF8 | u[0];
  uint32_t c = u[0] & (0x7fu >> length);
  for (int i = 1; i < length; i++) {
    if (u[i] >> 6 != 2) return NOT_UTF8 | u[0];
    c = c << 6 | (u[i] & 0x3f);
  }
  if (c < least[length] || c > 0x10ffff) return NOT_UTF8 | u[0];
  *bytes = length;
  return c;
}

int utf8_write(uint32_t c, char out[4]) {
  if (c & NOT_UTF8 || c < 0x80) return out[0] = (char)c, 1;
  const int length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (int i = length - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
  out[0] = (char)(0xf00u >> length | c);
  return length;
}
