/* The steps of a program as straight-line code: kernels, runtime functions, copies, conditions and
 * loops. */
#include "codegen/entry/entry.h"

/* ---- buffers ---- */
static Val with_offset(Emit *c, Val p, const Expr *offset, DType t) {
  if (!offset || expr_is_i64(offset, 0)) return p;
  return at(c, c->i8, p, LLVMBuildMul(c->b, wide(c, offset), ki64(c, dtype_bytes(t)), ""));
}

Val buffer_address(Entry *e, int id) {
  Emit *const c = e->c;
  const Buffer *const b = &e->p->m->buffers.data[id];
  switch (b->kind) {
    case BUF_INPUT: return load(c, c->ptr, at_k(c, c->ptr, e->in, b->index));
    case BUF_UNSET: return load(c, c->ptr, at_k(c, c->ptr, e->in, e->p->m->inputs.n));
    case BUF_OUTPUT: return load(c, c->ptr, at_k(c, c->ptr, e->out, b->index));
    case BUF_WEIGHT:
      if (e->p->launches) return at_k(c, c->i8, device_weights(e), e->p->weights.offset[id]);
      return at_k(c, c->i8, hidden_bytes(c, arena_printf(c->arena, "%s_weights", e->p->name)),
                  e->p->weights.offset[id]);
    case BUF_ARENA: return b->offset ? at(c, c->i8, e->arena, wide(c, b->offset)) : e->arena;
    case BUF_HEAP:
      return LLVMBuildIntToPtr(c->b, load(c, c->i64, at_k(c, c->i64, c->sym_array, b->address)),
                               c->ptr, "");
    case BUF_VIEW:
      return with_offset(c, buffer_address(e, b->base), b->offset,
                         e->p->m->buffers.data[b->base].dtype);
  }
  return e->arena;
}

static Val ref_address(Entry *e, const BufRef *r) {
  return with_offset(e->c, buffer_address(e, r->buffer), r->offset,
                     e->p->m->buffers.data[r->buffer].dtype);
}

/* ---- calls ---- */
static void call_kernel(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const Kernel *const k = s->call.kernel;
  for (int i = 0; i < s->call.n_args; i++)
    LLVMBuildStore(c->b, ref_address(e, &s->call.args[i]), at_k(c, c->ptr, e->bufs, i));
  if (e->p->launches) {
    device_launch(e, s, e->call++);
    return;
  }
  const Type none = LLVMVoidTypeInContext(c->ctx);
  Type kernel_type, parallel_type;
  const Val fn = declare(c, arena_printf(c->arena, "%s_%s", e->p->name, k->name), none, 5,
                         (Type[]){c->ptr, c->ptr, c->i64, c->i64, c->ptr}, &kernel_type);
  if (!is_parallel(k)) {
    LLVMBuildCall2(c->b, kernel_type, fn,
                   (Val[]){e->bufs, c->sym_array, ki64(c, 0), ki64(c, 1), e->scratch}, 5, "");
    return;
  }
  const Val n = wide(c, expr_var_extent(c->pool, k->body->loop.var->id));
  if (e->p->m->max_threads <= 1) {
    LLVMBuildCall2(c->b, kernel_type, fn, (Val[]){e->bufs, c->sym_array, ki64(c, 0), n, e->scratch},
                   5, "");
    return;
  }
  const Val parallel = declare(
      c, "burin_rt_parallel", none, 8,
      (Type[]){c->ptr, c->ptr, c->ptr, c->ptr, c->i64, c->i64, c->ptr, c->i64}, &parallel_type);
  LLVMBuildCall2(c->b, parallel_type, parallel,
                 (Val[]){e->opts, fn, e->bufs, c->sym_array, n,
                         wide(c, kernel_min_chunk(e->p->m, k)), e->scratch, e->scratch_stride},
                 8, "");
}

/* ---- runtime functions ---- */
static Type tensor_type(Emit *c) {
  return LLVMStructTypeInContext(c->ctx, (Type[]){c->ptr, c->i32, c->i32, c->ptr}, 4, 0);
}

/* Fills one RtTensor; the dims it points to, or NULL for an absent one. */
static Val fill_tensor(Entry *e, Val tensor, const TensorRef *r) {
  Emit *const c = e->c;
  const Type t = tensor_type(c);
  const bool absent = r->buf.buffer < 0;
  Val dims = NULL;
  if (!absent) {
    dims = entry_alloca(c, c->i64, r->rank > 1 ? r->rank : 2, 8);
    for (int i = 0; i < r->rank; i++)
      LLVMBuildStore(c->b, wide(c, r->dims[i]), at_k(c, c->i64, dims, i));
  }
  const Val null = LLVMConstNull(c->ptr);
  LLVMBuildStore(c->b, absent ? null : ref_address(e, &r->buf), field(c, t, tensor, 0));
  LLVMBuildStore(c->b, k_int(c, c->i32, dtype_rows[r->dtype].onnx), field(c, t, tensor, 1));
  LLVMBuildStore(c->b, k_int(c, c->i32, r->rank), field(c, t, tensor, 2));
  LLVMBuildStore(c->b, absent ? null : dims, field(c, t, tensor, 3));
  return dims;
}

/* Before the first call that sets it, a run-time symbol stands at its bound (again, when in a
 * loop). */
static void reset_dims(Entry *e, const TensorRef *r) {
  for (int i = 0; i < r->rank; i++) {
    const Expr *const d = r->dims[i];
    if (d->op != EX_SYM || !expr_symbol(e->c->pool, d->id)->runtime || e->assigned[d->id]) continue;
    const Symbol *const s = expr_symbol(e->c->pool, d->id);
    if (s->bound) sym_store(e->c, d->id, wide(e->c, program_most(e->p, s)));
  }
}

static void take_dims(Entry *e, const TensorRef *r, Val dims, const Loc *loc) {
  Emit *const c = e->c;
  for (int i = 0; dims && i < r->rank; i++) {
    const Expr *const d = r->dims[i];
    if (d->op != EX_SYM || !expr_symbol(c->pool, d->id)->runtime) continue;
    const Val v = load(c, c->i64, at_k(c, c->i64, dims, i));
    const Symbol *const s = expr_symbol(c->pool, d->id);
    const Val most = s->bound ? wide(c, program_most(e->p, s)) : ki64(c, INT64_MAX);
    const Val ok = LLVMBuildAnd(c->b, LLVMBuildICmp(c->b, LLVMIntSGE, v, ki64(c, 0), ""),
                                LLVMBuildICmp(c->b, LLVMIntSLE, v, most, ""), "");
    const int check = check_add(e->p, BURIN_E_DATA, loc, "%s: size %s is {0}, outside [0, {1}]",
                                check_node_text(e->p, loc), s->name);
    require(e, ok, check, 2, (Val[]){v, most});
    sym_store(c, d->id, v);
    e->assigned[d->id] = true;
  }
}

static Val const_words(Emit *c, const Step *s) {
  Val *const k = ARENA_ARRAY(c->arena, Val, s->ext.n_words + 1);
  for (int i = 0; i < s->ext.n_words; i++) k[i] = ki64(c, s->ext.words[i]);
  return const_array(c, c->i64, k, s->ext.n_words);
}

void pass_on_failure(Emit *c, Val status) {
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good");
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntEQ, status, k_int(c, c->i32, BURIN_OK), ""),
                  good, bad);
  LLVMPositionBuilderAtEnd(c->b, bad);
  LLVMBuildRet(c->b, status);
  LLVMPositionBuilderAtEnd(c->b, good);
}

void require_call(Entry *e, const Step *s, Val status) {
  Emit *const c = e->c;
  const int check = check_call(e->p, s);
  require_status(e, LLVMBuildICmp(c->b, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), status, check,
                 0, NULL);
}

/* The function made the memory of a result, which nobody may write to: no room is left in it. */
static void take_memory(Entry *e, const TensorRef *r, Val tensor) {
  Emit *const c = e->c;
  const Buffer *const b = &e->p->m->buffers.data[r->buf.buffer];
  const Val data = load(c, c->ptr, field(c, tensor_type(c), tensor, 0));
  sym_store(c, b->address, LLVMBuildPtrToInt(c->b, data, c->i64, ""));
  sym_store(c, b->room, ki64(c, 0));
}

static void call_extern(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const Type t = tensor_type(c);
  for (int i = 0; i < s->ext.n_outs; i++) reset_dims(e, &s->ext.outs[i]);
  const Val ins = entry_alloca(c, t, s->ext.n_ins > 1 ? s->ext.n_ins : 2, 8),
            outs = entry_alloca(c, t, s->ext.n_outs > 1 ? s->ext.n_outs : 2, 8);
  Val *const dims = ARENA_ARRAY(c->arena, Val, s->ext.n_outs + 1);
  for (int i = 0; i < s->ext.n_ins; i++) fill_tensor(e, at_k(c, t, ins, i), &s->ext.ins[i]);
  for (int i = 0; i < s->ext.n_outs; i++)
    dims[i] = fill_tensor(e, at_k(c, t, outs, i), &s->ext.outs[i]);
  const Val scratch = s->ext.row->heap      ? options_heap(e)
                      : s->ext.scratch >= 0 ? buffer_address(e, s->ext.scratch)
                                            : LLVMConstNull(c->ptr);
  const Val words = const_words(c, s);
  Type type;
  Val status, fn = NULL;
  if (!program_call_on_device(e->p, s))
    fn = declare(c, s->ext.row->symbol, c->i32, 6,
                 (Type[]){c->ptr, c->i32, c->ptr, c->i32, c->ptr, c->ptr}, &type);
  if (program_call_on_device(e->p, s))
    status = device_function(e, s, e->call++, ins, outs, words);
  else if (e->p->launches)
    status = device_call(e, s, e->call++, fn, ins, outs, words);
  else
    status = LLVMBuildCall2(c->b, type, fn,
                            (Val[]){ins, k_int(c, c->i32, s->ext.n_ins), outs,
                                    k_int(c, c->i32, s->ext.n_outs), words, scratch},
                            6, "");
  require_call(e, s, status);
  for (int i = 0; i < s->ext.n_outs; i++) {
    take_dims(e, &s->ext.outs[i], dims[i], s->loc);
    if (extern_makes(e->p->m, s, i)) take_memory(e, &s->ext.outs[i], at_k(c, t, outs, i));
  }
}

/* ---- profile ---- */
/* Adds the time of what `call` emits to opts->kernel_ns[position], and its multiply-adds to
 * kernel_flops. The two halves are functions, to keep the entry small. */

void note_flops(Emit *c, Val opts, Val k, Val flops) {
  const LLVMBasicBlockRef on = new_block(c, ""), off = new_block(c, "");
  const Val sums = load(c, c->ptr, field(c, options_type(c), opts, 6));
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntNE, sums, LLVMConstNull(c->ptr), ""), on, off);
  LLVMPositionBuilderAtEnd(c->b, on);
  const Val slot = at(c, c->i64, sums, k);
  LLVMBuildStore(c->b, LLVMBuildAdd(c->b, load(c, c->i64, slot), flops, ""), slot);
  LLVMBuildBr(c->b, off);
  LLVMPositionBuilderAtEnd(c->b, off);
}

/* uint64_t clock(opts): 0 when not profiling. void note(opts, k, since, flops). */
void emit_profile_functions(Emit *c) {
  const Type options = options_type(c);
  for (int which = 0; which < 2; which++) {
    const Type type = which ? LLVMFunctionType(LLVMVoidTypeInContext(c->ctx),
                                               (Type[]){c->ptr, c->i64, c->i64, c->i64}, 4, 0)
                            : LLVMFunctionType(c->i64, (Type[]){c->ptr}, 1, 0);
    const Val fn = begin_function(c, which ? "profile_note" : "profile_clock", type, false);
    LLVMSetVisibility(fn, LLVMDefaultVisibility);
    LLVMSetLinkage(fn, LLVMInternalLinkage);
    fn_attr(c, fn, "noinline", 0);
    const Val opts = LLVMGetParam(fn, 0), null = LLVMConstNull(c->ptr);
    const LLVMBasicBlockRef on = new_block(c, ""), off = new_block(c, "");
    const Val sums = load(c, c->ptr, field(c, options, opts, 4)),
              clock = load(c, c->ptr, field(c, options, opts, 5));
    const Val both = LLVMBuildAnd(c->b, LLVMBuildICmp(c->b, LLVMIntNE, sums, null, ""),
                                  LLVMBuildICmp(c->b, LLVMIntNE, clock, null, ""), "");
    LLVMBuildCondBr(c->b, both, on, off);
    LLVMPositionBuilderAtEnd(c->b, on);
    const Val now = LLVMBuildCall2(c->b, LLVMFunctionType(c->i64, NULL, 0, 0), clock, NULL, 0, "");
    if (which) {
      const Val slot = at(c, c->i64, sums, LLVMGetParam(fn, 1));
      const Val more = LLVMBuildSub(c->b, now, LLVMGetParam(fn, 2), "");
      LLVMBuildStore(c->b, LLVMBuildAdd(c->b, load(c, c->i64, slot), more, ""), slot);
      note_flops(c, opts, LLVMGetParam(fn, 1), LLVMGetParam(fn, 3));
      LLVMBuildBr(c->b, off);
    } else {
      LLVMBuildRet(c->b, now);
    }
    LLVMPositionBuilderAtEnd(c->b, off);
    if (which)
      LLVMBuildRetVoid(c->b);
    else
      LLVMBuildRet(c->b, ki64(c, 0));
  }
}

static void profiled(Entry *e, const Step *s, void (*call)(Entry *, const Step *)) {
  Emit *const c = e->c;
  if (e->p->launches) { /* the device keeps the times */
    if (s->kind == STEP_KERNEL) device_note_work(e, s, e->call);
    call(e, s);
    return;
  }
  const Val clock = LLVMGetNamedFunction(c->mod, "profile_clock"),
            note = LLVMGetNamedFunction(c->mod, "profile_note");
  const Val since = LLVMBuildCall2(c->b, LLVMGlobalGetValueType(clock), clock, &e->opts, 1, "");
  call(e, s);
  const Expr *const flops = s->kind == STEP_KERNEL ? s->call.kernel->flops : NULL;
  LLVMBuildCall2(c->b, LLVMGlobalGetValueType(note), note,
                 (Val[]){e->opts, ki64(c, e->call++), since, flops ? wide(c, flops) : ki64(c, 0)},
                 4, "");
}

/* ---- control ---- */
static void copy_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  Type type;
  const int bytes = dtype_bytes(e->p->m->buffers.data[s->copy.src.buffer].dtype);
  const Val n = LLVMBuildMul(c->b, wide(c, s->copy.count), ki64(c, bytes), "");
  Val args[] = {ref_address(e, &s->copy.dst), ref_address(e, &s->copy.src), n};
  if (e->p->launches) {
    device_copy(e, args[0], args[1], args[2]);
    return;
  }
  const Val fn = declare(c, "burin_rt_copy", LLVMVoidTypeInContext(c->ctx), 3,
                         (Type[]){c->ptr, c->ptr, c->i64}, &type);
  LLVMBuildCall2(c->b, type, fn, args, 3, "");
}

static Val read_int(Entry *e, const BufRef *r) {
  Emit *const c = e->c;
  const DType t = e->p->m->buffers.data[r->buffer].dtype;
  Val at = ref_address(e, r);
  if (e->p->launches) at = device_read(e, at, dtype_bytes(t));
  const Val v = from_mem(c, t, load(c, mem_type(c, t), at));
  return emit_cast(c, DT_I64, t, v, false);
}

static Val read_cond(Entry *e, const BufRef *r) {
  return LLVMBuildICmp(e->c->b, LLVMIntNE, read_int(e, r), ki64(e->c, 0), "");
}

static void if_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef then = new_block(c, "then"), other = new_block(c, "else"),
                          done = new_block(c, "done");
  const int n = expr_symbol_count(c->pool);
  bool *const before = arena_dup(c->arena, e->assigned, (size_t)n + 1);
  LLVMBuildCondBr(c->b, read_cond(e, &s->branch.cond), then, other);
  LLVMPositionBuilderAtEnd(c->b, then);
  emit_forget(c);
  emit_step_list(e, s->branch.then);
  LLVMBuildBr(c->b, done);
  bool *const after = e->assigned;
  e->assigned = before;
  LLVMPositionBuilderAtEnd(c->b, other);
  emit_forget(c);
  emit_step_list(e, s->branch.otherwise);
  LLVMBuildBr(c->b, done);
  for (int i = 0; i < n; i++) e->assigned[i] |= after[i];
  LLVMPositionBuilderAtEnd(c->b, done);
  emit_forget(c);
}

static void loop_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef head = new_block(c, "head"), test = new_block(c, "test"),
                          body = new_block(c, "body"), done = new_block(c, "done");
  const Val count = entry_alloca(c, c->i64, 1, 8);
  const Val trip = s->loop.trip ? wide(c, s->loop.trip) : ki64(c, INT64_MAX);
  LLVMBuildStore(c->b, ki64(c, 0), count);
  LLVMBuildBr(c->b, head);
  LLVMPositionBuilderAtEnd(c->b, head);
  emit_forget(c);
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntSLT, load(c, c->i64, count), trip, ""), test,
                  done);
  LLVMPositionBuilderAtEnd(c->b, test);
  LLVMBuildCondBr(c->b, s->loop.cond.buffer >= 0 ? read_cond(e, &s->loop.cond) : k_int(c, c->i1, 1),
                  body, done);
  LLVMPositionBuilderAtEnd(c->b, body);
  if (s->loop.iter >= 0) sym_store(c, s->loop.iter, load(c, c->i64, count));
  emit_forget(c);
  emit_step_list(e, s->loop.body);
  LLVMBuildStore(c->b, LLVMBuildAdd(c->b, load(c, c->i64, count), ki64(c, 1), ""), count);
  LLVMBuildBr(c->b, head);
  LLVMPositionBuilderAtEnd(c->b, done);
  emit_forget(c);
  if (s->loop.trips >= 0) {
    sym_store(c, s->loop.trips, load(c, c->i64, count));
    e->assigned[s->loop.trips] = true;
  }
}

/* The key of an index (passes/graph/check_indices.c): what is wrong with it. */
void require_index(Entry *e, const Step *s, Val key) {
  Emit *const c = e->c;
  const Val most = wide(c, s->sym.hi), two = ki64(c, 2), zero = ki64(c, 0),
            big = ki64(c, INT64_C(1) << 62);
  const Val beyond = LLVMBuildICmp(c->b, LLVMIntSGE, key, big, "");
  const Val k = LLVMBuildSelect(c->b, beyond, LLVMBuildSub(c->b, key, big, ""), key, "");
  const Val half = LLVMBuildSDiv(c->b, k, two, ""), odd = LLVMBuildAnd(c->b, k, ki64(c, 1), "");
  const Val index = LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntNE, odd, zero, ""), half,
                                    LLVMBuildSub(c->b, zero, half, ""), "");
  static const char *const texts[] = {"", "index {0} is outside of [-{1}, {1})",
                                      "index {0} is outside of [0, {1})",
                                      "length {0} is outside of [0, {1}]"};
  const int check = check_add(e->p, BURIN_E_DATA, s->loc, "%s: %s", check_node_text(e->p, s->loc),
                              texts[s->sym.index]);
  const Val size = LLVMBuildSDiv(c->b, most, two, ""),
            last = s->sym.index == IX_LENGTH ? LLVMBuildSub(c->b, size, ki64(c, 1), "") : size;
  require(e, LLVMBuildICmp(c->b, LLVMIntSLE, key, most, ""), check, 2, (Val[]){index, last});
}

static void sym_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const Val v = s->sym.src.buffer >= 0 ? read_int(e, &s->sym.src) : wide(c, s->sym.value);
  if (s->sym.index) {
    require_index(e, s, v);
  } else if (s->sym.lo || s->sym.hi) {
    const Val lo = s->sym.lo ? wide(c, s->sym.lo) : ki64(c, INT64_MIN),
              hi = s->sym.hi ? wide(c, s->sym.hi) : ki64(c, INT64_MAX);
    const Val ok = LLVMBuildAnd(c->b, LLVMBuildICmp(c->b, LLVMIntSGE, v, lo, ""),
                                LLVMBuildICmp(c->b, LLVMIntSLE, v, hi, ""), "");
    const int check =
        check_add(e->p, BURIN_E_DATA, s->loc, "%s: size %s is {0}, outside [{1}, {2}]",
                  check_node_text(e->p, s->loc), expr_symbol(c->pool, s->sym.id)->name);
    require(e, ok, check, 3, (Val[]){v, lo, hi});
  }
  sym_store(c, s->sym.id, v);
  e->assigned[s->sym.id] = true;
}

static void room_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const Buffer *const b = &e->p->m->buffers.data[s->room.buffer];
  const int size = dtype_bytes(b->dtype);
  const Val minus = ki64(c, -1), count = wide(c, s->room.count);
  const Val ok = fits(c, ex_mul(c->pool, s->room.count, ex_i64(c->pool, size)));
  Type type;
  const Val fn = declare(c, "burin_rt_room", c->i32, 6,
                         (Type[]){c->ptr, c->ptr, c->ptr, c->i64, c->i64, c->i32}, &type);
  const Val status = LLVMBuildCall2(
      c->b, type, fn,
      (Val[]){options_heap(e), at_k(c, c->i64, c->sym_array, b->address),
              at_k(c, c->i64, c->sym_array, b->room), LLVMBuildSelect(c->b, ok, count, minus, ""),
              s->room.keep ? wide(c, s->room.keep) : ki64(c, 0), ki32(c, size)},
      6, "");
  const int check = check_add(e->p, BURIN_E_MEMORY, s->loc, "%s: no memory for {0} elements",
                              check_node_text(e->p, s->loc));
  require_status(e, LLVMBuildICmp(c->b, LLVMIntEQ, status, ki32(c, 0), ""), status, check, 1,
                 &count);
}

static void check_step(Entry *e, const Step *s) { require_assume(e, &s->check); }

/* Neither blocks nor symbols change: a size that was computed before need not be again. So offsets
 * that are sums of many sizes, each with one more, cost one addition each. */
static bool keeps_sizes(const Step *s) { return s->kind == STEP_KERNEL || s->kind == STEP_COPY; }

void emit_steps(Entry *e, const Step *s, const Step *end) {
  const Step *const outer = e->c->step;
  emit_forget(e->c);
  for (; s != end && !e->c->error && !program_is_late(e->p, s); s = s->next) {
    e->c->step = s;
    switch (s->kind) {
      case STEP_KERNEL: profiled(e, s, call_kernel); break;
      case STEP_EXTERN: profiled(e, s, call_extern); break;
      case STEP_COPY: copy_step(e, s); break;
      case STEP_IF: if_step(e, s); break;
      case STEP_LOOP: loop_step(e, s); break;
      case STEP_SYM: sym_step(e, s); break;
      case STEP_CHECK: check_step(e, s); break;
      case STEP_ROOM: room_step(e, s); break;
    }
    if (!keeps_sizes(s)) emit_forget(e->c);
  }
  if (!e->c->error) e->c->step = outer;
}
