/* RoiAlign by many threads: one for each element, sample by sample. Phase 0 looks at the indices. */

static int32_t check_regions(const RtTensor *in, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    const int64_t batch = rt_load_i(&in[2], i);
    if (batch < 0 || batch >= in[0].dims[0]) return BURIN_E_DATA;
  }
  return BURIN_OK;
}

int32_t rt_roi_align_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                          const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *x = &in[0], *rois = &in[1];
  const int64_t channels = x->dims[1], ph = out[0].dims[2], pw = out[0].dims[3];
  if (rois->dims[1] < 4 || x->dims[2] < 1 || x->dims[3] < 1)
    return rt_count(&out[0]) ? BURIN_E_DATA : BURIN_OK;
  if (t->phase == 0) return t->at == 0 ? check_regions(in, out[0].dims[0]) : BURIN_OK;
  Roi r = roi_of(x, &out[0], w);
  for (int64_t k = t->at; k < rt_count(&out[0]); k += t->n) {
    const int64_t bin = k % (ph * pw), c = k / (ph * pw) % channels, n = k / (ph * pw) / channels;
    const int64_t batch = rt_load_i(&in[2], n);
    if (batch < 0 || batch >= x->dims[0]) continue;
    region(&r, rois, n, w);
    const int64_t base = (batch * channels + c) * x->dims[2] * x->dims[3];
    rt_store_f(&out[0], k, pool(&r, base, bin / pw, bin % pw));
  }
  return BURIN_OK;
}
