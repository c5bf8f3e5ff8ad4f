/* The frame of the entry: functions and their attributes, symbols on the stack, sizes computed from
 * them. */
#include "codegen/llvm/entry.h"

#define B c->b

/* ---- functions ---- */
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
  fn_attr_str(c, fn, "target-features", c->t->llvm_features);
  fn_attr_str(c, fn, "no-builtins", "");
  fn_attr_str(c, fn, "frame-pointer", "none");
  fn_attr(c, fn, "nounwind", 0);
  emit_begin(c, fn);
  c->unchecked = true;
  return fn;
}

/* ---- symbols ---- */
void sym_store(Emit *c, int id, V v) {
  LLVMBuildStore(B, v, at_k(c, c->i64, c->sym_array, id));
  emit_forget(c);
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
    if (s->runtime) sym_store(c, i, s->bound ? wide(c, program_upper(p, s->bound)) : ki64(c, 0));
  }
}

/* ---- sizes ---- */
/* The value of a size in floating point: cannot overflow, and is exact enough to refuse what
 * would. */
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
  if (e->op == EX_floordiv) { /* by less than one: by one */
    const V by = approximate(c, e->a[1]), one = LLVMConstReal(c->f64, 1);
    const V some = LLVMBuildFCmp(B, LLVMRealOGE, by, one, "");
    return LLVMBuildFDiv(B, approximate(c, e->a[0]), LLVMBuildSelect(B, some, by, one, ""), "");
  }
  if (e->op == EX_select)
    return LLVMBuildSelect(B, wide(c, e->a[0]), approximate(c, e->a[1]), approximate(c, e->a[2]),
                           "");
  return LLVMBuildSIToFP(B, wide(c, e), c->f64, "");
}

V fits(Emit *c, const Expr *bytes) {
  const double limit =
      c->t->pointer_bits == 32 ? 2147483648.0 : 70368744177664.0; /* 2 GiB, 64 TiB */
  return LLVMBuildFCmp(B, LLVMRealOLE, approximate(c, bytes), LLVMConstReal(c->f64, limit), "");
}

V fits_arithmetic(Emit *c, const Expr *e) {
  if (expr_magnitude(e, INT32_MAX) < 4e18) return NULL;
  const V v = approximate(c, e), most = LLVMConstReal(c->f64, 4e18);
  const V below = LLVMBuildFCmp(B, LLVMRealOLE, v, most, "");
  return LLVMBuildAnd(B, below, LLVMBuildFCmp(B, LLVMRealOGE, v, LLVMBuildFNeg(B, most, ""), ""),
                      "");
}

V emit_arena_size(Emit *c, const Program *p) {
  const Ty type = LLVMFunctionType(c->i64, (Ty[]){c->ptr, c->i32}, 2, 0);
  const V fn = begin_function(c, arena_printf(c->arena, "%s_arena_size", p->name), type, true);
  sym_array(c, p, LLVMGetParam(fn, 0));
  const V one = k_int(c, c->i32, 1), n = LLVMGetParam(fn, 1);
  const V threads = LLVMBuildSelect(B, LLVMBuildICmp(B, LLVMIntSGT, n, one, ""), n, one, "");
  const V scratch =
      LLVMBuildMul(B, wide(c, program_thread_bytes(p)), LLVMBuildZExt(B, threads, c->i64, ""), "");
  const V total = LLVMBuildAdd(B, wide(c, program_arena_bytes(p)), scratch, "");
  const V ok =
      LLVMBuildAnd(B, fits(c, program_arena_bytes(p)), fits(c, program_thread_bytes(p)), "");
  LLVMBuildRet(B, LLVMBuildSelect(B, ok, total, ki64(c, -1), ""));
  return fn;
}

/* A size of an output; where only bounds are known, what it is at most: n - k grows as k shrinks.
 */
static V size_or_bound(Emit *c, const Program *p, const Expr *dim, V bounds) {
  if (!expr_uses_runtime(c->pool, dim)) return wide(c, dim);
  return LLVMBuildSelect(B, bounds, wide(c, program_upper(p, dim)), wide(c, dim), "");
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
      c->ctx,
      (Ty[]){c->i32, c->i32, c->ptr, c->ptr, c->ptr, c->ptr, c->ptr, c->ptr, c->i64, c->ptr}, 10,
      0);
}
