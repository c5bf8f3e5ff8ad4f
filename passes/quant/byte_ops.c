/* Keeps 8-bit values in 8 bits between the products of a quantized model. DequantizeLinear moves
 * behind what only moves or compares elements, QuantizeLinear in front of it; a function of one
 * byte becomes a table of its results (byte_table.c); averages are sums of integers with one factor
 * (docs/quantization.md). Exact but for averages, whose factor is rounded once.
 *
 * Only scales and zero points that are constant and one for the whole tensor. */
#include "passes/quant/byte_table.h"

#include <float.h>
#include <string.h>

#include "ir/expr/expr_query.h"
#include "ir/op/ops.h"
#include "ir/ops/nn/contraction.h"

enum { MAX_DEPTH = 32 };

typedef struct ByteOps {
  Forward f;
  PassCtx *c;
  ByteRoots roots;
  const Uses *uses;
} ByteOps;

/* ---- questions ---- */

static bool is_named(const Node *n, const char *name) {
  return n && strcmp(n->op->name, name) == 0 && (!*n->op->domain || strcmp(n->op->domain, "burin"));
}

static bool one_constant(const Value *v) {
  return v->cdata && v->cdata->count == 1 && v->rank <= 1;
}

/* Scale and zero point, inputs 1 and 2, are constants for the whole tensor. */
static bool per_tensor(const Node *n) {
  return one_constant(n->in[1]) && (!node_in(n, 2) || one_constant(n->in[2])) &&
         !node_int(n, "block_size", 0);
}

static double scale_of(const Node *n) { return const_float(n->in[1]->cdata, 0); }
static int64_t zero_of(const Node *n) { return node_in(n, 2) ? const_int(n->in[2]->cdata, 0) : 0; }

/* The DequantizeLinear of bytes whose result v is, or NULL. */
/* v: may be absent */
static const Node *dequantize_of(const Value *v) {
  const Node *n = v ? v->def : NULL;
  return is_named(n, "DequantizeLinear") && value_is_byte(n->in[0]) && per_tensor(n) ? n : NULL;
}

static bool same_steps(const Node *a, const Node *b) {
  return scale_of(a) == scale_of(b) && zero_of(a) == zero_of(b) &&
         a->out[0]->dtype == b->out[0]->dtype && a->in[0]->dtype == b->in[0]->dtype;
}

/* A larger byte is a larger real: none is flushed to 0, and there is a sign. */
static bool is_monotone(const Node *n) {
  const double s = scale_of(n);
  return s >= FLT_MIN && s <= FLT_MAX && n->out[0]->dtype == DT_F32;
}

static Value *dequantize(ByteOps *o, Build *b, const Node *like, Value *x) {
  if (!b->ok) return NULL;
  Value *in[] = {x, like->in[1], node_in(like, 2)};
  const Node *n = build_node(b, like->op->name, like->op->domain, in[2] ? 3 : 2, in, 1,
                             like->n_attrs, like->attrs);
  byte_root_set(&o->roots, o->c->scratch, n->out[0], byte_root(&o->roots, x));
  return n->out[0];
}

/* ---- DequantizeLinear moves down ---- */

/* Windows that all reach into the input: the identity of a maximum of bytes is no result. */
static bool no_window_is_empty(const Node *n) {
  PoolInfo info;
  if (!pool_info(n, &info)) return false;
  for (int d = 0; d < info.spatial; d++)
    if (info.dilation[d] != 1) return false;
  return true;
}

/* The byte that stands for what Pad puts in; false: there is none. */
static bool byte_of_padding(const Node *n, const Node *dq, double *byte) {
  const Value *with = node_in(n, 2);
  if (strcmp(node_string(n, "mode", "constant"), "constant") != 0 || dq->out[0]->dtype != DT_F32)
    return false;
  if (with && !(with->cdata && with->cdata->count == 1)) return false;
  const double real = with ? const_float(with->cdata, 0) : 0;
  const int least = dq->in[0]->dtype == DT_I8 ? -128 : 0;
  for (int k = least; k < least + 256; k++) {
    *byte = k;
    if ((double)((float)(k - zero_of(dq)) * (float)scale_of(dq)) == real) return true;
  }
  return false;
}

/* Does n commute with the DequantizeLinear of its input? */
static bool commutes(const Node *n, const Node *dq) {
  double byte;
  for (int k = 1; k < node_data_inputs(n); k++) {
    const Node *other = dequantize_of(n->in[k]);
    if (!other || !same_steps(other, dq)) return false;
  }
  if (node_moves(n)) return true;
  if (node_is(n, "Pad")) return byte_of_padding(n, dq, &byte);
  if (node_is(n, "MaxPool")) return is_monotone(dq) && !node_out(n, 1) && no_window_is_empty(n);
  return node_is(n, "Relu") && is_monotone(dq);
}

static Value *bytes_of(const Value *v) { return v->def->in[0]; }

/* The same node on bytes. */
static Node *on_bytes(Build *b, const Node *n, const Node *dq) {
  Value **in = ARENA_ARRAY(b->m->arena, Value *, n->n_in + 2);
  double byte;
  int count = n->n_in;
  for (int k = 0; k < count; k++) in[k] = n->in[k];
  in[0] = dq->in[0];
  for (int k = 1; k < node_data_inputs(n); k++) in[k] = bytes_of(n->in[k]);
  if (node_is(n, "Pad") && byte_of_padding(n, dq, &byte)) {
    in[2] = build_scalar(b, in[0]->dtype, byte);
    count = count > 3 ? count : 3;
  }
  if (node_is(n, "Relu")) {
    in[1] = build_scalar(b, in[0]->dtype, (double)zero_of(dq));
    return b->ok ? build_node(b, "Max", "", 2, in, 1, 0, NULL) : NULL;
  }
  if (!b->ok) return NULL;
  return build_node(b, n->op->name, n->op->domain, count, in, n->n_out, n->n_attrs, n->attrs);
}

static bool all_outputs(const Node *n) {
  for (int k = 0; k < n->n_out; k++)
    if (!n->out[k] || n->out[k]->kind != TY_TENSOR) return false;
  return !n->n_syms;
}

static bool move_down(ByteOps *o, Build *b, Node *n, bool *keep) {
  const Node *dq = n->n_in ? dequantize_of(n->in[0]) : NULL;
  if (!dq || !commutes(n, dq) || !all_outputs(n)) return true;
  const Node *moved = on_bytes(b, n, dq);
  for (int k = 0; b->ok && k < n->n_out; k++)
    if (!value_same_shape(moved->out[k], n->out[k])) return true;
  for (int k = 0; b->ok && k < n->n_out; k++) {
    Value *real = dequantize(o, b, dq, moved->out[k]);
    if (!b->ok || !forward_set(&o->f, n, n->out[k], real)) return false;
  }
  *keep = false;
  return b->ok;
}

/* ---- QuantizeLinear moves up ---- */

static bool read_once(const ByteOps *o, const Value *v) {
  return v->id < o->uses->n && o->uses->of[v->id].n == 1 && !o->uses->outputs[v->id];
}

/* A Slice that drops little: what it drops is then quantized for nothing. */
static bool keeps_most(ExprPool *p, const Node *n) {
  if (!node_is(n, "Slice")) return false;
  const double in = expr_extent_guess(p, value_count(p, n->in[0])),
               out = expr_extent_guess(p, value_count(p, n->out[0]));
  return 4 * out >= 3 * in;
}

static bool is_lift(const Node *n) {
  return (n->op->flags & OF_PERMUTES) || keeps_most(n->graph->model->pool, n);
}

/* Relu behind such a node: a maximum of bytes. */
static bool is_relu_of_lift(const ByteOps *o, const Node *n) {
  const Value *v = n->n_in ? n->in[0] : NULL;
  return node_is(n, "Relu") && v->def && v->def->graph == n->graph && read_once(o, v) &&
         is_lift(v->def);
}

static Value *quantized(ByteOps *o, Build *b, const Node *q, Value *v, int depth);

static Value *lifted_relu(ByteOps *o, Build *b, const Node *q, const Node *n, int depth) {
  Value *y = quantized(o, b, q, n->in[0], depth + 1);
  return b->ok ? build2(b, "Max", y, build_scalar(b, y->dtype, (double)zero_of(q))) : NULL;
}

/* The node n of reals on bytes, its inputs quantized as q does. */
static Value *lifted(ByteOps *o, Build *b, const Node *q, const Node *n, int depth) {
  Value **in = ARENA_ARRAY(b->m->arena, Value *, n->n_in + 1);
  for (int k = 0; k < n->n_in && b->ok; k++)
    in[k] = k < node_data_inputs(n) ? quantized(o, b, q, n->in[k], depth + 1) : n->in[k];
  if (!b->ok) return NULL;
  return build_node(b, n->op->name, n->op->domain, n->n_in, in, 1, n->n_attrs, n->attrs)->out[0];
}

/* v in the bytes of the QuantizeLinear q. */
static Value *quantized(ByteOps *o, Build *b, const Node *q, Value *v, int depth) {
  const Node *n = v->def;
  if (depth < MAX_DEPTH && n && n->graph == q->graph && !n->n_syms && n->n_out == 1 &&
      read_once(o, v)) {
    if (is_lift(n)) return lifted(o, b, q, n, depth);
    if (is_relu_of_lift(o, n) && is_monotone(q)) return lifted_relu(o, b, q, n, depth);
  }
  Value *in[] = {v, q->in[1], node_in(q, 2)}, *root = byte_root(&o->roots, v);
  Value *y =
      build_node(b, q->op->name, q->op->domain, in[2] ? 3 : 2, in, 1, q->n_attrs, q->attrs)->out[0];
  Value *by = b->ok && root ? byte_from_root(b, o->c, root, y) : NULL;
  if (by) y = by;
  if (b->ok && root) byte_root_set(&o->roots, o->c->scratch, y, root);
  return y;
}

static bool move_up(ByteOps *o, Build *b, Node *n, bool *keep) {
  if (!is_named(n, "QuantizeLinear")) return true;
  const Node *const from = n->in[0]->def;
  if (!value_is_byte(n->out[0]) || !per_tensor(n) || !from ||
      !(is_lift(from) || (is_relu_of_lift(o, from) && is_monotone(n))) || !read_once(o, n->in[0]))
    return true;
  Value *y = quantized(o, b, n, n->in[0], 0);
  if (!b->ok) return false;
  if (!value_same_type(y, n->out[0])) return true;
  *keep = false;
  return forward_set(&o->f, n, n->out[0], y);
}

/* ---- functions of one byte ---- */

static bool is_direct(const Node *n, const Value *root) {
  return n->in[0] == root && (node_is(n, "Max") || node_is(n, "Min") || is_named(n, "Cast") ||
                              strcmp(n->op->domain, "burin") == 0);
}

static bool take_function(ByteOps *o, Build *b, Node *n, bool *keep) {
  Value *root = byte_root_of_node(&o->roots, n), *v = n->out[0];
  if (!root) return true;
  Value *by = NULL;
  if (value_is_byte(v) && !is_direct(n, root)) by = byte_from_root(b, o->c, root, v);
  if (!b->ok) return false;
  if (!by) {
    byte_root_set(&o->roots, o->c->scratch, v, value_is_byte(v) && !is_direct(n, root) ? v : root);
    return true;
  }
  byte_root_set(&o->roots, o->c->scratch, by, root);
  *keep = false;
  return forward_set(&o->f, n, v, by);
}

/* ---- averages ---- */

/* Σ x / count for real x = (byte - zero point) * scale. sum: Σ (byte - zero point) as i32. */
static Value *average(Build *b, const Node *dq, Value *sum, int64_t count) {
  const float step = (float)scale_of(dq) / (float)count;
  Value *in[] = {sum, build_scalar(b, DT_F32, step)};
  return b->ok ? build_op(b, "DequantizeLinear", 2, in, 0, NULL) : NULL;
}

static Value *centered(Build *b, const Node *dq) {
  Value *x = build_cast(b, dq->in[0], DT_I32);
  if (!b->ok || !zero_of(dq)) return x;
  return build2(b, "Sub", x, build_scalar(b, DT_I32, (double)zero_of(dq)));
}

/* Elements that one result of a mean goes over, when that is known and their sum fits. */
static bool mean_count(const Node *n, int64_t *count) {
  int64_t in, out;
  *count = 1;
  enum { LIMIT = 1 << 23 };
  const Value *x = n->in[0], *y = n->out[0];
  ExprPool *p = n->graph->model->pool;
  if (!expr_is_const(value_count(p, x), &in) || !expr_is_const(value_count(p, y), &out))
    return false;
  *count = out > 0 ? in / out : 0;
  return *count >= 1 && *count < LIMIT;
}

static Value *global_average(Build *b, const Node *n, const Node *dq, int64_t count) {
  int64_t axes[MAX_RANK];
  const int rank = n->in[0]->rank;
  for (int d = 2; d < rank; d++) axes[d - 2] = d;
  const bool global = node_is(n, "GlobalAveragePool");
  const Attr keep = attr_int(b->m->arena, "keepdims", 1);
  Value *in[] = {centered(b, dq), global ? build_i64s(b, rank - 2, axes) : node_in(n, 1)};
  if (!b->ok) return NULL;
  Value *sum = build_op(b, "ReduceSum", in[1] ? 2 : 1, in, global ? 1 : n->n_attrs,
                        global ? &keep : n->attrs);
  return b->ok ? average(b, dq, sum, count) : NULL;
}

/* Elements of a window where all have the same number. */
static bool window_count(const Node *n, int64_t *count) {
  PoolInfo info;
  if (!pool_info(n, &info) || info.ceil_mode) return false;
  *count = 1;
  for (int d = 0; d < info.spatial; d++) {
    *count *= info.kernel[d];
    if ((info.pad_lo[d] || info.pad_hi[d]) && !info.count_include_pad) return false;
    if (*count > 1 << 20) return false;
  }
  return true;
}

static Value *window_average(Build *b, const Node *n, const Node *dq, int64_t count) {
  Value *in[] = {dq->in[0], node_in(dq, 2)};
  const Node *sum = build_node(b, "SumPool", "burin", in[1] ? 2 : 1, in, 1, n->n_attrs, n->attrs);
  return b->ok ? average(b, dq, sum->out[0], count) : NULL;
}

/* Elements of the window of output `at` along dimension d, those inside the input. */
static int64_t inside(const PoolInfo *info, int d, int64_t at, int64_t size) {
  int64_t count = 0;
  for (int64_t k = 0; k < info->kernel[d]; k++) {
    const int64_t x = at * info->stride[d] - info->pad_lo[d] + k * info->dilation[d];
    count += x >= 0 && x < size;
  }
  return count;
}

/* What sums of windows are multiplied with where these have different numbers of elements:
 * [1, 1, spatial…]. NULL: too many, or not known. */
static Value *uneven_factors(Build *b, const Node *n, const Node *dq) {
  enum { MOST = 1 << 16, LONGEST = 1 << 10 };
  PoolInfo info;
  int64_t in[MAX_RANK], dims[MAX_RANK] = {1, 1}, all = 1;
  if (!pool_info(n, &info) || info.ceil_mode || info.count_include_pad) return NULL;
  for (int d = 0; d < info.spatial; d++) {
    if (!expr_is_const(n->in[0]->dims[2 + d], &in[d]) || info.kernel[d] > LONGEST ||
        !expr_is_const(n->out[0]->dims[2 + d], &dims[2 + d]) || dims[2 + d] < 1)
      return NULL;
    all *= dims[2 + d];
    if (all > MOST) return NULL;
  }
  float *factor = ARENA_ARRAY(b->m->arena, float, all);
  for (int64_t i = 0; i < all; i++) {
    int64_t count = 1, rest = i;
    for (int d = info.spatial - 1; d >= 0; rest /= dims[2 + d], d--)
      count *= inside(&info, d, rest % dims[2 + d], in[d]);
    if (count < 1 || count > 1 << 20) return NULL;
    factor[i] = (float)scale_of(dq) / (float)count;
  }
  return value_const(b->m, const_new(b->m, NULL, DT_F32, 2 + info.spatial, dims, factor));
}

static bool take_uneven_average(ByteOps *o, Build *b, Node *n, bool *keep) {
  const Node *dq = n->n_in ? dequantize_of(n->in[0]) : NULL;
  int64_t count;
  if (!dq || !is_monotone(dq) || n->n_syms || !node_is(n, "AveragePool") || window_count(n, &count))
    return true;
  Value *factors = uneven_factors(b, n, dq), *in[] = {dq->in[0], node_in(dq, 2)};
  if (!factors) return true;
  Value *y = build_node(b, "SumPool", "burin", in[1] ? 2 : 1, in, 1, n->n_attrs, n->attrs)->out[0];
  y = build_cast(b, y, DT_F32);
  if (b->ok) y = build2(b, "Mul", y, factors);
  if (!b->ok) return false;
  if (!value_same_type(y, n->out[0])) return true;
  *keep = false;
  return forward_set(&o->f, n, n->out[0], y);
}

static bool take_average(ByteOps *o, Build *b, Node *n, bool *keep) {
  const Node *dq = n->n_in ? dequantize_of(n->in[0]) : NULL;
  const bool global = node_is(n, "GlobalAveragePool") || node_is(n, "ReduceMean"),
             window = node_is(n, "AveragePool");
  int64_t count;
  if (!dq || !is_monotone(dq) || n->n_syms ||
      !(global ? mean_count(n, &count) : window && window_count(n, &count)))
    return true;
  Value *y = global ? global_average(b, n, dq, count) : window_average(b, n, dq, count);
  if (!b->ok) return false;
  if (!value_same_type(y, n->out[0])) return true;
  *keep = false;
  return forward_set(&o->f, n, n->out[0], y);
}

/* ---- the pass ---- */

static bool rewrite_one(Forward *f, Node *n, bool *keep) {
  ByteOps *o = f->user;
  static bool (*const rules[])(ByteOps *, Build *, Node *, bool *) = {
      take_function, move_up, move_down, take_average, take_uneven_average};
  Build b = {.m = f->c->model, .g = n->graph, .loc = n->loc, .ok = true};
  for (size_t k = 0; k < sizeof rules / sizeof *rules && *keep; k++)
    if (!rules[k](o, &b, n, keep)) return false;
  return true;
}

bool pass_byte_ops(PassCtx *c) {
  ByteOps o = {.c = c, .uses = graph_uses(c->model->main, c->scratch)};
  o.f = forward_new(c);
  o.f.user = &o;
  return forward_walk(&o.f, c->model->main, rewrite_one);
}
