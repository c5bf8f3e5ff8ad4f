/* --train and what goes with it: the model becomes a training step (passes/train). */
#include "passes/train/train.h"
#include "driver/driver.h"

bool session_train(Session *s) {
  const Options *o = s->o;
  int64_t accumulate = 1, seed = 0;
  if (!o->train && (o->optimizer || o->trainable || o->accumulate))
    return usage_error("--optimizer, --trainable and --accumulate need --train=LOSS"), false;
  if (!o->train) return true;
  if (s->module) return usage_error("--train needs a graph, not the text of a program"), false;
  if (o->gradients.n) return usage_error("--train and --gradient: give one of them"), false;
  if ((o->accumulate && !args_number("--accumulate", o->accumulate, 1, 1 << 20, &accumulate)) ||
      (o->seed && !args_number("--seed", o->seed, 0, INT32_MAX, &seed)))
    return false;
  const TrainSpec t = {.loss = o->train,
                       .optimizer = o->optimizer,
                       .trainable = o->trainable,
                       .accumulate = (int)accumulate,
                       .seed = (uint64_t)seed,
                       .precision = o->precision};
  return train_step(s->model, &t);
}
