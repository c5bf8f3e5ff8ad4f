/* Outputs and scratch files of a command. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/files/outputs.h"

Outputs *outputs_new(Arena *a, Diag *d) {
  Outputs *o = ARENA_NEW(a, Outputs);
  *o = (Outputs){.arena = a, .diag = d};
  return o;
}

void outputs_protect(Outputs *o, const char *path) {
  FileId id;
  if (path && outfile_identify(path, &id) == 0) vec_push(o->arena, &o->inputs, id);
}

static bool path_error(Outputs *o, const char *path, long error) {
  const bool standard = strcmp(path, "-") == 0;
  const Loc loc = {.file = standard ? "standard output" : path, .node = -1};
  const char *reason = outfile_reason(error);
  return diag_error(o->diag, &loc, ERR_OUTPUT, "cannot be written: %s",
                    reason ? reason : strerror((int)-error));
}

bool outputs_error(Outputs *o, const OutFile *f, long error) {
  return path_error(o, f->path, error);
}

OutFile *outputs_add(Outputs *o, const char *path, bool executable) {
  OutFile *f = ARENA_NEW(o->arena, OutFile);
  if (!path) path = "-";
  const long e = outfile_open(f, path, executable, o->inputs.data, o->inputs.n);
  if (e < 0) return path_error(o, path, e), NULL;
  const Loc loc = {.file = path, .node = -1};
  for (int i = 0; i < o->files.n; i++)
    if (outfile_same(o->files.data[i], f)) {
      outfile_abort(f);
      diag_error(o->diag, &loc, ERR_OUTPUT, "two outputs of this command go there");
      return NULL;
    }
  vec_push(o->arena, &o->files, f);
  return f;
}

bool outputs_write(Outputs *o, OutFile *f, const void *data, size_t size) {
  const long e = outfile_write(f, data, size);
  return e == 0 || outputs_error(o, f, e);
}

bool outputs_commit(Outputs *o) {
  int failed = 0;
  const long e = outfile_commit(o->files.data, o->files.n, &failed);
  const OutFile *f = e ? o->files.data[failed] : NULL;
  o->files.n = 0;
  return e == 0 || outputs_error(o, f, e);
}

void outputs_abort(Outputs *o) {
  for (int i = 0; i < o->files.n; i++) outfile_abort(o->files.data[i]);
  o->files.n = 0;
}

bool outputs_try(Outputs *o, int n, const char *const *paths) {
  bool ok = true;
  for (int k = 0; k < n && ok; k++) ok = !paths[k] || outputs_add(o, paths[k], false);
  outputs_abort(o);
  return ok;
}

int scratch_open(const char *beside) {
  char folder[OUTFILE_PATH] = ".";
  const char *slash = strrchr(beside, '/');
  const size_t n = slash ? (size_t)(slash - beside) + 1 : 0;
  if (n && n < sizeof folder) memcpy(folder, beside, n), folder[n] = 0;
  const int fd = open(folder, O_TMPFILE | O_RDWR, 0600);
  return fd >= 0 ? fd : memfd_create("scratch", 0);
}

bool fd_write(int fd, const void *data, size_t size) {
  for (const char *p = data; size;) {
    const ssize_t n = write(fd, p, size < 1u << 30 ? size : 1u << 30);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return errno = n < 0 ? errno : EIO, false;
    p += n;
    size -= (size_t)n;
  }
  return true;
}

FILE *fd_stream(int fd) {
  const int copy = dup(fd);
  FILE *const f = copy >= 0 ? fdopen(copy, "wb") : NULL;
  if (!f && copy >= 0) close(copy);
  return f;
}
