/* What passes ask of whole expressions: cost with hoisting, loads, reductions, parts, and
 * replacing parts. */
#include "ir/expr/expr_query.h"

#include <string.h>

/* ---- a map from expressions to two words, in scratch memory ---- */

typedef struct Seen {
  const Expr *key;
  uint64_t vars;
  double cost;
} Seen;
typedef struct SeenMap {
  Arena *a;
  Seen *slots;
  uint32_t cap, n;
  int32_t var_ids[64];
  double var_extent[64];
  int n_vars;
  double size;
  ExprPool *p;
} SeenMap;

static Seen *seen_slot(Seen *slots, uint32_t cap, const Expr *e) {
  uint32_t h = (e->uid * 2654435761u) & (cap - 1);
  while (slots[h].key && slots[h].key != e) h = (h + 1) & (cap - 1);
  return &slots[h];
}

/* The slot of e; *fresh tells whether it was just made. Pointers die with the next call. */
static Seen *seen_get(SeenMap *m, const Expr *e, bool *fresh) {
  if (2 * (m->n + 1) > m->cap) {
    const uint32_t cap = m->cap ? 2 * m->cap : 256;
    Seen *slots = ARENA_ARRAY(m->a, Seen, cap);
    for (uint32_t i = 0; i < m->cap; i++)
      if (m->slots[i].key) *seen_slot(slots, cap, m->slots[i].key) = m->slots[i];
    m->slots = slots;
    m->cap = cap;
  }
  Seen *s = seen_slot(m->slots, m->cap, e);
  *fresh = !s->key;
  if (*fresh) {
    s->key = e;
    m->n++;
  }
  return s;
}

/* ---- cost ---- */

static const uint8_t op_costs[EX_COUNT] = {
#define S(id, text, arity, result, cost, adjoint) [EX_##id] = cost,
#include "ir/expr/scalar.def"
#undef S
};

double expr_extent_guess(ExprPool *p, const Expr *e) {
  int64_t v, lo, hi;
  if (expr_is_const(e, &v)) return v > 0 ? (double)v : 1.0;
  if (expr_range(p, e, &lo, &hi) && hi != INT64_MAX && hi < 4096) return (double)(hi > 0 ? hi : 1);
  switch (e->op) {
    case EX_mul: return expr_extent_guess(p, e->a[0]) * expr_extent_guess(p, e->a[1]);
    case EX_add: return expr_extent_guess(p, e->a[0]) + expr_extent_guess(p, e->a[1]);
    case EX_floordiv: {
      const double q = expr_extent_guess(p, e->a[0]) / expr_extent_guess(p, e->a[1]);
      return q > 1 ? q : 1;
    }
    default: return 64;
  }
}

static int local_var(SeenMap *m, int id) {
  for (int i = 0; i < m->n_vars; i++)
    if (m->var_ids[i] == id) return i;
  if (m->n_vars == 64) return 63;
  m->var_ids[m->n_vars] = id;
  m->var_extent[m->n_vars] = expr_extent_guess(m->p, expr_var_extent(m->p, id));
  return m->n_vars++;
}

static double times(const SeenMap *m, uint64_t vars) {
  double t = 1;
  for (int i = 0; i < m->n_vars; i++)
    if (vars >> i & 1) t *= m->var_extent[i];
  return t;
}

/* Free variables of e; adds the cost of nodes not seen before to *total. Integer index arithmetic
 * is nearly free except divisions: strength reduction and vector lanes take care of it. */
static uint64_t cost_walk(SeenMap *m, const Expr *e, double *total) {
  bool fresh;
  Seen *s = seen_get(m, e, &fresh);
  if (!fresh) return s->vars;
  uint64_t vars = 0, bound = 0;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) vars |= cost_walk(m, e->a[i], total);
  if (e->op == EX_VAR) vars |= 1ull << local_var(m, e->id);
  if (e->op == EX_REDUCE) bound = 1ull << local_var(m, e->id);
  const bool running = e->op == EX_REDUCE && (e->a[1]->flags & EXF_VAR); /* a step per index */
  double c = op_costs[e->op];
  const bool index = e->dtype == DT_I64 && !(e->flags & EXF_LOAD);
  if (index && e->op != EX_floordiv && e->op != EX_floormod) c = 0.1;
  if (e->op == EX_LOAD) c = 1;
  if (e->op == EX_CONST || e->op == EX_VAR || e->op == EX_SYM) c = 0;
  if (e->op == EX_REDUCE) c = 1;
  m->size += c;
  *total += c * times(m, running ? vars & ~bound : vars | bound);
  s = seen_get(m, e, &fresh);
  s->vars = vars & ~bound;
  return s->vars;
}

double expr_cost_and_size(ExprPool *p, int n, const Expr *const *es, double *size) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  double total = 0;
  for (int i = 0; i < n; i++) cost_walk(&m, es[i], &total);
  arena_free(m.a);
  *size = m.size;
  return total;
}

double expr_total_cost(ExprPool *p, int n, const Expr *const *es) {
  double size;
  return expr_cost_and_size(p, n, es, &size);
}

bool expr_is_multiple(ExprPool *p, const Expr *e, int64_t of) {
  enum { MOST = 32 };
  ExprTerm term[MOST];
  const int n = expr_terms(p, e, term, MOST);
  for (int i = 0; i < n; i++)
    if (term[i].coeff % of) return false;
  return n >= 0;
}

/* ---- replacing ---- */

typedef struct Replace {
  SeenMap seen; /* vars holds the pointer of the result */
  int n;
  const Expr *const *from, *const *to;
} Replace;

static const Expr *rebuild(ExprPool *p, const Expr *e, const Expr *const *a) {
  switch (e->op) {
    case EX_LOAD: return ex_load(p, e->dtype, e->id, a[0], a[1]);
    case EX_LOCAL: return ex_local(p, e->dtype, e->id, a[0]);
    case EX_REDUCE: return ex_reduce(p, (ReduceKind)e->k.i, ex_var_of(p, e->id), a[0]);
    case EX_cast: return ex_cast(p, e->dtype, a[0]);
    case EX_sat: return ex_sat(p, e->dtype, a[0]);
    case EX_bits: return ex_bits(p, e->dtype, a[0]);
    default: return ex_op(p, (ExprOp)e->op, a[0], a[1], a[2]);
  }
}

static const Expr *replace_walk(Replace *r, const Expr *e) {
  for (int i = 0; i < r->n; i++)
    if (e == r->from[i]) return r->to[i];
  if (!e->nargs) return e;
  bool fresh;
  Seen *s = seen_get(&r->seen, e, &fresh);
  if (!fresh) return (const Expr *)(uintptr_t)s->vars;
  const Expr *a[3] = {0};
  bool same = true;
  for (int i = 0; i < 3; i++) {
    if (!e->a[i] || (e->op == EX_REDUCE && i == 1)) continue;
    a[i] = replace_walk(r, e->a[i]);
    same = same && a[i] == e->a[i];
  }
  const Expr *out = same ? e : rebuild(r->seen.p, e, a);
  s = seen_get(&r->seen, e, &fresh);
  s->vars = (uintptr_t)out;
  return out;
}

const Expr *expr_replace(ExprPool *p, const Expr *e, int n, const Expr *const *from,
                         const Expr *const *to) {
  Replace r = {
      .seen = {.a = arena_child(expr_pool_arena(p)), .p = p}, .n = n, .from = from, .to = to};
  const Expr *out = n ? replace_walk(&r, e) : e;
  arena_free(r.seen.a);
  return out;
}

/* ---- walks ---- */

static void walk_loads(SeenMap *m, const Expr *e, void (*f)(void *, const Expr *), void *user) {
  bool fresh;
  if (!(e->flags & EXF_LOAD)) return;
  seen_get(m, e, &fresh);
  if (!fresh) return;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) walk_loads(m, e->a[i], f, user);
  if (e->op == EX_LOAD) f(user, e);
}

void expr_each_load(ExprPool *p, const Expr *e, void (*f)(void *, const Expr *), void *user) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  walk_loads(&m, e, f, user);
  arena_free(m.a);
}

static void walk_reductions(SeenMap *m, const Expr *e, ExprList *out) {
  bool fresh;
  if (!(e->flags & EXF_REDUCE)) return;
  seen_get(m, e, &fresh);
  if (!fresh) return;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) walk_reductions(m, e->a[i], out);
  if (e->op == EX_REDUCE) vec_push(expr_pool_arena(m->p), out, e);
}

void expr_reductions(ExprPool *p, const Expr *e, ExprList *out) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  walk_reductions(&m, e, out);
  arena_free(m.a);
}

const Expr *expr_scan_var(ExprPool *p, const Expr *r, int *sign, const Expr **rest) {
  const Expr *coeff, *lo = expr_var_lo(p, r->id);
  if (r->op != EX_REDUCE || !(r->a[1]->flags & EXF_VAR) || (lo && !expr_is_i64(lo, 0))) return NULL;
  ExprTerm t[16];
  const int n = expr_terms(p, r->a[1], t, 16);
  for (int i = 0; i < n; i++) {
    const Expr *v = t[i].product;
    if (!v || v->op != EX_VAR || (t[i].coeff != 1 && t[i].coeff != -1)) continue;
    if (expr_uses_var(r->a[0], v->id) || !expr_affine(p, r->a[1], v, &coeff, rest)) continue;
    *sign = (int)t[i].coeff;
    return v;
  }
  return NULL;
}

/* A scan in e; of_reductions: one that adds up what holds a reduction. */
static bool any_scan(ExprPool *p, const Expr *e, bool of_reductions) {
  ExprList l = {0};
  const Expr *rest;
  int sign;
  expr_reductions(p, e, &l);
  for (int i = 0; i < l.n; i++)
    if (expr_scan_var(p, l.data[i], &sign, &rest) &&
        (!of_reductions || l.data[i]->a[0]->flags & EXF_REDUCE))
      return true;
  return false;
}

bool expr_has_scan(ExprPool *p, const Expr *e) { return any_scan(p, e, false); }

bool expr_sums_sums(ExprPool *p, const Expr *e) {
  enum { LONG = 32 };
  ExprList l = {0};
  expr_reductions(p, e, &l);
  for (int i = 0; i < l.n; i++) {
    const Expr *r = l.data[i];
    if (r->a[0]->op == EX_REDUCE) continue; /* of several dimensions */
    for (int k = 0; k < l.n; k++) {
      const Expr *q = l.data[k];
      if (q != r && expr_extent_guess(p, q->a[1]) >= LONG && expr_uses_var(q, r->id) &&
          expr_contains(p, r->a[0], q))
        return true;
    }
  }
  return false;
}

bool expr_scan_reduces(ExprPool *p, const Expr *e) { return any_scan(p, e, true); }

static bool walk_contains(SeenMap *m, const Expr *e, const Expr *part) {
  bool fresh;
  if (e == part) return true;
  if (e->uid < part->uid || !e->nargs) return false; /* parts are made before the whole */
  seen_get(m, e, &fresh);
  if (!fresh) return false;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i] && walk_contains(m, e->a[i], part)) return true;
  return false;
}

bool expr_contains(ExprPool *p, const Expr *e, const Expr *part) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  const bool found = walk_contains(&m, e, part);
  arena_free(m.a);
  return found;
}
