/* Several elements a thread, for GPUs. A patch is some elements that follow each other in memory, so
 * that a thread loads and stores up to 16 bytes at once, at some indices of another loop, where windows
 * of a reduction overlap there (a depthwise convolution's, a pooling's: patch_window.c): what
 * one index has read in them, the next ones have in registers.
 *
 *   for each patch, in parallel
 *     for all variables of a reduction but the last
 *       a line of the window into registers
 *       for the last one, for all of the patch: accumulate
 *     for all of the patch: store
 *
 * Terms are added in the order that they have alone, so that results are those of single elements; where
 * they follow each other in memory, a thread loads some at once.
 * Loads of neighbours go first, each into an array of its own (codegen/cuda/vector.c makes one access of
 * it); what the elements have in common, into one. */
#include "passes/grid/patch.h"

#include "ir/expr/expr_query.h"
#include "passes/build/nest.h"

enum { MOST_WIDTH = 8, ACCESS = 16, LEAST_ACCESS = 4, MOST_LOADS = 32 };
enum { THREADS = 64 }; /* of a multiprocessor, below which patches leave it idle */

static const Expr *num(const Patch *t, int64_t n) { return ex_i64(t->p, n); }

/* ---- what is reduced ---- */
static bool is_nested(const Patch *t, const ExprList *all, const Expr *r) {
  for (int i = 0; i < all->n; i++)
    if (all->data[i] != r && expr_contains(t->p, all->data[i], r)) return true;
  return false;
}

static bool has_plain_bounds(const Patch *t, const Expr *var) {
  const Expr *const lo = expr_var_lo(t->p, var->id);
  return !((expr_var_extent(t->p, var->id)->flags | (lo ? lo->flags : 0)) & ~EXF_SYM);
}

/* One kind of reduction all through, whose sums one accumulator may gather. */
static bool is_chain(const Patch *t, const Expr *r) {
  enum { MOST_TERMS = 256 };
  const RowChain c = row_chain_of(t->p, r);
  int64_t terms = 1, n;
  bool known = true;
  if (c.body->flags & EXF_REDUCE) return false;
  for (int i = 0; i < c.n; i++) {
    if (!has_plain_bounds(t, c.var[i])) return false;
    known = known && expr_is_const(expr_var_extent(t->p, c.var[i]->id), &n) && n <= MOST_TERMS;
    terms *= known ? n : 1;
  }
  const bool rounds = r->k.i == RED_SUM && dtype_is_float((DType)r->dtype);
  return !rounds || (known && terms <= MOST_TERMS);
}

bool patch_tops(Patch *t) {
  ExprList all = {0};
  t->n_tops = 0;
  if (expr_has_scan(t->p, t->value)) return false;
  expr_reductions(t->p, t->value, &all);
  for (int i = 0; i < all.n; i++) {
    if (is_nested(t, &all, all.data[i])) continue;
    if (t->n_tops == PATCH_TOPS || !is_chain(t, all.data[i])) return false;
    t->top[t->n_tops++] = all.data[i];
  }
  return true;
}

/* ---- how wide ---- */
/* The elements of var follow each other from a multiple of `n` on. */
static bool follows(const Patch *t, int param, const Expr *index, const Expr *var, int64_t n) {
  const Param *const q = &t->b->k->params.data[param];
  const Expr *coeff, *first;
  return q->align >= n * dtype_bytes(q->dtype) && expr_affine(t->p, index, var, &coeff, &first) &&
         expr_is_i64(coeff, 1) && expr_is_multiple(t->p, first, n);
}

int64_t patch_access(const Patch *t, const Expr *load) {
  const int bytes = dtype_bytes((DType)load->dtype);
  const int64_t n = t->width * bytes > ACCESS ? ACCESS / bytes : t->width;
  if (n < 2 || n * bytes < LEAST_ACCESS || (load->a[1] && expr_uses_var(load->a[1], t->v->id)))
    return 1;
  return follows(t, load->id, load->a[0], t->v, n) ? n : 1;
}

typedef struct Count {
  const Patch *t;
  int together, apart;
} Count;

static void count_load(void *user, const Expr *load) {
  Count *const c = user;
  if (!expr_uses_var(load, c->t->v->id)) return;
  *(patch_access(c->t, load) > 1 ? &c->together : &c->apart) += 1;
}

static void rebind(Patch *t, const Expr *from, const Expr *to) {
  t->value = expr_subst(t->p, t->value, from, to);
  t->store = expr_subst(t->p, t->store, from, to);
}

/* Patches of so many elements along the innermost loop. A line that does not end with one can be
 * divided where it is all there is. */
static bool try_width(Patch *t, int64_t width) {
  const Expr *const var = t->s->var[t->s->n - 1], *const n = expr_var_extent(t->p, var->id);
  const bool even = expr_is_multiple(t->p, n, width);
  const int bytes = dtype_bytes(t->b->k->params.data[t->s->target].dtype);
  Patch was = *t;
  if (width * bytes < LEAST_ACCESS || (!even && (t->s->n > 1 || t->n_tops))) return false;
  const Expr *const c = ex_var(t->p, "c", ex_ceildiv(t->p, n, width));
  t->width = width;
  t->v = ex_var(t->p, "v", num(t, width));
  t->loop[t->s->n - 1] = c;
  const Expr *const first = ex_mul(t->p, c, num(t, width));
  t->inside_v = even ? NULL : ex_le(t->p, ex_add(t->p, first, num(t, width)), n);
  rebind(t, var, ex_add(t->p, first, t->v));
  Count count = {.t = t};
  expr_each_load(t->p, t->value, count_load, &count);
  if (follows(t, t->s->target, t->store, t->v, width) && count.apart <= count.together) return true;
  *t = was;
  return false;
}

static void choose_width(Patch *t, double elements, double threads) {
  const int bytes = dtype_bytes(t->b->k->params.data[t->s->target].dtype);
  int64_t width = ACCESS / bytes < MOST_WIDTH ? ACCESS / bytes : MOST_WIDTH;
  while (width > 1 && (elements < (double)width * threads || !try_width(t, width))) width /= 2;
}

/* ---- loads in front ---- */
static int add_local(Patch *t, StmtList *out, const char *name, DType type, int64_t count) {
  const bool computes = dtype_compute(type) == type;
  const Local l = {
      .name = name, .dtype = type, .count = count, .memory = computes ? MEM_REGS : MEM_STACK};
  const int id = kernel_add_local(t->b->l->mod, t->b->k, l);
  stmt_add(out, stmt_local(t->a, id));
  return id;
}

static Stmt *unrolled(const Patch *t, const Expr *var, Stmt *s) {
  return var->op == EX_VAR ? stmt_for(t->a, FOR_UNROLL, var, s) : s;
}

/* Elements of the load, in as few accesses as it takes, behind element `first` of the local. */
static Stmt *load_all(Patch *t, int local, const Expr *first, const Expr *load) {
  const int64_t n = patch_access(t, load);
  if (n == 1) {
    const bool each = expr_uses_var(load, t->v->id);
    Stmt *const set = stmt_set(t->a, local, each ? ex_add(t->p, first, t->v) : first, load);
    return each ? unrolled(t, t->v, set) : set;
  }
  const Expr *const part = t->width > n ? ex_var(t->p, "i", num(t, t->width / n)) : num(t, 0);
  const Expr *const u = ex_var(t->p, "u", num(t, n));
  const Expr *const at = ex_add(t->p, ex_mul(t->p, part, num(t, n)), u);
  Stmt *const set =
      stmt_set(t->a, local, ex_add(t->p, first, at), expr_subst(t->p, load, t->v, at));
  return unrolled(t, part, stmt_for(t->a, FOR_VECTOR, u, set));
}

typedef struct Loads {
  const Patch *t;
  const Expr *from[MOST_LOADS], *to[MOST_LOADS];
  int n;
} Loads;

static bool is_uniform(const Patch *t, const Expr *load) {
  return t->v->op != EX_VAR || !expr_uses_var(load, t->v->id);
}

/* What is loaded in front: neighbours, and what all elements have in common behind a condition. */
static void find_load(void *user, const Expr *load) {
  Loads *const l = user;
  const bool uniform = is_uniform(l->t, load);
  if (l->n == MOST_LOADS || (uniform ? !load->a[1] : patch_access(l->t, load) == 1)) return;
  l->from[l->n++] = load;
}

static const Expr *replaced(const Loads *l, const Expr *e) {
  return expr_replace(l->t->p, e, l->n, l->from, l->to);
}

static bool uses_q(const Patch *t, const Expr *e) {
  return t->q->op == EX_VAR && expr_uses_var(e, t->q->id);
}

/* e with loads replaced, which stand in `out`: those that go by q, or the others. */
static const Expr *load_first(Patch *t, StmtList *out, const Expr *e, bool by_q) {
  Loads l = {.t = t}, own = {.t = t};
  expr_each_load(t->p, e, find_load, &l);
  for (int i = 0; i < l.n; i++) {
    const Expr *const load = l.from[i];
    if (uses_q(t, load) != by_q) continue;
    const bool uniform = is_uniform(t, load);
    const int id = add_local(t, out, "x", (DType)load->dtype, uniform ? 1 : t->width);
    stmt_add(out, load_all(t, id, num(t, 0), load));
    own.from[own.n] = load;
    own.to[own.n++] = ex_local(t->p, (DType)load->dtype, id, uniform ? num(t, 0) : t->v);
  }
  return replaced(&own, e);
}

/* ---- reductions ---- */
static Stmt *if_left(const Patch *t, Stmt *s) {
  return t->left ? stmt_if(t->a, ex_lt(t->p, t->q, t->left), s, NULL) : s;
}

/* Of a reduction: an accumulator for each value of what it depends on. */
typedef struct Sums {
  int local;
  const Expr *q, *v; /* 0 where there is one for all */
  const Expr *index;
  DType type;
} Sums;

static Sums begin_sums(Patch *t, StmtList *out, const Expr *r) {
  Sums s = {.q = num(t, 0), .v = num(t, 0), .type = (DType)r->dtype};
  if (uses_q(t, r)) s.q = t->q;
  if (!is_uniform(t, r)) s.v = t->v;
  const int64_t width = s.v == t->v ? t->width : 1, high = s.q == t->q ? t->high : 1;
  s.index = ex_add(t->p, ex_mul(t->p, s.q, num(t, width)), s.v);
  s.local = add_local(t, out, "t", s.type, width * high);
  Stmt *const set =
      stmt_set(t->a, s.local, s.index, reduce_identity(t->p, (ReduceKind)r->k.i, s.type));
  stmt_add(out, unrolled(t, s.q, unrolled(t, s.v, set)));
  return s;
}

/* The places of a window, as far as one of the elements that there are goes over them. */
static const Expr *load_window(Patch *t, StmtList *out, const PatchWindow *w) {
  const Expr *at = w->at, *const last = num(t, (w->taps - 1) * w->reach);
  if (t->left) {
    const Expr *const q = ex_sub(t->p, t->left, num(t, 1));
    const Expr *const most = ex_add(t->p, ex_mul(t->p, q, num(t, w->step)), last);
    const Expr *const some = ex_le(t->p, w->place, most);
    at = ex_load(t->p, (DType)at->dtype, at->id, at->a[0],
                 at->a[1] ? ex_and(t->p, at->a[1], some) : some);
  }
  const int64_t width = is_uniform(t, at) ? 1 : t->width;
  const int id = add_local(t, out, "line", (DType)at->dtype, width * w->span);
  Stmt *const one = load_all(t, id, ex_mul(t->p, w->place, num(t, width)), at);
  stmt_add(out, stmt_for(t->a, FOR_UNROLL, w->place, one));
  return ex_local(t->p, (DType)at->dtype, id, w->place);
}

static void any_load(void *user, const Expr *load) {
  Loads *const l = user;
  if (l->n < MOST_LOADS) l->from[l->n++] = load;
}

/* body with loads of windows replaced; *some: there are any. */
static const Expr *load_windows(Patch *t, StmtList *out, const Expr *body, const Expr *var,
                                bool *some) {
  Loads l = {.t = t}, own = {.t = t};
  expr_each_load(t->p, body, any_load, &l);
  for (int i = 0; i < l.n; i++) {
    PatchWindow w;
    if (!patch_window(t, l.from[i], var, &w)) continue;
    const Expr *const line = load_window(t, out, &w);
    const bool uniform = is_uniform(t, w.at);
    const Expr *const place =
        ex_add(t->p, ex_mul(t->p, t->q, num(t, w.step)), ex_mul(t->p, var, num(t, w.reach)));
    const Expr *const at =
        uniform ? place : ex_add(t->p, ex_mul(t->p, place, num(t, t->width)), t->v);
    own.from[own.n] = l.from[i];
    own.to[own.n++] = ex_local(t->p, (DType)line->dtype, line->id, at);
  }
  *some = own.n > 0;
  return replaced(&own, body);
}

/* ---- terms together ---- */
/* Terms that follow each other in memory are loaded some at once: a reduction's last variable is
 * outer*n + u. */
typedef struct Terms {
  const Patch *t;
  const Expr *outer, *u;
  int64_t n;
  int found;
} Terms;

/* One access loads the terms of u, for all of the patch. */
static bool is_together(const Terms *m, const Expr *load) {
  const Patch *const t = m->t;
  const int64_t bytes = m->n * dtype_bytes((DType)load->dtype);
  return bytes >= LEAST_ACCESS && bytes <= ACCESS && is_uniform(t, load) && !uses_q(t, load) &&
         !(load->a[1] && expr_uses_var(load->a[1], m->u->id)) &&
         follows(t, load->id, load->a[0], m->u, m->n);
}

static void count_together(void *user, const Expr *load) {
  Terms *const m = user;
  m->found += is_together(m, load);
}

/* body with its last variable divided; m->n is 1 where that brings nothing. */
static const Expr *divide_terms(const Patch *t, const Expr *body, const Expr *last, Terms *m) {
  const Expr *const n = expr_var_extent(t->p, last->id), *const lo = expr_var_lo(t->p, last->id);
  *m = (Terms){.t = t, .outer = last, .u = num(t, 0), .n = MOST_WIDTH};
  for (; m->n > 1 && (!lo || expr_is_i64(lo, 0)); m->n /= 2) {
    if (!expr_is_multiple(t->p, n, m->n)) continue;
    m->outer = ex_var(t->p, "k", ex_floordiv(t->p, n, num(t, m->n)));
    m->u = ex_var(t->p, "u", num(t, m->n));
    const Expr *const at = ex_add(t->p, ex_mul(t->p, m->outer, num(t, m->n)), m->u);
    const Expr *const divided = expr_subst(t->p, body, last, at);
    expr_each_load(t->p, divided, count_together, m);
    if (m->found) return divided;
  }
  *m = (Terms){.t = t, .outer = last, .u = num(t, 0), .n = 1};
  return body;
}

static const Expr *load_together(Patch *t, StmtList *out, const Expr *body, const Terms *m) {
  Loads l = {.t = t}, own = {.t = t};
  if (m->n > 1) expr_each_load(t->p, body, any_load, &l);
  for (int i = 0; i < l.n; i++) {
    const Expr *const load = l.from[i];
    if (!is_together(m, load)) continue;
    const int id = add_local(t, out, "terms", (DType)load->dtype, m->n);
    stmt_add(out, stmt_for(t->a, FOR_VECTOR, m->u, stmt_set(t->a, id, m->u, load)));
    own.from[own.n] = load;
    own.to[own.n++] = ex_local(t->p, (DType)load->dtype, id, m->u);
  }
  return replaced(&own, body);
}

static bool loads_together(const Patch *t) {
  Terms m;
  for (int i = 0; i < t->n_tops; i++) {
    const RowChain c = row_chain_of(t->p, t->top[i]);
    divide_terms(t, c.body, c.var[c.n - 1], &m);
    if (m.n > 1) return true;
  }
  return false;
}

/* All of the patch takes a term in. */
static Stmt *add_terms(Patch *t, const Sums *s, ReduceKind kind, const Expr *term) {
  StmtList all = {0}, each = {0};
  const bool by_q = s->q == t->q;
  term = load_first(t, &all, term, false);
  if (by_q) term = load_first(t, &each, term, true);
  stmt_add(&each, unrolled(t, s->v, stmt_acc(t->a, s->local, s->index, kind, term)));
  stmt_add(&all, by_q ? unrolled(t, s->q, if_left(t, each.first)) : each.first);
  return all.first;
}

/* Every result of r, which the elements read. */
static const Expr *reduce(Patch *t, StmtList *out, const Expr *r) {
  const RowChain c = row_chain_of(t->p, r);
  const ReduceKind kind = (ReduceKind)r->k.i;
  const Sums s = begin_sums(t, out, r);
  const Expr *const last = c.var[c.n - 1];
  StmtList line = {0};
  bool windows = false;
  const Expr *body = load_windows(t, &line, c.body, last, &windows);
  if (windows) {
    stmt_add(&line, stmt_for(t->a, FOR_UNROLL, last, add_terms(t, &s, kind, body)));
  } else {
    Terms m;
    StmtList terms = {0};
    body = divide_terms(t, body, last, &m);
    body = load_together(t, &terms, body, &m);
    stmt_add(&terms, unrolled(t, m.u, add_terms(t, &s, kind, body)));
    stmt_add(&line, stmt_for(t->a, FOR_SERIAL, m.outer, terms.first));
  }
  Stmt *loops = line.first;
  for (int i = c.n - 2; i >= 0; i--) loops = stmt_for(t->a, FOR_SERIAL, c.var[i], loops);
  stmt_add(out, loops);
  return ex_local(t->p, s.type, s.local, s.index);
}

/* ---- the kernel ---- */
static Stmt *store_all(Patch *t) {
  StmtList all = {0}, each = {0};
  const Expr *value = load_first(t, &all, t->value, false);
  if (t->q->op == EX_VAR) value = load_first(t, &each, value, true);
  Stmt *store = stmt_store(t->a, t->s->target, t->store, value);
  if (t->v->op == EX_VAR) store = stmt_for(t->a, FOR_VECTOR, t->v, store);
  stmt_add(&each, store);
  stmt_add(&all, unrolled(t, t->q, if_left(t, each.first)));
  return all.first;
}

/* What is left of the only line, one by one. */
static Stmt *store_rest(Patch *t) {
  const Expr *const var = t->s->var[0], *const n = expr_var_extent(t->p, var->id);
  const Expr *const i = ex_var(t->p, "i", num(t, t->width - 1));
  const Expr *const at = ex_add(t->p, ex_mul(t->p, t->loop[0], num(t, t->width)), i);
  Stmt *const s = stmt_store(t->a, t->s->target, expr_subst(t->p, t->s->store, var, at),
                             expr_subst(t->p, t->s->value, var, at));
  return stmt_for(t->a, FOR_SERIAL, i, stmt_if(t->a, ex_lt(t->p, at, n), s, NULL));
}

typedef struct Flat {
  const Patch *t;
  const Expr *index[MAX_RANK + 2];
} Flat;

static const Expr *by_number(void *user, const Expr *leaf) {
  const Flat *const f = user;
  for (int k = 0; k < f->t->s->n; k++)
    if (leaf == f->t->loop[k]) return f->index[k];
  return NULL;
}

/* The loops of patches as one. */
static Stmt *flatten(Patch *t, const Stmt *body) {
  const Expr *extent[MAX_RANK + 2], *all = num(t, 1);
  Flat f = {.t = t};
  for (int k = 0; k < t->s->n; k++)
    all = ex_mul(t->p, all, extent[k] = expr_var_extent(t->p, t->loop[k]->id));
  const Expr *const number = ex_var(t->p, "p", all);
  nest_indices(t->p, number, t->s->n, extent, f.index);
  return stmt_for(t->a, FOR_PARALLEL, number, stmt_rewrite(t->a, t->p, body, by_number, &f));
}

static void divide_high(Patch *t, int k) {
  const Expr *const var = t->s->var[k], *const n = expr_var_extent(t->p, var->id);
  const Expr *const group = ex_var(t->p, "w", ex_ceildiv(t->p, n, t->high));
  const Expr *const first = ex_mul(t->p, group, num(t, t->high));
  t->loop[k] = group;
  t->q = ex_var(t->p, "q", num(t, t->high));
  if (!expr_is_multiple(t->p, n, t->high)) t->left = ex_sub(t->p, n, first);
  rebind(t, var, ex_add(t->p, first, t->q));
}

static bool plan(Patch *t) {
  const Target *const target = t->b->l->c->target;
  double elements = 1;
  t->v = t->q = num(t, 0);
  t->width = t->high = 1;
  if (!t->s->n || !patch_tops(t)) return false;
  for (int k = 0; k < t->s->n; k++) {
    t->loop[k] = t->s->var[k];
    elements *= expr_extent_guess(t->p, expr_var_extent(t->p, t->loop[k]->id));
  }
  choose_width(t, elements, (double)THREADS * target->gpu->sms);
  const int k =
      t->n_tops ? patch_choose_high(t, elements / (2.0 * THREADS * target->gpu->sms)) : -1;
  if (k >= 0) divide_high(t, k);
  return patch_tops(t) && (t->width > 1 || t->high > 1 || loads_together(t));
}

Stmt *patch_body(KernelBuild *b, const RowNest *s) {
  Patch t = {
      .b = b, .p = b->l->p, .a = b->l->m->arena, .s = s, .value = s->value, .store = s->store};
  StmtList body = {0};
  if (!plan(&t)) return NULL;
  for (int i = 0; i < t.n_tops; i++) {
    const Expr *const r = t.top[i], *const done = reduce(&t, &body, r);
    t.value = expr_replace(t.p, t.value, 1, &r, &done);
  }
  Stmt *const all = store_all(&t);
  stmt_add(&body, t.inside_v ? stmt_if(t.a, t.inside_v, all, store_rest(&t)) : all);
  return flatten(&t, body.first);
}
