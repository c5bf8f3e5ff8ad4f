/* Loops that are not inside each other count with the same symbol, where it has the same bounds: so
 * kernels that only differ in whose iteration they read become equal, and merge_kernels makes them
 * one. The symbol of a loop means nothing outside of its body (ir/loop/loop_verify_symbols.c), and loops
 * of one depth do not contain each other, so a name can serve all of them. Needs nothing; breaks
 * nothing. */
#include "passes/pass.h"

enum { LOOK_BACK = 64 }; /* symbols of a depth that are compared */

typedef Vec(int) Ids;

typedef struct Share {
  PassCtx *c;
  Module *m;
  ExprPool *p;
  Arena *a;
  int n_syms, n_vars;
  int *assigns; /* by symbol: steps that assign it */
  const Expr **by; /* by symbol: what takes its place, or NULL */
  const Expr **range; /* by variable: the one with the new range, or NULL */
  Vec(Ids) at_depth; /* symbols that stay, by the number of loops around theirs */
} Share;

/* ---- which ---- */
static void count_assign(Share *s, int id) {
  if (id >= 0) s->assigns[id]++;
}

static void count_assigns(Share *s, const Step *x) {
  for (; x; x = x->next) {
    count_assign(s, x->iter_sym);
    count_assign(s, x->trips_sym);
    count_assign(s, x->sym);
    for (int i = 0; i < x->n_outs; i++)
      for (int d = 0; d < x->outs[i].rank; d++)
        if (x->outs[i].dims[d]->op == EX_SYM) count_assign(s, x->outs[i].dims[d]->id);
    count_assigns(s, x->body);
    count_assigns(s, x->otherwise);
  }
}

static const Expr *renamed(void *user, const Expr *leaf) {
  const Share *s = user;
  if (leaf->op == EX_SYM && leaf->id < s->n_syms) return s->by[leaf->id];
  return leaf->op == EX_VAR && leaf->id < s->n_vars ? s->range[leaf->id] : NULL;
}

static const Expr *rename_in(Share *s, const Expr *e) {
  return e ? expr_rewrite(s->p, e, renamed, s) : NULL;
}

static void choose(Share *s, int id, int depth) {
  while (s->at_depth.n <= depth) vec_push(s->a, &s->at_depth, (Ids){0});
  Ids *ids = &s->at_depth.data[depth];
  Symbol *const mine = expr_symbol(s->p, id);
  mine->bound = rename_in(s, mine->bound);
  for (int i = ids->n - 1; i >= 0 && i >= ids->n - LOOK_BACK; i--) {
    const Symbol *y = expr_symbol(s->p, ids->data[i]);
    if (y->bound != mine->bound || y->lo != mine->lo || !mine->runtime) continue;
    s->by[id] = ex_sym(s->p, y->name);
    s->c->changed = true;
    return;
  }
  vec_push(s->a, ids, id);
}

static void choose_all(Share *s, Step *x, int depth) {
  for (; x; x = x->next) {
    const bool loop = x->kind == STEP_LOOP;
    if (loop && x->iter_sym >= 0 && s->assigns[x->iter_sym] == 1) {
      choose(s, x->iter_sym, depth);
      if (s->by[x->iter_sym]) x->iter_sym = s->by[x->iter_sym]->id;
    }
    choose_all(s, x->body, depth + loop);
    choose_all(s, x->otherwise, depth);
  }
}

/* ---- renaming ---- */

/* Outer loops first: ranges of inner ones may name their variables. */
static void rename_ranges(Share *s, const Stmt *x) {
  for (; x; x = x->next) {
    if (x->kind == ST_FOR) {
      const int id = x->var->id;
      const Expr *lo = expr_var_lo(s->p, id), *extent = expr_var_extent(s->p, id);
      const Expr *lo2 = rename_in(s, lo), *extent2 = rename_in(s, extent);
      if (lo2 != lo || extent2 != extent) s->range[id] = ex_var_range(s->p, "i", lo2, extent2);
    }
    rename_ranges(s, x->body);
    rename_ranges(s, x->otherwise);
  }
}

static void rename_kernel(Share *s, Kernel *k) {
  for (int i = 0; i < k->params.n; i++)
    k->params.data[i].count = rename_in(s, k->params.data[i].count);
  k->flops = rename_in(s, k->flops);
  rename_ranges(s, k->body);
  k->body = stmt_rewrite(s->m->model->arena, s->p, k->body, renamed, s);
}

static void rename_ref(Share *s, BufRef *r) { r->offset = rename_in(s, r->offset); }

static const TensorRef *rename_tensors(Share *s, const TensorRef *t, int n) {
  Arena *const a = s->m->model->arena;
  TensorRef *r = arena_dup(a, t, sizeof *r * (size_t)n);
  for (int i = 0; i < n; i++) {
    rename_ref(s, &r[i].buf);
    const Expr **dims = arena_dup(a, r[i].dims, sizeof *dims * (size_t)r[i].rank);
    for (int d = 0; d < r[i].rank; d++) dims[d] = rename_in(s, dims[d]);
    r[i].dims = dims;
  }
  return r;
}

static void rename_step(Share *s, Step *x) {
  BufRef *args = arena_dup(s->m->model->arena, x->args, sizeof *args * (size_t)x->n_args);
  for (int i = 0; i < x->n_args; i++) rename_ref(s, &args[i]);
  x->args = args;
  if (x->n_ins) x->ins = rename_tensors(s, x->ins, x->n_ins);
  if (x->n_outs) x->outs = rename_tensors(s, x->outs, x->n_outs);
  rename_ref(s, &x->src);
  rename_ref(s, &x->dst);
  rename_ref(s, &x->cond);
  x->count = rename_in(s, x->count);
  x->trip = rename_in(s, x->trip);
  x->value = rename_in(s, x->value);
  x->lo = rename_in(s, x->lo);
  x->hi = rename_in(s, x->hi);
  x->check.a = rename_in(s, x->check.a);
  x->check.b = rename_in(s, x->check.b);
}

static void rename_steps(Share *s, Step *x) {
  for (; x; x = x->next) {
    rename_step(s, x);
    rename_steps(s, x->body);
    rename_steps(s, x->otherwise);
  }
}

static void rename_all(Share *s) {
  Module *const m = s->m;
  for (int i = 0; i < s->n_syms; i++) {
    Symbol *const y = expr_symbol(s->p, i);
    y->bound = rename_in(s, y->bound);
  }
  for (int i = 0; i < m->buffers.n; i++) {
    m->buffers.data[i].count = rename_in(s, m->buffers.data[i].count);
    m->buffers.data[i].offset = rename_in(s, m->buffers.data[i].offset);
  }
  for (int i = 0; i < m->kernels.n; i++) rename_kernel(s, m->kernels.data[i]);
  rename_steps(s, m->steps);
}

bool pass_share_symbols(PassCtx *c) {
  Module *const m = c->module;
  Share s = {.c = c, .m = m, .p = m->model->pool, .a = c->scratch};
  s.n_syms = expr_symbol_count(s.p);
  s.n_vars = expr_var_count(s.p);
  s.assigns = ARENA_ARRAY(s.a, int, s.n_syms + 1);
  s.by = ARENA_ARRAY(s.a, const Expr *, s.n_syms + 1);
  s.range = ARENA_ARRAY(s.a, const Expr *, s.n_vars + 1);
  count_assigns(&s, m->steps);
  choose_all(&s, m->steps, 0);
  if (c->changed) rename_all(&s);
  return true;
}
