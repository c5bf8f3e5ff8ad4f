/* The pthread pool offered to host programs. Persistent workers with all signals blocked (a host's
 * handlers run on its own threads), a bounded spin (about 0.1 ms, longer than the gap between two
 * kernels), then a condition variable. The caller works too.
 */
#include "host_pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

struct BurinPool {
  int threads;              /* the caller included */
  pthread_mutex_t run;      /* held by the caller for the whole of a run */
  pthread_mutex_t lock;     /* protects what follows, except the atomics */
  pthread_cond_t work, done;
  BurinTask task;
  void *arg;
  int32_t n;
  bool stop;
  atomic_uint generation;   /* a new one: there is work */
  atomic_int next;          /* first task not yet taken */
  atomic_int busy;          /* workers that have not finished this generation */
  atomic_int sleepers;      /* workers on `work`, or about to be */
  atomic_int waiting;       /* the caller is on `done`, or about to be */
  pthread_t workers[];
};

enum { SPINS = 2000 };

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

static void take_tasks(BurinPool *p) {
  for (int32_t i; (i = atomic_fetch_add(&p->next, 1)) < p->n;) p->task(p->arg, i);
}

/* Waits for a generation other than `seen`; returns it. */
static unsigned await_work(BurinPool *p, unsigned seen) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load(&p->generation) != seen) return atomic_load(&p->generation);
    relax();
  }
  pthread_mutex_lock(&p->lock);
  atomic_fetch_add(&p->sleepers, 1);
  while (atomic_load(&p->generation) == seen) pthread_cond_wait(&p->work, &p->lock);
  atomic_fetch_sub(&p->sleepers, 1);
  pthread_mutex_unlock(&p->lock);
  return atomic_load(&p->generation);
}

static void *worker_main(void *arg) {
  BurinPool *p = arg;
  for (unsigned seen = 0;;) {
    seen = await_work(p, seen);
    if (p->stop) return NULL;
    take_tasks(p);
    if (atomic_fetch_sub(&p->busy, 1) == 1 && atomic_load(&p->waiting)) {
      pthread_mutex_lock(&p->lock);
      pthread_cond_signal(&p->done);
      pthread_mutex_unlock(&p->lock);
    }
  }
}

/* Whoever counts itself a sleeper looks at the generation afterwards, so none is missed. */
static void publish(BurinPool *p) {
  atomic_fetch_add(&p->generation, 1);
  if (!atomic_load(&p->sleepers)) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->work);
  pthread_mutex_unlock(&p->lock);
}

void burin_pool_parallel_for(void *pool, int32_t n, BurinTask task, void *arg) {
  BurinPool *p = pool;
  pthread_mutex_lock(&p->run);
  p->task = task;
  p->arg = arg;
  p->n = n;
  atomic_store(&p->next, 0);
  atomic_store(&p->busy, p->threads - 1);
  publish(p);
  take_tasks(p);
  for (int i = 0; i < SPINS && atomic_load(&p->busy); i++) relax();
  if (atomic_load(&p->busy)) {
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, 1);
    while (atomic_load(&p->busy)) pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->waiting, 0);
    pthread_mutex_unlock(&p->lock);
  }
  pthread_mutex_unlock(&p->run);
}

BurinPool *burin_pool_new(int threads) {
  if (threads < 1) return NULL;
  BurinPool *p = calloc(1, sizeof *p + (size_t)threads * sizeof *p->workers);
  if (!p) return NULL;
  pthread_mutex_init(&p->run, NULL);
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->work, NULL);
  pthread_cond_init(&p->done, NULL);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  p->threads = 1;
  while (p->threads < threads && !pthread_create(&p->workers[p->threads - 1], NULL, worker_main, p))
    p->threads++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (p->threads == threads) return p;
  burin_pool_free(p);
  return NULL;
}

void burin_pool_free(BurinPool *p) {
  if (!p) return;
  p->stop = true;
  publish(p);
  for (int i = 0; i < p->threads - 1; i++) pthread_join(p->workers[i], NULL);
  pthread_cond_destroy(&p->done);
  pthread_cond_destroy(&p->work);
  pthread_mutex_destroy(&p->lock);
  pthread_mutex_destroy(&p->run);
  free(p);
}

BurinOptions burin_pool_options(BurinPool *pool) {
  BurinOptions o = {.size = sizeof o, .threads = 1, .user = pool};
  if (pool) o.threads = pool->threads, o.parallel_for = burin_pool_parallel_for;
  return o;
}
