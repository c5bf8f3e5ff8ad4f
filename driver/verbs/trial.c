/* Compiles and measures the programs that --tune compares, or one for --print-plan. They run as children, a few runs each,
 * one after the other and again, so that all see the same machine; only the least times count. */
#include "driver/verbs/trial.h"

#include <stdlib.h>
#include <string.h>

/* ---- compiling ---- */
typedef struct Compiled {
  Arena *arena; /* that outlives the compilation */
  Trial *t;
  const Session *session;
  Vec(TrialCall) calls;
} Compiled;

static bool note_call(void *user, Step *s) {
  Compiled *const c = user;
  if (s->kind != STEP_KERNEL && s->kind != STEP_EXTERN) return true;
  TrialCall call = {.estimate = s->estimate};
  for (const StepKey *k = s->keys; k; k = k->next) call.n_keys++;
  call.keys = ARENA_ARRAY(c->arena, const char *, call.n_keys + 1);
  int n = 0;
  for (const StepKey *k = s->keys; k; k = k->next) call.keys[n++] = arena_strdup(c->arena, k->key);
  if (call.n_keys && s->kind == STEP_KERNEL)
    call.digest = kernel_digest(c->session->arena, c->session->model->pool, s->call.kernel);
  vec_push(c->arena, &c->calls, call);
  return true;
}

/* Inputs must have fixed sizes: there is nothing to measure otherwise. */
static bool fixed_inputs(const Graph *g) {
  for (int k = 0; k < g->inputs.n; k++)
    if (graph_list(g, k, false))
      return usage_error("cannot measure: input %s is a sequence or an optional",
                         g->inputs.data[k]->name),
             false;
  for (int k = 0; k < g->inputs.n; k++)
    for (int d = 0; d < g->inputs.data[k]->rank; d++) {
      int64_t n;
      if (!expr_is_const(g->inputs.data[k]->dims[d], &n))
        return usage_error(
                   "cannot measure: the size of input %s is symbolic; fix it with --dim NAME=N",
                   g->inputs.data[k]->name),
               false;
    }
  return true;
}

static int compiled(void *user, const Session *s) {
  Compiled *c = user;
  if (!fixed_inputs(s->model->main)) return EXIT_USAGE;
  c->session = s;
  step_each(s->module->steps, note_call, c);
  return EXIT_OK;
}

int trial_compile(Session *s, Trial *t, const Tuning *choices) {
  *t = (Trial){.choices = choices, .log = {.arena = s->arena}};
  if (!program_memory(s->arena, &t->fd, &t->program)) return EXIT_OUTPUT;
  Compiled c = {.arena = s->arena, .t = t};
  const Watch w = {choices, &t->log, compiled, &c};
  const int status = compile_watched(s->o, s->o->files.v[0], t->program, &w);
  t->n_calls = c.calls.n;
  t->calls = c.calls.data;
  t->us = ARENA_ARRAY(s->arena, double, c.calls.n);
  return status;
}

/* ---- measuring ---- */
static void keep_least(double *least, double v) {
  if (v > 0 && (*least == 0 || v < *least)) *least = v;
}

/* A line of a call: us, share, GFLOP/s, of GPUs MB and limit, kernel, nodes. Where the kernel begins,
 * or NULL. */
static const char *call_line(const char *line, bool gpu, double *us) {
  double share, rate, megabytes, limit;
  int at = 0, more = 0;
  if (sscanf(line, "%lf %lf%% %lf %n", us, &share, &rate, &at) != 3) return NULL;
  if (gpu && sscanf(line + at, "%lf %lf%% %n", &megabytes, &limit, &more) != 2) return NULL;
  return line[at + more] ? line + at + more : NULL;
}

static void note_time(Arena *a, Trial *t, int call, double us, const char *what) {
  keep_least(&t->us[call], us);
  if (!t->calls[call].what) t->calls[call].what = arena_strndup(a, what, strcspn(what, "\n"));
}

/* What --bench --profile prints: the whole time (of a GPU a second line, without copies, which is
 * the one that counts), then a table of calls. */
static bool read_times(Arena *a, Trial *t, FILE *f) {
  char line[4096];
  int call = -1; /* -1: before the table */
  double ms = 0;
  bool gpu = false, begins = true;
  while (fgets(line, sizeof line, f)) {
    const bool first = begins; /* names may be longer than the line */
    const char *what;
    double us;
    begins = strchr(line, '\n') != NULL;
    const char *min = first && call < 0 ? strstr(line, ": min ") : NULL;
    if (min) {
      ms = strtod(min + 6, NULL);
    } else if (first && call < 0 && strstr(line, " GFLOP/s ")) {
      gpu = strstr(line, " MB ") != NULL;
      call = 0;
    } else if (first && call >= 0 && call < t->n_calls && (what = call_line(line, gpu, &us))) {
      note_time(a, t, call++, us, what);
    }
  }
  keep_least(&t->ms, ms);
  return ms > 0 && (call < 0 || call == t->n_calls);
}

static int run_trial(Session *s, Trial *t, const Measure *m, int runs) {
  const char *argv[32], *log;
  int fd;
  char bench[40];
  snprintf(bench, sizeof bench, "--bench=%d", runs);
  int n = program_command(s->o, t->program, argv, 0);
  argv[n++] = bench;
  if (m->profile) argv[n++] = "--profile";
  if (m->threads) argv[n++] = "--threads", argv[n++] = m->threads;
  argv[n] = NULL;
  if (!program_memory(s->arena, &fd, &log)) return EXIT_OUTPUT;
  const int status = child_run(argv, NULL, log);
  FILE *f = fdopen(fd, "r");
  const bool ok = status == EXIT_OK && f && read_times(s->arena, t, f);
  if (f) fclose(f);
  if (status < 0) return EXIT_IO;
  if (status) {
    usage_error("the compiled model failed here, with status %d", status);
    return status;
  }
  if (ok) return EXIT_OK;
  usage_error("the compiled model did not print its times");
  return EXIT_INTERNAL;
}

int trials_measure(Session *s, Trial *trials, int n, const Measure *m) {
  enum { SLICE_MS = 40, MOST_RUNS = 200, MOST_ROUNDS = 60 };
  const double start = clock_seconds();
  int runs = 1;
  for (int round = 0; round < MOST_ROUNDS; round++) {
    const double passed = clock_seconds() - start;
    if (round >= m->rounds && passed >= m->seconds) break;
    if (m->progress) m->progress(m->user, round, passed);
    for (int i = 0; i < n; i++) { /* back and forth: none is always the one behind a slow one */
      const int status = run_trial(s, &trials[round % 2 ? n - 1 - i : i], m, runs);
      if (status != EXIT_OK) return status;
    }
    if (round == 0) {
      runs = trials[0].ms > 0 ? (int)(SLICE_MS / trials[0].ms) : 1;
      runs = runs < 1 ? 1 : runs > MOST_RUNS ? MOST_RUNS : runs;
    }
  }
  return EXIT_OK;
}

static bool answers(const TrialCall *c, const char *key) {
  for (int k = 0; k < c->n_keys; k++)
    if (strcmp(c->keys[k], key) == 0) return true;
  return false;
}

double trial_time(const Trial *t, const char *key) {
  double sum = -1;
  for (int i = 0; i < t->n_calls; i++)
    if (answers(&t->calls[i], key)) sum = (sum < 0 ? 0 : sum) + t->us[i];
  return sum;
}

uint64_t trial_digest(const Trial *t, const char *key) {
  uint64_t hash = 0;
  for (int i = 0; i < t->n_calls; i++)
    if (answers(&t->calls[i], key)) hash = (hash ^ t->calls[i].digest) * 1099511628211u;
  return hash;
}
