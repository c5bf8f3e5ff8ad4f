/* What contract_block.c has for contract_emit.c. Internal to these. */
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
