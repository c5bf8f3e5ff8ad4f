/* Arenas, growable arrays and the text buffer. An arena is a list of chunks; all arenas of one
 * family (a root and its children) share one limit. Freeing an arena frees its children, so a
 * longjmp out of a pass leaks nothing. Relies on malloc; the only file of ir/ and passes/ that may
 * call it. */
#include "ir/base/arena.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_MIN = 4096, CHUNK_MAX = 1 << 20, ALIGN = 16 };

typedef struct Chunk {
  struct Chunk *next;
  size_t size; /* bytes taken from the system, header included */
} Chunk;

typedef struct Shared { /* of a family */
  size_t limit, used;
  ArenaOom oom;
  void *user;
} Shared;

struct Arena {
  Chunk *chunks;
  char *at, *end; /* free space of the newest small chunk */
  size_t used;    /* of this arena and its children */
  size_t next_chunk;
  Shared *shared;
  Shared own; /* of a root */
  Arena *parent, *first_child, *next, *prev;
};

enum { HEADER = (sizeof(Chunk) + ALIGN - 1) / ALIGN * ALIGN };

static void oom(const Shared *s, size_t wanted) {
  if (s->oom) s->oom(s->user, wanted);
  abort();
}

static void account(Arena *a, size_t bytes) {
  a->shared->used += bytes;
  for (; a; a = a->parent) a->used += bytes;
}

static Arena *arena_make(void) {
  Arena *const a = calloc(1, sizeof *a);
  if (!a) return NULL;
  a->next_chunk = CHUNK_MIN;
  return a;
}

Arena *arena_new(size_t limit, ArenaOom oom_hook, void *user) {
  Arena *const a = arena_make();
  const Shared s = {limit, 0, oom_hook, user};
  if (!a) {
    oom(&s, sizeof *a);
    return NULL;
  }
  a->own = s;
  a->shared = &a->own;
  return a;
}

Arena *arena_child(Arena *parent) {
  Arena *const a = arena_make();
  if (!a) oom(parent->shared, sizeof *a);
  a->shared = parent->shared;
  a->parent = parent;
  a->next = parent->first_child;
  if (a->next) a->next->prev = a;
  parent->first_child = a;
  return a;
}

void arena_free(Arena *a) {
  if (!a) return;
  while (a->first_child) arena_free(a->first_child);
  size_t freed = 0;
  for (Chunk *c = a->chunks; c;) {
    Chunk *const next = c->next;
    freed += c->size;
    free(c);
    c = next;
  }
  if (a->parent) {
    a->shared->used -= freed;
    for (Arena *up = a->parent; up; up = up->parent) up->used -= freed;
    if (a->next) a->next->prev = a->prev;
    *(a->prev ? &a->prev->next : &a->parent->first_child) = a->next;
  }
  free(a);
}

/* A chunk with room for `bytes` (a multiple of ALIGN) after its header. */
static Chunk *chunk_new(Arena *a, size_t bytes) {
  const Shared *const s = a->shared;
  if (bytes > SIZE_MAX / 2 ||
      (s->limit && (bytes + HEADER > s->limit || s->used > s->limit - bytes - HEADER)))
    oom(s, bytes);
  Chunk *const c = calloc(1, bytes + HEADER);
  if (!c) oom(s, bytes);
  c->size = bytes + HEADER;
  c->next = a->chunks;
  a->chunks = c;
  account(a, c->size);
  return c;
}

void *arena_alloc(Arena *a, size_t bytes) {
  if (bytes > SIZE_MAX / 2) oom(a->shared, bytes);
  bytes = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
  if (bytes > (size_t)(a->end - a->at)) {
    if (bytes * 4 > a->next_chunk) return (char *)chunk_new(a, bytes) + HEADER;
    a->at = (char *)chunk_new(a, a->next_chunk - HEADER) + HEADER;
    a->end = a->at + a->next_chunk - HEADER;
    if (a->next_chunk < CHUNK_MAX) a->next_chunk *= 2;
  }
  void *const p = a->at;
  a->at += bytes;
  return p;
}

void *arena_alloc_array(Arena *a, size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes)) oom(a->shared, SIZE_MAX);
  return arena_alloc(a, bytes);
}

void *arena_dup(Arena *a, const void *data, size_t bytes) {
  void *const p = arena_alloc(a, bytes);
  if (bytes) memcpy(p, data, bytes);
  return p;
}

char *arena_strndup(Arena *a, const char *s, size_t n) {
  char *const p = arena_alloc(a, n + 1);
  if (n) memcpy(p, s, n);
  return p;
}

char *arena_strdup(Arena *a, const char *s) { return arena_strndup(a, s, strlen(s)); }

char *arena_vprintf(Arena *a, const char *fmt, va_list ap) {
  va_list again;
  va_copy(again, ap);
  const int n = vsnprintf(NULL, 0, fmt, ap);
  char *const p = arena_alloc(a, n < 0 ? 1 : (size_t)n + 1);
  if (n > 0) vsnprintf(p, (size_t)n + 1, fmt, again);
  va_end(again);
  return p;
}

char *arena_printf(Arena *a, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  char *const p = arena_vprintf(a, fmt, ap);
  va_end(ap);
  return p;
}

size_t arena_used(const Arena *a) { return a->used; }

void *arena_grow(Arena *a, void *data, int *cap, int n, size_t size) {
  if (*cap > INT32_MAX / 2) oom(a->shared, SIZE_MAX);
  const int wanted = *cap ? *cap * 2 : 8;
  void *const p = arena_alloc_array(a, (size_t)wanted, size);
  if (n) memcpy(p, data, (size_t)n * size);
  *cap = wanted;
  return p;
}

/* ---- text buffer ---- */
static void sb_reserve(StrBuf *b, int extra) {
  while (!b->data || b->cap - b->n <= extra)
    b->data = arena_grow(b->arena, b->data, &b->cap, b->n, 1);
}

void sb_putc(StrBuf *b, char c) {
  if (b->n + 1 >= b->cap) sb_reserve(b, 1);
  b->data[b->n++] = c;
  b->data[b->n] = 0;
}

void sb_printf(StrBuf *b, const char *fmt, ...) {
  va_list ap, again;
  va_start(ap, fmt);
  va_copy(again, ap);
  const int room = b->data ? b->cap - b->n : 0;
  const int n = vsnprintf(room ? b->data + b->n : NULL, (size_t)room, fmt, ap);
  if (n >= room) {
    sb_reserve(b, n);
    vsnprintf(b->data + b->n, (size_t)(b->cap - b->n), fmt, again);
  }
  if (n > 0) b->n += n;
  va_end(again);
  va_end(ap);
}

void sb_quoted(StrBuf *b, const char *s) {
  sb_putc(b, '"');
  for (; *s; s++) {
    const unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\')
      sb_printf(b, "\\%c", c);
    else if (c == '\n')
      sb_printf(b, "\\n");
    else if (c < 32 || c == 127)
      sb_printf(b, "\\x%02x", c);
    else
      sb_putc(b, (char)c);
  }
  sb_putc(b, '"');
}

const char *sb_str(StrBuf *b) {
  sb_reserve(b, 1);
  b->data[b->n] = 0;
  return b->data;
}
