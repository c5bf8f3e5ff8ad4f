/* Reverse-mode differentiation of graphs: what rules of operators are given, and how nodes are added
 * that compute gradients. Adjoints of the operators: Griewank and Walther, Evaluating Derivatives
 * (2008), chapter 3. */
#pragma once
#include "ir/op/op.h"

typedef struct GradientWalk GradientWalk; /* gradient.c */

/* One node, on the way from the results to what is differentiated. */
struct Gradient {
  Build *b; /* new nodes go in front of b->before */
  const Node *n;
  Value **g; /* of each output; NULL: nothing depends on it, or the row is not reached */
  GradientWalk *walk;
};

/* Is a gradient of this value needed? */
bool gradient_wants(const Gradient *s, const Value *v);
static inline bool gradient_wants_in(const Gradient *s, int k) {
  return node_in(s->n, k) && gradient_wants(s, s->n->in[k]);
}
/* Adds d (of v's type and shape) to the gradient of v; nothing where none is wanted. False: reported.
 */
bool gradient_give(Gradient *s, Value *v, Value *d);
/* The gradient of v is 0: every input whose gradient is wanted must be given one, or this. */
void gradient_none(Gradient *s, const Value *v);
/* Gives d to input k, whose shape was broadcast to d's: summed first. */
bool gradient_give_in(Gradient *s, int k, Value *d);
/* Gives input k zeros with g added at the index tuples `at` (ScatterND). */
bool gradient_give_at(Gradient *s, int k, Value *at, Value *g);
/* Rows DERIVED and ADJOINT. */
bool gradient_derived(Gradient *s);

/* Adds the nodes that compute Σ <gys[i], ys[i]> differentiated by each of xs, which are float
 * tensors: dxs, zeros where nothing depends on them. Values lie in b->g, or are captured by it. Nodes
 * on the way must have been brought into a form with rules (gradient_find_composite). False:
 * reported, of all nodes without a gradient. */
bool build_gradients(Build *b, int n_y, Value *const *ys, Value *const *gys, int n_x,
                     Value *const *xs, Value **dxs);
/* Marks the nodes between xs and ys whose rows are PARTS or EXPANDED (Node.mark = 1), those in
 * regions, too. False: there are none. */
bool gradient_mark_composites(Model *m, Graph *g, int n_y, Value *const *ys, int n_x,
                              Value *const *xs);

/* By value id: is y, or may have a gradient of it: y depends on it by nodes that gradients pass. */
const bool *gradient_sources(Model *m, const Graph *g, Value *y);

/* ---- what rules build with ---- */
/* Elementwise scalar text over inputs a b c …, broadcast; the result has type t. The first input after
 * an error. */
Value *build_map(Build *b, DType t, const char *text, int n, Value *const *in);
/* Such a text, which training steps write and the pass scatter_updates finds: the update of plain SGD
 * over parameter, gradient and rate. */
#define PLAIN_UPDATE "a - c * b"
const char *build_number(const Build *b, DType t, double v); /* as part of such a text */
Value *build_sum_to(Build *b, Value *v, const Value *like);  /* undoes broadcasting */
Value *build_reshape_like(Build *b, Value *v, const Value *like);
Value *build_full_like(Build *b, const Value *like, double v); /* all elements v */
Value *build_sum(Build *b, Value *v, int n, const int64_t *axes, bool keep);
Value *build_sum_all(Build *b, Value *v); /* of all elements, rank 0 */
Value *build_mean(Build *b, Value *v, int n, const int64_t *axes, bool keep);
