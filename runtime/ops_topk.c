/* TopK along an axis: a heap of the k best so far, kept in the index output, sorted at the end.
 * Ties go to the lower index. */
#include "runtime/ops.h"

typedef struct Row {
  const RtTensor *x;
  int64_t base, stride; /* element i: base + i*stride */
  int32_t sign;         /* 1: largest, -1: smallest */
  int64_t *at;          /* heap slot j: at[j*step] */
  int64_t step;
} Row;

/* a ranks below b. */
static bool below(const Row *r, int64_t a, int64_t b) {
  if (r->x->dtype == RT_F32) {
    const float *v = (const float *)r->x->data + r->base;
    const float p = v[a * r->stride], q = v[b * r->stride];
    if (p != q && p == p && q == q) return r->sign > 0 ? p < q : p > q;
  }
  const int32_t c =
      r->sign * rt_compare(r->x, r->base + a * r->stride, r->x, r->base + b * r->stride);
  return c ? c < 0 : a > b;
}

/* Keeps the lowest at the root. */
static void sift(const Row *r, int64_t i, int64_t n) {
  for (int64_t c = 2 * i + 1; c < n; c = 2 * i + 1) {
    if (c + 1 < n && below(r, r->at[(c + 1) * r->step], r->at[c * r->step])) c++;
    const int64_t a = r->at[i * r->step], b = r->at[c * r->step];
    if (!below(r, b, a)) return;
    r->at[i * r->step] = b;
    r->at[c * r->step] = a;
    i = c;
  }
}

static void top(const Row *r, int64_t n, int64_t k) {
  for (int64_t i = 0; i < k; i++) r->at[i * r->step] = i;
  for (int64_t i = k / 2 - 1; i >= 0; i--) sift(r, i, k);
  for (int64_t i = k; i < n; i++) {
    if (!below(r, r->at[0], i)) continue;
    r->at[0] = i;
    sift(r, 0, k);
  }
  for (int64_t end = k - 1; end > 0; end--) { /* the lowest goes last: best first at the end */
    const int64_t low = r->at[0];
    r->at[0] = r->at[end * r->step];
    r->at[end * r->step] = low;
    sift(r, 0, end);
  }
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
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner && k > 0; i++) {
      const Row r = {x, o * n * inner + i, inner, w[1] ? 1 : -1, index + o * k * inner + i, inner};
      top(&r, n, k);
      for (int64_t j = 0; out[0].data && j < k; j++)
        rt_copy((char *)out[0].data + ((o * k + j) * inner + i) * size,
                (const char *)x->data + (r.base + r.at[j * inner] * inner) * size, size);
    }
  return BURIN_OK;
}
