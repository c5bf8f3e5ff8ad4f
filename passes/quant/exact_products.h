/* What is found out of a product of 8-bit integers, of an operator (exact_products.c) or of what is
 * dequantized (dequantized_products.c), for its two forms: products of floats (float_products.c) and
 * of integers (integer_products.c). Internal to these. */
#pragma once
#include "ir/ops/nn/contraction.h"
#include "passes/graph/rewrite.h"

typedef struct Product {
  Model *m;
  Node *n;   /* has the attributes */
  bool conv; /* else a product of matrices */
  Value *x, *xz, *w, *wz;
  Value *bias;                /* i32, or NULL */
  Value *x_scale, *w_scale;   /* NULL: the result is the sum */
  float *centered;            /* constant weights less their zero points, or NULL */
  int64_t outer, axis, inner; /* weights: [outer][axis][inner]; `axis` is contracted, may be cut */
  double x_max, worst;        /* largest |x - xz|; largest partial sum of one part */
  int64_t step;               /* length of a part along `axis` */
  bool integer;               /* as integers, not as floats */
} Product;

/* ---- exact_products.c ---- */
/* v is one number, or absent */
bool product_plain_scalar(const Value *v);
/* Chooses the form; operands are set. False: there is none. */
bool product_plan(PassCtx *c, Product *p);
/* No sum, its bias included, leaves 32 bits. `product_plan` was asked. */
bool product_fits_i32(const Product *p, Arena *scratch);
/* The sum, its bias added: i32, or f32 that holds an integer. */
Value *product_sum(Build *b, const Target *t, const Product *p);
/* x_scale * w_scale: one number, or one per channel. */
Value *product_scale(Build *b, const Product *p);
/* rint(sum * (x_scale * w_scale / y_scale)) + yz, between lo and hi (NULL: those of the type). */
Value *product_requantize(Build *b, const Product *p, Value *sum, Value *y_scale, Value *yz,
                          Value *lo, Value *hi);
/* One number per output channel or column, to be broadcast over the output. */
Value *product_per_channel(Build *b, const Product *p, Value *v);
/* op of two values; x where building has failed before. */
Value *product_binary(Build *b, const char *op, Value *x, Value *y);
/* Is a zero point known to be 0, or absent? */
bool product_all_zero(const Value *zero);

/* Whether a contraction of integers computes it: Σ (x - xz)·(w - wz) as Σ x·w' less a number per
 * column, and one per row. All of that is arithmetic modulo 2^32, as the operator's is, so it holds
 * for sums of any length. */
bool integer_product_fits(const Product *p);
/* Whether that is as fast as with floats. */
bool integer_product_pays(const Target *t, const Product *p);
/* Whether x is to be taken with the other sign, for which the target has an instruction. */
bool integer_product_flips(const Target *t, const Product *p);
/* The sum as i32, its bias added. */
Value *integer_product(Build *b, const Target *t, const Product *p);

/* ---- float_products.c ---- */
/* Largest |v - zero| of an 8-bit value and its zero point. */
double product_reach(const Value *v, const Value *zero);
/* The length of parts within which sums of floats are exact, in p->step; false: there is none. */
bool float_product_fits(Product *p, Arena *scratch);
/* The largest sum of |w| over rows [from, to) of the axis: of an output channel with all its taps,
 * or of a column. */
double float_product_largest(const Product *p, int64_t from, int64_t to, Arena *scratch);
/* The sum, its bias added: f32 or i32. */
Value *float_product(Build *b, const Product *p);
