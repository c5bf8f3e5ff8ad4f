/* One compilation: its arena with a limit, diagnostics, options turned into numbers, progress on
 * stderr. An arena that runs out of memory jumps back to session_run, which makes it a clean
 * error. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "driver/driver.h"

static void out_of_memory(void *user, size_t wanted) {
  Session *s = user;
  s->wanted = wanted;
  memory_leave();
  longjmp(s->out_of_memory, 1);
}

static size_t memory_limit(void) {
  const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0 ? (size_t)pages / 4 * 3 * (size_t)size : (size_t)8 << 30;
}

static bool pick_target(Session *s) {
  const char *name = s->o->target ? s->o->target : "native";
  if (target_name_is_native(name)) {
    if (!target_native(&s->native))
      return usage_error("this machine's CPU is not supported; use --target"), false;
    s->target = &s->native;
    return true;
  }
  if (target_name_is_gpus(name)) {
    const char *const why = target_gpus(name, &s->gpus);
    s->target = &s->gpus.target;
    return !why || (usage_error("--target=%s: %s", name, why), false);
  }
  s->target = target_find(name);
  if (s->target) return true;
  const char *names[64];
  int n = 0;
  for (; n < target_row_count && n < 64; n++) names[n] = target_rows[n].name;
  const char *near = closest(name, names, n);
  if (near)
    usage_error("unknown target '%s'; did you mean '%s'?", name, near);
  else
    usage_error("unknown target '%s'; 'burin --list-targets' lists them", name);
  return false;
}

bool session_target(Session *s) { return s->target || pick_target(s); }

int session_run(const Options *o, SessionFn body, void *user) {
  Session *volatile s = calloc(1, sizeof *s); /* outlives the longjmp */
  size_t limit = memory_limit();
  if (!s) return EXIT_LIMIT;
  if (o->max_memory && !args_size("--max-memory", o->max_memory, &limit))
    return free(s), EXIT_USAGE;
  s->o = o;
  s->memory_limit = limit;
  s->opt_level = o->opt ? atoi(o->opt) : 3;
  s->show_progress = o->progress || (!o->quiet && isatty(STDERR_FILENO));
  volatile int status = EXIT_LIMIT;
  if (setjmp(s->out_of_memory) == 0) {
    s->arena = arena_new(limit, out_of_memory, s);
    s->diag = diag_new(s->arena);
    s->outputs = outputs_new(s->arena, s->diag);
    signals_watch(s->outputs);
    status = body(s, user);
    session_reproduce(s);
    progress_clear(s);
    diag_print(s->diag, stderr);
  } else {
    progress_clear(s);
    if (s->diag) diag_print(s->diag, stderr);
    char text[160];
    memory_text(text, sizeof text, limit);
    fputs(text, stderr);
    status = EXIT_LIMIT;
  }
  if (s->outputs) {
    outputs_abort(s->outputs); /* what was not committed */
    signals_unwatch();
  }
  arena_free(s->arena);
  free(s);
  return status;
}

/* ---- loading ---- */
static bool parse_size(Session *s, const char *option, const char *text, const char **name,
                       int64_t *value) {
  const char *eq = strrchr(text, '=');
  if (!eq || eq == text) return usage_error("%s: '%s' is not NAME=N", option, text), false;
  *name = arena_strndup(s->arena, text, (size_t)(eq - text));
  return args_number(option, eq + 1, 0, INT32_MAX, value);
}

static bool parse_shape(Session *s, const char *text, const char **name, int64_t *dims, int *rank) {
  const char *eq = strrchr(text, '='), *p = eq ? eq + 1 : NULL;
  if (!eq || eq == text) return usage_error("--shape: '%s' is not INPUT=1x3x224x224", text), false;
  *name = arena_strndup(s->arena, text, (size_t)(eq - text));
  for (*rank = 0; *p; ++*rank) {
    char *end;
    errno = 0;
    dims[*rank < MAX_RANK ? *rank : 0] = strtoll(p, &end, 10);
    const bool bad = end == p || *p < '0' || *p > '9' || errno || (*end != 'x' && *end) ||
                     (*end == 'x' && !end[1]);
    if (bad || *rank >= MAX_RANK || dims[*rank] > INT32_MAX)
      return usage_error("--shape: '%s' is no shape, such as 1x3x224x224", eq + 1), false;
    p = *end ? end + 1 : end;
  }
  return true;
}

static bool frontend_options(Session *s, FrontendOptions *f) {
  const Options *o = s->o;
  const char **dim_names = ARENA_ARRAY(s->arena, const char *, o->dims.n),
             **inputs = ARENA_ARRAY(s->arena, const char *, o->shapes.n);
  int64_t *values = ARENA_ARRAY(s->arena, int64_t, o->dims.n);
  int64_t **shapes = ARENA_ARRAY(s->arena, int64_t *, o->shapes.n);
  int *ranks = ARENA_ARRAY(s->arena, int, o->shapes.n);
  for (int k = 0; k < o->dims.n; k++)
    if (!parse_size(s, "--dim", o->dims.v[k], &dim_names[k], &values[k])) return false;
  SizeBound *const bounds = ARENA_ARRAY(s->arena, SizeBound, o->bounds.n);
  for (int k = 0; k < o->bounds.n; k++)
    if (!parse_size(s, "--bound", o->bounds.v[k], &bounds[k].name, &bounds[k].most)) return false;
  for (int k = 0; k < o->shapes.n; k++) {
    shapes[k] = ARENA_ARRAY(s->arena, int64_t, MAX_RANK);
    if (!parse_shape(s, o->shapes.v[k], &inputs[k], shapes[k], &ranks[k])) return false;
  }
  FrontendConst *consts = ARENA_ARRAY(s->arena, FrontendConst, o->consts.n);
  for (int k = 0; k < o->consts.n; k++) {
    Tensor *t = ARENA_NEW(s->arena, Tensor);
    if (!tensor_named(s, "--const", o->consts.v[k], &consts[k].name, t)) return false;
    consts[k] = (FrontendConst){.name = consts[k].name,
                                .dtype = t->dtype,
                                .rank = t->rank,
                                .dims = t->dims,
                                .data = t->data};
  }
  *f = (FrontendOptions){.consts = consts,
                         .n_consts = o->consts.n,
                         .freeze = o->freeze || o->train || strcmp(o->verb, "inspect") == 0,
                         .external_dir = o->external_dir,
                         .dim_names = dim_names,
                         .dim_values = values,
                         .n_dims = o->dims.n,
                         .bounds = bounds,
                         .n_bounds = o->bounds.n,
                         .shape_inputs = inputs,
                         .shape_dims = (const int64_t *const *)shapes,
                         .shape_ranks = ranks,
                         .n_shapes = o->shapes.n};
  return true;
}

static void hint_data(Session *s) {
  diag_hint(s->diag, "--emit=%s -o FILE writes a text with its weights",
            s->module ? "loop" : "graph");
}

/* A graph or a program as text. What changes a model while it is imported does not apply. */
static Model *load_text(Session *s, const char *path) {
  const Options *o = s->o;
  if (o->dims.n || o->shapes.n || o->consts.n)
    return usage_error("--dim, --shape and --const do not apply to the text of a graph or program"),
           NULL;
  Model *m = frontend_load_text(s->arena, s->diag, path, &s->module);
  const Loc loc = {.file = path, .node = -1};
  outputs_protect(s->outputs, path);
  if (!m || !m->missing) return m;
  diag_error(s->diag, &loc, ERR_PARSE, "constant #%d%s%s%s has no data", m->missing->id,
             m->missing->name ? " \"" : "", m->missing->name ? m->missing->name : "",
             m->missing->name ? "\"" : "");
  hint_data(s);
  return NULL;
}

bool session_has_data(Session *s) {
  const Loc loc = {.file = s->model->file, .node = -1};
  if (!s->model->zeros) return true;
  diag_error(s->diag, &loc, ERR_PARSE,
             "the text says `data none`: its constants were left out, so it cannot be run");
  hint_data(s);
  return false;
}

bool session_load(Session *s, const char *path) {
  FrontendOptions f;
  const double start = clock_seconds();
  s->file = path;
  if (strcmp(path, "-") == 0)
    return usage_error("models are not read from the standard input; give a file"), false;
  if (!frontend_options(s, &f)) return false;
  if (s->target) f.rules = target_float_rules(s->target);
  progress_show(s, "reading", 0, 0);
  s->model =
      frontend_is_text(path) ? load_text(s, path) : frontend_load(s->arena, s->diag, path, &f);
  s->load_seconds = clock_seconds() - start;
  if (s->model && s->o->title) s->model->file = s->file = s->o->title;
  for (int k = 0; s->model && k < s->model->files.n; k++)
    outputs_protect(s->outputs, s->model->files.data[k].path);
  return s->model && session_gradients(s) && session_train(s);
}

int session_status(const Session *s, int inner) {
  if (diag_errors(s->diag)) return diag_exit_status(s->diag);
  return inner != EXIT_OK ? inner : EXIT_USAGE;
}

bool session_commit(Session *s) {
  fflush(stdout); /* what was printed comes before what is written there */
  return (!s->model || frontend_unchanged(s->model)) && outputs_commit(s->outputs);
}

static void on_pass(void *user, const char *pass, int k, int n) {
  Session *s = user;
  s->pass = pass;
  progress_show(s, pass, k, n);
}

static bool index_choice(const char *text, bool *clamp) {
  *clamp = text && strcmp(text, "clamp") == 0;
  if (!text || *clamp || strcmp(text, "check") == 0) return true;
  return usage_error("--indices: '%s' is none of check and clamp", text), false;
}

static bool strip_choice(const char *text, StripChoice *out) {
  static const char *const names[] = {
      [STRIPS_AUTO] = "auto", [STRIPS_NONE] = "none", [STRIPS_ALL] = "all"};
  int k = STRIPS_AUTO;
  if (!args_choice("--strips", text, names, 3, &k)) return false;
  *out = (StripChoice)k;
  return true;
}

bool session_tuning(Session *s, const char *path, Tuning **out) {
  size_t n;
  const char *text = frontend_read_file(s->arena, s->diag, path, &n);
  *out = text ? tuning_parse(s->arena, s->diag, text, n, path) : NULL;
  return *out != NULL;
}

/* --sample-blocks */
static bool set_blocks(const Options *o, PassCtx *c) {
  const char *const t = o->sample_blocks;
  if (!t || strcmp(t, "auto") == 0) return true;
  c->sample_blocks = SAMPLE_BLOCKS_OFF;
  return strcmp(t, "off") == 0 ||
         args_number("--sample-blocks", t, 1, INT32_MAX, &c->sample_blocks);
}

/* --recompute, --max-arena */
static bool set_checkpoint(const Options *o, PassCtx *c) {
  static const char *const names[] = {"auto", "sqrt", "off"};
  size_t most = 0;
  int k = 0;
  if (!args_choice("--recompute", o->recompute, names, 3, &k)) return false;
  if (o->max_arena && !args_size("--max-arena", o->max_arena, &most)) return false;
  if (o->max_arena && o->recompute)
    return usage_error("--max-arena decides what is computed again: leave --recompute out"), false;
  c->checkpoint = (CheckpointChoice)k;
  c->max_arena = (int64_t)most;
  return true;
}

/* --winograd, --no-winograd */
static bool set_winograd(const Options *o, PassCtx *c) {
  static const char *const names[] = {"auto", "2", "4", "6", "off"};
  int k = 0;
  if (!args_choice("--winograd", o->winograd, names, 5, &k)) return false;
  c->winograd = k < 4 && !o->no_winograd;
  c->winograd_size = 2 * k;
  return true;
}

/* --precision=tf32 */
static bool set_tf32(const Session *s, PassCtx *c) {
  c->tf32 = s->o->precision && strcmp(s->o->precision, "tf32") == 0;
  if (!c->tf32 || s->target->gpu) return true;
  usage_error("--precision=tf32 is for GPUs: target %s multiplies in f32", s->target->name);
  return false;
}

bool session_passes(Session *s, unsigned needs) {
  const Options *o = s->o;
  int64_t threads = 64;
  if (o->threads && !args_number("--threads", o->threads, 1, 1024, &threads)) return false;
  Tuning *stored = NULL;
  if (!s->tuning && o->tuning && !session_tuning(s, o->tuning, &stored)) return false;
  if (stored) s->tuning = stored;
  outputs_protect(s->outputs, o->tuning);
  PassCtx c = {.model = s->model,
               .module = s->module,
               .tuning = s->tuning,
               .decisions = s->decisions,
               .target = s->target,
               .opt_level = s->opt_level,
               .max_threads = (int)threads,
               .sparse = !o->no_sparse,
               .run_constants = constants_run,
               .run_user = s};
  c.in_place = o->in_place.v;
  c.n_in_place = o->in_place.n;
  if (o->cache && !args_number("--cache", o->cache, 1, INT32_MAX, &c.cache_room)) return false;
  if (!index_choice(o->indices, &c.clamp_indices) || !set_winograd(o, &c) || !set_tf32(s, &c) ||
      !set_checkpoint(o, &c) || !set_blocks(o, &c) || !strip_choice(o->strips, &c.strips))
    return false;
  const PassOptions p = {.passes = s->passes ? s->passes : o->passes,
                         .disabled = o->disabled.v,
                         .n_disabled = o->disabled.n,
                         .print_after = o->print_after,
                         .ir_dir = s->ir_dir ? s->ir_dir : o->ir_dir,
                         .ir_data = !s->ir_dir,
                         .needs = needs,
                         .time = o->time_passes,
                         .progress = on_pass,
                         .progress_user = s};
  const double start = clock_seconds();
  c.scratch = arena_child(s->arena);
  const bool ok = passes_run(&c, &p);
  s->pass_seconds = clock_seconds() - start;
  s->module = c.module;
  if (ok) s->pass = NULL;
  for (int k = 0; ok && k < s->model->bounds.n; k++)
    if (!s->model->bounds.data[k].used)
      diag_warning(s->diag, NULL, "--bound %s: no size of this name needs a bound",
                   s->model->bounds.data[k].name);
  if (!ok && s->model->main->unset)
    diag_hint(s->diag,
              "initializers of this model are inputs, too; --freeze-initializers makes them "
              "constants");
  return ok;
}

const char *session_onnx_passes(const Session *s) {
  const char *const precision = s->o->precision;
  return precision && strcmp(precision, "tf32") != 0 ? "widen," ONNX_PASSES : ONNX_PASSES;
}

/* ---- progress and time ---- */
void progress_show(Session *s, const char *what, int k, int n) {
  if (!s->show_progress) return;
  if (n > 0)
    fprintf(stderr, "\r\x1b[K[%d/%d] %s", k, n, what);
  else
    fprintf(stderr, "\r\x1b[K%s", what);
  fflush(stderr);
  s->progress_shown = true;
}

void progress_clear(Session *s) {
  if (s->progress_shown) fprintf(stderr, "\r\x1b[K");
  s->progress_shown = false;
}
