/* --train and what goes with it: the model becomes a training step (passes/train). */
#include "passes/train/train.h"

#include "driver/driver.h"

bool session_train(Session *s) {
  static const char *const parts[] = {
      [TRAIN_STEP] = "all", [TRAIN_GRADIENTS] = "gradients", [TRAIN_UPDATE] = "update"};
  const Options *o = s->o;
  int64_t accumulate = 1, seed = 0;
  int part = TRAIN_STEP;
  if (!o->train && (o->optimizer || o->trainable || o->accumulate || o->step_part))
    return usage_error("--optimizer, --trainable, --accumulate and --step-part need --train=LOSS"),
           false;
  if (!o->train) return true;
  if (s->module) return usage_error("--train needs a graph, not the text of a program"), false;
  if (o->gradients.n) return usage_error("--train and --gradient: give one of them"), false;
  if (!args_choice("--step-part", o->step_part, parts, 3, &part) ||
      (o->accumulate && !args_number("--accumulate", o->accumulate, 1, 1 << 20, &accumulate)) ||
      (o->seed && !args_number("--seed", o->seed, 0, INT32_MAX, &seed)))
    return false;
  const TrainSpec t = {.loss = o->train,
                       .optimizer = o->optimizer,
                       .trainable = o->trainable,
                       .accumulate = (int)accumulate,
                       .part = (TrainPart)part,
                       .seed = (uint64_t)seed,
                       .precision = o->precision};
  return train_step(s->model, &t);
}
