#include "passes/manage/dump.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static bool fail(const Dump *d, const PassCtx *c, const char *what, const char *path) {
  const Loc none = {.file = d->dir, .node = -1};
  return diag_error(c->model->diag, &none, ERR_OUTPUT, "%s %s: %s", what, path, strerror(errno));
}

static void write_part(FILE *f, const TextPlace *p, int64_t *at) {
  for (; *at < p->offset; ++*at) putc(0, f);
  fwrite(p->data, 1, (size_t)p->bytes, f);
  *at += p->bytes;
}

static bool write_weights(const Dump *d, const PassCtx *c, const TextFile *w) {
  int64_t at = 0;
  const char *path = arena_printf(c->model->arena, "%s/%s", d->dir, w->name);
  FILE *f = fopen(path, "wb");
  if (!f) return fail(d, c, "cannot write", path);
  for (int i = 0; i < w->parts.n; i++) write_part(f, &w->parts.data[i], &at);
  const bool ok = !ferror(f);
  return (fclose(f) == 0 && ok) || fail(d, c, "cannot write", path);
}

static void print_ir(Dump *d, const PassCtx *c, const char *weights, StrBuf *b) {
  if (c->module && d->with_data)
    program_print_beside(c->module, b, &d->store, weights);
  else if (c->module)
    program_print(c->module, b, false);
  else if (d->with_data)
    model_print_beside(c->model, b, &d->store, weights);
  else
    model_print(c->model, b, false);
}

bool dump_write(Dump *d, const PassCtx *c, int k, const PassRow *row) {
  Arena *const keep = c->model->arena;
  const char *name = arena_printf(keep, "%03d_%s", k, row ? row->name : "input");
  const char *path = arena_printf(keep, "%s/%s.%s", d->dir, name, c->module ? "loop" : "ir");
  if (mkdir(d->dir, 0777) != 0 && errno != EEXIST)
    return fail(d, c, "cannot make directory", d->dir);
  Arena *a = arena_child(keep);
  StrBuf b = {.arena = a};
  const int stored = d->store.files.n;
  if (row) sb_printf(&b, "// after %s%s\n", row->name, c->changed ? "" : " (unchanged)");
  print_ir(d, c, arena_printf(keep, "%s.weights", name), &b);
  FILE *f = fopen(path, "w");
  if (!f) return fail(d, c, "cannot write", path);
  fputs(sb_str(&b), f);
  arena_free(a);
  const bool ok = !ferror(f);
  if (fclose(f) != 0 || !ok) return fail(d, c, "cannot write", path);
  return d->store.files.n == stored || write_weights(d, c, &d->store.files.data[stored]);
}
