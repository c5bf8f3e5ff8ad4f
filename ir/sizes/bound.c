/* Upper bounds of sizes: symbols that get their value only while the program runs are replaced by
 * their bounds. Follows the sign of each use, so that n - k is bounded with the smallest k. */
#include "ir/sizes/sizes.h"

typedef struct Bound {
  ExprPool *p;
  int missing; /* symbol without a bound, or -1 */
  int steps;   /* bounds that name each other must end */
} Bound;

static const Expr *bound_of(Bound *b, const Expr *e, bool up);

static bool is_runtime(void *user, const Expr *e) {
  return e->op == EX_SYM && expr_symbol(user, e->id)->runtime;
}

bool expr_uses_runtime(ExprPool *p, const Expr *e) { return expr_any(e, EXF_SYM, is_runtime, p); }

static const Expr *give_up(Bound *b, const Expr *e) {
  const DType type = e->dtype;
  while (e->op != EX_SYM || !expr_symbol(b->p, e->id)->runtime) {
    int i = 0;
    while (i < e->nargs - 1 && !expr_uses_runtime(b->p, e->a[i])) i++;
    if (i >= e->nargs) break;
    e = e->a[i];
  }
  if (b->missing < 0) b->missing = e->id;
  return ex_int(b->p, type, 0);
}

static const Expr *bound_sym(Bound *b, const Expr *e, bool up) {
  const Symbol *s = expr_symbol(b->p, e->id);
  if (!s->runtime) return e;
  if (!up) return ex_i64(b->p, s->lo);
  if (!s->bound || ++b->steps > 1000) return give_up(b, e);
  return bound_of(b, s->bound, true);
}

static bool non_negative(Bound *b, const Expr *e) {
  int64_t lo = INT64_MIN, hi = INT64_MAX;
  expr_range(b->p, e, &lo, &hi);
  return lo >= 0;
}

static const Expr *bound_mul(Bound *b, const Expr *e, bool up) {
  int64_t k = 0;
  for (int i = 0; i < 2; i++)
    if (expr_is_const(e->a[i], &k))
      return ex_mul(b->p, e->a[i], bound_of(b, e->a[1 - i], k < 0 ? !up : up));
  const Expr *x = e->a[0], *y = e->a[1], *zero = ex_int(b->p, e->dtype, 0);
  if (!non_negative(b, y)) {
    x = e->a[1];
    y = e->a[0];
  }
  if (!non_negative(b, y)) return give_up(b, e);
  const bool sure = non_negative(b, x); /* else a factor that may be negative, but is not */
  const Expr *by = bound_of(b, x, up);
  if (!sure) by = up ? ex_max(b->p, by, zero) : ex_min(b->p, by, zero);
  return ex_mul(b->p, by, bound_of(b, y, up || !sure));
}

/* A size that goes through a narrower type and back can only become smaller. */
static const Expr *bound_cast(Bound *b, const Expr *e, bool up) {
  const Expr *in = e;
  while (in->op == EX_cast && dtype_is_int(in->dtype)) in = in->a[0];
  if (in->dtype == e->dtype && non_negative(b, in)) return bound_of(b, in, up);
  if (!dtype_is_int(e->dtype) || !dtype_is_int(e->a[0]->dtype)) return give_up(b, e);
  return ex_cast(b->p, e->dtype, bound_of(b, e->a[0], up));
}

/* What no tensor can have, as the INT64_MAX of `up to the end`, is none. */
static bool is_bound(const Expr *r) {
  int64_t k;
  return !expr_is_const(r, &k) || k <= INT64_C(1) << 46;
}

/* NULL: it has no bound. */
static const Expr *bound_try(Bound *b, const Expr *e, bool up) {
  const int before = b->missing;
  const Expr *r = bound_of(b, e, up);
  if (b->missing == before) return is_bound(r) ? r : NULL;
  b->missing = before;
  return NULL;
}

/* The smaller of two is not above either, so that one bound is enough; the larger likewise. */
static const Expr *bound_extreme(Bound *b, const Expr *e, bool up) {
  if (up != (e->op == EX_min))
    return ex_op(b->p, e->op, bound_of(b, e->a[0], up), bound_of(b, e->a[1], up), NULL);
  const Expr *x = bound_try(b, e->a[0], up), *y = bound_try(b, e->a[1], up);
  if (x && y) return ex_op(b->p, e->op, x, y, NULL);
  return x ? x : y ? y : give_up(b, e);
}

static const Expr *bound_of(Bound *b, const Expr *e, bool up) {
  if (!expr_uses_runtime(b->p, e)) return e;
  switch (e->op) {
    case EX_SYM: return bound_sym(b, e, up);
    case EX_cast: return bound_cast(b, e, up);
    case EX_mul: return bound_mul(b, e, up);
    case EX_neg: return ex_op(b->p, EX_neg, bound_of(b, e->a[0], !up), NULL, NULL);
    case EX_sub: return ex_sub(b->p, bound_of(b, e->a[0], up), bound_of(b, e->a[1], !up));
    case EX_min:
    case EX_max: return bound_extreme(b, e, up);
    case EX_add:
      return ex_op(b->p, e->op, bound_of(b, e->a[0], up), bound_of(b, e->a[1], up), NULL);
    case EX_floordiv:
    case EX_div:
      if (!expr_uses_runtime(b->p, e->a[1]) && non_negative(b, e->a[1]))
        return ex_op(b->p, e->op, bound_of(b, e->a[0], up), e->a[1], NULL);
      return give_up(b, e);
    case EX_floormod:
      if (up && !expr_uses_runtime(b->p, e->a[1]))
        return ex_sub(b->p, e->a[1], ex_int(b->p, e->dtype, 1));
      return up ? give_up(b, e) : ex_int(b->p, e->dtype, 0);
    case EX_select: {
      const Expr *x = bound_of(b, e->a[1], up), *y = bound_of(b, e->a[2], up);
      return up ? ex_max(b->p, x, y) : ex_min(b->p, x, y);
    }
    default: return give_up(b, e);
  }
}

const Expr *expr_upper(ExprPool *p, const Expr *e, int *missing) {
  Bound b = {.p = p, .missing = -1};
  const Expr *r = bound_of(&b, e, true);
  if (b.missing < 0 && !is_bound(r) && expr_uses_runtime(p, e)) give_up(&b, e);
  if (missing) *missing = b.missing;
  return b.missing < 0 ? r : NULL;
}
