/* The scalar expression of a kernel: follows inlined values through their elem, stops at loads.
 * Also what fusion and lowering ask of such expressions: cost with hoisting, loads, reductions. */
#include "passes/build/kernel.h"

#include <string.h>

/* ---- a map from expressions to two words, in scratch memory ---- */

typedef struct Seen {
  const Expr *key;
  uint64_t vars;
  double cost;
} Seen;
typedef struct SeenMap {
  Arena *a;
  Seen *slots;
  uint32_t cap, n;
  int32_t var_ids[64];
  double var_extent[64];
  int n_vars;
  double size;
  ExprPool *p;
} SeenMap;

static Seen *seen_slot(Seen *slots, uint32_t cap, const Expr *e) {
  uint32_t h = (e->uid * 2654435761u) & (cap - 1);
  while (slots[h].key && slots[h].key != e) h = (h + 1) & (cap - 1);
  return &slots[h];
}

/* The slot of e; *fresh tells whether it was just made. Pointers die with the next call. */
static Seen *seen_get(SeenMap *m, const Expr *e, bool *fresh) {
  if (2 * (m->n + 1) > m->cap) {
    const uint32_t cap = m->cap ? 2 * m->cap : 256;
    Seen *slots = ARENA_ARRAY(m->a, Seen, cap);
    for (uint32_t i = 0; i < m->cap; i++)
      if (m->slots[i].key) *seen_slot(slots, cap, m->slots[i].key) = m->slots[i];
    m->slots = slots;
    m->cap = cap;
  }
  Seen *s = seen_slot(m->slots, m->cap, e);
  *fresh = !s->key;
  if (*fresh) {
    s->key = e;
    m->n++;
  }
  return s;
}

/* ---- reading ---- */

bool value_is_view(const Value *v) {
  return v->def && (v->def->op->flags & OF_VIEW) && v->def_index == 0 && v->kind == TY_TENSOR;
}

const Value *view_source(const Value *v) {
  while (value_is_view(v) && !v->cdata && v->def->in[0]->dtype == v->dtype) v = v->def->in[0];
  return v;
}

bool layout_is_row_major(const Value *v) {
  if (v->layout.halo_lo || v->layout.pad) return false;
  if (!v->layout.perm) return true;
  int last = -1;
  for (int d = 0; d < v->rank; d++) {
    const int dim = v->layout.perm[d];
    if (expr_is_i64(v->dims[dim], 1)) continue;
    if (dim < last) return false;
    last = dim;
  }
  return true;
}

void strides_of(Model *m, const Value *v, const Expr **stride, const Expr **offset,
                const Expr **count) {
  ExprPool *p = m->pool;
  const Expr *run = ex_i64(p, 1), *off = ex_i64(p, 0);
  for (int k = v->rank - 1; k >= 0; k--) {
    const int d = v->layout.perm ? v->layout.perm[k] : k;
    const int lo = v->layout.halo_lo ? v->layout.halo_lo[d] : 0;
    const int hi = v->layout.halo_hi ? v->layout.halo_hi[d] : 0;
    stride[d] = run;
    off = ex_add(p, off, ex_mul(p, run, ex_i64(p, lo)));
    const int pad = k == v->rank - 1 ? v->layout.pad : 0;
    run = ex_mul(p, run, ex_add(p, v->dims[d], ex_i64(p, lo + hi + pad)));
  }
  if (offset) *offset = off;
  if (count) *count = run;
}

static bool flat_index(const Value *v, const Expr *const *idx, int64_t *flat) {
  *flat = 0;
  for (int d = 0; d < v->rank; d++) {
    int64_t i, n;
    if (!expr_is_const(v->dims[d], &n) || !expr_is_const(idx[d], &i)) return false;
    *flat = *flat * n + i;
  }
  return true;
}

static const Expr *known_element(ExprPool *p, const Value *v, const Expr *const *idx) {
  if (!v->cdata && !v->contents) return NULL;
  if (v->dtype == DT_STR) return NULL;
  int64_t flat = 0;
  if (v->cdata && v->cdata->count == 1) return value_element(p, v, 0);
  return flat_index(v, idx, &flat) ? value_element(p, v, flat) : NULL;
}

static const Expr *and_guard(ExprPool *p, const Expr *a, const Expr *b) {
  return !a ? b : !b ? a : ex_and(p, a, b);
}

static const Expr *row_major_index(ExprPool *p, const Value *v, const Expr *const *idx) {
  const Expr *lin = ex_i64(p, 0);
  for (int d = 0; d < v->rank; d++) lin = ex_add(p, ex_mul(p, lin, v->dims[d]), idx[d]);
  return lin;
}

const Expr *place_index(ExprPool *p, const Place *pl, int rank, const Expr *const *idx) {
  const Expr *lin = pl->base ? pl->base : ex_i64(p, 0);
  for (int d = 0; d < rank; d++) {
    const Expr *at = idx[d];
    if (d == 2 && pl->ring)
      at = ex_floormod(p, ex_add(p, at, ex_i64(p, pl->halo_lo[2])), ex_i64(p, pl->ring));
    lin = ex_add(p, lin, ex_mul(p, at, pl->stride[d]));
  }
  return lin;
}

static bool same_index(const Value *v, const Expr *const *a, const Expr *const *b) {
  for (int d = 0; d < v->rank; d++)
    if (a[d] != b[d] && !expr_is_i64(v->dims[d], 1)) return false;
  return true;
}

/* A load of element idx of a materialised value, or through a view of one; NULL when v must be
 * computed. */
static const Expr *load_of(KernelExpr *k, const Value *v, const Expr *const *idx,
                           const Expr *guard) {
  ExprPool *p = k->ctx.pool;
  int id = -1;
  if (v->inlined) {
    const Value *src = view_source(v);
    if (src == v || src->inlined || src == k->anchor) return NULL;
    if (src->contents && !src->def) return NULL;
    const Place *pl = k->place(k->user, src, &id);
    if (!pl || !pl->dense) return NULL;
    return ex_load(p, v->dtype, id, row_major_index(p, v, idx), guard);
  }
  const Place *pl = k->place(k->user, v, &id);
  if (!pl) return NULL;
  return ex_load(p, v->dtype, id, place_index(p, pl, v->rank, idx), guard);
}

/* ---- what was read before ---- */

/* All that a read depends on, and what it gave. Reductions are not kept: each read of one has a
 * variable of its own. */
typedef struct ReadSlot {
  const Value *v, *anchor;
  const Expr *guard, *around; /* of the read itself, and outside of it */
  const Expr *e;
  const Expr *idx[];
} ReadSlot;

static bool same_read(const ReadSlot *s, const KernelExpr *k, const Value *v,
                      const Expr *const *idx, const Expr *guard) {
  return s->v == v && s->anchor == k->anchor && s->guard == guard && s->around == k->guard &&
         (v->rank <= 0 || memcmp(s->idx, idx, sizeof *idx * (size_t)v->rank) == 0);
}

static uint32_t read_hash(const Value *v, const Expr *const *idx) {
  uint32_t h = (uint32_t)v->id * 2654435761u;
  for (int d = 0; d < v->rank; d++) h = (h ^ idx[d]->uid) * 2654435761u;
  return h ^ h >> 16;
}

static ReadSlot **read_slot(KernelExpr *k, const Value *v, const Expr *const *idx,
                            const Expr *guard) {
  uint32_t h = read_hash(v, idx) & (uint32_t)(k->read_cap - 1);
  while (k->read[h] && !same_read(k->read[h], k, v, idx, guard))
    h = (h + 1) & (uint32_t)(k->read_cap - 1);
  return &k->read[h];
}

static const Expr *read_before(KernelExpr *k, const Value *v, const Expr *const *idx,
                               const Expr *guard) {
  const ReadSlot *s = k->read_cap ? *read_slot(k, v, idx, guard) : NULL;
  return s ? s->e : NULL;
}

static void keep_read(KernelExpr *k, const Value *v, const Expr *const *idx, const Expr *guard,
                      const Expr *e) {
  if (!k->memory || k->bad || !e || (e->flags & EXF_REDUCE)) return;
  if (2 * k->n_read >= k->read_cap) {
    const KernelExpr old = *k;
    k->read_cap = old.read_cap ? 2 * old.read_cap : 16;
    k->read = ARENA_ARRAY(k->memory, ReadSlot *, k->read_cap);
    for (int i = 0; i < old.read_cap; i++) {
      ReadSlot *s = old.read[i];
      if (!s) continue;
      k->anchor = s->anchor;
      k->guard = s->around;
      *read_slot(k, s->v, s->idx, s->guard) = s;
    }
    k->anchor = old.anchor;
    k->guard = old.guard;
  }
  const size_t bytes = sizeof *idx * (size_t)v->rank;
  ReadSlot *s = arena_alloc(k->memory, sizeof *s + bytes);
  *s = (ReadSlot){v, k->anchor, guard, k->guard, e};
  memcpy(s->idx, idx, bytes);
  *read_slot(k, v, idx, guard) = s;
  k->n_read++;
}

static const Expr *read_value(ElemCtx *c, const Value *v, const Expr *const *idx,
                              const Expr *guard) {
  KernelExpr *k = (KernelExpr *)c;
  ExprPool *p = c->pool;
  if (v == k->anchor) {
    if (k->anchor_idx && !same_index(v, idx, k->anchor_idx)) k->bad = true;
    return ex_hole(p, v->dtype, 0);
  }
  const Expr *known = known_element(p, v, idx);
  if (known) return guard ? ex_select(p, guard, known, ex_const(p, v->dtype, 0)) : known;
  const Expr *all = and_guard(p, k->guard, guard);
  const Expr *e = load_of(k, v, idx, all);
  if (e) return e;
  if (!v->def) {
    k->bad = true;
    return ex_const(p, v->dtype, 0);
  }
  if ((e = read_before(k, v, idx, guard)) != NULL) return e;
  const Expr *outer = k->guard;
  k->n_computed++;
  k->guard = all;
  e = op_elem(c, v->def, v->def_index, idx);
  k->guard = outer;
  if (guard && e->op != EX_LOAD) e = ex_select(p, guard, e, ex_const(p, v->dtype, 0));
  keep_read(k, v, idx, guard, e);
  return e;
}

void kernel_expr_init(KernelExpr *k, Model *m, const Place *(*place)(void *, const Value *, int *),
                      void *user) {
  memset(k, 0, sizeof *k);
  k->ctx.pool = m->pool;
  k->ctx.model = m;
  k->ctx.read = read_value;
  k->place = place;
  k->user = user;
}

const Expr *kernel_expr_of(KernelExpr *k, const Value *v, const Expr *const *idx) {
  if (v == k->anchor) return ex_hole(k->ctx.pool, v->dtype, 0);
  return op_elem(&k->ctx, v->def, v->def_index, idx);
}

const Expr *kernel_expr_read(KernelExpr *k, const Value *v, const Expr *const *idx) {
  return read_value(&k->ctx, v, idx, NULL);
}

bool value_set_add(ValueSet *s, const Value *v) {
  if (2 * s->n >= s->cap) {
    const ValueSet old = *s;
    s->n = 0;
    s->cap = old.cap ? 2 * old.cap : 16;
    s->slot = ARENA_ARRAY(s->a, const Value *, s->cap);
    for (int i = 0; i < old.cap; i++)
      if (old.slot[i]) value_set_add(s, old.slot[i]);
  }
  uint32_t h = (uint32_t)v->id * 2654435761u & (uint32_t)(s->cap - 1);
  while (s->slot[h] && s->slot[h] != v) h = (h + 1) & (uint32_t)(s->cap - 1);
  if (s->slot[h]) return false;
  s->slot[h] = v;
  s->n++;
  return true;
}

static const Value *find_anchor(ValueSet *seen, const Value *root) {
  const Node *n = root->def;
  if (node_is_contraction(n)) return root;
  for (int i = 0; i < n->n_in; i++) {
    const Value *v = n->in[i];
    if (!v || !v->inlined || !v->def || !value_set_add(seen, v)) continue;
    const Value *a = find_anchor(seen, v);
    if (a) return a;
  }
  return NULL;
}

const Value *kernel_anchor(const Value *root) {
  if (!root->def) return NULL;
  ValueSet seen = {.a = arena_child(root->def->graph->model->arena)};
  const Value *anchor = find_anchor(&seen, root);
  arena_free(seen.a);
  return anchor;
}

/* ---- cost ---- */

static const uint8_t op_costs[EX_COUNT] = {
#define S(id, text, arity, result, cost) [EX_##id] = cost,
#include "ir/expr/scalar.def"
#undef S
};

double expr_extent_guess(ExprPool *p, const Expr *e) {
  int64_t v, lo, hi;
  if (expr_is_const(e, &v)) return v > 0 ? (double)v : 1.0;
  if (expr_range(p, e, &lo, &hi) && hi != INT64_MAX && hi < 4096) return (double)(hi > 0 ? hi : 1);
  switch (e->op) {
    case EX_mul: return expr_extent_guess(p, e->a[0]) * expr_extent_guess(p, e->a[1]);
    case EX_add: return expr_extent_guess(p, e->a[0]) + expr_extent_guess(p, e->a[1]);
    case EX_floordiv: {
      const double q = expr_extent_guess(p, e->a[0]) / expr_extent_guess(p, e->a[1]);
      return q > 1 ? q : 1;
    }
    default: return 64;
  }
}

static int local_var(SeenMap *m, int id) {
  for (int i = 0; i < m->n_vars; i++)
    if (m->var_ids[i] == id) return i;
  if (m->n_vars == 64) return 63;
  m->var_ids[m->n_vars] = id;
  m->var_extent[m->n_vars] = expr_extent_guess(m->p, expr_var_extent(m->p, id));
  return m->n_vars++;
}

static double times(const SeenMap *m, uint64_t vars) {
  double t = 1;
  for (int i = 0; i < m->n_vars; i++)
    if (vars >> i & 1) t *= m->var_extent[i];
  return t;
}

/* Free variables of e; adds the cost of nodes not seen before to *total. Integer index arithmetic
 * is nearly free except divisions: strength reduction and vector lanes take care of it. */
static uint64_t cost_walk(SeenMap *m, const Expr *e, double *total) {
  bool fresh;
  Seen *s = seen_get(m, e, &fresh);
  if (!fresh) return s->vars;
  uint64_t vars = 0, bound = 0;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) vars |= cost_walk(m, e->a[i], total);
  if (e->op == EX_VAR) vars |= 1ull << local_var(m, e->id);
  if (e->op == EX_REDUCE) bound = 1ull << local_var(m, e->id);
  const bool running = e->op == EX_REDUCE && (e->a[1]->flags & EXF_VAR); /* a step per index */
  double c = op_costs[e->op];
  const bool index = e->dtype == DT_I64 && !(e->flags & EXF_LOAD);
  if (index && e->op != EX_floordiv && e->op != EX_floormod) c = 0.1;
  if (e->op == EX_LOAD) c = 1;
  if (e->op == EX_CONST || e->op == EX_VAR || e->op == EX_SYM) c = 0;
  if (e->op == EX_REDUCE) c = 1;
  m->size += c;
  *total += c * times(m, running ? vars & ~bound : vars | bound);
  s = seen_get(m, e, &fresh);
  s->vars = vars & ~bound;
  return s->vars;
}

double expr_cost_and_size(ExprPool *p, int n, const Expr *const *es, double *size) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  double total = 0;
  for (int i = 0; i < n; i++) cost_walk(&m, es[i], &total);
  arena_free(m.a);
  *size = m.size;
  return total;
}

double expr_total_cost(ExprPool *p, int n, const Expr *const *es) {
  double size;
  return expr_cost_and_size(p, n, es, &size);
}

/* ---- replacing ---- */

typedef struct Replace {
  SeenMap seen; /* vars holds the pointer of the result */
  int n;
  const Expr *const *from, *const *to;
} Replace;

static const Expr *rebuild(ExprPool *p, const Expr *e, const Expr *const *a) {
  switch (e->op) {
    case EX_LOAD: return ex_load(p, e->dtype, e->id, a[0], a[1]);
    case EX_LOCAL: return ex_local(p, e->dtype, e->id, a[0]);
    case EX_REDUCE: return ex_reduce(p, (ReduceKind)e->k.i, ex_var_of(p, e->id), a[0]);
    case EX_cast: return ex_cast(p, e->dtype, a[0]);
    case EX_sat: return ex_sat(p, e->dtype, a[0]);
    case EX_bits: return ex_bits(p, e->dtype, a[0]);
    default: return ex_op(p, (ExprOp)e->op, a[0], a[1], a[2]);
  }
}

static const Expr *replace_walk(Replace *r, const Expr *e) {
  for (int i = 0; i < r->n; i++)
    if (e == r->from[i]) return r->to[i];
  if (!e->nargs) return e;
  bool fresh;
  Seen *s = seen_get(&r->seen, e, &fresh);
  if (!fresh) return (const Expr *)(uintptr_t)s->vars;
  const Expr *a[3] = {0};
  bool same = true;
  for (int i = 0; i < 3; i++) {
    if (!e->a[i] || (e->op == EX_REDUCE && i == 1)) continue;
    a[i] = replace_walk(r, e->a[i]);
    same = same && a[i] == e->a[i];
  }
  const Expr *out = same ? e : rebuild(r->seen.p, e, a);
  s = seen_get(&r->seen, e, &fresh);
  s->vars = (uintptr_t)out;
  return out;
}

const Expr *expr_replace(ExprPool *p, const Expr *e, int n, const Expr *const *from,
                         const Expr *const *to) {
  Replace r = {
      .seen = {.a = arena_child(expr_pool_arena(p)), .p = p}, .n = n, .from = from, .to = to};
  const Expr *out = n ? replace_walk(&r, e) : e;
  arena_free(r.seen.a);
  return out;
}

/* ---- walks ---- */

static void walk_loads(SeenMap *m, const Expr *e, void (*f)(void *, const Expr *), void *user) {
  bool fresh;
  if (!(e->flags & EXF_LOAD)) return;
  seen_get(m, e, &fresh);
  if (!fresh) return;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) walk_loads(m, e->a[i], f, user);
  if (e->op == EX_LOAD) f(user, e);
}

void expr_each_load(ExprPool *p, const Expr *e, void (*f)(void *, const Expr *), void *user) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  walk_loads(&m, e, f, user);
  arena_free(m.a);
}

static void walk_reductions(SeenMap *m, const Expr *e, ExprList *out) {
  bool fresh;
  if (!(e->flags & EXF_REDUCE)) return;
  seen_get(m, e, &fresh);
  if (!fresh) return;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) walk_reductions(m, e->a[i], out);
  if (e->op == EX_REDUCE) vec_push(expr_pool_arena(m->p), out, e);
}

void expr_reductions(ExprPool *p, const Expr *e, ExprList *out) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  walk_reductions(&m, e, out);
  arena_free(m.a);
}

const Expr *expr_scan_var(ExprPool *p, const Expr *r, int *sign, const Expr **rest) {
  const Expr *coeff, *lo = expr_var_lo(p, r->id);
  if (r->op != EX_REDUCE || !(r->a[1]->flags & EXF_VAR) || (lo && !expr_is_i64(lo, 0))) return NULL;
  ExprTerm t[16];
  const int n = expr_terms(p, r->a[1], t, 16);
  for (int i = 0; i < n; i++) {
    const Expr *v = t[i].product;
    if (!v || v->op != EX_VAR || (t[i].coeff != 1 && t[i].coeff != -1)) continue;
    if (expr_uses_var(r->a[0], v->id) || !expr_affine(p, r->a[1], v, &coeff, rest)) continue;
    *sign = (int)t[i].coeff;
    return v;
  }
  return NULL;
}

/* A scan in e; of_reductions: one that adds up what holds a reduction. */
static bool any_scan(ExprPool *p, const Expr *e, bool of_reductions) {
  ExprList l = {0};
  const Expr *rest;
  int sign;
  expr_reductions(p, e, &l);
  for (int i = 0; i < l.n; i++)
    if (expr_scan_var(p, l.data[i], &sign, &rest) &&
        (!of_reductions || l.data[i]->a[0]->flags & EXF_REDUCE))
      return true;
  return false;
}

bool expr_has_scan(ExprPool *p, const Expr *e) { return any_scan(p, e, false); }

bool expr_sums_sums(ExprPool *p, const Expr *e) {
  enum { LONG = 32 };
  ExprList l = {0};
  expr_reductions(p, e, &l);
  for (int i = 0; i < l.n; i++) {
    const Expr *r = l.data[i];
    if (r->a[0]->op == EX_REDUCE) continue; /* of several dimensions */
    for (int k = 0; k < l.n; k++) {
      const Expr *q = l.data[k];
      if (q != r && expr_extent_guess(p, q->a[1]) >= LONG && expr_uses_var(q, r->id) &&
          expr_contains(p, r->a[0], q))
        return true;
    }
  }
  return false;
}

bool expr_scan_reduces(ExprPool *p, const Expr *e) { return any_scan(p, e, true); }

static bool walk_contains(SeenMap *m, const Expr *e, const Expr *part) {
  bool fresh;
  if (e == part) return true;
  if (e->uid < part->uid || !e->nargs) return false; /* parts are made before the whole */
  seen_get(m, e, &fresh);
  if (!fresh) return false;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i] && walk_contains(m, e->a[i], part)) return true;
  return false;
}

bool expr_contains(ExprPool *p, const Expr *e, const Expr *part) {
  SeenMap m = {.a = arena_child(expr_pool_arena(p)), .p = p};
  const bool found = walk_contains(&m, e, part);
  arena_free(m.a);
  return found;
}
