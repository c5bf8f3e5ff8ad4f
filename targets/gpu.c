/* Targets of several GPUs, "cuda:sm_80,sm_90", and of those of this machine, "cuda:native". */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "targets/target.h"

static const char prefix[] = "cuda:";
enum { PREFIX = sizeof prefix - 1 };

bool target_name_is_gpus(const char *name) {
  return strncmp(name, prefix, PREFIX) == 0 &&
         (strchr(name, ',') || strcmp(name, "cuda:native") == 0);
}

int target_sms(const Target *t, int sms[GPU_MOST]) {
  int n = 0;
  if (!t->gpu || t->gpu->sm == 0) return 0;
  for (sms[n++] = t->gpu->sm; n < GPU_MOST && t->gpu->also[n - 1]; n++)
    sms[n] = t->gpu->also[n - 1];
  return n;
}

/* ---- several ---- */
/* The rows of GPUs, as bits by position: a set in the table's order, which is that of compute
 * capabilities. */
typedef uint64_t RowSet;

static int least(int a, int b) { return a < b ? a : b; }
static int64_t least64(int64_t a, int64_t b) { return a < b ? a : b; }

/* What fits both, at the pace of the slower one. */
static void add_limits(Gpu *to, const Gpu *g) {
  to->sms = least(to->sms, g->sms);
  to->clock_mhz = least(to->clock_mhz, g->clock_mhz);
  to->registers = least(to->registers, g->registers);
  to->threads = least(to->threads, g->threads);
  to->blocks = least(to->blocks, g->blocks);
  to->shared_bytes = least64(to->shared_bytes, g->shared_bytes);
  to->block_bytes = least64(to->block_bytes, g->block_bytes);
  to->l2_bytes = least64(to->l2_bytes, g->l2_bytes);
  to->gb_per_second = least(to->gb_per_second, g->gb_per_second);
  to->f32_per_cycle = least(to->f32_per_cycle, g->f32_per_cycle);
  to->f16_per_cycle = least(to->f16_per_cycle, g->f16_per_cycle);
  to->i8_per_cycle = least(to->i8_per_cycle, g->i8_per_cycle);
}

static void merge_rows(RowSet rows, GpuTarget *out) {
  int n = 0;
  size_t used = 0;
  for (int i = 0; i < target_row_count; i++) {
    const Target *const row = &target_rows[i];
    if (!(rows >> i & 1)) continue;
    if (n == 0) out->target = *row, out->gpu = *row->gpu;
    if (n > 0) out->gpu.also[n - 1] = row->gpu->sm;
    add_limits(&out->gpu, row->gpu);
    const char *const text = n++ ? row->name + PREFIX : row->name;
    used +=
        (size_t)snprintf(out->name + used, sizeof out->name - used, "%s%s", used ? "," : "", text);
  }
  out->target.name = out->name;
  out->target.gpu = &out->gpu;
}

/* ---- this machine's ---- */
/* The newest row whose code, or PTX, a GPU of this capability runs; -1: it is older than all. */
static int row_of(int sm) {
  int best = -1;
  for (int i = 0; i < target_row_count; i++) {
    const Gpu *const g = target_rows[i].gpu;
    if (!g || g->sm == 0 || g->sm > sm) continue;
    if (best < 0 || g->sm > target_rows[best].gpu->sm) best = i;
  }
  return best;
}

typedef struct Driver { /* of CUDA; cuDeviceGetAttribute: CUDA driver API */
  int (*init)(unsigned flags);
  int (*count)(int *n);
  int (*device)(int *device, int k);
  int (*attribute)(int *value, int what, int device);
  int (*name)(char *name, int bytes, int device);
} Driver;

static bool load_driver(Driver *d) {
  void *const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  const struct {
    const char *name;
    void *to;
  } table[] = {{"cuInit", &d->init},
               {"cuDeviceGetCount", &d->count},
               {"cuDeviceGet", &d->device},
               {"cuDeviceGetAttribute", &d->attribute},
               {"cuDeviceGetName", &d->name}};
  for (size_t i = 0; library && i < sizeof table / sizeof *table; i++) {
    void *const symbol = dlsym(library, table[i].name);
    if (!symbol) return false;
    memcpy(table[i].to, &symbol, sizeof symbol);
  }
  return library != NULL;
}

/* Compute capability × 10 of the k-th device; 0: it does not say. */
static int capability(const Driver *d, int k) {
  enum { MAJOR = 75, MINOR = 76 }; /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_… */
  int device, major, minor;
  if (d->device(&device, k) != 0 || d->attribute(&major, MAJOR, device) != 0 ||
      d->attribute(&minor, MINOR, device) != 0)
    return 0;
  return major * 10 + minor;
}

static const char *find_devices(Driver *d, int *n) {
  if (!load_driver(d)) return "this machine has no CUDA driver (libcuda.so.1)";
  if (d->init(0) != 0 || d->count(n) != 0 || *n == 0)
    return "CUDA's driver finds no GPU in this machine";
  return NULL;
}

static const char *machine_rows(RowSet *rows) {
  Driver d;
  int n = 0;
  const char *const why = find_devices(&d, &n);
  if (why) return why;
  for (int k = 0; k < n; k++) {
    const int row = row_of(capability(&d, k));
    if (row < 0) return "this machine has a GPU of compute capability below 8.0, which is too old";
    *rows |= (RowSet)1 << row;
  }
  return NULL;
}

/* Machine code is for GPUs of the same major number, PTX of the newest for all that are newer. */
static bool runs_code(int sm, const int *sms, int n) {
  for (int i = 0; i < n; i++)
    if (sms[i] <= sm && (sms[i] / 10 == sm / 10 || i == n - 1)) return true;
  return false;
}

const char *target_gpu_here(const Target *t, GpuHere *out) {
  Driver d;
  int sms[GPU_MOST], device, n = 0;
  *out = (GpuHere){0};
  const char *const why = find_devices(&d, &n);
  if (why) return why;
  out->sm = capability(&d, 0);
  if (d.device(&device, 0) != 0 || d.name(out->name, sizeof out->name, device) != 0)
    return "CUDA's driver does not say which GPU this machine has";
  return runs_code(out->sm, sms, target_sms(t, sms)) ? NULL : "this machine's GPU is another";
}

/* ---- names ---- */
/* A word between commas, with or without "cuda:". */
static const char *add_word(RowSet *rows, const char *word, size_t n) {
  if (n > PREFIX && strncmp(word, prefix, PREFIX) == 0) word += PREFIX, n -= PREFIX;
  for (int i = 0; i < target_row_count; i++) {
    const Target *const row = &target_rows[i];
    if (!row->gpu || strlen(row->name) != PREFIX + n || strncmp(row->name + PREFIX, word, n) != 0)
      continue;
    if (row->gpu->sm == 0) return "stands alone: host is no GPU";
    *rows |= (RowSet)1 << i;
    return NULL;
  }
  return n == strlen("native") && strncmp(word, "native", n) == 0
             ? "stands alone: native are this machine's GPUs"
             : "names an unknown GPU; 'burin --list-targets' lists them";
}

static const char *named_rows(const char *name, RowSet *rows) {
  const char *why = NULL;
  while (!why) {
    const size_t n = strcspn(name, ",");
    why = add_word(rows, name, n);
    if (!name[n]) break;
    name += n + 1;
  }
  return why;
}

const char *target_gpus(const char *name, GpuTarget *out) {
  RowSet rows = 0;
  *out = (GpuTarget){0};
  const char *const why =
      strcmp(name, "cuda:native") == 0 ? machine_rows(&rows) : named_rows(name, &rows);
  if (!why) merge_rows(rows, out);
  return why;
}
