/* Parses the text of loop_text.c. Beyond it: `//` comments, and `weight {1, 2, 3}` for a constant
 * whose data stands in the text. Errors name file, line and column; nothing in the text is trusted,
 * but meaning (types, ranges) is checked by loop_verify.c. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "ir/loop/loop.h"
#include "ir/text/frame.h"

enum { MAX_DEPTH = 100 };

typedef struct OpenLoop {
  const char *name;
  const Expr *var;
} OpenLoop;

typedef struct Parser {
  Module *m;
  Kernel *k; /* the kernel being parsed */
  Arena *a;
  ExprPool *p;
  const char *file, *text, *s;
  Vec(OpenLoop) vars; /* of open loops */
  int depth;
  bool whole; /* the data of constants may stand behind the module */
} Parser;

/* ---- tokens ---- */
static bool fail(Parser *t, const char *what) {
  return text_fail(t->a, t->m->model->diag, t->file, t->text, t->s, what);
}

static void skip(Parser *t) {
  for (;;) {
    while (isspace((unsigned char)*t->s)) t->s++;
    if (t->s[0] != '/' || t->s[1] != '/') return;
    while (*t->s && *t->s != '\n') t->s++;
  }
}

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

static bool at(Parser *t, const char *tok) {
  skip(t);
  const size_t n = strlen(tok);
  return strncmp(t->s, tok, n) == 0 && !(is_word(tok[n - 1]) && is_word(t->s[n]));
}

static bool eat(Parser *t, const char *tok) {
  if (!at(t, tok)) return false;
  t->s += strlen(tok);
  return true;
}

static bool expect(Parser *t, const char *tok) {
  return eat(t, tok) || fail(t, arena_printf(t->a, "expected '%s'", tok));
}

static bool parse_word(Parser *t, const char **out) {
  skip(t);
  size_t n = 0;
  while (is_word(t->s[n])) n++;
  if (n == 0) return fail(t, "expected a name");
  *out = arena_strndup(t->a, t->s, n);
  t->s += n;
  return true;
}

static bool parse_int(Parser *t, int64_t *out) {
  skip(t);
  char *end = NULL;
  errno = 0;
  *out = strtoll(t->s, &end, 10);
  if (end == t->s || errno) return fail(t, "expected an integer");
  t->s = end;
  return true;
}

static bool parse_small(Parser *t, int *out) {
  int64_t v = 0;
  if (!parse_int(t, &v)) return false;
  if (v < -1 || v > INT_MAX) return fail(t, "number out of range");
  *out = (int)v;
  return true;
}

static int hex(char c) {
  if (isdigit((unsigned char)c)) return c - '0';
  c = (char)tolower((unsigned char)c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char parse_escape(Parser *t) {
  const char c = *++t->s;
  if (c == 'n') return '\n';
  if (c == 'x' && hex(t->s[1]) >= 0 && hex(t->s[2]) >= 0) {
    t->s += 2;
    return (char)(16 * hex(t->s[-1]) + hex(t->s[0]));
  }
  return c;
}

/* A name in quotes, or nothing. */
static bool parse_name(Parser *t, const char **out) {
  skip(t);
  if (*t->s != '"') return true;
  StrBuf b = {.arena = t->a};
  for (t->s++; *t->s && *t->s != '"'; t->s++) {
    const char c = *t->s == '\\' ? parse_escape(t) : *t->s;
    if (!c) break;
    sb_putc(&b, c);
  }
  if (*t->s != '"') return fail(t, "unfinished string");
  t->s++;
  *out = sb_str(&b);
  return true;
}

/* What both IRs write alike is read by frame_parse.c. */
static TextParser frame_at(const Parser *t) {
  return (TextParser){.a = t->a, .m = t->m->model, .text = t->text, .s = t->s, .file = t->file};
}

/* Where it came from; nothing is a location, too. */
static bool parse_loc(Parser *t, const Loc **out) {
  skip(t);
  if (*t->s != '@') return true;
  TextParser x = frame_at(t);
  const bool ok = frame_parse_loc(&x, out);
  t->s = x.s;
  return ok;
}

static bool parse_dtype(Parser *t, DType *out) {
  const char *w = NULL;
  if (!parse_word(t, &w)) return false;
  *out = dtype_from_text(w);
  return *out != DT_NONE || fail(t, "unknown element type");
}

/* b12, t3 */
static bool parse_id(Parser *t, char kind, int n, int *out) {
  skip(t);
  if (*t->s != kind || !isdigit((unsigned char)t->s[1]))
    return fail(t, arena_printf(t->a, "expected %cN", kind));
  t->s++;
  if (!parse_small(t, out)) return false;
  return *out < n || fail(t, arena_printf(t->a, "there is no %c%d", kind, *out));
}

/* ---- expressions ---- */
static const Expr *scope_name(void *user, const char *ident) {
  const Parser *t = user;
  for (int i = t->vars.n - 1; i >= 0; i--)
    if (strcmp(t->vars.data[i].name, ident) == 0) return t->vars.data[i].var;
  return NULL;
}

static const Expr *scope_access(void *user, const char *ident, const Expr *index,
                                const Expr *guard) {
  const Parser *t = user;
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

static const Expr *expr_at(Parser *t, const char **s, DType hint, const char **error) {
  const ExprScope scope = {.user = t, .name = scope_name, .access = scope_access, .hint = hint};
  return expr_parse(t->p, s, &scope, error);
}

static bool parse_expr(Parser *t, DType hint, const Expr **out) {
  const char *error = NULL;
  skip(t);
  *out = expr_at(t, &t->s, hint, &error);
  return *out || fail(t, error ? error : "bad expression");
}

static bool parse_size(Parser *t, const Expr **out) {
  return parse_expr(t, DT_I64, out) &&
         ((*out)->dtype == DT_I64 || fail(t, "expected an integer expression"));
}

/* The expression before `..`, which would look like part of a number. */
static bool parse_low(Parser *t, const Expr **out) {
  skip(t);
  const char *end = strstr(t->s, ".."), *line = strchr(t->s, '\n'), *error = NULL;
  if (!end || (line && line < end)) return fail(t, "expected '..'");
  const char *part = arena_strndup(t->a, t->s, (size_t)(end - t->s));
  *out = expr_at(t, &part, DT_I64, &error);
  if (!*out || (*out)->dtype != DT_I64 || *part) return fail(t, error ? error : "bad lower bound");
  t->s = end + 2;
  return true;
}

/* Where the symbol at s ends: what follows it (a negative lower bound) would look like a part of an
 * expression. */
static const char *symbol_end(const char *s) {
  s++;
  if (*s != '"') {
    while (is_word(*s)) s++;
    return s;
  }
  for (s++; *s && *s != '"'; s++)
    if (*s == '\\' && s[1]) s++;
  return *s ? s + 1 : s;
}

static bool parse_symbol(Parser *t, int *id) {
  const char *error = NULL;
  skip(t);
  if (*t->s != '$') return fail(t, "expected a symbol");
  const char *const end = symbol_end(t->s);
  const char *part = arena_strndup(t->a, t->s, (size_t)(end - t->s));
  const Expr *e = expr_at(t, &part, DT_I64, &error);
  if (!e || e->op != EX_SYM) return fail(t, error ? error : "expected a symbol");
  t->s = end;
  *id = e->id;
  return true;
}

/* ---- kernels ---- */
static bool parse_block(Parser *t, Stmt **out);

static bool parse_for(Parser *t, Stmt **out) {
  const char *name = NULL;
  const Expr *lo = NULL, *extent = NULL;
  if (!parse_word(t, &name) || !expect(t, "in") || !parse_low(t, &lo)) return false;
  eat(t, "+");
  if (!parse_size(t, &extent)) return false;
  const ForKind kind = eat(t, "parallel") ? FOR_PARALLEL
                       : eat(t, "unroll") ? FOR_UNROLL
                       : eat(t, "vector") ? FOR_VECTOR
                       : eat(t, "block")  ? FOR_BLOCK
                       : eat(t, "thread") ? FOR_THREAD
                                          : FOR_SERIAL;
  const Expr *var = ex_var_named(t->p, name, lo, extent);
  vec_push(t->a, &t->vars, (OpenLoop){name, var});
  Stmt *body = NULL;
  const bool ok = parse_block(t, &body);
  t->vars.n--;
  *out = stmt_for(t->a, kind, var, body);
  return ok;
}

static bool parse_if(Parser *t, Stmt **out) {
  const Expr *cond = NULL;
  Stmt *then = NULL, *otherwise = NULL;
  if (!parse_expr(t, DT_BOOL, &cond) || !parse_block(t, &then)) return false;
  if (eat(t, "else") && !parse_block(t, &otherwise)) return false;
  *out = stmt_if(t->a, cond, then, otherwise);
  return true;
}

static bool parse_index(Parser *t, const Expr **index) {
  return expect(t, "[") && parse_size(t, index) && expect(t, "]");
}

static bool parse_prefetch(Parser *t, Stmt **out) {
  int id = 0;
  const Expr *index = NULL;
  if (!parse_id(t, 'b', t->k->params.n, &id) || !parse_index(t, &index)) return false;
  *out = stmt_prefetch(t->a, id, index);
  return true;
}

static bool parse_local(Parser *t, Stmt **out) {
  int id = 0;
  if (!parse_id(t, 't', t->k->locals.n, &id)) return false;
  *out = stmt_local(t->a, id);
  return true;
}

static bool parse_reduce(Parser *t, int *kind) {
  static const char *const names[] = {"sum", "prod", "min", "max", "and", "or"};
  for (*kind = 0; *kind < 6; ++*kind)
    if (eat(t, names[*kind])) return true;
  return false;
}

static bool parse_write(Parser *t, Stmt **out) {
  skip(t);
  const bool store = *t->s == 'b';
  int id = 0, kind = 0;
  const Expr *index = NULL, *value = NULL;
  if (!parse_id(t, store ? 'b' : 't', store ? t->k->params.n : t->k->locals.n, &id) ||
      !parse_index(t, &index))
    return false;
  const bool acc = !store && parse_reduce(t, &kind);
  const DType type = store ? t->k->params.data[id].dtype : t->k->locals.data[id].dtype;
  if (!expect(t, "=") || !parse_expr(t, type, &value)) return false;
  *out = store ? stmt_store(t->a, id, index, value)
         : acc ? stmt_acc(t->a, id, index, (ReduceKind)kind, value)
               : stmt_set(t->a, id, index, value);
  return true;
}

static bool parse_stmt(Parser *t, Stmt **out) {
  if (eat(t, "for")) return parse_for(t, out);
  if (eat(t, "if")) return parse_if(t, out);
  if (eat(t, "local")) return parse_local(t, out);
  if (eat(t, "prefetch")) return parse_prefetch(t, out);
  return parse_write(t, out);
}

static bool parse_stmts(Parser *t, Stmt **out) {
  StmtList l = {0};
  while (!eat(t, "}")) {
    Stmt *s = NULL;
    if (!parse_stmt(t, &s)) return false;
    stmt_add(&l, s);
  }
  *out = l.first;
  return true;
}

static bool parse_block(Parser *t, Stmt **out) {
  if (!expect(t, "{")) return false;
  if (++t->depth > MAX_DEPTH) return fail(t, "blocks are nested too deep");
  const bool ok = parse_stmts(t, out);
  t->depth--;
  return ok;
}

static bool parse_param(Parser *t) {
  Param q = {.align = 1};
  int id = 0;
  if (!parse_id(t, 'b', t->k->params.n + 1, &id) || !expect(t, ":") || !parse_dtype(t, &q.dtype))
    return false;
  if (id != t->k->params.n) return fail(t, "parameters must be numbered in order");
  if (!expect(t, "[") || !parse_size(t, &q.count) || !expect(t, "]")) return false;
  q.access = eat(t, "readwrite") ? PA_READWRITE
             : eat(t, "read")    ? PA_READ
             : eat(t, "write")   ? PA_WRITE
                                 : (ParamAccess)0;
  if (!q.access) return fail(t, "expected read, write or readwrite");
  q.constant = eat(t, "const");
  q.scratch = eat(t, "scratch");
  q.align = dtype_bytes(q.dtype);
  if (eat(t, "align") && !parse_small(t, &q.align)) return false;
  if (!parse_name(t, &q.name)) return false;
  kernel_add_param(t->m, t->k, q);
  return true;
}

static bool parse_local_row(Parser *t) {
  Local l = {0};
  int id = 0;
  if (!parse_id(t, 't', t->k->locals.n + 1, &id) || !expect(t, ":") || !parse_dtype(t, &l.dtype))
    return false;
  if (id != t->k->locals.n) return fail(t, "locals must be numbered in order");
  if (!expect(t, "[") || !parse_int(t, &l.count) || !expect(t, "]")) return false;
  l.memory = eat(t, "stack") ? MEM_STACK : eat(t, "shared") ? MEM_SHARED : MEM_REGS;
  if (l.memory == MEM_REGS && !expect(t, "regs")) return false;
  if (!parse_name(t, &l.name)) return false;
  kernel_add_local(t->m, t->k, l);
  return true;
}

/* `local t0 : …` declares; `local t0` alone is a statement. */
static bool at_local_row(Parser *t) {
  const char *start = t->s;
  bool yes = eat(t, "local") && (skip(t), *t->s == 't');
  if (yes) {
    t->s++;
    while (isdigit((unsigned char)*t->s)) t->s++;
    yes = at(t, ":");
  }
  t->s = start;
  return yes;
}

static bool parse_grain(Parser *t) {
  char *end = NULL;
  skip(t);
  t->k->grain = strtod(t->s, &end);
  if (end == t->s) return fail(t, "expected a number");
  t->s = end;
  return true;
}

static bool parse_kernel(Parser *t) {
  const char *name = NULL;
  if (!expect(t, "kernel") || !parse_word(t, &name)) return false;
  t->k = kernel_new(t->m, name, NULL);
  t->k->name = name;
  if (eat(t, "flops") && !parse_expr(t, DT_I64, &t->k->flops)) return false;
  if (eat(t, "grain") && !parse_grain(t)) return false;
  if (!parse_loc(t, &t->k->loc) || !expect(t, "{")) return false;
  while (eat(t, "param"))
    if (!parse_param(t)) return false;
  while (at_local_row(t)) {
    eat(t, "local");
    if (!parse_local_row(t)) return false;
  }
  const bool ok = parse_stmts(t, &t->k->body);
  return ok;
}

Kernel *kernel_parse(Module *m, const char **text, const char *file) {
  Parser t = {
      .m = m, .a = m->model->arena, .p = m->model->pool, .file = file, .text = *text, .s = *text};
  const int n = m->kernels.n;
  if (!parse_kernel(&t)) {
    m->kernels.n = n;
    return NULL;
  }
  *text = t.s;
  return t.k;
}

/* ---- buffers ---- */
static bool parse_symbol_row(Parser *t) {
  int id = -1;
  int64_t lo = 0;
  const Expr *bound = NULL;
  if (!parse_symbol(t, &id) || !parse_int(t, &lo)) return false;
  const bool runtime = eat(t, "runtime");
  if (eat(t, "bound") && !parse_size(t, &bound)) return false;
  Symbol *s = expr_symbol(t->p, id);
  s->lo = lo;
  s->runtime = runtime;
  s->bound = bound;
  return true;
}

static bool parse_offset(Parser *t, const Expr **out) {
  return !eat(t, "at") || (expect(t, "(") && parse_size(t, out) && expect(t, ")"));
}

static bool parse_ref(Parser *t, BufRef *r) {
  *r = (BufRef){.buffer = -1};
  if (eat(t, "-")) return true;
  return parse_id(t, 'b', t->m->buffers.n, &r->buffer) && parse_offset(t, &r->offset);
}

static const ConstData *find_const(Parser *t, int id) {
  for (int i = 0; i < t->m->model->consts.n; i++)
    if (t->m->model->consts.data[i]->id == id) return t->m->model->consts.data[i];
  return NULL;
}

static bool parse_values(Parser *t, Buffer *b) {
  Vec(double) v = {0};
  while (!eat(t, "}")) {
    char *end = NULL;
    skip(t);
    const double x = strtod(t->s, &end);
    if (end == t->s) return fail(t, "expected a number");
    t->s = end;
    vec_push(t->a, &v, x);
    eat(t, ",");
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

static bool parse_weight(Parser *t, Buffer *b) {
  if (eat(t, "{")) return parse_values(t, b);
  int id = 0;
  if (!expect(t, "#") || !parse_small(t, &id)) return false;
  TextParser x = frame_at(t);
  if (t->whole && (id < 0 || id > MAX_ID)) return fail(t, "number of a constant out of range");
  b->data = t->whole ? frame_const(&x, id) : find_const(t, id);
  return b->data || fail(t, arena_printf(t->a, "there is no constant #%d", id));
}

static bool parse_input(Parser *t, Buffer *b) {
  b->kind = BUF_INPUT;
  if (!parse_small(t, &b->index)) return false;
  if (!eat(t, "default")) return true;
  if (!parse_weight(t, b)) return false;
  b->pinned = eat(t, "pinned");
  return true;
}

static bool parse_kind(Parser *t, Buffer *b) {
  if (eat(t, "input")) return parse_input(t, b);
  if (eat(t, "unset")) return b->kind = BUF_UNSET, true;
  if (eat(t, "output")) return b->kind = BUF_OUTPUT, parse_small(t, &b->index);
  if (eat(t, "weight")) return b->kind = BUF_WEIGHT, parse_weight(t, b);
  if (eat(t, "arena")) return b->kind = BUF_ARENA, true;
  if (eat(t, "view")) return b->kind = BUF_VIEW, parse_id(t, 'b', t->m->buffers.n, &b->base);
  return fail(t, "expected input, output, weight, arena, view or unset");
}

static bool parse_buffer(Parser *t) {
  Buffer b = {.index = -1, .base = -1, .inplace_of = -1};
  if (!parse_id(t, 'b', t->m->buffers.n + 1, &b.id) || !expect(t, ":") || !parse_dtype(t, &b.dtype))
    return false;
  if (b.id != t->m->buffers.n) return fail(t, "buffers must be numbered in order");
  if (!expect(t, "[") || !parse_size(t, &b.count) || !expect(t, "]") || !expect(t, "="))
    return false;
  if (!parse_kind(t, &b) || !parse_offset(t, &b.offset)) return false;
  if (eat(t, "inplace") && !parse_id(t, 'b', t->m->buffers.n, &b.inplace_of)) return false;
  if (!parse_name(t, &b.name)) return false;
  vec_push(t->a, &t->m->buffers, b);
  return true;
}

/* ---- steps ---- */
static bool parse_steps(Parser *t, Step **out);

static bool parse_step_block(Parser *t, Step **out) {
  if (!expect(t, "{")) return false;
  if (++t->depth > MAX_DEPTH) return fail(t, "blocks are nested too deep");
  const bool ok = parse_steps(t, out);
  t->depth--;
  return ok;
}

static bool parse_call(Parser *t, Step **out) {
  const char *name = NULL;
  if (!parse_word(t, &name) || !expect(t, "(")) return false;
  Step *s = *out = step_new(t->m, STEP_KERNEL, NULL);
  for (int i = 0; i < t->m->kernels.n; i++)
    if (strcmp(t->m->kernels.data[i]->name, name) == 0) s->call.kernel = t->m->kernels.data[i];
  if (!s->call.kernel) return fail(t, arena_printf(t->a, "there is no kernel %s", name));
  Vec(BufRef) args = {0};
  while (!eat(t, ")")) {
    BufRef r = {0};
    if ((args.n && !expect(t, ",")) || !parse_ref(t, &r)) return false;
    vec_push(t->a, &args, r);
  }
  s->call.args = args.data;
  s->call.n_args = args.n;
  return true;
}

static bool parse_tensor(Parser *t, TensorRef *r) {
  *r = (TensorRef){.buf = {.buffer = -1}};
  if (eat(t, "-")) return true;
  Vec(const Expr *) dims = {0};
  if (!parse_dtype(t, &r->dtype) || !expect(t, "[")) return false;
  while (!eat(t, "]")) {
    const Expr *e = NULL;
    if ((dims.n && !expect(t, ",")) || !parse_size(t, &e)) return false;
    vec_push(t->a, &dims, e);
  }
  if (dims.n > MAX_RANK) return fail(t, "too many dimensions");
  r->rank = dims.n;
  r->dims = dims.data;
  return parse_ref(t, &r->buf);
}

static bool parse_tensors(Parser *t, const TensorRef **out, int *n) {
  Vec(TensorRef) v = {0};
  if (!expect(t, "(")) return false;
  while (!eat(t, ")")) {
    TensorRef r = {0};
    if ((v.n && !expect(t, ";")) || !parse_tensor(t, &r)) return false;
    vec_push(t->a, &v, r);
  }
  *out = v.data;
  *n = v.n;
  return true;
}

static bool parse_words(Parser *t, Step *s) {
  Vec(int64_t) v = {0};
  if (!expect(t, "words") || !expect(t, "{")) return false;
  while (!eat(t, "}")) {
    int64_t w = 0;
    if ((v.n && !expect(t, ",")) || !parse_int(t, &w)) return false;
    vec_push(t->a, &v, w);
  }
  s->ext.words = v.data;
  s->ext.n_words = v.n;
  return true;
}

static const ExternRow *find_extern(const char *symbol) {
  for (int i = 0; i < op_row_count; i++)
    if (op_rows[i].ext && strcmp(op_rows[i].ext->symbol, symbol) == 0) return op_rows[i].ext;
  return NULL;
}

static bool parse_extern(Parser *t, Step **out) {
  const char *name = NULL;
  Step *s = *out = step_new(t->m, STEP_EXTERN, NULL);
  if (!parse_word(t, &name)) return false;
  s->ext.row = find_extern(name);
  if (!s->ext.row) return fail(t, arena_printf(t->a, "there is no runtime function %s", name));
  if (!parse_tensors(t, &s->ext.ins, &s->ext.n_ins) || !expect(t, "->") ||
      !parse_tensors(t, &s->ext.outs, &s->ext.n_outs))
    return false;
  return parse_words(t, s) &&
         (!eat(t, "scratch") || parse_id(t, 'b', t->m->buffers.n, &s->ext.scratch));
}

static bool parse_copy(Parser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_COPY, NULL);
  return parse_ref(t, &s->copy.src) && expect(t, "->") && parse_ref(t, &s->copy.dst) &&
         expect(t, "count") && parse_size(t, &s->copy.count);
}

static bool parse_if_step(Parser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_IF, NULL);
  return parse_ref(t, &s->branch.cond) && parse_loc(t, &s->loc) &&
         parse_step_block(t, &s->branch.then) &&
         (!eat(t, "else") || parse_step_block(t, &s->branch.otherwise));
}

static bool parse_loop_step(Parser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_LOOP, NULL);
  if (!expect(t, "cond") || !parse_ref(t, &s->loop.cond)) return false;
  if (eat(t, "iter") && !parse_symbol(t, &s->loop.iter)) return false;
  if (eat(t, "trips") && !parse_symbol(t, &s->loop.trips)) return false;
  if (eat(t, "limit") && !parse_size(t, &s->loop.trip)) return false;
  return parse_loc(t, &s->loc) && parse_step_block(t, &s->loop.body);
}

static bool parse_sym_step(Parser *t, Step **out) {
  Step *s = *out = step_new(t->m, STEP_SYM, NULL);
  if (!parse_symbol(t, &s->sym.id)) return false;
  if (eat(t, "from") ? !parse_ref(t, &s->sym.src)
                     : !expect(t, "=") || !parse_size(t, &s->sym.value))
    return false;
  if (eat(t, "length"))
    s->sym.index = IX_LENGTH;
  else if (eat(t, "index"))
    s->sym.index = eat(t, "positive") ? IX_FROM_0 : IX_WRAPS;
  return (!eat(t, "min") || parse_size(t, &s->sym.lo)) &&
         (!eat(t, "max") || parse_size(t, &s->sym.hi));
}

static bool parse_check_step(Parser *t, Step **out) {
  DimAssume *x = &(*out = step_new(t->m, STEP_CHECK, NULL))->check;
  for (x->kind = ASSUME_EQUAL; x->kind <= ASSUME_MULTIPLE; x->kind++)
    if (eat(t, assume_name(x->kind)))
      return parse_size(t, &x->a) && expect(t, ",") && parse_size(t, &x->b) &&
             parse_name(t, &x->what);
  return fail(t, "expected the kind of a check");
}

static bool parse_step(Parser *t, Step **out) {
  if (eat(t, "call")) return parse_call(t, out);
  if (eat(t, "extern")) return parse_extern(t, out);
  if (eat(t, "copy")) return parse_copy(t, out);
  if (eat(t, "if")) return parse_if_step(t, out);
  if (eat(t, "loop")) return parse_loop_step(t, out);
  if (eat(t, "sym")) return parse_sym_step(t, out);
  if (eat(t, "check")) return parse_check_step(t, out);
  return fail(t, "expected a step");
}

static bool parse_steps(Parser *t, Step **out) {
  while (!eat(t, "}")) {
    if (!parse_step(t, out) || !parse_loc(t, &(*out)->loc)) return false;
    if ((*out)->kind == STEP_KERNEL && !(*out)->loc) (*out)->loc = (*out)->call.kernel->loc;
    out = &(*out)->next;
  }
  return true;
}

/* ---- modules ---- */
/* ` : f32[$n,4] "x"`: the program's interface, which the graph of the model keeps. */
static bool parse_interface(Parser *t, bool inputs) {
  Model *const m = t->m->model;
  Value *v = value_new(m, NULL);
  TextParser x = frame_at(t);
  if (!frame_parse_type(&x, v)) return false;
  t->s = x.s;
  if (v->kind != TY_TENSOR || v->dtype == DT_NONE || v->rank < 0)
    return fail(t, "inputs and outputs of a program are tensors");
  if (!parse_name(t, &v->name)) return false;
  if (!m->main) m->main = graph_new(m, NULL, "main");
  if (inputs) {
    vec_push(t->a, &m->main->inputs, v);
    return true;
  }
  vec_push(t->a, &m->main->outputs, v);
  vec_push(t->a, &m->main->output_names, v->name);
  return true;
}

static bool parse_ids(Parser *t, bool inputs) {
  skip(t);
  while (*t->s == 'b' && isdigit((unsigned char)t->s[1])) {
    int id = 0;
    if (!parse_id(t, 'b', t->m->buffers.n, &id)) return false;
    if (inputs)
      vec_push(t->a, &t->m->inputs, id);
    else
      vec_push(t->a, &t->m->outputs, id);
    if (eat(t, ":") && !parse_interface(t, inputs)) return false;
    if (!eat(t, ",")) break;
    skip(t);
  }
  return true;
}

static bool parse_plan(Parser *t) {
  return parse_size(t, &t->m->arena_bytes) && expect(t, "scratch") &&
         parse_size(t, &t->m->scratch_bytes) && expect(t, "lower") &&
         parse_int(t, &t->m->arena_lower_bound);
}

static bool parse_module(Parser *t) {
  if (!expect(t, "module")) return false;
  if (eat(t, "threads") && !parse_small(t, &t->m->max_threads)) return false;
  if (!expect(t, "{")) return false;
  while (eat(t, "symbol"))
    if (!parse_symbol_row(t)) return false;
  while (skip(t), *t->s == 'b' && isdigit((unsigned char)t->s[1]))
    if (!parse_buffer(t)) return false;
  if (eat(t, "inputs") && !parse_ids(t, true)) return false;
  if (eat(t, "outputs") && !parse_ids(t, false)) return false;
  if (eat(t, "arena") && !parse_plan(t)) return false;
  while (at(t, "kernel"))
    if (!parse_kernel(t)) return false;
  return expect(t, "steps") && expect(t, "{") && parse_steps(t, &t->m->steps) && expect(t, "}");
}

static Parser parser_of(Model *model, const char *text, const char *file) {
  return (Parser){.m = module_new(model),
                  .a = model->arena,
                  .p = model->pool,
                  .file = file,
                  .text = text,
                  .s = text};
}

Module *module_parse(Model *model, const char *text, const char *file) {
  Parser t = parser_of(model, text, file);
  TextParser x = frame_at(&t);
  if (!frame_number_symbols(&x) || !parse_module(&t)) return NULL;
  skip(&t);
  return !*t.s || fail(&t, "text behind the module") ? t.m : NULL;
}

Module *module_parse_at(TextParser *x) {
  Parser t = parser_of(x->m, x->text, x->file);
  t.s = x->s;
  t.whole = true;
  const bool ok = parse_module(&t);
  x->s = t.s;
  return ok ? t.m : NULL;
}
