/* Products of 8-bit integers as contractions of integers: MatMulInteger and ConvInteger without
 * zero points, which have tiled templates. Zero points go into sums over columns of the weights
 * and, where the weights keep theirs, over rows of x; what pads an image becomes its zero point
 * (`pad_value`), with which layout fills the halo. */
#include "passes/quant/exact_products.h"

#include <string.h>

#include "passes/build/kernel.h"

static Value *constant_i32(Build *b, int rank, const int64_t *dims, const int32_t *data) {
  return value_const(b->m, const_new(b->m, NULL, DT_I32, rank, dims, data));
}

/* ---- whether ---- */

static bool is_signed_byte(const Product *p) {
  for (int64_t i = 0; i < p->w->cdata->count; i++)
    if (p->centered[i] < -128 || p->centered[i] > 127) return false;
  return true;
}

/* Weights less their zero points are bytes with a sign, or have none to begin with; else the zero
 * point stays, and takes sums over rows. */
typedef enum Centering { AS_GIVEN, CENTERED, KEEPS_ZERO } Centering;
static Centering centering(const Product *p) {
  if (product_all_zero(p->wz)) return AS_GIVEN;
  return p->centered && is_signed_byte(p) ? CENTERED : KEEPS_ZERO;
}

static bool conv_fits(const Product *p) {
  ConvInfo conv;
  if (!conv_info(p->n, &conv) || conv.transposed || centering(p) == KEEPS_ZERO) return false;
  const DType w = centering(p) == CENTERED ? DT_I8 : p->w->dtype;
  return contract_types(p->x->dtype, w) && conv_has_template(&conv);
}

bool integer_product_fits(const Product *p) {
  if (p->conv) return conv_fits(p);
  const bool one_zero = !p->wz || !p->wz->cdata || p->wz->cdata->count == 1;
  return contract_types(p->x->dtype, p->w->dtype) && (one_zero || centering(p) != KEEPS_ZERO);
}

static bool is_depthwise(const Product *p) {
  ConvInfo conv;
  return p->conv && conv_info(p->n, &conv) && conv_is_depthwise(&conv);
}

/* Depthwise convolutions multiply element by element, which all targets have instructions for. */
bool integer_product_pays(const Target *t, const Product *p) {
  return is_depthwise(p) || target_has(t, FEATURE_PAIRS) || target_has(t, FEATURE_DOTPROD) ||
         target_has(t, FEATURE_LONGMUL);
}

/* ---- operands ---- */

static Value *weights_of(const Product *p) {
  const ConstData *w = p->w->cdata;
  if (centering(p) != CENTERED) return p->w;
  int8_t *data = arena_alloc(p->m->arena, (size_t)w->count + 1);
  for (int64_t i = 0; i < w->count; i++) data[i] = (int8_t)p->centered[i];
  return value_const(p->m, const_new(p->m, w->name, DT_I8, w->rank, w->dims, data));
}

static Value *scalar_of(Build *b, Value *v) {
  return b->ok ? build_op(b, "Reshape", 2, (Value *[]){v, build_i64s(b, 0, NULL)}, 0, NULL) : v;
}

/* An image with its border, whose zero point only a run knows. */
static Value *padded(Build *b, const Product *p, const ConvInfo *conv) {
  int64_t pads[2 * MAX_RANK] = {0};
  const int rank = p->x->rank;
  bool any = false;
  for (int s = 0; s < conv->spatial; s++) {
    pads[2 + s] = conv->pad_lo[s];
    pads[rank + 2 + s] = conv->pad_hi[s];
    any = any || conv->pad_lo[s] || conv->pad_hi[s];
  }
  if (!any || !b->ok) return p->x;
  Value *in[] = {p->x, build_i64s(b, 2 * rank, pads), scalar_of(b, p->xz)};
  return b->ok ? build_op(b, "Pad", 3, in, 0, NULL) : p->x;
}

static Value *plain_conv(Build *b, const Product *p, Value *w) {
  enum { ATTRS = 5 };
  Arena *a = b->m->arena;
  ConvInfo conv;
  int64_t pads[2 * MAX_SPATIAL] = {0};
  conv_info(p->n, &conv);
  Value *in[] = {p->x, w};
  const bool known = !p->xz || p->xz->cdata;
  if (!known) {
    in[0] = padded(b, p, &conv);
  } else {
    for (int s = 0; s < conv.spatial; s++) {
      pads[s] = conv.pad_lo[s];
      pads[conv.spatial + s] = conv.pad_hi[s];
    }
  }
  const Attr attrs[ATTRS] = {
      attr_ints(a, "pads", 2 * conv.spatial, pads),
      attr_ints(a, "strides", conv.spatial, conv.stride),
      attr_ints(a, "dilations", conv.spatial, conv.dilation), attr_int(a, "group", conv.group),
      attr_int(a, "pad_value", known && p->xz ? const_int(p->xz->cdata, 0) : 0)};
  return b->ok ? build_op(b, "ConvInteger", 2, in, ATTRS, attrs) : p->x;
}

/* ---- sums over columns and rows ---- */

static Value *reduce(Build *b, Value *v, int n, const int64_t *axes, bool keep) {
  const Attr keepdims = attr_int(b->m->arena, "keepdims", keep);
  Value *in[] = {v, build_i64s(b, n, axes)};
  return b->ok ? build_op(b, "ReduceSum", 2, in, 1, &keepdims) : v;
}

/* Of weights [outer][axis][inner]: over the axis, and for convolutions over the taps, too. */
static Value *constant_columns(Build *b, const Product *p, const ConstData *w, int64_t factor) {
  const int rank = p->w->rank;
  const bool vector = p->x->rank == 1, conv = p->conv;
  const int64_t columns = conv ? 1 : p->inner, run = p->axis * p->inner;
  int64_t dims[MAX_RANK];
  int n = 0;
  for (int d = 0; d < (conv ? 1 : rank); d++)
    if (d != rank - 2 || !vector) dims[n++] = !conv && d == rank - 2 ? 1 : w->dims[d];
  uint32_t *sum = ARENA_ARRAY(b->m->arena, uint32_t, p->outer *columns + 1);
  for (int64_t i = 0; i < p->outer * run; i++)
    sum[i / run * columns + i % columns] += (uint32_t)(const_int(w, i) * factor);
  return constant_i32(b, n, dims, (const int32_t *)sum);
}

static Value *computed_columns(Build *b, const Product *p) {
  int64_t axes[MAX_RANK];
  int n = 0;
  if (p->conv)
    for (int d = 1; d < p->w->rank; d++) axes[n++] = d;
  else
    axes[n++] = p->w->rank - 2;
  Value *wide = build_cast(b, p->w, DT_I32);
  return reduce(b, wide, n, axes, !p->conv && p->x->rank > 1);
}

/* xz times the sum of each column; a constant where both are. NULL: nothing. */
static Value *column_terms(Build *b, const Product *p, Value *w) {
  if (product_all_zero(p->xz)) return NULL;
  const bool known = p->xz->cdata != NULL;
  Value *sum = w->cdata ? constant_columns(b, p, w->cdata, known ? const_int(p->xz->cdata, 0) : 1)
                        : computed_columns(b, p);
  if (known && w->cdata) return product_per_channel(b, p, sum);
  Value *zero = scalar_of(b, build_cast(b, p->xz, DT_I32));
  return product_per_channel(b, p, product_binary(b, "Mul", sum, zero));
}

/* wz times the sum of each row of x - xz; NULL: nothing. */
static Value *row_terms(Build *b, const Product *p) {
  const int64_t last = p->x->rank - 1;
  if (centering(p) != KEEPS_ZERO) return NULL;
  Value *x = build_cast(b, p->x, DT_I32);
  if (!product_all_zero(p->xz))
    x = product_binary(b, "Sub", x, scalar_of(b, build_cast(b, p->xz, DT_I32)));
  Value *sum = reduce(b, x, 1, &last, true);
  return product_binary(b, "Mul", sum, scalar_of(b, build_cast(b, p->wz, DT_I32)));
}

/* ---- signs ---- */

/* Has the target an instruction for products of these; or none, so that all are alike? */
static bool is_native(const Target *t, DType x, DType w) {
  const bool dot4 = contract_has_dot4(t, DT_U8, DT_I8) || contract_has_dot4(t, x, x);
  if (!dot4 && target_has(t, FEATURE_LONGMUL)) return x == w;
  return contract_has_dot4(t, x, w) || !dot4;
}

/* v + 128 as u8, or v - 128 as i8. */
static Value *flipped(Build *b, Value *v) {
  const bool to_unsigned = v->dtype == DT_I8;
  if (!b->ok) return v;
  Value *bits = to_unsigned ? build_cast(b, v, DT_U8) : v;
  bits = product_binary(b, "BitwiseXor", bits, build_scalar(b, DT_U8, 128));
  return to_unsigned ? bits : build_cast(b, bits, DT_I8);
}

/* The same product with x, and with it its zero point, of the other sign. */
static Product with_other_sign(Build *b, const Product *p) {
  Product q = *p;
  const bool to_unsigned = p->x->dtype == DT_I8;
  q.x = flipped(b, p->x);
  if (!p->xz || p->xz->cdata)
    q.xz =
        build_scalar(b, q.x->dtype,
                     (p->xz ? (double)const_int(p->xz->cdata, 0) : 0) + (to_unsigned ? 128 : -128));
  else
    q.xz = flipped(b, p->xz);
  return q;
}

static Value *sum_of(Build *b, const Product *p, Value *w) {
  Value *bias = p->bias;
  Value *sum = p->conv ? plain_conv(b, p, w) : product_binary(b, "MatMulInteger", p->x, w);
  Value *columns = column_terms(b, p, w), *rows = row_terms(b, p);
  if (bias) bias = product_per_channel(b, p, bias);
  if (columns && bias) bias = product_binary(b, "Sub", bias, columns), columns = NULL;
  if (columns) sum = product_binary(b, "Sub", sum, columns);
  if (rows) sum = product_binary(b, "Sub", sum, rows);
  return bias ? product_binary(b, "Add", sum, bias) : sum;
}

bool integer_product_flips(const Target *t, const Product *p) {
  const DType x = p->x->dtype, other = x == DT_I8 ? DT_U8 : DT_I8;
  const DType w = centering(p) == CENTERED ? DT_I8 : p->w->dtype;
  const bool pays = !is_depthwise(p) || contract_has_dot4(t, other, w);
  return pays && !is_native(t, x, w) && is_native(t, other, w);
}

Value *integer_product(Build *b, const Target *t, const Product *p) {
  Value *w = weights_of(p);
  if (!integer_product_flips(t, p)) return sum_of(b, p, w);
  const Product q = with_other_sign(b, p);
  return b->ok ? sum_of(b, &q, w) : p->x;
}
