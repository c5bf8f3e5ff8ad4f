/* Building of loop IR: modules, kernels, statements, steps. Nothing is checked here (loop_verify.c
 * does that); strings that come from outside are reduced to identifiers, so that kernel names are
 * valid symbols. */
#include "ir/loop/loop.h"
#include <ctype.h>
#include <string.h>
#include "ir/expr/expr_query.h"
#include "ir/graph/op_row.h"

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

static int place_symbol(ExprPool *p, const char *stem) {
  const int id = ex_sym_fresh(p, stem)->id;
  expr_symbol(p, id)->runtime = true;
  return id;
}

Buffer *module_add_memory(Module *m, DType t, const Expr *count, const char *name) {
  ExprPool *const p = m->model->pool;
  const bool bounded = expr_upper(p, count, NULL) != NULL;
  Buffer *const b = module_add_buffer(m, bounded ? BUF_ARENA : BUF_HEAP, t, count, name);
  if (bounded) return b;
  b->address = place_symbol(p, "address");
  b->room = place_symbol(p, "room");
  return b;
}

/* A size of what the function is given is not its own. */
static bool is_given(ExprPool *p, const Step *s, const Expr *size) {
  for (int i = 0; i < s->ext.n_ins; i++)
    for (int d = 0; d < s->ext.ins[i].rank; d++)
      if (expr_contains(p, s->ext.ins[i].dims[d], size)) return true;
  return false;
}

bool extern_makes(const Module *m, const Step *s, int k) {
  const TensorRef *const t = &s->ext.outs[k];
  if (t->buf.buffer < 0 || !s->ext.row->heap || !buffer_is_heap(m, t->buf.buffer)) return false;
  for (int d = 0; d < t->rank; d++) {
    const Symbol *const s0 =
        t->dims[d]->op == EX_SYM ? expr_symbol(m->model->pool, t->dims[d]->id) : NULL;
    if (s0 && s0->runtime && !s0->bound && !is_given(m->model->pool, s, t->dims[d])) return true;
  }
  return false;
}

bool buffer_is_heap(const Module *m, int id) {
  const int root = buffer_root(m, id);
  return root >= 0 && m->buffers.data[root].kind == BUF_HEAP;
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

static Stmt *stmt_new(Arena *a, StmtKind kind) {
  Stmt *s = ARENA_NEW(a, Stmt);
  s->kind = kind;
  return s;
}

static Stmt *access_new(Arena *a, StmtKind kind, int id, const Expr *index, const Expr *value) {
  Stmt *s = stmt_new(a, kind);
  s->access.id = id;
  s->access.index = index;
  s->access.value = value;
  return s;
}

Stmt *stmt_for(Arena *a, ForKind kind, const Expr *var, Stmt *body) {
  Stmt *s = stmt_new(a, ST_FOR);
  s->loop.kind = kind;
  s->loop.var = var;
  s->loop.body = body;
  return s;
}

Stmt *stmt_store(Arena *a, int buffer, const Expr *index, const Expr *value) {
  return access_new(a, ST_STORE, buffer, index, value);
}

Stmt *stmt_local(Arena *a, int local) { return access_new(a, ST_LOCAL, local, NULL, NULL); }

Stmt *stmt_set(Arena *a, int local, const Expr *index, const Expr *value) {
  return access_new(a, ST_SET, local, index, value);
}

Stmt *stmt_acc(Arena *a, int local, const Expr *index, ReduceKind kind, const Expr *value) {
  Stmt *s = access_new(a, ST_ACC, local, index, value);
  s->access.reduce = kind;
  return s;
}

Stmt *stmt_if(Arena *a, const Expr *cond, Stmt *then, Stmt *otherwise) {
  Stmt *s = stmt_new(a, ST_IF);
  s->branch.cond = cond;
  s->branch.then = then;
  s->branch.otherwise = otherwise;
  return s;
}

Stmt *stmt_prefetch(Arena *a, int buffer, const Expr *index) {
  return access_new(a, ST_PREFETCH, buffer, index, NULL);
}

Step *step_new(Module *m, StepKind kind, const Loc *loc) {
  Step *s = ARENA_NEW(m->model->arena, Step);
  s->kind = kind;
  s->loc = loc;
  switch (kind) {
    case STEP_KERNEL:
    case STEP_CHECK: break;
    case STEP_ROOM: s->room.buffer = -1; break;
    case STEP_EXTERN: s->ext.scratch = -1; break;
    case STEP_COPY: s->copy.src.buffer = s->copy.dst.buffer = -1; break;
    case STEP_IF: s->branch.cond.buffer = -1; break;
    case STEP_LOOP: s->loop.cond.buffer = s->loop.iter = s->loop.trips = -1; break;
    case STEP_SYM: s->sym.src.buffer = s->sym.id = -1; break;
  }
  return s;
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
