/* The sliding window (nn_window.h). auto_pad SAME of a symbolic size gives pads that are
 * expressions. */
#include "ir/ops/nn/nn_window.h"
#include <string.h>

static const char *const auto_pads[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", NULL};
enum { PAD_GIVEN, PAD_UPPER, PAD_LOWER, PAD_VALID };

static int auto_pad(const Node *n) {
  const char *s = node_string(n, "auto_pad", "NOTSET");
  for (int k = 0; auto_pads[k]; k++)
    if (strcmp(s, auto_pads[k]) == 0) return k;
  return PAD_GIVEN;
}

/* ---- checks ---- */
static bool check_list(Model *m, const Node *n, const char *name, int want, int64_t lo) {
  const int64_t *v;
  int count;
  if (!op_ints(m, n, name, &v, &count)) return false;
  if (count > 0 && count != want)
    return op_error(m, n, ERR_ATTR_VALUE, "attribute %s has %d values, must have %d", name, count,
                    want);
  for (int i = 0; i < count; i++)
    if (v[i] < lo || v[i] > WINDOW_MAX_VALUE)
      return op_error(m, n, ERR_ATTR_VALUE, "attribute %s has the value %lld", name,
                      (long long)v[i]);
  return true;
}

bool window_check(Model *m, const Node *n, const Value *x, const int64_t *kernel) {
  const int s = x->rank - 2;
  int mode;
  const int64_t *given;
  if (!check_list(m, n, "kernel_shape", s, 1) || !check_list(m, n, "strides", s, 1) ||
      !check_list(m, n, "dilations", s, 1) || !check_list(m, n, "pads", 2 * s, 0) ||
      !op_choice(m, n, "auto_pad", "NOTSET", auto_pads, &mode))
    return false;
  const int count = node_ints(n, "kernel_shape", &given);
  if (!kernel && !count)
    return op_error(m, n, ERR_ATTR_MISSING, "attribute kernel_shape is missing");
  for (int d = 0; kernel && d < count; d++)
    if (given[d] != kernel[d])
      return op_error(m, n, ERR_ATTR_VALUE, "kernel_shape[%d] is %lld, the weights have %lld", d,
                      (long long)given[d], (long long)kernel[d]);
  return true;
}

bool window_weights(Model *m, const Node *n, int k, int64_t *kernel) {
  const Value *w = n->in[k];
  for (int d = 2; d < w->rank; d++) {
    int64_t v;
    if (!expr_is_const(w->dims[d], &v))
      return op_error(m, n, ERR_UNSUPPORTED, "kernel size (dim %d of input %d) must be a constant",
                      d, k);
    if (v < 1 || v > WINDOW_MAX_VALUE)
      return op_error(m, n, ERR_SHAPE, "kernel size (dim %d of input %d) is %lld", d, k,
                      (long long)v);
    kernel[d - 2] = v;
  }
  return true;
}

void window_weights_get(const Value *w, int64_t *kernel) {
  for (int d = 2; d < w->rank; d++) expr_is_const(w->dims[d], &kernel[d - 2]);
}

/* ---- reading ---- */
static void read_list(const Node *n, const char *name, int count, int64_t def, int64_t *to) {
  const int64_t *v;
  const int have = node_ints(n, name, &v);
  for (int i = 0; i < count; i++) to[i] = i < have ? v[i] : def;
}

/* Pads that make the output ceil(in / stride) long. */
static void same_pads(ExprPool *p, Window *w, int d, const Expr *in, bool upper) {
  const Expr *out = ex_ceildiv(p, in, w->stride[d]);
  const Expr *span = ex_add(p, ex_mul(p, ex_sub(p, out, ex_i64(p, 1)), ex_i64(p, w->stride[d])),
                            ex_i64(p, window_extent(w, d)));
  const Expr *total = ex_max(p, ex_sub(p, span, in), ex_i64(p, 0));
  const Expr *small = ex_floordiv(p, total, ex_i64(p, 2)), *big = ex_sub(p, total, small);
  w->lo[d] = upper ? small : big;
  w->hi[d] = upper ? big : small;
}

Window window_get(ExprPool *p, const Node *n, const Value *x, const int64_t *kernel) {
  Window w = {.spatial = x->rank - 2, .pad_const = true};
  int64_t pads[2 * MAX_SPATIAL];
  const int s = w.spatial, mode = auto_pad(n);
  read_list(n, "kernel_shape", s, 1, w.kernel);
  for (int d = 0; kernel && d < s; d++) w.kernel[d] = kernel[d];
  read_list(n, "strides", s, 1, w.stride);
  read_list(n, "dilations", s, 1, w.dilation);
  read_list(n, "pads", 2 * s, 0, pads);
  for (int d = 0; d < s; d++) {
    w.lo[d] = ex_i64(p, mode == PAD_GIVEN ? pads[d] : 0);
    w.hi[d] = ex_i64(p, mode == PAD_GIVEN ? pads[s + d] : 0);
    if (mode == PAD_UPPER || mode == PAD_LOWER)
      same_pads(p, &w, d, x->dims[2 + d], mode == PAD_UPPER);
    const bool known = expr_is_const(w.lo[d], &w.pad_lo[d]) && expr_is_const(w.hi[d], &w.pad_hi[d]);
    w.pad_const = w.pad_const && known;
    w.no_outside[d] = known && w.pad_lo[d] == 0 && w.pad_hi[d] == 0 && !node_int(n, "ceil_mode", 0);
  }
  return w;
}

/* ---- output size ---- */
const Expr *window_out(ExprPool *p, const Node *n, const Window *w, int d, const Expr *in) {
  const int mode = auto_pad(n);
  const Expr *stride = ex_i64(p, w->stride[d]), *one = ex_i64(p, 1);
  if (mode == PAD_UPPER || mode == PAD_LOWER) return ex_ceildiv(p, in, w->stride[d]);
  const Expr *padded = ex_add(p, ex_add(p, in, w->lo[d]), w->hi[d]);
  const Expr *room = ex_sub(p, padded, ex_i64(p, window_extent(w, d)));
  if (!node_int(n, "ceil_mode", 0)) return ex_add(p, ex_floordiv(p, room, stride), one);
  /* A window that would start in the padding after the input is dropped. */
  const Expr *last = ex_floordiv(p, ex_sub(p, ex_add(p, in, w->lo[d]), one), stride);
  return ex_add(p, ex_min(p, ex_ceildiv(p, room, w->stride[d]), last), one);
}

bool window_out_dims(Model *m, const Node *n, const Window *w, const Value *x, const Expr **dims) {
  for (int d = 0; d < w->spatial; d++) {
    dims[2 + d] = window_out(m->pool, n, w, d, x->dims[2 + d]);
    if (!require_at_least(m, n, dims[2 + d], ex_i64(m->pool, 1),
                          "places of the kernel in the padded input"))
      return false;
  }
  return true;
}

/* ---- elem ---- */
Taps window_taps(ElemCtx *c, const Window *w, const Value *x, const Expr *const *out_idx) {
  static const char *const stems[MAX_SPATIAL] = {"kh", "kw", "kd", "k3", "k4", "k5"};
  ExprPool *p = c->pool;
  Taps t = {.inside = ex_bool(p, true)};
  for (int d = 0; d < w->spatial; d++) {
    t.vars[d] = kit_var(c, stems[d], ex_i64(p, w->kernel[d]));
    const Expr *at = ex_add(p, ex_mul(p, out_idx[d], ex_i64(p, w->stride[d])),
                            ex_mul(p, t.vars[d], ex_i64(p, w->dilation[d])));
    t.at[d] = ex_sub(p, at, w->lo[d]);
    if (!w->no_outside[d]) t.inside = ex_and(p, t.inside, kit_inside(p, t.at[d], x->dims[2 + d]));
  }
  return t;
}
