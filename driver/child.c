/* Running programs that we made: temporary folders, posix_spawn, no shell. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "driver/driver.h"

extern char **environ;

bool path_temp_dir(Arena *a, char **out) {
  const char *base = getenv("TMPDIR");
  *out = arena_printf(a, "%s/burin-XXXXXX", base && *base ? base : "/tmp");
  if (mkdtemp(*out)) return true;
  usage_error("cannot make a temporary folder %s: %s", *out, strerror(errno));
  return false;
}

/* The folder and the plain files in it. */
void path_remove(const char *dir) {
  DIR *d = opendir(dir);
  if (!d) return;
  for (struct dirent *e; (e = readdir(d));) unlinkat(dirfd(d), e->d_name, 0);
  closedir(d);
  rmdir(dir);
}

int child_run(const char *const *argv, const char *stdout_path) {
  posix_spawn_file_actions_t actions;
  pid_t pid;
  int status;
  fflush(stdout);
  posix_spawn_file_actions_init(&actions);
  if (stdout_path)
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, stdout_path,
                                     O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const int err = posix_spawnp(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (err) {
    usage_error("cannot start %s: %s", argv[0], strerror(err));
    return -1;
  }
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool is_program(const char *path) {
  char magic[4] = {0};
  FILE *f = fopen(path, "rb");
  if (!f) return false;
  const size_t n = fread(magic, 1, 4, f);
  fclose(f);
  return n == 4 && memcmp(magic,
                          "\x7f"
                          "ELF",
                          4) == 0;
}

int program_command(const Options *o, const char *program, const char **argv, int n) {
  const Target *t = o->target && strcmp(o->target, "native") != 0 ? target_find(o->target) : NULL;
  const bool foreign = t && t->qemu && t->arch != (sizeof(void *) == 8 ? ARCH_X86_64 : ARCH_ARM);
  if (foreign) {
    argv[n++] = t->qemu;
    if (t->qemu_cpu) {
      argv[n++] = "-cpu";
      argv[n++] = t->qemu_cpu;
    }
  }
  argv[n++] = program;
  return n;
}
