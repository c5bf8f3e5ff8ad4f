/* Recognises the products of mma.h. A lane's number is taken apart into quad and place in it, of
 * which indices must be multiples; what remains is the base. */
#include "ir/loop/mma.h"

#include "ir/expr/expr_query.h"

enum { FRAGMENT_M, FRAGMENT_N, HALF, PAIR, STEP, LOOPS, MOST_FRAGMENTS = 16, MOST_STEPS = 256 };
enum { QUAD = 4, ALIGNED = 16 }; /* lanes; bytes */

typedef struct Nest {
  ExprPool *p;
  const Kernel *k;
  const Expr *var[LOOPS];
  int extent[LOOPS];
  const Expr *lane;
  const Expr *quad;  /* lane / 4 */
  const Expr *place; /* lane % 4 */
} Nest;

static bool open_loop(Nest *x, const Stmt *s, int i) {
  const int most = i == STEP ? MOST_STEPS : MOST_FRAGMENTS;
  const Expr *const var = s->loop.var, *const lo = expr_var_lo(x->p, var->id);
  int64_t n;
  if (s->loop.kind != FOR_MATRIX || (lo && !expr_is_i64(lo, 0)) ||
      !expr_is_const(expr_var_extent(x->p, var->id), &n) || n < 1 || n > most ||
      ((i == HALF || i == PAIR) && n != 2))
    return false;
  x->var[i] = var;
  x->extent[i] = (int)n;
  return true;
}

/* Takes the multiple of var that stands in *e out of it; of a loop with one iteration any. */
static bool take(const Nest *x, const Expr **e, const Expr *var, int64_t extent, int64_t want) {
  const Expr *coeff, *rest;
  int64_t n;
  if (!expr_affine(x->p, *e, var, &coeff, &rest) || !expr_is_const(coeff, &n) ||
      (n != want && extent > 1))
    return false;
  *e = rest;
  return true;
}

static bool coefficient(const Nest *x, const Expr *e, const Expr *var, int64_t *n) {
  const Expr *coeff, *rest;
  return expr_affine(x->p, e, var, &coeff, &rest) && expr_is_const(coeff, n);
}

static bool is_uniform(const Nest *x, const Expr *e) {
  for (int i = 0; i < LOOPS; i++)
    if (expr_uses_var(e, x->var[i]->id)) return false;
  return !(e->flags & (EXF_LOAD | EXF_LOCAL | EXF_REDUCE)) && !expr_uses_var(e, x->lane->id) &&
         !expr_uses_var(e, x->quad->id) && !expr_uses_var(e, x->place->id);
}

/* Row: quad + 8*half + 16*fragment. */
static bool read_rows(const Nest *x, const Expr **e, MmaOperand *out) {
  return coefficient(x, *e, x->quad, &out->pitch) && out->pitch > 0 &&
         take(x, e, x->quad, 2, out->pitch) && take(x, e, x->place, 2, 0) &&
         take(x, e, x->var[HALF], 2, out->pitch * (MMA_ROWS / 2)) &&
         take(x, e, x->var[FRAGMENT_M], x->extent[FRAGMENT_M], out->pitch * MMA_ROWS);
}

/* Column: 2*place + pair + 8*fragment. */
static bool read_columns(const Nest *x, const Expr **e, MmaOperand *out) {
  return coefficient(x, *e, x->var[PAIR], &out->pitch) && out->pitch > 0 &&
         take(x, e, x->var[PAIR], 2, out->pitch) && take(x, e, x->quad, 2, 0) &&
         take(x, e, x->place, 2, 2 * out->pitch) &&
         take(x, e, x->var[FRAGMENT_N], x->extent[FRAGMENT_N], out->pitch * MMA_COLS);
}

/* The same columns, of which each k has a line. */
static bool read_lines_of_k(const Nest *x, const Expr **e, MmaOperand *out) {
  return coefficient(x, *e, x->var[STEP], &out->pitch) && out->pitch > 0 &&
         take(x, e, x->var[PAIR], 2, 1) && take(x, e, x->quad, 2, 0) &&
         take(x, e, x->place, 2, 2) &&
         take(x, e, x->var[FRAGMENT_N], x->extent[FRAGMENT_N], MMA_COLS) &&
         take(x, e, x->var[STEP], x->extent[STEP], out->pitch);
}

/* k runs along a row, or a column. */
static bool read_along_k(const Nest *x, const Expr **e, bool columns, MmaOperand *out) {
  return (columns ? read_columns : read_rows)(x, e, out) && take(x, e, x->var[STEP], 2, 1);
}

const Expr *mma_tf32(ExprPool *p, const Expr *x) {
  enum { HALF = 0x1000 }; /* of the last bit that stays */
  const Expr *const bits = ex_bits(p, DT_I32, x), *const exponent = ex_int(p, DT_I32, 0x7f800000);
  const Expr *const up = ex_add(p, bits, ex_int(p, DT_I32, HALF));
  const Expr *const cut = ex_and(p, up, ex_int(p, DT_I32, -2 * HALF));
  const Expr *const finite = ex_lt(p, ex_and(p, bits, exponent), exponent);
  return ex_bits(p, DT_F32, ex_select(p, finite, cut, bits));
}

/* What mma_tf32 rounds; NULL: it did not make e. */
static const Expr *before_rounding(ExprPool *p, const Expr *e) {
  const Expr *const choice = e->op == EX_bits ? e->a[0] : NULL;
  const Expr *const bits = choice && choice->op == EX_select ? choice->a[2] : NULL;
  const Expr *const x = bits && bits->op == EX_bits ? bits->a[0] : NULL;
  return x && x->dtype == DT_F32 && mma_tf32(p, x) == e ? x : NULL;
}

static bool read_operand(const Nest *x, const Expr *e, bool columns, DType sums, MmaOperand *out) {
  const Expr *const rounded = before_rounding(x->p, e);
  if (rounded) e = rounded;
  if (e->op == EX_cast) e = e->a[0];
  if (e->op != EX_LOCAL || x->k->locals.data[e->id].memory != MEM_SHARED) return false;
  *out = (MmaOperand){.local = e->id, .type = (DType)e->dtype, .rounds = rounded != NULL};
  const bool fits = sums == DT_F32 ? e->dtype == DT_F16 || e->dtype == DT_BF16 || e->dtype == DT_F32
                                   : e->dtype == DT_I8 || e->dtype == DT_U8;
  const int64_t unit = ALIGNED / dtype_bytes(out->type);
  const Expr *const lane = ex_add(x->p, ex_mul(x->p, x->quad, ex_i64(x->p, QUAD)), x->place);
  const Expr *const all = expr_subst(x->p, e->a[0], x->lane, lane), *at = all;
  if (!fits) return false;
  if (!read_along_k(x, &at, columns, out)) {
    at = all;
    out->by_k = true;
    if (!columns || sums != DT_F32 || !read_lines_of_k(x, &at, out)) return false;
  }
  out->base = at;
  return is_uniform(x, at) && out->pitch % unit == 0 && expr_is_multiple(x->p, at, unit);
}

/* Number ((fragment_m*NJ + fragment_n)*2 + half)*2 + pair of all sums. */
static bool is_element(const Nest *x, int local, const Expr *index) {
  const int64_t nj = x->extent[FRAGMENT_N], mi = x->extent[FRAGMENT_M];
  const Local *const l = &x->k->locals.data[local];
  return l->memory == MEM_REGS && l->count == mi * nj * 4 &&
         take(x, &index, x->var[FRAGMENT_M], mi, nj * 4) &&
         take(x, &index, x->var[FRAGMENT_N], nj, 4) && take(x, &index, x->var[HALF], 2, 2) &&
         take(x, &index, x->var[PAIR], 2, 1) && expr_is_i64(index, 0);
}

static const char *read_product(const Nest *x, const Stmt *s, MatrixMma *out) {
  const Expr *const v = s->access.value;
  if (s->access.id < 0 || s->access.id >= x->k->locals.n) return "no such local";
  out->sum = s->access.id;
  out->type = (DType)v->dtype;
  if (s->access.reduce != RED_SUM || v->op != EX_mul || (v->dtype != DT_F32 && v->dtype != DT_I32))
    return "no sum of products";
  if (!is_element(x, s->access.id, s->access.index)) return "an index that is not of a lane's sum";
  for (int second = 0; second < 2; second++)
    if (read_operand(x, v->a[second], false, out->type, &out->a) &&
        read_operand(x, v->a[1 - second], true, out->type, &out->b))
      return out->type == DT_F32 && out->a.type != out->b.type ? "operands of two types" : NULL;
  return "operands that are not a lane's rows and columns of shared memory";
}

const char *matrix_mma(ExprPool *p, const Kernel *k, const Stmt *s, const Expr *lane,
                       MatrixMma *out) {
  Nest x = {.p = p, .k = k, .lane = lane};
  *out = (MatrixMma){0};
  if (!lane || !expr_is_i64(expr_var_extent(p, lane->id), MMA_LANES))
    return "the innermost thread loop does not count the lanes of a warp";
  for (int i = 0; i < LOOPS; i++, s = s->loop.body)
    if (!s || s->kind != ST_FOR || (i && s->next) || !open_loop(&x, s, i))
      return "other loops, or an impossible range";
  if (!s || s->next || s->kind != ST_ACC) return "not one accumulation";
  x.quad = ex_var_named(p, "mma_quad", ex_i64(p, 0), ex_i64(p, MMA_LANES / QUAD));
  x.place = ex_var_named(p, "mma_place", ex_i64(p, 0), ex_i64(p, QUAD));
  const char *const wrong = read_product(&x, s, out);
  out->mi = x.extent[FRAGMENT_M];
  out->nj = x.extent[FRAGMENT_N];
  out->k = x.extent[STEP];
  if (!wrong && out->k * dtype_bytes(out->a.type) % MMA_BYTES) return "a part of a fragment's k";
  return wrong;
}
