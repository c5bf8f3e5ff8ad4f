/* Targets: one const row each (targets.def). Passes read the numbers, never the name. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "ir/expr/expr.h"

typedef enum Arch { ARCH_X86_64, ARCH_AARCH64, ARCH_ARM } Arch;

typedef struct Target {
  const char *name;      /* --target=NAME */
  const char *help;
  Arch arch;
  const char *triple, *cpu, *features; /* LLVM */
  const char *lld_emulation;           /* -m of ld.lld */
  const char *qemu;      /* user-mode emulator for tests, e.g. qemu-aarch64-static; NULL: none */
  const char *qemu_cpu;
  int vector_bits;       /* width that kernels use */
  int vector_regs;       /* architectural vector registers */
  bool fma;              /* fused multiply-add in one instruction */
  bool masks;            /* masked vector loads and stores are cheap */
  bool broadcast_operand;/* FMA can take a broadcast scalar from memory */
  bool f16_convert;      /* f16<->f32 conversion instructions */
  int fma_per_cycle;     /* vector FMAs per cycle, for cost models */
  int64_t l1_bytes, l2_bytes; /* per core */
  int64_t l3_bytes;
  int pointer_bits;
  uint64_t cpu_features; /* runtime/core/cpu.h bits that must be present */
  char features_text[192]; /* native: what features points to */
} Target;

extern const Target target_rows[];
extern const int target_row_count;
const Target *target_find(const char *name);           /* NULL: unknown */
/* "native": the best row this CPU satisfies, with caches and host features filled in; storage is
 * the caller's. A copy of it points into the original (features_text). */
bool target_native(Target *out);
FloatRules target_float_rules(const Target *t);
static inline int target_lanes(const Target *t, int elem_bits) {
  return t->vector_bits / elem_bits;
}
