/* What CUDA text that was compiled for this CPU (target cuda:host) calls: the threads of a block, in
 * turn, or as fibres that wait for each other at barriers. stand_in.c. */
#pragma once
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

typedef void (*GpuThread)(void *arg);
/* Runs the threads 0 … n - 1 of a block. `barriers`: they may call burin_gpu_barrier, each has a
 * stack of its own. The block has `shared` bytes of shared memory, filled with 0xCD. */
void burin_gpu_block_run(GpuThread thread, void *arg, int32_t threads, uint32_t shared,
                         int32_t barriers);
/* Of the running thread, in its block. */
int32_t burin_gpu_thread(void);
void *burin_gpu_shared(void);
/* All threads of the block, or of the warp (32 that follow each other), have come here. `site`
 * tells the places in the text apart: threads that wait at different ones, or one that has ended
 * before, are an error that ends the process with a message. */
void burin_gpu_barrier(int32_t site);
void burin_gpu_warp_barrier(int32_t site);

#ifdef __cplusplus
}
#endif
