/* A host program around a compiled model (m.h): two devices of its own, runs queued on them without
 * waiting, and one run on the device that the model has of its own.
 * host_program INPUT N OUTPUT: raw f32[n,7]; writes five times y. */
#include <stdio.h>
#include <stdlib.h>

#include "m.h"

enum { ROW = 7, RUNS = 5 };

static int32_t failed(int32_t status, const BurinFailure *f) {
  char text[256];
  m_failure_text(f, text, sizeof text);
  fprintf(stderr, "status %d: %s\n", status, text);
  return status;
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  const size_t n = (size_t)atol(argv[2]), values = n * ROW;
  float *const x = malloc(values * sizeof *x), *const y = malloc(RUNS * values * sizeof *y);
  FILE *const in = fopen(argv[1], "rb"), *const out = fopen(argv[3], "wb");
  if (!in || !out || fread(x, sizeof *x, values, in) != values) return 2;
  const m_inputs inputs = {.x = x, .n = (int64_t)n};
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
