/* Shared by math.c (which rows), math_f32.c and math_f64.c (how). Short names build the
 * expressions. */
#pragma once
#include <math.h>
#include "ir/expr/expr.h"

typedef const Expr *X;
typedef struct MB { /* builder: constants and results have type t, f32 or f64 */
  ExprPool *p;
  DType t;
} MB;

static inline X num(MB b, double v) { return ex_float(b.p, b.t, v); }
static inline X add(MB b, X x, X y) { return ex_op(b.p, EX_add, x, y, NULL); }
static inline X sub(MB b, X x, X y) { return ex_op(b.p, EX_sub, x, y, NULL); }
static inline X mul(MB b, X x, X y) { return ex_op(b.p, EX_mul, x, y, NULL); }
static inline X quot(MB b, X x, X y) { return ex_op(b.p, EX_div, x, y, NULL); }
static inline X fma3(MB b, X x, X y, X z) { return ex_op(b.p, EX_fma, x, y, z); }
/* n*k + z for a k of ours, where n*k may nearly cancel z: exact also without the instruction. */
X fma_by(MB b, X n, double k, X z);
static inline X neg(MB b, X x) { return ex_op(b.p, EX_neg, x, NULL, NULL); }
static inline X mag(MB b, X x) { return ex_op(b.p, EX_abs, x, NULL, NULL); }
static inline X root(MB b, X x) { return ex_op(b.p, EX_sqrt, x, NULL, NULL); }
static inline X pick(MB b, X c, X x, X y) { return ex_op(b.p, EX_select, c, x, y); }
static inline X less(MB b, X x, X y) { return ex_op(b.p, EX_lt, x, y, NULL); }
static inline X same(MB b, X x, X y) { return ex_op(b.p, EX_eq, x, y, NULL); }
static inline X both(MB b, X x, X y) { return ex_op(b.p, EX_and, x, y, NULL); }
static inline X either(MB b, X x, X y) { return ex_op(b.p, EX_or, x, y, NULL); }
static inline X clamp(MB b, X x, double lo, double hi) {
  return ex_op(b.p, EX_min, ex_op(b.p, EX_max, x, num(b, lo), NULL), num(b, hi), NULL);
}
/* The unsigned integer of the same width: its bits, shifts, and back. */
static inline DType word(MB b) { return b.t == DT_F32 ? DT_U32 : DT_U64; }
static inline X bits_of(MB b, X x) { return ex_bits(b.p, word(b), x); }
static inline X from_bits(MB b, X w) { return ex_bits(b.p, b.t, w); }
static inline X wnum(MB b, uint64_t v) { return ex_int(b.p, word(b), (int64_t)v); }
static inline X shl(MB b, X w, int n) { return ex_op(b.p, EX_shl, w, wnum(b, (uint64_t)n), NULL); }
static inline X shr(MB b, X w, int n) { return ex_op(b.p, EX_shr, w, wnum(b, (uint64_t)n), NULL); }
static inline X wand(MB b, X v, X w) { return ex_op(b.p, EX_and, v, w, NULL); }
static inline X wor(MB b, X v, X w) { return ex_op(b.p, EX_or, v, w, NULL); }
static inline X wxor(MB b, X v, X w) { return ex_op(b.p, EX_xor, v, w, NULL); }
static inline X sign_bit(MB b, X x) {
  return wand(b, bits_of(b, x), wnum(b, b.t == DT_F32 ? UINT64_C(1) << 31 : UINT64_C(1) << 63));
}
/* x, which is not negative, with the sign of s. */
static inline X with_sign(MB b, X x, X s) {
  return from_bits(b, wor(b, bits_of(b, x), sign_bit(b, s)));
}

/* Horner: c[0] + c[1]*x + …; scale multiplies every coefficient (1 or -1), odd the odd ones. */
static inline X poly_signed(MB b, X x, const double *c, int n, double scale, double odd) {
  X r = num(b, c[n - 1] * scale * ((n - 1) % 2 ? odd : 1));
  for (int k = n - 2; k >= 0; k--) r = fma3(b, r, x, num(b, c[k] * scale * (k % 2 ? odd : 1)));
  return r;
}
#define POLY(b, x, table) poly_signed(b, x, table, (int)(sizeof table / sizeof *table), 1, 1)
#define POLY_SIGNED(b, x, table, scale, odd) \
  poly_signed(b, x, table, (int)(sizeof table / sizeof *table), scale, odd)

/* x = q pi/2 + r for f64 |x| from 2^30 on, finite; *q modulo 4 (math_reduce.c). */
X reduce_large(MB b, X x, bool from_f32, X *q);
/* Where it is needed. */
static inline X is_large(MB b, X x) {
  const bool wide = b.t == DT_F64; /* by the exponent: one comparison */
  const uint64_t from = wide ? UINT64_C(1053) << 52 : (127 + 30) << 23,
                 inf = wide ? UINT64_C(0x7ff) << 52 : 0xff << 23;
  const X over = ex_op(b.p, EX_sub, bits_of(b, mag(b, x)), wnum(b, from), NULL);
  return less(b, over, wnum(b, inf - from));
}

/* Result for one row on one argument; NULL: this type has no own version. */
X math_f32(MB b, ExprOp op, X x);
X math_f64(MB b, ExprOp op, X x);
X pow_f64(MB b, X x, X y, bool exact); /* exact: good to f64, not only to f32 */
