/* The walk that simulate.c and insert.c share. */
#include "passes/ptq/rewriter.h"
#include <string.h>

static int group_of(const Rewriter *r, const Value *v) {
  if (!v || v->id >= r->q->n_values || r->q->point_of[v->id] < 0) return -1;
  const int group = r->q->points.data[r->q->point_of[v->id]].group;
  return r->all_groups || r->q->groups.data[group].on ? group : -1;
}

const Loc *inserted_loc(Arena *a, const Loc *at) {
  Loc *loc = ARENA_NEW(a, Loc);
  *loc = at ? *at : (Loc){.node = -1};
  loc->op = NULL;
  loc->also = NULL;
  return loc;
}

static Value *in_eight(Rewriter *r, Value *v) {
  const int group = group_of(r, v);
  if (group < 0) return v;
  const QuantPoint *p = &r->q->points.data[r->q->point_of[v->id]];
  if (r->eight[v->id]) return r->eight[v->id];
  const Loc *reader = r->b.loc;
  r->b.loc = inserted_loc(r->m->arena, reader);
  r->eight[v->id] = r->round(r, quant_divide_channels(&r->b, p, v), group);
  r->b.loc = reader;
  return r->eight[v->id];
}

static bool rewrite(Rewriter *r, Node *n, const QuantLayer *l, bool *keep) {
  r->b.loc = n->loc;
  if (l) {
    Value *const in8[] = {in_eight(r, n->in[0]), l->other < 0 ? n->in[1] : in_eight(r, n->in[1])};
    return r->b.ok && r->layer(r, n, l, in8, keep);
  }
  for (int k = 0; k < n->n_in && r->b.ok; k++) n->in[k] = in_eight(r, n->in[k]);
  return r->b.ok;
}

bool rewriter_run(Rewriter *r) {
  Graph *g = r->m->main;
  Node **old = g->nodes.data;
  const int count = g->nodes.n;
  int next = 0;
  r->eight = ARENA_ARRAY(r->m->arena, Value *, r->q->n_values + 1);
  r->b = (Build){.m = r->m, .g = g, .ok = true};
  g->nodes.data = NULL;
  g->nodes.n = g->nodes.cap = 0;
  for (int i = 0; i < count; i++) {
    const bool is_layer = next < r->q->layers.n && r->q->layers.data[next].node == i;
    bool keep = true;
    if (!rewrite(r, old[i], is_layer ? &r->q->layers.data[next++] : NULL, &keep) || !r->b.ok)
      return false;
    if (keep) vec_push(r->m->arena, &g->nodes, old[i]);
  }
  return true;
}

float *layer_bias(const Model *m, const Node *n, const QuantLayer *l) {
  const Value *v = node_in(n, 2);
  const int64_t channels = l->channels;
  if (v && (!v->cdata || v->rank != 1 || v->cdata->count != channels || v->dtype != DT_F32))
    return NULL;
  float *b = ARENA_ARRAY(m->arena, float, channels + 1);
  for (int64_t c = 0; c < channels; c++)
    b[c] = (v ? (float)const_float(v->cdata, c) : 0) + (l->bias_shift ? l->bias_shift[c] : 0);
  return b;
}
