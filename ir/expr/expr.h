/* Expressions: one hash-consed, immutable language for dimensions (over symbols), indices (over
 * loop variables) and scalar values (with loads and reductions). Equal expressions are the same pointer.
 * Constructors simplify; i64 expressions are kept in a canonical form (sum of products ordered by
 * creation), so that shapes compare by pointer.
 *
 *   text                         meaning
 *   3   2.5f32   -inff32         constants
 *   $batch   $"odd name"         symbol
 *   i0                           variable of a loop
 *   a + b*c   max(a, 0)          rows of scalar.def
 *   cast<f16>(x)                 conversion; also sat<u8>(x), bits<i32>(x)
 *   b2[i0*4 + 1]                 load
 *   b2[i0 if i0 < 7]             guarded load: 0 of the type where the guard is false
 *   t0[3]                        local of a kernel
 *   sum(k1 < 64: b0[k1]*b1[k1])  reduction; also prod least most all any
 *   sum(k1 from 2 < 64: …)       the same over k1 in [2, 2 + 64)
 *   ?3f32                        hole
 *   {%0 = exp(b0[1]); %0*%0}     shared parts of large expressions are named
 */
#pragma once
#include "ir/base/arena.h"
#include "ir/base/dtype.h"

/* clang-format off */
typedef enum ExprOp {
  /*            id             arguments, constant */
  EX_CONST,  /* -              k.i for ints and bool, k.f for floats */
  EX_SYM,    /* symbol         a dimension, i64 */
  EX_VAR,    /* variable       of a loop or reduction, i64 */
  EX_LOAD,   /* buffer         a[0]: element index; a[1]: guard or NULL */
  EX_LOCAL,  /* local          of a kernel (loop IR only); a[0]: element index */
  EX_REDUCE, /* variable       bound here; k.i: ReduceKind; a[0]: body; a[1]: extent */
  EX_HOLE,   /* number         a placeholder that a lowering replaces (a contraction's sum) */
#define S(id, text, arity, result, cost, adjoint) EX_##id,
#include "ir/expr/scalar.def"
#undef S
  EX_COUNT
} ExprOp;
/* clang-format on */

typedef enum ReduceKind { RED_SUM, RED_PROD, RED_MIN, RED_MAX, RED_AND, RED_OR } ReduceKind;

typedef struct Expr Expr;
struct Expr {
  uint8_t op;    /* ExprOp */
  uint8_t dtype; /* DType */
  uint8_t nargs;
  uint8_t flags;  /* EXF_*, computed from the arguments */
  int32_t id;     /* by op */
  uint32_t uid;   /* creation number: the deterministic order */
  uint32_t depth; /* 1 + that of the deepest argument */
  union {
    int64_t i;
    double f;
  } k;
  const Expr *a[3];
};
enum { /* Expr.flags: what it contains */
       EXF_LOAD = 1,
       EXF_REDUCE = 2,
       EXF_LOCAL = 4,
       EXF_VAR = 8,
       EXF_SYM = 16,
       EXF_HOLE = 32,
       EXF_MATH = 64 /* a math row: exp … pow */
};

typedef struct ExprPool ExprPool; /* the interning table, symbols and variables of one model */
ExprPool *expr_pool_new(Arena *a);
Arena *expr_pool_arena(ExprPool *p);

/* Where targets differ in the bits of floating point; what is folded and interpreted follows the
 * target that code is made for. All false: fma is one instruction, and of equal operands min and
 * max give the first. Set before a model is built. */
typedef struct FloatRules {
  bool split_fma;     /* fma(a, b, c) is written as a product and a sum */
  bool split_dot2;    /* dot2_bf16 is written as two fma's: the same bits, but other code pays */
  bool ordered_zeros; /* for min and max -0 is below +0 */
  bool byte_rows;     /* sums of products of bytes run along rows: the same integers, other code */
} FloatRules;
FloatRules *expr_pool_rules(ExprPool *p);
/* Whether any expression of this type was ever made. */
bool expr_pool_has(const ExprPool *p, DType t);

/* ---- symbols and variables ---- */
typedef struct Symbol {
  const char *name;
  int64_t lo; /* known lower bound (usually 0 or 1) */
  /* Upper bound as an expression of other symbols (data-dependent sizes), or NULL */
  const Expr *bound;
  bool runtime; /* assigned while the program runs (data-dependent), not by the caller */
} Symbol;
const Expr *ex_sym(ExprPool *p, const char *name);       /* finds or makes */
const Expr *ex_sym_fresh(ExprPool *p, const char *stem); /* unused name stem_N */
Symbol *expr_symbol(ExprPool *p, int id);
int expr_symbol_count(const ExprPool *p);

/* A variable that runs over [0, extent); the simplifier uses the range. */
const Expr *ex_var(ExprPool *p, const char *stem, const Expr *extent);
/* A variable over [lo, lo + extent) (split loops); lo may be negative. */
const Expr *ex_var_range(ExprPool *p, const char *stem, const Expr *lo, const Expr *extent);
const Expr *ex_var_of(ExprPool *p, int id); /* the variable expression of an id */
/* For parsers: the variable of exactly this name and range, made if there is none. Should the name
 * be taken by one of another range, a similar name is used. Names of variables are unique in a
 * pool. */
const Expr *ex_var_named(ExprPool *p, const char *name, const Expr *lo, const Expr *extent);
const char *expr_var_name(const ExprPool *p, int id);
int expr_var_count(const ExprPool *p);
const Expr *expr_var_extent(const ExprPool *p, int id);
const Expr *expr_var_lo(const ExprPool *p, int id);

/* ---- constructors (all simplify; arguments must have matching types) ---- */
const Expr *ex_i64(ExprPool *p, int64_t v);
const Expr *ex_int(ExprPool *p, DType t, int64_t v);
const Expr *ex_float(ExprPool *p, DType t, double v); /* rounded to t */
const Expr *ex_const(ExprPool *p, DType t, double v); /* int or float by class of t */
const Expr *ex_bool(ExprPool *p, bool v);
/* Any S row but cast/sat/bits */
const Expr *ex_op(ExprPool *p, ExprOp op, const Expr *a, const Expr *b, const Expr *c);
/* What argument i of a row must be; DT_NONE: of the same type as the others. */
DType expr_arg_type(ExprOp op, int i);
/* An element of a group of two bf16, as an f32; upper: the second one. */
const Expr *ex_bf16_element(ExprPool *p, const Expr *group, bool upper);
const Expr *ex_cast(ExprPool *p, DType t, const Expr *a);
const Expr *ex_sat(ExprPool *p, DType t, const Expr *a);
const Expr *ex_bits(ExprPool *p, DType t, const Expr *a);
const Expr *ex_load(ExprPool *p, DType t, int buffer, const Expr *index, const Expr *guard);
const Expr *ex_local(ExprPool *p, DType t, int local, const Expr *index);
const Expr *ex_hole(ExprPool *p, DType t, int id);
/* Extent is the variable's */
const Expr *ex_reduce(ExprPool *p, ReduceKind kind, const Expr *var, const Expr *body);
const Expr *reduce_identity(ExprPool *p, ReduceKind kind, DType t);
/* In which reductions of t are evaluated: floating sums of types below f64 in f64, rounded once. */
static inline DType reduce_type(ReduceKind kind, DType t) {
  return kind == RED_SUM && dtype_is_float(t) ? DT_F64 : t;
}
const Expr *reduce_combine(ExprPool *p, ReduceKind kind, const Expr *a, const Expr *b);

static inline const Expr *ex_add(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_add, a, b, NULL);
}
static inline const Expr *ex_sub(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_sub, a, b, NULL);
}
static inline const Expr *ex_mul(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_mul, a, b, NULL);
}
static inline const Expr *ex_div(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_div, a, b, NULL);
}
static inline const Expr *ex_floordiv(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_floordiv, a, b, NULL);
}
static inline const Expr *ex_floormod(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_floormod, a, b, NULL);
}
static inline const Expr *ex_min(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_min, a, b, NULL);
}
static inline const Expr *ex_max(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_max, a, b, NULL);
}
static inline const Expr *ex_lt(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_lt, a, b, NULL);
}
static inline const Expr *ex_le(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_le, a, b, NULL);
}
static inline const Expr *ex_eq(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_eq, a, b, NULL);
}
static inline const Expr *ex_and(ExprPool *p, const Expr *a, const Expr *b) {
  return ex_op(p, EX_and, a, b, NULL);
}
static inline const Expr *ex_select(ExprPool *p, const Expr *c, const Expr *a, const Expr *b) {
  return ex_op(p, EX_select, c, a, b);
}
const Expr *ex_ceildiv(ExprPool *p, const Expr *a, int64_t b);

/* ---- questions ---- */
bool expr_is_const(const Expr *e, int64_t *v); /* integer or bool constant */
static inline bool expr_is_i64(const Expr *e, int64_t v) {
  int64_t k;
  return expr_is_const(e, &k) && k == v;
}
/* How large an integer expression over symbols can get when each of them is at most `symbol`
 * (those with a bound: as their bound), and its size written out as a tree. Infinite when part of
 * it may leave 64 bits. With symbol 1: how large its coefficients are. */
double expr_magnitude(const Expr *e, double symbol);
double expr_tree_size(const Expr *e);
/* Of an integer expression; INT64_MIN / INT64_MAX: that side is unknown. False when both are. */
bool expr_range(ExprPool *p, const Expr *e, int64_t *lo, int64_t *hi);
bool expr_uses_var(const Expr *e, int var_id);
bool expr_uses_buffer(const Expr *e, int buffer);
/* Is there a part of e with one of `flags` (EXF_*) for which f is true? Shared parts are visited
 * once; f must not walk expressions itself. */
bool expr_any(const Expr *e, unsigned flags, bool (*f)(void *user, const Expr *part), void *user);
/* e = coeff*var + rest with rest free of var, coeff free of var; false when not affine in var. */
bool expr_affine(ExprPool *p, const Expr *e, const Expr *var, const Expr **coeff,
                 const Expr **rest);
/* The terms of an i64 sum: e = sum of coeff * product; the constant (if not 0) comes last with
 * product NULL. Returns the count, or -1 when more than max. */
typedef struct ExprTerm {
  int64_t coeff;
  const Expr *product;
} ExprTerm;
int expr_terms(ExprPool *p, const Expr *e, ExprTerm *out, int max);
/* Sum of row costs of distinct nodes, reductions times their extent (64 if unknown) */
int expr_cost(const Expr *e);

/* ---- rewriting ---- */
/* Replaces variables / symbols / holes / loads; shared subexpressions are visited once. Returns
 * NULL to keep. */
typedef const Expr *(*ExprRewrite)(void *user, const Expr *leaf);
/* Called on SYM VAR LOAD LOCAL HOLE (LOAD/LOCAL after their arguments) */
const Expr *expr_rewrite(ExprPool *p, const Expr *e, ExprRewrite leaf, void *user);
const Expr *expr_subst(ExprPool *p, const Expr *e, const Expr *var_or_sym_or_hole, const Expr *by);
/* Rebuilds with what is now known of ranges */
const Expr *expr_simplify(ExprPool *p, const Expr *e);
/* Replaces math rows (exp … pow) by polynomials over basic rows (ir/expr/math.c). Whoever
 * evaluates or emits math rows does it through this: there is no other meaning of them. */
const Expr *expr_lower_math(ExprPool *p, const Expr *e);

/* Gradients: what a gradient g of y (of y's type) gives each of the holes, as expressions in g and
 * what y holds; NULL: nothing. False: y holds a reduction, load or local over a hole. */
bool expr_adjoint(ExprPool *p, const Expr *y, const Expr *g, int n, const Expr *const *holes,
                  const Expr **out);

/* ---- evaluation ---- */
typedef union Scalar {
  int64_t i; /* ints (sign- or zero-extended to 64 bits) and bool */
  double f;  /* floats; an f32 value is held exactly */
} Scalar;
typedef struct EvalEnv { /* callbacks may be NULL where e holds none of them */
  void *user;
  Scalar (*sym)(void *user, int id);
  int64_t *vars; /* values by variable id; reductions write their own */
  Scalar (*load)(void *user, DType t, int buffer, int64_t index);
  Scalar (*local)(void *user, DType t, int local, int64_t index);
} EvalEnv;
Scalar expr_eval(const ExprPool *p, const Expr *e, EvalEnv *env);
/* t: type of argument 0 (select: of argument 1); no math row of floats */
Scalar scalar_op(ExprOp op, DType t, Scalar a, Scalar b, Scalar c);
/* Is e a min or max of floats that goes by the sign of zeros, too (scalar_ordered)? */
bool expr_ordered(const ExprPool *p, const Expr *e);
Scalar scalar_ordered(ExprOp op, Scalar a, Scalar b);
/* Operation of node e (no leaf, cast or bits) on the values of its arguments, by the pool's
 * rules. */
Scalar expr_apply(const ExprPool *p, const Expr *e, Scalar a, Scalar b, Scalar c);
Scalar scalar_cast(DType to, DType from, Scalar v, bool saturate);

/* ---- text ---- */
void expr_print(const ExprPool *p, const Expr *e, StrBuf *b);
const char *expr_text(const ExprPool *p, const Expr *e);
/* Parsing needs to know what names mean: the callback returns the expression for an identifier (a
 * variable, `a`…`d` of an EW body) or NULL; `$name` is always a symbol. Type of a bare number:
 * `hint`. */
typedef struct ExprScope {
  void *user;
  const Expr *(*name)(void *user, const char *ident);
  /* ident[...] */
  const Expr *(*access)(void *user, const char *ident, const Expr *index, const Expr *guard);
  DType hint;
} ExprScope;
/* NULL + *error on failure; advances *text */
const Expr *expr_parse(ExprPool *p, const char **text, const ExprScope *s, const char **error);
