/* Parallel loops of generated code, handed to whatever lends threads: ranges of its choice where it
 * can choose (parallel_ranges), else one contiguous part for each thread. */
#include <stdbool.h>

#include "runtime/core/rt.h"

typedef struct Loop {
  BurinKernelFn kernel;
  void *const *bufs;
  const int64_t *syms;
  int64_t n, parts;
  char *scratch;
  uint64_t scratch_stride;
} Loop;

static void range_run(void *arg, int64_t begin, int64_t end, int32_t slot) {
  const Loop *l = arg;
  l->kernel(l->bufs, l->syms, begin, end, l->scratch + (size_t)slot * (size_t)l->scratch_stride);
}

/* First iteration of part i: n*i/parts without overflow. */
static int64_t part_begin(const Loop *l, int64_t i) {
  return l->n / l->parts * i + l->n % l->parts * i / l->parts;
}

static void part_run(void *arg, int32_t i) {
  range_run(arg, part_begin(arg, i), part_begin(arg, i + 1), i);
}

static bool lends_ranges(const BurinOptions *o) { /* older hosts have shorter options */
  return o->size >= offsetof(BurinOptions, parallel_ranges) + sizeof o->parallel_ranges &&
         o->parallel_ranges;
}

void burin_rt_parallel(const BurinOptions *o, BurinKernelFn kernel, void *const *bufs,
                       const int64_t *syms, int64_t n, int64_t min_chunk, char *scratch,
                       uint64_t scratch_stride) {
  if (n <= 0) return;
  const int64_t chunk = min_chunk > 1 ? min_chunk : 1;
  const int64_t most = n / chunk > 1 ? n / chunk : 1, threads = o ? o->threads : 1;
  Loop l = {kernel, bufs, syms, n, threads < most ? threads : most, scratch, scratch_stride};
  if (l.parts > 1 && lends_ranges(o))
    o->parallel_ranges(o->user, n, chunk, o->threads, range_run, &l);
  else if (l.parts > 1 && o->parallel_for)
    o->parallel_for(o->user, (int32_t)l.parts, part_run, &l);
  else
    kernel(bufs, syms, 0, n, scratch);
}
