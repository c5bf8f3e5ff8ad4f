/* Machine code of GPUs: processes that NVRTC may crash in (with a library that does), figures of
 * kernels, images; and the real NVRTC, where there is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include "codegen/cuda/images.h"
#include "runtime/cuda/gpu.h"

static int make_arena(void **state) {
  setenv("BURIN_NVRTC", FAKE_NVRTC, 1);
  return (*state = arena_new(0, NULL, NULL)) ? 0 : -1;
}

static int drop_arena(void **state) {
  arena_free(*state);
  return 0;
}

static NvrtcJob job(const char *text, const char *name, int sm) {
  return (NvrtcJob){.text = text, .name = name, .sm = sm};
}

static void is_of(const NvrtcJob *j, const char *arch) {
  assert_null(j->error);
  assert_int_equal(strncmp(j->image, arch, strlen(arch)), 0);
  assert_int_equal(strlen(j->image) + 1, j->bytes);
  assert_string_equal(strrchr(j->image, ' ') + 1, j->text);
}

static void test_compiles(void **state) {
  NvrtcJob j[] = {job("first", "a.cu", 80), job("first", "a.cu", 90), job("other", "b.cu", 80),
                  job("first", "a.cu", -90)};
  assert_int_equal(nvrtc_compile(j, 4, 3, *state), NVRTC_DONE);
  is_of(&j[0], "sm_80");
  is_of(&j[1], "sm_90");
  is_of(&j[2], "sm_80");
  is_of(&j[3], "compute_90");
  assert_int_equal(j[3].n_kernels, 0);
  assert_int_equal(j[0].n_kernels, 2);
  const NvrtcKernel *const k = j[0].kernels;
  assert_string_equal(k[0].name, "one");
  assert_int_equal(k[0].registers, 255);
  assert_int_equal(k[0].shared, 256);
  assert_int_equal(k[0].stack, 24);
  assert_int_equal(k[0].spills, 20);
  assert_string_equal(k[1].name, "two");
  assert_int_equal(k[1].registers, 12);
  assert_int_equal(k[1].shared, 0);
  assert_int_equal(k[1].spills, 0);
}

/* What crashes takes nothing else with it, whichever process it is in. */
static void test_crashes(void **state) {
  enum { N = 12 };
  static const char *const words[] = {"CRASH", "fine", "REFUSE", "LEAVE", "fine", "CRASH"};
  for (int processes = 1; processes < 4; processes++) {
    NvrtcJob j[N];
    for (int i = 0; i < N; i++)
      j[i] = job(arena_printf(*state, "%s-%d", words[i % 6], i), "a.cu", 80 + i);
    assert_int_equal(nvrtc_compile(j, N, processes, *state), NVRTC_FAILED);
    for (int i = 0; i < N; i++) {
      static const char *const want[] = {
          "crashed (signal 11) on a.cu for sm_", NULL, "refused", "status 3", NULL, "crashed"};
      if (want[i % 6])
        assert_non_null(strstr(j[i].error, want[i % 6]));
      else
        is_of(&j[i], "sm_");
    }
  }
}

/* What only a plainer compilation survives; a text that is wrong may be NVRTC's fault, too. */
static void test_plain(void **state) {
  NvrtcJob j[] = {job("FRAGILE", "a.cu", 80), job("FRAGILE", "a.cu", 80), job("REFUSE", "b.cu", 80),
                  job("fine", "c.cu", 999)};
  j[1].plain = true;
  assert_int_equal(nvrtc_compile(j, 4, 2, *state), NVRTC_FAILED);
  assert_non_null(strstr(j[0].error, "crashed"));
  is_of(&j[1], "sm_80");
  assert_true(j[0].again && !j[1].again && j[2].again && !j[3].again);
}

static void test_equal_ones_once(void **state) {
  char text[] = "same";
  NvrtcJob j[] = {job("same", "a.cu", 80), job(text, "b.cu", 80), job("same", "c.cu", 86)};
  assert_int_equal(nvrtc_compile(j, 3, 2, *state), NVRTC_DONE);
  assert_ptr_equal(j[0].image, j[1].image);
  assert_ptr_not_equal(j[0].image, j[2].image);
}

static void test_unknown_and_absent(void **state) {
  NvrtcJob j = job("text", "a.cu", 999);
  assert_int_equal(nvrtc_compile(&j, 1, 1, *state), NVRTC_FAILED);
  assert_non_null(strstr(j.error, "NVRTC 13.99 makes no code for sm_999"));
  setenv("BURIN_NVRTC", "/nowhere/libnvrtc.so", 1);
  j.sm = 80;
  assert_int_equal(nvrtc_compile(&j, 1, 1, *state), NVRTC_ABSENT);
  assert_int_equal(nvrtc_compile(&j, 0, 1, *state), NVRTC_DONE);
}

static void test_images(void **state) {
  const char *const same = "12345", *const other = "1234567";
  const NvrtcJob j[] = {{.sm = 80, .image = same, .bytes = 6},
                        {.sm = -80, .image = other, .bytes = 8},
                        {.sm = 80, .image = same, .bytes = 6}};
  const int numbers[] = {0, 0, 2};
  size_t bytes;
  const GpuImages *const all = images_pack(j, numbers, 3, *state, &bytes);
  assert_int_equal(all->magic, GPU_IMAGES_MAGIC);
  assert_int_equal(all->n, 3);
  assert_int_equal(all->n_units, 3);
  assert_int_equal(all->rows[0].offset, all->rows[2].offset);
  for (int i = 0; i < 3; i++) {
    const GpuImage *const r = &all->rows[i];
    assert_int_equal(r->unit, numbers[i]);
    assert_int_equal(r->sm, j[i].sm);
    assert_int_equal(r->offset % 64, 0);
    assert_true(r->offset >= sizeof *all + 3 * sizeof *r && r->offset + r->bytes <= bytes);
    assert_memory_equal((const char *)all + r->offset, j[i].image, j[i].bytes);
  }
}

/* Two real kernels, where NVRTC is at hand (BURIN_REAL_NVRTC=PATH). */
static void test_real(void **state) {
  static const char text[] =
      "__device__ static float twice(float x) { return x + x; }\n"
      "extern \"C\" __global__ void __launch_bounds__(128) k(float *to, const float *from) {\n"
      "  __shared__ float s[128];\n"
      "  s[threadIdx.x] = twice(from[threadIdx.x]);\n"
      "  __syncthreads();\n"
      "  to[threadIdx.x] = s[127 - threadIdx.x];\n"
      "}\n";
  const char *const path = getenv("BURIN_REAL_NVRTC");
  if (!path || !*path) skip();
  setenv("BURIN_NVRTC", path, 1);
  NvrtcJob j[] = {job(text, "k.cu", 80), job(text, "k.cu", 90), job(text, "k.cu", 100),
                  job(text, "k.cu", -100),
                  job("extern \"C\" __global__ void k() { oops; }", "bad.cu", 80)};
  assert_int_equal(nvrtc_compile(j, 5, 2, *state), NVRTC_FAILED);
  assert_non_null(strstr(j[4].error, "bad.cu(1): error"));
  for (int i = 0; i < 4; i++) assert_null(j[i].error);
  for (int i = 0; i < 3; i++) {
    assert_memory_equal(j[i].image, "\177ELF", 4);
    assert_int_equal((unsigned char)j[i].image[18], 190); /* EM_CUDA */
    assert_int_equal(j[i].n_kernels, 1);
    assert_string_equal(j[i].kernels->name, "k");
    assert_true(j[i].kernels->registers > 0 && j[i].kernels->shared == 512);
    assert_int_equal(j[i].kernels->spills, 0);
  }
  assert_non_null(strstr(j[3].image, ".target sm_100"));
  assert_int_equal(strlen(j[3].image) + 1, j[3].bytes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_compiles, make_arena, drop_arena),
      cmocka_unit_test_setup_teardown(test_crashes, make_arena, drop_arena),
      cmocka_unit_test_setup_teardown(test_plain, make_arena, drop_arena),
      cmocka_unit_test_setup_teardown(test_equal_ones_once, make_arena, drop_arena),
      cmocka_unit_test_setup_teardown(test_unknown_and_absent, make_arena, drop_arena),
      cmocka_unit_test_setup_teardown(test_images, make_arena, drop_arena),
      cmocka_unit_test_setup_teardown(test_real, make_arena, drop_arena)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
