/* Loop IR → machine code and files. */
#pragma once
#include "codegen/files/outputs.h"
#include "ir/loop/loop.h"
#include "targets/target.h"

typedef enum EmitKind {
  EMIT_EXE = 1,
  EMIT_OBJ = 2,
  EMIT_STATIC = 4,
  EMIT_SHARED = 8,
  EMIT_HEADER = 16,
  EMIT_ASM = 32,
  EMIT_LLVM = 64,
  EMIT_C = 128,
  EMIT_CUDA = 256,
  EMIT_PTX = 512,
  EMIT_CUBIN = 1024
} EmitKind;

typedef struct CodegenOptions {
  unsigned emit;          /* EmitKind bits */
  const char *output;     /* path of -o; several kinds: the stem, suffixes are added */
  Outputs *outputs;       /* where the files are added; NULL: they are published at once */
  const char *name;       /* C identifier prefix of exported symbols */
  const char *flags;      /* command line for the descriptor */
  const char *model_hash; /* XXH3-128 of the model file, hex */
  bool external_weights;  /* NAME.weights beside the output, mapped at start */
  int opt_level;
  int jobs; /* compile threads; 0: number of CPUs */
  void (*progress)(void *user, int done, int total);
  void *progress_user;
  const struct Backend *backend; /* NULL: the one of the target's row */
} CodegenOptions;

/* What the compiler of a GPU's machine code says of a kernel on one GPU. */
typedef struct KernelFigures {
  const char *name;
  int sm;         /* compute capability × 10 */
  int registers;  /* of a thread */
  int64_t shared; /* bytes of a block, static and dynamic */
  int spills;     /* bytes that a thread stores and loads because registers did not suffice */
} KernelFigures;

typedef struct CodegenStats {
  int kernels, kernel_calls;
  int64_t code_bytes, weight_bytes, file_bytes;
  int64_t arena_bytes,
      thread_bytes; /* for one thread, and each further one; -1: depend on symbols */
  double llvm_seconds, gather_seconds, link_seconds;   /* that went by */
  double make_seconds, optimise_seconds, emit_seconds; /* of CPU, all threads together */
  const KernelFigures *figures; /* of a GPU's kernels; in the model's arena */
  int n_figures;
} CodegenStats;

/* Writes every requested file, all or none. Expects a module that has passed the
 * memory planner, without reductions in expressions. Scratch parameters of a kernel lie in a
 * thread's scratch in order, each 64-aligned. */
bool codegen_write(const Module *m, const Target *t, const CodegenOptions *o, CodegenStats *stats);

/* Microseconds that a launch of a kernel takes at least on a GPU, by its arithmetic or its memory, for
 * sizes as they are guessed. */
double codegen_limit_us(const Module *m, const Kernel *k, const Gpu *g);
/* Of a target with a GPU: what the host has to do with a step, as a sentence with its nodes; NULL:
 * the device does it alone. */
const char *codegen_host_work(const Module *m, const Target *t, const Step *s);
/* Whether launches are kept as graphs, as a sentence. */
const char *codegen_graph_note(const Module *m, const Target *t);
/* Whether C source can have the runtime function. */
bool codegen_c_has(const ExternRow *row);
