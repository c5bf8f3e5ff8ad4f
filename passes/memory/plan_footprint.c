/* Which elements of its parameters a kernel loads and stores, for given values of the symbols: each
 * access in the loop tree becomes boxes. Loops in which the index is not affine, or on which
 * conditions and other loops hang, are run through; the others are dimensions of a box. */
#include "ir/expr/expr_query.h"
#include "passes/memory/plan_written.h"

#include <string.h>

typedef struct Collect {
  Arena *a;
  ExprPool *p;
  Sites *out;
  Vec(const Expr *) vars, conds;
  Vec(bool) wanted;
  const Stmt *stmt;
} Collect;

/* ---- sites ---- */
static bool uses(const Expr *e, const Expr *var) { return e && expr_uses_var(e, var->id); }
static bool on_data(const Expr *e) {
  return e && (e->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE | EXF_HOLE));
}

/* Does anything that decides whether or how often the access happens hang on var? */
static bool decides(ExprPool *p, const Site *s, const Expr *var) {
  if (uses(s->guard, var)) return true;
  for (int i = 0; i < s->n_conds; i++)
    if (uses(s->conds[i], var)) return true;
  for (int i = 0; i < s->n_vars; i++)
    if (uses(expr_var_lo(p, s->vars[i]->id), var) || uses(expr_var_extent(p, s->vars[i]->id), var))
      return true;
  return false;
}

static bool site_on_data(ExprPool *p, const Site *s) {
  if (on_data(s->index) || on_data(s->guard)) return true;
  for (int i = 0; i < s->n_conds; i++)
    if (on_data(s->conds[i])) return true;
  for (int i = 0; i < s->n_vars; i++)
    if (on_data(expr_var_lo(p, s->vars[i]->id)) || on_data(expr_var_extent(p, s->vars[i]->id)))
      return true;
  return false;
}

static void mark_hard(ExprPool *p, const Site *s, bool *hard) {
  for (int i = 0; i < s->n_vars; i++) {
    const Expr *coeff = NULL, *rest = NULL;
    if (decides(p, s, s->vars[i])) hard[i] = true;
    if (!uses(s->index, s->vars[i])) continue;
    if (!expr_affine(p, s->index, s->vars[i], &coeff, &rest)) {
      hard[i] = true;
      continue;
    }
    for (int k = 0; k < s->n_vars; k++)
      if (k != i && uses(coeff, s->vars[k])) hard[k] = true;
  }
}

static void order_vars(Collect *c, Site *s) {
  bool *hard = ARENA_ARRAY(c->a, bool, s->n_vars + 1);
  const Expr **order = ARENA_ARRAY(c->a, const Expr *, s->n_vars + 1);
  mark_hard(c->p, s, hard);
  int n = 0;
  for (int i = 0; i < s->n_vars; i++)
    if (hard[i]) order[n++] = s->vars[i];
  s->n_hard = n;
  for (int i = 0; i < s->n_vars; i++)
    if (!hard[i]) order[n++] = s->vars[i];
  s->vars = order;
}

static void add_site(Collect *c, int param, bool store, const Expr *index, const Expr *guard) {
  Site s = {.param = param, .store = store, .index = index, .guard = guard};
  s.in_place = !store && c->stmt->kind == ST_STORE && c->stmt->access.id == param &&
               c->stmt->access.index == index;
  s.n_vars = c->vars.n;
  s.vars = ARENA_ARRAY(c->a, const Expr *, s.n_vars + 1);
  for (int i = 0; i < s.n_vars; i++) s.vars[i] = c->vars.data[i];
  s.n_conds = c->conds.n;
  s.conds = ARENA_ARRAY(c->a, const Expr *, s.n_conds + 1);
  s.wanted = ARENA_ARRAY(c->a, bool, s.n_conds + 1);
  for (int i = 0; i < s.n_conds; i++) {
    s.conds[i] = c->conds.data[i];
    s.wanted[i] = c->wanted.data[i];
  }
  s.on_data = site_on_data(c->p, &s);
  order_vars(c, &s);
  vec_push(c->a, c->out, s);
}

static void add_load(void *user, const Expr *load) {
  add_site(user, load->id, false, load->a[0], load->nargs > 1 ? load->a[1] : NULL);
}

/* Loads under a reduction: its variable is a loop, too. */
static void add_loads(Collect *c, const Expr *e) {
  if (!e || !(e->flags & EXF_LOAD)) return;
  if (e->op == EX_REDUCE) {
    vec_push(c->a, &c->vars, ex_var_of(c->p, e->id));
    add_loads(c, e->a[0]);
    c->vars.n--;
    return;
  }
  if (!(e->flags & EXF_REDUCE)) {
    expr_each_load(c->p, e, add_load, c);
    return;
  }
  if (e->op == EX_LOAD) add_load(c, e);
  for (int i = 0; i < e->nargs; i++) add_loads(c, e->a[i]);
}

static void add_part(void *user, const Expr *e) { add_loads(user, e); }

static void add_stmts(Collect *c, const Stmt *s);

static void add_branch(Collect *c, const Stmt *s, const Expr *cond, bool wanted) {
  vec_push(c->a, &c->conds, cond);
  vec_push(c->a, &c->wanted, wanted);
  add_stmts(c, s);
  c->conds.n--;
  c->wanted.n--;
}

static void add_stmts(Collect *c, const Stmt *s) {
  for (; s; s = s->next) {
    c->stmt = s;
    if (s->kind == ST_FOR) {
      vec_push(c->a, &c->vars, s->loop.var);
      add_stmts(c, s->loop.body);
      c->vars.n--;
      continue;
    }
    if (s->kind == ST_LOCAL || s->kind == ST_PREFETCH) continue;
    stmt_each_expr(s, add_part, c);
    if (s->kind == ST_STORE) add_site(c, s->access.id, true, s->access.index, NULL);
    if (s->kind == ST_IF) {
      add_branch(c, s->branch.then, s->branch.cond, true);
      add_branch(c, s->branch.otherwise, s->branch.cond, false);
    }
  }
}

void kernel_sites(Arena *a, ExprPool *p, const Kernel *k, Sites *out) {
  Collect c = {.a = a, .p = p, .out = out};
  add_stmts(&c, k->body);
}

/* ---- boxes ---- */
typedef struct Boxes {
  ExprPool *p;
  const Site *s;
  EvalEnv *env;
  int64_t *budget;
  BoxFn f;
  void *user;
} Boxes;

static int64_t value_of(const Boxes *b, const Expr *e) {
  int64_t k;
  if (!e) return 0;
  if (expr_is_const(e, &k)) return k;
  --*b->budget;
  return expr_eval(b->p, e, b->env).i;
}

static bool happens(const Boxes *b) {
  if (b->s->guard && !value_of(b, b->s->guard)) return false;
  for (int i = 0; i < b->s->n_conds; i++)
    if ((value_of(b, b->s->conds[i]) != 0) != b->s->wanted[i]) return false;
  return true;
}

static void add_dim(Box *box, int64_t stride, int64_t extent) {
  if (extent == 1 || stride == 0) return;
  if (stride < 0) {
    box->base += stride * (extent - 1);
    stride = -stride;
  }
  int at = box->n++;
  for (; at > 0 && box->stride[at - 1] > stride; at--) {
    box->stride[at] = box->stride[at - 1];
    box->extent[at] = box->extent[at - 1];
  }
  box->stride[at] = stride;
  box->extent[at] = extent;
}

/* Dimensions that continue each other, or overlap without gaps, become one. */
static void merge_dims(Box *box) {
  int n = 0;
  for (int d = 0; d < box->n; d++) {
    const int64_t ratio = n ? box->stride[d] / box->stride[n - 1] : 0;
    if (n && ratio * box->stride[n - 1] == box->stride[d] && ratio <= box->extent[n - 1]) {
      box->extent[n - 1] += ratio * (box->extent[d] - 1);
      continue;
    }
    box->stride[n] = box->stride[d];
    box->extent[n++] = box->extent[d];
  }
  box->n = n;
}

static bool emit(const Boxes *b) {
  const Site *s = b->s;
  Box box = {.n = 0};
  int64_t extent[MAX_BOX];
  if (s->n_vars - s->n_hard > MAX_BOX) {
    *b->budget = -1;
    return false;
  }
  for (int i = s->n_hard; i < s->n_vars; i++) {
    const int id = s->vars[i]->id;
    b->env->vars[id] = value_of(b, expr_var_lo(b->p, id));
    extent[i - s->n_hard] = value_of(b, expr_var_extent(b->p, id));
    if (extent[i - s->n_hard] <= 0) return true;
  }
  if (!happens(b)) return true;
  const int64_t base = box.base = value_of(b, s->index);
  for (int i = s->n_hard; i < s->n_vars; i++) {
    if (extent[i - s->n_hard] == 1 || !uses(s->index, s->vars[i])) continue;
    b->env->vars[s->vars[i]->id]++;
    add_dim(&box, value_of(b, s->index) - base, extent[i - s->n_hard]);
    b->env->vars[s->vars[i]->id]--;
  }
  merge_dims(&box);
  return *b->budget >= 0 && b->f(b->user, &box);
}

static bool run(const Boxes *b, int k) {
  if (k == b->s->n_hard) return emit(b);
  const int id = b->s->vars[k]->id;
  const int64_t lo = value_of(b, expr_var_lo(b->p, id)), n = value_of(b, expr_var_extent(b->p, id));
  for (int64_t i = 0; i < n; i++) {
    b->env->vars[id] = lo + i;
    if (!run(b, k + 1)) return false;
  }
  return *b->budget >= 0;
}

bool site_boxes(ExprPool *p, const Site *s, EvalEnv *env, int64_t *budget, BoxFn f, void *user) {
  const Boxes b = {p, s, env, budget, f, user};
  return run(&b, 0);
}
