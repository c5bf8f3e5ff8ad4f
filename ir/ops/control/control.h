/* Questions about control flow that inference, passes and the lowering ask. */
#pragma once
#include "ir/op/op.h"

/* The condition of a Loop cannot end it before its trip count (a size known at compile time). */
bool loop_runs_out(Model *m, const Node *n);

/* How often the condition alone lets a Loop run, from what is known of its body. count NULL: it
 * says nothing; exact: just as often (else: at most). May record what it takes for granted
 * (require_at_most). */
typedef struct LoopTrip {
  const Expr *count;
  bool exact;
} LoopTrip;
LoopTrip loop_trip(Model *m, const Node *n);

/* Contents of the body's integer states that never change, or change by a constant in each
 * iteration. */
void loop_state_contents(Model *m, const Node *n, Graph *g);
/* A side of a comparison as an i64 size, whatever number types it went through; NULL: it is
 * something else. *exact becomes at most the largest size up to which those types hold every
 * size. */
const Expr *loop_as_size(ExprPool *p, const Expr *e, int64_t *exact);
