/* Rules of operators that move channels to other places, and what must be adjusted where some are gone. */
#include <string.h>
#include "ir/op/ops.h"
#include "passes/prune/prune.h"

/* ---- what rules ask ---- */
static const Node *node_at(const PruneRelation *r, int node) {
  return r->m->main->nodes.data[node];
}

static int64_t known_dim(const Value *v, int d) {
  int64_t n;
  return v && d < v->rank && expr_is_const(v->dims[d], &n) ? n : -1;
}

static int axis_of(const Node *n, const char *name, int64_t def, int rank) {
  const int64_t axis = node_int(n, name, def);
  return (int)(axis < 0 ? axis + rank : axis);
}

/* Constant integers of an input; false: absent, or only known when the model runs. */
static bool known_ints(const Node *n, int k, const int64_t **v, int *count) {
  const Value *in = node_in(n, k);
  if (!in || !in->cdata || !dtype_is_int(in->dtype) || in->rank > 1) return false;
  int64_t *list = ARENA_ARRAY(n->graph->model->arena, int64_t, in->cdata->count + 1);
  for (int64_t i = 0; i < in->cdata->count; i++) list[i] = const_int(in->cdata, i);
  *v = list;
  *count = (int)in->cdata->count;
  return true;
}

/* Small constants in front of it: starts, sizes, pads. What they say is adjusted as a whole. */
static void set_ints(Node *n, int k, int count, const int64_t *v) {
  n->in[k] = value_const_i64s(n->graph->model, 1, count, v);
}

/* Dimensions other than `axis` of input k go with those of the result, by position. */
static void tie_others(PruneRelation *r, int node, int k, int out, int axis) {
  const Node *n = node_at(r, node);
  const int s = prune_slot(r, node, k), to = prune_result_slot(r, node, out);
  for (int d = 0; s >= 0 && to >= 0 && d < n->in[k]->rank; d++)
    if (d != axis) prune_tie_dims(r, node, s, d, to, d);
}

static const char *because(const PruneRelation *r, int node, const char *what) {
  const Node *n = node_at(r, node);
  return arena_printf(r->a, "%s \"%s\" %s", n->op->name, prune_node_name(r->a, n), what);
}

/* ---- convolutions ---- */
/* Channels of x that group g reads go with all results of it. */
static void tie_conv_groups(PruneRelation *r, int node, int64_t groups) {
  const Node *n = node_at(r, node);
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int64_t in = known_dim(n->in[0], 1), out = known_dim(n->out[0], 1);
  for (int64_t g = 0; g < groups; g++) {
    const int32_t first = prune_atom(r, x, 1, g * (in / groups));
    for (int64_t i = 1; i < in / groups; i++)
      prune_tie(r, first, prune_atom(r, x, 1, g * (in / groups) + i));
    for (int64_t i = 0; i < out / groups; i++)
      prune_tie(r, first, prune_atom(r, y, 1, g * (out / groups) + i));
  }
  prune_see(r, node, x, 1);
  prune_see(r, node, y, 1);
}

static void relate_conv(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const bool transposed = strcmp(n->op->name, "ConvTranspose") == 0;
  const int64_t groups = node_int(n, "group", 1);
  const int x = prune_slot(r, node, 0), w = prune_slot(r, node, 1), b = prune_slot(r, node, 2),
            y = prune_result_slot(r, node, 0);
  const int in_dim = transposed ? 0 : 1, out_dim = transposed ? 1 : 0;
  prune_tie_dims(r, node, x, 0, y, 0);
  if (b >= 0) prune_tie_dims(r, node, b, 0, y, 1);
  if (groups > 1) {
    tie_conv_groups(r, node, groups);
    if (transposed)
      prune_tie_dims(r, node, w, 0, x, 1);
    else
      prune_tie_dims(r, node, w, 0, y, 1);
    return;
  }
  prune_tie_dims(r, node, w, out_dim, y, 1);
  if (!n->in[1]->cdata) return; /* what remains is frozen */
  prune_tie_dims(r, node, w, in_dim, x, 1);
  prune_add_product(r, node, w, in_dim);
}

/* A number of groups shrinks as the channels do: whole groups went. */
static bool cut_count(const PruneCut *c, Node *n, int node, const char *name) {
  const int x = prune_slot(c->r, node, 0);
  const int64_t groups = node_int(n, name, 1), all = prune_size(c->r, x, 1);
  if (groups > 1 && all > 0) node_set_int(n, name, groups * prune_count(c, x, 1, 0, all) / all);
  return true;
}
static bool cut_group(const PruneCut *c, Node *n, int node) {
  return cut_count(c, n, node, "group");
}

/* ---- GroupNormalization: whole groups ---- */
static void relate_group_norm(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  prune_tie_dims(r, node, x, 0, y, 0);
  prune_tie_dims(r, node, prune_slot(r, node, 1), 0, y, 1);
  prune_tie_dims(r, node, prune_slot(r, node, 2), 0, y, 1);
  tie_conv_groups(r, node, node_int(n, "num_groups", 1));
  prune_tie_dims(r, node, x, 1, y, 1);
}
static bool cut_norm_groups(const PruneCut *c, Node *n, int node) {
  return cut_count(c, n, node, "num_groups");
}

/* ---- Concat, Split, Slice, Pad, Gather ---- */
static void relate_concat(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const int axis = axis_of(n, "axis", 0, n->out[0]->rank), y = prune_result_slot(r, node, 0);
  int64_t at = 0;
  for (int k = 0; k < n->n_in; k++) {
    const int64_t size = known_dim(n->in[k], axis);
    tie_others(r, node, k, 0, axis);
    if (size < 0) return; /* where the others begin is not known */
    if (size > 1)
      prune_tie_range(r, node, prune_slot(r, node, k), axis, 0, y, axis, at, size);
    else if (size == 1 && prune_size(r, y, axis)) /* a piece of one element stays */
      prune_tie(r, -1, prune_atom(r, y, axis, at));
    at += size;
  }
}

static void relate_split(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const int axis = axis_of(n, "axis", 0, n->in[0]->rank), x = prune_slot(r, node, 0);
  int64_t at = 0;
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    const int64_t size = known_dim(n->out[k], axis);
    tie_others(r, node, 0, k, axis);
    if (size < 0) return;
    const int y = prune_result_slot(r, node, k);
    if (size > 1) prune_tie_range(r, node, x, axis, at, y, axis, 0, size);
    if (size == 1) prune_tie(r, prune_atom(r, x, axis, at), -1);
    at += size;
  }
}

static bool cut_split(const PruneCut *c, Node *n, int node) {
  const int axis = axis_of(n, "axis", 0, n->in[0]->rank), x = prune_slot(c->r, node, 0);
  int64_t *sizes = ARENA_ARRAY(c->r->m->arena, int64_t, n->n_out + 1), at = 0;
  if (!prune_changes(c, x, axis)) return true;
  for (int k = 0; k < n->n_out; k++) {
    const int64_t size = known_dim(n->out[k], axis);
    sizes[k] = prune_count(c, x, axis, at, at + size);
    at += size;
  }
  Value **in = ARENA_ARRAY(c->r->m->arena, Value *, 2);
  in[0] = n->in[0];
  n->in = in;
  n->n_in = 2;
  set_ints(n, 1, n->n_out, sizes);
  for (int k = 0; k < n->n_attrs; k++)
    if (strcmp(n->attrs[k].name, "num_outputs") == 0) n->attrs[k] = n->attrs[--n->n_attrs];
  return true;
}

/* Position of an axis among those that Slice or Pad names; all in order where it names none. */
static int named_axis(const Node *n, int input, int rank, int axis, bool *known) {
  const int64_t *axes;
  int count;
  *known = true;
  if (!node_in(n, input)) return axis;
  if (!(*known = known_ints(n, input, &axes, &count))) return -1;
  for (int i = 0; i < count; i++)
    if ((axes[i] < 0 ? axes[i] + rank : axes[i]) == axis) return i;
  return -1;
}

/* Slice of step 1 from `from` on; false: the axis is taken in another way. */
static bool slice_from(const Node *n, int axis, bool *whole, int64_t *from) {
  const int64_t *starts, *steps, size = known_dim(n->in[0], axis);
  int count, step_count;
  bool known;
  const int i = named_axis(n, 3, n->in[0]->rank, axis, &known);
  *whole = known && (i < 0 || (size >= 0 && known_dim(n->out[0], axis) == size));
  *from = 0;
  if (!known) return false;
  if (node_in(n, 4) &&
      (!known_ints(n, 4, &steps, &step_count) || (i >= 0 && i < step_count && steps[i] != 1)))
    return *whole = false;
  if (*whole) return true;
  if (!known_ints(n, 1, &starts, &count) || i >= count || size < 0) return false;
  *from = starts[i] < 0 ? starts[i] + size : starts[i];
  *from = *from < 0 ? 0 : *from > size ? size : *from;
  return known_dim(n->out[0], axis) >= 0;
}

static void relate_slice(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  for (int d = 0; d < n->in[0]->rank; d++) {
    bool whole;
    int64_t from;
    if (!slice_from(n, d, &whole, &from)) continue; /* it is frozen */
    if (whole)
      prune_tie_dims(r, node, x, d, y, d);
    else
      prune_tie_range(r, node, x, d, from, y, d, 0, known_dim(n->out[0], d));
  }
}

static bool cut_slice(const PruneCut *c, Node *n, int node) {
  const int rank = n->in[0]->rank, x = prune_slot(c->r, node, 0);
  const int64_t *starts, *ends;
  int count, end_count;
  if (!known_ints(n, 1, &starts, &count) || !known_ints(n, 2, &ends, &end_count)) return true;
  int64_t *from = arena_dup(c->r->m->arena, starts, sizeof *starts * (size_t)count),
          *to = arena_dup(c->r->m->arena, ends, sizeof *ends * (size_t)end_count);
  for (int d = 0; d < rank; d++) {
    bool known, whole;
    int64_t first;
    const int i = named_axis(n, 3, rank, d, &known);
    if (i < 0 || i >= count || !prune_changes(c, x, d) || !slice_from(n, d, &whole, &first))
      continue;
    from[i] = prune_count(c, x, d, 0, first);
    to[i] = from[i] + prune_count(c, x, d, first, first + known_dim(n->out[0], d));
  }
  set_ints(n, 1, count, from);
  set_ints(n, 2, end_count, to);
  return true;
}

/* Elements in front of an axis of Pad, and behind it; false: not known. */
static bool pad_around(const Node *n, int axis, int64_t *lo, int64_t *hi) {
  const int64_t *pads;
  int count;
  bool known;
  const int i = named_axis(n, 3, n->in[0]->rank, axis, &known);
  *lo = *hi = 0;
  if (!known || !known_ints(n, 1, &pads, &count)) return false;
  if (i < 0 || i >= count / 2) return i < 0;
  *lo = pads[i];
  *hi = pads[count / 2 + i];
  return true;
}

static void relate_pad(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const bool constant = strcmp(node_string(n, "mode", "constant"), "constant") == 0;
  for (int d = 0; d < n->in[0]->rank; d++) {
    int64_t lo, hi;
    if (!pad_around(n, d, &lo, &hi)) continue;
    if (lo == 0 && hi == 0)
      prune_tie_dims(r, node, x, d, y, d);
    else if (constant && lo >= 0 && hi >= 0 && prune_size(r, x, d))
      prune_tie_range(r, node, x, d, 0, y, d, lo, prune_size(r, x, d));
  }
}

static bool cut_pad(const PruneCut *c, Node *n, int node) {
  const int y = prune_result_slot(c->r, node, 0);
  const int64_t *pads;
  int count;
  if (!known_ints(n, 1, &pads, &count)) return true;
  int64_t *own = arena_dup(c->r->m->arena, pads, sizeof *pads * (size_t)count);
  for (int d = 0; d < n->in[0]->rank; d++) {
    int64_t lo, hi;
    bool known;
    const int i = named_axis(n, 3, n->in[0]->rank, d, &known);
    const int64_t size = prune_size(c->r, y, d);
    if (i < 0 || !prune_changes(c, y, d) || !pad_around(n, d, &lo, &hi)) continue;
    own[i] = prune_count(c, y, d, 0, lo);
    own[count / 2 + i] = prune_count(c, y, d, size - hi, size);
  }
  set_ints(n, 1, count, own);
  return true;
}

/* Constant positions along an axis: one, which must stay, or a row of them. */
static void relate_gather(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const int rank = n->in[0]->rank, axis = axis_of(n, "axis", 0, rank);
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int64_t *at, size = prune_size(r, x, axis);
  int count;
  if (!known_ints(n, 1, &at, &count) || !size) {
    prune_derive(r, node);
    return;
  }
  const int more = n->in[1]->rank - 1;
  for (int d = 0; d < rank; d++)
    if (d != axis) prune_tie_dims(r, node, x, d, y, d < axis ? d : d + more);
  prune_see(r, node, x, axis);
  if (more >= 0) prune_see(r, node, y, axis);
  for (int i = 0; i < count; i++)
    prune_tie(r, prune_atom(r, x, axis, at[i] < 0 ? at[i] + size : at[i]),
              more < 0 || count == 1 ? -1 : prune_atom(r, y, axis, i));
}

static bool cut_gather(const PruneCut *c, Node *n, int node) {
  const int axis = axis_of(n, "axis", 0, n->in[0]->rank), x = prune_slot(c->r, node, 0);
  const int64_t *at, size = prune_size(c->r, x, axis);
  int count, kept = 0;
  if (!prune_changes(c, x, axis) || !known_ints(n, 1, &at, &count)) return true;
  int64_t *own = ARENA_ARRAY(c->r->m->arena, int64_t, count + 1);
  for (int i = 0; i < count; i++) {
    const int64_t k = at[i] < 0 ? at[i] + size : at[i];
    if (prune_stays(c, x, axis, k)) own[kept++] = prune_count(c, x, axis, 0, k);
  }
  n->in[1] = value_const_i64s(c->r->m, n->in[1]->rank, kept, own);
  return true;
}

/* ---- channels and pixels ---- */
static void relate_depth(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const bool to_space = strcmp(n->op->name, "DepthToSpace") == 0;
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int many = to_space ? x : y, few = to_space ? y : x;
  const int64_t block = node_int(n, "blocksize", 1), taps = block * block,
                channels = known_dim(to_space ? n->out[0] : n->in[0], 1);
  const bool rows = to_space && strcmp(node_string(n, "mode", "DCR"), "CRD") == 0;
  prune_tie_dims(r, node, x, 0, y, 0);
  prune_see(r, node, x, 1);
  prune_see(r, node, y, 1);
  for (int64_t k = 0; k < channels; k++)
    for (int64_t i = 0; i < taps; i++)
      prune_tie(r, prune_atom(r, many, 1, rows ? k * taps + i : i * channels + k),
                prune_atom(r, few, 1, k));
}

/* ---- sizes ---- */
/* What reads only sizes ties nothing, and says the new ones by itself. */
static void relate_shape(PruneRelation *r, int node) {
  const int x = prune_slot(r, node, 0);
  for (int d = 0; d < node_at(r, node)->in[0]->rank; d++) prune_see(r, node, x, d);
}

static void relate_expand(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int more = n->out[0]->rank - n->in[0]->rank;
  for (int d = 0; d < n->out[0]->rank; d++) {
    const bool repeated = d < more || expr_is_i64(n->in[0]->dims[d - more], 1);
    if (!repeated)
      prune_tie_dims(r, node, x, d - more, y, d);
    else if (node_in(n, 1)->cdata)
      prune_see(r, node, y, d); /* as many copies as are needed */
  }
}

/* Elements of a constant vector of sizes, where they are those of the result's dimensions. */
static void cut_sizes(const PruneCut *c, Node *n, int node, int input, int y) {
  const int64_t *sizes;
  int count;
  const int rank = c->r->slots.data[y].value->rank;
  if (!known_ints(n, input, &sizes, &count) || count > rank) return;
  int64_t *own = arena_dup(c->r->m->arena, sizes, sizeof *sizes * (size_t)count);
  for (int k = 0; k < count; k++) {
    const int d = rank - count + k;
    if (prune_changes(c, y, d) && sizes[k] == prune_size(c->r, y, d))
      own[k] = prune_count(c, y, d, 0, sizes[k]);
  }
  set_ints(n, input, count, own);
}

static bool cut_expand(const PruneCut *c, Node *n, int node) {
  return cut_sizes(c, n, node, 1, prune_result_slot(c->r, node, 0)), true;
}

static bool cut_resize(const PruneCut *c, Node *n, int node) {
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

static int skip_ones(const Value *v, int d) {
  while (d < v->rank && expr_is_i64(v->dims[d], 1)) d++;
  return d;
}

static void relate_view(PruneRelation *r, int node) {
  const Node *n = node_at(r, node);
  const Value *a = n->in[0], *b = n->out[0];
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  for (int i = skip_ones(a, 0), j = skip_ones(b, 0); i < a->rank && j < b->rank;) {
    int end_i = i, end_j = j;
    if (!next_block(r->m, a, b, &end_i, &end_j)) return; /* the rest is frozen */
    if (end_i == i + 1 && end_j == j + 1)
      prune_tie_dims(r, node, x, i, y, j);
    else if (end_j == j + 1)
      add_merge(r, node, y, j, x, i, end_i);
    else if (end_i == i + 1)
      add_merge(r, node, x, i, y, j, end_j);
    i = skip_ones(a, end_i);
    j = skip_ones(b, end_j);
  }
}

/* Some sizes are only known when the model runs: the others take their places in what computes them. */
static bool patch_shape(const PruneCut *c, Node *n, const int64_t *shape) {
  Model *m = c->r->m;
  const int64_t rank = n->out[0]->rank;
  Build b = {.m = m, .g = m->main, .before = n, .loc = n->loc, .ok = true};
  bool *known = ARENA_ARRAY(m->arena, bool, rank + 1);
  for (int64_t d = 0; d < rank; d++) known[d] = shape[d] > 0;
  Value *in[] = {value_const(m, const_new(m, NULL, DT_BOOL, 1, &rank, known)),
                 build_i64s(&b, (int)rank, shape), n->in[1]};
  n->in[1] = build_op(&b, "Where", 3, in, 0, NULL);
  return b.ok;
}

/* The new shape: sizes, 0 where one is the input's, and -1 for one that is not known. */
static bool cut_reshape(const PruneCut *c, Node *n, int node) {
  const Value *x = n->in[0], *y = n->out[0];
  const int to = prune_result_slot(c->r, node, 0), from = prune_slot(c->r, node, 0);
  int64_t shape[MAX_RANK];
  bool changed = false;
  int open = 0;
  for (int d = 0; d < y->rank; d++) changed |= prune_changes(c, to, d);
  for (int d = 0; d < x->rank; d++) changed |= prune_changes(c, from, d);
  if (!changed) return true;
  for (int d = 0; d < y->rank; d++) {
    const int64_t size = known_dim(y, d);
    const bool copied = d < x->rank && x->dims[d] == y->dims[d];
    if (size == 0)
      return op_error(c->r->m, n, ERR_UNSUPPORTED, "a size of 0 cannot be pruned around");
    shape[d] = size < 0                  ? (copied ? 0 : -1)
               : prune_size(c->r, to, d) ? prune_count(c, to, d, 0, size)
                                         : size;
    open += shape[d] == -1;
  }
  if (open > 1) return patch_shape(c, n, shape);
  for (int k = 0; k < n->n_attrs; k++)
    if (strcmp(n->attrs[k].name, "allowzero") == 0) n->attrs[k] = n->attrs[--n->n_attrs];
  set_ints(n, 1, y->rank, shape);
  return true;
}

/* ---- which of several dimensions a merged one follows ---- */
static bool can_go(const PruneRelation *r, int slot, int dim) {
  for (int64_t i = prune_size(r, slot, dim) - 1; i >= 0; i--)
    if (!r->frozen[prune_root(r, prune_atom(r, slot, dim, i))]) return true;
  return false;
}

static int candidates(const PruneRelation *r, const PruneMerge *g, int *first) {
  int n = 0;
  *first = -1;
  for (int d = g->to - 1; d >= g->from; d--)
    if (can_go(r, g->many_slot, d)) *first = d, n++;
  return n;
}

static void follow(PruneRelation *r, PruneMerge *g, int dim) {
  const Value *v = r->slots.data[g->many_slot].value;
  const char *why = because(r, g->node, "makes one dimension of several: another one of them goes");
  int64_t inner = 1;
  g->done = true;
  for (int d = g->from; d < g->to; d++)
    if (d != dim) prune_freeze(r, g->many_slot, d, why);
  for (int d = dim + 1; d < g->to; d++) inner *= known_dim(v, d) < 0 ? 0 : known_dim(v, d);
  const int64_t size = dim < 0 ? 0 : known_dim(v, dim);
  if (inner < 1 || size < 1 || !prune_size(r, g->one_slot, g->one_dim)) {
    if (dim >= 0) prune_freeze(r, g->many_slot, dim, why);
    prune_freeze(r, g->one_slot, g->one_dim, why);
    return;
  }
  for (int64_t i = prune_size(r, g->one_slot, g->one_dim) - 1; i >= 0; i--)
    prune_tie(r, prune_atom(r, g->one_slot, g->one_dim, i),
              prune_atom(r, g->many_slot, dim, i / inner % size));
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

/* ---- the table ---- */
static const PruneRule rules[] = {{"Conv", relate_conv, cut_group},
                                  {"ConvTranspose", relate_conv, cut_group},
                                  {"GroupNormalization", relate_group_norm, cut_norm_groups},
                                  {"Concat", relate_concat, NULL},
                                  {"Split", relate_split, cut_split},
                                  {"Slice", relate_slice, cut_slice},
                                  {"Pad", relate_pad, cut_pad},
                                  {"Gather", relate_gather, cut_gather},
                                  {"DepthToSpace", relate_depth, NULL},
                                  {"SpaceToDepth", relate_depth, NULL},
                                  {"Shape", relate_shape, NULL},
                                  {"Size", relate_shape, NULL},
                                  {"Expand", relate_expand, cut_expand},
                                  {"Resize", NULL, cut_resize},
                                  {"Reshape", relate_view, cut_reshape},
                                  {"Flatten", relate_view, NULL},
                                  {"Squeeze", relate_view, NULL},
                                  {"Unsqueeze", relate_view, NULL}};

const PruneRule *prune_rule(const Node *n) {
  if (*n->op->domain) return NULL;
  for (size_t k = 0; k < sizeof rules / sizeof *rules; k++)
    if (strcmp(rules[k].op, n->op->name) == 0) return &rules[k];
  return NULL;
}
