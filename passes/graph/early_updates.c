/* Updates in place (of a training step) are computed behind all that other outputs need, and as early as
 * they can be: behind what they read, and behind the last reader of the input that they are written over.
 * So gradients die early, and a run that fails has changed nothing. Needs to know what is inlined, since
 * that reads where it is read. */
#include "passes/build/kernel.h"
#include "passes/graph/rewrite.h"

#include <stdlib.h>

typedef struct Early {
  Graph *g;
  const Uses *uses;
  int n;        /* nodes */
  int *at;      /* of each node: it comes behind the one that stood here; its own place: it stays */
  bool *only;   /* only outputs in place hang on it */
  bool *update; /* such an output, or what is computed for it element by element */
  int *of;      /* by value id: place of the node that makes it, -1 */
  int *last;    /* by value id: the last place where it is read so far */
  Value **over; /* by value id: the input that it is written over, or NULL */
  int *seen, stamp; /* by place: stamp where it is of the tree that is looked at */
  int place, bound; /* of the node that is looked at */
  int floor;        /* the last node that other outputs need: what it refuses changes nothing */
} Early;

/* ---- trees: a node, and what is inlined below it ---- */
static bool look(void *user, Value *v) {
  Early *e = user;
  const int from = e->of[v->id];
  if (!v->inlined || from < 0) {
    if (from >= 0 && e->at[from] > e->bound) e->bound = e->at[from];
    return false;
  }
  if (e->seen[from] == e->stamp) return false;
  e->seen[from] = e->stamp;
  const Node *n = e->g->nodes.data[from];
  if (n->n_syms && from > e->bound) e->bound = from; /* where these are read from data */
  node_any_read(n, look, e);
  return false;
}

static bool follow(void *user, Value *v) {
  Early *e = user;
  const int from = e->of[v->id];
  if (from >= 0 && e->at[from] > e->at[e->place]) e->at[e->place] = e->at[from];
  return false;
}

static bool note_read(void *user, Value *v) {
  Early *e = user;
  const int from = e->of[v->id], at = e->at[e->place];
  if (at > e->last[v->id]) e->last[v->id] = at;
  if (v->inlined && from >= 0 && e->seen[from] != e->stamp) {
    e->seen[from] = e->stamp;
    node_any_read(e->g->nodes.data[from], note_read, e);
  }
  return false;
}

static bool is_inlined(const Node *n) {
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && !n->out[k]->inlined) return false;
  return true;
}

/* ---- places ---- */
/* Its results go, by nodes that `only` says the same of, into nothing but outputs in place. */
static bool flows_only(const Early *e, const Node *n, const bool *only) {
  for (int k = 0; k < n->n_out; k++) {
    const Value *v = n->out[k];
    if (!v) continue;
    if (e->uses->outputs[v->id] && (e->uses->outputs[v->id] > 1 || !e->over[v->id])) return false;
    const NodeVec *of = &e->uses->of[v->id];
    for (int i = 0; i < of->n; i++)
      if (of->data[i]->graph != e->g || !only[of->data[i]->mark]) return false;
  }
  return true;
}

static bool find_only(const Early *e, const Node *n) {
  for (int k = 0; k < n->n_attrs; k++)
    if (n->attrs[k].kind == AT_GRAPH) return false;
  return !n->n_syms && flows_only(e, n, e->only);
}

/* The last node that other outputs need. Indices of gradients were checked in the forward part. */
static int find_floor(const Early *e, Arena *a) {
  bool *flows = ARENA_ARRAY(a, bool, e->n);
  int floor = -1;
  for (int i = e->n - 1; i >= 0; i--) {
    const Node *n = e->g->nodes.data[i];
    flows[i] = flows_only(e, n, flows);
    if (!flows[i] && !is_inlined(n) && floor < 0) floor = i;
  }
  return floor;
}

/* Others keep their order, in which each gradient follows those that it is computed from. */
static bool is_update(const Early *e, const Node *n) {
  if (!e->only[n->mark] || !node_is_elementwise(n) || !n->out[0]) return false;
  const Value *v = n->out[0];
  if (value_one_element(v)) return true; /* a rate, for which updates would wait */
  const NodeVec *of = &e->uses->of[v->id];
  for (int i = 0; i < of->n; i++)
    if (!e->update[of->data[i]->mark] || !value_same_shape(v, of->data[i]->out[0])) return false;
  return of->n > 0 || e->over[v->id];
}

/* The node comes behind what its tree reads, and behind who else reads what it is written over. */
static void place_node(Early *e, int i) {
  const Node *n = e->g->nodes.data[i];
  e->place = i;
  e->at[i] = i;
  if (is_inlined(n)) {
    node_any_read(n, follow, e);
    return;
  }
  if (e->update[i] || (e->only[i] && i < e->floor)) {
    e->bound = e->floor;
    node_any_read(n, look, e);
    e->stamp++;
    for (int k = 0; k < n->n_out; k++) {
      const Value *in = n->out[k] ? e->over[n->out[k]->id] : NULL;
      if (in && e->last[in->id] > e->bound) e->bound = e->last[in->id];
    }
    e->at[i] = e->bound;
  }
  node_any_read(n, note_read, e);
  e->stamp++;
}

/* What is inlined into a node that moved moves with it. */
static void pull_inlined(Early *e) {
  for (int i = e->n - 1; i >= 0; i--) {
    const Node *n = e->g->nodes.data[i];
    for (int k = 0; k < n->n_in; k++) {
      const int from = n->in[k] ? e->of[n->in[k]->id] : -1;
      if (from < 0 || !n->in[k]->inlined || e->g->nodes.data[from]->n_syms) continue;
      if (e->at[from] > e->at[i]) e->at[from] = e->at[i];
    }
  }
}

typedef struct Placed {
  Node *n;
  int at, moved, was;
} Placed;

static int compare(const void *a, const void *b) {
  const Placed *x = a, *y = b;
  if (x->at != y->at) return x->at < y->at ? -1 : 1;
  if (x->moved != y->moved) return x->moved - y->moved;
  return x->was - y->was;
}

static bool reorder(const Early *e, Arena *a) {
  Placed *list = ARENA_ARRAY(a, Placed, e->n);
  bool any = false;
  for (int i = 0; i < e->n; i++) {
    list[i] = (Placed){e->g->nodes.data[i], e->at[i], e->at[i] != i, i};
    any |= e->at[i] != i && e->at[i] != i - 1;
  }
  qsort(list, (size_t)e->n, sizeof *list, compare);
  for (int i = 0; i < e->n; i++) e->g->nodes.data[i] = list[i].n;
  return any;
}

bool pass_early_updates(PassCtx *c) {
  Model *m = c->model;
  Graph *g = m->main;
  Arena *a = c->scratch;
  Early e = {.g = g, .n = g->nodes.n, .stamp = 1};
  e.over = ARENA_ARRAY(a, Value *, m->next_value);
  bool any = false;
  for (int i = 0; i < m->in_place.n; i++) {
    const InPlace *x = &m->in_place.data[i];
    if (in_place_is_whole(x)) e.over[g->outputs.data[x->output]->id] = g->inputs.data[x->input];
    any |= in_place_is_whole(x);
  }
  if (!any || m->scheduled) return true;
  e.uses = graph_uses(g, a);
  e.at = ARENA_ARRAY(a, int, e.n);
  e.only = ARENA_ARRAY(a, bool, e.n);
  e.update = ARENA_ARRAY(a, bool, e.n);
  e.seen = ARENA_ARRAY(a, int, e.n);
  e.of = ARENA_ARRAY(a, int, m->next_value);
  e.last = ARENA_ARRAY(a, int, m->next_value);
  for (int i = 0; i < m->next_value; i++) e.of[i] = e.last[i] = -1;
  for (int i = 0; i < e.n; i++)
    for (int k = 0; k < g->nodes.data[i]->n_out; k++)
      if (g->nodes.data[i]->out[k]) e.of[g->nodes.data[i]->out[k]->id] = i;
  for (int i = 0; i < e.n; i++) g->nodes.data[i]->mark = i;
  for (int i = e.n - 1; i >= 0; i--) {
    e.only[i] = find_only(&e, g->nodes.data[i]);
    e.update[i] = is_update(&e, g->nodes.data[i]);
  }
  e.floor = find_floor(&e, a);
  for (int i = 0; i < e.n; i++) place_node(&e, i);
  pull_inlined(&e);
  c->changed = reorder(&e, a);
  return true;
}
