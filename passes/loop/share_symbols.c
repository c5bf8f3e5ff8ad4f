/* Loops that are not inside each other count with the same symbol, where it has the same bounds:
 * so kernels that only differ in whose iteration they read become equal, and merge_kernels makes
 * them one. The symbol of a loop means nothing outside of its body
 * (ir/loop/loop_verify_symbols.c), and loops of one depth do not contain each other, so a name
 * can serve all of them. Needs nothing; breaks nothing. */
#include "passes/pass.h"

enum { LOOK_BACK = 64 }; /* symbols of a depth that are compared */

typedef Vec(int) Ids;

typedef struct Share {
  PassCtx *c;
  Module *m;
  ExprPool *p;
  Arena *a;
  int n_syms, n_vars;
  int *assigns;       /* by symbol: steps that assign it */
  const Expr **by;    /* by symbol: what takes its place, or NULL */
  const Expr **range; /* by variable: the one with the new range, or NULL */
  Vec(Ids) at_depth;  /* symbols that stay, by the number of loops around theirs */
} Share;

/* ---- which ---- */
static void count_assign(Share *s, int id) {
  if (id >= 0) s->assigns[id]++;
}

static bool count_assigns(void *user, Step *x) {
  Share *s = user;
  switch (x->kind) {
    case STEP_LOOP:
      count_assign(s, x->loop.iter);
      count_assign(s, x->loop.trips);
      break;
    case STEP_SYM: count_assign(s, x->sym.id); break;
    case STEP_EXTERN:
      for (int i = 0; i < x->ext.n_outs; i++)
        for (int d = 0; d < x->ext.outs[i].rank; d++)
          if (x->ext.outs[i].dims[d]->op == EX_SYM) count_assign(s, x->ext.outs[i].dims[d]->id);
      break;
    default: break;
  }
  return true;
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
    if (loop && x->loop.iter >= 0 && s->assigns[x->loop.iter] == 1) {
      choose(s, x->loop.iter, depth);
      if (s->by[x->loop.iter]) x->loop.iter = s->by[x->loop.iter]->id;
    }
    choose_all(s, step_body(x), depth + loop);
    choose_all(s, step_otherwise(x), depth);
  }
}

/* ---- renaming ---- */

/* Outer loops come first: ranges of inner ones may name their variables. */
static bool rename_range(void *user, Stmt *x) {
  Share *s = user;
  if (x->kind != ST_FOR) return true;
  const int id = x->loop.var->id;
  const Expr *lo = expr_var_lo(s->p, id), *extent = expr_var_extent(s->p, id);
  const Expr *lo2 = rename_in(s, lo), *extent2 = rename_in(s, extent);
  if (lo2 != lo || extent2 != extent) s->range[id] = ex_var_range(s->p, "i", lo2, extent2);
  return true;
}

static void rename_kernel(Share *s, Kernel *k) {
  for (int i = 0; i < k->params.n; i++)
    k->params.data[i].count = rename_in(s, k->params.data[i].count);
  k->flops = rename_in(s, k->flops);
  stmt_each(k->body, rename_range, s);
  k->body = stmt_rewrite(s->m->model->arena, s->p, k->body, renamed, s);
}

static const Expr *rename_part(void *user, const Expr *e) { return rename_in(user, e); }

static bool rename_step(void *user, Step *x) {
  step_map_exprs(((Share *)user)->m->model->arena, x, rename_part, user);
  return true;
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
  step_each(m->steps, rename_step, s);
}

bool pass_share_symbols(PassCtx *c) {
  Module *const m = c->module;
  Share s = {.c = c, .m = m, .p = m->model->pool, .a = c->scratch};
  s.n_syms = expr_symbol_count(s.p);
  s.n_vars = expr_var_count(s.p);
  s.assigns = ARENA_ARRAY(s.a, int, s.n_syms + 1);
  s.by = ARENA_ARRAY(s.a, const Expr *, s.n_syms + 1);
  s.range = ARENA_ARRAY(s.a, const Expr *, s.n_vars + 1);
  step_each(m->steps, count_assigns, &s);
  choose_all(&s, m->steps, 0);
  if (c->changed) rename_all(&s);
  return true;
}
