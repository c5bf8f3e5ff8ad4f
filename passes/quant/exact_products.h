/* What exact_products.c finds out of a product of 8-bit integers, for its two forms: products of
 * floats (there) and of integers (integer_products.c). Internal to these. */
#pragma once
#include "ir/ops/nn/contraction.h"
#include "passes/graph/rewrite.h"

typedef struct ProductForm { /* input numbers; -1: has none */
  const char *op;
  bool conv;
  int x, xz, w, wz, bias;
  int x_scale, w_scale, y_scale, yz; /* -1: the result is i32 */
} ProductForm;

typedef struct Product {
  Model *m;
  Node *n;
  const ProductForm *f;
  Value *x, *xz, *w, *wz;
  float *centered;            /* constant weights less their zero points, or NULL */
  int64_t outer, axis, inner; /* weights: [outer][axis][inner]; `axis` is contracted, may be cut */
  double x_max, worst;        /* largest |x - xz|; largest partial sum of one part */
  int64_t step;               /* length of a part along `axis` */
  bool integer;               /* as integers, not as floats */
} Product;

/* One number per output channel or column, to be broadcast over the output. */
Value *product_per_channel(Build *b, const Product *p, Value *v);
Value *product_cast(Build *b, DType t, Value *v);

/* Whether a contraction of integers computes it: Σ (x - xz)·(w - wz) as Σ x·w' less a number per
 * column, and one per row. All of that is arithmetic modulo 2^32, as the operator's is, so it holds
 * for sums of any length. */
bool integer_product_fits(const Product *p);
/* Whether that is as fast as with floats. */
bool integer_product_pays(const Target *t);
/* Whether x is to be taken with the other sign, for which the target has an instruction. */
bool integer_product_flips(const Target *t, const Product *p);
/* The sum as i32, its bias (input p->f->bias) added. */
Value *integer_product(Build *b, const Target *t, const Product *p);
