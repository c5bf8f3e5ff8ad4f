/* libFuzzer: any bytes as a model file: wire scan, decoding, import, upgrades, inference. Seeds:
 * the models of tests/errors. Nothing may crash, hang or leak; running out of the small arena is a
 * clean way out. */
#include <setjmp.h>
#include <stdlib.h>
#include "frontend/frontend.h"

static void out_of_memory(void *user, size_t wanted) {
  (void)wanted;
  longjmp(*(jmp_buf *)user, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  jmp_buf exit;
  Arena *const a = arena_new((size_t)256 << 20, out_of_memory, &exit);
  if (setjmp(exit) == 0) {
    Diag *const d = diag_new(a);
    const FrontendOptions o = {.max_memory = (size_t)64 << 20};
    const Model *const m = frontend_load_memory(a, d, data, size, "fuzz", &o);
    if (!m && !diag_errors(d)) abort(); /* a failure without a message */
    if (diag_exit_status(d) == 70) {
      diag_print(d, stderr);
      abort();
    }
    if (m && !model_verify(m, "import")) {
      diag_print(d, stderr);
      abort();
    }
  }
  arena_free(a);
  return 0;
}
