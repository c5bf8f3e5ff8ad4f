/* Memory of malloc for models with a heap (BurinModel.uses_heap), as their headers have it, too. */
#include "host_heap.h"

#include <stdlib.h>

void *burin_heap_malloc(void *user, uint64_t bytes) {
  (void)user;
  return bytes <= SIZE_MAX ? malloc((size_t)bytes) : NULL;
}

void burin_heap_free(BurinHeap *heap) {
  for (BurinHeapBlock *b = heap->blocks, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  heap->blocks = NULL;
}
