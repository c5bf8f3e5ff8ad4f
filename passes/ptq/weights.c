/* Weights in 8 bits. */
#include <math.h>
#include <string.h>
#include "passes/ptq/ptq.h"

void quant_weights(const ConstData *w, int axis, float *scales, int8_t *out) {
  int64_t outer = 1, inner = 1;
  const int64_t n = axis < 0 ? 1 : w->dims[axis];
  for (int d = 0; d < axis; d++) outer *= w->dims[d];
  for (int d = axis < 0 ? 0 : axis + 1; d < w->rank; d++) inner *= w->dims[d];
  for (int64_t c = 0; c < n; c++) {
    double most = 0;
    for (int64_t o = 0; o < outer; o++)
      for (int64_t i = 0; i < inner; i++) {
        const double v = fabs(const_float(w, (o * n + c) * inner + i));
        if (v > most) most = v;
      }
    /* a channel of zeros, or so small that products with its scale would vanish */
    scales[c] = most / 127 > 1e-30 ? (float)(most / 127) : 1;
  }
  for (int64_t k = 0; k < w->count; k++) {
    const double q = rint(const_float(w, k) / (double)scales[k / inner % n]);
    out[k] = (int8_t)fmin(fmax(q, -127), 127);
  }
}
