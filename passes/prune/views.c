/* Rules of operators that give the same elements other dimensions, and what of their sizes is adjusted. */
#include <string.h>
#include "ir/op/ops.h"
#include "passes/prune/rules.h"

/* ---- sizes ---- */
/* What reads only sizes ties nothing, and says the new ones by itself. */
void relate_shape(PruneRelation *r, int node) {
  const int x = prune_slot(r, node, 0);
  for (int d = 0; d < r->nodes[node]->in[0]->rank; d++) prune_see(r, node, x, d);
}

void relate_expand(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int more = n->out[0]->rank - n->in[0]->rank;
  for (int d = 0; d < n->out[0]->rank; d++) {
    const bool repeated = d < more || expr_is_i64(n->in[0]->dims[d - more], 1);
    if (!prune_size(r, y, d)) continue; /* it is computed */
    if (!repeated)
      prune_tie_dims(r, node, x, d - more, y, d);
    else
      prune_see(r, node, y, d); /* as many copies as are needed */
  }
}

/* Sizes that are computed: the positive ones of `sizes` take their places in what computes them. */
static bool patch_sizes(const PruneCut *c, Node *n, int input, int64_t count,
                        const int64_t *sizes) {
  Model *m = c->r->m;
  Build b = {.m = m, .g = m->main, .before = n, .loc = n->loc, .ok = true};
  bool *known = ARENA_ARRAY(m->arena, bool, count + 1);
  for (int64_t d = 0; d < count; d++) known[d] = sizes[d] > 0;
  Value *in[] = {value_const(m, const_new(m, NULL, DT_BOOL, 1, &count, known)),
                 build_i64s(&b, (int)count, sizes), n->in[input]};
  n->in[input] = build_op(&b, "Where", 3, in, 0, NULL);
  return b.ok;
}

/* Where a vector of sizes is computed. */
static bool cut_computed(const PruneCut *c, Node *n, int input, int y) {
  const Value *v = n->in[input];
  int64_t count, sizes[MAX_RANK] = {0};
  const int rank = c->r->slots.data[y].value->rank;
  bool changed = false;
  if (v->cdata || !expr_is_const(v->dims[0], &count) || count > rank) return true;
  for (int k = 0; k < count; k++) {
    const int d = rank - (int)count + k;
    if (!prune_changes(c, y, d)) continue;
    sizes[k] = prune_count(c, y, d, 0, prune_size(c->r, y, d));
    changed = true;
  }
  return !changed || patch_sizes(c, n, input, count, sizes);
}

/* Elements of a constant vector of sizes, where they are those of the result's dimensions. */
static void cut_sizes(const PruneCut *c, Node *n, int node, int input, int y) {
  const int64_t *sizes;
  int count;
  const int rank = c->r->slots.data[y].value->rank;
  if (!rule_ints(n, input, &sizes, &count) || count > rank) return;
  int64_t *own = arena_dup(c->r->m->arena, sizes, sizeof *sizes * (size_t)count);
  for (int k = 0; k < count; k++) {
    const int d = rank - count + k;
    if (prune_changes(c, y, d) && sizes[k] == prune_size(c->r, y, d))
      own[k] = prune_count(c, y, d, 0, sizes[k]);
  }
  rule_set_ints(n, input, count, own);
}

bool cut_expand(const PruneCut *c, Node *n, int node) {
  const int y = prune_result_slot(c->r, node, 0);
  cut_sizes(c, n, node, 1, y);
  return cut_computed(c, n, 1, y);
}

/* All elements are equal. */
void relate_filled(PruneRelation *r, int node) {
  const int y = prune_result_slot(r, node, 0);
  for (int d = 0; d < r->nodes[node]->out[0]->rank; d++)
    if (prune_size(r, y, d)) prune_see(r, node, y, d);
}

bool cut_filled(const PruneCut *c, Node *n, int node) {
  return cut_computed(c, n, 0, prune_result_slot(c->r, node, 0));
}

bool cut_resize(const PruneCut *c, Node *n, int node) {
  if (node_in(n, 3) && !node_attr(n, "axes"))
    cut_sizes(c, n, node, 3, prune_result_slot(c->r, node, 0));
  return true;
}

/* ---- views ---- */
static void add_merge(PruneRelation *r, int node, int one, int one_dim, int many, int from,
                      int to) {
  prune_see(r, node, one, one_dim);
  for (int d = from; d < to; d++) prune_see(r, node, many, d);
  vec_push(r->a, &r->merges, (PruneMerge){node, one, one_dim, many, from, to, false});
}

/* Of two shapes of as many elements, the least parts behind i and j that have as many. False: none are
 * found. */
static bool next_block(Model *m, const Value *a, const Value *b, int *i, int *j) {
  const int rank_a = a->rank - *i, rank_b = b->rank - *j;
  const Expr *pa[MAX_RANK + 1] = {ex_i64(m->pool, 1)}, *pb[MAX_RANK + 1] = {pa[0]};
  for (int d = 0; d < rank_a; d++) pa[d + 1] = op_times(m, pa[d], a->dims[*i + d]);
  for (int d = 0; d < rank_b; d++) pb[d + 1] = op_times(m, pb[d], b->dims[*j + d]);
  for (int sum = 2; sum <= rank_a + rank_b; sum++)
    for (int k = 1; k < sum; k++)
      if (k <= rank_a && sum - k <= rank_b && pa[k] == pb[sum - k])
        return *i += k, *j += sum - k, true;
  return false;
}

static bool can_go(const PruneRelation *r, int slot, int dim) {
  for (int64_t i = prune_parts(r, slot, dim) - 1; i >= 0; i--)
    if (!r->frozen[prune_root(r, prune_part(r, slot, dim, i))]) return true;
  return false;
}

/* [8, 5] as [4, 10]: what is left of the outermost index. The other dimensions stay. */
static void tie_outermost(PruneRelation *r, int node, int coarse, int coarse_dim, int fine,
                          int fine_dim) {
  const int64_t few = prune_size(r, coarse, coarse_dim), many = prune_size(r, fine, fine_dim);
  if (!few || many % few) return;
  prune_see(r, node, coarse, coarse_dim);
  prune_see(r, node, fine, fine_dim);
  for (int64_t i = 0; i < many; i++)
    prune_tie(r, prune_atom(r, fine, fine_dim, i),
              prune_atom(r, coarse, coarse_dim, i / (many / few)));
}

typedef struct Part { /* dimensions [from, to) of a tensor */
  int slot, from, to;
} Part;

/* Each index goes with the one that is `period` behind it. */
static bool repeats(const PruneRelation *r, int slot, int dim, int64_t period) {
  for (int64_t i = prune_size(r, slot, dim) - 1; i >= period; i--)
    if (prune_root(r, prune_atom(r, slot, dim, i)) !=
        prune_root(r, prune_atom(r, slot, dim, i - period)))
      return false;
  return true;
}

/* [batch, 4 * 8] as [batch * 4, 8]: the last of x is the first of y, but for its batch, with what follows.
 * Of known sizes it is index b * 4 + h that goes, for all b. */
static bool tie_inner(PruneRelation *r, int node, Part x, Part y) {
  const Value *v = r->slots.data[y.slot].value;
  const int64_t all = prune_size(r, x.slot, x.to - 1), outer = prune_size(r, x.slot, x.from);
  int64_t inner = 1;
  for (int d = y.from + 1; d < y.to; d++) inner *= rule_dim(v, d) < 0 ? 0 : rule_dim(v, d);
  if (inner < 1 || all < 1 || all % inner) return false;
  const int64_t heads = all / inner;
  if (prune_size(r, y.slot, y.from) == 0 && prune_parts(r, y.slot, y.from) == heads) {
    add_merge(r, node, x.slot, x.to - 1, y.slot, y.from, y.to);
    return true;
  }
  if (heads < 2 || x.to != x.from + 2 || outer < 1 ||
      prune_size(r, y.slot, y.from) != outer * heads ||
      (can_go(r, x.slot, x.from) && !repeats(r, y.slot, y.from, heads)))
    return false;
  prune_see(r, node, x.slot, x.to - 1);
  prune_see(r, node, y.slot, y.from);
  for (int64_t b = 0; b < outer; b++)
    for (int64_t i = 0; i < all; i++)
      prune_tie(r, prune_atom(r, x.slot, x.to - 1, i),
                prune_atom(r, y.slot, y.from, b * heads + i / inner));
  return true;
}

static void tie_blocks(PruneRelation *r, int node, Part x, Part y) {
  if (tie_inner(r, node, x, y) || tie_inner(r, node, y, x)) return;
  if (prune_size(r, x.slot, x.from) < prune_size(r, y.slot, y.from))
    tie_outermost(r, node, x.slot, x.from, y.slot, y.from);
  else
    tie_outermost(r, node, y.slot, y.from, x.slot, x.from);
}

/* The dimension of x that has the open size of y's, at the same place, or one that is not counted by
 * what may go. -1: none. */
static int same_open_size(const PruneRelation *r, int node, int d) {
  const Value *x = r->nodes[node]->in[0], *y = r->nodes[node]->out[0];
  const int s = prune_slot(r, node, 0);
  if (d < x->rank && x->dims[d] == y->dims[d]) return d;
  for (int k = 0; k < x->rank; k++)
    if (x->dims[k] == y->dims[d] && (s < 0 || prune_parts(r, s, k) == 0)) return k;
  return -1;
}

/* More than one size must be computed from those of old: then none of them may change. */
static void keep_open_sizes(PruneRelation *r, int node) {
  const Value *x = r->nodes[node]->in[0], *y = r->nodes[node]->out[0];
  int open = 0;
  for (int d = 0; d < y->rank; d++) open += rule_dim(y, d) < 0 && same_open_size(r, node, d) < 0;
  for (int k = 0; k < 2 && open > 1 && !r->inside; k++) {
    const int s = k ? prune_result_slot(r, node, 0) : prune_slot(r, node, 0);
    const char *why = prune_because(r, node, "takes a size that is computed");
    for (int d = 0; d < (k ? y : x)->rank; d++)
      if (!prune_size(r, s, d)) prune_freeze(r, s, d, why);
  }
}

static int skip_ones(const Value *v, int d) {
  while (d < v->rank && expr_is_i64(v->dims[d], 1)) d++;
  return d;
}

void relate_view(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const Value *a = n->in[0], *b = n->out[0];
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  keep_open_sizes(r, node);
  for (int i = skip_ones(a, 0), j = skip_ones(b, 0); i < a->rank && j < b->rank;) {
    int end_i = i, end_j = j;
    if (!next_block(r->m, a, b, &end_i, &end_j)) return; /* the rest is frozen */
    if (end_i == i + 1 && end_j == j + 1)
      prune_tie_dims(r, node, x, i, y, j);
    else if (end_j == j + 1)
      add_merge(r, node, y, j, x, i, end_i);
    else if (end_i == i + 1)
      add_merge(r, node, x, i, y, j, end_j);
    else
      tie_blocks(r, node, (Part){x, i, end_i}, (Part){y, j, end_j});
    i = skip_ones(a, end_i);
    j = skip_ones(b, end_j);
  }
}

/* With sizes of other dimensions of the input where `from` has them. */
static bool join_sizes(const PruneCut *c, Node *n, const int *from, const int64_t *shape) {
  Model *m = c->r->m;
  Build b = {.m = m, .g = m->main, .before = n, .loc = n->loc, .ok = true};
  const int rank = n->out[0]->rank;
  Value **parts = ARENA_ARRAY(m->arena, Value *, rank);
  const Attr axis = attr_int(m->arena, "axis", 0);
  for (int d = 0; d < rank && b.ok; d++)
    parts[d] = from[d] >= 0 ? build_shape(&b, n->in[0], from[d], from[d] + 1)
                            : build_i64s(&b, 1, &shape[d]);
  if (b.ok) n->in[1] = build_op(&b, "Concat", rank, parts, 1, &axis);
  return b.ok;
}

/* The new shape: sizes, 0 where one is the input's, and -1 for one that is not known. */
bool cut_reshape(const PruneCut *c, Node *n, int node) {
  const Value *x = n->in[0], *y = n->out[0];
  const int to = prune_result_slot(c->r, node, 0), from = prune_slot(c->r, node, 0);
  int64_t shape[MAX_RANK];
  int source[MAX_RANK]; /* dimension of the input that an open size is taken of; -1: of none */
  bool changed = false, joined = false;
  int open = 0;
  for (int d = 0; d < y->rank; d++) changed |= prune_changes(c, to, d);
  for (int d = 0; d < x->rank; d++) changed |= prune_changes(c, from, d);
  if (!changed) return true;
  for (int d = 0; d < y->rank; d++) {
    const int64_t size = rule_dim(y, d);
    const int same = size < 0 ? same_open_size(c->r, node, d) : -1;
    source[d] = same == d ? -1 : same;
    joined |= source[d] >= 0;
    if (size == 0)
      return op_error(c->r->m, n, ERR_UNSUPPORTED, "a size of 0 cannot be pruned around");
    shape[d] = size < 0                  ? (same >= 0 ? 0 : -1)
               : prune_size(c->r, to, d) ? prune_count(c, to, d, 0, size)
                                         : size;
    open += shape[d] == -1;
  }
  if (open > 1) return patch_sizes(c, n, 1, y->rank, shape);
  for (int k = 0; k < n->n_attrs; k++)
    if (strcmp(n->attrs[k].name, "allowzero") == 0) n->attrs[k] = n->attrs[--n->n_attrs];
  if (joined) return join_sizes(c, n, source, shape);
  rule_set_ints(n, 1, y->rank, shape);
  return true;
}

/* ---- which of several dimensions a merged one follows ---- */
/* Index i of the merged dimension goes with index i / inner % size of this one. */
typedef struct Factor {
  int64_t inner, size;
} Factor;

static Factor factor_of(const PruneRelation *r, const PruneMerge *g, int dim) {
  const Value *v = r->slots.data[g->many_slot].value;
  Factor f = {.inner = 1, .size = prune_parts(r, g->many_slot, dim)};
  for (int d = dim + 1; d < g->to; d++) f.inner *= rule_dim(v, d) < 0 ? 0 : rule_dim(v, d);
  return f;
}

/* Are there indices of this one that need not go together, as far as the merged one is tied already? */
static bool leaves_a_choice(const PruneRelation *r, const PruneMerge *g, int dim) {
  const Factor f = factor_of(r, g, dim);
  const int64_t n = prune_parts(r, g->one_slot, g->one_dim);
  int32_t *label = ARENA_ARRAY(r->a, int32_t, f.size + 1); /* the least root that it is tied to */
  int32_t *of_root = ARENA_ARRAY(r->a, int32_t, r->n_atoms + 1);
  if (f.inner < 1 || f.size < 2) return false;
  for (int64_t k = 0; k < f.size; k++) label[k] = INT32_MAX;
  for (int32_t k = 0; k < r->n_atoms; k++) of_root[k] = k;
  for (bool changed = true; changed;) {
    changed = false;
    for (int64_t i = 0; i < n; i++) {
      const int32_t root = prune_root(r, prune_part(r, g->one_slot, g->one_dim, i));
      int32_t *a = &label[i / f.inner % f.size], *b = &of_root[root];
      const int32_t least = *a < *b ? *a : *b;
      changed |= *a != least || *b != least;
      *a = *b = least;
    }
  }
  for (int64_t k = 1; k < f.size; k++)
    if (label[k] != label[0]) return true;
  return false;
}

/* The outermost that can go; of several one that leaves a choice, where there is one. */
static int candidates(const PruneRelation *r, const PruneMerge *g, int *first) {
  int n = 0, last = -1;
  *first = -1;
  /* Inside of an operator the last one is the size of a head, which it does not let go. */
  for (int d = g->to - 1 - r->inside; d >= g->from; d--)
    if (can_go(r, g->many_slot, d)) last = d, n++;
  for (int d = last; d >= 0 && d < g->to && n > 1 && *first < 0; d++)
    if (can_go(r, g->many_slot, d) && leaves_a_choice(r, g, d)) *first = d;
  if (*first < 0) *first = last;
  return n;
}

static const char *why_not(const PruneRelation *r, const PruneMerge *g, int dim) {
  int first = g->from; /* of several that cannot go the outermost tells why */
  while (first < g->to - 1 && !prune_parts(r, g->many_slot, first)) first++;
  if (dim < 0 && !can_go(r, g->many_slot, first) && prune_parts(r, g->many_slot, first))
    return prune_why_frozen(r, g->many_slot, first);
  return prune_because(r, g->node, "makes one dimension of several: another one of them goes");
}

static void follow(PruneRelation *r, PruneMerge *g, int dim) {
  const char *why = why_not(r, g, dim);
  g->done = true;
  for (int d = g->from; d < g->to; d++)
    if (d != dim) prune_freeze(r, g->many_slot, d, why);
  const Factor f = dim < 0 ? (Factor){0} : factor_of(r, g, dim);
  if (f.inner < 1 || f.size < 1 || !prune_parts(r, g->one_slot, g->one_dim)) {
    if (dim >= 0) prune_freeze(r, g->many_slot, dim, why);
    prune_freeze(r, g->one_slot, g->one_dim, why);
    return;
  }
  for (int64_t i = prune_parts(r, g->one_slot, g->one_dim) - 1; i >= 0; i--)
    prune_tie(r, prune_part(r, g->one_slot, g->one_dim, i),
              prune_part(r, g->many_slot, dim, i / f.inner % f.size));
}

void prune_resolve_merges(PruneRelation *r) {
  for (int left = r->merges.n; left > 0;) {
    PruneMerge *open = NULL; /* the first with a choice: its outermost dimension */
    int dim, outermost = -1, before = left;
    for (int i = 0; i < r->merges.n; i++) {
      PruneMerge *g = &r->merges.data[i];
      if (g->done) continue;
      const bool decided = candidates(r, g, &dim) < 2 || !can_go(r, g->one_slot, g->one_dim);
      if (decided)
        follow(r, g, dim), left--;
      else if (!open)
        open = g, outermost = dim;
    }
    if (left == before && open) follow(r, open, outermost), left--;
  }
}
