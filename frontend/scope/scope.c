/* Names while a graph is being imported, and the one way to add a node to it: counted, and
 * inferred at once. */
#include "frontend/scope/scope.h"

const Value scope_absent = {.id = -1};

/* ---- scopes ---- */
Value *scope_find(const Scope *s, const char *name) {
  for (; s; s = s->parent) {
    Value *v = strmap_get(&s->values, name);
    if (v) return v;
  }
  return NULL;
}

bool scope_define(Import *im, Scope *s, const char *name, const Value *v, const Loc *loc) {
  for (const Scope *q = s; q; q = q->same ? q->parent : NULL)
    if (strmap_get(&q->values, name))
      return diag_error(im->d, loc, ERR_DUP_NAME, "the name \"%s\" is defined twice", name);
  strmap_put(im->scratch, &s->values, name, (void *)v);
  return true;
}

Loc named_loc(const Import *im, const char *path, const char *name) {
  return (Loc){.file = im->path, .graph = path, .node = -1, .node_name = name};
}

/* ---- nodes ---- */
/* Constants count, too: functions multiply them. */
bool count_node(Import *im, const Loc *loc) {
  if (++im->nodes <= MAX_NODES) return true;
  return diag_error(im->d, loc, ERR_LIMIT, "the model has more than %d nodes", MAX_NODES);
}

Node *import_emit(Import *im, Graph *g, const OpRow *row, int n_in, Value *const *in,
                  const Loc *loc) {
  if (!count_node(im, loc)) return NULL;
  return graph_add_node(g, NULL, row, n_in, in, loc);
}

/* A region is inferred by its owner, which knows whether it can run at all; here its nodes are
 * tried, because upgrades want to know ranks. */
bool import_infer(Import *im, Node *n) {
  for (int k = 0; k < n->n_in; k++)
    if (n->in[k] && n->in[k]->kind == TY_NONE) return true;
  if (n->graph == im->version) return infer_pinned(im, n);
  if (!n->graph->parent) return op_infer(im->m, n);
  im->m->diag = diag_new(im->scratch);
  const bool ok = op_infer(im->m, n);
  im->m->diag = im->d;
  for (int k = 0; k < n->n_out && !ok; k++)
    if (n->out[k]) n->out[k]->kind = TY_NONE;
  return true;
}

Value *import_value(Import *im, Graph *g, const OpRow *row, int n_in, Value *const *in, int n_attrs,
                    const Attr *attrs, const Loc *loc) {
  Node *const n = import_emit(im, g, row, n_in, in, loc);
  if (!n) return NULL;
  for (int k = 0; k < n_attrs; k++) node_set_attr(n, attrs[k]);
  Value *const v = node_add_output(n, NULL);
  return import_infer(im, n) ? v : NULL;
}
