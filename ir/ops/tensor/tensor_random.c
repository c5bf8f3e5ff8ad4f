/* Random numbers: a hash of the seed and the element's position, so that results do not depend on
 * threads and are the same on every run. RandomUniform, RandomNormal, their Like forms, Bernoulli,
 * Multinomial. */
#include <math.h>
#include <string.h>
#include "ir/op/tensor_util.h"

static bool random_type(Model *m, Node *n, DType def, DType *t) {
  return op_dtype(m, n, "dtype", def, t) &&
         (*t != DT_STR || op_error(m, n, ERR_ATTR_VALUE, "there are no random strings"));
}

bool infer_random(Model *m, Node *n) {
  const int64_t *v;
  int count;
  DType t;
  const Expr *dims[MAX_RANK];
  if (!op_ints(m, n, "shape", &v, &count) || !random_type(m, n, DT_F32, &t)) return false;
  if (count < 0) return op_error(m, n, ERR_ATTR_MISSING, "shape is missing");
  if (count > MAX_RANK) return op_error(m, n, ERR_RANK, "rank %d is above %d", count, MAX_RANK);
  for (int i = 0; i < count; i++) {
    if (v[i] < 0) return op_error(m, n, ERR_ATTR_VALUE, "shape holds %lld", (long long)v[i]);
    dims[i] = ex_i64(m->pool, v[i]);
  }
  return op_out(m, n, 0, t, count, dims);
}

bool infer_random_like(Model *m, Node *n) {
  DType t;
  return random_type(m, n, n->in[0]->dtype, &t) && op_out_like(m, n, 0, t, n->in[0]);
}

/* A bijection of 32 bits that leaves none as it was (lowbias32 of C. Wellons, with an added constant). */
static const Expr *mix(ExprPool *p, const Expr *x) {
  static const uint32_t mul[2] = {0x7feb352du, 0x846ca68bu};
  static const int shift[3] = {16, 15, 16};
  for (int i = 0; i < 3; i++) {
    x = ex_op(p, EX_xor, x, ex_op(p, EX_shr, x, ex_int(p, DT_U32, shift[i]), NULL), NULL);
    if (i < 2)
      x = ex_mul(p, ex_add(p, x, ex_int(p, DT_U32, 0x9e3779b9u)), ex_int(p, DT_U32, mul[i]));
  }
  return x;
}

/* 32 well-mixed bits of (seed, stream, position); and of a number that only the run knows, unless it
 * is NULL. */
static const Expr *hash(ExprPool *p, const Node *n, uint32_t stream, const Expr *at,
                        const Expr *run) {
  const Attr *a = node_attr(n, "seed");
  const double seed = a && a->kind == AT_FLOAT ? a->floats[0]
                      : a && a->kind == AT_INT ? (double)a->ints[0]
                                               : n->out[0]->id * 0.6180339887;
  uint64_t bits;
  memcpy(&bits, &seed, sizeof bits);
  const uint32_t key = (uint32_t)(bits ^ bits >> 32) * 0x9e3779b1u + stream * 0x85ebca77u;
  const Expr *k = ex_int(p, DT_U32, key);
  if (run) k = mix(p, ex_op(p, EX_xor, ex_cast(p, DT_U32, run), k, NULL));
  return mix(p, ex_op(p, EX_xor, ex_cast(p, DT_U32, at), k, NULL));
}

/* In (0, 1): 24 bits and a half. */
static const Expr *uniform_in(ExprPool *p, const Node *n, uint32_t stream, const Expr *at,
                              const Expr *run) {
  const Expr *top = ex_op(p, EX_shr, hash(p, n, stream, at, run), ex_int(p, DT_U32, 8), NULL);
  const Expr *f = ex_add(p, ex_cast(p, DT_F32, ex_cast(p, DT_I32, top)), tu_f32(p, 0.5));
  return ex_mul(p, f, tu_f32(p, 1.0 / 16777216));
}

static const Expr *uniform(ExprPool *p, const Node *n, uint32_t stream, const Expr *at) {
  return uniform_in(p, n, stream, at, NULL);
}

static const Expr *position(ExprPool *p, const Node *n, const Expr *const *idx) {
  const Value *o = n->out[0];
  return index_flatten(p, o->rank, (const Expr *const *)o->dims, idx);
}

const Expr *elem_random_uniform(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const double low = node_float(n, "low", 0), high = node_float(n, "high", 1);
  const Expr *u = uniform(p, n, 0, position(p, n, idx));
  return ex_cast(p, n->out[0]->dtype,
                 ex_add(p, ex_mul(p, u, tu_f32(p, high - low)), tu_f32(p, low)));
}

/* Box and Muller. */
const Expr *elem_random_normal(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *at = position(p, n, idx), *u = uniform(p, n, 1, at), *v = uniform(p, n, 2, at);
  const Expr *r =
      ex_op(p, EX_sqrt, ex_mul(p, tu_f32(p, -2), ex_op(p, EX_log, u, NULL, NULL)), NULL, NULL);
  const Expr *z =
      ex_mul(p, r, ex_op(p, EX_cos, ex_mul(p, v, tu_f32(p, 6.283185307179586)), NULL, NULL));
  const Expr *e = ex_add(p, ex_mul(p, z, tu_f32(p, node_float(n, "scale", 1))),
                         tu_f32(p, node_float(n, "mean", 0)));
  return ex_cast(p, n->out[0]->dtype, e);
}

const Expr *elem_bernoulli(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *u = uniform(p, n, 3, position(p, n, idx)),
             *chance = ex_cast(p, DT_F32, elem_in(c, n, 0, idx));
  return ex_cast(p, n->out[0]->dtype, ex_lt(p, u, chance));
}

/* Dropout in training mode: x, ratio, training_mode, the number of the run where masks shall differ, and the place of
 * the first element where x is a part of the tensor. */
bool infer_training_dropout(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_FLOAT) && op_need_class(m, n, 1, CL_FLOAT) &&
         op_need_rank(m, n, 1, 0, 0) && op_need_dtype(m, n, 2, DT_BOOL) &&
         op_need_rank(m, n, 2, 0, 0) && op_need_dtype(m, n, 3, DT_I64) &&
         op_need_rank(m, n, 3, 0, 0) && op_need_dtype(m, n, 4, DT_I64) &&
         op_need_rank(m, n, 4, 0, 0) && op_out_like(m, n, 0, n->in[0]->dtype, n->in[0]) &&
         op_out_like(m, n, 1, DT_BOOL, n->in[0]);
}

const Expr *elem_training_dropout(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *ratio = node_in(n, 1) ? ex_cast(p, DT_F32, elem_in(c, n, 1, NULL)) : tu_f32(p, 0.5);
  const Expr *trains = elem_in(c, n, 2, NULL);
  const Expr *run = node_in(n, 3) ? elem_in(c, n, 3, NULL) : NULL, *at = position(p, n, idx);
  if (node_in(n, 4)) at = ex_add(p, elem_in(c, n, 4, NULL), at);
  const Expr *keep = ex_le(p, ratio, uniform_in(p, n, 5, at, run));
  keep = ex_op(p, EX_or, keep, ex_op(p, EX_not, trains, NULL, NULL), NULL);
  if (out) return keep;
  const Expr *x = elem_in(c, n, 0, idx), *wide = ex_cast(p, DT_F32, x);
  if (n->in[0]->dtype == DT_F64) wide = x, ratio = ex_cast(p, DT_F64, ratio);
  const Expr *one = ex_cast(p, (DType)wide->dtype, tu_f32(p, 1)),
             *scaled = ex_div(p, wide, ex_sub(p, one, ratio));
  scaled = ex_select(p, keep, scaled, ex_cast(p, (DType)wide->dtype, tu_f32(p, 0)));
  return ex_cast(p, n->out[0]->dtype, ex_select(p, trains, scaled, wide));
}

bool infer_multinomial(Model *m, Node *n) {
  DType t;
  int64_t count;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 2, 2) ||
      !random_type(m, n, DT_I32, &t) || !op_int_in(m, n, "sample_size", 1, 1, INT32_MAX, &count))
    return false;
  if (t != DT_I32 && t != DT_I64) return op_error(m, n, ERR_ATTR_VALUE, "dtype %s", dtype_text(t));
  const Expr *dims[2] = {n->in[0]->dims[0], ex_i64(m->pool, count)};
  return op_out(m, n, 0, t, 2, dims);
}

/* The class with the largest logit plus Gumbel noise: count of classes before the winner. */
const Expr *elem_multinomial(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *classes = n->in[0]->dims[1], *at = position(p, n, idx), *score[2], *k[2];
  for (int i = 0; i < 2; i++) {
    k[i] = ex_var(p, "k", classes);
    const Expr *u = uniform(p, n, 4, ex_add(p, ex_mul(p, at, classes), k[i]));
    const Expr *noise =
        ex_op(p, EX_log, ex_op(p, EX_neg, ex_op(p, EX_log, u, NULL, NULL), NULL, NULL), NULL, NULL);
    score[i] =
        ex_sub(p, ex_cast(p, DT_F32, elem_in(c, n, 0, (const Expr *[]){idx[0], k[i]})), noise);
  }
  const Expr *best = ex_reduce(p, RED_MAX, k[0], score[0]);
  const Expr *who =
      ex_reduce(p, RED_MAX, k[1], ex_select(p, ex_le(p, best, score[1]), k[1], ex_i64(p, 0)));
  return ex_cast(p, n->out[0]->dtype, who);
}
