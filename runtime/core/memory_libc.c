/* The names under which compilers call these functions on their own. Weak and hidden: within a host
 * program libc's definitions win, and none of these shows outside the object that carries them. */
#include "runtime/core/rt.h"

#define NAMED __attribute__((weak, visibility("hidden")))
NAMED void *memcpy(void *dst, const void *src, size_t n) { return burin_rt_memcpy(dst, src, n); }
NAMED void *memmove(void *dst, const void *src, size_t n) { return burin_rt_memmove(dst, src, n); }
NAMED void *memset(void *dst, int c, size_t n) { return burin_rt_memset(dst, c, n); }
NAMED int memcmp(const void *a, const void *b, size_t n) { return burin_rt_memcmp(a, b, n); }
