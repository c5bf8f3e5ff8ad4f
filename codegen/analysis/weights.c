/* Weights: their places in one read-only section, and their bytes as a file has them. Equal
 * contents are stored once. */
#define XXH_INLINE_ALL
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "codegen/analysis/weights.h"
#include "runtime/abi.h"

enum { ALIGN = 64, RESERVE_ALIGN = 64 << 10 };

static int64_t data_bytes(const ConstData *d) { return d->count * dtype_bytes(d->dtype); }
static int64_t align_up(int64_t v, int64_t a) { return (v + a - 1) / a * a; }

typedef struct HashSlot {
  uint64_t hash;
  int slot; /* -1: empty */
} HashSlot;

static int find_equal(const WeightLayout *w, const HashSlot *table, int size, const ConstData *d,
                      uint64_t hash, int *at) {
  int i = (int)(hash & (uint64_t)(size - 1));
  for (; table[i].slot >= 0; i = (i + 1) & (size - 1)) {
    const ConstData *const other = w->slots.data[table[i].slot].data;
    if (table[i].hash == hash && data_bytes(other) == data_bytes(d) &&
        memcmp(other->data, d->data, (size_t)data_bytes(d)) == 0)
      return table[i].slot;
  }
  *at = i;
  return -1;
}

WeightLayout weights_layout(const Module *m, Arena *scratch) {
  WeightLayout w = {.offset = ARENA_ARRAY(scratch, int64_t, m->buffers.n + 1)};
  int size = 64;
  while (size < m->buffers.n * 2) size *= 2;
  HashSlot *const table = ARENA_ARRAY(scratch, HashSlot, size);
  for (int i = 0; i < size; i++) table[i].slot = -1;
  for (int i = 0; i < m->buffers.n; i++) {
    const Buffer *const b = &m->buffers.data[i];
    w.offset[i] = -1;
    if (!b->data) continue; /* weights and defaults of inputs */
    const uint64_t hash = XXH3_64bits(b->data->data, (size_t)data_bytes(b->data));
    int at = 0;
    const int same = find_equal(&w, table, size, b->data, hash, &at);
    if (same >= 0) {
      w.offset[i] = w.slots.data[same].offset;
      continue;
    }
    w.offset[i] = align_up(w.bytes, ALIGN);
    w.bytes = w.offset[i] + (data_bytes(b->data) > 0 ? data_bytes(b->data)
                                                     : 1); /* empty ones need an address too */
    table[at] = (HashSlot){hash, w.slots.n};
    vec_push(scratch, &w.slots, (WeightSlot){b->data, w.offset[i]});
  }
  w.bytes =
      align_up(w.bytes, ALIGN); /* vector loads of the last element's neighbours stay inside */
  return w;
}

void weights_in_file(WeightLayout *w, const char *file) {
  static const char zeros[ALIGN];
  int64_t at = 0;
  XXH3_state_t x;
  XXH3_64bits_reset(&x);
  for (int i = 0; i < w->slots.n; i++) {
    const WeightSlot *const s = &w->slots.data[i];
    XXH3_64bits_update(&x, zeros, (size_t)(s->offset - at));
    XXH3_64bits_update(&x, s->data->data, (size_t)data_bytes(s->data));
    at = s->offset + data_bytes(s->data);
  }
  for (; at < w->bytes; at++) XXH3_64bits_update(&x, zeros, 1);
  const uint64_t hash = XXH3_64bits_digest(&x);
  w->external = true;
  w->file = file;
  w->hash = hash ? hash : 1;
}

static bool write_tail(const WeightLayout *w, FILE *f) {
  const uint64_t tail[BURIN_WEIGHTS_TAIL / 8] = {w->hash};
  return !w->external || fwrite(tail, sizeof tail, 1, f) == 1;
}

bool weights_write_raw(const WeightLayout *w, FILE *f) {
  static const char zeros[ALIGN];
  int64_t at = 0;
  for (int i = 0; i <= w->slots.n; i++) {
    const int64_t next = i < w->slots.n ? w->slots.data[i].offset : w->bytes;
    for (; at < next; at += next - at < ALIGN ? next - at : ALIGN)
      if (!fwrite(zeros, (size_t)(next - at < ALIGN ? next - at : ALIGN), 1, f)) return false;
    if (i == w->slots.n) break;
    const ConstData *const d = w->slots.data[i].data;
    if (data_bytes(d) > 0 && fwrite(d->data, (size_t)data_bytes(d), 1, f) != 1) return false;
    at = next + data_bytes(d);
  }
  return write_tail(w, f);
}
