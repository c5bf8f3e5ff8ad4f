/* A host program around a compiled model (m.h): two devices of its own, runs queued on them without
 * waiting, and one run on the device that the model has of its own.
 * host_program INPUT N OUTPUT: raw f32[n,7]; writes five times y. With a fourth argument:
 *   streams   the two devices on two streams of the caller's, at once; writes five times y
 *   thousand  a thousand devices, made, used and destroyed: nothing is left on the (fake) driver
 *   again     one run after another fails: what each says, and that a device can't be made either */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "m.h"

enum { ROW = 7, RUNS = 5 };

static int32_t failed(int32_t status, const BurinFailure *f) {
  char text[256];
  m_failure_text(f, text, sizeof text);
  fprintf(stderr, "status %d: %s\n", status, text);
  return status;
}

/* Of the fake driver, and of CUDA. */
static void *symbol(const char *name) {
  void *const library = dlopen("libcuda.so.1", RTLD_NOW), *const p =
                                                              library ? dlsym(library, name) : NULL;
  if (!p) fprintf(stderr, "no %s\n", name), exit(2);
  return p;
}
#define CALL(name, ...) ((int (*)())symbol(name))(__VA_ARGS__)

static int streams(const m_inputs *inputs, float *y, size_t values) {
  m_cuda *devices[2] = {0};
  void *stream[2], *context;
  BurinFailure f = {0};
  for (int i = 0; i < 2; i++) {
    const int32_t status = m_cuda_create(NULL, &devices[i], &f);
    if (status) return failed(status, &f);
  }
  CALL("cuDevicePrimaryCtxRetain", &context, 0);
  CALL("cuCtxPushCurrent_v2", context);
  for (int i = 0; i < 2; i++) CALL("cuStreamCreate", &stream[i], 1);
  for (int i = 0; i < RUNS; i++) { /* a device's runs, on either stream, follow each other */
    m_outputs outputs = {.y = y + (size_t)i * values};
    const int32_t status =
        m_cuda_run_async(devices[i % 2], inputs, &outputs, stream[(i + i / 2) % 2]);
    if (status) return failed(status, &f);
  }
  for (int i = 0; i < 2; i++) CALL("cuStreamSynchronize", stream[i]);
  for (int i = 0; i < 2; i++) m_cuda_destroy(devices[i]), CALL("cuStreamDestroy_v2", stream[i]);
  return 0;
}

static int thousand(const m_inputs *inputs, float *y, size_t values) {
  enum { LIVE = 0, DEVICES = 1000 };
  long (*const count)(int) = (long (*)(int))symbol("fake_cuda_count");
  const long before = count(LIVE);
  BurinFailure f = {0};
  for (int i = 0; i < DEVICES; i++) {
    m_cuda *device = NULL;
    m_outputs outputs = {.y = y + (size_t)(i % RUNS) * values};
    const int32_t status = m_cuda_create(NULL, &device, &f);
    if (status) return failed(status, &f);
    const int32_t ran = m_cuda_run_async(device, inputs, &outputs, NULL);
    m_cuda_destroy(device); /* waits for it */
    if (ran) return failed(ran, &f);
  }
  if (count(LIVE) == before) return 0;
  fprintf(stderr, "%ld objects are left\n", count(LIVE) - before);
  return 1;
}

static int again(const m_inputs *inputs, float *y) {
  BurinFailure f = {0};
  m_outputs outputs = {.y = y};
  BurinOptions o = {.size = sizeof o, .failure = &f};
  int32_t status = 0;
  for (int i = 0; i < 2; i++) status = failed(m_run_opts(inputs, &outputs, NULL, &o), &f);
  m_cuda *device = NULL;
  const int32_t made = m_cuda_create(NULL, &device, &f);
  if (made) return failed(made, &f);
  m_cuda_destroy(device);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  const size_t n = (size_t)atol(argv[2]), values = n * ROW;
  float *const x = malloc(values * sizeof *x), *const y = malloc(RUNS * values * sizeof *y);
  FILE *const in = fopen(argv[1], "rb"), *const out = fopen(argv[3], "wb");
  if (!in || !out || fread(x, sizeof *x, values, in) != values) return 2;
  const m_inputs inputs = {.x = x, .n = (int64_t)n};
  const char *const what = argc > 4 ? argv[4] : "";
  if (!strcmp(what, "again")) return again(&inputs, y);
  if (*what) {
    const int status =
        !strcmp(what, "streams") ? streams(&inputs, y, values) : thousand(&inputs, y, values);
    fwrite(y, sizeof *y, RUNS * values, out);
    return fclose(out) || status;
  }
  m_cuda *devices[2] = {0};
  BurinFailure f = {0};
  for (int i = 0; i < 2; i++) {
    const int32_t status = m_cuda_create(NULL, &devices[i], &f);
    if (status) return failed(status, &f);
  }
  for (int i = 0; i < RUNS; i++) {
    m_outputs outputs = {.y = y + (size_t)i * values};
    BurinOptions o = {.size = sizeof o, .failure = &f};
    const int32_t status = i == RUNS - 1
                               ? m_run_opts(&inputs, &outputs, NULL, &o)
                               : m_cuda_run_async(devices[i % 2], &inputs, &outputs, NULL);
    if (status) return failed(status, &f);
  }
  for (int i = 0; i < 2; i++) m_cuda_destroy(devices[i]);
  fwrite(y, sizeof *y, RUNS * values, out);
  return fclose(out) || fclose(in);
}
