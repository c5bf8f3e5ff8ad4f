/* Runs programs of constants while a model is compiled: as a library made for the model's own
 * target, loaded into this process, so that the bits are those that running the model would give.
 * Where this machine cannot run the target's code, the interpreter takes over. */
#include "driver/session/library.h"

static bool invoke(Session *s, const BurinModel *model, const void *const *in, void *const *out) {
  const uint64_t bytes = model->arena_size(NULL, 1);
  if (model->n_symbols || bytes > (uint64_t)16 << 30) return false;
  Arena *a = arena_child(s->arena);
  BurinOptions options = {.size = sizeof options, .threads = 1};
  const bool ok = model->invoke(in, out, NULL, library_memory(a, bytes), &options) == BURIN_OK;
  arena_free(a);
  return ok;
}

bool constants_run(void *user, const Module *m, const void *const *in, void *const *out) {
  Session *s = user;
  Library l;
  if (!library_make(s, m, "constants", &l)) return false;
  const bool ok = invoke(s, l.model, in, out);
  library_close(&l);
  return ok;
}
