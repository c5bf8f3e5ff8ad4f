/* The pthread pool offered to host programs: persistent workers with all signals blocked (a host's
 * handlers run on its own threads), parked on condition variables. pool_core.h has the protocol. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getcpu */
#endif
#include "host_pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "pool_core.h"

typedef struct Worker {
  BurinPool *pool;
  int32_t slot;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t work, done; /* for the worker and for the caller */
} Worker;

struct BurinPool {
  PoolCore core;
  Worker *workers; /* by slot; the caller's is unused */
};

static uint64_t pool_clock_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#ifdef __linux__
static int32_t pool_cpu(void) { return sched_getcpu(); }

static void pool_leave_cpu(int32_t cpu) {
  cpu_set_t allowed, others;
  if (cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed)) return;
  others = allowed;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) && !sched_setaffinity(0, sizeof others, &others))
    sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
static int32_t pool_cpu(void) { return -1; }
static void pool_leave_cpu(int32_t cpu) { (void)cpu; }
#endif

static Worker *worker_of(PoolCore *p, const PoolSlot *s) {
  return &((BurinPool *)p)->workers[s - p->slots];
}

static void pool_park(PoolCore *p, PoolSlot *s, uint32_t value) {
  Worker *const w = worker_of(p, s);
  pthread_mutex_lock(&w->lock);
  while (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == value)
    pthread_cond_wait(value == POOL_ASLEEP ? &w->work : &w->done, &w->lock);
  pthread_mutex_unlock(&w->lock);
}

static void pool_unpark(PoolCore *p, PoolSlot *s, uint32_t value) {
  Worker *const w = worker_of(p, s);
  pthread_mutex_lock(&w->lock); /* not between the other's look at the state and its sleep */
  pthread_cond_signal(value == POOL_ASLEEP ? &w->work : &w->done);
  pthread_mutex_unlock(&w->lock);
}

static void *worker_main(void *arg) {
  Worker *const w = arg;
  pool_worker(&w->pool->core, w->slot);
  return NULL;
}

static bool worker_start(BurinPool *p, int32_t slot) {
  Worker *const w = &p->workers[slot];
  w->pool = p;
  w->slot = slot;
  pthread_mutex_init(&w->lock, NULL);
  pthread_cond_init(&w->work, NULL);
  pthread_cond_init(&w->done, NULL);
  return !pthread_create(&w->thread, NULL, worker_main, w);
}

void burin_pool_parallel_ranges(void *pool, int64_t n, int64_t grain, int32_t slots,
                                BurinRange range, void *arg) {
  pool_run(&((BurinPool *)pool)->core, n, grain, slots, range, arg);
}

typedef struct Tasks {
  BurinTask task;
  void *arg;
} Tasks;

static void tasks_run(void *arg, int64_t begin, int64_t end, int32_t slot) {
  const Tasks *const t = arg;
  (void)slot;
  for (int64_t i = begin; i < end; i++) t->task(t->arg, (int32_t)i);
}

void burin_pool_parallel_for(void *pool, int32_t n, BurinTask task, void *arg) {
  Tasks tasks = {task, arg};
  burin_pool_parallel_ranges(pool, n, 1, INT32_MAX, tasks_run, &tasks);
}

BurinPool *burin_pool_new(int threads) {
  if (threads < 1) return NULL;
  BurinPool *const p = calloc(1, sizeof *p);
  const size_t n = (size_t)threads;
  if (p) p->core.slots = aligned_alloc(_Alignof(PoolSlot), n * sizeof(PoolSlot));
  if (p) p->workers = calloc(n, sizeof *p->workers);
  if (!p || !p->core.slots || !p->workers) return burin_pool_free(p), NULL;
  pool_init(&p->core, p->core.slots, threads);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (p->core.threads < threads && worker_start(p, p->core.threads)) p->core.threads++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return p;
}

void burin_pool_free(BurinPool *p) {
  if (!p) return;
  for (int32_t i = 1; i < p->core.threads; i++) pool_tell(&p->core, &p->core.slots[i], POOL_STOP);
  for (int32_t i = 1; i < p->core.threads; i++) {
    pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->workers[i].done);
    pthread_cond_destroy(&p->workers[i].work);
    pthread_mutex_destroy(&p->workers[i].lock);
  }
  free(p->workers);
  free(p->core.slots);
  free(p);
}

BurinOptions burin_pool_options(BurinPool *pool) {
  BurinOptions o = {.size = sizeof o, .threads = 1, .user = pool};
  if (!pool) return o;
  o.threads = pool->core.threads;
  o.parallel_for = burin_pool_parallel_for;
  o.parallel_ranges = burin_pool_parallel_ranges;
  return o;
}
