/* The target table and the description of the machine that burin runs on. "native" is the best row
 * whose features the CPU has, with this CPU's tuning and caches. Needs LLVM only for the host's
 * name and features. */
#include "targets/target.h"

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/cpu.h"

const Target target_rows[] = {
#define T(...) {__VA_ARGS__, ""},
#include "targets/targets.def"
#undef T
};
const int target_row_count = sizeof target_rows / sizeof *target_rows;

const Target *target_find(const char *name) {
  for (int i = 0; i < target_row_count; i++)
    if (strcmp(target_rows[i].name, name) == 0) return &target_rows[i];
  return NULL;
}

/* Whether "+name" stands in LLVM's comma-separated feature list. */
static bool has_feature(const char *features, const char *name) {
  const size_t n = strlen(name);
  for (const char *p = features; (p = strstr(p, name)) != NULL; p += n)
    if (p > features && p[-1] == '+' && (p[n] == ',' || p[n] == '\0')) return true;
  return false;
}

static Arch host_arch(void) {
#if defined(__aarch64__)
  return ARCH_AARCH64;
#elif defined(__arm__)
  return ARCH_ARM;
#else
  return ARCH_X86_64;
#endif
}

/* Names in cpu.h are LLVM's, but for these. */
static const char *llvm_feature(const char *name) {
  static const char *const differ[][2] = {{"lahf", "sahf"}, {"bmi1", "bmi"}, {"vfp4", "vfp4"}};
  for (size_t i = 0; i < sizeof differ / sizeof *differ; i++)
    if (strcmp(differ[i][0], name) == 0) return differ[i][1];
  return name;
}

static uint64_t host_bits(Arch arch, const char *features) {
  enum { X86 = ARCH_X86_64, ARM64 = ARCH_AARCH64, ARM32 = ARCH_ARM };
  uint64_t bits = 0;
#define C(a, id, bit, name)                                             \
  if ((int)arch == (int)a && has_feature(features, llvm_feature(name))) \
    bits |= (uint64_t)1 << (bit);
  BURIN_CPU_FEATURES(C)
#undef C
  return bits;
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

/* Features whose instructions code generation may use beyond the row's (dot products, wider
 * conversions). */
static const char *const extra_features[] = {"avx512vnni", "avxvnni",  "avx512vbmi", "dotprod",
                                             "i8mm",       "fullfp16", "vfp4"};

/* The row's features and those of the host; `out` holds the text. */
static void add_extras(Target *out, const Target *row, const char *host) {
  char *const text = out->features_text;
  const size_t size = sizeof out->features_text;
  snprintf(text, size, "%s", row->features);
  for (size_t i = 0; i < sizeof extra_features / sizeof *extra_features; i++) {
    if (!has_feature(host, extra_features[i])) continue;
    const size_t n = strlen(text);
    snprintf(text + n, size - n, "%s+%s", n ? "," : "", extra_features[i]);
  }
  out->features = text;
  out->cpu_features |= host_bits(row->arch, text);
}

bool target_native(Target *out) {
  char *features = LLVMGetHostCPUFeatures();
  const uint64_t have = host_bits(host_arch(), features);
  const Target *best = NULL;
  for (int i = 0; i < target_row_count; i++) {
    const Target *t = &target_rows[i];
    if (t->arch != host_arch() || (t->cpu_features & ~have) != 0) continue;
    if (strcmp(t->cpu, "cortex-a72") == 0) continue; /* a tuning, not a level */
    if (!best || t->vector_bits > best->vector_bits || t->fma > best->fma) best = t;
  }
  if (!best) {
    LLVMDisposeMessage(features);
    return false;
  }
  *out = *best;
  out->name = "native";
  out->help = "this machine";
  /* The level's instructions, not the host's name: the same artifact runs on every CPU of the
   * level. */
  add_extras(out, best, features);
  LLVMDisposeMessage(features);
  read_caches(out);
  return true;
}

FloatRules target_float_rules(const Target *t) {
  return (FloatRules){.split_fma = !t->fma, .ordered_zeros = t->arch != ARCH_X86_64};
}
