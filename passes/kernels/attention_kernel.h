/* An attention kernel under construction: what its operands (attention_operands.c) and its loops (kernels/attention.c) share. Internal to these. */
#pragma once
#include "passes/kernels/contract.h"

typedef struct Attn {
  Lower *l;
  ExprPool *p;
  KernelBuild b;
  const Attention *at;
  const Value *root, *anchor;
  const Place *to;
  int lanes;
  Tile scores_tile, values_tile;
  int64_t rows, keys;  /* of a block; room for whole tiles and panels */
  int64_t room, width; /* rows and columns of the scores in scratch */
  int64_t dv;          /* columns of the values, whole vectors */
  bool online;         /* more than one block of keys */
  bool skips;          /* masks may hide whole blocks of keys */
  bool stored;         /* the product with the values goes straight to the output */
  const Expr *batch[MAX_RANK], *score_at[MAX_RANK]; /* index into x; into all scores */
  const Place *kp, *vp;     /* packed keys and values; NULL: read in place */
  bool q_direct;            /* queries are read in place */
  int q, s, acc, m, sum, c; /* scratch parameters */
} Attn;

static inline Arena *arena(const Attn *c) { return c->l->m->arena; }
static inline const Expr *num(const Attn *c, int64_t v) { return ex_i64(c->p, v); }
static inline const Expr *var(const Attn *c, const char *stem, const Expr *n) {
  return ex_var(c->p, stem, n);
}
static inline const Expr *plus(const Attn *c, const Expr *a, const Expr *b) {
  return ex_add(c->p, a, b);
}
static inline const Expr *times(const Attn *c, const Expr *a, int64_t k) {
  return ex_mul(c->p, a, num(c, k));
}
static inline const Expr *f32(const Attn *c, double v) { return ex_float(c->p, DT_F32, v); }
static inline const Expr *load(const Attn *c, int id, const Expr *at) {
  return ex_load(c->p, DT_F32, id, at, NULL);
}
static inline Stmt *loop(const Attn *c, ForKind kind, const Expr *v, Stmt *body) {
  return stmt_for(arena(c), kind, v, body);
}
static inline int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
static inline int panel_width(const Attn *c) { return c->scores_tile.vectors * c->lanes; }

/* Chooses how the right-hand sides and the queries are read; *steps pack what cannot be read in
 * place. Sizes and tiles must be known. */
void attn_operands(Attn *c, Step **steps);
/* Element of the queries at a row of the block that starts with row `first` of the head; of the
 * keys, at lane j of a panel of the head; of the values. */
const Expr *attn_query(Attn *c, const Expr *first, const Expr *row, const Expr *d);
const Expr *attn_key(Attn *c, const Expr *panel, const Expr *d, const Expr *j);
const Expr *attn_value(Attn *c, const Expr *key, const Expr *col);
/* The query itself, for the copy. */
const Expr *attn_query_at(Attn *c, const Expr *row, const Expr *d);

/* ---- what templates of all targets have in common ---- */
/* The head's index from its number, into c->batch and c->score_at. */
void attn_bind_batch(Attn *c, const Expr *flat);
/* Element of operand v under the batch index from[] of a value of rank `rank`, as f32. */
const Expr *attn_operand(Attn *c, KernelBuild *b, const Value *v, bool trans, int rank,
                         const Expr *const *from, const Expr *row, const Expr *col);
/* The masked score of a row at a key, of the sum of products `raw`. */
const Expr *attn_masked(Attn *c, const Expr *row, const Expr *key, const Expr *raw);
/* What is subtracted from the scores of a row: its maximum, or 0 while there is none. */
const Expr *attn_base(Attn *c, const Expr *max);
/* One by the sum of a row. */
const Expr *attn_inverse(Attn *c, const Expr *sum);
/* Stores column `col` of a row: y times the row's factor, and the epilogue. */
Stmt *attn_store(Attn *c, const Expr *row, const Expr *col, const Expr *y, const Expr *factor);
