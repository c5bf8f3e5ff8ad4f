/* Any bytes as the text of a module: parsing, checking and printing must not crash, and what parses
 * and is valid must come back from its own text. */
#include <setjmp.h>
#include <stdlib.h>
#include "ir/loop/loop.h"

static void out_of_memory(void *user, size_t wanted) { longjmp(*(jmp_buf *)user, 1); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  jmp_buf back;
  Arena *a = arena_new((size_t)256 << 20, out_of_memory, &back);
  if (!setjmp(back)) {
    Model *m = model_new(a, diag_new(a));
    Module *mod = module_parse(m, arena_strndup(a, (const char *)data, size), "fuzz");
    if (mod && module_verify(mod, "fuzz")) {
      StrBuf b = {.arena = a};
      module_print(mod, &b);
      if (!module_parse(m, sb_str(&b), "again")) abort();
    }
  }
  arena_free(a);
  return 0;
}
