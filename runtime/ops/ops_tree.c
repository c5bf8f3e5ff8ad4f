/* Tree ensembles: every row of X walks every tree; leaves add to, or bound, the targets. */
#include "runtime/ops/ops.h"

enum { LEAF = 7, MEMBER = 6, COLUMNS = 7 };
enum { AGG_AVERAGE, AGG_SUM, AGG_MIN, AGG_MAX };

typedef struct Forest {
  const int32_t *node; /* [n][COLUMNS]: feature, mode, yes, no, missing goes to yes, first, count */
  const double *split;
  const double *set; /* member values; first and count of a MEMBER node point here */
  int64_t n, n_set, n_weights;
} Forest;

static bool member(const Forest *f, const int32_t *node, double x) {
  for (int64_t i = node[5]; i < (int64_t)node[5] + node[6] && i < f->n_set; i++)
    if (f->set[i] == x) return true;
  return false;
}

static bool goes_yes(const Forest *f, const int32_t *node, double split, double x) {
  if (x != x) return node[4] != 0 || (node[1] == 5 && split == split);
  switch (node[1]) {
    case 0: return x <= split;
    case 1: return x < split;
    case 2: return x >= split;
    case 3: return x > split;
    case 4: return x == split;
    case 5: return x != split;
    default: return member(f, node, x);
  }
}

/* The leaf that row `at` reaches, or -1. */
static int64_t walk(const Forest *f, int64_t root, const RtTensor *x, int64_t at,
                    int64_t features) {
  int64_t i = root;
  for (int64_t steps = 0; steps <= f->n; steps++) {
    if (i < 0 || i >= f->n) return -1;
    const int32_t *node = f->node + i * COLUMNS;
    if (node[1] == LEAF) return i;
    if (node[0] < 0 || node[0] >= features) return -1;
    const double v = x->dtype == RT_F32 ? (double)((const float *)x->data)[at + node[0]]
                                        : rt_load_f(x, at + node[0]);
    i = goes_yes(f, node, f->split[i], v) ? node[2] : node[3];
  }
  return -1;
}

/* Of the inputs of rt_tree_ensemble. */
static Forest forest_of(const RtTensor *in) {
  const Forest f = {(const int32_t *)in[1].data,
                    (const double *)in[2].data,
                    (const double *)in[7].data,
                    rt_count(&in[2]),
                    rt_count(&in[7]),
                    rt_count(&in[5])};
  return f;
}

/* in: X [rows, features]; nodes i32 [n, 7]; splits f64 [n]; roots i32; weight targets i32; weights
 * f64; base values f64; sets f64. out: [rows, targets] f32 or f64. words: aggregate (0 average, 1
 * sum, 2 min, 3 max); 1 where base values count for targets that no leaf touched too. scratch:
 * targets f64 and targets i64. */
int32_t rt_tree_ensemble(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch) {
  const RtTensor *x = &in[0];
  const Forest f = forest_of(in);
  const int32_t *roots = (const int32_t *)in[3].data, *ids = (const int32_t *)in[4].data;
  const double *weights = (const double *)in[5].data, *base = (const double *)in[6].data;
  const int64_t trees = rt_count(&in[3]), bases = rt_count(&in[6]);
  const int64_t features = x->dims[x->rank - 1], rows = rt_product(x->dims, 0, x->rank - 1),
                targets = out[0].dims[1];
  double *sum = (double *)scratch;
  int64_t *seen = (int64_t *)scratch + targets;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t t = 0; t < targets; t++) sum[t] = 0, seen[t] = 0;
    for (int64_t k = 0; k < trees; k++) {
      const int64_t leaf = walk(&f, roots[k], x, r * features, features);
      if (leaf < 0) return BURIN_E_DATA;
      const int32_t *node = f.node + leaf * COLUMNS;
      for (int64_t j = node[5]; j < (int64_t)node[5] + node[6] && j < f.n_weights; j++) {
        const int32_t t = ids[j];
        if (t < 0 || t >= targets) return BURIN_E_DATA;
        const double v = weights[j];
        if (w[0] <= AGG_SUM)
          sum[t] += v;
        else if (!seen[t] || (w[0] == AGG_MIN ? v < sum[t] : v > sum[t]))
          sum[t] = v;
        seen[t] = 1;
      }
    }
    for (int64_t t = 0; t < targets; t++) {
      double v = w[0] == AGG_AVERAGE && trees > 0 ? sum[t] / (double)trees : sum[t];
      if (t < bases && (w[1] || seen[t])) v += base[t];
      rt_store_f(&out[0], r * targets + t, v);
    }
  }
  return BURIN_OK;
}
