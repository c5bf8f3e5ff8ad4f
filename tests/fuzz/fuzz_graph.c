/* Fuzzes the graph IR's parser: any text gives an error or a model, and what verifies prints,
 * parses and prints the same. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "ir/graph/graph.h"

static void out_of_memory(void *user, size_t wanted) { longjmp(*(jmp_buf *)user, 1); }

static const char *print(const Model *m) {
  StrBuf b = {.arena = m->arena};
  model_print(m, &b, true);
  return sb_str(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  jmp_buf out;
  Arena *volatile a = arena_new((size_t)256 << 20, out_of_memory, &out);
  if (setjmp(out) == 0) {
    Diag *d = diag_new(a);
    Model *m = model_parse(a, d, arena_strndup(a, (const char *)data, size), "fuzz.ir");
    if (m && model_verify(m, "parse")) {
      const char *text = print(m);
      Model *again = model_parse(a, d, text, "again.ir");
      if (!again) abort();
      const char *third = print(again);
      again = model_parse(a, d, third, "third.ir");
      if (!again || strcmp(print(again), third) != 0) abort();
    }
  }
  arena_free(a);
  return 0;
}
