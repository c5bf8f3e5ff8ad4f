/* Which CPU features are there. Compiled for the baseline of each architecture; keeps nothing
 * between calls. */
#include "runtime/core/cpu.h"

#include <stddef.h>

#define NAMED(feature) ((uint64_t)1 << feature##_BIT)

#if defined(__x86_64__)
#include <cpuid.h>

#include "runtime/core/sys.h"

uint64_t burin_rt_cpu_denied(uint64_t needed) {
  enum { REQUEST = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, a component of XSAVE */
  const uint64_t tiles =
      needed & (NAMED(CPU_X86_AMX_TILE) | NAMED(CPU_X86_AMX_INT8) | NAMED(CPU_X86_AMX_BF16));
  return tiles && sys_call(NR_arch_prctl, REQUEST, TILE_DATA, 0, 0, 0, 0) ? tiles : 0;
}

/* Bits of XCR0: registers that the operating system saves. */
static uint64_t saved_registers(unsigned leaf1_ecx) {
  if (!(leaf1_ecx & bit_OSXSAVE)) return 0;
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return lo | (uint64_t)hi << 32;
}

uint64_t burin_rt_cpu_features(uint64_t hwcap, uint64_t hwcap2) {
  (void)hwcap, (void)hwcap2;
  unsigned a, b, c, d, max, f = 0;
  uint64_t bits = 0;
#define HAS(reg, n, feature) bits |= (reg) >> (n) & 1 ? NAMED(CPU_X86_##feature) : 0
  __cpuid(0, max, b, c, d);
  __cpuid(1, a, b, c, d);
  const uint64_t xcr0 = saved_registers(c);
  const int ymm = (xcr0 & 6) == 6, zmm = (xcr0 & 0xe6) == 0xe6;
  HAS(c, 0, SSE3), HAS(c, 9, SSSE3), HAS(c, 19, SSE41), HAS(c, 20, SSE42), HAS(c, 23, POPCNT);
  HAS(c, 13, CX16), HAS(c, 22, MOVBE);
  if (ymm) HAS(c, 28, AVX), HAS(c, 12, FMA), HAS(c, 29, F16C);
  __cpuid(0x80000000u, f, b, c, d);
  if (f >= 0x80000001u) {
    __cpuid(0x80000001u, a, b, c, d);
    HAS(c, 0, LAHF), HAS(c, 5, LZCNT);
  }
  if (max < 7) return bits;
  unsigned a1, b1, c1, d1;
  __cpuid_count(7, 0, a, b, c, d);
  HAS(b, 3, BMI1), HAS(b, 8, BMI2);
  if (ymm) HAS(b, 5, AVX2);
  a1 = 0;
  if (a >= 1) __cpuid_count(7, 1, a1, b1, c1, d1);
  if (ymm) HAS(a1, 4, AVXVNNI);
  if (!zmm) return bits;
  HAS(b, 16, AVX512F), HAS(b, 30, AVX512BW), HAS(b, 28, AVX512CD), HAS(b, 17, AVX512DQ);
  HAS(b, 31, AVX512VL), HAS(b, 21, AVX512IFMA), HAS(c, 1, AVX512VBMI), HAS(c, 11, AVX512VNNI);
  HAS(d, 23, AVX512FP16), HAS(a1, 5, AVX512BF16);
  if ((xcr0 >> 17 & 3) == 3) HAS(d, 24, AMX_TILE), HAS(d, 25, AMX_INT8), HAS(d, 22, AMX_BF16);
#undef HAS
  return bits;
}

static uint64_t host_features(void) { return burin_rt_cpu_features(0, 0); }
#else
#include "runtime/core/sys.h"

uint64_t burin_rt_cpu_denied(uint64_t needed) {
  (void)needed;
  return 0;
}

/* One row per bit of AT_HWCAP or AT_HWCAP2 (Linux's numbers). */
typedef struct CapRow {
  uint8_t word, cap;
  uint8_t bit;
} CapRow;
static const CapRow cap_rows[] = {
#if defined(__aarch64__)
    {0, 1, CPU_ARM64_ASIMD_BIT},    {0, 7, CPU_ARM64_CRC_BIT},   {0, 10, CPU_ARM64_FP16_BIT},
    {0, 20, CPU_ARM64_DOTPROD_BIT}, {1, 13, CPU_ARM64_I8MM_BIT}, {1, 14, CPU_ARM64_BF16_BIT},
    {0, 8, CPU_ARM64_LSE_BIT},      {0, 22, CPU_ARM64_SVE_BIT},  {1, 1, CPU_ARM64_SVE2_BIT},
#else
    {0, 12, CPU_ARM32_NEON_BIT},
    {0, 16, CPU_ARM32_VFP4_BIT},
    {0, 17, CPU_ARM32_IDIV_BIT},
    {0, 19, CPU_ARM32_VFPD32_BIT},
#endif
};

uint64_t burin_rt_cpu_features(uint64_t hwcap, uint64_t hwcap2) {
  uint64_t bits = 0;
  for (size_t i = 0; i < sizeof cap_rows / sizeof *cap_rows; i++) {
    const uint64_t word = cap_rows[i].word ? hwcap2 : hwcap;
    if (word >> cap_rows[i].cap & 1) bits |= (uint64_t)1 << cap_rows[i].bit;
  }
  return bits;
}

/* Inside a host process: the auxiliary vector as the kernel shows it. */
static uint64_t host_features(void) {
  uintptr_t aux[128] = {0};
  uint64_t hwcap = 0, hwcap2 = 0;
  const long fd = sys_open("/proc/self/auxv", SYS_O_RDONLY, 0);
  if (fd < 0) return ~(uint64_t)0; /* unknown: let it run */
  const long got = sys_read((int)fd, aux, sizeof aux);
  sys_close((int)fd);
  for (size_t i = 0; got > 0 && i + 1 < (size_t)got / sizeof *aux && aux[i]; i += 2) {
    if (aux[i] == 16) hwcap = aux[i + 1];
    if (aux[i] == 26) hwcap2 = aux[i + 1];
  }
  return burin_rt_cpu_features(hwcap, hwcap2);
}
#endif

uint64_t burin_rt_cpu_missing(uint64_t needed) {
  const uint64_t missing = needed ? needed & ~host_features() : 0;
  return missing ? missing : burin_rt_cpu_denied(needed);
}

const char *burin_rt_cpu_feature_name(uint64_t bits) {
#if defined(__x86_64__)
#define THIS_X86 1
#define THIS_ARM64 0
#define THIS_ARM32 0
#else
#define THIS_X86 0
#define THIS_ARM64 (sizeof(void *) == 8)
#define THIS_ARM32 (sizeof(void *) == 4)
#endif
#define ROW(arch, id, bit, name, llvm) \
  if (THIS_##arch && (bits >> (bit) & 1)) return name;
  BURIN_CPU_FEATURES(ROW)
#undef ROW
  return "unknown";
}
