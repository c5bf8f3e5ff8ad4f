/* What was decided, as JSON. */
#include <math.h>
#include <stdlib.h>
#include "driver/io/json.h"
#include "driver/quant/quantizer.h"

static json_t *time_of(const ModelTimes *t, int layer) {
  return t->layers ? json_finite(t->layers[layer]) : json_null();
}

static json_t *layer_json(const Quantizer *z, int k) {
  const QuantLayer *l = &z->plan->layers.data[k];
  const LayerReport *r = &z->layers[k];
  return json_pack("{s:s, s:s, s:I, s:b, s:s, s:o, s:o, s:o, s:o}", "name", l->name, "operator",
                   l->op, "weights", (json_int_t)l->weights, "quantized", l->on, "form",
                   quantizer_layer_form(z, l), "sqnr_alone_db", json_finite(r->alone), "us_float",
                   time_of(&z->real, k), "us_quantized", time_of(&z->eight, k), "reason",
                   r->reason ? json_string(r->reason) : json_null());
}

static json_t *inside_json(const LayerInside *l) {
  return json_pack("{s:s, s:s, s:I, s:b, s:s, s:s}", "name", l->name, "operator", l->op, "weights",
                   (json_int_t)l->weights, "quantized", false, "form", "float", "reason",
                   l->reason);
}

static json_t *methods_json(const Quantizer *z) {
  json_t *all = json_object();
  for (int k = 0; k < QUANT_METHODS; k++)
    if (!isnan(z->method_sqnr[k]))
      json_object_set_new(all, quant_method_names[k], json_finite(z->method_sqnr[k]));
  return all;
}

static void add_measured(const Quantizer *z, json_t *root) {
  json_object_set_new(root, "samples", json_integer(z->data.samples.n));
  json_object_set_new(root, "sqnr_db", json_finite(score_sqnr(&z->result)));
  json_object_set_new(root, "metric", json_string(metric_name(z->metric)));
  json_object_set_new(root, "lost", json_finite(score_drop(&z->result, &z->base, z->metric)));
  json_object_set_new(root, "budget", json_finite(z->max_drop));
  json_object_set_new(root, "same_or_right", json_integer(z->result.right));
  json_object_set_new(root, "float_right", json_integer(z->base.right));
  json_object_set_new(root, "layers_adapted", json_integer(z->adapted));
  if (z->plan->form != QUANT_INT8) return;
  json_object_set_new(root, "calibration", json_string(quant_method_names[z->method]));
  json_object_set_new(root, "calibrations_db", methods_json(z));
  json_object_set_new(root, "biases_corrected", json_boolean(z->corrected));
  json_object_set_new(root, "channels_evened_out", json_integer(z->stretched));
}

bool quantizer_report_json(const Quantizer *z, StrBuf *b) {
  json_t *layers = json_array(), *root;
  for (int k = 0; k < z->plan->layers.n; k++) json_array_append_new(layers, layer_json(z, k));
  for (int k = 0; k < z->inside.n; k++)
    json_array_append_new(layers, inside_json(&z->inside.data[k]));
  root =
      json_pack("{s:s, s:s, s:o, s:o, s:o}", "model", z->s->file, "form", z->form_name, "us_float",
                z->real.layers ? json_finite(z->real.all) : json_null(), "us_quantized",
                z->final.layers ? json_finite(z->final.all) : json_null(), "layers", layers);
  if (root && z->data.samples.n) add_measured(z, root);
  char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
  if (text) sb_printf(b, "%s\n", text);
  free(text);
  json_decref(root);
  const Loc loc = {.file = z->s->file, .node = -1};
  return text || diag_error(z->s->diag, &loc, ERR_OUTPUT,
                            "the report cannot be JSON: is a name not UTF-8?");
}
