/* A compiled model under other schedules: the same bits as on one thread, on memory of 0xFF, with
 * the host pool or PROGRAM_POOL. delayed_model ROUNDS: that many with each of 2, 3 and 4
 * threads. */
#include "delayed_pools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8 };
const BurinModel *burin_model_info(void);

typedef struct Run {
  const BurinModel *model;
  const void *in[MOST];
  void *out[MOST];
  int64_t dims[MOST];
} Run;

static size_t floats(const BurinTensorInfo *t) {
  size_t n = 1;
  for (int32_t i = 0; i < t->rank; i++) n *= (size_t)t->dims[i];
  return n;
}

static void *random_floats(size_t n) {
  float *const x = malloc(n * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = (float)(int32_t)draw() / 2147483648.0f;
  return x;
}

static Run prepare(void) {
  Run r = {.model = burin_model_info()};
  for (int32_t i = 0; i < r.model->n_inputs; i++)
    r.in[i] = random_floats(floats(&r.model->inputs[i]));
  for (int32_t i = 0; i < r.model->n_outputs; i++)
    r.out[i] = malloc(floats(&r.model->outputs[i]) * sizeof(float));
  return r;
}

static bool invoke(Run *r, BurinOptions o) {
  const size_t bytes = r->model->arena_size(r->dims, o.threads) / 64 * 64 + 64;
  void *const arena = aligned_alloc(64, bytes);
  o.arena_bytes = bytes;
  memset(arena, 0xff, bytes);
  for (int32_t i = 0; i < r->model->n_outputs; i++)
    memset(r->out[i], 0xff, floats(&r->model->outputs[i]) * sizeof(float));
  const bool ok = r->model->invoke(r->in, r->out, r->dims, arena, &o) == 0;
  free(arena);
  return ok;
}

static bool same(const Run *r, void *const *want) {
  bool equal = true;
  for (int32_t i = 0; i < r->model->n_outputs; i++)
    equal = equal && !memcmp(r->out[i], want[i], floats(&r->model->outputs[i]) * sizeof(float));
  return equal;
}

/* How many of the rounds were wrong. */
static int rounds(Run *r, int threads, int n, void *const *want) {
  Pool *const p = pool_start(threads);
  const BurinOptions o = {
      .size = sizeof o, .threads = threads, .user = p, .parallel_ranges = pool_parallel_ranges};
  int wrong = 0;
  for (int i = 0; p && i < n; i++) {
    shuffle(p);
    wrong += !invoke(r, o) || !same(r, want);
  }
#ifndef PROGRAM_POOL
  burin_pool_free(p);
#endif
  return p ? wrong : n;
}

int main(int argc, char **argv) {
  Run r = prepare();
  void *want[MOST];
  const BurinOptions alone = {.size = sizeof alone, .threads = 1};
  if (argc != 2 || !invoke(&r, alone)) return 2;
  memcpy(want, r.out, sizeof want);
  for (int32_t i = 0; i < r.model->n_outputs; i++)
    r.out[i] = malloc(floats(&r.model->outputs[i]) * sizeof(float));
  int wrong = 0;
  for (int threads = 2; threads <= 4; threads++) wrong += rounds(&r, threads, atoi(argv[1]), want);
  if (wrong) fprintf(stderr, "%d of %d rounds wrong\n", wrong, 3 * atoi(argv[1]));
  return wrong != 0;
}
