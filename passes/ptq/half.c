/* Layers in floats of 16 bits: weights and what is stored between layers are Casts to f16 or bf16 and back,
 * which lose what 16 bits lose; everything else computes in f32. The pass half_products makes products of
 * 16 bits of them, and a program that stores 16 bits. */
#include <math.h>
#include "passes/graph/rewrite.h"
#include "passes/ptq/rewriter.h"

enum { LEAST_TABLE = 1024 };

double quant_half_largest(DType half) {
  return half == DT_F16 ? 65504 : dtype_decode(DT_BF16, 0x7f7f);
}

static Value *round_half(Rewriter *r, Value *v, int group) {
  (void)group;
  return build_rounded(&r->b, v, r->q->half);
}

/* The weights in 16 bits; the constant of all layers that share them is one (by cse). */
static Value *half_weights(Model *m, const ConstData *w, DType half) {
  const size_t size = (size_t)dtype_bytes(half);
  char *data = arena_alloc(m->arena, (size_t)w->count * size + 1);
  for (int64_t k = 0; k < w->count; k++)
    dtype_store_f(half, data + (size_t)k * size, const_float(w, k));
  return value_const(m, const_new(m, w->name, half, w->rank, w->dims, data));
}

Value *quant_half_weights_real(Model *m, const ConstData *w, DType half) {
  float *data = ARENA_ARRAY(m->arena, float, w->count + 1);
  for (int64_t k = 0; k < w->count; k++)
    data[k] = (float)dtype_round(half, const_float(w, k), false);
  return value_const(m, const_new(m, w->name, DT_F32, w->rank, w->dims, data));
}

/* ---- insert ---- */
bool quant_halve_weights(Build *b, Node *n, DType half) {
  n->in[1] = build_cast(b, half_weights(b->m, n->in[1]->cdata, half), DT_F32);
  return b->ok;
}

static bool insert_layer(Rewriter *r, Node *n, const QuantLayer *l, Value *const *in, bool *keep) {
  (void)keep;
  if (l->other >= 0) {
    for (int k = 0; k < 2 && l->on; k++) n->in[k] = in[k];
    return true;
  }
  if (!r->q->weights_only) n->in[0] = in[0];
  return !l->on || quant_halve_weights(&r->b, n, r->q->half);
}

double quant_largest_weight(const ConstData *w) {
  double most = 0;
  for (int64_t k = 0; k < w->count; k++) most = fmax(most, fabs(const_float(w, k)));
  return most;
}

bool quant_halve_tables(Model *m, const QuantPlan *q, bool real) {
  for (int i = 0; i < m->main->nodes.n; i++) {
    Node *n = m->main->nodes.data[i];
    const ConstData *w = node_is(n, "Gather") ? const_input(n, 0) : NULL;
    if (!w || w->dtype != DT_F32 || w->count < LEAST_TABLE ||
        quant_largest_weight(w) > quant_half_largest(q->half))
      continue;
    Build b = {.m = m, .g = m->main, .before = n, .loc = n->loc, .ok = true};
    n->in[0] = real ? quant_half_weights_real(m, w, q->half)
                    : build_cast(&b, half_weights(m, w, q->half), DT_F32);
    if (!b.ok) return false;
    if (!real) i++; /* the Cast stands in front */
  }
  return true;
}

bool quant_insert_half(Model *m, const QuantPlan *q) {
  Rewriter r = {.m = m, .q = q, .round = round_half, .layer = insert_layer};
  return rewriter_run(&r) && quant_halve_tables(m, q, false);
}
