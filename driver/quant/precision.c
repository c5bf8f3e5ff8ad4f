/* --precision: which floats of 16 bits, and what stays f32 by rule. Errors, budget and report are the
 * quantizer's. */
#include <math.h>
#include <string.h>
#include "driver/quant/quantizer.h"
#include "ir/ops/nn/contraction.h"

enum { LEAST = 1024 }; /* weights that are worth it */

bool quantizer_find_precision(Quantizer *z) {
  const char *name = z->s->o->precision;
  z->form_name = name;
  z->mixed = strcmp(name, "mixed") == 0;
  z->plain = strcmp(name, "f16") == 0 || strcmp(name, "bf16") == 0;
  return z->mixed || z->plain ||
         (usage_error("--precision: '%s' is none of f32, f16, bf16, mixed", name), false);
}

static bool multiplies_bf16(const Target *t) {
  return target_has(t, FEATURE_AMX_BF16) || (target_has(t, FEATURE_BF16) && !t->slow_pairs);
}

/* bf16 where the target multiplies it; else weights alone, in the type that it converts fast. */
static void choose_type(const Quantizer *z, QuantPlan *q) {
  const Target *t = z->s->target;
  const bool products = multiplies_bf16(t);
  q->weights_only = z->mixed && !products;
  q->half = z->mixed ? products || !target_has(t, FEATURE_F16C) ? DT_BF16 : DT_F16
                     : dtype_from_text(z->form_name);
}

bool quantizer_half_attention(const Quantizer *z) {
  return z->mixed || target_has_grids(z->s->target) ||
         (z->plain && strcmp(z->form_name, "bf16") == 0);
}

static bool is_depthwise(const Node *n) {
  ConvInfo conv;
  return conv_info(n, &conv) && conv.group > 1 && conv.group == conv.c_in;
}

/* Of bf16 where it is chosen for its speed. */
static const char *slow_by_rule(const QuantLayer *l, const Node *n) {
  if (l->weights < LEAST) return "it has fewer than 1024 weights";
  return is_depthwise(n) ? "depthwise: nothing is multiplied in pairs" : NULL;
}

/* NULL: it may be in 16 bits. */
static const char *rule_against(const Quantizer *z, const QuantLayer *l) {
  const QuantPlan *q = z->plan;
  const Node *n = quant_layer_node(z->s->model, l);
  if (l->other >= 0)
    return z->mixed && !z->s->o->calibrate ? "without samples its time is not known" : NULL;
  const double largest = quant_largest_weight(n->in[1]->cdata);
  if (largest > quant_half_largest(q->half))
    return arena_printf(z->s->arena, "its weights reach %.3g, beyond %s", largest,
                        dtype_text(q->half));
  if (!z->mixed) return NULL;
  if (q->weights_only) return l->weights < LEAST ? "it has fewer than 1024 weights" : NULL;
  return slow_by_rule(l, n);
}

/* ---- layers in 16 bits among those in 8 ---- */
int quantizer_try_half(Quantizer *z) {
  QuantPlan *q = z->plan;
  int n = 0;
  if (q->form != QUANT_INT8 || !z->real.layers || !multiplies_bf16(z->s->target)) return 0;
  q->half = DT_BF16;
  for (int k = 0; k < q->layers.n; k++) {
    QuantLayer *l = &q->layers.data[k];
    l->half = !l->on && !z->layers[k].kept && l->other < 0 &&
              !slow_by_rule(l, quant_layer_node(z->s->model, l));
    n += l->half;
  }
  return n;
}

int quantizer_keep_half(Quantizer *z, const ModelTimes *t, int *slow) {
  static const double faster = 0.9;
  int n = 0;
  *slow = 0;
  for (int k = 0; k < z->plan->layers.n; k++) {
    QuantLayer *l = &z->plan->layers.data[k];
    const bool was = l->half;
    l->half = was && t && t->layers[k] <= faster * z->real.layers[k];
    n += l->half;
    *slow += was && !l->half;
  }
  return n;
}

void quantizer_half(Quantizer *z) {
  QuantPlan *q = z->plan;
  choose_type(z, q);
  for (int k = 0; k < q->layers.n; k++) {
    const char *reason = rule_against(z, &q->layers.data[k]);
    if (!reason) continue;
    z->layers[k].kept = true;
    z->layers[k].reason = reason;
    q->layers.data[k].on = false;
  }
  quant_plan_update(q);
}

void quantizer_tell_overflow(Quantizer *z) {
  const QuantPlan *q = z->plan;
  const double most = quant_half_largest(q->half);
  const Loc loc = {.file = z->s->file, .node = -1};
  for (int k = 0; k < q->layers.n; k++) {
    const QuantLayer *l = &q->layers.data[k];
    const QuantPoint *p = &q->points.data[l->point];
    const double seen = fmax(fabs(p->seen_lo), fabs(p->seen_hi));
    if (l->on && seen > most)
      diag_warning(z->s->diag, &loc,
                   "what %s \"%s\" reads reaches %.3g, beyond the %g of %s: it becomes infinite; "
                   "--precision=mixed avoids that",
                   l->op, l->name, seen, most, dtype_text(q->half));
  }
}
