/* What ONNX Runtime's optimizer makes of convolutions and poolings (com.microsoft): FusedConv,
 * NhwcConv, NhwcFusedConv, QLinearConv with channels last, NhwcMaxPool,
 * ConvTransposeWithDynamicPads. They become the operators that they were. */
#include "ir/ops/nn/nn_fused.h"

#include <string.h>

#include "ir/ops/nn/nn_window.h"

/* ---- channels last ---- */

Value *channels_moved(Build *b, Value *v, bool last) {
  int64_t perm[MAX_RANK];
  const int rank = v->rank;
  perm[0] = 0;
  for (int d = 1; d < rank; d++)
    perm[d] = last ? (d + 1 < rank ? d + 1 : 1) : d > 1 ? d - 1 : rank - 1;
  const Attr a = attr_ints(b->m->arena, "perm", rank, perm);
  return build_op(b, "Transpose", 1, &v, 1, &a);
}

/* dims with the channels moved as above. */
static void move_dims(int rank, const Expr *const *from, bool last, const Expr **to) {
  to[0] = from[0];
  for (int d = 1; d < rank; d++)
    to[d] = from[last ? (d + 1 < rank ? d + 1 : 1) : d > 1 ? d - 1 : rank - 1];
}

bool channels_window_out(Model *m, Node *n, bool last) {
  Value view = *n->in[0]; /* for the shape rule only */
  const Expr *in[MAX_RANK], *dims[MAX_RANK], *back[MAX_RANK];
  int64_t v;
  if (last) {
    move_dims(view.rank, (const Expr *const *)n->in[0]->dims, false, in);
    view.dims = in;
  }
  if (!window_check(m, n, &view, NULL) || !op_int_in(m, n, "ceil_mode", 0, 0, 1, &v)) return false;
  const Window w = window_get(m->pool, n, &view, NULL);
  dims[0] = view.dims[0];
  dims[1] = view.dims[1];
  if (!window_out_dims(m, n, &w, &view, dims)) return false;
  if (last) move_dims(view.rank, dims, true, back);
  return op_out(m, n, 0, view.dtype, view.rank, last ? back : dims);
}

/* The attributes of n but those of com.microsoft. */
static int plain_attrs(Build *b, const Node *n, Attr **attrs) {
  static const char *const own[] = {"channels_last", "activation", "activation_params", NULL};
  int count = 0;
  *attrs = ARENA_ARRAY(b->m->arena, Attr, n->n_attrs + 1);
  for (int k = 0; k < n->n_attrs; k++) {
    const char *const *o = own;
    while (*o && strcmp(*o, n->attrs[k].name) != 0) o++;
    if (!*o) (*attrs)[count++] = n->attrs[k];
  }
  return count;
}

/* The operator of the default domain of this name, computed with channels first. */
static bool with_channels_first(Build *b, Node *n, const char *op, bool last, Value **out) {
  Attr *attrs;
  const int count = plain_attrs(b, n, &attrs);
  Value **in = ARENA_ARRAY(b->m->arena, Value *, n->n_in + 1);
  memcpy(in, n->in, sizeof *in * (size_t)n->n_in);
  if (last) in[0] = channels_moved(b, in[0], false);
  if (b->ok) out[0] = build_op(b, op, n->n_in, in, count, attrs);
  if (b->ok && last) out[0] = channels_moved(b, out[0], true);
  return b->ok;
}

bool infer_nhwc_max_pool(Model *m, Node *n) {
  return op_need_class(m, n, 0, CL_NUMBER) && op_need_rank(m, n, 0, 3, 2 + MAX_SPATIAL) &&
         channels_window_out(m, n, true);
}

bool expand_nhwc_max_pool(Build *b, Node *n, Value **out) {
  return with_channels_first(b, n, "MaxPool", true, out);
}

/* The rule `plain` of a convolution, where x, the result and, if `weights`, the weights have their
 * channels last. */
static bool channels_last_out(Model *m, Node *n, InferFn plain, bool weights) {
  Value view[2], **const saved = n->in;
  const Expr *dims[MAX_RANK], *moved[2][MAX_RANK];
  for (int k = 0; k < 1 + weights; k++)
    if (!op_need_rank(m, n, k, 3, 2 + MAX_SPATIAL)) return false;
  n->in = ARENA_ARRAY(m->arena, Value *, n->n_in);
  memcpy(n->in, saved, sizeof *saved * (size_t)n->n_in);
  for (int k = 0; k < 1 + weights; k++) {
    view[k] = *saved[k];
    move_dims(view[k].rank, (const Expr *const *)view[k].dims, false, moved[k]);
    view[k].dims = moved[k];
    n->in[k] = &view[k];
  }
  const bool ok = plain(m, n);
  n->in = saved;
  if (!ok) return false;
  move_dims(n->out[0]->rank, (const Expr *const *)n->out[0]->dims, true, dims);
  return op_out(m, n, 0, n->out[0]->dtype, n->out[0]->rank, dims);
}

bool infer_ms_qlinear_conv(Model *m, Node *n) {
  int64_t last;
  if (!op_int_in(m, n, "channels_last", 0, 0, 1, &last)) return false;
  if (!last) return infer_qlinear_conv(m, n);
  return channels_last_out(m, n, infer_qlinear_conv, false);
}

bool expand_ms_qlinear_conv(Build *b, Node *n, Value **out) {
  return with_channels_first(b, n, "QLinearConv", node_int(n, "channels_last", 0) != 0, out);
}

/* ---- FusedConv: x, w, bias, z (added); an activation behind it ---- */
static const char *const activations[] = {"",          "Relu", "Tanh",        "Sigmoid",
                                          "LeakyRelu", "Clip", "HardSigmoid", NULL};
enum { ACT_NONE, ACT_LEAKY = 4, ACT_CLIP, ACT_HARD };

static bool activation_of(Model *m, const Node *n, int *act, double *params) {
  const Attr *a = node_attr(n, "activation_params");
  if (!op_choice(m, n, "activation", "", activations, act)) return false;
  const int count = *act < ACT_LEAKY ? 0 : *act == ACT_LEAKY ? 1 : 2;
  if (count && (!a || a->kind != AT_FLOATS || a->n != count))
    return op_error(m, n, ERR_ATTR_VALUE, "%s needs %d activation_params", activations[*act],
                    count);
  for (int k = 0; k < count; k++) params[k] = a->floats[k];
  return true;
}

static bool need_sum(Model *m, const Node *n) {
  const Value *y = n->out[0];
  return !node_in(n, 3) ||
         (op_same_dtype(m, n, 3, 0) && op_need_rank(m, n, 3, y->rank, y->rank) &&
          require_shape(m, n, 3, 0, y->rank, (const Expr *const *)y->dims, "dim of the sum"));
}

bool infer_fused_conv(Model *m, Node *n) {
  int act;
  double params[2];
  return activation_of(m, n, &act, params) && infer_conv(m, n) && need_sum(m, n);
}

/* The weights have their channels last in NhwcConv, not in NhwcFusedConv. */
bool infer_nhwc_conv(Model *m, Node *n) { return channels_last_out(m, n, infer_conv, true); }

bool infer_nhwc_fused_conv(Model *m, Node *n) {
  int act;
  double params[2];
  return activation_of(m, n, &act, params) && channels_last_out(m, n, infer_conv, false) &&
         need_sum(m, n);
}

static Value *activated(Build *b, Value *v, int act, const double *params) {
  Arena *a = b->m->arena;
  if (act == ACT_NONE || !b->ok) return v;
  if (act == ACT_CLIP) {
    Value *in[] = {v, build_scalar(b, v->dtype, params[0]), build_scalar(b, v->dtype, params[1])};
    return build_op(b, "Clip", 3, in, 0, NULL);
  }
  const Attr attrs[] = {attr_float(a, "alpha", params[0]), attr_float(a, "beta", params[1])};
  return build_op(b, activations[act], 1, &v, act == ACT_HARD ? 2 : act == ACT_LEAKY, attrs);
}

static bool fused_conv(Build *b, Node *n, bool last, Value **out) {
  Attr *attrs;
  int act;
  double params[2] = {0};
  const int count = plain_attrs(b, n, &attrs);
  Value *in[] = {n->in[0], n->in[1], node_in(n, 2)};
  if (!activation_of(b->m, n, &act, params)) return false;
  if (last) in[0] = channels_moved(b, in[0], false);
  if (!b->ok) return false;
  Value *y = build_op(b, "Conv", in[2] ? 3 : 2, in, count, attrs);
  if (b->ok && last) y = channels_moved(b, y, true);
  if (b->ok && node_in(n, 3)) y = build2(b, "Add", y, n->in[3]);
  out[0] = activated(b, y, act, params);
  return b->ok;
}

bool expand_fused_conv(Build *b, Node *n, Value **out) { return fused_conv(b, n, false, out); }

bool expand_nhwc_fused_conv(Build *b, Node *n, Value **out) { return fused_conv(b, n, true, out); }

bool expand_nhwc_conv(Build *b, Node *n, Value **out) {
  Attr *attrs;
  const int count = plain_attrs(b, n, &attrs);
  Value *in[] = {channels_moved(b, n->in[0], false), NULL, node_in(n, 2)};
  if (b->ok) in[1] = channels_moved(b, n->in[1], false);
  if (b->ok) out[0] = build_op(b, "Conv", in[2] ? 3 : 2, in, count, attrs);
  if (b->ok) out[0] = channels_moved(b, out[0], true);
  return b->ok;
}

/* ---- ConvTransposeWithDynamicPads: x, w, pads, bias; the pads must be known ---- */
static bool with_pads(Model *m, const Node *n, Attr **attrs) {
  const int64_t *pads = NULL;
  int count = 0;
  *attrs = ARENA_ARRAY(m->arena, Attr, n->n_attrs + 1);
  if (n->n_attrs) memcpy(*attrs, n->attrs, sizeof **attrs * (size_t)n->n_attrs);
  if (!node_in(n, 2)) return true;
  if (!op_known_ints(m, n, 2, &pads, &count))
    return op_error(m, n, ERR_DYNAMIC,
                    "pads that are known from data only; as a constant they are supported");
  (*attrs)[n->n_attrs] = attr_ints(m->arena, "pads", count, pads);
  return true;
}

bool infer_conv_transpose_pads(Model *m, Node *n) {
  Node view = *n; /* as ConvTranspose has it, for its rule only */
  Value *in[] = {n->in[0], n->in[1], node_in(n, 3)};
  if (!op_need_rank(m, n, 2, 1, 1) || !with_pads(m, n, &view.attrs)) return false;
  view.n_attrs += node_in(n, 2) != NULL;
  view.in = in;
  view.n_in = in[2] ? 3 : 2;
  return infer_conv_transpose(m, &view);
}

bool expand_conv_transpose_pads(Build *b, Node *n, Value **out) {
  Attr *attrs;
  Value *in[] = {n->in[0], n->in[1], node_in(n, 3)};
  if (!with_pads(b->m, n, &attrs)) return false;
  out[0] =
      build_op(b, "ConvTranspose", in[2] ? 3 : 2, in, n->n_attrs + (node_in(n, 2) != NULL), attrs);
  return b->ok;
}
