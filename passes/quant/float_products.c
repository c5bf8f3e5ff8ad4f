/* Products of 8-bit integers as Conv and MatMul over f32 operands less their zero points. Exact:
 * operands are small integers, and a rewrite happens only where no partial sum, in whatever order,
 * can leave what f32 holds exactly. Long contractions are cut into parts that hold, added up in
 * i32. */
#include "passes/quant/exact_products.h"

#include <math.h>
#include <string.h>

#include "passes/build/kernel.h"

enum { MAX_PARTS = 16, MAX_ATTRS = 16 };
static const double exact_limit = 1 << 24; /* integers up to here are f32 values */

double product_reach(const Value *v, const Value *zero) {
  const double lo = v->dtype == DT_I8 ? -128 : 0, hi = lo + 255;
  if (zero && !zero->cdata) return 255;
  const double z = zero ? (double)const_int(zero->cdata, 0) : 0;
  return fmax(hi - z, z - lo);
}

/* ---- whether ---- */

double float_product_largest(const Product *p, int64_t from, int64_t to, Arena *scratch) {
  const int64_t bins = p->conv ? 1 : p->inner;
  double *sums = ARENA_ARRAY(scratch, double, p->inner + 1);
  double worst = 0;
  for (int64_t o = 0; o < p->outer; o++) {
    memset(sums, 0, sizeof *sums * (size_t)bins);
    for (int64_t k = from; k < to; k++)
      for (int64_t i = 0; i < p->inner; i++)
        sums[bins == 1 ? 0 : i] += fabs(p->centered[(o * p->axis + k) * p->inner + i]);
    for (int64_t i = 0; i < bins; i++) worst = fmax(worst, sums[i]);
  }
  return worst;
}

/* The smallest number of parts that are exact; false when there is none. */
static bool choose_parts(Product *p, Arena *scratch) {
  const bool cut = !p->conv || node_int(p->n, "group", 1) == 1;
  for (int64_t parts = 1; parts <= (cut ? MAX_PARTS : 1) && parts <= p->axis; parts++) {
    p->step = (p->axis + parts - 1) / parts;
    p->worst = 0;
    for (int64_t k = 0; k < p->axis; k += p->step) {
      const int64_t to = k + p->step < p->axis ? k + p->step : p->axis;
      const double sum = p->centered ? float_product_largest(p, k, to, scratch)
                                     : (double)(to - k) * product_reach(p->w, p->wz);
      p->worst = fmax(p->worst, sum * p->x_max);
    }
    if (p->worst <= exact_limit) return true;
  }
  return false;
}

bool float_product_fits(Product *p, Arena *scratch) {
  p->x_max = product_reach(p->x, p->xz);
  if (!p->w->cdata && (p->conv || !expr_is_const(p->w->dims[p->w->rank - 2], &p->axis)))
    return false;
  return choose_parts(p, scratch);
}

/* ---- building ---- */

/* An 8-bit value less its zero point, in f32. */
static Value *center(Build *b, Value *v, Value *zero) {
  v = build_cast(b, v, DT_F32);
  if (!zero) return v;
  if (!zero->cdata) return product_binary(b, "Sub", v, build_cast(b, zero, DT_F32));
  const int64_t z = const_int(zero->cdata, 0);
  return z ? product_binary(b, "Sub", v, build_scalar(b, DT_F32, (double)z)) : v;
}

static Value *cut(Build *b, Value *v, int axis, int64_t from, int64_t to) {
  const int64_t at = axis;
  Value *in[] = {v, build_i64s(b, 1, &from), build_i64s(b, 1, &to), build_i64s(b, 1, &at)};
  return b->ok ? build_op(b, "Slice", 4, in, 0, NULL) : v;
}

/* Rows [from, to) of the centered weights as a constant. */
static Value *weight_part(const Product *p, int64_t from, int64_t to) {
  const ConstData *w = p->w->cdata;
  const int64_t rows = to - from, run = rows * p->inner;
  int64_t dims[MAX_RANK];
  memcpy(dims, w->dims, sizeof *dims * (size_t)w->rank);
  dims[p->conv ? 1 : w->rank - 2] = rows;
  float *data = arena_alloc_array(p->m->arena, (size_t)(p->outer * run + 1), sizeof *data);
  for (int64_t o = 0; o < p->outer; o++)
    memcpy(data + o * run, p->centered + (o * p->axis + from) * p->inner,
           sizeof *data * (size_t)run);
  return value_const(p->m, const_new(p->m, w->name, DT_F32, w->rank, dims, data));
}

/* The bias as f32 where sums stay exact with it, else NULL. */
static Value *float_bias(const Product *p) {
  const ConstData *bias = p->bias ? p->bias->cdata : NULL;
  if (!bias || p->step < p->axis) return NULL;
  float *data = ARENA_ARRAY(p->m->arena, float, bias->count + 1);
  for (int64_t i = 0; i < bias->count; i++) {
    const double k = (double)const_int(bias, i);
    if (fabs(k) + p->worst > exact_limit) return NULL;
    data[i] = (float)k;
  }
  return value_const(p->m, const_new(p->m, bias->name, DT_F32, bias->rank, bias->dims, data));
}

/* One part of the contraction: f32 with integer values. */
static Value *part(Build *b, const Product *p, Value *x, Value *w, Value *bias) {
  Attr attrs[MAX_ATTRS + 1];
  int count = 0;
  if (!b->ok) return x;
  if (!p->conv) {
    Value *const v = build2(b, "MatMul", x, w);
    return bias ? product_binary(b, "Add", v, bias) : v;
  }
  for (int i = 0; i < p->n->n_attrs && count < MAX_ATTRS; i++) attrs[count++] = p->n->attrs[i];
  attrs[count++] = attr_int(b->m->arena, "exact", 1); /* no algorithm that rounds on its way */
  return build_op(b, "Conv", bias ? 3 : 2, (Value *[]){x, w, bias}, count, attrs);
}

/* All parts: f32 when there is one, else i32. */
static Value *contraction(Build *b, const Product *p, Value *bias) {
  Value *x = center(b, p->x, p->xz), *w = p->centered ? NULL : center(b, p->w, p->wz), *sum = NULL;
  const bool whole = p->step >= p->axis;
  for (int64_t k = 0; k < p->axis && b->ok; k += p->step) {
    const int64_t to = k + p->step < p->axis ? k + p->step : p->axis;
    Value *xs = whole ? x : cut(b, x, p->conv ? 1 : x->rank - 1, k, to);
    Value *ws = p->centered ? weight_part(p, k, to) : whole ? w : cut(b, w, w->rank - 2, k, to);
    Value *v = part(b, p, xs, ws, bias);
    if (!whole) v = build_cast(b, v, DT_I32);
    sum = sum ? product_binary(b, "Add", sum, v) : v;
  }
  return sum;
}

/* With its bias, in f32 or, where that is not exact, in i32. */
Value *float_product(Build *b, const Product *p) {
  Value *bias = p->bias, *in_float = float_bias(p);
  Value *sum = contraction(b, p, in_float);
  if (!bias || in_float) return sum;
  return product_binary(b, "Add", build_cast(b, sum, DT_I32), product_per_channel(b, p, bias));
}
