/* TfIdfVectorizer: counts of n-grams of numbers, with gaps of up to max_skip_count between their
 * items. */
#include "runtime/ops/ops.h"

typedef struct Grams {
  const int64_t *pool, *starts, *index; /* starts[k]: where the pool's (k+1)-grams begin */
  const float *weights;                 /* NULL: 1 */
  int64_t n_pool, n_sizes, n_index, skip, mode;
} Grams;

/* Adds the n-gram of `size` items of row at i, i+step, … to y. */
static void count_gram(const Grams *g, const RtTensor *x, int64_t base, int64_t size, int64_t step,
                       RtTensor *y, int64_t out, int64_t width) {
  const int64_t from = g->starts[size - 1], to = size < g->n_sizes ? g->starts[size] : g->n_pool;
  int64_t id = 0; /* n-grams before this size */
  for (int64_t k = 1; k < size; k++)
    id += ((k < g->n_sizes ? g->starts[k] : g->n_pool) - g->starts[k - 1]) / k;
  for (int64_t at = from; at >= 0 && at + size <= to && at + size <= g->n_pool; at += size, id++) {
    bool same = true;
    for (int64_t j = 0; j < size && same; j++)
      same = rt_load_i(x, base + j * step) == g->pool[at + j];
    if (!same) continue;
    if (id >= g->n_index || g->index[id] < 0 || g->index[id] >= width) return;
    const int64_t cell = out + g->index[id];
    const float weight = g->weights && g->mode != 0 ? g->weights[id] : 1;
    float *const v = (float *)y->data + cell;
    *v = g->mode == 1 ? weight : *v + weight; /* IDF counts once */
    return;
  }
}

/* in: X [rows, items] or [items], pool i64, starts i64, indexes i64, weights f32 (empty: none).
 * out: f32. words: min and max gram length, max skip, mode (0 TF, 1 IDF, 2 TFIDF). No scratch. */
int32_t rt_tfidf(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                 void *scratch) {
  const RtTensor *x = &in[0];
  const Grams g = {(const int64_t *)in[1].data,
                   (const int64_t *)in[2].data,
                   (const int64_t *)in[3].data,
                   rt_count(&in[4]) ? (const float *)in[4].data : 0,
                   rt_count(&in[1]),
                   rt_count(&in[2]),
                   rt_count(&in[3]),
                   w[2],
                   w[3]};
  const int64_t items = x->rank ? x->dims[x->rank - 1] : 1, rows = x->rank == 2 ? x->dims[0] : 1;
  const int64_t width = out[0].dims[out[0].rank - 1];
  for (int64_t i = 0; i < rows * width; i++) ((float *)out[0].data)[i] = 0;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t size = w[0]; size <= w[1] && size <= g.n_sizes; size++)
      for (int64_t step = 1; step <= (size == 1 ? 1 : g.skip + 1); step++)
        for (int64_t i = 0; i + (size - 1) * step < items; i++)
          count_gram(&g, x, r * items + i, size, step, &out[0], r * width, width);
  return BURIN_OK;
}
