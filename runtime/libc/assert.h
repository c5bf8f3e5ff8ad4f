/* What xxhash.h needs of it (weights.c). */
#pragma once
#define static_assert _Static_assert
#define assert(x) ((void)0)
