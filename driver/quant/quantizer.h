/* State of one quantization; internal to driver/quant. */
#pragma once
#include "driver/quant/metric.h"
#include "driver/quant/quantize.h"

typedef struct LayerReport {
  double alone;       /* SQNR of the model's outputs with only this layer in 8 bits, dB */
  const char *reason; /* of the decision */
} LayerReport;

/* What makes one of the programs of the prepared graph. False: reported. */
typedef bool (*GraphChange)(Model *m, const QuantPlan *q);

typedef struct Quantizer {
  Session *s;
  CompileFn compile;
  Options options; /* of programs that are compiled on the way */
  QuantPlan *plan;
  const char *form_name; /* as --quantize has it */
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
  bool corrected;                    /* biases are shifted */
  double uncorrected_sqnr, corrected_sqnr;
  LayerReport *layers;
  int threads;
  int status; /* of the last program that could not be compiled */
} Quantizer;

/* ---- decide.c ---- */
/* Ranges, biases and which layers are in 8 bits. False: reported. */
bool quantizer_decide(Quantizer *z);

/* ---- report.c ---- */
void quantizer_report(const Quantizer *z, FILE *f);
