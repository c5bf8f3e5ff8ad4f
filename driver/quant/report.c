/* What was decided, as a table. */
#include <math.h>
#include "driver/quant/quantizer.h"

static void print_methods(const Quantizer *z, FILE *f) {
  fprintf(f, "  calibration  %s (", quant_method_names[z->method]);
  bool first = true;
  for (int k = 0; k < QUANT_METHODS; k++) {
    if (isnan(z->method_sqnr[k])) continue;
    fprintf(f, "%s%s %.1f dB", first ? "" : ", ", quant_method_names[k], z->method_sqnr[k]);
    first = false;
  }
  fprintf(f, "), %d samples\n", z->data.samples.n);
  fprintf(f, "  biases       %s (%.1f dB, corrected %.1f dB)\n",
          z->corrected ? "corrected" : "as they are", z->uncorrected_sqnr, z->corrected_sqnr);
}

static void print_stretched(const Quantizer *z, FILE *f) {
  if (z->stretched)
    fprintf(f, "  channels     evened out in %d of %d tensors\n", z->stretched, z->plan->points.n);
}

static void print_layers(const Quantizer *z, FILE *f) {
  const char *form = z->plan->form == QUANT_INT4 ? "int4" : "int8";
  int on = 0;
  for (int k = 0; k < z->plan->layers.n; k++) on += z->plan->layers.data[k].on;
  fprintf(f, "  layers       %d of %d quantized\n", on, z->plan->layers.n);
  if (!z->layers) return;
  fprintf(f, "%12s  %10s  %-6s %-14s %s\n", "error alone", "weights", "form", "operator", "layer");
  for (int k = 0; k < z->plan->layers.n; k++) {
    const QuantLayer *l = &z->plan->layers.data[k];
    fprintf(f, "%9.1f dB  %10lld  %-6s %-14s %s%s%s\n", z->layers[k].alone, (long long)l->weights,
            l->on ? form : "float", l->op, l->name, l->on ? "" : ": ",
            l->on ? "" : z->layers[k].reason);
  }
}

static void print_result(const Quantizer *z, FILE *f) {
  const double n = (double)z->base.samples;
  const Score *s = &z->result;
  fprintf(f, "  result       %.1f dB against the float model", score_sqnr(s));
  if (z->data.labels)
    fprintf(f, "; top-1 %.2f %%, float %.2f %%", 100 * (double)s->right / n,
            100 * (double)z->base.right / n);
  else
    fprintf(f, "; the same best element in %.1f %% of the samples", 100 * (double)s->right / n);
  if (isfinite(z->max_drop))
    fprintf(f, "; %s: %.3g lost of at most %.3g", metric_name(z->metric),
            score_drop(s, &z->base, z->metric), z->max_drop);
  fprintf(f, "\n");
}

void quantizer_report(const Quantizer *z, FILE *f) {
  fprintf(f, "%s quantized to %s\n", z->s->file, z->form_name);
  if (z->plan->form == QUANT_INT8) print_methods(z, f);
  print_stretched(z, f);
  print_layers(z, f);
  if (z->data.samples.n) print_result(z, f);
}
