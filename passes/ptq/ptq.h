/* Post-training quantization: which tensors and products of a graph are stored and multiplied in 8
 * bits, from what was observed while the float model ran, written as QuantizeLinear and
 * DequantizeLinear. Works on the graph that ONNX_PASSES leave; what is found in one copy of a
 * model holds for every other that went the same way (ids and positions are the same).
 *
 * A *point* is a tensor that 8-bit products read. Points that only move elements into each other
 * (MaxPool, Concat, Transpose …) form a *group*, and share a scale and a zero point. */
#pragma once
#include "ir/op/op.h"
#include "targets/target.h"

enum { QUANT_BINS = 2048 };

typedef enum QuantForm {
  QUANT_INT8,    /* weights and activations, with ranges that were observed */
  QUANT_DYNAMIC, /* weights, and activations by the range that they have when the model runs */
  QUANT_INT4,    /* weights only, in 4 bits */
  QUANT_W8,      /* weights only */
  QUANT_HALF,    /* weights, and activations unless weights_only, as floats of 16 bits */
  QUANT_FORMS
} QuantForm;

typedef struct QuantGroup {
  int n_points;
  bool on;                 /* a layer that is on reads it, or it stands between two such */
  double seen_lo, seen_hi; /* least and largest element that was observed */
  float scale;
  int zero; /* u8 */
} QuantGroup;

typedef struct QuantPoint {
  int value; /* id of the tensor */
  int group;
  int axis; /* of its channels */
  int64_t channels;
  double *lo, *hi, *mean; /* observed, by channel; NULL: nothing was */
  double seen_lo, seen_hi;
  double average_lo, average_hi; /* of the extremes of single samples */
  double *gram, *held_out; /* sums of x x' over the vectors that layers multiply: of three samples
                            * in four, of the fourth; NULL: not observed */
  float *stretch;          /* by channel: divides its elements before they are rounded; or NULL */
  double *histogram;       /* QUANT_BINS between seen_lo and seen_hi of its group; or NULL */
  bool between;            /* no layer reads it: on where `from` and group `to` are */
  int from, to;
} QuantPoint;

typedef struct QuantLayer { /* a product with constant weights, or of two activations */
  int node;                 /* position in the main graph */
  const char *name, *op;
  int point;  /* its activation */
  int other;  /* the second one; -1: its weights are constant */
  int scores; /* layer whose sums it reads through a softmax: in floats they are one kernel; or -1 */
  int axis;   /* of the activation: what is contracted; its point may have another one */
  int weight_axis; /* of the output channels; -1: one scale for all */
  int64_t channels, weights;
  double macs;        /* multiply-adds of a run, with unknown sizes as 1: to compare layers by */
  bool image;         /* output channels are dimension 1, else the last */
  bool conv, matrix;  /* Conv; MatMul or Gemm */
  int64_t contracted; /* of products of matrices and 1x1 convolutions: elements of a sum; else 0 */
  const struct QuantWeights *adapted; /* that are not the nearest; or NULL */
  bool on;
  bool half;         /* of QUANT_INT8, where it is off: its operands are floats of 16 bits */
  float *bias_shift; /* added to the bias of the 8-bit form, by output channel; or NULL */
} QuantLayer;

typedef struct QuantPlan {
  QuantForm form;
  DType half; /* f16 or bf16, of QUANT_HALF and of layers that are `half` */
  bool weights_only;
  Arena *arena;
  Vec(QuantPoint) points;
  Vec(QuantLayer) layers;
  Vec(QuantGroup) groups;
  int *point_of; /* by value id; -1: none */
  int n_values;
} QuantPlan;

/* ---- points.c ---- */
/* Finds points and layers in the main graph; all layers are on. Forms other than QUANT_INT8 have
 * products of matrices only, and no groups that are on. Products of two activations are layers of QUANT_INT8,
 * and those of attention of QUANT_HALF where `matrix` takes them in 16 bits, as bf16 in matrix registers or as a GPU does; NULL: none.
 * Lives in a. */
QuantPlan *quant_plan(Model *m, Arena *a, QuantForm form, const Target *matrix);
bool quant_rounds_activations(const QuantPlan *q); /* with scales or types of their own */
void quant_plan_update(QuantPlan *q);      /* after layers were switched: which groups are on */
int quant_shift_count(const QuantPlan *q); /* output channels of all layers */
const Node *quant_layer_node(const Model *m, const QuantLayer *l);

/* Numbers the nodes of layers in their names, which kernels hand on: "conv1 [layer 3]". What stands
 * between two products of an attention has the number of the second one. */
bool quant_mark_layers(Model *m, const QuantPlan *q);
#define QUANT_LAYER_MARK " [layer "

/* ---- observe.c: what is added to the outputs of the main graph ---- */
/* Of every point three outputs, by channel: least, largest, mean. */
bool quant_observe_ranges(Model *m, const QuantPlan *q);
/* Of every point a histogram of QUANT_BINS counts (f32) between the extremes of its group. */
bool quant_observe_histograms(Model *m, const QuantPlan *q);
/* Takes in one sample; out: the tensors behind the outputs of the model itself, by position. */
void quant_take_ranges(QuantPlan *q, const float *const *out);
void quant_take_histograms(QuantPlan *q, const float *const *out);
/* Of points that matrices and 1x1 convolutions read, the product with itself: makes room for those that
 * are observed, and returns their number; observes and takes them in. */
int quant_choose_grams(QuantPlan *q);
bool quant_observe_grams(Model *m, const QuantPlan *q);
void quant_take_grams(QuantPlan *q, const float *const *out, bool held_out);
void quant_close_ranges(QuantPlan *q, int samples); /* means, extremes of the groups */

/* ---- stretch.c ---- */
/* Between ranges and histograms: gives factors to the points where that pays; how many. */
int quant_stretch(Model *m, QuantPlan *q);
/* The weights of layer l, node n, which read its point as it is stretched. Lives in m's arena. */
const ConstData *quant_layer_weights(Model *m, const QuantPlan *q, const Node *n,
                                     const QuantLayer *l);
/* v, the value of point p, divided by its factors; v itself where it has none. */
Value *quant_divide_channels(Build *b, const QuantPoint *p, Value *v);
/* Of Conv, MatMul and Gemm: the channel of the activation that weight k multiplies; how many. */
int64_t quant_input_channel(const Node *n, const QuantLayer *l, const ConstData *w, int64_t k);
int64_t quant_input_channels(const Node *n, const QuantLayer *l, const ConstData *w);

/* ---- ranges.c ---- */
typedef enum QuantMethod {
  QUANT_MINMAX,
  QUANT_AVERAGE,    /* of the extremes of samples */
  QUANT_PERCENTILE, /* 99.99 % of the elements */
  QUANT_ENTROPY,    /* least Kullback-Leibler divergence of the histogram (Migacz, GTC 2017) */
  QUANT_MSE,        /* least mean squared error */
  QUANT_METHODS
} QuantMethod;
extern const char *const quant_method_names[QUANT_METHODS];
void quant_set_ranges(QuantPlan *q, QuantMethod method); /* lo, hi, scale, zero of all groups */

/* ---- weights.c ---- */
typedef struct QuantWeights {
  DType dtype;   /* i8, symmetric to ±127, a scale per output channel; or u4, a scale per block */
  int axis;      /* along which scales change; -1: there is one */
  int64_t block; /* elements of the axis that share one; 0: one each */
  int scale_rank;
  int64_t scale_dims[MAX_RANK], n_scales;
  float *scales;
  uint8_t *zeros; /* of u4, as many as scales; NULL: 0 */
  void *data;     /* one element a byte */
} QuantWeights;
/* In the form of the plan, those of the layer where it has adapted ones; lives in a. */
QuantWeights quant_weights(const QuantPlan *p, const QuantLayer *l, const ConstData *w, Arena *a);
float *quant_weights_real(const QuantWeights *q, const ConstData *w, Arena *a); /* as floats */

/* Of weights [k][n] (turned: [n][k]): rounds `wanted` for the element at position `at`, stores it, and
 * returns its value; new scales for rows [from, end) of k, which are one block, wanted[k - from][n]. */
double quant_round_one(QuantWeights *q, bool turned, int64_t k, int64_t n, int64_t at,
                       double wanted);
void quant_fit_block(QuantWeights *q, bool turned, int64_t k, int64_t n, int64_t from, int64_t end,
                     const double *wanted);

/* ---- adapt.c ---- */
/* Rounds the weights of l for what was observed; they become its own where that leaves less error on
 * what was held out: true. */
bool quant_adapt(Model *m, QuantPlan *q, QuantLayer *l);

/* ---- simulate.c ---- */
/* Adds inputs that turn 8-bit arithmetic on and off while the model runs: `burin.layers` (bool per
 * layer), `burin.groups` (bool per group), `burin.scales` and `burin.zeros` (f32 per group). Every
 * layer computes with float weights, or with weights and activations rounded as 8 bits hold them. */
bool quant_simulate(Model *m, const QuantPlan *q);

/* ---- half.c: floats of 16 bits ---- */
double quant_half_largest(DType half); /* finite value */
/* Layers that are on get their weights as Casts of 16 bits; what is stored between them is rounded so. */
bool quant_insert_half(Model *m, const QuantPlan *q);
double quant_largest_weight(const ConstData *w); /* magnitude */
/* Tables that Gather picks rows of, in 16 bits, unless they reach beyond them; real: rounded, in f32. */
bool quant_halve_tables(Model *m, const QuantPlan *q, bool real);
/* Node n, a product with constant weights, gets these in 16 bits, behind a Cast. */
bool quant_halve_weights(Build *b, Node *n, DType half);
/* v, and weights, as 16 bits hold them, in f32 */
Value *quant_half_weights_real(Model *m, const ConstData *w, DType half);

/* ---- insert.c ---- */
/* Layers and groups that are on get QuantizeLinear and DequantizeLinear. */
bool quant_insert(Model *m, const QuantPlan *q);
