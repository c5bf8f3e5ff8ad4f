/* What one core of this machine can do, for tests/bench/bench.py: float32 multiply-adds in registers, and
 * reading memory in order. Also the clock of its profiles. Compiled there with -O3 and the -march
 * of the target (-march=native). */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __AVX512F__
enum { WIDTH = 64 };
#elif defined __AVX__
enum { WIDTH = 32 };
#else
enum { WIDTH = 16 };
#endif
enum {
  CHAINS = 12,
  STEPS = 20000,
  READ_BYTES = 1 << 28,
  READ_CHAINS = 8,
  LINE = READ_CHAINS * WIDTH
};
typedef float Vec __attribute__((vector_size(WIDTH)));

uint64_t bench_clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Independent chains, more than latency × units: what is left is the number of units. Returns ns.
 */
static uint64_t multiply_adds(Vec x, Vec y) {
  Vec sum[CHAINS];
  for (int i = 0; i < CHAINS; i++) sum[i] = y * (float)i;
  const uint64_t start = bench_clock_ns();
  for (int k = 0; k < STEPS; k++) {
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * x + y;
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < CHAINS; i++) __asm__ volatile("" : : "x"(sum[i]));
  return bench_clock_ns() - start;
}

/* GFLOP/s of the best stretch within `seconds`. */
double bench_peak_gflops(double seconds) {
  volatile float half = 0.5f;
  const Vec zero = {0}, x = zero + half, y = zero + half;
  const uint64_t end = bench_clock_ns() + (uint64_t)(seconds * 1e9);
  uint64_t best = UINT64_MAX;
  do {
    const uint64_t ns = multiply_adds(x, y);
    if (ns && ns < best) best = ns;
  } while (bench_clock_ns() < end);
  return 2.0 * STEPS * CHAINS * (WIDTH / sizeof(float)) / (double)best;
}

static uint64_t read_once(const char *data) {
  Vec sum[READ_CHAINS] = {{0}};
  const uint64_t start = bench_clock_ns();
  for (size_t at = 0; at < READ_BYTES; at += LINE) {
#pragma clang loop unroll(full)
    for (int i = 0; i < READ_CHAINS; i++) sum[i] += *(const Vec *)(data + at + i * WIDTH);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < READ_CHAINS; i++) __asm__ volatile("" : : "x"(sum[i]));
  return bench_clock_ns() - start;
}

/* GB/s of reading 256 MiB in order, which no cache holds (or a large part of a large one does); 0:
 * no memory. */
double bench_read_gbytes(double seconds) {
  char *data = aligned_alloc(4096, READ_BYTES);
  if (!data) return 0;
  memset(data, 1, READ_BYTES);
  const uint64_t end = bench_clock_ns() + (uint64_t)(seconds * 1e9);
  uint64_t best = UINT64_MAX;
  do {
    const uint64_t ns = read_once(data);
    if (ns && ns < best) best = ns;
  } while (bench_clock_ns() < end);
  free(data);
  return READ_BYTES / (double)best;
}
