/* Rewrites each node into a simpler one with the same result: no-ops vanish, chains of views and
 * transposes become one, expensive forms become cheap ones. Every rule is exact (bit for bit, but
 * for powers that become products and means of means) and keeps shapes. A rule is a function in the
 * table at the bottom; it returns the value that replaces the node's only output, or NULL. */
#include <math.h>
#include <string.h>
#include "ir/ops/nn/contraction.h"
#include "passes/build/kernel.h"
#include "passes/graph/rewrite.h"

typedef struct Rule {
  const char *op; /* NULL: any */
  Value *(*fn)(Build *b, Node *n);
} Rule;

/* ---- questions ---- */

static bool same_as_input(const Node *n, int k) {
  const Value *v = node_in(n, k);
  return v && v->kind == TY_TENSOR && value_same_type(v, n->out[0]);
}

/* Input `k` is a constant whose elements all equal x, and dropping it leaves the shape of the other
 * input. */
static bool neutral(const Node *n, int k, double x) {
  const ConstData *c = const_input(n, k);
  return c && same_as_input(n, 1 - k) && const_all(c, x);
}

static bool is_pow2(double x) {
  int e;
  return isfinite(x) && x != 0 && fabs(frexp(x, &e)) == 0.5;
}

static bool const_true(const Value *v, bool want) {
  return v && v->cdata && v->dtype == DT_BOOL && const_all(v->cdata, want);
}

static bool known_list(Model *m, const Value *v, int64_t *out, int *n) {
  int64_t dim = 1;
  if (!v || v->rank > 1 || !value_known(v) || !value_is_static(v, &dim) || dim > 2 * MAX_RANK)
    return false;
  *n = v->rank ? (int)dim : 1;
  for (int i = 0; i < *n; i++) {
    const Expr *e = value_element(m->pool, v, i);
    if (!e || !expr_is_const(e, &out[i])) return false;
  }
  return true;
}

/* ---- views ---- */

/* Reshape of v to the type of `like`; NULL where its shape cannot be said by constants and one
 * -1. */
static Value *reshape_to(Build *b, Value *v, const Value *like) {
  int64_t shape[MAX_RANK];
  int unknown = 0;
  for (int d = 0; d < like->rank; d++) {
    if (expr_is_const(like->dims[d], &shape[d])) {
      if (shape[d] == 0) return NULL;
    } else {
      shape[d] = -1;
      unknown++;
    }
  }
  if (unknown > 1) return NULL;
  return build_op(b, "Reshape", 2, (Value *[]){v, build_i64s(b, like->rank, shape)}, 0, NULL);
}

static bool is_view(const Value *v) {
  return v->def && (v->def->op->flags & OF_VIEW) && v->def->n_in > 0 && v->def_index == 0 &&
         v->kind == TY_TENSOR && v->def->in[0]->kind == TY_TENSOR;
}

/* A view that changes nothing, and a view of a view. */
static Value *rule_view(Build *b, Node *n) {
  if (!(n->op->flags & OF_VIEW)) return NULL;
  if (node_is(n, "Identity") || same_as_input(n, 0)) return n->in[0];
  if (n->out[0]->kind != TY_TENSOR || !is_view(n->in[0])) return NULL;
  Value *src = n->in[0]->def->in[0];
  if (src->dtype != n->out[0]->dtype) return NULL;
  if (value_same_type(src, n->out[0])) return src;
  return reshape_to(b, src, n->out[0]);
}

static void transpose_perm(const Node *n, int64_t *perm) {
  const int64_t *p;
  const int rank = n->out[0]->rank, count = node_ints(n, "perm", &p);
  for (int d = 0; d < rank; d++) perm[d] = count == rank ? p[d] : rank - 1 - d;
}

/* Dimensions other than 1 stay in order: the elements do not move. */
static bool order_kept(const Value *v, int rank, const int64_t *perm) {
  int64_t last = -1;
  for (int d = 0; d < rank; d++) {
    if (expr_is_i64(v->dims[perm[d]], 1)) continue;
    if (perm[d] < last) return false;
    last = perm[d];
  }
  return true;
}

static Value *rule_transpose(Build *b, Node *n) {
  int64_t perm[MAX_RANK], inner[MAX_RANK];
  const int rank = n->out[0]->rank;
  transpose_perm(n, perm);
  Value *src = n->in[0];
  const Node *t = def_is(src, "Transpose");
  if (t) {
    transpose_perm(t, inner);
    for (int d = 0; d < rank; d++) perm[d] = inner[perm[d]];
    src = t->in[0];
  }
  bool identity = true;
  for (int d = 0; d < rank; d++) identity = identity && perm[d] == d;
  if (identity) return src;
  if (order_kept(src, rank, perm)) {
    Value *r = reshape_to(b, src, n->out[0]);
    if (r) return r;
  }
  const Attr at = attr_ints(b->m->arena, "perm", rank, perm);
  return t ? build_op(b, "Transpose", 1, &src, 1, &at) : NULL;
}

/* ---- things that do nothing ---- */

static Value *rule_same_shape(Build *b, Node *n) { /* Expand, Tile, single Concat/Sum/Max/… */
  return same_as_input(n, 0) ? n->in[0] : NULL;
}

static Value *rule_single(Build *b, Node *n) {
  return n->n_in == 1 && same_as_input(n, 0) ? n->in[0] : NULL;
}

/* Sum, Max … of very many: a chain of them, in the same order, so that no expression has to hold
 * them all. */
static Value *rule_variadic(Build *b, Node *n) {
  enum { WIDE = 128, PIECE = 16 };
  const DType t = n->out[0]->dtype;
  if (n->n_in <= WIDE || dtype_compute(t) != t || node_is(n, "Mean")) return rule_single(b, n);
  Value *in[PIECE + 1], *v = n->in[0];
  for (int k = 1; k < n->n_in && b->ok; k += PIECE) {
    int m = 0;
    for (in [m++] = v; m <= PIECE && k + m - 1 < n->n_in; m++) in[m] = n->in[k + m - 1];
    v = build_op(b, n->op->name, m, in, 0, NULL);
  }
  return b->ok && value_same_type(v, n->out[0]) ? v : NULL;
}

static Value *rule_dropout(Build *b, Node *n) {
  const Value *mode = node_in(n, 2);
  return n->n_out == 1 && (!mode || const_true(mode, false)) ? n->in[0] : NULL;
}

static bool widens(DType from, DType to) {
  const DTypeRow *a = &dtype_rows[from], *b = &dtype_rows[to];
  if (a->cls == DC_FLOAT && b->cls == DC_FLOAT) return b->bits >= 32 && b->bits > a->bits;
  return a->cls == b->cls && (a->cls == DC_UINT || a->cls == DC_SINT) && b->bits > a->bits;
}

static Value *rule_cast(Build *b, Node *n) {
  if (same_as_input(n, 0)) return n->in[0];
  const Node *c = def_is(n->in[0], "Cast");
  if (c && c->in[0]->dtype == n->out[0]->dtype && widens(c->in[0]->dtype, c->out[0]->dtype))
    return c->in[0];
  return NULL;
}

static Value *rule_slice(Build *b, Node *n) {
  int64_t steps[2 * MAX_RANK];
  int count = 0;
  if (!same_as_input(n, 0)) return NULL;
  if (node_in(n, 4) && !known_list(b->m, n->in[4], steps, &count)) return NULL;
  for (int i = 0; i < count; i++)
    if (steps[i] <= 0) return NULL;
  return n->in[0];
}

static Value *rule_pad(Build *b, Node *n) {
  int64_t pads[2 * MAX_RANK];
  int count;
  if (!same_as_input(n, 0) || !known_list(b->m, n->in[1], pads, &count)) return NULL;
  for (int i = 0; i < count; i++)
    if (pads[i] != 0) return NULL;
  return n->in[0];
}

static Value *rule_resize(Build *b, Node *n) {
  const char *mode = node_string(n, "coordinate_transformation_mode", "half_pixel");
  const ConstData *scales = const_input(n, 2);
  if (!same_as_input(n, 0) || strcmp(mode, "tf_crop_and_resize") == 0) return NULL;
  if (node_in(n, 2) && !(scales && (scales->count == 0 || const_all(scales, 1)))) return NULL;
  return n->in[0];
}

static Value *rule_twice(Build *b, Node *n) { /* Not, Neg, BitwiseNot, Reciprocal is not exact */
  const Node *inner = def_is(n->in[0], n->op->name);
  return inner ? inner->in[0] : NULL;
}

static Value *rule_idempotent(Build *b, Node *n) { /* Relu, Abs, Floor … of itself */
  return def_is(n->in[0], n->op->name) ? n->in[0] : NULL;
}

/* Floats have the largest finite numbers as bounds. */
static Value *rule_clip(Build *b, Node *n) {
  const bool bounded = node_in(n, 1) || node_in(n, 2) || dtype_is_float(n->in[0]->dtype);
  return bounded ? NULL : n->in[0];
}

static Value *rule_where(Build *b, Node *n) {
  if (const_true(n->in[0], true) && same_as_input(n, 1)) return n->in[1];
  if (const_true(n->in[0], false) && same_as_input(n, 2)) return n->in[2];
  return NULL;
}

/* ---- arithmetic ---- */

/* -0 + 0 is 0: for floats only -0 is neutral. */
static Value *rule_add(Build *b, Node *n) {
  const double zero = dtype_is_float(n->out[0]->dtype) ? -0.0 : 0.0;
  return neutral(n, 1, zero) ? n->in[0] : neutral(n, 0, zero) ? n->in[1] : NULL;
}

static Value *rule_sub(Build *b, Node *n) { return neutral(n, 1, 0.0) ? n->in[0] : NULL; }

static Value *rule_mul(Build *b, Node *n) {
  return neutral(n, 1, 1) ? n->in[0] : neutral(n, 0, 1) ? n->in[1] : NULL;
}

/* Constant of 1/c when every element is a power of two whose inverse is a normal number of the
 * type. */
static Value *inverse_pow2(Model *m, const Value *v) {
  const ConstData *c = v->cdata;
  if (!c || (v->dtype != DT_F32 && v->dtype != DT_F64) || c->count > 1 << 20) return NULL;
  char *data = arena_alloc(m->arena, (size_t)(c->count * dtype_bytes(v->dtype)) + 1);
  for (int64_t i = 0; i < c->count; i++) {
    const double x = const_float(c, i);
    if (!is_pow2(x) || fabs(x) > 0x1p100 || fabs(x) < 0x1p-100) return NULL;
    dtype_store_f(v->dtype, data + i * dtype_bytes(v->dtype), 1 / x);
  }
  return value_const(m, const_new(m, NULL, v->dtype, c->rank, c->dims, data));
}

static Value *rule_div(Build *b, Node *n) {
  if (neutral(n, 1, 1)) return n->in[0];
  Value *inv = inverse_pow2(b->m, n->in[1]);
  return inv ? build2(b, "Mul", n->in[0], inv) : NULL;
}

static Value *rule_pow(Build *b, Node *n) {
  const ConstData *e = const_input(n, 1);
  Value *x = n->in[0];
  if (!e || !same_as_input(n, 0) || !dtype_is_float(x->dtype)) return NULL;
  if (const_all(e, 1)) return x;
  if (const_all(e, 2)) return build2(b, "Mul", x, x);
  if (const_all(e, 3) && dtype_compute(x->dtype) == x->dtype && e->dtype == x->dtype)
    return build2(b, "Mul", build2(b, "Mul", x, x), x);
  return NULL; /* a root is no power of 0.5: of -inf and -0 */
}

/* ---- convolutions ---- */

/* Zeros around the spatial dimensions alone: pads[2*rank] of the Pad before a convolution. */
static bool pads_spatially(Model *m, const Node *n, int64_t *pads) {
  int count;
  const int rank = n->out[0]->rank;
  const ConstData *value = const_input(n, 2);
  if (strcmp(node_string(n, "mode", "constant"), "constant") != 0 || node_in(n, 3)) return false;
  if (node_in(n, 2) && !(value && value->count == 1 && const_all(value, 0))) return false;
  if (!known_list(m, n->in[1], pads, &count) || count != 2 * rank) return false;
  for (int i = 0; i < count; i++)
    if (pads[i] < 0 || pads[i] > 1 << 20 || (i % rank < 2 && pads[i] != 0)) return false;
  return true;
}

static Value *rule_conv(Build *b, Node *n) {
  const Node *pad = def_is(n->in[0], "Pad");
  int64_t extra[2 * MAX_RANK] = {0}, pads[2 * MAX_RANK];
  const int64_t *own;
  const int rank = n->in[0]->rank, spatial = rank - 2;
  if (!pad || rank < 3 || !pads_spatially(b->m, pad, extra)) return NULL;
  if (strcmp(node_string(n, "auto_pad", "NOTSET"), "NOTSET") != 0) return NULL;
  const int count = node_ints(n, "pads", &own);
  for (int i = 0; i < 2 * spatial; i++)
    pads[i] = (count ? own[i] : 0) + extra[i < spatial ? 2 + i : rank + 2 + i - spatial];
  Value *in[3] = {pad->in[0], n->in[1], node_in(n, 2)};
  Vec(Attr) attrs = {0};
  for (int i = 0; i < n->n_attrs; i++) vec_push(b->m->arena, &attrs, n->attrs[i]);
  const Attr at = attr_ints(b->m->arena, "pads", 2 * spatial, pads);
  vec_push(b->m->arena, &attrs, at); /* the last of a name counts */
  return build_op(b, "Conv", n->n_in, in, attrs.n, attrs.data);
}

/* ---- poolings ---- */

static Value *pool_along(Build *b, Node *n, const PoolInfo *info, Value *x, int d) {
  int64_t kernel[2] = {1, 1}, stride[2] = {1, 1}, dilation[2] = {1, 1}, pads[4] = {0};
  Arena *a = b->m->arena;
  kernel[d] = info->kernel[d];
  stride[d] = info->stride[d];
  dilation[d] = info->dilation[d];
  pads[d] = info->pad_lo[d];
  pads[2 + d] = info->pad_hi[d];
  const Attr attrs[] = {attr_ints(a, "kernel_shape", 2, kernel),
                        attr_ints(a, "strides", 2, stride),
                        attr_ints(a, "dilations", 2, dilation),
                        attr_ints(a, "pads", 4, pads),
                        attr_int(a, "ceil_mode", info->ceil_mode),
                        attr_int(a, "count_include_pad", info->count_include_pad)};
  return build_op(b, n->op->name, 1, &x, info->kind == POOL_AVERAGE ? 6 : 5, attrs);
}

/* Is the mean along one dimension, then along the other, less than half the work? Of a window as
 * wide as the input it is not. Types of few bits would be rounded once more. */
static bool average_pays(const Build *b, const Node *n, const PoolInfo *info) {
  const Value *x = n->in[0], *y = n->out[0];
  if ((x->dtype != DT_F32 && x->dtype != DT_F64) || node_attr(n, "whole_kernel")) return false;
  const double rows =
      expr_extent_guess(b->m->pool, x->dims[2]) / expr_extent_guess(b->m->pool, y->dims[2]);
  const double kh = (double)info->kernel[0], kw = (double)info->kernel[1];
  return 2 * (rows * kw + kh) <= kh * kw;
}

/* The maximum of a large window is that of its rows' maxima; its mean is that of their means, as
 * each row counts equally many elements. */
static Value *rule_pool(Build *b, Node *n) {
  enum { LARGE = 25 };
  PoolInfo info;
  if (n->in[0]->rank != 4 || !pool_info(n, &info) || info.spatial != 2 || info.kernel[0] == 1 ||
      info.kernel[1] == 1 || info.kernel[0] * info.kernel[1] < LARGE)
    return NULL;
  if (info.kind == POOL_AVERAGE && !average_pays(b, n, &info)) return NULL;
  Value *v = pool_along(b, n, &info, n->in[0], 1);
  if (b->ok) v = pool_along(b, n, &info, v, 0);
  return b->ok && value_same_type(v, n->out[0]) ? v : NULL;
}

/* ---- normalizations ---- */

/* Each element of v[groups] for all channels of its group. */
static Value *for_channels(Model *m, const ConstData *v, int64_t channels) {
  const size_t size = (size_t)dtype_bytes(v->dtype);
  const int64_t each = channels / v->count;
  char *data = arena_alloc(m->arena, (size_t)channels * size);
  for (int64_t c = 0; c < channels; c++)
    memcpy(data + (size_t)c * size, (const char *)v->data + (size_t)(c / each) * size, size);
  return value_const(m, const_new(m, NULL, v->dtype, 1, &channels, data));
}

/* InstanceNormalization of x seen as [n, groups, …], seen as x again. Where x lies channels last,
 * the groups are no rows, and no index says so. */
static Value *rule_group_norm(Build *b, Node *n) {
  const Node *norm = def_is(n->in[0], "InstanceNormalization");
  Value *seen = norm ? norm->in[0] : NULL;
  if (!seen || !is_view(seen)) return NULL;
  Value *x = seen->def->in[0];
  const ConstData *scale = const_input(norm, 1), *bias = const_input(norm, 2);
  int64_t groups, channels;
  if (!scale || !bias || x->rank < 3 || !value_from_conv(x) || !value_same_type(x, n->out[0]) ||
      x->dims[0] != seen->dims[0])
    return NULL;
  if (!expr_is_const(seen->dims[1], &groups) || !expr_is_const(x->dims[1], &channels) ||
      groups < 1 || channels < 1 || channels % groups)
    return NULL;
  Value *in[] = {x, for_channels(b->m, scale, channels), for_channels(b->m, bias, channels)};
  const Attr attrs[] = {attr_int(b->m->arena, "num_groups", groups),
                        attr_float(b->m->arena, "epsilon", node_float(norm, "epsilon", 1e-5))};
  return build_op(b, "GroupNormalization", 3, in, 2, attrs);
}

/* ---- the pass ---- */

static const Rule rules[] = {
    {NULL, rule_view},           {"Transpose", rule_transpose},
    {"Expand", rule_same_shape}, {"Tile", rule_same_shape},
    {"Concat", rule_single},     {"Sum", rule_variadic},
    {"Mean", rule_single},       {"Max", rule_variadic},
    {"Min", rule_variadic},      {"Dropout", rule_dropout},
    {"Cast", rule_cast},         {"CastLike", rule_same_shape},
    {"Slice", rule_slice},       {"Pad", rule_pad},
    {"Resize", rule_resize},     {"Not", rule_twice},
    {"Neg", rule_twice},         {"BitwiseNot", rule_twice},
    {"Relu", rule_idempotent},   {"Abs", rule_idempotent},
    {"Floor", rule_idempotent},  {"Ceil", rule_idempotent},
    {"Round", rule_idempotent},  {"Clip", rule_clip},
    {"Where", rule_where},       {"Conv", rule_conv},
    {"Add", rule_add},           {"Sub", rule_sub},
    {"Mul", rule_mul},           {"Div", rule_div},
    {"Pow", rule_pow},           {"Reshape", rule_group_norm},
    {"MaxPool", rule_pool},      {"AveragePool", rule_pool},
};

static bool canonicalize_one(Forward *f, Node *n, bool *keep) {
  Build b = {.m = f->c->model, .g = n->graph, .loc = n->loc, .ok = true};
  if (n->n_out != 1 || !n->out[0]) return true;
  if (f->c->changed && !op_infer(f->c->model, n)) return false;
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    if (rules[i].op && !node_is(n, rules[i].op)) continue;
    Value *by = rules[i].fn(&b, n);
    if (!b.ok) return false;
    if (!by) continue;
    *keep = false;
    return forward_set(f, n, n->out[0], by);
  }
  return true;
}

bool pass_canonicalize(PassCtx *c) {
  Forward f = forward_new(c);
  return forward_walk(&f, c->model->main, canonicalize_one);
}
