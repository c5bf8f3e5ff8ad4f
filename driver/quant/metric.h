/* How far results are from those of the float model, or from labels. */
#pragma once
#include "driver/io/dataset.h"

typedef enum MetricKind {
  METRIC_TOP1,
  METRIC_TOP5,
  METRIC_MSE,
  METRIC_COSINE,
  METRIC_SQNR
} MetricKind;
/* By the name in --metric; NULL: top1 with labels, else sqnr. False: usage error printed. */
bool metric_find(const char *name, bool labels, MetricKind *out);
const char *metric_name(MetricKind k);

typedef struct Score {            /* over samples */
  int64_t samples, right, right5; /* of labels, or where there are none of the float model's best */
  double signal, noise, dot, square; /* sums over all elements of all outputs */
  int64_t elements;
  int64_t broken; /* samples with NaN or an infinity where the float model has none */
} Score;

/* The class that a tensor of scores says: the first of its largest elements. */
int64_t metric_largest(const Tensor *t);
/* Adds the n outputs of one sample; reference: the float model's. label < 0: none. */
void score_add(Score *s, const Tensor *out, const Tensor *reference, int n, int64_t label);
double score_sqnr(const Score *s); /* dB, at most 140 */
/* What is lost against `base` (the float model's score): points of top-1 or top-5; 100 * (1 - cosine);
 * mean squared error; percent of the signal's power. */
double score_drop(const Score *s, const Score *base, MetricKind k);
