/* Modules and kernels of the fake driver: kernels are found by name in the library for cuda:host
 * that FAKE_CUDA_KERNELS names. */
#include <dlfcn.h>

#include "fake.h"

static bool does_nothing(void) {
  const char *const wanted = getenv("FAKE_CUDA_KERNELS");
  return wanted && !strcmp(wanted, "nothing");
}

static void run_nothing(void *const *args, const int32_t block[3], const int32_t grid[3]) {}
static const GpuKernel nothing = {.name = "nothing", .unit = -1, .host = run_nothing};

static const GpuModel *model(void) {
  const char *const wanted = getenv("FAKE_CUDA_KERNELS");
  static const GpuModel *found;
  if (found || !wanted || does_nothing()) return found;
  char *const path = strdup(wanted), *const colon = strrchr(path, ':');
  if (!colon) fake_die("FAKE_CUDA_KERNELS is LIBRARY:SYMBOL");
  *colon = 0;
  void *const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library) found = dlsym(library, colon + 1);
  if (!found) fake_die(dlerror());
  free(path);
  return found;
}

API cuModuleLoadData(CuModule *module, const void *image) {
  ENTER(c);
  if (!image || (uintptr_t)image % 8) fake_die("an image of kernels is not aligned");
  if (fake_fails("load", NULL)) LEAVE(NO_IMAGE);
  *module = malloc(1);
  fake_add(MODULE, *module, c);
  LEAVE(0);
}

API cuModuleUnload(CuModule module) {
  ENTER(c);
  fake_remove(MODULE, module);
  free(module);
  LEAVE(0);
}

/* Functions live as long as the process: there are few. */
API cuModuleGetFunction(CuFunction *f, CuModule module, const char *name) {
  ENTER(c);
  if (fake_check(MODULE, module) != c) fake_die("a module of another context");
  const GpuModel *const m = model();
  static struct CuFunctionObject functions[256];
  for (int32_t i = 0; m && i < m->n_kernels && i < 256; i++) {
    if (strcmp(m->kernels[i].name, name)) continue;
    functions[i].kernel = &m->kernels[i];
    *f = &functions[i];
    LEAVE(0);
  }
  if (!does_nothing()) LEAVE(NOT_FOUND);
  static struct CuFunctionObject function = {&nothing, 0};
  *f = &function;
  LEAVE(0);
}

API cuFuncSetAttribute(CuFunction f, int32_t attribute, int32_t value) {
  ENTER(c);
  if (attribute != CU_FUNCTION_MAX_DYNAMIC_SHARED) fake_die("an attribute of functions");
  if (value > 227 << 10) LEAVE(INVALID_VALUE);
  f->most_shared = (uint32_t)value;
  LEAVE(0);
}

void fake_run_kernel(const GpuKernel *k, void *const *args, const int32_t grid[3]) {
  for (int32_t z = 0; z < grid[2]; z++)
    for (int32_t y = 0; y < grid[1]; y++)
      for (int32_t x = 0; x < grid[0]; x++) k->host(args, (int32_t[]){x, y, z}, grid);
}
