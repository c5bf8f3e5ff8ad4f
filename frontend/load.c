/* The public entries: map, scan and decode, import. */
#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>
#include "frontend/import.h"
#include "frontend/wire.h"

static const char *dir_name(Arena *a, const char *path) {
  const char *slash = strrchr(path, '/');
  if (!slash) return ".";
  return slash == path ? "/" : arena_strndup(a, path, (size_t)(slash - path));
}

static size_t budget_of(const FrontendOptions *o, size_t size) {
  if (o->max_memory) return o->max_memory;
  return size > (SIZE_MAX >> 5) ? SIZE_MAX : 16 * size + ((size_t)256 << 20);
}

static Import import_state(Arena *a, Diag *d, Model *m, const void *data, size_t size,
                           const char *name, const FrontendOptions *o) {
  Import im = {.arena = a,
               .scratch = arena_child(a),
               .m = m,
               .d = d,
               .o = o,
               .file = data,
               .file_size = size,
               .path = name};
  im.budget = budget_of(o, size);
  im.dim_used = ARENA_ARRAY(im.scratch, bool, o->n_dims);
  im.const_used = ARENA_ARRAY(im.scratch, bool, o->n_consts);
  im.shape_used = ARENA_ARRAY(im.scratch, bool, o->n_shapes);
  return im;
}

static Model *load(Arena *a, Diag *d, const void *data, size_t size, const char *name,
                   const char *dir, const FrontendOptions *o) {
  static const FrontendOptions none = {0};
  if (!o) o = &none;
  Model *m = model_new(a, d);
  m->file = arena_strdup(a, name);
  const Loc loc = {.file = m->file, .node = -1};
  if (size == 0) return diag_error(d, &loc, ERR_NOT_ONNX, "the file is empty"), NULL;
  Import im = import_state(a, d, m, data, size, m->file, o);
  im.dir = o->external_dir ? o->external_dir : dir;
  Onnx__ModelProto *p = (Onnx__ModelProto *)wire_decode(im.scratch, d, &loc, data, size,
                                                        &onnx__model_proto__descriptor, im.budget);
  if (!p && *(const uint8_t *)data != 0x08)
    diag_note(d, "the file does not begin as ONNX models do");
  const bool ok = p && import_model(&im, p);
  arena_free(im.scratch);
  return ok ? m : NULL;
}

Model *frontend_load_memory(Arena *a, Diag *d, const void *data, size_t size, const char *name,
                            const FrontendOptions *o) {
  return load(a, d, data, size, name, NULL, o);
}

const char *frontend_hash(Arena *a, const void *data, size_t size) {
  const XXH128_hash_t h = XXH3_128bits(data, size);
  return arena_printf(a, "%016llx%016llx", (unsigned long long)h.high64,
                      (unsigned long long)h.low64);
}

Model *frontend_load(Arena *a, Diag *d, const char *path, const FrontendOptions *o) {
  const Loc loc = {.file = path, .node = -1};
  FileMap f;
  if (!file_map(d, &loc, path, &f)) return NULL;
  Model *m = load(a, d, f.data, f.size, path, dir_name(a, path), o);
  if (!m) return NULL;
  f.file.path = m->file;
  vec_push(a, &m->files, f.file);
  m->hash = frontend_hash(a, f.data, f.size);
  return m;
}

ConstData *frontend_load_tensor(Model *m, const char *path) {
  static const FrontendOptions none = {0};
  const Loc loc = {.file = path, .node = -1};
  FileMap f;
  if (!file_map(m->diag, &loc, path, &f)) return NULL;
  Import im = import_state(m->arena, m->diag, m, f.data, f.size, path, &none);
  im.dir = dir_name(m->arena, path);
  Onnx__TensorProto *t = (Onnx__TensorProto *)wire_decode(
      im.scratch, m->diag, &loc, f.data, f.size, &onnx__tensor_proto__descriptor, im.budget);
  ConstData *c =
      t ? import_tensor(&im, t, t->name ? arena_strdup(m->arena, t->name) : NULL, &loc) : NULL;
  arena_free(im.scratch);
  return c;
}
