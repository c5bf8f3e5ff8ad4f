/* State of one training; internal to driver/train. */
#pragma once
#include "driver/quant/runner.h"
#include "driver/train/data.h"
#include "driver/train/train.h"
#include "passes/train/train.h"

typedef struct TrainItem { /* a tensor of the state buffer; see StateItem */
  const char *name;
  StateKind kind;
  DType dtype;
  int input, output; /* output -1: it is only read */
  int64_t offset, bytes;
} TrainItem;

/* A program made of the model: the step, or its use on the same state. */
typedef struct Machine {
  Runner run;
  int n_items;
  TrainItem *items;
  const void **in; /* by item: its memory */
  void **out;      /* by output: its memory, of those that are in the state */
  int n_given;     /* inputs of data: the model's, labels, teacher */
} Machine;

typedef struct Epoch { /* a row of the log */
  int64_t epoch, step;
  double train_loss, loss, metric, seconds; /* loss and metric: of the validation; NaN: none */
} Epoch;

/* Where a run is; what a checkpoint holds beside the states. */
typedef struct Position {
  int64_t epoch, batch; /* the next one; batch counts calls of the step in the epoch */
  int64_t step;         /* calls of the step so far */
  int64_t seen;         /* samples of the epoch so far, */
  double loss_sum;      /* and the sum of their losses */
  double best;          /* value that --metric compares: less is better */
  int64_t best_epoch, stale;
  double first_loss, first_metric, seconds;
  Vec(Epoch) history;
} Position;

typedef enum MetricForm { METRIC_NONE, METRIC_CLASS, METRIC_BITS } MetricForm;

typedef struct Trainer {
  Session *s;
  const Options *o;
  const TrainJob *job;
  Options compiling; /* of the programs that are made on the way */
  /* ---- options as numbers (settings.c) ---- */
  int64_t epochs, batch, patience, seed;
  int threads;
  double split; /* part of the samples that is kept to measure */
  const char *validation_file;
  bool by_metric; /* the best epoch is the one with the best metric */
  Augment augment;
  TrainSpec spec;
  bool taught;          /* the loss follows a teacher */
  const char *settings; /* what must be the same when a run goes on */
  /* ---- the model ---- */
  int n_inputs; /* of the model itself */
  const char *model_hash;
  int output;               /* position among the model's outputs of the one that the loss is of */
  bool probabilities;       /* it ends in a Sigmoid */
  bool fixed_batch;         /* the model takes `batch` samples and no others */
  Machine step, rest, eval; /* rest: the step for what is left behind whole batches */
  Runner teacher;
  MetricForm metric;
  int class_axis;
  int64_t state_bytes, parameters;
  char *state, *best, *good; /* now; of the best epoch; as of the last checkpoint, */
  Position at, good_at;      /* and where these are */
  /* ---- data ---- */
  TrainData data, others, unlabelled; /* others: of --validation=FILE */
  int64_t *train_rows, n_train;
  int64_t *validation_rows, n_validation;
  const TrainData *validation;            /* where those are */
  int64_t calls;                          /* of the step in an epoch, */
  int64_t labelled_calls;                 /* and those of them with labels */
  int64_t *order;                         /* of the rows of this epoch */
  int64_t *unlabelled_order, *call_order; /* of --unlabelled, or NULL */
  Tensor *rows_batch; /* room for a batch; labels, teacher and what is mixed behind the inputs */
  Tensor *partners;   /* what is mixed into it, and its rows; or NULL */
  int64_t *partner_rows;
  double shares[2];       /* values of the step's inputs share, other_share */
  bool checkpoint_failed; /* the last one could not be written */
  volatile int asked;     /* the signal that asks to stop, or 0 */
  int status;             /* of what failed, where diagnostics do not tell */
} Trainer;

/* ---- settings.c: false: usage error printed ---- */
bool trainer_read_options(Trainer *t);
bool trainer_find_metric(Trainer *t);

/* ---- machine.c: programs ---- */
/* The model first: it also tells what is known of it. Then the step, for the sizes of the data, with the
 * state that a run begins with. */
bool trainer_make_eval(Trainer *t);
void trainer_take_schedule(Trainer *t); /* a cosine ends with the run, unless it is said where */
bool trainer_make_step(Trainer *t, bool from_scratch);
bool trainer_make_teacher(Trainer *t);
int64_t trainer_calls(const Trainer *t); /* of the step in an epoch, with labels */
bool machine_open(Trainer *t, const Library *lib, Machine *m); /* takes over lib */
/* Runs on a batch of the data, with the state at `state`. False: reported. */
bool machine_run(Machine *m, char *state, const Tensor *batch);
/* Sum of the losses and of what is right on rows of the data. False: reported. */
typedef struct Measured {
  double loss, metric; /* means; metric NaN: there is none */
} Measured;
bool trainer_measure(Trainer *t, char *state, const TrainData *d, const int64_t *rows, int64_t n,
                     Measured *out);

/* ---- initialise.c: --from-scratch ---- */
typedef struct InitRow { /* how a named initializer begins */
  const char *name;
  double bound; /* uniform in [-bound, bound]; or, where it is 0, */
  double value; /* this one */
  bool known;   /* false: it keeps its value */
} InitRow;
typedef Vec(InitRow) InitRows;
void initialise_find(Model *m, InitRows *out); /* by what reads it */
/* Fills memory of n elements. */
void initialise_fill(const InitRow *r, DType t, int64_t n, uint64_t seed, void *to);

/* ---- loop.c ---- */
bool trainer_loop(Trainer *t);
/* Fills t->rows_batch with samples that are measured, the teacher's outputs too. */
bool trainer_batch(Trainer *t, const TrainData *d, const int64_t *rows, int64_t n);
/* With those of the step at t->at, augmented. *n: how many. */
bool trainer_step_batch(Trainer *t, int64_t *n);
/* One call of the step, at t->at, with its loss. False: reported. */
bool trainer_call(Trainer *t, double *loss);

/* ---- failure.c: a loss that is no number ---- */
/* Reports where it came from; false. The state before the step is found again from the last good one. */
bool trainer_report_failure(Trainer *t, double loss);
/* A step may spoil the state though its loss was a number. False: reported. */
bool trainer_check_state(Trainer *t);

/* ---- checkpoint.c ---- */
bool checkpoint_write(Trainer *t); /* false: printed; training can go on */
bool checkpoint_resume(Trainer *t, const char *path);

/* ---- history.c, curve.c, report.c: what a run leaves beside the model ---- */
void history_print(const Trainer *t, const Epoch *e);
/* --log, --curve; last: at the end of the run. Failures are printed. */
bool history_write(Trainer *t, bool last);
void curve_draw(const Trainer *t, Arena *a, Tensor *picture); /* u8 [H, W, 3] */
bool report_write(Trainer *t, const TrainResult *r);

/* ---- export.c ---- */
typedef struct StateView { /* tensors by name, in a buffer */
  int n;
  const TrainItem *items;
  const char *state;
} StateView;
Options train_plain(const Options *o);                 /* for reading models as they are */
bool state_into_model(Session *s, const StateView *v); /* of a loaded model */
int train_export(const Options *o, const char *model, const StateView *v, const char *out);
