/* Rows, taps and reach of convolutions; see conv_axes.h. */
#include "passes/choose/conv_axes.h"

int64_t conv_phases(const ConvInfo *conv) {
  int64_t n = 1;
  for (int s = 0; s < conv->spatial && conv->transposed; s++) {
    if (conv->stride[s] > 1 && conv->dilation[s] > 1) return 0;
    if (!ck_mul(n, conv->stride[s], &n) || n > 64) return 0;
  }
  return n;
}

static void axis_plain(const Node *n, const ConvInfo *conv, int s, Axis *a) {
  *a = (Axis){.rows = n->out[0]->dims[2 + s],
              .os = 1,
              .is = conv->stride[s],
              .ib = -conv->pad_lo[s],
              .dk = conv->dilation[s],
              .taps = conv->kernel[s],
              .kstep = 1};
}

/* Output o = i*stride + k*dilation - pad: fixed o mod stride fixes k mod stride. */
static void axis_transposed(Model *m, const Node *n, const ConvInfo *conv, int s, int64_t phase,
                            Axis *a) {
  ExprPool *p = m->pool;
  const int64_t st = conv->stride[s], t = phase + conv->pad_lo[s];
  const Expr *out = n->out[0]->dims[2 + s];
  const Expr *rows = ex_ceildiv(p, ex_sub(p, out, ex_i64(p, phase)), st);
  if (st == 1) {
    *a = (Axis){.rows = out,
                .os = 1,
                .is = 1,
                .ib = conv->pad_lo[s],
                .dk = -conv->dilation[s],
                .taps = conv->kernel[s],
                .kstep = 1};
    return;
  }
  const int64_t k0 = t % st, taps = conv->kernel[s] > k0 ? (conv->kernel[s] - k0 + st - 1) / st : 0;
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

void conv_axes(Model *m, const Node *n, const ConvInfo *conv, int64_t phase, Axis *axes) {
  for (int s = conv->spatial - 1; s >= 0; s--) {
    if (!conv->transposed) {
      axis_plain(n, conv, s, &axes[s]);
      continue;
    }
    axis_transposed(m, n, conv, s, phase % conv->stride[s], &axes[s]);
    phase /= conv->stride[s];
  }
}

void conv_reach(Model *m, const Node *n, const ConvInfo *conv, int s, int64_t *lo, int64_t *hi) {
  const int64_t phases = conv_phases(conv);
  *lo = *hi = 0;
  for (int64_t ph = 0; ph < phases; ph++) {
    Axis axes[MAX_SPATIAL];
    conv_axes(m, n, conv, ph, axes);
    const Axis *a = &axes[s];
    if (!a->taps) continue;
    const int64_t span = (a->taps - 1) * a->dk, first = a->ib + (span < 0 ? span : 0);
    int64_t rows, in, behind = conv->transposed ? a->ib + 1 : conv->pad_hi[s];
    if (expr_is_const(a->rows, &rows) && expr_is_const(n->in[0]->dims[2 + s], &in))
      behind = (rows - 1) * a->is + a->ib + (span > 0 ? span : 0) - (in - 1);
    else if (conv->transposed)
      behind = ((conv->kernel[s] - 1) * conv->dilation[s] + conv->out_pad[s]) / conv->stride[s] +
               1 + a->ib;
    if (-first > *lo) *lo = -first;
    if (behind > *hi) *hi = behind;
  }
}
