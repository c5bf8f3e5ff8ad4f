/* A training step made of a model's graph: loss, gradients and update of the parameters, which lie in
 * a buffer of the caller's (Model.state). An edit of a graph that was just loaded, in front of all
 * passes; docs/training.md. */
#pragma once
#include <stdint.h>
#include "ir/graph/graph.h"

/* A whole step, or one of its halves: between them gradients lie in the state, where several machines
 * can average them. Both halves have one state. */
typedef enum TrainPart { TRAIN_STEP, TRAIN_GRADIENTS, TRAIN_UPDATE } TrainPart;

typedef struct TrainSpec {
  const char *loss;      /* NAME[:OUTPUT][,key=value…], a row of losses.def */
  const char *optimizer; /* NAME[,key=value…], a row of optimizers.def; NULL: sgd */
  const char *trainable; /* lastN, names and patterns of parameters or nodes, -NAME; NULL: all */
  int accumulate;        /* calls whose gradients make one update; 0 and 1: each */
  TrainPart part;
  bool keep_outputs; /* the model's own outputs follow the loss */
  uint64_t seed;     /* of Dropout */
  bool
      mixed; /* each sample is one of two, with a share of the loss each: inputs other_labels, share and
               * other_share follow the teacher. What shares leave of 1 is the teacher's */
  const char *precision; /* f32, bf16 or f16[,key=value…] of products; NULL: f32 */
} TrainSpec;

/* Inputs become the model's, labels, (teacher, other_labels, share, other_share,) state; outputs loss,
 * (the model's,) state, which is written over its inputs. An update alone takes and gives state only.
 * False: reported. */
bool train_step(Model *m, const TrainSpec *t);
/* The model in use, with its loss, on the state of such a step: parameters and statistics are inputs
 * at the same places in the buffer, outputs are the loss and the model's own. */
bool train_eval(Model *m, const TrainSpec *t);
/* What an output ends in, in front of what only gives it another shape. */
typedef struct TrainEnd {
  bool sigmoid;
  int class_axis; /* of the output, along which a softmax is; -1: there is none */
} TrainEnd;
TrainEnd train_end(Value *output);
/* The loss alone, without what `text` says of a teacher: adds the input labels behind the others. NULL:
 * reported. *output: the position of what it is of; *classes: labels are numbers of classes. */
Value *train_loss_alone(Model *m, const char *text, int *output, bool *classes);
