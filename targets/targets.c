/* The target table and the description of the machine that burin runs on. "native" is the best row
 * whose features the CPU has, with this CPU's tuning and caches. What the
 * CPU has is asked of the runtime, as compiled models ask it. */
#include "targets/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include "runtime/core/cpu.h"

const Target target_rows[] = {
#include "targets/targets.def"
};
const int target_row_count = sizeof target_rows / sizeof *target_rows;

#define NO {0, false}
#define ROW(bit) {CPU_BIT(CPU_##bit), false}
#define HOST(bit) {CPU_BIT(CPU_##bit), true}
#define F(id, nm, x86, arm64, arm32, what) \
  [FEATURE_##id] = {.name = nm,            \
                    .meaning = what,       \
                    .on = {[ARCH_X86_64] = x86, [ARCH_AARCH64] = arm64, [ARCH_ARM] = arm32}},
const FeatureRow feature_rows[] = {
#include "targets/features.def"
};
#undef NO
#undef ROW
#undef HOST

const Target *target_find(const char *name) {
  for (int i = 0; i < target_row_count; i++)
    if (strcmp(target_rows[i].name, name) == 0) return &target_rows[i];
  return NULL;
}

bool target_name_is_native(const char *name) { return strcmp(name, "native") == 0; }

bool target_has(const Target *t, Feature f) {
  return (t->cpu_features & feature_rows[f].on[t->arch].bit) != 0;
}

uint64_t target_cpu_features(const Target *t, bool matrices, bool bf16) {
  const uint64_t tiles =
      CPU_BIT(CPU_X86_AMX_TILE) | CPU_BIT(CPU_X86_AMX_INT8) | CPU_BIT(CPU_X86_AMX_BF16);
  if (t->arch != ARCH_X86_64) return t->cpu_features;
  const uint64_t unused = (matrices ? 0 : tiles) | (bf16 ? 0 : CPU_BIT(CPU_X86_AVX512BF16));
  return t->cpu_features & ~unused;
}

/* ---- this machine ---- */

static Arch host_arch(void) {
#if defined(__aarch64__)
  return ARCH_AARCH64;
#elif defined(__arm__)
  return ARCH_ARM;
#else
  return ARCH_X86_64;
#endif
}

typedef struct CpuBit {
  Arch arch;
  uint64_t bit;
  const char *llvm;
} CpuBit;

enum { X86 = ARCH_X86_64, ARM64 = ARCH_AARCH64, ARM32 = ARCH_ARM };
#define C(arch, id, bit, name, llvm) {(Arch)(arch), (uint64_t)1 << (bit), llvm},
static const CpuBit cpu_bits[] = {BURIN_CPU_FEATURES(C)};
#undef C
enum { CPU_BITS = sizeof cpu_bits / sizeof *cpu_bits };

static uint64_t host_bits(void) {
  const uint64_t have = burin_rt_cpu_features(getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
  return have & ~burin_rt_cpu_denied(have);
}

static const char *llvm_name(Arch arch, uint64_t bit) {
  for (int i = 0; i < CPU_BITS; i++)
    if (cpu_bits[i].arch == arch && cpu_bits[i].bit == bit) return cpu_bits[i].llvm;
  return NULL;
}

static bool read_line(const char *path, char *buf, size_t size) {
  FILE *f = fopen(path, "re");
  if (!f) return false;
  const bool ok = fgets(buf, (int)size, f) != NULL;
  fclose(f);
  return ok;
}

/* Cache sizes of CPU 0 as Linux tells them; unknown ones keep the row's numbers. */
static void read_caches(Target *t) {
  for (int i = 0; i < 8; i++) {
    char path[96], level[16], type[32], size[32];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
    if (!read_line(path, level, sizeof level)) return;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
    if (!read_line(path, type, sizeof type) || type[0] == 'I') continue;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
    if (!read_line(path, size, sizeof size)) continue;
    char *end;
    int64_t bytes = strtoll(size, &end, 10);
    bytes *= *end == 'K' ? 1 << 10 : *end == 'M' ? 1 << 20 : 1;
    if (bytes <= 0) continue;
    if (level[0] == '1') t->l1_bytes = bytes;
    if (level[0] == '2') t->l2_bytes = bytes;
    if (level[0] == '3') t->l3_bytes = bytes;
  }
}

/* Intel's vdpbf16ps takes four times as long as an fma (measured on Emerald Rapids). */
static bool has_slow_pairs(void) {
#if defined(__x86_64__)
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

/* The row's features and those that `native` takes from the host; `out` holds the text. */
static void add_extras(Target *out, uint64_t have) {
  char *const text = out->features_text;
  const size_t size = sizeof out->features_text;
  snprintf(text, size, "%s", out->llvm_features);
  for (int i = 0; i < FEATURE_COUNT; i++) {
    const uint64_t bit = feature_rows[i].on[out->arch].bit;
    if (!feature_rows[i].on[out->arch].from_host || !(have & bit)) continue;
    const size_t n = strlen(text);
    snprintf(text + n, size - n, "%s+%s", n ? "," : "", llvm_name(out->arch, bit));
    out->cpu_features |= bit;
  }
  out->llvm_features = text;
}

/* Wider vectors, then fused products. */
static bool is_better(const Target *t, const Target *best) {
  return !best || t->vector_bits > best->vector_bits ||
         target_has(t, FEATURE_FMA) > target_has(best, FEATURE_FMA);
}

const Target *target_of(BackendKind b) {
  for (int i = 0; i < target_row_count; i++)
    if (target_rows[i].backend == b) return &target_rows[i];
  return NULL;
}

Target target_host_code(const Target *t) {
  Target host = *t;
  host.backend = BACKEND_LLVM;
  host.gpu = NULL;
  return host;
}

bool target_native(Target *out) {
  const uint64_t have = host_bits();
  const Target *best = NULL;
  for (int i = 0; i < target_row_count; i++) {
    const Target *t = &target_rows[i];
    if (t->arch != host_arch() || t->backend != BACKEND_LLVM || t->tuning ||
        (t->cpu_features & ~have) != 0)
      continue;
    if (is_better(t, best)) best = t;
  }
  if (!best) return false;
  /* The level's instructions, not the host's name: the same artifact runs on every CPU of the
   * level. */
  *out = *best;
  out->name = "native";
  out->help = "this machine";
  out->slow_pairs = has_slow_pairs();
  add_extras(out, have);
  read_caches(out);
  return true;
}

bool target_is_host_arch(const Target *t) { return t->arch == host_arch(); }

static bool host_part_runs_here(const Target *t) {
  Target native;
  return target_is_host_arch(t) && target_native(&native) &&
         (t->cpu_features & ~native.cpu_features) == 0;
}

bool target_runs_here(const Target *t) {
  GpuHere gpu;
  return host_part_runs_here(t) && (!t->gpu || t->gpu->sm == 0 || !target_gpu_here(t, &gpu));
}

FloatRules target_float_rules(const Target *t) {
  return (FloatRules){
      .split_fma = !target_has(t, FEATURE_FMA),
      .split_dot2 = !target_has(t, FEATURE_BF16) || t->slow_pairs,
      .ordered_zeros = t->ordered_zeros,
      .byte_rows = target_has(t, FEATURE_LONGMUL) && !target_has(t, FEATURE_DOTPROD)};
}
