/* libFuzzer: any bytes as a model file, through import and the whole pipeline for one of the
 * targets and levels (the last byte chooses). Every pass is verified by the manager, which also
 * reads the text of graphs back (debug builds). Nothing may crash, hang, leak or be an internal
 * error. Seeds: small models (tests/fuzz/seeds.py). */
#include <setjmp.h>
#include <stdlib.h>

#include "frontend/frontend.h"
#include "passes/pass.h"

static void out_of_memory(void *user, size_t wanted) {
  (void)wanted;
  longjmp(*(jmp_buf *)user, 1);
}

static void check(const Diag *d, const char *what) {
  if (diag_exit_status(d) != 70) return;
  fprintf(stderr, "internal error in %s\n", what);
  diag_print(d, stderr);
  abort();
}

static void compile(Arena *a, const uint8_t *data, size_t size) {
  static const char *const targets[] = {"x86-64-v4", "x86-64-v3", "aarch64", "armv7"};
  Diag *const d = diag_new(a);
  const FrontendOptions o = {.max_memory = (size_t)64 << 20};
  const int choice = size ? data[size - 1] : 0;
  Model *const m = frontend_load_memory(a, d, data, size, "fuzz", &o);
  check(d, "the frontend");
  if (!m) return;
  PassCtx c = {.model = m,
               .target = target_find(targets[choice / 4 % 4]),
               .opt_level = choice % 4 == 0 ? 0 : 3,
               .max_threads = 8,
               .winograd = choice & 64};
  const PassOptions p = {.n_disabled = 0};
  if (!passes_run(&c, &p) && !diag_errors(d)) abort(); /* a failure without a message */
  check(d, "the passes");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  jmp_buf exit;
  Arena *const a = arena_new((size_t)512 << 20, out_of_memory, &exit);
  if (setjmp(exit) == 0) compile(a, data, size);
  arena_free(a);
  return 0;
}
