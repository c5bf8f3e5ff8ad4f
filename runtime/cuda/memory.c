/* A device's memory: weights, and one block for arena and tensors of the border; pinned memory of
 * the host, through which tensors go that lie in ordinary memory. All of it only grows. */
#include "runtime/cuda/device.h"

static bool uploads(const Device *d) { return d->model->weight_bytes && !d->uploaded; }

/* A model that does not fit is told so, before anything of it is there. */
static bool fits(Device *d, uint64_t bytes) {
  size_t free = 0, total = 0;
  const uint64_t all = bytes + (uploads(d) ? d->model->weight_bytes : 0);
  if (!device_check(d, d->cu.memory_info(&free, &total), "asking for free memory")) return false;
  if (all <= free) return true;
  return device_fault(d, "the model needs %u MiB of the GPU's memory, where %u MiB are free",
                      (int64_t)((all + (1 << 20) - 1) >> 20), (int64_t)(free >> 20));
}

static bool allocate(Device *d, CuAddress *p, uint64_t bytes) {
  const CuResult r = d->cu.memory_alloc(p, bytes);
  if (r != CU_OUT_OF_MEMORY) return device_check(d, r, "allocating memory");
  return device_fault(d, "the GPU has no %u MiB of memory in one piece",
                      (int64_t)((bytes + (1 << 20) - 1) >> 20), 0);
}

static bool upload_weights(Device *d) {
  if (!uploads(d)) return true;
  const GpuModel *const m = d->model;
  if (!d->weights && !allocate(d, &d->weights, m->weight_bytes)) return false;
  /* in the order of the run's stream, which later runs follow */
  const CuResult r = d->cu.upload_async(d->weights, m->weights, m->weight_bytes, d->on);
  return d->uploaded = device_check(d, r, "copying the weights");
}

/* Work of earlier runs may still use what is given back. */
static bool settle(Device *d) {
  if (!d->queued) return true;
  d->queued = false;
  return device_check(d, d->cu.event_wait(d->done), "waiting for an earlier run");
}

static bool grow_memory(Device *d, uint64_t bytes) {
  if (bytes > d->memory_bytes) {
    if (!settle(d)) return false;
    graph_drop_all(d); /* which knew the addresses */
    if (d->memory) d->cu.memory_free(d->memory);
    d->memory = 0;
    d->memory_bytes = 0;
    d->sent = false;
    if (!fits(d, bytes) || !allocate(d, &d->memory, bytes)) return false;
    d->memory_bytes = bytes;
  } else if (uploads(d) && !fits(d, 0)) {
    return false;
  }
  return upload_weights(d);
}

/* Where there is none, copies go through the driver's own. */
static void grow_pinned(Device *d, uint64_t bytes) {
  if (bytes <= d->pinned_bytes) return;
  void *p = NULL;
  if (d->pinned) d->cu.host_free(d->pinned);
  const bool have = d->cu.host_alloc(&p, bytes, 0) == 0;
  d->pinned = have ? p : NULL;
  d->pinned_bytes = have ? bytes : 0;
}

bool device_make_room(Device *d, uint64_t arena_bytes, int n) {
  uint64_t at = round_up(arena_bytes, DEVICE_ALIGN),
           pinned = round_up(d->model->note_bytes + 1, DEVICE_ALIGN); /* notes come first */
  for (int i = 0; i < n; i++) {
    Border *const b = &d->border[i];
    if (!b->host && !b->given) continue;
    b->at = pinned;
    if (b->staged) pinned += round_up(b->bytes, HOST_ALIGN);
    b->device = at; /* within the block, until that is known */
    at += round_up(b->bytes, DEVICE_ALIGN);
  }
  if (at < arena_bytes) /* around the end of all numbers */
    return device_fault(d, "these sizes need more memory than there is", 0, 0);
  if (!grow_memory(d, at + DEVICE_ALIGN)) return false;
  grow_pinned(d, pinned);
  for (int i = 0; i < n; i++)
    if (d->border[i].host || d->border[i].given) {
      d->border[i].device += d->memory;
      d->border[i].staged &= d->pinned != NULL;
    }
  return true;
}

bool device_host_room(Device *d, uint64_t bytes) {
  if (bytes <= d->host_bytes) return true;
  if (d->host) sys_free(d->host, d->host_bytes);
  d->host = sys_alloc(bytes);
  d->host_bytes = d->host ? bytes : 0;
  return d->host || device_fault(d, "not enough memory for a function on the host", 0, 0);
}

void device_free_memory(Device *d) {
  if (d->weights) d->cu.memory_free(d->weights);
  if (d->memory) d->cu.memory_free(d->memory);
  if (d->pinned) d->cu.host_free(d->pinned);
}
