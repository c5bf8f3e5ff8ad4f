/* Products of 8-bit integers: ConvInteger, QLinearConv, MatMulInteger and QLinearMatMul become
 * contractions of integers (integer_products.c) or, where the target has no instructions for these
 * or the form has no template, Conv and MatMul over f32 operands less their zero points. Exact:
 * operands are small integers, and a rewrite happens only where no partial sum,
 * in whatever order, can leave what f32 holds exactly. Long contractions are cut into parts that
 * hold, added up in i32. The quantization that follows is the operator's own (Requantize). */
#include "passes/quant/exact_products.h"
#include "passes/build/kernel.h"

#include <math.h>
#include <string.h>

enum { MAX_PARTS = 16, MAX_ATTRS = 16, NO = -1 };
static const double exact_limit = 1 << 24; /* integers up to here are f32 values */

static const ProductForm forms[] = {
    {"ConvInteger", true, 0, 2, 1, 3, NO, NO, NO, NO, NO},
    {"QLinearConv", true, 0, 2, 3, 5, 8, 1, 4, 6, 7},
    {"MatMulInteger", false, 0, 2, 1, 3, NO, NO, NO, NO, NO},
    {"QLinearMatMul", false, 0, 2, 3, 5, NO, 1, 4, 6, 7},
};

static Value *operand(const Node *n, int k) { return k == NO ? NULL : node_in(n, k); }

static bool one_element(const Value *v) {
  for (int d = 0; d < v->rank; d++)
    if (!expr_is_i64(v->dims[d], 1)) return false;
  return true;
}

static bool plain_scalar(const Value *v) { return !v || (v->rank <= 1 && one_element(v)); }

/* Largest |v - z| of an 8-bit value and its zero point. */
static double reach(const Value *v, const Value *zero) {
  const double lo = v->dtype == DT_I8 ? -128 : 0, hi = lo + 255;
  if (zero && !zero->cdata) return 255;
  const double z = zero ? (double)const_int(zero->cdata, 0) : 0;
  return fmax(hi - z, z - lo);
}

/* ---- which nodes ---- */

static bool conv_fits(const Product *p) {
  ConvInfo conv;
  return conv_info(p->n, &conv) && conv_has_template(&conv);
}

static bool matmul_fits(const Product *p) {
  MatMulInfo product;
  int64_t k;
  if (!matmul_info(p->n, &product) || product.b_vec || (expr_is_const(product.k, &k) && k < 1))
    return false;
  return !(expr_is_const(product.n, &k) && k < 2);
}

static bool scales_fit(const Product *p) {
  if (p->f->yz == NO) return true;
  const Value *sw = p->n->in[p->f->w_scale];
  return one_element(p->n->in[p->f->x_scale]) && one_element(p->n->in[p->f->y_scale]) &&
         one_element(p->n->in[p->f->yz]) && (sw->rank <= 1 || one_element(sw));
}

static bool zeros_fit(const Product *p) {
  if (!plain_scalar(p->xz)) return false;
  if (!p->w->cdata) return plain_scalar(p->wz);
  return !p->wz || p->wz->cdata;
}

/* ---- weights ---- */

static void weight_shape(Product *p) {
  const int64_t *dims = p->w->cdata->dims;
  const int rank = p->w->rank, axis = p->f->conv ? 1 : rank - 2;
  p->outer = p->inner = 1;
  p->axis = dims[axis];
  for (int d = 0; d < rank; d++)
    if (d != axis) *(d < axis ? &p->outer : &p->inner) *= dims[d];
}

/* Zero point of weight i: one for all, one per output channel or column, or broadcast. */
static int64_t zero_at(const Product *p, int64_t i) {
  const ConstData *z = p->wz ? p->wz->cdata : NULL;
  const int64_t *dims = p->w->cdata->dims;
  if (!z || z->count == 1) return z ? const_int(z, 0) : 0;
  if (p->f->conv) return const_int(z, i / (p->axis * p->inner));
  int64_t at = 0, stride = 1;
  for (int d = p->w->rank - 1, e = z->rank - 1; d >= 0 && e >= 0; i /= dims[d], d--, e--) {
    if (z->dims[e] != 1) at += i % dims[d] * stride;
    stride *= z->dims[e];
  }
  return const_int(z, at);
}

static void center_weights(Product *p, Arena *a) {
  const int64_t count = p->w->cdata->count;
  p->centered = ARENA_ARRAY(a, float, count + 1);
  for (int64_t i = 0; i < count; i++)
    p->centered[i] = (float)(const_int(p->w->cdata, i) - zero_at(p, i));
}

/* The largest sum of |w| over rows [from, to) of the axis: of an output channel with all its taps,
 * or of a column. sums: `inner` of them. */
static double largest_sum(const Product *p, int64_t from, int64_t to, double *sums) {
  const int64_t bins = p->f->conv ? 1 : p->inner;
  double worst = 0;
  for (int64_t o = 0; o < p->outer; o++) {
    memset(sums, 0, sizeof *sums * (size_t)bins);
    for (int64_t k = from; k < to; k++)
      for (int64_t i = 0; i < p->inner; i++)
        sums[bins == 1 ? 0 : i] += fabs(p->centered[(o * p->axis + k) * p->inner + i]);
    for (int64_t i = 0; i < bins; i++) worst = fmax(worst, sums[i]);
  }
  return worst;
}

/* The smallest number of parts that are exact; false when there is none. */
static bool choose_parts(Product *p, Arena *scratch) {
  const bool cut = !p->f->conv || node_int(p->n, "group", 1) == 1;
  double *sums = p->centered ? ARENA_ARRAY(scratch, double, p->inner + 1) : NULL;
  for (int64_t parts = 1; parts <= (cut ? MAX_PARTS : 1) && parts <= p->axis; parts++) {
    p->step = (p->axis + parts - 1) / parts;
    p->worst = 0;
    for (int64_t k = 0; k < p->axis; k += p->step) {
      const int64_t to = k + p->step < p->axis ? k + p->step : p->axis;
      const double sum =
          p->centered ? largest_sum(p, k, to, sums) : (double)(to - k) * reach(p->w, p->wz);
      p->worst = fmax(p->worst, sum * p->x_max);
    }
    if (p->worst <= exact_limit) return true;
  }
  return false;
}

/* Is the sum exact as a sum of floats, or of few parts? */
static bool float_product_fits(Product *p, Arena *scratch) {
  p->x_max = reach(p->x, p->xz);
  if (!p->w->cdata && (p->f->conv || !expr_is_const(p->w->dims[p->w->rank - 2], &p->axis)))
    return false;
  return choose_parts(p, scratch);
}

static bool product_of(PassCtx *c, Node *n, Product *p) {
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (!node_is(n, forms[i].op)) continue;
    const ProductForm *f = &forms[i];
    *p = (Product){.m = c->model,
                   .n = n,
                   .f = f,
                   .x = n->in[f->x],
                   .xz = operand(n, f->xz),
                   .w = n->in[f->w],
                   .wz = operand(n, f->wz)};
    if (!(f->conv ? conv_fits(p) : matmul_fits(p)) || !scales_fit(p) || !zeros_fit(p)) return false;
    if (p->w->cdata) {
      weight_shape(p);
      center_weights(p, c->scratch);
    }
    const bool floats = float_product_fits(p, c->scratch);
    p->integer = integer_product_fits(p) &&
                 (!floats || p->step < p->axis || integer_product_pays(c->target));
    if (!p->integer) return floats;
    return f->yz != NO || p->xz || p->wz || integer_product_flips(c->target, p);
  }
  return false;
}

/* ---- building ---- */

Value *product_cast(Build *b, DType t, Value *v) {
  if (!b->ok || v->dtype == t) return v;
  const Attr to = attr_int(b->m->arena, "to", dtype_rows[t].onnx);
  return build_op(b, "Cast", 1, &v, 1, &to);
}

static Value *reshape(Build *b, Value *v, int rank, const int64_t *dims) {
  return b->ok ? build_op(b, "Reshape", 2, (Value *[]){v, build_i64s(b, rank, dims)}, 0, NULL) : v;
}

static Value *binary(Build *b, const char *op, Value *x, Value *y) {
  return b->ok ? build2(b, op, x, y) : x;
}

/* An 8-bit value less its zero point, in f32. */
static Value *center(Build *b, Value *v, Value *zero) {
  v = product_cast(b, DT_F32, v);
  if (!zero) return v;
  if (!zero->cdata) return binary(b, "Sub", v, product_cast(b, DT_F32, zero));
  const int64_t z = const_int(zero->cdata, 0);
  return z ? binary(b, "Sub", v, build_scalar(b, DT_F32, (double)z)) : v;
}

static Value *cut(Build *b, Value *v, int axis, int64_t from, int64_t to) {
  const int64_t at = axis;
  Value *in[] = {v, build_i64s(b, 1, &from), build_i64s(b, 1, &to), build_i64s(b, 1, &at)};
  return b->ok ? build_op(b, "Slice", 4, in, 0, NULL) : v;
}

/* Rows [from, to) of the centered weights as a constant. */
static Value *weight_part(const Product *p, int64_t from, int64_t to) {
  const ConstData *w = p->w->cdata;
  const int64_t rows = to - from, run = rows * p->inner;
  int64_t dims[MAX_RANK];
  memcpy(dims, w->dims, sizeof *dims * (size_t)w->rank);
  dims[p->f->conv ? 1 : w->rank - 2] = rows;
  float *data = arena_alloc_array(p->m->arena, (size_t)(p->outer * run + 1), sizeof *data);
  for (int64_t o = 0; o < p->outer; o++)
    memcpy(data + o * run, p->centered + (o * p->axis + from) * p->inner,
           sizeof *data * (size_t)run);
  return value_const(p->m, const_new(p->m, w->name, DT_F32, w->rank, dims, data));
}

/* The bias as f32 where sums stay exact with it, else NULL. */
static Value *float_bias(const Product *p) {
  const Value *v = operand(p->n, p->f->bias);
  const ConstData *bias = v ? v->cdata : NULL;
  if (!bias || p->step < p->axis) return NULL;
  float *data = ARENA_ARRAY(p->m->arena, float, bias->count + 1);
  for (int64_t i = 0; i < bias->count; i++) {
    const double k = (double)const_int(bias, i);
    if (fabs(k) + p->worst > exact_limit) return NULL;
    data[i] = (float)k;
  }
  return value_const(p->m, const_new(p->m, bias->name, DT_F32, bias->rank, bias->dims, data));
}

/* One part of the contraction: f32 with integer values. */
static Value *part(Build *b, const Product *p, Value *x, Value *w, Value *bias) {
  Attr attrs[MAX_ATTRS + 1];
  int count = 0;
  if (!b->ok) return x;
  if (!p->f->conv) return build2(b, "MatMul", x, w);
  for (int i = 0; i < p->n->n_attrs && count < MAX_ATTRS; i++) attrs[count++] = p->n->attrs[i];
  attrs[count++] = attr_int(b->m->arena, "exact", 1); /* no algorithm that rounds on its way */
  return build_op(b, "Conv", bias ? 3 : 2, (Value *[]){x, w, bias}, count, attrs);
}

/* All parts: f32 when there is one, else i32. */
static Value *contraction(Build *b, const Product *p, Value *bias) {
  Value *x = center(b, p->x, p->xz), *w = p->centered ? NULL : center(b, p->w, p->wz), *sum = NULL;
  const bool whole = p->step >= p->axis;
  for (int64_t k = 0; k < p->axis && b->ok; k += p->step) {
    const int64_t to = k + p->step < p->axis ? k + p->step : p->axis;
    Value *xs = whole ? x : cut(b, x, p->f->conv ? 1 : x->rank - 1, k, to);
    Value *ws = p->centered ? weight_part(p, k, to) : whole ? w : cut(b, w, w->rank - 2, k, to);
    Value *v = part(b, p, xs, ws, bias);
    if (!whole) v = product_cast(b, DT_I32, v);
    sum = sum ? binary(b, "Add", sum, v) : v;
  }
  return sum;
}

/* One number per output channel, to be broadcast over the output. */
Value *product_per_channel(Build *b, const Product *p, Value *v) {
  int64_t dims[MAX_RANK];
  if (one_element(v)) return reshape(b, v, 0, NULL);
  if (!p->f->conv) return v;
  for (int d = 0; d < p->x->rank - 1; d++) dims[d] = d ? 1 : -1;
  return reshape(b, v, p->x->rank - 1, dims);
}

/* The operator's scale: x_scale * w_scale / y_scale, in f32 and in this order. */
static Value *requantize(Build *b, const Product *p, Value *acc) {
  Value **in = p->n->in;
  Value *sx = product_per_channel(b, p, product_cast(b, DT_F32, in[p->f->x_scale]));
  Value *sw = product_per_channel(b, p, product_cast(b, DT_F32, in[p->f->w_scale]));
  Value *sy = product_per_channel(b, p, product_cast(b, DT_F32, in[p->f->y_scale]));
  Value *scale = binary(b, "Div", binary(b, "Mul", sx, sw), sy);
  if (!b->ok) return acc;
  return build_node(b, "Requantize", "burin", 3, (Value *[]){acc, scale, in[p->f->yz]}, 1, 0, NULL)
      ->out[0];
}

/* With its bias, in f32 or, where that is not exact, in i32. */
static Value *float_product(Build *b, const Product *p) {
  Value *bias = operand(p->n, p->f->bias), *in_float = float_bias(p);
  Value *sum = contraction(b, p, in_float);
  if (!bias || in_float) return sum;
  return binary(b, "Add", product_cast(b, DT_I32, sum), product_per_channel(b, p, bias));
}

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  Product p;
  if (!product_of(f->c, n, &p)) return true;
  Build b = {.m = p.m, .g = n->graph, .loc = n->loc, .ok = true};
  Value *acc = p.integer ? integer_product(&b, f->c->target, &p) : float_product(&b, &p);
  acc = p.f->yz == NO ? product_cast(&b, DT_I32, acc) : requantize(&b, &p, acc);
  if (!b.ok) return false;
  *keep = false;
  return forward_set(f, n, n->out[0], acc);
}

bool pass_exact_products(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, rewrite_one);
}
