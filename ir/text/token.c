/* Tokens of texts: words, strings, numbers, and errors with their line. */
#include "ir/text/token.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

TextParser text_parser(Model *m, const char *text, const char *file) {
  return (TextParser){.a = m->arena, .m = m, .text = text, .s = text, .file = file};
}

bool text_fail(Arena *a, Diag *d, const char *file, const char *text, const char *at,
               const char *what) {
  int line = 1;
  const char *start = text;
  for (const char *c = text; c < at; c++) {
    if (*c != '\n') continue;
    line++;
    start = c + 1;
  }
  const Loc loc = {.file = file, .node = -1};
  return diag_error(d, &loc, ERR_PARSE, "line %d, column %d: %s", line, (int)(at - start) + 1,
                    what);
}

bool tok_fail(TextParser *p, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *what = arena_vprintf(p->a, fmt, ap);
  va_end(ap);
  return text_fail(p->a, p->m->diag, p->file, p->text, p->s, what);
}

void tok_skip(TextParser *p) {
  for (;;) {
    while (isspace((unsigned char)*p->s)) p->s++;
    if (p->s[0] != '/' || p->s[1] != '/') return;
    while (*p->s && *p->s != '\n') p->s++;
  }
}

bool tok_is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

bool tok_at(TextParser *p, const char *tok) {
  tok_skip(p);
  const size_t n = strlen(tok);
  return strncmp(p->s, tok, n) == 0 && !(tok_is_word(tok[n - 1]) && tok_is_word(p->s[n]));
}

bool tok_eat(TextParser *p, const char *tok) {
  if (!tok_at(p, tok)) return false;
  p->s += strlen(tok);
  return true;
}

bool tok_expect(TextParser *p, const char *tok) {
  return tok_eat(p, tok) || tok_fail(p, "expected '%s'", tok);
}

size_t tok_ident_len(const char *s) {
  size_t n = 0;
  while (tok_is_word(s[n])) n++;
  return n;
}

int tok_hex_digit(int c) {
  return isdigit(c)             ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

/* At a '"'. */
bool tok_string(TextParser *p, const char **out) {
  tok_skip(p);
  if (*p->s != '"') return tok_fail(p, "expected a string");
  StrBuf b = {.arena = p->a};
  for (p->s++; *p->s != '"'; p->s++) {
    if (!*p->s) return tok_fail(p, "unfinished string");
    if (*p->s != '\\') {
      sb_putc(&b, *p->s);
    } else if (p->s[1] == 'n') {
      sb_putc(&b, '\n');
      p->s++;
    } else if (p->s[1] == 'x' && tok_hex_digit((unsigned char)p->s[2]) >= 0 &&
               tok_hex_digit((unsigned char)p->s[3]) >= 0) {
      sb_putc(&b, (char)(tok_hex_digit((unsigned char)p->s[2]) * 16 +
                         tok_hex_digit((unsigned char)p->s[3])));
      p->s += 3;
    } else if (p->s[1]) {
      sb_putc(&b, *++p->s);
    }
  }
  p->s++;
  *out = sb_str(&b);
  return true;
}

bool tok_at_string(TextParser *p) {
  tok_skip(p);
  return *p->s == '"';
}

bool tok_ident(TextParser *p, const char **out) {
  return tok_at_string(p) ? tok_string(p, out) : tok_word(p, out);
}

bool tok_word(TextParser *p, const char **out) {
  tok_skip(p);
  const size_t n = tok_ident_len(p->s);
  if (n == 0) return tok_fail(p, "expected a name");
  *out = arena_strndup(p->a, p->s, n);
  p->s += n;
  return true;
}

bool tok_int(TextParser *p, int64_t *v) {
  tok_skip(p);
  char *end;
  errno = 0;
  *v = *p->s == '-' ? strtoll(p->s, &end, 10) : (int64_t)strtoull(p->s, &end, 10);
  if (end == p->s || errno) return tok_fail(p, "expected an integer");
  p->s = end;
  return true;
}

bool tok_small(TextParser *p, int64_t lo, int64_t hi, int *v) {
  int64_t k;
  if (!tok_int(p, &k)) return false;
  if (k < lo || k > hi) return tok_fail(p, "%lld is out of range", (long long)k);
  *v = (int)k;
  return true;
}

/* A number of unknown kind: *is_float when written as one. */
bool tok_number(TextParser *p, bool *is_float, int64_t *i, double *f) {
  tok_skip(p);
  char *end;
  *f = strtod(p->s, &end);
  if (end == p->s) return tok_fail(p, "expected a number");
  *is_float = false;
  for (const char *c = p->s; c < end; c++)
    if (!isdigit((unsigned char)*c) && *c != '-' && *c != '+') *is_float = true;
  if (!*is_float) return tok_int(p, i);
  const bool single = *end == 'f' && !isalnum((unsigned char)end[1]);
  if (single) *f = (float)*f;
  p->s = end + single;
  return true;
}
