/* The pthread pool under ThreadSanitizer and a storm of signals: every task runs exactly once per
 * run. */
#include "runtime/host_pool.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>

enum { TASKS = 13, RUNS = 3000 };

static volatile sig_atomic_t signals;
static void on_signal(int s) { (void)s, signals++; }
static void task(void *arg, int32_t i) { ((int *)arg)[i]++; }

static int run_with(int threads) {
  BurinPool *pool = burin_pool_new(threads);
  const BurinOptions o = burin_pool_options(pool);
  if (!pool || o.threads != threads) return 1;
  int counts[TASKS];
  memset(counts, 0, sizeof counts);
  for (int r = 0; r < RUNS; r++) o.parallel_for(o.user, r % TASKS + 1, task, counts);
  burin_pool_free(pool);
  for (int i = 0; i < TASKS; i++) {
    int want = 0;
    for (int r = 0; r < RUNS; r++) want += r % TASKS >= i;
    if (counts[i] != want)
      return fprintf(stderr, "task %d ran %d times, not %d\n", i, counts[i], want), 1;
  }
  return 0;
}

int main(void) {
  signal(SIGALRM, on_signal);
  const struct itimerval often = {{0, 200}, {0, 200}};
  setitimer(ITIMER_REAL, &often, NULL);
  int bad = 0;
  for (int threads = 1; threads <= 5; threads++) bad |= run_with(threads);
  return bad || !signals;
}
