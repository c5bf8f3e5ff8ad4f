/* Hand-written models as their entry would call the device: y = relu(2x + 1), blocks of 32 reversed,
 * and s, how many elements of y are positive. Two kernels, of which the second has barriers and
 * shared memory; a function on the host and a read between them (m_model), or none (r_model, without
 * s, whose launches can be replayed). HOST_KERNELS: for the stand-in and the fake driver. */
#include <stdbool.h>

#include "runtime/core/rt.h"
#include "runtime/cuda/gpu.h"

#define SHOWN __attribute__((visibility("default")))
enum { BLOCK = 32, SHARED = 64 << 10 }; /* more than a kernel may have without asking */

/* ---- kernels ---- */
#ifdef HOST_KERNELS
#include "runtime/cuda/block.h"

static void scale(void *const *args, const int32_t block[3], const int32_t grid[3]) {
  const float *const x = *(const float **)args[0], *const w = *(const float **)args[1];
  float *const t = *(float **)args[2];
  const int64_t n = *(const int64_t *)args[3];
  (void)grid;
  for (int i = 0; i < BLOCK; i++) {
    const int64_t at = block[0] * BLOCK + i;
    if (at < n) t[at] = x[at] * w[0] + w[1];
  }
}

typedef struct Reverse {
  const float *t;
  float *y;
  int64_t first, n;
} Reverse;
static void reverse_thread(void *arg) {
  const Reverse *const r = arg;
  const int i = burin_gpu_thread();
  float *const shared = burin_gpu_shared();
  if (r->first + i < r->n) shared[i] = r->t[r->first + i];
#ifdef ENDS_EARLY
  if (i == 7) return;
#endif
#ifndef NO_BARRIER
#ifdef TWO_BARRIERS
  burin_gpu_barrier(i < 16 ? 1 : 2);
#else
  burin_gpu_barrier(1);
#endif
#endif
  const float v = shared[BLOCK - 1 - i];
  if (r->first + i < r->n) r->y[r->first + i] = v > 0 ? v : 0;
}
static void reverse(void *const *args, const int32_t block[3], const int32_t grid[3]) {
  Reverse r = {*(const float **)args[0], *(float **)args[1], block[0] * BLOCK,
               *(const int64_t *)args[2]};
  (void)grid;
  burin_gpu_block_run(reverse_thread, &r, BLOCK, SHARED, 1);
}
#define RUN_HERE(f) , f
#else
#define RUN_HERE(f) , 0
#endif

static const int32_t all_syms[] = {0};
static const GpuKernel kernels[] = {
    {"scale", 0, {BLOCK, 1, 1}, 0, 3, 1, all_syms RUN_HERE(scale)},
    {"reverse", 0, {BLOCK, 1, 1}, SHARED, 2, 1, all_syms RUN_HERE(reverse)}};

enum { CODE = sizeof(GpuImages) + 3 * sizeof(GpuImage) };
static const struct {
  uint64_t magic; /* as GpuImages begins */
  int32_t n, n_units;
  GpuImage rows[3];
  char code[16];
} images __attribute__((aligned(16))) = {
    .magic = GPU_IMAGES_MAGIC,
    .n = 3,
    .n_units = 1,
    .rows = {{0, 80, CODE, 8}, {0, 90, CODE, 8}, {0, -90, CODE + 8, 8}},
    .code = "cubin",
};

static const float weights[] = {2, 1};
SHOWN const GpuModel m_gpu = {sizeof(GpuModel), 2, kernels, (const GpuImages *)&images, weights,
                              sizeof weights,   0};
static const GpuModel r_gpu = {sizeof(GpuModel), 2, kernels, (const GpuImages *)&images, weights,
                               sizeof weights,   1};

/* ---- the entry ---- */
static int32_t count_positive(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                              const int64_t *words, void *scratch) {
  int64_t n = 0;
  (void)n_in, (void)n_out, (void)words;
  ((char *)scratch)[99] = 1;
  for (int64_t i = 0; i < in[0].dims[0]; i++) n += ((const float *)in[0].data)[i] > 0;
  *(int64_t *)out[0].data = n;
  return BURIN_OK;
}

static int32_t steps(GpuRun *run, int64_t n, bool replayable) {
  const int64_t blocks = (n + BLOCK - 1) / BLOCK;
  void *scale_bufs[] = {run->in[0], run->weights, run->arena};
  int32_t status = burin_gpu_launch(run, 0, 0, scale_bufs, &n, blocks, 1, 1);
  void *bufs[] = {run->arena, run->out[0]};
  if (!status) status = burin_gpu_launch(run, 1, 1, bufs, &n, blocks, 1, 1);
  if (status || replayable) return status;
  int64_t dims[] = {n}, one[] = {1}, got = -1;
  const RtTensor y = {run->out[0], 1, 1, dims};
  RtTensor s = {run->out[1], 7, 1, one};
  const uint64_t bytes[] = {(uint64_t)n * 4, 8};
  status = burin_gpu_call(run, 2, count_positive, &y, 1, &s, 1, NULL, bytes, 100, NULL);
  if (!status) status = burin_gpu_read(run, &got, run->out[1], 8);
  return status ? status : got > n ? BURIN_E_DATA : BURIN_OK;
}

static int32_t enter(const GpuModel *m, const void *const *in, void *const *out, int64_t *dims,
                     const BurinOptions *given, int32_t n_out) {
  BurinOptions o;
  GpuRun run;
  int32_t status = burin_rt_options(given, &o);
  if (status) return status;
  if (!in[0] || !out[0] || (n_out == 2 && !out[1])) return BURIN_E_ARGUMENT;
  const uint64_t bytes = (uint64_t)dims[0] * 4, out_bytes[] = {bytes, 8};
  const GpuTensor from = {in[0], bytes}, to[] = {{out[0], bytes}, {n_out == 2 ? out[1] : 0, 8}};
  const int32_t how = burin_gpu_begin(m, &o, &from, 1, to, n_out, dims, 1, NULL, 0, bytes, &run);
  if (how < 0) return -how;
  if (how == GPU_RUN) status = steps(&run, dims[0], m->replayable);
  return burin_gpu_end(&run, status, out_bytes, NULL, 0);
}

static int32_t m_invoke(const void *const *in, void *const *out, int64_t *dims, void *arena,
                        const BurinOptions *o) {
  (void)arena;
  return enter(&m_gpu, in, out, dims, o, 2);
}
static int32_t r_invoke(const void *const *in, void *const *out, int64_t *dims, void *arena,
                        const BurinOptions *o) {
  (void)arena;
  return enter(&r_gpu, in, out, dims, o, 1);
}
static uint64_t arena_size(const int64_t *dims, int32_t threads) {
  (void)dims, (void)threads;
  return 0;
}
static void output_dims(int32_t k, const int64_t *dims, int64_t *out, int32_t bounds) {
  (void)bounds;
  out[0] = k ? 1 : dims[0];
}

static const int64_t line_dims[] = {-1}, one_dims[] = {1};
static const BurinTensorInfo inputs[] = {{"x", 1, 1, line_dims, "f32[n]", 0, 0}};
static const BurinTensorInfo outputs[] = {{"y", 1, 1, line_dims, "f32[n]", 0, 0},
                                          {"s", 7, 1, one_dims, "i64[1]", 0, 0}};
static const char *const symbols[] = {"n"};
static const BurinKernelInfo steps_info[] = {
    {"scale", "n0", 0}, {"reverse", "n1", 0}, {"count", "n2", 0}};

static int32_t failure_text(const BurinFailure *failure, char *text, int32_t size);
#define MODEL(outs, run)             \
  {.abi_version = BURIN_ABI_VERSION, \
   .size = sizeof(BurinModel),       \
   .name = "hand",                   \
   .producer = "test",               \
   .target = TARGET,                 \
   .flags = "",                      \
   .model_hash = "0",                \
   .n_inputs = 1,                    \
   .n_outputs = outs,                \
   .n_symbols = 1,                   \
   .n_caller_symbols = 1,            \
   .inputs = inputs,                 \
   .outputs = outputs,               \
   .symbols = symbols,               \
   .arena_align = 64,                \
   .max_threads = 1,                 \
   .n_kernels = outs + 1,            \
   .kernels = steps_info,            \
   .invoke = run,                    \
   .arena_size = arena_size,         \
   .output_dims = output_dims,       \
   .weights = weights,               \
   .failure_text = failure_text}
#ifdef HOST_KERNELS
#define TARGET "cuda:host"
#else
#define TARGET "cuda:sm_90"
#endif
SHOWN const BurinModel burin_program_model = MODEL(2, m_invoke);
SHOWN const BurinModel replayed_model = MODEL(1, r_invoke);

static int32_t failure_text(const BurinFailure *failure, char *text, int32_t size) {
  return burin_rt_failure_text(&burin_program_model, failure, text, size);
}

/* ---- devices of the host's own, as the header of a model declares them ---- */
SHOWN int32_t m_cuda_create(void *context, void **device, BurinFailure *failure) {
  return burin_gpu_create(&m_gpu, context, failure, device);
}
SHOWN int32_t r_cuda_create(void *context, void **device, BurinFailure *failure) {
  return burin_gpu_create(&r_gpu, context, failure, device);
}
SHOWN void m_cuda_destroy(void *device) { burin_gpu_destroy(device); }
SHOWN void m_async_options(BurinOptions *o, void *device, void *stream) {
  burin_gpu_async_options(o, device, stream);
}
