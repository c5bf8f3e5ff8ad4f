/* Sets of elements of a buffer, as bits once they are neither empty nor all. */
#include <string.h>

#include "passes/memory/plan_written.h"

static size_t words_of(const Cover *c) { return (size_t)(c->count + 63) / 64; }

static uint64_t mask_of(int64_t word, int64_t lo, int64_t hi) { /* of [lo, hi) in a word */
  const int64_t from = lo > word * 64 ? lo - word * 64 : 0,
                to = hi < word * 64 + 64 ? hi - word * 64 : 64;
  const uint64_t below = to == 64 ? ~0ull : (1ull << to) - 1;
  return below & ~((1ull << from) - 1);
}

static void own_bits(Arena *a, Cover *c) {
  if (c->bits && !c->shared) return;
  uint64_t *bits = ARENA_ARRAY(a, uint64_t, words_of(c) + 1);
  if (c->bits) memcpy(bits, c->bits, words_of(c) * sizeof *bits);
  c->bits = bits;
  c->shared = false;
}

/* Calls for every run of neighbours of the box; false: f did. */
typedef bool (*RunFn)(void *user, int64_t lo, int64_t hi);
static bool each_run(const Box *b, int64_t *budget, RunFn f, void *user) {
  const bool dense = b->n && b->stride[0] == 1;
  const int first = dense ? 1 : 0;
  int64_t at[MAX_BOX] = {0}, base = b->base;
  for (;;) {
    *budget -= 1 + (dense ? b->extent[0] : 0) / 1024;
    if (*budget < 0) return false;
    if (!f(user, base, base + (dense ? b->extent[0] : 1))) return false;
    int d = first;
    for (; d < b->n; d++) {
      base += b->stride[d];
      if (++at[d] < b->extent[d]) break;
      base -= b->stride[d] * b->extent[d];
      at[d] = 0;
    }
    if (d == b->n) return true;
  }
}

static bool add_run(void *user, int64_t lo, int64_t hi) {
  Cover *c = user;
  for (int64_t w = lo / 64; w * 64 < hi; w++) {
    const uint64_t fresh = mask_of(w, lo, hi) & ~c->bits[w];
    c->bits[w] |= fresh;
    c->have += __builtin_popcountll(fresh);
  }
  return true;
}

void cover_add(Arena *a, Cover *c, const Box *b, int64_t *budget) {
  if (cover_full(c)) return;
  const bool run = b->n == 1 && b->stride[0] == 1;
  if (c->count == 1 || (run && b->base == 0 && b->extent[0] == c->count)) {
    c->have = c->count;
    c->bits = NULL;
    return;
  }
  own_bits(a, c);
  each_run(b, budget, add_run, c);
}

typedef struct Search {
  const Cover *c;
  int64_t found;
} Search;

static bool find_missing(void *user, int64_t lo, int64_t hi) {
  Search *s = user;
  for (int64_t w = lo / 64; w * 64 < hi; w++) {
    const uint64_t gap = mask_of(w, lo, hi) & ~s->c->bits[w];
    if (!gap) continue;
    s->found = w * 64 + __builtin_ctzll(gap);
    return false;
  }
  return true;
}

int64_t cover_missing(const Cover *c, const Box *b, int64_t *budget) {
  if (cover_full(c)) return -1;
  if (!c->bits) return b->base;
  Search s = {c, -1};
  each_run(b, budget, find_missing, &s);
  return s.found;
}

Cover cover_both(Arena *a, const Cover *x, const Cover *y) {
  if (cover_full(x)) return *y;
  if (cover_full(y) || x->bits == y->bits) return *x;
  Cover r = {.count = x->count};
  if (!x->bits || !y->bits) return r;
  own_bits(a, &r);
  for (size_t i = 0; i < words_of(&r); i++) {
    r.bits[i] = x->bits[i] & y->bits[i];
    r.have += __builtin_popcountll(r.bits[i]);
  }
  return r;
}
