/* What was decided, as a table. */
#include <math.h>
#include "driver/quant/quantizer.h"

static void print_methods(const Quantizer *z, StrBuf *b) {
  sb_printf(b, "  calibration  %s (", quant_method_names[z->method]);
  bool first = true;
  for (int k = 0; k < QUANT_METHODS; k++) {
    if (isnan(z->method_sqnr[k])) continue;
    sb_printf(b, "%s%s %.1f dB", first ? "" : ", ", quant_method_names[k], z->method_sqnr[k]);
    first = false;
  }
  sb_printf(b, "), %d samples\n", z->data.samples.n);
  sb_printf(b, "  biases       %s (%.1f dB, corrected %.1f dB)\n",
            z->corrected ? "corrected" : "as they are", z->uncorrected_sqnr, z->corrected_sqnr);
}

static void print_stretched(const Quantizer *z, StrBuf *b) {
  if (z->stretched)
    sb_printf(b, "  channels     evened out in %d of %d tensors\n", z->stretched,
              z->plan->points.n);
}

/* Of layers that are on. */
static const char *form_of(const Quantizer *z) {
  if (z->plan->form == QUANT_HALF) return dtype_text(z->plan->half);
  return z->plan->form == QUANT_INT4 ? "int4" : "int8";
}

const char *quantizer_layer_form(const Quantizer *z, const QuantLayer *l) {
  return l->on ? form_of(z) : l->half ? dtype_text(z->plan->half) : "float";
}

static void print_layer(const Quantizer *z, int k, bool timed, StrBuf *b) {
  const QuantLayer *l = &z->plan->layers.data[k];
  const LayerReport *r = &z->layers[k];
  if (isnan(r->alone))
    sb_printf(b, "%12s", "-");
  else
    sb_printf(b, "%9.1f dB", r->alone);
  sb_printf(b, "  %10lld  %-6s %-14s", (long long)l->weights, quantizer_layer_form(z, l), l->op);
  if (timed) sb_printf(b, " %9.1f  %9.1f ", z->real.layers[k], z->eight.layers[k]);
  sb_printf(b, " %s%s%s\n", l->name, l->on ? "" : ": ", l->on ? "" : r->reason);
}

static void print_adapted(const Quantizer *z, StrBuf *b) {
  if (z->adapted)
    sb_printf(b, "  rounding     adapted to the samples in %d of %d layers\n", z->adapted,
              z->plan->layers.n);
}

/* Products with constant weights in g, which is a region, and in its own regions. */
static void list_inside(Quantizer *z, const Graph *g) {
  Arena *a = z->s->arena;
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i], *owner = g->owner;
    if (owner && (n->op->flags & OF_CONTRACTION) && node_in(n, 1) && n->in[1]->cdata)
      vec_push(a, &z->inside,
               (LayerInside){.name = node_title(a, n),
                             .op = n->op->name,
                             .weights = n->in[1]->cdata->count,
                             .reason = arena_printf(a, "inside %s \"%s\"", owner->op->name,
                                                    node_title(a, owner))});
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) list_inside(z, n->attrs[k].graph);
  }
}

void quantizer_list_inside(Quantizer *z) { list_inside(z, z->s->model->main); }

static void print_inside(const Quantizer *z, StrBuf *b) {
  for (int k = 0; k < z->inside.n; k++) {
    const LayerInside *l = &z->inside.data[k];
    sb_printf(b, "%12s  %10lld  %-6s %-14s %s: %s\n", "-", (long long)l->weights, "float", l->op,
              l->name, l->reason);
  }
}

/* Without samples only what stays float, by rule. */
static void print_layers(const Quantizer *z, StrBuf *b) {
  const bool half = z->plan->form == QUANT_HALF, measured = z->data.samples.n > 0;
  int on = 0, sixteen = 0;
  for (int k = 0; k < z->plan->layers.n; k++) {
    on += z->plan->layers.data[k].on;
    sixteen += z->plan->layers.data[k].half;
  }
  sb_printf(b, "  layers       %d of %d %s%s", on, z->plan->layers.n, half ? "in " : "quantized",
            half ? form_of(z) : "");
  if (sixteen) sb_printf(b, ", %d in %s", sixteen, dtype_text(z->plan->half));
  sb_printf(b, "\n");
  if (half && z->plan->weights_only)
    sb_printf(b, "  activations  f32: the target multiplies no floats of 16 bits\n");
  if (z->inside.n)
    sb_printf(b, "  bodies       %d more, in If and Loop, stay float\n", z->inside.n);
  const bool timed = z->real.layers && z->eight.layers;
  if (measured)
    sb_printf(b, "%12s  %10s  %-6s %-14s%s layer\n", "error alone", "weights", "form", "operator",
              timed ? arena_printf(b->arena, " %9s  %9s ", "us, float", form_of(z)) : "");
  for (int k = 0; k < z->plan->layers.n; k++)
    if (measured || !z->plan->layers.data[k].on) print_layer(z, k, timed, b);
  print_inside(z, b);
}

static void print_times(const Quantizer *z, StrBuf *b) {
  if (z->real.layers && z->final.layers)
    sb_printf(b,
              "  time         %.4g ms, float %.4g ms: %.2f times as fast (kernels, one thread)\n",
              z->final.all / 1e3, z->real.all / 1e3, z->real.all / z->final.all);
}

static void print_result(const Quantizer *z, StrBuf *b) {
  const double n = (double)z->base.samples;
  const Score *s = &z->result;
  sb_printf(b, "  result       %.1f dB against the float model", score_sqnr(s));
  if (s->broken) sb_printf(b, "; NaN or infinite in %lld of the samples", (long long)s->broken);
  if (z->data.labels)
    sb_printf(b, "; top-1 %.2f %%, float %.2f %%", 100 * (double)s->right / n,
              100 * (double)z->base.right / n);
  else
    sb_printf(b, "; the same best element in %.1f %% of the samples", 100 * (double)s->right / n);
  if (isfinite(z->max_drop))
    sb_printf(b, "; %s: %.3g lost of at most %.3g", metric_name(z->metric),
              score_drop(s, &z->base, z->metric), z->max_drop);
  sb_printf(b, "\n");
}

void quantizer_report(const Quantizer *z, StrBuf *b) {
  sb_printf(b, z->plan->form == QUANT_HALF ? "%s in %s\n" : "%s quantized to %s\n", z->s->file,
            z->form_name);
  if (z->plan->form == QUANT_INT8) print_methods(z, b);
  print_stretched(z, b);
  print_adapted(z, b);
  print_layers(z, b);
  if (z->data.samples.n) print_result(z, b);
  print_times(z, b);
}
