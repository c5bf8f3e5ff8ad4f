/* Parses the text of loop_text.c. Beyond it: `//` comments, and `weight {1, 2, 3}` for a constant
 * whose data stands in the text. Errors name file, line and column; nothing in the text is trusted,
 * but meaning (types, ranges) is checked by loop_verify.c. */
#include "ir/text/loop_parse.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokens ---- */
/* Signed 64 bits, where tok_int takes unsigned ones too. */
bool loop_parse_int(LoopParser *t, int64_t *out) {
  TextParser *const x = t->x;
  tok_skip(x);
  const bool negative = *x->s == '-';
  return tok_int(x, out) &&
         (negative == (*out < 0) || *out == 0 || tok_fail(x, "expected an integer"));
}

/* A name in quotes, or nothing. */
bool loop_parse_name(LoopParser *t, const char **out) {
  return !tok_at_string(t->x) || tok_string(t->x, out);
}

/* Where it came from; nothing is a location, too. */
bool loop_parse_loc(LoopParser *t, const Loc **out) {
  tok_skip(t->x);
  return *t->x->s != '@' || frame_parse_loc(t->x, out);
}

bool loop_parse_dtype(LoopParser *t, DType *out) {
  const char *w = NULL;
  if (!tok_word(t->x, &w)) return false;
  *out = dtype_from_text(w);
  return *out != DT_NONE || tok_fail(t->x, "unknown element type");
}

/* b12, t3 */
bool loop_parse_id(LoopParser *t, char kind, int n, int *out) {
  tok_skip(t->x);
  if (*t->x->s != kind || !isdigit((unsigned char)t->x->s[1]))
    return tok_fail(t->x, "expected %cN", kind);
  t->x->s++;
  if (!tok_small(t->x, -1, INT_MAX, out)) return false;
  return *out < n || tok_fail(t->x, "there is no %c%d", kind, *out);
}

/* ---- expressions ---- */
static const Expr *scope_name(void *user, const char *ident) {
  const LoopParser *t = user;
  for (int i = t->vars.n - 1; i >= 0; i--)
    if (strcmp(t->vars.data[i].name, ident) == 0) return t->vars.data[i].var;
  return NULL;
}

static const Expr *scope_access(void *user, const char *ident, const Expr *index,
                                const Expr *guard) {
  const LoopParser *t = user;
  char *end = NULL;
  if (!t->k || !isdigit((unsigned char)ident[1])) return NULL;
  const long id = strtol(ident + 1, &end, 10);
  if (*end || index->dtype != DT_I64 || (guard && guard->dtype != DT_BOOL)) return NULL;
  if (ident[0] == 'b' && id < t->k->params.n)
    return ex_load(t->p, t->k->params.data[id].dtype, (int)id, index, guard);
  if (ident[0] == 't' && id < t->k->locals.n && !guard)
    return ex_local(t->p, t->k->locals.data[id].dtype, (int)id, index);
  return NULL;
}

static const Expr *expr_at(LoopParser *t, const char **s, DType hint, const char **error) {
  const ExprScope scope = {.user = t, .name = scope_name, .access = scope_access, .hint = hint};
  return expr_parse(t->p, s, &scope, error);
}

static bool parse_expr(LoopParser *t, DType hint, const Expr **out) {
  const char *error = NULL;
  tok_skip(t->x);
  *out = expr_at(t, &t->x->s, hint, &error);
  return *out || tok_fail(t->x, "%s", error ? error : "bad expression");
}

bool loop_parse_size(LoopParser *t, const Expr **out) {
  return parse_expr(t, DT_I64, out) &&
         ((*out)->dtype == DT_I64 || tok_fail(t->x, "expected an integer expression"));
}

/* The expression before `..`, which would look like part of a number. */
static bool parse_low(LoopParser *t, const Expr **out) {
  tok_skip(t->x);
  const char *end = strstr(t->x->s, ".."), *line = strchr(t->x->s, '\n'), *error = NULL;
  if (!end || (line && line < end)) return tok_fail(t->x, "expected '..'");
  const char *part = arena_strndup(t->a, t->x->s, (size_t)(end - t->x->s));
  *out = expr_at(t, &part, DT_I64, &error);
  if (!*out || (*out)->dtype != DT_I64 || *part)
    return tok_fail(t->x, "%s", error ? error : "bad lower bound");
  t->x->s = end + 2;
  return true;
}

/* Where the symbol at s ends: what follows it (a negative lower bound) would look like a part of an
 * expression. */
static const char *symbol_end(const char *s) {
  s++;
  if (*s != '"') {
    while (tok_is_word(*s)) s++;
    return s;
  }
  for (s++; *s && *s != '"'; s++)
    if (*s == '\\' && s[1]) s++;
  return *s ? s + 1 : s;
}

bool loop_parse_symbol(LoopParser *t, int *id) {
  const char *error = NULL;
  tok_skip(t->x);
  if (*t->x->s != '$') return tok_fail(t->x, "expected a symbol");
  const char *const end = symbol_end(t->x->s);
  const char *part = arena_strndup(t->a, t->x->s, (size_t)(end - t->x->s));
  const Expr *e = expr_at(t, &part, DT_I64, &error);
  if (!e || e->op != EX_SYM) return tok_fail(t->x, "%s", error ? error : "expected a symbol");
  t->x->s = end;
  *id = e->id;
  return true;
}

/* ---- kernels ---- */
static bool parse_block(LoopParser *t, Stmt **out);

static bool parse_for(LoopParser *t, Stmt **out) {
  const char *name = NULL;
  const Expr *lo = NULL, *extent = NULL;
  if (!tok_word(t->x, &name) || !tok_expect(t->x, "in") || !parse_low(t, &lo)) return false;
  tok_eat(t->x, "+");
  if (!loop_parse_size(t, &extent)) return false;
  const ForKind kind = tok_eat(t->x, "parallel") ? FOR_PARALLEL
                       : tok_eat(t->x, "unroll") ? FOR_UNROLL
                       : tok_eat(t->x, "vector") ? FOR_VECTOR
                       : tok_eat(t->x, "matrix") ? FOR_MATRIX
                       : tok_eat(t->x, "block")  ? FOR_BLOCK
                       : tok_eat(t->x, "thread") ? FOR_THREAD
                                                 : FOR_SERIAL;
  const Expr *var = ex_var_named(t->p, name, lo, extent);
  vec_push(t->a, &t->vars, (OpenLoop){name, var});
  Stmt *body = NULL;
  const bool ok = parse_block(t, &body);
  t->vars.n--;
  *out = stmt_for(t->a, kind, var, body);
  return ok;
}

static bool parse_if(LoopParser *t, Stmt **out) {
  const Expr *cond = NULL;
  Stmt *then = NULL, *otherwise = NULL;
  if (!parse_expr(t, DT_BOOL, &cond) || !parse_block(t, &then)) return false;
  if (tok_eat(t->x, "else") && !parse_block(t, &otherwise)) return false;
  *out = stmt_if(t->a, cond, then, otherwise);
  return true;
}

static bool parse_index(LoopParser *t, const Expr **index) {
  return tok_expect(t->x, "[") && loop_parse_size(t, index) && tok_expect(t->x, "]");
}

static bool parse_prefetch(LoopParser *t, Stmt **out) {
  int id = 0;
  const Expr *index = NULL;
  if (!loop_parse_id(t, 'b', t->k->params.n, &id) || !parse_index(t, &index)) return false;
  *out = stmt_prefetch(t->a, id, index);
  return true;
}

static bool parse_local(LoopParser *t, Stmt **out) {
  int id = 0;
  if (!loop_parse_id(t, 't', t->k->locals.n, &id)) return false;
  *out = stmt_local(t->a, id);
  return true;
}

static bool parse_reduce(LoopParser *t, int *kind) {
  static const char *const names[] = {"sum", "prod", "min", "max", "and", "or"};
  for (*kind = 0; *kind < 6; ++*kind)
    if (tok_eat(t->x, names[*kind])) return true;
  return false;
}

static bool parse_write(LoopParser *t, Stmt **out) {
  tok_skip(t->x);
  const bool store = *t->x->s == 'b';
  int id = 0, kind = 0;
  const Expr *index = NULL, *value = NULL;
  if (!loop_parse_id(t, store ? 'b' : 't', store ? t->k->params.n : t->k->locals.n, &id) ||
      !parse_index(t, &index))
    return false;
  const bool acc = !store && parse_reduce(t, &kind);
  const DType type = store ? t->k->params.data[id].dtype : t->k->locals.data[id].dtype;
  if (!tok_expect(t->x, "=") || !parse_expr(t, type, &value)) return false;
  *out = store ? stmt_store(t->a, id, index, value)
         : acc ? stmt_acc(t->a, id, index, (ReduceKind)kind, value)
               : stmt_set(t->a, id, index, value);
  return true;
}

static bool parse_stmt(LoopParser *t, Stmt **out) {
  if (tok_eat(t->x, "for")) return parse_for(t, out);
  if (tok_eat(t->x, "if")) return parse_if(t, out);
  if (tok_eat(t->x, "local")) return parse_local(t, out);
  if (tok_eat(t->x, "prefetch")) return parse_prefetch(t, out);
  return parse_write(t, out);
}

static bool parse_stmts(LoopParser *t, Stmt **out) {
  StmtList l = {0};
  while (!tok_eat(t->x, "}")) {
    Stmt *s = NULL;
    if (!parse_stmt(t, &s)) return false;
    stmt_add(&l, s);
  }
  *out = l.first;
  return true;
}

static bool parse_block(LoopParser *t, Stmt **out) {
  if (!tok_expect(t->x, "{")) return false;
  if (++t->depth > MAX_DEPTH) return tok_fail(t->x, "blocks are nested too deep");
  const bool ok = parse_stmts(t, out);
  t->depth--;
  return ok;
}

static bool parse_param(LoopParser *t) {
  Param q = {.align = 1};
  int id = 0;
  if (!loop_parse_id(t, 'b', t->k->params.n + 1, &id) || !tok_expect(t->x, ":") ||
      !loop_parse_dtype(t, &q.dtype))
    return false;
  if (id != t->k->params.n) return tok_fail(t->x, "parameters must be numbered in order");
  if (!tok_expect(t->x, "[") || !loop_parse_size(t, &q.count) || !tok_expect(t->x, "]"))
    return false;
  q.access = tok_eat(t->x, "readwrite") ? PA_READWRITE
             : tok_eat(t->x, "read")    ? PA_READ
             : tok_eat(t->x, "write")   ? PA_WRITE
                                        : (ParamAccess)0;
  if (!q.access) return tok_fail(t->x, "expected read, write or readwrite");
  q.constant = tok_eat(t->x, "const");
  q.scratch = tok_eat(t->x, "scratch");
  q.align = dtype_bytes(q.dtype);
  if (tok_eat(t->x, "align") && !tok_small(t->x, -1, INT_MAX, &q.align)) return false;
  if (!loop_parse_name(t, &q.name)) return false;
  kernel_add_param(t->m, t->k, q);
  return true;
}

static bool parse_local_row(LoopParser *t) {
  Local l = {0};
  int id = 0;
  if (!loop_parse_id(t, 't', t->k->locals.n + 1, &id) || !tok_expect(t->x, ":") ||
      !loop_parse_dtype(t, &l.dtype))
    return false;
  if (id != t->k->locals.n) return tok_fail(t->x, "locals must be numbered in order");
  if (!tok_expect(t->x, "[") || !loop_parse_int(t, &l.count) || !tok_expect(t->x, "]"))
    return false;
  l.memory = tok_eat(t->x, "stack")    ? MEM_STACK
             : tok_eat(t->x, "shared") ? MEM_SHARED
             : tok_eat(t->x, "matrix") ? MEM_MATRIX
                                       : MEM_REGS;
  if (l.memory == MEM_REGS && !tok_expect(t->x, "regs")) return false;
  if (tok_eat(t->x, "late") && !tok_small(t->x, 1, MAX_LATE, &l.late)) return false;
  if (!loop_parse_name(t, &l.name)) return false;
  kernel_add_local(t->m, t->k, l);
  return true;
}

/* `local t0 : …` declares; `local t0` alone is a statement. */
static bool at_local_row(LoopParser *t) {
  const char *start = t->x->s;
  bool yes = tok_eat(t->x, "local") && (tok_skip(t->x), *t->x->s == 't');
  if (yes) {
    t->x->s++;
    while (isdigit((unsigned char)*t->x->s)) t->x->s++;
    yes = tok_at(t->x, ":");
  }
  t->x->s = start;
  return yes;
}

static bool parse_grain(LoopParser *t) {
  char *end = NULL;
  tok_skip(t->x);
  t->k->grain = strtod(t->x->s, &end);
  if (end == t->x->s) return tok_fail(t->x, "expected a number");
  t->x->s = end;
  return true;
}

static bool parse_kernel(LoopParser *t) {
  const char *name = NULL;
  if (!tok_expect(t->x, "kernel") || !tok_word(t->x, &name)) return false;
  t->k = kernel_new(t->m, name, NULL);
  t->k->name = name;
  if (tok_eat(t->x, "flops") && !parse_expr(t, DT_I64, &t->k->flops)) return false;
  if (tok_eat(t->x, "grain") && !parse_grain(t)) return false;
  if (!loop_parse_loc(t, &t->k->loc) || !tok_expect(t->x, "{")) return false;
  while (tok_eat(t->x, "param"))
    if (!parse_param(t)) return false;
  while (at_local_row(t)) {
    tok_eat(t->x, "local");
    if (!parse_local_row(t)) return false;
  }
  const bool ok = parse_stmts(t, &t->k->body);
  return ok;
}

Kernel *kernel_parse(Module *m, const char **text, const char *file) {
  TextParser x = text_parser(m->model, *text, file);
  LoopParser t = {.m = m, .a = x.a, .p = m->model->pool, .x = &x};
  const int n = m->kernels.n;
  if (!parse_kernel(&t)) {
    m->kernels.n = n;
    return NULL;
  }
  *text = x.s;
  return t.k;
}

/* ---- buffers ---- */
static bool parse_symbol_row(LoopParser *t) {
  int id = -1;
  int64_t lo = 0;
  const Expr *bound = NULL;
  if (!loop_parse_symbol(t, &id) || !loop_parse_int(t, &lo)) return false;
  const bool runtime = tok_eat(t->x, "runtime");
  if (tok_eat(t->x, "bound") && !loop_parse_size(t, &bound)) return false;
  Symbol *s = expr_symbol(t->p, id);
  s->lo = lo;
  s->runtime = runtime;
  s->bound = bound;
  return true;
}

static bool parse_offset(LoopParser *t, const Expr **out) {
  return !tok_eat(t->x, "at") ||
         (tok_expect(t->x, "(") && loop_parse_size(t, out) && tok_expect(t->x, ")"));
}

bool loop_parse_ref(LoopParser *t, BufRef *r) {
  *r = (BufRef){.buffer = -1};
  if (tok_eat(t->x, "-")) return true;
  return loop_parse_id(t, 'b', t->m->buffers.n, &r->buffer) && parse_offset(t, &r->offset);
}

static const ConstData *find_const(LoopParser *t, int id) {
  for (int i = 0; i < t->m->model->consts.n; i++)
    if (t->m->model->consts.data[i]->id == id) return t->m->model->consts.data[i];
  return NULL;
}

static bool parse_values(LoopParser *t, Buffer *b) {
  Vec(double) v = {0};
  while (!tok_eat(t->x, "}")) {
    char *end = NULL;
    tok_skip(t->x);
    const double x = strtod(t->x->s, &end);
    if (end == t->x->s) return tok_fail(t->x, "expected a number");
    t->x->s = end;
    vec_push(t->a, &v, x);
    tok_eat(t->x, ",");
  }
  const int64_t n = v.n;
  const int size = dtype_bytes(b->dtype);
  char *data = arena_alloc(t->a, (size_t)(n * size) + 1);
  for (int i = 0; i < v.n; i++) {
    if (dtype_is_float(b->dtype))
      dtype_store_f(b->dtype, data + i * size, v.data[i]);
    else
      dtype_store_i(b->dtype, data + i * size, (int64_t)v.data[i]);
  }
  b->data = const_new(t->m->model, NULL, b->dtype, 1, &n, data);
  return true;
}

static bool parse_weight(LoopParser *t, Buffer *b) {
  if (tok_eat(t->x, "{")) return parse_values(t, b);
  int id = 0;
  if (!tok_expect(t->x, "#") || !tok_small(t->x, -1, INT_MAX, &id)) return false;
  if (t->whole && (id < 0 || id > MAX_ID))
    return tok_fail(t->x, "number of a constant out of range");
  b->data = t->whole ? frame_const(t->x, id) : find_const(t, id);
  return b->data || tok_fail(t->x, "there is no constant #%d", id);
}

static bool parse_input(LoopParser *t, Buffer *b) {
  b->kind = BUF_INPUT;
  if (!tok_small(t->x, -1, INT_MAX, &b->index)) return false;
  if (!tok_eat(t->x, "default")) return true;
  if (!parse_weight(t, b)) return false;
  b->pinned = tok_eat(t->x, "pinned");
  return true;
}

static bool parse_heap(LoopParser *t, Buffer *b) {
  b->kind = BUF_HEAP;
  return loop_parse_symbol(t, &b->address) && loop_parse_symbol(t, &b->room) &&
         (!tok_eat(t->x, "output") || tok_small(t->x, -1, INT_MAX, &b->index));
}

static bool parse_kind(LoopParser *t, Buffer *b) {
  if (tok_eat(t->x, "input")) return parse_input(t, b);
  if (tok_eat(t->x, "unset")) return b->kind = BUF_UNSET, true;
  if (tok_eat(t->x, "output")) return b->kind = BUF_OUTPUT, tok_small(t->x, -1, INT_MAX, &b->index);
  if (tok_eat(t->x, "weight")) return b->kind = BUF_WEIGHT, parse_weight(t, b);
  if (tok_eat(t->x, "arena")) return b->kind = BUF_ARENA, true;
  if (tok_eat(t->x, "view"))
    return b->kind = BUF_VIEW, loop_parse_id(t, 'b', t->m->buffers.n, &b->base);
  if (tok_eat(t->x, "heap")) return parse_heap(t, b);
  return tok_fail(t->x, "expected input, output, weight, arena, view, unset or heap");
}

static bool parse_buffer(LoopParser *t) {
  Buffer b = {.index = -1, .base = -1, .inplace_of = -1, .address = -1, .room = -1};
  if (!loop_parse_id(t, 'b', t->m->buffers.n + 1, &b.id) || !tok_expect(t->x, ":") ||
      !loop_parse_dtype(t, &b.dtype))
    return false;
  if (b.id != t->m->buffers.n) return tok_fail(t->x, "buffers must be numbered in order");
  if (!tok_expect(t->x, "[") || !loop_parse_size(t, &b.count) || !tok_expect(t->x, "]") ||
      !tok_expect(t->x, "="))
    return false;
  if (!parse_kind(t, &b) || !parse_offset(t, &b.offset)) return false;
  if (tok_eat(t->x, "inplace") && !loop_parse_id(t, 'b', t->m->buffers.n, &b.inplace_of))
    return false;
  if (!loop_parse_name(t, &b.name)) return false;
  vec_push(t->a, &t->m->buffers, b);
  return true;
}

/* ---- modules ---- */
/* ` : f32[$n,4] "x"`: the program's interface, which the graph of the model keeps. */
static bool parse_interface(LoopParser *t, bool inputs) {
  Model *const m = t->m->model;
  Value *v = value_new(m, NULL);
  if (!frame_parse_type(t->x, v)) return false;
  if (v->kind != TY_TENSOR || v->dtype == DT_NONE || v->rank < 0)
    return tok_fail(t->x, "inputs and outputs of a program are tensors");
  if (!loop_parse_name(t, &v->name)) return false;
  if (!m->main) m->main = graph_new(m, NULL, "main");
  if (inputs) {
    vec_push(t->a, &m->main->inputs, v);
    return frame_parse_list(t->x, m->main, false);
  }
  vec_push(t->a, &m->main->outputs, v);
  const ConstData *keys;
  if (!frame_parse_keys(t->x, &keys)) return false;
  vec_push(t->a, &m->main->output_names, v->name);
  vec_push(t->a, &m->main->output_keys, keys);
  return frame_parse_list(t->x, m->main, true);
}

static bool parse_ids(LoopParser *t, bool inputs) {
  tok_skip(t->x);
  while (*t->x->s == 'b' && isdigit((unsigned char)t->x->s[1])) {
    int id = 0;
    if (!loop_parse_id(t, 'b', t->m->buffers.n, &id)) return false;
    if (inputs)
      vec_push(t->a, &t->m->inputs, id);
    else
      vec_push(t->a, &t->m->outputs, id);
    if (tok_eat(t->x, ":") && !parse_interface(t, inputs)) return false;
    if (!tok_eat(t->x, ",")) break;
    tok_skip(t->x);
  }
  return true;
}

static bool parse_plan(LoopParser *t) {
  return loop_parse_size(t, &t->m->arena_bytes) && tok_expect(t->x, "scratch") &&
         loop_parse_size(t, &t->m->scratch_bytes) && tok_expect(t->x, "lower") &&
         loop_parse_int(t, &t->m->arena_lower_bound);
}

static bool parse_module(LoopParser *t) {
  if (!tok_expect(t->x, "module")) return false;
  if (tok_eat(t->x, "threads") && !tok_small(t->x, -1, INT_MAX, &t->m->max_threads)) return false;
  if (!tok_expect(t->x, "{")) return false;
  while (tok_eat(t->x, "symbol"))
    if (!parse_symbol_row(t)) return false;
  while (tok_skip(t->x), *t->x->s == 'b' && isdigit((unsigned char)t->x->s[1]))
    if (!parse_buffer(t)) return false;
  if (tok_eat(t->x, "inputs") && !parse_ids(t, true)) return false;
  if (tok_eat(t->x, "outputs") && !parse_ids(t, false)) return false;
  if (tok_eat(t->x, "arena") && !parse_plan(t)) return false;
  while (tok_at(t->x, "kernel"))
    if (!parse_kernel(t)) return false;
  return tok_expect(t->x, "steps") && tok_expect(t->x, "{") && loop_parse_steps(t, &t->m->steps) &&
         tok_expect(t->x, "}");
}

static LoopParser parser_of(TextParser *x) {
  return (LoopParser){.m = module_new(x->m), .a = x->a, .p = x->m->pool, .x = x};
}

Module *module_parse(Model *model, const char *text, const char *file) {
  TextParser x = text_parser(model, text, file);
  LoopParser t = parser_of(&x);
  if (!frame_number_symbols(&x) || !parse_module(&t)) return NULL;
  tok_skip(&x);
  return !*x.s || tok_fail(&x, "text behind the module") ? t.m : NULL;
}

Module *module_parse_at(TextParser *x) {
  LoopParser t = parser_of(x);
  t.whole = true;
  return parse_module(&t) ? t.m : NULL;
}
