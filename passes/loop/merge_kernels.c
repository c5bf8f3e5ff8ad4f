/* Makes kernels that differ only in names, variables and locations one kernel: those of equal
 * digests (kernel_digest.c). Keeps the order of first use. Needs nothing; breaks nothing. */
#include "passes/loop/kernel_digest.h"

static void redirect(const KernelTable *t, Kernel *const *same, Step *s) {
  for (; s; s = s->next) {
    const int at = s->kind == STEP_KERNEL ? kernel_table_find(t, s->kernel) : -1;
    if (at >= 0) s->kernel = same[at];
    redirect(t, same, s->body);
    redirect(t, same, s->otherwise);
  }
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
  redirect(&t, same, m->steps);
  return true;
}
