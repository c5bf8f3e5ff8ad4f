/* Convolutions and norms whose channels come in groups: whole groups go, or as many channels of each. */
#include <string.h>
#include "passes/prune/rules.h"

/* ---- groups ---- */
typedef struct Groups { /* of a convolution */
  int64_t n, in, out;   /* groups; channels of each */
  int x, y, w;
  bool transposed, weighs; /* the weights are constant */
} Groups;

static Groups groups_of(const PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int64_t groups = node_int(n, "group", 1);
  return (Groups){.n = groups,
                  .in = rule_dim(n->in[0], 1) / groups,
                  .out = rule_dim(n->out[0], 1) / groups,
                  .x = prune_slot(r, node, 0),
                  .y = prune_result_slot(r, node, 0),
                  .w = prune_slot(r, node, 1),
                  .transposed = strcmp(n->op->name, "ConvTranspose") == 0,
                  .weighs = n->in[1]->cdata != NULL};
}

static bool atom_goes(const PruneRelation *r, int slot, int64_t index) {
  const int32_t atom = prune_atom(r, slot, 1, index);
  return atom >= 0 && !r->frozen[prune_root(r, atom)];
}

static bool group_goes(const PruneRelation *r, int slot, int64_t group, int64_t each) {
  for (int64_t i = 0; i < each; i++)
    if (!atom_goes(r, slot, group * each + i)) return false;
  return true;
}

/* Channel i of each group. */
static bool equal_goes(const PruneRelation *r, int slot, int64_t i, int64_t each, int64_t groups) {
  for (int64_t g = 0; g < groups; g++)
    if (!atom_goes(r, slot, g * each + i)) return false;
  return true;
}

static void tie_group(PruneRelation *r, int32_t first, int slot, int64_t group, int64_t each) {
  for (int64_t i = 0; i < each; i++) prune_tie(r, first, prune_atom(r, slot, 1, group * each + i));
}

/* Channels of x that a group reads go with all results of it. */
static void tie_groups(PruneRelation *r, int x, int y, int64_t in, int64_t out, int64_t groups) {
  for (int64_t g = 0; g < groups; g++) {
    const int32_t first = prune_atom(r, x, 1, g * in);
    tie_group(r, first, x, g, in);
    tie_group(r, first, y, g, out);
  }
}

/* Channel i of each group goes with index i of the weights. */
static void tie_equal(PruneRelation *r, int slot, int64_t each, int64_t groups, int w, int w_dim) {
  for (int64_t i = 0; i < each; i++) {
    const int32_t first = prune_atom(r, slot, 1, i);
    for (int64_t g = 1; g < groups; g++) prune_tie(r, first, prune_atom(r, slot, 1, g * each + i));
    if (w_dim >= 0) prune_tie(r, first, prune_atom(r, w, w_dim, i));
  }
}

/* ---- whole groups, or as many of each ---- */
static bool whole_can_go(const PruneRelation *r, const Groups *g) {
  for (int64_t k = 0; k < g->n; k++)
    if (group_goes(r, g->x, k, g->in) && group_goes(r, g->y, k, g->out)) return true;
  return false;
}

static bool equal_can_go(const PruneRelation *r, const Groups *g) {
  for (int64_t i = 0; g->weighs && g->in > 1 && i < g->in; i++)
    if (equal_goes(r, g->x, i, g->in, g->n)) return true;
  for (int64_t i = 0; g->out > 1 && i < g->out; i++)
    if (equal_goes(r, g->y, i, g->out, g->n)) return true;
  return false;
}

/* Of the two, the one that leaves a finer choice. */
static void choose_groups(PruneRelation *r, int node) {
  static const char *const uneven = "groups of it would read different numbers of channels";
  const Groups g = groups_of(r, node);
  const int64_t finer = g.in < g.out ? g.in : g.out;
  const int inner = 1, outer = 0; /* dimensions of the weights: in a group, and of all */
  const bool whole = whole_can_go(r, &g), equal = equal_can_go(r, &g);
  if (whole && (!equal || g.n >= finer)) {
    tie_groups(r, g.x, g.y, g.in, g.out, g.n);
    prune_freeze(r, g.w, inner, prune_because(r, node, uneven));
    return;
  }
  if (g.weighs) prune_add_product(r, node, g.w, g.transposed ? outer : inner);
  if (!g.weighs)
    prune_freeze(r, g.x, 1, prune_because(r, node, "multiplies with computed weights"));
  tie_equal(r, g.x, g.in, g.n, g.w, g.transposed ? -1 : inner);
  tie_equal(r, g.y, g.out, g.n, g.w, g.transposed ? inner : -1);
}

void prune_resolve_groups(PruneRelation *r) {
  for (int k = 0; k < r->grouped.n; k++) choose_groups(r, r->grouped.data[k]);
}

/* ---- convolutions ---- */
static void relate_grouped(PruneRelation *r, int node) {
  const Groups g = groups_of(r, node);
  if (g.in < 1 || g.out < 1) return;
  if (g.transposed)
    prune_tie_dims(r, node, g.w, 0, g.x, 1);
  else
    prune_tie_dims(r, node, g.w, 0, g.y, 1);
  prune_see(r, node, g.x, 1);
  prune_see(r, node, g.y, 1);
  prune_see(r, node, g.w, 1);
  vec_push(r->a, &r->grouped, node);
}

void relate_conv(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const bool transposed = strcmp(n->op->name, "ConvTranspose") == 0;
  const int x = prune_slot(r, node, 0), w = prune_slot(r, node, 1), b = prune_slot(r, node, 2),
            y = prune_result_slot(r, node, 0);
  const int in_dim = transposed ? 0 : 1, out_dim = transposed ? 1 : 0;
  prune_tie_dims(r, node, x, 0, y, 0);
  if (b >= 0) prune_tie_dims(r, node, b, 0, y, 1);
  if (node_int(n, "group", 1) > 1) {
    relate_grouped(r, node);
    return;
  }
  prune_tie_dims(r, node, w, out_dim, y, 1);
  if (!prune_weighs(r, n->in[1])) return; /* what remains is frozen */
  prune_tie_dims(r, node, w, in_dim, x, 1);
  prune_add_product(r, node, w, in_dim);
}

/* Without groups, neither of channels nor of offsets. */
void relate_deformed(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int x = prune_slot(r, node, 0), w = prune_slot(r, node, 1), b = prune_slot(r, node, 3),
            y = prune_result_slot(r, node, 0);
  prune_tie_dims(r, node, x, 0, y, 0);
  if (node_int(n, "group", 1) > 1 || node_int(n, "offset_group", 1) > 1) return;
  if (b >= 0) prune_tie_dims(r, node, b, 0, y, 1);
  prune_tie_dims(r, node, w, 0, y, 1);
  if (!prune_weighs(r, n->in[1])) return;
  prune_tie_dims(r, node, w, 1, x, 1);
  prune_add_product(r, node, w, 1);
}

/* Parts of an image: each channel for itself. */
void relate_roi(PruneRelation *r, int node) {
  prune_tie_dims(r, node, prune_slot(r, node, 0), 1, prune_result_slot(r, node, 0), 1);
}

/* Groups of which nothing is left are not counted. */
static bool cut_count(const PruneCut *c, Node *n, int node, const char *name) {
  const int x = prune_slot(c->r, node, 0);
  const int64_t groups = node_int(n, name, 1), all = prune_size(c->r, x, 1);
  int64_t left = 0;
  if (groups <= 1 || all <= 0) return true;
  for (int64_t g = 0; g < groups; g++)
    left += prune_count(c, x, 1, g * (all / groups), (g + 1) * (all / groups)) > 0;
  node_set_int(n, name, left);
  return true;
}
bool cut_group(const PruneCut *c, Node *n, int node) { return cut_count(c, n, node, "group"); }

/* ---- GroupNormalization: whole groups ---- */
void relate_group_norm(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int64_t groups = node_int(n, "num_groups", 1), each = rule_dim(n->in[0], 1) / groups;
  prune_tie_dims(r, node, x, 0, y, 0);
  if (each < 1) return;
  prune_tie_dims(r, node, prune_slot(r, node, 1), 0, y, 1);
  prune_tie_dims(r, node, prune_slot(r, node, 2), 0, y, 1);
  tie_groups(r, x, y, each, each, groups);
  prune_tie_dims(r, node, x, 1, y, 1);
}
bool cut_norm_groups(const PruneCut *c, Node *n, int node) {
  return cut_count(c, n, node, "num_groups");
}
