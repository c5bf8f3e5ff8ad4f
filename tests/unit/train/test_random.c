/* Random numbers of training: the values that an independent computation of their definition gives, and
 * the first one that SplitMix64 publishes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* behind <setjmp.h> and its like */
#include <cmocka.h>
#include "driver/train/random.h"

static void test_values(void **s) {
  (void)s;
  assert_true(random_mix(0x9e3779b97f4a7c15u) == 0xe220a8397b1dcdafu);
  assert_true(random_at(0, 0, 0) == 0x1cd364143cce4aaeu);
  assert_true(random_at(7, 3, 123456789) == 0x18d12d25367e0c1u);
  assert_true(random_at(UINT64_MAX, UINT64_MAX, UINT64_MAX) == 0x179f01f0d2fba97au);
  assert_true(random_below(UINT64_MAX, 10) == 9 && random_below(0, 10) == 0);
  assert_true(random_signed((uint64_t)1 << 63) == -1 && random_signed(INT64_MAX) <= 1);
}

static void test_shuffle(void **s) {
  (void)s;
  static const int64_t wanted[10] = {2, 0, 8, 1, 9, 6, 3, 5, 7, 4};
  int64_t v[10];
  for (int64_t k = 0; k < 10; k++) v[k] = k;
  random_shuffle(5, 2, v, 10);
  for (int k = 0; k < 10; k++) assert_int_equal(v[k], wanted[k]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_shuffle)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
