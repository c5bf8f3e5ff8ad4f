/* Files and temporary folders of code generation. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codegen/program.h"

bool file_write(const char *path, const void *data, size_t size) {
  FILE *f = fopen(path, "wbe");
  if (!f) return false;
  bool ok = size == 0 || fwrite(data, size, 1, f) == 1;
  ok = fclose(f) == 0 && ok;
  return ok;
}

void folder_remove(const char *dir) {
  DIR *d = opendir(dir);
  if (!d) return;
  for (const struct dirent *e; (e = readdir(d)) != NULL;)
    if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
  closedir(d);
  rmdir(dir);
}
