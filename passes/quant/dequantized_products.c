/* Contractions of dequantized 8-bit values: Conv, MatMul and Gemm behind DequantizeLinear become
 * products of the integers themselves (exact_products.h), times the scales of both; Relu, Clip and
 * QuantizeLinear behind them become limits and scale of one Requantize. docs/quantization.md says
 * what is computed. Runs before constants are folded, which would make floats of the weights. */
#include <math.h>
#include <string.h>

#include "passes/quant/exact_products.h"

typedef struct Quantized { /* (v - zero) * scale */
  Value *v, *scale, *zero; /* zero: NULL where all are 0 */
} Quantized;

typedef struct Sum { /* a rewritten product, for what reads it */
  Product p;
  Value *sum, *real;
} Sum;

typedef struct Dequantized {
  Forward f;
  Vec(Sum) sums;
} Dequantized;

/* ---- operands ---- */

static bool is_scalar(const Value *v) { return v && product_plain_scalar(v); }

static bool is_dequantize(const Node *n) {
  return n && strcmp(n->op->name, "DequantizeLinear") == 0 && n->out[0]->dtype == DT_F32 &&
         n->in[1]->dtype == DT_F32 && node_int(n, "block_size", 0) == 0;
}

/* Scale and zero point are one number, or constants along `axis` (-1: only one number). */
static bool dequantized(const Value *real, int axis, Quantized *q) {
  const Node *n = real->def;
  if (!is_dequantize(n)) return false;
  *q = (Quantized){n->in[0], n->in[1], node_in(n, 2)};
  if (product_all_zero(q->zero)) q->zero = NULL;
  if (is_scalar(q->scale)) return product_plain_scalar(q->zero);
  const int64_t at = node_int(n, "axis", 1);
  return axis >= 0 && (at < 0 ? at + real->rank : at) == axis && q->scale->cdata &&
         (!q->zero || q->zero->cdata);
}

static bool is_usual(const ConstData *scale) {
  for (int64_t i = 0; scale && i < scale->count; i++) {
    const double s = const_float(scale, i);
    if (!(isfinite(s) && s > 0)) return false;
  }
  return true;
}

/* The matrix [columns, k] as [k, columns]. */
static Value *transposed(Model *m, const ConstData *w) {
  const int64_t dims[2] = {w->dims[1], w->dims[0]};
  const char *from = w->data;
  char *to = arena_alloc(m->arena, (size_t)w->count + 1);
  for (int64_t i = 0; i < dims[0]; i++)
    for (int64_t j = 0; j < dims[1]; j++) to[i * dims[1] + j] = from[j * dims[0] + i];
  return value_const(m, const_new(m, w->name, w->dtype, 2, dims, to));
}

static bool plain_gemm(const Node *n) {
  return node_float(n, "alpha", 1) == 1 && node_float(n, "beta", 1) == 1 &&
         !node_int(n, "transA", 0);
}

static bool operands(Model *m, Node *n, Product *p) {
  const bool conv = node_is(n, "Conv"), gemm = node_is(n, "Gemm");
  if (!(conv || (gemm && plain_gemm(n)) || node_is(n, "MatMul"))) return false;
  const bool turned = gemm && node_int(n, "transB", 0);
  Quantized x, w;
  if (!dequantized(n->in[0], -1, &x) || !value_is_byte(x.v) || x.v->cdata ||
      !dequantized(n->in[1], conv || turned ? 0 : n->in[1]->rank - 1, &w) || !value_is_byte(w.v))
    return false;
  if ((conv || turned) && !w.v->cdata) return false;
  if (!is_usual(x.scale->cdata) || !is_usual(w.scale->cdata)) return false;
  *p = (Product){.m = m,
                 .n = n,
                 .conv = conv,
                 .x = x.v,
                 .xz = x.zero,
                 .x_scale = x.scale,
                 .w = turned ? transposed(m, w.v->cdata) : w.v,
                 .wz = w.zero,
                 .w_scale = w.scale};
  return true;
}

/* ---- bias ---- */

static double element(const ConstData *c, int64_t i) {
  return const_float(c, c->count == 1 ? 0 : i);
}

/* The scales of a bias are those of the sum, to what rounding makes of a product. */
static bool same_scale(const Product *p, const ConstData *scale) {
  static const double rounding = 0x1p-22;
  const ConstData *sx = p->x_scale->cdata, *sw = p->w_scale->cdata;
  if (!sx || !sw) return false;
  const int64_t count = scale->count > sw->count ? scale->count : sw->count;
  if (sw->count > 1 && scale->count > 1 && sw->count != scale->count) return false;
  for (int64_t i = 0; i < count; i++) {
    const double want = element(sx, 0) * element(sw, i);
    if (!(fabs(element(scale, i) - want) <= rounding * want)) return false;
  }
  return true;
}

/* The bias in units of the sum; NULL: it has none, or one that is added as f32. */
static Value *integer_bias(const Product *p) {
  const Value *real = node_in(p->n, 2);
  const Node *n = real ? real->def : NULL;
  if (!is_dequantize(n) || n->in[0]->dtype != DT_I32 || !n->in[0]->cdata || n->in[0]->rank != 1)
    return NULL;
  if (!n->in[1]->cdata || !product_all_zero(node_in(n, 2)) || !same_scale(p, n->in[1]->cdata))
    return NULL;
  return n->in[0];
}

/* ---- the product ---- */

static Value *real_of(Build *b, const Product *p, Value *sum) {
  const int64_t axis = p->conv ? 1 : sum->rank - 1;
  const Attr attr = attr_int(b->m->arena, "axis", axis);
  Value *in[] = {sum, product_scale(b, p)};
  if (b->ok && sum->dtype == DT_F32) return build2(b, "Mul", sum, product_per_channel(b, p, in[1]));
  return b->ok ? build_op(b, "DequantizeLinear", 2, in, 1, &attr) : sum;
}

static bool rewrite_product(Dequantized *d, Node *n, Product *p, bool *keep) {
  PassCtx *c = d->f.c;
  p->bias = integer_bias(p);
  if (!product_plan(c, p) || !product_fits_i32(p, c->scratch)) return true;
  Build b = {.m = p->m, .g = n->graph, .loc = n->loc, .ok = true};
  Value *sum = product_sum(&b, c->target, p), *real = real_of(&b, p, sum);
  Value *bias = p->bias ? NULL : node_in(n, 2);
  if (bias && b.ok) real = build2(&b, "Add", real, product_per_channel(&b, p, bias));
  if (!b.ok) return false;
  if (!bias) vec_push(c->scratch, &d->sums, ((Sum){*p, sum, real}));
  *keep = false;
  return forward_set(&d->f, n, n->out[0], real);
}

/* ---- the quantization behind it ---- */

typedef struct Limits { /* of real numbers */
  double lo, hi;
} Limits;

static double within(double x, Limits l) { return fmin(fmax(x, l.lo), l.hi); }

static bool number_or(const Value *v, double *x) {
  if (v && (!v->cdata || v->cdata->count != 1)) return false;
  if (v) *x = const_float(v->cdata, 0);
  return !isnan(*x);
}

/* n as limits of its input, which those of its result are narrowed to. */
static bool limits_of(const Node *n, Limits *l) {
  Limits own = {-INFINITY, INFINITY};
  if (node_is(n, "Relu"))
    own.lo = 0;
  else if (!node_is(n, "Clip") || !number_or(node_in(n, 1), &own.lo) ||
           !number_or(node_in(n, 2), &own.hi))
    return false;
  if (own.lo > own.hi) return false;
  *l = (Limits){within(own.lo, *l), within(own.hi, *l)};
  return true;
}

static const Sum *find_sum(const Dequantized *d, const Value *real) {
  for (int i = d->sums.n - 1; i >= 0; i--)
    if (d->sums.data[i].real == real) return &d->sums.data[i];
  return NULL;
}

/* As QuantizeLinear computes it. */
static Value *quantized_limit(Build *b, double x, const Value *scale, const Value *zero) {
  const bool is_signed = zero->dtype == DT_I8;
  const double lo = is_signed ? -128 : 0;
  const float q = (float)x / (float)const_float(scale->cdata, 0);
  const Limits type = {lo, lo + 255};
  return build_scalar(b, zero->dtype,
                      within(rint((double)q) + (double)const_int(zero->cdata, 0), type));
}

/* QuantizeLinear of one scale to 8 bits. */
static bool plain_quantize(const Node *n) {
  return strcmp(n->op->name, "QuantizeLinear") == 0 && value_is_byte(n->out[0]) &&
         is_scalar(n->in[1]) && n->in[1]->dtype == DT_F32 && node_int(n, "block_size", 0) == 0 &&
         product_plain_scalar(node_in(n, 2)) && is_usual(n->in[1]->cdata);
}

static bool rewrite_quantize(Dequantized *d, Node *n, bool *keep) {
  Limits l = {-INFINITY, INFINITY};
  const Value *real = n->in[0];
  while (real->def && limits_of(real->def, &l)) real = real->def->in[0];
  const Sum *s = find_sum(d, real);
  const bool limited = isfinite(l.lo) || isfinite(l.hi);
  if (!s || (limited && !n->in[1]->cdata)) return true;
  Build b = {.m = d->f.c->model, .g = n->graph, .loc = n->loc, .ok = true};
  Value *zero = node_in(n, 2), *lo = NULL, *hi = NULL;
  if (!zero) zero = build_scalar(&b, n->out[0]->dtype, 0);
  if (limited && !zero->cdata) return true;
  if (limited) {
    lo = quantized_limit(&b, l.lo, n->in[1], zero);
    hi = quantized_limit(&b, l.hi, n->in[1], zero);
  }
  Value *y = product_requantize(&b, &s->p, s->sum, n->in[1], zero, lo, hi);
  if (!b.ok) return false;
  *keep = false;
  return forward_set(&d->f, n, n->out[0], y);
}

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  Dequantized *d = (Dequantized *)f; /* f is its first member */
  Product p;
  if (plain_quantize(n)) return rewrite_quantize(d, n, keep);
  return !operands(f->c->model, n, &p) || rewrite_product(d, n, &p, keep);
}

bool pass_dequantized_products(PassCtx *c) {
  Dequantized d = {.f = forward_new(c)};
  return forward_walk(&d.f, c->model->main, rewrite_one);
}
