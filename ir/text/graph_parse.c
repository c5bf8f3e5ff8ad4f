/* Parses the text of graph_text.c (grammar in docs/ir.md). Beyond what is printed it takes `//`
 * comments, named values (%x), constants without a number (`const [1,2]`) and nodes without result
 * types, which are then inferred: handy in tests. Texts come from users too: everything is checked,
 * nothing is trusted. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "ir/text/frame.h"

typedef TextParser Parser;
enum { MAX_LIST = 1 << 24, MAX_DEPTH = 32 };

static bool parse_graph_body(Parser *p, Graph *g);

/* ---- values ---- */

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
  if (!tok_expect(p, "%") || !tok_ident(p, name)) return false;
  *numbered = isdigit((unsigned char)**name);
  const long k = *numbered ? strtol(*name, NULL, 10) : 0;
  if (k >= p->n_ids && *numbered) return tok_fail(p, "value number %s is too large", *name);
  *id = (int)k;
  return true;
}

static bool parse_use(Parser *p, Value **v) {
  bool numbered;
  const char *name;
  int id;
  *v = NULL;
  if (tok_eat(p, "_")) return true;
  if (!parse_value_name(p, &numbered, &name, &id)) return false;
  *v = find_value(p, numbered, name, id);
  return *v || tok_fail(p, "%%%s is not defined", name);
}

static bool parse_layout(Parser *p, Value *v) {
  int8_t *perm = ARENA_ARRAY(p->a, int8_t, MAX_RANK);
  if (!tok_expect(p, "[")) return false;
  for (int d = 0; d < v->rank; d++) {
    int k;
    if ((d && !tok_expect(p, ",")) || !tok_small(p, 0, v->rank - 1, &k)) return false;
    perm[d] = (int8_t)k;
  }
  v->layout.perm = perm;
  return tok_expect(p, "]");
}

static bool parse_halo(Parser *p, Value *v) {
  int16_t *lo = ARENA_ARRAY(p->a, int16_t, MAX_RANK), *hi = ARENA_ARRAY(p->a, int16_t, MAX_RANK);
  if (!tok_expect(p, "[")) return false;
  for (int d = 0; d < v->rank; d++) {
    int x, y;
    if (d && !tok_expect(p, ",")) return false;
    if (!tok_small(p, 0, INT16_MAX, &x) || !tok_expect(p, ":") || !tok_small(p, 0, INT16_MAX, &y))
      return false;
    lo[d] = (int16_t)x;
    hi[d] = (int16_t)y;
  }
  v->layout.halo_lo = lo;
  v->layout.halo_hi = hi;
  return tok_expect(p, "]");
}

/* `%1 : f32[2] layout=[..]`, or `%1` alone when the type is left to inference; `_` is an absent
 * output. */
static bool parse_def(Parser *p, Value **out) {
  bool numbered;
  const char *name;
  int id;
  *out = NULL;
  if (tok_eat(p, "_")) return true;
  if (!parse_value_name(p, &numbered, &name, &id)) return false;
  if (find_value(p, numbered, name, id)) return tok_fail(p, "%%%s is defined twice", name);
  Value *v = *out = new_value(p, numbered, name, id);
  if (!tok_eat(p, ":")) {
    p->infer = true;
    return true;
  }
  if (!frame_parse_type(p, v)) return false;
  if (tok_eat(p, "layout") && !(tok_expect(p, "=") && parse_layout(p, v))) return false;
  if (tok_eat(p, "halo") && !(tok_expect(p, "=") && parse_halo(p, v))) return false;
  int pad = 0, fill = 0;
  if (tok_eat(p, "fill") && !(tok_expect(p, "=") && tok_small(p, -128, 255, &fill))) return false;
  v->layout.fill = (int16_t)fill;
  if (tok_eat(p, "pad") && !(tok_expect(p, "=") && tok_small(p, 0, INT16_MAX, &pad))) return false;
  v->layout.pad = (int16_t)pad;
  v->inlined = tok_eat(p, "inline");
  return true;
}

/* ---- constants ---- */

/* After `%1 : f32[2] = const`: `#3 "name" = [1,2]`, every part optional. */
static bool parse_const(Parser *p, Value *v) {
  int id = -1;
  if (tok_eat(p, "#") && !tok_small(p, 0, MAX_ID, &id)) return false;
  ConstData *c = frame_const(p, id);
  if (tok_at_string(p) && !tok_string(p, &v->name)) return false;
  if (!frame_const_type(p, c, v)) return false;
  if (v->name) c->name = v->name;
  v->cdata = c;
  const bool has_data = tok_eat(p, "=") || (tok_skip(p), *p->s == '[');
  return !has_data || frame_parse_data(p, c);
}

/* ---- attributes ---- */

static bool parse_attr_list(Parser *p, Attr *at) {
  Vec(int64_t) ints = {0};
  Vec(double) floats = {0};
  Vec(const char *) strs = {0};
  while (!tok_eat(p, "]")) {
    bool is_float = false;
    int64_t i = 0;
    double f = 0;
    const char *s = "";
    if (at->n && !tok_expect(p, ",")) return false;
    if (tok_at_string(p)) {
      if (!tok_string(p, &s)) return false;
      at->kind = AT_STRINGS;
    } else {
      if (!tok_number(p, &is_float, &i, &f)) return false;
      if (at->n == 0) at->kind = is_float ? AT_FLOATS : AT_INTS;
      if (is_float && at->kind == AT_INTS) at->kind = AT_FLOATS;
    }
    vec_push(p->a, &ints, i);
    vec_push(p->a, &floats, is_float ? f : (double)i);
    vec_push(p->a, &strs, s);
    if (++at->n > MAX_LIST) return tok_fail(p, "list is too long");
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
  if (!tok_expect(p, "@") || !tok_ident(p, &name) || !tok_expect(p, "{")) return false;
  if (++p->depth > MAX_DEPTH) return tok_fail(p, "regions are nested too deeply");
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
  if (tok_at_string(p)) {
    if (!tok_string(p, &s)) return false;
    *at = attr_string(p->a, at->name, s);
    return true;
  }
  if (!tok_number(p, &is_float, &i, &f)) return false;
  *at = is_float ? attr_float(p->a, at->name, f) : attr_int(p->a, at->name, i);
  return true;
}

static bool parse_attr(Parser *p, Node *n) {
  Attr at = {.kind = AT_INTS};
  int id;
  if (!tok_ident(p, &at.name) || !tok_expect(p, "=")) return false;
  if (tok_eat(p, "#")) {
    if (!tok_small(p, 0, MAX_ID, &id)) return false;
    at = (Attr){.name = at.name, .kind = AT_TENSOR, .n = 1, .tensor = frame_const(p, id)};
  } else if (tok_eat(p, "graph")) {
    if (!parse_attr_graph(p, n, &at)) return false;
  } else {
    if (tok_eat(p, "floats"))
      at.kind = AT_FLOATS;
    else if (tok_eat(p, "strings"))
      at.kind = AT_STRINGS;
    else
      tok_eat(p, "ints");
    if (tok_eat(p, "[") ? !parse_attr_list(p, &at) : !parse_attr_scalar(p, &at)) return false;
  }
  node_set_attr(n, at);
  return true;
}

static bool parse_attrs(Parser *p, Node *n) {
  if (!tok_eat(p, "{") || tok_eat(p, "}")) return true;
  do {
    if (!parse_attr(p, n)) return false;
  } while (tok_eat(p, ","));
  return tok_expect(p, "}");
}

/* ---- nodes ---- */

static bool parse_index(Parser *p, SymDef *s) {
  int64_t zero = 0;
  if (tok_eat(p, "length")) s->index = IX_LENGTH;
  if (s->index || !tok_eat(p, "index")) return true;
  s->index = IX_WRAPS;
  if (!tok_eat(p, "from")) return true;
  s->index = IX_FROM_0;
  return tok_int(p, &zero);
}

static bool parse_sym(Parser *p, SymDef *s) {
  *s = (SymDef){0};
  if (!(s->sym = frame_parse_expr(p)) || !tok_expect(p, "=")) return false;
  if (s->sym->op != EX_SYM) return tok_fail(p, "only symbols can be assigned");
  tok_skip(p);
  if (*p->s == '%')
    return parse_use(p, &s->src) && tok_expect(p, "[") && tok_int(p, &s->elem) &&
           tok_expect(p, "]") && parse_index(p, s);
  if (!(s->value = frame_parse_expr(p))) return false;
  return !tok_eat(p, "key") || tok_int(p, &s->elem);
}

static bool parse_syms(Parser *p, Node *n) {
  Vec(SymDef) list = {0};
  if (!tok_eat(p, "where")) return true;
  do {
    SymDef s;
    if (!parse_sym(p, &s)) return false;
    vec_push(p->a, &list, s);
  } while (tok_eat(p, ","));
  n->syms = list.data;
  n->n_syms = list.n;
  return true;
}

/* `Add` or `ai.onnx.ml.Scaler` */
static bool parse_op(Parser *p, const OpRow **op) {
  tok_skip(p);
  size_t n = 0, dot = 0;
  for (; isalnum((unsigned char)p->s[n]) || p->s[n] == '_' || p->s[n] == '.' || p->s[n] == '-'; n++)
    if (p->s[n] == '.') dot = n;
  const char *domain = arena_strndup(p->a, p->s, dot);
  const char *name = arena_strndup(p->a, p->s + dot + (dot > 0), n - dot - (dot > 0));
  if (!(*op = op_find(domain, name))) return tok_fail(p, "unknown operator '%.*s'", (int)n, p->s);
  p->s += n;
  return true;
}

static bool parse_ins(Parser *p, Value ***ins, int *count) {
  Vec(Value *) list = {0};
  tok_skip(p);
  if (*p->s == '%' || (*p->s == '_' && tok_ident_len(p->s) == 1)) {
    do {
      Value *v;
      if (!parse_use(p, &v)) return false;
      vec_push(p->a, &list, v);
    } while (tok_eat(p, ","));
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
  if (!plan_parse(p, n) || !parse_attrs(p, n) || !plan_parse(p, n) || !parse_syms(p, n) ||
      !frame_parse_loc(p, &n->loc))
    return false;
  set_outputs(n, out, n_out);
  return true;
}

/* The symbol that is the number of an iteration, of this Loop alone. */
static bool parse_iteration(Parser *p, Value *v) {
  const Expr **const e = ARENA_ARRAY(p->a, const Expr *, 1);
  if (!(e[0] = frame_parse_expr(p))) return false;
  if (v->rank != 0 || e[0]->op != EX_SYM || !expr_symbol(p->m->pool, e[0]->id)->runtime)
    return tok_fail(p, "only a scalar can be an iteration's number, a run-time symbol");
  for (int i = 0; i < p->iterations.n; i++)
    if (p->iterations.data[i] == e[0]) return tok_fail(p, "this symbol counts another loop");
  vec_push(p->a, &p->iterations, e[0]);
  v->contents = e;
  return true;
}

static bool is_default(const Value *v, const Value *init) {
  const ConstData *c = init ? init->cdata : NULL;
  if (!c || v->kind != TY_TENSOR || c->dtype != v->dtype || c->rank != v->rank) return false;
  for (int d = 0; d < v->rank; d++)
    if (v->dims[d]->op == EX_CONST && !expr_is_i64(v->dims[d], c->dims[d])) return false;
  return true;
}

static bool parse_input(Parser *p, Graph *g, Value *v) {
  if (tok_at_string(p) && !tok_string(p, &v->name)) return false;
  if (tok_eat(p, "is") && !parse_iteration(p, v)) return false;
  vec_push(p->a, &g->inputs, v);
  if (!frame_parse_list(p, g, false)) return false;
  if (!tok_eat(p, "default")) return true;
  if (!parse_use(p, &v->init)) return false;
  if (g->parent || !is_default(v, v->init))
    return tok_fail(p, "the default of an input of the main graph is a constant of its type");
  v->pinned = tok_eat(p, "pinned");
  return true;
}

/* One bool: no input that has a default is given. */
static bool parse_unset(Parser *p, Graph *g, Value *v) {
  if (g->parent || g->unset || v->kind != TY_TENSOR || v->dtype != DT_BOOL || v->rank != 0)
    return tok_fail(p, "`unset` stands once in the main graph, and is bool[]");
  g->unset = v;
  return true;
}

static bool parse_output(Parser *p, Graph *g) {
  Value *v;
  const char *name = NULL;
  const ConstData *keys;
  if (!parse_use(p, &v)) return false;
  if (!v) return tok_fail(p, "an output cannot be absent");
  if (tok_at_string(p) && !tok_string(p, &name)) return false;
  if (!v->name && !v->cdata) v->name = name;
  if (!frame_parse_keys(p, &keys)) return false;
  vec_push(p->a, &g->output_keys, keys);
  vec_push(p->a, &g->outputs, v);
  vec_push(p->a, &g->output_names, name);
  return frame_parse_list(p, g, true);
}

static bool parse_line(Parser *p, Graph *g) {
  Vec(Value *) out = {0};
  if (tok_eat(p, "output")) return parse_output(p, g);
  if (!tok_eat(p, "()")) {
    do {
      Value *v;
      if (!parse_def(p, &v)) return false;
      vec_push(p->a, &out, v);
    } while (tok_eat(p, ","));
  }
  if (!tok_expect(p, "=")) return false;
  const bool single = out.n == 1 && out.data[0];
  if (single && tok_eat(p, "input")) return parse_input(p, g, out.data[0]);
  if (single && tok_eat(p, "unset")) return parse_unset(p, g, out.data[0]);
  if (single && tok_eat(p, "const")) return parse_const(p, out.data[0]);
  return parse_node(p, g, out.data, out.n);
}

static bool parse_graph_body(Parser *p, Graph *g) {
  while (!tok_eat(p, "}"))
    if (!*p->s ? !tok_fail(p, "unfinished graph") : !parse_line(p, g)) return false;
  return true;
}

/* ---- the model ---- */

static bool parse_symbol(Parser *p) {
  const Expr *e = frame_parse_expr(p);
  if (!e) return false;
  if (e->op != EX_SYM) return tok_fail(p, "expected a symbol");
  Symbol *s = expr_symbol(p->m->pool, e->id);
  if (tok_eat(p, "from") && !tok_int(p, &s->lo)) return false;
  if (tok_eat(p, "to")) {
    const Expr *bound = frame_parse_expr(p);
    if (!bound) return false;
    s = expr_symbol(p->m->pool, e->id);
    s->bound = bound;
  }
  s->runtime = tok_eat(p, "runtime");
  return true;
}

static bool parse_holds(Parser *p) {
  p->m->fused = tok_eat(p, "fused");
  p->m->laid_out = tok_eat(p, "laid_out");
  return p->m->fused || p->m->laid_out || tok_fail(p, "expected fused or laid_out");
}

static bool parse_main(Parser *p) {
  const char *name;
  if (p->m->main) return tok_fail(p, "a second main graph");
  if (!tok_expect(p, "@") || !tok_ident(p, &name) || !tok_expect(p, "{")) return false;
  p->m->main = graph_new(p->m, NULL, name);
  return parse_graph_body(p, p->m->main);
}

static bool parse_model(Parser *p) {
  for (tok_skip(p); *p->s; tok_skip(p)) {
    bool ok;
    if (!frame_parse_part(p, &ok))
      ok = tok_eat(p, "symbol")  ? parse_symbol(p)
           : tok_eat(p, "holds") ? parse_holds(p)
           : tok_eat(p, "graph")
               ? parse_main(p)
               : tok_fail(p,
                          "expected model, todo, symbol, assume, in_place, state, "
                          "holds, graph, weights or data");
    if (!ok) return false;
  }
  return p->m->main ? frame_fill_unread(p) : tok_fail(p, "no graph");
}

/* Room for all %numbers, and names get ids behind them. */
static bool reserve_ids(Parser *p) {
  long max = -1;
  for (const char *s = p->text; (s = strchr(s, '%')); s++) {
    const long k = isdigit((unsigned char)s[1]) ? strtol(s + 1, NULL, 10) : -1;
    if (k > MAX_ID) return tok_fail(p, "value numbers go up to %d", MAX_ID);
    if (k > max) max = k;
  }
  p->n_ids = (int)max + 1;
  p->by_id = ARENA_ARRAY(p->a, Value *, p->n_ids + 1);
  p->m->next_value = p->n_ids;
  return true;
}

Model *model_parse(Arena *a, Diag *d, const char *text, const char *file) {
  return model_parse_with(a, d, text, file, NULL, NULL);
}

Model *model_parse_with(Arena *a, Diag *d, const char *text, const char *file, TextDataFn data,
                        void *user) {
  Parser p = text_parser(model_new(a, d), text, file);
  p.data = data;
  p.user = user;
  p.m->file = file;
  if (!reserve_ids(&p) || !frame_number_symbols(&p) || !parse_model(&p)) return NULL;
  model_find_state(p.m);
  return !p.infer || graph_infer(p.m->main) ? p.m : NULL;
}
