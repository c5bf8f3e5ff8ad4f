/* See rewrite.h. */
#include "passes/graph/rewrite.h"
#include <math.h>
#include <string.h>

Forward forward_new(PassCtx *c) { return (Forward){.c = c}; }

static void forward_room(Forward *f, int id) {
  if (id < f->n) return;
  const int n = 2 * id + 64;
  Value **to = ARENA_ARRAY(f->c->scratch, Value *, n);
  if (f->n) memcpy(to, f->to, sizeof *to * (size_t)f->n);
  f->to = to;
  f->n = n;
}

Value *forward_get(const Forward *f, Value *v) {
  while (v && v->id < f->n && f->to[v->id]) v = f->to[v->id];
  return v;
}

bool forward_set(Forward *f, const Node *n, Value *old, Value *by) {
  by = forward_get(f, by);
  if (old == by) return true;
  if (old->kind != by->kind || old->dtype != by->dtype ||
      (old->kind == TY_TENSOR && old->rank != by->rank))
    return diag_internal(f->c->model->diag, n->loc,
                         "%s: replaced by a value of another type (%s rank %d by %s rank %d)",
                         n->op->name, dtype_text(old->dtype), old->rank, dtype_text(by->dtype),
                         by->rank);
  forward_room(f, old->id);
  f->to[old->id] = by;
  if (!by->name && !by->cdata) by->name = old->name;
  f->c->changed = true;
  return true;
}

void forward_node(Forward *f, Node *n) {
  for (int k = 0; k < n->n_in; k++) n->in[k] = forward_get(f, n->in[k]);
  for (int k = 0; k < n->n_syms; k++) n->syms[k].src = forward_get(f, n->syms[k].src);
}

void forward_outputs(Forward *f, Graph *g) {
  for (int i = 0; i < g->outputs.n; i++) g->outputs.data[i] = forward_get(f, g->outputs.data[i]);
}

const Graph *untaken_branch(const Node *n) {
  int64_t cond;
  if (n->op->body != OB_REGION || n->op->region != RG_IF || !node_in(n, 0)) return NULL;
  const Expr *e = value_element(n->graph->model->pool, n->in[0], 0);
  if (!e || !expr_is_const(e, &cond)) return NULL;
  return node_region(n, cond ? "else_branch" : "then_branch");
}

static void forward_only(Forward *f, Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    forward_node(f, n);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) forward_only(f, n->attrs[k].graph);
  }
  forward_outputs(f, g);
}

static bool walk_regions(Forward *f, Node *n, WalkFn one) {
  const Graph *skip = untaken_branch(n);
  for (int k = 0; k < n->n_attrs; k++) {
    Graph *r = n->attrs[k].kind == AT_GRAPH ? n->attrs[k].graph : NULL;
    if (r && r == skip)
      forward_only(f, r);
    else if (r && !forward_walk(f, r, one))
      return false;
  }
  return true;
}

bool forward_walk(Forward *f, Graph *g, WalkFn one) {
  Node **old = g->nodes.data;
  const int count = g->nodes.n;
  g->nodes.data = NULL;
  g->nodes.n = g->nodes.cap = 0;
  for (int i = 0; i < count; i++) {
    Node *n = old[i];
    bool keep = true;
    forward_node(f, n);
    if (!walk_regions(f, n, one)) return false;
    if (!one(f, n, &keep)) return false;
    if (keep)
      vec_push(g->model->arena, &g->nodes, n);
    else
      f->c->changed = true;
  }
  forward_outputs(f, g);
  return true;
}

const ConstData *const_input(const Node *n, int k) {
  const Value *v = node_in(n, k);
  return v ? v->cdata : NULL;
}

bool node_is(const Node *n, const char *name) {
  return strcmp(n->op->name, name) == 0 && !*n->op->domain;
}

const Node *def_is(const Value *v, const char *name) {
  return v && v->def && node_is(v->def, name) ? v->def : NULL;
}

Value *half_of(const Value *v) {
  const Node *n = def_is(v, "Cast");
  return n && v->dtype == DT_F32 && dtype_is_half(n->in[0]->dtype) ? n->in[0] : NULL;
}

bool value_same_type(const Value *a, const Value *b) {
  return a->kind == b->kind && a->dtype == b->dtype &&
         (a->kind != TY_TENSOR || value_same_shape(a, b));
}

bool const_all(const ConstData *c, double v) {
  const DClass cls = dtype_rows[c->dtype].cls;
  if (cls == DC_STRING || cls == DC_COMPLEX || c->count == 0) return false;
  for (int64_t i = 0; i < c->count; i++) {
    const double x = cls == DC_FLOAT ? const_float(c, i) : (double)const_int(c, i);
    if (x != v || (v == 0 && signbit(x) != signbit(v))) return false;
  }
  return true;
}

bool node_is_append(const Node *n) {
  return strcmp(n->op->domain, "burin") == 0 && strcmp(n->op->name, "AppendCache") == 0 &&
         node_in(n, 3);
}
