/* Epochs: batches in an order that seed and epoch say, measured behind each. Where a run is stands in
 * t->at; with the state it is all that a run which goes on needs. */
#include <math.h>
#include <string.h>
#include "driver/train/random.h"
#include "driver/train/trainer.h"

/* ---- a step ---- */
/* Streams of random numbers: the split is the first, orders of the epochs follow. */
static uint64_t stream(int which, int64_t epoch) {
  enum { KIND = 56 };
  return (uint64_t)which << KIND | (uint64_t)(epoch + 1);
}

/* Samples with labels in whole batches, those without between them. */
static void order_rows(Trainer *t, int64_t epoch) {
  const uint64_t seed = (uint64_t)t->seed;
  memcpy(t->order, t->train_rows, sizeof *t->order * (size_t)t->n_train);
  random_shuffle(seed, stream(0, epoch), t->order, t->n_train);
  if (!t->call_order) return;
  for (int64_t k = 0; k < t->unlabelled.samples; k++) t->unlabelled_order[k] = k;
  for (int64_t k = 0; k < t->calls; k++) t->call_order[k] = k;
  random_shuffle(seed, stream(1, epoch), t->unlabelled_order, t->unlabelled.samples);
  random_shuffle(seed, stream(2, epoch), t->call_order, t->calls);
}

static bool ask_teacher(Trainer *t) {
  if (!t->taught) return true;
  if (!runner_run(&t->teacher, t->rows_batch, t->n_inputs, NULL, 0)) return false;
  t->rows_batch[t->n_inputs + 1] = t->teacher.outputs[t->output];
  return true;
}

bool trainer_batch(Trainer *t, const TrainData *d, const int64_t *rows, int64_t n) {
  data_batch(d, rows, n, t->rows_batch);
  return ask_teacher(t);
}

typedef struct Call { /* of the step */
  const TrainData *data;
  const int64_t *rows, *others; /* others: of data, all that may be mixed in */
  int64_t n, n_others;
} Call;

static Call call_at(const Trainer *t) {
  const int64_t k = t->call_order ? t->call_order[t->at.batch] : t->at.batch;
  if (k >= t->labelled_calls)
    return (Call){&t->unlabelled, t->unlabelled_order + (k - t->labelled_calls) * t->batch,
                  t->unlabelled_order, t->batch, t->unlabelled.samples};
  const int64_t first = k * t->batch, left = t->n_train - first;
  return (Call){&t->data, t->order + first, t->order, left < t->batch ? left : t->batch,
                t->n_train};
}

static void fill_call(Trainer *t, const Call *c, const int64_t *rows, Tensor *to) {
  const int labels = t->n_inputs;
  if (c->data != &t->data) /* any: of no share */
    data_array(&t->data.arrays[labels], t->order, c->n, &to[labels]);
  data_batch(c->data, rows, c->n, to);
  augment_batch(&t->augment, c->data, to, rows, (uint64_t)t->seed, (uint64_t)t->at.epoch);
}

static double mix_call(Trainer *t, const Call *c) {
  const uint64_t seed = (uint64_t)t->seed, epoch = (uint64_t)t->at.epoch;
  const int64_t first = t->at.batch * t->batch;
  if (!augment_mixes(&t->augment)) return 1;
  for (int64_t k = 0; k < c->n; k++)
    t->partner_rows[k] = c->others[random_below(
        random_at(seed, stream(3, t->at.epoch), (uint64_t)(first + k)), (uint64_t)c->n_others)];
  fill_call(t, c, t->partner_rows, t->partners);
  return mix_batch(&t->augment, c->data, t->rows_batch, t->partners, seed, epoch,
                   (uint64_t)t->at.batch);
}

/* Behind labels and teacher. */
static void put_shares(Trainer *t, double own, bool labelled) {
  Tensor *at = &t->rows_batch[t->n_inputs + 1 + t->taught];
  const double shares[] = {labelled ? own : 0, labelled ? 1 - own : 0};
  const DType type = dtype_from_onnx(t->step.run.lib.model->inputs[at - t->rows_batch + 1].dtype);
  at[0] = (augment_mixes(&t->augment) ? t->partners : t->rows_batch)[t->n_inputs];
  for (int k = 0; k < 2; k++) {
    dtype_store_f(type, &t->shares[k], shares[k]);
    at[1 + k] = (Tensor){.dtype = type, .count = 1, .data = &t->shares[k]};
  }
}

bool trainer_step_batch(Trainer *t, int64_t *n) {
  const Call c = call_at(t);
  *n = c.n;
  fill_call(t, &c, c.rows, t->rows_batch);
  const double own = mix_call(t, &c);
  if (t->spec.mixed) put_shares(t, own, c.data == &t->data);
  return ask_teacher(t);
}

bool trainer_call(Trainer *t, double *loss) {
  int64_t n;
  if (!trainer_step_batch(t, &n)) return false;
  Machine *m = n < t->batch ? &t->rest : &t->step;
  if (!machine_run(m, t->state, t->rows_batch)) return false;
  *loss = tensor_element(&m->run.outputs[0], 0);
  t->at.batch++;
  t->at.step++;
  t->at.seen += n;
  t->at.loss_sum += *loss * (double)n;
  if (t->job->stepped && t->at.step % t->spec.accumulate == 0)
    t->job->stepped(t->job->user, t->step.run.lib.model, t->state);
  return true;
}

/* ---- what is kept ---- */
static void keep_good(Trainer *t) {
  memcpy(t->good, t->state, (size_t)t->state_bytes);
  t->good_at = t->at;
}

static double best_loss(const Position *p) {
  for (int k = 0; k < p->history.n; k++)
    if (p->history.data[k].epoch == p->best_epoch) return p->history.data[k].loss;
  return INFINITY;
}

/* Of equal accuracies, which few samples give, the less loss. */
static void keep_best(Trainer *t, const Epoch *e) {
  const double value = t->by_metric ? -e->metric : t->n_validation ? e->loss : e->train_loss;
  t->at.stale++;
  const bool equal = t->by_metric && value == t->at.best && e->loss < best_loss(&t->at);
  if (!(value < t->at.best) && !equal) return;
  memcpy(t->best, t->state, (size_t)t->state_bytes);
  t->at.best = value;
  t->at.best_epoch = e->epoch;
  t->at.stale = 0;
}

static bool take_epoch(Trainer *t, double train_loss, double start) {
  Measured m = {NAN, NAN};
  if (t->n_validation &&
      !trainer_measure(t, t->state, t->validation, t->validation_rows, t->n_validation, &m))
    return false;
  const Epoch e = {.epoch = t->at.epoch,
                   .step = t->at.step,
                   .train_loss = train_loss,
                   .loss = m.loss,
                   .metric = m.metric,
                   .seconds = t->at.seconds + clock_seconds() - start};
  vec_push(t->s->arena, &t->at.history, e);
  keep_best(t, &e);
  progress_clear(t->s);
  if (!t->o->quiet) history_print(t, &e);
  return true;
}

/* ---- an epoch ---- */
typedef struct Clock {
  double start, shown, saved; /* of this part of the run, the progress, the last checkpoint */
} Clock;

static void show(Trainer *t, Clock *c) {
  static const double often = 0.1;
  if (!t->s->show_progress || clock_seconds() - c->shown < often) return;
  c->shown = clock_seconds();
  char text[96];
  snprintf(text, sizeof text, "epoch %lld of %lld, loss %.4g", (long long)t->at.epoch + 1,
           (long long)t->epochs, t->at.loss_sum / (double)t->at.seen);
  progress_show(t->s, text, (int)t->at.batch, (int)t->calls);
}

static bool save(Trainer *t, Clock *c) {
  if (!trainer_check_state(t)) return false;
  t->at.seconds += clock_seconds() - c->start;
  c->start = c->saved = clock_seconds();
  keep_good(t);
  if (t->o->checkpoint) checkpoint_write(t);
  return true;
}

/* False: it failed (reported), or was asked to stop. */
static bool run_epoch(Trainer *t, Clock *c) {
  static const double minute = 60;
  order_rows(t, t->at.epoch);
  while (t->at.batch < t->calls) {
    double loss;
    if (!trainer_call(t, &loss)) return false;
    if (!isfinite(loss)) return !t->job->trial && trainer_report_failure(t, loss);
    show(t, c);
    if (t->asked) return save(t, c), false;
    if (clock_seconds() - c->saved > minute && !save(t, c)) return false;
  }
  if (!t->job->trial && !trainer_check_state(t)) return false;
  const double mean = t->at.loss_sum / (double)t->at.seen;
  t->at.epoch++;
  t->at.batch = t->at.seen = 0;
  t->at.loss_sum = 0;
  if (!take_epoch(t, mean, c->start)) return false;
  if (!save(t, c)) return false;
  history_write(t, false);
  return true;
}

static bool first_measure(Trainer *t) {
  const double start = clock_seconds();
  if (t->at.history.n) return true; /* it goes on */
  t->at.best = INFINITY;
  if (!take_epoch(t, NAN, start)) return false;
  t->at.first_loss = t->at.history.data[0].loss;
  t->at.first_metric = t->at.history.data[0].metric;
  t->at.stale = 0;
  return true;
}

bool trainer_loop(Trainer *t) {
  Clock c = {.start = clock_seconds(), .saved = clock_seconds()};
  if (!first_measure(t)) return false;
  keep_good(t);
  while (t->at.epoch < t->epochs && (!t->patience || t->at.stale < t->patience))
    if (!run_epoch(t, &c)) return false;
  return true;
}
