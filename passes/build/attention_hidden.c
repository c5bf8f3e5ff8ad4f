/* Blocks of an attention that a mask hides wholly: causal order, windows, padding. Where the
 * score is select(cond, …, -inf) and cond compares affine expressions of row and key, the extremes
 * over a block decide for all of it. */
#include <math.h>

#include "passes/build/kernel.h"
#include "passes/tiles/own_loops.h"

typedef struct Block {
  ExprPool *p;
  const Expr *vars[2]; /* row and key, from 0 */
  const Expr *last[2]; /* their largest values */
} Block;

/* A remainder that depends on v: rows of several heads in one matrix. */
static const Expr *find_mod(const Expr *e, const Expr *v) {
  if (!expr_uses_var(e, v->id)) return NULL;
  if (e->op == EX_floormod) return e;
  for (int i = 0; i < e->nargs; i++) {
    const Expr *m = e->a[i] ? find_mod(e->a[i], v) : NULL;
    if (m) return m;
  }
  return NULL;
}

/* e with its remainder (v + first) mod n replaced by the least or largest one of the block: where
 * the block does not pass a multiple of n, that of its first or last row. */
static const Expr *without_mod(const Block *b, const Expr *e, bool least) {
  ExprPool *p = b->p;
  const Expr *v = b->vars[0], *mod = v->op == EX_VAR ? find_mod(e, v) : NULL, *coeff, *first;
  int64_t k;
  if (!mod || expr_uses_var(mod->a[1], v->id) || expr_uses_var(mod->a[0], b->vars[1]->id)) return e;
  if (!expr_affine(p, mod->a[0], v, &coeff, &first) || !expr_is_i64(coeff, 1)) return e;
  const Expr *t = ex_var(p, "t", mod->a[1]), *rest, *n = mod->a[1];
  const Expr *by_t = expr_replace(p, e, 1, &mod, &t);
  if (!expr_affine(p, by_t, t, &coeff, &rest) || !expr_is_const(coeff, &k)) return e;
  const Expr *from = ex_floormod(p, first, n), *to = ex_add(p, from, b->last[0]);
  const Expr *inside = ex_lt(p, to, n), *low = ex_select(p, inside, from, ex_i64(p, 0));
  const Expr *high = ex_select(p, inside, to, ex_sub(p, n, ex_i64(p, 1)));
  return ex_add(p, rest, ex_mul(p, coeff, (k > 0) == least ? low : high));
}

/* Least or largest value of an integer expression over the block, NULL: not affine. */
static const Expr *extreme(const Block *b, const Expr *e, bool least) {
  e = without_mod(b, e, least);
  for (int i = 0; i < 2; i++) {
    const Expr *coeff, *rest;
    int64_t k;
    if (b->vars[i]->op != EX_VAR || !expr_uses_var(e, b->vars[i]->id)) continue;
    if (!expr_affine(b->p, e, b->vars[i], &coeff, &rest) || !expr_is_const(coeff, &k)) return NULL;
    e = (k > 0) == least ? rest : ex_add(b->p, rest, ex_mul(b->p, coeff, b->last[i]));
  }
  return e;
}

static const Expr *both(ExprPool *p, ExprOp op, const Expr *x, const Expr *y) {
  if (!x || !y) return op == EX_and ? NULL : x ? x : y;
  return ex_op(p, op, x, y, NULL);
}

/* When cond is `want` in all of the block; NULL: not known. */
static const Expr *everywhere(const Block *b, const Expr *cond, bool want) {
  ExprPool *p = b->p;
  if (cond->op == EX_not) return everywhere(b, cond->a[0], !want);
  if (cond->op == EX_and || cond->op == EX_or)
    return both(p, (cond->op == EX_and) == want ? EX_and : EX_or, everywhere(b, cond->a[0], want),
                everywhere(b, cond->a[1], want));
  if ((cond->op != EX_le && cond->op != EX_lt) || cond->a[0]->dtype != DT_I64) return NULL;
  const Expr *d = extreme(b, ex_sub(p, cond->a[0], cond->a[1]), !want), *zero = ex_i64(p, 0);
  if (!d) return NULL;
  const bool strict = (cond->op == EX_lt) == want;
  if (want) return strict ? ex_lt(p, d, zero) : ex_le(p, d, zero);
  return strict ? ex_lt(p, zero, d) : ex_le(p, zero, d);
}

static bool is_low(const Expr *e) {
  while (e->op == EX_cast) e = e->a[0];
  return e->op == EX_CONST && dtype_is_float(e->dtype) && e->k.f == -INFINITY;
}

static const Expr *hidden(const Block *b, const Expr *e) {
  while (e->op == EX_cast) e = e->a[0];
  if (e->op != EX_select) return NULL;
  if (is_low(e->a[2])) return both(b->p, EX_or, everywhere(b, e->a[0], false), hidden(b, e->a[1]));
  if (is_low(e->a[1])) return both(b->p, EX_or, everywhere(b, e->a[0], true), hidden(b, e->a[2]));
  return NULL;
}

const Expr *attention_hidden(KernelExpr *x, const Attention *a, const Expr *const *batch,
                             const Span *rows, const Span *keys) {
  ExprPool *p = x->ctx.pool;
  const Expr *idx[MAX_RANK], *at[MAX_RANK], *one = ex_i64(p, 1), *zero = ex_i64(p, 0);
  const Block b = {.p = p,
                   .vars = {ex_var(p, "r", rows->count), ex_var(p, "j", keys->count)},
                   .last = {ex_sub(p, rows->count, one), ex_sub(p, keys->count, one)}};
  const int nb = a->x->rank - 2;
  for (int d = 0; d < nb; d++) idx[d] = batch[d];
  idx[nb] = expr_is_i64(a->rows, 1) ? zero : ex_add(p, rows->first, b.vars[0]);
  idx[nb + 1] = expr_is_i64(a->keys, 1) ? zero : ex_add(p, keys->first, b.vars[1]);
  const Expr *cond = hidden(&b, attention_score(x, a, idx, at));
  return cond && (cond->op == EX_CONST || cond->flags & EXF_HOLE) ? NULL : cond;
}

static Span any_block(ExprPool *p, const Expr *all, int64_t size) {
  const Expr *n = ex_i64(p, size);
  return (Span){ex_mul(p, ex_var(p, "x", all), n), n};
}

bool attention_hides(KernelExpr *x, const Attention *a) {
  ExprPool *p = x->ctx.pool;
  const Expr *batch[MAX_RANK];
  const Span rows = any_block(p, a->rows, ATTENTION_ROWS),
             keys = any_block(p, a->keys, ATTENTION_SKIP);
  for (int d = 0; d < a->x->rank - 2; d++)
    batch[d] = expr_is_i64(a->x->dims[d], 1) ? ex_i64(p, 0) : ex_var(p, "o", a->x->dims[d]);
  return attention_hidden(x, a, batch, &rows, &keys) != NULL;
}
