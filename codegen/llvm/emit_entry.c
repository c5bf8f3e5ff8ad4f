/* NAME_invoke and the other functions that are not kernels: NAME_program checks the arguments and
 * runs the steps, straight through; symbols lie in an array on the stack, by id, that kernels get
 * too. */
#include "codegen/llvm/entry.h"

#define B c->b

static int most_args(const Program *p) {
  int n = 2;
  for (int i = 0; i < p->calls.n; i++) {
    const Step *const s = p->calls.data[i];
    if (s->kind == STEP_KERNEL && s->call.n_args > n) n = s->call.n_args;
  }
  return n;
}

static void run_steps(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  e->assigned = ARENA_ARRAY(c->arena, bool, expr_symbol_count(c->pool) + 1);
  e->bufs = entry_alloca(c, c->ptr, most_args(p), 8);
  emit_forget(c);
  e->scratch = at(c, c->i8, e->arena, wide(c, program_arena_bytes(p)));
  e->scratch_stride = wide(c, program_thread_bytes(p));
  emit_program_steps(e, p->m->steps);
}

static void tell_sizes(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  for (int i = p->n_caller; i < p->n_symbols; i++)
    LLVMBuildStore(B, load(c, c->i64, at_k(c, c->i64, c->sym_array, p->symbols[i])),
                   at_k(c, c->i64, e->dims, i));
}

static V emit_body(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(c->i32, (Ty[]){c->ptr, c->ptr, c->ptr, c->ptr, c->ptr}, 5, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_program", p->name), type, false);
  fn_attr(c, fn, "noinline", 0);
  Entry e = {.c = c,
             .p = p,
             .in = LLVMGetParam(fn, 0),
             .out = LLVMGetParam(fn, 1),
             .dims = LLVMGetParam(fn, 2),
             .arena = LLVMGetParam(fn, 3),
             .opts = LLVMGetParam(fn, 4)};
  const EntryList list = entry_list(p);
  for (int i = 0; i < list.n;) {
    if (list.data[i].kind == EN_STEPS) run_steps(&e);
    if (list.data[i].kind == EN_RESULTS) tell_sizes(&e);
    i += entry_check(&e, &list.data[i]);
  }
  LLVMBuildRet(B, k_int(c, c->i32, BURIN_OK));
  c->sym_array = NULL;
  return fn;
}

/* The same, in our floating-point mode. */
static V emit_invoke(Emit *c, const Program *p) {
  const V body = emit_body(c, p);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_invoke", p->name),
                              LLVMGlobalGetValueType(body), false);
  V args[5];
  LLVMGetParams(fn, args);
  const V mode = fp_mode_enter(c);
  const V status = LLVMBuildCall2(B, LLVMGlobalGetValueType(body), body, args, 5, "");
  fp_mode_leave(c, mode);
  LLVMBuildRet(B, status);
  return fn;
}

/* NAME_run_opts(inputs struct, outputs struct, arena, options): the structs are the pointers, then
 * the symbols. */
static void emit_run(Emit *c, const Program *p, V invoke, bool with_options) {
  const Ty args[4] = {c->ptr, c->ptr, c->ptr, c->ptr};
  const Ty type = LLVMFunctionType(c->i32, (Ty *)args, with_options ? 4 : 3, 0);
  const V fn = begin_function(
      c, arena_printf(c->arena, "%s_run%s", p->name, with_options ? "_opts" : ""), type, true);
  const V in = LLVMGetParam(fn, 0), out = LLVMGetParam(fn, 1);
  V ok = LLVMBuildICmp(B, LLVMIntNE, in, LLVMConstNull(c->ptr), "");
  ok = LLVMBuildAnd(B, ok, LLVMBuildICmp(B, LLVMIntNE, out, LLVMConstNull(c->ptr), ""), "");
  fail_unless(c, ok, BURIN_E_ARGUMENT);
  const int n_run = p->n_symbols - p->n_caller;
  const V dims = entry_alloca(c, c->i64, p->n_symbols > 1 ? p->n_symbols : 2, 8);
  const Ty in_type =
      LLVMStructTypeInContext(c->ctx,
                              (Ty[]){LLVMArrayType2(c->ptr, (uint64_t)p->m->inputs.n),
                                     LLVMArrayType2(c->i64, (uint64_t)p->n_caller)},
                              2, 0);
  const Ty out_type =
      LLVMStructTypeInContext(c->ctx,
                              (Ty[]){LLVMArrayType2(c->ptr, (uint64_t)p->m->outputs.n),
                                     LLVMArrayType2(c->i64, (uint64_t)n_run)},
                              2, 0);
  for (int i = 0; i < p->n_caller; i++)
    LLVMBuildStore(B, load(c, c->i64, at_k(c, c->i64, field(c, in_type, in, 1), i)),
                   at_k(c, c->i64, dims, i));
  const V opts = with_options ? LLVMGetParam(fn, 3) : LLVMConstNull(c->ptr);
  const V status = LLVMBuildCall2(B, LLVMGlobalGetValueType(invoke), invoke,
                                  (V[]){in, out, dims, LLVMGetParam(fn, 2), opts}, 5, "");
  if (n_run) {
    const LLVMBasicBlockRef good = new_block(c, "good"), done = new_block(c, "done");
    LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), good, done);
    LLVMPositionBuilderAtEnd(B, good);
    for (int i = 0; i < n_run; i++)
      LLVMBuildStore(B, load(c, c->i64, at_k(c, c->i64, dims, p->n_caller + i)),
                     at_k(c, c->i64, field(c, out_type, out, 1), i));
    LLVMBuildBr(B, done);
    LLVMPositionBuilderAtEnd(B, done);
  }
  LLVMBuildRet(B, status);
}

/* NAME_cpu_ok(): 1 when this CPU has what the code needs. */
static void emit_cpu_ok(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(c->i32, NULL, 0, 0);
  const V self = begin_function(c, arena_printf(c->arena, "%s_cpu_ok", p->name), type, true);
  if (c->arch->baseline_cpu) { /* must run anywhere */
    fn_attr_str(c, self, "target-cpu", c->arch->baseline_cpu);
    fn_attr_str(c, self, "target-features", "");
  }
  Ty check_type;
  const V fn = declare(c, "burin_rt_cpu_missing", c->i64, 1, (Ty[]){c->i64}, &check_type);
  V needed = ki64(c, (int64_t)p->t->cpu_features);
  const V missing = LLVMBuildCall2(B, check_type, fn, &needed, 1, "");
  LLVMBuildRet(B,
               LLVMBuildZExt(B, LLVMBuildICmp(B, LLVMIntEQ, missing, ki64(c, 0), ""), c->i32, ""));
}

static void emit_zeros(Emit *c, const Program *p, int64_t zeros) {
  if (!zeros) return;
  const Ty t = LLVMArrayType2(c->i8, (uint64_t)zeros);
  const V g = LLVMAddGlobal(c->mod, t, arena_printf(c->arena, "%s_zeros", p->name));
  LLVMSetInitializer(g, LLVMConstNull(t));
  LLVMSetGlobalConstant(g, 1);
  LLVMSetVisibility(g, LLVMHiddenVisibility);
  LLVMSetAlignment(g, 64);
}

const char *emit_program(const Program *p, int64_t zeros, KernelIR *out, const Step **at) {
  Emit emit, *const c = &emit;
  emit_init(c, p, "program", out, p->arena);
  emit_zeros(c, p, zeros);
  emit_defaults(c, p);
  emit_profile_functions(c);
  const EntryFns fns = {emit_invoke(c, p), emit_arena_size(c, p), emit_output_dims(c, p)};
  emit_run(c, p, fns.invoke, false);
  emit_run(c, p, fns.invoke, true);
  emit_cpu_ok(c, p);
  emit_info(c, p, &fns);
  LLVMDisposeBuilder(c->b);
  *out = (KernelIR){c->ctx, c->mod, 0};
  *at = c->step;
  return c->error;
}
