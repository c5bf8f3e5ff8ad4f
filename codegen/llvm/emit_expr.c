/* Expressions → LLVM values. Each distinct expression is emitted once per statement. i64
 * expressions are emitted in 32 bits where their range (or, in an index of a 32-bit target, their
 * use) allows it. Loads and locals are emit_memory.c's; math rows have been replaced before
 * (passes/loop/expand_math.c). */
#include <string.h>

#include "codegen/llvm/emit.h"

static Val ev(Emit *c, const Expr *e, bool narrow);

/* ---- the statement's cache ---- */
enum { MODE_NARROW = 1, MODE_LANE0 = 2, MODE_FITS = 4, MODE_SEEN = 5, MODE_SIZES = 6 };

static CacheSlot *cache_find(Emit *c, uint32_t key) {
  uint32_t i = (key * 2654435761u) & (c->cache_size - 1);
  while (c->cache[i].epoch == c->epoch && c->cache[i].key != key) i = (i + 1) & (c->cache_size - 1);
  return &c->cache[i];
}

static void cache_put(Emit *c, uint32_t key, Val value) {
  if (c->cache_used * 2 >= c->cache_size) {
    CacheSlot *const old = c->cache;
    const uint32_t n = c->cache_size;
    c->cache_size = n ? n * 2 : 1024;
    c->cache = ARENA_ARRAY(c->arena, CacheSlot, c->cache_size);
    for (uint32_t i = 0; i < n; i++)
      if (old[i].epoch == c->epoch) *cache_find(c, old[i].key) = old[i];
  }
  CacheSlot *const s = cache_find(c, key);
  if (s->epoch != c->epoch) c->cache_used++;
  *s = (CacheSlot){c->epoch, key, value};
  if (c->rare) vec_push(c->arena, &c->rare_keys, key);
}

static Val cache_get(Emit *c, uint32_t key) {
  if (!c->cache_size) return NULL;
  const CacheSlot *const s = cache_find(c, key);
  return s->epoch == c->epoch ? s->value : NULL;
}

void emit_forget(Emit *c) {
  c->epoch++;
  c->cache_used = 0;
}

bool emit_seen(Emit *c, const Expr *e) {
  const uint32_t key = e->uid * 8 + MODE_SEEN;
  if (cache_get(c, key)) return true;
  cache_put(c, key, (Val)c);
  return false;
}

/* ---- questions ---- */
static bool is_free(void *user, const Expr *e) {
  const Emit *const c = user;
  return e->op == EX_VAR && !(e->id < c->v->n && c->v->state[e->id].is_const);
}

static bool all_bound(const Emit *c, const Expr *e) {
  if (e->flags & (EXF_LOAD | EXF_REDUCE | EXF_LOCAL | EXF_SYM | EXF_HOLE)) return false;
  return !expr_any(e, EXF_VAR, is_free, (void *)c);
}

bool emit_const(Emit *c, const Expr *e, int64_t *v) {
  if (expr_is_const(e, v)) return true;
  if (dtype_is_float(e->dtype) || !all_bound(c, e)) return false;
  EvalEnv env = {.vars = c->v->values};
  *v = expr_eval(c->pool, e, &env).i;
  return true;
}

static bool is_bound(void *user, const Expr *e) {
  const Emit *const c = user;
  return e->op == EX_VAR && e->id < c->v->n && c->v->state[e->id].is_const &&
         !(e == c->vvar && !c->lane0);
}

static const Expr *bound_value(void *user, const Expr *leaf) {
  const Emit *const c = user;
  return is_bound(user, leaf) ? ex_i64(c->pool, c->v->state[leaf->id].k) : NULL;
}

const Expr *emit_specialise(Emit *c, const Expr *e) {
  return expr_any(e, EXF_VAR, is_bound, c) ? expr_rewrite(c->pool, e, bound_value, c) : e;
}

typedef struct Depth {
  const Emit *c;
  int depth;
} Depth;

static bool note_depth(void *user, const Expr *e) {
  Depth *const d = user;
  if (e->op != EX_VAR) return false;
  const int own = e->id < d->c->v->n ? d->c->v->state[e->id].depth : d->c->depth;
  if (own > d->depth) d->depth = own;
  return false;
}

int expr_depth(const Emit *c, const Expr *e) {
  if (e->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE)) return c->depth;
  Depth d = {c, 0};
  expr_any(e, EXF_VAR, note_depth, &d);
  return d.depth;
}

/* Whether an i64 expression and all its parts stay within 32 bits. */
static bool fits32(Emit *c, const Expr *e) {
  if (e->dtype != DT_I64) return true;
  const uint32_t key = e->uid * 8 + MODE_FITS;
  const Val known = cache_get(c, key);
  if (known) return known == (Val)c;
  int64_t lo, hi;
  bool ok = expr_range(c->pool, e, &lo, &hi) && lo >= INT32_MIN / 2 && hi <= INT32_MAX / 2;
  if (e->op != EX_LOAD && e->op != EX_LOCAL)
    for (int i = 0; ok && i < e->nargs; i++) ok = !e->a[i] || fits32(c, e->a[i]);
  cache_put(c, key, ok ? (Val)c : (Val)&c->cache);
  return ok;
}

static bool own_size(const Emit *c, const Expr *e) {
  int64_t lo, hi;
  switch (e->op) {
    case EX_VAR: return true;
    case EX_SYM: return expr_symbol(c->pool, e->id)->lo >= 0;
    case EX_CONST:
    case EX_LOAD:
    case EX_LOCAL:
    case EX_cast:
    case EX_sat:
    case EX_bits:
      return expr_range(c->pool, e, &lo, &hi) && lo >= INT32_MIN / 2 && hi <= INT32_MAX / 2;
    default: return true;
  }
}

/* Whether an i64 expression is made of sizes, loop variables and small constants, which stay within
 * 32 bits where addresses have no more; data and large constants, which bound them, do not. */
static bool is_sizes(Emit *c, const Expr *e) {
  if (e->dtype != DT_I64) return true;
  const uint32_t key = e->uid * 8 + MODE_SIZES;
  const Val known = cache_get(c, key);
  if (known) return known == (Val)c;
  bool ok = own_size(c, e);
  if (e->op != EX_LOAD && e->op != EX_LOCAL && e->op != EX_cast && e->op != EX_sat &&
      e->op != EX_bits)
    for (int i = 0; ok && i < e->nargs; i++) ok = !e->a[i] || is_sizes(c, e->a[i]);
  cache_put(c, key, ok ? (Val)c : (Val)&c->cache);
  return ok;
}

/* The low 32 bits of the result follow from those of the operands. */
static bool is_modular(ExprOp op) {
  return op == EX_add || op == EX_sub || op == EX_mul || op == EX_neg || op == EX_select ||
         op == EX_rarely;
}

static bool in_lanes(const Emit *c) { return c->vvar && !c->lane0; }
static bool may_narrow(const Emit *c) { return in_lanes(c) || c->idx_bits == 32; }

/* ---- leaves ---- */
static Type value_type(Emit *c, DType t, bool narrow) {
  return t == DT_I64 && narrow ? c->i32 : reg_type(c, t);
}

static Val emit_literal(Emit *c, const Expr *e, bool narrow) {
  const Type t = value_type(c, e->dtype, narrow);
  return dtype_is_float(e->dtype) ? LLVMConstReal(t, e->k.f) : k_int(c, t, e->k.i);
}

static Val resize(Emit *c, Val v, Type t) { return LLVMBuildIntCast2(c->b, v, like(t, v), 1, ""); }

static Val emit_var(Emit *c, const Expr *e, bool narrow) {
  const Type t = narrow ? c->i32 : c->i64;
  if (e->id >= c->v->n || !c->v->state[e->id].value) {
    c->error = arena_printf(c->arena, "variable %s is not bound", expr_var_name(c->pool, e->id));
    return LLVMConstNull(t);
  }
  Val v = resize(c, c->v->state[e->id].value, t);
  if (e == c->vvar && in_lanes(c)) v = LLVMBuildAdd(c->b, splat(c, v, c->vl), iota(c, t), "");
  return v;
}

static Val emit_sym(Emit *c, const Expr *e, bool narrow) {
  if (c->sym_array) {
    Val k = k_int(c, c->i32, e->id);
    const Val v =
        LLVMBuildLoad2(c->b, c->i64, LLVMBuildGEP2(c->b, c->i64, c->sym_array, &k, 1, ""), "");
    return narrow ? LLVMBuildTrunc(c->b, v, c->i32, "") : v;
  }
  if (e->id >= c->n_syms || !c->syms[e->id]) {
    c->error =
        arena_printf(c->arena, "symbol %s is not known here", expr_symbol(c->pool, e->id)->name);
    return LLVMConstNull(narrow ? c->i32 : c->i64);
  }
  return narrow ? LLVMBuildTrunc(c->b, c->syms[e->id], c->i32, "") : c->syms[e->id];
}

/* ---- dispatch ---- */
/* How an argument's i64 parts are emitted below e. */
static bool arg_narrow(Emit *c, const Expr *e, bool narrow) {
  const bool conversion = e->op == EX_cast || e->op == EX_sat || e->op == EX_bits;
  if (e->dtype == DT_I64 && !conversion && (!narrow || !c->force_narrow || is_modular(e->op)))
    return narrow;
  bool any = c->force_narrow;
  for (int i = 0; i < e->nargs; i++) {
    if (!e->a[i] || e->a[i]->dtype != DT_I64) continue;
    if (c->force_narrow ? !is_sizes(c, e->a[i]) : !may_narrow(c) || !fits32(c, e->a[i]))
      return false;
    any = true;
  }
  return any;
}

static Val emit_conversion(Emit *c, const Expr *e, bool narrow) {
  const DType from = e->a[0]->dtype;
  const bool arg = e->op != EX_bits && arg_narrow(c, e, narrow);
  const Val v = ev(c, e->a[0], arg);
  if (e->op == EX_bits) {
    const Val mem = to_mem(c, from, v);
    return from_mem(c, e->dtype, LLVMBuildBitCast(c->b, mem, like(mem_type(c, e->dtype), mem), ""));
  }
  const DType have = from == DT_I64 && arg ? DT_I32 : from;
  const DType want = e->dtype == DT_I64 && narrow ? DT_I32 : e->dtype;
  if (want == DT_BF16 && have == DT_F32 && emit_is_bf16(e->a[0])) return v;
  return emit_cast(c, want, have, v, e->op == EX_sat);
}

static Val emit_call(Emit *c, const Expr *e, bool narrow) {
  const bool arg = arg_narrow(c, e, narrow);
  Val v[3] = {NULL, NULL, NULL};
  for (int i = 0; i < e->nargs; i++) v[i] = ev(c, e->a[i], arg);
  DType t = e->a[0]->dtype;
  if (t == DT_I64 && arg) t = DT_I32;
  const Val r = emit_op(c, e, e->op, t, v[0], v[1], v[2]);
  return narrow && !arg && e->dtype == DT_I64 ? resize(c, r, c->i32) : r;
}

static Val narrowed(Emit *c, const Expr *e, Val v, bool narrow) {
  return narrow && e->dtype == DT_I64 ? resize(c, v, c->i32) : v;
}

/* One side only when the condition is known. */
static Val emit_select(Emit *c, const Expr *e, bool narrow) {
  const Expr *const cond = emit_specialise(c, e->a[0]);
  int64_t k;
  if (emit_const(c, cond, &k) && !(in_lanes(c) && expr_uses_var(cond, c->vvar->id)))
    return ev(c, e->a[k ? 1 : 2], narrow);
  if (cond != e->a[0]) return ev(c, ex_select(c->pool, cond, e->a[1], e->a[2]), narrow);
  return emit_call(c, e, narrow);
}

/* Forgets what was put into the cache since `mark`: it holds in a block that not all code passes.
 */
static void cache_undo(Emit *c, int mark) {
  for (int i = mark; i < c->rare_keys.n; i++) {
    CacheSlot *const s = cache_find(c, c->rare_keys.data[i]);
    if (s->epoch == c->epoch) s->value = NULL;
  }
  c->rare_keys.n = mark;
}

/* The usual side for all lanes; the rare one in a block of its own, entered when any lane wants
 * it. */
static Val emit_rarely(Emit *c, const Expr *e, bool narrow) {
  Val cond = ev(c, e->a[0], false), usual = ev(c, e->a[2], narrow);
  if (is_vec(cond)) same_lanes(c, &usual, &cond);
  const Type types[1] = {LLVMTypeOf(cond)};
  const Val any = is_vec(cond) ? intrinsic(c, "llvm.vector.reduce.or", 1, types, 1, &cond) : cond;
  const LLVMBasicBlockRef from = LLVMGetInsertBlock(c->b), rare = new_block(c, "rare"),
                          done = new_block(c, "usual");
  LLVMBuildCondBr(c->b, any, rare, done);
  LLVMPositionBuilderAtEnd(c->b, rare);
  const int mark = c->rare_keys.n;
  c->rare++;
  const Val v = emit_pick(c, cond, ev(c, e->a[1], narrow), usual);
  c->rare--;
  cache_undo(c, mark);
  const LLVMBasicBlockRef end = LLVMGetInsertBlock(c->b);
  LLVMBuildBr(c->b, done);
  LLVMPositionBuilderAtEnd(c->b, done);
  if (LLVMTypeOf(v) != LLVMTypeOf(usual))
    return c->error = "sides of rarely in different lanes", usual;
  const Val phi = LLVMBuildPhi(c->b, LLVMTypeOf(v), "");
  LLVMAddIncoming(phi, (Val[]){usual, v}, (LLVMBasicBlockRef[]){from, end}, 2);
  return phi;
}

static Val emit_fresh(Emit *c, const Expr *e, bool narrow) {
  const Val group = e->op == EX_or ? emit_group(c, e) : NULL;
  if (group) return group;
  switch (e->op) {
    case EX_CONST: return emit_literal(c, e, narrow);
    case EX_SYM: return emit_sym(c, e, narrow);
    case EX_VAR: return emit_var(c, e, narrow);
    case EX_LOAD: return narrowed(c, e, emit_load(c, e), narrow);
    case EX_LOCAL: return narrowed(c, e, emit_local(c, e), narrow);
    case EX_REDUCE:
    case EX_HOLE:
      c->error = "reduction or hole in code to be generated";
      return LLVMConstNull(value_type(c, e->dtype, narrow));
    case EX_cast:
    case EX_sat:
    case EX_bits: return emit_conversion(c, e, narrow);
    case EX_select: return emit_select(c, e, narrow);
    case EX_rarely: return emit_rarely(c, e, narrow);
    default: return emit_call(c, e, narrow);
  }
}

static Val ev(Emit *c, const Expr *e, bool narrow) {
  if (e->flags & EXF_MATH) c->error = "a math row that pass expand_math has not seen";
  const uint32_t key = e->uid * 8 + (narrow ? MODE_NARROW : 0) + (c->lane0 ? MODE_LANE0 : 0);
  Val v = cache_get(c, key);
  if (v) return v;
  v = emit_fresh(c, e, narrow);
  cache_put(c, key, v);
  return v;
}

Val emit_expr(Emit *c, const Expr *e) { return ev(c, e, false); }

Val emit_wide(Emit *c, const Expr *e) {
  const bool was = c->lane0;
  c->lane0 = true;
  const Val v = ev(c, e, false);
  c->lane0 = was;
  return v;
}

/* On 32-bit targets indexes, and conditions on them, are computed in 32 bits whatever they hold:
 * buffers are smaller than 2 GiB. */
static Val ev_index(Emit *c, const Expr *e, bool narrow) {
  const bool was = c->force_narrow;
  c->force_narrow = c->idx_bits == 32;
  const Val v = ev(c, e, narrow || c->force_narrow);
  c->force_narrow = was;
  return v;
}

Val emit_index(Emit *c, const Expr *e) {
  const bool was = c->lane0;
  c->lane0 = true;
  const Val v = ev_index(c, e, false);
  c->lane0 = was;
  return v;
}

Val emit_index_lanes(Emit *c, const Expr *e) { return ev_index(c, e, in_lanes(c) && fits32(c, e)); }
Val emit_cond(Emit *c, const Expr *e) {
  return e->flags & EXF_LOAD ? ev(c, e, false) : ev_index(c, e, false);
}

Val emit_identity(Emit *c, ReduceKind kind, DType t) {
  return emit_literal(c, reduce_identity(c->pool, kind, t), false);
}
