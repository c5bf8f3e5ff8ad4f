/* Operands of an attention kernel: keys and values are read in place where whole vectors allow it,
 * else packed by a kernel, once per head and not once per head of queries; queries are read in
 * place or copied block by block. Behind them what templates of all targets have in common: scores as
 * the softmax reads them, the factor of a row, the result's element, the head. */
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

/* Number of the batch entry of v, and how many there are. */
static const Expr *batch_number(const Attn *c, const Value *v, int rank, const Expr *const *from,
                                const Expr **count) {
  const Expr *at = num(c, 0);
  *count = num(c, 1);
  for (int d = 0; d < v->rank - 2; d++) {
    if (expr_is_i64(v->dims[d], 1)) continue;
    *count = ex_mul(c->p, *count, v->dims[d]);
    if (from) at = plus(c, ex_mul(c->p, at, v->dims[d]), from[rank - v->rank + d]);
  }
  return at;
}

/* The batch index of v from its number. */
static void batch_index(const Attn *c, const Value *v, const Expr *number, const Expr **idx) {
  nest_indices(c->p, number, v->rank - 2, v->dims, idx);
}

/* v as [batch][panel][rows][width], zeros behind its last column. */
static Step *pack(Attn *c, const Value *v, bool trans, const Expr *rows, const Expr *cols,
                  int64_t width, const char *name, const Place **to) {
  const Expr *batches, *panels = ex_ceildiv(c->p, cols, width), *idx[MAX_RANK];
  batch_number(c, v, 0, NULL, &batches);
  const Expr *dims[] = {batches, panels, rows, num(c, width)};
  *to = lower_temp(c->l, DT_F32, 4, dims, name);
  KernelBuild b;
  kb_begin(&b, c->l, c->root, name);
  const Expr *par = var(c, "p", ex_mul(c->p, batches, panels)), *r = var(c, "k", rows);
  const Expr *j = var(c, "j", num(c, width));
  batch_index(c, v, ex_floordiv(c->p, par, panels), idx);
  const Expr *col = plus(c, times(c, ex_floormod(c->p, par, panels), width), j);
  const Expr *inside = ex_lt(c->p, col, cols);
  const bool certain = inside->op == EX_CONST;
  b.x.guard = certain ? NULL : inside;
  const Expr *e = attn_operand(c, &b, v, trans, v->rank, idx, r, col);
  b.x.guard = NULL;
  if (e->op != EX_LOAD && !certain) e = ex_select(c->p, inside, e, f32(c, 0));
  const Expr *at = plus(c, times(c, plus(c, ex_mul(c->p, par, rows), r), width), j);
  Stmt *s = stmt_store(arena(c), kb_param(&b, (*to)->buffer, (*to)->offset, PA_WRITE), at, e);
  s = loop(c, FOR_SERIAL, r, loop(c, FOR_VECTOR, j, s));
  /* element by element, more often than not: they are transposed */
  const double cycles =
      expr_extent_guess(c->p, ex_mul(c->p, ex_mul(c->p, batches, panels), rows)) * (double)width;
  kb_estimate(&b, "pack", cycles);
  return kb_finish(&b, nest_parallel(&b, par, s, cycles));
}

/* Whether a right-hand side can be read where it is: whole, contiguous vectors, and rows of one
 * head that are not spread over more than half of the second-level cache, where they would push
 * each other out. */
static bool in_place(Attn *c, const Value *v, bool trans, const Expr *rows, const Expr *cols) {
  const Expr *idx[MAX_RANK], *coeff, *rest, *r = var(c, "k", rows), *j = var(c, "j", cols);
  int64_t n, stride;
  if (!expr_is_const(cols, &n) || n % c->lanes) return false;
  for (int d = 0; d < v->rank - 2; d++) idx[d] = var(c, "o", v->dims[d]);
  const Expr *e = attn_operand(c, &c->b, v, trans, v->rank, idx, r, j);
  return e->op == EX_LOAD && !e->a[1] && expr_affine(c->p, e->a[0], j, &coeff, &rest) &&
         expr_is_i64(coeff, 1) && expr_affine(c->p, e->a[0], r, &coeff, &rest) &&
         expr_is_const(coeff, &stride) &&
         4 * (double)stride * expr_extent_guess(c->p, rows) <=
             (double)c->l->c->target->l2_bytes / 2;
}

/* Queries of a known number of rows that are plain loads need no copy. */
static bool query_in_place(Attn *c) {
  const Attention *a = c->at;
  const Expr *idx[MAX_RANK], *coeff, *rest, *r = var(c, "r", a->rows);
  const Expr *d = var(c, "k", num(c, a->dk));
  if (a->rows->op != EX_CONST || a->qk.trans_a) return false;
  for (int k = 0; k < a->q->rank - 2; k++) idx[k] = var(c, "o", a->q->dims[k]);
  const Expr *e = attn_operand(c, &c->b, a->q, false, a->q->rank, idx, r, d);
  return e->op == EX_LOAD && !e->a[1] && expr_affine(c->p, e->a[0], d, &coeff, &rest) &&
         expr_affine(c->p, e->a[0], r, &coeff, &rest);
}

const Expr *attn_value(Attn *c, const Expr *key, const Expr *col) {
  const Value *v = c->at->v;
  const int rank = c->at->x->rank;
  if (!c->vp) return attn_operand(c, &c->b, v, false, rank, c->batch, key, col);
  const Expr *count, *at = batch_number(c, v, rank, c->batch, &count);
  at = plus(c, times(c, plus(c, ex_mul(c->p, at, c->at->keys), key), c->dv), col);
  return load(c, kb_param(&c->b, c->vp->buffer, c->vp->offset, PA_READ), at);
}

const Expr *attn_query_at(Attn *c, const Expr *row, const Expr *d) {
  const Attention *a = c->at;
  return attn_operand(c, &c->b, a->q, a->qk.trans_a, a->scores->rank, c->score_at, row, d);
}

const Expr *attn_query(Attn *c, const Expr *first, const Expr *row, const Expr *d) {
  if (!c->q_direct) return load(c, c->q, plus(c, times(c, row, c->at->dk), d));
  return attn_query_at(c, plus(c, first, row), d);
}

/* Lane j of the panel whose number among those of the head is `panel`. */
const Expr *attn_key(Attn *c, const Expr *panel, const Expr *d, const Expr *j) {
  const Attention *a = c->at;
  const int width = panel_width(c), rank = a->scores->rank;
  if (!c->kp)
    return attn_operand(c, &c->b, a->k, a->qk.trans_b, rank, c->score_at, d,
                        plus(c, times(c, panel, width), j));
  const Expr *count, *head = batch_number(c, a->k, rank, c->score_at, &count);
  panel = plus(c, ex_mul(c->p, head, ex_ceildiv(c->p, a->keys, width)), panel);
  return load(c, kb_param(&c->b, c->kp->buffer, c->kp->offset, PA_READ),
              plus(c, times(c, plus(c, times(c, panel, a->dk), d), width), j));
}

void attn_operands(Attn *c, Step **steps) {
  const Attention *a = c->at;
  const Expr *dk = num(c, a->dk), *dv = num(c, a->dv);
  if (!in_place(c, a->k, a->qk.trans_b, dk, a->keys))
    step_append(steps, pack(c, a->k, a->qk.trans_b, dk, a->keys, panel_width(c), "keys", &c->kp));
  if (!in_place(c, a->v, false, a->keys, dv))
    step_append(steps, pack(c, a->v, false, a->keys, dv, c->dv, "values", &c->vp));
  c->q_direct = query_in_place(c);
}

/* ---- scores and results, as all templates have them ---- */

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
