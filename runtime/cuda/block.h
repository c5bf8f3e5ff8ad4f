/* What kernels call that run on this CPU (target cuda:host) and whose threads meet at barriers: the
 * threads of a block are fibres of the calling thread, which go on until they wait or end.
 * Freestanding C11, also C++.
 *
 * A block ends the process with a message where threads wait at different barriers, or one waits for
 * another that has ended. */
#pragma once
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif
/* Runs thread(arg) for each of `threads`, with shared memory that is full of 0xCD. barriers 0: they
 * never wait, and follow each other on one stack. */
void burin_gpu_block_run(void (*thread)(void *arg), void *arg, int32_t threads,
                         uint32_t shared_bytes, int32_t barriers);

/* ---- inside a thread ---- */
int32_t burin_gpu_thread(void); /* its number in the block */
/* 16-aligned; what lies behind the last byte, rounded up to 16, can't be touched. */
void *burin_gpu_shared(void);
/* All threads of the block, or of the warp (32 that follow each other) come to the same one: `site`
 * says which it is. */
void burin_gpu_barrier(int32_t site);
void burin_gpu_warp_barrier(int32_t site);

/* In which order blocks, and threads between barriers, run: 0 forward, 1 backward, 2 shuffled.
 * burin_gpu_pick: which of n comes at position i, `turn` being anything that differs from call to
 * call. */
extern int32_t burin_gpu_order;
int64_t burin_gpu_pick(int64_t i, int64_t n, uint64_t turn);
#ifdef __cplusplus
}
#endif
