/* Constant weights in the order in which kernels read them, in the type of the panels, padded with
 * zeros to whole vectors and to whole steps of k. */
#include "passes/kernels/contract.h"

#include <string.h>

/* Where the panels are written: pack_panels makes them, k inside columns inside groups. */
typedef struct Packer {
  const ConstData *w;
  const PackShape *s;
  int k_step;
  bool plain; /* pack_floats does it */
  char *out;
} Packer;

static void put_float(Packer *p, int64_t from) {
  const double v = const_float(p->w, from), scale = p->s->scale;
  dtype_store_f(p->s->type, p->out, p->s->type == DT_F32 ? (float)scale * (float)v : scale * v);
}

/* Element `from` of the weights (-1: padding) goes next. */
static void put(Packer *p, int64_t from) {
  const DType t = p->s->type;
  if (from < 0)
    memset(p->out, 0, (size_t)dtype_bytes(t));
  else if (dtype_is_float(t))
    put_float(p, from);
  else
    dtype_store_i(t, p->out, const_int(p->w, from));
  p->out += dtype_bytes(t);
}

static int64_t panel_lanes(const PackShape *s, int64_t first) {
  const int64_t left = s->cols - first;
  if (left >= s->width) return s->width;
  return (left + s->lanes - 1) / s->lanes * s->lanes;
}

/* What most weights are: floats as they come, one k at a time, at any address of a mapped file. */
static void pack_floats(Packer *p, int64_t at, int64_t first, int64_t lanes) {
  enum { BYTES = sizeof(float) };
  const PackShape *s = p->s;
  const char *from = (const char *)p->w->data + BYTES * (at + first * s->col_stride);
  const int64_t n = s->cols - first < lanes ? s->cols - first : lanes, step = BYTES * s->col_stride;
  const float scale = (float)s->scale;
  for (int64_t j = 0; j < n; j++) {
    float v;
    memcpy(&v, from + j * step, BYTES);
    v *= scale;
    memcpy(p->out + j * BYTES, &v, BYTES);
  }
  memset(p->out + n * BYTES, 0, (size_t)((lanes - n) * BYTES));
  p->out += lanes * BYTES;
}

/* `lanes` columns from `first`, of each the k_step elements of the last k from `k` on. */
static void pack_step(Packer *p, int64_t at, int64_t first, int64_t lanes, int64_t k) {
  const PackShape *s = p->s;
  const int last = s->n_k - 1;
  if (p->plain) {
    pack_floats(p, at + k * s->k_stride[last], first, lanes);
    return;
  }
  for (int64_t j = first; j < first + lanes; j++)
    for (int64_t i = k; i < k + p->k_step; i++)
      put(p, j < s->cols && i < s->k[last] ? at + i * s->k_stride[last] + j * s->col_stride : -1);
}

static void pack_rows(Packer *p, int depth, int64_t at, int64_t first, int64_t lanes) {
  const PackShape *s = p->s;
  const bool last = depth == s->n_k - 1;
  for (int64_t i = 0; i < s->k[depth]; i += last ? p->k_step : 1) {
    if (last)
      pack_step(p, at, first, lanes, i);
    else
      pack_rows(p, depth + 1, at + i * s->k_stride[depth], first, lanes);
  }
}

ConstData *pack_panels(Model *m, const ConstData *w, const PackShape *s) {
  int64_t lanes = 0, count, bytes;
  Packer p = {.w = w, .s = s, .k_step = s->k_step ? s->k_step : 1};
  p.plain = p.k_step == 1 && s->type == DT_F32 && w->dtype == DT_F32;
  const int64_t last = s->k[s->n_k - 1];
  int64_t k = (last + p.k_step - 1) / p.k_step * p.k_step;
  for (int i = 0; i + 1 < s->n_k; i++) k *= s->k[i];
  for (int64_t c = 0; c < s->cols; c += s->width) lanes += panel_lanes(s, c);
  if (!ck_mul(k, lanes, &count) || !ck_mul(count, s->groups, &count) ||
      !ck_mul(count, dtype_bytes(s->type), &bytes))
    return NULL;
  char *data = p.out = arena_alloc(m->arena, (size_t)bytes);
  for (int64_t g = 0; g < s->groups; g++)
    for (int64_t c = 0; c < s->cols; c += s->width)
      pack_rows(&p, 0, s->base + g * s->group_stride, c, panel_lanes(s, c));
  return const_new(m, w->name, s->type, 1, &count, data);
}
