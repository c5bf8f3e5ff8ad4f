/* What NVRTC fails on: it has bugs, and may crash. The kernels of the unit are compiled one by one, so
 * that the message is about the one at fault, and the unit once more in a plainer way: without
 * ldmatrix, which NVRTC 13.0 crashes on in some forms, and with ptxas at -O1. */
#include <string.h>
#include <unistd.h>

#include "codegen/cuda/images.h"

static int processes(const Program *p) {
  const int n = p->o->jobs > 0 ? p->o->jobs : (int)sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? n : 1;
}

/* The k-th kernel behind what stands in front of all. */
static const char *alone(const Program *p, const CudaSource *s, int k) {
  const int from = s->starts[k], to = k + 1 < s->n ? s->starts[k + 1] : (int)strlen(s->text);
  return arena_printf(p->arena, "%.*s%.*s", s->starts[0], s->text, to - from, s->text + from);
}

/* Position in the unit of the first kernel that fails alone; -1: none does. */
static int find_guilty(const Program *p, const CudaSource *s, const NvrtcJob *failed) {
  if (s->n == 1) return 0;
  NvrtcJob *const jobs = ARENA_ARRAY(p->arena, NvrtcJob, s->n);
  for (int k = 0; k < s->n; k++)
    jobs[k] = (NvrtcJob){.text = alone(p, s, k), .name = failed->name, .sm = failed->sm};
  if (nvrtc_compile(jobs, s->n, processes(p), p->arena) != NVRTC_FAILED) return -1;
  for (int k = 0; k < s->n; k++)
    if (jobs[k].error) return k;
  return -1;
}

static void warn(const Program *p, int kernel, const NvrtcJob *failed) {
  const char *const whose =
      kernel < 0 ? "kernels"
                 : arena_printf(p->arena, "kernel %s", p->m->kernels.data[kernel]->name);
  diag_warning(
      p->m->model->diag, kernel < 0 ? NULL : program_kernel_loc(p, kernel),
      "NVRTC fails on %s for sm_%d (%.*s); compiled in a plainer way instead, which may be "
      "slow",
      whose, failed->sm < 0 ? -failed->sm : failed->sm, (int)strcspn(failed->error, "\n"),
      failed->error);
}

bool retry_plain(const Program *p, const CudaSource *s, NvrtcJob *j) {
  if (!j->again) return false;
  const int guilty = find_guilty(p, s, j), kernel = guilty < 0 ? -1 : s->first + guilty;
  NvrtcJob plain = {.text = j->text, .name = j->name, .sm = j->sm, .plain = true};
  if (nvrtc_compile(&plain, 1, 1, p->arena) == NVRTC_DONE) {
    warn(p, kernel, j);
    *j = plain;
    return true;
  }
  if (s->unit)
    s->unit->failed = kernel;
  else if (kernel >= 0)
    j->error = arena_printf(p->arena, "kernel %s: %s", p->m->kernels.data[kernel]->name, j->error);
  if (strcmp(plain.error, j->error) != 0)
    j->error = arena_printf(p->arena, "%s; in a plainer way: %s", j->error, plain.error);
  return false;
}

bool retry_all(const Program *p, const CudaSource *sources, int each, NvrtcJob *jobs, int n) {
  for (int i = 0; i < n; i++) {
    if (!jobs[i].error) continue;
    if (!retry_plain(p, &sources[i / each], &jobs[i])) return false;
    for (int k = i + 1; k < n; k++) /* what was equal */
      if (jobs[k].error && jobs[k].sm == jobs[i].sm && strcmp(jobs[k].text, jobs[i].text) == 0)
        jobs[k] = jobs[i];
  }
  return true;
}
