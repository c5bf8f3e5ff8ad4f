/* xxhash.h declares allocating functions that weights.c does not use. */
#pragma once
#include <stddef.h>
void *malloc(size_t);
void free(void *);
