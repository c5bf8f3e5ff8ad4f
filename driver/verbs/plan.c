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
  int n = choice_promising(d, d->told || d->n == 2 ? 1e30 : slack, CLOSE, out);
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

/* ---- launches on a GPU ---- */
typedef struct Launches {
  const Module *m;
  const Gpu *g;
  int n;
  double us, limit_us;
} Launches;

/* Constants of an H100, by profiles of BERT-base and ResNet-50: what is around a launch in a graph;
 * how much longer tiles take than their model says, which only compares them; what kernels get of
 * the bandwidth of memory. */
static double launch_us(const Launches *l, const Step *s, double limit_us) {
  static const double around = 2.5, tiles = 2, bandwidth = 0.6;
  const char *const model = s->estimate.model ? s->estimate.model : "";
  const bool tiled = strcmp(model, "gpu_gemm") == 0 || strcmp(model, "gpu_attention") == 0;
  const double us = tiled ? s->estimate.cycles * tiles / l->g->clock_mhz : 0;
  const double memory = limit_us / bandwidth;
  return around + (us > memory ? us : memory);
}

static void print_launches(Launches *l, const Step *s) {
  for (; s; s = s->next) {
    print_launches(l, step_body(s));
    print_launches(l, step_otherwise(s));
    if (s->kind != STEP_KERNEL) continue;
    const double limit = codegen_limit_us(l->m, s->call.kernel, l->g);
    const double us = launch_us(l, s, limit);
    fprintf(stderr, "%10.2f %10.2f  %s\n", us, limit, s->call.kernel->name);
    l->us += us;
    l->limit_us += limit;
    l->n++;
  }
}

static void print_host_work(const Module *m, const Target *t, const Step *s) {
  for (; s; s = s->next) {
    const char *const work = codegen_host_work(m, t, s);
    if (work) fprintf(stderr, "host  %s\n", work);
    print_host_work(m, t, step_body(s));
    print_host_work(m, t, step_otherwise(s));
  }
}

void launches_print(const Module *m, const Target *t) {
  Launches l = {.m = m, .g = t->gpu};
  print_host_work(m, t, m->steps);
  fprintf(stderr, "host  %s\n", codegen_graph_note(m, t));
  fprintf(stderr, "%10s %10s  launch, each once\n", "us", "limit us");
  print_launches(&l, m->steps);
  fprintf(stderr, "%10.2f %10.2f  %d launches, estimated and not measured\n", l.us, l.limit_us,
          l.n);
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
static void print_errors(Arena *a, const Trial *t, const Target *target) {
  Totals totals = {.arena = a};
  const double clock = target->gpu ? target->gpu->clock_mhz / 1e3 : cycles_per_ns();
  printf("cycles of one %s at %.2f GHz\n%12s %12s %7s  %-10s %s\n",
         target->gpu ? "multiprocessor" : "core", clock, "estimated", "measured", "ratio", "model",
         "kernel, nodes");
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
  if (status == EXIT_OK) print_errors(s->arena, &t, s->target);
  close(t.fd);
  return status;
}

int bench_estimates(const Options *o) {
  Options one = *o;
  const char *threads = o->threads ? o->threads : "1"; /* estimates are for one */
  one.threads = NULL;
  return session_run(&one, measure_plan, (void *)threads);
}
