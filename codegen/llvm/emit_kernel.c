/* One kernel → one LLVM module: an exported thunk with the runtime's calling convention, and the
 * body behind it with one pointer parameter per buffer, so that LLVM knows what each may alias and
 * how it is aligned. */
#include "codegen/llvm/emit.h"

/* ---- functions ---- */
static void pointer_attrs(Emit *c, Val fn, int i, const KernelFacts *facts) {
  const Param *const p = &c->kernel->params.data[i];
  const unsigned k = (unsigned)i;
  int64_t n;
  if (!facts->alias[i]) param_attr(c, fn, k, "noalias", 0);
  param_attr(c, fn, k, "nocapture", 0);
  param_attr(c, fn, k, "noundef", 0);
  param_attr(c, fn, k, "align", (uint64_t)c->align[i]);
  if (p->access == PA_READ) param_attr(c, fn, k, "readonly", 0);
  if (p->access == PA_WRITE) param_attr(c, fn, k, "writeonly", 0);
  if (expr_is_const(p->count, &n) && n > 0 && n < INT64_MAX / 8)
    param_attr(c, fn, k, "dereferenceable", (uint64_t)(n * dtype_bytes(p->dtype)));
}

/* body(pointers…, used symbols…, begin, end) */
static Val declare_body(Emit *c, const KernelFacts *facts, const bool *used, Type *type) {
  const int n = c->kernel->params.n;
  Type *const t = ARENA_ARRAY(c->arena, Type, n + c->n_syms + 2);
  int k = 0;
  for (; k < n; k++) t[k] = c->ptr;
  for (int i = 0; i < c->n_syms; i++)
    if (used[i]) t[k++] = c->i64;
  t[k++] = c->i64;
  t[k++] = c->i64;
  *type = LLVMFunctionType(LLVMVoidTypeInContext(c->ctx), t, (unsigned)k, 0);
  const Val fn = LLVMAddFunction(
      c->mod, arena_printf(c->arena, "%s_%s.body", c->name, c->kernel->name), *type);
  LLVMSetLinkage(fn, LLVMInternalLinkage);
  fn_target_attrs(c, fn);
  fn_attr(c, fn, "noinline", 0);
  for (int i = 0; i < n; i++) pointer_attrs(c, fn, i, facts);
  return fn;
}

static void emit_body(Emit *c, Val fn, const bool *used) {
  const int n = c->kernel->params.n;
  c->fn = fn;
  c->entry = LLVMAppendBasicBlockInContext(c->ctx, fn, "entry");
  const LLVMBasicBlockRef start = LLVMAppendBasicBlockInContext(c->ctx, fn, "start");
  LLVMPositionBuilderAtEnd(c->b, c->entry);
  LLVMBuildBr(c->b, start);
  LLVMPositionBuilderAtEnd(c->b, start);
  Val *const params = ARENA_ARRAY(c->arena, Val, n);
  unsigned k = 0;
  for (int i = 0; i < n; i++) params[i] = LLVMGetParam(fn, k++);
  c->params = params;
  for (int i = 0; i < c->n_syms; i++) c->syms[i] = used[i] ? LLVMGetParam(fn, k++) : NULL;
  matrix_begin(c);
  if (is_parallel(c->kernel)) {
    const Val begin = LLVMBuildIntCast2(c->b, LLVMGetParam(fn, k), c->idx, 1, "");
    const Val end = LLVMBuildIntCast2(c->b, LLVMGetParam(fn, k + 1), c->idx, 1, "");
    emit_serial(c, c->kernel->body, begin, end);
  } else {
    emit_stmts(c, c->kernel->body);
  }
  matrix_end(c);
  LLVMBuildRetVoid(c->b);
}

static Val load_slot(Emit *c, Type t, Val array, int k) {
  Val index = k_int(c, c->i32, k);
  const Val p = LLVMBuildInBoundsGEP2(c->b, t, array, &index, 1, "");
  return LLVMBuildLoad2(c->b, t, p, "");
}

void emit_begin(Emit *c, Val fn) {
  c->fn = fn;
  c->entry = LLVMAppendBasicBlockInContext(c->ctx, fn, "entry");
  const LLVMBasicBlockRef start = LLVMAppendBasicBlockInContext(c->ctx, fn, "start");
  LLVMPositionBuilderAtEnd(c->b, c->entry);
  LLVMBuildBr(c->b, start);
  LLVMPositionBuilderAtEnd(c->b, start);
  emit_forget(c);
}

/* NAME_k(bufs, syms, begin, end, scratch) */
static void emit_thunk(Emit *c, Val body, Type body_type, const bool *used) {
  const Type t[5] = {c->ptr, c->ptr, c->i64, c->i64, c->ptr};
  const Type type = LLVMFunctionType(LLVMVoidTypeInContext(c->ctx), (Type *)t, 5, 0);
  const Val fn =
      LLVMAddFunction(c->mod, arena_printf(c->arena, "%s_%s", c->name, c->kernel->name), type);
  LLVMSetVisibility(fn, LLVMHiddenVisibility);
  fn_target_attrs(c, fn);
  emit_begin(c, fn);
  Val *const args = ARENA_ARRAY(c->arena, Val, c->kernel->params.n + c->n_syms + 2);
  int k = 0, buf = 0;
  for (int i = 0; i < c->n_syms; i++)
    c->syms[i] = used[i] ? load_slot(c, c->i64, LLVMGetParam(fn, 1), i) : NULL;
  const Expr *offset = NULL;
  for (int i = 0; i < c->kernel->params.n; i++) {
    const Param *const p = &c->kernel->params.data[i];
    if (!p->scratch) {
      args[k++] = load_slot(c, c->ptr, LLVMGetParam(fn, 0), buf++);
      continue;
    }
    Val at = offset ? emit_index(c, offset) : k_int(c, c->idx, 0);
    args[k++] = LLVMBuildGEP2(c->b, c->i8, LLVMGetParam(fn, 4), &at, 1, "");
    const Expr *const bytes = param_bytes64(c->m, p);
    offset = offset ? ex_add(c->pool, offset, bytes) : bytes;
  }
  for (int i = 0; i < c->n_syms; i++)
    if (used[i]) args[k++] = c->syms[i];
  args[k++] = LLVMGetParam(fn, 2);
  args[k++] = LLVMGetParam(fn, 3);
  const bool threads = is_parallel(c->kernel); /* others run in the mode of NAME_invoke */
  const Val mode = threads ? fp_mode_enter(c) : NULL;
  const Val call = LLVMBuildCall2(c->b, body_type, body, args, (unsigned)k, "");
  if (threads)
    fp_mode_leave(c, mode);
  else
    LLVMSetTailCall(call, 1);
  LLVMBuildRetVoid(c->b);
}

const char *emit_kernel(const Program *p, int position, EmitVars *vars, Arena *scratch,
                        KernelIR *out) {
  const Kernel *const k = p->m->kernels.data[position];
  const KernelFacts *const facts = &p->facts[position];
  Emit emit, *const c = &emit;
  emit_init(c, p, k->name, out, scratch);
  c->kernel = k;
  c->align = facts->align;
  c->negates = facts->negates;
  c->n_syms = expr_symbol_count(c->pool);
  c->syms = ARENA_ARRAY(scratch, Val, c->n_syms + 1);
  c->v = vars;
  c->locals = ARENA_ARRAY(scratch, LocalState, k->locals.n + 1);
  c->use = kernel_locals(c->pool, k, true, scratch);
  const bool *const used = kernel_symbols(c->pool, k, scratch);
  Type type;
  const Val body = declare_body(c, facts, used, &type);
  emit_body(c, body, used);
  if (!c->error) emit_thunk(c, body, type, used);
  vars_clear(vars);
  LLVMDisposeBuilder(c->b);
  *out = (KernelIR){c->ctx, c->mod, c->zeros > out->zeros ? c->zeros : out->zeros};
  return c->error;
}
