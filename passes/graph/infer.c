/* Infers types, shapes and known contents of all values again, from the graph's inputs on. Needed
 * after passes that learn constants; keeps everything. */
#include "passes/pass.h"

typedef struct Before {
  const Expr **dims;
  const Expr *const *contents;
} Before;

static int count_outputs(const Graph *g) {
  int n = 0;
  for (int i = 0; i < g->nodes.n; i++) n += g->nodes.data[i]->n_out;
  return n;
}

/* Learnt anything? value_set_tensor keeps the array of an unchanged shape. */
static void note(const Graph *g, Before *b) {
  for (int i = 0; i < g->nodes.n; i++)
    for (int k = 0; k < g->nodes.data[i]->n_out; k++, b++)
      if (g->nodes.data[i]->out[k])
        *b = (Before){g->nodes.data[i]->out[k]->dims, g->nodes.data[i]->out[k]->contents};
}

static bool differs(const Graph *g, const Before *b) {
  for (int i = 0; i < g->nodes.n; i++)
    for (int k = 0; k < g->nodes.data[i]->n_out; k++, b++) {
      const Value *v = g->nodes.data[i]->out[k];
      if (v && (b->dims != v->dims || !b->contents != !v->contents)) return true;
    }
  return false;
}

bool pass_infer(PassCtx *c) {
  Graph *g = c->model->main;
  Before *before = ARENA_ARRAY(c->scratch, Before, count_outputs(g) + 1);
  note(g, before);
  if (!graph_infer(g)) return false;
  c->changed = differs(g, before);
  return true;
}
