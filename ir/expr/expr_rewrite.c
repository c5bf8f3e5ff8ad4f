/* Walks over expression DAGs: rewriting, substitution, uses, cost. Each walk takes a fresh stamp
 * and leaves its result for a node in the node's memo, so shared parts are visited once. */
#include <math.h>
#include <string.h>
#include "ir/expr/expr_impl.h"

typedef struct Rewrite {
  ExprPool *p;
  ExprRewrite leaf; /* NULL: only rebuild */
  void *user;
  uint64_t stamp;
} Rewrite;

static bool is_leaf(const Expr *e) {
  return e->op == EX_SYM || e->op == EX_VAR || e->op == EX_HOLE || e->op == EX_LOAD ||
         e->op == EX_LOCAL;
}

static const Expr *rewrite(const Rewrite *w, const Expr *e);

static const char *stem_of(ExprPool *p, int id) {
  const char *const name = p->vars.data[id].name;
  size_t n = strlen(name);
  while (n > 1 && ((name[n - 1] >= '0' && name[n - 1] <= '9') || name[n - 1] == '_')) n--;
  return arena_strndup(p->arena, name, n);
}

/* The bound variable keeps its identity unless its range changes or the callback renames it. */
static const Expr *rewrite_reduce(const Rewrite *w, const Expr *e) {
  ExprPool *const p = w->p;
  const Expr *const old = p->vars.data[e->id].expr;
  const Expr *const lo = p->vars.data[e->id].lo;
  const Expr *const new_lo = rewrite(w, lo), *const extent = rewrite(w, e->a[1]);
  const Expr *body = rewrite(w, e->a[0]);
  const Expr *const renamed = rewrite(w, old);
  const Expr *var = renamed->op == EX_VAR ? renamed : old;
  if (var == old && (new_lo != lo || extent != e->a[1])) {
    var = ex_var_range(p, stem_of(p, e->id), new_lo, extent);
    body = expr_subst(p, body, old, var);
  }
  return ex_reduce(p, (ReduceKind)e->k.i, var, body);
}

static const Expr *rewrite_node(const Rewrite *w, const Expr *e) {
  const Expr *r = e;
  if (e->op == EX_REDUCE) return rewrite_reduce(w, e);
  if (e->nargs) {
    const Expr *a[3] = {0};
    bool changed = !w->leaf;
    for (int i = 0; i < e->nargs; i++) {
      if (!e->a[i]) continue;
      a[i] = rewrite(w, e->a[i]);
      changed |= a[i] != e->a[i];
    }
    if (changed) r = expr_rebuild(w->p, e, a);
  }
  if (w->leaf && is_leaf(r)) {
    const Expr *const by = w->leaf(w->user, r);
    if (by) r = by;
  }
  return r;
}

static const Expr *rewrite(const Rewrite *w, const Expr *e) {
  ENode *const n = enode(e);
  if (n->stamp == w->stamp) return n->memo.expr;
  if (w->leaf && e->flags == 0) return e;
  const Expr *const r = rewrite_node(w, e);
  n->stamp = w->stamp;
  n->memo.expr = r;
  return r;
}

const Expr *expr_rewrite(ExprPool *p, const Expr *e, ExprRewrite leaf, void *user) {
  const Rewrite w = {p, leaf, user, ++p->stamp};
  return rewrite(&w, e);
}

typedef struct Subst {
  const Expr *from, *to;
} Subst;

static const Expr *subst_leaf(void *user, const Expr *leaf) {
  const Subst *const s = user;
  return leaf == s->from ? s->to : NULL;
}

const Expr *expr_subst(ExprPool *p, const Expr *e, const Expr *leaf, const Expr *by) {
  Subst s = {leaf, by};
  return leaf == by ? e : expr_rewrite(p, e, subst_leaf, &s);
}

const Expr *expr_simplify(ExprPool *p, const Expr *e) { return expr_rewrite(p, e, NULL, NULL); }

/* ---- questions ---- */
static bool any(const Expr *e, unsigned flags, bool (*f)(void *, const Expr *), void *user,
                uint64_t stamp) {
  if (!(e->flags & flags)) return false;
  ENode *const n = enode(e);
  if (n->stamp == stamp) return false;
  n->stamp = stamp;
  if (f(user, e)) return true;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i] && any(e->a[i], flags, f, user, stamp)) return true;
  return false;
}

bool expr_any(const Expr *e, unsigned flags, bool (*f)(void *user, const Expr *part), void *user) {
  return any(e, flags, f, user, ++enode(e)->pool->stamp);
}

typedef struct Named {
  ExprOp op;
  int id;
} Named;

static bool is_named(void *user, const Expr *part) {
  const Named *const want = user;
  return part->op == (uint8_t)want->op && part->id == want->id;
}

bool expr_uses_var(const Expr *e, int var_id) {
  return expr_any(e, EXF_VAR, is_named, &(Named){EX_VAR, var_id});
}
bool expr_uses_buffer(const Expr *e, int buffer) {
  return expr_any(e, EXF_LOAD, is_named, &(Named){EX_LOAD, buffer});
}

typedef struct Magnitude {
  double symbol;
  uint64_t stamp;
  int depth; /* of bounds that name other symbols */
  bool over;
} Magnitude;

static double magnitude(Magnitude *m, const Expr *e);

static double magnitude_op(Magnitude *m, const Expr *e) {
  double a[3] = {0};
  int64_t k;
  for (int i = 0; i < e->nargs && i < 3; i++)
    if (e->a[i]) a[i] = magnitude(m, e->a[i]);
  switch (e->op) {
    case EX_add:
    case EX_sub: return a[0] + a[1];
    case EX_mul: return a[0] * a[1];
    case EX_min:
    case EX_floormod:
    case EX_rem: return a[0] < a[1] ? a[0] : a[1];
    case EX_max: return a[0] > a[1] ? a[0] : a[1];
    case EX_div:
    case EX_floordiv: return expr_is_const(e->a[1], &k) && k > 0 ? a[0] / (double)k : a[0];
    case EX_select: return a[1] > a[2] ? a[1] : a[2];
    default: return e->dtype == DT_BOOL ? 1 : a[0];
  }
}

static double magnitude(Magnitude *m, const Expr *e) {
  ENode *const n = enode(e);
  if (e->op == EX_CONST) return fabs(dtype_is_float((DType)e->dtype) ? e->k.f : (double)e->k.i);
  if (n->stamp == m->stamp) return n->memo.value.f;
  double r = m->symbol;
  const Expr *const bound = e->op == EX_SYM ? n->pool->syms.data[e->id]->bound : NULL;
  if (bound && m->symbol > 1 && m->depth < 16) {
    m->depth++;
    r = magnitude(m, bound);
    m->depth--;
  } else if (e->op != EX_SYM) {
    r = magnitude_op(m, e);
    m->over |= !(r < 4e18);
  }
  n->stamp = m->stamp;
  n->memo.value.f = r;
  return r;
}

double expr_magnitude(const Expr *e, double symbol) {
  Magnitude m = {.symbol = symbol, .stamp = ++enode(e)->pool->stamp};
  const double r = magnitude(&m, e);
  return m.over ? INFINITY : r;
}

static double tree_size(const Expr *e, uint64_t stamp) {
  ENode *const n = enode(e);
  if (n->stamp == stamp) return n->memo.value.f;
  double sum = 1;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) sum += tree_size(e->a[i], stamp);
  n->stamp = stamp;
  return n->memo.value.f = sum;
}

double expr_tree_size(const Expr *e) { return tree_size(e, ++enode(e)->pool->stamp); }

static double cost(const Expr *e, uint64_t stamp) {
  ENode *const n = enode(e);
  if (n->stamp == stamp) return 0;
  n->stamp = stamp;
  double sum = expr_op_info[e->op].cost;
  if (e->op == EX_REDUCE) {
    int64_t extent;
    if (!expr_is_const(e->a[1], &extent)) extent = 64;
    return (double)extent * (1 + cost(e->a[0], stamp));
  }
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) sum += cost(e->a[i], stamp);
  return sum;
}

int expr_cost(const Expr *e) {
  const double c = cost(e, ++enode(e)->pool->stamp);
  return c < 1e9 ? (int)c : 1000000000;
}
