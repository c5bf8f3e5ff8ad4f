/* Statements: loops of every kind but vector ones (emit_vector.c), conditions, assignments. */
#include <string.h>

#include "codegen/llvm/emit.h"
#include "ir/loop/matrix.h"

/* ---- variables ---- */
static void *grown(EmitVars *v, const void *old, int n, size_t size) {
  void *const p = arena_alloc_array(v->arena, (size_t)n, size);
  if (v->n) memcpy(p, old, (size_t)v->n * size);
  return p;
}

static void vars_reserve(EmitVars *v, int id) {
  if (id < v->n) return;
  const int n = 2 * id + 64;
  v->state = grown(v, v->state, n, sizeof *v->state);
  v->values = grown(v, v->values, n, sizeof *v->values);
  v->n = n;
}

static VarState *var_state(EmitVars *v, const Expr *var) {
  vars_reserve(v, var->id);
  if (!v->state[var->id].value) vec_push(v->arena, &v->used, var->id);
  return &v->state[var->id];
}

void vars_clear(EmitVars *v) {
  for (int i = 0; i < v->used.n; i++) v->state[v->used.data[i]] = (VarState){0};
  v->used.n = 0;
}

void bind_const(Emit *c, const Expr *var, int64_t v) {
  *var_state(c->v, var) = (VarState){k_int(c, c->idx, v), true, v, 0, v};
  c->v->values[var->id] = v;
  emit_forget(c);
}

void bind_value(Emit *c, const Expr *var, Val v, int depth) {
  const int64_t multiple = var == c->vvar ? c->vvar_multiple : 1;
  *var_state(c->v, var) = (VarState){v, false, 0, depth, multiple};
  emit_forget(c);
}

/* ---- loops ---- */
void emit_counted(Emit *c, Val begin, Val end, int64_t step, bool sure,
                  void (*body)(Emit *c, void *user, Val iv), void *user) {
  const LLVMBasicBlockRef pre = LLVMGetInsertBlock(c->b), loop = new_block(c, "loop"),
                          done = new_block(c, "done");
  if (sure)
    LLVMBuildBr(c->b, loop);
  else
    LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, LLVMIntSLT, begin, end, ""), loop, done);
  LLVMPositionBuilderAtEnd(c->b, loop);
  const Val iv = LLVMBuildPhi(c->b, c->idx, "i");
  c->depth++;
  body(c, user, iv);
  c->depth--;
  const Val next = LLVMBuildNSWAdd(c->b, iv, k_int(c, c->idx, step), "");
  const LLVMBasicBlockRef latch = LLVMGetInsertBlock(c->b);
  const LLVMIntPredicate more = step == 1 && c->arch->count_down ? LLVMIntNE : LLVMIntSLT;
  LLVMBuildCondBr(c->b, LLVMBuildICmp(c->b, more, next, end, ""), loop, done);
  LLVMAddIncoming(iv, (Val[]){begin, next}, (LLVMBasicBlockRef[]){pre, latch}, 2);
  LLVMPositionBuilderAtEnd(c->b, done);
  emit_forget(c);
}

static void serial_body(Emit *c, void *user, Val iv) {
  const Stmt *const s = user;
  const int copied = c->n_copied;
  c->n_copied = 0; /* how often it runs may differ between copies */
  bind_value(c, s->loop.var, iv, c->depth);
  emit_stmts(c, s->loop.body);
  c->n_copied = copied;
}

void emit_serial(Emit *c, const Stmt *s, Val begin, Val end) {
  emit_forget(c);
  int64_t lo, n;
  const bool const_lo = emit_const(c, expr_var_lo(c->pool, s->loop.var->id), &lo);
  const bool const_n = !begin && emit_const(c, expr_var_extent(c->pool, s->loop.var->id), &n);
  if (const_n && n <= 0) return;
  if (const_n && n == 1) {
    if (const_lo)
      bind_const(c, s->loop.var, lo);
    else
      bind_value(c, s->loop.var, emit_index(c, expr_var_lo(c->pool, s->loop.var->id)),
                 expr_depth(c, expr_var_lo(c->pool, s->loop.var->id)));
    emit_stmts(c, s->loop.body);
    return;
  }
  const Val from = emit_index(c, expr_var_lo(c->pool, s->loop.var->id));
  const Val to = end ? end : emit_index(c, expr_var_extent(c->pool, s->loop.var->id));
  const bool zero = const_lo && lo == 0;
  const Val first = begin ? (zero ? begin : LLVMBuildAdd(c->b, from, begin, "")) : from;
  emit_counted(c, first, zero ? to : LLVMBuildAdd(c->b, from, to, ""), 1, const_n, serial_body,
               (void *)s);
}

/* Whether an index of a register local needs the loop's variable as a constant. Adds up the vectors
 * of the register tiles that the body changes. */
static bool needs_constant(const Emit *c, const Stmt *s, const Expr *var, bool *counted,
                           int *vectors) {
  for (; s; s = s->next) {
    if (s->kind == ST_SET || s->kind == ST_ACC) {
      const LocalState *const l = &c->locals[s->access.id];
      if (expr_uses_var(s->access.index, var->id)) return true;
      if ((l->kind == LK_CHUNKS || l->kind == LK_LANES) && !counted[s->access.id])
        *vectors += l->n_slots;
      counted[s->access.id] = true;
    }
    if (s->kind == ST_LOCAL) return true; /* a body of its own: leave it as it was asked for */
    if (needs_constant(c, stmt_body(s), var, counted, vectors)) return true;
    if (needs_constant(c, stmt_otherwise(s), var, counted, vectors)) return true;
  }
  return false;
}

/* A loop around a register tile that takes most registers: copies would share loads, and keep them
 * in registers that are not there. Tiles for operands by lane leave room for them. */
static bool better_looped(Emit *c, const Stmt *s) {
  int vectors = 0;
  if (!c->kernel || c->kernel->locals.n == 0 || c->t->lane_operand) return false;
  bool *const counted = ARENA_ARRAY(c->arena, bool, c->kernel->locals.n);
  if (needs_constant(c, s->loop.body, s->loop.var, counted, &vectors)) return false;
  return vectors * 10 >= c->t->vector_regs * 7;
}

static void emit_unrolled(Emit *c, const Stmt *s) {
  int64_t lo, n;
  if (!emit_const(c, expr_var_lo(c->pool, s->loop.var->id), &lo) ||
      !emit_const(c, expr_var_extent(c->pool, s->loop.var->id), &n) || better_looped(c, s)) {
    emit_serial(c, s, NULL, NULL);
    return;
  }
  const int outside = c->n_copied;
  if (lo == 0 && outside < MAX_COPIED) c->copied[c->n_copied++] = s->loop.var;
  for (int64_t i = 0; i < n && !c->error; i++) {
    bind_const(c, s->loop.var, lo + i);
    emit_stmts(c, s->loop.body);
  }
  c->n_copied = outside;
}

/* Distinct operations of a body that is copied out wholly; more than `limit`: too many, or loops
 * that stay. */
enum { SMALL_BODY = 128, SMALL_EXTENT = 16 };

static int64_t count_values(Emit *c, const Expr *e) {
  if (!e || e->dtype == DT_I64 || emit_seen(c, e)) return 0;
  int64_t n = e->op != EX_CONST;
  for (int i = 0; i < e->nargs; i++) n += count_values(c, e->a[i]);
  return n;
}

typedef struct Count {
  Emit *c;
  int64_t n;
} Count;

static void count_part(void *user, const Expr *e) {
  Count *const k = user;
  k->n += count_values(k->c, e);
}

static int64_t body_size(Emit *c, const Stmt *s) {
  int64_t sum = 0, n = 1;
  for (; s && sum <= SMALL_BODY; s = s->next) {
    emit_forget(c);
    Count count = {c, 1};
    stmt_each_expr(s, count_part, &count);
    sum += count.n;
    if (s->kind == ST_FOR) {
      if (s->loop.kind == FOR_VECTOR ||
          !emit_const(c, expr_var_extent(c->pool, s->loop.var->id), &n))
        return SMALL_BODY + 1;
      if (n > SMALL_EXTENT) return SMALL_BODY + 1;
      sum += n * body_size(c, stmt_body(s));
    } else {
      sum += body_size(c, stmt_body(s)) + body_size(c, stmt_otherwise(s));
    }
  }
  return sum;
}

/* Windows of poolings, small filters: known positions make most guards and addresses constants.
 * Only inside vector loops, where a copy is a few instructions. */
static bool is_small(Emit *c, const Stmt *s) {
  int64_t lo, n;
  if (!c->vvar || c->lane0 || !emit_const(c, expr_var_lo(c->pool, s->loop.var->id), &lo) ||
      !emit_const(c, expr_var_extent(c->pool, s->loop.var->id), &n))
    return false;
  return n > 1 && n <= SMALL_EXTENT && n * body_size(c, s->loop.body) <= SMALL_BODY &&
         !better_looped(c, s);
}

/* Elements of registers are counted by it. */
static bool is_pair(Emit *c, const Stmt *s) {
  int64_t n;
  return s->loop.kind == FOR_MATRIX &&
         emit_const(c, expr_var_extent(c->pool, s->loop.var->id), &n) && n <= MATRIX_PAIR;
}

static void emit_for(Emit *c, const Stmt *s) {
  if (s->loop.kind == FOR_MATRIX && emit_square(c, s)) return;
  if (s->loop.kind == FOR_UNROLL || is_pair(c, s) || (s->loop.kind == FOR_SERIAL && is_small(c, s)))
    emit_unrolled(c, s);
  else if (s->loop.kind == FOR_VECTOR && !c->vvar)
    emit_vector(c, s);
  else
    emit_serial(c, s, NULL, NULL);
}

/* ---- conditions ---- */
static void emit_branches(Emit *c, const Stmt *s, Val cond) {
  const LLVMBasicBlockRef then = new_block(c, "then"), done = new_block(c, "done");
  const LLVMBasicBlockRef otherwise = s->branch.otherwise ? new_block(c, "else") : done;
  LLVMBuildCondBr(c->b, cond, then, otherwise);
  LLVMPositionBuilderAtEnd(c->b, then);
  emit_stmts(c, s->branch.then);
  LLVMBuildBr(c->b, done);
  if (s->branch.otherwise) {
    LLVMPositionBuilderAtEnd(c->b, otherwise);
    emit_stmts(c, s->branch.otherwise);
    LLVMBuildBr(c->b, done);
  }
  LLVMPositionBuilderAtEnd(c->b, done);
  emit_forget(c);
}

/* The lanes in which `cond` holds; skipped when there are none, so that uniform accesses stay
 * legal. */
static void emit_lanes_if(Emit *c, const Stmt *body, Val cond) {
  if (!body) return;
  const Val outer = c->mask;
  const bool was = c->under_if;
  const Val mask = outer ? LLVMBuildAnd(c->b, outer, cond, "") : cond;
  const Val any = intrinsic(c, "llvm.vector.reduce.or", 1, (Type[]){LLVMTypeOf(mask)}, 1, &mask);
  const LLVMBasicBlockRef then = new_block(c, "lanes"), done = new_block(c, "done");
  LLVMBuildCondBr(c->b, any, then, done);
  LLVMPositionBuilderAtEnd(c->b, then);
  c->mask = mask;
  c->under_if = true;
  emit_forget(c);
  emit_stmts(c, body);
  c->mask = outer;
  c->under_if = was;
  LLVMBuildBr(c->b, done);
  LLVMPositionBuilderAtEnd(c->b, done);
  emit_forget(c);
}

static void emit_condition(Emit *c, const Stmt *s) {
  const Expr *const e = emit_specialise(c, s->branch.cond);
  int64_t k;
  if (!(c->vvar && !c->lane0 && expr_uses_var(e, c->vvar->id)) && emit_const(c, e, &k)) {
    emit_stmts(c, k ? s->branch.then : s->branch.otherwise);
    return;
  }
  const Val cond = emit_expr(c, e);
  if (!is_vec(cond)) {
    emit_branches(c, s, cond);
    return;
  }
  emit_lanes_if(c, s->branch.then, cond);
  if (s->branch.otherwise) emit_lanes_if(c, s->branch.otherwise, LLVMBuildNot(c->b, cond, ""));
}

static void emit_if(Emit *c, const Stmt *s) {
  const int copied = c->n_copied;
  c->n_copied = 0;
  emit_condition(c, s);
  c->n_copied = copied;
}

/* ---- statements ---- */
static void emit_stmt(Emit *c, const Stmt *s) {
  emit_forget(c);
  switch (s->kind) {
    case ST_FOR: emit_for(c, s); break;
    case ST_STORE:
      emit_store(c, s->access.id, s->access.index, emit_expr(c, s->access.value));
      break;
    case ST_LOCAL:
      local_declare(c, s->access.id);
      matrix_declare(c, s);
      break;
    case ST_SET:
      emit_local_set(c, s->access.id, s->access.index, emit_expr(c, s->access.value));
      break;
    case ST_ACC:
      emit_local_acc(c, s->access.id, s->access.index, s->access.reduce, s->access.value);
      break;
    case ST_IF: emit_if(c, s); break;
    case ST_PREFETCH: emit_prefetch(c, s->access.id, s->access.index); break;
  }
}

void emit_stmts(Emit *c, const Stmt *s) {
  const int taken = matrix_taken(c);
  for (; s && !c->error; s = s->next) {
    if (c->matrix && s->kind == ST_FOR && s->loop.kind == FOR_MATRIX) {
      emit_forget(c);
      s = emit_matrix(c, s);
    } else {
      emit_stmt(c, s);
    }
  }
  matrix_release(c, taken);
}
