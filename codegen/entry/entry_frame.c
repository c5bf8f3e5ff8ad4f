/* The frame of the entry: functions and their attributes, symbols on the stack, sizes computed from
 * them; and functions for parts of long lists of steps. */
#include "codegen/entry/entry.h"

/* ---- functions ---- */
void fail_unless(Emit *c, Val ok, int status) {
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good");
  LLVMBuildCondBr(c->b, ok, good, bad);
  LLVMPositionBuilderAtEnd(c->b, bad);
  LLVMBuildRet(c->b, k_int(c, c->i32, status));
  LLVMPositionBuilderAtEnd(c->b, good);
}

Val declare(Emit *c, const char *name, Type result, int n, Type const *args, Type *type) {
  *type = LLVMFunctionType(result, (Type *)args, (unsigned)n, 0);
  Val fn = LLVMGetNamedFunction(c->mod, name);
  if (fn) return fn;
  fn = LLVMAddFunction(c->mod, name, *type);
  LLVMSetVisibility(fn, LLVMHiddenVisibility);
  fn_attr(c, fn, "nounwind", 0);
  return fn;
}

Val begin_function(Emit *c, const char *name, Type type, bool exported) {
  const Val fn = LLVMAddFunction(c->mod, name, type);
  if (!exported) LLVMSetVisibility(fn, LLVMHiddenVisibility);
  fn_attr_str(c, fn, "target-cpu", c->t->cpu);
  fn_attr_str(c, fn, "target-features", c->t->llvm_features);
  fn_attr_str(c, fn, "no-builtins", "");
  fn_attr_str(c, fn, "frame-pointer", "none");
  fn_attr(c, fn, "nounwind", 0);
  emit_begin(c, fn);
  c->unchecked = true;
  return fn;
}

/* ---- symbols ---- */
void sym_store(Emit *c, int id, Val v) {
  LLVMBuildStore(c->b, v, at_k(c, c->i64, c->sym_array, id));
  emit_forget(c);
}

/* The array: the caller's symbols from `dims`, run-time ones at their upper bounds, so that every
 * size can be computed before they are known. */
void sym_array(Emit *c, const Program *p, Val dims) {
  const int n = expr_symbol_count(c->pool);
  c->sym_array = entry_alloca(c, c->i64, n > 1 ? n : 2, 8);
  for (int i = 0; i < p->n_caller; i++)
    sym_store(c, p->symbols[i], load(c, c->i64, at_k(c, c->i64, dims, i)));
  for (int i = 0; i < n; i++) {
    const Symbol *const s = expr_symbol(c->pool, i);
    if (s->runtime) sym_store(c, i, s->bound ? wide(c, program_upper(p, s->bound)) : ki64(c, 0));
  }
}

/* ---- sizes ---- */
typedef struct Approximate { /* what was computed, by expression */
  Emit *c;
  Vec(const Expr *) of;
  Vec(Val) values;
} Approximate;

static Val approximate_new(Approximate *a, const Expr *e);

/* The value of a size in floating point: cannot overflow, and is exact enough to refuse what
 * would. Offsets in memory share their parts. */
static Val approximate_shared(Approximate *a, const Expr *e) {
  for (int i = 0; i < a->of.n; i++)
    if (a->of.data[i] == e) return a->values.data[i];
  const Val v = approximate_new(a, e);
  vec_push(a->c->arena, &a->of, e);
  vec_push(a->c->arena, &a->values, v);
  return v;
}

static Val approximate(Emit *c, const Expr *e) {
  Approximate a = {.c = c};
  return approximate_shared(&a, e);
}

static Val approximate_new(Approximate *m, const Expr *e) {
  Emit *const c = m->c;
  int64_t k;
  if (expr_is_const(e, &k)) return LLVMConstReal(c->f64, (double)k);
  if (e->op == EX_add || e->op == EX_sub || e->op == EX_mul || e->op == EX_min || e->op == EX_max) {
    const Val a = approximate_shared(m, e->a[0]), b = approximate_shared(m, e->a[1]);
    if (e->op == EX_add) return LLVMBuildFAdd(c->b, a, b, "");
    if (e->op == EX_sub) return LLVMBuildFSub(c->b, a, b, "");
    if (e->op == EX_mul) return LLVMBuildFMul(c->b, a, b, "");
    const Val less = LLVMBuildFCmp(c->b, LLVMRealOLT, a, b, "");
    return e->op == EX_min ? LLVMBuildSelect(c->b, less, a, b, "")
                           : LLVMBuildSelect(c->b, less, b, a, "");
  }
  if (e->op == EX_floordiv && expr_is_const(e->a[1], &k) && k > 0)
    return LLVMBuildFDiv(c->b, approximate_shared(m, e->a[0]), LLVMConstReal(c->f64, (double)k),
                         "");
  if (e->op == EX_floordiv) { /* by less than one: by one */
    const Val by = approximate_shared(m, e->a[1]), one = LLVMConstReal(c->f64, 1);
    const Val some = LLVMBuildFCmp(c->b, LLVMRealOGE, by, one, "");
    return LLVMBuildFDiv(c->b, approximate_shared(m, e->a[0]),
                         LLVMBuildSelect(c->b, some, by, one, ""), "");
  }
  if (e->op == EX_select)
    return LLVMBuildSelect(c->b, wide(c, e->a[0]), approximate_shared(m, e->a[1]),
                           approximate_shared(m, e->a[2]), "");
  return LLVMBuildSIToFP(c->b, wide(c, e), c->f64, "");
}

Val fits(Emit *c, const Expr *bytes) {
  const double limit =
      c->t->pointer_bits == 32 ? 2147483648.0 : 70368744177664.0; /* 2 GiB, 64 TiB */
  return LLVMBuildFCmp(c->b, LLVMRealOLE, approximate(c, bytes), LLVMConstReal(c->f64, limit), "");
}

Val fits_arithmetic(Emit *c, const Expr *e) {
  if (expr_magnitude(e, INT32_MAX) < 4e18) return NULL;
  const Val v = approximate(c, e), most = LLVMConstReal(c->f64, 4e18);
  const Val below = LLVMBuildFCmp(c->b, LLVMRealOLE, v, most, "");
  return LLVMBuildAnd(c->b, below,
                      LLVMBuildFCmp(c->b, LLVMRealOGE, v, LLVMBuildFNeg(c->b, most, ""), ""), "");
}

Val emit_arena_size(Emit *c, const Program *p) {
  const Type type = LLVMFunctionType(c->i64, (Type[]){c->ptr, c->i32}, 2, 0);
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_arena_size", p->name), type, true);
  if (p->launches) { /* the device has it */
    LLVMBuildRet(c->b, ki64(c, 0));
    return fn;
  }
  sym_array(c, p, LLVMGetParam(fn, 0));
  const Val one = k_int(c, c->i32, 1), n = LLVMGetParam(fn, 1);
  const Val threads =
      LLVMBuildSelect(c->b, LLVMBuildICmp(c->b, LLVMIntSGT, n, one, ""), n, one, "");
  const Val scratch = LLVMBuildMul(c->b, wide(c, program_thread_bytes(p)),
                                   LLVMBuildZExt(c->b, threads, c->i64, ""), "");
  const Val total = LLVMBuildAdd(c->b, wide(c, program_arena_bytes(p)), scratch, "");
  const Val ok =
      LLVMBuildAnd(c->b, fits(c, program_arena_bytes(p)), fits(c, program_thread_bytes(p)), "");
  LLVMBuildRet(c->b, LLVMBuildSelect(c->b, ok, total, ki64(c, -1), ""));
  return fn;
}

/* A size of an output; where only bounds are known, what it is at most: n - k grows as k shrinks.
 */
static Val size_or_bound(Emit *c, const Program *p, const Expr *dim, Val bounds) {
  if (!expr_uses_runtime(c->pool, dim)) return wide(c, dim);
  return LLVMBuildSelect(c->b, bounds, wide(c, program_upper(p, dim)), wide(c, dim), "");
}

Val emit_output_dims(Emit *c, const Program *p) {
  const Type type = LLVMFunctionType(LLVMVoidTypeInContext(c->ctx),
                                     (Type[]){c->i32, c->ptr, c->ptr, c->i32}, 4, 0);
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_output_dims", p->name), type, true);
  const Val dims = LLVMGetParam(fn, 1), out = LLVMGetParam(fn, 2);
  sym_array(c, p, dims); /* run-time symbols at their bounds … */
  const LLVMBasicBlockRef exact = new_block(c, "exact"), known = new_block(c, "known"),
                          done = new_block(c, "done");
  const Val bounds = LLVMBuildICmp(c->b, LLVMIntNE, LLVMGetParam(fn, 3), k_int(c, c->i32, 0), "");
  LLVMBuildCondBr(c->b, bounds, known, exact);
  LLVMPositionBuilderAtEnd(c->b, exact); /* … or as the last run left them */
  for (int i = p->n_caller; i < p->n_symbols; i++)
    sym_store(c, p->symbols[i], load(c, c->i64, at_k(c, c->i64, dims, i)));
  LLVMBuildBr(c->b, known);
  LLVMPositionBuilderAtEnd(c->b, known);
  const Graph *const g = p->m->model->main;
  const Val choose = LLVMBuildSwitch(c->b, LLVMGetParam(fn, 0), done, (unsigned)p->m->outputs.n);
  for (int i = 0; g && i < g->outputs.n; i++) {
    const LLVMBasicBlockRef b = new_block(c, "output");
    LLVMAddCase(choose, k_int(c, c->i32, i), b);
    LLVMPositionBuilderAtEnd(c->b, b);
    emit_forget(c);
    const Value *const v = g->outputs.data[i];
    for (int d = 0; d < v->rank; d++)
      LLVMBuildStore(c->b, size_or_bound(c, p, v->dims[d], bounds), at_k(c, c->i64, out, d));
    LLVMBuildBr(c->b, done);
  }
  LLVMPositionBuilderAtEnd(c->b, done);
  LLVMBuildRetVoid(c->b);
  c->sym_array = NULL;
  return fn;
}

_Static_assert(sizeof(void *) != 8 || sizeof(BurinOptions) == 112, "the fields of options_type");
Type options_type(Emit *c) {
  const Type fields[] = {c->i32, c->i32, c->ptr, c->ptr, c->ptr, c->ptr, c->ptr, c->ptr,
                         c->i64, c->ptr, c->ptr, c->ptr, c->i32, c->i32, c->ptr, c->ptr};
  return LLVMStructTypeInContext(c->ctx, (Type *)fields, sizeof fields / sizeof *fields, 0);
}

Val options_heap(Entry *e) {
  Emit *const c = e->c;
  return load(c, c->ptr, field(c, options_type(c), e->opts, 15));
}

/* ---- parts ---- */

/* Long lists of steps are cut into functions: what LLVM does to a function grows faster than the
 * function. A part gets a frame of what the entry knows (arguments, symbols, scratch) and returns a
 * status. */
enum { PART = 32 }; /* steps of a function, those inside of conditions and loops included */

/* Steps of s; from PART on there may be more. */
static int weight(const Step *s) {
  int n = 1;
  for (int k = 0; k < 2; k++)
    for (const Step *t = k ? step_otherwise(s) : step_body(s); t && n < PART; t = t->next)
      n += weight(t);
  return n;
}

/* The first step that does not belong to the part that begins with s. */
static const Step *part_end(const Step *s) {
  int n = weight(s);
  for (s = s->next; s && (n += weight(s)) <= PART;) s = s->next;
  return s;
}

/* ---- the frame ---- */
enum { FRAME = 9, CPU_FRAME = 8 };

/* Those in use; the last one is of a device. */
static int frame_slots(const Entry *e) { return e->p->launches ? FRAME : CPU_FRAME; }

static void frame_values(Entry *e, Val **slot) {
  slot[0] = &e->in;
  slot[1] = &e->out;
  slot[2] = &e->arena;
  slot[3] = &e->opts;
  slot[4] = &e->scratch;
  slot[5] = &e->bufs;
  slot[6] = &e->c->sym_array;
  slot[7] = &e->scratch_stride;
  slot[8] = &e->run;
}

static Type slot_type(Emit *c, int i) { return i == 7 ? c->i64 : c->ptr; }

static Type frame_type(const Entry *e) {
  Emit *const c = e->c;
  Type t[FRAME];
  for (int i = 0; i < FRAME; i++) t[i] = slot_type(c, i);
  return LLVMStructTypeInContext(c->ctx, t, (unsigned)frame_slots(e), 0);
}

/* Stored once, before the steps: nothing in it changes while they run. */
static void make_frame(Entry *e) {
  Emit *const c = e->c;
  Val *slot[FRAME];
  frame_values(e, slot);
  e->frame = entry_alloca(c, frame_type(e), 1, 8);
  for (int i = 0; i < frame_slots(e); i++)
    LLVMBuildStore(c->b, *slot[i], field(c, frame_type(e), e->frame, i));
}

/* ---- parts ---- */
/* The steps from s to end; or all of s, cut into further parts. */
static Val emit_part(Entry *outer, const Step *s, const Step *end, bool all) {
  Emit *const c = outer->c;
  Entry e = *outer;
  const Val fn = begin_function(c, arena_printf(c->arena, "%s_part%d", e.p->name, (*e.parts)++),
                                LLVMFunctionType(c->i32, (Type[]){c->ptr}, 1, 0), false);
  LLVMSetVisibility(fn, LLVMDefaultVisibility);
  LLVMSetLinkage(fn, LLVMInternalLinkage);
  fn_attr(c, fn, "noinline", 0);
  e.frame = LLVMGetParam(fn, 0);
  Val *slot[FRAME];
  frame_values(&e, slot);
  for (int i = 0; i < frame_slots(&e); i++)
    *slot[i] = load(c, slot_type(c, i), field(c, frame_type(&e), e.frame, i));
  if (all)
    emit_step_list(&e, s);
  else
    emit_steps(&e, s, end);
  LLVMBuildRet(c->b, k_int(c, c->i32, BURIN_OK));
  outer->call = e.call;
  outer->assigned = e.assigned;
  return fn;
}

static Val call_part(Entry *e, const Step *s, const Step *end, bool all) {
  Emit *const c = e->c;
  const Val own_fn = c->fn, syms = c->sym_array;
  const LLVMBasicBlockRef own_entry = c->entry, here = LLVMGetInsertBlock(c->b);
  const Val part = emit_part(e, s, end, all);
  c->fn = own_fn;
  c->entry = own_entry;
  c->sym_array = syms;
  LLVMPositionBuilderAtEnd(c->b, here);
  emit_forget(c);
  return LLVMBuildCall2(c->b, LLVMGlobalGetValueType(part), part, &e->frame, 1, "");
}

void emit_step_list(Entry *e, const Step *s) {
  if (!s || !part_end(s)) {
    emit_steps(e, s, NULL);
    return;
  }
  while (s && !e->c->error) {
    const Step *const end = part_end(s);
    pass_on_failure(e->c, call_part(e, s, end, false));
    s = end;
  }
}

void emit_program_steps(Entry *e, const Step *s) {
  int parts = 0, n = 0;
  for (const Step *t = s; t && n < PART; t = t->next) n += weight(t);
  e->parts = &parts;
  if (n >= PART) make_frame(e);
  emit_step_list(e, s);
}

Val call_steps(Entry *e, const Step *s) {
  Emit *const c = e->c;
  int parts = 0;
  e->parts = &parts;
  e->scratch = LLVMConstNull(c->ptr);
  e->scratch_stride = ki64(c, 0);
  make_frame(e);
  return call_part(e, s, NULL, true);
}
