/* Makes plain loops of grids of blocks, for machines without blocks: the outermost block loop
 * becomes the parallel loop, the others and the thread loops run one iteration after the other.
 * Shared memory becomes scratch, as do locals that threads keep over barriers, with a copy for each
 * thread. Sums are taken in the order of the interpreter: vector loops become plain ones, too. */
#include "passes/pass.h"

typedef struct Renamed { /* a loop whose bounds read such locals */
  const Expr *from, *to;
} Renamed;

typedef struct Serial {
  Arena *a;
  ExprPool *p;
  Module *m;
  Kernel *k;
  const Local *locals; /* as they were */
  const bool *private; /* by local, as they were */
  int *param;          /* by local: the scratch parameter that it becomes, or -1 */
  int *local;          /* by local: its new number; of one that goes: a register for sums, or -1 */
  const Expr *thread;  /* number of the running thread; NULL: outside of thread loops */
  Vec(Renamed) renamed;
} Serial;

static Stmt *serial_list(Serial *t, const Stmt *s);

/* ---- locals ---- */
static int scratch_for(Serial *t, int local, int64_t threads) {
  const Local *const l = &t->locals[local];
  const int64_t copies = t->private[local] && threads ? threads : 1;
  return kernel_add_param(t->m, t->k,
                          (Param){.name = l->name,
                                  .dtype = l->dtype,
                                  .count = ex_i64(t->p, l->count * copies),
                                  .access = PA_READWRITE,
                                  .scratch = true,
                                  .align = 64});
}

static void place_locals(Serial *t, Arena *scratch) {
  const int n = t->k->locals.n;
  const int64_t threads = kernel_threads(t->p, t->k);
  t->private = kernel_private_locals(scratch, t->k);
  t->locals = arena_dup(scratch, t->k->locals.data, sizeof(Local) * (size_t)n);
  t->param = ARENA_ARRAY(scratch, int, n + 1);
  t->local = ARENA_ARRAY(scratch, int, n + 1);
  t->k->locals.n = 0;
  for (int i = 0; i < n; i++) {
    const Local *const l = &t->locals[i];
    const bool goes = l->memory == MEM_SHARED || t->private[i];
    t->param[i] = goes ? scratch_for(t, i, threads) : -1;
    t->local[i] = goes ? -1 : kernel_add_local(t->m, t->k, *l);
  }
}

static int sum_of(Serial *t, int local) {
  const Local sum = {.name = t->locals[local].name,
                     .dtype = t->locals[local].dtype,
                     .count = 1,
                     .memory = MEM_REGS};
  if (t->local[local] < 0) t->local[local] = kernel_add_local(t->m, t->k, sum);
  return t->local[local];
}

/* Where the running thread has its element. */
static const Expr *place(const Serial *t, int local, const Expr *index) {
  if (!t->private[local]) return index;
  return ex_add(t->p, ex_mul(t->p, t->thread, ex_i64(t->p, t->locals[local].count)), index);
}

static const Expr *read_local(const Serial *t, int local, const Expr *index) {
  const DType type = t->locals[local].dtype;
  return t->param[local] < 0 ? ex_local(t->p, type, t->local[local], index)
                             : ex_load(t->p, type, t->param[local], place(t, local, index), NULL);
}

static const Expr *leaf(void *user, const Expr *e) {
  const Serial *const t = user;
  if (e->op == EX_LOCAL) return read_local(t, e->id, e->a[0]);
  for (int i = t->renamed.n - 1; e->op == EX_VAR && i >= 0; i--)
    if (t->renamed.data[i].from == e) return t->renamed.data[i].to;
  return NULL;
}

static const Expr *serial_expr(Serial *t, const Expr *e) {
  return e ? expr_rewrite(t->p, e, leaf, t) : NULL;
}

/* ---- statements ---- */
static Stmt *serial_loop(Serial *t, const Stmt *s, ForKind kind) {
  const Expr *const var = s->loop.var, *const lo = expr_var_lo(t->p, var->id),
                    *const extent = expr_var_extent(t->p, var->id);
  const Expr *const new_lo = serial_expr(t, lo), *const new_extent = serial_expr(t, extent);
  Renamed r = {var, var};
  if (new_lo != lo || new_extent != extent)
    r.to = ex_var_named(t->p, expr_var_name(t->p, var->id), new_lo, new_extent);
  vec_push(t->a, &t->renamed, r);
  Stmt *const body = serial_list(t, s->loop.body);
  t->renamed.n--;
  return stmt_for(t->a, kind, r.to, body);
}

/* The innermost loop counts fastest. */
static Stmt *thread_loop(Serial *t, const Stmt *s) {
  const Expr *const outer = t->thread, *const var = s->loop.var;
  const Expr *const before = outer ? outer : ex_i64(t->p, 0);
  t->thread = ex_add(t->p, ex_mul(t->p, before, expr_var_extent(t->p, var->id)), var);
  Stmt *const out = serial_loop(t, s, FOR_SERIAL);
  t->thread = outer;
  return out;
}

/* Lanes may have elements of registers, whose indices must be constants. */
static bool is_short(const Serial *t, const Expr *var) {
  enum { MOST = 16 };
  int64_t n;
  return expr_is_const(expr_var_extent(t->p, var->id), &n) && n <= MOST;
}

static Stmt *for_loop(Serial *t, const Stmt *s) {
  switch (s->loop.kind) {
    case FOR_THREAD: return thread_loop(t, s);
    case FOR_UNROLL: return serial_loop(t, s, FOR_UNROLL);
    case FOR_VECTOR:
      return serial_loop(t, s, is_short(t, s->loop.var) ? FOR_UNROLL : FOR_SERIAL);
    default: return serial_loop(t, s, FOR_SERIAL);
  }
}

/* An accumulation in scratch goes through a register: it rounds once where a product is added. */
static Stmt *accumulate(Serial *t, const Stmt *s) {
  const int id = s->access.id, sum = sum_of(t, id);
  const DType type = t->locals[id].dtype;
  const Expr *const index = serial_expr(t, s->access.index), *const zero = ex_i64(t->p, 0);
  StmtList l = {0};
  stmt_add(&l, stmt_local(t->a, sum));
  stmt_add(&l, stmt_set(t->a, sum, zero, read_local(t, id, index)));
  stmt_add(&l, stmt_acc(t->a, sum, zero, s->access.reduce, serial_expr(t, s->access.value)));
  stmt_add(&l,
           stmt_store(t->a, t->param[id], place(t, id, index), ex_local(t->p, type, sum, zero)));
  return l.first;
}

static Stmt *assign(Serial *t, const Stmt *s) {
  const int id = s->access.id;
  const bool goes = t->param[id] >= 0;
  if (goes && s->kind == ST_LOCAL) return NULL;
  if (goes && s->kind == ST_ACC) return accumulate(t, s);
  const Expr *const index = serial_expr(t, s->access.index), *const value =
                                                                 serial_expr(t, s->access.value);
  if (goes) return stmt_store(t->a, t->param[id], place(t, id, index), value);
  Stmt *const out = arena_dup(t->a, s, sizeof *s);
  out->next = NULL;
  out->access.id = t->local[id];
  out->access.index = index;
  out->access.value = value;
  return out;
}

static Stmt *serial_stmt(Serial *t, const Stmt *s) {
  switch (s->kind) {
    case ST_FOR: return for_loop(t, s);
    case ST_IF:
      return stmt_if(t->a, serial_expr(t, s->branch.cond), serial_list(t, s->branch.then),
                     serial_list(t, s->branch.otherwise));
    case ST_LOCAL:
    case ST_SET:
    case ST_ACC: return assign(t, s);
    case ST_STORE:
      return stmt_store(t->a, s->access.id, serial_expr(t, s->access.index),
                        serial_expr(t, s->access.value));
    case ST_PREFETCH: return stmt_prefetch(t->a, s->access.id, serial_expr(t, s->access.index));
  }
  return NULL;
}

static Stmt *serial_list(Serial *t, const Stmt *s) {
  StmtList l = {0};
  for (; s; s = s->next) stmt_add(&l, serial_stmt(t, s));
  return l.first;
}

bool pass_serialize_threads(PassCtx *c) {
  Module *const m = c->module;
  if (target_has_grids(c->target)) return true;
  for (int i = 0; i < m->kernels.n; i++) {
    Kernel *const k = m->kernels.data[i];
    if (!kernel_is_grid(k)) continue;
    Serial t = {.a = m->model->arena, .p = m->model->pool, .m = m, .k = k};
    place_locals(&t, c->scratch);
    k->body = serial_loop(&t, k->body, FOR_PARALLEL);
    c->changed = true;
  }
  return true;
}
