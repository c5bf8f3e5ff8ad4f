/* If, Loop and Scan for the evaluator: runs the nodes of the body for every iteration. Bodies see
 * the values of the graphs around them, which stay in the same table. */
#include <string.h>
#include "ir/eval/graph_eval.h"

static const ConstData *scalar_i64(GraphEval *ev, DType t, int64_t v) {
  ConstData *c = eval_tensor(ev, t, 0, NULL);
  dtype_store_i(t, (void *)(uintptr_t)c->data, v);
  return c;
}

/* Body input k gets c. A scalar may stand for a tensor of one element and the other way round. */
static bool give(GraphEval *ev, const Node *n, Graph *body, int k, const ConstData *c) {
  if (k >= body->inputs.n || !c)
    return eval_fail(ev, n, ERR_ARITY, "body has %d inputs", body->inputs.n);
  const Value *v = body->inputs.data[k];
  if (v->rank >= 0 && c->rank != v->rank && c->count == 1) {
    int64_t ones[MAX_RANK];
    for (int d = 0; d < MAX_RANK; d++) ones[d] = 1;
    ConstData *same = eval_tensor(ev, c->dtype, v->rank, ones);
    same->data = c->data;
    c = same;
  }
  eval_set(ev, v, c);
  return true;
}

static const ConstData *result(GraphEval *ev, const Graph *body, int k) {
  return k < body->outputs.n ? eval_value(ev, body->outputs.data[k]) : NULL;
}

static bool put(GraphEval *ev, const Node *n, int k, const ConstData *c) {
  if (!c) return eval_fail(ev, n, ERR_INTERNAL, "output %d of the body is not computed", k);
  if (k < n->n_out && n->out[k]) eval_set(ev, n->out[k], c);
  return true;
}

static bool eval_if(GraphEval *ev, Node *n) {
  Graph *g = node_region(n, const_int(eval_value(ev, n->in[0]), 0) ? "then_branch" : "else_branch");
  if (!g || !eval_nodes(ev, g)) return false;
  for (int k = 0; k < n->n_out; k++)
    if (!put(ev, n, k, result(ev, g, k))) return false;
  return true;
}

/* ---- stacking of per-iteration results ---- */
typedef Vec(const ConstData *) Parts;

/* Parts stacked along a new axis; `like` gives type and shape where there are none. */
static const ConstData *stack(GraphEval *ev, const Parts *parts, int axis, bool reverse,
                              const Value *like) {
  int64_t dims[MAX_RANK] = {0}, outer = 1, inner = 1;
  const ConstData *first = parts->n ? parts->data[0] : NULL;
  const int rank = first ? first->rank + 1 : like->rank;
  if (rank > MAX_RANK) return NULL;
  if (axis < 0) axis += rank;
  for (int d = 0; d < rank; d++) {
    int64_t known = 0;
    if (!first && d != axis) expr_is_const(like->dims[d], &known);
    dims[d] = d == axis ? parts->n : first ? first->dims[d < axis ? d : d - 1] : known;
    if (d < axis) outer *= dims[d];
    if (d > axis) inner *= dims[d];
  }
  const DType t = first ? first->dtype : like->dtype;
  ConstData *c = eval_tensor(ev, t, rank, dims);
  const int64_t bytes = inner * dtype_bytes(t);
  for (int i = 0; c && i < parts->n; i++) {
    const ConstData *part = parts->data[reverse ? parts->n - 1 - i : i];
    if (part->count != outer * inner) return NULL;
    for (int64_t o = 0; o < outer; o++)
      memcpy((char *)(uintptr_t)c->data + (o * parts->n + i) * bytes,
             (const char *)part->data + o * bytes, (size_t)bytes);
  }
  return c;
}

/* Slice i of c along axis, without that dim. */
static const ConstData *slice(GraphEval *ev, const ConstData *c, int axis, int64_t i) {
  int64_t dims[MAX_RANK], outer = 1, inner = 1;
  for (int d = 0, k = 0; d < c->rank; d++) {
    if (d < axis) outer *= c->dims[d];
    if (d > axis) inner *= c->dims[d];
    if (d != axis) dims[k++] = c->dims[d];
  }
  ConstData *s = eval_tensor(ev, c->dtype, c->rank - 1, dims);
  const int64_t bytes = inner * dtype_bytes(c->dtype);
  for (int64_t o = 0; s && o < outer; o++)
    memcpy((char *)(uintptr_t)s->data + o * bytes,
           (const char *)c->data + (o * c->dims[axis] + i) * bytes, (size_t)bytes);
  return s;
}

/* ---- Loop ---- */
static bool loop_step(GraphEval *ev, Node *n, Graph *g, int64_t i, bool *go,
                      const ConstData **state, int n_state, Parts *scans) {
  if (!give(ev, n, g, 0, scalar_i64(ev, DT_I64, i)) ||
      !give(ev, n, g, 1, scalar_i64(ev, DT_BOOL, *go)))
    return false;
  for (int k = 0; k < n_state; k++)
    if (!give(ev, n, g, 2 + k, state[k])) return false;
  if (!eval_nodes(ev, g)) return false;
  const ConstData *cond = result(ev, g, 0);
  if (!cond || cond->count < 1) return eval_fail(ev, n, ERR_INTERNAL, "body gives no condition");
  *go = const_int(cond, 0) != 0;
  const ConstData **next = ARENA_ARRAY(ev->arena, const ConstData *, n_state + 1);
  for (int k = 0; k < n_state; k++) next[k] = result(ev, g, 1 + k);
  memcpy(state, next, sizeof *next * (size_t)n_state);
  for (int k = n_state; k < n->n_out; k++) {
    const ConstData *c = result(ev, g, 1 + k);
    if (!c) return eval_fail(ev, n, ERR_INTERNAL, "scan output %d is not computed", k);
    vec_push(ev->arena, &scans[k], c);
  }
  return true;
}

static bool eval_loop(GraphEval *ev, Node *n) {
  Graph *g = node_region(n, "body");
  const int n_state = n->n_in > 2 ? n->n_in - 2 : 0;
  const int64_t trips = node_in(n, 0) ? const_int(eval_value(ev, n->in[0]), 0) : INT64_MAX;
  bool go = node_in(n, 1) ? const_int(eval_value(ev, n->in[1]), 0) != 0 : true;
  const ConstData **state = ARENA_ARRAY(ev->arena, const ConstData *, n_state + 1);
  Parts *scans = ARENA_ARRAY(ev->arena, Parts, n->n_out + 1);
  if (!g) return false;
  for (int k = 0; k < n_state; k++) state[k] = eval_value(ev, n->in[2 + k]);
  for (int64_t i = 0; i < trips && go; i++)
    if (!loop_step(ev, n, g, i, &go, state, n_state, scans)) return false;
  for (int k = 0; k < n->n_out; k++) {
    const ConstData *c = k < n_state ? state[k]
                         : n->out[k] ? stack(ev, &scans[k], 0, false, n->out[k])
                                     : NULL;
    if (n->out[k] && !put(ev, n, k, c)) return false;
  }
  return true;
}

/* ---- Scan ---- */
static bool scan_step(GraphEval *ev, Node *n, Graph *g, int64_t i, int64_t count,
                      const ConstData **state, int n_state, Parts *scans) {
  for (int k = 0; k < n->n_in; k++) {
    const ConstData *c = k < n_state ? state[k] : eval_value(ev, n->in[k]);
    if (k >= n_state) {
      int64_t axis = node_ints_at(n, "scan_input_axes", k - n_state, 0);
      if (axis < 0) axis += c->rank;
      if (axis < 0 || axis >= c->rank || c->dims[axis] != count)
        return eval_fail(ev, n, ERR_SHAPE, "scan lengths differ");
      c = slice(ev, c, (int)axis,
                node_ints_at(n, "scan_input_directions", k - n_state, 0) ? count - 1 - i : i);
    }
    if (!give(ev, n, g, k, c)) return false;
  }
  if (!eval_nodes(ev, g)) return false;
  const ConstData **next = ARENA_ARRAY(ev->arena, const ConstData *, n_state + 1);
  for (int k = 0; k < n_state; k++) next[k] = result(ev, g, k);
  memcpy(state, next, sizeof *next * (size_t)n_state);
  for (int k = n_state; k < n->n_out; k++) {
    const ConstData *c = result(ev, g, k);
    if (!c) return eval_fail(ev, n, ERR_INTERNAL, "scan output %d is not computed", k);
    vec_push(ev->arena, &scans[k], c);
  }
  return true;
}

static bool eval_scan(GraphEval *ev, Node *n) {
  Graph *g = node_region(n, "body");
  const int64_t m = node_int(n, "num_scan_inputs", 0);
  if (!g || m < 1 || m > n->n_in) return eval_fail(ev, n, ERR_ATTR_VALUE, "num_scan_inputs");
  const int n_state = n->n_in - (int)m;
  const ConstData **state = ARENA_ARRAY(ev->arena, const ConstData *, n_state + 1);
  Parts *scans = ARENA_ARRAY(ev->arena, Parts, n->n_out + 1);
  for (int k = 0; k < n_state; k++) state[k] = eval_value(ev, n->in[k]);
  const ConstData *first = eval_value(ev, n->in[n_state]);
  int64_t axis = node_ints_at(n, "scan_input_axes", 0, 0);
  if (axis < 0) axis += first->rank;
  if (axis < 0 || axis >= first->rank) return eval_fail(ev, n, ERR_ATTR_VALUE, "scan_input_axes");
  const int64_t count = first->dims[axis];
  for (int64_t i = 0; i < count; i++)
    if (!scan_step(ev, n, g, i, count, state, n_state, scans)) return false;
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    const int s = k - n_state;
    const ConstData *c = k < n_state
                             ? state[k]
                             : stack(ev, &scans[k], (int)node_ints_at(n, "scan_output_axes", s, 0),
                                     node_ints_at(n, "scan_output_directions", s, 0), n->out[k]);
    if (!put(ev, n, k, c)) return false;
  }
  return true;
}

bool eval_region(GraphEval *ev, Node *n) {
  switch (n->op->region) {
    case RG_IF: return eval_if(ev, n);
    case RG_LOOP: return eval_loop(ev, n);
    case RG_SCAN: return eval_scan(ev, n);
  }
  return false;
}
