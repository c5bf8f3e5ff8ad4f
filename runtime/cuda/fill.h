/* Inside runtime/cuda: a call of a runtime function as its kernel takes it, and what comes back. */
#pragma once
#include "runtime/cuda/gpu.h"

/* Absent tensors have no dimensions there. */
static inline int64_t *fill_tensors(RtTensor *to, const RtTensor *from, int32_t n, int64_t *dims) {
  for (int32_t i = 0; i < n; i++) {
    to[i] = from[i];
    to[i].dims = 0;
    if (!from[i].data) to[i].rank = 0;
    for (int32_t d = 0; d < to[i].rank; d++) *dims++ = from[i].dims[d];
  }
  return dims;
}

static inline RtCall fill_call(const GpuCall *g) {
  RtCall c = {.scratch = g->scratch, .result = g->result, .members = g->members};
  c.n_in = g->n_in;
  c.n_out = g->n_out;
  fill_tensors(c.out, g->out, g->n_out, fill_tensors(c.in, g->in, g->n_in, c.dims));
  for (int32_t i = 0; i < g->n_words; i++) c.words[i] = g->words[i];
  return c;
}

/* Words of the result, behind the status the sizes of all outs. */
static inline int32_t result_words(const RtCall *c) {
  int32_t n = 1;
  for (int32_t i = 0; i < c->n_out; i++) n += c->out[i].rank;
  return n;
}

static inline int32_t take_result(const GpuCall *g, const RtCall *c, const int64_t *result) {
  const int64_t *from = result + 1;
  for (int32_t i = 0; i < c->n_out; i++)
    for (int32_t d = 0; d < c->out[i].rank; d++) g->out[i].dims[d] = *from++;
  return (int32_t)result[0];
}
