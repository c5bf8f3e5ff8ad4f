/* NAME_program, behind NAME_invoke: checks the arguments, then one call after the other, straight through; and the
 * functions about sizes. Symbols live in an array on the stack, by id, that kernels get too. */
#include "codegen/program.h"
#include "runtime/abi.h"

#define B c->b

typedef struct Entry {
  Emit *c;
  const Program *p;
  V in, out, arena, opts;    /* arguments of invoke */
  V scratch, scratch_stride; /* behind the arena: one per thread */
  V bufs;                    /* pointer array for kernels */
  bool *assigned;            /* run-time symbols that have their value, in textual order */
  int call;                  /* profile position */
} Entry;

/* ---- small helpers -------------------------------------------------------------------------------------- */
static V ki64(Emit *c, int64_t v) { return k_int(c, c->i64, v); }
static V at(Emit *c, Ty t, V p, V index) { return LLVMBuildGEP2(B, t, p, &index, 1, ""); }
static V at_k(Emit *c, Ty t, V p, int64_t k) { return k ? at(c, t, p, ki64(c, k)) : p; }
static V load(Emit *c, Ty t, V p) { return LLVMBuildLoad2(B, t, p, ""); }
static V wide(Emit *c, const Expr *e) { return emit_wide(c, e); }

static void fail_unless(Emit *c, V ok, int status) {
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good");
  LLVMBuildCondBr(B, ok, good, bad);
  LLVMPositionBuilderAtEnd(B, bad);
  LLVMBuildRet(B, k_int(c, c->i32, status));
  LLVMPositionBuilderAtEnd(B, good);
}

static V declare(Emit *c, const char *name, Ty result, int n, Ty const *args, Ty *type) {
  *type = LLVMFunctionType(result, (Ty *)args, (unsigned)n, 0);
  V fn = LLVMGetNamedFunction(c->mod, name);
  if (fn) return fn;
  fn = LLVMAddFunction(c->mod, name, *type);
  LLVMSetVisibility(fn, LLVMHiddenVisibility);
  fn_attr(c, fn, "nounwind", 0);
  return fn;
}

static V weights_symbol(Emit *c, const Program *p) {
  const char *const name = arena_printf(c->arena, "%s_weights", p->name);
  V g = LLVMGetNamedGlobal(c->mod, name);
  if (g) return g;
  g = LLVMAddGlobal(c->mod, LLVMArrayType2(c->i8, 0), name);
  LLVMSetVisibility(g, LLVMHiddenVisibility);
  LLVMSetAlignment(g, 64);
  return g;
}

static V begin_function(Emit *c, const char *name, Ty type, bool exported) {
  const V fn = LLVMAddFunction(c->mod, name, type);
  if (!exported) LLVMSetVisibility(fn, LLVMHiddenVisibility);
  fn_attr_str(c, fn, "target-cpu", c->t->cpu);
  fn_attr_str(c, fn, "target-features", c->t->features);
  fn_attr_str(c, fn, "no-builtins", "");
  fn_attr_str(c, fn, "frame-pointer", "none");
  fn_attr(c, fn, "nounwind", 0);
  c->fn = fn;
  c->entry = LLVMAppendBasicBlockInContext(c->ctx, fn, "entry");
  const LLVMBasicBlockRef start = LLVMAppendBasicBlockInContext(c->ctx, fn, "start");
  LLVMPositionBuilderAtEnd(B, c->entry);
  LLVMBuildBr(B, start);
  LLVMPositionBuilderAtEnd(B, start);
  emit_forget(c);
  return fn;
}

/* ---- symbols ------------------------------------------------------------------------------------------------ */
static void sym_store(Emit *c, int id, V v) {
  LLVMBuildStore(B, v, at_k(c, c->i64, c->sym_array, id));
  emit_forget(c);
}

static const Expr *upper(const Program *p, const Expr *e) {
  const Expr *const u = expr_upper(p->m->model->pool, e, NULL);
  return u ? u : ex_i64(p->m->model->pool, 0);
}

/* The array: the caller's symbols from `dims`, run-time ones at their upper bounds, so that every size can be
 * computed before they are known. */
static void sym_array(Emit *c, const Program *p, V dims) {
  const int n = expr_symbol_count(c->pool);
  c->sym_array = entry_alloca(c, c->i64, n > 1 ? n : 2, 8);
  for (int i = 0; i < p->n_caller; i++)
    sym_store(c, p->symbols[i], load(c, c->i64, at_k(c, c->i64, dims, i)));
  for (int i = 0; i < n; i++) {
    const Symbol *const s = expr_symbol(c->pool, i);
    if (s->runtime) sym_store(c, i, s->bound ? wide(c, upper(p, s->bound)) : ki64(c, 0));
  }
}

/* ---- sizes --------------------------------------------------------------------------------------------------- */
/* The value of a size in floating point: cannot overflow, and is exact enough to refuse what would. */
static V approximate(Emit *c, const Expr *e) {
  int64_t k;
  if (expr_is_const(e, &k)) return LLVMConstReal(c->f64, (double)k);
  if (e->op == EX_add || e->op == EX_sub || e->op == EX_mul || e->op == EX_min || e->op == EX_max) {
    const V a = approximate(c, e->a[0]), b = approximate(c, e->a[1]);
    if (e->op == EX_add) return LLVMBuildFAdd(B, a, b, "");
    if (e->op == EX_sub) return LLVMBuildFSub(B, a, b, "");
    if (e->op == EX_mul) return LLVMBuildFMul(B, a, b, "");
    const V less = LLVMBuildFCmp(B, LLVMRealOLT, a, b, "");
    return e->op == EX_min ? LLVMBuildSelect(B, less, a, b, "") : LLVMBuildSelect(B, less, b, a, "");
  }
  if (e->op == EX_floordiv && expr_is_const(e->a[1], &k) && k > 0)
    return LLVMBuildFDiv(B, approximate(c, e->a[0]), LLVMConstReal(c->f64, (double)k), "");
  return LLVMBuildSIToFP(B, wide(c, e), c->f64, "");
}

static V fits(Emit *c, const Expr *bytes) {
  const double limit = c->t->pointer_bits == 32 ? 2147483648.0 : 70368744177664.0; /* 2 GiB, 64 TiB */
  return LLVMBuildFCmp(B, LLVMRealOLE, approximate(c, bytes), LLVMConstReal(c->f64, limit), "");
}

static const Expr *zero(Emit *c) { return ex_i64(c->pool, 0); }
static const Expr *arena_bytes64(Emit *c, const Program *p) {
  const Expr *const e = p->m->arena_bytes ? p->m->arena_bytes : zero(c);
  return ex_mul(c->pool, ex_ceildiv(c->pool, e, 64), ex_i64(c->pool, 64));
}
static const Expr *thread_bytes(Emit *c, const Program *p) { return p->m->scratch_bytes ? p->m->scratch_bytes : zero(c); }

static V emit_arena_size(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(c->i64, (Ty[]){c->ptr, c->i32}, 2, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_arena_size", p->name), type, true);
  sym_array(c, p, LLVMGetParam(fn, 0));
  const V one = k_int(c, c->i32, 1), n = LLVMGetParam(fn, 1);
  const V threads = LLVMBuildSelect(B, LLVMBuildICmp(B, LLVMIntSGT, n, one, ""), n, one, "");
  const V scratch = LLVMBuildMul(B, wide(c, thread_bytes(c, p)), LLVMBuildZExt(B, threads, c->i64, ""), "");
  const V total = LLVMBuildAdd(B, wide(c, arena_bytes64(c, p)), scratch, "");
  const V ok = LLVMBuildAnd(B, fits(c, arena_bytes64(c, p)), fits(c, thread_bytes(c, p)), "");
  LLVMBuildRet(B, LLVMBuildSelect(B, ok, total, ki64(c, -1), ""));
  return fn;
}

static V emit_output_dims(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(LLVMVoidTypeInContext(c->ctx), (Ty[]){c->i32, c->ptr, c->ptr, c->i32}, 4, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_output_dims", p->name), type, true);
  const V dims = LLVMGetParam(fn, 1), out = LLVMGetParam(fn, 2);
  sym_array(c, p, dims); /* run-time symbols at their bounds … */
  const LLVMBasicBlockRef exact = new_block(c, "exact"), known = new_block(c, "known"), done = new_block(c, "done");
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntEQ, LLVMGetParam(fn, 3), k_int(c, c->i32, 0), ""), exact, known);
  LLVMPositionBuilderAtEnd(B, exact); /* … or as the last run left them */
  for (int i = p->n_caller; i < p->n_symbols; i++)
    sym_store(c, p->symbols[i], load(c, c->i64, at_k(c, c->i64, dims, i)));
  LLVMBuildBr(B, known);
  LLVMPositionBuilderAtEnd(B, known);
  const Graph *const g = p->m->model->main;
  const V choose = LLVMBuildSwitch(B, LLVMGetParam(fn, 0), done, (unsigned)p->m->outputs.n);
  for (int i = 0; g && i < g->outputs.n; i++) {
    const LLVMBasicBlockRef b = new_block(c, "output");
    LLVMAddCase(choose, k_int(c, c->i32, i), b);
    LLVMPositionBuilderAtEnd(B, b);
    emit_forget(c);
    const Value *const v = g->outputs.data[i];
    for (int d = 0; d < v->rank; d++) LLVMBuildStore(B, wide(c, v->dims[d]), at_k(c, c->i64, out, d));
    LLVMBuildBr(B, done);
  }
  LLVMPositionBuilderAtEnd(B, done);
  LLVMBuildRetVoid(B);
  c->sym_array = NULL;
  return fn;
}

/* ---- buffers ------------------------------------------------------------------------------------------------- */
static V buffer_address(Entry *e, int id);

static V with_offset(Emit *c, V p, const Expr *offset, DType t) {
  if (!offset || expr_is_i64(offset, 0)) return p;
  return at(c, c->i8, p, LLVMBuildMul(B, wide(c, offset), ki64(c, dtype_bytes(t)), ""));
}

static V buffer_address(Entry *e, int id) {
  Emit *const c = e->c;
  const Buffer *const b = &e->p->m->buffers.data[id];
  switch (b->kind) {
    case BUF_INPUT: return load(c, c->ptr, at_k(c, c->ptr, e->in, b->index));
    case BUF_OUTPUT: return load(c, c->ptr, at_k(c, c->ptr, e->out, b->index));
    case BUF_WEIGHT: return at_k(c, c->i8, weights_symbol(c, e->p), e->p->weights.offset[id]);
    case BUF_ARENA: return b->offset ? at(c, c->i8, e->arena, wide(c, b->offset)) : e->arena;
    case BUF_VIEW:
      return with_offset(c, buffer_address(e, b->base), b->offset, e->p->m->buffers.data[b->base].dtype);
  }
  return e->arena;
}

static V ref_address(Entry *e, const BufRef *r) {
  return with_offset(e->c, buffer_address(e, r->buffer), r->offset, e->p->m->buffers.data[r->buffer].dtype);
}

/* ---- calls --------------------------------------------------------------------------------------------------------- */
/* The iterations that are worth a thread's start: about 16,000 cycles. */
static int64_t min_chunk(const Kernel *k) {
  if (!(k->grain > 0)) return 1;
  const double n = 16384.0 / k->grain;
  return n < 1 ? 1 : n > 1e12 ? (int64_t)1e12 : (int64_t)n;
}

static void call_kernel(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const Kernel *const k = s->kernel;
  for (int i = 0; i < s->n_args; i++) LLVMBuildStore(B, ref_address(e, &s->args[i]), at_k(c, c->ptr, e->bufs, i));
  const Ty none = LLVMVoidTypeInContext(c->ctx);
  Ty kernel_type, parallel_type;
  const V fn = declare(c, arena_printf(c->arena, "%s_%s", e->p->name, k->name), none, 5,
                       (Ty[]){c->ptr, c->ptr, c->i64, c->i64, c->ptr}, &kernel_type);
  if (!is_parallel(k)) {
    LLVMBuildCall2(B, kernel_type, fn, (V[]){e->bufs, c->sym_array, ki64(c, 0), ki64(c, 1), e->scratch}, 5, "");
    return;
  }
  const V n = wide(c, expr_var_extent(c->pool, k->body->var->id));
  if (e->p->m->max_threads <= 1) {
    LLVMBuildCall2(B, kernel_type, fn, (V[]){e->bufs, c->sym_array, ki64(c, 0), n, e->scratch}, 5, "");
    return;
  }
  const V parallel = declare(c, "burin_rt_parallel", none, 8,
                             (Ty[]){c->ptr, c->ptr, c->ptr, c->ptr, c->i64, c->i64, c->ptr, c->i64}, &parallel_type);
  LLVMBuildCall2(B, parallel_type, parallel,
                 (V[]){e->opts, fn, e->bufs, c->sym_array, n, ki64(c, min_chunk(k)), e->scratch, e->scratch_stride}, 8, "");
}

/* ---- runtime functions -------------------------------------------------------------------------------------------- */
static Ty tensor_type(Emit *c) {
  return LLVMStructTypeInContext(c->ctx, (Ty[]){c->ptr, c->i32, c->i32, c->ptr}, 4, 0);
}

static V field(Emit *c, Ty t, V p, int k) { return LLVMBuildStructGEP2(B, t, p, (unsigned)k, ""); }

/* Fills one RtTensor; the dims it points to, or NULL for an absent one. */
static V fill_tensor(Entry *e, V tensor, const TensorRef *r) {
  Emit *const c = e->c;
  const Ty t = tensor_type(c);
  const bool absent = r->buf.buffer < 0;
  V dims = NULL;
  if (!absent) {
    dims = entry_alloca(c, c->i64, r->rank > 1 ? r->rank : 2, 8);
    for (int i = 0; i < r->rank; i++) LLVMBuildStore(B, wide(c, r->dims[i]), at_k(c, c->i64, dims, i));
  }
  const V null = LLVMConstNull(c->ptr);
  LLVMBuildStore(B, absent ? null : ref_address(e, &r->buf), field(c, t, tensor, 0));
  LLVMBuildStore(B, k_int(c, c->i32, dtype_rows[r->dtype].onnx), field(c, t, tensor, 1));
  LLVMBuildStore(B, k_int(c, c->i32, r->rank), field(c, t, tensor, 2));
  LLVMBuildStore(B, absent ? null : dims, field(c, t, tensor, 3));
  return dims;
}

/* Before the first call that sets it, a run-time symbol stands at its bound (again, when in a loop). */
static void reset_dims(Entry *e, const TensorRef *r) {
  for (int i = 0; i < r->rank; i++) {
    const Expr *const d = r->dims[i];
    if (d->op != EX_SYM || !expr_symbol(e->c->pool, d->id)->runtime || e->assigned[d->id]) continue;
    const Symbol *const s = expr_symbol(e->c->pool, d->id);
    if (s->bound) sym_store(e->c, d->id, wide(e->c, upper(e->p, s->bound)));
  }
}

static void take_dims(Entry *e, const TensorRef *r, V dims) {
  Emit *const c = e->c;
  for (int i = 0; dims && i < r->rank; i++) {
    const Expr *const d = r->dims[i];
    if (d->op != EX_SYM || !expr_symbol(c->pool, d->id)->runtime) continue;
    const V v = load(c, c->i64, at_k(c, c->i64, dims, i));
    const Symbol *const s = expr_symbol(c->pool, d->id);
    V ok = LLVMBuildICmp(B, LLVMIntSGE, v, ki64(c, 0), "");
    if (s->bound) ok = LLVMBuildAnd(B, ok, LLVMBuildICmp(B, LLVMIntSLE, v, wide(c, upper(e->p, s->bound)), ""), "");
    fail_unless(c, ok, BURIN_E_DATA);
    sym_store(c, d->id, v);
    e->assigned[d->id] = true;
  }
}

static V const_words(Emit *c, const Step *s) {
  V *const k = ARENA_ARRAY(c->arena, V, s->n_words + 1);
  for (int i = 0; i < s->n_words; i++) k[i] = ki64(c, s->words[i]);
  const V g = LLVMAddGlobal(c->mod, LLVMArrayType2(c->i64, (uint64_t)s->n_words), "words");
  LLVMSetInitializer(g, LLVMConstArray2(c->i64, k, (uint64_t)s->n_words));
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  LLVMSetGlobalConstant(g, 1);
  return g;
}

static void call_extern(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const Ty t = tensor_type(c);
  for (int i = 0; i < s->n_outs; i++) reset_dims(e, &s->outs[i]);
  const V ins = entry_alloca(c, t, s->n_ins > 1 ? s->n_ins : 2, 8), outs = entry_alloca(c, t, s->n_outs > 1 ? s->n_outs : 2, 8);
  V *const dims = ARENA_ARRAY(c->arena, V, s->n_outs + 1);
  for (int i = 0; i < s->n_ins; i++) fill_tensor(e, at_k(c, t, ins, i), &s->ins[i]);
  for (int i = 0; i < s->n_outs; i++) dims[i] = fill_tensor(e, at_k(c, t, outs, i), &s->outs[i]);
  const V scratch = s->scratch >= 0 ? buffer_address(e, s->scratch) : LLVMConstNull(c->ptr);
  const V words = s->n_words ? const_words(c, s) : LLVMConstNull(c->ptr);
  Ty type;
  const V fn = declare(c, s->ext->symbol, c->i32, 6, (Ty[]){c->ptr, c->i32, c->ptr, c->i32, c->ptr, c->ptr}, &type);
  const V status = LLVMBuildCall2(B, type, fn,
                                  (V[]){ins, k_int(c, c->i32, s->n_ins), outs, k_int(c, c->i32, s->n_outs), words, scratch}, 6, "");
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good");
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), good, bad);
  LLVMPositionBuilderAtEnd(B, bad);
  LLVMBuildRet(B, status);
  LLVMPositionBuilderAtEnd(B, good);
  for (int i = 0; i < s->n_outs; i++) take_dims(e, &s->outs[i], dims[i]);
}

/* ---- profile ------------------------------------------------------------------------------------------------------- */
/* Adds the time of what `call` emits to opts->kernel_ns[position]. The two halves are functions, to keep
 * the entry small. */
static Ty options_type(Emit *c) {
  return LLVMStructTypeInContext(c->ctx, (Ty[]){c->i32, c->i32, c->ptr, c->ptr, c->ptr, c->ptr}, 6, 0);
}

/* uint64_t clock(opts): 0 when not profiling. void note(opts, k, since). */
static void emit_profile_functions(Emit *c) {
  const Ty options = options_type(c);
  for (int which = 0; which < 2; which++) {
    const Ty type = which ? LLVMFunctionType(LLVMVoidTypeInContext(c->ctx), (Ty[]){c->ptr, c->i64, c->i64}, 3, 0)
                          : LLVMFunctionType(c->i64, (Ty[]){c->ptr}, 1, 0);
    const V fn = begin_function(c, which ? "profile_note" : "profile_clock", type, false);
    LLVMSetVisibility(fn, LLVMDefaultVisibility);
    LLVMSetLinkage(fn, LLVMInternalLinkage);
    fn_attr(c, fn, "noinline", 0);
    const V opts = LLVMGetParam(fn, 0), null = LLVMConstNull(c->ptr);
    const LLVMBasicBlockRef look = new_block(c, ""), on = new_block(c, ""), off = new_block(c, "");
    LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntNE, opts, null, ""), look, off);
    LLVMPositionBuilderAtEnd(B, look);
    const V sums = load(c, c->ptr, field(c, options, opts, 4)), clock = load(c, c->ptr, field(c, options, opts, 5));
    const V both = LLVMBuildAnd(B, LLVMBuildICmp(B, LLVMIntNE, sums, null, ""), LLVMBuildICmp(B, LLVMIntNE, clock, null, ""), "");
    LLVMBuildCondBr(B, both, on, off);
    LLVMPositionBuilderAtEnd(B, on);
    const V now = LLVMBuildCall2(B, LLVMFunctionType(c->i64, NULL, 0, 0), clock, NULL, 0, "");
    if (which) {
      const V slot = at(c, c->i64, sums, LLVMGetParam(fn, 1));
      const V more = LLVMBuildSub(B, now, LLVMGetParam(fn, 2), "");
      LLVMBuildStore(B, LLVMBuildAdd(B, load(c, c->i64, slot), more, ""), slot);
      LLVMBuildBr(B, off);
    } else {
      LLVMBuildRet(B, now);
    }
    LLVMPositionBuilderAtEnd(B, off);
    if (which)
      LLVMBuildRetVoid(B);
    else
      LLVMBuildRet(B, ki64(c, 0));
  }
}

static void profiled(Entry *e, const Step *s, void (*call)(Entry *, const Step *)) {
  Emit *const c = e->c;
  const V clock = LLVMGetNamedFunction(c->mod, "profile_clock"), note = LLVMGetNamedFunction(c->mod, "profile_note");
  const V since = LLVMBuildCall2(B, LLVMGlobalGetValueType(clock), clock, &e->opts, 1, "");
  call(e, s);
  LLVMBuildCall2(B, LLVMGlobalGetValueType(note), note, (V[]){e->opts, ki64(c, e->call++), since}, 3, "");
}

/* ---- control --------------------------------------------------------------------------------------------------------- */
static void emit_step_list(Entry *e, const Step *s);

static void copy_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  Ty type;
  const V fn = declare(c, "burin_rt_copy", LLVMVoidTypeInContext(c->ctx), 3, (Ty[]){c->ptr, c->ptr, c->i64}, &type);
  const int bytes = dtype_bytes(e->p->m->buffers.data[s->src.buffer].dtype);
  const V n = LLVMBuildMul(B, wide(c, s->count), ki64(c, bytes), "");
  LLVMBuildCall2(B, type, fn, (V[]){ref_address(e, &s->dst), ref_address(e, &s->src), n}, 3, "");
}

static V read_int(Entry *e, const BufRef *r) {
  Emit *const c = e->c;
  const DType t = e->p->m->buffers.data[r->buffer].dtype;
  const V v = from_mem(c, t, load(c, mem_type(c, t), ref_address(e, r)));
  return emit_cast(c, DT_I64, t, v, false);
}

static V read_cond(Entry *e, const BufRef *r) {
  return LLVMBuildICmp(e->c->b, LLVMIntNE, read_int(e, r), ki64(e->c, 0), "");
}

static void if_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef then = new_block(c, "then"), other = new_block(c, "else"), done = new_block(c, "done");
  const int n = expr_symbol_count(c->pool);
  bool *const before = arena_dup(c->arena, e->assigned, (size_t)n + 1);
  LLVMBuildCondBr(B, read_cond(e, &s->cond), then, other);
  LLVMPositionBuilderAtEnd(B, then);
  emit_forget(c);
  emit_step_list(e, s->body);
  LLVMBuildBr(B, done);
  bool *const after = e->assigned;
  e->assigned = before;
  LLVMPositionBuilderAtEnd(B, other);
  emit_forget(c);
  emit_step_list(e, s->otherwise);
  LLVMBuildBr(B, done);
  for (int i = 0; i < n; i++) e->assigned[i] |= after[i];
  LLVMPositionBuilderAtEnd(B, done);
  emit_forget(c);
}

static void loop_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef head = new_block(c, "head"), test = new_block(c, "test"), body = new_block(c, "body"),
                          done = new_block(c, "done");
  const V count = entry_alloca(c, c->i64, 1, 8);
  const V trip = s->trip ? wide(c, s->trip) : ki64(c, INT64_MAX);
  LLVMBuildStore(B, ki64(c, 0), count);
  LLVMBuildBr(B, head);
  LLVMPositionBuilderAtEnd(B, head);
  emit_forget(c);
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntSLT, load(c, c->i64, count), trip, ""), test, done);
  LLVMPositionBuilderAtEnd(B, test);
  LLVMBuildCondBr(B, s->cond.buffer >= 0 ? read_cond(e, &s->cond) : k_int(c, c->i1, 1), body, done);
  LLVMPositionBuilderAtEnd(B, body);
  if (s->iter_sym >= 0) sym_store(c, s->iter_sym, load(c, c->i64, count));
  emit_forget(c);
  emit_step_list(e, s->body);
  LLVMBuildStore(B, LLVMBuildAdd(B, load(c, c->i64, count), ki64(c, 1), ""), count);
  LLVMBuildBr(B, head);
  LLVMPositionBuilderAtEnd(B, done);
  emit_forget(c);
  if (s->trips_sym >= 0) {
    sym_store(c, s->trips_sym, load(c, c->i64, count));
    e->assigned[s->trips_sym] = true;
  }
}

static void sym_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const V v = s->src.buffer >= 0 ? read_int(e, &s->src) : wide(c, s->value);
  V ok = NULL;
  if (s->lo) ok = LLVMBuildICmp(B, LLVMIntSGE, v, wide(c, s->lo), "");
  if (s->hi) {
    const V below = LLVMBuildICmp(B, LLVMIntSLE, v, wide(c, s->hi), "");
    ok = ok ? LLVMBuildAnd(B, ok, below, "") : below;
  }
  if (ok) fail_unless(c, ok, BURIN_E_DATA);
  sym_store(c, s->sym, v);
  e->assigned[s->sym] = true;
}

static void check_step(Entry *e, const Step *s) {
  Emit *const c = e->c;
  const V v = wide(c, s->value);
  const V above = LLVMBuildICmp(B, LLVMIntSGE, v, wide(c, s->lo), ""), below = LLVMBuildICmp(B, LLVMIntSLE, v, wide(c, s->hi), "");
  fail_unless(c, LLVMBuildAnd(B, above, below, ""), BURIN_E_DIMS);
}

static void emit_step_list(Entry *e, const Step *s) {
  for (; s && !e->c->error; s = s->next) {
    emit_forget(e->c);
    switch (s->kind) {
      case STEP_KERNEL: profiled(e, s, call_kernel); break;
      case STEP_EXTERN: profiled(e, s, call_extern); break;
      case STEP_COPY: copy_step(e, s); break;
      case STEP_IF: if_step(e, s); break;
      case STEP_LOOP: loop_step(e, s); break;
      case STEP_SYM: sym_step(e, s); break;
      case STEP_CHECK: check_step(e, s); break;
    }
  }
}

/* ---- checks at entry ----------------------------------------------------------------------------------------------------- */
static bool uses_runtime(ExprPool *pool, const Expr *e) {
  if (!(e->flags & EXF_SYM)) return false;
  if (e->op == EX_SYM) return expr_symbol(pool, e->id)->runtime;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i] && uses_runtime(pool, e->a[i])) return true;
  return false;
}

static const Expr *buffer_bytes(Emit *c, const Program *p, int id) {
  const Buffer *const b = &p->m->buffers.data[id];
  return ex_mul(c->pool, upper(p, b->count), ex_i64(c->pool, dtype_bytes(b->dtype)));
}

static void check_dims(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  for (int i = 0; i < p->n_caller; i++) {
    const Symbol *const s = expr_symbol(c->pool, p->symbols[i]);
    const V v = load(c, c->i64, at_k(c, c->i64, c->sym_array, p->symbols[i]));
    fail_unless(c, LLVMBuildICmp(B, LLVMIntSGE, v, ki64(c, s->lo > 0 ? s->lo : 0), ""), BURIN_E_DIMS);
    const V most = s->bound && !uses_runtime(c->pool, s->bound) ? wide(c, s->bound) : ki64(c, INT32_MAX);
    fail_unless(c, LLVMBuildICmp(B, LLVMIntSLE, v, most, ""), BURIN_E_DIMS);
  }
  emit_forget(c);
  const int n_io = p->m->inputs.n + p->m->outputs.n;
  for (int i = 0; i < n_io; i++) {
    const int id = i < p->m->inputs.n ? p->m->inputs.data[i] : p->m->outputs.data[i - p->m->inputs.n];
    const Expr *const bytes = buffer_bytes(c, p, id);
    int64_t k;
    if (!expr_is_const(bytes, &k)) fail_unless(c, fits(c, bytes), BURIN_E_DIMS);
    emit_forget(c);
  }
  int64_t k;
  if (!expr_is_const(arena_bytes64(c, p), &k)) fail_unless(c, fits(c, arena_bytes64(c, p)), BURIN_E_DIMS);
  emit_forget(c);
  const Model *const m = p->m->model;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *const d = &m->assumes.data[i];
    if (!assume_at_entry(m, d) || uses_runtime(c->pool, d->a) || uses_runtime(c->pool, d->b)) continue;
    fail_unless(c, LLVMBuildICmp(B, LLVMIntEQ, wide(c, d->a), wide(c, d->b), ""), BURIN_E_DIMS);
    emit_forget(c);
  }
}

/* A tensor without elements may be NULL. */
static void check_pointers(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  const int n_in = p->m->inputs.n;
  for (int i = 0; i < n_in + p->m->outputs.n; i++) {
    const int id = i < n_in ? p->m->inputs.data[i] : p->m->outputs.data[i - n_in];
    const Expr *const bytes = buffer_bytes(c, p, id);
    const V ptr = load(c, c->ptr, at_k(c, c->ptr, i < n_in ? e->in : e->out, i < n_in ? i : i - n_in));
    V ok = LLVMBuildICmp(B, LLVMIntNE, ptr, LLVMConstNull(c->ptr), "");
    int64_t lo, hi;
    if (!expr_range(c->pool, bytes, &lo, &hi) || lo <= 0)
      ok = LLVMBuildOr(B, ok, LLVMBuildICmp(B, LLVMIntSLE, wide(c, bytes), ki64(c, 0), ""), "");
    fail_unless(c, ok, BURIN_E_ARGUMENT);
    emit_forget(c);
  }
  const V bits = LLVMBuildPtrToInt(B, e->arena, c->i64, "");
  const V needed = LLVMBuildAdd(B, wide(c, arena_bytes64(c, p)), wide(c, thread_bytes(c, p)), "");
  const V usable = LLVMBuildAnd(B, LLVMBuildICmp(B, LLVMIntNE, bits, ki64(c, 0), ""),
                                LLVMBuildICmp(B, LLVMIntEQ, LLVMBuildAnd(B, bits, ki64(c, 63), ""), ki64(c, 0), ""), "");
  fail_unless(c, LLVMBuildOr(B, usable, LLVMBuildICmp(B, LLVMIntEQ, needed, ki64(c, 0), ""), ""), BURIN_E_ARENA);
}

static void check_threads(Entry *e) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef some = new_block(c, "options"), good = new_block(c, "good"), bad = new_block(c, "bad");
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntNE, e->opts, LLVMConstNull(c->ptr), ""), some, good);
  LLVMPositionBuilderAtEnd(B, some);
  const V threads = load(c, c->i32, field(c, options_type(c), e->opts, 1));
  const int most = e->p->m->max_threads > 1 ? e->p->m->max_threads : 1;
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntSLE, threads, k_int(c, c->i32, most), ""), good, bad);
  LLVMPositionBuilderAtEnd(B, bad);
  LLVMBuildRet(B, k_int(c, c->i32, BURIN_E_ARGUMENT));
  LLVMPositionBuilderAtEnd(B, good);
}

static int most_args(const Program *p) {
  int n = 2;
  for (int i = 0; i < p->calls.n; i++)
    if (p->calls.data[i]->n_args > n) n = p->calls.data[i]->n_args;
  return n;
}

static V emit_body(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(c->i32, (Ty[]){c->ptr, c->ptr, c->ptr, c->ptr, c->ptr}, 5, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_program", p->name), type, false);
  fn_attr(c, fn, "noinline", 0);
  Entry e = {.c = c, .p = p, .in = LLVMGetParam(fn, 0), .out = LLVMGetParam(fn, 1), .arena = LLVMGetParam(fn, 3),
             .opts = LLVMGetParam(fn, 4)};
  const V dims = LLVMGetParam(fn, 2), null = LLVMConstNull(c->ptr);
  if (p->m->inputs.n) fail_unless(c, LLVMBuildICmp(B, LLVMIntNE, e.in, null, ""), BURIN_E_ARGUMENT);
  if (p->m->outputs.n) fail_unless(c, LLVMBuildICmp(B, LLVMIntNE, e.out, null, ""), BURIN_E_ARGUMENT);
  if (p->n_symbols) fail_unless(c, LLVMBuildICmp(B, LLVMIntNE, dims, null, ""), BURIN_E_ARGUMENT);
  check_threads(&e);
  sym_array(c, p, dims);
  check_dims(&e);
  check_pointers(&e);
  e.assigned = ARENA_ARRAY(c->arena, bool, expr_symbol_count(c->pool) + 1);
  e.bufs = entry_alloca(c, c->ptr, most_args(p), 8);
  emit_forget(c);
  e.scratch = at(c, c->i8, e.arena, wide(c, arena_bytes64(c, p)));
  e.scratch_stride = wide(c, thread_bytes(c, p));
  emit_step_list(&e, p->m->steps);
  for (int i = p->n_caller; i < p->n_symbols; i++)
    LLVMBuildStore(B, load(c, c->i64, at_k(c, c->i64, c->sym_array, p->symbols[i])), at_k(c, c->i64, dims, i));
  LLVMBuildRet(B, k_int(c, c->i32, BURIN_OK));
  c->sym_array = NULL;
  return fn;
}

/* The same, in our floating-point mode. */
static V emit_invoke(Emit *c, const Program *p) {
  const V body = emit_body(c, p);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_invoke", p->name), LLVMGlobalGetValueType(body), false);
  V args[5];
  LLVMGetParams(fn, args);
  const V mode = fp_mode_enter(c);
  const V status = LLVMBuildCall2(B, LLVMGlobalGetValueType(body), body, args, 5, "");
  fp_mode_leave(c, mode);
  LLVMBuildRet(B, status);
  return fn;
}

/* NAME_run_opts(inputs struct, outputs struct, arena, options): the structs are the pointers, then the symbols. */
static void emit_run(Emit *c, const Program *p, V invoke, bool with_options) {
  const Ty args[4] = {c->ptr, c->ptr, c->ptr, c->ptr};
  const Ty type = LLVMFunctionType(c->i32, (Ty *)args, with_options ? 4 : 3, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_run%s", p->name, with_options ? "_opts" : ""), type, true);
  const V in = LLVMGetParam(fn, 0), out = LLVMGetParam(fn, 1);
  V ok = LLVMBuildICmp(B, LLVMIntNE, in, LLVMConstNull(c->ptr), "");
  ok = LLVMBuildAnd(B, ok, LLVMBuildICmp(B, LLVMIntNE, out, LLVMConstNull(c->ptr), ""), "");
  fail_unless(c, ok, BURIN_E_ARGUMENT);
  const int n_run = p->n_symbols - p->n_caller;
  const V dims = entry_alloca(c, c->i64, p->n_symbols > 1 ? p->n_symbols : 2, 8);
  const Ty in_type = LLVMStructTypeInContext(
      c->ctx, (Ty[]){LLVMArrayType2(c->ptr, (uint64_t)p->m->inputs.n), LLVMArrayType2(c->i64, (uint64_t)p->n_caller)}, 2, 0);
  const Ty out_type = LLVMStructTypeInContext(
      c->ctx, (Ty[]){LLVMArrayType2(c->ptr, (uint64_t)p->m->outputs.n), LLVMArrayType2(c->i64, (uint64_t)n_run)}, 2, 0);
  for (int i = 0; i < p->n_caller; i++)
    LLVMBuildStore(B, load(c, c->i64, at_k(c, c->i64, field(c, in_type, in, 1), i)), at_k(c, c->i64, dims, i));
  const V opts = with_options ? LLVMGetParam(fn, 3) : LLVMConstNull(c->ptr);
  const V status = LLVMBuildCall2(B, LLVMGlobalGetValueType(invoke), invoke, (V[]){in, out, dims, LLVMGetParam(fn, 2), opts}, 5, "");
  if (n_run) {
    const LLVMBasicBlockRef good = new_block(c, "good"), done = new_block(c, "done");
    LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), good, done);
    LLVMPositionBuilderAtEnd(B, good);
    for (int i = 0; i < n_run; i++)
      LLVMBuildStore(B, load(c, c->i64, at_k(c, c->i64, dims, p->n_caller + i)), at_k(c, c->i64, field(c, out_type, out, 1), i));
    LLVMBuildBr(B, done);
    LLVMPositionBuilderAtEnd(B, done);
  }
  LLVMBuildRet(B, status);
}

/* NAME_cpu_ok(): 1 when this CPU has what the code needs. */
static void emit_cpu_ok(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(c->i32, NULL, 0, 0);
  const V self = begin_function(c, arena_printf(c->arena, "%s_cpu_ok", p->name), type, true);
  if (c->t->arch == ARCH_X86_64) { /* must run anywhere */
    fn_attr_str(c, self, "target-cpu", "x86-64");
    fn_attr_str(c, self, "target-features", "");
  }
  Ty check_type;
  const V fn = declare(c, "burin_rt_cpu_missing", c->i64, 1, (Ty[]){c->i64}, &check_type);
  V needed = ki64(c, (int64_t)p->t->cpu_features);
  const V missing = LLVMBuildCall2(B, check_type, fn, &needed, 1, "");
  LLVMBuildRet(B, LLVMBuildZExt(B, LLVMBuildICmp(B, LLVMIntEQ, missing, ki64(c, 0), ""), c->i32, ""));
}

static void emit_zeros(Emit *c, const Program *p) {
  if (!p->zeros) return;
  const Ty t = LLVMArrayType2(c->i8, (uint64_t)p->zeros);
  const V g = LLVMAddGlobal(c->mod, t, arena_printf(c->arena, "%s_zeros", p->name));
  LLVMSetInitializer(g, LLVMConstNull(t));
  LLVMSetGlobalConstant(g, 1);
  LLVMSetVisibility(g, LLVMHiddenVisibility);
  LLVMSetAlignment(g, 64);
}

const char *emit_program(const Program *p, KernelIR *out) {
  Emit emit, *const c = &emit;
  emit_init(c, p->m, p->t, p->name, "program", p->arena);
  emit_zeros(c, p);
  emit_profile_functions(c);
  const EntryFns fns = {emit_invoke(c, p), emit_arena_size(c, p), emit_output_dims(c, p)};
  emit_run(c, p, fns.invoke, false);
  emit_run(c, p, fns.invoke, true);
  emit_cpu_ok(c, p);
  emit_info(c, p, &fns);
  LLVMDisposeBuilder(c->b);
  *out = (KernelIR){c->ctx, c->mod, 0};
  return c->error;
}
