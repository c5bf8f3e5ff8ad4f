/* Parallel loops of generated code: a static partition into contiguous parts, handed to whatever
 * lends threads. */
#include "runtime/rt.h"

typedef struct Part {
  BurinKernelFn kernel;
  void *const *bufs;
  const int64_t *syms;
  int64_t n, parts;
  char *scratch;
  uint64_t scratch_stride;
} Part;

/* First iteration of part i: n*i/parts without overflow. */
static int64_t part_begin(const Part *p, int64_t i) {
  return p->n / p->parts * i + p->n % p->parts * i / p->parts;
}

static void part_run(void *arg, int32_t i) {
  const Part *p = arg;
  p->kernel(p->bufs, p->syms, part_begin(p, i), part_begin(p, i + 1),
            p->scratch + (size_t)i * (size_t)p->scratch_stride);
}

void burin_rt_parallel(const BurinOptions *o, BurinKernelFn kernel, void *const *bufs,
                       const int64_t *syms, int64_t n, int64_t min_chunk, char *scratch,
                       uint64_t scratch_stride) {
  if (n <= 0) return;
  int64_t parts = o && o->parallel_for && o->threads > 1 ? o->threads : 1;
  const int64_t chunk = min_chunk > 1 ? min_chunk : 1;
  const int64_t most = n / chunk > 1 ? n / chunk : 1;
  if (parts > most) parts = most;
  if (parts == 1) {
    kernel(bufs, syms, 0, n, scratch);
    return;
  }
  Part p = {kernel, bufs, syms, n, parts, scratch, scratch_stride};
  o->parallel_for(o->user, (int32_t)parts, part_run, &p);
}
