/* What an internal error leaves behind: a folder with the IR after every pass that ran, and the
 * command. Costs nothing until one happens: the model is compiled again to get the texts. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "driver/driver.h"

typedef struct Replay {
  const char *file;
  const char *folder;
} Replay;

static int replay(Session *s, void *user) {
  const Replay *r = user;
  s->ir_dir = r->folder;
  s->show_progress = false;
  if (session_target(s) && session_load(s, r->file)) session_passes(s, 0);
  s->diag = diag_new(s->arena); /* said already */
  return EXIT_OK;
}

/* Beside the output, where that is a file with a name. */
static const char *folder_of(const Session *s) {
  struct stat st;
  const char *out = s->o->output;
  const bool named = out && strcmp(out, "-") != 0 && strncmp(out, "/proc/", 6) != 0 &&
                     (stat(out, &st) != 0 || S_ISREG(st.st_mode));
  return arena_printf(s->arena, "%s.reproducer", named ? out : "burin");
}

static bool write_command(const Session *s, const char *folder) {
  FILE *f = fopen(arena_printf(s->arena, "%s/command.txt", folder), "w");
  if (!f) return false;
  for (int k = 0; k < s->o->argc; k++) fprintf(f, "%s%s", k ? " " : "", s->o->argv[k]);
  fprintf(f, "\n# The highest numbered file here is the IR before the failure.\n");
  if (s->pass) fprintf(f, "# burin THAT_FILE --passes=%s --emit=graph\n", s->pass);
  return fclose(f) == 0;
}

void session_reproduce(Session *s) {
  if (!s->file || diag_exit_status(s->diag) != EXIT_INTERNAL) return;
  const Replay r = {.file = s->file, .folder = folder_of(s)};
  if (mkdir(r.folder, 0777) != 0 && errno != EEXIST) return;
  session_run(s->o, replay, (void *)&r);
  if (write_command(s, r.folder))
    diag_note(s->diag, "this is a bug of burin; %s/ has the IR before %s%s and the command",
              r.folder, s->pass ? "pass " : "code was made of it", s->pass ? s->pass : "");
}
