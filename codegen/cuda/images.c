/* Compiles the units' texts, for every GPU of the target at once, and packs the images. */
#include <string.h>
#include <unistd.h>

#include "codegen/cuda/images.h"
#include "runtime/cuda/gpu.h"

/* ---- packing ---- */
enum { ALIGN = 64 };

static uint64_t align_up(uint64_t v) { return (v + ALIGN - 1) / ALIGN * ALIGN; }

/* Where the image of job i is: equal ones are there once. `end` moves behind a new one. */
static uint64_t place(const NvrtcJob *jobs, const GpuImage *rows, int i, uint64_t *end) {
  for (int k = 0; k < i; k++)
    if (jobs[k].image == jobs[i].image) return rows[k].offset;
  const uint64_t at = *end;
  *end = align_up(at + jobs[i].bytes);
  return at;
}

static int count_units(const int *numbers, int n) {
  int most = 0;
  for (int i = 0; i < n; i++)
    if (numbers[i] >= most) most = numbers[i] + 1;
  return most;
}

const void *images_pack(const NvrtcJob *jobs, const int *numbers, int n, Arena *a, size_t *bytes) {
  const uint64_t head = sizeof(GpuImages) + (uint64_t)n * sizeof(GpuImage);
  uint64_t end = align_up(head);
  GpuImage *const rows = ARENA_ARRAY(a, GpuImage, n + 1);
  for (int i = 0; i < n; i++)
    rows[i] = (GpuImage){numbers[i], jobs[i].sm, place(jobs, rows, i, &end), jobs[i].bytes};
  GpuImages *const all = arena_alloc(a, end);
  *all = (GpuImages){GPU_IMAGES_MAGIC, n, count_units(numbers, n)};
  if (n) memcpy(all->rows, rows, (size_t)n * sizeof *rows);
  for (int i = 0; i < n; i++) memcpy((char *)all + rows[i].offset, jobs[i].image, jobs[i].bytes);
  *bytes = end;
  return all;
}

/* ---- compiling ---- */
static int processes(const Program *p) {
  const int n = p->o->jobs > 0 ? p->o->jobs : (int)sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? n : 1;
}

/* Reports that there is none. */
static const char *no_compiler(const Program *p) {
  Diag *const d = p->m->model->diag;
  diag_error(d, &(Loc){.node = -1, .file = p->m->model->file}, ERR_LINK,
             "target %s needs NVRTC, NVIDIA's compiler library (libnvrtc.so.13 or .12), which was "
             "not found",
             p->t->name);
  diag_hint(d, "%s", nvrtc_advice);
  return "";
}

/* Cubins for all, PTX for the newest: job k of a unit. */
static void fill_jobs(const Program *p, const CudaSource *s, NvrtcJob *jobs, const int *sms,
                      int n) {
  const char *const name = arena_printf(p->arena, "%s_%d.cu", p->name, s->number);
  for (int k = 0; k <= n; k++)
    jobs[k] = (NvrtcJob){.text = s->text, .name = name, .sm = k < n ? sms[k] : -sms[n - 1]};
}

/* Position of the kernel of this name in the text; -1: none. */
static int kernel_named(const Program *p, const char *name) {
  const size_t n = strlen(p->name);
  for (int k = 0; k < p->m->kernels.n; k++) {
    const Kernel *const kernel = p->m->kernels.data[k];
    if (strncmp(name, p->name, n) == 0 && name[n] == '_' && strcmp(name + n + 1, kernel->name) == 0)
      return k;
  }
  return -1;
}

static void add_figures(const Program *p, const NvrtcJob *j) {
  for (int i = 0; i < j->n_kernels; i++) {
    const NvrtcKernel *const k = &j->kernels[i];
    const int at = kernel_named(p, k->name);
    if (at < 0) continue;
    const KernelFigures f = {.name = p->m->kernels.data[at]->name,
                             .sm = j->sm,
                             .registers = k->registers,
                             .shared = k->shared + p->launches[at].shared,
                             .spills = k->spills};
    vec_push(p->m->model->arena, p->figures, f);
  }
}

const char *cuda_gather(const Program *p, const CudaSource *sources, int n, Gathered *out,
                        Unit **at) {
  int sms[GPU_MOST];
  const int n_sms = target_sms(p->t, sms), each = n_sms + 1, total = n_sms ? n * each : 0;
  NvrtcJob *const jobs = ARENA_ARRAY(p->arena, NvrtcJob, total + 1);
  int *const numbers = ARENA_ARRAY(p->arena, int, total + 1);
  if (!n_sms) return NULL; /* of cuda:host */
  for (int i = 0; i < total; i++) numbers[i] = sources[i / each].number;
  for (int i = 0; i < n; i++) fill_jobs(p, &sources[i], &jobs[i * each], sms, n_sms);
  const NvrtcStatus status = nvrtc_compile(jobs, total, processes(p), p->arena);
  if (status == NVRTC_ABSENT) return no_compiler(p);
  if (status == NVRTC_FAILED) (void)retry_all(p, sources, each, jobs, total);
  for (int i = 0; i < total; i++) {
    if (jobs[i].error) return *at = sources[i / each].unit, jobs[i].error;
    add_figures(p, &jobs[i]);
  }
  out->symbol = arena_printf(p->arena, "%s_images", p->name);
  out->data = images_pack(jobs, numbers, total, p->arena, &out->bytes);
  return NULL;
}

/* ---- files ---- */
const char *cuda_write(const Program *p, const CudaSource *all, EmitKind kind, FILE *f) {
  int sms[GPU_MOST];
  if (kind == EMIT_CUDA) return fputs(all->text, f), NULL;
  const int n = target_sms(p->t, sms);
  if (n == 0) return "a CPU that stands in for a GPU has no machine code";
  NvrtcJob j = {.text = all->text,
                .name = arena_printf(p->arena, "%s.cu", p->name),
                .sm = kind == EMIT_PTX ? -sms[n - 1] : sms[0]};
  if (nvrtc_compile(&j, 1, 1, p->arena) == NVRTC_ABSENT) return no_compiler(p);
  if (j.error && !retry_plain(p, all, &j)) return j.error;
  add_figures(p, &j);
  fwrite(j.image, kind == EMIT_PTX ? strlen(j.image) : j.bytes, 1, f);
  return NULL;
}
