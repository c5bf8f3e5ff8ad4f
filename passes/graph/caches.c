/* Caches in place (--cache=N): an input that grows by a Concat, or as the past of a
 * GroupQueryAttention, into an output lies in the output's
 * memory, with room for N elements along the axis: what is there stays, and the new elements are
 * computed straight behind it. Behind everything that rewrites the graph; lowering reads
 * Model.in_place. */
#include "passes/graph/rewrite.h"

static int position_of(const Value *const *list, int n, const Value *v, int *times) {
  int at = -1;
  *times = 0;
  for (int k = 0; k < n; k++)
    if (list[k] == v) {
      at = k;
      ++*times;
    }
  return at;
}

/* The input that v begins with, and the axis along which new elements follow; NULL: none. */
static const Value *past_of(const Graph *g, const Value *v, int *axis) {
  const Node *n = v->def;
  if (!n || n->graph != g) return NULL;
  *axis = 2;
  if (node_is_append(n)) return n->in[3];
  if (!node_is(n, "Concat") || n->n_in < 2) return NULL;
  const int64_t at = node_int(n, "axis", 0);
  *axis = (int)(at < 0 ? at + v->rank : at);
  for (int k = 1; k < n->n_in; k++)
    if (n->in[k] == n->in[0]) return NULL;
  return n->in[0];
}

static bool same_but(const Value *a, const Value *b, int axis) {
  for (int d = 0; d < a->rank; d++)
    if (d != axis && a->dims[d] != b->dims[d]) return false;
  return true;
}

/* Output k is an input and what comes behind it. */
static bool grows_an_input(const Graph *g, int k, InPlace *out) {
  const Value *v = g->outputs.data[k], *past = past_of(g, v, &out->axis);
  int times;
  out->input = position_of((const Value *const *)g->inputs.data, g->inputs.n, past, &times);
  if (!past || out->input < 0 || past->init || v->dtype == DT_STR) return false;
  out->output = position_of((const Value *const *)g->outputs.data, g->outputs.n, v, &times);
  return times == 1 && same_but(past, v, out->axis);
}

static void put_in_place(Model *m, InPlace x) {
  const Value *v = m->main->outputs.data[x.output];
  if (model_input_in_place(m, x.input)) return; /* grows into two outputs */
  model_assume(m, (DimAssume){.kind = ASSUME_AT_MOST,
                              .a = v->dims[x.axis],
                              .b = ex_i64(m->pool, x.room),
                              .what = "length of a cache and its room",
                              .loc = v->def->loc});
  vec_push(m->arena, &m->in_place, x);
}

bool pass_caches(PassCtx *c) {
  Model *m = c->model;
  if (!c->cache_room) return true;
  const Loc loc = {.file = m->file, .node = -1};
  if (target_has_grids(c->target))
    return diag_error(m->diag, &loc, ERR_UNSUPPORTED,
                      "--cache: caches in place are for CPUs, not for target %s", c->target->name);
  for (int k = 0; k < m->main->outputs.n; k++) {
    InPlace x = {.room = c->cache_room};
    if (grows_an_input(m->main, k, &x)) put_in_place(m, x);
  }
  c->changed = m->in_place.n > 0;
  return c->changed || diag_error(m->diag, &loc, ERR_VALUE,
                                  "--cache: no output is an input and what is new behind it (a "
                                  "Concat, or keys of GroupQueryAttention): there is no cache");
}
