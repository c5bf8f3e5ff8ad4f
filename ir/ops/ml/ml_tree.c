/* Tree ensembles of ai.onnx.ml (TreeEnsembleRegressor, TreeEnsembleClassifier, TreeEnsemble):
 * their attribute lists become constant tables, inputs of the internal op burin.TreeEnsemble
 * (runtime/ops/ops_tree.c). What follows the sums (post transforms, labels) is built from
 * ordinary ops. */
#include <stdlib.h>
#include <string.h>
#include "ir/ops/ml/ml.h"
#include "runtime/ops/ops.h"

enum { LEAF = 7, MEMBER = 6, COLUMNS = 7 };

/* ---- the internal op ---- */
bool infer_tree_sums(Model *m, Node *n) {
  int64_t targets;
  const Value *x = n->in[0];
  if (!op_int_in(m, n, "n_targets", 1, 1, INT32_MAX, &targets) || !op_need_rank(m, n, 0, 2, 2))
    return false;
  const Expr *dims[2] = {x->dims[0], ex_i64(m->pool, targets)};
  return op_out(m, n, 0, x->dtype == DT_F64 ? DT_F64 : DT_F32, 2, dims);
}

static int pack_tree(const Node *n, int64_t *w, int max) {
  w[0] = node_int(n, "aggregate", 1);
  w[1] = node_int(n, "base_always", 0);
  return 2;
}

static const Expr *scratch_tree(Model *m, const Node *n) {
  return ex_mul(m->pool, n->out[0]->dims[1], ex_i64(m->pool, 16));
}
const ExternRow ext_tree_sums = {"rt_tree_ensemble", (void *)rt_tree_ensemble, pack_tree,
                                 scratch_tree, .phases = 2, .members = 1 << 15};

/* ---- tables ---- */
typedef struct Forest {
  int64_t n, n_weights, n_roots, n_base, n_set;
  int32_t *node; /* [n][COLUMNS] */
  double *split, *weights, *base, *set;
  int32_t *roots, *ids;
} Forest;

static Value *table(Model *m, DType t, int64_t n, const void *data) {
  const int64_t dims[1] = {n};
  return value_const(m, const_new(m, NULL, t, 1, dims, data));
}

static Value *tree_sums(Build *b, Value *x, const Forest *f, int64_t targets, int64_t aggregate,
                        bool base_always) {
  Model *m = b->m;
  const int64_t dims[2] = {f->n, COLUMNS};
  Value *ins[8] = {x,
                   value_const(m, const_new(m, NULL, DT_I32, 2, dims, f->node)),
                   table(m, DT_F64, f->n, f->split),
                   table(m, DT_I32, f->n_roots, f->roots),
                   table(m, DT_I32, f->n_weights, f->ids),
                   table(m, DT_F64, f->n_weights, f->weights),
                   table(m, DT_F64, f->n_base, f->base),
                   table(m, DT_F64, f->n_set, f->set)};
  const Attr a[3] = {attr_int(m->arena, "n_targets", targets),
                     attr_int(m->arena, "aggregate", aggregate),
                     attr_int(m->arena, "base_always", base_always)};
  return build_node(b, "TreeEnsemble", "burin", 8, ins, 1, 3, a)->out[0];
}

static const char *const mode_names[] = {"BRANCH_LEQ", "BRANCH_LT",  "BRANCH_GTE", "BRANCH_GT",
                                         "BRANCH_EQ",  "BRANCH_NEQ", NULL};

static int mode_of(const char *s) {
  for (int k = 0; mode_names[k]; k++)
    if (strcmp(s, mode_names[k]) == 0) return k;
  return strcmp(s, "LEAF") == 0 ? LEAF : -1;
}

typedef struct Key {
  int64_t tree, id;
  int64_t at;
} Key;

static int by_key(const void *a, const void *b) {
  const Key *x = a, *y = b;
  return x->tree != y->tree ? (x->tree < y->tree ? -1 : 1)
         : x->id != y->id   ? (x->id < y->id ? -1 : 1)
                            : 0;
}

static int64_t find_node(const Key *keys, int64_t n, int64_t tree, int64_t id) {
  const Key k = {tree, id, 0};
  const Key *hit = bsearch(&k, keys, (size_t)n, sizeof k, by_key);
  return hit ? hit->at : -1;
}

/* ---- the form with node ids ---- */
typedef struct OldLists {
  const int64_t *tree, *id, *feature, *yes, *no, *missing, *w_tree, *w_node, *w_id;
  const Attr *modes;
  const double *split, *weight, *base;
  int64_t n, n_missing, n_weights, n_base;
} OldLists;

static bool ints_of(Model *m, Node *n, const char *name, int64_t want, const int64_t **v) {
  int count;
  if (!op_ints(m, n, name, v, &count)) return false;
  if (count != want)
    return op_error(m, n, ERR_ATTR_VALUE, "%s has %d entries, needs %lld", name,
                    count < 0 ? 0 : count, (long long)want);
  return true;
}

/* A list of floats, or the tensor attribute NAME_as_tensor. */
static const double *floats_of(Model *m, const Node *n, const char *name, int64_t *count) {
  const Attr *a = node_attr(n, name),
             *t = node_attr(n, arena_printf(m->arena, "%s_as_tensor", name));
  *count = 0;
  if (a && a->kind == AT_FLOATS) return *count = a->n, a->floats;
  if (!t || t->kind != AT_TENSOR) return NULL;
  double *v = ARENA_ARRAY(m->arena, double, t->tensor->count + 1);
  for (int64_t i = 0; i < t->tensor->count; i++) v[i] = const_float(t->tensor, i);
  return *count = t->tensor->count, v;
}

static bool old_lists(Model *m, Node *n, const char *prefix, OldLists *l) {
  int count;
  int64_t splits;
  char name[64];
  if (!op_ints(m, n, "nodes_treeids", &l->tree, &count)) return false;
  l->n = count < 0 ? 0 : count;
  if (l->n == 0) return op_error(m, n, ERR_ATTR_MISSING, "nodes_treeids is missing");
  if (!ints_of(m, n, "nodes_nodeids", l->n, &l->id) ||
      !ints_of(m, n, "nodes_featureids", l->n, &l->feature) ||
      !ints_of(m, n, "nodes_truenodeids", l->n, &l->yes) ||
      !ints_of(m, n, "nodes_falsenodeids", l->n, &l->no))
    return false;
  l->n_missing = node_ints(n, "nodes_missing_value_tracks_true", &l->missing);
  l->modes = node_attr(n, "nodes_modes");
  l->split = floats_of(m, n, "nodes_values", &splits);
  if (!l->modes || l->modes->kind != AT_STRINGS || l->modes->n != l->n)
    return op_error(m, n, ERR_ATTR_VALUE, "nodes_modes needs %lld entries", (long long)l->n);
  if (splits != l->n)
    return op_error(m, n, ERR_ATTR_VALUE, "nodes_values needs %lld entries", (long long)l->n);
  snprintf(name, sizeof name, "%s_weights", prefix);
  l->weight = floats_of(m, n, name, &l->n_weights);
  snprintf(name, sizeof name, "%s_treeids", prefix);
  if (!ints_of(m, n, name, l->n_weights, &l->w_tree)) return false;
  snprintf(name, sizeof name, "%s_nodeids", prefix);
  if (!ints_of(m, n, name, l->n_weights, &l->w_node)) return false;
  snprintf(name, sizeof name, "%s_ids", prefix);
  l->base = floats_of(m, n, "base_values", &l->n_base);
  return ints_of(m, n, name, l->n_weights, &l->w_id);
}

static bool old_nodes(Model *m, Node *n, const OldLists *l, const Key *keys, Forest *f) {
  for (int64_t i = 0; i < l->n; i++) {
    int32_t *row = f->node + i * COLUMNS;
    const int mode = mode_of(l->modes->strs[i]);
    if (mode < 0)
      return op_error(m, n, ERR_ATTR_VALUE, "unknown node mode \"%s\"", l->modes->strs[i]);
    row[1] = mode;
    f->split[i] = l->split[i];
    if (mode == LEAF) continue;
    const int64_t yes = find_node(keys, l->n, l->tree[i], l->yes[i]),
                  no = find_node(keys, l->n, l->tree[i], l->no[i]);
    if (yes < 0 || no < 0)
      return op_error(m, n, ERR_ATTR_VALUE,
                      "node %lld of tree %lld has a child that does not exist", (long long)l->id[i],
                      (long long)l->tree[i]);
    if (l->feature[i] < 0 || l->feature[i] > INT32_MAX)
      return op_error(m, n, ERR_ATTR_VALUE, "feature %lld", (long long)l->feature[i]);
    row[0] = (int32_t)l->feature[i];
    row[2] = (int32_t)yes;
    row[3] = (int32_t)no;
    row[4] = i < l->n_missing && l->missing[i] != 0;
  }
  return true;
}

/* The weights of each leaf, next to each other. */
static bool old_weights(Model *m, Node *n, const OldLists *l, const Key *keys, int64_t targets,
                        Forest *f) {
  int64_t *at = ARENA_ARRAY(m->arena, int64_t, l->n_weights + 1);
  for (int64_t k = 0; k < l->n_weights; k++) {
    at[k] = find_node(keys, l->n, l->w_tree[k], l->w_node[k]);
    if (at[k] < 0)
      return op_error(m, n, ERR_ATTR_VALUE, "weight %lld belongs to no node", (long long)k);
    if (l->w_id[k] < 0 || l->w_id[k] >= targets)
      return op_error(m, n, ERR_ATTR_VALUE, "target %lld of %lld", (long long)l->w_id[k],
                      (long long)targets);
    f->node[at[k] * COLUMNS + 6]++;
  }
  int32_t first = 0;
  for (int64_t i = 0; i < l->n; i++) {
    f->node[i * COLUMNS + 5] = first;
    first += f->node[i * COLUMNS + 6];
    f->node[i * COLUMNS + 6] = 0;
  }
  for (int64_t k = 0; k < l->n_weights; k++) {
    int32_t *row = f->node + at[k] * COLUMNS;
    const int32_t to = row[5] + row[6]++;
    f->ids[to] = (int32_t)l->w_id[k];
    f->weights[to] = l->weight[k];
  }
  return true;
}

/* Roots are the nodes that are nobody's child, one for each tree (the first of the tree if all
 * are). */
static void old_roots(Model *m, const OldLists *l, Forest *f) {
  bool *child = ARENA_ARRAY(m->arena, bool, l->n);
  for (int64_t i = 0; i < l->n; i++) {
    const int32_t *row = f->node + i * COLUMNS;
    if (row[1] == LEAF) continue;
    if (row[2] != i) child[row[2]] = true;
    if (row[3] != i) child[row[3]] = true;
  }
  for (int64_t i = 0; i < l->n; i++)
    if (!child[i]) f->roots[f->n_roots++] = (int32_t)i;
}

static bool old_forest(Model *m, Node *n, const char *prefix, int64_t targets, Forest *f) {
  OldLists l = {0};
  if (!old_lists(m, n, prefix, &l)) return false;
  if (l.n > INT32_MAX / COLUMNS) return op_error(m, n, ERR_LIMIT, "too many nodes");
  Key *keys = ARENA_ARRAY(m->arena, Key, l.n);
  for (int64_t i = 0; i < l.n; i++) keys[i] = (Key){l.tree[i], l.id[i], i};
  qsort(keys, (size_t)l.n, sizeof *keys, by_key);
  for (int64_t i = 1; i < l.n; i++)
    if (by_key(&keys[i - 1], &keys[i]) == 0)
      return op_error(m, n, ERR_ATTR_VALUE, "node %lld of tree %lld is given twice",
                      (long long)keys[i].id, (long long)keys[i].tree);
  *f = (Forest){.n = l.n, .n_weights = l.n_weights, .n_base = l.n_base};
  f->node = ARENA_ARRAY(m->arena, int32_t, l.n *COLUMNS);
  f->split = ARENA_ARRAY(m->arena, double, l.n);
  f->roots = ARENA_ARRAY(m->arena, int32_t, l.n);
  f->weights = ARENA_ARRAY(m->arena, double, l.n_weights + 1);
  f->ids = ARENA_ARRAY(m->arena, int32_t, l.n_weights + 1);
  f->base = arena_dup(m->arena, l.base, sizeof(double) * (size_t)l.n_base);
  f->set = ARENA_ARRAY(m->arena, double, 1);
  if (!old_nodes(m, n, &l, keys, f) || !old_weights(m, n, &l, keys, targets, f)) return false;
  old_roots(m, &l, f);
  return true;
}

/* ---- TreeEnsembleRegressor ---- */
static const char *const aggregates[] = {"AVERAGE", "SUM", "MIN", "MAX", NULL};

static bool rows_out(Model *m, Node *n, int k, DType t, int64_t width) {
  const Value *x = n->in[0];
  const Expr *dims[2] = {x->rank == 2 ? x->dims[0] : ex_i64(m->pool, 1), ex_i64(m->pool, width)};
  return op_out(m, n, k, t, width < 0 ? 1 : 2, dims);
}

bool infer_tree_regressor(Model *m, Node *n) {
  int64_t targets;
  int k;
  if (!op_need_rank(m, n, 0, 1, 2) || !op_need_class(m, n, 0, CL_NUMBER) ||
      !op_int_in(m, n, "n_targets", 1, 1, 1 << 24, &targets) ||
      !op_choice(m, n, "aggregate_function", "SUM", aggregates, &k) || !ml_post_transform(m, n, &k))
    return false;
  return rows_out(m, n, 0, DT_F32, targets);
}

bool expand_tree_regressor(Build *b, Node *n, Value **out) {
  Forest f;
  int post, agg;
  const int64_t targets = node_int(n, "n_targets", 1);
  if (!old_forest(b->m, n, "target", targets, &f) || !ml_post_transform(b->m, n, &post) ||
      !op_choice(b->m, n, "aggregate_function", "SUM", aggregates, &agg))
    return false;
  Value *s = build_cast(b, tree_sums(b, ml_rows(b, n->in[0]), &f, targets, agg, false), DT_F32);
  /* ONNX Runtime transforms a single target by PROBIT only */
  out[0] = targets == 1 && post != ML_PROBIT ? s : ml_transform(b, s, post);
  return b->ok;
}

/* ---- TreeEnsembleClassifier ---- */
bool infer_tree_classifier(Model *m, Node *n) {
  int post;
  int64_t classes;
  if (!op_need_rank(m, n, 0, 1, 2) || !op_need_class(m, n, 0, CL_NUMBER) ||
      !ml_post_transform(m, n, &post) ||
      !ml_class_count(m, n, "classlabels_int64s", "classlabels_strings", &classes))
    return false;
  return rows_out(m, n, 0, ml_label_type(n, "classlabels_int64s"), -1) &&
         rows_out(m, n, 1, DT_F32, classes < 2 ? 2 : classes);
}

/* One score s for two classes; what the other gets is ONNX Runtime's way. */
static Value *binary_scores(Build *b, Value *s, int64_t class, bool with_zero, bool positive,
                            int post) {
  const Attr axis = attr_int(b->m->arena, "axis", 1);
  Value *zero = build2(b, "Mul", s, build_scalar(b, DT_F32, 0)), *pair[2] = {zero, s};
  if (with_zero) {
    if (class == 0) pair[0] = s, pair[1] = zero;
    return ml_transform(b, build_op(b, "Concat", 2, pair, 1, &axis), post);
  }
  pair[0] = positive && post != ML_LOGISTIC ? build2(b, "Sub", build_scalar(b, DT_F32, 1), s)
                                            : build1(b, "Neg", s);
  Value *both = build_op(b, "Concat", 2, pair, 1, &axis);
  return post == ML_LOGISTIC ? build1(b, "Sigmoid", both) : both;
}

/* All weights belong to `class`, of two: they and its base value become target 0. */
static void single_target(Forest *f, int64_t class) {
  memset(f->ids, 0, sizeof *f->ids * (size_t)f->n_weights);
  if (class == 1 && f->n_base == 2) f->base[0] = f->base[1];
  if (class == 1 && f->n_base == 1) f->n_base = 0;
  if (f->n_base > 1) f->n_base = 1;
}

bool expand_tree_classifier(Build *b, Node *n, Value **out) {
  Model *m = b->m;
  Forest f;
  int post;
  int64_t classes, first = -1;
  bool one = true, positive = true;
  if (!ml_post_transform(m, n, &post) ||
      !ml_class_count(m, n, "classlabels_int64s", "classlabels_strings", &classes) ||
      !old_forest(m, n, "class", classes < 2 ? 2 : classes, &f))
    return false;
  for (int64_t k = 0; k < f.n_weights; k++) {
    if (first >= 0 && f.ids[k] != first) one = false;
    first = f.ids[k];
    if (f.weights[k] < 0) positive = false;
  }
  const bool binary = classes <= 2 && one, with_zero = first == 1 || f.n_base == 2;
  if (binary) single_target(&f, first);
  Value *s =
      build_cast(b, tree_sums(b, ml_rows(b, n->in[0]), &f, binary ? 1 : classes, 1, true), DT_F32);
  if (!binary) {
    out[0] = ml_labels(b, n, "classlabels_int64s", ml_argmax(b, s));
    if (n->n_out > 1) out[1] = ml_transform(b, s, post);
    return b->ok;
  }
  const int64_t minus = -1;
  Value *yes = build2(b, "Greater", s, build_scalar(b, DT_F32, positive ? 0.5 : 0));
  Value *which = build2(b, "Reshape", build_cast(b, yes, DT_I64), build_i64s(b, 1, &minus));
  out[0] = ml_labels(b, n, "classlabels_int64s", which);
  if (n->n_out > 1) out[1] = binary_scores(b, s, first, with_zero, positive, post);
  return b->ok;
}

/* ---- TreeEnsemble (version 5): nodes and leaves by position ---- */
static const ConstData *tensor_attr(const Node *n, const char *name) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == AT_TENSOR ? a->tensor : NULL;
}

bool infer_tree_ensemble(Model *m, Node *n) {
  int64_t k, targets;
  if (!op_need_rank(m, n, 0, 2, 2) || !op_need_class(m, n, 0, CL_FLOAT) ||
      !op_int_in(m, n, "n_targets", 1, 1, 1 << 24, &targets) ||
      !op_int_in(m, n, "aggregate_function", 1, 0, 3, &k) ||
      !op_int_in(m, n, "post_transform", 0, 0, 4, &k))
    return false;
  const Expr *dims[2] = {n->in[0]->dims[0], ex_i64(m->pool, targets)};
  return op_out(m, n, 0, n->in[0]->dtype, 2, dims);
}

typedef struct NewLists {
  const int64_t *feature, *yes, *no, *yes_leaf, *no_leaf, *roots, *ids, *missing;
  const ConstData *modes, *splits, *weights, *sets;
  int64_t n, n_leaf, n_roots, n_missing;
} NewLists;

static bool new_lists(Model *m, Node *n, NewLists *l) {
  int count;
  if (!op_ints(m, n, "nodes_featureids", &l->feature, &count)) return false;
  l->n = count < 0 ? 0 : count;
  if (!op_ints(m, n, "leaf_targetids", &l->ids, &count)) return false;
  l->n_leaf = count < 0 ? 0 : count;
  if (!op_ints(m, n, "tree_roots", &l->roots, &count)) return false;
  l->n_roots = count < 0 ? 0 : count;
  if (!ints_of(m, n, "nodes_truenodeids", l->n, &l->yes) ||
      !ints_of(m, n, "nodes_falsenodeids", l->n, &l->no) ||
      !ints_of(m, n, "nodes_trueleafs", l->n, &l->yes_leaf) ||
      !ints_of(m, n, "nodes_falseleafs", l->n, &l->no_leaf))
    return false;
  l->n_missing = node_ints(n, "nodes_missing_value_tracks_true", &l->missing);
  l->modes = tensor_attr(n, "nodes_modes");
  l->splits = tensor_attr(n, "nodes_splits");
  l->weights = tensor_attr(n, "leaf_weights");
  l->sets = tensor_attr(n, "membership_values");
  if (!l->modes || l->modes->count != l->n || !l->splits || l->splits->count != l->n ||
      !l->weights || l->weights->count != l->n_leaf)
    return op_error(
        m, n, ERR_ATTR_VALUE,
        "nodes_modes, nodes_splits and leaf_weights need one entry for each node and leaf");
  return l->n + l->n_leaf < INT32_MAX / COLUMNS ? true
                                                : op_error(m, n, ERR_LIMIT, "too many nodes");
}

/* Values of member nodes stand one after the other, each list closed by a NaN. */
static void new_sets(const NewLists *l, Forest *f) {
  for (int64_t i = 0; l->sets && i < l->sets->count; i++) f->set[i] = const_float(l->sets, i);
  int64_t at = 0;
  for (int64_t i = 0; i < l->n; i++) {
    int32_t *row = f->node + i * COLUMNS;
    if (row[1] != MEMBER) continue;
    row[5] = (int32_t)at;
    while (at < f->n_set && f->set[at] == f->set[at]) at++;
    row[6] = (int32_t)at - row[5];
    at++;
  }
}

static bool new_child(Model *m, Node *n, const NewLists *l, int64_t at, int64_t leaf,
                      int32_t *out) {
  if (at < 0 || at >= (leaf ? l->n_leaf : l->n))
    return op_error(m, n, ERR_ATTR_VALUE, "a child %lld does not exist", (long long)at);
  *out = (int32_t)(leaf ? l->n + at : at);
  return true;
}

static bool new_forest(Model *m, Node *n, Forest *f) {
  NewLists l = {0};
  const int64_t targets = node_int(n, "n_targets", 1);
  if (!new_lists(m, n, &l)) return false;
  *f = (Forest){.n = l.n + l.n_leaf,
                .n_weights = l.n_leaf,
                .n_roots = l.n_roots,
                .n_set = l.sets ? l.sets->count : 0};
  f->node = ARENA_ARRAY(m->arena, int32_t, f->n *COLUMNS + 1);
  f->split = ARENA_ARRAY(m->arena, double, f->n + 1);
  f->weights = ARENA_ARRAY(m->arena, double, l.n_leaf + 1);
  f->ids = ARENA_ARRAY(m->arena, int32_t, l.n_leaf + 1);
  f->roots = ARENA_ARRAY(m->arena, int32_t, l.n_roots + 1);
  f->set = ARENA_ARRAY(m->arena, double, f->n_set + 1);
  f->base = ARENA_ARRAY(m->arena, double, 1);
  for (int64_t i = 0; i < l.n; i++) {
    int32_t *row = f->node + i * COLUMNS;
    row[0] = l.feature[i] >= 0 && l.feature[i] <= INT32_MAX ? (int32_t)l.feature[i] : -1;
    row[1] = (int32_t)const_int(l.modes, i);
    if (row[1] < 0 || row[1] > MEMBER || row[0] < 0)
      return op_error(m, n, ERR_ATTR_VALUE, "node %lld has an impossible mode or feature",
                      (long long)i);
    row[4] = i < l.n_missing && l.missing[i] != 0;
    f->split[i] = const_float(l.splits, i);
    if (!new_child(m, n, &l, l.yes[i], l.yes_leaf[i], &row[2]) ||
        !new_child(m, n, &l, l.no[i], l.no_leaf[i], &row[3]))
      return false;
  }
  for (int64_t i = 0; i < l.n_leaf; i++) {
    int32_t *row = f->node + (l.n + i) * COLUMNS;
    if (l.ids[i] < 0 || l.ids[i] >= targets)
      return op_error(m, n, ERR_ATTR_VALUE, "target %lld of %lld", (long long)l.ids[i],
                      (long long)targets);
    row[1] = LEAF;
    row[5] = (int32_t)i;
    row[6] = 1;
    f->ids[i] = (int32_t)l.ids[i];
    f->weights[i] = const_float(l.weights, i);
  }
  for (int64_t i = 0; i < l.n_roots; i++)
    if (!new_child(m, n, &l, l.roots[i], 0, &f->roots[i])) return false;
  new_sets(&l, f);
  return true;
}

bool expand_tree_ensemble(Build *b, Node *n, Value **out) {
  static const int posts[] = {ML_NONE, ML_SOFTMAX, ML_LOGISTIC, ML_SOFTMAX_ZERO, ML_PROBIT};
  Forest f;
  if (!new_forest(b->m, n, &f)) return false;
  Value *s = tree_sums(b, n->in[0], &f, node_int(n, "n_targets", 1),
                       node_int(n, "aggregate_function", 1), false);
  out[0] =
      ml_transform(b, build_cast(b, s, n->in[0]->dtype), posts[node_int(n, "post_transform", 0)]);
  return b->ok;
}
