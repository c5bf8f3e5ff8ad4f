/* Atoms, what ties them, and what freezes them. */
#include <string.h>
#include "passes/prune/rules.h"

/* ---- atoms ---- */
int32_t prune_root(const PruneRelation *r, int32_t atom) {
  int32_t *const parent = r->parent;
  while (parent[atom] != atom) atom = parent[atom] = parent[parent[atom]];
  return atom;
}

int64_t prune_size(const PruneRelation *r, int slot, int dim) {
  int64_t n;
  if (slot < 0 || r->slots.data[slot].first[dim] < 0) return 0;
  return expr_is_const(r->slots.data[slot].value->dims[dim], &n) ? n : 0;
}

int64_t prune_parts(const PruneRelation *r, int slot, int dim) {
  const int64_t size = prune_size(r, slot, dim);
  return size || slot < 0 ? size : r->slots.data[slot].factor[dim];
}

int32_t prune_part(const PruneRelation *r, int slot, int dim, int64_t index) {
  if (index < 0 || index >= prune_parts(r, slot, dim)) return -1;
  return r->slots.data[slot].first[dim] + (int32_t)index;
}

int32_t prune_atom(const PruneRelation *r, int slot, int dim, int64_t index) {
  if (slot < 0 || index < 0 || index >= prune_size(r, slot, dim)) return -1;
  return r->slots.data[slot].first[dim] + (int32_t)index;
}

void prune_freeze_atom(PruneRelation *r, int32_t atom, const char *why) {
  const int32_t root = prune_root(r, atom);
  if (!r->frozen[root]) r->frozen[root] = why;
}

static const char *const unknown = "it meets a dimension that is not followed";

void prune_tie(PruneRelation *r, int32_t x, int32_t y) {
  if (x < 0 || y < 0) {
    if (x >= 0 || y >= 0) prune_freeze_atom(r, x < 0 ? y : x, unknown);
    return;
  }
  x = prune_root(r, x);
  y = prune_root(r, y);
  if (x == y) return;
  if (y < x) { /* the lower one stands for both: the same in every copy of a model */
    const int32_t t = x;
    x = y;
    y = t;
  }
  r->parent[y] = x;
  if (!r->frozen[x]) r->frozen[x] = r->frozen[y];
}

void prune_see(PruneRelation *r, int node, int slot, int dim) {
  if (slot >= 0) r->slots.data[slot].seen_by[dim] = node + 1;
}

void prune_freeze(PruneRelation *r, int slot, int dim, const char *why) {
  for (int64_t i = prune_parts(r, slot, dim) - 1; i >= 0; i--)
    prune_freeze_atom(r, prune_part(r, slot, dim, i), why);
}

void prune_tie_range(PruneRelation *r, int node, int x, int x_dim, int64_t x_from, int y, int y_dim,
                     int64_t y_from, int64_t count) {
  if (x < 0 || y < 0) return;
  prune_see(r, node, x, x_dim);
  prune_see(r, node, y, y_dim);
  for (int64_t i = 0; i < count; i++)
    prune_tie(r, prune_atom(r, x, x_dim, x_from + i), prune_atom(r, y, y_dim, y_from + i));
}

void prune_tie_dims(PruneRelation *r, int node, int x, int x_dim, int y, int y_dim) {
  if (x < 0 || y < 0) return;
  const int64_t nx = prune_size(r, x, x_dim), ny = prune_size(r, y, y_dim);
  const int64_t px = prune_parts(r, x, x_dim), py = prune_parts(r, y, y_dim);
  prune_tie_range(r, node, x, x_dim, 0, y, y_dim, 0, nx > ny ? nx : ny);
  for (int64_t i = 0; nx + ny == 0 && i < (px > py ? px : py); i++)
    prune_tie(r, prune_part(r, x, x_dim, i), prune_part(r, y, y_dim, i));
  if (nx == 0 && ny > 0 && px > 0) prune_freeze(r, x, x_dim, unknown);
  if (ny == 0 && nx > 0 && py > 0) prune_freeze(r, y, y_dim, unknown);
}

void prune_add_product(PruneRelation *r, int node, int slot, int dim) {
  for (int k = 0; k < r->products.n; k++) {
    const PruneProduct *p = &r->products.data[k];
    if (p->node == node && p->slot == slot && p->dim == dim) return;
  }
  vec_push(r->a, &r->products, (PruneProduct){.node = node, .slot = slot, .dim = dim});
}

const char *prune_because(const PruneRelation *r, int node, const char *what) {
  const Node *n = r->nodes[node];
  return arena_printf(r->a, "%s \"%s\" %s", n->op->name, node_title(r->a, n), what);
}

/* ---- slots ---- */
enum { LARGEST = 1 << 20, MOST = 1 << 28 }; /* atoms of a dimension; of all */

/* batch * 4 */
static int64_t known_factor(const PruneRelation *r, const Expr *size) {
  ExprTerm term;
  if (expr_terms(r->m->pool, size, &term, 1) != 1 || !term.product) return 0;
  return term.coeff > 1 && term.coeff <= LARGEST ? term.coeff : 0;
}

static int add_slot(PruneRelation *r, Value *v, Node *node) {
  PruneSlot s = {.value = v, .node = node};
  const int rank = v->kind == TY_TENSOR && v->rank > 0 ? v->rank : 0;
  s.first = ARENA_ARRAY(r->a, int32_t, rank + 1);
  s.seen_by = ARENA_ARRAY(r->a, int32_t, rank + 1);
  s.factor = ARENA_ARRAY(r->a, int32_t, rank + 1);
  for (int d = 0; d < rank; d++) {
    int64_t n;
    const bool known = expr_is_const(v->dims[d], &n);
    if (!known) n = known_factor(r, v->dims[d]);
    const bool follow = n > 1 && n <= LARGEST && r->n_atoms < MOST;
    s.first[d] = follow ? r->n_atoms : -1;
    s.factor[d] = follow && !known ? (int32_t)n : 0;
    if (follow) r->n_atoms += (int32_t)n;
  }
  vec_push(r->a, &r->slots, s);
  return r->slots.n - 1;
}

/* Each reader has its own slot of a constant: they may keep other parts of it. */
static int input_slot(PruneRelation *r, Node *n, int k, const int *places) {
  Value *v = n->in[k];
  if (!v) return -1;
  if (v->cdata) {
    for (int i = 0; i < k; i++)
      if (n->in[i] == v) return places[i];
    return add_slot(r, v, n);
  }
  if (r->slot_of[v->id] < 0) r->slot_of[v->id] = add_slot(r, v, NULL);
  return r->slot_of[v->id];
}

static void add_slots(PruneRelation *r, const Graph *g) {
  int places = 0;
  r->base = ARENA_ARRAY(r->a, int, g->nodes.n + 1);
  r->slot_of = ARENA_ARRAY(r->a, int, r->m->next_value + 1);
  for (int k = 0; k < r->m->next_value; k++) r->slot_of[k] = -1;
  for (int i = 0; i < g->nodes.n; i++) {
    r->base[i] = places;
    places += g->nodes.data[i]->n_in + g->nodes.data[i]->n_out;
  }
  r->places = ARENA_ARRAY(r->a, int, places + 1);
  for (int k = 0; k < g->inputs.n; k++)
    r->slot_of[g->inputs.data[k]->id] = add_slot(r, g->inputs.data[k], NULL);
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    int *const at = r->places + r->base[i];
    for (int k = 0; k < n->n_in; k++) at[k] = input_slot(r, n, k, at);
    for (int k = 0; k < n->n_out; k++)
      at[n->n_in + k] = n->out[k] ? (r->slot_of[n->out[k]->id] = add_slot(r, n->out[k], NULL)) : -1;
  }
}

int prune_slot(const PruneRelation *r, int node, int input) {
  return input < r->nodes[node]->n_in ? r->places[r->base[node] + input] : -1;
}

int prune_result_slot(const PruneRelation *r, int node, int output) {
  const Node *n = r->nodes[node];
  return output < n->n_out ? r->places[r->base[node] + n->n_in + output] : -1;
}

/* ---- what cannot go ---- */
static void freeze_slot(PruneRelation *r, int slot, const char *why) {
  if (slot < 0) return;
  const Value *v = r->slots.data[slot].value;
  for (int d = 0; d < v->rank && v->kind == TY_TENSOR; d++) prune_freeze(r, slot, d, why);
}

typedef struct Captured {
  PruneRelation *r;
  const char *why;
} Captured;

static bool freeze_value(void *user, Value *v) {
  const Captured *c = user;
  if (!v->cdata && v->id < c->r->m->next_value) freeze_slot(c->r, c->r->slot_of[v->id], c->why);
  return false;
}

static void freeze_node(PruneRelation *r, int node) {
  Node *n = r->nodes[node];
  Captured c = {r, prune_because(r, node, "is no operator that channels are followed through")};
  for (int k = 0; k < n->n_in + n->n_out; k++) freeze_slot(r, r->places[r->base[node] + k], c.why);
  node_any_read(n, freeze_value, &c);
}

/* Dimensions of which the node's rule says nothing: it may compute with all of them. */
static void freeze_rest(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const char *why = prune_because(r, node, "computes with all of them");
  for (int k = 0; k < n->n_in + n->n_out; k++) {
    const int s = r->places[r->base[node] + k];
    const Value *v = s < 0 ? NULL : r->slots.data[s].value;
    for (int d = 0; v && d < v->rank && v->kind == TY_TENSOR; d++)
      if (r->slots.data[s].seen_by[d] != node + 1) prune_freeze(r, s, d, why);
  }
}

static void relate_node(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const PruneRule *rule = prune_rule(n);
  if (rule && rule->relate)
    rule->relate(r, node);
  else if (!prune_derive(r, node))
    freeze_node(r, node);
  freeze_rest(r, node);
}

static PruneRelation *begin(Model *m, const Graph *g, Arena *a) {
  PruneRelation *r = ARENA_NEW(a, PruneRelation);
  *r = (PruneRelation){.m = m, .a = a, .n_nodes = g->nodes.n};
  r->nodes = arena_dup(a, g->nodes.data, sizeof(Node *) * (size_t)g->nodes.n);
  add_slots(r, g);
  r->parent = ARENA_ARRAY(a, int32_t, r->n_atoms + 1);
  r->frozen = ARENA_ARRAY(a, const char *, r->n_atoms + 1);
  for (int32_t i = 0; i < r->n_atoms; i++) r->parent[i] = i;
  return r;
}

static PruneRelation *relate_nodes(PruneRelation *r) {
  for (int i = 0; i < r->n_nodes; i++) relate_node(r, i);
  prune_resolve_groups(r);
  prune_resolve_merges(r);
  return r;
}

PruneRelation *prune_relate(Model *m, Arena *a) {
  const Graph *g = m->main;
  PruneRelation *r = begin(m, g, a);
  for (int k = 0; k < g->inputs.n; k++)
    freeze_slot(r, r->slot_of[g->inputs.data[k]->id], "it is an input of the model");
  for (int k = 0; k < g->outputs.n; k++)
    if (!g->outputs.data[k]->cdata)
      freeze_slot(r, r->slot_of[g->outputs.data[k]->id], "it is an output of the model");
  return relate_nodes(r);
}

PruneRelation *prune_relate_inside(Model *m, Graph *g, Arena *a) {
  PruneRelation *r = begin(m, g, a);
  r->inside = true;
  return relate_nodes(r);
}

bool prune_weighs(const PruneRelation *r, const Value *v) {
  if (v->cdata) return true;
  if (!r->inside || !v->def || v->def->n_in == 0) return false;
  for (int k = 0; k < v->def->n_in; k++)
    if (v->def->in[k] && !prune_weighs(r, v->def->in[k])) return false;
  return true;
}
