/* NAME_invoke and the other functions that are not kernels: NAME_program checks the arguments and
 * runs the steps, straight through; symbols lie in an array on the stack, by id, that kernels get
 * too. */
#include "codegen/entry/entry.h"

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
  if (p->launches) {
    device_steps(e);
    return;
  }
  emit_forget(c);
  e->scratch = at(c, c->i8, e->arena, wide(c, program_arena_bytes(p)));
  e->scratch_stride = wide(c, program_thread_bytes(p));
  emit_program_steps(e, p->m->steps);
}

static void tell_sizes(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  for (int i = p->n_caller; i < p->n_symbols; i++)
    LLVMBuildStore(c->b, load(c, c->i64, at_k(c, c->i64, c->sym_array, p->symbols[i])),
                   at_k(c, c->i64, e->dims, i));
  for (int i = 0; i < p->m->outputs.n; i++)
    if (p->m->buffers.data[p->m->outputs.data[i]].kind == BUF_HEAP)
      LLVMBuildStore(c->b, buffer_address(e, p->m->outputs.data[i]),
                     load(c, c->ptr, at_k(c, c->ptr, e->out, i)));
}

static Val emit_body(Emit *c, const Program *p) {
  const Type type =
      LLVMFunctionType(c->i32, (Type[]){c->ptr, c->ptr, c->ptr, c->ptr, c->ptr}, 5, 0);
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_program", p->name), type, false);
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
  LLVMBuildRet(c->b, k_int(c, c->i32, BURIN_OK));
  c->sym_array = NULL;
  return fn;
}

/* Tiles are only for those whom the system allows them. */
static void ask_for_tiles(Emit *c, const Program *p) {
  if (!program_uses_matrices(p)) return;
  const uint64_t features = program_cpu_features(p);
  Type type;
  const Val fn = declare(c, "burin_rt_cpu_denied", c->i64, 1, (Type[]){c->i64}, &type);
  Val needed = ki64(c, (int64_t)features);
  const Val denied = LLVMBuildCall2(c->b, type, fn, &needed, 1, "");
  fail_unless(c, LLVMBuildICmp(c->b, LLVMIntEQ, denied, ki64(c, 0), ""), BURIN_E_CPU);
}

/* The same, in our floating-point mode. */
static Val emit_invoke(Emit *c, const Program *p) {
  const Val body = emit_body(c, p);
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_invoke", p->name),
                                LLVMGlobalGetValueType(body), false);
  Val args[5];
  LLVMGetParams(fn, args);
  ask_for_tiles(c, p);
  const Val mode = fp_mode_enter(c);
  const Val status = LLVMBuildCall2(c->b, LLVMGlobalGetValueType(body), body, args, 5, "");
  fp_mode_leave(c, mode);
  LLVMBuildRet(c->b, status);
  return fn;
}

/* NAME_run_opts(inputs struct, outputs struct, arena, options): the structs are the pointers, then
 * the symbols. */
static void emit_run(Emit *c, const Program *p, Val invoke, bool with_options) {
  const Type args[4] = {c->ptr, c->ptr, c->ptr, c->ptr};
  const Type type = LLVMFunctionType(c->i32, (Type *)args, with_options ? 4 : 3, 0);
  const Val fn = begin_function(
      c, arena_printf(c->arena, "%s_run%s", p->name, with_options ? "_opts" : ""), type, true);
  const Val in = LLVMGetParam(fn, 0), out = LLVMGetParam(fn, 1);
  Val ok = LLVMBuildICmp(c->b, LLVMIntNE, in, LLVMConstNull(c->ptr), "");
  ok = LLVMBuildAnd(c->b, ok, LLVMBuildICmp(c->b, LLVMIntNE, out, LLVMConstNull(c->ptr), ""), "");
  fail_unless(c, ok, BURIN_E_ARGUMENT);
  const int n_run = p->n_symbols - p->n_caller;
  const Val dims = entry_alloca(c, c->i64, p->n_symbols > 1 ? p->n_symbols : 2, 8);
  const Type in_type =
      LLVMStructTypeInContext(c->ctx,
                              (Type[]){LLVMArrayType2(c->ptr, (uint64_t)p->m->inputs.n),
                                       LLVMArrayType2(c->i64, (uint64_t)p->n_caller)},
                              2, 0);
  const Type out_type =
      LLVMStructTypeInContext(c->ctx,
                              (Type[]){LLVMArrayType2(c->ptr, (uint64_t)p->m->outputs.n),
                                       LLVMArrayType2(c->i64, (uint64_t)n_run)},
                              2, 0);
  for (int i = 0; i < p->n_caller; i++)
    LLVMBuildStore(c->b, load(c, c->i64, at_k(c, c->i64, field(c, in_type, in, 1), i)),
                   at_k(c, c->i64, dims, i));
  const Val opts = with_options ? LLVMGetParam(fn, 3) : LLVMConstNull(c->ptr);
  const Val status = LLVMBuildCall2(c->b, LLVMGlobalGetValueType(invoke), invoke,
                                    (Val[]){in, out, dims, LLVMGetParam(fn, 2), opts}, 5, "");
  if (n_run) {
    const LLVMBasicBlockRef good = new_block(c, "good"), done = new_block(c, "done");
    LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), good,
                    done);
    LLVMPositionBuilderAtEnd(c->b, good);
    for (int i = 0; i < n_run; i++)
      LLVMBuildStore(c->b, load(c, c->i64, at_k(c, c->i64, dims, p->n_caller + i)),
                     at_k(c, c->i64, field(c, out_type, out, 1), i));
    LLVMBuildBr(c->b, done);
    LLVMPositionBuilderAtEnd(c->b, done);
  }
  LLVMBuildRet(c->b, status);
}

/* NAME_cpu_ok(): 1 when this CPU has what the code needs. */
static void emit_cpu_ok(Emit *c, const Program *p) {
  const Type type = LLVMFunctionType(c->i32, NULL, 0, 0);
  const Val self = begin_function(c, arena_printf(c->arena, "%s_cpu_ok", p->name), type, true);
  if (c->arch->baseline_cpu) { /* must run anywhere */
    fn_attr_str(c, self, "target-cpu", c->arch->baseline_cpu);
    fn_attr_str(c, self, "target-features", "");
  }
  Type check_type;
  const Val fn = declare(c, "burin_rt_cpu_missing", c->i64, 1, (Type[]){c->i64}, &check_type);
  Val needed = ki64(c, (int64_t)program_cpu_features(p));
  const Val missing = LLVMBuildCall2(c->b, check_type, fn, &needed, 1, "");
  LLVMBuildRet(c->b, LLVMBuildZExt(c->b, LLVMBuildICmp(c->b, LLVMIntEQ, missing, ki64(c, 0), ""),
                                   c->i32, ""));
}

static void emit_zeros(Emit *c, const Program *p, int64_t zeros) {
  if (!zeros) return;
  const Type t = LLVMArrayType2(c->i8, (uint64_t)zeros);
  const Val g = LLVMAddGlobal(c->mod, t, arena_printf(c->arena, "%s_zeros", p->name));
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
  emit_device_profile(c, p);
  const EntryFns fns = {emit_invoke(c, p), emit_arena_size(c, p), emit_output_dims(c, p)};
  emit_run(c, p, fns.invoke, false);
  emit_run(c, p, fns.invoke, true);
  emit_device_functions(c, p);
  emit_cpu_ok(c, p);
  emit_info(c, p, &fns);
  LLVMDisposeBuilder(c->b);
  *out = (KernelIR){c->ctx, c->mod, 0};
  *at = c->step;
  return c->error;
}
