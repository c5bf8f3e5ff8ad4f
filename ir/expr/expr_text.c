/* Printer of expressions. Small ones print as trees. Large or deep ones name their shared parts, so
 * that the text stays as small as the DAG:  {%0 = a*b; %1 = exp(%0); %1 + %0}  — also inside a
 * reduction's body. */
#include <ctype.h>
#include <math.h>
#include <string.h>
#include "ir/expr/expr_impl.h"

enum { TREE_MAX = 200, DEPTH_MAX = 60, DEPTH_STEP = 40 };

typedef struct Printer {
  const ExprPool *p;
  StrBuf *b;
  int *name; /* by uid: 1 + number of its let; NULL while there are none */
  int lets;
} Printer;

static void print(Printer *w, const Expr *e, int prec);
static void print_scope(Printer *w, const Expr *e);

/* ---- names and constants ---- */
static bool plain_name(const char *s) {
  if (!*s) return false;
  for (; *s; s++)
    if (!isalnum((unsigned char)*s) && *s != '_') return false;
  return true;
}

static void print_symbol(Printer *w, const char *name) {
  sb_putc(w->b, '$');
  if (plain_name(name))
    sb_printf(w->b, "%s", name);
  else
    sb_quoted(w->b, name);
}

static void print_const(Printer *w, const Expr *e) {
  const DType t = (DType)e->dtype;
  if (t == DT_BOOL)
    sb_printf(w->b, e->k.i ? "true" : "false");
  else if (t == DT_I64)
    sb_printf(w->b, "%lld", (long long)e->k.i);
  else if (t == DT_U64)
    sb_printf(w->b, "%lluu64", (unsigned long long)e->k.i);
  else if (!dtype_is_float(t))
    sb_printf(w->b, "%lld%s", (long long)e->k.i, dtype_text(t));
  else if (isnan(e->k.f))
    sb_printf(w->b, "nan%s", dtype_text(t));
  else if (isinf(e->k.f))
    sb_printf(w->b, "%sinf%s", e->k.f < 0 ? "-" : "", dtype_text(t));
  else
    sb_printf(w->b, t == DT_F64 ? "%.17g%s" : "%.9g%s", e->k.f, dtype_text(t));
}

/* ---- operators ---- */
static int precedence(ExprOp op) {
  switch (op) {
    case EX_or: return 1;
    case EX_xor: return 2;
    case EX_and: return 3;
    case EX_eq:
    case EX_ne: return 4;
    case EX_lt:
    case EX_le: return 5;
    case EX_add:
    case EX_sub: return 6;
    case EX_mul:
    case EX_div: return 7;
    default: return 8;
  }
}

/* A constant, or a multiple, which a sum can take off. */
static bool is_negative(const Printer *w, const Expr *t) {
  const Expr *const c = t->op == EX_mul && is_const(t->a[1]) ? t->a[1] : t;
  const bool named = w->name && w->name[t->uid];
  return !named && is_const(c) && t->dtype == DT_I64 && c->k.i < 0 && c->k.i != INT64_MIN;
}

/* Right side of an i64 sum: prints " - x" for a negative term. */
static void print_term(Printer *w, const Expr *t) {
  const bool scaled = t->op == EX_mul && is_const(t->a[1]);
  const Expr *const c = scaled ? t->a[1] : t;
  if (!is_negative(w, t)) {
    sb_printf(w->b, " + ");
    print(w, t, 7);
    return;
  }
  sb_printf(w->b, " - ");
  if (scaled) print(w, t->a[0], 7);
  if (scaled && c->k.i != -1) sb_putc(w->b, '*');
  if (!scaled || c->k.i != -1) sb_printf(w->b, "%lld", (long long)-c->k.i);
}

/* No sum begins with what it takes off: which term comes first depends on the pool. */
static void print_infix(Printer *w, const Expr *e, int prec) {
  const int own = precedence((ExprOp)e->op);
  const bool turn = e->op == EX_add && is_negative(w, e->a[0]) && !is_negative(w, e->a[1]);
  if (own < prec) sb_putc(w->b, '(');
  print(w, e->a[turn], own);
  if (e->op == EX_add) {
    print_term(w, e->a[!turn]);
  } else {
    sb_printf(w->b, e->op == EX_mul ? "%s" : " %s ", expr_op_info[e->op].text);
    print(w, e->a[1], own + 1);
  }
  if (own < prec) sb_putc(w->b, ')');
}

static void print_call(Printer *w, const Expr *e) {
  const OpInfo *const info = &expr_op_info[e->op];
  sb_printf(w->b, "%s", info->text);
  if (info->result == RES_OWN) sb_printf(w->b, "<%s>", dtype_text(e->dtype));
  for (int i = 0; i < e->nargs; i++) {
    sb_printf(w->b, i ? ", " : "(");
    print(w, e->a[i], 0);
  }
  sb_putc(w->b, ')');
}

static void print_access(Printer *w, const Expr *e) {
  sb_printf(w->b, e->op == EX_LOAD ? "b%d[" : "t%d[", e->id);
  print(w, e->a[0], 0);
  if (e->a[1]) {
    sb_printf(w->b, " if ");
    print(w, e->a[1], 0);
  }
  sb_putc(w->b, ']');
}

static void print_reduce(Printer *w, const Expr *e) {
  static const char *const names[] = {"sum", "prod", "least", "most", "all", "any"};
  const VarInfo *const v = &w->p->vars.data[e->id];
  sb_printf(w->b, "%s(%s", names[e->k.i], v->name);
  if (!expr_is_i64(v->lo, 0)) {
    sb_printf(w->b, " from ");
    print(w, v->lo, 6);
  }
  sb_printf(w->b, " < ");
  print(w, e->a[1], 6);
  sb_printf(w->b, ": ");
  print_scope(w, e->a[0]);
  sb_putc(w->b, ')');
}

static void print(Printer *w, const Expr *e, int prec) {
  if (w->name && w->name[e->uid]) {
    sb_printf(w->b, "%%%d", w->name[e->uid] - 1);
    return;
  }
  switch (e->op) {
    case EX_CONST: print_const(w, e); break;
    case EX_SYM: print_symbol(w, w->p->syms.data[e->id]->name); break;
    case EX_VAR: sb_printf(w->b, "%s", w->p->vars.data[e->id].name); break;
    case EX_HOLE: sb_printf(w->b, "?%d%s", e->id, dtype_text(e->dtype)); break;
    case EX_LOAD:
    case EX_LOCAL: print_access(w, e); break;
    case EX_REDUCE: print_reduce(w, e); break;
    default:
      if (precedence((ExprOp)e->op) < 8)
        print_infix(w, e, prec);
      else
        print_call(w, e);
  }
}

/* ---- lets ---- */
static int64_t tree_size(const Expr *e, uint64_t stamp) {
  ENode *const n = enode(e);
  if (n->stamp == stamp) return n->memo.num;
  int64_t size = 1;
  for (int i = 0; i < e->nargs; i++)
    if (e->a[i]) size += tree_size(e->a[i], stamp);
  if (size > 1000000) size = 1000000;
  n->stamp = stamp;
  return n->memo.num = size;
}

typedef struct LetWalk {
  uint64_t stamp;
  Arena *arena;
  Vec(const Expr *) order; /* after their arguments */
} LetWalk;

/* Counts the references within this scope: bodies of reductions are scopes of their own. */
static void count_refs(LetWalk *l, const Expr *e) {
  ENode *const n = enode(e);
  if (n->stamp == l->stamp) {
    n->memo.num++;
    return;
  }
  n->stamp = l->stamp;
  n->memo.num = 1;
  for (int i = e->op == EX_REDUCE; i < e->nargs; i++)
    if (e->a[i]) count_refs(l, e->a[i]);
  if (e->nargs) vec_push(l->arena, &l->order, e);
}

static bool worth_name(const Expr *e) {
  if (e->depth % DEPTH_STEP == 0) return true;
  const bool scaled = e->nargs == 2 && is_const(e->a[1]) && e->a[0]->nargs == 0;
  return enode(e)->memo.num > 1 && !scaled;
}

static void print_scope(Printer *w, const Expr *e) {
  uint64_t *const stamp = &enode(e)->pool->stamp;
  if (e->depth <= DEPTH_MAX && tree_size(e, ++*stamp) <= TREE_MAX) {
    print(w, e, 0);
    return;
  }
  LetWalk l = {.stamp = ++*stamp, .arena = w->b->arena};
  Vec(const Expr *) named = {0};
  count_refs(&l, e);
  if (!w->name) w->name = ARENA_ARRAY(l.arena, int, w->p->n + 1);
  for (int i = 0; i < l.order.n; i++)
    if (l.order.data[i] != e && !w->name[l.order.data[i]->uid] && worth_name(l.order.data[i]))
      vec_push(l.arena, &named, l.order.data[i]);
  sb_putc(w->b, '{');
  for (int i = 0; i < named.n; i++) {
    const int number = w->lets++;
    sb_printf(w->b, "%%%d = ", number);
    print(w, named.data[i], 0);
    sb_printf(w->b, "; ");
    w->name[named.data[i]->uid] = number + 1;
  }
  print(w, e, 0);
  sb_putc(w->b, '}');
  for (int i = 0; i < named.n; i++) w->name[named.data[i]->uid] = 0;
}

void expr_print(const ExprPool *p, const Expr *e, StrBuf *b) {
  Printer w = {.p = p, .b = b};
  print_scope(&w, e);
}

const char *expr_text(const ExprPool *p, const Expr *e) {
  StrBuf b = {.arena = p->arena};
  expr_print(p, e, &b);
  return sb_str(&b);
}
