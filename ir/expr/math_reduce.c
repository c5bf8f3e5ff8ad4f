/* Range reduction of sine, cosine and tangent for arguments from 2^30 on (Payne and Hanek): x is
 * m * 2^s with a whole m of 53 bits, and of 2/pi only those 192 bits count that the product's two
 * bits before and 190 behind the point come from. All in integers: exact, and the same
 * everywhere. */
#include "ir/expr/math_impl.h"

enum { WORDS = 20 };
/* 64 zero bits, then 2/pi behind the point. */
static const uint64_t two_over_pi[WORDS] = {
    0x0000000000000000, 0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041,
    0xfe5163abdebbc561, 0xb7246e3a424dd2e0, 0x06492eea09d1921c, 0xfe1deb1cb129a73e,
    0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4, 0x9c845f8bbdf9283b,
    0x1ff897ffde05980f, 0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab,
};

/* Words i … i + 3 of the table; i has `levels` bits. */
static void table_words(MB u, X i, int levels, X out[4]) {
  X w[WORDS + 32];
  for (int k = 0; k < WORDS + 32; k++) w[k] = wnum(u, k < WORDS ? two_over_pi[k] : 0);
  for (int l = levels - 1; l >= 0; l--) {
    const X set = ex_op(u.p, EX_ne, wand(u, i, wnum(u, 1u << l)), wnum(u, 0), NULL);
    for (int k = 0; k < 3 + (1 << l); k++) w[k] = pick(u, set, w[k + (1 << l)], w[k]);
  }
  for (int k = 0; k < 4; k++) out[k] = w[k];
}

static X uadd(MB u, X x, X y) { return ex_op(u.p, EX_add, x, y, NULL); }
static X umul(MB u, X x, X y) { return ex_op(u.p, EX_mul, x, y, NULL); }
static X low32(MB u, X x) { return wand(u, x, wnum(u, 0xffffffff)); }
static X by(MB u, ExprOp shift, X x, X n) { return ex_op(u.p, shift, x, n, NULL); }

/* m times the n limbs of 32 bits in `limb`, lowest first, modulo 2^(32 n). */
static void product(MB u, X m, const X *limb, int n, X *out) {
  X carry = wnum(u, 0);
  for (int k = 0; k < n; k++) {
    const X p = uadd(u, umul(u, m, limb[k]), carry);
    out[k] = low32(u, p);
    carry = shr(u, p, 32);
  }
}

/* The upper 128 of the 192 bits of m * window. */
static void fraction(MB u, X m, const X window[3], X *high, X *low) {
  X limb[6], a[6], b[5], carry = wnum(u, 0);
  for (int k = 0; k < 3; k++) {
    limb[5 - 2 * k] = shr(u, window[k], 32);
    limb[4 - 2 * k] = low32(u, window[k]);
  }
  product(u, low32(u, m), limb, 6, a);
  product(u, shr(u, m, 32), limb, 5, b);
  for (int k = 1; k < 6; k++) {
    const X sum = uadd(u, uadd(u, a[k], b[k - 1]), carry);
    a[k] = low32(u, sum);
    carry = shr(u, sum, 32);
  }
  *high = wor(u, shl(u, a[5], 32), a[4]);
  *low = wor(u, shl(u, a[3], 32), a[2]);
}

/* The signed fraction high.low of 2^64 quarter turns as an angle. Magnitude and sign apart, so that
 * a small one keeps all its bits. */
static X angle(MB b, X high, X low) {
  const X negative = ex_op(b.p, EX_ne, shr(b, high, 63), wnum(b, 0), NULL);
  const X flip = pick(b, negative, wnum(b, ~UINT64_C(0)), wnum(b, 0));
  high = wxor(b, high, flip);
  low = wxor(b, low, flip);
  const double scale = 0x1p-64 * 1.5707963267948966, rest = 0x1p-64 * 6.123233995736766e-17;
  const X whole = ex_cast(b.p, b.t, ex_bits(b.p, DT_I64, wand(b, high, wnum(b, ~UINT64_C(0x7ff)))));
  const X tail = ex_cast(b.p, b.t, ex_bits(b.p, DT_I64, wand(b, high, wnum(b, 0x7ff))));
  const X last = ex_cast(b.p, b.t, ex_bits(b.p, DT_I64, shr(b, low, 11)));
  const X small = add(b, tail, mul(b, last, num(b, 0x1p-53)));
  const X p = mul(b, whole, num(b, scale)), lost = fma_by(b, whole, scale, neg(b, p));
  const X more = add(b, mul(b, whole, num(b, rest)), mul(b, small, num(b, scale)));
  const X r = add(b, p, add(b, lost, more));
  return pick(b, negative, neg(b, r), r);
}

X reduce_large(MB b, X x, bool from_f32, X *q) {
  const X bits = bits_of(b, mag(b, x)), exponent = shr(b, bits, 52);
  const X m = wor(b, wand(b, bits, wnum(b, (UINT64_C(1) << 52) - 1)), wnum(b, UINT64_C(1) << 52));
  const X at = ex_op(b.p, EX_sub, exponent, wnum(b, 1013), NULL), n = wand(b, at, wnum(b, 63));
  const X rest = ex_op(b.p, EX_sub, wnum(b, 63), n, NULL);
  X w[4], window[3], high, low;
  table_words(b, shr(b, at, 6), from_f32 ? 2 : 5, w);
  for (int k = 0; k < 3; k++)
    window[k] = wor(b, by(b, EX_shl, w[k], n), by(b, EX_shr, shr(b, w[k + 1], 1), rest));
  fraction(b, m, window, &high, &low);
  const X turn = shr(b, uadd(b, high, wnum(b, UINT64_C(1) << 61)), 62);
  const X r = angle(b, wor(b, shl(b, high, 2), shr(b, low, 62)), shl(b, low, 2));
  const X negative = less(b, x, num(b, 0));
  *q = pick(b, negative, ex_op(b.p, EX_sub, wnum(b, 0), turn, NULL), turn);
  return pick(b, negative, neg(b, r), r);
}
