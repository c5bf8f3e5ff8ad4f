/* Units, and groups of those that go through the same dimensions. */
#include <stdlib.h>
#include <string.h>
#include "ir/base/words.h"
#include "passes/prune/prune.h"

static void touch(PruneRelation *r, PruneUnit *u, int slot, int dim) {
  PruneTouch *last = u->touches.n ? &u->touches.data[u->touches.n - 1] : NULL;
  if (last && last->slot == slot && last->dim == dim)
    last->count++;
  else
    vec_push(r->a, &u->touches, (PruneTouch){slot, dim, 1});
}

/* unit_of: by root; -1: none yet. */
static void add_atom(PruneRelation *r, int *unit_of, int32_t atom, int slot, int dim) {
  const int32_t root = prune_root(r, atom);
  if (r->frozen[root]) return;
  if (unit_of[root] < 0) {
    unit_of[root] = r->units.n;
    vec_push(r->a, &r->units, (PruneUnit){.root = root, .group = -1});
  }
  touch(r, &r->units.data[unit_of[root]], slot, dim);
}

static void find_units(PruneRelation *r) {
  int *unit_of = ARENA_ARRAY(r->a, int, r->n_atoms + 1);
  for (int32_t i = 0; i < r->n_atoms; i++) unit_of[i] = -1;
  for (int s = 0; s < r->slots.n; s++) {
    const Value *v = r->slots.data[s].value;
    for (int d = 0; v->kind == TY_TENSOR && d < v->rank; d++)
      for (int64_t i = 0, n = prune_size(r, s, d); i < n; i++)
        add_atom(r, unit_of, prune_atom(r, s, d, i), s, d);
  }
}

static int compare_touches(const PruneUnit *a, const PruneUnit *b) {
  if (a->touches.n != b->touches.n) return a->touches.n < b->touches.n ? -1 : 1;
  for (int k = 0; k < a->touches.n; k++) {
    const PruneTouch *x = &a->touches.data[k], *y = &b->touches.data[k];
    if (x->slot != y->slot) return x->slot < y->slot ? -1 : 1;
    if (x->dim != y->dim) return x->dim < y->dim ? -1 : 1;
    if (x->count != y->count) return x->count < y->count ? -1 : 1;
  }
  return 0;
}

static int compare_units(const void *a, const void *b) {
  const PruneUnit *const *x = a, *const *y = b;
  const int c = compare_touches(*x, *y);
  return c ? c : (*x)->root<(*y)->root ? -1 : (*x)->root>(*y)->root;
}

static bool is_product(const PruneRelation *r, int slot, int dim) {
  for (int k = 0; k < r->products.n; k++)
    if (r->products.data[k].slot == slot && r->products.data[k].dim == dim) return true;
  return false;
}

bool prune_multiplies(const PruneRelation *r, const Node *n) {
  if (n->op->flags & OF_CONTRACTION) return true;
  for (int k = 0; k < r->products.n; k++)
    if (r->nodes[r->products.data[k].node] == n) return true;
  return false;
}

/* The weights whose results the channels are. */
static const PruneTouch *made_by(const PruneRelation *r, const PruneUnit *u) {
  for (int k = 0; k < u->touches.n; k++) {
    const PruneTouch *t = &u->touches.data[k];
    const Node *n = r->slots.data[t->slot].node;
    if (n && prune_multiplies(r, n) && r->slots.data[t->slot].value->rank > 1 &&
        !is_product(r, t->slot, t->dim))
      return t;
  }
  return NULL;
}

/* Channels of the node's result that a unit is. */
static int64_t width_of(const PruneRelation *r, const PruneUnit *u, const PruneTouch *made) {
  const Node *n = r->slots.data[made->slot].node;
  int at = 0;
  while (r->nodes[at] != n) at++;
  for (int k = 0; k < u->touches.n; k++)
    if (u->touches.data[k].slot == prune_result_slot(r, at, 0)) return u->touches.data[k].count;
  return made->count;
}

/* One unit of its own cannot go: nothing would be left. */
static void add_group(PruneRelation *r, PruneUnit *const *list, int n) {
  const PruneTouch *t = made_by(r, list[0]);
  if (n < 2 || !t) return;
  PruneGroup g = {.name = node_title(r->a, r->slots.data[t->slot].node),
                  .width = width_of(r, list[0], t)};
  for (int k = 0; k < n; k++) {
    list[k]->group = r->groups.n;
    vec_push(r->a, &g.units, (int)(list[k] - r->units.data));
  }
  vec_push(r->a, &r->groups, g);
}

void prune_find_groups(PruneRelation *r) {
  find_units(r);
  const int n = r->units.n;
  PruneUnit **list = ARENA_ARRAY(r->a, PruneUnit *, n + 1);
  for (int k = 0; k < n; k++) list[k] = &r->units.data[k];
  qsort(list, (size_t)n, sizeof(PruneUnit *), compare_units);
  for (int from = 0, to; from < n; from = to) {
    for (to = from + 1; to < n && compare_touches(list[from], list[to]) == 0;) to++;
    add_group(r, list + from, to - from);
  }
}

/* ---- those that were chosen ---- */
static bool is_chosen(const Words *l, const char *name) {
  bool chosen = words_choose_rest(l);
  for (int k = 0; k < l->n; k++)
    if (word_fits(l->word[k], name)) chosen = word_takes(l->word[k]);
  return chosen;
}

static const char *word_of_none(const PruneRelation *r, const Words *l) {
  for (int k = 0; k < l->n; k++) {
    bool any = false;
    for (int g = 0; g < r->groups.n; g++) any |= word_fits(l->word[k], r->groups.data[g].name);
    if (!any) return l->word[k];
  }
  return NULL;
}

const char *prune_only(PruneRelation *r, const char *list) {
  const Words l = words_split(r->a, list);
  const char *none = word_of_none(r, &l);
  int left = 0;
  for (int g = 0; g < r->groups.n; g++) {
    PruneGroup *group = &r->groups.data[g];
    const bool chosen = is_chosen(&l, group->name);
    for (int k = 0; k < group->units.n; k++) {
      PruneUnit *u = &r->units.data[group->units.data[k]];
      u->group = chosen ? left : -1;
      if (!chosen) r->frozen[u->root] = "--only leaves it out";
    }
    if (chosen) r->groups.data[left++] = *group;
  }
  r->groups.n = left;
  return none;
}

const char *prune_why_frozen(const PruneRelation *r, int slot, int dim) {
  for (int64_t i = prune_parts(r, slot, dim) - 1; i >= 0; i--) {
    const char *why = r->frozen[prune_root(r, prune_part(r, slot, dim, i))];
    if (why) return why;
  }
  return "they only go all together";
}
