/* TopK by many threads: an element's place is the number of those that rank above it. Where rows are
 * many and long, a thread takes a whole one. */

static void place_element(const Row *r, int64_t i, int64_t n, int64_t k, RtTensor *out,
                          int64_t to) {
  const int64_t own = slot_of(r, i), size = rt_elem_size(r->x->dtype);
  int64_t place = 0;
  for (int64_t j = 0; j < n && place < k; j++) place += j != i && below(r, own, slot_of(r, j));
  if (place >= k) return;
  to += place * r->step;
  if (out[0].data)
    rt_copy((char *)out[0].data + to * size,
            (const char *)r->x->data + (r->base + i * r->stride) * size, size);
  if (out[1].data) ((int64_t *)out[1].data)[to] = i;
}

static void place_row(const Row *r, int64_t n, int64_t k, RtTensor *out, int64_t to) {
  const int64_t size = rt_elem_size(r->x->dtype);
  top(r, n, k);
  for (int64_t j = 0; out[0].data && j < k; j++)
    rt_copy((char *)out[0].data + (to + j * r->step) * size,
            (const char *)r->x->data + (r->base + r->at[j * r->step] * r->stride) * size, size);
}

int32_t rt_topk_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                     const int64_t *w, void *scratch, const RtTeam *t) {
  enum { HEAP = 24 }; /* comparisons for an element of a row that one thread goes through */
  const RtTensor *x = &in[0];
  const int32_t axis = (int32_t)w[0];
  const int64_t *dims = out[0].data ? out[0].dims : out[1].dims;
  const int64_t n = x->dims[axis], k = dims[axis], outer = rt_product(x->dims, 0, axis);
  const int64_t inner = rt_product(x->dims, axis + 1, x->rank), rows = outer * inner;
  int64_t *index = out[1].data ? (int64_t *)out[1].data : (int64_t *)scratch;
  if (k < 0 || k > n) return BURIN_E_DATA;
  const bool ranked = has_rank(x->dtype) && n < INT64_C(0xffffffff);
  const bool by_element = rows * n / t->n < HEAP * (rows / t->n + 1);
  const int64_t per_row = by_element ? n : 1;
  for (int64_t u = t->at; u < rows * per_row && k > 0; u += t->n) {
    const int64_t row = u / per_row, o = row / inner, i = row % inner, to = o * k * inner + i;
    const Row r = {x, o * n * inner + i, inner, w[1] ? 1 : -1, ranked, index + to, inner};
    if (by_element)
      place_element(&r, u % per_row, n, k, out, to);
    else
      place_row(&r, n, k, out, to);
  }
  return BURIN_OK;
}
