/* Recognises the operations of matrix.h. */
#include "ir/loop/matrix.h"

#include <math.h>

enum { ROW, COLUMN, STEP, LOOPS, BYTES = 4, PAIR = 2, MOST = 64 };

typedef struct Nest {
  ExprPool *p;
  const Kernel *k;
  const Expr *var[LOOPS];
  int extent[LOOPS];
  int n;
} Nest;

/* The loop's variable and range. */
static bool open_loop(Nest *x, const Stmt *s) {
  int64_t n;
  const Expr *const lo = expr_var_lo(x->p, s->loop.var->id);
  if (x->n == LOOPS || s->loop.kind != FOR_MATRIX ||
      !expr_is_const(expr_var_extent(x->p, s->loop.var->id), &n) || n < 1 || n > MOST ||
      (lo && !expr_is_i64(lo, 0)))
    return false;
  x->extent[x->n] = (int)n;
  x->var[x->n++] = s->loop.var;
  return true;
}

static bool uses_loops(const Nest *x, const Expr *e) {
  for (int i = 0; i < x->n; i++)
    if (expr_uses_var(e, x->var[i]->id)) return true;
  return false;
}

/* Takes coeff*var[i] out of *e. */
static bool take(const Nest *x, const Expr **e, int i, const Expr **coeff) {
  const Expr *rest;
  if (!expr_affine(x->p, *e, x->var[i], coeff, &rest)) return false;
  *e = rest;
  return true;
}

/* index = base + row*pitch + column*unit */
static bool read_place(const Nest *x, const Expr *index, int row, int column, int64_t unit,
                       MatrixPlace *out) {
  const Expr *coeff;
  if (!take(x, &index, row, &out->pitch) || !take(x, &index, column, &coeff) ||
      !expr_is_i64(coeff, x->extent[column] == 1 ? 0 : unit))
    return false;
  out->base = index;
  return !uses_loops(x, index) && !uses_loops(x, out->pitch);
}

/* ---- four bytes as one i32 ---- */
typedef struct Group {
  ExprPool *p;
  const Expr *byte[BYTES]; /* loads */
} Group;

/* e, an i32, shifted left by `shift`, is part of the group. */
static bool gather(Group *g, const Expr *e, int shift) {
  int64_t n;
  if (e->op == EX_or) return gather(g, e->a[0], shift) && gather(g, e->a[1], shift);
  if (e->op == EX_shl)
    return expr_is_const(e->a[1], &n) && n >= 0 && n < 32 && gather(g, e->a[0], shift + (int)n);
  if (e->op == EX_and) {
    const int mask = expr_is_const(e->a[0], &n) ? 0 : 1;
    return expr_is_const(e->a[mask], &n) && n == 255 && gather(g, e->a[1 - mask], shift);
  }
  if (e->op == EX_cast) e = e->a[0];
  const int i = shift / 8;
  if (e->op != EX_LOAD || e->a[1] || (e->dtype != DT_U8 && e->dtype != DT_I8) || shift % 8 ||
      i >= BYTES || g->byte[i])
    return false;
  g->byte[i] = e;
  return true;
}

/* Bits of a signed byte must not reach into the next one: all but the last are masked. */
static bool signs_are_masked(const Expr *e, bool last) {
  if (e->op == EX_or) return signs_are_masked(e->a[0], last) && signs_are_masked(e->a[1], last);
  if (e->op == EX_shl) {
    int64_t n;
    return signs_are_masked(e->a[0], expr_is_const(e->a[1], &n) && n == 24);
  }
  return e->op == EX_and || last;
}

static bool read_group(const Nest *x, const Expr *e, MatrixPlace *out, bool *is_signed) {
  Group g = {.p = x->p};
  if (e->dtype != DT_I32 || !gather(&g, e, 0) || !g.byte[0]) return false;
  *is_signed = g.byte[0]->dtype == DT_I8;
  if (*is_signed && !signs_are_masked(e, false)) return false;
  for (int i = 1; i < BYTES; i++)
    if (!g.byte[i] || g.byte[i]->id != g.byte[0]->id ||
        !expr_is_i64(ex_sub(x->p, g.byte[i]->a[0], g.byte[0]->a[0]), i))
      return false;
  out->id = g.byte[0]->id;
  return read_place(x, g.byte[0]->a[0], ROW, STEP, BYTES, out);
}

static bool read_panel(const Nest *x, const Expr *e, MatrixPlace *out) {
  if (e->op != EX_LOAD || e->a[1] || e->dtype != DT_I32) return false;
  out->id = e->id;
  return read_place(x, e->a[0], STEP, COLUMN, 1, out);
}

/* The same for groups of step `q`; steps and columns with the places of others in eights. */
static const Expr *at_step(const Nest *x, const Expr *index, int q) {
  return expr_subst(x->p, index, x->var[STEP], ex_i64(x->p, q));
}

/* index = base + floordiv(q, 2)*pitch + column*2 + floormod(q, 2) */
static bool read_eights(const Nest *x, const Expr *e, MatrixPlace *out) {
  const Expr *index = e->a[0], *coeff;
  if (e->op != EX_LOAD || e->a[1] || e->dtype != DT_I32 || x->extent[STEP] % 2 ||
      !take(x, &index, COLUMN, &coeff) || !expr_is_i64(coeff, 2))
    return false;
  out->id = e->id;
  out->base = at_step(x, index, 0);
  out->pitch =
      x->extent[STEP] > 2 ? ex_sub(x->p, at_step(x, index, 2), out->base) : ex_i64(x->p, 0);
  for (int q = 0; q < x->extent[STEP]; q++) {
    const Expr *const part = ex_mul(x->p, out->pitch, ex_i64(x->p, q / 2));
    if (ex_sub(x->p, at_step(x, index, q), out->base) != ex_add(x->p, part, ex_i64(x->p, q % 2)))
      return false;
  }
  return !uses_loops(x, out->base) && !uses_loops(x, out->pitch);
}

/* ---- pairs of bf16 ---- */

/* A bf16 of a buffer, in f32; of a pair the one of this number. */
static bool read_half(const Nest *x, const Expr *e, int number, MatrixPlace *out) {
  const Expr *const load = e->op == EX_cast ? e->a[0] : NULL;
  if (!load || load->op != EX_LOAD || load->a[1] || load->dtype != DT_BF16 || e->dtype != DT_F32)
    return false;
  out->id = load->id;
  return read_place(x, ex_sub(x->p, load->a[0], ex_i64(x->p, number)), ROW, STEP, PAIR, out);
}

/* The same of a pair in an i32. */
static bool read_panel_half(const Nest *x, const Expr *e, bool upper, MatrixPlace *out) {
  const Expr *const half = e->op == EX_bits ? e->a[0] : NULL;
  if (!half || half->nargs < 2) return false;
  for (int i = 0; i < 2; i++)
    if (half->a[i]->op == EX_LOAD && e == ex_bf16_element(x->p, half->a[i], upper))
      return read_panel(x, half->a[i], out);
  return false;
}

/* The product in a*b + sum, as an fma or as what stands for one on targets without. */
static bool read_product(const Expr *e, const Expr *sum, const Expr **a, const Expr **b) {
  if (e->op == EX_add && (e->a[0] == sum || e->a[1] == sum)) {
    const Expr *const product = e->a[e->a[0] == sum];
    *a = product->a[0];
    *b = product->a[1];
    return product->op == EX_mul;
  }
  *a = e->a[0];
  *b = e->a[1];
  return e->op == EX_fma && e->a[2] == sum;
}

static bool read_pair(const Nest *x, const Expr *e, const Expr *sum, int number, MatrixOp *out) {
  const Expr *v[2];
  if (!read_product(e, sum, &v[0], &v[1])) return false;
  for (int second = 0; second < 2; second++)
    if (read_half(x, v[second], number, &out->a) &&
        read_panel_half(x, v[1 - second], number > 0, &out->b))
      return true;
  return false;
}

bool matrix_reads(ExprPool *p, const Expr *value, const Expr *row, const Expr *step) {
  const Nest x = {.p = p, .var = {row, row, step}, .n = LOOPS};
  MatrixPlace place;
  bool is_signed;
  return value->dtype == DT_F32 ? read_half(&x, value, 0, &place)
                                : read_group(&x, value, &place, &is_signed);
}

static bool same_place(const MatrixPlace *a, const MatrixPlace *b) {
  return a->id == b->id && a->base == b->base && a->pitch == b->pitch;
}

/* ---- operations ---- */

static bool is_zero(const Expr *e) {
  return e->op == EX_CONST && ((e->dtype == DT_I32 && e->k.i == 0) ||
                               (e->dtype == DT_F32 && e->k.f == 0 && !signbit(e->k.f)));
}

static bool is_square(const Nest *x) {
  return x->extent[COLUMN] == MATRIX_PAIR && x->extent[ROW] <= MATRIX_PAIR;
}

/* Element (row, column) of a matrix register; *part: where in the local it begins, NULL: it is all of it. */
static bool is_element(const Nest *x, int local, const Expr *index, const Expr **part) {
  enum { SQUARE = MATRIX_PAIR * MATRIX_PAIR };
  const Local *l = &x->k->locals.data[local];
  const Expr *const at =
      ex_add(x->p, ex_mul(x->p, x->var[ROW], ex_i64(x->p, x->extent[COLUMN])), x->var[COLUMN]);
  *part = NULL;
  if (l->memory != MEM_MATRIX) return false;
  if (l->count == (int64_t)x->extent[ROW] * x->extent[COLUMN] && index == at) return true;
  *part = ex_sub(x->p, index, at);
  return is_square(x) && l->count % SQUARE == 0 && !uses_loops(x, *part) &&
         expr_is_i64(ex_floormod(x->p, *part, ex_i64(x->p, SQUARE)), 0);
}

static const char *read_multiply(const Nest *x, const Stmt *s, MatrixOp *out) {
  const Expr *const v = s->access.value, *const sum = v->nargs == 3 ? v->a[2] : NULL;
  const bool u8u8 = v->op == EX_dot4_u8u8, u8i8 = v->op == EX_dot4_u8i8,
             i8i8 = v->op == EX_dot4_i8i8;
  bool bytes_signed;
  if (!u8u8 && !u8i8 && !i8i8) return "not a product of groups of bytes";
  if (sum->op != EX_LOCAL || sum->id != s->access.id || sum->a[0] != s->access.index)
    return "a product that is not added to its own element";
  for (int second = 0; second < 2; second++) {
    if (!read_group(x, v->a[second], &out->a, &bytes_signed)) continue;
    out->eights = is_square(x) && read_eights(x, v->a[1 - second], &out->b);
    if (!out->eights && !read_panel(x, v->a[1 - second], &out->b)) continue;
    out->a_signed = i8i8 || (u8i8 && second);
    out->b_signed = i8i8 || (u8i8 && !second);
    return NULL;
  }
  return "operands that are not rows of bytes and of groups";
}

static const char *read_copy(const Nest *x, const Stmt *s, MatrixOp *out) {
  const Expr *const v = s->access.value;
  const LocalMemory to = x->k->locals.data[s->access.id].memory;
  if (to != MEM_STACK && !(to == MEM_REGS && is_square(x))) return "a copy to no array";
  if (!is_element(x, v->id, v->a[0], &out->part)) return "a copy of no matrix register";
  out->sum = v->id;
  out->a.id = s->access.id;
  return read_place(x, s->access.index, ROW, COLUMN, 1, &out->a) ? NULL : "a copy to no rows";
}

static const char *read_statement(const Nest *x, const Stmt *s, MatrixOp *out) {
  const Expr *const v = s->access.value;
  if (s->access.id < 0 || s->access.id >= x->k->locals.n) return "no such local";
  out->sum = s->access.id;
  if (x->n == 2 && v->op == EX_LOCAL) {
    out->kind = MATRIX_COPY;
    return v->id < 0 || v->id >= x->k->locals.n ? "no such local" : read_copy(x, s, out);
  }
  if (!is_element(x, s->access.id, s->access.index, &out->part))
    return "an index that is not of an element";
  if (x->n == LOOPS) {
    out->kind = MATRIX_MULTIPLY;
    return read_multiply(x, s, out);
  }
  out->kind = MATRIX_FILL;
  return is_zero(v) ? NULL : "no zero";
}

/* The statements of a product of bf16, inside of two loops. */
enum { FIRST, SECOND, CLEAR_FIRST, CLEAR_SECOND, PAIRS, JOIN, STATEMENTS };

static bool are_of_a_product(const Stmt *s, const Stmt *part[STATEMENTS]) {
  static const StmtKind kinds[] = {ST_LOCAL, ST_LOCAL, ST_SET, ST_SET, ST_FOR, ST_SET};
  for (int i = 0; i < STATEMENTS; i++, s = s->next) {
    if (!s || s->kind != kinds[i]) return false;
    part[i] = s;
  }
  const Stmt *const a = part[PAIRS]->loop.body, *const b = a ? a->next : NULL;
  return !s && b && !b->next && a->kind == ST_SET && b->kind == ST_SET;
}

/* Sum number i of the two; NULL: none that is 0 before. */
static const Expr *sum_of_halves(const Nest *x, const Stmt *const part[STATEMENTS], int i) {
  const Stmt *const clear = part[CLEAR_FIRST + i];
  const int id = clear->access.id;
  if (id != part[FIRST + i]->access.id || id < 0 || id >= x->k->locals.n ||
      x->k->locals.data[id].dtype != DT_F32 || !expr_is_i64(clear->access.index, 0) ||
      !is_zero(clear->access.value))
    return NULL;
  return ex_local(x->p, DT_F32, id, clear->access.index);
}

static bool read_halves(const Nest *x, const Stmt *s, const Expr *sum, int number, MatrixOp *out) {
  return s->access.id == sum->id && s->access.index == sum->a[0] &&
         read_pair(x, s->access.value, sum, number, out);
}

static const char *read_floats(Nest *x, const Stmt *s, MatrixOp *out) {
  const Stmt *part[STATEMENTS];
  MatrixOp upper = {0};
  if (!are_of_a_product(s, part) || !open_loop(x, part[PAIRS]))
    return "not the statements of a product of bf16";
  const Stmt *const pairs = part[PAIRS]->loop.body;
  const Stmt *const join = part[JOIN];
  const int to = join->access.id;
  const Expr *const even = sum_of_halves(x, part, 0), *const odd = sum_of_halves(x, part, 1);
  if (!even || !odd || even == odd || !read_halves(x, pairs, even, 0, out) ||
      !read_halves(x, pairs->next, odd, 1, &upper) || !same_place(&out->a, &upper.a) ||
      !same_place(&out->b, &upper.b))
    return "operands that are not rows of bf16 and of pairs";
  out->kind = MATRIX_MULTIPLY;
  out->floats = true;
  out->sum = to;
  if (to < 0 || to >= x->k->locals.n || !is_element(x, to, join->access.index, &out->part) ||
      out->part)
    return "no element";
  const Expr *const sum = ex_local(x->p, DT_F32, to, join->access.index);
  return join->access.value == ex_add(x->p, sum, ex_add(x->p, even, odd))
             ? NULL
             : "two sums that are not added to their element";
}

const char *matrix_op(ExprPool *p, const Kernel *k, const Stmt *s, MatrixOp *out) {
  Nest x = {.p = p, .k = k};
  *out = (MatrixOp){0};
  for (; s && s->kind == ST_FOR; s = s->loop.body)
    if ((x.n && s->next) || !open_loop(&x, s)) return "other loops, or an impossible range";
  const bool floats = s && s->kind == ST_LOCAL && x.n == 2;
  if (!floats && (!s || s->next || s->kind != ST_SET || x.n < 2))
    return "not one assignment to a local";
  const char *const wrong = floats ? read_floats(&x, s, out) : read_statement(&x, s, out);
  out->rows = x.extent[ROW];
  out->cols = x.extent[COLUMN];
  out->k = x.n == LOOPS ? x.extent[STEP] : 0;
  return wrong;
}
