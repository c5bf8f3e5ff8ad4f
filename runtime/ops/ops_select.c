/* Ops whose output size depends on data: NonZero, Compress, Unique. Outputs come
 * with room for their upper bound; the real sizes are written into dims and the data lies dense for
 * them. */
#include "runtime/ops/ops.h"

static bool is_true(const RtTensor *t, int64_t i) {
  return rt_is_float(t->dtype) ? rt_load_f(t, i) != 0 : rt_load_i(t, i) != 0;
}

/* Indices of element i of x as column k of i64[rank, count]. */
static void put_coordinates(const RtTensor *x, int64_t i, int64_t *to, int64_t count, int64_t k) {
  for (int32_t d = x->rank - 1; d >= 0; d--) {
    to[d * count + k] = i % x->dims[d];
    i /= x->dims[d];
  }
}

/* NonZero. in: X. out: i64[rank, count]. No words, no scratch. */
int32_t rt_nonzero(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                   void *scratch) {
  const RtTensor *x = &in[0];
  const int64_t total = rt_count(x);
  int64_t count = 0, *to = (int64_t *)out->data;
  for (int64_t i = 0; i < total; i++) count += is_true(x, i);
  if (count > out->dims[1]) return BURIN_E_DATA;
  int64_t k = 0;
  for (int64_t i = 0; i < total && k < count; i++) {
    if (!is_true(x, i)) continue;
    put_coordinates(x, i, to, count, k++);
  }
  out->dims[1] = count;
  return BURIN_OK;
}

/* Slices of an axis, or elements of the flat input (axis -1), of which Compress takes some. */
typedef struct Compression {
  int64_t dim, outer, bytes; /* slices; what stands before them; bytes of one */
  int64_t reach;             /* slices that the condition is about */
  int64_t *taken;            /* how many there are in the output */
} Compression;

static Compression compression_of(const RtTensor *x, const RtTensor *cond, int32_t axis,
                                  RtTensor *out) {
  const bool flat = axis < 0;
  const int64_t dim = flat ? rt_count(x) : x->dims[axis], conds = rt_count(cond);
  const int64_t inner = flat ? 1 : rt_product(x->dims, axis + 1, x->rank);
  const Compression c = {dim, flat ? 1 : rt_product(x->dims, 0, axis),
                         rt_elem_size(x->dtype) * inner, conds < dim ? conds : dim,
                         &out->dims[flat ? 0 : axis]};
  return c;
}

/* Compress. in: X, condition. words: axis, or -1: over the flat input. No scratch. */
int32_t rt_compress(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                    const int64_t *w, void *scratch) {
  const RtTensor *x = &in[0], *cond = &in[1];
  const Compression c = compression_of(x, cond, (int32_t)w[0], out);
  int64_t count = 0;
  for (int64_t j = 0; j < c.reach; j++) count += is_true(cond, j);
  if (count > *c.taken) return BURIN_E_DATA;
  *c.taken = count;
  char *to = (char *)out->data;
  for (int64_t o = 0; o < c.outer; o++)
    for (int64_t j = 0; j < c.reach; j++) {
      if (!is_true(cond, j)) continue;
      rt_copy(to, (const char *)x->data + (o * c.dim + j) * c.bytes, c.bytes);
      to += c.bytes;
    }
  return BURIN_OK;
}

/* ---- Unique ---- */
typedef struct Slices { /* slice i of x along an axis: elements (o*dim + i)*inner + k */
  const RtTensor *x;
  int64_t outer, dim, inner;
} Slices;

static int32_t compare_slices(const Slices *s, int64_t a, int64_t b) {
  for (int64_t o = 0; o < s->outer; o++)
    for (int64_t k = 0; k < s->inner; k++) {
      const int32_t c =
          rt_compare(s->x, (o * s->dim + a) * s->inner + k, s->x, (o * s->dim + b) * s->inner + k);
      if (c) return c;
    }
  return 0;
}

/* s NULL: by the numbers themselves. */
static bool slice_less(const Slices *s, int64_t a, int64_t b) {
  const int32_t c = s ? compare_slices(s, a, b) : 0;
  return c ? c < 0 : a < b;
}

static void sift(const Slices *s, int64_t *heap, int64_t i, int64_t n) {
  for (int64_t c = 2 * i + 1; c < n; c = 2 * i + 1) {
    if (c + 1 < n && slice_less(s, heap[c], heap[c + 1])) c++;
    if (!slice_less(s, heap[i], heap[c])) return;
    const int64_t t = heap[i];
    heap[i] = heap[c];
    heap[c] = t;
    i = c;
  }
}

static void heap_sort(const Slices *s, int64_t *v, int64_t n) {
  for (int64_t i = n / 2 - 1; i >= 0; i--) sift(s, v, i, n);
  for (int64_t end = n - 1; end > 0; end--) {
    const int64_t t = v[0];
    v[0] = v[end];
    v[end] = t;
    sift(s, v, 0, end);
  }
}

/* Numbers in the order of element i of x: -0 is 0, NaNs are equal and come last. */
static uint64_t sort_key(const RtTensor *x, int64_t i) {
  const uint64_t sign = (uint64_t)1 << 63;
  if (!rt_is_float(x->dtype)) {
    const uint64_t v = (uint64_t)rt_load_i(x, i);
    const bool is_unsigned = x->dtype == RT_U64 || x->dtype == RT_U32 || x->dtype == RT_U16 ||
                             x->dtype == RT_U8 || x->dtype == RT_BOOL;
    return is_unsigned ? v : v ^ sign;
  }
  const double f = rt_load_f(x, i) + 0.0;
  uint64_t bits;
  if (f != f) return UINT64_MAX;
  __builtin_memcpy(&bits, &f, 8);
  return bits & sign ? ~bits : bits | sign;
}

/* Merges runs of `run`: keys and what goes with them. */
static void merge_runs(const uint64_t *key, const int64_t *v, uint64_t *to_key, int64_t *to,
                       int64_t n, int64_t run) {
  for (int64_t start = 0; start < n; start += 2 * run) {
    const int64_t middle = start + run < n ? start + run : n,
                  end = start + 2 * run < n ? start + 2 * run : n;
    int64_t a = start, b = middle;
    for (int64_t i = start; i < end; i++) {
      const bool left = a < middle && (b == end || key[a] <= key[b]);
      const int64_t from = left ? a++ : b++;
      to_key[i] = key[from];
      to[i] = v[from];
    }
  }
}

/* order = the elements of x, lowest first, equal ones as they come; key, more: n words of room. */
static void sort_elements(const RtTensor *x, int64_t *order, int64_t n, uint64_t *key,
                          uint64_t *more_key, int64_t *more) {
  uint64_t *from_key = key, *to_key = more_key;
  int64_t *from = order, *to = more;
  for (int64_t i = 0; i < n; i++) {
    key[i] = sort_key(x, i);
    order[i] = i;
  }
  for (int64_t run = 1; run < n; run *= 2) {
    merge_runs(from_key, from, to_key, to, n, run);
    uint64_t *const t = from_key;
    int64_t *const u = from;
    from_key = to_key, to_key = t;
    from = to, to = u;
  }
  for (int64_t i = 0; from != order && i < n; i++) order[i] = from[i];
}

static void put(RtTensor *t, int64_t i, int64_t v) {
  if (t->data) ((int64_t *)t->data)[i] = v;
}

static void write_slice(const Slices *s, RtTensor *y, int64_t groups, int64_t g, int64_t from) {
  const int64_t bytes = s->inner * rt_elem_size(s->x->dtype);
  for (int64_t o = 0; o < s->outer; o++)
    rt_copy((char *)y->data + (o * groups + g) * bytes,
            (const char *)s->x->data + (o * s->dim + from) * bytes, bytes);
}

/* Unique. in: X. out: Y, indices, inverse_indices, counts (the last three may be absent). words:
 * axis or -1, sorted. scratch: 4 * dim i64 (dim: size of the axis, or the element count). */
int32_t rt_unique(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out, const int64_t *w,
                  void *scratch) {
  const RtTensor *x = &in[0];
  const int32_t axis = (int32_t)w[0];
  const Slices s = {x, axis < 0 ? 1 : rt_product(x->dims, 0, axis),
                    axis < 0 ? rt_count(x) : x->dims[axis],
                    axis < 0 ? 1 : rt_product(x->dims, axis + 1, x->rank)};
  const int64_t n = s.dim;
  int64_t *order = (int64_t *)scratch, *first = order + n, *place = first + n, groups = 0;
  if (axis < 0) {
    sort_elements(x, order, n, (uint64_t *)(place + n), (uint64_t *)place, first);
  } else {
    for (int64_t i = 0; i < n; i++) order[i] = i;
    heap_sort(&s, order, n);
  }
  /* first[]: the first member of each group; place[i]: the first member of i's group */
  for (int64_t i = 0; i < n; i++) {
    if (i == 0 || compare_slices(&s, order[i - 1], order[i]) != 0) first[groups++] = order[i];
    place[order[i]] = first[groups - 1];
  }
  if (!w[1]) heap_sort(NULL, first, groups);
  int64_t *rank = order; /* the order is done with: rank[first member] = group */
  for (int64_t g = 0; g < groups; g++) rank[first[g]] = g;
  RtTensor none = {0};
  RtTensor *y = &out[0], *idx = n_out > 1 ? &out[1] : &none, *inv = n_out > 2 ? &out[2] : &none,
           *num = n_out > 3 ? &out[3] : &none;
  const int32_t at = axis < 0 ? 0 : axis;
  if ((y->data && groups > y->dims[at]) || (idx->data && groups > idx->dims[0]) ||
      (num->data && groups > num->dims[0]))
    return BURIN_E_DATA;
  for (int64_t g = 0; g < groups; g++) {
    if (y->data) write_slice(&s, y, groups, g, first[g]);
    put(idx, g, first[g]);
    put(num, g, 0);
  }
  for (int64_t i = 0; i < n; i++) {
    put(inv, i, rank[place[i]]);
    if (num->data) ((int64_t *)num->data)[rank[place[i]]]++;
  }
  if (y->dims) y->dims[at] = groups;
  if (idx->dims) idx->dims[0] = groups;
  if (num->dims) num->dims[0] = groups;
  return BURIN_OK;
}
