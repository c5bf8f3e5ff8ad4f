/* Windows that overlap: while a reduction's last variable goes through its values, neighbours read
 * the same places. */
#include "ir/expr/expr_query.h"
#include "passes/grid/patch.h"

static const Expr *num(const Patch *t, int64_t n) { return ex_i64(t->p, n); }

static bool step_of(const Patch *t, const Expr *index, const Expr *var, int64_t *step) {
  const Expr *coeff, *rest;
  return expr_affine(t->p, index, var, &coeff, &rest) && expr_is_const(coeff, step) && *step > 0;
}

static int64_t common(int64_t a, int64_t b) {
  while (b) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/* The load with `from` in the place of both: `to` stands for what the two are together. */
static bool moves(const Patch *t, const Expr *load, const Expr *zero, const Expr *from,
                  const Expr *to, PatchWindow *w) {
  const Expr *const e = expr_subst(t->p, load, from, w->place); /* the wider range first */
  w->at = expr_subst(t->p, e, zero, num(t, 0));
  return w->at->op == EX_LOAD && expr_subst(t->p, w->at, w->place, to) == load;
}

bool patch_window(const Patch *t, const Expr *load, const Expr *var, PatchWindow *w) {
  const Expr *const lo = expr_var_lo(t->p, var->id);
  if (t->q->op != EX_VAR || (lo && !expr_is_i64(lo, 0)) ||
      !expr_is_const(expr_var_extent(t->p, var->id), &w->taps) || w->taps < 2 ||
      !step_of(t, load->a[0], t->q, &w->step) || !step_of(t, load->a[0], var, &w->reach))
    return false;
  const int64_t one = common(w->step, w->reach);
  w->step /= one;
  w->reach /= one;
  w->span = (t->high - 1) * w->step + (w->taps - 1) * w->reach + 1;
  if (w->span >= t->high * w->taps) return false;
  w->place = ex_var(t->p, "j", num(t, w->span));
  const Expr *const both =
      ex_add(t->p, ex_mul(t->p, t->q, num(t, w->step)), ex_mul(t->p, var, num(t, w->reach)));
  if (w->reach == 1) return moves(t, load, t->q, var, both, w);
  return w->step == 1 && moves(t, load, var, t->q, both, w);
}

/* ---- how many ---- */
/* What an index of a patch takes, and holds in registers. */
typedef struct Reads {
  const Patch *t;
  const Expr *var;  /* the reduction's last one */
  double loads;     /* of an element, in all its terms along var */
  double registers; /* of the thread */
  bool some;        /* windows overlap */
} Reads;

static void count_reads(void *user, const Expr *load) {
  Reads *const r = user;
  const Patch *const t = r->t;
  const double taps = expr_extent_guess(t->p, expr_var_extent(t->p, r->var->id));
  const double width = t->v->op == EX_VAR && expr_uses_var(load, t->v->id) ? (double)t->width : 1;
  const double each = width * dtype_bytes((DType)load->dtype) / 4;
  PatchWindow w;
  if (patch_window(t, load, r->var, &w)) {
    r->loads += (double)w.span / (double)t->high;
    r->registers += each * (double)w.span;
    r->some = true;
  } else {
    r->loads += expr_uses_var(load, t->q->id) ? taps : taps / (double)t->high;
    r->registers += each;
  }
}

/* With t->q along loop k. */
static Reads reads_of(const Patch *t) {
  Reads r = {.t = t};
  for (int i = 0; i < t->n_tops; i++) {
    const RowChain c = row_chain_of(t->p, t->top[i]);
    r.var = c.var[c.n - 1];
    r.registers += (double)(t->width * t->high);
    expr_each_load(t->p, c.body, count_reads, &r);
  }
  return r;
}

/* Elements that are not there count as much as those that are. */
static double cost_of(Patch *t, int k, int64_t high) {
  enum { REGISTERS = 96 };
  const Expr *const var = t->s->var[k], *const n = expr_var_extent(t->p, var->id);
  const Expr *const group = ex_var(t->p, "w", ex_ceildiv(t->p, n, high));
  Patch x = *t;
  x.high = high;
  x.q = ex_var(t->p, "q", num(t, high));
  const Expr *const at = ex_add(t->p, ex_mul(t->p, group, num(t, high)), x.q);
  x.value = expr_subst(t->p, x.value, var, at);
  if (!patch_tops(&x)) return 1e30;
  const Reads r = reads_of(&x);
  const double guess = expr_extent_guess(t->p, n),
               groups = (guess + (double)high - 1) / (double)high;
  const double whole = (double)(int64_t)groups * (double)high / (guess > 1 ? guess : 1);
  return r.some && r.registers <= REGISTERS ? r.loads * whole : 1e30;
}

/* Loads of an element alone. */
static double cost_alone(const Patch *t) {
  double n = 0;
  for (int i = 0; i < t->n_tops; i++) {
    const RowChain c = row_chain_of(t->p, t->top[i]);
    Reads r = {.t = t, .var = c.var[c.n - 1]};
    Patch one = *t;
    one.q = ex_var(t->p, "q", num(t, 1));
    r.t = &one;
    expr_each_load(t->p, c.body, count_reads, &r);
    n += r.loads;
  }
  return n;
}

int patch_choose_high(Patch *t, double most) {
  enum { MOST_HIGH = 8 };
  double least = cost_alone(t) * 0.9;
  int best = -1;
  for (int k = 0; k + 1 < t->s->n; k++)
    for (int64_t high = 2; high <= MOST_HIGH && (double)(high * t->width) <= most; high++) {
      const double cost = cost_of(t, k, high);
      if (cost >= least) continue;
      least = cost;
      best = k;
      t->high = high;
    }
  return best;
}
