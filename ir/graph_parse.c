/* Parses the text of graph_text.c (grammar in docs/ir.md). Beyond what is printed it takes `//` comments, named
 * values (%x), constants without a number (`const [1,2]`) and nodes without result types, which are then
 * inferred: handy in tests. Texts come from users too: everything is checked, nothing is trusted. */
#include "ir/op.h"
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ID = 1 << 22, MAX_LIST = 1 << 24, MAX_DEPTH = 32 };

typedef struct Named {
  const char *name;
  Value *v;
} Named;

typedef struct Parser {
  Arena *a;
  Model *m;
  const char *text, *s;  /* whole text, cursor */
  const char *file;
  Value **by_id;         /* of %123 */
  int n_ids;
  Vec(Named) named;      /* of %x */
  Vec(ConstData *) unread; /* constants whose data has not been seen */
  bool infer;            /* a node had no types */
  int depth;
} Parser;

static bool parse_graph_body(Parser *p, Graph *g);

/* ---- tokens --------------------------------------------------------------------------------------------- */

static bool fail(Parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(Parser *p, const char *fmt, ...) {
  int line = 1;
  for (const char *c = p->text; c < p->s; c++) line += *c == '\n';
  va_list ap;
  va_start(ap, fmt);
  const char *text = arena_vprintf(p->a, fmt, ap);
  va_end(ap);
  const Loc loc = {.file = p->file, .node = -1};
  return diag_error(p->m->diag, &loc, ERR_PARSE, "line %d: %s", line, text);
}

static void skip(Parser *p) {
  for (;;) {
    while (isspace((unsigned char)*p->s)) p->s++;
    if (p->s[0] != '/' || p->s[1] != '/') return;
    while (*p->s && *p->s != '\n') p->s++;
  }
}

static bool eat(Parser *p, const char *tok) {
  skip(p);
  const size_t n = strlen(tok);
  if (strncmp(p->s, tok, n) != 0) return false;
  if (isalpha((unsigned char)*tok) && (isalnum((unsigned char)p->s[n]) || p->s[n] == '_')) return false;
  p->s += n;
  return true;
}

static bool expect(Parser *p, const char *tok) {
  return eat(p, tok) || fail(p, "expected '%s'", tok);
}

static size_t ident_len(const char *s) {
  size_t n = 0;
  while (isalnum((unsigned char)s[n]) || s[n] == '_') n++;
  return n;
}

static int hex_digit(int c) {
  return isdigit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* At a '"'. */
static bool parse_string(Parser *p, const char **out) {
  skip(p);
  if (*p->s != '"') return fail(p, "expected a string");
  StrBuf b = {.arena = p->a};
  for (p->s++; *p->s != '"'; p->s++) {
    if (!*p->s) return fail(p, "unfinished string");
    if (*p->s != '\\') {
      sb_putc(&b, *p->s);
    } else if (p->s[1] == 'n') {
      sb_putc(&b, '\n');
      p->s++;
    } else if (p->s[1] == 'x' && hex_digit((unsigned char)p->s[2]) >= 0 && hex_digit((unsigned char)p->s[3]) >= 0) {
      sb_putc(&b, (char)(hex_digit((unsigned char)p->s[2]) * 16 + hex_digit((unsigned char)p->s[3])));
      p->s += 3;
    } else if (p->s[1]) {
      sb_putc(&b, *++p->s);
    }
  }
  p->s++;
  *out = sb_str(&b);
  return true;
}

static bool at_string(Parser *p) {
  skip(p);
  return *p->s == '"';
}

static bool parse_ident(Parser *p, const char **out) {
  if (at_string(p)) return parse_string(p, out);
  const size_t n = ident_len(p->s);
  if (n == 0) return fail(p, "expected a name");
  *out = arena_strndup(p->a, p->s, n);
  p->s += n;
  return true;
}

static bool parse_int(Parser *p, int64_t *v) {
  skip(p);
  char *end;
  *v = *p->s == '-' ? strtoll(p->s, &end, 10) : (int64_t)strtoull(p->s, &end, 10);
  if (end == p->s) return fail(p, "expected an integer");
  p->s = end;
  return true;
}

static bool parse_small(Parser *p, int64_t lo, int64_t hi, int *v) {
  int64_t k;
  if (!parse_int(p, &k)) return false;
  if (k < lo || k > hi) return fail(p, "%lld is out of range", (long long)k);
  *v = (int)k;
  return true;
}

/* A number of unknown kind: *is_float when written as one. */
static bool parse_number(Parser *p, bool *is_float, int64_t *i, double *f) {
  skip(p);
  char *end;
  *f = strtod(p->s, &end);
  if (end == p->s) return fail(p, "expected a number");
  *is_float = false;
  for (const char *c = p->s; c < end; c++)
    if (!isdigit((unsigned char)*c) && *c != '-' && *c != '+') *is_float = true;
  if (!*is_float) return parse_int(p, i);
  const bool single = *end == 'f' && !isalnum((unsigned char)end[1]);
  if (single) *f = (float)*f;
  p->s = end + single;
  return true;
}

static const Expr *no_name(void *user, const char *ident) {
  return NULL;
}

static const Expr *parse_expr(Parser *p) {
  const ExprScope scope = {.name = no_name, .hint = DT_I64};
  const char *error = NULL;
  skip(p);
  const Expr *e = expr_parse(p->m->pool, &p->s, &scope, &error);
  if (!e) fail(p, "%s", error ? error : "bad expression");
  if (e && e->dtype != DT_I64) return fail(p, "a size must be i64"), NULL;
  return e;
}

/* ---- values --------------------------------------------------------------------------------------------- */

static Value *new_value(Parser *p, bool numbered, const char *name, int id) {
  Value *v = value_new(p->m, NULL);
  if (numbered) {
    p->m->next_value--; /* ids up to the greatest number in the text were set aside */
    v->id = id;
    p->by_id[id] = v;
  } else {
    vec_push(p->a, &p->named, (Named){name, v});
  }
  return v;
}

static Value *find_value(const Parser *p, bool numbered, const char *name, int id) {
  if (numbered) return id < p->n_ids ? p->by_id[id] : NULL;
  for (int i = 0; i < p->named.n; i++)
    if (strcmp(p->named.data[i].name, name) == 0) return p->named.data[i].v;
  return NULL;
}

/* `%12` or `%x`. */
static bool parse_value_name(Parser *p, bool *numbered, const char **name, int *id) {
  if (!expect(p, "%") || !parse_ident(p, name)) return false;
  *numbered = isdigit((unsigned char)**name);
  const long k = *numbered ? strtol(*name, NULL, 10) : 0;
  if (k >= p->n_ids && *numbered) return fail(p, "value number %s is too large", *name);
  *id = (int)k;
  return true;
}

static bool parse_use(Parser *p, Value **v) {
  bool numbered;
  const char *name;
  int id;
  *v = NULL;
  if (eat(p, "_")) return true;
  if (!parse_value_name(p, &numbered, &name, &id)) return false;
  *v = find_value(p, numbered, name, id);
  return *v || fail(p, "%%%s is not defined", name);
}

static bool parse_dims(Parser *p, Value *v) {
  const Expr *dims[MAX_RANK];
  int rank = 0;
  if (!expect(p, "[")) return false;
  if (eat(p, "*")) {
    v->rank = -1;
    return expect(p, "]");
  }
  while (!eat(p, "]")) {
    if (rank && !expect(p, ",")) return false;
    if (rank == MAX_RANK) return fail(p, "rank above %d", MAX_RANK);
    if (!(dims[rank++] = parse_expr(p))) return false;
  }
  const TypeKind kind = v->kind;
  value_set_tensor(p->m, v, v->dtype, rank, dims);
  v->kind = kind;
  return true;
}

static bool parse_type(Parser *p, Value *v) {
  static const char *const kinds[] = {"seq", "opt", "map"};
  const char *t;
  if (eat(p, "?")) return true;
  v->kind = TY_TENSOR;
  for (int k = 0; k < 3; k++)
    if (eat(p, kinds[k])) v->kind = (TypeKind)(TY_SEQUENCE + k);
  if (!parse_ident(p, &t)) return false;
  v->dtype = dtype_from_text(t);
  if (v->dtype == DT_NONE && strcmp(t, "none") != 0) return fail(p, "unknown type %s", t);
  return parse_dims(p, v);
}

static bool parse_layout(Parser *p, Value *v) {
  int8_t *perm = ARENA_ARRAY(p->a, int8_t, MAX_RANK);
  if (!expect(p, "[")) return false;
  for (int d = 0; d < v->rank; d++) {
    int k;
    if ((d && !expect(p, ",")) || !parse_small(p, 0, v->rank - 1, &k)) return false;
    perm[d] = (int8_t)k;
  }
  v->layout.perm = perm;
  return expect(p, "]");
}

static bool parse_halo(Parser *p, Value *v) {
  int16_t *lo = ARENA_ARRAY(p->a, int16_t, MAX_RANK), *hi = ARENA_ARRAY(p->a, int16_t, MAX_RANK);
  if (!expect(p, "[")) return false;
  for (int d = 0; d < v->rank; d++) {
    int x, y;
    if (d && !expect(p, ",")) return false;
    if (!parse_small(p, 0, INT16_MAX, &x) || !expect(p, ":") || !parse_small(p, 0, INT16_MAX, &y)) return false;
    lo[d] = (int16_t)x;
    hi[d] = (int16_t)y;
  }
  v->layout.halo_lo = lo;
  v->layout.halo_hi = hi;
  return expect(p, "]");
}

/* `%1 : f32[2] layout=[..]`, or `%1` alone when the type is left to inference; `_` is an absent output. */
static bool parse_def(Parser *p, Value **out) {
  bool numbered;
  const char *name;
  int id;
  *out = NULL;
  if (eat(p, "_")) return true;
  if (!parse_value_name(p, &numbered, &name, &id)) return false;
  if (find_value(p, numbered, name, id)) return fail(p, "%%%s is defined twice", name);
  Value *v = *out = new_value(p, numbered, name, id);
  if (!eat(p, ":")) {
    p->infer = true;
    return true;
  }
  if (!parse_type(p, v)) return false;
  if (eat(p, "layout") && !(expect(p, "=") && parse_layout(p, v))) return false;
  if (eat(p, "halo") && !(expect(p, "=") && parse_halo(p, v))) return false;
  v->inlined = eat(p, "inline");
  return true;
}

/* ---- constants ------------------------------------------------------------------------------------------ */

/* Constant #id; made when it is not known yet. id -1: the next free one. */
static ConstData *const_get(Parser *p, int id) {
  static const int64_t none[1] = {0};
  if (id < 0) return const_new(p->m, NULL, DT_NONE, 1, none, NULL);
  while (p->m->consts.n <= id) const_new(p->m, NULL, DT_NONE, 1, none, NULL);
  return p->m->consts.data[id];
}

static bool const_set_type(Parser *p, ConstData *c, const Value *v) {
  int64_t dims[MAX_RANK], count = 1, bytes;
  if (v->kind != TY_TENSOR || v->dtype == DT_NONE || !value_is_static(v, dims)) return fail(p, "a constant has a fixed type");
  for (int d = 0; d < v->rank; d++)
    if (dims[d] < 0 || !ck_mul(count, dims[d], &count)) return fail(p, "bad constant size");
  if (!ck_mul(count, dtype_bytes(v->dtype), &bytes) || bytes > INT64_C(1) << 40) return fail(p, "bad constant size");
  if (c->dtype != DT_NONE) {
    if (c->dtype == v->dtype && c->count == count) return true;
    return fail(p, "constant #%d has two types", c->id);
  }
  c->dtype = v->dtype;
  c->rank = v->rank;
  c->dims = arena_dup(p->a, dims, sizeof *dims * (size_t)v->rank);
  c->count = count;
  vec_push(p->a, &p->unread, c);
  return true;
}

static bool parse_element(Parser *p, ConstData *c, void *data, int64_t i) {
  bool is_float;
  int64_t k = 0;
  double f = 0;
  void *at = (char *)data + i * dtype_bytes(c->dtype);
  if (c->dtype == DT_STR) return parse_string(p, &((const char **)data)[i]);
  if (eat(p, "true")) k = 1;
  else if (!eat(p, "false") && !parse_number(p, &is_float, &k, &f)) return false;
  if (dtype_is_float(c->dtype)) dtype_store_f(c->dtype, at, f);
  else dtype_store_i(c->dtype, at, k);
  return true;
}

static bool parse_hex(Parser *p, unsigned char *data, int64_t bytes) {
  skip(p);
  for (int64_t i = 0; i < bytes; i++, p->s += 2) {
    const int hi = hex_digit((unsigned char)p->s[0]), lo = hi < 0 ? -1 : hex_digit((unsigned char)p->s[1]);
    if (lo < 0) return fail(p, "bad or missing hex data");
    data[i] = (unsigned char)(hi * 16 + lo);
  }
  return true;
}

static bool parse_data(Parser *p, ConstData *c) {
  const int64_t bytes = c->count * dtype_bytes(c->dtype);
  if ((uint64_t)bytes > strlen(p->s) * 8 + 64) return fail(p, "data is shorter than its type says");
  void *data = arena_alloc(p->a, (size_t)bytes + 1);
  c->data = data;
  if (c->dtype != DT_STR && eat(p, "hex")) return parse_hex(p, data, bytes);
  if (!expect(p, "[")) return false;
  for (int64_t i = 0; i < c->count; i++)
    if ((i && !expect(p, ",")) || !parse_element(p, c, data, i)) return false;
  return expect(p, "]");
}

/* After `%1 : f32[2] = const`: `#3 "name" = [1,2]`, every part optional. */
static bool parse_const(Parser *p, Value *v) {
  int id = -1;
  if (eat(p, "#") && !parse_small(p, 0, MAX_ID, &id)) return false;
  ConstData *c = const_get(p, id);
  if (at_string(p) && !parse_string(p, &v->name)) return false;
  if (!const_set_type(p, c, v)) return false;
  if (v->name) c->name = v->name;
  v->cdata = c;
  const bool has_data = eat(p, "=") || (skip(p), *p->s == '[');
  return !has_data || parse_data(p, c);
}

static bool parse_trailer(Parser *p) {
  int id;
  Value v = {0};
  if (!expect(p, "#") || !parse_small(p, 0, MAX_ID, &id) || !expect(p, ":") || !parse_type(p, &v)) return false;
  ConstData *c = const_get(p, id);
  if (!const_set_type(p, c, &v)) return false;
  if (at_string(p) && !parse_string(p, &c->name)) return false;
  return expect(p, "=") && parse_data(p, c);
}

/* Constants without data are zeros: a text without its trailer can still be checked and transformed. */
static bool fill_unread(Parser *p) {
  for (int i = 0; i < p->unread.n; i++) {
    ConstData *c = p->unread.data[i];
    if (c->data) continue;
    const int64_t bytes = c->count * dtype_bytes(c->dtype);
    if (bytes > 1 << 30) return fail(p, "constant #%d has no data and is large", c->id);
    const char **s = arena_alloc(p->a, (size_t)bytes + 1);
    for (int64_t k = 0; c->dtype == DT_STR && k < c->count; k++) s[k] = "";
    c->data = s;
  }
  for (int i = 0; i < p->m->consts.n; i++)
    if (p->m->consts.data[i]->dtype == DT_NONE) *(ConstData *)p->m->consts.data[i] = (ConstData){.id = i, .dtype = DT_U8, .rank = 1, .dims = p->m->consts.data[i]->dims, .data = ""};
  return true;
}

/* ---- attributes ----------------------------------------------------------------------------------------- */

static bool parse_attr_list(Parser *p, Attr *at) {
  Vec(int64_t) ints = {0};
  Vec(double) floats = {0};
  Vec(const char *) strs = {0};
  while (!eat(p, "]")) {
    bool is_float = false;
    int64_t i = 0;
    double f = 0;
    const char *s = "";
    if (at->n && !expect(p, ",")) return false;
    if (at_string(p)) {
      if (!parse_string(p, &s)) return false;
      at->kind = AT_STRINGS;
    } else {
      if (!parse_number(p, &is_float, &i, &f)) return false;
      if (at->n == 0) at->kind = is_float ? AT_FLOATS : AT_INTS;
      if (is_float && at->kind == AT_INTS) at->kind = AT_FLOATS;
    }
    vec_push(p->a, &ints, i);
    vec_push(p->a, &floats, is_float ? f : (double)i);
    vec_push(p->a, &strs, s);
    if (++at->n > MAX_LIST) return fail(p, "list is too long");
  }
  at->ints = at->kind == AT_INTS ? ints.data : NULL;
  at->floats = at->kind == AT_FLOATS ? floats.data : NULL;
  at->strs = at->kind == AT_STRINGS ? strs.data : NULL;
  return true;
}

static bool parse_attr_graph(Parser *p, Node *n, Attr *at) {
  const char *name = NULL;
  at->kind = AT_GRAPH;
  at->n = 1;
  if (!expect(p, "@") || !parse_ident(p, &name) || !expect(p, "{")) return false;
  if (++p->depth > MAX_DEPTH) return fail(p, "regions are nested too deeply");
  at->graph = graph_new(p->m, n->graph, name);
  at->graph->owner = n;
  const bool ok = parse_graph_body(p, at->graph);
  p->depth--;
  return ok;
}

static bool parse_attr_scalar(Parser *p, Attr *at) {
  bool is_float;
  int64_t i;
  double f;
  const char *s;
  if (at_string(p)) {
    if (!parse_string(p, &s)) return false;
    *at = attr_string(p->a, at->name, s);
    return true;
  }
  if (!parse_number(p, &is_float, &i, &f)) return false;
  *at = is_float ? attr_float(p->a, at->name, f) : attr_int(p->a, at->name, i);
  return true;
}

static bool parse_attr(Parser *p, Node *n) {
  Attr at = {.kind = AT_INTS};
  int id;
  if (!parse_ident(p, &at.name) || !expect(p, "=")) return false;
  if (eat(p, "#")) {
    if (!parse_small(p, 0, MAX_ID, &id)) return false;
    at = (Attr){.name = at.name, .kind = AT_TENSOR, .n = 1, .tensor = const_get(p, id)};
  } else if (eat(p, "graph")) {
    if (!parse_attr_graph(p, n, &at)) return false;
  } else {
    if (eat(p, "floats")) at.kind = AT_FLOATS;
    else if (eat(p, "strings")) at.kind = AT_STRINGS;
    else eat(p, "ints");
    if (eat(p, "[") ? !parse_attr_list(p, &at) : !parse_attr_scalar(p, &at)) return false;
  }
  node_set_attr(n, at);
  return true;
}

static bool parse_attrs(Parser *p, Node *n) {
  if (!eat(p, "{") || eat(p, "}")) return true;
  do {
    if (!parse_attr(p, n)) return false;
  } while (eat(p, ","));
  return expect(p, "}");
}

/* ---- nodes ---------------------------------------------------------------------------------------------- */

static bool parse_sym(Parser *p, SymDef *s) {
  *s = (SymDef){0};
  if (!(s->sym = parse_expr(p)) || !expect(p, "=")) return false;
  if (s->sym->op != EX_SYM) return fail(p, "only symbols can be assigned");
  skip(p);
  if (*p->s == '%') return parse_use(p, &s->src) && expect(p, "[") && parse_int(p, &s->elem) && expect(p, "]");
  if (!(s->value = parse_expr(p))) return false;
  return !eat(p, "key") || parse_int(p, &s->elem);
}

static bool parse_syms(Parser *p, Node *n) {
  Vec(SymDef) list = {0};
  if (!eat(p, "where")) return true;
  do {
    SymDef s;
    if (!parse_sym(p, &s)) return false;
    vec_push(p->a, &list, s);
  } while (eat(p, ","));
  n->syms = list.data;
  n->n_syms = list.n;
  return true;
}

static bool parse_loc_tail(Parser *p, Loc *l) {
  if (!eat(p, "(")) return true;
  if (!parse_small(p, -1, INT32_MAX, &l->node) || !parse_string(p, &l->op)) return false;
  if (at_string(p) && !parse_string(p, &l->domain)) return false;
  if (!parse_small(p, 0, INT32_MAX, &l->opset)) return false;
  if (eat(p, "in") && !parse_string(p, &l->graph)) return false;
  if (!*l->op) l->op = NULL;
  return expect(p, ")");
}

static bool parse_loc(Parser *p, const Loc **out) {
  Loc *first = ARENA_NEW(p->a, Loc), *l = first;
  *first = (Loc){.file = p->file, .node = -1};
  *out = first;
  for (bool more = false; eat(p, "@"); more = true) {
    if (more) {
      Loc *next = ARENA_NEW(p->a, Loc);
      *next = (Loc){.file = p->file, .node = -1};
      l->also = next;
      l = next;
    }
    if (!parse_string(p, &l->node_name) || !parse_loc_tail(p, l)) return false;
    if (!*l->node_name) l->node_name = NULL;
  }
  return true;
}

/* `Add` or `ai.onnx.ml.Scaler` */
static bool parse_op(Parser *p, const OpRow **op) {
  skip(p);
  size_t n = 0, dot = 0;
  for (; isalnum((unsigned char)p->s[n]) || p->s[n] == '_' || p->s[n] == '.' || p->s[n] == '-'; n++)
    if (p->s[n] == '.') dot = n;
  const char *domain = arena_strndup(p->a, p->s, dot);
  const char *name = arena_strndup(p->a, p->s + dot + (dot > 0), n - dot - (dot > 0));
  if (!(*op = op_find(domain, name))) return fail(p, "unknown operator '%.*s'", (int)n, p->s);
  p->s += n;
  return true;
}

static bool parse_ins(Parser *p, Value ***ins, int *count) {
  Vec(Value *) list = {0};
  skip(p);
  if (*p->s == '%' || (*p->s == '_' && ident_len(p->s) == 1)) {
    do {
      Value *v;
      if (!parse_use(p, &v)) return false;
      vec_push(p->a, &list, v);
    } while (eat(p, ","));
  }
  *ins = list.data;
  *count = list.n;
  return true;
}

static void set_outputs(Node *n, Value **out, int count) {
  n->out = out;
  n->n_out = count;
  for (int k = 0; k < count; k++) {
    if (!out[k]) continue;
    out[k]->def = n;
    out[k]->def_index = k;
  }
}

/* After the results and `=`. */
static bool parse_node(Parser *p, Graph *g, Value **out, int n_out) {
  const OpRow *op;
  Value **ins;
  int n_in;
  if (!parse_op(p, &op) || !parse_ins(p, &ins, &n_in)) return false;
  Node *n = graph_add_node(g, NULL, op, n_in, ins, NULL);
  /* The node follows the nodes of its regions nowhere: regions have lists of their own. */
  if (!parse_attrs(p, n) || !parse_syms(p, n) || !parse_loc(p, &n->loc)) return false;
  set_outputs(n, out, n_out);
  return true;
}

static bool parse_input(Parser *p, Graph *g, Value *v) {
  if (at_string(p) && !parse_string(p, &v->name)) return false;
  vec_push(p->a, &g->inputs, v);
  return true;
}

static bool parse_output(Parser *p, Graph *g) {
  Value *v;
  const char *name = NULL;
  if (!parse_use(p, &v)) return false;
  if (!v) return fail(p, "an output cannot be absent");
  if (at_string(p) && !parse_string(p, &name)) return false;
  vec_push(p->a, &g->outputs, v);
  vec_push(p->a, &g->output_names, name);
  return true;
}

static bool parse_line(Parser *p, Graph *g) {
  Vec(Value *) out = {0};
  if (eat(p, "output")) return parse_output(p, g);
  if (!eat(p, "()")) {
    do {
      Value *v;
      if (!parse_def(p, &v)) return false;
      vec_push(p->a, &out, v);
    } while (eat(p, ","));
  }
  if (!expect(p, "=")) return false;
  const bool single = out.n == 1 && out.data[0];
  if (single && eat(p, "input")) return parse_input(p, g, out.data[0]);
  if (single && eat(p, "const")) return parse_const(p, out.data[0]);
  return parse_node(p, g, out.data, out.n);
}

static bool parse_graph_body(Parser *p, Graph *g) {
  while (!eat(p, "}"))
    if (!*p->s ? !fail(p, "unfinished graph") : !parse_line(p, g)) return false;
  return true;
}

/* ---- the model ------------------------------------------------------------------------------------------ */

static bool parse_symbol(Parser *p) {
  const Expr *e = parse_expr(p);
  if (!e) return false;
  if (e->op != EX_SYM) return fail(p, "expected a symbol");
  Symbol *s = expr_symbol(p->m->pool, e->id);
  if (eat(p, "from") && !parse_int(p, &s->lo)) return false;
  if (eat(p, "to")) {
    const Expr *bound = parse_expr(p);
    if (!bound) return false;
    s = expr_symbol(p->m->pool, e->id);
    s->bound = bound;
  }
  s->runtime = eat(p, "runtime");
  return true;
}

/* Symbols get their numbers in the order of their lines, though a bound may name a later one. */
static bool number_symbols(Parser *p) {
  for (const char *s = p->text; (s = strstr(s, "symbol $")); s++) {
    if (s > p->text && s[-1] != '\n') continue;
    p->s = s + strlen("symbol");
    if (!parse_expr(p)) return false;
  }
  p->s = p->text;
  return true;
}

static bool parse_assume(Parser *p) {
  const Loc *loc;
  const Expr *a = parse_expr(p), *b = a && expect(p, ",") ? parse_expr(p) : NULL;
  if (!b) return false;
  /* Which region does not matter to the text. */
  Graph *any = eat(p, "region") ? graph_new(p->m, NULL, "region") : NULL;
  if (!parse_loc(p, &loc)) return false;
  vec_push(p->a, &p->m->assumes, (DimAssume){.a = a, .b = b, .graph = any, .loc = loc});
  return true;
}

static bool parse_header(Parser *p) {
  return expect(p, "ir") && parse_small(p, 0, INT32_MAX, &p->m->ir_version) && expect(p, "opset") &&
         parse_small(p, 0, INT32_MAX, &p->m->opset);
}

static bool parse_main(Parser *p) {
  const char *name;
  if (p->m->main) return fail(p, "a second main graph");
  if (!expect(p, "@") || !parse_ident(p, &name) || !expect(p, "{")) return false;
  p->m->main = graph_new(p->m, NULL, name);
  return parse_graph_body(p, p->m->main);
}

static bool parse_model(Parser *p) {
  for (skip(p); *p->s; skip(p)) {
    const bool ok = eat(p, "model")    ? parse_header(p)
                    : eat(p, "symbol") ? parse_symbol(p)
                    : eat(p, "assume") ? parse_assume(p)
                    : eat(p, "graph")  ? parse_main(p)
                    : eat(p, "data")   ? parse_trailer(p)
                                       : fail(p, "expected model, symbol, assume, graph or data");
    if (!ok) return false;
  }
  return p->m->main ? fill_unread(p) : fail(p, "no graph");
}

/* Room for all %numbers, and names get ids behind them. */
static bool reserve_ids(Parser *p) {
  long max = -1;
  for (const char *s = p->text; (s = strchr(s, '%')); s++) {
    const long k = isdigit((unsigned char)s[1]) ? strtol(s + 1, NULL, 10) : -1;
    if (k > MAX_ID) return fail(p, "value numbers go up to %d", MAX_ID);
    if (k > max) max = k;
  }
  p->n_ids = (int)max + 1;
  p->by_id = ARENA_ARRAY(p->a, Value *, p->n_ids + 1);
  p->m->next_value = p->n_ids;
  return true;
}

Model *model_parse(Arena *a, Diag *d, const char *text, const char *file) {
  Parser p = {.a = a, .m = model_new(a, d), .text = text, .s = text, .file = file};
  p.m->file = file;
  if (!reserve_ids(&p) || !number_symbols(&p) || !parse_model(&p)) return NULL;
  return !p.infer || graph_infer(p.m->main) ? p.m : NULL;
}
