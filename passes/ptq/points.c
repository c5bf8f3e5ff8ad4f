/* Which tensors are stored in 8 bits: those that products with constant weights read, up to where
 * their elements come from, and what must be stored between two such products anyway (the operand of
 * a residual sum that no product can compute in its epilogue, values that are averaged and scaled).
 * Operands of products of two activations, too, just in front of these. */
#include "ir/op/op.h"
#include "ir/ops/nn/contraction.h"
#include "passes/choose/contract_types.h"
#include "passes/graph/rewrite.h"
#include "passes/ptq/ptq.h"

enum { NO_POINT = -1 };

typedef struct Finder {
  Model *m;
  Arena *a;
  QuantPlan *q;
  const Target *matrix;
  bool *attends; /* by value id: sums of an attention that `matrix` takes in 16 bits */
  int *parent;   /* of groups while they are found: by point, a union-find forest */
  int *layer_of; /* by value id: layer whose sum it is, through elementwise nodes; -1: none */
  int *uses;     /* by value id */
} Finder;

/* ---- what only moves elements ---- */
static bool pad_zero(const Node *n) {
  const ConstData *v = const_input(n, 2);
  return node_is(n, "Pad") && (!node_in(n, 2) || (v && const_all(v, 0)));
}

/* Elements of the result are elements of data inputs (or zeros): the same scale suits all. */
static bool moves(const Node *n) {
  return node_moves(n) || pad_zero(n) || (node_is(n, "MaxPool") && (n->n_out == 1 || !n->out[1]));
}

static bool usable_activation(const Value *v) {
  return v && !v->cdata && v->kind == TY_TENSOR && v->dtype == DT_F32 && v->rank >= 1;
}

static bool in_main(const Finder *f, const Value *v) {
  return v->def && v->def->graph == f->m->main;
}

/* ---- groups ---- */
static int find_root(const Finder *f, int k) {
  while (f->parent[k] != k) k = f->parent[k];
  return k;
}

static void join(Finder *f, int a, int b) {
  a = find_root(f, a), b = find_root(f, b);
  if (a < b)
    f->parent[b] = a;
  else
    f->parent[a] = b;
}

static int channel_axis(const Value *v) { return v->rank >= 3 ? 1 : v->rank - 1; }

static int add_point(Finder *f, const Value *v, int axis) {
  int k = f->q->point_of[v->id];
  if (k >= 0) return k;
  k = f->q->points.n;
  QuantPoint p = {.value = v->id, .axis = axis, .from = -1, .to = -1};
  if (!expr_is_const(v->dims[axis], &p.channels)) p.channels = 0;
  vec_push(f->a, &f->q->points, p);
  f->q->point_of[v->id] = k;
  f->parent[k] = k;
  return k;
}

/* The point v and, back to where its elements come from, all that are moved into it. */
static int add_moved(Finder *f, Value *v, int axis) {
  const bool known = f->q->point_of[v->id] >= 0;
  const int k = add_point(f, v, axis);
  if (known || !in_main(f, v)) return k;
  const Node *n = v->def;
  for (int i = 0; moves(n) && i < node_data_inputs(n); i++)
    if (usable_activation(n->in[i])) join(f, k, add_moved(f, n->in[i], channel_axis(n->in[i])));
  return k;
}

/* ---- layers ---- */
static const ConstData *float_weights(const Node *n) {
  const ConstData *w = const_input(n, 1);
  return w && w->dtype == DT_F32 && w->rank >= 2 && w->count > 0 ? w : NULL;
}

static bool plain_gemm(const Node *n) {
  return node_is(n, "Gemm") && node_float(n, "alpha", 1) == 1 && node_float(n, "beta", 1) == 1 &&
         !node_int(n, "transA", 0);
}

/* Axis of the output channels in the weights, -1 where one scale must do; -2: not a layer. */
static int weight_axis(const Finder *f, const Node *n, const ConstData *w) {
  const bool matrix = node_is(n, "MatMul") || plain_gemm(n);
  const bool any = f->q->form == QUANT_INT8 || f->q->form == QUANT_HALF;
  if (!any && (!matrix || w->rank != 2)) return -2;
  if (node_is(n, "Conv")) return 0;
  if (node_is(n, "ConvTranspose")) return node_int(n, "group", 1) == 1 ? 1 : -1;
  if (plain_gemm(n)) return node_int(n, "transB", 0) ? 0 : 1;
  if (node_is(n, "MatMul")) return w->rank == 2 ? 1 : -1;
  return -2;
}

/* Elements of a sum, where a sum takes a vector of the activation as it lies along its channels. */
static int64_t contracted(const Node *n, const ConstData *w, int axis) {
  if (node_is(n, "Conv")) {
    if (node_int(n, "group", 1) != 1) return 0;
    for (int d = 2; d < w->rank; d++)
      if (w->dims[d] != 1) return 0;
    return w->dims[1];
  }
  return w->rank == 2 && axis >= 0 && !node_is(n, "ConvTranspose") ? w->dims[1 - axis] : 0;
}

/* Elements of v, with unknown sizes as 1. */
static double known_count(const Value *v) {
  double elements = 1;
  for (int d = 0; d < v->rank; d++) {
    int64_t size;
    if (expr_is_const(v->dims[d], &size)) elements *= (double)size;
  }
  return elements;
}

static double multiply_adds(const Node *n, const ConstData *w, int axis) {
  return known_count(n->out[0]) * (double)w->count /
         (double)(axis >= 0 ? w->dims[axis] : w->dims[w->rank - 1]);
}

/* ---- products of two activations ---- */
/* The product whose sums v is made of, one by one but for a softmax; or NULL. Each node on the way is
 * handed to `seen`. */
static const Node *scores_of(const Value *v, int depth, void (*seen)(Node *n, void *user),
                             void *user) {
  enum { MAX_DEPTH = 12 };
  Node *n = v->def;
  if (!n || depth > MAX_DEPTH) return NULL;
  if (node_is(n, "MatMul")) return n;
  if (n->op->body != OB_EW && !node_is(n, "Softmax")) return NULL;
  for (int k = 0; k < n->n_in; k++) {
    const Value *from = n->in[k];
    const Node *found =
        from && value_same_shape(from, v) ? scores_of(from, depth + 1, seen, user) : NULL;
    if (found && seen) seen(n, user);
    if (found) return found;
  }
  return NULL;
}

static bool has_two_activations(const Node *n) {
  int64_t k;
  return node_is(n, "MatMul") && usable_activation(n->in[0]) && usable_activation(n->in[1]) &&
         n->in[0]->rank >= 2 && n->in[1]->rank >= 2 &&
         expr_is_const(n->in[0]->dims[n->in[0]->rank - 1], &k);
}

static bool fits_matrix(const Finder *f, const Node *n) {
  return has_two_activations(n) &&
         (target_has_grids(f->matrix) ||
          contract_matrix_takes(contract_types(DT_BF16, DT_BF16), f->matrix,
                                n->in[0]->dims[n->in[0]->rank - 1]));
}

/* Both products, or none: else they are one kernel in f32. A GPU has a kernel for both. */
static void find_attention(Finder *f) {
  const Graph *g = f->m->main;
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    const Node *scores = fits_matrix(f, n) ? scores_of(n->in[0], 0, NULL, NULL) : NULL;
    if (scores && fits_matrix(f, scores) &&
        (target_has_grids(f->matrix) ||
         4 * known_count(scores->out[0]) <= (double)f->matrix->l2_bytes)) /* as in attention.c */
      f->attends[n->out[0]->id] = f->attends[scores->out[0]->id] = true;
  }
}

static bool is_computed_product(const Finder *f, const Node *n) {
  return has_two_activations(n) && (f->q->form == QUANT_INT8 || f->attends[n->out[0]->id]);
}

static void add_computed(Finder *f, int node) {
  const Node *n = f->m->main->nodes.data[node];
  const Value *x = n->in[0];
  QuantLayer l = {.node = node,
                  .op = n->op->name,
                  .name = node_title(f->a, n),
                  .weight_axis = -1,
                  .scores = -1,
                  .channels = 1,
                  .macs = known_count(n->out[0]),
                  .axis = x->rank - 1,
                  .on = true};
  int64_t k;
  if (expr_is_const(x->dims[l.axis], &k)) l.macs *= (double)k;
  const Node *scores = scores_of(x, 0, NULL, NULL);
  for (int i = 0; i < f->q->layers.n && scores; i++)
    if (f->m->main->nodes.data[f->q->layers.data[i].node] == scores &&
        f->q->layers.data[i].other != NO_POINT)
      l.scores = i;
  l.other = 0; /* points are made behind those of all other layers */
  vec_push(f->a, &f->q->layers, l);
}

/* Their operands are points of their own: parts of one tensor (Split) have other ranges. */
static void add_operands(Finder *f) {
  for (int i = 0; i < f->q->layers.n; i++) {
    QuantLayer *l = &f->q->layers.data[i];
    const Node *n = f->m->main->nodes.data[l->node];
    if (l->other == NO_POINT) continue;
    l->point = add_point(f, n->in[0], l->axis);
    l->other = add_point(f, n->in[1], n->in[1]->rank - 1);
  }
}

/* ---- products with constant weights ---- */
static void add_layer(Finder *f, int node) {
  const Node *n = f->m->main->nodes.data[node];
  const ConstData *w = n->n_in > 1 ? float_weights(n) : NULL;
  const int axis = w ? weight_axis(f, n, w) : -2;
  if (n->n_in == 2 && is_computed_product(f, n)) add_computed(f, node);
  if (axis < -1 || !usable_activation(n->in[0])) return;
  const bool conv = node_is(n, "Conv") || node_is(n, "ConvTranspose");
  QuantLayer l = {.node = node,
                  .op = n->op->name,
                  .name = node_title(f->a, n),
                  .weight_axis = axis,
                  .other = NO_POINT,
                  .scores = -1,
                  .on = true};
  l.channels = axis >= 0 ? w->dims[axis] : 1;
  l.weights = w->count;
  l.macs = multiply_adds(n, w, axis);
  l.contracted = f->q->form == QUANT_HALF ? 0 : contracted(n, w, axis);
  l.image = conv;
  l.conv = node_is(n, "Conv");
  l.matrix = !conv;
  l.axis = conv ? 1 : n->in[0]->rank - 1;
  l.point = add_moved(f, n->in[0], l.axis);
  f->layer_of[n->out[0]->id] = f->q->layers.n;
  vec_push(f->a, &f->q->layers, l);
}

/* ---- points between layers ---- */
static bool is_elementwise(const Node *n) { return n->op->body == OB_EW && n->n_out == 1; }

/* Elementwise nodes behind a sum belong to its layer: the last one among their operands. */
static void follow_layers(Finder *f) {
  const Graph *g = f->m->main;
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    if (!is_elementwise(n)) continue;
    int last = -1;
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] && f->layer_of[n->in[k]->id] > last) last = f->layer_of[n->in[k]->id];
    f->layer_of[n->out[0]->id] = last;
  }
}

/* The group that v reaches through elementwise nodes only; -1: none. By value id, filled backwards. */
static void reach_points(const Finder *f, int *reaches) {
  const Graph *g = f->m->main;
  for (int id = 0; id < f->m->next_value; id++) reaches[id] = f->q->point_of[id];
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    const Node *n = g->nodes.data[i];
    const int to = is_elementwise(n) ? reaches[n->out[0]->id] : -1;
    for (int k = 0; k < n->n_in; k++)
      if (to >= 0 && n->in[k] && reaches[n->in[k]->id] < 0) reaches[n->in[k]->id] = to;
  }
}

static bool is_open(const Finder *f, const Value *v) {
  return usable_activation(v) && v->rank >= 3 && in_main(f, v) && f->layer_of[v->id] >= 0 &&
         f->q->point_of[v->id] < 0;
}

static void add_between(Finder *f, const Value *v, int to) {
  const int k = add_point(f, v, channel_axis(v));
  QuantPoint *p = &f->q->points.data[k];
  p->between = true;
  p->from = f->layer_of[v->id];
  p->to = to; /* a point, until groups are numbered */
}

/* Of two operands of a sum, one can be computed with it; a value with several readers is stored. */
static void find_between(Finder *f) {
  int *reaches = ARENA_ARRAY(f->a, int, f->m->next_value + 1);
  const Graph *g = f->m->main;
  reach_points(f, reaches);
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    const int to = is_elementwise(n) ? reaches[n->out[0]->id] : -1;
    if (to < 0 || n->n_in != 2 || !n->in[0] || !n->in[1] || n->in[0] == n->in[1]) continue;
    const bool a = is_open(f, n->in[0]), b = is_open(f, n->in[1]);
    const bool same = value_same_shape(n->in[0], n->in[1]);
    if (a && b && same && f->uses[n->in[0]->id] == 1 && f->uses[n->in[1]->id] == 1)
      add_between(f, n->in[f->layer_of[n->in[0]->id] > f->layer_of[n->in[1]->id]], to);
    for (int k = 0; k < 2; k++)
      if (is_open(f, n->in[k]) && f->uses[n->in[k]->id] > 1 &&
          value_same_shape(n->in[k], n->out[0]))
        add_between(f, n->in[k], to);
  }
}

/* ---- the plan ---- */
static void count_uses(Finder *f) {
  const Graph *g = f->m->main;
  for (int i = 0; i < g->nodes.n; i++)
    for (int k = 0; k < g->nodes.data[i]->n_in; k++)
      if (g->nodes.data[i]->in[k]) f->uses[g->nodes.data[i]->in[k]->id]++;
  for (int k = 0; k < g->outputs.n; k++) f->uses[g->outputs.data[k]->id]++;
}

static void number_groups(Finder *f) {
  QuantPlan *q = f->q;
  int *number = ARENA_ARRAY(f->a, int, q->points.n + 1);
  for (int k = 0; k < q->points.n; k++) {
    const int root = find_root(f, k);
    if (root == k) {
      number[k] = q->groups.n;
      vec_push(f->a, &q->groups, (QuantGroup){0});
    }
    q->points.data[k].group = number[root];
    q->groups.data[number[root]].n_points++;
  }
  for (int k = 0; k < q->points.n; k++) {
    QuantPoint *p = &q->points.data[k];
    if (p->between) p->to = q->points.data[p->to].group;
  }
}

bool quant_rounds_activations(const QuantPlan *q) {
  return q->form == QUANT_INT8 || (q->form == QUANT_HALF && !q->weights_only);
}

void quant_plan_update(QuantPlan *q) {
  for (int k = 0; k < q->groups.n; k++) q->groups.data[k].on = false;
  if (!quant_rounds_activations(q)) return;
  for (int k = 0; k < q->layers.n; k++) {
    const QuantLayer *l = &q->layers.data[k];
    if (!l->on) continue;
    q->groups.data[q->points.data[l->point].group].on = true;
    if (l->other >= 0) q->groups.data[q->points.data[l->other].group].on = true;
  }
  for (int k = 0; k < q->points.n; k++) { /* read by layers only through others: in order */
    const QuantPoint *p = &q->points.data[k];
    if (p->between && q->layers.data[p->from].on && q->groups.data[p->to].on)
      q->groups.data[p->group].on = true;
  }
}

QuantPlan *quant_plan(Model *m, Arena *a, QuantForm form, const Target *matrix) {
  const int n = m->next_value;
  QuantPlan *q = ARENA_NEW(a, QuantPlan);
  *q = (QuantPlan){.form = form, .arena = a, .n_values = n, .point_of = ARENA_ARRAY(a, int, n + 1)};
  Finder f = {.m = m,
              .a = a,
              .q = q,
              .matrix = matrix,
              .attends = ARENA_ARRAY(a, bool, n + 1),
              .parent = ARENA_ARRAY(a, int, n + 1),
              .layer_of = ARENA_ARRAY(a, int, n + 1),
              .uses = ARENA_ARRAY(a, int, n + 1)};
  for (int id = 0; id < n; id++) q->point_of[id] = f.layer_of[id] = -1;
  count_uses(&f);
  if (form == QUANT_HALF && matrix) find_attention(&f);
  for (int i = 0; i < m->main->nodes.n; i++) add_layer(&f, i);
  follow_layers(&f);
  find_between(&f);
  add_operands(&f);
  number_groups(&f);
  quant_plan_update(q);
  return q;
}

const Node *quant_layer_node(const Model *m, const QuantLayer *l) {
  return m->main->nodes.data[l->node];
}

static void mark(Node *n, void *layer) {
  Arena *a = n->graph->model->arena;
  const char *name = n->loc && n->loc->node_name ? n->loc->node_name : "";
  Loc *loc = ARENA_NEW(a, Loc);
  *loc = n->loc ? *n->loc : (Loc){.node = -1};
  loc->node_name = arena_printf(a, "%s" QUANT_LAYER_MARK "%d]", name, *(int *)layer);
  loc->op = n->op->name;
  loc->also = NULL;
  n->loc = loc;
}

bool quant_mark_layers(Model *m, const QuantPlan *q) {
  for (int k = 0; k < q->layers.n; k++) {
    Node *n = m->main->nodes.data[q->layers.data[k].node];
    mark(n, &k);
    if (q->layers.data[k].scores >= 0) scores_of(n->in[0], 0, mark, &k);
  }
  return true;
}

int quant_shift_count(const QuantPlan *q) {
  int64_t n = 0;
  for (int k = 0; k < q->layers.n; k++) n += q->layers.data[k].channels;
  return (int)n;
}
