/* --gradient=Y:X,…: Gradient nodes, whose results become outputs named X_grad, or
 * X_grad2 … where that is taken. */
#include <string.h>
#include "driver/driver.h"
#include "ir/op/op.h"

static Value *named(Value *v, const char *name) {
  return v && v->name && strcmp(v->name, name) == 0 ? v : NULL;
}

/* An output, input, result of a node or constant of the main graph. */
static Value *find(const Graph *g, const char *name) {
  for (int k = 0; k < g->outputs.n; k++)
    if (strcmp(g->output_names.data[k], name) == 0) return g->outputs.data[k];
  for (int k = 0; k < g->inputs.n; k++)
    if (named(g->inputs.data[k], name)) return g->inputs.data[k];
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++)
      if (named(n->out[k], name)) return n->out[k];
    for (int k = 0; k < n->n_in; k++) {
      Value *v = n->in[k];
      if (v && v->cdata &&
          (named(v, name) || (v->cdata->name && strcmp(v->cdata->name, name) == 0)))
        return v;
    }
  }
  return NULL;
}

static Value *need(const Session *s, const char *text, const char *name) {
  Value *v = find(s->model->main, name);
  if (!v) usage_error("--gradient=%s: the model has no value '%s'", text, name);
  return v;
}

static bool one_gradient(Session *s, const char *text) {
  enum { MOST = 4096 };
  Model *m = s->model;
  Graph *g = m->main;
  const char *colon = strchr(text, ':');
  Value *in[MOST];
  const char *names[MOST];
  int n = 1;
  if (!colon || colon == text || !colon[1])
    return usage_error("--gradient=%s: give Y:X or Y:X,X,…", text), false;
  in[0] = need(s, text, arena_strndup(s->arena, text, (size_t)(colon - text)));
  for (const char *at = colon + 1; in[0] && *at; n++) {
    const size_t length = strcspn(at, ",");
    if (n == MOST) return usage_error("--gradient: more than %d values", MOST - 1), false;
    names[n] = arena_strndup(s->arena, at, length);
    in[n] = need(s, text, names[n]);
    if (!in[n]) return false;
    at += length + (at[length] == ',');
  }
  if (!in[0]) return false;
  const Loc *loc =
      arena_dup(m->arena, &(Loc){.file = m->file, .node = -1, .node_name = text}, sizeof *loc);
  Node *node = graph_add_node(g, NULL, op_find("burin", "Gradient"), n, in, loc);
  for (int k = 1; k < n; k++) {
    const char *name = arena_printf(m->arena, "%s_grad", names[k]);
    for (int i = 2; find(g, name); i++) name = arena_printf(m->arena, "%s_grad%d", names[k], i);
    vec_push(m->arena, &g->outputs, node_add_output(node, name));
    vec_push(m->arena, &g->output_names, name);
  }
  return op_infer(m, node);
}

bool session_gradients(Session *s) {
  for (int k = 0; k < s->o->gradients.n; k++)
    if (!one_gradient(s, s->o->gradients.v[k])) return false;
  return true;
}
