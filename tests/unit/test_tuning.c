/* Choices and tuning files: text to entries and back, errors with their lines, what is taken, which
 * candidates are worth a measurement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "passes/choose/choice.h"

#include <cmocka.h>

static Tuning *parse(Arena *a, Diag *d, const char *text) {
  return tuning_parse(a, d, text, strlen(text), "t");
}

static void test_round_trip(void **state) {
  Arena *a = arena_new(0, NULL, NULL);
  Diag *d = diag_new(a);
  Tuning *t = parse(a, d,
                    "burin tuning 1\n# about\n\n  tile rows=3 lanes=8 -> 4x2\r\n"
                    "conv3x3 in=8 -> direct  # us: direct 3.1\n# end");
  assert_non_null(t);
  assert_int_equal(t->entries.n, 2);
  assert_string_equal(tuning_find(t, "tile rows=3 lanes=8"), "4x2");
  assert_null(tuning_find(t, "tile rows=3"));
  tuning_set(t, "algorithm", "new", NULL);
  tuning_set(t, "tile rows=3 lanes=8", "5x1", "note");
  StrBuf b = {.arena = a};
  tuning_print(t, "about", &b);
  const char *want =
      "burin tuning 1\n# about\nalgorithm -> new\nconv3x3 in=8 -> direct  # us: direct 3.1\n"
      "tile rows=3 lanes=8 -> 5x1  # note\n";
  assert_string_equal(sb_str(&b), want);
  Tuning *again = parse(a, d, want);
  StrBuf c = {.arena = a};
  tuning_print(again, "about", &c);
  assert_string_equal(sb_str(&c), want);
  assert_int_equal(diag_errors(d), 0);
  arena_free(a);
}

static void test_malformed(void **state) {
  static const struct {
    const char *text, *error;
  } cases[] = {
      {"", "line 1: this is no tuning file"},
      {"\n", "line 1: this is no tuning file"},
      {"tile a -> b\n", "line 1: this is no tuning file"},
      {"burin tuning 2\n", "line 1: this version"},
      {"burin tuning 11\n", "line 1: this version"},
      {"burin tuning 1\ntile rows=3\n", "line 2: expected `KEY -> CHOICE`"},
      {"burin tuning 1\n\na->b\n", "line 3: expected `KEY -> CHOICE`"},
      {"burin tuning 1\n -> b\n", "line 2"},
      {"burin tuning 1\na -> \n", "line 2"},
      {"burin tuning 1\na -> b c\n", "line 2: the choice behind `->` must be one word"},
      {"burin tuning 1\na -> b\nc -> d\na -> b\n", "line 4: this key was given before"},
      {"burin tuning 1\na -> \x01\n", "line 2: not text"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    Arena *a = arena_new(0, NULL, NULL);
    Diag *d = diag_new(a);
    char *out = NULL;
    size_t n;
    assert_null(parse(a, d, cases[i].text));
    FILE *f = open_memstream(&out, &n);
    diag_print(d, f);
    fclose(f);
    if (!strstr(out, cases[i].error)) fail_msg("%s: %s", cases[i].text, out);
    assert_int_equal(diag_exit_status(d), 2);
    free(out);
    arena_free(a);
  }
}

static void test_damage(void **state) { /* any bytes: entries or an error, nothing else */
  static const char good[] = "burin tuning 1\na b -> c # d\ne -> f\n";
  uint32_t seed = 7;
  for (int round = 0; round < 3000; round++) {
    Arena *a = arena_new(0, NULL, NULL);
    Diag *d = diag_new(a);
    char text[sizeof good];
    memcpy(text, good, sizeof good);
    size_t n = sizeof good - 1;
    for (int k = 0; k < 1 + round % 4; k++) {
      seed = seed * 1664525 + 1013904223;
      text[(seed >> 8) % n] = (char)(seed >> 24);
    }
    n -= round % 3 == 0 ? (size_t)round % n : 0;
    char *exact = malloc(n ? n : 1); /* the sanitizer sees reads beyond */
    memcpy(exact, text, n);
    const Tuning *t = tuning_parse(a, d, exact, n, "t");
    assert_true((t != NULL) == (diag_errors(d) == 0));
    free(exact);
    arena_free(a);
  }
}

static const Candidate some[] = {{"a", 100, 1, 1}, {"b", 90, 1, 1},  {"c", 120, 2, 1},
                                 {"d", 95, 2, 1},  {"e", 140, 3, 1}, {"f", 80, 4, 2}};

static void test_take(void **state) {
  Arena *a = arena_new(0, NULL, NULL);
  Model *m = model_new(a, diag_new(a));
  DecisionLog log = {.arena = a};
  Tuning t = {.arena = a};
  PassCtx c = {.model = m, .target = target_find("x86-64-v3")};
  assert_false(choice_matters(&c));
  c.decisions = &log;
  assert_true(choice_matters(&c));
  const char *key = choice_key(&c, "tile rows=%d", 3);
  assert_non_null(strstr(key, "tile rows=3 lanes=8 regs=16"));
  assert_int_equal(choice_take(&c, CHOICE_TILE, key, some, 6, 1), 1);
  c.tuning = &t;
  tuning_set(&t, key, "c", NULL);
  assert_int_equal(choice_take(&c, CHOICE_TILE, key, some, 6, 1), 2);
  tuning_set(&t, key, "nothing", NULL); /* no candidate: the model's */
  assert_int_equal(choice_take(&c, CHOICE_TILE, key, some, 6, 1), 1);
  tuning_set(&t, key, "f", NULL); /* not among these */
  assert_int_equal(choice_take(&c, CHOICE_TILE, key, some, 5, 1), 1);
  assert_int_equal(choice_take(&c, CHOICE_TILE, "another", some, 6, 4), 4);
  assert_int_equal(log.list.n, 2);
  assert_string_equal(log.list.data[0].key, key);
  assert_int_equal(log.list.data[1].taken, 4);
  arena_free(a);
}

static void test_promising(void **state) {
  const Decision d = {"k", CHOICE_TILE, some, 6, 1, 1, false};
  int out[8];
  assert_int_equal(choice_promising(&d, 1.4, 8, out), 4); /* e and f (which counts twice) are out */
  assert_int_equal(out[0], 1);
  assert_int_equal(out[1], 3); /* of another family */
  assert_int_equal(out[2], 0);
  assert_int_equal(out[3], 2);
  assert_int_equal(choice_promising(&d, 2, 3, out), 3);
  assert_int_equal(out[2], 4);
  assert_int_equal(choice_promising(&d, 1, 8, out), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_round_trip), cmocka_unit_test(test_malformed),
      cmocka_unit_test(test_damage),     cmocka_unit_test(test_take),
      cmocka_unit_test(test_promising),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
