/* Intervals of integer expressions, computed once when an expression is made. Index arithmetic is
 * taken not to overflow; values from data (range_wild) are the exception that the rules ask for. */
#include "ir/expr/expr_impl.h"

static const Range full = {INT64_MIN, INT64_MAX};

Range range_type(DType t) {
  const int bits = dtype_rows[t].bits;
  if (t == DT_BOOL) return (Range){0, 1};
  if (!dtype_is_int(t) || bits == 64) return full;
  if (dtype_rows[t].cls == DC_UINT) return (Range){0, (INT64_C(1) << bits) - 1};
  return (Range){-(INT64_C(1) << (bits - 1)), (INT64_C(1) << (bits - 1)) - 1};
}

static bool inf(int64_t v) { return v == INT64_MIN || v == INT64_MAX; }

static int64_t mul_sat(int64_t a, int64_t b) {
  int64_t r;
  if (a == 0 || b == 0) return 0;
  if (!inf(a) && !inf(b) && ck_mul(a, b, &r)) return r;
  return (a < 0) == (b < 0) ? INT64_MAX : INT64_MIN;
}

/* Sum of two bounds of the same side; `none` is that side's infinity. */
static int64_t add_bound(int64_t a, int64_t b, int64_t none) {
  int64_t r;
  if (inf(a) || inf(b) || !ck_add(a, b, &r)) return none;
  return r;
}

Range range_sum(Range a, Range b) {
  return (Range){add_bound(a.lo, b.lo, INT64_MIN), add_bound(a.hi, b.hi, INT64_MAX)};
}

Range range_product(Range a, Range b) {
  const int64_t v[4] = {mul_sat(a.lo, b.lo), mul_sat(a.lo, b.hi), mul_sat(a.hi, b.lo),
                        mul_sat(a.hi, b.hi)};
  Range r = {v[0], v[0]};
  for (int i = 1; i < 4; i++) {
    if (v[i] < r.lo) r.lo = v[i];
    if (v[i] > r.hi) r.hi = v[i];
  }
  return r;
}

Range range_scale(Range r, int64_t c) { return range_product(r, (Range){c, c}); }

static Range range_union(Range a, Range b) {
  return (Range){a.lo < b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
}

static Range range_clip(Range r, Range to) { return r.lo < to.lo || r.hi > to.hi ? to : r; }

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); } /* b > 0 */

static Range range_floordiv(Range a, Range b) {
  if (b.lo < 0) return full;
  const bool zero = b.lo == 0; /* division by zero yields zero */
  if (zero) b.lo = 1;
  if (b.hi < 1) return (Range){0, 0};
  Range r;
  if (a.lo < 0)
    r.lo = a.lo == INT64_MIN ? INT64_MIN : floor_div(a.lo, b.lo);
  else
    r.lo = b.hi == INT64_MAX ? 0 : a.lo / b.hi;
  if (a.hi >= 0)
    r.hi = a.hi == INT64_MAX ? INT64_MAX : a.hi / b.lo;
  else
    r.hi = b.hi == INT64_MAX ? -1 : floor_div(a.hi, b.hi);
  return zero ? range_union(r, (Range){0, 0}) : r;
}

static Range range_floormod(Range a, Range b) {
  if (b.lo < 0) return full;
  Range r = {0, b.hi == INT64_MAX ? INT64_MAX : b.hi > 0 ? b.hi - 1 : 0};
  if (a.lo >= 0 && a.hi < r.hi) r.hi = a.hi;
  return r;
}

static Range range_min(Range a, Range b) {
  return (Range){a.lo < b.lo ? a.lo : b.lo, a.hi < b.hi ? a.hi : b.hi};
}

static Range range_max(Range a, Range b) {
  return (Range){a.lo > b.lo ? a.lo : b.lo, a.hi > b.hi ? a.hi : b.hi};
}

static Range range_neg(Range a) { return range_scale(a, -1); }

static Range range_abs(Range a) {
  if (a.lo >= 0) return a;
  if (a.lo == INT64_MIN) return full;
  return range_max(a.hi <= 0 ? range_neg(a) : (Range){0, a.hi > -a.lo ? a.hi : -a.lo},
                   (Range){0, 0});
}

static Range range_reduce(ReduceKind kind, Range body, Range extent) {
  switch (kind) {
    case RED_SUM:
      if (extent.lo < 0) return full;
      return range_union(range_product(body, extent), (Range){0, 0});
    case RED_MIN:
    case RED_MAX: return extent.lo >= 1 ? body : full;
    default: return full;
  }
}

static Range range_sym(const ExprPool *p, int id) {
  const Symbol *const s = p->syms.data[id];
  return (Range){s->lo, s->bound ? range_of(s->bound).hi : INT64_MAX};
}

static Range range_var(const ExprPool *p, int id) {
  const VarInfo *const v = &p->vars.data[id];
  const Range lo = range_of(v->lo), n = range_of(v->extent);
  Range r = {lo.lo, add_bound(lo.hi, n.hi, INT64_MAX)};
  if (r.hi != INT64_MAX)
    r.hi = r.hi > r.lo ? r.hi - 1 : r.lo; /* an empty loop: any value will do */
  return r;
}

static Range range_op(const ExprPool *p, const Expr *e) {
  const Range a = e->nargs > 0 ? range_of(e->a[0]) : full;
  const Range b = e->nargs > 1 && e->a[1] ? range_of(e->a[1]) : full;
  switch (e->op) {
    case EX_CONST: return (Range){e->k.i, e->k.i};
    case EX_SYM: return range_sym(p, e->id);
    case EX_VAR: return range_var(p, e->id);
    case EX_REDUCE: return range_reduce((ReduceKind)e->k.i, a, b);
    case EX_add: return range_sum(a, b);
    case EX_sub: return range_sum(a, range_neg(b));
    case EX_mul: return range_product(a, b);
    case EX_floordiv: return range_floordiv(a, b);
    case EX_floormod: return range_floormod(a, b);
    case EX_div: return a.lo >= 0 ? range_floordiv(a, b) : full;
    case EX_rem: return a.lo >= 0 ? range_floormod(a, b) : full;
    case EX_neg: return range_neg(a);
    case EX_abs: return range_abs(a);
    case EX_min: return range_min(a, b);
    case EX_max: return range_max(a, b);
    case EX_and: return a.lo >= 0 && b.lo >= 0 ? (Range){0, a.hi < b.hi ? a.hi : b.hi} : full;
    case EX_or:
    case EX_xor: return a.lo >= 0 && b.lo >= 0 ? (Range){0, INT64_MAX} : full;
    case EX_shr: return a.lo >= 0 ? (Range){0, a.hi} : full;
    case EX_select:
    case EX_rarely: return range_union(b, range_of(e->a[2]));
    case EX_cast: return dtype_is_float(e->a[0]->dtype) || e->a[0]->dtype == DT_U64 ? full : a;
    case EX_sat: {
      const Range t = range_type(e->dtype);
      return dtype_is_float(e->a[0]->dtype) || e->a[0]->dtype == DT_U64
                 ? t
                 : range_min(range_max(a, (Range){t.lo, t.lo}), (Range){t.hi, t.hi});
    }
    default: return full;
  }
}

Range range_compute(const ExprPool *p, const Expr *e) {
  const DType t = (DType)e->dtype;
  if (t == DT_U64 || !(dtype_is_int(t) || t == DT_BOOL)) return full;
  return range_clip(range_op(p, e), range_type(t));
}

Range range_of(const Expr *e) {
  const ENode *const n = enode(e);
  if (e->op == EX_SYM) return range_sym(n->pool, e->id);
  return (Range){n->lo, n->hi};
}

bool range_wild(const Expr *e) {
  if (!(e->flags & (EXF_LOAD | EXF_LOCAL | EXF_HOLE | EXF_REDUCE))) return false;
  const Range r = range_of(e);
  return r.lo == INT64_MIN && r.hi == INT64_MAX;
}

bool expr_range(ExprPool *p, const Expr *e, int64_t *lo, int64_t *hi) {
  const Range r = e->dtype == DT_I64 || range_type(e->dtype).lo != INT64_MIN ? range_of(e) : full;
  if (lo) *lo = r.lo;
  if (hi) *hi = r.hi;
  return r.lo != INT64_MIN || r.hi != INT64_MAX;
}
