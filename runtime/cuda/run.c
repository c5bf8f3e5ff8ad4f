/* A run on CUDA's driver: what the entry calls between its checks and its results. */
#include "runtime/cuda/device.h"
#include "runtime/cuda/fill.h"

static void *as_pointer(CuAddress a) { return (void *)(uintptr_t)a; }
static CuAddress as_address(const void *p) { return (CuAddress)(uintptr_t)p; }

/* ---- what crosses the border ---- */
/* Room for tensors, addresses and keys; their numbers are always the same for one model. */
static bool make_tables(Device *d, const GpuTensor *in, int32_t n_in, int32_t n_out, int32_t n_dims,
                        int32_t n_syms) {
  size_t controls = 0;
  for (int32_t i = 0; i < d->model->n_controls; i++)
    controls += (in[d->model->controls[i]].bytes + 7) / 8;
  const size_t n = (size_t)n_in + (size_t)n_out, words = n + (size_t)n_dims + controls;
  const size_t each = words + (size_t)n_syms;
  if (d->tables && d->n_in == n_in && d->n_out == n_out && d->key_words == (int32_t)words)
    return true;
  graph_drop_all(d);
  if (d->tables) sys_free(d->tables, d->tables_bytes);
  d->tables_bytes =
      n * (sizeof *d->border + sizeof(void *)) + ((GRAPHS + 1) * each + controls) * 8 + 8;
  d->tables = sys_alloc(d->tables_bytes);
  if (!d->tables) return device_fault(d, "not enough memory", 0, 0);
  d->n_in = n_in;
  d->n_out = n_out;
  d->n_syms = n_syms;
  d->key_words = (int32_t)words;
  d->control_words = (int32_t)controls;
  d->border = (Border *)d->tables;
  d->addresses = (void **)(d->border + n);
  d->controls = (int64_t *)(d->addresses + n);
  d->key = d->controls + controls;
  for (int i = 0; i < GRAPHS; i++) {
    int64_t *const key = d->key + (size_t)(i + 1) * each;
    d->graphs[i] = (Graph){.key = key, .syms = key + words};
  }
  return true;
}

/* Ordinary memory, pinned memory, or the device's: the driver knows its own. Asked for several
 * attributes at once it says 0 of memory that it does not know, where one alone is an error. */
static bool describe(Device *d, const GpuTensor *t, Border *b) {
  int32_t type = 0, number = d->number;
  *b = (Border){.bytes = t->bytes};
  if (!t->host) return true;
  const CuAddress a = as_address(t->host);
  const CuResult r = d->cu.pointer_attributes(
      2, (int32_t[]){CU_POINTER_MEMORY_TYPE, CU_POINTER_DEVICE}, (void *[]){&type, &number}, a);
  if (!device_check(d, r, "asking whose memory a tensor is in")) return false;
  if (type == CU_MEMORY_UNKNOWN || type == CU_MEMORY_OF_HOST) {
    b->host = t->host;
    b->staged = type == CU_MEMORY_UNKNOWN && d->waits;
    return true;
  }
  *(a % GPU_TENSOR_ALIGN ? &b->given : &b->device) = a;
  if (number != d->number)
    return device_fault(d, "a tensor is in the memory of GPU %u, and the model on GPU %u", number,
                        d->number);
  return true;
}

/* What an earlier run copied is there as long as the memory is. */
static bool stays(const Device *d) { return d->options->gpu_resident && d->sent; }

/* What decides about launches, as it is sent. */
static void note_controls(Device *d) {
  int64_t *to = d->controls;
  d->controls_known = true;
  for (int32_t i = 0; i < d->control_words; i++) to[i] = 0;
  for (int32_t i = 0; i < d->model->n_controls; i++) {
    const Border *const b = &d->border[d->model->controls[i]];
    d->controls_known &= b->host != NULL;
    if (b->host) __builtin_memcpy(to, b->host, b->bytes);
    to += (b->bytes + 7) / 8;
  }
}

static bool send_inputs(Device *d) {
  if (stays(d)) return true;
  note_controls(d);
  for (int32_t i = 0; i < d->n_in; i++) {
    const Border *const b = &d->border[i];
    const void *from = b->host;
    if (b->given && b->bytes &&
        !device_check(d, d->cu.copy_async(b->device, b->given, b->bytes, d->on),
                      "copying an input"))
      return false;
    if (!from || !b->bytes) continue;
    if (b->staged) from = __builtin_memcpy(d->pinned + b->at, b->host, b->bytes);
    if (!device_check(d, d->cu.upload_async(b->device, from, b->bytes, d->on), "copying an input"))
      return false;
  }
  return d->sent = true;
}

/* Queues that out_bytes[k] of output k go where the caller wants them on the device. */
static bool place_outputs(Device *d, const uint64_t *out_bytes) {
  for (int32_t k = 0; k < d->n_out; k++) {
    const Border *const b = &d->border[d->n_in + k];
    if (b->given && out_bytes[k] &&
        !device_check(d, d->cu.copy_async(b->given, b->device, out_bytes[k], d->on),
                      "copying an output"))
      return false;
  }
  return true;
}

/* The same, on the host. */
static bool fetch_outputs(Device *d, const uint64_t *out_bytes) {
  if (d->options->gpu_resident) return true;
  for (int32_t k = 0; k < d->n_out; k++) {
    const Border *const b = &d->border[d->n_in + k];
    if (!b->host || !out_bytes[k]) continue;
    void *const to = b->staged ? d->pinned + b->at : (void *)(uintptr_t)b->host;
    if (!device_check(d, d->cu.download_async(to, b->device, out_bytes[k], d->on),
                      "copying an output"))
      return false;
  }
  return true;
}

static void deliver_outputs(Device *d, const uint64_t *out_bytes) {
  if (d->options->gpu_resident) return;
  for (int32_t k = 0; k < d->n_out; k++) {
    const Border *const b = &d->border[d->n_in + k];
    if (b->host && b->staged)
      __builtin_memcpy((void *)(uintptr_t)b->host, d->pinned + b->at, out_bytes[k]);
  }
}

/* ---- begin ---- */
static bool describe_all(Device *d, const GpuTensor *in, const GpuTensor *out) {
  for (int32_t i = 0; i < d->n_in; i++)
    if (!describe(d, &in[i], &d->border[i])) return false;
  for (int32_t i = 0; i < d->n_out; i++)
    if (!describe(d, &out[i], &d->border[d->n_in + i])) return false;
  return true;
}

/* Behind the last run that was queued and not waited for, wherever that was. */
static bool follow_queued(Device *d) {
  if (!d->queued) return true;
  return device_check(d, d->cu.stream_wait_event(d->on, d->done, 0), "following an earlier run");
}

static void tell_addresses(Device *d, GpuRun *run) {
  for (int32_t i = 0; i < d->n_in + d->n_out; i++)
    d->addresses[i] = as_pointer(d->border[i].device);
  *run = (GpuRun){.arena = as_pointer(d->memory),
                  .weights = as_pointer(d->weights),
                  .in = d->addresses,
                  .out = d->addresses + d->n_in,
                  .state = d};
}

int32_t burin_gpu_begin(const GpuModel *m, const BurinOptions *o, const GpuTensor *in, int32_t n_in,
                        const GpuTensor *out, int32_t n_out, const int64_t *dims, int32_t n_dims,
                        int64_t *syms, int32_t n_syms, uint64_t arena_bytes, GpuRun *run) {
  static const BurinOptions none = {.size = sizeof none};
  int32_t status;
  if (!o) o = &none;
  Device *const d = device_take(m, o, &status);
  if (!d) return -status;
  d->options = o;
  d->on = o->stream ? (CuStream)o->stream : d->stream;
  d->waits = !o->stream;
  d->syms = syms;
  const bool ready = make_tables(d, in, n_in, n_out, n_dims, n_syms) && describe_all(d, in, out) &&
                     device_make_room(d, arena_bytes, n_in + n_out) && follow_queued(d) &&
                     send_inputs(d);
  if (ready) {
    tell_addresses(d, run);
    const bool replayed = graph_replay(d, dims, n_dims);
    if (!d->fault.text) return replayed ? GPU_REPLAYED : GPU_RUN;
  }
  d->cu.stream_wait(d->on); /* copies from pinned memory may be on their way */
  device_report(d, o->failure);
  device_give(d);
  return -BURIN_E_DEVICE;
}

/* ---- profile ---- */
static bool read_timers(Device *d) {
  for (int i = 0; i < d->n_timers; i++) {
    const Timer *const t = &d->timers[i];
    float ms = 0;
    CuResult r = d->cu.event_wait(t->end);
    if (r == 0) r = d->cu.event_elapsed(&ms, t->begin, t->end);
    if (!device_check(d, r, "measuring a kernel")) return false;
    d->options->kernel_ns[t->step] += (uint64_t)(ms * 1e6f);
  }
  d->n_timers = 0;
  return true;
}

/* A pair of events; NULL: failed. */
static Timer *next_timer(Device *d, int32_t step) {
  if (d->n_timers == TIMERS && !read_timers(d)) return NULL;
  Timer *const t = &d->timers[d->n_timers];
  if (d->n_timers == d->timers_made) {
    CuResult r = d->cu.event_create(&t->begin, 0);
    if (!device_check(d, r, "making an event")) return NULL;
    r = d->cu.event_create(&t->end, 0);
    if (r) d->cu.event_destroy(t->begin);
    if (!device_check(d, r, "making an event")) return NULL;
    d->timers_made++;
  }
  t->step = step;
  d->n_timers++;
  return t;
}

/* ---- steps ---- */
static int32_t outcome(const Device *d) { return d->fault.text ? BURIN_E_DEVICE : BURIN_OK; }

static CuResult launch_on(Device *d, const GpuKernel *k, CuFunction f, const int64_t grid[3],
                          CuStream s) {
  return d->cu.launch(f, (uint32_t)grid[0], (uint32_t)grid[1], (uint32_t)grid[2],
                      (uint32_t)k->threads[0], (uint32_t)k->threads[1], (uint32_t)k->threads[2],
                      k->shared, s, d->args, NULL);
}

/* As CUDA wants them: addresses of the parameters' values. */
static void fill_arguments(Device *d, const GpuKernel *k, void *const *bufs, const int64_t *syms) {
  for (int32_t i = 0; i < k->n_bufs; i++) d->args[i] = (void *)(uintptr_t)&bufs[i];
  for (int32_t i = 0; i < k->n_syms; i++)
    d->args[k->n_bufs + i] = (void *)(uintptr_t)&syms[k->syms[i]];
}

static bool grid_fits(Device *d, const GpuKernel *k, const int64_t grid[3]) {
  enum { MOST_X = 0x7fffffff, MOST = 65535 };
  if (grid[0] <= MOST_X && grid[1] <= MOST && grid[2] <= MOST) return true;
  return device_fault(d, "kernel %s has more blocks than a GPU takes", TEXT_VALUE(k->name), 0);
}

static bool launch_timed(Device *d, int32_t step, const GpuKernel *k, CuFunction f,
                         const int64_t grid[3]) {
  Timer *const t = d->options->kernel_ns ? next_timer(d, step) : NULL;
  if (d->options->kernel_ns && !t) return false;
  CuResult r = t ? d->cu.event_record(t->begin, d->on) : 0;
  if (r == 0) r = launch_on(d, k, f, grid, d->on);
  if (r == 0 && t) r = d->cu.event_record(t->end, d->on);
  return device_check(d, r, k->name);
}

int32_t burin_gpu_launch(GpuRun *run, int32_t step, int32_t kernel, void *const *bufs,
                         const int64_t *syms, int64_t x, int64_t y, int64_t z) {
  Device *const d = run->state;
  const GpuKernel *const k = &d->model->kernels[kernel];
  const CuFunction f = d->functions[kernel];
  const int64_t grid[3] = {x, y, z};
  if (x <= 0 || y <= 0 || z <= 0) return BURIN_OK;
  fill_arguments(d, k, bufs, syms);
  if (grid_fits(d, k, grid) && launch_timed(d, step, k, f, grid) && graph_records(d) &&
      launch_on(d, k, f, grid, d->recorder) != 0)
    d->recording->refused = true;
  return outcome(d);
}

int32_t burin_gpu_copy(GpuRun *run, void *to, const void *from, uint64_t bytes) {
  Device *const d = run->state;
  if (!bytes || to == from) return BURIN_OK;
  const CuAddress t = as_address(to), f = as_address(from);
  if (device_check(d, d->cu.copy_async(t, f, bytes, d->on), "copying on the GPU") &&
      graph_records(d) && d->cu.copy_async(t, f, bytes, d->recorder) != 0)
    d->recording->refused = true;
  return outcome(d);
}

/* Waits. What fails now is a kernel that ran, one of those since the last wait. */
static bool wait_here(Device *d) {
  return device_check(d, d->cu.stream_wait(d->on), "a kernel of the model failed");
}

static bool fetch(Device *d, void *to, const void *from, uint64_t bytes) {
  return device_check(d, d->cu.download_async(to, as_address(from), bytes, d->on),
                      "copying from the GPU");
}

int32_t burin_gpu_read(GpuRun *run, void *to, const void *from, uint64_t bytes) {
  Device *const d = run->state;
  if (fetch(d, to, from, bytes)) wait_here(d);
  return outcome(d);
}

/* ---- functions on the host ---- */
/* Gives a tensor its place on the host; returns the offset behind it. */
static uint64_t place(Device *d, RtTensor *t, uint64_t at, uint64_t bytes) {
  if (t->data) t->data = d->host + at;
  return at + round_up(bytes, HOST_ALIGN);
}

static bool call_on_host(Device *d, RtOpFn fn, const RtTensor *in, int32_t n_in, RtTensor *out,
                         int32_t n_out, const int64_t *words, const uint64_t *bytes,
                         void *heap, int32_t *status) {
  RtTensor own_in[n_in + 1], own_out[n_out + 1];
  uint64_t at = 0;
  for (int32_t i = 0; i < n_in; i++) {
    own_in[i] = in[i];
    at = place(d, &own_in[i], at, bytes[i]);
    if (in[i].data && bytes[i] && !fetch(d, own_in[i].data, in[i].data, bytes[i])) return false;
  }
  for (int32_t i = 0; i < n_out; i++) {
    own_out[i] = out[i];
    at = place(d, &own_out[i], at, bytes[n_in + i]);
  }
  if (!wait_here(d)) return false;
  *status = fn(own_in, n_in, own_out, n_out, words, heap ? heap : d->host + at);
  for (int32_t i = 0; i < n_out && !*status; i++)
    if (out[i].data && bytes[n_in + i] &&
        !device_check(
            d, d->cu.upload_async(as_address(out[i].data), own_out[i].data, bytes[n_in + i], d->on),
            "copying a result"))
      return false;
  return wait_here(d); /* the next call uses the memory again */
}

int32_t burin_gpu_call(GpuRun *run, int32_t step, RtOpFn fn, const RtTensor *in, int32_t n_in,
                       RtTensor *out, int32_t n_out, const int64_t *words, const uint64_t *bytes,
                       uint64_t scratch_bytes, void *heap) {
  Device *const d = run->state;
  const BurinOptions *const o = d->options;
  const bool timed = o->kernel_ns && o->clock_ns;
  const uint64_t start = timed ? o->clock_ns() : 0;
  uint64_t room = scratch_bytes + HOST_ALIGN;
  int32_t status = BURIN_OK;
  for (int32_t i = 0; i < n_in + n_out; i++) room += round_up(bytes[i], HOST_ALIGN);
  if (!device_host_room(d, room) ||
      !call_on_host(d, fn, in, n_in, out, n_out, words, bytes, heap, &status))
    return BURIN_E_DEVICE;
  if (timed) o->kernel_ns[step] += o->clock_ns() - start;
  return status;
}

/* ---- functions on the device ---- */
static bool launch_phases(Device *d, int32_t step, const GpuCall *g, RtCall *c) {
  const GpuKernel *const k = &d->model->kernels[g->kernel];
  const CuFunction f = d->functions[g->kernel];
  const int64_t grid[3] = {g->phases ? g->members / RT_BLOCK : 1, 1, 1};
  const int32_t last = g->phases ? g->phases - 1 : 0;
  for (c->phase = 0; c->phase <= last; c->phase++) {
    c->last = c->phase == last;
    d->args[0] = c;
    if (!launch_timed(d, step, k, f, grid)) return false;
    if (graph_records(d) && launch_on(d, k, f, grid, d->recorder) != 0)
      d->recording->refused = true;
  }
  return true;
}

int32_t burin_gpu_device_call(GpuRun *run, int32_t step, const GpuCall *call) {
  Device *const d = run->state;
  RtCall c = fill_call(call);
  int64_t result[1 + RT_CALL_DIMS];
  if (!launch_phases(d, step, call, &c)) return BURIN_E_DEVICE;
  if (!call->waits) return BURIN_OK;
  if (!fetch(d, result, call->result, (uint64_t)result_words(&c) * 8) || !wait_here(d))
    return BURIN_E_DEVICE;
  return take_result(call, &c, result);
}

/* ---- end ---- */
/* Notes come through pinned memory, at its beginning. */
static bool fetch_notes(Device *d, const GpuNote *notes, int32_t n) {
  char *to = d->pinned;
  for (int32_t i = 0; i < n; i++) {
    if (!fetch(d, to ? to : notes[i].to, notes[i].from, notes[i].bytes)) return false;
    if (to) to += notes[i].bytes;
  }
  return true;
}

static void deliver_notes(const Device *d, const GpuNote *notes, int32_t n) {
  const char *from = d->pinned;
  for (int32_t i = 0; from && i < n; from += notes[i++].bytes)
    __builtin_memcpy(notes[i].to, from, notes[i].bytes);
}

/* Outputs are where they belong, or (of a run that does not wait) will be; `notes` are there in any
 * case. */
static bool finish(Device *d, const uint64_t *out_bytes, const GpuNote *notes, int32_t n) {
  if (!place_outputs(d, out_bytes) || !fetch_outputs(d, out_bytes) || !fetch_notes(d, notes, n) ||
      (d->n_timers && !read_timers(d)))
    return false;
  if (!d->waits) {
    d->queued = device_check(d, d->cu.event_record(d->done, d->on), "noting the end of a run");
    if (!d->queued || (d->model->note_bytes && !wait_here(d))) return false;
    deliver_notes(d, notes, n);
    return true;
  }
  if (!wait_here(d)) return false;
  d->queued = false; /* it came before */
  deliver_outputs(d, out_bytes);
  deliver_notes(d, notes, n);
  return true;
}

int32_t burin_gpu_end(GpuRun *run, int32_t status, const uint64_t *out_bytes, const GpuNote *notes,
                      int32_t n_notes) {
  Device *const d = run->state;
  graph_finish(d, status == BURIN_OK);
  if (status || !finish(d, out_bytes, notes, n_notes)) {
    d->cu.stream_wait(d->on); /* nothing of it may go on in memory of ours and the caller's */
    if (d->fault.text) {
      device_report(d, d->options->failure);
      status = BURIN_E_DEVICE;
    }
  }
  d->n_timers = 0;
  device_give(d);
  return status;
}
