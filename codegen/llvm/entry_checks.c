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

void require_assume(Entry *e, const DimAssume *a) {
  Emit *const c = e->c;
  const Expr *numbers[3] = {NULL};
  const int check = check_assume(e->p, a, numbers);
  V ok = wide(c, assume_condition(c->pool, a)), values[3];
  const V sides[2] = {fits_arithmetic(c, a->a), fits_arithmetic(c, a->b)};
  for (int i = 0; i < 2; i++)
    if (sides[i]) ok = LLVMBuildAnd(B, ok, sides[i], "");
  for (int i = 0; i < 3; i++) values[i] = numbers[i] ? wide(c, numbers[i]) : ki64(c, 0);
  require(e, ok, check, 3, values);
}

static V not_null(Emit *c, V pointer) {
  return LLVMBuildICmp(B, LLVMIntNE, pointer, LLVMConstNull(c->ptr), "");
}

/* ---- options and arguments ---- */
void check_options(Entry *e, V given) {
  Emit *const c = e->c;
  const Ty options = options_type(c);
  e->opts = entry_alloca(c, options, 1, 8);
  Ty type;
  const V complete = declare(c, "burin_rt_options", c->i32, 2, (Ty[]){c->ptr, c->ptr}, &type);
  const V status = LLVMBuildCall2(B, type, complete, (V[]){given, e->opts}, 2, "");
  const int bad = check_add(e->p, BURIN_E_ARGUMENT, NULL, "options: their size is not set");
  require(e, LLVMBuildICmp(B, LLVMIntEQ, status, k_int(c, c->i32, 0), ""), bad, 0, NULL);
  const V threads = LLVMBuildSExt(B, load(c, c->i32, field(c, options, e->opts, 1)), c->i64, "");
  const int most = e->p->m->max_threads > 1 ? e->p->m->max_threads : 1;
  const int check = check_add(e->p, BURIN_E_ARGUMENT, NULL,
                              "{0} threads: the model was compiled for at most %d", most);
  require(e, LLVMBuildICmp(B, LLVMIntSLE, threads, ki64(c, most), ""), check, 1, &threads);
}

void check_arguments(Entry *e, V dims) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  const int in = check_add(p, BURIN_E_ARGUMENT, NULL, "the array of inputs is NULL"),
            out = check_add(p, BURIN_E_ARGUMENT, NULL, "the array of outputs is NULL"),
            sizes = check_add(p, BURIN_E_ARGUMENT, NULL, "the array of sizes is NULL");
  if (p->m->inputs.n) require(e, not_null(c, e->in), in, 0, NULL);
  if (p->m->outputs.n) require(e, not_null(c, e->out), out, 0, NULL);
  if (p->n_symbols) require(e, not_null(c, dims), sizes, 0, NULL);
}

/* ---- sizes ---- */
static void check_symbol(Entry *e, int id) {
  Emit *const c = e->c;
  const Symbol *const s = expr_symbol(c->pool, id);
  const char *const name = check_symbol_text(e->p, id);
  const V v = load(c, c->i64, at_k(c, c->i64, c->sym_array, id));
  const V least = ki64(c, s->lo > 0 ? s->lo : 0);
  const V most =
      s->bound && !expr_uses_runtime(c->pool, s->bound) ? wide(c, s->bound) : ki64(c, INT32_MAX);
  const int low = check_add(e->p, BURIN_E_DIMS, NULL, "%s is {0}, the model needs at least {1}",
                            name),
            high =
                check_add(e->p, BURIN_E_DIMS, NULL, "%s is {0}, the model takes at most {1}", name);
  require(e, LLVMBuildICmp(B, LLVMIntSGE, v, least, ""), low, 2, (V[]){v, least});
  require(e, LLVMBuildICmp(B, LLVMIntSLE, v, most, ""), high, 2, (V[]){v, most});
}

static void require_fits(Entry *e, const Expr *bytes, const char *what) {
  int64_t k;
  if (expr_is_const(bytes, &k)) return;
  const int check =
      check_add(e->p, BURIN_E_DIMS, NULL, "%s is larger than this target can address", what);
  require(e, fits(e->c, bytes), check, 0, NULL);
  emit_forget(e->c);
}

void check_dims(Entry *e) {
  Emit *const c = e->c;
  const Program *const p = e->p;
  for (int i = 0; i < p->n_caller; i++) check_symbol(e, p->symbols[i]);
  emit_forget(c);
  const int n_io = p->m->inputs.n + p->m->outputs.n;
  for (int i = 0; i < n_io; i++) require_fits(e, program_io_bytes(p, i), program_io_name(p, i));
  require_fits(e, program_arena_bytes(p), "the arena");
  require_fits(e, program_thread_bytes(p), "the arena of a thread");
  const Model *const m = p->m->model;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *const d = &m->assumes.data[i];
    if (!program_checked_at_entry(p, d)) continue;
    require_assume(e, d);
    emit_forget(c);
  }
}

/* ---- defaults ---- */
/* Where another input is given, a default must have the sizes of this run. */
static void check_default_sizes(Entry *e, int k, V fine) {
  Emit *const c = e->c;
  const Graph *const g = e->p->m->model->main;
  const ConstData *const d = e->p->m->buffers.data[e->p->m->inputs.data[k]].data;
  for (int i = 0; g && i < d->rank; i++) {
    const Expr *const dim = g->inputs.data[k]->dims[i];
    if (expr_is_i64(dim, d->dims[i])) continue;
    const V size = wide(c, dim), own = ki64(c, d->dims[i]);
    const int check = check_add(e->p, BURIN_E_DIMS, NULL,
                                "input %s is not given, and its default has size {1} where {0} is "
                                "needed",
                                program_input_name(e->p, k));
    require(e, LLVMBuildOr(B, fine, LLVMBuildICmp(B, LLVMIntEQ, size, own, ""), ""), check, 2,
            (V[]){size, own});
    emit_forget(c);
  }
}

static V call_inputs(Entry *e, V own) {
  Emit *const c = e->c;
  const V table = hidden_bytes(c, arena_printf(c->arena, "%s_defaults", e->p->name));
  Ty type;
  const V fn =
      declare(c, "burin_rt_inputs", c->i64, 4, (Ty[]){c->ptr, c->ptr, c->i64, c->ptr}, &type);
  return LLVMBuildCall2(B, type, fn, (V[]){e->in, table, ki64(c, e->p->m->inputs.n), own}, 4, "");
}

void take_defaults(Entry *e) {
  Emit *const c = e->c;
  const Module *const m = e->p->m;
  if (!e->p->defaults) return;
  const V own = entry_alloca(c, c->ptr, m->inputs.n + 1, 8), unset = entry_alloca(c, c->i8, 1, 1);
  const V wrong = call_inputs(e, own), given = LLVMBuildICmp(B, LLVMIntNE, wrong, ki64(c, -1), "");
  LLVMBuildStore(B, LLVMBuildZExt(B, LLVMBuildNot(B, given, ""), c->i8, ""), unset);
  LLVMBuildStore(B, unset, at_k(c, c->ptr, own, m->inputs.n));
  for (int k = 0; k < m->inputs.n; k++) {
    const Buffer *const b = &m->buffers.data[m->inputs.data[k]];
    if (!b->data) continue;
    const V there = not_null(c, load(c, c->ptr, at_k(c, c->ptr, e->in, k)));
    if (b->pinned)
      require(e, LLVMBuildICmp(B, LLVMIntNE, wrong, ki64(c, k + 1), ""),
              check_add(e->p, BURIN_E_UNSUPPORTED, NULL,
                        "input %s: sizes were computed from its default when the model was "
                        "compiled, so that no other value can be given",
                        program_input_name(e->p, k)),
              0, NULL);
    check_default_sizes(e, k, LLVMBuildOr(B, there, LLVMBuildNot(B, given, ""), ""));
  }
  e->in = own;
}

/* ---- pointers ---- */
static bool never_empty(Entry *e, int k) {
  int64_t lo, hi;
  const Expr *const bytes = program_io_bytes(e->p, k);
  return expr_range(e->c->pool, bytes, &lo, &hi) && lo > 0;
}

static int add_null_check(Entry *e, int k) {
  return check_add(e->p, BURIN_E_ARGUMENT, NULL, "%s is NULL", program_io_name(e->p, k));
}

/* A tensor without elements may be NULL. */
static void check_pointer(Entry *e, V array, int at, int k) {
  Emit *const c = e->c;
  V ok = not_null(c, load(c, c->ptr, at_k(c, c->ptr, array, at)));
  if (!never_empty(e, k)) {
    const V bytes = wide(c, program_io_bytes(e->p, k));
    ok = LLVMBuildOr(B, ok, LLVMBuildICmp(B, LLVMIntSLE, bytes, ki64(c, 0), ""), "");
  }
  require(e, ok, add_null_check(e, k), 0, NULL);
  emit_forget(c);
}

/* The same for n that are never empty: what LLVM does to a function grows faster than the
 * function. */
static void check_pointers_in_loop(Entry *e, V array, int from, int k, int n) {
  Emit *const c = e->c;
  const int first = add_null_check(e, k);
  for (int i = 1; i < n; i++) add_null_check(e, k + i);
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

/* Inputs or outputs, which are `first` and so on of all. */
static void check_array(Entry *e, V array, int first, int n) {
  enum { MANY = 16 };
  for (int i = 0; i < n;) {
    int many = 0;
    while (i + many < n && never_empty(e, first + i + many)) many++;
    if (many >= MANY) check_pointers_in_loop(e, array, i, first + i, many);
    for (const int end = i + (many ? many : 1); i < end; i++)
      if (many < MANY) check_pointer(e, array, i, first + i);
  }
}

void check_pointers(Entry *e) {
  const Module *const m = e->p->m;
  check_array(e, e->in, 0, m->inputs.n);
  check_array(e, e->out, m->inputs.n, m->outputs.n);
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

void check_arena(Entry *e) {
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
  const int null = check_add(e->p, BURIN_E_ARENA, NULL, "the arena is NULL, {0} bytes are needed"),
            odd = check_add(e->p, BURIN_E_ARENA, NULL, "the arena is not aligned to 64 bytes"),
            small = check_add(e->p, BURIN_E_ARENA, NULL,
                              "the arena has {0} bytes, {1} are needed for threads: {2}");
  require(e, LLVMBuildOr(B, none, there, ""), null, 1, &needed);
  require(e, LLVMBuildOr(B, none, aligned, ""), odd, 0, NULL);
  require(e, large, small, 3, (V[]){given, needed, threads});
  emit_forget(c);
}
