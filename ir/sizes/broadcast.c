/* Broadcasting over sizes that are only known when the model runs. A size of the caller may turn
 * out to be 1 and then yields to the other one: the common size of n and m is m where n is 1, else
 * n. So does what can only be 0 or 1, as min(n, 1). Other sizes that are expressions do not
 * broadcast; they must be equal. */
#include "ir/sizes/sizes.h"

enum { MAX_JOINED = 8 };

/* The sizes that e is the common size of, in the order of their ids; 0: e is something else. */
static int joined(ExprPool *p, const Expr *e, const Expr **sizes) {
  int n = 0;
  for (;; e = e->a[1]) {
    const Expr *s = e->op == EX_select ? e->a[2] : e;
    if (s->op != EX_SYM || expr_symbol(p, s->id)->runtime || n == MAX_JOINED) return 0;
    sizes[n++] = s;
    if (e->op != EX_select) return n;
    if (e->a[0] != ex_eq(p, s, ex_i64(p, 1))) return 0;
  }
}

static bool is_open(ExprPool *p, const Expr *e) {
  const Expr *sizes[MAX_JOINED];
  return joined(p, e, sizes) > 0;
}

/* Is e a size that is never more than 1, and not always 1? */
static bool at_most_one(ExprPool *p, const Expr *e) {
  int64_t lo, hi;
  return !expr_is_const(e, &lo) && expr_range(p, e, &lo, &hi) && hi <= 1;
}

bool dims_broadcast(ExprPool *p, const Expr *dim, const Expr *out) {
  int64_t k;
  if (dim == out) return false;
  return at_most_one(p, dim) || (is_open(p, dim) && (expr_is_const(out, &k) || is_open(p, out)));
}

const Expr *dim_join(ExprPool *p, const Expr *a, const Expr *b) {
  const Expr *x[MAX_JOINED], *y[MAX_JOINED], *all[2 * MAX_JOINED];
  const int nx = joined(p, a, x), ny = joined(p, b, y);
  int64_t k;
  if (at_most_one(p, a) != at_most_one(p, b)) return at_most_one(p, a) ? b : a;
  if (expr_is_const(a, &k) && ny) return a;
  if (expr_is_const(b, &k) && nx) return b;
  if (!nx || !ny) return NULL;
  int n = 0, i = 0, j = 0;
  while (i < nx || j < ny) {
    const bool first = j == ny || (i < nx && x[i]->id <= y[j]->id);
    const Expr *s = first ? x[i++] : y[j++];
    if (first && j < ny && y[j] == s) j++;
    all[n++] = s;
  }
  if (n > MAX_JOINED) return NULL;
  const Expr *e = all[n - 1];
  for (i = n - 2; i >= 0; i--) e = ex_select(p, ex_eq(p, all[i], ex_i64(p, 1)), e, all[i]);
  return is_open(p, e) ? e : NULL;
}

const Expr *bcast_index(ExprPool *p, const Expr *dim, const Expr *out, const Expr *index) {
  const Expr *one = ex_i64(p, 1), *zero = ex_i64(p, 0);
  if (expr_is_i64(dim, 1)) return zero;
  if (!out || !dims_broadcast(p, dim, out)) return index;
  if (at_most_one(p, dim)) return zero;
  return ex_mul(p, index, ex_select(p, ex_eq(p, dim, one), zero, one));
}
