/* LSTM, GRU and RNN: hidden units, which all directions have as many of. */
#include <string.h>
#include "passes/prune/rules.h"

/* Gates lie one behind the other, each of a row per hidden unit, which are the last dimension of R (slot
 * `hidden`). */
static void tie_gates(PruneRelation *r, int node, int slot, int hidden) {
  const int64_t each = prune_size(r, hidden, 2), all = prune_size(r, slot, 1);
  for (int64_t at = 0; slot >= 0 && at + each <= all; at += each)
    prune_tie_range(r, node, slot, 1, at, hidden, 2, 0, each);
}

/* What reads a hidden unit again are columns of R. */
void relate_cell(PruneRelation *r, int node) {
  enum { X, W, R, B, LENGTHS, H0, C0, P };
  static const int gates[] = {W, R, B, P}, states[] = {H0, C0};
  const Node *n = r->nodes[node];
  const int hidden = prune_slot(r, node, R);
  if (!prune_weighs(r, n->in[R]) || !prune_size(r, hidden, 2)) return; /* frozen */
  for (int k = 0; k < 4; k++) tie_gates(r, node, prune_slot(r, node, gates[k]), hidden);
  for (int k = 0; k < 2; k++) prune_tie_dims(r, node, prune_slot(r, node, states[k]), 2, hidden, 2);
  prune_tie_dims(r, node, prune_result_slot(r, node, 0), 3, hidden, 2);
  for (int k = 1; k < n->n_out; k++)
    prune_tie_dims(r, node, prune_result_slot(r, node, k), 2, hidden, 2);
  prune_see(r, node, hidden, 2);
  prune_add_product(r, node, hidden, 2);
  r->products.data[r->products.n - 1].recurrent = true;
  if (!prune_weighs(r, n->in[W])) return;
  prune_tie_dims(r, node, prune_slot(r, node, X), 2, prune_slot(r, node, W), 2);
  prune_add_product(r, node, prune_slot(r, node, W), 2);
}

bool cut_cell(const PruneCut *c, Node *n, int node) {
  const int hidden = prune_slot(c->r, node, 2);
  if (prune_changes(c, hidden, 2))
    node_set_int(n, "hidden_size", prune_count(c, hidden, 2, 0, prune_size(c->r, hidden, 2)));
  return true;
}
