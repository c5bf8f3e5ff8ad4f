/* Prints what stands around a graph and around a program alike: the model's line, what is assumed,
 * locations, types, and the data of constants, in the text or in files beside it. frame_parse.c reads
 * it back. */
#define XXH_INLINE_ALL
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "ir/text/frame.h"

enum {
  INLINE_ELEMENTS = 8, /* constants up to this size are written where they are defined */
  IN_TEXT = 16 << 10,  /* bytes of all others together that still stand in the text */
  DATA_ALIGN = 64
};

static bool is_plain(const char *s) {
  if (!s || !(isalpha((unsigned char)*s) || *s == '_')) return false;
  for (; *s; s++)
    if (!(isalnum((unsigned char)*s) || *s == '_')) return false;
  return true;
}

void frame_ident(StrBuf *b, const char *s) {
  if (is_plain(s))
    sb_printf(b, "%s", s);
  else
    sb_quoted(b, s ? s : "");
}

/* The shortest decimal that reads back as v, as a double or rounded to f32. */
void frame_float(char t[40], double v, bool single) {
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(t, 40, "%.*g", digits, v);
    if (isnan(v) || (single ? (double)(float)strtod(t, NULL) : strtod(t, NULL)) == v) break;
  }
  if (isnan(v)) snprintf(t, 40, "nan");
  if (!strpbrk(t, ".einf")) strcat(t, ".0");
}

static void print_float(StrBuf *b, DType type, double v) {
  char t[40];
  frame_float(t, v, dtype_rows[type].bits <= 32);
  sb_printf(b, "%s", t);
}

void frame_type(const Model *m, const Value *v, StrBuf *b) {
  static const char *const kinds[] = {"?", "", "seq ", "opt ", "map "};
  sb_printf(b, "%s", kinds[v->kind]);
  if (v->kind == TY_NONE) return;
  sb_printf(b, "%s[", v->dtype == DT_NONE ? "none" : dtype_text(v->dtype));
  if (v->rank < 0) sb_putc(b, '*');
  for (int d = 0; d < v->rank; d++) {
    if (d) sb_putc(b, ',');
    expr_print(m->pool, v->dims[d], b);
  }
  sb_putc(b, ']');
}

/* @"name"(index "domain.Op" opset in "graph path"), and one for every further origin of a fused
 * node. */
void frame_loc(const Loc *l, StrBuf *b) {
  for (; l; l = l->also) {
    if (l->node < 0 && !l->node_name && !l->op) continue;
    sb_printf(b, " @");
    sb_quoted(b, l->node_name ? l->node_name : "");
    if (l->node < 0 && !l->op && !l->graph) continue;
    sb_printf(b, "(%d ", l->node);
    sb_quoted(b, l->op ? l->op : "");
    if (l->domain && *l->domain) {
      sb_putc(b, ' ');
      sb_quoted(b, l->domain);
    }
    sb_printf(b, " %d", l->opset);
    if (l->graph && *l->graph) {
      sb_printf(b, " in ");
      sb_quoted(b, l->graph);
    }
    sb_putc(b, ')');
  }
}

static void print_element(const ConstData *c, int64_t i, StrBuf *b) {
  if (c->dtype == DT_STR)
    sb_quoted(b, ((const char *const *)c->data)[i]);
  else if (dtype_is_float(c->dtype))
    print_float(b, c->dtype, const_float(c, i));
  else if (c->dtype == DT_U64)
    sb_printf(b, "%llu", (unsigned long long)const_int(c, i));
  else
    sb_printf(b, "%lld", (long long)const_int(c, i));
}

static bool has_nan(const ConstData *c) {
  for (int64_t i = 0; dtype_is_float(c->dtype) && i < c->count; i++)
    if (isnan(const_float(c, i))) return true;
  return false;
}

bool frame_is_small(const ConstData *c) {
  return c->count <= INLINE_ELEMENTS && dtype_rows[c->dtype].cls != DC_COMPLEX && !has_nan(c);
}

void frame_elements(const ConstData *c, StrBuf *b) {
  const unsigned char *p = c->data;
  if (frame_is_small(c) || c->dtype == DT_STR) {
    sb_putc(b, '[');
    for (int64_t i = 0; i < c->count; i++) {
      if (i) sb_putc(b, ',');
      print_element(c, i, b);
    }
    sb_putc(b, ']');
    return;
  }
  sb_printf(b, "hex ");
  static const char digits[] = "0123456789abcdef";
  for (int64_t i = 0; i < c->count * dtype_bytes(c->dtype); i++) {
    sb_putc(b, digits[p[i] >> 4]);
    sb_putc(b, digits[p[i] & 15]);
  }
}

void frame_keys(const ConstData *keys, StrBuf *b) {
  if (!keys) return;
  sb_printf(b, " keys [");
  for (int64_t i = 0; i < keys->count; i++) {
    if (i) sb_putc(b, ',');
    print_element(keys, i, b);
  }
  sb_putc(b, ']');
}

void frame_list(const Model *m, const ListType *l, StrBuf *b) {
  const Expr *dims[MAX_RANK];
  if (!l) return;
  const bool sequence = l->kind != LIST_OPTIONAL;
  for (int d = 0; d < l->rank; d++) dims[d] = ex_i64(m->pool, l->dims[d]);
  sb_printf(b, l->kind == LIST_SEQUENCE ? " list " : " list opt ");
  frame_type(m,
             &(Value){.kind = sequence ? TY_SEQUENCE : TY_TENSOR,
                      .dtype = l->dtype,
                      .rank = l->rank,
                      .dims = dims},
             b);
}

void assume_print(const ExprPool *p, const DimAssume *a, StrBuf *b) {
  sb_printf(b, "%s ", assume_name(a->kind));
  expr_print(p, a->a, b);
  sb_printf(b, ", ");
  expr_print(p, a->b, b);
  if (!a->what) return;
  sb_putc(b, ' ');
  sb_quoted(b, a->what);
}

void frame_head(const Model *m, StrBuf *b) {
  if (m->opset || m->ir_version) {
    sb_printf(b, "model ir %d opset %d", m->ir_version, m->opset);
    if (m->hash) sb_printf(b, " from \"%s\"", m->hash);
    sb_putc(b, '\n');
  }
  if (m->todo) sb_printf(b, "todo %s\n", *m->todo ? m->todo : "none");
}

void frame_in_place(const Model *m, StrBuf *b) {
  for (int i = 0; i < m->in_place.n; i++) {
    const InPlace *x = &m->in_place.data[i];
    sb_printf(b, "in_place %d %d axis %d room %lld\n", x->input, x->output, x->axis,
              (long long)x->room);
  }
  for (int i = 0; i < m->state.n; i++) {
    const StateItem *s = &m->state.data[i];
    sb_printf(b, "state ");
    sb_quoted(b, s->name);
    sb_printf(b, " %s input %d", state_kind_names[s->kind], s->input);
    if (s->output >= 0) sb_printf(b, " output %d", s->output);
    sb_printf(b, " at %lld bytes %lld\n", (long long)s->offset, (long long)s->bytes);
  }
}

void frame_assume(const Model *m, const DimAssume *a, StrBuf *b) {
  sb_printf(b, "assume ");
  assume_print(m->pool, a, b);
  if (!assume_at_entry(m, a)) sb_printf(b, " region");
  frame_loc(a->loc, b);
  sb_putc(b, '\n');
}

/* ---- data that do not stand where the constant is defined ---- */
static int64_t data_bytes(const ConstData *c) { return c->count * dtype_bytes(c->dtype); }

static void print_data_head(const ConstData *c, StrBuf *b) {
  sb_printf(b, "data #%d : %s[", c->id, dtype_text(c->dtype));
  for (int d = 0; d < c->rank; d++) sb_printf(b, "%s%lld", d ? "," : "", (long long)c->dims[d]);
  sb_printf(b, "]");
  if (c->name) {
    sb_putc(b, ' ');
    sb_quoted(b, c->name);
  }
  sb_printf(b, " = ");
}

static void print_in_text(const ConstData *c, StrBuf *b) {
  print_data_head(c, b);
  frame_elements(c, b);
  sb_putc(b, '\n');
}

void frame_data(const Model *m, const ConstList *l, bool with, StrBuf *b) {
  for (int i = 0; with && i < l->n; i++) print_in_text(l->data[i], b);
  if (m->zeros || (!with && l->n)) sb_printf(b, "data none\n");
}

int64_t frame_data_bytes(const ConstList *l) {
  int64_t sum = 0;
  for (int i = 0; i < l->n; i++)
    if (l->data[i]->dtype != DT_STR) sum += data_bytes(l->data[i]);
  return sum;
}

/* ---- files beside the text ---- */
static TextPlace *place_of(TextStore *s, const ConstData *c) {
  while (s->places.n <= c->id) vec_push(s->arena, &s->places, (TextPlace){0});
  return &s->places.data[c->id];
}

static bool is_stored(TextStore *s, const ConstData *c) {
  const TextPlace *const at = place_of(s, c);
  return at->data == c->data && at->bytes == data_bytes(c);
}

static const char *hash_text(Arena *a, const TextFile *f) {
  static const char zeros[DATA_ALIGN];
  int64_t at = 0;
  XXH3_state_t x;
  XXH3_128bits_reset(&x);
  for (int i = 0; i < f->parts.n; i++) {
    const TextPlace *const p = &f->parts.data[i];
    XXH3_128bits_update(&x, zeros, (size_t)(p->offset - at));
    XXH3_128bits_update(&x, p->data, (size_t)p->bytes);
    at = p->offset + p->bytes;
  }
  const XXH128_hash_t h = XXH3_128bits_digest(&x);
  return arena_printf(a, "%016llx%016llx", (unsigned long long)h.high64,
                      (unsigned long long)h.low64);
}

/* Puts what no file has yet into a new one. */
static void store_new(TextStore *s, const ConstList *l, const char *name) {
  TextFile f = {.name = name};
  for (int i = 0; i < l->n; i++) {
    const ConstData *const c = l->data[i];
    if (c->dtype == DT_STR || is_stored(s, c)) continue;
    const int64_t offset = (f.bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    const TextPlace at = {
        .file = s->files.n, .data = c->data, .offset = offset, .bytes = data_bytes(c)};
    *place_of(s, c) = at;
    vec_push(s->arena, &f.parts, at);
    f.bytes = offset + at.bytes;
  }
  if (!f.parts.n) return;
  f.hash = hash_text(s->arena, &f);
  vec_push(s->arena, &s->files, f);
}

static void print_file(TextStore *s, int file, const ConstList *l, StrBuf *b) {
  const TextFile *const f = &s->files.data[file];
  bool used = false;
  for (int i = 0; i < l->n; i++) {
    const ConstData *const c = l->data[i];
    if (c->dtype == DT_STR || place_of(s, c)->file != file) continue;
    if (!used) {
      sb_printf(b, "weights ");
      sb_quoted(b, f->name);
      sb_printf(b, " bytes %lld hash \"%s\"\n", (long long)f->bytes, f->hash);
      used = true;
    }
    print_data_head(c, b);
    sb_printf(b, "at %lld\n", (long long)place_of(s, c)->offset);
  }
}

void frame_data_beside(const Model *m, const ConstList *l, TextStore *s, const char *name,
                       StrBuf *b) {
  if (frame_data_bytes(l) <= IN_TEXT) {
    frame_data(m, l, true, b);
    return;
  }
  store_new(s, l, name);
  for (int i = 0; i < l->n; i++)
    if (l->data[i]->dtype == DT_STR) print_in_text(l->data[i], b);
  for (int f = 0; f < s->files.n; f++) print_file(s, f, l, b);
  if (m->zeros) sb_printf(b, "data none\n");
}
