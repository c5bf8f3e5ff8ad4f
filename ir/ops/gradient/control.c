/* Gradients of If and Loop. A branch is copied into an If of the same condition and differentiated
 * there. A Loop keeps the states that each iteration began with; a second Loop goes through the
 * iterations from the last to the first, computes each again from its state, and differentiates it
 * (checkpoints at iterations: Griewank and Walther, chapter 12). */
#include <string.h>
#include "ir/op/gradient.h"
#include "ir/op/ops.h"

typedef Vec(Value *) ValueList;

static bool infer_copy(void *user, Node *n) { return op_infer(user, n); }

/* Values from outside that the region reads, and whose gradient is wanted. */
typedef struct Captured {
  const Gradient *s;
  ValueList *l;
} Captured;

static bool add_captured(void *user, Value *v) {
  const Captured *c = user;
  if (!gradient_wants(c->s, v)) return false;
  for (int k = 0; k < c->l->n; k++)
    if (c->l->data[k] == v) return false;
  vec_push(c->s->b->m->arena, c->l, v);
  return false;
}

static void captured(const Gradient *s, const Graph *g, ValueList *l) {
  graph_any_read(g, add_captured, &(Captured){s, l});
}

/* Dropout of a training step is a hash of what stays the same. */
static bool is_random(const Node *n) {
  const bool step = strcmp(n->op->name, "TrainingDropout") == 0 && node_attr(n, "seed");
  return (n->op->flags & OF_RANDOM) && !step;
}

static bool has_random(const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    if (is_random(n)) return true;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && has_random(n->attrs[k].graph)) return true;
  }
  return false;
}

/* It is computed twice, which must give the same. */
static bool repeats(const Gradient *s, const Graph *g) {
  return !has_random(g) || op_error(s->b->m, s->n, ERR_UNSUPPORTED,
                                    "random numbers in a region have no gradient yet");
}

/* ---- If ---- */
/* -1: not known; else whether it holds. */
static int known_condition(Model *m, const Node *n) {
  int64_t k;
  const Expr *e = value_element(m->pool, n->in[0], 0);
  return e && expr_is_const(e, &k) ? k != 0 : -1;
}

static Graph *branch_gradient(Gradient *s, const char *name, const ValueList *xs, bool runs) {
  Model *m = s->b->m;
  const Graph *from = node_region(s->n, name);
  Graph *g = graph_new(m, s->b->g, name);
  Build b = {.m = m, .g = g, .loc = s->b->loc, .ok = true};
  Value **d = ARENA_ARRAY(m->arena, Value *, xs->n + 1),
        **ys = ARENA_ARRAY(m->arena, Value *, s->n->n_out + 1),
        **gys = ARENA_ARRAY(m->arena, Value *, s->n->n_out + 1);
  GraphCopy c = graph_copy_new(m);
  int n = 0;
  if (runs && !graph_copy_nodes(&c, g, from, infer_copy, m)) return NULL;
  for (int k = 0; runs && k < s->n->n_out; k++) {
    if (!s->g[k]) continue;
    ys[n] = graph_copy_of(&c, from->outputs.data[k]);
    gys[n++] = s->g[k];
  }
  if (runs && !build_gradients(&b, n, ys, gys, xs->n, xs->data, d)) return NULL;
  for (int k = 0; k < xs->n; k++)
    vec_push(m->arena, &g->outputs, runs ? d[k] : build_full_like(&b, xs->data[k], 0));
  return b.ok ? g : NULL;
}

bool grad_if(Gradient *s) {
  static const char *const names[] = {"then_branch", "else_branch"};
  Model *m = s->b->m;
  const int taken = known_condition(m, s->n);
  ValueList xs = {0};
  Attr attrs[2];
  for (int k = 0; k < 2; k++)
    if (taken != k) captured(s, node_region(s->n, names[k]), &xs);
  for (int k = 0; k < 2; k++) {
    if (!repeats(s, node_region(s->n, names[k]))) return false;
    Graph *g = branch_gradient(s, names[k], &xs, taken != k);
    if (!g) return false;
    attrs[k] = (Attr){.name = names[k], .kind = AT_GRAPH, .n = 1, .graph = g};
  }
  Node *n = build_node(s->b, "If", "", 1, s->n->in, xs.n, 2, attrs);
  for (int k = 0; k < 2; k++) attrs[k].graph->owner = n;
  for (int k = 0; k < xs.n && s->b->ok; k++)
    if (!gradient_give(s, xs.data[k], n->out[k])) return false;
  return s->b->ok;
}

/* ---- Loop ---- */
typedef struct LoopGradient {
  Gradient *s;
  const Graph *body;
  int carried, scanned; /* scan outputs of the loop as it was */
  Value *trips, *last;  /* iterations, and the number of the last one */
  Value **states;       /* what each carried value was before the iterations, stacked */
  ValueList xs;         /* captured values */
  Graph *g;             /* of the loop that goes back */
  Build b;              /* in it */
} LoopGradient;

static bool is_float(const Value *v) { return v->kind == TY_TENSOR && dtype_is_float(v->dtype); }

/* The loop also gives the states that its iterations begin with. */
static bool keep_states(LoopGradient *l) {
  Gradient *s = l->s;
  Model *m = s->b->m;
  Node *n = (Node *)(uintptr_t)s->n; /* it gets outputs */
  Graph *g = node_region(n, "body");
  while (n->n_out < g->outputs.n - 1) node_add_output(n, NULL);
  const int first = n->n_out;
  for (int k = 0; k < l->carried; k++) {
    vec_push(m->arena, &g->outputs, g->inputs.data[k + 2]);
    node_add_output(n, NULL);
  }
  if (l->carried == 0) { /* how often it ran */
    vec_push(m->arena, &g->outputs, g->inputs.data[0]);
    node_add_output(n, NULL);
  }
  if (!op_infer(m, n)) return false;
  l->states = n->out + first;
  l->trips = build_reshape(s->b, build_shape(s->b, l->states[0], 0, 1), 0, NULL);
  l->last = s->b->ok ? build2(s->b, "Sub", l->trips, build_scalar(s->b, DT_I64, 1)) : NULL;
  return s->b->ok;
}

static Value *region_input(LoopGradient *l, DType t, int rank, const Expr *const *dims) {
  Model *m = l->b.m;
  Value *v = value_new(m, NULL);
  value_set_tensor(m, v, t, rank, dims);
  vec_push(m->arena, &l->g->inputs, v);
  return v;
}

static Value *at_iteration(LoopGradient *l, Value *stack, Value *t) {
  const Attr axis = attr_int(l->b.m->arena, "axis", 0);
  return l->b.ok ? build_op(&l->b, "Gather", 2, (Value *[]){stack, t}, 1, &axis) : stack;
}

/* The body again, from the state before iteration t: c stands for its values. */
static bool body_again(LoopGradient *l, Value *t, GraphCopy *c) {
  Model *m = l->b.m;
  const Graph *body = l->body;
  c->to[body->inputs.data[0]->id] = t;
  c->to[body->inputs.data[1]->id] = value_const_scalar(m, DT_BOOL, 1);
  for (int k = 0; k < l->carried; k++)
    c->to[body->inputs.data[k + 2]->id] = at_iteration(l, l->states[k], t);
  return l->b.ok && graph_copy_nodes(c, l->g, body, infer_copy, m);
}

/* Carried values and scan outputs of the copy that have gradients: of the former `carried`. */
static int results(LoopGradient *l, const GraphCopy *c, Value *t, Value *const *carried, Value **ys,
                   Value **gys) {
  int n = 0;
  for (int k = 0; k < l->carried; k++) {
    if (!carried[k]) continue;
    ys[n] = graph_copy_of(c, l->body->outputs.data[k + 1]);
    gys[n++] = carried[k];
  }
  for (int k = l->carried; k < l->carried + l->scanned; k++) {
    if (!l->s->g[k]) continue;
    ys[n] = graph_copy_of(c, l->body->outputs.data[k + 1]);
    gys[n++] = at_iteration(l, l->s->g[k], t);
  }
  return n;
}

/* The body of the loop that goes back: its inputs are number, condition, the gradients of the float
 * states and those of captured values so far. */
static bool backward_body(LoopGradient *l) {
  Model *m = l->b.m;
  const int most = l->carried + l->scanned + 1;
  Value **ds = ARENA_ARRAY(m->arena, Value *, most), **ys = ARENA_ARRAY(m->arena, Value *, most),
        **gys = ARENA_ARRAY(m->arena, Value *, most),
        **xs = ARENA_ARRAY(m->arena, Value *, l->carried + l->xs.n + 1),
        **dxs = ARENA_ARRAY(m->arena, Value *, l->carried + l->xs.n + 1),
        **sums = ARENA_ARRAY(m->arena, Value *, l->xs.n + 1);
  Value *iter = region_input(l, DT_I64, 0, NULL);
  region_input(l, DT_BOOL, 0, NULL);
  for (int k = 0; k < l->carried; k++) {
    const Value *v = l->body->inputs.data[k + 2];
    ds[k] = is_float(v) ? region_input(l, v->dtype, v->rank, (const Expr *const *)v->dims) : NULL;
  }
  for (int k = 0; k < l->xs.n; k++) {
    const Value *v = l->xs.data[k];
    sums[k] = region_input(l, v->dtype, v->rank, (const Expr *const *)v->dims);
  }
  Value *t = build2(&l->b, "Sub", l->last, iter);
  GraphCopy c = graph_copy_new(m);
  if (!l->b.ok || !body_again(l, t, &c)) return false;
  const int n = results(l, &c, t, ds, ys, gys);
  int n_x = 0;
  for (int k = 0; k < l->carried; k++)
    if (ds[k]) xs[n_x++] = graph_copy_of(&c, l->body->inputs.data[k + 2]);
  for (int k = 0; k < l->xs.n; k++) xs[n_x + k] = l->xs.data[k];
  if (!l->b.ok || !build_gradients(&l->b, n, ys, gys, n_x + l->xs.n, xs, dxs)) return false;
  vec_push(m->arena, &l->g->outputs, value_const_scalar(m, DT_BOOL, 1));
  for (int k = 0; k < n_x; k++) vec_push(m->arena, &l->g->outputs, dxs[k]);
  for (int k = 0; k < l->xs.n; k++)
    vec_push(m->arena, &l->g->outputs, build2(&l->b, "Add", sums[k], dxs[n_x + k]));
  return l->b.ok;
}

static bool go_back(LoopGradient *l) {
  Gradient *s = l->s;
  Build *b = s->b;
  const Node *n = s->n;
  Value **in = ARENA_ARRAY(b->m->arena, Value *, 2 + l->carried + l->xs.n);
  int count = 2;
  in[0] = l->trips;
  for (int k = 0; k < l->carried; k++)
    if (is_float(n->out[k])) in[count++] = s->g[k] ? s->g[k] : build_full_like(b, n->out[k], 0);
  for (int k = 0; k < l->xs.n; k++) in[count++] = build_full_like(b, l->xs.data[k], 0);
  const Attr a = {.name = "body", .kind = AT_GRAPH, .n = 1, .graph = l->g};
  Node *back = build_node(b, "Loop", "", count, in, count - 2, 1, &a);
  l->g->owner = back;
  int at = 0;
  for (int k = 0; k < l->carried; k++)
    if (is_float(n->out[k]) && !gradient_give(s, n->in[k + 2], back->out[at++])) return false;
  for (int k = 0; k < l->xs.n; k++)
    if (!gradient_give(s, l->xs.data[k], back->out[at++])) return false;
  return b->ok;
}

bool grad_loop(Gradient *s) {
  Model *m = s->b->m;
  const Node *n = s->n;
  LoopGradient l = {.s = s, .body = node_region(n, "body"), .carried = n->n_in - 2};
  l.scanned = n->n_out - l.carried;
  if (!repeats(s, l.body)) return false;
  captured(s, l.body, &l.xs);
  for (int k = 0; k < l.carried; k++)
    if (n->in[k + 2]->kind != TY_TENSOR || !n->out[k])
      return op_error(m, n, ERR_UNSUPPORTED, "carried value %d has no gradient yet", k);
  if (!keep_states(&l)) return false;
  l.g = graph_new(m, s->b->g, "gradient");
  l.b = (Build){.m = m, .g = l.g, .loc = s->b->loc, .ok = true};
  return backward_body(&l) && go_back(&l);
}
