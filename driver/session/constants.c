/* Runs programs of constants while a model is compiled: as a library made for the model's own
 * target, loaded into this process, so that the bits are those that running the model would give.
 * Where this machine cannot run the target's code, the interpreter takes over. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver/driver.h"
#include "runtime/abi.h"

/* Memory for one call, from an arena that dies behind it. */
static void *call_memory(Arena *a, uint64_t bytes) {
  const uintptr_t p = (uintptr_t)arena_alloc(a, (size_t)bytes + 64);
  return (void *)((p + 63) / 64 * 64); /* NOLINT: rounded up inside of the block */
}

static bool invoke(Session *s, void *library, const void *const *in, void *const *out) {
  const BurinModel *(*info)(void);
  int32_t (*cpu_ok)(void);
  *(void **)&info = dlsym(library, "constants_info");
  *(void **)&cpu_ok = dlsym(library, "constants_cpu_ok");
  if (!info || !cpu_ok || cpu_ok() != 1) return false;
  const BurinModel *model = info();
  const uint64_t bytes = model->arena_size(NULL, 1);
  if (model->n_symbols || bytes > (uint64_t)16 << 30) return false;
  Arena *a = arena_child(s->arena);
  BurinOptions options = {.size = sizeof options, .threads = 1};
  const bool ok = model->invoke(in, out, NULL, call_memory(a, bytes), &options) == BURIN_OK;
  arena_free(a);
  return ok;
}

bool constants_run(void *user, const Module *m, const void *const *in, void *const *out) {
  Session *s = user;
  const char *path;
  int fd;
  CodegenStats stats = {0};
  if (!s->target || !target_is_host_arch(s->target) || !program_memory(s->arena, &fd, &path))
    return false;
  const CodegenOptions o = {.emit = EMIT_SHARED,
                            .output = path,
                            .name = "constants",
                            .flags = "",
                            .model_hash = "",
                            .opt_level = s->opt_level > 0 ? s->opt_level : 1};
  memory_begin(s);
  const Target host = target_host_code(s->target);
  const bool made = codegen_write(m, &host, &o, &stats);
  memory_end();
  void *const library = made ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  const bool ok = library && invoke(s, library, in, out);
  if (library) dlclose(library);
  close(fd);
  return ok;
}
