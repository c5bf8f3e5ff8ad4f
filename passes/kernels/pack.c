/* Weights in the order in which kernels read them, as f32, padded with zeros to whole vectors. */
#include "passes/kernels/contract.h"

#include <string.h>

static float element(const ConstData *w, int64_t i) {
  if (w->dtype == DT_F32) {
    float f;
    memcpy(&f, (const char *)w->data + 4 * i, 4);
    return f;
  }
  return (float)dtype_load_f(w->dtype, (const char *)w->data + i * dtype_bytes(w->dtype));
}

static int64_t panel_lanes(const PackShape *s, int64_t first) {
  const int64_t left = s->cols - first;
  if (left >= s->width) return s->width;
  return (left + s->lanes - 1) / s->lanes * s->lanes;
}

static float *pack_rows(const ConstData *w, const PackShape *s, float *out, int depth, int64_t at,
                        int64_t first, int64_t lanes) {
  if (depth < s->n_k) {
    for (int64_t i = 0; i < s->k[depth]; i++)
      out = pack_rows(w, s, out, depth + 1, at + i * s->k_stride[depth], first, lanes);
    return out;
  }
  const float scale = (float)s->scale;
  for (int64_t j = 0; j < lanes; j++) {
    const int64_t col = first + j;
    *out++ = col < s->cols ? scale * element(w, at + col * s->col_stride) : 0.0f;
  }
  return out;
}

ConstData *pack_panels(Model *m, const ConstData *w, const PackShape *s) {
  int64_t k = 1, lanes = 0, count;
  for (int i = 0; i < s->n_k; i++) k *= s->k[i];
  for (int64_t c = 0; c < s->cols; c += s->width) lanes += panel_lanes(s, c);
  if (!ck_mul(k, lanes, &count) || !ck_mul(count, s->groups, &count)) return NULL;
  float *data = ARENA_ARRAY(m->arena, float, count), *out = data;
  for (int64_t g = 0; g < s->groups; g++)
    for (int64_t c = 0; c < s->cols; c += s->width)
      out = pack_rows(w, s, out, 0, s->base + g * s->group_stride, c, panel_lanes(s, c));
  return const_new(m, w->name, DT_F32, 1, &count, data);
}
