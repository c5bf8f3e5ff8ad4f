/* Walks over the loop IR: the one place that knows which blocks and which expressions a statement
 * or a step holds. Who looks at all of them alike uses these; who treats kinds apart has a
 * switch. */
#include "ir/loop/loop.h"

/* ---- blocks ---- */
Stmt *stmt_body(const Stmt *s) {
  return s->kind == ST_FOR ? s->loop.body : s->kind == ST_IF ? s->branch.then : NULL;
}

Stmt *stmt_otherwise(const Stmt *s) { return s->kind == ST_IF ? s->branch.otherwise : NULL; }

Step *step_body(const Step *s) {
  return s->kind == STEP_LOOP ? s->loop.body : s->kind == STEP_IF ? s->branch.then : NULL;
}

Step *step_otherwise(const Step *s) { return s->kind == STEP_IF ? s->branch.otherwise : NULL; }

bool stmt_each(Stmt *s, StmtVisit f, void *user) {
  for (; s; s = s->next)
    if (!f(user, s) || !stmt_each(stmt_body(s), f, user) || !stmt_each(stmt_otherwise(s), f, user))
      return false;
  return true;
}

bool step_each(Step *s, StepVisit f, void *user) {
  for (; s; s = s->next)
    if (!f(user, s) || !step_each(step_body(s), f, user) || !step_each(step_otherwise(s), f, user))
      return false;
  return true;
}

/* ---- expressions ---- */
static void map(const Expr **e, ExprMap f, void *user) {
  if (*e) *e = f(user, *e);
}

void stmt_map_exprs(Stmt *s, ExprMap f, void *user) {
  switch (s->kind) {
    case ST_FOR:
    case ST_LOCAL: break;
    case ST_IF: map(&s->branch.cond, f, user); break;
    case ST_STORE:
    case ST_SET:
    case ST_ACC:
    case ST_PREFETCH:
      map(&s->access.index, f, user);
      map(&s->access.value, f, user);
      break;
  }
}

static const BufRef *map_args(Arena *a, const BufRef *args, int n, ExprMap f, void *user) {
  BufRef *const r = arena_dup(a, args, sizeof *r * (size_t)n);
  for (int i = 0; i < n; i++) map(&r[i].offset, f, user);
  return r;
}

static const TensorRef *map_tensors(Arena *a, const TensorRef *t, int n, ExprMap f, void *user) {
  TensorRef *const r = arena_dup(a, t, sizeof *r * (size_t)n);
  for (int i = 0; i < n; i++) {
    map(&r[i].buf.offset, f, user);
    const Expr **const dims = arena_dup(a, r[i].dims, sizeof *dims * (size_t)r[i].rank);
    for (int d = 0; d < r[i].rank; d++) map(&dims[d], f, user);
    r[i].dims = dims;
  }
  return r;
}

void step_map_exprs(Arena *a, Step *s, ExprMap f, void *user) {
  switch (s->kind) {
    case STEP_KERNEL: s->call.args = map_args(a, s->call.args, s->call.n_args, f, user); break;
    case STEP_EXTERN:
      s->ext.ins = map_tensors(a, s->ext.ins, s->ext.n_ins, f, user);
      s->ext.outs = map_tensors(a, s->ext.outs, s->ext.n_outs, f, user);
      break;
    case STEP_COPY:
      map(&s->copy.src.offset, f, user);
      map(&s->copy.dst.offset, f, user);
      map(&s->copy.count, f, user);
      break;
    case STEP_IF: map(&s->branch.cond.offset, f, user); break;
    case STEP_LOOP:
      map(&s->loop.cond.offset, f, user);
      map(&s->loop.trip, f, user);
      break;
    case STEP_SYM:
      map(&s->sym.src.offset, f, user);
      map(&s->sym.value, f, user);
      map(&s->sym.lo, f, user);
      map(&s->sym.hi, f, user);
      break;
    case STEP_CHECK:
      map(&s->check.a, f, user);
      map(&s->check.b, f, user);
      break;
    case STEP_ROOM:
      map(&s->room.count, f, user);
      map(&s->room.keep, f, user);
      break;
  }
}

typedef struct Visit {
  ExprVisit f;
  void *user;
} Visit;

static const Expr *visited(void *user, const Expr *e) {
  const Visit *const v = user;
  v->f(v->user, e);
  return e;
}

void stmt_each_expr(const Stmt *s, ExprVisit f, void *user) {
  Stmt copy = *s;
  stmt_map_exprs(&copy, visited, &(Visit){f, user});
}

/* ---- buffers ---- */
static void list_each_ref(const Step *s, RefVisit f, void *user) {
  for (; s; s = s->next) step_each_ref(s, f, user);
}

static void call_each_ref(const Step *s, RefVisit f, void *user) {
  const Kernel *const k = s->call.kernel;
  for (int i = 0, arg = 0; i < k->params.n && arg < s->call.n_args; i++)
    if (!k->params.data[i].scratch) f(user, &s->call.args[arg++], k->params.data[i].access);
}

static void extern_each_ref(const Step *s, RefVisit f, void *user) {
  for (int i = 0; i < s->ext.n_ins; i++)
    if (s->ext.ins[i].buf.buffer >= 0) f(user, &s->ext.ins[i].buf, PA_READ);
  for (int i = 0; i < s->ext.n_outs; i++)
    if (s->ext.outs[i].buf.buffer >= 0) f(user, &s->ext.outs[i].buf, PA_WRITE);
  const BufRef scratch = {.buffer = s->ext.scratch};
  if (scratch.buffer >= 0) f(user, &scratch, PA_WRITE);
}

void step_each_ref(const Step *s, RefVisit f, void *user) {
  switch (s->kind) {
    case STEP_KERNEL: call_each_ref(s, f, user); break;
    case STEP_EXTERN: extern_each_ref(s, f, user); break;
    case STEP_COPY:
      f(user, &s->copy.src, PA_READ);
      f(user, &s->copy.dst, PA_WRITE);
      break;
    case STEP_IF:
      if (s->branch.cond.buffer >= 0) f(user, &s->branch.cond, PA_READ);
      break;
    case STEP_LOOP:
      if (s->loop.cond.buffer >= 0) f(user, &s->loop.cond, PA_READ);
      break;
    case STEP_SYM:
      if (s->sym.src.buffer >= 0) f(user, &s->sym.src, PA_READ);
      break;
    case STEP_CHECK:
    case STEP_ROOM: break;
  }
  list_each_ref(step_body(s), f, user);
  list_each_ref(step_otherwise(s), f, user);
}

/* ---- copies ---- */
static const Expr *rewrite(ExprPool *p, const Expr *e, ExprRewrite leaf, void *user) {
  return e ? expr_rewrite(p, e, leaf, user) : NULL;
}

/* A loop keeps its variable unless `leaf` maps it to another variable. */
static const Expr *rewrite_var(ExprPool *p, const Expr *var, ExprRewrite leaf, void *user) {
  const Expr *const by = rewrite(p, var, leaf, user);
  return by && by->op == EX_VAR ? by : var;
}

static void rewrite_stmt(Arena *a, ExprPool *p, Stmt *s, ExprRewrite leaf, void *user) {
  switch (s->kind) {
    case ST_FOR:
      s->loop.var = rewrite_var(p, s->loop.var, leaf, user);
      s->loop.body = stmt_rewrite(a, p, s->loop.body, leaf, user);
      break;
    case ST_IF:
      s->branch.cond = rewrite(p, s->branch.cond, leaf, user);
      s->branch.then = stmt_rewrite(a, p, s->branch.then, leaf, user);
      s->branch.otherwise = stmt_rewrite(a, p, s->branch.otherwise, leaf, user);
      break;
    case ST_LOCAL: break;
    case ST_STORE:
    case ST_SET:
    case ST_ACC:
    case ST_PREFETCH:
      s->access.index = rewrite(p, s->access.index, leaf, user);
      s->access.value = rewrite(p, s->access.value, leaf, user);
      break;
  }
}

Stmt *stmt_map_list(Stmt *s, StmtMap f, void *user) {
  StmtList l = {0};
  for (Stmt *next; s; s = next) {
    next = s->next;
    s->next = NULL;
    stmt_add(&l, f(user, s));
  }
  return l.first;
}

Stmt *stmt_rewrite(Arena *a, ExprPool *p, const Stmt *s, ExprRewrite leaf, void *user) {
  StmtList l = {0};
  for (; s; s = s->next) {
    Stmt *c = arena_dup(a, s, sizeof *s);
    c->next = NULL;
    rewrite_stmt(a, p, c, leaf, user);
    stmt_add(&l, c);
  }
  return l.first;
}
