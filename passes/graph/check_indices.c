/* Indices that come as data must lie inside their axis: a run with one that does not ends with
 * BURIN_E_DATA, the node and the index. Of each tensor of indices that is not sure to be inside,
 * one number is computed, the largest of all indices' keys, and becomes a run-time symbol of the
 * node with an upper bound: SymDef.index says how to read it. What the code then reads is clamped
 * whatever the data are; this pass only makes it be told (--indices=clamp leaves it out). */
#include "passes/pass.h"

#include <string.h>

enum { MAX_DEPTH = 12, MAX_VISITS = 200, MAX_SCAN = 1 << 20 };

/* ---- which inputs are indices ---- */
typedef enum IndexKind {
  IX_AXIS,   /* into the dimension "axis" of input 0, negative ones from its end */
  IX_TUPLES, /* last dimension: into the dimensions of input 0 behind the batch dimensions */
  IX_FIRST,  /* into dimension 0 of input 1 */
  IX_CLASS,  /* into dimension 1 of input 0, but for ignore_index */
  IX_STEPS,  /* a number of steps of dimension "time_axis" of input 0 */
  IX_SLOT    /* where input 1 begins in the dimension "axis" of input 0 */
} IndexKind;
static const struct {
  const char *op;
  int input;
  IndexKind kind;
} rows[] = {
    {"Gather", 1, IX_AXIS},           {"GatherElements", 1, IX_AXIS},
    {"GatherND", 1, IX_TUPLES},       {"ScatterElements", 1, IX_AXIS},
    {"ScatterND", 1, IX_TUPLES},      {"RotaryEmbedding", 3, IX_FIRST},
    {"TensorScatter", 2, IX_SLOT},    {"NegativeLogLikelihoodLoss", 1, IX_CLASS},
    {"ReverseSequence", 1, IX_STEPS}, {"Lengths", 1, IX_STEPS},
};

typedef struct Checked {
  const Value *indices;
  const Expr *size;
  const Graph *graph;
} Checked;

typedef struct Indices {
  PassCtx *c;
  ExprPool *p;
  Build b;
  int visits;
  bool old; /* the node was checked when this pass ran before */
  Vec(Checked) done;
} Indices;

/* ---- what is sure to be inside ---- */
typedef struct Range {
  int64_t lo, hi;
} Range;

static const Expr *some_index(Indices *x, const Expr *extent) {
  return ex_var(x->p, "index", extent);
}

/* Of a constant: anything between its least and largest element. */
static const Expr *constant_element(Indices *x, const Value *v) {
  const ConstData *k = v->cdata;
  if (!dtype_is_int(v->dtype) || k->count < 1 || k->count > MAX_SCAN) return NULL;
  int64_t lo = const_int(k, 0), hi = lo;
  for (int64_t i = 1; i < k->count; i++) {
    const int64_t e = const_int(k, i);
    if (e < lo) lo = e;
    if (e > hi) hi = e;
  }
  if (lo < INT32_MIN || hi > INT32_MAX) return NULL;
  return ex_var_range(x->p, "index", ex_i64(x->p, lo), ex_i64(x->p, hi - lo + 1));
}

/* Of ops that answer with indices, and of checked ones. */
static const Expr *found_index(Indices *x, const Value *v, const Expr *const *idx) {
  const Node *n = v->def;
  int64_t axis, k;
  const Value *in = node_in(n, 0);
  if (!in) return NULL;
  if (strcmp(n->op->name, "NonZero") == 0)
    return expr_is_const(idx[0], &k) && k >= 0 && k < in->rank ? some_index(x, in->dims[k]) : NULL;
  if (strcmp(n->op->name, "Lengths") == 0)
    return some_index(x, ex_add(x->p, in->dims[0], ex_i64(x->p, 1)));
  const bool top = strcmp(n->op->name, "TopK") == 0 && v == node_out(n, 1);
  if (!top && strcmp(n->op->name, "ArgMax") != 0 && strcmp(n->op->name, "ArgMin") != 0) return NULL;
  axis = node_int(n, "axis", top ? -1 : 0);
  if (axis < 0) axis += in->rank;
  return axis >= 0 && axis < in->rank ? some_index(x, in->dims[axis]) : NULL;
}

/* The element as far as it can be followed; behind that, any value of its type. */
static const Expr *follow(ElemCtx *c, const Value *v, const Expr *const *idx, const Expr *guard) {
  Indices *const x = c->user;
  const Node *const n = v->def;
  const Expr *e = NULL;
  int out = 0;
  (void)guard;
  if (v->cdata) {
    e = constant_element(x, v);
  } else if (n && x->visits < MAX_VISITS) {
    x->visits++;
    e = found_index(x, v, idx);
    while (out < n->n_out - 1 && n->out[out] != v) out++;
    if (!e && !n->n_syms && (n->op->body == OB_EW || n->op->body == OB_ELEM))
      e = op_elem(c, n, out, idx);
  }
  if (e && e->dtype != v->dtype) e = ex_cast(x->p, v->dtype, e);
  return e ? e : ex_load(x->p, v->dtype, v->id, ex_i64(x->p, 0), NULL);
}

static bool is_true(const Expr *e) {
  int64_t k;
  return expr_is_const(e, &k) && k;
}

/* Whatever the data are, element idx of v is in [0, size), or [-size, size) when it wraps. */
static bool sure(Indices *x, const Value *v, const Expr *const *idx, const Expr *size, bool wraps) {
  ElemCtx c = {.pool = x->p, .model = x->c->model, .read = follow, .user = x};
  ExprPool *const p = x->p;
  x->visits = 0;
  const Expr *e = ex_cast(p, DT_I64, follow(&c, v, idx, NULL));
  const Expr *least = wraps ? ex_sub(p, ex_i64(p, 0), size) : ex_i64(p, 0);
  return is_true(ex_le(p, least, e)) && is_true(ex_lt(p, e, size));
}

/* ---- the check ---- */
/* Views and copies hold the same indices. */
static Value *plain(Value *v) {
  static const char *const same[] = {"Expand",  "Unsqueeze", "Squeeze", "Reshape",
                                     "Flatten", "Transpose", "Tile",    "Identity"};
  for (int depth = 0; v->def && depth < MAX_DEPTH; depth++) {
    bool found = false;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
      found = found || strcmp(v->def->op->name, same[i]) == 0;
    if (!found || !v->def->in[0] || v->def->in[0]->cdata) break;
    v = v->def->in[0];
  }
  return v;
}

/* max(2i, -1-2i) + 1 tells an index and its sign; where only 0 and more are allowed, negative ones
 * get a key beyond every size. */
static Value *key_of(Build *b, Value *indices, bool wraps) {
  const int64_t least = INT64_C(1) << 60;
  Value *i = build_cast(b, indices, DT_I64);
  Value *const limit = build_scalar(b, DT_I64, (double)least);
  i = build2(b, "Min", build2(b, "Max", i, build_scalar(b, DT_I64, -(double)least)), limit);
  Value *const twice = build2(b, "Add", i, i);
  const double odd = wraps ? -1 : (double)(INT64_C(1) << 62);
  Value *negative = build2(b, "Sub", build_scalar(b, DT_I64, odd), twice);
  if (!wraps) {
    negative = build2(b, "Sub", negative, build_scalar(b, DT_I64, 1));
    Value *below = build2(b, "Less", i, build_scalar(b, DT_I64, 0));
    return build_op(b, "Where", 3, (Value *[]){below, negative, twice}, 0, NULL);
  }
  return build2(b, "Max", twice, negative);
}

static Value *largest_key(Build *b, Value *indices, bool wraps) {
  Value *key = build2(b, "Add", key_of(b, indices, wraps), build_scalar(b, DT_I64, 1));
  const Attr keep = attr_int(b->m->arena, "keepdims", 0);
  if (indices->rank) key = build_op(b, "ReduceMax", 1, &key, 1, &keep);
  return build2(b, "Max", key, build_scalar(b, DT_I64, 0)); /* of no indices: 0 */
}

static void add_symbol(Indices *x, Node *n, Value *largest, const Expr *size, IndexRule rule) {
  Model *const m = x->c->model;
  const Expr *sym = ex_sym_fresh(x->p, "index");
  Symbol *const s = expr_symbol(x->p, sym->id);
  s->runtime = true;
  s->bound = ex_mul(x->p, ex_i64(x->p, 2), size);
  SymDef *const list = ARENA_ARRAY(m->arena, SymDef, n->n_syms + 1);
  for (int i = 0; i < n->n_syms; i++) list[i] = n->syms[i];
  list[n->n_syms] = (SymDef){.sym = sym, .src = largest, .index = rule};
  n->syms = list;
  n->n_syms++;
  x->c->changed = true;
}

static bool done_before(Indices *x, const Value *v, const Expr *size, const Graph *g) {
  for (int i = 0; i < x->done.n; i++) {
    const Checked *k = &x->done.data[i];
    if (k->indices != v || k->size != size) continue;
    for (const Graph *up = g; up; up = up->parent)
      if (up == k->graph) return true;
  }
  return false;
}

static bool check(Indices *x, Node *n, Value *indices, const Expr *size, IndexRule rule) {
  if (done_before(x, indices, size, n->graph)) return true;
  vec_push(x->c->scratch, &x->done, (Checked){indices, size, n->graph});
  if (x->old) return true;
  x->b = (Build){.m = x->c->model, .g = n->graph, .before = n, .loc = n->loc, .ok = true};
  Value *const largest = largest_key(&x->b, indices, rule == IX_WRAPS);
  if (x->b.ok) add_symbol(x, n, largest, size, rule);
  return x->b.ok;
}

/* ---- nodes ---- */
static int axis_of(const Node *n, int64_t def) {
  const int64_t axis = node_int(n, "axis", def);
  return (int)(axis < 0 ? axis + n->in[0]->rank : axis);
}

static const Expr *const *any_element(Indices *x, const Value *v) {
  const Expr **idx = ARENA_ARRAY(x->c->scratch, const Expr *, v->rank + 1);
  for (int d = 0; d < v->rank; d++) idx[d] = ex_var(x->p, "i", v->dims[d]);
  return idx;
}

static bool check_all(Indices *x, Node *n, Value *v, const Expr *size, IndexRule rule) {
  return sure(x, v, any_element(x, v), size, rule == IX_WRAPS) || check(x, n, plain(v), size, rule);
}

static bool check_tuples(Indices *x, Node *n, Value *v) {
  const int64_t batch = node_int(n, "batch_dims", 0);
  int64_t k = 0;
  if (!expr_is_const(v->dims[v->rank - 1], &k)) return true;
  const Expr **idx = (const Expr **)any_element(x, v);
  for (int64_t j = 0; j < k; j++) {
    const Expr *size = n->in[0]->dims[batch + j];
    idx[v->rank - 1] = ex_i64(x->p, j);
    if (x->old || sure(x, v, idx, size, true)) continue;
    const Attr axis = attr_int(x->c->model->arena, "axis", v->rank - 1);
    x->b = (Build){.m = x->c->model, .g = n->graph, .before = n, .loc = n->loc, .ok = true};
    Value *in[] = {v, build_scalar(&x->b, DT_I64, (double)j)};
    Value *part = build_op(&x->b, "Gather", 2, in, 1, &axis);
    if (!x->b.ok || !check(x, n, part, size, IX_WRAPS)) return false;
  }
  return true;
}

static bool check_classes(Indices *x, Node *n, Value *v) {
  const Attr *const ignore = node_attr(n, "ignore_index");
  if (ignore && x->old) return true;
  if (ignore) {
    x->b = (Build){.m = x->c->model, .g = n->graph, .before = n, .loc = n->loc, .ok = true};
    Value *off = build_scalar(&x->b, v->dtype, (double)ignore->ints[0]);
    Value *in[] = {build2(&x->b, "Equal", v, off), build_scalar(&x->b, v->dtype, 0), v};
    v = build_op(&x->b, "Where", 3, in, 0, NULL);
    if (!x->b.ok) return false;
  }
  return check_all(x, n, v, n->in[0]->dims[1], IX_FROM_0);
}

static bool check_node(Indices *x, Node *n, Value *v, IndexKind kind) {
  ExprPool *const p = x->p;
  const Value *const data = n->in[0];
  switch (kind) {
    case IX_AXIS: return check_all(x, n, v, data->dims[axis_of(n, 0)], IX_WRAPS);
    case IX_TUPLES: return check_tuples(x, n, v);
    case IX_FIRST: return check_all(x, n, v, n->in[1]->dims[0], IX_FROM_0);
    case IX_CLASS: return check_classes(x, n, v);
    case IX_STEPS: {
      const Expr *steps = data->dims[node_int(n, "time_axis", 0)];
      return check_all(x, n, v, ex_add(p, steps, ex_i64(p, 1)), IX_LENGTH);
    }
    case IX_SLOT: {
      const int axis = axis_of(n, -2);
      if (strcmp(node_string(n, "mode", "linear"), "linear") != 0) return true;
      const Expr *last = ex_sub(p, data->dims[axis], n->in[1]->dims[axis]);
      return check_all(x, n, v, ex_add(p, last, ex_i64(p, 1)), IX_FROM_0);
    }
  }
  return true;
}

static bool was_checked(const Node *n) {
  for (int i = 0; i < n->n_syms; i++)
    if (n->syms[i].index) return true;
  return false;
}

static bool check_graph(Indices *x, Graph *g) {
  const int n = g->nodes.n;
  Node **const nodes = ARENA_ARRAY(x->c->scratch, Node *, n + 1);
  for (int i = 0; i < n; i++) nodes[i] = g->nodes.data[i];
  for (int i = 0; i < n; i++) {
    Node *const node = nodes[i];
    for (int k = 0; k < node->n_attrs; k++)
      if (node->attrs[k].kind == AT_GRAPH && !check_graph(x, node->attrs[k].graph)) return false;
    x->old = was_checked(node);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
      Value *v = strcmp(node->op->name, rows[r].op) == 0 ? node_in(node, rows[r].input) : NULL;
      if (v && dtype_is_int(v->dtype) && !check_node(x, node, v, rows[r].kind)) return false;
    }
  }
  return true;
}

bool pass_check_indices(PassCtx *c) {
  Indices x = {.c = c, .p = c->model->pool};
  return c->clamp_indices || check_graph(&x, c->model->main);
}
