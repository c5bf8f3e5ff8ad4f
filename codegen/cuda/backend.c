/* The backend of CUDA targets: kernels as text, compiled by NVRTC, or for cuda:host by clang; the
 * entry through LLVM's backend, for the host. */
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/cuda.h"
#include "codegen/cuda/images.h"

enum { LINKED = EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED };

typedef struct CudaState {
  CState c;
  void *host; /* state of LLVM's backend */
  int units;
  int *starts; /* of each kernel in its unit's text */
} CudaState;

typedef struct CudaUnit {
  Unit unit;
  int number;
  StrBuf text;
  int head;     /* bytes of it that stand in front of every unit's kernels */
  Unit *host;   /* of the entry: LLVM's */
  char *object; /* malloc'ed */
} CudaUnit;

/* Runtime functions that the device runs; of the others is said so. */
static void find_calls(Program *p) {
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const call = p->calls.data[i];
    if (call->kind != STEP_EXTERN) continue;
    if (!program_call_on_device(p, call))
      diag_warning(p->m->model->diag, call->loc, "%s runs on the host, with copies of its tensors",
                   program_node_list(p->arena, call->loc));
    else if (program_call_position(p, call->ext.row) < 0)
      vec_push(p->arena, &p->device_calls, call->ext.row);
  }
}

static void *open_program(Program *p) {
  CudaState *const s = ARENA_NEW(p->arena, CudaState);
  p->launches = ARENA_ARRAY(p->arena, Launch, p->m->kernels.n + p->calls.n + 1);
  p->has_images = p->t->gpu->sm > 0;
  s->starts = ARENA_ARRAY(p->arena, int, p->m->kernels.n + 1);
  find_calls(p);
  s->c.p = p;
  s->host = backend_llvm.open(p);
  return s;
}

static Unit *new_unit(void *state) {
  CudaState *const s = state;
  CudaUnit *const u = calloc(1, sizeof *u);
  if (!u) return NULL;
  u->number = s->units++;
  u->text.arena = s->c.p->arena;
  return &u->unit;
}

static const char *add_kernel(void *state, Unit *unit, int k, Arena *scratch) {
  CudaState *const s = state;
  CudaUnit *const u = (CudaUnit *)unit;
  Launch *const l = &s->c.p->launches[k];
  if (!u->text.n) {
    cuda_write_head(&u->text);
    u->head = u->text.n;
  }
  s->starts[k] = u->text.n;
  const char *const error = cuda_kernel(&s->c, k, scratch, &u->text, l);
  l->unit = u->number;
  if (s->c.p->t->gpu->sm == 0)
    l->host =
        arena_printf(s->c.p->arena, "%s_%s_block", s->c.p->name, s->c.p->m->kernels.data[k]->name);
  return error ? arena_printf(s->c.p->arena, "%s", error) : NULL;
}

static const char *add_functions(void *state, Unit *unit) {
  CudaState *const s = state;
  CudaUnit *const u = (CudaUnit *)unit;
  cuda_write_head(&u->text);
  u->head = u->text.n;
  return cuda_calls(s->c.p, u->number, &u->text);
}

static const char *make_entry(void *state, Unit *unit) {
  CudaState *const s = state;
  CudaUnit *const u = (CudaUnit *)unit;
  if (!(u->host = backend_llvm.unit(s->host))) return "out of memory";
  const Unit *const from = unit;
  u->host->p = from->p;
  u->host->first = from->first;
  u->host->failed = -1;
  u->host->opt_level = from->opt_level;
  const char *const error = backend_llvm.entry(s->host, u->host);
  unit->step = u->host->step;
  return error;
}

static const char *finish_entry(CudaUnit *u) {
  const char *const error = backend_llvm.finish(u->host);
  u->unit.object = u->host->object;
  u->unit.object_bytes = u->host->object_bytes;
  u->unit.stack = u->host->stack;
  memcpy(u->unit.seconds, u->host->seconds, sizeof u->unit.seconds);
  return error;
}

static const char *finish(Unit *unit) {
  CudaUnit *const u = (CudaUnit *)unit;
  if (u->host) return finish_entry(u);
  if (!(unit->p->o->emit & LINKED) || unit->p->t->gpu->sm > 0) return NULL; /* see gather, write */
  const char *const error = clang_compile(sb_str(&u->text), (size_t)u->text.n, unit->p->o->output,
                                          &u->object, &unit->object_bytes);
  unit->object = u->object;
  return error;
}

/* All but the last unit, which is the entry. */
static const char *gather(void *state, Unit *const *units, int n, Gathered *out, Unit **at) {
  CudaState *const s = state;
  const Program *const p = s->c.p;
  CudaSource *const sources = ARENA_ARRAY(p->arena, CudaSource, n);
  for (int i = 0; i < n - 1; i++) {
    CudaUnit *const u = (CudaUnit *)units[i];
    sources[i] = (CudaSource){sb_str(&u->text), units[i],    u->number,
                              units[i]->first,  units[i]->n, s->starts + units[i]->first};
  }
  return cuda_gather(p, sources, n - 1, out, at);
}

/* The kernels of all units, behind one head. */
static const char *write_file(void *state, Unit *const *units, int n, EmitKind kind, FILE *f,
                              Unit **at) {
  CudaState *const s = state;
  (void)at;
  StrBuf all = {.arena = s->c.p->arena};
  int *const starts = ARENA_ARRAY(s->c.p->arena, int, s->c.p->m->kernels.n + 1);
  cuda_write_head(&all);
  for (int i = 0; i < n - 1; i++) {
    CudaUnit *const u = (CudaUnit *)units[i];
    for (int k = units[i]->first; k < units[i]->first + units[i]->n; k++)
      starts[k] = all.n + s->starts[k] - u->head;
    sb_printf(&all, "%s", sb_str(&u->text) + u->head);
  }
  const CudaSource whole = {.text = sb_str(&all), .n = s->c.p->m->kernels.n, .starts = starts};
  return cuda_write(s->c.p, &whole, kind, f);
}

static void drop(Unit *unit) {
  CudaUnit *const u = (CudaUnit *)unit;
  if (u->host) backend_llvm.drop(u->host);
  free(u->object);
  free(u);
}

const Backend backend_cuda = {
    .name = "cuda",
    .kinds = LINKED | EMIT_HEADER | EMIT_CUDA | EMIT_PTX | EMIT_CUBIN,
    .grids = true,
    .batch = 16,
    .open = open_program,
    .unit = new_unit,
    .kernel = add_kernel,
    .functions = add_functions,
    .entry = make_entry,
    .finish = finish,
    .gather = gather,
    .write = write_file,
    .drop = drop,
};
