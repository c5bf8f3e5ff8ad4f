/* The state of a training step: inputs and outputs of the main graph in one memory each, and their
 * places in the caller's buffer. */
#include <string.h>
#include "passes/train/step.h"

enum { ALIGN = 64 };

static bool taken(const Train *x, const char *name) {
  for (int k = 0; k < x->g->inputs.n; k++)
    if (x->g->inputs.data[k]->name && strcmp(x->g->inputs.data[k]->name, name) == 0) return true;
  for (int k = 0; k < x->g->output_names.n; k++)
    if (strcmp(x->g->output_names.data[k], name) == 0) return true;
  return false;
}

static const char *unique(const Train *x, const char *name) {
  const char *s = name;
  for (int k = 2; taken(x, s); k++) s = arena_printf(x->m->arena, "%s_%d", name, k);
  return s;
}

Value *train_input(Train *x, const char *name, DType t, int rank, const Expr *const *dims) {
  Value *v = value_new(x->m, unique(x, name));
  value_set_tensor(x->m, v, t, rank, dims);
  vec_push(x->m->arena, &x->g->inputs, v);
  return v;
}

Slot *train_slot(Train *x, StateKind kind, const char *name, DType t, const Value *like) {
  Value *v =
      train_input(x, name, t, like ? like->rank : 0, like ? (const Expr *const *)like->dims : NULL);
  vec_push(x->m->arena, &x->slots,
           (Slot){.item = {.name = v->name, .kind = kind, .input = x->g->inputs.n - 1}, .in = v});
  return &x->slots.data[x->slots.n - 1];
}

void train_set(Train *x, Value *in, Value *out) {
  for (int i = 0; i < x->slots.n; i++)
    if (x->slots.data[i].in == in) x->slots.data[i].out = out;
}

static void add_output(Train *x, Value *v, const char *name) {
  name = unique(x, name);
  vec_push(x->m->arena, &x->g->outputs, v);
  vec_push(x->m->arena, &x->g->output_names, name);
}

/* The loss in front of the outputs that stay. */
static void put_loss(Train *x) {
  Graph *g = x->g, old = *g;
  memset(&g->outputs, 0, sizeof g->outputs);
  memset(&g->output_names, 0, sizeof g->output_names);
  memset(&g->output_lists, 0, sizeof g->output_lists);
  memset(&g->output_keys, 0, sizeof g->output_keys);
  add_output(x, x->value, "loss");
  vec_push(x->m->arena, &g->output_keys, NULL);
  for (int k = 0; (x->t->keep_outputs || x->eval) && k < old.outputs.n; k++) {
    add_output(x, old.outputs.data[k], old.output_names.data[k]);
    vec_push(x->m->arena, &g->output_keys, graph_output_keys(&old, k));
    graph_set_list(g, g->outputs.n - 1, true, graph_list(&old, k, true));
  }
}

static bool put_item(Train *x, Slot *s, int64_t *at) {
  Model *m = x->m;
  int64_t count = 1, dims[MAX_RANK];
  if (!value_is_static(s->in, dims))
    return diag_internal(m->diag, NULL, "a tensor of the state without a size");
  for (int d = 0; d < s->in->rank; d++) count *= dims[d];
  s->item.offset = *at;
  s->item.bytes = count * dtype_bytes(s->in->dtype);
  *at += (s->item.bytes + ALIGN - 1) / ALIGN * ALIGN;
  s->item.output = -1;
  if (s->out) {
    s->item.output = x->g->outputs.n;
    add_output(x, s->out, arena_printf(m->arena, "%s_next", s->item.name));
    vec_push(m->arena, &m->in_place,
             (InPlace){.input = s->item.input, .output = s->item.output, .axis = -1});
  }
  vec_push(m->arena, &m->state, s->item);
  return true;
}

/* ---- halves of a step ---- */
/* Gradients leave what an update changes, and an update what the forward part does. */
static bool is_changed(const Train *x, const Slot *s) {
  const StateKind kind = s->item.kind;
  if (x->t->part == TRAIN_GRADIENTS)
    return kind == STATE_STATISTIC || kind == STATE_GRADIENT || s->in == x->part;
  return x->t->part != TRAIN_UPDATE || kind != STATE_STATISTIC;
}

static bool note_used(void *user, Value *v) {
  bool *const used = user;
  used[v->id] = true;
  return false;
}

static void drop_unused(Train *x) {
  Graph *const g = x->g;
  bool *const used = ARENA_ARRAY(x->m->arena, bool, x->m->next_value);
  int kept = g->nodes.n;
  for (int i = 0; i < x->slots.n; i++)
    if (x->slots.data[i].out) used[x->slots.data[i].out->id] = true;
  for (int i = g->nodes.n - 1; i >= 0; i--) {
    Node *const n = g->nodes.data[i];
    bool any = false;
    for (int k = 0; k < n->n_out; k++) any = any || (n->out[k] && used[n->out[k]->id]);
    if (!any) continue;
    node_any_read(n, note_used, used);
    g->nodes.data[--kept] = n;
  }
  g->nodes.n -= kept;
  memmove(g->nodes.data, g->nodes.data + kept, sizeof(Node *) * (size_t)g->nodes.n);
}

/* State alone goes in and out: nothing of the model is left. */
static void leave_state(Train *x) {
  Graph *const g = x->g;
  drop_unused(x);
  x->m->assumes.n = 0; /* of sizes of the data */
  memset(&g->inputs, 0, sizeof g->inputs);
  memset(&g->input_lists, 0, sizeof g->input_lists);
  memset(&g->outputs, 0, sizeof g->outputs);
  memset(&g->output_names, 0, sizeof g->output_names);
  memset(&g->output_lists, 0, sizeof g->output_lists);
  memset(&g->output_keys, 0, sizeof g->output_keys);
  for (int i = 0; i < x->slots.n; i++) {
    x->slots.data[i].item.input = i;
    vec_push(x->m->arena, &g->inputs, x->slots.data[i].in);
  }
}

bool train_finish(Train *x) {
  int64_t at = 0;
  for (int i = 0; i < x->slots.n; i++)
    if (!is_changed(x, &x->slots.data[i])) x->slots.data[i].out = NULL;
  if (x->t->part == TRAIN_UPDATE)
    leave_state(x);
  else
    put_loss(x);
  for (int i = 0; i < x->slots.n; i++)
    if (!put_item(x, &x->slots.data[i], &at)) return false;
  x->m->state_bytes = at;
  return true;
}
