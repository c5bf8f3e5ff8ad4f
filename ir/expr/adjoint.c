/* Reverse-mode differentiation of one scalar expression (Griewank and Walther, Evaluating
 * Derivatives, 2008, chapter 3): from the result backwards every part gives its arguments their
 * share, which the rows of scalar.def write as texts. Shared parts gather all shares first. */
#include <stdlib.h>
#include <string.h>
#include "ir/expr/expr_impl.h"

enum { CUTS, CASTS, GIVES };
typedef struct AdjointRow {
  int kind;
  const char *of[3]; /* NULL or "": nothing */
} AdjointRow;

static const AdjointRow rows[EX_COUNT] = {
#define D(...)             \
  {                        \
    GIVES, { __VA_ARGS__ } \
  }
#define SAME {CASTS, {0}}
#define CUT {CUTS, {0}}
#define S(id, text, arity, result, cost, adjoint) [EX_##id] = adjoint,
#include "ir/expr/scalar.def"
#undef S
#undef CUT
#undef SAME
#undef D
};

/* The parts of y that a hole is in: arguments are older than what is made of them. */
typedef struct Parts {
  ExprPool *p;
  Vec(const Expr *) part; /* descending by age once sorted */
  const Expr **share;     /* what the result's gradient gives each; NULL: nothing */
} Parts;

static bool collect(void *user, const Expr *part) {
  Parts *w = user;
  vec_push(w->p->arena, &w->part, part);
  return false;
}

static int newer_first(const void *a, const void *b) {
  const uint32_t x = (*(const Expr *const *)a)->uid, y = (*(const Expr *const *)b)->uid;
  return x < y ? 1 : x > y ? -1 : 0;
}

static int part_of(const Parts *w, const Expr *e) {
  const Expr **at =
      w->part.n ? bsearch(&e, w->part.data, (size_t)w->part.n, sizeof *w->part.data, newer_first)
                : NULL;
  return at ? (int)(at - w->part.data) : -1;
}

static void give(Parts *w, const Expr *e, const Expr *share) {
  const int k = part_of(w, e);
  if (k < 0) return;
  w->share[k] = w->share[k] ? ex_add(w->p, w->share[k], share) : share;
}

typedef struct Names {
  ExprPool *p;
  const Expr *e, *g;
} Names;

static const Expr *name_of(void *user, const char *ident) {
  const Names *s = user;
  const Expr *e = s->e;
  if (strcmp(ident, "tie") == 0) {
    const bool constant = e->a[0]->op == EX_CONST || e->a[1]->op == EX_CONST;
    return constant ? ex_const(s->p, (DType)e->dtype, 0)
                    : ex_mul(s->p, s->g, ex_const(s->p, (DType)e->dtype, 0.5));
  }
  if (ident[1]) return NULL;
  if (*ident == 'g') return s->g;
  if (*ident == 'y') return e;
  return *ident >= 'a' && *ident - 'a' < e->nargs ? e->a[*ident - 'a'] : NULL;
}

static bool share_out(Parts *w, const Expr *e, const Expr *g) {
  const AdjointRow *row = &rows[e->op];
  if (row->kind == CASTS) {
    if (dtype_is_float((DType)e->a[0]->dtype) && dtype_is_float((DType)e->dtype))
      give(w, e->a[0], ex_cast(w->p, (DType)e->a[0]->dtype, g));
    return true;
  }
  Names names = {w->p, e, g};
  const ExprScope scope = {.user = &names, .name = name_of, .hint = (DType)e->dtype};
  for (int k = 0; k < e->nargs; k++) {
    const char *text = row->of[k], *error = NULL;
    if (!text || !*text || !(e->a[k]->flags & EXF_HOLE) || !dtype_is_float((DType)e->a[k]->dtype))
      continue;
    const Expr *share = expr_parse(w->p, &text, &scope, &error);
    if (!share || *text) return false;
    give(w, e->a[k], share);
  }
  return true;
}

bool expr_adjoint(ExprPool *p, const Expr *y, const Expr *g, int n, const Expr *const *holes,
                  const Expr **out) {
  Parts w = {.p = p};
  for (int k = 0; k < n; k++) out[k] = NULL;
  if (!dtype_is_float((DType)y->dtype)) return true;
  expr_any(y, EXF_HOLE, collect, &w);
  if (w.part.n) qsort(w.part.data, (size_t)w.part.n, sizeof *w.part.data, newer_first);
  w.share = ARENA_ARRAY(p->arena, const Expr *, w.part.n + 1);
  give(&w, y, g);
  for (int k = 0; k < w.part.n; k++) {
    const Expr *e = w.part.data[k];
    if (!w.share[k] || !e->nargs) continue;
    if (e->op <= EX_HOLE || !share_out(&w, e, w.share[k])) return false;
  }
  for (int k = 0; k < n; k++) {
    const int at = part_of(&w, holes[k]);
    if (at >= 0) out[k] = w.share[at];
  }
  return true;
}
