/* See train.h: the order in which a step is made. */
#include "passes/train/train.h"
#include <string.h>
#include "passes/train/step.h"

static const Loc *named_loc(const Model *m, const char *name, const char *op) {
  const Loc loc = {.file = m->file, .node = -1, .node_name = name, .op = op, .domain = ""};
  return arena_dup(m->arena, &loc, sizeof loc);
}

/* The loss, and parameters as inputs. */
static bool begin(Train *x) {
  Model *m = x->m;
  const char *optimizer = x->t->optimizer ? x->t->optimizer : "sgd";
  if (m->state.n) return diag_internal(m->diag, NULL, "the model is a training step already");
  if (!spec_parse(m, "--train", x->t->loss, &x->loss) ||
      !spec_parse(m, "--optimizer", optimizer, &x->optimizer) || !train_check_optimizer(x) ||
      !train_read_precision(x))
    return false;
  x->b = (Build){.m = m, .g = x->g, .loc = named_loc(m, "loss", x->loss.name), .ok = true};
  return train_add_loss(x) && train_find_params(x) && train_take_params(x);
}

/* The text without what it says of a teacher. */
static void drop_teacher(Spec *s) {
  int n = 0;
  for (int k = 0; k < s->pairs.n; k++)
    if (!spec_has_word("distill temperature", s->pairs.data[k].key))
      s->pairs.data[n++] = s->pairs.data[k];
  s->pairs.n = n;
}

Value *train_loss_alone(Model *m, const char *text, int *output, bool *classes) {
  const TrainSpec t = {.loss = text};
  Train x = {.m = m, .g = m->main, .t = &t};
  if (!spec_parse(m, "--train", text, &x.loss)) return NULL;
  drop_teacher(&x.loss);
  x.b = (Build){.m = m, .g = x.g, .loc = named_loc(m, "loss", x.loss.name), .ok = true};
  if (!train_add_loss(&x)) return NULL;
  *output = x.output_index;
  *classes = dtype_is_int(x.labels->dtype);
  return x.value;
}

/* Of the loss by each parameter that is chosen. */
static bool differentiate(Train *x, Value **out) {
  Value **in = ARENA_ARRAY(x->m->arena, Value *, x->params.n + 1);
  int n = 1;
  in[0] = x->scaled;
  for (int i = 0; i < x->params.n; i++)
    if (x->params.data[i].chosen) in[n++] = x->params.data[i].v;
  Node *node = graph_add_node(x->g, NULL, op_find("burin", "Gradient"), n, in, x->b.loc);
  for (int k = 1; k < n; k++)
    out[k - 1] = node_add_output(node, arena_printf(x->m->arena, "%s_grad", in[k]->name));
  return op_infer(x->m, node);
}

bool train_step(Model *m, const TrainSpec *t) {
  Train x = {.m = m, .g = m->main, .t = t};
  const bool update = t->part == TRAIN_UPDATE;
  if (!begin(&x)) return false;
  Value **gradients = update ? NULL : ARENA_ARRAY(m->arena, Value *, x.params.n);
  if (!train_count(&x) || (!update && (!train_forms(&x) || !train_halve(&x))) ||
      !train_scale_loss(&x) || (!update && !differentiate(&x, gradients)))
    return false;
  x.b.loc = named_loc(m, "update", x.optimizer.name);
  if (!train_updates(&x, gradients)) return false;
  graph_sort(m->main);
  return train_finish(&x);
}

bool train_eval(Model *m, const TrainSpec *t) {
  Train x = {.m = m, .g = m->main, .t = t, .eval = true};
  return begin(&x) && train_use_forms(&x) && train_finish(&x);
}
