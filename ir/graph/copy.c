/* Walks over what graphs read, and copies of graphs. */
#include "ir/graph/graph.h"
#include "ir/graph/op_row.h"

bool node_any_read(const Node *n, bool (*f)(void *user, Value *v), void *user) {
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && f(user, n->in[k])) return true;
  for (int k = 0; k < n->n_attrs; k++)
    if (n->attrs[k].kind == AT_GRAPH && graph_any_read(n->attrs[k].graph, f, user)) return true;
  return false;
}

bool graph_any_read(const Graph *g, bool (*f)(void *user, Value *v), void *user) {
  for (int i = 0; i < g->nodes.n; i++)
    if (node_any_read(g->nodes.data[i], f, user)) return true;
  for (int k = 0; k < g->outputs.n; k++)
    if (f(user, g->outputs.data[k])) return true;
  return false;
}

static Value *mapped(const GraphCopy *c, Value *v) {
  return v && v->id < c->n && c->to[v->id] ? c->to[v->id] : v;
}

static Graph *copy_region(GraphCopy *c, Graph *parent, Node *owner, const Graph *from) {
  Model *m = parent->model;
  Graph *g = graph_new(m, parent, from->name);
  g->owner = owner;
  for (int k = 0; k < from->inputs.n; k++) {
    Value *v = value_new(m, from->inputs.data[k]->name);
    c->to[from->inputs.data[k]->id] = v;
    vec_push(m->arena, &g->inputs, v);
  }
  graph_copy_nodes(c, g, from, NULL, NULL);
  for (int k = 0; k < from->outputs.n; k++)
    vec_push(m->arena, &g->outputs, mapped(c, from->outputs.data[k]));
  return g;
}

Node *graph_copy_node(GraphCopy *c, Graph *to, const Node *n) {
  Arena *a = to->model->arena;
  Value **in = ARENA_ARRAY(a, Value *, n->n_in + 1);
  for (int k = 0; k < n->n_in; k++) in[k] = mapped(c, n->in[k]);
  Node *copy = graph_add_node(to, NULL, n->op, n->n_in, in, n->loc);
  for (int k = 0; k < n->n_attrs; k++) {
    Attr attr = n->attrs[k];
    if (attr.kind == AT_GRAPH) attr.graph = copy_region(c, to, copy, attr.graph);
    node_set_attr(copy, attr);
  }
  for (int k = 0; k < n->n_out; k++) {
    Value *v = node_add_output(copy, n->out[k] ? n->out[k]->name : NULL);
    if (n->out[k]) c->to[n->out[k]->id] = v;
  }
  return copy;
}

bool graph_copy_nodes(GraphCopy *c, Graph *to, const Graph *from, bool (*made)(void *user, Node *n),
                      void *user) {
  for (int i = 0; i < from->nodes.n; i++) {
    Node *n = graph_copy_node(c, to, from->nodes.data[i]);
    if (made && !made(user, n)) return false;
  }
  return true;
}

GraphCopy graph_copy_new(Model *m) {
  return (GraphCopy){.n = m->next_value, .to = ARENA_ARRAY(m->arena, Value *, m->next_value)};
}

Value *graph_copy_of(const GraphCopy *c, Value *v) { return mapped(c, v); }
