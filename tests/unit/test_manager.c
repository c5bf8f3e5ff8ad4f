/* The pass manager holds passes to what they say: in debug builds a pass after which a property does
 * not hold that it claims to keep is an error that names both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "passes/pass.h"

#include <cmocka.h>

typedef struct Case {
  PassCtx c;
  Arena *arena;
  const char *pass; /* when it begins, something is done to the kernel that it is blamed for */
  void (*harm)(struct Case *k);
} Case;

static const char program[] =
    "module {\n b0 : f32[4] = input 0\n b1 : f32[4] = output 0\n"
    " kernel k { param b0 : f32[4] read\n param b1 : f32[4] write\n"
    "  for i in 0..4 { b1[i] = b0[i] } }\n"
    " steps { call k(b0, b1) }\n}\n";

/* The store stores exp of what it stored. */
static bool put_exp(void *user, Stmt *s) {
  const Case *const k = user;
  if (s->kind == ST_STORE)
    s->access.value = ex_op(k->c.model->pool, EX_exp, s->access.value, NULL, NULL);
  return true;
}

static void add_function(Case *k) { stmt_each(k->c.module->kernels.data[0]->body, put_exp, k); }

static void before(void *user, const char *pass, int number, int of) {
  Case *const k = user;
  (void)number;
  (void)of;
  if (k->harm && pass && strcmp(pass, k->pass) == 0) k->harm(k);
}

/* What is said when `passes` run and the pass that begins is disturbed; "" when they succeed. */
static const char *run(Case *k, const char *passes) {
  Diag *const d = diag_new(k->arena);
  Target t;
  assert_true(target_native(&t));
  k->c = (PassCtx){.model = model_new(k->arena, d), .target = &t, .opt_level = 3, .max_threads = 1};
  k->c.module = module_parse(k->c.model, program, "test");
  assert_non_null(k->c.module);
  const PassOptions o = {.passes = passes, .progress = before, .progress_user = k};
  const bool ok = passes_run(&k->c, &o);
  assert_int_equal(ok, diag_errors(d) == 0);
  char *text = NULL;
  size_t n = 0;
  FILE *const f = open_memstream(&text, &n);
  diag_print(d, f);
  fclose(f);
  const char *const copy = arena_strdup(k->arena, text);
  free(text);
  return copy;
}

static void test_wrong_claim(void **state) {
#ifdef BURIN_DEBUG
  Case k = {.arena = arena_new(0, NULL, NULL), .pass = "merge_kernels"};
  assert_string_equal(run(&k, "expand_math,merge_kernels"), "");
  k.harm = add_function;
  const char *const said = run(&k, "expand_math,merge_kernels");
  assert_non_null(strstr(said, "pass merge_kernels keeps 'basic', which does not hold after it"));
  k.pass = "expand_math"; /* which makes it basic again */
  assert_string_equal(run(&k, "expand_math,merge_kernels"), "");
  arena_free(k.arena);
#else
  (void)state;
  skip();
#endif
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_wrong_claim)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
