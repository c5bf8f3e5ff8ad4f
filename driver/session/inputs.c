/* --input NAME=@FILE whose file a program does not read: made into others in memory. A JPEG becomes
 * a PNG; an .npz a sequence, NAME/0, NAME/1 … */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver/io/dataset.h"

/* ---- the order of items ---- */
/* Where the number begins that the name ends with. */
static size_t number_at(const char *name) {
  size_t n = strlen(name);
  while (n > 0 && name[n - 1] >= '0' && name[n - 1] <= '9') n--;
  return n;
}

static unsigned long long number_of(const char *name) {
  return strtoull(name + number_at(name), NULL, 10);
}

/* arr_0, arr_1 … (numpy.savez): one beginning, and a number. */
static bool are_numbered(const NamedTensors *t) {
  for (int k = 0; k < t->n; k++) {
    const char *const name = t->data[k].name, *const first = t->data[0].name;
    const size_t n = number_at(name);
    if (!name[n] || strlen(name + n) > 18 || n != number_at(first) || strncmp(name, first, n) != 0)
      return false;
  }
  return true;
}

static int by_number(const void *a, const void *b) {
  const unsigned long long x = number_of(((const NamedTensor *)a)->name),
                           y = number_of(((const NamedTensor *)b)->name);
  return (x > y) - (x < y);
}

/* ---- items ---- */
/* The descriptor's path; NULL: reported. It stays open for the program. */
static const char *npy_memory(Session *s, const Tensor *t) {
  const char *path;
  int fd;
  if (!program_memory(s->arena, &fd, &path)) return NULL;
  const int copy = dup(fd);
  FILE *const f = copy >= 0 ? fdopen(copy, "wb") : NULL;
  if (!f && copy >= 0) close(copy);
  const bool written = f && npy_write(f, t);
  if (f && fclose(f) == 0 && written) return path;
  return usage_error("no memory for a file: %s", strerror(errno)), NULL;
}

static void push(Session *s, List *out, const char *arg) {
  const char **const v = ARENA_ARRAY(s->arena, const char *, out->n + 1);
  if (out->n) memcpy(v, out->v, sizeof *v * (size_t)out->n);
  v[out->n] = arg;
  *out = (List){v, out->n + 1};
}

static bool put_sequence(Session *s, const char *arg, const char *path, List *out) {
  const int name = (int)(path - 2 - arg);
  NamedTensors items = {0};
  if (!npz_read(s, path, &items)) return false;
  if (!items.n) push(s, out, arena_printf(s->arena, "%.*s=[]", name, arg));
  if (items.n && are_numbered(&items))
    qsort(items.data, (size_t)items.n, sizeof *items.data, by_number);
  for (int k = 0; k < items.n; k++) {
    const char *const memory = npy_memory(s, &items.data[k].t);
    if (!memory) return false;
    push(s, out, arena_printf(s->arena, "%.*s/%d=@%s", name, arg, k, memory));
  }
  return true;
}

bool input_arguments(Session *s, bool pictures, List *out) {
  *out = (List){0};
  for (int k = 0; k < s->o->inputs.n; k++) {
    const char *arg = s->o->inputs.v[k], *const at = strstr(arg, "=@");
    if (at && ends_with(at, ".npz")) {
      if (!put_sequence(s, arg, at + 2, out)) return false;
    } else {
      if (pictures && !(arg = image_argument(s, arg))) return false;
      push(s, out, arg);
    }
  }
  return true;
}
