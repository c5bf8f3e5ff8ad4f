/* Entry: picks the verb. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "driver/driver.h"
#include "driver/prune/prune.h"
#include "driver/train/train.h"

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
  } verbs[] = {{"compile", verb_compile}, {"run", verb_run},    {"bench", verb_bench},
               {"inspect", verb_inspect}, {"diff", verb_diff},  {"quantize", verb_quantize},
               {"train", verb_train},     {"prune", verb_prune}};
  for (size_t k = 0; k < sizeof verbs / sizeof *verbs; k++)
    if (strcmp(verbs[k].name, o->verb) == 0) return verbs[k].fn(o);
  return EXIT_USAGE;
}

static int run(int argc, char **argv) {
  static Options o; /* large, and the only one */
  if (!args_parse(argc, argv, &o)) return EXIT_USAGE;
  if (o.version) return printf("burin %s (LLVM 19, ONNX opset 7 to 28)\n", BURIN_VERSION), EXIT_OK;
  if (o.list_targets) return list_targets();
  if (o.list_passes) return list_passes();
  if (o.list_ops) return list_operators();
  if (o.help || strcmp(o.verb, "help") == 0) return help_print(o.verb);
  return dispatch(&o);
}

/* What was printed must have arrived. */
static int printed(int status) {
  const bool failed = ferror(stdout) != 0;
  if (fflush(stdout) == 0 && !failed) return status;
  const int error = errno;
  if (status != EXIT_OK && status != EXIT_MISMATCH) return status;
  fprintf(stderr, "burin: error[E%04d]: cannot write to the standard output%s%s\n", ERR_OUTPUT,
          error ? ": " : "", error ? strerror(error) : "");
  return EXIT_OUTPUT;
}

typedef struct Main {
  int argc, status;
  char **argv;
} Main;

static void *run_on(void *user) {
  Main *m = user;
  signals_stack();
  m->status = printed(run(m->argc, m->argv));
  return NULL;
}

/* Recursion over expressions and nested regions is bounded, but not by 8 MiB, nor by what `ulimit
 * -s` says: a thread has the stack that it is given. */
int main(int argc, char **argv) {
  enum { STACK = 64 << 20 };
  Main m = {argc, EXIT_LIMIT, argv};
  pthread_attr_t attr;
  pthread_t thread;
  signals_init();
  pthread_attr_init(&attr);
  pthread_attr_setstacksize(&attr, STACK);
  if (pthread_create(&thread, &attr, run_on, &m) == 0)
    pthread_join(thread, NULL);
  else
    run_on(&m); /* no memory for one: perhaps this one does */
  return m.status;
}
