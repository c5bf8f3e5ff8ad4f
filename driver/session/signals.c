/* Signals: a crash is exit 70 with a message, a model that shrinks while it is mapped exit 3, and
 * whatever ends burin removes the temporary files that have names. Handlers make async-signal-safe
 * calls only; what they look at are the few static variables here. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "driver/driver.h"

enum { MOST_NESTED = 8 };
static Outputs *volatile watched[MOST_NESTED];
static volatile int n_watched;
static volatile sig_atomic_t child;
static volatile int *volatile asked; /* of signals_defer */

void signals_watch(Outputs *o) {
  if (n_watched < MOST_NESTED) watched[n_watched] = o;
  n_watched++;
}
void signals_unwatch(void) { n_watched--; }
void signals_watch_child(int pid) { child = pid; }
void signals_defer(volatile int *to) { asked = to; }
static void remove_temporaries(void) {
  for (int i = 0; i < n_watched && i < MOST_NESTED; i++)
    for (int k = 0; k < watched[i]->files.n; k++)
      if (watched[i]->files.data[k]->named) unlink(watched[i]->files.data[k]->temporary);
}

/* ---- handlers ---- */
static void ended(int sig) {
  volatile int *const first = asked;
  if (first && *first == 0 && (sig == SIGINT || sig == SIGTERM || sig == SIGHUP)) {
    *first = sig;
    return;
  }
  if (child > 0) kill(child, sig);
  remove_temporaries();
  signal(sig, SIG_DFL);
  raise(sig);
}

void signals_leave(const char *text, int status) {
  remove_temporaries();
  if (write(STDERR_FILENO, text, strlen(text)) < 0) _exit(status);
  _exit(status);
}

static void crashed(int sig, siginfo_t *info, void *context) {
  (void)context;
  if (sig == SIGBUS && info->si_code == BUS_ADRERR)
    signals_leave(
        "burin: error[E0001]: a file became shorter, or could not be read, while it was mapped\n",
        EXIT_IO);
  memory_crashed();
  signals_leave(
      "burin: internal error[E0901]: crashed; this is a bug of burin. --print-ir-after=all shows "
      "how far it got\n",
      EXIT_INTERNAL);
}

#ifndef __has_feature
#define __has_feature(x) 0
#endif

/* The crash may be an overflow of the stack: handlers have one of their own, on this thread. */
void signals_stack(void) {
  static char stack[65536];
  const stack_t alt = {.ss_sp = stack, .ss_size = sizeof stack};
  if (!__has_feature(address_sanitizer)) sigaltstack(&alt, NULL);
}

static void catch_crashes(void) {
  static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
  struct sigaction act = {.sa_sigaction = crashed, .sa_flags = SA_ONSTACK | SA_SIGINFO};
  for (size_t k = 0; k < sizeof signals / sizeof *signals; k++)
    if (!__has_feature(address_sanitizer) || signals[k] == SIGBUS)
      sigaction(signals[k], &act, NULL);
}

static void catch_ends(void) {
  static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXCPU};
  struct sigaction act = {.sa_handler = ended}, old;
  for (size_t k = 0; k < sizeof signals / sizeof *signals; k++)
    if (sigaction(signals[k], NULL, &old) == 0 && old.sa_handler == SIG_DFL) /* nohup ignores */
      sigaction(signals[k], &act, NULL);
  signal(SIGXFSZ, SIG_IGN); /* the write fails instead */
}

/* Files that are opened must not get the numbers of closed standard ones; writing to those still
 * fails. */
static void fill_descriptors(void) {
  for (int fd = 0; fd < 2; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd) return;
  if (fcntl(2, F_GETFD) < 0 && open("/dev/null", O_WRONLY) != 2) return;
}

void signals_init(void) {
  fill_descriptors();
  catch_crashes();
  catch_ends();
}
