/* Math rows for f64, good to about 1e-15; the rarer f32 rows are computed with them and rounded. */
#include <math.h>
#include "ir/expr/math_impl.h"
#include "ir/expr/math_tables.h"

static const double log2e = 1.4426950408889634, ln2_hi = 0.69314718036912382,
                    ln2_lo = 1.9082149292705877e-10;
static const double magic_f64 = 6755399441055744.0; /* 1.5 * 2^52 */
static const double pi_2 = 1.5707963267948966;

/* r and the bits that hold n + bias, for exp(z + tail); tail may be NULL. */
static X exp_reduce(MB b, X z, X tail, double bias, X *i) {
  const X magic = num(b, magic_f64 + bias), t = fma3(b, z, num(b, log2e), magic),
          n = sub(b, t, magic);
  const X r = fma_by(b, n, -ln2_lo, fma_by(b, n, -ln2_hi, z));
  *i = bits_of(b, t);
  return tail ? add(b, r, tail) : r;
}

static X exp_x(MB b, X x, X tail) {
  X i;
  const X r = exp_reduce(b, clamp(b, x, -746, 710), tail, 2046, &i);
  const X e = add(b, fma3(b, mul(b, r, r), POLY(b, r, exp_f64), r), num(b, 1));
  const X half = shr(b, i, 1), rest = ex_op(b.p, EX_sub, i, half, NULL);
  return mul(b, mul(b, e, from_bits(b, shl(b, half, 52))), from_bits(b, shl(b, rest, 52)));
}

/* exp(x) - 1 for x from -700 to 700 */
static X expm1_x(MB b, X x) {
  X i;
  const X r = exp_reduce(b, clamp(b, x, -700, 700), NULL, 1023, &i);
  const X v = fma3(b, mul(b, r, r), POLY(b, r, exp_f64), r), s = from_bits(b, shl(b, i, 52));
  return fma3(b, s, v, sub(b, s, num(b, 1)));
}

static X tanh_x(MB b, X x) {
  const X m = expm1_x(b, ex_op(b.p, EX_max, mul(b, mag(b, x), num(b, -2)), num(b, -60), NULL));
  return with_sign(b, mag(b, quot(b, m, sub(b, num(b, -2), m))), x);
}

static X sigmoid_x(MB b, X x) {
  return quot(b, num(b, 1), add(b, exp_x(b, neg(b, x), NULL), num(b, 1)));
}

/* Half of exp(|x|), without overflow before the result does. */
static X half_exp(MB b, X ax) {
  const X h = exp_x(b, mul(b, ax, num(b, 0.5)), NULL);
  return mul(b, mul(b, h, num(b, 0.5)), h);
}

static X sinh_x(MB b, X x) {
  const X ax = mag(b, x), m = expm1_x(b, ax);
  const X near = mul(b, add(b, m, quot(b, m, add(b, m, num(b, 1)))), num(b, 0.5));
  return with_sign(b, pick(b, less(b, ax, num(b, 30)), near, half_exp(b, ax)), x);
}

static X cosh_x(MB b, X x) {
  const X h = half_exp(b, mag(b, x));
  return add(b, h, quot(b, num(b, 0.25), h));
}

/* Twice what s = f / den lacks of f / (2 + f), where den is 2 + f rounded. */
static X quotient_error(MB b, X f, X den, X s) {
  const X inverse = quot(b, num(b, 1), den), den_err = sub(b, f, sub(b, den, num(b, 2)));
  const X miss = fma3(b, neg(b, s), den_err, fma3(b, neg(b, s), den, f));
  return mul(b, mul(b, miss, inverse), num(b, 2));
}

/* log of a positive finite x. With `lo` as a sum of two numbers, the second the error of the
 * first. */
static X log_parts(MB b, X x, X *lo) {
  const X tiny = less(b, x, num(b, 0x1p-1022)), xs = pick(b, tiny, mul(b, x, num(b, 0x1p52)), x);
  const X start = wnum(b, UINT64_C(0x3fe6a09e667f3bcd)), bias = wnum(b, UINT64_C(1023) << 52);
  /* j = bits + bias - start, all positive; e = (j >> 52) - 1023 */
  const X j = ex_op(b.p, EX_sub, ex_op(b.p, EX_add, bits_of(b, xs), bias, NULL), start, NULL);
  const X low = wand(b, j, wnum(b, (UINT64_C(1) << 52) - 1));
  const X f = sub(b, from_bits(b, ex_op(b.p, EX_add, low, start, NULL)), num(b, 1));
  /* the exponent as a double without an integer conversion: 2^52 + e' has e' in its low bits */
  const X whole = sub(b, from_bits(b, wor(b, shr(b, j, 52), wnum(b, UINT64_C(0x433) << 52))),
                      num(b, 4503599627370496.0 + 1023));
  const X e = add(b, whole, pick(b, tiny, num(b, -52), num(b, 0)));
  const X den = add(b, f, num(b, 2)), s = quot(b, f, den), z = mul(b, s, s);
  const X two_s = mul(b, s, num(b, 2)), big = mul(b, e, num(b, ln2_hi)), hi = add(b, big, two_s);
  const X err = sub(b, two_s, sub(b, hi, big));
  X rest = mul(b, mul(b, z, s), POLY(b, z, log_f64));
  if (lo) rest = add(b, rest, quotient_error(b, f, den, s));
  const X tail = add(b, err, fma_by(b, e, ln2_lo, rest)), sum = add(b, hi, tail);
  if (lo) *lo = sub(b, tail, sub(b, sum, hi));
  return sum;
}

static X log_edges(MB b, X x, X r) {
  const X edge = pick(b, same(b, x, num(b, 0)), num(b, -INFINITY), num(b, NAN));
  return pick(b, less(b, num(b, 0), x), pick(b, less(b, x, num(b, INFINITY)), r, x), edge);
}

static X log_x(MB b, X x) { return log_edges(b, x, log_parts(b, x, NULL)); }

/* log(1 + u), with the rounding error of 1 + u put back */
static X log1p_x(MB b, X u) {
  const X w = add(b, u, num(b, 1)), fix = quot(b, sub(b, u, sub(b, w, num(b, 1))), w);
  const X r = add(b, log_x(b, w), fix);
  return pick(
      b, same(b, w, num(b, 1)), u,
      pick(b, less(b, num(b, 0), w), pick(b, less(b, w, num(b, INFINITY)), r, w), log_x(b, w)));
}

static X asinh_x(MB b, X x) {
  const X ax = mag(b, x), sq = mul(b, ax, ax), one = num(b, 1);
  const X near = log1p_x(b, add(b, ax, quot(b, sq, add(b, root(b, add(b, sq, one)), one))));
  const X far = add(b, log_x(b, ax), num(b, 0.69314718055994531));
  return with_sign(b, mag(b, pick(b, less(b, ax, num(b, 1e9)), near, far)), x);
}

static X acosh_x(MB b, X x) {
  const X t = sub(b, x, num(b, 1));
  const X near = log1p_x(b, add(b, t, root(b, fma3(b, t, t, mul(b, t, num(b, 2))))));
  const X far = add(b, log_x(b, x), num(b, 0.69314718055994531));
  const X r = pick(b, less(b, x, num(b, 1e9)), near, far);
  return pick(b, less(b, x, num(b, 1)), num(b, NAN), r);
}

static X atanh_x(MB b, X x) {
  const X ax = mag(b, x), u = quot(b, mul(b, ax, num(b, 2)), sub(b, num(b, 1), ax));
  const X r = mul(b, log1p_x(b, u), num(b, 0.5));
  const X m = pick(b, less(b, num(b, 1), ax), num(b, NAN), mag(b, r));
  return with_sign(b, m, x);
}

/* atan by one of three centres: 0, 1, infinity */
static X atan_x(MB b, X x) {
  const X ax = mag(b, x), one = num(b, 1), big = less(b, num(b, 2.414213562373095), ax);
  const X middle = less(b, num(b, 0.41421356237309503), ax);
  const X n = pick(b, big, num(b, -1), pick(b, middle, sub(b, ax, one), ax));
  const X d = pick(b, big, ax, pick(b, middle, add(b, ax, one), one));
  const X base = pick(b, big, num(b, pi_2), pick(b, middle, num(b, pi_2 / 2), num(b, 0)));
  const X base_lo = pick(b, big, num(b, 6.123233995736766e-17),
                         pick(b, middle, num(b, 3.061616997868383e-17), num(b, 0)));
  const X t = quot(b, n, d), z = mul(b, t, t);
  const X r = add(b, fma3(b, mul(b, z, t), POLY(b, z, atan_f64), base_lo), t);
  return with_sign(b, mag(b, add(b, base, r)), x);
}

/* asin of t up to 1/2, z = t^2 */
static X asin_poly(MB b, X t, X z) { return fma3(b, mul(b, z, t), POLY(b, z, asin_f64), t); }

static X asin_x(MB b, X x) {
  const X ax = mag(b, x), half = num(b, 0.5), far = less(b, half, ax);
  const X z = pick(b, far, mul(b, sub(b, num(b, 1), ax), half), mul(b, ax, ax));
  const X r = asin_poly(b, pick(b, far, root(b, z), ax), z);
  return with_sign(b, mag(b, pick(b, far, fma3(b, r, num(b, -2), num(b, pi_2)), r)), x);
}

static X acos_x(MB b, X x) {
  const X ax = mag(b, x), half = num(b, 0.5), far = less(b, half, ax);
  const X z = pick(b, far, mul(b, sub(b, num(b, 1), ax), half), mul(b, ax, ax));
  const X r = asin_poly(b, pick(b, far, root(b, z), x), z), twice = mul(b, r, num(b, 2));
  const X near = sub(b, num(b, pi_2), sub(b, r, num(b, 6.123233995736766e-17)));
  return pick(b, far, pick(b, less(b, num(b, 0), x), twice, sub(b, num(b, 2 * pi_2), twice)), near);
}

static X erf_x(MB b, X x) {
  const X ax = mag(b, x), a = ex_op(b.p, EX_min, ax, num(b, 6), NULL), sq = mul(b, a, a);
  const X near = fma3(b, x, POLY(b, sq, erf_f64), x);
  const X m = ex_op(b.p, EX_max, a, num(b, 1), NULL);
  const X t = quot(b, sub(b, m, num(b, 2.5)), add(b, m, num(b, 2.5)));
  const X far = sub(b, num(b, 1), mul(b, exp_x(b, neg(b, sq), NULL), POLY(b, t, erfcx_f64)));
  return pick(b, less(b, ax, num(b, 1)), near, with_sign(b, far, x));
}

/* Quadrant in the low bits of *q; |x| to about 1e9 at full accuracy. */
static X reduce(MB b, X x, X *q) {
  const X magic = num(b, magic_f64), t = fma3(b, x, num(b, 0.63661977236758134), magic),
          n = sub(b, t, magic);
  X r = fma_by(b, n, -pi_2, x);
  r = fma_by(b, n, -6.123233995736766e-17, r);
  *q = bits_of(b, t);
  return clamp(b, fma_by(b, n, 1.4973849048591833e-33, r), -0.8, 0.8);
}

static X sin_poly(MB b, X r, X z) { return fma3(b, mul(b, r, z), POLY(b, z, sin_f64), r); }

static X cos_poly(MB b, X z) {
  const X h = mul(b, z, num(b, 0.5)), w = sub(b, num(b, 1), h),
          lost = sub(b, sub(b, num(b, 1), w), h);
  return add(b, w, fma3(b, mul(b, z, z), POLY(b, z, cos_f64), lost));
}

static X odd_quadrant(MB b, X q) {
  return ex_op(b.p, EX_ne, wand(b, q, wnum(b, 1)), wnum(b, 0), NULL);
}

/* Where sin and tan are x itself, -0 among them. */
static X tiny(MB b, X x) { return less(b, mag(b, x), num(b, 0x1p-27)); }

static X sine_of(MB b, X r, X q, int shift) {
  const X z = mul(b, r, r);
  if (shift) q = ex_add(b.p, q, wnum(b, 1));
  const X y = pick(b, odd_quadrant(b, q), cos_poly(b, z), sin_poly(b, r, z));
  return from_bits(b, wxor(b, bits_of(b, y), shl(b, wand(b, q, wnum(b, 2)), 62)));
}

static bool was_f32(X x) { return x->op == EX_cast && x->a[0]->dtype != DT_F64; }

static X sine(MB b, X x, int shift) {
  X q, ql;
  const X r = reduce(b, x, &q), rl = reduce_large(b, x, was_f32(x), &ql);
  const X near = sine_of(b, r, q, shift), far = sine_of(b, rl, ql, shift);
  return ex_op(b.p, EX_rarely, is_large(b, x), far, shift ? near : pick(b, tiny(b, x), x, near));
}

static X tan_of(MB b, X r, X q) {
  const X z = mul(b, r, r), s = sin_poly(b, r, z), c = cos_poly(b, z), odd = odd_quadrant(b, q);
  return quot(b, pick(b, odd, neg(b, c), s), pick(b, odd, s, c));
}

static X tan_x(MB b, X x) {
  X q, ql;
  const X r = reduce(b, x, &q), rl = reduce_large(b, x, was_f32(x), &ql);
  return ex_op(b.p, EX_rarely, is_large(b, x), tan_of(b, rl, ql),
               pick(b, tiny(b, x), x, tan_of(b, r, q)));
}

/* |x|^y, then the sign and the exceptions of IEEE 754 */
X pow_f64(MB b, X x, X y, bool exact) {
  const X ax = mag(b, x), zero = num(b, 0), one = num(b, 1), inf = num(b, INFINITY);
  const X at_zero = same(b, ax, zero), at_inf = same(b, ax, inf);
  X lo, hi = log_parts(b, ax, exact ? &lo : NULL);
  hi = pick(b, at_zero, num(b, -INFINITY), pick(b, at_inf, inf, pick(b, less(b, ax, inf), hi, ax)));
  const X ph = mul(b, y, hi);
  X tail = NULL;
  if (exact) {
    const X finite = less(b, mag(b, ph), num(b, 1000));
    tail = pick(b, finite, fma3(b, y, lo, fma3(b, y, hi, neg(b, ph))), zero);
  }
  const X size = exp_x(b, ph, tail);
  const X whole = same(b, ex_op(b.p, EX_rint, y, NULL, NULL), y), half = mul(b, y, num(b, 0.5));
  const X odd =
      both(b, whole, ex_op(b.p, EX_ne, ex_op(b.p, EX_rint, half, NULL, NULL), half, NULL));
  const X sign = pick(b, odd, sign_bit(b, x), wnum(b, 0));
  const X r = from_bits(b, wor(b, bits_of(b, size), sign));
  const X undefined =
      both(b, both(b, less(b, x, zero), less(b, ax, inf)), ex_op(b.p, EX_not, whole, NULL, NULL));
  const X unit = either(b, either(b, same(b, y, zero), same(b, x, one)),
                        both(b, same(b, ax, one), same(b, mag(b, y), inf)));
  return pick(b, unit, one, pick(b, undefined, num(b, NAN), r));
}

X math_f64(MB b, ExprOp op, X x) {
  switch (op) {
    case EX_exp: return exp_x(b, x, NULL);
    case EX_log: return log_x(b, x);
    case EX_sin: return sine(b, x, 0);
    case EX_cos: return sine(b, x, 1);
    case EX_tan: return tan_x(b, x);
    case EX_asin: return asin_x(b, x);
    case EX_acos: return acos_x(b, x);
    case EX_atan: return atan_x(b, x);
    case EX_sinh: return sinh_x(b, x);
    case EX_cosh: return cosh_x(b, x);
    case EX_tanh: return tanh_x(b, x);
    case EX_asinh: return asinh_x(b, x);
    case EX_acosh: return acosh_x(b, x);
    case EX_atanh: return atanh_x(b, x);
    case EX_erf: return erf_x(b, x);
    case EX_sigmoid: return sigmoid_x(b, x);
    default: return NULL;
  }
}
