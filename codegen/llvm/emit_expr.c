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

/* ---- operations ---- */
static Val pick(Emit *c, Val cond, Val a, Val b) {
  same_lanes(c, &a, &b);
  if (is_vec(cond)) {
    same_lanes(c, &cond, &a);
    same_lanes(c, &cond, &b);
  }
  return LLVMBuildSelect(c->b, cond, a, b, "");
}
static Val zero_of(Val v) { return LLVMConstNull(LLVMTypeOf(v)); }
static Val ki(Emit *c, Val as, int64_t v) { return k_int(c, LLVMTypeOf(as), v); }
static Val icmp(Emit *c, LLVMIntPredicate p, Val a, Val b) {
  return LLVMBuildICmp(c->b, p, a, b, "");
}

static bool never_nan(Val v) { return LLVMIsConstant(v) && !LLVMIsPoison(v) && !LLVMIsUndef(v); }

/* -0 below +0 (FloatRules): one instruction of ARM, but not for the f64 of ARMv7. */
static Val ordered_minmax(Emit *c, DType t, bool max, Val a, Val b) {
  const Type types[1] = {LLVMTypeOf(a)};
  if (c->arch->minmax_f64 || t != DT_F64)
    return intrinsic(c, max ? "llvm.maximum" : "llvm.minimum", 1, types, 2, (Val[]){a, b});
  const Type bits = like(c->i64, a);
  const Val x = LLVMBuildBitCast(c->b, a, bits, ""), y = LLVMBuildBitCast(c->b, b, bits, "");
  const Val both = max ? LLVMBuildAnd(c->b, x, y, "") : LLVMBuildOr(c->b, x, y, "");
  const Val equal = LLVMBuildFCmp(c->b, LLVMRealOEQ, a, b, "");
  Val m = pick(c, LLVMBuildFCmp(c->b, max ? LLVMRealOGT : LLVMRealOLT, a, b, ""), a, b);
  m = pick(c, equal, LLVMBuildBitCast(c->b, both, types[0], ""), m);
  return pick(c, LLVMBuildFCmp(c->b, LLVMRealUNO, a, a, ""), a, m);
}

/* NaN of either side comes out. x86's instruction gives its second operand when either is NaN, or
 * both are equal. */
static Val minmax_of(Emit *c, DType t, bool max, Val a, Val b) {
  if (expr_pool_rules(c->pool)->ordered_zeros) return ordered_minmax(c, t, max, a, b);
  Val m = pick(c, LLVMBuildFCmp(c->b, max ? LLVMRealOGT : LLVMRealOLT, b, a, ""), b, a);
  if (never_nan(b)) return m;
  if (c->arch->fence) /* else the two selects are merged, and the instruction is not recognised */
    m = intrinsic(c, "llvm.arithmetic.fence", 1, (Type[]){LLVMTypeOf(m)}, 1, &m);
  return pick(c, LLVMBuildFCmp(c->b, LLVMRealUNO, b, b, ""), b, m);
}

/* Of two f16 it is one. */
static Val float_minmax(Emit *c, DType t, bool max, Val a, Val b) {
  const Val x = t == DT_F64 ? NULL : emit_f16(c, a), y = x ? emit_f16(c, b) : NULL;
  const bool constant = LLVMIsConstant(a) && LLVMIsConstant(b);
  return y && !constant ? emit_from_f16(c, minmax_of(c, t, max, x, y)) : minmax_of(c, t, max, a, b);
}

static Val emit_fmod(Emit *c, DType t, Val a, Val b) {
  const Type ft = t == DT_F64 ? c->f64 : c->f32;
  const char *const name = t == DT_F64 ? "burin_rt_fmod" : "burin_rt_fmodf";
  const Type type = LLVMFunctionType(ft, (Type[]){ft, ft}, 2, 0);
  Val fn = LLVMGetNamedFunction(c->mod, name);
  if (!fn) {
    fn = LLVMAddFunction(c->mod, name, type);
    LLVMSetVisibility(fn, LLVMHiddenVisibility);
    fn_attr(c, fn, "nounwind", 0);
    fn_attr(c, fn, "memory", 0);
  }
  if (!is_vec(a)) return LLVMBuildCall2(c->b, type, fn, (Val[]){a, b}, 2, "");
  Val r = LLVMGetPoison(LLVMTypeOf(a));
  for (unsigned i = 0; i < LLVMGetVectorSize(LLVMTypeOf(a)); i++) {
    const Val k = k_int(c, c->i32, i);
    const Val x = LLVMBuildExtractElement(c->b, a, k, ""),
              y = LLVMBuildExtractElement(c->b, b, k, "");
    r = LLVMBuildInsertElement(c->b, r, LLVMBuildCall2(c->b, type, fn, (Val[]){x, y}, 2, ""), k,
                               "");
  }
  return r;
}

static Val float_op(Emit *c, ExprOp op, DType t, Val a, Val b, Val x) {
  const Type types[1] = {LLVMTypeOf(a)};
  switch (op) {
    case EX_add: return LLVMBuildFAdd(c->b, a, b, "");
    case EX_sub: return LLVMBuildFSub(c->b, a, b, "");
    case EX_mul: return LLVMBuildFMul(c->b, a, b, "");
    case EX_div: return LLVMBuildFDiv(c->b, a, b, "");
    case EX_rem: return emit_fmod(c, t, a, b);
    case EX_fma:
      if (!target_has(c->t, FEATURE_FMA))
        c->error = "fma on a target without it: made under other FloatRules";
      return intrinsic(c, "llvm.fma", 1, types, 3, (Val[]){a, b, x});
    case EX_neg: return LLVMBuildFNeg(c->b, a, "");
    case EX_abs: return intrinsic(c, "llvm.fabs", 1, types, 1, &a);
    case EX_sqrt: return intrinsic(c, "llvm.sqrt", 1, types, 1, &a);
    case EX_min:
    case EX_max: return float_minmax(c, t, op == EX_max, a, b);
    case EX_floor:
    case EX_ceil:
    case EX_trunc:
    case EX_rint: return round_mode(c, op, a);
    default: c->error = "operation not defined on floats"; return a;
  }
}

/* A divisor made safe: 0 becomes 1 (the result is then replaced), -1 too for signed (the quotient
 * is -a). */
typedef struct Divisor {
  Val safe, is_zero, is_minus; /* NULL: cannot be */
} Divisor;

static Divisor divisor(Emit *c, const Expr *e, bool is_signed, Val b) {
  Divisor d = {b, NULL, NULL};
  int64_t lo, hi;
  const bool known =
      e && !c->unchecked && e->a[1]->dtype == DT_I64 && expr_range(c->pool, e->a[1], &lo, &hi);
  if (known && lo > 0) return d;
  int64_t k;
  if (e && expr_is_const(e->a[1], &k) && k != 0 && k != -1) return d;
  d.is_zero = icmp(c, LLVMIntEQ, b, zero_of(b));
  d.safe = pick(c, d.is_zero, ki(c, b, 1), b);
  if (is_signed) {
    d.is_minus = icmp(c, LLVMIntEQ, b, ki(c, b, -1));
    d.safe = pick(c, d.is_minus, ki(c, b, 1), d.safe);
  }
  return d;
}

static bool non_negative(Emit *c, const Expr *e) {
  int64_t lo, hi;
  return e && e->dtype == DT_I64 && expr_range(c->pool, e, &lo, &hi) && lo >= 0;
}

static Val int_div(Emit *c, const Expr *e, bool is_signed, Val a, Val b) {
  if (!is_signed || (e && non_negative(c, e->a[0]) && non_negative(c, e->a[1]))) {
    const Divisor d = divisor(c, e, false, b);
    const Val q = LLVMBuildUDiv(c->b, a, d.safe, "");
    return d.is_zero ? pick(c, d.is_zero, zero_of(q), q) : q;
  }
  const Divisor d = divisor(c, e, true, b);
  Val q = LLVMBuildSDiv(c->b, a, d.safe, "");
  if (d.is_minus) q = pick(c, d.is_minus, LLVMBuildNeg(c->b, a, ""), q);
  return d.is_zero ? pick(c, d.is_zero, zero_of(q), q) : q;
}

static Val int_rem(Emit *c, const Expr *e, bool is_signed, Val a, Val b) {
  if (!is_signed || (e && non_negative(c, e->a[0]) && non_negative(c, e->a[1]))) {
    const Divisor d = divisor(c, e, false, b);
    const Val r = LLVMBuildURem(c->b, a, d.safe, "");
    return d.is_zero ? pick(c, d.is_zero, zero_of(r), r) : r;
  }
  const Divisor d = divisor(c, e, true, b); /* x rem 1 is 0 too */
  return LLVMBuildSRem(c->b, a, d.safe, "");
}

/* Whether quotient or remainder must move towards -inf: remainder not zero, and signs differ. */
static Val needs_floor(Emit *c, Val r, Val b) {
  const Val differ = icmp(c, LLVMIntSLT, LLVMBuildXor(c->b, r, b, ""), zero_of(r));
  return LLVMBuildAnd(c->b, icmp(c, LLVMIntNE, r, zero_of(r)), differ, "");
}

static Val int_floor_op(Emit *c, const Expr *e, ExprOp op, bool is_signed, Val a, Val b) {
  if (!is_signed || (e && non_negative(c, e->a[0])))
    return op == EX_floordiv ? int_div(c, e, is_signed, a, b) : int_rem(c, e, is_signed, a, b);
  int64_t k;
  if (e && expr_is_const(e->a[1], &k) && k > 0 && (k & (k - 1)) == 0) {
    if (op == EX_floormod) return LLVMBuildAnd(c->b, a, ki(c, a, k - 1), "");
    return LLVMBuildAShr(c->b, a, ki(c, a, __builtin_ctzll((unsigned long long)k)), "");
  }
  const Val r = int_rem(c, e, true, a, b), move = needs_floor(c, r, b);
  if (op == EX_floormod) return LLVMBuildAdd(c->b, r, pick(c, move, b, zero_of(b)), "");
  const Val q = int_div(c, e, true, a, b);
  return LLVMBuildSub(c->b, q, LLVMBuildZExt(c->b, move, LLVMTypeOf(q), ""), "");
}

static Val int_shift(Emit *c, ExprOp op, DType t, Val a, Val b) {
  const int bits = dtype_bytes(t) * 8;
  const bool arithmetic = op == EX_shr && dtype_rows[t].cls == DC_SINT;
  const Val big = icmp(c, LLVMIntUGE, b, ki(c, b, bits));
  const Val by = pick(c, big, ki(c, b, arithmetic ? bits - 1 : 0), b);
  if (arithmetic) return LLVMBuildAShr(c->b, a, by, "");
  const Val r = op == EX_shl ? LLVMBuildShl(c->b, a, by, "") : LLVMBuildLShr(c->b, a, by, "");
  return pick(c, big, zero_of(r), r);
}

/* Bytes below 128: those of few bits. */
static bool few_bits(const Expr *e) {
  return e->op == EX_and && e->a[1]->op == EX_CONST && !(e->a[1]->k.i & (int32_t)0x80808080);
}

/* Whether no element of the second operand of a dot is -128. */
static bool two_products_fit(const Emit *c, const Expr *e) {
  if (e && few_bits(e->a[1])) return true;
  return c->negates && e && e->a[1]->op == EX_LOAD && c->negates[e->a[1]->id];
}

static Val int_op(Emit *c, const Expr *e, ExprOp op, DType t, Val a, Val b, Val x) {
  const bool is_signed = dtype_rows[t].cls == DC_SINT;
  switch (op) {
    case EX_add: return LLVMBuildAdd(c->b, a, b, "");
    case EX_sub: return LLVMBuildSub(c->b, a, b, "");
    case EX_mul: return LLVMBuildMul(c->b, a, b, "");
    case EX_fma: {
      const Val product = emit_long_product(c, e, a, b);
      return LLVMBuildAdd(c->b, product ? product : LLVMBuildMul(c->b, a, b, ""), x, "");
    }
    case EX_dot4_u8i8:
    case EX_dot4_i8i8:
    case EX_dot4_u8u8:
    case EX_dot2x2_u8i8:
    case EX_dot2_i16:
    case EX_dot2_bf16:
      if (t != DT_I32) c->error = "groups of smaller integers in what is not i32";
      return emit_dot(c, op, a, b, x, two_products_fit(c, e));
    case EX_div: return int_div(c, e, is_signed, a, b);
    case EX_rem: return int_rem(c, e, is_signed, a, b);
    case EX_floordiv:
    case EX_floormod: return int_floor_op(c, e, op, is_signed, a, b);
    case EX_neg: return LLVMBuildNeg(c->b, a, "");
    case EX_abs:
      return is_signed ? pick(c, icmp(c, LLVMIntSLT, a, zero_of(a)), LLVMBuildNeg(c->b, a, ""), a)
                       : a;
    case EX_min: return pick(c, icmp(c, is_signed ? LLVMIntSLT : LLVMIntULT, a, b), a, b);
    case EX_max: return pick(c, icmp(c, is_signed ? LLVMIntSGT : LLVMIntUGT, a, b), a, b);
    case EX_and: return LLVMBuildAnd(c->b, a, b, "");
    case EX_or: return LLVMBuildOr(c->b, a, b, "");
    case EX_xor: return LLVMBuildXor(c->b, a, b, "");
    case EX_not: return LLVMBuildNot(c->b, a, "");
    case EX_shl:
    case EX_shr: return int_shift(c, op, t, a, b);
    case EX_floor:
    case EX_ceil:
    case EX_trunc:
    case EX_rint: return a;
    default: c->error = "operation not defined on integers"; return a;
  }
}

static Val bool_op(Emit *c, ExprOp op, Val a, Val b) {
  switch (op) {
    case EX_add:
    case EX_or:
    case EX_max: return LLVMBuildOr(c->b, a, b, "");
    case EX_mul:
    case EX_and:
    case EX_min: return LLVMBuildAnd(c->b, a, b, "");
    case EX_sub:
    case EX_xor: return LLVMBuildXor(c->b, a, b, "");
    case EX_not: return LLVMBuildNot(c->b, a, "");
    default: return a;
  }
}

static Val emit_compare(Emit *c, ExprOp op, DType t, Val a, Val b) {
  if (dtype_is_float(t)) {
    const LLVMRealPredicate p = op == EX_lt   ? LLVMRealOLT
                                : op == EX_le ? LLVMRealOLE
                                : op == EX_eq ? LLVMRealOEQ
                                              : LLVMRealUNE;
    return LLVMBuildFCmp(c->b, p, a, b, "");
  }
  const bool s = dtype_rows[t].cls == DC_SINT;
  const LLVMIntPredicate p = op == EX_lt   ? (s ? LLVMIntSLT : LLVMIntULT)
                             : op == EX_le ? (s ? LLVMIntSLE : LLVMIntULE)
                             : op == EX_eq ? LLVMIntEQ
                                           : LLVMIntNE;
  return icmp(c, p, a, b);
}

Val emit_op(Emit *c, const Expr *e, ExprOp op, DType t, Val a, Val b, Val x) {
  if (op == EX_select || op == EX_rarely) return pick(c, a, b, x);
  if (b) same_lanes(c, &a, &b);
  if (x) {
    same_lanes(c, &a, &x);
    same_lanes(c, &b, &x);
  }
  if (op == EX_lt || op == EX_le || op == EX_eq || op == EX_ne) return emit_compare(c, op, t, a, b);
  if (op == EX_isnan)
    return dtype_is_float(t) ? LLVMBuildFCmp(c->b, LLVMRealUNO, a, a, "")
                             : LLVMConstNull(like(c->i1, a));
  if (t == DT_BOOL) return bool_op(c, op, a, b);
  const Val r = dtype_is_float(t) ? float_op(c, op, t, a, b, x) : int_op(c, e, op, t, a, b, x);
  const bool exact =
      op == EX_min || op == EX_max || op == EX_abs || (op == EX_neg && dtype_is_float(t));
  return exact ? r : round_to(c, t, r);
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
  const Val v = pick(c, cond, ev(c, e->a[1], narrow), usual);
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

/* ---- reductions ---- */
Val emit_combine(Emit *c, ReduceKind kind, DType t, Val a, Val b) {
  static const ExprOp ops[] = {[RED_SUM] = EX_add, [RED_PROD] = EX_mul, [RED_MIN] = EX_min,
                               [RED_MAX] = EX_max, [RED_AND] = EX_and,  [RED_OR] = EX_or};
  const bool ordered = kind == RED_MIN || kind == RED_MAX; /* a is gathered: its NaN is the rarer */
  return emit_op(c, NULL, ops[kind], t, ordered ? b : a, ordered ? a : b, NULL);
}

Val emit_identity(Emit *c, ReduceKind kind, DType t) {
  return emit_literal(c, reduce_identity(c->pool, kind, t), false);
}

Val emit_horizontal(Emit *c, ReduceKind kind, DType t, Val v) {
  while (is_vec(v)) {
    const unsigned n = LLVMGetVectorSize(LLVMTypeOf(v)), half = n / 2;
    if (n == 1) return LLVMBuildExtractElement(c->b, v, k_int(c, c->i32, 0), "");
    const Val low = half == 1 ? LLVMBuildExtractElement(c->b, v, k_int(c, c->i32, 0), "")
                              : lanes_from(c, v, 0, (int)half);
    const Val high = half == 1 ? LLVMBuildExtractElement(c->b, v, k_int(c, c->i32, 1), "")
                               : lanes_from(c, v, (int)half, (int)half);
    v = emit_combine(c, kind, t, low, high);
  }
  return v;
}
