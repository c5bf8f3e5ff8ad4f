/* Inputs that have a default: what a NULL pointer of the caller stands for. */
#include <stdbool.h>

#include "runtime/core/rt.h"

int64_t burin_rt_inputs(const void *const *in, const BurinDefault *defaults, int64_t n,
                        const void **own) {
  int64_t found = -1;
  for (int64_t k = 0; k < n; k++) {
    const BurinDefault *d = &defaults[k];
    own[k] = in[k] ? in[k] : d->data;
    if (!in[k] || !d->data) continue;
    const bool other =
        d->pinned_bytes && burin_rt_memcmp(in[k], d->data, (size_t)d->pinned_bytes) != 0;
    if (found <= 0) found = other ? k + 1 : 0;
  }
  return found;
}
