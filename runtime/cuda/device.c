/* Devices: made when a model first runs, or by the host; context, code, streams. */
#include "runtime/cuda/device.h"

/* ---- code ---- */
/* The best image of a unit: machine code of the same major version that is not newer, else PTX. */
static const GpuImage *find_image(const GpuImages *images, int32_t unit, int32_t capability) {
  const GpuImage *code = NULL, *text = NULL;
  for (int32_t i = 0; i < images->n; i++) {
    const GpuImage *const row = &images->rows[i];
    if (row->unit != unit) continue;
    if (row->sm > 0 && row->sm / 10 == capability / 10 && row->sm <= capability &&
        (!code || row->sm > code->sm))
      code = row;
    if (row->sm < 0 && -row->sm <= capability && (!text || row->sm < text->sm)) text = row;
  }
  return code ? code : text;
}

static bool load_modules(Device *d) {
  const GpuImages *const images = d->model->images;
  if (!images || images->magic != GPU_IMAGES_MAGIC)
    return device_fault(d, "this program has no code for GPUs", 0, 0);
  for (int32_t u = 0; u < images->n_units; u++) {
    const GpuImage *const image = find_image(images, u, d->capability);
    if (!image)
      return device_fault(d, "this program has no code for GPUs of compute capability %u.%u",
                          d->capability / 10, d->capability % 10);
    const CuResult r = d->cu.module_load(&d->modules[u], (const char *)images + image->offset);
    if (!device_check(d, r, "the driver refuses the kernels (is it too old for them?)"))
      return false;
  }
  return true;
}

static bool find_functions(Device *d) {
  enum { WITHOUT_ASKING = 48 << 10 };
  const GpuModel *const m = d->model;
  for (int32_t i = 0; i < m->n_kernels; i++) {
    const GpuKernel *const k = &m->kernels[i];
    CuResult r = d->cu.module_function(&d->functions[i], d->modules[k->unit], k->name);
    if (r == 0 && k->shared > WITHOUT_ASKING)
      r = d->cu.function_set(d->functions[i], CU_FUNCTION_MAX_DYNAMIC_SHARED, (int32_t)k->shared);
    if (!device_check(d, r, k->name)) return false;
  }
  return true;
}

/* ---- context ---- */
static bool find_number(Device *d) {
  CuContext current = NULL;
  CuResult r = d->cu.context_current(&current);
  if (r == 0) r = current ? d->cu.context_device(&d->number) : d->cu.device_get(&d->number, 0);
  return device_check(d, r, "choosing a GPU");
}

/* Makes the context current. */
static bool enter_context(Device *d, void *given) {
  d->context = given;
  if (!given) {
    if (!find_number(d)) return false;
    const CuResult r = d->cu.primary_retain(&d->context, d->number);
    if (!device_check(d, r, "the GPU cannot be used")) return false;
    d->retained = true;
  }
  if (!device_check(d, d->cu.context_push(d->context), "entering CUDA's context"))
    return d->context = NULL, false;
  return !given || device_check(d, d->cu.context_device(&d->number), "asking for the GPU");
}

static bool open_context(Device *d, void *given) {
  int32_t major = 0, minor = 0;
  if (!enter_context(d, given)) return false;
  CuResult r = d->cu.device_attribute(&major, CU_CAPABILITY_MAJOR, d->number);
  if (r == 0) r = d->cu.device_attribute(&minor, CU_CAPABILITY_MINOR, d->number);
  d->capability = 10 * major + minor;
  if (!device_check(d, r, "asking for the GPU") || !load_modules(d) || !find_functions(d))
    return false;
  r = d->cu.stream_create(&d->stream, 0); /* behind what the default stream was given before */
  if (r == 0) r = d->cu.stream_create(&d->recorder, CU_STREAM_NON_BLOCKING);
  if (r == 0) r = d->cu.event_create(&d->done, CU_EVENT_NO_TIMING);
  return device_check(d, r, "making a stream");
}

/* What a context holds for us; it is current. */
static void free_objects(Device *d) {
  if (d->queued) d->cu.event_wait(d->done);
  graph_drop_all(d);
  device_free_memory(d);
  for (int i = 0; i < d->timers_made; i++) {
    d->cu.event_destroy(d->timers[i].begin);
    d->cu.event_destroy(d->timers[i].end);
  }
  if (d->done) d->cu.event_destroy(d->done);
  if (d->recorder) d->cu.stream_destroy(d->recorder);
  if (d->stream) d->cu.stream_destroy(d->stream);
  for (int32_t u = 0; d->model->images && u < d->model->images->n_units; u++)
    if (d->modules[u]) d->cu.module_unload(d->modules[u]);
}

/* ---- making and ending ---- */
static int32_t most_arguments(const GpuModel *m) {
  int32_t n = 1;
  for (int32_t i = 0; i < m->n_kernels; i++) {
    const int32_t k = m->kernels[i].n_bufs + m->kernels[i].n_syms;
    if (k > n) n = k;
  }
  return n;
}

static Device *device_block(const GpuModel *m) {
  const size_t units = m->images ? (size_t)m->images->n_units : 0, kernels = (size_t)m->n_kernels;
  const size_t pointers = units + kernels + (size_t)most_arguments(m);
  const size_t bytes = sizeof(Device) + pointers * sizeof(void *);
  Device *const d = sys_alloc(bytes);
  if (!d) return NULL;
  d->bytes = bytes;
  d->model = m;
  d->modules = (CuModule *)(d + 1);
  d->functions = (CuFunction *)(d->modules + units);
  d->args = (void **)(d->functions + kernels);
  return d;
}

static void device_free(Device *d) { /* its context is not current */
  CuContext popped;
  if (d->context && d->cu.context_push(d->context) == 0) {
    free_objects(d);
    d->cu.context_pop(&popped);
  }
  if (d->retained) d->cu.primary_release(d->number);
  if (d->tables) sys_free(d->tables, d->tables_bytes);
  if (d->host) sys_free(d->host, d->host_bytes);
  sys_free(d, d->bytes);
}

/* NULL: *failure says why. */
static Device *device_make(const GpuModel *m, void *context, BurinFailure *failure) {
  static const BurinFailure none = {BURIN_E_DEVICE, -1, {0}};
  Device *const d = device_block(m);
  if (failure) *failure = none;
  if (!d) return NULL;
  CuContext popped;
  const bool opened = driver_open(d), ok = opened && open_context(d, context);
  if (opened && d->context) d->cu.context_pop(&popped);
  if (ok) return d;
  device_report(d, failure);
  device_free(d);
  return NULL;
}

int32_t burin_gpu_create(const GpuModel *m, void *context, BurinFailure *failure, void **device) {
  if (!m || !device) return BURIN_E_ARGUMENT;
  *device = device_make(m, context, failure);
  return *device ? BURIN_OK : BURIN_E_DEVICE;
}

void burin_gpu_destroy(void *device) {
  if (device) device_free(device);
}

void burin_gpu_async_options(BurinOptions *o, void *device, void *stream) {
  *o = (BurinOptions){.size = sizeof *o, .device = device};
  o->stream = stream ? stream : CU_STREAM_LEGACY;
}

/* ---- for a run ---- */
/* The device that a model has of its own. They are the only state outside of what callers hold: a
 * run that names no device must find the weights where the last one left them. */
static Device *own_device(const GpuModel *m, BurinFailure *failure) {
  static struct {
    uint32_t lock;
    Device *first;
  } own;
  sys_lock(&own.lock);
  Device *d = own.first;
  while (d && d->model != m) d = d->next;
  if (!d && (d = device_make(m, NULL, failure)) != NULL) {
    d->next = own.first;
    own.first = d;
  }
  sys_unlock(&own.lock);
  return d;
}

Device *device_take(const GpuModel *m, const BurinOptions *o, int32_t *status) {
  *status = BURIN_E_DEVICE;
  Device *const d = o->device ? o->device : own_device(m, o->failure);
  if (!d) return NULL;
  if (d->model != m) return *status = BURIN_E_ARGUMENT, NULL;
  sys_lock(&d->lock);
  d->fault = (Fault){0};
  if (d->lost)
    device_fault(d, "the GPU was lost in an earlier run: %s", TEXT_VALUE(d->lost), 0);
  else if (device_check(d, d->cu.context_push(d->context), "entering CUDA's context"))
    return d;
  device_report(d, o->failure);
  sys_unlock(&d->lock);
  return NULL;
}

void device_give(Device *d) {
  CuContext popped;
  d->cu.context_pop(&popped);
  sys_unlock(&d->lock);
}
