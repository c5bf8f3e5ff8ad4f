/* The device of target cuda:host: this CPU. Its memory is the host's, so tensors stay where they
 * are, if they are aligned; the arena is the run's own, full of ones, so that what was not written shows. Blocks run one
 * after the other, in an order that the caller chooses, and so do the kernels of runs that go on at
 * the same time: which block runs is a variable of theirs. */
#include "runtime/core/rt.h"
#include "runtime/core/sys.h"
#include "runtime/cuda/block.h"
#include "runtime/cuda/fill.h"
#include "runtime/cuda/gpu.h"

typedef struct Run {
  size_t bytes; /* of this block: it, addresses, arguments, arena */
  const GpuModel *model;
  const BurinOptions *options;
  void **args;
  void **out, **given; /* outputs as kernels find them, and as the caller does */
  int32_t n_out;
} Run;

enum { ALIGN = 256 };
static uint64_t round_up(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static int32_t most_arguments(const GpuModel *m) {
  int32_t n = 1;
  for (int32_t i = 0; i < m->n_kernels; i++) {
    const int32_t k = m->kernels[i].n_bufs + m->kernels[i].n_syms;
    if (k > n) n = k;
  }
  return n;
}

static bool is_aligned(const void *p) { return (uintptr_t)p % GPU_TENSOR_ALIGN == 0; }

/* Bytes for copies of what is not aligned. */
static uint64_t copied_bytes(const GpuTensor *t, int32_t n) {
  uint64_t bytes = 0;
  for (int32_t i = 0; i < n; i++)
    if (!is_aligned(t[i].host)) bytes += round_up(t[i].bytes);
  return bytes;
}

/* Where kernels find tensors; returns what is behind copies that begin at `copies`. */
static char *find_tensors(void **address, const GpuTensor *t, int32_t n, char *copies) {
  for (int32_t i = 0; i < n; i++) {
    address[i] = (void *)(uintptr_t)t[i].host;
    if (is_aligned(t[i].host)) continue;
    address[i] = copies;
    copies += round_up(t[i].bytes);
  }
  return copies;
}

int32_t burin_gpu_begin(const GpuModel *m, const BurinOptions *o, const GpuTensor *in, int32_t n_in,
                        const GpuTensor *out, int32_t n_out, const int64_t *dims, int32_t n_dims,
                        int64_t *syms, int32_t n_syms, uint64_t arena_bytes, GpuRun *run) {
  static const BurinOptions none = {.size = sizeof none};
  if (!o) o = &none;
  const uint64_t pointers = (uint64_t)n_in + 2 * (uint64_t)n_out + (uint64_t)most_arguments(m);
  const uint64_t tables = round_up(sizeof(Run) + pointers * sizeof(void *));
  const uint64_t head = tables + copied_bytes(in, n_in) + copied_bytes(out, n_out);
  if (o->device && o->device != m) return -BURIN_E_ARGUMENT;
  Run *const r = arena_bytes < SIZE_MAX / 2 ? sys_alloc(head + arena_bytes + ALIGN) : NULL;
  if (!r)
    return -burin_rt_fail(o, BURIN_E_DEVICE, -1,
                          (int64_t)(uintptr_t)"not enough memory for an arena of %u bytes",
                          (int64_t)arena_bytes, 0);
  void **const addresses = (void **)(r + 1);
  *r = (Run){.bytes = head + arena_bytes + ALIGN, .model = m, .options = o, .n_out = n_out};
  r->out = addresses + n_in;
  r->given = r->out + n_out;
  r->args = r->given + n_out;
  char *const copies = find_tensors(addresses, in, n_in, (char *)r + tables);
  find_tensors(r->out, out, n_out, copies);
  for (int32_t i = 0; i < n_in; i++)
    if (addresses[i] != in[i].host) burin_rt_copy(addresses[i], in[i].host, in[i].bytes);
  for (int32_t i = 0; i < n_out; i++) r->given[i] = (void *)(uintptr_t)out[i].host;
  char *const arena = (char *)r + head;
  __builtin_memset(arena, 0xFF, arena_bytes);
  *run = (GpuRun){arena, (void *)(uintptr_t)m->weights, addresses, addresses + n_in, r};
  return GPU_RUN;
}

static void run_block(const GpuKernel *k, void *const *args, int64_t i, const int32_t grid[3]) {
  const int64_t row = i / grid[0];
  const int32_t block[3] = {(int32_t)(i % grid[0]), (int32_t)(row % grid[1]),
                            (int32_t)(row / grid[1])};
  k->host(args, block, grid);
}

/* As on a GPU. */
static bool grid_fits(int64_t x, int64_t y, int64_t z) {
  enum { MOST_X = 0x7fffffff, MOST = 65535 };
  return x <= MOST_X && y <= MOST && z <= MOST;
}

/* One kernel at a time. */
static void run_blocks(const Run *r, int32_t kernel, const int32_t grid[3]) {
  static uint32_t lock;
  sys_lock(&lock);
  burin_gpu_order = r->options->gpu_order;
  for (int64_t i = 0, n = (int64_t)grid[0] * grid[1] * grid[2]; i < n; i++)
    run_block(&r->model->kernels[kernel], r->args, burin_gpu_pick(i, n, (uint64_t)kernel + 1),
              grid);
  sys_unlock(&lock);
}

int32_t burin_gpu_launch(GpuRun *run, int32_t step, int32_t kernel, void *const *bufs,
                         const int64_t *syms, int64_t x, int64_t y, int64_t z) {
  const Run *const r = run->state;
  const BurinOptions *const o = r->options;
  const GpuKernel *const k = &r->model->kernels[kernel];
  const bool timed = o->kernel_ns && o->clock_ns;
  const uint64_t start = timed ? o->clock_ns() : 0;
  const int32_t grid[3] = {(int32_t)x, (int32_t)y, (int32_t)z};
  if (x <= 0 || y <= 0 || z <= 0) return BURIN_OK;
  if (!grid_fits(x, y, z))
    return burin_rt_fail(o, BURIN_E_DEVICE, -1,
                         (int64_t)(uintptr_t)"kernel %s has more blocks than a GPU takes",
                         (int64_t)(uintptr_t)k->name, 0);
  for (int32_t i = 0; i < k->n_bufs; i++) r->args[i] = (void *)(uintptr_t)&bufs[i];
  for (int32_t i = 0; i < k->n_syms; i++)
    r->args[k->n_bufs + i] = (void *)(uintptr_t)&syms[k->syms[i]];
  run_blocks(r, kernel, grid);
  if (timed) o->kernel_ns[step] += o->clock_ns() - start;
  return BURIN_OK;
}

int32_t burin_gpu_copy(GpuRun *run, void *to, const void *from, uint64_t bytes) {
  burin_rt_copy(to, from, bytes);
  return BURIN_OK;
}

int32_t burin_gpu_read(GpuRun *run, void *to, const void *from, uint64_t bytes) {
  burin_rt_copy(to, from, bytes);
  return BURIN_OK;
}

int32_t burin_gpu_call(GpuRun *run, int32_t step, RtOpFn fn, const RtTensor *in, int32_t n_in,
                       RtTensor *out, int32_t n_out, const int64_t *words, const uint64_t *bytes,
                       uint64_t scratch_bytes, void *heap) {
  const BurinOptions *const o = ((const Run *)run->state)->options;
  const bool timed = o->kernel_ns && o->clock_ns;
  const uint64_t start = timed ? o->clock_ns() : 0;
  void *const scratch = scratch_bytes ? sys_alloc(scratch_bytes) : NULL;
  if (scratch_bytes && !scratch)
    return burin_rt_fail(o, BURIN_E_DEVICE, -1,
                         (int64_t)(uintptr_t)"not enough memory for a function on the host", 0, 0);
  const int32_t status = fn(in, n_in, out, n_out, words, heap ? heap : scratch);
  if (scratch) sys_free(scratch, scratch_bytes);
  if (timed) o->kernel_ns[step] += o->clock_ns() - start;
  return status;
}

int32_t burin_gpu_end(GpuRun *run, int32_t status, const uint64_t *out_bytes, const GpuNote *notes,
                      int32_t n_notes) {
  Run *const r = run->state;
  for (int32_t i = 0; i < r->n_out && !status; i++)
    if (r->out[i] != r->given[i]) burin_rt_copy(r->given[i], r->out[i], out_bytes[i]);
  for (int32_t i = 0; i < n_notes && !status; i++)
    burin_rt_copy(notes[i].to, notes[i].from, notes[i].bytes);
  sys_free(r, r->bytes);
  return status;
}

int32_t burin_gpu_device_call(GpuRun *run, int32_t step, const GpuCall *call) {
  const Run *const r = run->state;
  const BurinOptions *const o = r->options;
  const bool timed = o->kernel_ns && o->clock_ns;
  const uint64_t start = timed ? o->clock_ns() : 0;
  const int32_t grid[3] = {call->phases ? call->members / RT_BLOCK : 1, 1, 1};
  const int32_t last = call->phases ? call->phases - 1 : 0;
  RtCall c = fill_call(call);
  r->args[0] = &c;
  for (c.phase = 0; c.phase <= last; c.phase++) {
    c.last = c.phase == last;
    run_blocks(r, call->kernel, grid);
  }
  if (timed) o->kernel_ns[step] += o->clock_ns() - start;
  return call->waits ? take_result(call, &c, call->result) : BURIN_OK;
}

/* There is nothing to be made: runs share nothing. */
int32_t burin_gpu_create(const GpuModel *m, void *context, BurinFailure *failure, void **device) {
  if (!m || !device) return BURIN_E_ARGUMENT;
  *device = (void *)(uintptr_t)m;
  return BURIN_OK;
}

void burin_gpu_destroy(void *device) { (void)device; }

void burin_gpu_async_options(BurinOptions *o, void *device, void *stream) {
  *o = (BurinOptions){.size = sizeof *o, .device = device, .stream = stream};
}
