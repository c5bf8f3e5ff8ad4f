/* burin run and burin bench: compile to a program in memory and run that; or, with --interpret, run
 * the loop IR in the interpreter. */
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
  const char **argv = ARENA_ARRAY(s->arena, const char *, program_arguments(o));
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

/* JPEG inputs become PNG in memory. */
static bool take_inputs(Session *s, Run *r) {
  for (int k = 0; k < r->inputs.n; k++)
    if (!(r->inputs.v[k] = image_argument(s, s->o->inputs.v[k]))) return false;
  return true;
}

static int failed(Session *s) {
  return diag_errors(s->diag) ? diag_exit_status(s->diag) : EXIT_USAGE;
}

static int run_writing(Session *s, Run *r) {
  const int status = take_outputs(s, r) ? run_program(s, r) : failed(s);
  const bool ran = status == EXIT_OK || status == EXIT_MISMATCH;
  return ran && !write_outputs(s, r) ? failed(s) : status;
}

static int run_body(Session *s, void *user) {
  Run *r = user;
  const Options *o = s->o;
  r->inputs = (List){ARENA_ARRAY(s->arena, const char *, o->inputs.n), o->inputs.n};
  r->outputs = (List){ARENA_ARRAY(s->arena, const char *, o->outputs.n), o->outputs.n};
  for (int k = 0; k < o->outputs.n; k++) r->outputs.v[k] = o->outputs.v[k];
  if (!take_inputs(s, r)) return failed(s);
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

/* ---- interpreter ---- */
typedef struct Interp {
  Session *s;
  int64_t *syms;
  bool *known;
} Interp;

static Scalar sym_value(void *user, int id) {
  return (Scalar){.i = ((const Interp *)user)->syms[id]};
}

static int64_t eval_dim(Interp *in, const Expr *e) {
  EvalEnv env = {.user = in, .sym = sym_value};
  return expr_eval(in->s->model->pool, e, &env).i;
}

/* name=@file or name=literal → the text behind the '='; index of the value, -1: no such name. */
static int split_named(const char *arg, int n, const char *const *names, const char **rest) {
  for (int k = 0; k < n; k++) {
    const size_t len = strlen(names[k]);
    if (strncmp(arg, names[k], len) != 0 || arg[len] != '=') continue;
    *rest = arg + len + 1;
    return k;
  }
  return -1;
}

static bool read_named(Session *s, const char *text, Tensor *t) {
  return *text == '@' ? tensor_read(s, text + 1, t) : tensor_literal(s, text, t);
}

static bool bind_dims(Interp *in, const Value *v, const Tensor *t) {
  if (t->dtype != v->dtype)
    return usage_error("input %s is %s, the file has %s", v->name, dtype_text(v->dtype),
                       dtype_text(t->dtype)),
           false;
  if (t->rank != v->rank)
    return usage_error("input %s has %d dimensions, the file %d", v->name, v->rank, t->rank), false;
  for (int k = 0; k < v->rank; k++) {
    const Expr *e = v->dims[k];
    if (e->op == EX_SYM && !in->known[e->id]) {
      in->syms[e->id] = t->dims[k];
      in->known[e->id] = true;
    }
    if (eval_dim(in, e) == t->dims[k]) continue;
    return usage_error("dimension %d of input %s is %lld, should be %lld", k, v->name,
                       (long long)t->dims[k], (long long)eval_dim(in, e)),
           false;
  }
  return true;
}

/* Sizes that no given input says are those of the default. */
static void default_dims(Interp *in, const Value *v) {
  for (int k = 0; k < v->rank; k++) {
    const Expr *e = v->dims[k];
    if (e->op != EX_SYM || in->known[e->id]) continue;
    in->syms[e->id] = v->init->cdata->dims[k];
    in->known[e->id] = true;
  }
}

static bool read_inputs(Interp *in, const void **data) {
  Session *s = in->s;
  const Graph *g = s->model->main;
  const char **names = ARENA_ARRAY(s->arena, const char *, g->inputs.n);
  for (int k = 0; k < g->inputs.n; k++) names[k] = g->inputs.data[k]->name;
  for (int k = 0; k < s->o->inputs.n; k++) {
    const char *rest;
    Tensor t;
    const int at = split_named(s->o->inputs.v[k], g->inputs.n, names, &rest);
    if (at < 0)
      return usage_error("--input %s: the model has no such input", s->o->inputs.v[k]), false;
    if (!read_named(s, rest, &t) || !bind_dims(in, g->inputs.data[at], &t)) return false;
    data[at] = t.data;
  }
  for (int k = 0; k < g->inputs.n; k++)
    if (!data[k] && !g->inputs.data[k]->init)
      return usage_error("input %s is missing: --input %s=@file.npy", names[k], names[k]), false;
  for (int k = 0; k < g->inputs.n; k++)
    if (!data[k]) default_dims(in, g->inputs.data[k]);
  return true;
}

/* Upper bounds: runtime symbols count as their bound. */
static void bound_symbols(Interp *in) {
  ExprPool *p = in->s->model->pool;
  for (int k = 0; k < expr_symbol_count(p); k++) {
    const Symbol *sym = expr_symbol(p, k);
    if (!in->known[k] && sym->bound)
      in->syms[k] = eval_dim(in, sym->bound);
    else if (!in->known[k])
      in->syms[k] = sym->lo > 1 ? sym->lo : 1;
  }
}

static void output_shape(Interp *in, const Value *v, Tensor *t) {
  *t = (Tensor){.dtype = v->dtype, .rank = v->rank, .count = 1};
  for (int k = 0; k < v->rank; k++) t->count *= t->dims[k] = eval_dim(in, v->dims[k]);
}

static void print_tensor(const char *name, const Tensor *t) {
  printf("%s: %s[", name, dtype_text(t->dtype));
  for (int k = 0; k < t->rank; k++) printf("%s%lld", k ? "," : "", (long long)t->dims[k]);
  printf("] ");
  for (int64_t k = 0; k < t->count && k < 16; k++) {
    const char *p = (const char *)t->data + k * dtype_bytes(t->dtype);
    if (dtype_is_float(t->dtype))
      printf(" %.7g", dtype_load_f(t->dtype, p));
    else
      printf(" %lld", (long long)dtype_load_i(t->dtype, p));
  }
  printf("%s\n", t->count > 16 ? " …" : "");
}

static int check_expected(Session *s, const char *name, const char *text, const Tensor *got) {
  Tensor wanted;
  if (!read_named(s, text, &wanted))
    return diag_errors(s->diag) ? diag_exit_status(s->diag) : EXIT_USAGE;
  if (wanted.dtype != got->dtype || wanted.rank != got->rank ||
      memcmp(wanted.dims, got->dims, sizeof *got->dims * (size_t)got->rank) != 0) {
    printf("%s: type or shape differs from what is expected\n", name);
    return EXIT_MISMATCH;
  }
  const Difference d = tensor_compare(got, &wanted, s->o->rtol ? atof(s->o->rtol) : 1e-3,
                                      s->o->atol ? atof(s->o->atol) : 1e-5);
  if (!s->o->quiet || d.wrong)
    printf("%s: %s, largest difference %.3g absolute, %.3g relative\n", name,
           d.wrong ? "MISMATCH" : "as expected", d.max_abs, d.max_rel);
  if (d.wrong)
    printf("%s: %lld of %lld elements differ; element %lld is %.9g, expected %.9g\n", name,
           (long long)d.wrong, (long long)got->count, (long long)d.first, d.got, d.wanted);
  return d.wrong ? EXIT_MISMATCH : EXIT_OK;
}

/* --expect and --output of output k; *shown: it need not be printed. */
static int finish_output(Session *s, const char *name, const Tensor *t, bool *shown) {
  int status = EXIT_OK;
  const char *rest;
  for (int i = 0; i < s->o->expects.n; i++) {
    if (split_named(s->o->expects.v[i], 1, &name, &rest) != 0) continue;
    const int st = check_expected(s, name, rest, t);
    if (status == EXIT_OK) status = st;
    *shown = true;
  }
  for (int i = 0; i < s->o->outputs.n; i++)
    if (split_named(s->o->outputs.v[i], 1, &name, &rest) == 0 && *rest == '@') {
      if (!tensor_write(s, rest + 1, t)) return diag_exit_status(s->diag);
      *shown = true;
    }
  return status;
}

static int finish_outputs(Interp *in, void **outs) {
  Session *s = in->s;
  const Graph *g = s->model->main;
  int status = EXIT_OK;
  for (int k = 0; k < g->outputs.n; k++) {
    Tensor t;
    bool shown = s->o->quiet;
    output_shape(in, g->outputs.data[k], &t);
    t.data = buffer_is_heap(s->module, s->module->outputs.data[k]) ? *(void **)outs[k] : outs[k];
    const int st = finish_output(s, g->output_names.data[k], &t, &shown);
    if (st != EXIT_OK && st != EXIT_MISMATCH) return st;
    if (st) status = st;
    if (!shown) print_tensor(g->output_names.data[k], &t);
  }
  return session_commit(s) ? status : diag_exit_status(s->diag);
}

/* Room for all that output k may be; of one in the heap, for its address. */
static void *output_room(Interp *in, int k) {
  const Module *const m = in->s->module;
  const Buffer *const b = &m->buffers.data[m->outputs.data[k]];
  const Expr *const most =
      buffer_is_heap(m, b->id) ? NULL : expr_upper(in->s->model->pool, b->count, NULL);
  const int64_t count = most ? eval_dim(in, most) : 0;
  return arena_alloc(in->s->arena, (size_t)(count > 0 ? count : 0) * (size_t)dtype_bytes(b->dtype) +
                                       sizeof(void *));
}

static int interpret_body(Session *s, void *user) {
  if (!session_target(s)) return EXIT_USAGE;
  if (!session_load(s, s->o->files.v[0]) || !session_has_data(s) || !session_passes(s, PF_CODE))
    return diag_errors(s->diag) ? diag_exit_status(s->diag) : EXIT_USAGE;
  const Graph *g = s->model->main;
  const int n = expr_symbol_count(s->model->pool);
  Interp in = {
      .s = s, .syms = ARENA_ARRAY(s->arena, int64_t, n), .known = ARENA_ARRAY(s->arena, bool, n)};
  const void **ins = ARENA_ARRAY(s->arena, const void *, g->inputs.n);
  void **outs = ARENA_ARRAY(s->arena, void *, g->outputs.n);
  for (int k = 0; k < g->inputs.n; k++)
    if (graph_list(g, k, false) || g->inputs.data[k]->dtype == DT_STR)
      return usage_error("--interpret takes tensors of numbers only");
  if (g->output_lists.n) return usage_error("--interpret gives tensors only");
  if (!read_inputs(&in, ins)) return diag_errors(s->diag) ? diag_exit_status(s->diag) : EXIT_USAGE;
  bound_symbols(&in);
  for (int k = 0; k < g->outputs.n; k++) outs[k] = output_room(&in, k);
  progress_show(s, "interpreting", 0, 0);
  if (!module_interpret(s->module, ins, outs, in.syms)) return diag_exit_status(s->diag);
  progress_clear(s);
  return finish_outputs(&in, outs);
}

int verb_run(const Options *o) {
  if (o->files.n != 1) return usage_error("give one model or program; try 'burin run --help'");
  if (o->interpret) return check_formats(o) ? session_run(o, interpret_body, NULL) : EXIT_USAGE;
  return compile_and_run(o, NULL);
}
