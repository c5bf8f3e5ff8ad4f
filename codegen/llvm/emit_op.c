/* One operation of the expression language on values: scalars, or vectors of lanes. */
#include "codegen/llvm/emit.h"

Val emit_pick(Emit *c, Val cond, Val a, Val b) {
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
  Val m = emit_pick(c, LLVMBuildFCmp(c->b, max ? LLVMRealOGT : LLVMRealOLT, a, b, ""), a, b);
  m = emit_pick(c, equal, LLVMBuildBitCast(c->b, both, types[0], ""), m);
  return emit_pick(c, LLVMBuildFCmp(c->b, LLVMRealUNO, a, a, ""), a, m);
}

/* NaN of either side comes out. x86's instruction gives its second operand when either is NaN, or
 * both are equal. */
static Val minmax_of(Emit *c, DType t, bool max, Val a, Val b) {
  if (expr_pool_rules(c->pool)->ordered_zeros) return ordered_minmax(c, t, max, a, b);
  Val m = emit_pick(c, LLVMBuildFCmp(c->b, max ? LLVMRealOGT : LLVMRealOLT, b, a, ""), b, a);
  if (never_nan(b)) return m;
  if (c->arch->fence) /* else the two selects are merged, and the instruction is not recognised */
    m = intrinsic(c, "llvm.arithmetic.fence", 1, (Type[]){LLVMTypeOf(m)}, 1, &m);
  return emit_pick(c, LLVMBuildFCmp(c->b, LLVMRealUNO, b, b, ""), b, m);
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
  d.safe = emit_pick(c, d.is_zero, ki(c, b, 1), b);
  if (is_signed) {
    d.is_minus = icmp(c, LLVMIntEQ, b, ki(c, b, -1));
    d.safe = emit_pick(c, d.is_minus, ki(c, b, 1), d.safe);
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
    return d.is_zero ? emit_pick(c, d.is_zero, zero_of(q), q) : q;
  }
  const Divisor d = divisor(c, e, true, b);
  Val q = LLVMBuildSDiv(c->b, a, d.safe, "");
  if (d.is_minus) q = emit_pick(c, d.is_minus, LLVMBuildNeg(c->b, a, ""), q);
  return d.is_zero ? emit_pick(c, d.is_zero, zero_of(q), q) : q;
}

static Val int_rem(Emit *c, const Expr *e, bool is_signed, Val a, Val b) {
  if (!is_signed || (e && non_negative(c, e->a[0]) && non_negative(c, e->a[1]))) {
    const Divisor d = divisor(c, e, false, b);
    const Val r = LLVMBuildURem(c->b, a, d.safe, "");
    return d.is_zero ? emit_pick(c, d.is_zero, zero_of(r), r) : r;
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
  if (op == EX_floormod) return LLVMBuildAdd(c->b, r, emit_pick(c, move, b, zero_of(b)), "");
  const Val q = int_div(c, e, true, a, b);
  return LLVMBuildSub(c->b, q, LLVMBuildZExt(c->b, move, LLVMTypeOf(q), ""), "");
}

static Val int_shift(Emit *c, ExprOp op, DType t, Val a, Val b) {
  const int bits = dtype_bytes(t) * 8;
  const bool arithmetic = op == EX_shr && dtype_rows[t].cls == DC_SINT;
  const Val big = icmp(c, LLVMIntUGE, b, ki(c, b, bits));
  const Val by = emit_pick(c, big, ki(c, b, arithmetic ? bits - 1 : 0), b);
  if (arithmetic) return LLVMBuildAShr(c->b, a, by, "");
  const Val r = op == EX_shl ? LLVMBuildShl(c->b, a, by, "") : LLVMBuildLShr(c->b, a, by, "");
  return emit_pick(c, big, zero_of(r), r);
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
      return is_signed
                 ? emit_pick(c, icmp(c, LLVMIntSLT, a, zero_of(a)), LLVMBuildNeg(c->b, a, ""), a)
                 : a;
    case EX_min: return emit_pick(c, icmp(c, is_signed ? LLVMIntSLT : LLVMIntULT, a, b), a, b);
    case EX_max: return emit_pick(c, icmp(c, is_signed ? LLVMIntSGT : LLVMIntUGT, a, b), a, b);
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
  if (op == EX_select || op == EX_rarely) return emit_pick(c, a, b, x);
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

/* ---- reductions ---- */
Val emit_combine(Emit *c, ReduceKind kind, DType t, Val a, Val b) {
  static const ExprOp ops[] = {[RED_SUM] = EX_add, [RED_PROD] = EX_mul, [RED_MIN] = EX_min,
                               [RED_MAX] = EX_max, [RED_AND] = EX_and,  [RED_OR] = EX_or};
  const bool ordered = kind == RED_MIN || kind == RED_MAX; /* a is gathered: its NaN is the rarer */
  return emit_op(c, NULL, ops[kind], t, ordered ? b : a, ordered ? a : b, NULL);
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
