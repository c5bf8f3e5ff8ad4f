/* See trial.h: the passes from fuse on run on the graph, and what they decided is forgotten. */
#include "passes/form/trial.h"

#include "ir/expr/expr_query.h"

#define TRIAL \
  "fuse,early_updates,choose,layout,choose_tiles,lower,in_place,rotate_states,plan_memory"

typedef struct Kept { /* what the passes of a trial change */
  Vec(Value *) values;
  Vec(Value) was;
  Vec(Node *) nodes;
  Vec(const Plan *) plans;
  bool fused, laid_out;
  int n_consts, n_assumes;
} Kept;

static void keep_value(Arena *a, Kept *k, Value *v) {
  if (!v) return;
  vec_push(a, &k->values, v);
  vec_push(a, &k->was, *v);
}

static void keep_graph(Arena *a, Kept *k, const Graph *g) {
  for (int i = 0; i < g->inputs.n; i++) keep_value(a, k, g->inputs.data[i]);
  for (int i = 0; i < g->nodes.n; i++) {
    Node *const n = g->nodes.data[i];
    vec_push(a, &k->nodes, n);
    vec_push(a, &k->plans, n->plan);
    for (int j = 0; j < n->n_in; j++)
      if (n->in[j] && n->in[j]->cdata) keep_value(a, k, n->in[j]);
    for (int j = 0; j < n->n_out; j++) keep_value(a, k, n->out[j]);
    for (int j = 0; j < n->n_attrs; j++)
      if (n->attrs[j].kind == AT_GRAPH) keep_graph(a, k, n->attrs[j].graph);
  }
}

static Kept keep(Arena *a, const Model *m) {
  Kept k = {.fused = m->fused, .laid_out = m->laid_out};
  k.n_consts = m->consts.n;
  k.n_assumes = m->assumes.n;
  keep_graph(a, &k, m->main);
  return k;
}

static void restore(Model *m, const Kept *k) {
  for (int i = k->values.n - 1; i >= 0; i--) {
    k->values.data[i]->layout = k->was.data[i].layout;
    k->values.data[i]->inlined = k->was.data[i].inlined;
  }
  for (int i = 0; i < k->nodes.n; i++) k->nodes.data[i]->plan = k->plans.data[i];
  m->fused = k->fused;
  m->laid_out = k->laid_out;
  m->consts.n = k->n_consts;
  m->assumes.n = k->n_assumes;
}

const Module *trial_run(PassCtx *c, TrialAsk ask, void *user) {
  Model *const m = c->model;
  Diag *const diag = m->diag;
  const Kept k = keep(c->scratch, m);
  PassCtx t = *c;
  t.module = NULL;
  t.decisions = NULL;
  m->diag = diag_new(c->scratch); /* its warnings come again */
  const bool ok = c->run_passes(&t, TRIAL);
  m->diag = diag;
  if (ok && ask) ask(user, t.module);
  restore(m, &k);
  return ok ? t.module : NULL;
}

double module_bytes(const Module *m) {
  const Expr *const parts[] = {m->arena_bytes, m->scratch_bytes};
  double sum = 0;
  for (int k = 0; k < 2; k++) {
    int64_t bytes;
    sum += expr_is_const(parts[k], &bytes) ? (double)bytes
                                           : expr_extent_guess(m->model->pool, parts[k]);
  }
  return sum;
}

bool module_has_symbols(const Module *m) {
  int64_t bytes;
  return !expr_is_const(m->arena_bytes, &bytes) || !expr_is_const(m->scratch_bytes, &bytes);
}
