/* Tools that burin starts, by the first of their names that is there. */
#include "codegen/files/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

int spawn_tool(const char *const *names, int n, char **argv, int in, int out, int log) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (in < 0)
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  else
    posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  if (log >= 0) posix_spawn_file_actions_adddup2(&actions, log, 2);
  int status = -1, rc = ENOENT;
  pid_t pid;
  for (int i = 0; rc == ENOENT && i < n; i++) {
    argv[0] = (char *)names[i];
    rc = posix_spawnp(&pid, names[i], &actions, NULL, argv, environ);
  }
  posix_spawn_file_actions_destroy(&actions);
  if (rc != 0) return -rc;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
