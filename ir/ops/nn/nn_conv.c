/* Conv, ConvTranspose, ConvInteger, QLinearConv over any number of spatial dims, and conv_info. */
#include "ir/ops/nn/nn_quant.h"
#include "ir/ops/nn/nn_window.h"

/* Where a convolution finds its operands. */
typedef struct ConvIn {
  int x, w, bias; /* input numbers */
  int xz, wz;     /* zero points; -1: none */
} ConvIn;

static const ConvIn float_in = {0, 1, 2, -1, -1}, integer_in = {0, 1, -1, 2, 3},
                    qlinear_in = {0, 3, 8, 2, 5};

static ConvIn conv_in(const Node *n) {
  return kit_is(n, "QLinearConv") ? qlinear_in : kit_is(n, "ConvInteger") ? integer_in : float_in;
}

/* ---- Conv: shapes ---- */
/* Checks ranks, groups and channels of x and w; gives total output channels. Transposed weights are
 * [C, M/g, k…]. */
static bool conv_channels(Model *m, const Node *n, ConvIn in, bool transposed, int64_t *group,
                          int64_t *c_out) {
  const Value *x = n->in[in.x], *w = n->in[in.w];
  int64_t w0, w1, cin;
  if (!op_need_rank(m, n, in.x, 3, 2 + MAX_SPATIAL) ||
      !op_need_rank(m, n, in.w, x->rank, x->rank) ||
      !op_int_in(m, n, "group", 1, 1, WINDOW_MAX_VALUE, group))
    return false;
  if (!expr_is_const(w->dims[0], &w0) || !expr_is_const(w->dims[1], &w1))
    return op_error(m, n, ERR_UNSUPPORTED, "channel counts of the weights must be constants");
  if (w0 < 1 || w1 < 1) return op_error(m, n, ERR_SHAPE, "weights have no channels");
  if (w0 % *group)
    return op_error(m, n, ERR_SHAPE, "%lld channels of the weights do not divide into %lld groups",
                    (long long)w0, (long long)*group);
  if (!kit_mul(m, n, w1, *group, transposed ? c_out : &cin)) return false;
  if (transposed)
    cin = w0;
  else
    *c_out = w0;
  return require_size(m, n, x->dims[1], cin, "channels of the input and the weights");
}

static bool conv_bias(Model *m, const Node *n, int k, int64_t c_out) {
  return k < 0 || kit_need_vector(m, n, k, ex_i64(m->pool, c_out), "bias");
}

static bool conv_out(Model *m, Node *n, DType t) {
  const ConvIn in = conv_in(n);
  const Value *x = n->in[in.x];
  int64_t group, c_out, kernel[MAX_SPATIAL];
  const Expr *dims[MAX_RANK];
  if (!conv_channels(m, n, in, false, &group, &c_out) || !conv_bias(m, n, in.bias, c_out) ||
      !window_weights(m, n, in.w, kernel) || !window_check(m, n, x, kernel))
    return false;
  const Window w = window_get(m->pool, n, x, kernel);
  dims[0] = x->dims[0];
  dims[1] = ex_i64(m->pool, c_out);
  return window_out_dims(m, n, &w, x, dims) && op_out(m, n, 0, t, x->rank, dims);
}

bool infer_conv(Model *m, Node *n) {
  DType t;
  return op_need_class(m, n, 0, CL_FLOAT) && op_product_types(m, n, &t) && conv_out(m, n, t);
}

/* ---- Conv: elem ---- */
static int64_t dim_const(const Value *v, int d) {
  int64_t k = 1;
  expr_is_const(v->dims[d], &k);
  return k;
}

/* Input channel ic of the group of output channel oc. */
static const Expr *group_channel(ExprPool *p, const Expr *oc, const Expr *ic, int64_t group,
                                 int64_t out_per, int64_t in_per) {
  if (group == 1) return ic;
  const Expr *g = ex_floordiv(p, oc, ex_i64(p, out_per));
  return ex_add(p, ex_mul(p, g, ex_i64(p, in_per)), ic);
}

/* An attribute of ours: pixels beyond an image without zero point, which is the zero point that was
 * taken out of the sum (passes/quant). */
static int64_t pad_value(const Node *n) {
  return kit_is(n, "ConvInteger") ? node_int(n, "pad_value", 0) : 0;
}

/* Sum over channels and taps in type t; `lane` zero points are read at the output channel. */
static const Expr *conv_sum(ElemCtx *c, const Node *n, ConvIn in, DType t, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[in.x], *wt = n->in[in.w];
  int64_t kernel[MAX_SPATIAL];
  window_weights_get(wt, kernel);
  const Window w = window_get(p, n, x, kernel);
  const Taps taps = window_taps(c, &w, x, idx + 2);
  const int64_t group = node_int(n, "group", 1), in_per = dim_const(wt, 1),
                out_per = dim_const(wt, 0) / group;
  const Expr *ic = kit_var(c, "ic", ex_i64(p, in_per));
  const Expr *at_x[MAX_RANK] = {idx[0], group_channel(p, idx[1], ic, group, out_per, in_per)};
  const Expr *at_w[MAX_RANK] = {idx[1], ic};
  for (int d = 0; d < w.spatial; d++) {
    at_x[2 + d] = taps.at[d];
    at_w[2 + d] = taps.vars[d];
  }
  const bool certain = kit_is_true(taps.inside);
  const Expr *a = ex_cast(p, t, elem_in_guarded(c, n, in.x, at_x, certain ? NULL : taps.inside));
  const Expr *b = kit_in(c, n, in.w, at_w, t);
  if (in.xz >= 0 && node_in(n, in.xz)) {
    a = ex_sub(p, a, kit_scalar(c, n, in.xz, t));
    if (!certain) a = ex_select(p, taps.inside, a, kit_like(c, a, 0));
  } else if (!certain && pad_value(n)) {
    a = ex_select(p, taps.inside, a, ex_int(p, t, pad_value(n)));
  }
  if (in.wz >= 0 && node_in(n, in.wz)) b = ex_sub(p, b, quant_lane(c, n, in.wz, idx[1], t));
  const Expr *sum = kit_reduce_all(c, RED_SUM, w.spatial, taps.vars, ex_mul(p, a, b));
  return kit_reduce(c, RED_SUM, ic, sum);
}

const Expr *elem_conv(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  const DType t = kit_compute(n);
  const Expr *e = conv_sum(c, n, float_in, t, idx);
  if (node_in(n, 2)) e = ex_add(c->pool, e, kit_in1(c, n, 2, idx[1], t));
  return kit_ret(c, n, out, e);
}

/* ---- integers ---- */
bool infer_conv_integer(Model *m, Node *n) {
  int64_t pad;
  const bool plain = !node_in(n, 2), is_signed = plain && n->in[0]->dtype == DT_I8;
  return op_int_in(m, n, "pad_value", 0, is_signed ? -128 : 0,
                   !plain      ? 0
                   : is_signed ? 127
                               : 255,
                   &pad) &&
         quant_need_8bit(m, n, 0) && quant_need_8bit(m, n, 1) && op_same_dtype(m, n, 2, 0) &&
         op_same_dtype(m, n, 3, 1) && kit_need_scalar(m, n, 2, "zero point of x") &&
         conv_out(m, n, DT_I32) && quant_need_lane(m, n, 3, n->in[1]->dims[0], "zero point of w");
}

const Expr *elem_conv_integer(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  return conv_sum(c, n, integer_in, DT_I32, idx);
}

/* Inputs: x, x_scale, x_zp, w, w_scale, w_zp, y_scale, y_zp, bias. */
bool infer_qlinear_conv(Model *m, Node *n) {
  if (!quant_need_8bit(m, n, 0) || !quant_need_8bit(m, n, 3) || !quant_need_8bit(m, n, 7) ||
      !op_same_dtype(m, n, 2, 0) || !op_same_dtype(m, n, 5, 3) || !op_need_dtype(m, n, 8, DT_I32) ||
      !kit_need_scalar(m, n, 1, "x_scale") || !kit_need_scalar(m, n, 2, "x_zero_point") ||
      !kit_need_scalar(m, n, 6, "y_scale") || !kit_need_scalar(m, n, 7, "y_zero_point"))
    return false;
  for (int k = 1; k < 7; k += k == 1 ? 3 : 2)
    if (!op_need_class(m, n, k, CL_FLOAT)) return false;
  return conv_out(m, n, n->in[7]->dtype) &&
         quant_need_lane(m, n, 4, n->in[3]->dims[0], "w_scale") &&
         quant_need_lane(m, n, 5, n->in[3]->dims[0], "w_zero_point");
}

const Expr *elem_qlinear_conv(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Expr *acc = conv_sum(c, n, qlinear_in, DT_I32, idx);
  if (node_in(n, 8)) acc = ex_add(p, acc, kit_in1(c, n, 8, idx[1], DT_I32));
  const Expr *scale = ex_mul(p, kit_scalar(c, n, 1, DT_F32), quant_lane(c, n, 4, idx[1], DT_F32));
  scale = ex_div(p, scale, kit_scalar(c, n, 6, DT_F32));
  const QuantTo to = {.t = n->out[out]->dtype, .zero = quant_zero(c, n, 7)};
  return quant_requantize(c, acc, scale, &to);
}

/* ---- ConvTranspose ---- */
static void out_pads(const Node *n, int spatial, int64_t *to) {
  const int64_t *v;
  const int count = node_ints(n, "output_padding", &v);
  for (int d = 0; d < spatial; d++) to[d] = d < count ? v[d] : 0;
}

/* Size that the full transposed convolution covers along d: stride*(in-1) + output_padding +
 * extent. */
static const Expr *full_size(ExprPool *p, const Window *w, int d, const Expr *in, int64_t out_pad) {
  const Expr *span = ex_mul(p, ex_sub(p, in, ex_i64(p, 1)), ex_i64(p, w->stride[d]));
  return ex_add(p, span, ex_i64(p, out_pad + window_extent(w, d)));
}

/* The attribute output_shape, or NULL; it may hold only the spatial sizes or all. */
static const int64_t *output_shape(const Node *n, int spatial) {
  const int64_t *v;
  const int count = node_ints(n, "output_shape", &v);
  return count == spatial ? v : count == spatial + 2 ? v + 2 : NULL;
}

/* Window with the pads of the transposed convolution, and output sizes. */
static Window transpose_window(ExprPool *p, const Node *n, const Value *x, const int64_t *kernel,
                               const Expr **size) {
  Window w = window_get(p, n, x, kernel);
  const char *mode = node_string(n, "auto_pad", "NOTSET");
  const bool same = mode[0] == 'S', upper = same && mode[5] == 'U';
  const int64_t *shape = output_shape(n, w.spatial);
  int64_t extra[MAX_SPATIAL];
  out_pads(n, w.spatial, extra);
  w.pad_const = true;
  for (int d = 0; d < w.spatial; d++) {
    const Expr *in = x->dims[2 + d], *full = full_size(p, &w, d, in, extra[d]);
    if (shape || same) {
      size[d] = shape ? ex_i64(p, shape[d]) : ex_mul(p, in, ex_i64(p, w.stride[d]));
      const Expr *total = ex_max(p, ex_sub(p, full, size[d]), ex_i64(p, 0));
      const Expr *half = ex_floordiv(p, total, ex_i64(p, 2)), *rest = ex_sub(p, total, half);
      w.lo[d] = upper ? half : rest;
      w.hi[d] = upper ? rest : half;
    } else {
      size[d] = ex_sub(p, ex_sub(p, full, w.lo[d]), w.hi[d]);
    }
    if (!expr_is_const(w.lo[d], &w.pad_lo[d]) || !expr_is_const(w.hi[d], &w.pad_hi[d]))
      w.pad_const = false;
  }
  return w;
}

static bool transpose_attrs(Model *m, const Node *n, int spatial) {
  static const char *const names[] = {"output_padding", "output_shape"};
  for (int k = 0; k < 2; k++) {
    const int64_t *v;
    int count;
    if (!op_ints(m, n, names[k], &v, &count)) return false;
    if (count > 0 && count != spatial && !(k == 1 && count == spatial + 2))
      return op_error(m, n, ERR_ATTR_VALUE, "attribute %s has %d values, must have %d", names[k],
                      count, spatial);
    for (int i = 0; i < count; i++)
      if (v[i] < 0 || v[i] > WINDOW_MAX_VALUE)
        return op_error(m, n, ERR_ATTR_VALUE, "attribute %s has the value %lld", names[k],
                        (long long)v[i]);
  }
  return true;
}

bool infer_conv_transpose(Model *m, Node *n) {
  const Value *x = n->in[0];
  int64_t group, c_out, kernel[MAX_SPATIAL];
  const Expr *dims[MAX_RANK], *zero = ex_i64(m->pool, 0);
  DType t;
  if (!op_need_class(m, n, 0, CL_FLOAT) || !op_product_types(m, n, &t) ||
      !conv_channels(m, n, float_in, true, &group, &c_out) || !conv_bias(m, n, 2, c_out) ||
      !window_weights(m, n, 1, kernel) || !window_check(m, n, x, kernel) ||
      !transpose_attrs(m, n, x->rank - 2))
    return false;
  const Window w = transpose_window(m->pool, n, x, kernel, dims + 2);
  for (int d = 0; d < w.spatial; d++)
    if (expr_is_i64(op_times(m, x->dims[2 + d], ex_i64(m->pool, w.stride[d])), INT64_MAX))
      return op_error(m, n, ERR_OVERFLOW, "spatial dim %d becomes too large", d);
  dims[0] = x->dims[0];
  dims[1] = ex_i64(m->pool, c_out);
  for (int d = 2; d < x->rank; d++)
    if (!require_at_least(m, n, dims[d], zero, "size of the output")) return false;
  return op_out(m, n, 0, t, x->rank, dims);
}

/* Output o takes input i where i*stride + k*dilation - pad == o. */
const Expr *elem_conv_transpose(ElemCtx *c, const Node *n, int out, const Expr *const *idx) {
  ExprPool *p = c->pool;
  const Value *x = n->in[0], *wt = n->in[1];
  const Expr *size[MAX_SPATIAL], *vars[MAX_SPATIAL], *guard = ex_bool(p, true);
  int64_t kernel[MAX_SPATIAL];
  window_weights_get(wt, kernel);
  const Window w = transpose_window(p, n, x, kernel, size);
  const int64_t group = node_int(n, "group", 1), out_per = dim_const(wt, 1),
                in_per = dim_const(wt, 0) / group;
  const Expr *ic = kit_var(c, "ic", ex_i64(p, in_per));
  const Expr *channel = group_channel(p, idx[1], ic, group, out_per, in_per);
  const Expr *at_x[MAX_RANK] = {idx[0], channel};
  const Expr *at_w[MAX_RANK] = {channel,
                                group == 1 ? idx[1] : ex_floormod(p, idx[1], ex_i64(p, out_per))};
  for (int d = 0; d < w.spatial; d++) {
    const Expr *stride = ex_i64(p, w.stride[d]);
    at_w[2 + d] = vars[d] = kit_var(c, "k", ex_i64(p, w.kernel[d]));
    const Expr *t =
        ex_sub(p, ex_add(p, idx[2 + d], w.lo[d]), ex_mul(p, vars[d], ex_i64(p, w.dilation[d])));
    at_x[2 + d] = ex_floordiv(p, t, stride);
    if (w.stride[d] > 1)
      guard = ex_and(p, guard, ex_eq(p, ex_floormod(p, t, stride), ex_i64(p, 0)));
    guard = ex_and(p, guard, kit_inside(p, at_x[2 + d], x->dims[2 + d]));
  }
  const DType t = kit_compute(n);
  const Expr *a = ex_cast(p, t, elem_in_guarded(c, n, 0, at_x, kit_is_true(guard) ? NULL : guard));
  const Expr *e =
      kit_reduce_all(c, RED_SUM, w.spatial, vars, ex_mul(p, a, kit_in(c, n, 1, at_w, t)));
  e = kit_reduce(c, RED_SUM, ic, e);
  if (node_in(n, 2)) e = ex_add(p, e, kit_in1(c, n, 2, idx[1], t));
  return kit_ret(c, n, out, e);
}

/* ---- conv_info ---- */
bool conv_info(const Node *n, ConvInfo *info) {
  const bool transposed = kit_is(n, "ConvTranspose");
  if (!transposed && !kit_is(n, "Conv") && !kit_is(n, "ConvInteger") && !kit_is(n, "QLinearConv"))
    return false;
  const ConvIn in = conv_in(n);
  const Value *x = n->in[in.x], *wt = n->in[in.w];
  const Expr *size[MAX_SPATIAL];
  int64_t kernel[MAX_SPATIAL];
  window_weights_get(wt, kernel);
  ExprPool *p = n->graph->model->pool;
  const Window w =
      transposed ? transpose_window(p, n, x, kernel, size) : window_get(p, n, x, kernel);
  *info =
      (ConvInfo){.spatial = w.spatial, .group = node_int(n, "group", 1), .transposed = transposed};
  for (int d = 0; d < w.spatial; d++) {
    info->kernel[d] = w.kernel[d];
    info->stride[d] = w.stride[d];
    info->dilation[d] = w.dilation[d];
    info->pad_lo[d] = w.pad_lo[d];
    info->pad_hi[d] = w.pad_hi[d];
  }
  info->pad_value = pad_value(n);
  if (transposed) out_pads(n, w.spatial, info->out_pad);
  info->c_in = transposed ? dim_const(wt, 0) : dim_const(wt, 1) * info->group;
  info->c_out = transposed ? dim_const(wt, 1) * info->group : dim_const(wt, 0);
  return w.pad_const;
}
