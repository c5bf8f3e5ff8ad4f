/* Steps whose kernels a device runs (runtime/cuda/gpu.h): the entry launches them, copies on the
 * device, and reads what it must know. All addresses between begin and end are the device's. */
#include "codegen/entry/entry.h"
#include "runtime/cuda/gpu.h"

/* Types are written here a second time, field by field. */
_Static_assert(sizeof(GpuKernel) == 56, "kernel_rows: GpuKernel has other fields");
_Static_assert(sizeof(GpuModel) == 64, "description: GpuModel has other fields");
_Static_assert(sizeof(GpuCall) == 72, "call_type: GpuCall has other fields");
_Static_assert(sizeof(GpuNote) == 24, "note_type: GpuNote has other fields");
_Static_assert(sizeof(GpuTensor) == 16, "tensor_array: GpuTensor has other fields");
_Static_assert(sizeof(GpuRun) == 40, "run_type: GpuRun has other fields");
_Static_assert(GPU_TENSOR_ALIGN == GPU_BORDER_ALIGN, "kernels take tensors for aligned otherwise");

static Type run_type(Emit *c) {
  return LLVMStructTypeInContext(c->ctx, (Type[]){c->ptr, c->ptr, c->ptr, c->ptr, c->ptr}, 5, 0);
}

Val device_weights(Entry *e) {
  return load(e->c, e->c->ptr, field(e->c, run_type(e->c), e->run, 1));
}

/* ---- the description: NAME_gpu ---- */
static Val host_function(Emit *c, const char *name) {
  Type type;
  if (!name) return LLVMConstNull(c->ptr);
  return declare(c, name, LLVMVoidTypeInContext(c->ctx), 3, (Type[]){c->ptr, c->ptr, c->ptr},
                 &type);
}

static int buffer_params(const Kernel *k) {
  int n = 0;
  for (int i = 0; i < k->params.n; i++) n += !k->params.data[i].scratch;
  return n;
}

/* Of the k-th runtime function: its one parameter is an RtCall. */
static Val call_row(Emit *c, const Program *p, int k) {
  const Launch *const l = &p->launches[p->m->kernels.n + k];
  Val threads[3];
  for (int d = 0; d < 3; d++) threads[d] = ki32(c, l->threads[d]);
  const char *const symbol = p->device_calls.data[k]->symbol;
  Val f[8] = {const_text(c, arena_printf(c->arena, "%s_%s", p->name, symbol)),
              ki32(c, l->unit),
              LLVMConstArray2(c->i32, threads, 3),
              ki32(c, 0),
              ki32(c, 0),
              ki32(c, 0),
              LLVMConstNull(c->ptr),
              host_function(c, l->host)};
  return LLVMConstStructInContext(c->ctx, f, 8, 0);
}

static Val kernel_rows(Emit *c, const Program *p) {
  const int n = p->m->kernels.n, all = n + p->device_calls.n;
  Val *const rows = ARENA_ARRAY(c->arena, Val, all + 1);
  for (int i = 0; i < n; i++) {
    const Kernel *const k = p->m->kernels.data[i];
    const Launch *const l = &p->launches[i];
    Val *const syms = ARENA_ARRAY(c->arena, Val, l->n_syms + 1);
    for (int s = 0; s < l->n_syms; s++) syms[s] = ki32(c, l->syms[s]);
    Val threads[3];
    for (int d = 0; d < 3; d++) threads[d] = ki32(c, l->threads[d]);
    Val f[8] = {const_text(c, arena_printf(c->arena, "%s_%s", p->name, k->name)),
                ki32(c, l->unit),
                LLVMConstArray2(c->i32, threads, 3),
                ki32(c, l->shared),
                ki32(c, buffer_params(k)),
                ki32(c, l->n_syms),
                const_array(c, c->i32, syms, l->n_syms),
                host_function(c, l->host)};
    rows[i] = LLVMConstStructInContext(c->ctx, f, 8, 0);
  }
  for (int i = n; i < all; i++) rows[i] = call_row(c, p, i - n);
  return all ? const_array(c, LLVMTypeOf(rows[0]), rows, all) : LLVMConstNull(c->ptr);
}

static Val image_address(Emit *c, const Program *p) {
  if (!p->has_images) return LLVMConstNull(c->ptr);
  return hidden_bytes(c, arena_printf(c->arena, "%s_images", p->name));
}

/* The buffer that late checks read; -1: there are none. */
static int notes_buffer(const Program *p) {
  const Step *const late = program_late_checks(p);
  return late ? late->sym.src.buffer : -1;
}

static int64_t note_bytes(const Program *p) {
  int64_t n = 0;
  const int notes = notes_buffer(p);
  if (notes >= 0) expr_is_const(p->m->buffers.data[notes].count, &n);
  return n * dtype_bytes(DT_I64);
}

/* GpuModel */
static Val description(Emit *c, const Program *p) {
  Replay replay;
  const bool replayable = program_replay(p, &replay);
  Val *const controls = ARENA_ARRAY(c->arena, Val, replay.n + 1);
  if (!replayable) replay.n = 0;
  for (int i = 0; i < replay.n; i++) controls[i] = ki32(c, replay.controls[i]);
  Val f[10] = {ki32(c, (int64_t)sizeof(GpuModel)),
               ki32(c, p->m->kernels.n + p->device_calls.n),
               kernel_rows(c, p),
               image_address(c, p),
               weights_pointer(c, p),
               ki64(c, p->weights.bytes),
               ki32(c, replayable),
               ki32(c, replay.n),
               const_array(c, c->i32, controls, replay.n),
               ki64(c, note_bytes(p) + 8 * program_result_words(p, true))};
  const Val init = LLVMConstStructInContext(c->ctx, f, 10, 0);
  const Val g = LLVMAddGlobal(c->mod, LLVMTypeOf(init), arena_printf(c->arena, "%s_gpu", p->name));
  LLVMSetInitializer(g, init);
  LLVMSetGlobalConstant(g, 1);
  if (p->has_images) LLVMSetVisibility(g, LLVMHiddenVisibility); /* else tests want it */
  return g;
}

/* ---- calls of the device ---- */
static Val call(Emit *c, const char *name, int n, Val *args) {
  Type types[16], type;
  for (int i = 0; i < n; i++) types[i] = LLVMTypeOf(args[i]);
  const Val fn = declare(c, name, c->i32, n, types, &type);
  return LLVMBuildCall2(c->b, type, fn, args, (unsigned)n, "");
}

void device_launch(Entry *e, const Step *s, int position) {
  Emit *const c = e->c;
  const Kernel *const k = s->call.kernel;
  const Stmt *nest[MAX_NEST];
  if (!kernel_is_grid(k)) {
    c->error = "a kernel without blocks, which a GPU cannot run (pass make_grids)";
    return;
  }
  const int n = stmt_nest(k->body, nest), kernel = program_kernel_position(e->p, k);
  Val extent[MAX_NEST];
  for (int i = 0; i < MAX_NEST; i++) /* the innermost loop counts x */
    extent[i] =
        i < n ? wide(c, expr_var_extent(c->pool, nest[n - 1 - i]->loop.var->id)) : ki64(c, 1);
  Val args[] = {e->run,       ki32(c, position), ki32(c, kernel), e->bufs,
                c->sym_array, extent[0],         extent[1],       extent[2]};
  pass_on_failure(c, call(c, "burin_gpu_launch", 8, args));
}

/* ---- profile: what launches have to do ---- */
static void add_to(Emit *c, Val slot, Val v) {
  LLVMBuildStore(c->b, LLVMBuildAdd(c->b, load(c, c->i64, slot), v, ""), slot);
}

/* void profile_work(opts, k, flops, bytes, limit_ps) */
void emit_device_profile(Emit *c, const Program *p) {
  enum { WORK = 14 }; /* field of the options */
  if (!p->launches) return;
  const Type type = LLVMFunctionType(LLVMVoidTypeInContext(c->ctx),
                                     (Type[]){c->ptr, c->i64, c->i64, c->i64, c->i64}, 5, 0);
  const Val fn = begin_function(c, "profile_work", type, false);
  LLVMSetVisibility(fn, LLVMDefaultVisibility);
  LLVMSetLinkage(fn, LLVMInternalLinkage);
  fn_attr(c, fn, "noinline", 0);
  const Val opts = LLVMGetParam(fn, 0), k = LLVMGetParam(fn, 1);
  note_flops(c, opts, k, LLVMGetParam(fn, 2));
  const LLVMBasicBlockRef on = new_block(c, ""), off = new_block(c, "");
  const Val sums = load(c, c->ptr, field(c, options_type(c), opts, WORK));
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntNE, sums, LLVMConstNull(c->ptr), ""), on, off);
  LLVMPositionBuilderAtEnd(c->b, on);
  const Val first = LLVMBuildMul(c->b, k, ki64(c, 2), "");
  add_to(c, at(c, c->i64, sums, first), LLVMGetParam(fn, 3));
  add_to(c, at(c, c->i64, sums, LLVMBuildAdd(c->b, first, ki64(c, 1), "")), LLVMGetParam(fn, 4));
  LLVMBuildBr(c->b, off);
  LLVMPositionBuilderAtEnd(c->b, off);
  LLVMBuildRetVoid(c->b);
}

void device_note_work(Entry *e, const Step *s, int position) {
  Emit *const c = e->c;
  const Kernel *const k = s->call.kernel;
  const Val fn = LLVMGetNamedFunction(c->mod, "profile_work");
  Val args[] = {e->opts, ki64(c, position), k->flops ? wide(c, k->flops) : ki64(c, 0),
                wide(c, kernel_bytes(e->p->m, k)),
                wide(c, kernel_limit_ps(e->p->m, k, e->p->t->gpu))};
  LLVMBuildCall2(c->b, LLVMGlobalGetValueType(fn), fn, args, 5, "");
}

void device_copy(Entry *e, Val to, Val from, Val bytes) {
  Val args[] = {e->run, to, from, bytes};
  pass_on_failure(e->c, call(e->c, "burin_gpu_copy", 4, args));
}

Val device_read(Entry *e, Val from, int bytes) {
  Emit *const c = e->c;
  const Val to = entry_alloca(c, c->i64, 1, 8);
  Val args[] = {e->run, to, from, ki64(c, bytes)};
  pass_on_failure(c, call(c, "burin_gpu_read", 4, args));
  return to;
}

Val device_call(Entry *e, const Step *s, int position, Val fn, Val ins, Val outs, Val words) {
  Emit *const c = e->c;
  const int n_in = s->ext.n_ins, n_out = s->ext.n_outs;
  const Val bytes = entry_alloca(c, c->i64, n_in + n_out > 1 ? n_in + n_out : 2, 8);
  for (int i = 0; i < n_in + n_out; i++) {
    const TensorRef *const r = i < n_in ? &s->ext.ins[i] : &s->ext.outs[i - n_in];
    const Expr *count = ex_i64(c->pool, r->buf.buffer < 0 ? 0 : dtype_bytes(r->dtype));
    for (int d = 0; d < r->rank; d++) count = ex_mul(c->pool, count, r->dims[d]);
    LLVMBuildStore(c->b, wide(c, count), at_k(c, c->i64, bytes, i));
  }
  Val scratch = ki64(c, 0);
  if (s->ext.scratch >= 0) {
    const Buffer *const b = &e->p->m->buffers.data[s->ext.scratch];
    scratch = LLVMBuildMul(c->b, wide(c, b->count), ki64(c, dtype_bytes(b->dtype)), "");
  }
  Val args[] = {e->run, ki32(c, position), fn,    ins,   ki32(c, n_in),
                outs,   ki32(c, n_out),    words, bytes, scratch,
                s->ext.row->heap ? options_heap(e) : LLVMConstNull(c->ptr)};
  return call(c, "burin_gpu_call", 11, args);
}

/* ---- runtime functions on the device ---- */
/* Results lie behind the arena. */
static Val result_address(Entry *e, int64_t word) {
  Emit *const c = e->c;
  return at_k(c, c->i64, at(c, c->i8, e->arena, wide(c, program_arena_bytes(e->p))), word);
}

Val device_function(Entry *e, const Step *s, int position, Val ins, Val outs, Val words) {
  Emit *const c = e->c;
  const ExternRow *const row = s->ext.row;
  const Type t = LLVMStructTypeInContext(c->ctx,
                                         (Type[]){c->i32, c->i32, c->i32, c->i32, c->ptr, c->ptr,
                                                  c->i32, c->i32, c->ptr, c->i64, c->ptr, c->ptr},
                                         12, 0);
  const Val f[12] = {
      ki32(c, e->p->m->kernels.n + program_call_position(e->p, row)),
      ki32(c, row->phases),
      ki32(c, row->phases ? row->members : 1),
      ki32(c, program_call_waits(e->p, s)),
      ins,
      outs,
      ki32(c, s->ext.n_ins),
      ki32(c, s->ext.n_outs),
      words,
      ki64(c, s->ext.n_words),
      s->ext.scratch >= 0 ? buffer_address(e, s->ext.scratch) : LLVMConstNull(c->ptr),
      result_address(e, program_call_result(e->p, s))};
  const Val g = entry_alloca(c, t, 1, 8);
  for (int i = 0; i < 12; i++) LLVMBuildStore(c->b, f[i], field(c, t, g, i));
  return call(c, "burin_gpu_device_call", 3, (Val[]){e->run, ki32(c, position), g});
}

/* ---- the run ---- */
static Val tensor_array(Entry *e, Val pointers, int from, int n, int flags) {
  Emit *const c = e->c;
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->ptr, c->i64}, 2, 0);
  const Val array = entry_alloca(c, t, n + flags > 1 ? n + flags : 2, 8);
  for (int i = 0; i < n + flags; i++) {
    const Val to = at_k(c, t, array, i);
    const Val bytes = i < n ? wide(c, program_io_bytes(e->p, from + i)) : ki64(c, 1);
    LLVMBuildStore(c->b, load(c, c->ptr, at_k(c, c->ptr, pointers, i)), field(c, t, to, 0));
    LLVMBuildStore(c->b, bytes, field(c, t, to, 1));
  }
  return array;
}

static Val begin(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  const int n_in = p->m->inputs.n, n_out = p->m->outputs.n;
  const Val in = tensor_array(e, e->in, 0, n_in, p->defaults);
  const Val out = tensor_array(e, e->out, n_in, n_out, 0);
  Val args[] = {
      description(c, p),
      e->opts,
      in,
      ki32(c, n_in + p->defaults),
      out,
      ki32(c, n_out),
      p->n_caller ? e->dims : LLVMConstNull(c->ptr),
      ki32(c, p->n_caller),
      c->sym_array,
      ki32(c, expr_symbol_count(c->pool)),
      LLVMBuildAdd(c->b, wide(c, program_arena_bytes(p)),
                   ki64(c, 8 * (program_result_words(p, true) + program_result_words(p, false))),
                   ""),
      e->run};
  return call(c, "burin_gpu_begin", 12, args);
}

static void take_addresses(Entry *e) {
  Emit *const c = e->c;
  const Type t = run_type(c);
  e->arena = load(c, c->ptr, field(c, t, e->run, 0));
  e->in = load(c, c->ptr, field(c, t, e->run, 2));
  e->out = load(c, c->ptr, field(c, t, e->run, 3));
}

static Val result_bytes(Entry *e) {
  Emit *const c = e->c;
  const Module *const m = e->p->m;
  const int n = m->outputs.n;
  const Val bytes = entry_alloca(c, c->i64, n > 1 ? n : 2, 8);
  for (int i = 0; i < n; i++) {
    const Buffer *const b = &m->buffers.data[m->outputs.data[i]];
    const Val size = LLVMBuildMul(c->b, wide(c, b->count), ki64(c, dtype_bytes(b->dtype)), "");
    LLVMBuildStore(c->b, size, at_k(c, c->i64, bytes, i));
  }
  return bytes;
}

/* What stands behind the run: notes on the host, held to the sizes that are known then. */
static void late_checks(Entry *e, Val notes) {
  Emit *const c = e->c;
  for (const Step *s = program_late_checks(e->p); s; s = s->next) {
    int64_t at = 0;
    if (s->sym.src.offset) expr_is_const(s->sym.src.offset, &at);
    c->step = s;
    require_index(e, s, load(c, c->i64, at_k(c, c->i64, notes, at)));
  }
}

/* Statuses of runtime functions that nobody waited for. */
static void late_statuses(Entry *e, Val results) {
  Emit *const c = e->c;
  for (int i = 0; i < e->p->calls.n; i++) {
    const Step *const s = e->p->calls.data[i];
    if (s->kind != STEP_EXTERN || !program_call_on_device(e->p, s) || program_call_waits(e->p, s))
      continue;
    c->step = s;
    const Val word = load(c, c->i64, at_k(c, c->i64, results, program_call_result(e->p, s)));
    require_call(e, s, LLVMBuildTrunc(c->b, word, c->i32, ""));
  }
}

/* Where n words of the device will be, as note k. */
static Val note(Entry *e, Val notes, int k, Val from, int64_t n) {
  Emit *const c = e->c;
  const Type t = LLVMStructTypeInContext(c->ctx, (Type[]){c->ptr, c->ptr, c->i64}, 3, 0);
  const Val to = entry_alloca(c, c->i64, (int)n + 1, 8), at = at_k(c, t, notes, k);
  LLVMBuildStore(c->b, from, field(c, t, at, 0));
  LLVMBuildStore(c->b, to, field(c, t, at, 1));
  LLVMBuildStore(c->b, ki64(c, 8 * n), field(c, t, at, 2));
  return to;
}

static void end(Entry *e, Val status) {
  Emit *const c = e->c;
  const int64_t keys = note_bytes(e->p) / 8, results = program_result_words(e->p, true);
  const Val notes = entry_alloca(c, c->i64, 2 * (int)sizeof(GpuNote) / 8, 8);
  Val key = NULL, result = NULL;
  int n = 0;
  if (keys) key = note(e, notes, n++, buffer_address(e, notes_buffer(e->p)), keys);
  if (results) result = note(e, notes, n++, result_address(e, 0), results);
  Val args[] = {e->run, status, result_bytes(e), notes, ki32(c, n)};
  pass_on_failure(c, call(c, "burin_gpu_end", 5, args));
  late_checks(e, key);
  late_statuses(e, result);
}

void device_steps(Entry *e) {
  Emit *const c = e->c;
  e->run = entry_alloca(c, run_type(c), 1, 8);
  const Val began = begin(e), zero = ki32(c, 0);
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good"),
                          steps = new_block(c, "steps"), done = new_block(c, "done");
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntSLT, began, zero, ""), bad, good);
  LLVMPositionBuilderAtEnd(c->b, bad);
  LLVMBuildRet(c->b, LLVMBuildSub(c->b, zero, began, ""));
  LLVMPositionBuilderAtEnd(c->b, good);
  take_addresses(e);
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntEQ, began, ki32(c, GPU_REPLAYED), ""), done,
                  steps);
  LLVMPositionBuilderAtEnd(c->b, steps);
  emit_forget(c);
  const Val ran = call_steps(e, e->p->m->steps);
  const LLVMBasicBlockRef from = LLVMGetInsertBlock(c->b);
  LLVMBuildBr(c->b, done);
  LLVMPositionBuilderAtEnd(c->b, done);
  const Val status = LLVMBuildPhi(c->b, c->i32, "");
  LLVMAddIncoming(status, (Val[]){zero, ran}, (LLVMBasicBlockRef[]){good, from}, 2);
  emit_forget(c);
  end(e, status);
}

/* ---- devices of the host's own (the header declares them) ---- */
/* NAME_cuda_create(context, where to, failure) */
static void emit_create(Emit *c, const Program *p) {
  const Type type = LLVMFunctionType(c->i32, (Type[]){c->ptr, c->ptr, c->ptr}, 3, 0);
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_cuda_create", p->name), type, true);
  const Val gpu = LLVMGetNamedGlobal(c->mod, arena_printf(c->arena, "%s_gpu", p->name));
  Val args[] = {gpu, LLVMGetParam(fn, 0), LLVMGetParam(fn, 2), LLVMGetParam(fn, 1)};
  LLVMBuildRet(c->b, call(c, "burin_gpu_create", 4, args));
}

static void call_nothing(Emit *c, const char *name, int n, Val *args) {
  const Type types[] = {c->ptr, c->ptr, c->ptr};
  Type type;
  const Val fn = declare(c, name, LLVMVoidTypeInContext(c->ctx), n, types, &type);
  LLVMBuildCall2(c->b, type, fn, args, (unsigned)n, "");
}

/* NAME_cuda_destroy(device) */
static void emit_destroy(Emit *c, const Program *p) {
  const Type type = LLVMFunctionType(LLVMVoidTypeInContext(c->ctx), &c->ptr, 1, 0);
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_cuda_destroy", p->name), type, true);
  call_nothing(c, "burin_gpu_destroy", 1, (Val[]){LLVMGetParam(fn, 0)});
  LLVMBuildRetVoid(c->b);
}

/* NAME_cuda_run_async(device, in, out, stream) */
static void emit_run_async(Emit *c, const Program *p) {
  const Type type = LLVMFunctionType(c->i32, (Type[]){c->ptr, c->ptr, c->ptr, c->ptr}, 4, 0);
  const Val run = LLVMGetNamedFunction(c->mod, arena_printf(c->arena, "%s_run_opts", p->name));
  const Val fn =
      begin_function(c, arena_printf(c->arena, "%s_cuda_run_async", p->name), type, true);
  const Val options = entry_alloca(c, options_type(c), 1, 8);
  call_nothing(c, "burin_gpu_async_options", 3,
               (Val[]){options, LLVMGetParam(fn, 0), LLVMGetParam(fn, 3)});
  Val args[] = {LLVMGetParam(fn, 1), LLVMGetParam(fn, 2), LLVMConstNull(c->ptr), options};
  LLVMBuildRet(c->b, LLVMBuildCall2(c->b, LLVMGlobalGetValueType(run), run, args, 4, ""));
}

void emit_device_functions(Emit *c, const Program *p) {
  if (!p->launches) return;
  emit_create(c, p);
  emit_destroy(c, p);
  emit_run_async(c, p);
}
