/* Whether a Winograd form of 8-bit operands gives the sums of the direct convolution, to the bit.
 *
 * Bᵀ and the scaled G are whole (build/winograd.c), so transformed inputs V and weights U are, too.
 * 1. U and V fit into 16 bits. Of x in [0, 255] an element of V is Σ b x over 16 or 36 pixels, whose
 *    coefficients are products of two rows of Bᵀ: its positive ones add up to at most 68 (rows 1 and 1
 *    of F(4, 3): 2*2 + 8*8), its negative ones to -50 at least; so V is within [-12750, 17340]. Of x in
 *    [-128, 127] it is within ±100 * 128. Rows of the scaled G add up to 12 at most, so U is within
 *    144 max|w|, which is 18432 for i8; for u8 it must be asked. F(2, 3): 4 and 9 in their place.
 * 2. All sums behind are modulo 2^32: the products, their sums over channels and taps in depth, Aᵀ.
 *    What comes out is 576 S modulo 2^32 (4 S of F(2, 3)), where S is the sum of the direct form. Times
 *    the inverse of 9 it is 64 S modulo 2^32; read as a signed number that is 64 S itself, if S is in
 *    [-2^25, 2^25), and the shift by 6 leaves S (2^29, and 2).
 * 3. x, which no zero point was taken from, is within [0, 255] or [-128, 127], the border, too; so S of
 *    a channel is between what its positive and what its negative weights can add up to. */
#include "passes/choose/contraction.h"
#include "passes/choose/conv_plan.h"

typedef struct Bounds {
  int64_t lo, hi;
} Bounds;

static Bounds of_type(DType t) { return t == DT_U8 ? (Bounds){0, 255} : (Bounds){-128, 127}; }

/* Of the sums of channel `o`; *most: of its weights. */
static Bounds of_sums(const ConstData *w, int64_t o, int64_t count, Bounds x, int64_t *most) {
  int64_t up = 0, down = 0;
  for (int64_t i = o * count; i < (o + 1) * count; i++) {
    const int64_t v = const_int(w, i), size = v < 0 ? -v : v;
    if (size > *most) *most = size;
    if (v > 0)
      up += v;
    else
      down += v;
  }
  return (Bounds){up * x.lo + down * x.hi, up * x.hi + down * x.lo};
}

bool winograd_exact(const Node *n, const ConvInfo *conv, int m) {
  const ConstData *const w = n->in[1]->cdata;
  const int64_t factor = m == 4 ? 144 : 9, limit = INT64_C(1) << (m == 4 ? 25 : 29);
  const Bounds x = of_type(n->in[0]->dtype);
  const int64_t count = w->count / conv->c_out;
  int64_t most = 0;
  for (int64_t o = 0; o < conv->c_out; o++) {
    const Bounds s = of_sums(w, o, count, x, &most);
    if (s.lo < -limit || s.hi >= limit) return false;
  }
  return most * factor <= INT16_MAX;
}
