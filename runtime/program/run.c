/* Runs the model: inputs and symbolic sizes, the arena, the run itself, benchmark, comparison,
 * results. */
#include "program.h"

/* Binds the dimensions of input k to its tensor: fixed ones must agree, symbols must agree with
 * each other. */
static bool bind_dims(Program *p, int32_t k) {
  const BurinTensorInfo *info = &p->model->inputs[k];
  const Tensor *t = &p->in[k];
  bool ok = t->rank == info->rank && t->dtype == info->dtype;
  for (int i = 0; ok && i < t->rank; i++) {
    const int64_t d = info->dims[i];
    if (d >= 0) ok = d == t->dims[i];
    if (d >= 0 || d < -(int64_t)p->model->n_symbols) continue;
    int64_t *symbol = &p->dims[-1 - d];
    if (*symbol < 0) *symbol = t->dims[i];
    ok = *symbol == t->dims[i];
  }
  if (ok) return true;
  out_format(&p->err, "%s: error: input %s wants %s, the file has %s[", p->self, info->name,
             info->shape_text, number_type(t->dtype)->name);
  for (int i = 0; i < t->rank; i++) out_format(&p->err, i ? ",%d" : "%d", t->dims[i]);
  out_format(&p->err, "]\n");
  return false;
}

/* Shape of an input that no file gave; unknown symbols become 1. */
static bool default_shape(Program *p, int32_t k) {
  const BurinTensorInfo *info = &p->model->inputs[k];
  Tensor *t = &p->in[k];
  t->dtype = info->dtype;
  t->rank = info->rank;
  for (int i = 0; i < t->rank; i++) {
    const int64_t d = info->dims[i];
    const bool symbol = d < 0 && d >= -(int64_t)p->model->n_symbols;
    if (symbol && p->dims[-1 - d] < 0) p->dims[-1 - d] = 1;
    t->dims[i] = d >= 0 ? d : symbol ? p->dims[-1 - d] : 1;
  }
  return tensor_alloc(p, t, info->name);
}

static bool random_input(Program *p, int32_t k, uint64_t *state) {
  if (!default_shape(p, k)) return false;
  Tensor *t = &p->in[k];
  const NumberType *type = number_type(t->dtype);
  if (is_text(t)) return texts_clear(t), true;
  for (uint64_t i = 0; i < t->count; i++) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    const double unit = (double)(*state >> 40) / 16777216;
    number_store(type, t->data, i, type->kind < NK_FLOAT ? (double)(unit >= 0.5) : unit);
  }
  return true;
}

/* What a training step's state begins with. */
static bool initial_input(Program *p, int32_t k) {
  const void *initial = input_state(p, k)->initial;
  if (!default_shape(p, k)) return false;
  const Tensor *t = &p->in[k];
  if (initial) __builtin_memcpy(t->data, initial, t->count * number_bytes(number_type(t->dtype)));
  return true; /* else memory is zero */
}

/* NAME=1,2,3: a value for every element, or one for all. */
static bool listed_input(Program *p, int32_t k, const char *s) {
  if (!default_shape(p, k)) return false;
  Tensor *t = &p->in[k];
  uint64_t n = 0;
  const NumberType *type = number_type(t->dtype);
  if (is_text(t))
    return texts_listed(t, s) ||
           program_error(p, "input %s takes %u strings", p->model->inputs[k].name, t->count);
  for (; *s && (n < t->count || n == 0); n++) {
    uint64_t spare[2];
    if (!number_parse(type, t->count ? t->data : (char *)spare, n, &s) || (*s && *s != ',')) break;
    s += *s == ',';
  }
  const size_t bytes = number_bytes(type);
  for (const bool one = n == 1; one && n < t->count; n++)
    __builtin_memcpy(t->data + n * bytes, t->data, bytes);
  if (*s || n < t->count)
    return program_error(p, "input %s takes %u values of type %s", p->model->inputs[k].name,
                         t->count, type->name);
  return true;
}

const BurinDefault *input_default(const Program *p, int32_t k) {
  const BurinModel *m = p->model;
  const bool any = m->size > offsetof(BurinModel, defaults) && m->defaults;
  return any && m->defaults[k].data ? &m->defaults[k] : NULL;
}

/* An input that is not given stays NULL; sizes that no other says are those of its default. */
static void bind_default(Program *p, int32_t k) {
  const BurinTensorInfo *info = &p->model->inputs[k];
  const int64_t *own = p->model->defaults[k].dims;
  for (int i = 0; i < info->rank; i++) {
    const int64_t d = info->dims[i];
    if (d < 0 && d >= -(int64_t)p->model->n_symbols && p->dims[-1 - d] < 0)
      p->dims[-1 - d] = own[i];
  }
}

static bool bind_inputs(Program *p) {
  for (int i = 0; i < p->n_inputs; i++) { /* files first: they fix the symbols */
    const Argument *a = &p->inputs[i];
    const bool file = a->value[0] == '@' && !list_info(p, a->index, false);
    if (file && !file_read_tensor(p, a->value + 1, &p->model->inputs[a->index], &p->in[a->index]))
      return false;
    if (file && !bind_dims(p, a->index)) return false;
  }
  for (int i = 0; i < p->n_inputs; i++)
    if (p->inputs[i].value[0] != '@' && !list_info(p, p->inputs[i].index, false) &&
        !listed_input(p, p->inputs[i].index, p->inputs[i].value))
      return false;
  uint64_t state = (uint64_t)p->seed * 0x9e3779b97f4a7c15u | 1;
  bool ok = true;
  for (int32_t k = 0; k < p->model->n_inputs; k++)
    if (!p->in[k].data && input_default(p, k)) bind_default(p, k);
  for (int32_t k = 0; k < p->model->n_inputs; k++) {
    if (p->in[k].data || input_default(p, k)) continue;
    if (list_info(p, k, false))
      ok = list_bind(p, k) && ok;
    else if (input_state(p, k))
      ok = initial_input(p, k) && ok;
    else if (p->bench)
      ok = random_input(p, k, &state) && ok;
    else
      ok = program_error(p, "input %s (%s) is missing: --input %s=@FILE", p->model->inputs[k].name,
                         p->model->inputs[k].shape_text, p->model->inputs[k].name);
  }
  return ok;
}

static bool bind_outputs(Program *p) {
  for (int32_t k = 0; k < p->model->n_outputs; k++) {
    Tensor *t = &p->result[k];
    t->dtype = p->model->outputs[k].dtype;
    t->rank = p->model->outputs[k].rank;
    if (t->rank > MAX_RANK)
      return program_error(p, "output %s has too many dimensions", p->model->outputs[k].name);
    p->model->output_dims(k, p->dims, t->dims, 1);
    for (int d = 0; d < t->rank; d++) /* the model itself refuses sizes that make them negative */
      if (t->dims[d] < 0) t->dims[d] = 0;
    const BurinInPlace *x = in_place(p, k, true);
    if (x && x->axis >= 0) t->dims[x->axis] = x->room;
    if (!tensor_alloc(p, t, p->model->outputs[k].name)) return false;
  }
  return in_place_fill(p);
}

static bool prepare_threads(Program *p) {
  p->options = (BurinOptions){.size = sizeof p->options,
                              .threads = 1,
                              .clock_ns = sys_clock_ns,
                              .failure = &p->failure,
                              .gpu_order = p->gpu_order,
                              .heap = &p->heap};
  p->heap.grow = heap_grow;
  if (p->profile) {
    p->options.kernel_ns =
        sys_alloc(((size_t)p->model->n_kernels + 1) * sizeof *p->options.kernel_ns);
    p->options.kernel_flops =
        sys_alloc(((size_t)p->model->n_kernels + 1) * sizeof *p->options.kernel_flops);
    p->options.kernel_work =
        sys_alloc(((size_t)p->model->n_kernels + 1) * sizeof *p->options.kernel_work);
    if (!p->options.kernel_ns || !p->options.kernel_flops || !p->options.kernel_work)
      return program_error(p, "not enough memory");
  }
  if (p->threads > p->model->max_threads) p->threads = p->model->max_threads;
  if (p->threads <= 1) return true;
  Pool *pool = pool_start((int)p->threads);
  if (!pool) return program_error(p, "not enough memory for %d threads", p->threads);
  p->options.threads = pool_threads(pool);
  p->options.parallel_ranges = pool_parallel_ranges;
  p->options.user = pool;
  return true;
}

/* Weights that lie in a file beside the program are mapped to their place. */
static bool map_weights(Program *p) {
  char path[4096];
  const BurinModel *m = p->model;
  if (!m->weights_file) return true;
  const size_t name = text_length(m->weights_file);
  long n =
      sys_call(NR_readlinkat, SYS_AT_FDCWD, (long)"/proc/self/exe", (long)path, sizeof path, 0, 0);
  while (n > 0 && path[n - 1] != '/') n--;
  if (n <= 0 || (size_t)n + name >= sizeof path)
    return program_error(p, "cannot find %s", m->weights_file);
  __builtin_memcpy(path + n, m->weights_file, name + 1);
  char *kept = sys_alloc(sizeof path);
  if (!kept) return program_error(p, "not enough memory");
  __builtin_memcpy(kept, path, sizeof path);
  p->weights_path = kept;
  const int32_t status = m->map_weights(path);
  if (status == BURIN_E_WEIGHTS)
    return program_error(p, "%s: these are not the weights of this program (size or hash)", path);
  return !status || program_error(p, "cannot open %s", path);
}

/* Why the run failed, in the model's own words. */
static bool run_failed(Program *p, int32_t status) {
  char text[1024] = "";
  if (p->model->size > offsetof(BurinModel, failure_text) && p->model->failure_text)
    p->model->failure_text(p->options.failure, text, sizeof text);
  return program_error(p, "the run failed: %s (status %d)", text, (int64_t)status);
}

/* Asks the model before anything is allocated for sizes that it refuses: a call on pointers
 * that are still NULL. */
static bool sizes_fit(Program *p) {
  const int32_t status = p->model->invoke(p->in_data, p->out_data, p->dims, NULL, &p->options);
  return status != BURIN_E_DIMS || run_failed(p, status);
}

static bool bind_sizes(Program *p) {
  if (!map_weights(p) || !bind_inputs(p)) return false;
  for (int32_t i = 0; i < p->model->n_caller_symbols; i++)
    if (p->dims[i] < 0)
      return program_error(p, "size %s is unknown: --dim %s=N", p->model->symbols[i],
                           p->model->symbols[i]);
  return prepare_threads(p);
}

static bool make_room(Program *p) {
  if (!bind_outputs(p)) return false;
  const uint64_t bytes = p->model->arena_size(p->dims, p->options.threads);
  p->arena = bytes < SIZE_MAX / 2 ? sys_alloc((size_t)bytes + 64) : NULL;
  p->options.arena_bytes = bytes;
  return p->arena || program_error(p, "not enough memory for an arena of %u bytes", bytes);
}

/* Output k has no largest size: a run says where it lies. */
static bool in_heap(const Program *p, int32_t k) {
  return p->model->heap_outputs && p->model->heap_outputs[k];
}

static int32_t call_model(Program *p) {
  for (int32_t k = 0; k < p->model->n_inputs; k++) {
    const BurinInPlace *x = in_place(p, k, false);
    p->in_data[k] = x ? p->result[x->output].data : p->in[k].data;
  }
  for (int32_t k = 0; k < p->model->n_outputs; k++)
    p->out_data[k] = in_heap(p, k) ? (void *)&p->result[k].data : p->result[k].data;
  return p->model->invoke(p->in_data, p->out_data, p->dims, p->arena, &p->options);
}

static bool invoke(Program *p) {
  const int32_t status = call_model(p);
  return !status || run_failed(p, status);
}

/* Random integers may be no indices of this model: then those inputs are 0. */
static bool calm_random_inputs(Program *p) {
  if (call_model(p) != BURIN_E_DATA) return true;
  for (int32_t k = 0; k < p->model->n_inputs; k++) {
    bool given = input_state(p, k) != NULL;
    for (int i = 0; i < p->n_inputs; i++) given = given || p->inputs[i].index == k;
    if (!p->in[k].data || is_text(&p->in[k]) || list_info(p, k, false)) continue;
    const NumberType *type = number_type(p->in[k].dtype);
    for (uint64_t i = 0; !given && type->kind < NK_FLOAT && i < p->in[k].count; i++)
      number_store(type, p->in[k].data, i, 0);
  }
  return in_place_fill(p);
}

static void sort(uint64_t *v, int64_t n) { /* Shell's */
  for (int64_t gap = n / 2; gap > 0; gap /= 2)
    for (int64_t i = gap; i < n; i++) {
      const uint64_t x = v[i];
      int64_t j = i;
      for (; j >= gap && v[j - gap] > x; j -= gap) v[j] = v[j - gap];
      v[j] = x;
    }
}

/* One run; with a profile its times go into `least` where they are smaller. */
static bool timed(Program *p, uint64_t *least) {
  for (int32_t i = 0; least && i < p->model->n_kernels; i++) {
    p->options.kernel_ns[i] = p->options.kernel_flops[i] = 0;
    p->options.kernel_work[i] = (BurinWork){0, 0};
  }
  if (!invoke(p)) return false;
  for (int32_t i = 0; least && i < p->model->n_kernels; i++)
    if (!least[i] || p->options.kernel_ns[i] < least[i]) least[i] = p->options.kernel_ns[i];
  return true;
}

/* n runs, timed: one line. */
static bool bench_runs(Program *p, const char *what, int64_t n, uint64_t *ns, uint64_t *least) {
  uint64_t sum = 0;
  for (int64_t i = 0; i < n; i++) {
    const uint64_t start = sys_clock_ns();
    if (!timed(p, least)) return false;
    ns[i] = sys_clock_ns() - start;
    sum += ns[i];
  }
  sort(ns, n);
  out_format(&p->out,
             "bench%s: %d runs, %d threads: min %g ms, median %g ms, p90 %g ms, mean %g ms\n", what,
             n, (int64_t)p->options.threads, (double)ns[0] / 1e6, (double)ns[n / 2] / 1e6,
             (double)ns[n * 9 / 10] / 1e6, (double)sum / 1e6 / (double)n);
  return true;
}

/* Without what copies of tensors take, and without what a profile does between the kernels. The
 * first two runs record their launches. */
static bool bench_on_device(Program *p, int64_t n, uint64_t *ns) {
  const char *rest;
  const BurinOptions given = p->options;
  if (!text_starts(p->model->target, "cuda:sm_", &rest)) return true;
  p->options.kernel_ns = p->options.kernel_flops = NULL;
  p->options.kernel_work = NULL;
  p->options.gpu_resident = 1;
  const bool ok = invoke(p) && invoke(p) && bench_runs(p, ", tensors on the GPU", n, ns, NULL);
  p->options = given;
  return ok;
}

/* Without a count: as many runs as fit into a second, at least 5. */
static bool bench(Program *p, int64_t *runs) {
  enum { MOST = 1 << 20 };
  if (!calm_random_inputs(p)) return false;
  uint64_t start = sys_clock_ns();
  for (int i = 0; i < 3 && (i == 0 || sys_clock_ns() - start < 200000000); i++)
    if (!invoke(p)) return false;
  start = sys_clock_ns();
  if (!invoke(p)) return false;
  const uint64_t once = sys_clock_ns() - start + 1;
  const int64_t guess = (int64_t)(1000000000 / once);
  int64_t n = p->bench_runs ? p->bench_runs : guess < 5 ? 5 : guess;
  n = n > MOST ? MOST : n;
  uint64_t *ns = sys_alloc((size_t)n * sizeof *ns), *least = NULL;
  if (p->profile) least = sys_alloc(((size_t)p->model->n_kernels + 1) * sizeof *least);
  if (!ns || (p->profile && !least)) return program_error(p, "not enough memory");
  if (!bench_runs(p, "", n, ns, least)) return false;
  for (int32_t i = 0; least && i < p->model->n_kernels; i++) p->options.kernel_ns[i] = least[i];
  *runs = n;
  return bench_on_device(p, n, ns);
}

static bool close_enough(const Program *p, double got, double want) {
  if (got == want || (got != got && want != want)) return true;
  const double gap = got > want ? got - want : want - got, size = want < 0 ? -want : want;
  return gap <= p->atol + p->rtol * size;
}

/* 1: equal, 0: different, -1: the file cannot be read. */
static int compare(Program *p, const Argument *a) {
  const BurinTensorInfo *info = &p->model->outputs[a->index];
  Tensor want = {0}, result;
  if (!result_tensor(p, a, &result)) return 0;
  const Tensor *got = &result;
  const NumberType *type = number_type(got->dtype);
  BurinTensorInfo item = *info; /* a raw file has the result's shape */
  if (list_info(p, a->index, true)) {
    item.dtype = got->dtype;
    item.rank = got->rank;
    item.dims = got->dims;
    info = &item;
  }
  if (!file_read_tensor(p, a->value + (a->value[0] == '@'), info, &want)) return -1;
  bool shape = want.rank == got->rank && want.dtype == got->dtype;
  for (int i = 0; shape && i < got->rank; i++) shape = want.dims[i] == got->dims[i];
  if (!shape)
    return out_format(&p->out, "%s: MISMATCH: another shape or type than expected\n", info->name),
           0;
  if (is_text(got)) return texts_compare(p, info->name, got, &want);
  uint64_t wrong = 0, first = 0;
  double worst = 0;
  for (uint64_t i = 0; i < got->count; i++) {
    const double g = number_load(type, got->data, i), w = number_load(type, want.data, i),
                 gap = g > w ? g - w : w - g;
    if (gap > worst) worst = gap;
    if (close_enough(p, g, w)) continue;
    if (wrong++ == 0) first = i;
  }
  out_format(&p->out, "%s: %s, %u of %u elements differ, largest difference %g\n", info->name,
             wrong ? "MISMATCH" : "ok", wrong, got->count, worst);
  if (wrong)
    out_format(&p->out, "  first: element %u is %g, expected %g\n", first,
               number_load(type, got->data, first), number_load(type, want.data, first));
  return !wrong;
}

static int finish(Program *p) {
  int status = 0;
  if (!outputs_write(p)) return EXIT_OUTPUT;
  for (int i = 0; i < p->n_expected; i++) {
    const int same = compare(p, &p->expected[i]);
    if (same < 0) return EXIT_FILE;
    if (!same) status = EXIT_MISMATCH;
  }
  const bool show = !p->n_outputs && !p->n_expected && !p->bench && !p->quiet;
  for (int32_t k = 0; show && k < p->model->n_outputs; k++) show_result(p, k);
  return status;
}

/* Sizes that the data decided. */
static void take_sizes(Program *p) {
  for (int32_t k = 0; k < p->model->n_outputs; k++) {
    Tensor *t = &p->result[k];
    const BurinInPlace *x = in_place(p, k, true);
    const bool spread = x && x->axis >= 0 && t->dims[x->axis] == x->room; /* not packed yet */
    p->model->output_dims(k, p->dims, t->dims, 0);
    t->count = 1;
    for (int i = 0; i < t->rank; i++) t->count *= (uint64_t)t->dims[i];
    if (spread) in_place_pack(x, t);
  }
}

static bool same_bytes(const Tensor *a, const Tensor *b) {
  const char *x = a->data, *y = b->data;
  const size_t n = a->count * number_bytes(number_type(a->dtype));
  if (a->count != b->count) return false;
  for (size_t i = 0; i < n; i++)
    if (x[i] != y[i]) return false;
  return true;
}

/* A second run on memory full of ones gives the same bits: what a run reads, it wrote before. */
static bool check_memory(Program *p) {
  Tensor *first = sys_alloc(((size_t)p->model->n_outputs + 1) * sizeof *first);
  uint64_t *hashes = sys_alloc(((size_t)p->model->n_outputs + 1) * sizeof *hashes);
  if (!first || !hashes) return program_error(p, "not enough memory");
  if (p->bench && (!in_place_fill(p) || !invoke(p))) return false; /* runs changed them */
  take_sizes(p);
  for (int32_t k = 0; k < p->model->n_outputs; k++) {
    first[k] = p->result[k];
    if (list_info(p, k, true)) hashes[k] = list_hash(&first[k]);
    if (!in_heap(p, k)) continue;
    const uint64_t bytes = first[k].count * number_bytes(number_type(first[k].dtype));
    if (!(first[k].data = sys_alloc((size_t)bytes + 1)))
      return program_error(p, "not enough memory");
    __builtin_memcpy(first[k].data, p->result[k].data, bytes);
  }
  if (!bind_outputs(p)) return false;
  for (int32_t k = 0; k < p->model->n_outputs; k++)
    __builtin_memset(p->result[k].data, 0xFF,
                     p->result[k].count * number_bytes(number_type(p->result[k].dtype)));
  __builtin_memset(p->arena, 0xFF, p->model->arena_size(p->dims, p->options.threads));
  if (!in_place_fill(p)) return false;
  for (BurinHeapBlock *b = p->heap.blocks; b; b = b->next)
    __builtin_memset(b + 1, 0xFF, b->bytes - sizeof *b);
  if (!invoke(p)) return false;
  take_sizes(p);
  for (int32_t k = 0; k < p->model->n_outputs; k++)
    if (list_info(p, k, true) ? list_hash(&p->result[k]) != hashes[k]
                              : !same_bytes(&first[k], &p->result[k]))
      return program_error(p, "output %s depends on what memory held before: a bug of burin",
                           p->model->outputs[k].name);
  return true;
}

int run_model(Program *p) {
  int64_t runs = 1;
  if (!bind_sizes(p)) return EXIT_FILE;
  if (!sizes_fit(p)) return EXIT_MODEL;
  if (!make_room(p)) return EXIT_FILE;
  if (p->labels && !file_read(p, p->labels, &p->label_text)) return EXIT_FILE;
  if (!outputs_open(p)) return EXIT_OUTPUT;
  if (p->bench ? !bench(p, &runs) : !invoke(p))
    return p->failure.status == BURIN_E_DEVICE ? EXIT_DEVICE : EXIT_MODEL;
  if (p->check_memory && !check_memory(p)) return EXIT_MISMATCH;
  take_sizes(p);
  if (p->profile) show_profile(p, runs);
  return finish(p);
}
