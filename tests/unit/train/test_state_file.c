/* State files: what is written is read again, and no file, however its fields are, makes the reader leave
 * its memory: each field is changed with a right checksum behind. */
#define XXH_INLINE_ALL
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
/* behind <setjmp.h> and its like */
#include <cmocka.h>
#include "codegen/files/state_file.h"

static const StateEntry entries[] = {
    {"weights", 0, 1, 0, 96}, {"w.m", 2, 1, 128, 4}, {"", 4, 7, 192, 8}};
static char state[200], more[24];

static StateFile example(void) {
  for (size_t k = 0; k < sizeof state; k++) state[k] = (char)(k * 7);
  memset(more, 3, sizeof more);
  return (StateFile){3, entries, sizeof state, state, sizeof more, more};
}

static const char *make_path(char *out) {
  strcpy(out, "/tmp/burin-state-XXXXXX");
  const int fd = mkstemp(out);
  assert_true(fd >= 0);
  close(fd);
  return out;
}

static size_t load(const char *path, char *out, size_t room) {
  FILE *f = fopen(path, "rb");
  const size_t n = fread(out, 1, room, f);
  fclose(f);
  return n;
}

static void store(const char *path, const char *data, size_t n) {
  FILE *f = fopen(path, "wb");
  fwrite(data, 1, n, f);
  fclose(f);
}

static bool readable(const char *path, StateFile *out, Arena *a) {
  return state_file_read(a, diag_new(a), path, out);
}

static void test_round_trip(void **s) {
  (void)s;
  char path[64];
  Arena *a = arena_new(0, NULL, NULL);
  Diag *d = diag_new(a);
  const StateFile f = example();
  StateFile g;
  assert_true(state_file_write(outputs_new(a, d), make_path(path), &f));
  assert_true(readable(path, &g, a));
  assert_int_equal(g.n, 3);
  assert_int_equal(g.state_bytes, sizeof state);
  assert_memory_equal(g.state, state, sizeof state);
  assert_int_equal(g.more_bytes, sizeof more);
  assert_memory_equal(g.more, more, sizeof more);
  for (int k = 0; k < 3; k++) {
    assert_string_equal(g.entries[k].name, entries[k].name);
    assert_int_equal(g.entries[k].kind, entries[k].kind);
    assert_int_equal(g.entries[k].dtype, entries[k].dtype);
    assert_int_equal(g.entries[k].offset, entries[k].offset);
    assert_int_equal(g.entries[k].bytes, entries[k].bytes);
  }
  assert_int_equal(state_file_layout(a, &f), state_file_layout(a, &g));
  unlink(path);
  arena_free(a);
}

/* Checksums of table and file are made right again, where they can be. */
static void store_signed(const char *path, char *data, size_t n, bool table) {
  uint64_t head, hash;
  memcpy(&head, data + 8, 8);
  if (table && head >= 64 && head <= n) { /* the table ends in front of the zeros: try each end */
    hash = XXH3_64bits(data + 64, 32 + 8 + 32 + 8 + 32);
    memcpy(data + 32, &hash, 8);
  }
  hash = XXH3_64bits(data, n - 8);
  memcpy(data + n - 8, &hash, 8);
  store(path, data, n);
}

static void test_fields(void **s) {
  (void)s;
  static const uint64_t values[] = {0,
                                    1,
                                    7,
                                    63,
                                    64,
                                    65,
                                    200,
                                    1 << 20,
                                    (uint64_t)1 << 32,
                                    (uint64_t)1 << 63,
                                    UINT64_MAX,
                                    UINT64_MAX - 7,
                                    UINT64_MAX - 63};
  char path[64], good[4096], bad[4096];
  Arena *a = arena_new(0, NULL, NULL);
  const StateFile f = example();
  assert_true(state_file_write(outputs_new(a, diag_new(a)), make_path(path), &f));
  const size_t n = load(path, good, sizeof good);
  int refused = 0, tried = 0;
  for (size_t at = 0; at < 64 + 112; at += 4)
    for (size_t k = 0; k < sizeof values / sizeof *values && at + 8 <= n; k++)
      for (int table = 0; table < 2; table++) {
        StateFile g;
        Arena *scratch = arena_child(a);
        memcpy(bad, good, n);
        memcpy(bad + at, &values[k], 8);
        store_signed(path, bad, n, table);
        tried++;
        if (!readable(path, &g, scratch))
          refused++;
        else
          for (int i = 0; i < g.n; i++) { /* what is accepted lies inside */
            assert_true(g.entries[i].offset + g.entries[i].bytes <= g.state_bytes);
            assert_true(strlen(g.entries[i].name) < n);
          }
        arena_free(scratch);
      }
  assert_true(refused > tried / 2);
  unlink(path);
  arena_free(a);
}

static void test_lengths(void **s) {
  (void)s;
  char path[64], good[4096];
  Arena *a = arena_new(0, NULL, NULL);
  const StateFile f = example();
  StateFile g;
  assert_true(state_file_write(outputs_new(a, diag_new(a)), make_path(path), &f));
  const size_t n = load(path, good, sizeof good);
  for (size_t k = 0; k < n; k++) {
    Arena *scratch = arena_child(a);
    store(path, good, k);
    assert_false(readable(path, &g, scratch));
    arena_free(scratch);
  }
  unlink(path);
  assert_false(readable(path, &g, a));
  arena_free(a);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
                                     cmocka_unit_test(test_fields), cmocka_unit_test(test_lengths)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
