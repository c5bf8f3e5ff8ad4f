/* Conversions between element types, for scalars and vectors alike, without any library call. Small
 * floats are computed with as f32 and rounded by integer code (f16: by instructions where the
 * target has them). Must agree bit for bit with ir/base/dtype.c, whose tests compare the two. */
#include "codegen/llvm/emit.h"

#define B c->b

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
static V bits32(Emit *c, V f) { return LLVMBuildBitCast(B, f, like(c->i32, f), ""); }
static V float32(Emit *c, V i) { return LLVMBuildBitCast(B, i, like(c->f32, i), ""); }
static V ki(Emit *c, V as, int64_t v) { return k_int(c, LLVMTypeOf(as), v); }
static V and_k(Emit *c, V a, int64_t k) { return LLVMBuildAnd(B, a, ki(c, a, k), ""); }
static V shr_k(Emit *c, V a, int k) { return LLVMBuildLShr(B, a, ki(c, a, k), ""); }
static V shl_k(Emit *c, V a, int k) { return LLVMBuildShl(B, a, ki(c, a, k), ""); }
static V add_k(Emit *c, V a, int64_t k) { return LLVMBuildAdd(B, a, ki(c, a, k), ""); }
static V cmp_k(Emit *c, LLVMIntPredicate p, V a, int64_t k) {
  return LLVMBuildICmp(B, p, a, ki(c, a, k), "");
}
static V pick(Emit *c, V cond, V a, V b) {
  same_lanes(c, &cond, &a);
  same_lanes(c, &a, &b);
  return LLVMBuildSelect(B, cond, a, b, "");
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

static V e8m0_encode(Emit *c, V x, bool saturate) {
  const V u = and_k(c, bits32(c, x), 0x7fffffff); /* the sign is dropped */
  V code = LLVMBuildAdd(B, shr_k(c, u, 23), and_k(c, shr_k(c, u, 22), 1), "");
  const V denormal = LLVMBuildICmp(B, LLVMIntULT, u, ki(c, u, 0x00800000), "");
  const V low = LLVMBuildZExt(B, cmp_k(c, LLVMIntUGE, u, 0x00600000), LLVMTypeOf(u), "");
  code = pick(c, denormal, low, code);
  code = pick(c, cmp_k(c, LLVMIntUGT, code, 254), ki(c, code, saturate ? 254 : 255), code);
  return pick(c, cmp_k(c, LLVMIntUGE, u, 0x7f800000), ki(c, code, 255), code);
}

static V e8m0_decode(Emit *c, V code) {
  V u = shl_k(c, code, 23);
  u = pick(c, cmp_k(c, LLVMIntEQ, code, 0), ki(c, u, 0x00400000), u);
  return float32(c, pick(c, cmp_k(c, LLVMIntEQ, code, 255), ki(c, u, 0x7fc00000), u));
}

/* f32 → code with sign, as i32. */
static V encode(Emit *c, DType t, V x, bool saturate) {
  if (t == DT_F8E8M0) return e8m0_encode(c, x, saturate);
  const Format *const f = &formats[t];
  const int shift = 23 - f->mant, lowest = 1 - f->bias;
  const V u = bits32(c, x), a = and_k(c, u, 0x7fffffff);
  /* round to nearest even by carrying into the kept bits */
  const V odd = and_k(c, shr_k(c, a, shift), 1);
  const V rounded = add_k(c, LLVMBuildAdd(B, a, odd, ""), (1 << (shift - 1)) - 1);
  const V normal = add_k(c, shr_k(c, rounded, shift), -((int64_t)(127 - f->bias) << f->mant));
  /* below the normal range: adding a big number makes the hardware round */
  const double magic = pow2(lowest - f->mant + 23);
  const V big = LLVMBuildFAdd(B, float32(c, a), k_real(c, LLVMTypeOf(x), magic), "");
  const V tiny = add_k(c, bits32(c, big), -(int64_t)float_bits(magic));
  V code = pick(c, cmp_k(c, LLVMIntULT, a, float_bits(pow2(lowest))), tiny, normal);
  const int over = (saturate && f->saturates) || !f->nan ? f->max : f->inf ? f->inf : f->nan;
  code = pick(c, cmp_k(c, LLVMIntSGT, code, f->max), ki(c, code, over), code);
  code = pick(c, cmp_k(c, LLVMIntUGT, a, 0x7f800000), ki(c, code, f->nan), code);
  const int sign_shift = 32 - dtype_rows[t].bits;
  V sign = and_k(c, shr_k(c, u, sign_shift), (int64_t)1 << (dtype_rows[t].bits - 1));
  if (f->unsigned_zero) sign = pick(c, cmp_k(c, LLVMIntEQ, code, 0), ki(c, sign, 0), sign);
  code = LLVMBuildOr(B, code, sign, "");
  if (f->nan) return code;
  return pick(c, cmp_k(c, LLVMIntUGT, a, 0x7f800000), ki(c, code, 8), code); /* no NaN: -0 */
}

static V decode(Emit *c, DType t, V code) {
  if (t == DT_F8E8M0) return e8m0_decode(c, code);
  const Format *const f = &formats[t];
  const int sign_bit = 1 << (dtype_rows[t].bits - 1);
  const V mag = and_k(c, code, sign_bit - 1);
  const V normal = add_k(c, shl_k(c, mag, 23 - f->mant), (int64_t)(127 - f->bias) << 23);
  const V whole = LLVMBuildSIToFP(B, mag, like(c->f32, mag), "");
  const V tiny =
      LLVMBuildFMul(B, whole, k_real(c, LLVMTypeOf(whole), pow2(1 - f->bias - f->mant)), "");
  V u = pick(c, cmp_k(c, LLVMIntULT, mag, 1 << f->mant), bits32(c, tiny), normal);
  if (f->nan && !f->unsigned_zero) {
    V special = ki(c, u, 0x7fc00000);
    if (f->inf) special = pick(c, cmp_k(c, LLVMIntEQ, mag, f->inf), ki(c, u, 0x7f800000), special);
    u = pick(c, cmp_k(c, LLVMIntUGT, mag, f->max), special, u);
  }
  u = LLVMBuildOr(B, u, shl_k(c, and_k(c, code, sign_bit), 32 - dtype_rows[t].bits), "");
  if (f->unsigned_zero) u = pick(c, cmp_k(c, LLVMIntEQ, code, f->nan), ki(c, u, 0x7fc00000), u);
  return float32(c, u);
}

/* bf16: the upper half of an f32. */
static V bf16_encode(Emit *c, V x) {
  const V u = bits32(c, x), odd = and_k(c, shr_k(c, u, 16), 1);
  const V rounded = shr_k(c, add_k(c, LLVMBuildAdd(B, u, odd, ""), 0x7fff), 16);
  const V nan = LLVMBuildOr(B, and_k(c, shr_k(c, u, 16), 0x8000), ki(c, u, 0x7fc0), "");
  return pick(c, LLVMBuildFCmp(B, LLVMRealUNO, x, x, ""), nan, rounded);
}

/* f16 with conversion instructions. On x86 a fence keeps LLVM from moving comparisons before the
 * conversion, where it has no instruction for them. */
static V half_decode(Emit *c, V v) {
  const V half = LLVMBuildBitCast(B, v, like(LLVMHalfTypeInContext(c->ctx), v), "");
  V f = LLVMBuildFPExt(B, half, like(c->f32, v), "");
  if (!c->arch->fence || LLVMIsConstant(f)) return f;
  return intrinsic(c, "llvm.arithmetic.fence", 1, (Ty[]){LLVMTypeOf(f)}, 1, &f);
}

/* What half_decode made f of, or NULL: moving elements converts nothing. */
static V half_source(V f) {
  if (LLVMIsACallInst(f)) {
    static const char fence[] = "llvm.arithmetic.fence";
    const unsigned id = LLVMLookupIntrinsicID(fence, sizeof fence - 1);
    if (LLVMGetIntrinsicID(LLVMGetCalledValue(f)) != id) return NULL;
    f = LLVMGetOperand(f, 0);
  }
  if (!LLVMIsAFPExtInst(f)) return NULL;
  const V half = LLVMGetOperand(f, 0);
  const Ty t = LLVMTypeOf(half);
  const LLVMTypeKind kind =
      LLVMGetTypeKind(LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetElementType(t) : t);
  return kind == LLVMHalfTypeKind ? half : NULL;
}

static V half_encode(Emit *c, V x) {
  const V source = half_source(x);
  const V half =
      source ? source : LLVMBuildFPTrunc(B, x, like(LLVMHalfTypeInContext(c->ctx), x), "");
  return LLVMBuildBitCast(B, half, like(c->i16, x), "");
}

static V small_encode(Emit *c, DType t, V x, bool saturate) { /* storage integer */
  const Ty mem = like(mem_type(c, t), x);
  if (t == DT_F16 && target_has(c->t, FEATURE_F16C)) return half_encode(c, x);
  const V code = t == DT_BF16 ? bf16_encode(c, x) : encode(c, t, x, saturate);
  return LLVMBuildTrunc(B, code, mem, "");
}

static V small_decode(Emit *c, DType t, V v) {
  if (t == DT_F16 && target_has(c->t, FEATURE_F16C)) return half_decode(c, v);
  const V code = LLVMBuildZExt(B, v, like(c->i32, v), "");
  return t == DT_BF16 ? float32(c, shl_k(c, code, 16)) : decode(c, t, code);
}

V from_mem(Emit *c, DType t, V v) {
  if (t == DT_BOOL) return cmp_k(c, LLVMIntNE, v, 0);
  return is_small_float(t) ? small_decode(c, t, v) : v;
}

V to_mem(Emit *c, DType t, V v) {
  if (t == DT_BOOL) return LLVMBuildZExt(B, v, like(c->i8, v), "");
  return is_small_float(t) ? small_encode(c, t, v, false) : v;
}

V round_to(Emit *c, DType t, V v) {
  if (is_small_float(t)) return small_decode(c, t, small_encode(c, t, v, false));
  const int bits = dtype_rows[t].bits;
  if (t == DT_BOOL || dtype_is_float(t) || bits >= 8) return v;
  if (dtype_rows[t].cls == DC_UINT) return and_k(c, v, (1 << bits) - 1);
  return LLVMBuildAShr(B, shl_k(c, v, 8 - bits), ki(c, v, 8 - bits), "");
}

/* f64 → f32 rounded to odd, so that a second rounding to a smaller type is as if it were the
 * first. */
static V narrow_to_odd(Emit *c, V x) {
  const V f = LLVMBuildFPTrunc(B, x, like(c->f32, x), "");
  const V back = LLVMBuildFPExt(B, f, LLVMTypeOf(x), "");
  const Ty types[1] = {LLVMTypeOf(x)};
  const V mag = intrinsic(c, "llvm.fabs", 1, types, 1, &back),
          want = intrinsic(c, "llvm.fabs", 1, types, 1, &x);
  const V above = LLVMBuildFCmp(B, LLVMRealOGT, mag, want, "");
  const V inexact = LLVMBuildFCmp(B, LLVMRealONE, mag, want, "");
  V u = bits32(c, f);
  u = LLVMBuildSub(B, u, LLVMBuildZExt(B, above, LLVMTypeOf(u), ""), "");
  return float32(c, LLVMBuildOr(B, u, LLVMBuildZExt(B, inexact, LLVMTypeOf(u), ""), ""));
}

/* i64 or u64 with at most 53 bits that rounds to small types as before: of large values the low 16
 * bits are gathered in one. */
static V gather_low(Emit *c, bool is_signed, V v) {
  const int64_t wide = INT64_C(1) << 52;
  const V low = and_k(c, v, 0xffff), high = and_k(c, v, ~INT64_C(0xffff));
  const V some = cmp_k(c, LLVMIntNE, low, 0);
  const V sticky = LLVMBuildOr(B, high, pick(c, some, ki(c, v, 0x8000), ki(c, v, 0)), "");
  const V shifted = is_signed ? add_k(c, v, wide) : v; /* |v| < 2^52 as one unsigned comparison */
  const V small = cmp_k(c, LLVMIntULT, shifted, is_signed ? 2 * wide : wide);
  return pick(c, small, v, sticky);
}

/* 2^-127 is a subnormal f32. */
static V e8m0_to_f64(Emit *c, V v) {
  const V e = LLVMBuildZExt(B, shr_k(c, bits32(c, v), 23), like(c->i64, v), "");
  const V nan = k_real(c, like(c->f64, v), (double)__builtin_nanf(""));
  const V r = LLVMBuildBitCast(B, shl_k(c, add_k(c, e, 1023 - 127), 52), like(c->f64, v), "");
  return pick(c, LLVMBuildFCmp(B, LLVMRealUNO, v, v, ""), nan, r);
}

/* An integer as the f32 that a type below 32 bits is encoded from, rounded once. */
static V int_to_small(Emit *c, DType to, DType from, V v) {
  const bool is_signed = dtype_rows[from].cls == DC_SINT;
  const int bits = dtype_rows[from].bits;
  const Ty f32 = like(c->f32, v), f64 = like(c->f64, v);
  if (from != DT_BOOL && bits > 16 && to != DT_BF16 && to != DT_F8E8M0) {
    const int64_t far = 1 << 20; /* beyond every finite value, and exact */
    const V hi = ki(c, v, far), lo = ki(c, v, -far);
    v = pick(c, LLVMBuildICmp(B, is_signed ? LLVMIntSGT : LLVMIntUGT, v, hi, ""), hi, v);
    if (is_signed) v = pick(c, LLVMBuildICmp(B, LLVMIntSLT, v, lo, ""), lo, v);
    v = LLVMBuildIntCast2(B, v, like(c->i32, v), is_signed, "");
    return LLVMBuildSIToFP(B, v, f32, "");
  }
  if (from == DT_BOOL || bits <= 16)
    return is_signed ? LLVMBuildSIToFP(B, v, f32, "") : LLVMBuildUIToFP(B, v, f32, "");
  if (bits == 64) v = gather_low(c, is_signed, v);
  v = is_signed ? LLVMBuildSIToFP(B, v, f64, "") : LLVMBuildUIToFP(B, v, f64, "");
  return narrow_to_odd(c, v);
}

/* ---- casts ---- */
static V to_float(Emit *c, DType to, DType from, V v, bool saturate) {
  const bool small = is_small_float(to), source_float = dtype_is_float(from);
  const Ty reg = like(reg_type(c, to), v);
  if (!source_float && small) {
    v = int_to_small(c, to, from, v);
  } else if (!source_float) {
    const bool is_signed = dtype_rows[from].cls == DC_SINT;
    v = is_signed ? LLVMBuildSIToFP(B, v, reg, "") : LLVMBuildUIToFP(B, v, reg, "");
  } else if (from == DT_F64 && to != DT_F64) {
    v = small ? narrow_to_odd(c, v) : LLVMBuildFPTrunc(B, v, reg, "");
  } else if (from == DT_F8E8M0 && to == DT_F64) {
    return e8m0_to_f64(c, v);
  } else if (from != DT_F64 && to == DT_F64) {
    v = LLVMBuildFPExt(B, v, reg, "");
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
static V float_to_int(Emit *c, DType to, V v) {
  const Ty reg = like(reg_type(c, to), v), ft = LLVMTypeOf(v);
  const bool is_signed = dtype_rows[to].cls == DC_SINT;
  if (dtype_rows[to].bits <= 16) {
    if (is_signed) v = pick(c, LLVMBuildFCmp(B, LLVMRealORD, v, v, ""), v, LLVMConstNull(ft));
    const V lo = k_real(c, ft, (double)int_min(to)), hi = k_real(c, ft, (double)int_max(to));
    v = pick(c, LLVMBuildFCmp(B, LLVMRealOGT, v, lo, ""), v,
             lo); /* NaN → lo, which is 0 if unsigned */
    v = pick(c, LLVMBuildFCmp(B, LLVMRealOLT, v, hi, ""), v, hi);
    return LLVMBuildTrunc(B, LLVMBuildFPToSI(B, v, like(c->i32, v), ""), reg, "");
  }
  const Ty types[2] = {reg, ft};
  return intrinsic(c, is_signed ? "llvm.fptosi.sat" : "llvm.fptoui.sat", 2, types, 1, &v);
}

static V resize_int(Emit *c, DType to, DType from, V v) {
  const Ty reg = like(reg_type(c, to), v);
  const int a = dtype_bytes(from) * 8, b = dtype_bytes(to) * 8;
  if (from == DT_BOOL) return LLVMBuildZExt(B, v, reg, "");
  if (a < b)
    v = dtype_rows[from].cls == DC_SINT ? LLVMBuildSExt(B, v, reg, "")
                                        : LLVMBuildZExt(B, v, reg, "");
  else if (a > b)
    v = LLVMBuildTrunc(B, v, reg, "");
  return round_to(c, to, v);
}

static V clamp_int(Emit *c, DType to, DType from, V v) {
  const bool from_signed = dtype_rows[from].cls == DC_SINT,
             to_signed = dtype_rows[to].cls == DC_SINT;
  const int from_bits = dtype_rows[from].bits - from_signed,
            to_bits = dtype_rows[to].bits - to_signed;
  if (from_signed && (!to_signed || from_bits > to_bits)) {
    const V lo = ki(c, v, int_min(to));
    v = pick(c, LLVMBuildICmp(B, LLVMIntSLT, v, lo, ""), lo, v);
  }
  if (from_bits > to_bits) {
    const V hi = ki(c, v, int_max(to));
    v = pick(c, LLVMBuildICmp(B, from_signed ? LLVMIntSGT : LLVMIntUGT, v, hi, ""), hi, v);
  }
  return v;
}

V emit_cast(Emit *c, DType to, DType from, V v, bool saturate) {
  if (to == from) return v;
  if (to == DT_BOOL) {
    if (is_small_float(from)) /* by bits: LLVM would compare a bf16 so, and find subnormals */
      return cmp_k(c, LLVMIntUGT, and_k(c, bits32(c, v), 0x7fffffff), 0x007fffff);
    if (dtype_is_float(from))
      return LLVMBuildFCmp(B, LLVMRealUNE, v, LLVMConstNull(LLVMTypeOf(v)), "");
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
static V round_even_by_add(Emit *c, V x) {
  const Ty t = LLVMTypeOf(x);
  const bool wide = LLVMGetTypeKind(is_vec(x) ? LLVMGetElementType(t) : t) == LLVMDoubleTypeKind;
  const V big = k_real(c, t, wide ? 4503599627370496.0 : 8388608.0);
  const Ty types[1] = {t};
  const V mag = intrinsic(c, "llvm.fabs", 1, types, 1, &x);
  const V near = LLVMBuildFSub(B, LLVMBuildFAdd(B, mag, big, ""), big, "");
  const V args[2] = {near, x};
  const V with_sign = intrinsic(c, "llvm.copysign", 1, types, 2, args);
  return pick(c, LLVMBuildFCmp(B, LLVMRealOLT, mag, big, ""), with_sign, x);
}

static V round_by_add(Emit *c, ExprOp op, V x) {
  const Ty types[1] = {LLVMTypeOf(x)};
  const V one = k_real(c, types[0], 1), zero = LLVMConstNull(types[0]);
  const V v = op == EX_trunc ? intrinsic(c, "llvm.fabs", 1, types, 1, &x) : x;
  V r = round_even_by_add(c, v);
  if (op == EX_floor || op == EX_trunc)
    r = LLVMBuildFSub(B, r, pick(c, LLVMBuildFCmp(B, LLVMRealOGT, r, v, ""), one, zero), "");
  if (op == EX_ceil)
    r = LLVMBuildFAdd(B, r, pick(c, LLVMBuildFCmp(B, LLVMRealOLT, r, v, ""), one, zero), "");
  const V args[2] = {r, x};
  return intrinsic(c, "llvm.copysign", 1, types, 2, args);
}

V round_mode(Emit *c, ExprOp op, V v) {
  if (!c->arch->rounds) return round_by_add(c, op, v);
  const char *const name = op == EX_floor   ? "llvm.floor"
                           : op == EX_ceil  ? "llvm.ceil"
                           : op == EX_trunc ? "llvm.trunc"
                                            : "llvm.roundeven";
  const Ty types[1] = {LLVMTypeOf(v)};
  return intrinsic(c, name, 1, types, 1, &v);
}
