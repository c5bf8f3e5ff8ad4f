/* Conversions between element types, for scalars and vectors alike, without any library call. Small
 * floats are computed with as f32 and rounded by integer code (f16: by instructions where the
 * target has them). Must agree bit for bit with ir/base/dtype.c, whose tests compare the two. */
#include <stdio.h>

#include "codegen/llvm/emit.h"

/* ---- small floats ---- */
/* As in ir/base/dtype.c: codes without the sign; inf 0: none; nan 0: none; unsigned_zero: the
 * code of -0 is NaN. */
typedef struct Format {
  int mant, bias;
  int max, inf, nan;
  bool unsigned_zero, saturates;
} Format;

static const Format formats[DT_COUNT] = {
    [DT_F16] = {10, 15, 0x7bff, 0x7c00, 0x7e00, false, false},
    [DT_F8E4M3FN] = {3, 7, 0x7e, 0, 0x7f, false, true},
    [DT_F8E4M3FNUZ] = {3, 8, 0x7f, 0, 0x80, true, true},
    [DT_F8E5M2] = {2, 15, 0x7b, 0x7c, 0x7e, false, true},
    [DT_F8E5M2FNUZ] = {2, 16, 0x7f, 0, 0x80, true, true},
    [DT_F4E2M1] = {1, 1, 0x7, 0, 0, false, true},
};

static bool is_small_float(DType t) { return dtype_is_float(t) && t != DT_F32 && t != DT_F64; }
static Val bits32(Emit *c, Val f) { return LLVMBuildBitCast(c->b, f, like(c->i32, f), ""); }
static Val float32(Emit *c, Val i) { return LLVMBuildBitCast(c->b, i, like(c->f32, i), ""); }
static Val ki(Emit *c, Val as, int64_t v) { return k_int(c, LLVMTypeOf(as), v); }
static Val and_k(Emit *c, Val a, int64_t k) { return LLVMBuildAnd(c->b, a, ki(c, a, k), ""); }
static Val shr_k(Emit *c, Val a, int k) { return LLVMBuildLShr(c->b, a, ki(c, a, k), ""); }
static Val shl_k(Emit *c, Val a, int k) { return LLVMBuildShl(c->b, a, ki(c, a, k), ""); }
static Val add_k(Emit *c, Val a, int64_t k) { return LLVMBuildAdd(c->b, a, ki(c, a, k), ""); }
static Val cmp_k(Emit *c, LLVMIntPredicate p, Val a, int64_t k) {
  return LLVMBuildICmp(c->b, p, a, ki(c, a, k), "");
}
static Val pick(Emit *c, Val cond, Val a, Val b) {
  same_lanes(c, &cond, &a);
  same_lanes(c, &a, &b);
  return LLVMBuildSelect(c->b, cond, a, b, "");
}

static uint32_t float_bits(double v) {
  union {
    float f;
    uint32_t u;
  } x = {(float)v};
  return x.u;
}
static double pow2(int e) {
  double v = 1;
  for (; e > 0; e--) v *= 2;
  for (; e < 0; e++) v /= 2;
  return v;
}

static Val e8m0_encode(Emit *c, Val x, bool saturate) {
  const Val u = and_k(c, bits32(c, x), 0x7fffffff); /* the sign is dropped */
  Val code = LLVMBuildAdd(c->b, shr_k(c, u, 23), and_k(c, shr_k(c, u, 22), 1), "");
  const Val denormal = LLVMBuildICmp(c->b, LLVMIntULT, u, ki(c, u, 0x00800000), "");
  const Val low = LLVMBuildZExt(c->b, cmp_k(c, LLVMIntUGE, u, 0x00600000), LLVMTypeOf(u), "");
  code = pick(c, denormal, low, code);
  code = pick(c, cmp_k(c, LLVMIntUGT, code, 254), ki(c, code, saturate ? 254 : 255), code);
  return pick(c, cmp_k(c, LLVMIntUGE, u, 0x7f800000), ki(c, code, 255), code);
}

static Val e8m0_decode(Emit *c, Val code) {
  Val u = shl_k(c, code, 23);
  u = pick(c, cmp_k(c, LLVMIntEQ, code, 0), ki(c, u, 0x00400000), u);
  return float32(c, pick(c, cmp_k(c, LLVMIntEQ, code, 255), ki(c, u, 0x7fc00000), u));
}

/* f32 → code with sign, as i32. */
static Val encode(Emit *c, DType t, Val x, bool saturate) {
  if (t == DT_F8E8M0) return e8m0_encode(c, x, saturate);
  const Format *const f = &formats[t];
  const int shift = 23 - f->mant, lowest = 1 - f->bias;
  const Val u = bits32(c, x), a = and_k(c, u, 0x7fffffff);
  /* round to nearest even by carrying into the kept bits */
  const Val odd = and_k(c, shr_k(c, a, shift), 1);
  const Val rounded = add_k(c, LLVMBuildAdd(c->b, a, odd, ""), (1 << (shift - 1)) - 1);
  const Val normal = add_k(c, shr_k(c, rounded, shift), -((int64_t)(127 - f->bias) << f->mant));
  /* below the normal range: adding a big number makes the hardware round */
  const double magic = pow2(lowest - f->mant + 23);
  const Val big = LLVMBuildFAdd(c->b, float32(c, a), k_real(c, LLVMTypeOf(x), magic), "");
  const Val tiny = add_k(c, bits32(c, big), -(int64_t)float_bits(magic));
  Val code = pick(c, cmp_k(c, LLVMIntULT, a, float_bits(pow2(lowest))), tiny, normal);
  const int over = (saturate && f->saturates) || !f->nan ? f->max : f->inf ? f->inf : f->nan;
  code = pick(c, cmp_k(c, LLVMIntSGT, code, f->max), ki(c, code, over), code);
  code = pick(c, cmp_k(c, LLVMIntUGT, a, 0x7f800000), ki(c, code, f->nan), code);
  const int sign_shift = 32 - dtype_rows[t].bits;
  Val sign = and_k(c, shr_k(c, u, sign_shift), (int64_t)1 << (dtype_rows[t].bits - 1));
  if (f->unsigned_zero) sign = pick(c, cmp_k(c, LLVMIntEQ, code, 0), ki(c, sign, 0), sign);
  code = LLVMBuildOr(c->b, code, sign, "");
  if (f->nan) return code;
  return pick(c, cmp_k(c, LLVMIntUGT, a, 0x7f800000), ki(c, code, 8), code); /* no NaN: -0 */
}

static Val decode(Emit *c, DType t, Val code) {
  if (t == DT_F8E8M0) return e8m0_decode(c, code);
  const Format *const f = &formats[t];
  const int sign_bit = 1 << (dtype_rows[t].bits - 1);
  const Val mag = and_k(c, code, sign_bit - 1);
  const Val normal = add_k(c, shl_k(c, mag, 23 - f->mant), (int64_t)(127 - f->bias) << 23);
  const Val whole = LLVMBuildSIToFP(c->b, mag, like(c->f32, mag), "");
  const Val tiny =
      LLVMBuildFMul(c->b, whole, k_real(c, LLVMTypeOf(whole), pow2(1 - f->bias - f->mant)), "");
  Val u = pick(c, cmp_k(c, LLVMIntULT, mag, 1 << f->mant), bits32(c, tiny), normal);
  if (f->nan && !f->unsigned_zero) {
    Val special = ki(c, u, 0x7fc00000);
    if (f->inf) special = pick(c, cmp_k(c, LLVMIntEQ, mag, f->inf), ki(c, u, 0x7f800000), special);
    u = pick(c, cmp_k(c, LLVMIntUGT, mag, f->max), special, u);
  }
  u = LLVMBuildOr(c->b, u, shl_k(c, and_k(c, code, sign_bit), 32 - dtype_rows[t].bits), "");
  if (f->unsigned_zero) u = pick(c, cmp_k(c, LLVMIntEQ, code, f->nan), ki(c, u, 0x7fc00000), u);
  return float32(c, u);
}

/* One instruction, or NULL. */
static Val bf16_instruction(Emit *c, Val x) {
  const int lanes = is_vec(x) ? (int)LLVMGetVectorSize(LLVMTypeOf(x)) : 1;
  if (!c->arch->bf16_round || !target_has(c->t, FEATURE_BF16) || (lanes != 8 && lanes != 16))
    return NULL;
  char name[64];
  snprintf(name, sizeof name, "%s.%d", c->arch->bf16_round, 32 * lanes);
  return LLVMBuildBitCast(c->b, intrinsic(c, name, 0, NULL, 1, &x), like(c->i16, x), "");
}

/* bf16: the upper half of an f32, rounded. */
static Val bf16_encode(Emit *c, Val x) {
  const Val u = bits32(c, x), odd = and_k(c, shr_k(c, u, 16), 1);
  const Val rounded = shr_k(c, add_k(c, LLVMBuildAdd(c->b, u, odd, ""), 0x7fff), 16);
  const Val nan = LLVMBuildOr(c->b, shr_k(c, u, 16), ki(c, u, 0x40), "");
  return pick(c, LLVMBuildFCmp(c->b, LLVMRealUNO, x, x, ""), nan, rounded);
}

/* f16 with conversion instructions. On x86 a fence keeps LLVM from moving comparisons before the
 * conversion, where it has no instruction for them. Where there is arithmetic in f16, LLVM makes a sum, product
 * or quotient of two f16 that is rounded to f16 one instruction: f32 has more than twice as many bits and two, so
 * that rounding twice is rounding once (Figueroa 1995). */
static Val half_decode(Emit *c, Val v) {
  const Val half = LLVMBuildBitCast(c->b, v, like(LLVMHalfTypeInContext(c->ctx), v), "");
  Val f = LLVMBuildFPExt(c->b, half, like(c->f32, v), "");
  if (!c->arch->fence || LLVMIsConstant(f) || target_has(c->t, FEATURE_F16)) return f;
  return intrinsic(c, "llvm.arithmetic.fence", 1, (Type[]){LLVMTypeOf(f)}, 1, &f);
}

/* What half_decode made f of, or NULL: moving elements converts nothing. */
static Val half_source(Val f) {
  if (LLVMIsACallInst(f)) {
    static const char fence[] = "llvm.arithmetic.fence";
    const unsigned id = LLVMLookupIntrinsicID(fence, sizeof fence - 1);
    if (LLVMGetIntrinsicID(LLVMGetCalledValue(f)) != id) return NULL;
    f = LLVMGetOperand(f, 0);
  }
  if (!LLVMIsAFPExtInst(f)) return NULL;
  const Val half = LLVMGetOperand(f, 0);
  const Type t = LLVMTypeOf(half);
  const LLVMTypeKind kind =
      LLVMGetTypeKind(LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t);
  return kind == LLVMHalfTypeKind ? half : NULL;
}

Val emit_f16(Emit *c, Val f) {
  if (!target_has(c->t, FEATURE_F16)) return NULL;
  if (!LLVMIsConstant(f)) return half_source(f);
  const Val half = LLVMBuildFPTrunc(c->b, f, like(LLVMHalfTypeInContext(c->ctx), f), "");
  return LLVMBuildFPExt(c->b, half, LLVMTypeOf(f), "") == f ? half : NULL;
}

Val emit_from_f16(Emit *c, Val half) { return half_decode(c, half); }

/* The root of an f16, or NULL. */
static Val half_root(Emit *c, Val x) {
  static const char name[] = "llvm.sqrt";
  if (!LLVMIsACallInst(x) ||
      LLVMGetIntrinsicID(LLVMGetCalledValue(x)) != LLVMLookupIntrinsicID(name, sizeof name - 1))
    return NULL;
  const Val half = emit_f16(c, LLVMGetOperand(x, 0));
  const Type t = half ? LLVMTypeOf(half) : NULL;
  return half ? intrinsic(c, name, 1, &t, 1, &half) : NULL;
}

static Val half_encode(Emit *c, Val x) {
  Val source = half_source(x);
  if (!source) source = half_root(c, x);
  const Val half =
      source ? source : LLVMBuildFPTrunc(c->b, x, like(LLVMHalfTypeInContext(c->ctx), x), "");
  return LLVMBuildBitCast(c->b, half, like(c->i16, x), "");
}

/* What small_decode made the f32 x of, where that was a bf16, or NULL. */
static Val bf16_source(Emit *c, Val x) {
  if (!LLVMIsABitCastInst(x)) return NULL;
  const Val up = LLVMGetOperand(x, 0);
  if (!LLVMIsAInstruction(up) || LLVMGetInstructionOpcode(up) != LLVMShl ||
      LLVMGetOperand(up, 1) != ki(c, up, 16) || !LLVMIsAZExtInst(LLVMGetOperand(up, 0)))
    return NULL;
  const Val v = LLVMGetOperand(LLVMGetOperand(up, 0), 0);
  return LLVMTypeOf(v) == like(c->i16, x) ? v : NULL;
}

bool emit_is_bf16(const Expr *e) {
  if (e->op == EX_cast) return e->a[0]->dtype == DT_BF16;
  if (e->op == EX_CONST) return dtype_round(DT_BF16, e->k.f, false) == e->k.f;
  if (e->op == EX_neg || e->op == EX_abs) return emit_is_bf16(e->a[0]);
  if (e->op == EX_select) return emit_is_bf16(e->a[1]) && emit_is_bf16(e->a[2]);
  return (e->op == EX_min || e->op == EX_max) && emit_is_bf16(e->a[0]) && emit_is_bf16(e->a[1]);
}

static Val small_encode(Emit *c, DType t, Val x, bool saturate) { /* storage integer */
  const Type mem = like(mem_type(c, t), x);
  Val found = t == DT_BF16 ? bf16_source(c, x) : NULL;
  if (!found && t == DT_BF16) found = bf16_instruction(c, x);
  if (found) return found;
  if (t == DT_F16 && target_has(c->t, FEATURE_F16C)) return half_encode(c, x);
  const Val code = t == DT_BF16 ? bf16_encode(c, x) : encode(c, t, x, saturate);
  return LLVMBuildTrunc(c->b, code, mem, "");
}

static Val small_decode(Emit *c, DType t, Val v) {
  if (t == DT_F16 && target_has(c->t, FEATURE_F16C)) return half_decode(c, v);
  const Val code = LLVMBuildZExt(c->b, v, like(c->i32, v), "");
  return t == DT_BF16 ? float32(c, shl_k(c, code, 16)) : decode(c, t, code);
}

Val from_mem(Emit *c, DType t, Val v) {
  if (t == DT_BOOL) return cmp_k(c, LLVMIntNE, v, 0);
  return is_small_float(t) ? small_decode(c, t, v) : v;
}

Val to_mem(Emit *c, DType t, Val v) {
  if (t == DT_BOOL) return LLVMBuildZExt(c->b, v, like(c->i8, v), "");
  if (t == DT_BF16) /* what is in registers is rounded */
    return LLVMBuildTrunc(c->b, shr_k(c, bits32(c, v), 16), like(c->i16, v), "");
  return is_small_float(t) ? small_encode(c, t, v, false) : v;
}

Val round_to(Emit *c, DType t, Val v) {
  if (is_small_float(t)) return small_decode(c, t, small_encode(c, t, v, false));
  const int bits = dtype_rows[t].bits;
  if (t == DT_BOOL || dtype_is_float(t) || bits >= 8) return v;
  if (dtype_rows[t].cls == DC_UINT) return and_k(c, v, (1 << bits) - 1);
  return LLVMBuildAShr(c->b, shl_k(c, v, 8 - bits), ki(c, v, 8 - bits), "");
}

/* f64 → f32 rounded to odd, so that a second rounding to a smaller type is as if it were the
 * first. */
static Val narrow_to_odd(Emit *c, Val x) {
  const Val f = LLVMBuildFPTrunc(c->b, x, like(c->f32, x), "");
  const Val back = LLVMBuildFPExt(c->b, f, LLVMTypeOf(x), "");
  const Type types[1] = {LLVMTypeOf(x)};
  const Val mag = intrinsic(c, "llvm.fabs", 1, types, 1, &back),
            want = intrinsic(c, "llvm.fabs", 1, types, 1, &x);
  const Val above = LLVMBuildFCmp(c->b, LLVMRealOGT, mag, want, "");
  const Val inexact = LLVMBuildFCmp(c->b, LLVMRealONE, mag, want, "");
  Val u = bits32(c, f);
  u = LLVMBuildSub(c->b, u, LLVMBuildZExt(c->b, above, LLVMTypeOf(u), ""), "");
  return float32(c, LLVMBuildOr(c->b, u, LLVMBuildZExt(c->b, inexact, LLVMTypeOf(u), ""), ""));
}

/* i64 or u64 with at most 53 bits that rounds to small types as before: of large values the low 16
 * bits are gathered in one. */
static Val gather_low(Emit *c, bool is_signed, Val v) {
  const int64_t wide = INT64_C(1) << 52;
  const Val low = and_k(c, v, 0xffff), high = and_k(c, v, ~INT64_C(0xffff));
  const Val some = cmp_k(c, LLVMIntNE, low, 0);
  const Val sticky = LLVMBuildOr(c->b, high, pick(c, some, ki(c, v, 0x8000), ki(c, v, 0)), "");
  const Val shifted = is_signed ? add_k(c, v, wide) : v; /* |v| < 2^52 as one unsigned comparison */
  const Val small = cmp_k(c, LLVMIntULT, shifted, is_signed ? 2 * wide : wide);
  return pick(c, small, v, sticky);
}

/* 2^-127 is a subnormal f32. */
static Val e8m0_to_f64(Emit *c, Val v) {
  const Val e = LLVMBuildZExt(c->b, shr_k(c, bits32(c, v), 23), like(c->i64, v), "");
  const Val nan = k_real(c, like(c->f64, v), (double)__builtin_nanf(""));
  const Val r = LLVMBuildBitCast(c->b, shl_k(c, add_k(c, e, 1023 - 127), 52), like(c->f64, v), "");
  return pick(c, LLVMBuildFCmp(c->b, LLVMRealUNO, v, v, ""), nan, r);
}

/* An integer as the f32 that a type below 32 bits is encoded from, rounded once. */
static Val int_to_small(Emit *c, DType to, DType from, Val v) {
  const bool is_signed = dtype_rows[from].cls == DC_SINT;
  const int bits = dtype_rows[from].bits;
  const Type f32 = like(c->f32, v), f64 = like(c->f64, v);
  if (from != DT_BOOL && bits > 16 && to != DT_BF16 && to != DT_F8E8M0) {
    const int64_t far = 1 << 20; /* beyond every finite value, and exact */
    const Val hi = ki(c, v, far), lo = ki(c, v, -far);
    v = pick(c, LLVMBuildICmp(c->b, is_signed ? LLVMIntSGT : LLVMIntUGT, v, hi, ""), hi, v);
    if (is_signed) v = pick(c, LLVMBuildICmp(c->b, LLVMIntSLT, v, lo, ""), lo, v);
    v = LLVMBuildIntCast2(c->b, v, like(c->i32, v), is_signed, "");
    return LLVMBuildSIToFP(c->b, v, f32, "");
  }
  if (from == DT_BOOL || bits <= 16)
    return is_signed ? LLVMBuildSIToFP(c->b, v, f32, "") : LLVMBuildUIToFP(c->b, v, f32, "");
  if (bits == 64) v = gather_low(c, is_signed, v);
  v = is_signed ? LLVMBuildSIToFP(c->b, v, f64, "") : LLVMBuildUIToFP(c->b, v, f64, "");
  return narrow_to_odd(c, v);
}

/* ---- casts ---- */
static Val to_float(Emit *c, DType to, DType from, Val v, bool saturate) {
  const bool small = is_small_float(to), source_float = dtype_is_float(from);
  const Type reg = like(reg_type(c, to), v);
  if (!source_float && small) {
    v = int_to_small(c, to, from, v);
  } else if (!source_float) {
    const bool is_signed = dtype_rows[from].cls == DC_SINT;
    v = is_signed ? LLVMBuildSIToFP(c->b, v, reg, "") : LLVMBuildUIToFP(c->b, v, reg, "");
  } else if (from == DT_F64 && to != DT_F64) {
    v = small ? narrow_to_odd(c, v) : LLVMBuildFPTrunc(c->b, v, reg, "");
  } else if (from == DT_F8E8M0 && to == DT_F64) {
    return e8m0_to_f64(c, v);
  } else if (from != DT_F64 && to == DT_F64) {
    v = LLVMBuildFPExt(c->b, v, reg, "");
  }
  return small ? small_decode(c, to, small_encode(c, to, v, saturate)) : v;
}

static int64_t int_min(DType t) {
  return dtype_rows[t].cls == DC_UINT ? 0 : (int64_t)(UINT64_MAX << (dtype_rows[t].bits - 1));
}
static int64_t int_max(DType t) {
  const int bits = dtype_rows[t].bits - (dtype_rows[t].cls == DC_SINT);
  return (int64_t)(bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1);
}

/* NaN → 0, out of range → the nearest. Below 32 bits the limits are exact in f32. */
static Val float_to_int(Emit *c, DType to, Val v) {
  const Type reg = like(reg_type(c, to), v), ft = LLVMTypeOf(v);
  const bool is_signed = dtype_rows[to].cls == DC_SINT;
  if (dtype_rows[to].bits <= 16) {
    if (is_signed) v = pick(c, LLVMBuildFCmp(c->b, LLVMRealORD, v, v, ""), v, LLVMConstNull(ft));
    const Val lo = k_real(c, ft, (double)int_min(to)), hi = k_real(c, ft, (double)int_max(to));
    v = pick(c, LLVMBuildFCmp(c->b, LLVMRealOGT, v, lo, ""), v,
             lo); /* NaN → lo, which is 0 if unsigned */
    v = pick(c, LLVMBuildFCmp(c->b, LLVMRealOLT, v, hi, ""), v, hi);
    return LLVMBuildTrunc(c->b, LLVMBuildFPToSI(c->b, v, like(c->i32, v), ""), reg, "");
  }
  const Type types[2] = {reg, ft};
  return intrinsic(c, is_signed ? "llvm.fptosi.sat" : "llvm.fptoui.sat", 2, types, 1, &v);
}

static Val resize_int(Emit *c, DType to, DType from, Val v) {
  const Type reg = like(reg_type(c, to), v);
  const int a = dtype_bytes(from) * 8, b = dtype_bytes(to) * 8;
  if (from == DT_BOOL) return LLVMBuildZExt(c->b, v, reg, "");
  if (a < b)
    v = dtype_rows[from].cls == DC_SINT ? LLVMBuildSExt(c->b, v, reg, "")
                                        : LLVMBuildZExt(c->b, v, reg, "");
  else if (a > b)
    v = LLVMBuildTrunc(c->b, v, reg, "");
  return round_to(c, to, v);
}

static Val clamp_int(Emit *c, DType to, DType from, Val v) {
  const bool from_signed = dtype_rows[from].cls == DC_SINT,
             to_signed = dtype_rows[to].cls == DC_SINT;
  const int from_bits = dtype_rows[from].bits - from_signed,
            to_bits = dtype_rows[to].bits - to_signed;
  if (from_signed && (!to_signed || from_bits > to_bits)) {
    const Val lo = ki(c, v, int_min(to));
    v = pick(c, LLVMBuildICmp(c->b, LLVMIntSLT, v, lo, ""), lo, v);
  }
  if (from_bits > to_bits) {
    const Val hi = ki(c, v, int_max(to));
    v = pick(c, LLVMBuildICmp(c->b, from_signed ? LLVMIntSGT : LLVMIntUGT, v, hi, ""), hi, v);
  }
  return v;
}

Val emit_cast(Emit *c, DType to, DType from, Val v, bool saturate) {
  if (to == from) return v;
  if (to == DT_BOOL) {
    if (is_small_float(from)) /* by bits: LLVM would compare a bf16 so, and find subnormals */
      return cmp_k(c, LLVMIntUGT, and_k(c, bits32(c, v), 0x7fffffff), 0x007fffff);
    if (dtype_is_float(from))
      return LLVMBuildFCmp(c->b, LLVMRealUNE, v, LLVMConstNull(LLVMTypeOf(v)), "");
    return cmp_k(c, LLVMIntNE, v, 0);
  }
  if (dtype_is_float(to)) return to_float(c, to, from, v, saturate);
  if (dtype_is_float(from)) return float_to_int(c, to, v);
  if (saturate && from != DT_BOOL) v = clamp_int(c, to, from, v);
  return resize_int(c, to, from, v);
}

/* ---- rounding to integers in floating point ---- */
/* Without instructions for it (ARMv7): adding and taking away 2^23 rounds; larger values are whole
 * already. */
static Val round_even_by_add(Emit *c, Val x) {
  const Type t = LLVMTypeOf(x);
  const bool wide = LLVMGetTypeKind(is_vec(x) ? LLVMGetElementType(t) : t) == LLVMDoubleTypeKind;
  const Val big = k_real(c, t, wide ? 4503599627370496.0 : 8388608.0);
  const Type types[1] = {t};
  const Val mag = intrinsic(c, "llvm.fabs", 1, types, 1, &x);
  const Val near = LLVMBuildFSub(c->b, LLVMBuildFAdd(c->b, mag, big, ""), big, "");
  const Val args[2] = {near, x};
  const Val with_sign = intrinsic(c, "llvm.copysign", 1, types, 2, args);
  return pick(c, LLVMBuildFCmp(c->b, LLVMRealOLT, mag, big, ""), with_sign, x);
}

static Val round_by_add(Emit *c, ExprOp op, Val x) {
  const Type types[1] = {LLVMTypeOf(x)};
  const Val one = k_real(c, types[0], 1), zero = LLVMConstNull(types[0]);
  const Val v = op == EX_trunc ? intrinsic(c, "llvm.fabs", 1, types, 1, &x) : x;
  Val r = round_even_by_add(c, v);
  if (op == EX_floor || op == EX_trunc)
    r = LLVMBuildFSub(c->b, r, pick(c, LLVMBuildFCmp(c->b, LLVMRealOGT, r, v, ""), one, zero), "");
  if (op == EX_ceil)
    r = LLVMBuildFAdd(c->b, r, pick(c, LLVMBuildFCmp(c->b, LLVMRealOLT, r, v, ""), one, zero), "");
  const Val args[2] = {r, x};
  return intrinsic(c, "llvm.copysign", 1, types, 2, args);
}

Val round_mode(Emit *c, ExprOp op, Val v) {
  if (!c->arch->rounds) return round_by_add(c, op, v);
  const char *const name = op == EX_floor   ? "llvm.floor"
                           : op == EX_ceil  ? "llvm.ceil"
                           : op == EX_trunc ? "llvm.trunc"
                                            : "llvm.roundeven";
  const Type types[1] = {LLVMTypeOf(v)};
  return intrinsic(c, name, 1, types, 1, &v);
}
