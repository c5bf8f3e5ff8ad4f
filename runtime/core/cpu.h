/* CPU features that generated code may need, as bits of BurinModel.cpu_features and
 * Target.cpu_features. Bits are per architecture (a model is for one). The check itself (cpu.c) is
 * compiled for the baseline. */
#pragma once
#include <stdint.h>

/* C(arch, id, bit, name, llvm): arch is X86, ARM64 or ARM32; name is what a message says; llvm is
 * LLVM's attribute. AVX and wider also mean that the operating system saves the registers. */
#define BURIN_CPU_FEATURES(C)                        \
  C(X86, SSE3, 0, "sse3", "sse3")                    \
  C(X86, SSSE3, 1, "ssse3", "ssse3")                 \
  C(X86, SSE41, 2, "sse4.1", "sse4.1")               \
  C(X86, SSE42, 3, "sse4.2", "sse4.2")               \
  C(X86, POPCNT, 4, "popcnt", "popcnt")              \
  C(X86, CX16, 5, "cx16", "cx16")                    \
  C(X86, LAHF, 6, "lahf", "sahf")                    \
  C(X86, AVX, 7, "avx", "avx")                       \
  C(X86, AVX2, 8, "avx2", "avx2")                    \
  C(X86, FMA, 9, "fma", "fma")                       \
  C(X86, F16C, 10, "f16c", "f16c")                   \
  C(X86, BMI1, 11, "bmi", "bmi")                     \
  C(X86, BMI2, 12, "bmi2", "bmi2")                   \
  C(X86, LZCNT, 13, "lzcnt", "lzcnt")                \
  C(X86, MOVBE, 14, "movbe", "movbe")                \
  C(X86, AVX512F, 15, "avx512f", "avx512f")          \
  C(X86, AVX512BW, 16, "avx512bw", "avx512bw")       \
  C(X86, AVX512CD, 17, "avx512cd", "avx512cd")       \
  C(X86, AVX512DQ, 18, "avx512dq", "avx512dq")       \
  C(X86, AVX512VL, 19, "avx512vl", "avx512vl")       \
  C(X86, AVX512VNNI, 20, "avx512vnni", "avx512vnni") \
  C(X86, AVX512BF16, 21, "avx512bf16", "avx512bf16") \
  C(X86, AVX512FP16, 22, "avx512fp16", "avx512fp16") \
  C(X86, AVXVNNI, 23, "avxvnni", "avxvnni")          \
  C(X86, AVX512VBMI, 24, "avx512vbmi", "avx512vbmi") \
  C(X86, AVX512IFMA, 25, "avx512ifma", "avx512ifma") \
  C(X86, AMX_TILE, 26, "amx-tile", "amx-tile")       \
  C(X86, AMX_INT8, 27, "amx-int8", "amx-int8")       \
  C(X86, AMX_BF16, 28, "amx-bf16", "amx-bf16")       \
  C(ARM64, ASIMD, 0, "neon", "neon")                 \
  C(ARM64, CRC, 1, "crc", "crc")                     \
  C(ARM64, FP16, 2, "fullfp16", "fullfp16")          \
  C(ARM64, DOTPROD, 3, "dotprod", "dotprod")         \
  C(ARM64, I8MM, 4, "i8mm", "i8mm")                  \
  C(ARM64, BF16, 5, "bf16", "bf16")                  \
  C(ARM64, LSE, 6, "lse", "lse")                     \
  C(ARM64, SVE, 7, "sve", "sve")                     \
  C(ARM64, SVE2, 8, "sve2", "sve2")                  \
  C(ARM32, NEON, 0, "neon", "neon")                  \
  C(ARM32, VFP4, 1, "vfp4", "vfp4")                  \
  C(ARM32, IDIV, 2, "hwdiv-arm", "hwdiv-arm")        \
  C(ARM32, VFPD32, 3, "d32", "d32")

enum {
#define BURIN_CPU_ENUM(arch, id, bit, name, llvm) CPU_##arch##_##id##_BIT = bit,
  BURIN_CPU_FEATURES(BURIN_CPU_ENUM)
#undef BURIN_CPU_ENUM
};
#define CPU_BIT(feature) ((uint64_t)1 << feature##_BIT) /* CPU_BIT(CPU_X86_AVX2) */

/* Whole levels of the x86-64 psABI. */
#define CPU_X86_64_V2                                                         \
  (CPU_BIT(CPU_X86_SSE3) | CPU_BIT(CPU_X86_SSSE3) | CPU_BIT(CPU_X86_SSE41) |  \
   CPU_BIT(CPU_X86_SSE42) | CPU_BIT(CPU_X86_POPCNT) | CPU_BIT(CPU_X86_CX16) | \
   CPU_BIT(CPU_X86_LAHF))
#define CPU_X86_64_V3                                                                    \
  (CPU_X86_64_V2 | CPU_BIT(CPU_X86_AVX) | CPU_BIT(CPU_X86_AVX2) | CPU_BIT(CPU_X86_FMA) | \
   CPU_BIT(CPU_X86_F16C) | CPU_BIT(CPU_X86_BMI1) | CPU_BIT(CPU_X86_BMI2) |               \
   CPU_BIT(CPU_X86_LZCNT) | CPU_BIT(CPU_X86_MOVBE))
#define CPU_X86_64_V4                                                     \
  (CPU_X86_64_V3 | CPU_BIT(CPU_X86_AVX512F) | CPU_BIT(CPU_X86_AVX512BW) | \
   CPU_BIT(CPU_X86_AVX512CD) | CPU_BIT(CPU_X86_AVX512DQ) | CPU_BIT(CPU_X86_AVX512VL))

/* Bits of this machine. `hwcap` and `hwcap2` are AT_HWCAP and AT_HWCAP2 (unused on x86). */
uint64_t burin_rt_cpu_features(uint64_t hwcap, uint64_t hwcap2);
/* Of the needed bits that the CPU has, those that the system does not let this process use. It is
 * asked for AMX's tiles; what it once allowed all threads may use. */
uint64_t burin_rt_cpu_denied(uint64_t needed);
/* The needed bits that this machine lacks, or does not let us use; 0 when all are there. For code inside a host process:
 * takes a few hundred cycles on x86-64 and nothing at all when `needed` is 0. */
uint64_t burin_rt_cpu_missing(uint64_t needed);
/* Name of the lowest set bit ("avx512f"), for messages. */
const char *burin_rt_cpu_feature_name(uint64_t bits);
