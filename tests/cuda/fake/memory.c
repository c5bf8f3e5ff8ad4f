/* Memory of the fake driver: blocks of the device can be touched only while kernels and copies run;
 * behind each lies a page that can't be touched at all. */
#define _GNU_SOURCE
#include "fake.h"

#include <sys/mman.h>

enum { PAGE = 4096, NO_DEVICE = -2 };
typedef struct Block {
  char *p;
  size_t bytes, mapped;
  int device;
  struct Block *next;
} Block;
static Block *blocks, *pinned;

static Block *find(Block *list, const void *p) {
  for (Block *b = list; b; b = b->next)
    if ((const char *)p >= b->p && (const char *)p < b->p + b->bytes) return b;
  return NULL;
}
static void *pointer(CuAddress p) { return (void *)(uintptr_t)p; }

static Block *add(Block **list, size_t bytes, int protection) {
  Block *const b = malloc(sizeof *b);
  b->bytes = bytes;
  b->mapped = (bytes + 2 * PAGE - 1) / PAGE * PAGE;
  b->p = mmap(NULL, b->mapped, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  b->next = *list;
  if (b->p == MAP_FAILED) fake_die("no memory");
  mprotect(b->p + b->mapped - PAGE, PAGE, PROT_NONE);
  return *list = b;
}

static void drop(Block **list, Block *b) {
  while (*list != b) list = &(*list)->next;
  *list = b->next;
  madvise(b->p, b->mapped, MADV_DONTNEED); /* the address is never given again */
  mprotect(b->p, b->mapped, PROT_NONE);
  free(b);
}

bool fake_is_memory(CuAddress p) { return find(blocks, pointer(p)); }
bool fake_is_pinned(const void *p) { return find(pinned, p); }

void fake_check_memory(CuAddress p, size_t bytes, const char *what) {
  const Block *const b = find(blocks, pointer(p));
  if (!b || (size_t)((char *)pointer(p) - b->p) + bytes > b->bytes) fake_die(what);
}

void fake_open_memory(bool open) {
  for (Block *b = blocks; b; b = b->next)
    mprotect(b->p, b->mapped - PAGE, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  ENTER(c);
  *total = (size_t)fake_number("FAKE_CUDA_MEMORY", 1 << 30);
  *free_bytes = *total - c->used;
  LEAVE(0);
}

API cuMemAlloc_v2(CuAddress *p, size_t bytes) {
  ENTER(c);
  if (fake_is_capturing()) LEAVE(CAPTURE_FORBIDS);
  if (!bytes) LEAVE(INVALID_VALUE);
  if (c->used + bytes > (size_t)fake_number("FAKE_CUDA_MEMORY", 1 << 30)) LEAVE(CU_OUT_OF_MEMORY);
  c->used += bytes;
  Block *const b = add(&blocks, bytes, PROT_READ | PROT_WRITE);
  memset(b->p, 0xCD, bytes);
  mprotect(b->p, b->mapped - PAGE, PROT_NONE);
  b->device = c->device;
  fake_add(MEMORY, b->p, c);
  *p = (CuAddress)(uintptr_t)b->p;
  LEAVE(0);
}

API cuMemFree_v2(CuAddress p) {
  ENTER(c);
  Block *const b = find(blocks, pointer(p));
  if (!b || b->p != pointer(p)) fake_die("memory is freed that is none");
  if (fake_is_used(p, b->bytes)) fake_die("memory is freed that work which is queued uses");
  c->used -= b->bytes;
  fake_remove(MEMORY, b->p);
  drop(&blocks, b);
  LEAVE(0);
}

API cuMemHostAlloc(void **p, size_t bytes, uint32_t flags) {
  ENTER(c);
  if (fake_fails("pinned", NULL)) LEAVE(CU_OUT_OF_MEMORY);
  if (fake_is_capturing()) LEAVE(CAPTURE_FORBIDS);
  Block *const b = add(&pinned, bytes, PROT_READ | PROT_WRITE);
  fake_add(PINNED, b->p, c);
  *p = b->p;
  LEAVE(0);
}

API cuMemFreeHost(void *p) {
  ENTER(c);
  Block *const b = find(pinned, p);
  if (!b || b->p != p) fake_die("pinned memory is freed that is none");
  if (fake_is_used((CuAddress)(uintptr_t)p, b->bytes))
    fake_die("pinned memory is freed that work which is queued uses");
  fake_remove(PINNED, p);
  drop(&pinned, b);
  LEAVE(0);
}

API cuPointerGetAttributes(uint32_t n, int32_t *attributes, void **values, CuAddress p) {
  ENTER(c);
  const Block *const b = find(blocks, pointer(p));
  const bool known = b || fake_is_pinned(pointer(p));
  for (uint32_t i = 0; i < n; i++) {
    int32_t *const value = (int32_t *)values[i];
    if (attributes[i] == CU_POINTER_MEMORY_TYPE)
      *value = b ? 2 : known ? CU_MEMORY_OF_HOST : CU_MEMORY_UNKNOWN;
    else if (attributes[i] == CU_POINTER_DEVICE)
      *value = b ? b->device : known ? c->device : NO_DEVICE;
    else
      fake_die("an attribute of pointers that nobody needs");
  }
  LEAVE(0);
}
