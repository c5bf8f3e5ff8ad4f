/* Walks the main graph and gives readers of points their 8-bit form; internal to passes/ptq. */
#pragma once
#include "ir/op/op.h"
#include "passes/ptq/ptq.h"

typedef struct Rewriter Rewriter;
struct Rewriter {
  Model *m;
  const QuantPlan *q;
  Build b;       /* in front of the node that is looked at */
  Value **eight; /* by value id: what stands for it in 8 bits; NULL: not made yet */
  void *user;
  /* v of group `group` as 8 bits hold it, and real again */
  Value *(*round)(Rewriter *r, Value *v, int group);
  /* The layer l, node n, whose operands are, as 8 bits hold them, in8 (of constant weights: as they
   * are). *keep: n stays. */
  bool (*layer)(Rewriter *r, Node *n, const QuantLayer *l, Value *const *in8, bool *keep);
  bool all_groups; /* those that are off, too */
};
bool rewriter_run(Rewriter *r);
/* Of a node that is put in at `at`: the file has none such, so it names no operator. */
const Loc *inserted_loc(Arena *a, const Loc *at);
/* The bias of layer l with its shift: elements of the constant bias (or 0) by output channel; NULL:
 * the layer's node has a bias that is no constant of one dimension. Lives in the model's arena. */
float *layer_bias(const Model *m, const Node *n, const QuantLayer *l);
