/* Nodes that compute something else while a model is trained. */
#include <string.h>
#include "passes/train/step.h"

static Slot *statistic(Train *x, const Value *v) {
  for (int i = 0; i < x->slots.n; i++)
    if (x->slots.data[i].in == v && x->slots.data[i].item.kind == STATE_STATISTIC)
      return &x->slots.data[i];
  return NULL;
}

/* In use: moments that were gathered, and nothing dropped. */
static bool as_in_use(Train *x, Node *n) {
  const char *op = n->op->name;
  const bool norm = strcmp(op, "BatchNormalization") == 0,
             drops = strcmp(op, "TrainingDropout") == 0;
  if (norm && node_int(n, "training_mode", 0)) {
    node_set_int(n, "training_mode", 0);
    n->n_out = 1;
    return op_infer(x->m, n);
  }
  if (!drops || n->n_out != 1) return true; /* who reads its mask keeps it */
  n->op = op_find("", "Identity");
  n->n_in = 1;
  n->n_attrs = 0;
  return op_infer(x->m, n);
}

/* Normalizations that share statistics move them one after the other. */
static bool batch_norm(Train *x, Node *n) {
  Slot *slots[2] = {statistic(x, n->in[3]), statistic(x, n->in[4])};
  if (!slots[0] || !slots[1]) return as_in_use(x, n);
  node_set_int(n, "training_mode", 1);
  n->n_out = 1;
  for (int k = 0; k < 2; k++) {
    if (slots[k]->out) n->in[3 + k] = slots[k]->out;
    slots[k]->out = node_add_output(n, NULL);
  }
  return op_infer(x->m, n);
}

/* ---- bodies of If, Loop and Scan ---- */
typedef struct Forms {
  Train *x;
  Graph *g;
  Value *calls,
      *iteration; /* number of the call, or of the iteration around; of this one, or NULL */
  const char *in; /* the operator whose body g is, NULL: the main graph */
  int *ordinal;
} Forms;

static bool is_dropout(const Node *n) {
  return strcmp(n->op->name, "Dropout") == 0 || strcmp(n->op->name, "TrainingDropout") == 0;
}

static bool holds_dropout(const Node *n) {
  for (int k = 0; k < n->n_attrs; k++) {
    const Graph *g = n->attrs[k].kind == AT_GRAPH ? n->attrs[k].graph : NULL;
    for (int i = 0; g && i < g->nodes.n; i++)
      if (is_dropout(g->nodes.data[i]) || holds_dropout(g->nodes.data[i])) return true;
  }
  return false;
}

/* A number that differs between iterations, too: in front of `before`. */
static Value *numbered(const Forms *f, Node *before) {
  if (!f->iteration) return f->calls;
  Build b = {.m = f->x->m, .g = f->g, .before = before, .loc = before->loc, .ok = true};
  Value *v = build_map(&b, DT_I64, "a * 1048576 + b", 2, (Value *[]){f->calls, f->iteration});
  return b.ok ? v : NULL;
}

/* A mask for each call: a hash of their number, the seed and the place in the tensor. */
static bool dropout(const Forms *f, Node *n) {
  Train *x = f->x;
  const bool trains = strcmp(n->op->domain, "burin") == 0; /* it had training_mode */
  Value **in = ARENA_ARRAY(x->m->arena, Value *, 4);
  in[0] = n->in[0];
  in[1] = node_in(n, 1);
  in[2] = trains ? n->in[2] : value_const_scalar(x->m, DT_BOOL, 1);
  in[3] = numbered(f, n);
  if (!in[3]) return false;
  if (!in[1]) in[1] = value_const_scalar(x->m, DT_F32, 0.5);
  n->op = op_find("burin", "TrainingDropout");
  n->in = in;
  n->n_in = 4;
  node_set_int(n, "seed", (int64_t)(x->t->seed * 65537 + (uint64_t)(*f->ordinal)++ + 1));
  return op_infer(x->m, n);
}

/* What its running statistics would become hangs on how often the body runs. */
static bool keeps_statistics(const Forms *f, const Node *n) {
  bool trained = false;
  for (int i = 0; i < f->x->params.n; i++) {
    const Param *p = &f->x->params.data[i];
    trained |= p->chosen && (p->v == n->in[1] || p->v == n->in[2]);
  }
  if (!trained) return true;
  diag_warning(
      f->x->m->diag, n->loc,
      "BatchNormalization inside %s trains scale and bias, but is computed as in the file: "
      "its running statistics do not move",
      f->in);
  return true;
}

/* Scan counts no iterations: it becomes a Loop. */
static bool unroll_scan(const Forms *f, Node *n) {
  Build b = {.m = f->x->m, .g = f->g, .before = n, .loc = n->loc, .ok = true};
  Value **out = ARENA_ARRAY(b.m->arena, Value *, n->n_out + 1);
  if (!n->op->expand(&b, n, out) || !b.ok) return false;
  for (int k = 0; k < n->n_out; k++) {
    if (!n->out[k]) continue;
    if (!out[k]->name) out[k]->name = n->out[k]->name;
    graph_replace_value(f->g, n->out[k], out[k]);
  }
  graph_remove_node(f->g, n);
  return true;
}

static bool use_forms(Train *x, Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    if (!as_in_use(x, n)) return false;
    for (int k = 0; k < n->n_attrs; k++)
      if (n->attrs[k].kind == AT_GRAPH && !use_forms(x, n->attrs[k].graph)) return false;
  }
  return true;
}

bool train_use_forms(Train *x) { return use_forms(x, x->g); }

static bool forms_of(const Forms *f);

static bool body_forms(const Forms *f, Node *n) {
  for (int k = 0; k < n->n_attrs; k++) {
    if (n->attrs[k].kind != AT_GRAPH) continue;
    Forms inner = *f;
    inner.g = n->attrs[k].graph;
    inner.in = n->op->name;
    if (strcmp(n->op->name, "Loop") == 0 && holds_dropout(n)) {
      inner.calls = numbered(f, n);
      inner.iteration = inner.g->inputs.data[0];
    }
    if (!inner.calls || !forms_of(&inner)) return false;
  }
  return true;
}

static bool form(const Forms *f, Node *n) {
  const bool norm = strcmp(n->op->name, "BatchNormalization") == 0 && n->n_in == 5;
  if (norm) return f->in ? keeps_statistics(f, n) : batch_norm(f->x, n);
  return is_dropout(n) ? dropout(f, n) : body_forms(f, n);
}

static bool forms_of(const Forms *f) {
  const Graph *g = f->g;
  for (int i = 0; i < g->nodes.n; i++) {
    Node *n = g->nodes.data[i];
    if (strcmp(n->op->name, "Scan") == 0 && holds_dropout(n) && !unroll_scan(f, n)) return false;
  }
  const int count = g->nodes.n;
  Node **list = arena_dup(f->x->m->arena, g->nodes.data, sizeof *list * (size_t)count);
  for (int i = 0; i < count; i++) /* nodes are put between */
    if (!form(f, list[i])) return false;
  return true;
}

bool train_forms(Train *x) {
  int ordinal = 0;
  return forms_of(&(Forms){.x = x, .g = x->g, .calls = x->calls, .ordinal = &ordinal});
}
