/* Prints the graph IR. The text parses back (graph_parse.c); its grammar stands in docs/ir.md.
 * Values are numbered as in memory; constants come first; data of big constants follows the
 * graph. */
#define XXH_INLINE_ALL
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "ir/op/op.h"

enum { INLINE_ELEMENTS = 8 }; /* constants up to this size are written where they are defined */

static void print_graph(const Graph *g, StrBuf *b, int indent);

static bool is_plain(const char *s) {
  if (!s || !(isalpha((unsigned char)*s) || *s == '_')) return false;
  for (; *s; s++)
    if (!(isalnum((unsigned char)*s) || *s == '_')) return false;
  return true;
}

static void print_ident(StrBuf *b, const char *s) {
  if (is_plain(s))
    sb_printf(b, "%s", s);
  else
    sb_quoted(b, s ? s : "");
}

/* The shortest decimal that reads back as v, as a double or rounded to f32. */
static void format_float(char t[40], double v, bool single) {
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(t, 40, "%.*g", digits, v);
    if (isnan(v) || (single ? (double)(float)strtod(t, NULL) : strtod(t, NULL)) == v) break;
  }
  if (isnan(v)) snprintf(t, 40, "nan");
  if (!strpbrk(t, ".einf")) strcat(t, ".0");
}

/* Attributes are doubles, but mostly hold an f32 from the file: then with a suffix, `1e-05f`. */
static void print_attr_float(StrBuf *b, double v) {
  char t[40], s[40];
  format_float(t, v, false);
  const bool single = isfinite(v) && (double)(float)v == v;
  if (single) format_float(s, v, true);
  if (single && strlen(s) < strlen(t))
    sb_printf(b, "%sf", s);
  else
    sb_printf(b, "%s", t);
}

static void print_float(StrBuf *b, DType type, double v) {
  char t[40];
  format_float(t, v, dtype_rows[type].bits <= 32);
  sb_printf(b, "%s", t);
}

static void print_type(const Model *m, const Value *v, StrBuf *b) {
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

static void print_layout(const Value *v, StrBuf *b) {
  const Layout *l = &v->layout;
  if (l->perm) {
    sb_printf(b, " layout=[");
    for (int d = 0; d < v->rank; d++) sb_printf(b, "%s%d", d ? "," : "", l->perm[d]);
    sb_putc(b, ']');
  }
  if (l->halo_lo || l->halo_hi) {
    sb_printf(b, " halo=[");
    for (int d = 0; d < v->rank; d++)
      sb_printf(b, "%s%d:%d", d ? "," : "", l->halo_lo ? l->halo_lo[d] : 0,
                l->halo_hi ? l->halo_hi[d] : 0);
    sb_putc(b, ']');
  }
  if (l->pad) sb_printf(b, " pad=%d", l->pad);
  if (v->inlined) sb_printf(b, " inline");
}

static void print_def(const Model *m, const Value *v, StrBuf *b) {
  if (!v) {
    sb_putc(b, '_');
    return;
  }
  sb_printf(b, "%%%d : ", v->id);
  print_type(m, v, b);
  print_layout(v, b);
}

static void print_use(const Value *v, StrBuf *b) {
  if (v)
    sb_printf(b, "%%%d", v->id);
  else
    sb_putc(b, '_');
}

/* ---- attributes ---- */

static void print_attr_item(const Attr *a, int i, StrBuf *b) {
  if (a->kind == AT_INT || a->kind == AT_INTS)
    sb_printf(b, "%lld", (long long)a->ints[i]);
  else if (a->kind == AT_FLOAT || a->kind == AT_FLOATS)
    print_attr_float(b, a->floats[i]);
  else
    sb_quoted(b, a->strs[i]);
}

static void print_attr(const Attr *a, StrBuf *b, int indent) {
  static const char *const empty[] = {
      [AT_INTS] = "ints", [AT_FLOATS] = "floats", [AT_STRINGS] = "strings"};
  print_ident(b, a->name);
  sb_putc(b, '=');
  if (a->kind == AT_TENSOR) {
    sb_printf(b, "#%d", a->tensor->id);
  } else if (a->kind == AT_GRAPH) {
    print_graph(a->graph, b, indent + 2);
  } else if (a->kind < AT_TENSOR) {
    print_attr_item(a, 0, b);
  } else {
    if (a->n == 0) sb_printf(b, "%s", empty[a->kind]);
    sb_putc(b, '[');
    for (int i = 0; i < a->n; i++) {
      if (i) sb_putc(b, ',');
      print_attr_item(a, i, b);
    }
    sb_putc(b, ']');
  }
}

static void print_attrs(const Node *n, StrBuf *b, int indent) {
  for (int i = 0; i < n->n_attrs; i++) {
    sb_printf(b, i ? ", " : " {");
    print_attr(&n->attrs[i], b, indent);
  }
  if (n->n_attrs) sb_putc(b, '}');
}

/* ---- nodes ---- */

static void print_syms(const Model *m, const Node *n, StrBuf *b) {
  for (int i = 0; i < n->n_syms; i++) {
    const SymDef *s = &n->syms[i];
    sb_printf(b, i ? ", " : " where ");
    expr_print(m->pool, s->sym, b);
    sb_printf(b, " = ");
    if (s->src)
      sb_printf(b, "%%%d[%lld]", s->src->id, (long long)s->elem);
    else
      expr_print(m->pool, s->value, b);
    static const char *const rules[] = {"", " index", " index from 0", " length"};
    sb_printf(b, "%s", rules[s->index]);
    if (!s->src && s->elem) sb_printf(b, " key %lld", (long long)s->elem);
  }
}

/* @"name"(index "domain.Op" opset in "graph path"), and one for every further origin of a fused
 * node. */
static void print_loc(const Loc *l, StrBuf *b) {
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

static void print_node(const Model *m, const Node *n, StrBuf *b, int indent) {
  sb_printf(b, "%*s", indent, "");
  for (int k = 0; k < n->n_out; k++) {
    if (k) sb_printf(b, ", ");
    print_def(m, n->out[k], b);
  }
  sb_printf(b, n->n_out ? " = " : "() = ");
  if (n->op->domain && *n->op->domain) sb_printf(b, "%s.", n->op->domain);
  sb_printf(b, "%s", n->op->name);
  for (int k = 0; k < n->n_in; k++) {
    sb_printf(b, k ? ", " : " ");
    print_use(n->in[k], b);
  }
  print_attrs(n, b, indent);
  if (n->plan) {
    sb_putc(b, ' ');
    plan_print(n->plan, b);
  }
  print_syms(m, n, b);
  print_loc(n->loc, b);
  sb_putc(b, '\n');
}

/* ---- constants ---- */

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

static bool is_small(const ConstData *c) {
  return c->count <= INLINE_ELEMENTS && dtype_rows[c->dtype].cls != DC_COMPLEX && !has_nan(c);
}

static void print_data(const ConstData *c, StrBuf *b) {
  const unsigned char *p = c->data;
  if (is_small(c) || c->dtype == DT_STR) {
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

typedef struct Seen { /* constants that the text refers to */
  bool *value, *data;
  Vec(const Value *) values; /* in order of id, after sorting */
  Arena *arena;
} Seen;

static void see_value(Seen *s, const Value *v) {
  if (!v || !v->cdata || s->value[v->id]) return;
  s->value[v->id] = true;
  s->data[v->cdata->id] = true;
  vec_push(s->arena, &s->values, v);
}

static void see_graph(Seen *s, const Graph *g) {
  for (int i = 0; i < g->nodes.n; i++) {
    const Node *n = g->nodes.data[i];
    for (int k = 0; k < n->n_in; k++) see_value(s, n->in[k]);
    for (int k = 0; k < n->n_syms; k++) see_value(s, n->syms[k].src);
    for (int k = 0; k < n->n_attrs; k++) {
      if (n->attrs[k].kind == AT_TENSOR) s->data[n->attrs[k].tensor->id] = true;
      if (n->attrs[k].kind == AT_GRAPH) see_graph(s, n->attrs[k].graph);
    }
  }
  for (int i = 0; i < g->outputs.n; i++) see_value(s, g->outputs.data[i]);
  for (int i = 0; i < g->inputs.n; i++) see_value(s, g->inputs.data[i]->init);
}

static int by_id(const void *a, const void *b) {
  return (*(const Value *const *)a)->id - (*(const Value *const *)b)->id;
}

static Seen see_model(const Model *m, Arena *scratch) {
  Seen s = {.arena = scratch};
  s.value = ARENA_ARRAY(scratch, bool, m->next_value + 1);
  s.data = ARENA_ARRAY(scratch, bool, m->consts.n + 1);
  see_graph(&s, m->main);
  if (s.values.n) qsort(s.values.data, (size_t)s.values.n, sizeof *s.values.data, by_id);
  return s;
}

static void print_const(const Model *m, const Value *v, StrBuf *b, int indent) {
  sb_printf(b, "%*s", indent, "");
  print_def(m, v, b);
  sb_printf(b, " = const #%d", v->cdata->id);
  if (v->name) {
    sb_putc(b, ' ');
    sb_quoted(b, v->name);
  }
  if (is_small(v->cdata)) {
    sb_printf(b, " = ");
    print_data(v->cdata, b);
  }
  sb_putc(b, '\n');
}

/* ---- graphs ---- */

/* The number of an iteration is a symbol that sizes in the body may name. */
static void print_iteration(const Model *m, const Value *v, StrBuf *b) {
  if (v->rank != 0 || !v->contents || v->contents[0]->op != EX_SYM) return;
  sb_printf(b, " is ");
  expr_print(m->pool, v->contents[0], b);
}

static void print_body(const Graph *g, StrBuf *b, int indent) {
  const Model *m = g->model;
  for (int i = 0; i < g->inputs.n; i++) {
    sb_printf(b, "%*s", indent, "");
    print_def(m, g->inputs.data[i], b);
    sb_printf(b, " = input");
    if (g->inputs.data[i]->name) {
      sb_putc(b, ' ');
      sb_quoted(b, g->inputs.data[i]->name);
    }
    if (g->inputs.data[i]->init) sb_printf(b, " default %%%d", g->inputs.data[i]->init->id);
    if (g->inputs.data[i]->pinned) sb_printf(b, " pinned");
    if (i == 0 && g->parent) print_iteration(m, g->inputs.data[i], b);
    sb_putc(b, '\n');
  }
  if (g->unset) {
    sb_printf(b, "%*s", indent, "");
    print_def(m, g->unset, b);
    sb_printf(b, " = unset\n");
  }
  for (int i = 0; i < g->nodes.n; i++) print_node(m, g->nodes.data[i], b, indent);
  for (int i = 0; i < g->outputs.n; i++) {
    sb_printf(b, "%*soutput ", indent, "");
    print_use(g->outputs.data[i], b);
    const char *name = i < g->output_names.n ? g->output_names.data[i] : NULL;
    if (name) {
      sb_putc(b, ' ');
      sb_quoted(b, name);
    }
    sb_putc(b, '\n');
  }
}

static void print_head(const Graph *g, StrBuf *b) {
  sb_printf(b, "graph @");
  print_ident(b, g->name);
  sb_printf(b, " {\n");
}

static void print_graph(const Graph *g, StrBuf *b, int indent) {
  print_head(g, b);
  print_body(g, b, indent);
  sb_printf(b, "%*s}", indent - 2, "");
}

/* ---- the model ---- */

void assume_print(const ExprPool *p, const DimAssume *a, StrBuf *b) {
  sb_printf(b, "%s ", assume_name(a->kind));
  expr_print(p, a->a, b);
  sb_printf(b, ", ");
  expr_print(p, a->b, b);
  if (!a->what) return;
  sb_putc(b, ' ');
  sb_quoted(b, a->what);
}

static void print_symbols(const Model *m, StrBuf *b) {
  for (int i = 0; i < expr_symbol_count(m->pool); i++) {
    const Symbol *s = expr_symbol(m->pool, i);
    sb_printf(b, "symbol ");
    expr_print(m->pool, ex_sym(m->pool, s->name), b);
    sb_printf(b, " from %lld", (long long)s->lo);
    if (s->bound) {
      sb_printf(b, " to ");
      expr_print(m->pool, s->bound, b);
    }
    sb_printf(b, "%s\n", s->runtime ? " runtime" : "");
  }
  for (int i = 0; i < m->assumes.n; i++) {
    sb_printf(b, "assume ");
    assume_print(m->pool, &m->assumes.data[i], b);
    if (!assume_at_entry(m, &m->assumes.data[i])) sb_printf(b, " region");
    print_loc(m->assumes.data[i].loc, b);
    sb_putc(b, '\n');
  }
}

/* ---- data of large constants ---- */

enum { DATA_ALIGN = 64 };

static int64_t data_bytes(const ConstData *c) { return c->count * dtype_bytes(c->dtype); }

/* Where the data of a constant is written: not here, in the text, or beside it. */
typedef enum Place { PLACE_NONE, PLACE_TEXT, PLACE_FILE } Place;

static Place *places(const Model *m, const Seen *seen, bool beside) {
  Place *at = ARENA_ARRAY(seen->arena, Place, m->consts.n + 1);
  bool *defined = ARENA_ARRAY(seen->arena, bool, m->consts.n + 1);
  for (int i = 0; i < seen->values.n; i++)
    if (is_small(seen->values.data[i]->cdata)) defined[seen->values.data[i]->cdata->id] = true;
  for (int i = 0; i < m->consts.n; i++) {
    const bool text = !beside || m->consts.data[i]->dtype == DT_STR;
    at[i] = !seen->data[i] || defined[i] ? PLACE_NONE : text ? PLACE_TEXT : PLACE_FILE;
  }
  return at;
}

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

static void print_trailer(const Model *m, const Place *at, StrBuf *b) {
  for (int i = 0; i < m->consts.n; i++) {
    if (at[i] != PLACE_TEXT) continue;
    print_data_head(m->consts.data[i], b);
    print_data(m->consts.data[i], b);
    sb_putc(b, '\n');
  }
}

static void layout_data(const Model *m, const Place *at, TextData *out) {
  *out = (TextData){.parts = ARENA_ARRAY(m->arena, struct TextPart, m->consts.n + 1)};
  for (int i = 0; i < m->consts.n; i++) {
    const ConstData *c = m->consts.data[i];
    if (at[i] != PLACE_FILE) continue;
    const int64_t offset = (out->bytes + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    out->parts[out->n++] = (struct TextPart){c->data, offset, data_bytes(c)};
    out->bytes = offset + data_bytes(c);
  }
}

static XXH128_hash_t hash_data(const TextData *d) {
  static const char zeros[DATA_ALIGN];
  int64_t at = 0;
  XXH3_state_t x;
  XXH3_128bits_reset(&x);
  for (int i = 0; i < d->n; i++) {
    XXH3_128bits_update(&x, zeros, (size_t)(d->parts[i].offset - at));
    XXH3_128bits_update(&x, d->parts[i].data, (size_t)d->parts[i].bytes);
    at = d->parts[i].offset + d->parts[i].bytes;
  }
  return XXH3_128bits_digest(&x);
}

static void print_places(const Model *m, const Place *at, const char *name, const TextData *d,
                         StrBuf *b) {
  const XXH128_hash_t h = hash_data(d);
  sb_printf(b, "weights ");
  sb_quoted(b, name);
  sb_printf(b, " bytes %lld hash \"%016llx%016llx\"\n", (long long)d->bytes,
            (unsigned long long)h.high64, (unsigned long long)h.low64);
  for (int i = 0, k = 0; i < m->consts.n; i++) {
    if (at[i] != PLACE_FILE) continue;
    print_data_head(m->consts.data[i], b);
    sb_printf(b, "at %lld\n", (long long)d->parts[k++].offset);
  }
}

/* Everything but data that stand behind the graph. */
static void print_model(const Model *m, const Seen *seen, StrBuf *b) {
  if (m->opset || m->ir_version) {
    sb_printf(b, "model ir %d opset %d", m->ir_version, m->opset);
    if (m->hash) sb_printf(b, " from \"%s\"", m->hash);
    sb_putc(b, '\n');
  }
  print_symbols(m, b);
  if (m->fused || m->laid_out)
    sb_printf(b, "holds%s%s\n", m->fused ? " fused" : "", m->laid_out ? " laid_out" : "");
  print_head(m->main, b);
  for (int i = 0; i < seen->values.n; i++) print_const(m, seen->values.data[i], b, 2);
  print_body(m->main, b, 2);
  sb_printf(b, "}\n");
}

void model_print(const Model *m, StrBuf *b, bool with_consts) {
  Arena *scratch = arena_child(m->arena);
  const Seen seen = see_model(m, scratch);
  const Place *at = places(m, &seen, false);
  bool left_out = m->zeros;
  for (int i = 0; i < m->consts.n && !with_consts; i++) left_out |= at[i] != PLACE_NONE;
  print_model(m, &seen, b);
  if (with_consts) print_trailer(m, at, b);
  if (left_out) sb_printf(b, "data none\n");
  arena_free(scratch);
}

int64_t model_text_bytes(const Model *m) {
  Arena *scratch = arena_child(m->arena);
  const Seen seen = see_model(m, scratch);
  const Place *at = places(m, &seen, true);
  int64_t sum = 0;
  for (int i = 0; i < m->consts.n; i++)
    if (at[i] == PLACE_FILE) sum += data_bytes(m->consts.data[i]);
  arena_free(scratch);
  return sum;
}

void model_print_beside(const Model *m, StrBuf *b, const char *name, TextData *out) {
  Arena *scratch = arena_child(m->arena);
  const Seen seen = see_model(m, scratch);
  const Place *at = places(m, &seen, true);
  print_model(m, &seen, b);
  layout_data(m, at, out);
  print_trailer(m, at, b);
  print_places(m, at, name, out, b);
  if (m->zeros) sb_printf(b, "data none\n");
  arena_free(scratch);
}
