/* The meaning of scalar operations, and evaluation of expressions with it. f32 and smaller floats
 * are computed in float and rounded to their type after every operation. Math rows
 * of floats have no meaning of their own: they are lowered first (math.c). */
#include <math.h>
#include "ir/expr/expr_impl.h"

/* ---- integers ---- */
static int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (b == -1) return (int64_t)(0 - (uint64_t)a);
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}

static int64_t trunc_div(DType t, int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (t == DT_U64) return (int64_t)((uint64_t)a / (uint64_t)b);
  return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}

static int64_t trunc_rem(DType t, int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (t == DT_U64) return (int64_t)((uint64_t)a % (uint64_t)b);
  return b == -1 ? 0 : a % b;
}

static int64_t floor_mod(DType t, int64_t a, int64_t b) {
  if (b == 0) return 0;
  if (t == DT_U64) return (int64_t)((uint64_t)a % (uint64_t)b);
  return (int64_t)((uint64_t)a - (uint64_t)floor_div(a, b) * (uint64_t)b);
}

static bool int_less(DType t, int64_t a, int64_t b) {
  return t == DT_U64 ? (uint64_t)a < (uint64_t)b : a < b;
}

/* A count of the width or more shifts everything out. */
static int64_t shift(DType t, int64_t a, int64_t n, bool left) {
  const int bits = t == DT_BOOL ? 1 : dtype_rows[t].bits;
  const bool out = n < 0 || n >= bits;
  if (left) return out ? 0 : (int64_t)((uint64_t)a << n);
  if (dtype_rows[t].cls == DC_UINT) return out ? 0 : (int64_t)((uint64_t)a >> n);
  return a >> (out ? 63 : n);
}

/* Element i of a group, one of `bits` bits. */
static int64_t group_element(int64_t v, int i, int bits, bool is_signed) {
  const uint64_t top = (uint64_t)v << (64 - bits * (i + 1));
  return is_signed ? (int64_t)top >> (64 - bits) : (int64_t)(top >> (64 - bits));
}

static int64_t dot(ExprOp op, int64_t a, int64_t b, int64_t c) {
  const int bits = op == EX_dot2_i16 ? 16 : 8;
  const bool a_signed = op == EX_dot4_i8i8 || op == EX_dot2_i16, b_signed = op != EX_dot4_u8u8;
  for (int i = 0; i < 32 / bits; i++)
    c += group_element(a, i, bits, a_signed) * group_element(b, i, bits, b_signed);
  return c;
}

/* Two sums of two products, each added to one of two i16. */
static int64_t dot_halves(int64_t a, int64_t b, int64_t c) {
  uint64_t out = 0;
  for (int h = 0; h < 2; h++) {
    int64_t s = 0;
    for (int i = 2 * h; i < 2 * h + 2; i++)
      s += group_element(a, i, 8, false) * group_element(b, i, 8, true);
    s = s < INT16_MIN ? INT16_MIN : s > INT16_MAX ? INT16_MAX : s;
    out |= ((uint64_t)(s + group_element(c, h, 16, true)) & UINT16_MAX) << 16 * h;
  }
  return (int32_t)(uint32_t)out;
}

static int64_t int_op(ExprOp op, DType t, int64_t a, int64_t b, int64_t c) {
  const uint64_t ua = (uint64_t)a, ub = (uint64_t)b;
  switch (op) {
    case EX_add: return (int64_t)(ua + ub);
    case EX_sub: return (int64_t)(ua - ub);
    case EX_mul: return (int64_t)(ua * ub);
    case EX_fma: return (int64_t)(ua * ub + (uint64_t)c);
    case EX_dot4_u8i8:
    case EX_dot4_i8i8:
    case EX_dot4_u8u8:
    case EX_dot2_i16: return dot(op, a, b, c);
    case EX_dot2x2_u8i8: return dot_halves(a, b, c);
    case EX_div: return trunc_div(t, a, b);
    case EX_rem: return trunc_rem(t, a, b);
    case EX_floordiv: return t == DT_U64 ? trunc_div(t, a, b) : floor_div(a, b);
    case EX_floormod: return floor_mod(t, a, b);
    case EX_neg: return (int64_t)(0 - ua);
    case EX_abs: return t != DT_U64 && a < 0 ? (int64_t)(0 - ua) : a;
    case EX_min: return int_less(t, b, a) ? b : a;
    case EX_max: return int_less(t, a, b) ? b : a;
    case EX_and: return a & b;
    case EX_or: return a | b;
    case EX_xor: return a ^ b;
    case EX_not: return t == DT_BOOL ? !a : ~a;
    case EX_shl: return shift(t, a, b, true);
    case EX_shr: return shift(t, a, b, false);
    case EX_pow: {
      uint64_t r = 1, base = ua;
      if (t != DT_U64 && b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
      for (uint64_t n = ub; n; n >>= 1, base *= base)
        if (n & 1) r *= base;
      return (int64_t)r;
    }
    default: return a; /* floor, rint … */
  }
}

/* ---- floats ---- */
/* Subnormal operands and results of arithmetic count as zero of their sign, as they do while a
 * model runs; what only moves a value (select, min, max, neg, abs, bits) keeps it. Types below f32
 * are computed with as f32. */
static double flush(DType t, double v) {
  return fabs(v) < (t == DT_F64 ? 0x1p-1022 : 0x1p-126) ? copysign(0, v) : v;
}

static float f32_op(ExprOp op, float a, float b, float c) {
  switch (op) {
    case EX_add: return a + b;
    case EX_sub: return a - b;
    case EX_mul: return a * b;
    case EX_div: return a / b;
    case EX_fma: return fmaf(a, b, c);
    case EX_sqrt: return sqrtf(a);
    default: return 0;
  }
}

static double floor_mod_f(double a, double b) {
  const double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

/* Operations of f64, and exact ones. */
static double f64_op(ExprOp op, double a, double b, double c) {
  switch (op) {
    case EX_add: return a + b;
    case EX_sub: return a - b;
    case EX_mul: return a * b;
    case EX_div: return a / b;
    case EX_floordiv: return floor(a / b);
    case EX_floormod: return floor_mod_f(a, b);
    case EX_rem: return fmod(a, b);
    case EX_fma: return fma(a, b, c);
    case EX_sqrt: return sqrt(a);
    case EX_floor: return floor(a);
    case EX_ceil: return ceil(a);
    case EX_trunc: return trunc(a);
    case EX_rint: return rint(a);
    default: return NAN;
  }
}

static bool in_float(ExprOp op) {
  return op == EX_add || op == EX_sub || op == EX_mul || op == EX_div || op == EX_fma ||
         op == EX_sqrt;
}

/* A result is tiny that is below the least normal number after rounding as if exponents had no
 * end. */
static double rounded_op(ExprOp op, DType t, double a, double b, double c) {
  const bool wide = t == DT_F64, small = in_float(op);
  const double r = wide    ? f64_op(op, a, b, c)
                   : small ? f32_op(op, (float)a, (float)b, (float)c)
                           : (float)f64_op(op, a, b, c);
  const double least = wide ? 0x1p-1022 : 0x1p-126;
  const bool rounds = op == EX_mul || op == EX_div || op == EX_fma; /* sums are exact here */
  if (!rounds || fabs(r) != least) return flush(t, r);
  const double k = 0x1p64, s = wide ? f64_op(op, a * k, b, c * k)
                                    : f32_op(op, (float)(a * k), (float)b, (float)(c * k));
  return fabs(s) < least * k ? copysign(0, r) : r;
}

static double float_op(ExprOp op, DType t, double a, double b, double c) {
  if (op == EX_min) return flush(t, b) < flush(t, a) || isnan(b) ? b : a;
  if (op == EX_max) return flush(t, b) > flush(t, a) || isnan(b) ? b : a;
  if (op == EX_neg) return -a;
  if (op == EX_abs) return fabs(a);
  if (op != EX_rem || t != DT_F64) a = flush(t, a), b = flush(t, b), c = flush(t, c);
  const double r = rounded_op(op, t, a, b, c);
  return t == DT_F64 || t == DT_F32 ? r : dtype_round(t, r, false);
}

static double dot2_bf16(int64_t a, int64_t b, double c) {
  for (int i = 1; i >= 0; i--) {
    const double x = dtype_decode(DT_BF16, (uint16_t)group_element(a, i, 16, false));
    const double y = dtype_decode(DT_BF16, (uint16_t)group_element(b, i, 16, false));
    c = float_op(EX_fma, DT_F32, x, y, c);
  }
  return c;
}

static bool compare(ExprOp op, DType t, Scalar a, Scalar b) {
  if (dtype_is_float(t)) {
    const double x = flush(t, a.f), y = flush(t, b.f);
    switch (op) {
      case EX_lt: return x < y;
      case EX_le: return x <= y;
      case EX_eq: return x == y;
      case EX_ne: return x != y;
      default: return isnan(x); /* isnan */
    }
  }
  switch (op) {
    case EX_lt: return int_less(t, a.i, b.i);
    case EX_le: return !int_less(t, b.i, a.i);
    case EX_eq: return a.i == b.i;
    case EX_ne: return a.i != b.i;
    default: return false;
  }
}

Scalar scalar_op(ExprOp op, DType t, Scalar a, Scalar b, Scalar c) {
  if (op == EX_select || op == EX_rarely) return a.i ? b : c;
  if (op == EX_lt || op == EX_le || op == EX_eq || op == EX_ne || op == EX_isnan)
    return (Scalar){.i = compare(op, t, a, b)};
  if (op == EX_dot2_bf16) return (Scalar){.f = dot2_bf16(a.i, b.i, c.f)};
  if (dtype_is_float(t)) return (Scalar){.f = float_op(op, t, a.f, b.f, c.f)};
  return (Scalar){.i = dtype_wrap(t, int_op(op, t, a.i, b.i, c.i))};
}

bool expr_ordered(const ExprPool *p, const Expr *e) {
  return (e->op == EX_min || e->op == EX_max) && dtype_is_float((DType)e->dtype) &&
         p->rules.ordered_zeros;
}

Scalar scalar_ordered(ExprOp op, Scalar a, Scalar b) {
  if (isnan(a.f) || isnan(b.f)) return isnan(a.f) ? a : b;
  const bool below = a.f < b.f || (a.f == b.f && signbit(a.f));
  return below == (op == EX_min) ? a : b;
}

Scalar expr_apply(const ExprPool *p, const Expr *e, Scalar a, Scalar b, Scalar c) {
  const ExprOp op = (ExprOp)e->op;
  if (expr_ordered(p, e)) return scalar_ordered(op, a, b);
  const bool picks = op == EX_select || op == EX_rarely;
  return scalar_op(op, (DType)e->a[picks ? 1 : 0]->dtype, a, b, c);
}

/* ---- casts ---- */
static int64_t float_to_int(DType to, double v) {
  if (isnan(v)) return 0;
  if (to == DT_U64) return v >= 18446744073709551616.0 ? -1 : v <= 0 ? 0 : (int64_t)(uint64_t)v;
  const Range r = range_type(to);
  if (v >= (double)r.hi) return r.hi;
  return v <= (double)r.lo ? r.lo : (int64_t)v;
}

static int64_t int_to_int(DType to, DType from, int64_t v, bool saturate) {
  if (!saturate) return dtype_wrap(to, v);
  const Range r = range_type(to);
  if (from == DT_U64 && v < 0) return to == DT_U64 ? v : r.hi;
  if (to == DT_U64) return v < 0 ? 0 : v;
  return v < r.lo ? r.lo : v > r.hi ? r.hi : v;
}

/* An integer as a double that rounds to a format of 24 bits or fewer as the integer itself does:
 * below 2^52 it is exact, above, what does not fit is gathered in one bit. */
static double int_to_double(DType from, int64_t v) {
  const int64_t low = 0xffff, wide = INT64_C(1) << 52;
  const bool big = from == DT_U64 ? (uint64_t)v >= (uint64_t)wide : v >= wide || v <= -wide;
  if (big) v = (v & ~low) | (v & low ? 0x8000 : 0);
  return from == DT_U64 ? (double)(uint64_t)v : (double)v;
}

static Scalar to_float(DType to, DType from, Scalar v, bool saturate) {
  const bool from_float = dtype_is_float(from);
  if (to == DT_F64)
    return (Scalar){.f = from == DT_F8E8M0 ? v.f
                         : from_float      ? flush(from, v.f)
                         : from == DT_U64  ? (double)(uint64_t)v.i
                                           : (double)v.i};
  const double x = from_float ? v.f : int_to_double(from, v.i);
  if (from != DT_F64) return (Scalar){.f = dtype_round(to, x, saturate)};
  return (Scalar){.f = dtype_round(to, flush(DT_F32, x), saturate)};
}

/* Rounds once, whatever the types. */
Scalar scalar_cast(DType to, DType from, Scalar v, bool saturate) {
  const bool from_float = dtype_is_float(from);
  if (to == DT_BOOL) return (Scalar){.i = from_float ? flush(from, v.f) != 0 : v.i != 0};
  if (dtype_is_float(to)) return to_float(to, from, v, saturate);
  return (Scalar){.i = from_float ? float_to_int(to, v.f) : int_to_int(to, from, v.i, saturate)};
}

static Scalar scalar_bits(DType to, DType from, Scalar v) {
  uint64_t raw = 0;
  if (dtype_is_float(from))
    dtype_store_f(from, &raw, v.f);
  else
    dtype_store_i(from, &raw, v.i);
  if (dtype_is_float(to)) return (Scalar){.f = dtype_load_f(to, &raw)};
  return (Scalar){.i = dtype_load_i(to, &raw)};
}

/* ---- expressions ---- */
/* A memo holds for one setting of the variables: reductions take a new stamp per iteration. */
typedef struct Eval {
  ExprPool *p;
  EvalEnv *env;
  uint64_t stamp;
} Eval;

static Scalar eval(Eval *v, const Expr *e);

static Scalar eval_reduce(Eval *v, const Expr *e) {
  static const ExprOp ops[] = {EX_add, EX_mul, EX_min, EX_max, EX_and, EX_or};
  const DType t = (DType)e->dtype;
  const Expr *const id = reduce_identity(v->p, (ReduceKind)e->k.i, t);
  const DType sum = reduce_type((ReduceKind)e->k.i, t);
  Scalar acc = {.i = id->k.i};
  const int64_t n = eval(v, e->a[1]).i, lo = eval(v, v->p->vars.data[e->id].lo).i,
                saved = v->env->vars[e->id];
  const uint64_t stamp = v->stamp;
  for (int64_t i = 0; i < n; i++) {
    v->env->vars[e->id] = lo + i;
    v->stamp = ++v->p->stamp;
    acc = scalar_op(ops[e->k.i], sum, acc, eval(v, e->a[0]), acc);
  }
  if (sum != t) acc = scalar_cast(t, sum, acc, false);
  v->env->vars[e->id] = saved;
  v->stamp = stamp;
  return acc;
}

static Scalar eval_node(Eval *v, const Expr *e) {
  switch (e->op) {
    case EX_LOAD:
      if (e->a[1] && !eval(v, e->a[1]).i) return (Scalar){.i = 0};
      return v->env->load(v->env->user, (DType)e->dtype, e->id, eval(v, e->a[0]).i);
    case EX_LOCAL: return v->env->local(v->env->user, (DType)e->dtype, e->id, eval(v, e->a[0]).i);
    case EX_REDUCE: return eval_reduce(v, e);
    case EX_select:
    case EX_rarely: return eval(v, e->a[0]).i ? eval(v, e->a[1]) : eval(v, e->a[2]);
    case EX_cast:
    case EX_sat:
      return scalar_cast((DType)e->dtype, (DType)e->a[0]->dtype, eval(v, e->a[0]), e->op == EX_sat);
    case EX_bits: return scalar_bits((DType)e->dtype, (DType)e->a[0]->dtype, eval(v, e->a[0]));
    default: break;
  }
  const Scalar zero = {.i = 0};
  const Scalar a = eval(v, e->a[0]), b = e->nargs > 1 ? eval(v, e->a[1]) : zero,
               c = e->nargs > 2 ? eval(v, e->a[2]) : zero;
  return expr_apply(v->p, e, a, b, c);
}

static Scalar eval(Eval *v, const Expr *e) {
  switch (e->op) {
    case EX_CONST: return (Scalar){.i = e->k.i};
    case EX_SYM: return v->env->sym(v->env->user, e->id);
    case EX_VAR: return (Scalar){.i = v->env->vars[e->id]};
    case EX_HOLE: return (Scalar){.i = 0};
    default: break;
  }
  ENode *const n = enode(e);
  if (n->stamp == v->stamp) return n->memo.value;
  const Scalar r = eval_node(v, e);
  n->stamp = v->stamp;
  n->memo.value = r;
  return r;
}

Scalar expr_eval(const ExprPool *p, const Expr *e, EvalEnv *env) {
  ExprPool *const pool = (ExprPool *)(uintptr_t)p; /* only its stamps change */
  e = expr_lower_math(pool, e);
  Eval v = {pool, env, ++pool->stamp};
  return eval(&v, e);
}
