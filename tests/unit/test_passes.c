/* Golden tests of passes: tests/passes/PASS/NAME.ir, a graph or a program, is run through PASS (or the list in a line
 * `// passes: a,b`, ` on TARGET` behind it) and printed; the text, or the error, must equal
 * NAME.out, which has at most 60 lines. A line `// shows: WORD, WORD` prints the lines and blocks
 * with one of the words, and of the others how many they are. `test_passes --bless` writes the .out
 * files; a further argument selects names that contain it. Every result is also parsed and printed
 * again. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include "passes/pass.h"

typedef struct Suite {
  Arena *arena;
  const char *only;
  bool bless;
  int run, failed;
} Suite;

static char *read_all(Arena *a, const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  fseek(f, 0, SEEK_END);
  const long n = ftell(f);
  rewind(f);
  char *s = arena_alloc(a, (size_t)n + 1);
  const size_t got = fread(s, 1, (size_t)n, f);
  fclose(f);
  return got == (size_t)n ? s : NULL;
}

static const char *diag_text(Arena *a, const Diag *d) {
  char *s = NULL;
  size_t n = 0;
  FILE *f = open_memstream(&s, &n);
  diag_print(d, f);
  fclose(f);
  const char *copy = arena_strndup(a, s, n);
  free(s);
  return copy;
}

/* What stands behind `// NAME: ` in one of the comments that the text begins with; else NULL. */
static const char *setting(Arena *a, const char *text, const char *name) {
  const char *head = arena_printf(a, "// %s: ", name);
  for (; strncmp(text, "//", 2) == 0; text = strchr(text, '\n') + 1) {
    if (strncmp(text, head, strlen(head)) == 0) {
      text += strlen(head);
      return arena_strndup(a, text, strcspn(text, "\n"));
    }
    if (!strchr(text, '\n')) break;
  }
  return NULL;
}

static const Target *golden_target(const char *passes) {
  static const char on[] = " on ";
  const char *const name = passes ? strstr(passes, on) : NULL;
  return target_find(name ? name + sizeof on - 1 : "x86-64-v3");
}

/* The text of a program (loop IR) begins with the word `module`. */
static bool is_program(const char *text) {
  while (strncmp(text, "//", 2) == 0) text += strcspn(text, "\n") + 1;
  return strncmp(text, "module", 6) == 0;
}

static bool load(Arena *a, Diag *d, const char *text, const char *name, PassCtx *c) {
  if (is_program(text)) {
    c->model = model_new(a, d);
    c->module = module_parse(c->model, text, name);
    return c->module && module_verify(c->module, "parse");
  }
  c->model = model_parse(a, d, text, name);
  return c->model && model_verify(c->model, "parse");
}

/* ---- what a golden shows ---- */
typedef struct Lines {
  const char **text;
  int n;
} Lines;

static Lines split(Arena *a, const char *text, char at) {
  Vec(const char *) v = {0};
  while (*text) {
    const char *end = strchr(text, at);
    const size_t n = end ? (size_t)(end - text) : strlen(text);
    vec_push(a, &v, arena_strndup(a, text, n));
    text += n + (end != NULL);
    while (at == ',' && *text == ' ') text++;
  }
  return (Lines){v.data, v.n};
}

static bool has_word(const char *line, const Lines *words) {
  for (int i = 0; i < words->n; i++)
    if (strstr(line, words->text[i])) return true;
  return false;
}

static int indent(const char *line) { return (int)strspn(line, " "); }

/* The end of the block that line i opens: the next line that is not deeper; i if it opens none. */
static int block_end(const Lines *l, int i) {
  const size_t n = strlen(l->text[i]);
  if (!n || l->text[i][n - 1] != '{') return i;
  int k = i + 1;
  while (k < l->n && indent(l->text[k]) > indent(l->text[i])) k++;
  return k < l->n ? k : i;
}

/* Marks lines first..last: with a word, in a block whose head has one, or around such a line. */
static bool mark(const Lines *l, const Lines *words, int first, int last, bool *shown) {
  bool any = false;
  for (int i = first; i <= last;) {
    const int end = block_end(l, i);
    const bool whole = i > 0 && has_word(l->text[i], words);
    if (whole)
      for (int k = i; k <= end; k++) shown[k] = true;
    else if (end > i && mark(l, words, i + 1, end - 1, shown))
      shown[i] = shown[end] = true;
    any |= shown[i];
    i = end + (end == i || indent(l->text[end]) == indent(l->text[i]));
  }
  return any;
}

static const char *selection(Arena *a, const char *text, const char *shows) {
  const Lines l = split(a, text, '\n'), words = split(a, shows, ',');
  bool *shown = ARENA_ARRAY(a, bool, l.n);
  mark(&l, &words, 0, l.n - 1, shown);
  StrBuf b = {.arena = a};
  for (int i = 0, left = 0; i < l.n; i++) {
    left = shown[i] ? 0 : left + 1;
    if (shown[i])
      sb_printf(&b, "%s\n", l.text[i]);
    else if (i + 1 == l.n || shown[i + 1])
      sb_printf(&b, "%*s… %d line%s\n", indent(l.text[i]), "", left, left == 1 ? "" : "s");
  }
  return sb_str(&b);
}

static const char *run_text(Arena *a, const char *text, const char *dir, const char *name) {
  Diag *d = diag_new(a);
  const char *passes = setting(a, text, "passes"), *shows = setting(a, text, "shows");
  PassCtx c = {.target = golden_target(passes), .opt_level = 3, .max_threads = 1};
  const PassOptions o = {.passes = passes ? arena_strndup(a, passes, strcspn(passes, " ")) : dir};
  if (!load(a, d, text, name, &c) || !passes_run(&c, &o)) return diag_text(a, d);
  StrBuf b = {.arena = a};
  if (c.module)
    module_print(c.module, &b);
  else
    model_print(c.model, &b, true);
  return shows ? selection(a, sb_str(&b), shows) : sb_str(&b);
}

static bool write_all(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  if (!f) return false;
  fputs(text, f);
  return fclose(f) == 0;
}

enum { MOST_LINES = 60 };

static bool too_long(const char *text) {
  int n = 0;
  for (; (text = strchr(text, '\n')); text++) n++;
  return n > MOST_LINES;
}

static void run_case(Suite *s, const char *dir, const char *file) {
  const char *base = arena_printf(s->arena, "%s/tests/passes/%s", BURIN_SOURCE_DIR, dir);
  const char *in = arena_printf(s->arena, "%s/%s", base, file);
  const char *out = arena_printf(s->arena, "%s/%.*s.out", base, (int)(strlen(file) - 3), file);
  if (s->only && !strstr(in + strlen(BURIN_SOURCE_DIR), s->only)) return;
  const char *text = read_all(s->arena, in), *want = read_all(s->arena, out);
  const char *got = text ? run_text(s->arena, text, dir, file) : "unreadable";
  s->run++;
  if (too_long(got)) {
    s->failed++;
    printf("FAILED %s/%s: more than %d lines: take a smaller input, or choose with // shows:\n%s",
           dir, file, MOST_LINES, got);
    return;
  }
  if (s->bless && write_all(out, got)) return;
  if (want && strcmp(want, got) == 0) return;
  s->failed++;
  printf("FAILED %s/%s\n--- expected\n%s--- got\n%s", dir, file, want ? want : "(no .out file)\n",
         got);
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted names in a folder that end in `suffix`. */
static int list_dir(Arena *a, const char *path, const char *suffix, const char ***names) {
  Vec(const char *) v = {0};
  DIR *d = opendir(path);
  for (const struct dirent *e; d && (e = readdir(d));) {
    const size_t n = strlen(e->d_name), k = strlen(suffix);
    if (*e->d_name != '.' && n > k && strcmp(e->d_name + n - k, suffix) == 0)
      vec_push(a, &v, arena_strdup(a, e->d_name));
  }
  if (d) closedir(d);
  if (v.n) qsort(v.data, (size_t)v.n, sizeof *v.data, by_name);
  *names = v.data;
  return v.n;
}

int main(int argc, char **argv) {
  Suite s = {.arena = arena_new(0, NULL, NULL)};
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--bless") == 0)
      s.bless = true;
    else
      s.only = argv[i];
  const char *root = BURIN_SOURCE_DIR "/tests/passes", **dirs, **files;
  const int n_dirs = list_dir(s.arena, root, "", &dirs);
  for (int i = 0; i < n_dirs; i++) {
    const int n = list_dir(s.arena, arena_printf(s.arena, "%s/%s", root, dirs[i]), ".ir", &files);
    for (int k = 0; k < n; k++) run_case(&s, dirs[i], files[k]);
  }
  printf("%d pass tests, %d failed\n", s.run, s.failed);
  arena_free(s.arena);
  return s.failed != 0;
}
