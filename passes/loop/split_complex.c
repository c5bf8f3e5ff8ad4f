/* Complex numbers of 128 bits become pairs of 64-bit integers: they are only moved, and no element that
 * a kernel loads, stores or holds is wider than 64 bits. Buffers count twice as many elements; runtime
 * functions are told of the tensors as they were. Needs nothing; code generation and the interpreter
 * need it. */
#include "passes/pass.h"

typedef struct Split {
  Module *m;
  ExprPool *p;
  Arena *a;
  const Kernel *k; /* whose statements are rewritten; its parameters have their new types */
  bool *was_wide;  /* by parameter */
  bool *wide;      /* by buffer */
  int half;
  bool ok;
} Split;

static const Expr *twice(const Split *s, const Expr *e) {
  return e ? ex_mul(s->p, e, ex_i64(s->p, 2)) : NULL;
}

static const Expr *half_index(const Split *s, const Expr *e) {
  return ex_add(s->p, twice(s, e), ex_i64(s->p, s->half));
}

/* Half s->half of e, which only chooses among elements of memory. */
static const Expr *half_of(Split *s, const Expr *e) {
  switch ((int)e->op) {
    case EX_LOAD:
      return ex_load(s->p, DT_I64, e->id, half_index(s, e->a[0]), e->nargs > 1 ? e->a[1] : NULL);
    case EX_select: return ex_select(s->p, e->a[0], half_of(s, e->a[1]), half_of(s, e->a[2]));
    case EX_CONST:
      if (e->k.i == 0) return ex_i64(s->p, 0);
      break;
    default: break;
  }
  s->ok = false;
  diag_internal(s->m->model->diag, s->k->loc, "%s computes with complex numbers: %s", s->k->name,
                expr_text(s->p, e));
  return ex_i64(s->p, 0);
}

static Stmt *half_store(Split *s, const Stmt *store, int half) {
  s->half = half;
  return stmt_store(s->a, store->access.id, half_index(s, store->access.index),
                    half_of(s, store->access.value));
}

/* Lanes would store at a stride: pairs are moved one by one. */
static Stmt *split_stmt(void *user, Stmt *t) {
  Split *const s = user;
  StmtList both = {0};
  switch (t->kind) {
    case ST_FOR:
      if (t->loop.kind == FOR_VECTOR) t->loop.kind = FOR_SERIAL;
      t->loop.body = stmt_map_list(t->loop.body, split_stmt, s);
      return t;
    case ST_IF:
      t->branch.then = stmt_map_list(t->branch.then, split_stmt, s);
      t->branch.otherwise = stmt_map_list(t->branch.otherwise, split_stmt, s);
      return t;
    case ST_STORE:
      if (!s->was_wide[t->access.id]) return t;
      stmt_add(&both, half_store(s, t, 0));
      stmt_add(&both, half_store(s, t, 1));
      return both.first;
    default: return t;
  }
}

static void split_kernel(Split *s, Kernel *k) {
  bool any = false;
  s->k = k;
  s->was_wide = ARENA_ARRAY(s->a, bool, k->params.n + 1);
  for (int i = 0; i < k->params.n; i++) {
    Param *q = &k->params.data[i];
    if (q->dtype != DT_C128) continue;
    any = s->was_wide[i] = true;
    q->dtype = DT_I64;
    q->count = twice(s, q->count);
  }
  if (any) k->body = stmt_map_list(k->body, split_stmt, s);
}

static BufRef split_ref(const Split *s, BufRef r) {
  if (r.buffer >= 0 && s->wide[r.buffer]) r.offset = twice(s, r.offset);
  return r;
}

static const TensorRef *split_tensors(const Split *s, const TensorRef *t, int n) {
  TensorRef *const to = arena_dup(s->a, t, sizeof *t * (size_t)n);
  for (int i = 0; i < n; i++) to[i].buf = split_ref(s, t[i].buf);
  return to;
}

static bool split_step(void *user, Step *t) {
  const Split *s = user;
  if (t->kind == STEP_KERNEL) {
    BufRef *const args = arena_dup(s->a, t->call.args, sizeof *args * (size_t)t->call.n_args);
    for (int i = 0; i < t->call.n_args; i++) args[i] = split_ref(s, args[i]);
    t->call.args = args;
  } else if (t->kind == STEP_EXTERN) {
    t->ext.ins = split_tensors(s, t->ext.ins, t->ext.n_ins);
    t->ext.outs = split_tensors(s, t->ext.outs, t->ext.n_outs);
  } else if (t->kind == STEP_COPY && s->wide[t->copy.src.buffer]) {
    t->copy.count = twice(s, t->copy.count);
    t->copy.src = split_ref(s, t->copy.src);
    t->copy.dst = split_ref(s, t->copy.dst);
  } else if (t->kind == STEP_ROOM && s->wide[t->room.buffer]) {
    t->room.count = twice(s, t->room.count);
    t->room.keep = twice(s, t->room.keep);
  }
  return true;
}

static bool split_buffers(Split *s) {
  bool any = false;
  s->wide = ARENA_ARRAY(s->a, bool, s->m->buffers.n + 1);
  for (int i = 0; i < s->m->buffers.n; i++) {
    Buffer *b = &s->m->buffers.data[i];
    if (b->dtype != DT_C128) continue;
    any = s->wide[i] = true;
    b->dtype = DT_I64;
    b->count = twice(s, b->count);
    if (b->kind == BUF_VIEW) b->offset = twice(s, b->offset);
  }
  return any;
}

bool pass_split_complex(PassCtx *c) {
  Module *m = c->module;
  Split s = {.m = m, .p = m->model->pool, .a = m->model->arena, .ok = true};
  if (!split_buffers(&s)) return true;
  c->changed = true;
  for (int i = 0; i < m->kernels.n; i++) split_kernel(&s, m->kernels.data[i]);
  step_each(m->steps, split_step, &s);
  return s.ok;
}
