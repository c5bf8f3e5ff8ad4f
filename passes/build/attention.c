/* The scores of an attention inside the expression that its softmax reads. */
#include "passes/build/kernel.h"

bool node_is_elementwise(const Node *n) {
  return (n->op->body == OB_EW || n->op->body == OB_ELEM) && n->n_out == 1 && n->n_syms == 0 &&
         !(n->op->flags & (OF_PIECES | OF_SCATTER | OF_RANDOM | OF_CONTRACTION));
}

static bool mark_inlined(Value *v, const Value *scores, int depth) {
  bool found = v == scores;
  if (!found && v->def && !v->cdata && depth <= ATTENTION_DEPTH + 1 && node_is_elementwise(v->def))
    for (int k = 0; k < v->def->n_in; k++)
      if (v->def->in[k]) found = mark_inlined(v->def->in[k], scores, depth + 1) || found;
  if (found) v->inlined = true;
  return found;
}

bool attention_mark(Value *v, const Value *scores) { return mark_inlined(v, scores, 0); }

typedef struct Capture {
  const Expr *(*read)(ElemCtx *c, const Value *v, const Expr *const *idx, const Expr *guard);
  const Expr **at;
  bool seen;
} Capture;

/* Reads of the scores are noted; all others go the usual way. */
static const Expr *capture_read(ElemCtx *c, const Value *v, const Expr *const *idx,
                                const Expr *guard) {
  KernelExpr *k = (KernelExpr *)c;
  Capture *cap = c->user;
  if (v != k->anchor) return cap->read(c, v, idx, guard);
  for (int d = 0; d < v->rank; d++) {
    const Expr *i = expr_is_i64(v->dims[d], 1) ? ex_i64(c->pool, 0) : idx[d];
    if (cap->seen && cap->at[d] != i) k->bad = true;
    cap->at[d] = i;
  }
  cap->seen = true;
  return ex_hole(c->pool, v->dtype, 0);
}

const Expr *attention_score(KernelExpr *x, const Attention *a, const Expr *const *idx,
                            const Expr **at) {
  const int r = a->scores->rank;
  Capture cap = {.read = x->ctx.read, .at = at};
  for (int d = 0; d < r; d++) at[d] = NULL;
  void *user = x->ctx.user;
  x->ctx.read = capture_read;
  x->ctx.user = &cap;
  x->anchor = a->scores;
  x->anchor_idx = NULL;
  const Expr *e =
      a->x == a->scores ? capture_read(&x->ctx, a->x, idx, NULL) : kernel_expr_of(x, a->x, idx);
  x->anchor = NULL;
  x->ctx.read = cap.read;
  x->ctx.user = user;
  const int rx = a->x->rank;
  if (!cap.seen || r < 2 || rx < 2 || at[r - 2] != idx[rx - 2] || at[r - 1] != idx[rx - 1])
    x->bad = true;
  return e;
}
