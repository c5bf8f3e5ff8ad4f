/* Calls the hand-written models as a host program does, on the driver that libcuda.so.1 is (the fake
 * one): values, replayed launches, devices of its own, streams of its own, tensors on the device.
 * driver_test CASE; prints what is wrong, and then ends with 1. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/abi.h"
#include "runtime/cuda/driver_api.h"

extern const BurinModel burin_program_model, replayed_model;
int32_t m_cuda_create(void *context, void **device, BurinFailure *failure);
int32_t r_cuda_create(void *context, void **device, BurinFailure *failure);
void m_cuda_destroy(void *device);
void m_async_options(BurinOptions *o, void *device, void *stream);

enum { COUNT_LIVE, COUNT_LAUNCHES, COUNT_GRAPH_LAUNCHES, COUNT_UPLOADED, COUNT_CAPTURED };
enum { MOST = 4096 };
static int failed;

#define CHECK(x, ...)                                \
  do {                                               \
    if (!(x)) {                                      \
      failed = 1;                                    \
      printf("%s:%d: %s: ", __func__, __LINE__, #x); \
      printf(__VA_ARGS__);                           \
      printf("\n");                                  \
    }                                                \
  } while (0)

static void *symbol(const char *name) {
  static void *library;
  if (!library) library = dlopen("libcuda.so.1", RTLD_NOW);
  void *const p = library ? dlsym(library, name) : NULL;
  if (!p) printf("no %s\n", name), exit(1);
  return p;
}
static long count(int what) { return ((long (*)(int))symbol("fake_cuda_count"))(what); }
#define CALL(name, ...) ((CuResult(*)())symbol(name))(__VA_ARGS__)

/* ---- one run ---- */
typedef struct Tensors {
  float x[MOST], y[MOST];
  int64_t s;
} Tensors;

static void fill(Tensors *t, int n, int seed) {
  for (int i = 0; i < n; i++) {
    t->x[i] = (float)((i * 37 + seed * 11) % 101) - 50;
    t->y[i] = -7;
  }
  t->s = -7;
}

static bool right(const Tensors *t, int n, bool with_sum) {
  int64_t s = 0;
  for (int i = 0; i < n; i++) {
    const int from = i / 32 * 32 + 31 - i % 32;
    const float v = from < n ? 2 * t->x[from] + 1 : 0, want = v > 0 ? v : 0;
    if (from < n && t->y[i] != want)
      return printf("y[%d] is %g, not %g\n", i, t->y[i], want), false;
    s += want > 0;
  }
  return !with_sum || t->s == s;
}

static int32_t run(const BurinModel *m, Tensors *t, int n, BurinOptions *o) {
  const void *in[] = {t->x};
  void *out[] = {t->y, &t->s};
  int64_t dims[] = {n};
  return m->invoke(in, out, dims, NULL, o);
}

static void expect(const BurinModel *m, int n, int seed, BurinOptions *o) {
  Tensors *const t = malloc(sizeof *t);
  fill(t, n, seed);
  const int32_t status = run(m, t, n, o);
  CHECK(status == 0, "status %d", status);
  CHECK(right(t, n, m == &burin_program_model), "n %d, seed %d", n, seed);
  free(t);
}

/* ---- cases ---- */
static void values(void) {
  for (int i = 0; i < 6; i++) expect(&burin_program_model, 32 * (1 + i % 3), i, NULL);
  CHECK(count(COUNT_GRAPH_LAUNCHES) == 0, "the host reads between the launches");
}

static void replayed(void) {
  for (int i = 0; i < 2; i++) expect(&replayed_model, 64, i, NULL);
  const long launches = count(COUNT_LAUNCHES);
  CHECK(count(COUNT_CAPTURED) == 2, "%ld captured", count(COUNT_CAPTURED));
  for (int i = 0; i < 5; i++) expect(&replayed_model, 64, i, NULL);
  CHECK(count(COUNT_LAUNCHES) == launches, "replayed runs launch nothing");
  CHECK(count(COUNT_GRAPH_LAUNCHES) == 5, "%ld graphs", count(COUNT_GRAPH_LAUNCHES));
  for (int n = 1; n < 20; n++) /* more sizes than are kept, and memory that grows */
    for (int i = 0; i < 3; i++) expect(&replayed_model, 32 * n, i, NULL);
}

/* The driver can't make graphs: nothing changes but the speed. */
static void unreplayed(void) {
  for (int i = 0; i < 5; i++) expect(&replayed_model, 64, i, NULL);
  CHECK(count(COUNT_GRAPH_LAUNCHES) == 0, "there are no graphs");
}

static void profile(void) {
  uint64_t ns[3] = {0};
  BurinOptions o = {.size = sizeof o, .kernel_ns = ns};
  for (int i = 0; i < 3; i++) expect(&replayed_model, 64, i, &o);
  CHECK(ns[0] && ns[1] && !ns[2], "%ld %ld %ld", (long)ns[0], (long)ns[1], (long)ns[2]);
  CHECK(count(COUNT_GRAPH_LAUNCHES) == 0, "kernels are measured one by one");
}

static void thousand(void) {
  const long before = count(COUNT_LIVE);
  for (int i = 0; i < 1000; i++) {
    void *device = NULL;
    const int32_t status = r_cuda_create(NULL, &device, NULL);
    CHECK(status == 0 && device, "status %d", status);
    BurinOptions o = {.size = sizeof o, .device = device};
    for (int k = 0; k < (i % 100 ? 1 : 3); k++) expect(&replayed_model, 64, i, &o);
    m_cuda_destroy(device);
    if (failed) return;
  }
  CHECK(count(COUNT_LIVE) == before, "%ld objects are left", count(COUNT_LIVE) - before);
}

/* Two devices, each on a stream of the caller's, without waiting between their runs. */
static void streams(void) {
  void *device[2], *stream[2];
  Tensors *const t = malloc(8 * sizeof *t);
  CuContext context;
  CALL("cuInit", 0);
  CALL("cuDevicePrimaryCtxRetain", &context, 0);
  CALL("cuCtxPushCurrent_v2", context);
  for (int i = 0; i < 2; i++) {
    CHECK(r_cuda_create(i ? context : NULL, &device[i], NULL) == 0, "device %d", i);
    CALL("cuStreamCreate", &stream[i], 1);
  }
  for (int i = 0; i < 8; i++) {
    BurinOptions o;
    fill(&t[i], 96, i);
    m_async_options(&o, device[i % 2], i == 7 ? NULL : stream[(i + i / 4) % 2]);
    CHECK(run(&replayed_model, &t[i], 96, &o) == 0, "run %d", i);
    CHECK(t[i].y[0] == -7, "the run has not waited");
  }
  for (int i = 0; i < 2; i++) CALL("cuStreamSynchronize", stream[i]);
  CALL("cuStreamSynchronize", NULL);
  for (int i = 0; i < 8; i++) CHECK(right(&t[i], 96, false), "run %d", i);
  BurinOptions queued, o = {.size = sizeof o, .device = device[0]};
  fill(&t[0], 96, 1);
  m_async_options(&queued, device[0], stream[0]);
  CHECK(run(&replayed_model, &t[0], 96, &queued) == 0, "run");
  expect(&replayed_model, 3200, 3, &o); /* whose memory grows behind what is queued */
  CHECK(right(&t[0], 96, false), "before");
  for (int i = 0; i < 2; i++) m_cuda_destroy(device[i]), CALL("cuStreamDestroy_v2", stream[i]);
  CALL("cuCtxPopCurrent_v2", &context);
  free(t);
}

/* More sizes than graphs are kept for, all of them queued. */
static void queued_sizes(void) {
  enum { SIZES = 12, EACH = 3 };
  void *device;
  BurinOptions o;
  Tensors *const t = malloc(SIZES * EACH * sizeof *t);
  CHECK(r_cuda_create(NULL, &device, NULL) == 0, "no device");
  m_async_options(&o, device, NULL);
  for (int i = 0; i < SIZES * EACH; i++) {
    const int n = 32 * (SIZES - i / EACH);
    fill(&t[i], n, i);
    CHECK(run(&replayed_model, &t[i], n, &o) == 0, "run %d", i);
  }
  m_cuda_destroy(device);
  for (int i = 0; i < SIZES * EACH; i++)
    CHECK(right(&t[i], 32 * (SIZES - i / EACH), false), "run %d", i);
  CHECK(count(COUNT_GRAPH_LAUNCHES) == SIZES, "%ld graphs", count(COUNT_GRAPH_LAUNCHES));
  free(t);
}

/* A device is destroyed while its run is still queued. */
static void ended(void) {
  void *device;
  BurinOptions o;
  Tensors *const t = malloc(sizeof *t);
  CHECK(r_cuda_create(NULL, &device, NULL) == 0, "no device");
  m_async_options(&o, device, NULL);
  fill(t, 64, 5);
  CHECK(run(&replayed_model, t, 64, &o) == 0, "run");
  m_cuda_destroy(device);
  CHECK(right(t, 64, false), "it was waited for");
  free(t);
}

static void *many_runs(void *arg) {
  for (int i = 0; i < 50; i++) expect(&burin_program_model, 64 + 32 * (i % 5), i, arg);
  return NULL;
}
/* Several threads: on the model's own device, and on devices of their own. */
static void threads(void) {
  pthread_t id[4];
  BurinOptions o[4] = {0};
  for (int i = 0; i < 4; i++) {
    o[i].size = sizeof o[i];
    if (i >= 2) CHECK(m_cuda_create(NULL, &o[i].device, NULL) == 0, "device %d", i);
  }
  for (int i = 0; i < 4; i++) pthread_create(&id[i], NULL, many_runs, &o[i]);
  for (int i = 0; i < 4; i++) pthread_join(id[i], NULL);
  for (int i = 2; i < 4; i++) m_cuda_destroy(o[i].device);
}

/* Tensors that are on the device already are neither copied in nor out. */
static void on_device(void) {
  static const int sizes[] = {64, 64, 64, 128, 64, 64};
  void *device;
  CuContext context;
  CuAddress x = 0, y = 0;
  Tensors *const t = malloc(sizeof *t);
  fill(t, 128, 1);
  CHECK(r_cuda_create(NULL, &device, NULL) == 0, "no device");
  CALL("cuDevicePrimaryCtxRetain", &context, 0);
  CALL("cuCtxPushCurrent_v2", context);
  CALL("cuMemAlloc_v2", &x, sizeof t->x);
  CALL("cuMemAlloc_v2", &y, sizeof t->y);
  CALL("cuMemcpyHtoD_v2", x, t->x, sizeof t->x);
  const void *in[] = {(void *)(uintptr_t)x};
  void *out[] = {(void *)(uintptr_t)y};
  BurinOptions o = {.size = sizeof o, .device = device};
  for (int i = 0; i < 6; i++) { /* memory grows when a graph is there */
    int64_t dims[] = {sizes[i]};
    const long uploaded = count(COUNT_UPLOADED);
    CHECK(replayed_model.invoke(in, out, dims, NULL, &o) == 0, "run %d", i);
    CHECK(i == 0 || count(COUNT_UPLOADED) == uploaded, "an input was copied");
    CALL("cuMemcpyDtoHAsync_v2", t->y, y, sizeof t->y, NULL);
    CALL("cuStreamSynchronize", NULL);
    CHECK(right(t, sizes[i], false), "run %d", i);
  }
  CALL("cuMemFree_v2", x);
  CALL("cuMemFree_v2", y);
  m_cuda_destroy(device);
  free(t);
}

/* Nothing is copied where tensors stay, and the inputs of the run before are what it has. */
static void resident(void) {
  Tensors *const t = malloc(sizeof *t);
  for (int i = 0; i < 3; i++) { /* launched, recorded, replayed */
    BurinOptions o = {.size = sizeof o, .gpu_resident = i > 0};
    const long before = count(COUNT_UPLOADED);
    fill(t, 64, i);
    CHECK(run(&replayed_model, t, 64, &o) == 0, "run %d", i);
    CHECK((count(COUNT_UPLOADED) == before) == (i > 0), "inputs of run %d", i);
    CHECK(i > 0 ? t->y[0] == -7 && t->y[63] == -7 : right(t, 64, false), "outputs of run %d", i);
  }
  BurinOptions o = {.size = sizeof o, .gpu_resident = 1};
  const long before = count(COUNT_UPLOADED);
  fill(t, 1600, 4); /* for which memory grows: its inputs are not there */
  CHECK(run(&replayed_model, t, 1600, &o) == 0 && count(COUNT_UPLOADED) > before, "new memory");
  expect(&replayed_model, 64, 5, NULL);
  free(t);
}

/* Runs fail twice with what the second argument says; devices can't be made, or fail likewise. */
static void fails(const char *wanted, const char *again) {
  BurinFailure f;
  BurinOptions o = {.size = sizeof o, .failure = &f};
  Tensors *const t = malloc(sizeof *t);
  fill(t, 64, 1);
  for (int i = 0; i < 2; i++) {
    char text[256] = "";
    const int32_t status = run(&burin_program_model, t, 64, &o);
    burin_program_model.failure_text(&f, text, sizeof text);
    CHECK(status == BURIN_E_DEVICE && f.status == status, "status %d", status);
    CHECK(strstr(text, i && again ? again : wanted), "\"%s\"", text);
    CHECK(t->y[0] == -7, "nothing was written");
  }
  free(t);
}

/* A model that does not fit runs again when its sizes do. */
static void too_large(void) {
  BurinFailure f;
  BurinOptions o = {.size = sizeof o, .failure = &f};
  char text[256];
  Tensors *const t = malloc(sizeof *t);
  expect(&replayed_model, 64, 1, &o);
  const long launches = count(COUNT_LAUNCHES);
  CHECK(run(&replayed_model, t, 4096, &o) == BURIN_E_DEVICE, "it does not fit");
  replayed_model.failure_text(&f, text, sizeof text);
  CHECK(strstr(text, "needs 1 MiB of the GPU's memory, where 0 MiB are free"), "\"%s\"", text);
  CHECK(count(COUNT_LAUNCHES) == launches, "something was launched");
  expect(&replayed_model, 64, 1, &o);
  free(t);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } cases[] = {{"values", values},       {"replayed", replayed},         {"unreplayed", unreplayed},
               {"profile", profile},     {"thousand", thousand},         {"streams", streams},
               {"ended", ended},         {"threads", threads},           {"on_device", on_device},
               {"too_large", too_large}, {"queued_sizes", queued_sizes}, {"resident", resident}};
  if (argc >= 3 && !strcmp(argv[1], "fails")) return fails(argv[2], argv[3]), failed;
  for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
    if (!strcmp(argv[1], cases[i].name)) return cases[i].run(), failed;
  return printf("no such case\n"), 2;
}
