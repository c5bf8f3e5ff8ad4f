/* Generic kernels: one loop nest over the elements of a value, in memory order, storing its elem.
 *
 * Reductions inside the expression are computed at the loop level on which their free variables
 * live, or by a kernel of their own where that level would repeat them. The innermost loop, or the
 * reduction, runs in vectors; the outer loops are flattened into one parallel loop.
 *
 * For GPUs all loops are that parallel loop (loop/make_grids.c), and a thread computes an element;
 * or a block of threads computes the elements that have their reductions in common (build/rows.c).
 * Other reductions that many elements need are kernels of their own. */
#include "passes/build/kernel.h"
#include "passes/build/rows.h"
#include "passes/cost/machine_model.h"
#include "passes/grid/patch.h"
#include "passes/grid/transpose.h"

#include <string.h>

enum { MAX_LOOPS = MAX_RANK + 2, MAX_REDS = 64, BLOCK = 4096, LANE_BLOCK = 64 };
enum { TILE_ACROSS = 16, TILE_ALONG = 32 }; /* a transposition's tiles: elements of a line × rows */

typedef struct Nest {
  KernelBuild b;
  Lower *l;
  ExprPool *p;
  int n; /* loops, outermost first */
  const Expr *var[MAX_LOOPS];
  const Place *to;
  const Expr *store; /* index in the target */
  const Expr *value;
  ExprList reds; /* not nested in the value of another loop level: inner before outer */
  int n_done;    /* reductions with a local */
  const Expr *red_from[MAX_REDS], *red_to[MAX_REDS];
  bool vector_root; /* the innermost loop runs in vectors */
  bool tiled; /* the two innermost loops go through tiles: inside[d] = at[d] + number in the tile */
  const Expr *tile_inside[2], *tile_at[2], *tile_extent[2];
  bool failed;
} Nest;

static const Expr *extent(Nest *t, int k) { return expr_var_extent(t->p, t->var[k]->id); }
static bool on_gpu(const Nest *t) { return target_has_grids(t->l->c->target); }
static double guess(Nest *t, const Expr *var) {
  return expr_extent_guess(t->p, expr_var_extent(t->p, var->id));
}

/* ---- collapsing adjacent loops ---- */

typedef struct Collapse {
  Nest *t;
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

static bool try_collapse(Nest *t, int k) {
  Collapse c = {t, t->var[k], t->var[k + 1], extent(t, k + 1), true};
  if (!merges(&c, t->store)) return false;
  expr_each_load(t->p, t->value, check_load, &c);
  if (!c.ok) return false;
  const Expr *rest = expr_rewrite(t->p, t->value, drop_load, t->p);
  if (expr_uses_var(rest, c.outer->id) || expr_uses_var(rest, c.inner->id)) return false;
  const Expr *both = ex_var(t->p, "i", ex_mul(t->p, extent(t, k), c.width));
  const Expr *zero = ex_i64(t->p, 0);
  t->store = expr_subst(t->p, expr_subst(t->p, t->store, c.outer, zero), c.inner, both);
  t->value = expr_subst(t->p, expr_subst(t->p, t->value, c.outer, zero), c.inner, both);
  t->var[k] = both;
  for (int i = k + 1; i + 1 < t->n; i++) t->var[i] = t->var[i + 1];
  t->n--;
  return true;
}

static void collapse(Nest *t) {
  for (int k = t->n - 2; k >= 0; k--) try_collapse(t, k);
}

/* ---- reductions ---- */

static int level_of(Nest *t, const Expr *e) {
  for (int k = t->n - 1; k >= 0; k--)
    if (expr_uses_var(e, t->var[k]->id)) return k + 1;
  return 0;
}

/* r stands inside the body of `around` and depends on its variable. (What contains r was made after
 * it; reductions side by side may share a variable.) */
static bool depends_on(Nest *t, const Expr *r, const Expr *around) {
  return around->uid > r->uid && r->id != around->id && expr_uses_var(r, around->id) &&
         expr_contains(t->p, around, r);
}

static bool is_nested(Nest *t, const Expr *r) {
  for (int i = 0; i < t->reds.n; i++)
    if (depends_on(t, r, t->reds.data[i])) return true;
  return false;
}

static double repeat_factor(Nest *t, const Expr *r, int level) {
  double f = 1;
  for (int k = 0; k < level; k++)
    if (!expr_uses_var(r, t->var[k]->id)) f *= guess(t, t->var[k]);
  return f;
}

static Step *finish_nest(Nest *t);

static bool is_scan(Nest *t, const Expr *r) {
  const Expr *rest;
  int sign;
  const Expr *v = expr_scan_var(t->p, r, &sign, &rest);
  for (int k = 0; v && k < t->n; k++)
    if (t->var[k] == v) return true;
  return false;
}

static ScanNest scan_nest(Nest *t, const Expr *r) {
  return (ScanNest){.scan = r, .n = t->n, .var = t->var, .store = t->store, .value = t->value};
}

/* The nest is that of scan r: its loops can carry the running result along. */
static bool runs_along(Nest *t, const Expr *r) {
  const ScanNest s = scan_nest(t, r);
  return t->reds.n == 1 && t->reds.data[0] == r && scan_fits(t->p, &s);
}

/* Computes r by a kernel of its own over the loops it depends on, and reads it back. */
static Step *split_reduction(Nest *t, const Expr *r, const Value *root) {
  Nest s;
  memset(&s, 0, sizeof s);
  s.l = t->l;
  s.p = t->p;
  kb_begin(&s.b, t->l, root, "reduce");
  const Expr *dims[MAX_LOOPS], *idx[MAX_LOOPS];
  for (int k = 0; k < t->n; k++) {
    if (!expr_uses_var(r, t->var[k]->id)) continue;
    dims[s.n] = extent(t, k);
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

static void refresh_reductions(Nest *t) {
  t->reds.n = 0;
  expr_reductions(t->p, t->value, &t->reds);
}

/* Lanes that the innermost loop or a reduction can fill. */
static double lanes_filled(Nest *t, double lanes) {
  double longest = guess(t, t->var[t->n - 1]);
  for (int i = 0; i < t->reds.n; i++) {
    const double n = guess(t, ex_var_of(t->p, t->reds.data[i]->id));
    if (n > longest) longest = n;
  }
  return longest < lanes ? longest : lanes;
}

/* Arithmetic in lanes, or the traffic: at most an element for each operation. */
static double cycles_of(Nest *t, double cost) {
  const MachineModel m = machine_model(t->l->c->target, DT_F32, 1);
  double elements = 1;
  for (int k = 0; k < t->n; k++) elements *= guess(t, t->var[k]);
  const double bytes = kb_bytes(&t->b, PA_READ) +
                       elements * dtype_bytes(t->l->mod->buffers.data[t->to->buffer].dtype);
  const double work = t->n ? cost / lanes_filled(t, m.lanes) : cost;
  const double touch = model_touch(&m, bytes < 4 * cost ? bytes : 4 * cost);
  return work > touch ? work : touch;
}

static bool worth_parallel(Nest *t) {
  return t->n > 0 && model_parallel(cycles_of(t, expr_total_cost(t->p, 1, &t->value)));
}

/* Whether r is to be computed once: else, for a GPU, by every thread whose element needs it. */
static bool grid_splits(Nest *t, const Expr *r) {
  enum { FEW = 32 }; /* cycles that may be spent again */
  double repeats = 1, results = 1;
  for (int k = 0; k < t->n; k++)
    *(expr_uses_var(r, t->var[k]->id) ? &results : &repeats) *= guess(t, t->var[k]);
  return repeats >= 2.5 && expr_total_cost(t->p, 1, &r) > FEW * results;
}

static RowNest row_nest(Nest *t) {
  return (RowNest){.n = t->n, .var = t->var, .store = t->store, .value = t->value};
}

static bool splits_on_gpu(Nest *t, const Expr *r) {
  const RowNest s = row_nest(t);
  if (!rows_pay(t->l->c->target, t->p, &s)) return grid_splits(t, r);
  return r != t->value && rows_repeat(t->p, &s, r);
}

static bool splits(Nest *t, const Expr *r) {
  const bool scan = is_scan(t, r) && !runs_along(t, r);
  if (on_gpu(t)) return scan ? r != t->value : splits_on_gpu(t, r);
  const int level = level_of(t, r);
  const bool outside = level == 0 && t->n > 0 && worth_parallel(t);
  if (r == t->value && !outside) return false;
  return scan || outside || repeat_factor(t, r, level) >= 2.5;
}

/* Reductions whose level repeats them often, or that stand outside all loops of a parallel
 * kernel. */
static Step *split_reductions(Nest *t, const Value *root) {
  Step *steps = NULL;
  for (bool again = true; again;) {
    again = false;
    refresh_reductions(t);
    for (int i = 0; i < t->reds.n && !again; i++) {
      const Expr *r = t->reds.data[i];
      if (is_nested(t, r)) continue;
      if (!splits(t, r)) continue;
      step_append(&steps, split_reduction(t, r, root));
      again = true;
    }
  }
  return steps;
}

static const Expr *with_locals(Nest *t, const Expr *e) {
  return expr_replace(t->p, e, t->n_done, t->red_from, t->red_to);
}

typedef struct Strides {
  Nest *t;
  const Expr *var;
  int good, bad;
} Strides;

static void count_stride(void *user, const Expr *load) {
  Strides *s = user;
  const Expr *c, *rest;
  if (!expr_uses_var(load, s->var->id)) return;
  if (expr_affine(s->t->p, load->a[0], s->var, &c, &rest) && expr_is_i64(c, 1))
    s->good++;
  else
    s->bad++;
}

static Strides strides(Nest *t, const Expr *e, const Expr *var) {
  Strides s = {t, var, 0, 0};
  expr_each_load(t->p, e, count_stride, &s);
  return s;
}

/* The reduction directly inside r of the same kind: one accumulator serves both. Long sums keep one
 * accumulator per level: rounding errors grow with the length of a chain. */
static const Expr *inner_of(Nest *t, const Expr *r) {
  const Expr *b = r->a[0];
  const bool exact = r->k.i != RED_SUM || !dtype_is_float((DType)r->dtype);
  if (!exact && b->op == EX_REDUCE &&
      guess(t, ex_var_of(t->p, r->id)) * guess(t, ex_var_of(t->p, b->id)) > 512)
    return NULL;
  return b->op == EX_REDUCE && b->k.i == r->k.i && b->dtype == r->dtype && expr_uses_var(b, r->id)
             ? b
             : NULL;
}

static void emit_reduction(Nest *t, StmtList *out, const Expr *r, bool may_vector);
static Stmt *reduction_loops(Nest *t, const Expr *r, int local, bool may_vector);

/* Terms that one accumulator may take: many in vectors, each lane of which gathers few. The sums
 * of such blocks go into an accumulator of f64, so that rounding errors do not grow with their
 * number. */
enum { SUM_BLOCK = 4096, SUM_BLOCK_SERIAL = 256 };

/* 0: r stays whole. */
static int64_t sum_block(Nest *t, const Expr *r, bool may_vector) {
  int64_t lo, hi;
  if (r->k.i != RED_SUM || !dtype_is_float((DType)r->dtype)) return 0;
  const Strides s = strides(t, r->a[0], ex_var_of(t->p, r->id));
  const int64_t block = may_vector && !s.bad ? SUM_BLOCK : SUM_BLOCK_SERIAL;
  const bool known = expr_range(t->p, expr_var_extent(t->p, r->id), &lo, &hi);
  return known && hi <= block ? 0 : block;
}

static int sum_local(Nest *t, StmtList *out, DType dt) {
  Arena *a = t->l->m->arena;
  const int id = kernel_add_local(t->l->mod, t->b.k, (Local){.name = "t", .dtype = dt, .count = 1});
  stmt_add(out, stmt_local(a, id));
  stmt_add(out, stmt_set(a, id, ex_i64(t->p, 0), reduce_identity(t->p, RED_SUM, dt)));
  return id;
}

/* sum(i < n: f(i)) as sum(b < n/block: sum(j < block: f(b*block + j))), the outer one in f64. */
static Stmt *blocked_sum(Nest *t, const Expr *r, int local, bool may_vector, int64_t block) {
  Arena *a = t->l->m->arena;
  ExprPool *p = t->p;
  const DType dt = (DType)r->dtype;
  const Expr *var = ex_var_of(p, r->id), *n = expr_var_extent(p, r->id), *zero = ex_i64(p, 0);
  const Expr *size = ex_i64(p, block), *lo = expr_var_lo(p, r->id);
  const Expr *b = ex_var(p, "b", ex_ceildiv(p, n, block)), *base = ex_mul(p, b, size);
  const Expr *j = ex_var(p, "k", ex_min(p, size, ex_sub(p, n, base)));
  const Expr *at = ex_add(p, ex_add(p, lo ? lo : zero, base), j);
  const Expr *inner = ex_reduce(p, RED_SUM, j, expr_subst(p, r->a[0], var, at));
  StmtList all = {0}, body = {0};
  const int total = sum_local(t, &all, DT_F64), part = sum_local(t, &body, dt);
  stmt_add(&body, reduction_loops(t, inner, part, may_vector));
  const Expr *of_block = ex_cast(p, DT_F64, ex_local(p, dt, part, zero));
  stmt_add(&body, stmt_acc(a, total, zero, RED_SUM, of_block));
  stmt_add(&all, stmt_for(a, FOR_SERIAL, b, body.first));
  stmt_add(&all, stmt_set(a, local, zero, ex_cast(p, dt, ex_local(p, DT_F64, total, zero))));
  return all.first;
}

/* Where the number of terms is known only at run time, a short sum goes the short way. */
static Stmt *long_sum(Nest *t, const Expr *r, int local, bool may_vector, int64_t block) {
  const Expr *n = expr_var_extent(t->p, r->id), *is_short = ex_le(t->p, n, ex_i64(t->p, block));
  Stmt *blocked = blocked_sum(t, r, local, may_vector, block);
  if (expr_is_const(is_short, NULL)) return blocked;
  return stmt_if(t->l->m->arena, is_short, reduction_loops(t, r, local, may_vector), blocked);
}

/* The loops of r (and of those merged into it) around the accumulation into `local`. */
static Stmt *reduction_loops(Nest *t, const Expr *r, int local, bool may_vector) {
  Arena *a = t->l->m->arena;
  const Expr *var = ex_var_of(t->p, r->id);
  const Expr *inner = inner_of(t, r);
  if (inner) return stmt_for(a, FOR_SERIAL, var, reduction_loops(t, inner, local, may_vector));
  StmtList body = {0};
  ExprList nested = {0};
  expr_reductions(t->p, r->a[0], &nested);
  const int keep = t->n_done;
  bool has_nested = false;
  for (int i = 0; i < nested.n; i++) {
    bool done = false;
    for (int k = 0; k < t->n_done; k++) done = done || t->red_from[k] == nested.data[i];
    if (done) continue;
    bool ready = true; /* nested ones that belong into a deeper reduction are emitted there */
    for (int j = 0; j < nested.n; j++)
      if (depends_on(t, nested.data[i], nested.data[j])) ready = false;
    if (!ready) continue;
    emit_reduction(t, &body, nested.data[i], false);
    has_nested = true;
  }
  const Strides s = strides(t, r->a[0], var);
  const bool vector = may_vector && !has_nested && !s.bad && guess(t, var) >= 4;
  stmt_add(&body, stmt_acc(a, local, ex_i64(t->p, 0), (ReduceKind)r->k.i, with_locals(t, r->a[0])));
  t->n_done = keep;
  return stmt_for(a, vector ? FOR_VECTOR : FOR_SERIAL, var, body.first);
}

static void emit_reduction(Nest *t, StmtList *out, const Expr *r, bool may_vector) {
  if (t->n_done == MAX_REDS) {
    t->failed = true;
    return;
  }
  Arena *a = t->l->m->arena;
  const int64_t block = sum_block(t, r, may_vector);
  const DType dt = (DType)r->dtype;
  const int local =
      kernel_add_local(t->l->mod, t->b.k, (Local){.name = "t", .dtype = dt, .count = 1});
  const Expr *zero = ex_i64(t->p, 0);
  stmt_add(out, stmt_local(a, local));
  stmt_add(out, stmt_set(a, local, zero, reduce_identity(t->p, (ReduceKind)r->k.i, dt)));
  stmt_add(out, block ? long_sum(t, r, local, may_vector, block)
                      : reduction_loops(t, r, local, may_vector));
  t->red_from[t->n_done] = r;
  t->red_to[t->n_done++] = ex_local(t->p, dt, local, zero);
}

/* ---- the nest ---- */

static bool under_merged(Nest *t, const Expr *r) {
  for (int i = 0; i < t->reds.n; i++)
    if (inner_of(t, t->reds.data[i]) == r) return true;
  return false;
}

static void emit_level(Nest *t, StmtList *out, int k, int first_loop) {
  Arena *a = t->l->m->arena;
  const int keep = t->n_done;
  for (int i = 0; i < t->reds.n; i++) {
    const Expr *r = t->reds.data[i];
    const int level = level_of(t, r);
    const bool here = level == k || (k == first_loop && level < k);
    if (!here || is_nested(t, r) || under_merged(t, r)) continue;
    emit_reduction(t, out, r, (k < t->n || !t->vector_root) && !on_gpu(t));
  }
  if (k == t->n) {
    const int target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
    stmt_add(out, stmt_store(a, target, t->store, with_locals(t, t->value)));
  } else {
    StmtList body = {0};
    emit_level(t, &body, k + 1, -1);
    const bool vector = k == t->n - 1 && t->vector_root;
    stmt_add(out, stmt_for(a, vector ? FOR_VECTOR : FOR_SERIAL, t->var[k], body.first));
  }
  t->n_done = keep;
}

/* Vectors along the innermost loop, unless its loads are scattered and those of a reduction inside
 * are not. */
static bool choose_vector_root(Nest *t) {
  if (!t->n) return false;
  const Expr *v = t->var[t->n - 1];
  const double n = guess(t, v);
  int good = 0, red_good = 0, inner_reds = 0;
  double longest = 0;
  const Strides root = strides(t, t->value, v);
  for (int i = 0; i < t->reds.n; i++) {
    const Expr *r = t->reds.data[i];
    if (level_of(t, r) != t->n) continue;
    inner_reds++;
    const Strides s = strides(t, r->a[0], ex_var_of(t->p, r->id));
    red_good += s.good && !s.bad;
    if (s.good && !s.bad && guess(t, ex_var_of(t->p, r->id)) > longest)
      longest = guess(t, ex_var_of(t->p, r->id));
  }
  good = root.good;
  if (!inner_reds) return true;
  if (red_good && longest >= 8 && (root.bad > good || n < 8)) return false;
  return true;
}

/* Reductions of symbolic extent cannot run inside lanes when the bounds vary by lane; extents use
 * no loop variables in that case. */
static bool lanes_uniform(Nest *t) {
  const Expr *v = t->n ? t->var[t->n - 1] : NULL;
  for (int i = 0; v && i < t->reds.n; i++)
    if (expr_uses_var(t->reds.data[i]->a[1], v->id)) return false;
  return true;
}

static const Expr *subst_all(Nest *t, const Expr *e, const Expr *from, const Expr *to) {
  return expr_subst(t->p, e, from, to);
}

/* Replaces var[k] by an expression everywhere. */
static void rebind(Nest *t, const Expr *from, const Expr *to) {
  t->store = subst_all(t, t->store, from, to);
  t->value = subst_all(t, t->value, from, to);
  for (int d = 0; d < 2 && t->tiled; d++) t->tile_at[d] = subst_all(t, t->tile_at[d], from, to);
}

/* Flattens loops [0, q) into one parallel variable. */
static void flatten(Nest *t, int q) {
  const Expr *total = ex_i64(t->p, 1);
  for (int k = 0; k < q; k++) total = ex_mul(t->p, total, extent(t, k));
  const Expr *par = ex_var(t->p, "p", total), *rest = par;
  for (int k = q - 1; k >= 0; k--) {
    const Expr *old = t->var[k];
    const Expr *part = k ? ex_floormod(t->p, rest, extent(t, k)) : rest;
    rest = k ? ex_floordiv(t->p, rest, extent(t, k)) : rest;
    rebind(t, old, part);
  }
  t->var[0] = par;
  for (int k = q; k < t->n; k++) t->var[k - q + 1] = t->var[k];
  t->n -= q - 1;
}

/* One long loop: blocks in parallel, lanes inside. */
static void block(Nest *t, int64_t size) {
  const Expr *n = extent(t, 0), *b = ex_i64(t->p, size);
  const Expr *par = ex_var(t->p, "p", ex_ceildiv(t->p, n, size));
  const Expr *base = ex_mul(t->p, par, b);
  int64_t whole;
  const bool even = expr_is_const(n, &whole) && whole % size == 0;
  const Expr *in = ex_var(t->p, "i", even ? b : ex_min(t->p, b, ex_sub(t->p, n, base)));
  rebind(t, t->var[0], ex_add(t->p, base, in));
  t->var[0] = par;
  t->var[1] = in;
  t->n = 2;
}

static int loops_to_flatten(Nest *t) {
  int limit = t->tiled ? t->n : t->n - 1;
  for (int i = 0; i < t->reds.n; i++) {
    const int level = level_of(t, t->reds.data[i]);
    if (level > 0 && level < limit) limit = level;
  }
  double n = 1;
  int q = 0;
  while (q < limit && n < 64) n *= guess(t, t->var[q++]);
  return q;
}

/* Makes the outer loops parallel; returns whether there is a parallel
 * loop. */
static bool parallelise(Nest *t) {
  if (!t->n) return false;
  if (t->n == 1) {
    if (!t->vector_root) return true;
    const int64_t size = t->reds.n ? LANE_BLOCK : BLOCK;
    if (guess(t, t->var[0]) < 2 * size) return false;
    block(t, size);
  } else {
    flatten(t, loops_to_flatten(t));
  }
  refresh_reductions(t);
  return true;
}

/* ---- transpositions ---- */

typedef struct Crossing {
  Nest *t;
  const Expr *along, *across;
  int n;
} Crossing;

/* Loads that go from line to line along one variable, and through a line along the other. */
static void count_crossing(void *user, const Expr *load) {
  Crossing *c = user;
  const Expr *k, *rest;
  if (!expr_affine(c->t->p, load->a[0], c->along, &k, &rest) || expr_is_i64(k, 0) ||
      expr_is_i64(k, 1))
    return;
  if (expr_affine(c->t->p, load->a[0], c->across, &k, &rest) && expr_is_i64(k, 1)) c->n++;
}

/* The loop that runs through the lines between which the innermost loop jumps; -1: none. */
static int crossing_loop(Nest *t) {
  int best = -1, most = 0;
  for (int k = 0; k + 1 < t->n; k++) {
    Crossing c = {t, t->var[t->n - 1], t->var[k], 0};
    expr_each_load(t->p, t->value, count_crossing, &c);
    if (c.n > most && guess(t, t->var[k]) >= TILE_ACROSS / 2) {
      most = c.n;
      best = k;
    }
  }
  return best;
}

static const Expr *block_var(Nest *t, int d, const Expr *var, int64_t size) {
  const Expr *n = expr_var_extent(t->p, var->id), *b = ex_i64(t->p, size);
  const Expr *blocks = ex_var(t->p, "i", ex_ceildiv(t->p, n, size));
  t->tile_inside[d] = ex_var(t->p, "t", b);
  t->tile_at[d] = ex_mul(t->p, blocks, b);
  t->tile_extent[d] = n;
  rebind(t, var, ex_add(t->p, t->tile_at[d], t->tile_inside[d]));
  return blocks;
}

/* A nest whose vectors would take one element of each line they touch, and come back for the next
 * one when the lines have left the cache, goes through tiles of a line's length. */
static void tile_transposed(Nest *t) {
  enum { SMALL = 4096 }; /* elements that stay in the first-level cache anyway */
  if (!t->vector_root || t->reds.n || t->n < 2 || t->n > MAX_RANK) return;
  const Expr *along = t->var[t->n - 1];
  const int k = crossing_loop(t);
  if (k < 0 || guess(t, along) < TILE_ALONG || guess(t, along) * guess(t, t->var[k]) <= SMALL)
    return;
  const Expr *across = t->var[k];
  for (int i = k; i + 2 < t->n; i++) t->var[i] = t->var[i + 1];
  /* the tiles of the shorter dimension follow each other: whole lines are read or written */
  const bool wide = guess(t, across) > guess(t, along);
  const Expr *const x = block_var(t, 0, across, TILE_ACROSS), *const y = block_var(t, 1, along,
                                                                                   TILE_ALONG);
  t->var[t->n - 2] = wide ? x : y;
  t->var[t->n - 1] = wide ? y : x;
  t->tiled = true;
}

/* The loops inside the tiles, when those around them are final. */
static void finish_tiles(Nest *t) {
  static const int64_t size[2] = {TILE_ACROSS, TILE_ALONG};
  for (int d = 0; d < 2 && t->tiled; d++) {
    int64_t n;
    const Expr *b = ex_i64(t->p, size[d]), *whole = t->tile_extent[d];
    const bool even = expr_is_const(whole, &n) && n % size[d] == 0;
    const Expr *left = ex_sub(t->p, whole, t->tile_at[d]);
    const Expr *in = ex_var(t->p, "i", even ? b : ex_min(t->p, b, left));
    rebind(t, t->tile_inside[d], in);
    t->var[t->n++] = in;
  }
}

static Step *finish_rows(Nest *t, RowNest *s) {
  s->target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
  kb_estimate(&t->b, "rows", cycles_of(t, expr_total_cost(t->p, 1, &t->value)));
  return kb_finish(&t->b, rows_body(&t->b, s));
}

/* The elements through tiles, or by threads that have some each; NULL: by one for each. */
static Step *finish_patches(Nest *t, double cycles) {
  if (!t->n || t->l->c->opt_level == 0) return NULL;
  t->value = patch_weights(&t->b, t->value, t->var[t->n - 1]);
  RowNest s = row_nest(t);
  s.target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
  Stmt *body = transpose_body(&t->b, &s);
  kb_estimate(&t->b, body ? "transpose" : "patch", cycles);
  if (!body) body = patch_body(&t->b, &s);
  return body ? kb_finish(&t->b, body) : NULL;
}

static Step *finish_grid(Nest *t) {
  RowNest s = row_nest(t);
  if (rows_pay(t->l->c->target, t->p, &s)) return finish_rows(t, &s);
  const double cycles = cycles_of(t, expr_total_cost(t->p, 1, &t->value));
  Step *const patches = finish_patches(t, cycles);
  if (patches) return patches;
  if (t->n) flatten(t, t->n);
  refresh_reductions(t);
  StmtList body = {0};
  emit_level(t, &body, 0, t->n ? -1 : 0);
  if (t->failed) return NULL;
  if (t->n && body.first && body.first->kind == ST_FOR && !body.first->next)
    body.first->loop.kind = FOR_PARALLEL;
  kb_estimate(&t->b, "elem", cycles);
  return kb_finish(&t->b, body.first);
}

static Step *finish_nest(Nest *t) {
  refresh_reductions(t);
  if (t->reds.n == 1 && runs_along(t, t->reds.data[0])) {
    ScanNest s = scan_nest(t, t->reds.data[0]);
    s.target = kb_param(&t->b, t->to->buffer, t->to->offset, PA_WRITE);
    return lower_scan(&t->b, &s);
  }
  collapse(t);
  if (on_gpu(t)) return finish_grid(t);
  refresh_reductions(t);
  t->vector_root = choose_vector_root(t) && lanes_uniform(t);
  const double cycles = cycles_of(t, expr_total_cost(t->p, 1, &t->value));
  tile_transposed(t);
  const bool parallel = model_parallel(cycles) && parallelise(t);
  finish_tiles(t);
  StmtList body = {0};
  emit_level(t, &body, 0, parallel ? -1 : 0);
  if (parallel && body.first && body.first->kind == ST_FOR && !body.first->next) {
    body.first->loop.kind = FOR_PARALLEL;
    t->b.k->grain = cycles / guess(t, t->var[0]);
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
  Nest t;
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
