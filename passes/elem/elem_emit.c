/* Statements of a kernel of elements: loops around a store, and each reduction where the loops are that
 * it depends on. */
#include "passes/elem/elem.h"

static const Expr *with_locals(ElemNest *t, const Expr *e) {
  return expr_replace(t->p, e, t->n_done, t->red_from, t->red_to);
}

static void count_stride(void *user, const Expr *load) {
  ElemStrides *s = user;
  const Expr *c, *rest;
  if (!expr_uses_var(load, s->var->id)) return;
  if (expr_affine(s->t->p, load->a[0], s->var, &c, &rest) && expr_is_i64(c, 1))
    s->good++;
  else
    s->bad++;
}

ElemStrides elem_strides(ElemNest *t, const Expr *e, const Expr *var) {
  ElemStrides s = {t, var, 0, 0};
  expr_each_load(t->p, e, count_stride, &s);
  return s;
}

/* The reduction directly inside r of the same kind: one accumulator serves both. Long sums keep one
 * accumulator per level: rounding errors grow with the length of a chain. */
static const Expr *inner_of(ElemNest *t, const Expr *r) {
  const Expr *b = r->a[0];
  const bool exact = r->k.i != RED_SUM || !dtype_is_float((DType)r->dtype);
  if (!exact && b->op == EX_REDUCE &&
      elem_guess(t, ex_var_of(t->p, r->id)) * elem_guess(t, ex_var_of(t->p, b->id)) > 512)
    return NULL;
  return b->op == EX_REDUCE && b->k.i == r->k.i && b->dtype == r->dtype && expr_uses_var(b, r->id)
             ? b
             : NULL;
}

static void emit_reduction(ElemNest *t, StmtList *out, const Expr *r, bool may_vector);
static Stmt *reduction_loops(ElemNest *t, const Expr *r, int local, bool may_vector);

/* Terms that one accumulator may take: many in vectors, each lane of which gathers few. The sums
 * of such blocks go into an accumulator of f64, so that rounding errors do not grow with their
 * number. */
enum { SUM_BLOCK = 4096, SUM_BLOCK_SERIAL = 256 };

/* 0: r stays whole. */
static int64_t sum_block(ElemNest *t, const Expr *r, bool may_vector) {
  int64_t lo, hi;
  if (r->k.i != RED_SUM || !dtype_is_float((DType)r->dtype)) return 0;
  const ElemStrides s = elem_strides(t, r->a[0], ex_var_of(t->p, r->id));
  const int64_t block = may_vector && !s.bad ? SUM_BLOCK : SUM_BLOCK_SERIAL;
  const bool known = expr_range(t->p, expr_var_extent(t->p, r->id), &lo, &hi);
  return known && hi <= block ? 0 : block;
}

static int sum_local(ElemNest *t, StmtList *out, DType dt) {
  Arena *a = t->l->m->arena;
  const int id = kernel_add_local(t->l->mod, t->b.k, (Local){.name = "t", .dtype = dt, .count = 1});
  stmt_add(out, stmt_local(a, id));
  stmt_add(out, stmt_set(a, id, ex_i64(t->p, 0), reduce_identity(t->p, RED_SUM, dt)));
  return id;
}

/* sum(i < n: f(i)) as sum(b < n/block: sum(j < block: f(b*block + j))), the outer one in f64. */
static Stmt *blocked_sum(ElemNest *t, const Expr *r, int local, bool may_vector, int64_t block) {
  Arena *a = t->l->m->arena;
  ExprPool *p = t->p;
  const DType dt = (DType)r->dtype;
  const Expr *var = ex_var_of(p, r->id), *n = expr_var_extent(p, r->id), *zero = ex_i64(p, 0);
  const Expr *size = ex_i64(p, block), *lo = expr_var_lo(p, r->id);
  const Expr *b = ex_var(p, "b", ex_ceildiv(p, n, block)), *base = ex_mul(p, b, size);
  const Expr *j = ex_var(p, "k", ex_min(p, size, ex_sub(p, n, base)));
  const Expr *at = ex_add(p, ex_add(p, lo ? lo : zero, base), j);
  const Expr *inner = ex_reduce(p, RED_SUM, j, expr_subst(p, r->a[0], var, at));
  StmtList all = {0}, body = {0};
  const int total = sum_local(t, &all, DT_F64), part = sum_local(t, &body, dt);
  stmt_add(&body, reduction_loops(t, inner, part, may_vector));
  const Expr *of_block = ex_cast(p, DT_F64, ex_local(p, dt, part, zero));
  stmt_add(&body, stmt_acc(a, total, zero, RED_SUM, of_block));
  stmt_add(&all, stmt_for(a, FOR_SERIAL, b, body.first));
  stmt_add(&all, stmt_set(a, local, zero, ex_cast(p, dt, ex_local(p, DT_F64, total, zero))));
  return all.first;
}

/* Where the number of terms is known only at run time, a short sum goes the short way. */
static Stmt *long_sum(ElemNest *t, const Expr *r, int local, bool may_vector, int64_t block) {
  const Expr *n = expr_var_extent(t->p, r->id), *is_short = ex_le(t->p, n, ex_i64(t->p, block));
  Stmt *blocked = blocked_sum(t, r, local, may_vector, block);
  if (expr_is_const(is_short, NULL)) return blocked;
  return stmt_if(t->l->m->arena, is_short, reduction_loops(t, r, local, may_vector), blocked);
}

/* The loops of r (and of those merged into it) around the accumulation into `local`. */
static Stmt *reduction_loops(ElemNest *t, const Expr *r, int local, bool may_vector) {
  Arena *a = t->l->m->arena;
  const Expr *var = ex_var_of(t->p, r->id);
  const Expr *inner = inner_of(t, r);
  if (inner) return stmt_for(a, FOR_SERIAL, var, reduction_loops(t, inner, local, may_vector));
  StmtList body = {0};
  ExprList nested = {0};
  expr_reductions(t->p, r->a[0], &nested);
  const int keep = t->n_done;
  bool has_nested = false;
  for (int i = 0; i < nested.n; i++) {
    bool done = false;
    for (int k = 0; k < t->n_done; k++) done = done || t->red_from[k] == nested.data[i];
    if (done) continue;
    bool ready = true; /* nested ones that belong into a deeper reduction are emitted there */
    for (int j = 0; j < nested.n; j++)
      if (elem_depends_on(t, nested.data[i], nested.data[j])) ready = false;
    if (!ready) continue;
    emit_reduction(t, &body, nested.data[i], false);
    has_nested = true;
  }
  const ElemStrides s = elem_strides(t, r->a[0], var);
  const bool vector = may_vector && !has_nested && !s.bad && elem_guess(t, var) >= 4;
  stmt_add(&body, stmt_acc(a, local, ex_i64(t->p, 0), (ReduceKind)r->k.i, with_locals(t, r->a[0])));
  t->n_done = keep;
  return stmt_for(a, vector ? FOR_VECTOR : FOR_SERIAL, var, body.first);
}

static void emit_reduction(ElemNest *t, StmtList *out, const Expr *r, bool may_vector) {
  if (t->n_done == MAX_REDS) {
    t->failed = true;
    return;
  }
  Arena *a = t->l->m->arena;
  const int64_t block = sum_block(t, r, may_vector);
  const DType dt = (DType)r->dtype;
  const int local =
      kernel_add_local(t->l->mod, t->b.k, (Local){.name = "t", .dtype = dt, .count = 1});
  const Expr *zero = ex_i64(t->p, 0);
  stmt_add(out, stmt_local(a, local));
  stmt_add(out, stmt_set(a, local, zero, reduce_identity(t->p, (ReduceKind)r->k.i, dt)));
  stmt_add(out, block ? long_sum(t, r, local, may_vector, block)
                      : reduction_loops(t, r, local, may_vector));
  t->red_from[t->n_done] = r;
  t->red_to[t->n_done++] = ex_local(t->p, dt, local, zero);
}

/* ---- the nest ---- */

static bool under_merged(ElemNest *t, const Expr *r) {
  for (int i = 0; i < t->reds.n; i++)
    if (inner_of(t, t->reds.data[i]) == r) return true;
  return false;
}

void elem_emit(ElemNest *t, StmtList *out, int k, int first_loop) {
  Arena *a = t->l->m->arena;
  const int keep = t->n_done;
  for (int i = 0; i < t->reds.n; i++) {
    const Expr *r = t->reds.data[i];
    const int level = elem_level_of(t, r);
    const bool here = level == k || (k == first_loop && level < k);
    if (!here || elem_is_nested(t, r) || under_merged(t, r)) continue;
    emit_reduction(t, out, r, (k < t->n || !t->vector_root) && !elem_on_gpu(t));
  }
  if (k == t->n) {
    const int target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
    stmt_add(out, stmt_store(a, target, t->store, with_locals(t, t->value)));
  } else {
    StmtList body = {0};
    elem_emit(t, &body, k + 1, -1);
    const bool vector = k == t->n - 1 && t->vector_root;
    stmt_add(out, stmt_for(a, vector ? FOR_VECTOR : FOR_SERIAL, t->var[k], body.first));
  }
  t->n_done = keep;
}
