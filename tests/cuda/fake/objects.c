/* Objects that exist, contexts and devices of the fake driver. */
#define _GNU_SOURCE
#include "fake.h"

#include <stdint.h>

pthread_mutex_t fake_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
long fake_counts[8];

typedef struct Object {
  Kind kind;
  void *p;
  Context *context;
  struct Object *next;
} Object;
static Object *objects;
static Context primaries[4];
enum { DEPTH = 16 };
static _Thread_local Context *stack[DEPTH];
static _Thread_local int depth;
static bool initialised;

void fake_die(const char *what) {
  fprintf(stderr, "fake libcuda: %s\n", what);
  abort();
}

void fake_add(Kind kind, void *p, Context *c) {
  Object *const o = malloc(sizeof *o);
  *o = (Object){kind, p, c, objects};
  objects = o;
  fake_counts[COUNT_LIVE]++;
}

void fake_remove(Kind kind, void *p) {
  for (Object **at = &objects; *at; at = &(*at)->next) {
    Object *const o = *at;
    if (o->p != p || o->kind != kind) continue;
    *at = o->next;
    free(o);
    fake_counts[COUNT_LIVE]--;
    return;
  }
  fake_die("an object is given back that does not exist");
}

Context *fake_check(Kind kind, const void *p) {
  for (const Object *o = objects; o; o = o->next)
    if (o->p == p && o->kind == kind) return o->context;
  fake_die("an object is used that does not exist");
}

Context *fake_current(void) {
  if (!initialised) fake_die("cuInit was not called");
  if (!depth) fake_die("no context is current");
  return stack[depth - 1];
}

bool fake_fails(const char *what, const char *name) {
  const char *const wanted = getenv("FAKE_CUDA_FAIL");
  const size_t n = strlen(what);
  if (!wanted || strncmp(wanted, what, n)) return false;
  return name ? wanted[n] == ':' && !strcmp(wanted + n + 1, name) : !wanted[n];
}

long fake_number(const char *variable, long standard) {
  const char *const text = getenv(variable);
  return text ? atol(text) : standard;
}

/* For tests: objects that live, launches … */
__attribute__((visibility("default"))) long fake_cuda_count(int what) {
  ENTER_ANY;
  const long n = fake_counts[what];
  pthread_mutex_unlock(&fake_lock);
  return n;
}

/* ---- the library ---- */
static void *no_work(void *arg) { return arg; }

/* Threads of its own, as the real one has. */
static void start_threads(void) {
  pthread_t id;
  if (pthread_create(&id, NULL, no_work, NULL)) fake_die("no thread can be started");
  pthread_join(id, NULL);
}

API cuInit(uint32_t flags) {
  if (flags) return INVALID_VALUE;
  if (!initialised) start_threads();
  if (fake_fails("init", NULL)) return UNKNOWN;
  if (fake_number("FAKE_CUDA_DEVICES", 1) == 0) return CU_NO_DEVICE;
  initialised = true;
  return 0;
}

API cuDriverGetVersion(int32_t *version) {
  *version = (int32_t)fake_number("FAKE_CUDA_VERSION", 12040);
  return 0;
}

API cuGetErrorString(CuResult r, const char **text) {
  static const struct {
    CuResult code;
    const char *text;
  } rows[] = {{INVALID_VALUE, "invalid argument"},
              {CU_OUT_OF_MEMORY, "out of memory"},
              {CU_NO_DEVICE, "no CUDA-capable device is detected"},
              {NO_IMAGE, "no kernel image is available for execution on the device"},
              {NOT_FOUND, "named symbol not found"},
              {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
              {NO_RESOURCES, "too many resources requested for launch"},
              {CAPTURE_FORBIDS, "operation not permitted when stream is capturing"},
              {UNKNOWN, "unknown error"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].code == r) return *text = rows[i].text, 0;
  return *text = NULL, INVALID_VALUE;
}

API cuDeviceGetCount(int32_t *n) {
  *n = (int32_t)fake_number("FAKE_CUDA_DEVICES", 1);
  return 0;
}

API cuDeviceGet(CuDevice *device, int32_t i) {
  if (i < 0 || i >= fake_number("FAKE_CUDA_DEVICES", 1)) return 101;
  *device = i;
  return 0;
}

API cuDeviceGetName(char *name, int32_t bytes, CuDevice d) {
  snprintf(name, (size_t)bytes, "Fake GPU %d", d);
  return 0;
}

API cuDeviceGetAttribute(int32_t *value, int32_t attribute, CuDevice d) {
  const int32_t sm = (int32_t)fake_number("FAKE_CUDA_SM", 90);
  if (attribute != CU_CAPABILITY_MAJOR && attribute != CU_CAPABILITY_MINOR)
    fake_die("an attribute that nobody needs");
  *value = attribute == CU_CAPABILITY_MAJOR ? sm / 10 : sm % 10;
  return 0;
}

/* ---- contexts ---- */
API cuDevicePrimaryCtxRetain(CuContext *context, CuDevice d) {
  ENTER_ANY;
  Context *const c = &primaries[d];
  c->device = d;
  c->retained++;
  fake_counts[COUNT_LIVE]++;
  *context = c;
  LEAVE(0);
}

API cuDevicePrimaryCtxRelease_v2(CuDevice d) {
  ENTER_ANY;
  if (primaries[d].retained-- <= 0) fake_die("a context is released that nobody has");
  fake_counts[COUNT_LIVE]--;
  LEAVE(0);
}

API cuCtxPushCurrent_v2(CuContext context) {
  if (!context || !context->retained) fake_die("no context is pushed");
  if (depth == DEPTH) fake_die("contexts are pushed and not popped");
  stack[depth++] = context;
  return 0;
}

API cuCtxPopCurrent_v2(CuContext *context) {
  if (!depth) fake_die("a context is popped that nobody pushed");
  *context = stack[--depth];
  return 0;
}

API cuCtxGetCurrent(CuContext *context) {
  *context = depth ? stack[depth - 1] : NULL;
  return 0;
}

API cuCtxGetDevice(CuDevice *d) {
  ENTER(c);
  *d = c->device;
  LEAVE(0);
}
