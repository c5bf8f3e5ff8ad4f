/* The public entries: map, scan and decode, import. */
#define XXH_INLINE_ALL
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "frontend/proto/wire.h"
#include "frontend/scope/import.h"
#include "ir/loop/loop.h"

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
  for (int k = 0; k < o->n_bounds; k++) vec_push(a, &m->bounds, o->bounds[k]);
  *expr_pool_rules(m->pool) = o->rules;
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

/* ---- texts ---- */
typedef struct TextSource {
  Arena *arena;
  Diag *diag;
  const char *path;
  Vec(ModelFile) weights;
} TextSource;

static const void *find_weights(void *user, const char *name, int64_t *bytes) {
  static const char nothing[1];
  FileMap map;
  TextSource *t = user;
  const Loc loc = {.file = t->path, .node = -1};
  const char *dir = dir_name(t->arena, t->path);
  if (!file_map_beneath(t->diag, &loc, dir, name, &map)) return NULL;
  map.file.path = arena_printf(t->arena, "%s/%s", dir, name);
  vec_push(t->arena, &t->weights, map.file);
  *bytes = (int64_t)map.size;
  return map.data ? (const void *)map.data : nothing;
}

/* The first word of a program's text is `module`, behind comments and lines that graphs have, too. */
static bool is_program(const char *text) {
  while (*text) {
    text += strspn(text, " \t\r\n");
    if (strncmp(text, "module", 6) == 0) return true;
    if (strncmp(text, "graph", 5) == 0) return false;
    text += strcspn(text, "\n");
  }
  return false;
}

Model *frontend_load_text(Arena *a, Diag *d, const char *path, Module **program) {
  size_t n;
  TextSource t = {.arena = a, .diag = d, .path = arena_strdup(a, path)};
  const char *text = frontend_read_file(a, d, path, &n);
  Model *m = NULL;
  *program = NULL;
  if (!text) return NULL;
  if (is_program(text)) {
    *program = program_parse(a, d, text, t.path, find_weights, &t);
    m = *program ? (*program)->model : NULL;
  } else {
    m = model_parse_with(a, d, text, t.path, find_weights, &t);
  }
  if (!m) return NULL;
  if (!m->hash) m->hash = frontend_hash(a, text, n);
  for (int i = 0; i < t.weights.n; i++) vec_push(a, &m->files, t.weights.data[i]);
  return m;
}

bool frontend_is_text(const char *path) {
  static const char *const starts[] = {"model ir ", "graph @", "symbol $", "assume ",
                                       "module ",   "todo ",   "// "};
  char head[16] = {0};
  struct stat st;
  const size_t n = strlen(path);
  if (n > 3 && strcmp(path + n - 3, ".ir") == 0) return true;
  if (n > 5 && strcmp(path + n - 5, ".loop") == 0) return true;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && read(fd, head, sizeof head - 1) < 0)
    head[0] = 0;
  close(fd);
  for (size_t k = 0; k < sizeof starts / sizeof *starts; k++)
    if (strncmp(head, starts[k], strlen(starts[k])) == 0) return true;
  return false;
}
