/* Rules of the constructors for everything but polynomials and divisions: identities, comparisons
 * decided by ranges or proof, min / max, select, casts. Floating point: only rules that keep every
 * bit. */
#include <math.h>
#include "ir/expr/expr_impl.h"

static bool is_bool(const Expr *e) { return e->dtype == DT_BOOL; }
static bool is_i64(const Expr *e) { return e->dtype == DT_I64; }
static bool is_int(const Expr *e) { return dtype_is_int(e->dtype); }
static bool is_float_value(const Expr *e, double v) {
  return is_const(e) && dtype_is_float(e->dtype) && e->k.f == v && !signbit(e->k.f) == !signbit(v);
}

static const Expr *raw2(ExprPool *p, ExprOp op, DType t, const Expr *a, const Expr *b) {
  return expr_raw(p, op, t, 0, 0, a, b, NULL);
}

/* Constants last, else by age. */
static bool out_of_order(const Expr *a, const Expr *b) {
  return !is_const(b) && (is_const(a) || a->uid > b->uid);
}

static const Expr *commute(ExprPool *p, ExprOp op, DType t, const Expr *a, const Expr *b) {
  return out_of_order(a, b) ? raw2(p, op, t, b, a) : raw2(p, op, t, a, b);
}

/* ---- comparisons of integers ---- */
/* Is a + k <= b proven? */
static bool proven_le(ExprPool *p, const Expr *a, const Expr *b, int64_t k) {
  const Range ra = range_of(a), rb = range_of(b);
  int64_t last;
  if (ra.hi != INT64_MAX && ck_sub(rb.lo, k, &last) && last != INT64_MIN && ra.hi <= last)
    return true;
  if (!is_i64(a)) return false;
  Poly d;
  poly_zero(&d);
  if (!poly_add(&d, b, 1) || !poly_add(&d, a, -1)) return false;
  return ck_sub(d.k, k, &d.k) && prove_ge0(p, &d);
}

/* Moves the constant of a sum to the other side, when that is a constant. */
static const Expr *shift_constant(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  int64_t k, sum;
  const bool left = is_const(b);
  const Expr *const s = left ? a : b, *const c = left ? b : a;
  if (!is_i64(a) || !is_const(c) || s->op != EX_add || !expr_is_const(s->a[1], &k) ||
      range_wild(s->a[0]))
    return NULL;
  if (!ck_sub(c->k.i, k, &sum)) return NULL;
  const Expr *const rhs = ex_i64(p, sum);
  return left ? ex_op(p, op, s->a[0], rhs, NULL) : ex_op(p, op, rhs, s->a[0], NULL);
}

static const Expr *simplify_lt(ExprPool *p, const Expr *a, const Expr *b) {
  if (a == b && !dtype_is_float(a->dtype)) return ex_bool(p, false);
  if (!is_int(a) || a->dtype == DT_U64) return NULL;
  if (proven_le(p, a, b, 1)) return ex_bool(p, true);
  if (proven_le(p, b, a, 0)) return ex_bool(p, false);
  return shift_constant(p, EX_lt, a, b);
}

static const Expr *simplify_le(ExprPool *p, const Expr *a, const Expr *b) {
  if (a == b && !dtype_is_float(a->dtype)) return ex_bool(p, true);
  if (!is_int(a) || a->dtype == DT_U64) return NULL;
  if (proven_le(p, a, b, 0)) return ex_bool(p, true);
  if (proven_le(p, b, a, 1)) return ex_bool(p, false);
  return shift_constant(p, EX_le, a, b);
}

static const Expr *simplify_eq(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  if (dtype_is_float(a->dtype)) return commute(p, op, DT_BOOL, a, b);
  if (a == b) return ex_bool(p, op == EX_eq);
  int64_t k;
  if (is_bool(a) && expr_is_const(b, &k))
    return (k != 0) == (op == EX_eq) ? a : ex_op(p, EX_not, a, NULL, NULL);
  if (is_bool(a) && is_const(a)) return simplify_eq(p, op, b, a);
  if (a->dtype != DT_U64 && is_int(a) && (proven_le(p, a, b, 1) || proven_le(p, b, a, 1)))
    return ex_bool(p, op == EX_ne);
  if (is_i64(a)) {
    Poly d;
    poly_zero(&d);
    if (poly_add(&d, a, 1) && poly_add(&d, b, -1) && d.n == 0)
      return ex_bool(p, (d.k == 0) == (op == EX_eq));
  }
  const Expr *const s = shift_constant(p, op, a, b);
  return s ? s : commute(p, op, DT_BOOL, a, b);
}

/* ---- min and max ---- */
static bool constant_range(const Expr *e) { return range_of(e).lo == range_of(e).hi; }

static const Expr *simplify_minmax(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  int64_t k, inner;
  const bool min = op == EX_min;
  if (a == b) return a;
  if (dtype_is_float(a->dtype)) return NULL;
  if (out_of_order(a, b)) return ex_op(p, op, b, a, NULL);
  if (is_bool(a) || (is_int(a) && a->dtype != DT_U64)) {
    if (proven_le(p, a, b, 0)) return min ? a : b;
    if (proven_le(p, b, a, 0)) return min ? b : a;
  }
  if (a->dtype == DT_U64 || a->op != op) return NULL;
  if (a->a[0] == b || a->a[1] == b) return a;
  if (expr_is_const(b, &k) && expr_is_const(a->a[1], &inner))
    return (k < inner) == min ? ex_op(p, op, a->a[0], b, NULL) : a;
  return NULL;
}

/* ---- logic ---- */
static const Expr *simplify_logic(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  int64_t k;
  const DType t = (DType)a->dtype;
  const int64_t ones = dtype_wrap(t, -1);
  if (out_of_order(a, b)) return ex_op(p, op, b, a, NULL);
  if (expr_is_const(b, &k)) {
    if (k == 0) return op == EX_and ? b : a;
    if (k == ones && op != EX_xor) return op == EX_and ? a : b;
    if (k == ones) return ex_op(p, EX_not, a, NULL, NULL);
  }
  if (a == b) return op == EX_xor ? ex_int(p, t, 0) : a;
  if (op != EX_xor && a->op == (uint8_t)op && (a->a[0] == b || a->a[1] == b)) return a;
  if (op != EX_xor && ((a->op == EX_not && a->a[0] == b) || (b->op == EX_not && b->a[0] == a)))
    return ex_int(p, t, op == EX_and ? 0 : -1);
  return NULL;
}

static const Expr *simplify_not(ExprPool *p, const Expr *a) {
  if (a->op == EX_not) return a->a[0];
  if (!is_bool(a)) return NULL;
  if (a->op == EX_eq) return ex_op(p, EX_ne, a->a[0], a->a[1], NULL);
  if (a->op == EX_ne) return ex_op(p, EX_eq, a->a[0], a->a[1], NULL);
  if ((a->op == EX_lt || a->op == EX_le) && !dtype_is_float(a->a[0]->dtype))
    return ex_op(p, a->op == EX_lt ? EX_le : EX_lt, a->a[1], a->a[0], NULL);
  return NULL;
}

static const Expr *simplify_select(ExprPool *p, const Expr *c, const Expr *a, const Expr *b) {
  int64_t k, ka, kb;
  if (expr_is_const(c, &k)) return k ? a : b;
  if (a == b) return a;
  if (c->op == EX_not) return ex_select(p, c->a[0], b, a);
  if (is_bool(a)) {
    const bool ca = expr_is_const(a, &ka), cb = expr_is_const(b, &kb);
    if (ca && cb) return ka ? c : ex_op(p, EX_not, c, NULL, NULL);
    if (cb && !kb) return ex_and(p, c, a);
    if (ca && ka) return ex_op(p, EX_or, c, b, NULL);
  }
  if (a->op == EX_select && a->a[0] == c) return ex_select(p, c, a->a[1], b);
  if (b->op == EX_select && b->a[0] == c) return ex_select(p, c, a, b->a[2]);
  return NULL;
}

/* ---- arithmetic ---- */
static bool power_of_two(double v) {
  int e;
  return isfinite(v) && fabs(frexp(v, &e)) == 0.5 && e > -100 && e < 100;
}

static const Expr *simplify_float(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  if (op == EX_add || op == EX_mul) {
    if (out_of_order(a, b)) return ex_op(p, op, b, a, NULL);
    if (op == EX_add && is_float_value(b, -0.0)) return a;
    if (op == EX_mul && is_float_value(b, 1.0)) return a;
  }
  if (op == EX_sub && is_float_value(b, 0.0)) return a;
  if (op == EX_div && is_float_value(b, 1.0)) return a;
  const bool wide = a->dtype == DT_F32 || a->dtype == DT_F64; /* the reciprocal is exact */
  if (op == EX_div && wide && is_const(b) && power_of_two(b->k.f))
    return ex_mul(p, a, ex_float(p, a->dtype, 1 / b->k.f));
  return NULL;
}

/* Integers other than i64, where nothing is known to stay in range. */
static const Expr *simplify_small_int(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  int64_t k;
  if ((op == EX_add || op == EX_mul) && out_of_order(a, b)) return ex_op(p, op, b, a, NULL);
  if (op == EX_sub && a == b) return ex_int(p, a->dtype, 0);
  if (!expr_is_const(b, &k)) return NULL;
  if (k == 0 && (op == EX_add || op == EX_sub)) return a;
  if (k == 0 && op != EX_rem) return b; /* mul, and division by zero */
  if (k == 1 && (op == EX_mul || op == EX_div || op == EX_floordiv)) return a;
  if (k == 1 && (op == EX_floormod || op == EX_rem)) return ex_int(p, a->dtype, 0);
  return NULL;
}

static const Expr *simplify_i64(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  switch (op) {
    case EX_add: return poly_sum2(p, a, b, 1);
    case EX_sub: return poly_sum2(p, a, b, -1);
    case EX_mul: return poly_product2(p, a, b);
    case EX_floordiv: return simplify_floordiv(p, a, b);
    case EX_floormod: return simplify_floormod(p, a, b);
    case EX_div:
      if (expr_is_i64(b, 1)) return a;
      return range_of(a).lo >= 0 && range_of(b).lo >= 0 ? ex_floordiv(p, a, b) : NULL;
    case EX_rem: return range_of(a).lo >= 0 && range_of(b).lo >= 0 ? ex_floormod(p, a, b) : NULL;
    default: return NULL;
  }
}

/* Small powers of integers are products, so that they are sizes like others. */
static const Expr *simplify_pow(ExprPool *p, const Expr *a, const Expr *b) {
  int64_t k;
  if (!is_int(a) || !expr_is_const(b, &k) || k < 0 || k > 4) return NULL;
  const Expr *e = ex_int(p, (DType)a->dtype, 1);
  for (; k > 0; k--) e = ex_mul(p, e, a);
  return e;
}

static const Expr *simplify_arith(ExprPool *p, ExprOp op, const Expr *a, const Expr *b) {
  if (is_i64(a)) return simplify_i64(p, op, a, b);
  return is_int(a)                  ? simplify_small_int(p, op, a, b)
         : dtype_is_float(a->dtype) ? simplify_float(p, op, a, b)
                                    : NULL;
}

static const Expr *simplify_unary(ExprPool *p, ExprOp op, const Expr *a) {
  switch (op) {
    case EX_neg:
      if (is_i64(a)) return poly_product2(p, a, ex_i64(p, -1));
      return a->op == EX_neg ? a->a[0] : NULL;
    case EX_abs:
      if (a->op == EX_abs) return a;
      if (dtype_is_float(a->dtype) && a->op == EX_neg) return ex_op(p, EX_abs, a->a[0], NULL, NULL);
      return is_int(a) && a->dtype != DT_U64 && range_of(a).lo >= 0 ? a
             : dtype_rows[a->dtype].cls == DC_UINT                  ? a
                                                                    : NULL;
    case EX_floor:
    case EX_ceil:
    case EX_trunc:
    case EX_rint:
      if (is_int(a)) return a;
      return a->op == EX_floor || a->op == EX_ceil || a->op == EX_trunc || a->op == EX_rint ? a
                                                                                            : NULL;
    case EX_isnan: return dtype_is_float(a->dtype) ? NULL : ex_bool(p, false);
    default: return NULL;
  }
}

const Expr *simplify_op(ExprPool *p, ExprOp op, const Expr *a, const Expr *b, const Expr *c) {
  switch (op) {
    case EX_add:
    case EX_sub:
    case EX_mul:
    case EX_div:
    case EX_floordiv:
    case EX_floormod:
    case EX_rem: return simplify_arith(p, op, a, b);
    case EX_pow: return simplify_pow(p, a, b);
    case EX_fma: return is_int(a) ? ex_add(p, ex_mul(p, a, b), c) : NULL;
    case EX_min:
    case EX_max: return simplify_minmax(p, op, a, b);
    case EX_and:
    case EX_or:
    case EX_xor: return simplify_logic(p, op, a, b);
    case EX_not: return simplify_not(p, a);
    case EX_shl:
    case EX_shr: return expr_is_i64(b, 0) ? a : NULL;
    case EX_lt: return simplify_lt(p, a, b);
    case EX_le: return simplify_le(p, a, b);
    case EX_eq:
    case EX_ne: return simplify_eq(p, op, a, b);
    case EX_select: return simplify_select(p, a, b, c);
    case EX_rarely: return is_const(a) ? (a->k.i ? b : c) : b == c ? b : NULL;
    default: return simplify_unary(p, op, a);
  }
}

/* ---- casts ---- */
/* Bits of significand and largest exponent of the float formats; integers: bits and sign. */
static bool float_holds(DType f, DType of) {
  static const struct {
    DType t;
    int mant, emin, emax;
  } rows[] = {{DT_F64, 53, -1074, 1023}, {DT_F32, 24, -149, 127},     {DT_F16, 11, -24, 15},
              {DT_BF16, 8, -133, 127},   {DT_F8E4M3FN, 4, -9, 8},     {DT_F8E4M3FNUZ, 4, -10, 7},
              {DT_F8E5M2, 3, -16, 15},   {DT_F8E5M2FNUZ, 3, -17, 15}, {DT_F4E2M1, 2, -1, 2},
              {DT_F8E8M0, 1, -127, 127}};
  int i = -1, j = -1;
  for (int k = 0; k < (int)(sizeof rows / sizeof *rows); k++) {
    if (rows[k].t == f) i = k;
    if (rows[k].t == of) j = k;
  }
  if (i < 0) return false;
  if (of == DT_BOOL) return true;
  if (dtype_is_int(of))
    return dtype_rows[of].bits <= rows[i].mant && dtype_rows[of].bits <= rows[i].emax;
  return j >= 0 && i <= 3 && rows[j].mant <= rows[i].mant && rows[j].emin >= rows[i].emin &&
         rows[j].emax <= rows[i].emax;
}

/* Does every value of `of` survive a cast to t? */
static bool lossless(DType t, DType of) {
  if (t == of) return true;
  if (dtype_is_float(t)) return float_holds(t, of);
  if (!dtype_is_int(t) || of == DT_STR) return false;
  if (of == DT_BOOL) return true;
  if (!dtype_is_int(of)) return false;
  const bool t_signed = dtype_rows[t].cls == DC_SINT, of_signed = dtype_rows[of].cls == DC_SINT;
  if (of_signed && !t_signed) return false;
  return dtype_rows[of].bits < dtype_rows[t].bits + (t_signed == of_signed);
}

/* Does every value of the integer x survive a cast to t? Sizes that the caller gives are below 2^31
 * (checked at entry), so 32-bit arithmetic on sizes is taken as exact. */
static bool int_fits(const Expr *x, DType t) {
  const DType of = (DType)x->dtype;
  if (!dtype_is_int(of) || !dtype_is_int(t) || of == DT_U64 || t == DT_U64) return false;
  const Range r = range_of(x), to = range_type(t);
  const bool size = dtype_rows[t].bits == 32 && (x->flags & EXF_SYM) &&
                    !(x->flags & (EXF_LOAD | EXF_VAR | EXF_LOCAL | EXF_REDUCE | EXF_HOLE));
  return r.lo >= to.lo && (r.hi <= to.hi || size);
}

const Expr *simplify_cast(ExprPool *p, ExprOp op, DType t, const Expr *a) {
  const DType from = (DType)a->dtype;
  if (t == from) return a;
  if (t == DT_BOOL && dtype_is_int(from)) return ex_op(p, EX_ne, a, ex_int(p, from, 0), NULL);
  if (a->op == EX_cast || a->op == EX_sat) {
    const DType inner = (DType)a->a[0]->dtype;
    /* float→int saturates and int→int wraps, so the middle type may only go where both ends agree
     */
    const bool same_kind =
        dtype_is_float(inner) == dtype_is_float(from) || dtype_is_float(t) || t == DT_BOOL;
    const bool fits = int_fits(a->a[0], from);
    if (same_kind && (fits || lossless(from, inner)))
      return op == EX_sat ? ex_sat(p, t, a->a[0]) : ex_cast(p, t, a->a[0]);
  }
  if (op == EX_sat && dtype_is_int(from) && from != DT_U64 && dtype_is_int(t) && t != DT_U64) {
    const Range r = range_of(a), to = range_type(t);
    if (r.lo >= to.lo && r.hi <= to.hi) return ex_cast(p, t, a);
  }
  if (constant_range(a) && dtype_is_int(from) && from != DT_U64)
    return ex_cast(p, t, ex_int(p, from, range_of(a).lo));
  return NULL;
}
