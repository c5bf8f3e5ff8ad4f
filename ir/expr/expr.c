/* The expression pool: interning, symbols, variables, constructors. Every expression goes through
 * expr_raw, which finds an equal one or makes it; the rules that simplify stand in
 * expr_simplify.c. */
#include <assert.h>
#include <math.h>
#include <string.h>
#include "ir/expr/expr_impl.h"

const OpInfo expr_op_info[EX_COUNT] = {
    [EX_CONST] = {"const", 0, RES_OWN, 0}, [EX_SYM] = {"$", 0, RES_OWN, 0},
    [EX_VAR] = {"var", 0, RES_OWN, 0},     [EX_LOAD] = {"load", 2, RES_OWN, 1},
    [EX_LOCAL] = {"local", 1, RES_OWN, 0}, [EX_REDUCE] = {"reduce", 2, RES_ARG, 0},
    [EX_HOLE] = {"hole", 0, RES_OWN, 0},
#define S(id, text, arity, result, cost, adjoint) [EX_##id] = {text, arity, RES_##result, cost},
#include "ir/expr/scalar.def"
#undef S
};

ExprPool *expr_pool_new(Arena *a) {
  ExprPool *const p = ARENA_NEW(a, ExprPool);
  p->arena = a;
  p->cap = 1024;
  p->table = ARENA_ARRAY(a, ENode *, p->cap);
  return p;
}

Arena *expr_pool_arena(ExprPool *p) { return p->arena; }
FloatRules *expr_pool_rules(ExprPool *p) { return &p->rules; }

/* ---- interning ---- */
static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
  return h ^ h >> 29;
}

static uint32_t expr_hash(const Expr *e) {
  uint64_t h = mix((uint64_t)e->op << 8 | e->dtype, (uint32_t)e->id);
  h = mix(h, (uint64_t)e->k.i);
  for (int i = 0; i < 3; i++) h = mix(h, e->a[i] ? e->a[i]->uid + 1 : 0);
  return (uint32_t)(h >> 16);
}

static bool expr_same(const Expr *x, const Expr *y) {
  return x->op == y->op && x->dtype == y->dtype && x->id == y->id && x->k.i == y->k.i &&
         x->a[0] == y->a[0] && x->a[1] == y->a[1] && x->a[2] == y->a[2];
}

static ENode **slot_of(ExprPool *p, const Expr *e) {
  uint32_t k = expr_hash(e) & (p->cap - 1);
  while (p->table[k] && !expr_same(&p->table[k]->e, e)) k = (k + 1) & (p->cap - 1);
  return &p->table[k];
}

static void table_grow(ExprPool *p) {
  ENode **const old = p->table;
  const uint32_t n = p->cap;
  p->cap *= 2;
  p->table = ARENA_ARRAY(p->arena, ENode *, p->cap);
  for (uint32_t i = 0; i < n; i++)
    if (old[i]) *slot_of(p, &old[i]->e) = old[i];
}

static uint8_t own_flag(ExprOp op) {
  return op == EX_LOAD     ? EXF_LOAD
         : op == EX_REDUCE ? EXF_REDUCE
         : op == EX_LOCAL  ? EXF_LOCAL
         : op == EX_VAR    ? EXF_VAR
         : op == EX_SYM    ? EXF_SYM
         : op == EX_HOLE   ? EXF_HOLE
         : is_math_op(op)  ? EXF_MATH
                           : 0;
}

const Expr *expr_raw(ExprPool *p, ExprOp op, DType t, int id, int64_t k, const Expr *a,
                     const Expr *b, const Expr *c) {
  Expr e = {.op = (uint8_t)op, .dtype = (uint8_t)t, .id = id, .k.i = k, .a = {a, b, c}};
  ENode **slot = slot_of(p, &e);
  if (*slot) {
    const Range r = range_compute(p, &(*slot)->e);
    if (r.lo > (*slot)->lo) (*slot)->lo = r.lo;
    if (r.hi < (*slot)->hi) (*slot)->hi = r.hi;
    return &(*slot)->e;
  }
  if (p->n * 2 >= p->cap) {
    table_grow(p);
    slot = slot_of(p, &e);
  }
  e.flags = own_flag(op);
  e.depth = 1;
  for (int i = 0; i < 3; i++) {
    if (!e.a[i]) continue;
    e.nargs = (uint8_t)(i + 1);
    e.flags |= e.a[i]->flags;
    if (e.a[i]->depth >= e.depth) e.depth = e.a[i]->depth + 1;
  }
  ENode *const n = ARENA_NEW(p->arena, ENode);
  p->types |= UINT64_C(1) << t;
  e.uid = p->n++;
  n->e = e;
  n->pool = p;
  const Range r = range_compute(p, &n->e);
  n->lo = r.lo;
  n->hi = r.hi;
  *slot = n;
  return &n->e;
}

/* ---- names ---- */
static uint32_t name_hash(const char *s) {
  uint64_t h = 7;
  for (; *s; s++) h = mix(h, (unsigned char)*s);
  return (uint32_t)h;
}

/* Where `name` stands, or would: a slot whose name is NULL. */
static NameSlot *name_slot(const NameTable *t, const char *name) {
  uint32_t k = name_hash(name) & (uint32_t)(t->cap - 1);
  while (t->slots[k].name && strcmp(t->slots[k].name, name) != 0)
    k = (k + 1) & (uint32_t)(t->cap - 1);
  return &t->slots[k];
}

/* Room for one more. */
static void names_reserve(Arena *a, NameTable *t) {
  if (t->n * 2 + 2 < t->cap) return;
  const NameTable old = *t;
  t->cap = old.cap ? old.cap * 2 : 64;
  t->slots = ARENA_ARRAY(a, NameSlot, t->cap);
  for (int i = 0; i < old.cap; i++)
    if (old.slots[i].name) *name_slot(t, old.slots[i].name) = old.slots[i];
}

static void name_put(Arena *a, NameTable *t, const char *name, int id) {
  names_reserve(a, t);
  *name_slot(t, name) = (NameSlot){name, id};
  t->n++;
}

static int name_find(const NameTable *t, const char *name) {
  const NameSlot *s = t->cap ? name_slot(t, name) : NULL;
  return s && s->name ? s->id : -1;
}

/* ---- symbols ---- */
static const Expr *sym_make(ExprPool *p, const char *name) {
  Symbol *const s = ARENA_NEW(p->arena, Symbol);
  s->name = name;
  vec_push(p->arena, &p->syms, s);
  const Expr *const e = expr_raw(p, EX_SYM, DT_I64, p->syms.n - 1, 0, NULL, NULL, NULL);
  vec_push(p->arena, &p->sym_exprs, e);
  name_put(p->arena, &p->sym_names, name, p->syms.n - 1);
  return e;
}

static const Expr *sym_find(const ExprPool *p, const char *name) {
  const int id = name_find(&p->sym_names, name);
  return id < 0 ? NULL : p->sym_exprs.data[id];
}

const Expr *ex_sym(ExprPool *p, const char *name) {
  const Expr *const e = sym_find(p, name);
  return e ? e : sym_make(p, arena_strdup(p->arena, name));
}

const Expr *ex_sym_fresh(ExprPool *p, const char *stem) {
  for (int n = p->syms.n;; n++) {
    const char *const name = arena_printf(p->arena, "%s_%d", stem, n);
    if (!sym_find(p, name)) return sym_make(p, name);
  }
}

Symbol *expr_symbol(ExprPool *p, int id) { return p->syms.data[id]; }
int expr_symbol_count(const ExprPool *p) { return p->syms.n; }

/* ---- variables ---- */
static const Expr *var_make(ExprPool *p, const char *name, const Expr *lo, const Expr *extent) {
  while (name_find(&p->var_names, name) >= 0) name = arena_printf(p->arena, "%s_", name);
  const VarInfo v = {name, NULL, lo, extent};
  const int id = p->vars.n;
  vec_push(p->arena, &p->vars, v);
  name_put(p->arena, &p->var_names, name, id);
  return p->vars.data[id].expr = expr_raw(p, EX_VAR, DT_I64, id, 0, NULL, NULL, NULL);
}

const Expr *ex_var_range(ExprPool *p, const char *stem, const Expr *lo, const Expr *extent) {
  const size_t n = strlen(stem);
  const bool digit = n && stem[n - 1] >= '0' && stem[n - 1] <= '9';
  return var_make(p, arena_printf(p->arena, "%s%s%d", stem, digit ? "_" : "", p->vars.n), lo,
                  extent);
}

const Expr *ex_var(ExprPool *p, const char *stem, const Expr *extent) {
  return ex_var_range(p, stem, ex_i64(p, 0), extent);
}

const Expr *ex_var_named(ExprPool *p, const char *name, const Expr *lo, const Expr *extent) {
  const int id = name_find(&p->var_names, name);
  if (id >= 0 && p->vars.data[id].lo == lo && p->vars.data[id].extent == extent)
    return p->vars.data[id].expr;
  return var_make(p, arena_strdup(p->arena, name), lo, extent);
}

const Expr *ex_var_of(ExprPool *p, int id) { return p->vars.data[id].expr; }
const char *expr_var_name(const ExprPool *p, int id) { return p->vars.data[id].name; }
const Expr *expr_var_extent(const ExprPool *p, int id) { return p->vars.data[id].extent; }
const Expr *expr_var_lo(const ExprPool *p, int id) { return p->vars.data[id].lo; }
int expr_var_count(const ExprPool *p) { return p->vars.n; }

/* ---- constants ---- */
const Expr *expr_scalar(ExprPool *p, DType t, Scalar v) {
  if (dtype_is_float(t) && isnan(v.f)) v.f = NAN; /* one NaN only */
  return expr_raw(p, EX_CONST, t, 0, v.i, NULL, NULL, NULL);
}

const Expr *ex_int(ExprPool *p, DType t, int64_t v) {
  return expr_scalar(p, t, (Scalar){.i = dtype_wrap(t, v)});
}
const Expr *ex_i64(ExprPool *p, int64_t v) { return ex_int(p, DT_I64, v); }
const Expr *ex_bool(ExprPool *p, bool v) { return ex_int(p, DT_BOOL, v); }

const Expr *ex_float(ExprPool *p, DType t, double v) {
  return expr_scalar(p, t, (Scalar){.f = dtype_round(t, v, false)});
}

const Expr *ex_const(ExprPool *p, DType t, double v) {
  if (dtype_is_float(t)) return ex_float(p, t, v);
  return expr_scalar(p, t, scalar_cast(t, DT_F64, (Scalar){.f = v}, false));
}

/* ---- operations ---- */
static DType result_type(ExprOp op, const Expr *a, const Expr *b, const Expr *c) {
  const int r = expr_op_info[op].result;
  if (r == RES_BOOL) return DT_BOOL;
  return (DType)(r == RES_ARG1 ? b : r == RES_ARG2 ? c : a)->dtype;
}

DType expr_arg_type(ExprOp op, int i) {
  if (op < EX_dot4_u8i8 || op > EX_dot2_bf16) return DT_NONE;
  return op == EX_dot2_bf16 && i == 2 ? DT_F32 : DT_I32;
}

bool expr_pool_has(const ExprPool *p, DType t) { return p->types >> t & 1; }

const Expr *ex_bf16_element(ExprPool *p, const Expr *group, bool upper) {
  return ex_bits(p, DT_F32,
                 upper ? ex_op(p, EX_and, group, ex_int(p, DT_I32, -65536), NULL)
                       : ex_op(p, EX_shl, group, ex_int(p, DT_I32, 16), NULL));
}

static const Expr *split_dot2_bf16(ExprPool *p, const Expr *a, const Expr *b, const Expr *c) {
  for (int i = 1; i >= 0; i--)
    c = ex_op(p, EX_fma, ex_bf16_element(p, a, i), ex_bf16_element(p, b, i), c);
  return c;
}

static Scalar const_value(const Expr *e) { return e ? (Scalar){.i = e->k.i} : (Scalar){.i = 0}; }

const Expr *ex_op(ExprPool *p, ExprOp op, const Expr *a, const Expr *b, const Expr *c) {
  assert(op > EX_HOLE && op < EX_COUNT && expr_op_info[op].result != RES_OWN);
  const DType t = result_type(op, a, b, c);
  const bool is_float = dtype_is_float((DType)a->dtype);
  if (op == EX_fma && is_float && p->rules.split_fma) return ex_add(p, ex_mul(p, a, b), c);
  if (op == EX_dot2_bf16 && (p->rules.split_dot2 || p->rules.split_fma))
    return split_dot2_bf16(p, a, b, c);
  if (is_const(a) && (!b || is_const(b)) && (!c || is_const(c))) {
    if (is_math_op(op) && is_float) return math_row(p, op, a, b);
    const Expr e = {.op = (uint8_t)op, .dtype = (uint8_t)t, .nargs = 3, .a = {a, b, c}};
    return expr_scalar(p, t, expr_apply(p, &e, const_value(a), const_value(b), const_value(c)));
  }
  const Expr *const s = simplify_op(p, op, a, b, c);
  return s ? s : expr_raw(p, op, t, 0, 0, a, b, c);
}

static const Expr *convert(ExprPool *p, ExprOp op, DType t, const Expr *a) {
  if (is_const(a)) return expr_scalar(p, t, scalar_cast(t, a->dtype, const_value(a), op == EX_sat));
  const Expr *const s = simplify_cast(p, op, t, a);
  return s ? s : expr_raw(p, op, t, 0, 0, a, NULL, NULL);
}

const Expr *ex_cast(ExprPool *p, DType t, const Expr *a) { return convert(p, EX_cast, t, a); }
const Expr *ex_sat(ExprPool *p, DType t, const Expr *a) { return convert(p, EX_sat, t, a); }

const Expr *ex_bits(ExprPool *p, DType t, const Expr *a) {
  assert(dtype_bytes(t) == dtype_bytes(a->dtype));
  if (t == (DType)a->dtype) return a;
  if (a->op == EX_bits) return ex_bits(p, t, a->a[0]);
  if (!is_const(a)) return expr_raw(p, EX_bits, t, 0, 0, a, NULL, NULL);
  uint64_t raw = 0;
  if (dtype_is_float(a->dtype))
    dtype_store_f(a->dtype, &raw, a->k.f);
  else
    dtype_store_i(a->dtype, &raw, a->k.i);
  if (dtype_is_float(t)) return expr_scalar(p, t, (Scalar){.f = dtype_load_f(t, &raw)});
  return ex_int(p, t, dtype_load_i(t, &raw));
}

const Expr *ex_load(ExprPool *p, DType t, int buffer, const Expr *index, const Expr *guard) {
  int64_t g;
  if (guard && expr_is_const(guard, &g)) {
    if (!g) return ex_const(p, t, 0);
    guard = NULL;
  }
  return expr_raw(p, EX_LOAD, t, buffer, 0, index, guard, NULL);
}

const Expr *ex_local(ExprPool *p, DType t, int local, const Expr *index) {
  return expr_raw(p, EX_LOCAL, t, local, 0, index, NULL, NULL);
}

const Expr *ex_hole(ExprPool *p, DType t, int id) {
  return expr_raw(p, EX_HOLE, t, id, 0, NULL, NULL, NULL);
}

const Expr *ex_ceildiv(ExprPool *p, const Expr *a, int64_t b) {
  return ex_floordiv(p, ex_add(p, a, ex_i64(p, b - 1)), ex_i64(p, b));
}

/* ---- reductions ---- */
static const Expr *lowest(ExprPool *p, DType t, bool highest) {
  if (dtype_is_float(t)) return ex_float(p, t, highest ? INFINITY : -INFINITY);
  if (t == DT_U64) return ex_int(p, t, highest ? -1 : 0);
  const Range r = range_type(t);
  return ex_int(p, t, highest ? r.hi : r.lo);
}

const Expr *reduce_identity(ExprPool *p, ReduceKind kind, DType t) {
  switch (kind) {
    case RED_SUM: return ex_const(p, t, 0);
    case RED_PROD: return ex_const(p, t, 1);
    case RED_MIN: return lowest(p, t, true);
    case RED_MAX: return lowest(p, t, false);
    case RED_AND: return ex_int(p, t, -1);
    case RED_OR: return ex_int(p, t, 0);
  }
  return NULL;
}

const Expr *reduce_combine(ExprPool *p, ReduceKind kind, const Expr *a, const Expr *b) {
  static const ExprOp ops[] = {EX_add, EX_mul, EX_min, EX_max, EX_and, EX_or};
  return ex_op(p, ops[kind], a, b, NULL);
}

const Expr *ex_reduce(ExprPool *p, ReduceKind kind, const Expr *var, const Expr *body) {
  assert(var->op == EX_VAR);
  const Expr *const extent = p->vars.data[var->id].extent;
  int64_t n;
  if (expr_is_const(extent, &n)) {
    if (n <= 0) return reduce_identity(p, kind, body->dtype);
    if (n == 1) return expr_subst(p, body, var, p->vars.data[var->id].lo);
  }
  return expr_raw(p, EX_REDUCE, body->dtype, var->id, kind, body, extent, NULL);
}

const Expr *expr_rebuild(ExprPool *p, const Expr *e, const Expr *const *a) {
  switch (e->op) {
    case EX_CONST:
    case EX_SYM:
    case EX_VAR:
    case EX_HOLE: return e;
    case EX_LOAD: return ex_load(p, e->dtype, e->id, a[0], a[1]);
    case EX_LOCAL: return ex_local(p, e->dtype, e->id, a[0]);
    case EX_REDUCE: return ex_reduce(p, (ReduceKind)e->k.i, p->vars.data[e->id].expr, a[0]);
    case EX_cast: return ex_cast(p, e->dtype, a[0]);
    case EX_sat: return ex_sat(p, e->dtype, a[0]);
    case EX_bits: return ex_bits(p, e->dtype, a[0]);
    default: return ex_op(p, (ExprOp)e->op, a[0], a[1], a[2]);
  }
}

/* ---- questions ---- */
bool expr_is_const(const Expr *e, int64_t *v) {
  if (e->op != EX_CONST || dtype_is_float(e->dtype)) return false;
  if (v) *v = e->k.i;
  return true;
}
