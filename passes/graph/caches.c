/* Caches in place (--cache=N): an input that grows by a Concat, or as the past of a
 * GroupQueryAttention, into an output lies in the output's
 * memory, with room for N elements along the axis: what is there stays, and the new elements are
 * computed straight behind it. Behind everything that rewrites the graph; lowering reads
 * Model.in_place. */
#include "passes/graph/rewrite.h"

#include <string.h>

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

/* ---- whole outputs over inputs (--in-place) ---- */
static int named(const Model *m, bool output, const char *name, size_t length) {
  const Graph *const g = m->main;
  for (int k = 0; k < (output ? g->outputs.n : g->inputs.n); k++) {
    const char *const n = output ? g->output_names.data[k] : g->inputs.data[k]->name;
    if (n && strlen(n) == length && strncmp(n, name, length) == 0) return k;
  }
  return -1;
}

static bool refused(PassCtx *c, const char *text, const char *why) {
  const Loc loc = {.file = c->model->file, .node = -1};
  return diag_error(c->model->diag, &loc, ERR_VALUE, "--in-place %s: %s", text, why);
}

/* Names may have a '=' in them. */
static bool find_pair(const Model *m, const char *text, InPlace *x) {
  for (const char *eq = strchr(text, '='); eq; eq = strchr(eq + 1, '=')) {
    x->output = named(m, true, text, (size_t)(eq - text));
    x->input = named(m, false, eq + 1, strlen(eq + 1));
    if (x->output >= 0 && x->input >= 0) return true;
  }
  return false;
}

static bool put_whole(PassCtx *c, const char *text) {
  Model *const m = c->model;
  InPlace x = {.axis = -1};
  if (!find_pair(m, text, &x)) return refused(c, text, "there is no such output and input");
  const Value *const in = m->main->inputs.data[x.input], *const out =
                                                             m->main->outputs.data[x.output];
  if (model_input_in_place(m, x.input) || model_output_in_place(m, x.output))
    return refused(c, text, "one of them is in place already");
  if (in->kind != TY_TENSOR || out->kind != TY_TENSOR || in->dtype != out->dtype ||
      in->rank != out->rank || in->dtype == DT_STR)
    return refused(c, text, "they have different types");
  if (in->init) return refused(c, text, "the input has a default");
  if (!same_but(in, out, -1)) return refused(c, text, "they have different sizes");
  vec_push(m->arena, &m->in_place, x);
  return c->changed = true;
}

bool pass_caches(PassCtx *c) {
  Model *m = c->model;
  if (!c->cache_room && !c->n_in_place) return true;
  const Loc loc = {.file = m->file, .node = -1};
  if (target_has_grids(c->target))
    return diag_error(m->diag, &loc, ERR_UNSUPPORTED, "%s are for CPUs, not for target %s",
                      c->cache_room ? "--cache: caches in place" : "--in-place: outputs in place",
                      c->target->name);
  for (int k = 0; k < c->n_in_place; k++)
    if (!put_whole(c, c->in_place[k])) return false;
  if (!c->cache_room) return true;
  for (int k = 0; k < m->main->outputs.n; k++) {
    InPlace x = {.room = c->cache_room};
    if (grows_an_input(m->main, k, &x)) put_in_place(m, x);
  }
  c->changed = m->in_place.n > 0;
  return c->changed || diag_error(m->diag, &loc, ERR_VALUE,
                                  "--cache: no output is an input and what is new behind it (a "
                                  "Concat, or keys of GroupQueryAttention): there is no cache");
}
