/* The loss that pruning follows, which is what `burin train` would train with: for importance, and to
 * measure where labels are no single classes. */
#include <math.h>
#include "driver/prune/pruner.h"
#include "passes/train/train.h"

Value *pruner_add_loss(Pruner *z, Session *s) {
  if (!graph_infer(s->model->main)) return NULL;
  return train_loss_alone(s->model, z->loss, &z->loss_output, &z->classes);
}

void pruner_choose_loss(Pruner *z, DType labels) {
  z->loss = z->asked->train        ? z->asked->train
            : dtype_is_int(labels) ? "softmax_cross_entropy"
                                   : "mse";
}

const char *pruner_recovery_loss(const Pruner *z) {
  const char *loss =
      z->asked->train ? z->asked->train : arena_printf(z->s->arena, "%s,distill=0.9", z->loss);
  if (!loss_is(loss, "softmax_cross_entropy") || !loss_option(loss, "distill") ||
      loss_option(loss, "temperature"))
    return loss;
  return arena_printf(z->s->arena, "%s,temperature=%.3g", loss, z->temperature);
}

/* ---- how far apart the original's scores lie ---- */
/* Logarithms of what are probabilities. */
static double spread(const Tensor *t) {
  static const double least = 1e-37;
  double sum = 0, squares = 0, all = 0;
  bool parts = true;
  for (int64_t k = 0; k < t->count; k++) {
    all += tensor_element(t, k);
    parts &= tensor_element(t, k) >= 0;
  }
  const double rows = round(all);
  parts &= rows >= 1 && fabs(all - rows) < 1e-3 * rows && t->count % (int64_t)fmax(rows, 1) == 0;
  for (int64_t k = 0; k < t->count; k++) {
    const double v = parts ? log(fmax(tensor_element(t, k), least)) : tensor_element(t, k);
    sum += v;
    squares += v * v;
  }
  const double n = fmax((double)t->count, 1);
  return sqrt(fmax(squares / n - sum / n * (sum / n), 0));
}

bool pruner_find_temperature(Pruner *z, Runner *original) {
  enum { MOST = 256 };
  static const double wanted = 1.5; /* of what the softmax is of */
  const int n = z->tune.n < MOST ? z->tune.n : MOST;
  double sum = 0;
  z->temperature = 1;
  for (int k = 0; k < n; k++) {
    if (!runner_run(original, z->tune.in[k], z->n_inputs, NULL, 0)) return false;
    sum += spread(&original->outputs[z->loss_output]) / n;
  }
  if (isfinite(sum)) z->temperature = fmax(sum / wanted, 1);
  return true;
}

/* ---- measured ---- */
static bool show_loss(Session *s, void *user) {
  Model *m = s->model;
  Value *loss = pruner_add_loss(user, s);
  if (!loss) return false;
  vec_push(m->arena, &m->main->outputs, loss);
  vec_push(m->arena, &m->main->output_names, "burin.loss");
  return true;
}

bool pruner_measure_loss(Pruner *z, const char *file, double *out) {
  Runner r;
  bool ok = true;
  *out = NAN;
  if (!z->by_loss) return true;
  if (!pruner_open(z, file, "compiling the loss", show_loss, z, &r)) return false;
  double sum = 0;
  for (int k = 0; k < z->test.n && ok; k++) {
    ok = runner_run(&r, z->test.in[k], z->n_inputs + 1, NULL, 0);
    if (ok) sum += tensor_element(&r.outputs[z->n_outputs], 0);
  }
  runner_close(&r);
  *out = sum / fmax(z->test.n, 1);
  return ok;
}

double pruner_drop(const Pruner *z, const Figures *f) {
  const double least = 1e-12;
  if (!z->by_loss || z->asked->metric) return score_drop(&f->score, &z->before.score, z->metric);
  return isfinite(f->loss) ? 100 * (f->loss - z->before.loss) / fmax(fabs(z->before.loss), least)
                           : INFINITY;
}
