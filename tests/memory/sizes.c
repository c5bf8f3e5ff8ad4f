/* Runs compiled models between inaccessible pages with random sizes and random data, in one
 * process:
 *
 *   sizes SEED RUNS MODEL.so…      prints a line per model; stops with a report at the first
 * finding
 *
 * Every buffer ends (or, in every second run, begins) at an inaccessible page and is as long as the
 * ABI says. Each accepted run is repeated on an arena and outputs filled with other bytes, with the
 * parts of parallel loops in reverse order: statuses and the bits of the outputs must agree, and
 * inputs stay as they were. A refusal must be a documented status. tests/memory/run_sizes.py makes
 * the models. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "runtime/abi.h"

enum { PAGE = 4096, ROOM = 1 << 20, ARENA_ROOM = 8 << 20, MOST_TENSORS = 64, MOST_SYMBOLS = 64 };

/* ---- random numbers: xorshift64* ---- */
static uint64_t state;
static uint64_t next(void) {
  state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
  return state * 0x2545f4914f6cdd1dull;
}
static int64_t below(int64_t n) { return (int64_t)(next() % (uint64_t)n); }
static bool chance(int percent) { return below(100) < percent; }

/* Mostly small, often around a multiple of a vector, seldom impossible. */
static int64_t random_size(void) {
  static const int64_t around[] = {8, 16, 32, 48, 64},
                       odd[] = {-1, INT64_MIN, INT64_MAX, 1ll << 31, 1ll << 40, 1ll << 62};
  const int64_t kind = below(1000);
  if (kind < 3) return odd[below(6)];
  if (kind < 200) return around[below(5)] + below(3) - 1;
  if (kind < 250) return below(150);
  return kind < 400 ? below(2) : below(12);
}

/* ---- memory between inaccessible pages ---- */
typedef struct Room {
  char *base;
  size_t size;
} Room;
static Room room_new(size_t size) {
  char *p = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || mprotect(p + PAGE, size, PROT_READ | PROT_WRITE)) abort();
  return (Room){p + PAGE, size};
}
static char *place(const Room *r, size_t bytes, size_t align, bool at_end) {
  return at_end ? r->base + (r->size - bytes) / align * align : r->base;
}

/* ---- one model ---- */
typedef struct Case {
  const char *path;
  const BurinModel *m;
  int64_t dims[MOST_SYMBOLS];
  size_t bytes[2 * MOST_TENSORS];
  char *data[2 * MOST_TENSORS];
  uint64_t seed;
} Case;
static Room rooms[2 * MOST_TENSORS], arena_room;
static char copies[2 * MOST_TENSORS][ROOM];
static const Case *running;

static size_t element_bytes(int dtype) {
  switch (dtype) {
    case 7:
    case 11:
    case 13:
    case 14: return 8;
    case 1:
    case 6:
    case 12: return 4;
    case 4:
    case 5:
    case 10:
    case 16: return 2;
    case 15: return 16;
    default: return 1;
  }
}
static double random_value(void) {
  static const double special[] = {0,     -0.0, 1,   -1,      1e30,     -1e30,
                                   1e-40, 0.5,  2.5, 1 / 0.0, -1 / 0.0, 0 / 0.0};
  return chance(4) ? special[below(12)] : (double)below(4000) / 500 - 4;
}
static int64_t random_integer(void) {
  static const int64_t special[] = {INT64_MIN, INT64_MAX, INT32_MAX, INT32_MIN, 255, -129};
  return chance(3) ? special[below(6)] : chance(70) ? below(6) : below(24) - 8;
}
static void fill(char *at, size_t bytes, int dtype) {
  const size_t size = element_bytes(dtype);
  for (size_t i = 0; i + size <= bytes; i += size) {
    const double v = random_value();
    const float f = (float)v;
    const int64_t n = dtype == 9 ? below(2) : random_integer();
    memcpy(at + i,
           dtype == 1    ? (const void *)&f
           : dtype == 11 ? (const void *)&v
                         : (const void *)&n,
           size < 8 ? size : 8);
  }
}

static void report(int signal_number) {
  char text[600];
  int n = snprintf(text, sizeof text, "%s: %s, seed %llu, symbols", running->path,
                   signal_number ? strsignal(signal_number) : "finding",
                   (unsigned long long)running->seed);
  for (int i = 0; i < running->m->n_symbols && n < 500; i++)
    n += snprintf(text + n, sizeof text - (size_t)n, " %s=%lld", running->m->symbols[i],
                  (long long)running->dims[i]);
  text[n++] = '\n';
  if (write(1, text, (size_t)n) < 0 || signal_number) _exit(99);
}
static void finding(const char *what) {
  printf("%s\n", what);
  fflush(stdout);
  report(0);
  _exit(99);
}

/* Bytes of a tensor of given dims; SIZE_MAX: does not fit. */
static size_t tensor_bytes(int rank, const int64_t *dims, int dtype) {
  size_t n = element_bytes(dtype);
  for (int i = 0; i < rank; i++) {
    if (dims[i] < 0) return SIZE_MAX;
    if (__builtin_mul_overflow(n, (size_t)dims[i], &n)) return SIZE_MAX;
  }
  return n;
}

static void backwards(void *user, int32_t n, BurinTask task, void *arg) {
  (void)user;
  while (n-- > 0) task(arg, n);
}

static int32_t run(Case *c, size_t arena_bytes, int filling, int threads, bool at_end,
                   int64_t *dims) {
  const BurinModel *m = c->m;
  char *arena = place(&arena_room, arena_bytes, 64, at_end);
  memset(at_end ? arena : arena_room.base, filling, arena_bytes);
  for (int i = 0; i < m->n_outputs; i++)
    memset(c->data[m->n_inputs + i], filling, c->bytes[m->n_inputs + i]);
  memcpy(dims, c->dims, sizeof c->dims);
  const BurinOptions options = {.size = sizeof options,
                                .threads = threads,
                                .parallel_for = threads > 1 ? backwards : NULL
#ifdef BURIN_HAS_ARENA_BYTES
                                ,
                                .arena_bytes = arena_bytes
#endif
  };
  return m->invoke((const void *const *)c->data, (void *const *)(c->data + m->n_inputs), dims,
                   arena, &options);
}

/* 1: ran, 0: refused, -1: not tried (too large for the rooms). */
static int one(Case *c) {
  const BurinModel *m = c->m;
  state = c->seed * 0x9e3779b97f4a7c15ull + 1;
  const bool at_end = chance(60);
  for (int i = 0; i < m->n_symbols; i++) c->dims[i] = i < m->n_caller_symbols ? random_size() : 0;
  int64_t shape[16], dims[MOST_SYMBOLS], again[MOST_SYMBOLS];
  for (int i = 0; i < m->n_inputs + m->n_outputs; i++) {
    const BurinTensorInfo *t = i < m->n_inputs ? &m->inputs[i] : &m->outputs[i - m->n_inputs];
    if (i >= m->n_inputs) m->output_dims(i - m->n_inputs, c->dims, shape, 1);
    for (int k = 0; i < m->n_inputs && k < t->rank; k++)
      shape[k] = t->dims[k] >= 0 ? t->dims[k] : c->dims[-1 - t->dims[k]];
    c->bytes[i] = tensor_bytes(t->rank, shape, t->dtype);
    /* an impossible size: the entry has to refuse it before it touches anything */
    const bool impossible = c->bytes[i] > ROOM;
    if (impossible && c->bytes[i] != SIZE_MAX) return -1;
    if (impossible) c->bytes[i] = 0;
    c->data[i] = place(&rooms[i], c->bytes[i], element_bytes(t->dtype), at_end);
    if (i < m->n_inputs)
      fill(c->data[i], c->bytes[i], t->dtype), memcpy(copies[i], c->data[i], c->bytes[i]);
  }
  const int threads = m->max_threads > 1 && chance(50) ? 2 : 1;
  const uint64_t arena_bytes = m->arena_size(c->dims, 2);
  if (arena_bytes > ARENA_ROOM) return -1;
  const int32_t status = run(c, arena_bytes, 0xff, 1, at_end, dims);
  const int32_t last = c->m->uses_heap ? BURIN_E_MEMORY : BURIN_E_UNSUPPORTED; /* no heap is lent */
  if (status < 0 || status > last) finding("a status that is not documented");
  for (int i = 0; i < m->n_inputs; i++)
    if (memcmp(copies[i], c->data[i], c->bytes[i])) finding("an input was written to");
  if (status) return 0;
  size_t real[MOST_TENSORS];
  for (int i = 0; i < m->n_outputs; i++) {
    m->output_dims(i, dims, shape, 0);
    real[i] = tensor_bytes(m->outputs[i].rank, shape, m->outputs[i].dtype);
    if (real[i] > c->bytes[m->n_inputs + i]) finding("an output is larger than its bound");
    memcpy(copies[m->n_inputs + i], c->data[m->n_inputs + i], real[i]);
  }
  if (run(c, arena_bytes, 0x11, threads, at_end, again) != status) finding("statuses differ");
  if (memcmp(dims, again, sizeof dims)) finding("computed sizes differ");
  for (int i = 0; i < m->n_outputs; i++)
    if (memcmp(copies[m->n_inputs + i], c->data[m->n_inputs + i], real[i]))
      finding("outputs depend on what the arena held, or on threads");
  return 1;
}

/* In seconds of the processor: a busy machine is no finding. */
static void limit_time(int seconds) {
  setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = seconds}, NULL);
}

int main(int argc, char **argv) {
  if (argc < 4) return fprintf(stderr, "usage: sizes SEED RUNS MODEL.so...\n"), 2;
  const uint64_t seed = strtoull(argv[1], NULL, 10);
  const long runs = strtol(argv[2], NULL, 10);
  for (int i = 0; i < 2 * MOST_TENSORS; i++) rooms[i] = room_new(ROOM);
  arena_room = room_new(ARENA_ROOM);
  static char stack[1 << 16];
  sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
  struct sigaction action = {.sa_handler = report, .sa_flags = SA_ONSTACK};
  for (int s = 0; s < 5; s++)
    sigaction((int[]){SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF}[s], &action, NULL);
  for (int a = 3; a < argc; a++) {
    void *lib = dlopen(argv[a], RTLD_NOW | RTLD_LOCAL);
    const BurinModel *(*info)(void) =
        lib ? (const BurinModel *(*)(void))dlsym(lib, "fuzzed_info") : NULL;
    if (!info) return fprintf(stderr, "%s: %s\n", argv[a], dlerror()), 3;
    static Case c;
    c = (Case){.path = argv[a], .m = info()};
    if (c.m->n_inputs + c.m->n_outputs > MOST_TENSORS || c.m->n_symbols > MOST_SYMBOLS) continue;
    running = &c;
    long counts[3] = {0};
    for (long i = 0; i < runs; i++) {
      c.seed = seed + (uint64_t)i;
      limit_time(20);
      counts[one(&c) + 1]++;
    }
    limit_time(0);
    printf("%s: %ld ran, %ld refused, %ld too large\n", argv[a], counts[2], counts[1], counts[0]);
    dlclose(lib);
  }
  return 0;
}
