/* How often a Loop runs, from its condition. A while loop carries a counter and compares it with a
 * size; here the counter is recognised (state_contents), and the comparison solved for the
 * iteration number (loop_trip). */
#include <string.h>
#include "ir/op/tensor_util.h"
#include "ir/ops/control/control.h"

enum { MAX_PARTS = 8 };

/* ---- states ---- */
static Value *through_identity(Value *v) {
  while (v->def && strcmp(v->def->op->name, "Identity") == 0) v = v->def->in[0];
  return v;
}

static bool single(const Value *v) {
  int64_t dims[MAX_RANK];
  if (v->kind != TY_TENSOR || !value_is_static(v, dims)) return false;
  for (int d = 0; d < v->rank; d++)
    if (dims[d] != 1) return false;
  return true;
}

/* A constant integer that is only given another type. */
static const Value *through_casts(const Value *v) {
  while (v->def && !v->cdata &&
         (strcmp(v->def->op->name, "Identity") == 0 || strcmp(v->def->op->name, "Cast") == 0 ||
          strcmp(v->def->op->name, "CastLike") == 0))
    v = v->def->in[0];
  return v;
}

/* What is added in each iteration; false when it is not the same known number each time. */
static bool constant_step(ExprPool *p, const Value *in, Value *next, int64_t *step) {
  const Node *n = through_identity(next)->def;
  const bool add = n && strcmp(n->op->name, "Add") == 0, sub = n && strcmp(n->op->name, "Sub") == 0;
  if (!add && !sub) return false;
  for (int i = 0; i < (add ? 2 : 1); i++) {
    const Value *by = through_casts(n->in[1 - i]);
    const Expr *e = by->cdata && by->cdata->count == 1 && dtype_is_int(by->dtype)
                        ? value_element(p, by, 0)
                        : NULL;
    if (through_identity(n->in[i]) != in || !e || !expr_is_const(e, step)) continue;
    if (*step < -64 || *step > 64) return false; /* 32-bit counters do not wrap then */
    if (sub) *step = -*step;
    return true;
  }
  return false;
}

void loop_state_contents(Model *m, const Node *n, Graph *g) {
  ExprPool *p = m->pool;
  const Expr *iter = value_element(p, g->inputs.data[0], 0);
  for (int k = 2; k < n->n_in; k++) {
    Value *in = g->inputs.data[k], *next = g->outputs.data[k - 1];
    const Expr *start = single(n->in[k]) ? value_element(p, n->in[k], 0) : NULL;
    int64_t step = 0;
    if (!start || (in->dtype != DT_I64 && in->dtype != DT_I32)) continue;
    if (through_identity(next) != in && !constant_step(p, in, next, &step)) continue;
    const Expr **e = ARENA_ARRAY(m->arena, const Expr *, 1);
    e[0] = ex_add(p, start, ex_mul(p, ex_int(p, in->dtype, step), ex_cast(p, in->dtype, iter)));
    in->contents = e;
  }
}

/* ---- sizes in comparisons ---- */
static int64_t exact_up_to(DType t) {
  switch (t) {
    case DT_F32: return 1 << 24;
    case DT_F64: return INT64_C(1) << 53;
    case DT_F16: return 1 << 11;
    default: return dtype_is_float(t) ? 1 << 8 : INT64_MAX;
  }
}

const Expr *loop_as_size(ExprPool *p, const Expr *e, int64_t *exact) {
  if (e->op == EX_CONST && dtype_is_float((DType)e->dtype))
    return e->k.f > -0x1p31 && e->k.f < 0x1p31 && e->k.f == (double)(int32_t)e->k.f
               ? ex_i64(p, (int64_t)e->k.f)
               : NULL;
  if (e->op == EX_CONST) return e->dtype == DT_BOOL ? NULL : ex_i64(p, e->k.i);
  if (e->op == EX_cast && dtype_is_float((DType)e->dtype)) {
    const int64_t k = exact_up_to((DType)e->dtype);
    if (k < *exact) *exact = k;
    return e->a[0]->dtype == DT_BOOL ? NULL : loop_as_size(p, e->a[0], exact);
  }
  if (e->op == EX_cast && (e->dtype == DT_I32 || e->dtype == DT_I64) &&
      dtype_is_int((DType)e->a[0]->dtype))
    return loop_as_size(p, e->a[0], exact);
  if (e->dtype == DT_I64) return e;
  if (e->dtype != DT_I32 || (e->op != EX_add && e->op != EX_sub && e->op != EX_mul)) return NULL;
  const Expr *a = loop_as_size(p, e->a[0], exact), *b = loop_as_size(p, e->a[1], exact);
  return a && b ? ex_op(p, (ExprOp)e->op, a, b, NULL) : NULL;
}

/* ---- conditions ---- */
typedef struct Part {      /* holds while room > 0 */
  const Expr *room, *most; /* most: the larger side, if it must not exceed `exact` for this to be an
                              equivalence */
  int64_t exact;
} Part;

typedef struct Parts {
  Part at[MAX_PARTS];
  int n;
  bool other; /* there is a condition besides */
} Parts;

static void split(ExprPool *p, const Expr *e, Parts *out) {
  int64_t k = 0, exact = INT64_MAX, lo, hi;
  if (e->op == EX_and) {
    split(p, e->a[0], out);
    split(p, e->a[1], out);
    return;
  }
  if (expr_is_const(e, &k) && k) return;
  const bool strict = e->op == EX_lt;
  const Expr *small = strict || e->op == EX_le ? loop_as_size(p, e->a[0], &exact) : NULL;
  const Expr *big = small ? loop_as_size(p, e->a[1], &exact) : NULL;
  if (!big || out->n == MAX_PARTS || (!strict && exact != INT64_MAX)) {
    out->other = true;
    return;
  }
  Part part = {.room = ex_sub(p, big, small), .exact = exact};
  if (!strict) part.room = ex_add(p, part.room, ex_i64(p, 1));
  if (exact != INT64_MAX) { /* rounding is monotonous: small < big is necessary, and enough where
                               both are exact */
    if (!expr_range(p, small, &lo, &hi) || lo < -exact) out->other = true;
    lo = INT64_MIN, hi = INT64_MAX;
    expr_range(p, big, &lo, &hi);
    if (hi > exact) part.most = big;
  }
  out->at[out->n++] = part;
}

/* A condition part of which may be data. */
static void split_value(ExprPool *p, Value *v, Parts *out, int depth) {
  const Expr *e = value_element(p, v, 0);
  const Node *n = through_identity(v)->def;
  if (e) {
    split(p, e, out);
  } else if (n && depth < 16 && strcmp(n->op->name, "And") == 0) {
    split_value(p, n->in[0], out, depth + 1);
    split_value(p, n->in[1], out, depth + 1);
  } else {
    out->other = true;
  }
}

/* Number of iterations from 0 on in which room stays positive, or NULL. Falls by *slope each
 * time. */
static const Expr *count_of(ExprPool *p, const Expr *room, const Expr *iter, int64_t *slope) {
  const Expr *first = expr_subst(p, room, iter, ex_i64(p, 0));
  const Expr *fall = ex_sub(p, first, expr_subst(p, room, iter, ex_i64(p, 1)));
  if (!expr_is_const(fall, slope) || *slope <= 0 || *slope > 1 << 20) return NULL;
  if (ex_sub(p, first, ex_mul(p, fall, iter)) != room) return NULL;
  return ex_ceildiv(p, first, *slope);
}

static bool symbol_in(const Expr *e, const Expr *sym) {
  if (e == sym) return true;
  for (int i = 0; i < e->nargs && (e->flags & EXF_SYM); i++)
    if (e->a[i] && symbol_in(e->a[i], sym)) return true;
  return false;
}

/* Is the condition before the first iteration the part's, one iteration earlier? */
static bool starts_like(ExprPool *p, const Parts *before, const Part *part, int64_t slope,
                        const Expr *iter) {
  if (before->other || before->n != 1) return false;
  const Expr *first = expr_subst(p, part->room, iter, ex_i64(p, 0));
  return before->at[0].room == ex_add(p, first, ex_i64(p, slope));
}

/* Where equivalence needs a side below 2^24, say, the compiled model refuses larger sizes. */
static bool assume_exact(Model *m, const Node *n, const Parts *parts, const Expr *iter) {
  for (int i = 0; i < parts->n; i++)
    if (parts->at[i].most && symbol_in(parts->at[i].most, iter)) return false;
  for (int i = 0; i < parts->n; i++) {
    const Expr *most = parts->at[i].most, *k = ex_i64(m->pool, parts->at[i].exact);
    if (most && !require_at_most(m, n, most, k, "a size that the condition of a Loop rounds"))
      return false;
  }
  return true;
}

/* Names a size of a state that the body changes. */
static bool changes(const Node *n, const Graph *g, const Expr *e) {
  for (int k = 2; k < n->n_in; k++)
    for (int d = 0; d < g->inputs.data[k]->rank && d < n->in[k]->rank; d++)
      if (g->inputs.data[k]->dims[d] != n->in[k]->dims[d] &&
          symbol_in(e, g->inputs.data[k]->dims[d]))
        return true;
  return false;
}

LoopTrip loop_trip(Model *m, const Node *n) {
  ExprPool *p = m->pool;
  const Graph *g = node_region(n, "body");
  const Expr *iter = value_element(p, g->inputs.data[0], 0), *least = NULL;
  const Expr *first = node_in(n, 1) ? value_element(p, n->in[1], 0) : ex_bool(p, true),
             *one = ex_i64(p, 1);
  Parts parts = {0}, before = {0};
  int64_t slope = 0, k = 0;
  LoopTrip t = {0};
  if (!iter || iter->op != EX_SYM) return t;
  split_value(p, g->outputs.data[0], &parts, 0);
  if (first) split(p, first, &before);
  bool exact = first && !parts.other, like = false;
  for (int i = 0; i < parts.n; i++) {
    const Expr *c =
        changes(n, g, parts.at[i].room) ? NULL : count_of(p, parts.at[i].room, iter, &slope);
    if (!c) {
      exact = false;
      continue;
    }
    const Expr *sum = least ? ex_min(p, least, c) : c;
    if (sum != least) like = sum == c && starts_like(p, &before, &parts.at[i], slope, iter);
    least = sum;
  }
  if (!least) return t;
  const bool always = first && expr_is_const(first, &k) && k;
  t.count = ex_max(p, ex_add(p, least, one), like ? ex_i64(p, 0) : one);
  t.exact = exact && (like || always) && assume_exact(m, n, &parts, iter) &&
            assume_exact(m, n, &before, iter);
  if (!t.exact) t.count = ex_max(p, t.count, one);
  return t;
}
