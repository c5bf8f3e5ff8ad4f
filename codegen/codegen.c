/* From a module to files, through a backend. The calling thread makes one unit after the other
 * (expressions are interned in the module's pool, which is not for threads); worker threads finish
 * them. */
#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "codegen/backend.h"
#include "codegen/host/header.h"
#include "codegen/link/link.h"

/* Most of the time that LLVM takes for a small kernel does not depend on the kernel: where there
 * are many, they share units. A call costs a run nanoseconds and LLVM half a millisecond: where
 * there are thousands, the entry is translated as it stands. */
enum { SINGLE = 64, BATCH = 64, MANY_CALLS = 2048 };

static const Backend *const backends[BACKEND_COUNT] = {
    [BACKEND_LLVM] = &backend_llvm, [BACKEND_C] = &backend_c, [BACKEND_CUDA] = &backend_cuda};

typedef struct Task {
  Unit *unit;
  const char *error; /* why it could not be finished */
} Task;

/* Shared with the workers; on the heap, because an allocation failure leaves the calling thread's
 * frames. */
typedef struct Pool {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  Task *tasks;
  int n, next, finished; /* tasks handed out; tasks done */
  int made;              /* tasks that are ready to be finished */
  int batch;             /* kernels of a task; the last task is the entry */
  bool closed;
  const Backend *backend;
} Pool;

const Backend *backend_for(const Target *t, unsigned emit) {
  const Backend *const b = backends[t->backend];
  return b && (emit & ~b->kinds) == 0 ? b : NULL;
}

/* ---- workers ---- */
static void run_task(Pool *p, Task *t) { t->error = p->backend->finish(t->unit); }

/* The next task that is made; NULL: none will come (wait) or none is there now. */
static Task *take_task(Pool *p, bool wait) {
  pthread_mutex_lock(&p->lock);
  while (wait && p->next >= p->made && !p->closed) pthread_cond_wait(&p->changed, &p->lock);
  Task *const t = p->next < p->made ? &p->tasks[p->next++] : NULL;
  pthread_mutex_unlock(&p->lock);
  return t;
}

static void note_finished(Pool *p) {
  pthread_mutex_lock(&p->lock);
  p->finished++;
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
}

static void *worker(void *arg) {
  Pool *const p = arg;
  for (Task *t; (t = take_task(p, true)) != NULL;) {
    run_task(p, t);
    note_finished(p);
  }
  return NULL;
}

static void close_pool(Pool *p) {
  pthread_mutex_lock(&p->lock);
  p->closed = true;
  pthread_cond_broadcast(&p->changed);
  pthread_mutex_unlock(&p->lock);
}

typedef struct Output {
  EmitKind kind;
  const char *suffix;
} Output;
static const Output outputs[] = {{EMIT_EXE, ""},       {EMIT_OBJ, ".o"},      {EMIT_STATIC, ".a"},
                                 {EMIT_SHARED, ".so"}, {EMIT_HEADER, ".h"},   {EMIT_ASM, ".s"},
                                 {EMIT_LLVM, ".ll"},   {EMIT_C, ".c"},        {EMIT_CUDA, ".cu"},
                                 {EMIT_PTX, ".ptx"},   {EMIT_CUBIN, ".cubin"}};
enum { N_OUTPUTS = sizeof outputs / sizeof *outputs };

/* ---- making kernels ---- */
typedef struct Job {
  Program *p;
  Pool *pool;
  void *state; /* the backend's */
  pthread_t *threads;
  int n_threads;
  Outputs *outputs;
  OutFile *out[N_OUTPUTS], *weights; /* those that are wanted */
} Job;

static void report_progress(const Job *j) {
  const CodegenOptions *const o = j->p->o;
  pthread_mutex_lock(&j->pool->lock);
  const int done = j->pool->finished;
  pthread_mutex_unlock(&j->pool->lock);
  if (o->progress) o->progress(o->progress_user, done, j->pool->n);
}

/* LLVM's messages have several lines. */
static const char *one_line(Arena *a, const char *text) {
  char *const s = arena_strdup(a, text);
  size_t n = strlen(s);
  while (n && s[n - 1] == '\n') s[--n] = 0;
  for (char *at = s; (at = strchr(at, '\n')) != NULL;) *at = ' ';
  return s;
}

static bool note_nodes(const Job *j, const Loc *loc, const char *what) {
  const char *const nodes = program_node_list(j->p->arena, loc);
  if (*nodes) diag_note(j->p->m->model->diag, "the %s computes %s", what, nodes);
  return false;
}

/* An internal failure: names the kernel and the nodes that it computes. */
static bool report_kernel(const Job *j, int k, const char *stage, const char *error) {
  const Module *const m = j->p->m;
  const Loc *const loc = program_kernel_loc(j->p, k);
  diag_internal(m->model->diag, loc, "%s of kernel %s: %s", stage, m->kernels.data[k]->name,
                one_line(j->p->arena, error));
  return note_nodes(j, loc, "kernel");
}

/* Of the entry: names the step, where that is known; else the model's file. */
static bool report_entry(const Job *j, const Unit *u, const char *stage, const char *error) {
  const Model *const model = j->p->m->model;
  const Loc whole = {.node = -1, .file = model->file};
  const Step *const s = u->step;
  const Kernel *const k = s && s->kind == STEP_KERNEL ? s->call.kernel : NULL;
  const Loc *const loc = s && s->loc ? s->loc : k ? k->loc : NULL;
  const char *const call =
      k ? arena_printf(j->p->arena, ", at the call of kernel %s", k->name) : "";
  diag_internal(model->diag, loc ? loc : &whole, "%s of the entry%s: %s", stage, call,
                one_line(j->p->arena, error));
  return note_nodes(j, loc, "step");
}

/* A unit failed as a whole: which of its kernels is at fault may be unknown. */
static bool report_unit(const Job *j, const Unit *u, const char *stage, const char *error) {
  if (u->n == 0) return report_entry(j, u, stage, error);
  if (u->failed >= 0 || u->n == 1)
    return report_kernel(j, u->failed >= 0 ? u->failed : u->first, stage, error);
  const char *const several =
      arena_printf(j->p->arena, "%s of several kernels, among them this one", stage);
  for (int k = u->first; k < u->first + u->n; k++) report_kernel(j, k, several, error);
  return false;
}

/* The next unit, empty; NULL: out of memory, reported. */
static Unit *new_unit(Job *j, int first, int n) {
  const Program *const p = j->p;
  Unit *const u = j->pool->backend->unit(j->state);
  if (!u) return diag_error(p->m->model->diag, NULL, ERR_LIMIT, "out of memory"), NULL;
  u->p = p;
  u->first = first;
  u->n = n;
  u->failed = -1;
  u->opt_level = n == 0 && p->calls.n > MANY_CALLS ? 0 : p->o->opt_level;
  j->pool->tasks[j->pool->made].unit = u; /* the workers do not see it yet */
  return u;
}

static void hand_out(Job *j) {
  Pool *const p = j->pool;
  pthread_mutex_lock(&p->lock);
  p->made++;
  pthread_cond_broadcast(&p->changed);
  const int waiting = p->made - p->next;
  pthread_mutex_unlock(&p->lock);
  if (j->n_threads == 0 || waiting > 2 * j->n_threads) { /* keep memory bounded: help */
    Task *const t = take_task(p, false);
    if (t) {
      run_task(p, t);
      note_finished(p);
    }
  }
  report_progress(j);
}

static const char *make_kernel(const Job *j, Unit *u, int k, Arena *scratch) {
  const bool grid = kernel_is_grid(j->p->m->kernels.data[k]);
  if (grid && !j->pool->backend->grids)
    return "a grid of blocks, which this target does not have (pass serialize_threads)";
  if (!grid && j->pool->backend->grids)
    return "no grid of blocks, which is all that this target runs (pass make_grids)";
  return j->pool->backend->kernel(j->state, u, k, scratch);
}

/* Kernels from `first` in one unit. */
static bool make_kernels(Job *j, int first) {
  const int left = j->p->m->kernels.n - first, n = left < j->pool->batch ? left : j->pool->batch;
  Unit *const u = new_unit(j, first, n);
  if (!u) return false;
  Arena *const scratch = arena_child(j->p->m->model->arena);
  const double start = clock_thread_seconds();
  bool ok = true;
  for (int k = first; k < first + n && ok; k++) {
    const char *const error = make_kernel(j, u, k, scratch);
    if (error) ok = report_kernel(j, k, "code generation", error);
  }
  u->seconds[STAGE_MAKE] = clock_thread_seconds() - start;
  arena_free(scratch);
  if (ok) hand_out(j);
  return ok;
}

static bool make_entry(Job *j) {
  Unit *const u = new_unit(j, j->p->m->kernels.n, 0);
  if (!u) return false;
  const double start = clock_thread_seconds();
  const char *const error = j->pool->backend->entry(j->state, u);
  u->seconds[STAGE_MAKE] = clock_thread_seconds() - start;
  if (error) return report_entry(j, u, "code generation", error);
  hand_out(j);
  return true;
}

static bool make_all(Job *j) {
  for (int i = 0; i < j->p->m->kernels.n; i += j->pool->batch)
    if (!make_kernels(j, i)) return false;
  return make_entry(j);
}

static void start_threads(Job *j) {
  int n = j->p->o->jobs;
  if (n <= 0) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (n > j->pool->n) n = j->pool->n;
  if (n > 64) n = 64;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, 16 << 20); /* LLVM recurses */
  j->threads = ARENA_ARRAY(j->p->arena, pthread_t, n + 1);
  for (int i = 1; i < n; i++) /* the calling thread is one of them */
    if (pthread_create(&j->threads[j->n_threads], &attr, worker, j->pool) == 0) j->n_threads++;
  pthread_attr_destroy(&attr);
}

static bool compile_all(Job *j) {
  Pool *const p = j->pool;
  start_threads(j);
  bool ok = make_all(j);
  close_pool(p);
  for (Task *t; (t = take_task(p, false)) != NULL;) {
    run_task(p, t);
    note_finished(p);
    report_progress(j);
  }
  for (int i = 0; i < j->n_threads; i++) pthread_join(j->threads[i], NULL);
  report_progress(j);
  for (int i = 0; i < p->made; i++)
    if (p->tasks[i].error) ok = report_unit(j, p->tasks[i].unit, "code", p->tasks[i].error);
  return ok;
}

static void free_pool(Pool *p) {
  for (int i = 0; i < p->n; i++)
    if (p->tasks[i].unit) p->backend->drop(p->tasks[i].unit);
  pthread_mutex_destroy(&p->lock);
  pthread_cond_destroy(&p->changed);
  free(p->tasks);
  free(p);
}

/* NULL: out of memory. */
static Pool *new_pool(const Program *p, const Backend *backend) {
  Pool *const pool = calloc(1, sizeof *pool);
  if (!pool) return NULL;
  const int n = p->m->kernels.n;
  pool->backend = backend;
  pool->batch = backend->batch ? backend->batch : n > SINGLE ? BATCH : 1;
  pool->n = (n + pool->batch - 1) / pool->batch + 1;
  pool->tasks = calloc((size_t)pool->n, sizeof *pool->tasks);
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->changed, NULL);
  if (pool->tasks) return pool;
  pool->n = 0;
  free_pool(pool);
  return NULL;
}

/* ---- files ---- */

static int64_t text_bytes(const char *elf) {
  int64_t sum = 0;
  if (elf[EI_CLASS] == ELFCLASS64) {
    const Elf64_Ehdr *const h = (const Elf64_Ehdr *)elf;
    const Elf64_Shdr *const s = (const Elf64_Shdr *)(elf + h->e_shoff);
    for (int i = 0; i < h->e_shnum; i++)
      if (s[i].sh_flags & SHF_EXECINSTR) sum += (int64_t)s[i].sh_size;
  } else {
    const Elf32_Ehdr *const h = (const Elf32_Ehdr *)elf;
    const Elf32_Shdr *const s = (const Elf32_Shdr *)(elf + h->e_shoff);
    for (int i = 0; i < h->e_shnum; i++)
      if (s[i].sh_flags & SHF_EXECINSTR) sum += (int64_t)s[i].sh_size;
  }
  return sum;
}

/* ar: a member's header; members begin at even places. */
static void member_header(char out[61], int64_t size) {
  snprintf(out, 61, "%-16s%-12d%-6d%-6d%-8o%-10lld`\n", "k.o/", 0, 0, 0, 0644, (long long)size);
}

/* All objects in one archive, in order: models have more kernels than processes may open files. */
static bool write_objects(Job *j, LinkJob *l, CodegenStats *stats) {
  int fd;
  if (!(l->objects = link_scratch(l, &fd))) return false;
  bool ok = fd_write(fd, "!<arch>\n", 8);
  for (int i = 0; ok && i < j->pool->n; i++) {
    const Unit *const u = j->pool->tasks[i].unit;
    const size_t size = u->object_bytes;
    if (!u->object) continue;
    char header[61];
    member_header(header, (int64_t)size);
    ok = fd_write(fd, header, 60) && fd_write(fd, u->object, size) && fd_write(fd, "\n", size & 1);
    stats->code_bytes += text_bytes(u->object);
  }
  return ok || link_error(l, ERR_OUTPUT, "cannot write objects", strerror(errno));
}

static bool write_weights(Job *j, LinkJob *l) {
  int fd;
  if (!j->p->weights.bytes) return true;
  if (!(l->weights = link_scratch(l, &fd))) return false;
  FILE *f = fd_stream(fd);
  const char *const symbol = arena_printf(j->p->arena, "%s_weights", j->p->name);
  bool ok =
      f && weights_write_object(&j->p->weights, j->p->t, symbol, j->p->o->external_weights, f);
  if (f) ok = fclose(f) == 0 && ok;
  return ok || link_error(l, ERR_OUTPUT, "cannot write weights", strerror(errno));
}

static Unit *const *all_units(const Job *j) {
  Unit **const units = ARENA_ARRAY(j->p->arena, Unit *, j->pool->n);
  for (int i = 0; i < j->pool->n; i++) units[i] = j->pool->tasks[i].unit;
  return units;
}

/* A reason of the backend's, about no kernel or those of `at`. */
static bool report_whole(const Job *j, const Unit *at, const char *stage, const char *error) {
  const Model *const model = j->p->m->model;
  if (!*error) return false;
  if (at) return report_unit(j, at, stage, error);
  return diag_internal(model->diag, &(Loc){.node = -1, .file = model->file}, "%s: %s", stage,
                       one_line(j->p->arena, error));
}

/* What the units make together, beside their objects. */
static bool gather(Job *j, LinkJob *l, CodegenStats *stats) {
  const Backend *const b = j->pool->backend;
  const double start = clock_seconds();
  Gathered all = {0};
  Unit *at = NULL;
  const char *const error =
      b->gather ? b->gather(j->state, all_units(j), j->pool->n, &all, &at) : NULL;
  stats->gather_seconds = clock_seconds() - start;
  if (error) return report_whole(j, at, "machine code", error);
  if (!all.symbol) return true;
  int fd;
  if (!(l->gathered = link_scratch(l, &fd))) return false;
  FILE *const f = fd_stream(fd);
  bool ok = f && gathered_write_object(&all, j->p->t, f);
  if (f) ok = fclose(f) == 0 && ok;
  stats->code_bytes += (int64_t)all.bytes;
  return ok || link_error(l, ERR_OUTPUT, "cannot write machine code", strerror(errno));
}

static bool write_text(Job *j, EmitKind kind, OutFile *out) {
  FILE *f = fd_stream(out->fd);
  if (!f) return outputs_error(j->outputs, out, -errno);
  Unit *at = NULL;
  const char *const error =
      j->pool->backend->write(j->state, all_units(j), j->pool->n, kind, f, &at);
  const bool written = !ferror(f), closed = fclose(f) == 0;
  if (error) return report_whole(j, at, "code as text", error);
  return (written && closed) || outputs_error(j->outputs, out, -errno);
}

static bool write_header(Job *j, OutFile *out) {
  StrBuf b = {.arena = j->p->arena};
  header_print(j->p, units_stack(all_units(j), j->pool->n), &b);
  return outputs_write(j->outputs, out, sb_str(&b), (size_t)b.n);
}

static bool write_one(Job *j, LinkJob *l, EmitKind kind, OutFile *out) {
  switch (kind) {
    case EMIT_HEADER: return write_header(j, out);
    case EMIT_EXE:
    case EMIT_OBJ:
    case EMIT_STATIC:
    case EMIT_SHARED: return link_file(l, kind, out);
    default: return write_text(j, kind, out);
  }
}

static bool write_weights_file(Job *j, OutFile *out) {
  FILE *f = fd_stream(out->fd);
  const bool ok = f && weights_write_raw(&j->p->weights, f);
  return (f && fclose(f) == 0 && ok) || outputs_error(j->outputs, out, -errno);
}

static const char *final_path(const Job *j, const Output *o) {
  const unsigned emit = j->p->o->emit;
  const bool several = (emit & (emit - 1)) != 0;
  return several ? arena_printf(j->p->arena, "%s%s", j->p->o->output, o->suffix) : j->p->o->output;
}

static bool external_weights(const Job *j) {
  const unsigned linked = EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED;
  return (j->p->o->emit & linked) && j->p->o->external_weights && j->p->weights.bytes > 0;
}

/* The files of a command, opened before the work: what cannot be written is said at once. */
static bool open_all(Job *j) {
  const CodegenOptions *const o = j->p->o;
  for (int i = 0; i < N_OUTPUTS; i++) {
    const EmitKind kind = outputs[i].kind;
    if (!(o->emit & kind)) continue;
    j->out[i] = outputs_add(j->outputs, final_path(j, &outputs[i]),
                            kind == EMIT_EXE || kind == EMIT_SHARED);
    if (!j->out[i]) return false;
  }
  if (!external_weights(j)) return true;
  const char *const path = arena_printf(j->p->arena, "%s.weights", o->output);
  return (j->weights = outputs_add(j->outputs, path, false)) != NULL;
}

static int64_t file_bytes(const OutFile *f) {
  struct stat st;
  return fstat(f->fd, &st) == 0 ? (int64_t)st.st_size : 0;
}

static bool write_all(Job *j, LinkJob *l, CodegenStats *stats) {
  const unsigned emit = j->p->o->emit;
  const bool objects = (emit & (EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED)) != 0;
  if (objects && (!gather(j, l, stats) || !write_objects(j, l, stats) || !write_weights(j, l)))
    return false;
  if (j->weights && !write_weights_file(j, j->weights)) return false;
  for (int i = 0; i < N_OUTPUTS; i++) {
    if (!j->out[i]) continue;
    if (!write_one(j, l, outputs[i].kind, j->out[i])) return false;
    stats->file_bytes += file_bytes(j->out[i]);
  }
  if (j->weights) stats->file_bytes += file_bytes(j->weights);
  return true;
}

static void add_stages(const Pool *p, CodegenStats *stats) {
  for (int i = 0; i < p->n; i++) {
    const double *const s = p->tasks[i].unit->seconds;
    stats->make_seconds += s[STAGE_MAKE];
    stats->optimise_seconds += s[STAGE_OPTIMISE];
    stats->emit_seconds += s[STAGE_EMIT];
  }
}

static void note_figures(const Program *p, CodegenStats *stats) {
  stats->n_figures = p->figures->n;
  stats->figures = p->figures->data;
}

static bool compile_and_write(Job *j, CodegenStats *stats) {
  const double start = clock_seconds();
  if (!open_all(j) || !compile_all(j)) return false;
  const double compiled = clock_seconds();
  stats->llvm_seconds = compiled - start;
  add_stages(j->pool, stats);
  LinkJob l = {.p = j->p, .outputs = j->outputs, .beside = j->p->o->output};
  const bool ok = write_all(j, &l, stats);
  link_close(&l);
  stats->link_seconds = clock_seconds() - compiled - stats->gather_seconds;
  note_figures(j->p, stats);
  return ok;
}

static bool weights_error(const Module *m, int64_t bytes, const Backend *b) {
  return diag_error(m->model->diag, NULL, ERR_LIMIT,
                    "the weights take %.1f MB, of which backend %s holds at most %.1f MB",
                    (double)bytes / 1e6, b->name, (double)b->most_weights / 1e6);
}

bool codegen_write(const Module *m, const Target *t, const CodegenOptions *o, CodegenStats *stats) {
  CodegenStats own;
  if (!stats) stats = &own;
  const FloatRules have = *expr_pool_rules(m->model->pool), want = target_float_rules(t);
  if (have.split_fma != want.split_fma || have.ordered_zeros != want.ordered_zeros)
    return diag_internal(m->model->diag, &(Loc){.node = -1, .file = m->model->file},
                         "constants were folded by the rules of another target than %s", t->name);
  const Backend *const backend = o->backend ? o->backend : backend_for(t, o->emit);
  if (!backend)
    return diag_error(m->model->diag, NULL, ERR_USAGE,
                      "no backend makes all these kinds of files for target %s", t->name);
  *stats = (CodegenStats){.kernels = m->kernels.n};
  Arena *const a = arena_child(m->model->arena);
  Program p;
  program_init(&p, m, t, o, a);
  stats->kernel_calls = p.calls.n;
  stats->weight_bytes = p.weights.bytes;
  if (!program_fixed_arena(m, &stats->arena_bytes, &stats->thread_bytes))
    stats->arena_bytes = stats->thread_bytes = -1;
  if (backend->most_weights && p.weights.bytes > backend->most_weights)
    return arena_free(a), weights_error(m, stats->weight_bytes, backend);
  Pool *const pool = new_pool(&p, backend);
  bool ok = pool != NULL;
  if (ok) {
    Outputs *const made = o->outputs ? NULL : outputs_new(a, m->model->diag);
    Job j = {.p = &p, .pool = pool, .outputs = made ? made : o->outputs};
    j.state = backend->open(&p);
    ok = compile_and_write(&j, stats);
    free_pool(pool);
    if (made && ok) ok = outputs_commit(made);
    if (made) outputs_abort(made);
  } else {
    ok = diag_error(m->model->diag, NULL, ERR_LIMIT, "out of memory");
  }
  arena_free(a);
  return ok;
}
