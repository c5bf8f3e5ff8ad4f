/* Elementwise operators that need more than scalar text: attributes with defaults, several types,
 * or any number of inputs. Plain ones are EW rows in math.def. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "ir/op/kit.h"

/* ---- unary ---- */
const Expr *elem_sign(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *x = kit_in(c, n, 0, idx, kit_compute(n)), *zero = kit_like(c, x, 0);
  const Expr *e = ex_select(p, ex_lt(p, zero, x), kit_like(c, x, 1), x);
  if (dtype_rows[x->dtype].cls != DC_UINT)
    e = ex_select(p, ex_lt(p, x, zero), kit_like(c, x, -1), e);
  return kit_ret(c, n, out, e);
}

bool infer_isinf(Model *m, Node *n) {
  int64_t v;
  return op_int_in(m, n, "detect_negative", 1, 0, 1, &v) &&
         op_int_in(m, n, "detect_positive", 1, 0, 1, &v) && infer_same_to_bool(m, n);
}

const Expr *elem_isinf(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *x = kit_in(c, n, 0, idx, kit_compute(n)), *e = ex_bool(p, false);
  if (node_int(n, "detect_positive", 1)) e = ex_eq(p, x, kit_like(c, x, INFINITY));
  if (node_int(n, "detect_negative", 1))
    e = ex_op(p, EX_or, e, ex_eq(p, x, kit_like(c, x, -INFINITY)), NULL);
  return e;
}

/* ---- binary and variadic ---- */
bool infer_mod(Model *m, Node *n) {
  int64_t fmod;
  return op_int_in(m, n, "fmod", 0, 0, 1, &fmod) && infer_broadcast(m, n);
}

/* Sign of the divisor for floats: the remainder, moved by the divisor where the signs differ. */
static const Expr *float_mod(ElemCtx *c, const Expr *a, const Expr *b) {
  ExprPool *p = c->pool;
  const Expr *r = ex_op(p, EX_rem, a, b, NULL), *zero = kit_like(c, r, 0);
  const Expr *differ = ex_op(p, EX_ne, ex_lt(p, r, zero), ex_lt(p, b, zero), NULL);
  const Expr *move = ex_and(p, ex_op(p, EX_ne, r, zero, NULL), differ);
  return ex_select(p, move, ex_add(p, r, b), r);
}

const Expr *elem_mod(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = kit_compute(n);
  const bool fmod = node_int(n, "fmod", 0);
  const Expr *a = kit_bcast(c, n, 0, idx, t), *b = kit_bcast(c, n, 1, idx, t);
  if (!fmod && dtype_is_float(t)) return kit_ret(c, n, out, float_mod(c, a, b));
  return kit_ret(c, n, out, ex_op(c->pool, fmod ? EX_rem : EX_floormod, a, b, NULL));
}

/* Output like input 0's type, shape by broadcasting. */
static bool out_broadcast(Model *m, Node *n, DType t) {
  const Expr *dims[MAX_RANK];
  int rank;
  return op_broadcast_all(m, n, &rank, dims) && op_out(m, n, 0, t, rank, dims);
}

bool infer_pow(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_NUMBER) && op_need_class(m, n, 1, CL_NUMBER) &&
         out_broadcast(m, n, n->in[0]->dtype);
}

/* x^v for exponents that have a short form, else NULL. A root of -inf is inf here, and of -0 it is
 * +0. */
static const Expr *pow_const(ElemCtx *c, const Expr *x, double v) {
  ExprPool *p = c->pool;
  if (v == 1) return x;
  if (v == 2) return ex_mul(p, x, x);
  if (v == 3) return ex_mul(p, ex_mul(p, x, x), x);
  if (!dtype_is_float((DType)x->dtype)) return NULL;
  if (v == -1) return ex_div(p, kit_like(c, x, 1), x);
  if (v != 0.5 && v != -0.5) return NULL;
  const Expr *low = ex_eq(p, x, kit_like(c, x, -INFINITY));
  const Expr *root = ex_select(p, low, kit_like(c, x, INFINITY),
                               ex_add(p, kit_op1(c, EX_sqrt, x), kit_like(c, x, 0)));
  return v > 0 ? root : ex_div(p, kit_like(c, x, 1), root);
}

/* Integers to integer powers: modulo 2^32 or 2^64, and so for every smaller type. What is less than
 * 0 as an exponent leaves of an unsigned base only 1. */
static const Expr *pow_int(ElemCtx *c, const Expr *x, const Expr *y) {
  ExprPool *p = c->pool;
  const DType tx = (DType)x->dtype, ty = (DType)y->dtype;
  const bool sx = dtype_rows[tx].cls == DC_SINT, sy = dtype_rows[ty].cls == DC_SINT;
  const bool wide = dtype_rows[tx].bits > 32 || dtype_rows[ty].bits > (sy ? 32 : 31);
  if (tx != DT_U64 && (ty != DT_U64 || !wide)) {
    const DType t = wide || tx == DT_U32 ? DT_I64 : DT_I32;
    return ex_cast(p, tx, ex_op(p, EX_pow, ex_cast(p, t, x), ex_cast(p, t, y), NULL));
  }
  const Expr *bits = sx ? ex_cast(p, DT_U64, ex_cast(p, DT_I64, x)) : ex_cast(p, DT_U64, x);
  const Expr *e = ex_op(p, EX_pow, bits, ex_cast(p, DT_U64, y), NULL), *one = kit_like(c, x, 1);
  e = ex_cast(p, tx, e);
  if (!sy) return e;
  const Expr *unit = ex_select(p, ex_eq(p, x, one), one, kit_like(c, x, 0));
  return ex_select(p, ex_lt(p, y, kit_like(c, y, 0)), unit, e);
}

/* Of other types together, in f64, as C's pow does. */
const Expr *elem_pow(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n), ty = dtype_compute(n->in[1]->dtype);
  const bool exact = dtype_rows[ty].bits <= 16 || ty == DT_F32;
  const DType ft = dtype_is_float(t) && exact ? t : DT_F64;
  const Expr *x = kit_bcast(c, n, 0, idx, t), *y = kit_bcast(c, n, 1, idx, ty);
  if (y->op == EX_CONST) {
    const double v = dtype_is_float((DType)y->dtype) ? y->k.f : (double)y->k.i;
    const bool narrow = !dtype_is_float(t) || v != 3; /* a cube is rounded twice */
    const Expr *e = pow_const(c, narrow ? x : ex_cast(p, ft, x), v);
    if (e) return kit_ret(c, n, out, e);
  }
  if (!dtype_is_float(t) && !dtype_is_float(ty)) return kit_ret(c, n, out, pow_int(c, x, y));
  const Expr *power = ex_cast(p, ft, y), *e = ex_op(p, EX_pow, ex_cast(p, ft, x), power, NULL);
  if (!dtype_is_float(t)) { /* an integer to a whole power is one, which its cast must not miss */
    const Expr *whole = ex_eq(p, ex_op(p, EX_floor, power, NULL, NULL), power);
    e = ex_select(p, whole, ex_op(p, EX_rint, e, NULL, NULL), e);
  }
  return kit_ret(c, n, out, e);
}

static const char *const shift_directions[] = {"LEFT", "RIGHT", NULL};

bool infer_bitshift(Model *m, Node *n) {
  const Attr *a;
  int v;
  return op_need_attr(m, n, "direction", AT_STRING, &a) &&
         op_choice(m, n, "direction", "LEFT", shift_directions, &v) && infer_broadcast_int(m, n);
}

/* Counts below 0 and from the width on leave what the sign extends to. */
const Expr *elem_bitshift(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const bool left = strcmp(node_string(n, "direction", "LEFT"), "LEFT") == 0;
  const Expr *x = kit_bcast(c, n, 0, idx, t), *s = kit_bcast(c, n, 1, idx, t),
             *zero = kit_like(c, x, 0);
  const int bits = dtype_rows[n->in[0]->dtype].bits;
  const bool is_signed = dtype_rows[n->in[0]->dtype].cls == DC_SINT;
  const Expr *fits = ex_lt(p, s, kit_like(c, s, bits)), *fill = zero;
  if (is_signed) fits = ex_and(p, fits, ex_le(p, zero, s));
  if (is_signed && !left) fill = ex_select(p, ex_lt(p, x, zero), kit_like(c, x, -1), zero);
  const Expr *e = ex_op(p, left ? EX_shl : EX_shr, x, ex_select(p, fits, s, zero), NULL);
  return kit_ret(c, n, out, ex_select(p, fits, e, fill));
}

/* Min, Max, Sum, Mean. */
const Expr *elem_fold(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const bool mean = kit_is(n, "Mean");
  const ExprOp op = kit_is(n, "Min") ? EX_min : kit_is(n, "Max") ? EX_max : EX_add;
  const DType t = kit_compute(n);
  const Expr *e = kit_bcast(c, n, 0, idx, t);
  for (int k = 1; k < n->n_in; k++) e = ex_op(c->pool, op, e, kit_bcast(c, n, k, idx, t), NULL);
  if (mean) e = ex_div(c->pool, e, kit_like(c, e, n->n_in));
  return kit_ret(c, n, out, e);
}

bool infer_where(Model *m, Node *n) {
  return op_need_dtype(m, n, 0, DT_BOOL) && op_same_dtype(m, n, 2, 1) &&
         out_broadcast(m, n, n->in[1]->dtype);
}

const Expr *elem_where(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = n->in[1]->dtype;
  return ex_select(c->pool, kit_bcast(c, n, 0, idx, DT_BOOL), kit_bcast(c, n, 1, idx, t),
                   kit_bcast(c, n, 2, idx, t));
}

bool infer_clip(Model *m, Node *n) {
  for (int k = 1; k < n->n_in; k++) {
    const char *what = k == 1 ? "min" : "max";
    if (!op_same_dtype(m, n, k, 0) || !kit_need_scalar(m, n, k, what)) return false;
  }
  return infer_same_number(m, n);
}

/* An absent bound is the largest finite number of the type. */
static const Expr *clip_bound(ElemCtx *c, const Node *n, int k, DType t) {
  static const struct {
    DType t;
    double max;
  } rows[] = {{DT_F16, 65504}, {DT_BF16, 0x1.fep127}, {DT_F32, FLT_MAX}, {DT_F64, DBL_MAX}};
  if (node_in(n, k)) return kit_scalar(c, n, k, t);
  for (int i = 0; i < 4; i++)
    if (rows[i].t == n->in[0]->dtype)
      return ex_float(c->pool, t, k == 1 ? -rows[i].max : rows[i].max);
  return NULL;
}

const Expr *elem_clip(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = kit_compute(n);
  const Expr *e = kit_in(c, n, 0, idx, t), *lo = clip_bound(c, n, 1, t),
             *hi = clip_bound(c, n, 2, t);
  if (lo) e = ex_max(c->pool, e, lo);
  if (hi) e = ex_min(c->pool, e, hi);
  return kit_ret(c, n, out, e);
}

/* ---- activations ---- */
bool infer_act(Model *m, Node *n) {
  double v;
  return op_float(m, n, "alpha", 0, &v) && op_float(m, n, "beta", 0, &v) &&
         op_float(m, n, "gamma", 0, &v) && infer_same_float(m, n);
}

/* 1 + text of every activation: x in the compute type, and its float attributes. */
typedef struct Act {
  const Expr *x, *zero;
  double alpha, beta;
} Act;

static Act act_begin(ElemCtx *c, const Node *n, const Expr *const *idx, double alpha) {
  Act a = {.alpha = node_float(n, "alpha", alpha)};
  a.x = kit_in(c, n, 0, idx, kit_compute(n));
  a.zero = kit_like(c, a.x, 0);
  return a;
}

/* v * e */
static const Expr *scale(ElemCtx *c, double v, const Expr *e) {
  return v == 1 ? e : ex_mul(c->pool, kit_like(c, e, v), e);
}

const Expr *elem_leaky_relu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Act a = act_begin(c, n, idx, 0.01);
  return kit_ret(c, n, out,
                 ex_select(c->pool, ex_lt(c->pool, a.x, a.zero), scale(c, a.alpha, a.x), a.x));
}

/* exp(e) - 1 */
static const Expr *exp_minus_1(ElemCtx *c, const Expr *e) {
  return ex_sub(c->pool, kit_op1(c, EX_exp, e), kit_like(c, e, 1));
}

const Expr *elem_elu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Act a = act_begin(c, n, idx, 1);
  const Expr *neg = scale(c, a.alpha, exp_minus_1(c, ex_min(c->pool, a.x, a.zero)));
  return kit_ret(c, n, out, ex_select(c->pool, ex_lt(c->pool, a.x, a.zero), neg, a.x));
}

const Expr *elem_selu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Act a = act_begin(c, n, idx, 1.67326319217681884765625);
  const double gamma = node_float(n, "gamma", 1.05070102214813232421875);
  const Expr *neg = scale(c, a.alpha, exp_minus_1(c, ex_min(p, a.x, a.zero)));
  return kit_ret(c, n, out, scale(c, gamma, ex_select(p, ex_lt(p, a.zero, a.x), a.x, neg)));
}

const Expr *elem_celu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Act a = act_begin(c, n, idx, 1);
  const Expr *q = ex_div(p, a.x, kit_like(c, a.x, a.alpha));
  const Expr *neg = ex_min(p, a.zero, scale(c, a.alpha, exp_minus_1(c, q)));
  return kit_ret(c, n, out, ex_add(p, ex_max(p, a.x, a.zero), neg));
}

const Expr *elem_thresholded_relu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Act a = act_begin(c, n, idx, 1);
  return kit_ret(c, n, out, ex_select(p, ex_lt(p, kit_like(c, a.x, a.alpha), a.x), a.x, a.zero));
}

const Expr *elem_hard_sigmoid(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Act a = act_begin(c, n, idx, 0.2);
  const Expr *e = ex_add(p, scale(c, a.alpha, a.x), kit_like(c, a.x, node_float(n, "beta", 0.5)));
  return kit_ret(c, n, out, ex_max(p, a.zero, ex_min(p, kit_like(c, e, 1), e)));
}

const Expr *elem_swish(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Act a = act_begin(c, n, idx, 1);
  return kit_ret(c, n, out, ex_mul(c->pool, a.x, kit_op1(c, EX_sigmoid, scale(c, a.alpha, a.x))));
}

const Expr *elem_quick_gelu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Act a = act_begin(c, n, idx, 1.702);
  return kit_ret(c, n, out, ex_mul(c->pool, a.x, kit_op1(c, EX_sigmoid, scale(c, a.alpha, a.x))));
}

static const Expr *gelu_erf(ElemCtx *c, const Expr *x) {
  ExprPool *p = c->pool;
  const Expr *e = kit_op1(c, EX_erf, scale(c, 0.70710678118654752440, x));
  return ex_mul(p, scale(c, 0.5, x), ex_add(p, kit_like(c, x, 1), e));
}

static const Expr *gelu_tanh(ElemCtx *c, const Expr *x) {
  ExprPool *p = c->pool;
  const Expr *cube = ex_mul(p, ex_mul(p, x, x), x);
  const Expr *u = ex_add(p, x, scale(c, 0.044715, cube));
  const Expr *t = kit_op1(c, EX_tanh, scale(c, 0.79788456080286535588, u));
  return ex_mul(p, scale(c, 0.5, x), ex_add(p, kit_like(c, x, 1), t));
}

static const char *const gelu_forms[] = {"none", "tanh", NULL};

bool infer_gelu(Model *m, Node *n) {
  int v;
  return op_choice(m, n, "approximate", "none", gelu_forms, &v) && infer_same_float(m, n);
}

const Expr *elem_gelu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Expr *x = kit_in(c, n, 0, idx, kit_compute(n));
  const bool fast = strcmp(node_string(n, "approximate", "none"), "tanh") == 0;
  return kit_ret(c, n, out, fast ? gelu_tanh(c, x) : gelu_erf(c, x));
}

/* FastGelu, BiasGelu: gelu(x + bias), bias over the last dim. */
bool infer_bias_gelu(Model *m, Node *n) {
  const Value *x = n->in[0];
  if (!op_need_rank(m, n, 0, 1, MAX_RANK) || !op_same_dtype(m, n, 1, 0)) return false;
  return kit_need_vector(m, n, 1, x->dims[x->rank - 1], "bias") && infer_same_float(m, n);
}

const Expr *elem_bias_gelu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = kit_compute(n);
  const Expr *x = kit_in(c, n, 0, idx, t);
  if (node_in(n, 1)) x = ex_add(c->pool, x, kit_in1(c, n, 1, idx[n->in[0]->rank - 1], t));
  return kit_ret(c, n, out, kit_is(n, "FastGelu") ? gelu_tanh(c, x) : gelu_erf(c, x));
}

bool infer_shrink(Model *m, Node *n) {
  double v;
  return op_float(m, n, "lambd", 0.5, &v) && op_float(m, n, "bias", 0, &v) &&
         infer_same_number(m, n);
}

const Expr *elem_shrink(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = dtype_is_float(kit_compute(n)) ? kit_compute(n) : DT_F64;
  const double lambd = node_float(n, "lambd", 0.5), bias = node_float(n, "bias", 0);
  const Expr *x = kit_in(c, n, 0, idx, t), *b = kit_like(c, x, bias);
  const Expr *high =
      ex_select(p, ex_lt(p, kit_like(c, x, lambd), x), ex_sub(p, x, b), kit_like(c, x, 0));
  return kit_ret(c, n, out,
                 ex_select(p, ex_lt(p, x, kit_like(c, x, -lambd)), ex_add(p, x, b), high));
}

bool infer_prelu(Model *m, Node *n) {
  const Value *x = n->in[0];
  return op_same_dtype(m, n, 1, 0) && op_yields_to(m, n, 1, x->rank, x->dims) &&
         infer_same_number(m, n);
}

const Expr *elem_prelu(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const Expr *x = kit_in(c, n, 0, idx, t), *slope = kit_bcast(c, n, 1, idx, t);
  return kit_ret(c, n, out, ex_select(p, ex_lt(p, x, kit_like(c, x, 0)), ex_mul(p, slope, x), x));
}

/* ---- Map: the elementwise text of attribute expr, of type `to` ---- */
static const Expr *map_hole(ElemCtx *c, const Value *v, const Expr *const *idx, const Expr *guard) {
  return ex_hole(c->pool, v->dtype, 0);
}

static const Expr *map_parse(ElemCtx *c, const Node *n, const Expr *const *idx) {
  const char *error;
  const Expr *e = op_elem_text(c, n, idx, node_string(n, "expr", ""), true, NULL, &error);
  if (!e) op_error(c->model, n, ERR_ATTR_VALUE, "attribute expr: %s", error);
  return e;
}

bool infer_map(Model *m, Node *n) {
  const Attr *a;
  const Expr *idx[MAX_RANK];
  DType t;
  if (!op_need_attr(m, n, "expr", AT_STRING, &a) || !op_need_attr(m, n, "to", AT_INT, &a) ||
      !op_dtype(m, n, "to", DT_NONE, &t))
    return false;
  for (int k = 0; k < n->n_in; k++)
    if (!op_need_class(m, n, k, CL_NUMBER | CL_BOOL)) return false;
  if (!out_broadcast(m, n, t)) return false;
  for (int d = 0; d < n->out[0]->rank; d++) idx[d] = ex_i64(m->pool, 0);
  ElemCtx c = {.pool = m->pool, .model = m, .read = map_hole};
  const Expr *e = map_parse(&c, n, idx);
  if (!e) return false;
  return !(e->flags & EXF_SYM) ||
         op_error(m, n, ERR_ATTR_VALUE, "attribute expr: a size is no part of a Map");
}

const Expr *elem_map(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const Expr *e = map_parse(c, n, idx);
  return e ? ex_cast(c->pool, n->out[out]->dtype, e) : NULL;
}
