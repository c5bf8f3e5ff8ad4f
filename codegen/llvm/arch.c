/* The rows of arch.h. */
#include "codegen/llvm/arch.h"

enum { FLUSH = 1 << 24 }; /* ARM: flush to zero */

const ArchRow arch_rows[ARCH_COUNT] = {
    [ARCH_X86_64] =
        {
            .baseline_cpu = "x86-64",
            .fence = true,
            .bf16_pairs = "llvm.x86.avx512bf16.dpbf16ps",
            .bf16_round = "llvm.x86.avx512bf16.cvtneps2bf16",
            .rounds = true,
            .mode_get = "llvm.x86.sse.stmxcsr",
            .mode_set = "llvm.x86.sse.ldmxcsr",
            .mode_in_memory = true,
            .mode_bits = 32,
            .mode = 0x9fc0,
        },
    [ARCH_AARCH64] =
        {
            .rounds = true,
            .count_down = true,
            .minmax_f64 = true,
            .pair_sum = {"llvm.aarch64.neon.uaddlp", "llvm.aarch64.neon.saddlp"},
            .long_product = {"llvm.aarch64.neon.umull", "llvm.aarch64.neon.smull"},
            .pair_add = "llvm.aarch64.neon.addp",
            .narrows_pairs = true,
            .byte_tables = true,
            .bf16_upper = "llvm.aarch64.neon.bfmlalt",
            .bf16_lower = "llvm.aarch64.neon.bfmlalb",
            .mode_get = "llvm.aarch64.get.fpcr",
            .mode_set = "llvm.aarch64.set.fpcr",
            .mode_bits = 64,
            .mode = FLUSH,
        },
    [ARCH_ARM] =
        {
            .count_down = true,
            .pair_sum = {"llvm.arm.neon.vpaddlu", "llvm.arm.neon.vpaddls"},
            .long_product = {"llvm.arm.neon.vmullu", "llvm.arm.neon.vmulls"},
            .mode_get = "llvm.arm.get.fpscr",
            .mode_set = "llvm.arm.set.fpscr",
            .mode_bits = 32,
            .mode = FLUSH,
        },
};
