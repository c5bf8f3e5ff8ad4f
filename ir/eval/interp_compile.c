/* Interpreter, first half: a kernel becomes register code. Expressions are hash-consed, so a map
 * from expression to register gives sharing; scopes say how long a register is valid: loads and
 * reads of locals for one statement, everything else to the end of its block. Loop-invariant
 * arithmetic is emitted before the loop; loads never move, so that an out-of-range access is
 * reported only where it would happen. */
#include <math.h>
#include <string.h>
#include "ir/eval/interp.h"

typedef struct Entry {
  const Expr *e;
  int reg;    /* -1: not computed */
  int gen;    /* generation of `ready` */
  bool ready; /* computable here, before the loop that is being opened */
} Entry;

typedef struct Scope {
  Vec(const Expr *) keys;
  bool statement;
} Scope;

typedef struct VarReg {
  int id, reg;
} VarReg;

typedef struct Comp {
  KernelProgram *p;
  Arena *a;
  ExprPool *pool;
  Entry *map;
  int cap, used, gen;
  Vec(Scope) scopes;
  Vec(VarReg) vars; /* of the open loops, innermost last */
  bool in_thread;   /* a thread loop is open */
  bool ok;
} Comp;

/* ---- the map ---- */
static Entry *slot_in(Entry *map, int cap, const Expr *e) {
  unsigned h = e->uid * 2654435769u;
  for (int i = (int)(h & (unsigned)(cap - 1));; i = (i + 1) & (cap - 1))
    if (!map[i].e || map[i].e == e) return &map[i];
}

static Entry *entry_of(Comp *c, const Expr *e) {
  if (2 * c->used >= c->cap) {
    const int cap = c->cap ? 2 * c->cap : 256;
    Entry *map = ARENA_ARRAY(c->a, Entry, cap);
    for (int i = 0; i < c->cap; i++)
      if (c->map[i].e) *slot_in(map, cap, c->map[i].e) = c->map[i];
    c->map = map;
    c->cap = cap;
  }
  Entry *s = slot_in(c->map, c->cap, e);
  if (!s->e) {
    *s = (Entry){.e = e, .reg = -1};
    c->used++;
  }
  return s;
}

static void scope_open(Comp *c, bool statement) {
  vec_push(c->a, &c->scopes, (Scope){.statement = statement});
}

static void scope_close(Comp *c) {
  const Scope *s = &c->scopes.data[--c->scopes.n];
  for (int i = 0; i < s->keys.n; i++) entry_of(c, s->keys.data[i])->reg = -1;
}

static void bind_at(Comp *c, int scope, const Expr *e, int reg) {
  entry_of(c, e)->reg = reg;
  vec_push(c->a, &c->scopes.data[scope].keys, e);
}

static bool is_volatile(const Expr *e) {
  return e->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE | EXF_HOLE);
}

/* Arithmetic of a statement outlives it: it stands in the block. */
static void bind(Comp *c, const Expr *e, int reg) {
  int top = c->scopes.n - 1;
  if (c->scopes.data[top].statement && !is_volatile(e)) top--;
  bind_at(c, top, e, reg);
}

static int reg_new(Comp *c) { return c->p->nregs++; }

static int emit(Comp *c, Ins i) {
  vec_push(c->a, &c->p->code, i);
  return c->p->code.n - 1;
}

static int reg_value(Comp *c, Scalar v) {
  const int r = reg_new(c);
  vec_push(c->a, &c->p->inits, (RegInit){.reg = r, .sym = -1, .value = v});
  return r;
}

static int var_reg(const Comp *c, int id) {
  for (int i = c->vars.n - 1; i >= 0; i--)
    if (c->vars.data[i].id == id) return c->vars.data[i].reg;
  return -1;
}

/* ---- expressions ---- */
static int expr_reg(Comp *c, const Expr *e);

static Scalar const_scalar(const Expr *e) {
  return dtype_is_float(e->dtype) ? (Scalar){.f = e->k.f} : (Scalar){.i = e->k.i};
}

static int reg_leaf(Comp *c, const Expr *e) {
  int r = 0;
  if (e->op == EX_CONST) {
    r = reg_value(c, const_scalar(e));
  } else {
    r = reg_new(c);
    vec_push(c->a, &c->p->inits, (RegInit){.reg = r, .sym = e->id});
  }
  bind_at(c, 0, e, r);
  return r;
}

static int fail(Comp *c, const char *what, int id) {
  if (c->ok)
    diag_internal(c->p->m->model->diag, c->p->k->loc, "interpreter: kernel %s: %s %d",
                  c->p->k->name, what, id);
  c->ok = false;
  return 0;
}

static int fast_op(const Expr *e) {
  const DType t = e->a[0]->dtype;
  if (t == DT_I64) {
    switch (e->op) {
      case EX_add: return IN_ADD_I64;
      case EX_mul: return IN_MUL_I64;
      case EX_lt: return IN_LT_I64;
      case EX_le: return IN_LE_I64;
      default: return IN_OP;
    }
  }
  if (t == DT_F32) {
    switch (e->op) {
      case EX_add: return IN_ADD_F32;
      case EX_sub: return IN_SUB_F32;
      case EX_mul: return IN_MUL_F32;
      case EX_fma: return IN_FMA_F32;
      default: return IN_OP;
    }
  }
  return IN_OP;
}

static const ExprOp reduce_ops[] = {EX_add, EX_mul, EX_min, EX_max, EX_and, EX_or};

static void emit_combine(Comp *c, ReduceKind kind, DType t, int d, int a, int b) {
  const bool sum = kind == RED_SUM && t == DT_F32;
  if (kind == RED_MIN || kind == RED_MAX) { /* as code does it */
    const int gathered = a;
    a = b;
    b = gathered;
  }
  emit(c, (Ins){.op = sum ? IN_ADD_F32 : IN_OP,
                .dt = t,
                .sop = reduce_ops[kind],
                .d = d,
                .a = a,
                .b = b,
                .c = b});
}

static bool ready(Comp *c, const Expr *e);

/* Computes, before a loop opens, the parts of e that need no variable which is not yet bound. */
static bool hoist(Comp *c, const Expr *e) {
  Entry *s = entry_of(c, e);
  if (s->gen == c->gen) return s->ready;
  const bool yes = ready(c, e);
  s = entry_of(c, e); /* the map may have moved */
  s->gen = c->gen;
  s->ready = yes;
  return yes;
}

static bool ready(Comp *c, const Expr *e) {
  if (e->op == EX_VAR) return var_reg(c, e->id) >= 0;
  bool all = !(e->op == EX_LOAD || e->op == EX_LOCAL || e->op == EX_REDUCE || e->op == EX_HOLE);
  bool arg[3] = {false};
  for (int i = 0; i < e->nargs; i++) {
    arg[i] = !e->a[i] || hoist(c, e->a[i]);
    all = all && arg[i];
  }
  if (!all)
    for (int i = 0; i < e->nargs; i++)
      if (e->a[i] && arg[i] && !(e->op == EX_rarely && i == 1)) expr_reg(c, e->a[i]);
  return all;
}

static const Expr *var_lo(Comp *c, int id) {
  const Expr *lo = expr_var_lo(c->pool, id);
  return lo ? lo : ex_i64(c->pool, 0);
}

/* Opens a loop over a variable; returns the index of its IN_FOR. */
static int loop_open(Comp *c, int var) {
  const int lo = expr_reg(c, var_lo(c, var)), ext = expr_reg(c, expr_var_extent(c->pool, var));
  const int v = reg_new(c), end = reg_new(c);
  const int at = emit(c, (Ins){.op = IN_FOR, .d = v, .a = lo, .b = ext, .c = end});
  scope_open(c, false);
  vec_push(c->a, &c->vars, (VarReg){var, v});
  return at;
}

static void loop_close(Comp *c, int at) {
  const Ins head = c->p->code.data[at];
  scope_close(c);
  c->vars.n--;
  emit(c, (Ins){.op = IN_NEXT, .d = head.d, .c = head.c, .to = at + 1});
  c->p->code.data[at].to = c->p->code.n;
}

static int reg_reduce(Comp *c, const Expr *e) {
  const Expr *body = e->a[0];
  c->gen++;
  hoist(c, body);
  if (entry_of(c, body)->ready) expr_reg(c, body);
  const DType sum = reduce_type((ReduceKind)e->k.i, (DType)e->dtype);
  const Expr *identity = reduce_identity(c->pool, (ReduceKind)e->k.i, e->dtype);
  const int acc = reg_new(c), start = expr_reg(c, identity);
  emit(c, (Ins){.op = IN_MOVE, .d = acc, .a = start});
  const int at = loop_open(c, e->id);
  emit_combine(c, (ReduceKind)e->k.i, sum, acc, acc, expr_reg(c, body));
  loop_close(c, at);
  if (sum == (DType)e->dtype) return acc;
  const int r = reg_new(c);
  emit(c, (Ins){.op = IN_CAST, .dt = e->dtype, .dt2 = sum, .d = r, .a = acc});
  return r;
}

static int reg_access(Comp *c, const Expr *e) {
  const bool local = e->op == EX_LOCAL;
  const int n = local ? c->p->k->locals.n : c->p->k->params.n;
  if (e->id < 0 || e->id >= n) return fail(c, local ? "no local" : "no buffer", e->id);
  const int index = expr_reg(c, e->a[0]);
  const bool guarded = !local && e->nargs > 1 && e->a[1];
  const int guard = guarded ? expr_reg(c, e->a[1]) : -1, r = reg_new(c);
  const DType t = local ? c->p->k->locals.data[e->id].dtype : c->p->k->params.data[e->id].dtype;
  const InsOp op = local ? IN_LOCAL : t == DT_F32 && !guarded ? IN_LOAD_F32 : IN_LOAD;
  emit(c, (Ins){.op = op, .dt = t, .d = r, .a = index, .b = e->id, .c = guard});
  return r;
}

static int reg_op(Comp *c, const Expr *e) {
  int r[3] = {0, 0, 0};
  if (e->flags & EXF_MATH) return fail(c, "a math row that was not expanded", e->op);
  for (int i = 0; i < e->nargs; i++) r[i] = expr_reg(c, e->a[i]);
  Ins n = {.op = (uint8_t)fast_op(e),
           .sop = e->op,
           .dt = e->a[e->op == EX_select ? 1 : 0]->dtype,
           .a = r[0],
           .b = r[1],
           .c = r[2]};
  if (e->op == EX_cast || e->op == EX_sat || e->op == EX_bits) {
    n.op = e->op == EX_cast ? IN_CAST : e->op == EX_sat ? IN_SAT : IN_BITS;
    n.dt2 = e->a[0]->dtype;
    n.dt = e->dtype;
  }
  if (expr_ordered(c->pool, e)) n.op = IN_ORDERED;
  n.d = reg_new(c);
  emit(c, n);
  return n.d;
}

/* The rare side is jumped over where it is not wanted. */
static int reg_rarely(Comp *c, const Expr *e) {
  const int cond = expr_reg(c, e->a[0]), usual = expr_reg(c, e->a[2]), r = reg_new(c);
  emit(c, (Ins){.op = IN_MOVE, .d = r, .a = usual});
  const int skip = emit(c, (Ins){.op = IN_JUMP_IF_NOT, .a = cond});
  scope_open(c, false);
  emit(c, (Ins){.op = IN_MOVE, .d = r, .a = expr_reg(c, e->a[1])});
  scope_close(c);
  c->p->code.data[skip].to = c->p->code.n;
  return r;
}

static int expr_reg(Comp *c, const Expr *e) {
  if (e->op == EX_VAR) {
    const int v = var_reg(c, e->id);
    return v >= 0 ? v : fail(c, "no loop for variable", e->id);
  }
  const int known = entry_of(c, e)->reg;
  if (known >= 0 || !c->ok) return known < 0 ? 0 : known;
  int r = 0;
  switch (e->op) {
    case EX_CONST:
    case EX_SYM: return reg_leaf(c, e);
    case EX_HOLE: return fail(c, "hole", e->id);
    case EX_LOAD:
    case EX_LOCAL: r = reg_access(c, e); break;
    case EX_REDUCE: r = reg_reduce(c, e); break;
    case EX_rarely: r = reg_rarely(c, e); break;
    default: r = reg_op(c, e); break;
  }
  bind(c, e, r);
  return r;
}

/* ---- statements ---- */
static void hoist_part(void *user, const Expr *e) {
  Comp *c = user;
  if (hoist(c, e)) expr_reg(c, e);
}

static bool hoist_stmt(void *user, Stmt *s) {
  Comp *c = user;
  if (s->kind == ST_FOR) {
    hoist_part(c, var_lo(c, s->loop.var->id));
    hoist_part(c, expr_var_extent(c->pool, s->loop.var->id));
  }
  stmt_each_expr(s, hoist_part, c);
  return true;
}

static void compile_block(Comp *c, const Stmt *s);

static void compile_for(Comp *c, const Stmt *s) {
  c->gen++;
  stmt_each(s->loop.body, hoist_stmt, c);
  const int at = loop_open(c, s->loop.var->id);
  if (s->loop.kind == FOR_PARALLEL) emit(c, (Ins){.op = IN_FRESH});
  compile_block(c, s->loop.body);
  loop_close(c, at);
}

/* A nest of block loops, or of thread loops, is one loop. */
static void compile_grid(Comp *c, const Stmt *s) {
  const Stmt *loops[MAX_NEST];
  NestLoop nest = {.n = stmt_nest(s, loops), .threads = s->loop.kind == FOR_THREAD};
  const int open = c->p->nests.n && !c->in_thread; /* the blocks are open */
  if (open != nest.threads || !kernel_is_grid(c->p->k)) {
    fail(c, "block or thread loop in the wrong place, variable", s->loop.var->id);
    return;
  }
  const Stmt *const body = loops[nest.n - 1]->loop.body;
  c->gen++;
  stmt_each(s->loop.body, hoist_stmt, c);
  for (int k = 0; k < nest.n; k++) {
    nest.var[k] = loops[k]->loop.var;
    nest.extent[k] = expr_reg(c, expr_var_extent(c->pool, nest.var[k]->id));
    nest.reg[k] = reg_new(c);
  }
  const int id = c->p->nests.n;
  vec_push(c->a, &c->p->nests, nest);
  const int at = emit(c, (Ins){.op = IN_GRID, .a = id});
  scope_open(c, false);
  for (int k = 0; k < nest.n; k++) vec_push(c->a, &c->vars, (VarReg){nest.var[k]->id, nest.reg[k]});
  c->in_thread = nest.threads;
  compile_block(c, body);
  c->in_thread = false;
  emit(c, (Ins){.op = IN_GRID_NEXT, .a = id, .to = at + 1});
  c->p->code.data[at].to = c->p->code.n;
  c->vars.n -= nest.n;
  scope_close(c);
}

static void compile_scoped(Comp *c, const Stmt *s) {
  scope_open(c, false);
  compile_block(c, s);
  scope_close(c);
}

static void compile_if(Comp *c, const Stmt *s) {
  const int skip = emit(c, (Ins){.op = IN_JUMP_IF_NOT, .a = expr_reg(c, s->branch.cond)});
  compile_scoped(c, s->branch.then);
  const int out = emit(c, (Ins){.op = IN_JUMP});
  c->p->code.data[skip].to = c->p->code.n;
  compile_scoped(c, s->branch.otherwise);
  c->p->code.data[out].to = c->p->code.n;
}

static int poison(Comp *c, DType t) {
  if (dtype_is_float(t)) return reg_value(c, (Scalar){.f = NAN});
  const uint64_t pattern = 0xABABABABABABABABu;
  return reg_value(c, (Scalar){.i = t == DT_BOOL ? 1 : dtype_load_i(t, &pattern)});
}

/* As code does it: a product goes into a sum with one rounding where fma is one instruction. */
static int accumulated(Comp *c, const Stmt *s, DType t, int index) {
  const bool fused = s->access.reduce == RED_SUM && s->access.value->op == EX_mul &&
                     (t == DT_F32 || t == DT_F64) && !expr_pool_rules(c->pool)->split_fma;
  const int a = expr_reg(c, fused ? s->access.value->a[0] : s->access.value),
            b = fused ? expr_reg(c, s->access.value->a[1]) : -1, old = reg_new(c), sum = reg_new(c);
  emit(c, (Ins){.op = IN_LOCAL, .dt = t, .d = old, .a = index, .b = s->access.id, .c = -1});
  if (fused)
    emit(c, (Ins){.op = IN_OP, .sop = EX_fma, .dt = t, .d = sum, .a = a, .b = b, .c = old});
  else
    emit_combine(c, s->access.reduce, t, sum, old, a);
  return sum;
}

static void compile_write(Comp *c, const Stmt *s) {
  const int n = s->kind == ST_STORE ? c->p->k->params.n : c->p->k->locals.n;
  if (s->access.id < 0 || s->access.id >= n) {
    fail(c, "write to unknown buffer or local", s->access.id);
    return;
  }
  const DType t = s->kind == ST_STORE ? c->p->k->params.data[s->access.id].dtype
                                      : c->p->k->locals.data[s->access.id].dtype;
  const int index = expr_reg(c, s->access.index);
  const int value = s->kind == ST_ACC ? accumulated(c, s, t, index) : expr_reg(c, s->access.value);
  emit(c, (Ins){.op = s->kind == ST_STORE ? IN_STORE : IN_SET,
                .dt = t,
                .d = s->access.id,
                .a = index,
                .b = value});
}

static void compile_stmt(Comp *c, const Stmt *s) {
  switch (s->kind) {
    case ST_FOR:
      if (s->loop.kind == FOR_BLOCK || s->loop.kind == FOR_THREAD)
        compile_grid(c, s);
      else
        compile_for(c, s);
      break;
    case ST_IF: compile_if(c, s); break;
    case ST_LOCAL:
      emit(c, (Ins){.op = IN_DECL,
                    .d = s->access.id,
                    .a = poison(c, c->p->k->locals.data[s->access.id].dtype)});
      break;
    case ST_STORE:
    case ST_SET:
    case ST_ACC: compile_write(c, s); break;
    case ST_PREFETCH: break;
  }
}

static void compile_block(Comp *c, const Stmt *s) {
  for (; s && c->ok; s = s->next) {
    scope_open(c, true);
    compile_stmt(c, s);
    scope_close(c);
  }
}

static void place_locals(Comp *c) {
  KernelProgram *const p = c->p;
  const int64_t threads = kernel_threads(c->pool, p->k);
  const bool *const private = kernel_private_locals(c->a, p->k);
  p->threads = threads;
  p->locals = ARENA_ARRAY(c->a, LocalSlot, p->k->locals.n + 1);
  for (int i = 0; i < p->k->locals.n; i++) {
    const Local *const l = &p->k->locals.data[i];
    p->locals[i] = (LocalSlot){.base = p->local_total,
                               .count = l->count,
                               .stride = private[i] ? l->count : 0,
                               .total = private[i] ? l->count * threads : l->count,
                               .shared = l->memory == MEM_SHARED};
    p->local_total += p->locals[i].total;
  }
  p->local_data = ARENA_ARRAY(c->a, Scalar, p->local_total + 1);
}

KernelProgram *interp_compile(const Module *m, const Kernel *k, Arena *a) {
  KernelProgram *p = ARENA_NEW(a, KernelProgram);
  p->m = m;
  p->k = k;
  Comp c = {.p = p, .a = a, .pool = m->model->pool, .ok = true};
  place_locals(&c);
  scope_open(&c, false);
  compile_block(&c, k->body);
  emit(&c, (Ins){.op = IN_END});
  p->regs = ARENA_ARRAY(a, Scalar, p->nregs + 1);
  p->counts = ARENA_ARRAY(a, int64_t, k->params.n + 1);
  return c.ok ? p : NULL;
}
