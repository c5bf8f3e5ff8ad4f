/* Products of 8-bit integers: ConvInteger, QLinearConv, MatMulInteger and QLinearMatMul become
 * contractions of integers (integer_products.c) or, where the target has no instructions for these
 * or the form has no template, of floats, exactly (float_products.c). The quantization that follows
 * is the operator's own (Requantize). */
#include "passes/quant/exact_products.h"

#include <math.h>
#include <string.h>

#include "passes/build/kernel.h"

enum { NO = -1 };

typedef struct ProductForm { /* input numbers; NO: has none */
  const char *op;
  bool conv;
  int x, xz, w, wz, bias;
  int x_scale, w_scale, y_scale, yz; /* NO: the result is i32 */
} ProductForm;

static const ProductForm forms[] = {
    {"ConvInteger", true, 0, 2, 1, 3, NO, NO, NO, NO, NO},
    {"QLinearConv", true, 0, 2, 3, 5, 8, 1, 4, 6, 7},
    {"MatMulInteger", false, 0, 2, 1, 3, NO, NO, NO, NO, NO},
    {"QLinearMatMul", false, 0, 2, 3, 5, NO, 1, 4, 6, 7},
};

static Value *operand(const Node *n, int k) { return k == NO ? NULL : node_in(n, k); }

bool product_plain_scalar(const Value *v) { return !v || (v->rank <= 1 && value_one_element(v)); }

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

static bool zeros_fit(const Product *p) {
  if (!product_plain_scalar(p->xz)) return false;
  if (!p->w->cdata) return product_plain_scalar(p->wz);
  return !p->wz || p->wz->cdata;
}

/* ---- weights ---- */

static void weight_shape(Product *p) {
  const int64_t *dims = p->w->cdata->dims;
  const int rank = p->w->rank, axis = p->conv ? 1 : rank - 2;
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
  if (p->conv) return const_int(z, i / (p->axis * p->inner));
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

/* ---- the form ---- */

bool product_plan(PassCtx *c, Product *p) {
  if (!(p->conv ? conv_fits(p) : matmul_fits(p)) || !zeros_fit(p)) return false;
  if (p->w->cdata) {
    weight_shape(p);
    center_weights(p, c->scratch);
  }
  const bool floats = float_product_fits(p, c->scratch);
  p->integer = integer_product_fits(p) &&
               (!floats || p->step < p->axis || integer_product_pays(c->target, p));
  return p->integer || floats;
}

bool product_fits_i32(const Product *p, Arena *scratch) {
  double bias = 0;
  int64_t axis = p->axis;
  if (p->bias && !p->bias->cdata) return false;
  for (int64_t i = 0; p->bias && i < p->bias->cdata->count; i++)
    bias = fmax(bias, fabs((double)const_int(p->bias->cdata, i)));
  if (!p->w->cdata && !expr_is_const(p->w->dims[p->w->rank - 2], &axis)) return false;
  const double sum = p->centered ? float_product_largest(p, 0, axis, scratch)
                                 : (double)axis * product_reach(p->w, p->wz);
  return sum * product_reach(p->x, p->xz) + bias < 0x1p31;
}

static bool scales_fit(const Node *n, const ProductForm *f) {
  if (f->yz == NO) return true;
  const Value *sw = n->in[f->w_scale];
  return value_one_element(n->in[f->x_scale]) && value_one_element(n->in[f->y_scale]) &&
         value_one_element(n->in[f->yz]) && (sw->rank <= 1 || value_one_element(sw));
}

/* An operator of the table; a sum of integers without zero points is one already. */
static const ProductForm *operator_product(PassCtx *c, Node *n, Product *p) {
  const ProductForm *f = NULL;
  for (size_t i = 0; i < sizeof forms / sizeof *forms && !f; i++)
    if (node_is(n, forms[i].op)) f = &forms[i];
  if (!f || (f->conv && node_int(n, "pad_value", 0))) return NULL; /* such a sum was made here */
  *p = (Product){.m = c->model,
                 .n = n,
                 .conv = f->conv,
                 .x = n->in[f->x],
                 .xz = operand(n, f->xz),
                 .w = n->in[f->w],
                 .wz = operand(n, f->wz),
                 .bias = operand(n, f->bias),
                 .x_scale = operand(n, f->x_scale),
                 .w_scale = operand(n, f->w_scale)};
  if (!scales_fit(n, f) || !product_plan(c, p)) return NULL;
  const bool plain = p->integer && f->yz == NO && !p->xz && !p->wz;
  return !plain || integer_product_flips(c->target, p) ? f : NULL;
}

/* ---- building ---- */

Value *product_binary(Build *b, const char *op, Value *x, Value *y) {
  return b->ok ? build2(b, op, x, y) : x;
}

bool product_all_zero(const Value *zero) {
  return !zero || (zero->cdata && const_all(zero->cdata, 0));
}

static Value *reshape(Build *b, Value *v, int rank, const int64_t *dims) {
  return b->ok ? build_op(b, "Reshape", 2, (Value *[]){v, build_i64s(b, rank, dims)}, 0, NULL) : v;
}

/* One number per output channel, to be broadcast over the output. */
Value *product_per_channel(Build *b, const Product *p, Value *v) {
  int64_t dims[MAX_RANK];
  if (value_one_element(v)) return reshape(b, v, 0, NULL);
  if (!p->conv) return v;
  for (int d = 0; d < p->x->rank - 1; d++) dims[d] = d ? 1 : -1;
  return reshape(b, v, p->x->rank - 1, dims);
}

Value *product_sum(Build *b, const Target *t, const Product *p) {
  return p->integer ? integer_product(b, t, p) : float_product(b, p);
}

Value *product_scale(Build *b, const Product *p) {
  return product_binary(b, "Mul", build_cast(b, p->x_scale, DT_F32),
                        build_cast(b, p->w_scale, DT_F32));
}

Value *product_requantize(Build *b, const Product *p, Value *sum, Value *y_scale, Value *yz,
                          Value *lo, Value *hi) {
  Value *sx = product_per_channel(b, p, build_cast(b, p->x_scale, DT_F32));
  Value *sw = product_per_channel(b, p, build_cast(b, p->w_scale, DT_F32));
  Value *sy = product_per_channel(b, p, build_cast(b, y_scale, DT_F32));
  Value *in[] = {sum, product_binary(b, "Div", product_binary(b, "Mul", sx, sw), sy), yz, lo, hi};
  if (!b->ok) return sum;
  return build_node(b, "Requantize", "burin", lo ? 5 : 3, in, 1, 0, NULL)->out[0];
}

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  Product p;
  const ProductForm *form = operator_product(f->c, n, &p);
  if (!form) return true;
  Build b = {.m = p.m, .g = n->graph, .loc = n->loc, .ok = true};
  Value *sum = product_sum(&b, f->c->target, &p);
  if (form->yz == NO)
    sum = build_cast(&b, sum, DT_I32);
  else
    sum = product_requantize(&b, &p, sum, n->in[form->y_scale], n->in[form->yz], NULL, NULL);
  if (!b.ok) return false;
  *keep = false;
  return forward_set(f, n, n->out[0], sum);
}

bool pass_exact_products(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, rewrite_one);
}
