/* Tree ensembles by many threads: one for each target of each row. Phase 0 does nothing, so that any
 * thread may say that a tree is broken. */

/* Adds up, or bounds, target t over all trees; false: a tree is broken. */
static bool walk_all(const Forest *f, const RtTensor *in, int64_t at, int64_t features, int64_t t,
                     int64_t targets, int64_t how, double *sum, bool *seen) {
  const int32_t *roots = (const int32_t *)in[3].data, *ids = (const int32_t *)in[4].data;
  const double *weights = (const double *)in[5].data;
  for (int64_t k = 0; k < rt_count(&in[3]); k++) {
    const int64_t leaf = walk(f, roots[k], &in[0], at, features);
    if (leaf < 0) return false;
    const int32_t *node = f->node + leaf * COLUMNS;
    for (int64_t j = node[5]; j < (int64_t)node[5] + node[6] && j < f->n_weights; j++) {
      if (ids[j] < 0 || ids[j] >= targets) return false;
      if (ids[j] != t) continue;
      const double v = weights[j];
      if (how <= AGG_SUM)
        *sum += v;
      else if (!*seen || (how == AGG_MIN ? v < *sum : v > *sum))
        *sum = v;
      *seen = true;
    }
  }
  return true;
}

int32_t rt_tree_ensemble_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                              const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *x = &in[0];
  const Forest f = forest_of(in);
  const double *base = (const double *)in[6].data;
  const int64_t trees = rt_count(&in[3]), bases = rt_count(&in[6]);
  const int64_t features = x->dims[x->rank - 1], rows = rt_product(x->dims, 0, x->rank - 1),
                targets = out[0].dims[1];
  for (int64_t u = t->at; t->phase == 1 && u < rows * targets; u += t->n) {
    const int64_t target = u % targets;
    double v = 0;
    bool seen = false;
    if (!walk_all(&f, in, u / targets * features, features, target, targets, w[0], &v, &seen))
      return BURIN_E_DATA;
    if (w[0] == AGG_AVERAGE && trees > 0) v /= (double)trees;
    if (target < bases && (w[1] || seen)) v += base[target];
    rt_store_f(&out[0], u, v);
  }
  return BURIN_OK;
}
