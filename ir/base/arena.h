/* Arena allocation, growable arrays, and checked arithmetic. Everything the compiler makes lives in
 * an arena and dies with it; passes never free. An arena that hits its limit (or the system's) does
 * not return NULL: it calls its `oom` hook, which the driver sets to a longjmp into a clean error
 * (exit 6). */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Arena Arena;
typedef void (*ArenaOom)(void *user, size_t wanted); /* must not return */

/* `limit` in bytes, 0 = none. `oom` may be NULL: then the process aborts. Owned by the caller. */
Arena *arena_new(size_t limit, ArenaOom oom, void *user);
void arena_free(Arena *a);
/* A child shares the parent's limit and hook, and is freed alone (scratch of one pass). */
Arena *arena_child(Arena *parent);
void *arena_alloc(Arena *a, size_t bytes); /* zeroed, 16-aligned, never NULL */
void *arena_dup(Arena *a, const void *data, size_t bytes);
char *arena_strdup(Arena *a, const char *s);
char *arena_strndup(Arena *a, const char *s, size_t n);
char *arena_printf(Arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *arena_vprintf(Arena *a, const char *fmt, va_list ap);
size_t arena_used(const Arena *a); /* bytes taken from the system, children included */

#define ARENA_NEW(a, T) ((T *)arena_alloc((a), sizeof(T)))
#define ARENA_ARRAY(a, T, n) ((T *)arena_alloc_array((a), (size_t)(n), sizeof(T)))
void *arena_alloc_array(Arena *a, size_t n, size_t size); /* overflow goes to `oom` */

/* Growable array in an arena: Vec(int) v = {0}; vec_push(arena, &v, 3); v.data[v.n - 1] */
#define Vec(T)  \
  struct {      \
    T *data;    \
    int n, cap; \
  }
#define vec_push(a, v, ...)                                                                   \
  ((v)->n == (v)->cap                                                                         \
       ? (void)((v)->data = arena_grow((a), (v)->data, &(v)->cap, (v)->n, sizeof *(v)->data)) \
       : (void)0,                                                                             \
   (v)->data[(v)->n++] = (__VA_ARGS__))
void *arena_grow(Arena *a, void *data, int *cap, int n, size_t size);

/* Checked 64-bit arithmetic: false on overflow, *out untouched. The one helper for shape sizes. */
static inline bool ck_add(int64_t a, int64_t b, int64_t *out) {
  return !__builtin_add_overflow(a, b, out);
}
static inline bool ck_sub(int64_t a, int64_t b, int64_t *out) {
  return !__builtin_sub_overflow(a, b, out);
}
static inline bool ck_mul(int64_t a, int64_t b, int64_t *out) {
  return !__builtin_mul_overflow(a, b, out);
}

/* Text buffer for printers. `sb_str` is NUL-terminated and owned by the arena. */
typedef struct StrBuf {
  Arena *arena;
  char *data;
  int n, cap;
} StrBuf;
void sb_printf(StrBuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sb_putc(StrBuf *b, char c);
/* "…" with \" \\ \n \xNN escapes; the parsers read it back */
void sb_quoted(StrBuf *b, const char *s);
const char *sb_str(StrBuf *b);
