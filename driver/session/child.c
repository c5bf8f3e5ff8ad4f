/* Running programs that we made, in memory; posix_spawn, no shell. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "driver/driver.h"

extern char **environ;

bool program_memory(Arena *a, int *fd, const char **path) {
  enum { EXEC = 0x10 };              /* MFD_EXEC, of newer kernels */
  *fd = memfd_create("model", EXEC); /* children inherit it: an emulator opens the path */
  if (*fd < 0 && errno == EINVAL) *fd = memfd_create("model", 0);
  if (*fd < 0) return usage_error("no memory for a file: %s", strerror(errno)), false;
  *path = arena_printf(a, "/proc/self/fd/%d", *fd);
  return true;
}

int child_run(const char *const *argv, const char *name, const char *stdout_path) {
  const char *const file = argv[0];
  posix_spawn_file_actions_t actions;
  pid_t pid;
  int status;
  fflush(stdout);
  posix_spawn_file_actions_init(&actions);
  if (stdout_path)
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, stdout_path,
                                     O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (name) ((const char **)argv)[0] = name;
  const int err = posix_spawnp(&pid, file, &actions, NULL, (char *const *)argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (err) {
    usage_error("cannot start %s: %s", name ? name : file, strerror(err));
    return -1;
  }
  signals_watch_child(pid);
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  signals_watch_child(0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool is_program(const char *path) {
  char magic[4] = {0};
  struct stat st;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  const bool elf = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && read(fd, magic, 4) == 4 &&
                   memcmp(magic,
                          "\x7f"
                          "ELF",
                          4) == 0;
  close(fd);
  return elf;
}

int program_arguments(const Options *o) {
  return 2 * (o->dims.n + o->inputs.n + o->outputs.n + o->expects.n) + 32;
}

int program_command(const Options *o, const char *program, const char **argv, int n) {
  const Target *t = o->target ? target_find(o->target) : NULL;
  if (t && t->qemu && !target_is_host_arch(t)) {
    argv[n++] = t->qemu;
    if (t->qemu_cpu) {
      argv[n++] = "-cpu";
      argv[n++] = t->qemu_cpu;
    }
  }
  argv[n++] = program;
  return n;
}
