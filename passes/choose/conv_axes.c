/* Rows, taps and reach of convolutions; see conv_axes.h. */
#include "passes/choose/conv_axes.h"

int64_t conv_phases(const ConvInfo *ci) {
  int64_t n = 1;
  for (int s = 0; s < ci->spatial && ci->transposed; s++) {
    if (ci->stride[s] > 1 && ci->dilation[s] > 1) return 0;
    if (!ck_mul(n, ci->stride[s], &n) || n > 64) return 0;
  }
  return n;
}

static void axis_plain(const Node *n, const ConvInfo *ci, int s, Axis *a) {
  *a = (Axis){.rows = n->out[0]->dims[2 + s],
              .os = 1,
              .is = ci->stride[s],
              .ib = -ci->pad_lo[s],
              .dk = ci->dilation[s],
              .taps = ci->kernel[s],
              .kstep = 1};
}

/* Output o = i*stride + k*dilation - pad: fixed o mod stride fixes k mod stride. */
static void axis_transposed(Model *m, const Node *n, const ConvInfo *ci, int s, int64_t phase,
                            Axis *a) {
  ExprPool *p = m->pool;
  const int64_t st = ci->stride[s], t = phase + ci->pad_lo[s];
  const Expr *out = n->out[0]->dims[2 + s];
  const Expr *rows = ex_ceildiv(p, ex_sub(p, out, ex_i64(p, phase)), st);
  if (st == 1) {
    *a = (Axis){.rows = out,
                .os = 1,
                .is = 1,
                .ib = ci->pad_lo[s],
                .dk = -ci->dilation[s],
                .taps = ci->kernel[s],
                .kstep = 1};
    return;
  }
  const int64_t k0 = t % st, taps = ci->kernel[s] > k0 ? (ci->kernel[s] - k0 + st - 1) / st : 0;
  *a = (Axis){.rows = rows,
              .os = st,
              .ob = phase,
              .is = 1,
              .ib = t / st,
              .dk = -1,
              .taps = taps,
              .k0 = k0,
              .kstep = st};
}

void conv_axes(Model *m, const Node *n, const ConvInfo *ci, int64_t phase, Axis *axes) {
  for (int s = ci->spatial - 1; s >= 0; s--) {
    if (!ci->transposed) {
      axis_plain(n, ci, s, &axes[s]);
      continue;
    }
    axis_transposed(m, n, ci, s, phase % ci->stride[s], &axes[s]);
    phase /= ci->stride[s];
  }
}

void conv_reach(Model *m, const Node *n, const ConvInfo *ci, int s, int64_t *lo, int64_t *hi) {
  const int64_t phases = conv_phases(ci);
  *lo = *hi = 0;
  for (int64_t ph = 0; ph < phases; ph++) {
    Axis axes[MAX_SPATIAL];
    conv_axes(m, n, ci, ph, axes);
    const Axis *a = &axes[s];
    if (!a->taps) continue;
    const int64_t span = (a->taps - 1) * a->dk, first = a->ib + (span < 0 ? span : 0);
    int64_t rows, in, behind = ci->transposed ? a->ib + 1 : ci->pad_hi[s];
    if (expr_is_const(a->rows, &rows) && expr_is_const(n->in[0]->dims[2 + s], &in))
      behind = (rows - 1) * a->is + a->ib + (span > 0 ? span : 0) - (in - 1);
    else if (ci->transposed)
      behind = ((ci->kernel[s] - 1) * ci->dilation[s] + ci->out_pad[s]) / ci->stride[s] + 1 + a->ib;
    if (-first > *lo) *lo = -first;
    if (behind > *hi) *hi = behind;
  }
}
