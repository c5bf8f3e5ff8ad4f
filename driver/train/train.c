/* `burin train`: samples, programs, the loop, and what is left of it. */
#include "driver/train/train.h"
#include <math.h>
#include <string.h>
#include "driver/train/trainer.h"

/* ---- data ---- */
/* Which samples are kept to measure is drawn once, by the seed. */
static void split_rows(Trainer *t, int64_t n) {
  int64_t *all = ARENA_ARRAY(t->s->arena, int64_t, n + 1);
  const int64_t held = data_split(t->seed, t->job->held, n, all);
  t->n_validation = (int64_t)floor(t->split * (double)(n - held));
  t->n_train = n - held - t->n_validation;
  t->validation_rows = all + held;
  t->train_rows = all + held + t->n_validation;
  t->validation = &t->data;
}

static void other_rows(Trainer *t, int64_t n) {
  t->validation_rows = ARENA_ARRAY(t->s->arena, int64_t, n + 1);
  for (int64_t k = 0; k < n; k++) t->validation_rows[k] = k;
  t->n_validation = n;
  t->validation = &t->others;
}

/* Other files are read as --data is, unless they say how. */
static bool open_file(Trainer *t, const char *file, const char *labels, TrainData *out) {
  return !file || data_open(t->s, data_like(t->s->arena, file, t->o->data), labels, out);
}

static bool open_data(Trainer *t) {
  const char *labels = t->o->labels;
  if (!data_open(t->s, t->o->data, labels, &t->data) ||
      !open_file(t, t->validation_file, labels, &t->others) ||
      !open_file(t, t->o->unlabelled, NULL, &t->unlabelled))
    return false;
  if (!t->spec.loss)
    t->spec.loss = dtype_is_int(t->data.labels->dtype) ? "softmax_cross_entropy" : "mse";
  if (t->epochs == 0 && !t->validation_file) t->split = 0;
  split_rows(t, t->data.labels->dims[0]);
  if (t->epochs == 0 && !t->validation_file) other_rows(t, t->n_train), t->validation = &t->data;
  if (t->validation_file) other_rows(t, t->others.labels->dims[0]);
  return trainer_find_metric(t);
}

static bool check_batch(Trainer *t, const TrainData *d, int64_t n) {
  if (!d->fixed_batch || n % d->fixed_batch == 0) return true;
  if (n < d->fixed_batch)
    return dataset_error(
        t->s, d->path, NULL,
        arena_printf(t->s->arena, "%lld samples, and the model takes %lld at a time", (long long)n,
                     (long long)d->fixed_batch));
  if (!t->o->quiet)
    fprintf(
        stderr,
        "burin: note: %s: the model takes %lld samples at a time: %lld of %lld are left out%s\n",
        d->path, (long long)d->fixed_batch, (long long)(n % d->fixed_batch), (long long)n,
        d == t->validation ? " of what is measured" : " of each epoch, others each time");
  return true;
}

static int64_t class_count(const Trainer *t) {
  const BurinModel *m = t->eval.run.lib.model;
  const BurinTensorInfo *out = &m->outputs[1 + t->output];
  const int axis = t->class_axis < 0 ? t->class_axis + out->rank : t->class_axis;
  return axis >= 0 && axis < out->rank && out->dims[axis] > 0 ? out->dims[axis] : INT64_MAX;
}

/* Their images may have no other size than those with labels: the step is made for one. */
static bool fit_unlabelled(Trainer *t) {
  TrainData *d = &t->unlabelled;
  if (!loss_option(t->spec.loss, "distill"))
    return usage_error(
               "--unlabelled: samples without labels need a teacher to follow: "
               "--train=%s,distill=0.5",
               t->spec.loss),
           false;
  if (!data_fit(t->s, t->o->labels, t->eval.run.lib.model, t->n_inputs, d)) return false;
  for (int k = 0; k < t->n_inputs; k++)
    if (d->arrays[k].outer != t->data.arrays[k].outer ||
        d->arrays[k].inner != t->data.arrays[k].inner)
      return dataset_error(t->s, d->path, d->arrays[k].name,
                           "samples have another size than those of --data");
  return d->samples >= t->batch ||
         dataset_error(t->s, d->path, NULL, "there are fewer samples than --batch takes");
}

static bool fit_data(Trainer *t) {
  const BurinModel *m = t->eval.run.lib.model;
  const int64_t classes = t->metric == METRIC_CLASS ? class_count(t) : INT64_MAX,
                ignored = loss_ignored(t->spec.loss);
  if (!data_fit(t->s, t->o->labels, m, t->n_inputs, &t->data) ||
      !data_check_classes(t->s, &t->data, classes, ignored))
    return false;
  if (t->validation_file && (!data_fit(t->s, t->o->labels, m, t->n_inputs, &t->others) ||
                             !data_check_classes(t->s, &t->others, classes, ignored)))
    return false;
  if (t->o->unlabelled && !fit_unlabelled(t)) return false;
  if (t->epochs > 0 && !check_batch(t, &t->data, t->n_train)) return false;
  if (t->n_validation && !check_batch(t, t->validation, t->n_validation)) return false;
  t->rows_batch =
      data_batch_new(t->s->arena, &t->data, t->validation_file ? &t->others : NULL, t->batch);
  if (!augment_fits(t->s, &t->augment, &t->data)) return false;
  if (!augment_mixes(&t->augment)) return true;
  t->partners = data_batch_new(t->s->arena, &t->data, NULL, t->batch);
  t->partner_rows = ARENA_ARRAY(t->s->arena, int64_t, t->batch);
  return true;
}

/* ---- preparing ---- */
/* What goes into a checkpoint, and must be the same when the run goes on. */
static void write_settings(Trainer *t) {
  StrBuf b = {.arena = t->s->arena};
  sb_printf(&b, "model=%s loss=%s optimizer=%s trainable=%s accumulate=%d batch=%lld seed=%lld",
            t->model_hash, t->spec.loss, t->spec.optimizer,
            t->spec.trainable ? t->spec.trainable : "all", t->spec.accumulate, (long long)t->batch,
            (long long)t->seed);
  sb_printf(&b, " augment=%s samples=%lld validation=%lld data=%016llx",
            t->o->augment ? t->o->augment : "none", (long long)t->n_train,
            (long long)t->n_validation, (unsigned long long)t->data.hash);
  if (t->validation_file) sb_printf(&b, ",%016llx", (unsigned long long)t->others.hash);
  if (t->o->unlabelled)
    sb_printf(&b, " unlabelled=%016llx", (unsigned long long)t->unlabelled.hash);
  if (t->by_metric) sb_printf(&b, " metric=accuracy");
  if (t->spec.precision) sb_printf(&b, " precision=%s", t->spec.precision);
  t->settings = sb_str(&b);
}

/* That nothing is in the way of what is written at the end is known before the first step. */
static bool check_outputs(Trainer *t) {
  const char *const paths[] = {t->job->out, t->o->log, t->o->curve, t->o->checkpoint, t->o->report};
  Outputs *o = t->s->outputs;
  outputs_protect(o, t->job->model);
  outputs_protect(o, t->job->teacher);
  outputs_protect(o, t->data.path);
  if (t->o->unlabelled) outputs_protect(o, t->unlabelled.path);
  if (t->validation_file) outputs_protect(o, t->others.path);
  return outputs_try(o, sizeof paths / sizeof *paths, paths);
}

static bool make_programs(Trainer *t) {
  if (!trainer_make_eval(t) || !fit_data(t)) return false;
  trainer_take_schedule(t); /* the samples are known */
  t->taught = t->eval.n_given > t->n_inputs + 1;
  if (t->epochs > 0 && !trainer_make_step(t, t->o->from_scratch)) return false;
  return !t->taught || trainer_make_teacher(t);
}

static void make_room(Trainer *t) {
  t->good = arena_dup(t->s->arena, t->state, (size_t)t->state_bytes);
  t->best = arena_dup(t->s->arena, t->state, (size_t)t->state_bytes);
  t->order = ARENA_ARRAY(t->s->arena, int64_t, t->n_train + 1);
  t->calls = t->labelled_calls = trainer_calls(t);
  if (!t->o->unlabelled) return;
  t->calls += t->unlabelled.samples / t->batch;
  t->unlabelled_order = ARENA_ARRAY(t->s->arena, int64_t, t->unlabelled.samples);
  t->call_order = ARENA_ARRAY(t->s->arena, int64_t, t->calls);
}

/* At least one update comes of the calls. */
static bool check_updates(const Trainer *t) {
  return t->epochs == 0 || t->epochs >= (t->spec.accumulate + t->calls - 1) / t->calls ||
         (usage_error("--accumulate: %lld calls in each of %lld epochs make no update of %d calls",
                      (long long)t->calls, (long long)t->epochs, t->spec.accumulate),
          false);
}

static void tell_beginning(const Trainer *t) {
  if (t->o->quiet || t->epochs == 0) return;
  printf("%s: %lld parameters, loss %s, optimizer %s\n", t->job->model, (long long)t->parameters,
         t->spec.loss, t->spec.optimizer);
  printf("%lld samples, %lld to measure; %lld steps of %lld in an epoch, seed %lld, %d thread%s\n",
         (long long)t->n_train, (long long)t->n_validation, (long long)t->calls,
         (long long)t->batch, (long long)t->seed, t->threads, t->threads == 1 ? "" : "s");
  if (t->o->unlabelled)
    printf("%lld more without labels, in %lld of the steps\n", (long long)t->unlabelled.samples,
           (long long)(t->calls - t->labelled_calls));
  fflush(stdout);
}

static bool prepare(Trainer *t) {
  if (!open_data(t) || !check_outputs(t) || !make_programs(t)) return false;
  make_room(t);
  if (!check_updates(t)) return false;
  write_settings(t);
  if (t->o->resume && !checkpoint_resume(t, t->o->resume)) return false;
  progress_clear(t->s);
  tell_beginning(t);
  return true;
}

/* ---- the end ---- */
static void fill_result(const Trainer *t, TrainResult *r) {
  const Position *p = &t->at;
  *r = (TrainResult){.loss = NAN, .metric = NAN};
  for (int k = 0; k < p->history.n; k++) {
    const Epoch *e = &p->history.data[k];
    if (e->epoch == p->best_epoch) r->loss = e->loss, r->metric = e->metric;
  }
  r->first_loss = p->first_loss;
  r->first_metric = p->first_metric;
  r->steps = p->step;
  r->epochs = p->epoch;
  r->best_epoch = p->best_epoch;
  r->samples = t->n_train;
  r->validation = t->n_validation;
  r->parameters = t->parameters;
  r->state_bytes = (uint64_t)t->state_bytes;
  r->arena_bytes = t->step.run.memory_bytes;
  r->seconds = p->seconds;
}

static void tell_end(const Trainer *t, const TrainResult *r) {
  if (t->o->quiet || t->epochs == 0) return; /* its only line is printed */
  printf("kept epoch %lld of %lld", (long long)r->best_epoch, (long long)r->epochs);
  if (!isnan(r->loss)) printf(": validation loss %.4f, %.4f before", r->loss, r->first_loss);
  if (!isnan(r->metric))
    printf("; accuracy %.2f %%, %.2f %% before", 100 * r->metric, 100 * r->first_metric);
  printf("; %.1f s, arena %.1f MB, state %.1f MB\n", r->seconds, (double)r->arena_bytes / 1e6,
         (double)r->state_bytes / 1e6);
  if (t->n_validation && r->best_epoch == 0 && r->epochs > 0)
    printf("no epoch was better than the model was before\n");
}

/* It was asked to stop; what it knows is in the checkpoint. */
static int stopped(const Trainer *t) {
  fprintf(stderr, "burin: stopped in epoch %lld, behind step %lld", (long long)t->at.epoch + 1,
          (long long)t->at.step);
  if (t->o->checkpoint && !t->checkpoint_failed)
    fprintf(stderr, "; --resume=%s goes on\n", t->o->checkpoint);
  else
    fprintf(stderr, "; with --checkpoint=FILE it could go on from there\n");
  return 128 + t->asked;
}

static int finish(Trainer *t, TrainResult *r) {
  fill_result(t, r);
  tell_end(t, r);
  const StateView v = {t->step.n_items, t->step.items, t->best};
  const int status = t->job->out ? train_export(t->o, t->job->model, &v, t->job->out) : EXIT_OK;
  if (status != EXIT_OK && t->o->checkpoint)
    fprintf(stderr, "burin: note: the best state is in %s: burin %s --state=%s -o OUT.onnx\n",
            t->o->checkpoint, t->job->model, t->o->checkpoint);
  const bool written = history_write(t, true);
  if (!report_write(t, r) || !outputs_commit(t->s->outputs)) return diag_exit_status(t->s->diag);
  return status != EXIT_OK ? status : written && !t->checkpoint_failed ? EXIT_OK : EXIT_OUTPUT;
}

/* ---- the whole ---- */
static int run_loop(Trainer *t, TrainResult *r) {
  signals_defer(&t->asked);
  const bool done = trainer_loop(t);
  signals_defer(NULL);
  progress_clear(t->s);
  if (done) return finish(t, r);
  history_write(t, true);
  return t->asked && !diag_errors(t->s->diag) ? stopped(t) : session_status(t->s, t->status);
}

static void close_programs(Trainer *t) {
  Runner *const all[] = {&t->step.run, &t->rest.run, &t->eval.run, &t->teacher};
  for (size_t k = 0; k < sizeof all / sizeof *all; k++)
    if (all[k]->lib.model) runner_close(all[k]);
}

typedef struct Run {
  const TrainJob *job;
  TrainResult *result;
} Run;

static int train_body(Session *s, void *user) {
  const Run *run = user;
  Trainer *t = ARENA_NEW(s->arena, Trainer);
  *t = (Trainer){.s = s, .o = s->o, .job = run->job, .compiling = train_plain(s->o)};
  s->file = s->o->title ? s->o->title : run->job->model;
  if (!trainer_read_options(t)) return EXIT_USAGE;
  const int status = prepare(t) ? run_loop(t, run->result) : session_status(t->s, t->status);
  close_programs(t);
  return status;
}

int train_run(const Options *o, const TrainJob *job, TrainResult *r) {
  Run run = {job, r};
  *r = (TrainResult){.loss = NAN, .metric = NAN};
  return session_run(o, train_body, &run);
}

/* What goes to the standard output has it for itself. */
static bool is_stdout(const char *path) { return path && strcmp(path, "-") == 0; }

int verb_train(const Options *o) {
  TrainResult r;
  Options own = *o;
  own.quiet |= is_stdout(o->output) || is_stdout(o->log) || is_stdout(o->report);
  if (o->files.n != 1)
    return usage_error(o->files.n ? "more than one model is given"
                                  : "no model is given; try 'burin train --help'");
  const bool measures = o->epochs && strcmp(o->epochs, "0") == 0;
  if (!o->output && !measures) return usage_error("where does the trained model go? -o OUT.onnx");
  const TrainJob job = {.model = o->files.v[0], .out = o->output, .teacher = o->teacher};
  return train_run(&own, &job, &r);
}
