/* Replaces Gradient nodes by what computes them, in their order: a gradient of a gradient finds the
 * nodes of the first. What lies between is brought into a form that has rules before. */
#include <string.h>
#include "ir/op/gradient.h"
#include "passes/graph/rewrite.h"

static bool is_gradient(const Node *n) {
  return strcmp(n->op->domain, "burin") == 0 && strcmp(n->op->name, "Gradient") == 0;
}

static Node *first_gradient(Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    if (is_gradient(n)) return n;
    for (int k = 0; k < n->n_attrs; k++) {
      Node *in = n->attrs[k].kind == AT_GRAPH ? first_gradient(n->attrs[k].graph) : NULL;
      if (in) return in;
    }
  }
  return NULL;
}

static void forget_marks(Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    n->mark = 0;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) forget_marks(n->attrs[k].graph);
  }
}

static bool expand_marked(Forward *f, Node *n, bool *keep) {
  if (n->mark != 1) return true;
  n->mark = 0;
  const OpRow *row = n->op;
  return expand_node(f, n, row->gradient_parts ? row->gradient_parts : row->expand, keep);
}

static bool expand_one(Forward *f, Node *n, bool *keep) {
  return n != f->user || expand_node(f, n, n->op->expand, keep);
}

/* Values of a graph around the one with the gradient are constants for it. */
static bool lies_here(Model *m, const Node *n, const Value *v) {
  const Graph *home = v->def ? v->def->graph : n->graph;
  return home == n->graph || v->cdata ||
         op_error(m, n, ERR_UNSUPPORTED, "a gradient of what lies outside of its graph");
}

bool pass_differentiate(PassCtx *c) {
  enum { MAX_ROUNDS = 64 };
  Model *m = c->model;
  for (Node *n; (n = first_gradient(m->main));) {
    for (int k = 0; k < n->n_in; k++)
      if (!lies_here(m, n, n->in[k])) return false;
    int round = 0;
    forget_marks(m->main);
    while (gradient_mark_composites(m, n->graph, 1, n->in, n->n_in - 1, n->in + 1)) {
      if (round++ == MAX_ROUNDS) return diag_internal(m->diag, n->loc, "expansion does not end");
      Forward f = forward_new(c);
      if (!forward_walk(&f, m->main, expand_marked)) return false;
    }
    Forward f = forward_new(c);
    f.user = n;
    if (!forward_walk(&f, m->main, expand_one)) return false;
  }
  return true;
}
