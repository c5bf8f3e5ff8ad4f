/* Checks what every pass may rely on and must keep: order and visibility of definitions, known
 * types, sizes over symbols only, arities, layouts. A failure is a bug of ours and names the pass
 * that ran last. */
#include <string.h>
#include "ir/graph/op_row.h"

typedef struct Verify {
  const Model *m;
  const char *after;
  const Graph **home; /* by value id: graph in which it is visible; NULL: not defined yet */
  int n;
  int untyped; /* > 0 inside a branch that never runs: it need not have types */
  bool ok;
} Verify;

static void bad(Verify *v, const Node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void bad(Verify *v, const Node *n, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *text = arena_vprintf(v->m->arena, fmt, ap);
  va_end(ap);
  const Loc none = {.file = v->m->file, .node = -1};
  diag_error(v->m->diag, n && n->loc ? n->loc : &none, ERR_VERIFY, "after pass %s: %s%s%s",
             v->after ? v->after : "none", n ? n->op->name : "", n ? ": " : "", text);
  v->ok = false;
}

static bool encloses(const Graph *outer, const Graph *g) {
  for (; g; g = g->parent)
    if (g == outer) return true;
  return false;
}

static void check_use(Verify *v, const Graph *g, const Node *n, const Value *x) {
  if (!x || x->cdata) return;
  if (x->id < 0 || x->id >= v->n)
    bad(v, n, "value number %d is out of range", x->id);
  else if (!v->home[x->id])
    bad(v, n, "%%%d is used before it is defined", x->id);
  else if (!encloses(v->home[x->id], g))
    bad(v, n, "%%%d is not visible here", x->id);
}

static bool is_perm(const int8_t *perm, int rank) {
  unsigned seen = 0;
  for (int d = 0; d < rank; d++) {
    if (perm[d] < 0 || perm[d] >= rank || (seen >> perm[d] & 1)) return false;
    seen |= 1u << perm[d];
  }
  return true;
}

static void check_type(Verify *v, const Node *n, const Value *x) {
  if (x->kind == TY_NONE && !v->untyped) bad(v, n, "%%%d has no type", x->id);
  if (x->kind != TY_TENSOR) return;
  if (x->dtype == DT_NONE || x->rank < 0 || x->rank > MAX_RANK) {
    bad(v, n, "%%%d has no element type or rank", x->id);
    return;
  }
  for (int d = 0; d < x->rank; d++) {
    const Expr *e = x->dims[d];
    if (!e || e->dtype != DT_I64)
      bad(v, n, "dim %d of %%%d is not an i64 expression", d, x->id);
    else if (e->flags & (EXF_VAR | EXF_LOAD | EXF_LOCAL | EXF_REDUCE | EXF_HOLE))
      bad(v, n, "dim %d of %%%d is more than symbols: %s", d, x->id, expr_text(v->m->pool, e));
  }
  if (x->layout.perm && !is_perm(x->layout.perm, x->rank))
    bad(v, n, "layout of %%%d is no permutation", x->id);
}

static void define(Verify *v, const Graph *g, const Node *n, const Value *x) {
  if (x->id < 0 || x->id >= v->n) {
    bad(v, n, "value number %d is out of range", x->id);
    return;
  }
  if (v->home[x->id]) bad(v, n, "%%%d is defined twice", x->id);
  if (x->cdata) bad(v, n, "%%%d is a constant and defined by a node", x->id);
  v->home[x->id] = g;
  check_type(v, n, x);
}

static void check_graph(Verify *v, const Graph *g);

static void check_arity(Verify *v, const Node *n) {
  const OpRow *r = n->op;
  if (n->n_in < r->min_in || (r->max_in >= 0 && n->n_in > r->max_in))
    bad(v, n, "%d inputs", n->n_in);
  if (n->n_out < r->min_out || (r->max_out >= 0 && n->n_out > r->max_out))
    bad(v, n, "%d outputs", n->n_out);
}

static void check_const(Verify *v, const Node *n, const Value *x) {
  if (!x || !x->cdata) return;
  int64_t dims[MAX_RANK];
  if (x->def || x->dtype != x->cdata->dtype || x->rank != x->cdata->rank ||
      !value_is_static(x, dims) ||
      memcmp(dims, x->cdata->dims, sizeof *dims * (size_t)x->rank) != 0)
    bad(v, n, "constant %%%d does not have the type of its data", x->id);
}

static bool never_runs(const Node *n, const char *region) {
  int64_t cond;
  if (n->op->body != OB_REGION || n->op->region != RG_IF || !node_in(n, 0)) return false;
  const Expr *e = value_element(n->graph->model->pool, n->in[0], 0);
  return e && expr_is_const(e, &cond) && strcmp(region, cond ? "else_branch" : "then_branch") == 0;
}

static void check_region(Verify *v, const Graph *g, const Node *n, const Attr *a) {
  const bool dead = never_runs(n, a->name);
  if (a->graph->owner != n || a->graph->parent != g) {
    bad(v, n, "region %s has another owner", a->name);
    return;
  }
  v->untyped += dead;
  check_graph(v, a->graph);
  v->untyped -= dead;
}

static void check_node(Verify *v, const Graph *g, const Node *n) {
  if (n->graph != g) bad(v, n, "node belongs to another graph");
  check_arity(v, n);
  if (n->plan && plan_malformed(n->plan)) bad(v, n, "plan: %s", plan_malformed(n->plan));
  for (int k = 0; k < n->n_in; k++) {
    check_use(v, g, n, n->in[k]);
    check_const(v, n, n->in[k]);
  }
  for (int k = 0; k < n->n_syms; k++) check_use(v, g, n, n->syms[k].src);
  for (int k = 0; k < n->n_attrs; k++)
    if (n->attrs[k].kind == AT_GRAPH) check_region(v, g, n, &n->attrs[k]);
  for (int k = 0; k < n->n_out; k++) {
    const Value *x = n->out[k];
    if (!x) continue;
    if (x->def != n || x->def_index != k) bad(v, n, "output %d does not point back", k);
    define(v, g, n, x);
  }
}

/* The default has the input's type, and its sizes where those are fixed. */
static void check_default(Verify *v, const Value *in) {
  const ConstData *c = in->init->cdata;
  if (!c || c->dtype != in->dtype || c->rank != in->rank)
    bad(v, NULL, "the default of input %%%d has another type", in->id);
  for (int d = 0; v->ok && d < in->rank; d++)
    if (in->dims[d]->op == EX_CONST && !expr_is_i64(in->dims[d], c->dims[d]))
      bad(v, NULL, "the default of input %%%d has another size", in->id);
}

static void check_unset(Verify *v, const Graph *g) {
  const Value *u = g->unset;
  define(v, g, NULL, u);
  if (g->parent || u->kind != TY_TENSOR || u->dtype != DT_BOOL || u->rank != 0)
    bad(v, NULL, "%%%d is no bool of the main graph", u->id);
}

static void check_graph(Verify *v, const Graph *g) {
  for (int i = 0; i < g->inputs.n; i++) {
    define(v, g, NULL, g->inputs.data[i]);
    if (g->inputs.data[i]->init) check_default(v, g->inputs.data[i]);
  }
  if (g->unset) check_unset(v, g);
  for (int i = 0; i < g->nodes.n && v->ok; i++) check_node(v, g, g->nodes.data[i]);
  for (int i = 0; i < g->outputs.n && v->ok; i++) {
    if (!g->outputs.data[i]) bad(v, NULL, "output %d is missing", i);
    check_use(v, g, NULL, g->outputs.data[i]);
  }
}

static bool same_dims(const Value *a, const Value *b, int but) {
  for (int d = 0; d < a->rank; d++)
    if (d != but && a->dims[d] != b->dims[d]) return false;
  return true;
}

/* Both halves are there, once each, and differ along the axis alone. */
static void check_in_place(Verify *v, const InPlace *x) {
  const Graph *g = v->m->main;
  const bool there = x->input >= 0 && x->input < g->inputs.n && x->output >= 0 &&
                     x->output < g->outputs.n &&
                     (x->axis < 0 || (x->room > 0 && x->room <= INT32_MAX));
  const Value *in = there ? g->inputs.data[x->input] : NULL,
              *out = there ? g->outputs.data[x->output] : NULL;
  if (!there || model_input_in_place(v->m, x->input) != x ||
      model_output_in_place(v->m, x->output) != x || in->dtype != out->dtype ||
      in->rank != out->rank || x->axis < -1 || x->axis >= in->rank || !same_dims(in, out, x->axis))
    bad(v, NULL, "input %d and output %d cannot be in one place", x->input, x->output);
}

bool model_verify(const Model *m, const char *after_pass) {
  Arena *scratch = arena_child(m->arena);
  Verify v = {.m = m, .after = after_pass, .n = m->next_value, .ok = true};
  v.home = ARENA_ARRAY(scratch, const Graph *, v.n + 1);
  check_graph(&v, m->main);
  for (int i = 0; i < m->in_place.n && v.ok; i++) check_in_place(&v, &m->in_place.data[i]);
  const StateItem *s = v.ok ? model_bad_state(m) : NULL;
  if (s)
    bad(&v, NULL, "\"%s\" of the state is not input %d, or not where it can be", s->name, s->input);
  arena_free(scratch);
  return v.ok;
}
