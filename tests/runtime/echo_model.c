/* A hand-written model for tests of the program around a model: y = 2x and s = sum of x, over any
 * height and width. NEEDS_CPU: feature bits to ask for. READS_ARENA: the sum depends on what memory
 * held before. */
#include "runtime/core/rt.h"

#ifndef NEEDS_CPU
#define NEEDS_CPU 0
#endif

static const int64_t image_dims[] = {1, 3, -1, -2};
static const int64_t sum_dims[] = {1};
static const BurinTensorInfo inputs[] = {{"x", 1, 4, image_dims, "f32[1,3,h,w]", 0, 0}};
static const BurinTensorInfo outputs[] = {{"y", 1, 4, image_dims, "f32[1,3,h,w]", 0, 0},
                                          {"s", 7, 1, sum_dims, "i64[1]", 0, 0}};
static const char *const symbols[] = {"h", "w"};
static const BurinKernelInfo kernels[] = {{"k0_double", "node", 0}};

static void twice(void *const *bufs, const int64_t *syms, int64_t begin, int64_t end,
                  void *scratch) {
  (void)syms, (void)scratch;
  for (int64_t i = begin; i < end; i++) ((float *)bufs[1])[i] = 2 * ((const float *)bufs[0])[i];
}

static int32_t invoke(const void *const *in, void *const *out, int64_t *dims, void *arena,
                      const BurinOptions *o) {
  if (!in[0] || !out[0] || !out[1]) return BURIN_E_ARGUMENT;
  void *bufs[] = {(void *)in[0], out[0]};
  const int64_t n = 3 * dims[0] * dims[1];
  const uint64_t start = o->kernel_ns ? o->clock_ns() : 0;
  burin_rt_parallel(o, twice, bufs, dims, n, 1, arena, 0);
  if (o->kernel_ns) o->kernel_ns[0] += o->clock_ns() - start;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += ((const float *)in[0])[i];
#ifdef READS_ARENA
  sum += ((const char *)arena)[0];
#endif
  *(int64_t *)out[1] = (int64_t)sum;
  return BURIN_OK;
}

static uint64_t arena_size(const int64_t *dims, int32_t threads) {
  return (uint64_t)(dims[0] * threads);
}
static void output_dims(int32_t k, const int64_t *dims, int64_t *out, int32_t bounds) {
  (void)bounds;
  out[0] = 1;
  if (k == 0) out[1] = 3, out[2] = dims[0], out[3] = dims[1];
}

const BurinModel burin_program_model = {BURIN_ABI_VERSION,
                                        sizeof(BurinModel),
                                        "echo",
                                        "test",
                                        "test",
                                        "",
                                        "0",
                                        1,
                                        2,
                                        2,
                                        2,
                                        inputs,
                                        outputs,
                                        symbols,
                                        0,
                                        0,
                                        64,
                                        64,
                                        0,
                                        0,
                                        1,
                                        kernels,
                                        NEEDS_CPU,
                                        invoke,
                                        arena_size,
                                        output_dims};
