/* If, of which only the branch that runs is imported where the condition is known; graphs of nodes as
 * if they stood around the node; and what is known of the inputs of a body. */
#include <string.h>
#include "frontend/scope/scope.h"

typedef Onnx__NodeProto NodeProto;
typedef Onnx__GraphProto GraphProto;

static bool known_bool(const Value *v, bool *out) {
  int64_t n;
  if (!v || v->kind != TY_TENSOR || v->dtype != DT_BOOL) return false;
  if (v->cdata && v->cdata->count == 1)
    n = const_int(v->cdata, 0);
  else if (!v->contents || !expr_is_const(v->contents[0], &n))
    return false;
  *out = n != 0;
  return true;
}

const GraphProto *node_graph(const NodeProto *p, const char *name) {
  for (size_t k = 0; k < p->n_attribute; k++)
    if (p->attribute[k]->name && strcmp(p->attribute[k]->name, name) == 0)
      return p->attribute[k]->g;
  return NULL;
}

/* ---- a graph as if its nodes stood around the node ---- */
static bool inline_nodes(Import *im, Scope *s, const GraphProto *g, LeaveTo to, const char *which,
                         const Loc *loc, Value *const *in) {
  const NodeList list = import_list(im, g, to);
  if (++im->calls > MAX_CALLS)
    return diag_error(im->d, loc, ERR_LIMIT, "more than %d graphs are inlined", MAX_CALLS);
  for (size_t k = 0; k < g->n_input; k++)
    if (!g->input[k]->name || !scope_define(im, s, g->input[k]->name, in[k], loc))
      return diag_error(im->d, loc, ERR_UNDEFINED, "input %zu of %s has no name", k, which);
  return import_initializers(im, s, g) && fork_import(im, s, &list);
}

static bool has_output(const Scope *s, const GraphProto *g, size_t k) {
  const char *const name = g->output[k]->name;
  return name && (fork_has(s, name) || scope_find(s, name));
}

static Scope inline_scope(Import *im, const Scope *outer, const char *which, const Loc *loc) {
  Scope s = region_scope(im, outer, which, loc->node);
  s.graph = outer->graph;
  return s;
}

bool import_inline(Import *im, const Scope *outer, const NodeProto *p, const GraphProto *g,
                   const char *which, const Loc *loc, Value *const *in, Value **out) {
  Scope s = inline_scope(im, outer, which, loc);
  if (!inline_nodes(im, &s, g, LEAVE_BODY, which, loc, in)) return false;
  for (size_t k = 0; k < p->n_output; k++) {
    if (!has_output(&s, g, k))
      return diag_error(im->d, loc, ERR_UNDEFINED, "output %zu of %s is not defined", k, which);
    out[k] = scope_find(&s, g->output[k]->name);
  }
  return true;
}

static bool inline_branch(Import *im, Scope *outer, const NodeProto *p, const GraphProto *g,
                          const char *which, const Loc *loc) {
  Scope s = inline_scope(im, outer, which, loc);
  if (g->n_input || g->n_output < p->n_output)
    return diag_error(im->d, loc, ERR_ARITY, "%s has %zu inputs and %zu outputs", which, g->n_input,
                      g->n_output);
  if (!inline_nodes(im, &s, g, LEAVE_BRANCH, which, loc, NULL)) return false;
  for (size_t k = 0; k < p->n_output; k++) {
    if (!has_output(&s, g, k))
      return diag_error(im->d, loc, ERR_UNDEFINED, "output %zu of %s is not defined", k, which);
    if (*p->output[k] && !fork_bind(im, outer, p->output[k], &s, g->output[k]->name, loc))
      return false;
  }
  return true;
}

/* ---- If ---- */
bool import_if(Import *im, Scope *s, const NodeProto *p, Value *cond, Attr attrs[2],
               const Loc *loc) {
  NodeProto named = *p;
  named.n_input = 1;
  named.input = (char *[]){"cond"};
  return import_op(im, s, &named, &cond, attrs, 2, loc) &&
         list_leave(im, s, p, &cond, attrs, 2, loc);
}

static bool has_names(const NodeProto *p, const GraphProto *g) {
  bool ok = !g->n_input && g->n_output == p->n_output;
  for (size_t k = 0; ok && k < g->n_output; k++) ok = g->output[k]->name && *g->output[k]->name;
  return ok;
}

/* Two graphs, the way they should be; else the usual way says what is wrong. */
static bool is_plain_if(const NodeProto *p, Value *const *in) {
  bool ok = p->n_input == 1 && in[0] && p->n_attribute == 2;
  for (size_t k = 0; ok && k < 2; k++)
    ok = p->attribute[k]->name && p->attribute[k]->g && has_names(p, p->attribute[k]->g);
  return ok && node_graph(p, "then_branch") && node_graph(p, "else_branch");
}

/* Both branches; the attributes in the order of the file. */
static bool import_branches(Import *im, Scope *s, const NodeProto *p, int index, Value *cond,
                            const Loc *loc) {
  static const char *const names[] = {"then_branch", "else_branch"};
  Scope *at[2];
  const GraphProto *const g[2] = {node_graph(p, names[0]), node_graph(p, names[1])};
  const int first = strcmp(p->attribute[0]->name, names[1]) == 0;
  Attr attrs[2];
  bool opened = false;
  im->lists = NULL; /* branches have no inputs */
  for (int i = 0; i < 2; i++) {
    const int j = i ^ first;
    at[j] = ARENA_NEW(im->scratch, Scope);
    *at[j] = region_scope(im, s, names[j], index);
    at[j]->graph = graph_new(im->m, s->graph, names[j]);
    attrs[i] = (Attr){.name = names[j], .kind = AT_GRAPH, .n = 1, .graph = at[j]->graph};
    if (!import_graph(im, at[j], g[j], LEAVE_BRANCH)) return false;
  }
  if (!im->plain && !fork_open(im, s, p, cond, loc, at, g, &opened)) return false;
  if (opened) return true;
  for (int i = 0; i < 2; i++)
    if (!import_outputs(im, at[i ^ first], g[i ^ first])) return false;
  return import_if(im, s, p, cond, attrs, loc);
}

bool branch_node(Import *im, Scope *s, const NodeProto *p, int index, Value **in, const Loc *loc,
                 bool *ok) {
  bool cond;
  if (p->n_input == 1 && known_bool(in[0], &cond)) {
    const char *which = cond ? "then_branch" : "else_branch";
    const GraphProto *g = node_graph(p, which);
    if (g) return *ok = inline_branch(im, s, p, g, which, loc), true;
  }
  if (!is_plain_if(p, in)) return false;
  *ok = import_branches(im, s, p, index, in[0], loc);
  return true;
}

/* ---- bodies ---- */
static bool has_if(Import *im, NodeProto *const *nodes, size_t n, int depth) {
  for (size_t k = 0; k < n; k++) {
    const NodeProto *const p = nodes[k];
    const Function *const f = function_find(im, p);
    if (!f && !*domain_normal(p->domain) && strcmp(p->op_type, "If") == 0) return true;
    if (f && depth < MAX_INLINE_DEPTH && has_if(im, f->proto->node, f->proto->n_node, depth + 1))
      return true;
    for (size_t i = 0; i < p->n_attribute; i++) {
      const GraphProto *const g = p->attribute[i]->g;
      if (g && has_if(im, g->node, g->n_node, depth)) return true;
    }
  }
  return false;
}

static int scanned_inputs(const NodeProto *p) {
  for (size_t k = 0; k < p->n_attribute; k++)
    if (p->attribute[k]->name && strcmp(p->attribute[k]->name, "num_scan_inputs") == 0)
      return p->attribute[k]->i < 0 || p->attribute[k]->i > (int64_t)p->n_input
                 ? (int)p->n_input
                 : (int)p->attribute[k]->i;
  return 0;
}

bool body_enter(Import *im, const NodeProto *p, const Loc *loc, Value *const *in) {
  const GraphProto *const g = node_graph(p, "body");
  const bool loop = strcmp(loc->op, "Loop") == 0, scan = strcmp(loc->op, "Scan") == 0;
  im->carried = (Carried){0};
  if (*loc->domain || !g || (!loop && (!scan || loc->opset < 9))) return false;
  if (g->n_input != p->n_input || !has_if(im, g->node, g->n_node, 0)) return false;
  im->carried = (Carried){
      .in = in, .n = (int)p->n_input, .counts = loop, .scanned = scan ? scanned_inputs(p) : 0};
  return true;
}

static void forget_types(Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *const n = g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++) {
      Value *const v = n->out[k];
      if (!v) continue;
      v->kind = TY_NONE;
      v->rank = -1;
      v->dims = NULL;
      v->contents = NULL;
    }
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && n->attrs[k].graph) forget_types(n->attrs[k].graph);
  }
}

void body_leave(Import *im, const Attr *attrs, int n_attrs, int assumed) {
  im->m->assumes.n = assumed;
  for (int k = 0; k < n_attrs; k++)
    if (attrs[k].kind == AT_GRAPH) forget_types(attrs[k].graph);
}

/* Its type and rank; sizes may be others in each iteration, and the Loop's inference tells them. */
void body_input(Import *im, const Carried *c, int k, Value *v) {
  const Expr *dims[MAX_RANK];
  if (k >= c->n) return;
  if (c->counts && k < 2) {
    value_set_tensor(im->m, v, k ? DT_BOOL : DT_I64, 0, NULL);
    return;
  }
  const Value *const first = c->in[k];
  const int rank = first && first->kind == TY_TENSOR ? first->rank - (k >= c->n - c->scanned) : -1;
  if (rank < 0) return;
  for (int d = 0; d < rank; d++) {
    dims[d] = ex_sym_fresh(im->m->pool, "body");
    expr_symbol(im->m->pool, dims[d]->id)->runtime = true;
  }
  value_set_tensor(im->m, v, first->dtype, rank, dims);
}
