/* See recompute.h. Writes the main graph anew in the order of a schedule. What is computed for the
 * first time are the nodes that were there; what is computed again are copies of them. A node whose
 * result is inlined stands in front of the first that reads it, and is copied where its inputs have
 * been computed again since. */
#include "passes/form/recompute.h"

#include <string.h>

struct Undo {
  Node **nodes; /* of the graph */
  int n, cap;
  Value ***in;     /* of each node */
  ValueForm *form; /* of each value, by id */
};

typedef struct Apply {
  Units *u;
  Graph *g;
  Undo *undo;
  Value **now;   /* by stored value: what it is at this point */
  Node **placed; /* by position: the last node that stands for it, or NULL */
} Apply;

static bool is_unit(const Apply *a, const Node *n) { return a->u->unit_of[n->mark] != 0; }

static Value **current_inputs(Apply *a, const Node *n);

static bool same_inputs(const Node *n, Value *const *in) {
  return n->n_in == 0 || memcmp(n->in, in, sizeof *in * (size_t)n->n_in) == 0;
}

static Node *copy_node(Apply *a, const Node *n, Value *const *in) {
  Node *const copy = graph_add_node(a->g, NULL, n->op, n->n_in, in, n->loc);
  copy->mark = n->mark;
  for (int k = 0; k < n->n_attrs; k++) node_set_attr(copy, n->attrs[k]);
  for (int k = 0; k < n->n_out; k++) {
    Value *const v = node_add_output(copy, n->out[k] ? n->out[k]->name : NULL);
    if (!n->out[k]) continue;
    const Value as = *v;
    *v = *n->out[k];
    v->id = as.id;
    v->def = copy;
    v->def_index = k;
  }
  return copy;
}

static void place_first(Apply *a, Node *n, Value **in) {
  n->in = in;
  vec_push(a->g->model->arena, &a->g->nodes, n);
  a->placed[n->mark] = n;
}

/* The node that computes n's inlined results from what its inputs are now. */
static Node *place_inlined(Apply *a, Node *n) {
  Value **const in = current_inputs(a, n);
  Node **const placed = &a->placed[n->mark];
  if (!*placed)
    place_first(a, n, in);
  else if (!same_inputs(*placed, in) && n->op->body != OB_EXTERN)
    *placed = copy_node(a, n, in);
  return *placed;
}

static Value *current(Apply *a, Value *v) {
  if (!v || v->cdata || !v->def || v->def->graph != a->g) return v;
  if (a->u->of[v->id]) return a->now[a->u->of[v->id] - 1];
  if (is_unit(a, v->def)) return v;
  return place_inlined(a, v->def)->out[v->def_index];
}

static Value **current_inputs(Apply *a, const Node *n) {
  Value **const in = ARENA_ARRAY(a->g->model->arena, Value *, n->n_in + 1);
  for (int k = 0; k < n->n_in; k++) in[k] = current(a, a->undo->in[n->mark][k]);
  return in;
}

static bool place_read(void *user, Value *v) {
  Apply *const a = user;
  current(a, v);
  return false;
}

static void place_unit(Apply *a, const Execution *e) {
  const Unit *const unit = &a->u->unit[e->unit];
  Node *const n = unit->n;
  for (int k = 0; k < n->n_syms; k++)
    if (n->syms[k].src) current(a, n->syms[k].src);
  for (int k = 0; k < n->n_attrs; k++)
    if (n->attrs[k].kind == AT_GRAPH) graph_any_read(n->attrs[k].graph, place_read, a);
  Value **const in = current_inputs(a, n);
  if (!e->again) {
    place_first(a, n, in);
    return;
  }
  const int out = unit->outs.data[0];
  a->now[out] = copy_node(a, n, in)->out[a->u->stored[out].v->def_index];
}

/* Kernels stay as they are, and with them the order of their sums. */
static void set_forms(const Units *u, ValueForm *was) {
  for (int i = 0; i < u->g->nodes.n; i++) {
    const Node *const n = u->g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++) {
      Value *const v = n->out[k];
      if (!v) continue;
      was[v->id] = v->form;
      v->form = u->of[v->id] ? FORM_STORED : FORM_INLINED;
    }
  }
}

static void reset_forms(const Units *u, const ValueForm *was) {
  for (int i = 0; i < u->g->nodes.n; i++) {
    const Node *const n = u->g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) n->out[k]->form = was[n->out[k]->id];
  }
}

static Undo *undo_new(Units *u) {
  Undo *const undo = ARENA_NEW(u->a, Undo);
  Graph *const g = u->g;
  *undo = (Undo){.nodes = g->nodes.data, .n = g->nodes.n, .cap = g->nodes.cap};
  undo->in = ARENA_ARRAY(u->a, Value **, g->nodes.n + 1);
  for (int i = 0; i < g->nodes.n; i++) {
    g->nodes.data[i]->mark = i;
    undo->in[i] = g->nodes.data[i]->in;
  }
  g->nodes.data = NULL;
  g->nodes.n = g->nodes.cap = 0;
  return undo;
}

Undo *schedule_apply(Units *u, const Schedule *s) {
  ValueForm *const form = ARENA_ARRAY(u->a, ValueForm, u->c->model->next_value + 1);
  set_forms(u, form);
  u->c->model->scheduled = true;
  Apply a = {.u = u, .g = u->g, .undo = undo_new(u)};
  a.undo->form = form;
  a.placed = ARENA_ARRAY(u->a, Node *, a.undo->n + 1);
  a.now = ARENA_ARRAY(u->a, Value *, u->n_stored + 1);
  for (int k = 0; k < u->n_stored; k++) a.now[k] = u->stored[k].v;
  for (int i = 0; i < s->order.n; i++) place_unit(&a, &s->order.data[i]);
  for (int i = 0; i < a.undo->n;
       i++) /* results of the graph that are views, and what nobody reads */
    if (!is_unit(&a, a.undo->nodes[i]) && !a.placed[i]) place_inlined(&a, a.undo->nodes[i]);
  return a.undo;
}

void schedule_undo(Units *u, const Undo *undo) {
  u->g->nodes.data = undo->nodes;
  u->g->nodes.n = undo->n;
  u->g->nodes.cap = undo->cap;
  for (int i = 0; i < undo->n; i++) undo->nodes[i]->in = undo->in[i];
  reset_forms(u, undo->form);
  u->c->model->scheduled = false;
}
