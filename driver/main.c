/* Entry: picks the verb. */
#include <string.h>
#include "driver/driver.h"

static int list_targets(void) {
  Target native;
  if (target_native(&native))
    printf("%-14s this machine: %s, %d-bit vectors, %s\n", "native", native.cpu, native.vector_bits,
           native.triple);
  for (int k = 0; k < target_row_count; k++)
    printf("%-14s %s\n", target_rows[k].name, target_rows[k].help);
  return EXIT_OK;
}

static int list_passes(void) {
  static const char *const levels[] = {"graph", "lower", "loop"};
  for (int k = 0; k < pass_row_count; k++)
    printf("%-20s %-6s -O%d  %s\n", pass_rows[k].name, levels[pass_rows[k].level],
           pass_rows[k].min_opt, pass_rows[k].help);
  return EXIT_OK;
}

static int dispatch(const Options *o) {
  static const struct {
    const char *name;
    int (*fn)(const Options *o);
  } verbs[] = {{"compile", verb_compile},
               {"run", verb_run},
               {"bench", verb_bench},
               {"inspect", verb_inspect},
               {"diff", verb_diff}};
  for (size_t k = 0; k < sizeof verbs / sizeof *verbs; k++)
    if (strcmp(verbs[k].name, o->verb) == 0) return verbs[k].fn(o);
  return usage_error("'burin %s' is not in this version", o->verb);
}

int main(int argc, char **argv) {
  static Options o; /* large, and the only one */
  if (!args_parse(argc, argv, &o)) return EXIT_USAGE;
  if (o.version) return printf("burin %s (LLVM 19, ONNX opset 7 to 28)\n", BURIN_VERSION), EXIT_OK;
  if (o.list_targets) return list_targets();
  if (o.list_passes) return list_passes();
  if (o.help || strcmp(o.verb, "help") == 0) return help_print(o.verb);
  const int status = dispatch(&o);
  if (fflush(stdout) != 0 && status == EXIT_OK) return EXIT_OUTPUT;
  return status;
}
