/* Gradients of normalizations (Ioffe and Szegedy, Batch Normalization, 2015; Ba et al., Layer
 * Normalization, 2016; Zhang and Sennrich, Root Mean Square Layer Normalization, 2019), losses and
 * what stands around attention. */
#include <math.h>
#include <string.h>
#include "ir/op/gradient.h"
#include "ir/op/kit.h"

/* The text with a number of type t where it says %s. */
static const char *with_number(Build *b, const char *text, DType t, double v) {
  return arena_printf(b->m->arena, text, build_number(b, t, v));
}

static int but_channels(const Value *x, int64_t *axes) {
  int n = 0;
  for (int d = 0; d < x->rank; d++)
    if (d != 1) axes[n++] = d;
  return n;
}

/* ---- BatchNormalization ---- */
/* In training form the moments become values of their own; behind them it is as in use. */
bool parts_batch_norm(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  const DType t = kit_compute(n);
  int64_t axes[MAX_RANK];
  const int count = but_channels(n->in[0], axes);
  Value *x = build_cast(b, n->in[0], t);
  Value *mean = build_mean(b, x, count, axes, false);
  Value *centre = b->ok ? build_channels(b, mean, t, x->rank) : mean;
  Value *spread =
      b->ok ? build_node(b, "SquaredDeviation", "burin", 2, (Value *[]){x, centre}, 1, 0, NULL)
                  ->out[0]
            : x;
  Value *var = build_mean(b, spread, count, axes, false);
  if (!b->ok) return false;
  const Attr eps = attr_float(a, "epsilon", node_float(n, "epsilon", 1e-5));
  Value *in[] = {n->in[0], n->in[1], n->in[2], build_cast(b, mean, n->in[3]->dtype),
                 build_cast(b, var, n->in[4]->dtype)};
  out[0] = build_op(b, "BatchNormalization", 5, in, 1, &eps);
  const double keep = node_float(n, "momentum", 0.9);
  const char *text =
      arena_printf(a, "a * %s + b * %s", build_number(b, t, keep), build_number(b, t, 1 - keep));
  for (int k = 1; k < n->n_out; k++) {
    if (!n->out[k] || !b->ok) continue;
    Value *both[] = {build_cast(b, n->in[2 + k], t), k == 1 ? mean : var};
    out[k] = b->ok ? build_cast(b, build_map(b, t, text, 2, both), n->out[k]->dtype) : NULL;
  }
  return b->ok;
}

/* (x - mean)^2 where mean is that of x over what is summed next: it moves, but that adds up to 0. */
bool grad_squared_deviation(Gradient *s) {
  const Node *n = s->n;
  return gradient_give(s, n->in[0],
                       build_map(s->b, n->out[0]->dtype, "(c + c) * (a - b)", 3,
                                 (Value *[]){n->in[0], n->in[1], s->g[0]})) &&
         (!gradient_wants_in(s, 1) ||
          gradient_give(s, n->in[1], build_full_like(s->b, n->in[1], 0)));
}

static bool give_channels(Gradient *s, int k, Value *d) {
  Build *b = s->b;
  return b->ok && gradient_give(s, s->n->in[k], build_cast(b, d, s->n->in[k]->dtype));
}

/* As in use: x, scale, bias, mean, var; the moments are inputs. */
bool grad_batch_norm(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  const DType t = kit_compute(n);
  const int rank = n->in[0]->rank;
  int64_t axes[MAX_RANK];
  const int count = but_channels(n->in[0], axes);
  Value *g = build_cast(b, s->g[0], t), *x = build_cast(b, n->in[0], t), *p[5];
  for (int k = 1; k < 5; k++) p[k] = build_cast(b, n->in[k], t);
  const char *const text = with_number(b, "1 / sqrt(a + %s)", t, node_float(n, "epsilon", 1e-5));
  Value *r = build_map(b, t, text, 1, &p[4]);
  Value *factor = b->ok ? build2(b, "Mul", p[1], r) : r;
  if (gradient_wants_in(s, 0)) {
    Value *d = b->ok ? build2(b, "Mul", g, build_channels(b, factor, t, rank)) : g;
    if (!give_channels(s, 0, d)) return false;
  }
  if (gradient_wants_in(s, 2) || gradient_wants_in(s, 3)) {
    Value *sum =
        rank > 1 ? build_sum(b, g, count, axes, false) : build_sum(b, g, 1, (int64_t[]){0}, true);
    if (!give_channels(s, 2, sum)) return false;
    Value *d = build_map(b, t, "neg(a * b)", 2, (Value *[]){sum, factor});
    if (!give_channels(s, 3, d)) return false;
  }
  if (!gradient_wants_in(s, 1) && !gradient_wants_in(s, 4)) return true;
  Value *centre = build_channels(b, p[3], t, rank);
  Value *moved = build_map(b, t, "a * (b - c)", 3, (Value *[]){g, x, centre});
  Value *sum = rank > 1 ? build_sum(b, moved, count, axes, false)
                        : build_sum(b, moved, 1, (int64_t[]){0}, true);
  if (!give_channels(s, 1, build_map(b, t, "a * b", 2, (Value *[]){sum, r}))) return false;
  return give_channels(s, 4,
                       build_map(b, t, "-0.5 * a * b * c * c * c", 3, (Value *[]){sum, p[1], r}));
}

/* ---- norms that are made of parts ---- */
typedef struct Moments {
  Value *mean, *var;
} Moments;

static Moments moments(Build *b, Value *x, int n, const int64_t *axes) {
  Moments m = {.mean = build_mean(b, x, n, axes, true)};
  Value *spread =
      b->ok ? build_node(b, "SquaredDeviation", "burin", 2, (Value *[]){x, m.mean}, 1, 0, NULL)
                  ->out[0]
            : x;
  m.var = build_mean(b, spread, n, axes, true);
  return m;
}

static Value *normalized(Build *b, Value *x, const Moments *m, double eps) {
  return build_map(b, x->dtype, with_number(b, "(a - b) / sqrt(c + %s)", x->dtype, eps), 3,
                   (Value *[]){x, m->mean, m->var});
}

static bool scaled(Build *b, const Node *n, Value *v, Value **out) {
  const DType t = v->dtype;
  Value *scale = build_channels(b, n->in[1], t, n->in[0]->rank);
  Value *bias = b->ok ? build_channels(b, n->in[2], t, n->in[0]->rank) : NULL;
  if (b->ok) v = build_map(b, t, "a * b + c", 3, (Value *[]){v, scale, bias});
  out[0] = build_cast(b, v, n->out[0]->dtype);
  return b->ok;
}

bool parts_instance_norm(Build *b, Node *n, Value **out) {
  int64_t axes[MAX_RANK];
  Value *x = build_cast(b, n->in[0], kit_compute(n));
  for (int d = 2; d < x->rank; d++) axes[d - 2] = d;
  const Moments m = moments(b, x, x->rank - 2, axes);
  return b->ok && scaled(b, n, normalized(b, x, &m, node_float(n, "epsilon", 1e-5)), out);
}

bool parts_group_norm(Build *b, Node *n, Value **out) {
  const int64_t last = 2, split[] = {0, node_int(n, "num_groups", 1), -1};
  Value *x = build_cast(b, n->in[0], kit_compute(n));
  Value *v = b->ok ? build_reshape(b, x, 3, split) : x;
  const Moments m = moments(b, v, 1, &last);
  if (!b->ok) return false;
  v = normalized(b, v, &m, node_float(n, "epsilon", 1e-5));
  return b->ok && scaled(b, n, build_reshape_like(b, v, n->in[0]), out);
}

static int64_t axis_of(const Node *n, int64_t def) {
  const int64_t axis = node_int(n, "axis", def);
  return axis < 0 ? axis + n->in[0]->rank : axis;
}

bool parts_lp_norm(Build *b, Node *n, Value **out) {
  const int64_t axis = axis_of(n, -1);
  Value *x = build_cast(b, n->in[0], kit_compute(n));
  Value *norm = b->ok ? build2(b, node_int(n, "p", 2) == 2 ? "ReduceL2" : "ReduceL1", x,
                               build_i64s(b, 1, &axis))
                      : x;
  out[0] = build_map(b, x->dtype, "select(b == 0, 0, a / b)", 2, (Value *[]){x, norm});
  out[0] = build_cast(b, out[0], n->out[0]->dtype);
  return b->ok;
}

bool parts_mvn(Build *b, Node *n, Value **out) {
  static const int64_t usual[] = {0, 2, 3};
  const int64_t *axes;
  int count = node_ints(n, "axes", &axes);
  if (!count) axes = usual, count = 3;
  Value *x = build_cast(b, n->in[0], kit_compute(n));
  const Moments m = moments(b, x, count, axes);
  out[0] = build_map(b, x->dtype, with_number(b, "(a - b) / (sqrt(c) + %s)", x->dtype, 1e-9), 3,
                     (Value *[]){x, m.mean, m.var});
  out[0] = build_cast(b, out[0], n->out[0]->dtype);
  return b->ok;
}

/* Squares are added up over channels by an average of columns. */
bool parts_lrn(Build *b, Node *n, Value **out) {
  Arena *a = b->m->arena;
  const int64_t size = node_int(n, "size", 1), lo = (size - 1) / 2;
  const int64_t flat[] = {0, 0, -1}, kernel[] = {size, 1}, pads[] = {lo, 0, size - 1 - lo, 0};
  const DType t = kit_compute(n);
  const Attr attrs[] = {attr_ints(a, "kernel_shape", 2, kernel), attr_ints(a, "pads", 4, pads),
                        attr_int(a, "count_include_pad", 1)};
  Value *x = build_cast(b, n->in[0], t);
  Value *v = b->ok ? build_reshape(b, build2(b, "Mul", x, x), 3, flat) : x;
  v = b->ok ? build_unsqueeze(b, v, 1) : v;
  v = b->ok ? build_op(b, "AveragePool", 1, &v, 3, attrs) : v;
  v = build_reshape_like(b, v, x);
  const char *const text =
      arena_printf(a, "a / pow(%s + %s * b, %s)", build_number(b, t, node_float(n, "bias", 1)),
                   build_number(b, t, node_float(n, "alpha", 1e-4)),
                   build_number(b, t, node_float(n, "beta", 0.75)));
  out[0] = build_cast(b, build_map(b, t, text, 2, (Value *[]){x, v}), n->out[0]->dtype);
  return b->ok;
}

/* ---- LayerNormalization, RMSNormalization, SimplifiedLayerNormalization ---- */
bool grad_layer_norm(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  const bool centred = kit_is(n, "LayerNormalization");
  const DType own = dtype_compute(dtype_from_onnx(node_int(n, "stash_type", 1)));
  const DType t = kit_compute(n) == DT_F64 || own == DT_F64 ? DT_F64 : DT_F32;
  int64_t axes[MAX_RANK];
  int count = 0;
  for (int d = 1; d < n->n_out; d++)
    if (s->g[d]) return op_error(b->m, n, ERR_UNSUPPORTED, "output %d has no gradient yet", d);
  for (int64_t d = axis_of(n, -1); d < n->in[0]->rank; d++) axes[count++] = d;
  Value *g = build_cast(b, s->g[0], t), *x = build_cast(b, n->in[0], t);
  Value *scale = build_cast(b, n->in[1], t), *r = NULL, *unit = NULL;
  const double eps = node_float(n, "epsilon", 1e-5);
  if (!b->ok) return false;
  if (centred) {
    const Moments m = moments(b, x, count, axes);
    r = build_map(b, t, with_number(b, "1 / sqrt(a + %s)", t, eps), 1, (Value *[]){m.var});
    unit = build_map(b, t, "(a - b) * c", 3, (Value *[]){x, m.mean, r});
  } else {
    Value *square = build_mean(b, build2(b, "Mul", x, x), count, axes, true);
    r = build_map(b, t, with_number(b, "1 / sqrt(a + %s)", t, eps), 1, &square);
    unit = b->ok ? build2(b, "Mul", x, r) : x;
  }
  if (!b->ok) return false;
  if (gradient_wants_in(s, 0)) {
    Value *gg = build2(b, "Mul", g, scale), *d;
    Value *along = b->ok ? build_mean(b, build2(b, "Mul", gg, unit), count, axes, true) : gg;
    if (centred)
      d = build_map(b, t, "a * (b - c - d * e)", 5,
                    (Value *[]){r, gg, build_mean(b, gg, count, axes, true), unit, along});
    else
      d = build_map(b, t, "a * (b - c * d)", 4, (Value *[]){r, gg, unit, along});
    if (!b->ok || !gradient_give(s, n->in[0], build_cast(b, d, n->in[0]->dtype))) return false;
  }
  if (gradient_wants_in(s, 1)) {
    Value *d = build_sum_to(b, build2(b, "Mul", g, unit), n->in[1]);
    if (!give_channels(s, 1, d)) return false;
  }
  return !gradient_wants_in(s, 2) || give_channels(s, 2, build_sum_to(b, g, n->in[2]));
}

/* ---- Dropout while it trains: x, ratio, training_mode → y, mask ---- */
bool grad_training_dropout(Gradient *s) {
  Node *n = (Node *)(uintptr_t)s->n; /* the mask becomes an output where nobody asked for it */
  Build *b = s->b;
  if (!node_out(n, 1)) {
    n->n_out = 1;
    node_add_output(n, NULL);
    b->ok = b->ok && op_infer(b->m, n);
  }
  Value *ratio = build_cast(b, n->in[1], n->in[0]->dtype);
  Value *in[] = {s->g[0], n->out[1], ratio, n->in[2]};
  return b->ok && gradient_give(s, n->in[0],
                                build_map(b, n->in[0]->dtype,
                                          "select(d, select(b, a / (1 - c), 0), a)", 4, in));
}

/* ---- attention ---- */
/* Elements of v that are turned, as [batch, heads, length, pairs]: the first or second of each. */
static Value *turned(Build *b, const Node *n, Value *v, int64_t half, int which) {
  if (v->rank == 3 && b->ok) {
    const int64_t shape[] = {0, 0, node_int(n, "num_heads", 1), -1}, perm[] = {0, 2, 1, 3};
    v = build_reshape(b, v, 4, shape);
    v = b->ok ? build_transpose(b, v, 4, perm) : v;
  }
  if (!node_int(n, "interleaved", 0))
    return b->ok ? build_slice(b, v, 3, which * half, (which + 1) * half) : v;
  const int64_t pairs[] = {0, 0, 0, half, 2}, back[] = {0, 0, 0, half};
  v = b->ok ? build_reshape(b, build_slice(b, v, 3, 0, 2 * half), 5, pairs) : v;
  return b->ok ? build_reshape(b, build_slice(b, v, 4, which, which + 1), 4, back) : v;
}

/* d [batch, heads, length, pairs] is the gradient of input k, with one row for all heads, and for
 * all places with one position id. */
static bool give_angles(Gradient *s, int k, Value *d) {
  Build *b = s->b;
  const Node *n = s->n;
  const int64_t heads = 1;
  d = build_sum(b, d, 1, &heads, false);
  if (!node_in(n, 3)) return b->ok && gradient_give(s, n->in[k], d);
  return b->ok && gradient_give_at(s, k, build_unsqueeze(b, n->in[3], 2), d);
}

/* Turned back: the sine changes its sign. */
bool grad_rotary(Gradient *s) {
  const Node *n = s->n;
  Build *b = s->b;
  if (gradient_wants_in(s, 1) || gradient_wants_in(s, 2)) {
    int64_t half;
    if (!expr_is_const(n->in[1]->dims[n->in[1]->rank - 1], &half))
      return op_error(b->m, n, ERR_DYNAMIC,
                      "a gradient of the angles needs a constant rotary size");
    const DType t = n->in[0]->dtype;
    Value *in[] = {turned(b, n, s->g[0], half, 0), turned(b, n, s->g[0], half, 1),
                   turned(b, n, n->in[0], half, 0), turned(b, n, n->in[0], half, 1)};
    static const char *const text[] = {"a * c + b * d", "b * c - a * d"};
    for (int k = 1; k < 3 && b->ok; k++)
      if (gradient_wants_in(s, k) && !give_angles(s, k, build_map(b, t, text[k - 1], 4, in)))
        return false;
    if (!b->ok) return false;
  }
  if (!gradient_wants_in(s, 0)) return true;
  Value *in[4] = {s->g[0], n->in[1], build1(b, "Neg", n->in[2]), node_in(n, 3)};
  return b->ok &&
         gradient_give(s, n->in[0], build_op(b, n->op->name, n->n_in, in, n->n_attrs, n->attrs));
}

/* Nothing where a score is masked. */
bool grad_mask_scores(Gradient *s) {
  const Node *n = s->n;
  Build *b = s->b;
  const DType t = n->out[0]->dtype;
  Value *d = build_map(b, t, with_number(b, "select(a == %s, 0, b)", t, -INFINITY), 2,
                       (Value *[]){n->out[0], s->g[0]});
  if (!b->ok || !gradient_give(s, n->in[0], d)) return false;
  if (!gradient_wants_in(s, 1)) return true;
  const Value *mask = n->in[1];
  if (node_int(n, "heads_per_row", 1) != 1 || (mask->dims[mask->rank - 1] != n->in[0]->dims[3] &&
                                               !expr_is_i64(mask->dims[mask->rank - 1], 1)))
    return op_error(b->m, n, ERR_UNSUPPORTED, "the mask of such an attention has no gradient yet");
  d = build_cast(b, d, mask->dtype);
  return b->ok && gradient_give_in(s, 1, d);
}

/* ---- NegativeLogLikelihoodLoss: x [N, C, …], target [N, …], weights [C] ---- */
/* Does a target count, and its weight there: 1 or 0 where there are no weights. */
static Value *target_weight(Gradient *s, Value *target, Value *classes, Value **safe) {
  Build *b = s->b;
  const Node *n = s->n;
  const DType t = n->in[0]->dtype;
  const char *text = "(0 <= a) & (a < b)";
  if (node_attr(n, "ignore_index"))
    text = arena_printf(b->m->arena, "(0 <= a) & (a < b) & (a != %lld)",
                        (long long)node_int(n, "ignore_index", -1));
  Value *counts = build_map(b, DT_BOOL, text, 2, (Value *[]){target, classes});
  *safe = build_map(b, DT_I64, "select(a, b, 0)", 2, (Value *[]){counts, target});
  if (!node_in(n, 2)) return build_cast(b, counts, t);
  Value *w = b->ok ? build2(b, "Gather", n->in[2], *safe) : counts;
  return build_map(b, t, "select(a, b, 0)", 2, (Value *[]){counts, w});
}

/* Each target adds to its class what the loss changes by with that weight: g (-x), and of a mean
 * g (-x - the mean) / the sum of weights. */
static bool give_class_weights(Gradient *s, Value *target, Value *classes, Value *safe,
                               Value *sum) {
  Build *b = s->b;
  const Node *n = s->n;
  const DType t = n->in[0]->dtype;
  const Attr axis = attr_int(b->m->arena, "axis", 1);
  const char *counted = "(0 <= a) & (a < b)";
  if (node_attr(n, "ignore_index"))
    counted = arena_printf(b->m->arena, "(0 <= a) & (a < b) & (a != %lld)",
                           (long long)node_int(n, "ignore_index", -1));
  Value *counts = build_map(b, DT_BOOL, counted, 2, (Value *[]){target, classes});
  Value *at = b->ok ? build_unsqueeze(b, safe, 1) : safe;
  Value *x = b->ok ? build_op(b, "GatherElements", 2, (Value *[]){n->in[0], at}, 1, &axis) : at;
  x = b->ok ? build_reshape_like(b, x, safe) : x;
  Value *d = sum ? build_map(b, t, "select(c, b * (neg(a) - d) / e, 0)", 5,
                             (Value *[]){x, s->g[0], counts, n->out[0], sum})
                 : build_map(b, t, "select(c, neg(a) * b, 0)", 3, (Value *[]){x, s->g[0], counts});
  const int64_t flat = -1, column[] = {-1, 1};
  if (!b->ok) return false;
  return gradient_give_at(s, 2, build_reshape(b, safe, 2, column), build_reshape(b, d, 1, &flat));
}

bool grad_nll_loss(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[0], *safe, *g = s->g[0];
  const char *mode = node_string(n, "reduction", "mean");
  const int64_t one = 1;
  Value *classes = build_reshape(b, build_shape(b, x, 1, 2), 0, NULL);
  Value *target = build_cast(b, n->in[1], DT_I64);
  if (!b->ok) return false;
  Value *w = target_weight(s, target, classes, &safe);
  if (!b->ok) return false;
  Value *sum = NULL;
  if (strcmp(mode, "mean") == 0) {
    int64_t axes[MAX_RANK];
    for (int d = 0; d < w->rank; d++) axes[d] = d;
    sum = build_sum(b, w, w->rank, axes, false);
    g = b->ok ? build2(b, "Div", g, sum) : g;
  }
  if (gradient_wants_in(s, 2) && !give_class_weights(s, target, classes, safe, sum)) return false;
  if (!gradient_wants_in(s, 0)) return b->ok;
  Value *each = b->ok ? build2(b, "Mul", w, g) : w;
  Value *range = build_range(b, classes);
  if (!b->ok) return false;
  Value *in[] = {build_channels(b, range, DT_I64, x->rank), build_unsqueeze(b, safe, one),
                 build_unsqueeze(b, each, one)};
  return b->ok && gradient_give(s, x, build_map(b, x->dtype, "select(a == b, neg(c), 0)", 3, in));
}
