/* The backend of --emit=c: one file of C99 for a whole program. Units hold no text of their own:
 * kernels and the entry are written one behind the other, by the calling thread. */
#include <stdlib.h>
#include <string.h>

#include "codegen/c/c.h"
#include "codegen/host/header.h"

/* Of weights as arrays: gcc takes 25 to 30 bytes of memory for each byte of them (squeezenet),
 * tcc 2. */
enum { MOST_WEIGHTS = 64 << 20 };

static void *open_program(Program *p) {
  CState *const s = ARENA_NEW(p->arena, CState);
  s->p = p;
  s->kernels.arena = s->entry.arena = p->arena;
  return s;
}

static Unit *new_unit(void *state) {
  (void)state;
  return calloc(1, sizeof(Unit));
}

static const char *add_kernel(void *state, Unit *u, int k, Arena *scratch) {
  CState *const s = state;
  int64_t stack = 0;
  const char *const error = c_kernel(s, s->p->m->kernels.data[k], scratch, &stack);
  if (stack > u->stack) u->stack = stack;
  return error ? arena_printf(s->p->arena, "%s", error) : NULL;
}

static const char *make_entry(void *state, Unit *u) { return c_entry(state, u); }

static const char *finish(Unit *u) {
  (void)u;
  return NULL;
}

static const char *write_file(void *state, Unit *const *units, int n, EmitKind kind, FILE *f,
                              Unit **at) {
  CState *const s = state;
  const Program *const p = s->p;
  (void)kind;
  StrBuf header = {.arena = p->arena};
  header_print(p, units_stack(units, n), &header);
  fprintf(f,
          "/* %s: a compiled model as C99. Made by burin. Needs no library but memcpy, memmove and "
          "memcmp. */\n",
          p->name);
  c_write_scalar(f);
  fprintf(f, "\n/* ==== the header, as in %s.h ==== */\n%s", p->name, sb_str(&header));
  c_write_runtime(f);
  if (s->fmod) c_write_fmod(f);
  if ((units[n - 1]->step = c_write_operators(p, f))) {
    *at = units[n - 1];
    return "a runtime function has no source";
  }
  c_write_weights(p, f);
  fprintf(f, "\n/* ==== kernels ==== */\n%s\n/* ==== entry ==== */\n%s", sb_str(&s->kernels),
          sb_str(&s->entry));
  return NULL;
}

static void drop(Unit *u) { free(u); }

const Backend backend_c = {
    .name = "c",
    .kinds = EMIT_C | EMIT_HEADER,
    .most_weights = MOST_WEIGHTS,
    .lacks = c_lacks,
    .open = open_program,
    .unit = new_unit,
    .kernel = add_kernel,
    .entry = make_entry,
    .finish = finish,
    .write = write_file,
    .drop = drop,
};
