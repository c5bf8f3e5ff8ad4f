/* A library in a file without a name, loaded into this process. */
#include "driver/session/library.h"
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

void *library_memory(Arena *a, uint64_t bytes) {
  const uintptr_t p = (uintptr_t)arena_alloc(a, (size_t)bytes + 64);
  return (void *)((p + 63) / 64 * 64); /* NOLINT: rounded up inside of the block */
}

static bool load(Library *l, const char *path, const char *name, Arena *a) {
  const BurinModel *(*info)(void);
  int32_t (*cpu_ok)(void);
  l->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!l->handle) return false;
  *(void **)&info = dlsym(l->handle, arena_printf(a, "%s_info", name));
  *(void **)&cpu_ok = dlsym(l->handle, arena_printf(a, "%s_cpu_ok", name));
  if (!info || !cpu_ok || cpu_ok() != 1) return false;
  l->model = info();
  return true;
}

bool library_make(Session *s, const Module *m, const char *name, Library *out) {
  const char *path;
  CodegenStats stats = {0};
  *out = (Library){.fd = -1};
  if (!s->target || !target_is_host_arch(s->target) || !program_memory(s->arena, &out->fd, &path))
    return false;
  const CodegenOptions o = {.emit = EMIT_SHARED,
                            .output = path,
                            .name = name,
                            .flags = "",
                            .model_hash = "",
                            .opt_level = s->opt_level > 0 ? s->opt_level : 1};
  memory_begin(s);
  const Target host = target_host_code(s->target);
  const bool made = codegen_write(m, &host, &o, &stats);
  memory_end();
  if (made && load(out, path, name, s->arena)) return true;
  library_close(out);
  return false;
}

void library_close(Library *l) {
  if (l->handle) dlclose(l->handle);
  if (l->fd >= 0) close(l->fd);
  *l = (Library){.fd = -1};
}

/* ---- a model as a library ---- */
typedef struct Compile {
  const char *file;
  GraphEdit edit;
  void *user;
  bool as_read; /* the edit comes before all passes */
  Library *out;
} Compile;

static int compile_body(Session *s, void *user) {
  const Compile *c = user;
  if (!session_target(s)) return EXIT_USAGE;
  if (!session_load(s, c->file) || !session_has_data(s)) return session_status(s, EXIT_OK);
  s->passes = session_onnx_passes(s);
  if (!c->as_read && !session_passes(s, 0)) return session_status(s, EXIT_OK);
  if (c->edit && !c->edit(s, c->user)) return session_status(s, EXIT_OK);
  s->passes = NULL;
  if (!session_passes(s, PF_CODE)) return session_status(s, EXIT_OK);
  if (library_make(s, s->module, "model", c->out)) return EXIT_OK;
  return diag_errors(s->diag)
             ? diag_exit_status(s->diag)
             : usage_error("code for target %s does not run on this machine", s->target->name);
}

static int compile(const Options *o, Compile *c) {
  Options own = *o;
  *c->out = (Library){.fd = -1};
  own.quiet = true;
  own.freeze = true;
  own.print_after = own.ir_dir = own.passes = NULL;
  own.time_passes = false;
  return session_run(&own, compile_body, c);
}

int library_compile(const Options *o, const char *file, GraphEdit edit, void *user, Library *out) {
  Compile c = {.file = file, .edit = edit, .user = user, .out = out};
  return compile(o, &c);
}

int library_compile_read(const Options *o, const char *file, GraphEdit edit, void *user,
                         Library *out) {
  Compile c = {.file = file, .edit = edit, .user = user, .as_read = true, .out = out};
  return compile(o, &c);
}
