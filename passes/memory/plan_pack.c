/* Packing of blocks with lifetimes into one range of memory: greedy placement in several orders,
 * first fit and best fit, then a local search over orders. Knows nothing of buffers. */
#include <stdlib.h>
#include <string.h>
#include "passes/memory/plan.h"

typedef struct Span {
  int64_t lo, hi;
} Span;

typedef struct Start {
  int start, i;
} Start;

typedef struct Packer {
  Arena *a;
  PackItem *items;
  int n;
  int **near; /* items alive at the same time, for each item */
  int *n_near;
  int64_t visits; /* work of one placement: sum of n_near */
  Span *spans;    /* scratch */
  int64_t *offset;
  bool *placed;
  int *best;     /* best order so far */
  bool best_fit; /* and how it was placed */
  int64_t total;
} Packer;

enum { MOST_MEETINGS = 10000000 }; /* more: hostile, not worth packing */

static int by_start(const void *x, const void *y) {
  const Start *a = x, *b = y;
  return a->start != b->start ? (a->start < b->start ? -1 : 1) : a->i - b->i;
}

/* Goes forward in time with the list of items that are alive; calls `found` for every two that
 * meet. */
static bool each_meeting(Packer *p, void (*found)(Packer *p, int i, int j)) {
  Start *s = ARENA_ARRAY(p->a, Start, p->n + 1);
  int *alive = ARENA_ARRAY(p->a, int, p->n + 1), n = 0, starts = 0;
  int64_t meetings = 0;
  for (int i = 0; i < p->n; i++)
    if (p->items[i].size > 0) s[starts++] = (Start){p->items[i].start, i};
  qsort(s, (size_t)starts, sizeof *s, by_start);
  for (int k = 0; k < starts; k++) {
    int kept = 0;
    for (int m = 0; m < n; m++)
      if (p->items[alive[m]].end >= s[k].start) alive[kept++] = alive[m];
    n = kept;
    if ((meetings += n) > MOST_MEETINGS) return false;
    for (int m = 0; m < n; m++) found(p, s[k].i, alive[m]);
    alive[n++] = s[k].i;
  }
  return true;
}

static void count_meeting(Packer *p, int i, int j) {
  p->n_near[i]++;
  p->n_near[j]++;
}

static void note_meeting(Packer *p, int i, int j) {
  p->near[i][p->n_near[i]++] = j;
  p->near[j][p->n_near[j]++] = i;
}

static bool find_near(Packer *p) {
  p->near = ARENA_ARRAY(p->a, int *, p->n + 1);
  p->n_near = ARENA_ARRAY(p->a, int, p->n + 1);
  if (!each_meeting(p, count_meeting)) return false;
  for (int i = 0; i < p->n; i++) {
    p->near[i] = ARENA_ARRAY(p->a, int, p->n_near[i] + 1);
    p->visits += p->n_near[i] + 4;
    p->n_near[i] = 0;
  }
  return each_meeting(p, note_meeting);
}

/* One behind the other. */
static int64_t lay_out(PackItem *items, int n) {
  int64_t end = 0;
  for (int i = 0; i < n; i++) {
    items[i].offset = end;
    end += items[i].size;
  }
  return end;
}

static int by_lo(const void *x, const void *y) {
  const Span *a = x, *b = y;
  return a->lo != b->lo ? (a->lo < b->lo ? -1 : 1) : (a->hi > b->hi) - (a->hi < b->hi);
}

static int64_t find_gap(const Span *s, int n, int64_t size, bool best_fit) {
  int64_t top = 0, found = -1, room = INT64_MAX;
  for (int i = 0; i < n; i++) {
    const int64_t gap = s[i].lo - top;
    if (gap >= size && gap < room) {
      found = top;
      room = gap;
      if (!best_fit) return found;
    }
    if (s[i].hi > top) top = s[i].hi;
  }
  return found >= 0 ? found : top;
}

/* Places in the given order; INT64_MAX as soon as `limit` is passed. */
static int64_t place(Packer *p, const int *order, bool best_fit, int64_t limit) {
  int64_t total = 0;
  memset(p->placed, 0, (size_t)p->n * sizeof *p->placed);
  for (int k = 0; k < p->n; k++) {
    const int i = order[k];
    int n = 0;
    p->offset[i] = 0;
    p->placed[i] = true;
    if (p->items[i].size == 0) continue;
    for (int j = 0; j < p->n_near[i]; j++) {
      const int o = p->near[i][j];
      if (p->placed[o]) p->spans[n++] = (Span){p->offset[o], p->offset[o] + p->items[o].size};
    }
    qsort(p->spans, (size_t)n, sizeof *p->spans, by_lo);
    p->offset[i] = find_gap(p->spans, n, p->items[i].size, best_fit);
    if (p->offset[i] + p->items[i].size > total) total = p->offset[i] + p->items[i].size;
    if (total > limit) return INT64_MAX;
  }
  return total;
}

static bool try_order(Packer *p, const int *order, bool best_fit, bool accept_equal) {
  const int64_t total = place(p, order, best_fit, p->total);
  if (total > p->total || (total == p->total && !accept_equal)) return false;
  if (total < p->total || accept_equal)
    for (int i = 0; i < p->n; i++) p->items[i].offset = p->offset[i];
  p->total = total;
  p->best_fit = best_fit;
  if (order != p->best) memcpy(p->best, order, (size_t)p->n * sizeof *order);
  return true;
}

/* ---- orders ---- */
typedef struct Key {
  double major, minor;
  int i;
} Key;

static int by_key(const void *x, const void *y) {
  const Key *a = x, *b = y;
  if (a->major != b->major) return a->major > b->major ? -1 : 1;
  if (a->minor != b->minor) return a->minor > b->minor ? -1 : 1;
  return a->i - b->i;
}

enum { N_ORDERS = 6 };

static Key key_of(const Packer *p, int order, int i) {
  const PackItem *t = &p->items[i];
  const double size = (double)t->size, len = t->end - t->start + 1;
  switch (order) {
    case 0: return (Key){size, len, i};
    case 1: return (Key){size * len, size, i};
    case 2: return (Key){len, size, i};
    case 3: return (Key){-t->start, size, i};
    case 4: return (Key){-t->end, size, i};
    default: return (Key){p->n_near[i], size, i};
  }
}

static void order_of(const Packer *p, int which, Key *keys, int *order) {
  for (int i = 0; i < p->n; i++) keys[i] = key_of(p, which, i);
  qsort(keys, (size_t)p->n, sizeof *keys, by_key);
  for (int i = 0; i < p->n; i++) order[i] = keys[i].i;
}

/* ---- local search ---- */
static uint32_t next_random(uint32_t *s) {
  *s ^= *s << 13;
  *s ^= *s >> 17;
  return *s ^= *s << 5;
}

static void move(int *order, int from, int to) {
  const int v = order[from];
  if (to < from)
    memmove(order + to + 1, order + to, (size_t)(from - to) * sizeof *order);
  else
    memmove(order + from, order + from + 1, (size_t)(to - from) * sizeof *order);
  order[to] = v;
}

/* A block that reaches the top is placed earlier, or two blocks change places. */
static void search(Packer *p, int64_t lower, int *order) {
  enum { WORK = 20000000, MOST = 3000 };
  uint32_t seed = 2463534242u;
  const int64_t rounds = WORK / (p->visits + 1) < MOST ? WORK / (p->visits + 1) : MOST;
  for (int64_t r = 0; r < rounds && p->total > lower; r++) {
    memcpy(order, p->best, (size_t)p->n * sizeof *order);
    int at = (int)(next_random(&seed) % (unsigned)p->n);
    if (r % 3 != 2)
      for (int k = 0; k < p->n; k++) {
        const PackItem *t = &p->items[order[k]];
        if (t->size && t->offset + t->size == p->total) at = k;
      }
    const int to = at && r % 3 != 2 ? (int)(next_random(&seed) % (unsigned)at)
                                    : (int)(next_random(&seed) % (unsigned)p->n);
    move(order, at, to);
    try_order(p, order, next_random(&seed) & 16 ? p->best_fit : !p->best_fit, true);
  }
}

int64_t pack_lower_bound(Arena *scratch, const PackItem *items, int n) {
  int last = 0;
  for (int i = 0; i < n; i++)
    if (items[i].end > last) last = items[i].end;
  int64_t *delta = ARENA_ARRAY(scratch, int64_t, last + 2), live = 0, most = 0;
  for (int i = 0; i < n; i++) {
    if (!ck_add(delta[items[i].start], items[i].size, &delta[items[i].start])) return -1;
    if (!ck_sub(delta[items[i].end + 1], items[i].size, &delta[items[i].end + 1])) return -1;
  }
  for (int t = 0; t <= last; t++) {
    if (!ck_add(live, delta[t], &live)) return -1;
    if (live > most) most = live;
  }
  return most;
}

int64_t pack_items(Arena *scratch, PackItem *items, int n) {
  if (n == 0) return 0;
  Packer p = {.a = scratch, .items = items, .n = n, .total = INT64_MAX};
  if (!find_near(&p)) return lay_out(items, n);
  p.spans = ARENA_ARRAY(scratch, Span, n);
  p.offset = ARENA_ARRAY(scratch, int64_t, n);
  p.placed = ARENA_ARRAY(scratch, bool, n);
  p.best = ARENA_ARRAY(scratch, int, n);
  int *order = ARENA_ARRAY(scratch, int, n);
  Key *keys = ARENA_ARRAY(scratch, Key, n);
  const int64_t lower = pack_lower_bound(scratch, items, n);
  for (int k = 0; k < 2 * N_ORDERS && p.total > lower; k++) {
    order_of(&p, k / 2, keys, order);
    try_order(&p, order, k % 2, false);
  }
  if (p.total > lower) search(&p, lower, order);
  return p.total;
}
