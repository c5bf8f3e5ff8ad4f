/* Files of a training's state: see state_file.h. */
#define _GNU_SOURCE
#include "codegen/files/state_file.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

enum { HEAD = 64, ENTRY = 32, MOST_NAME = 1 << 16 };
static const char magic[8] = {'B', 'U', 'R', 'I', 'N', 'S', 'T', '1'};

static uint64_t padded(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
static void put(char *at, uint64_t v) { memcpy(at, &v, sizeof v); }
static uint64_t get(const char *at) {
  uint64_t v;
  memcpy(&v, at, sizeof v);
  return v;
}

/* ---- writing ---- */
static uint64_t table_bytes(const StateFile *f) {
  uint64_t n = 0;
  for (int k = 0; k < f->n; k++) n += ENTRY + padded(strlen(f->entries[k].name), 8);
  return n;
}

/* What stands in front of the state's bytes; *bytes of it. */
static const void *make_head(Arena *a, const StateFile *f, uint64_t *bytes) {
  const uint64_t table = table_bytes(f);
  *bytes = padded(HEAD + table, 64);
  char *head = arena_alloc(a, *bytes), *at = head + HEAD;
  for (int k = 0; k < f->n; k++) {
    const StateEntry *e = &f->entries[k];
    put(at, (uint32_t)e->kind | (uint64_t)(uint32_t)e->dtype << 32);
    put(at + 8, e->offset);
    put(at + 16, e->bytes);
    put(at + 24, strlen(e->name));
    memcpy(at + ENTRY, e->name, strlen(e->name));
    at += ENTRY + padded(strlen(e->name), 8);
  }
  memcpy(head, magic, sizeof magic);
  put(head + 8, *bytes);
  put(head + 16, (uint64_t)f->n);
  put(head + 24, f->state_bytes);
  put(head + 32, XXH3_64bits(head + HEAD, table));
  put(head + 40, f->more_bytes);
  return head;
}

uint64_t state_file_layout(Arena *a, const StateFile *f) {
  uint64_t bytes;
  return get((const char *)make_head(a, f, &bytes) + 32);
}

static uint64_t hash_of(const void *head, uint64_t n, const StateFile *f) {
  XXH3_state_t x;
  XXH3_64bits_reset(&x);
  XXH3_64bits_update(&x, head, n);
  if (f->state_bytes) XXH3_64bits_update(&x, f->state, f->state_bytes);
  if (f->more_bytes) XXH3_64bits_update(&x, f->more, f->more_bytes);
  return XXH3_64bits_digest(&x);
}

/* A rename is on the disk once its folder is; where a folder cannot be opened, nothing can be done. */
static void sync_folder(const char *path) {
  char folder[OUTFILE_PATH] = ".";
  const char *slash = strrchr(path, '/');
  const size_t n = slash ? (size_t)(slash - path) + 1 : 0;
  if (n && n < sizeof folder) memcpy(folder, path, n), folder[n] = 0;
  const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

/* A stream has no disk to wait for. */
static bool sync_file(Outputs *o, const OutFile *f) {
  return fsync(f->fd) == 0 || errno == EINVAL || errno == EROFS || outputs_error(o, f, -errno);
}

static bool write_parts(Outputs *o, OutFile *out, const StateFile *f) {
  uint64_t n;
  const void *head = make_head(o->arena, f, &n);
  const uint64_t hash = hash_of(head, n, f);
  return outputs_write(o, out, head, n) && outputs_write(o, out, f->state, f->state_bytes) &&
         outputs_write(o, out, f->more, f->more_bytes) &&
         outputs_write(o, out, &hash, sizeof hash) && sync_file(o, out);
}

bool state_file_write(Outputs *o, const char *path, const StateFile *f) {
  OutFile *out = outputs_add(o, path, false);
  const bool ok = out && write_parts(o, out, f) && outputs_commit(o);
  if (ok)
    sync_folder(path);
  else
    outputs_abort(o);
  return ok;
}

/* ---- reading ---- */
typedef struct StateReader {
  Arena *arena;
  Diag *diag;
  const char *path;
  const char *data;
  uint64_t bytes; /* without the hash at the end */
} StateReader;

static bool fault(const StateReader *r, const char *what) {
  const Loc loc = {.file = r->path, .node = -1};
  return diag_error(r->diag, &loc, ERR_IO, "no usable state file: %s", what);
}

static bool read_whole(StateReader *r) {
  struct stat st;
  const int fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    const char *why = fd < 0 ? strerror(errno) : "no regular file";
    if (fd >= 0) close(fd);
    return fault(r, why);
  }
  char *data = arena_alloc(r->arena, (size_t)st.st_size + 1);
  uint64_t got = 0;
  for (ssize_t n = 1; got < (uint64_t)st.st_size && n != 0;) {
    n = read(fd, data + got, (size_t)st.st_size - got);
    if (n < 0 && errno != EINTR) break;
    got += n > 0 ? (uint64_t)n : 0;
  }
  close(fd);
  r->data = data;
  r->bytes = got < 8 ? 0 : got - 8;
  return got == (uint64_t)st.st_size ? true : fault(r, "it cannot be read to its end");
}

static bool read_entry(const StateReader *r, uint64_t head, uint64_t *at, uint64_t state,
                       StateEntry *e) {
  if (head - *at < ENTRY) return false;
  const char *p = r->data + *at;
  const uint64_t types = get(p), length = get(p + 24);
  *at += ENTRY;
  *e = (StateEntry){.kind = (int32_t)(uint32_t)types,
                    .dtype = (int32_t)(types >> 32),
                    .offset = get(p + 8),
                    .bytes = get(p + 16)};
  if (length > MOST_NAME || padded(length, 8) > head - *at) return false;
  if (memchr(r->data + *at, 0, length)) return false;
  e->name = arena_strndup(r->arena, r->data + *at, length);
  *at += padded(length, 8);
  return e->bytes <= state && e->offset <= state - e->bytes;
}

static bool read_table(const StateReader *r, uint64_t head, uint64_t n, StateFile *out) {
  uint64_t at = HEAD;
  if (n > (head - HEAD) / ENTRY) return fault(r, "its table is longer than it says");
  StateEntry *entries = ARENA_ARRAY(r->arena, StateEntry, n + 1);
  for (uint64_t k = 0; k < n; k++)
    if (!read_entry(r, head, &at, out->state_bytes, &entries[k]))
      return fault(r, "a tensor of its table lies outside");
  if (XXH3_64bits(r->data + HEAD, at - HEAD) != get(r->data + 32))
    return fault(r, "its table is damaged");
  out->n = (int)n;
  out->entries = entries;
  return true;
}

bool state_file_read(Arena *a, Diag *d, const char *path, StateFile *out) {
  StateReader r = {.arena = a, .diag = d, .path = path};
  *out = (StateFile){0};
  if (!read_whole(&r)) return false;
  if (r.bytes < HEAD || memcmp(r.data, magic, sizeof magic) != 0)
    return fault(&r, "it does not begin as one");
  const uint64_t head = get(r.data + 8), state = get(r.data + 24), more = get(r.data + 40);
  if (head < HEAD || head % 64 || head > r.bytes || state > r.bytes - head ||
      more != r.bytes - head - state)
    return fault(&r, "it is cut short, or longer than it says");
  if (XXH3_64bits(r.data, r.bytes) != get(r.data + r.bytes))
    return fault(&r, "it is damaged: its checksum differs");
  out->state_bytes = state;
  out->more_bytes = more;
  out->state = r.data + head;
  out->more = r.data + head + state;
  return read_table(&r, head, get(r.data + 16), out);
}
