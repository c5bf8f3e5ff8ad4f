/* What the entry of a model whose kernels run on a GPU, and the runtime below it, agree on. The
 * entry is the one of any program: it checks what the caller gives, on the host, and goes through
 * the steps. Between begin and end every address in it is the device's; what it reads itself
 * (conditions, sizes) goes through read. Freestanding C11.
 *
 *   entry checks → begin → (launch | copy | read | call)… → end → results
 *
 * There are two devices, which take the same calls: CUDA's driver, opened when the first run
 * begins (driver.c), and this CPU (stand_in.c, of target cuda:host). */
#pragma once
#include "runtime/abi.h"
#include "runtime/cuda/call.h"

/* A kernel as the entry launches it. Its parameters are n_bufs addresses, in the order of the
 * kernel's parameters, then n_syms sizes as int64_t, in ascending order of their ids. Of none it is
 * one RtCall. */
typedef struct GpuKernel {
  const char *name;   /* of the function in its module */
  int32_t unit;       /* which module of the images it is in */
  int32_t threads[3]; /* of a block: x, y, z */
  uint32_t shared;    /* dynamic shared memory of a block, bytes */
  int32_t n_bufs, n_syms;
  const int32_t *syms; /* ids */
  /* On the stand-in: runs one block, args as of cuLaunchKernel. NULL: machine code is in images. */
  void (*host)(void *const *args, const int32_t block[3], const int32_t grid[3]);
} GpuKernel;

/* Machine code, as one array: this header, n rows, then what they point to. */
typedef struct GpuImage {
  int32_t unit; /* kernels were compiled in units */
  /* Cubin for this compute capability × 10; negative: PTX, for -sm and newer, that ends with a zero
   * byte */
  int32_t sm;
  uint64_t offset, bytes; /* from the beginning of the array; 8-aligned */
} GpuImage;
typedef struct GpuImages {
  uint64_t magic; /* GPU_IMAGES_MAGIC */
  int32_t n, n_units;
  GpuImage rows[];
} GpuImages;
#define GPU_IMAGES_MAGIC UINT64_C(0x31676d696e727562) /* "burnimg1" */

/* The model, as its entry describes it: NAME_gpu, constant. */
typedef struct GpuModel {
  uint32_t size; /* of this struct */
  int32_t n_kernels;
  const GpuKernel *kernels;
  const GpuImages *images; /* NULL: the stand-in's */
  const void *weights;     /* of the host; uploaded once for each handle */
  uint64_t weight_bytes;
  /* The host calls nothing between begin and end, and what it reads follows from the bytes of the
   * inputs `controls` (by position, at most 256 bytes): what was launched once, with the same
   * addresses, sizes and controls, can be launched as a graph */
  int32_t replayable, n_controls;
  const int32_t *controls;
  uint64_t note_bytes; /* that the host looks at when all is done */
} GpuModel;

/* A tensor that crosses the border. Kernels find it aligned by GPU_TENSOR_ALIGN bytes: one that is
 * not is copied. */
enum { GPU_TENSOR_ALIGN = 16 };
typedef struct GpuTensor {
  const void *host; /* as the caller gave it, or a default, or a device address */
  uint64_t bytes;   /* of an output: at most */
} GpuTensor;

/* What a run has of its device. Filled by begin; the entry reads it. */
typedef struct GpuRun {
  void *arena; /* device addresses */
  void *weights;
  void **in, **out; /* by position; behind the inputs the flag of BUF_UNSET */
  void *state;      /* the device's own */
} GpuRun;

/* Inputs are on their way, buffers are there. `dims`: the n_dims sizes that the caller gave; `syms`:
 * n_syms values that steps may change, until end. Returns GPU_RUN when the steps are to be gone
 * through, GPU_REPLAYED when a graph of them was launched instead (`syms` are those behind its
 * steps, end follows at once), or the negative of a status of the run. */
enum { GPU_RUN = 0, GPU_REPLAYED = 1 };
int32_t burin_gpu_begin(const GpuModel *m, const BurinOptions *o, const GpuTensor *in, int32_t n_in,
                        const GpuTensor *out, int32_t n_out, const int64_t *dims, int32_t n_dims,
                        int64_t *syms, int32_t n_syms, uint64_t arena_bytes, GpuRun *run);
/* Status. `step`: position in the profile. */
int32_t burin_gpu_launch(GpuRun *run, int32_t step, int32_t kernel, void *const *bufs,
                         const int64_t *syms, int64_t x, int64_t y, int64_t z);
int32_t burin_gpu_copy(GpuRun *run, void *to, const void *from, uint64_t bytes);
/* Waits; then `bytes` (at most 8) of the device are at `to`. */
int32_t burin_gpu_read(GpuRun *run, void *to, const void *from, uint64_t bytes);
/* A runtime function on the host: its tensors come over, results go back. Addresses are the
 * device's; bytes[i] of in, then out (at most), then scratch_bytes of scratch that it wants, or the
 * caller's heap (NULL: scratch). */
int32_t burin_gpu_call(GpuRun *run, int32_t step, RtOpFn fn, const RtTensor *in, int32_t n_in,
                       RtTensor *out, int32_t n_out, const int64_t *words, const uint64_t *bytes,
                       uint64_t scratch_bytes, void *heap);
/* A runtime function that the device runs (runtime/cuda/call.h): the kernel's parameter is one
 * RtCall, its launches are phases, of members/RT_BLOCK blocks (phases 0: one thread). Addresses are
 * the device's. With `waits` the run waits for the result: the status, which is returned, and dims of
 * out; else these stay on the device. */
typedef struct GpuCall {
  int32_t kernel, phases, members, waits;
  const RtTensor *in;
  RtTensor *out;
  int32_t n_in, n_out;
  const int64_t *words;
  int64_t n_words;
  void *scratch;
  int64_t *result; /* of 1 + the ranks of out */
} GpuCall;
int32_t burin_gpu_device_call(GpuRun *run, int32_t step, const GpuCall *call);

/* What the host looks at when all is done: `bytes` of the device. Together GpuModel.note_bytes. */
typedef struct GpuNote {
  const void *from;
  void *to;
  uint64_t bytes;
} GpuNote;
/* Results are where the caller wants them: out_bytes[k] of output k; and so are notes, also in a run
 * that else waits for nothing. Status of the whole run, also after a failed step (`status`), which is
 * then returned. */
int32_t burin_gpu_end(GpuRun *run, int32_t status, const uint64_t *out_bytes, const GpuNote *notes,
                      int32_t n_notes);

/* ---- devices of their own, for C programs: NAME_cuda_create … ----
 * Each has its memory, stream and graphs; runs on one of them follow each other, runs on several
 * go on at the same time. context: a CUcontext; NULL: the primary one of the device that is current,
 * or of the first. Status; why it failed goes to `failure`, if that is not NULL. */
int32_t burin_gpu_create(const GpuModel *m, void *context, BurinFailure *failure, void **device);
/* Waits for the runs that were queued. NULL is allowed. */
void burin_gpu_destroy(void *device);
/* Options of a run on `device` that is queued on `stream` (NULL: CUDA's default stream). */
void burin_gpu_async_options(BurinOptions *o, void *device, void *stream);
