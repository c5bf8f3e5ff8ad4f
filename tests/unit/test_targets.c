/* The target table: which features each row has, and what `native` makes of its row. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>
#include "runtime/core/cpu.h"
#include "targets/target.h"

static uint64_t features_of(const Target *t) {
  uint64_t set = 0;
  for (int f = 0; f < FEATURE_COUNT; f++)
    if (target_has(t, (Feature)f)) set |= (uint64_t)1 << f;
  return set;
}

#define HAS(f) ((uint64_t)1 << FEATURE_##f)
static void test_rows(void **state) {
  static const struct {
    const char *name;
    uint64_t features;
    int f32_lanes;
    bool split_fma, ordered_zeros;
  } want[] = {
      {"x86-64-v2", HAS(PAIRS), 4, true, false},
      {"x86-64-v3", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2), 8, false, false},
      {"x86-64-v4", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2) | HAS(AVX512), 16, false, false},
      {"x86-64-v3-vnni", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2) | HAS(AVXVNNI), 8, false,
       false},
      {"znver4",
       HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2) | HAS(AVX512) | HAS(VNNI) | HAS(VBMI) |
           HAS(BF16),
       16, false, false},
      {"sapphirerapids",
       HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2) | HAS(AVX512) | HAS(VNNI) | HAS(VBMI) |
           HAS(F16) | HAS(BF16) | HAS(AMX_INT8) | HAS(AMX_BF16),
       16, false, false},
      {"aarch64", HAS(LONGMUL) | HAS(FMA) | HAS(F16C), 4, false, true},
      {"cortex-a72", HAS(LONGMUL) | HAS(FMA) | HAS(F16C), 4, false, true},
      {"cortex-a53", HAS(LONGMUL) | HAS(FMA) | HAS(F16C), 4, false, true},
      {"cortex-a76", HAS(LONGMUL) | HAS(FMA) | HAS(F16C) | HAS(DOTPROD) | HAS(F16), 4, false, true},
      {"neoverse-n1", HAS(LONGMUL) | HAS(FMA) | HAS(F16C) | HAS(DOTPROD) | HAS(F16), 4, false,
       true},
      {"neoverse-n2",
       HAS(LONGMUL) | HAS(FMA) | HAS(F16C) | HAS(DOTPROD) | HAS(I8MM) | HAS(F16) | HAS(BF16), 4,
       false, true},
      {"armv7", HAS(LONGMUL), 4, true, true},
      {"c", HAS(PAIRS), 4, true, false},
      {"cuda:sm_80", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2), 8, false, false},
      {"cuda:sm_86", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2), 8, false, false},
      {"cuda:sm_89", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2), 8, false, false},
      {"cuda:sm_90", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2), 8, false, false},
      {"cuda:sm_100", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2), 8, false, false},
      {"cuda:host", HAS(FMA) | HAS(F16C) | HAS(PAIRS) | HAS(AVX2), 8, false, false},
  };
  assert_int_equal(sizeof want / sizeof *want, target_row_count);
  for (int i = 0; i < target_row_count; i++) {
    const Target *t = target_find(want[i].name);
    assert_non_null(t);
    assert_int_equal(features_of(t), want[i].features);
    assert_int_equal(target_lanes(t, 32), want[i].f32_lanes);
    const FloatRules r = target_float_rules(t);
    assert_int_equal(r.split_fma, want[i].split_fma);
    assert_int_equal(r.ordered_zeros, want[i].ordered_zeros);
  }
  assert_null(target_find("native"));
  assert_true(target_name_is_native("native"));
}

/* Several GPUs: the least of every number, in the order of their capabilities; each once. */
static void test_several_gpus(void **state) {
  static const struct {
    const char *name, *means;
    int sms[4];
    int64_t block_bytes;
    int threads;
  } want[] = {
      {"cuda:sm_80,sm_90", "cuda:sm_80,sm_90", {80, 90}, 163 << 10, 2048},
      {"cuda:sm_90,cuda:sm_86,sm_80", "cuda:sm_80,sm_86,sm_90", {80, 86, 90}, 99 << 10, 1536},
      {"cuda:sm_100,sm_100", "cuda:sm_100", {100}, 227 << 10, 2048}};
  for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
    GpuTarget t;
    int sms[GPU_MOST] = {0};
    assert_true(target_name_is_gpus(want[i].name));
    assert_null(target_gpus(want[i].name, &t));
    assert_string_equal(t.target.name, want[i].means);
    const int n = target_sms(&t.target, sms);
    for (int k = 0; k < 4; k++) assert_int_equal(sms[k], want[i].sms[k]);
    assert_true(n >= 1 && n <= 3);
    assert_int_equal(t.target.gpu->block_bytes, want[i].block_bytes);
    assert_int_equal(t.target.gpu->threads, want[i].threads);
    assert_int_equal(t.target.backend, BACKEND_CUDA);
  }
  static const char *const wrong[] = {"cuda:sm_80,", "cuda:,sm_80", "cuda:sm_80,host",
                                      "cuda:sm_80,native", "cuda:sm_80,x86-64-v3"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    GpuTarget t;
    assert_non_null(target_gpus(wrong[i], &t));
  }
  assert_false(target_name_is_gpus("cuda:sm_80"));
  int sms[GPU_MOST];
  assert_int_equal(target_sms(target_find("cuda:host"), sms), 0);
  assert_int_equal(target_sms(target_find("x86-64-v3"), sms), 0);
}

/* A row that forgot a field would compile for nothing: all numbers that anybody divides by. */
static void test_rows_are_whole(void **state) {
  for (int i = 0; i < target_row_count; i++) {
    const Target *t = &target_rows[i];
    assert_true(t->name && t->help && t->triple && t->cpu && t->llvm_features && t->lld_emulation);
    assert_true(t->backend > BACKEND_NONE && t->backend < BACKEND_COUNT);
    assert_true(t->cpu_features && t->vector_bits >= 128 && t->vector_regs >= 16);
    assert_true(t->fma_per_cycle > 0 && t->l1_bytes > 0 && t->l2_bytes > t->l1_bytes);
    assert_true(t->pointer_bits == 32 || t->pointer_bits == 64);
  }
}

/* `native` is a level's row; what it adds is a feature that may come from the host, told to LLVM.
 */
static void test_native(void **state) {
  Target n;
  assert_true(target_native(&n));
  const Target *row = NULL;
  for (int i = 0; i < target_row_count && !row; i++)
    if (strcmp(target_rows[i].cpu, n.cpu) == 0 && target_rows[i].arch == n.arch)
      row = &target_rows[i];
  assert_non_null(row);
  assert_true(row->backend == BACKEND_LLVM && !row->tuning);
  assert_true(target_runs_here(row) && target_runs_here(&n) && target_is_host_arch(&n));
  uint64_t added = n.cpu_features & ~row->cpu_features;
  for (int f = 0; f < FEATURE_COUNT; f++) {
    const uint64_t bit = feature_rows[f].on[n.arch].bit;
    if (!(added & bit)) continue;
    assert_true(feature_rows[f].on[n.arch].from_host);
    added &= ~bit;
  }
  assert_int_equal(added, 0);
  assert_null(strstr(n.llvm_features, "(null)"));
  const FloatRules a = target_float_rules(&n), b = target_float_rules(row);
  assert_true(a.split_fma == b.split_fma && a.ordered_zeros == b.ordered_zeros); /* bits */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rows), cmocka_unit_test(test_several_gpus),
      cmocka_unit_test(test_rows_are_whole), cmocka_unit_test(test_native)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
