/* What the files of the expression pool share; no one else includes it. */
#pragma once
#include "ir/expr/expr.h"

/* Every expression is the first member of one of these: a known range, and a memo for walks. The
 * memo is valid while its stamp is that of the running walk; walks take fresh stamps from the
 * pool. */
typedef struct ENode {
  Expr e;
  ExprPool *pool;
  int64_t lo, hi; /* integers and bool; INT64_MIN / INT64_MAX: unbounded */
  uint64_t stamp;
  union {
    Scalar value;
    const Expr *expr;
    int64_t num;
  } memo;
} ENode;

typedef struct VarInfo {
  const char *name;
  const Expr *expr, *lo, *extent;
} VarInfo;

typedef struct NameSlot {
  const char *name; /* NULL: free */
  int id;
} NameSlot;

typedef struct NameTable { /* open addressing, cap a power of two */
  NameSlot *slots;
  int cap, n;
} NameTable;

struct ExprPool {
  Arena *arena;
  FloatRules rules;
  ENode **table; /* open addressing, cap a power of two */
  uint32_t cap, n;
  uint64_t stamp;
  uint64_t types; /* bits of the DTypes that expressions have */
  Vec(Symbol *) syms;
  Vec(const Expr *) sym_exprs;
  Vec(VarInfo) vars;
  NameTable sym_names, var_names;
};

static inline ENode *enode(const Expr *e) { return (ENode *)(uintptr_t)e; }

/* A row of scalar.def, and rows for the leaves. */
enum { RES_ARG, RES_BOOL, RES_ARG1, RES_ARG2, RES_OWN };
typedef struct OpInfo {
  const char *text;
  int arity, result, cost;
} OpInfo;
extern const OpInfo expr_op_info[EX_COUNT];

/* ---- expr.c ---- */
const Expr *expr_raw(ExprPool *p, ExprOp op, DType t, int id, int64_t k, const Expr *a,
                     const Expr *b, const Expr *c);
const Expr *expr_scalar(ExprPool *p, DType t, Scalar v);
/* Same operation on other arguments */
const Expr *expr_rebuild(ExprPool *p, const Expr *e, const Expr *const *a);
static inline bool is_const(const Expr *e) { return e->op == EX_CONST; }

/* ---- math.c ---- */
const Expr *math_row(ExprPool *p, ExprOp op, const Expr *a, const Expr *b); /* over basic rows */
static inline bool is_math_op(ExprOp op) { return op >= EX_exp && op <= EX_pow; }

/* ---- expr_range.c ---- */
typedef struct Range {
  int64_t lo, hi;
} Range;
Range range_type(DType t);
Range range_of(const Expr *e); /* symbols are looked up anew */
Range range_compute(const ExprPool *p, const Expr *e);
Range range_scale(Range r, int64_t c);
Range range_sum(Range a, Range b);
Range range_product(Range a, Range b);
/* A value of unknown size from data: index rules that need "no overflow" do not hold for it. */
bool range_wild(const Expr *e);

/* ---- expr_poly.c: canonical i64 sums of products ---- */
enum { POLY_MAX = 48, MONO_MAX = 12 };
typedef struct Poly {
  int n;
  int64_t k; /* constant */
  struct {
    int64_t c;
    const Expr *prod; /* atom or left-leaning product of atoms */
  } t[POLY_MAX];      /* ordered by uid of prod */
} Poly;
typedef struct Mono { /* c * product of atoms, ordered by uid */
  int64_t c;
  int n;
  const Expr *atom[MONO_MAX];
} Mono;
void poly_zero(Poly *d);
/* D += scale*e; false: too many terms (d is then junk) */
bool poly_add(Poly *d, const Expr *e, int64_t scale);
bool poly_add_poly(Poly *d, const Poly *s, int64_t scale);
bool poly_add_term(Poly *d, const Expr *prod, int64_t c);
bool poly_mul(ExprPool *p, Poly *d, const Poly *a, const Poly *b);
const Expr *poly_expr(ExprPool *p, Poly *d); /* canonical expression */
bool poly_wild(const Poly *d);
Range poly_range(const Poly *d);
bool mono_of(Mono *m, const Expr *prod, int64_t c);
const Expr *mono_product(ExprPool *p, const Mono *m); /* without c; NULL when there are no atoms */
bool mono_divide(const Mono *a, const Mono *b, Mono *q); /* exact */
void mono_gcd(const Mono *a, const Mono *b, Mono *g);
const Expr *poly_sum2(ExprPool *p, const Expr *a, const Expr *b, int64_t scale_b);
const Expr *poly_product2(ExprPool *p, const Expr *a, const Expr *b);

/* ---- expr_prove.c ---- */
bool prove_ge0(ExprPool *p, const Poly *d);
bool prove_in(ExprPool *p, const Poly *r, const Expr *end); /* 0 <= r < end */

/* ---- expr_div.c, expr_simplify.c ---- NULL: no rule applies ---- */
const Expr *simplify_floordiv(ExprPool *p, const Expr *a, const Expr *b);
const Expr *simplify_floormod(ExprPool *p, const Expr *a, const Expr *b);
const Expr *simplify_op(ExprPool *p, ExprOp op, const Expr *a, const Expr *b, const Expr *c);
const Expr *simplify_cast(ExprPool *p, ExprOp op, DType t, const Expr *a);
