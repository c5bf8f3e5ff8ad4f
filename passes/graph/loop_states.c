/* Takes work out of Loop nodes: a state that never changes is read from outside, a counter is
 * computed from the iteration number (so that indices made of it are known expressions), and a
 * condition that cannot end the loop before its trip count goes. Infers again afterwards: sizes of
 * scan outputs may have become known. */
#include <string.h>
#include "ir/ops/control/control.h"
#include "passes/graph/rewrite.h"

typedef struct States {
  const Uses *uses;
  bool changed;
} States;

static Value *strip(Value *v) {
  while (v->def && node_is(v->def, "Identity")) v = v->def->in[0];
  return v;
}

static bool is_outside(const Graph *g, const Value *v) {
  for (int i = 0; i < g->inputs.n; i++)
    if (g->inputs.data[i] == v) return false;
  return v->cdata || !v->def || v->def->graph != g;
}

static bool is_unused(const States *s, const Value *v) {
  return !v || (v->id < s->uses->n && s->uses->of[v->id].n == 0 && s->uses->outputs[v->id] == 0);
}

static void drop_state(Node *n, Graph *g, int k) {
  memmove(n->in + k + 2, n->in + k + 3, sizeof *n->in * (size_t)(n->n_in - k - 3));
  memmove(n->out + k, n->out + k + 1, sizeof *n->out * (size_t)(n->n_out - k - 1));
  memmove(g->inputs.data + k + 2, g->inputs.data + k + 3,
          sizeof *n->in * (size_t)(g->inputs.n - k - 3));
  memmove(g->outputs.data + k + 1, g->outputs.data + k + 2,
          sizeof *n->in * (size_t)(g->outputs.n - k - 2));
  n->n_in--;
  n->n_out--;
  g->inputs.n--;
  g->outputs.n--;
  for (int i = k; i < n->n_out; i++)
    if (n->out[i]) n->out[i]->def_index = i;
}

/* What is added to the state in each iteration, when it is an integer scalar from outside; else
 * NULL. */
static Value *step_of(const Graph *g, const Value *in, Value *next) {
  const Node *add = def_is(strip(next), "Add");
  if (!add || in->rank != 0 || !dtype_is_int(in->dtype)) return NULL;
  for (int i = 0; i < 2; i++)
    if (strip(add->in[i]) == in && is_outside(g, add->in[1 - i]) && add->in[1 - i]->rank == 0)
      return add->in[1 - i];
  return NULL;
}

/* start + iteration * step */
static Value *counter(Build *b, Graph *g, Value *start, Value *step) {
  Value *iter = build_cast(b, g->inputs.data[0], start->dtype);
  return build2(b, "Add", start, build2(b, "Mul", iter, step));
}

static bool simplify_state(Forward *f, States *s, Node *n, Graph *g, int *k) {
  Value *in = g->inputs.data[*k + 2], *start = n->in[*k + 2], *next = g->outputs.data[*k + 1];
  if (strip(next) == in) {
    graph_replace_value(g, in, start);
    if (n->out[*k] && !forward_set(f, n, n->out[*k], start)) return false;
    drop_state(n, g, (*k)--);
    return s->changed = true;
  }
  Value *step = step_of(g, in, next);
  if (!step || start->rank != 0) return true;
  Build b = {.m = g->model, .g = g, .before = g->nodes.data[0], .loc = n->loc, .ok = true};
  graph_replace_value(g, in, counter(&b, g, start, step));
  if (is_unused(s, n->out[*k])) drop_state(n, g, (*k)--);
  s->changed = true;
  return b.ok;
}

static bool one_loop(Forward *f, Node *n, bool *keep) {
  States *s = f->user;
  if (n->op->body != OB_REGION || n->op->region != RG_LOOP) return true;
  Graph *g = node_region(n, "body");
  for (int k = 0; k + 2 < n->n_in; k++)
    if (!simplify_state(f, s, n, g, &k)) return false;
  if (n->n_out == 0) {
    *keep = false;
    return true;
  }
  Value *cond = g->outputs.data[0];
  if ((n->in[1] || !cond->cdata) && loop_runs_out(g->model, n)) {
    n->in[1] = NULL;
    g->outputs.data[0] = value_const_scalar(g->model, DT_BOOL, 1);
    s->changed = true;
  }
  return true;
}

bool pass_loop_states(PassCtx *c) {
  enum { ROUNDS = 4 }; /* conditions are known after counters are; loops in loops */
  Graph *g = c->model->main;
  for (int i = 0; i < ROUNDS; i++) {
    States s = {.uses = graph_uses(g, c->scratch)};
    Forward f = forward_new(c);
    f.user = &s;
    if (!forward_walk(&f, g, one_loop)) return false;
    if (!s.changed) return true;
    c->changed = true;
    graph_forget_contents(g);
    if (!graph_infer(g)) return false;
  }
  return true;
}
