/* Units of a compilation: the calling thread makes one after the other (expressions are interned in
 * the module's pool, which is not for threads), worker threads finish them. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "codegen/job.h"

/* Most of the time that LLVM takes for a small kernel does not depend on the kernel: where there
 * are many, they share units. A call costs a run nanoseconds and LLVM half a millisecond: where
 * there are thousands, the entry is translated as it stands. */
enum { SINGLE = 64, BATCH = 64, MANY_CALLS = 2048 };

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

/* ---- making kernels ---- */
static bool has_functions(const Job *j) {
  return j->p->device_calls.n && j->pool->backend->functions;
}

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

static bool make_functions(Job *j) {
  Unit *const u = new_unit(j, j->p->m->kernels.n, 0);
  if (!u) return false;
  const char *const error = j->pool->backend->functions(j->state, u);
  if (error) return report_entry(j, u, "code generation", error);
  hand_out(j);
  return true;
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
  return (!has_functions(j) || make_functions(j)) && make_entry(j);
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

bool job_compile(Job *j) {
  Pool *const p = j->pool;
  p->n += has_functions(j);
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

void pool_free(Pool *p) {
  for (int i = 0; i < p->n; i++)
    if (p->tasks[i].unit) p->backend->drop(p->tasks[i].unit);
  pthread_mutex_destroy(&p->lock);
  pthread_cond_destroy(&p->changed);
  free(p->tasks);
  free(p);
}

/* NULL: out of memory. */
Pool *pool_new(const Program *p, const Backend *backend) {
  Pool *const pool = calloc(1, sizeof *pool);
  if (!pool) return NULL;
  const int n = p->m->kernels.n;
  pool->backend = backend;
  pool->batch = backend->batch ? backend->batch : n > SINGLE ? BATCH : 1;
  pool->n = (n + pool->batch - 1) / pool->batch + 1;
  pool->tasks = calloc((size_t)pool->n + 1, sizeof *pool->tasks); /* one for functions */
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->changed, NULL);
  if (pool->tasks) return pool;
  pool->n = 0;
  pool_free(pool);
  return NULL;
}

/* A reason of the backend's, about no kernel or those of `at`. */
bool job_report(const Job *j, const Unit *at, const char *stage, const char *error) {
  const Model *const model = j->p->m->model;
  if (!*error) return false;
  if (at) return report_unit(j, at, stage, error);
  return diag_internal(model->diag, &(Loc){.node = -1, .file = model->file}, "%s: %s", stage,
                       one_line(j->p->arena, error));
}
