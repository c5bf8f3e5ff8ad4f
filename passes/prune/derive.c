/* What a scalar expression of an element ties: an input that is read at the index of the result goes
 * with it, one that is read at the index of a sum of products goes with the other factor, and all others
 * stay. */
#include <string.h>
#include "ir/expr/expr_query.h"
#include "ir/op/ops.h"
#include "passes/prune/prune.h"

typedef struct Read {
  int slot;
  const Value *value;
  const Expr *const *idx;
} Read;

typedef struct Sum { /* over one variable */
  int var;
  bool product;  /* a load that depends on it is a factor of each term */
  int slot, dim; /* that runs along it; -1: none yet */
} Sum;

typedef struct Derive {
  PruneRelation *r;
  int node;
  const Node *n;
  Vec(Read) reads;
  Vec(Sum) sums;
  const Expr *idx[MAX_RANK]; /* of the result */
  int out, rank;             /* its slot */
} Derive;

/* Loads are numbered: a load of an expression tells which read it was. */
static const Expr *note_read(ElemCtx *c, const Value *v, const Expr *const *idx,
                             const Expr *guard) {
  Derive *d = c->user;
  int k = 0;
  while (k < d->n->n_in && d->n->in[k] != v) k++;
  const Read read = {.slot = prune_slot(d->r, d->node, k),
                     .value = v,
                     .idx = arena_dup(d->r->a, idx, sizeof *idx * (size_t)v->rank)};
  vec_push(d->r->a, &d->reads, read);
  const Expr *at = index_flatten(c->pool, v->rank, (const Expr *const *)v->dims, idx);
  return ex_load(c->pool, v->dtype, d->reads.n - 1, at, guard);
}

/* ---- sums ---- */
static const Expr *behind_casts(const Expr *e) {
  while (e->op == EX_cast) e = e->a[0];
  return e;
}

/* Is e 0 wherever some load at an index that uses `var` is? */
static bool has_factor(const Expr *e, int var) {
  e = behind_casts(e);
  if (e->op == EX_LOAD) return expr_uses_var(e->a[0], var);
  if (e->op == EX_REDUCE) return e->k.i == RED_SUM && has_factor(e->a[0], var);
  return e->op == EX_mul && (has_factor(e->a[0], var) || has_factor(e->a[1], var));
}

static void find_sums(Derive *d, const Expr *e) {
  ExprList l = {0};
  expr_reductions(d->r->m->pool, e, &l);
  for (int i = 0; i < l.n; i++) {
    const Expr *s = l.data[i];
    vec_push(
        d->r->a, &d->sums,
        (Sum){
            .var = s->id, .product = s->k.i == RED_SUM && has_factor(s->a[0], s->id), .slot = -1});
  }
}

static Sum *sum_over(Derive *d, const Expr *e) {
  for (int i = 0; e->op == EX_VAR && i < d->sums.n; i++)
    if (d->sums.data[i].var == e->id) return &d->sums.data[i];
  return NULL;
}

/* A sum over two tensors that are computed has no weights that could be 0. */
static bool has_weights(const Derive *d, const Expr *var) {
  for (int i = 0; i < d->reads.n; i++) {
    const Read *q = &d->reads.data[i];
    for (int k = 0; k < q->value->rank; k++)
      if (q->idx[k] == var && prune_weighs(d->r, q->value)) return true;
  }
  return false;
}

/* ---- reads ---- */
static const char *all_needed(const Derive *d) {
  return prune_because(d->r, d->node, "computes with all of them");
}

static int result_dim(const Derive *d, const Expr *e) {
  for (int k = 0; k < d->rank; k++)
    if (e->op == EX_VAR && d->idx[k] == e) return k;
  return -1;
}

/* Neither index nor result can go: they meet in another way. */
static void freeze_read(Derive *d, const Read *q, int dim) {
  const char *why = all_needed(d);
  prune_see(d->r, d->node, q->slot, dim);
  prune_freeze(d->r, q->slot, dim, why);
  for (int k = 0; k < d->rank; k++)
    if (d->idx[k]->op == EX_VAR && expr_uses_var(q->idx[dim], d->idx[k]->id))
      prune_freeze(d->r, d->out, k, why);
  for (int i = 0; i < d->sums.n; i++)
    if (expr_uses_var(q->idx[dim], d->sums.data[i].var)) d->sums.data[i].product = false;
}

static void tie_sum(Derive *d, Sum *s, const Read *q, int dim) {
  PruneRelation *r = d->r;
  prune_see(r, d->node, q->slot, dim);
  if (s->slot >= 0) prune_tie_dims(r, d->node, s->slot, s->dim, q->slot, dim);
  s->slot = q->slot;
  s->dim = dim;
  if (prune_weighs(r, q->value)) prune_add_product(r, d->node, q->slot, dim);
}

static void take_read(Derive *d, const Read *q, int dim) {
  const Expr *e = q->idx[dim];
  const int to = result_dim(d, e);
  Sum *s = sum_over(d, e);
  if (expr_is_i64(q->value->dims[dim], 1)) return;
  if (to >= 0)
    prune_tie_dims(d->r, d->node, q->slot, dim, d->out, to);
  else if (s && s->product && has_weights(d, e))
    tie_sum(d, s, q, dim);
  else
    freeze_read(d, q, dim);
}

static const Expr *hide_load(void *user, const Expr *leaf) {
  return leaf->op == EX_LOAD ? ex_hole(user, (DType)leaf->dtype, leaf->id) : NULL;
}

/* The value depends on an index itself. */
static void freeze_positions(Derive *d, const Expr *e) {
  ExprPool *p = d->r->m->pool;
  const Expr *rest = expr_rewrite(p, e, hide_load, p);
  for (int k = 0; k < d->rank; k++)
    if (d->idx[k]->op == EX_VAR && expr_uses_var(rest, d->idx[k]->id))
      prune_freeze(d->r, d->out, k, all_needed(d));
}

static void derive_output(Derive *d, int k) {
  ExprPool *p = d->r->m->pool;
  const Value *v = d->n->out[k];
  d->out = prune_result_slot(d->r, d->node, k);
  d->rank = v->rank;
  d->reads.n = d->sums.n = 0;
  for (int i = 0; i < v->rank; i++)
    d->idx[i] = expr_is_i64(v->dims[i], 1) ? ex_i64(p, 0) : ex_var(p, "i", v->dims[i]);
  ElemCtx c = {.pool = p, .model = d->r->m, .read = note_read, .user = d};
  const Expr *e = op_elem(&c, d->n, k, d->idx);
  if (!e) return;
  find_sums(d, e);
  /* What spoils a sum is found before anything is tied along it. */
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < d->reads.n; i++)
      for (int dim = 0; dim < d->reads.data[i].value->rank; dim++) {
        const Expr *at = d->reads.data[i].idx[dim];
        const bool plain = result_dim(d, at) >= 0 || sum_over(d, at);
        if (plain == (pass == 1)) take_read(d, &d->reads.data[i], dim);
      }
  freeze_positions(d, e);
}

/* Einsum is expanded, and has a form of one expression, too. */
static const OpRow *element_form(const OpRow *op) {
  if (op->body == OB_EW || op->body == OB_ELEM) return op;
  const OpRow *own = op->body == OB_EXPAND && !*op->domain ? op_find("burin", op->name) : NULL;
  return own && own->body == OB_ELEM ? own : NULL;
}

bool prune_derive(PruneRelation *r, int node) {
  Node n = *r->nodes[node];
  Derive d = {.r = r, .node = node, .n = &n};
  n.op = element_form(n.op);
  if (!n.op) return false;
  for (int k = 0; k < d.n->n_out; k++)
    if (d.n->out[k] && d.n->out[k]->kind == TY_TENSOR && d.n->out[k]->rank >= 0)
      derive_output(&d, k);
  return true;
}
