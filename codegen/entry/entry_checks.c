/* What a run refuses before it computes: options, pointers, sizes, the arena. A check that fails
 * leaves its row of the table (checks.c) and its values in the caller's BurinFailure. */
#include "codegen/entry/entry.h"

/* ---- one check ---- */
static Val fail_with(Entry *e, Val status, Val check, int n, Val const *values) {
  Emit *const c = e->c;
  Type type;
  const Val fail = declare(c, "burin_rt_fail", c->i32, 6,
                           (Type[]){c->ptr, c->i32, c->i32, c->i64, c->i64, c->i64}, &type);
  Val args[6] = {e->opts, status, check, ki64(c, 0), ki64(c, 0), ki64(c, 0)};
  for (int i = 0; i < n && i < 3; i++) args[3 + i] = values[i];
  return LLVMBuildCall2(c->b, type, fail, args, 6, "");
}

void require_status(Entry *e, Val ok, Val status, int check, int n, Val const *values) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef bad = new_block(c, "bad"), good = new_block(c, "good");
  LLVMBuildCondBr(c->b, ok, good, bad);
  LLVMPositionBuilderAtEnd(c->b, bad);
  LLVMBuildRet(c->b, fail_with(e, status, k_int(c, c->i32, check), n, values));
  LLVMPositionBuilderAtEnd(c->b, good);
}

void require(Entry *e, Val ok, int check, int n, Val const *values) {
  require_status(e, ok, k_int(e->c, e->c->i32, e->p->checks->data[check].status), check, n, values);
}

static void require_assumed(Entry *e, const DimAssume *a, int check, const Expr *const *numbers) {
  Emit *const c = e->c;
  Val ok = wide(c, assume_condition(c->pool, a)), values[3];
  const Val sides[2] = {fits_arithmetic(c, a->a), fits_arithmetic(c, a->b)};
  for (int i = 0; i < 2; i++)
    if (sides[i]) ok = LLVMBuildAnd(c->b, ok, sides[i], "");
  for (int i = 0; i < 3; i++) values[i] = numbers[i] ? wide(c, numbers[i]) : ki64(c, 0);
  require(e, ok, check, 3, values);
}

void require_assume(Entry *e, const DimAssume *a) {
  const Expr *numbers[3] = {NULL};
  require_assumed(e, a, check_assume(e->p, a, numbers), numbers);
}

static Val not_null(Emit *c, Val pointer) {
  return LLVMBuildICmp(c->b, LLVMIntNE, pointer, LLVMConstNull(c->ptr), "");
}

/* ---- options and arguments ---- */
static void check_options(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Type options = options_type(c);
  const Val given = e->opts;
  e->opts = entry_alloca(c, options, 1, 8);
  Type type;
  const Val complete = declare(c, "burin_rt_options", c->i32, 2, (Type[]){c->ptr, c->ptr}, &type);
  const Val status = LLVMBuildCall2(c->b, type, complete, (Val[]){given, e->opts}, 2, "");
  require(e, LLVMBuildICmp(c->b, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), item->check, 0, NULL);
  const Val threads =
      LLVMBuildSExt(c->b, load(c, c->i32, field(c, options, e->opts, 1)), c->i64, "");
  require(e, LLVMBuildICmp(c->b, LLVMIntSLE, threads, ki64(c, item->n), ""), item->check + 1, 1,
          &threads);
}

static void check_argument(Entry *e, const EntryItem *item) {
  const Val arrays[] = {e->in, e->out, e->dims};
  require(e, not_null(e->c, arrays[item->k]), item->check, 0, NULL);
}

/* Weights in a file: behind them stands their hash once they are mapped. */
static void check_weights(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Val weights = hidden_bytes(c, arena_printf(c->arena, "%s_weights", e->p->name));
  const Val stored = load(c, c->i64, at_k(c, c->i8, weights, e->p->weights.bytes));
  require(e, LLVMBuildICmp(c->b, LLVMIntEQ, stored, ki64(c, item->n), ""), item->check, 0, NULL);
}

/* ---- sizes ---- */
static void check_symbol(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Val v = load(c, c->i64, at_k(c, c->i64, c->sym_array, item->k));
  const Val least = ki64(c, item->n), most = item->e ? wide(c, item->e) : ki64(c, INT32_MAX);
  require(e, LLVMBuildICmp(c->b, LLVMIntSGE, v, least, ""), item->check, 2, (Val[]){v, least});
  require(e, LLVMBuildICmp(c->b, LLVMIntSLE, v, most, ""), item->check + 1, 2, (Val[]){v, most});
}

/* ---- defaults ---- */
static void check_default_size(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Val size = wide(c, item->e), own = ki64(c, item->n);
  const Val fine = LLVMBuildOr(c->b, e->fine, LLVMBuildICmp(c->b, LLVMIntEQ, size, own, ""), "");
  require(e, fine, item->check, 2, (Val[]){size, own});
  emit_forget(c);
}

static Val call_inputs(Entry *e, Val own) {
  Emit *const c = e->c;
  const Val table = hidden_bytes(c, arena_printf(c->arena, "%s_defaults", e->p->name));
  Type type;
  const Val fn =
      declare(c, "burin_rt_inputs", c->i64, 4, (Type[]){c->ptr, c->ptr, c->i64, c->ptr}, &type);
  return LLVMBuildCall2(c->b, type, fn, (Val[]){e->in, table, ki64(c, e->p->m->inputs.n), own}, 4,
                        "");
}

/* A copy of the inputs in which a NULL for an input with a default is the default's address, and
 * behind which stands the address of a bool: no such input is given. */
static void take_defaults(Entry *e) {
  Emit *const c = e->c;
  const int n = e->p->m->inputs.n;
  e->own_in = entry_alloca(c, c->ptr, n + 1, 8);
  const Val unset = entry_alloca(c, c->i8, 1, 1);
  e->wrong = call_inputs(e, e->own_in);
  e->given = LLVMBuildICmp(c->b, LLVMIntNE, e->wrong, ki64(c, -1), "");
  LLVMBuildStore(c->b, LLVMBuildZExt(c->b, LLVMBuildNot(c->b, e->given, ""), c->i8, ""), unset);
  LLVMBuildStore(c->b, unset, at_k(c, c->ptr, e->own_in, n));
}

static void check_default(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Val there = not_null(c, load(c, c->ptr, at_k(c, c->ptr, e->in, item->k)));
  if (item->check >= 0)
    require(e, LLVMBuildICmp(c->b, LLVMIntNE, e->wrong, ki64(c, item->k + 1), ""), item->check, 0,
            NULL);
  e->fine = LLVMBuildOr(c->b, there, LLVMBuildNot(c->b, e->given, ""), "");
}

/* ---- pointers ---- */
/* A tensor without elements may be NULL. */
static void check_pointer(Entry *e, Val array, int at, const EntryItem *item) {
  Emit *const c = e->c;
  Val ok = not_null(c, load(c, c->ptr, at_k(c, c->ptr, array, at)));
  if (!item->some) {
    const Val bytes = wide(c, item->e);
    ok = LLVMBuildOr(c->b, ok, LLVMBuildICmp(c->b, LLVMIntSLE, bytes, ki64(c, 0), ""), "");
  }
  require(e, ok, item->check, 0, NULL);
  emit_forget(c);
}

/* The same for n that are never empty: what LLVM does to a function grows faster than the
 * function. */
static void check_pointers_in_loop(Entry *e, Val array, int from, int first, int n) {
  Emit *const c = e->c;
  const LLVMBasicBlockRef before = LLVMGetInsertBlock(c->b), loop = new_block(c, "pointers"),
                          good = new_block(c, "good"), bad = new_block(c, "bad"),
                          done = new_block(c, "done");
  LLVMBuildBr(c->b, loop);
  LLVMPositionBuilderAtEnd(c->b, loop);
  const Val i = LLVMBuildPhi(c->b, c->i64, ""), next = LLVMBuildAdd(c->b, i, ki64(c, 1), "");
  const Val pointer = load(c, c->ptr, at(c, c->ptr, at_k(c, c->ptr, array, from), i));
  LLVMBuildCondBr(c->b, not_null(c, pointer), good, bad);
  LLVMPositionBuilderAtEnd(c->b, good);
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntSLT, next, ki64(c, n), ""), loop, done);
  LLVMAddIncoming(i, (Val[]){ki64(c, 0), next}, (LLVMBasicBlockRef[]){before, good}, 2);
  LLVMPositionBuilderAtEnd(c->b, bad);
  const Val check =
      LLVMBuildAdd(c->b, LLVMBuildTrunc(c->b, i, c->i32, ""), k_int(c, c->i32, first), "");
  LLVMBuildRet(c->b, fail_with(e, k_int(c, c->i32, BURIN_E_ARGUMENT), check, 0, NULL));
  LLVMPositionBuilderAtEnd(c->b, done);
  emit_forget(c);
}

/* The pointer at `item`, or it and those behind it of the same array, whose checks are in a row.
 * Returns how many items that were. */
static int check_pointers(Entry *e, const EntryItem *item) {
  enum { MANY = 16 };
  const int n_in = e->p->m->inputs.n;
  const bool outputs = item->k >= n_in;
  const int first = outputs ? n_in : 0, last = n_in + (outputs ? e->p->m->outputs.n : 0);
  const Val array = outputs ? e->out : e->in;
  int many = 0;
  while (item->k + many < last && item[many].some) many++;
  if (many >= MANY)
    check_pointers_in_loop(e, array, item->k - first, item->check, many);
  else
    for (int i = 0; i < (many ? many : 1); i++)
      check_pointer(e, array, item->k - first + i, &item[i]);
  return many ? many : 1;
}

static void check_same(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Val in = load(c, c->ptr, at_k(c, c->ptr, e->in, item->k)),
            out = load(c, c->ptr, at_k(c, c->ptr, e->out, (int)item->n));
  const Val none = LLVMBuildNot(c->b, not_null(c, in), "");
  require(e, LLVMBuildOr(c->b, none, LLVMBuildICmp(c->b, LLVMIntEQ, in, out, ""), ""), item->check,
          0, NULL);
}

/* ---- the arena ---- */
/* How many threads will run: those asked for, one where nobody lends any or where the arena's size
 * is not told and each needs room in it. */
static Val effective_threads(Entry *e, Val arena_bytes) {
  Emit *const c = e->c;
  const Type options = options_type(c);
  const Val slot = field(c, options, e->opts, 1), one = k_int(c, c->i32, 1);
  const Val asked = load(c, c->i32, slot);
  const Val lent = LLVMBuildOr(c->b, not_null(c, load(c, c->ptr, field(c, options, e->opts, 2))),
                               not_null(c, load(c, c->ptr, field(c, options, e->opts, 7))), "");
  Val several = LLVMBuildAnd(c->b, LLVMBuildICmp(c->b, LLVMIntSGT, asked, one, ""), lent, "");
  const Val told = LLVMBuildICmp(c->b, LLVMIntNE, arena_bytes, ki64(c, 0), ""),
            free_of_charge =
                LLVMBuildICmp(c->b, LLVMIntEQ, wide(c, program_thread_bytes(e->p)), ki64(c, 0), "");
  several = LLVMBuildAnd(c->b, several, LLVMBuildOr(c->b, told, free_of_charge, ""), "");
  const Val threads = LLVMBuildSelect(c->b, several, asked, one, "");
  LLVMBuildStore(c->b, threads, slot);
  return LLVMBuildZExt(c->b, threads, c->i64, "");
}

static void check_arena(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Val given = load(c, c->i64, field(c, options_type(c), e->opts, 8));
  const Val threads = effective_threads(e, given);
  const Val scratch = LLVMBuildMul(c->b, threads, wide(c, program_thread_bytes(e->p)), "");
  const Val needed = LLVMBuildAdd(c->b, wide(c, program_arena_bytes(e->p)), scratch, "");
  const Val bits = LLVMBuildPtrToInt(c->b, e->arena, c->i64, ""), zero = ki64(c, 0);
  const Val none = LLVMBuildICmp(c->b, LLVMIntEQ, needed, zero, "");
  const Val there = LLVMBuildICmp(c->b, LLVMIntNE, bits, zero, ""),
            aligned =
                LLVMBuildICmp(c->b, LLVMIntEQ, LLVMBuildAnd(c->b, bits, ki64(c, 63), ""), zero, ""),
            large = LLVMBuildOr(c->b, LLVMBuildICmp(c->b, LLVMIntEQ, given, zero, ""),
                                LLVMBuildICmp(c->b, LLVMIntUGE, given, needed, ""), "");
  require(e, LLVMBuildOr(c->b, none, there, ""), item->check, 1, &needed);
  require(e, LLVMBuildOr(c->b, none, aligned, ""), item->check + 1, 0, NULL);
  require(e, large, item->check + 2, 3, (Val[]){given, needed, threads});
  emit_forget(c);
}

static void check_heap(Entry *e, const EntryItem *item) {
  Emit *const c = e->c;
  const Val heap = options_heap(e);
  require(e, not_null(c, heap), item->check, 0, NULL);
  Type type;
  const Val begin =
      declare(c, "burin_rt_heap_begin", LLVMVoidTypeInContext(c->ctx), 1, (Type[]){c->ptr}, &type);
  LLVMBuildCall2(c->b, type, begin, (Val[]){heap}, 1, "");
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
    case EN_SAME: check_same(e, item); break;
    case EN_ARENA:
      if (!e->p->launches) check_arena(e, item); /* the device has its own */
      break;
    case EN_HEAP: check_heap(e, item); break;
    case EN_STEPS:
    case EN_RESULTS: break;
  }
  return 1;
}
