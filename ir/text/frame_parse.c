/* Parses what stands around a graph and around a program alike (frame_text.c). Texts come from users
 * too: everything is checked, nothing is trusted. */
#define XXH_INLINE_ALL
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "ir/text/frame.h"

static const Expr *no_name(void *user, const char *ident) { return NULL; }

const Expr *frame_parse_expr(TextParser *p) {
  const ExprScope scope = {.name = no_name, .hint = DT_I64};
  const char *error = NULL;
  tok_skip(p);
  const Expr *e = expr_parse(p->m->pool, &p->s, &scope, &error);
  if (!e) tok_fail(p, "%s", error ? error : "bad expression");
  if (e && e->dtype != DT_I64) return tok_fail(p, "a size must be i64"), NULL;
  return e;
}

static bool parse_dims(TextParser *p, Value *v) {
  const Expr *dims[MAX_RANK];
  int rank = 0;
  if (!tok_expect(p, "[")) return false;
  if (tok_eat(p, "*")) {
    v->rank = -1;
    return tok_expect(p, "]");
  }
  while (!tok_eat(p, "]")) {
    if (rank && !tok_expect(p, ",")) return false;
    if (rank == MAX_RANK) return tok_fail(p, "rank above %d", MAX_RANK);
    if (!(dims[rank++] = frame_parse_expr(p))) return false;
  }
  const TypeKind kind = v->kind;
  value_set_tensor(p->m, v, v->dtype, rank, dims);
  v->kind = kind;
  return true;
}

bool frame_parse_type(TextParser *p, Value *v) {
  static const char *const kinds[] = {"seq", "opt", "map"};
  const char *t;
  if (tok_eat(p, "?")) return true;
  v->kind = TY_TENSOR;
  for (int k = 0; k < 3; k++)
    if (tok_eat(p, kinds[k])) v->kind = (TypeKind)(TY_SEQUENCE + k);
  if (!tok_ident(p, &t)) return false;
  v->dtype = dtype_from_text(t);
  if (v->dtype == DT_NONE && strcmp(t, "none") != 0) return tok_fail(p, "unknown type %s", t);
  return parse_dims(p, v);
}

/* Constant #id; made when it is not known yet. id -1: the next free one. */
ConstData *frame_const(TextParser *p, int id) {
  static const int64_t none[1] = {0};
  if (id < 0) return const_new(p->m, NULL, DT_NONE, 1, none, NULL);
  while (p->m->consts.n <= id) const_new(p->m, NULL, DT_NONE, 1, none, NULL);
  return p->m->consts.data[id];
}

bool frame_const_type(TextParser *p, ConstData *c, const Value *v) {
  int64_t dims[MAX_RANK], count = 1, bytes;
  if (v->kind != TY_TENSOR || v->dtype == DT_NONE || !value_is_static(v, dims))
    return tok_fail(p, "a constant has a fixed type");
  for (int d = 0; d < v->rank; d++)
    if (dims[d] < 0 || !ck_mul(count, dims[d], &count)) return tok_fail(p, "bad constant size");
  if (!ck_mul(count, dtype_bytes(v->dtype), &bytes) || bytes > INT64_C(1) << 40)
    return tok_fail(p, "bad constant size");
  if (c->dtype != DT_NONE) {
    if (c->dtype == v->dtype && c->count == count) return true;
    return tok_fail(p, "constant #%d has two types", c->id);
  }
  c->dtype = v->dtype;
  c->rank = v->rank;
  c->dims = arena_dup(p->a, dims, sizeof *dims * (size_t)v->rank);
  c->count = count;
  vec_push(p->a, &p->unread, c);
  return true;
}

static bool parse_element(TextParser *p, ConstData *c, void *data, int64_t i) {
  bool is_float;
  int64_t k = 0;
  double f = 0;
  void *at = (char *)data + i * dtype_bytes(c->dtype);
  if (c->dtype == DT_STR) return tok_string(p, &((const char **)data)[i]);
  if (tok_eat(p, "true"))
    k = 1;
  else if (!tok_eat(p, "false") && !tok_number(p, &is_float, &k, &f))
    return false;
  if (dtype_is_float(c->dtype))
    dtype_store_f(c->dtype, at, f);
  else
    dtype_store_i(c->dtype, at, k);
  return true;
}

static bool parse_hex(TextParser *p, unsigned char *data, int64_t bytes) {
  tok_skip(p);
  for (int64_t i = 0; i < bytes; i++, p->s += 2) {
    const int hi = tok_hex_digit((unsigned char)p->s[0]),
              lo = hi < 0 ? -1 : tok_hex_digit((unsigned char)p->s[1]);
    if (lo < 0) return tok_fail(p, "bad or missing hex data");
    data[i] = (unsigned char)(hi * 16 + lo);
  }
  return true;
}

/* `at 128`: in the file beside the text. */
static bool parse_place(TextParser *p, ConstData *c, int64_t bytes) {
  int64_t at;
  if (!tok_int(p, &at)) return false;
  if (!p->weights) return tok_fail(p, "no weights line stands before this");
  if (c->dtype == DT_STR || at < 0 || at > p->weights_bytes || bytes > p->weights_bytes - at)
    return tok_fail(p, "this place is outside the weights");
  if (at % 16) return tok_fail(p, "weights are aligned to 16 bytes");
  c->data = p->weights + at;
  return true;
}

bool frame_parse_list(TextParser *p, Graph *g, bool output) {
  Value v = {.rank = -1};
  const int k = (output ? g->outputs.n : g->inputs.n) - 1;
  const Value *const given = output ? g->outputs.data[k] : g->inputs.data[k];
  if (!tok_eat(p, "list")) return true;
  const bool optional = tok_eat(p, "opt");
  if (!frame_parse_type(p, &v)) return false;
  const bool sequence = v.kind == TY_SEQUENCE;
  if (v.dtype == DT_NONE || (v.kind != TY_TENSOR && !sequence) || (!sequence && !optional))
    return tok_fail(p, "a list is a sequence, or an optional tensor or sequence");
  if (g->parent ||
      (!output && (given->dtype != DT_I64 || given->rank != 1 || !expr_is_i64(given->dims[0], 2))))
    return tok_fail(p, "a list is i64[2], and of the main graph");
  int64_t *const dims = ARENA_ARRAY(p->a, int64_t, MAX_RANK);
  for (int d = 0; d < v.rank; d++)
    if (!expr_is_const(v.dims[d], &dims[d])) return tok_fail(p, "sizes of items are numbers");
  ListType *const l = ARENA_NEW(p->a, ListType);
  *l = (ListType){!optional  ? LIST_SEQUENCE
                  : sequence ? LIST_OPTIONAL_SEQUENCE
                             : LIST_OPTIONAL,
                  v.dtype, v.rank, dims};
  graph_set_list(g, k, output, l);
  return true;
}

bool frame_parse_keys(TextParser *p, const ConstData **keys) {
  Vec(int64_t) ints = {0};
  Vec(const char *) texts = {0};
  *keys = NULL;
  if (!tok_eat(p, "keys")) return true;
  if (!tok_expect(p, "[")) return false;
  do {
    const char *text;
    int64_t v;
    if (tok_at_string(p)) {
      if (!tok_string(p, &text)) return false;
      vec_push(p->a, &texts, text);
    } else {
      if (!tok_int(p, &v)) return false;
      vec_push(p->a, &ints, v);
    }
  } while (tok_eat(p, ","));
  if (ints.n && texts.n) return tok_fail(p, "keys are integers or strings");
  const int64_t n = ints.n ? ints.n : texts.n;
  const void *const data = ints.n ? (const void *)ints.data : (const void *)texts.data;
  ConstData *const c = ARENA_NEW(p->a, ConstData);
  *c = (ConstData){.dtype = ints.n ? DT_I64 : DT_STR,
                   .rank = 1,
                   .dims = arena_dup(p->a, &n, sizeof n),
                   .count = n,
                   .data = data};
  *keys = c;
  return tok_expect(p, "]");
}

bool frame_parse_data(TextParser *p, ConstData *c) {
  const int64_t bytes = c->count * dtype_bytes(c->dtype);
  if (tok_eat(p, "at")) return parse_place(p, c, bytes);
  if ((uint64_t)bytes > strlen(p->s) * 8 + 64)
    return tok_fail(p, "data is shorter than its type says");
  void *data = arena_alloc(p->a, (size_t)bytes + 1);
  c->data = data;
  if (c->dtype != DT_STR && tok_eat(p, "hex")) return parse_hex(p, data, bytes);
  if (!tok_expect(p, "[")) return false;
  for (int64_t i = 0; i < c->count; i++)
    if ((i && !tok_expect(p, ",")) || !parse_element(p, c, data, i)) return false;
  return tok_expect(p, "]");
}

/* weights "NAME" bytes N hash "H" */
static bool parse_weights(TextParser *p) {
  const char *name, *hash;
  int64_t bytes, has = 0;
  if (!tok_string(p, &name) || !tok_expect(p, "bytes") || !tok_int(p, &bytes) ||
      !tok_expect(p, "hash") || !tok_string(p, &hash))
    return false;
  if (!p->data) return tok_fail(p, "a text without a folder cannot have weights in a file");
  if (!(p->weights = p->data(p->user, name, &has))) return false;
  const Loc loc = {.file = p->file, .node = -1};
  if (has != bytes)
    return diag_error(p->m->diag, &loc, ERR_EXTERNAL, "weights \"%s\" has %lld bytes, not %lld",
                      name, (long long)has, (long long)bytes);
  const XXH128_hash_t h = XXH3_128bits(p->weights, (size_t)has);
  if (strcmp(hash, arena_printf(p->a, "%016llx%016llx", (unsigned long long)h.high64,
                                (unsigned long long)h.low64)) != 0)
    return diag_error(p->m->diag, &loc, ERR_EXTERNAL,
                      "weights \"%s\" are not those of this text: another hash", name);
  p->weights_bytes = has;
  return true;
}

static bool parse_trailer(TextParser *p) {
  int id;
  Value v = {0};
  if (tok_eat(p, "none")) return p->m->zeros = true;
  if (!tok_expect(p, "#") || !tok_small(p, 0, MAX_ID, &id) || !tok_expect(p, ":") ||
      !frame_parse_type(p, &v))
    return false;
  ConstData *c = frame_const(p, id);
  if (!frame_const_type(p, c, &v)) return false;
  if (tok_at_string(p) && !tok_string(p, &c->name)) return false;
  return tok_expect(p, "=") && frame_parse_data(p, c);
}

/* Constants without data are zeros: a text without its trailer can still be checked and
 * transformed, but no code is made of it (Model.missing, zeros). */
bool frame_fill_unread(TextParser *p) {
  for (int i = 0; i < p->unread.n; i++) {
    ConstData *c = p->unread.data[i];
    if (c->data) continue;
    if (!p->m->zeros && !p->m->missing) p->m->missing = c;
    const int64_t bytes = c->count * dtype_bytes(c->dtype);
    if (bytes > 1 << 30) return tok_fail(p, "constant #%d has no data and is large", c->id);
    const char **s = arena_alloc(p->a, (size_t)bytes + 1);
    for (int64_t k = 0; c->dtype == DT_STR && k < c->count; k++) s[k] = "";
    c->data = s;
  }
  for (int i = 0; i < p->m->consts.n; i++)
    if (p->m->consts.data[i]->dtype == DT_NONE)
      *(ConstData *)p->m->consts.data[i] = (ConstData){
          .id = i, .dtype = DT_U8, .rank = 1, .dims = p->m->consts.data[i]->dims, .data = ""};
  return true;
}

static bool parse_loc_tail(TextParser *p, Loc *l) {
  if (!tok_eat(p, "(")) return true;
  if (!tok_small(p, -1, INT32_MAX, &l->node) || !tok_string(p, &l->op)) return false;
  if (tok_at_string(p) && !tok_string(p, &l->domain)) return false;
  if (!tok_small(p, 0, INT32_MAX, &l->opset)) return false;
  if (tok_eat(p, "in") && !tok_string(p, &l->graph)) return false;
  if (!*l->op) l->op = NULL;
  return tok_expect(p, ")");
}

bool frame_parse_loc(TextParser *p, const Loc **out) {
  Loc *first = ARENA_NEW(p->a, Loc), *l = first;
  *first = (Loc){.file = p->file, .node = -1};
  *out = first;
  for (bool more = false; tok_eat(p, "@"); more = true) {
    if (more) {
      Loc *next = ARENA_NEW(p->a, Loc);
      *next = (Loc){.file = p->file, .node = -1};
      l->also = next;
      l = next;
    }
    if (!tok_string(p, &l->node_name) || !parse_loc_tail(p, l)) return false;
    if (!*l->node_name) l->node_name = NULL;
  }
  return true;
}

bool frame_number_symbols(TextParser *p) {
  for (const char *s = p->text; (s = strstr(s, "symbol $")); s++) {
    const char *before = s;
    while (before > p->text && before[-1] == ' ') before--;
    if (before > p->text && before[-1] != '\n') continue;
    p->s = s + strlen("symbol");
    if (!frame_parse_expr(p)) return false;
  }
  p->s = p->text;
  return true;
}

static bool parse_assume(TextParser *p) {
  DimAssume x = {.kind = ASSUME_EQUAL};
  while (x.kind <= ASSUME_MULTIPLE && !tok_eat(p, assume_name(x.kind))) x.kind++;
  if (x.kind > ASSUME_MULTIPLE) return tok_fail(p, "expected the kind of an assumption");
  x.a = frame_parse_expr(p);
  x.b = x.a && tok_expect(p, ",") ? frame_parse_expr(p) : NULL;
  if (!x.b || (tok_at_string(p) && !tok_string(p, &x.what))) return false;
  if (tok_eat(p, "region")) {
    if (!p->m->read_region) p->m->read_region = graph_new(p->m, NULL, "region");
    x.graph = p->m->read_region;
  }
  if (!frame_parse_loc(p, &x.loc)) return false;
  vec_push(p->a, &p->m->assumes, x);
  return true;
}

static bool parse_in_place(TextParser *p) {
  InPlace x;
  if (!tok_small(p, 0, INT32_MAX, &x.input) || !tok_small(p, 0, INT32_MAX, &x.output) ||
      !tok_expect(p, "axis") || !tok_small(p, -1, MAX_RANK - 1, &x.axis) ||
      !tok_expect(p, "room") || !tok_int(p, &x.room))
    return false;
  vec_push(p->a, &p->m->in_place, x);
  return true;
}

static bool parse_state(TextParser *p) {
  StateItem s = {.output = -1};
  int kind = 0;
  if (!tok_string(p, &s.name)) return false;
  while (kind <= STATE_SCALE && !tok_eat(p, state_kind_names[kind])) kind++;
  if (kind > STATE_SCALE) return tok_fail(p, "expected the kind of a tensor of the state");
  s.kind = (StateKind)kind;
  if (!tok_expect(p, "input") || !tok_small(p, 0, INT32_MAX, &s.input) ||
      (tok_eat(p, "output") && !tok_small(p, 0, INT32_MAX, &s.output)) || !tok_expect(p, "at") ||
      !tok_int(p, &s.offset) || !tok_expect(p, "bytes") || !tok_int(p, &s.bytes))
    return false;
  vec_push(p->a, &p->m->state, s);
  return true;
}

static bool parse_head(TextParser *p) {
  return tok_expect(p, "ir") && tok_small(p, 0, INT32_MAX, &p->m->ir_version) &&
         tok_expect(p, "opset") && tok_small(p, 0, INT32_MAX, &p->m->opset) &&
         (!tok_eat(p, "from") || tok_string(p, &p->m->hash));
}

/* `a,b,c`, or `none`. */
static bool parse_todo(TextParser *p) {
  StrBuf b = {.arena = p->a};
  if (p->m->todo) return tok_fail(p, "a second todo");
  p->m->todo = "";
  if (tok_eat(p, "none")) return true;
  do {
    const char *name;
    if (!tok_ident(p, &name)) return false;
    sb_printf(&b, "%s%s", b.n ? "," : "", name);
  } while (tok_eat(p, ","));
  p->m->todo = sb_str(&b);
  return true;
}

bool frame_parse_part(TextParser *p, bool *ok) {
  static const struct {
    const char *word;
    bool (*parse)(TextParser *p);
  } parts[] = {{"model", parse_head},        {"todo", parse_todo},   {"assume", parse_assume},
               {"in_place", parse_in_place}, {"state", parse_state}, {"weights", parse_weights},
               {"data", parse_trailer}};
  for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
    if (tok_eat(p, parts[k].word)) return *ok = parts[k].parse(p), true;
  return false;
}
