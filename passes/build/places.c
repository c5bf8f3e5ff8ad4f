/* Where values lie: a place is made when a value is first asked for, so what nobody reads gets
 * none. Constants become weights, views lie in their source, everything else gets a buffer of the
 * arena by its layout. */
#include "passes/build/kernel.h"

static const Expr **dense_strides(Lower *l, int rank, const Expr *const *dims) {
  const Expr **s = ARENA_ARRAY(l->m->arena, const Expr *, rank + 1), *run = ex_i64(l->p, 1);
  for (int d = rank - 1; d >= 0; d--) {
    s[d] = run;
    run = ex_mul(l->p, run, dims[d]);
  }
  return s;
}

void place_dense(Lower *l, Place *pl, const Value *v, int buffer, const Expr *offset) {
  *pl = (Place){.buffer = buffer, .offset = offset, .dense = true};
  pl->stride = dense_strides(l, v->rank, v->dims);
}

Place *lower_temp(Lower *l, DType t, int rank, const Expr *const *dims, const char *name) {
  const Expr *n = ex_i64(l->p, 1);
  for (int d = 0; d < rank; d++) n = ex_mul(l->p, n, dims[d]);
  Place *pl = ARENA_NEW(l->m->arena, Place);
  pl->buffer = module_add_memory(l->mod, t, n, name)->id;
  pl->offset = ex_i64(l->p, 0);
  pl->stride = dense_strides(l, rank, dims);
  pl->dense = true;
  return pl;
}

static void place_constant(Lower *l, Place *pl, const Value *v) {
  for (int i = 0; i < l->mod->buffers.n; i++)
    if (l->mod->buffers.data[i].kind == BUF_WEIGHT && l->mod->buffers.data[i].data == v->cdata) {
      place_dense(l, pl, v, i, ex_i64(l->p, 0));
      return;
    }
  Buffer *b = module_add_buffer(l->mod, BUF_WEIGHT, v->dtype, ex_i64(l->p, v->cdata->count), NULL);
  b->data = v->cdata;
  place_dense(l, pl, v, b->id, ex_i64(l->p, 0));
}

/* Sizes that a small input would make negative are refused at entry. */
void lower_assume_sizes(Lower *l, const Value *v) {
  const Expr *zero = ex_i64(l->p, 0);
  for (int d = 0; d < v->rank; d++) {
    int64_t lo, hi;
    if (!expr_range(l->p, v->dims[d], &lo, &hi) || lo < 0)
      model_assume(l->m, (DimAssume){.kind = ASSUME_AT_LEAST,
                                     .a = v->dims[d],
                                     .b = zero,
                                     .what = "size of a result",
                                     .loc = v->def ? v->def->loc : NULL});
  }
}

static void place_arena(Lower *l, Place *pl, const Value *v) {
  lower_assume_sizes(l, v);
  pl->stride = ARENA_ARRAY(l->m->arena, const Expr *, v->rank + 1);
  const Expr *count;
  strides_of(l->m, v, pl->stride, &pl->base, &count);
  pl->offset = ex_i64(l->p, 0);
  Buffer *const b = module_add_memory(l->mod, v->dtype, count, NULL);
  b->value = v;
  pl->buffer = b->id;
  pl->dense = layout_is_row_major(v);
  pl->fill = v->layout.fill;
  for (int d = 0; d < v->rank && v->layout.halo_lo; d++) {
    pl->halo_lo[d] = v->layout.halo_lo[d];
    pl->halo_hi[d] = v->layout.halo_hi[d];
  }
}

/* A view that must lie in memory shares the memory of its source where that is dense. */
static bool place_view(Lower *l, Place *pl, const Value *v) {
  const Value *src = view_source(v);
  if (src == v || src->inlined) return false;
  const Place *from = lower_place(l, src);
  if (!from || !from->dense) return false;
  const int buffer = from->buffer;
  const Expr *offset = from->offset;
  place_dense(l, &l->places[v->id], v, buffer, offset);
  l->places[v->id].alias = true;
  (void)pl;
  return true;
}

const Place *lower_place(Lower *l, const Value *v) {
  Place *pl = &l->places[v->id];
  if (pl->buffer >= 0) return pl;
  if (v->cdata)
    place_constant(l, pl, v);
  else if (!v->def)
    return NULL; /* inputs were placed before */
  else if (!place_view(l, pl, v))
    place_arena(l, pl, v);
  return pl;
}

bool lower_is_placed(const Lower *l, const Value *v) { return l->places[v->id].buffer >= 0; }
