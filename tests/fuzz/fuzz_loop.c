/* Any bytes as the text of a program: parsing, checking, printing and the loop passes must not crash,
 * and find no internal error; what parses and is valid must come back from its own text. Seeds: files
 * of --ir-dir, docs/ir.md. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include "passes/pass.h"

static void out_of_memory(void *user, size_t wanted) { longjmp(*(jmp_buf *)user, 1); }

static void check(const Diag *d, const char *what) {
  if (diag_exit_status(d) != 70) return;
  fprintf(stderr, "internal error in %s\n", what);
  diag_print(d, stderr);
  abort();
}

static const char *text_of(Arena *a, const Module *m) {
  StrBuf b = {.arena = a};
  program_print(m, &b, true);
  return sb_str(&b);
}

static Module *read_again(Arena *a, const Module *m, const char *what) {
  Diag *d = diag_new(a);
  Module *again = program_parse(a, d, text_of(a, m), what, NULL, NULL);
  if (again) return again;
  diag_print(d, stderr);
  fprintf(stderr, "%s", text_of(a, m));
  abort();
}

static void compile(Arena *a, const char *text) {
  Diag *d = diag_new(a);
  Module *m = program_parse(a, d, text, "fuzz", NULL, NULL);
  if (!m && !diag_errors(d)) abort(); /* a failure without a message */
  check(d, "the parser");
  if (!m) return;
  read_again(a, m, "again");
  PassCtx c = {.model = m->model,
               .module = m,
               .target = target_find("x86-64-v3"),
               .opt_level = 3,
               .max_threads = 8};
  const bool ok = passes_run(&c, &(PassOptions){.needs = PF_CODE});
  if (!ok && !diag_errors(d)) abort();
  check(d, "the passes");
  if (ok) read_again(a, c.module, "compiled");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  jmp_buf back;
  Arena *a = arena_new((size_t)256 << 20, out_of_memory, &back);
  if (!setjmp(back)) compile(a, arena_strndup(a, (const char *)data, size));
  arena_free(a);
  return 0;
}
