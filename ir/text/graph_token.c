/* Tokens of the graph IR's text: words, strings, numbers, and errors with their line. */
#include "ir/text/graph_token.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

bool tok_fail(Parser *p, const char *fmt, ...) {
  int line = 1;
  for (const char *c = p->text; c < p->s; c++) line += *c == '\n';
  va_list ap;
  va_start(ap, fmt);
  const char *text = arena_vprintf(p->a, fmt, ap);
  va_end(ap);
  const Loc loc = {.file = p->file, .node = -1};
  return diag_error(p->m->diag, &loc, ERR_PARSE, "line %d: %s", line, text);
}

void tok_skip(Parser *p) {
  for (;;) {
    while (isspace((unsigned char)*p->s)) p->s++;
    if (p->s[0] != '/' || p->s[1] != '/') return;
    while (*p->s && *p->s != '\n') p->s++;
  }
}

bool tok_eat(Parser *p, const char *tok) {
  tok_skip(p);
  const size_t n = strlen(tok);
  if (strncmp(p->s, tok, n) != 0) return false;
  if (isalpha((unsigned char)*tok) && (isalnum((unsigned char)p->s[n]) || p->s[n] == '_'))
    return false;
  p->s += n;
  return true;
}

bool tok_expect(Parser *p, const char *tok) {
  return tok_eat(p, tok) || tok_fail(p, "expected '%s'", tok);
}

size_t tok_ident_len(const char *s) {
  size_t n = 0;
  while (isalnum((unsigned char)s[n]) || s[n] == '_') n++;
  return n;
}

int tok_hex_digit(int c) {
  return isdigit(c)             ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

/* At a '"'. */
bool tok_string(Parser *p, const char **out) {
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

bool tok_at_string(Parser *p) {
  tok_skip(p);
  return *p->s == '"';
}

bool tok_ident(Parser *p, const char **out) {
  if (tok_at_string(p)) return tok_string(p, out);
  const size_t n = tok_ident_len(p->s);
  if (n == 0) return tok_fail(p, "expected a name");
  *out = arena_strndup(p->a, p->s, n);
  p->s += n;
  return true;
}

bool tok_int(Parser *p, int64_t *v) {
  tok_skip(p);
  char *end;
  *v = *p->s == '-' ? strtoll(p->s, &end, 10) : (int64_t)strtoull(p->s, &end, 10);
  if (end == p->s) return tok_fail(p, "expected an integer");
  p->s = end;
  return true;
}

bool tok_small(Parser *p, int64_t lo, int64_t hi, int *v) {
  int64_t k;
  if (!tok_int(p, &k)) return false;
  if (k < lo || k > hi) return tok_fail(p, "%lld is out of range", (long long)k);
  *v = (int)k;
  return true;
}

/* A number of unknown kind: *is_float when written as one. */
bool tok_number(Parser *p, bool *is_float, int64_t *i, double *f) {
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
