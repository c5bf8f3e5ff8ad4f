/* What generated code, the runtime, the program around a model and hosts agree on. Freestanding
 * C11; also valid C++. Versioned: fields are only ever added at the end of a struct. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

/* ---- tensors given to runtime functions ---- */
typedef struct RtTensor {
  void *data;    /* NULL: absent optional */
  int32_t dtype; /* TensorProto.DataType number */
  int32_t rank;
  /* For outputs with data-dependent sizes the function writes the real ones; they come in as
   * upper bounds */
  int64_t *dims;
} RtTensor;
/* words: attributes as packed by the op's row. Returns a status. No allocation, no libc. Sub-byte
 * types take a byte. */
typedef int32_t (*RtOpFn)(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                          const int64_t *words, void *scratch);

/* ---- what the headers of compiled models repeat ---- */
#ifndef BURIN_ABI_VERSION
#define BURIN_ABI_VERSION 1

/* Status of NAME_run and of runtime functions. */
enum {
  BURIN_OK = 0,
  BURIN_E_ARGUMENT = 1, /* null pointer, impossible option */
  BURIN_E_DIMS = 2,     /* dimensions outside what was compiled */
  BURIN_E_ARENA = 3,    /* arena missing, misaligned or too small */
  BURIN_E_CPU = 4,      /* the CPU lacks a feature that the code needs */
  BURIN_E_DATA = 5,     /* data-dependent failure (index, size) */
  BURIN_E_UNSUPPORTED = 6,
  BURIN_E_DEVICE = 7,  /* no GPU that can run it, or it failed: NAME_failure_text says why */
  BURIN_E_MEMORY = 8,  /* options.heap is missing, or gave no more memory */
  BURIN_E_WEIGHTS = 16 /* the file of weights is not mapped, or not the one of this model */
};

/* ---- running ---- */
/* Lends threads: calls task(arg, i) for i in [0, n), possibly at the same time, and returns when
 * all are done. */
typedef void (*BurinTask)(void *arg, int32_t i);
/* Iterations [begin, end) of a loop. No two calls with the same slot go on at the same time. */
typedef void (*BurinRange)(void *arg, int64_t begin, int64_t end, int32_t slot);

/* Why a run failed: see BurinModel.checks. */
typedef struct BurinFailure {
  int32_t status; /* what the run returned */
  int32_t check;  /* position in BurinModel.checks, or -1 */
  /* The sizes or numbers that the check compared. Of BURIN_E_DEVICE: address of a text, and what
   * stands in it for %s (address of a text) and %u */
  int64_t values[3];
} BurinFailure;

/* What the calls of a kernel that a GPU runs have to do. */
typedef struct BurinWork {
  uint64_t bytes; /* of all its buffers, each counted once */
  /* Picoseconds that the target's GPU takes at least: for the multiply-adds at their highest rate,
   * or for the bytes from its memory (not from its cache, which may be faster) */
  uint64_t limit_ps;
} BurinWork;

/* What a heap's `grow` gave. */
typedef struct BurinHeapBlock {
  struct BurinHeapBlock *next;
  uint64_t bytes; /* as they were asked for, this header included */
} BurinHeapBlock;

/* Memory that grows, for models with strings or sizes without a bound. One run at a time uses it. Set `grow`, `user` and
 * zeros; what results point to lives until the next run with it; then free its blocks. */
typedef struct BurinHeap {
  /* 16-aligned memory; NULL: no more. Never given back by a run */
  void *(*grow)(void *user, uint64_t bytes);
  void *user;
  BurinHeapBlock *blocks; /* all of them */
  /* of the run */
  BurinHeapBlock *current;
  uint64_t used; /* bytes of it */
  void *strings;
} BurinHeap;

/* Fields that `size` does not cover count as 0: hosts of older versions keep working. */
typedef struct BurinOptions {
  uint32_t size;   /* sizeof(BurinOptions) */
  int32_t threads; /* 0 or 1: only the calling thread; at most the max_threads compiled */
  void (*parallel_for)(void *user, int32_t n, BurinTask task, void *arg); /* NULL: serial */
  void *user;
  uint64_t *kernel_ns;        /* one per step kernel (info.n_kernels), added to; NULL: no profile */
  uint64_t (*clock_ns)(void); /* needed with kernel_ns */
  /* likewise, multiply-adds ×2 of the sizes of this run; NULL: not wanted */
  uint64_t *kernel_flops;
  /* Like parallel_for, but decides who does how much, while it goes on: covers [0, n) with ranges,
   * of at least `grain` iterations where n is no less; slots are 0 to slots - 1. NULL: parallel_for
   * gets one part for each thread. */
  void (*parallel_ranges)(void *user, int64_t n, int64_t grain, int32_t slots, BurinRange range,
                          void *arg);
  /* Size of the arena: too small for `threads` is BURIN_E_ARENA. 0: it is taken to hold what one
   * thread needs, and no more threads run than it holds */
  uint64_t arena_bytes;
  BurinFailure *failure; /* filled by the run; NULL: not wanted */
  /* ---- models whose kernels run on a GPU ---- */
  void *device; /* what NAME_cuda_create made; NULL: one of the model's own */
  /* A CUstream on which the work is queued: the run returns at once, and outputs are there when the
   * stream is done. NULL: a stream of the device's own, and the run waits. */
  void *stream;
  /* Blocks and threads of cuda:host, whose order nothing may depend on: 0 forward, 1 backward, 2
   * shuffled */
  int32_t gpu_order;
  /* Not 0: tensors of the host are not copied. Inputs are on the GPU since the run before, which
   * had the same sizes and copied them, and outputs stay there. To measure without the copies */
  int32_t gpu_resident;
  BurinWork *kernel_work; /* as kernel_flops; CPUs leave it alone */
  BurinHeap *heap;        /* needed where BurinModel.uses_heap is not 0 */
} BurinOptions;

/* ---- description of a model: NAME_info() ---- */
typedef struct BurinTensorInfo {
  const char *name; /* ONNX name, UTF-8 */
  int32_t dtype;    /* TensorProto.DataType */
  int32_t rank;
  const int64_t *dims; /* ≥ 0: fixed. -1-k: symbol k. INT64_MIN: computed, ask NAME_output_dims */
  const char *shape_text; /* "f32[batch,3,224,224]" */
  float scale;            /* quantization, 0: none */
  int32_t zero_point;
} BurinTensorInfo;

typedef struct BurinKernelInfo {
  const char *name;  /* kernel name */
  const char *nodes; /* ONNX node names and ops it computes, comma separated */
  int64_t flops;     /* multiply-adds ×2 of a call; 0: none, or depends on sizes */
} BurinKernelInfo;

/* What a run checks about sizes, pointers, options and indices. */
typedef struct BurinCheckInfo {
  const char *text; /* what is wrong when it fails; {0}, {1}, {2} stand for the values */
  const char *node; /* ONNX name of the node that needs it; NULL: none */
  int32_t status;   /* what the run then returns */
} BurinCheckInfo;

/* What a NULL pointer for an input stands for. */
typedef struct BurinDefault {
  const void *data;      /* NULL: the input must be given */
  const int64_t *dims;   /* of data, as many as the input's rank */
  uint64_t pinned_bytes; /* not 0: sizes were computed from data, and only its bytes may be given */
} BurinDefault;

/* Labels of the last dimension of an output that ONNX has as a list of maps (ZipMap). */
typedef struct BurinKeys {
  int64_t count;            /* 0: it is no such output */
  const int64_t *ints;      /* or */
  const char *const *texts; /* UTF-8 */
} BurinKeys;

/* An input and an output in one memory, the output's, which has room for `room` elements along
 * `axis`: strides are those of that many. The input's pointer is NULL or the output's; a run keeps
 * what the input's size says is there and writes behind it. axis -1: both have the same sizes, and a
 * run writes the output over the input. */
typedef struct BurinInPlace {
  int32_t input, output, axis;
  int64_t room;
} BurinInPlace;

/* ---- inputs and outputs that are sequences or optionals ---- */
/* A tensor; elements below a byte take one, strings are `const char *`. */
typedef struct BurinItem {
  const void *data;
  int32_t dtype; /* TensorProto.DataType */
  int32_t rank;
  const int64_t *dims;
} BurinItem;

/* A sequence; or an optional, which has a count of -1 where it is empty, else its tensor as one
 * item, or its sequence. An input's is read during the run; an output's is filled by the run, and
 * its items live until the heap's next run. */
typedef struct BurinList {
  int64_t count;
  const BurinItem *items;
#if UINTPTR_MAX < UINT64_MAX
  uint32_t unused; /* 16 bytes everywhere */
#endif
} BurinList;

/* What an input or output is. */
enum { BURIN_NO_LIST, BURIN_SEQUENCE, BURIN_OPTIONAL, BURIN_OPTIONAL_SEQUENCE };
typedef struct BurinListInfo {
  int32_t kind;        /* BURIN_NO_LIST: the input or output is a tensor */
  int32_t dtype;       /* of the items */
  int32_t rank;        /* -1: any */
  const int64_t *dims; /* -1: any */
} BurinListInfo;

/* A tensor of the state of a training step, in a buffer of state_bytes that the caller keeps. */
enum {
  BURIN_STATE_PARAMETER,
  BURIN_STATE_STATISTIC, /* running mean or variance */
  BURIN_STATE_MOMENT,    /* of the optimizer */
  BURIN_STATE_GRADIENT,  /* gathered over several calls */
  BURIN_STATE_COUNTER,
  BURIN_STATE_SCALE      /* of the loss */
};
typedef struct BurinStateInfo {
  const char *name; /* of a parameter or statistic: its initializer's */
  int32_t kind;
  int32_t input, output; /* positions; output -1: runs only read it */
  uint64_t offset, bytes;
  const void *initial; /* NULL: zeros */
} BurinStateInfo;

struct BurinModel;
typedef struct BurinModel {
  uint32_t abi_version, size; /* of this struct */
  const char *name, *producer, *target, *flags, *model_hash;
  int32_t n_inputs, n_outputs, n_symbols, n_caller_symbols; /* caller symbols come first */
  const BurinTensorInfo *inputs, *outputs;
  const char *const *symbols;
  /* For all fixed sizes; 0 when it depends on symbols: ask arena_size. For one thread. */
  uint64_t arena_bytes;
  uint64_t thread_bytes; /* more per further thread (0 when symbolic) */
  uint32_t arena_align;
  int32_t max_threads;
  uint64_t weight_bytes, arena_lower_bound;
  int32_t n_kernels;
  const BurinKernelInfo *kernels;
  uint64_t cpu_features; /* bits of runtime/core/cpu.h that must be present */
  /* in[k], out[k]: data by position. dims: n_symbols values; caller symbols in, runtime ones out.
   */
  int32_t (*invoke)(const void *const *in, void *const *out, int64_t *dims, void *arena,
                    const BurinOptions *opts);
  uint64_t (*arena_size)(const int64_t *dims, int32_t threads);
  /* dims of output k (rank values) from symbols; before a run runtime symbols count as their upper
   * bounds when `bounds` is 1: sizes to allocate. */
  void (*output_dims)(int32_t k, const int64_t *dims, int64_t *out, int32_t bounds);
  const void *weights; /* weight_bytes of them */
  /* Not NULL: the weights lie in this file, beside the program or library; map_weights must be
   * called before the first run */
  const char *weights_file;
  uint64_t weights_hash;                    /* XXH3 of them; 0: no file */
  int32_t (*map_weights)(const char *path); /* NULL: no file. Maps and checks it; a status */
  int32_t n_checks;
  const BurinCheckInfo *checks;
  /* The failure in words, always terminated; returns its whole length without the end. */
  int32_t (*failure_text)(const BurinFailure *failure, char *text, int32_t size);
  const BurinDefault *defaults; /* by input; NULL: all must be given */
  int32_t uses_heap;            /* runs need BurinOptions.heap */
  const BurinKeys *output_keys; /* by output; NULL: none has any */
  const BurinInPlace *in_place; /* n_in_place of them */
  int32_t n_in_place;
  /* By output, not 0: it has no largest size; its pointer is the address of a pointer, which a run
   * sets to where it lies in the heap, until the heap's next run. NULL: none */
  const uint8_t *heap_outputs;
  /* By position; NULL: none is a list. The pointer of one that is, is a BurinList's */
  const BurinListInfo *input_lists, *output_lists;
  /* n_state tensors, ascending offsets. A run's inputs and outputs at their positions are pointers
   * into one buffer of state_bytes, aligned to 64 */
  const BurinStateInfo *state;
  int32_t n_state;
  uint64_t state_bytes;
} BurinModel;
/* Behind the weights in their file: their hash, which runs look for, and zeros. */
enum { BURIN_WEIGHTS_TAIL = 64 };
#endif /* BURIN_ABI_VERSION */

#ifdef __cplusplus
}
#endif
