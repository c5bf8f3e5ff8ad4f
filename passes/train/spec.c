/* See spec.h. */
#include "passes/train/spec.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool spec_error(const Spec *s, const char *fmt, ...) {
  const Loc loc = {.file = s->m->file, .node = -1};
  char why[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  return diag_error(s->m->diag, &loc, ERR_VALUE, "%s=%s: %s", s->option, s->text, why);
}

static bool add_pair(Spec *s, const char *text, size_t n) {
  Arena *a = s->m->arena;
  const char *pair = arena_strndup(a, text, n), *eq = strchr(pair, '=');
  if (!eq || eq == pair || !eq[1]) return spec_error(s, "'%s' is not key=value", pair);
  const char *key = arena_strndup(a, pair, (size_t)(eq - pair));
  if (spec_text(s, key)) return spec_error(s, "%s is given twice", key);
  vec_push(a, &s->pairs, (SpecPair){key, eq + 1});
  return true;
}

bool spec_parse(Model *m, const char *option, const char *text, Spec *out) {
  *out = (Spec){.m = m, .option = option, .text = text};
  size_t n = strcspn(text, ",");
  char *name = arena_strndup(m->arena, text, n), *colon = strchr(name, ':');
  out->name = name;
  if (colon) {
    *colon = 0;
    out->output = colon + 1;
  }
  if (!*name || (colon && !colon[1])) return spec_error(out, "a name is missing");
  for (const char *at = text + n; *at; at += n) {
    n = strcspn(++at, ",");
    if (!add_pair(out, at, n)) return false;
  }
  return true;
}

const void *spec_row(const Spec *s, const char *what, const void *rows, int n, size_t size) {
  StrBuf b = {.arena = s->m->arena};
  for (int i = 0; i < n; i++) {
    const char *const row = (const char *)rows + (size_t)i * size, *name;
    memcpy(&name, row, sizeof name);
    if (strcmp(name, s->name) == 0) return row;
    sb_printf(&b, " %s", name);
  }
  spec_error(s, "there is no %s '%s'; there are:%s", what, s->name, sb_str(&b));
  return NULL;
}

bool spec_has_word(const char *words, const char *word) {
  const size_t n = strlen(word);
  for (const char *at = words; at && *at;) {
    const size_t length = strcspn(at, " ");
    if (length == n && strncmp(at, word, n) == 0) return true;
    at += length + (at[length] == ' ');
  }
  return false;
}

bool spec_allows(const Spec *s, const char *keys, const char *more) {
  for (int i = 0; i < s->pairs.n; i++)
    if (!spec_has_word(keys, s->pairs.data[i].key) && !spec_has_word(more, s->pairs.data[i].key))
      return spec_error(s, "%s has no '%s'; it has: %s%s%s", s->name, s->pairs.data[i].key, keys,
                        *keys && *more ? " " : "", more);
  return true;
}

const char *spec_text(const Spec *s, const char *key) {
  for (int i = 0; i < s->pairs.n; i++)
    if (strcmp(s->pairs.data[i].key, key) == 0) return s->pairs.data[i].value;
  return NULL;
}

static bool parse_number(const char *text, char end, double *out, const char **rest) {
  char *at;
  errno = 0;
  *out = strtod(text, &at);
  *rest = at;
  return at != text && !errno && isfinite(*out) && (*at == 0 || *at == end);
}

bool spec_number(const Spec *s, const char *key, double def, double lo, double hi, double *out) {
  const char *text = spec_text(s, key), *rest;
  *out = def;
  if (!text || (parse_number(text, 0, out, &rest) && *out >= lo && *out <= hi)) return true;
  return spec_error(s, "%s=%s is no number from %g to %g", key, text, lo, hi);
}

bool spec_int(const Spec *s, const char *key, int64_t def, int64_t lo, int64_t hi, int64_t *out) {
  double v;
  if (!spec_number(s, key, (double)def, (double)lo, (double)hi, &v)) return false;
  *out = (int64_t)v;
  return v == floor(v) || spec_error(s, "%s=%s is no integer", key, spec_text(s, key));
}

bool spec_numbers(const Spec *s, const char *key, int *n, double **out) {
  const char *text = spec_text(s, key);
  *n = 0;
  if (!text) return true;
  *out = ARENA_ARRAY(s->m->arena, double, strlen(text) + 1);
  for (const char *at = text, *rest;; at = rest + 1) {
    if (!parse_number(at, ':', &(*out)[(*n)++], &rest))
      return spec_error(s, "%s=%s is no list of numbers a:b:c", key, text);
    if (!*rest) return true;
  }
}

bool spec_choice(const Spec *s, const char *key, const char *const *words, int *out) {
  const char *text = spec_text(s, key);
  *out = 0;
  if (!text) return true;
  StrBuf b = {.arena = s->m->arena};
  for (int i = 0; words[i]; i++) {
    if (strcmp(words[i], text) == 0) return *out = i, true;
    sb_printf(&b, " %s", words[i]);
  }
  return spec_error(s, "%s=%s is none of%s", key, text, sb_str(&b));
}
