/* Makes kernels that differ only in names, variables and locations one kernel: those of equal
 * digests (kernel_digest.c). Keeps the order of first use. Needs nothing; breaks nothing. */
#include "passes/loop/kernel_digest.h"

typedef struct Merge {
  KernelTable t;
  Kernel **same; /* by position: what takes its place */
} Merge;

static bool redirect(void *user, Step *s) {
  const Merge *const m = user;
  const int at = s->kind == STEP_KERNEL ? kernel_table_find(&m->t, s->call.kernel) : -1;
  if (at >= 0) s->call.kernel = m->same[at];
  return true;
}

bool pass_merge_kernels(PassCtx *c) {
  Module *m = c->module;
  const int n = m->kernels.n;
  if (n == 0) return true;
  KernelDigest *d = ARENA_ARRAY(c->scratch, KernelDigest, n);
  Kernel **same = ARENA_ARRAY(c->scratch, Kernel *, n);
  KernelTable t = kernel_table_new(c->scratch, m->kernels.data, d, n);
  m->kernels.n = 0;
  for (int i = 0; i < n; i++) {
    d[i] = kernel_digest_full(c->scratch, c->model->pool, t.kernels[i]);
    const int first = kernel_table_equal(&t, i);
    same[i] = t.kernels[first];
    if (first == i) m->kernels.data[m->kernels.n++] = t.kernels[i];
  }
  if (m->kernels.n == n) return true;
  c->changed = true;
  step_each(m->steps, redirect, &(Merge){t, same});
  return true;
}
