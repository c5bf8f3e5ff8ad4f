/* State of one quantization; internal to driver/quant. */
#pragma once
#include "driver/quant/metric.h"
#include "driver/quant/quantize.h"

typedef struct LayerReport {
  double alone; /* SQNR of the outputs with only this layer quantized, dB; NaN: not measured */
  bool kept;    /* it stays float whatever the budget */
  const char *reason; /* of the decision */
} LayerReport;

typedef struct LayerInside { /* a product with constant weights in a body of If, Loop or Scan */
  const char *name, *op, *reason;
  int64_t weights;
} LayerInside;

/* Of kernels on one thread of this machine, in microseconds. */
typedef struct ModelTimes {
  double all;
  double *layers; /* NULL: not measured */
} ModelTimes;

/* What makes one of the programs of the prepared graph. False: reported. */
typedef bool (*GraphChange)(Model *m, const QuantPlan *q);

typedef struct Quantizer {
  Session *s;
  CompileFn compile;
  Options options; /* of programs that are compiled on the way */
  QuantPlan *plan;
  const char *form_name; /* as --quantize or --precision has it */
  bool mixed, plain;     /* of --precision: mixed; f16 or bf16 */
  GraphChange change;    /* of the program that is compiled; NULL: none */
  int n_nodes;           /* of the prepared graph */
  int n_outputs;         /* of the model itself */
  Dataset data;
  Tensor **reference; /* by sample: outputs of the float model */
  Score base;         /* of the float model against itself, or labels */
  Score result;       /* of the quantized model */
  Runner simulation;
  MetricKind metric;
  double max_drop;                   /* negative: no budget */
  int method;                        /* QuantMethod; -1: the best */
  double method_sqnr[QUANT_METHODS]; /* dB; NaN: not tried */
  int stretched;                     /* points with factors for their channels */
  int n_grams;                       /* points whose products with themselves are observed */
  int adapted;                       /* layers whose weights are not rounded to the nearest */
  bool corrected;                    /* biases are shifted */
  double uncorrected_sqnr, corrected_sqnr;
  LayerReport *layers;
  Vec(LayerInside) inside;
  bool timed;                    /* the target's code runs here */
  ModelTimes real, eight, final; /* float; all layers quantized; as decided */
  int threads;
  int status; /* of the last program that could not be compiled */
} Quantizer;

/* ---- precision.c: --precision ---- */
bool quantizer_find_precision(Quantizer *z); /* false: usage error printed */
/* Whether products of two activations may be in the 16 bits of --precision. */
bool quantizer_half_attention(const Quantizer *z);
/* What stays f32 by rule, and whether activations are stored in 16 bits. */
void quantizer_half(Quantizer *z);
/* Layers that stay out of 8 bits for their error become bf16, where the target multiplies that fast; how many. */
int quantizer_try_half(Quantizer *z);
/* Of these only those that are faster than in float stay so (t NULL: none); how many, and how many do not. */
int quantizer_keep_half(Quantizer *z, const ModelTimes *t, int *slow);
void quantizer_tell_overflow(Quantizer *z); /* warnings, from ranges that were observed */

/* ---- decide.c ---- */
/* Ranges and biases; what each layer costs alone. All layers are on. False: reported. */
bool quantizer_choose(Quantizer *z);
bool quantizer_any_slower(
    const Quantizer *z); /* by the times that are known, and so to stay float */
/* With the times that are known: which layers stay on. False: reported. */
bool quantizer_decide(Quantizer *z);

/* ---- times.c ---- */
/* Of a program whose layers quant_mark_layers has numbered. False: reported. */
bool quantizer_times(Quantizer *z, Runner *r, ModelTimes *out);

/* ---- report.c ---- */
void quantizer_list_inside(Quantizer *z); /* of the prepared model */
void quantizer_report(const Quantizer *z, StrBuf *b);
const char *quantizer_layer_form(const Quantizer *z, const QuantLayer *l);
/* ---- report_json.c ---- */
bool quantizer_report_json(const Quantizer *z, StrBuf *b); /* false: reported */
