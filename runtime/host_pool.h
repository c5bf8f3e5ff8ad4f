/* A thread pool for programs that host a compiled model: gives BurinOptions.parallel_for. POSIX
 * threads, C11 or C++; compile host_pool.c with your program and link with -pthread. The generated
 * code itself makes no threads. */
#pragma once
#include "abi.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct BurinPool BurinPool;

/* threads: how many work on a model, the caller's included (≥ 1). NULL when threads cannot be made.
 */
BurinPool *burin_pool_new(int threads);
void burin_pool_free(BurinPool *pool); /* NULL is ignored; no run may be going on */
/* A BurinOptions.parallel_for; user is the pool. One run at a time per pool: a second caller waits.
 */
void burin_pool_parallel_for(void *pool, int32_t n, BurinTask task, void *arg);
/* Options that use the pool; pool may be NULL: one thread. */
BurinOptions burin_pool_options(BurinPool *pool);

#ifdef __cplusplus
}
#endif
