/* The scalar expression of a kernel: follows inlined values through their elem, stops at loads.
 * Also what fusion and lowering ask of such expressions: cost with hoisting, loads, reductions. */
#include "passes/build/kernel.h"

#include <string.h>

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

void stand_ins_init(StandIns *s, Model *m, Arena *scratch) {
  *s = (StandIns){.m = m, .a = scratch, .n = m->next_value};
  s->places = ARENA_ARRAY(scratch, Place, s->n + 1);
  s->values = ARENA_ARRAY(scratch, const Value *, s->n + 1);
}

const Place *stand_in(void *stand_ins, const Value *v, int *id) {
  StandIns *s = stand_ins;
  Place *pl = v->id < s->n ? &s->places[v->id] : ARENA_NEW(s->a, Place);
  if (!pl->stride) {
    pl->stride = ARENA_ARRAY(s->a, const Expr *, v->rank + 1);
    Value plain = *v;
    plain.layout = (Layout){0};
    strides_of(s->m, &plain, pl->stride, NULL, NULL);
    pl->dense = true;
    if (v->id < s->n) s->values[v->id] = v;
  }
  *id = v->id;
  return pl;
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

bool node_is_scatter(const Node *n) {
  return (n->op->flags & OF_SCATTER) && n->out[0]->rank > 0 && n->out[0]->dtype != DT_STR;
}
