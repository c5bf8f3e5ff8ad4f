/* burin diff: two tensor files, or the outputs of a model compiled with -O0 and with -O3 (or the -O
 * given). */
#include <stdlib.h>
#include <string.h>
#include "driver/driver.h"

typedef struct Pair {
  const char *a, *b, *label;
} Pair;

static double tolerance(const char *text, double def) { return text ? atof(text) : def; }

static void print_shape(const Tensor *t) {
  printf("%s[", dtype_text(t->dtype));
  for (int k = 0; k < t->rank; k++) printf("%s%lld", k ? "," : "", (long long)t->dims[k]);
  printf("]");
}

static void print_index(const Tensor *t, int64_t at) {
  int64_t idx[MAX_RANK] = {0};
  for (int k = t->rank - 1; k >= 0; k--) idx[k] = at % t->dims[k], at /= t->dims[k];
  printf("[");
  for (int k = 0; k < t->rank; k++) printf("%s%lld", k ? "," : "", (long long)idx[k]);
  printf("]");
}

static int compare(Session *s, const Pair *p, bool (*read)(Session *, const char *, Tensor *)) {
  Tensor a, b;
  if (!read(s, p->a, &a) || !read(s, p->b, &b)) return diag_exit_status(s->diag);
  if (a.dtype == DT_STR || b.dtype == DT_STR || dtype_rows[a.dtype].cls == DC_COMPLEX)
    return usage_error("strings and complex numbers are not compared");
  if (a.dtype != b.dtype || a.rank != b.rank ||
      memcmp(a.dims, b.dims, sizeof *a.dims * (size_t)a.rank) != 0) {
    printf("%s: ", p->label);
    print_shape(&a);
    printf(" against ");
    print_shape(&b);
    printf("\n");
    return EXIT_MISMATCH;
  }
  const Difference d =
      tensor_compare(&a, &b, tolerance(s->o->rtol, 1e-3), tolerance(s->o->atol, 1e-5));
  if (!s->o->quiet || d.wrong) {
    printf("%s: ", p->label);
    print_shape(&a);
    printf(" largest difference %.3g absolute, %.3g relative; %lld of %lld outside the tolerance\n",
           d.max_abs, d.max_rel, (long long)d.wrong, (long long)a.count);
  }
  if (d.wrong) {
    printf("  first at ");
    print_index(&a, d.first);
    printf(": %.9g against %.9g\n", d.got, d.wanted);
  }
  return d.wrong ? EXIT_MISMATCH : EXIT_OK;
}

static int files_body(Session *s, void *user) { return compare(s, user, tensor_read); }

/* ---- a model against itself ---- */
/* Compiles and runs; the outputs go into memory, results[k]. */
static int run_at(Session *s, const Options *o, const Graph *g, const char *level,
                  const char **results) {
  const char **argv = ARENA_ARRAY(s->arena, const char *, program_arguments(o) + 2 * g->outputs.n);
  const char *program;
  int fd, n = 0; /* descriptors stay open until the end */
  Options compile = *o;
  compile.threads = NULL;
  if (!program_memory(s->arena, &fd, &program)) return EXIT_OUTPUT;
  const int status = compile_program(&compile, o->files.v[0], level, program);
  if (status != EXIT_OK) return status;
  n = program_command(o, program, argv, 0);
  for (int k = 0; k < o->inputs.n; k++) argv[n++] = "--input", argv[n++] = o->inputs.v[k];
  for (int k = 0; k < g->outputs.n; k++) {
    if (!program_memory(s->arena, &fd, &results[k])) return EXIT_OUTPUT;
    argv[n++] = "--output";
    argv[n++] = arena_printf(s->arena, "%s=@%s,pb", g->output_names.data[k], results[k]);
  }
  if (o->seed) argv[n++] = "--seed", argv[n++] = o->seed;
  if (o->threads) argv[n++] = "--threads", argv[n++] = o->threads;
  argv[n] = NULL;
  return child_run(argv, argv[0] == program ? o->files.v[0] : NULL, "/dev/null");
}

static int levels_body(Session *s, void *user) {
  const char *high = s->o->opt ? s->o->opt : "3";
  int status = EXIT_OK;
  if (!session_load(s, s->o->files.v[0])) return session_status(s, EXIT_OK);
  const Graph *g = s->model->main;
  Options with = *s->o; /* files that programs read */
  if (!input_arguments(s, true, &with.inputs)) return session_status(s, EXIT_OK);
  const char **low = ARENA_ARRAY(s->arena, const char *, g->outputs.n),
             **with_high = ARENA_ARRAY(s->arena, const char *, g->outputs.n);
  progress_clear(s);
  status = run_at(s, &with, g, "0", low);
  if (status == EXIT_OK) status = run_at(s, &with, g, high, with_high);
  for (int k = 0; k < g->outputs.n && (status == EXIT_OK || status == EXIT_MISMATCH); k++) {
    const Pair p = {with_high[k], low[k], g->output_names.data[k]};
    const int st = compare(s, &p, pb_read);
    if (st != EXIT_OK) status = st;
  }
  return status;
}

int verb_diff(const Options *o) {
  if (o->files.n == 2) {
    Pair p = {o->files.v[0], o->files.v[1], o->files.v[0]};
    return session_run(o, files_body, &p);
  }
  if (o->files.n != 1)
    return usage_error("give two tensor files, or one model; try 'burin diff --help'");
  return session_run(o, levels_body, NULL);
}
