/* What generated code may call, apart from the operators of ops.h. Freestanding, reentrant, no
 * allocation. */
#pragma once
#include "runtime/abi.h"

/* Iterations [begin, end) of a kernel's parallel loop (or of nothing: then begin = 0, end = 1).
 * bufs: one pointer per parameter; syms: values of all symbols; scratch: this thread's. */
typedef void (*BurinKernelFn)(void *const *bufs, const int64_t *syms, int64_t begin, int64_t end,
                              void *scratch);

/* Runs iterations [0, n) in contiguous ranges of at least min_chunk iterations, no more than
 * o->threads at a time, each with a scratch of its own: the slot's at scratch + slot *
 * scratch_stride. Iterations are independent, so that the ranges do not show in the results. o may
 * be NULL. */
void burin_rt_parallel(const BurinOptions *o, BurinKernelFn kernel, void *const *bufs,
                       const int64_t *syms, int64_t n, int64_t min_chunk, char *scratch,
                       uint64_t scratch_stride);

/* failure.c. Copies what the caller's options hold into `own` (the rest 0), clears the failure;
 * options that are no options (size too small for itself) are BURIN_E_ARGUMENT. */
int32_t burin_rt_options(const BurinOptions *given, BurinOptions *own);
/* Notes a failed check, if the caller wants to know; returns status. */
int32_t burin_rt_fail(const BurinOptions *own, int32_t status, int32_t check, int64_t a, int64_t b,
                      int64_t c);
int32_t burin_rt_failure_text(const BurinModel *m, const BurinFailure *failure, char *text,
                              int32_t size);

/* defaults.c. own[k] = in[k], or the default of input k where in[k] is NULL. Returns -1 when no
 * input that has a default is given, 1 + k when input k is pinned and given another value, else
 * 0. */
int64_t burin_rt_inputs(const void *const *in, const BurinDefault *defaults, int64_t n,
                        const void **own);

/* ops_fmod.c: C's fmod and fmodf; the latter is exact too. */
double burin_rt_fmod(double a, double b);
float burin_rt_fmodf(float a, float b);

/* weights.c: NAME.weights at `path` over m->weights; a status. */
int32_t burin_rt_map_weights(const BurinModel *m, const char *path);

/* memory.c; burin_rt_copy allows overlap. */
void burin_rt_copy(void *dst, const void *src, uint64_t bytes);
void *burin_rt_memcpy(void *dst, const void *src, size_t n);
void *burin_rt_memmove(void *dst, const void *src, size_t n);
void *burin_rt_memset(void *dst, int c, size_t n);
int burin_rt_memcmp(const void *a, const void *b, size_t n);
