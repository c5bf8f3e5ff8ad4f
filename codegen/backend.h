/* A backend: how kernels and the entry become code. codegen.c drives every backend through this
 * struct alone. What is known of a program before (symbols, alignment, aliasing, weights) is in
 * codegen/analysis, for all of them.
 *
 *   open → (unit → kernel… or entry → finish)… → gather → objects are linked, texts written → drop…
 *
 * All but finish are called by one thread; finish by any, at the same time on different units. A
 * reason of failure is a text of the unit's, which lives until drop. */
#pragma once
#include "codegen/analysis/program.h"
#include "ir/base/clock.h"

/* Stages of a compilation, for --time-passes. */
typedef enum CodeStage { STAGE_MAKE, STAGE_OPTIMISE, STAGE_EMIT, N_STAGES } CodeStage;

/* Some kernels in a row, or the entry. A backend's own struct begins with this one; it is not in an
 * arena, because threads go on with it when an allocation fails. */
typedef struct Unit {
  const Program *p;
  int first;        /* position of its first kernel; the entry: m->kernels.n */
  int n;            /* kernels; the entry: 0 */
  int failed;       /* the kernel that a failure is about; -1: not known which */
  const Step *step; /* of the entry: the step that a failure is about; NULL: not known which */
  int opt_level;
  const char *object; /* behind finish, where files are linked: an ELF object, or NULL */
  size_t object_bytes;
  int64_t stack; /* frames of its functions together, bytes */
  double seconds[N_STAGES];
} Unit;

typedef struct Backend {
  const char *name;
  unsigned kinds;       /* EmitKind bits: what can be made of its units */
  bool grids;           /* its kernels are grids of blocks, all of them; else none */
  int batch;            /* kernels of a unit; 0: one, or where there are many, 64 */
  int64_t most_weights; /* bytes that its files can hold; 0: any */
  /* A call of a runtime function that the backend has no code of; NULL: there is none */
  const Step *(*lacks)(const Program *p);
  /* State for the units of one program, in its arena; may be NULL. */
  void *(*open)(Program *p);
  /* An empty unit, whose first fields the caller fills in. NULL: out of memory. */
  Unit *(*unit)(void *state);
  /* Adds the k-th kernel of the module. Makes expressions in the module's pool, and whatever it
   * needs for a moment in `scratch`. NULL, or the reason of failure. */
  const char *(*kernel)(void *state, Unit *u, int k, Arena *scratch);
  /* Adds the runtime functions of p->device_calls, where there are some: a unit of its own, behind
   * those of kernels. NULL, or the reason of failure; the function may be NULL. */
  const char *(*functions)(void *state, Unit *u);
  /* Makes the unit the program's entry: what is exported, and the steps. The last unit. */
  const char *(*entry)(void *state, Unit *u);
  /* Nothing is added behind this: makes what the kinds of `p->o->emit` need. NULL, or the reason of
   * failure. */
  const char *(*finish)(Unit *u);
  /* Where files are linked, when all units are finished and no other thread runs: what they make
   * together, in the program's arena; figures of kernels. NULL, or the reason of failure, with `at`
   * as of write; an error may have been reported, then the reason is "". The function may be NULL. */
  const char *(*gather)(void *state, Unit *const *units, int n, Gathered *out, Unit **at);
  /* Writes one text (EMIT_ASM …) of all units, in order. NULL, or the reason of failure ("": it is
   * reported); `at` is then the unit that it is about, where that is known. */
  const char *(*write)(void *state, Unit *const *units, int n, EmitKind kind, FILE *f, Unit **at);
  void (*drop)(Unit *u);
} Backend;

extern const Backend backend_llvm; /* entry/backend.c */
extern const Backend backend_c;    /* c/backend.c */
extern const Backend backend_cuda; /* cuda/backend.c */
/* The backend of the target's row, if it makes all these kinds of files; else NULL. */
const Backend *backend_for(const Target *t, unsigned emit);

/* Of a run on the calling thread, or of a part of it on another: all frames of the entry, which is
 * the last unit, the deepest kernel, and what the runtime's functions need at most. */
static inline int64_t units_stack(Unit *const *units, int n) {
  enum { RUNTIME = 2048, ROUND = 256 };
  int64_t most = 0;
  for (int i = 0; i < n - 1; i++)
    if (units[i]->stack > most) most = units[i]->stack;
  return (units[n - 1]->stack + most + RUNTIME + ROUND - 1) / ROUND * ROUND;
}
