/* Evaluation with memory (tape.h). A cell is valid while no variable it depends on has a newer
 * stamp. Meaning of the operations: expr_apply and scalar_cast. Reductions and selects evaluate
 * only what they need. */
#include "ir/eval/tape.h"

typedef struct Slot { /* a variable */
  int id;
  int64_t value;
  uint64_t stamp;
} Slot;

typedef struct Cell {
  const Expr *e;
  int arg[3], lo; /* cells; -1: none. lo: lower end of a reduction's variable */
  int slot;       /* of VAR and REDUCE */
  int n_free;
  const int *free; /* slots it depends on */
  uint64_t stamp;
  Scalar v;
} Cell;

struct Tape {
  Arena *arena;
  ExprPool *pool;
  Vec(Cell) cells;
  Vec(Slot) slots;
  int *table; /* uid → cell + 1, open addressing */
  int table_size;
  uint64_t clock;
  int root;
};

/* ---- building ---- */
static int *table_find(Tape *t, const Expr *e) {
  uint32_t h = e->uid * 2654435761u & (uint32_t)(t->table_size - 1);
  while (t->table[h] && t->cells.data[t->table[h] - 1].e != e)
    h = (h + 1) & (uint32_t)(t->table_size - 1);
  return &t->table[h];
}

static void table_add(Tape *t, const Expr *e, int cell) {
  if (2 * t->cells.n >= t->table_size) {
    const int n = t->table_size ? 2 * t->table_size : 256;
    t->table = ARENA_ARRAY(t->arena, int, n);
    t->table_size = n;
    for (int i = 0; i < t->cells.n; i++)
      if (i != cell) *table_find(t, t->cells.data[i].e) = i + 1;
  }
  *table_find(t, e) = cell + 1;
}

static int slot_of(Tape *t, int id) {
  for (int i = 0; i < t->slots.n; i++)
    if (t->slots.data[i].id == id) return i;
  vec_push(t->arena, &t->slots, (Slot){.id = id});
  return t->slots.n - 1;
}

typedef Vec(int) Ints;

static void add_free(Tape *t, Ints *to, int cell, int except) {
  if (cell < 0) return;
  const Cell *c = &t->cells.data[cell];
  for (int i = 0; i < c->n_free; i++) {
    bool have = c->free[i] == except;
    for (int k = 0; k < to->n && !have; k++) have = to->data[k] == c->free[i];
    if (!have) vec_push(t->arena, to, c->free[i]);
  }
}

static int build(Tape *t, const Expr *e) {
  if (t->table_size) {
    const int have = *table_find(t, e);
    if (have) return have - 1;
  }
  Cell c = {.e = e, .arg = {-1, -1, -1}, .lo = -1, .slot = -1};
  for (int i = 0; i < 3; i++)
    if (e->a[i]) c.arg[i] = build(t, e->a[i]);
  Ints free = {0};
  if (e->op == EX_VAR || e->op == EX_REDUCE) c.slot = slot_of(t, e->id);
  if (e->op == EX_VAR) vec_push(t->arena, &free, c.slot);
  if (e->op == EX_REDUCE && expr_var_lo(t->pool, e->id))
    c.lo = build(t, expr_var_lo(t->pool, e->id));
  for (int i = 0; i < 3; i++)
    add_free(t, &free, c.arg[i], e->op == EX_REDUCE && i == 0 ? c.slot : -1);
  add_free(t, &free, c.lo, -1);
  c.free = free.data;
  c.n_free = free.n;
  if (e->op == EX_CONST) {
    if (dtype_is_float((DType)e->dtype))
      c.v.f = e->k.f;
    else
      c.v.i = e->k.i;
    c.stamp = UINT64_MAX;
  }
  vec_push(t->arena, &t->cells, c);
  table_add(t, e, t->cells.n - 1);
  return t->cells.n - 1;
}

Tape *tape_new(Arena *a, ExprPool *p, const Expr *root) {
  Tape *t = ARENA_NEW(a, Tape);
  t->arena = a;
  t->pool = p;
  t->clock = 1;
  t->root = build(t, expr_lower_math(p, root));
  return t;
}

static void slot_set(Tape *t, int slot, int64_t value) {
  Slot *s = &t->slots.data[slot];
  s->value = value;
  s->stamp = ++t->clock;
}

void tape_set(Tape *t, const Expr *var, int64_t value) {
  for (int i = 0; i < t->slots.n; i++)
    if (t->slots.data[i].id == var->id &&
        (t->slots.data[i].value != value || !t->slots.data[i].stamp))
      slot_set(t, i, value);
}

/* ---- running ---- */
static Scalar run(Tape *t, const TapeEnv *env, int cell);

static Scalar run_reduce(Tape *t, const TapeEnv *env, const Cell *c) {
  static const ExprOp ops[] = {[RED_SUM] = EX_add, [RED_PROD] = EX_mul, [RED_MIN] = EX_min,
                               [RED_MAX] = EX_max, [RED_AND] = EX_and,  [RED_OR] = EX_or};
  const ReduceKind kind = (ReduceKind)c->e->k.i;
  const DType type = (DType)c->e->dtype;
  const Expr *id = reduce_identity(t->pool, kind, type);
  const DType sum = reduce_type(kind, type);
  Scalar acc;
  if (dtype_is_float(type))
    acc.f = id->k.f;
  else
    acc.i = id->k.i;
  const int body = c->arg[0], slot = c->slot;
  const Slot saved = t->slots.data[slot]; /* the same variable may be bound further out */
  const int64_t extent = run(t, env, c->arg[1]).i, lo = c->lo >= 0 ? run(t, env, c->lo).i : 0;
  for (int64_t i = 0; i < extent; i++) {
    slot_set(t, slot, lo + i);
    const Scalar v = run(t, env, body);
    acc = scalar_op(ops[kind], sum, acc, v, v);
  }
  if (sum != type) acc = scalar_cast(type, sum, acc, false);
  if (saved.stamp) slot_set(t, slot, saved.value);
  return acc;
}

static Scalar run_bits(DType to, DType from, Scalar v) {
  uint64_t word = 0;
  Scalar r;
  if (dtype_is_float(from))
    dtype_store_f(from, &word, v.f);
  else
    dtype_store_i(from, &word, v.i);
  if (dtype_is_float(to))
    r.f = dtype_load_f(to, &word);
  else
    r.i = dtype_load_i(to, &word);
  return r;
}

static Scalar run_op(Tape *t, const TapeEnv *env, const Cell *c) {
  const Expr *e = c->e;
  const DType own = (DType)e->dtype;
  Scalar a[3] = {{0}, {0}, {0}};
  switch (e->op) {
    case EX_SYM: return env->sym(env->user, e->id);
    case EX_VAR: return (Scalar){.i = t->slots.data[c->slot].value};
    case EX_REDUCE: return run_reduce(t, env, c);
    case EX_LOAD:
      if (c->arg[1] >= 0 && !run(t, env, c->arg[1]).i) return a[0];
      return env->load(env->user, own, e->id, run(t, env, c->arg[0]).i);
    case EX_select:
    case EX_rarely: return run(t, env, run(t, env, c->arg[0]).i ? c->arg[1] : c->arg[2]);
    case EX_cast:
    case EX_sat:
      return scalar_cast(own, (DType)e->a[0]->dtype, run(t, env, c->arg[0]), e->op == EX_sat);
    case EX_bits: return run_bits(own, (DType)e->a[0]->dtype, run(t, env, c->arg[0]));
    default: break;
  }
  for (int i = 0; i < 3 && c->arg[i] >= 0; i++) a[i] = run(t, env, c->arg[i]);
  return expr_apply(t->pool, e, a[0], a[1], a[2]);
}

static bool is_valid(const Tape *t, const Cell *c) {
  if (!c->stamp) return false;
  for (int i = 0; i < c->n_free; i++)
    if (t->slots.data[c->free[i]].stamp > c->stamp) return false;
  return true;
}

static Scalar run(Tape *t, const TapeEnv *env, int cell) {
  Cell *c = &t->cells.data[cell];
  if (is_valid(t, c)) return c->v;
  c->v = run_op(t, env, c);
  c->stamp = t->clock;
  return c->v;
}

Scalar tape_run(Tape *t, const TapeEnv *env) { return run(t, env, t->root); }
