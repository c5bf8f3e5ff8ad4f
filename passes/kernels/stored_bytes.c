/* Rows of bytes times weights in 2, 4 or 8 bits: the products of a block of k are added up as integers,
 * exactly, and scaled once. A word has the weights of a column in groups of four bytes, of which a
 * multiply-add takes one with four bytes of the row. Where these are few bits and the target only
 * has sums of two products in 16 bits, eight groups are added up there before they are widened.
 * Zero points come off at once: each is multiplied by the sum of the row's block. */
#include "passes/kernels/contract_parts.h"
#include "passes/kernels/stored_weights.h"

enum {
  GROUP = 4,
  GROUPS = 8,            /* copied out; 8 * 2 * 15 * 128 < 2^15 */
  TWO_ONES = 1 << 16 | 1 /* i16 */
};

typedef struct Bytes {
  const Stored *s;
  const StoredPanel *pn;
  const Expr *h, *w; /* the first row */
  int rows;
  int tile;   /* the local of scaled sums */
  int sums;   /* of a block, i32 */
  int halves; /* of GROUPS groups, two i16 in an i32; or `sums` */
  int in_word;
} Bytes;

/* ---- which instruction ---- */

static bool sums_in_16(const Contract *c) {
  const Target *const t = c->l->c->target;
  return c->stored->bits < 8 && target_has(t, FEATURE_PAIRS) && !contract_has_dot4(t, DT_U8, DT_I8);
}

/* Weights of few bits are bytes of either kind. */
static ExprOp dot_op(const Contract *c) {
  const Target *const t = c->l->c->target;
  const bool signed_only = target_has(t, FEATURE_DOTPROD) || target_has(t, FEATURE_LONGMUL);
  if (sums_in_16(c)) return EX_dot2x2_u8i8;
  return c->stored->bits < 8 && signed_only ? EX_dot4_i8i8 : EX_dot4_u8i8;
}

/* ---- operands ---- */

/* Group `group` of a word, as four bytes. */
static const Expr *weights_at(Contract *c, const Bytes *f, const Expr *word, const Expr *group,
                              const Expr *lane) {
  const Stored *s = f->s;
  ExprPool *p = c->p;
  const Expr *v = ex_bits(p, DT_I32, stored_row(c, s->data, s->rows, f->pn, word, lane));
  if (s->bits == 8) return v;
  const Expr *shift = ex_cast(p, DT_I32, ex_mul(p, group, num(c, s->bits)));
  const int64_t mask = ((INT64_C(1) << s->bits) - 1) * 0x01010101;
  return ex_and(p, ex_op(p, EX_shr, v, shift, NULL), ex_int(p, DT_I32, mask));
}

static const Expr *row_at(Contract *c, const Bytes *f, const Expr *r, const Expr *step) {
  const Expr *saved = c->k[0];
  c->k[0] = step;
  const Expr *a = contract_a_value(c, f->h, ex_add(c->p, f->w, r));
  c->k[0] = saved;
  return a;
}

/* Input k of the node, which has a number for each block of a row. */
static const Expr *of_block(Contract *c, const Bytes *f, int k, const Expr *r, const Expr *block) {
  return c->a_block(c, c->anchor->def->in[k], ex_add(c->p, f->w, r), block);
}

/* What a block's sum begins with. */
static const Expr *less_zeros(Contract *c, const Bytes *f, const Expr *r, const Expr *block,
                              const Expr *lane) {
  const Stored *s = f->s;
  ExprPool *p = c->p;
  const Expr *z = ex_int(p, DT_I32, -(int64_t)s->zero);
  if (s->zeros < 0 && s->zero == 0) return z;
  if (s->zeros >= 0) {
    z = ex_cast(p, DT_I32, stored_row(c, s->zeros, s->blocks, f->pn, block, lane));
    z = ex_op(p, EX_neg, z, NULL, NULL);
  }
  return ex_mul(p, of_block(c, f, 5, r, block), z);
}

/* ---- sums ---- */

/* For each row and lane: local[at] = value; *r, *j and *at are to be used in it. */
typedef struct Each {
  const Expr *r, *j, *at;
} Each;

static Each each_of(const Contract *c, const Bytes *f) {
  Each e = {.r = var(c, "r", f->rows), .j = var(c, "j", f->pn->width)};
  e.at = ex_add(c->p, ex_mul(c->p, e.r, num(c, f->pn->width)), e.j);
  return e;
}

static Stmt *set_each(const Contract *c, const Each *e, int local, const Expr *value) {
  Stmt *set = stmt_set(arena(c), local, e->at, value);
  return stmt_for(arena(c), FOR_UNROLL, e->r, stmt_for(arena(c), FOR_VECTOR, e->j, set));
}

static const Expr *i32_of(const Contract *c, int local, const Each *e) {
  return ex_local(c->p, DT_I32, local, e->at);
}

static int new_sums(Contract *c, const Bytes *f, const char *name) {
  const Local l = {
      .name = name, .dtype = DT_I32, .count = (int64_t)f->rows * f->pn->width, .memory = MEM_REGS};
  return kernel_add_local(c->l->mod, c->b.k, l);
}

/* Adds `words` words from `first` on, all copied out. */
static Stmt *add_words(Contract *c, const Bytes *f, const Expr *first, int64_t words) {
  const Expr *o = var(c, "o", words), *u = var(c, "u", f->in_word);
  const Expr *word = ex_add(c->p, first, o);
  const Expr *step = ex_add(c->p, ex_mul(c->p, word, num(c, f->in_word)), u);
  const Each e = each_of(c, f);
  const Expr *a = row_at(c, f, e.r, step), *b = weights_at(c, f, word, u, e.j);
  const ExprOp op = dot_op(c);
  const Expr *was = i32_of(c, f->halves, &e);
  const Expr *sum = op == EX_dot4_i8i8 ? ex_op(c->p, op, a, b, was) : ex_op(c->p, op, b, a, was);
  Stmt *all = stmt_for(arena(c), FOR_UNROLL, u, set_each(c, &e, f->halves, sum));
  return stmt_for(arena(c), FOR_UNROLL, o, all);
}

/* Sums of 16 bits, added to the others. */
static const Expr *widened(const Contract *c, const Bytes *f, const Each *e, const Expr *sum) {
  return ex_op(c->p, EX_dot2_i16, i32_of(c, f->halves, e), ex_int(c->p, DT_I32, TWO_ONES), sum);
}

/* A block in parts of GROUPS groups; each begins with zeros where sums are in 16 bits. */
static Stmt *add_parts(Contract *c, const Bytes *f, const Expr *block, int64_t words) {
  const int64_t parts = f->s->words / words;
  const Expr *o = var(c, "g", parts);
  const Expr *first =
      ex_add(c->p, ex_mul(c->p, block, num(c, f->s->words)), ex_mul(c->p, o, num(c, words)));
  StmtList out = {0};
  const Each z = each_of(c, f), e = each_of(c, f);
  const bool narrow = f->halves != f->sums;
  if (narrow) stmt_add(&out, stmt_local(arena(c), f->halves));
  if (narrow) stmt_add(&out, set_each(c, &z, f->halves, ex_int(c->p, DT_I32, 0)));
  stmt_add(&out, add_words(c, f, first, words));
  if (narrow) stmt_add(&out, set_each(c, &e, f->sums, widened(c, f, &e, i32_of(c, f->sums, &e))));
  return stmt_for(arena(c), FOR_SERIAL, o, out.first);
}

static Stmt *add_block(Contract *c, Bytes f, const Expr *block) {
  StmtList out = {0};
  const int64_t most = GROUPS / f.in_word, words = f.s->words < most ? f.s->words : most;
  const Each z = each_of(c, &f), e = each_of(c, &f);
  f.sums = new_sums(c, &f, "u");
  f.halves = sums_in_16(c) ? new_sums(c, &f, "v") : f.sums;
  stmt_add(&out, stmt_local(arena(c), f.sums));
  stmt_add(&out, set_each(c, &z, f.sums, less_zeros(c, &f, z.r, block, z.j)));
  stmt_add(&out, add_parts(c, &f, block, words));
  const Expr *scale = ex_mul(c->p, stored_row(c, f.s->scales, f.s->blocks, f.pn, block, e.j),
                             of_block(c, &f, 4, e.r, block));
  const Expr *sum = ex_cast(c->p, DT_F32, i32_of(c, f.sums, &e));
  const Expr *was = ex_local(c->p, DT_F32, f.tile, e.at);
  stmt_add(&out, set_each(c, &e, f.tile, ex_op(c->p, EX_fma, sum, scale, was)));
  return out.first;
}

Stmt *stored_multiply_bytes(Contract *c, const StoredPanel *pn, int local, const Expr *h,
                            const Expr *w, int rows) {
  const Bytes f = {.s = c->stored,
                   .pn = pn,
                   .h = h,
                   .w = w,
                   .rows = rows,
                   .tile = local,
                   .in_word = c->stored->per / GROUP};
  const Expr *b = var(c, "b", f.s->blocks);
  return stmt_for(arena(c), FOR_SERIAL, b, add_block(c, f, b));
}
