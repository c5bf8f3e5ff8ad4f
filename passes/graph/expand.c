/* Rewrites composite operators (rows with EXPAND) into the ones they are made of, until none is
 * left. Gives PF_EXPANDED: later passes see only EW, ELEM, EXTERN and REGION rows. */
#include "passes/graph/rewrite.h"

enum { MAX_ROUNDS = 16 }; /* nesting of composites in composites; more is a cycle in the table */

static bool expand_one(Forward *f, Node *n, bool *keep) {
  Model *m = f->c->model;
  if (n->op->body != OB_EXPAND) return true;
  Build b = {.m = m, .g = n->graph, .before = NULL, .loc = n->loc, .ok = true};
  Value **out = ARENA_ARRAY(m->arena, Value *, n->n_out + 1);
  const int errors = diag_errors(m->diag);
  if (!n->op->expand(&b, n, out) || !b.ok) {
    if (diag_errors(m->diag) == errors)
      diag_internal(m->diag, n->loc, "expansion of %s failed", n->op->name);
    return false;
  }
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    if (!out[k])
      return diag_internal(m->diag, n->loc, "expansion of %s lacks output %d", n->op->name, k);
    if (!forward_set(f, n, n->out[k], out[k])) return false;
  }
  *keep = false;
  return true;
}

static bool any_composite(const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    if (n->op->body == OB_EXPAND) return true;
    const Graph *skip = untaken_branch(n);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && n->attrs[k].graph != skip &&
          any_composite(n->attrs[k].graph))
        return true;
  }
  return false;
}

bool graph_is_expanded(const Graph *g) { return !any_composite(g); }

bool pass_expand(PassCtx *c) {
  Graph *g = c->model->main;
  for (int round = 0; any_composite(g); round++) {
    if (round == MAX_ROUNDS) return diag_internal(c->model->diag, NULL, "expansion does not end");
    Forward f = forward_new(c);
    if (!forward_walk(&f, g, expand_one)) return false;
  }
  return true;
}
