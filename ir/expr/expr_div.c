/* floordiv and floormod of i64 sums: the part that the divisor divides comes out, common factors
 * cancel, and what remains vanishes when it is proven to lie in [0, divisor). A divisor that may be
 * zero by its range (a dimension) is taken to be positive: where it is zero there are no elements
 * to index. */
#include "ir/expr/expr_impl.h"

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); } /* b > 0 */

static bool poly_is_zero(const Poly *d) { return d->n == 0 && d->k == 0; }

/* The divisor as one product; false when it is a sum. */
static bool divisor_mono(const Expr *b, Mono *m) {
  Poly d;
  poly_zero(&d);
  if (!poly_add(&d, b, 1) || d.n > 1 || (d.n == 1 && d.k)) return false;
  return d.n ? mono_of(m, d.t[0].prod, d.t[0].c) && m->c > 0 : mono_of(m, NULL, d.k) && m->c > 0;
}

/* a = b*q + r by terms. */
static bool divide_terms(ExprPool *p, const Poly *a, const Mono *b, Poly *q, Poly *r) {
  Mono m, t;
  poly_zero(q), poly_zero(r);
  for (int i = 0; i < a->n; i++) {
    if (mono_of(&m, a->t[i].prod, a->t[i].c) && mono_divide(&m, b, &t)) {
      const Expr *const prod = mono_product(p, &t);
      if (!prod)
        q->k += t.c;
      else if (!poly_add_term(q, prod, t.c))
        return false;
    } else if (!poly_add_term(r, a->t[i].prod, a->t[i].c)) {
      return false;
    }
  }
  r->k = a->k;
  if (b->n == 0) {
    const int64_t k = floor_div(a->k, b->c);
    q->k += k;
    r->k -= k * b->c;
  }
  return true;
}

/* Polynomial division by a sum, by its term of highest degree. */
static bool divide_sum(ExprPool *p, const Poly *a, const Poly *b, Poly *q, Poly *r) {
  Mono lead = {.n = -1}, m, t;
  for (int i = 0; i < b->n; i++)
    if (mono_of(&m, b->t[i].prod, b->t[i].c) && m.n > lead.n) lead = m;
  if (lead.n < 1) return false;
  poly_zero(q);
  *r = *a;
  for (int steps = 0; steps < POLY_MAX; steps++) {
    int i = r->n - 1;
    while (i >= 0 && !(mono_of(&m, r->t[i].prod, r->t[i].c) && mono_divide(&m, &lead, &t))) i--;
    if (i < 0) return q->n > 0 || q->k != 0;
    Poly one, prod;
    poly_zero(&one);
    const Expr *const e = mono_product(p, &t);
    if (e)
      poly_add_term(&one, e, t.c);
    else
      one.k = t.c;
    if (!poly_add_poly(q, &one, 1) || !poly_mul(p, &prod, &one, b) || !poly_add_poly(r, &prod, -1))
      return false;
  }
  return false;
}

/* The constant quotient when the range of a lies within one multiple of the constant b. */
static bool range_quotient(Range a, int64_t b, int64_t *q) {
  if (a.lo == INT64_MIN || a.hi == INT64_MAX) return false;
  *q = floor_div(a.lo, b);
  return *q == floor_div(a.hi, b);
}

static bool nonnegative_atoms(const Mono *m) {
  for (int i = 0; i < m->n; i++)
    if (range_of(m->atom[i]).lo < 0) return false;
  return m->c > 0;
}

/* a = g*x + rest with 0 <= rest < g, g a common factor of some term and b: the quotient by b is
 * that of x by b/g. */
static bool common_factor(ExprPool *p, const Poly *a, const Mono *b, Mono *g, Poly *x, Poly *rest) {
  for (int i = 0; i < a->n; i++) {
    Mono m;
    if (!mono_of(&m, a->t[i].prod, a->t[i].c)) continue;
    mono_gcd(&m, b, g);
    if ((g->c == 1 && g->n == 0) || !nonnegative_atoms(g)) continue;
    if (!divide_terms(p, a, g, x, rest) || poly_is_zero(x)) continue;
    if (poly_is_zero(rest)) return true;
    const Expr *const prod = mono_product(p, g);
    if (prove_in(p, rest, prod ? ex_mul(p, prod, ex_i64(p, g->c)) : ex_i64(p, g->c))) return true;
  }
  return false;
}

static const Expr *mono_expr(ExprPool *p, const Mono *m) {
  const Expr *const prod = mono_product(p, m);
  return prod ? ex_mul(p, prod, ex_i64(p, m->c)) : ex_i64(p, m->c);
}

static bool positive(const Expr *b) { return range_of(b).lo >= 0 && !range_wild(b); }

/* floordiv(floordiv(y, c) + k, b) = floordiv(y + k*c, b*c) */
static const Expr *nested_div(ExprPool *p, const Poly *a, const Expr *b) {
  if (a->n != 1 || a->t[0].c != 1 || a->t[0].prod->op != EX_floordiv) return NULL;
  const Expr *const y = a->t[0].prod->a[0], *const c = a->t[0].prod->a[1];
  if (!positive(c) || range_wild(y)) return NULL;
  return ex_floordiv(p, ex_add(p, y, ex_mul(p, c, ex_i64(p, a->k))), ex_mul(p, b, c));
}

/* Is -b <= r < 0? Then r becomes r + b. */
static bool wrap_negative(ExprPool *p, Poly *r, const Expr *b) {
  Poly up = *r;
  if (poly_range(r).hi >= 0 || !poly_add(&up, b, 1) || !prove_in(p, &up, b)) return false;
  *r = up;
  return true;
}

static const Expr *div_by_mono(ExprPool *p, const Poly *a, const Expr *b, const Mono *bm) {
  Poly q, r, x, rest;
  Mono g, b2;
  int64_t k;
  if (!divide_terms(p, a, bm, &q, &r)) return NULL;
  if (!poly_is_zero(&q)) {
    const Expr *const re = poly_expr(p, &r), *const qe = poly_expr(p, &q);
    return ex_add(p, qe, ex_floordiv(p, re, b));
  }
  if (bm->n == 0 && range_quotient(poly_range(&r), bm->c, &k)) return ex_i64(p, k);
  const Expr *const nested = nested_div(p, &r, b);
  if (nested) return nested;
  if (common_factor(p, &r, bm, &g, &x, &rest) && mono_divide(bm, &g, &b2))
    return ex_floordiv(p, poly_expr(p, &x), mono_expr(p, &b2));
  if (bm->n && prove_in(p, &r, b)) return ex_i64(p, 0);
  return bm->n && wrap_negative(p, &r, b) ? ex_i64(p, -1) : NULL;
}

static bool sum_division(ExprPool *p, const Poly *a, const Expr *b, Poly *q, Poly *r) {
  Poly bd;
  poly_zero(&bd);
  if (!poly_add(&bd, b, 1) || !divide_sum(p, a, &bd, q, r)) return false;
  if (poly_is_zero(r) || prove_in(p, r, b)) return true;
  if (!wrap_negative(p, r, b)) return false;
  q->k -= 1;
  return true;
}

const Expr *simplify_floordiv(ExprPool *p, const Expr *a, const Expr *b) {
  Poly d, q, r;
  Mono bm;
  poly_zero(&d);
  if (expr_is_i64(b, 0) || expr_is_i64(a, 0)) return ex_i64(p, 0);
  if (expr_is_i64(b, 1)) return a;
  if (!positive(b) || !poly_add(&d, a, 1) || poly_wild(&d)) return NULL;
  if (divisor_mono(b, &bm)) return div_by_mono(p, &d, b, &bm);
  if (sum_division(p, &d, b, &q, &r)) return poly_expr(p, &q);
  if (prove_in(p, &d, b)) return ex_i64(p, 0);
  return nested_div(p, &d, b);
}

/* floormod(floormod(y, c) + k, b) = floormod(y + k, b) where b divides c */
static const Expr *nested_mod(ExprPool *p, const Poly *a, const Expr *b, const Mono *bm) {
  Mono c, q;
  if (a->n != 1 || a->t[0].c != 1 || a->t[0].prod->op != EX_floormod) return NULL;
  const Expr *const y = a->t[0].prod->a[0];
  if (!positive(a->t[0].prod->a[1]) || range_wild(y)) return NULL;
  if (!divisor_mono(a->t[0].prod->a[1], &c) || !mono_divide(&c, bm, &q)) return NULL;
  return ex_floormod(p, ex_add(p, y, ex_i64(p, a->k)), b);
}

static const Expr *mod_by_mono(ExprPool *p, Poly *a, const Expr *b, const Mono *bm) {
  Poly q, r, x, rest;
  Mono g, b2;
  int64_t k;
  if (!divide_terms(p, a, bm, &q, &r)) return NULL;
  if (!poly_is_zero(&q)) return ex_floormod(p, poly_expr(p, &r), b);
  if (bm->n == 0 && range_quotient(poly_range(&r), bm->c, &k)) {
    r.k -= k * bm->c;
    return poly_expr(p, &r);
  }
  const Expr *const nested = nested_mod(p, &r, b, bm);
  if (nested) return nested;
  if (common_factor(p, &r, bm, &g, &x, &rest) && mono_divide(bm, &g, &b2)) {
    const Expr *const m = ex_floormod(p, poly_expr(p, &x), mono_expr(p, &b2));
    return ex_add(p, ex_mul(p, m, mono_expr(p, &g)), poly_expr(p, &rest));
  }
  return bm->n && (prove_in(p, &r, b) || wrap_negative(p, &r, b)) ? poly_expr(p, &r) : NULL;
}

const Expr *simplify_floormod(ExprPool *p, const Expr *a, const Expr *b) {
  Poly d, q, r;
  Mono bm;
  poly_zero(&d);
  if (expr_is_i64(b, 0) || expr_is_i64(b, 1) || expr_is_i64(a, 0)) return ex_i64(p, 0);
  if (!positive(b) || !poly_add(&d, a, 1) || poly_wild(&d)) return NULL;
  if (divisor_mono(b, &bm)) return mod_by_mono(p, &d, b, &bm);
  if (sum_division(p, &d, b, &q, &r)) return poly_expr(p, &r);
  return prove_in(p, &d, b) ? a : NULL;
}
