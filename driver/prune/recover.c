/* What comes between a cut and the next: training with the original as teacher, by the options of `burin
 * train`. What these do not say is chosen here: by the samples, and by short trials. */
#include <math.h>
#include "driver/prune/pruner.h"

/* Few samples are gone through several times in an epoch, each time moved in another way; models that take
 * long for it, less often. */
static int64_t repeats(const Pruner *z) {
  static const double samples = 6400, work = 1e11; /* multiply-adds of the original */
  if (z->repeat || z->asked->unlabelled) return z->repeat ? z->repeat : 1;
  const double times = fmin(samples, work / fmax(z->before.macs, 1)) / fmax(z->tune.n, 1);
  return times > 1 ? (int64_t)ceil(times) : 1;
}

/* Of samples with labels. */
static int64_t steps_of_pass(const Pruner *z) {
  enum { BATCH = 32 };
  int64_t batch = BATCH;
  if (z->asked->batch) args_number("--batch", z->asked->batch, 1, INT32_MAX, &batch);
  return (z->tune.n + batch - 1) / batch;
}

/* The rate rises for a tenth of the steps, then falls to nothing. */
static const char *optimizer_of(const Pruner *z, int64_t passes, double rate) {
  enum { WARM_UP = 10 };
  const int64_t steps = passes * steps_of_pass(z);
  return arena_printf(z->s->arena, "adamw,lr=%g,weight_decay=0.0001,warmup=%lld,schedule=cosine",
                      rate, (long long)(steps / WARM_UP));
}

static const char *number(const Pruner *z, int64_t n) {
  return arena_printf(z->s->arena, "%lld", (long long)(n < INT32_MAX ? n : INT32_MAX));
}

/* passes over the samples; rate: of --optimizer, where none is given. */
static Options options_of(const Pruner *z, int64_t passes, double rate) {
  Options own = *z->asked;
  int64_t patience;
  own.epochs = number(z, passes);
  if (own.patience && args_number("--patience", own.patience, 1, INT32_MAX, &patience))
    own.patience = number(z, patience * z->repeat);
  own.train = pruner_recovery_loss(z);
  own.metric = "loss"; /* of few samples accuracy says less */
  if (!own.optimizer) own.optimizer = optimizer_of(z, passes, rate);
  if (!own.augment) own.augment = z->augment;
  if (z->held > 0 || z->test.in != z->tune.in)
    own.validation = NULL;        /* what is measured with tells no epoch */
  own.report = own.output = NULL; /* they are of pruning */
  own.quiet = own.freeze = true;
  own.title = z->original;
  return own;
}

static int loads_step(Session *s, void *user) {
  const Pruner *z = user;
  const bool makes = session_target(s) && session_load(s, z->original);
  return makes ? EXIT_OK : session_status(s, EXIT_OK);
}

bool pruner_check_recovery(Pruner *z) {
  if (z->epochs == 0) return true;
  Options own = options_of(z, 1, 0.001);
  own.optimizer = optimizer_ending(z->s->arena, own.optimizer, INT32_MAX); /* behind warm-ups */
  z->status = session_run(&own, loads_step, z);
  return z->status == EXIT_OK;
}

/* A part of the passes that tells rates apart: weights that were fitted stay ahead of all rates for a while. */
static int64_t trial_passes(const Pruner *z, int64_t passes) {
  enum { PART = 8, LEAST_STEPS = 100 };
  const int64_t enough = LEAST_STEPS / steps_of_pass(z) + 1, half = (passes + 1) / 2,
                part = passes / PART > enough ? passes / PART : enough;
  return part < half ? part : half;
}

/* The rate that leaves the least loss after a part of the passes, with the whole schedule. */
static bool choose_rate(Pruner *z, const TrainJob *job, int64_t passes) {
  static const double rates[] = {0.0001, 0.0003, 0.001, 0.003, 0.01}, usual = 0.002;
  const int64_t some = trial_passes(z, passes);
  double least = INFINITY;
  if (z->asked->optimizer || z->rate > 0) return true;
  z->rate = usual;
  for (size_t k = 0; k < sizeof rates / sizeof *rates; k++) {
    const Options own = options_of(z, some, rates[k]);
    TrainJob trial = *job;
    TrainResult r;
    trial.out = NULL;
    trial.trial = true;
    progress_show(z->s, "trying rates", (int)k + 1, (int)(sizeof rates / sizeof *rates));
    if ((z->status = train_run(&own, &trial, &r)) != EXIT_OK) return false;
    if (!(r.loss < least)) continue;
    least = r.loss;
    z->rate = rates[k];
  }
  return true;
}

bool pruner_recover(Pruner *z, Round *round, const char **path) {
  TrainResult result;
  const char *out;
  int fd;
  if (z->epochs == 0) return true;
  if (!program_memory(z->s->arena, &fd, &out)) return false;
  TrainJob job = {.model = *path,
                  .out = out,
                  .teacher = z->original,
                  .held = z->held,
                  .stepped = pruner_masks(z) ? pruner_hold_zeros : NULL,
                  .user = round};
  z->repeat = repeats(z);
  if (!choose_rate(z, &job, z->epochs * z->repeat)) return false;
  const Options own = options_of(z, z->epochs * z->repeat, z->rate);
  z->recovery = own;
  progress_show(z->s, "training", 0, 0);
  z->status = train_run(&own, &job, &result);
  if (z->status != EXIT_OK || (pruner_masks(z) && !pruner_check_zeros(z, out, round))) return false;
  *path = out;
  round->recovered = true;
  round->steps = result.steps;
  if (!pruner_measure(z, out, &round->figures)) return false;
  round->drop = pruner_drop(z, &round->figures);
  return true;
}
