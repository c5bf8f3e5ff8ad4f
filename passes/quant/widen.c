/* A model of f16 or bf16 computed in f32: every tensor of these types becomes one of f32, and nothing is
 * rounded on the way. Weights stay as they are, behind a Cast, which half_products finds; inputs and
 * outputs of the model keep their types. Run by --precision only. */
#include "passes/graph/rewrite.h"

#include <string.h>

typedef struct Widen {
  PassCtx *c;
  Build b;      /* at the front of the main graph */
  Value **wide; /* by id of a constant of 16 bits: its Cast; NULL: none yet */
  int n;
} Widen;

static const Loc here = {.node = -1, .node_name = "widen"}; /* of the Casts that it adds */

static Value *wide_constant(Widen *w, Value *v) {
  if (!v || !v->cdata || !dtype_is_half(v->dtype) || v->id >= w->n) return v;
  if (!w->wide[v->id]) w->wide[v->id] = build_cast(&w->b, v, DT_F32);
  return w->wide[v->id];
}

/* ---- attributes that name a type, or hold elements of one ---- */
static const ConstData *wide_data(Model *m, const ConstData *c) {
  float *data = ARENA_ARRAY(m->arena, float, c->count + 1);
  for (int64_t k = 0; k < c->count; k++) data[k] = (float)const_float(c, k);
  return const_new(m, c->name, DT_F32, c->rank, c->dims, data);
}

static void widen_attr(Model *m, Attr *a) {
  static const char *const types[] = {
      "to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"};
  if (a->kind == AT_TENSOR && dtype_is_half(a->tensor->dtype)) a->tensor = wide_data(m, a->tensor);
  for (size_t k = 0; k < sizeof types / sizeof *types; k++)
    if (a->kind == AT_INT && strcmp(a->name, types[k]) == 0 &&
        dtype_is_half(dtype_from_onnx(a->ints[0])))
      *a = attr_int(m->arena, a->name, dtype_rows[DT_F32].onnx);
}

static void widen_graph(Widen *w, Graph *g) {
  for (int i = 0; i < g->nodes.n && w->b.ok; i++) {
    Node *n = g->nodes.data[i];
    if (n->loc == &here) continue;
    for (int k = 0; k < n->n_in; k++) n->in[k] = wide_constant(w, n->in[k]);
    for (int k = 0; k < n->n_attrs; k++) {
      if (n->attrs[k].kind == AT_GRAPH)
        widen_graph(w, n->attrs[k].graph);
      else
        widen_attr(w->c->model, &n->attrs[k]);
    }
  }
  for (int k = 0; g->parent && k < g->outputs.n; k++)
    g->outputs.data[k] = wide_constant(w, g->outputs.data[k]);
}

/* ---- what the caller sees ---- */
static bool has_half(const Graph *g, bool *only_tensors) {
  bool found = false;
  for (int k = 0; k < g->inputs.n; k++)
    if (dtype_is_half(g->inputs.data[k]->dtype)) {
      found = true;
      *only_tensors = *only_tensors && g->inputs.data[k]->kind == TY_TENSOR;
    }
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_out; k++)
      found = found || (n->out[k] && dtype_is_half(n->out[k]->dtype));
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) found = has_half(n->attrs[k].graph, only_tensors) || found;
  }
  return found;
}

static void widen_inputs(Widen *w) {
  Graph *g = w->c->model->main;
  for (int k = 0; k < g->inputs.n && w->b.ok; k++) {
    Value *v = g->inputs.data[k];
    if (!dtype_is_half(v->dtype)) continue;
    Value *wide = build_cast(&w->b, v, DT_F32);
    graph_replace_value(g, v, wide);
    if (w->b.ok) wide->def->in[0] = v;
  }
}

/* types: what outputs were */
static bool narrow_outputs(Widen *w, const DType *types) {
  Graph *g = w->c->model->main;
  Build b = {.m = w->c->model, .g = g, .loc = &here, .ok = true};
  for (int k = 0; k < g->outputs.n && b.ok; k++)
    if (g->outputs.data[k]->dtype != types[k])
      g->outputs.data[k] = build_cast(&b, g->outputs.data[k], types[k]);
  return b.ok;
}

bool pass_widen(PassCtx *c) {
  Model *m = c->model;
  Graph *g = m->main;
  bool only_tensors = true;
  if (!has_half(g, &only_tensors)) return true;
  if (!only_tensors)
    return diag_error(m->diag, &here, ERR_UNSUPPORTED,
                      "an input is a sequence or an optional of 16-bit floats: these stay so");
  Widen w = {.c = c,
             .b = {.m = m,
                   .g = g,
                   .before = g->nodes.n ? g->nodes.data[0] : NULL,
                   .loc = &here,
                   .ok = true},
             .wide = ARENA_ARRAY(c->scratch, Value *, m->next_value + 1),
             .n = m->next_value};
  DType *types = ARENA_ARRAY(c->scratch, DType, g->outputs.n + 1);
  for (int k = 0; k < g->outputs.n; k++) types[k] = g->outputs.data[k]->dtype;
  c->changed = true;
  widen_inputs(&w);
  widen_graph(&w, g);
  return w.b.ok && graph_infer(g) && narrow_outputs(&w, types);
}
