/* What a run refuses before it computes: options, pointers, sizes, the arena. A check that fails
 * leaves its row of the table (checks.c) and its values in the caller's BurinFailure. */
#include "codegen/llvm/entry.h"

#define B c->b

/* ---- one check ---- */
static V fail_with(Entry *e, V status, V check, int n, V const *values) {
  Emit *const c = e->c;
  Ty type;
  const V fail = declare(c, "burin_rt_fail", c->i32, 6,
                         (Ty[]){c->ptr, c->i32, c->i32, c->i64, c->i64, c->i64}, &type);
  V args[6] = {e->opts, status, check, ki64(c, 0), ki64(c, 0), ki64(c, 0)};
  for (int i = 0; i < n && i < 3; i++) args[3 + i] = values[i];
  return LLVMBuildCall2(B, type, fail, args, 6, "");
}

void require_status(Entry *e, V ok, V status, int check, int n, V const *values) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good");
  LLVMBuildCondBr(B, ok, good, bad);
  LLVMPositionBuilderAtEnd(B, bad);
  LLVMBuildRet(B, fail_with(e, status, k_int(c, c->i32, check), n, values));
  LLVMPositionBuilderAtEnd(B, good);
}

void require(Entry *e, V ok, int check, int n, V const *values) {
  require_status(e, ok, k_int(e->c, e->c->i32, e->p->checks->data[check].status), check, n, values);
}

static void require_assumed(Entry *e, const DimAssume *a, int check, const Expr *const *numbers) {
  Emit *const c = e->c;
  V ok = wide(c, assume_condition(c->pool, a)), values[3];
  const V sides[2] = {fits_arithmetic(c, a->a), fits_arithmetic(c, a->b)};
  for (int i = 0; i < 2; i++)
    if (sides[i]) ok = LLVMBuildAnd(B, ok, sides[i], "");
  for (int i = 0; i < 3; i++) values[i] = numbers[i] ? wide(c, numbers[i]) : ki64(c, 0);
  require(e, ok, check, 3, values);
}

void require_assume(Entry *e, const DimAssume *a) {
  const Expr *numbers[3] = {NULL};
  require_assumed(e, a, check_assume(e->p, a, numbers), numbers);
}

static V not_null(Emit *c, V pointer) {
  return LLVMBuildICmp(B, LLVMIntNE, pointer, LLVMConstNull(c->ptr), "");
}

/* ---- options and arguments ---- */
static void check_options(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Ty options = options_type(c);
  const V given = e->opts;
  e->opts = entry_alloca(c, options, 1, 8);
  Ty type;
  const V complete = declare(c, "burin_rt_options", c->i32, 2, (Ty[]){c->ptr, c->ptr}, &type);
  const V status = LLVMBuildCall2(B, type, complete, (V[]){given, e->opts}, 2, "");
  require(e, LLVMBuildICmp(B, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), item->check, 0, NULL);
  const V threads = LLVMBuildSExt(B, load(c, c->i32, field(c, options, e->opts, 1)), c->i64, "");
  require(e, LLVMBuildICmp(B, LLVMIntSLE, threads, ki64(c, item->n), ""), item->check + 1, 1,
          &threads);
}

static void check_argument(Entry *e, const EntryItem *item) {
  const V arrays[] = {e->in, e->out, e->dims};
  require(e, not_null(e->c, arrays[item->k]), item->check, 0, NULL);
}

/* Weights in a file: behind them stands their hash once they are mapped. */
static void check_weights(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const V weights = hidden_bytes(c, arena_printf(c->arena, "%s_weights", e->p->name));
  const V stored = load(c, c->i64, at_k(c, c->i8, weights, e->p->weights.bytes));
  require(e, LLVMBuildICmp(B, LLVMIntEQ, stored, ki64(c, item->n), ""), item->check, 0, NULL);
}

/* ---- sizes ---- */
static void check_symbol(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const V v = load(c, c->i64, at_k(c, c->i64, c->sym_array, item->k));
  const V least = ki64(c, item->n), most = item->e ? wide(c, item->e) : ki64(c, INT32_MAX);
  require(e, LLVMBuildICmp(B, LLVMIntSGE, v, least, ""), item->check, 2, (V[]){v, least});
  require(e, LLVMBuildICmp(B, LLVMIntSLE, v, most, ""), item->check + 1, 2, (V[]){v, most});
}

/* ---- defaults ---- */
static void check_default_size(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const V size = wide(c, item->e), own = ki64(c, item->n);
  const V fine = LLVMBuildOr(B, e->fine, LLVMBuildICmp(B, LLVMIntEQ, size, own, ""), "");
  require(e, fine, item->check, 2, (V[]){size, own});
  emit_forget(c);
}

static V call_inputs(Entry *e, V own) {
  Emit *const c = e->c;
  const V table = hidden_bytes(c, arena_printf(c->arena, "%s_defaults", e->p->name));
  Ty type;
  const V fn =
      declare(c, "burin_rt_inputs", c->i64, 4, (Ty[]){c->ptr, c->ptr, c->i64, c->ptr}, &type);
  return LLVMBuildCall2(B, type, fn, (V[]){e->in, table, ki64(c, e->p->m->inputs.n), own}, 4, "");
}

/* A copy of the inputs in which a NULL for an input with a default is the default's address, and
 * behind which stands the address of a bool: no such input is given. */
static void take_defaults(Entry *e) {
  Emit *const c = e->c;
  const int n = e->p->m->inputs.n;
  e->own_in = entry_alloca(c, c->ptr, n + 1, 8);
  const V unset = entry_alloca(c, c->i8, 1, 1);
  e->wrong = call_inputs(e, e->own_in);
  e->given = LLVMBuildICmp(B, LLVMIntNE, e->wrong, ki64(c, -1), "");
  LLVMBuildStore(B, LLVMBuildZExt(B, LLVMBuildNot(B, e->given, ""), c->i8, ""), unset);
  LLVMBuildStore(B, unset, at_k(c, c->ptr, e->own_in, n));
}

static void check_default(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const V there = not_null(c, load(c, c->ptr, at_k(c, c->ptr, e->in, item->k)));
  if (item->check >= 0)
    require(e, LLVMBuildICmp(B, LLVMIntNE, e->wrong, ki64(c, item->k + 1), ""), item->check, 0,
            NULL);
  e->fine = LLVMBuildOr(B, there, LLVMBuildNot(B, e->given, ""), "");
}

/* ---- pointers ---- */
/* A tensor without elements may be NULL. */
static void check_pointer(Entry *e, V array, int at, const EntryItem *item) {
  Emit *const c = e->c;
  V ok = not_null(c, load(c, c->ptr, at_k(c, c->ptr, array, at)));
  if (!item->some) {
    const V bytes = wide(c, item->e);
    ok = LLVMBuildOr(B, ok, LLVMBuildICmp(B, LLVMIntSLE, bytes, ki64(c, 0), ""), "");
  }
  require(e, ok, item->check, 0, NULL);
  emit_forget(c);
}

/* The same for n that are never empty: what LLVM does to a function grows faster than the
 * function. */
static void check_pointers_in_loop(Entry *e, V array, int from, int first, int n) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef before = LLVMGetInsertBlock(B), loop = new_block(c, "pointers"),
                          good = new_block(c, "good"), bad = new_block(c, "bad"),
                          done = new_block(c, "done");
  LLVMBuildBr(B, loop);
  LLVMPositionBuilderAtEnd(B, loop);
  const V i = LLVMBuildPhi(B, c->i64, ""), next = LLVMBuildAdd(B, i, ki64(c, 1), "");
  const V pointer = load(c, c->ptr, at(c, c->ptr, at_k(c, c->ptr, array, from), i));
  LLVMBuildCondBr(B, not_null(c, pointer), good, bad);
  LLVMPositionBuilderAtEnd(B, good);
  LLVMBuildCondBr(B, LLVMBuildICmp(B, LLVMIntSLT, next, ki64(c, n), ""), loop, done);
  LLVMAddIncoming(i, (V[]){ki64(c, 0), next}, (LLVMBasicBlockRef[]){before, good}, 2);
  LLVMPositionBuilderAtEnd(B, bad);
  const V check = LLVMBuildAdd(B, LLVMBuildTrunc(B, i, c->i32, ""), k_int(c, c->i32, first), "");
  LLVMBuildRet(B, fail_with(e, k_int(c, c->i32, BURIN_E_ARGUMENT), check, 0, NULL));
  LLVMPositionBuilderAtEnd(B, done);
  emit_forget(c);
}

/* The pointer at `item`, or it and those behind it of the same array, whose checks are in a row.
 * Returns how many items that were. */
static int check_pointers(Entry *e, const EntryItem *item) {
  enum { MANY = 16 };
  const int n_in = e->p->m->inputs.n;
  const bool outputs = item->k >= n_in;
  const int first = outputs ? n_in : 0, last = n_in + (outputs ? e->p->m->outputs.n : 0);
  const V array = outputs ? e->out : e->in;
  int many = 0;
  while (item->k + many < last && item[many].some) many++;
  if (many >= MANY)
    check_pointers_in_loop(e, array, item->k - first, item->check, many);
  else
    for (int i = 0; i < (many ? many : 1); i++)
      check_pointer(e, array, item->k - first + i, &item[i]);
  return many ? many : 1;
}

/* ---- the arena ---- */
/* How many threads will run: those asked for, one where nobody lends any or where the arena's size
 * is not told and each needs room in it. */
static V effective_threads(Entry *e, V arena_bytes) {
  Emit *const c = e->c;
  const Ty options = options_type(c);
  const V slot = field(c, options, e->opts, 1), one = k_int(c, c->i32, 1);
  const V asked = load(c, c->i32, slot);
  const V lent = LLVMBuildOr(B, not_null(c, load(c, c->ptr, field(c, options, e->opts, 2))),
                             not_null(c, load(c, c->ptr, field(c, options, e->opts, 7))), "");
  V several = LLVMBuildAnd(B, LLVMBuildICmp(B, LLVMIntSGT, asked, one, ""), lent, "");
  const V told = LLVMBuildICmp(B, LLVMIntNE, arena_bytes, ki64(c, 0), ""),
          free_of_charge =
              LLVMBuildICmp(B, LLVMIntEQ, wide(c, program_thread_bytes(e->p)), ki64(c, 0), "");
  several = LLVMBuildAnd(B, several, LLVMBuildOr(B, told, free_of_charge, ""), "");
  const V threads = LLVMBuildSelect(B, several, asked, one, "");
  LLVMBuildStore(B, threads, slot);
  return LLVMBuildZExt(B, threads, c->i64, "");
}

static void check_arena(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const V given = load(c, c->i64, field(c, options_type(c), e->opts, 8));
  const V threads = effective_threads(e, given);
  const V scratch = LLVMBuildMul(B, threads, wide(c, program_thread_bytes(e->p)), "");
  const V needed = LLVMBuildAdd(B, wide(c, program_arena_bytes(e->p)), scratch, "");
  const V bits = LLVMBuildPtrToInt(B, e->arena, c->i64, ""), zero = ki64(c, 0);
  const V none = LLVMBuildICmp(B, LLVMIntEQ, needed, zero, "");
  const V there = LLVMBuildICmp(B, LLVMIntNE, bits, zero, ""),
          aligned = LLVMBuildICmp(B, LLVMIntEQ, LLVMBuildAnd(B, bits, ki64(c, 63), ""), zero, ""),
          large = LLVMBuildOr(B, LLVMBuildICmp(B, LLVMIntEQ, given, zero, ""),
                              LLVMBuildICmp(B, LLVMIntUGE, given, needed, ""), "");
  require(e, LLVMBuildOr(B, none, there, ""), item->check, 1, &needed);
  require(e, LLVMBuildOr(B, none, aligned, ""), item->check + 1, 0, NULL);
  require(e, large, item->check + 2, 3, (V[]){given, needed, threads});
  emit_forget(c);
}

static void check_size(Entry *e, const EntryItem *item) {
  if (item->kind == EN_SYMBOL)
    check_symbol(e, item);
  else if (item->kind == EN_FITS)
    require(e, fits(e->c, item->e), item->check, 0, NULL);
  else
    require_assumed(e, item->assume, item->check, item->values);
  emit_forget(e->c);
}

int entry_check(Entry *e, const EntryItem *item) {
  switch (item->kind) {
    case EN_OPTIONS: check_options(e, item); break;
    case EN_ARGUMENT: check_argument(e, item); break;
    case EN_WEIGHTS: check_weights(e, item); break;
    case EN_SYMBOLS: sym_array(e->c, e->p, e->dims); break;
    case EN_SYMBOL:
    case EN_FITS:
    case EN_ASSUME: check_size(e, item); break;
    case EN_DEFAULTS: take_defaults(e); break;
    case EN_DEFAULT: check_default(e, item); break;
    case EN_DEFAULT_SIZE: check_default_size(e, item); break;
    case EN_DEFAULTS_DONE: e->in = e->own_in; break;
    case EN_POINTER: return check_pointers(e, item);
    case EN_ARENA: check_arena(e, item); break;
    case EN_STEPS:
    case EN_RESULTS: break;
  }
  return 1;
}
