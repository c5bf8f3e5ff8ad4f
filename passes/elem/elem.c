/* Generic kernels: one loop nest over the elements of a value, in memory order, storing its elem.
 *
 * Reductions inside the expression are computed at the loop level on which their free variables
 * live, or by a kernel of their own where that level would repeat them. The innermost loop, or the
 * reduction, runs in vectors; the outer loops are flattened into one parallel loop.
 *
 * For GPUs see elem_grid.c. */
#include "passes/elem/elem.h"

#include <string.h>

#include "passes/cost/machine_model.h"

/* ---- collapsing adjacent loops ---- */

typedef struct Collapse {
  ElemNest *t;
  const Expr *outer, *inner, *width; /* width: extent of inner */
  bool ok;
} Collapse;

/* outer and inner occur only as outer*width*c + inner*c. */
static bool merges(Collapse *c, const Expr *index) {
  const Expr *co, *conv, *rest, *rest2;
  if (!expr_affine(c->t->p, index, c->outer, &co, &rest)) return false;
  if (!expr_affine(c->t->p, rest, c->inner, &conv, &rest2)) return false;
  if (co != ex_mul(c->t->p, conv, c->width)) return false;
  return !expr_uses_var(co, c->inner->id) && !expr_uses_var(conv, c->outer->id);
}

static void check_load(void *user, const Expr *load) {
  Collapse *c = user;
  if (!c->ok) return;
  if (load->a[1] &&
      (expr_uses_var(load->a[1], c->outer->id) || expr_uses_var(load->a[1], c->inner->id)))
    c->ok = false;
  if (c->ok) c->ok = merges(c, load->a[0]);
}

static const Expr *drop_load(void *user, const Expr *leaf) {
  /* not a constant: a select of equal constants would lose its condition */
  return leaf->op == EX_LOAD ? ex_hole(user, (DType)leaf->dtype, (int)leaf->uid) : NULL;
}

static bool try_collapse(ElemNest *t, int k) {
  Collapse c = {t, t->var[k], t->var[k + 1], elem_extent(t, k + 1), true};
  if (!merges(&c, t->store)) return false;
  expr_each_load(t->p, t->value, check_load, &c);
  if (!c.ok) return false;
  const Expr *rest = expr_rewrite(t->p, t->value, drop_load, t->p);
  if (expr_uses_var(rest, c.outer->id) || expr_uses_var(rest, c.inner->id)) return false;
  const Expr *both = ex_var(t->p, "i", ex_mul(t->p, elem_extent(t, k), c.width));
  const Expr *zero = ex_i64(t->p, 0);
  t->store = expr_subst(t->p, expr_subst(t->p, t->store, c.outer, zero), c.inner, both);
  t->value = expr_subst(t->p, expr_subst(t->p, t->value, c.outer, zero), c.inner, both);
  t->var[k] = both;
  for (int i = k + 1; i + 1 < t->n; i++) t->var[i] = t->var[i + 1];
  t->n--;
  return true;
}

static void collapse(ElemNest *t) {
  for (int k = t->n - 2; k >= 0; k--) try_collapse(t, k);
}

/* ---- reductions ---- */

int elem_level_of(ElemNest *t, const Expr *e) {
  for (int k = t->n - 1; k >= 0; k--)
    if (expr_uses_var(e, t->var[k]->id)) return k + 1;
  return 0;
}

/* r stands inside the body of `around` and depends on its variable. (What contains r was made after
 * it; reductions side by side may share a variable.) */
bool elem_depends_on(ElemNest *t, const Expr *r, const Expr *around) {
  return around->uid > r->uid && r->id != around->id && expr_uses_var(r, around->id) &&
         expr_contains(t->p, around, r);
}

bool elem_is_nested(ElemNest *t, const Expr *r) {
  for (int i = 0; i < t->reds.n; i++)
    if (elem_depends_on(t, r, t->reds.data[i])) return true;
  return false;
}

static double repeat_factor(ElemNest *t, const Expr *r, int level) {
  double f = 1;
  for (int k = 0; k < level; k++)
    if (!expr_uses_var(r, t->var[k]->id)) f *= elem_guess(t, t->var[k]);
  return f;
}

static Step *finish_nest(ElemNest *t);

static bool is_scan(ElemNest *t, const Expr *r) {
  const Expr *rest;
  int sign;
  const Expr *v = expr_scan_var(t->p, r, &sign, &rest);
  for (int k = 0; v && k < t->n; k++)
    if (t->var[k] == v) return true;
  return false;
}

static ScanNest scan_nest(ElemNest *t, const Expr *r) {
  return (ScanNest){.scan = r, .n = t->n, .var = t->var, .store = t->store, .value = t->value};
}

/* The nest is that of scan r: its loops can carry the running result along. */
static bool runs_along(ElemNest *t, const Expr *r) {
  const ScanNest s = scan_nest(t, r);
  return t->reds.n == 1 && t->reds.data[0] == r && scan_fits(t->p, &s);
}

/* Computes r by a kernel of its own over the loops it depends on, and reads it back. */
static Step *split_reduction(ElemNest *t, const Expr *r, const Value *root) {
  ElemNest s;
  memset(&s, 0, sizeof s);
  s.l = t->l;
  s.p = t->p;
  kb_begin(&s.b, t->l, root, "reduce");
  const Expr *dims[MAX_LOOPS], *idx[MAX_LOOPS];
  for (int k = 0; k < t->n; k++) {
    if (!expr_uses_var(r, t->var[k]->id)) continue;
    dims[s.n] = elem_extent(t, k);
    idx[s.n] = t->var[k];
    s.var[s.n++] = t->var[k];
  }
  Place *pl = lower_temp(t->l, (DType)r->dtype, s.n, dims, "reduced");
  s.to = pl;
  s.value = kb_import(&s.b, &t->b, r);
  s.store = place_index(t->p, pl, s.n, idx);
  const int in = kb_param(&t->b, pl->buffer, pl->offset, PA_READ);
  const Expr *load = ex_load(t->p, (DType)r->dtype, in, s.store, NULL);
  t->value = expr_replace(t->p, t->value, 1, &r, &load);
  for (int i = 0; i < t->reds.n; i++)
    t->reds.data[i] = expr_replace(t->p, t->reds.data[i], 1, &r, &load);
  return finish_nest(&s);
}

void elem_refresh(ElemNest *t) {
  t->reds.n = 0;
  expr_reductions(t->p, t->value, &t->reds);
}

/* Lanes that the innermost loop or a reduction can fill. */
static double lanes_filled(ElemNest *t, double lanes) {
  double longest = elem_guess(t, t->var[t->n - 1]);
  for (int i = 0; i < t->reds.n; i++) {
    const double n = elem_guess(t, ex_var_of(t->p, t->reds.data[i]->id));
    if (n > longest) longest = n;
  }
  return longest < lanes ? longest : lanes;
}

/* Arithmetic in lanes, or the traffic: at most an element for each operation. */
double elem_cycles(ElemNest *t, double cost) {
  const MachineModel m = machine_model(t->l->c->target, DT_F32, 1);
  double elements = 1;
  for (int k = 0; k < t->n; k++) elements *= elem_guess(t, t->var[k]);
  const double bytes = kb_bytes(&t->b, PA_READ) +
                       elements * dtype_bytes(t->l->mod->buffers.data[t->to->buffer].dtype);
  const double work = t->n ? cost / lanes_filled(t, m.lanes) : cost;
  const double touch = model_touch(&m, bytes < 4 * cost ? bytes : 4 * cost);
  return work > touch ? work : touch;
}

static bool worth_parallel(ElemNest *t) {
  return t->n > 0 && model_parallel(elem_cycles(t, expr_total_cost(t->p, 1, &t->value)));
}

static bool splits(ElemNest *t, const Expr *r) {
  const bool scan = is_scan(t, r) && !runs_along(t, r);
  if (elem_on_gpu(t)) return scan ? r != t->value : elem_splits_on_gpu(t, r);
  const int level = elem_level_of(t, r);
  const bool outside = level == 0 && t->n > 0 && worth_parallel(t);
  if (r == t->value && !outside) return false;
  return scan || outside || repeat_factor(t, r, level) >= 2.5;
}

/* Reductions whose level repeats them often, or that stand outside all loops of a parallel
 * kernel. */
static Step *split_reductions(ElemNest *t, const Value *root) {
  Step *steps = NULL;
  for (bool again = true; again;) {
    again = false;
    elem_refresh(t);
    for (int i = 0; i < t->reds.n && !again; i++) {
      const Expr *r = t->reds.data[i];
      if (elem_is_nested(t, r)) continue;
      if (!splits(t, r)) continue;
      step_append(&steps, split_reduction(t, r, root));
      again = true;
    }
  }
  return steps;
}

static Step *finish_nest(ElemNest *t) {
  elem_refresh(t);
  if (t->reds.n == 1 && runs_along(t, t->reds.data[0])) {
    ScanNest s = scan_nest(t, t->reds.data[0]);
    s.target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
    return lower_scan(&t->b, &s);
  }
  collapse(t);
  if (elem_on_gpu(t)) return elem_finish_grid(t);
  elem_refresh(t);
  t->vector_root = elem_vector_root(t);
  const double cycles = elem_cycles(t, expr_total_cost(t->p, 1, &t->value));
  elem_tile_transposed(t);
  const bool parallel = model_parallel(cycles) && elem_parallelise(t);
  elem_finish_tiles(t);
  StmtList body = {0};
  elem_emit(t, &body, 0, parallel ? -1 : 0);
  if (parallel && body.first && body.first->kind == ST_FOR && !body.first->next) {
    body.first->loop.kind = FOR_PARALLEL;
    t->b.k->grain = cycles / elem_guess(t, t->var[0]);
  }
  if (t->failed) return NULL;
  kb_estimate(&t->b, "elem", cycles);
  return kb_finish(&t->b, body.first);
}

/* Dimensions by decreasing stride of the target, as far as they compare. */
static void memory_order(ExprPool *p, const Value *v, const Place *to, int *order) {
  for (int d = 0; d < v->rank; d++) order[d] = v->layout.perm && !to->dense ? v->layout.perm[d] : d;
  for (int i = 1; i < v->rank; i++)
    for (int j = i; j > 0; j--) {
      int64_t lo, hi;
      const Expr *more = ex_sub(p, to->stride[order[j - 1]], to->stride[order[j]]);
      if (!expr_range(p, more, &lo, &hi) || hi >= 0) break;
      const int swap = order[j];
      order[j] = order[j - 1];
      order[j - 1] = swap;
    }
}

static Step *lower_nest(Lower *l, const Value *root, const Place *to, bool read) {
  ElemNest t;
  memset(&t, 0, sizeof t);
  t.l = l;
  t.p = l->p;
  t.to = to;
  kb_begin(&t.b, l, root, read ? "copy" : NULL);
  int order[MAX_RANK];
  const Expr *idx[MAX_RANK];
  memory_order(l->p, root, to, order);
  for (int i = 0; i < root->rank; i++) {
    const int d = order[i];
    if (expr_is_i64(root->dims[d], 1)) {
      idx[d] = ex_i64(l->p, 0);
      continue;
    }
    idx[d] = t.var[t.n++] = ex_var(l->p, "i", root->dims[d]);
  }
  t.value = read ? kernel_expr_read(&t.b.x, root, idx) : kernel_expr_of(&t.b.x, root, idx);
  if (t.b.x.bad) {
    diag_internal(l->m->diag, t.b.loc, "lower: a value of the kernel cannot be read");
    return NULL;
  }
  const DType stored = l->mod->buffers.data[to->buffer].dtype;
  if (stored != root->dtype) t.value = ex_cast(l->p, stored, t.value);
  t.store = place_index(l->p, to, root->rank, idx);
  Step *steps = split_reductions(&t, root);
  step_append(&steps, finish_nest(&t));
  return steps;
}

Step *lower_elem(Lower *l, const Value *root, const Place *to) {
  return lower_nest(l, root, to, false);
}
Step *lower_read(Lower *l, const Value *v, const Place *to) { return lower_nest(l, v, to, true); }
