/* What the files of passes/train share: a step under construction. */
#pragma once
#include "ir/op/gradient.h"
#include "passes/train/spec.h"
#include "passes/train/train.h"

typedef struct Param {
  Value *v;
  int first;       /* position of the first node that reads it */
  const Node *by;  /* that node */
  bool chosen;     /* --trainable */
  Value *gradient; /* gathered, averaged and clipped: what the optimizer takes */
} Param;

/* A tensor of the state, before it has its place. */
typedef struct Slot {
  StateItem item;
  Value *in, *out; /* out NULL: the run only reads it */
} Slot;

typedef struct LossScaling { /* of gradients in f16 */
  double scale, growth, backoff, most;
  int64_t interval; /* clean steps until it grows */
} LossScaling;

typedef struct Train {
  Model *m;
  Graph *g;
  const TrainSpec *t;
  bool eval;
  Build b; /* at the end of the graph */
  Spec loss, optimizer, precision;
  LossScaling scaling; /* where precision is f16 */
  DType half;          /* of products' operands and results; NONE: f32 */
  Value *scaled, *scale,
      *clean;    /* the loss that is differentiated; the scale and its age, or NULL */
  Value *output; /* of the model, that the loss is of */
  int output_index;
  Value *labels, *teacher, *value;           /* inputs (teacher may be NULL); the loss */
  Value *other_labels, *share, *other_share; /* inputs, where labels are mixed; else NULL */
  Vec(Param) params;
  Vec(Slot) slots; /* in the order of the state */
  Value *part;     /* calls since the last update, i64; NULL: each updates */
  Value *calls;    /* how many went before, i64; NULL in use */
  Value *step;     /* how many updates went before this one, i64 */
  Value *apply;    /* bool: this call updates; NULL: each does */
  Value *ends;     /* bool: this call ends a step, be it for nothing; NULL: each does */
} Train;

/* ---- parameters.c ---- */
/* Params, with those chosen; false: there is none, or a word of --trainable fits nothing. */
bool train_find_params(Train *x);
/* Those that are chosen become inputs and slots, then the statistics of normalizations beside them. */
bool train_take_params(Train *x);

/* ---- losses.c ---- */
/* Finds the output, adds the inputs labels and teacher and the loss. */
bool train_add_loss(Train *x);

/* ---- form.c ---- */
/* BatchNormalization with parameters, and Dropout, come into training form. */
bool train_forms(Train *x);
bool train_use_forms(Train *x); /* and back, where the file has them so */

/* ---- state.c ---- */
/* A new input of the main graph. */
Value *train_input(Train *x, const char *name, DType t, int rank, const Expr *const *dims);
/* A tensor of the state that begins with zeros, like `like` (NULL: i64, rank 0). */
Slot *train_slot(Train *x, StateKind kind, const char *name, DType t, const Value *like);
void train_set(Train *x, Value *in, Value *out); /* the slot of `in` becomes `out` */
/* Outputs, places in one memory, Model.state; of a half of a step only what it changes. */
bool train_finish(Train *x);

/* ---- optimizers.c ---- */
bool train_check_optimizer(Train *x); /* what the text says is sound */
/* Counters: before the forms, which use them. */
bool train_count(Train *x);
bool train_updates(Train *x, Value *const *gradients);

/* ---- mixed.c ---- */
bool train_read_precision(Train *x);
bool train_halve(Train *x);      /* casts around products */
bool train_scale_loss(Train *x); /* what is differentiated */
Value *train_unscale(Train *x, Value *g);
bool train_guard(Train *x, Value *const *g); /* gradients by parameter, before they are clipped */
