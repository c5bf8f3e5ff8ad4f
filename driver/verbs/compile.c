/* burin compile: model → passes → files, with a summary. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "codegen/backend.h"
#include "driver/quant/quantize.h"
#include "driver/train/train.h"

enum {
  EMIT_GRAPH = 1 << 16,
  EMIT_LOOP = 1 << 17,
  EMIT_TUNING = 1 << 18,
  EMIT_ONNX = 1 << 19,
  EMIT_FILES = EMIT_GRAPH - 1
};
static const struct {
  const char *name, *suffix;
  unsigned bit;
} kinds[] = {{"exe", "", EMIT_EXE},           {"obj", ".o", EMIT_OBJ},
             {"static", ".a", EMIT_STATIC},   {"shared", ".so", EMIT_SHARED},
             {"header", ".h", EMIT_HEADER},   {"asm", ".s", EMIT_ASM},
             {"llvm", ".ll", EMIT_LLVM},      {"c", ".c", EMIT_C},
             {"cuda", ".cu", EMIT_CUDA},      {"ptx", ".ptx", EMIT_PTX},
             {"cubin", ".cubin", EMIT_CUBIN}, {"graph", ".graph.ir", EMIT_GRAPH},
             {"loop", ".loop", EMIT_LOOP},    {"tuning", ".tuning", EMIT_TUNING},
             {"onnx", ".onnx", EMIT_ONNX}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

typedef struct Job {
  const char *file, *output;
  unsigned emit;
  const char *name;
  const Watch *watch; /* or NULL */
  CodegenStats stats;
  int status; /* of what failed, where diagnostics do not tell */
} Job;

/* ---- options ---- */
static bool parse_emit(Session *s, const char *text, unsigned *out) {
  *out = 0;
  while (*text) {
    const size_t n = strcspn(text, ",");
    const char *word = arena_strndup(s->arena, text, n);
    unsigned bit = 0;
    for (int k = 0; k < N_KINDS; k++)
      if (strcmp(kinds[k].name, word) == 0) bit = kinds[k].bit;
    if (!bit) {
      const char *names[N_KINDS];
      for (int k = 0; k < N_KINDS; k++) names[k] = kinds[k].name;
      const char *near = closest(word, names, N_KINDS);
      if (near)
        usage_error("--emit: unknown kind '%s'; did you mean '%s'?", word, near);
      else
        usage_error("--emit: unknown kind '%s'", word);
      return false;
    }
    *out |= bit;
    text += n + (text[n] == ',');
  }
  return *out || (usage_error("--emit names nothing"), false);
}

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* A C identifier from a file name. */
static const char *identifier(Arena *a, const char *path) {
  const char *base = base_name(path);
  char *id = arena_printf(a, "%s%s", *base >= '0' && *base <= '9' ? "m_" : "", base);
  id[strcspn(id, ".")] = 0;
  for (char *p = id; *p; p++)
    if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9')))
      *p = '_';
  return *id ? id : "model";
}

static bool is_identifier(const char *s) {
  if (!*s || (*s >= '0' && *s <= '9')) return false;
  for (; *s; s++)
    if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
          *s == '_'))
      return false;
  return true;
}

static bool is_precision(const Options *o, const char *name) {
  return o->precision && strcmp(o->precision, name) == 0;
}
static bool is_f32(const Options *o) { return is_precision(o, "f32"); }

/* --precision asks for other layers than the model has. */
static bool narrows(const Options *o) {
  return o->precision && !o->train && !is_f32(o) && !is_precision(o, "tf32");
}

/* Layers are changed before the model is compiled, by measurement or rule. */
static bool changes_layers(const Options *o) { return o->quantize || narrows(o); }

static bool unsupported_options(const Options *o) {
  if (!changes_layers(o) &&
      (o->calibrate || o->calibration || o->max_drop || o->metric || o->labels || o->report))
    return usage_error(
               "--calibrate and what goes with it need --quantize=FORM or --precision=TYPE"),
           true;
  if (o->quantize && narrows(o))
    return usage_error("--quantize and --precision=%s: a layer has one form; give one of them",
                       o->precision),
           true;
  if (o->calibration && !o->quantize)
    return usage_error("--calibration is of --quantize: floats of 16 bits have no ranges"), true;
  if (o->tune_seconds && !o->tune) return usage_error("--tune-seconds needs --tune"), true;
  if (o->weights && strcmp(o->weights, "embedded") != 0 && strcmp(o->weights, "external") != 0)
    return usage_error("--weights: '%s' is neither embedded nor external", o->weights), true;
  return false;
}

/* Is the output a file with a name, and no stream or descriptor? */
static bool names_file(const Job *j) {
  struct stat st;
  return j->output && strcmp(j->output, "-") != 0 && strncmp(j->output, "/proc/", 6) != 0 &&
         (stat(j->output, &st) != 0 || S_ISREG(st.st_mode));
}

/* model.onnx → ./model plus the kind's suffix; several kinds: codegen adds suffixes to the stem. */
static const char *default_output(Session *s, const Job *j) {
  char *stem = arena_strdup(s->arena, base_name(j->file));
  char *dot = strrchr(stem, '.');
  if (dot && dot != stem) *dot = 0;
  for (int k = 0; k < N_KINDS; k++)
    if (kinds[k].bit == j->emit) {
      if (k == 0 && strcmp(stem, base_name(j->file)) == 0)
        return arena_printf(s->arena, "%s.out", stem);
      return arena_printf(s->arena, "%s%s", stem, kinds[k].suffix);
    }
  return stem;
}

/* What goes into the descriptor: options that change the code. */
static const char *flags_text(Session *s) {
  StrBuf b = {.arena = s->arena};
  sb_printf(&b, "-O%d --target=%s", s->opt_level, s->target->name);
  for (int k = 0; k < s->o->dims.n; k++) sb_printf(&b, " --dim=%s", s->o->dims.v[k]);
  for (int k = 0; k < s->o->shapes.n; k++) sb_printf(&b, " --shape=%s", s->o->shapes.v[k]);
  for (int k = 0; k < s->o->consts.n; k++) sb_printf(&b, " --const=%s", s->o->consts.v[k]);
  for (int k = 0; k < s->o->disabled.n; k++)
    sb_printf(&b, " --disable-pass=%s", s->o->disabled.v[k]);
  if (s->o->passes) sb_printf(&b, " --passes=%s", s->o->passes);
  if (s->o->quantize) sb_printf(&b, " --quantize=%s", s->o->quantize);
  if (s->o->precision) sb_printf(&b, " --precision=%s", s->o->precision);
  if (s->tuning) sb_printf(&b, " --tuning");
  return sb_str(&b);
}

/* ---- writing ---- */
bool write_text(Session *s, const char *path, StrBuf *text) {
  OutFile *f = outputs_add(s->outputs, path, false);
  progress_clear(s);
  return f && outputs_write(s->outputs, f, sb_str(text), (size_t)text->n);
}

static const char *text_path(Session *s, const Job *j, unsigned bit, const char *suffix) {
  if (!j->output || strcmp(j->output, "-") == 0) return NULL;
  return j->emit == bit ? j->output : arena_printf(s->arena, "%s%s", j->output, suffix);
}

/* What was chosen, as a tuning file; behind each choice the candidates with estimated cycles. */
static bool write_choices(Session *s, const Job *j) {
  Tuning t = {.arena = s->arena};
  for (int i = 0; i < s->decisions->list.n; i++) {
    const Decision *d = &s->decisions->list.data[i];
    StrBuf note = {.arena = s->arena};
    if (d->told) continue;
    sb_printf(&note, "cycles:");
    for (int k = 0; k < d->n; k++)
      sb_printf(&note, "%s %s %.0f", k ? "," : "", d->candidates[k].name, d->candidates[k].cost);
    tuning_set(&t, d->key, d->candidates[d->taken].name, sb_str(&note));
  }
  StrBuf text = {.arena = s->arena};
  tuning_print(&t, arena_printf(s->arena, "target %s: estimates, not measured", s->target->name),
               &text);
  return write_text(s, text_path(s, j, EMIT_TUNING, ".tuning"), &text);
}

static bool write_data(Session *s, const char *path, const TextFile *d) {
  static const char zeros[64];
  OutFile *f = outputs_add(s->outputs, path, false);
  int64_t at = 0;
  for (int i = 0; f && i < d->parts.n; i++) {
    const TextPlace *p = &d->parts.data[i];
    if (!outputs_write(s->outputs, f, zeros, (size_t)(p->offset - at)) ||
        !outputs_write(s->outputs, f, p->data, (size_t)p->bytes))
      return false;
    at = p->offset + p->bytes;
  }
  return f != NULL;
}

/* Constants stand in the text, or beside it where they are large; a stream leaves those out. */
static bool write_ir(Session *s, const Job *j, bool loop) {
  enum { IN_TEXT = 16 << 10 };
  StrBuf text = {.arena = s->arena};
  TextStore store = {.arena = s->arena};
  const char *path =
      loop ? text_path(s, j, EMIT_LOOP, ".loop") : text_path(s, j, EMIT_GRAPH, ".graph.ir");
  const char *weights = arena_printf(s->arena, "%s.weights", path ? path : "");
  if (loop && !s->module) return write_text(s, path, &text);
  const bool small = (loop ? program_text_bytes(s->module) : model_text_bytes(s->model)) <= IN_TEXT;
  const bool beside = names_file(j);
  if (loop && beside)
    program_print_beside(s->module, &text, &store, base_name(weights));
  else if (loop)
    program_print(s->module, &text, small);
  else if (beside)
    model_print_beside(s->model, &text, &store, base_name(weights));
  else
    model_print(s->model, &text, small);
  return write_text(s, path, &text) &&
         (!store.files.n || write_data(s, weights, &store.files.data[0]));
}

static bool write_onnx(Session *s, const Job *j) {
  const char *path = text_path(s, j, EMIT_ONNX, ".onnx");
  return session_write_onnx(s, path ? path : "-");
}

static bool write_texts(Session *s, const Job *j) {
  return (!(j->emit & EMIT_ONNX) || write_onnx(s, j)) &&
         (!(j->emit & EMIT_GRAPH) || write_ir(s, j, false)) &&
         (!(j->emit & EMIT_TUNING) || write_choices(s, j)) &&
         (!(j->emit & EMIT_LOOP) || write_ir(s, j, true));
}

static void on_kernel(void *user, int done, int total) { progress_show(user, "code", done, total); }

/* Continues the table of pass times. Stages count the CPU of all threads; what goes by is less
 * where several work. */
static void print_code_times(const CodegenStats *t) {
  const struct {
    double seconds;
    const char *stage;
  } rows[] = {{t->make_seconds, "making code of kernels and entry"},
              {t->optimise_seconds, "optimising it (LLVM)"},
              {t->emit_seconds, "machine code (LLVM)"}};
  double sum = 0;
  const int n = sizeof rows / sizeof *rows;
  for (int i = 0; i < n; i++) sum += rows[i].seconds;
  fprintf(stderr, "%10s  %5s  code of %d kernels, CPU of all threads\n", "seconds", "%",
          t->kernels);
  for (int i = 0; i < n; i++)
    fprintf(stderr, "%10.4f  %5.1f  %s\n", rows[i].seconds,
            sum > 0 ? 100 * rows[i].seconds / sum : 0, rows[i].stage);
  fprintf(stderr, "%10.4f         total, in %.4f s\n", sum, t->llvm_seconds);
  fprintf(stderr, "%10.4f         writing files, linking\n", t->link_seconds);
}

static bool write_code(Session *s, Job *j) {
  int64_t jobs = 0;
  if (s->o->jobs && !args_number("--jobs", s->o->jobs, 1, 256, &jobs)) return false;
  const CodegenOptions c = {
      .emit = j->emit & EMIT_FILES,
      .output = j->output,
      .outputs = s->outputs,
      .name = j->name,
      .flags = flags_text(s),
      .model_hash = s->model->hash,
      .external_weights = s->o->weights && strcmp(s->o->weights, "external") == 0,
      .opt_level = s->opt_level,
      .jobs = (int)jobs,
      .progress = on_kernel,
      .progress_user = s};
  memory_begin(s);
  const bool ok = codegen_write(s->module, s->target, &c, &j->stats);
  memory_end();
  if (ok && s->o->time_passes) print_code_times(&j->stats);
  return ok;
}

/* ---- summary ---- */
static const char *bytes_text(Arena *a, int64_t n) {
  if (n < 10000) return arena_printf(a, "%lld B", (long long)n);
  if (n < 10000000) return arena_printf(a, "%.1f KB", (double)n / 1e3);
  return arena_printf(a, "%.1f MB", (double)n / 1e6);
}

static int fused_nodes(const Module *m) {
  int n = 0;
  for (int k = 0; k < m->kernels.n; k++)
    for (const Loc *l = m->kernels.data[k]->loc; l; l = l->also) n++;
  return n;
}

/* In the words of the program's --info. */
static void print_arena(Arena *a, const CodegenStats *t, int64_t lower_bound) {
  if (t->arena_bytes < 0) {
    fprintf(stderr, "  arena     depends on symbolic sizes\n");
    return;
  }
  fprintf(stderr, "  arena     %s for one thread", bytes_text(a, t->arena_bytes));
  if (lower_bound >= 0) fprintf(stderr, " (lower bound %s)", bytes_text(a, lower_bound));
  if (t->thread_bytes > 0)
    fprintf(stderr, ", %s for each further thread", bytes_text(a, t->thread_bytes));
  fprintf(stderr, "\n");
}

/* ---- figures of a GPU's kernels ---- */
/* Spills first, then registers. */
static int compare_figures(const void *a, const void *b) {
  const KernelFigures *const x = a, *const y = b;
  if (x->spills != y->spills) return x->spills < y->spills ? 1 : -1;
  if (x->registers != y->registers) return x->registers < y->registers ? 1 : -1;
  const int names = strcmp(x->name, y->name);
  return names ? names : x->sm - y->sm;
}

/* A line for each kernel on each GPU, the worst first; all of them with --print-plan. */
static void print_figures(Arena *a, const CodegenStats *t, bool all) {
  enum { LINES = 8 };
  int spilled = 0;
  if (t->n_figures == 0) return;
  const size_t n = (size_t)t->n_figures;
  KernelFigures *const list = arena_dup(a, t->figures, n * sizeof *list);
  qsort(list, n, sizeof *list, compare_figures);
  for (size_t i = 0; i < n; i++) spilled += list[i].spills > 0;
  fprintf(stderr, "  registers shared B  spills B  of kernels as compiled; %d spill\n", spilled);
  for (size_t i = 0; i < n && (all || i < LINES); i++)
    fprintf(stderr, "  %9d %8lld %9d  %s, sm_%d\n", list[i].registers, (long long)list[i].shared,
            list[i].spills, list[i].name, list[i].sm);
  if (n > LINES && !all) fprintf(stderr, "  and %zu more\n", n - LINES);
}

static void summary(Session *s, const Job *j, double seconds) {
  Arena *a = s->arena;
  const Module *m = s->module;
  progress_clear(s);
  fprintf(stderr, "%s -> %s (%s)\n", j->file, j->output, s->target->name);
  fprintf(stderr, "  kernels   %d, called %d times, from %d nodes\n", j->stats.kernels,
          j->stats.kernel_calls, fused_nodes(m));
  print_arena(a, &j->stats, m->arena_lower_bound);
  fprintf(stderr, "  weights   %s, code %s, file %s\n", bytes_text(a, j->stats.weight_bytes),
          bytes_text(a, j->stats.code_bytes), bytes_text(a, j->stats.file_bytes));
  print_figures(a, &j->stats, s->o->print_plan);
  const double nvrtc = j->stats.gather_seconds;
  fprintf(stderr, "  compiled  in %.2f s: read %.2f, passes %.2f, LLVM %.2f%s, link %.2f\n",
          seconds, s->load_seconds, s->pass_seconds, j->stats.llvm_seconds,
          s->target->gpu ? arena_printf(a, ", NVRTC %.2f", nvrtc) : "", j->stats.link_seconds);
}

/* ---- the verb ---- */
/* What is decided on the way to kernels cannot be told from the text of a program. */
static bool has_graph(const Session *s, const Job *j) {
  const char *what = !s->module              ? NULL
                     : j->watch              ? "--tune"
                     : j->emit & EMIT_ONNX   ? "--emit=onnx"
                     : j->emit & EMIT_GRAPH  ? "--emit=graph"
                     : j->emit & EMIT_TUNING ? "--emit=tuning"
                                             : NULL;
  if (what) usage_error("%s needs a graph, and %s is the text of a program", what, j->file);
  return !what;
}

/* An ONNX file is what the passes for operators leave; those for kernels would not leave operators. */
static bool one_graph(Session *s, const Job *j) {
  if (!(j->emit & EMIT_ONNX)) return true;
  if (j->emit != EMIT_ONNX)
    return usage_error("--emit=onnx stands alone: kernels are made of another graph"), false;
  if (!s->o->passes) s->passes = s->o->state ? "infer" : session_onnx_passes(s);
  return true;
}

/* --precision=f32 */
static bool widen(Session *s) {
  const char *passes = s->passes;
  s->passes = "widen";
  const bool ok = session_passes(s, 0);
  s->passes = passes;
  return ok;
}

static bool compile_steps(Session *s, Job *j) {
  if (!one_graph(s, j) || !session_load(s, j->file) || !has_graph(s, j)) return false;
  if (s->o->state && !train_load_state(s, s->o->state)) return false;
  if ((j->emit & (EMIT_FILES | EMIT_ONNX)) && !session_has_data(s)) return false;
  if (is_f32(s->o) && !s->o->quantize && !widen(s)) return false;
  if (changes_layers(s->o) && (j->status = quantize_graph(s, compile_program)) != EXIT_OK)
    return false;
  if (changes_layers(s->o) && j->emit == EMIT_ONNX)
    s->passes = "infer,cse,dce"; /* no weights folded */
  if (!session_passes(s, j->emit & EMIT_FILES ? PF_CODE : 0)) return false;
  if (s->o->print_plan) decisions_print(s->decisions);
  if (s->o->print_plan && s->target->gpu) launches_print(s->module, s->target);
  if ((j->emit & EMIT_FILES) && !write_code(s, j)) return false;
  return write_texts(s, j) && session_commit(s);
}

/* Several files, or one with its weights beside it, have no place in one stream. */
static bool one_stream(const Session *s, const Job *j) {
  const bool external = s->o->weights && strcmp(s->o->weights, "external") == 0;
  if (!j->output || names_file(j) || !(j->emit & EMIT_FILES)) return true;
  if ((j->emit & (j->emit - 1)) == 0 && !external) return true;
  usage_error("%s is one stream; several files need a name: -o NAME", j->output);
  return false;
}

/* Names of kinds in a row. */
static const char *kind_names(Arena *a, unsigned emit) {
  StrBuf b = {.arena = a};
  for (int k = 0; k < N_KINDS; k++)
    if (emit & kinds[k].bit) sb_printf(&b, "%s%s", b.n ? "," : "", kinds[k].name);
  return sb_str(&b);
}

static bool makes_kinds(const Session *s, const Job *j) {
  const unsigned gpu = EMIT_CUDA | EMIT_PTX | EMIT_CUBIN, files = j->emit & EMIT_FILES;
  int sms[GPU_MOST];
  const int n = target_sms(s->target, sms);
  const Backend *const any = backend_for(s->target, 0);
  if ((files & gpu) && !s->target->gpu)
    return usage_error("--emit=%s is of a GPU: --target=cuda:sm_80 or another of --list-targets",
                       kind_names(s->arena, files & gpu)),
           false;
  if ((files & (EMIT_PTX | EMIT_CUBIN)) && n == 0)
    return usage_error("target %s is no GPU: it makes no %s", s->target->name,
                       kind_names(s->arena, files & (EMIT_PTX | EMIT_CUBIN))),
           false;
  if ((files & EMIT_CUBIN) && n > 1)
    return usage_error("--emit=cubin is of one GPU, and target %s names %d", s->target->name, n),
           false;
  if (!files || backend_for(s->target, files)) return true;
  if (!any)
    return usage_error("no code for target %s is made in this version", s->target->name), false;
  return usage_error("target %s makes only --emit=%s, graph and loop", s->target->name,
                     kind_names(s->arena, any->kinds)),
         false;
}

/* C source is for every machine: it has a target of its own, which makes nothing else. */
static bool pick_source_target(Session *s, const Job *j) {
  const bool source = (j->emit & EMIT_C) != 0;
  if (source && !s->o->target) s->target = target_of(BACKEND_C);
  if (!session_target(s)) return false;
  if (source && !backend_for(s->target, EMIT_C))
    return usage_error("--emit=c is for every machine: leave --target out"), false;
  if (!makes_kinds(s, j)) return false;
  if (source && s->o->weights && strcmp(s->o->weights, "external") == 0)
    return usage_error("--weights=external: files of C hold their weights"), false;
  return true;
}

static int compile_body(Session *s, void *user) {
  Job *j = user;
  const double start = clock_seconds();
  if (j->watch) {
    s->tuning = j->watch->tuning;
    s->decisions = j->watch->decisions;
  }
  DecisionLog log = {.arena = s->arena};
  if (!parse_emit(s, s->o->emit ? s->o->emit : "exe", &j->emit) || !pick_source_target(s, j))
    return EXIT_USAGE;
  if ((s->o->print_plan || (j->emit & EMIT_TUNING)) && !s->decisions) s->decisions = &log;
  if (!j->output && (j->emit & EMIT_FILES)) j->output = default_output(s, j);
  if (!j->output && j->emit == EMIT_ONNX)
    return usage_error("an ONNX file needs a name: -o OUT.onnx");
  if (!one_stream(s, j)) return EXIT_USAGE;
  if (!j->name) j->name = identifier(s->arena, names_file(j) ? j->output : j->file);
  if (!compile_steps(s, j)) return session_status(s, j->status);
  if (!s->o->quiet && (j->emit & EMIT_FILES)) summary(s, j, clock_seconds() - start);
  return j->watch ? j->watch->done(j->watch->user, s) : EXIT_OK;
}

int verb_compile(const Options *o) {
  if (unsupported_options(o)) return EXIT_USAGE;
  if (o->files.n != 1)
    return usage_error(o->files.n ? "more than one model is given"
                                  : "no model is given; try 'burin --help'");
  if (o->name && !is_identifier(o->name))
    return usage_error("--name: '%s' is no C identifier", o->name);
  if (o->tune) return tune(o);
  Job j = {.file = o->files.v[0], .output = o->output, .name = o->name};
  Options own = *o;
  own.freeze |= changes_layers(o); /* weights that callers may replace cannot be quantized */
  own.freeze |= o->state != NULL;
  if (o->state && !o->emit && o->output && ends_with(o->output, ".onnx")) own.emit = "onnx";
  return session_run(&own, compile_body, &j);
}

int verb_quantize(const Options *o) {
  Options own = *o;
  if (!changes_layers(o)) own.quantize = "int8";
  if (o->emit && strcmp(o->emit, "onnx") != 0)
    return usage_error("burin quantize writes ONNX; burin MODEL --quantize=int8 makes programs");
  own.emit = "onnx";
  return verb_compile(&own);
}

int compile_program(const Options *o, const char *model, const char *opt_level, const char *out) {
  Options quiet = *o;
  quiet.quiet = true;
  quiet.emit = "exe";
  if (opt_level) quiet.opt = opt_level;
  Job j = {.file = model, .output = out, .name = "model"};
  return session_run(&quiet, compile_body, &j);
}

int compile_watched(const Options *o, const char *model, const char *out, const Watch *w) {
  Options quiet = *o;
  quiet.quiet = true;
  quiet.emit = "exe";
  quiet.weights = NULL;
  Job j = {.file = model, .output = out, .name = "model", .watch = w};
  return session_run(&quiet, compile_body, &j);
}
