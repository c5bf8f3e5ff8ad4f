/* What xxhash.h needs of libc in freestanding code (weights.c). */
#pragma once
#include <stddef.h>
#define memcpy __builtin_memcpy
#define memset __builtin_memset
#define memcmp __builtin_memcmp
