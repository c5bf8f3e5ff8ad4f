/* Gradients of what moves elements: each goes back to where its element came from. */
#include <string.h>
#include "ir/op/gradient.h"
#include "ir/op/kit.h"

static Value *flat(Build *b, Value *v) {
  const int64_t all = -1;
  return b->ok ? build_reshape(b, v, 1, &all) : v;
}

static Value *op_axis_node(Build *b, const char *op, int n, Value *const *in, int64_t axis) {
  const Attr a = attr_int(b->m->arena, "axis", axis);
  return b->ok ? build_op(b, op, n, in, 1, &a) : in[0];
}

/* zeros with g added at the positions `at` along `axis`, of the shape of g. */
static Value *scatter_add(Build *b, Value *zeros, Value *at, Value *g, int64_t axis) {
  Arena *a = b->m->arena;
  const Attr attrs[] = {attr_int(a, "axis", axis), attr_string(a, "reduction", "add")};
  return b->ok ? build_op(b, "ScatterElements", 3, (Value *[]){zeros, at, g}, 2, attrs) : g;
}

/* 0 1 2 … in the shape of v. */
static Value *positions(Build *b, Value *v) {
  Value *size = build1(b, "Size", v);
  Value *range = build_range(b, size);
  return b->ok ? build2(b, "Reshape", range, build_shape_of(b, v)) : v;
}

static Value *zeros_of(Build *b, Value *count, DType t) {
  const int64_t one = 1;
  count = b->ok ? build_reshape(b, count, 1, &one) : count;
  return b->ok ? build2(b, "Expand", build_scalar(b, t, 0), count) : count;
}

/* What n does to the elements of input k it does to their numbers, which tell where g belongs (and of
 * several that meet at one place, which of them is seen). They begin with 1; all others are 0. */
static bool give_picked(Gradient *s, int k) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[k], *own[8];
  if (n->n_in > 8 || n->n_out != 1) return false;
  for (int i = 0; i < n->n_in; i++) {
    Value *v = own[i] = n->in[i];
    if (!v || !dtype_is_float(v->dtype)) continue;
    own[i] = i == k  ? build2(b, "Add", positions(b, v), build_scalar(b, DT_I64, 1))
             : b->ok ? build_map(b, DT_I64, "select(a == a, 0, 0)", 1, &v)
                     : v;
  }
  if (!b->ok) return false;
  Value *from =
      build_node(b, n->op->name, n->op->domain, n->n_in, own, 1, n->n_attrs, n->attrs)->out[0];
  const int64_t one = 1, most = INT64_MAX;
  Value *count = b->ok ? build2(b, "Add", build1(b, "Size", x), build_scalar(b, DT_I64, 1)) : x;
  Value *d = scatter_add(b, zeros_of(b, count, x->dtype), flat(b, from), flat(b, s->g[0]), 0);
  Value *cut[] = {d, build_i64s(b, 1, &one), build_i64s(b, 1, &most)};
  d = b->ok ? build_op(b, "Slice", 3, cut, 0, NULL) : d;
  return b->ok && gradient_give(s, x, build_reshape_like(b, d, x));
}

/* Where starts, ends and axes are known and steps are 1: zeros around g. False: they are not. */
static bool sliced_pads(const Gradient *s, int64_t *pads) {
  const Node *n = s->n;
  const Value *x = n->in[0];
  const int64_t *starts, *ends, *axes = NULL, *steps = NULL;
  int count, n_axes = 0, n_steps = 0;
  if (!op_known_ints(s->b->m, n, 1, &starts, &count) ||
      !op_known_ints(s->b->m, n, 2, &ends, &count))
    return false;
  if (node_in(n, 3) && !op_known_ints(s->b->m, n, 3, &axes, &n_axes)) return false;
  if (node_in(n, 4) && !op_known_ints(s->b->m, n, 4, &steps, &n_steps)) return false;
  for (int d = 0; d < 2 * x->rank; d++) pads[d] = 0;
  for (int i = 0; i < count; i++) {
    int64_t axis = axes ? axes[i] : i, size, left;
    if (axis < 0) axis += x->rank;
    if ((steps && steps[i] != 1) || !expr_is_const(x->dims[axis], &size) ||
        !expr_is_const(n->out[0]->dims[axis], &left))
      return false;
    int64_t from = starts[i] < 0 ? starts[i] + size : starts[i];
    from = from < 0 ? 0 : from > size ? size : from;
    pads[axis] = from;
    pads[x->rank + axis] = size - from - left;
  }
  return true;
}

static Value *pad(Build *b, Value *v, const int64_t *pads) {
  return b->ok ? build2(b, "Pad", v, build_i64s(b, 2 * v->rank, pads)) : v;
}

/* Expand, Tile, Slice, Gather…, DepthToSpace, Compress and their kind. */
bool grad_moved(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[0], *g = s->g[0];
  int64_t pads[2 * MAX_RANK];
  const Attr *dims = node_attr(n, "batch_dims");
  if (x->rank == 0) {
    int64_t axes[MAX_RANK];
    for (int d = 0; d < g->rank; d++) axes[d] = d;
    return gradient_give(s, x, build_sum(b, g, g->rank, axes, false));
  }
  if (kit_is(n, "Expand")) return gradient_give(s, x, build_sum_to(b, g, x));
  if (kit_is(n, "Slice") && sliced_pads(s, pads)) return gradient_give(s, x, pad(b, g, pads));
  if (kit_is(n, "Gather") && node_int(n, "axis", 0) == 0)
    return gradient_give_at(s, 0, build_unsqueeze(b, n->in[1], n->in[1]->rank), g);
  if (kit_is(n, "GatherElements"))
    return gradient_give(
        s, x, scatter_add(b, build_full_like(b, x, 0), n->in[1], g, node_int(n, "axis", 0)));
  if (kit_is(n, "GatherND") && (!dims || dims->ints[0] == 0))
    return gradient_give_at(s, 0, n->in[1], g);
  return give_picked(s, 0);
}

bool grad_bit_cast(Gradient *s) {
  const Node *n = s->n;
  if (n->in[0]->dtype == n->out[0]->dtype) return gradient_give(s, n->in[0], s->g[0]);
  return op_error(s->b->m, n, ERR_UNSUPPORTED, "bits of a float of another type have no gradient");
}

bool grad_reshape(Gradient *s) {
  return gradient_give(s, s->n->in[0], build_reshape_like(s->b, s->g[0], s->n->in[0]));
}

bool grad_transpose(Gradient *s) {
  const Node *n = s->n;
  const int64_t *perm;
  int64_t back[MAX_RANK];
  const int rank = n->in[0]->rank, count = node_ints(n, "perm", &perm);
  for (int d = 0; d < rank; d++) back[count ? perm[d] : rank - 1 - d] = d;
  return gradient_give(s, n->in[0], build_transpose(s->b, s->g[0], rank, back));
}

/* The part of g that begins behind `before` and is as long as v along the axis. */
static Value *part_along(Build *b, Value *g, int64_t axis, const Expr *before, Value *start,
                         Value *v) {
  int64_t from, size;
  if (expr_is_const(before, &from) && expr_is_const(v->dims[axis], &size))
    return build_slice(b, g, axis, from, from + size);
  Value *end = build2(b, "Add", start, build_shape(b, v, axis, axis + 1));
  Value *in[] = {g, start, end, build_i64s(b, 1, &axis)};
  return b->ok ? build_op(b, "Slice", 4, in, 0, NULL) : g;
}

bool grad_concat(Gradient *s) {
  Build *b = s->b;
  ExprPool *p = b->m->pool;
  const Node *n = s->n;
  int64_t axis = node_int(n, "axis", 0);
  const int64_t zero = 0;
  if (axis < 0) axis += n->out[0]->rank;
  const Expr *before = ex_i64(p, 0);
  Value *start = build_i64s(b, 1, &zero);
  for (int k = 0; k < n->n_in && b->ok; k++) {
    Value *v = n->in[k];
    if (gradient_wants_in(s, k) &&
        !gradient_give(s, v, part_along(b, s->g[0], axis, before, start, v)))
      return false;
    before = ex_add(p, before, v->dims[axis]);
    if (k + 1 < n->n_in && before->op != EX_CONST)
      start = build2(b, "Add", start, build_shape(b, v, axis, axis + 1));
    else if (before->op == EX_CONST)
      start = build_i64s(b, 1, &before->k.i);
  }
  return b->ok;
}

bool grad_split(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value **in = ARENA_ARRAY(b->m->arena, Value *, n->n_out);
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k])
      return op_error(b->m, n, ERR_UNSUPPORTED, "a part that is left out has no gradient yet");
    in[k] = s->g[k] ? s->g[k] : build_full_like(b, n->out[k], 0);
  }
  return b->ok && gradient_give(s, n->in[0],
                                op_axis_node(b, "Concat", n->n_out, in, node_int(n, "axis", 0)));
}

/* Constant: cut off again. Otherwise back to the elements that were repeated. */
bool grad_pad(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  const bool constant = strcmp(node_string(n, "mode", "constant"), "constant") == 0;
  if (constant && gradient_wants_in(s, 2)) return grad_picked(s);
  if (!constant) return give_picked(s, 0);
  Value *in[4] = {s->g[0], build1(b, "Neg", n->in[1]), NULL, node_in(n, 3)};
  return b->ok && gradient_give(s, n->in[0], build_op(b, "Pad", in[3] ? 4 : 2, in, 0, NULL));
}

bool grad_trilu(Gradient *s) {
  const Node *n = s->n;
  Value *in[] = {s->g[0], node_in(n, 1)};
  return gradient_give(s, n->in[0], build_op(s->b, "Trilu", n->n_in, in, n->n_attrs, n->attrs));
}

/* ---- Resize: what the axis does to an identity matrix are its weights ---- */
/* The scale of axis d, 0 where sizes are given. */
static bool resize_scale(Gradient *s, int d, double *scale) {
  const Node *n = s->n;
  const int64_t *axes;
  const double *scales;
  int count = node_ints(n, "axes", &axes), known;
  const Value *by = node_in(n, 2);
  *scale = 0;
  if (!by || value_is_static(by, NULL) == false || expr_is_i64(by->rank ? by->dims[0] : NULL, 0))
    return true;
  if (!op_known_floats(s->b->m, n, 2, &scales, &known))
    return op_error(s->b->m, n, ERR_DYNAMIC, "a gradient of Resize needs constant scales");
  for (int i = 0; i < known; i++) {
    const int64_t axis = count ? axes[i] + (axes[i] < 0 ? n->in[0]->rank : 0) : i;
    if (axis == d) *scale = scales[i];
  }
  return true;
}

/* Two sizes as one list. */
static Value *two_sizes(Build *b, Value *rows, Value *columns) {
  return op_axis_node(b, "Concat", 2, (Value *[]){rows, columns}, 0);
}

static Value *identity(Build *b, Value *size, DType t) {
  Value *both = two_sizes(b, size, size);
  Value *zeros = b->ok ? build2(b, "Expand", build_scalar(b, t, 0), both) : both;
  return b->ok ? build1(b, "EyeLike", zeros) : zeros;
}

/* Of axis d: a row for each element of the input, a column for each of the result. */
static Value *resize_weights(Gradient *s, int d, double scale) {
  Build *b = s->b;
  Arena *a = b->m->arena;
  const Node *n = s->n;
  Attr *attrs = ARENA_ARRAY(a, Attr, n->n_attrs + 1);
  int count = 0;
  for (int k = 0; k < n->n_attrs; k++)
    if (strcmp(n->attrs[k].name, "axes") != 0 &&
        strcmp(n->attrs[k].name, "keep_aspect_ratio_policy") != 0)
      attrs[count++] = n->attrs[k];
  const int64_t two = 2;
  float *scales = ARENA_ARRAY(a, float, 2);
  scales[0] = 1, scales[1] = (float)scale;
  Value *size = build_shape(b, n->in[0], d, d + 1);
  Value *in[4] = {identity(b, size, s->g[0]->dtype)};
  if (scale != 0)
    in[2] =
        value_const(b->m, const_new(b->m, NULL, DT_F32, 1, arena_dup(a, &two, sizeof two), scales));
  else
    in[3] = two_sizes(b, size, build_shape(b, n->out[0], d, d + 1));
  return b->ok ? build_op(b, "Resize", scale != 0 ? 3 : 4, in, count, attrs) : in[0];
}

/* v with axis d multiplied by the transposed weights. */
static Value *multiply_axis(Build *b, Value *v, int d, Value *weights) {
  int64_t perm[MAX_RANK];
  static const int64_t turned[] = {1, 0};
  const int last = v->rank - 1;
  for (int k = 0; k <= last; k++) perm[k] = k;
  perm[d] = last, perm[last] = d;
  v = d == last ? v : build_transpose(b, v, v->rank, perm);
  v = b->ok ? build2(b, "MatMul", v, build_transpose(b, weights, 2, turned)) : v;
  return !b->ok || d == last ? v : build_transpose(b, v, v->rank, perm);
}

bool grad_resize(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *d = s->g[0];
  if (strcmp(node_string(n, "coordinate_transformation_mode", ""), "tf_crop_and_resize") == 0)
    return op_error(b->m, n, ERR_UNSUPPORTED, "tf_crop_and_resize has no gradient yet");
  for (int k = 0; k < n->in[0]->rank; k++) {
    double scale;
    if (!resize_scale(s, k, &scale)) return false;
    const bool same = n->in[0]->dims[k] == n->out[0]->dims[k];
    if (same && (n->in[0]->dims[k]->op != EX_CONST || scale == 0 || scale == 1)) continue;
    d = multiply_axis(b, d, k, resize_weights(s, k, scale));
    if (!b->ok) return false;
  }
  return gradient_give(s, n->in[0], d);
}

/* ---- Scatter: data, indices, updates ---- */
/* TensorScatter, CenterCropPad, Frames and their kind; scatters whose updates replace. */
bool grad_picked(Gradient *s) {
  for (int k = 0; k < s->n->n_in; k++)
    if (gradient_wants_in(s, k) && !give_picked(s, k)) return false;
  return true;
}

/* The scatter's own form, of other data and updates, adding up or as it is. */
static Value *scattered(Gradient *s, Value *data, Value *updates, const char *reduction) {
  Build *b = s->b;
  const Node *n = s->n;
  Attr attrs[2] = {attr_string(b->m->arena, "reduction", reduction),
                   attr_int(b->m->arena, "axis", node_int(n, "axis", 0))};
  Value *in[] = {data, n->in[1], updates};
  return b->ok ? build_op(b, n->op->name, 3, in, kit_is(n, "ScatterElements") ? 2 : 1, attrs)
               : data;
}

/* What stands at the places of the updates. */
static Value *gathered(Gradient *s, Value *v) {
  Build *b = s->b;
  const bool elements = kit_is(s->n, "ScatterElements");
  const Attr axis = attr_int(b->m->arena, "axis", node_int(s->n, "axis", 0));
  Value *in[] = {v, s->n->in[1]};
  return b->ok
             ? build_op(b, elements ? "GatherElements" : "GatherND", 2, in, elements ? 1 : 0, &axis)
             : v;
}

/* The product of all others: of those that are not 0, unless another one is. */
static bool grad_scatter_product(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[0], *u = n->in[2], *g = s->g[0];
  const DType t = x->dtype;
  static const char *const is_zero = "select(a == 0, 1, 0)", *const other = "select(a == 0, 1, a)";
  Value *own[2] = {x, u}, *zero[2], *factor[2];
  for (int k = 0; k < 2; k++) {
    zero[k] = b->ok ? build_map(b, t, is_zero, 1, &own[k]) : x;
    factor[k] = b->ok ? build_map(b, t, other, 1, &own[k]) : x;
  }
  Value *all[] = {g, scattered(s, factor[0], factor[1], "mul"),
                  scattered(s, zero[0], zero[1], "add")};
  for (int k = 0; k < 2 && b->ok; k++) {
    if (!gradient_wants_in(s, 2 * k)) continue;
    Value *in[5] = {all[0], all[1], all[2], factor[k], zero[k]};
    for (int i = 0; k && i < 3; i++) in[i] = gathered(s, all[i]);
    if (!b->ok) return false;
    Value *d = build_map(b, t, "select(c == e, a * b / d, 0)", 5, in);
    if (!b->ok || !gradient_give(s, own[k], d)) return false;
  }
  return b->ok;
}

/* Those that are the least or the greatest share. */
static bool grad_scatter_extreme(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[0], *u = n->in[2], *y = n->out[0];
  const DType t = x->dtype;
  static const char *const equal = "select(a == b, 1, 0)";
  Value *of_u = gathered(s, y);
  if (!b->ok) return false;
  Value *mine[2] = {build_map(b, t, equal, 2, (Value *[]){x, y}),
                    build_map(b, t, equal, 2, (Value *[]){u, of_u})};
  Value *count = scattered(s, mine[0], mine[1], "add");
  Value *share = b->ok ? build2(b, "Div", s->g[0], count) : y;
  for (int k = 0; k < 2 && b->ok; k++) {
    if (!gradient_wants_in(s, 2 * k)) continue;
    Value *d = k ? gathered(s, share) : share;
    d = b->ok ? build2(b, "Mul", d, mine[k]) : d;
    if (!b->ok || !gradient_give(s, k ? u : x, d)) return false;
  }
  return b->ok;
}

/* Range: every element is the start and some deltas. */
bool grad_range(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  const int64_t axis = 0;
  if (gradient_wants_in(s, 1)) gradient_none(s, n->in[1]);
  if (gradient_wants_in(s, 0) &&
      !gradient_give(s, n->in[0],
                     build_reshape_like(b, build_sum(b, s->g[0], 1, &axis, false), n->in[0])))
    return false;
  if (!gradient_wants_in(s, 2)) return b->ok;
  Value *number = b->ok ? build_cast(b, positions(b, s->g[0]), s->g[0]->dtype) : s->g[0];
  Value *d = b->ok ? build_sum(b, build2(b, "Mul", s->g[0], number), 1, &axis, false) : number;
  return b->ok && gradient_give(s, n->in[2], build_reshape_like(b, d, n->in[2]));
}

/* Updates that are added: each gets what its place has. */
bool grad_scatter(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  const char *reduction = node_string(n, "reduction", "none");
  if (strcmp(reduction, "none") == 0) return grad_picked(s);
  if (strcmp(reduction, "mul") == 0) return grad_scatter_product(s);
  if (strcmp(reduction, "add") != 0) return grad_scatter_extreme(s);
  if (!gradient_give(s, n->in[0], s->g[0])) return false;
  if (!gradient_wants_in(s, 2)) return true;
  Value *d = gathered(s, s->g[0]);
  return b->ok && gradient_give(s, n->in[2], d);
}

bool grad_top_k(Gradient *s) {
  const Node *n = s->n;
  Value *x = n->in[0];
  int64_t axis = node_int(n, "axis", -1);
  if (axis < 0) axis += x->rank;
  if (!node_out(n, 1))
    return diag_internal(s->b->m->diag, n->loc, "TopK without indices has no gradient");
  return gradient_give(s, x,
                       scatter_add(s->b, build_full_like(s->b, x, 0), n->out[1], s->g[0], axis));
}

/* Unique with all of its outputs, which the gradient reads. */
static bool need_outputs(Model *m, Node *n) {
  while (n->n_out < 4) node_add_output(n, NULL);
  for (int k = 1; k < 4; k++) {
    if (n->out[k]) continue;
    Value *v = n->out[k] = value_new(m, NULL);
    v->def = n;
    v->def_index = k;
  }
  return op_infer(m, n);
}

/* Equal ones share what the one that stands for them has. */
bool grad_unique(Gradient *s) {
  Build *b = s->b;
  Node *n = (Node *)(uintptr_t)s->n; /* it gets outputs */
  Value *x = n->in[0], *g = s->g[0];
  int64_t axis = node_int(n, "axis", 0), shape[MAX_RANK];
  if (axis < 0) axis += x->rank;
  if (!need_outputs(b->m, n)) return false;
  for (int d = 0; d < g->rank; d++) shape[d] = d == axis ? -1 : 1;
  Value *count = build_reshape(b, build_cast(b, n->out[3], g->dtype), g->rank, shape);
  Value *in[] = {b->ok ? build2(b, "Div", g, count) : g, n->out[2]};
  return b->ok &&
         gradient_give(s, x, build_reshape_like(b, op_axis_node(b, "Gather", 2, in, axis), x));
}

/* values [off, on]: g summed where each of them is. */
bool grad_one_hot(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  const DType t = n->in[2]->dtype;
  const int64_t one = 1;
  Value *parts[2], *all = flat(b, s->g[0]);
  const int64_t axis = 0;
  for (int k = 0; k < 2 && b->ok; k++) {
    Value *marks[] = {build_scalar(b, t, 1 - k), build_scalar(b, t, k)};
    for (int i = 0; i < 2; i++) marks[i] = build_reshape(b, marks[i], 1, &one);
    Value *in[] = {n->in[0], n->in[1], op_axis_node(b, "Concat", 2, marks, 0)};
    Value *hot = b->ok ? flat(b, build_op(b, "OneHot", 3, in, n->n_attrs, n->attrs)) : all;
    parts[k] = b->ok ? build_sum(b, build2(b, "Mul", hot, all), 1, &axis, true) : all;
  }
  return b->ok && gradient_give(s, n->in[2], op_axis_node(b, "Concat", 2, parts, 0));
}

/* ---- DFT ---- */
/* The imaginary parts with the other sign. */
static Value *conjugate(Build *b, Value *v) {
  const int64_t two = 2;
  double *signs = ARENA_ARRAY(b->m->arena, double, 2);
  signs[0] = 1, signs[1] = -1;
  Value *by = value_const(
      b->m, const_new(b->m, NULL, DT_F64, 1, arena_dup(b->m->arena, &two, sizeof two), signs));
  return b->ok ? build2(b, "Mul", v, build_cast(b, by, v->dtype)) : v;
}

/* v with `size` elements along the axis: zeros behind it, or cut. */
static Value *resized(Build *b, Value *v, int64_t axis, int64_t size) {
  int64_t have, pads[2 * MAX_RANK] = {0};
  if (!b->ok || !expr_is_const(v->dims[axis], &have) || have == size) return v;
  if (have > size) return build_slice(b, v, axis, 0, size);
  pads[v->rank + axis] = size - have;
  return pad(b, v, pads);
}

static bool dft_sizes(Gradient *s, int64_t *axis, int64_t *points, int64_t *in) {
  const Node *n = s->n;
  const Value *x = n->in[0];
  const int64_t *list;
  int count;
  *axis = -2;
  if (node_in(n, 2) && !op_need_ints(s->b->m, n, 2, "axis", &list, &count)) return false;
  if (node_in(n, 2)) *axis = list[0];
  if (*axis < 0) *axis += x->rank;
  if (!expr_is_const(x->dims[*axis], in))
    return op_error(s->b->m, n, ERR_DYNAMIC, "a gradient of DFT needs a constant size");
  *points = *in;
  if (node_in(n, 1) && !op_need_ints(s->b->m, n, 1, "dft_length", &list, &count)) return false;
  if (node_in(n, 1)) *points = list[0];
  return true;
}

/* The transform is a symmetric matrix F: its adjoint is conj(F conj(g)), of the inverse F g / n. */
bool grad_dft(Gradient *s) {
  Build *b = s->b;
  const Node *n = s->n;
  Value *x = n->in[0];
  int64_t axis, points, size, parts;
  const bool inverse = node_int(n, "inverse", 0) != 0;
  if (inverse && node_int(n, "onesided", 0))
    return op_error(b->m, n, ERR_UNSUPPORTED, "a one-sided inverse DFT has no gradient yet");
  if (!dft_sizes(s, &axis, &points, &size)) return false;
  Value *g = resized(b, s->g[0], axis, points);
  const int64_t *at = &axis;
  Value *in[] = {inverse ? g : conjugate(b, g), NULL, value_const_i64s(b->m, 0, 1, at)};
  Value *d = b->ok ? build_op(b, "DFT", 3, in, 0, NULL) : g;
  if (!inverse) d = conjugate(b, d);
  if (inverse && b->ok) d = build2(b, "Div", d, build_scalar(b, d->dtype, (double)points));
  d = resized(b, d, axis, size);
  if (b->ok && expr_is_const(x->dims[x->rank - 1], &parts) && parts == 1)
    d = build_slice(b, d, x->rank - 1, 0, 1);
  return b->ok && gradient_give(s, x, d);
}
