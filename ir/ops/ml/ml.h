/* What the ai.onnx.ml expansions share: casts, post transforms, labels. */
#pragma once
#include <stdio.h>
#include "ir/op/tensor_util.h"

enum { ML_NONE, ML_SOFTMAX, ML_LOGISTIC, ML_SOFTMAX_ZERO, ML_PROBIT };

bool ml_post_transform(Model *m, Node *n, int *post);   /* the attribute */
Value *ml_transform(Build *b, Value *scores, int post); /* along the last axis */
Value *ml_rows(Build *b, Value *x);                     /* a vector becomes one row */
Value *ml_argmax(Build *b, Value *scores);              /* along axis 1, i64[rows] */
/* Number of classes. */
bool ml_class_count(Model *m, Node *n, const char *ints, const char *strings, int64_t *count);
DType ml_label_type(const Node *n, const char *ints);                /* i64, or str */
Value *ml_labels(Build *b, Node *n, const char *ints, Value *index); /* labels of class indices */
