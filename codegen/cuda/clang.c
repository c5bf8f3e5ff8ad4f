/* Text of CUDA kernels → an object for this CPU, by clang in a process of its own (target
 * cuda:host, which tests use). */
#define _GNU_SOURCE /* mkostemp */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "codegen/cuda/cuda.h"

extern char **environ;

static int scratch_file(void) {
  char path[] = "/tmp/burin-cuda-XXXXXX";
  const int fd = mkostemp(path, O_CLOEXEC);
  if (fd >= 0) unlink(path);
  return fd;
}

static bool write_all(int fd, const char *s, size_t n) {
  while (n) {
    const ssize_t k = write(fd, s, n);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) return false;
    s += k;
    n -= (size_t)k;
  }
  return lseek(fd, 0, SEEK_SET) == 0;
}

/* Exit status; -1: it could not be started. */
static int run_clang(const char *name, int in, int out) {
  const char *const args[] = {name,
                              "-x",
                              "c++",
                              "-std=gnu++17",
                              "-O1",
                              "-mavx2",
                              "-mfma",
                              "-mf16c",
                              "-ffp-contract=off",
                              "-fno-math-errno",
                              "-ffreestanding",
                              "-fno-builtin",
                              "-fno-exceptions",
                              "-fno-rtti",
                              "-fno-stack-protector",
                              "-fno-asynchronous-unwind-tables",
                              "-fPIC",
                              "-fvisibility=hidden",
                              "-w",
                              "-DBURIN_STAND_IN",
                              "-c",
                              "-o",
                              "-",
                              "-",
                              NULL};
  posix_spawn_file_actions_t files;
  pid_t child;
  int status;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, in, 0);
  posix_spawn_file_actions_adddup2(&files, out, 1);
  const int failed = posix_spawnp(&child, name, &files, NULL, (char *const *)args, environ);
  posix_spawn_file_actions_destroy(&files);
  if (failed) return -1;
  while (waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return -1;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static bool read_all(int fd, char **data, size_t *bytes) {
  struct stat st;
  if (fstat(fd, &st) != 0 || st.st_size == 0) return false;
  *bytes = (size_t)st.st_size;
  if (!(*data = malloc(*bytes))) return false;
  if (pread(fd, *data, *bytes, 0) == (ssize_t)*bytes) return true;
  free(*data);
  *data = NULL;
  return false;
}

const char *clang_compile(const char *text, size_t bytes, char **object, size_t *object_bytes) {
  static const char *const names[] = {"clang-19", "clang"};
  const int in = scratch_file(), out = scratch_file();
  const char *error = NULL;
  int status = -1;
  if (in < 0 || out < 0 || !write_all(in, text, bytes)) error = "no room for files in /tmp";
  for (size_t i = 0; !error && status < 0 && i < sizeof names / sizeof *names; i++) {
    lseek(in, 0, SEEK_SET);
    status = run_clang(names[i], in, out);
  }
  if (!error && status < 0) error = "target cuda:host needs clang, which is not installed";
  if (!error && status > 0) error = "clang refused the text of CUDA kernels";
  if (!error && !read_all(out, object, object_bytes)) error = "clang wrote no object";
  if (in >= 0) close(in);
  if (out >= 0) close(out);
  return error;
}
