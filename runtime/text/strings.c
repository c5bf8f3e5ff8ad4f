/* Numbers of strings (text.h): the table of constants, and a hash table in the heap of those that a
 * run makes. */
#include <string.h>
#include "runtime/text/text.h"

typedef struct Item {
  uint64_t length;
  uint32_t hash;
  char bytes[];
} Item;

/* Open addressing; numbers count from the constants' on. */
typedef struct Pool {
  Item **items;
  uint32_t *slots; /* position in items + 1, or 0 */
  uint64_t count, capacity, n_slots;
} Pool;
enum { FIRST_ITEMS = 64 };

static TextView constant_text(const uint32_t *table, uint64_t k) {
  const uint32_t *const starts = table + TABLE_STARTS;
  return (TextView){(const char *)table + starts[k], (uint64_t)starts[k + 1] - starts[k] - 1};
}

static bool views_equal(TextView a, TextView b) {
  return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

int text_compare(TextView a, TextView b) {
  const int c = memcmp(a.bytes, b.bytes, a.length < b.length ? a.length : b.length);
  return c ? c : a.length < b.length ? -1 : a.length > b.length;
}

static TextView item_view(const Item *i) { return (TextView){i->bytes, i->length}; }

TextView strings_get(const Strings *s, int64_t number) {
  const Pool *const pool = (const Pool *)s->heap->strings;
  const uint64_t n = s->table[TABLE_COUNT], k = (uint64_t)number;
  if (k < n) return constant_text(s->table, k);
  if (number > 0 && pool && k - n < pool->count) return item_view(pool->items[k - n]);
  return (TextView){"", 0};
}

static int64_t find_constant(const uint32_t *table, TextView t, uint32_t hash) {
  const uint32_t n = table[TABLE_COUNT],
                 mask = table[TABLE_SLOTS] - 1, *const slots = table + TABLE_STARTS + n + 1;
  for (uint32_t i = hash & mask; slots[i]; i = (i + 1) & mask)
    if (views_equal(constant_text(table, slots[i] - 1), t)) return slots[i] - 1;
  return -1;
}

/* The slot of t, or the free one where it belongs. */
static uint32_t *pool_slot(const Pool *p, TextView t, uint32_t hash) {
  const uint64_t mask = p->n_slots - 1;
  uint64_t i = hash & mask;
  for (; p->slots[i]; i = (i + 1) & mask) {
    const Item *const item = p->items[p->slots[i] - 1];
    if (item->hash == hash && views_equal(item_view(item), t)) break;
  }
  return &p->slots[i];
}

/* Room for twice as many. */
static bool pool_grow(BurinHeap *h, Pool *p) {
  const uint64_t capacity = p->capacity ? 2 * p->capacity : FIRST_ITEMS, n_slots = 2 * capacity;
  if (capacity > UINT32_MAX / 2) return false;
  Item **items = (Item **)heap_alloc(h, capacity * sizeof *items);
  uint32_t *slots = (uint32_t *)heap_alloc(h, n_slots * sizeof *slots);
  if (!items || !slots) return false;
  memset(slots, 0, n_slots * sizeof *slots);
  for (uint64_t i = 0; i < p->count; i++) items[i] = p->items[i];
  p->items = items;
  p->slots = slots;
  p->capacity = capacity;
  p->n_slots = n_slots;
  for (uint64_t i = 0; i < p->count; i++)
    *pool_slot(p, item_view(items[i]), items[i]->hash) = (uint32_t)i + 1;
  return true;
}

static Item *item_new(BurinHeap *h, TextView t, uint32_t hash) {
  if (t.length > UINT32_MAX) return NULL;
  Item *const i = (Item *)heap_alloc(h, sizeof *i + t.length + 1);
  if (!i) return NULL;
  i->length = t.length;
  i->hash = hash;
  memcpy(i->bytes, t.bytes, t.length);
  i->bytes[t.length] = 0;
  return i;
}

int64_t strings_put(const Strings *s, TextView t) {
  BurinHeap *const h = s->heap;
  const uint32_t hash = text_hash(t.bytes, t.length);
  const int64_t known = find_constant(s->table, t, hash);
  if (known >= 0) return known;
  Pool *p = (Pool *)h->strings;
  if (!p) {
    p = (Pool *)heap_alloc(h, sizeof *p);
    if (!p) return -1;
    *p = (Pool){0};
    h->strings = p;
  }
  if (p->count == p->capacity && !pool_grow(h, p)) return -1;
  uint32_t *const slot = pool_slot(p, t, hash);
  if (!*slot) {
    Item *const i = item_new(h, t, hash);
    if (!i) return -1;
    p->items[p->count++] = i;
    *slot = (uint32_t)p->count;
  }
  return (int64_t)(s->table[TABLE_COUNT] + *slot) - 1;
}
