/* Threads of a block as fibres: stacks of their own, of one size and aligned to it, so that the stack
 * pointer says which thread it is. A set of stacks is made once and used for block after block, by
 * one thread of the process at a time. */
#include "runtime/cuda/block.h"

#include <stdbool.h>

#include "runtime/core/sys.h"

enum {
  STACK = 256 << 10, /* of which a page at its end may not be touched */
  PAGE = 4096,
  WARP = 32,
  MOST_SHARED = 1 << 20
};

typedef enum FibreState { READY, AT_BARRIER, AT_WARP_BARRIER, ENDED } FibreState;
typedef struct Set Set;
typedef struct Fibre { /* at the top of its stack */
  Set *set;
  void *sp;
  int number;
  FibreState state;
  int site; /* where it waits */
} Fibre;

struct Set {
  Set *next; /* that nobody uses */
  size_t bytes;
  char *stacks;
  char *shared_end;
  char *shared;
  int threads; /* of the block that runs */
  int most;
  void (*thread)(void *arg);
  void *arg;
  void *sp; /* of burin_gpu_block_run */
  uint64_t turn;
};

int32_t burin_gpu_order;

/* ---- order ---- */
static uint64_t mix(uint64_t x) { /* splitmix64, Steele, Lea, Flood 2014 */
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}
static int64_t gcd(int64_t a, int64_t b) {
  while (b) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

int64_t burin_gpu_pick(int64_t i, int64_t n, uint64_t turn) {
  if (burin_gpu_order == 0 || n < 2 || n >= INT32_MAX) return i;
  if (burin_gpu_order == 1) return n - 1 - i;
  const uint64_t random = mix(turn + UINT64_C(0x9e3779b97f4a7c15));
  int64_t step = (int64_t)(random % (uint64_t)n);
  while (gcd(step, n) != 1) step++; /* steps that meet all of them */
  return (int64_t)(((uint64_t)i * (uint64_t)step + (random >> 33)) % (uint64_t)n);
}

/* ---- switching ---- */
/* Saves what a function must keep and the stack pointer in *from; goes on at `to`. */
void burin_gpu_switch(void **from, void *to);
#if defined(__x86_64__)
__asm__(
    ".text\n.hidden burin_gpu_switch\n.globl burin_gpu_switch\n"
    ".type burin_gpu_switch,@function\nburin_gpu_switch:\n"
    "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size burin_gpu_switch, .-burin_gpu_switch\n");
#else
#error "fibres are written for x86-64"
#endif

static Fibre *fibre_of(const Set *s, int i) {
  return (Fibre *)(s->stacks + (size_t)(i + 1) * STACK - sizeof(Fibre));
}
static Fibre *fibre_here(void) {
  const uintptr_t sp = (uintptr_t)__builtin_frame_address(0);
  return (Fibre *)((sp & ~(uintptr_t)(STACK - 1)) + STACK - sizeof(Fibre));
}

static void say(const char *text) {
  size_t n = 0;
  while (text[n]) n++;
  sys_write(2, text, n);
}
static void say_number(int64_t v) {
  char digits[24], *s = digits + sizeof digits - 1;
  uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
  *s = 0;
  do *--s = (char)('0' + u % 10);
  while (u /= 10);
  if (v < 0) *--s = '-';
  say(s);
}

/* Two threads that can't go on together. */
static _Noreturn void stop(const Fibre *a, const Fibre *b, const char *level) {
  say("a kernel waits forever: thread ");
  say_number(a->number);
  say(" waits for its ");
  say(level);
  say(" at barrier ");
  say_number(a->site);
  say(", thread ");
  say_number(b->number);
  if (b->state == ENDED) {
    say(" has ended\n");
  } else {
    say(b->state == AT_WARP_BARRIER ? " waits for its warp at barrier "
                                    : " waits for its block at barrier ");
    say_number(b->site);
    say("\n");
  }
  __builtin_trap();
}

static void wait_at(FibreState state, int site) {
  Fibre *const f = fibre_here();
  f->state = state;
  f->site = site;
  burin_gpu_switch(&f->sp, f->set->sp);
}

void burin_gpu_barrier(int32_t site) { wait_at(AT_BARRIER, site); }
void burin_gpu_warp_barrier(int32_t site) { wait_at(AT_WARP_BARRIER, site); }
int32_t burin_gpu_thread(void) { return fibre_here()->number; }
void *burin_gpu_shared(void) { return fibre_here()->set->shared; }

static _Noreturn void fibre_main(void) {
  Fibre *const f = fibre_here();
  void *dead;
  f->set->thread(f->set->arg);
  f->state = ENDED;
  burin_gpu_switch(&dead, f->set->sp);
  __builtin_trap();
}

/* One after the other, on the stack of the first. */
static _Noreturn void all_main(void) {
  Fibre *const f = fibre_here();
  Set *const s = f->set;
  void *dead;
  s->turn++;
  for (int i = 0; i < s->threads; i++) {
    f->number = (int)burin_gpu_pick(i, s->threads, s->turn);
    s->thread(s->arg);
  }
  f->state = ENDED;
  burin_gpu_switch(&dead, s->sp);
  __builtin_trap();
}

static void fibre_begin(Set *s, int i, void (*begin)(void)) {
  Fibre *const f = fibre_of(s, i);
  void **sp = (void **)((uintptr_t)f & ~(uintptr_t)15) - 1; /* as behind a call */
  *sp = NULL;
  *--sp = (void *)(uintptr_t)begin;
  for (int k = 0; k < 6; k++) *--sp = NULL; /* registers */
  *f = (Fibre){.set = s, .sp = sp, .number = i};
}

/* ---- barriers ---- */
/* Threads [from, to) wait in the same way, then all of them may go on; where some do not yet wait for
 * each other: false. */
static bool release(const Set *s, int from, int to, FibreState state) {
  const int site = fibre_of(s, from)->site;
  for (int i = from; i < to; i++)
    if (fibre_of(s, i)->state != state || fibre_of(s, i)->site != site) return false;
  for (int i = from; i < to; i++) fibre_of(s, i)->state = READY;
  return true;
}

static bool release_warps(const Set *s) {
  bool any = false;
  for (int i = 0; i < s->threads; i += WARP) {
    const int end = i + WARP < s->threads ? i + WARP : s->threads;
    any |= release(s, i, end, AT_WARP_BARRIER);
  }
  return any;
}

/* Nobody can go on: why. */
static void explain(const Set *s) {
  for (int i = 0; i < s->threads; i++) {
    const Fibre *const a = fibre_of(s, i);
    const bool warp = a->state == AT_WARP_BARRIER;
    if (a->state == ENDED) continue;
    const int from = warp ? i / WARP * WARP : 0, all = warp ? from + WARP : s->threads;
    for (int k = from; k < all && k < s->threads; k++) {
      const Fibre *const b = fibre_of(s, k);
      if (b->state != a->state || b->site != a->site) stop(a, b, warp ? "warp" : "block");
    }
  }
}

/* Every thread that can goes on, once. */
static bool run_ready(Set *s) {
  bool any = false;
  s->turn++;
  for (int i = 0; i < s->threads; i++) {
    Fibre *const f = fibre_of(s, (int)burin_gpu_pick(i, s->threads, s->turn));
    if (f->state != READY) continue;
    any = true;
    burin_gpu_switch(&s->sp, f->sp);
  }
  return any;
}

static bool all_ended(const Set *s) {
  for (int i = 0; i < s->threads; i++)
    if (fibre_of(s, i)->state != ENDED) return false;
  return true;
}

static void run_all(Set *s) {
  for (int i = 0; i < s->threads; i++) fibre_begin(s, i, fibre_main);
  for (;;) {
    if (run_ready(s) || release_warps(s) || release(s, 0, s->threads, AT_BARRIER)) continue;
    if (all_ended(s)) return;
    explain(s);
  }
}

/* ---- sets of stacks ---- */
/* Kernels know nothing of the run that they belong to, so the sets that nobody uses are kept here. */
static struct {
  uint32_t lock;
  Set *first;
} unused;

static Set *take_unused(int threads) {
  sys_lock(&unused.lock);
  Set **at = &unused.first;
  while (*at && (*at)->most < threads) at = &(*at)->next;
  Set *const s = *at;
  if (s) *at = s->next;
  sys_unlock(&unused.lock);
  return s;
}

static _Noreturn void no_memory(void) {
  say("not enough memory for the threads of a block\n");
  __builtin_trap();
}

/* Stacks lie at multiples of their size; each has its page that can't be touched at the low end, and
 * so has shared memory at its high one. */
static Set *make_set(int threads) {
  enum { NORESERVE = 0x4000, READ_WRITE = 3 };
  const size_t bytes = (size_t)(threads + 1) * STACK + MOST_SHARED + 2 * PAGE;
  const long p = sys_call(NR_mmap, 0, (long)bytes, READ_WRITE, 0x22 | NORESERVE, -1, 0);
  Set *const s = sys_alloc(sizeof *s);
  if ((p < 0 && p > -4096) || !s) no_memory();
  s->bytes = bytes;
  s->most = threads;
  s->stacks = (char *)(((uintptr_t)p + STACK - 1) & ~(uintptr_t)(STACK - 1));
  s->shared_end = s->stacks + (size_t)threads * STACK + MOST_SHARED;
  for (int i = 0; i < threads; i++)
    sys_call(NR_mprotect, (long)(s->stacks + (size_t)i * STACK), PAGE, 0, 0, 0, 0);
  sys_call(NR_mprotect, (long)s->shared_end, PAGE, 0, 0, 0, 0);
  return s;
}

static void give_unused(Set *s) {
  sys_lock(&unused.lock);
  s->next = unused.first;
  unused.first = s;
  sys_unlock(&unused.lock);
}

void burin_gpu_block_run(void (*thread)(void *arg), void *arg, int32_t threads,
                         uint32_t shared_bytes, int32_t barriers) {
  Set *s = take_unused(barriers ? threads : 1);
  const uint32_t shared = (shared_bytes + 15) & ~15u;
  if (!s) s = make_set(barriers ? threads : 1);
  if (shared > MOST_SHARED) no_memory();
  s->threads = threads;
  s->thread = thread;
  s->arg = arg;
  s->shared = s->shared_end - shared;
  __builtin_memset(s->shared, 0xCD, shared);
  if (barriers) {
    run_all(s);
  } else {
    fibre_begin(s, 0, all_main);
    burin_gpu_switch(&s->sp, fibre_of(s, 0)->sp);
    if (fibre_of(s, 0)->state != ENDED) {
      say("a kernel waits that was said to have no barriers\n");
      __builtin_trap();
    }
  }
  give_unused(s);
}
