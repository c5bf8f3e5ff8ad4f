/* What contract_block.c, contract_multiply.c and contract_emit.c have of each other. Internal to
 * these. */
#pragma once
#include "passes/kernels/contract.h"

typedef struct Blocks {
  int th, tw;
  const Expr *rows, *size, *count; /* lines (or, flat, rows), per block, blocks */
  const Lines *lines;              /* instead: just these */
} Blocks;

/* Sets the loops of k (c->loop, c->hoisted) and how the rows are cut, by the plan. */
Blocks contract_blocks(Contract *c);
/* Sets c->group and makes room for partial sums (c->sums). Returns the number of groups of panels,
 * the narrower last panel being a group of its own. */
const Expr *contract_count_groups(Contract *c, const Blocks *bl);
/* The loops of k as the node has them, none hoisted; panels one by one. */
void contract_plain_loops(Contract *c);
/* Whether B is to be prefetched. */
void contract_choose_prefetch(Contract *c);
const Expr *contract_sum_rows(const Contract *c, const Blocks *bl); /* partial sums of a block */
const Expr *contract_k_total(const Contract *c);                    /* steps of k */

typedef struct Panel {
  const Expr *col;  /* first column */
  const Expr *cols; /* valid columns, constant or symbolic */
  int vectors;
  const Expr *b_base; /* offset of the packed panel */
  int b_width;        /* lanes from one row of the packed panel to the next */
  int sums;           /* scratch parameter of partial sums, or -1 */
  const Expr *group;  /* how many panels, from this one on, are done together; NULL: one */
  const Expr *member; /* which of them this is */
} Panel;

/* Where a tile stands: its first row, its number among the tiles of the block (for prefetching, or
 * NULL), and the first row's place among the partial sums. */
typedef struct Spot {
  const Expr *h, *w, *tile, *sum;
  int64_t tiles; /* how many values `tile` has; 0: not known */
  int th, tw;
} Spot;

/* ---- short names ---- */
static inline Arena *arena(const Contract *c) { return c->l->m->arena; }
static inline const Expr *num(const Contract *c, int64_t v) { return ex_i64(c->p, v); }
static inline const Expr *var(const Contract *c, const char *stem, int64_t n) {
  return ex_var(c->p, stem, num(c, n));
}
static inline int width_of(const Contract *c, const Panel *pn) { return pn->vectors * c->lanes; }
static inline const Expr *zero(const Contract *c) { return ex_const(c->p, c->types->acc, 0); }
static inline const Expr *local_of(const Contract *c, int local, const Expr *at) {
  return ex_local(c->p, c->types->acc, local, at);
}

/* A register tile or a stack copy of `count` sums. */
int contract_sums_local(Contract *c, const char *name, int64_t count, bool stack);

/* ---- contract_multiply.c ---- */
/* Row number i of a tile. */
void contract_tile_row(const Contract *c, const Spot *s, const Expr *i, const Expr **rh,
                       const Expr **rw);
/* The operands of a multiply-add at the current k: of row (h, w), of column `lane` of the panel. */
const Expr *contract_a_value(Contract *c, const Expr *h, const Expr *w);
const Expr *contract_b_value(Contract *c, const Panel *pn, const Expr *lane);
/* Where the packed panel has the current k. */
const Expr *contract_b_row(const Contract *c, const Panel *pn);
/* One element of A's step, as contract_operand_a has it. */
const Expr *contract_a_element(Contract *c, const Expr *h, const Expr *w, int i);
/* Whether tiles ask which steps of k count for them. */
bool contract_asks_live(const Contract *c);
/* body, where step i of the contraction counts for the tile. */
Stmt *contract_if_live(Contract *c, int i, const Spot *s, Stmt *body);
/* Loops of k in [from, to) around body, which is for the tile at s (NULL: for several). */
Stmt *contract_k_loops(Contract *c, Stmt *body, int from, int to, const Spot *s);
/* Adds to the tile `local` all products of the loops of k that stand inside. */
Stmt *contract_multiply(Contract *c, const Panel *pn, int local, const Spot *s);

/* Step `at` of the innermost loop of k asks for its share of the block of B that comes next (or NULL); steps
 * in which a tile asks for one line. */
Stmt *contract_prefetch_at(Contract *c, const Panel *pn, const Spot *s, const Expr *at);
int64_t contract_prefetch_share(const Contract *c, const Panel *pn, const Spot *s);

/* ---- contract_gather.c ---- */
/* Copies the block of A of `count` rows from `first` on, at the current outer loops of k, to scratch, from
 * where tiles read it until c->gathered is -1 again. */
Stmt *contract_gather(Contract *c, const Expr *first, const Expr *count, const Blocks *bl);
/* Element of A from there. */
const Expr *contract_gathered(const Contract *c, const Expr *w);

/* ---- contract_emit.c ---- */
/* Would the epilogue, unrolled over a tile, be long code for nothing? Sigmoid, erf and the like. */
bool contract_is_heavy(Contract *c);
/* Stores lane j of the row (h, w). */
Stmt *contract_store_lanes(Contract *c, const Panel *pn, const Expr *h, const Expr *w,
                           const Expr *j, const Expr *sum);

/* ---- contract_matrix.c ---- */
/* Whether rows of A lie so that matrix registers can take them. */
bool contract_matrix_fits(Contract *c);
/* The same of registers of two rows and two columns; and where c has none, false. */
bool contract_squares_fit(Contract *c);
/* Sets the tile `local` to all products. */
Stmt *contract_multiply_squares(Contract *c, const Panel *pn, int local, const Spot *s);
/* All tiles of matrix registers of a block of `count` rows (flat) or lines from `first`. */
Stmt *contract_matrix_tiles(Contract *c, const Panel *pn, const Blocks *bl, const Expr *first,
                            const Expr *count);
