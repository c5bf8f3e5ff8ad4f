/* --train and what goes with it: the model becomes a training step (passes/train). */
#include "passes/train/train.h"

#include <string.h>

#include "driver/driver.h"

/* --step-part */
static bool read_part(const char *text, TrainPart *out) {
  static const char *const names[] = {"all", "gradients", "update"};
  for (int k = 0; k < 3; k++)
    if (!text || strcmp(text, names[k]) == 0) {
      *out = (TrainPart)(text ? k : 0);
      return true;
    }
  return usage_error("--step-part: '%s' is none of all, gradients and update", text), false;
}

bool session_train(Session *s) {
  const Options *o = s->o;
  int64_t accumulate = 1, seed = 0;
  TrainPart half;
  if (!o->train && (o->optimizer || o->trainable || o->accumulate || o->step_part))
    return usage_error("--optimizer, --trainable, --accumulate and --step-part need --train=LOSS"),
           false;
  if (!o->train) return true;
  if (s->module) return usage_error("--train needs a graph, not the text of a program"), false;
  if (o->gradients.n) return usage_error("--train and --gradient: give one of them"), false;
  if (!read_part(o->step_part, &half)) return false;
  if ((o->accumulate && !args_number("--accumulate", o->accumulate, 1, 1 << 20, &accumulate)) ||
      (o->seed && !args_number("--seed", o->seed, 0, INT32_MAX, &seed)))
    return false;
  const TrainSpec t = {.loss = o->train,
                       .optimizer = o->optimizer,
                       .trainable = o->trainable,
                       .accumulate = (int)accumulate,
                       .part = half,
                       .seed = (uint64_t)seed,
                       .precision = o->precision};
  return train_step(s->model, &t);
}
