/* The standalone program's threads: made once by clone, all signals blocked, no thread-local
 * storage. Workers spin for a bounded time and then sleep on a futex; the calling thread works too.
 */
#include "program.h"

struct Pool {
  BurinTask task;
  void *arg;
  int32_t n, workers;
  uint32_t generation; /* a new one: there is work */
  uint32_t sleepers;   /* workers asleep, or about to be */
  int32_t next;        /* first task not yet taken */
  uint32_t busy;       /* workers that have not finished this generation */
  uint32_t waiting;    /* the caller sleeps on busy */
};

enum { SPINS = 2000, STACK_BYTES = 1 << 20 };
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

static void take_tasks(Pool *p) {
  for (int32_t i; (i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < p->n;)
    p->task(p->arg, i);
}

/* Spins, then sleeps, while *word == value. `sleeping` tells the other side that it must wake us.
 */
static void await_change(uint32_t *word, uint32_t value, uint32_t *sleeping) {
  for (int i = 0; i < SPINS; i++) {
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value) return;
    sys_relax();
  }
  __atomic_fetch_add(sleeping, 1, __ATOMIC_SEQ_CST);
  while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == value) sys_futex_wait(word, value);
  __atomic_fetch_sub(sleeping, 1, __ATOMIC_SEQ_CST);
}

static void worker_main(void *arg) {
  Pool *p = arg;
  for (uint32_t seen = 0;;) {
    await_change(&p->generation, seen, &p->sleepers);
    seen++;
    take_tasks(p);
    const bool last = __atomic_sub_fetch(&p->busy, 1, __ATOMIC_SEQ_CST) == 0;
    if (last && __atomic_load_n(&p->waiting, __ATOMIC_SEQ_CST)) sys_futex_wake(&p->busy, 1);
  }
}

void pool_parallel_for(void *pool, int32_t n, BurinTask task, void *arg) {
  Pool *p = pool;
  p->task = task;
  p->arg = arg;
  p->n = n;
  p->next = 0;
  __atomic_store_n(&p->busy, (uint32_t)p->workers, __ATOMIC_RELAXED);
  __atomic_fetch_add(&p->generation, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST)) sys_futex_wake(&p->generation, p->workers);
  take_tasks(p);
  for (uint32_t left; (left = __atomic_load_n(&p->busy, __ATOMIC_ACQUIRE)) != 0;)
    await_change(&p->busy, left, &p->waiting);
}

Pool *pool_start(int threads) {
  const size_t stacks = (size_t)STACK_BYTES * (size_t)(threads - 1);
  Pool *p = sys_alloc(sizeof *p);
  char *stack = sys_alloc(stacks);
  if (!p || !stack) return NULL;
  p->workers = threads - 1;
  uint64_t all = ~(uint64_t)0, before = 0;
  sys_call(NR_rt_sigprocmask, 2, (long)&all, (long)&before, 8, 0, 0);
  bool ok = true;
  for (int i = 1; ok && i < threads; i++)
    ok = pool_clone(CLONE_FLAGS, stack + (size_t)STACK_BYTES * (size_t)i, worker_main, p) > 0;
  sys_call(NR_rt_sigprocmask, 2, (long)&before, 0, 8, 0, 0);
  return ok ? p : NULL;
}
