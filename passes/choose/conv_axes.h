/* Convolutions seen as contractions over rows: along one spatial dimension row q writes output q*os
 * + ob and reads input q*is + ib + t*dk with weight tap k0 + t*kstep, for t in [0, taps). A
 * transposed convolution is one such contraction per phase of its stride. */
#pragma once
#include "ir/ops/nn/contraction.h"

typedef struct Axis {
  const Expr *rows;
  int64_t os, ob, is, ib, dk, taps, k0, kstep;
} Axis;

/* Number of phases of a convolution over all dimensions; 0: its form has no such description. */
int64_t conv_phases(const ConvInfo *conv);
void conv_axes(Model *m, const Node *n, const ConvInfo *conv, int64_t phase, Axis *axes);
/* Elements before and behind the input along spatial dimension s that are read, over all phases. */
void conv_reach(Model *m, const Node *n, const ConvInfo *conv, int s, int64_t *lo, int64_t *hi);
