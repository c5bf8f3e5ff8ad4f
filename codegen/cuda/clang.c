/* Text of CUDA kernels → an object for this CPU, by clang in a process of its own (target
 * cuda:host, which tests use). */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/cuda/cuda.h"
#include "codegen/files/outputs.h"
#include "codegen/files/spawn.h"

/* As spawn_tool. */
static int run_clang(int in, int out) {
  static const char *const names[] = {"clang-19", "clang"};
  const char *argv[] = {NULL,
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
  return spawn_tool(names, sizeof names / sizeof *names, (char **)argv, in, out, -1);
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

const char *clang_compile(const char *text, size_t bytes, const char *beside, char **object,
                          size_t *object_bytes) {
  const int in = scratch_open(beside), out = scratch_open(beside);
  const char *error = NULL;
  if (in < 0 || out < 0 || !fd_write(in, text, bytes) || lseek(in, 0, SEEK_SET) != 0)
    error = "cannot write a scratch file";
  const int status = error ? 0 : run_clang(in, out);
  if (status < 0 || status == 127)
    error = "target cuda:host needs clang, which is not installed";
  else if (status != 0)
    error = "clang refused the text of CUDA kernels";
  if (!error && !read_all(out, object, object_bytes)) error = "clang wrote no object";
  if (in >= 0) close(in);
  if (out >= 0) close(out);
  return error;
}
