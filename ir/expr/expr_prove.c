/* Proofs that an i64 polynomial is never negative. First by intervals; then by replacing variables,
 * remainders and the like by the symbolic bound that makes the polynomial smallest, where the sign
 * of their coefficient is known. Sound because every step only lowers the value. */
#include "ir/expr/expr_impl.h"

enum { STEPS = 40, DEPTH = 10 };

static const Expr *bound_of(ExprPool *p, const Expr *atom, bool upper, int which, int depth);

/* Replaces one atom of the polynomial x so that it grows (upper) or shrinks; NULL: no atom can
 * be. */
static const Expr *poly_bound(ExprPool *p, const Expr *x, bool upper, int depth) {
  Poly d;
  poly_zero(&d);
  if (depth > DEPTH || !poly_add(&d, x, 1) || poly_wild(&d)) return NULL;
  for (int i = d.n - 1; i >= 0; i--) {
    const Expr *const atom = d.t[i].prod;
    if (atom->op == EX_mul) continue;
    const Expr *const b = bound_of(p, atom, upper == (d.t[i].c > 0), 0, depth + 1);
    if (!b || b == atom) continue;
    const int64_t c = d.t[i].c;
    if (!poly_add_term(&d, atom, -c) || !poly_add(&d, b, c)) return NULL;
    return poly_expr(p, &d);
  }
  return NULL;
}

/* A bound of one atom in simpler terms; `which` selects among several (min and max have two). */
static const Expr *bound_of(ExprPool *p, const Expr *atom, bool upper, int which, int depth) {
  const VarInfo *v;
  const Expr *x;
  if (which > 0 && !(which == 1 && (atom->op == EX_min || atom->op == EX_max))) return NULL;
  switch (atom->op) {
    case EX_VAR:
      v = &p->vars.data[atom->id];
      if (!upper) return v->lo;
      return poly_sum2(p, poly_sum2(p, v->lo, v->extent, 1), ex_i64(p, 1), -1);
    case EX_SYM: return upper ? p->syms.data[atom->id]->bound : NULL;
    case EX_floormod:
      if (!upper || range_of(atom->a[1]).lo < 0) return NULL;
      return poly_sum2(p, atom->a[1], ex_i64(p, 1), -1);
    case EX_floordiv:
      if (range_of(atom->a[1]).lo < 0 || !(x = poly_bound(p, atom->a[0], upper, depth)))
        return NULL;
      return ex_floordiv(p, x, atom->a[1]);
    case EX_min: return upper ? atom->a[which] : NULL;
    case EX_max: return upper ? NULL : atom->a[which];
    default: return NULL;
  }
}

/* d = coeff*atom + rest, atom not in coeff; false when atom occurs to a higher power. */
static bool split_atom(ExprPool *p, const Poly *d, const Expr *atom, Poly *coeff, Poly *rest) {
  Mono m, a, q;
  poly_zero(coeff), poly_zero(rest);
  rest->k = d->k;
  mono_of(&a, atom, 1);
  for (int i = 0; i < d->n; i++) {
    if (!mono_of(&m, d->t[i].prod, d->t[i].c)) return false;
    if (!mono_divide(&m, &a, &q)) {
      poly_add_term(rest, d->t[i].prod, d->t[i].c);
      continue;
    }
    for (int k = 0; k < q.n; k++)
      if (q.atom[k] == atom) return false;
    if (q.n)
      poly_add_term(coeff, mono_product(p, &q), q.c);
    else
      coeff->k += q.c;
  }
  return true;
}

static bool prove(ExprPool *p, const Poly *d, int *steps);

static bool try_atom(ExprPool *p, const Poly *d, const Expr *atom, int *steps) {
  Poly coeff, rest, by, prod;
  if (!split_atom(p, d, atom, &coeff, &rest)) return false;
  const Range sign = poly_range(&coeff);
  if (sign.lo < 0 && sign.hi > 0) return false;
  for (int which = 0; which < 2 && *steps > 0; which++) {
    const Expr *const b = bound_of(p, atom, sign.lo < 0, which, 0);
    if (!b || b == atom) continue;
    poly_zero(&by);
    Poly sum = rest;
    if (poly_add(&by, b, 1) && poly_mul(p, &prod, &coeff, &by) && poly_add_poly(&sum, &prod, 1) &&
        prove(p, &sum, steps))
      return true;
  }
  return false;
}

/* The newest atom with uid below `below` in a term that has no lower bound. */
static const Expr *next_atom(const Poly *d, uint32_t below) {
  const Expr *best = NULL;
  for (int i = 0; i < d->n; i++) {
    if (range_scale(range_of(d->t[i].prod), d->t[i].c).lo != INT64_MIN) continue;
    for (const Expr *e = d->t[i].prod;; e = e->a[0]) {
      const Expr *const atom = e->op == EX_mul ? e->a[1] : e;
      if (atom->uid < below && (!best || atom->uid > best->uid)) best = atom;
      if (e->op != EX_mul) break;
    }
  }
  return best;
}

static const Expr *next_finite(const Poly *d, uint32_t below) {
  const Expr *best = NULL;
  for (int i = 0; i < d->n; i++) {
    const Expr *const e = d->t[i].prod;
    if (e->op != EX_mul && !is_const(e) && e->uid < below && (!best || e->uid > best->uid))
      best = e;
  }
  return best;
}

static bool prove(ExprPool *p, const Poly *d, int *steps) {
  if (--*steps <= 0) return false;
  const Range r = poly_range(d);
  if (r.lo >= 0) return true;
  if (r.hi < 0) return false;
  const bool bounded = r.lo != INT64_MIN;
  uint32_t below = UINT32_MAX;
  for (const Expr *a; *steps > 0 && (a = bounded ? next_finite(d, below) : next_atom(d, below));
       below = a->uid)
    if (try_atom(p, d, a, steps)) return true;
  return false;
}

bool prove_ge0(ExprPool *p, const Poly *d) {
  int steps = STEPS;
  return !poly_wild(d) && prove(p, d, &steps);
}

bool prove_in(ExprPool *p, const Poly *r, const Expr *end) {
  if (!prove_ge0(p, r)) return false;
  Poly d;
  poly_zero(&d);
  if (!poly_add(&d, end, 1) || !poly_add_poly(&d, r, -1)) return false;
  d.k -= 1;
  return prove_ge0(p, &d);
}
