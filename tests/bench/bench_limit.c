/* What one core of this machine can do, for tests/bench/bench.py: multiply-adds of float32 and of bytes in registers,
 * and reading memory in order. Also the clock of its profiles. Compiled there with -O3 and the -march
 * of the target (-march=native). */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __x86_64__
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

/* ---- bytes into 32-bit sums ---- */
#if defined __AVX512VNNI__ || defined __AVXVNNI__
/* As multiply_adds; four products a lane. */
static uint64_t byte_products(void) {
#ifdef __AVX512VNNI__
  __m512i sum[CHAINS], x = _mm512_set1_epi32(0x01020304);
#define DOT(s) _mm512_dpbusd_epi32(s, x, x)
#else
  __m256i sum[CHAINS], x = _mm256_set1_epi32(0x01020304);
#define DOT(s) _mm256_dpbusd_avx_epi32(s, x, x)
#endif
  for (int i = 0; i < CHAINS; i++) sum[i] = x;
  const uint64_t start = bench_clock_ns();
  for (int k = 0; k < STEPS; k++) {
    __asm__ volatile("" : "+x"(x));
#pragma clang loop unroll(full)
    for (int i = 0; i < CHAINS; i++) sum[i] = DOT(sum[i]);
  }
#pragma clang loop unroll(full)
  for (int i = 0; i < CHAINS; i++) __asm__ volatile("" : : "x"(sum[i]));
  return bench_clock_ns() - start;
}
#ifdef __AVX512VNNI__
enum { BYTE_PRODUCTS = CHAINS * 64 };
#else
enum { BYTE_PRODUCTS = CHAINS * 32 };
#endif
#endif

#ifdef __AMX_INT8__
/* Four tiles of sums, as a product of matrices has them; 0: the system does not permit it. */
static uint64_t tile_products(void) {
  enum { ASK = 0x1023, TILE_DATA = 18 };
  struct {
    uint8_t palette, start, zeros[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } c = {.palette = 1};
  if (syscall(SYS_arch_prctl, ASK, TILE_DATA)) return 0;
  for (int i = 0; i < 8; i++) c.row_bytes[i] = 64, c.rows[i] = 16;
  _tile_loadconfig(&c);
  _tile_zero(0), _tile_zero(1), _tile_zero(2), _tile_zero(3), _tile_zero(4), _tile_zero(5);
  const uint64_t start = bench_clock_ns();
  for (int k = 0; k < STEPS; k++) {
    _tile_dpbusd(0, 4, 5);
    _tile_dpbusd(1, 4, 5);
    _tile_dpbusd(2, 4, 5);
    _tile_dpbusd(3, 4, 5);
  }
  const uint64_t ns = bench_clock_ns() - start;
  _tile_release();
  return ns;
}
#endif

/* Operations on bytes, 10^9 a second (a multiply-add is two), by the best instruction that the compiler was told of; 0: it has none of
 * its own. */
double bench_peak_gops8(double seconds) {
  double best = 0;
  const uint64_t end = bench_clock_ns() + (uint64_t)(seconds * 1e9);
  do {
#if defined __AVX512VNNI__ || defined __AVXVNNI__
    const double a = 2.0 * STEPS * BYTE_PRODUCTS / (double)(byte_products() + 1);
    if (a > best) best = a;
#endif
#ifdef __AMX_INT8__
    const uint64_t ns = tile_products();
    const double b = ns ? 2.0 * STEPS * 4 * 16 * 16 * 64 / (double)ns : 0;
    if (b > best) best = b;
#endif
  } while (bench_clock_ns() < end);
  return best;
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
