/* Parser of expressions. A bare number takes the type of what it is combined with, or the scope's
 * hint. Any input is safe: depth is limited, types are checked before a constructor sees them. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "ir/expr/expr_impl.h"

enum { DEPTH_LIMIT = 250, IDENT_MAX = 127, LET_LIMIT = 1000000 };

typedef struct Binding {
  const char *name;
  const Expr *e;
} Binding;

typedef struct Parser {
  ExprPool *p;
  const char *s;
  const ExprScope *scope;
  DType hint; /* of numbers without a type, here */
  const char *error;
  int depth;
  Vec(Binding) bound;     /* variables of reductions */
  Vec(const Expr *) lets; /* by number */
} Parser;

/* A number without a type yet (e NULL), or an expression. Neither: failed. */
typedef struct PVal {
  const Expr *e;
  bool bare, whole;
  int64_t i;
  double f;
} PVal;

static const PVal failed = {0};
static PVal parse_level(Parser *r, int level);
static bool ok(PVal v) { return v.e || v.bare; }

static PVal fail(Parser *r, const char *what) {
  if (!r->error) r->error = what;
  return failed;
}

/* ---- tokens ---- */
static char peek(Parser *r) {
  while (*r->s == ' ' || *r->s == '\t' || *r->s == '\n' || *r->s == '\r') r->s++;
  return *r->s;
}

static bool take(Parser *r, const char *token) {
  peek(r);
  const size_t n = strlen(token);
  if (strncmp(r->s, token, n) != 0) return false;
  r->s += n;
  return true;
}

static bool expect(Parser *r, const char *token) {
  if (take(r, token)) return true;
  if (!r->error) r->error = arena_printf(r->p->arena, "expected '%s'", token);
  return false;
}

static bool ident_start(char c) { return isalpha((unsigned char)c) || c == '_' || c == '@'; }
static bool ident_char(char c) { return isalnum((unsigned char)c) || c == '_'; }

/* Into buf[IDENT_MAX + 1]; false when there is none. */
static bool take_ident(Parser *r, char *buf) {
  if (!ident_start(peek(r))) return false;
  int n = 0;
  do {
    if (n == IDENT_MAX) return false;
    buf[n++] = *r->s++;
  } while (ident_char(*r->s));
  buf[n] = 0;
  return true;
}

static bool take_word(Parser *r, const char *word) {
  peek(r);
  const size_t n = strlen(word);
  if (strncmp(r->s, word, n) != 0 || ident_char(r->s[n])) return false;
  r->s += n;
  return true;
}

/* ---- types ---- */
static bool scalar_type(DType t) { return t == DT_BOOL || dtype_is_int(t) || dtype_is_float(t); }

static const Expr *typed(Parser *r, PVal v, DType t) {
  if (v.e) {
    if ((DType)v.e->dtype == t) return v.e;
    fail(r, arena_printf(r->p->arena, "operand is %s, expected %s", dtype_text(v.e->dtype),
                         dtype_text(t)));
    return NULL;
  }
  if (!v.bare) return NULL;
  if (dtype_is_float(t)) return ex_float(r->p, t, v.f);
  if (!scalar_type(t) || !v.whole) return fail(r, "number does not fit its type").e;
  return ex_int(r->p, t, v.i);
}

static const Expr *any_type(Parser *r, PVal v) { return v.e ? v.e : typed(r, v, r->hint); }

static PVal value(const Expr *e) { return (PVal){.e = e}; }
static PVal number(double f) { return (PVal){.bare = true, .f = f}; }
static PVal integer(int64_t i) {
  return (PVal){.bare = true, .whole = true, .i = i, .f = (double)i};
}

/* ---- numbers ---- */
static PVal with_suffix(Parser *r, PVal v) {
  char suffix[IDENT_MAX + 1];
  if (!ident_start(*r->s)) return v;
  if (!take_ident(r, suffix)) return fail(r, "bad number");
  const DType t = dtype_from_text(suffix);
  if (!scalar_type(t)) return fail(r, "unknown type of number");
  return value(typed(r, v, t));
}

static PVal parse_number(Parser *r) {
  const char *end = r->s;
  char *stop;
  bool whole = true;
  if (end[0] == '0' && (end[1] == 'x' || end[1] == 'X')) {
    const uint64_t u = strtoull(r->s, &stop, 16);
    r->s = stop;
    return integer((int64_t)u);
  }
  while (isdigit((unsigned char)*end)) end++;
  if (*end == '.') whole = false, end++;
  while (isdigit((unsigned char)*end)) end++;
  if ((*end == 'e' || *end == 'E') &&
      (isdigit((unsigned char)end[1]) ||
       ((end[1] == '-' || end[1] == '+') && isdigit((unsigned char)end[2])))) {
    whole = false;
    end += 2;
    while (isdigit((unsigned char)*end)) end++;
  }
  if (end - r->s > 400) return fail(r, "number is too long");
  const char *const text = arena_strndup(r->p->arena, r->s, (size_t)(end - r->s));
  r->s = end;
  const double f = strtod(text, NULL);
  if (!whole) return with_suffix(r, number(f));
  errno = 0;
  const uint64_t u = strtoull(text, NULL, 10);
  if (errno == ERANGE) return with_suffix(r, number(f));
  PVal v = integer((int64_t)u);
  v.f = f;
  return with_suffix(r, v);
}

/* inf, nan, inff32, nanf16 … */
static PVal parse_special(Parser *r, const char *ident) {
  const bool is_inf = !strncmp(ident, "inf", 3);
  if (!is_inf && strncmp(ident, "nan", 3) != 0) return failed;
  const PVal v = number(is_inf ? INFINITY : NAN);
  if (!ident[3]) return v;
  const DType t = dtype_from_text(ident + 3);
  return dtype_is_float(t) ? value(typed(r, v, t)) : failed;
}

/* ---- symbols, holes, names ---- */
static int hex_digit(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                : -1;
}

static const char *parse_quoted(Parser *r) {
  StrBuf b = {.arena = r->p->arena};
  for (; *r->s != '"'; r->s++) {
    if (!*r->s) return NULL;
    if (*r->s != '\\') {
      sb_putc(&b, *r->s);
      continue;
    }
    const char c = *++r->s;
    if (!c) return NULL;
    if (c == 'x') {
      const int hi = hex_digit(r->s[1]), lo = hi < 0 ? -1 : hex_digit(r->s[2]);
      if (lo < 0 || hi + lo == 0) return NULL;
      sb_putc(&b, (char)(hi * 16 + lo));
      r->s += 2;
    } else {
      sb_putc(&b, c == 'n' ? '\n' : c);
    }
  }
  r->s++;
  return sb_str(&b);
}

static PVal parse_symbol(Parser *r) {
  const char *name;
  r->s++;
  if (*r->s == '"') {
    r->s++;
    name = parse_quoted(r);
  } else {
    const char *const start = r->s;
    while (ident_char(*r->s)) r->s++;
    name = r->s == start ? NULL : arena_strndup(r->p->arena, start, (size_t)(r->s - start));
  }
  return name ? value(ex_sym(r->p, name)) : fail(r, "bad symbol name");
}

static bool take_small(Parser *r, int *out) {
  if (!isdigit((unsigned char)*r->s)) return false;
  for (*out = 0; isdigit((unsigned char)*r->s); r->s++) {
    if (*out >= LET_LIMIT) return false;
    *out = *out * 10 + (*r->s - '0');
  }
  return true;
}

static PVal parse_hole(Parser *r) {
  char type[IDENT_MAX + 1];
  int id;
  r->s++;
  if (!take_small(r, &id) || !take_ident(r, type) || !scalar_type(dtype_from_text(type)))
    return fail(r, "bad hole");
  return value(ex_hole(r->p, dtype_from_text(type), id));
}

static PVal parse_let_use(Parser *r) {
  int id;
  r->s++;
  if (!take_small(r, &id) || id >= r->lets.n || !r->lets.data[id]) return fail(r, "unknown %name");
  return value(r->lets.data[id]);
}

/* ---- compound forms ---- */
/* {%0 = e; %1 = e; e} */
static PVal parse_lets(Parser *r) {
  int id;
  r->s++;
  while (peek(r) == '%') {
    const char *const start = r->s;
    r->s++;
    if (!take_small(r, &id)) return fail(r, "bad %name");
    if (peek(r) != '=' || r->s[1] == '=') { /* the last expression begins with a use */
      r->s = start;
      break;
    }
    r->s++;
    const Expr *const e = any_type(r, parse_level(r, 1));
    if (!e || !expect(r, ";")) return failed;
    if (id > r->lets.n + 1000) return fail(r, "bad %name");
    while (r->lets.n <= id) vec_push(r->p->arena, &r->lets, NULL);
    r->lets.data[id] = e;
  }
  const PVal v = parse_level(r, 1);
  return ok(v) && expect(r, "}") ? v : failed;
}

/* A size or an index: its numbers are i64, whatever is computed around it. */
static const Expr *parse_size(Parser *r, int level) {
  const DType outer = r->hint;
  r->hint = DT_I64;
  const Expr *const e = typed(r, parse_level(r, level), DT_I64);
  r->hint = outer;
  return e;
}

static PVal parse_reduce(Parser *r, ReduceKind kind) {
  char name[IDENT_MAX + 1];
  if (!take_ident(r, name)) return fail(r, "expected a variable");
  const Expr *lo = ex_i64(r->p, 0);
  if (take_word(r, "from") && !(lo = parse_size(r, 6))) return failed;
  if (!expect(r, "<")) return failed;
  const Expr *const extent = parse_size(r, 6);
  if (!extent || !expect(r, ":")) return failed;
  const Expr *const var = ex_var_named(r->p, name, lo, extent);
  const Binding b = {arena_strdup(r->p->arena, name), var};
  vec_push(r->p->arena, &r->bound, b);
  const Expr *const body = any_type(r, parse_level(r, 1));
  r->bound.n--;
  return body && expect(r, ")") ? value(ex_reduce(r->p, kind, var, body)) : failed;
}

static PVal parse_access(Parser *r, const char *ident) {
  const Expr *const index = parse_size(r, 1), *guard = NULL;
  if (index && take_word(r, "if") && !(guard = typed(r, parse_level(r, 1), DT_BOOL))) return failed;
  if (!index || !expect(r, "]")) return failed;
  const Expr *const e =
      r->scope->access ? r->scope->access(r->scope->user, ident, index, guard) : NULL;
  return e ? value(e) : fail(r, arena_printf(r->p->arena, "unknown buffer '%s'", ident));
}

static PVal parse_convert(Parser *r, ExprOp op) {
  char type[IDENT_MAX + 1];
  if (!expect(r, "<") || !take_ident(r, type) || !expect(r, ">") || !expect(r, "("))
    return fail(r, "bad conversion");
  const DType t = dtype_from_text(type);
  if (!scalar_type(t)) return fail(r, "unknown type");
  const Expr *const a = any_type(r, parse_level(r, 1));
  if (!a || !expect(r, ")")) return failed;
  if (!scalar_type(a->dtype)) return fail(r, "value cannot be converted");
  if (op == EX_bits && dtype_bytes(t) != dtype_bytes(a->dtype))
    return fail(r, "bits of another size");
  return value(op == EX_cast  ? ex_cast(r->p, t, a)
               : op == EX_sat ? ex_sat(r->p, t, a)
                              : ex_bits(r->p, t, a));
}

static bool float_only(ExprOp op) { return op == EX_sqrt || (op >= EX_exp && op < EX_pow); }
static bool is_choice(ExprOp op) { return op == EX_select || op == EX_rarely; }
static bool bitwise(ExprOp op) { return op >= EX_and && op <= EX_shr; }

static PVal make(Parser *r, ExprOp op, const Expr *a, const Expr *b, const Expr *c) {
  const DType t = (DType)(is_choice(op) ? b : a)->dtype;
  if (!scalar_type(t) && !(t == DT_STR && op == EX_eq)) /* of strings, before they are numbers */
    return fail(r, "operation on a value that is no number");
  if (bitwise(op) && dtype_is_float(t)) return fail(r, "bitwise operation on a float");
  if (float_only(op) && !dtype_is_float(t)) return fail(r, "operation needs a float");
  const Expr *const args[] = {a, b, c};
  for (int i = 0; i < expr_op_info[op].arity; i++)
    if (expr_arg_type(op, i) != DT_NONE && args[i]->dtype != expr_arg_type(op, i))
      return fail(r, "groups and sum of a dot are of other types");
  return value(ex_op(r->p, op, a, b, c));
}

/* Of argument i of a row whose arguments are of type t as a rule. */
static DType literal_type(ExprOp op, int i, DType t) {
  if (is_choice(op) && i == 0) return DT_BOOL;
  return expr_arg_type(op, i) != DT_NONE ? expr_arg_type(op, i) : t;
}

static PVal parse_call(Parser *r, ExprOp op) {
  PVal v[3] = {{0}};
  const int n = expr_op_info[op].arity;
  DType t = DT_NONE;
  for (int i = 0; i < n; i++) {
    if (i && !expect(r, ",")) return failed;
    v[i] = parse_level(r, 1);
    if (!ok(v[i])) return failed;
    if (t == DT_NONE && v[i].e && !(is_choice(op) && i == 0)) t = (DType)v[i].e->dtype;
  }
  if (t == DT_NONE) t = r->hint;
  const Expr *e[3] = {0};
  for (int i = 0; i < n; i++)
    if (!(e[i] = typed(r, v[i], literal_type(op, i, t)))) return failed;
  return expect(r, ")") ? make(r, op, e[0], e[1], e[2]) : failed;
}

static PVal parse_name(Parser *r) {
  static const char *const reduces[] = {"sum", "prod", "least", "most", "all", "any"};
  char ident[IDENT_MAX + 1];
  if (!take_ident(r, ident)) return fail(r, "name is too long");
  if (*r->s == '[') return r->s++, parse_access(r, ident);
  for (int op = EX_cast; op <= EX_bits; op++)
    if (!strcmp(ident, expr_op_info[op].text)) return parse_convert(r, (ExprOp)op);
  if (peek(r) == '(') {
    r->s++;
    for (int k = 0; k < 6; k++)
      if (!strcmp(ident, reduces[k])) return parse_reduce(r, (ReduceKind)k);
    for (int op = EX_HOLE + 1; op < EX_COUNT; op++)
      if (!strcmp(ident, expr_op_info[op].text)) return parse_call(r, (ExprOp)op);
    return fail(r, arena_printf(r->p->arena, "unknown function '%s'", ident));
  }
  for (int i = r->bound.n - 1; i >= 0; i--)
    if (!strcmp(r->bound.data[i].name, ident)) return value(r->bound.data[i].e);
  const Expr *const e = r->scope->name ? r->scope->name(r->scope->user, ident) : NULL;
  if (e) return value(e);
  if (!strcmp(ident, "true") || !strcmp(ident, "false")) return value(ex_bool(r->p, *ident == 't'));
  const PVal special = parse_special(r, ident);
  return ok(special) ? special : fail(r, arena_printf(r->p->arena, "unknown name '%s'", ident));
}

static PVal negate(Parser *r, PVal v) {
  if (!v.bare) return v.e ? make(r, EX_neg, v.e, NULL, NULL) : failed;
  v.i = (int64_t)(0 - (uint64_t)v.i);
  v.f = -v.f;
  return v;
}

static PVal parse_primary(Parser *r) {
  const char c = peek(r);
  if (c == '-') {
    r->s++;
    return negate(r, parse_level(r, 8));
  }
  if (isdigit((unsigned char)c)) return parse_number(r);
  if (c == '$') return parse_symbol(r);
  if (c == '?') return parse_hole(r);
  if (c == '%') return parse_let_use(r);
  if (c == '{') return parse_lets(r);
  if (ident_start(c)) return parse_name(r);
  if (c != '(') return fail(r, "expected an expression");
  r->s++;
  const PVal v = parse_level(r, 1);
  return ok(v) && expect(r, ")") ? v : failed;
}

/* ---- infix ---- */
typedef struct Infix {
  const char *text;
  int level;
  ExprOp op;
  bool swap;
} Infix;

static const Infix infixes[] = {/* longer spellings first */
                                {"<=", 5, EX_le, false}, {">=", 5, EX_le, true},
                                {"==", 4, EX_eq, false}, {"!=", 4, EX_ne, false},
                                {"<", 5, EX_lt, false},  {">", 5, EX_lt, true},
                                {"|", 1, EX_or, false},  {"^", 2, EX_xor, false},
                                {"&", 3, EX_and, false}, {"+", 6, EX_add, false},
                                {"-", 6, EX_sub, false}, {"*", 7, EX_mul, false},
                                {"/", 7, EX_div, false}};

static const Infix *take_infix(Parser *r, int level) {
  peek(r);
  for (size_t k = 0; k < sizeof infixes / sizeof *infixes; k++) {
    const Infix *const f = &infixes[k];
    if (strncmp(r->s, f->text, strlen(f->text)) != 0) continue;
    if (f->level < level) return NULL;
    r->s += strlen(f->text);
    return f;
  }
  return NULL;
}

/* Arithmetic of two numbers without a type. */
static bool fold_bare(Parser *r, ExprOp op, PVal a, PVal b, PVal *out) {
  const Scalar zero = {0}, x = {.i = a.i}, y = {.i = b.i};
  if (op != EX_add && op != EX_sub && op != EX_mul && op != EX_div) return false;
  const double f = op == EX_add   ? a.f + b.f
                   : op == EX_sub ? a.f - b.f
                   : op == EX_mul ? a.f * b.f
                                  : a.f / b.f;
  const bool whole = a.whole && b.whole && !(op == EX_div && dtype_is_float(r->hint));
  *out = number(f);
  if (whole) *out = integer(scalar_op(op, DT_I64, x, y, zero).i);
  return true;
}

static PVal combine(Parser *r, const Infix *f, PVal a, PVal b) {
  PVal out;
  if (!ok(a) || !ok(b)) return failed;
  if (a.bare && b.bare && fold_bare(r, f->op, a, b, &out)) return out;
  const DType t = a.e ? (DType)a.e->dtype : b.e ? (DType)b.e->dtype : r->hint;
  const Expr *const x = typed(r, a, t), *const y = x ? typed(r, b, t) : NULL;
  if (!x || !y) return failed;
  return f->swap ? make(r, f->op, y, x, NULL) : make(r, f->op, x, y, NULL);
}

/* Operands of infix operators of this level and tighter; 8: a primary. */
static PVal parse_level(Parser *r, int level) {
  if (++r->depth > DEPTH_LIMIT) return fail(r, "expression is nested too deeply");
  PVal v = parse_primary(r);
  const Infix *f;
  while (ok(v) && (f = take_infix(r, level))) v = combine(r, f, v, parse_level(r, f->level + 1));
  r->depth--;
  return v;
}

const Expr *expr_parse(ExprPool *p, const char **text, const ExprScope *s, const char **error) {
  Parser r = {.p = p, .s = *text, .scope = s, .hint = s->hint};
  const Expr *const e = any_type(&r, parse_level(&r, 1));
  *text = r.s;
  if (e && !r.error) return e;
  if (error) *error = r.error ? r.error : "bad expression";
  return NULL;
}
