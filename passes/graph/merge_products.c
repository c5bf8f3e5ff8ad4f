/* Matrix products of one value with several constants (the queries, keys and values of an attention
 * layer) become one product with the constants side by side, and its readers slices of the result:
 * the left-hand side is read once, threads start once, and short panels fill up. The elementwise
 * steps with constants that follow all of the products (bias, scale) are merged as well, so that
 * they stay the product's epilogue. */
#include "passes/graph/rewrite.h"

#include <string.h>

enum { MOST = 16, MOST_STEPS = 4 }; /* products merged into one; steps after them */

typedef struct Siblings {
  PassCtx *c;
  const Uses *uses;
  int n, steps;
  Node *node[MOST_STEPS + 1][MOST]; /* the products, then the steps that follow them */
  int operand[MOST_STEPS + 1];      /* which input of them is the constant */
  int64_t columns[MOST];            /* of each product */
  int64_t total;
} Siblings;

/* ---- which ---- */

static bool is_product(const Node *n, const Value *x) {
  if (!node_is(n, "MatMul") || n->in[0] != x || x->rank < 2 || !dtype_is_float(x->dtype))
    return false;
  const ConstData *w = n->in[1]->cdata;
  return w && n->in[1]->rank == 2 && w->dims[1] > 0;
}

/* Do all readers take a slice in place? An elementwise one would have been the product's epilogue,
 * or has to be computed at each read; an operator of the runtime, or a result, needs a copy. */
static bool read_in_place(const Uses *uses, const Value *v) {
  const NodeVec *of = &uses->of[v->id];
  if (uses->outputs[v->id]) return false;
  for (int i = 0; i < of->n; i++) {
    const Node *n = of->data[i];
    if (n->op->body != OB_ELEM || n->graph != v->def->graph) return false;
    if ((n->op->flags & OF_VIEW) && !read_in_place(uses, n->out[0])) return false;
  }
  return of->n > 0;
}

/* Position of the constant operand when n is a step x op constant that keeps x's shape, with one
 * element per column; -1: it is not. */
static int column_constant(const Node *n, const Value *x, int64_t columns) {
  if (n->op->body != OB_EW || n->n_in != 2 || n->n_out != 1 || n->n_attrs) return -1;
  const int k = n->in[0] == x ? 1 : 0;
  const ConstData *w = n->in[k]->cdata;
  if (n->in[1 - k] != x || !w || w->dtype != x->dtype || !value_same_type(x, n->out[0])) return -1;
  return w->rank >= 1 && w->count == columns && w->dims[w->rank - 1] == columns ? k : -1;
}

/* The step that follows all products, if it is the same for all. */
static bool common_step(Siblings *s) {
  Node **last = s->node[s->steps], **next = s->node[s->steps + 1];
  for (int k = 0; k < s->n; k++) {
    const Value *x = last[k]->out[0];
    const NodeVec *of = &s->uses->of[x->id];
    if (of->n != 1 || s->uses->outputs[x->id]) return false;
    next[k] = of->data[0];
    const int at = column_constant(next[k], x, s->columns[k]);
    if (at < 0 || next[k]->op != next[0]->op || next[k]->graph != next[0]->graph) return false;
    if (k && (at != s->operand[s->steps + 1] || next[k]->in[at]->rank != next[0]->in[at]->rank))
      return false;
    s->operand[s->steps + 1] = at;
  }
  s->steps++;
  return true;
}

static bool same_types(const Node *a, const Node *b) {
  return a->in[1]->dtype == b->in[1]->dtype && node_int(a, "wide", 0) == node_int(b, "wide", 0);
}

/* Products of x that may be merged, with their steps; fewer than two: none. */
static void find_siblings(Siblings *s, const Value *x) {
  const NodeVec *of = &s->uses->of[x->id];
  s->n = s->steps = 0;
  s->total = 0;
  s->operand[0] = 1;
  for (int i = 0; i < of->n && s->n < MOST; i++) {
    Node *n = of->data[i];
    if (n->graph != of->data[0]->graph || !is_product(n, x)) continue;
    if (s->n && !same_types(n, s->node[0][0])) continue;
    if (s->n && s->node[0][s->n - 1] == n) continue;
    s->columns[s->n] = n->in[1]->cdata->dims[1];
    s->total += s->columns[s->n];
    s->node[0][s->n++] = n;
  }
  if (s->n < 2) return;
  while (s->steps < MOST_STEPS && common_step(s)) {
  }
  for (int k = 0; k < s->n; k++)
    if (!read_in_place(s->uses, s->node[s->steps][k]->out[0])) {
      s->n = 0;
      return;
    }
}

/* ---- constants side by side ---- */

/* The constants of step `step`, of equal dimensions but the last, joined along it. */
static Value *join(const Siblings *s, int step) {
  Model *m = s->c->model;
  const int in = s->operand[step];
  const ConstData *first = s->node[step][0]->in[in]->cdata;
  const size_t size = dtype_bytes(first->dtype);
  int64_t dims[MAX_RANK], rows = 1, at = 0;
  memcpy(dims, first->dims, sizeof *dims * (size_t)first->rank);
  for (int d = 0; d + 1 < first->rank; d++) rows *= dims[d];
  dims[first->rank - 1] = s->total;
  char *data = arena_alloc(m->arena, (size_t)(rows * s->total) * size);
  for (int k = 0; k < s->n; k++) {
    const char *part = s->node[step][k]->in[in]->cdata->data;
    const size_t row = (size_t)s->columns[k] * size;
    for (int64_t r = 0; r < rows; r++)
      memcpy(data + (size_t)(r * s->total + at) * size, part + (size_t)r * row, row);
    at += s->columns[k];
  }
  return value_const(m, const_new(m, first->name, first->dtype, first->rank, dims, data));
}

/* ---- merging ---- */

static Value *slice(Build *b, Value *v, int64_t from, int64_t to) {
  const int64_t axis = v->rank - 1;
  Value *in[4] = {v, build_i64s(b, 1, &from), build_i64s(b, 1, &to), build_i64s(b, 1, &axis)};
  return build_op(b, "Slice", 4, in, 0, NULL);
}

static bool merge(Siblings *s) {
  Node *first = s->node[0][0];
  Build b = {.m = s->c->model, .g = first->graph, .before = first, .ok = true};
  Value *all = first->in[0];
  for (int step = 0; step <= s->steps && b.ok; step++) {
    Value *in[2];
    in[s->operand[step]] = join(s, step);
    in[1 - s->operand[step]] = all;
    b.loc = first->loc;
    for (int k = 1; k < s->n; k++) b.loc = loc_joined(b.m->arena, b.loc, s->node[step][k]->loc);
    const Node *like = s->node[step][0];
    all = build_op(&b, like->op->name, 2, in, like->n_attrs, like->attrs);
  }
  int64_t at = 0;
  for (int k = 0; k < s->n && b.ok; k++) {
    Value *part = slice(&b, all, at, at + s->columns[k]);
    if (b.ok) graph_replace_value(first->graph, s->node[s->steps][k]->out[0], part);
    at += s->columns[k];
  }
  s->c->changed = true;
  return b.ok;
}

/* Values that several products of g read, in the order in which they are computed. */
static bool merge_graph(PassCtx *c, Graph *g, const Uses *uses) {
  Vec(Value *) shared = {0};
  Siblings s = {.c = c, .uses = uses};
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !merge_graph(c, n->attrs[k].graph, uses)) return false;
    if (!node_is(n, "MatMul") || n->in[0]->cdata || !is_product(n, n->in[0])) continue;
    find_siblings(&s, n->in[0]);
    if (s.n > 1 && s.node[0][0] == n) vec_push(c->scratch, &shared, n->in[0]);
  }
  /* A merger leaves the lists of uses as they are for the values that follow: readers of a value
   * that it replaced read another one now, and are no products of it any more. */
  for (int i = 0; i < shared.n; i++) {
    find_siblings(&s, shared.data[i]);
    if (s.n > 1 && !merge(&s)) return false;
  }
  return true;
}

bool pass_merge_products(PassCtx *c) {
  return merge_graph(c, c->model->main, graph_uses(c->model->main, c->scratch));
}
