/* A program that hands its input on is compiled once; it reads a picture as `burin run` has it read,
 * with the same options, and writes the tensor. */
#include "driver/quant/pictures.h"
#include <string.h>
#include <unistd.h>

static bool picture_error(const Pictures *p, const char *path, const char *what) {
  const Loc loc = {.file = path, .node = -1};
  return diag_error(p->s->diag, &loc, ERR_DATA, "%s", what);
}

static bool make_program(Pictures *p) {
  Arena *a = p->s->arena;
  StrBuf shape = {.arena = a};
  const char *text, *file;
  int fd;
  for (int d = 0; d < p->input->rank; d++) {
    const int64_t size = p->input->dims[d];
    /* the sample is one picture; other open sizes would need the picture's */
    if (size < 0 && d > 0)
      return picture_error(p, p->input->name, "images need an input of fixed size: --shape, --dim");
    sb_printf(&shape, "%s%lld", d ? "," : "", (long long)(size < 0 ? 1 : size));
  }
  text = arena_printf(
      a,
      "graph @main {\n  %%0 : %s[%s] = input \"x\"\n"
      "  %%1 : %s[%s] = Identity %%0 @\"\"(0 \"Identity\" 17)\n  output %%1 \"y\"\n}\n",
      dtype_text(p->input->dtype), sb_str(&shape), dtype_text(p->input->dtype), sb_str(&shape));
  if (!program_memory(a, &fd, &file) || !fd_write(fd, text, (size_t)strlen(text)) ||
      !program_memory(a, &p->fd, &p->program))
    return picture_error(p, p->input->name, "no memory for a program");
  static char *no_argv[1];
  static const char *no_list[1];
  const List none = {no_list, 0};
  const Options o = {.verb = "compile", .argv = no_argv, .files = none, .quiet = true};
  const int status = p->compile(&o, file, "1", p->program);
  close(fd);
  return status == EXIT_OK || picture_error(p, p->input->name, "takes no images");
}

bool picture_read(void *user, const char *path, const char *options, Tensor *out) {
  Pictures *p = user;
  const char *result;
  int fd;
  if (!p->program && !make_program(p)) return false;
  const char *argument = image_argument(p->s, arena_printf(p->s->arena, "x=@%s%s", path, options));
  if (!argument || !program_memory(p->s->arena, &fd, &result)) return false;
  const char *const argv[] = {
      p->program, "--input", argument, "--output", arena_printf(p->s->arena, "y=@%s,pb", result),
      "--quiet",  NULL};
  const int status = child_run(argv, NULL, NULL);
  const bool ok = status == EXIT_OK ? pb_read(p->s, result, out)
                                    : picture_error(p, path, "cannot be read as an image");
  close(fd);
  return ok;
}
