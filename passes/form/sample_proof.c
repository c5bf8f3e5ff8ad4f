/* See sample_blocks.h. Both nodes are asked what an element of their results is, at the same row of the
 * same sample: number first + s of all, number s of the block. Loads of inputs that hold samples are
 * written from the first sample on, so that equal elements are equal loads. What is left to compare are
 * two expressions that differ in the variables of their reductions at most. */
#include "passes/form/sample_blocks.h"

typedef struct Side {
  const Node *n;
  const Expr *const *rows; /* by input */
  const Expr *first;       /* sample; of the block 0 */
  const Expr *sample;      /* in the block */
  bool ok;
} Side;

static int slot_of(const Node *n, const Value *v) {
  int k = 0;
  while (k < n->n_in && n->in[k] != v) k++;
  return k;
}

/* Row idx0 of an input that has `rows` of each sample: counted from the first sample on. It must be one
 * of the sample that is computed. */
static const Expr *own_row(ElemCtx *c, Side *s, const Expr *rows, const Expr *idx0) {
  ExprPool *const p = c->pool;
  const Expr *const at = ex_sub(p, idx0, ex_mul(p, s->first, rows)),
                    *row = ex_sub(p, at, ex_mul(p, s->sample, rows)),
                    *rest = ex_sub(p, ex_sub(p, rows, ex_i64(p, 1)), row);
  int64_t lo, hi;
  s->ok =
      s->ok && expr_range(p, row, &lo, &hi) && lo >= 0 && expr_range(p, rest, &lo, &hi) && lo >= 0;
  return at;
}

static const Expr *read_input(ElemCtx *c, const Value *v, const Expr *const *idx,
                              const Expr *guard) {
  Side *const s = c->user;
  ExprPool *const p = c->pool;
  const Expr *at[MAX_RANK], *sum = NULL, *known;
  int64_t flat;
  const int k = slot_of(s->n, v);
  for (int d = 0; d < v->rank; d++) at[d] = idx[d];
  if (k < s->n->n_in && s->rows[k]) at[0] = own_row(c, s, s->rows[k], idx[0]);
  for (int d = 0; d < v->rank; d++) sum = d ? ex_add(p, ex_mul(p, sum, v->dims[d]), at[d]) : at[d];
  if (!sum) sum = ex_i64(p, 0);
  if (!guard && value_known(v) && expr_is_const(sum, &flat) &&
      (known = value_element(p, v, flat)) != NULL)
    return known;
  return ex_load(p, v->dtype, k, sum, guard);
}

/* ---- equal but for variables of reductions ---- */
typedef struct Pair {
  int left, right;
} Pair;
typedef struct Compare {
  Arena *a;
  Vec(Pair) vars;
  int budget;
} Compare;

static bool same(Compare *c, const Expr *e, const Expr *f);

static bool same_var(const Compare *c, const Expr *e, const Expr *f) {
  for (int i = c->vars.n - 1; i >= 0; i--)
    if (c->vars.data[i].left == e->id || c->vars.data[i].right == f->id)
      return c->vars.data[i].left == e->id && c->vars.data[i].right == f->id;
  return e->id == f->id;
}

/* Sums and their kind are ordered by when their parts were made. */
static bool commutes(const Expr *e) {
  return e->op == EX_add || e->op == EX_mul || e->op == EX_and || e->op == EX_or || e->op == EX_eq;
}

static bool same_parts(Compare *c, const Expr *e, const Expr *f) {
  if (commutes(e) && same(c, e->a[0], f->a[1]) && same(c, e->a[1], f->a[0])) return true;
  for (int i = 0; i < 3; i++) {
    const Expr *const x = i < e->nargs ? e->a[i] : NULL, *const y = i < f->nargs ? f->a[i] : NULL;
    if (x != y && (!x || !y || !same(c, x, y))) return false;
  }
  return true;
}

static bool same(Compare *c, const Expr *e, const Expr *f) {
  if (e == f) return true;
  if (c->budget-- <= 0 || e->op != f->op || e->dtype != f->dtype) return false;
  switch (e->op) {
    case EX_CONST: return false;
    case EX_SYM: return false;
    case EX_VAR: return same_var(c, e, f);
    case EX_REDUCE: {
      if (e->k.i != f->k.i || !same(c, e->a[1], f->a[1])) return false;
      vec_push(c->a, &c->vars, ((Pair){e->id, f->id}));
      const bool ok = same(c, e->a[0], f->a[0]);
      c->vars.n--;
      return ok;
    }
    default: return e->id == f->id && same_parts(c, e, f);
  }
}

/* ---- one result ---- */
static const Expr *element(const SampleBlocks *b, Side *s, int k, const Expr *const *idx) {
  ElemCtx c = {.pool = b->m->pool, .model = b->m, .read = read_input, .user = s};
  return op_elem(&c, s->n, k, idx);
}

static bool result_agrees(SampleBlocks *b, Side *all, Side *block, int k, const Expr *rows) {
  ExprPool *const p = b->m->pool;
  const Value *const v = block->n->out[k];
  const Expr *idx[MAX_RANK], *const row = ex_var(p, "r", rows);
  for (int d = 1; d < v->rank; d++) idx[d] = ex_var(p, "i", v->dims[d]);
  idx[0] = ex_add(p, ex_mul(p, ex_add(p, all->first, all->sample), rows), row);
  const Expr *const of_all = element(b, all, k, idx);
  idx[0] = ex_add(p, ex_mul(p, block->sample, rows), row);
  const Expr *const of_block = element(b, block, k, idx);
  Compare c = {.a = b->a, .budget = 20000};
  return of_all && of_block && all->ok && block->ok && same(&c, of_all, of_block);
}

bool samples_agree(SampleBlocks *b, const Node *n, const Node *copy, const Expr *const *rows) {
  ExprPool *const p = b->m->pool;
  const Expr *const sample = ex_var(p, "s", b->size);
  Side all = {n, rows, value_element(p, b->first, 0), sample, true},
       block = {copy, rows, ex_i64(p, 0), sample, true};
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && !result_agrees(b, &all, &block, k, b->rows[n->out[k]->id])) return false;
  return true;
}
