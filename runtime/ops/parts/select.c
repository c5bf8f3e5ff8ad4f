/* NonZero and Compress by many threads, each of which has a piece of the elements. Phase 0: how many
 * each takes. Phase 1: they are written behind those of the threads before. scratch: i64 for each
 * thread. */

typedef struct Piece {
  int64_t from, to;
} Piece;

static Piece piece_of(const RtTeam *t, int64_t n) {
  const int64_t each = (n + t->n - 1) / t->n, from = t->at * each < n ? t->at * each : n;
  const Piece p = {from, from + each < n ? from + each : n};
  return p;
}

static void count_piece(const RtTensor *x, const RtTeam *t, int64_t n, int64_t *counts) {
  const Piece p = piece_of(t, n);
  int64_t count = 0;
  for (int64_t i = p.from; i < p.to; i++) count += is_true(x, i);
  counts[t->at] = count;
}

static int64_t sum_counts(const int64_t *counts, int64_t n) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; i++) sum += counts[i];
  return sum;
}

int32_t rt_nonzero_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                        const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *x = &in[0];
  int64_t *const counts = (int64_t *)scratch, *const to = (int64_t *)out->data;
  const int64_t total = rt_count(x);
  if (t->phase == 0) return count_piece(x, t, total, counts), BURIN_OK;
  const Piece p = piece_of(t, total);
  const int64_t count = sum_counts(counts, t->n);
  if (count > out->dims[1]) return BURIN_E_DATA;
  int64_t k = sum_counts(counts, t->at);
  for (int64_t i = p.from; i < p.to; i++) {
    if (!is_true(x, i)) continue;
    int64_t rest = i;
    for (int32_t d = x->rank - 1; d >= 0; d--) {
      to[d * count + k] = rest % x->dims[d];
      rest /= x->dims[d];
    }
    k++;
  }
  out->dims[1] = count;
  return BURIN_OK;
}

int32_t rt_compress_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *x = &in[0], *cond = &in[1];
  const int32_t axis = (int32_t)w[0];
  int64_t *const counts = (int64_t *)scratch;
  const int64_t dim = axis < 0 ? rt_count(x) : x->dims[axis];
  const int64_t outer = axis < 0 ? 1 : rt_product(x->dims, 0, axis);
  const int64_t bytes =
      rt_elem_size(x->dtype) * (axis < 0 ? 1 : rt_product(x->dims, axis + 1, x->rank));
  const int64_t conds = rt_count(cond), reach = conds < dim ? conds : dim;
  if (t->phase == 0) return count_piece(cond, t, reach, counts), BURIN_OK;
  const Piece p = piece_of(t, reach);
  const int64_t count = sum_counts(counts, t->n);
  int64_t *real = &out->dims[axis < 0 ? 0 : axis];
  if (count > *real) return BURIN_E_DATA;
  int64_t k = sum_counts(counts, t->at);
  for (int64_t j = p.from; j < p.to; j++) {
    if (!is_true(cond, j)) continue;
    for (int64_t o = 0; o < outer; o++)
      rt_copy((char *)out->data + (o * count + k) * bytes,
              (const char *)x->data + (o * dim + j) * bytes, bytes);
    k++;
  }
  *real = count;
  return BURIN_OK;
}
