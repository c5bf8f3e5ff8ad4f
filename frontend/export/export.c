/* Graph IR → ONNX. Messages of protobuf-c are filled from the graph and streamed into the sink;
 * data of constants are not copied. */
#include "frontend/export/export.h"
#include <string.h>
#include "frontend/export/export_internal.h"
#include "ir/op/op.h"

/* ---- names ---- */
/* The name itself, or with _1, _2 … behind it where it is taken. */
static char *fresh_name(Export *x, StrMap *taken, const char *wanted) {
  const char *name = wanted && *wanted ? wanted : "v";
  const char *text = name;
  for (int k = 1; strmap_get(taken, text); k++) text = arena_printf(x->arena, "%s_%d", name, k);
  char *mine = arena_strdup(x->arena, text);
  strmap_put(x->arena, taken, mine, mine);
  return mine;
}

void export_name_nodes(Model *m) {
  Export x = {.m = m, .arena = m->arena};
  for (int i = 0; i < m->main->nodes.n; i++) {
    Node *n = m->main->nodes.data[i];
    Loc *loc = arena_dup(m->arena, n->loc ? n->loc : &(Loc){.node = -1}, sizeof *loc);
    loc->node_name = fresh_name(&x, &x.node_names, node_title(m->arena, n));
    if (!loc->op) loc->op = n->op->name;
    n->loc = loc;
  }
}

static char *value_name(Export *x, const Value *v) {
  if (!v) return (char *)(uintptr_t)"";
  if (!x->names[v->id]) {
    const char *stem = v->name ? v->name : arena_printf(x->arena, "v%d", v->id);
    x->names[v->id] = fresh_name(x, &x->taken, stem);
  }
  return x->names[v->id];
}

/* ---- attributes ---- */
static ProtobufCBinaryData bytes_of(const char *text) {
  return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)(uintptr_t)text};
}

static void fill_list(Export *x, const Attr *a, Onnx__AttributeProto *p) {
  const size_t n = (size_t)a->n;
  if (a->kind == AT_INTS) {
    p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
    p->n_ints = n;
    p->ints = (int64_t *)(uintptr_t)a->ints;
  } else if (a->kind == AT_FLOATS) {
    p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS;
    p->n_floats = n;
    p->floats = ARENA_ARRAY(x->arena, float, n);
    for (size_t k = 0; k < n; k++) p->floats[k] = (float)a->floats[k];
  } else {
    p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS;
    p->n_strings = n;
    p->strings = ARENA_ARRAY(x->arena, ProtobufCBinaryData, n);
    for (size_t k = 0; k < n; k++) p->strings[k] = bytes_of(a->strs[k]);
  }
}

static bool fill_attr(Export *x, const Attr *a, Onnx__AttributeProto *p) {
  onnx__attribute_proto__init(p);
  p->name = (char *)(uintptr_t)a->name;
  p->has_type = true;
  switch (a->kind) {
    case AT_INT:
      p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
      p->has_i = true;
      p->i = a->ints[0];
      return true;
    case AT_FLOAT:
      p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
      p->has_f = true;
      p->f = (float)a->floats[0];
      return true;
    case AT_STRING:
      p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
      p->has_s = true;
      p->s = bytes_of(a->strs[0]);
      return true;
    case AT_TENSOR:
      p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
      return (p->t = export_tensor(x, a->tensor, NULL)) != NULL;
    case AT_GRAPH:
      p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH;
      return (p->g = export_graph(x, a->graph)) != NULL;
    default: fill_list(x, a, p); return true;
  }
}

/* ---- types ---- */
static Onnx__TensorShapeProto *shape_proto(Export *x, const Value *v) {
  Onnx__TensorShapeProto *s = ARENA_NEW(x->arena, Onnx__TensorShapeProto);
  onnx__tensor_shape_proto__init(s);
  s->n_dim = (size_t)v->rank;
  s->dim = ARENA_ARRAY(x->arena, Onnx__TensorShapeProto__Dimension *, v->rank);
  for (int d = 0; d < v->rank; d++) {
    Onnx__TensorShapeProto__Dimension *p = ARENA_NEW(x->arena, Onnx__TensorShapeProto__Dimension);
    onnx__tensor_shape_proto__dimension__init(p);
    const Expr *e = v->dims[d];
    int64_t size;
    if (expr_is_const(e, &size)) {
      p->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
      p->dim_value = size;
    } else if (e->op == EX_SYM && !expr_symbol(x->m->pool, e->id)->runtime) {
      p->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
      p->dim_param = (char *)(uintptr_t)expr_symbol(x->m->pool, e->id)->name;
    } /* a size that is computed is left open: whoever loads the file infers it */
    s->dim[d] = p;
  }
  return s;
}

static Onnx__TypeProto *new_type(Export *x) {
  Onnx__TypeProto *t = ARENA_NEW(x->arena, Onnx__TypeProto);
  onnx__type_proto__init(t);
  return t;
}

static Onnx__TypeProto *tensor_type(Export *x, const Value *v) {
  Onnx__TypeProto *t = new_type(x);
  t->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
  t->tensor_type = ARENA_NEW(x->arena, Onnx__TypeProto__Tensor);
  onnx__type_proto__tensor__init(t->tensor_type);
  t->tensor_type->has_elem_type = true;
  t->tensor_type->elem_type = dtype_rows[v->dtype].onnx;
  if (v->rank >= 0) t->tensor_type->shape = shape_proto(x, v);
  return t;
}

/* NULL: it has a type that is not written. */
static Onnx__TypeProto *value_type(Export *x, const Value *v) {
  Onnx__TypeProto *const of = tensor_type(x, v);
  if (v->kind == TY_TENSOR) return of;
  Onnx__TypeProto *t = new_type(x);
  if (v->kind == TY_SEQUENCE) {
    t->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
    t->sequence_type = ARENA_NEW(x->arena, Onnx__TypeProto__Sequence);
    onnx__type_proto__sequence__init(t->sequence_type);
    t->sequence_type->elem_type = of;
    return t;
  }
  if (v->kind != TY_OPTIONAL) return NULL;
  t->value_case = ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE;
  t->optional_type = ARENA_NEW(x->arena, Onnx__TypeProto__Optional);
  onnx__type_proto__optional__init(t->optional_type);
  t->optional_type->elem_type = of;
  return t;
}

static Onnx__ValueInfoProto *value_info(Export *x, const Value *v, char *name) {
  Onnx__ValueInfoProto *p = ARENA_NEW(x->arena, Onnx__ValueInfoProto);
  onnx__value_info_proto__init(p);
  p->name = name;
  p->type = value_type(x, v);
  if (p->type) return p;
  const Loc loc = {.file = x->m->file, .node = -1, .node_name = name};
  diag_error(x->m->diag, &loc, ERR_UNSUPPORTED, "a value of this type is not written to ONNX");
  return NULL;
}

/* ---- nodes ---- */
static void note_opset(Export *x, const Node *n) {
  const int since = export_form_version(n);
  const char *domain = n->op->domain ? n->op->domain : "";
  int k = 0;
  while (k < x->opsets.n && strcmp(x->opsets.data[k].domain, domain) != 0) k++;
  if (k == x->opsets.n) vec_push(x->arena, &x->opsets, (ExportOpset){.domain = domain});
  if (x->opsets.data[k].version < since) x->opsets.data[k].version = since;
}

static int used_inputs(const Node *n) {
  int k = n->n_in;
  while (k > 0 && !n->in[k - 1]) k--;
  return k;
}

static bool add_attr(Export *x, Onnx__NodeProto *p, const Attr *a) {
  Onnx__AttributeProto *attr = ARENA_NEW(x->arena, Onnx__AttributeProto);
  p->attribute[p->n_attribute++] = attr;
  return fill_attr(x, a, attr);
}

/* Since opset 18 Split says how many outputs it has, where sizes are not given; the IR counts. */
static bool fill_attrs(Export *x, const Node *n, Onnx__NodeProto *p) {
  p->attribute = ARENA_ARRAY(x->arena, Onnx__AttributeProto *, n->n_attrs + 1);
  for (int k = 0; k < n->n_attrs; k++)
    if (!add_attr(x, p, &n->attrs[k])) return false;
  if (strcmp(n->op->name, "Split") != 0 || node_in(n, 1) || node_attr(n, "num_outputs"))
    return true;
  const Attr count = attr_int(x->arena, "num_outputs", n->n_out);
  return add_attr(x, p, &count);
}

static Onnx__NodeProto *export_node(Export *x, const Node *n) {
  Onnx__NodeProto *p = ARENA_NEW(x->arena, Onnx__NodeProto);
  onnx__node_proto__init(p);
  if (n->op->domain && strcmp(n->op->domain, "burin") == 0) {
    diag_error(x->m->diag, n->loc, ERR_UNSUPPORTED,
               "burin.%s is an operator of burin's own, and has no form in ONNX", n->op->name);
    return NULL;
  }
  note_opset(x, n);
  p->op_type = (char *)(uintptr_t)n->op->name;
  p->domain = (char *)(uintptr_t)(n->op->domain ? n->op->domain : "");
  const char *name = n->loc ? n->loc->node_name : NULL;
  if (!n->loc || n->loc->op) /* else it was put in, and has no name of its own */
    p->name = fresh_name(x, &x->node_names, name && *name ? name : n->op->name);
  p->n_input = (size_t)used_inputs(n);
  p->input = ARENA_ARRAY(x->arena, char *, p->n_input);
  for (size_t k = 0; k < p->n_input; k++) p->input[k] = value_name(x, n->in[k]);
  p->n_output = (size_t)n->n_out;
  p->output = ARENA_ARRAY(x->arena, char *, n->n_out);
  for (int k = 0; k < n->n_out; k++) p->output[k] = value_name(x, n->out[k]);
  return fill_attrs(x, n, p) ? p : NULL;
}

static Onnx__NodeProto *identity_node(Export *x, char *from, char *to) {
  Onnx__NodeProto *p = ARENA_NEW(x->arena, Onnx__NodeProto);
  onnx__node_proto__init(p);
  p->op_type = (char *)(uintptr_t)"Identity";
  p->n_input = p->n_output = 1;
  p->input = ARENA_ARRAY(x->arena, char *, 1);
  p->output = ARENA_ARRAY(x->arena, char *, 1);
  p->input[0] = from;
  p->output[0] = to;
  return p;
}

/* ---- graphs ---- */
static bool defined_in(const Graph *g, const Value *v) { return v->def && v->def->graph == g; }

/* Outputs keep their names: those of the file in the main graph. The first that is a value of this
 * graph gives it its name, others are copies. */
static void claim_outputs(Export *x, const Graph *g, char **names) {
  for (int k = 0; k < g->outputs.n; k++) {
    const Value *v = g->outputs.data[k];
    const bool main = g == x->m->main && k < g->output_names.n;
    names[k] = fresh_name(x, &x->taken, main ? g->output_names.data[k] : v->name);
    if (defined_in(g, v) && !x->names[v->id]) x->names[v->id] = names[k];
  }
}

static bool fill_nodes(Export *x, const Graph *g, char *const *names, Onnx__GraphProto *p) {
  p->node = ARENA_ARRAY(x->arena, Onnx__NodeProto *, g->nodes.n + g->outputs.n);
  for (int k = 0; k < g->nodes.n; k++)
    if (!(p->node[p->n_node++] = export_node(x, g->nodes.data[k]))) return false;
  for (int k = 0; k < g->outputs.n; k++) {
    char *from = value_name(x, g->outputs.data[k]);
    if (from != names[k]) p->node[p->n_node++] = identity_node(x, from, names[k]);
  }
  return true;
}

static bool fill_infos(Export *x, const Graph *g, char *const *names, Onnx__GraphProto *p) {
  p->n_input = (size_t)g->inputs.n;
  p->input = ARENA_ARRAY(x->arena, Onnx__ValueInfoProto *, g->inputs.n);
  for (int k = 0; k < g->inputs.n; k++)
    if (!(p->input[k] = value_info(x, g->inputs.data[k], value_name(x, g->inputs.data[k]))))
      return false;
  p->n_output = (size_t)g->outputs.n;
  p->output = ARENA_ARRAY(x->arena, Onnx__ValueInfoProto *, g->outputs.n);
  for (int k = 0; k < g->outputs.n; k++)
    if (!(p->output[k] = value_info(x, g->outputs.data[k], names[k]))) return false;
  return true;
}

Onnx__GraphProto *export_graph(Export *x, const Graph *g) {
  Onnx__GraphProto *p = ARENA_NEW(x->arena, Onnx__GraphProto);
  onnx__graph_proto__init(p);
  p->name = (char *)(uintptr_t)(g->name && *g->name ? g->name : "graph");
  for (int k = 0; k < g->inputs.n; k++) value_name(x, g->inputs.data[k]);
  char **names = ARENA_ARRAY(x->arena, char *, g->outputs.n);
  claim_outputs(x, g, names);
  return fill_nodes(x, g, names, p) && fill_infos(x, g, names, p) ? p : NULL;
}

/* ---- the model ---- */
static void note_constants(Export *x, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_in; k++)
      if (n->in[k] && n->in[k]->cdata) x->constants[n->in[k]->id] = n->in[k];
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH) note_constants(x, n->attrs[k].graph);
  }
  for (int k = 0; k < g->outputs.n; k++)
    if (g->outputs.data[k]->cdata) x->constants[g->outputs.data[k]->id] = g->outputs.data[k];
}

static bool fill_initializers(Export *x, Onnx__GraphProto *p) {
  int n = 0;
  for (int id = 0; id < x->m->next_value; id++) n += x->constants[id] != NULL;
  p->initializer = ARENA_ARRAY(x->arena, Onnx__TensorProto *, n);
  for (int id = 0; id < x->m->next_value; id++) {
    const Value *v = x->constants[id];
    if (!v) continue;
    Onnx__TensorProto *t = export_tensor(x, v->cdata, value_name(x, v));
    if (!t) return false;
    p->initializer[p->n_initializer++] = t;
  }
  return true;
}

/* IR version that came with an opset (docs/Versioning.md of ONNX). */
static int64_t ir_version(int opset) {
  return opset <= 22 ? 10 : opset == 23 ? 11 : opset == 24 ? 12 : opset <= 26 ? 13 : 14;
}

static void fill_opsets(Export *x, Onnx__ModelProto *p) {
  p->opset_import = ARENA_ARRAY(x->arena, Onnx__OperatorSetIdProto *, x->opsets.n);
  for (int k = 0; k < x->opsets.n; k++) {
    Onnx__OperatorSetIdProto *o = ARENA_NEW(x->arena, Onnx__OperatorSetIdProto);
    onnx__operator_set_id_proto__init(o);
    o->domain = (char *)(uintptr_t)x->opsets.data[k].domain;
    o->has_version = true;
    o->version = x->opsets.data[k].version;
    p->opset_import[p->n_opset_import++] = o;
  }
}

typedef struct SinkBuffer {
  ProtobufCBuffer base;
  const ExportSink *sink;
  bool failed;
} SinkBuffer;

static void sink_append(ProtobufCBuffer *buffer, size_t n, const uint8_t *data) {
  SinkBuffer *b = (SinkBuffer *)buffer;
  if (!b->failed && n) b->failed = !b->sink->write(b->sink->user, data, n);
}

static bool pack(const ExportSink *sink, const Onnx__ModelProto *p) {
  SinkBuffer b = {.base = {.append = sink_append}, .sink = sink};
  onnx__model_proto__pack_to_buffer(p, &b.base);
  return !b.failed;
}

bool export_model(Model *m, const ExportOptions *o) {
  Export x = {.m = m, .o = o, .arena = arena_child(m->arena)};
  Onnx__ModelProto p;
  x.names = ARENA_ARRAY(x.arena, char *, m->next_value);
  x.constants = ARENA_ARRAY(x.arena, const Value *, m->next_value);
  x.external = export_needs_data_file(m);
  vec_push(x.arena, &x.opsets, (ExportOpset){.domain = "", .version = EXPORT_OPSET});
  onnx__model_proto__init(&p);
  if (m->main->unset) {
    const Loc loc = {.file = m->file, .node = -1};
    arena_free(x.arena);
    diag_error(m->diag, &loc, ERR_UNSUPPORTED,
               "initializers that are inputs, too, were imported as two versions");
    return diag_hint(m->diag, "--freeze-initializers makes them constants"), false;
  }
  p.has_ir_version = true;
  p.producer_name = (char *)(uintptr_t)o->producer;
  p.producer_version = (char *)(uintptr_t)o->version;
  p.doc_string = (char *)(uintptr_t)m->doc;
  note_constants(&x, m->main);
  bool ok = (p.graph = export_graph(&x, m->main)) && fill_initializers(&x, p.graph);
  if (ok) {
    fill_opsets(&x, &p);
    p.ir_version = ir_version(x.opsets.data[0].version);
    ok = pack(&o->model, &p);
  }
  arena_free(x.arena);
  return ok;
}
