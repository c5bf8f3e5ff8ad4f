/* The standalone program's threads: made once by clone, all signals blocked, no thread-local
 * storage, parked on futexes. pool_core.h has the protocol. */
#include "program.h"

#include "runtime/pool_core.h"

typedef struct Worker {
  PoolCore *core;
  int32_t slot;
} Worker;

struct Pool {
  PoolCore core;
  Worker workers[];
};

enum { STACK_BYTES = 1 << 20 };
enum {
  CLONE_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
}; /* VM FS FILES SIGHAND THREAD SYSVSEM */

/* fn(arg) on a new thread with this stack; returns the kernel's value. */
long pool_clone(unsigned long flags, void *stack_top, void (*fn)(void *), void *arg);
#if defined(__x86_64__)
__asm__(
    ".text\n.hidden pool_clone\n.globl pool_clone\n.type pool_clone,@function\npool_clone:\n"
    "sub $16, %rsi\n mov %rdx, (%rsi)\n mov %rcx, 8(%rsi)\n"
    "xor %edx, %edx\n xor %r10d, %r10d\n xor %r8d, %r8d\n mov $56, %eax\n syscall\n"
    "test %eax, %eax\n jnz 1f\n"
    "xor %ebp, %ebp\n pop %rax\n pop %rdi\n call *%rax\n hlt\n1: ret\n");
#elif defined(__aarch64__)
__asm__(
    ".text\n.hidden pool_clone\n.globl pool_clone\n.type pool_clone,%function\npool_clone:\n"
    "stp x2, x3, [x1, #-16]!\n mov x2, #0\n mov x3, #0\n mov x4, #0\n mov x8, #220\n svc #0\n"
    "cbz x0, 1f\n ret\n1: mov x29, #0\n ldp x1, x0, [sp], #16\n blr x1\n brk #0\n");
#else
__asm__(
    ".text\n.hidden pool_clone\n.globl pool_clone\n.type pool_clone,%function\npool_clone:\n"
    "stmdb r1!, {r2, r3}\n push {r4, r7}\n mov r2, #0\n mov r3, #0\n mov r4, #0\n mov r7, #120\n"
    "svc #0\n cmp r0, #0\n beq 1f\n pop {r4, r7}\n bx lr\n"
    "1: mov r11, #0\n pop {r2, r3}\n mov r0, r3\n blx r2\n udf #0\n");
#endif

static uint64_t pool_clock_ns(void) { return sys_clock_ns(); }

static int32_t pool_cpu(void) {
  uint32_t cpu = 0;
  return sys_call(NR_getcpu, (long)&cpu, 0, 0, 0, 0, 0) < 0 ? -1 : (int32_t)cpu;
}

static void pool_leave_cpu(int32_t cpu) {
  enum { CPUS = 1024, BITS = 8 * sizeof(long) };
  unsigned long allowed[CPUS / BITS] = {0}, others[CPUS / BITS] = {0};
  const long size = sys_call(NR_sched_getaffinity, 0, sizeof allowed, (long)allowed, 0, 0, 0);
  if (size <= 0 || cpu >= CPUS) return;
  for (int i = 0; i < CPUS / BITS; i++) others[i] = allowed[i];
  others[(size_t)cpu / BITS] &= ~(1ul << (size_t)cpu % BITS);
  if (!sys_call(NR_sched_setaffinity, 0, size, (long)others, 0, 0, 0)) /* not if there is none */
    sys_call(NR_sched_setaffinity, 0, size, (long)allowed, 0, 0, 0);
}

static void pool_park(PoolCore *p, PoolSlot *s, uint32_t value) {
  (void)p;
  sys_futex_wait(&s->state, value);
}

static void pool_unpark(PoolCore *p, PoolSlot *s, uint32_t value) {
  (void)p, (void)value;
  sys_futex_wake(&s->state, 1);
}

static void worker_main(void *arg) {
  const Worker *const w = arg;
  pool_worker(w->core, w->slot);
}

void pool_parallel_ranges(void *pool, int64_t n, int64_t grain, int32_t slots, BurinRange range,
                          void *arg) {
  pool_run(&((Pool *)pool)->core, n, grain, slots, range, arg);
}

Pool *pool_start(int threads) {
  const size_t n = (size_t)threads;
  Pool *const p = sys_alloc(sizeof *p + n * sizeof *p->workers);
  PoolSlot *const slots = sys_alloc(n * sizeof *slots);
  char *const stacks = sys_alloc((n - 1) * STACK_BYTES);
  if (!p || !slots || !stacks) return NULL;
  pool_init(&p->core, slots, threads);
  uint64_t all = ~(uint64_t)0, before = 0;
  sys_call(NR_rt_sigprocmask, 2, (long)&all, (long)&before, 8, 0, 0);
  for (int32_t *i = &p->core.threads; *i < threads; ++*i) {
    p->workers[*i] = (Worker){&p->core, *i};
    if (pool_clone(CLONE_FLAGS, stacks + (size_t)*i * STACK_BYTES, worker_main, &p->workers[*i]) <=
        0)
      break;
  }
  sys_call(NR_rt_sigprocmask, 2, (long)&before, 0, 8, 0, 0);
  return p;
}

int32_t pool_threads(const Pool *pool) { return pool->core.threads; }
