/* burin.Gradient: y, x, x, … → the gradient of the sum of y's elements with respect to each x. The
 * pass differentiate replaces it. */
#include "ir/op/gradient.h"
#include "ir/op/ops.h"

bool infer_gradient(Model *m, Node *n) {
  for (int k = 0; k < n->n_in; k++)
    if (!op_need_class(m, n, k, CL_FLOAT)) return false;
  if (n->n_out != n->n_in - 1)
    return op_error(m, n, ERR_ARITY, "%d outputs for %d inputs", n->n_out, n->n_in - 1);
  for (int k = 0; k < n->n_out; k++)
    if (!op_out_like(m, n, k, n->in[k + 1]->dtype, n->in[k + 1])) return false;
  return true;
}

bool expand_gradient(Build *b, Node *n, Value **out) {
  if (b->g != n->graph) /* evaluated alone: what y is made of is not there */
    return op_error(b->m, n, ERR_UNSUPPORTED, "a gradient is computed by the pass differentiate");
  Value *one = build_full_like(b, n->in[0], 1);
  return b->ok && build_gradients(b, 1, &n->in[0], &one, n->n_out, n->in + 1, out);
}
