/* A pattern in RE2's syntax becomes a tree, the tree a program for all states at once (Thompson's
 * construction). Left out: Unicode classes (\p) and bytes (\C). */
#include "ir/ops/text/regex.h"

#include <string.h>
#include "ir/base/arena.h"
#include "runtime/text/regex.h"

enum {
  MAX_REPEAT = 1000,
  MAX_DEPTH = 200,
  MAX_PATTERN = 1 << 14,
  MAX_INSTRUCTIONS = 1 << 16,
  LAST = 0x10ffff
};
enum { F_CASE = 1, F_LINES = 2, F_DOT = 4 };

typedef struct Range {
  uint32_t first, last;
} Range;
typedef Vec(Range) Ranges;

typedef enum TreeKind { T_EMPTY, T_RANGES, T_ASSERT, T_CONCAT, T_EITHER, T_REPEAT } TreeKind;
typedef struct Tree Tree;
struct Tree {
  TreeKind kind;
  Ranges ranges;   /* RANGES */
  uint32_t what;   /* ASSERT */
  const Tree *a;   /* CONCAT, EITHER, REPEAT */
  const Tree *b;   /* CONCAT, EITHER */
  int least, most; /* REPEAT; most -1: without end */
};

typedef struct Parser {
  Arena *arena;
  const char *begin, *s;
  const char *why; /* of the first error */
  const char *bad;
  bool unsupported;
  int depth;
  bool quoted; /* between \Q and \E: as it is */
  unsigned flags;
} Parser;

/* ---- errors and trees ---- */
static void *wrong(Parser *p, const char *why) {
  if (!p->why) p->why = why, p->bad = p->s;
  return NULL;
}

static void *unsupported(Parser *p, const char *why) {
  if (!p->why) p->unsupported = true;
  return wrong(p, why);
}

static Tree *tree_new(Parser *p, TreeKind kind) {
  Tree *t = ARENA_NEW(p->arena, Tree);
  t->kind = kind;
  return t;
}

static Tree *tree_two(Parser *p, TreeKind kind, const Tree *a, const Tree *b) {
  if (!a || !b) return NULL;
  Tree *t = tree_new(p, kind);
  t->a = a;
  t->b = b;
  return t;
}

static Tree *tree_assert(Parser *p, uint32_t what) {
  Tree *t = tree_new(p, T_ASSERT);
  t->what = what;
  return t;
}

/* ---- sets of code points ---- */
static void add_range(Parser *p, Ranges *r, uint32_t first, uint32_t last) {
  vec_push(p->arena, r, ((Range){first, last}));
}

/* In rising order, without overlaps. */
static void normalize(Ranges *r) {
  for (int i = 1; i < r->n; i++)
    for (int k = i; k > 0 && r->data[k].first < r->data[k - 1].first; k--) {
      const Range other = r->data[k];
      r->data[k] = r->data[k - 1];
      r->data[k - 1] = other;
    }
  int n = 0;
  for (int i = 0; i < r->n; i++) {
    if (n && r->data[i].first <= r->data[n - 1].last + 1) {
      if (r->data[i].last > r->data[n - 1].last) r->data[n - 1].last = r->data[i].last;
    } else {
      r->data[n++] = r->data[i];
    }
  }
  r->n = n;
}

static Ranges complement(Parser *p, Ranges *r) {
  Ranges out = {0};
  uint32_t next = 0;
  normalize(r);
  for (int i = 0; i < r->n; i++) {
    if (r->data[i].first > next) add_range(p, &out, next, r->data[i].first - 1);
    next = r->data[i].last + 1;
  }
  if (next <= LAST) add_range(p, &out, next, LAST);
  return out;
}

static void add_all(Parser *p, Ranges *to, const Ranges *from) {
  for (int i = 0; i < from->n; i++) add_range(p, to, from->data[i].first, from->data[i].last);
}

/* Letters that have another case, in both; those of scripts beyond the first 0x1E944 have none. */
static void fold_case(Parser *p, Ranges *r) {
  enum { LAST_LETTER = 0x1e944 };
  const int n = r->n;
  for (int i = 0; i < n; i++)
    for (uint32_t c = r->data[i].first; c <= r->data[i].last && c < LAST_LETTER; c++) {
      const uint32_t low = code_point_lower(c), high = code_point_upper(c);
      if (low != c) add_range(p, r, low, low);
      if (high != c) add_range(p, r, high, high);
    }
}

static Tree *tree_ranges(Parser *p, Ranges r, bool negated) {
  Tree *t = tree_new(p, T_RANGES);
  if (p->flags & F_CASE) fold_case(p, &r);
  normalize(&r);
  t->ranges = negated ? complement(p, &r) : r;
  return t;
}

static Tree *tree_char(Parser *p, uint32_t c) {
  Ranges r = {0};
  add_range(p, &r, c, c);
  return tree_ranges(p, r, false);
}

/* d, s, w in either case, as "[:name:]" has them. False: no such class. */
static bool add_class(Parser *p, Ranges *r, const char *name, size_t n, bool negated) {
  static const struct {
    const char *name, *ranges; /* pairs of ASCII */
  } classes[] = {
      {"d", "09"},          {"digit", "09"},      {"s", "\t\n\f\r  "},   {"w", "09AZ__az"},
      {"word", "09AZ__az"}, {"alnum", "09AZaz"},  {"alpha", "AZaz"},     {"blank", "\t\t  "},
      {"lower", "az"},      {"upper", "AZ"},      {"space", "\t\r  "},   {"graph", "!~"},
      {"print", " ~"},      {"xdigit", "09AFaf"}, {"punct", "!/:@[`{~"}, {"cntrl", "\1\37\177\177"},
      {"ascii", "\1\177"}};
  for (size_t k = 0; k < sizeof classes / sizeof *classes; k++) {
    if (strlen(classes[k].name) != n || memcmp(classes[k].name, name, n) != 0) continue;
    Ranges own = {0};
    for (const char *s = classes[k].ranges; *s; s += 2)
      add_range(p, &own, (uint32_t)s[0], (uint32_t)s[1]);
    if (k + 2 >= sizeof classes / sizeof *classes) add_range(p, &own, 0, 0); /* cntrl, ascii */
    if (negated) own = complement(p, &own);
    add_all(p, r, &own);
    return true;
  }
  return false;
}

/* ---- characters ---- */
static uint32_t take_code_point(Parser *p) {
  int bytes;
  const uint32_t c = utf8_read(p->s, strlen(p->s), &bytes);
  if (c > LAST) wrong(p, "is no UTF-8");
  p->s += bytes;
  return c;
}

static int hex_digit(char c) {
  return c >= '0' && c <= '9'                 ? c - '0'
         : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                              : -1;
}

static uint32_t take_hex(Parser *p) { /* behind \x */
  const bool braces = *p->s == '{';
  uint32_t v = 0;
  int n = 0;
  p->s += braces;
  for (; hex_digit(*p->s) >= 0 && v <= LAST && (braces || n < 2); n++, p->s++)
    v = v * 16 + (uint32_t)hex_digit(*p->s);
  if (!n || v > LAST || (!braces && n < 2) || (braces && *p->s != '}'))
    return wrong(p, "no hexadecimal number"), 0;
  p->s += braces;
  return v;
}

/* Behind a backslash: one code point. */
static uint32_t take_escape(Parser *p) {
  static const char from[] = "afnrtv", to[] = "\a\f\n\r\t\v";
  const char c = *p->s;
  const char *const known = c ? strchr(from, c) : NULL;
  if (known) return p->s++, (uint32_t)(uint8_t)to[known - from];
  if (c == 'x') return p->s++, take_hex(p);
  if (c == '0' || (c >= '1' && c <= '7' && p->s[1] >= '0' && p->s[1] <= '7')) {
    uint32_t v = 0;
    for (int n = 0; n < 3 && *p->s >= '0' && *p->s <= '7'; n++)
      v = v * 8 + (uint32_t)(*p->s++ - '0');
    return v;
  }
  if (!c) return wrong(p, "ends with a backslash"), 0;
  const bool letter = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
  if (letter) return (c == 'p' || c == 'P' || c == 'C' ? unsupported : wrong)(p, "this escape"), 0;
  return take_code_point(p);
}

static bool is_class_escape(char c) { return c && strchr("dDsSwW", c) != NULL; }

static void take_class_escape(Parser *p, Ranges *r) {
  const char name = (char)(*p->s | 32);
  add_class(p, r, &name, 1, *p->s < 'a');
  p->s++;
}

/* [:name:] or [:^name:] at s; false: it is none. */
static bool take_posix_class(Parser *p, Ranges *r) {
  if (p->s[0] != '[' || p->s[1] != ':') return false;
  const bool negated = p->s[2] == '^';
  const char *const name = p->s + 2 + negated, *const end = strstr(name, ":]");
  if (!end) return false;
  if (!add_class(p, r, name, (size_t)(end - name), negated)) return wrong(p, "no such class"), true;
  p->s = end + 2;
  return true;
}

static uint32_t take_class_char(Parser *p) {
  if (*p->s != '\\') return take_code_point(p);
  p->s++;
  return take_escape(p);
}

static Tree *take_class(Parser *p) { /* behind [ */
  Ranges r = {0};
  const bool negated = *p->s == '^';
  p->s += negated;
  for (bool first = true; first || *p->s != ']'; first = false) {
    if (!*p->s) return wrong(p, "missing ]");
    if (take_posix_class(p, &r)) {
      if (p->why) return NULL;
      continue;
    }
    if (p->s[0] == '\\' && is_class_escape(p->s[1])) {
      p->s++;
      take_class_escape(p, &r);
      continue;
    }
    const uint32_t low = take_class_char(p);
    uint32_t high = low;
    if (p->s[0] == '-' && p->s[1] && p->s[1] != ']') {
      p->s++;
      high = take_class_char(p);
    }
    if (p->why) return NULL;
    if (high < low) return wrong(p, "a range that ends before it begins");
    add_range(p, &r, low, high);
  }
  p->s++;
  return tree_ranges(p, r, negated);
}

/* ---- syntax ---- */
static Tree *take_either(Parser *p);

/* Behind "(?": flags, a name, or nothing. True: a group follows whose flags are set. */
static bool take_group_head(Parser *p, bool *only_flags) {
  *only_flags = false;
  if (*p->s == 'P' || *p->s == '<') {
    p->s += *p->s == 'P';
    const char *const end = *p->s == '<' ? strchr(p->s, '>') : NULL;
    if (!end || end == p->s + 1 || p->s[1] == '=' || p->s[1] == '!')
      return wrong(p, "no such group"), false;
    p->s = end + 1;
    return true;
  }
  bool off = false;
  for (; *p->s && *p->s != ':' && *p->s != ')'; p->s++) {
    const unsigned f = *p->s == 'i' ? F_CASE : *p->s == 'm' ? F_LINES : *p->s == 's' ? F_DOT : 0;
    if (*p->s == '-' && !off) {
      off = true;
      continue;
    }
    if (!f && *p->s != 'U')
      return wrong(p, "no such group"), false; /* U changes what is preferred */
    p->flags = off ? p->flags & ~f : p->flags | f;
  }
  if (!*p->s) return wrong(p, "missing )"), false;
  *only_flags = *p->s++ == ')';
  return true;
}

static Tree *take_group(Parser *p) { /* behind ( */
  const unsigned flags = p->flags;
  bool only_flags = false;
  if (*p->s == '?') {
    p->s++;
    if (!take_group_head(p, &only_flags)) return NULL;
    if (only_flags) return tree_new(p, T_EMPTY); /* they hold up to the end of this group */
  }
  if (++p->depth > MAX_DEPTH) return wrong(p, "groups are nested too deeply");
  Tree *t = take_either(p);
  p->depth--;
  if (t && *p->s != ')') return wrong(p, "missing )");
  p->s += t != NULL;
  p->flags = flags;
  return t;
}

static void take_quotes(Parser *p) {
  while (strncmp(p->s, p->quoted ? "\\E" : "\\Q", 2) == 0) {
    p->quoted = !p->quoted;
    p->s += 2;
  }
}

static Tree *take_escaped_atom(Parser *p) { /* behind a backslash */
  const char c = *p->s;
  static const char asserts[] = "AzbB";
  static const uint32_t whats[] = {REGEX_TEXT_BEGIN, REGEX_TEXT_END, REGEX_WORD_EDGE,
                                   REGEX_NO_WORD_EDGE};
  const char *const a = c ? strchr(asserts, c) : NULL;
  if (a) return p->s++, tree_assert(p, whats[a - asserts]);
  if (is_class_escape(c)) {
    Ranges r = {0};
    take_class_escape(p, &r);
    return tree_ranges(p, r, false);
  }
  return tree_char(p, take_escape(p));
}

static Tree *take_atom(Parser *p) {
  const bool lines = p->flags & F_LINES;
  Ranges r = {0};
  if (p->quoted) return tree_char(p, take_code_point(p));
  switch (*p->s) {
    case '(': return p->s++, take_group(p);
    case '[': return p->s++, take_class(p);
    case '\\': return p->s++, take_escaped_atom(p);
    case '^': return p->s++, tree_assert(p, lines ? REGEX_LINE_BEGIN : REGEX_TEXT_BEGIN);
    case '$': return p->s++, tree_assert(p, lines ? REGEX_LINE_END : REGEX_TEXT_END);
    case '*':
    case '+':
    case '?': return wrong(p, "nothing to repeat");
    case '.':
      p->s++;
      if (p->flags & F_DOT) return add_range(p, &r, 0, LAST), tree_ranges(p, r, false);
      add_range(p, &r, '\n', '\n');
      return tree_ranges(p, r, true);
    default: return tree_char(p, take_code_point(p));
  }
}

/* {n}, {n,} or {n,m} at s; false: plain characters. */
static bool take_counts(Parser *p, int *least, int *most) {
  const char *s = p->s + 1;
  int v[2] = {-1, -1}, k = 0;
  for (; *s && *s != '}'; s++) {
    if (*s == ',' && k == 0 && v[0] >= 0)
      k = 1;
    else if (*s >= '0' && *s <= '9' && v[k] < 100000)
      v[k] = (v[k] < 0 ? 0 : v[k]) * 10 + *s - '0';
    else
      return false;
  }
  if (*s != '}' || v[0] < 0) return false;
  *least = v[0];
  *most = k ? v[1] : v[0];
  p->s = s + 1;
  return true;
}

static Tree *take_repeat(Parser *p) {
  Tree *t = take_atom(p);
  take_quotes(p);
  for (bool again = false; t; again = true) {
    int least = 0, most = -1;
    const char *const at = p->s;
    if (p->quoted) return t;
    if (*p->s == '*' || *p->s == '+' || *p->s == '?') {
      least = *p->s == '+';
      most = *p->s == '?' ? 1 : -1;
      p->s++;
    } else if (*p->s != '{' || !take_counts(p, &least, &most)) {
      return t;
    }
    if (again) return p->s = at, wrong(p, "a repetition of a repetition");
    if (least > MAX_REPEAT || most > MAX_REPEAT || (most >= 0 && most < least))
      return p->s = at, wrong(p, "an impossible repetition");
    p->s += *p->s == '?'; /* what is preferred makes no difference to a full match */
    Tree *r = tree_new(p, T_REPEAT);
    r->a = t;
    r->least = least;
    r->most = most;
    t = r;
  }
  return NULL;
}

static Tree *take_concat(Parser *p) {
  Tree *t = tree_new(p, T_EMPTY);
  take_quotes(p);
  while (t && *p->s && (p->quoted || (*p->s != '|' && *p->s != ')')))
    t = tree_two(p, T_CONCAT, t, take_repeat(p));
  return t;
}

static Tree *take_either(Parser *p) {
  Tree *t = take_concat(p);
  while (t && *p->s == '|') {
    p->s++;
    t = tree_two(p, T_EITHER, t, take_concat(p));
  }
  return t;
}

/* ---- the program ---- */
typedef struct Writer {
  Arena *arena;
  Vec(uint32_t) code;
  Ranges ranges;
  bool full;
} Writer;

static uint32_t position(const Writer *w) { return (uint32_t)w->code.n / 3; }

static uint32_t put(Writer *w, uint32_t op, uint32_t x, uint32_t y) {
  const uint32_t at = position(w);
  w->full |= at >= MAX_INSTRUCTIONS;
  if (w->full) return 0;
  vec_push(w->arena, &w->code, op);
  vec_push(w->arena, &w->code, x);
  vec_push(w->arena, &w->code, y);
  return at;
}

static void write_tree(Writer *w, const Tree *t);

static void write_repeat(Writer *w, const Tree *t) {
  for (int k = 0; k < t->least && !w->full; k++) write_tree(w, t->a);
  if (t->most < 0) {
    const uint32_t at = put(w, REGEX_SPLIT, position(w) + 1, 0);
    write_tree(w, t->a);
    put(w, REGEX_JUMP, at, 0);
    if (!w->full) w->code.data[3 * at + 2] = position(w);
    return;
  }
  const int optional = t->most - t->least;
  uint32_t *ends = ARENA_ARRAY(w->arena, uint32_t, optional + 1);
  for (int k = 0; k < optional && !w->full; k++) {
    ends[k] = put(w, REGEX_SPLIT, position(w) + 1, 0);
    write_tree(w, t->a);
  }
  for (int k = 0; k < optional && !w->full; k++) w->code.data[3 * ends[k] + 2] = position(w);
}

static void write_tree(Writer *w, const Tree *t) {
  if (w->full) return;
  switch (t->kind) {
    case T_EMPTY: break;
    case T_RANGES:
      put(w, REGEX_RANGES, (uint32_t)w->ranges.n, (uint32_t)t->ranges.n);
      for (int i = 0; i < t->ranges.n; i++) vec_push(w->arena, &w->ranges, t->ranges.data[i]);
      break;
    case T_ASSERT: put(w, REGEX_ASSERT, t->what, 0); break;
    case T_CONCAT:
      write_tree(w, t->a);
      write_tree(w, t->b);
      break;
    case T_EITHER: {
      const uint32_t split = put(w, REGEX_SPLIT, position(w) + 1, 0);
      write_tree(w, t->a);
      const uint32_t jump = put(w, REGEX_JUMP, 0, 0);
      if (!w->full) w->code.data[3 * split + 2] = position(w);
      write_tree(w, t->b);
      if (!w->full) w->code.data[3 * jump + 1] = position(w);
      break;
    }
    case T_REPEAT: write_repeat(w, t); break;
  }
}

uint32_t *regex_compile(Arena *a, const char *pattern, int64_t *count, const char **why, int *at,
                        bool *unsupported) {
  Parser p = {.arena = a, .begin = pattern, .s = pattern};
  Writer w = {.arena = a};
  const Tree *t = strlen(pattern) > MAX_PATTERN ? wrong(&p, "too long") : take_either(&p);
  if (t && *p.s == ')') t = wrong(&p, "an unmatched )");
  if (t) {
    write_tree(&w, t);
    put(&w, REGEX_MATCH, 0, 0);
    if (w.full) t = wrong(&p, "too long when repetitions are written out");
  }
  *why = p.why;
  *unsupported = p.unsupported;
  *at = p.bad ? (int)(p.bad - p.begin) : 0;
  if (!t || p.why) return NULL;
  *count = REGEX_HEADER + w.code.n + 2 * w.ranges.n;
  uint32_t *out = ARENA_ARRAY(a, uint32_t, *count);
  out[REGEX_INSTRUCTIONS] = position(&w);
  out[REGEX_N_RANGES] = (uint32_t)w.ranges.n;
  memcpy(out + REGEX_HEADER, w.code.data, sizeof *out * (size_t)w.code.n);
  for (int i = 0; i < w.ranges.n; i++) {
    out[REGEX_HEADER + w.code.n + 2 * i] = w.ranges.data[i].first;
    out[REGEX_HEADER + w.code.n + 2 * i + 1] = w.ranges.data[i].last;
  }
  return out;
}
