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
    put_coordinates(x, i, to, count, k++);
  }
  out->dims[1] = count;
  return BURIN_OK;
}

int32_t rt_compress_part(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                         const int64_t *w, void *scratch, const RtTeam *t) {
  const RtTensor *x = &in[0], *cond = &in[1];
  const Compression c = compression_of(x, cond, (int32_t)w[0], out);
  int64_t *const counts = (int64_t *)scratch;
  if (t->phase == 0) return count_piece(cond, t, c.reach, counts), BURIN_OK;
  const Piece p = piece_of(t, c.reach);
  const int64_t count = sum_counts(counts, t->n);
  if (count > *c.taken) return BURIN_E_DATA;
  int64_t k = sum_counts(counts, t->at);
  for (int64_t j = p.from; j < p.to; j++) {
    if (!is_true(cond, j)) continue;
    for (int64_t o = 0; o < c.outer; o++)
      rt_copy((char *)out->data + (o * count + k) * c.bytes,
              (const char *)x->data + (o * c.dim + j) * c.bytes, c.bytes);
    k++;
  }
  *c.taken = count;
  return BURIN_OK;
}
