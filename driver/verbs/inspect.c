/* burin inspect: what is in a model: inputs, outputs, operators, weights, multiply-adds and memory
 * per node. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "driver/driver.h"
#include "driver/session/work.h"

typedef struct NodeFacts {
  const Node *node;
  const Expr *macs;                /* over symbols; NULL: depends on data */
  int64_t out_bytes, weight_bytes; /* out_bytes: -1 when symbolic */
} NodeFacts;
typedef struct OpCount {
  const OpRow *op;
  int count;
} OpCount;
typedef struct Facts {
  Vec(NodeFacts) nodes;
  Vec(OpCount) ops;
  const Expr *macs;
  int64_t parameters, weight_bytes;
  bool macs_known; /* none depends on data */
} Facts;

/* ---- facts ---- */
static int64_t value_elements(const Value *v) {
  int64_t dims[MAX_RANK], n = 1;
  if (!v || v->kind != TY_TENSOR || !value_is_static(v, dims)) return -1;
  for (int k = 0; k < v->rank; k++)
    if (!ck_mul(n, dims[k], &n)) return -1;
  return n;
}

static int64_t value_bytes(const Value *v) {
  const int64_t n = value_elements(v);
  return n < 0 ? -1 : n * dtype_bytes(v->dtype);
}

static void count_op(Session *s, Facts *f, const OpRow *op) {
  for (int k = 0; k < f->ops.n; k++) {
    if (f->ops.data[k].op != op) continue;
    f->ops.data[k].count++;
    return;
  }
  vec_push(s->arena, &f->ops, (OpCount){op, 1});
}

static void collect(Session *s, const Graph *g, Facts *f) {
  for (int k = 0; k < g->nodes.n; k++) {
    const Node *n = g->nodes.data[k];
    NodeFacts nf = {.node = n, .macs = node_work(s->model, n)};
    for (int i = 0; i < n->n_out; i++) {
      const int64_t b = n->out[i] ? value_bytes(n->out[i]) : 0;
      nf.out_bytes = b < 0 || nf.out_bytes < 0 ? -1 : nf.out_bytes + b;
    }
    for (int i = 0; i < n->n_in; i++)
      if (n->in[i] && n->in[i]->cdata) nf.weight_bytes += value_bytes(n->in[i]);
    if (nf.macs)
      f->macs = ex_add(s->model->pool, f->macs, nf.macs);
    else
      f->macs_known = false;
    vec_push(s->arena, &f->nodes, nf);
    count_op(s, f, n->op);
    for (int i = 0; i < n->n_attrs; i++)
      if (n->attrs[i].kind == AT_GRAPH && n->attrs[i].graph) collect(s, n->attrs[i].graph, f);
  }
}

static int by_count(const void *a, const void *b) {
  const OpCount *x = a, *y = b;
  return x->count != y->count ? y->count - x->count : strcmp(x->op->name, y->op->name);
}

static void gather(Session *s, Facts *f) {
  f->macs_known = true;
  f->macs = ex_i64(s->model->pool, 0);
  collect(s, s->model->main, f);
  for (int k = 0; k < s->model->consts.n; k++) {
    const ConstData *c = s->model->consts.data[k];
    if (c->dtype == DT_STR) continue;
    f->weight_bytes += c->count * dtype_bytes(c->dtype);
    if (dtype_is_float(c->dtype)) f->parameters += c->count;
  }
  if (f->ops.n) qsort(f->ops.data, (size_t)f->ops.n, sizeof *f->ops.data, by_count);
}

/* ---- text ---- */
static const char *type_of(Session *s, const Value *v, const ListType *list) {
  StrBuf b = {.arena = s->arena};
  if (list) return list_text(s->arena, list);
  sb_printf(&b, "%s", dtype_text(v->dtype));
  sb_putc(&b, '[');
  for (int k = 0; k < v->rank; k++) {
    const char *t = expr_text(s->model->pool, v->dims[k]);
    sb_printf(&b, "%s%s", k ? "," : "", *t == '$' ? t + 1 : t);
  }
  sb_putc(&b, ']');
  return sb_str(&b);
}

static const char *escaped(Session *s, const char *name) {
  StrBuf b = {.arena = s->arena};
  sb_quoted(&b, name ? name : "");
  return sb_str(&b);
}

static const char *op_name(Session *s, const OpRow *op) {
  return op->domain && *op->domain ? arena_printf(s->arena, "%s.%s", op->domain, op->name)
                                   : op->name;
}

static const char *count_text(Session *s, int64_t n) {
  if (n < 0) return "symbolic";
  return n == 0 ? "-" : arena_printf(s->arena, "%lld", (long long)n);
}

/* An expression over sizes, as people write it. */
static const char *size_text(Session *s, const Expr *e) {
  StrBuf b = {.arena = s->arena};
  for (const char *t = expr_text(s->model->pool, e); *t; t++)
    if (*t != '$' && *t != ' ') sb_putc(&b, *t);
  return sb_str(&b);
}

static const char *work_text(Session *s, const Expr *e) {
  return !e ? "by data" : expr_is_i64(e, 0) ? "-" : size_text(s, e);
}

static void print_nodes(Session *s, const Facts *f) {
  printf("\n%5s  %-24s %14s %12s %12s  %s\n", "node", "operator", "multiply-adds", "out bytes",
         "weights", "name");
  for (int k = 0; k < f->nodes.n; k++) {
    const NodeFacts *n = &f->nodes.data[k];
    printf("%5d  %-24s %14s %12s %12s  %s\n", n->node->loc ? n->node->loc->node : -1,
           op_name(s, n->node->op), work_text(s, n->macs), count_text(s, n->out_bytes),
           count_text(s, n->weight_bytes), escaped(s, n->node->loc ? n->node->loc->node_name : ""));
  }
}

static int print_text(Session *s, const Facts *f) {
  const Model *m = s->model;
  const Graph *g = m->main;
  printf("model       %s\n", s->o->files.v[0]);
  printf("producer    %s\nIR, opset   %d, %d\n", escaped(s, m->producer), m->ir_version, m->opset);
  for (int k = 0; k < g->inputs.n; k++)
    printf("input       %s %s\n", escaped(s, g->inputs.data[k]->name),
           type_of(s, g->inputs.data[k], graph_list(g, k, false)));
  for (int k = 0; k < m->frozen.n; k++)
    printf("input       %s %s, has a default\n", escaped(s, m->frozen.data[k]->cdata->name),
           type_of(s, m->frozen.data[k], NULL));
  for (int k = 0; k < g->outputs.n; k++)
    printf("output      %s %s\n", escaped(s, g->output_names.data[k]),
           type_of(s, g->outputs.data[k], graph_list(g, k, true)));
  printf("parameters  %lld (%lld bytes)\n", (long long)f->parameters, (long long)f->weight_bytes);
  printf("work        %s multiply-adds%s\n", size_text(s, f->macs),
         f->macs_known ? "" : " and more that depend on data");
  printf("nodes       %d:", f->nodes.n);
  for (int k = 0; k < f->ops.n; k++)
    printf(" %s %d%s", op_name(s, f->ops.data[k].op), f->ops.data[k].count,
           k + 1 < f->ops.n ? "," : "\n");
  if (f->nodes.n == 0) printf("\n");
  if (!s->o->quiet) print_nodes(s, f);
  return EXIT_OK;
}

/* ---- JSON ---- */
static json_t *json_value(Session *s, const Value *v, const char *name, const ListType *list) {
  json_t *shape = json_array();
  for (int k = 0; !list && k < v->rank; k++) {
    int64_t n;
    const char *t = expr_text(s->model->pool, v->dims[k]);
    json_array_append_new(shape, expr_is_const(v->dims[k], &n)
                                     ? json_integer(n)
                                     : json_string(*t == '$' ? t + 1 : t));
  }
  return json_pack("{s:s, s:s, s:o}", "name", name, "type",
                   list ? list_text(s->arena, list) : dtype_text(v->dtype), "shape", shape);
}

static json_t *json_count(int64_t n) { return n < 0 ? json_null() : json_integer(n); }

/* A number, or a formula of the symbols. */
static json_t *json_work(Session *s, const Expr *e) {
  int64_t n;
  return !e ? json_null() : expr_is_const(e, &n) ? json_integer(n) : json_string(size_text(s, e));
}

static json_t *json_node(Session *s, const NodeFacts *n) {
  const Loc *l = n->node->loc;
  return json_pack("{s:i, s:s, s:s, s:o, s:o, s:o}", "node", l ? l->node : -1, "name",
                   l && l->node_name ? l->node_name : "", "op", op_name(s, n->node->op),
                   "multiply_adds", json_work(s, n->macs), "output_bytes", json_count(n->out_bytes),
                   "weight_bytes", json_count(n->weight_bytes));
}

static int print_json(Session *s, const Facts *f) {
  const Model *m = s->model;
  const Graph *g = m->main;
  json_t *inputs = json_array(), *outputs = json_array(), *ops = json_object(),
         *nodes = json_array();
  for (int k = 0; k < g->inputs.n; k++)
    json_array_append_new(
        inputs, json_value(s, g->inputs.data[k], g->inputs.data[k]->name, graph_list(g, k, false)));
  for (int k = 0; k < m->frozen.n; k++) {
    json_t *v = json_value(s, m->frozen.data[k], m->frozen.data[k]->cdata->name, NULL);
    json_object_set_new(v, "default", json_true());
    json_array_append_new(inputs, v);
  }
  for (int k = 0; k < g->outputs.n; k++)
    json_array_append_new(outputs, json_value(s, g->outputs.data[k], g->output_names.data[k],
                                              graph_list(g, k, true)));
  for (int k = 0; k < f->ops.n; k++)
    json_object_set_new(ops, op_name(s, f->ops.data[k].op), json_integer(f->ops.data[k].count));
  for (int k = 0; k < f->nodes.n; k++)
    json_array_append_new(nodes, json_node(s, &f->nodes.data[k]));
  json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:I, s:I, s:o, s:b, s:o, s:o}", "model",
                           s->o->files.v[0], "producer", m->producer, "ir_version", m->ir_version,
                           "opset", m->opset, "inputs", inputs, "outputs", outputs, "parameters",
                           (json_int_t)f->parameters, "weight_bytes", (json_int_t)f->weight_bytes,
                           "multiply_adds", json_work(s, f->macs), "multiply_adds_complete",
                           f->macs_known, "operators", ops, "nodes", nodes);
  if (!root || json_dumpf(root, stdout, JSON_INDENT(2)) != 0) return json_decref(root), EXIT_OUTPUT;
  printf("\n");
  json_decref(root);
  return EXIT_OK;
}

static int inspect_body(Session *s, void *user) {
  Facts f = {0};
  if (!session_load(s, s->o->files.v[0])) return session_status(s, EXIT_OK);
  if (s->module)
    return usage_error("%s is the text of a program; inspect shows graphs", s->o->files.v[0]);
  progress_clear(s);
  gather(s, &f);
  return s->o->json ? print_json(s, &f) : print_text(s, &f);
}

int verb_inspect(const Options *o) {
  if (o->files.n != 1) return usage_error("give one model; try 'burin inspect --help'");
  return session_run(o, inspect_body, NULL);
}
