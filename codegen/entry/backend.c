/* The backend that makes objects, assembly and LLVM IR through LLVM: one module and context for a
 * unit, optimised and emitted by whichever thread takes it. */
#include <llvm-c/Core.h>
#include <stdlib.h>

#include "codegen/llvm/emit.h"

typedef struct State {
  Program *p;
  EmitVars vars;
  int64_t zeros; /* bytes of NAME_zeros that some kernel reads */
} State;

static void *open_state(Program *p) {
  machine_init();
  State *const s = ARENA_NEW(p->arena, State);
  s->p = p;
  s->vars.arena = p->arena;
  return s;
}

static Unit *new_unit(void *state) {
  LLVMUnit *const u = calloc(1, sizeof *u);
  return u ? &u->unit : NULL;
}

static const char *add_kernel(void *state, Unit *u, int k, Arena *scratch) {
  State *const s = state;
  KernelIR *const ir = &((LLVMUnit *)u)->ir;
  const char *const error = emit_kernel(s->p, k, &s->vars, scratch, ir);
  if (ir->zeros > s->zeros) s->zeros = ir->zeros;
  return error;
}

static const char *make_entry(void *state, Unit *u) {
  const State *const s = state;
  return emit_program(s->p, s->zeros, &((LLVMUnit *)u)->ir, &u->step);
}

static void free_ir(KernelIR *ir) {
  if (ir->mod) LLVMDisposeModule(ir->mod);
  if (ir->ctx) LLVMContextDispose(ir->ctx);
  *ir = (KernelIR){0};
}

static const char *finish(Unit *unit) {
  LLVMUnit *const u = (LLVMUnit *)unit;
  (void)machine_emit(u);
  free_ir(&u->ir);
  if (u->object) {
    unit->object = LLVMGetBufferStart(u->object);
    unit->object_bytes = LLVMGetBufferSize(u->object);
  }
  return u->error;
}

static void drop(Unit *unit) {
  LLVMUnit *const u = (LLVMUnit *)unit;
  free_ir(&u->ir);
  if (u->object) LLVMDisposeMemoryBuffer(u->object);
  if (u->bitcode) LLVMDisposeMemoryBuffer(u->bitcode);
  free(u->error);
  free(u);
}

static const char *write_text(void *state, Unit *const *units, int n, EmitKind kind, FILE *f,
                              Unit **at) {
  const State *const s = state;
  return machine_write(s->p, units, n, kind, f, at);
}

const Backend backend_llvm = {
    .name = "llvm",
    .kinds = EMIT_EXE | EMIT_OBJ | EMIT_STATIC | EMIT_SHARED | EMIT_HEADER | EMIT_ASM | EMIT_LLVM,
    .open = open_state,
    .unit = new_unit,
    .kernel = add_kernel,
    .entry = make_entry,
    .finish = finish,
    .write = write_text,
    .drop = drop,
};
