/* burin MODEL --tune=FILE: measures the candidates of each choice (passes/choose/choice.h) on
 * this machine and stores the fastest. One stage after the other (algorithms, then tiles):
 * program i of a stage takes candidate i of every choice at once, the programs run in turns, and
 * the times of a kernel go to the choices that made it. What won is measured once more against
 * the untuned program; choices that do not win again are dropped. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "driver/verbs/trial.h"

enum { MOST_CANDIDATES = 8 };
static const double SLACK = 1.6;   /* estimates up to this times the model's choice are tried */
static const double MARGIN = 0.03; /* a candidate must be faster by this part */

typedef struct Outcome { /* of one choice */
  const Decision *d;
  int candidates[MOST_CANDIDATES], n; /* positions; the model's first */
  int best;
  double us[MOST_CANDIDATES]; /* of each; negative: not measured */
  double before, after;       /* the model's, best's */
} Outcome;

typedef struct Tuner {
  Session *s;
  const char *doing;
  Tuning *chosen; /* choices that differ from the model's */
  Vec(Outcome) outcomes;
  GpuHere gpu;    /* that measures; no name: a CPU */
  double seconds; /* for the measurements of a stage */
  bool dropped;   /* what won made the whole slower */
} Tuner;

static Tuning *tuning_new(Session *s) {
  Tuning *t = ARENA_NEW(s->arena, Tuning);
  t->arena = s->arena;
  return t;
}

static Tuning *tuning_copy(Session *s, const Tuning *from) {
  Tuning *t = tuning_new(s);
  for (int i = 0; i < from->entries.n; i++)
    tuning_set(t, from->entries.data[i].key, from->entries.data[i].choice, NULL);
  return t;
}

/* ---- progress ---- */
static void show_round(void *user, int round, double seconds) {
  Tuner *t = user;
  progress_show(
      t->s, arena_printf(t->s->arena, "%s: round %d, %.0f s", t->doing, round + 1, seconds), 0, 0);
}

static int measure(Tuner *t, Trial *trials, int n, bool profile, double seconds) {
  const Measure m = {profile, 6, seconds, t->s->o->threads, show_round, t};
  return trials_measure(t->s, trials, n, &m);
}

static int compile(Tuner *t, Trial *trial, const Tuning *choices, int k, int n) {
  progress_show(t->s, arena_printf(t->s->arena, "%s: compiling", t->doing), k + 1, n);
  return trial_compile(t->s, trial, choices);
}

/* ---- one stage ---- */
/* Choices of a stage that have more than one promising candidate; returns their number. */
static int collect(Tuner *t, const DecisionLog *log, ChoiceStage stage, int *most) {
  int n = 0;
  for (int i = 0; i < log->list.n; i++) {
    Outcome o = {.d = &log->list.data[i]};
    if (o.d->stage != stage || o.d->told) continue;
    o.n = choice_promising(o.d, SLACK, MOST_CANDIDATES, o.candidates);
    o.best = o.d->model;
    if (o.n < 2) continue;
    vec_push(t->s->arena, &t->outcomes, o);
    if (o.n > *most) *most = o.n;
    n++;
  }
  return n;
}

/* The first candidate whose kernels are those of candidate i: the same tile after all. */
static int same_code(const Outcome *o, const Trial *trials, int i) {
  int first = 0;
  while (first < i &&
         trial_digest(&trials[first], o->d->key) != trial_digest(&trials[i], o->d->key))
    first++;
  return first;
}

static void pick(Outcome *o, const Trial *trials, int n) {
  const Candidate *c = o->d->candidates;
  if (o->n > n) o->n = n;
  for (int i = 0; i < o->n; i++) {
    const int first = same_code(o, trials, i);
    const double us = trial_time(&trials[i], o->d->key);
    o->us[i] = first == i ? us : -1;
    if (us >= 0 && us < o->us[first]) o->us[first] = us;
  }
  o->before = o->after = o->us[0];
  double limit = choice_weighted(&c[o->d->model], o->before) * (1 - MARGIN);
  for (int i = 1; i < o->n; i++) {
    const double weighted = choice_weighted(&c[o->candidates[i]], o->us[i]);
    if (o->us[i] < 0 || weighted >= limit) continue;
    limit = weighted;
    o->best = o->candidates[i];
    o->after = o->us[i];
  }
}

static int tune_stage(Tuner *t, ChoiceStage stage) {
  static const char *const names[] = {"algorithms", "tiles"};
  Trial trials[MOST_CANDIDATES];
  const int first = t->outcomes.n;
  int most = 0, n = 1;
  t->doing = names[stage];
  int status = compile(t, &trials[0], t->chosen, 0, 1);
  if (status != EXIT_OK || !collect(t, &trials[0].log, stage, &most)) return status;
  for (; n < most && status == EXIT_OK; n++) {
    Tuning *choices = tuning_copy(t->s, t->chosen);
    for (int i = first; i < t->outcomes.n; i++) {
      const Outcome *o = &t->outcomes.data[i];
      const int take = n < o->n ? o->candidates[n] : o->d->model;
      tuning_set(choices, o->d->key, o->d->candidates[take].name, NULL);
    }
    status = compile(t, &trials[n], choices, n, most);
  }
  if (status == EXIT_OK) status = measure(t, trials, n, true, t->seconds);
  for (int i = first; i < t->outcomes.n && status == EXIT_OK; i++) {
    Outcome *o = &t->outcomes.data[i];
    pick(o, trials, n);
    if (o->best != o->d->model)
      tuning_set(t->chosen, o->d->key, o->d->candidates[o->best].name, NULL);
  }
  for (int i = 0; i < n; i++) close(trials[i].fd);
  return status;
}

/* ---- the second look ---- */
/* Takes back what is not faster than the model's choice in a measurement of its own. */
static bool confirm(Tuner *t, const Trial *untuned, const Trial *tuned) {
  bool all = true;
  for (int i = 0; i < t->outcomes.n; i++) {
    Outcome *o = &t->outcomes.data[i];
    const double before = trial_time(untuned, o->d->key), after = trial_time(tuned, o->d->key);
    if (o->best == o->d->model || before < 0 || after < 0) continue;
    const Candidate *c = o->d->candidates;
    const bool faster = choice_weighted(&c[o->best], after) <
                        choice_weighted(&c[o->d->model], before) * (1 - MARGIN / 2);
    if (!faster) o->best = o->d->model;
    o->before = before;
    o->after = faster ? after : before;
    all = all && faster;
  }
  return all;
}

static void collect_chosen(Tuner *t) {
  t->chosen = tuning_new(t->s);
  for (int i = 0; i < t->outcomes.n; i++) {
    const Outcome *o = &t->outcomes.data[i];
    if (o->best != o->d->model)
      tuning_set(t->chosen, o->d->key, o->d->candidates[o->best].name, NULL);
  }
}

/* Gains of kernels that are none of the whole: the model's choices stay. */
static void drop_all(Tuner *t) {
  t->dropped = true;
  for (int i = 0; i < t->outcomes.n; i++) t->outcomes.data[i].best = t->outcomes.data[i].d->model;
}

static int verify(Tuner *t, Trial *pair) {
  t->doing = "checking";
  int status = compile(t, &pair[0], tuning_new(t->s), 0, 2);
  if (status == EXIT_OK) status = compile(t, &pair[1], t->chosen, 1, 2);
  if (status == EXIT_OK) status = measure(t, pair, 2, true, t->seconds / 2);
  if (status == EXIT_OK && !confirm(t, &pair[0], &pair[1])) {
    collect_chosen(t);
    status = compile(t, &pair[1], t->chosen, 1, 2);
  }
  pair[0].ms = pair[1].ms = 0;
  if (status == EXIT_OK) status = measure(t, pair, 2, false, t->seconds / 4);
  if (status == EXIT_OK && pair[1].ms > pair[0].ms) /* noise? its least times come with time */
    status = measure(t, pair, 2, false, t->seconds);
  if (status == EXIT_OK && pair[1].ms > pair[0].ms * (1 + MARGIN / 4)) drop_all(t);
  return status;
}

/* ---- results ---- */
static double gain(const Outcome *o) { return o->before - o->after; }

static void print_outcomes(Tuner *t, const Trial *pair) {
  const int n = t->outcomes.n;
  bool *shown = ARENA_ARRAY(t->s->arena, bool, n + 1);
  int changed = 0;
  for (int i = 0; i < n; i++) changed += t->outcomes.data[i].best != t->outcomes.data[i].d->model;
  printf("%d choices measured, %d differ from the model's\n", n, changed);
  if (changed)
    printf("%10s %10s  %10s %10s %6s  %s\n", "model", "us", "now", "us", "gain", "choice");
  for (int line = 0; line < changed; line++) { /* the largest gain first */
    int best = -1;
    for (int i = 0; i < n; i++) {
      const Outcome *o = &t->outcomes.data[i];
      if (shown[i] || o->best == o->d->model) continue;
      if (best < 0 || gain(o) > gain(&t->outcomes.data[best])) best = i;
    }
    const Outcome *o = &t->outcomes.data[best];
    shown[best] = true;
    printf("%10s %10.1f  %10s %10.1f %5.1f%%  %s\n", o->d->candidates[o->d->model].name, o->before,
           o->d->candidates[o->best].name, o->after, 100 * gain(o) / o->before, o->d->key);
  }
  if (changed || t->dropped)
    printf("a run: %.3f ms before, %.3f ms now (least of both, in turns)%s\n", pair[0].ms,
           pair[1].ms, t->dropped ? ": not faster, so the model's choices stay" : "");
}

/* All that was measured, the model's choice first. A file may have entries of several GPUs. */
static const char *note_of(const Tuner *t, const Outcome *o) {
  StrBuf b = {.arena = t->s->arena};
  sb_printf(&b, t->gpu.name[0] ? "us on %s:" : "us:", t->gpu.name);
  for (int i = 0; i < o->n; i++)
    if (o->us[i] >= 0)
      sb_printf(&b, "%s %s %.1f%s", i ? "," : "", o->d->candidates[o->candidates[i]].name, o->us[i],
                i ? "" : " (model)");
  return sb_str(&b);
}

/* Adds the outcomes to what the file holds already. */
static bool store(Tuner *t, const char *path, Tuning *file) {
  Session *s = t->s;
  for (int i = 0; i < t->outcomes.n; i++) {
    const Outcome *o = &t->outcomes.data[i];
    tuning_set(file, o->d->key, o->d->candidates[o->best].name, note_of(t, o));
  }
  StrBuf text = {.arena = s->arena};
  const char *const machine = t->gpu.name[0] ? t->gpu.name : s->target->cpu;
  tuning_print(file,
               arena_printf(s->arena, "burin %s, target %s (%s). KEY -> CHOICE  # measured",
                            BURIN_VERSION, s->target->name, machine),
               &text);
  return write_text(s, path, &text) && session_commit(s);
}

/* ---- the whole ---- */
/* Whether programs for the target run here, not in an emulator, whose times mean nothing. */
static bool runs_here(Tuner *t) {
  const Target *const target = t->s->target;
  const bool gpu = target->gpu && target->gpu->sm > 0;
  const char *const why = gpu ? target_gpu_here(target, &t->gpu) : NULL;
  if (!why && target_runs_here(target)) return true;
  return usage_error("--tune measures: target %s does not run on this machine%s%s", target->name,
                     why ? ": " : "", why ? why : ""),
         false;
}

/* Whether a file could be made in its folder: better said before the measurements than after. */
static bool can_write(Session *s, const char *path) {
  const Loc loc = {.file = path, .node = -1};
  const char *slash = strrchr(path, '/');
  const char *dir = slash ? arena_strndup(s->arena, path, (size_t)(slash - path) + 1) : ".";
  return access(dir, W_OK) == 0 ||
         diag_error(s->diag, &loc, ERR_OUTPUT, "cannot write: %s", strerror(errno));
}

static int tune_programs(Tuner *t, const char *path, Tuning *file) {
  Trial pair[2];
  int status = EXIT_OK;
  for (int stage = 0; stage < CHOICE_STAGES && status == EXIT_OK; stage++)
    status = tune_stage(t, (ChoiceStage)stage);
  if (status == EXIT_OK && t->chosen->entries.n) status = verify(t, pair);
  if (status != EXIT_OK) return status;
  progress_clear(t->s);
  if (!store(t, path, file)) return diag_exit_status(t->s->diag);
  if (!t->s->o->quiet) print_outcomes(t, pair);
  return EXIT_OK;
}

static int tune_body(Session *s, void *user) {
  int64_t seconds = 20;
  if (s->o->tune_seconds && !args_number("--tune-seconds", s->o->tune_seconds, 1, 86400, &seconds))
    return EXIT_USAGE;
  Tuner t = {.s = s, .chosen = tuning_new(s), .seconds = (double)seconds};
  Tuning *file = tuning_new(s);
  if (!session_target(s) || !runs_here(&t)) return EXIT_USAGE;
  if (access(s->o->tune, F_OK) == 0 && !session_tuning(s, s->o->tune, &file))
    return diag_exit_status(s->diag);
  if (!can_write(s, s->o->tune)) return diag_exit_status(s->diag);
  return tune_programs(&t, s->o->tune, file);
}

int tune(const Options *o) {
  Options after = *o;
  if (o->tuning) return usage_error("--tune measures anew: leave --tuning out");
  const int status = session_run(o, tune_body, NULL);
  if (status != EXIT_OK || (!o->output && !o->emit)) return status;
  after.tuning = o->tune;
  after.tune = after.tune_seconds = NULL;
  return verb_compile(&after);
}
