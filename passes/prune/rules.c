/* Rules of operators that move channels to other places, and what must be adjusted where some are gone. */
#include "passes/prune/rules.h"
#include <string.h>
#include "ir/op/ops.h"

/* ---- what rules ask ---- */
int64_t rule_dim(const Value *v, int d) {
  int64_t n;
  return v && d < v->rank && expr_is_const(v->dims[d], &n) ? n : -1;
}

int rule_axis(const Node *n, const char *name, int64_t def, int rank) {
  const int64_t axis = node_int(n, name, def);
  return (int)(axis < 0 ? axis + rank : axis);
}

bool rule_ints(const Node *n, int k, const int64_t **v, int *count) {
  const Value *in = node_in(n, k);
  if (!in || !in->cdata || !dtype_is_int(in->dtype) || in->rank > 1) return false;
  int64_t *list = ARENA_ARRAY(n->graph->model->arena, int64_t, in->cdata->count + 1);
  for (int64_t i = 0; i < in->cdata->count; i++) list[i] = const_int(in->cdata, i);
  *v = list;
  *count = (int)in->cdata->count;
  return true;
}

void rule_set_ints(Node *n, int k, int count, const int64_t *v) {
  n->in[k] = value_const_i64s(n->graph->model, 1, count, v);
}

/* Dimensions other than `axis` of input k go with those of the result, by position. */
static void tie_others(PruneRelation *r, int node, int k, int out, int axis) {
  const Node *n = r->nodes[node];
  const int s = prune_slot(r, node, k), to = prune_result_slot(r, node, out);
  for (int d = 0; s >= 0 && to >= 0 && d < n->in[k]->rank; d++)
    if (d != axis) prune_tie_dims(r, node, s, d, to, d);
}

/* ---- Concat, Split, Slice, Pad, Gather ---- */
static void relate_concat(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int axis = rule_axis(n, "axis", 0, n->out[0]->rank), y = prune_result_slot(r, node, 0);
  int64_t at = 0; /* negative: behind a piece whose size is not known */
  for (int k = 0; k < n->n_in; k++) {
    const int64_t size = rule_dim(n->in[k], axis);
    tie_others(r, node, k, 0, axis);
    if (size < 0 || at < 0)
      at = -1;
    else if (size > 1)
      prune_tie_range(r, node, prune_slot(r, node, k), axis, 0, y, axis, at, size);
    else if (size == 1 && prune_size(r, y, axis)) /* a piece of one element stays */
      prune_tie(r, -1, prune_atom(r, y, axis, at));
    if (at >= 0) at += size;
  }
}

static void relate_split(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int axis = rule_axis(n, "axis", 0, n->in[0]->rank), x = prune_slot(r, node, 0);
  int64_t at = 0;
  for (int k = 0; k < n->n_out; k++) {
    const int64_t size = rule_dim(n->out[k], axis); /* of one that nobody wants not known */
    if (size < 0) return;
    tie_others(r, node, 0, k, axis);
    const int y = prune_result_slot(r, node, k);
    if (size > 1) prune_tie_range(r, node, x, axis, at, y, axis, 0, size);
    if (size == 1) prune_tie(r, prune_atom(r, x, axis, at), -1);
    at += size;
  }
}

static bool cut_split(const PruneCut *c, Node *n, int node) {
  const int axis = rule_axis(n, "axis", 0, n->in[0]->rank), x = prune_slot(c->r, node, 0);
  int64_t *sizes = ARENA_ARRAY(c->r->m->arena, int64_t, n->n_out + 1), at = 0;
  if (!prune_changes(c, x, axis)) return true;
  for (int k = 0; k < n->n_out; k++) {
    const int64_t size = rule_dim(n->out[k], axis);
    sizes[k] = prune_count(c, x, axis, at, at + size);
    at += size;
  }
  Value **in = ARENA_ARRAY(c->r->m->arena, Value *, 2);
  in[0] = n->in[0];
  n->in = in;
  n->n_in = 2;
  rule_set_ints(n, 1, n->n_out, sizes);
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
  if (!(*known = rule_ints(n, input, &axes, &count))) return -1;
  for (int i = 0; i < count; i++)
    if ((axes[i] < 0 ? axes[i] + rank : axes[i]) == axis) return i;
  return -1;
}

/* Slice of step 1 from `from` on; false: the axis is taken in another way. */
static bool slice_from(const Node *n, int axis, bool *whole, int64_t *from) {
  const int64_t *starts, *steps, size = rule_dim(n->in[0], axis);
  int count, step_count;
  bool known;
  const int i = named_axis(n, 3, n->in[0]->rank, axis, &known);
  *whole = known && (i < 0 || (size >= 0 && rule_dim(n->out[0], axis) == size));
  *from = 0;
  if (!known) return false;
  if (node_in(n, 4) &&
      (!rule_ints(n, 4, &steps, &step_count) || (i >= 0 && i < step_count && steps[i] != 1)))
    return *whole = false;
  if (*whole) return true;
  if (!rule_ints(n, 1, &starts, &count) || i >= count || size < 0) return false;
  *from = starts[i] < 0 ? starts[i] + size : starts[i];
  *from = *from < 0 ? 0 : *from > size ? size : *from;
  return rule_dim(n->out[0], axis) >= 0;
}

static void relate_slice(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  for (int d = 0; d < n->in[0]->rank; d++) {
    bool whole;
    int64_t from;
    if (!slice_from(n, d, &whole, &from)) continue; /* it is frozen */
    if (whole)
      prune_tie_dims(r, node, x, d, y, d);
    else
      prune_tie_range(r, node, x, d, from, y, d, 0, rule_dim(n->out[0], d));
  }
}

static bool cut_slice(const PruneCut *c, Node *n, int node) {
  const int rank = n->in[0]->rank, x = prune_slot(c->r, node, 0);
  const int64_t *starts, *ends;
  int count, end_count;
  if (!rule_ints(n, 1, &starts, &count) || !rule_ints(n, 2, &ends, &end_count)) return true;
  int64_t *from = arena_dup(c->r->m->arena, starts, sizeof *starts * (size_t)count),
          *to = arena_dup(c->r->m->arena, ends, sizeof *ends * (size_t)end_count);
  for (int d = 0; d < rank; d++) {
    bool known, whole;
    int64_t first;
    const int i = named_axis(n, 3, rank, d, &known);
    if (i < 0 || i >= count || !prune_changes(c, x, d) || !slice_from(n, d, &whole, &first))
      continue;
    from[i] = prune_count(c, x, d, 0, first);
    to[i] = from[i] + prune_count(c, x, d, first, first + rule_dim(n->out[0], d));
  }
  rule_set_ints(n, 1, count, from);
  rule_set_ints(n, 2, end_count, to);
  return true;
}

/* Elements in front of an axis of Pad, and behind it; false: not known. */
static bool pad_around(const Node *n, int axis, int64_t *lo, int64_t *hi) {
  const int64_t *pads;
  int count;
  bool known;
  const int i = named_axis(n, 3, n->in[0]->rank, axis, &known);
  *lo = *hi = 0;
  if (!known || !rule_ints(n, 1, &pads, &count)) return false;
  if (i < 0 || i >= count / 2) return i < 0;
  *lo = pads[i];
  *hi = pads[count / 2 + i];
  return true;
}

static void relate_pad(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
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
  if (!rule_ints(n, 1, &pads, &count)) return true;
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
  rule_set_ints(n, 1, count, own);
  return true;
}

/* Constant positions along an axis: one, which must stay, or a row of them. */
static void relate_gather(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int rank = n->in[0]->rank, axis = rule_axis(n, "axis", 0, rank);
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int64_t *at, size = prune_size(r, x, axis);
  int count;
  if (!rule_ints(n, 1, &at, &count) || !size) {
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
  const int axis = rule_axis(n, "axis", 0, n->in[0]->rank), x = prune_slot(c->r, node, 0);
  const int64_t *at, size = prune_size(c->r, x, axis);
  int count, kept = 0;
  if (!prune_changes(c, x, axis) || !rule_ints(n, 1, &at, &count)) return true;
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
  const Node *n = r->nodes[node];
  const bool to_space = strcmp(n->op->name, "DepthToSpace") == 0;
  const int x = prune_slot(r, node, 0), y = prune_result_slot(r, node, 0);
  const int many = to_space ? x : y, few = to_space ? y : x;
  const int64_t block = node_int(n, "blocksize", 1), taps = block * block,
                channels = rule_dim(to_space ? n->out[0] : n->in[0], 1);
  const bool rows = to_space && strcmp(node_string(n, "mode", "DCR"), "CRD") == 0;
  prune_tie_dims(r, node, x, 0, y, 0);
  prune_see(r, node, x, 1);
  prune_see(r, node, y, 1);
  for (int64_t k = 0; k < channels; k++)
    for (int64_t i = 0; i < taps; i++)
      prune_tie(r, prune_atom(r, many, 1, rows ? k * taps + i : i * channels + k),
                prune_atom(r, few, 1, k));
}

/* ---- along an axis: what is moved or chosen there by data ---- */
/* Other dimensions of all that has the rank of the result go with its own. */
static void tie_beside(PruneRelation *r, int node, int axis) {
  const Node *n = r->nodes[node];
  for (int out = 0; out < n->n_out; out++)
    for (int k = 0; k < n->n_in; k++)
      if (n->out[out] && n->in[k] && n->in[k]->rank == n->out[out]->rank)
        tie_others(r, node, k, out, axis);
}

static void relate_along(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int last = strcmp(n->op->name, "TopK") == 0 ? -1 : 0;
  if (strcmp(n->op->name, "Compress") == 0 && !node_attr(n, "axis")) return; /* of all elements */
  tie_beside(r, node, rule_axis(n, "axis", last, n->in[0]->rank));
}

/* Dimensions behind those that indices count are moved whole. */
static void relate_scatter_nd(PruneRelation *r, int node) {
  const Node *n = r->nodes[node];
  const int64_t counted = rule_dim(n->in[1], n->in[1]->rank - 1);
  const int x = prune_slot(r, node, 0), u = prune_slot(r, node, 2),
            y = prune_result_slot(r, node, 0), rank = n->in[0]->rank;
  for (int d = (int)counted; counted > 0 && d < rank; d++) {
    prune_tie_dims(r, node, x, d, y, d);
    prune_tie_dims(r, node, u, d - rank + n->in[2]->rank, y, d);
  }
}

/* ---- the table ---- */
#define MS "com.microsoft"
static const PruneRule rules[] = {{"", "Conv", relate_conv, cut_group},
                                  {"", "ConvTranspose", relate_conv, cut_group},
                                  {"", "GroupNormalization", relate_group_norm, cut_norm_groups},
                                  {"", "LSTM", relate_cell, cut_cell},
                                  {"", "GRU", relate_cell, cut_cell},
                                  {"", "RNN", relate_cell, cut_cell},
                                  {"", "Concat", relate_concat, NULL},
                                  {"", "Split", relate_split, cut_split},
                                  {"", "Slice", relate_slice, cut_slice},
                                  {"", "Pad", relate_pad, cut_pad},
                                  {"", "Gather", relate_gather, cut_gather},
                                  {"", "DepthToSpace", relate_depth, NULL},
                                  {"", "SpaceToDepth", relate_depth, NULL},
                                  {"", "ScatterElements", relate_along, NULL},
                                  {"", "ScatterND", relate_scatter_nd, NULL},
                                  {"", "TopK", relate_along, NULL},
                                  {"", "Compress", relate_along, NULL},
                                  {"", "RoiAlign", relate_roi, NULL},
                                  {"", "DeformConv", relate_deformed, NULL},
                                  {"", "Shape", relate_shape, NULL},
                                  {"", "Size", relate_shape, NULL},
                                  {"", "Expand", relate_expand, cut_expand},
                                  {"", "ConstantOfShape", relate_filled, cut_filled},
                                  {"", "Resize", NULL, cut_resize},
                                  {"", "Reshape", relate_view, cut_reshape},
                                  {"", "Flatten", relate_view, NULL},
                                  {"", "Squeeze", relate_view, NULL},
                                  {"", "Unsqueeze", relate_view, NULL},
                                  {"", "Attention", relate_composite, cut_heads},
                                  {"", "RotaryEmbedding", relate_rotary, cut_heads},
                                  {MS, "Attention", relate_composite, cut_heads},
                                  {MS, "MultiHeadAttention", relate_composite, cut_heads},
                                  {MS, "GroupQueryAttention", relate_composite, cut_heads},
                                  {MS, "RotaryEmbedding", relate_rotary, cut_heads},
                                  {MS, "FusedMatMul", relate_composite, NULL},
                                  {MS, "FusedGemm", relate_composite, NULL},
                                  {MS, "FusedConv", relate_composite, cut_group}};

const PruneRule *prune_rule(const Node *n) {
  for (size_t k = 0; k < sizeof rules / sizeof *rules; k++)
    if (strcmp(rules[k].op, n->op->name) == 0 && strcmp(rules[k].domain, n->op->domain) == 0)
      return &rules[k];
  return NULL;
}
