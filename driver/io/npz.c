/* .npz: a zip of .npy files, one for each array (numpy.savez, numpy.savez_compressed). */
#include <stdlib.h>
#include <string.h>
#include <zip.h>
#include "driver/io/dataset.h"

static bool npz_error(Session *s, const char *path, const char *what) {
  const Loc loc = {.file = path, .node = -1};
  return diag_error(s->diag, &loc, ERR_IO, "cannot read the .npz file: %s", what);
}

/* The name of an array: that of its file without .npy; NULL: some other file. */
static const char *array_name(Arena *a, const char *file) {
  return ends_with(file, ".npy") ? arena_strndup(a, file, strlen(file) - 4) : NULL;
}

static bool read_entry(Session *s, const char *path, zip_t *z, zip_uint64_t k, NamedTensors *out) {
  static const zip_uint64_t most = (zip_uint64_t)4 << 30; /* of one array */
  zip_stat_t st;
  NamedTensor t = {0};
  if (zip_stat_index(z, k, 0, &st) != 0 || !(st.valid & ZIP_STAT_SIZE) ||
      !(st.valid & ZIP_STAT_NAME))
    return npz_error(s, path, zip_strerror(z));
  if (!(t.name = array_name(s->arena, st.name))) return true;
  if (st.size > most) return npz_error(s, path, "an array is larger than 4 GiB");
  Arena *scratch = arena_child(s->arena);
  char *data = arena_alloc(scratch, (size_t)st.size + 1);
  zip_file_t *f = zip_fopen_index(z, k, 0);
  zip_int64_t got = 0, n = 1;
  while (f && (zip_uint64_t)got < st.size && n > 0) {
    n = zip_fread(f, data + got, st.size - (zip_uint64_t)got);
    if (n > 0) got += n;
  }
  /* the checksum is looked at when the end is read */
  const bool whole = f && (zip_uint64_t)got == st.size && zip_fread(f, data + got, 1) == 0;
  if (f) zip_fclose(f);
  const char *where = arena_printf(s->arena, "%s:%s", path, t.name);
  const bool ok = whole ? npy_parse(s, where, data, (size_t)st.size, &t.t)
                        : npz_error(s, path, "an array is damaged or cut short");
  arena_free(scratch);
  if (ok) vec_push(s->arena, out, t);
  return ok;
}

bool npz_read(Session *s, const char *path, NamedTensors *out) {
  int code;
  outputs_protect(s->outputs, path);
  zip_t *z = zip_open(path, ZIP_RDONLY, &code);
  if (!z) {
    zip_error_t e;
    zip_error_init_with_code(&e, code);
    const char *why = arena_strdup(s->arena, zip_error_strerror(&e));
    zip_error_fini(&e);
    return npz_error(s, path, why);
  }
  const zip_int64_t n = zip_get_num_entries(z, 0);
  bool ok = true;
  for (zip_int64_t k = 0; k < n && ok; k++) ok = read_entry(s, path, z, (zip_uint64_t)k, out);
  zip_discard(z);
  return ok;
}
