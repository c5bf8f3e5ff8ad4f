/* A BurinHeap over malloc, for programs that host a compiled model. */
#pragma once
#include "abi.h"
#ifdef __cplusplus
extern "C" {
#endif

void *burin_heap_malloc(void *user, uint64_t bytes); /* BurinHeap.grow; user is not used */
void burin_heap_free(BurinHeap *heap);               /* its blocks; no run may be going on */

#ifdef __cplusplus
}
#endif
