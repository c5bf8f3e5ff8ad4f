/* ScatterND by many threads. Phase 0 copies the data. Phase 1: every thread goes through all updates,
 * in their order, and makes those of elements that are its own. */

int32_t rt_scatter_nd_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                           const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *data = &in[0], *index = &in[1], *up = &in[2];
  if (index->rank < 1) return BURIN_E_DATA;
  const int64_t depth = index->dims[index->rank - 1], size = rt_elem_size(data->dtype);
  if (depth < 0 || depth > data->rank) return BURIN_E_DATA;
  const int64_t rows = rt_product(index->dims, 0, index->rank - 1),
                slice = rt_product(data->dims, (int32_t)depth, data->rank);
  if (rt_count(up) < rows * slice) return BURIN_E_DATA;
  for (int64_t i = t->at; t->phase == 0 && i < rt_count(data); i += t->n)
    rt_copy((char *)out->data + i * size, (const char *)data->data + i * size, size);
  for (int64_t r = 0; t->phase == 1 && r < rows; r++) {
    int64_t to = 0;
    for (int64_t j = 0; j < depth; j++) {
      const int64_t v = rt_wrap(rt_load_i(index, r * depth + j), data->dims[j]);
      if (v < 0) return BURIN_E_DATA;
      to = to * data->dims[j] + v;
    }
    to *= slice;
    for (int64_t i = (t->at + t->n - to % t->n) % t->n; i < slice; i += t->n)
      combine(out, to + i, up, r * slice + i, w[0]);
  }
  return BURIN_OK;
}
