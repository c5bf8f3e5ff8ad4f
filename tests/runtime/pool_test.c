/* Every iteration runs exactly once, in a range that is long enough, and never two ranges with one
 * slot, whatever the schedule: the host pool (under ThreadSanitizer), or with PROGRAM_POOL that of
 * the static program. */
#include "delayed_pools.h"

#include <stdio.h>

enum { MOST = 4000, SLOTS = 6, CALLERS = 4 };
typedef struct Job {
  int64_t n, grain;
  int32_t slots;
  uint32_t busy[SLOTS], wrong;
  uint32_t runs[MOST]; /* plain: ThreadSanitizer sees whoever overlaps */
} Job;

static void work(void *arg, int64_t begin, int64_t end, int32_t slot) {
  Job *const j = arg;
  const int64_t least = j->n < j->grain ? j->n : j->grain;
  bool bad = begin < 0 || end > j->n || end - begin < least || slot < 0 || slot >= j->slots;
  bad = bad || __atomic_exchange_n(&j->busy[slot], 1, __ATOMIC_RELAXED);
  if (bad) __atomic_fetch_add(&j->wrong, 1, __ATOMIC_RELAXED);
  for (int64_t i = begin; !bad && i < end; i++) j->runs[i]++;
  delay();
  if (!bad) __atomic_store_n(&j->busy[slot], 0, __ATOMIC_RELAXED);
}

static uint32_t loops(Pool *p, int rounds, bool alone) {
  static Job jobs[CALLERS];
  static uint32_t used;
  Job *const j = &jobs[__atomic_fetch_add(&used, 1, __ATOMIC_RELAXED) % CALLERS];
  uint32_t wrong = 0;
  for (int r = 0; r < rounds; r++) {
    *j = (Job){.n = draw() % (r % 4 ? 40 : MOST),
               .grain = 1 + draw() % 9,
               .slots = 1 + (int)(draw() % SLOTS)};
    if (alone) shuffle(p);
    pool_parallel_ranges(p, j->n, j->grain, j->slots, work, j);
    for (int64_t i = 0; i < MOST; i++) wrong += j->runs[i] != (i < j->n);
    wrong += j->wrong;
  }
  return wrong;
}

#ifndef PROGRAM_POOL
#include <sys/wait.h>
#include <unistd.h>

static Pool *shared;
static uint32_t wrong_shared;

static void *caller(void *arg) {
  (void)arg;
  __atomic_fetch_add(&wrong_shared, loops(shared, 700, false), __ATOMIC_RELAXED);
  return NULL;
}

static uint32_t many_callers(void) {
  pthread_t t[CALLERS];
  shared = burin_pool_new(3);
  for (int i = 0; i < CALLERS; i++) pthread_create(&t[i], NULL, caller, NULL);
  for (int i = 0; i < CALLERS; i++) pthread_join(t[i], NULL);
  burin_pool_free(shared);
  return wrong_shared;
}

static uint32_t refused(void) {
  refuse_after = 3;
  Pool *const p = burin_pool_new(5);
  const uint32_t wrong = !p || THREADS_OF(p) != 3 ? 1 : loops(p, 300, true);
  burin_pool_free(p);
  refuse_after = 1;
  Pool *const none = burin_pool_new(4);
  const uint32_t serial = !none || THREADS_OF(none) != 1 ? 1 : loops(none, 20, true);
  burin_pool_free(none);
  return wrong + serial;
}

static void inner(void *arg, int64_t begin, int64_t end, int32_t slot) {
  (void)slot;
  for (int64_t i = begin; i < end; i++) {
    Job *const j = (Job *)arg + i;
    *j = (Job){.n = 100, .grain = 3, .slots = SLOTS};
    burin_pool_parallel_ranges(shared, j->n, j->grain, j->slots, work, j);
  }
}

/* A task that runs a loop on the pool that runs it. */
static uint32_t nested(void) {
  static Job jobs[20];
  uint32_t wrong = 0;
  shared = burin_pool_new(3);
  burin_pool_parallel_ranges(shared, 20, 1, SLOTS, inner, jobs);
  burin_pool_free(shared);
  for (int k = 0; k < 20; k++)
    for (int64_t i = 0; i < 100; i++) wrong += jobs[k].runs[i] != 1;
  return wrong;
}

/* Pools that end while their workers start, sleep or look for work. */
static uint32_t short_lives(void) {
  uint32_t wrong = 0;
  for (int i = 0; i < 300; i++) {
    Pool *const p = burin_pool_new(1 + i % 5);
    wrong += loops(p, i % 3, true);
    burin_pool_free(p);
  }
  return wrong;
}
#endif

#ifndef PROGRAM_POOL
/* The workers do not survive a fork: the child works alone. */
static uint32_t forked(void) {
#if __has_feature(thread_sanitizer)
  return 0;
#else
  Pool *const p = burin_pool_new(4);
  uint32_t wrong = loops(p, 20, true);
  const pid_t child = fork();
  if (!child) _exit(loops(p, 20, true) != 0);
  int status = 1;
  wrong += waitpid(child, &status, 0) != child || status != 0;
  burin_pool_free(p);
  return wrong;
#endif
}
#endif

static uint32_t all_sizes(void) {
  uint32_t wrong = 0;
  for (int threads = 2; threads <= SLOTS; threads++) {
    Pool *const p = pool_start(threads);
    wrong += !p || THREADS_OF(p) != threads ? 1 : loops(p, 1500, true);
#ifndef PROGRAM_POOL
    burin_pool_free(p);
#endif
  }
  return wrong;
}

int main(void) {
  uint32_t wrong[6] = {all_sizes()};
#ifndef PROGRAM_POOL
  wrong[1] = many_callers();
  wrong[2] = refused();
  wrong[3] = nested();
  wrong[4] = short_lives();
  wrong[5] = forked();
#endif
  for (int i = 0; i < 6; i++)
    if (wrong[i]) return fprintf(stderr, "test %d: %u faults\n", i, wrong[i]), 1;
  return 0;
}
