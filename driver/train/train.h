/* The ready-made loop of training: `burin train`, and what pruning calls to recover. */
#pragma once
#include "driver/driver.h"
#include "runtime/abi.h"

typedef struct TrainJob {
  const char *model;   /* ONNX file */
  const char *out;     /* ONNX file of the trained model; NULL: none is written */
  const char *teacher; /* ONNX file of the original, whose outputs the loss may ask for; or NULL */
  double held;         /* part of the samples that the run does not see, as data_split draws it */
  /* Called behind each step that was applied, with the state as it then is: to hold what shall stay
   * zero. NULL: nothing */
  void (*stepped)(void *user, const BurinModel *step, void *state);
  void *user;
  bool trial; /* a loss that is no number ends it, and is its result */
} TrainJob;

typedef struct TrainResult {
  double loss, metric; /* of the state that was kept; metric: accuracy from 0 to 1, NaN: none */
  double first_loss, first_metric; /* before the first step */
  int64_t steps, epochs, best_epoch;
  int64_t samples, validation; /* how many */
  int64_t parameters;          /* elements that are trained */
  uint64_t state_bytes, arena_bytes;
  double seconds;
} TrainResult;

/* Trains as the options say (--data, --labels, --train, --optimizer, --epochs …). Exit status; errors
 * are printed. */
int train_run(const Options *o, const TrainJob *job, TrainResult *r);

/* The text of an optimizer, whose cosine ends behind `steps`, unless it says where. */
const char *optimizer_ending(Arena *a, const char *text, int64_t steps);
/* Of the text of a loss. */
bool loss_is(const char *loss, const char *name);
const char *loss_option(const char *loss, const char *key); /* behind ",KEY="; NULL: not there */
int64_t loss_ignored(const char *loss);                     /* ignore_index=; INT64_MIN: none */
int loss_class_axis(const char *loss);                      /* axis= */

/* --state: parameters and statistics that a state file has, in the place of the loaded model's own.
 * False: reported. */
bool train_load_state(Session *s, const char *path);
int verb_train(const Options *o);
