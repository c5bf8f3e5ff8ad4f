/* Prints the graph IR. The text parses back (graph_parse.c); its grammar stands in docs/ir.md.
 * Values are numbered as in memory; constants come first; data of big constants follows the
 * graph. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "ir/text/frame.h"

static void print_graph(const Graph *g, StrBuf *b, int indent);

/* Attributes are doubles, but mostly hold an f32 from the file: then with a suffix, `1e-05f`. */
static void print_attr_float(StrBuf *b, double v) {
  char t[40], s[40];
  frame_float(t, v, false);
  const bool single = isfinite(v) && (double)(float)v == v;
  if (single) frame_float(s, v, true);
  if (single && strlen(s) < strlen(t))
    sb_printf(b, "%sf", s);
  else
    sb_printf(b, "%s", t);
}

static void print_layout(const Value *v, StrBuf *b) {
  const Layout *l = &v->layout;
  if (l->perm) {
    sb_printf(b, " layout=[");
    for (int d = 0; d < v->rank; d++) sb_printf(b, "%s%d", d ? "," : "", l->perm[d]);
    sb_putc(b, ']');
  }
  if (l->halo_lo || l->halo_hi) {
    sb_printf(b, " halo=[");
    for (int d = 0; d < v->rank; d++)
      sb_printf(b, "%s%d:%d", d ? "," : "", l->halo_lo ? l->halo_lo[d] : 0,
                l->halo_hi ? l->halo_hi[d] : 0);
    sb_putc(b, ']');
  }
  if (l->fill) sb_printf(b, " fill=%d", l->fill);
  if (l->pad) sb_printf(b, " pad=%d", l->pad);
  if (v->inlined) sb_printf(b, " inline");
}

static void print_def(const Model *m, const Value *v, StrBuf *b) {
  if (!v) {
    sb_putc(b, '_');
    return;
  }
  sb_printf(b, "%%%d : ", v->id);
  frame_type(m, v, b);
  print_layout(v, b);
}

static void print_use(const Value *v, StrBuf *b) {
  if (v)
    sb_printf(b, "%%%d", v->id);
  else
    sb_putc(b, '_');
}

/* ---- attributes ---- */

static void print_attr_item(const Attr *a, int i, StrBuf *b) {
  if (a->kind == AT_INT || a->kind == AT_INTS)
    sb_printf(b, "%lld", (long long)a->ints[i]);
  else if (a->kind == AT_FLOAT || a->kind == AT_FLOATS)
    print_attr_float(b, a->floats[i]);
  else
    sb_quoted(b, a->strs[i]);
}

static void print_attr(const Attr *a, StrBuf *b, int indent) {
  static const char *const empty[] = {
      [AT_INTS] = "ints", [AT_FLOATS] = "floats", [AT_STRINGS] = "strings"};
  frame_ident(b, a->name);
  sb_putc(b, '=');
  if (a->kind == AT_TENSOR) {
    sb_printf(b, "#%d", a->tensor->id);
  } else if (a->kind == AT_GRAPH) {
    print_graph(a->graph, b, indent + 2);
  } else if (a->kind < AT_TENSOR) {
    print_attr_item(a, 0, b);
  } else {
    if (a->n == 0) sb_printf(b, "%s", empty[a->kind]);
    sb_putc(b, '[');
    for (int i = 0; i < a->n; i++) {
      if (i) sb_putc(b, ',');
      print_attr_item(a, i, b);
    }
    sb_putc(b, ']');
  }
}

static void print_attrs(const Node *n, StrBuf *b, int indent) {
  for (int i = 0; i < n->n_attrs; i++) {
    sb_printf(b, i ? ", " : " {");
    print_attr(&n->attrs[i], b, indent);
  }
  if (n->n_attrs) sb_putc(b, '}');
}

/* ---- nodes ---- */

static void print_syms(const Model *m, const Node *n, StrBuf *b) {
  for (int i = 0; i < n->n_syms; i++) {
    const SymDef *s = &n->syms[i];
    sb_printf(b, i ? ", " : " where ");
    expr_print(m->pool, s->sym, b);
    sb_printf(b, " = ");
    if (s->src)
      sb_printf(b, "%%%d[%lld]", s->src->id, (long long)s->elem);
    else
      expr_print(m->pool, s->value, b);
    static const char *const rules[] = {"", " index", " index from 0", " length"};
    sb_printf(b, "%s", rules[s->index]);
    if (!s->src && s->elem) sb_printf(b, " key %lld", (long long)s->elem);
  }
}

static void print_node(const Model *m, const Node *n, StrBuf *b, int indent) {
  sb_printf(b, "%*s", indent, "");
  for (int k = 0; k < n->n_out; k++) {
    if (k) sb_printf(b, ", ");
    print_def(m, n->out[k], b);
  }
  sb_printf(b, n->n_out ? " = " : "() = ");
  if (n->op->domain && *n->op->domain) sb_printf(b, "%s.", n->op->domain);
  sb_printf(b, "%s", n->op->name);
  for (int k = 0; k < n->n_in; k++) {
    sb_printf(b, k ? ", " : " ");
    print_use(n->in[k], b);
  }
  print_attrs(n, b, indent);
  if (n->plan) {
    sb_putc(b, ' ');
    plan_print(n->plan, b);
  }
  print_syms(m, n, b);
  frame_loc(n->loc, b);
  sb_putc(b, '\n');
}

/* ---- constants ---- */

typedef struct Seen { /* constants that the text refers to */
  bool *value, *data;
  Vec(const Value *) values; /* in order of id, after sorting */
  Arena *arena;
} Seen;

static void see_value(Seen *s, const Value *v) {
  if (!v || !v->cdata || s->value[v->id]) return;
  s->value[v->id] = true;
  s->data[v->cdata->id] = true;
  vec_push(s->arena, &s->values, v);
}

static void see_graph(Seen *s, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_in; k++) see_value(s, n->in[k]);
    for (int k = 0; k < n->n_syms; k++) see_value(s, n->syms[k].src);
    for (int k = 0; k < n->n_attrs; k++) {
      if (n->attrs[k].kind == AT_TENSOR) s->data[n->attrs[k].tensor->id] = true;
      if (n->attrs[k].kind == AT_GRAPH) see_graph(s, n->attrs[k].graph);
    }
  }
  for (int i = 0; i < g->outputs.n; i++) see_value(s, g->outputs.data[i]);
  for (int i = 0; i < g->inputs.n; i++) see_value(s, g->inputs.data[i]->init);
}

static int by_id(const void *a, const void *b) {
  return (*(const Value *const *)a)->id - (*(const Value *const *)b)->id;
}

static Seen see_model(const Model *m, Arena *scratch) {
  Seen s = {.arena = scratch};
  s.value = ARENA_ARRAY(scratch, bool, m->next_value + 1);
  s.data = ARENA_ARRAY(scratch, bool, m->consts.n + 1);
  see_graph(&s, m->main);
  if (s.values.n) qsort(s.values.data, (size_t)s.values.n, sizeof *s.values.data, by_id);
  return s;
}

static void print_const(const Model *m, const Value *v, StrBuf *b, int indent) {
  sb_printf(b, "%*s", indent, "");
  print_def(m, v, b);
  sb_printf(b, " = const #%d", v->cdata->id);
  if (v->name) {
    sb_putc(b, ' ');
    sb_quoted(b, v->name);
  }
  if (frame_is_small(v->cdata)) {
    sb_printf(b, " = ");
    frame_elements(v->cdata, b);
  }
  sb_putc(b, '\n');
}

/* ---- graphs ---- */

/* The number of an iteration is a symbol that sizes in the body may name. */
static void print_iteration(const Model *m, const Value *v, StrBuf *b) {
  if (v->rank != 0 || !v->contents || v->contents[0]->op != EX_SYM) return;
  sb_printf(b, " is ");
  expr_print(m->pool, v->contents[0], b);
}

static void print_body(const Graph *g, StrBuf *b, int indent) {
  const Model *m = g->model;
  for (int i = 0; i < g->inputs.n; i++) {
    sb_printf(b, "%*s", indent, "");
    print_def(m, g->inputs.data[i], b);
    sb_printf(b, " = input");
    if (g->inputs.data[i]->name) {
      sb_putc(b, ' ');
      sb_quoted(b, g->inputs.data[i]->name);
    }
    if (g->inputs.data[i]->init) sb_printf(b, " default %%%d", g->inputs.data[i]->init->id);
    if (g->inputs.data[i]->pinned) sb_printf(b, " pinned");
    frame_list(m, graph_list(g, i, false), b);
    if (i == 0 && g->parent) print_iteration(m, g->inputs.data[i], b);
    sb_putc(b, '\n');
  }
  if (g->unset) {
    sb_printf(b, "%*s", indent, "");
    print_def(m, g->unset, b);
    sb_printf(b, " = unset\n");
  }
  for (int i = 0; i < g->nodes.n; i++) print_node(m, g->nodes.data[i], b, indent);
  for (int i = 0; i < g->outputs.n; i++) {
    sb_printf(b, "%*soutput ", indent, "");
    print_use(g->outputs.data[i], b);
    const char *name = i < g->output_names.n ? g->output_names.data[i] : NULL;
    if (name) {
      sb_putc(b, ' ');
      sb_quoted(b, name);
    }
    frame_keys(graph_output_keys(g, i), b);
    frame_list(m, graph_list(g, i, true), b);
    sb_putc(b, '\n');
  }
}

static void print_head(const Graph *g, StrBuf *b) {
  sb_printf(b, "graph @");
  frame_ident(b, g->name);
  sb_printf(b, " {\n");
}

static void print_graph(const Graph *g, StrBuf *b, int indent) {
  print_head(g, b);
  print_body(g, b, indent);
  sb_printf(b, "%*s}", indent - 2, "");
}

/* ---- the model ---- */

static void print_symbols(const Model *m, StrBuf *b) {
  for (int i = 0; i < expr_symbol_count(m->pool); i++) {
    const Symbol *s = expr_symbol(m->pool, i);
    sb_printf(b, "symbol ");
    expr_print(m->pool, ex_sym(m->pool, s->name), b);
    sb_printf(b, " from %lld", (long long)s->lo);
    if (s->bound) {
      sb_printf(b, " to ");
      expr_print(m->pool, s->bound, b);
    }
    sb_printf(b, "%s\n", s->runtime ? " runtime" : "");
  }
  for (int i = 0; i < m->assumes.n; i++) frame_assume(m, &m->assumes.data[i], b);
  frame_in_place(m, b);
}

/* Everything but data that stand behind the graph. */
static void print_model(const Model *m, const Seen *seen, StrBuf *b) {
  frame_head(m, b);
  print_symbols(m, b);
  if (m->fused || m->laid_out)
    sb_printf(b, "holds%s%s\n", m->fused ? " fused" : "", m->laid_out ? " laid_out" : "");
  print_head(m->main, b);
  for (int i = 0; i < seen->values.n; i++) print_const(m, seen->values.data[i], b, 2);
  print_body(m->main, b, 2);
  sb_printf(b, "}\n");
}

/* Constants whose data do not stand where they are defined. */
static ConstList apart(const Model *m, const Seen *seen) {
  ConstList l = {0};
  bool *defined = ARENA_ARRAY(seen->arena, bool, m->consts.n + 1);
  for (int i = 0; i < seen->values.n; i++)
    if (frame_is_small(seen->values.data[i]->cdata))
      defined[seen->values.data[i]->cdata->id] = true;
  for (int i = 0; i < m->consts.n; i++)
    if (seen->data[i] && !defined[i]) vec_push(seen->arena, &l, m->consts.data[i]);
  return l;
}

void model_print(const Model *m, StrBuf *b, bool with_consts) {
  Arena *scratch = arena_child(m->arena);
  const Seen seen = see_model(m, scratch);
  const ConstList l = apart(m, &seen);
  print_model(m, &seen, b);
  frame_data(m, &l, with_consts, b);
  arena_free(scratch);
}

void model_print_beside(const Model *m, StrBuf *b, TextStore *store, const char *name) {
  Arena *scratch = arena_child(m->arena);
  const Seen seen = see_model(m, scratch);
  const ConstList l = apart(m, &seen);
  print_model(m, &seen, b);
  frame_data_beside(m, &l, store, name, b);
  arena_free(scratch);
}

int64_t model_text_bytes(const Model *m) {
  Arena *scratch = arena_child(m->arena);
  const Seen seen = see_model(m, scratch);
  const ConstList l = apart(m, &seen);
  const int64_t bytes = frame_data_bytes(&l);
  arena_free(scratch);
  return bytes;
}
