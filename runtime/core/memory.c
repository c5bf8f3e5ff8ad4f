/* Copying and filling memory without libc. Plain loops over words (x86-64: string instructions,
 * which are fast at every size that matters here). */
#include "runtime/core/rt.h"

typedef uintptr_t Word __attribute__((aligned(1), may_alias));
enum { W = sizeof(Word) };

void *burin_rt_memcpy(void *restrict dst, const void *restrict src, size_t n) {
#if defined(__x86_64__)
  if (n >= 64) {
    void *d = dst;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
    return dst;
  }
#endif
  char *d = dst;
  const char *s = src;
#pragma clang loop vectorize(disable) unroll_count(4)
  for (; n >= W; n -= W, d += W, s += W) *(Word *)d = *(const Word *)s;
#pragma clang loop vectorize(disable)
  for (; n; n--) *d++ = *s++;
  return dst;
}

static void copy_backwards(char *d, const char *s, size_t n) {
#pragma clang loop vectorize(disable)
  for (; n >= W; n -= W) *(Word *)(d + n - W) = *(const Word *)(s + n - W);
#pragma clang loop vectorize(disable)
  for (; n; n--) d[n - 1] = s[n - 1];
}

void *burin_rt_memmove(void *dst, const void *src, size_t n) {
  const uintptr_t gap =
      (uintptr_t)dst - (uintptr_t)src; /* wraps when dst < src: forward is right */
  if (gap >= n) return burin_rt_memcpy(dst, src, n);
  copy_backwards(dst, src, n);
  return dst;
}

void *burin_rt_memset(void *dst, int c, size_t n) {
#if defined(__x86_64__)
  void *p = dst;
  __asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
#else
  char *d = dst;
  const Word w = (Word)-1 / 255 * (unsigned char)c;
#pragma clang loop vectorize(disable) unroll_count(4)
  for (; n >= W; n -= W, d += W) *(Word *)d = w;
#pragma clang loop vectorize(disable)
  for (; n; n--) *d++ = (char)c;
#endif
  return dst;
}

int burin_rt_memcmp(const void *a, const void *b, size_t n) {
  const unsigned char *p = a, *q = b;
  for (; n; n--, p++, q++)
    if (*p != *q) return *p < *q ? -1 : 1;
  return 0;
}

void burin_rt_copy(void *dst, const void *src, uint64_t bytes) {
  if (dst != src) burin_rt_memmove(dst, src, (size_t)bytes);
}
