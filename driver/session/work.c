/* What a node has to do, read off its own meaning: the steps of the sums in its elem, each counted
 * once for every combination of the variables that it depends on (a mean counts once per row, not
 * once per element). Composites count as what they are made of, loops once per iteration. */
#include "driver/session/work.h"
#include <math.h>
#include "ir/op/ops.h"
#include "ir/ops/control/control.h"
#include "passes/build/kernel.h"

static const Expr *read_anything(ElemCtx *c, const Value *v, const Expr *const *idx,
                                 const Expr *guard) {
  const Expr *at = index_flatten(c->pool, v->rank, (const Expr *const *)v->dims, idx);
  return ex_load(c->pool, v->dtype, v->id, at, guard);
}

/* The sum directly inside of r, through casts: its steps are those of r. */
static bool is_nest(const Expr *r) {
  const Expr *b = r->a[0];
  while (b->op == EX_cast) b = b->a[0];
  return b->op == EX_REDUCE && b->k.i == RED_SUM && expr_uses_var(b, r->id);
}

/* Steps of sum r, one of l, in an element at idx[rank]. */
static const Expr *steps_of(ExprPool *p, const Expr *r, const ExprList *l, int rank,
                            const Expr *const *idx) {
  const Expr *rest, *n = ex_i64(p, 1);
  int sign;
  for (int d = 0; d < rank; d++)
    if (idx[d]->op == EX_VAR && expr_uses_var(r, idx[d]->id))
      n = ex_mul(p, n, expr_var_extent(p, idx[d]->id));
  for (int i = 0; i < l->n; i++) { /* those around r */
    const Expr *q = l->data[i];
    if (q != r && expr_uses_var(r, q->id) && expr_contains(p, q->a[0], r))
      n = ex_mul(p, n, q->a[1]);
  }
  return expr_scan_var(p, r, &sign, &rest) ? n : ex_mul(p, n, r->a[1]); /* running: one each */
}

static const Expr *elem_work(Model *m, const Node *n) {
  ExprPool *p = m->pool;
  int k = 0;
  while (k < n->n_out && !n->out[k]) k++;
  const Value *out = node_out(n, k);
  const Expr *idx[MAX_RANK], *sum = ex_i64(p, 0);
  if (!out || out->kind != TY_TENSOR || out->rank < 0) return sum;
  ElemCtx c = {.pool = p, .model = m, .read = read_anything};
  for (int d = 0; d < out->rank; d++)
    idx[d] = expr_is_i64(out->dims[d], 1) ? ex_i64(p, 0) : ex_var(p, "i", out->dims[d]);
  const Expr *e = op_elem(&c, n, k, idx);
  ExprList l = {0};
  if (e) expr_reductions(p, e, &l);
  for (int i = 0; i < l.n; i++) {
    const Expr *r = l.data[i];
    if (r->k.i != RED_SUM || is_nest(r)) continue;
    const Expr *steps = steps_of(p, r, &l, out->rank, idx);
    if (steps->flags & ~EXF_SYM) return NULL; /* depends on data */
    sum = ex_add(p, sum, steps);
  }
  return sum;
}

static const Expr *graph_work(Model *m, const Graph *g) {
  const Expr *sum = ex_i64(m->pool, 0);
  for (int i = 0; g && sum && i < g->nodes.n; i++) {
    const Expr *e = node_work(m, g->nodes.data[i]);
    sum = e ? ex_add(m->pool, sum, e) : NULL;
  }
  return sum;
}

/* The composite is expanded beside the model, which stays as it is. */
static const Expr *expanded_work(Model *m, const Node *n) {
  const int consts = m->consts.n, assumes = m->assumes.n;
  Graph *g = graph_new(m, n->graph, "expanded");
  Build b = {.m = m, .g = g, .loc = n->loc, .ok = true};
  Value **out = ARENA_ARRAY(m->arena, Value *, n->n_out + 1);
  const bool ok = n->op->expand(&b, (Node *)(uintptr_t)n, out) && b.ok;
  const Expr *work = ok ? graph_work(m, g) : NULL;
  m->consts.n = consts;
  m->assumes.n = assumes;
  return work;
}

static const Expr *iterations(Model *m, const Node *n) {
  const Expr *most = node_in(n, 0) ? value_element(m->pool, n->in[0], 0) : NULL;
  if (most && loop_runs_out(m, n)) return ex_max(m->pool, most, ex_i64(m->pool, 0));
  const int assumes = m->assumes.n;
  const LoopTrip t = loop_trip(m, n);
  m->assumes.n = assumes;
  if (!t.count || !t.exact || (node_in(n, 0) && !most)) return NULL;
  return most ? ex_min(m->pool, t.count, most) : t.count;
}

static const Expr *uses_runtime(void *user, const Expr *leaf) {
  const Model *m = user;
  return leaf->op == EX_SYM && expr_symbol(m->pool, leaf->id)->runtime ? ex_i64(m->pool, -1) : NULL;
}

static const Expr *region_work(Model *m, const Node *n) {
  if (n->op->region == RG_IF) {
    const Expr *a = graph_work(m, node_region(n, "then_branch")),
               *b = graph_work(m, node_region(n, "else_branch"));
    return a && b ? ex_max(m->pool, a, b) : NULL;
  }
  const Expr *body = graph_work(m, node_region(n, "body"));
  if (!body || expr_is_i64(body, 0)) return body;
  if (expr_rewrite(m->pool, body, uses_runtime, m) != body) return NULL; /* of one iteration */
  const Expr *times = iterations(m, n);
  return times ? ex_mul(m->pool, body, times) : NULL;
}

const Expr *node_work(Model *m, const Node *n) {
  switch (n->op->body) {
    case OB_ELEM: return elem_work(m, n);
    case OB_EXPAND: return expanded_work(m, n);
    case OB_REGION: return region_work(m, n);
    default: return ex_i64(m->pool, 0);
  }
}

double node_work_at(Model *m, const Node *n, EvalEnv *sizes) {
  const Expr *e = node_work(m, n);
  return e && !(e->flags & ~EXF_SYM) ? fmax((double)expr_eval(m->pool, e, sizes).i, 0) : 0;
}
