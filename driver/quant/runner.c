/* Sizes of the sample become symbols of the model; what outputs and arena need follows from these. */
#include "driver/quant/runner.h"
#include <math.h>
#include <string.h>

bool runner_open(Session *s, const Library *lib, int threads, Runner *out) {
  const BurinModel *m = lib->model;
  *out = (Runner){.s = s, .lib = *lib};
  out->pool = threads > 1 ? burin_pool_new(threads) : NULL;
  out->dims = ARENA_ARRAY(s->arena, int64_t, m->n_symbols + 1);
  for (int k = 0; k < m->n_symbols; k++) out->dims[k] = -1;
  out->in = ARENA_ARRAY(s->arena, const void *, m->n_inputs + 1);
  out->out = ARENA_ARRAY(s->arena, void *, m->n_outputs + 1);
  out->found = ARENA_ARRAY(s->arena, void *, m->n_outputs + 1);
  out->heap.grow = burin_heap_malloc;
  out->outputs = ARENA_ARRAY(s->arena, Tensor, m->n_outputs + 1);
  return true;
}

void runner_close(Runner *r) {
  burin_pool_free(r->pool);
  burin_heap_free(&r->heap);
  if (r->arena) arena_free(r->arena);
  library_close(&r->lib);
}

static bool run_error(const Runner *r, const char *what) {
  const Loc loc = {.file = r->s->file, .node = -1};
  return diag_error(r->s->diag, &loc, ERR_DATA, "the model does not run on a sample: %s", what);
}

static void bind(Runner *r, const Tensor *sample, int n, bool *changed) {
  const BurinModel *m = r->lib.model;
  for (int i = 0; i < n; i++)
    for (int d = 0; d < sample[i].rank; d++) {
      const int64_t dim = m->inputs[i].dims[d];
      if (dim >= 0 || dim == INT64_MIN || -1 - dim >= m->n_caller_symbols) continue;
      *changed |= r->dims[-1 - dim] != sample[i].dims[d];
      r->dims[-1 - dim] = sample[i].dims[d];
    }
}

/* A symbol has one size, wherever it stands. */
static bool sizes_agree(const Runner *r, const Tensor *sample, int n) {
  const BurinModel *m = r->lib.model;
  for (int i = 0; i < n; i++)
    for (int d = 0; d < sample[i].rank; d++) {
      const int64_t dim = m->inputs[i].dims[d],
                    size = dim >= 0 ? dim
                           : dim == INT64_MIN || -1 - dim >= m->n_caller_symbols
                               ? sample[i].dims[d]
                               : r->dims[-1 - dim];
      if (size != sample[i].dims[d])
        return run_error(
            r, arena_printf(r->s->arena, "size %d of input %s is %lld, not %lld", d,
                            m->inputs[i].name, (long long)sample[i].dims[d], (long long)size));
    }
  return true;
}

static bool in_heap(const BurinModel *m, int output) {
  return m->heap_outputs && m->heap_outputs[output];
}

static bool make_room(Runner *r, int threads) {
  const BurinModel *m = r->lib.model;
  for (int k = 0; m->output_lists && k < m->n_outputs; k++)
    if (m->output_lists[k].kind) return run_error(r, "its output is a sequence");
  if (r->arena) arena_free(r->arena);
  r->arena = arena_child(r->s->arena);
  r->memory_bytes = m->arena_size(r->dims, threads);
  if (r->memory_bytes > (uint64_t)1 << 40) return run_error(r, "its sizes are too large");
  r->memory = library_memory(r->arena, r->memory_bytes);
  for (int k = 0; k < m->n_outputs; k++) {
    Tensor *t = &r->outputs[k];
    *t = (Tensor){
        .dtype = dtype_from_onnx(m->outputs[k].dtype), .rank = m->outputs[k].rank, .count = 1};
    r->out[k] = &r->found[k];
    if (in_heap(m, k)) continue;
    m->output_dims(k, r->dims, t->dims, 1);
    for (int d = 0; d < t->rank; d++)
      if (t->dims[d] < 0 || !ck_mul(t->count, t->dims[d], &t->count))
        return run_error(r, "its sizes are too large");
    if (r->given && r->given[k]) continue;
    r->out[k] = t->data =
        library_memory(r->arena, (uint64_t)t->count * (uint64_t)dtype_bytes(t->dtype));
  }
  return true;
}

static void take_shapes(Runner *r) {
  const BurinModel *m = r->lib.model;
  for (int k = 0; k < m->n_outputs; k++) {
    Tensor *t = &r->outputs[k];
    m->output_dims(k, r->dims, t->dims, 0);
    t->count = 1;
    for (int d = 0; d < t->rank; d++) t->count *= t->dims[d];
    if (in_heap(m, k)) t->data = r->found[k];
  }
}

/* Inputs and memory for a sample. */
static bool take_sample(Runner *r, const Tensor *sample, int n, const void *const *extra,
                        int n_extra, int threads) {
  const BurinModel *m = r->lib.model;
  bool changed = r->arena == NULL;
  if (n + n_extra != m->n_inputs) return run_error(r, "it takes other inputs");
  bind(r, sample, n, &changed);
  if (!sizes_agree(r, sample, n)) return false;
  if (changed && !make_room(r, threads)) return false;
  for (int i = 0; i < n; i++) r->in[i] = sample[i].data;
  for (int i = 0; i < n_extra; i++) r->in[n + i] = extra[i];
  for (int k = 0; r->given && k < m->n_outputs; k++)
    if (r->given[k]) r->out[k] = r->outputs[k].data = r->given[k];
  return true;
}

static bool invoke(Runner *r, BurinOptions *o) {
  const BurinModel *m = r->lib.model;
  BurinFailure failure = {0};
  o->arena_bytes = r->memory_bytes;
  o->failure = &failure;
  if (m->uses_heap) o->heap = &r->heap;
  if (m->invoke(r->in, r->out, r->dims, r->memory, o) != BURIN_OK) {
    char text[512];
    m->failure_text(&failure, text, sizeof text);
    return run_error(r, text);
  }
  take_shapes(r);
  return true;
}

/* What memory is made for. */
static int threads_of(const BurinOptions *o) { return o->threads > 0 ? o->threads : 1; }

bool runner_run(Runner *r, const Tensor *sample, int n, const void *const *extra, int n_extra) {
  BurinOptions o = burin_pool_options(r->pool);
  return take_sample(r, sample, n, extra, n_extra, threads_of(&o)) && invoke(r, &o);
}

Tensor *runner_copy_outputs(const Runner *r, int n) {
  Tensor *t = ARENA_ARRAY(r->s->arena, Tensor, n + 1);
  for (int k = 0; k < n; k++) {
    const size_t bytes = (size_t)r->outputs[k].count * (size_t)dtype_bytes(r->outputs[k].dtype);
    t[k] = r->outputs[k];
    t[k].data = arena_dup(r->s->arena, r->outputs[k].data, bytes);
  }
  return t;
}

/* ---- time ---- */
static uint64_t now_ns(void) { return (uint64_t)(clock_seconds() * 1e9); }

bool runner_profile(Runner *r, const Tensor *sample, int n, double *us) {
  enum { FEWEST = 8, MOST = 2000 };
  static const double seconds = 0.3;
  const int kernels = r->lib.model->n_kernels;
  uint64_t *ns = ARENA_ARRAY(r->s->arena, uint64_t, kernels + 1);
  const double start = clock_seconds();
  const BurinOptions all = burin_pool_options(r->pool);
  if (!take_sample(r, sample, n, NULL, 0, threads_of(&all))) return false;
  for (int k = 0; k < kernels; k++) us[k] = INFINITY;
  for (int i = 0; i < MOST && (i < FEWEST || clock_seconds() - start < seconds); i++) {
    BurinOptions o = {.size = sizeof o, .threads = 1, .kernel_ns = ns, .clock_ns = now_ns};
    memset(ns, 0, sizeof *ns * (size_t)kernels);
    if (!invoke(r, &o)) return false;
    for (int k = 0; k < kernels; k++) us[k] = fmin(us[k], (double)ns[k] / 1e3);
  }
  return true;
}
