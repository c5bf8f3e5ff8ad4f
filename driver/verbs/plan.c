/* --print-plan: the choices between ways to make kernels; with bench --profile also what kernels were
 * estimated to take beside what they take here, so that the error of the cost models is a table. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/verbs/trial.h"

/* ---- choices ---- */
enum { CLOSE = 6 }; /* candidates that are shown beside what was taken */

/* Positions of what was taken and of the candidates that come close; where there are few, all. */
static int candidates_shown(const Decision *d, int *out) {
  static const double slack = 1.5; /* times the cycles of what the model takes */
  int n = choice_promising(d, d->told ? 1e30 : slack, CLOSE, out);
  for (int k = 0; k < n; k++)
    if (out[k] == d->taken) return n;
  out[n++] = d->taken;
  return n;
}

void decisions_print(const DecisionLog *log) {
  fprintf(stderr, "%14s  %7s  candidate (* taken)\n", "cycles", "of best");
  for (int i = 0; i < log->list.n; i++) {
    const Decision *d = &log->list.data[i];
    int shown[CLOSE + 1];
    const int n = candidates_shown(d, shown);
    fprintf(stderr, "%s\n", d->key);
    for (int k = 0; k < n; k++) {
      const Candidate *c = &d->candidates[shown[k]];
      fprintf(stderr, "%14.0f  %7.2f  %s%s\n", c->cost, c->cost / d->candidates[d->model].cost,
              c->name, shown[k] == d->taken ? " *" : "");
    }
  }
}

/* ---- estimates against times ---- */

/* Cycles of this machine in a nanosecond: a chain of additions takes one each. The least time of a
 * few counts. */
static double cycles_per_ns(void) {
  enum { ROUNDS = 20, STEPS = 1000000 };
  double least = 0;
  for (int round = 0; round < ROUNDS; round++) {
    const double start = clock_seconds();
    uint64_t sum = 0;
    for (int i = 0; i < STEPS; i++) {
      sum += (uint64_t)i;
      __asm__ volatile("" : "+r"(sum)); /* so that each waits for the one before */
    }
    const double seconds = clock_seconds() - start;
    if (round == 0 || seconds < least) least = seconds;
  }
  return STEPS / (least * 1e9);
}

typedef struct Total { /* of the kernels of one cost model */
  const char *model;
  double estimated, measured;
  int calls;
} Total;

typedef struct Totals {
  Arena *arena;
  Vec(Total) list;
} Totals;

static void add_total(Totals *t, const char *model, double estimated, double measured) {
  int at = 0;
  while (at < t->list.n && strcmp(t->list.data[at].model, model) != 0) at++;
  if (at == t->list.n) vec_push(t->arena, &t->list, (Total){.model = model});
  t->list.data[at].estimated += estimated;
  t->list.data[at].measured += measured;
  t->list.data[at].calls++;
}

static void print_row(double estimated, double measured, const char *model, const char *what) {
  printf("%12.0f %12.0f %7.2f  %-10s %s\n", estimated, measured, measured / estimated, model, what);
}

/* A line for each kernel that a cost model knows, then one for each cost model. */
static void print_errors(Arena *a, const Trial *t) {
  Totals totals = {.arena = a};
  const double clock = cycles_per_ns();
  printf("cycles of one core at %.2f GHz\n%12s %12s %7s  %-10s %s\n", clock, "estimated",
         "measured", "ratio", "model", "kernel, nodes");
  for (int i = 0; i < t->n_calls; i++) {
    const TrialCall *c = &t->calls[i];
    const double measured = t->us[i] * 1e3 * clock;
    if (!c->estimate.model || t->us[i] <= 0) continue;
    print_row(c->estimate.cycles, measured, c->estimate.model, c->what);
    add_total(&totals, c->estimate.model, c->estimate.cycles, measured);
  }
  printf("together\n");
  for (int i = 0; i < totals.list.n; i++) {
    const Total *m = &totals.list.data[i];
    print_row(m->estimated, m->measured, m->model,
              arena_printf(a, "%d kernel%s", m->calls, m->calls == 1 ? "" : "s"));
  }
}

static int measure_plan(Session *s, void *user) {
  Measure m = {.profile = true, .rounds = 6, .seconds = 2, .threads = user};
  Trial t;
  if (!session_target(s)) return EXIT_USAGE;
  if (!target_runs_here(s->target))
    return usage_error("--print-plan measures: target %s does not run on this machine",
                       s->target->name);
  int status = trial_compile(s, &t, NULL);
  if (status == EXIT_OK) status = trials_measure(s, &t, 1, &m);
  if (status == EXIT_OK) print_errors(s->arena, &t);
  close(t.fd);
  return status;
}

int bench_estimates(const Options *o) {
  Options one = *o;
  const char *threads = o->threads ? o->threads : "1"; /* estimates are for one */
  one.threads = NULL;
  return session_run(&one, measure_plan, (void *)threads);
}
