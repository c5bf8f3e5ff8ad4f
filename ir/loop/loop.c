/* Building of loop IR: modules, kernels, statements, steps. Nothing is checked here (loop_verify.c
 * does that); strings that come from outside are reduced to identifiers, so that kernel names are
 * valid symbols. */
#include "ir/loop/loop.h"
#include <ctype.h>
#include <string.h>

Module *module_new(Model *m) {
  Module *mod = ARENA_NEW(m->arena, Module);
  mod->model = m;
  mod->arena_lower_bound = -1;
  mod->max_threads = 1;
  return mod;
}

Buffer *module_add_buffer(Module *m, BufferKind kind, DType t, const Expr *count,
                          const char *name) {
  const Buffer b = {.id = m->buffers.n,
                    .kind = kind,
                    .dtype = t,
                    .count = count,
                    .index = -1,
                    .base = -1,
                    .inplace_of = -1,
                    .name = name};
  vec_push(m->model->arena, &m->buffers, b);
  return &m->buffers.data[m->buffers.n - 1];
}

static const char *identifier(Arena *a, const char *stem) {
  if (!stem) stem = "kernel";
  char *s = arena_strndup(a, stem, strnlen(stem, 96));
  for (char *c = s; *c; c++)
    *c = isalnum((unsigned char)*c) ? (char)tolower((unsigned char)*c) : '_';
  return s;
}

Kernel *kernel_new(Module *m, const char *stem, const Loc *loc) {
  Arena *a = m->model->arena;
  Kernel *k = ARENA_NEW(a, Kernel);
  k->name = arena_printf(a, "k%d_%s", m->kernels.n, identifier(a, stem));
  k->loc = loc;
  vec_push(a, &m->kernels, k);
  return k;
}

int kernel_add_param(Module *m, Kernel *k, Param p) {
  vec_push(m->model->arena, &k->params, p);
  return k->params.n - 1;
}

int kernel_add_local(Module *m, Kernel *k, Local l) {
  vec_push(m->model->arena, &k->locals, l);
  return k->locals.n - 1;
}

void stmt_add(StmtList *l, Stmt *s) {
  if (!s) return;
  if (l->last)
    l->last->next = s;
  else
    l->first = s;
  while (s->next) s = s->next;
  l->last = s;
}

static Stmt *stmt_new(Arena *a, StmtKind kind, int id) {
  Stmt *s = ARENA_NEW(a, Stmt);
  s->kind = kind;
  s->id = id;
  return s;
}

Stmt *stmt_for(Arena *a, ForKind kind, const Expr *var, Stmt *body) {
  Stmt *s = stmt_new(a, ST_FOR, -1);
  s->loop = kind;
  s->var = var;
  s->body = body;
  return s;
}

Stmt *stmt_store(Arena *a, int buffer, const Expr *index, const Expr *value) {
  Stmt *s = stmt_new(a, ST_STORE, buffer);
  s->index = index;
  s->value = value;
  return s;
}

Stmt *stmt_local(Arena *a, int local) { return stmt_new(a, ST_LOCAL, local); }

Stmt *stmt_set(Arena *a, int local, const Expr *index, const Expr *value) {
  Stmt *s = stmt_store(a, local, index, value);
  s->kind = ST_SET;
  return s;
}

Stmt *stmt_acc(Arena *a, int local, const Expr *index, ReduceKind kind, const Expr *value) {
  Stmt *s = stmt_store(a, local, index, value);
  s->kind = ST_ACC;
  s->reduce = kind;
  return s;
}

Stmt *stmt_if(Arena *a, const Expr *cond, Stmt *then, Stmt *otherwise) {
  Stmt *s = stmt_new(a, ST_IF, -1);
  s->cond = cond;
  s->body = then;
  s->otherwise = otherwise;
  return s;
}

Stmt *stmt_prefetch(Arena *a, int buffer, const Expr *index) {
  Stmt *s = stmt_new(a, ST_PREFETCH, buffer);
  s->index = index;
  return s;
}

Step *step_new(Module *m, StepKind kind, const Loc *loc) {
  Step *s = ARENA_NEW(m->model->arena, Step);
  s->kind = kind;
  s->loc = loc;
  s->scratch = s->src.buffer = s->dst.buffer = s->cond.buffer = -1;
  s->iter_sym = s->trips_sym = s->sym = -1;
  return s;
}

/* A loop keeps its variable unless `leaf` maps it to another variable. */
static const Expr *rewrite_var(ExprPool *p, const Expr *var, ExprRewrite leaf, void *user) {
  const Expr *by = var ? expr_rewrite(p, var, leaf, user) : NULL;
  return by && by->op == EX_VAR ? by : var;
}

static const Expr *rewrite(ExprPool *p, const Expr *e, ExprRewrite leaf, void *user) {
  return e ? expr_rewrite(p, e, leaf, user) : NULL;
}

Stmt *stmt_rewrite(Arena *a, ExprPool *p, const Stmt *s, ExprRewrite leaf, void *user) {
  StmtList l = {0};
  for (; s; s = s->next) {
    Stmt *c = arena_dup(a, s, sizeof *s);
    c->next = NULL;
    c->var = rewrite_var(p, s->var, leaf, user);
    c->cond = rewrite(p, s->cond, leaf, user);
    c->index = rewrite(p, s->index, leaf, user);
    c->value = rewrite(p, s->value, leaf, user);
    c->body = stmt_rewrite(a, p, s->body, leaf, user);
    c->otherwise = stmt_rewrite(a, p, s->otherwise, leaf, user);
    stmt_add(&l, c);
  }
  return l.first;
}

static void list_each_ref(const Step *s, void (*f)(void *user, const BufRef *r, int access),
                          void *user) {
  for (; s; s = s->next) step_each_ref(s, f, user);
}

void step_each_ref(const Step *s, void (*f)(void *user, const BufRef *r, int access), void *user) {
  const BufRef scratch = {.buffer = s->scratch};
  switch (s->kind) {
    case STEP_KERNEL:
      for (int i = 0, arg = 0; i < s->kernel->params.n && arg < s->n_args; i++)
        if (!s->kernel->params.data[i].scratch)
          f(user, &s->args[arg++], s->kernel->params.data[i].access);
      break;
    case STEP_EXTERN:
      for (int i = 0; i < s->n_ins; i++)
        if (s->ins[i].buf.buffer >= 0) f(user, &s->ins[i].buf, PA_READ);
      for (int i = 0; i < s->n_outs; i++)
        if (s->outs[i].buf.buffer >= 0) f(user, &s->outs[i].buf, PA_WRITE);
      if (s->scratch >= 0) f(user, &scratch, PA_WRITE);
      break;
    case STEP_COPY:
      f(user, &s->src, PA_READ);
      f(user, &s->dst, PA_WRITE);
      break;
    case STEP_IF:
    case STEP_LOOP:
      if (s->cond.buffer >= 0) f(user, &s->cond, PA_READ);
      list_each_ref(s->body, f, user);
      list_each_ref(s->otherwise, f, user);
      break;
    case STEP_SYM:
      if (s->src.buffer >= 0) f(user, &s->src, PA_READ);
      break;
    case STEP_CHECK: break;
  }
}

/* ---- questions about buffers ---- */

int buffer_root(const Module *m, int id) {
  for (int hops = 0; hops <= m->buffers.n; hops++) {
    if (id < 0 || id >= m->buffers.n) return -1;
    if (m->buffers.data[id].kind != BUF_VIEW) return id;
    id = m->buffers.data[id].base;
  }
  return -1;
}

bool write_is_whole(const Module *m, const BufRef *r, const Expr *count) {
  const Buffer *b = &m->buffers.data[r->buffer];
  return b->kind != BUF_VIEW && (!r->offset || expr_is_i64(r->offset, 0)) && count == b->count;
}
