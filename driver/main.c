/* Entry: picks the verb. */
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

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

/* A crash of ours (or of LLVM) is exit 70 with a message, never a bare signal. Only
 * async-signal-safe calls. */
static void crashed(int sig) {
  static const char text[] =
      "burin: internal error[E0901]: crashed; this is a bug of burin. --print-ir-after=all shows "
      "how far it got\n";
  (void)sig;
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(EXIT_INTERNAL + 1);
  _exit(EXIT_INTERNAL);
}

#ifndef __has_feature
#define __has_feature(x) 0
#endif

static void catch_crashes(void) {
#if !__has_feature(address_sanitizer)
  static char stack[65536]; /* the crash may be an overflow of the real one */
  static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
  const stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
  struct sigaction act = {.sa_handler = crashed, .sa_flags = SA_ONSTACK};
  sigaltstack(&alt, NULL);
  for (size_t k = 0; k < sizeof signals / sizeof *signals; k++) sigaction(signals[k], &act, NULL);
#else
  (void)crashed;
#endif
}

/* Recursion over expressions and nested regions is bounded, but not by 8 MiB. */
static void grow_stack(void) {
  struct rlimit r;
  const rlim_t wanted = (rlim_t)64 << 20;
  if (getrlimit(RLIMIT_STACK, &r) != 0 || r.rlim_cur == RLIM_INFINITY || r.rlim_cur >= wanted)
    return;
  r.rlim_cur = r.rlim_max == RLIM_INFINITY || r.rlim_max > wanted ? wanted : r.rlim_max;
  setrlimit(RLIMIT_STACK, &r);
}

int main(int argc, char **argv) {
  static Options o; /* large, and the only one */
  catch_crashes();
  grow_stack();
  if (!args_parse(argc, argv, &o)) return EXIT_USAGE;
  if (o.version) return printf("burin %s (LLVM 19, ONNX opset 7 to 28)\n", BURIN_VERSION), EXIT_OK;
  if (o.list_targets) return list_targets();
  if (o.list_passes) return list_passes();
  if (o.help || strcmp(o.verb, "help") == 0) return help_print(o.verb);
  const int status = dispatch(&o);
  if (fflush(stdout) != 0 && status == EXIT_OK) return EXIT_OUTPUT;
  return status;
}
