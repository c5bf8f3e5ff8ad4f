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

/* A mask for each call: a hash of their number, the seed and the place in the tensor. */
static bool dropout(Train *x, Node *n, int ordinal) {
  const bool trains = strcmp(n->op->domain, "burin") == 0; /* it had training_mode */
  Value **in = ARENA_ARRAY(x->m->arena, Value *, 4);
  in[0] = n->in[0];
  in[1] = node_in(n, 1);
  in[2] = trains ? n->in[2] : value_const_scalar(x->m, DT_BOOL, 1);
  in[3] = x->calls;
  if (!in[1]) in[1] = value_const_scalar(x->m, DT_F32, 0.5);
  n->op = op_find("burin", "TrainingDropout");
  n->in = in;
  n->n_in = 4;
  node_set_int(n, "seed", (int64_t)(x->t->seed * 65537 + (uint64_t)ordinal + 1));
  return op_infer(x->m, n);
}

bool train_use_forms(Train *x) {
  for (int i = 0; i < x->g->nodes.n; i++)
    if (!as_in_use(x, x->g->nodes.data[i])) return false;
  return true;
}

bool train_forms(Train *x) {
  int ordinal = 0;
  for (int i = 0; i < x->g->nodes.n; i++) {
    Node *n = x->g->nodes.data[i];
    const char *op = n->op->name;
    if (strcmp(op, "BatchNormalization") == 0 && n->n_in == 5 && !batch_norm(x, n)) return false;
    if ((strcmp(op, "Dropout") == 0 || strcmp(op, "TrainingDropout") == 0) &&
        !dropout(x, n, ordinal++))
      return false;
  }
  return true;
}
