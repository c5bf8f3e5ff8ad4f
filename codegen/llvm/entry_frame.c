/* The frame of the entry: functions and their attributes, symbols on the stack, sizes computed from
 * them. */
#include "codegen/llvm/entry.h"

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
/* The value of a size in floating point: cannot overflow, and is exact enough to refuse what
 * would. */
static Val approximate(Emit *c, const Expr *e) {
  int64_t k;
  if (expr_is_const(e, &k)) return LLVMConstReal(c->f64, (double)k);
  if (e->op == EX_add || e->op == EX_sub || e->op == EX_mul || e->op == EX_min || e->op == EX_max) {
    const Val a = approximate(c, e->a[0]), b = approximate(c, e->a[1]);
    if (e->op == EX_add) return LLVMBuildFAdd(c->b, a, b, "");
    if (e->op == EX_sub) return LLVMBuildFSub(c->b, a, b, "");
    if (e->op == EX_mul) return LLVMBuildFMul(c->b, a, b, "");
    const Val less = LLVMBuildFCmp(c->b, LLVMRealOLT, a, b, "");
    return e->op == EX_min ? LLVMBuildSelect(c->b, less, a, b, "")
                           : LLVMBuildSelect(c->b, less, b, a, "");
  }
  if (e->op == EX_floordiv && expr_is_const(e->a[1], &k) && k > 0)
    return LLVMBuildFDiv(c->b, approximate(c, e->a[0]), LLVMConstReal(c->f64, (double)k), "");
  if (e->op == EX_floordiv) { /* by less than one: by one */
    const Val by = approximate(c, e->a[1]), one = LLVMConstReal(c->f64, 1);
    const Val some = LLVMBuildFCmp(c->b, LLVMRealOGE, by, one, "");
    return LLVMBuildFDiv(c->b, approximate(c, e->a[0]), LLVMBuildSelect(c->b, some, by, one, ""),
                         "");
  }
  if (e->op == EX_select)
    return LLVMBuildSelect(c->b, wide(c, e->a[0]), approximate(c, e->a[1]), approximate(c, e->a[2]),
                           "");
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

Type options_type(Emit *c) {
  return LLVMStructTypeInContext(
      c->ctx,
      (Type[]){c->i32, c->i32, c->ptr, c->ptr, c->ptr, c->ptr, c->ptr, c->ptr, c->i64, c->ptr}, 10,
      0);
}
