/* Tuning files: one line `KEY -> CHOICE` for each choice, sorted by key; a note may follow behind
 * `#`. The first line names the format and its version. */
#include <string.h>

#include "passes/choose/choice.h"

enum { VERSION = 1, MAX_LINE = 8000 };
static const char first_line[] = "burin tuning ";
static const char arrow[] = " -> ";

/* ---- entries, sorted ---- */
/* Position of key, or -1 - the position where it belongs. */
static int search(const Tuning *t, const char *key) {
  int lo = 0, hi = t->entries.n;
  while (lo < hi) {
    const int mid = (lo + hi) / 2, order = strcmp(t->entries.data[mid].key, key);
    if (order == 0) return mid;
    if (order < 0)
      lo = mid + 1;
    else
      hi = mid;
  }
  return -1 - lo;
}

const char *tuning_find(const Tuning *t, const char *key) {
  const int at = search(t, key);
  return at >= 0 ? t->entries.data[at].choice : NULL;
}

void tuning_set(Tuning *t, const char *key, const char *choice, const char *note) {
  int at = search(t, key);
  if (at < 0) {
    at = -1 - at;
    vec_push(t->arena, &t->entries, (TuningEntry){.key = arena_strdup(t->arena, key)});
    TuningEntry *e = t->entries.data, added = e[t->entries.n - 1];
    memmove(e + at + 1, e + at, (size_t)(t->entries.n - 1 - at) * sizeof *e);
    e[at] = added;
  }
  t->entries.data[at].choice = arena_strdup(t->arena, choice);
  t->entries.data[at].note = note ? arena_strdup(t->arena, note) : NULL;
}

/* ---- text ---- */
void tuning_print(const Tuning *t, const char *about, StrBuf *b) {
  sb_printf(b, "%s%d\n", first_line, VERSION);
  if (about) sb_printf(b, "# %s\n", about);
  for (int i = 0; i < t->entries.n; i++) {
    const TuningEntry *e = &t->entries.data[i];
    sb_printf(b, "%s%s%s", e->key, arrow, e->choice);
    if (e->note) sb_printf(b, "  # %s", e->note);
    sb_putc(b, '\n');
  }
}

static bool bad_line(Diag *d, const char *file, int line, const char *what) {
  const Loc loc = {.file = file, .node = -1};
  return diag_error(d, &loc, ERR_TUNING, "line %d: %s", line, what);
}

/* Cuts blanks off both ends. */
static char *trim(char *s) {
  while (*s == ' ' || *s == '\t') s++;
  size_t n = strlen(s);
  while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r')) s[--n] = 0;
  return s;
}

static bool one_word(const char *s) { return *s && !strpbrk(s, " \t"); }

static bool parse_line(Tuning *t, Diag *d, char *line, int number, const char *file) {
  char *note = strchr(line, '#');
  if (note) *note++ = 0;
  char *key = trim(line), *choice = strstr(key, arrow);
  if (!*key) return true;
  if (!choice) return bad_line(d, file, number, "expected `KEY -> CHOICE`");
  *choice = 0;
  choice = trim(choice + strlen(arrow));
  key = trim(key);
  if (!*key) return bad_line(d, file, number, "the key before `->` is missing");
  if (!one_word(choice))
    return bad_line(d, file, number, "the choice behind `->` must be one word");
  if (tuning_find(t, key)) return bad_line(d, file, number, "this key was given before");
  note = note ? trim(note) : NULL;
  tuning_set(t, key, choice, note && *note ? note : NULL);
  return true;
}

static bool parse_first(Diag *d, const char *line, const char *file) {
  const size_t n = strlen(first_line);
  if (strncmp(line, first_line, n) != 0)
    return bad_line(d, file, 1, "this is no tuning file: the first line must be `burin tuning 1`");
  if (strcmp(line + n, "1") != 0)
    return bad_line(d, file, 1, "this version of tuning files is not known; tune again");
  return true;
}

static bool is_text(const char *s, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (s[i] > 0 && s[i] < ' ' && s[i] != '\t' && s[i] != '\r') return false;
  return memchr(s, 0, n) == NULL;
}

Tuning *tuning_parse(Arena *a, Diag *d, const char *text, size_t size, const char *file) {
  Tuning *t = ARENA_NEW(a, Tuning);
  t->arena = a;
  if (!size) return parse_first(d, "", file) ? t : NULL;
  for (int number = 1; size; number++) {
    const char *end = memchr(text, '\n', size);
    const size_t n = end ? (size_t)(end - text) : size;
    if (n > MAX_LINE) return bad_line(d, file, number, "the line is too long"), NULL;
    if (!is_text(text, n)) return bad_line(d, file, number, "not text"), NULL;
    char *line = arena_strndup(a, text, n);
    if (!(number == 1 ? parse_first(d, trim(line), file) : parse_line(t, d, line, number, file)))
      return NULL;
    text += n + (end != NULL);
    size -= n + (end != NULL);
  }
  return t;
}
