/* Options of training as numbers, and what the loss says of labels and of what is measured. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver/train/trainer.h"

/* The number, or def where it is not given. */
static bool number(const char *option, const char *text, int64_t def, int64_t lo, int64_t *out) {
  *out = def;
  return !text || args_number(option, text, lo, INT32_MAX, out);
}

static bool read_best(Trainer *t) {
  const char *text = t->o->metric;
  t->by_metric = text && strcmp(text, "accuracy") == 0;
  return !text || t->by_metric || strcmp(text, "loss") == 0 ||
         (usage_error("--metric: '%s' is neither loss nor accuracy", text), false);
}

bool trainer_read_options(Trainer *t) {
  enum { EPOCHS = 10, BATCH = 32 };
  const Options *o = t->o;
  const int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
  int64_t threads, accumulate;
  if (!o->data) return usage_error("no samples are given: --data=FILE.npz"), false;
  if (!o->labels) return usage_error("which array holds the labels? --labels=NAME"), false;
  if (!number("--epochs", o->epochs, EPOCHS, 0, &t->epochs) ||
      !number("--batch", o->batch, BATCH, 1, &t->batch) ||
      !number("--patience", o->patience, 0, 1, &t->patience) ||
      !number("--seed", o->seed, 0, 0, &t->seed) ||
      !number("--accumulate", o->accumulate, 1, 1, &accumulate) ||
      !number("--threads", o->threads, cores < 1 ? 1 : cores, 1, &threads))
    return false;
  const bool follows = o->train && loss_option(o->train, "distill");
  if (follows && !t->job->teacher)
    return usage_error("the loss follows a teacher: --teacher=FILE.onnx"), false;
  if (o->teacher && !follows)
    return usage_error("--teacher: the loss does not follow it: --train=LOSS,distill=0.5"), false;
  if (o->resume && o->from_scratch)
    return usage_error("--from-scratch begins, and --resume goes on: give one of them"), false;
  t->threads = (int)threads;
  t->spec = (TrainSpec){.loss = o->train,
                        .trainable = o->trainable,
                        .accumulate = (int)accumulate,
                        .seed = (uint64_t)t->seed,
                        .precision = o->precision};
  return data_validation(o->validation, 0.1, &t->split, &t->validation_file) && read_best(t) &&
         augment_parse(o->augment, &t->augment) &&
         (t->spec.mixed = augment_mixes(&t->augment) || o->unlabelled, true);
}

const char *loss_option(const char *loss, const char *key) {
  const size_t n = strlen(key);
  for (const char *at = strchr(loss, ','); at; at = strchr(at + 1, ','))
    if (strncmp(at + 1, key, n) == 0 && at[n + 1] == '=') return at + n + 2;
  return NULL;
}

int64_t loss_ignored(const char *loss) {
  const char *text = loss_option(loss, "ignore_index");
  return text ? strtoll(text, NULL, 10) : INT64_MIN;
}

int loss_class_axis(const char *loss) {
  const char *axis = loss_option(loss, "axis");
  return axis ? atoi(axis) : 1;
}

bool loss_is(const char *loss, const char *name) {
  const size_t n = strlen(name);
  return strncmp(loss, name, n) == 0 && (!loss[n] || strchr(",:", loss[n]));
}

/* Of classes, which is the largest; of yes and no, on which side. */
bool trainer_find_metric(Trainer *t) {
  t->class_axis = loss_class_axis(t->spec.loss);
  t->metric = loss_is(t->spec.loss, "softmax_cross_entropy")   ? METRIC_CLASS
              : loss_is(t->spec.loss, "sigmoid_cross_entropy") ? METRIC_BITS
                                                               : METRIC_NONE;
  return !t->by_metric || t->metric != METRIC_NONE ||
         (usage_error("--metric=accuracy: the loss %s tells nothing right or wrong", t->spec.loss),
          false);
}
