/* Building and changing the graph IR, and simple questions about it. Everything lives in the
 * model's arena and is never freed. Topological order is kept by the callers (graph_sort restores
 * it). */
#include "ir/graph/graph.h"
#include <string.h>
#include "ir/graph/op_row.h"

/* ---- building ---- */

Model *model_new(Arena *a, Diag *d) {
  Model *m = ARENA_NEW(a, Model);
  m->arena = a;
  m->diag = d;
  m->pool = expr_pool_new(a);
  return m;
}

Graph *graph_new(Model *m, Graph *parent, const char *name) {
  Graph *g = ARENA_NEW(m->arena, Graph);
  g->model = m;
  g->parent = parent;
  g->name = name;
  return g;
}

const char *list_text(Arena *a, const ListType *l) {
  static const char *const around[] = {"", "seq(", "opt(", "opt(seq("};
  StrBuf b = {.arena = a};
  sb_printf(&b, "%s%s", around[l->kind], dtype_text(l->dtype));
  for (int d = 0; d < l->rank; d++) {
    sb_putc(&b, d ? ',' : '[');
    if (l->dims[d] < 0)
      sb_putc(&b, '?');
    else
      sb_printf(&b, "%lld", (long long)l->dims[d]);
  }
  sb_printf(&b, "%s)%s",
            l->rank > 0    ? "]"
            : l->rank == 0 ? "[]"
                           : "",
            l->kind == LIST_OPTIONAL_SEQUENCE ? ")" : "");
  return sb_str(&b);
}

void graph_set_list(Graph *g, int k, bool output, const ListType *l) {
  while (!output && l && g->input_lists.n <= k) vec_push(g->model->arena, &g->input_lists, NULL);
  while (output && l && g->output_lists.n <= k) vec_push(g->model->arena, &g->output_lists, NULL);
  if (l) (output ? g->output_lists.data : g->input_lists.data)[k] = l;
}

Value *value_new(Model *m, const char *name) {
  Value *v = ARENA_NEW(m->arena, Value);
  v->id = m->next_value++;
  v->name = name;
  v->rank = -1;
  return v;
}

/* Inference runs often: an unchanged shape costs no memory. Arrays are never changed in place. */
void value_set_tensor(Model *m, Value *v, DType t, int rank, const Expr *const *dims) {
  const bool same = v->dims && v->rank == rank &&
                    (rank <= 0 || memcmp(v->dims, dims, sizeof *dims * (size_t)rank) == 0);
  v->kind = TY_TENSOR;
  v->dtype = t;
  v->rank = rank;
  if (!same) v->dims = arena_dup(m->arena, dims, sizeof *dims * (size_t)rank);
}

ConstData *const_new(Model *m, const char *name, DType t, int rank, const int64_t *dims,
                     const void *data) {
  ConstData *c = ARENA_NEW(m->arena, ConstData);
  int64_t count = 1;
  for (int d = 0; d < rank; d++)
    if (!ck_mul(count, dims[d], &count)) count = 0;
  *c = (ConstData){.id = m->consts.n,
                   .name = name,
                   .dtype = t,
                   .rank = rank,
                   .count = count,
                   .data = data,
                   .dims = arena_dup(m->arena, dims, sizeof *dims * (size_t)rank)};
  vec_push(m->arena, &m->consts, c);
  return c;
}

Value *value_const(Model *m, ConstData *c) {
  Value *v = value_new(m, c->name);
  const Expr *dims[MAX_RANK];
  for (int d = 0; d < c->rank; d++) dims[d] = ex_i64(m->pool, c->dims[d]);
  value_set_tensor(m, v, c->dtype, c->rank, dims);
  v->cdata = c;
  return v;
}

Value *value_const_i64s(Model *m, int rank, int n, const int64_t *v) {
  const int64_t dims[1] = {n};
  return value_const(
      m, const_new(m, NULL, DT_I64, rank, dims, arena_dup(m->arena, v, sizeof *v * (size_t)n)));
}

Value *value_const_scalar(Model *m, DType t, double v) {
  void *p = arena_alloc(m->arena, (size_t)dtype_bytes(t));
  if (dtype_is_float(t))
    dtype_store_f(t, p, v);
  else
    dtype_store_i(t, p, scalar_cast(t, DT_F64, (Scalar){.f = v}, false).i);
  return value_const(m, const_new(m, NULL, t, 0, NULL, p));
}

Node *graph_add_node(Graph *g, Node *before, const OpRow *op, int n_in, Value *const *in,
                     const Loc *loc) {
  Arena *a = g->model->arena;
  Node *n = ARENA_NEW(a, Node);
  *n = (Node){.op = op, .n_in = n_in, .loc = loc, .graph = g};
  n->in = ARENA_ARRAY(a, Value *, n_in);
  if (n_in) memcpy(n->in, in, sizeof *in * (size_t)n_in);
  vec_push(a, &g->nodes, n);
  if (!before) return n;
  /* New nodes mostly go before a node that is being replaced: search from where the last one
   * went. */
  Node **d = g->nodes.data;
  int at = g->nodes.n - 1;
  while (at > 0 && d[at - 1] != before) at--;
  if (at == 0) return n;
  memmove(d + at, d + at - 1, sizeof *d * (size_t)(g->nodes.n - at));
  d[at - 1] = n;
  return n;
}

Value *node_add_output(Node *n, const char *name) {
  Arena *a = n->graph->model->arena;
  Value **out = ARENA_ARRAY(a, Value *, n->n_out + 1);
  if (n->n_out) memcpy(out, n->out, sizeof *out * (size_t)n->n_out);
  Value *v = value_new(n->graph->model, name);
  v->def = n;
  v->def_index = n->n_out;
  out[n->n_out++] = v;
  n->out = out;
  return v;
}

void node_set_attr(Node *n, Attr at) {
  for (int i = 0; i < n->n_attrs; i++) {
    if (strcmp(n->attrs[i].name, at.name) == 0) {
      n->attrs[i] = at;
      return;
    }
  }
  Attr *list = ARENA_ARRAY(n->graph->model->arena, Attr, n->n_attrs + 1);
  if (n->n_attrs) memcpy(list, n->attrs, sizeof *list * (size_t)n->n_attrs);
  list[n->n_attrs++] = at;
  n->attrs = list;
}

void node_set_int(Node *n, const char *name, int64_t v) {
  node_set_attr(n, attr_int(n->graph->model->arena, name, v));
}

void node_set_ints(Node *n, const char *name, int count, const int64_t *v) {
  node_set_attr(n, attr_ints(n->graph->model->arena, name, count, v));
}

void node_set_float(Node *n, const char *name, double v) {
  node_set_attr(n, attr_float(n->graph->model->arena, name, v));
}

void node_set_string(Node *n, const char *name, const char *v) {
  node_set_attr(n, attr_string(n->graph->model->arena, name, v));
}

void graph_remove_node(Graph *g, Node *n) {
  for (int i = 0; i < g->nodes.n; i++) {
    if (g->nodes.data[i] != n) continue;
    memmove(g->nodes.data + i, g->nodes.data + i + 1,
            sizeof(Node *) * (size_t)(g->nodes.n - i - 1));
    g->nodes.n--;
    return;
  }
}

void graph_replace_value(Graph *g, Value *old, Value *by) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] == old) n->in[k] = by;
    for (int k = 0; k < n->n_syms; k++)
      if (n->syms[k].src == old) n->syms[k].src = by;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && n->attrs[k].graph)
        graph_replace_value(n->attrs[k].graph, old, by);
  }
  for (int i = 0; i < g->outputs.n; i++)
    if (g->outputs.data[i] == old) g->outputs.data[i] = by;
}

/* ---- topological order ---- */

/* Adds to deps the nodes of g that define what n (or a region of it) reads. */
static void node_deps(Arena *a, const Graph *g, Node *n, NodeVec *deps) {
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && n->in[k]->def && n->in[k]->def->graph == g) vec_push(a, deps, n->in[k]->def);
  for (int k = 0; k < n->n_syms; k++)
    if (n->syms[k].src && n->syms[k].src->def && n->syms[k].src->def->graph == g)
      vec_push(a, deps, n->syms[k].src->def);
  for (int k = 0; k < n->n_attrs; k++) {
    Graph *r = n->attrs[k].kind == AT_GRAPH ? n->attrs[k].graph : NULL;
    for (int i = 0; r && i < r->nodes.n; i++) node_deps(a, g, r->nodes.data[i], deps);
    for (int i = 0; r && i < r->outputs.n; i++)
      if (r->outputs.data[i]->def && r->outputs.data[i]->def->graph == g)
        vec_push(a, deps, r->outputs.data[i]->def);
  }
}

/* mark: 0 not seen, 1 its dependencies are being placed, 2 placed. Depth first in the old order:
 * stable. An explicit stack, since graphs are as deep as they are long. On a cycle the order stays
 * partial; the verifier (and before it the frontend) reports that. */
void graph_sort(Graph *g) {
  Arena *scratch = arena_child(g->model->arena);
  Vec(Node *) order = {0}, stack = {0};
  for (int i = 0; i < g->nodes.n; i++) g->nodes.data[i]->mark = 0;
  for (int i = 0; i < g->nodes.n; i++) {
    vec_push(scratch, &stack, g->nodes.data[i]);
    while (stack.n) {
      Node *n = stack.data[stack.n - 1];
      NodeVec deps = {0};
      if (n->mark) {
        stack.n--;
        if (n->mark == 1) vec_push(scratch, &order, n);
        n->mark = 2;
        continue;
      }
      n->mark = 1;
      node_deps(scratch, g, n, &deps);
      for (int k = deps.n - 1; k >= 0; k--)
        if (!deps.data[k]->mark) vec_push(scratch, &stack, deps.data[k]);
    }
  }
  for (int i = 0; i < order.n && i < g->nodes.n; i++) g->nodes.data[i] = order.data[i];
  arena_free(scratch);
}

const Expr *model_bound(Model *m, const Expr *sym) {
  for (int k = 0; k < m->bounds.n; k++) {
    SizeBound *const b = &m->bounds.data[k];
    if (strcmp(b->name, expr_symbol(m->pool, sym->id)->name) != 0) continue;
    b->used = true;
    return ex_i64(m->pool, b->most);
  }
  return NULL;
}

/* ---- questions ---- */

const Attr *node_attr(const Node *n, const char *name) {
  for (int i = 0; i < n->n_attrs; i++)
    if (strcmp(n->attrs[i].name, name) == 0) return &n->attrs[i];
  return NULL;
}

int64_t node_int(const Node *n, const char *name, int64_t def) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == AT_INT ? a->ints[0] : def;
}

double node_float(const Node *n, const char *name, double def) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == AT_FLOAT ? a->floats[0] : def;
}

const char *node_title(Arena *a, const Node *n) {
  const char *name = n->loc && n->loc->node_name && *n->loc->node_name ? n->loc->node_name
                     : n->n_out && n->out[0] && n->out[0]->name        ? n->out[0]->name
                                                                       : n->op->name;
  return arena_strdup(a, name);
}

const char *node_string(const Node *n, const char *name, const char *def) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == AT_STRING ? a->strs[0] : def;
}

int node_ints(const Node *n, const char *name, const int64_t **v) {
  const Attr *a = node_attr(n, name);
  *v = a && a->kind == AT_INTS ? a->ints : NULL;
  return *v ? a->n : 0;
}

int64_t node_ints_at(const Node *n, const char *name, int k, int64_t def) {
  const int64_t *v;
  return k < node_ints(n, name, &v) ? v[k] : def;
}

Graph *node_region(const Node *n, const char *name) {
  const Attr *a = node_attr(n, name);
  return a && a->kind == AT_GRAPH ? a->graph : NULL;
}

bool value_is_static(const Value *v, int64_t *dims) {
  for (int d = 0; d < v->rank; d++) {
    int64_t k;
    if (!expr_is_const(v->dims[d], &k)) return false;
    if (dims) dims[d] = k;
  }
  return v->rank >= 0;
}

bool value_one_element(const Value *v) {
  for (int d = 0; d < v->rank; d++)
    if (!expr_is_i64(v->dims[d], 1)) return false;
  return true;
}

bool value_is_byte(const Value *v) {
  return v->kind == TY_TENSOR && (v->dtype == DT_U8 || v->dtype == DT_I8);
}

bool value_same_shape(const Value *a, const Value *b) {
  if (a->rank != b->rank || a->rank < 0) return false;
  for (int d = 0; d < a->rank; d++)
    if (a->dims[d] != b->dims[d]) return false;
  return true;
}

const Expr *value_count(ExprPool *p, const Value *v) {
  const Expr *e = ex_i64(p, 1);
  for (int d = 0; d < v->rank; d++) e = ex_mul(p, e, v->dims[d]);
  return e;
}

int64_t const_int(const ConstData *c, int64_t i) {
  return dtype_load_i(c->dtype, (const char *)c->data + (size_t)i * (size_t)dtype_bytes(c->dtype));
}

double const_float(const ConstData *c, int64_t i) {
  return dtype_load_f(c->dtype, (const char *)c->data + (size_t)i * (size_t)dtype_bytes(c->dtype));
}

bool value_known(const Value *v) {
  return v->contents || (v->cdata && dtype_rows[v->dtype].cls != DC_STRING &&
                         dtype_rows[v->dtype].cls != DC_COMPLEX);
}

bool value_compares_sizes(const Value *v) {
  const Expr *const e = v->contents ? v->contents[0] : NULL;
  return e && e->op == EX_eq && e->a[0]->dtype == DT_I64 && !(e->flags & ~EXF_SYM);
}

/* Number of elements of a value with contents (small by construction). */
static int64_t static_count(const Value *v) {
  int64_t dims[MAX_RANK], count = 1;
  if (!value_is_static(v, dims)) return 0;
  for (int d = 0; d < v->rank; d++) count *= dims[d];
  return count;
}

enum { MAX_TREE = 4000 };                            /* parts of a size */
static const double MAX_ELEMENTS = 70368744177664.0; /* 2^46 */

const char *dims_problem(Model *m, int rank, const Expr *const *dims) {
  double all = 1;
  for (int d = 0; d < rank; d++) {
    if (expr_tree_size(dims[d]) > MAX_TREE)
      return arena_printf(m->arena, "the expression of axis %d has more than %d parts", d,
                          (int)MAX_TREE);
    const double size = expr_magnitude(dims[d], 1);
    all *= size > 1 ? size : 1;
    if (all > MAX_ELEMENTS)
      return arena_printf(m->arena, "axis %d has size %s", d, expr_text(m->pool, dims[d]));
  }
  return NULL;
}

const Expr *value_element(ExprPool *p, const Value *v, int64_t flat) {
  if (flat < 0 || !value_known(v)) return NULL;
  if (v->contents) return flat < static_count(v) ? v->contents[flat] : NULL;
  if (flat >= v->cdata->count) return NULL;
  if (dtype_is_float(v->dtype)) return ex_float(p, v->dtype, const_float(v->cdata, flat));
  return ex_int(p, v->dtype, const_int(v->cdata, flat));
}

int64_t index_of_key(int64_t key) {
  if (key >= INT64_C(1) << 62) key -= INT64_C(1) << 62;
  return key & 1 ? (key - 1) / 2 : -(key / 2);
}

void graph_forget_contents(Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *const n = g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++)
      if (n->out[k]) n->out[k]->contents = NULL;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && n->attrs[k].graph)
        graph_forget_contents(n->attrs[k].graph);
  }
}

/* ---- users ---- */

/* A use inside a region counts for the node itself, and for every owner around it up to v's own
 * graph. */
static void add_use(Uses *u, Arena *a, const Value *v, Node *by) {
  if (!v || v->id >= u->n) return;
  vec_push(a, &u->of[v->id], by);
  for (const Graph *g = by->graph; v->def && g != v->def->graph && g->owner; g = g->owner->graph)
    vec_push(a, &u->of[v->id], g->owner);
}

static void count_uses(Uses *u, Arena *a, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_in; k++) add_use(u, a, n->in[k], n);
    for (int k = 0; k < n->n_syms; k++) add_use(u, a, n->syms[k].src, n);
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && n->attrs[k].graph) count_uses(u, a, n->attrs[k].graph);
  }
  for (int i = 0; i < g->outputs.n; i++)
    if (g->outputs.data[i] && g->outputs.data[i]->id < u->n) u->outputs[g->outputs.data[i]->id]++;
}

Uses *graph_uses(Graph *main, Arena *scratch) {
  Uses *u = ARENA_NEW(scratch, Uses);
  u->n = main->model->next_value;
  u->of = arena_alloc_array(scratch, (size_t)u->n, sizeof *u->of);
  u->outputs = ARENA_ARRAY(scratch, int, u->n);
  count_uses(u, scratch, main);
  return u;
}

/* ---- attributes ---- */

Attr attr_ints(Arena *a, const char *name, int n, const int64_t *v) {
  return (Attr){
      .name = name, .kind = AT_INTS, .n = n, .ints = arena_dup(a, v, sizeof *v * (size_t)n)};
}

Attr attr_int(Arena *a, const char *name, int64_t v) {
  return (Attr){.name = name, .kind = AT_INT, .n = 1, .ints = arena_dup(a, &v, sizeof v)};
}

Attr attr_float(Arena *a, const char *name, double v) {
  return (Attr){.name = name, .kind = AT_FLOAT, .n = 1, .floats = arena_dup(a, &v, sizeof v)};
}

Attr attr_string(Arena *a, const char *name, const char *v) {
  const char *s = arena_strdup(a, v);
  return (Attr){.name = name, .kind = AT_STRING, .n = 1, .strs = arena_dup(a, &s, sizeof s)};
}

/* ---- in place ---- */
void model_find_state(Model *m) {
  m->state_bytes = 0;
  for (int i = 0; i < m->state.n; i++) {
    StateItem *s = &m->state.data[i];
    const Value *in = s->input < m->main->inputs.n ? m->main->inputs.data[s->input] : NULL;
    s->initial = in && in->init ? in->init->cdata : NULL;
    m->state_bytes = (s->offset + s->bytes + 63) / 64 * 64;
  }
}

const char *const state_kind_names[STATE_SCALE + 1] = {"parameter", "statistic", "moment",
                                                       "gradient",  "counter",   "scale"};

const StateItem *model_bad_state(const Model *m) {
  int64_t end = 0, dims[MAX_RANK];
  for (int i = 0; i < m->state.n; i++) {
    const StateItem *s = &m->state.data[i];
    const Value *in =
        s->input >= 0 && s->input < m->main->inputs.n ? m->main->inputs.data[s->input] : NULL;
    if (!in || !value_is_static(in, dims)) return s;
    const InPlace *x = model_input_in_place(m, s->input);
    int64_t bytes = dtype_bytes(in->dtype);
    for (int d = 0; d < in->rank; d++) bytes *= dims[d];
    if (bytes != s->bytes || s->offset < end || s->offset % 64 || s->offset > INT64_MAX / 4 ||
        (x ? x->output : -1) != s->output || s->initial != (in->init ? in->init->cdata : NULL))
      return s;
    end = s->offset + s->bytes;
  }
  return NULL;
}

const InPlace *model_input_in_place(const Model *m, int k) {
  for (int i = 0; i < m->in_place.n; i++)
    if (m->in_place.data[i].input == k) return &m->in_place.data[i];
  return NULL;
}

const InPlace *model_output_in_place(const Model *m, int k) {
  for (int i = 0; i < m->in_place.n; i++)
    if (m->in_place.data[i].output == k) return &m->in_place.data[i];
  return NULL;
}

const Expr **in_place_dims(Arena *a, ExprPool *p, const InPlace *i, const Value *v) {
  const Expr **dims = ARENA_ARRAY(a, const Expr *, v->rank + 1);
  for (int d = 0; d < v->rank; d++) dims[d] = d == i->axis ? ex_i64(p, i->room) : v->dims[d];
  return dims;
}
