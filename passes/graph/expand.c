/* Rewrites composite operators (rows with EXPAND) into the ones they are made of, until none is
 * left. Gives PF_EXPANDED: later passes see only EW, ELEM, EXTERN and REGION rows. Those of
 * quantized values are rewritten first (expand_quantized), before passes look for their products
 * and constants are folded. */
#include "ir/expr/expr_query.h"
#include "passes/graph/rewrite.h"

#include <string.h>

enum { MAX_ROUNDS = 16 }; /* nesting of composites in composites; more is a cycle in the table */

/* Bytes go in or come out, or what was made of bytes goes in. */
static bool is_quantized(const Node *n) {
  for (int k = 0; k < n->n_in; k++) {
    const Value *v = n->in[k];
    if (v && v->kind == TY_TENSOR && (value_is_byte(v) || def_is(v, "DequantizeLinear")))
      return true;
  }
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && n->out[k]->kind == TY_TENSOR && value_is_byte(n->out[k])) return true;
  return false;
}

static bool is_composite(const Node *n, bool quantized) {
  return n->op->body == OB_EXPAND && (!quantized || is_quantized(n));
}

/* Somebody else gives v's node the size: a definition of it, or an input. */
static bool size_is_given(const Model *m, const Value *v, const Expr *size) {
  const Node *const n = v->def;
  for (int i = 0; n && i < n->n_syms; i++)
    if (n->syms[i].sym == size) return true;
  for (int k = 0; n && k < n->n_in; k++)
    for (int d = 0; n->in[k] && d < n->in[k]->rank; d++)
      if (expr_contains(m->pool, n->in[k]->dims[d], size)) return true;
  return !n;
}

/* Sizes that data give, found by the node that makes `is`, keep the names by which the readers of
 * `was` know them. */
static void keep_sizes(Model *m, const Value *was, Value *is) {
  for (int d = 0; d < was->rank && was->rank == is->rank; d++) {
    const Expr *const a = was->dims[d], *const b = is->dims[d];
    if (a != b && a->op == EX_SYM && b->op == EX_SYM && expr_symbol(m->pool, a->id)->runtime &&
        expr_symbol(m->pool, b->id)->runtime && !size_is_given(m, is, b))
      is->dims[d] = a;
  }
}

bool expand_node(Forward *f, Node *n, ExpandFn expand, bool *keep) {
  Model *m = f->c->model;
  Build b = {.m = m, .g = n->graph, .before = NULL, .loc = n->loc, .ok = true};
  Value **out = ARENA_ARRAY(m->arena, Value *, n->n_out + 1);
  const int errors = diag_errors(m->diag);
  if (!expand(&b, n, out) || !b.ok) {
    if (diag_errors(m->diag) == errors)
      diag_internal(m->diag, n->loc, "expansion of %s failed", n->op->name);
    return false;
  }
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    if (!out[k])
      return diag_internal(m->diag, n->loc, "expansion of %s lacks output %d", n->op->name, k);
    keep_sizes(m, n->out[k], out[k]);
    if (!forward_set(f, n, n->out[k], out[k])) return false;
  }
  *keep = false;
  return true;
}

static bool expand_one(Forward *f, Node *n, bool *keep) {
  const bool *quantized = f->user;
  return !is_composite(n, *quantized) || expand_node(f, n, n->op->expand, keep);
}

static bool any_composite(const Graph *g, bool quantized) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    if (is_composite(n, quantized)) return true;
    const Graph *skip = untaken_branch(n);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && n->attrs[k].graph != skip &&
          any_composite(n->attrs[k].graph, quantized))
        return true;
  }
  return false;
}

bool graph_is_expanded(const Graph *g) { return !any_composite(g, false); }

static bool expand_all(PassCtx *c, bool quantized) {
  Graph *g = c->model->main;
  for (int round = 0; any_composite(g, quantized); round++) {
    if (round == MAX_ROUNDS) return diag_internal(c->model->diag, NULL, "expansion does not end");
    Forward f = forward_new(c);
    f.user = &quantized;
    if (!forward_walk(&f, g, expand_one)) return false;
  }
  return true;
}

bool pass_expand(PassCtx *c) { return expand_all(c, false); }
bool pass_expand_quantized(PassCtx *c) { return expand_all(c, true); }
