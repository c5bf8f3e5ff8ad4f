/* Symbolic folding: small results whose elements depend only on sizes, constants and known contents
 * get their elements computed as expressions (`contents`). This is how shape arithmetic disappears:
 * the ops' own elem is run with loads that stand for elements of values; afterwards reductions of
 * constant extent are unrolled and every load is replaced by what is known, or the folding is given
 * up. */
#include "ir/op/op_internal.h"
#include "ir/op/ops.h"

enum { MAX_ELEMENTS = 256, MAX_EXTENT = 256, MAX_STEPS = 20000, MAX_TREE = 4000 };

typedef struct Fold {
  Model *m;
  const Node *n;
  int steps;
  bool failed;
} Fold;

/* Buffer ids are positions of inputs. */
static const Expr *fold_read(ElemCtx *c, const Value *v, const Expr *const *idx,
                             const Expr *guard) {
  Fold *f = c->user;
  int k = 0;
  while (k < f->n->n_in && f->n->in[k] != v) k++;
  if (k == f->n->n_in || !value_known(v)) f->failed = true;
  return ex_load(c->pool, v->dtype, k,
                 index_flatten(c->pool, v->rank, (const Expr *const *)v->dims, idx), guard);
}

static const Expr *fold_load(void *user, const Expr *e) {
  Fold *f = user;
  int64_t at, guard = 1;
  if (e->op == EX_VAR || e->op == EX_HOLE || e->op == EX_LOCAL) f->failed = true;
  if (e->op != EX_LOAD || f->failed) return NULL;
  const bool known = expr_is_const(e->a[0], &at) && (!e->a[1] || expr_is_const(e->a[1], &guard));
  const Expr *el = !known   ? NULL
                   : !guard ? ex_const(f->m->pool, (DType)e->dtype, 0)
                            : value_element(f->m->pool, f->n->in[e->id], at);
  if (!el) f->failed = true;
  return el;
}

static const Expr *unroll(Fold *f, const Expr *e);

static const Expr *unroll_reduce(Fold *f, const Expr *e) {
  ExprPool *p = f->m->pool;
  int64_t extent, lo = 0;
  const Expr *low = expr_var_lo(p, e->id);
  if (!expr_is_const(e->a[1], &extent) || extent > MAX_EXTENT ||
      (low && !expr_is_const(low, &lo))) {
    f->failed = true;
    return e;
  }
  const Expr *var = NULL, *acc = reduce_identity(p, (ReduceKind)e->k.i, (DType)e->dtype);
  const Expr *stack[64];
  int top = 0;
  /* The bound variable as an expression: found in the body (when absent, every iteration is the
   * same). */
  stack[top++] = e->a[0];
  while (top && !var) {
    const Expr *x = stack[--top];
    if (x->op == EX_VAR && x->id == e->id) var = x;
    for (int i = 0; i < x->nargs && i < 3 && top < 64; i++)
      if (x->a[i] && expr_uses_var(x->a[i], e->id)) stack[top++] = x->a[i];
  }
  for (int64_t i = 0; i < extent && !f->failed; i++) {
    const Expr *body = var ? expr_subst(p, e->a[0], var, ex_i64(p, lo + i)) : e->a[0];
    if (++f->steps > MAX_STEPS) f->failed = true;
    acc = reduce_combine(p, (ReduceKind)e->k.i, acc, unroll(f, body));
  }
  return acc;
}

/* Copies e with its reductions written out. */
static const Expr *unroll(Fold *f, const Expr *e) {
  if (f->failed || !(e->flags & EXF_REDUCE)) return e;
  if (++f->steps > MAX_STEPS) f->failed = true;
  if (e->op == EX_REDUCE) return unroll_reduce(f, e);
  ExprPool *p = f->m->pool;
  const Expr *a[3] = {0};
  for (int i = 0; i < 3; i++) a[i] = e->a[i] ? unroll(f, e->a[i]) : NULL;
  switch (e->op) {
    case EX_LOAD: return ex_load(p, (DType)e->dtype, e->id, a[0], a[1]);
    case EX_cast: return ex_cast(p, (DType)e->dtype, a[0]);
    case EX_sat: return ex_sat(p, (DType)e->dtype, a[0]);
    case EX_bits: return ex_bits(p, (DType)e->dtype, a[0]);
    default: return ex_op(p, (ExprOp)e->op, a[0], a[1], a[2]);
  }
}

static const Expr *fold_element(Fold *f, ElemCtx *c, int out, const Expr *const *idx) {
  const Expr *e = op_elem(c, f->n, out, idx);
  if (!e || f->failed) return NULL;
  e = expr_lower_math(c->pool, unroll(f, e)); /* sizes have no pass that would do it later */
  if (f->failed) return NULL;
  if (e->flags & (EXF_LOAD | EXF_VAR | EXF_LOCAL | EXF_HOLE))
    e = expr_rewrite(c->pool, e, fold_load, f);
  if (f->failed || (e->flags & (EXF_LOAD | EXF_VAR | EXF_REDUCE | EXF_LOCAL | EXF_HOLE)))
    return NULL;
  return expr_tree_size(e) > MAX_TREE ? NULL : e;
}

static void fold_output(Model *m, Node *n, int out) {
  Value *v = n->out[out];
  int64_t dims[MAX_RANK], count = 1;
  const DClass cls = dtype_rows[v->dtype].cls;
  if (v->kind != TY_TENSOR || cls == DC_STRING || cls == DC_COMPLEX || cls == DC_NONE) return;
  if (!value_is_static(v, dims)) return;
  for (int d = 0; d < v->rank; d++)
    if (!ck_mul(count, dims[d], &count) || count > MAX_ELEMENTS) return;
  const Expr **list = ARENA_ARRAY(m->arena, const Expr *, count);
  Fold f = {.m = m, .n = n};
  ElemCtx c = {.pool = m->pool, .model = m, .read = fold_read, .user = &f};
  for (int64_t i = 0; i < count; i++) {
    const Expr *idx[MAX_RANK];
    int64_t rest = i;
    for (int d = v->rank - 1; d >= 0; d--) {
      idx[d] = ex_i64(m->pool, rest % dims[d]);
      rest /= dims[d];
    }
    if (!(list[i] = fold_element(&f, &c, out, idx))) return;
  }
  v->contents = list;
}

void op_fold_contents(Model *m, Node *n, const Contents *before) {
  if ((n->op->body != OB_EW && n->op->body != OB_ELEM) || (n->op->flags & OF_RANDOM)) return;
  for (int k = 0; k < n->n_out; k++)
    if (n->out[k] && n->out[k]->contents == before[k]) fold_output(m, n, k);
}
