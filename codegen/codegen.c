/* From a module to files, through a backend (units.c, write.c). */
#include <stdlib.h>
#include <string.h>

#include "codegen/job.h"

static const Backend *const backends[BACKEND_COUNT] = {
    [BACKEND_LLVM] = &backend_llvm, [BACKEND_C] = &backend_c, [BACKEND_CUDA] = &backend_cuda};

const Backend *backend_for(const Target *t, unsigned emit) {
  const Backend *const b = backends[t->backend];
  return b && (emit & ~b->kinds) == 0 ? b : NULL;
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
  if (!job_open_files(j) || !job_compile(j)) return false;
  const double compiled = clock_seconds();
  stats->llvm_seconds = compiled - start;
  add_stages(j->pool, stats);
  LinkJob l = {.p = j->p, .outputs = j->outputs, .beside = j->p->o->output};
  const bool ok = job_write_files(j, &l, stats);
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
  const Step *const lacking = backend->lacks ? backend->lacks(&p) : NULL;
  if (lacking) {
    diag_error(m->model->diag, lacking->loc, ERR_UNSUPPORTED,
               "backend %s has no code of its runtime function", backend->name);
    return arena_free(a), false;
  }
  Pool *const pool = pool_new(&p, backend);
  bool ok = pool != NULL;
  if (ok) {
    Outputs *const made = o->outputs ? NULL : outputs_new(a, m->model->diag);
    Job j = {.p = &p, .pool = pool, .outputs = made ? made : o->outputs};
    j.state = backend->open(&p);
    ok = compile_and_write(&j, stats);
    pool_free(pool);
    if (made && ok) ok = outputs_commit(made);
    if (made) outputs_abort(made);
  } else {
    ok = diag_error(m->model->diag, NULL, ERR_LIMIT, "out of memory");
  }
  arena_free(a);
  return ok;
}
