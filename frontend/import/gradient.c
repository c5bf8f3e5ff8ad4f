/* Gradient (ai.onnx.preview.training): names xs and zs that y is a function of, and values for them
 * as inputs. Where these are the values of that name, what the graph computes already is used; for
 * others the nodes between are copied. */
#include <string.h>
#include "frontend/scope/scope.h"

bool gradient_known(const char *domain, const char *op) {
  return strcmp(domain, "ai.onnx.preview.training") == 0 && strcmp(op, "Gradient") == 0;
}

static const Attr *named_attr(const Attr *attrs, int n, const char *name) {
  for (int k = 0; k < n; k++)
    if (strcmp(attrs[k].name, name) == 0) return &attrs[k];
  return NULL;
}

static bool is_other(void *user, Value *v) { return graph_copy_of(user, v) != v; }

/* y as it is where c's values stand for others: copies of what depends on them, as far as y. NULL:
 * reported. */
static Value *recomputed(Import *im, Graph *g, GraphCopy *c, Value *y, const Loc *loc) {
  const Graph *const from = y->def ? y->def->graph : g;
  const int n = from->nodes.n; /* copies come behind these */
  for (int i = 0; i < n && y->def; i++) {
    const Node *const node = from->nodes.data[i];
    if (node_any_read(node, is_other, c) &&
        (!count_node(im, loc) || !op_infer(im->m, graph_copy_node(c, g, node))))
      return NULL;
    if (node == y->def) break;
  }
  return graph_copy_of(c, y);
}

/* The names of xs or zs from input `from` on; copies[] learns which inputs are other values. */
static bool bind_names(Import *im, const Scope *s, const Attr *names, int from, Value *const *in,
                       GraphCopy *c, bool *others, const Loc *loc) {
  for (int k = 0; names && k < names->n; k++) {
    Value *v = scope_find(s, names->strs[k]);
    if (!v || v == &scope_absent)
      return diag_error(im->d, loc, ERR_UNDEFINED, "Gradient: there is no value \"%s\"",
                        names->strs[k]);
    if (v == in[from + k]) continue;
    c->to[v->id] = in[from + k];
    *others = true;
  }
  return true;
}

bool gradient_node(Import *im, Scope *s, const Onnx__NodeProto *p, const Loc *loc, Value *const *in,
                   const Attr *attrs, int n_attrs) {
  const Attr *xs = named_attr(attrs, n_attrs, "xs"), *zs = named_attr(attrs, n_attrs, "zs"),
             *y = named_attr(attrs, n_attrs, "y");
  const int n = (int)p->n_input;
  if (!xs || !y || xs->n < 1)
    return diag_error(im->d, loc, ERR_ATTR_MISSING, "Gradient needs attributes xs and y");
  if (n != xs->n + (zs ? zs->n : 0) || p->n_output > (size_t)xs->n)
    return diag_error(im->d, loc, ERR_ARITY, "Gradient has %d inputs and %zu outputs for %d names",
                      n, p->n_output, xs->n + (zs ? zs->n : 0));
  for (int k = 0; k < n; k++)
    if (!in[k] || in[k]->kind != TY_TENSOR)
      return diag_error(im->d, loc, ERR_TYPE, "input %d of Gradient is not a tensor", k);
  Value *of = scope_find(s, y->strs[0]);
  if (!of || of == &scope_absent || of->kind != TY_TENSOR)
    return diag_error(im->d, loc, ERR_UNDEFINED,
                      "Gradient: there is no tensor \"%s\" before the node", y->strs[0]);
  GraphCopy c = graph_copy_new(im->m);
  bool others = false;
  if (!bind_names(im, s, xs, 0, in, &c, &others, loc) ||
      !bind_names(im, s, zs, xs->n, in, &c, &others, loc))
    return false;
  if (others && !(of = recomputed(im, s->graph, &c, of, loc))) return false;
  Value **ins = ARENA_ARRAY(im->arena, Value *, xs->n + 1);
  ins[0] = of;
  for (int k = 0; k < xs->n; k++) ins[k + 1] = in[k];
  if (!count_node(im, loc)) return false;
  Node *node = graph_add_node(s->graph, NULL, op_find("burin", "Gradient"), xs->n + 1, ins, loc);
  for (int k = 0; k < xs->n; k++) {
    const bool given = k < (int)p->n_output && *p->output[k];
    const char *name = given ? arena_strdup(im->arena, p->output[k]) : NULL;
    Value *v = node_add_output(node, name);
    if (given && !scope_define(im, s, name, v, loc)) return false;
  }
  return op_infer(im->m, node);
}
