/* What the runtime's sources (runtime/core, runtime/ops) build on, in plain C99. */
#include <stdbool.h>
#ifdef __TINYC__
#define __builtin_memcpy memcpy
#endif

typedef struct RtTensor {
  void *data;    /* NULL: absent optional */
  int32_t dtype; /* TensorProto.DataType number */
  int32_t rank;
  int64_t *dims; /* of outputs whose sizes depend on data the function writes them */
} RtTensor;
typedef void (*BurinKernelFn)(void *const *bufs, const int64_t *syms, int64_t begin, int64_t end,
                              void *scratch);

static inline void burin_rt_parallel(const BurinOptions *o, BurinKernelFn kernel, void *const *bufs,
                                     const int64_t *syms, int64_t n, int64_t min_chunk,
                                     char *scratch, uint64_t scratch_stride);
static inline int32_t burin_rt_options(const BurinOptions *given, BurinOptions *own);
static inline int32_t burin_rt_fail(const BurinOptions *own, int32_t status, int32_t check,
                                    int64_t a, int64_t b, int64_t c);
static inline int32_t burin_rt_failure_text(const BurinModel *m, const BurinFailure *failure,
                                            char *text, int32_t size);
static inline int64_t burin_rt_inputs(const void *const *in, const BurinDefault *defaults,
                                      int64_t n, const void **own);

static inline void burin_rt_copy(void *dst, const void *src, uint64_t bytes) {
  if (bytes && dst != src) memmove(dst, src, (size_t)bytes);
}
static inline int burin_rt_memcmp(const void *a, const void *b, size_t n) {
  return memcmp(a, b, n);
}

/* ---- profile: opts->kernel_ns and kernel_flops by position ---- */
static inline uint64_t burin_c_clock(const BurinOptions *o) {
  return o->kernel_ns && o->clock_ns ? o->clock_ns() : 0;
}
static inline void burin_c_note(const BurinOptions *o, int k, uint64_t since, uint64_t flops) {
  if (!o->kernel_ns || !o->clock_ns) return;
  o->kernel_ns[k] += o->clock_ns() - since;
  if (o->kernel_flops) o->kernel_flops[k] += flops;
}
/* The index that a key stands for (passes/graph/check_indices.c). */
static inline int64_t burin_c_index(int64_t key) {
  const int64_t big = (int64_t)1 << 62, k = key >= big ? key - big : key;
  return k % 2 != 0 ? k / 2 : -(k / 2);
}
