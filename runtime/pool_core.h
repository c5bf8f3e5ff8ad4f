/* What the two pools (host_pool.c, program/pool.c) have in common: how a loop is divided, offered
 * to workers and finished without those that did not come, and which workers are left out for a
 * while because they cost more than they did (docs/ARCHITECTURE.md, "Threads"). The includer
 * defines pool_park, pool_unpark, pool_cpu, pool_leave_cpu and pool_clock_ns, and starts the
 * workers. */
#pragma once
#include <stdbool.h>

#include "abi.h"

#ifndef POOL_POINT
#define POOL_POINT() ((void)0) /* tests delay threads here */
#endif

/* A worker's state, through which it and the caller hand the loop to each other. Nothing is counted
 * and nothing is numbered: whoever changes OFFERED decides whether the worker takes part. */
enum {
  POOL_IDLE,    /* looks for an offer */
  POOL_ASLEEP,  /* parked: whoever offers must wake it */
  POOL_OFFERED, /* by the caller, who writes the loop only while nobody has or may take it */
  POOL_TAKEN,   /* by the worker: the caller must wait for it */
  POOL_AWAITED, /* taken, and the caller is parked: the worker must wake it */
  POOL_STOP     /* the worker shall end */
};
enum { POOL_SPINS = 2000, POOL_UNITS = 65535 };

typedef struct PoolSlot { /* slot 0 is the caller's */
  _Alignas(64) uint32_t state;
  uint32_t units; /* not yet taken by anyone: first | end << 16 */
  /* What this slot did of the loop: units, ticks for them, its fastest piece. */
  uint32_t done;
  uint64_t spent, least_ticks, least_units;
  /* The caller's account of this worker, in ticks: what it saved less what it cost. */
  int64_t cost; /* waking it and waiting for it, this time */
  int64_t balance;
  uint32_t shift; /* how slowly a debt is paid */
  bool out;       /* in debt: not asked */
  bool wanted;    /* in this loop */
} PoolSlot;

typedef struct PoolCore {
  PoolSlot *slots;
  int32_t threads; /* slots there are: the caller and the workers that could be started */
  uint32_t taken;  /* by a caller */
  /* the loop */
  BurinRange range;
  void *arg;
  int64_t n;
  int32_t units, least, lanes; /* pieces, the fewest to take at once, slots that may be used */
  int32_t cpu;                 /* where the caller woke a worker */
} PoolCore;

/* Returns when s->state may be another than value; unpark ends that. */
static void pool_park(PoolCore *p, PoolSlot *s, uint32_t value);
static void pool_unpark(PoolCore *p, PoolSlot *s, uint32_t value);
static int32_t pool_cpu(void);           /* that runs this; negative: unknown */
static void pool_leave_cpu(int32_t cpu); /* this thread shall run on any other, if it may */
__attribute__((unused)) static uint64_t pool_clock_ns(void);

static inline void pool_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

/* A cheap clock. */
static inline uint64_t pool_ticks(void) {
#if defined(__x86_64__) || defined(__i386__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t t;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
  return t;
#else
  return pool_clock_ns();
#endif
}

static inline int64_t pool_ticks_per_ms(void) { /* roughly */
#if defined(__x86_64__) || defined(__i386__)
  return 1 << 21;
#elif defined(__aarch64__)
  uint64_t hz;
  __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(hz));
  return (int64_t)(hz / 1000);
#else
  return 1000000;
#endif
}

static inline int64_t pool_since(uint64_t start) { /* the counters of two cores may differ */
  const int64_t t = (int64_t)(pool_ticks() - start);
  return t > 0 ? t : 0;
}

/* ---- who is asked ---- */
enum { POOL_FIRST_SHIFT = 4, POOL_LAST_SHIFT = 7 };

/* One thread, the caller; whoever starts workers counts them in p->threads. */
static void pool_init(PoolCore *p, PoolSlot *slots, int32_t n) {
  *p = (PoolCore){.slots = slots, .threads = 1, .cpu = -1};
  for (int32_t i = 0; i < n; i++)
    slots[i] = (PoolSlot){.shift = POOL_FIRST_SHIFT, .balance = pool_ticks_per_ms()};
}

/* What was saved, up to eight milliseconds, outweighs a time slice lost now and then. */
static void pool_settle(PoolSlot *s, int64_t gain) {
  const int64_t most = 8 * pool_ticks_per_ms(), least = -4 * pool_ticks_per_ms();
  s->balance += gain;
  if (s->balance > most) s->balance = most, s->shift = POOL_FIRST_SHIFT;
  if (s->balance >= 0) return;
  if (s->balance < least) s->balance = least;
  s->out = true;
  if (s->shift < POOL_LAST_SHIFT) s->shift++;
}

/* What is done without a worker pays its debt: its next trial costs a small part of that work, the
 * smaller the more trials failed. */
static void pool_repay(PoolSlot *s, int64_t ticks) {
  s->balance += ticks >> s->shift;
  s->out = s->balance < pool_ticks_per_ms() / 4;
}

static const PoolSlot *pool_fastest(const PoolCore *p) {
  const PoolSlot *f = NULL;
  for (int32_t i = 0; i < p->lanes; i++) {
    const PoolSlot *const s = &p->slots[i];
    if (s->done && (!f || s->least_ticks * f->least_units < f->least_ticks * s->least_units)) f = s;
  }
  return f;
}

/* Ticks for units at the pace of the fastest piece. */
static int64_t pool_worth(const PoolSlot *fastest, uint32_t units) {
  return (int64_t)(units * fastest->least_ticks / fastest->least_units);
}

/* After a loop that took `ticks`. Whoever interrupts the caller counts against the workers: beside
 * busy processes sharing gains next to nothing, and waits are longer than they seem. */
static void pool_learn(PoolCore *p, int64_t ticks, int32_t count) {
  const PoolSlot *const fastest = pool_fastest(p), *const own = &p->slots[0];
  const int64_t gain = pool_worth(fastest, own->done) - (int64_t)own->spent;
  for (int32_t i = 1; i < p->lanes; i++) {
    PoolSlot *const s = &p->slots[i];
    if (s->wanted)
      pool_settle(s, gain / (count - 1) + pool_worth(fastest, s->done) - s->cost * 3 / 2);
    else if (s->out)
      pool_repay(s, ticks);
  }
}

/* ---- pieces ---- */
/* Divides the loop among the caller and the workers that are to be asked; how many those are. */
static int32_t pool_divide(PoolCore *p, int64_t n, int64_t grain, int32_t slots) {
  const int64_t most = n / (grain > 1 ? grain : 1);
  int32_t count = 0, k = 0;
  p->n = n;
  p->units = (int32_t)(most < 1 ? 1 : most > POOL_UNITS ? POOL_UNITS : most);
  p->lanes = slots < p->threads ? slots : p->threads;
  for (int32_t i = 0; i < p->lanes; i++) {
    p->slots[i].wanted = !p->slots[i].out && count < p->units;
    count += p->slots[i].wanted;
  }
  p->least = count > 1 ? p->units / (8 * count) + 1 : (p->units + 1) / 2;
  for (int32_t i = 0; i < p->lanes; i++) {
    PoolSlot *const s = &p->slots[i];
    const uint32_t first = (uint32_t)((int64_t)p->units * k / count);
    k += s->wanted;
    s->units = first | (uint32_t)((int64_t)p->units * k / count) << 16;
    s->done = 0;
    s->spent = s->least_ticks = s->least_units = 0;
  }
  return count;
}

/* Takes half of what a slot has left, but at least p->least: the owner from the front, so that it
 * finds in its cache what it wrote there before, others from the end. 0: nothing left. */
static uint32_t pool_take(const PoolCore *p, PoolSlot *s, bool own, uint32_t *first) {
  uint32_t v = __atomic_load_n(&s->units, __ATOMIC_RELAXED), count, next;
  do {
    const uint32_t begin = v & 0xffff, end = v >> 16, left = end - begin;
    if (!left) return 0;
    count = (left + 1) / 2 > (uint32_t)p->least ? (left + 1) / 2 : (uint32_t)p->least;
    if (count > left) count = left;
    *first = own ? begin : end - count;
    next = own ? (begin + count) | end << 16 : begin | (end - count) << 16;
    POOL_POINT();
  } while (
      !__atomic_compare_exchange_n(&s->units, &v, next, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return count;
}

/* First iteration of a unit: n*unit/units without overflow. */
static int64_t pool_iteration(const PoolCore *p, int64_t unit) {
  return p->n / p->units * unit + p->n % p->units * unit / p->units;
}

static void pool_piece(PoolCore *p, int32_t me, uint32_t first, uint32_t count) {
  PoolSlot *const s = &p->slots[me];
  const uint64_t start = pool_ticks();
  p->range(p->arg, pool_iteration(p, first), pool_iteration(p, first + count), me);
  const uint64_t ticks = (uint64_t)pool_since(start);
  s->done += count;
  s->spent += ticks;
  if (s->least_units && ticks * s->least_units >= s->least_ticks * count) return;
  s->least_ticks = ticks;
  s->least_units = count;
}

/* Works until nothing is left to take. */
static void pool_work(PoolCore *p, int32_t me) {
  uint32_t first, count;
  for (int32_t k = 0; k < p->lanes; k++) {
    const int32_t from = me + k < p->lanes ? me + k : me + k - p->lanes;
    while ((count = pool_take(p, &p->slots[from], k == 0, &first)) != 0)
      pool_piece(p, me, first, count);
  }
}

/* ---- workers ---- */
/* When no core is idle, a thread that wakes is put where it ran before, and that may be in the
 * caller's way: there it would only take the caller's place. */
static void pool_step_aside(PoolCore *p) {
  const int32_t cpu = __atomic_load_n(&p->cpu, __ATOMIC_RELAXED);
  if (cpu >= 0 && cpu == pool_cpu()) pool_leave_cpu(cpu);
}

/* Waits for an offer and takes it; false: the worker shall end. */
static bool pool_join(PoolCore *p, PoolSlot *s) {
  for (int spins = 0;;) {
    uint32_t v = __atomic_load_n(&s->state, __ATOMIC_RELAXED);
    POOL_POINT();
    if (v == POOL_STOP) return false;
    if (v == POOL_OFFERED) {
      if (__atomic_compare_exchange_n(&s->state, &v, POOL_TAKEN, false, __ATOMIC_ACQUIRE,
                                      __ATOMIC_RELAXED))
        return true;
    } else if (v == POOL_ASLEEP) {
      pool_park(p, s, POOL_ASLEEP);
      pool_step_aside(p);
      spins = 0;
    } else if (++spins < POOL_SPINS) {
      pool_relax();
    } else {
      __atomic_compare_exchange_n(&s->state, &v, POOL_ASLEEP, false, __ATOMIC_RELAXED,
                                  __ATOMIC_RELAXED);
    }
  }
}

static void pool_worker(PoolCore *p, int32_t me) {
  PoolSlot *const s = &p->slots[me];
  while (pool_join(p, s)) {
    pool_work(p, me);
    POOL_POINT();
    if (__atomic_exchange_n(&s->state, POOL_IDLE, __ATOMIC_RELEASE) == POOL_AWAITED)
      pool_unpark(p, s, POOL_AWAITED);
  }
}

/* state: POOL_OFFERED or POOL_STOP. */
static void pool_tell(PoolCore *p, PoolSlot *s, uint32_t state) {
  if (__atomic_exchange_n(&s->state, state, __ATOMIC_RELEASE) == POOL_ASLEEP)
    pool_unpark(p, s, POOL_ASLEEP);
}

/* ---- the caller ---- */
/* Takes the offer back, or waits until the worker that took it is done. */
static void pool_await(PoolCore *p, PoolSlot *s) {
  uint32_t v = POOL_OFFERED;
  if (__atomic_compare_exchange_n(&s->state, &v, POOL_IDLE, false, __ATOMIC_ACQUIRE,
                                  __ATOMIC_ACQUIRE))
    return;
  for (int i = 0; i < POOL_SPINS; i++) {
    if (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) != POOL_TAKEN) return;
    pool_relax();
  }
  v = POOL_TAKEN;
  __atomic_compare_exchange_n(&s->state, &v, POOL_AWAITED, false, __ATOMIC_ACQUIRE,
                              __ATOMIC_ACQUIRE);
  POOL_POINT();
  while (__atomic_load_n(&s->state, __ATOMIC_ACQUIRE) == POOL_AWAITED)
    pool_park(p, s, POOL_AWAITED);
}

static void pool_share(PoolCore *p) {
  uint64_t start;
  for (int32_t i = 1; i < p->lanes; i++) {
    if (!p->slots[i].wanted) continue;
    start = pool_ticks();
    if (__atomic_load_n(&p->slots[i].state, __ATOMIC_RELAXED) == POOL_ASLEEP)
      __atomic_store_n(&p->cpu, pool_cpu(), __ATOMIC_RELAXED);
    pool_tell(p, &p->slots[i], POOL_OFFERED);
    p->slots[i].cost = pool_since(start);
  }
  pool_work(p, 0);
  for (int32_t i = 1; i < p->lanes; i++) {
    if (!p->slots[i].wanted) continue;
    start = pool_ticks();
    pool_await(p, &p->slots[i]);
    p->slots[i].cost += pool_since(start);
  }
}

/* Runs [0, n) in ranges of at least `grain`. A caller that finds the pool taken works alone. */
static void pool_run(PoolCore *p, int64_t n, int64_t grain, int32_t slots, BurinRange range,
                     void *arg) {
  if (n <= 0) return;
  if (p->threads < 2 || slots < 2 || __atomic_exchange_n(&p->taken, 1, __ATOMIC_ACQUIRE)) {
    range(arg, 0, n, 0);
    return;
  }
  const uint64_t start = pool_ticks();
  p->range = range;
  p->arg = arg;
  const int32_t count = pool_divide(p, n, grain, slots);
  pool_share(p);
  pool_learn(p, pool_since(start), count);
  __atomic_store_n(&p->taken, 0, __ATOMIC_RELEASE);
}
