/* Diagnostics: kept in order in the arena, printed by the driver. Message texts may hold names from
 * the model; control bytes are escaped here, so that nothing from a file can drive a terminal. */
#include "ir/base/diag.h"
#include <string.h>

typedef enum EntryKind { EN_ERROR, EN_WARNING, EN_NOTE, EN_HINT } EntryKind;
typedef struct Entry {
  EntryKind kind;
  const char *text; /* whole line(s), escaped */
} Entry;

struct Diag {
  Arena *arena;
  Vec(Entry) entries;
  int errors;
  ErrCode first;
  const char *blamed; /* diag_blame */
};

enum { SHOWN = 20, KEPT = 10000 };

static const struct {
  int number, exit;
} codes[] = {
#define E(id, number, exit, text) {number, exit},
#include "ir/base/diag.def"
#undef E
};

static const char *escaped(Arena *a, const char *s) {
  StrBuf b = {.arena = a};
  for (; *s; s++) {
    const unsigned char c = (unsigned char)*s;
    if (c < 32 || c == 127)
      sb_printf(&b, "\\x%02x", c);
    else
      sb_putc(&b, (char)c);
  }
  return sb_str(&b);
}

Diag *diag_new(Arena *a) {
  Diag *const d = ARENA_NEW(a, Diag);
  d->arena = a;
  return d;
}

static void loc_print(StrBuf *b, const Loc *l) {
  const char *sep = "";
  if (l->file) sb_printf(b, "%s: ", l->file);
  if (l->graph && *l->graph) sb_printf(b, "%s: ", l->graph);
  if (l->node >= 0) {
    sb_printf(b, "node %d", l->node);
    sep = " ";
  }
  if (l->node_name && *l->node_name) {
    sb_printf(b, "%s", sep);
    sb_quoted(b, l->node_name);
    sep = " ";
  }
  if (l->op) {
    sb_printf(b, "%s%s.%s", sep, l->domain && *l->domain ? l->domain : "ai.onnx", l->op);
    if (l->opset) sb_printf(b, "-%d", l->opset);
    sep = " ";
  }
  if (!*sep && b->n >= 2) b->n -= 2; /* only "file: " */
}

const char *loc_text(Arena *a, const Loc *loc) {
  StrBuf b = {.arena = a};
  if (loc) loc_print(&b, loc);
  return escaped(a, sb_str(&b));
}

static bool same_text(const char *a, const char *b) { return strcmp(a ? a : "", b ? b : "") == 0; }

const Loc *loc_joined(Arena *a, const Loc *first, const Loc *then) {
  if (!first || !then) return first ? first : then;
  Loc *l = arena_dup(a, first, sizeof *l);
  l->also = loc_joined(a, l->also, then);
  return l;
}

bool loc_same(const Loc *a, const Loc *b) {
  for (; a && b && a != b; a = a->also, b = b->also)
    if (a->node != b->node || a->opset != b->opset || !same_text(a->graph, b->graph) ||
        !same_text(a->node_name, b->node_name) || !same_text(a->op, b->op) ||
        !same_text(a->domain, b->domain))
      return false;
  return a == b;
}

static void entry_add(Diag *d, EntryKind kind, const char *text) {
  const Entry e = {kind, text};
  if (d->entries.n < KEPT) vec_push(d->arena, &d->entries, e);
}

static const char *with_loc(Diag *d, const Loc *loc, const char *tag, const char *text) {
  const char *const where = loc_text(d->arena, loc);
  return arena_printf(d->arena, "%s%s%s: %s", where, *where ? ": " : "", tag, text);
}

bool diag_verror(Diag *d, const Loc *loc, ErrCode code, const char *fmt, va_list ap) {
  const char *const text = escaped(d->arena, arena_vprintf(d->arena, fmt, ap));
  const char *const kind = code == ERR_INTERNAL || code == ERR_VERIFY ? "internal error" : "error";
  if (d->errors++ == 0) d->first = code;
  entry_add(d, EN_ERROR,
            with_loc(d, loc, arena_printf(d->arena, "%s[E%04d]", kind, (int)code), text));
  return false;
}

bool diag_error(Diag *d, const Loc *loc, ErrCode code, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  diag_verror(d, loc, code, fmt, ap);
  va_end(ap);
  return false;
}

bool diag_internal(Diag *d, const Loc *loc, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const Loc text = {.file = d->blamed, .node = -1};
  diag_verror(d, d->blamed ? &text : loc, d->blamed ? ERR_PARSE : ERR_INTERNAL, fmt, ap);
  va_end(ap);
  return false;
}

void diag_warning(Diag *d, const Loc *loc, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  const char *const text = escaped(d->arena, arena_vprintf(d->arena, fmt, ap));
  va_end(ap);
  entry_add(d, EN_WARNING, with_loc(d, loc, "warning", text));
}

static void add_line(Diag *d, EntryKind kind, const char *tag, const char *fmt, va_list ap) {
  const char *const text = escaped(d->arena, arena_vprintf(d->arena, fmt, ap));
  entry_add(d, kind, arena_printf(d->arena, "  %s: %s", tag, text));
}

void diag_note(Diag *d, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_line(d, EN_NOTE, "note", fmt, ap);
  va_end(ap);
}

void diag_hint(Diag *d, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  add_line(d, EN_HINT, "hint", fmt, ap);
  va_end(ap);
}

void diag_blame(Diag *d, const char *text) { d->blamed = text; }

int diag_errors(const Diag *d) { return d->errors; }

int diag_exit_status(const Diag *d) {
  if (!d->errors) return 0;
  for (size_t k = 0; k < sizeof codes / sizeof *codes; k++)
    if (codes[k].number == (int)d->first) return codes[k].exit;
  return 70;
}

void diag_print(const Diag *d, FILE *f) {
  int shown = 0;
  bool hidden = false;
  for (int k = 0; k < d->entries.n; k++) {
    const Entry *const e = &d->entries.data[k];
    if (e->kind == EN_ERROR)
      hidden = ++shown > SHOWN;
    else if (e->kind == EN_WARNING)
      hidden = false;
    if (!hidden) fprintf(f, "%s\n", e->text);
  }
  if (d->errors > SHOWN) fprintf(f, "%d more errors not shown\n", d->errors - SHOWN);
}
