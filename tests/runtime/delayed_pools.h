/* Both pools under other schedules, for tests: at every step of the protocol a thread may be
 * delayed, workers are left out and come back at random. The host pool, or with PROGRAM_POOL that
 * of the static program, whose threads have no thread-local storage. Includes their sources. */
#pragma once
#define _GNU_SOURCE /* as host_pool.c */
#include <stdbool.h>
#include <stdint.h>

#include "runtime/core/sys.h"

#if defined(__x86_64__)
enum { NR_nanosleep = 35 };
#elif defined(__aarch64__)
enum { NR_nanosleep = 101 };
#else
enum { NR_nanosleep = 162 };
#endif

static uint32_t draws;

static uint32_t draw(void) {
  uint32_t x = __atomic_add_fetch(&draws, 0x9e3779b9u, __ATOMIC_RELAXED);
  x = (x ^ x >> 16) * 0x85ebca6bu;
  x = (x ^ x >> 13) * 0xc2b2ae35u;
  return x ^ x >> 16;
}

static void delay(void) {
  const uint32_t r = draw() % 4096;
  const long ns[2] = {0, r < 4 ? 3000000 : 20000};
  if (r < 64) sys_call(NR_nanosleep, (long)ns, 0, 0, 0, 0, 0);
  for (volatile uint32_t i = 0; r < 512 && i < r; i++) sys_relax();
}

#define POOL_POINT() delay()

#ifdef PROGRAM_POOL
#include "runtime/program/pool.c"
#define THREADS_OF(p) ((p)->core.threads)
#else
#include <pthread.h>
static int refuse_after; /* threads that start; 0: all */
static int create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg) {
  return refuse_after && --refuse_after == 0 ? 11 : pthread_create(t, a, fn, arg);
}
#define pthread_create create
#include "runtime/host_pool.c"
#undef pthread_create
typedef BurinPool Pool;
#define pool_start burin_pool_new
#define pool_parallel_ranges burin_pool_parallel_ranges
#define THREADS_OF(p) (burin_pool_options(p).threads)
#endif

/* Only one caller may do this: it changes who is asked, as a busy machine would. */
static void shuffle(Pool *p) {
  for (int32_t i = 1; i < p->core.threads; i++) {
    p->core.slots[i].out = draw() % 3 == 0;
    p->core.slots[i].balance = draw() % 1000;
  }
}
