/* ModelProto → Model. Names become values in nested scopes, initializers and Constant nodes become
 * constants, calls of model-local functions are inlined, and each node goes through upgrade.c to
 * its newest form and is inferred at once, so that upgrades know the types of what they read. */
#include <string.h>
#include "frontend/scope/scope.h"

typedef Onnx__NodeProto NodeProto;
typedef Onnx__GraphProto GraphProto;

const Loc *node_loc(Import *im, const Scope *s, const NodeProto *p, int index, int64_t opset) {
  Loc *l = ARENA_NEW(im->arena, Loc);
  *l = (Loc){.file = im->path, .graph = s->path, .node = index, .opset = (int)opset};
  l->node_name = arena_strdup(im->arena, p->name ? p->name : "");
  l->op = arena_strdup(im->arena, p->op_type);
  l->domain = arena_strdup(im->arena, domain_normal(p->domain));
  return l;
}

static int used_count(char *const *names, size_t n) {
  while (n && !*names[n - 1]) n--;
  return (int)n;
}

static bool find_inputs(Import *im, const Scope *s, const NodeProto *p, const Loc *loc,
                        Value **in) {
  for (size_t k = 0; k < p->n_input; k++) {
    if (!*p->input[k]) continue;
    in[k] = scope_find(s, p->input[k]);
    if (!in[k])
      return diag_error(im->d, loc, ERR_UNDEFINED, "input %zu, \"%s\", is not defined", k,
                        p->input[k]);
    if (in[k] == &scope_absent) in[k] = NULL;
  }
  return true;
}

/* What an attribute of a function body means at this call; NULL: left out. */
static const Onnx__AttributeProto *resolve_ref(const CallArgs *args, const char *name) {
  for (; args; args = args->outer) {
    const Onnx__AttributeProto *found = NULL;
    for (size_t k = 0; k < args->call->n_attribute && !found; k++)
      if (args->call->attribute[k]->name && strcmp(args->call->attribute[k]->name, name) == 0)
        found = args->call->attribute[k];
    for (size_t k = 0; k < args->fn->n_attribute_proto && !found; k++)
      if (args->fn->attribute_proto[k]->name &&
          strcmp(args->fn->attribute_proto[k]->name, name) == 0)
        found = args->fn->attribute_proto[k];
    if (!found || !found->ref_attr_name || !*found->ref_attr_name) return found;
    name = found->ref_attr_name; /* the call stands in a function body itself */
  }
  return NULL;
}

static Graph *import_region(Import *im, const Scope *s, const GraphProto *p, const char *attr,
                            int node);

static bool import_attrs(Import *im, const Scope *s, const NodeProto *p, int index, const Loc *loc,
                         Attr *attrs, int *n) {
  *n = 0;
  if (p->n_attribute > MAX_ATTRS)
    return diag_error(im->d, loc, ERR_LIMIT, "%zu attributes; the limit is %d", p->n_attribute,
                      MAX_ATTRS);
  for (size_t k = 0; k < p->n_attribute; k++) {
    const Onnx__AttributeProto *a = p->attribute[k];
    const char *name = a->name;
    if (a->ref_attr_name && *a->ref_attr_name) {
      if (!s->args)
        return diag_error(im->d, loc, ERR_ATTR_VALUE, "ref_attr_name stands outside a function");
      a = resolve_ref(s->args, a->ref_attr_name);
      if (!a) continue;
    }
    Onnx__AttributeProto renamed = *a;
    renamed.name = (char *)name;
    Attr *at = &attrs[*n];
    if (!import_attr(im, &renamed, loc, at)) return false;
    for (int i = 0; i < *n; i++)
      if (strcmp(attrs[i].name, at->name) == 0)
        return diag_error(im->d, loc, ERR_ATTR_VALUE, "attribute \"%s\" is given twice", at->name);
    if (at->kind == AT_GRAPH && !(at->graph = import_region(im, s, a->g, at->name, index)))
      return false;
    ++*n;
  }
  return true;
}

/* ---- Constant ---- */
static ConstData *constant_of(Import *im, const Attr *a, const char *name) {
  const bool list = a->kind == AT_FLOATS || a->kind == AT_INTS || a->kind == AT_STRINGS;
  const int64_t dims[1] = {a->n};
  const DType dt = a->kind == AT_FLOAT || a->kind == AT_FLOATS ? DT_F32
                   : a->kind == AT_INT || a->kind == AT_INTS   ? DT_I64
                                                               : DT_STR;
  const void *data = dt == DT_I64 ? (const void *)a->ints : (const void *)a->strs;
  if (dt == DT_F32) {
    float *f = ARENA_ARRAY(im->arena, float, a->n);
    for (int k = 0; k < a->n; k++) f[k] = (float)a->floats[k];
    data = f;
  }
  return const_new(im->m, name, dt, list, dims, data);
}

static bool import_constant(Import *im, Scope *s, const NodeProto *p, const Attr *attrs, int n,
                            const Loc *loc) {
  const int outs = used_count(p->output, p->n_output);
  if (p->n_input || outs != 1)
    return diag_error(im->d, loc, ERR_ARITY, "Constant has %zu inputs and %d outputs", p->n_input,
                      outs);
  if (n != 1)
    return diag_error(im->d, loc, ERR_ATTR_MISSING,
                      "Constant has %d attributes, needs exactly one value", n);
  if (strncmp(attrs[0].name, "value", 5) != 0 && strcmp(attrs[0].name, "sparse_value") != 0)
    return diag_error(im->d, loc, ERR_ATTR_UNKNOWN, "Constant has no attribute \"%s\"",
                      attrs[0].name);
  if (attrs[0].kind == AT_GRAPH)
    return diag_error(im->d, loc, ERR_ATTR_TYPE, "Constant holds a graph");
  const char *name = arena_strdup(im->arena, p->output[0]);
  ConstData *c;
  if (attrs[0].kind == AT_TENSOR) {
    c = (ConstData *)attrs[0].tensor;
    c->name = name;
  } else {
    c = constant_of(im, &attrs[0], name);
  }
  return scope_define(im, s, p->output[0], value_const(im->m, c), loc);
}

/* ---- emitting ---- */
static bool bind_results(Import *im, Scope *s, const NodeProto *p, const OldNode *o,
                         const Loc *loc) {
  for (int k = 0; k < o->n_out; k++) {
    if (!o->out_used[k]) continue;
    Value *v = o->result[k];
    if (!v)
      return diag_error(im->d, loc, ERR_UNSUPPORTED, "output %d of this form is not supported", k);
    if (!v->name && v->def) v->name = arena_strdup(im->arena, p->output[k]);
    if (!scope_define(im, s, p->output[k], v, loc)) return false;
  }
  return true;
}

const Onnx__TypeProto__Tensor *import_declared(const Import *im, const Scope *s, const char *name) {
  const Onnx__ValueInfoProto *p =
      !import_is_main(im, s->graph) || s->args ? NULL : strmap_get(&im->declared, name);
  const Onnx__TypeProto__Tensor *t =
      p && p->type && p->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE
          ? p->type->tensor_type
          : NULL;
  return t && t->shape && t->shape->n_dim <= MAX_RANK && dtype_from_onnx(t->elem_type) != DT_NONE
             ? t
             : NULL;
}

/* The rank and the constant sizes that the file declares are set before inference, for ops of which
 * they depend on data: they may take them, and check them at run time. All other ops overwrite
 * them. */
static void hint_shape(Import *im, const Scope *s, Value *v, const char *name) {
  const Onnx__TypeProto__Tensor *t = import_declared(im, s, name);
  const Expr *dims[MAX_RANK];
  if (!t) return;
  for (size_t k = 0; k < t->shape->n_dim; k++) {
    const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[k];
    const bool fixed = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
                       d->dim_value >= 0 && !(d->dim_value >> MAX_DIM_BITS);
    dims[k] = fixed ? ex_i64(im->m->pool, d->dim_value) : NULL;
  }
  value_set_tensor(im->m, v, dtype_from_onnx(t->elem_type), (int)t->shape->n_dim, dims);
}

/* All at once: adding one by one takes quadratic memory, and a file may list very many. */
static void add_outputs(Import *im, Node *n, const NodeProto *p, const OldNode *o) {
  n->out = ARENA_ARRAY(im->arena, Value *, o->n_out);
  n->n_out = o->n_out;
  for (int k = 0; k < o->n_out; k++) {
    n->out[k] = value_new(im->m, o->out_used[k] ? arena_strdup(im->arena, p->output[k]) : NULL);
    n->out[k]->def = n;
    n->out[k]->def_index = k;
  }
}

static bool emit_newest(Import *im, Scope *s, const NodeProto *p, const OldNode *o) {
  const OpRow *row = op_find(o->domain, o->op);
  if (!row) return diag_error(im->d, o->loc, ERR_UNSUPPORTED_OP, "operator is not supported");
  Node *n = import_emit(im, s->graph, row, o->n_in, o->in, o->loc);
  if (!n) return false;
  for (int k = 0; k < o->n_attrs; k++) {
    node_set_attr(n, o->attrs[k]);
    if (o->attrs[k].kind == AT_GRAPH) o->attrs[k].graph->owner = n;
  }
  add_outputs(im, n, p, o);
  for (int k = 0; k < o->n_out; k++) {
    Value *v = n->out[k];
    if (o->out_used[k] && !scope_define(im, s, p->output[k], v, o->loc)) return false;
    if (o->out_used[k]) hint_shape(im, s, v, p->output[k]);
  }
  for (int k = 0; k < o->n_out; k++)
    if (!o->out_used[k]) n->out[k] = NULL;
  return import_infer(im, n);
}

bool import_op(Import *im, Scope *s, const NodeProto *p, Value **in, Attr *attrs, int n_attrs,
               const Loc *loc) {
  const int n_out = used_count(p->output, p->n_output);
  bool *used = ARENA_ARRAY(im->scratch, bool, n_out);
  for (int k = 0; k < n_out; k++) used[k] = *p->output[k] != 0;
  const Onnx__TypeProto__Tensor *const t = n_out ? import_declared(im, s, p->output[0]) : NULL;
  OldNode o = {.op = loc->op,
               .domain = loc->domain,
               .opset = loc->opset,
               .in = in,
               .n_in = used_count(p->input, p->n_input),
               .attrs = attrs,
               .n_attrs = n_attrs,
               .n_out = n_out,
               .out_used = used,
               .declared = t ? (int)t->shape->n_dim : -1,
               .loc = loc,
               .graph = s->graph};
  while (o.n_in && !o.in[o.n_in - 1]) o.n_in--;
  if (!upgrade_node(im, &o)) return false;
  return o.result ? bind_results(im, s, p, &o, loc) : emit_newest(im, s, p, &o);
}

/* ---- functions ---- */
static bool bind_call(Import *im, Scope *body, const Onnx__FunctionProto *f, const NodeProto *p,
                      Value **in, const Loc *loc) {
  if (p->n_input > f->n_input || p->n_output > f->n_output)
    return diag_error(im->d, loc, ERR_ARITY,
                      "call has %zu inputs and %zu outputs, the function %zu and %zu", p->n_input,
                      p->n_output, f->n_input, f->n_output);
  for (size_t k = 0; k < f->n_input; k++) {
    const Value *v = k < p->n_input && in[k] ? in[k] : &scope_absent;
    if (!scope_define(im, body, f->input[k], v, loc)) return false;
  }
  return true;
}

static bool import_call(Import *im, Scope *s, const NodeProto *p, Function *f, Value **in,
                        const Loc *loc) {
  const CallArgs args = {
      .call = p, .fn = f->proto, .outer = s->args, .depth = s->args ? s->args->depth + 1 : 1};
  if (f->active) return diag_error(im->d, loc, ERR_CYCLE, "function calls itself");
  if (args.depth > MAX_INLINE_DEPTH)
    return diag_error(im->d, loc, ERR_LIMIT, "functions call each other deeper than %d",
                      MAX_INLINE_DEPTH);
  Scope body = {.graph = s->graph, .opsets = &f->opsets, .args = &args};
  body.path = arena_printf(im->arena, "function %.40s of node %d%s%.200s", f->proto->name,
                           loc->node, s->path ? " in " : "", s->path ? s->path : "");
  if (!bind_call(im, &body, f->proto, p, in, loc)) return false;
  NodeList list = {.nodes = f->proto->node, .n = (int)f->proto->n_node, .to = LEAVE_BRANCH};
  for (size_t k = 0; k < f->proto->n_output; k++)
    vec_push(im->scratch, &list.outs, f->proto->output[k]);
  f->active = true;
  if (!fork_import(im, &body, &list)) return false;
  f->active = false;
  for (size_t k = 0; k < p->n_output; k++) {
    const char *const name = f->proto->output[k];
    if (!*p->output[k]) continue;
    if (!fork_has(&body, name) && !scope_find(&body, name))
      return diag_error(im->d, loc, ERR_UNDEFINED, "the function does not define its output \"%s\"",
                        name);
    if (!fork_bind(im, s, p->output[k], &body, name, loc)) return false;
  }
  return true;
}

/* ---- graphs ---- */
bool import_node(Import *im, Scope *s, const NodeProto *p, int index) {
  Function *f = function_find(im, p);
  const Loc *loc = node_loc(im, s, p, index, opsets_find(s->opsets, domain_normal(p->domain)));
  Value **in = ARENA_ARRAY(im->scratch, Value *, p->n_input);
  Attr *attrs = ARENA_ARRAY(im->scratch, Attr, p->n_attribute);
  int n_attrs;
  if (p->n_input > INT32_MAX / 2 || p->n_output > INT32_MAX / 2)
    return diag_error(im->d, loc, ERR_LIMIT, "too many inputs or outputs");
  if (f && ++im->calls > MAX_CALLS)
    return diag_error(im->d, loc, ERR_LIMIT, "functions are called more than %d times", MAX_CALLS);
  if (!find_inputs(im, s, p, loc, in)) return false;
  if (f) return import_call(im, s, p, f, in, loc);
  if (!attrs_check(im, p, loc)) return false;
  bool ok;
  const bool onnx = !*loc->domain;
  if (onnx && strcmp(loc->op, "If") == 0 && branch_node(im, s, p, index, in, loc, &ok)) return ok;
  if (onnx && strcmp(loc->op, "SequenceMap") == 0 && node_graph(p, "body"))
    return sequence_map(im, s, p, loc, in, node_graph(p, "body"));
  if (flex_attention_known(loc->domain, loc->op)) return flex_attention_node(im, s, p, loc, in);
  const bool loop = onnx && strcmp(loc->op, "Loop") == 0,
             region = loop || (onnx && strcmp(loc->op, "If") == 0);
  if (region && !list_enter(im, s->graph, in, p, loop ? node_graph(p, "body") : NULL, loc))
    return false;
  const int assumed = im->m->assumes.n;
  const bool tried = body_enter(im, p, loc, in);
  if (!import_attrs(im, s, p, index, loc, attrs, &n_attrs)) return false;
  if (tried) body_leave(im, attrs, n_attrs, assumed);
  if (!*loc->domain && strcmp(loc->op, "Constant") == 0)
    return count_node(im, loc) && import_constant(im, s, p, attrs, n_attrs, loc);
  if (gradient_known(loc->domain, loc->op)) return gradient_node(im, s, p, loc, in, attrs, n_attrs);
  if (map_known(loc->domain, loc->op)) return map_node(im, s, p, loc, in, attrs, n_attrs);
  if (sequence_node(im, s, p, loc, in, attrs, n_attrs, &ok)) return ok;
  for (size_t k = 0; k < p->n_input && !region; k++)
    if (list_kind(im, in[k]) != LIST_NONE)
      return diag_error(im->d, loc, ERR_TYPE, "input %zu is a sequence or an optional", k);
  return import_op(im, s, p, in, attrs, n_attrs, loc) &&
         (!region || list_leave(im, s, p, in, attrs, n_attrs, loc));
}

static bool define_init(Import *im, Scope *s, const GraphProto *p, ConstData *c, const Loc *loc) {
  bool ok;
  if (c) c->initializer = true;
  if (c && defaults_take(im, p, c, loc, &ok)) return ok;
  return c && scope_define(im, s, c->name, value_const(im->m, c), loc);
}

bool import_initializers(Import *im, Scope *s, const GraphProto *p) {
  for (size_t k = 0; k < p->n_initializer; k++) {
    const Loc loc = named_loc(im, s->path, p->initializer[k]->name);
    if (!loc.node_name || !*loc.node_name)
      return diag_error(im->d, &loc, ERR_UNDEFINED, "initializer %zu has no name", k);
    const char *name = arena_strdup(im->arena, loc.node_name);
    if (!define_init(im, s, p, import_tensor(im, p->initializer[k], name, &loc), &loc))
      return false;
  }
  for (size_t k = 0; k < p->n_sparse_initializer; k++) {
    const Onnx__SparseTensorProto *t = p->sparse_initializer[k];
    const Loc loc = named_loc(im, s->path, t->values ? t->values->name : NULL);
    if (!loc.node_name || !*loc.node_name)
      return diag_error(im->d, &loc, ERR_UNDEFINED, "sparse initializer %zu has no name", k);
    const char *name = arena_strdup(im->arena, loc.node_name);
    if (!define_init(im, s, p, import_sparse_tensor(im, t, name, &loc), &loc)) return false;
  }
  return true;
}

static Value *region_input(Import *im, const Onnx__ValueInfoProto *p) {
  return value_new(im->m, arena_strdup(im->arena, p->name));
}

static bool import_inputs(Import *im, Scope *s, const GraphProto *p) {
  const bool is_main = !s->graph->parent;
  const ListKind *const lists = im->lists;
  const Carried carried = im->carried;
  im->lists = NULL;
  im->carried = (Carried){0};
  for (size_t k = 0; is_main && k < p->n_input; k++) {
    const Loc loc = named_loc(im, s->path, p->input[k]->name);
    if (!import_bind_shape(im, p->input[k], &loc)) return false;
  }
  StrMap seen = {0};
  for (size_t k = 0; k < p->n_input; k++) {
    const Onnx__ValueInfoProto *in = p->input[k];
    const Loc loc = named_loc(im, s->path, in->name);
    if (!in->name || !*in->name)
      return diag_error(im->d, &loc, ERR_UNDEFINED, "input %zu has no name", k);
    if (strmap_get(&seen, in->name))
      return diag_error(im->d, &loc, ERR_DUP_NAME, "the input is listed twice");
    strmap_put(im->scratch, &seen, in->name, &seen);
    if (is_main && strmap_get(&s->values, in->name)) continue; /* an initializer: a constant here */
    Value *v = NULL;
    if (is_main && !defaults_input(im, in, &loc, &v)) return false;
    if (!v && !(v = is_main ? import_main_input(im, in, &loc) : region_input(im, in))) return false;
    if (lists) list_note(im, v, lists[k]);
    if (is_main && v->kind != TY_TENSOR) {
      if (!(v = list_input(im, s->graph, in, &loc))) return false;
      strmap_put(im->scratch, &s->values, in->name, v);
      continue;
    }
    if (!is_main) body_input(im, &carried, (int)k, v);
    if (!v->cdata) vec_push(im->arena, &s->graph->inputs, v);
    if (!v->init) strmap_put(im->scratch, &s->values, in->name, v);
  }
  return true;
}

/* A size that data give has no more than the file declares, where nothing else bounds it. */
static void bound_declared(Import *im, const Expr *size, int64_t most) {
  Symbol *const s = size->op == EX_SYM ? expr_symbol(im->m->pool, size->id) : NULL;
  if (s && s->runtime && !s->bound) s->bound = ex_i64(im->m->pool, most);
}

/* Shapes that a file declares for its outputs are often wrong, and only believed by others; types
 * are not. */
static bool check_declared(Import *im, const Value *v, const Onnx__ValueInfoProto *p,
                           const Loc *loc) {
  Value *declared = value_new(im->m, NULL);
  if (!p->type || p->type->value_case == ONNX__TYPE_PROTO__VALUE__NOT_SET || v->kind != TY_TENSOR)
    return true;
  if (strmap_get(&im->keys, p->name)) return true;          /* a list of maps */
  if (list_declared(p->type) == LIST_OPTIONAL) return true; /* and it is there */
  if (p->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
    return diag_error(im->d, loc, ERR_DECLARED,
                      "output is declared as something else than the tensor that it is");
  const Onnx__TensorShapeProto *s = p->type->tensor_type->shape;
  declared->dtype = dtype_from_onnx(p->type->tensor_type->elem_type);
  if (declared->dtype != DT_NONE && declared->dtype != v->dtype)
    return diag_error(im->d, loc, ERR_DECLARED, "output is declared as %s, but is %s",
                      dtype_text(declared->dtype), dtype_text(v->dtype));
  if (s && v->rank >= 0 && (int)s->n_dim != v->rank)
    diag_warning(im->d, loc, "output is declared with %zu dimensions, but has %d", s->n_dim,
                 v->rank);
  else
    for (int k = 0; s && k < v->rank; k++) {
      int64_t n;
      if (s->dim[k]->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE ||
          s->dim[k]->dim_value <= 0)
        continue;
      bound_declared(im, v->dims[k], s->dim[k]->dim_value);
      if (expr_is_const(v->dims[k], &n) && n != s->dim[k]->dim_value)
        diag_warning(im->d, loc, "dimension %d of the output is declared as %lld, but is %lld", k,
                     (long long)s->dim[k]->dim_value, (long long)n);
    }
  return true;
}

static void push_output(Import *im, Graph *g, Value *v, const char *name, const ConstData *keys) {
  vec_push(im->arena, &g->outputs, v);
  vec_push(im->arena, &g->output_names, name);
  vec_push(im->arena, &g->output_keys, keys);
}

/* A sequence of known length becomes one output per item: NAME[0], NAME[1], … */
static bool main_output(Import *im, Graph *g, Value *v, const Onnx__ValueInfoProto *p,
                        const Loc *loc) {
  const char *const name = arena_strdup(im->arena, p->name);
  const ListType *list;
  if (!(v = list_output(im, g, v, p, &list, loc))) return false;
  const Seq *q = sequence_of(im, v);
  for (int k = 0; q && k < q->n; k++)
    push_output(im, g, q->items[k], arena_printf(im->arena, "%s[%d]", name, k), NULL);
  if (q) return true;
  if (!list && !check_declared(im, v, p, loc)) return false;
  push_output(im, g, v, name, strmap_get(&im->keys, name));
  graph_set_list(g, g->outputs.n - 1, true, list);
  return true;
}

/* Of a branch, or of a Loop's body, whose results may be its next inputs. */
static bool region_output(Import *im, Graph *g, Value *v, const Onnx__ValueInfoProto *p,
                          const Loc *loc) {
  const int next = g->outputs.n + 1;
  ListKind want = list_declared(p->type);
  if (next > 1 && next < g->inputs.n && list_kind(im, g->inputs.data[next]) == LIST_OPTIONAL)
    want = LIST_OPTIONAL;
  if (want == LIST_OPTIONAL || want == LIST_OPTIONAL_SEQUENCE)
    v = list_optional(im, g, v, want, loc);
  else if (!v)
    return diag_error(im->d, loc, ERR_UNSUPPORTED, "an empty optional of no declared type");
  else if (sequence_of(im, v))
    v = list_sequence(im, g, v, loc);
  if (v) push_output(im, g, v, arena_strdup(im->arena, p->name), NULL);
  return v != NULL;
}

bool import_leave(Import *im, Scope *s, const char *name, const Loc *loc) {
  Onnx__ValueInfoProto p = ONNX__VALUE_INFO_PROTO__INIT; /* nobody declares what it is */
  Value *const v = scope_find(s, name);
  p.name = (char *)name;
  if (!v) return diag_error(im->d, loc, ERR_UNDEFINED, "the output is not defined");
  return region_output(im, s->graph, v == &scope_absent ? NULL : v, &p, loc);
}

bool import_outputs(Import *im, Scope *s, const GraphProto *p) {
  StrMap seen = {0};
  const bool is_main = import_is_main(im, s->graph);
  for (size_t k = 0; k < p->n_output; k++) {
    const char *name = p->output[k]->name;
    Loc *const loc = ARENA_NEW(im->arena, Loc); /* nodes may be made here */
    *loc = named_loc(im, s->path, name ? arena_strdup(im->arena, name) : NULL);
    if (!name || !*name) return diag_error(im->d, loc, ERR_UNDEFINED, "output %zu has no name", k);
    Value *v = scope_find(s, name);
    if (!v) return diag_error(im->d, loc, ERR_UNDEFINED, "the output is not defined");
    if (v == &scope_absent) v = NULL;
    if (is_main && strmap_get(&seen, name))
      return diag_error(im->d, loc, ERR_DUP_NAME, "the output is listed twice");
    strmap_put(im->scratch, &seen, name, &seen);
    if (v && v->kind == TY_MAP)
      return diag_error(im->d, loc, ERR_UNSUPPORTED, "a map is an output");
    if (!(is_main ? main_output : region_output)(im, s->graph, v, p->output[k], loc)) return false;
  }
  return true;
}

NodeList import_list(Import *im, const GraphProto *p, LeaveTo to) {
  NodeList l = {.nodes = p->node, .n = (int)p->n_node, .to = to};
  for (size_t k = 0; k < p->n_output; k++)
    if (p->output[k]->name) vec_push(im->scratch, &l.outs, p->output[k]->name);
  return l;
}

bool import_graph(Import *im, Scope *s, const GraphProto *p, LeaveTo to) {
  if (!import_initializers(im, s, p) || !import_inputs(im, s, p)) return false;
  if (p == im->main && s->graph->unset) return defaults_import(im, s, p);
  const NodeList list = import_list(im, p, to);
  return fork_import(im, s, &list) && (to == LEAVE_BRANCH || import_outputs(im, s, p));
}

Scope region_scope(Import *im, const Scope *outer, const char *attr, int node) {
  Scope s = {.parent = outer, .opsets = outer->opsets, .args = outer->args};
  s.path = arena_printf(im->arena, "%.40s of node %d%s%.200s", attr, node,
                        outer->path ? " in " : "", outer->path ? outer->path : "");
  return s;
}

static Graph *import_region(Import *im, const Scope *outer, const GraphProto *p, const char *attr,
                            int node) {
  Scope s = region_scope(im, outer, attr, node);
  s.graph = graph_new(im->m, outer->graph, attr);
  return import_graph(im, &s, p, LEAVE_BODY) ? s.graph : NULL;
}

/* ---- model ---- */
static bool check_model(Import *im, const Onnx__ModelProto *p, const Loc *loc) {
  if (!p->has_ir_version && !p->graph)
    return diag_error(im->d, loc, ERR_NOT_ONNX, "neither IR version nor graph: not an ONNX model");
  if (!p->has_ir_version || p->ir_version < 1 || p->ir_version > ONNX_IR_NEWEST)
    return diag_error(im->d, loc, ERR_IR_VERSION, "IR version %lld; known ones are 1 to %d",
                      (long long)p->ir_version, ONNX_IR_NEWEST);
  if (!p->graph) return diag_error(im->d, loc, ERR_NO_GRAPH, "the model has no graph");
  if (p->graph->n_output == 0)
    return diag_error(im->d, loc, ERR_NO_GRAPH, "the graph has no outputs");
  return true;
}

static bool check_options(Import *im, const Loc *loc) {
  for (int k = 0; k < im->o->n_dims; k++)
    if (!im->dim_used[k])
      return diag_error(im->d, loc, ERR_USAGE, "--dim %s: no input has such a dimension",
                        im->o->dim_names[k]);
  for (int k = 0; k < im->o->n_consts; k++)
    if (!im->const_used[k])
      return diag_error(im->d, loc, ERR_USAGE, "--const %s: no such input", im->o->consts[k].name);
  for (int k = 0; k < im->o->n_shapes; k++)
    if (!im->shape_used[k])
      return diag_error(im->d, loc, ERR_USAGE, "--shape %s: no such input", im->o->shape_inputs[k]);
  return true;
}

bool import_model(Import *im, const Onnx__ModelProto *p) {
  const Loc loc = named_loc(im, NULL, NULL);
  Opsets opsets;
  Model *m = im->m;
  if (!check_model(im, p, &loc) ||
      !opsets_read(im, p->opset_import, p->n_opset_import, &loc, &opsets))
    return false;
  if (!functions_read(im, p) || !check_supported(im, p->graph, &opsets)) return false;
  m->ir_version = (int)p->ir_version;
  m->opset = (int)opsets_find(&opsets, "");
  m->producer = arena_printf(im->arena, "%s%s%s", p->producer_name ? p->producer_name : "",
                             p->producer_version && *p->producer_version ? " " : "",
                             p->producer_version ? p->producer_version : "");
  m->doc = p->doc_string ? arena_strdup(im->arena, p->doc_string) : NULL;
  m->main = graph_new(m, NULL, "main");
  im->main = p->graph;
  defaults_find(im);
  Scope s = {.graph = m->main, .opsets = &opsets};
  for (size_t k = 0; k < p->graph->n_value_info; k++)
    if (p->graph->value_info[k]->name)
      strmap_put(im->scratch, &im->declared, p->graph->value_info[k]->name,
                 p->graph->value_info[k]);
  for (size_t k = 0; k < p->graph->n_output; k++)
    if (p->graph->output[k]->name)
      strmap_put(im->scratch, &im->declared, p->graph->output[k]->name, p->graph->output[k]);
  return import_graph(im, &s, p->graph, LEAVE_MODEL) && check_options(im, &loc);
}
