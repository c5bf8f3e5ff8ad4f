/* Memory that grows, given by the host in blocks and given back as a whole: a run takes from them
 * in order, the next run begins at the first block again. */
#include <string.h>
#include "runtime/text/text.h"

typedef BurinHeapBlock Block;
enum { HEAP_ALIGN = 16, HEAP_FIRST = 1 << 16 };

static uint64_t header_bytes(void) {
  return (sizeof(Block) + HEAP_ALIGN - 1) / HEAP_ALIGN * HEAP_ALIGN;
}

void burin_rt_heap_begin(BurinHeap *h) {
  h->current = h->blocks;
  h->used = header_bytes();
  h->strings = NULL;
}

/* A new block behind the current one. */
static bool add_block(BurinHeap *h, uint64_t bytes) {
  uint64_t size = h->current ? h->current->bytes : HEAP_FIRST / 2;
  if (bytes > UINT64_MAX / 4 || !h->grow) return false;
  size = size > UINT64_MAX / 8 ? size : 2 * size;
  if (size < bytes + header_bytes()) size = bytes + header_bytes();
  Block *b = (Block *)h->grow(h->user, size);
  if (!b) return false;
  b->bytes = size;
  b->next = h->current ? h->current->next : NULL;
  if (h->current)
    h->current->next = b;
  else
    h->blocks = b;
  h->current = b;
  h->used = header_bytes();
  return true;
}

void *heap_alloc(BurinHeap *h, uint64_t bytes) {
  if (bytes > UINT64_MAX - HEAP_ALIGN) return NULL;
  bytes = (bytes + HEAP_ALIGN - 1) / HEAP_ALIGN * HEAP_ALIGN;
  while (!h->current || h->current->bytes - h->used < bytes) {
    Block *const next = h->current ? h->current->next : NULL;
    if (next && next->bytes - header_bytes() >= bytes) {
      h->current = next;
      h->used = header_bytes();
    } else if (!add_block(h, bytes)) {
      return NULL;
    }
  }
  void *p = (char *)h->current + h->used;
  h->used += bytes;
  return p;
}

void *heap_tensor(BurinHeap *h, uint64_t bytes) {
  char *const p = bytes < UINT64_MAX / 2 ? (char *)heap_alloc(h, bytes + HEAP_TENSOR_ALIGN) : NULL;
  return p ? p + (HEAP_TENSOR_ALIGN - (uintptr_t)p % HEAP_TENSOR_ALIGN) % HEAP_TENSOR_ALIGN : NULL;
}

int32_t burin_rt_room(BurinHeap *h, int64_t *address, int64_t *room, int64_t count, int64_t keep,
                      int32_t size) {
  if (count < 0 || count > INT64_MAX / 4 / size) return BURIN_E_MEMORY;
  const int64_t bytes = count * size;
  if (*address && bytes <= *room) return BURIN_OK;
  const int64_t wanted = *room > bytes / 2 ? 2 * bytes : bytes;
  void *const p = heap_tensor(h, (uint64_t)wanted);
  if (!p) return BURIN_E_MEMORY;
  if (keep > 0 && *address) memcpy(p, (const void *)(uintptr_t)*address, (uint64_t)(keep * size));
  *address = (int64_t)(uintptr_t)p;
  *room = wanted;
  return BURIN_OK;
}
