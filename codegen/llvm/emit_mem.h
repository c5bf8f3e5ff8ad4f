/* Memory as emit_memory.c and emit_local.c see it: a buffer or an array on the stack. */
#pragma once
#include "codegen/llvm/emit.h"

typedef struct Mem {
  Val base;
  DType dtype;
  int align;      /* of base, bytes */
  bool invariant; /* never written while the kernel runs */
} Mem;
Val mem_load(Emit *c, const Mem *m, const Expr *index, const Expr *guard); /* guard may be NULL */
void mem_store(Emit *c, const Mem *m, const Expr *index, Val value);
Val mem_address(Emit *c, const Mem *m, const Expr *index, const Expr *guard, int64_t access);
bool lane_uniform(const Emit *c, const Expr *e); /* the same in all lanes */
