/* Latencies of a model in a host program with host_pool.c: bench_pool THREADS MILLISECONDS
 * [CALLERS]. Prints the median in ms and runs per second of all callers together. */
#include "runtime/host_pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

const BurinModel *burin_model_info(void);

enum { MOST = 1 << 20 };
typedef struct Caller {
  const BurinModel *model;
  BurinOptions options;
  double ms, took, *times;
  int n;
} Caller;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void *room(const BurinTensorInfo *t) {
  size_t n = 8;
  for (int32_t i = 0; i < t->rank; i++) n *= t->dims[i] > 0 ? (size_t)t->dims[i] : 1;
  return calloc(n, 1);
}

static void *call(void *arg) {
  Caller *const c = arg;
  const BurinModel *const m = c->model;
  const void *in[64];
  void *out[64];
  int64_t dims[64];
  for (int i = 0; i < 64; i++) dims[i] = 1;
  for (int32_t k = 0; k < m->n_inputs; k++) in[k] = room(&m->inputs[k]);
  for (int32_t k = 0; k < m->n_outputs; k++) out[k] = room(&m->outputs[k]);
  const size_t bytes = m->arena_size(dims, c->options.threads) / 64 * 64 + 64;
  void *const arena = aligned_alloc(64, bytes);
  c->options.arena_bytes = bytes;
  c->times = malloc(MOST * sizeof *c->times);
  for (int i = 0; i < 3; i++) m->invoke(in, out, dims, arena, &c->options);
  const double start = now_ms();
  for (double t = start; t < start + c->ms && c->n < MOST; c->n++) {
    if (m->invoke(in, out, dims, arena, &c->options)) exit(1);
    const double end = now_ms();
    c->times[c->n] = end - t;
    t = end;
  }
  c->took = now_ms() - start;
  return NULL;
}

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  const int threads = atoi(argv[1]), callers = argc > 3 ? atoi(argv[3]) : 1;
  const BurinOptions o = burin_pool_options(threads > 1 ? burin_pool_new(threads) : NULL);
  Caller c[16];
  pthread_t t[16];
  double rate = 0;
  for (int i = 0; i < callers && i < 16; i++) {
    c[i] = (Caller){.model = burin_model_info(), .options = o, .ms = atof(argv[2])};
    if (i > 0 && pthread_create(&t[i], NULL, call, &c[i])) return 1;
  }
  call(&c[0]);
  for (int i = 0; i < callers && i < 16; i++) {
    if (i > 0) pthread_join(t[i], NULL);
    rate += c[i].n / c[i].took * 1e3;
  }
  qsort(c[0].times, (size_t)c[0].n, sizeof *c[0].times, compare);
  printf("%g %g\n", c[0].times[c[0].n / 2], rate);
  return 0;
}
