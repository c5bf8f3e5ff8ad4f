/* i64 polynomials: a sum of coefficient * product of atoms, in the order of creation. Products are
 * distributed over sums, so that equal polynomials become the same expression. Coefficients wrap,
 * as i64 arithmetic does. Sums beyond POLY_MAX terms and products beyond MONO_MAX atoms stay as
 * they are. */
#include "ir/base/integer.h"
#include "ir/expr/expr_impl.h"

static int64_t wrap_mul(int64_t a, int64_t b) { return (int64_t)((uint64_t)a * (uint64_t)b); }
static int64_t wrap_add(int64_t a, int64_t b) { return (int64_t)((uint64_t)a + (uint64_t)b); }

/* ---- products ---- */
static bool mono_put(Mono *m, const Expr *atom) {
  if (m->n == MONO_MAX) return false;
  int k = m->n++;
  for (; k > 0 && m->atom[k - 1]->uid > atom->uid; k--) m->atom[k] = m->atom[k - 1];
  m->atom[k] = atom;
  return true;
}

static bool mono_put_all(Mono *m, const Expr *prod) {
  for (; prod->op == EX_mul; prod = prod->a[0])
    if (prod->a[1]->op == EX_mul ? !mono_put_all(m, prod->a[1]) : !mono_put(m, prod->a[1]))
      return false;
  return mono_put(m, prod);
}

/* prod NULL: the constant c. */
bool mono_of(Mono *m, const Expr *prod, int64_t c) {
  m->c = c;
  m->n = 0;
  return !prod || mono_put_all(m, prod);
}

const Expr *mono_product(ExprPool *p, const Mono *m) {
  const Expr *e = m->n ? m->atom[0] : NULL;
  for (int i = 1; i < m->n; i++) e = expr_raw(p, EX_mul, DT_I64, 0, 0, e, m->atom[i], NULL);
  return e;
}

bool mono_divide(const Mono *a, const Mono *b, Mono *q) {
  if (b->c == 0 || b->c == -1 || a->c % b->c != 0) return false;
  q->c = a->c / b->c;
  q->n = 0;
  int j = 0;
  for (int i = 0; i < a->n; i++) {
    if (j < b->n && a->atom[i] == b->atom[j])
      j++;
    else
      q->atom[q->n++] = a->atom[i];
  }
  return j == b->n;
}

void mono_gcd(const Mono *a, const Mono *b, Mono *g) {
  g->c = int_gcd(a->c, b->c);
  g->n = 0;
  for (int i = 0, j = 0; i < a->n && j < b->n;) {
    if (a->atom[i] == b->atom[j]) {
      g->atom[g->n++] = a->atom[i];
      i++, j++;
    } else if (a->atom[i]->uid < b->atom[j]->uid) {
      i++;
    } else {
      j++;
    }
  }
}

/* ---- sums ---- */
void poly_zero(Poly *d) {
  d->n = 0;
  d->k = 0;
}

bool poly_add_term(Poly *d, const Expr *prod, int64_t c) {
  int k = d->n;
  while (k > 0 && d->t[k - 1].prod->uid > prod->uid) k--;
  if (k > 0 && d->t[k - 1].prod == prod) {
    k--;
    d->t[k].c = wrap_add(d->t[k].c, c);
    if (d->t[k].c) return true;
    d->n--;
    for (; k < d->n; k++) d->t[k] = d->t[k + 1];
    return true;
  }
  if (c == 0) return true;
  if (d->n == POLY_MAX) return false;
  for (int i = d->n; i > k; i--) d->t[i] = d->t[i - 1];
  d->n++;
  d->t[k].c = c;
  d->t[k].prod = prod;
  return true;
}

bool poly_add_poly(Poly *d, const Poly *s, int64_t scale) {
  d->k = wrap_add(d->k, wrap_mul(s->k, scale));
  for (int i = 0; i < s->n; i++)
    if (!poly_add_term(d, s->t[i].prod, wrap_mul(s->t[i].c, scale))) return false;
  return true;
}

static int chain_length(const Expr *e) {
  int n = 1;
  for (; e->op == EX_add; e = e->a[0]) n++;
  return n;
}

bool poly_add(Poly *d, const Expr *e, int64_t scale) {
  if (e->op == EX_add && chain_length(e) <= POLY_MAX) {
    for (; e->op == EX_add; e = e->a[0])
      if (!poly_add(d, e->a[1], scale)) return false;
    return poly_add(d, e, scale);
  }
  const Range r = range_of(e);
  if (r.lo == r.hi && r.lo != INT64_MIN && r.lo != INT64_MAX) {
    d->k = wrap_add(d->k, wrap_mul(r.lo, scale));
    return true;
  }
  if (is_const(e)) {
    d->k = wrap_add(d->k, wrap_mul(e->k.i, scale));
    return true;
  }
  if (e->op == EX_mul && is_const(e->a[1]))
    return poly_add_term(d, e->a[0], wrap_mul(scale, e->a[1]->k.i));
  return poly_add_term(d, e, scale);
}

static const Expr *product_of(ExprPool *p, const Expr *a, const Expr *b) {
  Mono m = {.c = 1};
  if (mono_put_all(&m, a) && mono_put_all(&m, b)) return mono_product(p, &m);
  return NULL;
}

bool poly_mul(ExprPool *p, Poly *d, const Poly *a, const Poly *b) {
  poly_zero(d);
  d->k = wrap_mul(a->k, b->k);
  if (a->n * b->n > POLY_MAX) return false;
  for (int i = 0; i < a->n; i++)
    if (!poly_add_term(d, a->t[i].prod, wrap_mul(a->t[i].c, b->k))) return false;
  for (int j = 0; j < b->n; j++)
    if (!poly_add_term(d, b->t[j].prod, wrap_mul(b->t[j].c, a->k))) return false;
  for (int i = 0; i < a->n; i++)
    for (int j = 0; j < b->n; j++) {
      const Expr *const prod = product_of(p, a->t[i].prod, b->t[j].prod);
      if (!prod || !poly_add_term(d, prod, wrap_mul(a->t[i].c, b->t[j].c))) return false;
    }
  return true;
}

/* floordiv(x, n)*n + floormod(x, n) = x, times any coefficient and product. Looks for the partner
 * of the floormod `atom` in term i, and merges the two; false when there is none. */
static bool merge_mod(ExprPool *p, Poly *d, int i, const Expr *atom) {
  Mono term, mod, rest;
  const Expr *const q = ex_floordiv(p, atom->a[0], atom->a[1]);
  if (q->op == EX_CONST || q->op == EX_add || !mono_of(&term, d->t[i].prod, d->t[i].c))
    return false;
  if (!mono_of(&mod, atom, 1) || !mono_divide(&term, &mod, &rest)) return false;
  /* partner: rest * n * q */
  Poly dn, drest, dq, t, partner;
  poly_zero(&dn), poly_zero(&drest), poly_zero(&dq);
  const Expr *const rest_prod = mono_product(p, &rest);
  if (rest_prod)
    poly_add_term(&drest, rest_prod, rest.c);
  else
    drest.k = rest.c;
  if (!poly_add(&dn, atom->a[1], 1) || !poly_add(&dq, q, 1)) return false;
  if (!poly_mul(p, &t, &drest, &dn) || !poly_mul(p, &partner, &t, &dq)) return false;
  if (partner.n == 0 || partner.k) return false;
  for (int k = 0; k < partner.n; k++) { /* every term of it must be there */
    int j = 0;
    while (j < d->n && d->t[j].prod != partner.t[k].prod) j++;
    if (j == d->n || d->t[j].c != partner.t[k].c) return false;
  }
  Poly x, rx;
  poly_zero(&x);
  if (!poly_add(&x, atom->a[0], 1) || !poly_mul(p, &rx, &drest, &x)) return false;
  const int64_t c = d->t[i].c;
  return poly_add_term(d, d->t[i].prod, -c) && poly_add_poly(d, &partner, -1) &&
         poly_add_poly(d, &rx, 1);
}

static bool merge_once(ExprPool *p, Poly *d) {
  for (int i = 0; i < d->n; i++) {
    const Expr *e = d->t[i].prod;
    for (;; e = e->a[0]) {
      const Expr *const atom = e->op == EX_mul ? e->a[1] : e;
      if (atom->op == EX_floormod) {
        Poly copy = *d;
        if (merge_mod(p, &copy, i, atom)) {
          *d = copy;
          return true;
        }
      }
      if (e->op != EX_mul) break;
    }
  }
  return false;
}

static bool has_mod(const Poly *d) {
  for (int i = 0; i < d->n; i++)
    for (const Expr *e = d->t[i].prod;; e = e->a[0]) {
      if (e->op == EX_floormod || (e->op == EX_mul && e->a[1]->op == EX_floormod)) return true;
      if (e->op != EX_mul) break;
    }
  return false;
}

const Expr *poly_expr(ExprPool *p, Poly *d) {
  if (d->n > 1 && has_mod(d))
    for (int steps = 0; steps < POLY_MAX && merge_once(p, d); steps++) {
    }
  const Expr *e = NULL;
  for (int i = 0; i < d->n; i++) {
    const Expr *t = d->t[i].prod;
    if (d->t[i].c != 1) t = expr_raw(p, EX_mul, DT_I64, 0, 0, t, ex_i64(p, d->t[i].c), NULL);
    e = e ? expr_raw(p, EX_add, DT_I64, 0, 0, e, t, NULL) : t;
  }
  if (!e) return ex_i64(p, d->k);
  return d->k ? expr_raw(p, EX_add, DT_I64, 0, 0, e, ex_i64(p, d->k), NULL) : e;
}

static bool wild_product(const Expr *e) {
  for (; e->op == EX_mul; e = e->a[0])
    if (range_wild(e->a[1])) return true;
  return range_wild(e);
}

bool poly_wild(const Poly *d) {
  for (int i = 0; i < d->n; i++)
    if (wild_product(d->t[i].prod)) return true;
  return false;
}

Range poly_range(const Poly *d) {
  Range r = {d->k, d->k};
  for (int i = 0; i < d->n; i++) r = range_sum(r, range_scale(range_of(d->t[i].prod), d->t[i].c));
  return r;
}

/* ---- entry points of the constructors ---- */
const Expr *poly_sum2(ExprPool *p, const Expr *a, const Expr *b, int64_t scale_b) {
  Poly d;
  poly_zero(&d);
  if (poly_add(&d, a, 1) && poly_add(&d, b, scale_b)) return poly_expr(p, &d);
  if (scale_b != 1) b = poly_product2(p, b, ex_i64(p, scale_b));
  return expr_raw(p, EX_add, DT_I64, 0, 0, a, b, NULL);
}

const Expr *poly_product2(ExprPool *p, const Expr *a, const Expr *b) {
  Poly da, db, d;
  poly_zero(&da), poly_zero(&db);
  if (poly_add(&da, a, 1) && poly_add(&db, b, 1) && poly_mul(p, &d, &da, &db))
    return poly_expr(p, &d);
  if (is_const(a) || (!is_const(b) && a->uid > b->uid))
    return expr_raw(p, EX_mul, DT_I64, 0, 0, b, a, NULL);
  return expr_raw(p, EX_mul, DT_I64, 0, 0, a, b, NULL);
}

/* ---- questions ---- */
int expr_terms(ExprPool *p, const Expr *e, ExprTerm *out, int max) {
  Poly d;
  poly_zero(&d);
  if (!poly_add(&d, e, 1) || d.n + (d.k != 0) > max) return -1;
  for (int i = 0; i < d.n; i++) out[i] = (ExprTerm){d.t[i].c, d.t[i].prod};
  if (d.k) out[d.n] = (ExprTerm){d.k, NULL};
  return d.n + (d.k != 0);
}

bool expr_affine(ExprPool *p, const Expr *e, const Expr *var, const Expr **coeff,
                 const Expr **rest) {
  Poly d, c, r;
  Mono m, v, q;
  poly_zero(&d), poly_zero(&c), poly_zero(&r);
  if (e->dtype != DT_I64 || !poly_add(&d, e, 1) || !mono_of(&v, var, 1)) return false;
  r.k = d.k;
  for (int i = 0; i < d.n; i++) {
    if (!expr_uses_var(d.t[i].prod, var->id)) {
      poly_add_term(&r, d.t[i].prod, d.t[i].c);
      continue;
    }
    if (!mono_of(&m, d.t[i].prod, d.t[i].c) || !mono_divide(&m, &v, &q)) return false;
    const Expr *const prod = mono_product(p, &q);
    if (prod && expr_uses_var(prod, var->id)) return false;
    if (prod)
      poly_add_term(&c, prod, q.c);
    else
      c.k += q.c;
  }
  *coeff = poly_expr(p, &c);
  *rest = poly_expr(p, &r);
  return true;
}
