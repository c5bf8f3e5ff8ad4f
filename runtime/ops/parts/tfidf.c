/* TfIdfVectorizer by many threads: one for each row. */

int32_t rt_tfidf_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                      const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *x = &in[0];
  const int64_t items = x->rank ? x->dims[x->rank - 1] : 1, rows = x->rank == 2 ? x->dims[0] : 1;
  const int64_t width = out[0].dims[out[0].rank - 1];
  for (int64_t r = t->at; r < rows; r += t->n) {
    int64_t one[] = {items}, made[] = {width};
    RtTensor own[5] = {in[0], in[1], in[2], in[3], in[4]}, y = out[0];
    own[0].data = (char *)x->data + r * items * rt_elem_size(x->dtype);
    own[0].rank = x->rank ? 1 : 0;
    own[0].dims = one;
    y.data = (float *)y.data + r * width;
    y.rank = 1;
    y.dims = made;
    rt_tfidf(own, n_in, &y, 1, w, scratch);
  }
  return BURIN_OK;
}
