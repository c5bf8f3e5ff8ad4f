/* What all templates of attention have in common: scores as the softmax reads them, the factor of a
 * row, the result's element, the head that a kernel is in. */
#include <math.h>

#include "passes/build/nest.h"
#include "passes/kernels/attention_kernel.h"

const Expr *attn_operand(Attn *c, KernelBuild *b, const Value *v, bool trans, int rank,
                         const Expr *const *from, const Expr *row, const Expr *col) {
  const Expr *idx[MAX_RANK];
  const int nb = v->rank - 2;
  for (int d = 0; d < nb; d++)
    idx[d] = expr_is_i64(v->dims[d], 1) ? num(c, 0) : from[rank - v->rank + d];
  idx[nb] = trans ? col : row;
  idx[nb + 1] = trans ? row : col;
  return ex_cast(c->p, DT_F32, kernel_expr_read(&b->x, v, idx));
}

const Expr *attn_inverse(Attn *c, const Expr *sum) {
  const Attention *a = c->at;
  const Expr *none = ex_bool(c->p, false);
  int64_t lo, hi;
  if (!expr_range(c->p, a->keys, &lo, &hi) || lo < 1) none = ex_eq(c->p, a->keys, num(c, 0));
  if (a->mode == SM_SAFE) none = ex_op(c->p, EX_or, none, ex_eq(c->p, sum, f32(c, 0)), NULL);
  return ex_select(c->p, none, f32(c, 0), ex_div(c->p, f32(c, 1), sum));
}

const Expr *attn_masked(Attn *c, const Expr *row, const Expr *key, const Expr *raw) {
  const Attention *a = c->at;
  const Expr *idx[MAX_RANK], *at[MAX_RANK], *hole = ex_hole(c->p, a->scores->dtype, 0);
  const int nb = a->x->rank - 2;
  for (int d = 0; d < nb; d++) idx[d] = c->batch[d];
  idx[nb] = expr_is_i64(a->rows, 1) ? num(c, 0) : row;
  idx[nb + 1] = expr_is_i64(a->keys, 1) ? num(c, 0) : key;
  const Expr *e = attention_score(&c->b.x, a, idx, at);
  if (a->qk.alpha != 1.0) raw = ex_mul(c->p, raw, f32(c, a->qk.alpha));
  raw = ex_cast(c->p, a->scores->dtype, raw);
  return ex_cast(c->p, DT_F32, expr_replace(c->p, e, 1, &hole, &raw));
}

const Expr *attn_base(Attn *c, const Expr *max) {
  return ex_select(c->p, ex_eq(c->p, max, f32(c, -INFINITY)), f32(c, 0), max);
}

Stmt *attn_store(Attn *c, const Expr *row, const Expr *col, const Expr *y, const Expr *factor) {
  const Attention *a = c->at;
  const Expr *own[MAX_RANK], *idx[MAX_RANK];
  const int rank = a->x->rank;
  for (int k = 0; k < rank - 2; k++) own[k] = c->batch[k];
  own[rank - 2] = row;
  own[rank - 1] = col;
  for (int k = 0; k < rank; k++) idx[k] = own[a->perm ? a->perm[k] : k];
  y = ex_mul(c->p, y, factor);
  if (a->mode == SM_NO_NAN) /* of a row without finite maximum the factor is NaN or infinite */
    y = ex_select(c->p, ex_lt(c->p, factor, f32(c, INFINITY)), y, f32(c, 0));
  y = kb_epilogue(&c->b, c->root, c->anchor, idx, y);
  const int out = kb_param(&c->b, c->to->buffer, c->to->offset, PA_WRITE);
  return stmt_store(arena(c), out, place_index(c->p, c->to, c->root->rank, idx), y);
}

void attn_bind_batch(Attn *c, const Expr *flat) {
  const Value *x = c->at->x;
  nest_indices(c->p, flat, x->rank - 2, x->dims, c->batch);
  const Expr *idx[MAX_RANK];
  for (int d = 0; d < x->rank - 2; d++) idx[d] = c->batch[d];
  for (int d = x->rank - 2; d < x->rank; d++)
    idx[d] = expr_is_i64(x->dims[d], 1) ? num(c, 0) : var(c, "x", x->dims[d]);
  attention_score(&c->b.x, c->at, idx, c->score_at);
}
