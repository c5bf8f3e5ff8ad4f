/* Replaces math rows (exp … pow) by expressions over basic rows, so that interpreter, vector code
 * and scalar tails give the same bits. Smaller floats go through f32, rare f32 rows through f64;
 * powers with a small constant exponent become products and roots. */
#include <math.h>
#include "ir/expr/expr_impl.h"
#include "ir/expr/math_impl.h"

/* Exponents for which a few operations do, whether they are constants or not: |y| one of these. */
static const double easy[] = {0.5, 1, 2, 3, 4};
enum { N_EASY = sizeof easy / sizeof *easy };

static X easy_power(MB b, X x, double y) {
  const X square = mul(b, x, x);
  if (y == 1) return x;
  if (y == 2) return square;
  if (y == 3) return mul(b, square, x);
  if (y == 4) return mul(b, square, square);
  /* adding 0 turns the root of -0 into +0; the root of -inf would be NaN */
  return pick(b, same(b, x, num(b, -INFINITY)), num(b, INFINITY), add(b, root(b, x), num(b, 0)));
}

static X general_power(MB b, X x, X y) {
  if (b.t == DT_F64) return pow_f64(b, x, y, true);
  const MB d = {b.p, DT_F64};
  return ex_cast(b.p, b.t, pow_f64(d, ex_cast(b.p, DT_F64, x), ex_cast(b.p, DT_F64, y), false));
}

static X power(MB b, X x, X y) {
  const X size = mag(b, y), negative = less(b, y, num(b, 0));
  X r = num(b, 1), is_easy = ex_bool(b.p, false);
  for (int k = 0; k < N_EASY; k++) {
    const X equal = same(b, size, num(b, easy[k]));
    r = pick(b, equal, easy_power(b, x, easy[k]), r);
    is_easy = either(b, is_easy, equal);
  }
  r = pick(b, negative, quot(b, num(b, 1), r), r);
  return pick(b, is_easy, r, general_power(b, x, y));
}

static X lower_wide(MB b, ExprOp op, X x, X y) {
  if (op == EX_pow) return power(b, x, y);
  if (b.t == DT_F64) return math_f64(b, op, x);
  const X own = math_f32(b, op, x);
  if (own) return own;
  const MB d = {b.p, DT_F64};
  return ex_cast(b.p, b.t, math_f64(d, op, ex_cast(b.p, DT_F64, x)));
}

/* One step of squaring: r times base where bit n of y is set. */
static X power_step(ExprPool *p, X r, X base, X y, int n) {
  const DType t = (DType)y->dtype;
  const X bit = ex_and(p, ex_op(p, EX_shr, y, ex_int(p, t, n), NULL), ex_int(p, t, 1));
  return ex_select(p, ex_eq(p, bit, ex_int(p, t, 0)), r, ex_mul(p, r, base));
}

static X power_steps(ExprPool *p, X r, X *base, X y, int from, int to) {
  for (int n = from; n < to; n++, *base = ex_mul(p, *base, *base))
    r = power_step(p, r, *base, y, n);
  return r;
}

static X steps_of(ExprPool *p, X x, X y, int bits) {
  X base = x, r = power_steps(p, ex_int(p, (DType)x->dtype, 1), &base, y, 0, bits < 6 ? bits : 6);
  if (bits <= 6) return r;
  const X more = power_steps(p, r, &base, y, 6, bits), last = ex_int(p, (DType)y->dtype, 63);
  return ex_op(p, EX_rarely, ex_lt(p, last, y), more, r);
}

/* Powers of integers wrap like their products. Exponents from 64 on are rare; negative ones leave
 * only 1 and -1. */
static X lower_int_pow(ExprPool *p, X x, X y) {
  const DType t = (DType)x->dtype,
              u = t == DT_I64 ? DT_U64 : t; /* i64 products would be expanded */
  const bool is_signed = dtype_rows[t].cls == DC_SINT;
  const X zero = ex_int(p, t, 0), one = ex_int(p, t, 1), minus = ex_int(p, t, -1);
  const X r = ex_cast(
      p, t, steps_of(p, ex_cast(p, u, x), ex_cast(p, u, y), dtype_rows[t].bits - is_signed));
  if (!is_signed) return r;
  const X odd = ex_op(p, EX_ne, ex_and(p, y, one), zero, NULL);
  const X unit = ex_select(p, ex_eq(p, x, minus), ex_select(p, odd, minus, one), zero);
  return ex_select(p, ex_lt(p, y, zero), ex_select(p, ex_eq(p, x, one), one, unit), r);
}

const Expr *math_row(ExprPool *p, ExprOp op, const Expr *x, const Expr *y) {
  const DType t = (DType)x->dtype, wide = dtype_compute(t);
  if (!dtype_is_float(t)) return op == EX_pow ? lower_int_pow(p, x, y) : NULL;
  const MB b = {p, wide};
  const X r = lower_wide(b, op, ex_cast(p, wide, x), y ? ex_cast(p, wide, y) : NULL);
  return ex_cast(p, t, r);
}

/* ---- fma without the instruction ---- */
/* n*k + x in f64, as if the product were not rounded: Dekker's product with its error. */
static X dekker_fma(MB b, X n, double k, X x) {
  const double scaled = k * 134217729.0, k_high = scaled - (scaled - k);
  const X s = mul(b, n, num(b, 134217729.0)), high = num(b, k_high), low = num(b, k - k_high);
  const X n_high = sub(b, s, sub(b, s, n)), n_low = sub(b, n, n_high), p = mul(b, n, num(b, k));
  X e = sub(b, mul(b, n_high, high), p);
  e = add(b, e, mul(b, n_high, low));
  e = add(b, e, mul(b, n_low, high));
  e = add(b, e, mul(b, n_low, low));
  return add(b, add(b, x, p), e);
}

/* In f32 n is a small integer: with k in two halves both products are exact. */
X fma_by(MB b, X n, double k, X z) {
  if (!b.p->rules.split_fma) return fma3(b, n, num(b, k), z);
  if (b.t == DT_F64) return dekker_fma(b, n, k, z);
  const float whole = (float)k, scaled = whole * 4097.0f, high = scaled - (scaled - whole);
  const X first = add(b, z, mul(b, n, num(b, (double)high)));
  return add(b, first, mul(b, n, num(b, (double)whole - (double)high)));
}

/* ---- walk ---- */
static X lower(ExprPool *p, X e, uint64_t stamp) {
  ENode *const n = enode(e);
  if (!(e->flags & EXF_MATH)) return e;
  if (n->stamp == stamp) return n->memo.expr;
  X a[3] = {0}, r = e;
  bool changed = false;
  for (int i = 0; i < e->nargs; i++) {
    if (!e->a[i]) continue;
    a[i] = lower(p, e->a[i], stamp);
    changed |= a[i] != e->a[i];
  }
  if (is_math_op((ExprOp)e->op))
    r = math_row(p, (ExprOp)e->op, a[0], a[1]);
  else if (changed)
    r = expr_rebuild(p, e, a);
  if (!r) r = e;
  n->stamp = stamp;
  n->memo.expr = r;
  return r;
}

const Expr *expr_lower_math(ExprPool *p, const Expr *e) {
  return e->flags & EXF_MATH ? lower(p, e, ++p->stamp) : e;
}
