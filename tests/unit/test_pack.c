/* Panels of constant weights (passes/kernels/pack.c): every element type, steps of k of one, two
 * and four, remainders of columns and of k, compared with where the definition puts each element.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include "passes/kernels/contract.h"

#include <cmocka.h>

static Model *model(void) {
  Arena *a = arena_new(0, NULL, NULL);
  return model_new(a, diag_new(a));
}

/* Weights [groups][cols][c][taps] with distinct small values. */
static ConstData *weights(Model *m, DType t, int64_t count) {
  char *data = arena_alloc(m->arena, (size_t)(count * dtype_bytes(t)));
  for (int64_t i = 0; i < count; i++)
    if (dtype_is_float(t))
      dtype_store_f(t, data + i * dtype_bytes(t), (double)(i % 101) - 50);
    else
      dtype_store_i(t, data + i * dtype_bytes(t), i % 101 - 50);
  return const_new(m, "w", t, 1, &count, data);
}

static double value_at(const ConstData *c, int64_t i) {
  return dtype_is_float(c->dtype) ? const_float(c, i) : (double)const_int(c, i);
}

typedef struct Want { /* the walk over the panels as the comment of PackShape has it */
  const ConstData *w, *got;
  const PackShape *s;
  int64_t at;
} Want;

static void want_lanes(Want *q, int64_t g, int64_t tap, int64_t first, int64_t lanes) {
  const PackShape *s = q->s;
  for (int64_t c = 0; c < s->k[1]; c += s->k_step)
    for (int64_t j = first; j < first + lanes; j++)
      for (int64_t i = c; i < c + s->k_step; i++) {
        const bool there = j < s->cols && i < s->k[1];
        const int64_t from = s->base + g * s->group_stride + j * s->col_stride +
                             tap * s->k_stride[0] + i * s->k_stride[1];
        assert_true(value_at(q->got, q->at++) == (there ? s->scale * value_at(q->w, from) : 0));
      }
}

static void check(DType from, DType to, int k_step, int64_t channels, int64_t cols) {
  enum { GROUPS = 2, TAPS = 3, WIDTH = 16, LANES = 8 };
  Model *m = model();
  const ConstData *w = weights(m, from, GROUPS * cols * channels * TAPS);
  const PackShape s = {.type = to,
                       .k_step = k_step,
                       .groups = GROUPS,
                       .group_stride = cols * channels * TAPS,
                       .cols = cols,
                       .col_stride = channels * TAPS,
                       .n_k = 2,
                       .k = {TAPS, channels},
                       .k_stride = {1, TAPS},
                       .width = WIDTH,
                       .lanes = LANES,
                       .scale = dtype_is_float(to) ? 2 : 1};
  const ConstData *got = pack_panels(m, w, &s);
  assert_non_null(got);
  assert_int_equal(got->dtype, to);
  Want q = {.w = w, .got = got, .s = &s};
  for (int64_t g = 0; g < GROUPS; g++)
    for (int64_t first = 0; first < cols; first += WIDTH) {
      const int64_t left = cols - first, whole = (left + LANES - 1) / LANES * LANES;
      for (int64_t tap = 0; tap < TAPS; tap++)
        want_lanes(&q, g, tap, first, whole < WIDTH ? whole : WIDTH);
    }
  assert_int_equal(q.at, got->count);
  arena_free(m->arena);
}

static void test_types(void **state) {
  (void)state;
  static const DType floats[] = {DT_F32, DT_F16, DT_BF16, DT_F64},
                     ints[] = {DT_I8, DT_I16, DT_I32, DT_I64};
  for (int i = 0; i < 4; i++) {
    check(floats[i], floats[i], 1, 5, 19);
    check(floats[i], DT_F32, 1, 4, 16);
    check(ints[i], ints[i], 1, 5, 19);
    check(DT_I8, ints[i], 1, 3, 9);
  }
}

static void test_steps(void **state) {
  (void)state;
  for (int64_t channels = 1; channels < 10; channels++) {
    check(DT_I8, DT_I8, 4, channels, 19);
    check(DT_BF16, DT_BF16, 2, channels, 8);
    check(DT_F32, DT_F16, 2, channels, 1);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_types), cmocka_unit_test(test_steps)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
