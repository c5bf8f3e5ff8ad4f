/* Maps model files and external data. The kernel resolves external paths (openat2 with
 * RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS); where it has no openat2 the path is walked one
 * component at a time with O_NOFOLLOW. */
#define _GNU_SOURCE
#include "frontend/proto/filemap.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "frontend/frontend.h"

static int64_t changed_ns(const struct stat *st) {
  return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}

static bool map_fd(Diag *d, const Loc *loc, int fd, const char *what, ErrCode bad, bool single,
                   FileMap *out) {
  struct stat st;
  if (fstat(fd, &st) != 0)
    return diag_error(d, loc, ERR_IO, "cannot read %s: %s", what, strerror(errno));
  if (!S_ISREG(st.st_mode)) return diag_error(d, loc, bad, "%s is not a regular file", what);
  if (single && st.st_nlink > 1)
    return diag_error(d, loc, ERR_EXTERNAL_PATH,
                      "%s has more than one hard link, so it may lie elsewhere", what);
  *out = (FileMap){.size = (size_t)st.st_size,
                   .file = {.device = st.st_dev,
                            .inode = st.st_ino,
                            .size = st.st_size,
                            .changed_ns = changed_ns(&st)}};
  if (st.st_size == 0) return true;
  void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (p == MAP_FAILED)
    return diag_error(d, loc, ERR_IO, "cannot map %s: %s", what, strerror(errno));
  out->data = p;
  return true;
}

bool file_map(Diag *d, const Loc *loc, const char *path, FileMap *out) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return diag_error(d, loc, ERR_IO, "cannot open: %s", strerror(errno));
  const bool ok = map_fd(d, loc, fd, "the file", ERR_IO, false, out);
  close(fd);
  return ok;
}

static bool path_is_plain(const char *p) {
  if (*p == '/' || *p == 0) return false;
  for (const char *part = p; part;) {
    const char *slash = strchr(part, '/');
    const size_t n = slash ? (size_t)(slash - part) : strlen(part);
    if (n == 2 && memcmp(part, "..", 2) == 0) return false;
    part = slash ? slash + 1 : NULL;
  }
  return true;
}

/* Opens each directory in turn without following links. */
static int open_by_parts(int root, const char *path) {
  char part[256];
  int dir = dup(root);
  while (dir >= 0) {
    while (*path == '/') path++;
    const size_t n = strcspn(path, "/");
    const bool last = path[n] == 0;
    if (n == 0 || n >= sizeof part) {
      close(dir);
      errno = n ? ENAMETOOLONG : ENOENT;
      return -1;
    }
    memcpy(part, path, n);
    part[n] = 0;
    const int fd = openat(
        dir, part, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (last ? 0 : O_DIRECTORY));
    const int saved = errno;
    close(dir);
    errno = saved;
    if (fd < 0 || last) return fd;
    dir = fd;
    path += n;
  }
  return -1;
}

static int open_beneath(int root, const char *path) {
  struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                         .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  const long fd = syscall(SYS_openat2, root, path, &how, sizeof how);
  if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return (int)fd;
  return open_by_parts(root, path);
}

bool file_map_beneath(Diag *d, const Loc *loc, const char *root, const char *location,
                      FileMap *out) {
  if (!path_is_plain(location)) {
    diag_error(d, loc, ERR_EXTERNAL_PATH, "external data \"%s\" is not a plain relative path",
               location);
    diag_hint(d, "--external-data-dir=DIR names another directory for external data");
    return false;
  }
  const int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0)
    return diag_error(d, loc, ERR_IO, "cannot open directory \"%s\": %s", root, strerror(errno));
  const int fd = open_beneath(dir, location);
  const int err = errno;
  close(dir);
  if (fd < 0 && (err == ELOOP || err == EXDEV))
    return diag_error(d, loc, ERR_EXTERNAL_PATH,
                      "external data \"%s\" goes through a symbolic link", location);
  if (fd < 0)
    return diag_error(d, loc, ERR_IO, "cannot open external data \"%s\": %s", location,
                      strerror(err));
  const bool ok = map_fd(d, loc, fd, "external data", ERR_EXTERNAL, true, out);
  close(fd);
  return ok;
}

bool frontend_unchanged(const Model *m) {
  for (int k = 0; k < m->files.n; k++) {
    const ModelFile *f = &m->files.data[k];
    const Loc loc = {.file = f->path, .node = -1};
    struct stat st; /* one of the same name is another file: what was mapped stays as it was */
    if (stat(f->path, &st) != 0 || st.st_dev != f->device || st.st_ino != f->inode) continue;
    if (st.st_size != f->size || changed_ns(&st) != f->changed_ns)
      return diag_error(m->diag, &loc, ERR_IO, "the file changed while it was read");
  }
  return true;
}

const char *frontend_read_file(Arena *a, Diag *d, const char *path, size_t *size) {
  const Loc loc = {.file = path, .node = -1};
  struct stat st;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return diag_error(d, &loc, ERR_IO, "cannot open: %s", strerror(errno)), NULL;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    close(fd);
    return diag_error(d, &loc, ERR_IO, "the file is not a regular file"), NULL;
  }
  char *text = arena_alloc(a, (size_t)st.st_size + 1);
  size_t done = 0;
  for (ssize_t n = 1; n > 0 && done < (size_t)st.st_size; done += n > 0 ? (size_t)n : 0)
    n = read(fd, text + done, (size_t)st.st_size - done);
  close(fd);
  *size = done;
  if (done == (size_t)st.st_size) return text;
  return diag_error(d, &loc, ERR_IO, "cannot read"), NULL;
}
