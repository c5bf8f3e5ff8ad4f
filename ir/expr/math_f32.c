/* Math rows for f32, branch-free, built to run in vector lanes. Bounds are against the exact value,
 * measured by tests/unit/test_math.c over all ranges, in units of the last place (rows not here go
 * through f64: 0.51): exp 1   log 0.8   tanh 1.9   erf 1.1   sin, cos 1.5   sigmoid 2.2 (or an
 * absolute error of 2^-126) No overflow of intermediate results matters: NaN, infinities, -0 and
 * subnormal results come out right. */
#include <math.h>
#include "ir/expr/math_impl.h"
#include "ir/expr/math_tables.h"

static const double log2e = 1.4426950408889634, ln2_hi = 0.693147182464599609375,
                    ln2_lo = -1.904654299957768e-09;
enum {
  MAGIC = 12582912
}; /* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits */

/* exp(x) = 2^n * (1 + r + r^2 g(r)); 2^n in two factors, so that subnormal results round once. */
static X exp_x(MB b, X x) {
  const X magic = num(b, MAGIC + 254), z = clamp(b, x, -104, 89);
  const X t = fma3(b, z, num(b, log2e), magic), n = sub(b, t, magic);
  const X r = fma_by(b, n, -ln2_lo, fma_by(b, n, -ln2_hi, z));
  const X e = add(b, fma3(b, mul(b, r, r), POLY(b, r, exp_f32), r), num(b, 1));
  const X i = bits_of(b, t), half = shr(b, i, 1), rest = ex_op(b.p, EX_sub, i, half, NULL);
  return mul(b, mul(b, e, from_bits(b, shl(b, half, 23))), from_bits(b, shl(b, rest, 23)));
}

/* 1 / (1 + exp(-x)); exp becomes inf beyond 89 and may lose its last bits below -87, where they do
 * not count. */
static X sigmoid_x(MB b, X x) {
  const X magic = num(b, MAGIC + 127), z = clamp(b, x, -89, 87);
  const X t = fma3(b, z, num(b, -log2e), magic), n = sub(b, t, magic);
  const X r = fma_by(b, n, ln2_lo, fma_by(b, n, ln2_hi, z)); /* minus the usual r */
  const X v = fma3(b, mul(b, r, r), POLY_SIGNED(b, r, exp_f32, -1, -1), r);
  const X scale = from_bits(b, shl(b, bits_of(b, t), 23)), e = sub(b, num(b, 1), v);
  return quot(b, num(b, 1), fma3(b, scale, e, num(b, 1)));
}

/* tanh|x| = m / (1 + e), e = exp(-2|x|) = scale (1 + v), m = 1 - e without the cancellation */
static X tanh_x(MB b, X x) {
  const X magic = num(b, MAGIC + 127),
          w = ex_op(b.p, EX_max, mul(b, mag(b, x), num(b, -2)), num(b, -20), NULL);
  const X t = fma3(b, w, num(b, log2e), magic), n = sub(b, t, magic);
  const X r = fma_by(b, n, -ln2_lo, fma_by(b, n, -ln2_hi, w));
  const X v = fma3(b, mul(b, r, r), POLY(b, r, expm1_f32), r);
  const X scale = from_bits(b, shl(b, bits_of(b, t), 23));
  const X m = fma3(b, neg(b, scale), v, sub(b, num(b, 1), scale));
  const X den = fma3(b, scale, v, add(b, scale, num(b, 1)));
  return with_sign(b, mag(b, quot(b, m, den)), x);
}

/* x + x P(x^2) below 1, else 1 - 2^-Q(|x|) */
static X erf_x(MB b, X x) {
  const X ax = mag(b, x), a = ex_op(b.p, EX_min, ax, num(b, 4), NULL), magic = num(b, MAGIC + 127);
  const X near = fma3(b, x, POLY(b, mul(b, a, a), erf_f32), x);
  const X q = POLY_SIGNED(b, a, erfc_log2_f32, -1, 1);
  const X t = add(b, q, magic), r = sub(b, q, sub(b, t, magic));
  const X e = fma3(b, r, POLY_SIGNED(b, r, exp2_f32, -1, 1), num(b, -1));
  const X far = fma3(b, from_bits(b, shl(b, bits_of(b, t), 23)), e, num(b, 1));
  return pick(b, less(b, ax, num(b, 1)), near, with_sign(b, far, x));
}

/* x = 2^e * m, m in [sqrt(1/2), sqrt 2): log x = e ln 2 + f + f^2 q(f), f = m - 1 */
static X log_x(MB b, X x) {
  const X tiny = less(b, x, num(b, 0x1p-126)), xs = pick(b, tiny, mul(b, x, num(b, 0x1p23)), x);
  const X start = ex_int(b.p, DT_I32, 0x3f3504f3);
  const X j = ex_sub(b.p, ex_bits(b.p, DT_I32, xs), start);
  const X low = ex_and(b.p, j, ex_int(b.p, DT_I32, 0x7fffff));
  const X f = sub(b, ex_bits(b.p, b.t, ex_add(b.p, low, start)), num(b, 1));
  const X whole = ex_cast(b.p, b.t, ex_op(b.p, EX_shr, j, ex_int(b.p, DT_I32, 23), NULL));
  const X e = add(b, whole, pick(b, tiny, num(b, -23), num(b, 0)));
  const X small = fma_by(b, e, ln2_lo, mul(b, mul(b, f, f), POLY(b, f, log_f32)));
  const X r = fma_by(b, e, ln2_hi, add(b, small, f));
  const X edge = pick(b, same(b, x, num(b, 0)), num(b, -INFINITY), num(b, NAN));
  return pick(b, less(b, num(b, 0), x), pick(b, less(b, x, num(b, INFINITY)), r, x), edge);
}

/* x = n pi/2 + r, reduced in f64; quadrant in the low bits of q. */
static X reduce(MB b, X x, X *q) {
  const MB d = {b.p, DT_F64};
  const X xd = ex_cast(b.p, DT_F64, x), magic = num(d, 6755399441055744.0);
  const X t = fma3(d, xd, num(d, 0.63661977236758134), magic), n = sub(d, t, magic);
  const X r = fma_by(d, n, -6.123233995736766e-17, fma_by(d, n, -1.5707963267948966, xd));
  *q = ex_cast(b.p, DT_U32, bits_of(d, t));
  return clamp(b, ex_cast(b.p, b.t, r), -0.8, 0.8);
}

/* The sign is set because -0 would become 0. */
static X sin_poly(MB b, X r, X z) {
  return with_sign(b, fma3(b, mul(b, r, z), POLY(b, z, sin_f32), r), r);
}

static X cos_poly(MB b, X z) {
  return add(b, fma3(b, mul(b, z, z), POLY(b, z, cos_f32), mul(b, z, num(b, -0.5))), num(b, 1));
}

static X odd_quadrant(MB b, X q) {
  return ex_op(b.p, EX_ne, wand(b, q, wnum(b, 1)), wnum(b, 0), NULL);
}

static X reduce_far(MB b, X x, X *q) {
  const MB d = {b.p, DT_F64};
  const X r = reduce_large(d, ex_cast(b.p, DT_F64, x), true, q);
  *q = ex_cast(b.p, DT_U32, *q);
  return clamp(b, ex_cast(b.p, b.t, r), -0.8, 0.8);
}

static X sine_of(MB b, X r, X q, int shift) {
  const X z = mul(b, r, r);
  if (shift) q = ex_add(b.p, q, wnum(b, 1));
  const X y = pick(b, odd_quadrant(b, q), cos_poly(b, z), sin_poly(b, r, z));
  return from_bits(b, wxor(b, bits_of(b, y), shl(b, wand(b, q, wnum(b, 2)), 30)));
}

/* sin of x, or with `shift` 1 cos. */
static X sine(MB b, X x, int shift) {
  X q, ql;
  const X r = reduce(b, x, &q), rl = reduce_far(b, x, &ql);
  return ex_op(b.p, EX_rarely, is_large(b, x), sine_of(b, rl, ql, shift), sine_of(b, r, q, shift));
}

X math_f32(MB b, ExprOp op, X x) {
  switch (op) {
    case EX_exp: return exp_x(b, x);
    case EX_log: return log_x(b, x);
    case EX_tanh: return tanh_x(b, x);
    case EX_sigmoid: return sigmoid_x(b, x);
    case EX_erf: return erf_x(b, x);
    case EX_sin: return sine(b, x, 0);
    case EX_cos: return sine(b, x, 1);
    default: return NULL;
  }
}
