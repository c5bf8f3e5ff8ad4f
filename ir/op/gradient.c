/* See gradient.h. The walk goes backwards through the nodes between what is differentiated and the
 * results, and hands each to the rule of its row. */
#include "ir/op/gradient.h"
#include <string.h>
#include "ir/op/ops.h"

struct GradientWalk {
  int n_values;    /* at the start: values made since have no gradient */
  bool *reached;   /* by value id: it depends on one of xs, by a way that gradients pass */
  bool *inside;    /* by value id, of values in regions: the same */
  int depth;       /* of the region that is looked at */
  bool *leads;     /* by value id: one of ys depends on it */
  Value **of;      /* by value id: the gradient so far */
  const Node **by; /* by value id: the last node that said what it gives it */
  Vec(Node *) on;  /* nodes on the way, in order */
};

static bool carries(const Value *v) {
  return v && v->kind == TY_TENSOR && dtype_is_float(v->dtype);
}

/* ---- which nodes are on the way ---- */
static bool lead_from(void *user, Value *v) {
  GradientWalk *w = user;
  w->leads[v->id] = true;
  return false;
}

static bool leads(const GradientWalk *w, const Node *n) {
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && w->leads[n->out[k]->id]) return true;
  return false;
}

static void find_leading(GradientWalk *w, const Graph *g, int n_y, Value *const *ys) {
  for (int k = 0; k < n_y; k++) lead_from(w, ys[k]);
  for (int i = g->nodes.n - 1; i >= 0; i--)
    if (leads(w, g->nodes.data[i])) node_any_read(g->nodes.data[i], lead_from, w);
}

static bool source_from(void *user, Value *v) {
  if (carries(v)) lead_from(user, v);
  return false;
}

/* Lists are numbers, and what has no gradient yet makes and reads them: an error must find them. */
static bool is_missing(const Node *n) { return n->op->gradient_kind == GK_MISSING; }

const bool *gradient_sources(Model *m, const Graph *g, Value *y) {
  GradientWalk w = {.leads = ARENA_ARRAY(m->arena, bool, m->next_value)};
  lead_from(&w, y);
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    Node *n = g->nodes.data[i];
    if (n->op->gradient_kind != GK_CUT && leads(&w, n))
      node_any_read(n, is_missing(n) ? lead_from : source_from, &w);
  }
  return w.leads;
}

static bool is_reached(void *user, Value *v) {
  const GradientWalk *w = user;
  return w->reached[v->id] || w->inside[v->id];
}

static bool node_reached(GradientWalk *w, const Node *n) {
  return n->op->gradient_kind != GK_CUT && node_any_read(n, is_reached, w);
}

static bool is_reached_list(void *user, Value *v) { return is_reached(user, v) && !carries(v); }

static bool reach(GradientWalk *w, Value *v) {
  bool *const marks = w->depth ? w->inside : w->reached;
  if (!v || marks[v->id]) return false;
  return marks[v->id] = true;
}

/* Lists that leave a region, of what is reached inside. */
static bool reach_lists(GradientWalk *w, const Node *n);

/* True: more is reached than before. */
static bool reach_outputs(GradientWalk *w, const Node *n) {
  const bool all = is_missing(n) || (n->n_attrs < 2 && n->n_in < 2 &&
                                     node_any_read(n, is_reached_list, w)); /* Identity */
  bool any = reach_lists(w, n);
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && (all || carries(n->out[k]) || w->inside[n->out[k]->id]))
      any |= reach(w, n->out[k]);
  return any;
}

static bool reach_region(GradientWalk *w, const Node *n, const Graph *g) {
  const bool loop = strcmp(n->op->name, "Loop") == 0;
  bool any = false;
  for (int k = 2; loop && k < g->inputs.n; k++)
    if (is_reached(w, n->in[k]) || is_reached(w, g->outputs.data[k - 1]))
      any |= reach(w, g->inputs.data[k]);
  for (int i = 0; i < g->nodes.n; i++)
    if (node_reached(w, g->nodes.data[i])) any |= reach_outputs(w, g->nodes.data[i]);
  for (int k = 0; k + loop < g->outputs.n && k < n->n_out; k++)
    if (is_reached(w, g->outputs.data[k + loop])) any |= reach(w, n->out[k]);
  return any;
}

static bool reach_lists(GradientWalk *w, const Node *n) {
  bool any = false;
  if (n->op->body != OB_REGION) return false;
  w->depth++;
  for (bool more = true; more; any |= more) { /* states come round */
    more = false;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) more |= reach_region(w, n, n->attrs[k].graph);
  }
  w->depth--;
  return any;
}

static GradientWalk find_way(Model *m, const Graph *g, int n_y, Value *const *ys, int n_x,
                             Value *const *xs) {
  GradientWalk w = {.n_values = m->next_value};
  w.reached = ARENA_ARRAY(m->arena, bool, w.n_values);
  w.inside = ARENA_ARRAY(m->arena, bool, w.n_values);
  w.leads = ARENA_ARRAY(m->arena, bool, w.n_values);
  w.of = ARENA_ARRAY(m->arena, Value *, w.n_values);
  w.by = ARENA_ARRAY(m->arena, const Node *, w.n_values);
  find_leading(&w, g, n_y, ys);
  for (int k = 0; k < n_x; k++) w.reached[xs[k]->id] = true;
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    if (!leads(&w, n) || !node_reached(&w, n)) continue;
    vec_push(m->arena, &w.on, n);
    reach_outputs(&w, n);
  }
  return w;
}

/* ---- composites ---- */
static bool is_composite(const Node *n) {
  const OpRow *row = n->op;
  return row->gradient_kind == GK_PARTS || row->gradient_kind == GK_EXPANDED ||
         (row->gradient_parts && node_int(n, "training_mode", 0));
}

static bool mark_all(Graph *g);

static bool mark_node(Node *n) {
  bool any = is_composite(n);
  if (any) n->mark = 1;
  for (int k = 0; k < n->n_attrs; k++)
    if (n->attrs[k].kind == AT_GRAPH) any |= mark_all(n->attrs[k].graph);
  return any;
}

static bool mark_all(Graph *g) {
  bool any = false;
  for (int i = 0; i < g->nodes.n; i++) any |= mark_node(g->nodes.data[i]);
  return any;
}

bool gradient_mark_composites(Model *m, Graph *g, int n_y, Value *const *ys, int n_x,
                              Value *const *xs) {
  const GradientWalk w = find_way(m, g, n_y, ys, n_x, xs);
  bool any = false;
  for (int i = 0; i < w.on.n; i++) any |= mark_node(w.on.data[i]);
  return any;
}

/* ---- the walk back ---- */
bool gradient_wants(const Gradient *s, const Value *v) {
  return v->id < s->walk->n_values && s->walk->reached[v->id] && carries(v);
}

void gradient_none(Gradient *s, const Value *v) {
  if (gradient_wants(s, v)) s->walk->by[v->id] = s->n;
}

bool gradient_give(Gradient *s, Value *v, Value *d) {
  if (!s->b->ok) return false;
  if (!gradient_wants(s, v)) return true;
  gradient_none(s, v);
  if (d->dtype != v->dtype || d->rank != v->rank)
    return diag_internal(s->b->m->diag, s->n->loc,
                         "%s: the gradient of an input is %s of rank %d, the input %s of rank %d",
                         s->n->op->name, dtype_text(d->dtype), d->rank, dtype_text(v->dtype),
                         v->rank);
  for (int i = 0; i < d->rank; i++)
    if (!require_equal(s->b->m, s->n, d->dims[i], v->dims[i], "sizes of a value and its gradient"))
      return false;
  Value **of = &s->walk->of[v->id];
  *of = *of ? build2(s->b, "Add", *of, d) : d;
  return s->b->ok;
}

bool gradient_give_in(Gradient *s, int k, Value *d) {
  if (!s->b->ok) return false;
  Value *v = s->n->in[k];
  return !gradient_wants(s, v) || gradient_give(s, v, build_sum_to(s->b, d, v));
}

bool gradient_give_at(Gradient *s, int k, Value *at, Value *g) {
  Build *b = s->b;
  Value *x = s->n->in[k];
  const Attr add = attr_string(b->m->arena, "reduction", "add");
  Value *in[] = {build_full_like(b, x, 0), at, g};
  return b->ok && gradient_give(s, x, build_op(b, "ScatterND", 3, in, 1, &add));
}

static bool has_gradient(const Gradient *s) {
  for (int k = 0; k < s->n->n_out; k++)
    if (s->g[k]) return true;
  return false;
}

static const Loc *gradient_loc(Model *m, const Node *n) {
  if (!n->loc) return NULL;
  Loc *l = arena_dup(m->arena, n->loc, sizeof *l);
  if (l->node_name) l->node_name = arena_printf(m->arena, "%s (gradient)", l->node_name);
  return l;
}

static bool apply(Gradient *s) {
  const OpRow *row = s->n->op;
  switch (row->gradient_kind) {
    case GK_DERIVED:
    case GK_TEXT: return gradient_derived(s);
    case GK_RULE: return row->gradient(s);
    default:
      return diag_internal(s->b->m->diag, s->n->loc, "%s is not in a form that has a gradient",
                           row->name);
  }
}

/* A rule that forgets an input would make its gradient 0. */
static bool forgets_none(const Gradient *s) {
  for (int k = 0; k < s->n->n_in; k++)
    if (gradient_wants_in(s, k) && s->walk->by[s->n->in[k]->id] != s->n)
      return diag_internal(s->b->m->diag, s->n->loc, "%s: input %d gets no gradient",
                           s->n->op->name, k);
  return true;
}

static bool all_have_rules(Model *m, const GradientWalk *w) {
  bool ok = true;
  for (int i = 0; i < w->on.n; i++) {
    const Node *n = w->on.data[i];
    if (n->op->gradient_kind == GK_MISSING)
      ok = op_error(m, n, ERR_UNSUPPORTED, "%s has no gradient yet", n->op->name);
  }
  return ok;
}

bool build_gradients(Build *b, int n_y, Value *const *ys, Value *const *gys, int n_x,
                     Value *const *xs, Value **dxs) {
  GradientWalk w = find_way(b->m, b->g, n_y, ys, n_x, xs);
  if (!all_have_rules(b->m, &w)) return false;
  b->m->differentiated = true;
  const Loc *const loc = b->loc;
  for (int k = 0; k < n_y; k++) {
    if (!w.reached[ys[k]->id] || !gys[k]) continue;
    w.of[ys[k]->id] = w.of[ys[k]->id] ? build2(b, "Add", w.of[ys[k]->id], gys[k]) : gys[k];
    if (!b->ok) return false;
  }
  for (int i = w.on.n - 1; i >= 0; i--) {
    const Node *n = w.on.data[i];
    Gradient s = {.b = b, .n = n, .walk = &w};
    s.g = ARENA_ARRAY(b->m->arena, Value *, n->n_out + 1);
    for (int k = 0; k < n->n_out; k++) s.g[k] = n->out[k] ? w.of[n->out[k]->id] : NULL;
    if (!has_gradient(&s)) continue;
    b->loc = gradient_loc(b->m, n);
    if (!apply(&s) || !b->ok || !forgets_none(&s)) return false;
  }
  b->loc = loc;
  for (int k = 0; k < n_x; k++)
    dxs[k] = w.of[xs[k]->id] ? w.of[xs[k]->id] : build_full_like(b, xs[k], 0);
  return b->ok;
}
