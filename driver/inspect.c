/* burin inspect: what is in a model: inputs, outputs, operators, weights, multiply-adds and memory
 * per node. The work of a node is read off its own meaning: the extents of the reductions in its
 * elem. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "driver/driver.h"

typedef struct NodeFacts {
  const Node *node;
  int64_t macs, out_bytes, weight_bytes; /* macs, out_bytes: -1 when symbolic */
} NodeFacts;
typedef struct OpCount {
  const OpRow *op;
  int count;
  int64_t macs;
} OpCount;
typedef struct Facts {
  Vec(NodeFacts) nodes;
  Vec(OpCount) ops;
  int64_t macs, parameters, weight_bytes, peak;
  bool macs_known;
} Facts;

/* ---- work
 * ------------------------------------------------------------------------------------------------------------
 */
static const Expr *read_anything(ElemCtx *c, const Value *v, const Expr *const *idx,
                                 const Expr *guard) {
  return ex_load(c->pool, v->dtype, 0, ex_i64(c->pool, 0), guard);
}

/* Iterations of the deepest nest of sums in e; -1: symbolic. */
static int64_t reduction_size(ExprPool *p, const Expr *e) {
  int64_t most = 1, extent = 1;
  if (!(e->flags & EXF_REDUCE)) return 1;
  for (int k = 0; k < e->nargs; k++) {
    if (e->op == EX_REDUCE && k == 1) break;
    const int64_t inner = e->a[k] ? reduction_size(p, e->a[k]) : 1;
    if (inner < 0) return -1;
    if (inner > most) most = inner;
  }
  if (e->op == EX_REDUCE && e->k.i == RED_SUM && !expr_is_const(e->a[1], &extent)) return -1;
  return ck_mul(most, extent, &most) ? most : -1;
}

static int64_t value_elements(const Value *v) {
  int64_t dims[MAX_RANK], n = 1;
  if (!v || v->kind != TY_TENSOR || !value_is_static(v, dims)) return -1;
  for (int k = 0; k < v->rank; k++)
    if (!ck_mul(n, dims[k], &n)) return -1;
  return n;
}

/* Multiply-adds of a node that reduces; 0 for one that does not, -1 when symbolic. */
static int64_t node_macs(Model *m, const Node *n) {
  const Value *out = node_out(n, 0);
  const Expr *idx[MAX_RANK];
  if (n->op->body != OB_ELEM || !out || out->kind != TY_TENSOR || out->rank < 0) return 0;
  ElemCtx c = {.pool = m->pool, .model = m, .read = read_anything};
  for (int k = 0; k < out->rank; k++) idx[k] = ex_var(m->pool, "i", out->dims[k]);
  const Expr *e = op_elem(&c, n, 0, idx);
  if (!e || !(e->flags & EXF_REDUCE)) return 0;
  const int64_t each = reduction_size(m->pool, e), count = value_elements(out);
  int64_t total;
  if (each == 1) return 0;
  return each < 0 || count < 0 || !ck_mul(each, count, &total) ? -1 : total;
}

static int64_t value_bytes(const Value *v) {
  const int64_t n = value_elements(v);
  return n < 0 ? -1 : n * dtype_bytes(v->dtype);
}

static void count_op(Session *s, Facts *f, const OpRow *op, int64_t macs) {
  for (int k = 0; k < f->ops.n; k++) {
    if (f->ops.data[k].op != op) continue;
    f->ops.data[k].count++;
    if (macs > 0) f->ops.data[k].macs += macs;
    return;
  }
  vec_push(s->arena, &f->ops, (OpCount){op, 1, macs > 0 ? macs : 0});
}

static void collect(Session *s, const Graph *g, Facts *f) {
  for (int k = 0; k < g->nodes.n; k++) {
    const Node *n = g->nodes.data[k];
    NodeFacts nf = {.node = n, .macs = node_macs(s->model, n)};
    for (int i = 0; i < n->n_out; i++) {
      const int64_t b = n->out[i] ? value_bytes(n->out[i]) : 0;
      nf.out_bytes = b < 0 || nf.out_bytes < 0 ? -1 : nf.out_bytes + b;
    }
    for (int i = 0; i < n->n_in; i++)
      if (n->in[i] && n->in[i]->cdata) nf.weight_bytes += value_bytes(n->in[i]);
    if (nf.macs < 0)
      f->macs_known = false;
    else
      f->macs += nf.macs;
    vec_push(s->arena, &f->nodes, nf);
    count_op(s, f, n->op, nf.macs);
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
  collect(s, s->model->main, f);
  for (int k = 0; k < s->model->consts.n; k++) {
    const ConstData *c = s->model->consts.data[k];
    if (c->dtype == DT_STR) continue;
    f->weight_bytes += c->count * dtype_bytes(c->dtype);
    if (dtype_is_float(c->dtype)) f->parameters += c->count;
  }
  if (f->ops.n) qsort(f->ops.data, (size_t)f->ops.n, sizeof *f->ops.data, by_count);
}

/* ---- text
 * -------------------------------------------------------------------------------------------------------------
 */
static const char *type_of(Session *s, const Value *v) {
  static const char *const kinds[] = {"?", "", "sequence of ", "optional ", "map to "};
  StrBuf b = {.arena = s->arena};
  sb_printf(&b, "%s%s", kinds[v->kind], dtype_text(v->dtype));
  if (v->kind != TY_TENSOR) return sb_str(&b);
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

static void print_nodes(Session *s, const Facts *f) {
  printf("\n%5s  %-24s %14s %12s %12s  %s\n", "node", "operator", "multiply-adds", "out bytes",
         "weights", "name");
  for (int k = 0; k < f->nodes.n; k++) {
    const NodeFacts *n = &f->nodes.data[k];
    printf("%5d  %-24s %14s %12s %12s  %s\n", n->node->loc ? n->node->loc->node : -1,
           op_name(s, n->node->op), count_text(s, n->macs), count_text(s, n->out_bytes),
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
           type_of(s, g->inputs.data[k]));
  for (int k = 0; k < g->outputs.n; k++)
    printf("output      %s %s\n", escaped(s, g->output_names.data[k]),
           type_of(s, g->outputs.data[k]));
  printf("parameters  %lld (%lld bytes)\n", (long long)f->parameters, (long long)f->weight_bytes);
  printf("work        %lld multiply-adds%s\n", (long long)f->macs,
         f->macs_known ? "" : " and more that depend on symbolic sizes (fix them with --dim)");
  printf("nodes       %d:", f->nodes.n);
  for (int k = 0; k < f->ops.n; k++)
    printf(" %s %d%s", op_name(s, f->ops.data[k].op), f->ops.data[k].count,
           k + 1 < f->ops.n ? "," : "\n");
  if (f->nodes.n == 0) printf("\n");
  if (!s->o->quiet) print_nodes(s, f);
  return EXIT_OK;
}

/* ---- JSON
 * --------------------------------------------------------------------------------------------------------------
 */
static json_t *json_value(Session *s, const Value *v, const char *name) {
  json_t *shape = json_array();
  for (int k = 0; v->kind == TY_TENSOR && k < v->rank; k++) {
    int64_t n;
    const char *t = expr_text(s->model->pool, v->dims[k]);
    json_array_append_new(shape, expr_is_const(v->dims[k], &n)
                                     ? json_integer(n)
                                     : json_string(*t == '$' ? t + 1 : t));
  }
  return json_pack("{s:s, s:s, s:o}", "name", name, "type", dtype_text(v->dtype), "shape", shape);
}

static json_t *json_count(int64_t n) { return n < 0 ? json_null() : json_integer(n); }

static json_t *json_node(Session *s, const NodeFacts *n) {
  const Loc *l = n->node->loc;
  return json_pack("{s:i, s:s, s:s, s:o, s:o, s:o}", "node", l ? l->node : -1, "name",
                   l && l->node_name ? l->node_name : "", "op", op_name(s, n->node->op),
                   "multiply_adds", json_count(n->macs), "output_bytes", json_count(n->out_bytes),
                   "weight_bytes", json_count(n->weight_bytes));
}

static int print_json(Session *s, const Facts *f) {
  const Model *m = s->model;
  const Graph *g = m->main;
  json_t *inputs = json_array(), *outputs = json_array(), *ops = json_object(),
         *nodes = json_array();
  for (int k = 0; k < g->inputs.n; k++)
    json_array_append_new(inputs, json_value(s, g->inputs.data[k], g->inputs.data[k]->name));
  for (int k = 0; k < g->outputs.n; k++)
    json_array_append_new(outputs, json_value(s, g->outputs.data[k], g->output_names.data[k]));
  for (int k = 0; k < f->ops.n; k++)
    json_object_set_new(ops, op_name(s, f->ops.data[k].op), json_integer(f->ops.data[k].count));
  for (int k = 0; k < f->nodes.n; k++)
    json_array_append_new(nodes, json_node(s, &f->nodes.data[k]));
  json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:I, s:I, s:I, s:b, s:o, s:o}", "model",
                           s->o->files.v[0], "producer", m->producer, "ir_version", m->ir_version,
                           "opset", m->opset, "inputs", inputs, "outputs", outputs, "parameters",
                           (json_int_t)f->parameters, "weight_bytes", (json_int_t)f->weight_bytes,
                           "multiply_adds", (json_int_t)f->macs, "multiply_adds_complete",
                           f->macs_known, "operators", ops, "nodes", nodes);
  if (!root || json_dumpf(root, stdout, JSON_INDENT(2)) != 0) return json_decref(root), EXIT_OUTPUT;
  printf("\n");
  json_decref(root);
  return EXIT_OK;
}

static int inspect_body(Session *s, void *user) {
  Facts f = {0};
  if (!session_load(s, s->o->files.v[0]))
    return diag_errors(s->diag) ? diag_exit_status(s->diag) : EXIT_USAGE;
  progress_clear(s);
  gather(s, &f);
  return s->o->json ? print_json(s, &f) : print_text(s, &f);
}

int verb_inspect(const Options *o) {
  if (o->files.n != 1) return usage_error("give one model; try 'burin inspect --help'");
  return session_run(o, inspect_body, NULL);
}
