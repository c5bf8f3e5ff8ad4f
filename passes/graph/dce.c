/* Removes nodes whose results nobody uses, and optional outputs that nobody uses. A node also
 * counts as used while a runtime symbol that it assigns appears in the sizes or known contents of
 * something live, or in an assumption made in a graph that is live: a check outlives the node that
 * asked for it (an Expand to a size that turns out to be its input's). Assumptions over symbols
 * that nobody assigns any more go too. */
#include <string.h>
#include "passes/graph/rewrite.h"

typedef struct Live {
  PassCtx *c;
  bool *value, *sym; /* by id */
  int n_values, n_syms;
  bool look; /* only marks */
} Live;

static bool mark_sym(void *user, const Expr *e) {
  Live *l = user;
  if (e->op != EX_SYM || e->id >= l->n_syms || l->sym[e->id]) return false;
  l->sym[e->id] = true;
  const Expr *bound = expr_symbol(l->c->model->pool, e->id)->bound;
  if (bound) expr_any(bound, EXF_SYM, mark_sym, l);
  return false;
}

static void mark_expr(Live *l, const Expr *e) {
  if (e) expr_any(e, EXF_SYM, mark_sym, l);
}

static void mark_value(Live *l, const Value *v) {
  int64_t dims[MAX_RANK], count = 1;
  if (!v || l->value[v->id]) return;
  l->value[v->id] = true;
  for (int d = 0; d < v->rank; d++) mark_expr(l, v->dims[d]);
  if (!v->contents || !value_is_static(v, dims)) return;
  for (int d = 0; d < v->rank; d++) count *= dims[d];
  for (int64_t i = 0; i < count; i++) mark_expr(l, v->contents[i]);
}

bool node_finds_size(const Node *n, const bool *live) {
  if (n->op->body != OB_EXTERN && n->op->body != OB_REGION) return false;
  ExprPool *p = n->graph->model->pool;
  for (int k = 0; k < n->n_out; k++) {
    const Value *v = n->out[k];
    for (int d = 0; v && d < v->rank; d++)
      if (v->dims[d]->op == EX_SYM && live[v->dims[d]->id] &&
          expr_symbol(p, v->dims[d]->id)->runtime)
        return true;
  }
  return false;
}

/* Symbols that n assigns: those of its SymDefs, and data-dependent sizes of runtime functions and
 * loops. */
static bool assigns_live(const Live *l, const Node *n) {
  for (int k = 0; k < n->n_syms; k++)
    if (l->sym[n->syms[k].sym->id]) return true;
  return node_finds_size(n, l->sym);
}

static bool is_live(const Live *l, const Node *n) {
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && l->value[n->out[k]->id]) return true;
  return n->n_out == 0 || assigns_live(l, n);
}

static void drop_outputs(Live *l, Node *n) {
  for (int k = n->op->min_out; k < n->n_out; k++) {
    if (!n->out[k] || l->value[n->out[k]->id] || n->op->body == OB_REGION || n->op->max_out < 0)
      continue;
    n->out[k] = NULL;
    l->c->changed = true;
  }
  while (n->n_out > n->op->min_out && n->op->max_out >= 0 && !n->out[n->n_out - 1]) n->n_out--;
}

static void sweep(Live *l, Graph *g);

static void mark_node(Live *l, const Node *n) {
  for (int k = 0; k < n->n_out; k++) mark_value(l, n->out[k]);
  for (int k = 0; k < n->n_attrs; k++)
    if (n->attrs[k].kind == AT_GRAPH) sweep(l, n->attrs[k].graph);
  for (int k = 0; k < n->n_in; k++) mark_value(l, n->in[k]);
  for (int k = 0; k < n->n_syms; k++) {
    mark_value(l, n->syms[k].src);
    mark_expr(l, n->syms[k].value);
  }
}

static void mark_assumes(Live *l, const Graph *g) {
  const Model *m = l->c->model;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume *a = &m->assumes.data[i];
    if ((a->graph ? a->graph : m->main) != g) continue;
    mark_expr(l, a->a);
    mark_expr(l, a->b);
  }
}

static void sweep(Live *l, Graph *g) {
  int kept = g->nodes.n;
  mark_assumes(l, g);
  for (int i = 0; i < g->outputs.n; i++) mark_value(l, g->outputs.data[i]);
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    Node *n = g->nodes.data[i];
    if (!is_live(l, n)) {
      l->c->changed = true;
      continue;
    }
    if (!l->look) drop_outputs(l, n);
    mark_node(l, n);
    if (!l->look) g->nodes.data[--kept] = n;
  }
  if (l->look) return;
  if (kept > 0)
    memmove(g->nodes.data, g->nodes.data + kept, sizeof(Node *) * (size_t)(g->nodes.n - kept));
  g->nodes.n -= kept;
}

static bool is_dead_sym(void *user, const Expr *e) {
  const Live *l = user;
  return e->op == EX_SYM && !l->sym[e->id] && expr_symbol(l->c->model->pool, e->id)->runtime;
}

static bool uses_dead_sym(Live *l, const Expr *e) { return expr_any(e, EXF_SYM, is_dead_sym, l); }

static void drop_assumes(Live *l) {
  Model *m = l->c->model;
  int kept = 0;
  for (int i = 0; i < m->assumes.n; i++) {
    const DimAssume a = m->assumes.data[i];
    if (uses_dead_sym(l, a.a) || uses_dead_sym(l, a.b))
      l->c->changed = true;
    else
      m->assumes.data[kept++] = a;
  }
  m->assumes.n = kept;
}

static Live live_new(PassCtx *c) {
  Live l = {.c = c, .n_values = c->model->next_value, .n_syms = expr_symbol_count(c->model->pool)};
  l.value = ARENA_ARRAY(c->scratch, bool, l.n_values + 1);
  l.sym = ARENA_ARRAY(c->scratch, bool, l.n_syms + 1);
  return l;
}

const bool *live_symbols(PassCtx *c) {
  Live l = live_new(c);
  l.look = true;
  sweep(&l, c->model->main);
  return l.sym;
}

bool pass_dce(PassCtx *c) {
  Live l = live_new(c);
  sweep(&l, c->model->main);
  drop_assumes(&l);
  return true;
}
