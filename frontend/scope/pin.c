/* Sizes that depend on initializers that are inputs, too: the default is read in their place, and
 * pinned: no other value may be given (it is compared at entry). */
#include "frontend/scope/scope.h"

enum { MAX_PINNED = 64, MAX_PRODUCERS = 8 };

static bool is_list(const Value *v) {
  int64_t dims[MAX_RANK];
  return v && v->kind == TY_TENSOR && v->rank >= 0 && v->rank <= 1 && value_is_static(v, dims) &&
         (v->rank == 0 || dims[0] <= MAX_PINNED);
}

static bool try_infer(Import *im, Node *n) {
  im->m->diag = diag_new(im->scratch);
  const bool ok = op_infer(im->m, n);
  im->m->diag = im->d;
  return ok;
}

/* Reads the default in place of input k of n, or of what computes it; false: neither is possible.
 */
static bool pin(Import *im, Node *n, int k, int depth) {
  Value *v = n->in[k];
  bool any = false;
  if (!is_list(v)) return false;
  if (v->init) {
    v->pinned = true;
    n->in[k] = v->init;
    return true;
  }
  if (!v->def || v->def->graph != im->version || depth == MAX_PRODUCERS) return false;
  for (int i = 0; i < v->def->n_in; i++) any |= pin(im, v->def, i, depth + 1);
  return any && try_infer(im, v->def);
}

/* Shapes and their like stand behind the data: the last inputs come first. */
bool infer_pinned(Import *im, Node *n) {
  if (!im->given || try_infer(im, n)) return op_infer(im->m, n);
  for (int k = n->n_in - 1; k >= 0; k--)
    if (pin(im, n, k, 0) && try_infer(im, n)) break;
  return op_infer(im->m, n);
}
