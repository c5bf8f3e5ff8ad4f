/* DeformConv: samples at shifted positions (burin.DeformSample), then a matrix product with the
 * weights. Col2Im: every element of the image sums the columns that cover it. */
#include <string.h>

#include "ir/op/kit.h"
#include "ir/op/tensor_util.h"

/* An attribute list of `count` numbers in [lo, 2^30], or absent. */
static bool check_list(Model *m, const Node *n, const char *name, int count, int64_t lo) {
  const int64_t *v;
  int given;
  if (!op_ints(m, n, name, &v, &given)) return false;
  if (given < 0) return true;
  if (given != count)
    return op_error(m, n, ERR_ATTR_VALUE, "%s has %d entries, needs %d", name, given, count);
  for (int k = 0; k < count; k++)
    if (v[k] < lo || v[k] > 1 << 30)
      return op_error(m, n, ERR_ATTR_VALUE, "%s holds %lld", name, (long long)v[k]);
  return true;
}

static bool check_window(Model *m, const Node *n, int spatial) {
  return check_list(m, n, "strides", spatial, 1) && check_list(m, n, "dilations", spatial, 1) &&
         check_list(m, n, "pads", 2 * spatial, 0);
}

/* Positions of a window of size k along axis d of size `in`. */
static const Expr *positions(ExprPool *p, const Node *n, int d, int spatial, const Expr *in,
                             const Expr *k) {
  const Expr *one = ex_i64(p, 1), *dil = ex_i64(p, node_ints_at(n, "dilations", d, 1));
  const Expr *pads =
      ex_i64(p, node_ints_at(n, "pads", d, 0) + node_ints_at(n, "pads", d + spatial, 0));
  const Expr *room =
      ex_sub(p, ex_sub(p, ex_add(p, in, pads), ex_mul(p, ex_sub(p, k, one), dil)), one);
  return ex_add(p, ex_floordiv(p, room, ex_i64(p, node_ints_at(n, "strides", d, 1))), one);
}

/* ---- DeformConv ---- */
bool infer_deform_conv(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0], *w = n->in[1], *off = n->in[2];
  int64_t groups, parts, kh, kw, c, wc, oc;
  const Expr *same;
  const int64_t *given;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_need_rank(m, n, 0, 3, MAX_RANK)) return false;
  if (x->rank != 4) return op_error(m, n, ERR_UNSUPPORTED, "DeformConv over %d axes", x->rank - 2);
  for (int k = 1; k < n->n_in; k++)
    if (!op_same_dtype(m, n, k, 0) || !op_need_rank(m, n, k, k == 3 ? 1 : 4, k == 3 ? 1 : 4))
      return false;
  if (!op_int_in(m, n, "group", 1, 1, INT32_MAX, &groups) ||
      !op_int_in(m, n, "offset_group", 1, 1, INT32_MAX, &parts) || !check_window(m, n, 2))
    return false;
  if (!expr_is_const(w->dims[2], &kh) || !expr_is_const(w->dims[3], &kw) ||
      !expr_is_const(x->dims[1], &c) || !expr_is_const(w->dims[1], &wc) ||
      !expr_is_const(w->dims[0], &oc))
    return op_error(m, n, ERR_DYNAMIC, "channels or kernel sizes are not known");
  if (node_ints(n, "kernel_shape", &given) &&
      (node_ints(n, "kernel_shape", &given) != 2 || given[0] != kh || given[1] != kw))
    return op_error(m, n, ERR_ATTR_VALUE, "kernel_shape is not that of the weights, %lld x %lld",
                    (long long)kh, (long long)kw);
  if (kh < 1 || kw < 1 || wc < 1 || c % groups || c / groups != wc || oc % groups || c % parts)
    return op_error(m, n, ERR_SHAPE,
                    "%lld channels do not fit weights of %lld, %lld groups and %lld offset groups",
                    (long long)c, (long long)wc, (long long)groups, (long long)parts);
  const Expr *k = ex_i64(p, kh * kw * parts),
             *dims[4] = {x->dims[0], w->dims[0], off->dims[2], off->dims[3]};
  if (!op_same_dim(m, n, off->dims[1], ex_mul(p, k, ex_i64(p, 2)), "channels of offset", &same))
    return false;
  if (node_in(n, 4) && !op_same_dim(m, n, n->in[4]->dims[1], k, "channels of mask", &same))
    return false;
  for (int d = 0; d < 2; d++)
    if (!op_same_dim(m, n, positions(p, n, d, 2, x->dims[d + 2], w->dims[d + 2]), off->dims[d + 2],
                     "output size", &same))
      return false;
  for (int d = 0; d < 4; d++)
    if (d != 1 && node_in(n, 4) &&
        !op_same_dim(m, n, n->in[4]->dims[d], off->dims[d], "mask", &same))
      return false;
  return op_same_dim(m, n, x->dims[0], off->dims[0], "batch", &same) &&
         op_out(m, n, 0, x->dtype, 4, dims);
}

/* burin.DeformSample: X, offset, mask → [batch, channels, kernel positions, height, width]. */
bool infer_deform_sample(Model *m, Node *n) {
  const Value *x = n->in[0], *off = n->in[1];
  const int64_t k = node_ints_at(n, "kernel_shape", 0, 1) * node_ints_at(n, "kernel_shape", 1, 1);
  const Expr *dims[5] = {x->dims[0], x->dims[1], ex_i64(m->pool, k), off->dims[2], off->dims[3]};
  return op_out(m, n, 0, x->dtype, 5, dims);
}

/* X at integer position (given as floats), 0 outside. */
static const Expr *pixel(ElemCtx *c, const Node *n, const Expr *const *nc, const Expr *y,
                         const Expr *x) {
  ExprPool *p = c->pool;
  const Value *v = n->in[0];
  const Expr *at[4] = {nc[0], nc[1], ex_cast(p, DT_I64, y), ex_cast(p, DT_I64, x)},
             *in = ex_bool(p, true), *zero = ex_i64(p, 0);
  for (int d = 2; d < 4; d++)
    in = ex_and(p, in, ex_and(p, ex_le(p, zero, at[d]), ex_lt(p, at[d], v->dims[d])));
  return ex_cast(p, kit_compute(n), elem_in_guarded(c, n, 0, at, in));
}

const Expr *elem_deform_sample(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const DType t = kit_compute(n);
  const Expr *one = ex_float(p, t, 1), *kw = ex_i64(p, node_ints_at(n, "kernel_shape", 1, 1)),
             *taps = n->out[0]->dims[2];
  const Expr *per = ex_floordiv(p, n->in[0]->dims[1], ex_i64(p, node_int(n, "offset_group", 1)));
  const Expr *ch = ex_add(p, ex_mul(p, ex_floordiv(p, idx[1], per), taps), idx[2]);
  const Expr *tap[2] = {ex_floordiv(p, idx[2], kw), ex_floormod(p, idx[2], kw)}, *base[2], *frac[2];
  for (int d = 0; d < 2; d++) {
    const Expr *off_ch = ex_add(p, ex_mul(p, ch, ex_i64(p, 2)), ex_i64(p, d));
    const Expr *shift =
        ex_cast(p, t, elem_in(c, n, 1, (const Expr *[]){idx[0], off_ch, idx[3], idx[4]}));
    const Expr *grid = ex_sub(p, ex_mul(p, idx[3 + d], ex_i64(p, node_ints_at(n, "strides", d, 1))),
                              ex_i64(p, node_ints_at(n, "pads", d, 0)));
    grid = ex_add(p, grid, ex_mul(p, tap[d], ex_i64(p, node_ints_at(n, "dilations", d, 1))));
    const Expr *at = ex_add(p, ex_cast(p, t, grid), shift);
    base[d] = ex_op(p, EX_floor, at, NULL, NULL);
    frac[d] = ex_sub(p, at, base[d]);
  }
  const Expr *sum = NULL;
  for (int k = 0; k < 4; k++) {
    const Expr *y = k & 2 ? ex_add(p, base[0], one) : base[0],
               *x = k & 1 ? ex_add(p, base[1], one) : base[1];
    const Expr *wy = k & 2 ? frac[0] : ex_sub(p, one, frac[0]),
               *wx = k & 1 ? frac[1] : ex_sub(p, one, frac[1]);
    const Expr *e = ex_mul(p, ex_mul(p, wy, wx), pixel(c, n, idx, y, x));
    sum = sum ? ex_add(p, sum, e) : e;
  }
  if (node_in(n, 2))
    sum = ex_mul(p, sum,
                 ex_cast(p, t, elem_in(c, n, 2, (const Expr *[]){idx[0], ch, idx[3], idx[4]})));
  return ex_cast(p, n->out[0]->dtype, sum);
}

bool expand_deform_conv(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  const int64_t groups = node_int(n, "group", 1);
  int64_t k[4]; /* of the weights */
  for (int d = 0; d < 4; d++) expr_is_const(n->in[1]->dims[d], &k[d]);
  Vec(Attr) attrs = {0};
  static const char *const kept[] = {"strides", "pads", "dilations", "offset_group"};
  for (int i = 0; i < 4; i++)
    if (node_attr(n, kept[i])) vec_push(a, &attrs, *node_attr(n, kept[i]));
  vec_push(a, &attrs, attr_ints(a, "kernel_shape", 2, k + 2));
  Value *ins[3] = {n->in[0], n->in[2], node_in(n, 4)};
  Value *cols =
      build_node(b, "DeformSample", "burin", ins[2] ? 3 : 2, ins, 1, attrs.n, attrs.data)->out[0];
  const int64_t depth = k[1] * k[2] * k[3], col_shape[4] = {0, groups, depth, -1},
                w_shape[3] = {groups, k[0] / groups, depth};
  cols = build2(b, "Reshape", cols, build_i64s(b, 4, col_shape));
  Value *y = build2(b, "MatMul", build2(b, "Reshape", n->in[1], build_i64s(b, 3, w_shape)), cols);
  const Attr axis = attr_int(a, "axis", 0);
  Value *shape[3] = {build_shape(b, n->in[0], 0, 1), build_i64s(b, 1, k),
                     build_shape(b, n->in[2], 2, 4)};
  y = build2(b, "Reshape", y, build_op(b, "Concat", 3, shape, 1, &axis));
  const int64_t bias[4] = {1, k[0], 1, 1};
  if (node_in(n, 3))
    y = build2(b, "Add", y, build2(b, "Reshape", n->in[3], build_i64s(b, 4, bias)));
  out[0] = y;
  return b->ok;
}

/* ---- Col2Im ---- */
bool infer_col2im(Model *m, Node *n) {
  ExprPool *p = m->pool;
  const Value *x = n->in[0];
  int spatial, given;
  const int rank = tu_declared_rank(n);
  const Expr *dims[MAX_RANK], *block[MAX_RANK], *same, *one = ex_i64(p, 1), *k = one, *count = one;
  if (!op_need_class(m, n, 0, CL_NUMBER) || !op_need_rank(m, n, 0, 3, 3) ||
      !op_need_class(m, n, 1, CL_INT) ||
      !tu_count(m, n, 1, "image_shape", rank < 0 ? -1 : rank - 2, &given) ||
      !op_need_class(m, n, 2, CL_INT) || !tu_count(m, n, 2, "block_shape", given, &spatial))
    return false;
  if (given != spatial || spatial < 1 || spatial > MAX_RANK - 2)
    return op_error(m, n, ERR_SHAPE, "image_shape has %d sizes, block_shape %d", given, spatial);
  if (!check_window(m, n, spatial)) return false;
  for (int d = 0; d < spatial; d++) {
    block[d] = tu_elem(m, n, 2, d);
    if (!require_at_least(m, n, block[d], one, "sizes of block_shape and 1") ||
        !require_at_most(m, n, block[d], x->dims[1], "sizes of block_shape and rows"))
      return false;
    k = op_times(m, k, block[d]);
  }
  if (!require_multiple(m, n, x->dims[1], k, "rows and elements of a block")) return false;
  dims[0] = x->dims[0];
  dims[1] = tu_dim(m, n, 0, 1, ex_floordiv(p, x->dims[1], k), x->dims[1]);
  for (int d = 0; d < spatial; d++) {
    dims[d + 2] = tu_dim(m, n, 0, d + 2, tu_elem(m, n, 1, d), NULL);
    count = op_times(m, count, positions(p, n, d, spatial, dims[d + 2], block[d]));
  }
  return op_same_dim(m, n, x->dims[2], count, "number of blocks", &same) &&
         op_out(m, n, 0, x->dtype, spatial + 2, dims);
}

const Expr *elem_col2im(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *o = n->out[0];
  const int spatial = o->rank - 2;
  const Expr *var[MAX_RANK], *inside = ex_bool(p, true), *zero = ex_i64(p, 0), *row = idx[1],
                             *col = zero;
  for (int d = 0; d < spatial; d++) {
    const Expr *k = tu_known(p, n, 2, d), *step = ex_i64(p, node_ints_at(n, "strides", d, 1));
    const Expr *len = positions(p, n, d, spatial, o->dims[d + 2], k);
    var[d] = ex_var(p, "k", k);
    const Expr *t = ex_add(p, idx[d + 2], ex_i64(p, node_ints_at(n, "pads", d, 0)));
    t = ex_sub(p, t, ex_mul(p, var[d], ex_i64(p, node_ints_at(n, "dilations", d, 1))));
    const Expr *at = ex_floordiv(p, t, step);
    inside = ex_and(p, inside, ex_and(p, ex_le(p, zero, t), ex_lt(p, at, len)));
    inside = ex_and(p, inside, ex_eq(p, ex_floormod(p, t, step), zero));
    row = ex_add(p, ex_mul(p, row, k), var[d]);
    col = ex_add(p, ex_mul(p, col, len), at);
  }
  /* image sizes that are data may not fit the columns: never read outside */
  inside = ex_and(p, inside, ex_lt(p, col, n->in[0]->dims[2]));
  const DType t = dtype_compute(o->dtype);
  const Expr *e =
      ex_cast(p, t, elem_in_guarded(c, n, 0, (const Expr *[]){idx[0], row, col}, inside));
  for (int d = spatial - 1; d >= 0; d--) e = ex_reduce(p, RED_SUM, var[d], e);
  return ex_cast(p, o->dtype, e);
}
