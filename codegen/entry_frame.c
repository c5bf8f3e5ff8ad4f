/* The frame of the entry: functions and their attributes, symbols on the stack, sizes computed from
 * them, and the checks of what the caller gave. */
#include "codegen/entry.h"

#define B c->b

/* ---- functions ------------------------------------------------------------------------------- */
void fail_unless(Emit *c, V ok, int status) {
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good");
  LLVMBuildCondBr(B, ok, good, bad);
  LLVMPositionBuilderAtEnd(B, bad);
  LLVMBuildRet(B, k_int(c, c->i32, status));
  LLVMPositionBuilderAtEnd(B, good);
}

V declare(Emit *c, const char *name, Ty result, int n, Ty const *args, Ty *type) {
  *type = LLVMFunctionType(result, (Ty *)args, (unsigned)n, 0);
  V fn = LLVMGetNamedFunction(c->mod, name);
  if (fn) return fn;
  fn = LLVMAddFunction(c->mod, name, *type);
  LLVMSetVisibility(fn, LLVMHiddenVisibility);
  fn_attr(c, fn, "nounwind", 0);
  return fn;
}

V begin_function(Emit *c, const char *name, Ty type, bool exported) {
  const V fn = LLVMAddFunction(c->mod, name, type);
  if (!exported) LLVMSetVisibility(fn, LLVMHiddenVisibility);
  fn_attr_str(c, fn, "target-cpu", c->t->cpu);
  fn_attr_str(c, fn, "target-features", c->t->features);
  fn_attr_str(c, fn, "no-builtins", "");
  fn_attr_str(c, fn, "frame-pointer", "none");
  fn_attr(c, fn, "nounwind", 0);
  emit_begin(c, fn);
  return fn;
}

/* ---- symbols --------------------------------------------------------------------------------- */
void sym_store(Emit *c, int id, V v) {
  LLVMBuildStore(B, v, at_k(c, c->i64, c->sym_array, id));
  emit_forget(c);
}

const Expr *upper(const Program *p, const Expr *e) {
  const Expr *const u = expr_upper(p->m->model->pool, e, NULL);
  return u ? u : ex_i64(p->m->model->pool, 0);
}

/* The array: the caller's symbols from `dims`, run-time ones at their upper bounds, so that every
 * size can be computed before they are known. */
void sym_array(Emit *c, const Program *p, V dims) {
  const int n = expr_symbol_count(c->pool);
  c->sym_array = entry_alloca(c, c->i64, n > 1 ? n : 2, 8);
  for (int i = 0; i < p->n_caller; i++)
    sym_store(c, p->symbols[i], load(c, c->i64, at_k(c, c->i64, dims, i)));
  for (int i = 0; i < n; i++) {
    const Symbol *const s = expr_symbol(c->pool, i);
    if (s->runtime) sym_store(c, i, s->bound ? wide(c, upper(p, s->bound)) : ki64(c, 0));
  }
}

/* ---- sizes ----------------------------------------------------------------------------------- */
/* The value of a size in floating point: cannot overflow, and is exact enough to refuse what would.
 */
static V approximate(Emit *c, const Expr *e) {
  int64_t k;
  if (expr_is_const(e, &k)) return LLVMConstReal(c->f64, (double)k);
  if (e->op == EX_add || e->op == EX_sub || e->op == EX_mul || e->op == EX_min || e->op == EX_max) {
    const V a = approximate(c, e->a[0]), b = approximate(c, e->a[1]);
    if (e->op == EX_add) return LLVMBuildFAdd(B, a, b, "");
    if (e->op == EX_sub) return LLVMBuildFSub(B, a, b, "");
    if (e->op == EX_mul) return LLVMBuildFMul(B, a, b, "");
    const V less = LLVMBuildFCmp(B, LLVMRealOLT, a, b, "");
    return e->op == EX_min ? LLVMBuildSelect(B, less, a, b, "")
                           : LLVMBuildSelect(B, less, b, a, "");
  }
  if (e->op == EX_floordiv && expr_is_const(e->a[1], &k) && k > 0)
    return LLVMBuildFDiv(B, approximate(c, e->a[0]), LLVMConstReal(c->f64, (double)k), "");
  return LLVMBuildSIToFP(B, wide(c, e), c->f64, "");
}

static V fits(Emit *c, const Expr *bytes) {
  const double limit =
      c->t->pointer_bits == 32 ? 2147483648.0 : 70368744177664.0; /* 2 GiB, 64 TiB */
  return LLVMBuildFCmp(B, LLVMRealOLE, approximate(c, bytes), LLVMConstReal(c->f64, limit), "");
}

static const Expr *zero(Emit *c) { return ex_i64(c->pool, 0); }
const Expr *arena_bytes64(Emit *c, const Program *p) {
  const Expr *const e = p->m->arena_bytes ? p->m->arena_bytes : zero(c);
  return ex_mul(c->pool, ex_ceildiv(c->pool, e, 64), ex_i64(c->pool, 64));
}
const Expr *thread_bytes(Emit *c, const Program *p) {
  return p->m->scratch_bytes ? p->m->scratch_bytes : zero(c);
}

V emit_arena_size(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(c->i64, (Ty[]){c->ptr, c->i32}, 2, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_arena_size", p->name), type, true);
  sym_array(c, p, LLVMGetParam(fn, 0));
  const V one = k_int(c, c->i32, 1), n = LLVMGetParam(fn, 1);
  const V threads = LLVMBuildSelect(B, LLVMBuildICmp(B, LLVMIntSGT, n, one, ""), n, one, "");
  const V scratch =
      LLVMBuildMul(B, wide(c, thread_bytes(c, p)), LLVMBuildZExt(B, threads, c->i64, ""), "");
  const V total = LLVMBuildAdd(B, wide(c, arena_bytes64(c, p)), scratch, "");
  const V ok = LLVMBuildAnd(B, fits(c, arena_bytes64(c, p)), fits(c, thread_bytes(c, p)), "");
  LLVMBuildRet(B, LLVMBuildSelect(B, ok, total, ki64(c, -1), ""));
  return fn;
}

/* A size of an output; where only bounds are known, what it is at most: n - k grows as k shrinks.
 */
static V size_or_bound(Emit *c, const Program *p, const Expr *dim, V bounds) {
  if (!expr_uses_runtime(c->pool, dim)) return wide(c, dim);
  return LLVMBuildSelect(B, bounds, wide(c, upper(p, dim)), wide(c, dim), "");
}

V emit_output_dims(Emit *c, const Program *p) {
  const Ty type =
      LLVMFunctionType(LLVMVoidTypeInContext(c->ctx), (Ty[]){c->i32, c->ptr, c->ptr, c->i32}, 4, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_output_dims", p->name), type, true);
  const V dims = LLVMGetParam(fn, 1), out = LLVMGetParam(fn, 2);
  sym_array(c, p, dims); /* run-time symbols at their bounds … */
  const LLVMBasicBlockRef exact = new_block(c, "exact"), known = new_block(c, "known"),
                          done = new_block(c, "done");
  const V bounds = LLVMBuildICmp(B, LLVMIntNE, LLVMGetParam(fn, 3), k_int(c, c->i32, 0), "");
  LLVMBuildCondBr(B, bounds, known, exact);
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
    for (int d = 0; d < v->rank; d++)
      LLVMBuildStore(B, size_or_bound(c, p, v->dims[d], bounds), at_k(c, c->i64, out, d));
    LLVMBuildBr(B, done);
  }
  LLVMPositionBuilderAtEnd(B, done);
  LLVMBuildRetVoid(B);
  c->sym_array = NULL;
  return fn;
}

Ty options_type(Emit *c) {
  return LLVMStructTypeInContext(
      c->ctx, (Ty[]){c->i32, c->i32, c->ptr, c->ptr, c->ptr, c->ptr, c->ptr}, 7, 0);
}

/* ---- checks of sizes ------------------------------------------------------------------------- */
/* What inference took for granted. */
void check_assume(Emit *c, const DimAssume *a) {
  const Expr *const holds = assume_condition(c->pool, a);
  fail_unless(c, wide(c, holds), BURIN_E_DIMS);
}

static const Expr *buffer_bytes(Emit *c, const Program *p, int id) {
  const Buffer *const b = &p->m->buffers.data[id];
  return ex_mul(c->pool, upper(p, b->count), ex_i64(c->pool, dtype_bytes(b->dtype)));
}

void check_dims(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  for (int i = 0; i < p->n_caller; i++) {
    const Symbol *const s = expr_symbol(c->pool, p->symbols[i]);
    const V v = load(c, c->i64, at_k(c, c->i64, c->sym_array, p->symbols[i]));
    fail_unless(c, LLVMBuildICmp(B, LLVMIntSGE, v, ki64(c, s->lo > 0 ? s->lo : 0), ""),
                BURIN_E_DIMS);
    const V most =
        s->bound && !expr_uses_runtime(c->pool, s->bound) ? wide(c, s->bound) : ki64(c, INT32_MAX);
    fail_unless(c, LLVMBuildICmp(B, LLVMIntSLE, v, most, ""), BURIN_E_DIMS);
  }
  emit_forget(c);
  const int n_io = p->m->inputs.n + p->m->outputs.n;
  for (int i = 0; i < n_io; i++) {
    const int id =
        i < p->m->inputs.n ? p->m->inputs.data[i] : p->m->outputs.data[i - p->m->inputs.n];
    const Expr *const bytes = buffer_bytes(c, p, id);
    int64_t k;
    if (!expr_is_const(bytes, &k)) fail_unless(c, fits(c, bytes), BURIN_E_DIMS);
    emit_forget(c);
  }
  int64_t k;
  if (!expr_is_const(arena_bytes64(c, p), &k))
    fail_unless(c, fits(c, arena_bytes64(c, p)), BURIN_E_DIMS);
  emit_forget(c);
  const Model *const m = p->m->model;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *const d = &m->assumes.data[i];
    if (!assume_at_entry(m, d) || expr_uses_runtime(c->pool, d->a) ||
        expr_uses_runtime(c->pool, d->b))
      continue;
    check_assume(c, d);
    emit_forget(c);
  }
}

/* A tensor without elements may be NULL. */
void check_pointers(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  const int n_in = p->m->inputs.n;
  for (int i = 0; i < n_in + p->m->outputs.n; i++) {
    const int id = i < n_in ? p->m->inputs.data[i] : p->m->outputs.data[i - n_in];
    const Expr *const bytes = buffer_bytes(c, p, id);
    const V ptr =
        load(c, c->ptr, at_k(c, c->ptr, i < n_in ? e->in : e->out, i < n_in ? i : i - n_in));
    V ok = LLVMBuildICmp(B, LLVMIntNE, ptr, LLVMConstNull(c->ptr), "");
    int64_t lo, hi;
    if (!expr_range(c->pool, bytes, &lo, &hi) || lo <= 0)
      ok = LLVMBuildOr(B, ok, LLVMBuildICmp(B, LLVMIntSLE, wide(c, bytes), ki64(c, 0), ""), "");
    fail_unless(c, ok, BURIN_E_ARGUMENT);
    emit_forget(c);
  }
  const V bits = LLVMBuildPtrToInt(B, e->arena, c->i64, "");
  const V needed = LLVMBuildAdd(B, wide(c, arena_bytes64(c, p)), wide(c, thread_bytes(c, p)), "");
  const V usable = LLVMBuildAnd(
      B, LLVMBuildICmp(B, LLVMIntNE, bits, ki64(c, 0), ""),
      LLVMBuildICmp(B, LLVMIntEQ, LLVMBuildAnd(B, bits, ki64(c, 63), ""), ki64(c, 0), ""), "");
  fail_unless(c, LLVMBuildOr(B, usable, LLVMBuildICmp(B, LLVMIntEQ, needed, ki64(c, 0), ""), ""),
              BURIN_E_ARENA);
}

void check_threads(Entry *e) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef some = new_block(c, "options"), good = new_block(c, "good"),
                          bad = new_block(c, "bad");
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntNE, e->opts, LLVMConstNull(c->ptr), ""), some, good);
  LLVMPositionBuilderAtEnd(B, some);
  const V threads = load(c, c->i32, field(c, options_type(c), e->opts, 1));
  const int most = e->p->m->max_threads > 1 ? e->p->m->max_threads : 1;
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntSLE, threads, k_int(c, c->i32, most), ""), good, bad);
  LLVMPositionBuilderAtEnd(B, bad);
  LLVMBuildRet(B, k_int(c, c->i32, BURIN_E_ARGUMENT));
  LLVMPositionBuilderAtEnd(B, good);
}
