/* Replaces math rows (exp … pow) by expressions over basic rows, so that interpreter, vector code
 * and scalar tails give the same bits. Smaller floats go through f32, rare f32 rows through f64;
 * powers with a small constant exponent become products and roots. */
#include <math.h>
#include "ir/expr_impl.h"
#include "ir/math_impl.h"

static bool is_math(const Expr *e) { return e->op >= EX_exp && e->op <= EX_pow; }

/* x to the power of a constant for which a few operations do; NULL: another one. */
static X power_const(MB b, X x, double y) {
  const X one = num(b, 1), square = mul(b, x, x);
  if (y == 0) return one;
  if (y == 1) return x;
  if (y == 2) return square;
  if (y == 3) return mul(b, square, x);
  if (y == 4) return mul(b, square, square);
  if (y == -1) return quot(b, one, x);
  if (y == -2) return quot(b, one, square);
  if (y != 0.5 && y != -0.5) return NULL;
  /* adding 0 turns the root of -0 into +0; the root of -inf would be NaN */
  const X r =
      pick(b, same(b, x, num(b, -INFINITY)), num(b, INFINITY), add(b, root(b, x), num(b, 0)));
  return y > 0 ? r : quot(b, one, r);
}

static X power(MB b, X x, X y) {
  const X simple = is_const(y) ? power_const(b, x, y->k.f) : NULL;
  if (simple) return simple;
  if (b.t == DT_F64) return pow_f64(b, x, y, true);
  const MB d = {b.p, DT_F64};
  return ex_cast(b.p, b.t, pow_f64(d, ex_cast(b.p, DT_F64, x), ex_cast(b.p, DT_F64, y), false));
}

static X lower_wide(MB b, ExprOp op, X x, X y) {
  if (op == EX_pow) return power(b, x, y);
  if (b.t == DT_F64) return math_f64(b, op, x);
  const X own = math_f32(b, op, x);
  if (own) return own;
  const MB d = {b.p, DT_F64};
  return ex_cast(b.p, b.t, math_f64(d, op, ex_cast(b.p, DT_F64, x)));
}

/* Integer powers: by squaring when the exponent is a small constant; else through f64. */
static X lower_int_pow(ExprPool *p, X x, X y) {
  int64_t n;
  const DType t = (DType)x->dtype;
  if (expr_is_const(y, &n) && n >= 0 && n <= 64) {
    X r = ex_int(p, t, 1);
    for (X base = x; n; n >>= 1, base = ex_mul(p, base, base))
      if (n & 1) r = ex_mul(p, r, base);
    return r;
  }
  const MB d = {p, DT_F64};
  return ex_cast(p, t, pow_f64(d, ex_cast(p, DT_F64, x), ex_cast(p, DT_F64, y), true));
}

static X lower_row(ExprPool *p, const Expr *e, X x, X y) {
  const DType t = (DType)e->dtype, wide = dtype_compute(t);
  if (!dtype_is_float(t)) return e->op == EX_pow ? lower_int_pow(p, x, y) : NULL;
  const MB b = {p, wide};
  const X r = lower_wide(b, (ExprOp)e->op, ex_cast(p, wide, x), y ? ex_cast(p, wide, y) : NULL);
  return ex_cast(p, t, r);
}

/* ---- walk
 * -------------------------------------------------------------------------------------------- */
static X lower(ExprPool *p, X e, uint64_t stamp) {
  ENode *const n = enode(e);
  if (e->nargs == 0) return e;
  if (n->stamp == stamp) return n->memo.expr;
  X a[3] = {0}, r = e;
  bool changed = false;
  for (int i = 0; i < e->nargs; i++) {
    if (!e->a[i]) continue;
    a[i] = lower(p, e->a[i], stamp);
    changed |= a[i] != e->a[i];
  }
  if (is_math(e))
    r = lower_row(p, e, a[0], a[1]);
  else if (changed)
    r = expr_rebuild(p, e, a);
  if (!r) r = e;
  n->stamp = stamp;
  n->memo.expr = r;
  return r;
}

const Expr *expr_lower_math(ExprPool *p, const Expr *e) { return lower(p, e, ++p->stamp); }
