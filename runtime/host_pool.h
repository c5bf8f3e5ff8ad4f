/* A thread pool for programs that host a compiled model: gives BurinOptions.parallel_ranges. POSIX
 * threads, C11 (the header also C++); compile host_pool.c with your program, beside abi.h and
 * pool_core.h, and link with -pthread. The generated code itself makes no threads. */
#pragma once
#include "abi.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct BurinPool BurinPool;

/* threads: how many shall work on a model, the caller's included (≥ 1); fewer where the system
 * refuses to start them (burin_pool_options tells). NULL: no memory. */
BurinPool *burin_pool_new(int threads);
void burin_pool_free(BurinPool *pool); /* NULL is ignored; no run may be going on */
/* A BurinOptions.parallel_for and a parallel_ranges; user is the pool. Callers do not wait for each
 * other: one that finds the pool taken works alone. */
void burin_pool_parallel_for(void *pool, int32_t n, BurinTask task, void *arg);
void burin_pool_parallel_ranges(void *pool, int64_t n, int64_t grain, int32_t slots,
                                BurinRange range, void *arg);
/* Options that use the pool; pool may be NULL: one thread. */
BurinOptions burin_pool_options(BurinPool *pool);

#ifdef __cplusplus
}
#endif
