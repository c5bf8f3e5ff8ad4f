/* Targets, one const row each (targets.def), and the features that they may have (features.def).
 * Passes read the numbers and ask for features; only this folder, code generation and the runtime
 * know architectures, and nobody compares names of targets. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "ir/expr/expr.h"

typedef enum Arch { ARCH_X86_64, ARCH_AARCH64, ARCH_ARM } Arch;
enum { ARCH_COUNT = ARCH_ARM + 1 };

/* What makes files for a target: codegen/ has a Backend for each. No row leaves it out. */
typedef enum BackendKind {
  BACKEND_NONE,
  BACKEND_LLVM,
  BACKEND_C,
  BACKEND_CUDA,
  BACKEND_COUNT
} BackendKind;

typedef enum Feature {
#define F(id, name, x86, arm64, arm32, meaning) FEATURE_##id,
#include "targets/features.def"
  FEATURE_COUNT
} Feature;

typedef struct FeatureRow {
  const char *name;
  const char *meaning;
  struct {
    uint64_t bit;   /* of Target.cpu_features that grants it; 0: none */
    bool from_host; /* `native` adds it to its row where the CPU has it */
  } on[ARCH_COUNT];
} FeatureRow;

enum { GPU_BORDER_ALIGN = 16 }; /* bytes: how kernels find tensors of the caller */
enum { GPU_MOST = 8 }; /* GPUs of one target; there are fewer rows */

/* What a GPU has: the numbers that schedules are chosen by (one SM unless said otherwise). */
typedef struct Gpu {
  int sm;             /* compute capability × 10; 0: a CPU that stands in for a GPU */
  int also[GPU_MOST]; /* further ones that code is made for, ascending; 0 ends */
  int sms;            /* of the smallest product that is common */
  int clock_mhz;
  int registers;        /* of 32 bits */
  int threads;          /* at one time */
  int blocks;           /* likewise */
  int64_t shared_bytes; /* memory of its blocks together, of which each takes 1 KiB more */
  int64_t block_bytes;  /* the most that one block may have */
  int64_t l2_bytes;     /* of the device */
  int gb_per_second;    /* from the device's memory */
  int f32_per_cycle;    /* multiply-adds */
  int f16_per_cycle;    /* of tensor cores with f16 and bf16, through mma.sync; half of it tf32 */
  int i8_per_cycle;
} Gpu;

enum { THREAD_CYCLES = 4096 }; /* estimated cycles of work for which a thread is woken */

typedef struct Target {
  const char *name; /* --target=NAME */
  const char *help;
  BackendKind backend;
  Arch arch;   /* BACKEND_C: of the code that computes constants while a model is compiled */
  bool tuning; /* for one CPU, not a level: `native` does not take it */

  /* ---- tools ---- */
  const char *triple; /* of LLVM, as cpu and llvm_features are */
  const char *cpu;
  const char *llvm_features; /* "+neon,-prefer-256-bit": what cpu does not imply */
  const char *lld_emulation; /* -m of ld.lld */
  const char *qemu;          /* user-mode emulator for tests, e.g. qemu-aarch64; NULL: none */
  const char *qemu_cpu;

  /* ---- instructions ---- */
  uint64_t cpu_features; /* bits of runtime/core/cpu.h that must be present */
  int pointer_bits;
  int vector_bits;        /* width that kernels use */
  int vector_regs;        /* architectural vector registers */
  bool masks;             /* masked vector loads and stores are cheap */
  bool broadcast_operand; /* FMA can take a broadcast scalar from memory */
  bool lane_operand;      /* FMA can take a lane of a vector register */
  bool ordered_zeros;     /* min and max take -0 for less than +0 */
  bool slow_pairs; /* a product of pairs of bf16 takes longer than two FMAs of the same bits */

  /* ---- costs (for threads: THREAD_CYCLES) ---- */
  int fma_per_cycle; /* vector FMAs per cycle */
  bool
      in_order; /* starts instructions in the order of the program, or code is for such CPUs, too */
  int64_t l1_bytes; /* per core, as l2_bytes is */
  int64_t l2_bytes;
  int64_t l3_bytes;

  const Gpu *gpu; /* NULL: kernels run on the CPU. Else the row's other numbers are the host's */

  char features_text[192]; /* native: what llvm_features points to */
} Target;

extern const Target target_rows[];
extern const int target_row_count;
extern const FeatureRow feature_rows[]; /* by Feature */

const Target *target_find(const char *name); /* NULL: unknown; "native" is no row */
const Target *target_of(BackendKind b);      /* the first row that this backend makes files for */
/* As machine code for the CPU that stands in the row, whichever backend makes its files: what is
 * computed while a model is compiled. */
Target target_host_code(const Target *t);
bool target_name_is_native(const char *name);

/* ---- gpu.c ---- */
/* A target of several GPUs: each number is the least of theirs. */
typedef struct GpuTarget {
  Target target; /* points into this struct */
  Gpu gpu;
  char name[96];
} GpuTarget;
bool target_name_is_gpus(const char *name); /* "cuda:sm_80,sm_90", "cuda:native" */
/* NULL, or what is wrong with the name or the machine. */
const char *target_gpus(const char *name, GpuTarget *out);
/* Compute capabilities × 10 that it makes code for, ascending; their number (0: no GPU's). */
int target_sms(const Target *t, int sms[GPU_MOST]);
/* The GPU of this machine that programs take when nobody names one: the first of CUDA's driver. */
typedef struct GpuHere {
  int sm;
  char name[128]; /* "NVIDIA H100 80GB HBM3" */
} GpuHere;
/* NULL, or why code for the target's GPUs does not run here. */
const char *target_gpu_here(const Target *t, GpuHere *out);

/* "native": the best row this CPU satisfies, with caches and host features filled in; storage is
 * the caller's. A copy of it points into the original (features_text). */
bool target_native(Target *out);

bool target_has(const Target *t, Feature f);
/* Its kernels are grids of blocks and threads (ir/loop/loop.h), as a GPU runs them. */
static inline bool target_has_grids(const Target *t) { return t && t->gpu; }
/* Bits of runtime/core/cpu.h that code needs, with or without matrix registers and bf16. */
uint64_t target_cpu_features(const Target *t, bool matrices, bool bf16);
/* Its programs start here, if the CPU has what they need; and whether it has. */
bool target_is_host_arch(const Target *t);
bool target_runs_here(const Target *t);
FloatRules target_float_rules(const Target *t);
static inline int target_lanes(const Target *t, int elem_bits) {
  return t->vector_bits / elem_bits;
}
