/* Verifier of loop IR: what every pass may rely on. Reports the first fault of each kernel or step,
 * as an internal error that names the pass. Reductions may remain in expressions: kernel_has_reduce
 * tells. */
#include "ir/graph/op_row.h"
#include "ir/loop/loop.h"
#include "ir/loop/matrix.h"
#include "ir/loop/mma.h"

typedef struct SeenSet { /* expressions already checked in the current scope of variables */
  const Expr **slot;
  int cap, n;
} SeenSet;

typedef struct Check {
  const Module *m;
  const Kernel *k; /* NULL: outside of kernels */
  Arena *a;
  ExprPool *p;
  const char *pass;
  Vec(int) vars;   /* ids of open loops and reductions */
  Vec(bool) fixed; /* the loop is unrolled, a vector or of a matrix */
  int *declared;   /* by local: declarations that are in scope */
  SeenSet seen;
  int vector_depth, parallel;
  bool guarded;
  bool in_matrix;      /* a matrix loop is open */
  const Expr *threads; /* the innermost thread loop that is open, or NULL */
} Check;

static bool fail(const Check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(const Check *c, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *text = arena_vprintf(c->a, fmt, ap);
  va_end(ap);
  return diag_internal(c->m->model->diag, c->k ? c->k->loc : NULL, "%s%s%s%s: %s",
                       c->pass ? "after " : "", c->pass ? c->pass : "", c->pass ? ": " : "",
                       c->k ? c->k->name : "module", text);
}

/* ---- expressions ---- */
static bool seen_add(Check *c, const Expr *e) {
  SeenSet *s = &c->seen;
  if (2 * s->n >= s->cap) {
    const SeenSet old = *s;
    s->cap = old.cap ? 2 * old.cap : 64;
    s->slot = ARENA_ARRAY(c->a, const Expr *, s->cap);
    s->n = 0;
    for (int i = 0; i < old.cap; i++)
      if (old.slot[i]) seen_add(c, old.slot[i]);
  }
  int i = (int)((e->uid * 2654435769u) & (unsigned)(s->cap - 1));
  while (s->slot[i] && s->slot[i] != e) i = (i + 1) & (s->cap - 1);
  if (s->slot[i]) return false;
  s->slot[i] = e;
  s->n++;
  return true;
}

static bool var_is_open(const Check *c, int id) {
  for (int i = 0; i < c->vars.n; i++)
    if (c->vars.data[i] == id) return true;
  return false;
}

static bool check_expr(Check *c, const Expr *e);

static bool check_size(Check *c, const Expr *e, const char *what) {
  if (!e || e->dtype != DT_I64) return fail(c, "%s is not an i64 expression", what);
  return check_expr(c, e);
}

/* Sizes outside of kernels: symbols only. */
static bool check_symbolic(Check *c, const Expr *e, const char *what) {
  if (e && (e->flags & ~EXF_SYM)) return fail(c, "%s uses more than symbols", what);
  return check_size(c, e, what);
}

static bool is_loose_var(void *user, const Expr *e) {
  const Check *c = user;
  for (int i = 0; e->op == EX_VAR && i < c->vars.n; i++)
    if (c->vars.data[i] == e->id) return !c->fixed.data[i];
  return e->op == EX_VAR;
}

static bool is_register_index(Check *c, const Expr *e) {
  return !(e->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE | EXF_SYM)) &&
         !expr_any(e, EXF_VAR, is_loose_var, c);
}

static bool check_local(Check *c, int id, const Expr *index) {
  if (!c->k || id < 0 || id >= c->k->locals.n) return fail(c, "there is no local t%d", id);
  if (!c->declared[id]) return fail(c, "local t%d is used outside of its block", id);
  const Local *l = &c->k->locals.data[id];
  int64_t i = 0;
  if (expr_is_const(index, &i) && (i < 0 || i >= l->count))
    return fail(c, "t%d[%lld] is outside of it", id, (long long)i);
  if (l->memory == MEM_MATRIX && !c->in_matrix)
    return fail(c, "matrix register t%d is used outside of matrix loops", id);
  if (l->memory == MEM_REGS && !is_register_index(c, index))
    return fail(c, "register local t%d has the index %s", id, expr_text(c->p, index));
  return check_size(c, index, "index of a local");
}

static bool check_param(Check *c, int id, ParamAccess how) {
  if (!c->k || id < 0 || id >= c->k->params.n) return fail(c, "there is no parameter b%d", id);
  const Param *q = &c->k->params.data[id];
  if (!(q->access & how) && !q->scratch)
    return fail(c, "parameter b%d is accessed in a way it does not declare", id);
  return true;
}

static bool check_load(Check *c, const Expr *e) {
  if (!check_param(c, e->id, PA_READ)) return false;
  if (e->dtype != c->k->params.data[e->id].dtype)
    return fail(c, "load of b%d has another type than it", e->id);
  if (e->nargs > 1 && e->a[1] && e->a[1]->dtype != DT_BOOL)
    return fail(c, "guard of b%d is not bool", e->id);
  return e->a[0]->dtype == DT_I64 || fail(c, "index of b%d is not i64", e->id);
}

static bool check_reduce(Check *c, const Expr *e) {
  if (var_is_open(c, e->id))
    return fail(c, "variable %s is bound twice", expr_var_name(c->p, e->id));
  if (!check_size(c, expr_var_extent(c->p, e->id), "extent")) return false;
  const SeenSet outer = c->seen;
  c->seen = (SeenSet){0};
  vec_push(c->a, &c->vars, e->id);
  vec_push(c->a, &c->fixed, false);
  const bool ok = check_expr(c, e->a[0]);
  c->vars.n--;
  c->fixed.n--;
  c->seen = outer;
  return ok;
}

static bool check_expr(Check *c, const Expr *e) {
  if (!seen_add(c, e)) return true;
  switch (e->op) {
    case EX_HOLE: return fail(c, "a hole is left");
    case EX_VAR:
      return var_is_open(c, e->id) ||
             fail(c, "variable %s has no loop", expr_var_name(c->p, e->id));
    case EX_SYM:
      return (e->id >= 0 && e->id < expr_symbol_count(c->p)) || fail(c, "unknown symbol");
    case EX_REDUCE: return check_reduce(c, e);
    case EX_LOAD:
      if (!check_load(c, e)) return false;
      break;
    case EX_LOCAL:
      if (!check_local(c, e->id, e->a[0])) return false;
      if (e->dtype != c->k->locals.data[e->id].dtype)
        return fail(c, "t%d is read as another type", e->id);
      break;
    default: break;
  }
  for (int i = 0; i < e->nargs; i++) {
    const DType want = expr_arg_type((ExprOp)e->op, i);
    if (want != DT_NONE && e->a[i]->dtype != want)
      return fail(c, "argument %d of a dot is not %s", i, dtype_text(want));
  }
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i] && !check_expr(c, e->a[i])) return false;
  return true;
}

/* ---- statements ---- */
static bool check_block(Check *c, const Stmt *s, int level);

static const char *matrix_problem(Check *c, const Stmt *s) {
  MatrixOp op;
  MatrixMma mma;
  return c->threads ? matrix_mma(c->p, c->k, s, c->threads, &mma) : matrix_op(c->p, c->k, s, &op);
}

static bool check_kind(Check *c, const Stmt *s, int level) {
  int64_t n = 0;
  const bool constant = expr_is_const(expr_var_extent(c->p, s->loop.var->id), &n);
  if (s->loop.kind == FOR_UNROLL && !constant)
    return fail(c, "an unrolled loop has no constant extent");
  if (s->loop.kind == FOR_VECTOR && c->vector_depth) return fail(c, "vector loops are nested");
  if (s->loop.kind == FOR_MATRIX && !c->in_matrix) {
    const char *const wrong = matrix_problem(c, s);
    if (wrong) return fail(c, "matrix loops that are none: %s", wrong);
    if (c->vector_depth) return fail(c, "matrix loops in a vector loop");
  }
  if (s->loop.kind != FOR_PARALLEL) return true;
  if (level || c->parallel++) return fail(c, "a parallel loop that is not the only one, outermost");
  return !(s->next || s != c->k->body) || fail(c, "a parallel loop is not the only top statement");
}

static bool is_fixed(ForKind k) { return k == FOR_UNROLL || k == FOR_VECTOR || k == FOR_MATRIX; }

static bool check_for(Check *c, const Stmt *s, int level) {
  if (!s->loop.var || s->loop.var->op != EX_VAR) return fail(c, "a loop has no variable");
  if (var_is_open(c, s->loop.var->id))
    return fail(c, "variable %s is bound twice", expr_var_name(c->p, s->loop.var->id));
  const Expr *lo = expr_var_lo(c->p, s->loop.var->id);
  if ((lo && !check_size(c, lo, "lower bound")) ||
      !check_size(c, expr_var_extent(c->p, s->loop.var->id), "extent"))
    return false;
  if (!check_kind(c, s, level)) return false;
  vec_push(c->a, &c->vars, s->loop.var->id);
  vec_push(c->a, &c->fixed, is_fixed(s->loop.kind));
  c->vector_depth += s->loop.kind == FOR_VECTOR;
  const bool outside = !c->in_matrix;
  const Expr *const threads = c->threads;
  if (s->loop.kind == FOR_THREAD) c->threads = s->loop.var;
  c->in_matrix = s->loop.kind == FOR_MATRIX;
  const bool ok = check_block(c, s->loop.body, level + 1);
  if (outside) c->in_matrix = false;
  c->threads = threads;
  c->vector_depth -= s->loop.kind == FOR_VECTOR;
  c->vars.n--;
  c->fixed.n--;
  return ok;
}

static bool check_write(Check *c, const Stmt *s) {
  if (!s->access.index || !s->access.value) return fail(c, "a write lacks index or value");
  if (!check_size(c, s->access.index, "index") || !check_expr(c, s->access.value)) return false;
  if (s->kind == ST_STORE) {
    if (!check_param(c, s->access.id, PA_WRITE)) return false;
    return s->access.value->dtype == c->k->params.data[s->access.id].dtype ||
           fail(c, "store to b%d of another type than it has", s->access.id);
  }
  if (!check_local(c, s->access.id, s->access.index)) return false;
  return s->access.value->dtype == c->k->locals.data[s->access.id].dtype ||
         fail(c, "write to t%d of another type than it has", s->access.id);
}

static bool check_stmt(Check *c, const Stmt *s, int level) {
  switch (s->kind) {
    case ST_FOR: return check_for(c, s, level);
    case ST_IF:
      if (!s->branch.cond || s->branch.cond->dtype != DT_BOOL)
        return fail(c, "a condition is not bool");
      return check_expr(c, s->branch.cond) && check_block(c, s->branch.then, level + 1) &&
             check_block(c, s->branch.otherwise, level + 1);
    case ST_LOCAL:
      if (s->access.id < 0 || s->access.id >= c->k->locals.n)
        return fail(c, "there is no local t%d", s->access.id);
      c->declared[s->access.id]++;
      return true;
    case ST_PREFETCH:
      return check_param(c, s->access.id, PA_READWRITE) && check_size(c, s->access.index, "index");
    default: return check_write(c, s);
  }
}

static bool check_block(Check *c, const Stmt *first, int level) {
  bool ok = true;
  for (const Stmt *s = first; s && ok; s = s->next) {
    c->seen = (SeenSet){0}; /* what is in scope differs from statement to statement */
    ok = check_stmt(c, s, level);
  }
  for (const Stmt *s = first; s && ok; s = s->next)
    if (s->kind == ST_LOCAL) c->declared[s->access.id]--;
  return ok;
}

static bool check_signature(Check *c) {
  const Expr *flops = c->k->flops;
  if (flops && (flops->dtype != DT_I64 || flops->flags & ~EXF_SYM))
    return fail(c, "flops use more than symbols");
  for (int i = 0; i < c->k->params.n; i++) {
    const Param *q = &c->k->params.data[i];
    if (q->dtype <= DT_NONE || q->dtype >= DT_COUNT) return fail(c, "parameter b%d has no type", i);
    if (q->count && q->count->flags & ~EXF_SYM)
      return fail(c, "count of b%d uses more than symbols", i);
    if (!check_size(c, q->count, "count of a parameter")) return false;
    if (q->align < 1 || (q->align & (q->align - 1)))
      return fail(c, "parameter b%d has the alignment %d", i, q->align);
  }
  for (int i = 0; i < c->k->locals.n; i++) {
    const Local *l = &c->k->locals.data[i];
    if (l->dtype <= DT_NONE || l->dtype >= DT_COUNT) return fail(c, "local t%d has no type", i);
    if (l->count < 1 || l->count > (1 << 26))
      return fail(c, "local t%d has %lld elements", i, (long long)l->count);
  }
  return true;
}

static bool check_kernel(Check *c, const Kernel *k) {
  c->k = k;
  c->parallel = 0;
  c->declared = ARENA_ARRAY(c->a, int, k->locals.n + 1);
  const bool ok =
      check_signature(c) && check_block(c, k->body, 0) && kernel_verify_grid(c->m, k, c->pass);
  c->k = NULL;
  c->seen = (SeenSet){0};
  return ok;
}

/* ---- has a reduction ---- */
static void see_reduce(void *user, const Expr *e) { *(bool *)user |= (e->flags & EXF_REDUCE) != 0; }

static bool has_no_reduce(void *user, Stmt *s) {
  stmt_each_expr(s, see_reduce, user);
  return !*(bool *)user;
}

bool kernel_has_reduce(const Kernel *k) {
  bool found = false;
  return !stmt_each(k->body, has_no_reduce, &found);
}

/* ---- buffers and steps ---- */
static bool check_view(Check *c, const Buffer *b) {
  const Buffer *base = NULL;
  for (int id = b->id, hops = 0; c->m->buffers.data[id].kind == BUF_VIEW; hops++) {
    id = c->m->buffers.data[id].base;
    if (id < 0 || id >= c->m->buffers.n || hops > c->m->buffers.n)
      return fail(c, "view b%d lies in no buffer", b->id);
    if (!base) base = &c->m->buffers.data[id];
  }
  if (dtype_bytes(base->dtype) != dtype_bytes(b->dtype))
    return fail(c, "view b%d has elements of another size", b->id);
  const Expr *zero = ex_i64(c->p, 0), *offset = b->offset ? b->offset : zero;
  if (!check_symbolic(c, offset, "offset of a view")) return false;
  int64_t lo = 0, hi = 0, over = 0;
  if (expr_is_const(offset, &lo) && lo < 0)
    return fail(c, "view b%d begins before its buffer", b->id);
  const Expr *rest = ex_sub(c->p, base->count, ex_add(c->p, offset, b->count));
  if (expr_is_const(rest, &over) && over < 0)
    return fail(c, "view b%d ends behind its buffer", b->id);
  return !expr_range(c->p, rest, &lo, &hi) || hi >= 0 ||
         fail(c, "view b%d ends behind its buffer", b->id);
}

static bool check_buffer(Check *c, const Buffer *b, int id) {
  if (b->id != id) return fail(c, "buffer b%d is at position %d", b->id, id);
  if (b->dtype <= DT_NONE || b->dtype >= DT_COUNT) return fail(c, "buffer b%d has no type", id);
  if (!check_symbolic(c, b->count, "count of a buffer")) return false;
  if (b->inplace_of >= c->m->buffers.n) return fail(c, "b%d takes the place of no buffer", id);
  if (b->kind == BUF_WEIGHT && !b->data) return fail(c, "weight b%d has no data", id);
  if (b->kind == BUF_INPUT && b->data && b->data->dtype != b->dtype)
    return fail(c, "the default of b%d has another type", id);
  if (b->kind == BUF_UNSET && (b->dtype != DT_BOOL || !expr_is_i64(b->count, 1)))
    return fail(c, "b%d is not one bool", id);
  if (b->kind == BUF_ARENA && b->offset && !check_symbolic(c, b->offset, "offset")) return false;
  const int n_syms = expr_symbol_count(c->p);
  if (b->kind == BUF_HEAP &&
      (b->address < 0 || b->room < 0 || b->address >= n_syms || b->room >= n_syms))
    return fail(c, "b%d has no symbols for its place", id);
  if ((b->kind == BUF_INPUT || b->kind == BUF_OUTPUT) && b->index < 0)
    return fail(c, "b%d has no position", id);
  return b->kind != BUF_VIEW || check_view(c, b);
}

static bool check_ref(Check *c, const BufRef *r, bool write) {
  if (r->buffer < 0 || r->buffer >= c->m->buffers.n)
    return fail(c, "a step uses buffer %d, which does not exist", r->buffer);
  int root = r->buffer;
  while (c->m->buffers.data[root].kind == BUF_VIEW) root = c->m->buffers.data[root].base;
  const BufferKind kind = c->m->buffers.data[root].kind;
  if (write && kind != BUF_OUTPUT && kind != BUF_ARENA && kind != BUF_HEAP)
    return fail(c, "a step writes to b%d, which is constant", r->buffer);
  return !r->offset || check_symbolic(c, r->offset, "offset of an argument");
}

static bool check_call(Check *c, const Step *s) {
  if (!s->call.kernel) return fail(c, "a call has no kernel");
  int arg = 0;
  for (int i = 0; i < s->call.kernel->params.n; i++) {
    const Param *q = &s->call.kernel->params.data[i];
    if (q->scratch) continue;
    if (arg >= s->call.n_args) return fail(c, "call of %s lacks arguments", s->call.kernel->name);
    const BufRef *r = &s->call.args[arg++];
    if (!check_ref(c, r, q->access & PA_WRITE)) return false;
    if (c->m->buffers.data[r->buffer].dtype != q->dtype)
      return fail(c, "call of %s: argument %d has another type than the parameter",
                  s->call.kernel->name, arg - 1);
  }
  return arg == s->call.n_args ||
         fail(c, "call of %s has too many arguments", s->call.kernel->name);
}

static bool check_tensors(Check *c, const TensorRef *t, int n, bool write) {
  for (int i = 0; i < n; i++) {
    if (t[i].buf.buffer < 0) continue;
    if (!check_ref(c, &t[i].buf, write)) return false;
    for (int k = 0; k < t[i].rank; k++)
      if (!check_symbolic(c, t[i].dims[k], "dimension of a tensor")) return false;
  }
  return true;
}

static bool check_sym_id(Check *c, int id) {
  return (id >= 0 && id < expr_symbol_count(c->p)) ||
         fail(c, "a step names symbol %d, which does not exist", id);
}

static bool check_steps(Check *c, const Step *s, int depth);

static bool check_step(Check *c, const Step *s, int depth) {
  switch (s->kind) {
    case STEP_KERNEL: return check_call(c, s);
    case STEP_EXTERN:
      if (!s->ext.row) return fail(c, "a step has no runtime function");
      if (s->ext.scratch >= 0 && !check_ref(c, &(BufRef){.buffer = s->ext.scratch}, true))
        return false;
      return check_tensors(c, s->ext.ins, s->ext.n_ins, false) &&
             check_tensors(c, s->ext.outs, s->ext.n_outs, true);
    case STEP_COPY:
      if (!check_ref(c, &s->copy.src, false) || !check_ref(c, &s->copy.dst, true)) return false;
      if (c->m->buffers.data[s->copy.src.buffer].dtype !=
          c->m->buffers.data[s->copy.dst.buffer].dtype)
        return fail(c, "a copy changes the type");
      return check_symbolic(c, s->copy.count, "count of a copy");
    case STEP_IF:
      return check_ref(c, &s->branch.cond, false) && check_steps(c, s->branch.then, depth + 1) &&
             check_steps(c, s->branch.otherwise, depth + 1);
    case STEP_LOOP:
      if (s->loop.cond.buffer >= 0 && !check_ref(c, &s->loop.cond, false)) return false;
      if (s->loop.trip && !check_symbolic(c, s->loop.trip, "trip count")) return false;
      if (s->loop.cond.buffer < 0 && !s->loop.trip) return fail(c, "a loop never ends");
      if ((s->loop.iter >= 0 && !check_sym_id(c, s->loop.iter)) ||
          (s->loop.trips >= 0 && !check_sym_id(c, s->loop.trips)))
        return false;
      return check_steps(c, s->loop.body, depth + 1);
    case STEP_SYM:
      if (!check_sym_id(c, s->sym.id)) return false;
      if ((s->sym.lo && !check_symbolic(c, s->sym.lo, "bound of a symbol")) ||
          (s->sym.hi && !check_symbolic(c, s->sym.hi, "bound of a symbol")))
        return false;
      return s->sym.src.buffer >= 0 ? check_ref(c, &s->sym.src, false)
                                    : check_symbolic(c, s->sym.value, "value of a symbol");
    case STEP_CHECK:
      return check_symbolic(c, s->check.a, "checked size") &&
             check_symbolic(c, s->check.b, "bound of a check");
    case STEP_ROOM:
      if (s->room.buffer < 0 || s->room.buffer >= c->m->buffers.n ||
          c->m->buffers.data[s->room.buffer].kind != BUF_HEAP)
        return fail(c, "a step makes room in b%d, which is not in the heap", s->room.buffer);
      return check_symbolic(c, s->room.count, "size of a buffer") &&
             (!s->room.keep || check_symbolic(c, s->room.keep, "size of a buffer"));
  }
  return fail(c, "unknown step");
}

static bool check_steps(Check *c, const Step *s, int depth) {
  if (depth > 100) return fail(c, "steps are nested too deep");
  for (; s; s = s->next) {
    c->seen = (SeenSet){0};
    if (!check_step(c, s, depth)) return false;
  }
  return true;
}

static Check check_new(const Module *m, const char *after_pass) {
  return (Check){
      .m = m, .a = arena_child(m->model->arena), .p = m->model->pool, .pass = after_pass};
}

bool kernel_verify(const Module *m, const Kernel *k, const char *after_pass) {
  Check c = check_new(m, after_pass);
  const bool ok = check_kernel(&c, k);
  arena_free(c.a);
  return ok;
}

bool module_verify(const Module *m, const char *after_pass) {
  Check c = check_new(m, after_pass);
  bool ok = true;
  for (int i = 0; i < m->buffers.n; i++) ok = check_buffer(&c, &m->buffers.data[i], i) && ok;
  for (int i = 0; i < m->kernels.n; i++) ok = check_kernel(&c, m->kernels.data[i]) && ok;
  ok = ok && check_steps(&c, m->steps, 0) && module_verify_symbols(m, after_pass);
  arena_free(c.a);
  return ok;
}
