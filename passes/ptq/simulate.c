/* One program that computes every layer in either form, told by inputs which: so the damage of each
 * and of any choice of them is measured without compiling again. Its 8 bits are those of
 * docs/quantization.md, its sums are of floats. */
#include "passes/ptq/rewriter.h"

typedef struct Switches {
  Value *layers, *groups, *scales, *zeros, *shifts;
  int64_t next_shift; /* in shifts */
} Switches;

static Value *add_input(Model *m, const char *name, DType t, int n) {
  Value *v = value_new(m, name);
  const Expr *dim = ex_i64(m->pool, n);
  value_set_tensor(m, v, t, 1, &dim);
  vec_push(m->arena, &m->main->inputs, v);
  return v;
}

static Value *element(Build *b, Value *list, int k) {
  return build2(b, "Gather", list, build_scalar(b, DT_I64, k));
}

static Value *build3(Build *b, const char *op, Value *x, Value *y, Value *z) {
  Value *in[] = {x, y, z};
  return b->ok ? build_op(b, op, 3, in, 0, NULL) : NULL;
}

static Value *chain2(Build *b, const char *op, Value *x, Value *y) {
  return b->ok ? build2(b, op, x, y) : NULL;
}

static Value *round_switched(Rewriter *r, Value *v, int group) {
  const Switches *s = r->user;
  Build *b = &r->b;
  Value *on = element(b, s->groups, group);
  if (r->q->form == QUANT_HALF) return build3(b, "Where", on, build_rounded(b, v, r->q->half), v);
  Value *scale = element(b, s->scales, group), *zero = element(b, s->zeros, group);
  Value *q = chain2(b, "Div", v, scale);
  q = b->ok ? build1(b, "Round", q) : NULL;
  q = chain2(b, "Add", q, zero);
  q = build3(b, "Clip", q, build_scalar(b, DT_F32, 0), build_scalar(b, DT_F32, 255));
  q = chain2(b, "Mul", chain2(b, "Sub", q, zero), scale);
  return build3(b, "Where", on, q, v);
}

/* Weights as fewer bits hold them, in floats. */
static Value *rounded_weights(const Rewriter *r, const QuantLayer *l, const ConstData *w) {
  Model *m = r->m;
  if (r->q->form == QUANT_HALF) return quant_half_weights_real(m, w, r->q->half);
  const QuantWeights q = quant_weights(r->q, l, w, m->arena);
  return value_const(
      m, const_new(m, NULL, DT_F32, w->rank, w->dims, quant_weights_real(&q, w, m->arena)));
}

/* The activation as its own range makes it. */
static Value *round_dynamic(Build *b, Value *x) {
  Node *n = build_node(b, "DynamicQuantizeLinear", "", 1, &x, 3, 0, NULL);
  return b->ok ? build_op(b, "DequantizeLinear", 3, n->out, 0, NULL) : x;
}

typedef struct Shift { /* what the 8-bit form adds to every output channel */
  Value *all;
  int64_t from, n;
  bool image; /* channels are dimension 1, else the last */
} Shift;

static Value *add_shift(Build *b, Value *sum, const Shift *s) {
  int64_t dims[MAX_RANK];
  const int64_t first[] = {s->from}, end[] = {s->from + s->n};
  Value *in[] = {s->all, build_i64s(b, 1, first), build_i64s(b, 1, end)};
  Value *v = build_op(b, "Slice", 3, in, 0, NULL);
  for (int d = 0; d < sum->rank; d++) dims[d] = d == 1 ? s->n : 1;
  if (b->ok && s->image) v = build2(b, "Reshape", v, build_i64s(b, sum->rank, dims));
  return chain2(b, "Add", sum, v);
}

static Graph *branch(Rewriter *r, const Node *n, const char *name, Value *x, Value *w,
                     const Shift *shift, bool dynamic) {
  Graph *g = graph_new(r->m, n->graph, name);
  Build b = {.m = r->m, .g = g, .loc = n->loc, .ok = true};
  Value *in[] = {dynamic ? round_dynamic(&b, x) : x, w, node_in(n, 2)};
  if (!b.ok) return NULL;
  Value *sum = build_op(&b, n->op->name, in[2] ? 3 : 2, in, n->n_attrs, n->attrs);
  if (b.ok && shift) sum = add_shift(&b, sum, shift);
  if (!b.ok) return NULL;
  vec_push(r->m->arena, &g->outputs, sum);
  return g;
}

static bool switch_layer(Rewriter *r, Node *n, const QuantLayer *l, Value *const *in8, bool *keep) {
  Switches *s = r->user;
  Model *m = r->m;
  Value *on = element(&r->b, s->layers, (int)(l - r->q->layers.data));
  const Shift shift = {s->shifts, s->next_shift, l->channels, n->op->max_in == 3 && l->image};
  s->next_shift += l->channels;
  Value *w = l->other < 0 ? rounded_weights(r, l, quant_layer_weights(m, r->q, n, l)) : in8[1];
  Graph *then = branch(r, n, "in 8 bits", in8[0], w,
                       l->weight_axis >= 0 && r->q->form != QUANT_HALF ? &shift : NULL,
                       r->q->form == QUANT_DYNAMIC),
        *other = branch(r, n, "in floats", n->in[0], n->in[1], NULL, false);
  if (!then || !other || !r->b.ok) return false;
  Node *choice = graph_add_node(m->main, NULL, op_find("", "If"), 1, &on, n->loc);
  node_set_attr(choice, (Attr){.name = "then_branch", .kind = AT_GRAPH, .n = 1, .graph = then});
  node_set_attr(choice, (Attr){.name = "else_branch", .kind = AT_GRAPH, .n = 1, .graph = other});
  then->owner = other->owner = choice;
  node_add_output(choice, n->out[0]->name);
  if (!op_infer(m, choice)) return false;
  choice->out[0] = n->out[0]; /* everyone reads this value already */
  n->out[0]->def = choice;
  *keep = false;
  return true;
}

bool quant_simulate(Model *m, const QuantPlan *q) {
  Switches s = {add_input(m, "burin.layers", DT_BOOL, q->layers.n),
                add_input(m, "burin.groups", DT_BOOL, q->groups.n),
                add_input(m, "burin.scales", DT_F32, q->groups.n),
                add_input(m, "burin.zeros", DT_F32, q->groups.n),
                add_input(m, "burin.shifts", DT_F32, quant_shift_count(q)),
                0};
  Rewriter r = {.m = m,
                .q = q,
                .user = &s,
                .round = round_switched,
                .layer = switch_layer,
                .all_groups = true};
  return rewriter_run(&r) && (q->form != QUANT_HALF || quant_halve_tables(m, q, true));
}
