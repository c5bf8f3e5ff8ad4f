/* See outfile.h. Contents go into a file without a name (O_TMPFILE) in the folder of the target,
 * which linkat and rename publish; where the file system has no such files, into one with a random
 * name, O_EXCL, with the signals that end programs held back or its owner removing it. Streams are
 * collected in memory, so that they too get nothing of a command that fails. */
#include "runtime/core/outfile.h"

#include "runtime/core/sys.h"

enum { TYPE = 0170000, REGULAR = 0100000, FOLDER = 0040000, LINK = 0120000 };
enum { NO_FOLLOW = 0x100, FOLLOW = 0x400, EMPTY_PATH = 0x1000 };
enum { BASIC_STATS = 0x7ff, EXCHANGE = 2, MOST_LINKS = 40 };

/* struct statx of the kernel: the same on all architectures. */
typedef struct Stat {
  uint32_t mask, block;
  uint64_t attributes;
  uint32_t links, uid, gid;
  uint16_t mode, pad;
  uint64_t inode, size, blocks, more_attributes;
  uint64_t times[8];
  uint32_t rdev_major, rdev_minor, major, minor;
  uint64_t spare[14];
} Stat;

static long stat_path(const char *path, int flags, Stat *s) {
  return sys_call(NR_statx, SYS_AT_FDCWD, (long)path, flags, BASIC_STATS, (long)s, 0);
}
static long stat_fd(int fd, Stat *s) {
  return sys_call(NR_statx, fd, (long)"", EMPTY_PATH, BASIC_STATS, (long)s, 0);
}
static FileId id_of(const Stat *s) { return (FileId){s->inode, s->major, s->minor}; }
static bool same_id(const FileId *a, const FileId *b) {
  return a->inode == b->inode && a->major == b->major && a->minor == b->minor;
}

static size_t length(const char *s) {
  size_t n = 0;
  while (s[n]) n++;
  return n;
}

/* Bytes of the folder's part of a path, with its slash. */
static size_t folder_length(const char *path) {
  size_t n = length(path);
  while (n > 0 && path[n - 1] != '/') n--;
  return n;
}

static bool set_path(char *out, const char *a, size_t n, const char *b) {
  const size_t m = length(b);
  if (n + m >= OUTFILE_PATH) return false;
  for (size_t i = 0; i < n; i++) out[i] = a[i];
  for (size_t i = 0; i <= m; i++) out[n + i] = b[i];
  return true;
}

/* "/proc/self/fd/" and the number. */
static void descriptor_path(char out[32], int fd) {
  static const char prefix[] = "/proc/self/fd/";
  char digits[12];
  int n = 0, at = sizeof prefix - 1;
  for (int i = 0; i < at; i++) out[i] = prefix[i];
  do digits[n++] = (char)('0' + fd % 10);
  while (fd /= 10);
  while (n > 0) out[at++] = digits[--n];
  out[at] = 0;
}

/* ---- what is there ---- */
/* The kernel's rule (protected_symlinks): in folders that all may write to, only one's own links
 * count. */
static bool link_is_foreign(const char *path, const Stat *link) {
  char folder[OUTFILE_PATH];
  Stat s;
  const size_t n = folder_length(path);
  set_path(folder, path, n, n ? "" : ".");
  if (stat_path(folder, 0, &s) < 0 || (s.mode & 01002) != 01002) return false;
  return link->uid != s.uid && link->uid != (uint32_t)sys_call(NR_geteuid, 0, 0, 0, 0, 0, 0);
}

static long follow_link(char *path) {
  char target[OUTFILE_PATH], whole[OUTFILE_PATH];
  const long n =
      sys_call(NR_readlinkat, SYS_AT_FDCWD, (long)path, (long)target, OUTFILE_PATH, 0, 0);
  if (n < 0 || n == OUTFILE_PATH) return n < 0 ? n : -SYS_ENAMETOOLONG;
  target[n] = 0;
  if (!set_path(whole, path, target[0] == '/' ? 0 : folder_length(path), target))
    return -SYS_ENAMETOOLONG;
  set_path(path, whole, 0, whole);
  return 0;
}

/* Follows links to f->path; *s is what is there, mode 0: nothing. Links of /proc lead to open files
 * that may have no other name: they are streams. */
static long resolve(OutFile *f, Stat *s) {
  Stat proc;
  const bool has_proc = stat_path("/proc/self", NO_FOLLOW, &proc) == 0;
  for (int links = 0; links < MOST_LINKS; links++) {
    long e = stat_path(f->path, NO_FOLLOW, s);
    if (e == -SYS_ENOENT) s->mode = 0;
    if (e < 0) return e == -SYS_ENOENT ? 0 : e;
    if ((s->mode & TYPE) != LINK) return 0;
    if (has_proc && s->major == proc.major && s->minor == proc.minor) {
      f->kind = OUTFILE_STREAM;
      return stat_path(f->path, 0, s);
    }
    if (link_is_foreign(f->path, s)) return -SYS_EACCES;
    if ((e = follow_link(f->path)) < 0) return e;
  }
  return -SYS_ELOOP;
}

long outfile_identify(const char *path, FileId *id) {
  Stat s;
  const long e = stat_path(path, 0, &s);
  if (e < 0) return e;
  *id = id_of(&s);
  return (s.mode & TYPE) == REGULAR ? 0 : (s.mode & TYPE) == FOLDER ? -SYS_EISDIR : -SYS_EINVAL;
}

static bool same_path(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

bool outfile_same(const OutFile *a, const OutFile *b) {
  if (a->kind == OUTFILE_STREAM || b->kind == OUTFILE_STREAM) return false;
  if (a->kind == OUTFILE_OLD && b->kind == OUTFILE_OLD) return same_id(&a->id, &b->id);
  FileId x, y; /* of the folders */
  char fa[OUTFILE_PATH], fb[OUTFILE_PATH];
  const size_t n = folder_length(a->path), m = folder_length(b->path);
  if (!same_path(a->path + n, b->path + m)) return false;
  set_path(fa, a->path, n, n ? "" : ".");
  set_path(fb, b->path, m, m ? "" : ".");
  outfile_identify(fa, &x);
  outfile_identify(fb, &y);
  return same_id(&x, &y);
}

/* ---- making ---- */
static void temporary_name(OutFile *f) {
  static const char hex[] = "0123456789abcdef";
  uint64_t r = 0;
  if (sys_call(NR_getrandom, (long)&r, sizeof r, 0, 0, 0, 0) != sizeof r)
    r = sys_clock_ns() * 0x9e3779b97f4a7c15u; /* kernels before 3.17; O_EXCL still guards */
  char name[24] = ".burin-";
  for (int i = 0; i < 16; i++, r >>= 4) name[7 + i] = hex[r & 15];
  name[23] = 0;
  set_path(f->temporary, f->path, folder_length(f->path), name);
}

/* INT, TERM, HUP, PIPE, QUIT, XCPU held back while a name exists that only we know. */
uint64_t outfile_hold_signals(void) {
  const uint64_t set = 1u << 0 | 1u << 1 | 1u << 2 | 1u << 12 | 1u << 14 | 1u << 23;
  uint64_t old = 0;
  sys_call(NR_rt_sigprocmask, 0 /* block */, (long)&set, (long)&old, 8, 0, 0);
  return old;
}
void outfile_restore_signals(uint64_t old) {
  sys_call(NR_rt_sigprocmask, 2 /* set */, (long)&old, 0, 8, 0, 0);
}

static long open_temporary(OutFile *f, int mode) {
  char folder[OUTFILE_PATH];
  const size_t n = folder_length(f->path);
  set_path(folder, f->path, n, n ? "" : ".");
  Stat proc; /* which linkat needs */
  const long fd = stat_path("/proc/self/fd", 0, &proc) < 0
                      ? -SYS_EOPNOTSUPP
                      : sys_open(folder, SYS_O_RDWR | SYS_O_TMPFILE, mode);
  if (fd != -SYS_EOPNOTSUPP && fd != -SYS_EISDIR && fd != -SYS_EINVAL) return fd;
  if (folder_length(f->path) + 24 >= OUTFILE_PATH) return -SYS_ENAMETOOLONG;
  for (int tries = 0; tries < 100; tries++) {
    temporary_name(f);
    f->named = true;
    const long named =
        sys_open(f->temporary, SYS_O_RDWR | SYS_O_CREAT | SYS_O_EXCL | SYS_O_NOFOLLOW, mode);
    if (named >= 0) return named;
    f->named = false;
    if (named != -SYS_EEXIST) return named;
  }
  return -SYS_EEXIST;
}

/* The new file gets owner and mode of the old one; programs stay programs. */
static void keep_mode(const OutFile *f, const Stat *old, bool executable) {
  int mode = old->mode & 0777;
  Stat now;
  if (stat_fd(f->fd, &now) < 0) return;
  if (executable) mode |= (mode & 0444) >> 2 & now.mode;
  if (old->uid != now.uid || old->gid != now.gid)
    sys_call(NR_fchown, f->fd, (long)old->uid, (long)old->gid, 0, 0, 0);
  sys_call(NR_fchmod, f->fd, mode, 0, 0, 0, 0);
}

static bool is_input(const FileId *id, const FileId *inputs, int n) {
  for (int i = 0; i < n; i++)
    if (same_id(id, &inputs[i])) return true;
  return false;
}

static long open_stream(OutFile *f, const Stat *s) {
  f->kind = OUTFILE_STREAM;
  for (int fd = 1; f->through < 0 && fd <= 2; fd++) { /* /dev/stdout goes on where we are */
    Stat ours;
    const FileId there = id_of(s);
    if (stat_fd(fd, &ours) < 0) continue;
    const FileId here = id_of(&ours);
    if (same_id(&here, &there)) f->through = fd;
  }
  f->fd = (int)sys_call(NR_memfd_create, (long)"output", 1 /* CLOEXEC */, 0, 0, 0, 0);
  return f->fd < 0 ? f->fd : 0;
}

long outfile_open(OutFile *f, const char *path, bool executable, const FileId *inputs, int n) {
  Stat s = {0};
  f->kind = OUTFILE_CLOSED;
  f->fd = f->through = -1;
  f->named = f->swapped = false;
  f->temporary[0] = 0;
  if (!path[0]) return -SYS_ENOENT;
  if (!set_path(f->path, path, 0, path)) return -SYS_ENAMETOOLONG;
  if (path[0] == '-' && !path[1]) return f->through = 1, open_stream(f, &s);
  const long e = resolve(f, &s);
  if (e < 0) return e;
  f->id = id_of(&s);
  if (s.mode && is_input(&f->id, inputs, n)) return -OUTFILE_E_INPUT;
  if (f->kind == OUTFILE_STREAM || (s.mode && (s.mode & TYPE) != REGULAR)) {
    if ((s.mode & TYPE) == FOLDER) return f->kind = OUTFILE_CLOSED, -SYS_EISDIR;
    return open_stream(f, &s);
  }
  if (f->path[length(f->path) - 1] == '/') return -SYS_EISDIR;
  if (s.mode) { /* what may not be written is not replaced either */
    const long denied = sys_call(NR_faccessat, SYS_AT_FDCWD, (long)f->path, 2, 0, 0, 0);
    if (denied < 0) return denied;
  }
  const long fd = open_temporary(f, executable ? 0777 : 0666);
  if (fd < 0) return fd;
  f->fd = (int)fd;
  f->kind = s.mode ? OUTFILE_OLD : OUTFILE_NEW;
  if (s.mode) keep_mode(f, &s, executable);
  return 0;
}

static long write_fd(int fd, const char *data, size_t bytes) {
  while (bytes) {
    const long n = sys_write(fd, data, bytes < 1u << 30 ? bytes : 1u << 30);
    if (n == -SYS_EINTR) continue;
    if (n == -SYS_EAGAIN) { /* a descriptor that someone made non-blocking */
      uint32_t never = 0;
      long wait[2] = {0, 1000000};
      sys_call(NR_futex, (long)&never, SYS_FUTEX_WAIT, 0, (long)wait, 0, 0);
      continue;
    }
    if (n <= 0) return n < 0 ? n : -SYS_EIO;
    data += n;
    bytes -= (size_t)n;
  }
  return 0;
}

long outfile_write(OutFile *f, const void *data, size_t bytes) {
  return write_fd(f->fd, data, bytes);
}

/* ---- publishing ---- */
static long link_to(const OutFile *f, const char *path) {
  char source[32];
  descriptor_path(source, f->fd);
  const long e =
      sys_call(NR_linkat, SYS_AT_FDCWD, (long)source, SYS_AT_FDCWD, (long)path, FOLLOW, 0);
  if (e != -SYS_ENOENT) return e;
  return sys_call(NR_linkat, f->fd, (long)"", SYS_AT_FDCWD, (long)path, EMPTY_PATH, 0);
}

static long give_name(OutFile *f) {
  long e = -SYS_EEXIST;
  if (folder_length(f->path) + 24 >= OUTFILE_PATH) return -SYS_ENAMETOOLONG;
  for (int tries = 0; e == -SYS_EEXIST && tries < 100; tries++) {
    temporary_name(f);
    f->named = true;
    e = link_to(f, f->temporary);
    if (e < 0) f->named = false;
  }
  return e;
}

static long send_stream(OutFile *f) {
  char block[4096];
  long fd = f->through, e = sys_call(NR_lseek, f->fd, 0, 0, 0, 0, 0);
  if (e < 0) return e;
  if (fd < 0) fd = sys_open(f->path, SYS_O_WRONLY | SYS_O_NOCTTY | SYS_O_TRUNC, 0);
  if (fd < 0) return fd;
  for (;;) {
    const long n = sys_read(f->fd, block, sizeof block);
    if (n == -SYS_EINTR) continue;
    if (n <= 0) {
      e = n;
      break;
    }
    if ((e = write_fd((int)fd, block, (size_t)n)) < 0) break;
  }
  if (f->through < 0) {
    const long closed = sys_close((int)fd);
    if (e >= 0) e = closed;
  }
  return e;
}

/* Errors that some file systems tell when a descriptor is closed: a copy of it, while there is a
 * way back. */
static long settle(const OutFile *f) {
  const long copy = sys_call(NR_dup, f->fd, 0, 0, 0, 0, 0);
  return copy < 0 ? copy : sys_close((int)copy);
}

static long publish(OutFile *f, bool alone) {
  long e;
  if (f->kind == OUTFILE_NEW && !f->named) {
    e = link_to(f, f->path);
    if (e != -SYS_EEXIST) return e;
  }
  if (!f->named && (e = give_name(f)) < 0) return e;
  if (!alone && f->kind == OUTFILE_OLD) {
    e = sys_call(NR_renameat2, SYS_AT_FDCWD, (long)f->temporary, SYS_AT_FDCWD, (long)f->path,
                 EXCHANGE, 0);
    if (e == 0) return f->swapped = true, 0;
  }
  e = sys_rename(f->temporary, f->path);
  if (e == 0) f->named = false;
  return e;
}

static void take_back(OutFile *f) {
  if (f->swapped)
    sys_call(NR_renameat2, SYS_AT_FDCWD, (long)f->temporary, SYS_AT_FDCWD, (long)f->path, EXCHANGE,
             0);
  else if (f->kind == OUTFILE_NEW)
    sys_unlink(f->path);
  f->swapped = false;
}

void outfile_abort(OutFile *f) {
  if (f->kind == OUTFILE_CLOSED) return;
  if (f->named) sys_unlink(f->temporary); /* the new contents, or after an exchange the old */
  f->named = false;
  if (f->fd >= 0) sys_close(f->fd);
  f->fd = -1;
  f->kind = OUTFILE_CLOSED;
}

/* What may take long or fail first: nothing has changed until all streams are sent. */
static long prepare(OutFile *const *files, int n, int *failed) {
  long e = 0;
  for (*failed = 0; *failed < n; ++*failed)
    if (files[*failed]->kind != OUTFILE_STREAM && (e = settle(files[*failed])) < 0) return e;
  for (*failed = 0; *failed < n; ++*failed)
    if (files[*failed]->kind == OUTFILE_STREAM && (e = send_stream(files[*failed])) < 0) return e;
  return 0;
}

static long publish_all(OutFile *const *files, int n, int *failed) {
  long e = 0;
  int done = 0;
  for (; done < n; done++) {
    *failed = done;
    if (files[done]->kind != OUTFILE_STREAM && (e = publish(files[done], n == 1)) < 0) break;
  }
  while (e < 0 && done-- > 0)
    if (files[done]->kind != OUTFILE_STREAM) take_back(files[done]);
  return e < 0 ? e : 0;
}

long outfile_commit(OutFile *const *files, int n, int *failed) {
  long e = prepare(files, n, failed);
  const uint64_t mask = outfile_hold_signals();
  if (e == 0) e = publish_all(files, n, failed);
  for (int i = 0; i < n; i++) outfile_abort(files[i]);
  outfile_restore_signals(mask);
  return e;
}

const char *outfile_reason(long error) {
  static const struct {
    int number;
    const char *text;
  } rows[] = {{OUTFILE_E_INPUT, "it is an input of this command"},
              {SYS_ENOENT, "its folder does not exist"},
              {SYS_EACCES, "permission denied"},
              {SYS_EPERM, "not permitted"},
              {SYS_EISDIR, "is a directory"},
              {SYS_ENOTDIR, "its folder is not a directory"},
              {SYS_ENOSPC, "no space left on the device"},
              {SYS_EDQUOT, "the disk quota is used up"},
              {SYS_EFBIG, "the file would be too large"},
              {SYS_EROFS, "the file system is read-only"},
              {SYS_ENAMETOOLONG, "the name is too long"},
              {SYS_ELOOP, "too many symbolic links"},
              {SYS_EPIPE, "nobody reads it"},
              {SYS_ENXIO, "nobody reads it"},
              {SYS_EBADF, "it is closed"},
              {SYS_EMFILE, "too many open files"},
              {SYS_EINVAL, "not a regular file"},
              {SYS_EIO, "input/output error"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].number == -error) return rows[i].text;
  return 0;
}
