/* See byte_table.h. The expression of a value is built as for a kernel, its root standing for the
 * contraction of which there is one element; evaluated for 256 values, it is the table. */
#include "passes/quant/byte_table.h"

#include "ir/eval/tape.h"
#include "ir/expr/expr_query.h"
#include "passes/build/kernel.h"

#include <string.h>

enum { BYTES = 256, ROOT = 0, MAX_TABLES = 16 };

/* ---- roots ---- */

Value *byte_root(const ByteRoots *r, Value *v) {
  if (v->id < r->n && r->of[v->id]) return r->of[v->id];
  return value_is_byte(v) && !v->cdata ? v : NULL;
}

void byte_root_set(ByteRoots *r, Arena *scratch, const Value *v, Value *root) {
  if (v->id >= r->n) {
    const int n = 2 * v->id + 64;
    Value **of = ARENA_ARRAY(scratch, Value *, n);
    if (r->n) memcpy(of, r->of, sizeof *of * (size_t)r->n);
    r->of = of;
    r->n = n;
  }
  r->of[v->id] = root;
}

static bool is_table(const Node *n) {
  return strcmp(n->op->domain, "burin") == 0 && strcmp(n->op->name, "ByteTable") == 0;
}

static bool may_be_elementwise(const Node *n) {
  const unsigned others =
      OF_CONTRACTION | OF_INDEX_ONLY | OF_RANDOM | OF_PIECES | OF_SCATTER | OF_ANYKIND;
  return (n->op->body == OB_EW || n->op->body == OB_ELEM) && n->n_out == 1 &&
         n->out[0]->kind == TY_TENSOR && !(n->op->flags & others);
}

static bool one_constant(const Value *v) { return v->cdata && v->cdata->count == 1; }

Value *byte_root_of_node(const ByteRoots *r, const Node *n) {
  Value *root = NULL;
  if (!may_be_elementwise(n)) return NULL;
  for (int k = 0; k < n->n_in; k++) {
    Value *v = n->in[k];
    if (!v || one_constant(v) || (is_table(n) && k == 1)) continue;
    Value *of = byte_root(r, v);
    if (!of || (root && of != root) || !value_same_shape(v, n->out[0])) return NULL;
    root = of;
  }
  return root;
}

/* What a look-up of as many bytes as a register holds floats costs, in the units of expressions. */
static double table_cost(const Target *t) {
  if (target_has(t, FEATURE_VBMI)) return 3;
  if (target_has(t, FEATURE_PAIRS)) return 24; /* sixteen rows of sixteen bytes */
  return 8;
}

/* ---- the expression ---- */

/* What may be read besides the root: tables, numbered from 1 on. */
typedef struct Tables {
  Model *m;
  Arena *a;
  const Value *of[MAX_TABLES + 1];
  int n;
} Tables;

static const Place *place_of_table(void *user, const Value *v, int *id) {
  Tables *t = user;
  if (!v->cdata || v->cdata->count != BYTES || v->rank != 1 || !value_is_byte(v)) return NULL;
  for (*id = 1; *id <= t->n && t->of[*id] != v;) ++*id;
  if (*id > MAX_TABLES) return NULL;
  t->n = *id > t->n ? *id : t->n;
  t->of[*id] = v;
  Place *place = ARENA_NEW(t->a, Place);
  place->stride = ARENA_ARRAY(t->a, const Expr *, 1);
  place->stride[0] = ex_i64(t->m->pool, 1);
  place->dense = true;
  return place;
}

static const Expr *expression(PassCtx *c, Tables *tables, const Value *root, Value *v) {
  ExprPool *p = c->model->pool;
  KernelExpr x;
  const Expr *idx[MAX_RANK];
  for (int d = 0; d < v->rank; d++)
    idx[d] = expr_is_i64(v->dims[d], 1) ? ex_i64(p, 0) : ex_var(p, "f", v->dims[d]);
  kernel_expr_init(&x, c->model, place_of_table, tables);
  x.memory = c->scratch;
  x.anchor = root;
  x.anchor_idx = idx;
  const Expr *e = kernel_expr_of(&x, v, idx);
  return x.bad || (e->flags & (EXF_VAR | EXF_REDUCE | EXF_SYM)) ? NULL : e;
}

static Scalar load_byte(void *user, DType t, int number, int64_t index) {
  const Tables *tables = user;
  if (number == ROOT) return (Scalar){.i = t == DT_I8 ? (int8_t)index : index};
  return (Scalar){.i = const_int(tables->of[number]->cdata, index)};
}

bool byte_results(PassCtx *c, Value *root, Value *v, uint8_t *results, double *cost) {
  ExprPool *p = c->model->pool;
  Tables tables = {.m = c->model, .a = c->scratch};
  const Expr *e = expression(c, &tables, root, v);
  if (!e) return false;
  const Expr *hole = ex_hole(p, root->dtype, 0), *i = ex_var(p, "i", ex_i64(p, BYTES));
  const Expr *load = ex_load(p, root->dtype, ROOT, i, NULL);
  *cost = expr_total_cost(p, 1, &e) + tables.n * table_cost(c->target);
  e = expr_replace(p, e, 1, &hole, &load);
  const TapeEnv env = {.user = &tables, .load = load_byte};
  Tape *tape = tape_new(c->scratch, p, e);
  for (int k = 0; k < BYTES; k++) {
    tape_set(tape, i, k);
    results[k] = (uint8_t)tape_run(tape, &env).i;
  }
  return true;
}

/* ---- what it becomes ---- */

static int value_of(DType t, int bits) { return t == DT_I8 ? (int8_t)bits : bits; }

/* The ends that results clamp their argument to; false: they do something else. */
static bool is_clamp(DType t, const uint8_t *results, int *lo, int *hi) {
  const int least = t == DT_I8 ? -128 : 0, most = least + BYTES - 1;
  *lo = value_of(t, results[(uint8_t)least]);
  *hi = value_of(t, results[(uint8_t)most]);
  for (int k = least; k <= most; k++) {
    const int want = k < *lo ? *lo : k > *hi ? *hi : k;
    if (value_of(t, results[(uint8_t)k]) != want) return false;
  }
  return *lo <= *hi;
}

static Value *clamped(Build *b, Value *v, int lo, int hi) {
  const int least = v->dtype == DT_I8 ? -128 : 0;
  if (lo > least && b->ok) v = build2(b, "Max", v, build_scalar(b, v->dtype, lo));
  if (hi < least + BYTES - 1 && b->ok) v = build2(b, "Min", v, build_scalar(b, v->dtype, hi));
  return v;
}

static Value *table_of(Build *b, Value *root, const Value *v, const uint8_t *results) {
  const int64_t dims[] = {BYTES};
  const void *data = arena_dup(b->m->arena, results, BYTES);
  Value *table = value_const(b->m, const_new(b->m, NULL, v->dtype, 1, dims, data));
  return build_node(b, "ByteTable", "burin", 2, (Value *[]){root, table}, 1, 0, NULL)->out[0];
}

Value *byte_from_root(Build *b, PassCtx *c, Value *root, Value *v) {
  uint8_t results[BYTES];
  double cost;
  int lo, hi;
  if (!byte_results(c, root, v, results, &cost)) return NULL;
  if (cost > 2 && root->dtype == v->dtype && is_clamp(v->dtype, results, &lo, &hi))
    return clamped(b, root, lo, hi);
  return cost > table_cost(c->target) && b->ok ? table_of(b, root, v, results) : NULL;
}
