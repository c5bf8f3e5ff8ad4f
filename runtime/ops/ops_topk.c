/* TopK along an axis: a heap of the k best so far, kept in the index output, sorted at the end.
 * Ties go to the lower index. Where a value's rank and its place fit 64 bits together, the heap
 * holds both, and a comparison is one of numbers. */
#include "runtime/ops/ops.h"

typedef struct Row {
  const RtTensor *x;
  int64_t base, stride; /* element i: base + i*stride */
  int32_t sign;         /* 1: largest, -1: smallest */
  bool ranked;          /* slots are rank << 32 | ~place, else places */
  int64_t *at;          /* heap slot j: at[j*step] */
  int64_t step;
} Row;

/* Larger for larger values; NaN above all, both zeros the same. */
static uint32_t rank_of_float(uint32_t bits) {
  const uint32_t size = bits & 0x7fffffffu;
  const uint32_t rank = bits >> 31 ? ~bits : bits | 0x80000000u;
  return size > 0x7f800000u ? ~0u : size ? rank : 0x80000000u;
}

static bool has_rank(int32_t t) {
  return rt_is_float(t) ? t != RT_F64 : t != RT_I64 && t != RT_U64;
}

static uint32_t rank_of(const Row *r, int64_t i) {
  const RtTensor *x = r->x;
  const int64_t e = r->base + i * r->stride;
  uint32_t rank;
  if (x->dtype == RT_F32)
    rank = rank_of_float(((const uint32_t *)x->data)[e]);
  else if (rt_is_float(x->dtype))
    rank = rank_of_float(rt_f32_bits((float)rt_load_f(x, e)));
  else
    rank = (uint32_t)(rt_load_i(x, e) + (x->dtype == RT_U32 ? 0 : INT64_C(0x80000000)));
  return r->sign > 0 ? rank : ~rank;
}

static int64_t slot_of(const Row *r, int64_t i) {
  return r->ranked ? (int64_t)((uint64_t)rank_of(r, i) << 32 | (0xffffffffu - (uint32_t)i)) : i;
}

static int64_t place_of(const Row *r, int64_t slot) {
  return r->ranked ? (int64_t)(0xffffffffu - (uint32_t)slot) : slot;
}

/* Slot a ranks below slot b. */
static bool below(const Row *r, int64_t a, int64_t b) {
  if (r->ranked) return (uint64_t)a < (uint64_t)b;
  const int32_t c =
      r->sign * rt_compare(r->x, r->base + a * r->stride, r->x, r->base + b * r->stride);
  return c ? c < 0 : a > b;
}

/* Puts `slot` where it belongs at or under slot i; the lowest is at the root. */
static void sift(const Row *r, int64_t i, int64_t n, int64_t slot) {
  for (int64_t c = 2 * i + 1; c < n; c = 2 * i + 1) {
    c += c + 1 < n && below(r, r->at[(c + 1) * r->step], r->at[c * r->step]);
    if (!below(r, r->at[c * r->step], slot)) break;
    r->at[i * r->step] = r->at[c * r->step];
    i = c;
  }
  r->at[i * r->step] = slot;
}

enum { BLOCK = 32 };

/* One of the BLOCK float32 elements from i on ranks above `least`. */
static bool any_above(const Row *r, int64_t i, uint32_t least) {
  const uint32_t *v = (const uint32_t *)r->x->data + r->base + i, flip = r->sign > 0 ? 0 : ~0u;
  uint32_t found = 0;
  for (int j = 0; j < BLOCK; j++) found |= (rank_of_float(v[j]) ^ flip) > least;
  return found;
}

static void top(const Row *r, int64_t n, int64_t k) {
  const bool blocks = r->ranked && r->stride == 1 && r->x->dtype == RT_F32;
  for (int64_t i = 0; i < k; i++) r->at[i * r->step] = slot_of(r, i);
  for (int64_t i = k / 2 - 1; i >= 0; i--) sift(r, i, k, r->at[i * r->step]);
  for (int64_t i = k; i < n;) {
    const int64_t left = n - i, end = i + (left < BLOCK ? left : BLOCK);
    /* what comes later and ranks the same is not among the best */
    const bool skip =
        blocks && left >= BLOCK && !any_above(r, i, (uint32_t)((uint64_t)r->at[0] >> 32));
    for (; !skip && i < end; i++) {
      const int64_t slot = slot_of(r, i);
      if (below(r, r->at[0], slot)) sift(r, 0, k, slot);
    }
    i = end;
  }
  for (int64_t end = k - 1; end > 0; end--) { /* the lowest goes last: best first at the end */
    const int64_t last = r->at[end * r->step];
    r->at[end * r->step] = r->at[0];
    sift(r, 0, end, last);
  }
  for (int64_t i = 0; i < k; i++) r->at[i * r->step] = place_of(r, r->at[i * r->step]);
}

/* in: X, K. out: values, indices (i64). words: axis (not negative), largest. scratch: one i64 per
 * element of the output (used when the index output is absent). */
int32_t rt_topk(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                void *scratch) {
  const RtTensor *x = &in[0];
  const int32_t axis = (int32_t)w[0];
  const int64_t *dims = out[0].data || n_out < 2 ? out[0].dims : out[1].dims;
  const int64_t n = x->dims[axis], k = dims[axis], outer = rt_product(x->dims, 0, axis);
  const int64_t inner = rt_product(x->dims, axis + 1, x->rank), size = rt_elem_size(x->dtype);
  int64_t *index = n_out > 1 && out[1].data ? (int64_t *)out[1].data : (int64_t *)scratch;
  if (k < 0 || k > n) return BURIN_E_DATA;
  const bool ranked = has_rank(x->dtype) && n < INT64_C(0xffffffff);
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner && k > 0; i++) {
      const Row r = {x,      o * n * inner + i,         inner, w[1] ? 1 : -1,
                     ranked, index + o * k * inner + i, inner};
      top(&r, n, k);
      for (int64_t j = 0; out[0].data && j < k; j++)
        rt_copy((char *)out[0].data + ((o * k + j) * inner + i) * size,
                (const char *)x->data + (r.base + r.at[j * inner] * inner) * size, size);
    }
  return BURIN_OK;
}
