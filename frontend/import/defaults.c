/* Initializers that are inputs, too. From IR version 4 on they are inputs with a default; before,
 * all initializers had to be listed as inputs, and they are constants. Exporters list every weight,
 * and a model whose weights are constants is many times faster, so the main graph is compiled
 * twice: an If asks whether any such input is given, and runs the graph with constants where none
 * is. */
#include <string.h>
#include "frontend/scope/scope.h"

enum { FIRST_IR = 4, LARGE = 1 << 16 };

typedef struct Default {
  ConstData *data;
  Value *input; /* NULL: it was made a constant */
} Default;

void defaults_find(Import *im) {
  StrMap inputs = {0};
  if (im->m->ir_version < FIRST_IR) return;
  for (size_t k = 0; k < im->main->n_input; k++)
    if (im->main->input[k]->name)
      strmap_put(im->scratch, &inputs, im->main->input[k]->name, im->main->input[k]);
  for (size_t k = 0; k < im->main->n_initializer; k++) {
    const char *name = im->main->initializer[k]->name;
    if (name && strmap_get(&inputs, name))
      strmap_put(im->scratch, &im->defaults, name, ARENA_NEW(im->scratch, Default));
  }
}

bool defaults_take(Import *im, const Onnx__GraphProto *g, ConstData *c, const Loc *loc, bool *ok) {
  Default *d = g == im->main ? strmap_get(&im->defaults, c->name) : NULL;
  if (!d) return false;
  *ok =
      !d->data || diag_error(im->d, loc, ERR_DUP_NAME, "the name \"%s\" is defined twice", c->name);
  d->data = c;
  return true;
}

/* ---- the input ---- */
static bool has_shape(const Onnx__ValueInfoProto *p) {
  return p->type && p->type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE &&
         p->type->tensor_type->shape;
}

static void take_sizes(Import *im, Value *v, const ConstData *c) {
  const Expr *dims[MAX_RANK];
  for (int k = 0; k < c->rank; k++) dims[k] = ex_i64(im->m->pool, c->dims[k]);
  value_set_tensor(im->m, v, c->dtype, c->rank, dims);
}

static bool fits(const Value *v, const ConstData *c) {
  for (int k = 0; v->rank == c->rank && k < c->rank; k++)
    if (v->dims[k]->op == EX_CONST && !expr_is_i64(v->dims[k], c->dims[k])) return false;
  return v->rank == c->rank;
}

/* As the file declares it; where that contradicts the initializer, as that is. */
static Value *declared_input(Import *im, const Onnx__ValueInfoProto *p, ConstData *c,
                             const Loc *loc) {
  Value *v = value_new(im->m, c->name);
  if (!has_shape(p)) return take_sizes(im, v, c), v;
  if (!(v = import_main_input(im, p, loc)) || v->cdata) return v;
  if (v->dtype != c->dtype) {
    diag_error(im->d, loc, ERR_DECLARED, "the input is declared as %s, its initializer is %s",
               dtype_text(v->dtype), dtype_text(c->dtype));
    return NULL;
  }
  if (fits(v, c)) return v;
  if (import_shape_given(im, p->name)) {
    diag_error(im->d, loc, ERR_USAGE, "--shape gives other sizes than those of the initializer");
    return NULL;
  }
  diag_warning(im->d, loc, "the input is declared with other sizes than its initializer has");
  take_sizes(im, v, c);
  return v;
}

bool defaults_input(Import *im, const Onnx__ValueInfoProto *p, const Loc *loc, Value **out) {
  Default *d = strmap_get(&im->defaults, p->name);
  Value *v;
  if (!d || !d->data) return true;
  if (!(v = declared_input(im, p, d->data, loc))) return false;
  if (!v->cdata && (im->o->freeze || v->dtype == DT_STR)) { /* no run takes strings */
    v = value_const(im->m, d->data);
    vec_push(im->arena, &im->m->frozen, v);
  }
  *out = v;
  if (v->cdata) return true;
  d->input = v;
  v->init = value_const(im->m, d->data);
  if (im->m->main->unset) return true;
  im->m->main->unset = value_new(im->m, NULL);
  value_set_tensor(im->m, im->m->main->unset, DT_BOOL, 0, NULL);
  return true;
}

/* ---- two versions of the graph ---- */
static bool define_all(Import *im, Scope *s, bool constants) {
  const Graph *g = im->m->main;
  for (int k = 0; k < g->inputs.n; k++) {
    Value *v = g->inputs.data[k];
    const Loc loc = {.file = im->path, .node = -1, .node_name = v->name};
    if (v->init && !scope_define(im, s, v->name, constants ? v->init : v, &loc)) return false;
  }
  return true;
}

static Graph *import_version(Import *im, const Scope *outer, const Onnx__GraphProto *p,
                             const char *name, bool constants) {
  Scope s = {.parent = outer, .same = true, .opsets = outer->opsets};
  s.graph = im->version = graph_new(im->m, outer->graph, name);
  im->given = !constants;
  const NodeList list = import_list(im, p, LEAVE_MODEL);
  const bool ok =
      define_all(im, &s, constants) && fork_import(im, &s, &list) && import_outputs(im, &s, p);
  im->version = NULL;
  im->given = false;
  return ok ? s.graph : NULL;
}

/* Said once, where it costs something. */
static void remark(Import *im, const Loc *loc) {
  int n = 0;
  int64_t bytes = 0;
  for (int k = 0; k < im->m->main->inputs.n; k++) {
    const Value *init = im->m->main->inputs.data[k]->init;
    if (!init) continue;
    n++;
    bytes += init->cdata->count * dtype_bytes(init->dtype);
  }
  if (bytes < LARGE) return;
  diag_warning(im->d, loc,
               "%d initializers (%lld bytes) are inputs, too, and can be given other values, so "
               "that everything is compiled twice; --freeze-initializers makes them constants",
               n, (long long)bytes);
}

static Node *choose(Import *im, Graph *frozen, Graph *given, const Loc *loc) {
  Graph *g = im->m->main;
  Node *n = graph_add_node(g, NULL, op_find("", "If"), 1, &g->unset, loc);
  node_set_attr(n, (Attr){.name = "then_branch", .kind = AT_GRAPH, .n = 1, .graph = frozen});
  node_set_attr(n, (Attr){.name = "else_branch", .kind = AT_GRAPH, .n = 1, .graph = given});
  frozen->owner = given->owner = n;
  for (int k = 0; k < frozen->outputs.n; k++) {
    const char *name = frozen->output_names.data[k];
    vec_push(im->arena, &g->outputs, node_add_output(n, name));
    vec_push(im->arena, &g->output_names, name);
    vec_push(im->arena, &g->output_keys, graph_output_keys(frozen, k));
    graph_set_list(g, k, true, graph_list(frozen, k, true));
  }
  return n;
}

bool defaults_import(Import *im, Scope *s, const Onnx__GraphProto *p) {
  Loc *loc = ARENA_NEW(im->arena, Loc);
  *loc = (Loc){.file = im->path, .node = -1};
  Graph *frozen = import_version(im, s, p, "then_branch", true);
  if (!frozen) return false;
  Graph *given = import_version(im, s, p, "else_branch", false);
  if (given && given->outputs.n != frozen->outputs.n)
    return diag_error(im->d, loc, ERR_UNSUPPORTED,
                      "the number of outputs depends on initializers that are inputs, too");
  for (int k = 0; given && k < given->outputs.n; k++)
    if (!graph_list(frozen, k, true) != !graph_list(given, k, true))
      return diag_error(im->d, loc, ERR_UNSUPPORTED,
                        "whether output %d is a list depends on initializers that are inputs, too",
                        k);
  if (given && op_infer(im->m, choose(im, frozen, given, loc))) return remark(im, loc), true;
  diag_hint(im->d,
            "this is about initializers that are inputs, too, and can be given other values; "
            "--freeze-initializers makes them constants");
  return false;
}
