/* The loss by which importance is told: cross-entropy of the first output and a class for each of its rows.
 */
#include <string.h>
#include "driver/prune/pruner.h"

static const Loc here = {.node = -1, .node_name = "loss"};

static Value *before_softmax(Value *v) {
  const Node *n = v->def;
  return n && (strcmp(n->op->name, "Softmax") == 0 || strcmp(n->op->name, "LogSoftmax") == 0)
             ? n->in[0]
             : v;
}

Value *pruner_add_loss(Session *s) {
  Model *m = s->model;
  const Loc loc = {.file = s->file, .node = -1};
  if (!m->main->outputs.n || !graph_infer(m->main)) return NULL;
  Build b = {.m = m, .g = m->main, .loc = &here, .ok = true};
  Value *scores = before_softmax(m->main->outputs.data[0]), *labels = value_new(m, "burin.labels");
  const Expr *dims[MAX_RANK];
  if (scores->kind != TY_TENSOR || scores->rank < 2 || !dtype_is_float(scores->dtype))
    return diag_error(s->diag, &loc, ERR_UNSUPPORTED,
                      "the first output is no table of a score per class, which a loss of labels "
                      "needs; without --labels channels go by magnitude"),
           NULL;
  for (int d = 1; d < scores->rank; d++) dims[d - 1] = scores->dims[d == 1 ? 0 : d];
  value_set_tensor(m, labels, DT_I64, scores->rank - 1, dims);
  vec_push(m->arena, &m->main->inputs, labels);
  Value *in[] = {scores, labels};
  const Attr sum = attr_string(m->arena, "reduction", "sum");
  Value *loss = build_op(&b, "SoftmaxCrossEntropyLoss", 2, in, 1, &sum);
  return b.ok ? loss : NULL;
}
