/* burin run and burin bench: compile to a program in memory and run that. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver/driver.h"

static void add_list(const char **argv, int *n, const char *option, const List *l) {
  for (int k = 0; k < l->n; k++) argv[(*n)++] = option, argv[(*n)++] = l->v[k];
}

static void add_value(const char **argv, int *n, const char *option, const char *value) {
  if (value) argv[(*n)++] = option, argv[(*n)++] = value;
}

typedef struct Run {
  const char *program;
  bool finished;        /* compiled before */
  const char *bench;    /* option, or NULL */
  List inputs, outputs; /* as the program gets them */
  OutFile **files;      /* of outputs that are written here, */
  const char **written; /* from what it wrote into memory */
} Run;

/* --dim fixes sizes when the model is compiled; a finished program is told them when it runs. */
static int run_program(Session *s, const Run *r) {
  const Options *o = s->o;
  const char **argv = ARENA_ARRAY(s->arena, const char *, program_arguments(o) + 2 * r->inputs.n);
  int n = program_command(o, r->program, argv, 0);
  if (r->finished) add_list(argv, &n, "--dim", &o->dims);
  add_list(argv, &n, "--input", &r->inputs);
  add_list(argv, &n, "--output", &r->outputs);
  add_list(argv, &n, "--expect", &o->expects);
  add_value(argv, &n, "--rtol", o->rtol);
  add_value(argv, &n, "--atol", o->atol);
  add_value(argv, &n, "--seed", o->seed);
  add_value(argv, &n, "--labels", o->labels);
  add_value(argv, &n, "--threads", o->threads);
  if (o->profile) argv[n++] = "--profile";
  if (o->check_memory) argv[n++] = "--check-memory";
  if (o->quiet) argv[n++] = "--quiet";
  if (r->bench) argv[n++] = r->bench;
  argv[n] = NULL;
  const bool direct = argv[0] == r->program;
  const int status = child_run(argv, direct && !r->finished ? o->files.v[0] : NULL, NULL);
  return status < 0 ? EXIT_IO : status;
}

/* ---- files that the program does not read or write ---- */
/* What is behind NAME=@ or NAME=. */
static const char *path_of(const char *arg) {
  const char *at = strstr(arg, "=@"), *eq = at ? at + 1 : strrchr(arg, '=');
  return eq ? eq + 1 : arg;
}

static bool check_formats(const Options *o) {
  for (int k = 0; k < o->outputs.n; k++)
    if (!format_check(path_of(o->outputs.v[k]))) return false;
  return true;
}

static bool needs_writing(const Options *o) {
  for (int k = 0; k < o->outputs.n; k++) {
    const TensorFormat f = format_of(path_of(o->outputs.v[k]));
    if (f == FORMAT_CSV || f == FORMAT_JSON || f == FORMAT_PNG) return true;
  }
  return false;
}

static void protect_inputs(Session *s) {
  const Options *o = s->o;
  outputs_protect(s->outputs, o->files.v[0]);
  outputs_protect(s->outputs, o->labels);
  for (int k = 0; k < o->inputs.n; k++) {
    const char *path = path_of(o->inputs.v[k]);
    outputs_protect(s->outputs, arena_strndup(s->arena, path, strcspn(path, ",")));
  }
  for (int k = 0; k < o->expects.n; k++) outputs_protect(s->outputs, path_of(o->expects.v[k]));
}

/* All outputs, so that all are published together: the program's go into memory. */
static bool take_outputs(Session *s, Run *r) {
  const List *l = &s->o->outputs;
  r->files = ARENA_ARRAY(s->arena, OutFile *, l->n);
  r->written = ARENA_ARRAY(s->arena, const char *, l->n);
  protect_inputs(s);
  for (int k = 0; k < l->n; k++) {
    const char *path = path_of(l->v[k]);
    const int name = (int)(path - l->v[k]) - (path[-1] == '@');
    int fd; /* open until the end */
    if (!(r->files[k] = tensor_open(s, path)) || !program_memory(s->arena, &fd, &r->written[k]))
      return false;
    r->outputs.v[k] = arena_printf(s->arena, "%.*s@%s,pb", name, l->v[k], r->written[k]);
  }
  return true;
}

static bool write_outputs(Session *s, const Run *r) {
  for (int k = 0; k < r->outputs.n; k++) {
    Tensor t;
    if (!pb_read(s, r->written[k], &t) ||
        !tensor_write_to(s, path_of(s->o->outputs.v[k]), r->files[k], &t))
      return false;
  }
  return session_commit(s);
}

static int run_writing(Session *s, Run *r) {
  const int status = take_outputs(s, r) ? run_program(s, r) : session_status(s, EXIT_OK);
  const bool ran = status == EXIT_OK || status == EXIT_MISMATCH;
  return ran && !write_outputs(s, r) ? session_status(s, EXIT_OK) : status;
}

static int run_body(Session *s, void *user) {
  Run *r = user;
  const Options *o = s->o;
  r->outputs = (List){ARENA_ARRAY(s->arena, const char *, o->outputs.n), o->outputs.n};
  for (int k = 0; k < o->outputs.n; k++) r->outputs.v[k] = o->outputs.v[k];
  if (!input_arguments(s, true, &r->inputs)) return session_status(s, EXIT_OK);
  return needs_writing(o) ? run_writing(s, r) : run_program(s, r);
}

static int compile_and_run(const Options *o, const char *bench) {
  const char *file = o->files.v[0];
  Arena *a = arena_new(0, NULL, NULL);
  Run r = {.bench = bench};
  int status = EXIT_OUTPUT, fd;
  if (!check_formats(o)) {
    status = EXIT_USAGE;
  } else if (is_program(file)) {
    r.finished = true;
    r.program = strchr(file, '/') ? file : arena_printf(a, "./%s", file);
    status = session_run(o, run_body, &r);
  } else if (program_memory(a, &fd, &r.program)) {
    Options compile = *o;
    compile.threads = NULL;
    status = compile_program(&compile, file, NULL, r.program);
    if (status == EXIT_OK) status = session_run(o, run_body, &r);
    close(fd);
  }
  arena_free(a);
  return status;
}

int verb_bench(const Options *o) {
  int64_t runs;
  char bench[40] = "--bench";
  if (o->files.n != 1) return usage_error("give one model or program; try 'burin bench --help'");
  if (o->runs && !args_number("--runs", o->runs, 1, 1000000000, &runs)) return EXIT_USAGE;
  if (o->print_plan && is_program(o->files.v[0]))
    return usage_error("--print-plan: a finished program does not know what it was made of");
  if (o->print_plan && o->profile) return bench_estimates(o);
  if (o->runs) snprintf(bench, sizeof bench, "--bench=%s", o->runs);
  return compile_and_run(o, bench);
}

int verb_run(const Options *o) {
  if (o->files.n != 1) return usage_error("give one model or program; try 'burin run --help'");
  if (o->interpret) return check_formats(o) ? session_run(o, interpret_body, NULL) : EXIT_USAGE;
  return compile_and_run(o, NULL);
}
