/* ScatterElements and ScatterND: a copy of the data, then updates in row-major order of the
 * indices. An index outside of its axis ends the run with BURIN_E_DATA. */
#include "runtime/ops/ops.h"

enum { RED_NONE, RED_ADD, RED_MUL, RED_MAX, RED_MIN };

static void combine(RtTensor *out, int64_t at, const RtTensor *up, int64_t from, int64_t how) {
  const int64_t size = rt_elem_size(out->dtype);
  if (how == RED_NONE) {
    rt_copy((char *)out->data + at * size, (const char *)up->data + from * size, size);
    return;
  }
  if (how >= RED_MAX) {
    const int32_t order = rt_compare(up, from, out, at);
    if (how == RED_MAX ? order > 0 : order < 0)
      rt_copy((char *)out->data + at * size, (const char *)up->data + from * size, size);
    return;
  }
  if (rt_is_float(out->dtype)) {
    const double a = rt_load_f(out, at), b = rt_load_f(up, from);
    rt_store_f(out, at, how == RED_ADD ? a + b : a * b);
    return;
  }
  const uint64_t a = (uint64_t)rt_load_i(out, at), b = (uint64_t)rt_load_i(up, from);
  if (out->dtype == RT_BOOL)
    rt_store_i(out, at, how == RED_ADD ? (a | b) != 0 : (a & b) != 0);
  else
    rt_store_i(out, at, (int64_t)(how == RED_ADD ? a + b : a * b));
}

/* n neighbouring elements. */
static void combine_row(RtTensor *out, int64_t at, const RtTensor *up, int64_t from, int64_t how,
                        int64_t n) {
  const int64_t size = rt_elem_size(out->dtype);
  if (how == RED_NONE) {
    rt_copy((char *)out->data + at * size, (const char *)up->data + from * size, n * size);
  } else if (how == RED_ADD && out->dtype == RT_F32) {
    float *const to = (float *)out->data + at;
    const float *const add = (const float *)up->data + from;
    for (int64_t i = 0; i < n; i++) to[i] += add[i];
  } else {
    for (int64_t i = 0; i < n; i++) combine(out, at + i, up, from + i, how);
  }
}

/* in: data, indices, updates. words: axis (not negative), reduction. No scratch. */
int32_t rt_scatter_elements(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                            const int64_t *w, void *scratch) {
  const RtTensor *data = &in[0], *index = &in[1], *up = &in[2];
  const int64_t count = rt_count(index), axis = w[0];
  int64_t at[32] = {0}, stride[32];
  if (data->rank != index->rank || data->rank > 32 || axis >= data->rank || rt_count(up) < count)
    return BURIN_E_DATA;
  rt_copy(out->data, data->data, rt_count(data) * rt_elem_size(data->dtype));
  for (int32_t i = 0; i < data->rank; i++) {
    stride[i] = rt_product(data->dims, i + 1, data->rank);
    if (i != axis && index->dims[i] > data->dims[i]) return BURIN_E_DATA;
  }
  for (int64_t k = 0; k < count; k++) {
    const int64_t v = rt_wrap(rt_load_i(index, k), data->dims[axis]);
    if (v < 0) return BURIN_E_DATA;
    int64_t to = v * stride[axis];
    for (int32_t i = 0; i < data->rank; i++) to += i == axis ? 0 : at[i] * stride[i];
    combine(out, to, up, k, w[1]);
    for (int32_t i = data->rank - 1; i >= 0 && ++at[i] == index->dims[i]; i--) at[i] = 0;
  }
  return BURIN_OK;
}

/* in: data, indices, updates. words: reduction. No scratch. */
int32_t rt_scatter_nd(const RtTensor *in, int32_t n_in, RtTensor *out, int32_t n_out,
                      const int64_t *w, void *scratch) {
  const RtTensor *data = &in[0], *index = &in[1], *up = &in[2];
  if (index->rank < 1) return BURIN_E_DATA;
  const int64_t depth = index->dims[index->rank - 1];
  if (depth < 0 || depth > data->rank) return BURIN_E_DATA;
  const int64_t rows = rt_product(index->dims, 0, index->rank - 1),
                slice = rt_product(data->dims, (int32_t)depth, data->rank);
  const int64_t size = rt_elem_size(data->dtype);
  if (rt_count(up) < rows * slice) return BURIN_E_DATA;
  rt_copy(out->data, data->data, rt_count(data) * size);
  for (int64_t r = 0; r < rows; r++) {
    int64_t to = 0;
    for (int64_t j = 0; j < depth; j++) {
      const int64_t v = rt_wrap(rt_load_i(index, r * depth + j), data->dims[j]);
      if (v < 0) return BURIN_E_DATA;
      to = to * data->dims[j] + v;
    }
    combine_row(out, to * slice, up, r * slice, w[0], slice);
  }
  return BURIN_OK;
}
